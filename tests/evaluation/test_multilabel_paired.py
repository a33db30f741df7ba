"""Two models of several labels on the same photos: differences, intervals, p-values."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, f1_score

from cliptune.evaluation.statistics.few_photos import OF_A_LABEL
from cliptune.evaluation.statistics.intervals import Estimate
from cliptune.evaluation.statistics.multilabel import (
    LabelDraws,
    MultilabelFigures,
    figures_and_draws,
    mean_ap_gain,
    multilabel_figures,
    resampled,
)
from cliptune.evaluation.statistics.multilabel_paired import (
    PairedLabels,
    compare_paired_labels,
    resampled_p,
)
from cliptune.model.label_answers import sigmoid

FIGURES = ("mean_ap", "micro_f1", "macro_f1", "exact", "hamming")
Measured = tuple[MultilabelFigures, LabelDraws]


def two_models(
    photos: int, *, seed: int = 0, rate: float = 0.3, better: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(targets, scores of A, of B) of five classes; A's noise is smaller by a share `better`."""
    rng = np.random.default_rng(seed)
    known_NC = rng.normal(size=(photos, 5))
    targets_NC = known_NC + 0.7 * rng.normal(size=known_NC.shape) > 1.22 * (1 - 2 * rate)
    noises = rng.normal(size=(2, *known_NC.shape))
    return targets_NC, known_NC + (1 - better) * noises[0], known_NC + noises[1]


def measured(scores_NC: np.ndarray, targets_NC: np.ndarray, *, draws: int = 200) -> Measured:
    return figures_and_draws(sigmoid(scores_NC), scores_NC > 0.5, targets_NC, seed=7, draws=draws)


def ends(estimate: Estimate | None) -> tuple[float, float, float]:
    assert estimate is not None
    return estimate.value, estimate.low, estimate.high


def test_a_model_differs_from_itself_by_nothing_for_sure() -> None:
    targets_NC, a_NC, _ = two_models(200)
    own = measured(a_NC, targets_NC)
    found = compare_paired_labels(own, own)
    for name in FIGURES:
        assert ends(getattr(found, name)) == (0, 0, 0)
    assert {ends(each) for each in (*found.average_precision, *found.f1)} == {(0, 0, 0)}
    assert found.mean_ap_p == 1


def test_exchanged_models_differ_the_other_way_round() -> None:
    targets_NC, a_NC, b_NC = two_models(200, better=0.5)
    a, b = measured(a_NC, targets_NC), measured(b_NC, targets_NC)
    there, back = compare_paired_labels(a, b), compare_paired_labels(b, a)
    pairs = [(getattr(there, name), getattr(back, name)) for name in FIGURES]
    pairs += zip(there.average_precision, back.average_precision, strict=True)
    pairs += zip(there.f1, back.f1, strict=True)
    for one, other in pairs:
        value, low, high = ends(other)
        assert ends(one) == pytest.approx((-value, -high, -low), abs=1e-12)
        assert one.low < one.high
    assert there.mean_ap.low > 0
    assert there.mean_ap_p == back.mean_ap_p < 0.05


def test_differences_are_those_of_scikit_learns_figures() -> None:
    targets_NC, a_NC, b_NC = two_models(150, better=0.3)
    found = compare_paired_labels(measured(a_NC, targets_NC), measured(b_NC, targets_NC))
    by_class = [
        average_precision_score(targets_NC, a_NC, average=None)
        - average_precision_score(targets_NC, b_NC, average=None),
        f1_score(targets_NC, a_NC > 0.5, average=None)
        - f1_score(targets_NC, b_NC > 0.5, average=None),
    ]
    assert found.mean_ap.value == pytest.approx(by_class[0].mean(), abs=1e-12)
    for differences, expected in zip((found.average_precision, found.f1), by_class, strict=True):
        assert [ends(each)[0] for each in differences] == pytest.approx(expected.tolist())


def test_an_interval_is_of_photos_that_both_models_are_measured_on_again() -> None:
    targets_NC, a_NC, b_NC = two_models(120, better=0.3)
    found = compare_paired_labels(measured(a_NC, targets_NC), measured(b_NC, targets_NC))
    drawn = []
    for counts_N in resampled(120, seed=7, draws=200):
        again_N = np.repeat(np.arange(120), counts_N.astype(int))
        drawn.append(
            f1_score(targets_NC[again_N], a_NC[again_N] > 0.5, average="micro")
            - f1_score(targets_NC[again_N], b_NC[again_N] > 0.5, average="micro")
        )
    rest = np.quantile(drawn, [0.025, 0.975]) - np.mean(drawn) + found.micro_f1.value
    assert ends(found.micro_f1)[1:] == pytest.approx(rest.tolist(), abs=1e-12)
    # Evaluation's gain over zero-shot is the same figure, of the same resamples.
    gain = mean_ap_gain(sigmoid(a_NC), sigmoid(b_NC), targets_NC, seed=7, draws=200)
    assert ends(found.mean_ap) == pytest.approx(ends(gain), abs=1e-12)


def test_paired_intervals_are_narrower_than_those_of_the_models_are_wide() -> None:
    targets_NC, a_NC, _ = two_models(200)
    near_NC = a_NC + np.random.default_rng(1).normal(0, 0.1, a_NC.shape)
    a, near = measured(a_NC, targets_NC), measured(near_NC, targets_NC)
    found = compare_paired_labels(a, near).mean_ap
    assert found.high - found.low < 0.5 * (a[0].mean_ap.high - a[0].mean_ap.low)


def test_a_class_on_few_photos_has_a_difference_without_an_interval() -> None:
    targets_NC, a_NC, b_NC = two_models(150)
    targets_NC[:, 0] = False
    targets_NC[np.argsort(a_NC[:, 1])[: 150 - OF_A_LABEL + 1], 1] = False
    targets_NC[np.argsort(a_NC[:, 1])[150 - OF_A_LABEL + 1 :], 1] = True
    found = compare_paired_labels(measured(a_NC, targets_NC), measured(b_NC, targets_NC))
    assert found.average_precision[0] is None  # on none
    for each in (found.average_precision[1], found.f1[1]):
        assert np.isinf(ends(each)[1:]).all()
        assert np.isfinite(ends(each)[0])
    assert np.isfinite([ends(each) for each in found.average_precision[2:]]).all()


def test_p_is_below_a_twentieth_where_the_interval_leaves_0_out() -> None:
    sides = set()
    for seed in range(40):
        targets_NC, a_NC, b_NC = two_models(60, seed=seed, better=0.25)
        found = compare_paired_labels(
            measured(a_NC, targets_NC, draws=399), measured(b_NC, targets_NC, draws=399)
        )
        outside = found.mean_ap.low > 0 or found.mean_ap.high < 0
        if abs(found.mean_ap_p - 0.05) > 0.006:  # a draw more decides nearer to it
            assert outside == (found.mean_ap_p < 0.05)
        sides.add(outside)
    assert sides == {True, False}


def test_models_that_are_alike_are_told_apart_as_seldom_as_p_says() -> None:
    trials, wrong = 200, 0
    for seed in range(trials):
        targets_NC, a_NC, b_NC = two_models(80, seed=seed)
        a, b = measured(a_NC, targets_NC), measured(b_NC, targets_NC)
        wrong += compare_paired_labels(a, b).mean_ap_p < 0.05
    assert binomtest(wrong, trials, 0.05).pvalue > 0.001


def test_a_p_value_is_never_0_and_at_most_1() -> None:
    assert resampled_p(1.0, np.linspace(0.5, 1.5, 99)) == pytest.approx(2 / 100)
    assert resampled_p(0.0, np.zeros(99)) == 1
    assert resampled_p(0.1, np.full(3, np.nan)) == 1


def test_figures_with_their_draws_are_the_figures_without() -> None:
    targets_NC, a_NC, _ = two_models(80)
    figures, draws = measured(a_NC, targets_NC)
    alone = multilabel_figures(sigmoid(a_NC), a_NC > 0.5, targets_NC, seed=7, draws=200)
    assert figures.classes == alone.classes
    assert [getattr(figures, name) for name in FIGURES] == [
        getattr(alone, name) for name in FIGURES
    ]
    assert draws.units_C.tolist() == targets_NC.sum(axis=0).tolist()
    drawn = [getattr(draws, field.name) for field in fields(draws) if "_B" in field.name]
    assert {len(each) for each in drawn} == {200}
    assert all(np.isfinite(each).all() for each in drawn)


def test_photos_in_groups_of_one_are_photos_without_groups() -> None:
    targets_NC, a_NC, _ = two_models(80)
    given = sigmoid(a_NC), a_NC > 0.5, targets_NC
    alone = multilabel_figures(*given, seed=7, draws=200, groups_N=np.arange(80))
    without = multilabel_figures(*given, seed=7, draws=200)
    for name in FIGURES:
        assert ends(getattr(alone, name)) == pytest.approx(ends(getattr(without, name)))


def test_copies_of_photos_tell_no_more_than_the_photos() -> None:
    targets_NC, a_NC, b_NC = two_models(80, better=0.3)
    groups_N = np.repeat(np.arange(80), 5)
    copies = [np.repeat(each, 5, axis=0) for each in (a_NC, b_NC, targets_NC)]

    def found(groups_N: np.ndarray | None, scores: list[np.ndarray]) -> PairedLabels:
        targets = scores[2]
        both = [
            figures_and_draws(sigmoid(x), x > 0.5, targets, seed=7, groups_N=groups_N)
            for x in scores[:2]
        ]
        return compare_paired_labels(both[0], both[1])

    photos = found(None, [a_NC, b_NC, targets_NC])
    in_groups, counted_each = found(groups_N, copies), found(None, copies)
    for name in FIGURES:
        assert ends(getattr(in_groups, name)) == pytest.approx(ends(getattr(photos, name)))
        of_photos, of_copies = (getattr(each, name) for each in (photos, counted_each))
        narrower = (of_copies.high - of_copies.low) / (of_photos.high - of_photos.low)
        assert narrower == pytest.approx(5**-0.5, rel=0.15)
    assert in_groups.mean_ap_p == photos.mean_ap_p
