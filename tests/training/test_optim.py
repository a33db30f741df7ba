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
