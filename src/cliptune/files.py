"""Files and folders that appear whole or not at all, even where the power fails.

Written beside their place under a hidden name, flushed to the disk, renamed, and the folder they
stand in flushed, too: after a crash either the old or the new is there. `recover` puts right what
a crash left. The same on Linux, macOS and Windows, save that Windows flushes no folders.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath, PurePosixPath

from platformdirs import user_cache_path

SUMS = "SHA256SUMS"  # as `sha256sum --check` reads it
_PARTIAL, _OLD, _DELETED = ".partial", ".old", ".deleted"

# What disks answer that flush files, but no folders: some network and user-space file systems.
_FLUSH_NO_FOLDERS = (errno.EBADF, errno.EINVAL, errno.ENOTSUP)

# Windows renames and deletes nothing that a program has open. Virus scanners and indexers open
# what is new, and let go of it within a second.
_PAUSES_S = (0.05, 0.1, 0.2, 0.5, 1.0) if os.name == "nt" else ()


def user_path(path: Path | str) -> Path:
    """`path` with the home folder for a leading ~: shells leave that of `--key=~/x` as it is."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # ~somebody whom nobody knows: a name like any other
        return Path(path)


def default_cache_dir() -> Path:
    """The user's cache folder by the platform's custom; the environment variable wins."""
    if given := os.environ.get("CLIPTUNE_CACHE"):
        return user_path(given)
    return user_cache_path("cliptune", appauthor=False)


def hidden(path: Path, ending: str = _PARTIAL) -> Path:
    """The name beside `path` under which it is written."""
    return path.with_name(f".{path.name}{ending}")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write to; what was written there appears at `path` if nothing was raised."""
    partial = hidden(path)
    try:
        yield partial
        sync(partial)
        rename(partial, path)
        sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A new folder to fill; it appears at `path`, in the place of what was there, if all went well.

    Parents are made where need be.
    """
    partial = hidden(path)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        yield partial
        for folder, _, files in os.walk(partial):
            for name in files:
                sync(Path(folder, name))
            sync(Path(folder))
        move_into_place(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def move_into_place(source: Path, target: Path) -> None:
    """Rename the folder `source` to `target`, replacing a folder that is there."""
    old = hidden(target, _OLD)
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        rename(target, old)
    rename(source, target)
    sync(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def delete_folder(path: Path) -> None:
    """Delete the folder `path`; renamed first, so that half of it never looks like the whole."""
    doomed = hidden(path, _DELETED)
    shutil.rmtree(doomed, ignore_errors=True)
    rename(path, doomed)
    sync(path.parent)
    shutil.rmtree(doomed, ignore_errors=True)


def rename(source: Path, target: Path) -> None:
    """Rename; on Windows, try again for a moment where another program has it open.

    A file at `target` is replaced. A folder must not be there: only POSIX replaces empty ones.
    """
    for pause in _PAUSES_S:
        try:
            source.replace(target)
            return
        except PermissionError:
            time.sleep(pause)
    source.replace(target)


def recover(folder: Path, pattern: str = "*") -> None:
    """Put right what a crash left of entries of `folder` whose names match `pattern`.

    What was half written or half deleted goes; what was to be replaced, and was not, comes back.
    Only for whoever alone writes to `folder`.
    """
    for path in folder.glob(f".{pattern}"):
        target = path.with_name(path.stem[1:])
        if path.suffix == _OLD and not target.exists():
            path.rename(target)
        elif path.suffix in (_PARTIAL, _OLD, _DELETED):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def sync(path: Path) -> None:
    """Return once the file or folder `path` is on the disk.

    What the disk itself holds back is beyond this: macOS tells its disks no more than to begin.
    """
    is_folder = path.is_dir()
    if is_folder and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY) if is_folder else _open_to_flush(path)
    try:
        os.fsync(handle)
    except OSError as error:  # the system names no file here
        if not (is_folder and error.errno in _FLUSH_NO_FOLDERS):
            raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        os.close(handle)


def _open_to_flush(path: Path) -> int:
    """A handle of the file `path`: one to write with, since Windows flushes no other."""
    try:
        return os.open(path, os.O_RDWR)
    except PermissionError:  # write-protected: POSIX flushes such files, too
        return os.open(path, os.O_RDONLY)


def stays_inside(name: str, flavour: type[PurePath] = PurePath) -> bool:
    """Whether a path read from a file leads to something below the folder it is relative to.

    By the rules of this system, or of another `flavour`: `C:x` and `..\\x` lead out on Windows.
    """
    kinds = (PurePosixPath(name), flavour(name))
    return (
        bool(name)
        and "\0" not in name
        and not any(path.anchor or ".." in path.parts for path in kinds)
    )


def write_sums(folder: Path, *, leave_out: frozenset[str] = frozenset()) -> None:
    """Write `folder/SHA256SUMS` over all files below `folder` except those named `leave_out`."""
    lines = [
        f"{_digest(path)}  {path.relative_to(folder).as_posix()}\n"
        for path in sorted(folder.rglob("*"), key=lambda path: path.parts)
        if path.is_file() and path.name not in leave_out | {SUMS}
    ]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8", newline="\n")


def check_sums(folder: Path, *, may_lack: str = "") -> list[str]:
    """What is wrong with the files named in `folder/SHA256SUMS`; nothing where there is none.

    The sub-folder `may_lack` may have been taken away as a whole.
    Names that lead out of the folder are never followed.
    """
    sums = folder / SUMS
    if not sums.exists() and not sums.is_symlink():
        return []
    if not sums.is_file() or sums.stat().st_size > 2**20:
        return [f"{SUMS} is no list of sums"]
    try:
        text = sums.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        return [f"{SUMS} cannot be read ({error})"]
    faults = []
    lacking = bool(may_lack) and not (folder / may_lack).exists()
    for line in filter(None, text.split("\n")):  # names may hold what else ends a line
        digest, _, name = line.partition("  ")
        path = folder / name
        if not stays_inside(name):
            faults.append(f"{SUMS} names '{name}', which is no file of this folder")
        elif lacking and PurePosixPath(name).parts[0] == may_lack:
            continue
        elif not path.is_file():
            faults.append(f"{name} is missing")
        elif _digest(path) != digest:
            faults.append(f"{name} was damaged or changed since it was written")
    return faults


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
