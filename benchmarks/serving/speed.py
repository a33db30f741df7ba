"""How fast `cliptune serve` answers, beside `Predictor.stream` and beside a plain FastAPI.

    python benchmarks/serving/speed.py RUN --photos FOLDER

In turns, in rounds: `Predictor.stream` over the photos; 32 clients of wrk (Debian's package) that
send them as they are, and as forms; the same clients at FastAPI around `transformers`' pipeline,
in float32 and bf16. Then photos that arrive at random moments, at half of the rate found: how long
each waits. Medians; wrk and the servers share the machine's cores, `stream` has them alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import httpx
from load import Rate, Server, prepared, serving, wrk

from cliptune import Predictor
from cliptune.data.image_files import find_images

PLAIN = Path(__file__).with_name("plain.py")
CLIENTS = 32


def stream(checkpoint: Path, photos: Sequence[Path], precision: str, seconds: int) -> float:
    """Photos a second, in a process of its own."""
    import subprocess

    script = (
        "import json, sys, time, itertools\n"
        "from cliptune import Predictor\n"
        "checkpoint, precision, seconds, *photos = sys.argv[1:]\n"
        "predictor = Predictor(checkpoint, precision=precision)\n"
        "list(predictor.stream(photos[:64]))\n"
        "started, count = time.perf_counter(), 0\n"
        "while time.perf_counter() - started < float(seconds):\n"
        "    count += sum(1 for _ in predictor.stream(photos[:256]))\n"
        "print(count / (time.perf_counter() - started))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, str(checkpoint), precision, str(seconds),
         *map(str, photos)],
        capture_output=True, text=True, encoding="utf-8", check=True,
    )  # fmt: skip
    return float(ran.stdout)


async def waits(
    address: str, photos: Sequence[Path], *, rate: float, seconds: float
) -> list[float]:
    """Seconds each photo waits for its answer, where `rate` a second arrive at random moments."""
    bodies, rng, found = [path.read_bytes() for path in photos[:128]], random.Random(0), []
    limits = httpx.Limits(max_connections=256, max_keepalive_connections=256)
    async with httpx.AsyncClient(base_url=address, timeout=60, limits=limits) as client:

        async def ask(body: bytes) -> None:
            started = time.perf_counter()
            answer = await client.post("/predict", content=body)
            assert answer.status_code == 200, answer.text
            found.append(time.perf_counter() - started)

        until, tasks = time.perf_counter() + seconds, []
        while time.perf_counter() < until:
            tasks.append(asyncio.create_task(ask(rng.choice(bodies))))
            await asyncio.sleep(rng.expovariate(rate))
        await asyncio.gather(*tasks)
    return found


def measure(
    checkpoint: Path,
    photos: Sequence[Path],
    *,
    base: str,
    precision: str,
    rounds: int,
    seconds: int,
) -> None:
    names = list(Predictor(checkpoint, device="cpu").display_names.values())
    options, cores = ("--precision", precision, "--device", "cpu"), str(os.cpu_count())
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        scratch = Path(folder)
        raw = prepared(photos[:256], scratch / "raw", form=False)
        form = prepared(photos[:256], scratch / "form", form=True)
        labels = scratch / "labels.json"
        labels.write_text(json.dumps(names), encoding="utf-8", newline="\n")
        one = stack.enter_context(serving(checkpoint, *options))
        each_core = stack.enter_context(serving(checkpoint, *options, "--workers", cores))
        plain = {dtype: Server(sys.executable, PLAIN, base, labels, dtype)
                 for dtype in ("float32", "bfloat16")}  # fmt: skip
        asked = {
            "one worker, photos as they are": (one, raw),
            "a worker to a core, as they are": (each_core, raw),
            "a worker to a core, forms": (each_core, form),
            "FastAPI and pipeline, float32": (plain["float32"], form),
            "FastAPI and pipeline, bf16": (plain["bfloat16"], form),
        }
        streams: list[float] = []
        found: dict[str, list[Rate]] = {name: [] for name in asked}
        for _ in range(rounds):
            streams.append(stream(checkpoint, photos, precision, seconds))
            for name, (server, script) in asked.items():
                wrk(server.address, script, clients=CLIENTS, seconds=2)
                found[name].append(wrk(server.address, script, clients=CLIENTS, seconds=seconds))
            latest = {name: round(rates[-1].per_second, 1) for name, rates in found.items()}
            print(f"# stream {streams[-1]:.1f}, {latest}", file=sys.stderr, flush=True)
        for server in plain.values():
            server.end()
        show(streams, found)
        for name in list(asked)[:2]:
            half = statistics.median(rate.per_second for rate in found[name]) / 2
            waiting = waits(asked[name][0].address, photos, rate=half, seconds=6 * seconds)
            show_waits(name, half, sorted(asyncio.run(waiting)))


def show(streams: list[float], found: dict[str, list[Rate]]) -> None:
    """Markdown."""
    base = statistics.median(streams)
    print(
        "| what | photos/s | of stream | median ms | p99 ms | refused |\n|---|---|---|---|---|---|"
    )
    print(f"| Predictor.stream | {base:.1f} | 1 | | | |")
    for name, rates in found.items():
        median = statistics.median(rate.per_second for rate in rates)
        ratios = [rate.per_second / each for rate, each in zip(rates, streams, strict=True)]
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
        middle, p99 = (
            statistics.median(getattr(rate, key) for rate in rates)
            for key in ("median_ms", "p99_ms")
        )
        refused = sum(rate.refused for rate in rates)
        print(f"| {name} | {median:.1f} | {ratio} | {middle:.0f} | {p99:.0f} | {refused} |")


def show_waits(name: str, rate: float, times: list[float]) -> None:
    """A row of it: `times` in seconds, the shortest first."""
    middle, p99 = 1e3 * statistics.median(times), 1e3 * times[int(0.99 * len(times))]
    what = f"{name}, {rate:.1f}/s at random, {len(times)} photos"
    print(f"| {what} | | | {middle:.0f} | {p99:.0f}: {p99 / middle:.1f} medians | 0 |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--base", required=True, help="the base model, for the plain server")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=8, help="of each measurement")
    given = parser.parse_args()
    measure(
        given.checkpoint, find_images(given.photos), base=given.base, precision=given.precision,
        rounds=given.rounds, seconds=given.seconds,
    )  # fmt: skip


if __name__ == "__main__":
    main()
