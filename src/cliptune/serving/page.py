"""The page at `/`: one file, all in it, in each language that there is.

Whoever asks a server sits at a browser of their own: its `Accept-Language` decides which language
is shown first, unless `CLIPTUNE_LANG` says so for everyone. The server's own locale says nothing.
"""

from __future__ import annotations

import os
from functools import cache

from cliptune.html import TAGS, as_script, render
from cliptune.language import LANGUAGES, catalogue, language, marked

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; connect-src 'self'; img-src 'self' blob: data:; "
        "style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
    "Vary": "Accept-Language",
}
NAMES = {"en": "English", "zh": "中文"}  # of languages, each in its own words
# What the page's script shows, by the names it has there; it fills in what stands in braces.
TEXTS = {
    "title": marked("What is on the photo?"),
    "classes": marked("Classes it knows"),
    "key": marked("This server asks for a key:"),
    "use": marked("Use it"),
    "drop": marked("Drop photos here, or choose them"),
    "paste": marked("Pasting works, too (Ctrl+V)"),
    "camera": marked("Take a photo"),
    "csv": marked("Download as CSV"),
    "clear": marked("Clear"),
    "all": marked("All photos"),
    "photo": marked("Photo"),
    "answer": marked("Answer"),
    "probability": marked("Probability"),
    "note": marked("Note"),
    "unknown": marked("Perhaps none of these: it resembles the photos learned from too little."),
    "none": marked("None of these: no class reaches its threshold."),
    "oneOf": marked("At {rate} one of: {names}"),
    "sureOf": marked("At {rate} sure of: {name}"),
    "sureOfNone": marked("At {rate} sure of: no class or parent"),
    "look": marked("Where did it look?"),
    "looking": marked("Looking …"),
    "back": marked("Show the photo"),
    "seen": marked("Coloured: the parts that spoke for {name}"),
    "working": marked("{n} being answered …"),
    "doneOne": marked("1 photo answered."),
    "done": marked("{n} photos answered."),
    "numberOne": marked("1 class"),
    "number": marked("{n} classes"),
    "loading": marked("The classifier is being loaded …"),
    "gone": marked("The server does not answer. Is it still running?"),
    "large": marked("larger than this server takes: {limit} B"),
    "pasted": marked("pasted photo"),
    "comma": marked(", "),
    "kept": marked("Photos go to this server alone, which keeps none."),
    "api": marked("For programs: OpenAPI"),
}


def language_for(accepted: str) -> str:
    """The language to show first to a browser whose `Accept-Language` header is `accepted`."""
    return language() if os.environ.get("CLIPTUNE_LANG") else preferred(accepted)


def preferred(accepted: str) -> str:
    """Of `LANGUAGES` the one that `accepted` weighs most (RFC 9110, 12.5.4); else English."""
    weights: dict[str, float] = {}
    for entry in accepted.lower().split(","):
        tag, *parameters = (part.strip() for part in entry.split(";"))
        name = tag.partition("-")[0]
        if name in LANGUAGES:
            weights[name] = max(weights.get(name, 0.0), _weight(parameters))
    best = max(weights, key=weights.__getitem__, default="en")  # of equals the first
    return best if weights.get(best) else "en"


def _weight(parameters: list[str]) -> float:
    """The parameter q: 1 where there is none, 0 where it is no number."""
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return min(1.0, float(parameter[2:]))
            except ValueError:
                return 0.0
    return 1.0


@cache
def page(language: str) -> str:
    """The page, which asks its server for all that it shows; `language` is shown first."""
    languages = {
        each: {
            "name": NAMES[each],
            "tag": TAGS[each],
            "texts": {name: catalogue(each).gettext(text) for name, text in TEXTS.items()},
        }
        for each in LANGUAGES
    }
    return render("serve.html", language=language, shown=language, languages=as_script(languages))
