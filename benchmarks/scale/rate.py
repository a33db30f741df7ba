"""Photos a second by Ray on this machine against the plain loop of a process on the same cores.

    python benchmarks/scale/rate.py                                        on drawings
    python benchmarks/scale/rate.py RUN --photos FOLDER --rows 20000

The loop is `Predictor.stream` over the same rows, all cores its threads. Of Ray what counts are the
rows between the first shard that is written and the last, and beside it the whole command, with the
start of the cluster and of each actor.
"""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

import pyarrow.parquet as pq
from scale.kills import command, parser_of, write_rows
from serving.drawn import drawn

from cliptune import Predictor
from cliptune.data.image_files import find_images


def by_ray(line: list[str], output: Path, rows: int) -> tuple[float, float]:
    """Photos a second: between the first and the last shard, and of the whole command."""
    started = time.time()
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    whole = time.time() - started
    parts = sorted(output.glob("part-*"), key=lambda path: path.stat().st_mtime_ns)
    times = [path.stat().st_mtime_ns / 1e9 for path in parts]
    counts = [pq.read_metadata(path).num_rows for path in parts]
    # The first shards of all actors end together: from the third on, both ends are alike.
    return sum(counts[3:]) / (times[-1] - times[2]), rows / whole


def by_loop(predictor: Predictor, photos: list[Path], rows: int) -> float:
    started = time.perf_counter()
    done = sum(1 for _ in predictor.stream(islice(cycle(photos), rows)))
    return done / (time.perf_counter() - started)


def main() -> None:
    parser = parser_of(__doc__, rows=20_000)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        run, folder = (options.run, options.photos) if options.run else drawn(Path(scratch))
        photos = find_images(folder.absolute())
        manifest = Path(scratch, "m.parquet")
        write_rows(photos, options.rows, manifest)
        predictor = Predictor(run, device="cpu", precision=options.precision)
        by_loop(predictor, photos, 640)
        rates: list[tuple[float, float, float]] = []
        for turn in range(options.turns):
            loop = by_loop(predictor, photos, options.rows)
            output = Path(scratch, f"answers-{turn}")
            line = command(run.absolute(), manifest, output, "local", options.precision)
            steady, whole = by_ray(line, output, options.rows)
            rates.append((loop, steady, whole))
            print(f"loop {loop:.0f}, Ray {steady:.0f} ({steady / loop:.2f}), whole command "
                  f"{whole:.0f} ({whole / loop:.2f})", flush=True)  # fmt: skip
        ratio, whole = (statistics.median(row[i] / row[0] for row in rates) for i in (1, 2))
        print(f"medians: {ratio:.2f}, whole command {whole:.2f} ({options.rows:,} rows)")


if __name__ == "__main__":
    main()
