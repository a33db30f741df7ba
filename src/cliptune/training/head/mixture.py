"""What chooses among heads: folds, the log loss of held-out answers, weights that mix them.

Shape suffixes: N photos, C classes, F repeats, K parts, M = N·C.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar

from cliptune.data.groups import group_folds
from cliptune.training.head.logistic import Floats, Labels

_PULL = 16.0  # nats for weights of the mixture that are off by 1 altogether


def stratified_folds(
    labels_N: Labels, *, order_N: Labels, folds: int, repeats: int, seed: int
) -> NDArray[np.int64]:
    """(F, N) which fold holds a photo out; -1: none, being its class's only one.

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


def grouped_folds(
    labels_N: Labels,
    groups_N: NDArray[np.int64],
    *,
    order_N: Labels,
    folds: int,
    repeats: int,
    seed: int,
) -> NDArray[np.int64]:
    """(F, N) as `stratified_folds`, with no group in two folds; -1 for a class's only group.

    So it is for one that would leave no other of its class in the rest of a fold's photos.
    """
    labels_N, groups_N = labels_N[order_N], groups_N[order_N]
    groups_N = _as_they_come(groups_N)
    pairs_P2 = np.unique(np.stack([groups_N, labels_N], axis=1), axis=0)
    group_of_pair, label_of_pair = pairs_P2.T
    groups_C = np.bincount(label_of_pair)
    stays_N = np.isin(groups_N, group_of_pair[groups_C[label_of_pair] == 1])
    free = len(np.unique(groups_N[~stays_N]))
    result_FN = np.full((repeats, len(labels_N)), -1)
    folds = min(folds, int(groups_C.max()), free)
    if folds < 2:
        return result_FN
    alike_N = _as_they_come(labels_N)
    for repeat in range(repeats):
        drawn = int(np.random.default_rng([seed, repeat]).integers(2**31))
        result_FN[repeat, ~stays_N] = group_folds(
            alike_N[~stays_N], groups_N[~stays_N], folds=folds, seed=drawn
        )
        for label in range(alike_N.max() + 1):
            own_N = alike_N == label
            if len(set(result_FN[repeat, own_N])) == 1 and not stays_N[own_N].any():
                stays_N |= groups_N == groups_N[own_N][0]
    result_FN[:, stays_N] = -1
    back_N = np.argsort(order_N)
    return result_FN[:, back_N]


def _as_they_come(numbers_N: NDArray[Any]) -> NDArray[np.int64]:
    """The same numbers for the same, from 0 in the order in which they come up."""
    _, first_K, place_N = np.unique(numbers_N, return_index=True, return_inverse=True)
    result: NDArray[np.int64] = np.argsort(np.argsort(first_K))[place_N]
    return result


def log_loss(logits_NC: Floats, labels_N: Labels) -> float:
    """The mean over photos, in nats."""
    shifted_NC = logits_NC - logits_NC.max(axis=1, keepdims=True)
    own_N = shifted_NC[np.arange(len(labels_N)), labels_N]
    return float((np.log(np.exp(shifted_NC).sum(axis=1)) - own_N).mean())


def accuracy(logits_NC: Floats, labels_N: Labels) -> float:
    """The share of photos whose highest logit is that of their class."""
    return float((logits_NC.argmax(axis=1) == labels_N).mean())


def fit_weights(
    answers_KNC: Floats,
    labels_N: Labels,
    *,
    start_K: Floats,
    shifts_C: Floats | float = 0.0,
    pull: float = _PULL,
) -> Floats:
    """(K,) weights, none negative, of least log loss of the weighted sum of logits and `shifts_C`.

    `pull` holds them to `start_K` as `pull`/N · |weights - start|² more nats: the fewer the
    photos, the more.
    """
    photos = len(labels_N)
    flat_KM = answers_KNC.reshape(len(answers_KNC), -1)
    own_KN = answers_KNC[:, np.arange(photos), labels_N]
    shifts_C = np.broadcast_to(shifts_C, answers_KNC.shape[-1])

    def loss_and_gradient(weights_K: Floats) -> tuple[float, Floats]:
        logits_NC = (weights_K @ flat_KM).reshape(photos, -1) + shifts_C
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


def deserved_share(zero_NC: Floats, labels_N: Labels, *, shifts_C: Floats | float = 0.0) -> float:
    """The factor of zero-shot logits, from 0 to 1, of least log loss, pulled to 1 by one nat."""
    photos = len(labels_N)
    found = minimize_scalar(
        lambda share: photos * log_loss(share * zero_NC + shifts_C, labels_N) + (1 - share) ** 2,
        bounds=(0, 1), method="bounded",
    )  # fmt: skip
    return float(found.x)
