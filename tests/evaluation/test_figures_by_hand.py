"""Figures and intervals against their definitions, in cases that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
from scipy.spatial.distance import pdist
from scipy.stats import t as student

from cliptune.evaluation.statistics import resampling
from cliptune.evaluation.statistics.few_photos import without_interval
from cliptune.evaluation.statistics.figures import compare_paired, full_metrics, mean_estimate
from cliptune.evaluation.statistics.intervals import (
    Estimate,
    difference_interval,
    holm,
    mcnemar,
    mean_interval,
    wilson_interval,
)
from cliptune.evaluation.statistics.metrics import (
    class_keys,
    most_confused_pairs,
    similar_order,
    split_metrics,
)
from cliptune.evaluation.statistics.resampling import (
    effective_size,
    macro_estimates,
    macro_f1_difference,
)

SMALL = np.array([3, 60, 100], dtype=np.uint8)  # whose squares and doubles overflow


def test_halls_cubic_takes_the_ends_to_students_quantiles() -> None:
    values = np.random.default_rng(0).gamma([[0.5], [2.0], [9.0]], size=(3, 40))
    ends = mean_interval(values)
    mean, spread = values.mean(1), values.std(1) / np.sqrt(39)
    skewness = ((values - mean[:, None]) ** 3).mean(1) / values.std(1) ** 3
    c = skewness / (3 * np.sqrt(40))
    for end, share in zip(ends, (0.975, 0.025), strict=True):
        deviate = (mean - end) / spread
        cubic = deviate + c * deviate**2 + c**2 * deviate**3 / 3 + c / 2
        assert (end > 0).all()
        assert cubic == pytest.approx(student.ppf(share, 39))
    for row in range(3):
        assert mean_interval(values[row]) == (ends[0][row], ends[1][row])


def test_a_mean_of_one_value_may_be_anything_and_of_two_it_has_an_interval() -> None:
    low, high = mean_interval(np.ones((2, 3, 1)), bound=4)
    assert np.array_equal(low, np.zeros((2, 3)))
    assert np.array_equal(high, np.full((2, 3), 4.0))
    low, high = mean_interval(np.array([1.0, 1.5]))
    assert 0 <= low < 1.25 < high < np.inf


def test_a_mean_stays_below_its_bound_and_half_precision_is_computed_with_in_double() -> None:
    values = np.r_[np.full(99, 2.0), 0].astype(np.float16)
    assert mean_interval(values, bound=2)[1] == 2 < mean_interval(values)[1]
    assert mean_interval(values) == mean_interval(values.astype(np.float64))
    found = mean_estimate(values, bound=2)
    assert (found.low, found.high) == mean_interval(values, bound=2)
    assert mean_estimate(values).high == mean_interval(values)[1]


def test_brier_scores_are_two_at_most() -> None:
    labels = np.arange(100) % 2
    wrong = 50.0 * np.eye(2)[1 - labels]
    wrong[0] = wrong[0, ::-1]  # a mean of 1.98, whose interval would pass 2
    assert full_metrics(wrong, labels, seed=0).brier.high == 2


def test_wilsons_interval_of_small_types_is_that_of_numbers() -> None:
    shares = np.array([0.3, 0.55, 0.7], dtype=np.float16)
    low, high = wilson_interval(shares, SMALL)
    for i in range(3):
        assert (low[i], high[i]) == wilson_interval(float(shares[i]), int(SMALL[i]))
    same = wilson_interval(0.5, SMALL)
    turned = wilson_interval(shares, 60)
    for i in range(3):
        assert (same[0][i], same[1][i]) == wilson_interval(0.5, int(SMALL[i]))
        assert (turned[0][i], turned[1][i]) == wilson_interval(float(shares[i]), 60)


def test_of_no_photo_any_share_is_possible_and_of_one_photo_no_share_above_one() -> None:
    for nothing in (5.0, -1.0, np.nan):
        assert wilson_interval(nothing, 0) == (0, 1)
    words = r"^a proportion is a share from 0 to 1 of a count of at least 0$"
    for share, count in ((1.5, 1), (-0.5, 1), (0.5, -1)):
        with pytest.raises(ValueError, match=words):
            wilson_interval(share, count)


@pytest.mark.parametrize(
    "counts", [(0, 0, 0), (0, 0, -1), (-1, 0, 5), (0, -1, 5), (3, 3, 5), (-1, -1, 5), (6, 0, 5)]
)
def test_discordant_photos_that_cannot_be_are_refused(counts: tuple[int, int, int]) -> None:
    words = r"^discordant photos are at least 0 and at most all photos$"
    with pytest.raises(ValueError, match=words):
        difference_interval(*counts)


def test_the_interval_of_a_difference_of_small_types_is_that_of_numbers() -> None:
    a, b, n = (np.array(x, dtype=np.uint8) for x in ((3, 60, 0), (50, 4, 7), (90, 200, 100)))
    low, high = difference_interval(a, b, n)
    for i in range(3):
        expected = difference_interval(int(a[i]), int(b[i]), int(n[i]))
        assert [float(low[i]), float(high[i])] == pytest.approx([float(x) for x in expected])


@pytest.mark.parametrize("n", [1, 8, 300])
def test_of_models_that_never_differ_the_ends_are_those_of_one_proportion(n: int) -> None:
    """Without discordant photos the variance at d is n d (1 - d): Wilson's, on either side."""
    low, high = difference_interval(0, 0, n)
    bound = wilson_interval(0, n)[1]
    assert (low, high) == pytest.approx((-bound, bound), abs=1e-9)


@pytest.mark.parametrize(("only", "n"), [(15, 30), (1, 30), (9, 10), (40, 100)])
def test_where_one_model_alone_differs_the_ends_follow_from_one_linear_equation(
    only: int, n: int
) -> None:
    """The likelihood's best share of the other model is a line in the difference, or 0."""
    for end in map(float, difference_interval(only, 0, n)):
        other = max(0.0, (only - end * (2 * n - only)) / (2 * n), -end)
        variance = n * (2 * other + end - end**2)
        assert abs(only - n * end) / np.sqrt(variance) == pytest.approx(1.959964, abs=1e-6)


def test_all_photos_on_one_side_reach_the_end() -> None:
    for n in (1, 5, 40):
        low, high = difference_interval(n, 0, n)
        assert high == pytest.approx(1, abs=1e-12)
        assert 0 <= 1 + low < 2
        assert difference_interval(0, n, n) == pytest.approx((-1, -low), abs=1e-12)


def test_from_25_discordant_photos_on_the_test_is_chi_square() -> None:
    assert mcnemar(20, 4).method == "exact binomial"
    assert mcnemar(20, 5).method == "chi-square"


def test_holms_p_values_are_those_of_his_steps() -> None:
    assert holm([0.04, 0.01, 0.03]) == pytest.approx((0.06, 0.03, 0.06))
    assert holm([0.01, 0.02, 0.2, 0.002]) == pytest.approx((0.03, 0.04, 0.2, 0.008))
    assert holm([0.9, 0.6]) == (1, 1)
    assert holm([0.3]) == (0.3,)
    assert holm([]) == ()


def test_figures_of_no_photo_are_refused_in_the_same_words_everywhere() -> None:
    logits, labels = np.zeros((0, 3)), np.zeros(0, dtype=int)
    words = r"^there is no photo to measure$"
    with pytest.raises(ValueError, match=words):
        split_metrics(logits, labels)
    with pytest.raises(ValueError, match=words):
        full_metrics(logits, labels, seed=0)
    with pytest.raises(ValueError, match=words):
        macro_estimates(labels, labels, num_classes=3, seed=0)


def test_photos_whose_logits_are_no_numbers_are_counted() -> None:
    logits = np.zeros((5, 3))
    logits[1, 0], logits[3] = np.nan, np.inf
    with pytest.raises(ValueError, match=r"^the logits of 2 of 5 photos are not finite numbers$"):
        full_metrics(logits, np.zeros(5, dtype=int), seed=0)


def test_a_comparison_counts_the_photos_whose_highest_logit_is_the_truths() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 200)
    a, b = (rng.normal(size=(200, 4)) + 1.5 * np.eye(4)[labels] for _ in range(2))
    found = compare_paired(a, b, labels, seed=0)
    a_right, b_right = a.argmax(1) == labels, b.argmax(1) == labels
    assert found.num_images == 200
    assert found.gained == tuple(np.flatnonzero(a_right & ~b_right))
    assert found.lost == tuple(np.flatnonzero(b_right & ~a_right))
    low, high = difference_interval(found.only_a_right, found.only_b_right, 200)
    value = a_right.mean() - b_right.mean()
    assert found.accuracy_difference == Estimate(pytest.approx(value), low, high)  # type: ignore[arg-type]


def test_a_difference_joins_intervals_on_the_effective_size_where_no_draw_varies() -> None:
    labels = np.repeat([0, 1], [30, 10])
    right, wrong = labels, np.full(40, 2)  # as sure as 30 photos, and in no draw otherwise
    size = effective_size(np.array([30, 10, 0]))
    assert size == pytest.approx(30)
    down, up = 1 - wilson_interval(1, size)[0], wilson_interval(0, size)[1]
    found = macro_f1_difference(labels, right, wrong, num_classes=3, seed=0)
    assert (found.value, found.high) == (1, 1)
    assert found.low == pytest.approx(1 - np.hypot(down, up))


def test_of_one_model_twice_all_but_the_lean_of_its_interval_cancels() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 60)
    predicted = np.where(rng.random(60) < 0.9, labels, rng.integers(0, 3, 60))
    one = macro_estimates(labels, predicted, num_classes=3, seed=4).macro_f1
    lean = abs((one.value - one.low) - (one.high - one.value))
    found = macro_f1_difference(labels, predicted, predicted, num_classes=3, seed=4)
    assert lean > 0.02
    assert (found.low, found.value, found.high) == pytest.approx((-lean, 0, lean), abs=1e-6)


def test_classes_stand_beside_those_alike_by_average_linkage_of_cosines() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(12, 4)) * rng.gamma(1, size=(12, 1))
    distances = pdist(vectors, "cosine")
    tree = linkage(distances, "average")
    assert similar_order(vectors) == leaves_list(optimal_leaf_ordering(tree, distances)).tolist()
    assert similar_order(vectors) != leaves_list(tree).tolist()
    two_alike = np.array([[1.0, 0], [0, 1], [1, 0.1]])
    assert similar_order(two_alike) in ([0, 2, 1], [1, 2, 0], [2, 0, 1], [1, 0, 2])


def test_past_400_classes_neighbours_are_not_sought() -> None:
    rng = np.random.default_rng(0)
    for count, sought in ((400, True), (401, False)):
        vectors = rng.normal(size=(count, 2))
        distances = pdist(vectors, "cosine")
        tree = linkage(distances, "average")
        if sought:
            tree = optimal_leaf_ordering(tree, distances)
        assert similar_order(vectors) == leaves_list(tree).tolist()


def test_two_classes_and_those_without_a_direction_stay_in_their_order() -> None:
    assert similar_order(np.array([[1.0, 0], [0, 1]])) == [0, 1]
    assert similar_order(np.zeros((0, 2))) == []
    assert similar_order(np.array([[1.0, 0], [0, 0], [0, 1], [1, 0.1]])) == [0, 1, 2, 3]


def test_a_class_called_like_a_line_of_the_report_is_told_from_it() -> None:
    names = ["accuracy", "accuracy (class)", "macro avg", "dog", "weighted avg"]
    assert class_keys(names) == [
        "accuracy (class) (class)", "accuracy (class)", "macro avg (class)", "dog",
        "weighted avg (class)",
    ]  # fmt: skip


def test_ten_pairs_are_named_and_of_equally_many_photos_the_larger_share_first() -> None:
    names = [f"{i:02}" for i in range(12)]
    confusion = np.diag(np.arange(1, 13))
    confusion[range(12), (np.arange(12) + 1) % 12] = 2
    found = most_confused_pairs(confusion, names)
    assert [pair.true_class for pair in found] == names[:10]
    assert [pair.share for pair in found] == pytest.approx([2 / (k + 2) for k in range(1, 11)])
    turned = most_confused_pairs(confusion[::-1, ::-1], names, limit=12)
    assert [pair.true_class for pair in turned] == names[::-1]


def test_the_calibration_error_of_all_figures_is_that_of_their_bins() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 60)
    found = full_metrics(rng.normal(size=(60, 3)) + np.eye(3)[labels], labels, seed=0)
    assert found.ece is not None
    assert found.ece == found.reliability.ece_estimate


def test_a_missing_interval_says_what_it_needs_and_what_there_is() -> None:
    losses = "too few photos: its interval needs 100, and there are 8"
    macro = (
        "too few photos: its interval needs 5 of each class on average, and there are 8 of 2 "
        "classes"
    )
    assert without_interval(8, 2) == {"log_loss": losses, "brier": losses, "macro_f1": macro}
    assert without_interval(99, 20).keys() == {"log_loss", "brier", "macro_f1"}
    assert without_interval(100, 20) == {}


def test_drawing_a_few_resamples_at_a_time_changes_no_figure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    labels, predicted = np.random.default_rng(0).integers(0, 3, (2, 40))
    whole = macro_estimates(labels, predicted, num_classes=3, seed=0, draws=100)
    for chunk in (1, 70):  # one resample at a time; seven, the last two
        monkeypatch.setattr(resampling, "CHUNK", chunk)
        assert macro_estimates(labels, predicted, num_classes=3, seed=0, draws=100) == whole


@pytest.mark.parametrize("photos", [[6, 60, 60], [2] * 12], ids=["one_small_class", "few_each"])
def test_macro_figures_are_as_sure_as_resampled_photos_vary_and_lose_their_bias(
    photos: list[int],
) -> None:
    classes = len(photos)
    labels = np.repeat(np.arange(classes), photos)
    predicted = labels.copy()
    wrong = np.arange(0, 24, 4) if classes > 3 else np.arange(3)
    predicted[wrong] = (labels[wrong] + 1) % classes

    def figures(drawn: np.ndarray) -> tuple[float, float]:
        confusion = np.zeros((classes, classes))
        np.add.at(confusion, (labels[drawn], predicted[drawn]), 1)
        right, support = confusion.diagonal(), confusion.sum(1)
        with np.errstate(invalid="ignore"):  # of a class that was not drawn
            f1 = 2 * right / (support + confusion.sum(0))
            return float(np.nanmean(f1)), float(np.nanmean(right / support))

    rng = np.random.default_rng(0)
    count = len(labels)
    drawn = np.array([figures(rng.integers(0, count, count)) for _ in range(4000)])
    measured = np.array(figures(np.arange(count)))
    biases = [drawn[:, 0].mean() - measured[0], 0]  # a mean of recalls has none
    ours = macro_estimates(labels, predicted, num_classes=classes, seed=0, draws=4000)
    most = effective_size(np.array(photos))
    for found, value, bias, variance in zip(
        (ours.macro_f1, ours.balanced_accuracy), measured, biases, drawn.var(axis=0), strict=True
    ):
        size = min(value * (1 - value) / variance, most)
        expected = wilson_interval(float(value - bias), size)
        assert found.value == pytest.approx(value)
        assert (found.low, found.high) == pytest.approx(expected, abs=0.008)
    assert biases[0] < -0.008
