"""API keys: those of a file, one to a line."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

from cliptune.errors import UserError
from cliptune.foreign_errors import system_reason

SHORTEST = 16  # characters


class Keys:
    """The keys in the file `path`, read again by `read`; `#` begins a line of comment.

    Raises `UserError` for a file that cannot be read, that has no key, or a short one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._digests: list[bytes] = []
        self.read()

    def read(self) -> None:
        """Take the keys that are in the file now; where it is at fault, those before stay."""
        try:
            lines = self._path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            why = system_reason(error) if isinstance(error, OSError) else "it is no text"
            raise UserError(f"--api-key-file {self._path}: {why}.") from None
        keys = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        if not keys or min(map(len, keys)) < SHORTEST:
            found = "no key" if not keys else f"one of {min(map(len, keys))} characters"
            raise UserError(
                f"--api-key-file {self._path}: found {found}; expected one key to a line, of "
                f"{SHORTEST} characters or more. To make one: openssl rand -hex 32"
            )
        self._digests = [_digest(key) for key in keys]

    def hold(self, given: str) -> bool:
        """Whether `given` is one of them; it takes the same time whichever it is, and if none."""
        found = [hmac.compare_digest(_digest(given), digest) for digest in self._digests]
        return any(found)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
