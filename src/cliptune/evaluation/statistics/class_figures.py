"""What a model is worth class by class: what tables and pictures of classes are made of.

Shape suffixes: C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cliptune.evaluation.statistics.intervals import Estimate, proportion


@dataclass(frozen=True, kw_only=True)
class ClassFigures:
    """One class on one split, in fractions of 1; None is a figure that is not defined.

    Recall is None where the class has no photo, precision where it is never predicted, F1 (which
    has no interval) where both are so. scikit-learn's report has 0 in each of these places.
    """

    name: str
    precision: Estimate | None
    recall: Estimate | None
    f1: float | None
    support: int  # photos of the class


@dataclass(frozen=True, kw_only=True)
class AverageFigures:
    """The classes' figures in the mean, as in scikit-learn's report: what is undefined counts 0."""

    precision: float
    recall: float
    f1: float
    support: int  # photos of all classes


Shares = Sequence[Estimate | None]


def class_figures(
    confusion_CC: NDArray[np.int64],
    class_names: Sequence[str],
    *,
    shares: tuple[Shares, Shares] | None = None,
) -> tuple[ClassFigures, ...]:
    """The figures of each class, from the counts whose row is the true class.

    `shares` are precision and recall of each class with their intervals, where photos belong to
    groups: counts alone do not tell how sure these are.
    """
    right_C = np.diagonal(confusion_CC).tolist()
    support_C, predicted_C = (confusion_CC.sum(axis=axis).tolist() for axis in (1, 0))
    precision_C, recall_C = shares or (
        list(map(proportion, right_C, predicted_C)),
        list(map(proportion, right_C, support_C)),
    )
    return tuple(
        ClassFigures(
            name=name,
            precision=precision_C[i],
            recall=recall_C[i],
            f1=2 * right_C[i] / total if (total := support_C[i] + predicted_C[i]) else None,
            support=support_C[i],
        )
        for i, name in enumerate(class_names)
    )


def macro_average(classes: Sequence[ClassFigures]) -> AverageFigures:
    """The mean over `classes`, every class counting alike."""
    return _average(classes, [1] * len(classes))


def weighted_average(classes: Sequence[ClassFigures]) -> AverageFigures:
    """The mean over `classes`, each counting as often as it has photos."""
    return _average(classes, [each.support for each in classes])


def _average(classes: Sequence[ClassFigures], weights: Sequence[int]) -> AverageFigures:
    def mean(values: Sequence[float | None]) -> float:
        return float(np.average([value or 0.0 for value in values], weights=weights))

    return AverageFigures(
        precision=mean([_value(each.precision) for each in classes]),
        recall=mean([_value(each.recall) for each in classes]),
        f1=mean([each.f1 for each in classes]),
        support=sum(each.support for each in classes),
    )


def _value(estimate: Estimate | None) -> float | None:
    return None if estimate is None else estimate.value
