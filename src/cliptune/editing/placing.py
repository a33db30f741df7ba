"""The class weight of a new class, from its prompts and a few photos, beside trained ones.

A mean of photo features is no class weight: photos and texts live in different cones of the
feature space (Liang et al., 2022, arXiv 2203.02053, "Mind the Gap"), so a mean is nearer to every
photo than any weight is, and the new class would swallow the others. Here the one new row w of a
logistic regression is fitted, all others held, with the text feature t as its prior:

    maximise  k * [mean over photos of log p(new | photo)
                   + sum over old classes of log p(old class | mean of its photos)]
              - strength / 2 * |w - t|^2          over w of length 1

where p is the classifier's own softmax, at its own scale. Each class counts the same, whatever
its number of photos. Without photos w is t: zero-shot CLIP. The more photos, the less the text
counts. Of an old class no photo is at hand but the mean direction of those of val is, and that
says where the new class must not reach. `benchmarks/add_class.py` measures this against what
comes to mind first.

Shape suffixes: N photos, C old classes, K those with a mean, D feature.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

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
    bias_C: Features | None = None,
    of_unit_length: bool = True,
    strength: float = PRIOR_STRENGTH,
) -> Floats:
    """(D,) the class weight of a class whose text alone would give `text_D`.

    It has length 1, as `text_D` has, or else the length that fits, beside a head whose weights
    have any length and perhaps a bias.

    `features_ND` are the image features of its photos, of any length; `weights_CD` the weights of
    the classes known so far and `means_CD` the mean directions of their photos, where a row of
    zeros is left out; `scale` what cosines are multiplied by. Deterministic.
    """
    photos_ND, text_D = unit_rows(features_ND), np.asarray(text_D, dtype=np.float64)
    weights_CD = np.asarray(weights_CD, dtype=np.float64)
    means_KD = unit_rows(means_CD)
    means_KD = means_KD[np.any(means_KD != 0, axis=1)]
    pull = strength / len(photos_ND)
    # log of the sum of exp(logit) over the old classes
    rest_N, rest_K = (
        np.logaddexp.reduce(scale * x @ weights_CD.T + (0 if bias_C is None else bias_C), axis=1)
        for x in (photos_ND, means_KD)
    )

    def loss(v_D: Floats) -> tuple[float, Floats]:
        length = float(np.linalg.norm(v_D)) if of_unit_length else 1.0
        w_D = v_D / length
        # Of each side, the log odds that the answer is wrong
        odds_N, odds_K = rest_N - scale * photos_ND @ w_D, scale * means_KD @ w_D - rest_K
        value = np.logaddexp(0, odds_N).mean() + np.logaddexp(0, odds_K).sum()
        value += pull / 2 * float((w_D - text_D) @ (w_D - text_D))
        slope_D = scale * (expit(odds_K) @ means_KD - expit(odds_N) @ photos_ND / len(odds_N))
        slope_D += pull * (w_D - text_D)
        if of_unit_length:
            slope_D = (slope_D - (slope_D @ w_D) * w_D) / length
        return float(value), slope_D

    found = minimize(loss, text_D, jac=True, method="L-BFGS-B")
    placed_D: Floats = unit_rows(found.x[None])[0] if of_unit_length else found.x
    return placed_D
