"""What logits are worth where a photo may show any of the classes: pure functions on arrays.

Shape suffixes: N photos, C classes, B draws, G groups of equal scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliptune.evaluation.statistics.grouped import Groups
from cliptune.evaluation.statistics.intervals import Estimate
from cliptune.evaluation.statistics.metrics import SplitMetrics

Floats = NDArray[np.float64]
Scores = NDArray[np.floating[Any]]
Targets = NDArray[np.bool_]

DRAWS = 1000
BINS = 10


@dataclass(frozen=True)
class MultilabelMetrics(SplitMetrics):
    """The figures of one model on one split.

    `loss` is the binary cross-entropy in nats, its mean over photos and classes; `accuracy` the
    share of photos whose classes are all right at probability 0.5, as scikit-learn's for several
    labels; `mean_ap` the mean average precision.
    """

    mean_ap: float = 0.0


def multilabel_metrics(logits_NC: Scores, targets_NC: Targets) -> MultilabelMetrics:
    """The figures of `logits_NC`. Raises `ValueError` when there is no photo."""
    if not len(targets_NC):
        raise ValueError("there is no photo to measure")
    return MultilabelMetrics(
        num_images=len(targets_NC),
        loss=float(binary_log_losses(logits_NC, targets_NC).mean()),
        accuracy=float(((logits_NC > 0) == targets_NC).all(axis=1).mean()),
        top5_accuracy=None,
        mean_ap=mean_average_precision(targets_NC, logits_NC),
    )


def binary_log_losses(logits_NC: Scores, targets_NC: Targets) -> Floats:
    """(N, C) negative log-likelihood of each yes or no, in nats, of logits of a sigmoid."""
    logits = np.asarray(logits_NC, dtype=np.float64)
    losses: Floats = np.logaddexp(0, logits) - np.where(targets_NC, logits, 0.0)
    return losses


def summed_log_losses(logits_NC: Scores, targets_NC: NDArray[Any]) -> Floats:
    """(N,) those of each photo, summed over its classes."""
    losses_N: Floats = binary_log_losses(logits_NC, targets_NC).sum(axis=1)
    return losses_N


def mean_average_precision(targets_NC: Targets, scores_NC: Scores) -> float:
    """The mean of `average_precisions` over the classes that a photo shows; NaN without any."""
    shown_C = targets_NC.any(axis=0)
    if not shown_C.any():
        return float("nan")
    return float(average_precisions(targets_NC[:, shown_C], scores_NC[:, shown_C]).mean())


def average_precisions(targets_NC: Targets, scores_NC: Scores) -> Floats:
    """(C,) average precision of each class; NaN where no photo shows it.

    The mean, over the photos that show it, of the precision among all photos that score no less:
    what scikit-learn's `average_precision_score` is.
    """
    once_BN = np.ones((1, len(targets_NC)))
    each_C: Floats = drawn_average_precisions(targets_NC, scores_NC, once_BN)[0]
    return each_C


def drawn_average_precisions(targets_NC: Targets, scores_NC: Scores, counts_BN: Floats) -> Floats:
    """(B, C) the same where photo n counts `counts_BN[b, n]` times; NaN where no photo shows it."""
    result_BC = np.full((len(counts_BN), targets_NC.shape[1]), np.nan)
    for label in range(targets_NC.shape[1]):
        order_N = np.argsort(-scores_NC[:, label], kind="stable")
        sorted_N = scores_NC[order_N, label]
        # Photos of equal scores are taken together: at the last of each such group.
        last_N = np.searchsorted(-sorted_N, -sorted_N, side="right") - 1
        counts = counts_BN[:, order_N]
        right = counts * targets_NC[order_N, label]
        precision = right.cumsum(axis=1) / np.maximum(counts.cumsum(axis=1), 1e-300)
        shown_B = right.sum(axis=1)
        total_B = (right * precision[:, last_N]).sum(axis=1)
        there = shown_B > 0
        result_BC[there, label] = total_B[there] / shown_B[there]
    return result_BC


@dataclass(frozen=True)
class ClassFigures:
    """One class: counts of photos, and shares of 1. Intervals are None where nothing tells."""

    photos: int  # that show it
    told: int  # for which it is answered
    right: int  # both
    average_precision: Estimate | None

    @property
    def recall(self) -> float | None:
        """Of the photos that show it, the share for which it is answered."""
        return self.right / self.photos if self.photos else None

    @property
    def precision(self) -> float | None:
        """Of the photos for which it is answered, the share that show it."""
        return self.right / self.told if self.told else None

    @property
    def f1(self) -> float | None:
        """2 right / (photos + told); None where neither is any."""
        both = self.photos + self.told
        return 2 * self.right / both if both else None


@dataclass(frozen=True)
class MultilabelFigures:
    """All figures of one model on one split, with intervals by resampling photos.

    `mean_ap` and `macro_f1` are means over the classes that some photo shows (F1: or that is
    answered). `exact` is the share of photos with all classes right, `hamming` of single answers
    that are wrong. `calibration_error` compares, in ten equal parts of the answers of all photos
    and classes by probability, the mean probability with the share of yes.
    """

    mean_ap: Estimate
    micro_f1: Estimate
    macro_f1: Estimate
    exact: Estimate
    hamming: Estimate
    calibration_error: float
    classes: tuple[ClassFigures, ...]
    together_CC: NDArray[np.int64]  # photos that show the row's class and are given the column's
    reliability: tuple[tuple[float, float, int], ...]  # mean probability, share of yes, answers


@dataclass(frozen=True)
class LabelDraws:
    """The same figures of each of B resamples of the photos; NaN where a resample tells none.

    Models measured on the same photos with the same seed share the resamples.
    """

    mean_ap_B: Floats
    micro_f1_B: Floats
    macro_f1_B: Floats
    exact_B: Floats
    hamming_B: Floats
    average_precision_BC: Floats
    f1_BC: Floats
    units_C: NDArray[np.int64]  # photos that show each class, or groups of them


def multilabel_figures(
    probabilities_NC: Floats, shown_NC: Targets, targets_NC: Targets, *, seed: int,
    draws: int = DRAWS, groups_N: Groups | None = None,
) -> MultilabelFigures:  # fmt: skip
    """The figures of probabilities, and of the answers `shown_NC` made of them.

    Photos of one number in `groups_N` belong together, and intervals are of other groups. Raises
    `ValueError` when there is no photo.
    """
    return figures_and_draws(
        probabilities_NC, shown_NC, targets_NC, seed=seed, draws=draws, groups_N=groups_N
    )[0]


def figures_and_draws(
    probabilities_NC: Floats, shown_NC: Targets, targets_NC: Targets, *, seed: int,
    draws: int = DRAWS, groups_N: Groups | None = None,
) -> tuple[MultilabelFigures, LabelDraws]:  # fmt: skip
    """`multilabel_figures` with the resamples that its intervals are of."""
    if not len(targets_NC):
        raise ValueError("there is no photo to measure")
    counts_BN = resampled(len(targets_NC), seed=seed, draws=draws, groups_N=groups_N)
    ap_BC = drawn_average_precisions(targets_NC, probabilities_NC, counts_BN)
    ap_C = average_precisions(targets_NC, probabilities_NC)
    drawn_BC = [
        counts_BN @ each.astype(np.float64)
        for each in (shown_NC & targets_NC, shown_NC, targets_NC)
    ]
    sums_C = [each.sum(axis=0) for each in (shown_NC & targets_NC, shown_NC, targets_NC)]
    wrong_NC = shown_NC != targets_NC
    exact_N, hamming_N = ~wrong_NC.any(axis=1), wrong_NC.mean(axis=1)
    mean_BN = counts_BN / counts_BN.sum(axis=1, keepdims=True)
    reliability = _reliability(probabilities_NC, targets_NC)
    drawn = LabelDraws(
        mean_ap_B=np.nanmean(ap_BC, axis=1),
        micro_f1_B=_micro_f1(*drawn_BC),
        macro_f1_B=_macro_f1(*drawn_BC),
        exact_B=mean_BN @ exact_N,
        hamming_B=mean_BN @ hamming_N,
        average_precision_BC=ap_BC,
        f1_BC=_f1(*drawn_BC),
        units_C=_units_of_classes(targets_NC, groups_N),
    )
    figures = MultilabelFigures(
        mean_ap=resampled_interval(np.nanmean(ap_C), drawn.mean_ap_B),
        micro_f1=resampled_interval(_micro_f1(*sums_C), drawn.micro_f1_B),
        macro_f1=resampled_interval(_macro_f1(*sums_C), drawn.macro_f1_B),
        exact=resampled_interval(exact_N.mean(), drawn.exact_B),
        hamming=resampled_interval(hamming_N.mean(), drawn.hamming_B),
        calibration_error=sum(n * abs(p - y) for p, y, n in reliability) / targets_NC.size,
        classes=tuple(
            ClassFigures(
                int(sums_C[2][label]), int(sums_C[1][label]), int(sums_C[0][label]),
                None if np.isnan(ap_C[label])
                else resampled_interval(ap_C[label], ap_BC[:, label]),
            )
            for label in range(targets_NC.shape[1])
        ),
        together_CC=targets_NC.astype(np.int64).T @ shown_NC.astype(np.int64),
        reliability=reliability,
    )  # fmt: skip
    return figures, drawn


def mean_ap_gain(
    a_NC: Scores, b_NC: Scores, targets_NC: Targets, *, seed: int, draws: int = DRAWS,
    groups_N: Groups | None = None,
) -> Estimate:  # fmt: skip
    """Mean average precision of A less that of B on the same photos, resampled together."""
    counts_BN = resampled(len(targets_NC), seed=seed, draws=draws, groups_N=groups_N)
    gains_B = np.nanmean(drawn_average_precisions(targets_NC, a_NC, counts_BN), axis=1)
    gains_B -= np.nanmean(drawn_average_precisions(targets_NC, b_NC, counts_BN), axis=1)
    value = mean_average_precision(targets_NC, a_NC) - mean_average_precision(targets_NC, b_NC)
    return resampled_interval(value, gains_B, least=-1.0)


def resampled(photos: int, *, seed: int, draws: int, groups_N: Groups | None = None) -> Floats:
    """(B, N) how often each photo comes up when `photos` of them are drawn with replacement.

    With `groups_N` groups are drawn, as many as there are, and each brings all its photos.
    """
    rng = np.random.default_rng(seed)
    units, place_N = photos, np.arange(photos)
    if groups_N is not None:
        numbers, place_N = np.unique(groups_N, return_inverse=True)
        units = len(numbers)
    counts_BU = rng.multinomial(units, np.full(units, 1 / units), size=draws).astype(np.float64)
    counts_BN: Floats = counts_BU if groups_N is None else counts_BU[:, place_N]
    return counts_BN


def _units_of_classes(targets_NC: Targets, groups_N: Groups | None) -> NDArray[np.int64]:
    """(C,) how many photos show each class, or how many groups hold such a photo."""
    places_N = np.arange(len(targets_NC)) if groups_N is None else groups_N
    return np.array([len(np.unique(places_N[shown_N])) for shown_N in targets_NC.T])


def resampled_interval(
    value: float | np.floating[Any], drawn_B: Floats, *, least: float = 0.0
) -> Estimate:
    """`value` with the middle 95 % of what was drawn, less its bias; it lies within.

    A photo drawn twice ranks with itself, so that average precision rises in draws.
    """
    known_B = drawn_B[~np.isnan(drawn_B)]
    if not len(known_B):
        return Estimate(float(value), float(value), float(value))
    low, high = np.quantile(known_B, [0.025, 0.975]) - known_B.mean() + value
    low, high = np.clip([low, high], least, 1)
    return Estimate(float(value), float(min(low, value)), float(max(high, value)))


def _micro_f1(right_C: Scores, told_C: Scores, photos_C: Scores) -> Any:
    both = told_C.sum(axis=-1) + photos_C.sum(axis=-1)
    return 2 * right_C.sum(axis=-1) / np.maximum(both, 1)


def _macro_f1(right_C: Scores, told_C: Scores, photos_C: Scores) -> Any:
    both_C = told_C + photos_C
    counts_C = both_C > 0
    f1_C = 2 * right_C / np.where(counts_C, both_C, 1)
    return (f1_C * counts_C).sum(axis=-1) / np.maximum(counts_C.sum(axis=-1), 1)


def _f1(right_BC: Floats, told_BC: Floats, photos_BC: Floats) -> Floats:
    """(B, C) F1 of each class; NaN where a resample neither shows nor is answered it."""
    both_BC = told_BC + photos_BC
    f1_BC: Floats = np.where(both_BC > 0, 2 * right_BC / np.maximum(both_BC, 1), np.nan)
    return f1_BC


def _reliability(
    probabilities_NC: Floats, targets_NC: Targets
) -> tuple[tuple[float, float, int], ...]:
    """(mean probability, share of yes, answers) of ten equal parts by probability."""
    flat, yes = probabilities_NC.ravel(), targets_NC.ravel()
    order = np.argsort(flat, kind="stable")
    parts = [part for part in np.array_split(order, BINS) if len(part)]
    return tuple((float(flat[p].mean()), float(yes[p].mean()), len(p)) for p in parts)
