"""An update is the same however its photos are cut into micro-batches, dropout and all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from cliptune.config import load_settings
from cliptune.training.run import Run
from cliptune.training.setup import set_up
from cliptune.training.train import step, train
from conftest import distance, make_model, tensors

Overrides = dict[str, Any]
CHOICES: list[Overrides] = [
    {},
    {"hardware.fast": False},
    {"lora.towers": "both", "lora.target_modules": ["q_proj", "v_proj", "out_proj", "fc2"]},
    {"lora.towers": "both", "hardware.fast": False},
    {"model.patch_dropout": 0.5},
    {"lora.use_dora": True, "lora.bias": "lora_only"},
    {"training.sampling": "balanced", "training.class_weights": {"amber": 3.0}},
    {"training.cache_activations": True, "lora.last_layers": 1, "data.augmentation.views": 1},
]


def updated(settings: Overrides, updates: int = 7) -> tuple[Run, dict[str, torch.Tensor]]:
    """A run after its first updates, which take two epochs and more, and what they trained."""
    run = set_up(load_settings(overrides=settings), progress=False)
    for parameters in run.optimizer.param_groups:
        parameters["lr"] = 1e-3
    size = run.settings.training.gradient_accumulation_steps
    while run.progress.update < updates:
        run.batches.epoch = run.progress.epoch
        batches = list(run.train_loader)
        for at in range(0, len(batches), size):
            step(run, batches[at : at + size])
            run.progress.update += 1
        run.progress.epoch += 1
    named = run.classifier.named_parameters()
    return run, {name: p.detach().clone() for name, p in named if p.requires_grad}


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_microbatches_train_to_the_weights_of_whole_batches_with_dropout(
    overrides: Overrides, choice: Overrides
) -> None:
    overrides |= {"lora.lora_dropout": 0.1} | choice
    _, expected = updated(overrides)
    cut = {"training.batch_size": 2, "training.gradient_accumulation_steps": 4}
    _, found = updated(overrides | cut)
    assert distance(found, expected) < 1e-5


@pytest.mark.parametrize("key", ["lora.lora_dropout", "model.patch_dropout"])
def test_dropout_of_both_kinds_is_at_work_in_training(overrides: Overrides, key: str) -> None:
    ends = [updated(overrides | {key: rate}, updates=2)[1] for rate in (0.1, 0.0)]
    assert distance(*ends) > 1e-3


def test_a_base_models_own_dropout_of_prompts_does_not_depend_on_microbatches(
    overrides: Overrides, tmp_path: Path
) -> None:
    """Chinese-CLIP's text tower is a BERT with dropout of its own."""
    overrides |= {"model.name": str(make_model(tmp_path / "model", "chinese_clip"))}
    overrides |= {"lora.towers": "both", "lora.target_modules": ["q_proj", "query"]}
    run, expected = updated(overrides)
    assert run.classifier.model.base_model.model.config.text_config.hidden_dropout_prob > 0
    cut = {"training.batch_size": 4, "training.gradient_accumulation_steps": 2}
    assert distance(updated(overrides | cut)[1], expected) < 1e-5


def test_a_whole_run_of_half_batches_ends_like_one_of_whole_batches(
    overrides: Overrides, tmp_path: Path
) -> None:
    ends = []
    for size, steps in ((8, 1), (4, 2)):
        more = {"training.batch_size": size, "training.gradient_accumulation_steps": steps}
        more |= {"output.output_dir": str(tmp_path / f"{size}"), "lora.towers": "both"}
        ends.append(train(load_settings(overrides=overrides | more), progress=False))
    assert ends[0].last is not None
    assert ends[1].last is not None
    assert distance(tensors(ends[1].last.path), tensors(ends[0].last.path)) < 1e-5
    # The head fitted first; val is looked at in batches of that size. A loss this near to zero is
    # about exp(-margin): it moves relatively by what rounding moves the margin, 1e-6 a product.
    whole, half = (end.history[0] for end in ends)
    measured = [name for name, value in whole.items() if value is not None]
    assert [half[name] for name in measured] == pytest.approx(
        [whole[n] for n in measured], rel=1e-5
    )
    for whole, half in zip(ends[0].history[1:], ends[1].history[1:], strict=True):
        assert half["train_loss"] == pytest.approx(whole["train_loss"], rel=1e-4)
