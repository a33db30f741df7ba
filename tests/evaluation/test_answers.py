"""How a checkpoint answers: calibrated probabilities, and "none of these"."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cliptune.config import load_settings
from cliptune.data.image_files import find_images
from cliptune.errors import CheckpointError, DataError
from cliptune.evaluation.evaluate import evaluate
from cliptune.evaluation.statistics.answering import fit_answers, held_out_scores
from cliptune.evaluation.statistics.calibration import fit_temperature
from cliptune.files import write_sums
from cliptune.inference.output import open_output
from cliptune.inference.predictor import Predictor
from cliptune.model.answers import (
    SCORE_NAMES,
    Answers,
    class_means,
    known_scores,
    max_cosine,
    softmax,
)
from cliptune.model.checkpoint import MEANS, RECORD, UNSUMMED, read_checkpoint
from cliptune.model.restore import load_answers, load_classifier
from cliptune.training.train import train
from conftest import make_photos


@pytest.fixture(scope="module")
def run_dir(clip_folder: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("answers")
    overrides: dict[str, Any] = {
        "model.name": str(clip_folder),
        "data.data_dir": str(photos),
        "data.num_workers": 0,
        "training.num_epochs": 2,
        "training.min_updates": 0,
        "training.batch_size": 8,
        "output.output_dir": str(folder / "run"),
        "output.log_dir": str(folder / "logs"),
        "hardware.device": "cpu",
        "hardware.mixed_precision": False,
        "evaluation.known_share": 0.9,
    }
    return train(load_settings(overrides=overrides), progress=False).output_dir


def some(seed: int, *, count: int = 60, classes: int = 4) -> tuple[np.ndarray, ...]:
    """Logits, features, labels and weights of a made-up cosine classifier."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(classes, 8))
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, count - classes)])
    features = weights[labels] + rng.normal(size=(count, 8))
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    logits = 10 * unit @ (weights / np.linalg.norm(weights, axis=1, keepdims=True)).T
    return logits, features, labels, weights


@settings(deadline=None, max_examples=20)
@given(
    st.integers(0, 10**6), st.sampled_from([0.5, 0.9, 0.95, 1.0]), st.sampled_from([*SCORE_NAMES])
)
def test_the_threshold_keeps_the_share_asked_for(seed: int, share: float, score: Any) -> None:
    logits, features, labels, weights = some(seed)
    answers = fit_answers(logits, features, labels, weights_CD=weights, share=share, score=score)
    scores = held_out_scores(score, answers.scale(logits), features, labels, weights_CD=weights)
    assert (scores >= answers.threshold).mean() >= share
    assert answers.kept == pytest.approx((scores >= answers.threshold).mean())


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6))
def test_a_photo_is_not_scored_by_a_mean_it_is_part_of(seed: int) -> None:
    logits, features, labels, weights = some(seed, count=12)
    scores = held_out_scores("photos", logits, features, labels, weights_CD=weights)
    for i in range(len(labels)):
        others = np.arange(len(labels)) != i
        means = class_means(features[others], labels[others], num_classes=4)
        assert scores[i] == pytest.approx(max_cosine(features[[i]], means)[0])


def test_a_temperature_changes_no_class_and_photos_all_right_tell_none() -> None:
    logits, features, labels, weights = some(0)
    answers = fit_answers(logits, features, labels, weights_CD=weights)
    assert answers.factors is None
    assert answers.temperature == pytest.approx(fit_temperature(logits, labels).value)
    assert np.array_equal(answers.scale(logits).argmax(1), logits.argmax(1))
    sure = fit_answers(100 * np.eye(4)[labels], features, labels, weights_CD=weights)
    assert (sure.temperature, sure.note) == (1.0, "separable")


def test_factors_for_each_class_need_photos_enough_of_each() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 200)
    logits = 3 * np.eye(4)[labels] + rng.normal(size=(800, 4))
    logits[:, 0] *= 6  # one class far too sure of itself
    features, weights = rng.normal(size=(800, 8)), rng.normal(size=(4, 8))
    many = fit_answers(logits, features, labels, weights_CD=weights)
    assert many.factors is not None
    assert many.factors[0] < min(many.factors[1:])
    few = fit_answers(logits[::20], features[::20], labels[::20], weights_CD=weights)
    assert few.factors is None


def test_probabilities_are_scaled_as_the_checkpoint_says(run_dir: Path, photos: Path) -> None:
    predictor = Predictor(run_dir, device="cpu")
    answers, means = load_answers(read_checkpoint(predictor.checkpoint))
    assert answers is not None
    assert means is not None
    classifier = load_classifier(read_checkpoint(predictor.checkpoint))
    paths = find_images(photos / "test")
    import torch

    from cliptune.data.reading import read_image

    pixels = np.stack([classifier.preprocess.pixels(read_image(path)) for path in paths])
    with torch.inference_mode():
        logits, features = (x.numpy() for x in classifier.answer(torch.from_numpy(pixels)))
    weights = classifier.class_weights().numpy()
    scores = known_scores(
        answers.score, answers.scale(logits), features, weights_CD=weights, means_KD=means
    )
    expected = softmax(answers.scale(logits))
    for i, found in enumerate(predictor.predict_batch(paths)):
        assert found.probability == pytest.approx(expected[i].max(), abs=1e-5)
        assert found.known_score == pytest.approx(scores[i], abs=1e-5)
        assert found.known == (found.known_score >= answers.threshold)


def test_pictures_unlike_the_photos_learned_from_are_told_from_them(
    run_dir: Path, photos: Path, tmp_path: Path
) -> None:
    strangers = tmp_path / "strangers"
    strangers.mkdir()
    rng = np.random.default_rng(0)
    for i in range(12):
        noise = np.repeat(np.repeat(rng.integers(0, 2, (5, 6, 1)), 8, 0), 8, 1) * 255
        pixels = np.broadcast_to(noise, (40, 48, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(strangers / f"{i}.png")
    evaluation = evaluate(
        run_dir, data_dir=photos, unknown=strangers, output_dir=tmp_path / "out", num_workers=0,
        device="cpu", progress=False,
    )  # fmt: skip
    found = evaluation.none_of_these
    assert found is not None
    assert found.auroc is not None
    assert found.num_unknown == 12
    assert found.auroc["photos"] > 0.9
    assert set(found.auroc) == set(SCORE_NAMES)
    told = json.loads((tmp_path / "out" / "evaluation_results.json").read_text())["none_of_these"]
    assert told["auroc"] == found.auroc
    # The command line says the same of each of them as the evaluation says of all.
    predictor = Predictor(run_dir, device="cpu")
    taken = [p.known for p in predictor.predict_batch(find_images(strangers))]
    assert found.false_accepts is not None
    assert np.mean(taken) == pytest.approx(found.false_accepts.value)
    with open_output(tmp_path / "p.csv", top_k=2) as write:
        for prediction in predictor.predict_batch(find_images(strangers)[:3], top_k=2):
            write(prediction)
    text = (tmp_path / "p.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    assert [row["known"] for row in rows] == [str(known).lower() for known in taken[:3]]


def test_unknown_needs_a_folder_with_photos(run_dir: Path, photos: Path, tmp_path: Path) -> None:
    for folder, fault in ((tmp_path / "none", "no such folder"), (tmp_path, "no photos")):
        with pytest.raises(DataError, match=fault):
            evaluate(run_dir, data_dir=photos, unknown=folder, output_dir=None, progress=False)


def copy_of(run_dir: Path, folder: Path) -> Path:
    import shutil

    checkpoint = Predictor(run_dir, device="cpu").checkpoint
    return Path(shutil.copytree(checkpoint, folder / checkpoint.name))


def rewrite(checkpoint: Path, **changes: Any) -> None:
    """Change `cliptune.json`; None takes a key away."""
    record = json.loads((checkpoint / RECORD).read_text(encoding="utf-8")) | changes
    record = {key: value for key, value in record.items() if value is not None}
    (checkpoint / RECORD).write_text(json.dumps(record), encoding="utf-8")
    write_sums(checkpoint, leave_out=UNSUMMED)


def test_a_checkpoint_of_an_earlier_version_answers_without_scaling(
    run_dir: Path, photos: Path, tmp_path: Path
) -> None:
    old = copy_of(run_dir, tmp_path)
    (old / MEANS).unlink()
    rewrite(old, answers=None, display_names=None, prompt_names=None)
    path = find_images(photos / "test")[0]
    before, now = Predictor(old, device="cpu"), Predictor(run_dir, device="cpu")
    prediction = before.predict(path)
    assert prediction.known is prediction.known_score is None
    assert prediction.label == now.predict(path).label
    evaluation = evaluate(
        old, data_dir=photos, output_dir=tmp_path / "out", num_workers=0, device="cpu",
        progress=False,
    )  # fmt: skip
    assert evaluation.answers is evaluation.none_of_these is None
    assert evaluation.figures.log_loss == evaluation.before_scaling.log_loss


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"score": "guess"}, "score"),
        ({"factors": [1.0]}, "1 factors for 3 classes"),
    ],
)
def test_answers_that_fit_nothing_are_refused(
    run_dir: Path, tmp_path: Path, changes: dict[str, Any], fault: str
) -> None:
    checkpoint = copy_of(run_dir, tmp_path)
    answers = json.loads((checkpoint / RECORD).read_text(encoding="utf-8"))["answers"]
    rewrite(checkpoint, answers=answers | changes)
    with pytest.raises(CheckpointError, match=fault):
        load_answers(read_checkpoint(checkpoint))


def test_means_that_are_missing_or_of_other_classes_are_refused(
    run_dir: Path, tmp_path: Path
) -> None:
    from safetensors.numpy import save_file

    checkpoint = copy_of(run_dir, tmp_path)
    save_file({"means": np.zeros((7, 24), np.float32)}, checkpoint / MEANS)
    write_sums(checkpoint, leave_out=UNSUMMED)
    with pytest.raises(CheckpointError, match="no finite means of 3 classes"):
        load_answers(read_checkpoint(checkpoint))
    (checkpoint / MEANS).unlink()
    write_sums(checkpoint, leave_out=UNSUMMED)
    with pytest.raises(CheckpointError, match="missing"):
        load_answers(read_checkpoint(checkpoint))


def test_answers_survive_their_record() -> None:
    answers = Answers(
        temperature=1.5, factors=(0.5, 2.0), note="x", score="energy", threshold=-3.5, share=0.95,
        kept=0.96, num_images=25,
    )  # fmt: skip
    assert Answers.model_validate_json(answers.model_dump_json()) == answers


def test_a_class_without_val_photos_has_no_mean_and_answers_are_fitted_all_the_same(
    clip_folder: Path, tmp_path: Path, overrides: dict[str, Any]
) -> None:
    data = make_photos(tmp_path / "data")
    import shutil

    shutil.rmtree(data / "val" / "blue")
    result = train(
        load_settings(overrides=overrides | {"data.data_dir": str(data)}), progress=False
    )
    assert result.best is not None
    answers, means = load_answers(result.best)
    assert answers is not None
    assert means is not None
    assert np.linalg.norm(means, axis=1) == pytest.approx([1, 0, 1])


def test_corruptions_are_measured_beside_zero_shot_when_asked_for(
    run_dir: Path, photos: Path, tmp_path: Path
) -> None:
    from cliptune.evaluation.report_text import summary_text

    evaluation = evaluate(
        run_dir, data_dir=photos, corruptions=True, output_dir=tmp_path, num_workers=0,
        device="cpu", progress=False,
    )  # fmt: skip
    worse = evaluation.robustness
    assert worse is not None
    assert evaluation.baseline is not None
    assert worse.untouched == pytest.approx((evaluation.accuracy, evaluation.baseline.accuracy))
    told = json.loads((tmp_path / "evaluation_results.json").read_text(encoding="utf-8"))
    assert told["robustness"] == json.loads(json.dumps(worse.to_dict()))
    assert (tmp_path / "robustness.png").stat().st_size > 10_000
    assert "made worse in 7 ways" in summary_text(evaluation).replace("\n", " ")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "On worse photos" in page
    assert "cliptune evaluate" not in page  # no command was given


def test_the_page_shows_the_line_of_the_command_that_made_it(
    run_dir: Path, photos: Path, tmp_path: Path
) -> None:
    from typer.testing import CliRunner

    from cliptune.cli import app

    out = tmp_path / "out"
    line = ["evaluate", "--checkpoint", str(run_dir), "--data-dir", str(photos), "--split", "val"]
    line += ["--batch-size", "5", "--on-bad-image", "skip", "--device", "cpu"]
    done = CliRunner().invoke(app, [*line, "--no-baseline", "--output-dir", str(out)])
    assert done.exit_code == 0, done.output
    page = (out / "report.html").read_text(encoding="utf-8")
    shown = " ".join(["cliptune", *line, "--no-baseline"])
    assert f"<pre>{shown}</pre>" in page
    evaluate(
        run_dir, output_dir=out, num_workers=0, baseline=False, device="cpu", progress=False,
        command="my own <line>",
    )  # fmt: skip
    assert "<pre>my own &lt;line&gt;</pre>" in (out / "report.html").read_text(encoding="utf-8")
