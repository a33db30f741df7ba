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

from cliptune.model.dropout import kept

# Cells of the tables that are worked on at a time, so that they stay in the processor's cache.
CELLS = 2**20
# Above so many tokens tables are computed again in backward, so that memory grows with the tokens
# and not with their square. Again costs a fifth of the attention's time.
LONGEST_KEPT = 300


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

        `masks`: for each an int16 (N, D) of `dropout_masks`, or None.
        """
        x_ND = x_BTD.reshape(-1, x_BTD.shape[-1])
        y = torch.addmm(bias, x_ND, weight.t(), alpha=alpha)
        pairs = list(zip(adapters[::2], adapters[1::2], strict=True))
        downs = []
        for (start, stop, scale), (a, b), mask in zip(slots, pairs, masks, strict=True):
            a, b = a.to(y.dtype), b.to(y.dtype)
            dropped = x_ND if mask is None else kept(x_ND, mask)
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
            dropped = x_ND if mask is None else kept(x_ND, mask)
            grads.append((grad_down.t() @ dropped).to(a.dtype))
            grads.append((part.t() @ downs[i]).mul_(factor).to(b.dtype))
            if grad_x is not None and mask is None:
                grad_x.addmm_(grad_down, a.to(part.dtype))
            elif grad_x is not None:
                grad_x.add_(kept(grad_down @ a.to(part.dtype), mask))
        grad_x = None if grad_x is None else grad_x.view(ctx.shape)
        return grad_x, None, grad_bias, None, None, None, *grads


class TableAttention(Function):
    """softmax(q·kᵀ/√E)·v by batched products, whose backward is slow in the blocked kernel on CPUs.

    Products are in the type of the input, but for scores, whose rounding the exponential would
    magnify: they, and the sums, are in float32 at least.
    """

    @staticmethod
    def forward(ctx: Any, qkv_BTD3: torch.Tensor, heads: int) -> torch.Tensor:
        batch, tokens, width = qkv_BTD3.shape
        size = width // 3 // heads
        split = qkv_BTD3.view(batch, tokens, 3, heads, size).permute(2, 0, 3, 1, 4)
        q, k, v = split.reshape(3, batch * heads, tokens, size)  # (B·H, T, E) each
        mixed, tables = torch.empty_like(q), []
        for at in _pieces(q):
            table = _table(q[at], k[at])
            torch.bmm(table, v[at], out=mixed[at])
            if tokens <= LONGEST_KEPT:
                tables.append(table)
        ctx.save_for_backward(q, k, v, *tables)
        mixed = mixed.view(batch, heads, tokens, size).transpose(1, 2)
        return mixed.reshape(batch, tokens, -1)

    @staticmethod
    @_once_without_autocast
    def backward(ctx: Any, grad_BTD: torch.Tensor) -> Any:
        q, k, v, *tables = ctx.saved_tensors
        (batch, tokens, width), size = grad_BTD.shape, q.shape[-1]
        heads = width // size
        grad = grad_BTD.view(batch, tokens, heads, size).transpose(1, 2)
        grad = grad.reshape(batch * heads, tokens, size)
        grads = q.new_empty(3, *q.shape)
        none = q.new_empty(())
        for i, at in enumerate(_pieces(q)):
            table = tables[i] if tables else _table(q[at], k[at])
            grad_table = torch.bmm(grad[at], v[at].transpose(1, 2))
            by_score = torch._softmax_backward_data(grad_table, table, -1, table.dtype)
            scale = size**-0.5
            torch.baddbmm(none, by_score, k[at], beta=0, alpha=scale, out=grads[0, at])
            by_key = by_score.transpose(1, 2)
            torch.baddbmm(none, by_key, q[at], beta=0, alpha=scale, out=grads[1, at])
            torch.bmm(table.transpose(1, 2), grad[at], out=grads[2, at])
        grads = grads.view(3, batch, heads, tokens, size).permute(1, 3, 0, 2, 4)
        return grads.reshape(batch, tokens, -1), None


def _pieces(q: torch.Tensor) -> list[slice]:
    """Parts of the heads of all photos whose tables fit the cache together."""
    count, tokens, _ = q.shape
    size = max(1, CELLS // tokens**2)
    return [slice(start, start + size) for start in range(0, count, size)]


def _table(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """(·, T, T) attention weights of some heads."""
    exact = torch.promote_types(q.dtype, torch.float32)
    keys = k.to(exact).transpose(1, 2)
    scores = torch.baddbmm(keys.new_empty(()), q.to(exact), keys, beta=0, alpha=q.shape[-1] ** -0.5)
    return torch.softmax(scores, dim=-1).to(q.dtype)
