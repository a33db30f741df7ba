"""Errors of the system and of libraries told as ours: what happened is worded here, once.

Disk, memory and the processes that load photos. What helps is known to whoever called, who gives
it as a short phrase; in `disk_errors` and `resource_errors` it goes on after "Free some space".
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cliptune.errors import DataError, ResourceError

if TYPE_CHECKING:
    from pydantic import ValidationError

# By number: what happened, and the first thing to do about it.
DISK = {
    errno.ENOSPC: ("the disk is full", "Free some space"),
    errno.EDQUOT: ("the disk quota is used up", "Free some space"),
    errno.EFBIG: ("there is no space left for a file of this size", "Free some space"),
    errno.EIO: ("the disk failed (input/output error)", "Look after the disk"),
    errno.EROFS: ("the disk is read-only now", "Make it writable"),
}
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_PERMISSION = (errno.EACCES, errno.EPERM, errno.EROFS)
# A photo on such a disk may be whole: reading it is tried again.
CANNOT_READ_NOW = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.ENETDOWN)
AGAIN = ", then run the same command again"

# By numbers of Windows (`OSError.winerror`), whose own words do not say what to do.
_TOO_LONG = "its path is longer than Windows takes (259 characters): choose a folder nearer the top"
_IN_USE = "another program has it open: close that"
_ON_WINDOWS = {
    3: _TOO_LONG,
    5: f"no permission, or {_IN_USE}",
    32: _IN_USE,
    33: _IN_USE,
    206: _TOO_LONG,
}


class LoadingError(ResourceError):
    """The processes that load photos failed, were ended, or did not answer in time.

    `cause` is what DataLoader says of it.
    """

    def __init__(self, cause: str, *, remedy: str | None = None) -> None:
        remedy = remedy or (
            "Run the command again with fewer other programs beside it, or with fewer such "
            "processes (data.num_workers in training, num_workers in Python; 0: none)."
        )
        super().__init__(
            f"the processes that load photos failed: {cause}. The system may have ended one for "
            f"want of memory, or a disk does not answer. {remedy}"
        )
        self.cause = cause


@contextmanager
def resource_errors(
    where: Path | None, *, left: str = "", then: str = AGAIN, numbers: Collection[int] = FULL
) -> Iterator[None]:
    """Turn errors of the disk with one of `numbers` into `ResourceError`; others pass.

    `where` is what the message names (None: the file the system names), `left` says in what state
    things are, and `then` what to do after the first remedy.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or error.errno not in numbers:
            raise
        what, first = DISK[error.errno]
        told = str(where) if where is not None else place(error)
        raise ResourceError(f"{told and f'{told}: '}{what}{left}. {first}{then}.") from error


@contextmanager
def disk_errors(folder: Path, *, then: str = AGAIN) -> Iterator[None]:
    """Turn a full disk below `folder` into `ResourceError`, other `OSError`s into `DataError`."""
    try:
        with resource_errors(folder, then=then):
            yield
    except OSError as error:
        raise DataError(
            f"{place(error) or folder}: {system_reason(error)}. "
            "Expected files that can be read, and a folder that can be written to."
        ) from error


def system_error_in_words(error: OSError) -> str:
    """One line for an error of the operating system that nobody nearer to it has told."""
    where = f"{place(error)}: " if place(error) else ""
    why = system_reason(error)
    if error.errno in NO_PERMISSION and why == error.strerror:
        return f"{where}no permission ({why}). Choose a folder you can write to."
    if error.errno in DISK:
        what, first = DISK[error.errno]
        return f"{where}{what}. {first}{AGAIN}."
    return f"{where}{why}"


def place(error: OSError) -> str:
    """The file or folder that `error` is about: of a rename, what was to be; "" for none."""
    name = error.filename if error.filename2 is None else error.filename2
    return os.fsdecode(name) if isinstance(name, str | bytes | os.PathLike) else ""


def system_reason(error: OSError) -> str:
    """What went wrong, in the system's words or in better ones."""
    number = getattr(error, "winerror", None)  # there on Windows alone
    # Number 3 is said of any folder that is not there, and of one that is too deep.
    if number in _ON_WINDOWS and not (number == 3 and len(place(error)) < 240):
        return _ON_WINDOWS[number]
    return error.strerror or str(error)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that host or device has no memory left."""
    if not isinstance(error, RuntimeError):
        return isinstance(error, MemoryError)
    import torch  # loaded by whoever raised it

    # The host's allocator and Apple's GPUs raise plain RuntimeErrors.
    return isinstance(error, torch.OutOfMemoryError) or any(
        words in str(error) for words in ("can't allocate memory", "out of memory")
    )


@contextmanager
def memory_errors_in_words(batch_size: int) -> Iterator[None]:
    """Turn an out-of-memory error of host or device into a `ResourceError` that says what helps."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        host = isinstance(error, MemoryError) or "can't allocate memory" in str(error)
        raise ResourceError(
            f"out of {'memory' if host else 'GPU memory'} at batch size {batch_size}. Halve the "
            "batch size (in training, training.gradient_accumulation_steps: 2 keeps the result "
            "the same), or use a smaller model.name; lora.r and data.num_workers help less."
        ) from error


@contextmanager
def loading_errors() -> Iterator[None]:
    """Turn what DataLoader raises for its processes into `LoadingError`."""
    try:
        yield
    except RuntimeError as error:
        if "DataLoader" not in str(error):
            raise
        lines = [line.strip().rstrip(".") for line in str(error).splitlines() if line.strip()]
        # What was raised in a loading process comes with its traceback; the last line says what.
        raise LoadingError(": ".join(dict.fromkeys((lines[0], lines[-1])))) from error


def validation_faults(error: ValidationError) -> list[str]:
    """What pydantic found wrong, a line for each fault: where, and what should be there."""
    return [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()]
