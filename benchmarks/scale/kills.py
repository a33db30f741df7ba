"""Many photos over three nodes that do not last: a node or an actor is killed every few seconds,
the driver twice. At the end each id must be there once, and each row as one process answers it.

    python benchmarks/scale/kills.py                                        on drawings
    python benchmarks/scale/kills.py RUN --photos FOLDER --rows 100000

The rows share the photos below FOLDER, in turns. Answers of one process, in the same batches, are
what rows are compared with; `--every` is the time between two kills in seconds.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import torch
from scale.cluster import Nodes, nodes
from serving.drawn import drawn

from cliptune import Predictor
from cliptune.data.image_files import find_images

COLUMNS = ["id", "path", "label", "probability", "labels", "probabilities", "known", "known_score"]


def write_rows(photos: list[Path], rows: int, path: Path) -> None:
    """A manifest of `rows` rows that share `photos`, with ids that are no row numbers."""
    names = [str(photo) for photo in islice(cycle(photos), rows)]
    ids = pa.array((7 * row + 3 for row in range(rows)), pa.int64())
    pq.write_table(pa.table({"path": names, "id": ids}), path)


def command(run: Path, manifest: Path, output: Path, address: str, precision: str) -> list[str]:
    return [
        sys.executable, "-m", "cliptune", "predict", "--engine", "ray", "--checkpoint", str(run),
        "--images", str(manifest), "--output", str(output), "--ray-address", address,
        "--precision", precision,
    ]  # fmt: skip


def disturb(
    running: Nodes, line: list[str], output: Path, *, every: float, drivers: int, log: Path
) -> dict:
    """Run the command to its end while things die; what was killed how often, and the seconds."""
    killed = {"nodes": 0, "actors": 0, "drivers": 0}
    rng = random.Random(0)
    started = time.monotonic()
    while True:
        with log.open("ab") as file:
            driver = subprocess.Popen(line, stdout=file, stderr=file)
        kills = 0
        while True:
            try:
                code = driver.wait(every)
                break
            except subprocess.TimeoutExpired:
                pass
            kills += 1
            place = rng.randrange(len(running.nodes))
            if kills >= 5 and killed["drivers"] < drivers:
                killed["drivers"] += 1
                os.kill(driver.pid, signal.SIGKILL)
                code = driver.wait()
                break
            if rng.random() < 0.5:
                running.kill_node(place)
                killed["nodes"] += 1
            else:
                killed["actors"] += running.kill_actor(place)
            parts = len(list(output.glob("part-*.parquet")))
            print(f"{time.monotonic() - started:6.0f} s  {killed}  {parts} parts", flush=True)
        if code != -signal.SIGKILL:
            assert code == 0, f"the command ended with {code}: {log}"
            return {**killed, "seconds": round(time.monotonic() - started)}


def compare(run: Path, output: Path, photos: list[Path], rows: int, precision: str) -> str:
    """Each id once, and no row other than one process gives it, in the batches it was in."""
    table = pyarrow.dataset.dataset(output).to_table().sort_by("id")
    ids = table["id"].to_numpy()
    assert np.array_equal(ids, 7 * np.arange(rows) + 3), "not each id once"
    torch.set_num_threads(1)
    predictor = Predictor(run, device="cpu", precision=precision)
    # As the batches are cut by 32, they come again after the least common multiple of both.
    period = min(rows, len(photos) * predictor.batch_size)
    answers = list(predictor.stream(islice(cycle(photos), period)))
    labels = table["label"].to_pylist()
    probabilities = table["probabilities"].to_pylist()
    wrong = worst = same = 0
    for row in range(rows):
        answer = answers[row % period]
        wrong += answer.label != labels[row]
        differs = max(
            abs(score.probability - p)
            for score, p in zip(answer.scores, probabilities[row], strict=True)
        )
        worst, same = max(worst, differs), same + (differs == 0)
    return f"{rows:,} ids once, {wrong} wrong labels, {same:,} rows to the bit, at most {worst:.1e}"


def parser_of(description: str | None, *, rows: int) -> argparse.ArgumentParser:
    """What says on which run and photos, and how many rows, is measured."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--rows", type=int, default=rows)
    parser.add_argument("--precision", default="float32")
    return parser


def main() -> None:
    parser = parser_of(__doc__, rows=100_000)
    parser.add_argument("--every", type=float, default=20)
    parser.add_argument("--drivers", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        run, folder = (options.run, options.photos) if options.run else drawn(Path(scratch))
        photos = find_images(folder.absolute())
        manifest, output = Path(scratch, "m.parquet"), Path(scratch, "answers")
        write_rows(photos, options.rows, manifest)
        with nodes(3) as running:
            line = command(run.absolute(), manifest, output, running.address, options.precision)
            log = Path(scratch, "log")
            try:
                killed = disturb(
                    running, line, output, every=options.every, drivers=options.drivers, log=log
                )
            finally:
                print(log.read_text(encoding="utf-8", errors="replace")[-3000:])
        print(killed, f"{options.rows / killed['seconds']:.1f} rows/s")
        print(compare(run, output, photos, options.rows, options.precision))


if __name__ == "__main__":
    main()
