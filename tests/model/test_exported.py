"""An exported folder is a checkpoint: measured, compared, asked for another prior and changed, it
gives what the checkpoint gives that it was made from."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="pip install 'cliptune[export]'")

from cliptune import Prediction, Predictor, compare, evaluate
from cliptune.errors import DataError, DeviceError
from cliptune.inference.export.export import export
from cliptune.inference.export.runner import Exported
from cliptune.inference.export.verify import TOLERANCE
from cliptune.model.checkpoint import Checkpoint, list_checkpoints, resolve_checkpoint
from conftest import make_photos, trained

QUIET: dict[str, Any] = {"num_workers": 0, "device": "cpu", "progress": False}


@pytest.fixture(scope="module")
def found(clip_folder: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return resolve_checkpoint(trained(tmp_path_factory.mktemp("to_export"), clip_folder, photos))


@pytest.fixture(scope="module")
def exported(found: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(found.path, tmp_path_factory.mktemp("exported") / "onnx", progress=False).folder


@pytest.fixture(scope="module")
def harder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of all splits, of other colours than those learned: some answers are wrong."""
    classes = ("amber", "blue", "cyan")
    counts = {"train": 8, "val": 8, "test": 16}
    folder = make_photos(tmp_path_factory.mktemp("harder"), classes=classes, counts=counts, seed=3)
    swapped = folder / "test" / "amber"
    for photo in sorted((folder / "test" / "cyan").glob("*.png"))[:6]:
        photo.rename(swapped / f"moved_{photo.name}")
    return folder


def flat(values: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Each number and text of nested values, by its place."""
    if isinstance(values, dict | list):
        pairs = values.items() if isinstance(values, dict) else enumerate(values)
        for key, value in pairs:
            yield from flat(value, f"{where}/{key}")
    else:
        yield where, values


def assert_equal_within_rounding(found: Any, expected: Any, *, apart: tuple[str, ...]) -> None:
    """All but what stands at places that begin with `apart`; numbers within `TOLERANCE`."""
    ours, theirs = dict(flat(found)), dict(flat(expected))
    assert ours.keys() == theirs.keys()
    for place, value in theirs.items():
        if place.startswith(apart):
            continue
        near = pytest.approx(value, abs=TOLERANCE) if isinstance(value, float) else value
        assert ours[place] == near, place


APART = ("/checkpoint", "/base_model", "/seconds", "/images_per_second")


@pytest.mark.parametrize("split", ["val", "test"])
def test_an_exported_folder_is_measured_as_its_checkpoint_is(
    exported: Path, found: Checkpoint, photos: Path, harder: Path, split: str
) -> None:
    """Every figure of the report, on photos of which some are answered wrong, and unknown ones."""
    options: dict[str, Any] = QUIET | {
        "data_dir": harder, "split": split, "output_dir": None, "baseline": False,
        "unknown": photos / "train" / "cyan", "prior": {"amber": 0.6},
    }  # fmt: skip
    ours, theirs = evaluate(exported, **options), evaluate(found.path, **options)
    assert split == "val" or theirs.accuracy < 1
    assert_equal_within_rounding(ours.to_dict(), theirs.to_dict(), apart=APART)
    np.testing.assert_allclose(
        ours.photos.probabilities_NC, theirs.photos.probabilities_NC, atol=TOLERANCE
    )
    assert (ours.photos.predicted_N == theirs.photos.predicted_N).all()


def test_zero_shot_beside_an_exported_folder_is_that_of_its_base_model(
    exported: Path, found: Checkpoint, clip_folder: Path, photos: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    options: dict[str, Any] = QUIET | {"data_dir": photos, "output_dir": None}
    with caplog.at_level(logging.WARNING):
        without = evaluate(exported, **options)
    assert without.baseline is None
    assert "without zero-shot CLIP" in caplog.text
    assert "--base-model" in caplog.text
    ours = evaluate(exported, base_model=str(clip_folder), **options)
    theirs = evaluate(found.path, **options)
    assert theirs.baseline is not None
    assert_equal_within_rounding(ours.to_dict(), theirs.to_dict(), apart=APART)


def test_photos_made_worse_are_told_by_an_exported_folder_as_by_its_checkpoint(
    exported: Path, found: Checkpoint, tmp_path: Path
) -> None:
    folder = make_photos(tmp_path / "few", counts={"test": 3})
    options: dict[str, Any] = QUIET | {
        "data_dir": folder, "output_dir": None, "corruptions": True, "baseline": False,
    }  # fmt: skip
    ours, theirs = evaluate(exported, **options), evaluate(found.path, **options)
    assert ours.robustness is not None
    assert ours.robustness == theirs.robustness


def test_compared_with_its_checkpoint_an_exported_folder_is_right_on_the_same_photos(
    exported: Path, found: Checkpoint, harder: Path
) -> None:
    made = compare([found.path, exported], data_dir=harder, output_dir=None, **QUIET)
    (pair,) = made.differences
    assert (pair.paired.gained, pair.paired.lost) == ((), ())
    a, b = made.models
    assert a.figures.accuracy.value < 1
    np.testing.assert_allclose(a.probabilities_NC, b.probabilities_NC, atol=TOLERANCE)
    assert a.seen == b.seen
    assert not made.training_folders_differ


def test_exported_folders_compare_as_their_checkpoints_do(
    exported: Path, found: Checkpoint, clip_folder: Path, photos: Path, harder: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    hasty = {"training.recipe": "plain", "training.num_epochs": 1}
    other = resolve_checkpoint(trained(tmp_path, clip_folder, photos, seed=5, **hasty))
    other_exported = export(other.path, tmp_path / "other", progress=False).folder
    options: dict[str, Any] = QUIET | {"data_dir": harder, "output_dir": None}
    ours = compare([exported, other_exported], **options).to_dict()
    theirs = compare([found.path, other.path], **options).to_dict()
    apart = tuple(
        f"/models/{i}/{key}"
        for i in (0, 1)
        for key in ("checkpoint", "base_model", "training_data")
    )
    assert theirs["differences"][0]["only_reference_right"]
    assert_equal_within_rounding(ours, theirs, apart=(*apart, "/seconds"))


PRIORS: list[Any] = ["uniform", {"amber": 0.7}, {"amber": 5, "blue": 1, "cyan": 2}]


@pytest.mark.parametrize("prior", PRIORS)
def test_an_exported_folder_answers_for_a_prior_as_its_checkpoint_does(
    exported: Path, found: Checkpoint, photos: Path, prior: Any
) -> None:
    paths = sorted((photos / "test").rglob("*.png"))
    ours, theirs = (Predictor(each, device="cpu", prior=prior) for each in (exported, found.path))
    assert ours.answers == theirs.answers
    for answer, expected in zip(ours.stream(paths), theirs.stream(paths), strict=True):
        assert isinstance(answer, Prediction)
        assert isinstance(expected, Prediction)
        assert answer.known_score == pytest.approx(expected.known_score, rel=1e-5)
        for mine, others in zip(answer.scores, expected.scores, strict=True):
            assert mine.label == others.label
            assert mine.probability == pytest.approx(others.probability, abs=TOLERANCE)


def test_what_answers_for_an_exported_folder_is_what_its_graph_says(exported: Path) -> None:
    """From its logits by `answered`, and by the graph itself: the same."""
    graph, engine = Exported(exported), Predictor(exported).engine
    height, width = graph.about["preprocess"]["crop"]
    crops = list(np.random.default_rng(0).integers(0, 256, (6, 3, height, width), dtype=np.uint8))
    said, found = graph.answer(crops), engine.answer(crops)
    np.testing.assert_allclose(found.probabilities_NC, said["probabilities"], atol=TOLERANCE)
    assert found.known_scores_N is not None
    np.testing.assert_allclose(found.known_scores_N, said["known_score"], rtol=1e-5)
    assert (found.known_N == said["known"]).all()


def test_an_export_among_a_runs_checkpoints_is_read_by_name_and_never_chosen_for_it(
    exported: Path, found: Checkpoint, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(found.path.parent, tmp_path / "run"))
    before = list_checkpoints(run)
    inside = Path(shutil.copytree(exported, run / "checkpoint-step-999"))
    assert list_checkpoints(run) == before
    assert resolve_checkpoint(run).path.name == found.path.name
    assert resolve_checkpoint(inside).exported


def test_the_report_of_an_exported_folder_names_no_folder_of_training(
    exported: Path, photos: Path, harder: Path, tmp_path: Path
) -> None:
    """By the command line, from photos that lie elsewhere; what it lacks is said."""
    ran = subprocess.run(
        [sys.executable, "-m", "cliptune", "evaluate", "--checkpoint", exported, "--data-dir",
         harder, "--output-dir", tmp_path / "report", "--device", "cpu"],
        capture_output=True, text=True, encoding="utf-8",
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert "without zero-shot" in ran.stderr
    assert "without where the model looked" in ran.stderr
    for path in (tmp_path / "report").iterdir():
        assert str(photos).encode() not in path.read_bytes(), path.name
    results = (tmp_path / "report" / "evaluation_results.json").read_text(encoding="utf-8")
    assert json.loads(results)["baseline"] is None


def test_what_an_exported_folder_does_not_tell_is_asked_for(
    exported: Path, found: Checkpoint, photos: Path
) -> None:
    with pytest.raises(DataError, match="--data-dir FOLDER"):
        evaluate(exported, output_dir=None, **QUIET)
    with pytest.raises(DataError, match="--data-dir FOLDER"):
        compare([found.path, exported], output_dir=None, **QUIET)
    with pytest.raises(DeviceError, match="exported in float32; found 'bf16'"):
        evaluate(exported, data_dir=photos, output_dir=None, precision="bf16", **QUIET)
