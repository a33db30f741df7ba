"""What this machine offers, what is slow or missing on it, and what to do about it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

from cliptune._version import __version__
from cliptune.config import ModelSettings
from cliptune.files import default_cache_dir
from cliptune.language import marked, said

State = Literal["ok", "slow", "missing", "fault"]

PACKAGES = ("torch", "transformers", "peft", "accelerate", "numpy", "Pillow", "scikit-learn")
# By extra: a module that stands for it, and what it is for.
EXTRAS = {
    "serve": ("fastapi", marked("a server and its page")),
    "export": ("onnxruntime", "ONNX"),
    "tune": ("optuna", marked("a search for settings")),
    "hub": ("datasets", marked("datasets of the Hugging Face hub")),
    "ray": ("ray", marked("prediction on a cluster")),
    "s3": ("s3fs", marked("photos in buckets")),
    "wandb": ("wandb", "Weights & Biases"),
    "mlflow": ("mlflow", "MLflow"),
}
GIB = 2**30
HUB_SECONDS = 5.0


_WORDS = (
    marked("ok"), marked("slow"), marked("missing"), marked("fault"),
    marked("versions"), marked("devices"), marked("processor"), marked("memory"), marked("disk"),
    marked("extras"), marked("hub"), marked("system"), marked("cores"), marked("number format"),
    marked("products"), marked("photos decoded"), marked("in all"), marked("this folder"),
    marked("cache"), marked("base models"),
)  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `do` is what to do where `state` is not "ok".

    Its texts are English, as JSON has them, and translated where they are shown.
    """

    group: str
    name: str
    value: str
    state: State = "ok"
    do: str = ""


def examine(*, network: bool = True) -> list[Finding]:
    """Look at versions, devices, number formats, threads, memory, disks and the hub.

    Takes a few seconds, a part of them to time this machine; with `network` false nothing is asked
    of the hub. Nothing is changed but for the answer kept of whether bf16 is faster here.
    """
    looks: tuple[Callable[[], Iterator[Finding]], ...] = (
        _versions, _devices, _processor, _memory, _disks, _extras,
    )  # fmt: skip
    found = [finding for look in looks for finding in look()]
    return [*found, *_hub()] if network else found


def as_dict(findings: list[Finding]) -> dict[str, Any]:
    """What `cliptune doctor --json` prints."""
    return {"cliptune": __version__, "findings": [asdict(finding) for finding in findings]}


def _versions() -> Iterator[Finding]:
    yield Finding("versions", "cliptune", __version__)
    yield Finding("versions", "Python", f"{platform.python_version()}, {sys.executable}")
    yield Finding("versions", "system", platform.platform())
    for package in PACKAGES:
        yield Finding("versions", package, importlib.metadata.version(package))


def _devices() -> Iterator[Finding]:
    import torch

    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        value = f"{about.name}, {about.total_memory / GIB:.0f} GiB, {'bf16' if bf16 else 'fp16'}"
        yield Finding("devices", f"cuda:{index}", value)
    if torch.backends.mps.is_available():
        yield Finding("devices", "mps", marked("the GPU of this Mac, in float32"))
    if torch.cuda.is_available():
        return
    card = shutil.which("nvidia-smi")
    if card and not torch.version.cuda:
        yield Finding(
            "devices", "cuda",
            marked("an NVIDIA driver is here, and this torch was built without CUDA"), "slow",
            marked("Install the build of torch for your CUDA: https://pytorch.org/get-started"),
        )  # fmt: skip
    elif torch.version.cuda:
        yield Finding(
            "devices", "cuda",
            said("torch is built for CUDA {version} and finds no GPU", version=torch.version.cuda),
            "slow" if card else "ok",
            marked("Is the driver as new as that CUDA? nvidia-smi shows it." if card else ""),
        )  # fmt: skip
    yield Finding("devices", "cpu", marked("what training and prediction take here"))


def _processor() -> Iterator[Finding]:
    import torch
    from PIL import features

    from cliptune.model.device import bf16_is_faster

    usable = _usable_cores()
    threads = torch.get_num_threads()
    more = threads > usable
    yield Finding(
        "processor", "cores",
        said("{cores} to be used, torch takes {threads} threads", cores=usable, threads=threads),
        "slow" if more else "ok",
        said("Set OMP_NUM_THREADS={cores}.", cores=usable) if more else "",
    )  # fmt: skip
    if not torch.cuda.is_available():
        units = torch.cpu._is_avx512_bf16_supported() and bf16_is_faster()
        yield Finding(
            "processor", "number format", "bf16" if units else marked("float32: bf16 gains nothing")
        )
    alone, together = _products(1), _products(threads)
    busy = threads > 1 and together < 1.2 * alone
    yield Finding(
        "processor", "products",
        said("{all:.0f} GFLOP/s in float32, {one:.0f} by one thread", all=together, one=alone),
        "slow" if busy else "ok",
        marked("Threads gain little: other work runs here, or cores are shared." if busy else ""),
    )  # fmt: skip
    turbo = features.check_feature("libjpeg_turbo")
    yield Finding(
        "processor", "photos decoded",
        said("{count:.0f} of 500×375 a second by one thread", count=_decoded()),
        "ok" if turbo else "slow",
        "" if turbo
        else marked("This Pillow is built without libjpeg-turbo: pip install -U Pillow"),
    )  # fmt: skip


def _usable_cores() -> int:
    """Cores that this process may use: those it is bound to, and a container's quota of time."""
    bound = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if bound else os.cpu_count() or 1
    try:  # "MICROSECONDS PERIOD", or "max PERIOD"; of control groups in their second version
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return min(cores, max(1, round(int(quota) / int(period))))
    except (OSError, ValueError):
        return cores


def _products(threads: int) -> float:
    """GFLOP/s of float32 products of a ViT-B's size on so many threads; the best of some."""
    import torch

    rows, inner, columns = 1600, 768, 768
    a, b = torch.ones(rows, inner), torch.ones(inner, columns)
    before, best = torch.get_num_threads(), float("inf")
    torch.set_num_threads(threads)
    try:
        for _ in range(10):
            started = time.perf_counter()
            torch.mm(a, b)
            best = min(best, time.perf_counter() - started)
    finally:
        torch.set_num_threads(before)
    return 2 * rows * inner * columns / best / 1e9


def _decoded() -> float:
    """JPEGs of 500 × 375 pixels that one thread decodes in a second."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
    file = BytesIO()
    small.resize((500, 375), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    best = float("inf")
    for _ in range(10):
        started = time.perf_counter()
        Image.open(BytesIO(file.getvalue())).convert("RGB")
        best = min(best, time.perf_counter() - started)
    return 1 / best


def _memory() -> Iterator[Finding]:
    total = _total_memory()
    if total is not None:
        little = total < 7 * GIB
        yield Finding(
            "memory", "in all", f"{total / GIB:.0f} GiB", "slow" if little else "ok",
            marked("Training takes 2 to 5 GiB: set training.batch_size to 8." if little else ""),
        )  # fmt: skip
    shared = Path("/dev/shm")  # loading processes hand photos over through it
    if shared.is_dir():
        free = shutil.disk_usage(shared).free
        little = free < GIB // 2
        yield Finding(
            "memory", "/dev/shm", said("{size:.1f} GiB free", size=free / GIB),
            "slow" if little else "ok",
            marked(
                "Too little for loading processes: docker run --shm-size 2g, or "
                "data.num_workers: 0." if little else ""
            ),
        )  # fmt: skip


def _total_memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return None


def _disks() -> Iterator[Finding]:
    models = Path(ModelSettings().cache_dir)
    places = {"this folder": Path.cwd(), "cache": default_cache_dir(), "base models": models}
    for name, path in places.items():
        there = path.absolute()
        while not there.exists():
            there = there.parent
        free = shutil.disk_usage(there).free
        state: State = "ok"
        do = ""
        if not os.access(there, os.W_OK):
            state, do = (
                "fault",
                marked("It cannot be written to: take another with the settings, or rights."),
            )
        elif free < 5 * GIB:
            state = "slow"
            do = marked("A base model takes 0.6 GiB and up, decoded photos some GiB.")
        value = said("{path}, {size:.0f} GiB free", path=path, size=free / GIB)
        yield Finding("disk", name, value, state, do)


def _extras() -> Iterator[Finding]:
    for extra, (module, purpose) in EXTRAS.items():
        if importlib.util.find_spec(module):
            yield Finding("extras", extra, purpose)
        else:
            yield Finding("extras", extra, purpose, "missing", f"pip install 'cliptune[{extra}]'")


def _hub() -> Iterator[Finding]:
    from huggingface_hub import constants, get_session

    address = constants.ENDPOINT
    if constants.HF_HUB_OFFLINE:
        yield Finding("hub", address, marked("not asked: HF_HUB_OFFLINE is set"))
        return
    started = time.perf_counter()
    try:
        get_session().head(address, timeout=HUB_SECONDS, follow_redirects=True)
    except Exception as error:  # of whichever library huggingface_hub speaks HTTP by
        yield Finding(
            "hub", address, said("not reached: {error}", error=type(error).__name__), "slow",
            marked(
                "Base models then come from folders (model.name), a mirror (HF_ENDPOINT), or the "
                "demo."
            ),
        )  # fmt: skip
        return
    yield Finding(
        "hub", address, said("reached in {seconds:.1f} s", seconds=time.perf_counter() - started)
    )
