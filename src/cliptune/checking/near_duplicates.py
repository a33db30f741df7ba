"""Pairs of photos whose perceptual hashes nearly agree, found without comparing all with all.

The hashes are sorted many times, each time by other bits in another order, and each is compared
with its neighbours only: copies agree in most bits, so that in some order they stand side by side.
Charikar, "Similarity estimation techniques from rounding algorithms", STOC 2002, section 3, after
Indyk and Motwani (1998). Time grows as n·log n with the number of photos. With n hashes in all, a
pair that differs in d of 256 bits is missed with a probability of about
(1 - (1 - d/256)^log2(n/16))^32: at 100,000 photos below 0.001 for d = 20, about 0.02 for d = 32.

Memory is about 400 bytes a photo, of which its hashes are 256: 4 GB at ten million. Where that is
too much, `near_pairs_by_shards` goes through as many hashes at a time as are said.

Shape suffixes: N photos, V views of each, M = N·V hashes, W words of 64 bits, P pairs; K = 4: two
photos, distance and view.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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
_BLOCK = 2**18  # hashes that a thread looks at, at a time


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
    return _as_list(_pairs(hashes_NVB, max_distance=max_distance, seed=seed))


def near_pairs_by_shards(
    hashes_NVB: NDArray[np.uint8],
    *,
    most_photos: int,
    max_distance: int = MAX_DISTANCE,
    seed: int = 0,
) -> list[Near]:
    """`near_pairs` with no more than `most_photos` looked at at once, two shards of them at a time.

    `hashes_NVB` may be a memory map. Of S shards each is held against each: S·(S - 1)/2 times the
    work of one pass over two of them.
    """
    size = most_photos // 2
    starts = range(0, len(hashes_NVB), size)
    if len(starts) <= 2:
        return near_pairs(hashes_NVB, max_distance=max_distance, seed=seed)
    found = np.empty((4, 0), np.int64)
    for one in starts:
        for other in range(one + size, len(hashes_NVB), size):
            places_N = np.r_[one : one + size, other : min(other + size, len(hashes_NVB))]
            pairs_KP = _pairs(hashes_NVB[places_N], max_distance=max_distance, seed=seed)
            pairs_KP[:2] = places_N[pairs_KP[:2]]
            found = _closest(np.concatenate([found, pairs_KP], axis=1))
    return _as_list(found)


def _as_list(pairs_KP: NDArray[np.int64]) -> list[Near]:
    return [Near(*map(int, pair)) for pair in pairs_KP.T]


def _pairs(hashes_NVB: NDArray[np.uint8], *, max_distance: int, seed: int) -> NDArray[np.int64]:
    """(K, P): the pairs of `near_pairs`, sorted by photos."""
    num_photos, num_views, _ = hashes_NVB.shape
    found = np.empty((4, 0), np.int64)
    if num_photos < 2:
        return found
    words_MW = np.ascontiguousarray(hashes_NVB).reshape(num_photos * num_views, -1).view(np.uint64)
    rng = np.random.default_rng(seed)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for _ in range(ORDERS):
            chosen = rng.permutation(HASH_BITS)[:_KEY_BITS]
            keys = pool.map(
                lambda rows, bits=chosen: _keys(words_MW[rows], bits), _blocks(words_MW)
            )
            order_M = np.argsort(np.concatenate(list(keys)))
            # Blocks overlap, so that each place has all its neighbours in one of them.
            near = pool.map(
                lambda rows, order=order_M: _neighbours(
                    words_MW, order[rows.start : rows.stop + NEIGHBOURS], rows.stop - rows.start,
                    num_views, max_distance,
                ),
                _blocks(words_MW),
            )  # fmt: skip
            found = _closest(np.concatenate([found, *near], axis=1))
    return found


def _blocks(words_MW: NDArray[np.uint64]) -> Iterator[slice]:
    for start in range(0, len(words_MW), _BLOCK):
        yield slice(start, min(start + _BLOCK, len(words_MW)))


def _keys(words_BW: NDArray[np.uint64], chosen: NDArray[np.int64]) -> NDArray[np.uint32]:
    """The `chosen` 32 bits of each hash as one number."""
    bytes_BB = words_BW.view(np.uint8)
    keys = np.zeros(len(bytes_BB), np.uint32)
    for place, bit in enumerate(chosen.tolist()):
        bits = (bytes_BB[:, bit // 8] >> np.uint8(7 - bit % 8)) & np.uint8(1)
        keys |= bits.astype(np.uint32) << np.uint32(8 * (place // 8) + 7 - place % 8)
    return keys


def _neighbours(
    words_MW: NDArray[np.uint64],
    order_B: NDArray[np.int64],
    num_first: int,
    num_views: int,
    max_distance: int,
) -> NDArray[np.int64]:
    """(K, P): pairs within `NEIGHBOURS` places, of hashes `order_B` in their order; the first of a
    pair among the first `num_first`."""
    sorted_BW = words_MW[order_B]
    photo_B = order_B // num_views
    half_WB = np.ascontiguousarray(sorted_BW[:, :2].T)
    pairs = []
    for step in range(1, min(NEIGHBOURS, len(order_B) - 1) + 1):
        count = min(num_first, len(order_B) - step)
        # Half of the bits first: they rule out nearly all.
        differ = half_WB[:, :count] ^ half_WB[:, step : step + count]
        near = np.bitwise_count(differ[0]) + np.bitwise_count(differ[1]) <= max_distance
        rows = np.flatnonzero(near & (photo_B[:count] != photo_B[step : step + count]))
        ones, others = sorted_BW[rows], sorted_BW[rows + step]
        distance = _set_bits(ones ^ others)
        a, b = order_B[rows], order_B[rows + step]
        # Bits set in either, from |A or B| = (|A| + |B| + |A xor B|) / 2.
        either = (_set_bits(ones) + _set_bits(others) + distance) / 2
        kept = (distance <= max_distance) & (distance <= MAX_SHARE * (either - OUTLINE_BITS))
        kept &= (a % num_views == 0) | (b % num_views == 0)
        a, b = a[kept], b[kept]
        view = np.maximum(a % num_views, b % num_views)
        a, b = a // num_views, b // num_views
        pairs.append(np.stack([np.minimum(a, b), np.maximum(a, b), distance[kept], view]))
    return np.concatenate(pairs, axis=1) if pairs else np.empty((4, 0), np.int64)


def _set_bits(words_PW: NDArray[np.uint64]) -> NDArray[np.int64]:
    counts: NDArray[np.int64] = np.bitwise_count(words_PW).sum(axis=1, dtype=np.int64)
    return counts


def _closest(pairs_KP: NDArray[np.int64]) -> NDArray[np.int64]:
    """(K, P): each pair of photos once, by its closest views; sorted."""
    first, second, distance, view = pairs_KP
    pairs_KP = pairs_KP[:, np.lexsort((view, distance, second, first))]
    again = (pairs_KP[:2, 1:] == pairs_KP[:2, :-1]).all(axis=0)
    return pairs_KP[:, np.r_[True, ~again][: pairs_KP.shape[1]]]
