"""Bins of confidence: what each holds, by counting, and what is said of them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from cliptune.evaluation.statistics.intervals import Estimate, wilson_interval
from cliptune.evaluation.statistics.reliability import _falls_to, reliability, reliability_of


def some(photos: int = 90, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    logits = (2 * rng.normal(size=(photos, classes))).astype(np.float16)
    return logits, rng.integers(0, classes, photos)


def test_a_bin_holds_its_photos_or_says_that_there_are_none() -> None:
    confidence = np.array([0.0, 0.25, 0.3, 0.375, 0.5, 0.75])
    correct = np.array([False, True, True, False, True, True])
    found = reliability_of(confidence, correct, seed=0, num_bins=4)
    assert found.binning == "4 equal-width bins of the highest probability, each (low, high]"
    assert [(one.low, one.high) for one in found.bins] == [
        (0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1),
    ]  # fmt: skip
    assert [one.count for one in found.bins] == [2, 3, 1, 0]
    means = [one.confidence for one in found.bins]
    assert means == [0.125, pytest.approx((0.3 + 0.375 + 0.5) / 3), 0.75, None]
    shares = [(1 / 2, 2), (2 / 3, 3), (1.0, 1)]
    expected = [Estimate(share, *wilson_interval(share, count)) for share, count in shares]
    assert [one.accuracy for one in found.bins] == [*expected, None]
    gaps = [2 * 0.375, 3 * (2 / 3 - 1.175 / 3), 0.25]
    assert found.ece == pytest.approx(sum(gaps) / 6)
    assert found.ece_estimate is None


@pytest.mark.parametrize("binning", ["equal-width", "equal-mass"])
def test_logits_are_binned_by_the_highest_of_their_softmax(binning: str) -> None:
    logits, labels = some()
    p = softmax(np.float64(logits), axis=1)
    right = p.argmax(1) == labels
    options = {"seed": 3, "num_bins": 6, "binning": binning}
    by_hand = reliability_of(p.max(1), right, **options)  # type: ignore[arg-type]
    assert reliability(logits, labels, **options) == by_hand  # type: ignore[arg-type]
    assert by_hand.binning.startswith(f"6 {binning} bins")


def test_fifteen_bins_of_equal_width_are_made_unless_others_are_asked_for() -> None:
    logits, labels = some()
    found = reliability(logits, labels, seed=3)
    assert found == reliability(logits, labels, seed=3, num_bins=15, binning="equal-width")
    assert [one.high for one in found.bins] == pytest.approx([(k + 1) / 15 for k in range(15)])
    low = reliability_of(np.full(60, 0.01), np.zeros(60, dtype=bool), seed=0)
    assert [one.count for one in low.bins] == [60] + [0] * 14


def test_confidences_in_single_precision_are_computed_with_in_double() -> None:
    confidence = softmax(some()[0].astype(np.float32), axis=1).max(1)
    right = np.arange(len(confidence)) % 3 > 0
    found, expected = (
        reliability_of(x, right, seed=1, num_bins=7, binning="equal-mass")
        for x in (confidence, confidence.astype(np.float64))
    )
    assert found == expected


def test_edges_between_confidences_in_half_precision_are_not_rounded_to_it() -> None:
    confidence, right = np.array([0.1, 0.9], dtype=np.float16), np.array([True, False])
    found, expected = (
        reliability_of(x, right, seed=1, num_bins=3, binning="equal-mass")
        for x in (confidence, confidence.astype(np.float64))
    )
    assert found == expected


def test_bins_of_equal_mass_have_one_edge_more_than_bins() -> None:
    right = np.ones(8, dtype=bool)
    two = reliability_of(np.repeat([0.5, 0.7], 4), right, seed=0, num_bins=1, binning="equal-mass")
    assert [(one.low, one.high, one.count) for one in two.bins] == [(0.5, 0.7, 8)]
    same = reliability_of(np.full(8, 0.6), right, seed=0, num_bins=5, binning="equal-mass")
    assert [(one.low, one.high, one.count) for one in same.bins] == [(0.6, 0.6, 8)]


def test_what_is_no_confidence_is_refused_and_both_ends_are_taken() -> None:
    for wrong in (-0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match=r"^a confidence is a number from 0 to 1$"):
            reliability_of(np.array([0.5, wrong]), np.array([True, True]), seed=0)
    with pytest.raises(ValueError, match=r"^there is no photo to measure$"):
        reliability_of(np.zeros(0), np.zeros(0, dtype=bool), seed=0)
    ends = reliability_of(np.array([0.0, 1.0]), np.array([False, True]), seed=0)
    assert (ends.ece, ends.bins[0].count, ends.bins[-1].count) == (0, 1, 1)


def test_the_place_where_a_share_is_reached_is_found_to_half_a_step() -> None:
    for place in np.linspace(0, 1.99, 200):
        found = _falls_to(0.5, lambda at, place=place: 0.5 + (place - at) / 8)  # type: ignore[misc]
        assert abs(found - place) <= 2**-13
    assert _falls_to(0.5, lambda at: 0.5 - at) == 0
