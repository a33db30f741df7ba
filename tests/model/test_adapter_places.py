"""Which layers adapters go to, and which adapter configs are taken: every boundary, on towers of
a few layers that need no backbone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from cliptune.errors import ModelError
from cliptune.model.lora import (
    adapted_modules,
    adapter_state,
    add_adapters,
    check_config,
    find_targets,
    merge,
    merge_plain,
)

CONFIG: dict[str, Any] = {
    "peft_type": "LORA", "r": 2, "lora_alpha": 6.0, "lora_dropout": 0.0, "bias": "none",
    "target_modules": r"vision_model\.layers\.\d+\.q",
}  # fmt: skip


def towers(vision: int = 3, text: int = 2) -> nn.Module:
    """Two towers of layers with q and v, and a projection each."""

    def tower(depth: int) -> nn.Module:
        layers = [nn.ModuleDict({"q": nn.Linear(4, 6), "v": nn.Linear(4, 6)}) for _ in range(depth)]
        return nn.ModuleDict({"layers": nn.ModuleList(layers)})

    return nn.ModuleDict(
        {
            "vision_model": tower(vision),
            "text_model": tower(text),
            "visual_projection": nn.Linear(6, 5),
            "text_projection": nn.Linear(6, 5),
        }
    )


def adapted(**options: Any) -> set[str]:
    """The layers that got an adapter."""
    plain = {"r": 2, "alpha": 4, "dropout": 0.0, "target_modules": ["q", "v"]}
    tuned = add_adapters(towers(), **plain | options).base_model.model
    return {name for name, module in tuned.named_modules() if hasattr(module, "lora_A")}


def layers(tower: str, *numbers: int, kinds: str = "qv") -> set[str]:
    return {f"{tower}_model.layers.{number}.{kind}" for number in numbers for kind in kinds}


def test_adapters_go_to_the_layers_named_in_the_towers_chosen() -> None:
    assert adapted() == layers("vision", 0, 1, 2)
    assert adapted(towers="text", target_modules=["v"]) == layers("text", 0, 1, kinds="v")
    assert adapted(towers="both") == layers("vision", 0, 1, 2) | layers("text", 0, 1)
    one = ["vision_model.layers.1.q", "visual_projection"]
    assert adapted(target_modules=one) == set(one)


def test_the_last_layers_are_counted_from_the_end_of_each_tower() -> None:
    assert adapted(last_layers=1) == layers("vision", 2)
    assert adapted(last_layers=3) == layers("vision", 0, 1, 2)
    both = adapted(last_layers=1, towers="both", target_modules=["q", "visual_projection"])
    # What has no number stands past the last layer.
    assert both == layers("vision", 2, kinds="q") | layers("text", 1, kinds="q") | {
        "visual_projection"
    }
    with pytest.raises(ModelError, match=r"^lora.last_layers: found 4; vision_model has 3 layers$"):
        adapted(last_layers=4)
    with pytest.raises(ModelError, match=r"found 3; text_model has 2 layers"):
        adapted(last_layers=3, towers="both")


def test_a_name_that_two_targets_match_is_found_once_and_in_their_order() -> None:
    found = find_targets(towers(1, 1), ["v", "vision_model.layers.0.v", "q"], towers="vision")
    assert found == ["vision_model.layers.0.v", "vision_model.layers.0.q"]
    with pytest.raises(ModelError, match=r"'k' matches no linear layer of the both towers\. The"):
        find_targets(towers(), ["q", "k"], towers="both")
    with pytest.raises(ModelError, match=r"of the vision tower\. [^$]*q   \(3×, vision_model"):
        find_targets(towers(), ["ision_model.layers.0.q"], towers="vision")


@pytest.mark.parametrize(
    ("key", "fine", "wrong"),
    [
        ("r", [1, 1024], [0, 1025, -1, True, None, "8", 1.5]),
        ("lora_alpha", [0.01, 1, 1e9], [0, -1, float("inf"), float("nan"), True, None, "16"]),
        ("lora_dropout", [0, 0.0, 0.999], [1, 1.0, -0.01, False, None]),
        ("bias", ["none", "all", "lora_only"], ["some", None, True]),
        ("peft_type", ["LORA"], ["lora", None]),
        ("init_lora_weights", [True], [False, "gaussian", None]),
        (
            "target_modules",
            [r"a\.b|c-d_e\.\d+", r"\-", "x" * 100_000],
            ["", "a.b", "a*", "(a)", r"\w", r"\d", None, ["q"], "x" * 100_001],
        ),
        ("use_dora", [True, False], []),
        ("rank_pattern", [{}, None], [{"q": 2}]),
    ],
)
def test_a_config_is_taken_up_to_its_limits_and_refused_past_them(
    key: str, fine: list[Any], wrong: list[Any]
) -> None:
    for value in fine:
        assert check_config(CONFIG | {key: value})[key] == value
    for value in wrong:
        with pytest.raises(
            ModelError, match=rf"^found {key}: .*; cliptune writes no such adapter$"
        ):
            check_config(CONFIG | {key: value})


def test_all_keys_that_are_wrong_are_named_and_long_values_cut() -> None:
    with pytest.raises(ModelError, match=rf"^found alora: '{'z' * 60}', r: '0'; cliptune"):
        check_config(CONFIG | {"r": 0, "alora": "z" * 99})
    with pytest.raises(ModelError, match=r"^found list; expected an object$"):
        check_config([])


@pytest.mark.parametrize("rs", [None, False, True])
def test_merging_adds_the_scaled_product(rs: bool | None) -> None:
    bare = towers()
    before = {name: tensor.clone() for name, tensor in bare.state_dict().items()}
    state = {}
    for number in range(3):
        name = f"base_model.model.vision_model.layers.{number}.q"
        state[f"{name}.lora_A.weight"] = torch.randn(2, 4, dtype=torch.float64).half()
        state[f"{name}.lora_B.weight"] = torch.randn(6, 2, dtype=torch.float64).half()
    config = CONFIG if rs is None else CONFIG | {"use_rslora": rs}
    assert merge_plain(bare, config, state) is True
    scale = 6 / 2**0.5 if rs else 6 / 2
    for name, weight in bare.state_dict().items():
        key = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{key}.lora_A.weight" in state:
            a, b = (state[f"{key}.lora_{side}.weight"].double() for side in "AB")
            added = scale * b @ a
            assert weight.double() == pytest.approx(before[name].double() + added, abs=1e-5)
        else:
            assert torch.equal(weight, before[name])


def test_what_plain_merging_cannot_do_is_left_alone_and_what_is_not_finite_refused() -> None:
    bare = towers()
    for key, value in (("bias", "all"), ("use_dora", True), ("alpha_pattern", {"q": 1})):
        assert merge_plain(bare, CONFIG | {key: value}, {}) is False
    state = {}
    for number in range(3):
        name = f"base_model.model.vision_model.layers.{number}.q"
        state |= {f"{name}.lora_A.weight": torch.ones(2, 4)}
        state |= {f"{name}.lora_B.weight": torch.full((6, 2), float("inf"))}
    with pytest.raises(
        ModelError, match=r"^the adapters cannot be merged: vision_model.layers.0.q"
    ):
        merge_plain(bare, CONFIG, state)
    wrong = dict(list(state.items())[1:]) | {"extra": torch.zeros(1)}
    with pytest.raises(ModelError, match=r"extra: found \(1,\), expected nothing") as caught:
        merge_plain(bare, CONFIG, wrong)
    assert "lora_A.weight: found nothing, expected (2, 4)" in str(caught.value)
    assert "layers.1.q" not in str(caught.value)


def test_adapters_have_the_settings_asked_for_and_plain_lora_otherwise() -> None:
    tuned = add_adapters(towers(), r=3, alpha=5, dropout=0.25, target_modules=["q"])
    config = tuned.peft_config["default"]
    assert (config.r, config.lora_alpha, config.lora_dropout, config.bias) == (3, 5, 0.25, "none")
    assert (config.use_dora, config.use_rslora) == (False, False)
    layer = tuned.base_model.model.vision_model.layers[0].q
    assert layer.lora_A["default"].weight.shape == (3, 4)
    assert layer.scaling["default"] == 5 / 3
    other = {"use_dora": True, "use_rslora": True}
    config = add_adapters(
        towers(), r=3, alpha=5, dropout=0.25, target_modules=["q"], **other
    ).peft_config["default"]
    assert (config.use_dora, config.use_rslora) == (True, True)


def test_the_pattern_of_targets_is_short_where_every_depth_is_alike() -> None:
    def pattern(**options: Any) -> str:
        plain = {"r": 2, "alpha": 4, "dropout": 0.0, "target_modules": ["q"]}
        found = add_adapters(towers(), **plain | options).peft_config["default"].target_modules
        assert isinstance(found, str)
        return found

    assert pattern() == r"vision_model\.layers\.\d+\.q"
    assert pattern(target_modules=["v", "visual_projection"], towers="vision") == (
        r"vision_model\.layers\.\d+\.v|visual_projection"
    )
    assert pattern(last_layers=2) == r"vision_model\.layers\.1\.q|vision_model\.layers\.2\.q"


def test_layers_there_are_stand_by_their_last_name_with_their_number() -> None:
    with pytest.raises(ModelError) as caught:
        find_targets(towers(3, 1), ["k"], towers="both")
    assert str(caught.value).splitlines() == [
        "lora.target_modules: 'k' matches no linear layer of the both towers. "
        "The linear layers there are:",
        "  q   (3×, vision_model.layers.*.q)",
        "  v   (3×, vision_model.layers.*.v)",
        "  q   (1×, text_model.layers.*.q)",
        "  v   (1×, text_model.layers.*.v)",
        "  visual_projection   (1×, visual_projection)",
        "  text_projection   (1×, text_projection)",
    ]


def test_five_tensors_that_do_not_fit_are_named_and_the_others_counted() -> None:
    with pytest.raises(ModelError) as caught:
        merge_plain(towers(), CONFIG, {})
    first, *lines, last = str(caught.value).splitlines()
    assert first == "the adapter's tensors do not fit the model:"
    assert [line.split(".layers.")[1].split(".weight")[0] for line in lines] == [
        "0.q.lora_A", "0.q.lora_B", "1.q.lora_A", "1.q.lora_B", "2.q.lora_A",
    ]  # fmt: skip
    assert last == "  … and 1 more"


def test_weights_that_would_not_be_finite_are_not_merged() -> None:
    tuned = add_adapters(towers(), r=2, alpha=4, dropout=0.0, target_modules=["q"])
    for name, parameter in tuned.named_parameters():
        if "lora_" in name:
            torch.nn.init.constant_(parameter, 1e30)
    with pytest.raises(ModelError, match=r"^the adapters cannot be merged: .+"):
        merge(tuned)


def test_the_modules_that_merging_changes_are_those_with_adapters_and_unknown_beside_biases() -> (
    None
):
    tuned = add_adapters(towers(), r=2, alpha=4, dropout=0.0, target_modules=["q"], bias="all")
    state = adapter_state(tuned)
    assert adapted_modules(state) is None
    plain = {name: tensor for name, tensor in state.items() if ".lora_" in name}
    assert len(plain) < len(state)
    assert adapted_modules(plain) == layers("vision", 0, 1, 2, kinds="q")
    assert adapted_modules({}) == frozenset()
