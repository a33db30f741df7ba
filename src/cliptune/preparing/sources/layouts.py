"""Which class, and which split, each photo of a source belongs to, read off paths and lists."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from cliptune.data.image_files import IMAGE_SUFFIXES
from cliptune.data.naming import class_name_fault, clean_name, name_key, spellings
from cliptune.data.splits import SPLIT_NAMES, SPLITS
from cliptune.errors import DataError, listing, named
from cliptune.preparing.breeds import BREED_OF_FOLDER, BREEDS, DEFAULT_NUM_BREEDS
from cliptune.preparing.sources.split_folders import (
    Level,
    Photos,
    doubts,
    folders_at,
    refuse_masks,
    refuse_unfit,
    split_names,
    split_of,
    splits_among,
    splits_in_classes,
)


@dataclass(frozen=True)
class ClassLayout:
    """The classes of a source of photos, and its splits where it has some."""

    classes: dict[str, list[PurePosixPath]]  # in the order in which classes are taken
    kind: str
    is_stanford_dogs: bool = False
    num_loose: int = 0  # photos that belong to no class, or to no list
    splits: Mapping[PurePosixPath, str] = field(default_factory=dict)  # of every photo, or empty
    notes: tuple[str, ...] = ()  # for the user: what was taken where there was a choice
    groups: Mapping[PurePosixPath, str] = field(default_factory=dict)  # of every photo, or empty

    @property
    def default_number(self) -> int | None:
        """How many classes to take when nobody says; None means all."""
        if not self.is_stanford_dogs:
            return None
        return min(DEFAULT_NUM_BREEDS, len(self.classes))


def find_layout(photos: Sequence[PurePosixPath], *, layout: str, where: Path) -> ClassLayout:
    """The classes of `photos` by their paths.

    `layout` is "folders" (one for each class, or those in folders of splits, as what they hold
    tells), "classes" (each folder is one, whatever it is called), "splits" (classes are in folders
    of splits; other folders are left out), "names" (`golden_retriever_12.jpg`), or "auto": by name
    where all photos lie in one folder, else "folders".

    Raises `DataError` when there are no classes, when names collide or cannot be folders, and
    when folders may be splits or classes.
    """
    if layout == "names":
        return by_name(photos, where=where)
    num_folders = len({photo.parent for photo in photos})
    if layout == "auto" and num_folders == 1 and len({_stem_class(photo) for photo in photos}) > 1:
        return by_name(photos, where=where)
    return by_folder(photos, layout=layout, where=where)


def by_folder(photos: Sequence[PurePosixPath], *, layout: str, where: Path) -> ClassLayout:
    """Find the level of the class folders, below single folders such as `Images/`, and name them.

    Folders of splits are taken as such, above class folders or in them; photos keep their split.
    """
    level = _first_level(photos, splits=layout == "splits")
    if not level.folders:
        raise DataError(
            f"{where}: no folder of photos in it. Expected one folder for each class, with photos "
            f"({', '.join(sorted(IMAGE_SUFFIXES))}), or photos named by class: beagle_1.jpg."
        )
    if layout == "splits":
        if not (splits := split_names(level)):
            raise DataError(
                f"{where}: --layout splits, but none of its folders "
                f"{named(list(level.folders), limit=8)} is named like a split. Expected "
                "train/<class>/*.jpg, and val/ and test/ likewise."
            )
        return _in_splits(level, splits, level.below, num_photos=len(photos), where=where)
    if layout != "classes":
        if splits := splits_among(level, where=where):
            names = {name for folder in splits for name in level.below(folder)}
            refuse_masks(names, alone="", option="--layout splits", where=where)
            return _in_splits(level, splits, level.below, num_photos=len(photos), where=where)
        refuse_unfit(level, where=where)
        if inner := splits_in_classes(level):
            return _holding_splits(level, inner, num_photos=len(photos), where=where)
    classes = name_classes(level.folders, where=where, what="class folders")
    is_stanford_dogs = all(folder in BREED_OF_FOLDER for folder in level.folders)
    if is_stanford_dogs:
        classes = {name: classes[name] for name in BREEDS if name in classes}
    num_loose = len(photos) - sum(map(len, level.folders.values()))
    notes = doubts(level) if layout != "classes" else ()
    return ClassLayout(classes, "folders", is_stanford_dogs, num_loose, notes=notes)


def _first_level(photos: Sequence[PurePosixPath], *, splits: bool) -> Level:
    """The first level of more than one folder, or whose folder holds photos.

    With `splits`, a lone folder named like a split ends the search, too.
    """
    depth = 0
    while True:
        level = Level(depth, folders_at(photos, depth))
        if len(level.folders) != 1:
            return level
        ((only, members),) = level.folders.items()
        if any(len(photo.parts) == depth + 2 for photo in members) or (splits and split_of(only)):
            return level
        depth += 1


def by_name(photos: Sequence[PurePosixPath], *, where: Path) -> ClassLayout:
    """Classes by file names without their numbers: `golden_retriever_12.jpg`, `pug (3).png`.

    Photos in folders of splits keep their split.
    """
    if not photos:
        raise DataError(f"{where}: no photos in it.")
    level = _first_level(photos, splits=False)
    splits = split_names(level)
    if len(set(splits.values())) > 1:
        return _in_splits(
            level,
            splits,
            lambda folder: _by_stem(level.folders[folder]),
            num_photos=len(photos),
            where=where,
        )
    return ClassLayout(name_classes(_by_stem(photos), where=where, what="classes"), "names")


def _by_stem(photos: Photos) -> dict[str, list[PurePosixPath]]:
    groups: dict[str, list[PurePosixPath]] = defaultdict(list)
    for photo in photos:
        groups[_stem_class(photo)].append(photo)
    return groups


def _stem_class(photo: PurePosixPath) -> str:
    return re.sub(r"[\s_.-]*\(?\d+\)?$", "", photo.stem) or photo.stem


def _in_splits(
    level: Level,
    splits: Mapping[str, str],
    classes_in: Callable[[str], Mapping[str, Photos]],
    *,
    num_photos: int,
    where: Path,
) -> ClassLayout:
    """What `classes_in` finds in folders of splits; what lies beside these is left out."""
    folder_of: dict[str, str] = {}
    groups: dict[str, list[PurePosixPath]] = defaultdict(list)
    split_of_photo: dict[PurePosixPath, str] = {}
    for folder, split in splits.items():
        if split in folder_of:
            raise DataError(
                f"{where}: both {folder_of[split]}/ and {folder}/ would be {split}. Merge them."
            )
        folder_of[split] = folder
        for name, photos in classes_in(folder).items():
            groups[name] += photos
            split_of_photo |= dict.fromkeys(photos, split)
    if not groups:
        raise DataError(
            f"{where}: its folders {', '.join(splits)} hold no class folders. Expected "
            "train/<class>/*.jpg."
        )
    classes = name_classes(groups, where=where, what="class folders")
    others = {name: len(found) for name, found in level.folders.items() if name not in splits}
    num_loose = num_photos - len(split_of_photo) - sum(others.values())
    notes = [f"{name}/ ({count:,} photos)" for name, count in others.items()]
    if notes:
        notes = [
            f"Left out, as no split is called so: {named(notes)}. To take one, rename it to train, "
            "val or test, or move its class folders into such a folder."
        ]
    return ClassLayout(classes, "splits", False, num_loose, split_of_photo, tuple(notes))


def _holding_splits(
    level: Level, splits: Mapping[PurePosixPath, str], *, num_photos: int, where: Path
) -> ClassLayout:
    """Classes whose folders hold folders of splits: <class>/train/1.jpg."""
    groups = {
        name: [photo for photo in photos if photo in splits]
        for name, photos in level.folders.items()
    }
    classes = name_classes(groups, where=where, what="class folders")
    return ClassLayout(classes, "splits", False, num_photos - len(splits), splits)


def name_classes(
    groups: Mapping[str, Sequence[PurePosixPath]], *, where: Path, what: str
) -> dict[str, list[PurePosixPath]]:
    """Class name -> sorted photos, for groups under a source's own names, in their order.

    Names are clean (`naming.clean_name`); groups whose names then are equal are one class. Raises
    `DataError` for names that collide, and for names that cannot be those of folders.
    """
    groups = {
        name: [photo for each in own for photo in groups[each]]
        for name, own in spellings(groups, where=where).items()
    }
    by_key: dict[str, list[str]] = defaultdict(list)
    for own in groups:
        by_key[name_key(BREED_OF_FOLDER.get(own, own))].append(own)
    clashes = [" and ".join(same) for same in by_key.values() if len(same) > 1]
    if clashes:
        raise DataError(
            f"{where}: {what} whose names differ in case or prefix only: "
            f"{'; '.join(clashes)}. Merge or rename them."
        )
    if faults := [f"{name!r}: {why}" for name in groups if (why := class_name_fault(name))]:
        raise DataError(
            f"{where}: class names that cannot be names of folders:\n{listing(faults)}\n"
            "Rename these classes."
        )
    return {BREED_OF_FOLDER.get(own, own): sorted(groups[own]) for own in sorted(groups)}


def canonical_split(name: str) -> str | None:
    """`name` of a split as we call it: "val" for "validation"; None for no split we know."""
    return SPLIT_NAMES.get(clean_name(name).lower())


def check_splits_known(names: Iterable[str], *, where: str) -> None:
    """Raises `DataError` naming those of `names` that are no split."""
    unknown = sorted({name for name in names if canonical_split(name) is None})
    if unknown:
        raise DataError(
            f"{where}: unknown splits {', '.join(map(repr, unknown[:8]))}. "
            f"Expected {', '.join(SPLITS)}, or: {', '.join(sorted(SPLIT_NAMES))}."
        )
