"""Help in writing without spaces, at which alone rich breaks lines: else it cuts sentences off."""

from __future__ import annotations

import re

import rich._wrap
import rich.text

from cliptune.text import UNBROKEN

_divide_line = rich._wrap.divide_line


def break_anywhere() -> None:
    """Let rich, in this process, break lines wherever Chinese does, and cut no word off."""
    rich._wrap.re_word = re.compile(rf"\s*(?:{UNBROKEN})\s*")
    rich.text.divide_line = _folded  # type: ignore[attr-defined]
    rich.text.Text.rstrip_end = _without_spaces_beyond  # type: ignore[method-assign]


def _folded(text: str, width: int, fold: bool = True) -> list[int]:
    return _divide_line(text, width, fold=True)


def _without_spaces_beyond(self: rich.text.Text, size: int) -> None:
    """Remove spaces at the end that stand beyond `size` columns; rich's own counts characters."""
    spaces = len(self.plain) - len(self.plain.rstrip())
    if (beyond := min(spaces, self.cell_len - size)) > 0:
        self.right_crop(beyond)
