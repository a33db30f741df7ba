"""Whether a model is right as often as it says: bins of confidence, and the calibration error.

Confidence is the highest probability. Shape suffixes: N photos, C classes, K bins, M noise draws.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cliptune.evaluation.statistics.few_photos import without_value
from cliptune.evaluation.statistics.grouped import Groups, effective_count, num_groups
from cliptune.evaluation.statistics.intervals import Estimate, Floats, wilson_interval
from cliptune.evaluation.statistics.metrics import Labels, Logits

Binning = Literal["equal-width", "equal-mass"]
NOISE_DRAWS = 1000
HALVINGS = 12  # of a range of 1, or as wide as what lies below it: steps of 0.0002
MOST = 2**10  # times the measured gaps
TIE = 1e-12  # measurements that differ by less are the same


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
    it lies above the truth, by much on few photos. `ece_estimate` has that bias taken off, and is
    never above `ece`; it is None of fewer than `few_photos.FOR_ECE` photos, which cannot tell it.
    """

    bins: tuple[Bin, ...]
    binning: str
    ece: float
    ece_estimate: Estimate | None


def reliability(
    logits_NC: Logits,
    labels_N: Labels,
    *,
    seed: int,
    num_bins: int = 15,
    binning: Binning = "equal-width",
    groups_N: Groups | None = None,
) -> Reliability:
    """`reliability_of` the softmax of `logits_NC` (where equal logits: of the first class)."""
    from scipy.special import softmax

    p_NC = softmax(np.asarray(logits_NC, dtype=np.float64), axis=1)
    correct_N = p_NC.argmax(axis=1) == labels_N
    return reliability_of(
        p_NC.max(axis=1), correct_N, seed=seed, num_bins=num_bins, binning=binning,
        groups_N=groups_N,
    )  # fmt: skip


def reliability_of(
    confidence_N: Floats,
    correct_N: NDArray[np.bool_],
    *,
    seed: int,
    num_bins: int = 15,
    binning: Binning = "equal-width",
    groups_N: Groups | None = None,
) -> Reliability:
    """Bins of confidence, each one's accuracy, and the expected calibration error.

    ECE = sum over bins of (photos / N) * |accuracy - mean confidence|: Guo, Pleiss, Sun,
    Weinberger (2017), On Calibration of Modern Neural Networks, eq. 5. Its bins are of equal
    width. Bins of equal mass hold as many photos each as ties allow, from quantiles (Nguyen &
    O'Connor 2015), so fewer than `num_bins` where confidences repeat. Of photos in `groups_N`,
    chance is that of as many photos as the groups are worth.

    Raises `ValueError` without a photo, or for a confidence outside 0 to 1.
    """
    confidence_N = np.asarray(confidence_N, dtype=np.float64)
    if not len(confidence_N):
        raise ValueError("there is no photo to measure")
    if not ((confidence_N >= 0) & (confidence_N <= 1)).all():
        raise ValueError("a confidence is a number from 0 to 1")
    edges = bin_edges(confidence_N, num_bins=num_bins, binning=binning)
    confidence_K, accuracy_K, count_K = bin_means(confidence_N, correct_N, edges)
    worth_K, each = _worth(confidence_N, np.asarray(correct_N), edges, count_K, groups_N)
    low_K, high_K = wilson_interval(accuracy_K, worth_K)
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
    independent = num_groups(groups_N) or len(confidence_N)
    few = "ece" in without_value(independent)
    estimate = None if few else ece_estimate(*parts, seed=seed, each=each)
    words = f"{len(bins)} {binning} bins of the highest probability, each (low, high]"
    return Reliability(bins, words, plug_in_ece(*parts), estimate)


def bin_means(
    confidence_N: Floats, correct_N: NDArray[np.bool_], edges: Floats
) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """(K,) mean confidence, share right, and photos of each bin; zeros where there is no photo."""
    order_N = np.lexsort((correct_N, confidence_N))  # sums do not depend on the photos' order
    confidence_N, correct_N = confidence_N[order_N], np.asarray(correct_N)[order_N]
    bin_N = np.searchsorted(edges[1:-1], confidence_N, side="left")
    count_K = np.bincount(bin_N, minlength=len(edges) - 1)
    photos_K = np.maximum(count_K, 1)
    confidence_K: Floats = np.bincount(bin_N, confidence_N, minlength=len(count_K)) / photos_K
    accuracy_K: Floats = np.bincount(bin_N, correct_N, minlength=len(count_K)) / photos_K
    return confidence_K, accuracy_K, count_K


def _worth(
    confidence_N: Floats,
    correct_N: NDArray[np.bool_],
    edges: Floats,
    count_K: NDArray[np.int64],
    groups_N: Groups | None,
) -> tuple[NDArray[np.int64] | Floats, float]:
    """(K,) how many independent photos those of each bin are worth; and what share of all are."""
    if groups_N is None:
        return count_K, 1.0
    bin_N = np.searchsorted(edges[1:-1], confidence_N, side="left")
    worth_K = np.zeros(len(count_K))
    for k in np.flatnonzero(count_K):
        inside = bin_N == k
        worth_K[k] = effective_count(correct_N[inside], groups_N[inside])
    return worth_K, effective_count(correct_N - confidence_N, groups_N) / len(confidence_N)


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
    confidence_K: Floats,
    accuracy_K: Floats,
    count_K: NDArray[np.int64],
    *,
    seed: int,
    each: float = 1.0,
) -> Estimate:
    """The calibration error of these bins on endless photos, with its 95 % interval.

    A bin's accuracy errs by chance, and |accuracy - confidence| counts that as miscalibration:
    on few photos a perfect model measures several points. `value` is the error of the model that
    would measure, on average, what was measured: "nonlinear bias correction", MacKinnon & Smith
    (1998), Journal of Econometrics 85, 205-230. Its gaps are the measured ones, all shrunk by one
    factor s from 0 to 1; photos are right with their bin's probability, as in the consistency
    resampling of Broecker & Smith (2007), Weather and Forecasting 22, 651-661. Chance adds to an
    absolute value and never takes away (Jensen), so there is such an s, `value` is never above
    the plug-in value, and no photos need be drawn for it.

    The debiased l1 error of Kumar, Liang, Ma (2019), Verified Uncertainty Calibration, adds the
    noise to the measured gaps, which hold it already: of a perfect model's bias it takes off only
    sqrt(2) - 1 = 41 %, and nothing in bins whose photos are all right. Measured side by side, and
    what the interval covers: `benchmarks/results/coverage.md`.

    `low` and `high` are the errors of models of which 97.5 and 2.5 % of the measurements lie below
    the measured one (ties count half). For `high` the gaps are also stretched, and beside them all
    bins taken to be too sure by one amount, whichever reaches further: photos that are all right
    show no gap of that kind. Where even a perfect model would hardly measure so little, `high` is
    that of its median measurement (power-constrained limits: Cowan et al. 2011, arXiv 1105.3166):
    luck says nothing about the error. The interval is conditional on the bins' sizes and
    confidences; it covers the error of these bins, not of other binnings or of each photo.

    A photo is worth `each` independent ones: less than 1 where photos of a group are alike, and
    chance then moves a bin as it moves fewer photos.
    """
    weight_K = count_K / count_K.sum()
    measured = plug_in_ece(confidence_K, accuracy_K, count_K)
    if each < 1:
        count_K = np.maximum(1, np.round(each * count_K)).astype(np.int64)
    gap_K = accuracy_K - confidence_K

    def stretched(factor: float) -> Floats:
        return (confidence_K + factor * gap_K).clip(0, 1)

    def too_sure(amount: float) -> Floats:
        return (confidence_K - amount).clip(0, 1)

    def excess(factor: float) -> float:
        """Mean measurement of a model whose gaps are shrunk by `factor`, less the measured one."""
        return float(weight_K @ mean_gap(stretched(factor), confidence_K, count_K)) - measured

    def drawn(accuracy_K: Floats) -> Floats:
        """(M,) what a model that is right so often measures."""
        rng = np.random.default_rng(seed)  # the same noise, as near as can be, for every model
        drawn_M = np.zeros(NOISE_DRAWS)
        for count, true, confidence, weight in zip(
            count_K, accuracy_K, confidence_K, weight_K, strict=True
        ):  # bin by bin: numpy draws from one distribution three times faster than from many
            right_M = rng.binomial(count, true, NOISE_DRAWS)
            drawn_M += weight * np.abs(right_M / count - confidence)
        return drawn_M

    def share_below(accuracy_K: Floats, than: float) -> float:
        """Share of measurements below `than` of a model that is right so often."""
        drawn_M = drawn(accuracy_K)
        ties_M = np.abs(drawn_M - than) < TIE
        return float((drawn_M < than - TIE).mean() + ties_M.mean() / 2)

    def error_at(share: float, model: Callable[[float], Floats], than: float = measured) -> float:
        """The error of the model of this family of which `share` measures less."""
        found_K = model(_falls_to(share, lambda at: share_below(model(at), than)))
        return float(np.abs(found_K - confidence_K) @ weight_K)

    value = _root(excess) * measured
    low = error_at(0.975, lambda at: stretched(min(at, 1.0)))
    highs = [error_at(0.025, stretched), error_at(0.025, too_sure)]
    if not any(highs):  # less was measured than 97.5 % of perfect models do: luck, no certainty
        usual = float(np.median(drawn(too_sure(0.0))))
        highs.append(error_at(0.025, too_sure, usual))
    return Estimate(value, min(low, value), max(value, *highs))


def mean_gap(true_K: Floats, confidence_K: Floats, count_K: NDArray[np.int64]) -> Floats:
    """Mean |share right - confidence| of `count` photos, each right with probability `true`.

    (true - c) + 2 E[c - X/n]+ for X ~ binomial, in closed form: k P(X = k) = n true P(X' = k - 1),
    X' of one photo less.
    """
    from scipy.special import bdtr  # the binomial distribution function

    most_K = np.floor(count_K * confidence_K)
    below_K = bdtr(most_K, count_K, true_K)
    shorter_K = np.where(most_K > 0, bdtr(np.maximum(most_K - 1, 0), count_K - 1, true_K), 0)
    result: Floats = true_K - confidence_K + 2 * (confidence_K * below_K - true_K * shorter_K)
    return result


def _root(excess: Callable[[float], float]) -> float:
    """Where `excess`, which rises from 0 to 1, is 0; an end where it is on one side throughout."""
    from scipy.optimize import brentq

    if excess(0.0) >= 0:
        return 0.0
    return float(brentq(excess, 0, 1, xtol=1e-9)) if excess(1.0) > 0 else 1.0


def _falls_to(share: float, share_below: Callable[[float], float]) -> float:
    """The place, from 0, at which `share_below`, which falls, reaches `share`."""
    low, high = 0.0, 1.0
    if share_below(low) <= share:
        return low
    while share_below(high) > share:
        if high > MOST:  # every photo is as far off as can be: no further model measures more
            return high
        low, high = high, 2 * high
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if share_below(middle) > share else (low, middle)
    return (low + high) / 2
