"""Folders of labelled photos: `data_dir/{train,val,test}/<class>/*.jpg`.

A split's folder may have another of its `SPLIT_NAMES`: `valid/` is `val/`. Class names stand in
one defined order: sorted by code point, as Python's `sorted` gives them.
"""

from __future__ import annotations

import logging
import os
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cliptune.data.groups import Groups, groups_of, take_groups
from cliptune.data.image_files import CONVERT, IMAGE_SUFFIXES, find_images, pictures_left_out
from cliptune.data.naming import clean_name, spellings
from cliptune.data.splits import (
    SPLIT_NAMES,
    split_folder,
    split_folders,
    unknown_folders,
)
from cliptune.errors import DataError, named, together
from cliptune.hints import did_you_mean, not_there
from cliptune.text import command, counted

log = logging.getLogger(__name__)


class Sample(NamedTuple):
    """One photo and the index of its class."""

    path: Path
    label: int


@dataclass(frozen=True)
class Split:
    """The photos of one split, and the names their labels index.

    Where photos have any number of labels (`data.multilabel`), `several` has those of each, and
    the one label of a sample says nothing.
    """

    name: str
    class_names: tuple[str, ...]
    samples: tuple[Sample, ...]
    missing_classes: tuple[str, ...] = ()  # known class names this split has no folder for
    extra_classes: tuple[str, ...] = ()  # class folders of this split that are not known
    several: tuple[tuple[int, ...], ...] | None = None

    def __len__(self) -> int:
        return len(self.samples)


def scan_classes(split_dir: Path) -> dict[str, list[Path]]:
    """Class name -> its photos, for every class folder of `split_dir`, in the order of names.

    Names are clean (`naming.clean_name`); folders whose names then are equal are one class. Raises
    `DataError` where nothing visible is left of a name.
    """
    folders = sorted(
        entry.name
        for entry in os.scandir(split_dir)
        if entry.is_dir() and not entry.name.startswith(".")
    )
    found = spellings(folders, where=split_dir)
    if "" in found:
        raise DataError(
            f"{split_dir}: it holds a folder called {found[''][0]!a}, of which nothing can be "
            "seen. Expected the name of a class. Rename the folder."
        )
    return {
        name: sorted(
            (path for own in found[name] for path in find_images(split_dir / own)),
            key=lambda path: path.parts,
        )
        for name in sorted(found)
    }


def photos_of_class(split_dir: Path, name: str) -> list[Path]:
    """The photos of the class `name` in `split_dir`; none where it has no folder of it."""
    return scan_classes(split_dir).get(clean_name(name), []) if split_dir.is_dir() else []


def load_training_splits(data_dir: Path, *, val_ratio: float, seed: int) -> tuple[Split, Split]:
    """The train and val splits of `data_dir`.

    Without a `val/` folder, `val_ratio` of each class of train becomes val: which photos depends
    on their names and `seed` alone; groups of `dataset.json` stay together, and a class of one
    group in train.

    Raises `DataError` with every fault found: a missing folder, no class, one class only, an
    empty class, a class of val that train lacks.
    """
    folders = split_folders(data_dir)
    train_classes = _scan_split(data_dir, "train")
    train_dir = folders["train"]
    faults = _class_faults(train_dir, train_classes)
    if len(train_classes) == 1:
        faults.append(
            f"{train_dir}: only one class folder ('{next(iter(train_classes))}'); "
            "a classifier needs at least two"
        )
    val_classes: dict[str, list[Path]] | None = None
    if "val" in folders:
        val_classes = scan_classes(folders["val"])
        faults += _val_faults(train_dir, folders["val"], train_classes, val_classes)
    if faults:
        raise DataError(together(data_dir, faults))
    _say_left_out(data_dir, folders, ("train", "val"))

    if val_classes is None:
        paths = [path for photos in train_classes.values() for path in photos]
        train_classes, val_classes = _take_val(
            train_classes, groups_of(data_dir, paths), val_ratio=val_ratio, seed=seed
        )
        log.info(
            "%s has no val/ folder: %d of its %s serve as val (data.val_ratio %g, seed %d)",
            data_dir,
            sum(map(len, val_classes.values())),
            counted(
                sum(len(paths) for c in (train_classes, val_classes) for paths in c.values()),
                "training photo",
            ),
            val_ratio,
            seed,
        )
    class_names = tuple(train_classes)
    return (
        _split("train", class_names, train_classes),
        _split("val", class_names, val_classes),
    )


def training_splits_of(
    classes: Mapping[str, list[Path]], *, val_ratio: float, seed: int
) -> tuple[Split, Split]:
    """The train and val splits of the photos of each class, as of a folder without `val/`.

    Names of classes are clean, and stay in their order.
    """
    train, val = _take_val(dict(classes), None, val_ratio=val_ratio, seed=seed)
    names = tuple(classes)
    return _split("train", names, train), _split("val", names, val)


def load_split(data_dir: Path, split: str, *, class_names: Sequence[str]) -> Split:
    """One split whose photos are labelled by their folder's place in `class_names`.

    Folders are matched by name, never by position, however a name is spelt (`clean_name`). A class
    without a folder, and a folder that is no known class, are listed in the result. Raises
    `DataError` when nothing is left, or where two of `class_names` are one.
    """
    _refuse_equal(class_names)
    classes = _scan_split(data_dir, split)
    _say_left_out(data_dir, split_folders(data_dir), (split,))
    result = _split(split, tuple(class_names), classes)
    if not result.samples:
        raise DataError(
            f"{split_folder(data_dir, split)}: no photo of a class this model knows. "
            f"Folders found: {named(list(classes))}. Classes expected: {named(class_names)}."
            f"{_nearest_of(classes, class_names)}"
        )
    return result


def relabelled(split: Split, class_names: Sequence[str]) -> Split:
    """The photos of `split` whose class is among `class_names`, labelled by its place there."""
    photos: dict[str, list[Path]] = {name: [] for name in split.class_names}
    for sample in split.samples:
        photos[split.class_names[sample.label]].append(sample.path)
    return _split(split.name, tuple(class_names), photos)


def without(split: Split, paths: set[Path]) -> Split:
    """`split` without the photos in `paths`."""
    kept = [place for place, each in enumerate(split.samples) if each.path not in paths]
    several = None if split.several is None else tuple(split.several[place] for place in kept)
    samples = tuple(split.samples[place] for place in kept)
    return replace(split, samples=samples, several=several)


def _split(name: str, class_names: tuple[str, ...], classes: dict[str, list[Path]]) -> Split:
    cleaned = [clean_name(class_name) for class_name in class_names]
    samples = tuple(
        Sample(path, label)
        for label, class_name in enumerate(cleaned)
        for path in classes.get(class_name, [])
    )
    missing = tuple(
        own for own, name in zip(class_names, cleaned, strict=True) if not classes.get(name)
    )
    extra = tuple(class_name for class_name in classes if class_name not in set(cleaned))
    return Split(name, class_names, samples, missing, extra)


def _nearest_of(found: Iterable[str], known: Sequence[str]) -> str:
    """For the first of `found` that may be a slip of the pen: which of the `known` was meant."""
    hints = ((name, did_you_mean(name, known)) for name in found)
    return next((f" '{name}':{hint}" for name, hint in hints if hint), "")


def _refuse_equal(class_names: Sequence[str]) -> None:
    """Two classes of an earlier version may be one name in two spellings: no photo tells which."""
    counts = Counter(map(clean_name, class_names))
    if twice := [name for name, count in counts.items() if count > 1]:
        raise DataError(
            f"the model knows {named(twice)} more than once, in spellings that look the same, so "
            "its figures would mean nothing. Train anew: they are one class now."
        )


def _scan_split(data_dir: Path, split: str) -> dict[str, list[Path]]:
    split_dir = split_folder(data_dir, split)
    if split_dir.is_dir():
        return scan_classes(split_dir)
    expected = f"Expected {split_dir}/<class name>/*.jpg."
    if not data_dir.exists():
        what = f"{data_dir}: {not_there(data_dir, 'no such folder')}"
        remedy = (
            "Make it with 'cliptune prepare', name another one with --data-dir, "
            "or see a whole run without any photos: 'cliptune demo'."
        )
    elif not data_dir.is_dir():
        what, remedy = f"{data_dir}: this is a file.", "Name the folder that holds train/."
    else:
        what = f"{data_dir}: it holds no {split}/ folder."
        folders = sorted(entry.name for entry in os.scandir(data_dir) if entry.is_dir())
        remedy = f"It holds: {named(folders)}." if folders else "It holds no folder at all."
        remedy += did_you_mean(split, folders)
        if folders and not {name.lower() for name in folders} & set(SPLIT_NAMES):
            split_them = command(
                "cliptune", "prepare", "--source", data_dir, "--output-dir", "NEW_FOLDER"
            )
            remedy += f" If those are classes, split them with: {split_them}"
    raise DataError(f"{what} {expected} {remedy}")


def _say_left_out(data_dir: Path, folders: Mapping[str, Path], splits: Sequence[str]) -> None:
    """Log the pictures in `splits` that are not taken, and folders of photos that are no split."""
    for split in splits:
        if split in folders and (others := pictures_left_out(folders[split], with_classes=True)):
            log.warning("%s: pictures left out: %s. %s", folders[split], others, CONVERT)
    if unknown := unknown_folders(data_dir):
        log.warning(
            "%s: photos in folders that are no split are left out: %s. Splits are called %s.",
            data_dir, named([f"{name}/" for name in unknown]), ", ".join(SPLIT_NAMES),
        )  # fmt: skip


def _class_faults(split_dir: Path, classes: dict[str, list[Path]]) -> list[str]:
    if not classes:
        return [f"{split_dir}: no class folders. Expected one folder of photos for each class"]
    if not any(classes.values()):
        return [
            f"{split_dir}: class folders that hold no photos yet: {named(list(classes))}. Put "
            f"photos ({', '.join(sorted(IMAGE_SUFFIXES))}) into each"
        ]
    return [
        f"{split_dir / name}: no image in this class folder. Add photos "
        f"({', '.join(sorted(IMAGE_SUFFIXES))}) or remove the folder"
        for name, paths in classes.items()
        if not paths
    ]


def _val_faults(
    train_dir: Path, val_dir: Path, train: dict[str, list[Path]], val: dict[str, list[Path]]
) -> list[str]:
    faults = [
        f"{val_dir / name}: a class that {train_dir.name}/ lacks. Expected one of: "
        f"{named(list(train))}.{did_you_mean(name, train)} Add {train_dir / name} or "
        "remove this folder"
        for name in val
        if name not in train
    ]
    if not any(val.values()):
        faults.append(
            f"{val_dir}: no photos. Fill it, or remove the folder and "
            f"a part of {train_dir.name}/ will serve as val"
        )
    return faults


def _take_val(
    classes: dict[str, list[Path]], groups_N: Groups | None, *, val_ratio: float, seed: int
) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
    """(train, val): of each class, `val_ratio` of the photos (at least one, never all)."""
    if groups_N is not None:
        counts = [len(paths) for paths in classes.values()]
        labels_N = np.repeat(np.arange(len(counts)), counts)
        chosen_N = take_groups(labels_N, groups_N, share=val_ratio, seed=seed)
        parts = dict(zip(classes, np.split(chosen_N, np.cumsum(counts)[:-1]), strict=True))

        def side(chosen: bool) -> dict[str, list[Path]]:
            return {
                name: [path for path, out in zip(paths, parts[name], strict=True) if out == chosen]
                for name, paths in classes.items()
            }

        return side(False), side(True)
    train, val = {}, {}
    for name, paths in classes.items():
        count = min(max(1, round(val_ratio * len(paths))), len(paths) - 1)
        # Seeded by the class's own name: adding a class does not move the others' photos.
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        chosen = set(rng.permutation(len(paths))[:count].tolist())
        train[name] = [path for i, path in enumerate(paths) if i not in chosen]
        val[name] = [path for i, path in enumerate(paths) if i in chosen]
    return train, val
