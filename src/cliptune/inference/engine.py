"""From uint8 crops to answers, in one piece, for whoever answers for a checkpoint or an export.

Shape suffixes: B images, H height, W width; h and w in patches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cliptune.errors import CheckpointError, DeviceError, ModelError
from cliptune.files import user_path
from cliptune.foreign_errors import memory_errors_in_words
from cliptune.inference.prediction import ClassScore, Prediction
from cliptune.model.answers import Answered, answered
from cliptune.model.attention import evidence_maps, has_class_token
from cliptune.model.checkpoint import Checkpoint, resolve_checkpoint
from cliptune.model.classifier import Classifier
from cliptune.model.device import DTYPES, resolve_device
from cliptune.model.label_answers import AnsweredLabels, answered_labels
from cliptune.model.prior import Prior
from cliptune.model.restore import (
    answering_precision,
    load_answers,
    load_classifier,
    load_label_answers,
    saved_settings,
)
from cliptune.timing import section


class Engine:
    """A checkpoint (or the best of a run folder), adapters merged, by torch; or an exported
    folder, by onnxruntime on the CPU.

    `class_names` are in the order of `Answered`, `preprocess` makes the crops that `answer` takes.
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
        self.parents, self._shown = found.record.tree, found.record.shown_names
        self.display_names = {name: self._shown[name] for name in self.class_names}
        self.device = _device(found, device)
        settings = saved_settings(found)
        # Refused before anything is loaded.
        self.precision = answering_precision(found, settings, self.device, precision)
        cache = user_path(cache_dir) if cache_dir else settings.model.cache_dir
        classifier = load_classifier(found, base_model=base_model, cache_dir=cache, fast=fast)
        classifier.towers_dtype = DTYPES.get(self.precision)
        self._classifier = classifier.to(self.device)
        self._found, self._base_model, self._cache = found, base_model, cache
        self._weights = classifier.class_weights()
        self.preprocess = classifier.preprocess
        self.label_answers = load_label_answers(found, prior=prior)
        self.answers, self._means_CD = (
            load_answers(found, prior=prior) if self.label_answers is None else (None, None)
        )

    @torch.inference_mode()
    def answer(self, crops: Sequence[NDArray[np.uint8]]) -> Answered:
        """What is answered for crops of uint8 pixels (3, H, W), one or more.

        Raises `CheckpointError` where an answer is not finite.
        """
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
        if self.label_answers is not None:
            return answered_labels(self.label_answers, logits_BC)
        return answered(
            self.answers, logits_BC, features_BD,
            weights_CD=self._weights.cpu().numpy(), means_CD=self._means_CD,
        )  # fmt: skip

    def prediction(
        self, found: Answered, place: int, *, source: str | None = None, top_k: int = 5
    ) -> Prediction:
        """The answer for the image number `place` of `found`."""
        scores = self._scores(found, place, k=top_k)
        if found.known_scores_N is None or found.known_N is None:
            return Prediction(scores, source)
        known, known_score = bool(found.known_N[place]), float(found.known_scores_N[place])
        prediction = Prediction(scores, source, known, known_score)
        if isinstance(found, AnsweredLabels):
            shown = tuple(self._score(found, place, index) for index in found.shown(place))
            return replace(prediction, shown=shown)
        if found.sets is not None and found.in_set_NC is not None:
            in_set = self._scores(found, place, k=int(found.in_set_NC[place].sum()))
            prediction = replace(prediction, prediction_set=in_set, coverage=found.sets.coverage)
        if self.answers is not None and (sure := self.answers.sure) is not None:
            sure_of = self._sure_of(found, place, sure.limit)
            prediction = replace(prediction, sure_of=sure_of, sure_share=sure.share)
        return prediction

    def _sure_of(self, found: Answered, place: int, limit: float) -> ClassScore | None:
        """The deepest class or parent whose probability is above `limit`."""
        p_NC = found.probabilities_NC[place : place + 1]
        node = int(self.parents.deepest(p_NC, above=limit)[0])
        if (name := self.parents.name(node)) is None:
            return None
        share = float(p_NC[0, self.parents.member_MC[node]].sum())
        return ClassScore(name, share, self._shown[name])

    def _scores(self, found: Answered, place: int, *, k: int) -> tuple[ClassScore, ...]:
        """The `k` most probable classes of one image."""
        return tuple(self._score(found, place, int(index)) for index in found.best(place, k=k))

    def _score(self, found: Answered, place: int, index: int) -> ClassScore:
        name = self.class_names[index]
        probability = float(found.probabilities_NC[place, index])
        return ClassScore(name, probability, self.display_names[name])

    @property
    def further(self) -> tuple[str, ...]:
        """What `Prediction.further` has of each answer."""
        if self.label_answers is not None:
            return ("shown",)
        if self.answers is None:
            return ()
        kinds = {"prediction_set": self.answers.sets, "sure_of": self.answers.sure}
        return tuple(kind for kind, told in kinds.items() if told is not None)

    @property
    def looks(self) -> bool:
        """Whether `evidence` can be asked: not of an exported folder, nor of SigLIP."""
        return not self._found.exported and has_class_token(self._classifier.model)

    def evidence(self, crop: NDArray[np.uint8], label: str) -> NDArray[np.float32]:
        """(h, w) in [0, 1]: how much each patch of `crop` (3, H, W) spoke for the class `label`.

        The first call loads the classifier once more, in float32 and unfused. Raises `ModelError`
        unless `looks`.
        """
        if self._found.exported:
            raise ModelError(
                f"{self.checkpoint}: where it looked cannot be told of an exported folder. Ask the "
                "checkpoint."
            )
        pixels_BCHW = torch.from_numpy(crop[None].copy()).to(self.device)
        classes_B = torch.tensor([self.class_names.index(label)])
        map_hw: NDArray[np.float32] = evidence_maps(self._plain, pixels_BCHW, classes_B)[0]
        return map_hw

    @cached_property
    def _plain(self) -> Classifier:
        plain = load_classifier(
            self._found, base_model=self._base_model, cache_dir=self._cache, fast=False
        )
        return plain.to(self.device)


def _device(checkpoint: Checkpoint, name: str) -> torch.device:
    """What answers for `checkpoint`, where `name` is asked for. Raises `DeviceError`."""
    if not checkpoint.exported:
        return resolve_device(name)
    if name not in ("auto", "cpu"):
        raise DeviceError(
            f"{checkpoint.path}: an exported folder is run on the CPU; found '{name}'."
        )
    return torch.device("cpu")
