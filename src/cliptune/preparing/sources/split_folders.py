"""Which folders of a source are splits and which are classes: told by what they hold.

A name alone decides nothing: `train` is a class among vehicles, `test` one beside `control`.
Folders of splits hold class folders, which recur among them; class folders hold photos. What
could be either is refused with the option that says which.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cliptune.data.splits import SPLIT_NAMES
from cliptune.errors import DataError, named
from cliptune.language import said

# Words beside a split's name that say nothing: training_set, seg_train, train_images, train2017.
_FILLERS = frozenset({
    "set", "data", "dataset", "image", "images", "imgs", "photos", "pictures", "seg", "split",
})  # fmt: skip
# Folders of photos that belong to no class, whatever lies beside them.
_NO_CLASSES = frozenset({
    "unlabeled", "unlabelled", "unsup", "unsupervised", "holdout", "extra", "annotation",
    "annotations",
})  # fmt: skip
# One of these beside one of those is a photo and what is drawn over it: no classes.
_PHOTOS = frozenset({
    "image", "images", "img", "imgs", "photo", "photos", "picture", "pictures", "jpegimages",
})  # fmt: skip
_MASKS = frozenset({
    "mask", "masks", "label", "labels", "annotation", "annotations", "segmentation",
    "segmentations", "segmentationclass", "segmentationobject", "gt", "groundtruth", "trimap",
    "trimaps",
})  # fmt: skip
Photos = Sequence[PurePosixPath]


def split_of(folder: str) -> str | None:
    """The split a folder's name speaks of: "train" for "Training_Set" and "train2017"; or None."""
    split, *others = _words(folder) or ("",)
    return None if others else SPLIT_NAMES.get(split)


def _words(folder: str) -> list[str]:
    """The words of a folder's name that say something, in small letters."""
    words = (word.removesuffix("set") for word in re.split(r"[\W\d_]+", folder.lower()))
    return [word for word in words if word and word not in _FILLERS]


@dataclass(frozen=True)
class Level:
    """The folders at one depth of a source, and the photos below each."""

    depth: int
    folders: Mapping[str, Photos]

    def below(self, folder: str) -> Mapping[str, Photos]:
        """The folders in `folder`, where most of its photos lie in such; else none.

        A lone folder that repeats the name is gone through, as is one of a split's photos:
        seg_train/seg_train/<class>, train/images/<class>.
        """
        depth, photos, split = self.depth + 1, self.folders[folder], split_of(folder)
        while len(inner := folders_at(photos, depth)) == 1:
            ((only, members),) = inner.items()
            again = only == folder or (split is not None and split_of(only) == split)
            between = split is not None and _key(only) in _PHOTOS
            if not again and not (between and folders_at(members, depth + 1)):
                break
            photos, depth = members, depth + 1
        num_inside = sum(map(len, inner.values()))
        return inner if 2 * num_inside > len(photos) else {}


def folders_at(photos: Photos, depth: int) -> dict[str, list[PurePosixPath]]:
    """Folder -> the photos below it, for the folders under `depth` others."""
    folders: dict[str, list[PurePosixPath]] = defaultdict(list)
    for photo in photos:
        if len(photo.parts) > depth + 1:
            folders[photo.parts[depth]].append(photo)
    return dict(folders)


def split_names(level: Level) -> dict[str, str]:
    """Folder -> its split, for those of `level` that are named like one.

    Folders of folders may share what else is in their names: pets_train and pets_test.
    """
    splits = {folder: split for folder in level.folders if (split := split_of(folder))}
    kin: dict[tuple[str, ...], dict[str, str]] = defaultdict(dict)
    for folder in level.folders:
        words = _words(folder)
        told = [word for word in words if word in SPLIT_NAMES]
        if folder not in splits and len(told) == 1 and level.below(folder):
            rest = tuple(word for word in words if word != told[0])
            kin[rest][folder] = SPLIT_NAMES[told[0]]
    for folders in kin.values():
        if len(set(folders.values())) > 1:
            splits |= folders
    return splits


def splits_among(level: Level, *, where: Path) -> dict[str, str]:
    """Folder -> its split, for those folders of `level` that are splits; none if all are classes.

    Raises `DataError` where what they hold leaves it open.
    """
    splits = split_names(level)
    others = [folder for folder in level.folders if folder not in splits]
    holding = [set(inner) for folder in splits if (inner := level.below(folder))]
    several = len(set(splits.values())) > 1
    if not holding:  # class folders hold photos
        stray = splits and others and len(_without_label(others)) == len(others)
        if not several and not stray:
            return {}
    elif not others:
        return splits
    elif several:
        recur = any(a & b for i, a in enumerate(holding) for b in holding[:i])
        if recur or len(holding) == 1:
            return splits
    raise DataError(_unclear(level, splits, others, where=where))


def _unclear(level: Level, splits: Collection[str], others: Collection[str], *, where: Path) -> str:
    first = next((folder for folder in splits if level.below(folder)), next(iter(splits)))
    inner = level.below(first)
    holds = f"the folders {named(list(inner), limit=4)}" if inner else "photos and no class folders"
    beside = f" and lies beside {named(list(others), limit=4)}" if others else ""
    left = f", and leaves {named(list(others), limit=4)} out" if others else ""
    if_splits = (
        f"--layout splits takes {named(list(splits), limit=4)} for splits, with classes in them"
        f"{left}"
    )
    if not inner:
        if_splits = "if the photos' names tell their classes (pug_1.jpg), give --layout names"
    return (
        f"{where}: {first}/ is named like a split, but holds {holds}{beside}. Is it a split or a "
        f"class? Say so: --layout classes takes {named(list(level.folders), limit=4)} for classes; "
        f"{if_splits}. Expected train/<class>/*.jpg and the like for splits."
    )


def split_folders_of(photos: Collection[PurePosixPath]) -> list[str]:
    """Folders named like splits that `photos` lie in at one level, if those of several splits."""
    for depth in range(max((len(photo.parts) for photo in photos), default=1) - 1):
        tops = dict.fromkeys(p.parts[depth] for p in photos if len(p.parts) > depth + 1)
        splits = {folder: split for folder in tops if (split := split_of(folder))}
        if len(set(splits.values())) > 1:
            return list(splits)
    return []


def splits_in_classes(level: Level) -> dict[PurePosixPath, str]:
    """Photo -> split for classes that hold their splits: <class>/train/1.jpg; else nothing."""
    found: dict[PurePosixPath, str] = {}
    several = False
    for folder in level.folders:
        inner = {name: photos for name, photos in level.below(folder).items() if split_of(name)}
        several |= len({split_of(name) for name in inner}) > 1
        found |= {photo: split_of(name) or "" for name, photos in inner.items() for photo in photos}
    return found if several else {}


def refuse_masks(folders: Collection[str], *, alone: str, option: str, where: Path) -> None:
    """Raise `DataError` where `folders` are photos and the masks drawn over them, no classes.

    `alone` says how to give the photos' folder alone, `option` what takes them for classes.
    """
    photos = [folder for folder in folders if _key(folder) in _PHOTOS]
    masks = [folder for folder in folders if _key(folder) in _MASKS]
    if photos and masks:
        raise DataError(
            f"{where}: {photos[0]}/ beside {masks[0]}/ is what segmentation data looks like, which "
            f"says of no photo as a whole what it shows. Expected a folder of photos for each "
            f"class, or a list of path,label as --source. {alone}Should these folders be the "
            f"classes, say so: {option}."
        )


def refuse_unfit(level: Level, *, where: Path) -> None:
    """Raise `DataError` where folders of `level` are no classes, but parts of a data set.

    Photos beside masks; or a folder that holds the folders of splits, beside others.
    """
    photos = next((folder for folder in level.folders if _key(folder) in _PHOTOS), "")
    alone = given_alone(level, photos, where=where) if photos and level.below(photos) else ""
    refuse_masks(level.folders, alone=alone, option="--layout classes", where=where)
    for folder in level.folders:
        inner = Level(level.depth + 1, level.below(folder))
        splits = [name for name in inner.folders if split_of(name) and inner.below(name)]
        if len({split_of(name) for name in splits}) > 1:
            others = [name for name in level.folders if name != folder]
            raise DataError(
                f"{where}: {folder}/ holds {named(splits)} with folders in them, and lies beside "
                f"{named(others, limit=4)}. {given_alone(level, folder, where=where)}Should these "
                "folders be the classes, say so: --layout classes."
            )


def given_alone(level: Level, folder: str, *, where: Path) -> str:
    """How to give `prepare` what is in `folder` of `level`, and nothing beside it."""
    first = next(iter(level.folders[folder]))
    place = PurePosixPath(*first.parts[: level.depth + 1])
    if where.is_dir():
        return f"Give {folder}/ alone: --source {where / place}. "
    return f"Unpack {where.name}, and give {place}/ of it alone as --source. "


def doubts(level: Level) -> tuple[str, ...]:
    """What to say of the class folders of `level` that may be none."""
    odd = _without_label(level.folders)
    notes = [
        said("'{name}' is taken for a class (--exclude leaves it out).", name=name) for name in odd
    ]
    common = set.intersection(*(set(level.below(folder)) for folder in level.folders))
    if len(level.folders) > 1 and len(common) > 1:
        notes.append(
            said(
                "Each of the folders {outer} holds {inner}; the outer ones are taken for the "
                "classes. If the inner ones are, give one of the outer at a time as --source, or a "
                "list of path,label.",
                outer=named(sorted(level.folders), limit=4), inner=named(sorted(common), limit=4),
            )
        )  # fmt: skip
    return tuple(notes)


def _without_label(folders: Collection[str]) -> list[str]:
    """Those of `folders` whose names say that their photos belong to no class."""
    return [name for name in folders if _key(name) in _NO_CLASSES]


def _key(folder: str) -> str:
    return re.sub(r"[\W_]+", "", folder.lower())
