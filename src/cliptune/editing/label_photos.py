"""Which photos a class of several labels is added by, told from, and measured on.

What a new class is told from are photos without it: those of training, if they are at hand. Where
their labels name the class, they say which show it. Where none does, they may show it all the same
and are but presumed not to: they were not labelled for it. Val is the same.

Shape suffixes: N photos, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cliptune.config import Settings
from cliptune.data.digests import NONE, Sums, content_sums
from cliptune.data.folder import Split
from cliptune.data.multilabel import LABELS_FILE, load_multilabel_split, targets_of
from cliptune.data.splits import split_folders
from cliptune.errors import DataError
from cliptune.model.checkpoint import Checkpoint
from cliptune.model.measuring import labelled_photos, measured_folder
from cliptune.model.restore import saved_settings

MOST_OTHERS = 2000  # photos without a class to tell it from; of more, as many by lot


@dataclass(frozen=True, kw_only=True)
class LabelPhotos:
    """The photos of a class more or less, their labels by known classes and then the new one.

    `train` tells a new class from others and `val` sets its threshold, as far as there are photos;
    `measured` is the split that the change is measured on, `why_none` where there is none. `given`
    show the class.
    """

    folder: Path
    seed: int
    given: tuple[Path, ...] = ()
    train: Split | None = None
    val: Split | None = None
    measured: Split | None = None
    why_none: str = ""

    @property
    def frequency(self) -> float | None:
        """The share of train that shows the new class; None where no label there names it.

        Where one does, photos without it do not show it.
        """
        shows_N = targets_of(self.train)[:, -1] if self.train else np.zeros(0)
        return float(shows_N.mean()) if shows_N.any() else None

    def to_learn_from(self) -> Split:
        """The photos of `train` that show the new class, and `MOST_OTHERS` at most that do not."""
        assert self.train is not None
        shows_N = targets_of(self.train)[:, -1]
        others = np.flatnonzero(~shows_N)
        if len(others) > MOST_OTHERS:
            others = np.random.default_rng(self.seed).choice(others, MOST_OTHERS, replace=False)
        return _taken(self.train, np.sort(np.concatenate([np.flatnonzero(shows_N), others])))


def photos_to_add_by(
    found: Checkpoint, name: str, given: Sequence[Path], data_dir: Path | None, split: str
) -> LabelPhotos:
    """The photos to add `name` by. Raises `DataError` where those of train are not at hand."""
    settings, names = saved_settings(found), [*found.record.class_names, name]
    try:
        folder = measured_folder(found, settings, data_dir)
        train = _labelled(settings, folder, "train", names)
    except DataError as error:
        raise DataError(
            f"{str(error).rstrip('.')}.\nWhere photos have several labels, a new class is told "
            f"from photos without it: those of train/ in a folder with {LABELS_FILE}, which is to "
            "be named with --data-dir where it is not that of training."
        ) from None
    known = content_sums(given)
    photos = LabelPhotos(
        folder=folder, seed=settings.seed, given=tuple(given), train=_without(train, known)
    )
    wanted: dict[str, Split | None] = {"val": None, split: None}
    why = ""
    for each in wanted:
        try:
            wanted[each] = _without(_labelled(settings, folder, each, names), known)
        except DataError as error:
            if each == split and data_dir is not None:
                raise
            why = str(error)
    return replace(photos, val=wanted["val"], measured=wanted[split], why_none=why)


def photos_to_remove_by(found: Checkpoint, data_dir: Path | None, split: str) -> LabelPhotos:
    """The photos to measure on. Raises `DataError` where `data_dir` is given and has none."""
    settings, folder = saved_settings(found), Path()
    try:
        folder = measured_folder(found, settings, data_dir)
        names = found.record.class_names
        measured = labelled_photos(settings, folder, split, names, several=True)
    except DataError as error:
        if data_dir is not None:
            raise
        return LabelPhotos(folder=folder, seed=settings.seed, why_none=str(error))
    return LabelPhotos(folder=folder, seed=settings.seed, measured=measured)


def _labelled(settings: Settings, folder: Path, split: str, names: list[str]) -> Split:
    """`split` labelled by `names`, of which no label need name the last."""
    try:
        return labelled_photos(settings, folder, split, names, several=True)
    except DataError:  # without val/: perhaps no label names the last
        if "val" in split_folders(folder):
            raise
    try:
        found = labelled_photos(settings, folder, split, names[:-1], several=True)
    except DataError:  # or some name a class removed since: which of them were val is not known
        if split != "train":
            raise
        return load_multilabel_split(folder, split, class_names=names)
    return replace(found, class_names=tuple(names))


def _without(split: Split, known: Sums) -> Split:
    """`split` but for photos whose content is `known`."""
    if not len(known):
        return split
    sums_N = content_sums([sample.path for sample in split.samples])
    kept = np.flatnonzero((sums_N == NONE) | ~np.isin(sums_N, known))
    return _taken(split, kept)


def _taken(split: Split, places: NDArray[np.int64]) -> Split:
    several = split.several or ()
    return replace(
        split,
        samples=tuple(split.samples[place] for place in places),
        several=tuple(several[place] for place in places),
    )
