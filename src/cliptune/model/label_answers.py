"""From logits to answers where a photo may show any of the classes: a threshold for each.

What is fitted on validation photos (by `cliptune.evaluation`) is applied here, for whoever
predicts. Shape suffixes: N photos, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from cliptune.model.answers import Answered, Answers, Floats, Logits, Positive

Probability = Annotated[float, Field(ge=0, le=1)]


class LabelThreshold(BaseModel):
    """From which probability on a class is told, with the middle 95 % of what other validation
    photos like these would have said; None where none of them shows the class, and it stays 0.5."""

    model_config = ConfigDict(strict=True, frozen=True)

    value: Probability
    low: Probability | None = None
    high: Probability | None = None
    photos: int = 0  # of val that show the class


class LabelAnswers(BaseModel):
    """How a checkpoint of several labels answers: what `cliptune.json` holds of it.

    Logits are divided by `temperature`; their sigmoid is the probability of each class by itself.
    """

    model_config = ConfigDict(strict=True, frozen=True)

    temperature: Positive
    note: str = ""  # why the temperature is 1, or at a limit
    thresholds: tuple[LabelThreshold, ...]
    num_images: int

    @property
    def thresholds_C(self) -> Floats:
        """(C,) the probabilities from which on classes are told."""
        return np.array([each.value for each in self.thresholds])


AnyAnswers = Answers | LabelAnswers  # of one label to a photo, or of any number


def usual_answers(num_classes: int) -> LabelAnswers:
    """Those of a checkpoint without val: every class from one half on."""
    return LabelAnswers(
        temperature=1.0, note="no val", num_images=0,
        thresholds=(LabelThreshold(value=0.5),) * num_classes,
    )  # fmt: skip


def reordered_label_answers(answers: LabelAnswers, order_C: Sequence[int]) -> LabelAnswers:
    """The same where class c is the one that was at `order_C[c]`."""
    thresholds = tuple(answers.thresholds[place] for place in order_C)
    return answers.model_copy(update={"thresholds": thresholds})


@dataclass(frozen=True, kw_only=True)
class AnsweredLabels(Answered):
    """What a checkpoint answers for N photos, each class by itself.

    `known_N` is whether any class is told; `known_scores_N` how far the surest is above its
    threshold (below: negative).
    """

    thresholds_C: Floats

    @cached_property
    def probabilities_NC(self) -> Floats:
        """(N, C) probability of each class by itself."""
        return sigmoid(self.scaled_NC)

    @property
    def shown_NC(self) -> NDArray[np.bool_]:
        """(N, C) which classes are told: their probability reaches the threshold."""
        shown_NC: NDArray[np.bool_] = self.probabilities_NC >= self.thresholds_C
        return shown_NC

    def shown(self, photo: int) -> Sequence[int]:
        """The classes told of one photo, the most probable first."""
        return [int(i) for i in self.best(photo, k=len(self.thresholds_C))
                if self.shown_NC[photo, i]]  # fmt: skip


def answered_labels(answers: LabelAnswers, logits_NC: Logits) -> AnsweredLabels:
    """Logits scaled and held against the thresholds, as `answers` says."""
    scaled_NC = np.asarray(logits_NC, np.float64) / answers.temperature
    margin_NC = sigmoid(scaled_NC) - answers.thresholds_C
    scores_N: Floats = margin_NC.max(axis=1)
    return AnsweredLabels(
        scaled_NC=scaled_NC, known_scores_N=scores_N, known_N=scores_N >= 0,
        thresholds_C=answers.thresholds_C,
    )  # fmt: skip


def sigmoid(logits_NC: Logits) -> Floats:
    """(N, C) probabilities of yes."""
    from scipy.special import expit

    result: Floats = expit(np.asarray(logits_NC, dtype=np.float64))
    return result
