"""Checkpoints and a split in, how they differ on the same photos out."""

from __future__ import annotations

import string
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from cliptune.config import Settings
from cliptune.data.folder import Split
from cliptune.data.groups import groups_of
from cliptune.data.images import Preprocess
from cliptune.data.naming import display_names
from cliptune.data.splits import check_split, split_folders
from cliptune.errors import DataError, UserError, listing, named
from cliptune.evaluation.comparison.comparison import Comparison, build_differences, build_model
from cliptune.evaluation.comparison.writing import write_comparison
from cliptune.evaluation.left_out import refuse_none_left, refuse_unreadable, say_mismatches
from cliptune.evaluation.report import refuse_not_finite
from cliptune.evaluation.seen import seen_photos
from cliptune.files import user_path
from cliptune.foreign_errors import memory_errors_in_words
from cliptune.hints import check_choice
from cliptune.model.answers import Answers, Floats, Logits, scaled_logits
from cliptune.model.checkpoint import Checkpoint, resolve_checkpoint
from cliptune.model.classifier import Predictions
from cliptune.model.device import resolve_device
from cliptune.model.measuring import (
    Measuring,
    is_of_training,
    labelled_photos,
    measured_folder,
)
from cliptune.model.restore import (
    load_answers,
    load_photo_sums,
    load_preprocess,
    saved_settings,
    training_folder,
)
from cliptune.storage import check_output_folder, output_folder
from cliptune.text import command as command_line

LETTERS = string.ascii_uppercase


@dataclass(frozen=True)
class _Contestant:
    """A model before it is measured."""

    letter: str
    checkpoint: Checkpoint
    settings: Settings
    answers: Answers | None
    preprocess: Preprocess

    @property
    def class_names(self) -> list[str]:
        return self.checkpoint.record.class_names

    @property
    def trained_on(self) -> Path | None:
        """As of `training_folder`."""
        return training_folder(self.checkpoint, self.settings)

    def __str__(self) -> str:
        return f"{self.letter} ({self.checkpoint.path})"


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
) -> Comparison:
    """Measure two or more checkpoints (or the best of run folders) on the same photos.

    The others are compared with the first, photo by photo. All know the same classes, in any
    order. `data_dir` defaults to the folder that all were trained on, which an exported one does
    not tell. Options are those of `evaluate`. Writes the comparison's files to `output_dir` unless
    that is None; `command` is the line that compares the same again, for whoever reads the page.

    Raises `UserError` for models that cannot be compared, `CheckpointError`, `DataError`, and
    `ImageError` listing every unreadable photo.
    """
    check_split(split)
    check_choice("--on-bad-image", on_bad_image, ("error", "skip"))
    if output_dir is not None:
        check_output_folder(output_dir)
    models = _contestants([user_path(path) for path in checkpoints])
    measuring = Measuring(
        device=resolve_device(device), batch_size=batch_size, num_workers=num_workers,
        base_model=base_model, cache_dir=cache_dir, precision=precision, fast=fast,
        progress=progress,
    )  # fmt: skip
    _refuse_one_base_for_several(models, base_model)
    folder = _common_folder(models, data_dir)
    photos = _common_photos(models, folder, split)
    say_mismatches(photos, folder)
    started = time.perf_counter()
    with memory_errors_in_words(batch_size):
        predictions = _predict_all(models, photos, measuring, on_bad_image=on_bad_image)
    seconds = time.perf_counter() - started
    refuse_none_left(predictions, photos, folder)
    comparison = _measured(models, predictions, photos, folder, seconds)
    if output_dir is not None:
        with output_folder(output_dir) as written:
            write_comparison(comparison, written, command)
    return comparison


def _contestants(paths: Sequence[Path]) -> list[_Contestant]:
    """The models at `paths`, found to be different ones of the same classes."""
    if len(paths) < 2:
        one = ["--checkpoint", *paths] if paths else []
        raise UserError(
            f"a comparison needs two models or more; {len(paths)} given. "
            f"To measure a single one: {command_line('cliptune', 'evaluate', *one)}"
        )
    if len(paths) > len(LETTERS):
        raise UserError(f"{len(paths)} models; at most {len(LETTERS)} can be compared at once.")
    models = []
    for letter, path in zip(LETTERS, paths, strict=False):
        found = resolve_checkpoint(path)
        answers, _ = load_answers(found)
        models.append(
            _Contestant(letter, found, saved_settings(found), answers, load_preprocess(found))
        )
    first_at: dict[Path, _Contestant] = {}
    for model in models:
        same = first_at.setdefault(model.checkpoint.path.resolve(), model)
        if same is not model:
            raise UserError(
                f"{same.letter} and {model.letter} are the same checkpoint: "
                f"{model.checkpoint.path}. Name different ones."
            )
    _refuse_other_classes(models)
    return models


def _refuse_other_classes(models: Sequence[_Contestant]) -> None:
    first, faults = models[0], []
    for model in models[1:]:
        lacks = [name for name in first.class_names if name not in set(model.class_names)]
        more = [name for name in model.class_names if name not in set(first.class_names)]
        lists = [(model, lacks), (first, more)]
        faults += [f"{who} lacks: {named(names)}" for who, names in lists if names]
    if faults:
        raise UserError(
            f"the models do not know the same classes:\n{listing(faults)}\n"
            "Compare models of the same classes; their order may differ."
        )


def _refuse_one_base_for_several(models: Sequence[_Contestant], base_model: str | None) -> None:
    bases = {m.checkpoint.record.base_model.fingerprint: m for m in models}
    if base_model is not None and len(bases) > 1:
        names = [f"{m}: {m.checkpoint.record.base_model.name}" for m in bases.values()]
        raise UserError(
            f"--base-model {base_model}: the models stand on different base models, of which "
            f"one path can only name one:\n{listing(names)}\n"
            "Leave --base-model out, and put the base models where training had them."
        )


def _common_folder(models: Sequence[_Contestant], data_dir: Path | str | None) -> Path:
    """`data_dir`, or the folder all were trained on."""
    found = [measured_folder(model.checkpoint, model.settings, data_dir) for model in models]
    if len({folder.resolve() for folder in found}) > 1:
        lines = [f"{model}: {folder}" for model, folder in zip(models, found, strict=True)]
        raise DataError(
            f"the models were trained on photos of different folders:\n{listing(lines)}\n"
            "Say on which to compare them, with --data-dir."
        )
    return found[0]


def _common_photos(models: Sequence[_Contestant], folder: Path, split: str) -> Split:
    """The photos of `split`, the same ones for every model, labelled by the first's classes."""
    names = models[0].class_names
    photos = labelled_photos(models[0].settings, folder, split, names)
    if split == "test" or "val" in split_folders(folder):
        return photos
    # Without val/, each training took val out of train/ by its own seed and share.
    for model in models[1:]:
        other = labelled_photos(model.settings, folder, split, names)
        if other.samples != photos.samples:
            raise DataError(
                f"{folder}: there is no val/ folder, and {models[0]} and {model} took different "
                "photos out of train/ as val (data.val_ratio, seed): one would be measured on "
                "photos it learned from. Compare with --split test, or make a val/ folder."
            )
    return photos


def _predict_all(
    models: Sequence[_Contestant], photos: Split, measuring: Measuring, *, on_bad_image: str
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
    models: Sequence[_Contestant],
    predictions: Predictions,
    photos: Split,
    folder: Path,
    seconds: float,
) -> Comparison:
    paths = tuple(photos.samples[i].path for i in predictions.indices)
    groups_N = groups_of(folder, paths)
    scaled = [_scaled(m, x, photos) for m, x in zip(models, predictions.logits, strict=True)]
    measured = [
        build_model(
            scaled_NC,
            predictions.labels,
            letter=model.letter,
            checkpoint=str(model.checkpoint.path),
            base_model=model.checkpoint.record.base_model.name,
            training_data=None if model.trained_on is None else str(model.trained_on.resolve()),
            answers=model.answers,
            seen=seen_photos(
                load_photo_sums(model.checkpoint),
                paths,
                split=photos.name,
                of_training=is_of_training(model.checkpoint, model.settings, folder),
            ),
            groups_N=groups_N,
        )
        for model, scaled_NC in zip(models, scaled, strict=True)
    ]
    return Comparison(
        models=tuple(measured),
        differences=build_differences(measured, scaled, predictions.labels, groups_N=groups_N),
        class_names=photos.class_names,
        display_names=display_names(photos.class_names, models[0].checkpoint.record.display_names),
        data_dir=str(folder),
        split=photos.name,
        missing_classes=photos.missing_classes,
        ignored_classes=photos.extra_classes,
        skipped_images=tuple(str(fault.path) for fault in predictions.unreadable),
        paths=paths,
        labels_N=predictions.labels,
        seconds=seconds,
    )


def _scaled(model: _Contestant, logits_NC: Logits, photos: Split) -> Floats:
    """(N, C) logits scaled as the checkpoint answers, in the order of the classes of `photos`."""
    refuse_not_finite(logits_NC, str(model.checkpoint.path))
    # Before the classes are put in order: the factors are in the checkpoint's own.
    scaled_NC = scaled_logits(model.answers, logits_NC)
    index = {name: i for i, name in enumerate(model.class_names)}
    return scaled_NC[:, [index[name] for name in photos.class_names]]
