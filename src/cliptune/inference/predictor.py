"""A checkpoint that answers: photos in, class names with probabilities out."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cliptune.data.images import Preprocess
from cliptune.data.reading import TooManyPixels, Unreadable
from cliptune.errors import ImageError, UserError, listing, named
from cliptune.inference.engine import Engine
from cliptune.inference.images import ImageLike, source_of, to_image
from cliptune.inference.prediction import ClassScore, Prediction
from cliptune.model.heat import overlay
from cliptune.model.prior import Prior
from cliptune.storage import is_address
from cliptune.timing import section, step_done

__all__ = ["ClassScore", "ImageLike", "Prediction", "Predictor"]

# Pixels of a reduced decoding for each the model sees, along an edge: at 1, resized photos differed
# by up to 7 levels of 255 and probabilities by 0.022; at 2 by 2 levels and 0.011, as at 3.
OVERSAMPLING = 2
FETCHED_AT_ONCE = 16  # photos of a storage: a thread waits for each
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
        self.batch_size = batch_size
        self._least_edge = _least_edge(self.engine.preprocess) if reduced_decoding else None

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
        if top_k < 1:
            raise UserError(f"top_k is {top_k}; expected 1 or more.")
        first, images = _peeked(images)
        fetched = isinstance(first, str | Path) and is_address(first)
        threads = FETCHED_AT_ONCE if fetched else os.cpu_count() or 1
        ahead = _map_ahead(self._read, images, ahead=2 * self.batch_size, threads=threads)
        while batch := list(islice(ahead, self.batch_size)):
            pixels = [pixels for _, pixels in batch if not isinstance(pixels, Unreadable)]
            readable = iter(range(len(pixels)))
            found = self.engine.answer(pixels) if pixels else None
            if pixels:
                step_done(len(pixels))
            for source, result in batch:
                if isinstance(result, Unreadable) or found is None:
                    yield result
                else:
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

    def _read(self, image: ImageLike) -> tuple[str | None, NDArray[np.uint8] | Unreadable]:
        """(path, uint8 pixels (3, H, W)), or what is wrong with the image instead of pixels."""
        source = source_of(image)
        try:
            with section("decode"):
                rgb = to_image(image, least_edge=self._least_edge)
        except ImageError as error:
            path: Path | str = source or f"<{type(image).__name__}>"
            path = path if is_address(path) else Path(path)
            return source, Unreadable(path, str(error), isinstance(error, TooManyPixels))
        with section("resize"):
            return source, self.engine.preprocess.pixels(rgb)


def _least_edge(preprocess: Preprocess) -> int | None:
    """How short the shorter edge of a photo may be decoded; None where photos are not resized."""
    edges = preprocess.resize if isinstance(preprocess.resize, tuple) else (preprocess.resize,)
    return OVERSAMPLING * max(edge for edge in edges if edge) if any(edges) else None


def _peeked(items: Iterable[Any]) -> tuple[Any, Iterator[Any]]:
    """The first of `items`, or None, and all of them."""
    all_items = iter(items)
    first = list(islice(all_items, 1))
    return (first or [None])[0], chain(first, all_items)


def _map_ahead(function: Any, items: Iterable[Any], *, ahead: int, threads: int) -> Iterator[Any]:
    """`map(function, items)` computed by threads, never more than `ahead` results in advance."""
    pending: deque[Future[Any]] = deque()
    source = iter(items)
    with ThreadPoolExecutor(threads) as pool:
        try:
            while True:
                pending.extend(
                    pool.submit(function, item) for item in islice(source, ahead - len(pending))
                )
                if not pending:
                    return
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
