"""From an image file to an RGB image, or to the reason why not.

Shape suffixes: H height, W width.
"""

from __future__ import annotations

import functools
import io
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from cliptune.data.levels import check_upper_half, is_deep, loses_lower_half, to_levels
from cliptune.data.orientation import forget_unreadable_tags, orientation, turned
from cliptune.errors import ImageError, MissingExtra, StorageError, UserError
from cliptune.foreign_errors import CANNOT_READ_NOW
from cliptune.language import translated as _
from cliptune.storage import address_of, read_bytes

P = ParamSpec("P")
T = TypeVar("T")

# Where a disk cannot read now: how long to wait before each further try, in seconds.
PAUSES = (0.5, 1.0, 2.0)
# The environment variable that says how many pixels an image may have; else Pillow's limit counts.
PIXEL_LIMIT = "CLIPTUNE_MAX_PIXELS"


class Unreadable(NamedTuple):
    """An image file that could not be decoded, and why."""

    path: Path | str  # an address is a str
    reason: str
    too_large: bool = False  # to be decoded safely; it may be whole

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class TooManyPixels(ImageError):
    """An image larger than it is safe to decode: a few bytes may claim any size."""


class _DiskError(ImageError):
    """The disk failed, perhaps for a moment: the file itself may be good."""


def _patiently(read: Callable[P, T]) -> Callable[P, T]:
    """`read`, tried again a few times where a disk (of the network, as a rule) failed."""

    @functools.wraps(read)
    def patient(*args: P.args, **options: P.kwargs) -> T:
        for pause in PAUSES:
            try:
                return read(*args, **options)
            except _DiskError:
                time.sleep(pause)
        return read(*args, **options)

    return patient


@_patiently
def read_image(path: Path, *, least_edge: int | None = None) -> Image.Image:
    """The image in `path` as it is meant to be seen: RGB, upright by its EXIF orientation.

    With `least_edge`, in pixels, a JPEG is decoded at the least of its size, a half, a quarter or
    an eighth whose shorter edge is as long: much faster, and not quite the same once resized.
    Raises `ImageError`, whose message is the reason without the path.
    """
    with _open(path) as image:
        return _rgb_of(image, least_edge)


@_patiently
def read_reduced(path: Path, *, edge: int, resample: int) -> NDArray[np.uint8]:
    """(H, W, 3) uint8: the image in `path`, its shorter edge at most `edge` pixels.

    For training only: a JPEG much larger than that is decoded at a half, a quarter or an eighth
    of its size, which is not quite what a decoder and a resize give. Smaller images stay as they
    are. Raises `ImageError`.
    """
    with _open(path) as image:
        image.draft("RGB", (edge, edge))
        rgb = to_rgb(image)
    if min(rgb.size) > edge:
        factor = edge / min(rgb.size)
        width, height = (max(edge, round(side * factor)) for side in rgb.size)
        rgb = rgb.resize((width, height), resample=resample)
    return np.array(rgb)


def to_rgb(image: Image.Image) -> Image.Image:
    """`image` decoded, upright and in 8-bit RGB, whatever its mode.

    Transparent pixels lie on white; pixels of more than 8 bits are scaled by the rule of
    `cliptune.data.levels`. Colours are taken as they are stored: profiles are not applied.
    Raises `ImageError` for damage, and for pixels of a range that cannot be told.
    """
    halved = loses_lower_half(image)
    load(image)
    if halved:
        check_upper_half(image)
    way_up = orientation(image)
    if is_deep(image):
        image = to_levels(image)
    if image.mode == "La":  # which Pillow turns into nothing else
        image = image.convert("LA")
    if image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        image = Image.alpha_composite(white, rgba)
    return turned(image if image.mode == "RGB" else image.convert("RGB"), way_up)


def array_to_image(array: NDArray[Any]) -> Image.Image:
    """An image from `array`: uint8, shape (H, W), (H, W, 3) or (H, W, 4).

    Raises `ImageError` for any other shape or type.
    """
    if (
        array.dtype != np.uint8
        or array.ndim not in (2, 3)
        or array.shape[2:] not in ((), (3,), (4,))
        or not array.size
    ):
        raise ImageError(
            f"an image array has shape {array.shape} and type {array.dtype}; "
            "expected uint8 of shape (height, width), (height, width, 3) or (height, width, 4)"
        )
    return to_rgb(Image.fromarray(array))


def find_unreadable(paths: Sequence[Path], *, progress: bool = False) -> list[Unreadable]:
    """Those of `paths` that cannot be decoded to the last byte, in the order given.

    JPEGs are decoded at an eighth of their size: all their data is read, at a third of the cost.
    """
    threads = os.cpu_count() or 1
    with ThreadPoolExecutor(threads) as pool:
        results = pool.map(_fault, paths, chunksize=16)
        hidden = None if progress else True  # None: shown on a terminal only
        bar = tqdm(results, _("reading"), len(paths), unit="img", leave=False, disable=hidden)
        return [fault for fault in bar if fault is not None]


@_patiently
def _read_through(path: Path) -> None:
    with _open(path) as image:
        image.draft("RGB", (1, 1))
        to_rgb(image)


def _fault(path: Path) -> Unreadable | None:
    try:
        _read_through(path)
    except ImageError as error:
        return Unreadable(path, str(error))
    return None


def _open(path: Path) -> Image.Image:
    """Open without decoding; every fault of the file becomes an `ImageError`."""
    with _file_faults(path):
        if path.stat().st_size == 0:
            raise ImageError("the file is empty")
        _heed_pixel_limit()
        return Image.open(path)


def read_content(path: Path | str) -> bytes:
    """The bytes of the file at a path or an address, not yet decoded. Raises `ImageError`.

    Also where a storage does not give it after several attempts; `MissingExtra` where no address
    of its kind can be read.
    """
    address = address_of(path)
    return _read_file(Path(path)) if address is None else _fetched(address)


@_patiently
def _read_file(path: Path) -> bytes:
    with _file_faults(path):
        return path.read_bytes()


def _fetched(address: str) -> bytes:
    try:
        return read_bytes(address)
    except MissingExtra:
        raise
    except StorageError as error:
        raise ImageError(error.why) from None
    except UserError as error:
        raise ImageError(str(error).removeprefix(f"{address}: ").rstrip(".")) from None


def open_content(content: bytes) -> Image.Image:
    """The image in `content`, not yet decoded. Raises `ImageError`."""
    if not content:
        raise ImageError("the file is empty")
    with _file_faults(None):
        _heed_pixel_limit()
        return Image.open(io.BytesIO(content))


def decode(content: bytes, *, least_edge: int | None = None) -> Image.Image:
    """The image in `content`, as `read_image` gives it. Raises `ImageError`."""
    with open_content(content) as image:
        return _rgb_of(image, least_edge)


def _rgb_of(image: Image.Image, least_edge: int | None) -> Image.Image:
    if least_edge is not None:
        image.draft("RGB", (least_edge, least_edge))
    return to_rgb(image)


@contextmanager
def _file_faults(path: Path | None) -> Iterator[None]:
    try:
        if path is not None and path.is_dir():
            raise ImageError("this is a folder, not an image")
        yield
    except FileNotFoundError:
        raise ImageError("there is no such file") from None
    except PermissionError:
        raise ImageError("no permission to read it") from None
    except UnidentifiedImageError:
        raise ImageError("not an image in a format that can be read") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise _reason(error) from None


def load(image: Image.Image) -> None:
    """Decode all of `image`; every fault of its data becomes an `ImageError`."""
    try:
        forget_unreadable_tags(image)
        image.load()
    except MemoryError:
        raise
    except Exception as error:  # decoders meet hostile bytes and raise nearly anything
        raise _reason(error, "damaged: ") from None


def _reason(error: Exception, before: str = "") -> ImageError:
    """What an error of the system or of a decoder means for the photo."""
    if isinstance(error, OSError) and error.errno in CANNOT_READ_NOW:
        return _DiskError(f"the disk cannot read it: {error.strerror}")
    if isinstance(error, Image.DecompressionBombError):
        return _too_many_pixels(error)
    return ImageError(f"{before}{error}")


def _too_many_pixels(error: Exception) -> TooManyPixels:
    number = re.search(r"\d+", str(error))  # Pillow tells it in its message alone
    found = f"{int(number[0]):,} pixels" if number else "more pixels"
    limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)  # Pillow warns at its limit and refuses at twice it
    return TooManyPixels(
        f"{found}, above the limit of {limit:,} that guards memory. Scale it down elsewhere; or, "
        f"if you trust it, set the environment variable {PIXEL_LIMIT} to a higher number"
    )


def _heed_pixel_limit() -> None:
    """Let Pillow, whose limit is one for the whole process, take the number in `PIXEL_LIMIT`."""
    given = os.environ.get(PIXEL_LIMIT)
    if given is None:
        return
    if not given.isdecimal() or int(given) < 1:
        raise UserError(f"{PIXEL_LIMIT}: found {given!r}; expected a whole number of pixels.")
    Image.MAX_IMAGE_PIXELS = -(-int(given) // 2)
