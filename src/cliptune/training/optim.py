"""Parameter groups, the learning rate as a function of the update, and when to stop early."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn


def make_optimizer(
    model: nn.Module, *, learning_rate: float, weight_decay: float
) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter, arXiv 1711.05101) over the trainable parameters of `model`.

    Matrices decay; biases and other vectors do not.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=learning_rate)


def lr_factor(
    update: int, *, warmup: int, total: int, schedule: str = "cosine", num_cycles: float = 0.5
) -> float:
    """Share of the peak learning rate at `update`, counted from 0.

    Rises linearly over `warmup` updates: the first one already learns, with 1/warmup. Then
    "cosine" falls along `num_cycles` cosine waves (0.5: half a wave, to 0 at `total`), "linear"
    falls to 0 at `total`, and "constant" stays.
    """
    if update < warmup:
        return (update + 1) / warmup
    progress = (update - warmup) / max(1, total - warmup)
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(2 * math.pi * num_cycles * min(1.0, progress)))
    if schedule == "linear":
        return max(0.0, 1 - progress)
    if schedule == "constant":
        return 1.0
    raise ValueError(f"schedule {schedule!r}; expected cosine, linear or constant")


def epochs_without_gain(values: Sequence[float], min_delta: float) -> int:
    """How many of the last epochs did not beat the best value before them by `min_delta`.

    `values` are one for each epoch, the higher the better.
    """
    best, stale = -math.inf, 0
    for value in values:
        if value > best and value >= best + min_delta:
            best, stale = value, 0
        else:
            stale += 1
    return stale
