"""How fast `check` reads photos beside a plain Pillow loop, and how its pairing grows.

    python benchmarks/check_speed.py --data DATA [--photos 20000] [--repeats 3]

DATA is a folder of photos; different ones are made of them by cutting a row off, until there are
enough. The plain loop opens and decodes each file once, by one process and by as many as there are
cores; all take turns. The pairing runs on random hashes with copies among them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from cliptune.checking.check import check
from cliptune.checking.fingerprints import HASH_BITS, VIEWS
from cliptune.checking.near_duplicates import near_pairs
from cliptune.data.image_files import find_images


def decode(paths: Sequence[Path]) -> None:
    """The plain loop: open, decode, close."""
    for path in paths:
        with Image.open(path) as image:
            image.load()


def decode_by_processes(paths: Sequence[Path]) -> None:
    """The same by as many processes as there are cores, 64 files at a time."""
    chunks = [paths[start : start + 64] for start in range(0, len(paths), 64)]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(decode, chunks))


def make_photos(source: Path, folder: Path, count: int) -> list[Path]:
    """`count` different photos in train/, val/ and test/ of `folder`, made of those in `source`."""
    photos = find_images(source)
    made = []
    for number in range(count):
        photo = photos[number % len(photos)]
        split = ("train", "train", "train", "val", "test")[number % 5]
        target = folder / split / photo.parent.name / f"{number:06}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(photo) as image:
            rng = np.random.default_rng(number)
            # Turned, mirrored, cut: unlike one another, so that pairing has its usual work.
            left, top = (int(edge * rng.uniform(0, 0.4)) for edge in image.size)
            width, height = image.size
            view = image.convert("RGB").crop((left, top, left + width // 2, top + height // 2))
            view = view.rotate(int(rng.integers(360))).resize(image.size)
            view.save(target, quality=90)
        made.append(target)
    return made


def seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--photos", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = make_photos(options.data, folder, options.photos)
        ways: dict[str, Callable[[], object]] = {
            "plain Pillow loop, one process": lambda: decode(paths),
            f"plain Pillow loop, {os.cpu_count()} processes": lambda: decode_by_processes(paths),
            "cliptune check, everything": lambda: check(folder, progress=False),
        }
        times: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(options.repeats):
            for way, call in ways.items():
                times[way].append(seconds(call))
    print(f"| {len(paths):,} photos | photos/s | spread |\n|---|---|---|")
    for way, taken in times.items():
        rates = [len(paths) / t for t in taken]
        print(f"| {way} | {statistics.median(rates):,.0f} | {min(rates):,.0f}–{max(rates):,.0f} |")
    print("\n| photos | pairing, s | per n·log2 n, ns | planted copies found |\n|---|---|---|---|")
    for count in (1_000, 3_000, 10_000, 30_000, 100_000):
        print(pairing_row(count))


def pairing_row(count: int) -> str:
    """How long pairing of `count` photos takes, a tenth of which are copies 20 bits apart."""
    rng = np.random.default_rng(count)
    hashes = rng.integers(0, 256, (count, len(VIEWS), HASH_BITS // 8), dtype=np.uint8)
    copies = count // 10
    for i in range(copies):
        bits = np.unpackbits(hashes[i, 0])
        bits[rng.permutation(HASH_BITS)[:20]] ^= 1
        hashes[count - 1 - i, 0] = np.packbits(bits)
    taken = min(seconds(lambda: near_pairs(hashes)) for _ in range(2))
    share = len(near_pairs(hashes)) / copies
    unit = 1e9 * taken / (count * np.log2(count))
    return f"| {count:,} | {taken:.2f} | {unit:.0f} | {share:.2%} |"


if __name__ == "__main__":
    main()
