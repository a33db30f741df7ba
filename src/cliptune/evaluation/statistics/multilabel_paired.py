"""Two models on the same photos, where a photo may show any of the classes.

Shape suffixes: B draws, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cliptune.evaluation.statistics.few_photos import OF_A_LABEL
from cliptune.evaluation.statistics.intervals import Estimate
from cliptune.evaluation.statistics.multilabel import (
    Floats,
    LabelDraws,
    MultilabelFigures,
    resampled_interval,
)


@dataclass(frozen=True, kw_only=True)
class PairedLabels:
    """Model A less model B on the same photos, in shares of 1, with 95 % intervals.

    Both are measured on the same resamples of the photos, so that intervals are of the difference.
    Positive differences are in favour of A, but for `hamming`, the share of wrong answers.
    `average_precision` and `f1` have one for each class: None where one of the two has no figure,
    without an interval where fewer than `OF_A_LABEL` photos, or groups of them, show it.
    """

    mean_ap: Estimate
    micro_f1: Estimate
    macro_f1: Estimate
    exact: Estimate
    hamming: Estimate
    mean_ap_p: float
    average_precision: tuple[Estimate | None, ...]
    f1: tuple[Estimate | None, ...]


def compare_paired_labels(
    a: tuple[MultilabelFigures, LabelDraws], b: tuple[MultilabelFigures, LabelDraws]
) -> PairedLabels:
    """How model A differs from B; both by `figures_and_draws`, of the same photos and seed."""
    (a_figures, a_draws), (b_figures, b_draws) = a, b

    def less(name: str) -> Estimate:
        value = getattr(a_figures, name).value - getattr(b_figures, name).value
        return _difference(value, getattr(a_draws, f"{name}_B") - getattr(b_draws, f"{name}_B"))

    return PairedLabels(
        mean_ap=less("mean_ap"),
        micro_f1=less("micro_f1"),
        macro_f1=less("macro_f1"),
        exact=less("exact"),
        hamming=less("hamming"),
        mean_ap_p=resampled_p(
            a_figures.mean_ap.value - b_figures.mean_ap.value,
            a_draws.mean_ap_B - b_draws.mean_ap_B,
        ),
        average_precision=_by_class(
            _average_precisions(a_figures),
            _average_precisions(b_figures),
            a_draws.average_precision_BC - b_draws.average_precision_BC,
            a_draws.units_C,
        ),
        f1=_by_class(
            [each.f1 for each in a_figures.classes],
            [each.f1 for each in b_figures.classes],
            a_draws.f1_BC - b_draws.f1_BC,
            a_draws.units_C,
        ),
    )


def resampled_p(value: float, drawn_B: Floats) -> float:
    """The two-sided p-value of a difference `value`, of resamples in which it was `drawn_B`.

    Twice the share of resamples on the other side of 0, or on it, their bias taken out as for the
    interval: where that just reaches 0, p is 0.05. Where none lies there, p is as if one did.
    """
    known_B = drawn_B[~np.isnan(drawn_B)]
    if not len(known_B):
        return 1.0
    around_B = known_B - known_B.mean() + value
    beyond = min(int((around_B <= 0).sum()), int((around_B >= 0).sum()))
    return min(1.0, 2 * max(1, beyond) / (1 + len(known_B)))


def _average_precisions(figures: MultilabelFigures) -> list[float | None]:
    found_C = [each.average_precision for each in figures.classes]
    return [None if each is None else each.value for each in found_C]


def _by_class(
    a_C: Sequence[float | None],
    b_C: Sequence[float | None],
    drawn_BC: Floats,
    units_C: NDArray[np.int64],
) -> tuple[Estimate | None, ...]:
    found: list[Estimate | None] = []
    for of_a, of_b, drawn_B, units in zip(a_C, b_C, drawn_BC.T, units_C, strict=True):
        if of_a is None or of_b is None:
            found.append(None)
        elif units < OF_A_LABEL:
            found.append(Estimate(of_a - of_b, -np.inf, np.inf))
        else:
            found.append(_difference(of_a - of_b, drawn_B))
    return tuple(found)


def _difference(value: float, drawn_B: Floats) -> Estimate:
    return resampled_interval(value, drawn_B, least=-1.0)
