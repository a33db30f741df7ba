"""Photos with any number of labels each: `data_dir/{train,val,test}/labels.csv` beside the photos.

    path,labels
    park/0001.jpg,beagle|boxer
    park/0002.jpg,

Paths go from the split's folder, labels are parted by `|`; a photo without any shows none of the
classes. Shape suffixes: N photos, C classes, P parts.
"""

from __future__ import annotations

import csv
import io
import logging
import posixpath
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cliptune.data.folder import Sample, Split
from cliptune.data.groups import Groups, groups_of
from cliptune.data.image_files import IMAGE_SUFFIXES, find_images
from cliptune.data.naming import clean_name
from cliptune.data.splits import split_folder, split_folders
from cliptune.errors import DataError, listing, named, together
from cliptune.hints import did_you_mean
from cliptune.text import counted

log = logging.getLogger(__name__)

LABELS_FILE = "labels.csv"
SEPARATOR = "|"
COLUMNS = ["path", "labels"]

Targets = NDArray[np.bool_]
Labelled = Mapping[Path, tuple[str, ...]]  # a photo, and its labels


def is_multilabel(data_dir: Path) -> bool:
    """Whether the splits of `data_dir` say their labels in a `LABELS_FILE`."""
    return any(map(_lists_labels, split_folders(data_dir).values()))


def _lists_labels(split_dir: Path) -> bool:
    """Whether it holds a list of ours: beside folders of classes a file of that name may be any."""
    path = split_dir / LABELS_FILE
    if not path.is_file():
        return False
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        if file.readline().strip() == ",".join(COLUMNS):
            return True
    return not any(entry.is_dir() for entry in list(split_dir.iterdir()))


def has_several_labels(data_dir: Path, task: str) -> bool:
    """Whether photos of `data_dir` may have any number of labels: by `task`, or "auto", as found.

    Raises `DataError` for task "multilabel" where no split says its labels.
    """
    found = is_multilabel(data_dir)
    if task == "multilabel" and not found:
        raise DataError(
            f"{data_dir}: data.task is multilabel, and none of its splits holds {LABELS_FILE}. "
            "Make such a folder with: cliptune prepare --multilabel"
        )
    return found if task == "auto" else task == "multilabel"


def targets_of(split: Split) -> Targets:
    """(N, C) which classes each photo of `split` shows."""
    targets_NC = np.zeros((len(split.samples), len(split.class_names)), dtype=bool)
    for place, labels in enumerate(split.several or ()):
        targets_NC[place, list(labels)] = True
    return targets_NC


def read_labels(split_dir: Path) -> Labelled:
    """The photos that `LABELS_FILE` of `split_dir` lists, in its order, with their labels.

    Labels are clean (`naming.clean_name`), each once. Raises `DataError` with every fault found.
    """
    path = split_dir / LABELS_FILE
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(
            f"{split_dir}: it holds no {LABELS_FILE}, as the other splits do. Expected one with "
            f"the columns {' and '.join(COLUMNS)}."
        ) from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 ({error.reason}). Save it as UTF-8.") from None
    rows = csv.DictReader(io.StringIO(text, newline=""))
    if rows.fieldnames is None or list(rows.fieldnames) != COLUMNS:
        raise DataError(
            f"{path}: its columns are {named(list(rows.fieldnames or []))}; expected "
            f"{' and '.join(COLUMNS)}."
        )
    found: dict[Path, tuple[str, ...]] = {}
    faults = []
    for number, row in enumerate(rows, 2):
        if row["path"] is None or row["labels"] is None:
            faults.append(f"{path}: line {number} has too few cells")
            continue
        fault = _path_fault(split_dir, row["path"])
        photo = split_dir / row["path"]
        if fault or photo in found:
            faults.append(f"{path}: line {number}: {row['path']}: {fault or 'listed twice'}")
            continue
        found[photo] = labels_in(row["labels"])
    if faults:
        raise DataError(together(path, faults))
    if not found:
        raise DataError(f"{path}: it lists no photo.")
    return found


def labels_in(cell: str) -> tuple[str, ...]:
    """The labels of a cell such as `beagle|boxer`, clean, in its order and each once."""
    names = (clean_name(part) for part in cell.split(SEPARATOR))
    return tuple(dict.fromkeys(name for name in names if name))


def joined_labels(names: Sequence[str], which_C: NDArray[np.bool_]) -> str:
    """The cell of those `names` that are true in `which_C`."""
    return SEPARATOR.join(name for name, there in zip(names, which_C, strict=True) if there)


def write_labels(path: Path, rows: Mapping[str, Sequence[str]]) -> None:
    """Write `LABELS_FILE` at `path`: paths from its folder, with the labels of each."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([photo, SEPARATOR.join(labels)] for photo, labels in rows.items())


def _path_fault(split_dir: Path, name: str) -> str:
    """What is wrong with a photo's path; "" where nothing is."""
    if name != posixpath.normpath(name) or name.startswith(("/", "../")) or "\\" in name:
        return "expected a path below the split's folder, with / between its parts"
    if Path(name).suffix.lower() not in IMAGE_SUFFIXES:
        return f"expected a photo ({', '.join(sorted(IMAGE_SUFFIXES))})"
    return "" if (split_dir / name).is_file() else "no such file"


def load_multilabel_training(data_dir: Path, *, val_ratio: float, seed: int) -> tuple[Split, Split]:
    """The train and val splits of `data_dir`; as `folder.load_training_splits`, with `several`.

    Classes are the labels of train. Without a val/ folder, `val_ratio` of train becomes val, so
    that each class has its share there as nearly as can be (`parted`), and groups of
    `dataset.json` stay together.

    Raises `DataError` with every fault found.
    """
    folders = split_folders(data_dir)
    if "train" not in folders:
        raise DataError(f"{data_dir}: it holds no train/ folder. Expected one with {LABELS_FILE}.")
    train = _read(folders["train"])
    class_names = tuple(sorted({label for labels in train.values() for label in labels}))
    if len(class_names) < 2:
        raise DataError(
            f"{folders['train'] / LABELS_FILE}: {counted(len(class_names), 'label')} in all; "
            "expected two or more."
        )
    if "val" not in folders:
        return _without_val(train, class_names, data_dir, val_ratio=val_ratio, seed=seed)
    val = _read(folders["val"])
    known = set(class_names)
    if unknown := sorted({label for labels in val.values() for label in labels} - known):
        lines = [f"'{label}'.{did_you_mean(label, class_names)}" for label in unknown]
        raise DataError(
            f"{folders['val'] / LABELS_FILE}: labels that no photo of train has:\n"
            f"{listing(lines)}\nExpected some of: {named(class_names)}."
        )
    return _split("train", class_names, train), _split("val", class_names, val)


def load_multilabel_split(data_dir: Path, split: str, *, class_names: Sequence[str]) -> Split:
    """One split, its labels matched with `class_names`; as `folder.load_split`, with `several`.

    Labels that are none of them are listed in `extra_classes`, and no labels of the photo.
    """
    return _split(split, tuple(class_names), _read(split_folder(data_dir, split)))


def _read(split_dir: Path) -> Labelled:
    """The photos listed in `split_dir`; those that lie there beside them are told of."""
    photos = read_labels(split_dir)
    others = [path for path in find_images(split_dir) if path not in photos]
    if others:
        lines = listing([str(path) for path in others], limit=3)
        log.warning(
            "%s: %s that %s does not list left out:\n%s",
            split_dir, counted(len(others), "photo"), LABELS_FILE, lines,
        )  # fmt: skip
    return photos


def _without_val(
    photos: Labelled, class_names: tuple[str, ...], data_dir: Path, *, val_ratio: float, seed: int
) -> tuple[Split, Split]:
    whole = _split("train", class_names, photos)
    shares = np.array([1 - val_ratio, val_ratio])
    groups_N = groups_of(data_dir, list(photos))
    parts_N = parted(targets_of(whole), shares, seed=seed, groups_N=groups_N)
    train, val = (
        {path: photos[path] for path, part in zip(photos, parts_N, strict=True) if part == own}
        for own in (0, 1)
    )
    log.info(
        "%s has no val/ folder: %d of its %s serve as val (data.val_ratio %g, seed %d)",
        data_dir, len(val), counted(len(photos), "training photo"), val_ratio, seed,
    )  # fmt: skip
    return _split("train", class_names, train), _split("val", class_names, val)


def _split(name: str, class_names: tuple[str, ...], photos: Labelled) -> Split:
    places = {clean_name(label): place for place, label in enumerate(class_names)}
    several = tuple(
        tuple(sorted(places[label] for label in labels if label in places))
        for labels in photos.values()
    )
    seen = {place for labels in several for place in labels}
    told = dict.fromkeys(label for labels in photos.values() for label in labels)
    return Split(
        name,
        class_names,
        tuple(Sample(path, 0) for path in photos),
        tuple(label for place, label in enumerate(class_names) if place not in seen),
        tuple(label for label in told if label not in places),
        several,
    )


def parted(
    targets_NC: Targets, shares_P: NDArray[np.float64], *, seed: int, groups_N: Groups | None = None
) -> NDArray[np.int64]:
    """(N,) the part each photo goes to, so that each class is shared out as `shares_P` say.

    From the rarest class to the most frequent, each of its photos goes to the part that still
    wants most of that class, then to the one that wants most photos: the iterative
    stratification of Sechidis, Tsoumakas & Vlahavas (ECML PKDD 2011), algorithm 1. Photos without
    labels come last. Chance, by `seed`, goes through photos in their order. Photos of one number
    in `groups_N` go together, groups that hold most of the class first.
    """
    rng = np.random.default_rng(seed)
    unit_N = np.arange(len(targets_NC)) if groups_N is None else _in_order(groups_N)
    sizes_U = np.bincount(unit_N)
    photos_UC = np.zeros((len(sizes_U), targets_NC.shape[1]), dtype=np.int64)
    np.add.at(photos_UC, unit_N, targets_NC)
    wanted_P = shares_P * len(targets_NC)
    wanted_CP = targets_NC.sum(axis=0)[:, None] * shares_P
    parts_U = np.full(len(sizes_U), -1)
    left_UC = photos_UC.copy()
    while (counts_C := (left_UC > 0).sum(axis=0)).any():
        rarest = int(np.where(counts_C > 0, counts_C, len(sizes_U) + 1).argmin())
        for unit in _largest_first(left_UC[:, rarest], rng):
            part = max(range(len(shares_P)), key=lambda p: (wanted_CP[rarest, p], wanted_P[p]))
            parts_U[unit] = part
            wanted_CP[:, part] -= photos_UC[unit]
            wanted_P[part] -= sizes_U[unit]
            left_UC[unit] = 0
    for unit in _largest_first(np.where(parts_U < 0, sizes_U, 0), rng):
        part = int(wanted_P.argmax())
        parts_U[unit] = part
        wanted_P[part] -= sizes_U[unit]
    return parts_U[unit_N]


def _in_order(groups_N: Groups) -> NDArray[np.int64]:
    """`groups_N` numbered from 0 on in the order in which they come up."""
    _, first_U, place_N = np.unique(groups_N, return_index=True, return_inverse=True)
    number_U = np.empty(len(first_U), dtype=np.int64)
    number_U[np.argsort(first_U)] = np.arange(len(first_U))
    numbers_N: NDArray[np.int64] = number_U[place_N]
    return numbers_N


def _largest_first(sizes_U: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """The places that are not 0, those of one size in an order by chance."""
    units = rng.permutation(np.flatnonzero(sizes_U))
    return units[np.argsort(-sizes_U[units], kind="stable")]
