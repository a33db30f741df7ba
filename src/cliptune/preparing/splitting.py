"""Which photo goes to train, val or test: a question of names and the seed alone."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TypeVar

import numpy as np

from cliptune.data.splits import SPLITS
from cliptune.errors import DataError, listing

MIN_PHOTOS = len(SPLITS)  # one for each split

T = TypeVar("T")
Parts = dict[str, list[T]]  # split -> photos


@dataclass(frozen=True, kw_only=True)
class Shares:
    """How the photos of each class are shared out. Raises `DataError` when out of range."""

    train_ratio: float = 0.7
    val_ratio: float | None = None  # None: half of what train leaves
    seed: int = 42
    shots: int | None = None  # photos of a class for train; None: all

    def __post_init__(self) -> None:
        if not 0 < self.train_ratio < 1:
            raise DataError(
                f"--train-ratio {self.train_ratio}: expected a share above 0 and below 1."
            )
        if self.val_ratio is not None and not (
            self.val_ratio > 0 and self.train_ratio + self.val_ratio < 1 - 1e-9
        ):
            raise DataError(
                f"--val-ratio {self.val_ratio}: expected a share above 0 that leaves some for "
                f"test, beside --train-ratio {self.train_ratio}."
            )
        if self.seed < 0:
            raise DataError(f"--seed {self.seed}: expected a whole number from 0.")
        if self.shots is not None and self.shots < 1:
            raise DataError(f"--shots {self.shots}: expected a number of photos from 1.")


def num_to_share(photos: Sequence[PurePosixPath], splits: Mapping[PurePosixPath, str]) -> int:
    """How many `photos` of a class may go to train: those given to it, or all without `splits`."""
    return sum(splits[photo] == "train" for photo in photos) if splits else len(photos)


def share_out(
    classes: Mapping[str, Sequence[PurePosixPath]],
    splits: Mapping[PurePosixPath, str],
    shares: Shares,
    *,
    where: object,
) -> dict[str, Parts[PurePosixPath]]:
    """Class -> split -> its photos. Given `splits` are kept; what they lack is taken from train.

    Raises `DataError` naming every class that has too few photos.
    """
    names = set(splits.values())
    missing = [split for split in ("val", "test") if splits and split not in names]
    needed = 1 + len(missing) if splits else MIN_PHOTOS
    few: dict[str, str] = {}
    dealt = {}
    for name, photos in classes.items():
        found = num_to_share(photos, splits)
        if found < needed:
            kind = "" if not splits else " for train, val and test" if missing else " for train"
            few[name] = f"{found}{kind}"
            continue
        if splits:
            given: Parts[PurePosixPath] = {split: [] for split in SPLITS}
            for photo in photos:
                given[splits[photo]].append(photo)
            parts = _complete(given, missing, name=name, shares=shares)
        else:
            parts = split_photos(
                photos, name=name, train_ratio=shares.train_ratio, val_ratio=shares.val_ratio,
                seed=shares.seed,
            )  # fmt: skip
        if shares.shots is not None and len(parts["train"]) < shares.shots:
            few[name] = f"{len(parts['train'])} for train, fewer than --shots"
        parts["train"] = parts["train"][: shares.shots]
        dealt[name] = parts
    if few:
        # Whoever has more photos is dealt more: this leaves out these classes and no others.
        enough = 1 + max(num_to_share(classes[name], splits) for name in few)
        raise DataError(
            f"{where}: classes with fewer than {MIN_PHOTOS} photos, one for each of train, val "
            "and test, or than asked for:\n"
            f"{listing([f'{name}: {what}' for name, what in few.items()], limit=120)}\n"
            f"Leave them out with --min-photos {enough}, or some with --exclude NAME,NAME; add "
            "photos; or choose classes with --classes."
        )
    return dealt


def split_photos(
    photos: Sequence[T],
    *,
    name: str,
    train_ratio: float,
    val_ratio: float | None = None,
    seed: int,
) -> Parts[T]:
    """`photos` (3 or more) of class `name` shared among train, val and test, none left empty.

    The order of `photos`, `name` and `seed` decide. Train gets `train_ratio` of them, val
    `val_ratio`, test the rest; without `val_ratio` val and test share what train leaves, an odd
    one going to test.
    """
    order = shuffled(photos, name=name, seed=seed)
    num_train = min(max(1, round(train_ratio * len(order))), len(order) - 2)
    rest = len(order) - num_train
    num_val = rest // 2 if val_ratio is None else round(val_ratio * len(order))
    num_val = min(max(1, num_val), rest - 1)
    return {
        "train": order[:num_train],
        "val": order[num_train : num_train + num_val],
        "test": order[num_train + num_val :],
    }


def _complete(given: Parts[T], missing: Sequence[str], *, name: str, shares: Shares) -> Parts[T]:
    """`given` with its train shuffled and the `missing` splits taken from the end of it."""
    parts = dict(given)
    train = shuffled(given["train"], name=name, seed=shares.seed)
    val_ratio = (1 - shares.train_ratio) / 2 if shares.val_ratio is None else shares.val_ratio
    ratios = {"val": val_ratio, "test": 1 - shares.train_ratio - val_ratio}
    total = len(train)
    for left, split in zip(range(len(missing), 0, -1), missing, strict=True):
        count = min(max(1, round(ratios[split] * total)), len(train) - left)
        parts[split] = train[len(train) - count :]
        train = train[: len(train) - count]
    parts["train"] = train
    return parts


def shuffled(photos: Sequence[T], *, name: str, seed: int) -> list[T]:
    """`photos` of class `name` in the order that `seed` gives them."""
    # Seeded by the class's own name: adding a class does not move the others' photos.
    rng = np.random.default_rng([seed, zlib.crc32(name.encode("utf-8", "surrogateescape"))])
    return [photos[i] for i in rng.permutation(len(photos))]
