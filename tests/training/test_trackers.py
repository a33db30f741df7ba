"""What trackers are told of a run, read back from what they wrote; and that none can end it."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import api_pb2, metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionStartInfo

from cliptune.config import load_settings
from cliptune.data.loading import Key
from cliptune.errors import TrainingError
from cliptune.training.setup import set_up
from cliptune.training.start import told_settings
from cliptune.training.trackers.told import FILE, Told
from cliptune.training.train import train
from conftest import tensors

Overrides = dict[str, Any]


@pytest.fixture
def told(overrides: Overrides) -> Overrides:
    return overrides | {"output.trackers": ["tensorboard"], "evaluation.logging_steps": 2}


def events_of(overrides: Overrides) -> EventAccumulator:
    """What TensorBoard reads of the one file of the run."""
    (path,) = (Path(overrides["output.log_dir"]) / "run").glob("events*")
    return EventAccumulator(str(path), size_guidance={"images": 0}).Reload()


def session(events: EventAccumulator, tag: str) -> HParamsPluginData:
    """What the HParams tab is told under `tag`."""
    content = events.summary_metadata[tag].plugin_data.content
    return metadata._parse_plugin_data_as(content, {
        metadata.SESSION_START_INFO_TAG: "session_start_info",
        metadata.SESSION_END_INFO_TAG: "session_end_info",
    }[tag])  # fmt: skip


def picture(events: EventAccumulator, tag: str) -> Image.Image:
    (found,) = events.Images(tag)
    return Image.open(io.BytesIO(found.encoded_image_string)).convert("RGB")


def test_tensorboard_holds_the_curves(told: Overrides) -> None:
    result = train(load_settings(overrides=told), progress=False)
    events = events_of(told)
    assert {
        "train/loss", "train/accuracy", "train/learning_rate", "train/images_per_second",
        "val/loss", "val/accuracy",
    } <= set(events.Tags()["scalars"])  # fmt: skip
    assert [e.step for e in events.Scalars("train/loss")] == [2, 4, 6]
    accuracies = [e.value for e in events.Scalars("val/accuracy")]
    expected = [result.baseline_accuracy, *(row["val_accuracy"] for row in result.history)]
    assert accuracies == pytest.approx(expected)


def test_the_hparams_tab_has_each_setting_beside_what_the_best_epoch_reached(
    told: Overrides,
) -> None:
    settings = load_settings(overrides=told)
    result = train(settings, progress=False)
    events = events_of(told)
    start: SessionStartInfo = session(events, metadata.SESSION_START_INFO_TAG)
    found = {key: getattr(value, str(value.WhichOneof("kind")))
             for key, value in start.hparams.items()}  # fmt: skip
    assert found == told_settings(settings)
    assert found["lora.r"] == 8
    assert found["lora.use_dora"] is False
    assert result.best is not None
    for key, expected in {
        "best/val_accuracy": result.best.val_accuracy,
        "best/epoch": result.best.record.epoch,
        "zero_shot/accuracy": result.baseline_accuracy,
    }.items():
        assert events.Scalars(key)[-1].value == pytest.approx(expected)
    end = session(events, metadata.SESSION_END_INFO_TAG)
    assert end.status == api_pb2.STATUS_SUCCESS


def test_a_run_killed_after_its_last_checkpoint_has_told_all_its_figures(told: Overrides) -> None:
    result = train(load_settings(overrides=told), progress=False)
    assert result.best is not None
    assert result.last is not None
    state = json.loads((result.last.path / "resume" / "state.json").read_text(encoding="utf-8"))
    whole = events_of(told).Scalars("best/val_accuracy")
    ((name, size),) = state["events"].items()
    os.truncate(Path(told["output.log_dir"]) / "run" / name, size)
    assert events_of(told).Scalars("best/val_accuracy") == whole
    assert whole[-1].value == pytest.approx(result.best.val_accuracy)


def test_the_hparams_tab_tells_a_run_that_failed_from_one_that_is_done(told: Overrides) -> None:
    def fail(row: Mapping[str, float | None]) -> None:
        raise TrainingError("as after a loss that is not finite")

    with pytest.raises(TrainingError):
        train(load_settings(overrides=told), progress=False, after_epoch=fail)
    end = session(events_of(told), metadata.SESSION_END_INFO_TAG)
    assert end.status == api_pb2.STATUS_FAILURE


def test_settings_for_trackers_name_no_folder_of_this_machine(
    told: Overrides, tmp_path: Path, clip_folder: Path
) -> None:
    settings = told_settings(load_settings(overrides=told))
    assert settings["model.name"] == clip_folder.name
    text = repr(settings)
    for folder in (tmp_path, clip_folder.parent, Path.home()):
        assert str(folder) not in text
    hub = told_settings(load_settings(overrides=told | {"model.name": "openai/clip-vit-base"}))
    assert hub["model.name"] == "openai/clip-vit-base"


def test_the_sheet_of_training_photos_shows_what_the_first_epoch_does(told: Overrides) -> None:
    settings = load_settings(overrides=told)
    train(settings, progress=False)
    sheet = picture(events_of(told), "photos/train")
    run = set_up(settings, progress=False)
    first_CHW = run.train_loader.dataset[Key(0, 0)].pixels.numpy()
    shown = Image.fromarray(first_CHW.transpose(1, 2, 0)).resize((160, 160))
    assert np.array_equal(np.asarray(sheet)[26:186, 12:172], np.asarray(shown))


def test_the_confusion_matrix_and_wrong_answers_are_shown_where_there_are_any(
    told: Overrides,
) -> None:
    told |= {"training.recipe": "plain", "training.learning_rate": 1e-9}
    result = train(load_settings(overrides=told), progress=False)
    assert result.best is not None
    assert result.best.val_accuracy is not None
    assert result.best.val_accuracy < 1  # random weights
    events = events_of(told)
    wrong = round((1 - result.best.val_accuracy) * 12)
    rows = -(-wrong // 4)
    assert picture(events, "photos/val_wrong").size == (4 * 172 + 12, rows * 194 + 26)
    assert min(picture(events, "val/confusion_matrix").size) > 300


def test_trackers_change_no_weight(told: Overrides, tmp_path: Path) -> None:
    other = {"output.output_dir": str(tmp_path / "other"), "output.trackers": []}
    with_them = train(load_settings(overrides=told), progress=False)
    without = train(load_settings(overrides=told | other), progress=False)
    assert with_them.last is not None
    assert without.last is not None
    found, expected = tensors(with_them.last.path), tensors(without.last.path)
    assert all(np.array_equal(found[key], expected[key]) for key in expected)


def test_a_tracker_that_cannot_begin_is_told_of_once_and_ends_no_run(
    told: Overrides, caplog: pytest.LogCaptureFixture
) -> None:
    in_the_way = Path(told["output.log_dir"]) / "run"
    in_the_way.parent.mkdir()
    in_the_way.write_text("a file where a folder is to be")
    assert train(load_settings(overrides=told), progress=False).epochs == 2
    told_of = [x for x in caplog.records if x.name.startswith("cliptune.training.trackers")]
    warnings = [x.getMessage() for x in told_of]
    assert len(warnings) == 1
    assert warnings[0].startswith("tensorboard: ")
    assert "goes on without it" in warnings[0]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_tracker_that_breaks_on_the_way_is_told_of_once_and_ends_no_run(
    told: Overrides, caplog: pytest.LogCaptureFixture
) -> None:
    def delete_logs(row: Mapping[str, float | None]) -> None:
        shutil.rmtree(told["output.log_dir"], ignore_errors=True)

    result = train(load_settings(overrides=told), progress=False, after_epoch=delete_logs)
    assert result.epochs == 2
    assert result.last is not None
    warnings = [x.getMessage() for x in caplog.records if "goes on without it" in x.getMessage()]
    assert len(warnings) == 1


def test_what_was_told_before_a_run_is_gone_on_with_is_not_told_again(tmp_path: Path) -> None:
    told = Told(tmp_path, resumed=False)
    assert all(told.is_new(update) for update in (0, 0, 1, 2, 2))
    told.keep_run("wandb", "a1b2")
    again = Told(tmp_path, resumed=True)
    assert again.run_of("wandb") == "a1b2"
    assert again.run_of("mlflow") is None
    assert [again.is_new(update) for update in (1, 2, 3, 3)] == [False, False, True, True]
    assert not Told(tmp_path, resumed=True).is_new(3)
    another = Told(tmp_path, resumed=False)
    assert another.run_of("wandb") is None
    assert another.is_new(0)


def test_a_damaged_note_of_what_was_told_makes_a_new_run_there(tmp_path: Path) -> None:
    Told(tmp_path, resumed=False).keep_run("wandb", "a1b2")
    for damaged in ("", "{", '{"runs": 7}', "[]"):
        (tmp_path / FILE).write_text(damaged, encoding="utf-8")
        assert Told(tmp_path, resumed=True).run_of("wandb") is None
