"""Text for terminals, reports and pictures: names of any script, in a known number of columns."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import textwrap
import unicodedata

# Invisible, and part of words and emoji: a terminal does nothing else with them.
JOINERS = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"


def one_line(text: str) -> str:
    """`text` without line breaks and control characters, which a terminal might act on."""
    return "".join(
        c if c.isprintable() or c in JOINERS else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def columns(text: str) -> int:
    """How many columns `text` takes on a screen, where a Chinese character takes two.

    Accents and marks that stand with their letter take none.
    """
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text if not _rides(c))


def _rides(c: str) -> bool:
    return unicodedata.category(c) in ("Mn", "Me", "Cf")


def shorten(text: str, limit: int) -> str:
    """`text` in one line of at most `limit` columns, cut with an ellipsis."""
    text = one_line(text)
    if columns(text) <= limit:
        return text
    while columns(text) > limit - 1:
        text = text[:-1]
    return text + "…"


def fit(text: str, width: int) -> str:
    """`text` in one line of exactly `width` columns: shortened, or filled with spaces."""
    text = shorten(text, width)
    return text + " " * (width - columns(text))


def left(text: str, width: int) -> str:
    """`text` at the left of at least `width` columns."""
    return text + " " * (width - columns(text))


def right(text: str, width: int) -> str:
    """`text` at the right of at least `width` columns."""
    return " " * (width - columns(text)) + text


def counted(number: int, what: str) -> str:
    """ "1 photo", "1,200 photos", "2 unreadable files", "3 classes", "4 copies"."""
    if number == 1:
        return f"1 {what}"
    if re.search(r"[^aeiou]y$", what):
        return f"{number:,} {what[:-1]}ies"
    return f"{number:,} {what}{'es' if what.endswith(('s', 'x', 'z', 'ch', 'sh')) else 's'}"


def command(*words: object, windows: bool = os.name == "nt") -> str:
    """`words` as a command line to copy into a shell, each one word there, spaces and all.

    On Windows in double quotes, which cmd and PowerShell both know.
    """
    texts = [str(word) for word in words]
    return " ".join(map(_in_double_quotes, texts)) if windows else shlex.join(texts)


def _in_double_quotes(word: str) -> str:
    if '"' in word or re.fullmatch(r"[\w.:=/\\+-]+", word):
        return subprocess.list2cmdline([word])
    return f'"{word}"'


def no_markup(text: str) -> str:
    """`text` for Markdown, in which nothing acts as markup."""
    printable = "".join(c if c.isprintable() or c in JOINERS else " " for c in text)
    return "".join(f"\\{c}" if c in r"\`*[]<>|#&" else c for c in printable)


# What a spreadsheet takes for the start of a formula, in the wide forms of East Asia, too; or drops
# before it looks for one.
_FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
_NUMBER = re.compile(
    r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?|[+-]?(inf|nan)", re.ASCII | re.IGNORECASE
)


def no_formula(cell: object) -> str:
    """A cell of CSV that no spreadsheet takes for a formula: such text gets an apostrophe.

    Numbers are no formulas, though they may begin with a sign: they stay what they are, and so does
    a class called "-1". Text that begins with an apostrophe before a formula gets one more, so
    whoever takes one apostrophe off before a formula has every text back. CSV has no quotes that a
    spreadsheet minds and a program does not see.
    """
    text = "" if cell is None else str(cell)
    bare = text.lstrip("'")
    spaced = bare.lstrip(" \N{NO-BREAK SPACE}\N{ZERO WIDTH NO-BREAK SPACE}")
    is_formula = spaced.startswith(_FORMULA) and not _NUMBER.fullmatch(bare)
    return f"'{text}" if is_formula else text


# Chinese, Japanese and Korean break anywhere but before and after such punctuation.
_WIDE = (
    r"\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60"
)
_OPENING, _CLOSING = "（《「『【“‘", "，。、；：？！）》」』】"
UNBROKEN = rf"[{_OPENING}]*(?:[{_WIDE}]|[^\s{_WIDE}{_OPENING}]+)[{_CLOSING}”’\]]*|[{_OPENING}]+"
_PARTS = re.compile(rf"\s+|{UNBROKEN}")


def wrap(text: str, *, indent: str = "") -> str:
    """`text` as a paragraph of 80 columns; its further lines hang under an `indent`."""
    further = indent and indent + "  "
    if columns(text) != len(text):
        return _wrap_wide(text, indent, further)
    return textwrap.fill(
        text,
        width=80,
        initial_indent=indent,
        subsequent_indent=further,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _wrap_wide(text: str, indent: str, further: str) -> str:
    """As `wrap`; between sentences that end with wide punctuation is no space."""
    lines = [indent]
    for part in _PARTS.findall(re.sub(rf"([{_CLOSING}])\s+", r"\1", text)):
        begun = bool(lines[-1].strip())
        if begun and columns(lines[-1] + part.rstrip()) > 80:
            lines[-1] = lines[-1].rstrip()
            lines.append(further)
            begun = False
        lines[-1] += part if begun else part.lstrip()
    return "\n".join(lines).rstrip()
