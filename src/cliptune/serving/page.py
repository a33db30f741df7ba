"""The page at `/`: one file, all in it."""

from __future__ import annotations

from functools import cache

from cliptune.html import render

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; connect-src 'self'; img-src 'self' blob: data:; "
        "style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


@cache
def page() -> str:
    """The page, which asks its server for all that it shows."""
    return render("serve.html")
