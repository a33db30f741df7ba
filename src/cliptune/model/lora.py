"""Where LoRA adapters go (Hu et al., arXiv 2106.09685), through PEFT and in its file format.

An adapter adds (α/r)·B·A to a frozen weight, α/√r with rsLoRA (arXiv 2312.03732). B starts at
zero, so that a fresh adapter changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from cliptune.errors import ModelError, listing
from cliptune.model.dropout import PhotoKeys, seed_dropouts
from cliptune.text import counted

TOWER_PREFIXES = {
    "vision": ("vision_model.", "visual_projection"),
    "text": ("text_model.", "text_projection"),
    "both": ("vision_model.", "visual_projection", "text_model.", "text_projection"),
}


_PREFIX = "base_model.model."  # PEFT's before every name in its files
# Keys of an adapter config that we write, or that PEFT does and that do not change the result.
_PLAIN_KEYS = {
    "base_model_name_or_path", "revision", "peft_type", "task_type", "peft_version", "r",
    "inference_mode", "auto_mapping", "lora_alpha", "lora_dropout", "target_modules", "bias",
    "use_rslora", "init_lora_weights", "megatron_core", "qalora_group_size",
}  # fmt: skip


def add_adapters(
    model: nn.Module,
    *,
    r: int,
    alpha: float,
    dropout: float,
    target_modules: Sequence[str],
    towers: str = "vision",
    bias: str = "none",
    use_dora: bool = False,
    use_rslora: bool = False,
    last_layers: int | None = None,
    keys: PhotoKeys | None = None,
) -> Any:
    """`model` wrapped by PEFT, with adapters on the linear layers named in the chosen towers.

    Only the adapters, and the biases `bias` asks for, are left trainable. `last_layers` leaves
    all but so many layers at the end of each tower without adapters: nothing is computed
    backwards there. `keys` say whose masks dropout draws. Raises `ModelError`, listing the linear
    layers there are, for a target that matches none.
    """
    from peft import LoraConfig, get_peft_model

    layers = linear_layers(model, towers=towers)
    chosen = find_targets(model, target_modules, towers=towers)
    if last_layers is not None:
        chosen = _at_the_end(chosen, layers, last_layers)
    config = LoraConfig(
        r=r,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=_pattern(chosen, layers),
        bias=bias,
        use_dora=use_dora,
        use_rslora=use_rslora,
    )
    wrapped = get_peft_model(model, config)
    seed_dropouts(wrapped.base_model.model, keys or PhotoKeys(), text=TOWER_PREFIXES["text"])
    # PEFT's bias "all" means the whole model; a tower without adapters stays as it was.
    for name, parameter in wrapped.base_model.model.named_parameters():
        if not name.startswith(TOWER_PREFIXES[towers]):
            parameter.requires_grad_(False)
    return wrapped


def find_targets(model: nn.Module, names: Sequence[str], *, towers: str) -> list[str]:
    """Full names of the linear layers in `towers` whose name ends in one of `names`.

    Raises `ModelError` when one of `names` matches nothing, or all of them nothing in a tower.
    """
    layers = linear_layers(model, towers=towers)
    found: list[str] = []
    for name in names:
        matches = [layer for layer in layers if layer == name or layer.endswith(f".{name}")]
        if not matches:
            raise ModelError(_no_match(name, layers, towers))
        found += [layer for layer in matches if layer not in found]
    for tower in ("vision", "text") if towers == "both" else ():
        if not any(layer.startswith(TOWER_PREFIXES[tower]) for layer in found):
            raise ModelError(_no_match(", ".join(names), linear_layers(model, towers=tower), tower))
    return found


def linear_layers(model: nn.Module, *, towers: str) -> list[str]:
    """Full names of the linear layers in `towers` that an adapter can work on."""
    # nn.MultiheadAttention reads its out_proj's weight without calling it: an adapter there
    # would be a dead one.
    closed = tuple(
        f"{name}." for name, module in model.named_modules()
        if isinstance(module, nn.MultiheadAttention)
    )  # fmt: skip
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and name.startswith(TOWER_PREFIXES[towers])
        and not name.startswith(closed)
    ]


def check_config(config: Any) -> dict[str, Any]:
    """`config`, what an `adapter_config.json` holds, if `cliptune` could have written it.

    Nothing of it is computed with before: a rank decides how much memory is taken, a pattern how
    long matching takes. Raises `ModelError` naming the key.
    """
    if not isinstance(config, dict):
        raise ModelError(f"found {type(config).__name__}; expected an object")
    checks = {
        "peft_type": config.get("peft_type") == "LORA",
        "r": _is_number(config.get("r")) and config["r"] in range(1, 1025),
        "lora_alpha": _is_number(config.get("lora_alpha"))
        and 0 < config["lora_alpha"] < float("inf"),
        "lora_dropout": _is_number(config.get("lora_dropout")) and 0 <= config["lora_dropout"] < 1,
        "target_modules": _is_plain_pattern(config.get("target_modules")),
        "bias": config.get("bias") in ("none", "all", "lora_only"),
        "init_lora_weights": config.get("init_lora_weights", True) is True,
    }
    wrong = [key for key, fine in checks.items() if not fine]
    wrong += [key for key in config.keys() - _PLAIN_KEYS - {"use_dora"} if config[key]]
    if wrong:
        found = ", ".join(f"{key}: {str(config.get(key))[:60]!r}" for key in sorted(wrong))
        raise ModelError(f"found {found}; cliptune writes no such adapter")
    return config


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_plain_pattern(pattern: Any) -> bool:
    """Whether `pattern` is one of `_pattern`'s: names, numbers of layers, and nothing else."""
    if not isinstance(pattern, str) or len(pattern) > 100_000:
        return False
    return re.fullmatch(r"(?:[\w|-]|\\[.-]|\\d\+)+", pattern) is not None


def merge(model: Any) -> nn.Module:
    """The base model with the adapters folded into its weights; `model` is used up.

    Raises `ModelError` when a merged weight is not finite.
    """
    try:
        merged: nn.Module = model.merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise ModelError(f"the adapters cannot be merged: {error}") from error
    return merged


@torch.no_grad()
def merge_plain(model: nn.Module, config: dict[str, Any], state: dict[str, torch.Tensor]) -> bool:
    """Fold the adapter tensors `state` into the weights of the bare `model`, without PEFT.

    `config` is what `adapter_config.json` holds. Returns False, with nothing changed, where it
    asks for more than W + (α/r)·B·A, as for DoRA; PEFT must do it then. Saves half a second
    of a prediction's start. `config` was checked by `check_config`.

    Raises `ModelError` unless names and shapes are exactly those the config asks for, or when a
    merged weight is not finite.
    """
    if any(config[key] for key in config.keys() - _PLAIN_KEYS) or config["bias"] != "none":
        return False
    r, alpha = config["r"], config["lora_alpha"]
    scale = alpha / r**0.5 if config.get("use_rslora") else alpha / r
    targets = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and re.fullmatch(config["target_modules"], name)
    }
    expected: dict[str, tuple[int, ...]] = {}
    for name, module in targets.items():
        expected[f"{_PREFIX}{name}.lora_A.weight"] = (r, module.in_features)
        expected[f"{_PREFIX}{name}.lora_B.weight"] = (module.out_features, r)
    _check_shapes(state, expected)
    for name, module in targets.items():
        a, b = (state[f"{_PREFIX}{name}.lora_{side}.weight"].float() for side in "AB")
        module.weight += (b @ a) * scale
        if not bool(torch.isfinite(module.weight).all()):
            raise ModelError(f"the adapters cannot be merged: {name} would not be finite")
    return True


def adapted_modules(state: dict[str, torch.Tensor]) -> frozenset[str] | None:
    """Full names of the modules that merging the adapter tensors `state` changes.

    None where there are tensors beside adapters, such as trained biases: then anywhere.
    """
    if not all(".lora_" in key for key in state):
        return None
    return frozenset(key.removeprefix(_PREFIX).split(".lora_")[0] for key in state)


def adapter_state(model: Any) -> dict[str, torch.Tensor]:
    """The adapters' tensors (and trained biases) under the names of PEFT's file format."""
    from peft import get_peft_model_state_dict

    state: dict[str, torch.Tensor] = get_peft_model_state_dict(model, save_embedding_layers=False)
    return state


def load_adapter_state(model: Any, state: dict[str, torch.Tensor]) -> None:
    """Put `state` into the adapters of `model`.

    Raises `ModelError` unless names and shapes are exactly those of the adapters there are.
    """
    from peft import set_peft_model_state_dict

    expected = {name: tuple(tensor.shape) for name, tensor in adapter_state(model).items()}
    _check_shapes(state, expected)
    set_peft_model_state_dict(model, state)


@contextmanager
def adapters_at(model: Any, strength: float) -> Iterator[None]:
    """While open, the adapters of `model` count `strength` times, in its files too.

    At 0 they are not there; in between, their product is scaled as (α/r) is. With DoRA, or with
    biases that train, only 1 is exact: see `can_be_weakened`.
    """
    config = model.peft_config["default"]
    layers = [module for module in model.modules() if hasattr(module, "lora_A")]
    before = [dict(layer.scaling) for layer in layers], config.lora_alpha
    try:
        for layer in layers:
            layer.scaling = {name: strength * value for name, value in layer.scaling.items()}
        config.lora_alpha *= strength
        yield
    finally:
        for layer, scaling in zip(layers, before[0], strict=True):
            layer.scaling = scaling
        config.lora_alpha = before[1]


def can_be_weakened(model: Any) -> bool:
    """Whether all that was learned in `model` are plain products, which a factor scales."""
    config = model.peft_config["default"]
    return not config.use_dora and config.bias == "none"


def trainable_share(model: nn.Module) -> tuple[int, int]:
    """(trainable, all) parameter counts."""
    counts = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(n for n, trains in counts if trains), sum(n for n, _ in counts)


def _check_shapes(state: dict[str, torch.Tensor], expected: dict[str, tuple[int, ...]]) -> None:
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if expected != found:
        wrong = [
            f"{name}: found {found.get(name, 'nothing')}, expected {expected.get(name, 'nothing')}"
            for name in sorted(expected.keys() | found.keys())
            if expected.get(name) != found.get(name)
        ]
        raise ModelError(f"the adapter's tensors do not fit the model:\n{listing(wrong, limit=5)}")


def _at_the_end(chosen: Sequence[str], layers: Sequence[str], count: int) -> list[str]:
    """Those of `chosen` in the last `count` numbered layers of their tower, or past them."""

    def place(name: str) -> tuple[str, int] | None:
        match = re.match(r"(\w+)\..*?layers?\.(\d+)\.", name)
        return (match[1], int(match[2])) if match else None

    depths: dict[str, int] = {}
    for tower, index in filter(None, map(place, layers)):
        depths[tower] = max(depths.get(tower, 0), index + 1)
    for tower, depth in depths.items():
        if count > depth:
            layers = counted(depth, "layer")
            raise ModelError(f"lora.last_layers: found {count}; {tower} has {layers}")
    kept = []
    for name in chosen:
        at = place(name)
        if at is None or at[1] >= depths[at[0]] - count:
            kept.append(name)
    return kept


def _pattern(chosen: Sequence[str], layers: Sequence[str]) -> str:
    """A regular expression for exactly the `chosen` of `layers`, short where all are alike.

    PEFT matches a plain list by the ends of names, in both towers at once.
    """
    parts = []
    for layer in chosen:
        # One part for every depth of the tower, if every depth was chosen.
        general = re.sub(r"\\\.\d+\\\.", r"\\.\\d+\\.", re.escape(layer))
        alike = {other for other in layers if re.fullmatch(general, other)}
        part = general if alike <= set(chosen) else re.escape(layer)
        if part not in parts:
            parts.append(part)
    return "|".join(parts)


def _no_match(name: str, layers: Sequence[str], towers: str) -> str:
    kinds: dict[str, int] = {}
    for layer in layers:
        kind = re.sub(r"\.\d+\.", ".*.", layer)
        kinds[kind] = kinds.get(kind, 0) + 1
    lines = [f"{kind.rsplit('.', 1)[-1]}   ({count}×, {kind})" for kind, count in kinds.items()]
    return (
        f"lora.target_modules: '{name}' matches no linear layer of the {towers} tower"
        f"{'s' if towers == 'both' else ''}. The linear layers there are:\n{listing(lines)}"
    )
