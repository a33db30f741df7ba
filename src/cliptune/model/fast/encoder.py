"""The same towers in fewer operations: what `transformers` and PEFT compute, computed faster.

`fuse` replaces the encoders it knows by `FusedEncoder`, which works on the very same modules, so
that adapters, their names and their file format stay PEFT's. What is saved:

- one product for queries, keys and values, and one for their gradient; the adapters beside it;
- frozen weights held in the compute type instead of cast in every step;
- in the last layer only the token that leaves the tower, past the keys and values;
- the activation in one pass, its constant inside the products before and after it;
- no activations kept for weights that do not train; dropout's masks drawn for all at once.

Shape suffixes: B batch, T tokens, D width, R rank.
"""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.functional import gelu, layer_norm, scaled_dot_product_attention, silu

from cliptune.model.dropout import PhotoDropout, PhotoKeys, dropout_masks
from cliptune.model.fast.products import AdaptedLinear, TableAttention
from cliptune.model.fast.recorded import Recorder

log = logging.getLogger(__name__)

# Encoder layers whose forward is the one below, with the tokens that leave the tower's last layer
# by the tower they stand in.
LAYERS = frozenset({"CLIPEncoderLayer", "ChineseCLIPVisionLayer", "SiglipEncoderLayer"})
LEAVING = {
    "CLIPVisionModel": slice(0, 1),
    "ChineseCLIPVisionModel": slice(0, 1),
    "SiglipTextModel": slice(-1, None),
}
QUICK_GELU = 1.702  # Hendrycks & Gimpel, arXiv 1606.08415: x·sigmoid(1.702·x)
# Above so many tokens torch's blocked kernel is as fast in float32 as a table of weights.
LONGEST_TABLE = 128


@dataclass(frozen=True)
class Adapter:
    """What an adapter adds to the columns [start, stop) of a product: scale · dropout(x)·Aᵀ·Bᵀ."""

    start: int
    stop: int
    scale: float
    dropout: PhotoDropout | None
    a_RD: torch.Tensor
    b_DR: torch.Tensor


@dataclass
class LayerStates:
    """An argument of one forward: the states before the layer `depth`, (B, T, D).

    Where they are `known`, the forward starts from them, whatever its input; else it leaves them.
    """

    depth: int
    known: torch.Tensor | None = None
    left: torch.Tensor | None = None


class FusedEncoder(nn.Module):
    """A stack of pre-norm layers, in the place of the `transformers` module it was made from."""

    def __init__(self, encoder: Any, *, leaving: slice = slice(None)) -> None:
        super().__init__()
        self.config = encoder.config
        self.layers = encoder.layers  # the same modules under the same names
        self.leaving = leaving
        self.recorder: Recorder | None = None  # of training on a GPU
        self._copies: dict[tuple[int, str, torch.dtype], tuple[Any, torch.Tensor]] = {}

    def forward(
        self,
        inputs_embeds: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        is_causal: bool = False,
        states: LayerStates | None = None,
        **ignored: Any,
    ) -> Any:
        """The last hidden state of the leaving tokens, (B, T or 1, D), as `transformers` wraps it.

        `attention_mask`: bool (B, 1, T, T), true where a token is seen; or None.
        `states` of a layer below are taken up or left.
        """
        from transformers.modeling_outputs import BaseModelOutput

        device = inputs_embeds.device.type
        dtype = inputs_embeds.dtype
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)

        def layers(
            x_BTD: torch.Tensor, mask: torch.Tensor | None, *, start: int, end: int
        ) -> torch.Tensor:
            for i in range(start, end):
                leaving = self.leaving if i == len(self.layers) - 1 else slice(None)
                x_BTD = self._layer(i, x_BTD, dtype, mask, is_causal, leaving)
            return x_BTD

        start, x_BTD = 0, inputs_embeds
        with torch.autocast(device, enabled=False):
            if states is not None and states.known is not None:
                start, x_BTD = states.depth, states.known
            elif states is not None:
                x_BTD = layers(x_BTD, attention_mask, start=0, end=states.depth)
                start, states.left = states.depth, x_BTD.detach()
            upper = functools.partial(layers, start=start, end=len(self.layers))
            if self.recorder is not None and self.training and torch.is_grad_enabled():
                trained = [p for p in self.layers[start:].parameters() if p.requires_grad]
                x_BTD = self.recorder.run(
                    upper, x_BTD, attention_mask, trained=trained, kind=(start, dtype, is_causal)
                )
            else:
                x_BTD = upper(x_BTD, attention_mask)
        return BaseModelOutput(last_hidden_state=x_BTD)

    def _layer(
        self,
        i: int,
        x_BTD: torch.Tensor,
        dtype: torch.dtype,
        mask: torch.Tensor | None,
        is_causal: bool,
        leaving: slice,
    ) -> torch.Tensor:
        layer = self.layers[i]
        attention, mlp = layer.self_attn, layer.mlp
        normed = _layer_norm(x_BTD, layer.layer_norm1).to(dtype)
        if leaving == slice(None):
            first = 0
            qkv = self._linear(i, "qkv", normed)
            mixed = _attend(qkv, attention.num_heads, mask, is_causal)
        else:
            first = range(x_BTD.shape[1])[leaving].start
            queries = self._linear(i, "q", normed[:, leaving], first=first)
            mixed = _attend_few(queries, self._linear(i, "kv", normed), attention.num_heads, mask)
            x_BTD = x_BTD[:, leaving]
        x_BTD = x_BTD + self._linear(i, "out", mixed, first=first)
        normed = _layer_norm(x_BTD, layer.layer_norm2).to(dtype)
        if _is_quick(mlp.activation_fn):
            # silu(1.702·h)/1.702 = h·sigmoid(1.702·h): the factors cost nothing in the products.
            q = QUICK_GELU
            hidden = silu(self._linear(i, "fc1", normed, first=first, alpha=q, bias_scale=q))
            return x_BTD + self._linear(i, "fc2", hidden, first=first, alpha=1 / q)
        hidden = _activation(mlp.activation_fn, self._linear(i, "fc1", normed, first=first))
        return x_BTD + self._linear(i, "fc2", hidden, first=first)

    def _linear(
        self,
        i: int,
        name: str,
        x_BTD: torch.Tensor,
        *,
        first: int = 0,
        alpha: float = 1,
        bias_scale: float = 1,
    ) -> torch.Tensor:
        """alpha·(x·Wᵀ + adapters) + bias_scale·bias of one linear layer, or several in one.

        `x_BTD` begins at the token `first` of what the layer before gave.
        """
        modules = _modules(self.layers[i], name)
        biases = [_frozen(module).bias.to(x_BTD.dtype) for module in modules]
        bias = biases[0] if len(biases) == 1 else torch.cat(biases)
        adapters, start = [], 0
        for module in modules:
            stop = start + _frozen(module).out_features
            adapters += _adapters(module, start, stop)
            start = stop
        masks = dropout_masks([a.dropout for a in adapters], x_BTD, first=first)
        slots = [(a.start, a.stop, a.scale) for a in adapters]
        for at, (adapter, mask) in enumerate(zip(adapters, masks, strict=True)):
            if adapter.dropout is not None and mask is not None:
                slots[at] = (adapter.start, adapter.stop, adapter.scale / adapter.dropout.kept)
        return AdaptedLinear.apply(  # type: ignore[no-any-return, no-untyped-call]
            x_BTD,
            self._weight(i, name, modules, x_BTD.dtype),
            bias if bias_scale == 1 else bias * bias_scale,
            alpha,
            slots,
            masks,
            *(tensor for a in adapters for tensor in (a.a_RD, a.b_DR)),
        )

    def _weight(self, i: int, name: str, modules: list[Any], dtype: torch.dtype) -> torch.Tensor:
        """The frozen weights of `modules` in one tensor of `dtype`; copied once where need be."""
        weights = [_frozen(module).weight for module in modules]
        if len(weights) == 1 and weights[0].dtype == dtype:
            return weights[0].detach()
        made_from = [
            (w.data_ptr(), w.device, 0 if w.is_inference() else w._version) for w in weights
        ]
        # One for each type: a recorded step goes on reading the one it was recorded with.
        known = self._copies.get((i, name, dtype))
        if known is None or known[0] != made_from:
            with torch.inference_mode(False), torch.no_grad():
                known = made_from, torch.cat([w.detach() for w in weights]).to(dtype)
            self._copies[i, name, dtype] = known
        return known[1]


def fuse(model: Any) -> list[str]:
    """Put a `FusedEncoder` into each tower of `model` where it computes the same.

    `model` is a dual encoder, wrapped by PEFT or not. Returns the names of the towers that stay as
    they are: with DoRA, unknown layers, or an output that does not agree.
    """
    inner = model.base_model.model if hasattr(model, "peft_config") else model
    plain = []
    for name in ("vision_model", "text_model"):
        tower: Any = getattr(inner, name, None)
        encoder = getattr(tower, "encoder", None)
        if isinstance(encoder, FusedEncoder):
            continue
        if encoder is None or not all(map(_known, getattr(encoder, "layers", [None]))):
            plain.append(name)
            continue
        fused = FusedEncoder(encoder, leaving=LEAVING.get(type(tower).__name__, slice(None)))
        if _agree(fused):
            tower.encoder = fused
        else:  # another version of transformers may compute something else
            log.warning("%s: the fused encoder does not agree with transformers'; not used", name)
            plain.append(name)
    return plain


def record(model: Any, keys: PhotoKeys) -> None:
    """Let the fused towers of `model` replay their training steps as CUDA graphs (`recorded`).

    `keys` are those that the model's dropouts draw by. To be called once the model is on its GPU.
    """
    for name, encoder in _fused(model):
        encoder.recorder = Recorder(keys, tower="text" if name == "text_model" else "vision")


def stop_recording(model: Any) -> None:
    """Compute as ever from now on, and free the memory of what was recorded."""
    for _, encoder in _fused(model):
        if encoder.recorder is not None:
            encoder.recorder.stop()


def _fused(model: Any) -> list[tuple[str, FusedEncoder]]:
    inner = model.base_model.model if hasattr(model, "peft_config") else model
    towers = [(name, getattr(inner, name, None)) for name in ("vision_model", "text_model")]
    encoders = [(name, getattr(tower, "encoder", None)) for name, tower in towers]
    return [(name, each) for name, each in encoders if isinstance(each, FusedEncoder)]


def _attend(
    qkv_BTD3: torch.Tensor, heads: int, mask: torch.Tensor | None, is_causal: bool
) -> torch.Tensor:
    """(B, T, D): every token's mixture of the values."""
    batch, tokens, _ = qkv_BTD3.shape
    by_table = tokens <= LONGEST_TABLE or qkv_BTD3.dtype == torch.bfloat16
    if by_table and mask is None and not is_causal and qkv_BTD3.device.type == "cpu":
        return TableAttention.apply(qkv_BTD3, heads)  # type: ignore[no-any-return, no-untyped-call]
    q, k, v = qkv_BTD3.view(batch, tokens, 3, heads, -1).permute(2, 0, 3, 1, 4).unbind()
    mixed = scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=is_causal and mask is None
    )
    return mixed.transpose(1, 2).reshape(batch, tokens, -1)


def _attend_few(
    q_BTD: torch.Tensor, kv_BTD2: torch.Tensor, heads: int, mask: torch.Tensor | None
) -> torch.Tensor:
    """(B, T', D): the mixture of the values for a few queries of the tower, without causality."""
    batch, few, width = q_BTD.shape
    q = q_BTD.view(batch, few, heads, -1).transpose(1, 2)
    k, v = kv_BTD2.view(batch, -1, 2, heads, width // heads).permute(2, 0, 3, 1, 4).unbind()
    mixed = scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return mixed.transpose(1, 2).reshape(batch, few, -1)


def _modules(layer: Any, name: str) -> list[Any]:
    attention = layer.self_attn
    return {
        "qkv": lambda: [attention.q_proj, attention.k_proj, attention.v_proj],
        "q": lambda: [attention.q_proj],
        "kv": lambda: [attention.k_proj, attention.v_proj],
        "out": lambda: [attention.out_proj],
        "fc1": lambda: [layer.mlp.fc1],
        "fc2": lambda: [layer.mlp.fc2],
    }[name]()


def _frozen(module: Any) -> nn.Linear:
    """The linear layer below an adapter, or `module` itself."""
    base: nn.Linear = getattr(module, "base_layer", module)
    return base


def _adapters(module: Any, start: int, stop: int) -> list[Adapter]:
    if not hasattr(module, "lora_A") or module.merged or module.disable_adapters:
        return []
    return [
        Adapter(
            start, stop, module.scaling[name],
            dropout if isinstance(dropout := module.lora_dropout[name], PhotoDropout) else None,
            module.lora_A[name].weight, module.lora_B[name].weight,
        )
        for name in module.active_adapters if name in module.lora_A
    ]  # fmt: skip


def _known(layer: Any) -> bool:
    """Whether `FusedEncoder` computes what `layer` does."""
    if type(layer).__name__ not in LAYERS or layer.self_attn.dropout:
        return False
    modules = [m for name in ("qkv", "out", "fc1", "fc2") for m in _modules(layer, name)]
    return all(
        type(_frozen(module)) is nn.Linear
        and _frozen(module).bias is not None
        and not _frozen(module).weight.requires_grad
        and not getattr(module, "lora_variant", None)  # DoRA and its kin compute something else
        and not any(getattr(module, "lora_bias", {}).values())
        and not any(type(d) is nn.Dropout for d in getattr(module, "lora_dropout", {}).values())
        for module in modules
    )


@torch.no_grad()
def _agree(fused: FusedEncoder) -> bool:
    """Whether the first layer gives on random tokens what `transformers` gives."""
    weight = _frozen(fused.layers[0].mlp.fc1).weight
    if weight.is_meta:
        return True
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, weight.shape[1], generator=generator).to(weight.device, weight.dtype)
    was_training = fused.layers.training
    fused.eval()
    expected = fused.layers[0](x, None)
    found = fused._layer(0, x, x.dtype, None, False, slice(None))
    fused.train(was_training)
    if not bool(torch.isfinite(expected).all()):
        return False  # no comparison to be had; whoever predicts with it finds out
    return torch.allclose(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


def _layer_norm(x: torch.Tensor, norm: nn.LayerNorm) -> torch.Tensor:
    return layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def _is_quick(activation: nn.Module) -> bool:
    return type(activation).__name__ == "QuickGELUActivation"


def _activation(activation: Any, x: torch.Tensor) -> torch.Tensor:
    if type(activation).__name__ == "GELUTanh":
        return gelu(x, approximate="tanh")
    result: torch.Tensor = activation(x)
    return result
