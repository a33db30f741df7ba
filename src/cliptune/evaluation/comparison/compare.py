"""Checkpoints and a split in, how they differ on the same photos out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cliptune.data.folder import Split
from cliptune.data.groups import groups_of
from cliptune.data.images import Preprocess
from cliptune.data.multilabel import targets_of
from cliptune.data.naming import display_names
from cliptune.data.splits import check_split
from cliptune.errors import DataError
from cliptune.evaluation.comparison.comparison import Comparison, build_differences, build_model
from cliptune.evaluation.comparison.contestants import (
    Contestant,
    common_folder,
    common_photos,
    contestants_at,
    refuse_one_base_for_several,
)
from cliptune.evaluation.comparison.multilabel import (
    ComparedLabelModel,
    MultilabelComparison,
    build_label_differences,
)
from cliptune.evaluation.comparison.writing import write_comparison
from cliptune.evaluation.left_out import (
    refuse_none_left,
    refuse_unreadable,
    say_mismatches,
    say_unmatched_labels,
)
from cliptune.evaluation.report import SEED, refuse_not_finite
from cliptune.evaluation.seen import seen_photos
from cliptune.evaluation.statistics.grouped import num_groups
from cliptune.evaluation.statistics.multilabel import figures_and_draws
from cliptune.files import user_path
from cliptune.foreign_errors import memory_errors_in_words
from cliptune.hints import check_choice
from cliptune.model.answers import Floats, Logits, scaled_logits
from cliptune.model.classifier import Predictions
from cliptune.model.device import resolve_device
from cliptune.model.label_answers import answered_labels, reordered_label_answers
from cliptune.model.measuring import Measuring, is_of_training
from cliptune.model.restore import load_photo_sums
from cliptune.storage import check_output_folder, output_folder


def compare(
    checkpoints: Sequence[Path | str],
    *,
    data_dir: Path | str | None = None,
    split: str = "test",
    output_dir: Path | str | None = "outputs/comparison",
    batch_size: int = 32,
    num_workers: int = 2,
    on_bad_image: Literal["error", "skip"] = "error",
    device: str = "auto",
    base_model: str | None = None,
    cache_dir: Path | str | None = None,
    precision: str | None = None,
    fast: bool = True,
    progress: bool = True,
    command: str | None = None,
) -> Comparison | MultilabelComparison:
    """Measure two or more checkpoints (or the best of run folders) on the same photos.

    The others are compared with the first, photo by photo. All know the same classes, in any
    order, and all tell one label of a photo, or all any number of labels: then a
    `MultilabelComparison` comes back. `data_dir` defaults to the folder that all were trained on,
    which an exported one does not tell. Options are those of `evaluate`. Writes the comparison's
    files to `output_dir` unless that is None; `command` is the line that compares the same again,
    for whoever reads the page.

    Raises `UserError` for models that cannot be compared, `CheckpointError`, `DataError`, and
    `ImageError` listing every unreadable photo.
    """
    check_split(split)
    check_choice("--on-bad-image", on_bad_image, ("error", "skip"))
    if output_dir is not None:
        check_output_folder(output_dir)
    models = contestants_at([user_path(path) for path in checkpoints])
    measuring = Measuring(
        device=resolve_device(device), batch_size=batch_size, num_workers=num_workers,
        base_model=base_model, cache_dir=cache_dir, precision=precision, fast=fast,
        progress=progress,
    )  # fmt: skip
    refuse_one_base_for_several(models, base_model)
    folder = common_folder(models, data_dir)
    photos = common_photos(models, folder, split)
    (say_unmatched_labels if models[0].several else say_mismatches)(photos, folder)
    started = time.perf_counter()
    with memory_errors_in_words(batch_size):
        predictions = _predict_all(models, photos, measuring, on_bad_image=on_bad_image)
    seconds = time.perf_counter() - started
    refuse_none_left(predictions, photos, folder)
    measured = _measured_labels if models[0].several else _measured
    comparison = measured(models, predictions, photos, folder, seconds)
    if output_dir is not None:
        with output_folder(output_dir) as written:
            write_comparison(comparison, written, command)
    return comparison


def _predict_all(
    models: Sequence[Contestant], photos: Split, measuring: Measuring, *, on_bad_image: str
) -> Predictions:
    """What each model says, in the models' order; one pass for all of the same preprocessing.

    Logits are in each model's own order of classes.
    """
    groups: dict[Preprocess, list[int]] = {}
    for index, model in enumerate(models):
        groups.setdefault(model.preprocess, []).append(index)
    logits: dict[int, Logits] = {}
    first = None
    for number, indices in enumerate(groups.values(), 1):
        classifiers = [
            measuring.loaded(models[i].checkpoint).tuned().to(measuring.device) for i in indices
        ]
        part = f" ({number} of {len(groups)})" if len(groups) > 1 else ""
        predictions = measuring.predict(
            classifiers, photos.samples, f"comparing on {photos.name}{part}"
        )
        if first is None:
            refuse_unreadable(predictions.unreadable, on_bad_image)
            first = predictions
        elif not np.array_equal(predictions.indices, first.indices):
            raise DataError(
                f"photos of {photos.name} became unreadable, or readable, between two passes over "
                "them. Run the same command again."
            )
        logits |= dict(zip(indices, predictions.logits, strict=True))
    assert first is not None  # there are models
    return replace(first, logits=[logits[i] for i in range(len(models))])


def _measured(
    models: Sequence[Contestant],
    predictions: Predictions,
    photos: Split,
    folder: Path,
    seconds: float,
) -> Comparison:
    paths = _paths(predictions, photos)
    groups_N = groups_of(folder, paths)
    scaled = [_scaled(m, x, photos) for m, x in zip(models, predictions.logits, strict=True)]
    measured = [
        build_model(
            scaled_NC,
            predictions.labels,
            answers=model.answers,
            groups_N=groups_N,
            **_named(model, paths, photos.name, folder),
        )
        for model, scaled_NC in zip(models, scaled, strict=True)
    ]
    return Comparison(
        models=tuple(measured),
        differences=build_differences(measured, scaled, predictions.labels, groups_N=groups_N),
        labels_N=predictions.labels,
        **_shared(models[0], predictions, photos, folder, seconds),
    )


def _measured_labels(
    models: Sequence[Contestant],
    predictions: Predictions,
    photos: Split,
    folder: Path,
    seconds: float,
) -> MultilabelComparison:
    """The same where photos have any number of labels."""
    targets_NC = targets_of(photos)[predictions.indices]
    paths = _paths(predictions, photos)
    groups_N = groups_of(folder, paths)
    measured, draws = [], []
    for model, logits_NC in zip(models, predictions.logits, strict=True):
        refuse_not_finite(logits_NC, str(model.checkpoint.path))
        assert model.label_answers is not None  # all are of several labels
        order_C = [model.class_names.index(name) for name in photos.class_names]
        answers = reordered_label_answers(model.label_answers, order_C)
        answered = answered_labels(answers, logits_NC[:, order_C])
        figures, own = figures_and_draws(
            answered.probabilities_NC, answered.shown_NC, targets_NC, seed=SEED, groups_N=groups_N
        )
        draws.append(own)
        measured.append(
            ComparedLabelModel(
                answers=answers,
                figures=figures,
                probabilities_NC=answered.probabilities_NC,
                shown_NC=answered.shown_NC,
                **_named(model, paths, photos.name, folder),
            )
        )
    return MultilabelComparison(
        models=tuple(measured),
        differences=build_label_differences(measured, draws, targets_NC),
        targets_NC=targets_NC,
        num_groups=num_groups(groups_N),
        **_shared(models[0], predictions, photos, folder, seconds),
    )


def _named(model: Contestant, paths: Sequence[Path], split: str, folder: Path) -> dict[str, Any]:
    """The fields of `NamedModel`."""
    return {
        "letter": model.letter,
        "checkpoint": str(model.checkpoint.path),
        "base_model": model.checkpoint.record.base_model.name,
        "training_data": None if model.trained_on is None else str(model.trained_on.resolve()),
        "seen": seen_photos(
            load_photo_sums(model.checkpoint),
            paths,
            split=split,
            of_training=is_of_training(model.checkpoint, model.settings, folder),
        ),
    }


def _shared(
    first: Contestant, predictions: Predictions, photos: Split, folder: Path, seconds: float
) -> dict[str, Any]:
    """The fields of `Compared` but for its models."""
    return {
        "class_names": photos.class_names,
        "display_names": display_names(photos.class_names, first.checkpoint.record.display_names),
        "data_dir": str(folder),
        "split": photos.name,
        "missing_classes": photos.missing_classes,
        "ignored_classes": photos.extra_classes,
        "skipped_images": tuple(str(fault.path) for fault in predictions.unreadable),
        "paths": _paths(predictions, photos),
        "seconds": seconds,
    }


def _paths(predictions: Predictions, photos: Split) -> tuple[Path, ...]:
    return tuple(photos.samples[i].path for i in predictions.indices)


def _scaled(model: Contestant, logits_NC: Logits, photos: Split) -> Floats:
    """(N, C) logits scaled as the checkpoint answers, in the order of the classes of `photos`."""
    refuse_not_finite(logits_NC, str(model.checkpoint.path))
    # Before the classes are put in order: the factors are in the checkpoint's own.
    scaled_NC = scaled_logits(model.answers, logits_NC)
    index = {name: i for i, name in enumerate(model.class_names)}
    return scaled_NC[:, [index[name] for name in photos.class_names]]
