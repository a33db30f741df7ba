"""What is fetched whole once, and kept in the cache folder by its content.

    CACHE/objects/<2 digits>/<digest>    an object, by its address, size and version
    CACHE/folders/<digest>/NAME/         the objects below an address, by a digest of all of them
    CACHE/checkpoints/<digest>/NAME/     files with a SHA256SUMS, by the digest of that

Folders hold links to objects. Whatever changes at an address has another digest, so that nothing
kept is ever written to again; to make room, delete these folders.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from cliptune.errors import DataError, StorageError, UserError
from cliptune.files import (
    SUMS,
    check_sums,
    default_cache_dir,
    hidden,
    rename,
    stays_inside,
    sync,
    user_path,
    whole_folder,
)
from cliptune.language import translated as _
from cliptune.locks import one_at_a_time
from cliptune.storage.addresses import address_of, joined, path_in, protocol_of
from cliptune.storage.listing import listed
from cliptune.storage.objects import (
    Entry,
    check_writable,
    entry,
    fetch,
    read_bytes,
    whole_object,
)

log = logging.getLogger(__name__)

AT_A_TIME = 16  # objects that are fetched together


def local_folder(given: str | Path) -> Path:
    """The folder `given`: a path as it is, with ~ for the home folder; an address as it is kept."""
    address = address_of(given)
    return user_path(given) if address is None else kept_folder(address)


def local_file(given: str | Path) -> Path:
    """The same for a file."""
    address = address_of(given)
    return user_path(given) if address is None else kept_file(address)


def folder_here(given: str | Path, option: str) -> Path:
    """The folder `given` with `option`, to write to. Raises `UserError` for an address."""
    if address := address_of(given):
        raise UserError(
            f"{option} {address}: a folder here is expected, not an address: what is written there "
            "is renamed and read again. Copy it when it is done (docs/storage.md)."
        )
    return user_path(given)


def check_output_folder(given: str | Path) -> None:
    """Raise `UserError` where `output_folder` could not write."""
    if address := address_of(given):
        check_writable(address)


@contextmanager
def output_folder(given: str | Path) -> Iterator[Path]:
    """The folder `given` to write to; of an address one whose files are put there at the end.

    Raises `StorageError`, and `UserError` where nothing can be written.
    """
    address = address_of(given)
    if address is None:
        yield user_path(given)
        return
    with tempfile.TemporaryDirectory(prefix="cliptune-") as folder:
        yield Path(folder)
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file():
                name = path.relative_to(folder).as_posix()
                with whole_object(joined(address, name)) as partial:
                    shutil.copyfile(path, partial)


def kept_file(address: str) -> Path:
    """A copy here of the object at `address`, fetched where none of its version is kept.

    It is called as there. Raises `StorageError`.
    """
    if protocol_of(address) == "file":
        return Path(path_in(address))
    found = entry(address)
    name = PurePosixPath(address.partition("?")[0]).name
    target = _root() / "files" / _digest([found]) / name
    if not target.is_file():
        with (
            one_at_a_time(_lock(target.parent), building=target),
            whole_folder(target.parent) as new,
        ):
            fetch(address, new / name)
    return target


def kept_folder(address: str) -> Path:
    """A folder here with all objects below `address` but hidden ones.

    What is there is listed each time; fetched is what is not kept yet. Raises `StorageError`, and
    `DataError` where nothing is there or a name leads out of a folder.
    """
    address = address.rstrip("/")
    if protocol_of(address) == "file":
        return Path(path_in(address))
    found = [each for each in listed(address) if not _is_hidden(each, address)]
    if not found:
        raise DataError(f"{address}: nothing is there. Expected a folder, or a prefix of objects.")
    names = [_relative(each, address) for each in found]
    name = PurePosixPath(address).name or "all"
    target = _root() / "folders" / _digest(found) / name
    if target.is_dir():
        return target
    with one_at_a_time(_lock(target.parent), building=target):
        if not target.is_dir():
            objects = _fetch_all(found, address)
            with whole_folder(target.parent) as new:
                for relative, path in zip(names, objects, strict=True):
                    place = new / name / relative
                    place.parent.mkdir(parents=True, exist_ok=True)
                    _link(path, place)
    return target


def kept_checkpoint(address: str) -> Path:
    """The folder at `address` that has a SHA256SUMS, with the files that this names, checked.

    Fetched once for each content: a second time it is SHA256SUMS alone. Raises `StorageError`,
    whose `missing` is true where there is no SHA256SUMS.
    """
    address = address.rstrip("/")
    if protocol_of(address) == "file":
        return Path(path_in(address))
    sums = read_bytes(joined(address, SUMS), limit_bytes=2**20)
    names = [
        line.partition("  ")[2] for line in sums.decode("utf-8", "replace").split("\n") if line
    ]
    if strange := [name for name in names if not stays_inside(name)]:
        raise StorageError(joined(address, SUMS), f"it names '{strange[0]}', no file of a folder")
    digest = hashlib.sha256(sums).hexdigest()[:32]
    target = _root() / "checkpoints" / digest / (PurePosixPath(address).name or "checkpoint")
    if target.is_dir() and not check_sums(target, may_lack="resume"):
        return target
    with one_at_a_time(_lock(target.parent), building=target), whole_folder(target.parent) as new:
        folder = new / target.name
        folder.mkdir()
        wanted = [name for name in names if not name.startswith("resume/")]
        log.info("%s: fetching it into %s", address, target)
        for name in wanted:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            fetch(joined(address, name), folder / name)
        (folder / SUMS).write_bytes(sums)
        if faults := check_sums(folder, may_lack="resume"):
            raise StorageError(address, f"{faults[0]}. It was damaged, or is being replaced.")
    return target


def _fetch_all(found: Sequence[Entry], address: str) -> list[Path]:
    """Where each object of `found` is kept, those that were not fetched by several threads."""

    def keep(each: Entry) -> Path:
        digest = _digest([each])
        path = _root() / "objects" / digest[:2] / digest
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            own = path.with_name(f".{digest}.{os.getpid()}")  # another process may want it, too
            fetch(each.address, own)
            sync(own)
            rename(own, path)
        return path

    log.info("%s: fetching %d files into %s", address, len(found), _root() / "folders")
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        bar = tqdm(pool.map(keep, found), _("fetching"), len(found), unit="file", leave=False,
                   disable=None)  # fmt: skip
        return list(bar)


def _link(path: Path, place: Path) -> None:
    try:
        os.link(path, place)
    except OSError:  # file systems without hard links
        shutil.copyfile(path, place)


def _relative(each: Entry, address: str) -> str:
    name = each.address[len(address) + 1 :]
    if not stays_inside(name):
        raise DataError(f"{each.address}: its name leads out of a folder, so it is not fetched.")
    return name


def _is_hidden(each: Entry, address: str) -> bool:
    return any(part.startswith(".") for part in each.address[len(address) + 1 :].split("/"))


def _digest(found: Sequence[Entry]) -> str:
    digest = hashlib.sha256()
    for each in found:
        digest.update(f"{each.address}\n{each.size}\n{each.version}\n".encode("utf-8", "replace"))
    return digest.hexdigest()[:32]


def _lock(folder: Path) -> Path:
    folder.parent.mkdir(parents=True, exist_ok=True)
    return hidden(folder, ".lock")


def _root() -> Path:
    return default_cache_dir()
