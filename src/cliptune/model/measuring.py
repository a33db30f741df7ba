"""Checkpoints on labelled photos: which photos, how they are measured, what classifiers say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from cliptune.config import Settings
from cliptune.data.folder import Sample, Split, load_split, load_training_splits, relabelled
from cliptune.data.loading import PhotoDataset, make_loader
from cliptune.data.multilabel import (
    LABELS_FILE,
    is_multilabel,
    load_multilabel_split,
    load_multilabel_training,
)
from cliptune.data.splits import split_folders
from cliptune.errors import DataError, StorageError
from cliptune.files import user_path
from cliptune.foreign_errors import memory_errors_in_words
from cliptune.model.checkpoint import Checkpoint
from cliptune.model.classifier import Classifier, Predictions, predict_logits
from cliptune.model.device import DTYPES
from cliptune.model.loaded import LoadedCheckpoint
from cliptune.model.restore import answering_precision, saved_settings, training_folder
from cliptune.storage import local_folder


@dataclass(frozen=True, kw_only=True)
class Measuring:
    """How to measure, whatever is measured: the options that all measuring verbs share.

    `base_model` and `fast` as for `LoadedCheckpoint`; `cache_dir` and `precision` None are those of
    training.
    `progress` shows a bar, on a terminal only.
    """

    device: torch.device
    batch_size: int = 32
    num_workers: int = 2
    base_model: str | None = None
    cache_dir: Path | str | None = None
    precision: str | None = None
    fast: bool = True
    progress: bool = True

    def loaded(self, checkpoint: Checkpoint) -> LoadedCheckpoint:
        """`checkpoint` with its base model, on the CPU. Raises as `LoadedCheckpoint` does."""
        settings = saved_settings(checkpoint)
        precision = answering_precision(checkpoint, settings, self.device, self.precision)
        return LoadedCheckpoint(
            checkpoint,
            base_model=self.base_model,
            cache_dir=settings.model.cache_dir
            if self.cache_dir is None
            else user_path(self.cache_dir),
            towers_dtype=DTYPES.get(precision),
            fast=self.fast,
        )

    def predict(
        self, classifiers: Sequence[Classifier], samples: Sequence[Sample], what: str
    ) -> Predictions:
        """What `classifiers`, on `device`, say of `samples`, each decoded once.

        They share one preprocessing; `what` stands before the progress bar.
        """
        batches = self.batches(PhotoDataset(samples, classifiers[0].preprocess))
        bar = tqdm(batches, what, unit="batch", leave=False, disable=self.hides_bars)
        with memory_errors_in_words(self.batch_size):
            return predict_logits(classifiers, bar, self.device)

    def batches(self, photos: PhotoDataset) -> DataLoader[Any]:
        """All `photos` in their order."""
        return make_loader(
            photos, batch_size=self.batch_size, num_workers=self.num_workers, pin_memory=True
        )

    @property
    def hides_bars(self) -> bool | None:
        """`disable` of tqdm, for which None is: unless on a terminal."""
        return None if self.progress else True


def measured_folder(
    checkpoint: Checkpoint, settings: Settings, data_dir: Path | str | None
) -> Path:
    """`data_dir`, or the data folder of training. Raises `DataError` where that is not told."""
    if data_dir is not None:
        return local_folder(data_dir)
    if (folder := training_folder(checkpoint, settings)) is not None:
        return folder
    raise DataError(
        f"{checkpoint.path}: an exported folder does not say which photos it was trained on. Name "
        "the folder with the splits to measure on: --data-dir FOLDER"
    )


def is_of_training(checkpoint: Checkpoint, settings: Settings, folder: Path) -> bool:
    """Whether `folder` is known to be the data folder of training."""
    try:
        trained_on = training_folder(checkpoint, settings)
    except (StorageError, DataError):  # at an address where it is no longer
        return False
    return trained_on is not None and folder.resolve() == trained_on.resolve()


def labelled_photos(
    settings: Settings,
    data_dir: Path,
    split: str,
    class_names: list[str],
    *,
    several: bool = False,
) -> Split:
    """The photos of `split`, labelled by the checkpoint's class names; `several`: any number each.

    Raises `DataError` where they are labelled otherwise.
    """
    folders = split_folders(data_dir)
    if several != is_multilabel(data_dir):
        found, expected = f"a folder for each class, not {LABELS_FILE}", "any number of labels"
        if not several:
            found, expected = f"{LABELS_FILE} in its splits", "one label"
        raise DataError(
            f"{data_dir}: it has {found}, and the checkpoint {expected} to a photo. Measure it on "
            "photos that are labelled so."
        )
    if split == "test" or "val" in folders or "train" not in folders:
        load = load_multilabel_split if several else load_split
        return load(data_dir, split, class_names=class_names)
    # Without a val/ folder, training took val out of train/; take the same photos again.
    load_both = load_multilabel_training if several else load_training_splits
    train, val = load_both(data_dir, val_ratio=settings.data.val_ratio, seed=settings.seed)
    if set(train.class_names) != set(class_names):
        raise DataError(
            f"{data_dir}: there is no val/ folder, and train/ holds other classes than the "
            "checkpoint knows, so the photos it was validated on cannot be found again. "
            "Evaluate with --split test, or make a val/ folder."
        )
    chosen = train if split == "train" else val
    return chosen if several else relabelled(chosen, class_names)
