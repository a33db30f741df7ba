"""A map of evidence laid over the photo it was made from. Needs no matplotlib.

Shape suffixes: h height and w width in patches, H and W in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from cliptune.data.reading import read_image
from cliptune.language import marked
from cliptune.model.attention import evidence_maps
from cliptune.model.classifier import Classifier

HEAT_METHOD = marked("attention weighted by its gradient, Chefer et al., ICCV 2021")

# Evidence from 0 to 1 as colours whose lightness rises all the way, so that they are read without
# telling hues apart, and in grey: points of matplotlib's "plasma" (Smith and van der Walt, 2015),
# most of whose colours are rare in photos of animals.
RAMP = np.array([(13, 8, 135), (126, 3, 168), (204, 71, 120), (248, 149, 64), (240, 249, 33)])
OPACITY = 0.7  # at full evidence: what lies below is still seen


def overlay(view: Image.Image, map_hw: NDArray[np.floating]) -> Image.Image:
    """`view` with the evidence in `map_hw` (each in [0, 1]) over it: RGB of the same size.

    Colour covers a pixel by the root of its evidence, since most patches have a tenth of the
    strongest one's and would not be seen; where there is none, the photo is untouched.

    `view` is the part of a photo that the model saw, `preprocess.view(photo)`; for a larger
    picture of the same part, `preprocess.scaled(edge).view(photo)`.
    """
    rgb_HW3 = np.asarray(view, dtype=np.float32)
    small = Image.fromarray(np.asarray(map_hw, dtype=np.float32))
    large = small.resize(view.size, resample=Image.Resampling.BILINEAR)
    evidence_HW = np.clip(np.asarray(large), 0, 1)
    levels = np.linspace(0, 1, len(RAMP))
    color_HW3 = np.stack([np.interp(evidence_HW, levels, RAMP[:, c]) for c in range(3)], axis=-1)
    opacity_HW1 = OPACITY * np.sqrt(evidence_HW)[:, :, None]
    mixed_HW3 = (1 - opacity_HW1) * rgb_HW3 + opacity_HW1 * color_HW3
    return Image.fromarray(np.round(mixed_HW3).astype(np.uint8))


def evidence_pictures(
    classifier: Classifier,
    paths: Sequence[Path],
    classes_N: NDArray[np.integer[Any]],
    device: torch.device,
    *,
    batch_size: int = 8,
) -> list[Image.Image]:
    """For each photo, its view with the evidence for the class `classes_N[n]` over it.

    `classifier` as `evidence_maps` wants it. Raises `ImageError` for a photo that is gone.
    """
    preprocess, pictures = classifier.preprocess, []
    for start in range(0, len(paths), batch_size):
        images = [read_image(path) for path in paths[start : start + batch_size]]
        pixels_BCHW = np.stack([preprocess.pixels(image) for image in images])
        maps_Bhw = evidence_maps(
            classifier,
            torch.from_numpy(pixels_BCHW).to(device),
            torch.from_numpy(classes_N[start : start + batch_size]).to(device),
        )
        views = [preprocess.view(image) for image in images]
        pictures += [overlay(view, seen) for view, seen in zip(views, maps_Bhw, strict=True)]
    return pictures
