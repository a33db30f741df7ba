"""What may have been meant by a name or a path that is not there."""

from __future__ import annotations

import difflib
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from urllib.parse import unquote

from cliptune.errors import UserError
from cliptune.text import command

MOST_ENTRIES = 10_000  # of a folder, among which a near name is looked for
# "https://", and what a path makes of it; of two letters or more, since C:/ is a drive.
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+", re.ASCII)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The one of `known` that `name` may be a slip of: near in letters, or begun alike."""
    by_key = {_key(each): each for each in known}
    key = _key(name)
    if near := difflib.get_close_matches(key, list(by_key), n=1, cutoff=0.65):
        return by_key[near[0]]
    begun = [k for k in by_key if len(k) > 2 and key.startswith(k)]  # "validation" for val
    return by_key[begun[0]] if begun else None


def _key(name: str) -> str:
    return re.sub(r"[\s_-]+", "_", unicodedata.normalize("NFC", name).casefold())


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """ " Did you mean 'collie'?", or nothing where none of `known` is near to `name`."""
    near = nearest(name, known)
    return f" Did you mean '{near}'?" if near else ""


def check_choice(
    what: str, given: str, choices: Sequence[str], *, refusal: type[UserError] = UserError
) -> None:
    """Raise `refusal` unless `given`, the value of `what`, is one of `choices`."""
    if given not in choices:
        raise refusal(
            f"{what} {given}: expected {', '.join(choices)}.{did_you_mean(given, choices)}"
        )


def not_there(path: Path | str, what: str) -> str:
    """A sentence on why nothing is at `path`; `what` begins it: "no such folder"."""
    if address := address_fault(path):
        return f"{address}."
    near = _near_path(Path(path))
    return f"{what}; did you mean '{near}'?" if near else f"{what}."


def address_fault(given: Path | str) -> str | None:
    """What to do where an address, or - for standard input, was given instead of a path."""
    text = str(given)
    if os.path.lexists(text):
        return None
    if text == "-":
        return "standard input is not read; save it to a file, and give its path"
    match = _ADDRESS.match(text)
    if match is None:
        return None
    if match[1].lower() == "file":
        path = "/" + unquote(text[match.end() :])
        return f"this is an address; give the path itself: {command(path)}"
    return "this is an address, and only files are read; download it first, and give its path"


def _near_path(path: Path) -> Path | None:
    """The path that exists and is nearest to `path`, which does not."""
    missing, rest = path, Path()
    while not missing.parent.exists() and missing.parent != missing:
        missing, rest = missing.parent, missing.name / rest
    try:
        with os.scandir(missing.parent) as entries:
            names = [entry.name for entry in islice(entries, MOST_ENTRIES)]
    except OSError:
        return None
    near = nearest(missing.name, sorted(name for name in names if not name.startswith(".")))
    if near is None:
        return None
    found = missing.with_name(near)
    return found / rest if (found / rest).exists() else found
