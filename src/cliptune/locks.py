"""Locks between processes: files that the system frees however their holder ends.

`Lock` is one file; the others say what is locked: a folder that is filled or mended, a run's
output folder, something that is built once for whoever wants it.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cliptune.errors import DataError, UserError

log = logging.getLogger(__name__)


class Lock:
    """The file `path`, which one process holds at a time."""

    def __init__(self, path: Path) -> None:
        from filelock import FileLock

        self._lock = FileLock(path)

    @property
    def held(self) -> bool:
        """Whether this process has it."""
        return bool(self._lock.is_locked)

    def take(self, *, wait: bool = False) -> bool:
        """Take it, and say whether it is held now; with `wait`, however long that takes."""
        from filelock import Timeout

        try:
            self._lock.acquire(timeout=-1 if wait else 0)
        except Timeout:
            return False
        return True

    def free(self) -> None:
        """Release it and leave no file of it.

        Deleted while it is held; filelock sees where a file it waited for has no name any more.
        """
        with suppress(OSError):  # Windows: it deletes by itself
            Path(self._lock.lock_file).unlink(missing_ok=True)
        self._lock.release()


@contextmanager
def one_at_a_time(path: Path, *, building: Path) -> Iterator[None]:
    """Hold the lock `path` while `building` is made; wait, and say so, while another has it."""
    lock = Lock(path)
    if not lock.take():
        log.info("%s: waiting for another process that is building it", building)
        lock.take(wait=True)
    try:
        yield
    finally:
        lock.free()


def folder_locks(folder: Path) -> list[Path]:
    """Where the locks of `alone` lie: inside a folder that exists, else beside it."""
    name = f".{folder.name}.lock"
    inside, beside = folder / name, folder.parent / name
    return [inside, beside] if folder.exists() else [beside]


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keeps a second process that would fill or mend the same folder of photos out.

    Raises `DataError` where one is at work.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    first, *others = folder_locks(folder)
    # Of a run that began before the folder was there: held by it, or left by a kill.
    wanted = [first, *(path for path in others if path.exists())]
    held: list[Lock] = []
    try:
        for path in wanted:
            lock = Lock(path)
            if not lock.take():
                raise DataError(
                    f"{folder}: another 'cliptune prepare' or 'check --fix' is at work in this "
                    "folder. Wait for it, or choose another folder."
                )
            held.append(lock)
        yield
    finally:
        for lock in held:
            lock.free()


class RunLock:
    """Keeps a second run out of an output folder, and says who has it.

    With several processes that train together, the first holds it for all.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._holder = folder / ".lock.json"
        self._lock = Lock(folder / ".lock")

    @property
    def held(self) -> bool:
        """Whether this process has it."""
        return self._lock.held

    def acquire(self) -> None:
        """Take the lock, making the folder. Raises `UserError` with the holder's name."""
        if self.held or os.environ.get("RANK", "0") != "0":
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self._lock.take():
            raise UserError(
                f"{self.folder}: another run is writing here ({self._name()}). Wait for it, "
                "or choose another --output-dir."
            )
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        holder = {"pid": os.getpid(), "host": platform.node(), "since": since}
        self._holder.write_text(json.dumps(holder), encoding="utf-8", newline="\n")

    def release(self) -> None:
        """Free the folder; nothing of the lock stays in it."""
        if self.held:
            self._holder.unlink(missing_ok=True)
            self._lock.free()

    def _name(self) -> str:
        try:
            holder = json.loads(self._holder.read_text(encoding="utf-8"))
            return f"process {holder['pid']} on {holder['host']}, since {holder['since']}"
        except (OSError, ValueError, KeyError, TypeError):
            return "its name is not known"
