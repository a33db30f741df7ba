"""What a training run holds, and where it stands; the rest of training works on these two."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader

from cliptune.config import Settings
from cliptune.data.classes_file import GivenNames
from cliptune.data.digests import PhotoSums
from cliptune.data.folder import Sample
from cliptune.data.groups import Groups
from cliptune.data.loading import EpochBatches
from cliptune.model.backbone import Backbone
from cliptune.model.classifier import Classifier, TextHead
from cliptune.model.dropout import PhotoKeys
from cliptune.model.fast.kept_activations import FrozenStates
from cliptune.training.events import EventFiles
from cliptune.training.head.folds import FoldShifts
from cliptune.training.multilabel import MultilabelLoss, Several
from cliptune.training.optim import epochs_without_gain
from cliptune.training.trackers.telling import Trackers
from cliptune.training.uneven import UnevenLoss


@dataclass
class Progress:
    """Where a run stands. Losses are sums in nats, accuracies fractions, times seconds."""

    epoch: int = 0  # the running epoch, counted from 0
    epoch_updates: int = 0  # finished updates of the running epoch
    update: int = 0  # finished updates in all
    baseline: dict[str, float | int | None] = field(default_factory=dict)
    # One row for each epoch, that of a head fitted first too, as epoch 0; None for what is not
    # known, or not finite.
    history: list[dict[str, float | None]] = field(default_factory=list)
    rounds: int = 1  # through all photos in an epoch
    # Sums over the running epoch:
    photos: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    top5_correct: int = 0
    train_seconds: float = 0.0  # of the whole run, without validation
    photos_seen: int = 0  # in the whole run, those of updates left out among them
    skipped: int = 0  # updates left out since their loss or gradient was not finite
    skipped_in_a_row: int = 0
    pending: bool = False  # this update's validation was not finished

    @property
    def images_per_second(self) -> float | None:
        """Over the whole run; None before its first update."""
        return self.photos_seen / self.train_seconds if self.train_seconds else None


@dataclass(frozen=True)
class HeadLosses:
    """(N,) log losses of val's photos, in nats, by the fitted head alone; and which they are."""

    losses_N: NDArray[np.float64]
    indices_N: NDArray[np.int64]


@dataclass(frozen=True)
class ValAnswers:
    """What was answered of val's photos after an epoch, at some update.

    (N,): `photos` are their places in val, `truth` and `answered` classes; `doubt` is how far, in
    logits, the answer lies above the truth.
    """

    epoch: int
    update: int
    photos: NDArray[np.int64]
    truth: NDArray[np.int64]
    answered: NDArray[np.int64]
    doubt: NDArray[np.float32]


@dataclass
class Run:
    """Everything one training run works with."""

    settings: Settings
    accelerator: Any
    backbone: Backbone
    class_names: tuple[str, ...]
    names: GivenNames  # what classes.yaml calls them
    train_samples: Sequence[Sample]
    val_samples: Sequence[Sample]
    zero_shot: TextHead
    classifier: Classifier  # the bare module
    model: nn.Module  # the same, prepared by accelerate: for forward and backward
    optimizer: torch.optim.Optimizer
    batches: EpochBatches
    train_loader: DataLoader[Any]
    val_loader: DataLoader[Any]
    keys: PhotoKeys  # whose dropout masks are drawn
    loss: UnevenLoss | MultilabelLoss
    several: Several | None = None  # the labels of photos that have any number of them
    frozen: FrozenStates | None = None  # of training photos, and of val's
    frozen_val: FrozenStates | None = None
    photo_sums: PhotoSums | None = None  # in the process that saves
    # The group of each photo of train, and of val, by the same numbers; None where there are none.
    train_groups_N: Groups | None = None
    val_groups_N: Groups | None = None
    # What checkpoints hold of the fitted head in the place of its own, where val is in theirs.
    delivered: dict[str, torch.Tensor] = field(default_factory=dict)
    fold_shifts: FoldShifts | None = None  # of the fitted head, for photos it was fitted on
    head_losses: HeadLosses | None = None  # before anything else was learned
    progress: Progress = field(default_factory=Progress)
    trackers: Trackers = field(default_factory=Trackers)  # none before training begins
    best_answers: ValAnswers | None = None  # of val, after the best epoch of this process
    pieces: int = 1  # each micro-batch is cut into as many, once memory ran out
    # Of the clock that only goes forward: before, no picture of the curves but the last.
    next_picture: float = field(default_factory=lambda: time.monotonic() + 10)

    @property
    def several_labels(self) -> tuple[tuple[int, ...], ...] | None:
        """The classes of each training photo, where it may have any number of them."""
        return None if self.several is None else self.several.train

    @property
    def has_val(self) -> bool:
        """Whether there is any photo to measure on."""
        return bool(self.val_samples)

    @property
    def trained(self) -> list[nn.Parameter]:
        """The weights that are trained: adapters and head."""
        return [p for p in self.classifier.parameters() if p.requires_grad]

    @property
    def updates_per_epoch(self) -> int:
        """Optimizer updates in one epoch; the last may take fewer micro-batches."""
        return -(-len(self.batches) // self.settings.training.gradient_accumulation_steps)

    @property
    def events(self) -> EventFiles:
        """The run's curves in TensorBoard's folder."""
        output = self.settings.output
        return EventFiles(output.log_dir / output.output_dir.name, output.output_dir)

    def gain_is_over(self) -> bool:
        """Whether early stopping says that val no longer improves.

        A gain is a rise of accuracy or a fall of loss (nats) by `min_delta`: on a few hundred
        photos accuracy alone is too coarse, and would stop a run that is still learning.
        """
        early, history = self.settings.training.early_stopping, self.progress.history
        accuracies = [row["val_accuracy"] or 0.0 for row in history]
        losses = [row["val_loss"] for row in history]
        stale = min(
            epochs_without_gain(accuracies, early.min_delta),
            # A loss that is not finite is no gain.
            epochs_without_gain([-math.inf if x is None else -x for x in losses], early.min_delta),
        )
        return early.enabled and stale >= early.patience
