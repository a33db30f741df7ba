"""What people read, in their language: English as written in the code, Chinese by catalogues.

`CLIPTUNE_LANG` (en, zh) decides, else the locale (`LC_ALL`, `LC_MESSAGES`, `LANG`). Error messages,
keys and names of files stay English everywhere: people search for those. The catalogues are
gettext's, `locale/zh/LC_MESSAGES/*.po` with the compiled `.mo` beside each; an English text is its
own key, and what a catalogue lacks is shown in English.
"""

from __future__ import annotations

import functools
import gettext
import locale
import os
from pathlib import Path

LANGUAGES = ("en", "zh")
CATALOGUES = ("screen", "pages")  # `.po` files: what commands print; what a browser shows
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
    return catalogue(language()).gettext(text) if text else text
