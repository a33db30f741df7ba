"""Everything that may befall a run, and what must still hold. `make torture`: under 45 minutes.

python benchmarks/torture/run.py            the whole table
python benchmarks/torture/run.py --sample   a little of each, in a minute
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import crash
import fuzz
import soak
from tiny import Outcome, import_all, with_shim

# (what, how often in full, how often in the sample)
KINDS: list[tuple[Callable[..., Outcome], int, int]] = [
    (crash.killed_at_random, 100, 2),
    (crash.faults_at_calls, 90, 1),  # of each of its kinds
    (fuzz.images, 10_000, 200),
    (fuzz.checkpoints, 2_000, 40),
    (fuzz.configs, 2_000, 100),
    (fuzz.archives, 2_000, 100),
    (soak.prediction_stays_flat, 100_000, 0),
    (soak.training_stays_flat, 50_000, 0),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", action="store_true", help="a little of each")
    parser.add_argument("--photos", type=Path, help="real photos to mutate, beside drawn ones")
    given = parser.parse_args()
    with_shim(Path(tempfile.gettempdir(), "cliptune-torture"))
    import_all()
    faults = 0
    print("| what | passed | found | time |\n|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        for torture, full, sample in KINDS:
            count = sample if given.sample else full
            if not count:
                continue
            started = time.monotonic()
            more = {"photos": given.photos} if torture is fuzz.images else {}
            outcome = torture(count, Path(scratch), **more)
            minutes, seconds = divmod(round(time.monotonic() - started), 60)
            print(f"{outcome.line()} {minutes}:{seconds:02} |", flush=True)
            print("".join(f"  {fault}\n" for fault in outcome.faults[:20]), end="", flush=True)
            faults += len(outcome.faults)
    raise SystemExit(faults > 0)


if __name__ == "__main__":
    main()
