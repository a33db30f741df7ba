"""A head of one sigmoid for each class, fitted on frozen features.

Each class has a logistic regression of its own on the feature's direction, whose offset is a share
of what zero-shot CLIP says, about its mean, and the class's frequency in log-odds; a ridge pulls to
that offset. Share and strength come from cross-validation by log loss, in folds that share out each
class's photos. It is the head of `cliptune.training.head.fitting` for photos with several labels,
without its mixture.

Shape suffixes: N photos, C classes, D feature, H feature before the projection, R coordinates,
K folds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from threadpoolctl import threadpool_limits

from cliptune.data.groups import Groups
from cliptune.data.multilabel import Targets, parted
from cliptune.errors import DataError, named
from cliptune.evaluation.statistics.multilabel import binary_log_losses, mean_average_precision
from cliptune.training.head.cross_validation import SMALL, plan_for
from cliptune.training.head.fitting import FoldHeads, HeadFit, HeldOut, Part, refuse_not_finite
from cliptune.training.head.logistic import Coordinates, Floats, coordinates, directions, least

SHARES = (0.0, 0.25, 0.5, 1.0)  # of what zero-shot says, in the offset
_FEW = 8  # photos; of fewer, none is held out
_USUAL = (0.25, 1e-2)  # share and strength where nothing can be chosen


@dataclass(frozen=True)
class Sigmoids:
    """(C, R) weights on coordinates, and (C,) `base_C`, the offset's constant part."""

    own_CR: Floats
    base_C: Floats


def fit_multilabel_head(
    features_ND: Floats,
    targets_NC: Targets,
    text_features_CD: Floats,
    logit_scale: float,
    *,
    seed: int,
    projection_DH: Floats | None = None,
    with_text: bool = True,
    class_names: Sequence[str],
    groups_N: Groups | None = None,
) -> HeadFit:
    """The head for image features, of any length, of photos that show these classes.

    `targets_NC` says which; other arguments as for `fitting.fit_head`. In what is returned,
    `accuracy` is the mean average precision, and log losses are means over photos and classes.

    Raises `DataError` for a class that no photo shows, or a feature that is not finite.
    """
    features_ND = np.asarray(features_ND, dtype=np.float64)
    if not targets_NC.any(axis=0).all():
        missing = [class_names[int(place)] for place in np.flatnonzero(~targets_NC.any(axis=0))]
        raise DataError(f"no photo to fit the head of {named(missing)}. Expected at least one.")
    refuse_not_finite(features_ND)
    work = len(features_ND) * len(class_names) * min(features_ND.shape)
    text_CD = logit_scale * np.asarray(text_features_CD, dtype=np.float64)
    with threadpool_limits(1 if work < SMALL else None):
        points_ND = directions(features_ND)
        given = _Given(
            coordinates(points_ND, projection_DH=projection_DH),
            targets_NC, points_ND @ text_CD.T, text_CD,
        )  # fmt: skip
        shares = SHARES if with_text else (0.0,)
        order_N = np.lexsort(features_ND.T[:8])
        folds = plan_for(work).folds
        return _chosen(given, shares, order_N, groups_N, folds=folds, seed=seed)


@dataclass(frozen=True)
class _Given:
    space: Coordinates
    targets_NC: Targets
    zero_NC: Floats
    text_CD: Floats

    def fit(
        self, among_N: NDArray[np.bool_], share: float, strength: float,
        start_CR: Floats | None = None,
    ) -> Sigmoids:  # fmt: skip
        """The sigmoids of least loss on the photos `among_N`."""
        targets_NC, zero_NC = self.targets_NC[among_N], self.zero_NC[among_N]
        shown_C = (targets_NC.sum(axis=0) + 0.5) / (len(targets_NC) + 1)
        base_C = np.log(shown_C / (1 - shown_C)) - share * zero_NC.mean(axis=0)
        points_NR = self.space.points_NR[among_N]
        offset_NC = share * zero_NC + base_C
        return Sigmoids(
            fit_sigmoids(points_NR, targets_NC, offset_NC, strength=strength, start_CR=start_CR),
            base_C,
        )

    def says(self, fit: Sigmoids, among_N: NDArray[np.bool_], share: float) -> Floats:
        """(N, C) logits of the photos `among_N`."""
        logits_NC: Floats = (
            share * self.zero_NC[among_N]
            + fit.base_C
            + self.space.points_NR[among_N] @ fit.own_CR.T
        )
        return logits_NC

    def as_head(self, fit: Sigmoids, share: float) -> tuple[Floats, Floats]:
        """(C, D) weights and (C,) bias on directions that answer as `fit` does."""
        weights_CD, bias_C = self.space.on_features(fit.own_CR)
        return weights_CD + share * self.text_CD, bias_C + fit.base_C


def _chosen(
    given: _Given,
    shares: Sequence[float],
    order_N: NDArray[np.int64],
    groups_N: Groups | None,
    *,
    folds: int,
    seed: int,
) -> HeadFit:
    photos = len(order_N)
    everyone_N = np.ones(photos, dtype=bool)
    zero_map = mean_average_precision(given.targets_NC, given.zero_NC)
    units = photos if groups_N is None else len(np.unique(groups_N))
    if photos < _FEW or units < 2:
        share, strength = _USUAL if len(shares) > 1 else (0.0, _USUAL[1])
        fit = given.fit(everyone_N, share, strength)
        held_out = HeldOut(
            logits_NC=given.zero_NC, photos_N=~everyone_N, folds=0, accuracy=None, log_loss=None,
            zero_shot_accuracy=zero_map, zero_shot_log_loss=float("nan"), measure="mAP",
            note="too few photos to hold any out: the usual share of zero-shot, and the usual pull",
        )  # fmt: skip
        return _head(given, fit, share, strength, held_out, None)
    folds, folds_N = min(folds, units), np.empty(photos, dtype=np.int64)
    folds_N[order_N] = parted(
        given.targets_NC[order_N], np.full(folds, 1 / folds), seed=seed,
        groups_N=None if groups_N is None else groups_N[order_N],
    )  # fmt: skip
    tried = [_best_strength(given, share, folds_N) for share in shares]
    best = min(tried, key=lambda each: each.loss)
    held_out = HeldOut(
        logits_NC=best.logits_NC, photos_N=everyone_N, folds=folds,
        accuracy=mean_average_precision(given.targets_NC, best.logits_NC), log_loss=best.loss,
        zero_shot_accuracy=zero_map, zero_shot_log_loss=float("nan"), measure="mAP",
        note=f"chosen by {folds}-fold cross-validation",
    )  # fmt: skip
    heads = [given.as_head(fit, best.share) for fit in best.fits]
    without = FoldHeads(
        weights_KCD=np.stack([weights_CD for weights_CD, _ in heads]),
        bias_KC=np.stack([bias_C for _, bias_C in heads]),
        folds_N=folds_N,
    )
    fit = given.fit(everyone_N, best.share, best.strength)
    return _head(given, fit, best.share, best.strength, held_out, without)


@dataclass(frozen=True)
class _Tried:
    share: float
    strength: float
    loss: float
    logits_NC: Floats  # each photo's by the fit without its fold
    fits: tuple[Sigmoids, ...]


def _best_strength(given: _Given, share: float, folds_N: NDArray[np.int64]) -> _Tried:
    """From strong to weak, each fit starting at the one before, until the held-out loss rises."""
    best: _Tried | None = None
    fits: list[Sigmoids] = []
    for strength in (1e-1, *plan_for(0).strengths):
        fits = [
            given.fit(folds_N != fold, share, strength, fits[fold].own_CR if fits else None)
            for fold in range(int(folds_N.max()) + 1)
        ]
        logits_NC = np.empty(given.zero_NC.shape)
        for fold, fit in enumerate(fits):
            logits_NC[folds_N == fold] = given.says(fit, folds_N == fold, share)
        loss = float(binary_log_losses(logits_NC, given.targets_NC).mean())
        if best is not None and loss >= best.loss:
            break
        best = _Tried(share, strength, loss, logits_NC, tuple(fits))
    assert best is not None
    return best


def _head(
    given: _Given, fit: Sigmoids, share: float, strength: float, held_out: HeldOut,
    without_folds: FoldHeads | None,
) -> HeadFit:  # fmt: skip
    weights_CD, bias_C = given.as_head(fit, share)
    return HeadFit(
        share=share, weights_CD=weights_CD, bias_C=bias_C, zero_shot_weight=0.0,
        parts=(Part(share, strength, 1.0),), held_out=held_out, without_folds=without_folds,
    )  # fmt: skip


def fit_sigmoids(
    points_NR: Floats,
    targets_NC: Targets,
    offset_NC: Floats,
    *,
    strength: float,
    start_CR: Floats | None = None,
    tolerance: float = 1e-5,
    steps: int = 200,
) -> Floats:
    """(C, R) float64 weights W of least log loss(offset + points Wᵀ) + strength/2 |W|².

    The log loss is summed over classes and its mean taken over photos, in nats: C logistic
    regressions at once. The problem is strictly convex: `start_CR` changes the time, not the
    answer. `tolerance` bounds the gradient in coordinates scaled by a bound of the Hessian's
    diagonal.
    """
    count, classes = offset_NC.shape
    scale_R = 1 / np.sqrt(0.25 * (points_NR**2).mean(axis=0) + strength)
    scaled_NR, pull_R = points_NR * scale_R, strength * scale_R**2

    def loss_and_gradient(flat: Floats) -> tuple[float, Floats]:
        weights_RC = flat.reshape(-1, classes)
        logits_NC = scaled_NR @ weights_RC + offset_NC
        pulled_RC = pull_R[:, None] * weights_RC
        loss = binary_log_losses(logits_NC, targets_NC).sum() / count
        gradient_RC = scaled_NR.T @ (expit(logits_NC) - targets_NC) / count + pulled_RC
        return float(loss + 0.5 * (pulled_RC * weights_RC).sum()), gradient_RC.ravel()

    if start_CR is None:
        start_CR = np.zeros((classes, points_NR.shape[1]))
    return least(loss_and_gradient, start_CR, scale_R, tolerance=tolerance, steps=steps)
