"""A stopped run goes on as if it had not stopped; nothing is lost, nothing written twice."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import event_points

from cliptune.config import load_settings
from cliptune.errors import (
    CheckpointError,
    Interrupted,
    ResourceError,
    SettingsError,
    TrainingError,
    UserError,
)
from cliptune.files import recover
from cliptune.locks import RunLock
from cliptune.training import train as training
from cliptune.training.resume import (
    ResumeState,
    numpy_random,
    read_resume,
    save_resume,
    torch_random,
)
from cliptune.training.run import Progress
from cliptune.training.setup import set_up
from cliptune.training.train import step, train
from conftest import make_model, make_photos, names, tensors

Overrides = dict[str, Any]


def stop_at(patch: pytest.MonkeyPatch, update: int, number: int = signal.SIGINT) -> None:
    """Send this process the signal in the given update."""
    calls = 0
    real_step = training.step

    def step_then_signal(run: Any, group: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == update:
            signal.raise_signal(number)
        return real_step(run, group)

    patch.setattr(training, "step", step_then_signal)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_curves_hold_each_point_once_however_a_run_was_stopped(
    overrides: Overrides, tmp_path: Path, number: int
) -> None:
    overrides |= {"training.batch_size": 4, "evaluation.logging_steps": 1}
    overrides |= {"evaluation.save_steps": 4, "evaluation.eval_steps": 3}
    overrides |= {"output.trackers": ["tensorboard"]}
    train(load_settings(overrides=overrides), progress=False)
    expected = event_points(Path(overrides["output.log_dir"]))
    overrides |= {"output.log_dir": str(tmp_path / "other-logs")}
    overrides |= {"output.output_dir": str(tmp_path / "stopped")}
    settings = load_settings(overrides=overrides)
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 9, number)
        with pytest.raises(Interrupted):
            train(settings, progress=False)
    # As after a kill: later points were logged, and no checkpoint saved since.
    shutil.rmtree(tmp_path / "stopped" / "checkpoint-step-9")
    assert len(event_points(tmp_path / "other-logs")) > 0
    train(settings, resume=True, progress=False)
    found = event_points(tmp_path / "other-logs")
    assert [point[:2] for point in found] == [point[:2] for point in expected]
    assert found == expected


def test_a_new_run_in_the_place_of_another_starts_its_curves_anew(
    overrides: Overrides, tmp_path: Path
) -> None:
    overrides |= {"evaluation.logging_steps": 1, "output.trackers": ["tensorboard"]}
    settings = load_settings(overrides=overrides)
    train(settings, progress=False)
    logs = Path(overrides["output.log_dir"])
    once = event_points(logs)
    neighbour = logs / settings.output.output_dir.name / "events.out.tfevents.1.of.another.run"
    neighbour.write_bytes(b"")
    train(settings, overwrite=True, progress=False)
    assert event_points(logs) == once
    assert neighbour.exists()


def test_a_damaged_last_checkpoint_is_left_out_with_a_warning(
    overrides: Overrides, caplog: pytest.LogCaptureFixture
) -> None:
    settings = load_settings(overrides=overrides)
    whole = train(settings, progress=False)
    assert whole.last is not None
    expected = tensors(whole.last.path)
    state = whole.last.path / "resume" / "state.json"
    state.write_text(state.read_text()[:-20])
    resumed = train(settings, resume=True, progress=False)
    assert "checkpoint-epoch-2: resume/state.json was damaged" in caplog.text
    assert resumed.last is not None
    found = tensors(resumed.last.path)
    assert all(torch.equal(expected[key], found[key]) for key in expected)


def test_a_second_run_in_the_same_folder_is_refused_by_the_holders_name(
    overrides: Overrides,
) -> None:
    settings = load_settings(overrides=overrides)
    folder = settings.output.output_dir
    script = (
        "import sys; from pathlib import Path\n"
        "from cliptune.locks import RunLock\n"
        "lock = RunLock(Path(sys.argv[1])); lock.acquire(); print('held', flush=True)\n"
        "sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match=f"process {holder.pid} on .*, since "):
            train(settings, progress=False)
        holder.kill()
    train(settings, progress=False)  # what a killed process held is free


def test_locks_hold_and_free(tmp_path: Path) -> None:
    first, second = RunLock(tmp_path / "run"), RunLock(tmp_path / "run")
    first.acquire()
    first.acquire()
    with pytest.raises(UserError, match="another run is writing here"):
        second.acquire()
    first.release()
    second.acquire()
    second.release()


def test_what_a_crash_left_is_put_right(tmp_path: Path) -> None:
    for name in (".a.partial", ".b.old", "c", ".c.old", ".d.deleted"):
        (tmp_path / name).mkdir()
    (tmp_path / ".b.old" / "file").write_text("the only good one")
    (tmp_path / ".e.png.partial").write_text("half")
    recover(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "c"]
    assert (tmp_path / "b" / "file").read_text() == "the only good one"


def test_updates_that_are_not_finite_are_skipped_if_asked_and_counted(
    overrides: Overrides, caplog: pytest.LogCaptureFixture
) -> None:
    overrides |= {"training.on_nonfinite": "skip", "training.nonfinite_limit": 2}
    run = set_up(load_settings(overrides=overrides), progress=False)
    before = [parameter.detach().clone() for parameter in run.trained]
    batch = next(iter(run.train_loader))
    spoil = run.trained[0].register_hook(lambda gradient: gradient * float("nan"))
    assert step(run, [batch]) is None
    assert run.progress.skipped == run.progress.skipped_in_a_row == 1
    assert all(torch.equal(a, b) for a, b in zip(before, run.trained, strict=True))
    assert "update 1 is left out: the gradient became nan" in caplog.text
    with pytest.raises(TrainingError, match="2 updates in a row"):
        step(run, [batch])
    spoil.remove()
    assert step(run, [batch]) is not None
    assert run.progress.skipped_in_a_row == 0
    assert any(not torch.equal(a, b) for a, b in zip(before, run.trained, strict=True))


def test_a_killed_loading_process_is_named_and_the_run_saved(
    overrides: Overrides, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides |= {"data.num_workers": 1, "training.batch_size": 2, "evaluation.eval_steps": 100}
    settings = load_settings(overrides=overrides)
    real_step, calls = training.step, 0

    def step_then_kill(run: Any, group: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            for worker in run.train_loader._iterator._workers:
                worker.kill()
                worker.join()
        return real_step(run, group)

    monkeypatch.setattr(training, "step", step_then_kill)
    with pytest.raises(ResourceError, match=r"processes that load photos failed.*num_workers"):
        train(settings, progress=False)
    saved = names(settings.output.output_dir)
    assert saved[-1].startswith("checkpoint-step-")
    monkeypatch.undo()
    assert train(settings, resume=True, progress=False).epochs == 2


@pytest.mark.slow
def test_sigterm_to_the_whole_group_ends_resumable(overrides: Overrides) -> None:
    """As schedulers send it: to the process and to those that load photos."""
    overrides |= {"data.num_workers": 2, "training.num_epochs": 300, "training.batch_size": 2}
    overrides |= {"training.early_stopping.enabled": False}
    more = [part for key, value in overrides.items() for part in ("--set", f"{key}={value}")]
    process = subprocess.Popen(
        [sys.executable, "-m", "cliptune", "train", *more],
        start_new_session=True, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    run_dir = Path(overrides["output.output_dir"])
    while not names(run_dir):
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 75, said
    assert "--resume" in said
    assert "Traceback" not in said


def test_a_run_stopped_in_mid_epoch_resumes_to_the_same_weights(
    overrides: Overrides, tmp_path: Path
) -> None:
    overrides |= {"training.batch_size": 4, "lora.towers": "both", "evaluation.eval_steps": 100}
    whole = train(load_settings(overrides=overrides), progress=False)
    overrides |= {"output.output_dir": str(tmp_path / "stopped")}
    settings = load_settings(overrides=overrides | {"evaluation.save_steps": 4})

    from cliptune.training import train as training

    calls = 0
    real_step = training.step

    def step_then_interrupt(run: Any, group: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 8:  # in the second epoch
            signal.raise_signal(signal.SIGINT)
        return real_step(run, group)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "step", step_then_interrupt)
        with pytest.raises(Interrupted, match="--resume"):
            train(settings, progress=False)
    assert names(tmp_path / "stopped")[-1] == "checkpoint-step-8"
    resumed = train(settings, resume=True, progress=False)
    assert whole.last is not None
    assert resumed.last is not None
    assert resumed.last.path.name == whole.last.path.name == "checkpoint-epoch-2"
    expected, found = tensors(whole.last.path), tensors(resumed.last.path)
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    for one, other in zip(whole.history, resumed.history, strict=True):
        assert one["train_loss"] == other["train_loss"]
        assert one["val_loss"] == other["val_loss"]


def test_resuming_with_other_settings_is_refused(overrides: Overrides) -> None:
    train(load_settings(overrides=overrides), progress=False)
    with pytest.raises(SettingsError, match="all 2 epochs of this run are done"):
        train(load_settings(overrides=overrides), resume=True, progress=False)
    changed = load_settings(overrides=overrides | {"lora.r": 4, "training.num_epochs": 3})
    with pytest.raises(SettingsError, match=r"lora\.r: was 8, is 4"):
        train(changed, resume=True, progress=False)
    more = load_settings(overrides=overrides | {"training.num_epochs": 3})
    assert train(more, resume=True, progress=False).epochs == 3


def test_resuming_with_other_classes_or_other_base_weights_is_refused(
    overrides: Overrides, tmp_path: Path
) -> None:
    data = make_photos(tmp_path / "data")
    model = make_model(tmp_path / "model")
    overrides |= {"data.data_dir": str(data), "model.name": str(model)}
    train(load_settings(overrides=overrides), progress=False)
    more = load_settings(overrides=overrides | {"training.num_epochs": 3})
    for split in ("train", "val"):
        (data / split / "amber").rename(data / split / "zebra")
    with pytest.raises(SettingsError, match=r"Gone since: amber\. New: zebra"):
        train(more, resume=True, progress=False)
    for split in ("train", "val"):
        (data / split / "zebra").rename(data / split / "amber")
    make_model(model, seed=5)
    with pytest.raises(SettingsError, match="other base weights"):
        train(more, resume=True, progress=False)


def test_an_earlier_run_is_not_overwritten_unasked(overrides: Overrides) -> None:
    settings = load_settings(overrides=overrides)
    train(settings, progress=False)
    with pytest.raises(UserError, match="already holds a run"):
        train(settings, progress=False)
    overrides |= {"output.output_dir": str(settings.output.output_dir / "other")}
    elsewhere = load_settings(overrides=overrides)
    with pytest.raises(UserError, match="no checkpoint to resume"):
        train(elsewhere, resume=True, progress=False)


def test_resuming_with_photos_added_or_renamed_is_refused(
    overrides: Overrides, tmp_path: Path
) -> None:
    data = make_photos(tmp_path / "data")
    overrides |= {"data.data_dir": str(data)}
    train(load_settings(overrides=overrides), progress=False)
    more = load_settings(overrides=overrides | {"training.num_epochs": 3})
    one = next((data / "train" / "amber").iterdir())
    other = one.with_name("zz.png")
    one.rename(other)
    with pytest.raises(SettingsError, match="24 then, 24 now, with other names"):
        train(more, resume=True, progress=False)
    other.rename(one)
    shutil.copy(one, other)
    with pytest.raises(SettingsError, match="24 then, 25 now"):
        train(more, resume=True, progress=False)
    other.unlink()
    moved = data.rename(tmp_path / "elsewhere")
    again = load_settings(
        overrides=overrides | {"training.num_epochs": 3, "data.data_dir": str(moved)}
    )
    assert train(again, resume=True, progress=False).epochs == 3


def test_a_picture_that_a_stop_kept_back_is_drawn_on_resuming(overrides: Overrides) -> None:
    settings = load_settings(overrides=overrides)
    train(settings, progress=False)
    picture = settings.output.output_dir / "training_curves.png"
    drawn = picture.read_bytes()
    picture.unlink()
    with pytest.raises(SettingsError, match="epochs of this run are done"):
        train(settings, resume=True, progress=False)
    assert picture.read_bytes() == drawn


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_a_run_goes_on_in_the_precision_it_began_in(
    overrides: dict[str, Any], precision: str
) -> None:
    """Which is faster is timed, and a busy machine may answer otherwise the second time.

    This machine answers one of the two at most, and each of them is kept.
    """
    overrides |= {"hardware.mixed_precision": True, "hardware.device": "cpu"}
    one = train(load_settings(overrides=overrides | {"training.num_epochs": 1}), progress=False)
    rewrite_state(one.output_dir / "checkpoint-epoch-1", precision={"cpu": precision})
    (one.output_dir / "checkpoint-epoch-1" / "SHA256SUMS").unlink()  # they were of another state
    two = train(load_settings(overrides=overrides), resume=True, progress=False)
    assert read_resume(two.output_dir / "checkpoint-epoch-2").precision == {"cpu": precision}


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"photos": {"count": "many", "digest": ""}}, r"photos\.count: .*valid integer"),
        ({"events": {"a": None}}, r"events\.a: "),
        ({"progress": {"epochs": 1}}, "unexpected keyword argument 'epochs'"),
        ({"numpy_random": ["MT19937"]}, r"numpy_random\.1: "),
    ],
    ids=str,
)
def test_a_state_that_no_run_wrote_is_refused_with_its_key(
    tmp_path: Path, change: dict[str, Any], fault: str
) -> None:
    state = ResumeState(
        progress=Progress(epoch=1),
        scaler=None,
        settings={"seed": 1},
        python_random=random.getstate(),
        numpy_random=numpy_random(),
    )
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))])
    save_resume(tmp_path, state, optimizer=optimizer, random_states=[torch_random()], heads={})
    assert read_resume(tmp_path) == state
    rewrite_state(tmp_path, **change)
    with pytest.raises(CheckpointError, match=rf"state\.json: damaged: .*{fault}"):
        read_resume(tmp_path)


def rewrite_state(checkpoint: Path, **changes: Any) -> None:
    """Put other values into what is kept to go on from."""
    path = checkpoint / "resume" / "state.json"
    values = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps(values), encoding="utf-8")
