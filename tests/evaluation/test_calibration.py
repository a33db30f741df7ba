"""Log loss, Brier, calibration error, and scalings of logits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

from cliptune.evaluation.statistics.calibration import (
    TEMPERATURES,
    brier_scores,
    fit_calibration,
    fit_temperature,
    fit_vector,
    log_losses,
)
from cliptune.evaluation.statistics.reliability import reliability, reliability_of

seeds = st.integers(0, 2**32 - 1)


def calibrated(
    photos: int, classes: int, *, seed: int = 0, spread: float = 2
) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from their softmax."""
    rng = np.random.default_rng(seed)
    logits = spread * rng.normal(size=(photos, classes))
    gumbel = rng.gumbel(size=logits.shape)  # the arg max of logits + Gumbel noise is such a draw
    return logits, (logits + gumbel).argmax(1)


@settings(deadline=None)
@given(st.integers(2, 9), st.integers(1, 50), seeds)
def test_log_loss_and_brier_are_those_of_scikit_learn(classes: int, photos: int, seed: int) -> None:
    logits, labels = calibrated(photos, classes, seed=seed)
    p, names = softmax(logits, axis=1), list(range(classes))
    assert log_losses(logits, labels).mean() == pytest.approx(log_loss(labels, p, labels=names))
    brier = brier_scores(logits, labels)
    assert brier.mean() == pytest.approx(
        brier_score_loss(np.eye(classes)[labels], p, scale_by_half=False)
        if classes > 2
        else 2 * np.mean((p[:, 1] - labels) ** 2)
    )
    assert ((brier >= 0) & (brier <= 2)).all()


def test_brier_is_two_for_certain_errors_and_zero_for_certain_truths() -> None:
    logits = np.array([[900.0, 0, 0], [900.0, 0, 0]])
    assert brier_scores(logits, np.array([0, 2])).tolist() == [0, 2]


@settings(deadline=None)
@given(st.integers(1, 300), st.sampled_from([5, 10, 15]), seeds)
def test_bins_are_those_of_scikit_learn(photos: int, num_bins: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    confidence = np.round(rng.uniform(size=photos), 2)  # on the edges now and then
    correct = rng.random(photos) < confidence
    for ours, theirs in (("equal-width", "uniform"), ("equal-mass", "quantile")):
        found = reliability_of(
            confidence,
            correct,
            seed=0,
            num_bins=num_bins,
            binning=ours,  # type: ignore[arg-type]
        )
        full = [part for part in found.bins if part.count]
        assert sum(part.count for part in full) == photos
        assert ours in found.binning
        gaps = [abs(part.accuracy.value - part.confidence) * part.count for part in full]
        assert found.ece == pytest.approx(sum(gaps) / photos)
        if ours == "equal-mass" and len(np.unique(confidence)) < 2 * num_bins:
            continue  # scikit-learn keeps quantiles that coincide as edges
        accuracy, mean = calibration_curve(correct, confidence, n_bins=num_bins, strategy=theirs)
        assert [part.accuracy.value for part in full] == pytest.approx(accuracy.tolist())
        assert [part.confidence for part in full] == pytest.approx(mean.tolist())


def test_equal_mass_bins_hold_equally_many_photos() -> None:
    confidence = np.random.default_rng(0).beta(8, 1, 300)
    found = reliability_of(confidence, confidence > 0.5, seed=0, binning="equal-mass")
    assert {part.count for part in found.bins} == {20}


def test_bins_of_one_repeated_confidence_are_one_bin() -> None:
    confidence, correct = np.full(10, 0.4), np.arange(10) < 7
    for binning in ("equal-width", "equal-mass"):
        found = reliability_of(confidence, correct, seed=0, binning=binning)  # type: ignore[arg-type]
        assert [part.count for part in found.bins if part.count] == [10]
        assert found.ece == pytest.approx(0.3)


def test_calibration_error_of_a_calibrated_model_goes_to_zero_and_its_estimate_sooner() -> None:
    plug_in, estimates = {}, {}
    for photos in (200, 200_000):
        found = [reliability(*calibrated(photos, 5, seed=s), seed=0) for s in range(9)]
        plug_in[photos] = np.mean([one.ece for one in found])
        estimates[photos] = np.median([one.ece_estimate.value for one in found])
    assert plug_in[200_000] < 0.004 < 0.03 < plug_in[200]
    assert estimates[200] < 0.02
    assert estimates[200_000] < 0.002


def test_calibration_error_of_an_overconfident_model_is_found() -> None:
    logits, labels = calibrated(200_000, 5)
    truth = reliability(3 * logits, labels, seed=0).ece
    found = reliability(3 * logits[:300], labels[:300], seed=0).ece_estimate
    assert truth > 0.1
    assert found is not None
    assert found.low < truth < found.high
    assert found.low > 0.05


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 6), st.integers(50, 130), seeds, st.sampled_from([0.3, 1, 40]))
def test_the_estimate_of_the_calibration_error_is_ordered_and_repeats_with_its_seed(
    classes: int, photos: int, seed: int, scale: float
) -> None:
    logits, labels = calibrated(photos, classes, seed=seed)
    found = reliability(scale * logits, labels, seed=seed)
    error = found.ece_estimate
    assert error is not None
    assert 0 <= error.low <= error.value <= error.high <= 1
    assert found == reliability(scale * logits, labels, seed=seed)


def test_certainty_without_errors_on_few_photos_proves_no_calibration() -> None:
    sure = np.full(100, 0.999999)
    error = reliability_of(sure, np.ones(100, dtype=bool), seed=0).ece_estimate
    assert error is not None
    assert error.low == 0
    assert 0.01 < error.high < 0.06  # three in a hundred may still err, by the rule of three


@pytest.mark.parametrize("classes", [2, 10])
def test_temperature_of_a_calibrated_model_is_one(classes: int) -> None:
    logits, labels = calibrated(40_000, classes, spread=3)
    assert fit_temperature(logits, labels).value == pytest.approx(1, abs=0.03)


@settings(deadline=None)
@given(st.floats(0.4, 2.5), seeds)
def test_scaling_logits_scales_the_temperature(scale: float, seed: int) -> None:
    logits, labels = calibrated(80, 4, seed=seed)
    one = fit_temperature(logits, labels)
    assume(one.note == "" and 0.2 < one.value < 5)
    other = fit_temperature(scale * logits, labels)
    assert other.value == pytest.approx(scale * one.value)
    assert other.nll == pytest.approx(one.nll)


@settings(deadline=None)
@given(st.integers(2, 6), st.integers(1, 40), seeds)
def test_no_temperature_is_better_and_none_changes_the_class(
    classes: int, photos: int, seed: int
) -> None:
    logits, labels = calibrated(photos, classes, seed=seed)
    fitted = fit_temperature(logits, labels)
    assert (fitted.scale(logits).argmax(1) == logits.argmax(1)).all()
    assert fitted.nll == pytest.approx(log_losses(fitted.scale(logits), labels).mean())
    for other in np.geomspace(*TEMPERATURES, 40):
        assert fitted.nll <= log_losses(logits / other, labels).mean() + 1e-9


def test_photos_that_cannot_tell_the_temperature_are_flagged() -> None:
    labels = np.array([0, 1, 2])
    separable = fit_temperature(5 * np.eye(3), labels)
    assert (separable.value, separable.note) == (TEMPERATURES[0], "separable")
    constant = fit_temperature(np.full((3, 3), 7.0), labels)
    assert (constant.value, constant.note, constant.nll) == (
        1,
        "constant",
        pytest.approx(np.log(3)),
    )
    wrong = fit_temperature(5 * np.eye(3)[[1, 2, 0]], labels)
    assert (wrong.value, wrong.note) == (TEMPERATURES[1], "at the limit")
    nearly = np.r_[np.tile(np.eye(2), (200, 1)), [[0.001, 0]]] / 100
    cold = fit_temperature(nearly, np.r_[np.tile([0, 1], 200), 1])
    assert (cold.value, cold.note) == (TEMPERATURES[0], "at the limit")


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 5), seeds)
def test_factors_fit_no_worse_than_the_temperature_and_a_strong_pull_makes_them_alike(
    classes: int, seed: int
) -> None:
    logits, labels = calibrated(60, classes, seed=seed)
    shared = fit_temperature(logits, labels)
    free = fit_vector(logits, labels, temperature=shared.value, pull=0.01)
    tied = fit_vector(logits, labels, temperature=shared.value, pull=1e6)
    assert free.nll <= shared.nll + 1e-6
    assert min(free.factors) > 0
    assert tied.factors == pytest.approx([1 / shared.value] * classes, rel=1e-3)
    assert tied.nll == pytest.approx(shared.nll, abs=1e-4)


def test_each_scaling_is_chosen_where_it_is_the_truth() -> None:
    logits, labels = calibrated(1500, 4, spread=3)
    same = fit_calibration(2 * logits, labels, seed=0)
    assert same.chosen == "temperature"
    assert same.temperature.value == pytest.approx(2, abs=0.25)
    uneven = np.array([0.5, 0.5, 4, 4])
    each = fit_calibration(logits / uneven, labels, seed=0)
    assert each.chosen == "vector"
    assert each.vector_cv_nll < each.temperature_cv_nll < each.unscaled_nll + 0.5
    ratio = np.array(each.vector.factors) / each.vector.factors[0]
    assert (ratio[2:] > 2).all()
    assert (each.scale(logits) == each.vector.scale(logits)).all()
    assert each == fit_calibration(logits / uneven, labels, seed=0)


@pytest.mark.parametrize("photos", [1, 2, 3, 7])
def test_a_handful_of_photos_can_be_fitted(photos: int) -> None:
    logits, labels = calibrated(photos, 3)
    fitted = fit_calibration(logits, labels, seed=0)
    assert fitted.folds == (0 if photos == 1 else min(photos, 5))
    assert np.isfinite(fitted.scale(logits)).all()


def test_scalings_refuse_no_photos_and_no_numbers() -> None:
    with pytest.raises(ValueError, match="no photo"):
        fit_temperature(np.zeros((0, 3)), np.zeros(0, dtype=int))
    with pytest.raises(ValueError, match="finite"):
        fit_calibration(np.array([[np.nan, 1]]), np.array([0]), seed=0)
    with pytest.raises(ValueError, match="no photo"):
        reliability(np.zeros((0, 3)), np.zeros(0, dtype=int), seed=0)
    with pytest.raises(ValueError, match="confidence"):
        reliability_of(np.array([1.5]), np.array([True]), seed=0)
    with pytest.raises(ValueError, match="binning"):
        reliability_of(np.array([0.5]), np.array([True]), seed=0, binning="both")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="bins"):
        reliability_of(np.array([0.5]), np.array([True]), seed=0, num_bins=0)
