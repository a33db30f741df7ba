"""How sure a figure is where photos belong to groups: other groups would be measured next time.

Photos of one patient, animal, camera or video are right and wrong together. Each figure keeps its
interval of independent photos, on as many of them as the groups are worth: their effective number,
from the variance between groups (Kish 1965, Survey Sampling; Korn & Graubard 1998, Survey
Methodology 24, 193-201). `groups_N` None stands for photos that are independent: the usual figures.

Shape suffixes: N photos, G groups.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliptune.evaluation.statistics.few_photos import FOR_LOSSES
from cliptune.evaluation.statistics.intervals import (
    EXACT_BELOW,
    Estimate,
    Floats,
    McNemar,
    difference_interval,
    mcnemar,
    mean_interval,
    proportion,
    wilson_interval,
)

Groups = NDArray[np.int64]
Bools = NDArray[np.bool_]


def num_groups(groups_N: Groups | None) -> int | None:
    """How many groups there are; None where photos are independent."""
    return None if groups_N is None else len(np.unique(groups_N))


def group_sums(values_N: NDArray[Any], groups_N: Groups) -> Floats:
    """(G,) the sum of each group's values, in the order of the groups' numbers."""
    place_N = np.unique(groups_N, return_inverse=True)[1]
    return np.asarray(np.bincount(place_N, values_N), dtype=np.float64)


def widening(groups: int, photos: int) -> float:
    """The factor of a variance between so few groups, estimated on them.

    The ratio of the squared quantiles of Student's t with G - 1 and N - 1 degrees of freedom, as
    Korn & Graubard have it: at G = 5 two times, at 30 one twentieth more.
    """
    from scipy.stats import t as student

    few, many = (float(student.ppf(0.975, max(1, count - 1))) for count in (groups, photos))
    return (few / many) ** 2


def standard_error(values_N: NDArray[Any], groups_N: Groups | None) -> float:
    """Of the mean of two values or more: from sums of groups, where photos belong to some."""
    count = len(values_N)
    if groups_N is None:
        return float(values_N.std(ddof=1)) / math.sqrt(count)
    sums_G = group_sums(values_N - values_N.mean(), groups_N)
    groups = len(sums_G)
    return math.sqrt(groups / max(1, groups - 1) * float((sums_G**2).sum())) / count


def effective_count(values_N: NDArray[Any], groups_N: Groups) -> float:
    """Independent photos whose mean would vary as that of these does, from 1 to N.

    Where no value differs from another, nothing tells how alike photos of a group are, and each
    group counts as one.
    """
    values_N = np.asarray(values_N, dtype=np.float64)
    count, rest_N = len(values_N), values_N - values_N.mean()
    sums_G = group_sums(rest_N, groups_N)
    groups = len(sums_G)
    variance = float((rest_N**2).mean())
    if groups < 2 or variance < 1e-15:
        return float(groups)
    between = groups / (groups - 1) * float((sums_G**2).sum()) / count**2
    if between < 1e-15:
        return float(count)
    return min(max(variance / between / widening(groups, count), 1.0), float(count))


def share_of(hits_N: Bools, groups_N: Groups | None) -> Estimate | None:
    """The share of photos that are hits, with Wilson's interval; None where there is no photo."""
    if groups_N is None or not len(hits_N):
        return proportion(int(hits_N.sum()), len(hits_N))
    share = float(hits_N.mean())
    return Estimate(share, *wilson_interval(share, effective_count(hits_N, groups_N)))


def shares_of_classes(
    hits_N: Bools, labels_N: NDArray[np.integer[Any]], groups_N: Groups | None, *, classes: int
) -> list[Estimate | None]:
    """`share_of` the photos of each class."""
    order_N = np.argsort(labels_N, kind="stable")
    parts = np.split(order_N, np.cumsum(np.bincount(labels_N, minlength=classes))[:-1])
    return [share_of(hits_N[own], None if groups_N is None else groups_N[own]) for own in parts]


def mean_estimate(
    values_N: Floats, groups_N: Groups | None = None, *, bound: float = np.inf
) -> Estimate:
    """The mean of losses from 0 to `bound`, with its 95 % interval if there are enough of them.

    Of groups, that of one number for each, as far from the mean as the group moves it: sums of
    differences from the mean, times G / N.
    """
    value = float(values_N.mean())
    if groups_N is not None:
        sums_G = group_sums(values_N - value, groups_N)
        values_N = value + len(sums_G) / len(values_N) * sums_G
    if len(values_N) < FOR_LOSSES:
        return Estimate(value, -np.inf, np.inf)
    low, high = mean_interval(values_N, bound=bound)
    return Estimate(value, min(float(low), value), max(float(high), value))


def difference_of(only_a_N: Bools, only_b_N: Bools, groups_N: Groups | None) -> Estimate:
    """The share right by A less that by B on the same photos, with Tango's interval."""
    count, only_a, only_b = len(only_a_N), int(only_a_N.sum()), int(only_b_N.sum())
    value, worth = (only_a - only_b) / count, 1.0
    if groups_N is not None:
        worth = effective_count(only_a_N.astype(np.int64) - only_b_N, groups_N) / count
    a, b = only_a * worth, only_b * worth
    low, high = difference_interval(a, b, max(count * worth, a + b))
    return Estimate(value, min(float(low), value), max(float(high), value))


def mcnemar_of(only_a_N: Bools, only_b_N: Bools, groups_N: Groups | None) -> McNemar:
    """McNemar's test; of groups, whether their differences lean to one side.

    chi-square = (sum of d)^2 / sum of d^2, d a group's photos right by A alone less those by B
    alone: Durkalski, Palesch, Lipsitz & Rust (2003), Statistics in Medicine 22, 2417-2428. Below
    25 groups with a difference exact: of all ways to exchange A and B in each group, the share
    that lean as far. Of groups of one photo both are McNemar's test.
    """
    if groups_N is None:
        return mcnemar(int(only_a_N.sum()), int(only_b_N.sum()))
    d_G = leanings(only_a_N, only_b_N, groups_N)
    if len(d_G) < EXACT_BELOW:
        return McNemar(_exact_p(d_G), "exact, by groups")
    from scipy.stats import chi2

    statistic = float(d_G.sum()) ** 2 / float((d_G**2).sum())
    return McNemar(float(chi2.sf(statistic, 1)), "chi-square, by groups")


def leanings(only_a_N: Bools, only_b_N: Bools, groups_N: Groups) -> NDArray[np.int64]:
    """The differences of those groups that lean to one side: photos only A has right, less B."""
    d_G = group_sums(only_a_N.astype(np.int64) - only_b_N, groups_N).round().astype(np.int64)
    result: NDArray[np.int64] = d_G[d_G != 0]
    return result


def _exact_p(d_G: NDArray[np.int64]) -> float:
    chances = np.ones(1)  # of each sum that the signs can give, the lowest first, in steps of 1
    for size in np.abs(d_G):
        step = np.zeros(2 * size + 1)
        step[[0, -1]] = 0.5
        chances = np.convolve(chances, step)
    sums = np.arange(len(chances)) - len(chances) // 2
    return min(1.0, float(chances[np.abs(sums) >= abs(int(d_G.sum()))].sum()))
