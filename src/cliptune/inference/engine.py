"""From uint8 crops to answers, in one piece, for whoever answers for a checkpoint or an export.

Shape suffixes: B images, H height, W width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cliptune.data.images import Preprocess
from cliptune.data.naming import display_names
from cliptune.errors import CheckpointError, DeviceError
from cliptune.files import user_path
from cliptune.foreign_errors import memory_errors_in_words
from cliptune.inference.prediction import ClassScore, Prediction
from cliptune.model.answers import Answered, Answers, answered
from cliptune.model.checkpoint import Checkpoint, resolve_checkpoint
from cliptune.model.device import DTYPES, resolve_device
from cliptune.model.prior import Prior
from cliptune.model.restore import (
    answering_precision,
    load_answers,
    load_classifier,
    saved_settings,
)
from cliptune.timing import section


class Engine(ABC):
    """What answers; class names are in the order of `Answered`."""

    checkpoint: Path
    class_names: tuple[str, ...]
    display_names: Mapping[str, str]  # class name -> the name to show
    device: torch.device
    precision: str  # that the image tower computes in
    answers: Answers | None
    preprocess: Preprocess  # makes the crops that `answer` takes

    @abstractmethod
    def answer(self, crops: Sequence[NDArray[np.uint8]]) -> Answered:
        """What is answered for crops of uint8 pixels (3, H, W), one or more.

        Raises `CheckpointError` where an answer is not finite.
        """

    def prediction(
        self, found: Answered, place: int, *, source: str | None = None, top_k: int = 5
    ) -> Prediction:
        """The answer for the image number `place` of `found`."""
        scores = []
        for index in found.best(place, k=top_k):
            name = self.class_names[index]
            probability = float(found.probabilities_NC[place, index])
            scores.append(ClassScore(name, probability, self.display_names[name]))
        if found.known_scores_N is None or found.known_N is None:
            return Prediction(tuple(scores), source)
        known, known_score = bool(found.known_N[place]), float(found.known_scores_N[place])
        return Prediction(tuple(scores), source, known, known_score)


class CheckpointEngine(Engine):
    """A checkpoint (or the best of a run folder), adapters merged, by torch; or an exported
    folder, by onnxruntime on the CPU.

    Arguments and errors are those of `Predictor`.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        *,
        device: str = "auto",
        base_model: str | None = None,
        cache_dir: str | Path | None = None,
        prior: Prior | None = None,
        precision: str | None = None,
        fast: bool = True,
    ) -> None:
        found = resolve_checkpoint(user_path(checkpoint))
        self.checkpoint = found.path
        self.class_names = tuple(found.record.class_names)
        self.display_names = display_names(self.class_names, found.record.display_names)
        self.device = _device(found, device)
        settings = saved_settings(found)
        # Refused before anything is loaded.
        self.precision = answering_precision(found, settings, self.device, precision)
        cache = user_path(cache_dir) if cache_dir else settings.model.cache_dir
        classifier = load_classifier(found, base_model=base_model, cache_dir=cache, fast=fast)
        classifier.towers_dtype = DTYPES.get(self.precision)
        self._classifier = classifier.to(self.device)
        self._weights = classifier.class_weights()
        self.preprocess = classifier.preprocess
        self.answers, self._means_CD = load_answers(found, prior=prior)

    @torch.inference_mode()
    def answer(self, crops: Sequence[NDArray[np.uint8]]) -> Answered:
        """As of `Engine`."""
        with memory_errors_in_words(len(crops)):
            pixels_BCHW = torch.from_numpy(np.stack(crops)).to(self.device)
            with section("forward"):
                logits, features = self._classifier.answer(pixels_BCHW, self._weights)
                logits_BC, features_BD = logits.cpu().numpy(), features.cpu().numpy()
        if not np.isfinite(logits_BC).all():
            raise CheckpointError(
                f"{self.checkpoint}: its answers are not finite numbers. Its training diverged, "
                "or its weights were changed: use another checkpoint of the run."
            )
        return answered(
            self.answers, logits_BC, features_BD,
            weights_CD=self._weights.cpu().numpy(), means_CD=self._means_CD,
        )  # fmt: skip


def _device(checkpoint: Checkpoint, name: str) -> torch.device:
    """What answers for `checkpoint`, where `name` is asked for. Raises `DeviceError`."""
    if not checkpoint.exported:
        return resolve_device(name)
    if name not in ("auto", "cpu"):
        raise DeviceError(
            f"{checkpoint.path}: an exported folder is run on the CPU; found '{name}'."
        )
    return torch.device("cpu")
