"""What three classifiers that have not seen a photo's label, or its copies', say of it together.

The head that training begins with (`cliptune.training.head`), a linear discriminant with shrunk
covariance (Ledoit and Wolf, 2004), and the nearest neighbours err on different photos: one rests on
text and a boundary, one on the shape of classes, one on single photos. Their probabilities are
averaged: a linear opinion pool (Stone, 1961). On planted wrong labels each alone ranked worse
(`benchmarks/labels/wrong_labels.py`).

Shape suffixes: N photos, B block of them, C classes, D feature; K neighbours, or classifiers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from cliptune.training.head.fitting import HeadFit
from cliptune.training.head.logistic import Floats, Labels, directions
from cliptune.training.head.mixture import grouped_folds

FOLDS = 5
NEIGHBOURS = 15
SHARPNESS = 10.0  # a neighbour counts exp of so many times its cosine
_LEAST = 1e-12  # of a probability
_DOUBT = 0.02  # of a neighbour, for each class
_BLOCK = 1024  # photos whose distances to all others are in memory


def held_out_opinions(
    fit: HeadFit, features_ND: Floats, labels_N: Labels, groups_N: Labels, *, seed: int
) -> tuple[Floats, NDArray[np.bool_]]:
    """((N, C) probabilities, (N,) whether they tell anything of the photo's label).

    `fit` is the head of these photos with these groups. They tell nothing where the classifiers
    know none of the photo's class but its own group, or where nothing was held out.
    """
    num_classes = len(fit.bias_C)
    points_ND = standardised(features_ND)
    folds_N = grouped_folds(
        labels_N, groups_N, order_N=np.lexsort(features_ND.T[:8]), folds=FOLDS, repeats=1, seed=seed
    )[0]
    logs_KNC = [
        log_softmax(fit.held_out.logits_NC),
        discriminant(points_ND, labels_N, folds_N, num_classes=num_classes),
        neighbours(points_ND, labels_N, groups_N, num_classes=num_classes),
    ]
    pairs = np.unique(np.stack([labels_N, groups_N]), axis=1)
    groups_C = np.bincount(pairs[0], minlength=num_classes)  # of each class
    judged_N = (groups_C[labels_N] > 1) & (folds_N >= 0) & fit.held_out.photos_N
    chances_NC: Floats = np.exp(logs_KNC).mean(axis=0)
    return chances_NC, judged_N


def standardised(features_ND: Floats) -> Floats:
    """Directions of features, each number centred and over its standard deviation."""
    points_ND = directions(features_ND)
    spread_D = points_ND.std(axis=0)
    result: Floats = (points_ND - points_ND.mean(axis=0)) / np.where(spread_D > 0, spread_D, 1.0)
    return result


def discriminant(
    points_ND: Floats, labels_N: Labels, folds_N: NDArray[np.int64], *, num_classes: int
) -> Floats:
    """(N, C) log-probabilities of each photo by a discriminant of the other folds.

    Photos of no fold (-1) are learned from in each; of them nothing is said: all classes are alike.
    """
    said_NC = np.full((len(labels_N), num_classes), -np.log(num_classes))
    for fold in range(int(folds_N.max(initial=-1)) + 1):
        out_N = folds_N == fold
        if len(np.unique(labels_N[~out_N])) < 2 or not out_N.any():
            continue
        model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
        model.fit(points_ND[~out_N], labels_N[~out_N])
        chances_BC = np.zeros((int(out_N.sum()), num_classes))
        chances_BC[:, model.classes_] = model.predict_proba(points_ND[out_N])
        said_NC[out_N] = np.log(np.maximum(chances_BC, _LEAST))
    return said_NC


def neighbours(
    points_ND: Floats, labels_N: Labels, groups_N: Labels, *, num_classes: int
) -> Floats:
    """(N, C) log-shares of classes among the nearest photos of other groups, by cosine."""
    towards_ND = directions(points_ND)
    classes_NC = np.eye(num_classes)[labels_N]
    shares_NC = np.empty((len(labels_N), num_classes))
    for start in range(0, len(labels_N), _BLOCK):
        block = slice(start, start + _BLOCK)
        cosines_BN = towards_ND[block] @ towards_ND.T
        cosines_BN[groups_N[block, None] == groups_N] = -np.inf
        k = min(NEIGHBOURS, cosines_BN.shape[1])
        nearest_BK = np.argpartition(-cosines_BN, k - 1, axis=1)[:, :k]
        weights_BK = np.exp(SHARPNESS * np.take_along_axis(cosines_BN, nearest_BK, axis=1))
        votes_BC = np.einsum("bk,bkc->bc", weights_BK, classes_NC[nearest_BK])
        shares_NC[block] = votes_BC / np.maximum(weights_BK.sum(axis=1), _LEAST)[:, None]
    result: Floats = np.log((shares_NC + _DOUBT) / (1 + _DOUBT * num_classes))
    return result


def log_softmax(logits_NC: Floats) -> Floats:
    """Natural logarithms of probabilities; each row's sum to 1."""
    shifted_NC = logits_NC - logits_NC.max(axis=1, keepdims=True)
    result: Floats = shifted_NC - np.log(np.exp(shifted_NC).sum(axis=1, keepdims=True))
    return result
