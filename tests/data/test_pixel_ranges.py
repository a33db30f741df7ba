"""Pixels of more than 8 bits: scaled by the range that is found, or refused with it."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from cliptune.checking.check import check
from cliptune.data.reading import decode, find_unreadable, read_image, read_reduced
from cliptune.errors import ImageError
from cliptune.inference.images import to_image
from conftest import make_photos

# A photo's levels: from black to white, and most of the way uneven.
GREY = np.add.outer(np.arange(16) * 8, np.arange(32) * 4).clip(0, 255).astype(np.uint8)
SHORT, DOUBLE = 3, 12  # types of TIFF


def tiff(values_HW: NDArray[Any], tags: dict[int, tuple[int, float]] | None = None) -> bytes:
    """A TIFF file of these numbers; `tags` maps a tag to its type and value."""
    info = ImageFileDirectory_v2()
    for tag, (kind, value) in (tags or {}).items():
        info.tagtype[tag] = kind
        info[tag] = value
    file = io.BytesIO()
    Image.fromarray(values_HW).save(file, "TIFF", tiffinfo=info)
    return file.getvalue()


def png16(values_HWC: NDArray[np.uint16]) -> bytes:
    """A PNG of 16 bits a channel, which Pillow reads and does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    height, width, channels = values_HWC.shape
    kind = {2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values_HWC)
    head = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def assert_is_the_photo(content: bytes, *, within: int) -> None:
    seen = np.asarray(decode(content), dtype=int)
    assert np.abs(seen - GREY[:, :, None]).max() <= within


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("kind", [np.uint16, np.int32])
def test_whole_numbers_are_read_by_the_smallest_range_that_holds_them(bits: int, kind: Any) -> None:
    values = np.round(GREY / 255 * (2**bits - 1)).astype(kind)
    assert_is_the_photo(tiff(values), within=1)


@pytest.mark.parametrize("white", [1, 255, 65535])
def test_floating_point_is_read_as_the_photo_it_holds(white: int) -> None:
    assert_is_the_photo(tiff((GREY / 255 * white).astype(np.float32)), within=0)
    rounded = (GREY / 255 * np.float32(white) * np.float32(1 + 1e-6)).astype(np.float32)
    assert_is_the_photo(tiff(rounded), within=0)


def test_photos_that_use_all_of_16_bits_keep_their_pixels() -> None:
    values = np.random.default_rng(0).integers(0, 65536, (16, 32), dtype=np.uint16)
    values[0, 0] = 65535
    seen = np.asarray(decode(tiff(values)))[:, :, 0]
    np.testing.assert_array_equal(seen, values // 257)


def test_a_mask_of_zeros_and_ones_is_black_and_white() -> None:
    for kind in (np.uint16, np.int32, np.float32):
        assert set(np.unique(np.asarray(decode(tiff((GREY > 99).astype(kind)))))) == {0, 255}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (GREY.astype(np.int32) - 128, r"run from -128 to 116"),
        (GREY.astype(np.int32) * 99999, r"run from 0 to 24,399,756"),
        ((GREY / 244 * 1.03).astype(np.float32), r"run from 0 to 1\.03"),
        ((GREY / 127.5 - 1).astype(np.float32), r"run from -1 to 0\.91"),
        (np.where(GREY > 99, np.nan, GREY).astype(np.float32), "NaN or infinity"),
        (np.where(GREY > 99, np.inf, GREY).astype(np.float32), "NaN or infinity"),
        ((GREY // 64).astype(np.uint16), r"run from 0 to 3, which fits no range"),
    ],
)
def test_pixels_that_fit_no_range_are_refused_with_what_was_found(
    values: NDArray[Any], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "odd.tif"
    path.write_bytes(tiff(values))
    with pytest.raises(ImageError, match=words + r".*expected 0 to 1, 255.*8 bits"):
        read_image(path)
    with pytest.raises(ImageError, match=words):
        read_reduced(path, edge=8, resample=3)
    assert [fault.path for fault in find_unreadable([path])] == [path]


def test_what_a_tiff_declares_counts_before_what_is_found() -> None:
    """SMinSampleValue is tag 340, SMaxSampleValue 341, PhotometricInterpretation 262."""
    signed = (GREY / 127.5 - 1).astype(np.float32)
    assert_is_the_photo(tiff(signed, {340: (DOUBLE, -1.0), 341: (DOUBLE, 1.0)}), within=0)
    of_4080 = GREY.astype(np.uint16) * 16
    assert_is_the_photo(tiff(of_4080, {340: (SHORT, 0), 341: (SHORT, 4080)}), within=0)
    dark = decode(tiff(of_4080, {340: (SHORT, 0), 341: (SHORT, 65535)}))
    assert np.asarray(dark).max() == 15
    negative = (65535 - GREY.astype(int) * 257).astype(np.uint16)
    assert_is_the_photo(tiff(negative, {262: (SHORT, 0)}), within=0)
    # What its pixels contradict is not believed.
    assert_is_the_photo(tiff(GREY.astype(np.uint16), {340: (SHORT, 0), 341: (SHORT, 9)}), within=0)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_colours_of_16_bits_use_all_of_them_or_are_refused(channels: int) -> None:
    def photo(factor: int) -> bytes:
        values = np.repeat(GREY[:, :, None].astype(np.uint16) * factor, channels, axis=2)
        if channels != 3:
            values[:, :, -1] = 65535  # opaque
        return png16(values)

    assert_is_the_photo(photo(257), within=0)
    for factor, highest in ((1, "255"), (16, "4,095"), (64, "15,871")):
        with pytest.raises(ImageError, match=f"no value above {highest} of 65,535"):
            decode(photo(factor))


def test_the_transparent_grey_of_16_bits_lies_on_white() -> None:
    file = io.BytesIO()
    Image.fromarray(GREY.astype(np.uint16) * 257).save(file, "PNG", transparency=0)
    seen = np.asarray(decode(file.getvalue()))[:, :, 0]
    np.testing.assert_array_equal(seen, np.where(GREY == 0, 255, GREY))


def test_an_image_from_memory_follows_the_rule_of_files() -> None:
    seen = to_image(Image.fromarray((GREY / 255).astype(np.float32)))
    np.testing.assert_array_equal(np.asarray(seen)[:, :, 0], GREY)


def test_check_says_what_was_taken_as_black_and_white(tmp_path: Path) -> None:
    make_photos(tmp_path, counts={"train": 2}, classes=("red", "blue"))
    (tmp_path / "train" / "red" / "deep.tif").write_bytes(tiff(GREY.astype(np.uint16) * 16))
    (tmp_path / "train" / "red" / "odd.tif").write_bytes(tiff(GREY.astype(np.int32) - 128))
    found = {f.files[0]: f for f in check(tmp_path, progress=False).findings if f.files}
    assert found["train/red/deep.tif"].detail == "I;16, 0 to 4,095 taken as black to white"
    assert found["train/red/odd.tif"].kind == "unreadable"
