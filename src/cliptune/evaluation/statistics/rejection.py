"""Saying "none of these": thresholds of scores, and what they are worth on unknown photos.

The scores themselves, higher for photos of a known class, are in `cliptune.model.answers`.
Shape suffix: N photos.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliptune.evaluation.statistics.intervals import Estimate, Floats, wilson_interval

Scores = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Threshold:
    """Photos that score `value` or more are taken as known.

    `kept` of the photos it was set on are. Of further known photos like them, each is kept with
    probability `expected` or more (the choice of the photos included); from one set of photos
    to another, the share kept by the threshold set on them lies between `low` and `high` in
    95 % of cases.
    """

    value: float
    kept: float
    expected: float
    low: float
    high: float


def threshold_for_share(scores_known_N: Scores, *, share: float = 0.95) -> Threshold:
    """The highest threshold that keeps at least `share` of the known photos, ties included.

    It is the k-th highest score, k = `share` * N rounded up. A further photo, exchangeable with
    these N, scores as high with probability k / (N + 1) at least (split conformal prediction,
    Vovk et al. 2005); that is less than `share` on few photos. Without ties, the share kept of
    all further photos is distributed as Beta(k, N + 1 - k) over sets of N photos (Wilks 1941,
    Annals of Mathematical Statistics 12, 91-96), whose central 95 % are `low` to `high`.

    Raises `ValueError` without scores, for one that is no number, or a share not in (0, 1].
    """
    from scipy.special import betaincinv  # not scipy.stats, which takes a third of a second

    scores = _checked(scores_known_N)
    if not 0 < share <= 1:
        raise ValueError(f"share {share}: expected more than 0 and at most 1")
    count = len(scores)
    k = max(1, math.ceil(share * count - 1e-9))  # 0.95 * 20 is to be 19, however it rounds
    value = float(np.sort(scores)[count - k])
    low, high = betaincinv(k, count + 1 - k, (0.025, 0.975))
    return Threshold(
        value, float((scores >= value).mean()), k / (count + 1), float(low), float(high)
    )


def auroc(scores_known_N: Scores, scores_unknown_N: Scores) -> float:
    """Share of pairs (known, unknown) in which the known photo scores higher; ties count half.

    Mann & Whitney (1947); 0.5 is chance, 1 separates them fully.
    """
    from sklearn.metrics import roc_auc_score

    known, unknown = _checked(scores_known_N), _checked(scores_unknown_N)
    is_known = np.repeat([True, False], [len(known), len(unknown)])
    return float(roc_auc_score(is_known, np.concatenate([known, unknown])))


def auroc_estimate(
    scores_known_N: Scores, scores_unknown_N: Scores, *, known_groups: int | None = None
) -> Estimate:
    """`auroc` with a 95 % interval that is wide rather than narrow.

    The variance of an AUROC A measured on n and m photos is at most A (1 - A) / min(n, m),
    whatever the scores' distributions (van Dantzig 1951; Birnbaum & Klose 1957, Annals of
    Mathematical Statistics 28, 933-945). So it is no surer than a proportion on min(n, m) photos,
    and has Wilson's interval of one. Known photos of so many groups count as that many.
    """
    share = auroc(scores_known_N, scores_unknown_N)
    fewer = min(known_groups or len(scores_known_N), len(scores_unknown_N))
    return Estimate(share, *wilson_interval(share, fewer))


def false_accept_rate(scores_unknown_N: Scores, threshold: float) -> Estimate:
    """Share of unknown photos taken as known, with Wilson's interval for this threshold."""
    share = float((_checked(scores_unknown_N) >= threshold).mean())
    return Estimate(share, *wilson_interval(share, len(scores_unknown_N)))


def false_accepts_at_share(
    scores_known_N: Scores, scores_unknown_N: Scores, *, share: float = 0.95
) -> Estimate:
    """`false_accept_rate` where `share` of the known photos are kept: "FPR at 95 % TPR".

    The interval takes the threshold as given; that its photos were drawn too is not in it.
    """
    return false_accept_rate(
        scores_unknown_N, threshold_for_share(scores_known_N, share=share).value
    )


def _checked(scores_N: Scores) -> Floats:
    scores = np.asarray(scores_N, dtype=np.float64)
    if not len(scores) or np.isnan(scores).any():
        raise ValueError("scores are to be numbers, and at least one")
    return scores
