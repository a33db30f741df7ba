"""Sources whose photos have any number of labels: lists, COCO and VOC annotations.

photos.csv                       a label column with beagle|boxer, or with ["beagle", "boxer"];
                                 or a column of 0 and 1 for each class
photos.jsonl                     the same, and lists as JSON has them
instances_train2017.json         COCO: images, categories, annotations
project-1.json                   Label Studio: choices of each task
dogs/                            FiftyOne: labels.json, data/
VOC2012/                         Annotations/*.xml, JPEGImages/, ImageSets/Main/{train,val}.txt
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree

from cliptune.data.multilabel import SEPARATOR, labels_in
from cliptune.data.naming import clean_name
from cliptune.errors import DataError, listing, named
from cliptune.preparing.sources.archive import FilePhotos, PhotoStore, is_photo
from cliptune.preparing.sources.exports import is_export, read_export
from cliptune.preparing.sources.fiftyone import LABELS, is_fiftyone
from cliptune.preparing.sources.groups import find_groups
from cliptune.preparing.sources.hub_dataset import hub_photos_with_labels
from cliptune.preparing.sources.labels import label_text
from cliptune.preparing.sources.layouts import canonical_split, check_splits_known
from cliptune.preparing.sources.listed_files import PhotoFolder
from cliptune.preparing.sources.lists import LIST_SUFFIXES, PhotoList, read_list
from cliptune.preparing.sources.tables import (
    IMAGE_COLUMNS,
    LABEL_COLUMNS,
    SPLIT_COLUMNS,
    find_column,
)
from cliptune.text import counted

ANNOTATIONS, PICTURES, SETS = "Annotations", "JPEGImages", "ImageSets/Main"
_YES_NO = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}
_DOCTYPE = "<!DOCTYPE"


@dataclass
class SeveralLabels:
    """Photos of a source: their files, labels, and splits, where it has them all."""

    files: dict[PurePosixPath, Path] = field(default_factory=dict)
    labels: dict[PurePosixPath, tuple[str, ...]] = field(default_factory=dict)
    splits: dict[PurePosixPath, str] = field(default_factory=dict)
    groups: dict[PurePosixPath, str] = field(default_factory=dict)  # of every photo, or empty
    kind: str = ""
    embedded: PhotoStore | None = None  # photos that are in no files of their own

    @property
    def store(self) -> PhotoStore:
        """Where the photos are read from."""
        return FilePhotos(self.files) if self.embedded is None else self.embedded


def photos_with_labels(
    source: Path | str,
    *,
    root: Path | None,
    image_column: str | None,
    label_column: str | None,
    group: str | None = None,
) -> SeveralLabels:
    """The photos of `source`, by its form; a text is a name on the hub. Paths start at `root`, or
    beside the list. `group` as for `groups.find_groups`: a column of it, or an expression.

    Raises `DataError` with every faulty line.
    """
    suffix = "" if isinstance(source, str) else source.suffix.lower()
    if isinstance(source, str) or suffix == ".parquet" or _holds_parquet(source):
        found = _of_dataset(
            source, image_column=image_column, label_column=label_column, group=group
        )
    elif source.is_dir() and (source / ANNOTATIONS).is_dir():
        found = _voc(source)
    elif not isinstance(source, str) and (
        suffix in LIST_SUFFIXES or is_export(source) or is_fiftyone(source)
    ):
        source = source / LABELS if source.is_dir() else source
        found = _listed(
            source, root, image_column=image_column, label_column=label_column, group=group
        )
    elif suffix == ".json":
        found = _coco(source, root)
    else:
        raise DataError(
            f"{source}: --multilabel takes a list ({', '.join(sorted(LIST_SUFFIXES))}), .parquet, "
            "hf:OWNER/NAME, the .json of COCO or of Label Studio, FiftyOne's folder with "
            f"{LABELS} and data/, or the folder of VOC, with {ANNOTATIONS}/. Expected one of these."
        )
    if not found.labels:
        raise DataError(f"{source}: it names no photo.")
    if group is not None:
        photos = list(found.labels)
        found.groups = dict(find_groups(photos, found.groups, group, where=str(source)))
    return found


def _holds_parquet(source: Path) -> bool:
    return source.is_dir() and any(source.rglob("*.parquet"))


def _of_dataset(
    source: Path | str, *, image_column: str | None, label_column: str | None, group: str | None
) -> SeveralLabels:
    photos, labels, splits, groups = hub_photos_with_labels(
        source, image_column=image_column, label_column=label_column, group=group
    )
    found = SeveralLabels(kind="hub", splits=splits, groups=groups, embedded=photos)
    faults = []
    for photo, names in labels.items():
        try:
            found.labels[photo] = checked(names)
        except ValueError as fault:
            faults.append(f"{photo}: {fault}")
    _refuse(faults, str(source))
    return found


def _listed(
    table: Path,
    root: Path | None,
    *,
    image_column: str | None,
    label_column: str | None,
    group: str | None,
) -> SeveralLabels:
    where = str(table)
    if table.suffix.lower() == ".json":
        listed, label_column = read_export(
            table, root=root, label_column=label_column, several=True
        )
    else:
        listed = read_list(table)
    image = find_column(listed.titles, IMAGE_COLUMNS, image_column, "image", where=where)
    split = next((title for title in listed.titles if title.lower() in SPLIT_COLUMNS), None)
    others = [title for title in listed.titles if title not in (image, split, group)]
    belongs = group is not None and group in listed.titles
    classes = [] if label_column else _class_columns(listed, others)
    label = ""
    if not classes:
        label = find_column(others, ("labels", *LABEL_COLUMNS), label_column, "label", where=where)
    found, folder, faults = SeveralLabels(kind="list"), PhotoFolder(_base(table, root)), []
    for line in listed.lines:
        try:
            labels = (
                tuple(clean_name(name) for name in classes if _said_yes(line.cells[name]))
                if classes
                else cell_labels(line.cells.get(label))
            )
            _add(found, folder, str(line.cells.get(image, "")), labels)
            photo = next(reversed(found.files))
            if split:
                found.splits[photo] = str(line.cells.get(split, "")).strip()
            if belongs:
                _add_group(found, photo, line.cells.get(group or ""))
        except ValueError as fault:
            faults.append(f"{listed.unit} {line.number}: {fault}")
    _refuse(faults, where)
    if split:
        check_splits_known(found.splits.values(), where=where)
        found.splits = {p: canonical_split(name) or "" for p, name in found.splits.items()}
    return found


def _class_columns(listed: PhotoList, titles: Sequence[str]) -> list[str]:
    """The columns of one class each: those of `titles`, if all their cells are 0 or 1."""
    plain = [
        title for title in titles
        if all(str(line.cells.get(title, "")).strip().lower() in _YES_NO for line in listed.lines)
    ]  # fmt: skip
    return plain if len(plain) > 1 else []


def _said_yes(cell: object) -> bool:
    return _YES_NO[str(cell).strip().lower()]


def cell_labels(cell: object) -> tuple[str, ...]:
    """The labels of a cell: a list, the text of one in JSON, or names parted by `|`.

    Raises `ValueError` for a list of something else, or a name that holds `|`.
    """
    if isinstance(cell, str) and cell.strip().startswith("["):
        try:
            cell = json.loads(cell)
        except json.JSONDecodeError as error:
            raise ValueError(f"labels {cell!r} begin a list that is not JSON ({error})") from None
    if isinstance(cell, list):
        if other := [name for name in cell if not isinstance(name, str)]:
            raise ValueError(f"labels {cell!r}: expected names, found {other[0]!r}")
        return checked(cell)
    return labels_in("" if cell is None else str(cell))


def checked(names: Sequence[str]) -> tuple[str, ...]:
    """`names`, clean and each once. Raises `ValueError` for one that could not be told from two."""
    if joined := [name for name in names if SEPARATOR in name]:
        raise ValueError(
            f"the label {joined[0]!r} holds {SEPARATOR}, which parts labels: it could not be told "
            f"from {' and '.join(map(repr, labels_in(joined[0])))}. Give it another name"
        )
    return tuple(dict.fromkeys(filter(None, map(clean_name, names))))


def _coco(path: Path, root: Path | None) -> SeveralLabels:
    """The categories that annotations find on each image; crowds count as others do."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        images = {each["id"]: str(each["file_name"]) for each in values["images"]}
        names = {each["id"]: str(each["name"]) for each in values["categories"]}
        boxes = [(each["image_id"], each["category_id"]) for each in values["annotations"]]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: no annotations as COCO has them ({error!r}). Expected an object of images "
            "(id, file_name), categories (id, name) and annotations (image_id, category_id)."
        ) from None
    shown: dict[Any, list[str]] = {number: [] for number in images}
    found, folder, faults = SeveralLabels(kind="coco"), PhotoFolder(_base(path, root)), []
    for image, category in boxes:
        if image not in images or category not in names:
            faults.append(f"an annotation of image {image}, category {category}: not both listed")
        else:
            shown[image].append(names[category])
    for number, file in images.items():
        try:
            _add(found, folder, file, checked(shown[number]))
        except ValueError as fault:
            faults.append(f"image {number}: {fault}")
    _refuse(faults, str(path))
    return found


def _voc(folder: Path) -> SeveralLabels:
    """The names of the objects of each annotation; splits by the lists of `SETS`."""
    found, pictures = SeveralLabels(kind="voc"), PhotoFolder((folder / PICTURES).resolve())
    faults = []
    stems: dict[str, PurePosixPath] = {}
    for path in sorted((folder / ANNOTATIONS).glob("*.xml")):
        try:
            file, labels = _voc_file(path)
            _add(found, pictures, file, labels)
            stems[path.stem] = next(reversed(found.files))
        except ValueError as fault:
            faults.append(f"{path.name}: {fault}")
    _refuse(faults, str(folder / ANNOTATIONS))
    splits = {
        stem: split
        for split in ("train", "val", "test")
        for stem in _lines(folder / SETS / f"{split}.txt")
    }
    if splits:  # what no list names belongs to no split
        found.splits = {photo: splits[stem] for stem, photo in stems.items() if stem in splits}
        found.files = {photo: found.files[photo] for photo in found.splits}
        found.labels = {photo: found.labels[photo] for photo in found.splits}
    return found


def _voc_file(path: Path) -> tuple[str, tuple[str, ...]]:
    """(name of the photo, labels) of an annotation. Raises `ValueError`."""
    text = path.read_text(encoding="utf-8")
    if _DOCTYPE in text:  # entities that grow without end are declared there
        raise ValueError(f"it holds {_DOCTYPE}, which no annotation needs")
    try:
        tree = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ValueError(f"not XML ({error})") from None
    names = [each.findtext("name") or "" for each in tree.iter("object")]
    return tree.findtext("filename") or f"{path.stem}.jpg", checked(names)


def _lines(path: Path) -> list[str]:
    """The first word of each line, where the file is there."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [words[0] for line in lines if (words := line.split())]


def _base(source: Path, root: Path | None) -> Path:
    return (root or source.parent).resolve()


def _add(found: SeveralLabels, folder: PhotoFolder, written: str, labels: tuple[str, ...]) -> None:
    """Take a photo into `found`. Raises `ValueError` saying what is wrong with it."""
    file = folder.find(written) if written else "no path"
    if isinstance(file, str):
        raise ValueError(file)
    photo = PurePosixPath(file.relative_to(folder.base).as_posix())
    if not is_photo(photo):
        raise ValueError(f"{written} is no photo")
    if photo in found.files:
        if found.labels[photo] != labels:
            was, now = named(list(found.labels[photo])) or "none", named(list(labels)) or "none"
            raise ValueError(f"{written}: its labels are {now} here, {was} earlier")
        del found.files[photo]  # last again: whoever called goes on with it
    found.files[photo], found.labels[photo] = file, labels


def _add_group(found: SeveralLabels, photo: PurePosixPath, cell: object) -> None:
    name = label_text(cell) or ""
    if (earlier := found.groups.setdefault(photo, name)) != name:
        raise ValueError(f"{photo}: its group is {name!r} here, {earlier!r} earlier")


def _refuse(faults: list[str], where: str) -> None:
    if faults:
        raise DataError(f"{where}: {counted(len(faults), 'fault')}:\n{listing(faults)}")
