"""What a run measures on val: zero-shot CLIP before the first update, and its own state after."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass

from accelerate.utils import broadcast_object_list

from cliptune.evaluation.statistics.metrics import SplitMetrics, split_metrics
from cliptune.model.classifier import Classifier, Predictions, predict_logits
from cliptune.timing import section
from cliptune.training.reporting import finite, log_known
from cliptune.training.run import Run

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Validation:
    """Val at one point of a run: its figures, and what was said of each of its photos."""

    metrics: SplitMetrics
    predictions: Predictions


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
    """Val without adapters' dropout or augmentation: figures, and what was said of each photo."""
    with section("validation"):
        found = _measured(run, run.classifier)
    # Every process measures all of val; they must not part over a rounding when to stop.
    agreed: list[SplitMetrics] = broadcast_object_list([found.metrics])
    return Validation(agreed[0], found.predictions)


def _measured(run: Run, classifier: Classifier) -> Validation:
    predictions = predict_logits(
        [classifier],
        run.val_loader,
        run.accelerator.device,
        autocast=run.accelerator.autocast,
        frozen=run.frozen_val,
    )
    return Validation(split_metrics(predictions.logits[0], predictions.labels), predictions)
