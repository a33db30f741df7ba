"""From logits to answers: probabilities that mean what they say, and "none of these".

What is fitted on validation photos (by `cliptune.evaluation`) is applied here, for whoever
predicts. Shape suffixes: N photos, C classes, D numbers of a feature, K directions.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

Floats = NDArray[np.float64]
Logits = NDArray[np.floating[Any]]
Features = NDArray[np.floating[Any]]

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
ScoreName = Literal["probability", "energy", "weights", "photos"]
SCORE_NAMES: dict[ScoreName, str] = {
    "probability": "highest probability, scaled",
    "energy": "energy",
    "weights": "cosine to the nearest class weight",
    "photos": "cosine to the nearest class mean of photos",
}


class Answers(BaseModel):
    """How a checkpoint answers: what `cliptune.json` holds of it.

    Logits are divided by `temperature`, or multiplied by `factors`, one for each class. A photo
    whose `score` is below `threshold` shows none of the classes: on the `num_images` validation
    photos that kept a share of `kept`, at least the `share` asked for.
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

    def scale(self, logits_NC: Logits) -> Floats:
        """(N, C) logits whose softmax are calibrated probabilities."""
        logits = np.asarray(logits_NC, dtype=np.float64)
        scaled: Floats = (
            logits / self.temperature if self.factors is None else logits * np.array(self.factors)
        )
        return scaled

    def known_scores(
        self, logits_NC: Logits, features_ND: Features, *, weights_CD: Features, means_KD: Features
    ) -> Floats:
        """(N,) the chosen score of each photo; higher is more surely known."""
        return known_scores(
            self.score, self.scale(logits_NC), features_ND, weights_CD=weights_CD, means_KD=means_KD
        )


def known_scores(
    name: ScoreName,
    scaled_NC: Logits,
    features_ND: Features,
    *,
    weights_CD: Features,
    means_KD: Features,
) -> Floats:
    """(N,) the score `name`, higher for photos of a known class, of calibrated logits."""
    if name == "probability":
        return max_probability(scaled_NC)
    if name == "energy":
        return energy_score(scaled_NC)
    return max_cosine(features_ND, weights_CD if name == "weights" else means_KD)


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
