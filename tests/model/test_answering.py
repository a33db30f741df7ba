"""From logits to answers: each function by its definition, and in double precision."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.special import softmax as scipys_softmax

from cliptune.model.answers import (
    SCORE_NAMES,
    Answers,
    all_known_scores,
    answered,
    class_means,
    energy_score,
    known_scores,
    max_cosine,
    max_probability,
    softmax,
    unit_rows,
)

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(7, 4)).astype(np.float16) * 3
FEATURES = RNG.normal(size=(7, 5)).astype(np.float16)
WEIGHTS = RNG.normal(size=(4, 5)).astype(np.float16)
MEANS = RNG.normal(size=(4, 5)).astype(np.float16)


def cosines(features: np.ndarray, directions: np.ndarray) -> np.ndarray:
    a, b = np.float64(features), np.float64(directions)
    return (a @ b.T) / np.sqrt((a * a).sum(1))[:, None] / np.sqrt((b * b).sum(1))


def answers(**changes: object) -> Answers:
    plain = {
        "temperature": 2.0, "score": "energy", "threshold": 0.0, "share": 0.95, "kept": 1.0,
        "num_images": 9,
    }  # fmt: skip
    return Answers.model_validate(plain | changes)


def test_scores_are_those_of_their_definitions() -> None:
    whole = np.float64(LOGITS)
    expected = {
        "probability": scipys_softmax(whole, axis=1).max(1),
        "energy": logsumexp(whole, axis=1),
        "weights": cosines(FEATURES, WEIGHTS).max(1),
        "photos": cosines(FEATURES, MEANS).max(1),
    }
    for name, score in expected.items():
        found = known_scores(name, LOGITS, FEATURES, weights_CD=WEIGHTS, means_KD=MEANS)  # type: ignore[arg-type]
        assert found.dtype == np.float64
        assert found == pytest.approx(score, rel=1e-12)
        scaled = answered(
            answers(score=name), 2 * LOGITS, FEATURES, weights_CD=WEIGHTS, means_CD=MEANS
        )
        assert scaled.known_scores_N == pytest.approx(score, rel=1e-12)
    assert softmax(LOGITS) == pytest.approx(scipys_softmax(whole, axis=1), rel=1e-12)


@pytest.mark.parametrize("temperature", [0.5, 1, 3])
def test_energy_is_temperature_times_the_log_of_the_sum(temperature: float) -> None:
    expected = temperature * np.log(np.exp(np.float64(LOGITS) / temperature).sum(1))
    assert energy_score(LOGITS, temperature=temperature) == pytest.approx(expected, rel=1e-12)


def test_logits_of_any_size_neither_overflow_nor_vanish() -> None:
    for size in (-1e5, 1e5):
        logits = np.array([[size, size, size - 1]])
        assert energy_score(logits) == pytest.approx(size + np.log(2 + np.exp(-1)))
        assert max_probability(logits) == pytest.approx(1 / (2 + np.exp(-1)))
        assert softmax(logits).sum() == pytest.approx(1)


def test_logits_are_divided_by_the_temperature_or_multiplied_by_the_factors() -> None:
    whole = np.float64(LOGITS)
    shared = answers(temperature=3.0).scale(LOGITS)
    single = answers(temperature=3.0, factors=(0.1, 1.0, 2.0, 5.0)).scale(LOGITS)
    assert shared.dtype == single.dtype == np.float64
    assert np.array_equal(shared, whole / 3)
    assert np.array_equal(single, whole * [0.1, 1, 2, 5])


def test_directions_of_zeros_are_near_to_nothing() -> None:
    features = np.array([[1.0, 0], [0, 2.0]])
    directions = np.array([[-1.0, 0], [0, 0], [-1, -1]])
    # A direction of zeros would give a cosine of 0, above both of these.
    assert max_cosine(features, directions) == pytest.approx([-(0.5**0.5), 0])
    one_zero = np.array([[0.0, -2.0]])
    assert max_cosine(features, one_zero) == pytest.approx([0, -1])
    assert max_cosine([[0.0, 0.0]], directions) == pytest.approx([0])  # type: ignore[arg-type]


def test_means_are_of_directions_not_of_lengths() -> None:
    features = np.array([[100.0, 0], [0, 1], [0, 0], [3, 4]], dtype=np.float16)
    means = class_means(features, np.array([1, 1, 1, 3]), num_classes=4)
    half = 0.5**0.5
    assert means == pytest.approx(np.array([[0, 0], [half, half], [0, 0], [0.6, 0.8]]))


def test_rows_get_length_one_in_double_precision_and_zeros_stay() -> None:
    rows = np.array([[3, 4], [0, 0], [0.25, 0], [1e-3, 1e-3]], dtype=np.float16)
    found = unit_rows(rows)
    assert found.dtype == np.float64
    assert np.linalg.norm(found, axis=1) == pytest.approx([1, 0, 1, 1], abs=1e-12)
    assert found[0] == pytest.approx([0.6, 0.8])


def test_the_most_probable_classes_come_first_and_equal_ones_in_their_order() -> None:
    logits = np.tile([1.0, 3.0, 2.0], 40)[None].repeat(2, 0)
    logits[1] *= -1
    found = answered(None, logits, FEATURES[:2], weights_CD=WEIGHTS, means_CD=None)
    thirds = [list(range(start, 120, 3)) for start in range(3)]
    assert found.best(0, k=120).tolist() == thirds[1] + thirds[2] + thirds[0]
    assert found.best(1, k=41).tolist() == [*thirds[0], 2]
    assert len(found.best(0, k=999)) == 120


def test_without_answers_half_precision_is_still_computed_with_in_double() -> None:
    found = answered(None, LOGITS, FEATURES, weights_CD=WEIGHTS, means_CD=None)
    assert found.scaled_NC.dtype == np.float64
    assert found.probabilities_NC.sum(1) == pytest.approx(1, abs=1e-14)


def test_every_score_there_is_stands_under_its_name() -> None:
    for means in (MEANS, None):
        found = all_known_scores(LOGITS, FEATURES, weights_CD=WEIGHTS, means_CD=means)
        assert list(found) == [name for name in SCORE_NAMES if name != "photos" or means is MEANS]
        for name, scores in found.items():
            again = known_scores(name, LOGITS, FEATURES, weights_CD=WEIGHTS, means_KD=means)
            assert np.array_equal(scores, again)
    with pytest.raises(
        ValueError, match=r"^the score 'photos' asks for class means, and there are none$"
    ):
        known_scores("photos", LOGITS, FEATURES, weights_CD=WEIGHTS, means_KD=None)
