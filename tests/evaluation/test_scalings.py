"""The scalings are what their definitions say: each is computed anew here, in another way."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import logsumexp

from cliptune.evaluation.statistics.calibration import (
    FACTORS,
    PULL,
    brier_scores,
    fit_calibration,
    fit_temperature,
    fit_vector,
    log_losses,
)


def calibrated(photos: int, *, seed: int, spread: float = 2) -> tuple[np.ndarray, np.ndarray]:
    """Logits of three classes, and labels drawn from their softmax."""
    rng = np.random.default_rng(seed)
    logits = spread * rng.normal(size=(photos, 3))
    return logits, (logits + rng.gumbel(size=logits.shape)).argmax(1)


def uneven(photos: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The same of a model whose first class is far too sure of itself."""
    logits, labels = calibrated(photos, seed=seed)
    return logits * [3, 1, 0.6], labels


def objective(
    factors: np.ndarray, logits: np.ndarray, labels: np.ndarray, *, temperature: float, pull: float
) -> float:
    """The docstring's: mean log loss, and `pull` times the mean of (T * factor - 1)^2."""
    scaled = logits * factors
    losses = logsumexp(scaled, axis=1) - scaled[np.arange(len(labels)), labels]
    return float(np.mean(losses) + pull * np.mean((temperature * factors - 1) ** 2))


@pytest.mark.parametrize("temperature", [0.5, 2.0])
@pytest.mark.parametrize("pull", [None, 0.0, 1.5])
def test_factors_are_the_least_of_their_objective(temperature: float, pull: float | None) -> None:
    logits, labels = uneven(40, seed=3)
    options = {} if pull is None else {"pull": pull}
    found = fit_vector(logits, labels, temperature=temperature, **options)
    of = partial(
        objective, logits=logits, labels=labels, temperature=temperature,
        pull=PULL if pull is None else pull,
    )  # fmt: skip
    limits = [tuple(limit / temperature for limit in FACTORS)] * 3
    least = minimize(of, np.ones(3), method="SLSQP", bounds=limits, options={"ftol": 1e-12})
    assert found.factors == pytest.approx(least.x.tolist(), rel=2e-3)
    assert of(np.array(found.factors)) <= least.fun + 1e-7
    scaled = logits * np.array(found.factors)
    assert found.nll == pytest.approx(log_losses(scaled, labels).mean())


def test_factors_stay_within_a_tenth_and_ten_times_the_shared_one() -> None:
    for temperature in (0.5, 4.0):
        right = 0.2 * temperature * np.tile(np.eye(2), (5, 1))
        sure = fit_vector(right, np.tile([0, 1], 5), temperature=temperature, pull=0)
        wrong = fit_vector(right, np.tile([1, 0], 5), temperature=temperature, pull=0)
        assert np.array(sure.factors) * temperature == pytest.approx([FACTORS[1]] * 2)
        assert np.array(wrong.factors) * temperature == pytest.approx([FACTORS[0]] * 2)
    assert FACTORS == (0.1, 10)


def test_losses_of_photos_held_out_are_those_of_scalings_fitted_on_the_rest() -> None:
    seen = set()
    for seed in range(12):
        logits, labels = uneven(30, seed=seed)
        found = fit_calibration(logits, labels, seed=seed, folds=4, pull=0.3)
        assert found.folds == 4
        assert found.vector == fit_vector(
            logits, labels, temperature=found.temperature.value, pull=0.3
        )
        order = np.random.default_rng(seed).permutation(30)
        one, each = np.zeros(30), np.zeros(30)
        for held in np.array_split(order, 4):
            rest = np.array([i for i in range(30) if i not in held])
            t = fit_temperature(logits[rest], labels[rest])
            v = fit_vector(logits[rest], labels[rest], temperature=t.value, pull=0.3)
            one[held] = log_losses(logits[held] / t.value, labels[held])
            each[held] = log_losses(logits[held] * np.array(v.factors), labels[held])
        assert found.unscaled_nll == pytest.approx(log_losses(logits, labels).mean())
        assert found.temperature_cv_nll == pytest.approx(one.mean())
        assert found.vector_cv_nll == pytest.approx(each.mean())
        gain = one - each
        error = np.sqrt(((gain - gain.mean()) ** 2).sum() / 29) / np.sqrt(30)
        assert found.chosen == ("vector" if gain.mean() > error else "temperature")
        seen.add((bool(gain.mean() > 0), found.chosen))
    # Better by less than one standard error is not enough, and such a case was among them.
    assert seen >= {(True, "vector"), (True, "temperature")}


def test_five_folds_and_the_usual_pull_unless_others_are_asked_for() -> None:
    logits, labels = uneven(20, seed=0)
    said = fit_calibration(logits, labels, seed=0, folds=5, pull=PULL)
    assert fit_calibration(logits, labels, seed=0) == said


def test_one_photo_is_fitted_and_nothing_is_cross_validated() -> None:
    logits, labels = np.array([[1.0, 2.0, 0.5]]), np.array([0])
    found = fit_calibration(logits, labels, seed=0, pull=0.3)
    assert found.temperature == fit_temperature(logits, labels)
    assert found.vector == fit_vector(logits, labels, temperature=found.temperature.value, pull=0.3)
    assert found.unscaled_nll == pytest.approx(log_losses(logits, labels)[0])
    assert (found.chosen, found.folds) == ("temperature", 0)
    assert found.temperature_cv_nll is found.vector_cv_nll is None


def test_two_photos_are_cross_validated_one_against_the_other() -> None:
    found = fit_calibration(np.array([[1.0, 0], [0.5, 0]]), np.array([0, 1]), seed=0)
    assert found.folds == 2
    assert found.temperature_cv_nll is not None
    assert found.vector_cv_nll is not None


def test_where_neither_scaling_gains_the_simpler_one_is_chosen() -> None:
    found = fit_calibration(np.zeros((6, 3)), np.array([0, 1, 2] * 2), seed=0)
    assert found.temperature_cv_nll == found.vector_cv_nll
    assert found.chosen == "temperature"


@pytest.mark.parametrize("chosen", ["temperature", "vector"])
def test_a_calibration_scales_by_what_it_chose(chosen: str) -> None:
    from dataclasses import replace

    logits, labels = uneven(40, seed=1)
    fitted = replace(fit_calibration(logits, labels, seed=0), chosen=chosen)
    expected = {
        "temperature": logits / fitted.temperature.value,
        "vector": logits * np.array(fitted.vector.factors),
    }
    assert fitted.scale(logits) == pytest.approx(expected[chosen])
    assert not np.allclose(expected["temperature"], expected["vector"])


def test_logits_in_half_precision_are_computed_with_in_double() -> None:
    logits, labels = uneven(40, seed=2)
    half = logits.astype(np.float16)
    whole = half.astype(np.float64)
    calibration = fit_calibration(half, labels, seed=0)
    assert calibration == fit_calibration(whole, labels, seed=0)
    for scaling in (calibration.temperature, calibration.vector, calibration):
        assert scaling.scale(half).dtype == np.float64
        assert np.array_equal(scaling.scale(half), scaling.scale(whole))
    for score in (log_losses, brier_scores):
        assert score(half, labels).dtype == np.float64
        assert np.array_equal(score(half, labels), score(whole, labels))


def test_a_single_logit_that_is_no_number_is_refused_by_every_fit() -> None:
    logits, labels = uneven(5, seed=0)
    logits[3, 1] = np.inf
    for fit in (partial(fit_vector, temperature=1.0), fit_temperature):
        with pytest.raises(ValueError, match=r"^logits are to be finite numbers$"):
            fit(logits, labels)
    with pytest.raises(ValueError, match=r"^there is no photo to fit a scaling on$"):
        fit_vector(np.zeros((0, 2)), np.zeros(0, dtype=int), temperature=1.0)


def test_the_temperature_keeps_to_the_limits_given() -> None:
    logits, labels = calibrated(200, seed=0, spread=3)
    inside = fit_temperature(logits, labels)
    assert 0.5 < inside.value < 2
    assert fit_temperature(logits, labels, limits=(0.5, 2.0)).value == pytest.approx(inside.value)
    for limits, end in (((3.0, 5.0), 3.0), ((0.1, 0.2), 0.2)):
        found = fit_temperature(logits, labels, limits=limits)
        assert (found.value, found.note) == (end, "at the limit")
        assert found.nll == pytest.approx(log_losses(logits / end, labels).mean())
