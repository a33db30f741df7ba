"""One loaded checkpoint: three classifiers of one base model, which is read once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers.modeling_utils

from cliptune import add_class, evaluate
from cliptune.config import load_settings
from cliptune.model.backbone import load_backbone
from cliptune.model.checkpoint import Checkpoint
from cliptune.model.classifier import Classifier, TextHead
from cliptune.model.fast.encoder import FusedEncoder
from cliptune.model.loaded import LoadedCheckpoint
from cliptune.model.prompts import zero_shot_weights
from cliptune.model.restore import load_classifier
from cliptune.training.train import train

# What merging changes: adapted weights alone, or (DoRA, trained biases) more than W + B·A.
KINDS: dict[str, dict[str, Any]] = {
    "vision": {},
    "both towers": {"lora.towers": "both"},
    "dora": {"lora.use_dora": True},
    "biases": {"lora.bias": "all"},
}


def trained(overrides: dict[str, Any], **more: Any) -> Checkpoint:
    settings = overrides | {"training.num_epochs": 1, "training.learning_rate": 1e-2} | more
    result = train(load_settings(overrides=settings), progress=False)
    assert result.last is not None
    return result.last


def own_zero_shot(model: Path, found: Checkpoint) -> Classifier:
    """Zero-shot CLIP of a base model loaded for it alone."""
    backbone, record = load_backbone(str(model)), found.record
    weights = zero_shot_weights(
        backbone, record.class_names, record.prompts, prompt_names=record.prompt_names
    )
    head = TextHead(weights, backbone.model.logit_scale)
    return Classifier(backbone.model, head, backbone.preprocess).eval()


@pytest.mark.parametrize("zero_shot_first", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_shared_classifiers_say_what_each_loaded_alone_says(
    overrides: dict[str, Any], clip_folder: Path, kind: str, zero_shot_first: bool
) -> None:
    if kind != "vision" and zero_shot_first:
        pytest.skip("the order is tried on one kind")
    found = trained(overrides, **KINDS[kind])
    loaded = LoadedCheckpoint(found)
    if zero_shot_first:
        zero_shot, tuned, plain = loaded.zero_shot(), loaded.tuned(), loaded.plain()
    else:
        plain, tuned, zero_shot = loaded.plain(), loaded.tuned(), loaded.zero_shot()
    pixels = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        torch.testing.assert_close(tuned(pixels), load_classifier(found)(pixels))
        torch.testing.assert_close(plain(pixels), load_classifier(found, fast=False)(pixels))
        expected = own_zero_shot(clip_folder, found)(pixels)
        torch.testing.assert_close(zero_shot(pixels), expected)
        assert not torch.allclose(tuned(pixels), expected, atol=1e-3)
    assert not isinstance(plain.model.vision_model.encoder, FusedEncoder)


def test_only_what_adapters_change_is_in_memory_twice(overrides: dict[str, Any]) -> None:
    found = trained(overrides, **{"lora.target_modules": ["q_proj", "v_proj"]})
    loaded = LoadedCheckpoint(found)
    classifiers = [loaded.tuned(), loaded.zero_shot(), loaded.plain()]
    tuned, zero_shot, plain = (
        {name: p.data_ptr() for name, p in c.model.named_parameters()} for c in classifiers
    )
    apart = {name for name, at in tuned.items() if zero_shot[name] != at}
    assert {name.split(".")[0] for name in apart} == {"vision_model"}
    assert {name.split(".")[-2] for name in apart} == {"q_proj", "v_proj"}
    assert plain == tuned


@pytest.fixture
def weights_read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The weight files that `transformers` opened to load a model from, each time it did."""
    opened: list[str] = []
    really_open = transformers.modeling_utils.safe_open

    def counting(path: Any, *arguments: Any, **options: Any) -> Any:
        opened.append(str(path))
        return really_open(path, *arguments, **options)

    monkeypatch.setattr(transformers.modeling_utils, "safe_open", counting)
    return opened


def test_base_weights_are_read_once_by_evaluate_with_its_page_and_by_add_class(
    overrides: dict[str, Any], tmp_path: Path, weights_read: list[str]
) -> None:
    found = trained(overrides, **{"training.learning_rate": 1e-6, "training.recipe": "plain"})
    weights_read.clear()
    load_classifier(found)
    once = len(weights_read)
    assert once > 0
    weights_read.clear()
    evaluation = evaluate(
        found.path, output_dir=tmp_path / "out", num_workers=0, device="cpu", progress=False
    )
    assert evaluation.baseline is not None
    assert evaluation.accuracy < 1  # so the page shows where it looked
    assert "where it looked" in (tmp_path / "out" / "report.html").read_text().lower()
    assert len(weights_read) == once
    weights_read.clear()
    add_class(found.path, "red", device="cpu", progress=False)
    assert len(weights_read) == once
