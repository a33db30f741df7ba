"""The files of `forms.py`: one photo in every form that people's files come in.

Shape suffixes: H height, W width, C channels.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from PIL import Image, ImageCms, PngImagePlugin
from PIL.TiffImagePlugin import ImageFileDirectory_v2

Photo = Image.Image
BACK = {  # how to store a photo that this orientation sets upright again
    1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270,
}  # fmt: skip
DOUBLE = 12  # a type of TIFF
# Primaries as X, Y, Z under D50, as the profiles of these spaces hold them.
DISPLAY_P3 = ((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841))
ADOBE_RGB = ((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446))


@dataclass(frozen=True)
class Form:
    """A form: its file, and whether it should be exact, rounded, lossy, or refused."""

    name: str
    ending: str
    make: Callable[[Photo], bytes]
    expected: str = "exact"
    grey: bool = False  # to be compared with the plain grey photo


def saved(photo: Photo, kind: str, mode: str | None = None, **options: Any) -> bytes:
    file = io.BytesIO()
    (photo.convert(mode) if mode else photo).save(file, kind, **options)
    return file.getvalue()


def exif(*entries: tuple[int, int, int, bytes]) -> bytes:
    """EXIF data of (tag, type, count, value), whether or not they go together."""
    head, data, start = struct.pack("<H", len(entries)), b"", 8 + 2 + 12 * len(entries) + 4
    for tag, kind, count, value in sorted(entries):
        place = value.ljust(4, b"\0") if len(value) <= 4 else struct.pack("<I", start + len(data))
        head += struct.pack("<HHI", tag, kind, count) + place
        data += value if len(value) > 4 else b""
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + head + struct.pack("<I", 0) + data


def turned(
    photo: Photo, kind: str, turn: int, *more: tuple[int, int, int, bytes], **options: Any
) -> bytes:
    """Stored turned, with the orientation that says so, and `more` tags."""
    tag = (0x0112, 3, 1, struct.pack("<H", turn))
    back = BACK[turn]
    stored = photo if back is None else photo.transpose(back)
    return saved(stored, kind, exif=exif(tag, *more), **options)


def turned_by_xmp(photo: Photo, kind: str) -> bytes:
    xmp = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="8"/></x:xmpmeta>'
    stored = photo.transpose(Image.Transpose.ROTATE_270)
    if kind != "PNG":
        return saved(stored, kind, xmp=xmp.encode(), lossless=True)
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", xmp)
    return saved(stored, kind, pnginfo=text)


def grey(photo: Photo, factor: float, kind: str = "PNG", type_: Any = np.uint16,
         *, offset: float = 0, tags: dict[int, Any] | None = None) -> bytes:  # fmt: skip
    """Grey levels times `factor` plus `offset` as numbers of another type."""
    values_HW = np.asarray(photo.convert("L")).astype(np.float64) * factor + offset
    values_HW = values_HW if np.dtype(type_).kind == "f" else np.round(values_HW)
    options: dict[str, Any] = {}
    if kind == "TIFF":
        info = options["tiffinfo"] = ImageFileDirectory_v2()
        for tag, value in (tags or {}).items():
            if isinstance(value, float):
                info.tagtype[tag] = DOUBLE
            info[tag] = value
    return saved(Image.fromarray(values_HW.astype(type_)), kind, **options)


def png16(photo: Photo, mode: str, factor: int) -> bytes:
    """A PNG of 16 bits a channel, which Pillow does not write."""
    values_HWC = np.asarray(photo.convert(mode)).astype(np.uint16) * factor
    if mode.endswith("A"):
        values_HWC[..., -1] = 65535

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(
            ">I", zlib.crc32(kind + data)
        )  # fmt: skip

    height, width, _ = values_HWC.shape
    kind = {"LA": 4, "RGB": 2, "RGBA": 6}[mode]
    rows = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values_HWC)
    head = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def with_alpha(photo: Photo, kind: str, **options: Any) -> bytes:
    opaque = photo.convert("RGBA")
    opaque.putalpha(255)
    return saved(opaque, kind, **options)


def animated(photo: Photo, kind: str, **options: Any) -> bytes:
    """The photo first, then its negative."""
    other = Image.eval(photo, lambda level: 255 - level)
    return saved(photo, kind, save_all=True, append_images=[other], **options)


def profile(primaries: tuple[tuple[float, float, float], ...], gamma: float) -> bytes:
    """An ICC profile, version 2: primaries and one gamma."""

    def fixed(*values: float) -> bytes:
        return b"".join(struct.pack(">i", round(65536 * value)) for value in values)

    def place(*xyz: float) -> bytes:
        return b"XYZ \0\0\0\0" + fixed(*xyz)

    curve = b"curv\0\0\0\0" + struct.pack(">IHH", 1, round(256 * gamma), 0)
    text = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(8 + 3 + 67)
    text += bytes(-len(text) % 4)
    white = (0.9642, 1.0, 0.8249)
    tags = {b"desc": text, b"wtpt": place(*white), b"cprt": b"text\0\0\0\0CC0\0"}
    tags |= {
        name + b"XYZ": place(*xyz) for name, xyz in zip((b"r", b"g", b"b"), primaries, strict=True)
    }
    tags |= {name + b"TRC": curve for name in (b"r", b"g", b"b")}
    start, heads, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        heads += name + struct.pack(">II", start + len(body), len(data))
        body += data
    size = start + len(body)
    head = struct.pack(">I4sI4s4s4s", size, b"\0\0\0\0", 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    head += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + bytes(28) + fixed(*white)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + heads + body


def in_space(photo: Photo, primaries: tuple[tuple[float, float, float], ...]) -> bytes:
    """The photo's colours as numbers of another space, with its profile."""
    icc = profile(primaries, 2.2)
    there = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    converted = ImageCms.profileToProfile(photo, ImageCms.createProfile("sRGB"), there)
    assert converted is not None
    return saved(converted, "PNG", icc_profile=icc)


def with_srgb_profile(photo: Photo, kind: str, **options: Any) -> bytes:
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return saved(photo, kind, icc_profile=icc, **options)


def cut(content: bytes) -> bytes:
    return content[: len(content) * 2 // 3]


P, TEXT, NAN = partial, (0x011A, 2, 3, b"abc"), (0x011B, 11, 1, struct.pack("<f", float("nan")))
WIDTH, XMP = (0x0100, 2, 4, b"abc\0"), (0x02BC, 8, 1, struct.pack("<h", -1))
FORMS = [
    # Containers, 8 bits a channel.
    Form("JPEG, quality 95", ".jpg", P(saved, kind="JPEG", quality=95), "lossy"),
    Form("JPEG, quality 75", ".jpeg", P(saved, kind="JPEG", quality=75), "lossy"),
    Form("JPEG, quality 30, 4:2:0", ".jfif",
         P(saved, kind="JPEG", quality=30, subsampling=2), "lossy"),
    Form("JPEG, progressive, 4:4:4", ".jpe",
         P(saved, kind="JPEG", quality=95, progressive=True, subsampling=0), "lossy"),
    Form("JPEG, grey", ".jpg", P(saved, kind="JPEG", mode="L", quality=95), "lossy", True),
    Form("JPEG, CMYK without a profile", ".jpg",
         P(saved, kind="JPEG", mode="CMYK", quality=95), "lossy"),
    Form("PNG with alpha, opaque", ".png", P(with_alpha, kind="PNG")),
    Form("PNG, grey with alpha", ".png", P(saved, kind="PNG", mode="LA"), "exact", True),
    Form("PNG, palette of 256", ".png",
         lambda photo: saved(photo.quantize(256), "PNG"), "lossy"),
    Form("WebP, lossless", ".webp", P(saved, kind="WEBP", lossless=True)),
    Form("WebP, quality 80", ".webp", P(saved, kind="WEBP", quality=80), "lossy"),
    Form("WebP, lossless, with alpha", ".webp", P(with_alpha, kind="WEBP", lossless=True)),
    Form("WebP, animated", ".webp", P(animated, kind="WEBP", lossless=True)),
    Form("AVIF, quality 90", ".avif", P(saved, kind="AVIF", quality=90), "lossy"),
    Form("GIF", ".gif", P(saved, kind="GIF"), "lossy"),
    Form("GIF, animated", ".gif", P(animated, kind="GIF"), "lossy"),
    Form("BMP", ".bmp", P(saved, kind="BMP")),
    Form("TIFF", ".tif", P(saved, kind="TIFF")),
    Form("TIFF, LZW", ".tiff", P(saved, kind="TIFF", compression="tiff_lzw")),
    Form("TIFF, several pages", ".tif", P(animated, kind="TIFF")),
    Form("TIFF, BigTIFF", ".tif", P(saved, kind="TIFF", big_tiff=True)),
    Form("TIFF, JPEG inside", ".tif",
         P(saved, kind="TIFF", compression="jpeg", quality=95), "lossy"),
    Form("TIFF, CMYK", ".tif", P(saved, kind="TIFF", mode="CMYK"), "lossy"),
    Form("JPEG 2000", ".jp2", P(saved, kind="JPEG2000")),
    # Depth.
    Form("grey, 8 bits in 16", ".png", P(grey, factor=1), "exact", True),
    Form("grey, 10 bits in 16", ".png", P(grey, factor=1023 / 255), "rounded", True),
    Form("grey, 12 bits in 16", ".png", P(grey, factor=4095 / 255), "rounded", True),
    Form("grey, 14 bits in 16", ".png", P(grey, factor=16383 / 255), "rounded", True),
    Form("grey, 16 bits", ".png", P(grey, factor=257), "exact", True),
    Form("grey, 16 bits", ".tif", P(grey, factor=257, kind="TIFF"), "exact", True),
    Form("grey, 16 bits, white is zero", ".tif",
         P(grey, factor=-257, offset=65535, kind="TIFF", tags={262: 0}), "exact", True),
    Form("grey, 32 bits, 0 to 255", ".tif", P(grey, factor=1, kind="TIFF", type_=np.int32),
         "exact", True),
    Form("floating point, 0 to 1", ".tif",
         P(grey, factor=1 / 255, kind="TIFF", type_=np.float32), "exact", True),
    Form("floating point, 0 to 255", ".tif", P(grey, factor=1, kind="TIFF", type_=np.float32),
         "exact", True),
    Form("floating point, −1 to 1, declared", ".tif",
         P(grey, factor=2 / 255, offset=-1, kind="TIFF", type_=np.float32,
           tags={340: -1.0, 341: 1.0}), "exact", True),
    Form("floating point, −1 to 1, not declared", ".tif",
         P(grey, factor=2 / 255, offset=-1, kind="TIFF", type_=np.float32), "refused", True),
    Form("floating point with NaN", ".tif",
         P(grey, factor=np.nan, kind="TIFF", type_=np.float32), "refused", True),
    Form("whole numbers below 0", ".tif",
         P(grey, factor=1, offset=-128, kind="TIFF", type_=np.int32), "refused", True),
    Form("colour, 16 bits", ".png", P(png16, mode="RGB", factor=257)),
    Form("colour with alpha, 16 bits", ".png", P(png16, mode="RGBA", factor=257)),
    Form("grey with alpha, 16 bits", ".png", P(png16, mode="LA", factor=257), "exact", True),
    Form("colour, 14 bits in 16", ".png", P(png16, mode="RGB", factor=64), "refused"),
    Form("colour, 12 bits in 16", ".png", P(png16, mode="RGB", factor=16), "refused"),
    Form("colour, 8 bits in 16", ".png", P(png16, mode="RGB", factor=1), "refused"),
    # Orientation and tags.
    *(Form(f"orientation {turn}", ".png", P(turned, kind="PNG", turn=turn))
      for turn in range(2, 9)),
    Form("orientation 6", ".jpg", P(turned, kind="JPEG", turn=6, quality=95), "lossy"),
    Form("orientation 6", ".webp", P(turned, kind="WEBP", turn=6, lossless=True)),
    Form("orientation 6", ".tif", P(turned, kind="TIFF", turn=6)),
    Form("orientation 8 in XMP", ".png", P(turned_by_xmp, kind="PNG")),
    Form("orientation 8 in XMP", ".webp", P(turned_by_xmp, kind="WEBP")),
    *(Form(f"orientation 6, {name}", ".png",
           lambda photo, tag=tag: turned(photo, "PNG", 6, tag))  # type: ignore[misc]
      for name, tag in (("text as resolution", TEXT), ("NaN as resolution", NAN),
                        ("text as width", WIDTH), ("a number as XMP", XMP))),
    # Colour profiles.
    Form("sRGB profile", ".png", P(with_srgb_profile, kind="PNG")),
    Form("Display P3 with its profile", ".png", P(in_space, primaries=DISPLAY_P3), "profile"),
    Form("Adobe RGB with its profile", ".png", P(in_space, primaries=ADOBE_RGB), "profile"),
    # Damage.
    Form("cut short", ".jpg", lambda photo: cut(saved(photo, "JPEG", quality=95)), "refused"),
    Form("cut short", ".png", lambda photo: cut(saved(photo, "PNG")), "refused"),
]  # fmt: skip
