from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from cliptune.errors import ModelError
from cliptune.model.backbone import image_features, load_backbone, text_features
from cliptune.model.lora import (
    adapter_state,
    add_adapters,
    check_config,
    find_targets,
    load_adapter_state,
    merge,
    merge_plain,
    trainable_share,
)

OPTIONS: dict[str, Any] = {
    "r": 4, "alpha": 16, "dropout": 0.0, "target_modules": ["q_proj", "v_proj"]
}  # fmt: skip


def wake(model: Any) -> None:
    """Give every adapter a B that is not zero, so that it changes something."""
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)


@pytest.mark.parametrize("extra", [{}, {"use_dora": True}, {"use_rslora": True}])
def test_fresh_adapter_changes_no_feature_and_merged_equals_unmerged(
    any_model_folder: Path, extra: dict[str, bool]
) -> None:
    backbone = load_backbone(str(any_model_folder))
    torch.manual_seed(0)
    pixels = torch.randn(3, 3, 32, 32)
    tokens = backbone.tokenize(["a photo of a dog", "blue"])
    targets = OPTIONS["target_modules"]
    if backbone.model.config.model_type == "chinese_clip":
        targets = ["q_proj", "v_proj", "query", "value"]  # BERT's names in the text tower
    backbone.model.eval()

    def features(model: Any) -> list[torch.Tensor]:
        with torch.no_grad():
            return [image_features(model, pixels), text_features(model, tokens)]

    before = features(backbone.model)
    options = OPTIONS | {"target_modules": targets, "towers": "both"} | extra
    tuned = add_adapters(backbone.model, **options).eval()
    for old, new in zip(before, features(tuned), strict=True):
        torch.testing.assert_close(new, old, rtol=1e-5, atol=1e-5)  # DoRA renormalises: rounding
    wake(tuned)
    changed = features(tuned)
    assert all(
        not torch.allclose(old, new, rtol=1e-2) for old, new in zip(before, changed, strict=True)
    )
    for old, new in zip(changed, features(merge(tuned)), strict=True):
        torch.testing.assert_close(new, old, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("towers", ["vision", "text", "both"])
def test_only_the_chosen_towers_carry_adapters(clip_folder: Path, towers: str) -> None:
    model = add_adapters(load_backbone(str(clip_folder)).model, **OPTIONS, towers=towers)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)
    assert any("vision_model" in name for name in trained) == (towers != "text")
    assert any("text_model" in name for name in trained) == (towers != "vision")


def test_a_target_may_be_any_linear_layer_or_one_of_them(clip_folder: Path) -> None:
    model = load_backbone(str(clip_folder)).model
    one = "vision_model.encoder.layers.1.mlp.fc1"
    assert find_targets(model, [one], towers="vision") == [one]
    tuned = add_adapters(
        model, **OPTIONS | {"target_modules": [one, "visual_projection"]}, towers="vision"
    )
    carriers = {n.split(".lora_")[0] for n, p in tuned.named_parameters() if "lora_A" in n}
    assert carriers == {f"base_model.model.{one}", "base_model.model.visual_projection"}


def test_a_target_that_matches_nothing_lists_the_layers_there_are(clip_folder: Path) -> None:
    model = load_backbone(str(clip_folder)).model
    with pytest.raises(ModelError) as caught:
        find_targets(model, ["q_proj", "qproj"], towers="vision")
    message = str(caught.value)
    assert "'qproj' matches no linear layer of the vision tower" in message
    assert "q_proj   (2×, vision_model.encoder.layers.*.self_attn.q_proj)" in message
    assert "text_model" not in message


def test_a_layer_whose_adapter_would_be_dead_is_no_target(tmp_path: Path) -> None:
    from conftest import make_model

    model = load_backbone(str(make_model(tmp_path, "siglip"))).model
    found = find_targets(model, ["out_proj"], towers="vision")
    assert found == [f"vision_model.encoder.layers.{i}.self_attn.out_proj" for i in (0, 1)]


def test_bias_all_leaves_the_other_tower_frozen(clip_folder: Path) -> None:
    model = add_adapters(
        load_backbone(str(clip_folder)).model, **OPTIONS, towers="vision", bias="all"
    )
    biases = {n for n, p in model.named_parameters() if p.requires_grad and "bias" in n}
    assert biases
    assert all(name.startswith("base_model.model.vision_model") for name in biases)


def test_trainable_share_of_vit_b32_is_under_one_percent() -> None:
    from transformers import CLIPConfig, CLIPModel

    with torch.device("meta"):
        model = CLIPModel(CLIPConfig())  # openai/clip-vit-base-patch32's shape
        tuned = add_adapters(model, **OPTIONS | {"r": 8})
    trainable, everything = trainable_share(tuned)
    assert trainable == 12 * 2 * 8 * (768 + 768)
    assert trainable / everything < 0.01


@pytest.mark.parametrize("extra", [{}, {"use_rslora": True}])
def test_merging_without_peft_gives_pefts_weights_to_the_bit(
    clip_folder: Path, tmp_path: Path, extra: dict[str, bool]
) -> None:
    tuned = add_adapters(load_backbone(str(clip_folder)).model, **OPTIONS | extra)
    wake(tuned)
    tuned.peft_config["default"].save_pretrained(str(tmp_path))
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    state = adapter_state(tuned)
    bare = load_backbone(str(clip_folder)).model
    assert merge_plain(bare, config, state)
    expected = merge(tuned).state_dict()
    found = bare.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)

    with pytest.raises(ModelError, match="do not fit"):
        merge_plain(bare, config, dict(list(state.items())[1:]))
    before = {name: tensor.clone() for name, tensor in bare.state_dict().items()}
    assert not merge_plain(bare, config | {"use_dora": True}, state)
    assert not merge_plain(bare, config | {"rank_pattern": {"q_proj": 2}}, state)
    assert all(torch.equal(before[name], tensor) for name, tensor in bare.state_dict().items())


def test_targets_that_miss_one_of_both_towers_are_refused(tmp_path: Path) -> None:
    from conftest import make_model

    model = load_backbone(str(make_model(tmp_path, "chinese_clip"))).model
    with pytest.raises(ModelError, match=r"'q_proj, v_proj' matches no linear layer of the text"):
        find_targets(model, ["q_proj", "v_proj"], towers="both")


@pytest.mark.parametrize(
    "changed",
    [
        {"target_modules": "(a+)+$"},
        {"target_modules": ["q_proj"]},
        {"r": 10**9},
        {"r": True},
        {"lora_alpha": float("nan")},
        {"lora_alpha": float("inf")},
        {"rank_pattern": {"(a+)+$": 2}},
        {"peft_type": "IA3"},
    ],
)
def test_an_adapter_config_that_we_do_not_write_is_refused_by_its_key(
    clip_folder: Path, tmp_path: Path, changed: dict[str, Any]
) -> None:
    for extra in ({}, {"use_dora": True}, {"last_layers": 1}, {"bias": "all", "towers": "both"}):
        tuned = add_adapters(load_backbone(str(clip_folder)).model, **OPTIONS | extra)
        tuned.peft_config["default"].save_pretrained(str(tmp_path))
        config = json.loads((tmp_path / "adapter_config.json").read_text())
        assert check_config(config) == config
    with pytest.raises(ModelError, match=next(iter(changed))):
        check_config(config | changed)


def test_a_state_is_put_into_adapters_of_its_shapes_and_no_others(clip_folder: Path) -> None:
    def adapted(**options: Any) -> Any:
        return add_adapters(load_backbone(str(clip_folder)).model, **OPTIONS | options)

    tuned = adapted()
    wake(tuned)
    state = adapter_state(tuned)
    other = adapted()
    load_adapter_state(other, state)
    found = adapter_state(other)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())
    with pytest.raises(ModelError, match=r"expected \(8, 32\)"):
        load_adapter_state(adapted(r=8), state)
    with pytest.raises(ModelError, match="expected nothing"):
        load_adapter_state(adapted(target_modules=["q_proj"]), state)
