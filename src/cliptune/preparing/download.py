"""A download that can be continued, and is used only when all of it is right."""

from __future__ import annotations

import hashlib
import http.client
import re
import urllib.error
import urllib.request
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

from tqdm import tqdm

from cliptune.errors import HubError
from cliptune.foreign_errors import disk_errors
from cliptune.language import translated as _

TIMEOUT_S = 10
# What helps on a full disk.
ELSEWHERE = (
    ", or choose a folder on another disk with --output-dir; then run the same command again"
)
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
    with disk_errors(target.parent, then=ELSEWHERE):
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
        desc=_("downloading {name}").format(name=part.stem), total=total, initial=start, unit="B",
        unit_scale=True, disable=None if progress else True,
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
