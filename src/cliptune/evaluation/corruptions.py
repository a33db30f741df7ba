"""Photos made worse on purpose: what a camera, a messenger or an unsteady hand does to them.

The idea is that of Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common
Corruptions and Perturbations", ICLR 2019, arXiv 1903.12261. Ours differ: seven kinds in three
strengths instead of fifteen in five, with rotation and cropping among them and without weather;
done to the photo as it is seen, before the model's resize, where theirs are done to the finished
224 × 224 crop; and sized by the photo, so that its resolution does not matter. The figures are not
comparable with those of ImageNet-C.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

STRENGTHS = (1, 2, 3)
# Of noise and of JPEG's blocks, a pixel is this share of the photo's shorter edge: about what the
# models see of it. A finer grain of a larger photo would be averaged away by their resize.
GRAIN_EDGE = 256
JPEG_LONGEST = 65_500  # pixels; the format allows a few more

Apply = Callable[[Image.Image, float, np.random.Generator], Image.Image]


@dataclass(frozen=True)
class Corruption:
    """One kind of damage. `apply(image, level, rng)` does it to an RGB image of any size."""

    apply: Apply
    levels: tuple[float, float, float]  # of strengths 1, 2, 3
    meaning: str  # what a level is, with its unit


@dataclass(frozen=True)
class Alteration:
    """A corruption of one strength, in the form that `PhotoDataset` takes.

    What is random in it depends on (seed, index of the photo) alone: neither order nor workers
    change it, and the strengths of a photo differ by nothing but strength. Strength 0 gives the
    very image back.
    """

    corruption: str  # a key of CORRUPTIONS
    strength: int
    seed: int = 0

    def __call__(self, image: Image.Image, index: int) -> Image.Image:
        if self.strength == 0:
            return image
        chosen = CORRUPTIONS[self.corruption]
        rng = np.random.default_rng([self.seed, index])
        return chosen.apply(image, chosen.levels[self.strength - 1], rng)


def _blur(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(level * min(image.size)))


def _noise(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Each channel of each grain by itself; smaller photos have a grain for every pixel."""
    width, height = _grain_size(image)
    grains_HW3 = level * rng.standard_normal((height, width, 3), dtype=np.float32)
    rows = np.arange(image.height) * height // image.height
    columns = np.arange(image.width) * width // image.width
    # int16: a third of the time of float32 on 12 megapixels.
    noise_HW3 = np.round(grains_HW3).astype(np.int16)[:, columns][rows]
    noise_HW3 += np.asarray(image)
    return Image.fromarray(np.clip(noise_HW3, 0, 255).astype(np.uint8))


def _jpeg(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Reduced, compressed, and brought back to its size, as photos sent by messengers are."""
    file = io.BytesIO()
    size = _grain_size(image)
    small = image if size == image.size else image.resize(size, Image.Resampling.LANCZOS)
    small.save(file, format="JPEG", quality=int(level))
    with Image.open(file) as compressed:
        back = compressed.convert("RGB")
    return back if size == image.size else back.resize(image.size, Image.Resampling.BICUBIC)


def _brightness(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(level)


def _rotation(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """Either way round, of the same size; the corners are filled by reflection at the edges.

    Black corners would be a frame of their own, which models may take for something.
    """
    from scipy.ndimage import rotate

    angle = level if rng.random() < 0.5 else -level
    # Unlike Pillow's, this one reflects without a larger copy, which a long strip would not fit.
    turned_HW3 = rotate(np.asarray(image), angle, reshape=False, order=1, mode="reflect")
    return Image.fromarray(turned_HW3)


def _crop(image: Image.Image, level: float, rng: np.random.Generator) -> Image.Image:
    """A part at a random place, `level` of each edge long: the dog comes nearer or is cut off."""
    width, height = (max(1, round(level * edge)) for edge in image.size)
    left = round(rng.random() * (image.width - width))
    top = round(rng.random() * (image.height - height))
    return image.crop((left, top, left + width, top + height))


def _grain_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) of `image` in grains: its own size, or smaller."""
    factor = min(1.0, GRAIN_EDGE / min(image.size), JPEG_LONGEST / max(image.size))
    return max(1, round(image.width * factor)), max(1, round(image.height * factor))


CORRUPTIONS = {
    "blur": Corruption(_blur, (0.005, 0.01, 0.02), "Gaussian sigma, share of the shorter edge"),
    "noise": Corruption(_noise, (15, 30, 60), "Gaussian sigma, of 255 levels"),
    "jpeg": Corruption(_jpeg, (40, 20, 10), "JPEG quality"),
    "darker": Corruption(_brightness, (0.7, 0.5, 0.3), "factor on every pixel value"),
    "brighter": Corruption(_brightness, (1.3, 1.6, 2.0), "factor on every pixel value"),
    "rotation": Corruption(_rotation, (5, 15, 30), "degrees, either way round"),
    "crop": Corruption(_crop, (0.9, 0.75, 0.6), "share kept of each edge, at a random place"),
}
