"""Perceptual hashes and the search for pairs of them."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import pytest
from faults import COPIES
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cliptune.checking.fingerprints import HASH_BITS, VIEWS, fingerprint
from cliptune.checking.near_duplicates import MAX_DISTANCE, near_pairs
from pictures import scene


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), copy=st.sampled_from(sorted(COPIES)))
def test_a_copy_of_any_kind_is_near_and_another_picture_is_not(seed: int, copy: str) -> None:
    image = scene(seed, size=(220, 180))
    content, _ = COPIES[copy](image)
    with Image.open(io.BytesIO(content)) as opened:
        from cliptune.data.reading import to_rgb

        altered = to_rgb(opened)
    pictures = [image, altered, scene(seed + 1, size=(220, 180))]
    hashes = np.stack([fingerprint(picture.convert("L")) for picture in pictures])
    assert [pair[:2] for pair in near_pairs(hashes)] == [(0, 1)]


def test_the_hash_is_that_of_the_library_on_the_whole_photo() -> None:
    from imagehash import dhash

    grey = scene(5).convert("L").resize((48, 48), Image.Resampling.BOX)
    expected = dhash(grey.resize((17, 16), Image.Resampling.BILINEAR), hash_size=16)
    assert np.array_equal(np.unpackbits(fingerprint(grey)[0]), expected.hash.ravel())


def random_hashes(number: int, *, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (number, len(VIEWS), HASH_BITS // 8), dtype=np.uint8)


def flip(packed: np.ndarray, bits: Sequence[int]) -> np.ndarray:
    flat = np.unpackbits(packed)
    flat[list(bits)] ^= 1
    return np.packbits(flat)


@pytest.mark.parametrize(("distance", "recall"), [(0, 1), (8, 1), (20, 0.995), (30, 0.98)])
def test_pairs_are_found_as_comparing_all_with_all_would(distance: int, recall: float) -> None:
    number, copies = 4000, 400
    hashes = random_hashes(number, seed=distance)
    rng = np.random.default_rng(distance)
    for i in range(copies):
        flipped = flip(hashes[i, 0], rng.permutation(HASH_BITS)[:distance].tolist())
        hashes[number - 1 - i, i % len(VIEWS)] = flipped
    pairs = near_pairs(hashes)
    planted = {(i, number - 1 - i) for i in range(copies)}
    assert {pair[:2] for pair in pairs} <= planted  # random hashes differ in about 128 bits
    assert len(pairs) >= recall * copies
    assert all(pair.distance == distance for pair in pairs)


def test_every_pair_that_is_reported_is_truly_near() -> None:
    # Hashes around few centres, so that many are close to the limit on either side.
    rng = np.random.default_rng(0)
    hashes = random_hashes(300, seed=1)
    for i in range(1, 300):
        centre = hashes[i % 10, 0]
        hashes[i, 0] = flip(centre, rng.permutation(HASH_BITS)[: int(rng.integers(0, 50))].tolist())
    bits = np.unpackbits(hashes[:, 0], axis=1).astype(int)
    whole = {(i, j): int((bits[i] != bits[j]).sum()) for i in range(300) for j in range(i + 1, 300)}
    found = {pair[:2]: pair.distance for pair in near_pairs(hashes) if pair.view == 0}
    assert found
    assert all(whole[pair] == distance <= MAX_DISTANCE for pair, distance in found.items())
    close = {pair for pair, distance in whole.items() if distance <= 12}
    assert close <= set(found)


def test_small_things_on_plain_grounds_are_not_taken_for_one_another() -> None:
    pictures = []
    for seed in range(12):
        ground = Image.new("RGB", (200, 200), "white")
        ground.paste(scene(seed, size=(60, 60)), (70, 70))
        pictures.append(ground.convert("L"))
    assert near_pairs(np.stack([fingerprint(picture) for picture in pictures])) == []


def test_mirrored_pictures_swap_the_first_two_views() -> None:
    from PIL import ImageOps

    grey = scene(3).convert("L")
    mirrored = fingerprint(ImageOps.mirror(grey))
    assert (
        np.unpackbits(mirrored[0]) != np.unpackbits(fingerprint(grey)[1])
    ).sum() <= MAX_DISTANCE / 4
