"""What the processes of one run give each other; with one process, nothing is done.

Each has whole copies of the weights. A batch is shared out photo by photo, uneven where it does
not divide, and nothing is counted twice: gradients and figures are sums, divided by what all have.

Shape suffixes: N photos.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from torch import distributed, nn

from cliptune.data.reading import Unreadable, find_unreadable
from cliptune.foreign_errors import LoadingError
from cliptune.model.classifier import Predictions
from cliptune.training.several.starting import started

T = TypeVar("T")


class LoadingErrorElsewhere(LoadingError):
    """Another process of the run could not load its photos, and says so."""


def are_several() -> bool:
    """Whether this process has joined others."""
    return distributed.is_available() and distributed.is_initialized() and _world() > 1


def is_first() -> bool:
    """Whether this process is the one that writes and tells."""
    return not are_several() or distributed.get_rank() == 0


def of_the_first(value: T) -> T:
    """The first process's `value`, in all: what must not differ by a rounding or a moment."""
    return by_the_first(lambda: value)


def by_the_first(act: Callable[[], T]) -> T:
    """What `act` gives in the first process, in all: they wait, however long it takes."""
    if not are_several():
        return act()
    agreed: list[T | None] = broadcast_object_list([act() if is_first() else None])
    return cast(T, agreed[0])


def of_all(value: T) -> list[T]:
    """Each process's `value`, in their order."""
    gathered: list[T] = gather_object([value]) if are_several() else [value]
    return gathered


def summed(numbers: Sequence[float]) -> list[float]:
    """Each of `numbers`, summed over the processes."""
    if not are_several():
        return list(numbers)
    # Neither NCCL nor gloo takes what is on Apple's GPUs, where there is one process.
    sums = torch.tensor(numbers, dtype=torch.float64, device=PartialState().device)
    distributed.all_reduce(sums)
    found: list[float] = sums.tolist()
    return found


def all_could_load(error: LoadingError | None) -> None:
    """Raise `error`, or `LoadingErrorElsewhere` where another process has one.

    So all leave off at the same place, and can save.
    """
    failed = summed([float(error is not None)])[0]
    if error is not None:
        raise error
    if failed:
        raise LoadingErrorElsewhere("in another process of this run")


def sum_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Give each parameter the sum of the processes' gradients; None where none of them has one.

    All in one exchange: adapters and head are small.
    """
    if not are_several():
        return
    has_one = [p.grad is not None for p in parameters]
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    known = torch.tensor(has_one, dtype=torch.float32, device=grads[0].device)
    flat = torch.cat([known, *(grad.float().flatten() for grad in grads)])
    distributed.all_reduce(flat)
    counts, *parts = torch.split(flat, [len(parameters), *(p.numel() for p in parameters)])
    for parameter, count, part in zip(parameters, counts.tolist(), parts, strict=True):
        summed_up = part.view_as(parameter).to(parameter.dtype)
        parameter.grad = summed_up.clone() if count else None


@torch.no_grad()
def as_the_first_has(tensors: Sequence[torch.Tensor]) -> None:
    """Overwrite `tensors` with those of the first process: other processors may draw others."""
    if are_several():
        for tensor in tensors:
            distributed.broadcast(tensor, src=0)


def together(said: Predictions) -> Predictions:
    """What all processes said of their photos, in the order of the photos' places."""
    if not are_several():
        return said
    every = of_all(said)
    indices_N = np.concatenate([each.indices for each in every])
    order_N = np.argsort(indices_N, kind="stable")
    there = [each for each in every if len(each.indices)] or every[:1]  # others know no widths
    return Predictions(
        logits=[np.concatenate(x)[order_N] for x in zip(*(p.logits for p in every), strict=True)],
        features=[
            np.concatenate(x)[order_N] for x in zip(*(p.features for p in there), strict=True)
        ],
        labels=np.concatenate([each.labels for each in every])[order_N],
        indices=indices_N[order_N],
        unreadable=[fault for each in every for fault in each.unreadable],
    )


def unreadable_of(paths: Sequence[Path], *, progress: bool) -> list[Unreadable]:
    """As `find_unreadable`: the processes of each machine share out that machine's files."""
    if not are_several():
        return find_unreadable(paths, progress=progress)
    here = started()
    mine = paths[here.local % here.locals :: here.locals]
    faults = find_unreadable(mine, progress=progress and is_first())
    by_path = {fault.path: fault for each in of_all(faults) for fault in each}
    return [by_path[path] for path in paths if path in by_path]


def _world() -> int:
    return int(distributed.get_world_size())
