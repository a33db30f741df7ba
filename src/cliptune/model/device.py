"""Which device computes, and in which number format."""

from __future__ import annotations

import functools
import logging
import time

import torch

from cliptune.errors import DeviceError
from cliptune.hints import did_you_mean

log = logging.getLogger(__name__)


def resolve_device(name: str) -> torch.device:
    """The torch device for `name`: auto, cpu, cuda or mps. Auto takes cuda, then mps, then cpu.

    Raises `DeviceError` when the device asked for is not there.
    """
    available = ["cpu"]
    if torch.backends.mps.is_available():
        available.insert(0, "mps")
    if torch.cuda.is_available():
        available.insert(0, "cuda")
    if name == "auto":
        return torch.device(available[0])
    if name not in available:
        built = "" if name != "cuda" or torch.version.cuda else " This build of torch has no CUDA."
        raise DeviceError(
            f"device '{name}' is not available on this machine.{built} "
            f"Available: {', '.join(available)}.{did_you_mean(name, ['auto', *available])} Use "
            "--device auto to take the best of them."
        )
    return torch.device(name)


def precision_for(device: torch.device, *, mixed: bool) -> str:
    """The mixed precision of `accelerate` for `device`: "bf16", "fp16" or "no".

    bf16 where the processor computes faster in it, fp16 only on a GPU without bf16, else fp32 and
    a line in the log: slow bf16 is no more exact either.
    """
    if not mixed:
        return "no"
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device.type == "cpu" and torch.cpu._is_avx512_bf16_supported() and bf16_is_faster():
        return "bf16"
    log.info("mixed precision: this %s is no faster in bf16; using float32", device.type)
    return "no"


@functools.cache
def bf16_is_faster() -> bool:
    """Whether this CPU multiplies matrices of a ViT-B's size clearly faster in bf16, as timed here.

    The instruction does not tell: with AVX512-BF16, an AMD EPYC halved a training step by it, and
    an Intel Xeon took 1.5 to 1.8 times as long for its products (torch 2.13.0).
    """
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(512, 768, generator=generator) for _ in range(2))
    kinds = {"float32": (a, b), "bf16": (a.bfloat16(), b.bfloat16())}
    best = dict.fromkeys(kinds, float("inf"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two that wait for each other on a busy machine time its business
    try:
        for _ in range(15):  # in turns; whatever else the machine does, it is idle once
            for kind, (left, right) in kinds.items():
                started = time.perf_counter()
                torch.nn.functional.linear(left, right)
                best[kind] = min(best[kind], time.perf_counter() - started)
    finally:
        torch.set_num_threads(threads)
    return best["float32"] > 1.2 * best["bf16"]
