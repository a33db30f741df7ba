"""`cliptune export --int8`: quantised on train, answers fitted again and judged on val.

Shape suffixes: N photos, C classes, D feature.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cliptune.config import Settings
from cliptune.data.folder import Sample
from cliptune.data.groups import Groups, groups_of
from cliptune.data.images import Preprocess
from cliptune.data.multilabel import Targets, targets_of
from cliptune.data.parents import Parents
from cliptune.data.reading import read_image
from cliptune.data.splits import split_folders
from cliptune.errors import DataError, ImageError, UserError
from cliptune.evaluation.statistics.answering import fit_answers
from cliptune.evaluation.statistics.label_answering import fit_label_answers
from cliptune.inference.export.judging import (
    Judged,
    JudgedLabels,
    Speeds,
    judged,
    judged_labels,
    refuse_too_few,
    timed,
)
from cliptune.inference.export.quantise import Layer, Quantised, quantise
from cliptune.language import Said, counting, said
from cliptune.language import translated as _
from cliptune.model.answers import Answers, class_means, scaled_logits
from cliptune.model.checkpoint import Checkpoint
from cliptune.model.classifier import Classifier, Predictions
from cliptune.model.exported.changing import put_on
from cliptune.model.exported.classifier import GRAPH, ExportedClassifier
from cliptune.model.exported.graph import AnswerGraph, answer_head, write_onnx
from cliptune.model.label_answers import AnyAnswers, LabelAnswers, answered_labels
from cliptune.model.measuring import Measuring, labelled_photos

MOST_CALIBRATING = 200  # photos; a quarter of them gave the same ranges to within the noise
_TIMED_BATCH = 16
_NAMED = 5  # layers, in a refusal


@dataclass(frozen=True, kw_only=True)
class Int8Photos:
    """Those of train that calibrate, and those of val that it is fitted and judged on."""

    calibrating: tuple[Sample, ...]
    judging: tuple[Sample, ...]
    groups_N: Groups | None = None  # of those that judge
    targets_NC: Targets | None = None  # the classes those show, where that is any number


@dataclass(frozen=True, kw_only=True)
class Int8:
    """The int8 graph's own answers, and what is known of it; sizes in bytes."""

    answers: AnyAnswers | None
    means_CD: NDArray[np.floating[Any]] | None
    quantised: Quantised
    judged: Judged | JudgedLabels
    max_loss: float
    speeds: Speeds
    float32_bytes: int
    int8_bytes: int

    @property
    def metrics(self) -> dict[str, float | int | None]:
        """What the record of a checkpoint holds of val: that of float32 is no longer its own."""
        return self.judged.metrics

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "calibrated_on": self.quantised.photos,
            "layers": len(self.quantised.layers),
            "left_in_float32": [layer.name for layer in self.quantised.left],
            "judged": self.judged.to_dict() | {"max_points": self.max_loss},
            "images_per_second": asdict(self.speeds),
            "bytes": {"float32": self.float32_bytes, "int8": self.int8_bytes},
        }


def int8_photos(
    checkpoint: Checkpoint, settings: Settings, folder: Path, *, max_loss: float
) -> Int8Photos:
    """The photos in the splits of `folder`; nothing of test.

    Raises `UserError` where there is no val, or one of too few photos to tell `max_loss` points.
    """
    splits = split_folders(folder) if folder.is_dir() else {}
    if "train" not in splits or checkpoint.record.without_val:
        found = f"found {', '.join(splits) or 'none'}" if not checkpoint.record.without_val else (
            "it was trained without val")  # fmt: skip
        raise DataError(
            f"{folder}: int8 is calibrated on photos of train and judged on those of val; {found}. "
            "Name the folder with the splits of training: --data FOLDER"
        )
    names = list(checkpoint.record.class_names)
    several = checkpoint.record.task == "multilabel"
    train, val = (
        labelled_photos(settings, folder, split, names, several=several)
        for split in ("train", "val")
    )
    if several and not targets_of(val).any():
        raise DataError(f"{folder}: no photo of val shows any of the classes, so that none judges.")
    groups_N = groups_of(folder, [sample.path for sample in val.samples])
    if groups_N is None:
        refuse_too_few(len(val), max_loss)
    else:  # where no answer of theirs changed, nothing tells how alike their photos are
        refuse_too_few(len(np.unique(groups_N)), max_loss, what="groups")
    count = min(len(train), MOST_CALIBRATING)
    some = np.linspace(0, len(train) - 1, count, dtype=int)
    return Int8Photos(
        calibrating=tuple(train.samples[i] for i in some), judging=tuple(val.samples),
        groups_N=groups_N, targets_NC=targets_of(val) if several else None,
    )  # fmt: skip


def write_int8(
    folder: Path,
    classifier: Classifier,
    photos: Int8Photos,
    *,
    answers: AnyAnswers | None,
    parents: Parents,
    seed: int,
    max_loss: float,
    progress: bool,
) -> Int8:
    """Write the graph of `classifier` in int8 into `folder`, with answers fitted on val through it.

    It is judged beside `classifier` itself, by torch in float32, each with its own answers. Both
    were fitted on these photos and the checkpoint was chosen on them, which favours float32, if
    either. Raises `UserError` where the interval of the loss ends above `max_loss` points.
    """
    crops = _crops(photos.calibrating, classifier.preprocess)
    size = classifier.preprocess.image_size
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        float32 = Path(scratch, GRAPH)
        write_onnx(AnswerGraph(classifier, None, None), float32, size=size, about="")
        quantised = quantise(float32, folder / GRAPH, crops)
        speeds = timed(float32, folder / GRAPH, crops[:_TIMED_BATCH])
        float32_bytes = sum(path.stat().st_size for path in Path(scratch).iterdir())
    coarse = ExportedClassifier(folder, classifier.head, classifier.preprocess)
    measuring = Measuring(device=torch.device("cpu"), num_workers=0, progress=progress)
    said = measuring.predict([classifier, coarse], photos.judging, _("judging int8"))
    fitted = (
        _fitted_labels(said, photos, answers, seed=seed)
        if isinstance(answers, LabelAnswers)
        else _fitted(said, photos, classifier, answers, parents=parents, seed=seed)
    )
    if fitted.judged.loss.high > max_loss:
        raise UserError(_refusal(fitted.judged, quantised, max_loss))
    return Int8(
        answers=fitted.answers, means_CD=fitted.means_CD, quantised=quantised,
        judged=fitted.judged, max_loss=max_loss, speeds=speeds, float32_bytes=float32_bytes,
        int8_bytes=sum(path.stat().st_size for path in folder.iterdir()),
    )  # fmt: skip


@dataclass(frozen=True)
class _Fitted:
    """What makes answers of the int8 graph, and what is lost by them."""

    answers: AnyAnswers | None
    means_CD: NDArray[np.floating[Any]] | None
    judged: Judged | JudgedLabels


def _fitted(
    said: Predictions,
    photos: Int8Photos,
    classifier: Classifier,
    answers: Answers | None,
    *,
    parents: Parents,
    seed: int,
) -> _Fitted:
    """Of what float32, which answers by `answers`, and int8 say, in this order."""
    means_CD, fitted = None, None
    features_ND, labels_N = said.features[1], said.labels
    groups_N = None if photos.groups_N is None else photos.groups_N[said.indices]
    if answers is not None:
        means_CD = class_means(features_ND, labels_N, num_classes=classifier.num_classes)
        fitted = fit_answers(
            said.logits[1], features_ND, labels_N,
            weights_CD=classifier.class_weights().detach().numpy(),
            share=answers.share, score=answers.score, seed=seed,
            coverage=None if answers.sets is None else answers.sets.coverage, parents=parents,
            groups_N=groups_N,
        )  # fmt: skip
    found = judged(
        scaled_logits(answers, said.logits[0]), scaled_logits(fitted, said.logits[1]), labels_N,
        groups_N=groups_N,
    )  # fmt: skip
    return _Fitted(fitted, means_CD, found)


def _fitted_labels(
    said: Predictions, photos: Int8Photos, answers: LabelAnswers, *, seed: int
) -> _Fitted:
    """The same where photos may show any of the classes."""
    assert photos.targets_NC is not None
    targets_NC = photos.targets_NC[said.indices]
    fitted = fit_label_answers(said.logits[1], targets_NC, seed=seed)
    found = judged_labels(
        answered_labels(answers, said.logits[0]), answered_labels(fitted, said.logits[1]),
        targets_NC, seed=seed,
        groups_N=None if photos.groups_N is None else photos.groups_N[said.indices],
    )  # fmt: skip
    return _Fitted(fitted, None, found)


def put_answers(folder: Path, classifier: Classifier, done: Int8, about: dict[str, Any]) -> None:
    """Let the graph in `folder` answer by `done`, and say `about` of itself."""
    import onnx

    model = onnx.load(folder / GRAPH, load_external_data=False)
    put_on(model, answer_head(classifier.head, done.answers, done.means_CD))
    onnx.helper.set_model_props(model, {"cliptune": json.dumps(about, ensure_ascii=False)})
    onnx.save(model, folder / GRAPH)


def int8_text(done: Int8) -> Said:
    """What int8 costs and what it gains, in a few lines."""
    speeds = done.speeds
    return said(
        "{layers} layers in int8, calibrated on {photos} of train; left in float32: {left}\n"
        "{judged}\n"
        "size: {int8_size:.1f} MB, float32 {float32_size:.1f} MB\n"
        "speed: {int8_speed:.1f} images/s, float32 {float32_speed:.1f}, in turns, {batch} at a "
        "time, on\n{processor}",
        layers=len(done.quantised.layers),
        photos=counting(done.quantised.photos, "photo"),
        left=_named(done.quantised.left) or said("none"),
        judged=done.judged.words(done.max_loss),
        int8_size=done.int8_bytes / 1e6,
        float32_size=done.float32_bytes / 1e6,
        int8_speed=speeds.int8,
        float32_speed=speeds.float32,
        batch=speeds.batch,
        processor=speeds.processor,
    )


def _crops(samples: Sequence[Sample], preprocess: Preprocess) -> list[NDArray[np.uint8]]:
    """uint8 (3, H, W) of those that can be read. Raises `DataError` where none can."""
    crops = []
    for sample in samples:
        try:
            crops.append(preprocess.pixels(read_image(sample.path)))
        except ImageError as error:
            last = error
    if not crops:
        raise DataError(f"none of the {len(samples)} photos of train can be read: {last}")
    return crops


def _refusal(found: Judged | JudgedLabels, quantised: Quantised, max_loss: float) -> str:
    loss = found.loss
    return (
        f"int8 loses {loss.value:.1f} {found.unit} on the {found.photos} photos of val, by the "
        f"95 % interval {loss.low:.1f} to {loss.high:.1f}, and --max-loss is {max_loss:g}; nothing "
        f"was written. {found.beside_the_loss} The layers whose outputs it "
        f"changes most: {_named(quantised.layers[:_NAMED])}. More photos in val narrow the "
        "interval; --max-loss says how much could be borne; --fp16 halves the file and answers "
        "the same."
    )


def _named(layers: Sequence[Layer]) -> str:
    return ", ".join(f"{layer.name} ({layer.error:.2%})" for layer in layers)
