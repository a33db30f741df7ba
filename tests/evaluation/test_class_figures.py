"""The figures of single classes: scikit-learn's where it has any, and none where it puts zeros."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import binomtest
from sklearn.metrics import classification_report as scikit_report

from cliptune.evaluation.plots import plot_class_performance
from cliptune.evaluation.report import Evaluation, build_evaluation
from cliptune.evaluation.report_page import report_page
from cliptune.evaluation.report_text import report_text
from cliptune.evaluation.statistics.class_figures import (
    AverageFigures,
    ClassFigures,
    class_figures,
    macro_average,
    weighted_average,
)
from cliptune.evaluation.statistics.intervals import Estimate
from cliptune.evaluation.statistics.metrics import confusion_matrix


def figures_of(labels: np.ndarray, predicted: np.ndarray, classes: int) -> tuple[Any, ...]:
    counts = confusion_matrix(labels, predicted, num_classes=classes)
    return class_figures(counts, [f"breed {i}" for i in range(classes)])


def value(estimate: Estimate | None) -> float | None:
    return None if estimate is None else estimate.value


@given(st.integers(2, 7), st.integers(1, 30), st.integers(0, 1000))
def test_figures_of_classes_are_those_of_scikit_learn_or_none_where_it_is_undefined(
    classes: int, photos: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    labels, predicted = rng.integers(0, classes, (2, photos))
    ours = figures_of(labels, predicted, classes)
    theirs = scikit_report(
        labels, predicted, labels=range(classes), target_names=[each.name for each in ours],
        output_dict=True, zero_division=np.nan,
    )  # fmt: skip
    for label, each in enumerate(ours):
        row = theirs[each.name]
        assert each.support == row["support"] == (labels == label).sum()
        for mine, key in (
            (value(each.precision), "precision"),
            (value(each.recall), "recall"),
            (each.f1, "f1-score"),
        ):
            assert (mine is None) == np.isnan(row[key])
            assert mine is None or mine == pytest.approx(row[key])


@given(st.integers(2, 7), st.integers(1, 30), st.integers(0, 1000))
def test_averages_are_those_of_scikit_learns_report(classes: int, photos: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels, predicted = rng.integers(0, classes, (2, photos))
    ours = figures_of(labels, predicted, classes)
    theirs = scikit_report(
        labels, predicted, labels=range(classes), output_dict=True, zero_division=0
    )
    for average, key in (
        (macro_average(ours), "macro avg"),
        (weighted_average(ours), "weighted avg"),
    ):
        row = theirs[key]
        assert isinstance(average, AverageFigures)
        assert average.support == row["support"] == photos
        assert (average.precision, average.recall, average.f1) == pytest.approx(
            (row["precision"], row["recall"], row["f1-score"])
        )


def test_intervals_of_a_class_are_those_of_its_own_photos_and_answers() -> None:
    labels, predicted = np.array([0, 0, 0, 0, 1, 1]), np.array([0, 0, 0, 1, 1, 0])
    first = figures_of(labels, predicted, 2)[0]
    for estimate, right, count in ((first.recall, 3, 4), (first.precision, 3, 4)):
        ends = binomtest(right, count).proportion_ci(method="wilson")
        assert (estimate.low, estimate.high) == pytest.approx(tuple(ends), abs=1e-6)


def evaluation_of(labels: np.ndarray, predicted: np.ndarray, names: tuple[str, ...]) -> Evaluation:
    return build_evaluation(
        logits_NC=np.eye(len(names))[predicted], labels_N=labels, baseline_logits_NC=None,
        class_names=names, checkpoint="run", base_model="clip", data_dir="data", split="test",
        seconds=1.0,
    )  # fmt: skip


def test_a_figure_that_is_not_defined_is_shown_as_none_and_not_as_zero() -> None:
    # Of "seen" all is known; "unsaid" is never answered; of "absent" there is nothing at all.
    evaluation = evaluation_of(
        np.array([0, 0, 1]), np.array([0, 0, 0]), ("seen", "unsaid", "absent")
    )
    rows = {
        line.split()[0]: line.split()[1:] for line in report_text(evaluation).splitlines() if line
    }
    assert rows["unsaid"][0] == "–"
    assert (rows["unsaid"][1], rows["unsaid"][3]) == ("0.000", "0.000")  # recall, F1
    assert rows["absent"] == ["–", "–", "–", "0"]
    assert rows["macro"][1:] == ["0.222", "0.333", "0.267", "3"]
    page = report_page(evaluation)
    table = page[page.index('<table id="classes">') :].partition("</table>")[0]
    row = table[table.index("<td>absent</td>") :].partition("</tr>")[0]
    assert row.count("–</td>") == 3
    assert evaluation.report["absent"]["f1-score"] == 0  # scikit-learn's own stays what it is


def test_a_picture_of_classes_leaves_out_what_is_not_defined(tmp_path: Path) -> None:
    def drawn(*classes: ClassFigures) -> np.ndarray:
        plot_class_performance(classes, ["a", "b"], tmp_path / "p.png", title="")
        with Image.open(tmp_path / "p.png") as picture:
            return np.asarray(picture.convert("RGB"))

    half = Estimate(0.5, 0.2, 0.8)
    whole = ClassFigures(name="a", precision=half, recall=half, f1=0.5, support=4)
    nothing = ClassFigures(name="b", precision=None, recall=None, f1=None, support=0)
    zero = Estimate(0.0, 0.0, 0.5)
    zeros = ClassFigures(name="b", precision=zero, recall=zero, f1=0.0, support=0)
    green = np.array([0, 158, 115])  # a dot of recall

    def dots(picture: np.ndarray) -> int:
        return int((np.abs(picture.astype(int) - green).max(axis=-1) < 3).sum())

    assert dots(drawn(whole, nothing)) < dots(drawn(whole, zeros))
