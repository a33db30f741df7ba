"""Runs killed at any moment, and disks that fail, must end as an undisturbed run does.

python benchmarks/torture/crash.py --kills 100       SIGKILL at random moments
python benchmarks/torture/crash.py --faults 200      before a given write, rename, flush ...
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
import time
from pathlib import Path

from tiny import Outcome, Run, differences, import_all, leftovers, make_inputs, with_shim

KINDS = ("kill", "torn", "enospc", "eio")


def killed_at_random(count: int, folder: Path, *, seed: int = 0) -> Outcome:
    """SIGKILL at up to three random moments of a run and its resumptions, for `count` seeds."""
    expected, seconds = _undisturbed(folder)
    faults, kills = [], 0
    for number in range(seed, seed + count):
        rng = random.Random(number)
        run = Run(folder, folder / f"killed-{number}")
        try:
            done, left = False, rng.randint(1, 3)
            while not done:
                moment = rng.uniform(0, 1.1 * seconds) if left else None
                done = run.resume(kill_after=moment)
                kills += not done
                left = max(0, left - 1)
                run.newest_update()
            _compare(run, expected)
        except AssertionError as error:
            faults.append(f"seed {number}: {error}")
        shutil.rmtree(run.place)
    return Outcome("SIGKILL at random moments, resumed", count, faults, f"{kills} kills")


def faults_at_calls(count: int, folder: Path, *, kinds: tuple[str, ...] = KINDS) -> Outcome:
    """A fault at each of `count` calls spread evenly over those that change files, by kind."""
    expected, _ = _undisturbed(folder)
    calls = int((folder / "undisturbed" / "count.txt").read_text())
    faults, tried, messages = [], 0, set()
    for kind in kinds:
        newest = 0
        for i in range(count):
            at = 1 + i * calls // count
            run = Run(folder, folder / f"{kind}-{at}")
            tried += 1
            try:
                code = run.finish(fault=(at, kind))
                reached = run.newest_update()
                assert reached >= newest, f"a good checkpoint was lost: {reached} after {newest}"
                newest = reached
                if kind in ("enospc", "eio") and code:
                    messages.add(_message(run, code))
                run.resume()
                _compare(run, expected)
            except AssertionError as error:
                faults.append(f"{kind} at call {at} of {calls}: {error}")
            shutil.rmtree(run.place)
    note = f"of {calls} calls that change files"
    note += f"; {len(messages)} different messages" if messages else ""
    return Outcome(f"a fault in the file system ({', '.join(kinds)}), resumed", tried, faults, note)


def _undisturbed(folder: Path) -> tuple[dict[str, object], float]:
    make_inputs(folder)
    run = Run(folder, folder / "undisturbed")
    shutil.rmtree(run.place)
    run = Run(folder, folder / "undisturbed")
    started = time.monotonic()
    code = run.finish(fault=(0, "count"))
    assert code == 0, run.said()
    return run.result(), time.monotonic() - started


def _compare(run: Run, expected: dict[str, object]) -> None:
    wrong = differences(run.result(), expected)
    assert not wrong, f"other than undisturbed: {', '.join(wrong)}"
    left = leftovers(run.place)
    assert not left, f"left behind: {left[:3]}"


def _message(run: Run, code: int) -> str:
    """The error a user meets: one, in words, naming the disk; no traceback."""
    said = run.said()
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert code == 1, f"exit code {code}: {said[-200:]}"
    assert "Traceback" not in said, f"a traceback: {said[-300:]}"
    assert len(errors) == 1, f"{len(errors)} errors: {said[-300:]}"
    assert "fault of cliptune" not in said, errors[0]
    assert "disk is full" in said or "input/output error" in said, errors[0]
    return errors[0].replace(str(run.place), "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--faults", type=int, default=0, help="calls of each kind")
    parser.add_argument("--kinds", nargs="*", default=KINDS, choices=KINDS)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with_shim(Path(tempfile.gettempdir(), "cliptune-torture"))
    import_all()
    with tempfile.TemporaryDirectory() as scratch:
        outcomes = []
        if given.kills:
            outcomes.append(killed_at_random(given.kills, Path(scratch), seed=given.seed))
        if given.faults:
            kinds = tuple(given.kinds)
            outcomes.append(faults_at_calls(given.faults, Path(scratch), kinds=kinds))
    for outcome in outcomes:
        print(outcome.line())
        print("".join(f"  {fault}\n" for fault in outcome.faults), end="")
    raise SystemExit(any(outcome.faults for outcome in outcomes))


if __name__ == "__main__":
    main()
