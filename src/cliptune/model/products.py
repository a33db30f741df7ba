"""The differentiable products of `fused`: a linear layer with adapters, and attention by a table.

Dropout draws one mask for each adapter, as PEFT does; its rate is rounded to 1/65536 on the CPU.
Shape suffixes: B batch, T tokens, N = B·T, D width, E width of a head, R rank.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable


def _once_without_autocast(backward: Any) -> Any:
    """Differentiable once; and whoever calls it inside an autocast context changes no types."""

    @functools.wraps(backward)
    def wrapped(ctx: Any, grad: torch.Tensor) -> Any:
        with torch.autocast(grad.device.type, enabled=False):
            return backward(ctx, grad)

    return once_differentiable(wrapped)


class AdaptedLinear(Function):
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
        masks = dropout_masks(x_ND, [rate for _, _, _, rate in slots])
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


class TableAttention(Function):
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


def dropout_masks(x_ND: torch.Tensor, rates: list[float]) -> list[torch.Tensor | None]:
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
