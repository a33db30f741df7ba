"""Half an hour at full load, a worker killed and the checkpoint changed each minute.

    make soak                                                       on drawings
    python benchmarks/serving/soak.py RUN OTHER --photos FOLDER --minutes 30

RUN and OTHER answer in turns, behind one link that SIGHUP has the server read again; half a minute
after each change the worker is killed. Each answer says by its header which checkpoint gave it, and
is held against that one's, computed beforehand by `Predictor`. What is not an answer must be one of
the killed worker's requests: as many as two batches. Memory is the sum over the server's processes,
shared pages counted once (PSS, Linux), looked at while one worker is there and no change goes on.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
from drawn import drawn
from load import Server, serving

from cliptune import Prediction, Predictor
from cliptune.data.image_files import find_images
from cliptune.model.checkpoint import list_checkpoints, resolve_checkpoint

CLIENTS, BATCH = 32, 16
TOLERANCE = 1e-5  # of a probability, in float32: batches differ in size


@dataclass
class Found:
    """What clients saw; each appends, and none waits for another."""

    statuses: Counter[int | str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    largest: float = 0.0
    by: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)


def expected(checkpoint: Path, photos: Sequence[Path]) -> list[dict[str, Any]]:
    predictor = Predictor(checkpoint, device="cpu", precision="float32")
    found = predictor.stream(photos, top_k=len(predictor.class_names))
    return [each.to_dict() for each in found if isinstance(each, Prediction)]


def client(
    number: int, server: Server, bodies: Sequence[bytes],
    answers: dict[str, list[dict[str, Any]]], found: Found, end: threading.Event,
) -> None:  # fmt: skip
    """Photo after photo, each as soon as the one before was answered."""
    at = 7 * number
    with httpx.Client(base_url=server.address, timeout=90, trust_env=False) as http:
        while not end.is_set():
            at = (at + 1) % len(bodies)
            try:
                answer = http.post("/predict", content=bodies[at])
            except httpx.HTTPError as error:
                with found.lock:
                    found.statuses[type(error).__name__] += 1
                continue
            with found.lock:
                found.statuses[answer.status_code] += 1
                if answer.status_code == 200:
                    by = answer.headers["x-checkpoint"].rpartition("@")[2]
                    found.by[by] += 1
                    hold(answer.json(), answers.get(by, [{}] * len(bodies))[at], found)


def hold(ours: dict[str, Any], theirs: dict[str, Any], found: Found) -> None:
    if not theirs:
        found.wrong.append("by a checkpoint that nobody knows")
        return
    chances = {score["label"]: score["probability"] for score in theirs["scores"]}
    apart = max(abs(s["probability"] - chances[s["label"]]) for s in ours["scores"])
    found.largest = max(found.largest, apart)
    if apart > TOLERANCE or (ours["label"], ours["known"]) != (theirs["label"], theirs["known"]):
        found.wrong.append(f"{ours['label']} for {theirs['label']}, by {apart:.2g}")


def workers(server: Server) -> list[psutil.Process]:
    """Those that hold a classifier: half of a GiB is torch's alone."""
    children = psutil.Process(server.process.pid).children(recursive=True)
    return [each for each in children if each.memory_info().rss > 150 * 2**20]


def memory(server: Server) -> float:
    """MiB of all its processes; not a number while other than one worker is there."""
    parent = psutil.Process(server.process.pid)
    try:
        family = [parent, *parent.children(recursive=True)]
        if len(workers(server)) != 1:
            return float("nan")
        return float(sum(each.memory_full_info().pss for each in family)) / 2**20
    except psutil.Error:
        return float("nan")


def names_of(checkpoint: Path) -> str:
    """The digest that the server's header gives."""
    from cliptune.serving.worker import identity

    return identity(resolve_checkpoint(checkpoint).path).rpartition("@")[2]


def point(link: Path, checkpoint: Path) -> None:
    new = link.with_name("new")
    new.symlink_to(checkpoint)
    new.replace(link)


def soak(checkpoints: Sequence[Path], photos: Sequence[Path], *, minutes: float) -> bool:
    found, end = Found(), threading.Event()
    places = [resolve_checkpoint(each).path.resolve() for each in checkpoints]
    answers = {names_of(each): expected(each, photos) for each in places}
    assert len(answers) == len(places), "two checkpoints of the same sums"
    bodies = [path.read_bytes() for path in photos]
    with tempfile.TemporaryDirectory() as scratch:
        link = Path(scratch) / "checkpoint"
        point(link, places[0])
        options = ("--precision", "float32", "--device", "cpu", "--batch-size", str(BATCH))
        with serving(link, *options) as server:
            threads = [
                threading.Thread(target=client, args=(i, server, bodies, answers, found, end))
                for i in range(CLIENTS)
            ]
            for thread in threads:
                thread.start()
            started = time.monotonic()
            sizes, kills = disturb(server, link, places, started, minutes)
            end.set()
            for thread in threads:
                thread.join()
            seconds, code = time.monotonic() - started, server.end()
    return report(found, sizes, kills, seconds, code, server)


def disturb(
    server: Server, link: Path, places: Sequence[Path], started: float, minutes: float
) -> tuple[list[tuple[float, float]], int]:
    """Changes at each full minute, kills at each half; (seconds, MiB) just before each change."""
    sizes, kills, minute = [], 0, 0
    while (now := time.monotonic() - started) < 60 * minutes:
        half, rest = divmod(now, 30)
        if half > minute:
            minute = int(half)
            if minute % 2:
                for each in workers(server)[:1]:
                    os.kill(each.pid, signal.SIGKILL)
                    kills += 1
            else:
                point(link, places[minute // 2 % len(places)])
                server.process.send_signal(signal.SIGHUP)
        elif rest > 25:
            sizes.append((now, memory(server)))
        time.sleep(1)
    return sizes, kills


def report(
    found: Found, sizes: list[tuple[float, float]], kills: int, seconds: float, code: int,
    server: Server,
) -> bool:  # fmt: skip
    total = sum(found.statuses.values())
    lost = total - found.statuses[200]
    good = [size for _, size in sizes if size == size]
    part = max(1, len(good) // 4)
    early, late = statistics.median(good[part : 2 * part]), statistics.median(good[-part:])
    changes = sum("now answering by" in line for line in server.told)
    print(f"requests {total:,} in {seconds:.0f} s: {dict(found.statuses)}")
    print(f"by {dict(found.by)}; checkpoint changed {changes} times, {kills} workers killed")
    print(f"wrong answers {len(found.wrong)} {found.wrong[:3]}, apart by {found.largest:.1e}")
    print(f"not answered {lost}, of at most {2 * BATCH} for each of {kills} kills: "
          f"{lost / max(1, kills):.1f}")  # fmt: skip
    change = f"{late / early - 1:+.2%}"
    print(f"memory, MiB: second quarter {early:.0f}, last quarter {late:.0f} ({change})")
    print(f"exit code {code}")
    only = set(found.statuses) <= {200, 503}
    return only and not found.wrong and lost <= 2 * BATCH * kills and code == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoints", nargs="*", type=Path, help="two")
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--minutes", type=float, default=30)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        checkpoints, photos = given.checkpoints, given.photos
        if not checkpoints:
            run, photos = drawn(Path(scratch))
            checkpoints = [checkpoint.path for checkpoint in list_checkpoints(run)]
        well = soak(checkpoints, find_images(photos)[:200], minutes=given.minutes)
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    main()
