"""What a million photos take: measured seconds of one core for reading and for forwards, and money.

    python benchmarks/scale/costs.py                     a table for docs/scale.md; five minutes

Reading is decoding and resizing, of a photo of half a megapixel and of one of twelve, drawn and
saved as JPEG of quality 90; forwards are those of ViT-B/32 with random weights. Each on one thread.
Prices are those named in `MACHINES`: of a list, at a date.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from cliptune.data.images import Preprocess
from cliptune.inference.reader import Reader

VIT_B32 = Preprocess(
    resize=224, crop=(224, 224), resample=3, rescale=1 / 255,
    mean=(0.481, 0.458, 0.408), std=(0.269, 0.261, 0.276),
)  # fmt: skip
COUNTS = (1_000_000, 10_000_000, 100_000_000)


class Machine(NamedTuple):
    """A machine of a list, its price in dollars an hour."""

    name: str
    cores: int
    dollars: float
    gpu_rate: float | None  # forwards a second, where it has a GPU


# us-east-1, Linux, on demand: c6i.large in a list of Infracost, g5.xlarge June 2026 (FactualMinds).
# The GPU's rate is that of an RTX 3090, the same chip's larger brother, in timm's table; not ours.
MACHINES = (
    Machine("c6i.large (2 vCPU)", 2, 0.085, None),
    Machine("g5.xlarge (4 vCPU, A10G)", 4, 1.006, 5090),
)


def rate(work: Callable[[], object], each: int = 1, *, seconds: float = 8.0) -> float:
    """How often a second, after one time unmeasured."""
    work()
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        work()
        done += each
    return done / (time.perf_counter() - started)


def photo(width: int, height: int) -> bytes:
    """A JPEG with the detail of a photo: noise at several scales."""
    rng = np.random.default_rng(0)
    image = np.zeros((height, width, 3))
    for size in (8, 32, 128, 512):
        noise = Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8))
        image += np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC)) / 4
    file = io.BytesIO()
    Image.fromarray(image.astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def forwards(dtype: torch.dtype) -> float:
    """Images a second of ViT-B/32 in batches of 32, on one thread."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    model = CLIPVisionModelWithProjection(CLIPVisionConfig()).eval().to(dtype)
    pixels = torch.randn(32, 3, 224, 224, dtype=dtype)
    with torch.inference_mode():
        return rate(lambda: model(pixels), 32)


def main() -> None:
    torch.set_num_threads(1)
    reading = {}
    for name, size in (("0.5 MP", (800, 600)), ("12 MP", (4000, 3000))):
        content = photo(*size)
        for reduced in (False, True):
            reader = Reader(preprocess=VIT_B32, reduced_decoding=reduced, threads=1)
            found = rate(lambda reader=reader, content=content: reader.read(content))
            reading[name, reduced] = found
            print(f"reading {name}, {len(content) / 1e6:.1f} MB, reduced {reduced}: {found:.1f}/s")
    answering = {str(dtype)[6:]: forwards(dtype) for dtype in (torch.float32, torch.bfloat16)}
    print("forwards of ViT-B/32:", {name: f"{each:.1f}/s" for name, each in answering.items()})
    forward = max(answering.values())
    print("\n| machine | photos | a second | limit | " + " | ".join(
        f"{count // 10**6} M: hours, dollars" for count in COUNTS) + " |")  # fmt: skip
    for machine in MACHINES:
        for (name, reduced), read in reading.items():
            if machine.gpu_rate is None:
                each = machine.cores / (1 / read + 1 / forward)
                limit = "forwards" if forward < read else "reading"
            else:
                each = min(machine.cores * read, machine.gpu_rate)
                limit = "reading" if machine.cores * read < machine.gpu_rate else "the GPU"
            cells = [f"{n / each / 3600:,.1f} h, ${n / each / 3600 * machine.dollars:,.0f}"
                     for n in COUNTS]  # fmt: skip
            words = f"{name}{', reduced' if reduced else ''}"
            print(f"| {machine.name} | {words} | {each:,.0f} | {limit} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
