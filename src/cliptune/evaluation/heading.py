"""What reports in words begin with."""

from __future__ import annotations

from collections.abc import Mapping

from cliptune._version import __version__
from cliptune.language import amount
from cliptune.language import translated as _
from cliptune.text import columns, left, one_line


def heading(title: str, facts: Mapping[str, str]) -> list[str]:
    """The title, what was measured, and by which version."""
    facts = {**facts, "cliptune": __version__}
    return [
        title,
        "=" * columns(title),
        *(left(name, 12) + one_line(fact) for name, fact in facts.items()),
        "",
    ]


def split_in_words(data_dir: str, split: str) -> str:
    """Where the photos lie."""
    return _("{folder}, split {split}").format(folder=data_dir, split=split)


def photos_and_groups(num_photos: int, num_groups: int | None) -> str:
    """What figures rest on: "200 photos", "200 photos in 40 independent groups"."""
    photos = amount(num_photos, "photo")
    if num_groups is None:
        return photos
    return _("{photos} in {groups}").format(
        photos=photos, groups=amount(num_groups, "independent group")
    )
