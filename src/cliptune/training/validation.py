"""What a run measures on val: zero-shot CLIP before the first update, and its own state after."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, replace

from accelerate.utils import broadcast_object_list

from cliptune.evaluation.statistics.calibration import scaled_log_loss
from cliptune.evaluation.statistics.metrics import SplitMetrics, split_metrics
from cliptune.model.classifier import Classifier, FittedHead, Predictions, predict_logits
from cliptune.model.lora import can_be_weakened
from cliptune.timing import section
from cliptune.training.reporting import finite, log_known
from cliptune.training.run import Run

log = logging.getLogger(__name__)


# Of what was learned since the fitted head, that may count.
STRENGTHS = (1.0, 0.5)


@dataclass(frozen=True)
class Validation:
    """Val at one point of a run: its figures, and what was said of each of its photos.

    `scaled_loss` is the log loss at the best temperature, in nats. `strength` is the share of what
    was learned that counts in all of them.
    """

    metrics: SplitMetrics
    predictions: Predictions
    scaled_loss: float
    strength: float = 1.0


def measure_baseline(run: Run) -> dict[str, float | int | None]:
    """Zero-shot CLIP on val, before the first update: a fresh adapter changes no logit."""
    baseline = Classifier(run.classifier.model, run.zero_shot, run.backbone.preprocess)
    metrics = _measured(run, baseline).metrics
    top5 = metrics.top5_accuracy
    log.info(
        "zero-shot baseline on val: loss %.3f, top-1 %.1f %%%s",
        metrics.loss, 100 * metrics.accuracy, "" if top5 is None else f", top-5 {100 * top5:.1f} %",
    )  # fmt: skip
    log_known(run, {"val/loss": metrics.loss, "val/accuracy": metrics.accuracy})
    return {key: finite(value) for key, value in asdict(metrics).items()}


def validate(run: Run) -> Validation:
    """Val without adapters' dropout or augmentation: figures, and what was said of each photo.

    After a fitted head, at the strength of least scaled log loss: the mean of two weights, the
    start and what was learned from there, often answers better than either (WiSE-FT, arXiv
    2109.01903).
    """
    with section("validation"):
        found = [_at_strength(run, strength) for strength in strengths(run)]
        best = min(found, key=lambda each: each.scaled_loss)
    # Every process measures all of val; they must not part over a rounding when to stop.
    agreed: list[Validation] = broadcast_object_list([best])
    return agreed[0]


def strengths(run: Run) -> tuple[float, ...]:
    """Those to choose from: one alone where there is nothing to weaken, or no way to."""
    learned = isinstance(run.classifier.head, FittedHead) and run.progress.update > 0
    return STRENGTHS if learned and can_be_weakened(run.classifier.model) else (1.0,)


def _at_strength(run: Run, strength: float) -> Validation:
    if strength == 1:
        return _measured(run, run.classifier)
    with run.classifier.at_strength(strength):
        return replace(_measured(run, run.classifier), strength=strength)


def _measured(run: Run, classifier: Classifier) -> Validation:
    predictions = predict_logits(
        [classifier],
        run.val_loader,
        run.accelerator.device,
        autocast=run.accelerator.autocast,
        frozen=run.frozen_val,
    )
    said = predictions.logits[0], predictions.labels
    return Validation(split_metrics(*said), predictions, scaled_log_loss(*said))
