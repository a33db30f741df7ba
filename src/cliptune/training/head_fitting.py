"""The classifier that frozen features give: heads that start from text, mixed by held-out answers.

Every head here is affine in the feature and in its direction, so any mixture of their
log-probabilities is one head again, but for a term that is the same for all classes:

    logits(f) = A f/|f| + W f + b

Parts: zero-shot CLIP, and logistic regressions on the standardised feature whose offset is a share
of the zero-shot logits: 0 knows nothing of the text, one half starts half-way (cf. CLAP, arXiv
2312.12730, and WiSE-FT, arXiv 2109.01903). A ridge pulls each to its offset. Strengths, and the
weights of the mixture, come from stratified cross-validation by log loss (stacking: Wolpert 1992;
with weights that are not negative, Breiman 1996).

Shape suffixes: N photos, C classes, D feature, R coordinates, K parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar

from cliptune.errors import DataError, named
from cliptune.training.logistic import (
    Coordinates,
    Floats,
    Labels,
    coordinates,
    directions,
    fit_logistic,
)

# Of the zero-shot logits, the offset of a part. The whole of them, and parts on the feature's
# direction, were tried and gave less (held-out training photos of ten breeds and five flowers).
SHARES = (0.0, 0.5)
STRENGTHS = (3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4)  # of the pull, from strong to weak
# Without held-out photos: what cross-validation chose where there were some, at 2 and 4 a class.
USUAL_STRENGTH = 2e-3
USUAL_SHARE = 0.8  # of zero-shot, times how much it deserves on these photos
_PULL = 16.0  # nats for weights of the mixture that are off by 1 altogether
_ENOUGH = 8  # photos held out at least, or nothing can be chosen by them


@dataclass(frozen=True)
class Plan:
    """How much is tried: less where there are many photos or classes."""

    folds: int
    repeats: int
    strengths: tuple[float, ...]
    steps: int
    tolerance: float


@dataclass(frozen=True)
class HeadPart:
    """One head of the mixture: its log-probabilities count `weight` times."""

    share: float  # of zero-shot in its offset
    strength: float  # of the pull to that offset
    weight: float


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """What fits that had not seen a photo say of it, mixed by weights that had not seen it.

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


@dataclass(frozen=True, kw_only=True)
class FittedHead:
    """logits = directions @ cosine_CD.T + features @ weights_CD.T + bias_C."""

    cosine_CD: Floats
    weights_CD: Floats
    bias_C: Floats
    zero_shot_weight: float
    parts: tuple[HeadPart, ...]
    held_out: HeldOut

    def logits(self, features_ND: Floats) -> Floats:
        """(N, C) logits of raw features."""
        cosine_NC = directions(features_ND) @ self.cosine_CD.T
        logits_NC: Floats = cosine_NC + features_ND @ self.weights_CD.T + self.bias_C
        return logits_NC


def fit_head(
    features_ND: Floats,
    labels_N: Labels,
    text_features_CD: Floats,
    logit_scale: float,
    *,
    seed: int,
    class_names: Sequence[str] | None = None,
    plan: Plan | None = None,
) -> FittedHead:
    """The best mixture of heads for raw image features with these labels.

    `text_features_CD` have length 1; `logit_scale` is the factor of cosines, not its logarithm.
    The folds depend on `seed` and the features alone; nothing else is random.

    Raises `DataError` for a class without a photo, or a feature that is not finite.
    """
    classes = len(text_features_CD)
    features_ND = np.asarray(features_ND, dtype=np.float64)
    labels_N = np.asarray(labels_N, dtype=np.int64)
    _refuse(features_ND, labels_N, class_names or [f"class {i}" for i in range(classes)])
    text_CD = logit_scale * np.asarray(text_features_CD, dtype=np.float64)
    zero_NC = directions(features_ND) @ text_CD.T
    plan = plan or plan_for(len(features_ND), features_ND.shape[1], classes)
    counts_C = np.bincount(labels_N, minlength=classes)
    held_N = counts_C[labels_N] > 1
    space = coordinates(features_ND)
    if held_N.sum() < max(_ENOUGH, len(labels_N) / 2):
        return _without_holding_out(space, labels_N, zero_NC, text_CD, plan)

    # By what is on the photos: neither their order nor that of classes changes the folds.
    order_N = np.lexsort(features_ND.T[:8])
    folds_FN = stratified_folds(
        labels_N, order_N=order_N, folds=plan.folds, repeats=plan.repeats, seed=seed
    )
    parts, answers_KFNC = [], []
    for share in SHARES:
        strength, answers_FNC = choose_strength(
            space.points_NR, labels_N, share * zero_NC, folds_FN, plan
        )
        parts.append((share, strength))
        answers_KFNC.append(answers_FNC)
    return _mixed(space, parts, answers_KFNC, labels_N, zero_NC, text_CD, folds_FN, held_N, plan)


def plan_for(photos: int, dim: int, classes: int) -> Plan:
    """Work that takes seconds for some thousand photos and minutes for a thousand classes."""
    work = photos * classes * min(dim, photos)
    if work > 1_000_000_000:
        return Plan(2, 1, (1e-3, 3e-4, 1e-4, 3e-5), 20, 1e-4)
    if work > 50_000_000:
        return Plan(3, 1, STRENGTHS[1:], 40, 1e-4)
    return Plan(5, 3 if photos <= 200 else 1, STRENGTHS, 100, 1e-4)


def stratified_folds(
    labels_N: Labels, *, order_N: Labels, folds: int, repeats: int, seed: int
) -> NDArray[np.int64]:
    """(repeats, N) which fold holds a photo out; -1: none, being its class's only one.

    A class's photos go round the folds, so that none of them holds out a whole class. Where no
    class has as many photos as there are `folds`, there are as many as the largest has. Chance
    goes through photos in `order_N`, and through classes as they come up in it.
    """
    counts_C = np.bincount(labels_N)
    folds = min(folds, int(counts_C.max()))
    result_FN = np.full((repeats, len(labels_N)), -1)
    ordered_N = labels_N[order_N]
    labels = [label for label in dict.fromkeys(ordered_N.tolist()) if counts_C[label] > 1]
    for repeat in range(repeats):
        rng = np.random.default_rng([seed, repeat])
        first = 0  # where the last class stopped: folds stay of one size
        for label in labels:
            own = rng.permutation(order_N[ordered_N == label])
            result_FN[repeat, own] = (first + np.arange(len(own))) % folds
            first = (first + len(own)) % folds
    return result_FN


def choose_strength(
    points_NR: Floats, labels_N: Labels, offset_NC: Floats, folds_FN: NDArray[np.int64], plan: Plan
) -> tuple[float, Floats]:
    """The strength of least held-out log loss, and its (repeats, N, C) held-out logits.

    From strong to weak, each fit starting at the one before, until the loss rises.
    """
    starts: dict[tuple[int, int], Floats] = {}
    best_loss, best = float("inf"), plan.strengths[0]
    best_FNC: Floats = np.empty(0)
    for strength in plan.strengths:
        answers_FNC = np.broadcast_to(offset_NC, (len(folds_FN), *offset_NC.shape)).copy()
        for repeat, folds_N in enumerate(folds_FN):
            for fold in range(folds_N.max() + 1):
                out_N = folds_N == fold
                weights_CR = fit_logistic(
                    points_NR[~out_N], labels_N[~out_N], offset_NC[~out_N], strength=strength,
                    start_CR=starts.get((repeat, fold)), tolerance=plan.tolerance, steps=plan.steps,
                )  # fmt: skip
                starts[repeat, fold] = weights_CR
                answers_FNC[repeat, out_N] += points_NR[out_N] @ weights_CR.T
        held_N = folds_FN[0] >= 0
        loss = float(np.mean([log_loss(a_NC[held_N], labels_N[held_N]) for a_NC in answers_FNC]))
        if loss >= best_loss:
            break
        best_loss, best, best_FNC = loss, strength, answers_FNC
    return best, best_FNC


def log_loss(logits_NC: Floats, labels_N: Labels) -> float:
    """The mean over photos, in nats."""
    shifted_NC = logits_NC - logits_NC.max(axis=1, keepdims=True)
    own_N = shifted_NC[np.arange(len(labels_N)), labels_N]
    return float((np.log(np.exp(shifted_NC).sum(axis=1)) - own_N).mean())


def fit_weights(
    answers_KNC: Floats, labels_N: Labels, *, start_K: Floats, pull: float = _PULL
) -> Floats:
    """(K,) weights, none negative, of least log loss of the weighted sum of logits.

    `pull` holds them to `start_K` as `pull`/N · |weights - start|² more nats: the fewer the
    photos, the more.
    """
    photos = len(labels_N)
    flat_KM = answers_KNC.reshape(len(answers_KNC), -1)
    own_KN = answers_KNC[:, np.arange(photos), labels_N]

    def loss_and_gradient(weights_K: Floats) -> tuple[float, Floats]:
        logits_NC = (weights_K @ flat_KM).reshape(photos, -1)
        logits_NC -= logits_NC.max(axis=1, keepdims=True)
        np.exp(logits_NC, out=logits_NC)
        logits_NC /= logits_NC.sum(axis=1, keepdims=True)
        own_N = logits_NC[np.arange(photos), labels_N]
        gap_K = weights_K - start_K
        slope_K = (flat_KM @ logits_NC.ravel() - own_KN.sum(axis=1)) / photos
        loss = -np.log(np.maximum(own_N, 1e-300)).mean() + pull / photos * gap_K @ gap_K
        return float(loss), slope_K + 2 * pull / photos * gap_K

    found = minimize(
        loss_and_gradient, start_K, jac=True, method="L-BFGS-B",
        bounds=[(0, None)] * len(start_K), options={"gtol": 1e-6},
    )  # fmt: skip
    weights_K: Floats = found.x
    return weights_K


def _mixed(
    space: Coordinates,
    parts: list[tuple[float, float]],
    answers_KFNC: list[Floats],
    labels_N: Labels,
    zero_NC: Floats,
    text_CD: Floats,
    folds_FN: NDArray[np.int64],
    held_N: NDArray[np.bool_],
    plan: Plan,
) -> FittedHead:
    # To begin with, zero-shot for nothing and of the others the one that starts half-way.
    start_K = np.array([0.0, *(float(share == 0.5) for share, _ in parts)])
    # Repeats are averaged: one answer a photo, so that photos count once against the pull.
    all_KNC = np.stack([zero_NC, *(answers_FNC.mean(axis=0) for answers_FNC in answers_KFNC)])
    weights_K = fit_weights(all_KNC[:, held_N], labels_N[held_N], start_K=start_K)
    held_out_NC = zero_NC.copy()
    for fold in range(folds_FN[0].max() + 1):  # mixed by weights that the photo had no say in
        out_N = folds_FN[0] == fold
        rest_N = held_N & ~out_N
        own_K = fit_weights(all_KNC[:, rest_N], labels_N[rest_N], start_K=start_K)
        held_out_NC[out_N] = np.tensordot(own_K, all_KNC[:, out_N], axes=1)
    labels, zero = labels_N[held_N], zero_NC[held_N]
    note = ""
    if log_loss(held_out_NC[held_N], labels) > log_loss(zero, labels):
        weights_K = np.eye(len(weights_K))[0]
        held_out_NC, note = zero_NC, "; none of it answers better than zero-shot, which stays"
    folds = int(folds_FN.max()) + 1
    held_out = HeldOut(
        logits_NC=held_out_NC, photos_N=held_N, folds=folds,
        accuracy=_accuracy(held_out_NC[held_N], labels),
        log_loss=log_loss(held_out_NC[held_N], labels),
        zero_shot_accuracy=_accuracy(zero, labels), zero_shot_log_loss=log_loss(zero, labels),
        note=f"chosen by {folds}-fold cross-validation{note}",
    )  # fmt: skip
    return _assembled(space, parts, weights_K, labels_N, zero_NC, text_CD, plan, held_out)


def _without_holding_out(
    space: Coordinates, labels_N: Labels, zero_NC: Floats, text_CD: Floats, plan: Plan
) -> FittedHead:
    """Where most classes have one photo: zero-shot has seen none, and can be judged by all."""
    share = USUAL_SHARE * deserved_share(zero_NC, labels_N)
    held_out = HeldOut(
        logits_NC=zero_NC, photos_N=np.zeros(len(labels_N), dtype=bool), folds=0,
        accuracy=None, log_loss=None, zero_shot_accuracy=_accuracy(zero_NC, labels_N),
        zero_shot_log_loss=log_loss(zero_NC, labels_N),
        note=f"too few photos to hold any out: the usual pull, and {share:.2f} of zero-shot, by "
        "how it answers these photos",
    )  # fmt: skip
    parts, weights_K = [(share, USUAL_STRENGTH)], np.array([0.0, 1.0])
    return _assembled(space, parts, weights_K, labels_N, zero_NC, text_CD, plan, held_out)


def deserved_share(zero_NC: Floats, labels_N: Labels) -> float:
    """The factor of zero-shot logits, from 0 to 1, of least log loss, pulled to 1 by one nat."""
    photos = len(labels_N)
    found = minimize_scalar(
        lambda share: photos * log_loss(share * zero_NC, labels_N) + (1 - share) ** 2,
        bounds=(0, 1), method="bounded",
    )  # fmt: skip
    return float(found.x)


def _assembled(
    space: Coordinates,
    parts: list[tuple[float, float]],
    weights_K: Floats,
    labels_N: Labels,
    zero_NC: Floats,
    text_CD: Floats,
    plan: Plan,
    held_out: HeldOut,
) -> FittedHead:
    """The parts that count, fitted on all photos, as one head."""
    cosine_CD, weights_CD = weights_K[0] * text_CD, np.zeros_like(text_CD)
    bias_C = np.zeros(len(text_CD))
    kept = []
    for (share, strength), weight in zip(parts, weights_K[1:], strict=True):
        if weight == 0:
            continue
        own_CR = fit_logistic(
            space.points_NR, labels_N, share * zero_NC, strength=strength,
            tolerance=plan.tolerance, steps=2 * plan.steps,
        )  # fmt: skip
        own_CD, own_C = space.on_features(own_CR)
        cosine_CD += weight * share * text_CD
        weights_CD += weight * own_CD
        bias_C += weight * own_C
        kept.append(HeadPart(share, strength, float(weight)))
    return FittedHead(
        cosine_CD=cosine_CD,
        weights_CD=weights_CD,
        bias_C=bias_C,
        zero_shot_weight=float(weights_K[0]),
        parts=tuple(kept),
        held_out=held_out,
    )


def _accuracy(logits_NC: Floats, labels_N: Labels) -> float:
    return float((logits_NC.argmax(axis=1) == labels_N).mean())


def _refuse(features_ND: Floats, labels_N: Labels, class_names: Sequence[str]) -> None:
    counts_C = np.bincount(labels_N, minlength=len(class_names))
    if empty := [class_names[int(i)] for i in np.flatnonzero(counts_C == 0)]:
        raise DataError(
            f"no photo to fit the head of {named(empty)}. Expected at least one of each class. "
            "Add photos or remove the class."
        )
    if bad := int((~np.isfinite(features_ND).all(axis=1)).sum()):
        raise DataError(
            f"the image features of {bad} of {len(features_ND)} photos are not finite numbers. "
            "Expected the base model to give finite ones: its weights may be damaged."
        )
