"""The same towers in fewer operations: what `transformers` and PEFT compute, computed faster.

`fuse` replaces the encoders it knows by `FusedEncoder`, which works on the very same modules, so
that adapters, their names and their file format stay PEFT's. What is saved:

- one product for queries, keys and values, and one for their gradient; the adapters beside it;
- frozen weights held in the compute type instead of cast in every step;
- in the last layer only the token that leaves the tower, past the keys and values;
- the activation in one pass, its constant inside the products before and after it;
- no copies of activations for weights that do not train; dropout's masks made anew from bits.

Dropout draws one mask for each adapter, as PEFT does; its rate is rounded to 1/65536 on the CPU.
Shape suffixes: B batch, T tokens, N = B·T, D width, H heads, E = D/H, R rank.
"""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn.functional import gelu, layer_norm, scaled_dot_product_attention, silu

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
# Above, the table of attention weights outgrows what the blocked kernel costs more.
LONGEST_TABLE = 128


@dataclass(frozen=True)
class Adapter:
    """What an adapter adds to the columns [start, stop) of a product: scale · dropout(x)·Aᵀ·Bᵀ."""

    start: int
    stop: int
    scale: float
    dropout: float
    a_RD: torch.Tensor
    b_DR: torch.Tensor


class FusedEncoder(nn.Module):
    """A stack of pre-norm layers, in the place of the `transformers` module it was made from."""

    def __init__(self, encoder: Any, *, leaving: slice = slice(None)) -> None:
        super().__init__()
        self.config = encoder.config
        self.layers = encoder.layers  # the same modules under the same names
        self.leaving = leaving
        self._copies: dict[tuple[int, str], tuple[Any, torch.Tensor]] = {}

    def forward(
        self,
        inputs_embeds: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        is_causal: bool = False,
        **ignored: Any,
    ) -> Any:
        """The last hidden state of the leaving tokens, (B, T or 1, D), as `transformers` wraps it.

        `attention_mask`: bool (B, 1, T, T), true where a token is seen; or None.
        """
        from transformers.modeling_outputs import BaseModelOutput

        device = inputs_embeds.device.type
        dtype = inputs_embeds.dtype
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        x_BTD = inputs_embeds
        with torch.autocast(device, enabled=False):
            for i in range(len(self.layers)):
                last = i == len(self.layers) - 1
                leaving = self.leaving if last else slice(None)
                x_BTD = self._layer(i, x_BTD, dtype, attention_mask, is_causal, leaving)
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
            qkv = self._linear(i, "qkv", normed)
            mixed = _attend(qkv, attention.num_heads, mask, is_causal)
        else:
            queries = self._linear(i, "q", normed[:, leaving])
            mixed = _attend_few(queries, self._linear(i, "kv", normed), attention.num_heads, mask)
            x_BTD = x_BTD[:, leaving]
        x_BTD = x_BTD + self._linear(i, "out", mixed)
        normed = _layer_norm(x_BTD, layer.layer_norm2).to(dtype)
        if _is_quick(mlp.activation_fn):
            # silu(1.702·h)/1.702 = h·sigmoid(1.702·h): the factors cost nothing in the products.
            hidden = silu(self._linear(i, "fc1", normed, alpha=QUICK_GELU, bias_scale=QUICK_GELU))
            return x_BTD + self._linear(i, "fc2", hidden, alpha=1 / QUICK_GELU)
        hidden = _activation(mlp.activation_fn, self._linear(i, "fc1", normed))
        return x_BTD + self._linear(i, "fc2", hidden)

    def _linear(
        self, i: int, name: str, x_BTD: torch.Tensor, *, alpha: float = 1, bias_scale: float = 1
    ) -> torch.Tensor:
        """alpha·(x·Wᵀ + adapters) + bias_scale·bias of one linear layer, or several in one."""
        modules = _modules(self.layers[i], name)
        biases = [_frozen(module).bias.to(x_BTD.dtype) for module in modules]
        bias = biases[0] if len(biases) == 1 else torch.cat(biases)
        adapters, start = [], 0
        for module in modules:
            stop = start + _frozen(module).out_features
            adapters += _adapters(module, start, stop, training=self.training)
            start = stop
        return _AdaptedLinear.apply(  # type: ignore[no-any-return, no-untyped-call]
            x_BTD,
            self._weight(i, name, modules, x_BTD.dtype),
            bias if bias_scale == 1 else bias * bias_scale,
            alpha,
            [(a.start, a.stop, a.scale, a.dropout) for a in adapters],
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
        known = self._copies.get((i, name))
        if known is None or known[0] != made_from or known[1].dtype != dtype:
            with torch.inference_mode(False), torch.no_grad():
                known = made_from, torch.cat([w.detach() for w in weights]).to(dtype)
            self._copies[i, name] = known
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


def _once_without_autocast(backward: Any) -> Any:
    """Differentiable once; and whoever calls it inside an autocast context changes no types."""

    @functools.wraps(backward)
    def wrapped(ctx: Any, grad: torch.Tensor) -> Any:
        with torch.autocast(grad.device.type, enabled=False):
            return backward(ctx, grad)

    return once_differentiable(wrapped)


class _AdaptedLinear(Function):
    """alpha·x·Wᵀ + bias, plus adapters on ranges of columns. W is frozen: no gradient for it."""

    @staticmethod
    def forward(
        ctx: Any,
        x_BTD: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        alpha: float,
        slots: list[tuple[int, int, float, float]],
        *adapters: torch.Tensor,
    ) -> torch.Tensor:
        x_ND = x_BTD.reshape(-1, x_BTD.shape[-1])
        y = torch.addmm(bias, x_ND, weight.t(), alpha=alpha)
        pairs = list(zip(adapters[::2], adapters[1::2], strict=True))
        masks = _masks(x_ND, [rate for _, _, _, rate in slots])
        downs = []
        for (start, stop, scale, rate), (a, b), mask in zip(slots, pairs, masks, strict=True):
            a, b = a.to(y.dtype), b.to(y.dtype)
            dropped = x_ND if mask is None else torch.where(mask, x_ND, 0.0)
            down = dropped @ a.t()  # (N, R)
            y[:, start:stop].addmm_(down, b.t(), alpha=alpha * scale / _kept(rate, mask))
            downs.append(down)
        ctx.save_for_backward(x_ND if slots else None, weight, *downs, *masks, *adapters)
        ctx.alpha, ctx.slots, ctx.shape = alpha, slots, x_BTD.shape
        return y.view(*x_BTD.shape[:-1], -1)

    @staticmethod
    @_once_without_autocast
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        x_ND, weight, *saved = ctx.saved_tensors
        count, alpha = len(ctx.slots), ctx.alpha
        downs, masks, adapters = saved[:count], saved[count : 2 * count], saved[2 * count :]
        grad = grad.reshape(-1, grad.shape[-1])
        wanted = ctx.needs_input_grad
        grad_x = None
        if wanted[0]:
            grad_x = torch.addmm(grad.new_empty(()), grad, weight, beta=0, alpha=alpha)
        grad_bias = grad.sum(0) if wanted[2] else None
        grads: list[torch.Tensor] = []
        for i, (start, stop, scale, rate) in enumerate(ctx.slots):
            a, b, mask, part = adapters[2 * i], adapters[2 * i + 1], masks[i], grad[:, start:stop]
            factor = alpha * scale / _kept(rate, mask)
            grad_down = (part @ b.to(part.dtype)).mul_(factor)  # (N, R)
            dropped = x_ND if mask is None else torch.where(mask, x_ND, 0.0)
            grads.append((grad_down.t() @ dropped).to(a.dtype))
            grads.append((part.t() @ downs[i]).mul_(factor).to(b.dtype))
            if grad_x is not None and mask is None:
                grad_x.addmm_(grad_down, a.to(part.dtype))
            elif grad_x is not None:
                grad_x.addcmul_(grad_down @ a.to(part.dtype), mask.to(part.dtype))
        grad_x = None if grad_x is None else grad_x.view(ctx.shape)
        return grad_x, None, grad_bias, None, None, *grads


class _TableAttention(Function):
    """softmax(q·kᵀ/√E)·v by batched products in float32 at least, its table kept for backward.

    For few tokens on the CPU this is faster than the blocked kernel, whose backward is slow there.
    """

    @staticmethod
    def forward(ctx: Any, qkv_BTD3: torch.Tensor, heads: int) -> torch.Tensor:
        batch, tokens, width = qkv_BTD3.shape
        split = qkv_BTD3.view(batch, tokens, 3, heads, -1).permute(2, 0, 3, 1, 4)
        size = width // 3 // heads
        q, k, v = _at_least_float32(split).reshape(
            3, batch * heads, tokens, size
        )  # (B·H, T, E) each
        scores = torch.baddbmm(q.new_empty(()), q, k.transpose(1, 2), beta=0, alpha=size**-0.5)
        table = torch.softmax(scores, dim=-1)
        ctx.save_for_backward(q, k, v, table)
        mixed = torch.bmm(table, v).view(batch, heads, tokens, size).transpose(1, 2)
        return mixed.reshape(batch, tokens, -1).to(qkv_BTD3.dtype)

    @staticmethod
    @_once_without_autocast
    def backward(ctx: Any, grad_BTD: torch.Tensor) -> Any:
        q, k, v, table = ctx.saved_tensors
        (batch, tokens, width), size = grad_BTD.shape, q.shape[-1]
        heads = width // size
        grad = grad_BTD.view(batch, tokens, heads, size).transpose(1, 2)
        grad = _at_least_float32(grad).reshape(batch * heads, tokens, size)
        grads = q.new_empty(3, *q.shape)
        grad_table = torch.bmm(grad, v.transpose(1, 2))
        grad_scores = torch._softmax_backward_data(grad_table, table, -1, table.dtype)
        none = q.new_empty(())
        torch.baddbmm(none, grad_scores, k, beta=0, alpha=size**-0.5, out=grads[0])
        torch.baddbmm(none, grad_scores.transpose(1, 2), q, beta=0, alpha=size**-0.5, out=grads[1])
        torch.bmm(table.transpose(1, 2), grad, out=grads[2])
        grads = grads.view(3, batch, heads, tokens, size).permute(1, 3, 0, 2, 4)
        return grads.reshape(batch, tokens, -1).to(grad_BTD.dtype), None


def _at_least_float32(x: torch.Tensor) -> torch.Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _attend(
    qkv_BTD3: torch.Tensor, heads: int, mask: torch.Tensor | None, is_causal: bool
) -> torch.Tensor:
    """(B, T, D): every token's mixture of the values."""
    batch, tokens, _ = qkv_BTD3.shape
    unmasked = mask is None and not is_causal
    if unmasked and qkv_BTD3.device.type == "cpu" and tokens <= LONGEST_TABLE:
        return _TableAttention.apply(qkv_BTD3, heads)  # type: ignore[no-any-return, no-untyped-call]
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


def _masks(x_ND: torch.Tensor, rates: list[float]) -> list[torch.Tensor | None]:
    """Bool (N, D) for each rate, true where an element is kept; None where all are."""
    if not any(rates):
        return [None] * len(rates)
    if x_ND.device.type != "cpu":
        return [torch.rand_like(x_ND, dtype=torch.float32) >= r if r else None for r in rates]
    # Four masks of one byte pair each from one draw of 64 bits: a seventh of bernoulli_'s time.
    draws = torch.empty(-(-x_ND.numel() * len(rates) // 4), dtype=torch.int64).random_(
        -(2**63), None
    )
    bits = draws.view(torch.int16)[: x_ND.numel() * len(rates)].view(len(rates), *x_ND.shape)
    return [
        bits[i] >= round(rate * 2**16) - 2**15 if rate else None for i, rate in enumerate(rates)
    ]


def _kept(rate: float, mask: torch.Tensor | None) -> float:
    """The share of elements a mask keeps on average."""
    if mask is None:
        return 1.0
    return 1 - (round(rate * 2**16) / 2**16 if mask.device.type == "cpu" else rate)


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


def _adapters(module: Any, start: int, stop: int, *, training: bool) -> list[Adapter]:
    if not hasattr(module, "lora_A") or module.merged or module.disable_adapters:
        return []
    return [
        Adapter(
            start, stop, module.scaling[name],
            getattr(module.lora_dropout[name], "p", 0.0) if training else 0.0,
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
