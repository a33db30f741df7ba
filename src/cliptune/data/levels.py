"""From pixels of more than 8 bits to levels of 0 to 255.

The rule, for whole numbers of 16 or 32 bits and for floating point: the range is what the file
declares (TIFF's SMinSampleValue and SMaxSampleValue, or 12 BitsPerSample), else the smallest full
range that holds the largest value: 1 or that of 8, 10, 12, 14 or 16 bits for whole numbers; 1,
255 or 65,535 for floating point. What fits no range (below 0, above 65,535, NaN, infinite, or all
below a sixteenth of its range, which would be black) is refused with the values found. Colours of
16 bits, of which Pillow keeps the upper 8, are refused where the rule asks for another range.

It depends on the file alone. PNG's sBIT is not asked: it tells how precise values are, which span
all 16 bits regardless. Nor are TIFF's MinSampleValue and MaxSampleValue, which are statistics.

Shape suffixes: H height, W width.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cliptune.errors import ImageError

# Largest values of the ranges that are known.
WHOLE_RANGES = (1, *(2**bits - 1 for bits in (8, 10, 12, 14, 16)))
FLOAT_RANGES = (1, 255, 65535)
_LEAST_SHARE = 1 / 16  # of its range that the largest value must reach
_OVERSHOOT = 1e-3  # of the range: what floating point may stand beyond its ends by rounding

# TIFF's tags, and the values of two.
_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT, _SMIN, _SMAX = 258, 262, 339, 340, 341
_WHITE_IS_ZERO, _SIGNED = 0, 2


class Range(NamedTuple):
    """What black and white are in an image."""

    black: float
    white: float

    def __str__(self) -> str:
        return f"{_shown(self.black)} to {_shown(self.white)}"


def is_deep(image: Image.Image) -> bool:
    """Whether `image` is grey of 16 bits, 32 bits, or floating point, or of signed numbers."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16") or _is_signed_byte(image)


def find_range(image: Image.Image) -> Range:
    """The range of a deep `image` by the rule above. Raises `ImageError` where none fits."""
    values_HW = _values(image)
    low, high = float(values_HW.min()), float(values_HW.max())  # NaN where one value is
    declared = _declared(image)
    if declared is not None and declared.black <= low and high <= declared.white:
        return declared
    ranges, slack = (FLOAT_RANGES, _OVERSHOOT) if image.mode == "F" else (WHOLE_RANGES, 0.0)
    for white in ranges:
        if -slack * white <= low and high <= white * (1 + slack):
            if white > ranges[0] and high < _LEAST_SHARE * white:
                break
            return Range(0, white)
    found = f"run from {_shown(low)} to {_shown(high)}"
    if not np.isfinite([low, high]).all():
        found = "hold NaN or infinity"
    raise ImageError(
        f"its pixels ({image.mode}) {found}, which fits no range: expected 0 to "
        f"{', '.join(f'{white:,}' for white in ranges[:-1])} or {ranges[-1]:,}, and a sixteenth of "
        "that reached. Scale them to 0 to 255 and save them with 8 bits"
    )


def to_levels(image: Image.Image) -> Image.Image:
    """The deep `image` in mode "L". Raises `ImageError` where its range is not known."""
    found = find_range(image)
    values_HW = _values(image)
    levels_HW: NDArray[np.uint8]
    if image.mode != "F" and found.black == 0 and found.white in WHOLE_RANGES:
        white = int(found.white)
        # All of 16 bits is rounded down, as colours of 16 bits are.
        table = (np.arange(white + 1) * 255 + (0 if white == 65535 else white // 2)) // white
        levels_HW = table.astype(np.uint8)[values_HW]
    else:
        share_HW = (values_HW - np.float32(found.black)) / np.float32(found.white - found.black)
        levels_HW = np.clip(np.round(255 * share_HW), 0, 255).astype(np.uint8)
    if _tag(image, _PHOTOMETRIC) == _WHITE_IS_ZERO:
        levels_HW = 255 - levels_HW
    hidden = image.info.get("transparency")
    if isinstance(hidden, int):  # PNG: the one value that is transparent
        levels_HW[values_HW == hidden] = 255
    return Image.fromarray(levels_HW)


def loses_lower_half(image: Image.Image) -> bool:
    """Whether decoding `image` will keep 8 of the 16 bits of its colours. Ask before decoding.

    Pillow has no colours of 16 bits: it keeps the upper half of each, in PNG and TIFF.
    """
    modes = [str(tile[3][0] if isinstance(tile[3], tuple) else tile[3])
             for tile in getattr(image, "tile", ())]  # fmt: skip
    return not is_deep(image) and any(re.search(r";16[BLN]$", mode) for mode in modes)


def check_upper_half(image: Image.Image) -> None:
    """Refuse colours cut from 16 to 8 bits of which less than 6 bits of a picture are left.

    Their range is that of 14 bits or fewer by the rule above, and the half that tells them apart
    is gone. Raises `ImageError`.
    """
    extrema: Any = image.getextrema()
    bands = image.getbands()
    highest = max(high for name, (_, high) in zip(bands, extrema, strict=True) if name != "A")
    if highest < 2**6:
        raise ImageError(
            f"its colours of 16 bits hold no value above {256 * highest + 255:,} of 65,535: all "
            "would be dark or black. Scale them to 0 to 255 and save them with 8 bits"
        )


def _shown(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.6g}"


def _is_signed_byte(image: Image.Image) -> bool:
    """Whether Pillow took signed numbers of 8 bits for unsigned ones."""
    return image.mode == "L" and _number(_tag(image, _SAMPLE_FORMAT)) == _SIGNED


def _values(image: Image.Image) -> NDArray[Any]:
    """(H, W): the numbers that `image` holds."""
    values_HW = np.asarray(image)
    return values_HW.view(np.int8) if _is_signed_byte(image) else values_HW


def _declared(image: Image.Image) -> Range | None:
    """The range that a TIFF file itself states."""
    ends = _number(_tag(image, _SMIN)), _number(_tag(image, _SMAX))
    if ends[0] is not None and ends[1] is not None and ends[0] < ends[1]:
        return Range(ends[0], ends[1])
    if _number(_tag(image, _BITS_PER_SAMPLE)) == 12:
        return Range(0, 2**12 - 1)
    return None


def _tag(image: Image.Image, tag: int) -> Any:
    """A tag of a TIFF image; None where it has none, or is no TIFF."""
    try:
        return getattr(image, "tag_v2", {}).get(tag)
    except Exception:  # hostile bytes
        return None


def _number(value: Any) -> float | None:
    """A finite number, alone or the same for each sample."""
    if isinstance(value, tuple) and len(set(value)) == 1:
        value = value[0]
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return number if np.isfinite(number) else None
