"""How a run chooses, by val, how much of what adapters learned counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from cliptune.config import load_settings
from cliptune.evaluation.statistics.calibration import scaled_log_losses
from cliptune.model.checkpoint import best_of, list_checkpoints
from cliptune.training.run import HeadLosses
from cliptune.training.train import train
from cliptune.training.validation import at_worst

Overrides = dict[str, Any]


def losses(values_N: np.ndarray, indices_N: np.ndarray | None = None) -> HeadLosses:
    return HeadLosses(values_N, np.arange(len(values_N)) if indices_N is None else indices_N)


def test_the_worst_of_a_gain_is_the_end_of_its_one_sided_interval() -> None:
    rng = np.random.default_rng(0)
    head, now = rng.gamma(1.0, size=(2, 300))
    found = at_worst(losses(now), losses(head)) - head.mean()
    expected = stats.ttest_rel(now, head, alternative="less").confidence_interval(0.95).high
    assert found == pytest.approx(expected, abs=2e-3)


def test_equal_answers_cost_nothing_and_no_head_leaves_the_mean() -> None:
    now = np.random.default_rng(0).gamma(1.0, size=20)
    assert at_worst(losses(now), losses(now)) == pytest.approx(now.mean())
    assert at_worst(losses(now), None) == pytest.approx(now.mean())


def test_photos_are_paired_by_what_they_are_and_those_in_one_alone_do_not_count() -> None:
    rng = np.random.default_rng(1)
    head, now = rng.gamma(1.0, size=(2, 12))
    order = rng.permutation(12)
    expected = at_worst(losses(now[2:]), losses(head[2:]))
    assert at_worst(losses(now[order], order), losses(head[2:], np.arange(2, 12))) == (
        pytest.approx(expected)
    )


@pytest.mark.parametrize("photos", [10, 40, 200])
def test_adapters_that_add_nothing_are_seldom_taken(photos: int) -> None:
    """At one epoch, by noise alone: one time in twenty, and hardly more on few photos."""
    rng = np.random.default_rng(photos)
    taken = 0
    for _ in range(2000):
        head = rng.gamma(1.0, size=photos)
        now = head + rng.normal(scale=0.3, size=photos)
        taken += at_worst(losses(now), losses(head)) < head.mean()
    assert 0.03 < taken / 2000 < 0.09


def test_a_loss_that_is_not_finite_is_never_chosen() -> None:
    head = np.ones(5)
    assert at_worst(losses(np.array([0.1, 0.1, np.inf, 0.1, 0.1])), losses(head)) == np.inf


def test_what_checkpoints_record_is_what_chose_among_them(
    overrides: Overrides, tmp_path: Path
) -> None:
    overrides |= {"training.num_epochs": 3, "output.save_total_limit": 9}
    result = train(load_settings(overrides=overrides), progress=False)
    found = list_checkpoints(result.output_dir)
    rows = {row["epoch"]: row for row in result.history}
    for each in found:
        row = rows[each.record.epoch]
        assert each.record.metrics["val_criterion"] == row["val_criterion"]
        assert each.record.metrics["val_scaled_loss"] <= row["val_criterion"] + 1e-12
    start = rows[0]["val_criterion"]
    assert start == found[0].record.metrics["val_scaled_loss"]
    best = best_of(found)
    assert best is not None
    least = min(row["val_criterion"] for row in rows.values())
    assert best.record.metrics["val_criterion"] == least


def test_a_temperature_takes_out_how_sure_answers_are() -> None:
    rng = np.random.default_rng(0)
    labels_N = rng.integers(4, size=400)
    logits_NC = rng.normal(size=(400, 4)) + 2 * np.eye(4)[labels_N]
    one, other = (scaled_log_losses(scale * logits_NC, labels_N).mean() for scale in (1.0, 3.0))
    assert one == pytest.approx(other, rel=1e-2)
