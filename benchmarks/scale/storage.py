"""Storage that fails one request in twenty and hangs one in a thousand: what is read of it.

    python benchmarks/scale/storage.py [--objects 5000] [--threads 16] [--protocols http s3]

Real servers on loopback: nginx for http (before it a proxy that fails), moto for s3 (needs
s3fs and moto[server]; the same proxy). Each object is of random bytes and read once by
`cliptune.storage.read_bytes`, as photos are, with `--attempts` and `--timeout` seconds for each.
Prints a row for each protocol, beside the same without faults, and fails if any object was read
wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from cliptune.errors import StorageError
from cliptune.storage import joined, read_bytes, write_whole
from storages import Faults, failing_proxy, http_server, s3_environment, s3_server

FAILS, HANGS = 1 / 20, 1 / 1000
HEADER = (
    "| storage | objects | requests | failed | hung | right | errors | wrong | seconds "
    "| threads at most | without faults, seconds |"
)


@dataclass
class Reading:
    """What came of reading all objects once."""

    right: int = 0
    wrong: int = 0
    errors: int = 0
    seconds: float = 0.0
    most_threads: int = 0
    last_error: str = ""


def read_all(
    place: str, sums: dict[str, bytes], *, threads: int, attempts: int, timeout_s: float
) -> Reading:
    """Read each object of `sums` (name to SHA-256) below `place` once, by `threads` threads."""
    reading, over = Reading(), threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            # The servers' own threads are daemons of other names.
            ours = [t for t in threading.enumerate() if t.name.startswith(("cliptune", "reader"))]
            reading.most_threads = max(reading.most_threads, len(ours))

    def read(name: str) -> str | bool:
        try:
            content = read_bytes(joined(place, name), attempts=attempts, timeout_s=timeout_s)
        except StorageError as error:
            return str(error)
        return hashlib.sha256(content).digest() == sums[name]

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    try:
        with ThreadPoolExecutor(threads, "reader") as pool:
            for result in pool.map(read, sums):
                if isinstance(result, str):
                    reading.errors, reading.last_error = reading.errors + 1, result
                elif result:
                    reading.right += 1
                else:
                    reading.wrong += 1
    finally:
        reading.seconds = time.perf_counter() - started
        over.set()
        watcher.join()
    return reading


@contextmanager
def filled(protocol: str, folder: Path, contents: dict[str, bytes]) -> Iterator[tuple[str, str]]:
    """(address with `contents` below it, the HTTP endpoint that serves it)."""
    if protocol == "http":
        for name, content in contents.items():
            (folder / name).write_bytes(content)
        with http_server(folder) as address:
            yield address, address
        return
    with s3_server() as bucket:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda each: write_whole(joined(bucket, each[0]), each[1]),
                          contents.items()))  # fmt: skip
        yield bucket, os.environ["AWS_ENDPOINT_URL"]


def measure(
    protocol: str, contents: dict[str, bytes], *, threads: int, attempts: int, timeout_s: float
) -> tuple[Reading, Reading, Faults]:
    """(with faults, without, what the proxy did)."""
    sums = {name: hashlib.sha256(content).digest() for name, content in contents.items()}
    options = {"threads": threads, "attempts": attempts, "timeout_s": timeout_s}
    faults, none = Faults(fails=FAILS, hangs=HANGS, hang_s=10 * timeout_s), Faults(fails=0, hangs=0)
    readings = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "objects")
        folder.mkdir()
        with filled(protocol, folder, contents) as (address, endpoint):
            for each in (faults, none):
                with failing_proxy(endpoint, each) as proxy, s3_environment(proxy):
                    place = proxy if protocol == "http" else address
                    readings.append(read_all(place, sums, **options))
    return readings[0], readings[1], faults


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--objects", type=int, default=5000)
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--attempts", type=int, default=4)
    parser.add_argument("--timeout", type=float, default=2.0)
    parser.add_argument("--protocols", nargs="+", choices=("http", "s3"), default=["http", "s3"])
    given = parser.parse_args()
    rng = random.Random(0)
    contents = {
        f"{i:05}.jpg": rng.randbytes(rng.randint(5_000, 60_000)) for i in range(given.objects)
    }
    print(f"{given.attempts} attempts of {given.timeout:g} s, {given.threads} threads")
    print(f"{HEADER}\n|{'---|' * 11}")
    wrong = 0
    for protocol in given.protocols:
        found, clean, faults = measure(
            protocol, contents, threads=given.threads, attempts=given.attempts,
            timeout_s=given.timeout,
        )  # fmt: skip
        row = (
            protocol, f"{given.objects:,}", f"{faults.requests:,}", faults.failed, faults.hung,
            f"{found.right:,}", found.errors, found.wrong, f"{found.seconds:.1f}",
            found.most_threads, f"{clean.seconds:.1f}",
        )  # fmt: skip
        print(f"| {' | '.join(map(str, row))} |", flush=True)
        if found.last_error:
            print(found.last_error)
        wrong += found.wrong + clean.wrong + clean.errors
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
