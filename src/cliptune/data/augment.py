"""Random views of photos for training.

Shape suffixes: C channels, H height, W width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cliptune.data.images import Preprocess, to_CHW


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Random views for training: resized crop, horizontal flip, mild colour.

    `crop_scale` is the range of the crop's share of the image area, `crop_ratio` that of its
    width to its height (Szegedy et al., arXiv 1409.4842); `color` the largest relative change
    of brightness, contrast and saturation.
    """

    crop_scale: tuple[float, float] = (0.6, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    color: float = 0.1
    views: int | None = None  # as many different views of a photo; None: a new one each epoch

    def room(self, preprocess: Preprocess) -> int:
        """The shorter edge, in pixels, from which even the smallest square crop need not grow."""
        return int(np.ceil(max(preprocess.image_size) / np.sqrt(self.crop_scale[0])))

    def pixels(
        self, image_HWC: NDArray[np.uint8], preprocess: Preprocess, rng: np.random.Generator
    ) -> NDArray[np.uint8]:
        """(3, H, W) uint8: one random view of the RGB image, at the model's size."""
        left, top, right, bottom = self._crop_box(image_HWC.shape[:2], rng)
        crop_HWC = image_HWC[top:bottom, left:right]
        view_CHW = _resize(crop_HWC, preprocess.image_size, preprocess.resample)
        if rng.random() < self.flip:
            view_CHW = view_CHW[:, :, ::-1]
        if self.color > 0:
            brightness, contrast, saturation = 1 + self.color * rng.uniform(-1, 1, 3)
            view_CHW = _recolor(view_CHW, brightness, contrast, saturation)
        return np.ascontiguousarray(view_CHW)

    def _crop_box(
        self, size: tuple[int, ...], rng: np.random.Generator
    ) -> tuple[int, int, int, int]:
        """(left, top, right, bottom) of a random crop inside an image of `size` (height, width)."""
        height, width = size
        area = width * height * rng.uniform(*self.crop_scale)
        ratio = np.exp(rng.uniform(*np.log(self.crop_ratio)))
        crop_width = max(1, min(width, round(float(np.sqrt(area * ratio)))))
        crop_height = max(1, min(height, round(float(np.sqrt(area / ratio)))))
        left = int(rng.integers(width - crop_width + 1))
        top = int(rng.integers(height - crop_height + 1))
        return left, top, left + crop_width, top + crop_height


def _resize(
    image_HWC: NDArray[np.uint8], size: tuple[int, int], resample: int
) -> NDArray[np.uint8]:
    """(3, height, width) uint8: resized with antialiasing.

    torch does this for bytes four times as fast as Pillow and within two of 256 levels.
    """
    import torch

    modes = {Image.Resampling.BILINEAR: "bilinear", Image.Resampling.BICUBIC: "bicubic"}
    mode = modes.get(Image.Resampling(resample))
    if mode is None:
        height, width = size
        return to_CHW(Image.fromarray(image_HWC).resize((width, height), resample=resample))
    if image_HWC.shape[:2] == size:
        return image_HWC.transpose(2, 0, 1)
    image_BCHW = torch.from_numpy(image_HWC).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(image_BCHW, size=size, mode=mode, antialias=True)
    result: NDArray[np.uint8] = resized[0].numpy()
    return result


def _recolor(
    image_CHW: NDArray[np.uint8], brightness: float, contrast: float, saturation: float
) -> NDArray[np.uint8]:
    """Brightness, contrast and saturation scaled by these factors, in one pass.

    As Pillow's ImageEnhance defines them one after the other (towards black, towards the mean
    grey, towards each pixel's grey), but rounded and clipped once, at the end.
    """
    import torch

    image = torch.from_numpy(np.ascontiguousarray(image_CHW)).float().mul_(brightness)
    grey = image[0] * 0.299 + image[1] * 0.587 + image[2] * 0.114
    mean = float(grey.mean())
    image.mul_(contrast * saturation).add_(grey, alpha=contrast * (1 - saturation))
    image.add_(mean * (1 - contrast)).clamp_(0, 255).round_()
    result: NDArray[np.uint8] = image.byte().numpy()
    return result
