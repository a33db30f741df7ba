"""Help in writing without spaces, at which alone rich breaks lines: else it cuts sentences off."""

from __future__ import annotations

import re

import rich._wrap
from rich.text import Text

from cliptune.text import UNBROKEN


def break_anywhere() -> None:
    """Let rich, in this process, break lines wherever Chinese does."""
    rich._wrap.re_word = re.compile(rf"\s*(?:{UNBROKEN})\s*")
    Text.rstrip_end = _without_spaces_beyond  # type: ignore[method-assign]


def _without_spaces_beyond(self: Text, size: int) -> None:
    """Remove spaces at the end that stand beyond `size` columns; rich's own counts characters."""
    spaces = len(self.plain) - len(self.plain.rstrip())
    if (beyond := min(spaces, self.cell_len - size)) > 0:
        self.right_crop(beyond)
