"""Photos of a split by a checkpoint's classes, and what classifiers say of them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from cliptune.config import Settings
from cliptune.data.folder import Sample, Split, load_split, load_training_splits, relabelled
from cliptune.data.loading import PhotoDataset, make_loader
from cliptune.data.reading import Unreadable
from cliptune.data.splits import split_folder, split_folders
from cliptune.errors import DataError, ImageError, listing
from cliptune.hints import nearest
from cliptune.model.classifier import Classifier, Predictions, predict_logits
from cliptune.text import counted

log = logging.getLogger(__name__)


def predict_samples(
    classifiers: Sequence[Classifier],
    samples: Sequence[Sample],
    what: str,
    device: torch.device,
    *,
    batch_size: int,
    num_workers: int,
    progress: bool,
) -> Predictions:
    """What `classifiers` say of `samples`, each decoded once.

    They share one preprocessing; `what` stands before the progress bar.
    """
    loader = make_loader(
        PhotoDataset(samples, classifiers[0].preprocess),
        batch_size=batch_size,
        num_workers=num_workers,
        pin_memory=True,
    )
    hidden = None if progress else True  # None: shown on a terminal only
    batches = tqdm(loader, what, unit="batch", leave=False, disable=hidden)
    return predict_logits(classifiers, batches, device)


def labelled_photos(
    settings: Settings, data_dir: Path, split: str, class_names: list[str]
) -> Split:
    """The photos of `split`, labelled by the checkpoint's class names."""
    folders = split_folders(data_dir)
    if split == "test" or "val" in folders or "train" not in folders:
        return load_split(data_dir, split, class_names=class_names)
    # Without a val/ folder, training took val out of train/; take the same photos again.
    train, val = load_training_splits(
        data_dir, val_ratio=settings.data.val_ratio, seed=settings.seed
    )
    if set(train.class_names) != set(class_names):
        raise DataError(
            f"{data_dir}: there is no val/ folder, and train/ holds other classes than the "
            "checkpoint knows, so the photos it was validated on cannot be found again. "
            "Evaluate with --split test, or make a val/ folder."
        )
    return relabelled(train if split == "train" else val, class_names)


def say_mismatches(photos: Split, data_dir: Path) -> None:
    """Warn of classes without photos, and of folders the model does not know."""
    split_dir = split_folder(data_dir, photos.name)
    if photos.missing_classes:
        log.warning(
            "%s has no photos of %s the model knows: %s",
            split_dir, counted(len(photos.missing_classes), "class"),
            ", ".join(photos.missing_classes),
        )  # fmt: skip
    if photos.extra_classes:
        log.warning(
            "%s: left out, since the model does not know these classes: %s",
            split_dir,
            ", ".join(_with_hint(name, photos.missing_classes) for name in photos.extra_classes),
        )  # fmt: skip


def _with_hint(name: str, missing: Sequence[str]) -> str:
    """The folder `name`, and which class it may have been meant for."""
    near = nearest(name, missing)
    return f"{name} (did you mean '{near}'?)" if near else name


def refuse_unreadable(unreadable: list[Unreadable], on_bad_image: str) -> None:
    """Raise `ImageError` with all `unreadable` photos, or warn of them where they are skipped."""
    if not unreadable:
        return
    lines = listing([str(fault) for fault in unreadable])
    if on_bad_image == "error":
        raise ImageError(
            f"{counted(len(unreadable), 'image')} cannot be read:\n{lines}\n"
            "Mend or remove them, or leave them out with --on-bad-image skip."
        )
    log.warning("left out %s:\n%s", counted(len(unreadable), "unreadable image"), lines)
