"""How sure a figure is: 95 % intervals, and tests of two models on the same photos.

Every interval is for the population the photos were drawn from, each photo independently. Its
coverage was measured by `benchmarks/coverage.py`; the table is `benchmarks/results/coverage.md`.

Shape suffixes: N photos; S any shape, one entry per proportion.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

Z95 = 1.959964  # the normal deviate that leaves 2.5 % on either side
EXACT_BELOW = 25  # discordant photos, below which McNemar's test is exact

Floats = NDArray[np.float64]
Shares = NDArray[np.floating[Any]]
Counts = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval: `low <= value <= high`, all in the figure's own unit."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class McNemar:
    """A test of the hypothesis that two models err on equally many photos."""

    p: float  # two-sided
    method: str  # "exact binomial" or "chi-square"


@overload
def wilson_interval(share: float, count: float, *, z: float = ...) -> tuple[float, float]: ...
@overload
def wilson_interval(
    share: Shares, count: Counts | Shares, *, z: float = ...
) -> tuple[Floats, Floats]: ...
def wilson_interval(
    share: float | Shares, count: float | Counts | Shares, *, z: float = Z95
) -> tuple[float, float] | tuple[Floats, Floats]:
    """The 95 % score interval of a proportion measured on `count` photos; of arrays, of each.

    On no photo it is (0, 1): nothing is known. `count` need not be whole (effective sizes).
    Raises `ValueError` for a share outside 0 to 1 or a negative count.

    Wilson (1927), Journal of the American Statistical Association 22, 209-212.
    """
    share_S, count_S = np.asarray(share, dtype=np.float64), np.asarray(count, dtype=np.float64)
    if not (np.all((share_S >= 0) & (share_S <= 1) | (count_S == 0)) and np.all(count_S >= 0)):
        raise ValueError("a proportion is a share from 0 to 1 of a count of at least 0")
    nothing_S = count_S == 0
    n_S = np.where(nothing_S, 1, count_S)
    share_S = np.where(nothing_S, 0.5, share_S)
    center_S = (share_S + z**2 / (2 * n_S)) / (1 + z**2 / n_S)
    half_S = z * np.sqrt(share_S * (1 - share_S) / n_S + z**2 / (4 * n_S**2)) / (1 + z**2 / n_S)
    # Where all or no photos count, the bound is exact; rounding must not move it.
    low_S = np.where((share_S == 0) | nothing_S, 0, np.maximum(center_S - half_S, 0))
    high_S = np.where((share_S == 1) | nothing_S, 1, np.minimum(center_S + half_S, 1))
    if np.ndim(share) or np.ndim(count):
        return low_S, high_S
    return float(low_S), float(high_S)


def proportion(hits: int, count: int) -> Estimate | None:
    """The share `hits` / `count` with Wilson's interval; None where there is no photo."""
    if count == 0:
        return None
    return Estimate(hits / count, *wilson_interval(hits / count, count))


def mean_interval(values_N: Shares, *, bound: float = math.inf) -> tuple[Floats, Floats]:
    """95 % interval of the mean of figures per photo between 0 and `bound`, along the last axis.

    Losses lean far to the right: a few confident mistakes make most of the mean, and the usual t
    interval then covers as little as 77 % (log loss, 97 % accuracy, 100 photos). This is Hall's
    transformation of the t statistic, which takes its skewness out; it covers 92 to 97 % there.
    BCa covers 82 to 92 %; the studentised bootstrap covers like this one, but on one data
    set in twenty its upper limit is up to 550 times the truth (this one's: 12). Of mistakes too
    rare to be among the photos no interval can know. On fewer than two values: (0, `bound`).
    Measured in `benchmarks/results/coverage-rejected.md`.

    Hall (1992), Journal of the Royal Statistical Society B 54, 221-228, the cubic of section 2.
    """
    from scipy.stats import t as student

    values_N = np.asarray(values_N, dtype=np.float64)
    count = values_N.shape[-1]
    if count < 2:
        low = np.zeros(values_N.shape[:-1])
        return low, low + bound
    mean = values_N.mean(axis=-1)
    centred_N = values_N - mean[..., None]
    variance = (centred_N**2).mean(axis=-1)
    spread = np.sqrt(variance / (count - 1))  # standard error of the mean
    scale = np.sqrt(np.where(variance > 0, variance, 1))
    skewness = ((centred_N / scale[..., None]) ** 3).mean(axis=-1)
    quantile = float(student.ppf(0.975, count - 1))
    low = mean - _unskewed(quantile, skewness, count) * spread
    high = mean - _unskewed(-quantile, skewness, count) * spread
    # Minima and maxima: of values almost all alike, the cubic may bend past the mean itself.
    return np.clip(np.minimum(low, mean), 0, bound), np.clip(np.maximum(high, mean), 0, bound)


def _unskewed(quantile: float, skewness: Floats, count: int) -> Floats:
    """The t that Hall's cubic t + c t^2 + c^2 t^3 / 3 + c / 2 takes to `quantile`."""
    c = skewness / (3 * math.sqrt(count))
    c = np.where(np.abs(c) < 1e-8, 1e-8, c)  # the limit is t = quantile
    root: Floats = (np.cbrt(1 + 3 * c * (quantile - c / 2)) - 1) / c
    return root


def difference_interval(
    only_a_S: Counts | Shares | float,
    only_b_S: Counts | Shares | float,
    count_S: Counts | Shares | float,
) -> tuple[Floats, Floats]:
    """95 % score interval of (share right by A) − (share right by B) on the same photos.

    `only_a_S` and `only_b_S` count the photos that one model alone has right, of `count_S` photos;
    they need not be whole (effective sizes).
    Where Newcombe's method 10 covers up to 100 % when the models nearly agree (97 % accuracy),
    this stays nearer 95 % (mean distance 0.5 against 1.1 points over 63 settings), and it leaves
    0 out exactly when McNemar's chi-square finds p < 0.05.

    Tango (1998), Statistics in Medicine 17, 891-908, solved by bisection.
    """
    b, c, n = (np.asarray(x, dtype=np.float64) for x in (only_a_S, only_b_S, count_S))
    if np.any(n <= 0) or np.any(b + c > n) or np.any(b < 0) or np.any(c < 0):
        raise ValueError("discordant photos are at least 0 and at most all photos")
    value = (b - c) / n
    ends = []
    for side in (1, -1):  # low end: the deviate falls from +Z95 to 0 between it and the value
        inside, outside = value, np.full_like(value, -side)
        for _ in range(60):  # 2 / 2**60: beyond the precision of a float
            middle = (inside + outside) / 2
            is_inside = side * _tango_deviate(b, c, n, middle) <= Z95
            inside = np.where(is_inside, middle, inside)
            outside = np.where(is_inside, outside, middle)
        ends.append(inside)
    return ends[0], ends[1]


def _tango_deviate(b: Floats, c: Floats, n: Floats, difference: Floats) -> Floats:
    """Score statistic of the hypothesis that the shares differ by `difference` (Tango, eq. 2)."""
    linear = -b - c + (2 * n - b + c) * difference
    constant = -c * difference * (1 - difference)
    only_b = (np.sqrt(np.maximum(linear**2 - 8 * n * constant, 0)) - linear) / (4 * n)
    variance = n * (2 * only_b + difference * (1 - difference))
    excess = b - c - n * difference
    # No variance: the hypothesis allows no other outcome than its own.
    certain = np.where(np.abs(excess) < 1e-9, 0, np.sign(excess) * 1e9)
    deviate: Floats = np.where(
        variance > 1e-12, excess / np.sqrt(np.maximum(variance, 1e-12)), certain
    )
    return deviate


def mcnemar(only_a: int, only_b: int) -> McNemar:
    """McNemar's test from the counts of photos that model A alone, and B alone, has right.

    Exact (binomial) below 25 of them, else chi-square *without* continuity correction: corrected,
    it is needlessly conservative (Fagerland, Lydersen, Laake 2013, BMC Medical Research
    Methodology 13:91), and would contradict Tango's interval. No such photo: p = 1.

    McNemar (1947), Psychometrika 12, 153-157.
    """
    from scipy.stats import binomtest, chi2

    total = only_a + only_b
    if total < EXACT_BELOW:
        p = float(binomtest(only_a, total, 0.5).pvalue) if total else 1.0
        return McNemar(p, "exact binomial")
    return McNemar(float(chi2.sf((only_a - only_b) ** 2 / total, 1)), "chi-square")


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """`p_values` of several tests, adjusted: below 0.05, one wrong finding at all is below 5 %.

    The smallest is multiplied by the number of tests, the next by one less, and so on; none may
    come out below one before it. Whether the tests depend on one another makes no difference.

    Holm (1979), Scandinavian Journal of Statistics 6, 65-70.
    """
    count, least = len(p_values), 0.0
    adjusted = [0.0] * count
    for rank, place in enumerate(sorted(range(count), key=lambda i: p_values[i])):
        least = max(least, min(1.0, (count - rank) * p_values[place]))
        adjusted[place] = least
    return tuple(adjusted)
