"""Pairs of photos whose perceptual hashes nearly agree, found without comparing all with all.

The hashes are sorted many times, each time by other bits in another order, and each is compared
with its neighbours only: copies agree in most bits, so that in some order they stand side by side.
Charikar, "Similarity estimation techniques from rounding algorithms", STOC 2002, section 3, after
Indyk and Motwani (1998). Time grows as n·log n with the number of photos. With n hashes in all, a
pair that differs in d of 256 bits is missed with a probability of about
(1 - (1 - d/256)^log2(n/16))^32: at 100,000 photos below 0.001 for d = 20, about 0.02 for d = 32.

Shape suffixes: N photos, V views of each, M = N·V hashes, W words of 64 bits.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cliptune.checking.fingerprints import HASH_BITS

# Of 256 bits. Of 5,040 copies (18 kinds: scaled, compressed, mirrored, cut, …) the farthest differs
# in 40 bits; the closest of two million pairs of unrelated photos of dogs in 61.
MAX_DISTANCE = 40
# Plain grounds set no bits, so that two small things on white agree in most: of the bits set in
# either, beyond those that an outline alone sets, no larger share may differ.
MAX_SHARE = 0.36
OUTLINE_BITS = 26

ORDERS = 32
NEIGHBOURS = 16
_KEY_BITS = 32


class Near(NamedTuple):
    """Photos `first` < `second` whose hashes differ in `distance` of 256 bits.

    `view` is the place in `VIEWS` of how one of the two was seen, the other as it is.
    """

    first: int
    second: int
    distance: int
    view: int


def near_pairs(
    hashes_NVB: NDArray[np.uint8], *, max_distance: int = MAX_DISTANCE, seed: int = 0
) -> list[Near]:
    """Pairs at most `max_distance` apart, each once, with their closest views.

    `hashes_NVB` holds (N, V, 32) bytes; the first view is the photo as it is, and one photo of
    each pair is seen so.
    """
    num_photos, num_views, _ = hashes_NVB.shape
    if num_photos < 2:
        return []
    words_MW = np.ascontiguousarray(hashes_NVB).reshape(num_photos * num_views, -1).view(np.uint64)
    bits_BM = np.unpackbits(hashes_NVB.reshape(len(words_MW), -1), axis=1).T.copy()
    num_set_M = bits_BM.sum(axis=0, dtype=np.uint16)
    rng = np.random.default_rng(seed)
    found: list[NDArray[np.int64]] = []
    for _ in range(ORDERS):
        chosen = rng.permutation(HASH_BITS)[:_KEY_BITS]
        key_M = np.packbits(bits_BM[chosen], axis=0).T.copy().view(np.uint32)[:, 0]
        order_M = np.argsort(key_M)
        found.append(_neighbours(words_MW, num_set_M, order_M, num_views, max_distance))
    return _closest(np.concatenate(found, axis=1), num_views)


def _neighbours(
    words_MW: NDArray[np.uint64],
    num_set_M: NDArray[np.uint16],
    order_M: NDArray[np.int64],
    num_views: int,
    max_distance: int,
) -> NDArray[np.int64]:
    """(K, P), K = 3: hash, hash and distance of the pairs that stand within `NEIGHBOURS` places."""
    sorted_MW = words_MW[order_M]
    photo_M = order_M // num_views
    half_WM = np.ascontiguousarray(sorted_MW[:, :2].T)
    pairs = []
    for step in range(1, min(NEIGHBOURS, len(order_M) - 1) + 1):
        # Half of the bits first: they rule out nearly all.
        differ = half_WM[:, :-step] ^ half_WM[:, step:]
        near = np.bitwise_count(differ[0]) + np.bitwise_count(differ[1]) <= max_distance
        rows = np.flatnonzero(near & (photo_M[:-step] != photo_M[step:]))
        distance = np.bitwise_count(sorted_MW[rows] ^ sorted_MW[rows + step]).sum(axis=1)
        a, b = order_M[rows], order_M[rows + step]
        # Bits set in either, from |A or B| = (|A| + |B| + |A xor B|) / 2.
        either = (num_set_M[a].astype(np.int64) + num_set_M[b] + distance) / 2
        kept = (distance <= max_distance) & (distance <= MAX_SHARE * (either - OUTLINE_BITS))
        kept &= (a % num_views == 0) | (b % num_views == 0)
        pairs.append(np.stack([a[kept], b[kept], distance[kept].astype(np.int64)]))
    return np.concatenate(pairs, axis=1) if pairs else np.empty((3, 0), np.int64)


def _closest(pairs_KP: NDArray[np.int64], num_views: int) -> list[Near]:
    """Each pair of photos once, by its closest views; sorted."""
    a, b, distance = pairs_KP
    view = np.maximum(a % num_views, b % num_views)
    first = np.minimum(a // num_views, b // num_views)
    second = np.maximum(a // num_views, b // num_views)
    order = np.lexsort((view, distance, second, first))
    best: list[Near] = []
    for place in order:
        near = Near(int(first[place]), int(second[place]), int(distance[place]), int(view[place]))
        if not best or best[-1][:2] != near[:2]:
            best.append(near)
    return best
