"""A photo is turned by its orientation alone, whatever else its EXIF data says."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from cliptune.checking.check import check
from cliptune.checking.inspection import inspect
from cliptune.data.reading import decode, find_unreadable
from cliptune.errors import ImageError
from cliptune.inference.images import to_image
from conftest import make_photos

Entry = tuple[int, int, int, bytes]  # tag, type, count, value
TURN: Entry = (0x0112, 3, 1, struct.pack("<H", 6))  # to be shown turned by 90 degrees clockwise
FLOAT_NAN = struct.pack("<f", float("nan"))
ILL_TYPED: dict[str, Entry] = {
    "text as resolution": (0x011A, 2, 3, b"abc"),
    "NaN as resolution": (0x011B, 11, 1, FLOAT_NAN),
    "text as width": (0x0100, 2, 4, b"abc\0"),
    "negative short as XMP": (0x02BC, 8, 1, struct.pack("<h", -1)),
    "negative byte as EXIF folder": (0x8769, 6, 1, b"\xff"),
    "rational as GPS folder": (0x8825, 10, 1, struct.pack("<ii", -1, 0)),
    "an unknown type": (0x010E, 99, 1, b"abcd"),
}


def picture() -> Image.Image:
    y, x = np.mgrid[0:40, 0:56]
    return Image.fromarray(np.stack([4 * x, 6 * y, 120 + 0 * x], -1).astype(np.uint8))


def exif(*entries: Entry) -> bytes:
    """EXIF data with these entries, whatever their types."""
    head, data = struct.pack("<H", len(entries)), b""
    start = 8 + 2 + 12 * len(entries) + 4
    for tag, kind, count, value in sorted(entries):
        place = value.ljust(4, b"\0") if len(value) <= 4 else struct.pack("<I", start + len(data))
        head += struct.pack("<HHI", tag, kind, count) + place
        data += value if len(value) > 4 else b""
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + head + struct.pack("<I", 0) + data


def encoded(format_: str, **options: Any) -> bytes:
    """The picture as a camera held sideways stores it."""
    stored = picture().transpose(Image.Transpose.ROTATE_90)
    file = io.BytesIO()
    if format_ == "JPEG":
        options["quality"] = 95
    stored.save(file, format_, **options)
    return file.getvalue()


def tiff(*more: Entry) -> bytes:
    """The same as an uncompressed TIFF, whose own tags those of EXIF are."""
    stored = picture().transpose(Image.Transpose.ROTATE_90)
    pixels, long = stored.tobytes(), struct.Struct("<I").pack
    tags = {
        256: long(stored.width), 257: long(stored.height), 259: long(1), 262: long(2),
        277: long(3), 278: long(stored.height), 279: long(len(pixels)),
    }  # fmt: skip
    entries = [(tag, 4, 1, value) for tag, value in tags.items()]
    entries += [(258, 3, 3, struct.pack("<HHH", 8, 8, 8)), TURN, *more]
    size = len(exif(*entries, (273, 4, 1, long(0)))) - len(b"Exif\0\0")
    return exif(*entries, (273, 4, 1, long(size))).removeprefix(b"Exif\0\0") + pixels


def pixels(content: bytes) -> NDArray[np.uint8]:
    return np.asarray(decode(content))


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("tag", ILL_TYPED.values(), ids=ILL_TYPED)
def test_an_ill_typed_tag_changes_no_pixel(format_: str, tag: Entry, tmp_path: Path) -> None:
    clean, odd = (encoded(format_, exif=exif(TURN, *more)) for more in ([], [tag]))
    assert pixels(clean).shape == (40, 56, 3)
    np.testing.assert_array_equal(pixels(odd), pixels(clean))
    (path := tmp_path / "odd.jpg").write_bytes(odd)
    assert find_unreadable([path]) == []
    assert (inspect(path).fault, inspect(path).orientation) == ("", 6)


@pytest.mark.parametrize("name", [name for name in ILL_TYPED if "width" not in name])
def test_an_ill_typed_tag_of_a_tiff_changes_no_pixel(name: str) -> None:
    np.testing.assert_array_equal(pixels(tiff()), picture())
    np.testing.assert_array_equal(pixels(tiff(ILL_TYPED[name])), picture())


def test_check_leaves_photos_with_ill_typed_tags_in_place(tmp_path: Path) -> None:
    make_photos(tmp_path, counts={"train": 2}, classes=("red", "blue"))
    for i, tag in enumerate(ILL_TYPED.values()):
        content = encoded("JPEG", exif=exif(TURN, tag))
        (tmp_path / "train" / "red" / f"odd{i}.jpg").write_bytes(content)
    result = check(tmp_path, progress=False)
    assert not {"unreadable", "truncated"} & {finding.kind for finding in result.findings}


@pytest.mark.parametrize("turn", range(1, 9))
def test_all_eight_orientations_show_the_same_picture(turn: int) -> None:
    back = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    stored = picture().transpose(back[turn]) if turn > 1 else picture()
    file = io.BytesIO()
    tags = exif((0x0112, 3, 1, struct.pack("<H", turn)), ILL_TYPED["text as resolution"])
    stored.save(file, "PNG", exif=tags)
    np.testing.assert_array_equal(pixels(file.getvalue()), picture())


def test_orientation_is_found_in_xmp_and_behind_the_pixels_of_a_png() -> None:
    xmp = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6"/></x:xmpmeta>'
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", xmp)
    for content in (
        encoded("PNG", pnginfo=text),
        encoded("WEBP", xmp=xmp.encode(), lossless=True),
        encoded("JPEG", xmp=xmp.encode()),
    ):
        assert pixels(content).shape == (40, 56, 3)
    content = encoded("PNG", exif=exif(TURN))
    start = content.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(content[start : start + 4], "big")
    rest = content[:start] + content[end:]
    last = rest.index(b"IEND") - 4
    np.testing.assert_array_equal(pixels(rest[:last] + content[start:end] + rest[last:]), picture())


@pytest.mark.parametrize("format_", ["JPEG", "PNG"])
def test_a_truncated_photo_is_not_called_damaged_exif(format_: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, format_, exif=exif(TURN))
    (path := tmp_path / "cut.jpg").write_bytes(file.getvalue()[: len(file.getvalue()) * 3 // 4])
    with Image.open(path) as lazy:
        for image in (path, lazy):
            with pytest.raises(ImageError, match="truncated") as caught:
                to_image(image)
            assert "EXIF" not in str(caught.value)
    assert inspect(path).fault == "truncated"
