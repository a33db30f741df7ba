"""Ten million rows through `cliptune predict --engine ray`: does any process grow with the rows?

    python benchmarks/scale/memory.py --rows 10000000

A model of two layers and 32 pixels, and rows that share a thousand pictures of 8 × 8 pixels: all is
done that is done for photos, only cheaply. Memory of a process is what it alone holds (USS): of the
driver, of the largest that answers, and of the others of the cluster together, every ten seconds.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from PIL import Image
from scale.cluster import is_answering
from scale.kills import write_rows
from torture.tiny import SETTINGS, make_inputs

PICTURES = 1000


def trained(scratch: Path) -> Path:
    """A run of two layers and 32 pixels."""
    from cliptune.config import load_settings
    from cliptune.training.train import train

    make_inputs(scratch / "inputs", counts={"train": 8, "val": 8, "test": 4})
    where = {
        "model.name": str(scratch / "inputs" / "model"), "output.output_dir": str(scratch / "run"),
        "data.data_dir": str(scratch / "inputs" / "data"), "output.log_dir": str(scratch / "logs"),
    }  # fmt: skip
    return train(load_settings(overrides=SETTINGS | where), progress=False).output_dir


def pictures(folder: Path) -> list[Path]:
    """A thousand small ones."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for number in range(PICTURES):
        path = folder / f"{number:03d}.png"
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    return sorted(folder.iterdir())


def held(driver: psutil.Process) -> tuple[float, float, float]:
    """MiB of the driver, of the largest process that answers, of the others together."""
    own = driver.memory_full_info().uss
    answering, others = [0], 0
    for process in driver.children(recursive=True):
        try:
            bytes_held = process.memory_full_info().uss
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
        if is_answering(process):
            answering.append(bytes_held)
        else:
            others += bytes_held
    return own / 2**20, max(answering) / 2**20, others / 2**20


def watched(line: list[str], output: Path, rows: int) -> list[tuple[float, float, float, float]]:
    """(share of the shards written, then what `held` says), every ten seconds."""
    seen = []
    started = time.monotonic()
    with subprocess.Popen(line) as process:
        driver = psutil.Process(process.pid)
        while process.poll() is None:
            time.sleep(10)
            try:
                now = held(driver)
            except psutil.NoSuchProcess:
                break
            lists = len(list(output.glob("_rows/*.parquet")))
            share = len(list(output.glob("part-*"))) / lists if lists else 0.0
            seen.append((share, *now))
            if len(seen) % 6 == 0:
                told = "  ".join(f"{each:7.1f}" for each in now)
                print(f"{time.monotonic() - started:6.0f} s  {share:6.1%}  {told}", flush=True)
    assert process.returncode == 0
    print(f"{rows:,} rows in {time.monotonic() - started:.0f} s")
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        run = trained(Path(scratch))
        manifest, output = Path(scratch, "m.parquet"), Path(scratch, "answers")
        write_rows(pictures(Path(scratch, "pictures")), options.rows, manifest)
        line = [
            sys.executable, "-m", "cliptune", "predict", "--engine", "ray", "--checkpoint",
            str(run), "--images", str(manifest), "--output", str(output), "--ray-address", "local",
            "--precision", "float32", "--batch-size", "256",
        ]  # fmt: skip
        seen = watched(line, output, options.rows)
        print("process | after the first tenth | at half | at the end | most after the first tenth")
        after = [row for row in seen if 0.1 <= row[0] < 1]
        for place, name in enumerate(("driver", "largest that answers", "rest of the cluster"), 1):
            first, last = after[0][place], after[-1][place]
            half = min(after, key=lambda row: abs(row[0] - 0.5))[place]
            most = max(row[place] for row in after)
            print(
                f"{name} | {first:.0f} | {half:.0f} | {last:.0f} ({last / first - 1:+.1%}) | "
                f"{most:.0f}"
            )


if __name__ == "__main__":
    main()
