from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
    get_linear_schedule_with_warmup,
)

from cliptune.training.optim import epochs_without_gain, lr_factor, make_optimizer

SCHEDULES = {
    "cosine": get_cosine_schedule_with_warmup,
    "linear": get_linear_schedule_with_warmup,
    "constant": get_constant_schedule_with_warmup,
}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("num_cycles", [0.5, 1.5])
def test_schedules_are_those_of_transformers_after_the_warmup(
    schedule: str, num_cycles: float
) -> None:
    warmup, total = 7, 50
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    options = {} if schedule == "constant" else {"num_training_steps": total}
    if schedule == "cosine":
        options["num_cycles"] = num_cycles
    theirs = SCHEDULES[schedule](optimizer, num_warmup_steps=warmup, **options).lr_lambdas[0]
    for update in range(warmup, total):
        ours = lr_factor(
            update, warmup=warmup, total=total, schedule=schedule, num_cycles=num_cycles
        )
        assert ours == pytest.approx(theirs(update), abs=1e-12)


def test_the_first_update_already_learns_and_the_rate_rises_linearly() -> None:
    factors = [lr_factor(update, warmup=4, total=20) for update in range(5)]
    assert factors == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert lr_factor(0, warmup=0, total=20) == 1.0


@given(st.integers(0, 60), st.integers(0, 20), st.integers(1, 60), st.sampled_from(list(SCHEDULES)))
def test_the_rate_is_always_a_share_of_its_peak(
    update: int, warmup: int, total: int, schedule: str
) -> None:
    assert 0 <= lr_factor(update, warmup=warmup, total=total, schedule=schedule) <= 1


def test_a_gain_smaller_than_min_delta_is_none() -> None:
    assert epochs_without_gain([], min_delta=0.01) == 0
    assert epochs_without_gain([0.5, 0.6, 0.7], min_delta=0.01) == 0
    assert epochs_without_gain([0.5, 0.505, 0.509], min_delta=0.01) == 2
    # Small steps add up: the third is a gain over the first.
    assert epochs_without_gain([0.5, 0.505, 0.512], min_delta=0.01) == 0
    assert epochs_without_gain([0.5, 0.5, 0.5], min_delta=0.0) == 2
    assert epochs_without_gain([0.7, 0.9, 0.8, 0.85], min_delta=0.0) == 2


def test_only_matrices_decay() -> None:
    model = torch.nn.Linear(3, 2)
    model.extra = torch.nn.Parameter(torch.zeros(2, 2), requires_grad=False)
    decayed, kept = make_optimizer(model, learning_rate=0.1, weight_decay=0.3).param_groups
    assert (decayed["params"], decayed["weight_decay"]) == ([model.weight], 0.3)
    assert (kept["params"], kept["weight_decay"]) == ([model.bias], 0.0)


def test_no_matrix_or_no_vector_makes_no_empty_group() -> None:
    for module, decay in ((torch.nn.Linear(3, 2, bias=False), 0.3), (torch.nn.LayerNorm(3), 0.0)):
        optimizer = make_optimizer(module, learning_rate=0.125, weight_decay=0.3)
        (group,) = optimizer.param_groups
        assert group["params"] == list(module.parameters())
        assert (group["weight_decay"], group["lr"]) == (decay, 0.125)


def test_past_the_end_the_rate_stays_where_it_ended() -> None:
    ends = {"cosine": 0.0, "linear": 0.0, "constant": 1.0}
    for schedule, end in ends.items():
        for update in (20, 21, 35):
            rate = lr_factor(update, warmup=5, total=20, schedule=schedule)
            assert rate == pytest.approx(end, abs=1e-12)
    assert lr_factor(30, warmup=5, total=20, num_cycles=1.0) == 1.0


def test_half_a_cosine_wave_is_the_schedule_unless_another_is_asked_for() -> None:
    for update in range(25):
        said = lr_factor(update, warmup=5, total=20, schedule="cosine", num_cycles=0.5)
        assert lr_factor(update, warmup=5, total=20) == said


def test_a_run_that_is_all_warmup_ends_at_its_peak() -> None:
    for schedule in SCHEDULES:
        assert lr_factor(4, warmup=5, total=5, schedule=schedule) == 1.0
        assert lr_factor(5, warmup=5, total=5, schedule=schedule) == 1.0
        # One update is left, at the peak; at the end of it, the rate has fallen.
    assert lr_factor(6, warmup=5, total=6, schedule="linear") == 0.0


def test_an_unknown_schedule_is_named() -> None:
    with pytest.raises(ValueError, match=r"^schedule 'step'; expected cosine, linear or constant$"):
        lr_factor(3, warmup=1, total=5, schedule="step")


def test_a_gain_of_just_min_delta_counts_and_none_at_all_does_not() -> None:
    assert epochs_without_gain([0.5, 0.75], min_delta=0.25) == 0
    assert epochs_without_gain([0.5, 0.75, 0.75, 0.75], min_delta=0.0) == 2
    assert epochs_without_gain([-3.0], min_delta=0.5) == 0
