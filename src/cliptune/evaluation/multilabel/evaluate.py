"""A checkpoint of several labels and a split in, figures and a report out.

Shape suffixes: N photos, C classes.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

import numpy as np

from cliptune.data.folder import Split
from cliptune.data.groups import groups_of
from cliptune.data.multilabel import targets_of
from cliptune.data.naming import display_names
from cliptune.data.splits import check_split
from cliptune.errors import CheckpointError, DataError, UserError
from cliptune.evaluation.left_out import refuse_unreadable, say_unmatched_labels
from cliptune.evaluation.multilabel.measured import MultilabelEvaluation, MultilabelPhotos
from cliptune.evaluation.multilabel.writing import write_multilabel_report
from cliptune.evaluation.report import SEED, refuse_not_finite
from cliptune.evaluation.seen import seen_photos
from cliptune.evaluation.statistics.grouped import num_groups
from cliptune.evaluation.statistics.multilabel import (
    binary_log_losses,
    mean_ap_gain,
    multilabel_figures,
)
from cliptune.evaluation.zero_shot import measured_classifiers
from cliptune.files import user_path
from cliptune.foreign_errors import memory_errors_in_words
from cliptune.hints import check_choice
from cliptune.language import translated as _
from cliptune.model.checkpoint import Checkpoint, resolve_checkpoint
from cliptune.model.classifier import Predictions
from cliptune.model.device import resolve_device
from cliptune.model.label_answers import answered_labels
from cliptune.model.measuring import Measuring, is_of_training, labelled_photos, measured_folder
from cliptune.model.restore import load_label_answers, load_photo_sums, saved_settings
from cliptune.storage import check_output_folder, output_folder


def evaluate_multilabel(
    checkpoint: Path | str,
    *,
    data_dir: Path | str | None = None,
    split: str = "test",
    output_dir: Path | str | None = "outputs/evaluation",
    batch_size: int = 32,
    num_workers: int = 2,
    baseline: bool = True,
    on_bad_image: Literal["error", "skip"] = "error",
    device: str = "auto",
    base_model: str | None = None,
    cache_dir: Path | str | None = None,
    precision: str | None = None,
    fast: bool = True,
    progress: bool = True,
    command: str | None = None,
) -> MultilabelEvaluation:
    """Measure a checkpoint of several labels (or the best of a run folder) on one split.

    Arguments are those of `cliptune.evaluate`. Writes the report's files to `output_dir` unless
    that is None.

    Raises `CheckpointError`, `DataError`, `ImageError` listing every unreadable photo, and
    `UserError` for a checkpoint of one label.
    """
    check_split(split)
    check_choice("--on-bad-image", on_bad_image, ("error", "skip"))
    if output_dir is not None:
        check_output_folder(output_dir)
    found = resolve_checkpoint(user_path(checkpoint))
    if found.record.task != "multilabel":
        raise UserError(f"{found.path}: it has one label to a photo. Measure it with `evaluate`.")
    measuring = Measuring(
        device=resolve_device(device), batch_size=batch_size, num_workers=num_workers,
        base_model=base_model, cache_dir=cache_dir, precision=precision, fast=fast,
        progress=progress,
    )  # fmt: skip
    settings = saved_settings(found)
    folder = measured_folder(found, settings, data_dir)
    photos = labelled_photos(settings, folder, split, found.record.class_names, several=True)
    say_unmatched_labels(photos, folder)
    with memory_errors_in_words(batch_size):
        loaded = measuring.loaded(found)
        classifiers = [
            classifier.to(measuring.device)
            for classifier in measured_classifiers(loaded, baseline=baseline)
        ]
        started = time.perf_counter()
        said = measuring.predict(
            classifiers, photos.samples, _("evaluating {split}").format(split=photos.name)
        )
        seconds = time.perf_counter() - started
    refuse_unreadable(said.unreadable, on_bad_image)
    if not len(said.indices):
        raise DataError(f"{folder}: no photo of {split} can be read.")
    evaluation = _evaluation(found, said, photos, folder, seconds=seconds)
    if output_dir is not None:
        with output_folder(output_dir) as written:
            write_multilabel_report(evaluation, written, command=command or "")
    return evaluation


def _evaluation(
    found: Checkpoint, said: Predictions, photos: Split, folder: Path, *, seconds: float
) -> MultilabelEvaluation:
    refuse_not_finite(said.logits[0], str(found.path))
    answers = load_label_answers(found)
    if answers is None:
        raise CheckpointError(f"{found.path}: it says nothing of several labels.")
    targets_NC = targets_of(photos)[said.indices]
    answered = answered_labels(answers, said.logits[0])
    paths = tuple(photos.samples[place].path for place in said.indices)
    groups_N = groups_of(folder, paths)
    figures = multilabel_figures(
        answered.probabilities_NC, answered.shown_NC, targets_NC, seed=SEED, groups_N=groups_N
    )
    zero_NC = said.logits[1] if len(said.logits) > 1 else None
    zero = None
    if zero_NC is not None:  # its figures by threshold would be of thresholds that it lacks
        nothing_NC = np.zeros_like(targets_NC)
        zero = multilabel_figures(
            zero_NC.astype(np.float64), nothing_NC, targets_NC, seed=SEED, groups_N=groups_N
        )
    of_training = is_of_training(found, saved_settings(found), folder)
    record = found.record
    return MultilabelEvaluation(
        checkpoint=str(found.path), base_model=record.base_model.name, data_dir=str(folder),
        split=photos.name, class_names=photos.class_names,
        display_names=display_names(photos.class_names, record.display_names),
        missing_classes=photos.missing_classes, ignored_labels=photos.extra_classes,
        skipped_images=tuple(str(fault.path) for fault in said.unreadable),
        loss=float(binary_log_losses(answered.scaled_NC, targets_NC).mean()),
        figures=figures,
        baseline=None if zero is None else zero.mean_ap,
        gain=None
        if zero_NC is None
        else mean_ap_gain(
            answered.scaled_NC, zero_NC, targets_NC, seed=SEED, groups_N=groups_N
        ),
        baseline_classes=tuple(
            None if zero is None else each.average_precision
            for each in (figures if zero is None else zero).classes
        ),
        answers=answers,
        photos=MultilabelPhotos(
            paths, targets_NC, answered.probabilities_NC, answered.shown_NC
        ),
        seconds=seconds,
        num_groups=num_groups(groups_N),
        seen=seen_photos(
            load_photo_sums(found), paths, split=photos.name, of_training=of_training
        ),
    )  # fmt: skip
