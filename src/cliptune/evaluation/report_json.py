"""Figures as JSON: what `evaluation_results.json` and `comparison.json` are made of."""

from __future__ import annotations

import importlib.metadata
import math
from typing import Any

from cliptune._version import __version__
from cliptune.evaluation.statistics.figures import BeforeScaling, FullMetrics, PairedComparison
from cliptune.evaluation.statistics.intervals import Estimate
from cliptune.evaluation.statistics.metrics import SplitMetrics
from cliptune.model.answers import Answers

PACKAGES = ("torch", "transformers", "peft", "numpy", "Pillow", "scikit-learn")
# Of `evaluation_results.json`. 1, which did not say its number, mixed percent and fractions.
FORMAT_VERSION = 2
# What the numbers in it are; `except` has keys of the file's top level.
UNITS = {
    "shares": "fraction of 1",
    "losses": "nats",
    "times": "seconds",
    "except": {"accuracy": "percent", "top5_accuracy": "percent"},
}


def versions() -> dict[str, str]:
    """The packages that figures come from."""
    installed = {package: importlib.metadata.version(package) for package in PACKAGES}
    return {"cliptune": __version__} | installed


def groups_dict(num_groups: int | None) -> dict[str, int]:
    """How many independent groups the figures rest on, where photos belong to groups."""
    return {} if num_groups is None else {"num_groups": num_groups}


def figures_dict(figures: FullMetrics) -> dict[str, Any]:
    """JSON of the figures of one model, in fractions and nats.

    `too_few_photos` says why a figure, or both ends of an interval, are null.
    """
    names = ("accuracy", "top5", "macro_f1", "balanced_accuracy", "log_loss", "brier", "ece")
    found = {name: estimate_dict(getattr(figures, name)) for name in names}
    return found | {"too_few_photos": figures.too_few_photos}


def estimate_dict(estimate: Estimate | None) -> dict[str, Any] | None:
    """JSON of a figure and its 95 % interval; a limit that is not finite is null."""
    if estimate is None:
        return None
    ends = [end if math.isfinite(end) else None for end in (estimate.low, estimate.high)]
    return {"value": estimate.value, "interval_95": ends}


def paired_dict(paired: PairedComparison) -> dict[str, Any]:
    """Tuned less zero-shot on the same photos, in fractions."""
    return {
        "accuracy_difference": estimate_dict(paired.accuracy_difference),
        "macro_f1_difference": estimate_dict(paired.macro_f1_difference),
        "only_this_model_right": paired.only_a_right,
        "only_zero_shot_right": paired.only_b_right,
        "mcnemar_p": paired.mcnemar_p,
        "mcnemar_method": paired.mcnemar_method,
        "too_few_photos": paired.too_few_photos,
    }


def baseline_dict(
    metrics: SplitMetrics | None, figures: FullMetrics | None
) -> dict[str, Any] | None:
    """The figures of zero-shot CLIP; None where it was not measured."""
    if metrics is None or figures is None:
        return None
    return {
        "loss": metrics.loss,
        "num_images": metrics.num_images,
        "figures": figures_dict(figures),
    }


def improvement_dict(tuned: SplitMetrics, baseline: SplitMetrics | None) -> dict[str, Any] | None:
    """What tuning gained over the baseline, in fractions, by the names of `figures`."""
    if baseline is None:
        return None
    after, before = tuned.top5_accuracy, baseline.top5_accuracy
    return {
        "accuracy": tuned.accuracy - baseline.accuracy,
        "top5": None if after is None or before is None else after - before,
    }


def calibration_dict(
    answers: Answers | None, raw: BeforeScaling, scaled: FullMetrics
) -> dict[str, Any]:
    """What the scaling by `answers` mended, in fractions and nats."""
    return {
        "scaling": None if answers is None else answers.model_dump(),
        "binning": scaled.reliability.binning,
        "before": {
            "log_loss": estimate_dict(raw.log_loss),
            "brier": estimate_dict(raw.brier),
            "ece": estimate_dict(raw.reliability.ece_estimate),
            "ece_plug_in": raw.reliability.ece,
            "too_few_photos": _of_losses(scaled),
        },
        "after": {
            "log_loss": estimate_dict(scaled.log_loss),
            "brier": estimate_dict(scaled.brier),
            "ece": estimate_dict(scaled.ece),
            "ece_plug_in": scaled.reliability.ece,
            "too_few_photos": _of_losses(scaled),
        },
        "bins": [
            {"from": b.low, "to": b.high, "photos": b.count, "confidence": b.confidence,
             "accuracy": estimate_dict(b.accuracy)}
            for b in scaled.reliability.bins
        ],
    }  # fmt: skip


def _of_losses(figures: FullMetrics) -> dict[str, str]:
    names = ("log_loss", "brier", "ece")
    return {name: why for name, why in figures.too_few_photos.items() if name in names}
