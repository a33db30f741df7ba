"""The estimate of the calibration error against its definition, in a case small enough to add up.

With one bin, what a model measures has n + 1 outcomes: their probabilities are added here one by
one, where the estimate draws them. So each end of the interval can be computed exactly.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import binom

from cliptune.evaluation.statistics.reliability import ece_estimate

SEEDS = range(12)


def share_below(true: float, *, confidence: float, measured: float, photos: int) -> float:
    """Share of measurements below `measured` of photos right with probability `true`; ties half."""
    right = np.arange(photos + 1)
    chance = binom.pmf(right, photos, true)
    gap = np.abs(right / photos - confidence)
    tie = np.isclose(gap, measured, rtol=0, atol=1e-9)
    return float(chance[(gap < measured) & ~tie].sum() + chance[tie].sum() / 2)


def mean_measured(true: float, *, confidence: float, photos: int) -> float:
    right = np.arange(photos + 1)
    return float(binom.pmf(right, photos, true) @ np.abs(right / photos - confidence))


def root(falls: Callable[[float], float], most: float) -> float:
    """Where `falls` is 0, or the end of 0 to `most` that is nearest to it."""
    if falls(0) <= 0:
        return 0.0
    return most if falls(most) > 0 else float(brentq(falls, 0, most))


@pytest.mark.parametrize(
    ("confidence", "right", "photos"),
    [(0.8, 130, 200), (0.6, 150, 200), (0.7, 128, 200), (0.1, 60, 200)],
)
def test_value_and_ends_are_the_errors_of_the_models_they_are_said_to_be(
    confidence: float, right: int, photos: int
) -> None:
    gap = right / photos - confidence
    measured = abs(gap)
    way = np.sign(gap)
    found = [
        ece_estimate(np.array([confidence]), np.array([right / photos]), np.array([photos]), seed=s)
        for s in SEEDS
    ]

    def error_of(share: float, way: float, most: float) -> float:
        def falls(error: float) -> float:
            true = min(max(confidence + way * error, 0), 1)
            below = share_below(true, confidence=confidence, measured=measured, photos=photos)
            return below - share

        return root(falls, most)

    low = error_of(0.975, way, measured)
    high = max(error_of(0.025, way, 0.3), error_of(0.025, -1, min(0.3, confidence)))

    def too_little(error: float) -> float:
        return measured - mean_measured(
            confidence + way * error, confidence=confidence, photos=photos
        )

    value = root(too_little, measured)
    assert {one.value for one in found} == {found[0].value}  # nothing of it is drawn
    assert found[0].value == pytest.approx(value, abs=1e-6)
    # The share is of 1000 draws: its error moves an end by about 0.003; the mean of 12, by 0.001.
    # The ends that leave out 5 % on a side in the place of 2.5 % lie 0.01 from these.
    assert np.mean([one.low for one in found]) == pytest.approx(min(low, value), abs=0.004)
    assert np.mean([one.high for one in found]) == pytest.approx(high, abs=0.004)


def test_photos_all_right_may_still_be_too_sure_by_what_no_error_among_them_allows() -> None:
    photos = 200
    found = [
        ece_estimate(np.array([1.0]), np.array([1.0]), np.array([photos]), seed=s) for s in SEEDS
    ]
    assert {(one.value, one.low) for one in found} == {(0.0, 0.0)}
    # Nothing measures less than no gap at all; half of the ties are 2.5 % where p^n = 0.05.
    assert np.mean([one.high for one in found]) == pytest.approx(1 - 0.05 ** (1 / photos), rel=0.1)


def test_bins_weigh_by_their_photos() -> None:
    confidence, right, count = np.array([0.9, 0.6]), np.array([0.6, 0.58]), np.array([1000, 9000])
    found = ece_estimate(confidence, right, count, seed=0)
    assert found.value == pytest.approx(0.1 * 0.3 + 0.9 * 0.02, rel=0.03)
    swapped = ece_estimate(confidence[::-1], right[::-1], count[::-1], seed=0)
    assert swapped.value == pytest.approx(found.value)
    assert (swapped.low, swapped.high) == pytest.approx((found.low, found.high), abs=0.003)


def test_luck_is_no_certainty() -> None:
    """Bins that agree more closely than chance lets them still leave room for an error."""
    confidence, count = np.array([0.5, 0.75, 0.95]), np.array([40, 60, 100])
    exact = ece_estimate(confidence, confidence.copy(), count, seed=0)
    assert exact.value == exact.low == 0
    assert 0.02 < exact.high < 0.2
