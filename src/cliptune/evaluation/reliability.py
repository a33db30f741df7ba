"""Whether a model is right as often as it says: bins of confidence, and the calibration error.

Confidence is the highest probability. Shape suffixes: N photos, C classes, K bins, M noise draws.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cliptune.evaluation.intervals import Estimate, Floats, wilson_interval
from cliptune.evaluation.metrics import Labels, Logits

Binning = Literal["equal-width", "equal-mass"]
NOISE_DRAWS = 1000
HALVINGS = 12  # of the calibration error's range 0 to 1: steps of 0.0002


@dataclass(frozen=True)
class Bin:
    """The photos whose confidence lies in (`low`, `high`]; shares are None where there are none."""

    low: float
    high: float
    count: int
    confidence: float | None  # mean
    accuracy: Estimate | None  # with Wilson's interval


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram in numbers. `binning` says in words how the bins were made.

    `ece` is the expected calibration error as published figures state it (the plug-in value);
    it lies above the truth, by much on few photos. `ece_estimate` is free of that bias.
    """

    bins: tuple[Bin, ...]
    binning: str
    ece: float
    ece_estimate: Estimate


def reliability(
    logits_NC: Logits,
    labels_N: Labels,
    *,
    seed: int,
    num_bins: int = 15,
    binning: Binning = "equal-width",
) -> Reliability:
    """`reliability_of` the softmax of `logits_NC` (where equal logits: of the first class)."""
    from scipy.special import softmax

    p_NC = softmax(np.asarray(logits_NC, dtype=np.float64), axis=1)
    correct_N = p_NC.argmax(axis=1) == labels_N
    return reliability_of(
        p_NC.max(axis=1), correct_N, seed=seed, num_bins=num_bins, binning=binning
    )


def reliability_of(
    confidence_N: Floats,
    correct_N: NDArray[np.bool_],
    *,
    seed: int,
    num_bins: int = 15,
    binning: Binning = "equal-width",
) -> Reliability:
    """Bins of confidence, each one's accuracy, and the expected calibration error.

    ECE = sum over bins of (photos / N) * |accuracy - mean confidence|: Guo, Pleiss, Sun,
    Weinberger (2017), On Calibration of Modern Neural Networks, eq. 5. Its bins are of equal
    width. Bins of equal mass hold as many photos each as ties allow, from quantiles (Nguyen &
    O'Connor 2015), so fewer than `num_bins` where confidences repeat.

    Raises `ValueError` without a photo, or for a confidence outside 0 to 1.
    """
    confidence_N = np.asarray(confidence_N, dtype=np.float64)
    if not len(confidence_N):
        raise ValueError("there is no photo to measure")
    if not ((confidence_N >= 0) & (confidence_N <= 1)).all():
        raise ValueError("a confidence is a number from 0 to 1")
    edges = bin_edges(confidence_N, num_bins=num_bins, binning=binning)
    bin_N = np.searchsorted(edges[1:-1], confidence_N, side="left")
    count_K = np.bincount(bin_N, minlength=len(edges) - 1)
    photos_K = np.maximum(count_K, 1)
    confidence_K = np.bincount(bin_N, confidence_N, minlength=len(count_K)) / photos_K
    accuracy_K = np.bincount(bin_N, correct_N, minlength=len(count_K)) / photos_K
    low_K, high_K = wilson_interval(accuracy_K, count_K)
    bins = tuple(
        Bin(
            float(edges[k]),
            float(edges[k + 1]),
            int(count),
            float(confidence_K[k]) if count else None,
            Estimate(float(accuracy_K[k]), float(low_K[k]), float(high_K[k])) if count else None,
        )
        for k, count in enumerate(count_K)
    )
    full_K = count_K > 0
    parts = confidence_K[full_K], accuracy_K[full_K], count_K[full_K]
    words = f"{len(bins)} {binning} bins of the highest probability, each (low, high]"
    return Reliability(bins, words, plug_in_ece(*parts), ece_estimate(*parts, seed=seed))


def bin_edges(confidence_N: Floats, *, num_bins: int, binning: Binning) -> Floats:
    """Edges from lowest to highest; the first bin holds its low edge too."""
    if num_bins < 1:
        raise ValueError(f"{num_bins} bins: expected at least 1")
    if binning == "equal-width":
        return np.linspace(0, 1, num_bins + 1)
    if binning == "equal-mass":
        edges = np.unique(np.percentile(confidence_N, 100 * np.linspace(0, 1, num_bins + 1)))
        return edges if len(edges) > 1 else np.repeat(edges, 2)
    raise ValueError(f"binning '{binning}': expected equal-width or equal-mass")


def plug_in_ece(confidence_K: Floats, accuracy_K: Floats, count_K: NDArray[np.int64]) -> float:
    """Guo et al. (2017), eq. 5, from the bins."""
    return float(np.abs(accuracy_K - confidence_K) @ count_K / count_K.sum())


def ece_estimate(
    confidence_K: Floats, accuracy_K: Floats, count_K: NDArray[np.int64], *, seed: int
) -> Estimate:
    """The calibration error of these bins on endless photos: median-unbiased, 95 % interval.

    A bin's accuracy errs by chance, and |accuracy - confidence| counts that as miscalibration:
    on few photos a perfect model measures several points. So the measured value is compared with
    what a model of calibration error t would measure: `low`, `value` and `high` are the t at which
    97.5, 50 and 2.5 % of its measurements lie below the measured one (ties count half). That
    model's gaps are the measured ones, all stretched by one factor; photos are right with their
    bin's probability. The interval is conditional on the bins' sizes and confidences: it covers
    the error of these bins, not of other binnings or of each photo.

    The idea of simulating noise and taking it off: Kumar, Liang, Ma (2019), Verified Uncertainty
    Calibration, appendix on debiasing the l1 error; inverting the test is ours, and covers
    90 to 96 % (`benchmarks/results/coverage.md`).
    """
    weight_K = count_K / count_K.sum()
    measured = plug_in_ece(confidence_K, accuracy_K, count_K)
    gap_K = accuracy_K - confidence_K
    # Without any gap its direction is unknown: take overconfidence, which is the rule.
    direction_K = gap_K / measured if measured > 1e-12 else -np.ones_like(gap_K)

    def share_below(error: float) -> float:
        """Share of measurements below `measured` where the calibration error is `error`."""
        true_K = confidence_K + error * direction_K
        # Where no accuracy is that far off (98 % sure and always right), it is to the other side.
        true_K = np.where(
            (true_K > 1) | (true_K < 0), confidence_K - error * direction_K, true_K
        ).clip(0, 1)
        rng = np.random.default_rng(seed)  # the same noise, as near as can be, for every error
        drawn_M = np.zeros(NOISE_DRAWS)
        for count, true, confidence, weight in zip(
            count_K, true_K, confidence_K, weight_K, strict=True
        ):
            right_M = rng.binomial(count, true, NOISE_DRAWS)
            drawn_M += weight * np.abs(right_M / count - confidence)
        ties = np.abs(drawn_M - measured) < 1e-12
        return float((drawn_M < measured - 1e-12).mean() + ties.mean() / 2)

    low, value, high = (_falls_to(share, share_below) for share in (0.975, 0.5, 0.025))
    return Estimate(value, min(low, value), max(high, value))


def _falls_to(share: float, share_below: Callable[[float], float]) -> float:
    """The error from 0 to 1 at which `share_below`, which falls, reaches `share`."""
    if share_below(0.0) <= share:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if share_below(middle) > share else (low, middle)
    return (low + high) / 2
