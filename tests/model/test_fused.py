"""The fused encoders against `transformers` and PEFT: outputs and every gradient."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from test_lora import wake
from torch.nn.functional import scaled_dot_product_attention

from cliptune.model.backbone import image_features, load_backbone, text_features
from cliptune.model.dropout import PhotoDropout
from cliptune.model.fast.encoder import FusedEncoder, fuse
from cliptune.model.fast.products import LONGEST_KEPT, TableAttention
from cliptune.model.lora import adapter_state, add_adapters, merge

EVERYWHERE = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]


def pair(folder: Path, **options: Any) -> tuple[Any, Any, dict[str, torch.Tensor]]:
    """The same adapted model twice, the second one fused, and some prompts."""
    backbone = load_backbone(str(folder))
    settings = {"r": 4, "alpha": 16, "dropout": 0.0, "target_modules": ["q_proj", "v_proj"]}
    plain = add_adapters(backbone.model, **settings | options)
    torch.manual_seed(0)
    wake(plain)
    fast = copy.deepcopy(plain)
    fuse(fast)
    return plain.train(), fast.train(), backbone.tokenize(["a photo of a dog", "blue"])


def outcome(
    model: Any,
    tokens: dict[str, torch.Tensor],
    *,
    towers: str,
    micro_batches: int = 1,
    loss_scale: float = 1.0,
) -> dict[str, torch.Tensor]:
    """Features of both towers and the gradient of every trainable parameter.

    `loss_scale` as of a scaler: gradients are computed as large, and given as they are.
    """
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(4, 3, 32, 32, generator=generator)
    # Of the precision the model has; drawn from one generator for all.
    weight = next(model.parameters())
    pixels = pixels.to(weight.device, weight.dtype)
    results = {}
    parts = []
    for part in pixels.chunk(micro_batches):
        features = image_features(model, part)
        target = torch.randn(features.shape[1], generator=generator.manual_seed(2))
        target = target.to(weight.device)
        loss = (features.float() @ target).square().sum()
        if towers != "vision":
            text = text_features(model, tokens)
            loss = loss + (text.float() @ target).square().sum() / micro_batches
            results["text"] = text.detach()
        (loss_scale * loss).backward()
        parts.append(features.detach())
    results["image"] = torch.cat(parts)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            results[name] = parameter.grad / loss_scale
    return results


def relative_error(found: torch.Tensor, expected: torch.Tensor, floor: float = 0.0) -> float:
    """Error over size; `floor` for what is zero but for rounding, as the gradient of key biases."""
    difference = (found.double() - expected.double()).norm()
    return float(difference / max(float(expected.double().norm()), floor))


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    largest = max(float(tensor.norm()) for tensor in expected.values())
    for name in expected:
        # A bias of keys shifts all scores of a query alike: its gradient is zero but for rounding.
        floor = 1e-2 * largest if name.endswith("k_proj.bias") else 0.0
        assert relative_error(found[name], expected[name], floor) < 1e-5, name


@pytest.mark.parametrize("towers", ["vision", "both"])
@pytest.mark.parametrize("kind", ["clip", "siglip", "chinese_clip"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"target_modules": EVERYWHERE},
        {"target_modules": ["fc1", "out_proj"], "bias": "lora_only"},
        {"bias": "all", "use_rslora": True},
    ],
)
def test_features_and_gradients_equal_those_of_peft(
    tmp_path: Path, kind: str, towers: str, options: dict[str, Any]
) -> None:
    from conftest import make_model

    if kind == "chinese_clip" and towers == "both":
        pytest.skip("its text tower is BERT, whose layers have other names and stay plain")
    folder = make_model(tmp_path, kind)
    plain, fast, tokens = pair(folder, towers=towers, **options)
    assert isinstance(fast.base_model.model.vision_model.encoder, FusedEncoder)
    expected = outcome(plain, tokens, towers=towers)
    found = outcome(fast, tokens, towers=towers)
    assert_same(found, expected)


def test_microbatches_add_up_in_the_fused_encoder(clip_folder: Path) -> None:
    plain, fast, tokens = pair(clip_folder, towers="both")
    expected = outcome(plain, tokens, towers="both")
    found = outcome(fast, tokens, towers="both", micro_batches=2)
    assert_same(found, expected)


@pytest.mark.parametrize("tokens", [5, 60, LONGEST_KEPT + 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_attention_by_a_table_is_as_near_to_float64_as_torchs_own(
    dtype: torch.dtype, tokens: int
) -> None:
    """Its gradient too, in whole pieces and parts, kept and computed anew; keys have a mean."""
    generator = torch.Generator().manual_seed(0)
    qkv = 2 * torch.randn(3, tokens, 3 * 2 * 20, generator=generator, dtype=torch.float64)
    qkv[..., 40:80] += 3 * torch.randn(40, generator=generator, dtype=torch.float64)
    qkv = qkv.to(dtype).double()  # the same numbers for all
    direction = torch.randn(3, tokens, 40, generator=generator, dtype=torch.float64)

    def theirs(qkv_BTD3: torch.Tensor, heads: int) -> torch.Tensor:
        q, k, v = qkv_BTD3.view(*qkv_BTD3.shape[:2], 3, heads, -1).permute(2, 0, 3, 1, 4)
        return scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

    def both(attend: Any, dtype: torch.dtype) -> list[torch.Tensor]:
        given = qkv.to(dtype, copy=True).requires_grad_()
        mixed = attend(given, 2)
        mixed.backward(direction.to(dtype))
        assert given.grad is not None
        return [mixed.detach(), *given.grad.split(40, dim=-1)]

    exact = both(theirs, torch.float64)
    for ours, own, true in zip(
        both(TableAttention.apply, dtype), both(theirs, dtype), exact, strict=True
    ):
        assert relative_error(ours, true) <= 1.5 * relative_error(own, true) + 1e-6


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_bf16_is_no_further_from_float64_than_pefts_own(tmp_path: Path, kind: str) -> None:
    from conftest import make_model

    plain, fast, tokens = pair(make_model(tmp_path, kind), towers="both")
    exact = outcome(copy.deepcopy(plain).double(), tokens, towers="both")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        theirs = outcome(plain, tokens, towers="both")
        ours = outcome(fast, tokens, towers="both")
    errors = {
        name: tuple(relative_error(each[name], exact[name]) for each in (ours, theirs))
        for name in exact
    }
    # Rounding is noise: compare the whole, and let no single tensor stand out.
    assert sum(o for o, _ in errors.values()) <= 1.1 * sum(t for _, t in errors.values())
    assert all(o <= 2 * t + 0.01 for o, t in errors.values()), errors


def test_a_longer_sequence_takes_the_blocked_kernel_and_agrees(tmp_path: Path) -> None:
    from conftest import make_model

    folder = make_model(tmp_path, patch_size=2)  # 257 tokens
    plain, fast, tokens = pair(folder)
    expected, found = (outcome(m, tokens, towers="vision") for m in (plain, fast))
    assert_same(found, expected)


def test_file_format_and_merging_stay_those_of_peft(clip_folder: Path) -> None:
    plain, fast, tokens = pair(clip_folder, towers="both")
    ours, theirs = adapter_state(fast), adapter_state(plain)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = image_features(plain.eval(), pixels), text_features(plain, tokens)
        # The fused encoder has used the unmerged weights; merging must reach its copies.
        image_features(fast.eval(), pixels)
        merged = merge(fast)
        found = image_features(merged, pixels), text_features(merged, tokens)
    for a, b in zip(expected, found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_dora_and_unknown_layers_stay_plain(clip_folder: Path, tmp_path: Path) -> None:
    from conftest import make_model

    backbone = load_backbone(str(clip_folder))
    dora = add_adapters(
        backbone.model, r=4, alpha=16, dropout=0, target_modules=["q_proj"], use_dora=True
    )
    assert fuse(dora) == ["vision_model"]  # the text tower has no adapters: it is fused
    chinese = load_backbone(str(make_model(tmp_path, "chinese_clip"))).model.requires_grad_(False)
    assert fuse(chinese) == ["text_model"]


def test_an_encoder_that_does_not_agree_is_not_used(
    clip_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As after a change in transformers: here a layer that computes something else."""
    model = load_backbone(str(clip_folder)).model.requires_grad_(False)
    layer = model.vision_model.encoder.layers[0]
    layer.register_forward_hook(lambda module, inputs, output: output * 1.5)
    assert fuse(model) == ["vision_model"]
    assert "does not agree" in caplog.text


def test_with_dropout_the_gradient_is_that_of_the_masks_drawn(clip_folder: Path) -> None:
    """Loss as a function of one adapter weight, masks fixed by the seed: slope by differences."""
    _, fast, _ = pair(clip_folder, dropout=0.3)
    fast = fast.double()
    pixels = torch.randn(2, 3, 32, 32, dtype=torch.float64)

    def loss() -> torch.Tensor:
        torch.manual_seed(5)
        return image_features(fast, pixels).square().sum()

    loss().backward()
    for name, parameter in fast.named_parameters():
        if "layers.0" in name and parameter.requires_grad:
            step, slope = 1e-6, parameter.grad[0, 1].item()
            with torch.no_grad():
                parameter[0, 1] += step
                high = loss().item()
                parameter[0, 1] -= 2 * step
                low = loss().item()
                parameter[0, 1] += step
            assert (high - low) / (2 * step) == pytest.approx(slope, rel=1e-4, abs=1e-9), name


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_with_dropout_features_and_gradients_equal_those_of_the_plain_path(
    tmp_path: Path, kind: str
) -> None:
    """The same masks, though the last layer's are drawn for the token that leaves the tower."""
    from conftest import make_model

    folder = make_model(tmp_path, kind)
    results = []
    *models, tokens = pair(folder, towers="both", target_modules=EVERYWHERE, dropout=0.3)
    for model in models:
        keys = next(m.keys for m in model.modules() if isinstance(m, PhotoDropout))
        photos = torch.tensor([7, 0, 2, 30])
        with keys.drawing_for(photos, view=1, update=3, device=torch.device("cpu")):
            results.append(outcome(model, tokens, towers="both"))
    assert_same(*results)


def test_dropout_averages_to_pefts_own(clip_folder: Path) -> None:
    """The mean feature over many draws is the same as PEFT's, within the noise of the means."""
    plain, fast, _ = pair(clip_folder, dropout=0.4)
    for module in plain.modules():
        if hasattr(module, "lora_dropout"):
            module.lora_dropout["default"] = torch.nn.Dropout(0.4)
    assert "vision_model" in fuse(plain)  # whose masks the fused encoder does not draw
    pixels = torch.randn(1, 3, 32, 32).repeat(4000, 1, 1, 1)
    with torch.no_grad():
        ours, theirs = image_features(fast, pixels), image_features(plain, pixels)
    noise = ((ours.var(0) + theirs.var(0)) / len(pixels)).sqrt()
    assert bool(((ours.mean(0) - theirs.mean(0)).abs() < 5 * noise).all())
    ratio = ours.std(0) / theirs.std(0)
    assert bool(((ratio - 1).abs() < 0.1).all())
