"""What is said of a photo by classifiers that have not seen its label."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.model_selection import LeaveOneOut, PredefinedSplit, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

from cliptune.labelling.contradiction import POWER, confidently_wrong, contradictions
from cliptune.labelling.opinions import (
    NEIGHBOURS,
    SHARPNESS,
    discriminant,
    held_out_opinions,
    neighbours,
    standardised,
)
from cliptune.training.head.fitting import HeadFit, fit_head
from cliptune.training.head.logistic import Floats, Labels
from cliptune.training.head.mixture import grouped_folds, stratified_folds


def clouds(
    *, photos: int = 30, classes: int = 4, dim: int = 12, seed: int = 0
) -> tuple[Floats, Labels]:
    """(N, D) features in a cloud for each class, and labels."""
    rng = np.random.default_rng(seed)
    labels_N = np.repeat(np.arange(classes), photos)
    centres_CD = rng.normal(0, 1, (classes, dim))
    return centres_CD[labels_N] + rng.normal(0, 1, (len(labels_N), dim)), labels_N


def head(features_ND: Floats, labels_N: Labels, groups_N: Labels | None = None) -> HeadFit:
    rng = np.random.default_rng(1)
    text_CD = rng.normal(0, 1, (int(labels_N.max()) + 1, features_ND.shape[1]))
    text_CD /= np.linalg.norm(text_CD, axis=1, keepdims=True)
    return fit_head(features_ND, labels_N, text_CD, 10.0, seed=0, groups_N=groups_N)


def test_photos_that_are_a_group_each_are_folded_as_without_groups() -> None:
    features_ND, labels_N = clouds()
    own_N = np.random.default_rng(2).permutation(len(labels_N)) * 7
    without, each = head(features_ND, labels_N), head(features_ND, labels_N, own_N)
    np.testing.assert_array_equal(each.held_out.logits_NC, without.held_out.logits_NC)
    np.testing.assert_array_equal(each.weights_CD, without.weights_CD)


def test_photos_of_one_group_are_held_out_together() -> None:
    rng = np.random.default_rng(3)
    labels_N, order_N = rng.integers(0, 3, 200), rng.permutation(200)
    groups_N = rng.integers(0, 60, 200)
    folds_FN = grouped_folds(labels_N, groups_N, order_N=order_N, folds=5, repeats=2, seed=0)
    for folds_N in folds_FN:
        assert all(len(set(folds_N[groups_N == group])) == 1 for group in set(groups_N))
    assert (folds_FN[0] != folds_FN[1]).any()
    alone_FN = stratified_folds(labels_N, order_N=order_N, folds=5, repeats=1, seed=0)
    assert any(len(set(alone_FN[0][groups_N == group])) > 1 for group in set(groups_N))


def test_the_discriminant_is_that_of_scikit_learn_without_the_fold() -> None:
    features_ND, labels_N = clouds()
    folds_N = np.random.default_rng(0).integers(0, 5, len(labels_N))
    said_NC = discriminant(features_ND, labels_N, folds_N, num_classes=4)
    expected_NC = cross_val_predict(
        LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"), features_ND, labels_N,
        cv=PredefinedSplit(folds_N), method="predict_proba",
    )  # fmt: skip
    np.testing.assert_allclose(np.exp(said_NC), expected_NC, atol=1e-9)


def test_neighbours_are_those_of_scikit_learn() -> None:
    features_ND, labels_N = clouds()
    said_NC = neighbours(features_ND, labels_N, np.arange(len(labels_N)), num_classes=4)
    by_cosine = KNeighborsClassifier(
        NEIGHBOURS, metric="cosine", algorithm="brute",
        weights=lambda distances: np.exp(SHARPNESS * (1 - distances)),
    )  # fmt: skip
    expected_NC = cross_val_predict(
        by_cosine, features_ND, labels_N, cv=LeaveOneOut(), method="predict_proba"
    )
    np.testing.assert_allclose(said_NC, np.log((expected_NC + 0.02) / 1.08), atol=1e-9)


def test_no_photo_hears_of_its_own_group() -> None:
    features_ND, labels_N = clouds()
    features_ND[1] = features_ND[0]  # a copy
    groups_N = np.maximum(np.arange(len(labels_N)), 1)
    other_N = np.where(groups_N == 1, 3, labels_N)  # both copies labelled otherwise

    def said_of_the_first(labels_N: Labels, groups_N: Labels) -> list[Floats]:
        near_NC = neighbours(features_ND, labels_N, groups_N, num_classes=4)
        shape_NC = discriminant(features_ND, labels_N, groups_N % 5, num_classes=4)
        return [near_NC[0], shape_NC[0]]

    np.testing.assert_array_equal(
        said_of_the_first(labels_N, groups_N), said_of_the_first(other_N, groups_N)
    )
    alone_N = np.arange(len(labels_N))
    for one, other in zip(
        said_of_the_first(labels_N, alone_N), said_of_the_first(other_N, alone_N), strict=True
    ):
        assert (one != other).any()


def test_a_class_of_one_group_is_not_judged() -> None:
    features_ND, labels_N = clouds()
    groups_N = np.arange(len(labels_N))
    groups_N[labels_N == 2] = 1000
    fit = head(features_ND, labels_N, groups_N)
    chances_NC, judged_N = held_out_opinions(fit, features_ND, labels_N, groups_N, seed=0)
    np.testing.assert_array_equal(judged_N, labels_N != 2)
    np.testing.assert_allclose(chances_NC.sum(axis=1), 1)


def test_a_label_is_contradicted_by_the_best_other_class() -> None:
    chances_NC = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.3, 0.3, 0.4], [0, 1, 0]])
    scores_N, suggested_N = contradictions(chances_NC, np.array([1, 1, 0, 0]))
    best, own = np.array([0.7, 0.3, 0.4, 1]), np.array([0.2, 0.6, 0.3, 0])
    np.testing.assert_allclose(scores_N, best**POWER - own**POWER)
    assert suggested_N.tolist() == [0, 2, 2, 1]
    assert (np.abs(scores_N) <= 1).all()


@pytest.mark.parametrize("seed", range(5))
def test_confident_learning_counts_as_its_paper_defines(seed: int) -> None:
    rng = np.random.default_rng(seed)
    chances, labels_N = rng.dirichlet(np.ones(4), size=60), rng.integers(0, 4, 60)
    judged_N = rng.random(60) < 0.8
    thresholds = [chances[judged_N & (labels_N == c), c].mean() for c in range(4)]
    expected = []
    for row, label, judged in zip(chances, labels_N, judged_N, strict=True):
        reached = [c for c in range(4) if row[c] >= thresholds[c]]
        best = max(reached, key=lambda c, row=row: row[c], default=label)
        expected.append(judged and best != label)
    assert confidently_wrong(chances, labels_N, judged_N).tolist() == expected
    assert 0 < sum(expected) < judged_N.sum()


def test_wrong_labels_are_ranked_before_right_ones() -> None:
    features_ND, labels_N = clouds(dim=20)
    wrong_N = np.zeros(len(labels_N), dtype=bool)
    wrong_N[::12] = True
    given_N = np.where(wrong_N, (labels_N + 1) % 4, labels_N)
    groups_N = np.arange(len(labels_N))
    fit = head(features_ND, given_N, groups_N)
    chances_NC, _ = held_out_opinions(fit, features_ND, given_N, groups_N, seed=0)
    order_N = np.argsort(-contradictions(chances_NC, given_N)[0])
    assert wrong_N[order_N[: wrong_N.sum()]].mean() >= 0.9
    shuffled_N = np.random.default_rng(0).permutation(order_N)
    assert wrong_N[shuffled_N[: wrong_N.sum()]].mean() < 0.5


def test_directions_are_standardised_number_by_number() -> None:
    features_ND, _ = clouds()
    points_ND = standardised(features_ND * 3)
    np.testing.assert_allclose(points_ND.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(points_ND.std(axis=0), 1)
    np.testing.assert_allclose(points_ND, standardised(features_ND))
