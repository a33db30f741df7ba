"""Which photos are the same, whatever they are called: a few bytes of each file's SHA-256.

Eight bytes tell a million photos apart: two of them share a sum by chance in one of 40 million
collections of that size. Shape suffixes: N photos.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Sums = NDArray[np.int64]
NONE = 0  # of a file that cannot be read: the sum of none


def content_sums(paths: Sequence[Path]) -> Sums:
    """(N,) the first eight bytes of the SHA-256 of each file's content; `NONE` where unreadable."""

    def sum_of(path: Path) -> int:
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").digest()
        except OSError:
            return NONE
        return int.from_bytes(digest[:8], "big", signed=True)

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        sums_N: Sums = np.fromiter(pool.map(sum_of, paths), np.int64, len(paths))
    return sums_N


@dataclass(frozen=True)
class PhotoSums:
    """The sums of the photos a checkpoint learned from, and of those it was chosen by (val).

    Sorted, each once: no order and no names are kept.
    """

    train: Sums
    val: Sums

    @classmethod
    def of(cls, train: Sequence[Path], val: Sequence[Path]) -> PhotoSums:
        """The sums of these files."""
        return cls(*(_sorted(content_sums(paths)) for paths in (train, val)))

    def with_others(self, train: Sums, val: Sums) -> PhotoSums:
        """These and others."""
        return PhotoSums(_sorted(np.union1d(self.train, train)), _sorted(np.union1d(self.val, val)))

    def count(self, paths: Sequence[Path]) -> tuple[int, int]:
        """How many of the files at `paths` were learned from; how many others are of val."""
        sums_N = content_sums(paths)
        learned_N = np.isin(sums_N, self.train)
        return int(learned_N.sum()), int((np.isin(sums_N, self.val) & ~learned_N).sum())


def _sorted(sums: Sums) -> Sums:
    unique: Sums = np.unique(sums[sums != NONE])
    return unique
