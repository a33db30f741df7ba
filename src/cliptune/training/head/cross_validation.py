"""The strength of a head's pull to its offset, by cross-validation; and the heads that chose it.

Shape suffixes: N photos, C classes, D feature, R coordinates, F repeats, K folds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cliptune.training.head.logistic import Coordinates, Floats, Labels, fit_logistic
from cliptune.training.head.mixture import log_loss

STRENGTHS = (3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4)  # of the pull, from strong to weak
SMALL = 50_000_000  # products in a pass over the photos
_FEW = 1_000_000


@dataclass(frozen=True)
class Plan:
    """How much is tried: less where there are many photos or classes."""

    folds: int
    repeats: int
    strengths: tuple[float, ...]
    steps: int
    tolerance: float


@dataclass(frozen=True)
class Problem:
    """What is fitted: points of the photos, their labels, what zero-shot CLIP says of them."""

    space: Coordinates
    labels_N: Labels
    zero_NC: Floats
    text_CD: Floats  # times the scale of cosines
    shifts_C: Floats
    plan: Plan

    def loss(self, logits_NC: Floats, among_N: NDArray[np.bool_]) -> float:
        """The log loss of these photos, with what training adds to logits."""
        return log_loss(logits_NC[among_N] + self.shifts_C, self.labels_N[among_N])


def plan_for(work: int) -> Plan:
    """What takes seconds for some thousand photos and minutes for a thousand classes.

    `work` is the product of photos, classes and numbers of a feature.
    """
    if work > 1_000_000_000:
        return Plan(2, 1, (1e-3, 3e-4, 1e-4, 3e-5), 20, 1e-4)
    if work > SMALL:
        return Plan(3, 1, STRENGTHS[1:], 40, 1e-4)
    return Plan(5, 3 if work < _FEW else 1, STRENGTHS, 100, 1e-4)


@dataclass(frozen=True)
class Chosen:
    """A strength, and what heads of that strength say that were fitted without a fold.

    `answers_FNC` are held-out logits, each photo's by the head without its fold; `fits_KCR` the
    heads of the first repeat, in coordinates.
    """

    strength: float
    answers_FNC: Floats
    fits_KCR: Floats


def choose_strength(given: Problem, offset_NC: Floats, folds_FN: NDArray[np.int64]) -> Chosen:
    """The strength of least held-out log loss.

    From strong to weak, each fit starting at the one before, until the loss rises.
    """
    best, best_loss = None, float("inf")
    starts: dict[tuple[int, int], Floats] = {}
    held_N = folds_FN[0] >= 0
    for strength in given.plan.strengths:
        answers_FNC = np.broadcast_to(offset_NC, (len(folds_FN), *offset_NC.shape)).copy()
        for repeat, folds_N in enumerate(folds_FN):
            for fold in range(folds_N.max() + 1):
                out_N = folds_N == fold
                weights_CR = _fit(given, ~out_N, offset_NC, strength, starts.get((repeat, fold)))
                starts[repeat, fold] = weights_CR
                answers_FNC[repeat, out_N] += given.space.points_NR[out_N] @ weights_CR.T
        loss = float(np.mean([given.loss(answers_NC, held_N) for answers_NC in answers_FNC]))
        if best is not None and loss >= best_loss:
            break
        fits_KCR = np.stack([starts[0, fold] for fold in range(folds_FN[0].max() + 1)])
        best, best_loss = Chosen(strength, answers_FNC, fits_KCR), loss
    assert best is not None
    return best


def _fit(
    given: Problem, among_N: NDArray[np.bool_], offset_NC: Floats, strength: float,
    start_CR: Floats | None,
) -> Floats:  # fmt: skip
    return fit_logistic(
        given.space.points_NR[among_N], given.labels_N[among_N],
        offset_NC[among_N] + given.shifts_C,
        strength=strength, start_CR=start_CR, tolerance=given.plan.tolerance,
        steps=given.plan.steps,
    )  # fmt: skip
