"""What a cell says a photo is, alike in lists and Parquet; and splits without labels."""

from __future__ import annotations

import logging
import re
import reprlib
import string
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from cliptune.errors import DataError
from cliptune.preparing.sources.layouts import canonical_split

log = logging.getLogger(__name__)

_MISSING = frozenset({"", "nan", "NaN", "NAN", "<NA>", "NaT"})  # as numpy and pandas write it
_SHORT = reprlib.Repr()
_SHORT.maxlist = _SHORT.maxdict = 3
_WHOLE = re.compile(r"(-?\d+)\.0+")


def label_text(value: Any) -> str | None:
    """The class that the cell `value` names; None where it names none.

    None are NaN, pandas' NA, empty text, and what numpy and pandas write for a missing value.
    Whole numbers are written without a fraction: pandas makes 3.0 of 3 in a column with a gap.

    Raises `ValueError`, naming what was found, for anything but text, a number or true and false.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or str(value) in _MISSING:
        return None
    if not isinstance(value, str | int | float):
        raise ValueError(f"a {type(value).__name__} ({_SHORT.repr(value)})")
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    text = text.strip(string.whitespace)  # other spaces are told of, in naming.spellings
    whole = _WHOLE.fullmatch(text)
    return None if text in _MISSING else whole[1] if whole else text


class _Labelled(Protocol):
    @property
    def split(self) -> str: ...
    @property
    def label(self) -> str | None: ...


R = TypeVar("R", bound=_Labelled)


def take_splits(rows: Sequence[R], *, leave_out: Collection[str], where: str) -> list[R]:
    """`rows` without splits that are to be left out, or that have no label at all.

    Tests whose labels are kept secret are published without; that they go is logged. `leave_out`
    are names as the source has them, or ours. Raises `DataError` for one that is not there, and
    where no row is left.
    """
    there = Counter(row.split for row in rows)
    gone = set()
    for name in leave_out:
        same = {split for split in there if split and same_split(split, name)}
        if not same:
            found = ", ".join(sorted(filter(None, there))) or "none"
            raise DataError(f"{where}: --leave-out {name}: no such split. Its splits: {found}.")
        gone |= same
    labelled = {row.split for row in rows if row.label}
    for split, count in there.items():
        if split and split not in gone | labelled:
            log.warning(
                "%s: left out the split '%s': none of its %d photos has a label",
                where,
                split,
                count,
            )
            gone.add(split)
    kept = [row for row in rows if row.split not in gone]
    if rows and not any(row.label for row in kept):
        raise DataError(
            f"{where}: no photo has a label, of those not left out. Expected one for each; if "
            "another column holds them, name it with --label-column."
        )
    return kept


def same_split(name: str, wanted: str) -> bool:
    """Whether two names of splits mean the same: "validation" and "val"."""
    known = canonical_split(name)
    return name.strip().lower() == wanted.strip().lower() or (
        known is not None and known == canonical_split(wanted)
    )
