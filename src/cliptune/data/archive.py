"""Where photos come from: a download that can be continued, a tar archive, a folder."""

from __future__ import annotations

import errno
import gzip
import hashlib
import http.client
import logging
import lzma
import os
import re
import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from pathlib import Path, PurePosixPath, PureWindowsPath

from tqdm import tqdm

from cliptune.data.folder import IMAGE_SUFFIXES, find_images
from cliptune.errors import DataError, HubError, ResourceError

log = logging.getLogger(__name__)

TIMEOUT_S = 10
_CHUNK = 1 << 16  # bytes; what is read but not yet written is lost when a connection breaks


@dataclass(frozen=True)
class RemoteFile:
    """A file on the web, with its size in bytes and its SHA-256 where they are known."""

    url: str
    size: int | None = None
    sha256: str | None = None


# Size and digest as TensorFlow Datasets records them:
# https://github.com/tensorflow/datasets, tensorflow_datasets/url_checksums/stanford_dogs.txt
STANFORD_DOGS = RemoteFile(
    url="http://vision.stanford.edu/aditya86/ImageNetDogs/images.tar",
    size=793_579_520,
    sha256="a443fc2f9a851aa1a7b8e4fa4af94b8459fce2c9f5a2f4dd4669cf9673a4ec58",
)


class NothingFetchedError(HubError):
    """The server was not reached or would not serve the file: no byte of it arrived."""


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn a full disk below `folder` into `ResourceError`, other `OSError`s into `DataError`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise ResourceError(
                f"{folder}: no space left to write to ({error.strerror}). Free some, or choose a "
                "folder on another disk with --output-dir; then run the same command again."
            ) from error
        raise DataError(
            f"{error.filename or folder}: {error.strerror or error}. "
            "Expected files that can be read, and a folder that can be written to."
        ) from error


def partial_path(target: Path) -> Path:
    """Where a download of `target` that is not complete is kept."""
    return target.with_name(target.name + ".part")


def download(remote: RemoteFile, target: Path, *, progress: bool = True) -> None:
    """Fetch `remote` to `target`, going on from `<target>.part` where an earlier try stopped.

    `target` appears only when the size and digest of what arrived are right.

    Raises `NothingFetchedError` when no byte arrived, `HubError` when the connection broke (what
    arrived stays for the next try) or the digest is wrong, `ResourceError` on a full disk.
    """
    part = partial_path(target)
    with disk_errors(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        have = part.stat().st_size if part.exists() else 0
        if have == 0 or have != remote.size:
            _fetch(remote, part, have=have, progress=progress)
        _check_digest(remote, part)
        part.replace(target)


def _fetch(remote: RemoteFile, part: Path, *, have: int, progress: bool) -> None:
    headers = {"User-Agent": "cliptune", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        request = urllib.request.Request(remote.url, headers=headers)
        response = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            if _extent(error.headers, default_start=have)[1] == have:
                return  # all of it had arrived; only the move into place was missing
            part.unlink()  # longer than the file: the rest of something else
            return _fetch(remote, part, have=0, progress=progress)
        raise NothingFetchedError(
            f"{remote.url}: the server answered {error.code} {error.reason}"
        ) from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise NothingFetchedError(f"{remote.url}: not reached ({reason})") from None
    with response:
        partial = response.status == http.HTTPStatus.PARTIAL_CONTENT
        start, total = _extent(response.headers, default_start=have if partial else 0)
        if start != (have if partial else 0) or (remote.size and total not in (None, remote.size)):
            raise NothingFetchedError(
                f"{remote.url}: the server offers another file ({total} bytes from byte {start}; "
                f"expected {remote.size} bytes from byte {have})"
            )
        total = total or remote.size
        arrived, reason = _receive(response, part, start=start, total=total, progress=progress)
    if reason is None and total in (None, arrived):
        return
    if arrived == 0:
        part.unlink()
        raise NothingFetchedError(f"{remote.url}: {reason or 'the server sent nothing'}")
    raise HubError(
        f"{remote.url}: the download broke off ({reason or 'the server closed the connection'}). "
        f"{arrived:,} bytes{f' of {total:,}' if total else ''} are kept in {part}. "
        "Run the same command again to continue from there."
    )


def _receive(
    response: http.client.HTTPResponse,
    part: Path,
    *,
    start: int,
    total: int | None,
    progress: bool,
) -> tuple[int, str | None]:
    """Append the response to `part`: (bytes there now, why it broke off or None)."""
    arrived = start
    bar = tqdm(
        desc=f"downloading {part.stem}", total=total, initial=start, unit="B", unit_scale=True,
        disable=None if progress else True,
    )  # fmt: skip
    # A server that cannot serve ranges starts over, and so does the file.
    with bar, part.open("ab" if start else "wb") as file:
        while True:
            try:
                chunk = response.read(_CHUNK)
            except (OSError, http.client.HTTPException) as error:
                return arrived, str(error) or type(error).__name__
            if not chunk:
                return arrived, None
            file.write(chunk)
            arrived += len(chunk)
            bar.update(len(chunk))


def _extent(headers: Message, *, default_start: int) -> tuple[int, int | None]:
    """(first byte of the body, size of the whole file or None) by the response's `headers`."""
    content_range = re.fullmatch(
        r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", headers.get("Content-Range", "").strip()
    )
    if content_range:
        first, total = content_range.groups()
        start = default_start if first is None else int(first)
        return start, None if total == "*" else int(total)
    length = headers.get("Content-Length")
    return default_start, None if length is None else default_start + int(length)


def _check_digest(remote: RemoteFile, part: Path) -> None:
    if remote.sha256 is None:
        return
    with part.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != remote.sha256:
        part.unlink()
        raise HubError(
            f"{remote.url}: what arrived is damaged and was deleted (SHA-256 {digest}, expected "
            f"{remote.sha256}). Run the same command again, or give an archive of your own with "
            "--source."
        )


class FolderPhotos:
    """The photos below a folder. `photos` are paths relative to it, `num_others` other files."""

    def __init__(self, folder: Path) -> None:
        self.path = folder
        # Class folders may be links to elsewhere; below them links are not followed.
        tops = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
        found = [path for top in tops if top.is_dir() for path in find_images(top)]
        found += [top for top in tops if top.is_file() and _is_photo(PurePosixPath(top.name))]
        self.photos = sorted(PurePosixPath(path.relative_to(folder)) for path in found)
        num_files = sum(top.is_file() for top in tops) + sum(
            len(files) for top in tops if top.is_dir() for _, _, files in os.walk(top)
        )
        self.num_others = num_files - len(self.photos)

    def copy(self, plan: Mapping[PurePosixPath, Path]) -> Iterator[None]:
        """Copy each photo of `plan` to its target file, yielding after each."""
        for photo, target in plan.items():
            shutil.copyfile(self.path / photo, target)
            yield


class TarPhotos:
    """The photos in a tar archive (plain or compressed), listed without being unpacked.

    `photos` are the paths of image files in it, `num_others` counts its other files. Raises
    `DataError` for a file that is no tar archive, is damaged, or ends early; and for a member
    that points out of the archive or is a link or a device, before anything is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.num_others = 0
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

    def copy(self, plan: Mapping[PurePosixPath, Path]) -> Iterator[None]:
        """Write each photo of `plan` to its target file, in the archive's order, yielding after."""
        for photo in sorted(plan, key=lambda photo: self._members[photo].offset):
            with self._reading(), plan[photo].open("xb") as file:
                content = self._tar.extractfile(self._members[photo])
                assert content is not None  # only regular files are listed
                with content:
                    shutil.copyfileobj(content, file)
            yield

    def _list(self) -> None:
        for member in self._tar:
            self._refuse_unsafe(member)
            if member.isdir():
                continue
            path = PurePosixPath(member.name)
            if _is_photo(path):
                self._members[path] = member
            else:
                self.num_others += 1
        # tarfile takes a header it cannot read for the end; the true end is a block of zeros.
        assert self._tar.fileobj is not None
        self._tar.fileobj.seek(self._tar.offset)
        if self._tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("it ends early")

    def _refuse_unsafe(self, member: tarfile.TarInfo) -> None:
        windows = PureWindowsPath(member.name)
        if not (member.isreg() or member.isdir()):
            what = "a link" if member.islnk() or member.issym() else "a device or pipe"
        elif member.name.startswith("/") or windows.anchor:
            what = "an absolute path"
        elif ".." in windows.parts:
            what = "a path that leaves the archive"
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


@contextmanager
def open_photos(source: Path) -> Iterator[FolderPhotos | TarPhotos]:
    """The photos of a folder or a tar archive; `DataError` for anything else."""
    if source.is_dir():
        yield FolderPhotos(source)
    elif not source.exists():
        raise DataError(
            f"{source}: no such file or folder. Expected a tar archive, or a folder, "
            "with one folder of photos for each class."
        )
    elif zipfile.is_zipfile(source) and not tarfile.is_tarfile(source):
        raise DataError(
            f"{source}: this is a zip file. Expected a tar archive or a folder: "
            "unpack it, and give the folder as --source."
        )
    else:
        with TarPhotos(source) as photos:
            yield photos


def _is_photo(path: PurePosixPath) -> bool:
    hidden = any(part.startswith(".") for part in path.parts)
    return not hidden and path.suffix.lower() in IMAGE_SUFFIXES
