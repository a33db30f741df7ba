"""Models of several labels on the same photos, in numbers; the first is the reference.

Shape suffixes: N photos, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliptune.evaluation.comparison.compared import Compared, NamedModel
from cliptune.evaluation.multilabel.measured import FIGURES, UNITS, class_dict
from cliptune.evaluation.report_json import estimate_dict, groups_dict, versions
from cliptune.evaluation.statistics.intervals import Estimate, holm
from cliptune.evaluation.statistics.multilabel import (
    Floats,
    LabelDraws,
    MultilabelFigures,
    Targets,
)
from cliptune.evaluation.statistics.multilabel_paired import PairedLabels, compare_paired_labels
from cliptune.model.label_answers import LabelAnswers


@dataclass(frozen=True, kw_only=True)
class ComparedLabelModel(NamedModel):
    """One of the models, measured; its thresholds stand in the order of the compared classes."""

    answers: LabelAnswers
    figures: MultilabelFigures
    probabilities_NC: Floats
    shown_NC: Targets


@dataclass(frozen=True, kw_only=True)
class LabelDifference:
    """A model less the reference on the same photos.

    `more_right_N` is how many more of a photo's answers, yes or no for each class, are right; it
    is negative where more of the reference's are. `holm_p` is the p-value of the difference in
    mAP, adjusted for all comparisons made.
    """

    model: ComparedLabelModel
    paired: PairedLabels
    holm_p: float
    more_right_N: NDArray[np.int64]

    @property
    def gained(self) -> tuple[int, ...]:
        """The photos of which it has more answers right, those with the most of them first."""
        return _places(self.more_right_N)

    @property
    def lost(self) -> tuple[int, ...]:
        """Those of which the reference has more right."""
        return _places(-self.more_right_N)


@dataclass(frozen=True, kw_only=True)
class MultilabelComparison(Compared[ComparedLabelModel]):
    """Models of any number of labels to a photo, measured."""

    differences: tuple[LabelDifference, ...]  # of the others, in their order
    targets_NC: Targets
    num_groups: int | None = None  # of photos that belong together; None where none do

    @property
    def photos_of_class(self) -> list[int]:
        """(C,) how many photos show each class."""
        return [int(count) for count in self.targets_NC.sum(axis=0)]

    def to_dict(self) -> dict[str, Any]:
        """What `comparison.json` holds of several labels; differences are less the first."""
        return {
            "task": "multilabel",
            "units": UNITS,
            "reference": self.reference.letter,
            "data_dir": self.data_dir,
            "split": self.split,
            "num_images": len(self.paths),
            **groups_dict(self.num_groups),
            **self.classes_dict(),
            "models": [self._model_dict(model) for model in self.models],
            "differences": [self._difference_dict(found) for found in self.differences],
            "seconds": self.seconds,
            "versions": versions(),
        }

    def _model_dict(self, model: ComparedLabelModel) -> dict[str, Any]:
        figures, thresholds = model.figures, model.answers.thresholds
        by_class = zip(self.class_names, figures.classes, thresholds, strict=True)
        return {
            **model.name_dict(),
            "temperature": model.answers.temperature,
            "figures": {name: estimate_dict(getattr(figures, name)) for name in FIGURES}
            | {"calibration_error": figures.calibration_error},
            "per_class": {
                name: class_dict(each) | {"threshold": threshold.model_dump()}
                for name, each, threshold in by_class
            },
        }

    def _difference_dict(self, found: LabelDifference) -> dict[str, Any]:
        paired = found.paired
        by_class = zip(self.class_names, paired.average_precision, paired.f1, strict=True)
        return {
            "model": found.model.letter,
            **{name: estimate_dict(getattr(paired, name)) for name in FIGURES},
            "mean_ap_p": paired.mean_ap_p,
            "holm_p": found.holm_p,
            "per_class": {
                name: {"average_precision": estimate_dict(ap), "f1": estimate_dict(f1)}
                for name, ap, f1 in by_class
            },
            "this_model_more_right": [str(self.paths[i]) for i in found.gained],
            "reference_more_right": [str(self.paths[i]) for i in found.lost],
        }


def build_label_differences(
    models: Sequence[ComparedLabelModel], draws: Sequence[LabelDraws], targets_NC: Targets
) -> tuple[LabelDifference, ...]:
    """Every model less the first; `draws` has the resamples of each, all of one seed."""
    first = models[0]
    paired = [
        compare_paired_labels((model.figures, own), (first.figures, draws[0]))
        for model, own in zip(models[1:], draws[1:], strict=True)
    ]
    right_of_first_N = (first.shown_NC == targets_NC).sum(axis=1)
    return tuple(
        LabelDifference(
            model=model,
            paired=each,
            holm_p=p,
            more_right_N=(model.shown_NC == targets_NC).sum(axis=1) - right_of_first_N,
        )
        for model, each, p in zip(
            models[1:], paired, holm([each.mean_ap_p for each in paired]), strict=True
        )
    )


def most_changed_classes(differences: Sequence[LabelDifference]) -> list[int]:
    """Labels of the classes that photos show, the biggest change of any average precision first."""
    change_DC = np.array([
        [0.0 if x is None else abs(x.value) for x in found.paired.average_precision]
        for found in differences
    ])  # fmt: skip
    order_C = np.argsort(-change_DC.max(axis=0), kind="stable")
    return [int(i) for i in order_C if differences[0].paired.average_precision[i] is not None]


def value_of(estimate: Estimate | None) -> float | None:
    """Its value, where there is one."""
    return None if estimate is None else estimate.value


def _places(more_N: NDArray[np.int64]) -> tuple[int, ...]:
    order_N = np.argsort(-more_N, kind="stable")
    return tuple(int(i) for i in order_N[: int((more_N > 0).sum())])
