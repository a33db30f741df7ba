"""Figures on photos that a checkpoint already knows say so, whatever the photos are called."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from cliptune.config import load_settings
from cliptune.editing.change import add_class
from cliptune.errors import CheckpointError
from cliptune.evaluation.comparison.compare import compare
from cliptune.evaluation.comparison.page import comparison_page
from cliptune.evaluation.comparison.text import comparison_summary
from cliptune.evaluation.evaluate import evaluate
from cliptune.evaluation.report_text import summary_text
from cliptune.files import write_sums
from cliptune.model.checkpoint import read_checkpoint
from cliptune.training.train import train
from conftest import make_photos

QUIET: dict[str, Any] = {"num_workers": 0, "device": "cpu", "progress": False, "output_dir": None}
NOT_OF_NEW = "these figures do not tell of new photos"


def run_on(
    folder: Path, model: Path, photos: Path, *, resume: bool = False, **changes: Any
) -> Path:
    """The checkpoint of a run of one epoch."""
    given = {
        "model.name": str(model),
        "data.data_dir": str(photos),
        "data.num_workers": 0,
        "training.num_epochs": 1,
        "training.min_updates": 0,
        "training.val_in_head": "never",
        "training.batch_size": 8,
        "output.output_dir": str(folder / "run"),
        "output.log_dir": str(folder / "logs"),
        "hardware.device": "cpu",
        "hardware.mixed_precision": False,
    }
    train(load_settings(overrides=given | changes), resume=resume, progress=False)
    return folder / "run" / "checkpoint-epoch-1"


@pytest.fixture(scope="module")
def checkpoint(clip_folder: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_on(tmp_path_factory.mktemp("seen"), clip_folder, photos)


@pytest.fixture
def earlier(checkpoint: Path, tmp_path: Path) -> Path:
    """The same as a version made it that kept no sums of photos."""
    path = shutil.copytree(checkpoint, tmp_path / "earlier" / checkpoint.name)
    (path / "photos.safetensors").unlink()
    write_sums(path, leave_out=frozenset({"README.md"}))
    return path


def mixed(photos: Path, folder: Path, *, train: int = 0, val: int = 0) -> Path:
    """Test photos of one class, and so many of train and val among them under other names."""
    target = folder / "mixed" / "test" / "blue"
    shutil.copytree(photos / "test" / "blue", target)
    for split, count in (("train", train), ("val", val)):
        for i, path in enumerate(sorted((photos / split / "blue").iterdir())[:count]):
            shutil.copyfile(path, target / f"holiday {split} {i}.png")
    return folder / "mixed"


def test_evaluation_on_train_says_that_it_tells_nothing_of_new_photos(
    checkpoint: Path, tmp_path: Path
) -> None:
    """On the screen, in the report, on the page, and as numbers in the JSON file."""
    evaluation = evaluate(checkpoint, split="train", **QUIET | {"output_dir": tmp_path})
    expected = f"All 24 photos were trained on: {NOT_OF_NEW}."
    assert expected in " ".join(summary_text(evaluation).split())
    assert expected in " ".join((tmp_path / "evaluation_report.txt").read_text().split())
    assert expected in (tmp_path / "report.html").read_text()
    assert json.loads((tmp_path / "evaluation_results.json").read_text())["seen_photos"] == {
        "num_images": 24, "trained_on": 24, "chosen_by": 0, "known_by": "content",
    }  # fmt: skip


def test_evaluation_on_val_says_that_val_chose_the_checkpoint(checkpoint: Path) -> None:
    said = " ".join(summary_text(evaluate(checkpoint, split="val", **QUIET)).split())
    assert "All 12 photos were used to choose and calibrate the checkpoint" in said


def test_new_photos_need_no_word(checkpoint: Path) -> None:
    evaluation = evaluate(checkpoint, split="test", **QUIET)
    assert evaluation.seen is not None
    assert (evaluation.seen.trained_on, evaluation.seen.chosen_by) == (0, 0)
    assert "trained on" not in summary_text(evaluation)


@pytest.mark.parametrize(
    ("train", "val", "said"),
    [
        (1, 0, "1 of 5 photos was trained on"),
        (3, 0, "3 of 7 photos were trained on"),
        (0, 2, "2 of 6 photos were used to choose"),
        (2, 1, "2 of 7 photos were trained on"),
    ],
)
def test_known_photos_are_found_again_under_other_names(
    checkpoint: Path, photos: Path, tmp_path: Path, train: int, val: int, said: str
) -> None:
    folder = mixed(photos, tmp_path, train=train, val=val)
    evaluation = evaluate(checkpoint, data_dir=folder, **QUIET)
    assert evaluation.seen is not None
    assert (evaluation.seen.trained_on, evaluation.seen.chosen_by) == (train, val)
    text = " ".join(summary_text(evaluation).split())
    assert said in text
    assert NOT_OF_NEW not in text


def test_earlier_checkpoint_goes_by_the_name_of_the_split(
    earlier: Path, photos: Path, tmp_path: Path
) -> None:
    """In the folder it was trained on; of another folder it says that it does not know."""
    own = " ".join(summary_text(evaluate(earlier, split="train", **QUIET)).split())
    assert NOT_OF_NEW in own
    assert "So says the split's name" in own
    moved = shutil.copytree(photos, tmp_path / "elsewhere")
    other = " ".join(summary_text(evaluate(earlier, split="val", data_dir=moved, **QUIET)).split())
    assert "is not known" in other
    test = evaluate(earlier, split="test", **QUIET)
    assert "is not known" not in summary_text(test)
    assert test.to_dict()["seen_photos"]["known_by"] is None


def test_photos_of_training_given_as_unknown_are_counted(
    checkpoint: Path, photos: Path, tmp_path: Path
) -> None:
    strangers = make_photos(tmp_path, classes=("zebra",), counts={"u": 3}, seed=9) / "u"
    shutil.copyfile(photos / "train" / "blue" / "blue_0.png", strangers / "x.png")
    evaluation = evaluate(checkpoint, unknown=strangers, **QUIET)
    text = " ".join(summary_text(evaluation).split())
    assert "1 of 4 photos was trained on or validated on, as photos of its classes" in text
    assert evaluation.to_dict()["seen_unknown_photos"]["trained_on"] == 1


def test_comparison_says_which_model_knows_the_photos(
    checkpoint: Path, clip_folder: Path, photos: Path, tmp_path: Path
) -> None:
    other = run_on(tmp_path, clip_folder, make_photos(tmp_path / "others", seed=5))
    found = compare([checkpoint, other], split="train", data_dir=photos, **QUIET)
    for text in (comparison_summary(found), comparison_page(found)):
        text = " ".join(text.split())
        assert f"A: All 24 photos were trained on: {NOT_OF_NEW}." in text
        assert "B: All" not in text
        assert "A photo that a model was trained on is in its favour." in text
    seen = [model["seen_photos"]["trained_on"] for model in found.to_dict()["models"]]
    assert seen == [24, 0]
    clean = compare([checkpoint, other], data_dir=photos, **QUIET)
    assert "None of them learned from one of these photos" in " ".join(
        comparison_summary(clean).split()
    )


def test_comparison_on_val_says_it_once_for_all_models(checkpoint: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(checkpoint, tmp_path / "checkpoint-epoch-1")
    said = " ".join(comparison_summary(compare([checkpoint, copy], split="val", **QUIET)).split())
    assert said.count("All 12 photos were used to choose") == 1


def test_photos_a_class_was_placed_by_are_known_too(checkpoint: Path, tmp_path: Path) -> None:
    make_photos(tmp_path, classes=("red",), counts={"given": 4}, seed=3)
    added = add_class(
        checkpoint, "red", images=tmp_path / "given" / "red", output=tmp_path / "plus",
        device="cpu", progress=False,
    )  # fmt: skip
    shutil.copytree(tmp_path / "given", tmp_path / "test")
    evaluation = evaluate(added.checkpoint.path, data_dir=tmp_path, **QUIET)
    assert evaluation.seen is not None
    assert evaluation.seen.trained_on == 4


def test_a_resumed_run_knows_the_photos_of_both_parts(clip_folder: Path, tmp_path: Path) -> None:
    data = make_photos(tmp_path / "photos", counts={"train": 4, "val": 2, "test": 2})
    run_on(tmp_path, clip_folder, data)
    kept = shutil.copytree(data / "train", tmp_path / "kept" / "test")
    make_photos(data, counts={"train": 4}, seed=8)  # the same names, other contents
    run_on(tmp_path, clip_folder, data, resume=True, **{"training.num_epochs": 2})
    last = tmp_path / "run" / "checkpoint-epoch-2"
    for split, folder in (("train", data), ("test", kept.parent)):
        evaluation = evaluate(last, split=split, data_dir=folder, **QUIET)
        assert evaluation.seen is not None
        assert evaluation.seen.trained_on == 12


def test_changed_sums_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(checkpoint, tmp_path / "checkpoint-epoch-1")
    (copy / "photos.safetensors").write_bytes(b"none")
    with pytest.raises(CheckpointError, match=r"photos\.safetensors was damaged or changed"):
        read_checkpoint(copy)
