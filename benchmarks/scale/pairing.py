"""Pairs among one to ten million synthetic fingerprints: seconds, and memory beyond the hashes.

    python benchmarks/scale/pairing.py 1000000 2000000 5000000 10000000

Hashes are drawn at random, and one photo in a hundred is a copy of another of which up to 20 of 256
bits differ, in one of the views: how many of these are found is said, too. Each size runs in a
process of its own, whose largest memory the system tells.
"""

from __future__ import annotations

import math
import resource
import subprocess
import sys
import time

import numpy as np

from cliptune.checking.fingerprints import HASH_BITS, VIEWS
from cliptune.checking.near_duplicates import near_pairs


def planted(photos: int, copies: int) -> np.ndarray:
    """(N, V, 32) hashes; photo N - 1 - i is a copy of photo i."""
    rng = np.random.default_rng(photos)
    hashes = np.frombuffer(rng.bytes(photos * len(VIEWS) * HASH_BITS // 8), np.uint8)
    hashes = hashes.reshape(photos, len(VIEWS), -1).copy()
    for i in range(copies):
        bits = np.unpackbits(hashes[i, 0])
        bits[rng.permutation(HASH_BITS)[: rng.integers(0, 21)]] ^= 1
        hashes[photos - 1 - i, i % len(VIEWS)] = np.packbits(bits)
    return hashes


def one(photos: int) -> None:
    copies = photos // 100
    hashes = planted(photos, copies)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    started = time.process_time()
    pairs = near_pairs(hashes)
    seconds = time.process_time() - started
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found = {(pair.first, pair.second) for pair in pairs}
    right = sum((i, photos - 1 - i) in found for i in range(copies))
    each = 1e9 * seconds / (photos * math.log2(photos * len(VIEWS)))
    print(
        f"| {photos:,} | {seconds:,.0f} | {each:.0f} | {(most - before) / photos:.0f} | "
        f"{right / copies:.2%} | {len(found) - right:,} |",
        flush=True,
    )


def main() -> None:
    if len(sys.argv) > 2 and sys.argv[1] == "--one":
        one(int(sys.argv[2]))
        return
    columns = ["photos", "seconds", "ns a photo and log2 of its hashes",
               "bytes a photo beside 256 of its hashes", "copies found", "others"]  # fmt: skip
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|", flush=True)
    for photos in sys.argv[1:] or ["1000000", "2000000"]:
        subprocess.run([sys.executable, __file__, "--one", photos], check=True)


if __name__ == "__main__":
    main()
