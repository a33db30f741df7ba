from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, log_loss, top_k_accuracy_score

from cliptune.evaluation.plots import plot_training_curves
from cliptune.evaluation.report import Evaluation, build_evaluation
from cliptune.evaluation.report_text import report_text
from cliptune.evaluation.statistics.metrics import (
    confusion_matrix,
    cross_entropy,
    most_confused_pairs,
    split_metrics,
    top_k_accuracy,
    wilson_interval,
)
from cliptune.evaluation.writing import write_report


def outcome(
    classes: int, *, photos: int = 100, seed: int = 0, skill: float = 1.5
) -> tuple[np.ndarray, np.ndarray]:
    """(logits, labels) of a model that is right now and then."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, photos)
    logits = rng.normal(size=(photos, classes))
    logits[np.arange(photos), labels] += skill
    return logits, labels


def evaluation_of(classes: int, names: tuple[str, ...] | None = None) -> Evaluation:
    logits, labels = outcome(classes, photos=8 * classes)
    return build_evaluation(
        logits_NC=logits,
        labels_N=labels,
        baseline_logits_NC=outcome(classes, photos=8 * classes, skill=0.5)[0],
        class_names=names or tuple(f"breed_number_{i}" for i in range(classes)),
        checkpoint="run/checkpoint-epoch-1",
        base_model="openai/clip-vit-base-patch32",
        data_dir="data/dogs",
        split="test",
        missing_classes=(),
        ignored_classes=(),
        skipped_images=(),
        seconds=2.0,
    )


@given(st.integers(2, 12), st.integers(0, 1000))
def test_metrics_agree_with_scikit_learn(classes: int, seed: int) -> None:
    logits, labels = outcome(classes, seed=seed)
    metrics = split_metrics(logits, labels)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert metrics.accuracy == accuracy_score(labels, logits.argmax(1))
    assert metrics.loss == pytest.approx(log_loss(labels, p, labels=range(classes)))
    assert (metrics.top5_accuracy is None) == (classes < 5)
    for k in range(1, classes):
        expected = (
            top_k_accuracy_score(labels, logits, k=k, labels=range(classes))
            if classes > 2
            else accuracy_score(labels, logits.argmax(1))
        )
        assert top_k_accuracy(logits, labels, k=k) == pytest.approx(expected)


def test_a_model_that_says_nothing_gets_no_credit() -> None:
    labels = np.array([0, 1, 2, 3, 4, 5])
    assert top_k_accuracy(np.zeros((6, 6)), labels, k=5) == 0
    assert cross_entropy(np.zeros((6, 6)), labels) == pytest.approx(np.log(6))


def test_large_logits_do_not_overflow() -> None:
    assert cross_entropy(np.array([[1e4, 0.0]]), np.array([1])) == pytest.approx(1e4)


@pytest.mark.parametrize(("right", "count"), [(0, 5), (157, 200), (200, 200)])
def test_wilson_interval_is_that_of_scipy(right: int, count: int) -> None:
    expected = binomtest(right, count).proportion_ci(method="wilson")
    assert wilson_interval(right / count, count) == pytest.approx(tuple(expected), abs=1e-6)


def test_most_confused_pairs_are_counted_by_direction() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2])
    predicted = np.array([1, 1, 0, 0, 1, 2])
    matrix = confusion_matrix(labels, predicted, num_classes=4)
    assert matrix.sum() == 6
    first, second = most_confused_pairs(matrix, ("a", "b", "c", "never"))
    assert (first.true_class, first.predicted_class, first.count) == ("a", "b", 2)
    assert first.share == pytest.approx(2 / 3)
    assert (second.true_class, second.predicted_class, second.count) == ("b", "a", 1)


@pytest.mark.parametrize("classes", [2, 10, 120])
def test_the_files_of_a_report_are_written_and_agree(tmp_path: Path, classes: int) -> None:
    evaluation = evaluation_of(classes)
    write_report(evaluation, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "class_performance.png", "confusion_matrix.png", "evaluation_predictions.csv",
        "evaluation_report.txt", "evaluation_results.json", "report.html",
    ]  # fmt: skip
    results = json.loads((tmp_path / "evaluation_results.json").read_text(encoding="utf-8"))
    assert results["accuracy"] == pytest.approx(100 * evaluation.accuracy)
    assert (results["top5_accuracy"] is None) == (classes < 5)
    report = results["classification_report"]
    assert report["accuracy"] == pytest.approx(evaluation.accuracy)
    assert {"macro avg", "weighted avg", "breed_number_0"} <= report.keys()
    assert np.trace(results["confusion_matrix"]) == round(evaluation.accuracy * 8 * classes)
    text = (tmp_path / "evaluation_report.txt").read_text(encoding="utf-8")
    assert max(map(len, text.splitlines())) <= 80
    assert all(f"breed number {i} " in text for i in range(classes))
    for name in ("confusion_matrix.png", "class_performance.png"):
        with Image.open(tmp_path / name) as picture:
            colors = picture.convert("RGB").getcolors(maxcolors=2**24)
        assert colors is not None
        assert len(colors) > 50
        assert max(picture.size) < 5000


def test_a_class_without_photos_has_support_zero() -> None:
    labels = np.array([0, 0, 1])
    logits = np.eye(3)[labels]
    facts = {"checkpoint": "", "base_model": "", "data_dir": "", "split": "test", "seconds": 1.0}
    evaluation = build_evaluation(
        logits_NC=logits, labels_N=labels, baseline_logits_NC=None, class_names=("a", "b", "c"),
        missing_classes=("c",), ignored_classes=("d",), skipped_images=("e.jpg",), **facts,
    )  # fmt: skip
    assert evaluation.report["accuracy"] == 1
    assert evaluation.report["c"]["support"] == 0
    text = report_text(evaluation)
    assert "Classes without a photo in this split" in text
    assert "e.jpg" in text


def test_names_of_any_script_stay_in_their_line_and_raise_no_warning(tmp_path: Path) -> None:
    names = ("金毛寻回犬", "a$b$\nc\x1b[31m", "x" * 60)
    evaluation = evaluation_of(3, names)
    write_report(evaluation, tmp_path)
    text = report_text(evaluation)
    assert "金毛寻回犬" in text
    assert "\x1b" not in text


def test_training_curves_are_drawn(tmp_path: Path) -> None:
    row = {"train_loss": 1.0, "val_loss": 1.1, "train_accuracy": 0.5, "val_accuracy": 0.6}
    history = [{"epoch": epoch} | row for epoch in (1, 2)]
    plot_training_curves(history, tmp_path / "curves.png", baseline_accuracy=0.4)
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width > 600
