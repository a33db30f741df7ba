"""From uint8 pixels to a checkpoint's answers as one graph of torch, and that as ONNX.

`answered` is the reference, and `answered_labels` where photos show any number of classes: what is
said here of scaling, scores and thresholds is what they compute in float64. Shape suffixes: B
images, C classes, D feature, K directions.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import normalize

from cliptune.errors import MissingExtra
from cliptune.model.answers import Answers
from cliptune.model.classifier import Classifier, Head
from cliptune.model.label_answers import AnyAnswers, LabelAnswers

OUTPUTS = ("features", "logits", "probabilities", "known_score", "known")
LABEL_OUTPUTS = (*OUTPUTS, "shown")


class AnswerHead(nn.Module):
    """From image features to logits, and to what `answers` makes of them."""

    def __init__(
        self, head: Head, answers: Answers | None, means_CD: NDArray[np.floating[Any]] | None
    ) -> None:
        super().__init__()
        self.head, self.answers = head, answers
        weights_CD = head.weights().detach().float()
        self.register_buffer("weights_CD", weights_CD)
        factors = torch.ones(len(weights_CD))
        if answers is not None:
            factors = torch.tensor(answers.factors or [1 / answers.temperature] * len(weights_CD))
        self.register_buffer("factors_C", factors)
        directions = weights_CD if means_CD is None else torch.from_numpy(np.array(means_CD))
        if answers is not None and answers.score == "weights":
            directions = weights_CD
        directions = directions[directions.any(dim=1)].float()
        self.register_buffer("directions_KD", normalize(directions, dim=-1))

    @property
    def outputs(self) -> tuple[str, ...]:
        """What `forward` gives, by name."""
        return OUTPUTS[1:] if self.answers is not None else OUTPUTS[1:3]

    def forward(self, features_BD: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Those of `outputs`, of image features (B, D)."""
        logits_BC = self.head(features_BD, self.get_buffer("weights_CD"))
        scaled_BC = logits_BC * self.get_buffer("factors_C")
        chances_BC = torch.softmax(scaled_BC, dim=-1)
        if self.answers is None:
            return logits_BC, chances_BC
        scores_B = self._scores(scaled_BC, chances_BC, features_BD)
        return logits_BC, chances_BC, scores_B, scores_B >= self.answers.threshold

    def _scores(
        self, scaled_BC: torch.Tensor, chances_BC: torch.Tensor, features_BD: torch.Tensor
    ) -> torch.Tensor:
        assert self.answers is not None
        if self.answers.score == "probability":
            return chances_BC.amax(dim=-1)
        if self.answers.score == "energy":
            return torch.logsumexp(scaled_BC, dim=-1)
        directions_KD = self.get_buffer("directions_KD")
        return (normalize(features_BD, dim=-1) @ directions_KD.T).amax(dim=-1)


class LabelAnswerHead(nn.Module):
    """The same where a photo may show any of the classes: each is a yes or no of its own."""

    outputs = LABEL_OUTPUTS[1:]

    def __init__(self, head: Head, answers: LabelAnswers) -> None:
        super().__init__()
        self.head = head
        weights_CD = head.weights().detach().float()
        self.register_buffer("weights_CD", weights_CD)
        self.register_buffer("factors_C", torch.full((len(weights_CD),), 1 / answers.temperature))
        self.register_buffer("thresholds_C", torch.from_numpy(_rounded_up(answers.thresholds_C)))

    def forward(self, features_BD: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Those of `outputs`, of image features (B, D)."""
        logits_BC = self.head(features_BD, self.get_buffer("weights_CD"))
        chances_BC = torch.sigmoid(logits_BC * self.get_buffer("factors_C"))
        thresholds_C = self.get_buffer("thresholds_C")
        shown_BC = chances_BC >= thresholds_C
        scores_B = (chances_BC - thresholds_C).amax(dim=-1)
        return logits_BC, chances_BC, scores_B, shown_BC.any(dim=-1), shown_BC


def _rounded_up(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """The least of float32 that is no less: a number of float32 reaches both or neither."""
    nearest = values.astype(np.float32)
    above: NDArray[np.float32] = np.nextafter(nearest, np.float32(np.inf))
    return np.where(nearest < values, above, nearest)


def answer_head(
    head: Head, answers: AnyAnswers | None, means_CD: NDArray[np.floating[Any]] | None
) -> AnswerHead | LabelAnswerHead:
    """What makes of features what `answers` says, with class means `means_CD` where it asks."""
    if isinstance(answers, LabelAnswers):
        return LabelAnswerHead(head, answers)
    return AnswerHead(head, answers, means_CD)


class AnswerGraph(nn.Module):
    """`classifier`, merged and unfused, and what `answers` makes of its logits."""

    def __init__(
        self,
        classifier: Classifier,
        answers: AnyAnswers | None,
        means_CD: NDArray[np.floating[Any]] | None,
    ) -> None:
        super().__init__()
        self.classifier = classifier
        self.head = answer_head(classifier.head, answers, means_CD)

    def forward(self, pixels_BCHW: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Those of `OUTPUTS` (`LABEL_OUTPUTS`) that there are, of uint8 pixels (B, 3, H, W)."""
        features_BD = self.classifier.image_features(pixels_BCHW).float()
        return features_BD, *self.head(features_BD)


def import_onnx(purpose: str = "cliptune export") -> None:
    """Raise `MissingExtra` unless what exports and what runs ONNX are installed."""
    import importlib.util

    for package in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(package, "export", purpose)


def write_onnx(graph: AnswerGraph, path: Path, *, size: tuple[int, int], about: str) -> None:
    """`graph` for any number of images of `size` (height, width), with `about` in its metadata."""
    example = torch.zeros(2, 3, *size, dtype=torch.uint8)
    program = to_onnx(graph, example, "pixels", ("features", *graph.head.outputs))
    program.model.metadata_props["cliptune"] = about
    program.save(str(path))


@torch.no_grad()
def to_onnx(
    module: nn.Module, example: torch.Tensor, given: str, outputs: Sequence[str], **options: Any
) -> torch.onnx.ONNXProgram:
    """`module` of one input named `given` for any number of images; `example` has two or more.

    `options` are those of `torch.onnx.export`.
    """
    assert len(example) > 1  # one would be held for fixed
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)  # it tells that torchvision is missing
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module.eval(), (example,), dynamo=True, verbose=False,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                input_names=[given], output_names=list(outputs), **options,
            )  # fmt: skip
    finally:
        exporter.setLevel(level)
    assert program is not None
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # where in this machine's files it was traced
    return program
