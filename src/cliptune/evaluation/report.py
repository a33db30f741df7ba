"""An evaluation in numbers: everything the text, the page and the JSON file are made of.

Shape suffixes: N photos, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliptune.data.naming import display_names
from cliptune.data.parents import Parents
from cliptune.errors import CheckpointError
from cliptune.evaluation.families import Families, families
from cliptune.evaluation.report_json import (
    FORMAT_VERSION,
    UNITS,
    baseline_dict,
    calibration_dict,
    estimate_dict,
    figures_dict,
    groups_dict,
    improvement_dict,
    paired_dict,
    versions,
)
from cliptune.evaluation.robustness import Robustness
from cliptune.evaluation.seen import SeenPhotos
from cliptune.evaluation.sets import MeasuredSets, measured_sets
from cliptune.evaluation.statistics.class_figures import ClassFigures, class_figures
from cliptune.evaluation.statistics.figures import (
    BeforeScaling,
    FullMetrics,
    PairedComparison,
    before_scaling,
    compare_paired,
    full_metrics,
)
from cliptune.evaluation.statistics.grouped import Groups, shares_of_classes
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
from cliptune.evaluation.unknowns import NoneOfThese
from cliptune.model.answers import Answers, Floats, scaled_logits, softmax
from cliptune.text import counted

SEED = 0  # of the bootstraps: the same photos and answers give the same intervals


@dataclass(frozen=True)
class PhotoAnswers:
    """The answers for each photo that could be read. `baseline_N`: zero-shot's class of each."""

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
    class_order: tuple[int, ...]  # indices in `class_names`, alike classes beside one another
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
    sets: MeasuredSets | None = None  # where the checkpoint was trained with them
    families: Families | None = None  # where classes have parents

    @property
    def family_edges(self) -> tuple[int, ...]:
        """Places in `class_order` before which other parents than those before begin."""
        if self.families is None:
            return ()
        group_C = self.families.tree.group_C[list(self.class_order)]
        return tuple((1 + np.flatnonzero(np.diff(group_C))).tolist())

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
        values = {
            "format_version": FORMAT_VERSION,
            "units": UNITS,
            "accuracy": 100 * self.tuned.accuracy,
            "top5_accuracy": None if top5 is None else 100 * top5,
            "loss": self.tuned.loss,
            "num_images": self.tuned.num_images,
            **groups_dict(self.figures.num_groups),
            "figures": figures_dict(self.figures),
            "baseline": baseline_dict(self.baseline, self.baseline_figures),
            "improvement": improvement_dict(self.tuned, self.baseline),
            "paired": None if self.paired is None else paired_dict(self.paired),
            "calibration": calibration_dict(self.answers, self.before_scaling, self.figures),
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
        if self.sets is not None:
            values["prediction_sets"] = self.sets.to_dict(self.class_names)
        if self.families is not None:
            values["parents"] = self.families.to_dict()
        return values


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
    groups_N: Groups | None = None,
    parents: Parents | None = None,
) -> Evaluation:
    """An `Evaluation` from logits; what is not computed from them goes into it as it is given.

    `given_names` has the name shown of classes that are not shown by their readable name; photos
    of one number in `groups_N` belong together.
    Raises `ValueError` when there is no photo, `CheckpointError` when a logit is not finite.
    """
    split_metrics(logits_NC, labels_N)  # without a photo there is nothing to say
    refuse_not_finite(logits_NC, checkpoint)
    scaled_NC = scaled_logits(answers, logits_NC)
    predicted_N = scaled_NC.argmax(axis=1)
    confusion_CC = confusion_matrix(labels_N, predicted_N, num_classes=len(class_names))
    probabilities_NC = softmax(scaled_NC)
    tree = parents or Parents(class_names, {})
    order = range(len(class_names)) if class_order is None else class_order
    base_NC = baseline_logits_NC
    return Evaluation(
        checkpoint=checkpoint,
        base_model=base_model,
        data_dir=data_dir,
        split=split,
        class_names=tuple(class_names),
        class_order=tuple(order if not tree else tree.order(order)),
        display_names=display_names([*class_names, *tree.names], given_names or {}),
        missing_classes=missing_classes,
        ignored_classes=ignored_classes,
        skipped_images=skipped_images,
        tuned=split_metrics(scaled_NC, labels_N),
        baseline=None if base_NC is None else split_metrics(base_NC, labels_N),
        figures=full_metrics(scaled_NC, labels_N, seed=SEED, groups_N=groups_N),
        baseline_figures=None
        if base_NC is None
        else full_metrics(base_NC, labels_N, seed=SEED, groups_N=groups_N),
        paired=None
        if base_NC is None
        else compare_paired(scaled_NC, base_NC, labels_N, seed=SEED, groups_N=groups_N),
        answers=answers,
        before_scaling=before_scaling(logits_NC, labels_N, seed=SEED, groups_N=groups_N),
        classes=class_figures(
            confusion_CC, class_names, shares=_shares(labels_N, predicted_N, groups_N, class_names)
        ),
        report=classification_report(labels_N, predicted_N, class_names),
        confusion_CC=confusion_CC,
        confused_pairs=most_confused_pairs(confusion_CC, class_names),
        photos=PhotoAnswers(
            tuple(paths), labels_N, probabilities_NC, known_scores_N,
            None if base_NC is None else base_NC.argmax(axis=1),
        ),
        none_of_these=none_of_these,
        robustness=robustness,
        seconds=seconds,
        seen=seen,
        seen_unknown=seen_unknown,
        sets=measured_sets(answers, probabilities_NC, labels_N),
        families=families(tree, answers, probabilities_NC, labels_N),
    )  # fmt: skip


def _shares(
    labels_N: Labels, predicted_N: Labels, groups_N: Groups | None, class_names: Sequence[str]
) -> tuple[list[Estimate | None], list[Estimate | None]] | None:
    """(precision, recall) of each class; None where photos are independent."""
    if groups_N is None:
        return None
    right_N, classes = labels_N == predicted_N, len(class_names)
    return (
        shares_of_classes(right_N, predicted_N, groups_N, classes=classes),
        shares_of_classes(right_N, labels_N, groups_N, classes=classes),
    )


def refuse_not_finite(logits_NC: Logits, checkpoint: str) -> None:
    """Raise `CheckpointError` where the scores of `checkpoint` are no numbers."""
    if not_finite := int((~np.isfinite(logits_NC)).any(axis=1).sum()):
        raise CheckpointError(
            f"{checkpoint}: its scores are not finite numbers for {not_finite} of "
            f"{counted(len(logits_NC), 'photo')}. Its training diverged, or its weights are "
            "damaged: evaluate another checkpoint, or train again with a smaller learning rate."
        )
