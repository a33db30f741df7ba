"""Intervals of photos that belong together: other groups would be measured next time."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from cliptune.data.groups import groups_of
from cliptune.data.manifest import MANIFEST
from cliptune.evaluation.comparison.compare import compare
from cliptune.evaluation.evaluate import evaluate
from cliptune.evaluation.statistics.answering import held_out_scores
from cliptune.evaluation.statistics.figures import compare_paired, full_metrics
from cliptune.evaluation.statistics.grouped import (
    difference_of,
    effective_count,
    mcnemar_of,
    mean_estimate,
    share_of,
)
from cliptune.evaluation.statistics.intervals import difference_interval, mcnemar, wilson_interval

hits = st.lists(st.booleans(), min_size=2, max_size=60).map(lambda x: np.array(x, dtype=bool))


def answers(
    seed: int, *, groups: int, each: int, classes: int = 5, alike: float = 1.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(logits, labels, groups) of groups whose photos share `alike` of what makes them hard."""
    rng = np.random.default_rng(seed)
    groups_N = np.repeat(np.arange(groups), each)
    labels_N = rng.integers(0, classes, groups)[groups_N]
    noise_NC = alike * rng.normal(size=(groups, classes))[groups_N]
    noise_NC = noise_NC + (1 - alike) * rng.normal(size=(len(labels_N), classes))
    return 1.2 * np.eye(classes)[labels_N] + noise_NC, labels_N, groups_N


@settings(deadline=None)
@given(hits, st.integers(1, 8))
def test_copies_of_a_photo_are_worth_no_more_than_the_photo(own: np.ndarray, copies: int) -> None:
    groups_N = np.repeat(np.arange(len(own)), copies)
    found = share_of(np.repeat(own, copies), groups_N)
    alone = share_of(own, np.arange(len(own)))
    assert found is not None
    assert alone is not None
    assert found.value == pytest.approx(alone.value)
    worth = effective_count(np.repeat(own, copies), groups_N)
    assert worth <= len(own) + 1e-9
    assert found.high - found.low >= alone.high - alone.low - 1e-9


@settings(deadline=None)
@given(hits)
def test_groups_of_one_photo_are_photos(own: np.ndarray) -> None:
    groups_N = np.random.default_rng(0).permutation(len(own))
    found = share_of(own, groups_N)
    assert found is not None
    low, high = wilson_interval(float(own.mean()), len(own))
    # But for N - 1 in the place of N, as a variance between groups is estimated.
    assert found.low == pytest.approx(low, abs=0.05)
    assert found.high == pytest.approx(high, abs=0.05)
    assert effective_count(own, groups_N) >= len(own) - 1 - 1e-9


def test_no_interval_is_narrower_than_of_independent_photos() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        count = int(rng.integers(4, 80))
        own, groups_N = rng.random(count) < 0.8, rng.integers(0, 12, count)
        found, free = share_of(own, groups_N), share_of(own, None)
        assert found is not None
        assert free is not None
        assert found.high - found.low >= free.high - free.low - 1e-12


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=24))
def test_mcnemars_test_of_groups_of_one_photo_is_mcnemars_test(
    sides: list[tuple[bool, bool]],
) -> None:
    a_N, b_N = np.array(sides).T
    only_a_N, only_b_N = a_N & ~b_N, b_N & ~a_N
    found = mcnemar_of(only_a_N, only_b_N, np.arange(len(sides)))
    total = int(only_a_N.sum() + only_b_N.sum())
    expected = binomtest(int(only_a_N.sum()), total).pvalue if total else 1.0
    assert found.p == pytest.approx(expected)
    assert found.p == pytest.approx(mcnemar_of(only_a_N, only_b_N, None).p)


def test_mcnemars_chi_square_of_groups_of_one_photo_is_mcnemars() -> None:
    only_a_N, only_b_N = np.arange(90) < 40, (np.arange(90) >= 40) & (np.arange(90) < 60)
    assert mcnemar_of(only_a_N, only_b_N, np.arange(90)).p == pytest.approx(mcnemar(40, 20).p)


def test_photos_that_err_together_prove_less_than_as_many_independent_ones() -> None:
    only_a_N = np.arange(200) < 12  # twelve photos that A alone has right, all of one animal
    only_b_N = (np.arange(200) >= 12) & (np.arange(200) < 14)
    groups_N = np.maximum(np.arange(200) - 11, 0)
    assert mcnemar_of(only_a_N, only_b_N, None).p < 0.05
    assert mcnemar_of(only_a_N, only_b_N, groups_N).p > 0.5
    found = difference_of(only_a_N, only_b_N, groups_N)
    free = difference_of(only_a_N, only_b_N, None)
    assert found.value == free.value
    assert found.low < 0 < free.low
    low, high = difference_interval(12, 2, 200)
    assert (free.low, free.high) == (low, high)


def test_every_interval_of_near_copies_is_wider_than_of_independent_photos() -> None:
    logits_NC, labels_N, groups_N = answers(1, groups=150, each=6, alike=0.95)
    free = full_metrics(logits_NC, labels_N, seed=0)
    found = full_metrics(logits_NC, labels_N, seed=0, groups_N=groups_N)
    assert found.num_groups == 150
    for name in ("accuracy", "macro_f1", "balanced_accuracy", "log_loss", "brier", "ece"):
        wide, narrow = getattr(found, name), getattr(free, name)
        if name != "ece":  # its bias is that of chance, of which groups leave more
            assert wide.value == narrow.value
        assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low), name
    for wide, narrow in zip(found.recall, free.recall, strict=True):
        assert wide is not None
        assert narrow is not None
        assert wide.high - wide.low > narrow.high - narrow.low


@pytest.mark.parametrize("alike", [0.2, 0.95])
def test_intervals_hold_the_truth_as_often_as_they_say_where_those_of_photos_do_not(
    alike: float,
) -> None:
    big_NC, big_N, _ = answers(99, groups=60_000, each=5, alike=alike)
    truth_accuracy = float((big_NC.argmax(axis=1) == big_N).mean())
    held = free = 0
    for seed in range(200):
        logits_NC, labels_N, groups_N = answers(seed, groups=40, each=8, alike=alike)
        right_N = logits_NC.argmax(axis=1) == labels_N
        mine, usual = share_of(right_N, groups_N), share_of(right_N, None)
        assert mine is not None
        assert usual is not None
        held += mine.low <= truth_accuracy <= mine.high
        free += usual.low <= truth_accuracy <= usual.high
    assert 0.91 <= held / 200 <= 0.995
    if alike > 0.9:
        assert free / 200 < 0.75


def test_the_mean_of_losses_of_groups_is_that_of_their_own_numbers() -> None:
    rng = np.random.default_rng(0)
    own_G = rng.gamma(0.3, size=300)
    found = mean_estimate(np.repeat(own_G, 4), np.repeat(np.arange(300), 4))
    alone = mean_estimate(own_G)
    assert (found.low, found.high) == pytest.approx((alone.low, alone.high))
    few = mean_estimate(np.repeat(own_G[:99], 4), np.repeat(np.arange(99), 4))
    assert few.high == np.inf


def test_too_few_groups_are_told_as_groups() -> None:
    logits_NC, labels_N, groups_N = answers(2, groups=20, each=20)
    found = full_metrics(logits_NC, labels_N, seed=0, groups_N=groups_N)
    assert found.ece is None
    assert "too few groups of photos: it needs 50, and there are 20" in found.too_few_photos["ece"]
    assert np.isinf(found.log_loss.high)
    half_NC = np.where(groups_N[:, None] < 2, logits_NC[:, ::-1], logits_NC)
    paired = compare_paired(logits_NC, half_NC, labels_N, seed=0, groups_N=groups_N)
    assert paired.leaning_groups is not None
    assert paired.leaning_groups <= 2
    assert paired.mcnemar_p is None
    assert "groups" in paired.too_few_photos["mcnemar_p"]


@pytest.fixture
def grouped_photos(photos: Path, tmp_path: Path) -> Path:
    """The photos of a run, two and two of one group, as dataset.json says."""
    folder = Path(shutil.copytree(photos, tmp_path / "data"))
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.png"))
    groups = {name: f"{name.rpartition('_')[0]} {int(name[-5]) // 2}" for name in names}
    record = {
        "cliptune": "1", "source": {"name": "x", "kind": "folders", "splits": "random"},
        "options": {}, "seed": 42, "counts": {}, "files": {}, "groups": groups,
    }  # fmt: skip
    (folder / MANIFEST).write_text(json.dumps(record), encoding="utf-8")
    return folder


def test_report_page_text_and_json_say_how_many_groups_figures_rest_on(
    tiny_run: Path, photos: Path, grouped_photos: Path, tmp_path: Path
) -> None:
    options = {"device": "cpu", "progress": False, "num_workers": 0}
    free = evaluate(tiny_run, data_dir=photos, output_dir=tmp_path / "free", **options)  # type: ignore[arg-type]
    found = evaluate(tiny_run, data_dir=grouped_photos, output_dir=tmp_path / "out", **options)  # type: ignore[arg-type]
    assert found.figures.num_groups == 6
    assert found.accuracy == free.accuracy
    for name in ("evaluation_report.txt", "report.html"):
        text = " ".join((tmp_path / "out" / name).read_text(encoding="utf-8").split())
        assert "12 photos in 6 independent groups" in text
        assert "of other groups of photos like these (dataset.json says which" in text
        assert "groups" not in (tmp_path / "free" / name).read_text(encoding="utf-8")
    results = json.loads((tmp_path / "out" / "evaluation_results.json").read_text("utf-8"))
    assert results["num_groups"] == 6
    before = json.loads((tmp_path / "free" / "evaluation_results.json").read_text("utf-8"))
    assert "num_groups" not in before


def test_a_comparison_rests_on_groups_too(
    tiny_run: Path, grouped_photos: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(tiny_run, tmp_path / "other"))
    found = compare(
        [tiny_run, other], data_dir=grouped_photos, output_dir=tmp_path / "out", device="cpu",
        progress=False, num_workers=0,
    )  # fmt: skip
    assert found.reference.figures.num_groups == 6
    assert found.differences[0].paired.leaning_groups == 0
    for name in ("comparison.txt", "comparison.html"):
        text = " ".join((tmp_path / "out" / name).read_text(encoding="utf-8").split())
        assert "12 photos in 6 independent groups" in text
    results = json.loads((tmp_path / "out" / "comparison.json").read_text("utf-8"))
    assert results["num_groups"] == 6


def test_where_no_two_photos_measured_belong_together_there_are_no_groups(
    grouped_photos: Path,
) -> None:
    paths = sorted((grouped_photos / "test").rglob("*_0.png"))
    assert groups_of(grouped_photos, paths) is None


def test_the_score_of_a_photo_held_out_is_without_its_near_copies() -> None:
    rng = np.random.default_rng(0)
    labels_N = np.arange(30) % 3
    own_ND = np.eye(3, 8)[labels_N] + rng.normal(size=(30, 8))
    logits_NC, weights_CD = 5 * own_ND[:, :3], np.eye(3, 8)
    alone = held_out_scores("photos", logits_NC, own_ND, labels_N, weights_CD=weights_CD)
    copies = [np.repeat(x, 4, axis=0) for x in (logits_NC, own_ND, labels_N)]
    groups_N = np.repeat(np.arange(30), 4)
    found, free = (
        held_out_scores("photos", *copies, weights_CD=weights_CD, groups_N=given)
        for given in (groups_N, None)
    )
    assert found == pytest.approx(np.repeat(alone, 4))
    assert free.mean() > found.mean() + 0.02
    one = held_out_scores(
        "photos", *copies, weights_CD=weights_CD, groups_N=np.repeat(labels_N, 4)
    )  # each class is one group: no photo has another of its class
    assert (one <= free).all()
