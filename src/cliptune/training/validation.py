"""What a run measures on val: zero-shot CLIP before the first update, and its own state after."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cliptune.data.groups import Groups
from cliptune.evaluation.statistics.calibration import scaled_log_losses
from cliptune.evaluation.statistics.grouped import standard_error
from cliptune.evaluation.statistics.metrics import SplitMetrics, split_metrics
from cliptune.evaluation.statistics.multilabel import (
    MultilabelMetrics,
    multilabel_metrics,
    summed_log_losses,
)
from cliptune.foreign_errors import LoadingError
from cliptune.model.classifier import Classifier, FittedHead, Predictions, predict_logits
from cliptune.model.lora import can_be_weakened
from cliptune.timing import section
from cliptune.training.reporting import finite, log_known
from cliptune.training.run import HeadLosses, Run
from cliptune.training.several.sharing import all_could_load, of_the_first, together

log = logging.getLogger(__name__)


STRENGTHS = (1.0, 0.5)  # of what was learned since the head was fitted, that may count
DOUBT = 1.64  # standard errors: of a normal variable's values, 95 % are below


@dataclass(frozen=True)
class Validation:
    """Val at one point of a run: its figures, and what was said of each of its photos.

    `losses_N` are its log losses at the best temperature, in nats. `strength` is the share of what
    was learned since the head was fitted that counts in all of them. `criterion` chooses among
    strengths and epochs, in nats: see `at_worst`.
    """

    metrics: SplitMetrics
    predictions: Predictions
    losses_N: NDArray[np.float64]
    criterion: float
    strength: float = 1.0

    @property
    def scaled_loss(self) -> float:
        """The mean of `losses_N`."""
        return float(self.losses_N.mean())


def measure_baseline(run: Run) -> dict[str, float | int | None]:
    """Zero-shot CLIP on val, before the first update: a fresh adapter changes no logit."""
    baseline = Classifier(run.classifier.model, run.zero_shot, run.backbone.preprocess)
    metrics = _measured(run, baseline).metrics
    log.info("zero-shot baseline on val: %s", in_words(metrics))
    log_known(run, {"val/loss": metrics.loss, "val/accuracy": metrics.accuracy})
    return {key: finite(value) for key, value in asdict(metrics).items()}


def leading(metrics: SplitMetrics) -> tuple[str, float]:
    """The figure that is told first, and its value in percent."""
    if isinstance(metrics, MultilabelMetrics):
        return "mAP", 100 * metrics.mean_ap
    return "top-1", 100 * metrics.accuracy


def in_words(metrics: SplitMetrics) -> str:
    """The figures of val in a line."""
    if isinstance(metrics, MultilabelMetrics):
        return f"mAP {100 * metrics.mean_ap:.1f} %"
    top5 = metrics.top5_accuracy
    also = "" if top5 is None else f", top-5 {100 * top5:.1f} %"
    return f"loss {metrics.loss:.3f}, top-1 {100 * metrics.accuracy:.1f} %{also}"


def validate(run: Run) -> Validation:
    """Val without adapters' dropout or augmentation: figures, and what was said of each photo.

    After a fitted head, at the strength of least `criterion`: the mean of two weights, the
    start and what was learned from there, often answers better than either (WiSE-FT, arXiv
    2109.01903).
    """
    with section("validation"):
        found = [_at_strength(run, strength) for strength in strengths(run)]
        best = min(found, key=lambda each: each.criterion)
    return of_the_first(best)  # they must not part over a rounding when to stop


def strengths(run: Run) -> tuple[float, ...]:
    """Those to choose from: one alone where there is nothing to weaken, or no way to."""
    learned = isinstance(run.classifier.head, FittedHead) and run.progress.update > 0
    return STRENGTHS if learned and can_be_weakened(run.classifier.model) else (1.0,)


def at_worst(now: HeadLosses, head: HeadLosses | None, groups_N: Groups | None = None) -> float:
    """The mean loss `now`, in nats, as high as its gain over the fitted head leaves in doubt.

    That is `DOUBT` standard errors of the paired difference above it: adapters that are no better
    than the head look so on few photos, at one of many epochs, more often than not. Without losses
    of the head, the mean itself. `groups_N` are those of val's photos: then it is the error of a
    mean over groups.
    """
    if head is None:
        return float(now.losses_N.mean())
    _, ours, theirs = np.intersect1d(now.indices_N, head.indices_N, return_indices=True)
    losses_N, before_N = now.losses_N[ours], head.losses_N[theirs]
    if len(losses_N) < 2 or not np.isfinite(losses_N).all() or not np.isfinite(before_N).all():
        return float(now.losses_N.mean())
    own_N = None if groups_N is None else groups_N[now.indices_N[ours]]
    error = standard_error(losses_N - before_N, own_N)
    return float(losses_N.mean()) + DOUBT * error


def _at_strength(run: Run, strength: float) -> Validation:
    if strength == 1:
        return _measured(run, run.classifier)
    with run.classifier.at_strength(strength):
        return replace(_measured(run, run.classifier), strength=strength)


def _measured(run: Run, classifier: Classifier) -> Validation:
    failed = None
    try:
        mine = predict_logits(
            [classifier],
            run.val_loader,
            run.accelerator.device,
            autocast=run.accelerator.autocast,
            frozen=run.frozen_val,
        )
    except LoadingError as error:
        failed = error
    all_could_load(failed)
    predictions = together(mine)
    logits_NC, labels_N = predictions.logits[0], predictions.labels
    if run.several is None:
        losses_N = scaled_log_losses(logits_NC, labels_N)
        metrics = split_metrics(logits_NC, labels_N)
    else:
        targets_NC = run.several.val_NC[predictions.indices]
        if classifier.head is run.zero_shot:
            logits_NC = logits_NC + run.several.logit_bias
        losses_N = scaled_log_losses(logits_NC, targets_NC, losses=summed_log_losses)
        metrics = multilabel_metrics(logits_NC, targets_NC)
    losses = HeadLosses(losses_N, predictions.indices)
    criterion = at_worst(losses, run.head_losses, run.val_groups_N)
    return Validation(metrics, predictions, losses.losses_N, criterion)
