"""Processes that were started together become one run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch

from cliptune.training.several.starting import (
    refuse_fewer_than_asked,
    refuse_too_few_devices,
    started,
)

NO_LIMIT = timedelta(days=7)  # of an exchange: who is alive is watched, not who is slow


@contextmanager
def one_fate(device: torch.device, how_to_go_on: Callable[[], str]) -> Iterator[None]:
    """While open, the processes started together are one run on devices of the kind of `device`.

    A process that is alone is left alone. `how_to_go_on` is a sentence on what can be done after
    a process died. Of an error or an end that all share, one process raises what is to be told,
    and the others `AlreadyTold`. Warnings are told once, too.

    Raises `UserError` where it was started otherwise than asked, or for GPUs that are not there.
    """
    refuse_fewer_than_asked(device)
    if not started().several:
        yield
        return
    refuse_too_few_devices(device)
    from accelerate import PartialState
    from accelerate.state import AcceleratorState

    from cliptune.training.several.fate import Fate  # not every build of torch has what it needs

    if not torch.distributed.is_initialized():
        AcceleratorState._reset_state(reset_partial_state=True)
        PartialState(cpu=device.type == "cpu", timeout=NO_LIMIT)
    with Fate(how_to_go_on):
        yield
