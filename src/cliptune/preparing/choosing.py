"""Which classes of a source are taken, which are left out, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from cliptune.errors import DataError, named
from cliptune.language import said
from cliptune.preparing.breeds import choose_classes, find_classes
from cliptune.preparing.splitting import num_to_share


@dataclass(frozen=True, kw_only=True)
class Wish:
    """Which classes were asked for, as the options of the command line say it."""

    classes: Sequence[str] | None = None
    num_classes: int | None = None
    exclude: Sequence[str] | None = None
    min_photos: int | None = None

    def __post_init__(self) -> None:
        if self.min_photos is not None and self.min_photos < 1:
            raise DataError(f"--min-photos {self.min_photos}: expected a number of photos from 1.")


@dataclass(frozen=True)
class Choice:
    """The classes to take, and those left out by --exclude or --min-photos: name -> why."""

    taken: tuple[str, ...]
    left_out: dict[str, str]


def choose(
    classes: Mapping[str, Sequence[PurePosixPath]],
    splits: Mapping[PurePosixPath, str],
    wish: Wish,
    *,
    default_number: int | None,
    where: str,
) -> Choice:
    """Those of `classes` that `wish` names or counts, without those it leaves out.

    `default_number` is how many are taken where it says nothing; None means all. What a class has
    for training is what --min-photos counts: its photos in train where there are `splits`, else
    all its photos. Raises `DataError` as `choose_classes` does, and for a class both asked for and
    left out.
    """
    excluded = find_classes(list(classes), wish.exclude or (), option="--exclude", where=where)
    left_out = dict.fromkeys(excluded, "--exclude")
    for name, photos in classes.items():
        number = num_to_share(photos, splits)
        if name not in left_out and number < (wish.min_photos or 0):
            left_out[name] = said(
                "{count} for train, fewer than --min-photos {limit}"
                if splits
                else "{count} in all, fewer than --min-photos {limit}",
                count=number, limit=wish.min_photos,
            )  # fmt: skip
    available = [name for name in classes if name not in left_out]
    if wish.classes is not None:
        asked = choose_classes(
            list(classes), classes=wish.classes, num_classes=wish.num_classes, where=where
        )
        if both := [name for name in asked if name in excluded]:
            raise DataError(f"--classes and --exclude both name {named(both)}. Decide for one.")
        left_out = {name: why for name, why in left_out.items() if name in (*asked, *excluded)}
        available = [name for name in asked if name not in left_out]
    if left_out:
        where = f"{where}, without the {len(left_out)} left out by --exclude or --min-photos"
    wanted = None if wish.classes is not None else wish.num_classes
    if wish.classes is None and wanted is None and default_number is not None:
        wanted = min(default_number, len(available))
    taken = choose_classes(available, classes=None, num_classes=wanted, where=where)
    return Choice(taken, left_out)
