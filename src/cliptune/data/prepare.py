"""Make `data/dogs/{train,val,test}/<class>/` from an archive or a folder of photos; check one.

Nothing half-made is ever seen: the tree is built in a hidden folder and moved into place whole.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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
from cliptune.data.validate import Counts, counts_table
from cliptune.errors import DataError, listing
from cliptune.files import free, sync
from cliptune.text import wrap

log = logging.getLogger(__name__)

ARCHIVE_NAME = "images.tar"
MIN_PHOTOS = len(SPLITS)  # one for each split

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
        return "\n\n".join([wrap(self.headline), *table, *map(wrap, self.notes)])


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
    inside, outside = output_dir.resolve(), source.resolve()
    if source.is_dir() and (inside.is_relative_to(outside) or outside.is_relative_to(inside)):
        raise DataError(
            f"{output_dir}: --output-dir and --source {source} lie inside each other, so the "
            "copies would become photos of the source. Choose another --output-dir."
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
    prefix = f".{output_dir.name}.partial-"
    with (
        _alone(output_dir, beside, prefix),
        tempfile.TemporaryDirectory(prefix=prefix, dir=beside) as work,
    ):
        tree = Path(work, "tree")
        for folder in sorted({target.parent for target in plan.values()}):
            (tree / folder).mkdir(parents=True)
        copied = photos.copy({photo: tree / target for photo, target in plan.items()})
        for _ in tqdm(
            copied, total=len(plan), desc="copying photos", unit="img",
            disable=None if progress else True,
        ):  # fmt: skip
            pass
        if hasattr(os, "sync"):
            os.sync()  # on the disk before it is seen; one by one takes longer for many files
        _move_into_place(tree, output_dir)
        sync(beside)


@contextmanager
def _alone(output_dir: Path, beside: Path, prefix: str) -> Iterator[None]:
    """Keeps a second preparation of the same folder out; clears what killed ones left."""
    from filelock import FileLock, Timeout

    lock = FileLock(beside / f".{output_dir.name}.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise DataError(
            f"{output_dir}: another 'cliptune prepare' is filling this folder. Wait for it, or "
            "choose another --output-dir."
        ) from None
    try:
        for left in beside.glob(f"{prefix}*"):
            shutil.rmtree(left, ignore_errors=True)
        yield
    finally:
        free(lock)


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
