"""Images as people have them at hand: paths, bytes, open files, PIL images, arrays."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cliptune.data.reading import array_to_image, decode, read_content, read_image, to_rgb
from cliptune.errors import ImageError
from cliptune.files import user_path
from cliptune.hints import not_there
from cliptune.storage import address_of

ImageLike = str | Path | bytes | IO[bytes] | Image.Image | NDArray[np.uint8]


def to_image(image: Any, *, least_edge: int | None = None) -> Image.Image:
    """`image` in RGB and upright; `least_edge` as of `read_image`, for encoded images alone.

    A file is read from where it stands and left open. Raises `ImageError` for what cannot be read,
    and for what is no image.
    """
    if isinstance(image, str | Path):
        if address := address_of(image):
            return decode(read_content(address), least_edge=least_edge)
        path = user_path(image)
        if not os.path.lexists(path):
            raise ImageError(not_there(image, "there is no such file").rstrip("."))
        return read_image(path, least_edge=least_edge)
    if isinstance(image, np.ndarray):
        return array_to_image(image)
    if isinstance(image, Image.Image):
        return to_rgb(image)
    if isinstance(image, bytes | bytearray | memoryview):
        return decode(bytes(image), least_edge=least_edge)
    if hasattr(image, "read"):
        return decode(_content(image), least_edge=least_edge)
    raise ImageError(
        f"found {type(image).__name__}; expected a path, bytes, an open file, a PIL image or a "
        "uint8 array"
    )


def source_of(image: Any) -> str | None:
    """The path or address of `image`, where it is one."""
    return address_of(image) or str(image) if isinstance(image, str | Path) else None


def _content(file: Any) -> bytes:
    try:
        content = file.read()
    except (OSError, ValueError) as error:  # a closed file is a ValueError
        raise ImageError(f"the open file cannot be read: {error}") from None
    if not isinstance(content, bytes):
        raise ImageError("the open file gives text; open it in binary mode: open(path, 'rb')")
    return content
