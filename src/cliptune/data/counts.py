"""A prepared folder as a table: how many photos of each class lie in each split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cliptune.data.splits import SPLITS
from cliptune.language import translated as _
from cliptune.text import columns, fit, right

Counts = Mapping[str, Mapping[str, int]]  # split -> class -> number of photos


def counts_table(counts: Counts) -> str:
    """One row for each class: its photos in each split and in all; the sums in the last row."""
    names = sorted({name for classes in counts.values() for name in classes})
    splits = [split for split in SPLITS if split in counts]
    width = min(44, max(map(columns, [*names, _("all classes")])))

    def row(name: str, numbers: Sequence[int | str]) -> str:
        cells = (f"{number:>9,}" if number != "-" else f"{'-':>9}" for number in numbers)
        return fit(name, width) + "".join(cells)

    head = fit(_("class"), width) + "".join(right(title, 9) for title in [*splits, _("total")])
    lines = [head, "-" * columns(head)]
    for name in names:
        found = [counts[split].get(name) for split in splits]
        shown: list[int | str] = ["-" if number is None else number for number in found]
        lines.append(row(name, [*shown, sum(number or 0 for number in found)]))
    sums = [sum(counts[split].values()) for split in splits]
    return "\n".join([*lines, "-" * columns(head), row(_("all classes"), [*sums, sum(sums)])])
