"""What a command says at its end."""

from __future__ import annotations

from typing import Any

import pytest

from cliptune.commands.screen import training_summary
from cliptune.config import load_settings
from cliptune.training.train import train


@pytest.mark.parametrize(("rate", "stays"), [(1e-12, True), (5e-3, False)])
def test_where_adapters_added_nothing_the_summary_says_that_the_head_stays(
    overrides: dict[str, Any], capsys: pytest.CaptureFixture[str], rate: float, stays: bool
) -> None:
    overrides |= {"training.learning_rate": rate, "training.num_epochs": 3}
    settings = load_settings(overrides=overrides)
    result = train(settings, progress=False)
    training_summary(result, settings)
    assert result.best is not None
    assert (result.best.record.epoch == 0) == stays
    assert ("fitted head stays the best" in capsys.readouterr().out) == stays
