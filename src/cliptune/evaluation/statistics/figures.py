"""All figures of a model on a split with their intervals, and two models on the same photos.

Shape suffixes: N photos, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cliptune.evaluation.statistics.calibration import brier_scores, log_losses
from cliptune.evaluation.statistics.few_photos import (
    without_interval,
    without_test,
    without_value,
)
from cliptune.evaluation.statistics.grouped import (
    Groups,
    difference_of,
    leanings,
    mcnemar_of,
    mean_estimate,
    num_groups,
    share_of,
    shares_of_classes,
)
from cliptune.evaluation.statistics.intervals import Estimate
from cliptune.evaluation.statistics.metrics import Labels, Logits, top_k_hits
from cliptune.evaluation.statistics.reliability import Reliability, reliability
from cliptune.evaluation.statistics.resampling import macro_estimates, macro_f1_difference


@dataclass(frozen=True, kw_only=True)
class FullMetrics:
    """One model on one split. Shares are fractions of 1, log loss is in nats, Brier from 0 to 2.

    `ece` is less biased than the plug-in value, `reliability.ece`, and never above it.
    A class's recall is None where it has no photo.
    Where photos are too few to know, a figure is None, or its interval from -inf to inf:
    `too_few_photos` says so in words.
    """

    num_images: int
    accuracy: Estimate
    top5: Estimate | None  # None below five classes
    macro_f1: Estimate
    balanced_accuracy: Estimate
    log_loss: Estimate
    brier: Estimate
    ece: Estimate | None
    recall: tuple[Estimate | None, ...]
    reliability: Reliability
    num_groups: int | None = None  # that photos belong to, of which intervals are

    @property
    def too_few_photos(self) -> dict[str, str]:
        """Figure without a value or an interval -> why."""
        return _too_few(self.num_images, self.num_groups, len(self.recall))


@dataclass(frozen=True)
class BeforeScaling:
    """The figures that scaling is to mend, of the logits as the model gave them.

    Without values or intervals where those of `FullMetrics` are.
    """

    log_loss: Estimate
    brier: Estimate
    reliability: Reliability


@dataclass(frozen=True, kw_only=True)
class PairedComparison:
    """Model A less model B on the same photos. Positive differences are in favour of A.

    `gained` and `lost` are the indices of photos that A alone, and B alone, has right.
    """

    num_images: int
    accuracy_difference: Estimate
    macro_f1_difference: Estimate
    only_a_right: int
    only_b_right: int
    mcnemar_p: float | None  # None where too few photos differ for any p below 0.05
    mcnemar_method: str
    gained: tuple[int, ...]
    lost: tuple[int, ...]
    leaning_groups: int | None = None  # with more photos right by one of the two than by the other

    @property
    def too_few_photos(self) -> dict[str, str]:
        """Figure without a value -> why."""
        if self.leaning_groups is not None:
            return without_test(self.leaning_groups, what="groups")
        return without_test(self.only_a_right + self.only_b_right)


def full_metrics(
    logits_NC: Logits, labels_N: Labels, *, seed: int, groups_N: Groups | None = None
) -> FullMetrics:
    """Every figure of `logits_NC` with its 95 % interval; the same `seed`, the same numbers.

    Photos of one number in `groups_N` belong together, and intervals are of other groups. Top-1
    and top-5 give no credit for equal logits; what is counted for each class takes the first of
    them. Raises `ValueError` without photos, or when a logit is not finite.
    """
    _check(logits_NC, labels_N)
    count, classes = logits_NC.shape
    predicted_N = logits_NC.argmax(axis=1)
    macro = macro_estimates(
        labels_N, predicted_N, num_classes=classes, seed=seed, groups_N=groups_N
    )
    calibrated = reliability(logits_NC, labels_N, seed=seed, groups_N=groups_N)
    groups = num_groups(groups_N)
    unsure = _too_few(count, groups, classes)
    right_N = predicted_N == labels_N
    return FullMetrics(
        num_images=count,
        accuracy=_share_within(logits_NC, labels_N, groups_N, k=1),
        top5=_share_within(logits_NC, labels_N, groups_N, k=5) if classes >= 5 else None,
        macro_f1=_interval_unknown(macro.macro_f1) if "macro_f1" in unsure else macro.macro_f1,
        balanced_accuracy=macro.balanced_accuracy,
        log_loss=mean_estimate(log_losses(logits_NC, labels_N), groups_N),
        brier=mean_estimate(brier_scores(logits_NC, labels_N), groups_N, bound=2),
        ece=calibrated.ece_estimate,
        recall=tuple(shares_of_classes(right_N, labels_N, groups_N, classes=classes)),
        reliability=calibrated,
        num_groups=groups,
    )


def before_scaling(
    logits_NC: Logits, labels_N: Labels, *, seed: int, groups_N: Groups | None = None
) -> BeforeScaling:
    """The figures of logits as the model gave them; the same `seed`, the same numbers."""
    return BeforeScaling(
        mean_estimate(log_losses(logits_NC, labels_N), groups_N),
        mean_estimate(brier_scores(logits_NC, labels_N), groups_N, bound=2),
        reliability(logits_NC, labels_N, seed=seed, groups_N=groups_N),
    )


def compare_paired(
    a_logits_NC: Logits,
    b_logits_NC: Logits,
    labels_N: Labels,
    *,
    seed: int,
    groups_N: Groups | None = None,
) -> PairedComparison:
    """How model A differs from model B (tuned from zero-shot) on the same photos.

    Raises `ValueError` as `full_metrics` does, or where the models know different classes.
    """
    if a_logits_NC.shape != b_logits_NC.shape:
        raise ValueError(f"logits of shapes {a_logits_NC.shape} and {b_logits_NC.shape}")
    _check(a_logits_NC, labels_N)
    _check(b_logits_NC, labels_N)
    a_right_N, b_right_N = (top_k_hits(x, labels_N, k=1) for x in (a_logits_NC, b_logits_NC))
    only_a_N, only_b_N = a_right_N & ~b_right_N, b_right_N & ~a_right_N
    gained, lost = np.flatnonzero(only_a_N), np.flatnonzero(only_b_N)
    test = mcnemar_of(only_a_N, only_b_N, groups_N)
    leaning = None if groups_N is None else len(leanings(only_a_N, only_b_N, groups_N))
    told = not without_test(len(gained) + len(lost) if leaning is None else leaning)
    return PairedComparison(
        num_images=len(labels_N),
        accuracy_difference=difference_of(only_a_N, only_b_N, groups_N),
        macro_f1_difference=macro_f1_difference(
            labels_N,
            a_logits_NC.argmax(axis=1),
            b_logits_NC.argmax(axis=1),
            num_classes=a_logits_NC.shape[1],
            seed=seed,
            groups_N=groups_N,
        ),
        only_a_right=len(gained),
        only_b_right=len(lost),
        mcnemar_p=test.p if told else None,
        mcnemar_method=test.method,
        gained=tuple(gained.tolist()),
        lost=tuple(lost.tolist()),
        leaning_groups=leaning,
    )


def _too_few(photos: int, groups: int | None, classes: int) -> dict[str, str]:
    if groups is not None:
        what = "groups of photos"
        return without_value(groups, what=what) | without_interval(groups, classes, what=what)
    return without_value(photos) | without_interval(photos, classes)


def _interval_unknown(estimate: Estimate) -> Estimate:
    return Estimate(estimate.value, -np.inf, np.inf)


def _share_within(
    logits_NC: Logits, labels_N: Labels, groups_N: Groups | None, *, k: int
) -> Estimate:
    estimate = share_of(top_k_hits(logits_NC, labels_N, k=k), groups_N)
    assert estimate is not None  # there are photos
    return estimate


def _check(logits_NC: Logits, labels_N: Labels) -> None:
    if not len(labels_N):
        raise ValueError("there is no photo to measure")
    if bad := int((~np.isfinite(logits_NC)).any(axis=1).sum()):
        raise ValueError(f"the logits of {bad} of {len(labels_N)} photos are not finite numbers")
