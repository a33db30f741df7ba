"""Pages for people: one self-contained HTML file each, without scripts or pictures from elsewhere.

Templates lie in `cliptune/pages/`. Whatever is put into one is escaped by Jinja2. Their texts are
English, and translated by `{% trans %}` and `_()`: a line break in a text is a space in its key.
"""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from PIL import Image

from cliptune.language import amount, catalogue
from cliptune.language import language as readers_language

if TYPE_CHECKING:
    from jinja2 import Environment

_QUALITY = 80  # of the JPEGs inside
TAGS = {"en": "en", "zh": "zh-CN"}  # of HTML and HTTP


def render(template: str, *, language: str | None = None, **values: Any) -> str:
    """The page `template` (a file name in `cliptune/pages/`) filled with `values`.

    `language` is one of `cliptune.language.LANGUAGES`: by default what the reader asked for.
    """
    language = language or readers_language()
    return environment(language).get_template(template).render(**values)


def environment(language: str) -> Environment:
    """What turns templates into pages in `language`."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from cliptune.text import one_line

    found = Environment(
        loader=PackageLoader("cliptune", "pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.i18n"],
    )
    texts = catalogue(language)

    def translated(text: str) -> str:
        key = re.sub(r"\s*\n\s*", " ", text)
        said = texts.gettext(key)
        return text if said == key else said  # English keeps its line breaks

    found.install_gettext_callables(  # type: ignore[attr-defined]
        translated, texts.ngettext, newstyle=True
    )
    found.globals["html_language"] = TAGS[language]
    # File names of another encoding hold characters that no UTF-8 file can.
    found.filters["name"] = lambda text: one_line(str(text))
    found.filters["thousands"] = lambda number: f"{number:,}"
    found.filters["counted"] = amount
    found.filters["sentences"] = sentences
    return found


def sentences(texts: Sequence[str]) -> str:
    """`texts` after one another, as the reader's language writes them."""
    return ("" if readers_language() == "zh" else " ").join(texts)


def as_script(values: Any) -> str:
    """JSON that may stand inside a script element: nothing in it closes the element."""
    text = json.dumps(values, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def picture(image: Image.Image, *, edge: int) -> str:
    """A data URI: `image` (RGB) as a JPEG whose longer edge has at most `edge` pixels."""
    small = image.copy()
    small.thumbnail((edge, edge))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")
