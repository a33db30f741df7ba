"""A checkpoint that answers: photos in, class names with probabilities out."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from cliptune.data.images import Preprocess
from cliptune.data.naming import display_names
from cliptune.data.reading import Unreadable, array_to_image, read_image, to_rgb
from cliptune.errors import CheckpointError, ImageError, UserError, listing
from cliptune.files import user_path
from cliptune.foreign_errors import memory_errors_in_words
from cliptune.hints import not_there
from cliptune.model.answers import Answered, answered
from cliptune.model.checkpoint import resolve_checkpoint
from cliptune.model.device import DTYPES, precision_for, resolve_device
from cliptune.model.prior import Prior
from cliptune.model.restore import load_answers, load_classifier, saved_settings
from cliptune.timing import section, step_done

# Pixels of a reduced decoding for each the model sees, along an edge: at 1, resized photos differed
# by up to 7 levels of 255 and probabilities by 0.022; at 2 by 2 levels and 0.011, as at 3.
OVERSAMPLING = 2
ImageLike = str | Path | Image.Image | NDArray[np.uint8]


@dataclass(frozen=True)
class ClassScore:
    """A class and its probability, a share of 1.

    `label` is the class name, that of the training folder: for programs. `name` is the one to
    show: "golden retriever", or what `classes.yaml` gave.
    """

    label: str
    probability: float
    name: str


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one image, the best first.

    `known` says whether it shows one of the classes at all: whether `known_score` reaches the
    threshold set on validation photos. Both are None for a checkpoint without one.
    """

    scores: tuple[ClassScore, ...]
    source: str | None = None  # the file it came from, if it came from one
    known: bool | None = None
    known_score: float | None = None

    @property
    def label(self) -> str:
        """The most probable class, by its class name."""
        return self.scores[0].label

    @property
    def name(self) -> str:
        """The most probable class, by the name to show."""
        return self.scores[0].name

    @property
    def probability(self) -> float:
        """Its probability, a share of 1."""
        return self.scores[0].probability

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "image": self.source,
            "label": self.label,
            "name": self.name,
            "probability": self.probability,
            "known": self.known,
            "known_score": self.known_score,
            "scores": [asdict(score) for score in self.scores],
        }


class Predictor:
    """The classifier of a checkpoint (or the best of a run folder), adapters merged.

    Its probabilities are scaled as the checkpoint's `answers` say (None for one without).
    `base_model` says where the base model lies now, if it was moved since training; `prior` how
    frequent classes are where that is not as in training: "uniform", a share for each class name,
    or a file of such. `precision` is what the image tower computes in: "float32", "bf16", "fp16"
    (a GPU's), or "auto" for what is fastest here; None, as the settings of its training say. With
    `reduced_decoding` large JPEGs are decoded at a part of their size, no less than twice what the
    model sees: three times as fast for photos of twelve megapixels, and answers differ by about as
    much as in bf16. `fast` lets towers compute in fewer operations where that gives the same.
    Raises `CheckpointError` when
    the checkpoint is missing, damaged or belongs to another base model.
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
        found = resolve_checkpoint(user_path(checkpoint))
        self.checkpoint = found.path
        self.class_names: tuple[str, ...] = tuple(found.record.class_names)
        self.display_names = display_names(self.class_names, found.record.display_names)
        self.device = resolve_device(device)
        self.batch_size = batch_size
        settings = saved_settings(found)
        cache = user_path(cache_dir) if cache_dir else settings.model.cache_dir
        asked = precision or settings.hardware.asked_precision
        self.precision = precision_for(self.device, asked)  # refused before anything is loaded
        classifier = load_classifier(found, base_model=base_model, cache_dir=cache, fast=fast)
        classifier.towers_dtype = DTYPES[self.precision]
        self._classifier = classifier.to(self.device)
        self._weights = classifier.class_weights()
        self._least_edge = _least_edge(classifier.preprocess) if reduced_decoding else None
        self.answers, self._means_CD = load_answers(found, prior=prior)

    def __repr__(self) -> str:
        return (
            f"Predictor({str(self.checkpoint)!r}, classes={len(self.class_names)}, "
            f"device={str(self.device)!r}, precision={self.precision!r})"
        )

    def predict(self, image: ImageLike, top_k: int = 5) -> Prediction:
        """The `top_k` most probable classes of one image.

        An image is a path, a PIL image, or a uint8 array of shape (H, W), (H, W, 3) or (H, W, 4).
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
        ahead = _map_ahead(self._read, images, ahead=2 * self.batch_size)
        while batch := list(islice(ahead, self.batch_size)):
            pixels = [pixels for _, pixels in batch if not isinstance(pixels, Unreadable)]
            readable = iter(range(len(pixels)))
            found = self._answers(pixels) if pixels else None
            for source, result in batch:
                if isinstance(result, Unreadable) or found is None:
                    yield result
                else:
                    yield self._best(found, next(readable), source, top_k)

    def _read(self, image: ImageLike) -> tuple[str | None, NDArray[np.uint8] | Unreadable]:
        """(path, uint8 pixels (3, H, W)), or what is wrong with the image instead of pixels."""
        source = str(image) if isinstance(image, str | Path) else None
        try:
            with section("decode"):
                rgb = _to_image(image, least_edge=self._least_edge)
        except ImageError as error:
            return source, Unreadable(Path(source or f"<{type(image).__name__}>"), str(error))
        with section("resize"):
            return source, self._classifier.preprocess.pixels(rgb)

    @torch.inference_mode()
    def _answers(self, pixels: list[NDArray[np.uint8]]) -> Answered:
        """What the checkpoint answers for images of uint8 pixels (3, H, W)."""
        with memory_errors_in_words(self.batch_size):
            pixels_BCHW = torch.from_numpy(np.stack(pixels)).to(self.device)
            with section("forward"):
                logits, features = self._classifier.answer(pixels_BCHW, self._weights)
                logits_BC, features_BD = logits.cpu().numpy(), features.cpu().numpy()
        step_done(len(pixels))
        if not np.isfinite(logits_BC).all():
            raise CheckpointError(
                f"{self.checkpoint}: its answers are not finite numbers. Its training diverged, "
                "or its weights were changed: use another checkpoint of the run."
            )
        return answered(
            self.answers, logits_BC, features_BD,
            weights_CD=self._weights.cpu().numpy(), means_CD=self._means_CD,
        )  # fmt: skip

    def _best(self, found: Answered, i: int, source: str | None, top_k: int) -> Prediction:
        """The answer for the image `i` of those of `found`."""
        scores = []
        for place in found.best(i, k=top_k):
            name = self.class_names[place]
            probability = float(found.probabilities_NC[i, place])
            scores.append(ClassScore(name, probability, self.display_names[name]))
        if found.known_scores_N is None or found.known_N is None:
            return Prediction(tuple(scores), source)
        known, known_score = bool(found.known_N[i]), float(found.known_scores_N[i])
        return Prediction(tuple(scores), source, known, known_score)


def _least_edge(preprocess: Preprocess) -> int | None:
    """How short the shorter edge of a photo may be decoded; None where photos are not resized."""
    edges = preprocess.resize if isinstance(preprocess.resize, tuple) else (preprocess.resize,)
    return OVERSAMPLING * max(edge for edge in edges if edge) if any(edges) else None


def _to_image(image: Any, *, least_edge: int | None = None) -> Image.Image:
    """RGB and upright, from a path, a PIL image or an array. Raises `ImageError`."""
    if isinstance(image, str | Path):
        path = user_path(image)
        if not os.path.lexists(path):
            raise ImageError(not_there(image, "there is no such file").rstrip("."))
        return read_image(path, least_edge=least_edge)
    if isinstance(image, np.ndarray):
        return array_to_image(image)
    if isinstance(image, Image.Image):
        return to_rgb(image)
    raise ImageError(f"found {type(image).__name__}; expected a path, a PIL image or a uint8 array")


def _map_ahead(function: Any, items: Iterable[Any], *, ahead: int) -> Iterator[Any]:
    """`map(function, items)` computed by threads, never more than `ahead` results in advance."""
    pending: deque[Future[Any]] = deque()
    source = iter(items)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
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
