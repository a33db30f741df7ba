"""Fit on validation photos how a checkpoint of several labels answers.

Shape suffixes: N photos, C classes, B draws, K candidate thresholds.
"""

from __future__ import annotations

import numpy as np

from cliptune.evaluation.statistics.calibration import TEMPERATURES
from cliptune.evaluation.statistics.multilabel import (
    Floats,
    Scores,
    Targets,
    binary_log_losses,
    resampled,
)
from cliptune.model.label_answers import LabelAnswers, LabelThreshold, sigmoid

_DRAWS = 200


def fit_label_answers(logits_NC: Scores, targets_NC: Targets, *, seed: int = 0) -> LabelAnswers:
    """The temperature and a threshold for each class, for these validation photos.

    Raises `ValueError` without photos, or when a logit is not finite.
    """
    if not len(targets_NC) or not np.isfinite(logits_NC).all():
        raise ValueError("thresholds need photos, and logits that are finite")
    temperature = fit_label_temperature(logits_NC, targets_NC)
    probabilities_NC = sigmoid(np.asarray(logits_NC, np.float64) / temperature)
    counts_BN = resampled(len(targets_NC), seed=seed, draws=_DRAWS)
    return LabelAnswers(
        temperature=temperature,
        note="at the limit" if temperature in TEMPERATURES else "",
        thresholds=tuple(
            fit_threshold(probabilities_NC[:, label], targets_NC[:, label], counts_BN)
            for label in range(targets_NC.shape[1])
        ),
        num_images=len(targets_NC),
    )


def fit_one_threshold(scores_N: Floats, yes_N: Targets, *, seed: int = 0) -> LabelThreshold:
    """That of one class by itself, as `fit_label_answers` has it of the same photos and `seed`."""
    return fit_threshold(scores_N, yes_N, resampled(len(yes_N), seed=seed, draws=_DRAWS))


def fit_label_temperature(logits_NC: Scores, targets_NC: Targets) -> float:
    """The temperature of least log loss, within `TEMPERATURES`, pulled to 1 as weakly as two nats
    for a factor e: a few photos without a mistake cannot tell it."""
    from scipy.optimize import minimize_scalar

    logits_NC = np.asarray(logits_NC, dtype=np.float64)

    def cost(log_t: float) -> float:
        losses_NC = binary_log_losses(logits_NC / np.exp(log_t), targets_NC)
        return float(losses_NC.sum()) + 2 * log_t**2

    found = minimize_scalar(cost, bounds=tuple(np.log(TEMPERATURES)), method="bounded")
    return float(np.clip(np.exp(found.x), *TEMPERATURES))


def fit_threshold(scores_N: Floats, yes_N: Targets, counts_BN: Floats) -> LabelThreshold:
    """The threshold of highest F1 (right answers, 2 tp / (2 tp + fp + fn)), made steady.

    On few photos the best threshold jumps from one score to another; of the best ones of all the
    resamples `counts_BN` the median is taken, and their middle 95 % are its interval. A threshold
    lies half-way between two scores. Of a class that no photo shows it is 0.5.
    """
    photos = int(yes_N.sum())
    if not photos:
        return LabelThreshold(value=0.5)
    order_N = np.argsort(-scores_N, kind="stable")
    sorted_N = scores_N[order_N]
    ends_K = np.flatnonzero(np.append(sorted_N[:-1] > sorted_N[1:], True))
    below_K = np.append(sorted_N[1:], 0.0)[ends_K]
    candidates_K = (sorted_N[ends_K] + below_K) / 2
    counts_BN = counts_BN[counts_BN @ yes_N > 0]  # some draws hold no photo of the class
    told_BK = counts_BN[:, order_N].cumsum(axis=1)[:, ends_K]
    right_BK = (counts_BN * yes_N)[:, order_N].cumsum(axis=1)[:, ends_K]
    f1_BK = 2 * right_BK / (told_BK + (counts_BN @ yes_N)[:, None])
    best_B = candidates_K[f1_BK.argmax(axis=1)]
    low, value, high = np.quantile(best_B, [0.025, 0.5, 0.975])
    return LabelThreshold(value=float(value), low=float(low), high=float(high), photos=photos)
