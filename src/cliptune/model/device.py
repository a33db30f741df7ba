"""Which device computes, and in which number format."""

from __future__ import annotations

import functools
import json
import logging
import platform
import time
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import get_args

import torch

from cliptune.config import Precision
from cliptune.errors import DeviceError
from cliptune.files import default_cache_dir, whole_file
from cliptune.hints import check_choice, did_you_mean

log = logging.getLogger(__name__)

# What `precision_for` answers, as torch names it.
DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


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


def precision_for(device: torch.device, asked: str = "auto") -> str:
    """What to compute in on `device`: "float32", "bf16" or "fp16".

    `auto` is bf16 where the processor computes faster in it, fp16 only on a GPU without bf16, else
    float32 and a line in the log: slow bf16 is no more exact either.

    Raises `DeviceError` for another name, and for fp16 elsewhere than on CUDA.
    """
    check_choice("precision", asked, get_args(Precision), refusal=DeviceError)
    if asked == "fp16" and device.type != "cuda":
        raise DeviceError(
            f"precision fp16 is for NVIDIA's GPUs, and this is {device.type}, which is no faster "
            "in it. Take bf16, float32 or auto."
        )
    if asked != "auto":
        return asked
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device.type == "cpu" and torch.cpu._is_avx512_bf16_supported() and bf16_is_faster():
        return "bf16"
    log.info("precision: this %s is no faster in bf16; using float32", device.type)
    return "float32"


def precision_to_answer(device: torch.device, given: str | None, *, trained_as: str) -> str:
    """`precision_for` what was `given`; without, for what the settings of training ask.

    fp16 was asked of the GPU that trained: elsewhere it means the fastest there.
    """
    if given is None:
        given = "auto" if trained_as == "fp16" and device.type != "cuda" else trained_as
    return precision_for(device, given)


def computing_in(dtype: torch.dtype | None, device: torch.device) -> AbstractContextManager[object]:
    """A context in which matrix products on `device` are of `dtype`; None changes nothing."""
    if dtype is None:
        return nullcontext()
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


@functools.cache
def bf16_is_faster() -> bool:
    """Whether this CPU multiplies matrices of a ViT-B's size clearly faster in bf16.

    The instruction does not tell: with AVX512-BF16, an AMD EPYC halves a training step by it, and
    an Intel Xeon took 1.5 to 1.8 times as long for its products (torch 2.13.0). So it is timed,
    once for each kind of processor and version of torch: the answer is kept in the user's cache
    folder, so that the next process computes in the same.
    """
    kept = default_cache_dir() / "bf16.json"
    here = f"{_processor()}, torch {torch.__version__}"
    known: dict[str, object] = {}
    with suppress(OSError, ValueError):
        read = json.loads(kept.read_text(encoding="utf-8"))
        known = read if isinstance(read, dict) else {}
    if isinstance(answer := known.get(here), bool):
        return answer
    faster = _times_bf16() > 1.2
    with suppress(OSError):  # without a folder to write to, it is timed again
        kept.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(kept) as partial:
            partial.write_text(
                json.dumps(known | {here: faster}) + "\n", encoding="utf-8", newline="\n"
            )
    return faster


def _times_bf16() -> float:
    """How many times as fast as in float32 a product is in bf16, as timed here in 0.1 s."""
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
    return best["float32"] / best["bf16"]


def _processor() -> str:
    """The kind of this machine's processor; names alone are told apart by little on servers."""
    told = ("vendor_id", "cpu family", "model", "model name", "stepping")
    with suppress(OSError):
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")[0]
        pairs = [line.partition(":") for line in first.splitlines()]
        facts = {key.strip(): value.strip() for key, _, value in pairs}
        units = [unit for unit in ("avx512_bf16", "amx_bf16") if unit in facts.get("flags", "")]
        if found := [facts[key] for key in told if key in facts]:
            return " ".join([*found, *units])
    return platform.processor() or platform.machine()
