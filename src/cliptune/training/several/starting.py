"""As how many processes this program was started, and what is refused of it; loads no torch."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from cliptune.errors import DeviceError, UserError

if TYPE_CHECKING:
    import torch

# Who starts processes by MPI says by these how many; accelerate understands them on CPUs.
_SIZES_OF_MPI = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


JOINED = False  # set once the processes know each other, and who tells what


class Started(NamedTuple):
    """Which process this is of how many, and the same among those of this machine; from 0."""

    process: int = 0
    processes: int = 1
    local: int = 0
    locals: int = 1

    @property
    def several(self) -> bool:
        """Whether there are others."""
        return self.processes > 1


def started() -> Started:
    """As the environment tells it, in the words of torchrun; alone where it tells nothing."""

    def number(name: str, otherwise: int) -> int:
        text = os.environ.get(name, "")
        return int(text) if text.isdecimal() else otherwise

    processes = number("WORLD_SIZE", 1)
    if processes < 2:
        return Started()
    process = number("RANK", 0)
    return Started(process, processes, number("LOCAL_RANK", process), number("LOCAL_WORLD_SIZE", 1))


def is_to_tell() -> bool:
    """Whether this process tells an error: before the processes know each other, one a machine."""
    return JOINED or started().local == 0


def refuse_several(command: str) -> None:
    """Raise `UserError` where `command`, which works in one process, was started as several."""
    if started().several:
        raise UserError(
            f"{command}: started as {started().processes} processes (WORLD_SIZE), and it works in "
            f"one. Start it without torchrun or accelerate: cliptune {command} …"
        )


def refuse_fewer_than_asked(device: torch.device) -> None:
    """Raise `UserError` where several processes were asked for, and each would train alone.

    `accelerate launch --cpu` starts one process, however many it is asked for. On GPUs, accelerate
    joins those alone that LOCAL_RANK numbers.
    """
    env, line = os.environ, "torchrun --nproc_per_node 2 -m cliptune train …"
    by_mpi = any(name in env for name in _SIZES_OF_MPI)
    # What accelerate sets for one process that it was asked to start beside others, and no more.
    alone = "ACCELERATE_USE_CPU" in env and "MASTER_PORT" in env and "WORLD_SIZE" not in env
    if alone and "LOCAL_RANK" not in env and not by_mpi:
        raise UserError(
            "accelerate launch was asked for several processes and started this one alone, as it "
            f"does with --cpu and on machines without a GPU. Start them by: {line}"
        )
    if device.type != "cpu" and started().several and "LOCAL_RANK" not in env:
        raise UserError(
            f"WORLD_SIZE is {env['WORLD_SIZE']}, and LOCAL_RANK, which says which {device.type} "
            f"device is whose, is not set. Start each machine by: {line} (docs: several processes)"
        )


def refuse_too_few_devices(device: torch.device) -> None:
    """Raise `DeviceError` where this machine has more processes than GPUs."""
    if device.type != "cuda":
        return
    import torch

    found, wanted = torch.cuda.device_count(), started().locals
    if found < wanted:
        raise DeviceError(
            f"{wanted} processes were started on this machine, each with a GPU of its own, and "
            f"there are {found}. Start as many (--nproc_per_node {found}), or use --device cpu."
        )
