"""From logits to answers: probabilities that mean what they say, and "none of these".

What is fitted on validation photos (by `cliptune.evaluation`) is applied here, for whoever
predicts. `answered` is the one way from logits to answers. Shape suffixes: N photos, C classes,
D numbers of a feature, K directions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from cliptune.language import marked
from cliptune.model.conformal import PredictionSets, SureClass

Floats = NDArray[np.float64]
Logits = NDArray[np.floating[Any]]
Features = NDArray[np.floating[Any]]

Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
ScoreName = Literal["probability", "energy", "weights", "photos"]
SCORE_NAMES: dict[ScoreName, str] = {
    "probability": marked("highest probability, scaled"),
    "energy": marked("energy"),
    "weights": marked("cosine to the nearest class weight"),
    "photos": marked("cosine to the nearest class mean of photos"),
}


class Answers(BaseModel):
    """How a checkpoint answers: what `cliptune.json` holds of it.

    Logits are divided by `temperature`, or multiplied by `factors`, one for each class. A photo
    whose `score` is below `threshold` shows none of the classes: on the `num_images` validation
    photos that kept a share of `kept`, at least the `share` asked for.

    Where classes are as frequent as another prior than training's says, `shifts` are added to the
    logits so scaled, the logarithms of the one over the other (Saerens et al., Neural Computation
    2002; Menon et al., ICLR 2021). The score stays that without them: whether a photo shows one of
    the classes is no question of which are frequent. The `sets` are those of the probabilities as
    they are answered; what they promise is for classes as frequent as on the photos of validation.
    """

    model_config = ConfigDict(strict=True, frozen=True)

    temperature: Positive
    factors: tuple[Positive, ...] | None = None
    note: str = ""  # why the temperature is 1, or at a limit
    score: ScoreName
    threshold: Annotated[float, Field(allow_inf_nan=False)]
    share: float
    kept: float
    num_images: int
    shifts: tuple[Finite, ...] | None = None  # for each class, of `--prior`; never saved
    sets: PredictionSets | None = None  # where they were asked for
    sure: SureClass | None = None  # where classes have parents

    @model_serializer(mode="wrap")
    def _without_what_is_not_there(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Checkpoints without are written as they were before there were any."""
        values: dict[str, Any] = handler(self)
        later = ("sets", "sure")
        return {key: x for key, x in values.items() if key not in later or x is not None}

    def scale(self, logits_NC: Logits) -> Floats:
        """(N, C) logits whose softmax are calibrated probabilities, by the prior of training."""
        logits = np.asarray(logits_NC, dtype=np.float64)
        scaled: Floats = (
            logits / self.temperature if self.factors is None else logits * np.array(self.factors)
        )
        return scaled

    def knows(self, scores_N: Floats) -> NDArray[np.bool_]:
        """(N,) whether a photo of that score shows one of the classes: it reaches the threshold."""
        known_N: NDArray[np.bool_] = scores_N >= self.threshold
        return known_N


@dataclass(frozen=True)
class Answered:
    """What a checkpoint answers for N photos.

    `known_scores_N` (higher is more surely known) and `known_N` (whether it reaches the threshold)
    are None for a checkpoint that holds no `Answers`; `sets` for one without prediction sets.
    """

    scaled_NC: Floats  # logits whose softmax are the probabilities
    known_scores_N: Floats | None
    known_N: NDArray[np.bool_] | None
    sets: PredictionSets | None = None

    @cached_property
    def probabilities_NC(self) -> Floats:
        """(N, C) probabilities; each row sums to 1."""
        return softmax(self.scaled_NC)

    @cached_property
    def in_set_NC(self) -> NDArray[np.bool_] | None:
        """(N, C) whether a class is in the prediction set of a photo; None without sets."""
        return None if self.sets is None else self.sets.holds(self.probabilities_NC)

    def best(self, photo: int, *, k: int) -> NDArray[np.intp]:
        """The `k` most probable classes of one photo (all, of fewer), the best first.

        Of equally probable ones the first in the checkpoint's order comes first.
        """
        order: NDArray[np.intp] = np.argsort(-self.probabilities_NC[photo], kind="stable")[:k]
        return order


def answered(
    answers: Answers | None,
    logits_NC: Logits,
    features_ND: Features,
    *,
    weights_CD: Features,
    means_CD: Features | None,
) -> Answered:
    """Logits scaled, scored and held against the threshold, as `answers` says.

    `weights_CD` are the head's class weights, `means_CD` the class means of photos, where the
    checkpoint holds them. Without `answers`, logits stay as they are and no score is told.

    Raises `ValueError` where the score is `photos` and there are no means.
    """
    if answers is None:
        return Answered(scaled_logits(None, logits_NC), None, None)
    scores_N = known_scores(
        answers.score,
        answers.scale(logits_NC),
        features_ND,
        weights_CD=weights_CD,
        means_KD=means_CD,
    )
    known_N = answers.knows(scores_N)
    return Answered(scaled_logits(answers, logits_NC), scores_N, known_N, answers.sets)


def scaled_logits(answers: Answers | None, logits_NC: Logits) -> Floats:
    """(N, C) float64 logits, scaled and shifted as `answers` says; as they are without."""
    if answers is None:
        return np.asarray(logits_NC, np.float64)
    scaled_NC = answers.scale(logits_NC)
    return scaled_NC if answers.shifts is None else scaled_NC + np.array(answers.shifts)


def all_known_scores(
    scaled_NC: Logits,
    features_ND: Features,
    *,
    weights_CD: Features,
    means_CD: Features | None,
) -> Mapping[ScoreName, Floats]:
    """(N,) by each score there is; without class means, that of photos is not there."""
    return {
        name: known_scores(name, scaled_NC, features_ND, weights_CD=weights_CD, means_KD=means_CD)
        for name in SCORE_NAMES
        if name != "photos" or means_CD is not None
    }


def known_scores(
    name: ScoreName,
    scaled_NC: Logits,
    features_ND: Features,
    *,
    weights_CD: Features,
    means_KD: Features | None,
) -> Floats:
    """(N,) the score `name`, higher for photos of a known class, of calibrated logits.

    Raises `ValueError` for the score `photos` without class means: nothing stands in for them.
    """
    if name == "probability":
        return max_probability(scaled_NC)
    if name == "energy":
        return energy_score(scaled_NC)
    if name == "weights":
        return max_cosine(features_ND, weights_CD)
    if means_KD is None:
        raise ValueError("the score 'photos' asks for class means, and there are none")
    return max_cosine(features_ND, means_KD)


def softmax(logits_NC: Logits) -> Floats:
    """(N, C) probabilities; each row sums to 1."""
    logits = np.asarray(logits_NC, dtype=np.float64)
    result: Floats = np.exp(logits - energy_score(logits)[:, None])
    return result


def max_probability(logits_NC: Logits) -> Floats:
    """(N,) highest probability of the scaled logits: Hendrycks & Gimpel (2017), section 2."""
    logits_NC = np.asarray(logits_NC, dtype=np.float64)
    result: Floats = np.exp(logits_NC.max(axis=1) - energy_score(logits_NC))
    return result


def energy_score(logits_NC: Logits, *, temperature: float = 1.0) -> Floats:
    """(N,) T log sum exp(logits / T), the negative of the energy in Liu et al. (2020), eq. 4."""
    scaled_NC = np.asarray(logits_NC, dtype=np.float64) / temperature
    peak_N1 = scaled_NC.max(axis=1, keepdims=True)  # taken out, so that nothing overflows
    sums_N = np.exp(scaled_NC - peak_N1).sum(axis=1)
    result: Floats = temperature * (peak_N1[:, 0] + np.log(sums_N))
    return result


def max_cosine(features_ND: Features, directions_KD: Features) -> Floats:
    """(N,) highest cosine of a feature with any of the directions but zeros; at most 1.

    With the head's weights or the text features as directions this is, for a cosine head, the
    highest logit over its scale: "MaxLogit" of Hendrycks et al. (2022), Scaling Out-of-Distribution
    Detection for Real-World Settings. With `class_means` it asks how near the photo is to those
    trained on.
    """
    directions_KD = np.asarray(directions_KD)
    given_KD = unit_rows(directions_KD[np.any(directions_KD != 0, axis=1)])
    result: Floats = (unit_rows(features_ND) @ given_KD.T).max(axis=1)
    return result


def class_means(
    features_ND: Features, labels_N: NDArray[np.integer[Any]], *, num_classes: int
) -> Floats:
    """(C, D) direction of each class's mean feature, all of length 1; zeros without photos."""
    sums_CD = np.zeros((num_classes, features_ND.shape[1]))
    np.add.at(sums_CD, labels_N, unit_rows(features_ND))
    return unit_rows(sums_CD)


def unit_rows(features_ND: Features) -> Floats:
    """Rows of length 1. A row of zeros stays so: its cosine with anything is 0."""
    features_ND = np.asarray(features_ND, dtype=np.float64)
    length_N1 = np.linalg.norm(features_ND, axis=1, keepdims=True)
    result: Floats = features_ND / np.where(length_N1 > 0, length_N1, 1)
    return result
