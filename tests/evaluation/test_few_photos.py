"""Figures of few photos: the calibration error's laws, and what is not said instead of guessed."""

from __future__ import annotations

import itertools
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, mannwhitneyu

from cliptune.evaluation.comparison.comparison import Comparison, build_differences, build_model
from cliptune.evaluation.comparison.page import comparison_page
from cliptune.evaluation.comparison.text import comparison_text
from cliptune.evaluation.report import Evaluation, build_evaluation
from cliptune.evaluation.report_page import report_page
from cliptune.evaluation.report_text import report_text
from cliptune.evaluation.statistics.figures import compare_paired, full_metrics
from cliptune.evaluation.statistics.intervals import Estimate, mcnemar
from cliptune.evaluation.statistics.rejection import auroc_estimate
from cliptune.evaluation.statistics.reliability import (
    bin_edges,
    bin_means,
    ece_estimate,
    mean_gap,
    plug_in_ece,
    reliability_of,
)
from cliptune.evaluation.unknowns import none_of_these
from cliptune.model.answers import Answers

seeds = st.integers(0, 2**32 - 1)
ANSWERS = Answers(
    temperature=1.0, score="photos", threshold=0.0, share=0.95, kept=1.0, num_images=12
)


def binned(confidence: np.ndarray, correct: np.ndarray, num_bins: int = 15) -> list[np.ndarray]:
    """Confidence, accuracy and photos of the bins that hold any."""
    edges = bin_edges(confidence, num_bins=num_bins, binning="equal-width")
    means = bin_means(confidence, correct, edges)
    return [values[means[2] > 0] for values in means]


def logits_of(confidence: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits of three classes, highest for the next class where not `correct`; labels."""
    labels = np.arange(len(confidence)) % 3
    p = np.repeat((1 - confidence)[:, None] / 2, 3, axis=1)
    p[np.arange(len(labels)), np.where(correct, labels, (labels + 1) % 3)] = confidence
    return np.log(p), labels


def twelve_photos() -> tuple[np.ndarray, np.ndarray]:
    """Eleven right and nearly sure, one wrong at 74 %."""
    return np.append(np.linspace(0.96, 0.999, 11), 0.74), np.arange(12) < 11


def evaluation_of(logits: np.ndarray, labels: np.ndarray, **changes: Any) -> Evaluation:
    facts: dict[str, Any] = {
        "baseline_logits_NC": None, "checkpoint": "run", "base_model": "clip", "data_dir": "data",
        "split": "test", "missing_classes": (), "ignored_classes": (), "skipped_images": (),
        "seconds": 1.0, "answers": ANSWERS, "class_names": ("a", "b", "c"),
    }  # fmt: skip
    return build_evaluation(logits_NC=logits, labels_N=labels, **(facts | changes))


# -- the estimate of the calibration error ------------------------------------------------------


@settings(deadline=None, max_examples=120)
@given(
    st.integers(2, 50), st.integers(1, 15), seeds,
    st.sampled_from(["perfect", "overconfident", "underconfident", "always right", "always wrong"]),
)  # fmt: skip
def test_the_estimate_never_exceeds_what_was_measured(
    photos: int, num_bins: int, seed: int, model: str
) -> None:
    rng = np.random.default_rng(seed)
    confidence = rng.beta(rng.choice([1, 8, 60]), 1, photos)
    right = {
        "perfect": confidence, "overconfident": confidence**3,
        "underconfident": confidence ** (1 / 3), "always right": 1.0, "always wrong": 0.0,
    }[model]  # fmt: skip
    parts = binned(confidence, rng.random(photos) < right, num_bins)
    found = ece_estimate(*parts, seed=seed)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.value <= plug_in_ece(*parts) + 1e-9


def test_of_twelve_photos_the_estimate_is_no_more_than_was_measured() -> None:
    parts = binned(*twelve_photos())
    found = ece_estimate(*parts, seed=0)
    assert plug_in_ece(*parts) == pytest.approx(0.08, abs=0.01)
    assert found.value <= plug_in_ece(*parts)
    assert found.high < 0.35


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 120), seeds)
def test_the_order_of_photos_changes_nothing(photos: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    confidence, order = rng.beta(8, 1, photos), rng.permutation(photos)
    correct = rng.random(photos) < confidence
    one, other = (
        reliability_of(confidence[i], correct[i], seed=seed) for i in (np.arange(photos), order)
    )
    assert one == other


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 40), st.floats(0, 1), st.floats(0, 1))
def test_the_mean_gap_is_the_sum_over_all_outcomes(
    photos: int, confidence: float, true: float
) -> None:
    right = np.arange(photos + 1)
    true = true if true > 1e-300 else 0.0  # scipy's pmf overflows
    expected = binom.pmf(right, photos, true) @ np.abs(right / photos - confidence)
    found = mean_gap(np.array([true]), np.array([confidence]), np.array([photos]))
    assert found[0] == pytest.approx(expected, abs=1e-12)


def test_the_estimate_is_the_error_of_the_model_that_measures_as_much_on_average() -> None:
    confidence, accuracy, count = np.array([0.6, 0.9]), np.array([2 / 6, 6 / 9]), np.array([6, 9])
    measured = plug_in_ece(confidence, accuracy, count)
    found = ece_estimate(confidence, accuracy, count, seed=0).value
    assert 0 < found < measured
    true = confidence + found / measured * (accuracy - confidence)
    mean = 0.0
    for right in itertools.product(range(7), range(10)):
        chance = binom.pmf(right, count, true).prod()
        mean += chance * plug_in_ece(confidence, np.array(right) / count, count)
    assert mean == pytest.approx(measured, abs=1e-7)


@pytest.mark.parametrize(
    ("right", "confidence"), [(50, 0.9), (57, 0.9), (38, 0.5), (30, 0.999), (54, 0.3)]
)
def test_the_ends_of_the_interval_leave_two_and_a_half_percent_outside(
    right: int, confidence: float
) -> None:
    photos = 60
    one = np.array([confidence]), np.array([right / photos]), np.array([photos])
    found = ece_estimate(*one, seed=3)
    measured = plug_in_ece(*one)

    def below(true: float) -> float:
        """Exact share of measurements below the measured one, ties counted half."""
        gap = np.abs(np.arange(photos + 1) / photos - confidence)
        share = (gap < measured - 1e-9) + (np.abs(gap - measured) < 1e-9) / 2
        return float(binom.pmf(np.arange(photos + 1), photos, true) @ share)

    side = 1 if right / photos > confidence else -1
    noise = 0.01  # of 1000 draws: two standard errors; 0.95 or 0.05 lies 0.025 off
    if found.low:
        assert below(confidence + side * found.low) == pytest.approx(0.975, abs=noise)
    else:
        assert below(confidence) <= 0.975 + noise
    highest = [below(c) for s in (-1, 1) if 0 <= (c := confidence + s * found.high) <= 1]
    assert max(highest) == pytest.approx(0.025, abs=noise)


def test_on_endless_photos_a_calibrated_model_has_no_error_and_another_its_own() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.4, 1, 400_000)
    for power, error in ((1, 0.0), (2, np.mean(confidence - confidence**2))):
        correct = rng.random(len(confidence)) < confidence**power
        found = reliability_of(confidence, correct, seed=0).ece_estimate
        assert found is not None
        assert found.value == pytest.approx(error, abs=0.002)
        assert found.low - 0.001 <= error <= found.high


def test_the_estimate_is_nearer_the_truth_than_what_was_measured_of_a_calibrated_model() -> None:
    rng = np.random.default_rng(1)
    found = []
    for seed in range(30):
        confidence = rng.uniform(0.5, 1, 100)
        parts = binned(confidence, rng.random(100) < confidence)
        found.append((plug_in_ece(*parts), ece_estimate(*parts, seed=seed).value))
    measured, estimated = np.mean(found, axis=0)
    assert estimated < measured / 2


# -- what few photos do not tell ----------------------------------------------------------------


def test_twelve_photos_tell_no_calibration_error_anywhere() -> None:
    logits, labels = logits_of(*twelve_photos())
    evaluation = evaluation_of(logits, labels, baseline_logits_NC=logits)
    assert evaluation.figures.ece is None
    text = report_text(evaluation)
    assert "too few photos      too few photos" in text
    assert "needs 50 photos" in " ".join(text.split())
    assert "% before" not in text
    assert max(map(len, text.splitlines())) <= 80
    page = report_page(evaluation)
    assert not re.search(r"calibration error [0-9(]|%</b>calibration", page)
    assert "too few photos" in page
    told = json.loads(json.dumps(evaluation.to_dict(), allow_nan=False))
    for part in (told["figures"], told["baseline"]["figures"], *before_and_after(told)):
        assert part["ece"] is None
        assert "needs 50, and there are 12" in part["too_few_photos"]["ece"]
    assert told["calibration"]["after"]["ece_plug_in"] == pytest.approx(0.08, abs=0.01)


def before_and_after(told: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    return told["calibration"]["before"], told["calibration"]["after"]


@pytest.mark.parametrize(("photos", "known"), [(99, False), (100, True)])
def test_losses_of_few_photos_have_no_interval(photos: int, known: bool) -> None:
    rng = np.random.default_rng(0)
    logits, labels = logits_of(rng.uniform(0.5, 0.99, photos), rng.random(photos) < 0.8)
    evaluation = evaluation_of(logits, labels)
    told = evaluation.to_dict()
    for part in (told["figures"], *before_and_after(told)):
        for name in ("log_loss", "brier"):
            assert math.isfinite(part[name]["value"])
            assert (part[name]["interval_95"] == [None, None]) != known
            assert (name in part["too_few_photos"]) != known
    assert told["figures"]["log_loss"]["value"] == pytest.approx(told["loss"])
    assert ("(?)" in report_text(evaluation)) != known


def test_macro_f1_of_fewer_than_five_photos_of_a_class_has_no_interval() -> None:
    labels = np.repeat(np.arange(3), 5)
    for kept, known in ((15, True), (14, False)):
        found = full_metrics(np.eye(3)[labels[:kept]], labels[:kept], seed=0)
        assert math.isfinite(found.macro_f1.high) == known
        assert found.macro_f1.value == 1
        assert ("macro_f1" in found.too_few_photos) != known
        assert math.isfinite(found.balanced_accuracy.high)


def answers_that_differ(photos: int, differ: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits of a model, and of one wrong on `differ` photos that the first has right; labels."""
    labels = np.arange(photos) % 3
    wrong = np.where(np.arange(photos) < differ, (labels + 1) % 3, labels)
    return np.eye(3)[labels], np.eye(3)[wrong], labels


@pytest.mark.parametrize("differ", [0, 1, 5, 6, 9])
def test_a_p_value_is_given_where_one_below_five_percent_is_possible(differ: int) -> None:
    a, b, labels = answers_that_differ(60, differ)
    possible = differ > 0 and mcnemar(differ, 0).p < 0.05
    found = compare_paired(a, b, labels, seed=0)
    assert (found.mcnemar_p is not None) == possible
    evaluation = evaluation_of(a, labels, baseline_logits_NC=b)
    told = evaluation.to_dict()["paired"]
    assert (told["mcnemar_p"] is not None) == possible
    assert ("mcnemar_p" in told["too_few_photos"]) != possible
    words = " ".join(report_text(evaluation).split())
    page = report_page(evaluation)
    for shown in (words, page):
        assert ("McNemar" in shown) == possible
        assert ("too few photos to tell whether that is chance" in shown) != possible


@pytest.mark.parametrize("differ", [5, 6])
def test_compare_tells_no_models_apart_by_five_photos(tmp_path: Path, differ: int) -> None:
    a, b, labels = answers_that_differ(60, differ)
    models = [
        build_model(x, labels, letter=letter, checkpoint="run", base_model="clip",
                    training_data="data", answers=None)
        for letter, x in (("A", a), ("B", b))
    ]  # fmt: skip
    comparison = Comparison(
        models=tuple(models), differences=build_differences(models, [a, b], labels),
        class_names=("a", "b", "c"), display_names={x: x for x in "abc"}, data_dir=str(tmp_path),
        split="test", missing_classes=(), ignored_classes=(), skipped_images=(),
        paths=tuple(tmp_path / f"{i}.png" for i in range(60)), labels_N=labels, seconds=1.0,
    )  # fmt: skip
    told = comparison.to_dict()["differences"][0]
    assert (told["mcnemar_p"] is None) == (told["holm_p"] is None) == (differ == 5)
    assert ("mcnemar_p" in told["too_few_photos"]) == (differ == 5)
    assert comparison.to_dict()["models"][0]["figures"]["too_few_photos"].keys() == {
        "log_loss", "brier",
    }  # fmt: skip
    text, page = comparison_text(comparison), comparison_page(comparison)
    row = next(line for line in text.splitlines() if line.startswith("  B  ") and ")" in line)
    assert row.endswith("–") == (differ == 5)
    for shown in (" ".join(text.split()), page):
        assert ("Without p: fewer than 6 photos" in shown) == (differ == 5)
    differences = page.split('class="differences"')[1].split("</table>")[0]
    assert ("worse" in differences) == (differ == 6)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 30), st.integers(1, 30), seeds)
def test_an_auroc_is_no_surer_than_a_share_of_the_fewer_photos(
    known: int, unknown: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    scores = np.round(rng.normal(1, 1, known), 1), np.round(rng.normal(size=unknown), 1)
    found = auroc_estimate(*scores)
    assert found.value == pytest.approx(mannwhitneyu(*scores).statistic / (known * unknown))
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found == mirrored(auroc_estimate(*scores[::-1]))


def mirrored(estimate: Estimate) -> Any:
    return Estimate(*(
        pytest.approx(x, abs=1e-9)
        for x in (1 - estimate.value, 1 - estimate.high, 1 - estimate.low)
    ))  # fmt: skip


@pytest.mark.parametrize(("known", "enough"), [(19, False), (20, True)])
def test_which_threshold_keeps_95_percent_takes_twenty_photos(known: int, enough: bool) -> None:
    rng = np.random.default_rng(0)
    scores = {"photos": rng.normal(2, 1, known)}, {"photos": rng.normal(size=3)}
    found = none_of_these(ANSWERS, *scores)  # type: ignore[arg-type]
    told = json.loads(json.dumps(found.to_dict()))
    assert (told["false_accepts_at_share"]["photos"] is not None) == enough
    assert ("false_accepts_at_share" in told["too_few_photos"]) != enough
    low, high = told["auroc_interval_95"]["photos"]
    assert high - low > 0.4  # three strangers
    logits, labels = logits_of(np.full(known, 0.9), np.arange(known) < known - 1)
    evaluation = evaluation_of(logits, labels, none_of_these=found)
    words = " ".join(report_text(evaluation).split())
    assert f"(AUROC {told['auroc']['photos']:.3f} ({low:.3f}–{high:.3f})" in words
    assert "the threshold keeps 100.0 % of the 12 photos of val" in words
    assert "the threshold keeps 100.0 % of the 12 photos of val" in report_page(evaluation)
