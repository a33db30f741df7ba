"""What W&B is told of a run: its offline files, read back by the messages they are made of."""

from __future__ import annotations

import json
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from cliptune.config import load_settings
from cliptune.errors import Interrupted
from cliptune.training.start import told_settings
from cliptune.training.train import train

wandb = pytest.importorskip("wandb")
pytestmark = [
    pytest.mark.scale,  # it starts a service of its own
    pytest.mark.filterwarnings("default"),  # W&B's own
]

Overrides = dict[str, Any]


@pytest.fixture
def told(
    overrides: Overrides, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Overrides]:
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))  # no key from here
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_PROJECT", "WANDB_NAME"):
        monkeypatch.delenv(name, raising=False)
    wandb.teardown()  # it keeps what it found of these when it was first asked
    yield overrides | {
        "output.trackers": ["wandb"], "evaluation.logging_steps": 1, "training.batch_size": 4,
        "evaluation.save_steps": 4,
    }  # fmt: skip
    wandb.teardown()


def messages(path: Path) -> Iterator[Any]:
    """The messages of a .wandb file: records of LevelDB's log format behind a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, parts = path.read_bytes(), 7, b""
    block = 32768
    while place + 7 <= len(content):
        if block - place % block < 7:
            place += block - place % block
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        if kind == 0:
            return
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = Record()
            record.ParseFromString(parts)
            yield record
            parts = b""


def files(folder: Path) -> list[Path]:
    """The offline files of all processes, in the order they began."""
    return sorted(folder.glob("wandb/offline-run-*/run-*.wandb"))


def history(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """The rows of the history: step, and what stands in it."""
    rows = []
    for record in messages(path):
        if record.WhichOneof("record_type") == "history":
            items = {(item.key or ".".join(item.nested_key)): json.loads(item.value_json)
                     for item in record.history.item}  # fmt: skip
            rows.append((int(items.pop("_step", record.history.step.num)), items))
    return rows


def config_and_id(path: Path) -> tuple[dict[str, Any], str]:
    config: dict[str, Any] = {}
    run_id = ""
    for record in messages(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run_id = record.run.run_id
            updates = record.run.config.update
        elif kind == "config":
            updates = record.config.update
        else:
            continue
        config |= {item.key: json.loads(item.value_json) for item in updates if item.key}
    return {key: value for key, value in config.items() if key != "_wandb"}, run_id


def summary(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for record in messages(path):
        if record.WhichOneof("record_type") == "summary":
            for item in record.summary.update:
                found[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
    return found


def exit_code(path: Path) -> list[int]:
    return [record.exit.exit_code for record in messages(path)
            if record.WhichOneof("record_type") == "exit"]  # fmt: skip


def test_it_writes_offline_without_a_key_and_holds_settings_curves_and_figures(
    told: Overrides, tmp_path: Path
) -> None:
    settings = load_settings(overrides=told)
    result = train(settings, progress=False)
    (path,) = files(tmp_path)
    config, _ = config_and_id(path)
    assert config == told_settings(settings)
    rows = history(path)
    losses = {step: row["train/loss"] for step, row in rows if "train/loss" in row}
    assert list(losses) == list(range(1, result.updates + 1))
    last = [row["epoch/val_accuracy"] for _, row in rows if "epoch/val_accuracy" in row]
    expected = [row["val_accuracy"] for row in result.history if row["epoch"]]
    assert last == pytest.approx(expected)
    pictures = {key.removesuffix("._type") for _, row in rows for key in row if "._type" in key}
    assert pictures >= {"photos/train", "val/confusion_matrix", "training_curves"}
    for _, row in rows:
        for kind in pictures & {key.removesuffix(".path") for key in row}:
            image = path.parent / "files" / row[f"{kind}.path"]
            assert image.read_bytes().startswith(b"\x89PNG")
    assert result.best is not None
    assert summary(path)["best/val_accuracy"] == pytest.approx(result.best.val_accuracy)
    assert exit_code(path) == [0]


def test_nothing_of_the_machine_is_written_but_what_it_computes_with(
    told: Overrides, tmp_path: Path, clip_folder: Path
) -> None:
    train(load_settings(overrides=told), progress=False)
    (path,) = files(tmp_path)
    kinds = {record.WhichOneof("record_type") for record in messages(path)}
    assert "output" not in kinds
    assert "output_raw" not in kinds  # the lines of the terminal
    assert {x.run.host for x in messages(path) if x.WhichOneof("record_type") == "run"} == {""}
    for private in (tmp_path, clip_folder.parent):
        assert str(private).encode() not in path.read_bytes()
    assert not list(path.parent.rglob("wandb-metadata.json"))
    assert not any(lines.read_bytes() for lines in path.parent.rglob("output.log"))


def test_a_run_that_was_stopped_goes_on_as_the_same_run_and_tells_no_step_twice(
    told: Overrides, tmp_path: Path
) -> None:
    settings = load_settings(overrides=told)

    def stop(row: Mapping[str, float | None]) -> None:
        if row["epoch"] == 1:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted):
        train(settings, progress=False, after_epoch=stop)
    train(settings, progress=False, resume=True)
    first, second = files(tmp_path)
    assert config_and_id(first)[1] == config_and_id(second)[1] != ""
    steps = [step for path in (first, second) for step, row in history(path) if "train/loss" in row]
    assert steps == list(range(1, 13))
    assert exit_code(first) == [1]
    assert exit_code(second) == [0]


KILLED = """
import os, signal, sys
from cliptune import load_settings, train
from cliptune.training import train as training

def die(row):
    os.kill(os.getpid(), signal.SIGKILL)

step, left = training.step, int(sys.argv[2])
def step_or_die(run, group):
    global left
    left -= 1
    if left < 0:
        die(None)
    return step(run, group)

training.step = step_or_die
import json
train(load_settings(overrides=json.loads(sys.argv[1])), progress=False)
"""


def test_a_run_that_was_killed_goes_on_as_the_same_run_and_tells_no_step_twice(
    told: Overrides, tmp_path: Path
) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, json.dumps(told), "6"], capture_output=True, text=True
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    train(load_settings(overrides=told), progress=False, resume=True)
    first, second = files(tmp_path)
    assert first.name == second.name == f"run-{config_and_id(second)[1]}.wandb"
    before, after = (
        [step for step, row in history(path) if "train/loss" in row] for path in (first, second)
    )
    # A checkpoint was saved at update 4, and updates 5 and 6 were done twice. W&B writes every 15
    # seconds, or (0.18) every 32 KiB: of the killed run there is what it had written.
    assert after == list(range(7, 13))
    assert before == list(range(1, len(before) + 1))
    assert len(before) <= 6


def test_another_run_in_the_same_folder_is_another_run(told: Overrides, tmp_path: Path) -> None:
    settings = load_settings(overrides=told)
    train(settings, progress=False)
    train(settings, progress=False, overwrite=True)
    first, second = files(tmp_path)
    assert config_and_id(first)[1] != config_and_id(second)[1]
