"""Make `data/dogs/{train,val,test}/<class>/` from an archive or a folder of photos; check one.

Nothing half-made is ever seen: the tree is built in a hidden folder and moved into place whole.
"""

from __future__ import annotations

import logging
import os
import tempfile
import textwrap
import unicodedata
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, TypeVar

import numpy as np
from tqdm import tqdm

from cliptune.data.archive import (
    STANFORD_DOGS,
    FolderPhotos,
    NothingFetchedError,
    RemoteFile,
    TarPhotos,
    disk_errors,
    download,
    open_photos,
    partial_path,
)
from cliptune.data.breeds import (
    BREEDS,
    DEFAULT_NUM_BREEDS,
    ClassLayout,
    choose_classes,
    find_class_folders,
    name_key,
)
from cliptune.data.folder import IMAGE_SUFFIXES, SPLITS, scan_classes
from cliptune.data.images import find_unreadable
from cliptune.errors import DataError, listing

log = logging.getLogger(__name__)

ARCHIVE_NAME = "images.tar"
MIN_PHOTOS = len(SPLITS)  # one for each split

Counts = Mapping[str, Mapping[str, int]]  # split -> class -> number of photos
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class PrepareResult:
    """What `prepare` did. `notes` are paragraphs for the user, after the first line."""

    output_dir: Path
    class_names: tuple[str, ...]
    counts: Counts
    kind: Literal["made", "empty_tree", "already_there"]
    headline: str
    notes: tuple[str, ...] = ()

    def summary(self) -> str:
        """Plain text for a terminal of 80 columns."""
        table = [] if self.kind == "empty_tree" else [counts_table(self.counts)]
        return "\n\n".join([_wrap(self.headline), *table, *map(_wrap, self.notes)])


@dataclass(frozen=True, kw_only=True)
class ValidationResult:
    """What `validate` found. With no `errors`, the folder can be trained on."""

    data_dir: Path
    counts: Counts
    errors: tuple[str, ...]
    warnings: tuple[str, ...]

    def summary(self) -> str:
        """Plain text for a terminal of 80 columns."""
        parts = [counts_table(self.counts)]
        for title, faults in (("error", self.errors), ("warning", self.warnings)):
            if faults:
                plural = "s" if len(faults) > 1 else ""
                lines = [f"{len(faults)} {title}{plural}:"]
                lines += [_wrap(fault, indent="  ") for fault in faults]
                parts.append("\n".join(lines))
        if not self.errors:
            parts.append(f"{self.data_dir} can be used: every photo was decoded without a fault.")
        return "\n\n".join(parts)


def prepare(
    output_dir: Path,
    *,
    num_classes: int | None = None,
    classes: Sequence[str] | None = None,
    source: Path | None = None,
    download: bool = True,
    train_ratio: float = 0.7,
    seed: int = 42,
    max_per_class: int | None = None,
    progress: bool = True,
    url: str | None = None,
) -> PrepareResult:
    """Fill `output_dir/{train,val,test}/<class>/` with copies of the photos of `source`.

    `source` is a tar archive or a folder with one folder of photos for each class. Without it,
    `images.tar` in or beside `output_dir` serves; else it is downloaded (Stanford Dogs, 794 MB;
    or `url`). Without an archive and without the network, the empty folders are made for the
    user to fill. An `output_dir` that already holds photos is left as it is.

    `classes` chooses by name, `num_classes` by number; neither means ten well-known breeds of
    Stanford Dogs, or every class of any other source. Of each class, `train_ratio` goes to train,
    half of the rest to val and half to test, at least one photo to each. Which photo goes where
    depends on the photos' names, the class name and `seed` alone. `max_per_class` limits the
    photos taken of each class (None: all of them; Stanford Dogs has 148 to 252 a breed).

    Raises `DataError` for options or photos that cannot be used, `HubError` for a download that
    broke off, `ResourceError` for a full disk.
    """
    _check_options(train_ratio=train_ratio, seed=seed, max_per_class=max_per_class)
    there = _already_there(output_dir)
    if there is not None:
        return there
    _check_nothing_in_the_way(output_dir)
    source = source or _archive_beside(output_dir)
    if source is None:
        breeds = choose_classes(
            BREEDS,
            classes=classes,
            num_classes=_number(num_classes, classes, default=DEFAULT_NUM_BREEDS),
            where="Stanford Dogs",
        )
        source, reason = _fetch_archive(output_dir, allowed=download, url=url, progress=progress)
        if source is None:
            return _make_empty_tree(output_dir, breeds, reason)
    if source.exists() and output_dir.exists() and source.samefile(output_dir):
        raise DataError(
            f"{source}: --source and --output-dir are the same folder. "
            "Choose another --output-dir; the photos are copied into it."
        )
    with disk_errors(output_dir), open_photos(source) as photos:
        layout = find_class_folders(photos.photos, where=source)
        chosen = choose_classes(
            list(layout.classes),
            classes=classes,
            num_classes=_number(num_classes, classes, default=layout.default_number),
            where=str(source),
        )
        taken = {name: layout.classes[name] for name in sorted(chosen)}
        _check_enough(taken, where=source)
        plan: dict[PurePosixPath, PurePosixPath] = {}  # photo -> split/class/file
        counts: dict[str, dict[str, int]] = {split: {} for split in SPLITS}
        for name, members in taken.items():
            files = _file_names(members)
            parts = split_photos(
                members, name=name, train_ratio=train_ratio, seed=seed, limit=max_per_class
            )
            for split, part in parts.items():
                counts[split][name] = len(part)
                plan |= {photo: PurePosixPath(split, name, files[photo]) for photo in part}
        _build(photos, plan, output_dir=output_dir, progress=progress)
    log.info("%s: %d photos of %d classes", output_dir, len(plan), len(taken))
    return PrepareResult(
        output_dir=output_dir,
        class_names=tuple(taken),
        counts=counts,
        kind="made",
        headline=f"{output_dir}: {len(plan):,} photos of {len(taken)} classes, "
        f"copied from {source}.",
        notes=_notes(layout, num_taken=len(taken), num_others=photos.num_others),
    )


def split_photos(
    photos: Sequence[T], *, name: str, train_ratio: float, seed: int, limit: int | None = None
) -> dict[str, list[T]]:
    """`photos` (3 or more) of class `name` shared among train, val and test, none left empty.

    The order of `photos`, `name` and `seed` decide. Train gets `train_ratio` of them; val and
    test share the rest, an odd one going to test. With `limit`, only so many are taken.
    """
    # Seeded by the class's own name: adding a class does not move the others' photos.
    rng = np.random.default_rng([seed, zlib.crc32(name.encode("utf-8", "surrogateescape"))])
    order = [photos[i] for i in rng.permutation(len(photos))[:limit]]
    num_train = min(max(1, round(train_ratio * len(order))), len(order) - 2)
    num_val = (len(order) - num_train) // 2
    return {
        "train": order[:num_train],
        "val": order[num_train : num_train + num_val],
        "test": order[num_train + num_val :],
    }


def validate(data_dir: Path, *, progress: bool = True) -> ValidationResult:
    """Look at every folder and decode every photo of `data_dir`.

    Errors would stop a training run: no train/, fewer than two classes, a class without training
    photos, a class of val/ that train/ lacks, a photo that cannot be decoded. What training or
    evaluation can live with is a warning: no val/ or test/, a class missing there, other files.

    Raises `DataError` when `data_dir` is not a folder.
    """
    if not data_dir.is_dir():
        what = "this is a file" if data_dir.exists() else "no such folder"
        raise DataError(
            f"{data_dir}: {what}. Expected a folder that holds train/<class name>/*.jpg. "
            f"Make one with 'cliptune prepare --output-dir {data_dir}'."
        )
    with disk_errors(data_dir):
        splits = {
            split: scan_classes(data_dir / split) for split in SPLITS if (data_dir / split).is_dir()
        }
        others = _other_files(data_dir)
    counts = {
        split: {name: len(paths) for name, paths in classes.items()}
        for split, classes in splits.items()
    }
    errors, warnings = _tree_faults(data_dir, counts)
    if others:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(6))
        warnings.append(
            f"{others.total()} files are not used ({kinds}); "
            f"photos are {', '.join(sorted(IMAGE_SUFFIXES))} files."
        )
    paths = [path for classes in splits.values() for photos in classes.values() for path in photos]
    errors += [str(fault) for fault in find_unreadable(paths, progress=progress)]
    return ValidationResult(
        data_dir=data_dir, counts=counts, errors=tuple(errors), warnings=tuple(warnings)
    )


def counts_table(counts: Counts) -> str:
    """One row for each class: its photos in each split and in all; the sums in the last row."""
    names = sorted({name for classes in counts.values() for name in classes})
    splits = [split for split in SPLITS if split in counts]
    width = min(44, max(map(_cells, [*names, "all classes"])))

    def row(name: str, numbers: Sequence[int | str]) -> str:
        columns = "".join(f"{number:>9,}" if number != "-" else f"{'-':>9}" for number in numbers)
        return _fit(name, width) + columns

    head = _fit("class", width) + "".join(f"{title:>9}" for title in [*splits, "total"])
    lines = [head, "-" * len(head)]
    for name in names:
        found = [counts[split].get(name) for split in splits]
        shown: list[int | str] = ["-" if number is None else number for number in found]
        lines.append(row(name, [*shown, sum(number or 0 for number in found)]))
    sums = [sum(counts[split].values()) for split in splits]
    return "\n".join([*lines, "-" * len(head), row("all classes", [*sums, sum(sums)])])


def _number(
    num_classes: int | None, classes: Sequence[str] | None, *, default: int | None
) -> int | None:
    """How many classes to take: `default` where neither a number nor names were given."""
    return default if num_classes is None and classes is None else num_classes


def _check_options(*, train_ratio: float, seed: int, max_per_class: int | None) -> None:
    if not 0 < train_ratio < 1:
        raise DataError(f"--train-ratio {train_ratio}: expected a share above 0 and below 1.")
    if seed < 0:
        raise DataError(f"--seed {seed}: expected a whole number from 0.")
    if max_per_class is not None and max_per_class < MIN_PHOTOS:
        raise DataError(
            f"max_per_class {max_per_class}: expected at least {MIN_PHOTOS}, "
            "one photo for each of train, val and test."
        )


def _already_there(output_dir: Path) -> PrepareResult | None:
    counts = {
        split: {name: len(paths) for name, paths in scan_classes(output_dir / split).items()}
        for split in SPLITS
        if (output_dir / split).is_dir()
    }
    num_photos = sum(sum(classes.values()) for classes in counts.values())
    if num_photos == 0:
        return None
    return PrepareResult(
        output_dir=output_dir,
        class_names=tuple(counts.get("train", {})),
        counts=counts,
        kind="already_there",
        headline=f"{output_dir} already holds {num_photos:,} photos; nothing was changed.",
        notes=(
            "To start afresh, choose another --output-dir or delete this folder first. "
            f"To check it: cliptune prepare --output-dir {output_dir} --validate",
        ),
    )


def _check_nothing_in_the_way(output_dir: Path) -> None:
    """Nothing of the user's is ever deleted: only empty folders may be replaced."""
    for path in (output_dir, *(output_dir / split for split in SPLITS)):
        if path.exists() and not path.is_dir():
            raise DataError(f"{path}: this is a file. Expected a folder, or nothing there yet.")
    for split in SPLITS:
        for root, _, files in os.walk(output_dir / split):
            if files:
                raise DataError(
                    f"{Path(root, files[0])}: this file is in the way. Expected {output_dir} to "
                    "hold no files yet, or photos in train/<class>/. Move it away, or choose "
                    "another --output-dir."
                )


def _archive_beside(output_dir: Path) -> Path | None:
    for folder in (output_dir, output_dir.parent):
        if (folder / ARCHIVE_NAME).is_file():
            return folder / ARCHIVE_NAME
    return None


def _fetch_archive(
    output_dir: Path, *, allowed: bool, url: str | None, progress: bool
) -> tuple[Path | None, str]:
    """(the downloaded archive, "") or (None, why there is none)."""
    if not allowed:
        return None, "downloading is switched off (--no-download)"
    target = output_dir.parent / ARCHIVE_NAME
    try:
        download(RemoteFile(url) if url else STANFORD_DOGS, target, progress=progress)
    except NothingFetchedError as error:
        part = partial_path(target)
        kept = f"; what an earlier try fetched is kept in {part}" if part.exists() else ""
        return None, f"{error}{kept}"
    return target, ""


def _make_empty_tree(output_dir: Path, breeds: Sequence[str], reason: str) -> PrepareResult:
    with disk_errors(output_dir):
        for split in SPLITS:
            for name in breeds:
                (output_dir / split / name).mkdir(parents=True, exist_ok=True)
    return PrepareResult(
        output_dir=output_dir,
        class_names=tuple(sorted(breeds)),
        counts={split: dict.fromkeys(sorted(breeds), 0) for split in SPLITS},
        kind="empty_tree",
        headline=f"{output_dir}: made empty folders for {len(breeds)} classes, without photos.",
        notes=(
            f"There is no archive to take photos from: {reason}.",
            f"What to do now, either: put photos into {output_dir}/train/<class>/ (about 100 a "
            "class), and about 20 a class into val/<class>/ and test/<class>/; remove the classes "
            "you do not fill. Then check them: "
            f"cliptune prepare --output-dir {output_dir} --validate",
            f"Or: fetch {STANFORD_DOGS.url} elsewhere, save it as "
            f"{output_dir.parent / ARCHIVE_NAME}, and run this command again.",
            "Or: give photos of your own, one folder for each class, with --source FOLDER.",
            "The classes: " + ", ".join(sorted(breeds)) + ".",
        ),
    )


def _check_enough(classes: Mapping[str, Sequence[PurePosixPath]], *, where: Path) -> None:
    few = [f"{name}: {len(photos)}" for name, photos in classes.items() if len(photos) < MIN_PHOTOS]
    if few:
        raise DataError(
            f"{where}: classes with fewer than {MIN_PHOTOS} photos, one for each of train, val "
            f"and test:\n{listing(few, limit=120)}\nAdd photos, remove these folders, or choose "
            "other classes with --classes."
        )


def _file_names(photos: Sequence[PurePosixPath]) -> dict[PurePosixPath, str]:
    """Each photo's own file name; one that another photo of the class took gets a number."""
    names: dict[PurePosixPath, str] = {}
    taken: set[str] = set()
    for photo in photos:
        name, number = photo.name, 2
        while name_key(name) in taken:
            name, number = f"{photo.stem}-{number}{photo.suffix}", number + 1
        taken.add(name_key(name))
        names[photo] = name
    return names


def _build(
    photos: FolderPhotos | TarPhotos,
    plan: Mapping[PurePosixPath, PurePosixPath],
    *,
    output_dir: Path,
    progress: bool,
) -> None:
    """Copy `plan` (photo -> split/class/file) into a hidden folder, then move it into place."""
    # Inside an output_dir that exists: it may be a mount, and a move must not cross disks.
    beside = output_dir if output_dir.exists() else output_dir.parent
    beside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output_dir.name}.partial-", dir=beside) as work:
        tree = Path(work, "tree")
        for folder in sorted({target.parent for target in plan.values()}):
            (tree / folder).mkdir(parents=True)
        copied = photos.copy({photo: tree / target for photo, target in plan.items()})
        for _ in tqdm(
            copied, total=len(plan), desc="copying photos", unit="img",
            disable=None if progress else True,
        ):  # fmt: skip
            pass
        _move_into_place(tree, output_dir)


def _move_into_place(tree: Path, output_dir: Path) -> None:
    if not output_dir.exists():
        tree.rename(output_dir)
        return
    placed = []
    try:
        for split in SPLITS:
            for root, _, _ in os.walk(output_dir / split, topdown=False):
                Path(root).rmdir()
            (tree / split).rename(output_dir / split)
            placed.append(split)
    except BaseException:  # Ctrl-C between two moves included
        for split in placed:
            (output_dir / split).rename(tree / split)
        raise


def _notes(layout: ClassLayout, *, num_taken: int, num_others: int) -> tuple[str, ...]:
    notes = []
    num_left = len(layout.classes) - num_taken
    if num_left:
        notes.append(
            f"{num_left} more classes were left out; --num-classes or --classes takes them."
        )
    if layout.num_loose:
        notes.append(f"{layout.num_loose} photos lie in no class folder and were left out.")
    if num_others:
        notes.append(
            f"{num_others} files that are not {', '.join(sorted(IMAGE_SUFFIXES))} were left out."
        )
    if layout.is_stanford_dogs:
        notes.append(
            "Stanford Dogs (Khosla et al., 2011) is for research, not for commerce. Its photos "
            "come from ImageNet: a base model that learned from ImageNet has seen them."
        )
    return tuple(notes)


def _tree_faults(data_dir: Path, counts: Counts) -> tuple[list[str], list[str]]:
    """(errors, warnings) of the folders alone."""
    if not any(sum(classes.values()) for classes in counts.values()):
        return [
            f"{data_dir}: no photos yet. Expected {data_dir}/train/<class>/ with photos "
            f"({', '.join(sorted(IMAGE_SUFFIXES))}), the same for val/ and test/."
        ], []
    errors, warnings = [], []
    train = counts.get("train")
    if train is None:
        errors.append(f"{data_dir / 'train'}: no such folder; it holds the photos to learn from.")
        train = {}
    elif len(train) < 2:
        errors.append(f"{data_dir / 'train'}: {len(train)} class folders; expected at least two.")
    errors += [
        f"{data_dir / 'train' / name}: no photo in this class folder. Add some, or remove it."
        for name, number in train.items()
        if number == 0
    ]
    for split, without in (
        ("val", "training then takes a part of train/ for it"),
        ("test", "only val/ is left to evaluate on"),
    ):
        classes = counts.get(split)
        if classes is None:
            warnings.append(f"{data_dir / split}: no such folder; {without}.")
            continue
        if not any(classes.values()):
            fault = f"{data_dir / split}: no photos. Fill it, or remove it: {without}."
            (errors if split == "val" else warnings).append(fault)
            continue
        missing = [name for name in train if not classes.get(name)]
        if missing:
            warnings.append(f"{data_dir / split}: no photos of {', '.join(missing)}.")
        unknown = [name for name in classes if name not in train]
        if unknown:
            fault = f"{data_dir / split}: classes that train/ lacks: {', '.join(unknown)}."
            (errors if split == "val" else warnings).append(fault)
    return errors, warnings


def _other_files(data_dir: Path) -> Counter[str]:
    """Kind -> number of files in the splits that are no photo of a class."""
    others: Counter[str] = Counter()
    for split in SPLITS:
        for root, folders, files in os.walk(data_dir / split):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in files:
                suffix = Path(name).suffix.lower()
                if name.startswith("."):
                    continue
                if suffix not in IMAGE_SUFFIXES:
                    others[suffix or "without suffix"] += 1
                elif Path(root) == data_dir / split:
                    others[f"{suffix} outside a class folder"] += 1
    return others


def _wrap(text: str, *, indent: str = "") -> str:
    return textwrap.fill(
        text, width=80, initial_indent=indent, subsequent_indent=indent and indent + "  ",
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def _cells(text: str) -> int:
    """Columns of a terminal: Chinese characters take two."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def _fit(text: str, width: int) -> str:
    if _cells(text) > width:
        while _cells(text) > width - 1:
            text = text[:-1]
        text += "…"
    return text + " " * (width - _cells(text))
