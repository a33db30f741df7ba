"""Which class, and which split, each photo of a source belongs to, read off paths and lists."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from cliptune.data.breeds import BREED_OF_FOLDER, BREEDS, DEFAULT_NUM_BREEDS, name_key
from cliptune.data.folder import IMAGE_SUFFIXES, SPLITS
from cliptune.data.naming import clean_name, spellings
from cliptune.errors import DataError, listing

# What others call our three splits.
SPLIT_NAMES: dict[str, str] = {
    "train": "train", "training": "train", "trainval": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val", "eval": "val",
    "test": "test", "testing": "test",
}  # fmt: skip

# Names Windows keeps for devices; a class is a folder that should work there, too.
_DEVICES = re.compile(r"^(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)


@dataclass(frozen=True)
class ClassLayout:
    """The classes of a source of photos, and its splits where it has some."""

    classes: dict[str, list[PurePosixPath]]  # in the order in which classes are taken
    kind: str
    is_stanford_dogs: bool = False
    num_loose: int = 0  # photos that belong to no class, or to no list
    splits: Mapping[PurePosixPath, str] = field(default_factory=dict)  # of every photo, or empty

    @property
    def default_number(self) -> int | None:
        """How many classes to take when nobody says; None means all."""
        if not self.is_stanford_dogs:
            return None
        return min(DEFAULT_NUM_BREEDS, len(self.classes))


def find_layout(photos: Sequence[PurePosixPath], *, layout: str, where: Path) -> ClassLayout:
    """The classes of `photos` by their paths.

    `layout` is "folders" (one for each class, or those below `train/`, `val/` and `test/`),
    "names" (`golden_retriever_12.jpg`), or "auto": by name where all photos lie in one folder.

    Raises `DataError` when there are no classes, or when names collide or cannot be folders.
    """
    if layout == "names":
        return by_name(photos, where=where)
    num_folders = len({photo.parent for photo in photos})
    if layout == "auto" and num_folders == 1 and len({_stem_class(photo) for photo in photos}) > 1:
        return by_name(photos, where=where)
    return by_folder(photos, where=where)


def by_folder(photos: Sequence[PurePosixPath], *, where: Path) -> ClassLayout:
    """Find the level of the class folders, below single folders such as `Images/`, and name them.

    Folders of splits are taken as such; their photos keep their split.
    """
    depth = 0
    while True:
        folders: dict[str, list[PurePosixPath]] = defaultdict(list)
        for photo in photos:
            if len(photo.parts) > depth + 1:
                folders[photo.parts[depth]].append(photo)
        if len(folders) > 1 and {name.lower() for name in folders} <= set(SPLIT_NAMES):
            return _split_folders(folders, depth=depth, num_photos=len(photos), where=where)
        inner = [photo for members in folders.values() for photo in members]
        if len(folders) != 1 or any(len(photo.parts) == depth + 2 for photo in inner):
            break
        depth += 1
    if not folders:
        raise DataError(
            f"{where}: no folder of photos in it. Expected one folder for each class, with photos "
            f"({', '.join(sorted(IMAGE_SUFFIXES))}), or photos named by class: beagle_1.jpg."
        )
    classes = name_classes(folders, where=where, what="class folders")
    is_stanford_dogs = all(folder in BREED_OF_FOLDER for folder in folders)
    if is_stanford_dogs:
        classes = {name: classes[name] for name in BREEDS if name in classes}
    return ClassLayout(classes, "folders", is_stanford_dogs, len(photos) - len(inner))


def by_name(photos: Sequence[PurePosixPath], *, where: Path) -> ClassLayout:
    """Classes by file names without their numbers: `golden_retriever_12.jpg`, `pug (3).png`."""
    groups: dict[str, list[PurePosixPath]] = defaultdict(list)
    for photo in photos:
        groups[_stem_class(photo)].append(photo)
    if not groups:
        raise DataError(f"{where}: no photos in it.")
    return ClassLayout(name_classes(groups, where=where, what="classes"), "names")


def _stem_class(photo: PurePosixPath) -> str:
    return re.sub(r"[\s_.-]*\(?\d+\)?$", "", photo.stem) or photo.stem


def _split_folders(
    folders: Mapping[str, Iterable[PurePosixPath]], *, depth: int, num_photos: int, where: Path
) -> ClassLayout:
    by_split: dict[str, str] = {}
    for folder in folders:
        split = SPLIT_NAMES[folder.lower()]
        if split in by_split:
            raise DataError(
                f"{where}: both {by_split[split]}/ and {folder}/ would be {split}. Merge them."
            )
        by_split[split] = folder
    groups: dict[str, list[PurePosixPath]] = defaultdict(list)
    splits = {}
    for split, folder in by_split.items():
        for photo in folders[folder]:
            if len(photo.parts) > depth + 2:
                groups[photo.parts[depth + 1]].append(photo)
                splits[photo] = split
    if not groups:
        raise DataError(
            f"{where}: its folders {', '.join(folders)} hold no class folders. Expected "
            "train/<class>/*.jpg."
        )
    classes = name_classes(groups, where=where, what="class folders")
    return ClassLayout(classes, "splits", False, num_photos - len(splits), splits)


def name_classes(
    groups: Mapping[str, list[PurePosixPath]], *, where: Path, what: str
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
    if faults := [f"{name!r}: {why}" for name in groups if (why := folder_fault(name))]:
        raise DataError(
            f"{where}: class names that cannot be names of folders:\n{listing(faults)}\n"
            "Rename these classes."
        )
    return {BREED_OF_FOLDER.get(own, own): sorted(groups[own]) for own in sorted(groups)}


def folder_fault(name: str) -> str | None:
    """Why a folder cannot be called `name` on every system, or None."""
    if not name or name != name.strip():
        return "empty, or with spaces at an end"
    if name.startswith(".") or name.endswith("."):
        return "a full stop at an end"
    if bad := sorted({c for c in name if c in '/\\:*?"<>|' or unicodedata.category(c) == "Cc"}):
        return f"holds {' '.join(map(repr, bad))}"
    if _DEVICES.match(name):
        return "the name of a device on Windows"
    if len(name.encode("utf-8", "surrogateescape")) > 200:
        return "longer than 200 bytes"
    return None


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
