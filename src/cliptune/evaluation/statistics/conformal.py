"""Prediction sets and the deepest class to be sure of: fitted on validation photos, and measured.

Shape suffixes: N photos, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cliptune.data.parents import Parents
from cliptune.evaluation.statistics.grouped import mean_estimate
from cliptune.evaluation.statistics.intervals import Estimate, Floats, proportion
from cliptune.evaluation.statistics.metrics import Labels
from cliptune.model.conformal import PredictionSets, SureClass, conformal_rank, more_probable

# The photo whose score is the limit has its class in its set however its score is rounded: in
# batches of another size, in float32, by another program.
ROUNDING = 1e-6


@dataclass(frozen=True, kw_only=True)
class SizeFigures:
    """The photos whose sets have `size` classes, and the share of them that hold the right one."""

    size: int
    num_images: int
    coverage: Estimate


@dataclass(frozen=True, kw_only=True)
class ClassSets:
    """Of the photos of one class: how often their sets hold it, and their mean size."""

    num_images: int
    coverage: Estimate
    mean_size: float


@dataclass(frozen=True, kw_only=True)
class SetFigures:
    """What prediction sets are worth on labelled photos. Coverages are fractions of 1.

    `classes` are in the checkpoint's order, None for those without photos.
    """

    coverage: Estimate
    mean_size: Estimate
    sizes: tuple[SizeFigures, ...]  # that there are, the smallest first
    classes: tuple[ClassSets | None, ...]


def fit_sets(
    probabilities_NC: Floats, labels_N: Labels, *, coverage: float
) -> PredictionSets | None:
    """Sets that hold the right class of further photos at this rate; None of too few photos.

    The scores are the probabilities of the classes before the right one, the `limit` is one of them
    (`conformal_rank`), and `ROUNDING` more. A further photo, exchangeable with these and the
    classifier chosen without them, has its right class in its set at that rate or more, by less
    than 1 / (N + 1) but for ties: where more photos than that have their right class first, all
    those are in.
    """
    scores_N = np.take_along_axis(more_probable(probabilities_NC), labels_N[:, None], axis=1)[:, 0]
    rank = conformal_rank(coverage, len(scores_N))
    if rank > len(scores_N):
        return None
    limit = float(np.sort(scores_N)[rank - 1]) + ROUNDING
    return PredictionSets(
        coverage=coverage, limit=limit, kept=float((scores_N <= limit).mean()),
        num_images=len(scores_N),
    )  # fmt: skip


def fit_sure(
    probabilities_NC: Floats, labels_N: Labels, parents: Parents, *, share: float
) -> SureClass | None:
    """How sure is sure, for answers right at this rate; None of too few photos.

    The score of a photo is the probability of the highest node on the way up that is wrong: a
    limit below it lets that one, or one below, be the answer, and from it on the answer is right.
    So the guarantee is that of `fit_sets`.
    """
    way_NL, p_NL = parents.way(probabilities_NC)
    wrong_NL = ~parents.member_MC[way_NL, labels_N[:, None]]
    scores_N = np.where(wrong_NL, p_NL, 0).max(axis=1)
    rank = conformal_rank(share, len(scores_N))
    if rank > len(scores_N):
        return None
    limit = float(np.sort(scores_N)[rank - 1]) + ROUNDING
    return SureClass(
        share=share, limit=limit, kept=float((scores_N <= limit).mean()), num_images=len(scores_N)
    )


def coverage_range(rate: float, count: int) -> tuple[float, float]:
    """Between which rates the promise of `rate` on `count` photos is kept, in 95 % of cases.

    Without ties the rate on all further photos is distributed as Beta(k, n + 1 - k) over sets of n
    photos, of which the k-th score is the limit (Vovk 2012, Conditional validity of inductive
    conformal predictors, section 3).
    """
    from scipy.special import betaincinv

    rank = conformal_rank(rate, count)
    low, high = betaincinv(rank, count + 1 - rank, (0.025, 0.975))
    return float(low), float(high)


def set_figures(in_set_NC: NDArray[np.bool_], labels_N: Labels) -> SetFigures:
    """Coverage and size of sets (N, C), for all, by size and by class. There is a photo or more."""
    covered_N = np.take_along_axis(in_set_NC, labels_N[:, None], axis=1)[:, 0]
    size_N = in_set_NC.sum(axis=1)
    sizes = [
        SizeFigures(size=int(size), num_images=int((size_N == size).sum()),
                    coverage=_share(covered_N[size_N == size]))
        for size in np.unique(size_N)
    ]  # fmt: skip
    classes = [
        ClassSets(num_images=int(own_N.sum()), coverage=_share(covered_N[own_N]),
                  mean_size=float(size_N[own_N].mean()))
        if (own_N := labels_N == label).any() else None
        for label in range(in_set_NC.shape[1])
    ]  # fmt: skip
    return SetFigures(
        coverage=_share(covered_N),
        mean_size=mean_estimate(size_N.astype(np.float64), bound=in_set_NC.shape[1]),
        sizes=tuple(sizes),
        classes=tuple(classes),
    )


def _share(hits: NDArray[np.bool_]) -> Estimate:
    share = proportion(int(hits.sum()), len(hits))
    assert share is not None  # there are photos
    return share
