"""A checkpoint that answers: photos in, class names with probabilities out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from PIL import Image

from cliptune.data.reading import Unreadable
from cliptune.errors import ImageError, UserError, listing, named
from cliptune.inference.columns import Columns, as_columns
from cliptune.inference.engine import Engine
from cliptune.inference.images import ImageLike, to_image
from cliptune.inference.prediction import ClassScore, Prediction
from cliptune.inference.reader import Crop, Reader
from cliptune.model.heat import overlay
from cliptune.model.prior import Prior
from cliptune.timing import step_done

__all__ = ["ClassScore", "ImageLike", "Prediction", "Predictor"]

LOOK_EDGE = 448  # pixels of the picture that `look` gives


class Predictor:
    """The classifier of a checkpoint (or the best of a run folder), adapters merged; or of an
    exported folder, by onnxruntime.

    Its probabilities are scaled as the checkpoint's `answers` say (None for one without).
    `base_model` says where the base model lies now, if it was moved since training; `prior` how
    frequent classes are where that is not as in training: "uniform", a share for each class name,
    or a file of such. `precision` is what the image tower computes in: "float32", "bf16", "fp16"
    (a GPU's), or "auto" for what is fastest here; None, as the settings of its training say. With
    `reduced_decoding` large JPEGs are decoded at a part of their size, no less than twice what the
    model sees: three times as fast for photos of twelve megapixels, and answers differ by about as
    much as in bf16. `fast` lets towers compute in fewer operations where that gives the same.
    `threads` is how many read and decode photos ahead (None: one to a core, sixteen for addresses).

    Raises `CheckpointError` when the checkpoint is missing, damaged or belongs to another base
    model, and `DeviceError` for a device or precision that is not there.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        *,
        device: str = "auto",
        batch_size: int = 32,
        base_model: str | None = None,
        cache_dir: str | Path | None = None,
        prior: Prior | None = None,
        precision: str | None = None,
        reduced_decoding: bool = False,
        fast: bool = True,
        threads: int | None = None,
    ) -> None:
        self.engine = Engine(
            checkpoint, device=device, base_model=base_model, cache_dir=cache_dir, prior=prior,
            precision=precision, fast=fast,
        )  # fmt: skip
        self.checkpoint = self.engine.checkpoint
        self.class_names = self.engine.class_names
        self.display_names = self.engine.display_names
        self.device, self.precision = self.engine.device, self.engine.precision
        self.answers = self.engine.answers
        self.label_answers = self.engine.label_answers  # of several labels, in its place
        self.batch_size = batch_size
        self.reader = Reader(
            preprocess=self.engine.preprocess, reduced_decoding=reduced_decoding, threads=threads
        )

    def __repr__(self) -> str:
        return (
            f"Predictor({str(self.checkpoint)!r}, classes={len(self.class_names)}, "
            f"device={str(self.device)!r}, precision={self.precision!r})"
        )

    def predict(self, image: ImageLike, top_k: int = 5) -> Prediction:
        """The `top_k` most probable classes of one image.

        An image is a path, an address such as `s3://bucket/photo.jpg`, the bytes of a file, a file
        open for reading bytes, a PIL image, or a uint8 array of shape (H, W), (H, W, 3) or
        (H, W, 4).
        Raises `ImageError` when it cannot be read.
        """
        return self.predict_batch([image], top_k=top_k)[0]

    def predict_batch(self, images: Sequence[ImageLike], top_k: int = 5) -> list[Prediction]:
        """One `Prediction` for each of `images`, in their order.

        Raises `ImageError` naming every image that cannot be read.
        """
        results = list(self.stream(images, top_k=top_k))
        unreadable = [str(result) for result in results if isinstance(result, Unreadable)]
        if unreadable:
            lines = listing(unreadable)
            raise ImageError(
                unreadable[0]
                if len(results) == 1
                else f"{len(unreadable)} of {len(results):,} images cannot be read:\n{lines}"
            )
        return [result for result in results if isinstance(result, Prediction)]

    def stream(
        self, images: Iterable[ImageLike], *, top_k: int = 5
    ) -> Iterator[Prediction | Unreadable]:
        """A `Prediction`, or what is wrong with the file, for each of `images`, in their order.

        Images are decoded ahead by threads, two batches at the most, so that memory stays the
        same however many there are.
        """
        ahead = self.reader.ahead(images, most=2 * self.batch_size)
        yield from self._answers(ahead, top_k)

    def batch(self, columns: Mapping[str, NDArray[Any]], *, top_k: int = 5) -> Columns:
        """Answers for a dictionary of arrays, as a dictionary of arrays: what Ray, Spark and Daft
        map over their blocks.

        Images stand in one of the columns `pixels` (uint8 (B, 3, H, W): what `reader` made of
        them), `content` (the bytes of files) and `path`; the first there is taken, the others and
        further ones are ignored. An `error` that is a text, and not "", goes on to the answers.
        What comes back is said at `as_columns`. A row is the same in whatever batch it stands, to
        rounding; to the bit, where it stands among the same `batch_size` rows.
        Raises `UserError` where no such column is there.
        """
        names = [name for name in ("pixels", "content", "path") if name in columns]
        if not names:
            raise UserError(f"columns {named(list(columns))}: none is pixels, content or path.")
        images = list(columns[names[0]])
        if names[0] == "pixels":
            faults = columns.get("error", [""] * len(images))
            crops = (_given(*row) for row in zip(images, faults, strict=True))
            results = list(self._answers(crops, top_k))
        else:
            results = list(self.stream(images, top_k=top_k))
        top_k = min(top_k, len(self.class_names))
        return as_columns(results, top_k=top_k, further=self.engine.further)

    def _answers(self, crops: Iterator[Crop], top_k: int) -> Iterator[Prediction | Unreadable]:
        if top_k < 1:
            raise UserError(f"top_k is {top_k}; expected 1 or more.")
        while batch := list(islice(crops, self.batch_size)):
            pixels = [crop.pixels for crop in batch if not isinstance(crop.pixels, Unreadable)]
            readable = iter(range(len(pixels)))
            found = self.engine.answer(pixels) if pixels else None
            if pixels:
                step_done(len(pixels))
            for source, crop in batch:
                if isinstance(crop, Unreadable):
                    yield crop
                elif found is not None:
                    yield self.engine.prediction(found, next(readable), source=source, top_k=top_k)

    @property
    def looks(self) -> bool:
        """Whether `look` can be asked: not of an exported folder, nor of SigLIP."""
        return self.engine.looks

    def look(self, image: ImageLike, label: str | None = None) -> Image.Image:
        """The part of `image` that the model sees, coloured where it spoke for the class `label`.

        None: for the most probable one. The shorter edge has `LOOK_EDGE` pixels. Raises
        `ImageError` when `image` cannot be read, `UserError` for a class that is not there, and
        `ModelError` unless `looks`. The method is that of `cliptune.model.attention`.
        """
        rgb, preprocess = to_image(image), self.engine.preprocess
        label = self.predict(rgb, top_k=1).label if label is None else label
        if label not in self.class_names:
            raise UserError(f"'{label}' is none of the classes: {named(self.class_names)}.")
        map_hw = self.engine.evidence(preprocess.pixels(rgb), label)
        return overlay(preprocess.scaled(LOOK_EDGE).view(rgb), map_hw)


def _given(pixels: NDArray[Any], fault: object) -> Crop:
    if isinstance(fault, str) and fault:
        return Crop(None, Unreadable(Path("<pixels>"), fault))
    return Crop(None, pixels)
