"""Probabilities that mean what they say: proper scores, and scalings fitted on validation photos.

Shape suffixes: N photos, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cliptune.evaluation.statistics.grouped import standard_error
from cliptune.evaluation.statistics.intervals import Floats
from cliptune.evaluation.statistics.metrics import Labels, Logits

TEMPERATURES = (0.05, 20.0)  # the range a fitted temperature is kept in
PULL = 0.1  # nats for factors that all differ from the shared one by 100 %
FACTORS = (0.1, 10.0)  # a class's factor, as a multiple of the shared one

FitNote = Literal["", "separable", "at the limit", "constant"]


@dataclass(frozen=True)
class Temperature:
    """Logits are divided by `value`. `nll` is the mean log loss on the fitted photos, in nats.

    `note` is "" for a proper minimum. "separable": every fitted photo is classified rightly, the
    log loss falls for ever as T goes to 0, and `value` is the lower end of the range: these
    photos cannot tell the temperature. "at the limit": the minimum lies outside the range.
    "constant": the logits of each photo are all alike, and `value` is 1.
    """

    value: float
    nll: float
    note: FitNote

    def scale(self, logits_NC: Logits) -> Floats:
        """Logits over the temperature: the same class stays the highest."""
        scaled_NC: Floats = np.asarray(logits_NC, dtype=np.float64) / self.value
        return scaled_NC


@dataclass(frozen=True)
class VectorScale:
    """Each class's logit is multiplied by its positive factor; no bias. May change the arg max."""

    factors: tuple[float, ...]  # one for each class
    nll: float

    def scale(self, logits_NC: Logits) -> Floats:
        """Logits times the factors of their classes."""
        scaled_NC: Floats = np.asarray(logits_NC, dtype=np.float64) * np.asarray(self.factors)
        return scaled_NC


@dataclass(frozen=True)
class Calibration:
    """Both scalings, and which to use. Cross-validated log losses are means in nats per photo.

    They are None where there were fewer than two photos, and the temperature was chosen.
    """

    temperature: Temperature
    vector: VectorScale
    chosen: Literal["temperature", "vector"]
    unscaled_nll: float
    temperature_cv_nll: float | None
    vector_cv_nll: float | None
    folds: int

    def scale(self, logits_NC: Logits) -> Floats:
        """Logits after the chosen scaling."""
        chosen = self.temperature if self.chosen == "temperature" else self.vector
        return chosen.scale(logits_NC)


def log_losses(logits_NC: Logits, labels_N: Labels) -> Floats:
    """(N,) negative log-likelihood of each photo's class, in nats."""
    from scipy.special import log_softmax

    log_p_NC = log_softmax(np.asarray(logits_NC, dtype=np.float64), axis=1)
    result: Floats = -np.take_along_axis(log_p_NC, labels_N[:, None], axis=1)[:, 0]
    return result


def brier_scores(logits_NC: Logits, labels_N: Labels) -> Floats:
    """(N,) Brier score of each photo: squared errors of its probabilities, summed over classes.

    From 0 to 2. For two classes that is twice the score of the binary form.

    Brier (1950), Monthly Weather Review 78, 1-3, eq. 2.
    """
    from scipy.special import softmax

    p_NC = softmax(np.asarray(logits_NC, dtype=np.float64), axis=1)
    p_NC[np.arange(len(labels_N)), labels_N] -= 1
    result: Floats = (p_NC**2).sum(axis=1)
    return result


def fit_temperature(
    logits_NC: Logits, labels_N: Labels, *, limits: tuple[float, float] = TEMPERATURES
) -> Temperature:
    """The temperature that makes the log loss of `logits_NC` / T least, within `limits`.

    Guo, Pleiss, Sun, Weinberger (2017), On Calibration of Modern Neural Networks, section 4.2.
    The log loss is convex in 1/T; its slope's root is found by bracketing.
    Raises `ValueError` without photos, or when a logit is not finite.
    """
    from scipy.optimize import brentq

    logits_NC = _checked(logits_NC, labels_N)
    truth_N = np.take_along_axis(logits_NC, labels_N[:, None], axis=1)[:, 0]

    def slope(inverse: float) -> float:
        """Derivative of the log loss by 1/T: mean expected logit less the truth's."""
        from scipy.special import softmax

        expected_N = (softmax(inverse * logits_NC, axis=1) * logits_NC).sum(axis=1)
        return float((expected_N - truth_N).mean())

    least, most = 1 / limits[1], 1 / limits[0]
    note: FitNote = ""
    if np.ptp(logits_NC, axis=1).max() == 0:
        value, note = 1.0, "constant"
    elif (truth_N >= logits_NC.max(axis=1)).all():
        value, note = limits[0], "separable"
    elif slope(most) <= 0:
        value, note = limits[0], "at the limit"
    elif slope(least) >= 0:
        value, note = limits[1], "at the limit"
    else:
        value = 1 / float(brentq(slope, least, most, xtol=1e-12, rtol=1e-12))
    return Temperature(value, float(log_losses(logits_NC / value, labels_N).mean()), note)


def scaled_log_losses(
    logits_NC: Logits,
    labels_N: NDArray[Any],
    *,
    losses: Callable[[Floats, NDArray[Any]], Floats] = log_losses,
) -> Floats:
    """(N,) log losses, in nats, once a temperature has set how sure the answers are.

    `losses` are those of logits (N, C), for each photo.

    For choosing among classifiers whose logits have other sizes. What is least is n times the loss
    plus 2 (log T)², two nats for a temperature off by e: few photos, all right, move it little.
    Infinite where a logit is not finite.
    """
    from scipy.optimize import minimize_scalar

    if not np.isfinite(logits_NC).all():
        return np.full(len(labels_N), np.inf)
    logits_NC = np.asarray(logits_NC, dtype=np.float64)

    def cost(log_t: float) -> float:
        return float(losses(logits_NC / np.exp(log_t), labels_N).sum()) + 2 * log_t**2

    found = minimize_scalar(cost, bounds=(-3, 3), method="bounded")
    losses_N: Floats = losses(logits_NC / np.exp(found.x), labels_N)
    return losses_N


def fit_vector(
    logits_NC: Logits, labels_N: Labels, *, temperature: float, pull: float = PULL
) -> VectorScale:
    """A positive factor for each class that makes the log loss least, pulled towards 1/T.

    Minimises log loss + `pull` * mean over classes of (T * factor - 1)^2, which is convex. Guo
    et al. (2017) call it vector scaling; here without its bias, which would move the classes'
    shares to those of the validation photos. Meant for cosine logits: adding a constant to a
    photo's logits changes the outcome.
    """
    from scipy.optimize import minimize
    from scipy.special import log_softmax

    scaled_NC = _checked(logits_NC, labels_N) / temperature
    photos, classes = scaled_NC.shape

    def loss_and_slope(factor_C: Floats) -> tuple[float, Floats]:
        log_p_NC = log_softmax(scaled_NC * factor_C, axis=1)
        excess_NC = np.exp(log_p_NC)
        excess_NC[np.arange(photos), labels_N] -= 1
        loss = -log_p_NC[np.arange(photos), labels_N].mean() + pull * ((factor_C - 1) ** 2).mean()
        slope_C = (excess_NC * scaled_NC).mean(axis=0) + 2 * pull * (factor_C - 1) / classes
        return float(loss), slope_C

    found = minimize(
        loss_and_slope, np.ones(classes), jac=True, method="L-BFGS-B", bounds=[FACTORS] * classes
    )
    factor_C = found.x / temperature
    nll = float(log_losses(scaled_NC * found.x, labels_N).mean())
    return VectorScale(tuple(float(factor) for factor in factor_C), nll)


def fit_calibration(
    logits_NC: Logits,
    labels_N: Labels,
    *,
    seed: int,
    folds: int = 5,
    pull: float = PULL,
    groups_N: NDArray[np.int64] | None = None,
) -> Calibration:
    """Fit both scalings on validation photos and choose between them by cross-validation.

    The factors for each class are chosen only where their cross-validated log loss is lower by
    more than one standard error of the difference per photo: they have C free numbers and may
    change which class is highest; the temperature has one and may not. The order of the photos
    in the folds, or of their groups, is drawn with `seed`. Raises `ValueError` as
    `fit_temperature` does.
    """
    logits_NC = _checked(logits_NC, labels_N)
    temperature = fit_temperature(logits_NC, labels_N)
    vector = fit_vector(logits_NC, labels_N, temperature=temperature.value, pull=pull)
    photos = len(labels_N)
    place_N = np.arange(photos)  # of the group of each photo
    if groups_N is not None:
        place_N = np.unique(groups_N, return_inverse=True)[1]
    groups = int(place_N.max()) + 1
    folds = min(folds, groups)
    unscaled = float(log_losses(logits_NC, labels_N).mean())
    if folds < 2:
        return Calibration(temperature, vector, "temperature", unscaled, None, None, 0)
    shared_N, single_N = np.empty(photos), np.empty(photos)
    for drawn in np.array_split(np.random.default_rng(seed).permutation(groups), folds):
        held_out = drawn if groups_N is None else np.flatnonzero(np.isin(place_N, drawn))
        rest = np.setdiff1d(np.arange(photos), held_out)
        one = fit_temperature(logits_NC[rest], labels_N[rest])
        each = fit_vector(logits_NC[rest], labels_N[rest], temperature=one.value, pull=pull)
        shared_N[held_out] = log_losses(one.scale(logits_NC[held_out]), labels_N[held_out])
        single_N[held_out] = log_losses(each.scale(logits_NC[held_out]), labels_N[held_out])
    gain_N = shared_N - single_N
    error = gain_N.std(ddof=1) / np.sqrt(photos)
    if groups_N is not None:
        error = standard_error(gain_N, groups_N)
    wins = gain_N.mean() > error
    return Calibration(
        temperature,
        vector,
        "vector" if wins else "temperature",
        unscaled,
        float(shared_N.mean()),
        float(single_N.mean()),
        folds,
    )


def _checked(logits_NC: Logits, labels_N: Labels) -> Floats:
    checked_NC: Floats = np.asarray(logits_NC, dtype=np.float64)
    if not len(labels_N):
        raise ValueError("there is no photo to fit a scaling on")
    if not np.isfinite(checked_NC).all():
        raise ValueError("logits are to be finite numbers")
    return checked_NC
