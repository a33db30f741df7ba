"""An evaluation in numbers: everything the text, the page and the JSON file are made of.

Shape suffixes: N photos, C classes.
"""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliptune._version import __version__
from cliptune.data.naming import display_names
from cliptune.errors import CheckpointError
from cliptune.evaluation.robustness import Robustness
from cliptune.evaluation.seen import SeenPhotos
from cliptune.evaluation.statistics.calibration import brier_scores, log_losses
from cliptune.evaluation.statistics.class_figures import ClassFigures, class_figures
from cliptune.evaluation.statistics.figures import (
    FullMetrics,
    PairedComparison,
    compare_paired,
    full_metrics,
    mean_estimate,
)
from cliptune.evaluation.statistics.intervals import Estimate
from cliptune.evaluation.statistics.metrics import (
    ConfusedPair,
    Labels,
    Logits,
    SplitMetrics,
    classification_report,
    confusion_matrix,
    most_confused_pairs,
    split_metrics,
)
from cliptune.evaluation.statistics.reliability import Reliability, reliability
from cliptune.evaluation.unknowns import NoneOfThese
from cliptune.model.answers import Answers, Floats, softmax
from cliptune.text import counted

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
SEED = 0  # of the bootstraps: the same photos and answers give the same intervals


@dataclass(frozen=True)
class PhotoAnswers:
    """What was said of each photo that could be read. `baseline_N`: zero-shot's class of each."""

    paths: tuple[Path, ...]
    labels_N: Labels
    probabilities_NC: Floats
    known_scores_N: Floats | None = None
    baseline_N: NDArray[np.integer[Any]] | None = None

    @property
    def predicted_N(self) -> NDArray[np.integer[Any]]:
        """The most probable class of each photo."""
        best_N: NDArray[np.integer[Any]] = self.probabilities_NC.argmax(axis=1)
        return best_N


@dataclass(frozen=True)
class BeforeScaling:
    """The figures that scaling is to mend, of the logits as the model gave them.

    Without values or intervals where those of `FullMetrics` are.
    """

    log_loss: Estimate
    brier: Estimate
    reliability: Reliability


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A checkpoint measured on one split; `baseline` is zero-shot CLIP on the same photos.

    Everything here goes by class name; `display_names` are for people's eyes: class name -> the
    name shown. `tuned` and `figures` are of the logits that the checkpoint's `answers` scaled,
    as a predictor gives them; `before_scaling` of those it was given.
    """

    checkpoint: str
    base_model: str
    data_dir: str
    split: str
    class_names: tuple[str, ...]
    display_names: dict[str, str]
    missing_classes: tuple[str, ...]  # known classes without a photo in the split
    ignored_classes: tuple[str, ...]  # class folders the model does not know
    skipped_images: tuple[str, ...]
    class_order: tuple[int, ...]  # places in `class_names`, alike classes beside one another
    tuned: SplitMetrics
    baseline: SplitMetrics | None
    figures: FullMetrics
    baseline_figures: FullMetrics | None
    paired: PairedComparison | None  # tuned less zero-shot
    answers: Answers | None
    before_scaling: BeforeScaling
    classes: tuple[ClassFigures, ...]  # in the order of `class_names`
    report: dict[str, Any]  # scikit-learn's classification report, as the JSON file holds it
    confusion_CC: NDArray[np.int64]
    confused_pairs: list[ConfusedPair]
    photos: PhotoAnswers
    none_of_these: NoneOfThese | None
    robustness: Robustness | None
    seconds: float
    seen: SeenPhotos | None = None  # of the photos measured, those of training
    seen_unknown: SeenPhotos | None = None  # and of those given as none of the classes

    @property
    def accuracy(self) -> float:
        """Top-1 accuracy as a fraction."""
        return self.tuned.accuracy

    def to_dict(self) -> dict[str, Any]:
        """What `evaluation_results.json` holds.

        `accuracy` and `top5_accuracy` are in percent, as scripts have read them from the first
        version on; every other share is a fraction of 1, and the file says so (`UNITS`).
        """
        top5 = self.tuned.top5_accuracy
        return {
            "format_version": FORMAT_VERSION,
            "units": UNITS,
            "accuracy": 100 * self.tuned.accuracy,
            "top5_accuracy": None if top5 is None else 100 * top5,
            "loss": self.tuned.loss,
            "num_images": self.tuned.num_images,
            "figures": figures_dict(self.figures),
            "baseline": _baseline(self.baseline, self.baseline_figures),
            "improvement": _improvement(self.tuned, self.baseline),
            "paired": None if self.paired is None else _paired(self.paired),
            "calibration": self._calibration(),
            "none_of_these": None if self.none_of_these is None else self.none_of_these.to_dict(),
            "robustness": None if self.robustness is None else self.robustness.to_dict(),
            "checkpoint": self.checkpoint,
            "base_model": self.base_model,
            "data_dir": self.data_dir,
            "split": self.split,
            "class_names": list(self.class_names),
            "display_names": self.display_names,
            "missing_classes": list(self.missing_classes),
            "ignored_classes": list(self.ignored_classes),
            "skipped_images": list(self.skipped_images),
            "seen_photos": None if self.seen is None else self.seen.to_dict(),
            "seen_unknown_photos": (
                None if self.seen_unknown is None else self.seen_unknown.to_dict()
            ),
            "classification_report": self.report,
            "per_class": {
                each.name: {
                    "recall": estimate_dict(each.recall),
                    "precision": estimate_dict(each.precision),
                }
                for each in self.classes
            },
            "confusion_matrix": self.confusion_CC.tolist(),
            "most_confused_pairs": [asdict(pair) for pair in self.confused_pairs],
            "seconds": self.seconds,
            "images_per_second": self.tuned.num_images / self.seconds,
            "versions": versions(),
        }

    def _calibration(self) -> dict[str, Any]:
        scaled, raw = self.figures, self.before_scaling
        return {
            "scaling": None if self.answers is None else self.answers.model_dump(),
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


def versions() -> dict[str, str]:
    """The packages that figures come from."""
    installed = {package: importlib.metadata.version(package) for package in PACKAGES}
    return {"cliptune": __version__} | installed


def build_evaluation(
    *,
    logits_NC: Logits,
    labels_N: Labels,
    baseline_logits_NC: Logits | None,
    class_names: Sequence[str],
    checkpoint: str,
    base_model: str,
    data_dir: str,
    split: str,
    seconds: float,
    missing_classes: tuple[str, ...] = (),
    ignored_classes: tuple[str, ...] = (),
    skipped_images: tuple[str, ...] = (),
    given_names: Mapping[str, str] | None = None,
    answers: Answers | None = None,
    paths: Sequence[Path] = (),
    known_scores_N: Floats | None = None,
    none_of_these: NoneOfThese | None = None,
    robustness: Robustness | None = None,
    class_order: Sequence[int] | None = None,
    seen: SeenPhotos | None = None,
    seen_unknown: SeenPhotos | None = None,
) -> Evaluation:
    """An `Evaluation` from logits; what is not computed from them goes into it as it is given.

    `given_names` has the name shown of classes that are not shown by their readable name.
    Raises `ValueError` when there is no photo, `CheckpointError` when a logit is not finite.
    """
    split_metrics(logits_NC, labels_N)  # without a photo there is nothing to say
    refuse_not_finite(logits_NC, checkpoint)
    scaled_NC = np.asarray(logits_NC, np.float64) if answers is None else answers.scale(logits_NC)
    predicted_N = scaled_NC.argmax(axis=1)
    confusion_CC = confusion_matrix(labels_N, predicted_N, num_classes=len(class_names))
    base_NC = baseline_logits_NC
    return Evaluation(
        checkpoint=checkpoint,
        base_model=base_model,
        data_dir=data_dir,
        split=split,
        class_names=tuple(class_names),
        class_order=tuple(range(len(class_names)) if class_order is None else class_order),
        display_names=display_names(class_names, given_names or {}),
        missing_classes=missing_classes,
        ignored_classes=ignored_classes,
        skipped_images=skipped_images,
        tuned=split_metrics(scaled_NC, labels_N),
        baseline=None if base_NC is None else split_metrics(base_NC, labels_N),
        figures=full_metrics(scaled_NC, labels_N, seed=SEED),
        baseline_figures=None if base_NC is None else full_metrics(base_NC, labels_N, seed=SEED),
        paired=None
        if base_NC is None
        else compare_paired(scaled_NC, base_NC, labels_N, seed=SEED),
        answers=answers,
        before_scaling=BeforeScaling(
            mean_estimate(log_losses(logits_NC, labels_N)),
            mean_estimate(brier_scores(logits_NC, labels_N), bound=2),
            reliability(logits_NC, labels_N, seed=SEED),
        ),
        classes=class_figures(confusion_CC, class_names),
        report=classification_report(labels_N, predicted_N, class_names),
        confusion_CC=confusion_CC,
        confused_pairs=most_confused_pairs(confusion_CC, class_names),
        photos=PhotoAnswers(
            tuple(paths), labels_N, softmax(scaled_NC), known_scores_N,
            None if base_NC is None else base_NC.argmax(axis=1),
        ),
        none_of_these=none_of_these,
        robustness=robustness,
        seconds=seconds,
        seen=seen,
        seen_unknown=seen_unknown,
    )  # fmt: skip


def refuse_not_finite(logits_NC: Logits, checkpoint: str) -> None:
    """Raise `CheckpointError` where the scores of `checkpoint` are no numbers."""
    if not_finite := int((~np.isfinite(logits_NC)).any(axis=1).sum()):
        raise CheckpointError(
            f"{checkpoint}: its scores are not finite numbers for {not_finite} of "
            f"{counted(len(logits_NC), 'photo')}. Its training diverged, or its weights are "
            "damaged: evaluate another checkpoint, or train again with a smaller learning rate."
        )


def figures_dict(figures: FullMetrics) -> dict[str, Any]:
    """JSON of the figures of one model, in fractions and nats.

    `too_few_photos` says why a figure, or both ends of an interval, are null.
    """
    names = ("accuracy", "top5", "macro_f1", "balanced_accuracy", "log_loss", "brier", "ece")
    found = {name: estimate_dict(getattr(figures, name)) for name in names}
    return found | {"too_few_photos": figures.too_few_photos}


def _of_losses(figures: FullMetrics) -> dict[str, str]:
    names = ("log_loss", "brier", "ece")
    return {name: why for name, why in figures.too_few_photos.items() if name in names}


def estimate_dict(estimate: Estimate | None) -> dict[str, Any] | None:
    """JSON of a figure and its 95 % interval; a limit that is not finite is null."""
    if estimate is None:
        return None
    ends = [end if math.isfinite(end) else None for end in (estimate.low, estimate.high)]
    return {"value": estimate.value, "interval_95": ends}


def _paired(paired: PairedComparison) -> dict[str, Any]:
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


def _baseline(metrics: SplitMetrics | None, figures: FullMetrics | None) -> dict[str, Any] | None:
    if metrics is None or figures is None:
        return None
    return {
        "loss": metrics.loss,
        "num_images": metrics.num_images,
        "figures": figures_dict(figures),
    }


def _improvement(tuned: SplitMetrics, baseline: SplitMetrics | None) -> dict[str, Any] | None:
    """What tuning gained over the baseline, in fractions, by the names of `figures`."""
    if baseline is None:
        return None
    after, before = tuned.top5_accuracy, baseline.top5_accuracy
    return {
        "accuracy": tuned.accuracy - baseline.accuracy,
        "top5": None if after is None or before is None else after - before,
    }
