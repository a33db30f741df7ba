"""Perceptual hashes of a photo and of its usual altered copies: mirrored, or cut at an edge.

The hash is the difference hash of the library ImageHash: 256 bits, each telling whether a cell of
a 17 × 16 grey picture is darker than the one to its right. Scaling, compressing, brightening and
turning grey change few bits. Mirroring and cutting change many, so a photo has a hash for each of
the `VIEWS`: a copy that was cut by 5 % has nearly the hash that the photo has when cut by 5 %.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from cliptune.language import marked

HASH_EDGE = 16
HASH_BITS = HASH_EDGE**2
THUMB_EDGE = 48

# What each hash of a photo is taken of: (left, top, right, bottom) as shares of its size.
VIEWS: dict[str, tuple[float, float, float, float]] = {
    marked("as it is"): (0, 0, 1, 1),
    marked("mirrored"): (0, 0, 1, 1),
    marked("cut on all sides"): (0.025, 0.025, 0.975, 0.975),
    marked("cut on all sides by more"): (0.05, 0.05, 0.95, 0.95),
    marked("cut on the left"): (0.05, 0, 1, 1),
    marked("cut on the right"): (0, 0, 0.95, 1),
    marked("cut at the top"): (0, 0.05, 1, 1),
    marked("cut at the bottom"): (0, 0, 1, 0.95),
}
# Columns of bits of all views, 16 each, side by side.
_INSIDE = np.add.outer((HASH_EDGE + 1) * np.arange(len(VIEWS)), np.arange(HASH_EDGE)).ravel()


def fingerprint(grey: Image.Image) -> NDArray[np.uint8]:
    """(V, 32) packed bits: the hash of each of the `VIEWS` of a grey picture (mode "L")."""
    from imagehash import dhash

    thumb = grey.resize((THUMB_EDGE, THUMB_EDGE), Image.Resampling.BOX)
    mirrored = ImageOps.mirror(thumb)
    columns = HASH_EDGE + 1
    # The views side by side, so that the library's function runs once: it wants a picture one
    # column wider than high, and leaves one of that size as it is.
    width = columns * len(VIEWS)
    strip = Image.new("L", (width, width - 1))
    for place, (name, box) in enumerate(VIEWS.items()):
        left, top, right, bottom = (THUMB_EDGE * share for share in box)
        view = (mirrored if name == "mirrored" else thumb).resize(
            (columns, HASH_EDGE), Image.Resampling.BILINEAR, box=(left, top, right, bottom)
        )
        strip.paste(view, (columns * place, 0))
    # The bit between two views belongs to neither.
    bits = dhash(strip, hash_size=width - 1).hash[:HASH_EDGE, _INSIDE]
    bits = bits.reshape(HASH_EDGE, len(VIEWS), HASH_EDGE).transpose(1, 0, 2)
    return np.packbits(bits.reshape(len(VIEWS), HASH_BITS), axis=1)
