"""Scores for "none of these", thresholds and their errors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.metrics import roc_auc_score, roc_curve

from cliptune.evaluation.statistics.intervals import wilson_interval
from cliptune.evaluation.statistics.rejection import (
    auroc,
    auroc_estimate,
    false_accept_rate,
    false_accepts_at_share,
    threshold_for_share,
)
from cliptune.model.answers import class_means, energy_score, max_cosine, max_probability

seeds = st.integers(0, 2**32 - 1)
scores = st.lists(st.integers(-20, 20), min_size=1, max_size=60).map(np.array)  # with ties
shares = st.sampled_from([0.5, 0.9, 0.95, 0.99, 1.0])


@settings(deadline=None)
@given(scores, scores)
def test_auroc_is_that_of_scikit_learn_with_ties_as_half(
    known: np.ndarray, unknown: np.ndarray
) -> None:
    truth = np.r_[np.ones(len(known)), np.zeros(len(unknown))]
    expected = roc_auc_score(truth, np.r_[known, unknown])
    assert auroc(known, unknown) == pytest.approx(expected)
    pairs = (known[:, None] > unknown).mean() + (known[:, None] == unknown).mean() / 2
    assert auroc(known, unknown) == pytest.approx(pairs)


@settings(deadline=None)
@given(scores, scores)
def test_auroc_is_invariant_to_monotone_maps_and_exchanged_sides_add_to_one(
    known: np.ndarray, unknown: np.ndarray
) -> None:
    assert auroc(np.exp(known / 7), np.exp(unknown / 7)) == auroc(known, unknown)
    assert auroc(known, unknown) + auroc(unknown, known) == pytest.approx(1)


@settings(deadline=None)
@given(scores, shares)
def test_a_threshold_keeps_its_share_and_no_higher_one_does(
    known: np.ndarray, share: float
) -> None:
    threshold = threshold_for_share(known, share=share)
    assert threshold.kept == (known >= threshold.value).mean()
    assert threshold.kept >= share - 1e-12
    assert (known > threshold.value).mean() < share
    assert threshold.low <= threshold.expected <= threshold.high


def test_a_threshold_keeps_of_further_photos_what_it_states() -> None:
    rng = np.random.default_rng(0)
    kept = []
    for _ in range(4000):
        threshold = threshold_for_share(rng.uniform(size=50), share=0.9)
        kept.append(1 - threshold.value)  # of uniform scores, the share above
    assert np.mean(kept) == pytest.approx(threshold.expected, abs=0.003)
    inside = (threshold.low <= np.array(kept)) & (np.array(kept) <= threshold.high)
    assert inside.mean() == pytest.approx(0.95, abs=0.015)


def test_a_share_that_is_a_whole_number_of_photos_is_not_rounded_up() -> None:
    for count in (20, 40, 60, 100, 200):
        assert threshold_for_share(np.arange(count), share=0.95).kept == 0.95


@settings(deadline=None)
@given(scores, scores, shares)
def test_false_accepts_are_where_scikit_learns_curve_first_reaches_the_share(
    known: np.ndarray, unknown: np.ndarray, share: float
) -> None:
    truth = np.r_[np.ones(len(known)), np.zeros(len(unknown))]
    false, true, _ = roc_curve(truth, np.r_[known, unknown], drop_intermediate=False)
    accepted = false_accepts_at_share(known, unknown, share=share)
    assert accepted.value == pytest.approx(false[np.argmax(true >= share - 1e-12)])
    assert (accepted.low, accepted.high) == wilson_interval(accepted.value, len(unknown))


def test_lower_thresholds_accept_more() -> None:
    unknown = np.random.default_rng(0).normal(size=100)
    rates = [false_accept_rate(unknown, level).value for level in (-9, -1, 0, 1, 9)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == 1
    assert rates[-1] == 0


@settings(deadline=None)
@given(st.integers(2, 9), seeds)
def test_probability_ignores_a_common_shift_and_energy_follows_it(classes: int, seed: int) -> None:
    logits = np.random.default_rng(seed).normal(size=(7, classes))
    assert max_probability(logits + 5) == pytest.approx(max_probability(logits))
    assert max_probability(logits) == pytest.approx(softmax(logits, axis=1).max(1))
    for temperature in (0.5, 1.0, 3.0):
        energy = energy_score(logits, temperature=temperature)
        shifted = energy_score(logits + 5, temperature=temperature)
        assert shifted == pytest.approx(energy + 5)
        assert (energy >= logits.max(1)).all()
    cold = energy_score(logits, temperature=1e-6)
    assert cold == pytest.approx(logits.max(1), abs=1e-4)  # energy goes to the highest logit


@settings(deadline=None)
@given(st.integers(2, 5), seeds)
def test_cosine_to_the_weights_is_the_highest_logit_over_its_scale(classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    features, weights = rng.normal(size=(8, 6)), rng.normal(size=(classes, 6))
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)  # noqa: E731
    logits = 100 * unit(features) @ unit(weights).T
    assert max_cosine(features, weights) == pytest.approx(logits.max(1) / 100)
    assert max_cosine(3 * features, 0.1 * weights) == pytest.approx(max_cosine(features, weights))


def test_class_means_are_of_length_one_and_zeros_without_photos_count_for_nothing() -> None:
    rng = np.random.default_rng(0)
    labels = np.array([0, 0, 2, 2, 2])
    features = np.eye(4)[labels] + 0.1 * rng.normal(size=(5, 4))
    means = class_means(features, labels, num_classes=4)
    assert means.shape == (4, 4)
    assert np.linalg.norm(means, axis=1) == pytest.approx([1, 0, 1, 0])
    assert class_means(9 * features, labels, num_classes=4) == pytest.approx(means)
    known, unknown = max_cosine(features, means), max_cosine(np.eye(4)[[1, 3]], means)
    assert auroc(known, unknown) == 1


def test_scores_that_are_no_numbers_are_refused() -> None:
    for bad in (np.array([]), np.array([0.1, np.nan])):
        with pytest.raises(ValueError, match="scores"):
            threshold_for_share(bad)
        with pytest.raises(ValueError, match="scores"):
            auroc(np.array([1.0]), bad)
    with pytest.raises(ValueError, match="share"):
        threshold_for_share(np.array([1.0]), share=0)


def test_the_share_expected_and_its_range_are_those_of_the_beta_distribution() -> None:
    from scipy.stats import beta

    scores = np.arange(30)
    found = threshold_for_share(scores, share=0.9)
    assert (found.value, found.kept, found.expected) == (3, 0.9, 27 / 31)
    assert beta(27, 4).cdf([found.low, found.high]) == pytest.approx([0.025, 0.975])
    usual = threshold_for_share(np.arange(40))
    assert usual == threshold_for_share(np.arange(40), share=0.95)
    whole = threshold_for_share(scores, share=1)
    assert (whole.value, whole.kept) == (0, 1)
    assert threshold_for_share(scores, share=1e-12).value == 29  # one photo at least


def test_a_share_past_one_is_refused_in_words() -> None:
    for share in (1.001, -0.5, 0):
        with pytest.raises(ValueError, match=f"^share {share}: expected more than 0 and at most 1"):
            threshold_for_share(np.arange(5), share=share)
    with pytest.raises(ValueError, match=r"^scores are to be numbers, and at least one$"):
        false_accept_rate(np.array([]), 0.5)


def test_an_auroc_is_as_sure_as_a_share_of_the_fewer_photos() -> None:
    for known, unknown in ((np.arange(9), np.arange(4)), (np.arange(3), np.arange(8) - 2)):
        found = auroc_estimate(known, unknown)
        assert found.value == auroc(known, unknown)
        fewer = min(len(known), len(unknown))
        assert (found.low, found.high) == wilson_interval(found.value, fewer)


def test_a_photo_that_scores_just_the_threshold_is_taken_as_known() -> None:
    assert false_accept_rate(np.array([1.0, 2.0, 3.0, 4.0]), 3.0).value == 0.5
    usual = false_accepts_at_share(np.arange(40), np.arange(80) / 2)
    assert usual == false_accepts_at_share(np.arange(40), np.arange(80) / 2, share=0.95)
