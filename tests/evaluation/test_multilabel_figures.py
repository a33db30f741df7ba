"""Figures of several labels, beside scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    hamming_loss,
    log_loss,
)

from cliptune.evaluation.statistics.label_answering import (
    fit_label_answers,
    fit_label_temperature,
    fit_threshold,
)
from cliptune.evaluation.statistics.multilabel import (
    average_precisions,
    binary_log_losses,
    drawn_average_precisions,
    mean_ap_gain,
    mean_average_precision,
    multilabel_figures,
    multilabel_metrics,
    resampled,
)
from cliptune.model.label_answers import answered_labels, sigmoid


def drawn(photos: int, *, classes: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(logits, targets) of classes that are told well and badly."""
    rng = np.random.default_rng(seed)
    logits_NC = rng.normal(-1, 2, (photos, classes))
    noise_NC = rng.logistic(size=(photos, classes)) * np.linspace(0.3, 3, classes)
    return logits_NC, logits_NC + noise_NC > 0


def test_average_precision_is_scikit_learns_equal_scores_and_all() -> None:
    logits_NC, targets_NC = drawn(300)
    for scores_NC in (logits_NC, np.round(logits_NC), np.zeros_like(logits_NC)):
        expected = [
            average_precision_score(targets_NC[:, c], scores_NC[:, c])
            for c in range(targets_NC.shape[1])
        ]
        assert average_precisions(targets_NC, scores_NC) == pytest.approx(expected, abs=1e-12)
        assert mean_average_precision(targets_NC, scores_NC) == pytest.approx(np.mean(expected))


def test_a_photo_that_counts_twice_is_two_photos() -> None:
    logits_NC, targets_NC = drawn(40)
    counts_BN = resampled(40, seed=3, draws=5)
    for counts_N, found_C in zip(
        counts_BN, drawn_average_precisions(targets_NC, logits_NC, counts_BN), strict=True
    ):
        places = np.repeat(np.arange(40), counts_N.astype(int))
        assert found_C == pytest.approx(average_precisions(targets_NC[places], logits_NC[places]))


def test_figures_are_scikit_learns() -> None:
    logits_NC, targets_NC = drawn(200)
    shown_NC = logits_NC > -0.3
    figures = multilabel_figures(sigmoid(logits_NC), shown_NC, targets_NC, seed=0, draws=50)
    assert figures.micro_f1.value == pytest.approx(f1_score(targets_NC, shown_NC, average="micro"))
    assert figures.macro_f1.value == pytest.approx(f1_score(targets_NC, shown_NC, average="macro"))
    assert figures.exact.value == pytest.approx(accuracy_score(targets_NC, shown_NC))
    assert figures.hamming.value == pytest.approx(hamming_loss(targets_NC, shown_NC))
    assert [each.f1 for each in figures.classes] == pytest.approx(
        f1_score(targets_NC, shown_NC, average=None)
    )
    assert figures.together_CC.diagonal().tolist() == [each.right for each in figures.classes]
    for estimate in (figures.mean_ap, figures.micro_f1, figures.exact, figures.hamming):
        assert estimate.low < estimate.value < estimate.high


def test_the_loss_is_the_mean_of_scikit_learns_over_classes() -> None:
    logits_NC, targets_NC = drawn(100)
    probabilities_NC = sigmoid(logits_NC)
    each = [log_loss(targets_NC[:, c], probabilities_NC[:, c]) for c in range(6)]
    assert multilabel_metrics(logits_NC, targets_NC).loss == pytest.approx(np.mean(each))
    assert np.isfinite(binary_log_losses(np.array([[1e4, -1e4]]), np.array([[False, True]]))).all()


def test_a_model_gains_nothing_over_itself_and_the_gain_turns_round() -> None:
    logits_NC, targets_NC = drawn(150)
    other_NC = logits_NC + np.random.default_rng(1).normal(0, 2, logits_NC.shape)
    same = mean_ap_gain(logits_NC, logits_NC, targets_NC, seed=0, draws=100)
    assert (same.value, same.low, same.high) == pytest.approx((0, 0, 0))
    one = mean_ap_gain(logits_NC, other_NC, targets_NC, seed=0, draws=100)
    two = mean_ap_gain(other_NC, logits_NC, targets_NC, seed=0, draws=100)
    assert (one.value, one.low) == pytest.approx((-two.value, -two.high))
    assert one.low > 0


def test_intervals_of_mean_average_precision_hold_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    scores, noise = rng.normal(size=(60_000, 4)), rng.normal(size=(60_000, 4))
    targets = scores + 1.2 * noise > 1
    truth, hits = mean_average_precision(targets, scores), 0
    for part in range(100):
        own = slice(part * 200, (part + 1) * 200)
        found = multilabel_figures(scores[own], targets[own], targets[own], seed=part, draws=200)
        hits += found.mean_ap.low <= truth <= found.mean_ap.high
    assert 87 <= hits <= 99


def test_a_temperature_that_was_put_in_is_found_again() -> None:
    rng = np.random.default_rng(0)
    logits_NC = rng.normal(0, 2, (4000, 5))
    targets_NC = rng.random((4000, 5)) < sigmoid(logits_NC)
    assert fit_label_temperature(3 * logits_NC, targets_NC) == pytest.approx(3, rel=0.05)


def test_a_threshold_is_where_f1_is_highest_of_many_photos() -> None:
    rng = np.random.default_rng(0)
    scores_N = rng.random(3000)
    yes_N = rng.random(3000) < scores_N**2
    found = fit_threshold(scores_N, yes_N, resampled(3000, seed=0, draws=100))
    grid = np.linspace(0.01, 0.99, 197)
    f1 = [f1_score(yes_N, scores_N >= threshold) for threshold in grid]
    assert f1_score(yes_N, scores_N >= found.value) > max(f1) - 0.003
    assert found.low is not None
    assert found.high is not None
    assert found.low <= found.value <= found.high
    assert found.photos == yes_N.sum()


def test_a_class_that_no_photo_shows_keeps_one_half_and_says_so() -> None:
    logits_NC, targets_NC = drawn(60)
    targets_NC[:, 2] = False
    answers = fit_label_answers(logits_NC, targets_NC)
    assert answers.thresholds[2].model_dump() == {
        "value": 0.5, "low": None, "high": None, "photos": 0,
    }  # fmt: skip
    answered = answered_labels(answers, logits_NC)
    assert answered.known_N is not None
    assert (answered.known_N == answered.shown_NC.any(axis=1)).all()
    for photo in range(60):
        assert set(answered.shown(photo)) == set(np.flatnonzero(answered.shown_NC[photo]))
