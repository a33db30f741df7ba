"""How answers are fitted: on which photos, with which limits, and where there are few classes."""

from __future__ import annotations

import numpy as np
import pytest

from cliptune.evaluation.statistics import answering
from cliptune.evaluation.statistics.answering import _has_enough, fit_answers, held_out_scores
from cliptune.evaluation.statistics.calibration import fit_calibration, fit_temperature
from cliptune.model.answers import Answers, known_scores


def some(photos: int = 60, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Logits of which the first class's are too large, features, labels and weights."""
    rng = np.random.default_rng(seed)
    weights, labels = rng.normal(size=(classes, 5)), np.arange(photos) % classes
    features = weights[labels] + rng.normal(size=(photos, 5))
    logits = 2 * features @ weights.T / np.linalg.norm(features, axis=1)[:, None]
    logits[:, 0] *= 1.7
    return logits, features, labels, weights


def fitted(photos: tuple[np.ndarray, ...], **options: int) -> Answers:
    logits, features, labels, weights = photos
    return fit_answers(logits, features, labels, weights_CD=weights, **options)


def at_the_brink() -> tuple[np.ndarray, ...]:
    """Photos of which some orders choose a factor for each class, and others one for all."""
    for seed in range(50):
        photos = some(seed=seed)
        chosen = [fit_calibration(photos[0], photos[2], seed=s).chosen for s in (0, 1)]
        if chosen == ["vector", "temperature"]:
            return photos
    raise AssertionError("no such photos")


def test_the_seed_orders_the_photos_that_factors_are_chosen_by() -> None:
    photos = at_the_brink()
    for seed in range(8):
        both = fit_calibration(photos[0], photos[2], seed=seed)
        factors = both.vector.factors if both.chosen == "vector" else None
        assert fitted(photos, seed=seed).factors == factors
    assert fitted(photos).factors is not None  # as with seed 0
    assert fitted(photos, seed=1).factors is None


def test_factors_are_fitted_on_no_more_logits_than_is_quick(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    photos = at_the_brink()
    for most, given in ((photos[0].size, True), (photos[0].size - 1, False)):
        monkeypatch.setattr(answering, "_MUCH", most)
        assert (fitted(photos).factors is not None) == given


def test_of_many_photos_the_temperature_is_fitted_on_a_part_drawn_with_the_seed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(answering, "_MOST", 60)
    for photos, part in ((some(45), 20), (some(90, classes=61), 1)):
        logits, _, labels, _ = photos
        for seed in (0, 4):
            drawn = np.random.default_rng(seed).permutation(len(labels))[:part]
            expected = fit_temperature(logits[drawn], labels[drawn])
            found = fitted(photos, seed=seed)
            separable = expected.note == "separable"
            assert found.note == expected.note
            assert found.temperature == (1 if separable else expected.value)
            assert found.num_images == len(labels)


def test_twenty_photos_of_each_class_are_enough_and_a_class_without_any_is_not() -> None:
    labels = np.repeat([0, 1], 20)
    assert _has_enough(labels, 2)
    assert not _has_enough(labels[1:], 2)
    assert not _has_enough(labels, 3)


@pytest.mark.parametrize("name", ["probability", "energy", "weights"])
def test_scores_that_ask_for_no_means_are_the_same_of_photos_held_out(name: str) -> None:
    logits, features, labels, weights = some()
    found = held_out_scores(name, logits, features, labels, weights_CD=weights)  # type: ignore[arg-type]
    expected = known_scores(name, logits, features, weights_CD=weights, means_KD=None)  # type: ignore[arg-type]
    assert np.array_equal(found, expected)


def test_a_photo_is_as_near_as_to_the_nearest_mean_of_the_others() -> None:
    _, features, labels, weights = some(photos=10)
    labels[labels == 2] = 1
    labels[0], labels[3:] = 0, np.maximum(labels[3:], 1)  # one photo of class 0; none of class 2
    logits = np.zeros((10, 3))
    found = held_out_scores("photos", logits, features, labels, weights_CD=weights)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    for i in range(10):
        cosines = []
        for label in (0, 1):
            others = unit[(labels == label) & (np.arange(10) != i)]
            if len(others):
                cosines.append(unit[i] @ others.sum(0) / np.linalg.norm(others.sum(0)))
        assert found[i] == pytest.approx(max(cosines))
    assert found.dtype == np.float64


def test_of_a_single_class_only_its_own_photos_count() -> None:
    features = np.array([[1.0, 0], [0, 1.0], [0, 2.0]])
    options = {"weights_CD": np.eye(2)}
    found = held_out_scores("photos", np.zeros((3, 2)), features, np.zeros(3, int), **options)
    assert found == pytest.approx([0, 0.5**0.5, 0.5**0.5])
    alone = held_out_scores("photos", np.zeros((1, 2)), features[:1], np.zeros(1, int), **options)
    assert alone == pytest.approx([-1])


def test_limits_near_the_best_temperature_hold_it_or_are_met() -> None:
    logits, _, labels, _ = some()
    best = fit_temperature(logits, labels)
    assert best.note == ""
    inside = fit_temperature(logits, labels, limits=(best.value / 1.5, best.value * 1.5))
    assert (inside.value, inside.note) == (pytest.approx(best.value), "")
    for factors in ((1.5, 4), (0.25, 1 / 1.5)):
        limits = (best.value * factors[0], best.value * factors[1])
        met = fit_temperature(logits, labels, limits=limits)
        assert (met.value, met.note) == (
            min(limits, key=lambda x: abs(x - best.value)),
            "at the limit",
        )


def test_each_photo_is_held_against_its_own_logits() -> None:
    alike = fit_temperature(np.array([[1.0, 1.0], [5.0, 5.0]]), np.array([0, 1]))
    assert (alike.value, alike.note) == (1, "constant")
    right = fit_temperature(np.array([[1.0, 0.0], [4.0, 5.0]]), np.array([0, 1]))
    assert right.note == "separable"
