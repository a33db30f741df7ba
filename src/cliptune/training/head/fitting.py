"""The classifier that frozen features give: heads that start from text, mixed by held-out answers.

Every head here is affine in the feature's direction d, so any mixture of their log-probabilities
is one head again, but for a term that is the same for all classes:

    logits(d) = W d + b

Parts: zero-shot CLIP, and logistic regressions on the standardised direction whose offset is a
share of the zero-shot logits: 0 knows nothing of the text, one half starts half-way (cf. CLAP,
arXiv 2312.12730, and WiSE-FT, arXiv 2109.01903). A ridge pulls each to its offset. Strengths, and
the weights of the mixture, come from stratified cross-validation by log loss (stacking: Wolpert
1992; with weights that are not negative, Breiman 1996).

Shape suffixes: N photos, C classes, D feature, H feature before the projection, R coordinates,
F repeats, K parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from cliptune.errors import DataError, named
from cliptune.training.head.cross_validation import SMALL, Plan, Problem, choose_strength, plan_for
from cliptune.training.head.logistic import Floats, Labels, coordinates, directions, fit_logistic
from cliptune.training.head.mixture import (
    accuracy,
    deserved_share,
    fit_weights,
    grouped_folds,
    log_loss,
    stratified_folds,
)

# Of the zero-shot logits, the offset of a part. The whole of them was tried and gave less
# (held-out training photos of ten breeds and five flowers).
SHARES = (0.0, 0.5)
# Without held-out photos: what cross-validation chose where there were some, at 2 and 4 a class.
USUAL_STRENGTH = 2e-3
USUAL_SHARE = 0.8  # of zero-shot, times how much it deserves on these photos
_ENOUGH = 8  # photos held out at least, or nothing can be chosen by them


@dataclass(frozen=True)
class Part:
    """One head of the mixture: its log-probabilities count `weight` times."""

    share: float  # of zero-shot in its offset
    strength: float  # of the pull to that offset
    weight: float


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """What fits that had not seen a photo say of it, mixed by weights that had not seen it.

    `measure` is what `accuracy` is: top-1, or the mean average precision of several labels.

    `logits_NC` are theirs for `photos_N`; elsewhere (a class's only photo) those of zero-shot. The
    figures are over `photos_N`, log losses in nats; without any, `accuracy` and `log_loss` are None
    and zero-shot's are over all photos.
    """

    logits_NC: Floats
    photos_N: NDArray[np.bool_]
    folds: int
    accuracy: float | None
    log_loss: float | None
    zero_shot_accuracy: float
    zero_shot_log_loss: float
    note: str  # how strengths and weights were chosen
    measure: str = "top-1"


@dataclass(frozen=True, kw_only=True)
class FoldHeads:
    """Heads that have not seen one fold of the photos each; nor have the weights of their parts.

    `folds_N` says which head that is for a photo; -1: all have seen it.
    """

    weights_KCD: Floats
    bias_KC: Floats
    folds_N: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class HeadFit:
    """logits = directions @ weights_CD.T + bias_C; zero-shot CLIP times `share` is part of it.

    `without_folds` is None where nothing was held out, or nothing was learned.
    """

    share: float
    weights_CD: Floats  # the scale of cosines is in them
    bias_C: Floats
    zero_shot_weight: float
    parts: tuple[Part, ...]
    held_out: HeldOut
    without_folds: FoldHeads | None

    def logits(self, features_ND: Floats) -> Floats:
        """(N, C) logits of image features of any length."""
        logits_NC: Floats = directions(features_ND) @ self.weights_CD.T + self.bias_C
        return logits_NC


def fit_head(
    features_ND: Floats,
    labels_N: Labels,
    text_features_CD: Floats,
    logit_scale: float,
    *,
    seed: int,
    projection_DH: Floats | None = None,
    with_text: bool = True,
    shifts_C: Floats | None = None,
    class_names: Sequence[str] | None = None,
    plan: Plan | None = None,
    groups_N: NDArray[np.int64] | None = None,
) -> HeadFit:
    """The best mixture of heads for image features, of any length, with these labels.

    `text_features_CD` have length 1; `logit_scale` is the factor of cosines, not its logarithm.
    Features are standardised before `projection_DH`, where the model has one. Without `with_text`
    the head takes nothing of zero-shot CLIP. Every loss adds `shifts_C` to the logits, which then
    answer without them (`cliptune.training.uneven`). The folds depend on `seed` and the features
    alone; nothing else is random. Photos of one number in `groups_N` are in one fold.

    Raises `DataError` for a class without a photo, or a feature that is not finite.
    """
    classes = len(text_features_CD)
    features_ND = np.asarray(features_ND, dtype=np.float64)
    labels_N = np.asarray(labels_N, dtype=np.int64)
    work = len(features_ND) * classes * min(features_ND.shape)
    _refuse(features_ND, labels_N, class_names or [f"class {i}" for i in range(classes)])
    text_CD = logit_scale * np.asarray(text_features_CD, dtype=np.float64)
    # Hundreds of small products: a second thread would wait more than it works, and beside other
    # programs cost ten times the time.
    with threadpool_limits(1 if work < SMALL else None):
        points_ND = directions(features_ND)
        given = Problem(
            space=coordinates(points_ND, projection_DH=projection_DH),
            labels_N=labels_N,
            zero_NC=points_ND @ text_CD.T,
            text_CD=text_CD,
            shifts_C=np.zeros(classes) if shifts_C is None else shifts_C,
            plan=plan or plan_for(work),
        )
        folds_FN = _folds(given, features_ND, groups_N, seed=seed)
        return _fitted(given, folds_FN, with_text=with_text)


def _folds(
    given: Problem, features_ND: Floats, groups_N: NDArray[np.int64] | None, *, seed: int
) -> NDArray[np.int64]:
    """(F, N) which fold holds a photo out; -1: none."""
    labels_N = given.labels_N
    # By what is on the photos: neither their order nor that of classes changes the folds.
    order_N = np.lexsort(features_ND.T[:8])
    if groups_N is not None and len(np.unique(groups_N)) == len(groups_N):
        groups_N = None  # each photo by itself: the same folds as without
    deal = stratified_folds if groups_N is None else partial(grouped_folds, groups_N=groups_N)
    return deal(
        labels_N, order_N=order_N, folds=given.plan.folds, repeats=given.plan.repeats, seed=seed
    )


def _fitted(given: Problem, folds_FN: NDArray[np.int64], *, with_text: bool) -> HeadFit:
    held_N = folds_FN[0] >= 0
    if held_N.sum() < max(_ENOUGH, len(held_N) / 2):
        return _without_holding_out(given, with_text=with_text)
    return _mixed(given, folds_FN, held_N, with_text=with_text)


def _mixed(
    given: Problem, folds_FN: NDArray[np.int64], held_N: NDArray[np.bool_], *, with_text: bool
) -> HeadFit:
    zero_NC, labels_N = given.zero_NC, given.labels_N
    shares = SHARES if with_text else (0.0,)
    chosen = [choose_strength(given, share * zero_NC, folds_FN) for share in shares]
    # Repeats are averaged: one answer a photo, so that photos count once against the pull.
    heads_KNC = np.stack([each.answers_FNC.mean(axis=0) for each in chosen])
    # To begin with, zero-shot for nothing and of the others the one that starts half-way.
    start_K = np.array([float(share == shares[-1]) for share in shares])
    if with_text:
        heads_KNC, start_K = np.concatenate([zero_NC[None], heads_KNC]), np.array([0.0, *start_K])
    weights_K = fit_weights(
        heads_KNC[:, held_N], labels_N[held_N], start_K=start_K, shifts_C=given.shifts_C
    )
    held_out_NC = zero_NC.copy()
    own_weights = []
    for fold in range(folds_FN[0].max() + 1):  # mixed by weights that the photo had no say in
        out_N = folds_FN[0] == fold
        rest_N = held_N & ~out_N
        own_K = fit_weights(
            heads_KNC[:, rest_N], labels_N[rest_N], start_K=start_K, shifts_C=given.shifts_C
        )
        held_out_NC[out_N] = np.tensordot(own_K, heads_KNC[:, out_N], axes=1)
        own_weights.append(own_K)
    without_folds: FoldHeads | None = _without_folds(
        given, [(share, each.fits_KCR) for share, each in zip(shares, chosen, strict=True)],
        np.stack(own_weights), folds_FN[0],
    )  # fmt: skip
    labels, zero = labels_N[held_N], zero_NC[held_N]
    note = ""
    if with_text and given.loss(held_out_NC, held_N) > given.loss(zero_NC, held_N):
        weights_K, without_folds = np.eye(len(weights_K))[0], None
        held_out_NC, note = zero_NC, "; none of it answers better than zero-shot, which stays"
    folds = int(folds_FN.max()) + 1
    held_out = HeldOut(
        logits_NC=held_out_NC, photos_N=held_N, folds=folds,
        accuracy=accuracy(held_out_NC[held_N], labels),
        log_loss=given.loss(held_out_NC, held_N), zero_shot_accuracy=accuracy(zero, labels),
        zero_shot_log_loss=given.loss(zero_NC, held_N),
        note=f"chosen by {folds}-fold cross-validation{note}",
    )  # fmt: skip
    parts = [
        Part(share, each.strength, float(weight))
        for share, each, weight in zip(shares, chosen, weights_K[-len(shares) :], strict=True)
    ]
    zero_shot_weight = float(weights_K[0]) if with_text else 0.0
    return _assembled(given, parts, zero_shot_weight, held_out, without_folds)


def _without_folds(
    given: Problem,
    fits: Sequence[tuple[float, Floats]],
    weights_KP: Floats,
    folds_N: NDArray[np.int64],
) -> FoldHeads:
    """For each fold, the parts (share, K heads in coordinates) by that fold's own weights.

    P counts parts, before them zero-shot where it is one.
    """
    heads = []
    for fold, weights_P in enumerate(weights_KP):
        zero_share = weights_P[: -len(fits)].sum()
        parts = [
            (weight, share, fits_KCR[fold])
            for weight, (share, fits_KCR) in zip(weights_P[-len(fits) :], fits, strict=True)
        ]
        heads.append(_as_one(given, parts, zero_share))
    return FoldHeads(
        weights_KCD=np.stack([weights_CD for _, weights_CD, _ in heads]),
        bias_KC=np.stack([bias_C for _, _, bias_C in heads]),
        folds_N=folds_N,
    )


def _as_one(
    given: Problem, parts: Sequence[tuple[float, float, Floats]], zero_share: float
) -> tuple[float, Floats, Floats]:
    """(share of zero-shot, weights (C, D), bias (C,)) of parts: weight, share, head (C, R)."""
    weights_CD, bias_C = np.zeros_like(given.text_CD), np.zeros(len(given.text_CD))
    for weight, share, own_CR in parts:
        own_CD, own_C = given.space.on_features(own_CR)
        zero_share += weight * share
        weights_CD += weight * own_CD
        bias_C += weight * own_C
    return float(zero_share), weights_CD + zero_share * given.text_CD, bias_C


def _without_holding_out(given: Problem, *, with_text: bool) -> HeadFit:
    """Where most classes have one photo: zero-shot has seen none, and can be judged by all."""
    zero_NC, labels_N = given.zero_NC, given.labels_N
    deserved = deserved_share(zero_NC, labels_N, shifts_C=given.shifts_C) if with_text else 0.0
    share = USUAL_SHARE * deserved
    held_out = HeldOut(
        logits_NC=zero_NC, photos_N=np.zeros(len(labels_N), dtype=bool), folds=0,
        accuracy=None, log_loss=None, zero_shot_accuracy=accuracy(zero_NC, labels_N),
        zero_shot_log_loss=log_loss(zero_NC + given.shifts_C, labels_N),
        note=f"too few photos to hold any out: the usual pull, and {share:.2f} of zero-shot, by "
        "how it answers these photos",
    )  # fmt: skip
    return _assembled(given, [Part(share, USUAL_STRENGTH, 1.0)], 0.0, held_out, None)


def _assembled(
    given: Problem,
    parts: Sequence[Part],
    zero_shot_weight: float,
    held_out: HeldOut,
    without_folds: FoldHeads | None,
) -> HeadFit:
    """The parts that count, fitted on all photos, as one head."""
    kept = tuple(part for part in parts if part.weight)
    fits = [
        fit_logistic(
            given.space.points_NR, given.labels_N, part.share * given.zero_NC + given.shifts_C,
            strength=part.strength, tolerance=given.plan.tolerance / 10,
            steps=2 * given.plan.steps,
        )
        for part in kept
    ]  # fmt: skip
    share, weights_CD, bias_C = _as_one(
        given,
        [(part.weight, part.share, own_CR) for part, own_CR in zip(kept, fits, strict=True)],
        zero_shot_weight,
    )
    return HeadFit(
        share=share, weights_CD=weights_CD, bias_C=bias_C, zero_shot_weight=zero_shot_weight,
        parts=kept, held_out=held_out, without_folds=without_folds,
    )  # fmt: skip


def _refuse(features_ND: Floats, labels_N: Labels, class_names: Sequence[str]) -> None:
    counts_C = np.bincount(labels_N, minlength=len(class_names))
    if empty := [class_names[int(i)] for i in np.flatnonzero(counts_C == 0)]:
        raise DataError(
            f"no photo to fit the head of {named(empty)}. Expected at least one of each class. "
            "Add photos or remove the class."
        )
    refuse_not_finite(features_ND)


def refuse_not_finite(features_ND: Floats) -> None:
    """Raise `DataError` where a feature is not finite."""
    if bad := int((~np.isfinite(features_ND).all(axis=1)).sum()):
        raise DataError(
            f"the image features of {bad} of {len(features_ND)} photos are not finite numbers. "
            "Expected the base model to give finite ones: its weights may be damaged."
        )
