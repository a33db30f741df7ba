"""From an image file to the pixels a base model expects.

Shape suffixes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from cliptune.errors import ImageError, ModelError

if TYPE_CHECKING:
    import torch


class Unreadable(NamedTuple):
    """An image file that could not be decoded, and why."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def read_image(path: Path) -> Image.Image:
    """The image in `path` as it is meant to be seen: RGB, upright by its EXIF orientation.

    Raises `ImageError`, whose message is the reason without the path.
    """
    with _open(path) as image:
        _load(image)
        return to_rgb(image)


def read_reduced(path: Path, *, edge: int, resample: int) -> NDArray[np.uint8]:
    """(H, W, 3) uint8: the image in `path`, its shorter edge at most `edge` pixels.

    For training only: a JPEG much larger than that is decoded at a half, a quarter or an eighth
    of its size, which is not quite what a decoder and a resize give. Smaller images stay as they
    are. Raises `ImageError`.
    """
    with _open(path) as image:
        image.draft("RGB", (edge, edge))
        _load(image)
        rgb = to_rgb(image)
    if min(rgb.size) > edge:
        factor = edge / min(rgb.size)
        width, height = (max(edge, round(side * factor)) for side in rgb.size)
        rgb = rgb.resize((width, height), resample=resample)
    return np.array(rgb)


def to_rgb(image: Image.Image) -> Image.Image:
    """`image` upright and in 8-bit RGB, whatever its mode.

    Transparent pixels lie on white; 16-bit grey is scaled to 8 bits, not cut off.
    """
    image = _upright(image)
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16"):
        return _grey16_to_rgb(np.asarray(image, dtype=np.uint16))
    if image.mode in ("I", "F"):  # 32-bit containers; photos in them hold 16-bit values
        return _grey16_to_rgb(np.clip(np.asarray(image), 0, 65535).astype(np.uint16))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


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
        bar = tqdm(results, "reading", len(paths), unit="img", leave=False, disable=hidden)
        return [fault for fault in bar if fault is not None]


def _fault(path: Path) -> Unreadable | None:
    try:
        with _open(path) as image:
            image.draft("RGB", (1, 1))
            _load(image)
            _upright(image)
    except ImageError as error:
        return Unreadable(path, str(error))
    return None


def _open(path: Path) -> Image.Image:
    """Open without decoding; every fault of the file becomes an `ImageError`."""
    if path.is_dir():
        raise ImageError("this is a folder, not an image")
    try:
        if path.stat().st_size == 0:
            raise ImageError("the file is empty")
        image = Image.open(path)
    except FileNotFoundError:
        raise ImageError("there is no such file") from None
    except PermissionError:
        raise ImageError("no permission to read it") from None
    except UnidentifiedImageError:
        raise ImageError("not an image in a format that can be read") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageError(str(error)) from None
    return image


def _load(image: Image.Image) -> None:
    try:
        image.load()
    except MemoryError:
        raise
    except Exception as error:  # decoders meet hostile bytes and raise nearly anything
        raise ImageError(f"damaged: {error}") from None


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except MemoryError:
        raise
    except Exception as error:  # EXIF is parsed from hostile bytes, too
        raise ImageError(f"damaged EXIF data: {error}") from None


def _grey16_to_rgb(grey_HW: NDArray[np.uint16]) -> Image.Image:
    return Image.fromarray((grey_HW // 257).astype(np.uint8)).convert("RGB")


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """What a base model's own image processor does, with Pillow and numpy alone.

    Resize, then centre crop, then scale by `rescale` and normalise by `mean` and `std`.
    """

    resize: int | tuple[int, int] | None  # shortest edge, or (height, width)
    crop: tuple[int, int] | None  # (height, width)
    resample: int  # a filter of PIL.Image.Resampling
    rescale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @classmethod
    def from_processor(cls, processor: Any) -> Preprocess:
        """Read the settings of a `transformers` image processor.

        Raises `ModelError` where it asks for something this class does not do.
        """
        size = dict(processor.size or {})
        resize: int | tuple[int, int] | None
        if not processor.do_resize:
            resize = None
        elif size.get("shortest_edge"):
            resize = int(size["shortest_edge"])
        elif size.get("height") and size.get("width"):
            resize = (int(size["height"]), int(size["width"]))
        else:
            raise ModelError(
                f"the image processor {type(processor).__name__} resizes to {size}; "
                "only a shortest edge or a fixed height and width are supported"
            )
        crop = None
        if getattr(processor, "do_center_crop", False):
            crop = (int(processor.crop_size["height"]), int(processor.crop_size["width"]))
        normalize = bool(processor.do_normalize)
        preprocess = cls(
            resize=resize,
            crop=crop,
            resample=int(processor.resample),
            rescale=float(processor.rescale_factor) if processor.do_rescale else 1.0,
            mean=_triple(processor.image_mean) if normalize else (0.0, 0.0, 0.0),
            std=_triple(processor.image_std) if normalize else (1.0, 1.0, 1.0),
        )
        height, width = preprocess.image_size  # also refuses a processor of no fixed size
        if isinstance(resize, int) and max(height, width) > resize:
            raise ModelError(
                f"the image processor crops {height}×{width} out of an image whose shortest edge "
                f"is {resize}: that would pad with black, which is not supported"
            )
        return preprocess

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Preprocess:
        """The inverse of `to_dict`; lists may stand for tuples.

        Raises `TypeError` or `ValueError` for values that `to_dict` does not give.
        """
        as_tuples: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        made = cls(**as_tuples)
        sizes = [made.resize, made.crop]
        edges = [edge for size in sizes for edge in (size if isinstance(size, tuple) else (size,))]
        shapes = (
            all(edge is None or (type(edge) is int and 0 < edge <= 4096) for edge in edges)
            and (made.crop is None or isinstance(made.crop, tuple))
            and all(not isinstance(size, tuple) or len(size) == 2 for size in sizes)
        )
        if not shapes:
            raise ValueError(f"resize {made.resize!r:.60}, crop {made.crop!r:.60} are no sizes")
        if made.resample not in (0, 1, 2, 3, 4, 5):
            raise ValueError(f"resample {made.resample!r:.60} is no filter of Pillow")
        if not all(isinstance(x, tuple) and len(x) == 3 for x in (made.mean, made.std)):
            raise ValueError("mean and std are not three numbers each")
        numbers = (made.rescale, *made.mean, *made.std)
        if not all(isinstance(x, int | float) and np.isfinite(x) for x in numbers) or 0 in made.std:
            raise ValueError("rescale, mean and std are not finite numbers, or std is zero")
        return made

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of every image this makes."""
        size = self.crop or self.resize
        if not isinstance(size, tuple):
            raise ModelError(
                "the image processor neither crops nor resizes to a fixed height and width, "
                "so images of different shapes could not share a batch"
            )
        return size

    def scaled(self, image_size: int) -> Preprocess:
        """The same for photos of `image_size` × `image_size` pixels: the same part is seen."""
        height, width = self.image_size
        resize = self.resize
        if isinstance(resize, int):
            resize = max(image_size, round(resize * image_size / max(height, width)))
        elif resize is not None:
            resize = (
                round(resize[0] * image_size / height),
                round(resize[1] * image_size / width),
            )
        crop = (image_size, image_size) if self.crop else None
        return replace(self, resize=resize, crop=crop)

    def processor_sizes(self) -> tuple[dict[str, int] | None, dict[str, int] | None]:
        """`size` and `crop_size` as a `transformers` image processor names them."""
        size = None
        if isinstance(self.resize, int):
            size = {"shortest_edge": self.resize}
        elif self.resize is not None:
            size = {"height": self.resize[0], "width": self.resize[1]}
        crop = {"height": self.crop[0], "width": self.crop[1]} if self.crop else None
        return size, crop

    def pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """(3, H, W) uint8: the RGB `image` resized and cropped, not yet normalised."""
        return to_CHW(self.view(image))

    def view(self, image: Image.Image) -> Image.Image:
        """The RGB `image` resized and cropped."""
        if self.resize is not None:
            image = image.resize(self._resized(image.size), resample=self.resample)
        if self.crop is not None:
            height, width = self.crop
            left, top = (image.width - width) // 2, (image.height - height) // 2
            image = image.crop((left, top, left + width, top + height))
        return image

    def _resized(self, size: tuple[int, int]) -> tuple[int, int]:
        """(width, height) after resizing an image of `size` (width, height)."""
        if isinstance(self.resize, tuple):
            return self.resize[1], self.resize[0]
        assert self.resize is not None
        short, long = min(size), max(size)
        long = int(self.resize * long / short)  # transformers rounds down, and so do we
        return (self.resize, long) if size[0] <= size[1] else (long, self.resize)

    def normalize(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """float32 (B, 3, H, W) from uint8 pixels of the same shape, on their device."""
        import torch

        shape = (1, 3, 1, 1)
        mean = torch.tensor(self.mean, device=pixels_BCHW.device).view(shape)
        std = torch.tensor(self.std, device=pixels_BCHW.device).view(shape)
        return (pixels_BCHW.float() * self.rescale - mean) / std


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


def to_CHW(image: Image.Image) -> NDArray[np.uint8]:
    """(3, H, W) uint8 from an RGB image."""
    return np.ascontiguousarray(np.asarray(image, dtype=np.uint8).transpose(2, 0, 1))


def _triple(values: Iterable[float]) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
