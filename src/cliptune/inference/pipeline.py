"""A checkpoint, called as `transformers.pipeline("image-classification")` is.

    from cliptune import pipeline

    classify = pipeline("image-classification", "outputs/dogs")
    classify("photo.jpg")  # [{"label": "collie", "score": 0.93}, …]

It is a `Predictor` behind another door: programs written for the one call take the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import copy
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from PIL import Image

from cliptune.data.reading import Unreadable
from cliptune.errors import ImageError, UserError
from cliptune.inference.images import ImageLike
from cliptune.inference.prediction import Prediction
from cliptune.inference.predictor import Predictor

TASK = "image-classification"


class LabelScore(TypedDict):
    """A class by its name, that of the training folder, and its probability, a share of 1."""

    label: str
    score: float


class ImageClassificationPipeline:
    """What `pipeline` gives: called with images, it answers with labels and scores.

    All else that a checkpoint can tell (`known`, sets, parents) is told by its `predictor`.
    """

    task = TASK

    def __init__(self, predictor: Predictor, *, top_k: int = 5) -> None:
        self.predictor = predictor
        self.top_k = top_k

    def __repr__(self) -> str:
        return f"ImageClassificationPipeline({self.predictor!r})"

    @property
    def device(self) -> Any:
        """The `torch.device` that answers."""
        return self.predictor.device

    def __call__(
        self,
        inputs: Any,
        *,
        top_k: int | None = None,
        batch_size: int | None = None,
        function_to_apply: str | None = None,
    ) -> Any:
        """The `top_k` most probable classes of each image, the best first.

        An image (all kinds that `Predictor.predict` takes) gives a list of `LabelScore`; a list or
        tuple of N images a list of N such lists; a generator or a dataset an iterator over them,
        which reads on as it is asked, two batches ahead at the most. `batch_size` is how many are
        computed at once. `function_to_apply`, "softmax" or "sigmoid", can only be what the
        checkpoint answers by; its scores are calibrated.

        Raises `ImageError` naming every image that cannot be read; an iterator does when it comes
        to the first. `Predictor.stream` goes on behind such a one.
        """
        self._check_function(function_to_apply)
        predictor, top_k = self.predictor, self.top_k if top_k is None else top_k
        if batch_size is not None:
            predictor = copy(predictor)
            predictor.batch_size = _at_least_one(batch_size, "batch_size")
        _at_least_one(top_k, "top_k")
        if _is_image(inputs):
            return _scores(predictor.predict(inputs, top_k=top_k))
        if isinstance(inputs, list | tuple):
            return [_scores(each) for each in predictor.predict_batch(inputs, top_k=top_k)]
        return _scores_of_each(predictor, _in_order(inputs), top_k=top_k)

    def _check_function(self, asked: str | None) -> None:
        own = "softmax" if self.predictor.label_answers is None else "sigmoid"
        if asked is not None and asked != own:
            raise UserError(
                f"function_to_apply: found {asked!r}; the scores of this checkpoint are "
                f"probabilities by '{own}'. Leave it out."
            )


def pipeline(
    task: str = TASK,
    model: str | Path | None = None,
    *,
    device: Any = None,
    batch_size: int = 32,
    top_k: int = 5,
    **options: Any,
) -> ImageClassificationPipeline:
    """The classifier of the checkpoint, run or exported folder, or `hf:owner/name`, `model`.

    `device` is one of `Predictor`'s, or as transformers has it: a `torch.device`, a number of a
    GPU, -1 for the CPU; None is the best there is. `options` are `Predictor`'s further ones:
    `base_model`, `precision`, `prior` and so on.

    Raises `UserError` for another task, and what `Predictor` raises.
    """
    if task != TASK:
        raise UserError(f"pipeline: found the task {task!r}; a cliptune checkpoint does {TASK!r}.")
    if model is None:
        raise UserError(
            f"pipeline: no model is given. Name a checkpoint: pipeline({TASK!r}, 'outputs/dogs')."
        )
    predictor = Predictor(
        model, device=_device(device), batch_size=_at_least_one(batch_size, "batch_size"),
        **options,
    )  # fmt: skip
    return ImageClassificationPipeline(predictor, top_k=_at_least_one(top_k, "top_k"))


def _scores(prediction: Prediction) -> list[LabelScore]:
    return [{"label": each.label, "score": each.probability} for each in prediction.scores]


def _scores_of_each(
    predictor: Predictor, images: Iterable[ImageLike], *, top_k: int
) -> Iterator[list[LabelScore]]:
    for answer in predictor.stream(images, top_k=top_k):
        if isinstance(answer, Unreadable):
            raise ImageError(str(answer))
        yield _scores(answer)


def _is_image(inputs: Any) -> bool:
    kinds = (str, Path, bytes, bytearray, memoryview, Image.Image, np.ndarray)
    return isinstance(inputs, kinds) or hasattr(inputs, "read")


def _in_order(inputs: Any) -> Iterable[Any]:
    """The images of a generator or dataset; torch's datasets have places, and need no iterator."""
    if isinstance(inputs, Iterable):
        return inputs
    if hasattr(inputs, "__getitem__") and hasattr(inputs, "__len__"):
        return (inputs[place] for place in range(len(inputs)))
    raise UserError(
        f"pipeline: found {type(inputs).__name__}; expected an image (a path, bytes, an open file, "
        "a PIL image, a uint8 array), a list of images, a generator or a dataset of images."
    )


def _device(given: Any) -> str:
    """What `Predictor` calls the device that transformers calls `given`."""
    if given is None:
        return "auto"
    if isinstance(given, int):
        given = "cpu" if given < 0 else f"cuda:{given}"
    name = str(given)
    return name.removesuffix(":0")


def _at_least_one(number: int, name: str) -> int:
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise UserError(f"{name}: found {number!r}; expected a whole number of 1 or more.")
    return number
