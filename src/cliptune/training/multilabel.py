"""What differs in a run whose photos have any number of labels each: loss, figures, answers.

Shape suffixes: N photos, B micro-batch, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from cliptune.config import Settings, TrainingSettings
from cliptune.data.folder import Split
from cliptune.data.loading import Batch
from cliptune.data.multilabel import Targets, targets_of
from cliptune.errors import SettingsError
from cliptune.training.uneven import Floats


@dataclass(frozen=True, kw_only=True)
class MultilabelLoss:
    """Binary cross-entropy, its mean over classes: each class is a question of its own.

    There is no `prior_C` that would be the classes' shares of one whole.
    """

    prior_C: Floats = field(default_factory=lambda: np.empty(0))
    is_plain: bool = True

    def summed(self, logits_BC: torch.Tensor, targets_BC: torch.Tensor) -> torch.Tensor:
        """(), in nats: a sum over photos, so that parts of a batch add up to the whole."""
        losses_BC = binary_cross_entropy_with_logits(logits_BC, targets_BC, reduction="none")
        return losses_BC.mean(dim=1).sum()

    def to(self, device: torch.device) -> MultilabelLoss:
        """Itself: it has no tensors."""
        return self


@dataclass(frozen=True, kw_only=True)
class Several:
    """Which classes each photo of a run shows: float32 (N, C) for the loss, bool for figures."""

    train_NC: torch.Tensor
    val_NC: Targets
    train: tuple[tuple[int, ...], ...]
    logit_bias: float  # of zero-shot: SigLIP's; 0 where the base model has none

    def of(self, batch: Batch) -> torch.Tensor:
        """(B, C) of the training photos in `batch`, on the device of `train_NC`."""
        return self.train_NC[batch.indices.to(self.train_NC.device)]


def several_of(
    train: Split, val: Split, model: torch.nn.Module, device: torch.device
) -> Several | None:
    """Of photos with any number of labels, for a base `model`; None where each has one."""
    if train.several is None:
        return None
    bias = getattr(model, "logit_bias", None)
    return Several(
        train_NC=torch.from_numpy(targets_of(train)).float().to(device),
        val_NC=targets_of(val),
        train=train.several,
        logit_bias=0.0 if bias is None else float(bias),
    )


def refuse_settings_of_one_label(settings: Settings) -> None:
    """Raise `SettingsError` for settings that know one label to a photo alone."""
    training: TrainingSettings = settings.training
    for key, found, expected in (
        ("recipe", training.recipe, "head_first"),
        ("class_weights", training.class_weights, "none"),
        ("sampling", training.sampling, "uniform"),
        ("logit_adjustment", training.logit_adjustment, 0.0),
    ):
        if found != expected:
            raise SettingsError(
                f"training.{key}: found {found!r}, and photos with several labels "
                f"(data.task: multilabel). There, only {expected!r} is known."
            )
    if (coverage := settings.evaluation.coverage) is not None:
        raise SettingsError(
            f"evaluation.coverage: found {coverage:g}, and photos with several labels (data.task: "
            "multilabel). Sets of which one class is right are for photos with one; leave it out."
        )


def outcome_of_several(
    loss: torch.Tensor, logits_BC: torch.Tensor, targets_BC: torch.Tensor
) -> torch.Tensor:
    """float64 (3,) on the CPU: summed loss, photos whose classes are all right, and zero."""
    right = ((logits_BC > 0) == (targets_BC > 0.5)).all(dim=1).sum()
    return torch.stack([loss.float(), right.float(), torch.zeros_like(loss)]).cpu().double()
