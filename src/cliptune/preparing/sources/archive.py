"""Stores of photos: a folder, a list of files, a tar archive that is never unpacked whole.

Each has `photos`, relative paths in a defined order; `num_others`, how many other files were
passed over; and `read`, which gives their bytes in whatever order is fastest.
"""

from __future__ import annotations

import gzip
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Protocol

from cliptune.data.classes_file import CLASSES_FILE
from cliptune.data.image_files import IMAGE_SUFFIXES, find_images
from cliptune.errors import DataError
from cliptune.language import said

# Photos hardly compress: what unpacks to a hundred times its size holds something else.
MAX_EXPANSION = 100
FREE_EXPANSION = 64 * 2**20  # bytes; small archives of small files may compress well
MAX_PHOTO = 512 * 2**20  # bytes


class PhotoStore(Protocol):
    """Where photos are read from."""

    photos: list[PurePosixPath]
    num_others: int

    def read(self, photos: Collection[PurePosixPath]) -> Iterator[tuple[PurePosixPath, bytes]]:
        """Each of `photos` once, with its file's content."""

    def file(self, photo: PurePosixPath) -> Path | None:
        """The file that holds `photo` alone, where there is one."""


class FilePhotos:
    """Photos in files of their own: relative path -> file."""

    def __init__(
        self,
        files: Mapping[PurePosixPath, Path],
        *,
        num_others: int = 0,
        notes: tuple[str, ...] = (),
    ) -> None:
        self._files = dict(files)
        self.photos = sorted(self._files)
        self.num_others = num_others
        self.notes = notes

    def read(self, photos: Collection[PurePosixPath]) -> Iterator[tuple[PurePosixPath, bytes]]:
        for photo in photos:
            yield photo, self._files[photo].read_bytes()

    def file(self, photo: PurePosixPath) -> Path:
        return self._files[photo]


def folder_photos(folder: Path) -> FilePhotos:
    """The photos below `folder`, by their paths relative to it."""
    # Class folders may be links to elsewhere; below them links are not followed.
    tops = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    tops = [entry for entry in tops if entry.name != CLASSES_FILE]  # no file that is left out
    found = [path for top in tops if top.is_dir() for path in find_images(top)]
    found += [top for top in tops if top.is_file() and is_photo(PurePosixPath(top.name))]
    num_files = sum(top.is_file() for top in tops) + sum(
        len(files) for top in tops if top.is_dir() for _, _, files in os.walk(top)
    )
    files: dict[PurePosixPath, Path] = {}
    apart = _Apart(folder)
    for path in found:
        photo = apart.path(path.relative_to(folder).as_posix())
        if is_photo(photo):
            if photo in files:
                raise apart.twice(photo)
            files[photo] = path
    return FilePhotos(files, num_others=num_files - len(files), notes=apart.notes())


class _Apart:
    """Takes names apart that hold the separators of Windows, and remembers that it did.

    Some programs write `train\\pug\\1.jpg` into an archive; elsewhere that is the name of one file.
    """

    def __init__(self, where: Path) -> None:
        self._where = where
        self._taken: list[tuple[str, PurePosixPath]] = []

    def path(self, name: str) -> PurePosixPath:
        """The path that `name` means. Raises `DataError` where it leads out of its folder."""
        if "\\" not in name:
            return PurePosixPath(name)
        windows = PureWindowsPath(name)
        if windows.anchor or ".." in windows.parts:
            raise DataError(
                f"{self._where}: the name '{name}' holds backslashes, as archives packed on "
                "Windows leave them, and leads out of the folder. Rename or delete this file."
            )
        path = PurePosixPath(*windows.parts)
        self._taken.append((name, path))
        return path

    def twice(self, path: PurePosixPath) -> DataError:
        """What to raise where two names mean one path."""
        return DataError(
            f"{self._where}: two files would be {path}, one of them by a name with backslashes. "
            "Delete one of them."
        )

    def notes(self) -> tuple[str, ...]:
        """What was done, where something was."""
        if not self._taken:
            return ()
        count, (name, path) = len(self._taken), self._taken[0]
        return (
            said(
                "{count:,} file name holds backslashes, as archives packed on Windows leave them; "
                "taken apart into folders: '{name}' is {path}."
                if count == 1
                else "{count:,} file names hold backslashes, as archives packed on Windows leave "
                "them; taken apart into folders: '{name}' is {path}.",
                count=count, name=name, path=path,
            ),
        )  # fmt: skip


class TarPhotos:
    """The photos in a tar archive (plain or compressed), listed without being unpacked.

    `photos` are the paths of image files in it, `num_others` counts its other files. Raises
    `DataError` for a file that is no tar archive, is damaged, or ends early; and for a member
    that points out of the archive or is a link or a device, before anything is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.num_others = 0
        self._packed_size = path.stat().st_size
        self._members: dict[PurePosixPath, tarfile.TarInfo] = {}
        with self._reading():
            self._tar = tarfile.open(path)  # noqa: SIM115  (closed by __exit__)
        try:
            with self._reading():
                self._list()
        except BaseException:
            self._tar.close()
            raise
        self.photos = sorted(self._members)

    def __enter__(self) -> TarPhotos:
        return self

    def __exit__(self, *_: object) -> None:
        self._tar.close()

    def read(self, photos: Collection[PurePosixPath]) -> Iterator[tuple[PurePosixPath, bytes]]:
        for photo in sorted(photos, key=lambda photo: self._members[photo].offset):
            with self._reading():
                content = self._tar.extractfile(self._members[photo])
                assert content is not None  # only regular files are listed
                with content:
                    data = content.read()
            yield photo, data

    def file(self, photo: PurePosixPath) -> None:
        return None

    def texts(self, *names: str) -> dict[str, str]:
        """Member files that are called one of `names`, in whatever folder: name -> text."""
        found = {}
        with self._reading():
            for member in self._tar.getmembers():
                name = PureWindowsPath(member.name).name
                if name in names and member.size <= MAX_PHOTO:
                    content = self._tar.extractfile(member)
                    assert content is not None
                    found[name] = content.read().decode("utf-8", "replace")
        return found

    def _list(self) -> None:
        apart = _Apart(self.path)
        for member in self._tar:
            self._refuse_unsafe(member)
            if member.isdir():
                continue
            path = apart.path(member.name)
            if not is_photo(path):
                self.num_others += 1
                continue
            if path in self._members and self._members[path].name != member.name:
                raise apart.twice(path)
            self._members[path] = member
        self.notes = apart.notes()
        # tarfile takes a header it cannot read for the end; the true end is a block of zeros.
        assert self._tar.fileobj is not None
        self._tar.fileobj.seek(self._tar.offset)
        if self._tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("it ends early")

    def _refuse_unsafe(self, member: tarfile.TarInfo) -> None:
        windows = PureWindowsPath(member.name)
        unpacked = member.offset_data + member.size
        if not (member.isreg() or member.isdir()):
            what = "a link" if member.islnk() or member.issym() else "a device or pipe"
        elif member.name.startswith("/") or windows.anchor:
            what = "an absolute path"
        elif ".." in windows.parts:
            what = "a path that leaves the archive"
        elif is_photo(PurePosixPath(member.name)) and (
            member.issparse() or member.size > MAX_PHOTO
        ):
            what = f"{member.size:,} bytes large, no photo"
        elif unpacked > FREE_EXPANSION + MAX_EXPANSION * self._packed_size:
            what = (
                f"a bomb: up to it, {self._packed_size:,} bytes unpack to {unpacked:,}, "
                f"more than {MAX_EXPANSION} times as many"
            )
        else:
            return
        raise DataError(
            f"{self.path}: its member '{member.name}' is {what}. Nothing was unpacked. "
            "Expected folders and ordinary files only; use an archive you trust."
        )

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (
            tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError,
        ) as error:  # fmt: skip
            raise DataError(
                f"{self.path}: not a complete tar archive ({error}). Expected one that holds a "
                "folder of photos for each class. Delete it and fetch it again, or give a folder."
            ) from error


def open_tar(path: Path) -> TarPhotos:
    """`TarPhotos`, with a plain word for a zip file. Raises `DataError`."""
    if zipfile.is_zipfile(path) and not tarfile.is_tarfile(path):
        raise DataError(
            f"{path}: this is a zip file. Expected a tar archive or a folder: "
            "unpack it, and give the folder as --source."
        )
    return TarPhotos(path)


def is_photo(path: PurePosixPath) -> bool:
    """Whether a file of this name counts as a photo: a known ending, nothing hidden."""
    hidden = any(part.startswith(".") for part in path.parts)
    return not hidden and path.suffix.lower() in IMAGE_SUFFIXES
