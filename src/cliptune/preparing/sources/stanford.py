"""Stanford Dogs: its archive, and its official lists of who is for training and for testing."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path, PurePosixPath

from cliptune.errors import DataError, HubError
from cliptune.preparing.download import (
    STANFORD_DOGS,
    NothingFetchedError,
    RemoteFile,
    download,
    partial_path,
)
from cliptune.preparing.sources.layouts import ClassLayout

ARCHIVE_NAME = "images.tar"
# No digest of it is published; what arrives must name the photos of the archive.
STANFORD_LISTS_FILE = RemoteFile("http://vision.stanford.edu/aditya86/ImageNetDogs/lists.tar")
STANFORD_LISTS: dict[str, str] = {"train_list.mat": "train", "test_list.mat": "test"}


def with_stanford_lists(layout: ClassLayout, found: Path) -> ClassLayout:
    """`layout` of Stanford Dogs with its official split (100 photos a breed for train).

    `found` is `lists.tar`, or a folder that holds `train_list.mat` and `test_list.mat`.

    Raises `DataError` when lists and photos do not belong together.
    """
    split_of = {
        photo: split
        for name, split in STANFORD_LISTS.items()
        for photo in _read_stanford_list(found, name)
    }
    splits: dict[PurePosixPath, str] = {}
    unlisted = 0
    classes: dict[str, list[PurePosixPath]] = {}
    for name, photos in layout.classes.items():
        listed = [p for p in photos if PurePosixPath(*p.parts[-2:]) in split_of]
        unlisted += len(photos) - len(listed)
        classes[name] = listed
        splits |= {photo: split_of[PurePosixPath(*photo.parts[-2:])] for photo in listed}
    if not splits:
        raise DataError(
            f"{found}: these lists name none of the photos. Expected Stanford Dogs' own."
        )
    return ClassLayout(classes, "stanford-dogs", True, layout.num_loose + unlisted, splits)


def _read_stanford_list(found: Path, name: str) -> list[PurePosixPath]:
    """The paths `<folder>/<file>` in one of the dataset's MATLAB files."""
    from scipy.io import loadmat

    if found.is_dir():
        content = (found / name).read_bytes()
    else:
        try:
            with tarfile.open(found) as tar:
                member = next(m for m in tar if PurePosixPath(m.name).name == name and m.isreg())
                file = tar.extractfile(member)
                assert file is not None
                content = file.read(2**26)
        except (tarfile.TarError, StopIteration, EOFError) as error:
            raise DataError(
                f"{found}: no {name} in it ({error or 'not among its files'}). Expected "
                "lists.tar of Stanford Dogs; delete it and fetch it again."
            ) from None
    try:
        cells = loadmat(io.BytesIO(content))["file_list"]
        return [PurePosixPath(str(cell[0])) for cell in cells[:, 0]]
    except Exception as error:  # a parser of binary files raises nearly anything
        raise DataError(f"{found}: {name} is not Stanford Dogs' list ({error}).") from None


def archive_beside(output_dir: Path) -> Path | None:
    """`images.tar` in or beside `output_dir`, where there is one."""
    for folder in (output_dir, output_dir.parent):
        if (folder / ARCHIVE_NAME).is_file():
            return folder / ARCHIVE_NAME
    return None


def fetch_archive(
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


def find_lists(source: Path, *, allowed: bool) -> Path:
    """`lists.tar`, or a folder with the .mat files, in or beside `source`; else fetched."""
    for folder in (source, source.parent) if source.is_dir() else (source.parent,):
        if (folder / "lists.tar").is_file():
            return folder / "lists.tar"
        if all((folder / name).is_file() for name in STANFORD_LISTS):
            return folder
    target = source.parent / "lists.tar"
    why = "downloading is switched off (--no-download)"
    if allowed:
        try:
            download(STANFORD_LISTS_FILE, target)
            return target
        except NothingFetchedError as error:
            why = str(error)
    raise HubError(
        f"The official lists of Stanford Dogs are not there: {why}. Fetch "
        f"{STANFORD_LISTS_FILE.url} elsewhere and save it as {target}, or use --splits random."
    )
