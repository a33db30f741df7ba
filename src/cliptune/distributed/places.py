"""Files of a folder that is a path or an address, by one set of names."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import IO

from cliptune import storage
from cliptune.files import user_path, whole_file


def absolute(given: str | Path) -> str:
    """What `given` is called from any other folder, too."""
    return storage.address_of(given) or str(user_path(given).absolute())


def below(folder: str, *names: str) -> str:
    """The place of `names`, one in the other, below `folder`; an absolute path as it is."""
    if storage.is_address(folder):
        return storage.joined(folder, "/".join(names))
    return os.path.join(folder, *names)  # noqa: PTH118 - a Path for each of millions is slow


def parent(place: str) -> str:
    """The folder of a file."""
    return place.rpartition("/")[0] if storage.is_address(place) else str(Path(place).parent)


def opened(place: str) -> AbstractContextManager[IO[bytes]]:
    """To read and seek in. Raises `StorageError` or `OSError`."""
    return storage.opened(place) if storage.is_address(place) else Path(place).open("rb")


def exists(place: str) -> bool:
    """Whether there is such a file."""
    return storage.exists(place) if storage.is_address(place) else Path(place).is_file()


def write_whole(place: str, content: bytes) -> None:
    """Whole or not at all; the folders above are made."""
    if storage.is_address(place):
        storage.write_whole(place, content)
        return
    with whole(place) as partial:
        partial.write_bytes(content)


@contextmanager
def whole(place: str) -> Iterator[Path]:
    """A path to write to; what was written is at `place` if nothing was raised."""
    if storage.is_address(place):
        with storage.whole_object(place) as partial:
            yield partial
        return
    Path(place).parent.mkdir(parents=True, exist_ok=True)
    with whole_file(Path(place)) as partial:
        yield partial


def names_in(folder: str) -> Iterator[str]:
    """The names of the files of `folder`, and perhaps of those below it; none where it is not."""
    if storage.is_address(folder):
        for entry in storage.listed(folder):
            yield entry.address.rpartition("/")[2]
    elif Path(folder).is_dir():
        with os.scandir(folder) as found:
            yield from (each.name for each in found)


def delete(folder: str) -> None:
    """The folder and all below it, where it is there."""
    if storage.is_address(folder):
        system, path = storage.file_system(folder)
        with suppress(FileNotFoundError):
            system.rm(path, recursive=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)
