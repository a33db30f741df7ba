"""Read and write what is at addresses; each request with retries and a deadline."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from cliptune.errors import StorageError, UserError
from cliptune.files import whole_file
from cliptune.storage.addresses import WEB, file_system, path_in, protocol_of
from cliptune.storage.patience import ATTEMPTS, TIMEOUT_S, lent, patiently, status_of

T = TypeVar("T")

LIMIT_BYTES = 512 * 2**20  # of what is read into memory at once
PIECE_BYTES = 16 * 2**20  # of what is fetched to the disk, one request
# Those that answer at once or not at all: no thread is spent on them.
_HERE = ("file", "memory")


class Entry(NamedTuple):
    """An object: its size in bytes, and what changes with its content, where that is told."""

    address: str
    size: int | None
    version: str | None


def read_bytes(
    address: str,
    *,
    limit_bytes: int = LIMIT_BYTES,
    attempts: int = ATTEMPTS,
    timeout_s: float = TIMEOUT_S,
) -> bytes:
    """All of the object at `address`.

    Each of `attempts` may take `timeout_s` seconds; between them are pauses, longer each time.
    Raises `StorageError` where nothing is there, access is denied, it is larger than `limit_bytes`
    (of which no more is read), or the last attempt failed.
    """
    content = patiently(
        lambda: _read(address, 0, limit_bytes + 1, timeout_s), address, attempts=attempts
    )
    if len(content) > limit_bytes:
        raise StorageError(address, f"larger than {limit_bytes:,} bytes, which is the limit")
    return content


def entry(address: str, *, attempts: int = ATTEMPTS, timeout_s: float = TIMEOUT_S) -> Entry:
    """What is known of the object at `address` without reading it. Raises `StorageError`."""

    async def wait(fs: Any, path: str) -> Any:
        return await fs._info(path)

    found = patiently(
        lambda: ask(address, timeout_s, wait=wait, work=lambda fs, path: fs.info(path)),
        address, attempts=attempts,
    )  # fmt: skip
    if found.get("type") == "directory":
        raise StorageError(address, "this is a folder", missing=True)
    return entry_of(address, found)


def exists(address: str, *, attempts: int = ATTEMPTS, timeout_s: float = TIMEOUT_S) -> bool:
    """Whether an object is at `address`. Raises `StorageError` where that cannot be told."""
    try:
        entry(address, attempts=attempts, timeout_s=timeout_s)
    except StorageError as error:
        if not error.missing:
            raise
        return False
    return True


def write_whole(
    address: str, content: bytes, *, attempts: int = ATTEMPTS, timeout_s: float = TIMEOUT_S
) -> None:
    """Put `content` at `address`: whole or not at all, in the place of what was there.

    Raises `StorageError`, and `UserError` for a web server. `timeout_s` is for each 8 MiB.
    """
    with whole_object(address, attempts=attempts, timeout_s=timeout_s) as path:
        path.write_bytes(content)


@contextmanager
def whole_object(
    address: str, *, attempts: int = ATTEMPTS, timeout_s: float = TIMEOUT_S
) -> Iterator[Path]:
    """A file here to write to; what was written is at `address` if nothing was raised.

    Raises as `write_whole` does.
    """
    check_writable(address)
    if protocol_of(address) == "file":
        path = Path(path_in(address))
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as partial:
            yield partial
        return
    with tempfile.TemporaryDirectory(prefix="cliptune-") as folder:
        path = Path(folder, "object")
        yield path
        patience = timeout_s * max(1.0, path.stat().st_size / (8 * 2**20))
        patiently(lambda: _put(path, address, patience), address, attempts=attempts)


def check_writable(address: str) -> None:
    """Raise `UserError` where nothing can be written at `address`, by its protocol."""
    if protocol_of(address) in WEB:
        raise UserError(
            f"{address}: a web server takes no files. Expected a path, or an address of s3://, "
            "gs://, az:// or sftp://."
        )


def fetch(
    address: str, target: Path, *, attempts: int = ATTEMPTS, timeout_s: float = TIMEOUT_S
) -> None:
    """Copy the object at `address` to the file `target`, piece by piece, however large it is.

    A piece that fails is asked for again, as `read_bytes` does. Raises `StorageError`.
    """
    if protocol_of(address) in WEB:
        with target.open("wb") as file:
            patiently(lambda: _fetch_web(address, file, timeout_s), address, attempts=attempts)
        return
    size = entry(address, attempts=attempts, timeout_s=timeout_s).size
    with target.open("wb") as file:
        while size is None or file.tell() < size:
            start = file.tell()
            piece = read_range(
                address, start, start + PIECE_BYTES, attempts=attempts, timeout_s=timeout_s
            )
            if not piece:
                break
            file.write(piece)
        if size is not None and file.tell() != size:
            raise StorageError(address, "it was changed while it was read")


def read_range(
    address: str, start: int, end: int, *, attempts: int = ATTEMPTS, timeout_s: float = TIMEOUT_S
) -> bytes:
    """The bytes from `start` up to `end`, fewer where it ends before. Raises `StorageError`."""
    return patiently(lambda: _read(address, start, end, timeout_s), address, attempts=attempts)


@contextmanager
def opened(
    address: str, *, attempts: int = ATTEMPTS, timeout_s: float = TIMEOUT_S
) -> Iterator[IO[bytes]]:
    """The object at `address` as a file that can be read and sought in.

    Parts are read as they are asked for, each with retries; of a web server it is fetched whole to
    a temporary file, since not all of them serve parts. Raises `StorageError`, also when reading.
    """
    if protocol_of(address) in WEB:
        with tempfile.TemporaryDirectory(prefix="cliptune-") as folder:
            fetch(address, Path(folder, "object"), attempts=attempts, timeout_s=timeout_s)
            with Path(folder, "object").open("rb") as file:
                yield file
        return
    size = entry(address, attempts=attempts, timeout_s=timeout_s).size or 0
    parts = _Parts(address, size, attempts=attempts, timeout_s=timeout_s)
    with io.BufferedReader(parts, 2**20) as reader:
        yield reader


class _Parts(io.RawIOBase):
    """A file whose reads are requests."""

    def __init__(self, address: str, size: int, **patience: Any) -> None:
        self._address, self._size, self._at, self._patience = address, size, 0, patience

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        end = min(self._at + len(buffer), self._size)
        if end <= self._at:
            return 0
        content = read_range(self._address, self._at, end, **self._patience)
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)


def ask(
    address: str,
    timeout_s: float,
    *,
    wait: Callable[[Any, str], Awaitable[T]],
    work: Callable[[Any, str], T],
) -> T:
    """`wait` for a file system that knows how to, else `work` in a thread; within `timeout_s`."""
    protocol = protocol_of(address)
    if protocol in ("sftp", "ssh", "hf"):
        where = f"{protocol}://{urlsplit(address).netloc if protocol != 'hf' else ''}"
        path = path_in(address)
        return lent().call(
            where, lambda: file_system(address)[0], lambda fs: work(fs, path), timeout_s
        )
    fs, path = file_system(address)
    if protocol in _HERE:
        return work(fs, path)
    from fsspec.asyn import sync

    return sync(fs.loop, wait, fs, path, timeout=timeout_s)  # type: ignore[no-any-return]


def _read(address: str, start: int, end: int, timeout_s: float) -> bytes:
    return ask(
        address, timeout_s, wait=partial(_wait_for, start, end), work=partial(_part, start, end)
    )


async def _wait_for(start: int, end: int, fs: Any, path: str) -> bytes:
    if path.startswith(("http://", "https://")):
        return await _of_web(fs, path, start, end)
    try:
        return bytes(await fs._cat_file(path, start=start, end=end))
    except Exception as error:
        if status_of(error) == 416:  # of an object that ends before `start`, as the empty one does
            return b""
        raise


async def _of_web(fs: Any, path: str, start: int, end: int) -> bytes:
    """At most `end` bytes are taken in, whatever a server sends."""
    session = await fs.set_session()
    async with session.get(fs.encode_url(path)) as response:
        response.raise_for_status()
        content = bytearray()
        while len(content) < end and (chunk := await response.content.read(end - len(content))):
            content += chunk
        return bytes(content[start:])


def _part(start: int, end: int, fs: Any, path: str) -> bytes:
    with fs.open(path, "rb") as file:
        if start:
            file.seek(start)
        if hasattr(file, "prefetch"):  # paramiko's: else it waits for each 32 KiB
            size = min(end, file.stat().st_size)
            return b"".join(file.readv(_chunks(start, size)))
        return bytes(file.read(end - start))


def _chunks(start: int, end: int) -> list[tuple[int, int]]:
    return [(at, min(32_768, end - at)) for at in range(start, end, 32_768)]


def _fetch_web(address: str, file: IO[bytes], timeout_s: float) -> None:
    """All of what a web server has, `timeout_s` being for each part that arrives."""
    from fsspec.asyn import sync

    async def receive(fs: Any, path: str) -> None:
        import aiohttp

        session = await fs.set_session()
        patience = aiohttp.ClientTimeout(total=None, sock_connect=timeout_s, sock_read=timeout_s)
        async with session.get(fs.encode_url(path), timeout=patience) as response:
            response.raise_for_status()
            file.seek(0)
            file.truncate()
            async for chunk in response.content.iter_chunked(2**20):
                file.write(chunk)

    fs, path = file_system(address)
    sync(fs.loop, receive, fs, path)


def _put(path: Path, address: str, timeout_s: float) -> None:
    async def wait(fs: Any, there: str) -> None:
        await fs._put_file(str(path), there)

    def work(fs: Any, there: str) -> None:
        if hasattr(fs, "ftp"):
            from cliptune.storage.sftp import put_whole

            put_whole(fs, path, there)
        else:
            fs.pipe_file(there, path.read_bytes())

    ask(address, timeout_s, wait=wait, work=work)


def entry_of(address: str, found: dict[str, Any]) -> Entry:
    keys = ("ETag", "etag", "md5Hash", "md5", "generation", "blob_id", "mtime", "LastModified",
            "last_modified", "created")  # fmt: skip
    version = next((str(found[key]) for key in keys if found.get(key)), None)
    return Entry(address, found.get("size"), version)
