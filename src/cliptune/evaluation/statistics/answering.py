"""Fit on validation photos how a checkpoint answers: its probabilities, and "none of these".

Shape suffixes: N photos, C classes, D numbers of a feature.
"""

from __future__ import annotations

import numpy as np

from cliptune.data.parents import Parents
from cliptune.evaluation.statistics.calibration import Temperature, fit_calibration, fit_temperature
from cliptune.evaluation.statistics.conformal import fit_sets, fit_sure
from cliptune.evaluation.statistics.grouped import Groups
from cliptune.evaluation.statistics.metrics import Labels, Logits
from cliptune.evaluation.statistics.rejection import threshold_for_share
from cliptune.model.answers import (
    Answers,
    Features,
    Floats,
    ScoreName,
    class_means,
    known_scores,
    max_cosine,
    softmax,
    unit_rows,
)

# Of the four the one that tells unknown photos best: benchmarks/results.md, "None of these".
DEFAULT_SCORE: ScoreName = "photos"
KNOWN_SHARE = SURE_SHARE = 0.95
# A factor for each class may change which class is highest: only where each has photos enough to
# tell, and where choosing them takes no minutes.
_ENOUGH = 20
_MUCH = 2_000_000  # logits
_MOST = 20_000_000  # logits that a temperature is fitted on; of more photos, a part


def fit_answers(
    logits_NC: Logits,
    features_ND: Features,
    labels_N: Labels,
    *,
    weights_CD: Features,
    share: float = KNOWN_SHARE,
    score: ScoreName = DEFAULT_SCORE,
    coverage: float | None = None,
    parents: Parents | None = None,
    seed: int = 0,
    groups_N: Groups | None = None,
) -> Answers:
    """The scaling and the threshold for these validation photos; with `coverage`, sets too, and
    with `parents` how sure is sure (at the rate `coverage` or else `SURE_SHARE`).

    Where all of them are classified rightly they cannot tell the temperature, and it stays 1.
    Of the latter two there are none where the photos are too few for the rate (`photos_for`).
    Raises `ValueError` without photos, or when a logit is not finite.
    """
    photos, classes = logits_NC.shape
    some = np.arange(photos)
    if logits_NC.size > _MOST:
        some = np.random.default_rng(seed).permutation(photos)[: max(1, _MOST // classes)]
    temperature, factors = fit_temperature(logits_NC[some], labels_N[some]), None
    if temperature.note == "separable":
        temperature = Temperature(1.0, temperature.nll, "separable")
    elif _has_enough(labels_N, classes) and logits_NC.size <= _MUCH:
        both = fit_calibration(logits_NC, labels_N, seed=seed, groups_N=groups_N)
        factors = both.vector.factors if both.chosen == "vector" else None
    fitted = Answers(
        temperature=temperature.value, factors=factors, note=temperature.note, score=score,
        threshold=0.0, share=share, kept=1.0, num_images=len(labels_N),
    )  # fmt: skip
    scores_N = held_out_scores(
        score, fitted.scale(logits_NC), features_ND, labels_N, weights_CD=weights_CD,
        groups_N=groups_N,
    )  # fmt: skip
    threshold = threshold_for_share(scores_N, share=share)
    promises: dict[str, object] = {}
    if coverage is not None:
        chances_NC = softmax(fitted.scale(logits_NC))
        promises["sets"] = fit_sets(chances_NC, labels_N, coverage=coverage)
    if parents:
        chances_NC, share_sure = softmax(fitted.scale(logits_NC)), coverage or SURE_SHARE
        promises["sure"] = fit_sure(chances_NC, labels_N, parents, share=share_sure)
    return fitted.model_copy(
        update={"threshold": threshold.value, "kept": threshold.kept, **promises}
    )


def _has_enough(labels_N: Labels, num_classes: int) -> bool:
    return bool(np.bincount(labels_N, minlength=num_classes).min() >= _ENOUGH)


def held_out_scores(
    name: ScoreName,
    scaled_NC: Logits,
    features_ND: Features,
    labels_N: Labels,
    *,
    weights_CD: Features,
    groups_N: Groups | None = None,
) -> Floats:
    """(N,) the score of photos which themselves make up the class means: each without itself.

    Photos of one number in `groups_N` belong together: each without its group.
    """
    count = scaled_NC.shape[1]
    means_CD = class_means(features_ND, labels_N, num_classes=count)
    if name != "photos":
        return known_scores(name, scaled_NC, features_ND, weights_CD=weights_CD, means_KD=means_CD)
    unit_ND = unit_rows(features_ND)
    sums_CD = np.zeros((count, features_ND.shape[1]))
    np.add.at(sums_CD, labels_N, unit_ND)
    left_out_ND, alike_N = unit_ND, np.ones(len(labels_N), dtype=np.int64)
    if groups_N is not None:
        left_out_ND, alike_N = _of_group_and_class(unit_ND, labels_N, groups_N)
    own_N = (unit_rows(sums_CD[labels_N] - left_out_ND) * unit_ND).sum(axis=1)
    # No other of its class:
    own_N[np.bincount(labels_N, minlength=count)[labels_N] == alike_N] = -1.0
    best_N = np.full(len(labels_N), -1.0)
    for label in range(count):  # the nearest mean of the other classes
        inside = labels_N == label
        others_KD = np.delete(means_CD, label, axis=0)
        if inside.any() and np.any(others_KD != 0):
            best_N[inside] = max_cosine(features_ND[inside], others_KD)
    result: Floats = np.maximum(own_N, best_N)
    return result


def _of_group_and_class(
    unit_ND: Floats, labels_N: Labels, groups_N: Groups
) -> tuple[Floats, Groups]:
    """(N, D) the sum, and (N,) the number, of the photos of each photo's group and class."""
    both = np.stack([groups_N, labels_N])
    _, pair_N, count_P = np.unique(both, axis=1, return_inverse=True, return_counts=True)
    sums_PD = np.zeros((len(count_P), unit_ND.shape[1]))
    np.add.at(sums_PD, pair_N.ravel(), unit_ND)
    return sums_PD[pair_N.ravel()], count_P[pair_N.ravel()]
