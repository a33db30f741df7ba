"""The photos of a run: which there are, which of them can be read, and what brings them."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from cliptune.config import AugmentationSettings, DataSettings, TrainingSettings
from cliptune.data.augment import Augmentation
from cliptune.data.decoded import MIB
from cliptune.data.digests import PhotoSums
from cliptune.data.folder import Split, load_training_splits, without
from cliptune.data.groups import Groups, groups_of
from cliptune.data.images import Preprocess
from cliptune.data.loading import EpochBatches, PhotoDataset, make_loader
from cliptune.data.multilabel import has_several_labels, load_multilabel_training
from cliptune.errors import DataError, ImageError, listing
from cliptune.files import default_cache_dir
from cliptune.storage import address_of, local_folder
from cliptune.text import counted
from cliptune.training.several.sharing import unreadable_of

log = logging.getLogger(__name__)


def load_photos(
    data: DataSettings, *, recipe: str, seed: int, progress: bool
) -> tuple[Split, Split]:
    """The train and val splits, each file decoded once to find the unreadable ones.

    Raises `ImageError` listing all of them, unless `data.on_bad_image` is "skip".
    """
    folder = local_folder(data.data_dir)
    several = has_several_labels(folder, data.task)
    load = load_multilabel_training if several else load_training_splits
    train, val = load(folder, val_ratio=data.val_ratio, seed=seed)
    return readable_of(
        train, val, data, where=address_of(data.data_dir) or data.data_dir, recipe=recipe,
        progress=progress,
    )  # fmt: skip


def readable_of(
    train: Split, val: Split, data: DataSettings, *, where: object, recipe: str, progress: bool
) -> tuple[Split, Split]:
    """`train` and `val`, each file of theirs decoded once; `where` they were found is told.

    Raises `ImageError` listing those that cannot be read, unless `data.on_bad_image` is "skip":
    they are left out then. Raises `DataError` where too little is left.
    """
    paths = [sample.path for split in (train, val) for sample in split.samples]
    unreadable = unreadable_of(paths, progress=progress)
    if unreadable:
        lines = listing([str(fault) for fault in unreadable])
        of_all = f"{len(unreadable)} of {counted(len(paths), 'image')}"
        if data.on_bad_image == "error":
            raise ImageError(
                f"{of_all} cannot be read:\n{lines}\n"
                "Mend or remove them, or set data.on_bad_image to skip."
            )
        log.warning("skipping %s:\n%s", of_all, lines)
        bad = {Path(fault.path) for fault in unreadable}
        train, val = without(train, bad), without(val, bad)
    cause = "without the unreadable images " if unreadable else ""
    _refuse_nothing_left(where, train, val, cause=cause, recipe=recipe)
    log.info(
        "%s: %s%s, %s, %s", where, counted(len(train.class_names), "class"),
        "" if train.several is None else ", any number to a photo",
        counted(len(train), "training photo"), counted(len(val), "validation photo"),
    )  # fmt: skip
    if not val.samples:
        log.warning(
            "no photo is left for val: the head is fitted, and no adapters are trained, since "
            "nothing would tell whether they help. Two photos of a class or a val/ folder give val."
        )
    elif val.missing_classes:
        log.warning("val has no photos of: %s", ", ".join(val.missing_classes))
    return train, val


def _refuse_nothing_left(
    where: object, train: Split, val: Split, *, cause: str, recipe: str
) -> None:
    """Raise `DataError` where a class has nothing to learn from, or val has no photo and must.

    A head can be fitted without val.
    """
    left = {sample.label for sample in train.samples}
    if train.several is not None:
        left = {label for labels in train.several for label in labels}
    empty = [name for label, name in enumerate(train.class_names) if label not in left]
    if empty or (not val.samples and recipe == "plain"):
        raise DataError(
            f"{where}: {cause}there is no photo left for "
            f"{', '.join(empty) if empty else 'val'}. Each class needs at least two photos, "
            "or one in train/ and one in a val/ folder."
        )


def photo_sums(train: Split, val: Split) -> PhotoSums:
    """The sums by which a checkpoint knows its photos again."""
    return PhotoSums.of(*([sample.path for sample in split.samples] for split in (train, val)))


def groups_of_splits(
    data_dir: Path, train: Split, val: Split
) -> tuple[Groups | None, Groups | None]:
    """The group of each photo of `train`, and of `val`, by the same numbers; None without any."""
    groups_N = groups_of(data_dir, [s.path for split in (train, val) for s in split.samples])
    if groups_N is None:
        return None, None
    log.info(
        "%s: its photos belong to %s, which stay together in folds",
        data_dir, counted(len(np.unique(groups_N)), "group"),
    )  # fmt: skip
    return groups_N[: len(train)], groups_N[len(train) :]


def make_loaders(
    data: DataSettings,
    train: Split,
    val: Split,
    preprocess: Preprocess,
    *,
    training: TrainingSettings,
    seed: int,
    accelerator: Any,
) -> tuple[EpochBatches, DataLoader[Any], DataLoader[Any]]:
    """The order of training; the loaders of train in that order, augmented, and of val as it is."""
    batches = EpochBatches(
        len(train),
        batch_size=training.batch_size,
        rounds=rounds_for(len(train), training),
        seed=seed,
        balanced=[sample.label for sample in train.samples]
        if training.sampling == "balanced"
        else None,
        process=accelerator.process_index,
        processes=accelerator.num_processes,
    )
    augmentation = augmentation_by(data.augmentation)
    train_set = PhotoDataset(train.samples, preprocess, augmentation=augmentation, seed=seed)
    val_set = PhotoDataset(val.samples, preprocess)
    if data.cache and val.samples:
        cache_dir = data.cache_dir or default_cache_dir()
        limit, progress = data.cache_limit * MIB, accelerator.is_main_process
        with accelerator.local_main_process_first():  # built once on each machine
            val_set.keep_decoded(cache_dir, limit_bytes=limit, progress=progress)
            beside = [val_set.store] if val_set.store else []
            train_set.keep_decoded(cache_dir, limit_bytes=limit, beside=beside, progress=progress)
    load = partial(
        make_loader,
        num_workers=data.num_workers,
        pin_memory=data.pin_memory,
        read_timeout=data.read_timeout,
    )
    mine = {"process": accelerator.process_index, "processes": accelerator.num_processes}
    val_loader = load(val_set, batch_size=training.batch_size, **mine)
    return batches, load(train_set, batches=batches), val_loader


def rounds_for(photos: int, training: TrainingSettings) -> int:
    """How often an epoch shows each photo, so that a run has `training.min_updates` of them."""
    if training.recipe == "plain":
        return 1
    updates = -(-photos // (training.batch_size * training.gradient_accumulation_steps))
    return -(-training.min_updates // (training.num_epochs * updates)) or 1


def augmentation_by(settings: AugmentationSettings) -> Augmentation | None:
    """What draws the random views of training photos; None where they stay as they are."""
    if not settings.enabled:
        return None
    return Augmentation(
        crop_scale=settings.crop_scale,
        crop_ratio=settings.crop_ratio,
        flip=settings.flip,
        color=settings.color,
        views=settings.views,
    )
