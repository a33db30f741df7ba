"""From an RGB image to the pixels a base model expects.

Shape suffixes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

from cliptune.errors import ModelError

if TYPE_CHECKING:
    import torch


# How many times the crop's pixels an enlarged photo may have as a whole: panoramas stay below.
_STRIP = 16
_REACH = 3  # pixels: how far the longest of Pillow's filters, Lanczos, looks when it enlarges


def _refuse_zero(number: float) -> float:
    if number == 0:
        raise ValueError("Input should not be zero")
    return number


# What `Preprocess.from_dict` takes; the constructor checks nothing.
Edge = Annotated[int, Field(gt=0, le=4096, strict=True)]  # pixels
Number = Annotated[float, Field(allow_inf_nan=False, strict=True)]
NotZero = Annotated[Number, AfterValidator(_refuse_zero)]


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """What a base model's own image processor does, with Pillow and numpy alone.

    Resize, then centre crop, then scale by `rescale` and normalise by `mean` and `std`.
    """

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    resize: Edge | tuple[Edge, Edge] | None  # shortest edge, or (height, width)
    crop: tuple[Edge, Edge] | None  # (height, width)
    resample: Annotated[int, Field(ge=0, le=5, strict=True)]  # a filter of PIL.Image.Resampling
    rescale: Number
    mean: tuple[Number, Number, Number]
    std: tuple[NotZero, NotZero, NotZero]

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
    def from_dict(cls, values: Mapping[str, object]) -> Preprocess:
        """The inverse of `to_dict`; lists may stand for tuples.

        Raises `ValueError`, naming the keys, for values that `to_dict` does not give.
        """
        try:
            return TypeAdapter(cls).validate_python(values)
        except ValidationError as error:
            faults = [f"{fault['loc'][0]}: {fault['msg']}" for fault in error.errors()]
            raise ValueError("; ".join(faults)) from None

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
        """The RGB `image` resized and cropped.

        Memory stays in proportion to the photo and to the crop: where a small strip would become
        huge, only the part that the crop shows is scaled. With the smooth filters that models use
        this differs by rounding, one level of 255, from scaling the whole first.
        """
        size = image.size if self.resize is None else self._resized(image.size)
        if self.crop is None:
            return image if self.resize is None else image.resize(size, resample=self.resample)
        height, width = self.crop
        left, top = (size[0] - width) // 2, (size[1] - height) // 2
        box = (left, top, left + width, top + height)
        large = size[0] * size[1] > max(_STRIP * width * height, image.width * image.height)
        if large and left >= 0 and top >= 0:
            return _scaled_part(image, size, box, resample=self.resample)
        if self.resize is not None:
            image = image.resize(size, resample=self.resample)
        return image.crop(box)

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


def _scaled_part(
    image: Image.Image, size: tuple[int, int], box: tuple[int, int, int, int], *, resample: int
) -> Image.Image:
    """The part `box` of `image` as it would be when enlarged to `size` (width, height)."""
    scales = [own / new for own, new in zip(image.size, size, strict=True)]
    ends = [scale * end for scale, end in zip(2 * scales, box, strict=True)]
    # Cut out first, with what the filter reads around it: Pillow takes a box in single precision,
    # which far from the origin would be too coarse.
    margin = _REACH + 1
    left, top = (max(0, int(end) - margin) for end in ends[:2])
    right, bottom = (
        min(own, int(np.ceil(end)) + margin) for own, end in zip(image.size, ends[2:], strict=True)
    )
    part = image.crop((left, top, right, bottom))
    width, height = box[2] - box[0], box[3] - box[1]
    # One way at a time, across first: as Pillow enlarges; between the two it rounds and clips.
    across = (ends[0] - left, 0, ends[2] - left, part.height)
    part = part.resize((width, part.height), resample=resample, box=across)
    return part.resize(
        (width, height), resample=resample, box=(0, ends[1] - top, width, ends[3] - top)
    )


def to_CHW(image: Image.Image) -> NDArray[np.uint8]:
    """(3, H, W) uint8 from an RGB image."""
    return np.ascontiguousarray(np.asarray(image, dtype=np.uint8).transpose(2, 0, 1))


def _triple(values: Iterable[float]) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
