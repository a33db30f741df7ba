"""What people read, in their language: English as written in the code, Chinese by catalogues.

`CLIPTUNE_LANG` (en, zh) decides, else the locale (`LC_ALL`, `LC_MESSAGES`, `LANG`). Error messages,
keys and names of files stay English everywhere: people search for those. The catalogues are
gettext's, `locale/zh/LC_MESSAGES/*.po` with the compiled `.mo` beside each; an English text is its
own key, and what a catalogue lacks is shown in English. `make catalogues` finds the texts:

    _("Report: {page}").format(page=page)       shown at once; `translated as _`
    amount(3, "photo")                          the same for "3 photos"
    TITLES = (marked("top-1, %"), ...)          found here, translated where shown: `_(title)`
    said("{size} cannot be read", size=size)    English in JSON, `_(it)` where it is shown
"""

from __future__ import annotations

import functools
import gettext
import locale
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cliptune.text import counted

LANGUAGES = ("en", "zh")
CATALOGUES = ("screen", "pages")  # `.po` files: what commands print; what a browser shows
COUNTED = "{{number:,}} {what}"  # the key of a counted thing: "{number:,} photo"
FOLDER = Path(__file__).parent / "locale"


def language() -> str:
    """The language asked for, one of `LANGUAGES`; English for any other."""
    asked = ("CLIPTUNE_LANG", "LC_ALL", "LC_MESSAGES", "LANG")
    name = next((os.environ[key] for key in asked if os.environ.get(key)), None)
    if name is None:  # Windows sets none of them
        name = locale.getlocale()[0] or "en"
    return "zh" if name.lower().startswith(("zh", "chinese")) else "en"


@functools.cache
def catalogue(language: str) -> gettext.NullTranslations:
    """The texts of `language`, those of all `CATALOGUES` together."""
    texts = gettext.NullTranslations()
    if language != "en":
        for name in CATALOGUES:
            texts.add_fallback(gettext.translation(name, FOLDER, [language], fallback=True))
    return texts


def translated(text: str) -> str:
    """`text` in the reader's language. In code: `from cliptune.language import translated as _`."""
    if isinstance(text, Said):
        return text.translated()
    return catalogue(language()).gettext(text) if text else text


def marked(text: str) -> str:
    """`text` itself, which is translated later, where it is shown."""
    return text


def amount(number: int, what: str) -> str:
    """`counted(number, what)` in the reader's language: "3 photos"."""
    return counting(number, what).translated()


class Said(str):
    """An English sentence that keeps its parts, so that it can be shown in another language.

    It is what goes into JSON; `translated` gives what people read.
    """

    template: str
    values: dict[str, Any]

    def __new__(cls, template: str, **values: Any) -> Said:
        said = super().__new__(cls, template.format(**values))
        said.template, said.values = template, values
        return said

    def __getnewargs_ex__(self) -> tuple[tuple[str], dict[str, Any]]:
        return (self.template,), self.values  # of copies, and on the way to other processes

    def translated(self) -> str:
        """The sentence in the reader's language, its values too."""
        values = {k: translated(v) if isinstance(v, Said) else v for k, v in self.values.items()}
        return translated(self.template).format(**values)


def said(template: str, **values: Any) -> Said:
    """`template.format(**values)`, translated later, where it is shown."""
    return Said(template, **values)


def joined(texts: Sequence[str], between: str) -> Said:
    """`between.join(texts)`, translated later: `joined(names, " or ")`."""
    values = {f"text{place}": text for place, text in enumerate(texts)}
    template = "{between}".join(f"{{{key}}}" for key in values)
    return Said(template, between=Said(between), **values)


class _Counted(Said):
    """A number of things, whose English has a plural."""

    def __new__(cls, what: str, *, number: int) -> _Counted:
        said = str.__new__(cls, counted(number, what))
        said.template, said.values = what, {"number": number}
        return said

    def translated(self) -> str:
        key = COUNTED.format(what=self.template)
        text = translated(key)
        return str(self) if text == key else text.format(**self.values)


def counting(number: int, what: str) -> Said:
    """`counted(number, what)`, a value of `said`."""
    return _Counted(what, number=number)
