"""The row of a new class where a photo may show any of them: one question, answered yes or no.

Classes do not compete here, so nothing says where a new one ends but photos without it. Of its own
photos none says how frequent it is. So both sides count by a share that is given, as in the
weighted logistic regression of King & Zeng (Political Analysis 2001, section 4.2):

    minimise  share * [mean over its photos of -log p + strength / (2k) * |scale (w - worth * t)|^2]
              + (1 - share) * mean over the others of -log (1 - p)       over w and b

where p = sigmoid(scale * w . f + b) for a photo's direction f, k is the number of its photos and t
the text feature. Without photos of it w is worth * t, and b such that the mean of p over the other
photos is the share. What zero-shot is `worth`, the labels of the other classes tell.
The `strength` is that of least held-out loss, of few photos a usual one.
`benchmarks/labels/add_class.py` measures it.

Shape suffixes: N photos, K photos of the class, C other classes, D feature.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize
from scipy.special import expit, logit

from cliptune.model.answers import Features, Floats, unit_rows

Targets = NDArray[np.bool_]

MOST_WORTH = 2.0  # of a logit of zero-shot
# Chosen on the val photos of classes left out: benchmarks/labels/add_class.py.
USUAL_STRENGTH = 0.25
STRENGTHS = tuple(USUAL_STRENGTH * 10 ** (power / 2) for power in range(2, -9, -1))
_FOLDS = 5
_FEW = 8  # photos of a class; of fewer, none is held out


def usual_share(targets_NC: Targets) -> float:
    """The share of photos that show a class, in the middle (of log-odds) of the classes."""
    return float(expit(logit((targets_NC.sum(axis=0) + 0.5) / (len(targets_NC) + 1)).mean()))


def zero_shot_worth(
    features_ND: Features, targets_NC: Targets, texts_CD: Features, *, scale: float
) -> float:
    """How much of a zero-shot logit these classes' labels bear out, from 0 to `MOST_WORTH`.

    The slope of a logistic regression of the labels on zero-shot logits, common to all classes,
    each with a constant of its own. Classes that all photos show, or none, tell nothing of it.
    """
    tells_C = targets_NC.any(axis=0) & ~targets_NC.all(axis=0)
    if not tells_C.any():
        return 0.0
    yes_NC = targets_NC[:, tells_C]
    zero_NC = scale * unit_rows(features_ND) @ np.asarray(texts_CD, np.float64)[tells_C].T
    zero_NC -= zero_NC.mean(axis=0)

    def loss(slope_and_bases: Floats) -> tuple[float, Floats]:
        logits_NC = slope_and_bases[0] * zero_NC + slope_and_bases[1:]
        wrong_NC = expit(logits_NC) - yes_NC
        slopes = [(wrong_NC * zero_NC).sum(), *wrong_NC.sum(axis=0)]
        value = (np.logaddexp(0, logits_NC) - yes_NC * logits_NC).sum()
        return float(value) / len(yes_NC), np.array(slopes) / len(yes_NC)

    start = np.concatenate([[0.0], logit(yes_NC.mean(axis=0))])
    bounds = [(0.0, MOST_WORTH), *[(None, None)] * yes_NC.shape[1]]
    return float(minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x[0])


def place_label(
    text_D: Features,
    yes_KD: Features,
    others_ND: Features,
    *,
    scale: float,
    share: float,
    worth: float,
    strength: float | None = None,
) -> tuple[Floats, float]:
    """((D,) class weight, its bias) of a class with photos `yes_KD`, beside photos without it.

    Features are of any length, `text_D` of length 1; `share` is that of all photos which show it.
    `strength` None is chosen. Deterministic. Raises `ValueError` without other photos.
    """
    if not len(others_ND):
        raise ValueError("there is no photo without the class")
    prior_D = worth * np.asarray(text_D, dtype=np.float64)
    others_ND = unit_rows(others_ND)
    if not len(yes_KD):
        return prior_D, _bias_for(scale * others_ND @ prior_D, share)
    yes_KD = unit_rows(yes_KD)
    about = _Question(prior_D, scale, share)
    if strength is None:
        strength = about.best_strength(yes_KD, others_ND)
    return about.fit(yes_KD, others_ND, strength)


@dataclass(frozen=True)
class _Question:
    """What is fitted, but for the photos: directions (K, D) of the class, (N, D) of others."""

    prior_D: Floats
    scale: float
    share: float

    def best_strength(self, yes_KD: Floats, others_ND: Floats) -> float:
        """That of `STRENGTHS` with the least held-out loss; the usual one where photos are few."""
        if len(yes_KD) < _FEW or len(others_ND) < _FEW:
            return USUAL_STRENGTH
        folds_K, folds_N = (np.arange(len(part)) % _FOLDS for part in (yes_KD, others_ND))

        def held_out(strength: float) -> float:
            losses = []
            for fold in range(_FOLDS):
                own_K, own_N = folds_K == fold, folds_N == fold
                w_D, b = self.fit(yes_KD[~own_K], others_ND[~own_N], strength)
                losses.append(self.loss(yes_KD[own_K], others_ND[own_N], w_D, b))
            return float(np.mean(losses))

        return min(STRENGTHS, key=held_out)

    def loss(self, yes_KD: Floats, others_ND: Floats, w_D: Floats, b: float) -> float:
        """The objective without the pull to the text."""
        yes_K, others_N = (self.scale * each @ w_D + b for each in (yes_KD, others_ND))
        value = self.share * np.logaddexp(0, -yes_K).mean()
        return float(value + (1 - self.share) * np.logaddexp(0, others_N).mean())

    def fit(self, yes_KD: Floats, others_ND: Floats, strength: float) -> tuple[Floats, float]:
        """((D,) class weight, its bias) of least objective."""
        center_D = others_ND.mean(axis=0)  # about it, weight and bias do not stand for one another
        points_KD, points_ND = yes_KD - center_D, others_ND - center_D
        prior_D, share = self.scale * self.prior_D, self.share
        pull = share * strength / len(points_KD)

        def loss(row: Floats) -> tuple[float, Floats]:
            v_D, b = row[:-1], row[-1]  # v: scale times w
            away_D = v_D - prior_D
            value = self.loss(points_KD, points_ND, v_D / self.scale, b)
            wrong_K = -share * expit(-points_KD @ v_D - b) / len(points_KD)
            wrong_N = (1 - share) * expit(points_ND @ v_D + b) / len(points_ND)
            slope_D = wrong_K @ points_KD + wrong_N @ points_ND + pull * away_D
            slope = np.append(slope_D, wrong_K.sum() + wrong_N.sum())
            return value + pull / 2 * float(away_D @ away_D), slope

        start = np.append(prior_D, logit(share))
        found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 1000}).x
        return found[:-1] / self.scale, float(found[-1] - center_D @ found[:-1])


def _bias_for(logits_N: Floats, share: float) -> float:
    """What to add to `logits_N` so that the mean of their probabilities is `share`."""
    wanted = float(logit(share))
    low, high = wanted - float(logits_N.max()), wanted - float(logits_N.min())
    if low == high:
        return low
    return float(brentq(lambda bias: expit(logits_N + bias).mean() - share, low, high))
