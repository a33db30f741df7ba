"""Training in several processes beside one: how far losses differ, and what kills leave.

    python benchmarks/scale/processes.py                                      on drawings
    python benchmarks/scale/processes.py PHOTOS MODEL [--processes 2 4] [--moments 20]

PHOTOS has train/ and val/, MODEL is a folder or a name on the hub. Processes are started by
torchrun on this machine and exchange by gloo, in float32 on CPUs, with dropout.

First row: an epoch with one process and with several, the loss of each update, of the epoch and of
val; the largest difference. Second row: one of two processes is killed (kill -9) at moments spread
evenly over a short run, with `--each` photos of each class, a fifth of them before its first
checkpoint; `--resume` goes on, and the weights at the end are compared with those of a run that
nobody disturbed.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from safetensors.numpy import load_file

Running = subprocess.Popen[bytes]
SHORT = {"training.num_epochs": 2, "evaluation.save_steps": 3, "evaluation.eval_steps": 5}


@dataclass(frozen=True)
class Work:
    """What is trained: settings by their dotted names."""

    photos: Path
    model: str
    settings: dict[str, object]

    def line(self, output: Path, *more: str) -> list[str]:
        """The command line after `python`."""
        settings = {
            "model.name": self.model, "data.data_dir": self.photos, "data.num_workers": 0,
            "training.min_updates": 0, "evaluation.logging_steps": 1, "hardware.device": "cpu",
            "hardware.mixed_precision": "false", "output.output_dir": output,
            "output.log_dir": output.with_name(f"{output.name}-logs"),
            "output.save_total_limit": 100,
        } | self.settings  # fmt: skip
        given = [x for key, value in settings.items() for x in ("--set", f"{key}={value}")]
        return ["-m", "cliptune", "train", *given, *more]


@contextmanager
def training(line: Sequence[str], *, processes: int, log: Path) -> Iterator[Running]:
    """Python with `line` in one process, or in several by torchrun; ended at the end."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command = [sys.executable, *(torchrun if processes > 1 else []), *line]
    with log.open("ab") as file:
        run = subprocess.Popen(
            command, stdout=file, stderr=file, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
    try:
        yield run
    finally:
        for process in (
            [*by_rank(run).values(), psutil.Process(run.pid)] if run.poll() is None else []
        ):
            process.kill()
        run.wait()


def trained(work: Work, output: Path, *more: str, processes: int = 1) -> str:
    """Train to the end; what was told. Raises `RuntimeError` where that fails."""
    log = output.with_name(f"{output.name}.log")
    with training(work.line(output, *more), processes=processes, log=log) as run:
        code = run.wait()
    told = log.read_text(encoding="utf-8", errors="replace")
    if code:
        raise RuntimeError(f"{processes} processes ended with {code}:\n{told[-3000:]}")
    return told


def by_rank(run: Running) -> dict[int, psutil.Process]:
    """The processes that train, started by the torchrun `run`."""
    found = {}
    for child in psutil.Process(run.pid).children():
        try:
            found[int(child.environ()["RANK"])] = child
        except (psutil.Error, KeyError, OSError):  # just started, or just gone
            continue
    return found


def losses(output: Path) -> dict[str, list[float]]:
    """What the run in `output` wrote into its curves, in order, by name."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    curves = EventAccumulator(str(output.with_name(f"{output.name}-logs") / output.name))
    curves.Reload()
    names = ("train/loss", "val/loss", "val/accuracy", "epoch/train_loss", "epoch/train_accuracy")
    return {name: [event.value for event in curves.Scalars(name)] for name in names}


def distance(found: Path, expected: Path) -> float:
    """Between the weights of two checkpoints: of all together, as a share of their size."""
    apart = size = 0.0
    for file in ("adapter_model.safetensors", "head.safetensors"):
        ours, theirs = load_file(found / file), load_file(expected / file)
        assert ours.keys() == theirs.keys()
        apart += sum(float(((ours[k].astype(float) - theirs[k]) ** 2).sum()) for k in ours)
        size += sum(float((theirs[k].astype(float) ** 2).sum()) for k in theirs)
    return float((apart / size) ** 0.5)


def measure_alike(work: Work, scratch: Path, counts: Sequence[int]) -> None:
    """Print the first row for each of `counts` processes."""
    trained(work, scratch / "one")
    one = losses(scratch / "one")
    for count in counts:
        many = scratch / f"by-{count}"
        trained(work, many, processes=count)
        found = losses(many)
        worst = {name: max(abs(a - b) for a, b in zip(found[name], one[name], strict=True))
                 for name in one}  # fmt: skip
        weights = distance(many / "checkpoint-epoch-1", scratch / "one" / "checkpoint-epoch-1")
        same = all(worst[name] == 0 for name in worst if name.endswith("accuracy"))
        before = found["val/loss"][0] == one["val/loss"][0]
        print(
            f"| {count} processes against 1, {len(one['train/loss'])} updates | loss of an update "
            f"{worst['train/loss']:.1e}, of the epoch {worst['epoch/train_loss']:.1e}, of val "
            f"{worst['val/loss']:.1e} (before training {'to the bit' if before else 'not equal'}); "
            f"accuracies {'equal' if same else 'NOT EQUAL'}; weights {weights:.1e} |",
            flush=True,
        )


def measure_kills(work: Work, scratch: Path, moments: int) -> None:
    """Print the second row."""
    calm = scratch / "calm"
    before, after_first = spans(work, calm)
    last = f"checkpoint-epoch-{work.settings['training.num_epochs']}"
    apart, ends, silent, several, equal = [], [], 0, 0, 0
    for moment in range(moments):
        output = scratch / f"killed-{moment}"
        early = moments // 5
        begun = moment >= early
        share = (moment - early + 0.5) / (moments - early) if begun else (moment + 0.5) / early
        after = share * (after_first if begun else before)
        seconds, told = killed(work, output, after=after, rank=moment % 2, begun=begun)
        ends.append(seconds)
        silent += told == 0
        several += told > 1
        more = ["--resume"] if list(output.glob("checkpoint-*")) else []
        if not (output / last).is_dir():
            trained(work, output, *more, processes=2)
        apart.append(distance(output / last, calm / last))
        equal += apart[-1] == 0
        since = "the first checkpoint" if begun else "the start"
        print(f"  {after:.1f} s after {since}: ended in {seconds:.1f} s, told {told} times, "
              f"weights {apart[-1]:.1e}", file=sys.stderr, flush=True)  # fmt: skip
    print(
        f"| kill -9 of one of 2 processes, {moments} moments, {moments // 5} in the {before:.0f} s "
        f"before the first checkpoint, the others in the {after_first:.0f} s after it, resumed | "
        f"all ended within {max(ends):.0f} s; told once {moments - silent - several} times, not by "
        f"cliptune {silent}, more often {several}; weights as undisturbed to the bit {equal} "
        f"times, at most {max(apart):.1e} apart |",
        flush=True,
    )


def spans(work: Work, output: Path) -> tuple[float, float]:
    """Seconds of a run of two processes before and after its first checkpoint."""
    started = time.monotonic()
    with training(work.line(output), processes=2, log=output.with_name("calm.log")) as run:
        while not list(output.glob("checkpoint-*")) and run.poll() is None:
            time.sleep(0.01)
        first = time.monotonic()
        assert run.wait() == 0
    return first - started, time.monotonic() - first


def killed(work: Work, output: Path, *, after: float, rank: int, begun: bool) -> tuple[float, int]:
    """Kill `rank` of two processes `after` seconds, of the start or (`begun`) of the first
    checkpoint; seconds until all had ended, and how many errors were told."""
    log = output.with_name(f"{output.name}-killed.log")
    with training(work.line(output), processes=2, log=log) as run:
        while begun and run.poll() is None and not list(output.glob("checkpoint-*")):
            time.sleep(0.01)
        until = time.monotonic() + after
        while run.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        victim = by_rank(run).get(rank) if run.poll() is None else None
        if victim is None:  # torchrun has not started it yet, or all is done
            return 0.0, 1
        at = time.monotonic()
        others = by_rank(run).values()
        victim.send_signal(signal.SIGKILL)
        run.wait()
        psutil.wait_procs(list(others), timeout=120)
        seconds = time.monotonic() - at
    return seconds, log.read_text(encoding="utf-8", errors="replace").count("\nerror: ")


def some_of(photos: Path, target: Path, each: int) -> Path:
    """Links to the first photos of each class of train/ and val/."""
    for split in ("train", "val"):
        for folder in sorted(path for path in (photos / split).iterdir() if path.is_dir()):
            (target / split / folder.name).mkdir(parents=True)
            for path in sorted(folder.iterdir())[:each]:
                (target / split / folder.name / path.name).symlink_to(path.resolve())
    return target


def drawings(scratch: Path) -> tuple[Path, str]:
    """Those of the demo, and its model."""
    from cliptune.demo.drawings import draw_dataset
    from cliptune.demo.run import COUNTS, HOME

    draw_dataset(scratch / "drawings", counts=COUNTS, seed=0)
    return scratch / "drawings", str(HOME / "model")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path, nargs="?")
    parser.add_argument("model", nargs="?")
    parser.add_argument("--processes", type=int, nargs="*", default=[2, 4])
    parser.add_argument("--moments", type=int, default=20, help="kills; 0: no second row")
    parser.add_argument("--each", type=int, default=6, help="photos of a class where one is killed")
    given = parser.parse_args()
    print("| what | measured |\n|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        photos, model = (given.photos, given.model) if given.model else drawings(scratch)
        if given.processes:
            work = Work(photos, model, {"training.num_epochs": 1})
            measure_alike(work, scratch, given.processes)
        if given.moments:
            few = some_of(photos, scratch / "few", given.each)
            measure_kills(Work(few, model, SHORT), scratch, given.moments)


if __name__ == "__main__":
    main()
