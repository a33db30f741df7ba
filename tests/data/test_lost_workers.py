"""A loading process that is ended is told in words, wherever photos are waited for."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import Any

import pytest
import torch
from PIL import Image
from test_loading import PREPROCESS

from cliptune import compare, evaluate
from cliptune.config import load_settings
from cliptune.data import processes
from cliptune.data.folder import load_split, load_training_splits
from cliptune.data.loading import PhotoDataset, make_loader
from cliptune.data.processes import PhotoLoader
from cliptune.errors import ResourceError
from cliptune.evaluation.robustness import measure_robustness
from cliptune.foreign_errors import LoadingError
from cliptune.model.measuring import Measuring
from cliptune.model.restore import load_classifier
from cliptune.training.train import train
from conftest import COLORS

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="loading processes are forked")
WORDS = r"the processes that load photos failed: .*worker.*num_workers"


class Mortal:
    """Whether loading processes started from now on are killed at once."""

    doomed = False


def _die_if_doomed() -> None:
    if Mortal.doomed:
        os.kill(os.getpid(), signal.SIGKILL)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_die_if_doomed)


def test_the_baseline_and_every_measurement_tell_of_a_killed_loading_process(
    overrides: dict[str, Any], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides |= {"training.num_epochs": 1}
    run = train(load_settings(overrides=overrides), progress=False)
    assert run.last is not None
    last, other = run.last.path, tmp_path / "other"
    shutil.copytree(last, other)
    tuned = load_classifier(run.last)
    samples = load_split(photos, "test", class_names=tuple(COLORS)).samples
    more = {"data.num_workers": 1, "output.output_dir": str(tmp_path / "killed")}
    settings = load_settings(overrides=overrides | more)
    common: dict[str, Any] = {"num_workers": 1, "progress": False}
    measuring = Measuring(device=torch.device("cpu"), **common)
    places: dict[str, Any] = {"data_dir": photos, "output_dir": tmp_path / "report"}
    measurements: list[Callable[[], Any]] = [
        lambda: train(settings, progress=False),
        lambda: evaluate(last, **places, **common),
        lambda: compare([last, other], **places, **common),
        lambda: measure_robustness([tuned], samples, measuring),
    ]
    monkeypatch.setattr(processes, "LOOK_AFTER", 0.1)
    monkeypatch.setattr(Mortal, "doomed", True)
    for measure in measurements:
        with pytest.raises(ResourceError, match=WORDS):
            measure()
    assert not (tmp_path / "report").exists()


def test_a_signal_of_other_peoples_processes_is_left_as_it_was(photos: Path) -> None:
    train_split, _ = load_training_splits(photos, val_ratio=0.1, seed=0)
    before = signal.getsignal(signal.SIGCHLD)
    loader = make_loader(PhotoDataset(train_split.samples, PREPROCESS), batch_size=8, num_workers=1)
    assert sum(len(batch) for batch in loader) == len(train_split.samples)
    assert signal.getsignal(signal.SIGCHLD) is before


def _fail_at_three(image: Image.Image, index: int) -> Image.Image:
    if index == 3:
        raise RuntimeError("the reason")
    return image


def test_what_is_raised_in_a_loading_process_keeps_its_reason(photos: Path) -> None:
    train_split, _ = load_training_splits(photos, val_ratio=0.1, seed=0)
    data = PhotoDataset(train_split.samples, PREPROCESS, alter=_fail_at_three)
    with pytest.raises(LoadingError, match="the reason"):
        list(make_loader(data, batch_size=2, num_workers=1))


@dataclass
class Hang:
    """As where a disk does not answer, once the file `asked` is there."""

    asked: Path

    def __call__(self, image: Image.Image, index: int) -> Image.Image:
        if index == 0 and self.asked.exists():
            time.sleep(2)
        return image


def test_a_process_that_does_not_answer_is_told_after_the_limit_and_no_sooner(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "LOOK_AFTER", 0.3)
    train_split, _ = load_training_splits(photos, val_ratio=0.1, seed=0)
    data = PhotoDataset(train_split.samples, PREPROCESS, alter=Hang(tmp_path / "asked"))
    loader = make_loader(data, batch_size=3, num_workers=1, read_timeout=60)
    (tmp_path / "asked").touch()
    assert sum(len(batch) for batch in loader) == len(train_split.samples)  # 2 s are no fault
    loader.timeout = 1
    started = time.monotonic()
    with pytest.raises(LoadingError, match="no answer within 1 s"):
        next(iter(loader))
    assert time.monotonic() - started > 0.9


def test_a_process_lost_between_two_passes_is_told_at_once(photos: Path) -> None:
    train_split, _ = load_training_splits(photos, val_ratio=0.1, seed=0)
    loader = make_loader(
        PhotoDataset(train_split.samples, PREPROCESS), batch_size=8, num_workers=1, read_timeout=60
    )
    passes = [sum(len(batch) for batch in loader) for _ in range(2)]
    assert passes == [len(train_split.samples)] * 2
    for worker in multiprocessing.active_children():
        worker.kill()
        worker.join()
    with pytest.raises(LoadingError, match="exited unexpectedly"):
        list(loader)


class LostOnTheWay:
    """What is handed over while its sender is killed: nobody is there to give the memory."""

    def __init__(self, items: list[int]) -> None:
        self.items = items

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return _reset_by_peer, ()


def _reset_by_peer() -> None:
    raise ConnectionResetError(104, "Connection reset by peer")


def test_a_process_killed_while_it_hands_over_is_told_though_it_still_counts_as_alive() -> None:
    loader = PhotoLoader([1, 2], batch_size=1, collate_fn=LostOnTheWay, num_workers=1)  # type: ignore[arg-type]
    with pytest.raises(LoadingError, match=r"connection to one was lost .*reset by peer"):
        list(loader)


def test_a_process_lost_while_a_pass_begins_is_told_long_before_the_limit(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "LOOK_AFTER", 0.3)
    train_split, _ = load_training_splits(photos, val_ratio=0.1, seed=0)
    data = PhotoDataset(train_split.samples, PREPROCESS)
    loader = make_loader(data, batch_size=8, num_workers=1, read_timeout=60)
    assert sum(len(batch) for batch in loader) == len(train_split.samples)
    (worker,) = multiprocessing.active_children()
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGSTOP)  # it lives, and does not say that it goes on
    Timer(0.5, worker.kill).start()
    started = time.monotonic()
    with pytest.raises(LoadingError, match="exited unexpectedly"):
        list(loader)
    assert time.monotonic() - started < 20
