"""The head that frozen features give, and the convex fit under it."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from cliptune.errors import DataError
from cliptune.training.head import mixture
from cliptune.training.head.cross_validation import STRENGTHS, Plan
from cliptune.training.head.fitting import HeadFit, fit_head
from cliptune.training.head.logistic import coordinates, directions, fit_logistic
from cliptune.training.head.mixture import fit_weights, log_loss

SCALE = 20.0


def made(shots, *, classes=4, dim=24, seed=0, knows=1.0):
    """(features, labels, text): clouds about class means, which the text knows in part."""
    rng = np.random.default_rng(seed)
    means_CD = rng.normal(size=(classes, dim))
    counts = [shots] * classes if isinstance(shots, int) else shots
    labels_N = np.repeat(np.arange(classes), counts)
    features_ND = 3 + means_CD[labels_N] + 1.5 * rng.normal(size=(len(labels_N), dim))
    text_CD = directions(knows * means_CD + rng.normal(size=(classes, dim)))
    return features_ND, labels_N, text_CD


def fitted(shots, *, seed=0, **options) -> HeadFit:
    features_ND, labels_N, text_CD = made(shots, **options)
    return fit_head(features_ND, labels_N, text_CD, SCALE, seed=seed)


def softmax(logits_NC):
    exps_NC = np.exp(logits_NC - logits_NC.max(axis=1, keepdims=True))
    return exps_NC / exps_NC.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("shots", [2, 30])  # fewer photos than numbers of a feature, and more
def test_the_fit_answers_as_scikit_learn_does_for_the_same_objective(shots):
    features_ND, labels_N, _ = made(shots)
    own = coordinates(features_ND)
    weights_CR = fit_logistic(
        own.points_NR, labels_N, np.zeros((len(labels_N), 4)), strength=1e-3, tolerance=1e-8
    )
    weights_CD, bias_C = own.on_features(weights_CR)

    # The same objective on all the numbers, without the detour over principal axes.
    values_ND = (features_ND - features_ND.mean(axis=0)) / features_ND.std(axis=0)
    values_ND /= np.sqrt((values_ND**2).sum(axis=1).mean())
    points_ND = np.hstack([values_ND, np.ones((len(labels_N), 1))])
    theirs = LogisticRegression(
        C=1 / (1e-3 * len(labels_N)), fit_intercept=False, tol=1e-10, max_iter=10_000
    ).fit(points_ND, labels_N)

    ours_NC = softmax(features_ND @ weights_CD.T + bias_C)
    np.testing.assert_allclose(ours_NC, theirs.predict_proba(points_ND), atol=1e-4)


def test_an_endless_pull_leaves_the_offset():
    features_ND, labels_N, text_CD = made(5)
    zero_NC = SCALE * directions(features_ND) @ text_CD.T
    points_NR = coordinates(features_ND).points_NR
    weights_CR = fit_logistic(points_NR, labels_N, zero_NC, strength=1e12)
    np.testing.assert_allclose(points_NR @ weights_CR.T, 0, atol=1e-9)


def test_where_the_fit_starts_changes_no_answer():
    features_ND, labels_N, text_CD = made(6)
    points_NR = coordinates(features_ND).points_NR
    zero_NC = SCALE * directions(features_ND) @ text_CD.T
    start_CR = np.random.default_rng(1).normal(size=(4, points_NR.shape[1]))
    ours, theirs = (
        fit_logistic(points_NR, labels_N, zero_NC, strength=1e-3, tolerance=1e-7, start_CR=start)
        for start in (None, start_CR)
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("shots", [1, 4])
def test_the_head_is_the_sum_of_its_parts(shots):
    features_ND, labels_N, text_CD = made(shots)
    head = fit_head(features_ND, labels_N, text_CD, SCALE, seed=0)
    zero_NC = SCALE * directions(features_ND) @ text_CD.T
    expected_NC = head.zero_shot_weight * zero_NC
    for part in head.parts:
        points_NR = coordinates(directions(features_ND)).points_NR
        weights_CR = fit_logistic(
            points_NR, labels_N, part.share * zero_NC, strength=part.strength, tolerance=1e-7
        )
        expected_NC = expected_NC + part.weight * (part.share * zero_NC + points_NR @ weights_CR.T)
    ours_NC = softmax(head.logits(features_ND))
    np.testing.assert_allclose(ours_NC, softmax(expected_NC), atol=1e-3)


@pytest.mark.parametrize("shots", [1, 3, [1, 2, 30, 7]])
def test_neither_the_order_of_photos_nor_of_classes_changes_an_answer(shots):
    features_ND, labels_N, text_CD = made(shots)
    photos_N = np.random.default_rng(0).permutation(len(labels_N))
    classes_C = np.array([2, 0, 3, 1])
    place_C = np.argsort(classes_C)
    head = fit_head(features_ND, labels_N, text_CD, SCALE, seed=3)
    other = fit_head(
        features_ND[photos_N], place_C[labels_N[photos_N]], text_CD[classes_C], SCALE, seed=3
    )
    ours_NC = softmax(head.logits(features_ND))
    theirs_NC = softmax(other.logits(features_ND))
    np.testing.assert_allclose(theirs_NC, ours_NC[:, classes_C], atol=1e-3)


def test_the_same_photos_give_the_same_head_to_the_last_bit():
    one, two = fitted(5), fitted(5)
    for name in ("share", "weights_CD", "bias_C"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    np.testing.assert_array_equal(one.held_out.logits_NC, two.held_out.logits_NC)


@pytest.mark.parametrize("knows", [0.0, 1.0, 50.0])
@pytest.mark.parametrize("seed", range(3))
def test_held_out_log_loss_is_never_above_zero_shot(knows, seed):
    held_out = fitted(3, seed=seed, knows=knows, dim=6).held_out
    assert held_out.log_loss <= held_out.zero_shot_log_loss


def test_held_out_answers_do_not_know_the_labels_of_their_photos():
    """Labels by lot: whoever had seen them would do better than guess."""
    features_ND, labels_N, text_CD = made(25)
    labels_N = np.random.default_rng(0).permutation(labels_N)
    head = fit_head(features_ND, labels_N, text_CD, SCALE, seed=0)
    assert head.held_out.accuracy < 0.40  # of four classes; 3.5 standard deviations above a guess


def test_a_class_without_photos_is_named():
    features_ND, labels_N, text_CD = made([3, 0, 3, 3])
    with pytest.raises(DataError, match="no photo to fit the head of collie"):
        fit_head(
            features_ND, labels_N, text_CD, SCALE, seed=0, class_names=["a", "collie", "b", "c"]
        )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite_are_refused(value):
    features_ND, labels_N, text_CD = made(3)
    features_ND[4, 2] = value
    with pytest.raises(DataError, match="1 of 12 photos are not finite"):
        fit_head(features_ND, labels_N, text_CD, SCALE, seed=0)


def test_one_photo_a_class_fits_and_says_how():
    held_out = fitted(1).held_out
    assert (held_out.folds, held_out.accuracy, held_out.log_loss) == (0, None, None)
    assert not held_out.photos_N.any()
    assert "too few photos" in held_out.note


def test_what_zero_shot_deserves_falls_with_how_badly_it_answers():
    labels_N = np.arange(4)
    right_NC = 10.0 * np.eye(4)
    assert mixture.deserved_share(right_NC, labels_N) > 0.95
    assert mixture.deserved_share(right_NC[::-1], labels_N) < 0.3


def test_the_only_photo_of_a_class_is_never_held_out():
    held_out = fitted([1, 9, 9, 9]).held_out
    np.testing.assert_array_equal(held_out.photos_N, [False] + [True] * 27)
    assert np.isfinite(held_out.logits_NC).all()


def test_folds_hold_out_each_photo_once_and_no_whole_class():
    labels_N = np.repeat(np.arange(5), [1, 2, 3, 50, 7])
    for folds_N in mixture.stratified_folds(
        labels_N, order_N=np.arange(len(labels_N)), folds=5, repeats=2, seed=0
    ):
        assert folds_N[0] == -1
        assert (folds_N[1:] >= 0).all()
        for fold in range(5):
            assert set(labels_N[folds_N != fold]) == set(range(5))


@pytest.mark.parametrize("seed", range(6))
def test_folds_of_groups_part_none_and_leave_each_class_in_the_rest(seed):
    rng = np.random.default_rng(seed)
    groups_N = rng.integers(0, 14, 120)
    # Groups of one class, of several, and a class that is all in one group.
    labels_N = np.where(groups_N % 3 == 0, rng.integers(0, 3, 120), groups_N % 3)
    labels_N[groups_N == 13] = 3
    folds_FN = mixture.grouped_folds(
        labels_N, groups_N, order_N=rng.permutation(120), folds=5, repeats=2, seed=seed
    )
    for folds_N in folds_FN:
        assert (folds_N[groups_N == 13] == -1).all()
        for group in range(14):
            assert len(set(folds_N[groups_N == group])) == 1
        for fold in range(folds_N.max() + 1):
            assert set(labels_N[folds_N != fold]) == set(range(4))
    assert ((folds_FN[0] >= 0) == (folds_FN[1] >= 0)).all()


def test_folds_of_groups_are_the_same_whatever_photos_groups_and_classes_are_called():
    rng = np.random.default_rng(0)
    groups_N = rng.integers(0, 20, 90)
    labels_N = groups_N % 3
    order_N = np.arange(90)
    options = {"folds": 4, "repeats": 1, "seed": 3}
    found = mixture.grouped_folds(labels_N, groups_N, order_N=order_N, **options)
    other = mixture.grouped_folds(2 - labels_N, 50 - groups_N, order_N=order_N, **options)
    np.testing.assert_array_equal(found, other)


def test_cross_validation_of_near_copies_tells_what_new_groups_will_give():
    rng = np.random.default_rng(0)
    labels_G = np.arange(40) % 4
    text_CD = directions(rng.normal(size=(4, 24)))
    own_GD = text_CD[labels_G] + 1.2 * rng.normal(size=(40, 24))
    groups_N = np.repeat(np.arange(40), 8)
    features_ND = own_GD[groups_N] + 0.01 * rng.normal(size=(320, 24))
    by_photo, by_group = (
        fit_head(
            features_ND, labels_G[groups_N], text_CD, SCALE, seed=0, with_text=False, groups_N=given
        )
        for given in (None, groups_N)
    )
    new_N = rng.integers(0, 4, 4000)
    new_ND = text_CD[new_N] + 1.2 * rng.normal(size=(4000, 24))
    truth = (by_group.logits(new_ND).argmax(axis=1) == new_N).mean()
    assert by_photo.held_out.accuracy > 0.99
    assert abs(by_group.held_out.accuracy - truth) < 0.15
    assert truth < 0.8


def test_photos_that_are_all_alike_give_finite_answers():
    features_ND, labels_N, text_CD = made(4)
    features_ND[:] = features_ND[0]
    head = fit_head(features_ND, labels_N, text_CD, SCALE, seed=0)
    assert np.isfinite(head.logits(features_ND)).all()


def test_a_fit_on_every_photo_twice_is_the_fit_on_each_once():
    features_ND, labels_N, text_CD = made(4)
    twice_ND, labels_M = np.tile(features_ND, (2, 1)), np.tile(labels_N, 2)
    logits = []
    for values_ND, labels in ((features_ND, labels_N), (twice_ND, labels_M)):
        own = coordinates(values_ND)
        zero_NC = SCALE * directions(values_ND) @ text_CD.T
        weights_CR = fit_logistic(own.points_NR, labels, zero_NC, strength=1e-3, tolerance=1e-8)
        weights_CD, bias_C = own.on_features(weights_CR)
        logits.append(features_ND @ weights_CD.T + bias_C)
    np.testing.assert_allclose(logits[0], logits[1], atol=1e-4)


def test_an_endless_pull_keeps_the_mixture_where_it_starts():
    rng = np.random.default_rng(0)
    answers_KNC, labels_N = rng.normal(size=(3, 8, 4)), np.arange(8) % 4
    start_K = np.array([0.0, 0.5, 0.5])
    pulled_K = fit_weights(answers_KNC, labels_N, start_K=start_K, pull=1e9)
    np.testing.assert_allclose(pulled_K, start_K, atol=1e-6)
    free_K = fit_weights(answers_KNC, labels_N, start_K=start_K, pull=0.0)
    losses = [
        log_loss(np.tensordot(weights_K, answers_KNC, axes=1), labels_N)
        for weights_K in (free_K, start_K)
    ]
    assert losses[0] <= losses[1]


def test_a_head_without_text_does_not_hear_of_it():
    features_ND, labels_N, text_CD = made(4)
    heads = [
        fit_head(features_ND, labels_N, text, SCALE, seed=0, with_text=False)
        for text in (text_CD, text_CD[::-1])
    ]
    assert heads[0].share == heads[1].share == 0
    np.testing.assert_array_equal(heads[0].weights_CD, heads[1].weights_CD)


@pytest.mark.parametrize("dim", [16, 40])  # a projection that keeps all of 24 numbers, or not
def test_features_are_standardised_before_the_projection_as_far_as_it_tells(dim):
    features_NH = made(8)[0]
    projection_DH = np.random.default_rng(1).normal(size=(dim, 24))
    seen_NH = features_NH @ projection_DH.T @ np.linalg.pinv(projection_DH).T
    ours = coordinates(features_NH @ projection_DH.T, projection_DH=projection_DH)
    theirs = coordinates(seen_NH)
    np.testing.assert_allclose(
        ours.points_NR @ ours.points_NR.T, theirs.points_NR @ theirs.points_NR.T, atol=1e-8
    )
    weights_CR = np.random.default_rng(2).normal(size=(4, ours.points_NR.shape[1]))
    weights_CD, bias_C = ours.on_features(weights_CR)
    np.testing.assert_allclose(
        features_NH @ projection_DH.T @ weights_CD.T + bias_C,
        ours.points_NR @ weights_CR.T,
        atol=1e-8,
    )


def test_each_fold_has_a_head_that_answers_as_is_said_of_photos_held_out():
    features_ND, labels_N, text_CD = made(12)
    once = Plan(5, 1, STRENGTHS, 100, 1e-6)
    head = fit_head(features_ND, labels_N, text_CD, SCALE, seed=0, plan=once)
    heads = head.without_folds
    points_ND = directions(features_ND)
    found_NC = np.einsum("nd,ncd->nc", points_ND, heads.weights_KCD[heads.folds_N])
    found_NC += heads.bias_KC[heads.folds_N]
    np.testing.assert_allclose(found_NC, head.held_out.logits_NC, atol=1e-6)


def test_where_zero_shot_stays_nothing_was_seen_and_no_fold_needs_a_head_of_its_own():
    rng = np.random.default_rng(0)
    features_ND, labels_N = rng.normal(size=(40, 6)), rng.permutation(np.arange(40) % 4)
    head = fit_head(features_ND, labels_N, np.eye(4, 6), 1e-3, seed=0)  # labels by chance
    assert "zero-shot, which stays" in head.held_out.note
    assert head.without_folds is None
