"""Saying "none of these": scores that are higher for photos of a known class, and thresholds.

Shape suffixes: N photos, C classes, D numbers of a feature, K directions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliptune.evaluation.intervals import Estimate, Floats, wilson_interval
from cliptune.evaluation.metrics import Labels, Logits

Features = NDArray[np.floating[Any]]
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


def max_probability(logits_NC: Logits) -> Floats:
    """(N,) highest probability of the scaled logits: Hendrycks & Gimpel (2017), section 2."""
    from scipy.special import softmax

    result: Floats = softmax(np.asarray(logits_NC, dtype=np.float64), axis=1).max(axis=1)
    return result


def energy_score(logits_NC: Logits, *, temperature: float = 1.0) -> Floats:
    """(N,) T log sum exp(logits / T), the negative of the energy in Liu et al. (2020), eq. 4."""
    from scipy.special import logsumexp

    logits_NC = np.asarray(logits_NC, dtype=np.float64)
    result: Floats = temperature * logsumexp(logits_NC / temperature, axis=1)
    return result


def max_cosine(features_ND: Features, directions_KD: Features) -> Floats:
    """(N,) highest cosine of a feature with any of the directions; none has more than 1.

    With the head's weights or the text features as directions this is, for a cosine head, the
    highest logit over its scale: "MaxLogit" of Hendrycks et al. (2022), Scaling Out-of-Distribution
    Detection for Real-World Settings. With `class_means` it asks how near the photo is to those
    trained on.
    """
    result: Floats = (_unit(features_ND) @ _unit(directions_KD).T).max(axis=1)
    return result


def class_means(features_ND: Features, labels_N: Labels, *, num_classes: int) -> Floats:
    """(K, D) mean of each class's features, all of length 1; classes without photos have no row."""
    sums_CD = np.zeros((num_classes, features_ND.shape[1]))
    np.add.at(sums_CD, labels_N, _unit(features_ND))
    return _unit(sums_CD[np.bincount(labels_N, minlength=num_classes) > 0])


def threshold_for_share(scores_known_N: Scores, *, share: float = 0.95) -> Threshold:
    """The highest threshold that keeps at least `share` of the known photos, ties included.

    It is the k-th highest score, k = `share` * N rounded up. A further photo, exchangeable with
    these N, scores as high with probability k / (N + 1) at least (split conformal prediction,
    Vovk et al. 2005); that is less than `share` on few photos. Without ties, the share kept of
    all further photos is distributed as Beta(k, N + 1 - k) over sets of N photos (Wilks 1941,
    Annals of Mathematical Statistics 12, 91-96), whose central 95 % are `low` to `high`.

    Raises `ValueError` without scores, for one that is no number, or a share not in (0, 1].
    """
    from scipy.stats import beta

    scores = _checked(scores_known_N)
    if not 0 < share <= 1:
        raise ValueError(f"share {share}: expected more than 0 and at most 1")
    count = len(scores)
    k = max(1, math.ceil(share * count - 1e-9))  # 0.95 * 20 is to be 19, however it rounds
    value = float(np.sort(scores)[count - k])
    low, high = beta.ppf((0.025, 0.975), k, count + 1 - k)
    return Threshold(
        value, float((scores >= value).mean()), k / (count + 1), float(low), float(high)
    )


def auroc(scores_known_N: Scores, scores_unknown_N: Scores) -> float:
    """Share of pairs (known, unknown) in which the known photo scores higher; ties count half.

    Mann & Whitney (1947); 0.5 is chance, 1 separates them fully.
    """
    from scipy.stats import rankdata

    known, unknown = _checked(scores_known_N), _checked(scores_unknown_N)
    ranks = rankdata(np.concatenate([known, unknown]))
    above = ranks[: len(known)].sum() - len(known) * (len(known) + 1) / 2
    return float(above / (len(known) * len(unknown)))


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


def _unit(features_ND: Features) -> Floats:
    """Rows of length 1. A row of zeros stays so: its cosine with anything is 0."""
    features_ND = np.asarray(features_ND, dtype=np.float64)
    length_N1 = np.linalg.norm(features_ND, axis=1, keepdims=True)
    result: Floats = features_ND / np.where(length_N1 > 0, length_N1, 1)
    return result


def _checked(scores_N: Scores) -> Floats:
    scores = np.asarray(scores_N, dtype=np.float64)
    if not len(scores) or np.isnan(scores).any():
        raise ValueError("scores are to be numbers, and at least one")
    return scores
