"""Classes added to and removed from an exported folder: as exporting the changed checkpoint."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cliptune import Predictor, evaluate
from cliptune.config import load_settings
from cliptune.data.image_files import find_images
from cliptune.editing.change import add_class, remove_class
from cliptune.errors import CheckpointError, MissingExtra, UserError
from cliptune.inference.export.export import export
from cliptune.inference.export.runner import Exported, read_rgb
from cliptune.inference.export.verify import TOLERANCE
from cliptune.model.checkpoint import read_checkpoint, resolve_checkpoint
from cliptune.training.train import train
from conftest import make_model, make_photos

QUIET: dict[str, Any] = {"progress": False, "device": "cpu"}
HEADS: dict[str, dict[str, Any]] = {
    "fitted": {},
    "text": {"training.recipe": "plain"},
    "linear": {"training.recipe": "plain", "model.head": "linear"},
    "both towers": {"training.recipe": "plain", "lora.towers": "both"},
}


pytestmark = pytest.mark.slow  # each writes several graphs


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of each of the `HEADS` a checkpoint, and what was exported of it; `all/` has a class more."""
    folder = tmp_path_factory.mktemp("exported_classes")
    make_model(folder / "model")
    make_photos(folder / "photos")
    make_photos(folder / "all", classes=("amber", "blue", "cyan", "red"), seed=1)
    for name, changes in HEADS.items():
        overrides: dict[str, Any] = {
            "model.name": str(folder / "model"), "data.data_dir": str(folder / "photos"),
            "data.num_workers": 0, "training.num_epochs": 1, "training.learning_rate": 1e-2,
            "training.batch_size": 8, "training.min_updates": 0,
            "output.output_dir": str(folder / f"run {name}"),
            "output.log_dir": str(folder / "logs"), "hardware.device": "cpu",
            "hardware.mixed_precision": False,
        }  # fmt: skip
        run = train(load_settings(overrides=overrides | changes), progress=False).output_dir
        resolve_checkpoint(run).path.rename(folder / name)
        export(folder / name, folder / f"{name}.onnx", progress=False)
    return folder


def assert_same_export(found: Path, expected: Path, photos: Path) -> None:
    """Classes, answers and priors; and what the graph, the runner and the `Predictor` say."""
    ours, theirs = (read_checkpoint(path).record for path in (found, expected))
    same = {"class_names", "display_names", "prompt_names", "answers", "prior", "history", "head"}
    assert ours.model_dump(include=same) == theirs.model_dump(include=same)
    mine, others = Exported(found), Exported(expected)
    for key in ("classes", "answers", "preprocess", "precision"):
        assert mine.about[key] == others.about[key], key
    paths = list(find_images(photos))
    crops = [mine.crop(read_rgb(path)) for path in paths]
    said, told = mine.answer(crops), others.answer(crops)
    assert said.keys() == told.keys()
    for name in said:
        np.testing.assert_allclose(said[name], told[name], rtol=1e-4, atol=TOLERANCE, err_msg=name)
    for path in paths[:4]:
        a, b = (Predictor(each).predict(path) for each in (found, expected))
        assert a.label == b.label == mine.predict(path)["label"]
        assert a.probability == pytest.approx(b.probability, abs=TOLERANCE)


@pytest.mark.parametrize("head", ["fitted", "text", "linear"])
def test_removing_a_class_from_an_export_is_exporting_the_checkpoint_without_it(
    world: Path, tmp_path: Path, head: str
) -> None:
    change = remove_class(
        world / f"{head}.onnx", "blue", output=tmp_path / "ours", data_dir=world / "all", **QUIET
    )
    removed = remove_class(
        world / head, "blue", output=tmp_path / "removed", data_dir=world / "all", **QUIET
    )
    export(removed.checkpoint.path, tmp_path / "theirs", progress=False)
    assert change.figures == removed.figures
    assert_same_export(tmp_path / "ours", tmp_path / "theirs", world / "all" / "test")


@pytest.mark.parametrize("head", ["fitted", "text"])
@pytest.mark.parametrize("from_photos", [False, True], ids=["prompts", "photos"])
def test_adding_a_class_to_an_export_is_exporting_the_checkpoint_with_it(
    world: Path, tmp_path: Path, head: str, from_photos: bool
) -> None:
    options: dict[str, Any] = QUIET | {
        "images": world / "all" / "train" / "red" if from_photos else None,
        "data_dir": world / "all", "base_model": str(world / "model"), "display_name": "Red!",
    }  # fmt: skip
    change = add_class(world / f"{head}.onnx", "red", output=tmp_path / "ours", **options)
    added = add_class(world / head, "red", output=tmp_path / "added", **options)
    export(added.checkpoint.path, tmp_path / "theirs", progress=False)
    assert change.figures == added.figures
    assert_same_export(tmp_path / "ours", tmp_path / "theirs", world / "all" / "test")


def test_a_class_removed_and_added_again_leaves_an_export_that_is_measured_and_run(
    world: Path, tmp_path: Path
) -> None:
    """By the command line, which names folders beside it; then by its own runner."""
    copy = shutil.copytree(world / "fitted.onnx", tmp_path / "dogs")
    steps = (
        ["remove-class", copy, "cyan"],
        ["add-class", f"{copy}-minus-cyan", "cyan", "--images", world / "photos" / "train" / "cyan",
         "--base-model", world / "model"],
    )  # fmt: skip
    for step in steps:
        command = [sys.executable, "-m", "cliptune", *step, "--device", "cpu"]
        ran = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
        assert ran.returncode == 0, ran.stderr
        assert "Accuracy was not measured" in ran.stdout
    changed = Path(f"{copy}-minus-cyan-plus-cyan")
    measured = evaluate(changed, data_dir=world / "photos", output_dir=None, num_workers=0, **QUIET)
    assert measured.class_names == ("amber", "blue", "cyan")
    assert measured.figures.recall[2] is not None
    assert measured.figures.recall[2].value > 0.5
    photo = next(iter(find_images(world / "photos" / "test" / "cyan")))
    ran = subprocess.run(
        [sys.executable, changed / "run.py", photo], capture_output=True, text=True,
        encoding="utf-8",
    )  # fmt: skip
    expected = Predictor(changed).predict(photo)
    assert json.loads(ran.stdout)["label"] == expected.label
    about = json.loads((changed / "export.json").read_text(encoding="utf-8"))
    assert about["verified"] is None  # it was with other classes
    assert "class 'cyan' removed" in (changed / "README.md").read_text(encoding="utf-8")


def test_what_an_export_lacks_for_a_new_class_is_told(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = tmp_path / "new"
    base = {"base_model": str(world / "model")}
    with pytest.raises(CheckpointError, match=r"text tower.* --base-model"):
        add_class(world / "text.onnx", "red", output=new, **QUIET)
    with pytest.raises(CheckpointError, match="text tower was trained, too"):
        add_class(world / "both towers.onnx", "red", output=new, **base, **QUIET)
    with pytest.raises(CheckpointError, match="linear head"):
        add_class(world / "linear.onnx", "red", output=new, **base, **QUIET)
    with pytest.raises(UserError, match="no class 'red'"):
        remove_class(world / "text.onnx", "red", output=new, **QUIET)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtra, match=r"pip install 'cliptune\[export\]'"):
        remove_class(world / "text.onnx", "blue", output=new, **QUIET)
    assert not list(tmp_path.iterdir())
