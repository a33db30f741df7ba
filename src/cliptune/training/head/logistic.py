"""Logistic regression with an offset and a ridge, on coordinates that make it quick.

Shape suffixes: N photos, C classes, D feature, R coordinates (the last of them is constant).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

Floats = NDArray[np.floating]
Labels = NDArray[np.int64]

_LARGE = 2_000_000  # logits: from here on in single precision, which is twice as fast


@dataclass(frozen=True)
class Coordinates:
    """Standardised features on their principal axes, of mean square length 1, and a constant 1.

    A ridge does not see a rotation, so a fit on these is the fit on all D numbers, however few
    photos there are. `points_NR` = [(f - centre) @ axes_DR, 1].
    """

    points_NR: Floats
    centre_D: Floats
    axes_DR: Floats  # one column fewer than R

    def on_features(self, weights_CR: Floats) -> tuple[Floats, Floats]:
        """(C, D) weights of f and the (C,) bias that answer as `weights_CR` do."""
        weights_CD = weights_CR[:, :-1] @ self.axes_DR.T
        return weights_CD, weights_CR[:, -1] - weights_CD @ self.centre_D


def directions(features_ND: Floats) -> Floats:
    """(N, D) features of length 1; a feature of zeros stays."""
    lengths_N1 = np.linalg.norm(features_ND, axis=1, keepdims=True)
    result: Floats = features_ND / np.where(lengths_N1 > 0, lengths_N1, 1.0)
    return result


def coordinates(features_ND: Floats, *, projection_DH: Floats | None = None) -> Coordinates:
    """Each number of a feature over its standard deviation; then as `Coordinates` says.

    With `projection_DH` those numbers are what it was made of, as far as it tells: before a
    projection they have scales of their own, which it mixes.
    """
    back_DH = None if projection_DH is None else np.linalg.pinv(np.float64(projection_DH)).T
    points_NH = features_ND if back_DH is None else features_ND @ back_DH
    deviations_H = points_NH.std(axis=0)
    # A number that never changes says nothing; almost never: hardly more than the others.
    scale_H = np.maximum(deviations_H, 1e-3 * np.median(deviations_H))
    scale_H[scale_H == 0] = 1.0
    centred_NH = (points_NH - points_NH.mean(axis=0)) / scale_H
    energy = np.sqrt((centred_NH**2).sum(axis=1).mean())
    if energy > 0:
        centred_NH, scale_H = centred_NH / energy, scale_H * energy
    squares_R, axes_HR = np.linalg.eigh(centred_NH.T @ centred_NH)
    axes_HR = axes_HR[:, squares_R > 1e-12 * max(1e-300, squares_R.max(initial=0.0))]
    points_NR = np.hstack([centred_NH @ axes_HR, np.ones((len(features_ND), 1))])
    axes_HR /= scale_H[:, None]
    axes_DR = axes_HR if back_DH is None else back_DH @ axes_HR
    return Coordinates(points_NR, features_ND.mean(axis=0), axes_DR)


def fit_logistic(
    points_NR: Floats,
    labels_N: Labels,
    offset_NC: Floats,
    *,
    strength: float,
    start_CR: Floats | None = None,
    tolerance: float = 1e-5,
    steps: int = 200,
) -> Floats:
    """(C, R) float64 weights W of least log loss(offset + points Wᵀ) + strength/2 |W|².

    The log loss is the mean over photos, in nats. The problem is strictly convex: `start_CR`
    changes the time, not the answer. `tolerance` bounds the gradient in scaled coordinates, where
    Böhning's bound of the Hessian (1992), on the principal axes a diagonal, is the identity.
    """
    count, classes = offset_NC.shape
    kind = np.float32 if offset_NC.size >= _LARGE else np.float64
    scale_R = 1 / np.sqrt(0.5 * (points_NR**2).mean(axis=0) + strength)
    scaled_NR = (points_NR * scale_R).astype(kind)
    offset_NC = offset_NC.astype(kind)
    pull_R = strength * scale_R**2
    rows_N = np.arange(count)

    def loss_and_gradient(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights_RC = flat.reshape(-1, classes)
        logits_NC = scaled_NR @ weights_RC.astype(kind)
        logits_NC += offset_NC
        logits_NC -= logits_NC.max(axis=1, keepdims=True)
        own_N = logits_NC[rows_N, labels_N].astype(np.float64)
        np.exp(logits_NC, out=logits_NC)
        sums_N = logits_NC.sum(axis=1, dtype=np.float64)
        logits_NC /= sums_N[:, None].astype(kind)  # now probabilities
        logits_NC[rows_N, labels_N] -= 1
        pulled_RC = pull_R[:, None] * weights_RC
        gradient_RC = (scaled_NR.T @ logits_NC).astype(np.float64) / count + pulled_RC
        loss = float((np.log(sums_N) - own_N).mean() + 0.5 * (pulled_RC * weights_RC).sum())
        return loss, gradient_RC.ravel()

    if start_CR is None:
        start_CR = np.zeros((classes, points_NR.shape[1]))
    return least(loss_and_gradient, start_CR, scale_R, tolerance=tolerance, steps=steps)


def least(
    loss_and_gradient: Callable[[NDArray[np.float64]], tuple[float, Floats]],
    start_CR: Floats,
    scale_R: Floats,
    *,
    tolerance: float,
    steps: int,
) -> Floats:
    """(C, R) float64 weights of least loss, sought by L-BFGS in coordinates over `scale_R`.

    `loss_and_gradient` takes and gives weights there, (R, C) and flat.
    """
    found = minimize(
        loss_and_gradient, (start_CR / scale_R).T.ravel(), jac=True, method="L-BFGS-B",
        options={"maxiter": steps, "gtol": tolerance, "ftol": 1e-12, "maxcor": 10},
    )  # fmt: skip
    weights_CR: Floats = found.x.reshape(-1, len(start_CR)).T * scale_R
    return weights_CR
