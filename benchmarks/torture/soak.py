"""Long runs must stay flat: memory, open files and threads over many updates and photos.

python benchmarks/torture/soak.py --updates 50000 --images 100000
"""

from __future__ import annotations

import argparse
import gc
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tiny import Outcome, Run, import_all, make_inputs

MIB = 2**20
ALLOWED_DRIFT = 1.0  # percent, from the end of the warm-up to the end


class Sample(NamedTuple):
    """Resident bytes, open files and threads of this process at one moment."""

    memory: int
    files: int
    threads: int


def measure() -> Sample:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    files, threads = (sum(1 for _ in Path("/proc/self", x).iterdir()) for x in ("fd", "task"))
    return Sample(pages * os.sysconf("SC_PAGE_SIZE"), files, threads)


@contextmanager
def watched(samples: list[Sample], every: float = 0.5) -> Iterator[None]:
    """Take a sample every so many seconds while the block runs."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(every):
            samples.append(measure())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def drift(samples: list[Sample]) -> tuple[float, int, int]:
    """Percent of memory gained by a straight line from a fifth of the way on; files; threads."""
    settled = samples[len(samples) // 5 :]
    memory = np.array([sample.memory for sample in settled], dtype=float)
    slope, start = np.polyfit(np.linspace(0, 1, len(memory)), memory, 1)
    files, threads = (
        max(getattr(s, name) for s in settled[-3:]) - getattr(settled[0], name)
        for name in ("files", "threads")
    )
    return 100 * slope / start, files, threads


def training_stays_flat(updates: int, folder: Path) -> Outcome:
    """That many updates of a two-layer model by `cliptune train`'s own loop."""
    import json

    from cliptune import load_settings, train

    folder = folder / "long"
    make_inputs(folder, counts={"train": 334, "val": 4, "test": 4})
    epochs = -(-updates // 501)  # 1,002 photos, two at a time
    run = Run(folder, folder / "soak", **{
        "training.num_epochs": epochs, "training.batch_size": 2,
        "training.gradient_accumulation_steps": 1, "evaluation.eval_steps": 10**9,
        "evaluation.save_steps": 10**9,
    })  # fmt: skip
    given = dict(text.split("=", 1) for text in run.arguments[2::2])
    settings = load_settings(overrides={key: json.loads(value) for key, value in given.items()})
    samples: list[Sample] = []
    with watched(samples):
        result = train(settings, progress=False)
    return _outcome(f"{result.updates:,} updates, {epochs:,} checkpoints", samples)


def prediction_stays_flat(images: int, folder: Path) -> Outcome:
    """That many predictions, of photos in files, through `Predictor.stream`."""
    from cliptune import Predictor

    make_inputs(folder)
    run = Run(folder, folder / "predictions")
    run.finish()
    predictor = Predictor(run.output, device="cpu")
    photos = sorted((folder / "data").rglob("*.png"))
    samples: list[Sample] = []
    with watched(samples):
        for _ in predictor.stream(photos[i % len(photos)] for i in range(images)):
            pass
    return _outcome(f"{images:,} predictions", samples)


def _outcome(name: str, samples: list[Sample]) -> Outcome:
    gc.collect()
    percent, files, threads = drift(samples)
    note = (
        f"{percent:+.2f} % memory of {samples[-1].memory / MIB:.0f} MiB, {files:+d} files, "
        f"{threads:+d} threads"
    )
    faults = [note] if percent >= ALLOWED_DRIFT or files > 0 or threads > 0 else []
    return Outcome(name, 1, faults, note)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=0)
    parser.add_argument("--images", type=int, default=0)
    given = parser.parse_args()
    import_all()
    with tempfile.TemporaryDirectory() as scratch:
        outcomes = []
        if given.images:
            outcomes.append(prediction_stays_flat(given.images, Path(scratch)))
        if given.updates:
            outcomes.append(training_stays_flat(given.updates, Path(scratch)))
    for outcome in outcomes:
        print(outcome.line())
    raise SystemExit(any(outcome.faults for outcome in outcomes))


if __name__ == "__main__":
    main()
