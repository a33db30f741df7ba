"""Everything may be moved: a base model is known by its weights, not by where it lies."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from cliptune import Predictor
from cliptune.cli import main
from cliptune.config import Settings, load_settings
from cliptune.errors import CheckpointError, ModelError, SettingsError
from cliptune.evaluation.evaluate import evaluate
from cliptune.model.checkpoint import read_checkpoint
from cliptune.training.train import train
from conftest import make_model, make_photos, tensors

QUIET: dict[str, Any] = {"num_workers": 0, "device": "cpu", "progress": False, "output_dir": None}


def settings_in(place: Path, *, model: str, **changes: Any) -> Settings:
    """A run in the folder `place`, on its photos."""
    given = {
        "model.name": model,
        "data.data_dir": str(place / "photos"),
        "data.num_workers": 0,
        "training.num_epochs": 2,
        "training.min_updates": 0,
        "training.batch_size": 8,
        "output.output_dir": str(place / "run"),
        "output.log_dir": str(place / "logs"),
        "hardware.device": "cpu",
        "hardware.mixed_precision": False,
    }
    return load_settings(overrides=given | changes)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with base model, photos and a run of two epochs."""
    place = tmp_path_factory.mktemp("moved") / "here"
    make_model(place / "clip")
    make_photos(place / "photos")
    train(settings_in(place, model=str(place / "clip")), progress=False)
    return place


@pytest.fixture
def moved(unbroken: Path, tmp_path: Path) -> Path:
    """The project as it was after one epoch, in another place, its model under another name."""
    there = Path(shutil.copytree(unbroken, tmp_path / "there"))
    shutil.rmtree(there / "run" / "checkpoint-epoch-2")
    (there / "clip").rename(there / "base")
    return there


def assert_went_on(place: Path, unbroken: Path) -> None:
    """The run in `place` ended where the unbroken one did."""
    found, expected = (tensors(p / "run" / "checkpoint-epoch-2") for p in (place, unbroken))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_run_goes_on_after_everything_was_moved(moved: Path, unbroken: Path) -> None:
    """The settings still name the old place: `base_model` says where the model is now."""
    settings = settings_in(moved, model=str(moved / "gone"))
    with pytest.raises(ModelError, match="--base-model"):
        train(settings, resume=True, progress=False)
    train(settings, resume=True, progress=False, base_model=str(moved / "base"))
    assert_went_on(moved, unbroken)
    recorded = read_checkpoint(moved / "run" / "checkpoint-epoch-2").record.base_model
    assert recorded.name == str(moved / "base")


def test_run_goes_on_with_the_new_place_in_its_settings(moved: Path, unbroken: Path) -> None:
    train(settings_in(moved, model=str(moved / "base")), resume=True, progress=False)
    assert_went_on(moved, unbroken)


def test_run_does_not_go_on_with_other_weights(moved: Path) -> None:
    other = make_model(moved / "other", seed=1)
    settings = settings_in(moved, model=str(moved / "gone"))
    with pytest.raises(SettingsError, match=r"fingerprint \w+ expected.*--base-model"):
        train(settings, resume=True, progress=False, base_model=str(other))


def test_new_run_takes_the_base_model_of_the_command_line(moved: Path) -> None:
    words = ["train", "--base-model", str(moved / "base"), "--data-dir", str(moved / "photos")]
    words += ["--output-dir", str(moved / "new"), "--device", "cpu", "--set"]
    words += ["training.num_epochs=1", "--set", f"output.log_dir={moved / 'logs'}"]
    main_ends_well([*words, "--set", "data.num_workers=0"])
    recorded = read_checkpoint(moved / "new" / "checkpoint-epoch-1").record.base_model
    assert recorded.name == str(moved / "base")


def main_ends_well(words: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert not end.value.code


def test_a_project_that_moved_as_a_whole_needs_no_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its settings name the base model from where commands are given; its record, the old place."""
    make_model(tmp_path / "a" / "clip")
    make_photos(tmp_path / "a" / "photos")
    monkeypatch.chdir(tmp_path / "a")
    train(settings_in(Path(), model="clip", **{"training.num_epochs": 1}), progress=False)
    before = evaluate("run", **QUIET)
    os.chdir(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    os.chdir(tmp_path / "b")
    after = evaluate("run", **QUIET)
    assert (after.figures, after.baseline) == (before.figures, before.baseline)
    assert Predictor("run").predict("photos/test/blue/blue_0.png").label
    shutil.rmtree("clip")
    with pytest.raises(CheckpointError, match="--base-model"):
        Predictor("run")
    make_model(Path("clip"), seed=3)
    with pytest.raises(CheckpointError, match="trained on other weights"):
        Predictor("run")
