"""What systems unlike Linux do otherwise, imitated here: Windows, macOS, disks of the network."""

from __future__ import annotations

import ast
import errno
import io
import logging
import os
import pickle
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import pytest
import torch

import cliptune
from cliptune import load_settings, train
from cliptune.checking.quarantine import finish, fix, undo
from cliptune.cli import main
from cliptune.data import decoded as cache
from cliptune.data.augment import Augmentation
from cliptune.data.folder import Sample
from cliptune.data.image_files import find_images
from cliptune.data.images import Preprocess
from cliptune.data.loading import EpochBatches, PhotoDataset, make_loader
from cliptune.data.photos import LabelledPhotos
from cliptune.errors import DataError
from cliptune.evaluation.corruptions import Alteration
from cliptune.files import (
    check_sums,
    stays_inside,
    sync,
    whole_file,
    whole_folder,
    write_sums,
)  # fmt: skip
from cliptune.foreign_errors import disk_errors, system_error_in_words
from cliptune.model.checkpoint import prune_checkpoints, write_tensors
from cliptune.model.restore import read_tensors
from cliptune.preparing.building import file_names
from cliptune.preparing.prepare import prepare
from conftest import make_photos, names

fcntl = pytest.importorskip("fcntl", reason="imitates Windows on other systems")
SOURCES = sorted(Path(cliptune.__file__).parent.rglob("*.py"))
REAL_FSYNC = os.fsync


@pytest.fixture
def flushed(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Inodes flushed so far, by an `os.fsync` that refuses read-only handles, as Windows' does."""
    done: set[int] = set()

    def fsync(handle: int) -> None:
        if fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        REAL_FSYNC(handle)
        done.add(os.fstat(handle).st_ino)

    monkeypatch.setattr(os, "fsync", fsync)
    return done


@pytest.fixture
def like_windows(monkeypatch: pytest.MonkeyPatch, flushed: set[int]) -> set[int]:
    """A system without what only POSIX has; gives the inodes flushed so far."""
    for name in ("sync", "posix_fallocate", "uname", "getuid", "sched_getaffinity"):
        monkeypatch.delattr(os, name)
    for name in ("SIGUSR1", "SIGCHLD", "SIGALRM", "SIGHUP"):
        monkeypatch.delattr(signal, name)
    real = time.strftime

    def strftime(form: str, *when: Any) -> str:
        if set(re.findall("%(.)", form)) - set("aAbBcdHIjmMpSUwWxXyYzZ%"):
            raise ValueError("Invalid format string")
        return real(form, *when)

    def symlink(*_: Any, **__: Any) -> None:
        raise windows_error(1314, "A required privilege is not held by the client", "link")

    monkeypatch.setattr(time, "strftime", strftime)
    monkeypatch.setattr(os, "symlink", symlink)
    return flushed


def windows_error(number: int, said: str, name: str, kind: int = errno.EACCES) -> OSError:
    error = OSError(kind, said, name)
    error.winerror = number  # type: ignore[attr-defined]  # as on Windows
    return error


def inodes(folder: Path) -> set[int]:
    return {path.stat().st_ino for path in folder.rglob("*") if path.is_file()}


# --- writing ---------------------------------------------------------------------------------


def test_files_and_folders_are_flushed_by_handles_one_can_write_with(
    tmp_path: Path, flushed: set[int]
) -> None:
    with whole_file(tmp_path / "a.txt") as partial:
        partial.write_text("a")
    with whole_folder(tmp_path / "folder") as work:
        (work / "inner").mkdir()
        (work / "inner" / "b.txt").write_text("b")
        write_sums(work)
    assert (tmp_path / "a.txt").read_text() == "a"
    assert check_sums(tmp_path / "folder") == []
    assert inodes(tmp_path) <= flushed


def test_a_whole_run_needs_nothing_that_windows_lacks(
    tmp_path: Path, photos: Path, overrides: dict[str, Any], like_windows: set[int],
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    data = tmp_path / "data"
    prepare(data, source=photos / "train", train_ratio=0.5)
    assert inodes(data) <= like_windows, "without os.sync each photo is flushed by itself"
    offender = next((data / "train").rglob("*.png")).relative_to(data).as_posix()
    assert fix(data, {offender: "unreadable"})
    assert finish(data) == []
    assert undo(data)
    result = train(
        load_settings(
            overrides=overrides
            | {"data.data_dir": str(data), "training.num_epochs": 1, "training.batch_size": 4}
            | {"training.cache_activations": True, "lora.last_layers": 1}
            | {"training.recipe": "plain"}
            | {"data.augmentation.enabled": False}
        )
    )
    assert result.best is not None
    assert inodes(result.best.path) <= like_windows
    predicted = main_with_output(
        ["predict", "--checkpoint", result.best.path, "--image", data / offender]
    )
    assert "#" in predicted, "bars in letters that cp1252 has"
    _an_old_checkpoint_that_cannot_be_deleted_is_kept(result.best.path, monkeypatch, caplog)


def _an_old_checkpoint_that_cannot_be_deleted_is_kept(
    first: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("checkpoint-epoch-2", "checkpoint-epoch-3"):
        shutil.copytree(first, first.with_name(name))

    def replace(source: Path, target: Path) -> None:  # as where a terminal stands in that folder
        raise windows_error(32, "The process cannot access the file", str(source))

    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(os, "rename", replace)
    monkeypatch.setattr(logging.getLogger("cliptune"), "propagate", True)
    assert prune_checkpoints(first.parent, keep=1) == []
    assert names(first.parent) == [f"checkpoint-epoch-{epoch}" for epoch in (1, 2, 3)]
    assert "checkpoint-epoch-2: kept, since it cannot be deleted (another program" in caplog.text


def test_a_disk_that_flushes_no_folders_is_written_to_and_a_failing_one_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EIO]

    def fsync(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(answers[0], os.strerror(answers.pop(0)))

    monkeypatch.setattr(os, "fsync", fsync)
    for _ in range(3):
        sync(tmp_path)
    with pytest.raises(OSError, match=str(tmp_path)):
        sync(tmp_path)


def test_renaming_waits_for_a_program_that_has_the_file_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, tries = os.replace, 0

    def replace(source: Path, target: Path) -> None:
        nonlocal tries
        tries += 1
        if tries % 3:
            raise windows_error(32, "The process cannot access the file", str(source))
        real(source, target)

    monkeypatch.setattr("cliptune.files._PAUSES_S", (0, 0, 0))
    monkeypatch.setattr(os, "replace", replace)
    for number in range(2):
        with whole_folder(tmp_path / "folder") as work:
            (work / "a.txt").write_text(str(number))
    assert (tmp_path / "folder" / "a.txt").read_text() == "1"
    assert tries == 3 * 3, "one move, then one away and one into place"


def test_tensors_read_from_a_file_are_no_part_of_it(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    written = torch.arange(4096, dtype=torch.float32)
    write_tensors(path, {"a": written})
    read = read_tensors(path)["a"]
    path.write_bytes(bytes(path.stat().st_size))  # of a mapped file this would be seen
    assert torch.equal(read, written)


def test_a_store_that_cannot_be_deleted_still_counts_towards_the_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        folder = tmp_path / f"photos-{number}"
        folder.mkdir()
        (folder / "pixels.u8").write_bytes(bytes(100))
        os.utime(folder, (number, number))
    real = os.replace

    def replace(source: Path, target: Path) -> None:
        if "photos-0" in str(source):
            raise windows_error(5, "Access is denied", str(source))
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    cache._make_room(tmp_path, keep=200, spare=())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos-0", "photos-2"]
    assert (tmp_path / "photos-0" / "pixels.u8").stat().st_size == 100, "whole, not half deleted"


def test_text_files_are_written_as_utf_8_with_the_same_line_ends_everywhere() -> None:
    lacking = []
    for path in SOURCES:
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
                continue
            given = {keyword.arg for keyword in call.keywords}
            modes = [arg.value for arg in call.args if isinstance(arg, ast.Constant)]
            opens = call.func.attr == "open" and any(str(mode)[:1] in "wax" for mode in modes)
            needed = {"read_text": {"encoding"}, "write_text": {"encoding", "newline"}}.get(
                call.func.attr, set()
            )
            if opens and not any("b" in str(mode) for mode in modes):
                needed = {"encoding", "newline"}
            if needed - given:
                lacking.append(f"{path.name}:{call.lineno} lacks {needed - given}")
    assert lacking == []


# --- words and names -------------------------------------------------------------------------


def main_with_output(arguments: list[Any], encoding: str = "cp1252") -> str:
    """What the command line prints into a pipe of `encoding`; the exit code must be 0."""
    before, pipe = sys.stdout, io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    sys.stdout = pipe
    try:
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        assert not end.value.code, end.value.code
    finally:
        sys.stdout = before
    pipe.flush()
    return pipe.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "gbk"])
def test_no_output_fails_for_want_of_a_character(tmp_path: Path, encoding: str) -> None:
    source = make_photos(tmp_path / "src", counts={"all": 4}, classes=("金毛", "Épagneul", "chó"))
    shown = main_with_output(
        ["prepare", "--source", source / "all", "--output-dir", tmp_path / "金毛犬"], encoding
    )
    for name in ("金毛", "Épagneul", "chó"):
        written = name.encode(encoding, "backslashreplace").decode(encoding)
        assert written in shown
    prepared = tmp_path / "金毛犬"
    assert main_with_output(["check", prepared, "--output", tmp_path / "check"], encoding)


def test_a_run_in_a_pipe_of_cp1252_ends_as_on_any_screen(
    tmp_path: Path, photos: Path, clip_folder: Path
) -> None:
    command = [sys.executable, "-m", "cliptune", "train", "--output-dir", tmp_path / "金毛"]
    command += ["--data-dir", photos, "--device", "cpu", "--batch-size", "8"]
    for setting in (
        f"model.name={clip_folder}", "data.num_workers=0", "training.num_epochs=1",
        "training.min_updates=0",
        f"output.log_dir={tmp_path / 'logs'}",
    ):  # fmt: skip
        command += ["--set", setting]
    done = subprocess.run(
        command, capture_output=True, env=os.environ | {"PYTHONIOENCODING": "cp1252"}
    )
    shown = done.stdout.decode("cp1252")
    assert done.returncode == 0, done.stderr.decode("cp1252")
    assert "zero-shot -> " in shown
    assert "\\u91d1\\u6bdb" in shown
    assert (tmp_path / "金毛" / "checkpoint-epoch-1").is_dir()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (windows_error(32, "used by another process", "a.csv"), "another program has it open"),
        (windows_error(5, "Access is denied", "a.csv"), "another program has it open"),
        (windows_error(206, "too long", "x" * 250, errno.ENOENT), "259 characters"),
        (windows_error(3, "cannot find the path", "x" * 250, errno.ENOENT), "259 characters"),
        (windows_error(3, "cannot find the path", "x", errno.ENOENT), "cannot find the path"),
        (OSError(errno.EACCES, "Permission denied", "a.csv"), "Choose a folder you can write to"),
    ],
)
def test_an_error_of_the_system_says_what_it_means_there(error: OSError, expected: str) -> None:
    assert expected in system_error_in_words(error)
    with pytest.raises(DataError) as told, disk_errors(Path("folder")):
        raise error
    if "folder" not in expected:
        assert expected in str(told.value)


def test_an_error_of_a_rename_names_the_file_that_was_wanted(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError) as error, whole_file(tmp_path / "taken") as partial:  # noqa: PT011
        partial.write_text("x")
    assert system_error_in_words(error.value).startswith(f"{tmp_path / 'taken'}: ")


def test_links_that_cannot_be_made_are_told_with_the_way_out(
    tmp_path: Path, photos: Path, like_windows: set[int]
) -> None:
    with pytest.raises(DataError, match=r"(?s)--link.*Developer Mode.*Leave --link out"):
        prepare(tmp_path / "data", source=photos / "train", link=True)
    assert not (tmp_path / "data").exists()


def test_photos_get_names_that_windows_can_write_and_no_two_the_same() -> None:
    given = [PurePosixPath("a") / name for name in ("1:2.jpg", "1?2.jpg", "aux.png", "Dog.jpg")]
    written = file_names(given, windows=True)
    assert list(written.values()) == ["1_2.jpg", "1_2-2.jpg", "_aux.png", "Dog.jpg"]
    assert list(file_names(given, windows=False).values()) == [photo.name for photo in given]


@pytest.mark.parametrize("name", ["C:\\x", "C:x", "..\\x", "a\\..\\..\\x", "\\\\server\\share\\x"])
def test_paths_out_of_a_folder_are_seen_by_the_rules_of_the_system(name: str) -> None:
    assert not stays_inside(name, PureWindowsPath)
    assert stays_inside(name, PurePosixPath), "Linux allows such file names"
    assert stays_inside("train/pug/1.jpg", PureWindowsPath)


# --- processes -------------------------------------------------------------------------------


def test_loaders_give_the_same_where_processes_start_afresh(photos: Path, tmp_path: Path) -> None:
    preprocess = Preprocess(
        resize=32, crop=(32, 32), resample=3, rescale=1 / 255, mean=(0.5,) * 3, std=(0.5,) * 3
    )
    samples = [Sample(path, 0) for path in find_images(photos / "test")]
    dataset = PhotoDataset(samples, preprocess, augmentation=Augmentation(), seed=3)
    dataset.keep_decoded(tmp_path, limit_bytes=2**30, progress=False)
    batches = EpochBatches(len(samples), batch_size=5, seed=3)
    here = [batch.pixels for batch in make_loader(dataset, batches=batches)]
    loader = make_loader(dataset, batches=batches, num_workers=1)
    loader.multiprocessing_context = "spawn"
    for expected, batch in zip(here, loader, strict=True):
        assert torch.equal(batch.pixels, expected)
    for other in (
        PhotoDataset(samples, preprocess, alter=Alteration("noise", 1)),
        LabelledPhotos(photos, "test", preprocess),
    ):
        again = pickle.loads(pickle.dumps(other))
        torch.testing.assert_close(again[0], other[0], rtol=0, atol=0)


def test_a_script_without_a_guard_is_told_to_have_one(tmp_path: Path) -> None:
    script = tmp_path / "mine.py"
    script.write_text(
        "import multiprocessing, pathlib\n"
        "from cliptune.training.stopping import locked\n"
        f"with locked(pathlib.Path({str(tmp_path)!r})):\n"
        "    process = multiprocessing.get_context('spawn').Process(target=print)\n"
        "    process.start()\n"
        "    process.join()\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert "if __name__ == '__main__':" in done.stderr
    assert "another run" not in done.stderr
