"""The differentiable products of `fused`: a linear layer with adapters, and attention by a table.

Each adapter has a dropout mask of its own, as in PEFT; `dropout` draws them.
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
        slots: list[tuple[int, int, float]],
        masks: list[torch.Tensor | None],
        *adapters: torch.Tensor,
    ) -> torch.Tensor:
        """`slots`: for each adapter its columns [start, stop) and scale, its dropout's included.

        `masks`: for each a bool (N, D), true where an element is kept, or None.
        """
        x_ND = x_BTD.reshape(-1, x_BTD.shape[-1])
        y = torch.addmm(bias, x_ND, weight.t(), alpha=alpha)
        pairs = list(zip(adapters[::2], adapters[1::2], strict=True))
        downs = []
        for (start, stop, scale), (a, b), mask in zip(slots, pairs, masks, strict=True):
            a, b = a.to(y.dtype), b.to(y.dtype)
            dropped = x_ND if mask is None else torch.where(mask, x_ND, 0.0)
            down = dropped @ a.t()  # (N, R)
            y[:, start:stop].addmm_(down, b.t(), alpha=alpha * scale)
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
        for i, (start, stop, scale) in enumerate(ctx.slots):
            a, b, mask, part = adapters[2 * i], adapters[2 * i + 1], masks[i], grad[:, start:stop]
            factor = alpha * scale
            grad_down = (part @ b.to(part.dtype)).mul_(factor)  # (N, R)
            dropped = x_ND if mask is None else torch.where(mask, x_ND, 0.0)
            grads.append((grad_down.t() @ dropped).to(a.dtype))
            grads.append((part.t() @ downs[i]).mul_(factor).to(b.dtype))
            if grad_x is not None and mask is None:
                grad_x.addmm_(grad_down, a.to(part.dtype))
            elif grad_x is not None:
                grad_x.addcmul_(grad_down @ a.to(part.dtype), mask.to(part.dtype))
        grad_x = None if grad_x is None else grad_x.view(ctx.shape)
        return grad_x, None, grad_bias, None, None, None, *grads


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
