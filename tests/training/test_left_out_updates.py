"""An epoch of which nothing could be used: what is told, kept, drawn and gone on from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import event_points

from cliptune.config import load_settings
from cliptune.evaluation import plots
from cliptune.training import train as training
from cliptune.training.reporting import TrainResult, epoch_line
from cliptune.training.run import Run
from cliptune.training.setup import set_up
from cliptune.training.train import train

Overrides = dict[str, Any]


def strict(text: str) -> Any:
    """JSON as its standard has it: NaN is none."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture
def spoilt(overrides: Overrides, monkeypatch: pytest.MonkeyPatch) -> Overrides:
    """Settings of a run whose gradients of the first epoch are all NaN."""

    def set_up_spoilt(*arguments: Any, **options: Any) -> Run:
        run = set_up(*arguments, **options)

        def spoil(gradient: torch.Tensor) -> torch.Tensor:
            return gradient * float("nan") if run.progress.epoch == 0 else gradient

        run.trained[0].register_hook(spoil)
        return run

    monkeypatch.setattr(training, "set_up", set_up_spoilt)
    overrides |= {"output.trackers": ["tensorboard"]}
    overrides |= {"training.recipe": "plain"}  # a head that answers all leaves nothing to learn
    return overrides | {"training.on_nonfinite": "skip", "training.nonfinite_limit": 100}


def check(result: TrainResult) -> None:
    first = result.history[0]
    assert first["train_loss"] is first["train_accuracy"] is None
    assert first["val_accuracy"] == result.baseline_accuracy  # nothing was learnt
    assert first["images_per_second"] is not None
    assert 0 < first["images_per_second"] < 1e6
    assert result.images_per_second > 0
    assert result.train_seconds > 0


def test_an_epoch_of_which_every_update_was_left_out_ends_and_says_so(
    spoilt: Overrides, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="cliptune"):
        result = train(load_settings(overrides=spoilt), progress=False)
    check(result)
    assert result.epochs == 2
    assert result.history[1]["train_loss"] is not None
    assert "epoch 1: not one of its 3 updates could be used" in caplog.text
    assert "epoch 2: not one" not in caplog.text
    assert "train – –" in caplog.text
    assert (result.output_dir / "training_curves.png").stat().st_size > 10_000
    for path in result.output_dir.rglob("*.json"):
        strict(path.read_text())
    drawn = [curve for curve, _, _ in event_points(Path(spoilt["output.log_dir"]))]
    assert drawn.count("epoch/train_loss") == 1
    assert drawn.count("epoch/val_loss") == 2


def test_a_run_of_which_nothing_could_be_used_ends_and_is_gone_on_from(spoilt: Overrides) -> None:
    result = train(load_settings(overrides=spoilt | {"training.num_epochs": 1}), progress=False)
    check(result)
    assert result.updates == 3
    state = result.output_dir / "checkpoint-epoch-1" / "resume" / "state.json"
    assert strict(state.read_text())["progress"]["history"][0]["train_loss"] is None
    again = train(load_settings(overrides=spoilt), resume=True, progress=False)
    check(again)
    assert again.history[1]["train_loss"] is not None


def test_an_earlier_checkpoints_nan_is_read_as_not_known(overrides: Overrides) -> None:
    """Earlier versions wrote NaN where a later epoch was left out."""
    overrides |= {"training.recipe": "plain"}
    result = train(load_settings(overrides=overrides), progress=False)
    last = result.output_dir / "checkpoint-epoch-2"
    state = last / "resume" / "state.json"
    values = json.loads(state.read_text())
    values["progress"]["history"][1]["train_loss"] = float("nan")
    state.write_text(json.dumps(values))
    (last / "SHA256SUMS").unlink()  # as before there were sums
    more = load_settings(overrides=overrides | {"training.num_epochs": 3})
    again = train(more, resume=True, progress=False)
    assert [row["train_loss"] is None for row in again.history] == [False, True, False]
    strict((again.output_dir / "checkpoint-epoch-3" / "resume" / "state.json").read_text())


def test_a_val_loss_that_is_not_finite_is_neither_best_nor_a_gain(tmp_path: Path) -> None:
    row = {"epoch": 1.0, "train_loss": 1.0, "train_accuracy": 0.5, "val_accuracy": 0.5}
    unknown: dict[str, float | None] = row | {"val_loss": None}
    known: dict[str, float | None] = row | {"val_loss": 2.0, "epoch": 2.0}
    assert plots.best_epoch([unknown, known]) is known
    assert plots.best_epoch([known, unknown]) is known
    plots.plot_training_curves([unknown, known], tmp_path / "curves.png", baseline_accuracy=None)
    plots.plot_training_curves([unknown], tmp_path / "one.png", baseline_accuracy=None)
    said = epoch_line(unknown | {"images_per_second": None}, num_epochs=2, is_best=False)
    assert said == "epoch 1/2  train 1.000 50.0%  val – 50.0%  – img/s"


def test_a_run_whose_val_loss_is_not_finite_is_saved_as_json_and_goes_on(
    overrides: Overrides, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where validation overflows: here a weight of infinite size, put there before it."""
    overrides |= {"training.recipe": "plain"}
    validate = training.validate

    def overflow_once(run: Run) -> Any:
        if run.progress.epoch:
            return validate(run)
        parameter = run.trained[-1]
        before = parameter.detach().clone()
        with torch.no_grad():
            parameter.fill_(float("inf"))
        found = validate(run)
        with torch.no_grad():
            parameter.copy_(before)
        return found

    monkeypatch.setattr(training, "validate", overflow_once)
    result = train(load_settings(overrides=overrides), progress=False)
    assert result.history[0]["val_loss"] is None
    assert result.history[1]["val_loss"] is not None
    for path in result.output_dir.rglob("*.json"):
        strict(path.read_text())
    assert result.best is not None
    assert result.best.path.name == "checkpoint-epoch-2"
