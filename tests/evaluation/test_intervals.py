"""Intervals and tests: laws, and agreement with scikit-learn, scipy and statsmodels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import balanced_accuracy_score, f1_score
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.proportion import proportion_confint

from cliptune.evaluation.statistics.figures import FullMetrics, compare_paired, full_metrics
from cliptune.evaluation.statistics.intervals import (
    Estimate,
    difference_interval,
    mcnemar,
    mean_interval,
    proportion,
    wilson_interval,
)
from cliptune.evaluation.statistics.metrics import (
    balanced_accuracy,
    confusion_matrix,
    macro_f1,
    split_metrics,
)
from cliptune.evaluation.statistics.resampling import (
    effective_size,
    macro_estimates,
    macro_f1_difference,
)

seeds = st.integers(0, 2**32 - 1)


def outcome(
    classes: int, *, photos: int = 100, seed: int = 0, skill: float = 1.5
) -> tuple[np.ndarray, np.ndarray]:
    """(logits, labels) of a model that is right now and then."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, photos)
    logits = rng.normal(size=(photos, classes))
    logits[np.arange(photos), labels] += skill
    return logits, labels


def assert_ordered(estimate: Estimate) -> None:
    assert estimate.low <= estimate.value <= estimate.high


@settings(deadline=None)
@given(st.integers(1, 3000), st.data())
def test_wilson_interval_is_that_of_statsmodels(count: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, count))
    expected = proportion_confint(hits, count, method="wilson")
    assert wilson_interval(hits / count, count) == pytest.approx(expected, abs=1e-6)
    estimate = proportion(hits, count)
    assert estimate is not None
    assert_ordered(estimate)


def test_wilson_of_an_array_is_that_of_each_entry() -> None:
    share, count = np.array([0, 0.25, 0.5, 1, 0.3]), np.array([5, 8, 200, 12, 0])
    low, high = wilson_interval(share, count)
    each = [wilson_interval(float(s), int(n)) for s, n in zip(share, count, strict=True)]
    assert list(zip(low, high, strict=True)) == each
    assert each[-1] == (0, 1)
    assert proportion(0, 0) is None


@pytest.mark.parametrize(("share", "count"), [(1.2, 10), (-0.1, 10), (0.5, -1)])
def test_what_is_no_proportion_is_refused(share: float, count: int) -> None:
    with pytest.raises(ValueError, match="proportion"):
        wilson_interval(share, count)


@pytest.mark.filterwarnings("ignore:y_pred contains classes", "ignore:A single label was found")
@settings(deadline=None)
@given(st.integers(2, 9), st.integers(1, 60), seeds)
def test_macro_figures_are_those_of_scikit_learn_even_where_classes_are_absent(
    classes: int, photos: int, seed: int
) -> None:
    labels, predicted = np.random.default_rng(seed).integers(0, classes, (2, photos))
    confusion = confusion_matrix(labels, predicted, num_classes=classes + 2)  # two never seen
    assert macro_f1(confusion) == pytest.approx(
        f1_score(labels, predicted, average="macro", zero_division=0)
    )
    expected = balanced_accuracy_score(labels, predicted)
    assert balanced_accuracy(confusion) == pytest.approx(expected)


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 12), st.integers(1, 80), seeds)
def test_resampled_estimates_hold_their_value_and_repeat_with_their_seed(
    classes: int, photos: int, seed: int
) -> None:
    labels, predicted = np.random.default_rng(seed).integers(0, classes, (2, photos))
    predicted[::2] = labels[::2]
    first, again = (
        macro_estimates(labels, predicted, num_classes=classes, seed=seed, draws=200)
        for _ in range(2)
    )
    assert first == again
    confusion = confusion_matrix(labels, predicted, num_classes=classes)
    assert first.macro_f1.value == pytest.approx(macro_f1(confusion))
    assert first.balanced_accuracy.value == pytest.approx(balanced_accuracy(confusion))
    for estimate in (first.macro_f1, first.balanced_accuracy):
        assert_ordered(estimate)
        assert estimate.low >= 0
        assert estimate.high <= 1


def test_resampling_cells_is_resampling_photos() -> None:
    logits, labels = outcome(4, photos=150, seed=3)
    predicted = logits.argmax(1)
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, 150, (2000, 150))
    f1 = [f1_score(labels[i], predicted[i], average="macro") for i in drawn[:500]]
    recall = [
        np.mean([(predicted[i] == k)[labels[i] == k].mean() for k in range(4)]) for i in drawn
    ]
    ours = macro_estimates(labels, predicted, num_classes=4, seed=0, draws=4000)
    size = effective_size(np.bincount(labels))
    for estimate, by_hand, bias in (
        (ours.macro_f1, f1, np.mean(f1) - ours.macro_f1.value),
        (ours.balanced_accuracy, recall, 0),
    ):
        value, spread = estimate.value, float(np.std(by_hand))
        photos = min(value * (1 - value) / spread**2, size)
        expected = wilson_interval(float(value - bias), photos)
        assert (estimate.low, estimate.high) == pytest.approx(expected, abs=0.01)


def test_with_equal_classes_balanced_accuracy_is_as_sure_as_accuracy() -> None:
    labels = np.repeat(np.arange(5), 40)
    predicted = np.where(np.arange(200) % 8 == 0, (labels + 1) % 5, labels)
    balanced = macro_estimates(labels, predicted, num_classes=5, seed=1).balanced_accuracy
    expected = wilson_interval(balanced.value, 200)
    assert (balanced.low, balanced.high) == pytest.approx(expected, abs=0.006)
    assert effective_size(np.bincount(labels)) == pytest.approx(200)


def test_a_model_without_errors_is_not_taken_for_perfect() -> None:
    labels = np.repeat([0, 1, 2], 20)
    estimates = macro_estimates(labels, labels, num_classes=3, seed=0)
    assert estimates.macro_f1 == Estimate(1, *wilson_interval(1, 60))
    assert estimates.balanced_accuracy == estimates.macro_f1


def test_many_photos_and_classes_are_resampled_in_little_memory() -> None:
    import tracemalloc

    logits, labels = outcome(120, photos=10_000, skill=4)
    predicted = logits.argmax(1)
    tracemalloc.start()
    macro_estimates(labels, predicted, num_classes=120, seed=0, draws=1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150e6


@settings(deadline=None)
@given(st.integers(2, 200), seeds)
def test_mean_interval_holds_the_mean_and_scales_with_its_unit(count: int, seed: int) -> None:
    values = np.random.default_rng(seed).gamma(0.3, size=count)
    low, high = mean_interval(values)
    assert 0 <= low <= values.mean() <= high
    assert np.allclose(mean_interval(1000 * values), 1000 * np.array([low, high]))


def test_mean_interval_of_symmetric_figures_is_students() -> None:
    values = 5 + np.tile([-1.0, 1.0], 50)
    half = 1.984217 / np.sqrt(99)  # Student's t of 99 degrees at 97.5 %, times std / sqrt(n - 1)
    assert mean_interval(values) == pytest.approx((5 - half, 5 + half), abs=1e-5)


def test_mean_interval_reaches_further_to_the_side_of_the_rare_large_losses() -> None:
    values = np.r_[np.full(97, 0.01), 3, 4, 5]
    low, high = mean_interval(values)
    assert high - values.mean() > 2 * (values.mean() - low)
    assert mean_interval(np.array([0.3]), bound=2) == (0, 2)
    assert mean_interval(np.full(9, 0.5)) == pytest.approx((0.5, 0.5))


counts = st.tuples(*[st.integers(0, 60)] * 3).filter(lambda abc: sum(abc) > 0)


@settings(deadline=None)
@given(counts)
def test_interval_of_a_difference_holds_it_and_negates_when_models_swap(
    counts: tuple[int, int, int],
) -> None:
    only_a, only_b, _ = counts
    total = sum(counts)
    low, high = difference_interval(only_a, only_b, total)
    assert -1 - 1e-9 <= low <= (only_a - only_b) / total <= high <= 1 + 1e-9
    assert difference_interval(only_b, only_a, total) == pytest.approx((-high, -low), abs=1e-9)


@pytest.mark.parametrize("counts", [(10, 3, 40), (1, 0, 30), (25, 25, 50), (0, 7, 9)])
def test_difference_bounds_are_where_the_likelihoods_score_test_turns(
    counts: tuple[int, int, int],
) -> None:
    only_a, only_b, total = counts[0], counts[1], sum(counts)
    for bound in difference_interval(only_a, only_b, total):
        # The most likely shares with that difference, found by search instead of formula.
        least, most = max(0.0, -bound), (1 - bound) / 2
        b = np.linspace(least, most, 2_000_001)[1:-1]
        a = b + bound
        log_likelihood = (
            only_a * np.log(a) + only_b * np.log(b) + counts[2] * np.log(1 - a - b + 1e-300)
        )
        best = log_likelihood.argmax()
        variance = total * (a[best] + b[best] - bound**2)
        deviate = (only_a - only_b - total * bound) / np.sqrt(variance)
        assert abs(deviate) == pytest.approx(norm.ppf(0.975), abs=2e-3)


@settings(deadline=None)
@given(st.integers(0, 120), st.integers(0, 120))
def test_mcnemar_is_that_of_statsmodels(only_a: int, only_b: int) -> None:
    ours = mcnemar(only_a, only_b)
    exact = only_a + only_b < 25
    theirs = reference_mcnemar([[7, only_a], [only_b, 9]], exact=exact, correction=False)
    expected = theirs.pvalue if only_a + only_b else 1
    assert ours.p == pytest.approx(expected, abs=1e-12)
    assert ours.method == ("exact binomial" if exact else "chi-square")


@settings(deadline=None)
@given(st.integers(0, 100), st.integers(0, 100), st.integers(0, 400))
def test_the_interval_leaves_zero_out_exactly_when_chi_square_is_significant(
    only_a: int, only_b: int, rest: int
) -> None:
    test = mcnemar(only_a, only_b)
    if test.method == "chi-square" and abs(test.p - 0.05) > 1e-6:
        low, high = difference_interval(only_a, only_b, only_a + only_b + rest)
        assert (low > 0 or high < 0) == (test.p < 0.05)


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 8), st.integers(1, 60), seeds)
def test_swapping_models_negates_every_difference(classes: int, photos: int, seed: int) -> None:
    a, labels = outcome(classes, photos=photos, seed=seed)
    b = a + np.random.default_rng(seed).normal(size=a.shape)
    ab, ba = compare_paired(a, b, labels, seed=1), compare_paired(b, a, labels, seed=1)
    for one, other in (
        (ab.accuracy_difference, ba.accuracy_difference),
        (ab.macro_f1_difference, ba.macro_f1_difference),
    ):
        assert_ordered(one)
        assert (one.value, one.low, one.high) == pytest.approx(
            (-other.value, -other.high, -other.low), abs=1e-9
        )
    assert (ab.gained, ab.lost) == (ba.lost, ba.gained)
    assert ab.mcnemar_p == ba.mcnemar_p


def test_a_paired_comparison_names_the_photos_that_changed_sides() -> None:
    labels = np.array([0, 1, 2, 0])
    comparison = compare_paired(np.eye(3)[[0, 1, 2, 1]], np.eye(3)[[0, 0, 0, 0]], labels, seed=0)
    assert comparison.gained == (1, 2)
    assert comparison.lost == (3,)
    assert (comparison.only_a_right, comparison.only_b_right) == (2, 1)
    assert comparison.accuracy_difference.value == pytest.approx(0.25)


def test_pairing_makes_a_difference_of_like_models_surer() -> None:
    labels = np.repeat(np.arange(4), 50)
    a = np.where(np.arange(200) % 4 == 0, (labels + 1) % 4, labels)
    close = np.where(np.arange(200) % 40 == 0, labels, a)
    far = np.roll(close.reshape(4, 50), 1, axis=1).ravel()  # errs as often, on other photos
    widths = [
        (found := macro_f1_difference(labels, a, b, num_classes=4, seed=0)).high - found.low
        for b in (close, far)
    ]
    assert widths[0] < 0.7 * widths[1]


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 12), st.integers(1, 60), seeds)
def test_full_metrics_agree_with_the_short_ones(classes: int, photos: int, seed: int) -> None:
    logits, labels = outcome(classes, photos=photos, seed=seed)
    full, short = full_metrics(logits, labels, seed=3), split_metrics(logits, labels)
    assert full == full_metrics(logits, labels, seed=3)
    assert full.accuracy.value == short.accuracy
    assert full.log_loss.value == pytest.approx(short.loss)
    assert (None if full.top5 is None else full.top5.value) == short.top5_accuracy
    for figure in (full.accuracy, full.macro_f1, full.log_loss, full.brier, full.ece):
        if figure is not None:
            assert_ordered(figure)
    recalls = [recall.value for recall in full.recall if recall is not None]
    assert np.mean(recalls) == pytest.approx(full.balanced_accuracy.value)
    absent = np.bincount(labels, minlength=classes) == 0
    assert [recall is None for recall in full.recall] == absent.tolist()


def interval_width(metrics: FullMetrics) -> float:
    return metrics.macro_f1.high - metrics.macro_f1.low


def test_four_times_the_photos_halve_the_intervals() -> None:
    few = full_metrics(*outcome(3, photos=400), seed=0)
    many = full_metrics(*outcome(3, photos=1600, seed=1), seed=0)
    assert interval_width(many) == pytest.approx(interval_width(few) / 2, rel=0.15)


def test_figures_without_photos_or_of_no_numbers_are_refused() -> None:
    logits, labels = outcome(3, photos=5)
    with pytest.raises(ValueError, match="no photo"):
        full_metrics(logits[:0], labels[:0], seed=0)
    logits[2, 1] = np.nan
    with pytest.raises(ValueError, match="1 of 5 photos"):
        full_metrics(logits, labels, seed=0)
    with pytest.raises(ValueError, match="shapes"):
        compare_paired(logits, logits[:, :2], labels, seed=0)
    with pytest.raises(ValueError, match="no photo"):
        macro_estimates(labels[:0], labels[:0], num_classes=3, seed=0)
