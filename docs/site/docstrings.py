"""The package's docstrings, which are plain text, as Sphinx reads them.

Names stand in `single` marks (the default role), what is indented is code, and nothing else is
markup: a star or a bar in a sentence is a star or a bar.
"""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

_MARKED = re.compile(r"(`[^`]+`)")
_ITEM = re.compile(r"(?:- |\d+\. )")


def as_restructured(lines: list[str]) -> list[str]:
    """The lines of a docstring, with what reStructuredText would misread made safe."""
    made: list[str] = []
    in_code = in_item = False
    for line in lines:
        indented = line.startswith("    ")
        if indented and not in_code and not in_item and (not made or not made[-1].strip()):
            made += ["::", ""]
            in_code = True
        elif line.strip() and not line.startswith(" "):
            in_code = False
            in_item = bool(_ITEM.match(line))
        made.append(line if in_code else _safe(line))
    return made


def _safe(line: str) -> str:
    parts = _MARKED.split(line)
    return "".join(
        part if part.startswith("`") else re.sub(r"([*|\\]|_\b)", r"\\\1", part) for part in parts
    )


def _process(
    _app: Sphinx, _what: str, _name: str, _object: Any, _options: Any, lines: list[str]
) -> None:
    lines[:] = as_restructured(lines)


def _skip(
    _app: Sphinx, _what: str, name: str, _object: Any, _skipped: bool, _options: Any
) -> bool | None:
    """Leave out what scikit-learn puts into its estimators (`set_fit_request` and its like)."""
    return True if name.startswith("set_") and name.endswith("_request") else None


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("autodoc-process-docstring", _process)
    app.connect("autodoc-skip-member", _skip)
    return {"parallel_read_safe": True}
