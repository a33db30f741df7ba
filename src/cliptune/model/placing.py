"""The class weight of a new class, from its prompts and a few photos, beside trained ones.

A mean of photo features is no class weight: photos and texts live in different cones of the
feature space (Liang et al., 2022, arXiv 2203.02053, "Mind the Gap"), so a mean is nearer to every
photo than any weight is, and the new class would swallow the others. Here the one new row w of a
logistic regression is fitted, all others held, with the text feature t as its prior:

    maximise  k · [mean over photos of log p(new | photo)
                   + sum over old classes of mean log p(old class | its stand-ins)]
              - strength / 2 · |w - t|²          over w of length 1

where p is the classifier's own softmax, at its own scale. Each class counts the same, whatever
its number of photos. Without photos w is t: zero-shot CLIP. With k photos they outweigh the text
the more, the more they are. Of old classes no photo is at hand but their mean direction is: what
stands in for their photos are these means with the scatter of the new class's photos around
theirs. `benchmarks/add_class.py` measures this against the alternatives.

Shape suffixes: N photos, C old classes, M stand-ins, D feature.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize

from cliptune.model.answers import Features, Floats, unit_rows

# Chosen on the val photos of breeds left out of training: benchmarks/add_class.py.
PRIOR_STRENGTH = 30.0


def place_class(
    text_D: Features,
    features_ND: Features,
    *,
    weights_CD: Features,
    means_CD: Features,
    scale: float,
    strength: float = PRIOR_STRENGTH,
) -> Floats:
    """(D,) the class weight, of length 1, of a class with the text feature `text_D`.

    `features_ND` are the image features of its photos, of any length; `weights_CD` the weights of
    the classes known so far and `means_CD` the mean directions of their photos, where a row of
    zeros is left out; `scale` what cosines are multiplied by. Deterministic.
    """
    photos_ND, text_D = unit_rows(features_ND), np.asarray(text_D, dtype=np.float64)
    weights_CD = np.asarray(weights_CD, dtype=np.float64)
    others_MD = stand_ins(photos_ND, means_CD)
    classes = int(np.any(np.asarray(means_CD) != 0, axis=1).sum())
    pull = strength / len(photos_ND)
    # log of the sum of exp(logit) over the old classes
    rest_N, rest_M = (
        np.logaddexp.reduce(scale * x @ weights_CD.T, axis=1) for x in (photos_ND, others_MD)
    )

    def loss(v_D: Floats) -> tuple[float, Floats]:
        length = float(np.linalg.norm(v_D))
        w_D = v_D / length
        odds_N, odds_M = rest_N - scale * photos_ND @ w_D, scale * others_MD @ w_D - rest_M
        value = np.logaddexp(0, odds_N).mean() + classes * np.logaddexp(0, odds_M).mean()
        value += pull / 2 * float((w_D - text_D) @ (w_D - text_D))
        slope_D = -scale * _sigmoid(odds_N) @ photos_ND / len(odds_N)
        slope_D += scale * classes * _sigmoid(odds_M) @ others_MD / len(odds_M)
        slope_D += pull * (w_D - text_D)
        return float(value), (slope_D - (slope_D @ w_D) * w_D) / length

    found = minimize(loss, text_D, jac=True, method="L-BFGS-B")
    placed_D: Floats = unit_rows(found.x[None])[0]
    return placed_D


def stand_ins(photos_ND: Floats, means_CD: Features) -> Floats:
    """(M, D) what stands in for photos of the old classes, equally many of each, of length 1.

    Each old mean, with the residuals of the new photos from their own mean around it. A mean
    direction has lost its length; it gets that of the new photos' mean, R, freed of the bias of
    so few: E|mean|² = R² + (1 - R²) / k for k directions.
    """
    means_KD = unit_rows(means_CD)
    means_KD = means_KD[np.any(means_KD != 0, axis=1)]
    count = len(photos_ND)
    if count == 1:
        return means_KD  # one photo tells nothing of scatter
    mean_D = photos_ND.mean(axis=0)
    length = np.sqrt(max((count * float(mean_D @ mean_D) - 1) / (count - 1), _SHORTEST**2))
    scatter_ND = (photos_ND - mean_D) * np.sqrt(count / (count - 1))
    return unit_rows((length * means_KD[:, None] + scatter_ND).reshape(-1, photos_ND.shape[1]))


_SHORTEST = 0.2  # where photos agree on nothing, the means still count


def _sigmoid(x_N: Floats) -> Floats:
    result: Floats = np.exp(-np.logaddexp(0, -x_N))
    return result
