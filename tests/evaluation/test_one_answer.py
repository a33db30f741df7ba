"""Whoever asks a checkpoint, the answer is the same: one way leads from logits to answers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cliptune import Predictor, add_class, compare, evaluate
from cliptune.config import load_settings
from cliptune.data.folder import find_images
from cliptune.files import write_sums
from cliptune.model.answers import SCORE_NAMES, Answers, answered, max_cosine
from cliptune.model.checkpoint import MEANS, RECORD, UNSUMMED
from cliptune.training.train import train
from conftest import make_photos

QUIET: dict[str, Any] = {"device": "cpu", "progress": False}
WAYS: dict[str, dict[str, Any] | None] = {
    "as trained": {},
    "factors": {"factors": [0.4, 1.7, 0.9]},
    "without class means": {"score": "energy", "threshold": 2.0},
    "cosine to the weights": {"score": "weights", "threshold": 0.2},
    "without answers": None,
}


@pytest.fixture(scope="module")
def world(clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`best/`, a checkpoint of three classes, and `photos/` with photos of a fourth."""
    folder = tmp_path_factory.mktemp("doors")
    make_photos(folder / "photos", classes=("amber", "blue", "cyan"))
    overrides = {
        "model.name": str(clip_folder), "data.data_dir": str(folder / "photos"),
        "data.num_workers": 0, "training.num_epochs": 1, "training.min_updates": 0,
        "training.batch_size": 8,
        "training.learning_rate": 1e-2, "output.output_dir": str(folder / "run"),
        "output.log_dir": str(folder / "logs"), "hardware.device": "cpu",
        "hardware.mixed_precision": False,
    }  # fmt: skip
    result = train(load_settings(overrides=overrides), progress=False)
    assert result.best is not None
    shutil.copytree(result.best.path, folder / "best")
    make_photos(folder / "more", classes=("amber", "blue", "cyan", "red"), seed=1)
    return folder


def variant(world: Path, folder: Path, name: str) -> Path:
    """A copy of the checkpoint that answers in another of the `WAYS`."""
    checkpoint = Path(shutil.copytree(world / "best", folder / "variant"))
    record = json.loads((checkpoint / RECORD).read_text(encoding="utf-8"))
    change = WAYS[name]
    if change is None:
        del record["answers"]
    else:
        record["answers"] |= change
    if name in ("without class means", "without answers"):
        (checkpoint / MEANS).unlink()
    (checkpoint / RECORD).write_text(json.dumps(record), encoding="utf-8")
    write_sums(checkpoint, leave_out=UNSUMMED)
    return checkpoint


@pytest.mark.parametrize("name", WAYS)
def test_every_door_gives_the_same_answer(world: Path, tmp_path: Path, name: str) -> None:
    checkpoint = variant(world, tmp_path, name)
    photos = world / "photos"
    measured = evaluate(
        checkpoint, data_dir=photos, output_dir=None, num_workers=0, baseline=False, **QUIET
    )
    compared = compare(
        [checkpoint, world / "best"], data_dir=photos, output_dir=None, num_workers=0, **QUIET
    )
    predictor = Predictor(checkpoint, device="cpu")
    found = predictor.predict_batch(list(measured.photos.paths))

    rows = [{s.label: s.probability for s in each.scores} for each in found]
    told_NC = np.array([[row[label] for label in measured.class_names] for row in rows])
    assert told_NC == pytest.approx(measured.photos.probabilities_NC, abs=1e-5)
    assert compared.models[0].probabilities_NC == pytest.approx(told_NC, abs=1e-5)
    scores_N = measured.photos.known_scores_N
    if WAYS[name] is None:
        assert scores_N is None
        assert all(each.known is each.known_score is None for each in found)
    else:
        assert scores_N == pytest.approx([each.known_score for each in found], abs=1e-5)
        assert measured.none_of_these is not None
        kept = np.mean([each.known for each in found])
        assert measured.none_of_these.kept.value == pytest.approx(kept)


@pytest.mark.parametrize("name", WAYS)
def test_figures_of_a_class_added_are_what_its_checkpoint_then_answers(
    world: Path, tmp_path: Path, name: str
) -> None:
    change = add_class(
        variant(world, tmp_path, name), "red", data_dir=world / "more", output=tmp_path / "new",
        split="test", **QUIET,
    )  # fmt: skip
    predictor = Predictor(tmp_path / "new", device="cpu")
    new = predictor.predict_batch(find_images(world / "more" / "test" / "red"))
    others = [
        (each.label, label)
        for label in ("amber", "blue", "cyan")
        for each in predictor.predict_batch(find_images(world / "more" / "test" / label))
    ]
    figures = change.figures
    assert figures is not None
    assert figures.recall is not None
    assert figures.recall.value == pytest.approx(np.mean([each.label == "red" for each in new]))
    assert figures.after.value == pytest.approx(np.mean([a == b for a, b in others]))
    if WAYS[name] is None:
        assert figures.known is None
    else:
        assert figures.known is not None
        assert figures.known.value == pytest.approx(np.mean([bool(each.known) for each in new]))


def answers(**more: Any) -> Answers:
    return Answers(
        temperature=2.0, score="photos", threshold=0.3, share=0.95, kept=1.0, num_images=9
    ).model_copy(update=more)


def test_nothing_stands_in_for_class_means_that_are_missing() -> None:
    rng = np.random.default_rng(0)
    logits, features, weights = rng.normal(size=(5, 3)), rng.normal(size=(5, 8)), np.eye(3, 8)
    with pytest.raises(ValueError, match="class means"):
        answered(answers(), logits, features, weights_CD=weights, means_CD=None)
    for score in set(SCORE_NAMES) - {"photos"}:
        with_means, without = (
            answered(answers(score=score), logits, features, weights_CD=weights, means_CD=means)
            for means in (rng.normal(size=(3, 8)), None)
        )
        assert with_means.known_scores_N is not None
        assert without.known_scores_N == pytest.approx(with_means.known_scores_N)


def test_an_answer_is_known_from_the_threshold_on() -> None:
    features, means = np.eye(3, 8), np.eye(2, 8)
    told = answered(
        answers(threshold=1.0), np.zeros((3, 2)), features, weights_CD=means, means_CD=means
    )
    assert told.known_scores_N == pytest.approx(max_cosine(features, means))
    assert told.known_N is not None
    assert told.known_N.tolist() == [True, True, False]


def test_the_best_of_equal_classes_is_the_first_and_k_may_be_more_than_all() -> None:
    logits = np.array([[0.0, 2.0, 2.0, 1.0]])
    told = answered(None, logits, np.ones((1, 8)), weights_CD=np.ones((4, 8)), means_CD=None)
    assert told.known_N is told.known_scores_N is None
    assert told.best(0, k=2).tolist() == [1, 2]
    assert told.best(0, k=9).tolist() == [1, 2, 3, 0]
    assert told.probabilities_NC.sum(axis=1) == pytest.approx([1])
