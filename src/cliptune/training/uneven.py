"""Classes with many photos and classes with few: what a photo counts in the loss of training.

Shape suffixes: N photos, B micro-batch, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from cliptune.config import TrainingSettings
from cliptune.data.folder import Split
from cliptune.data.naming import clean_name
from cliptune.errors import SettingsError, listing, named
from cliptune.hints import did_you_mean

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class UnevenLoss:
    """Cross-entropy of `logits + shifts_C`, times the weight of the photo's class.

    `shifts_C` are tau times the logarithm of each class's share: those of the logit-adjusted loss
    of Menon et al. (ICLR 2021, arXiv 2007.07314, eq. 10), which leaves it to the logits to tell
    photos apart and to the shifts to tell which class is frequent. `prior_C` is what stays in the
    logits: the shares of classes for which they answer. None where nothing is weighed or shifted;
    `is_plain` where classes are not drawn evenly either.
    """

    weights_C: torch.Tensor | None  # mean over the photos of training, if balanced: 1
    shifts_C: torch.Tensor | None
    prior_C: Floats
    is_plain: bool

    def summed(self, logits_BC: torch.Tensor, labels_B: torch.Tensor) -> torch.Tensor:
        """(), in nats: a sum over photos, so that parts of a batch add up to the whole."""
        shifted_BC = logits_BC if self.shifts_C is None else logits_BC + self.shifts_C
        return cross_entropy(shifted_BC, labels_B, weight=self.weights_C, reduction="sum")

    def shifts_for(self, labels_N: NDArray[np.integer[Any]]) -> Floats:
        """(C,) what to add to logits in a plain loss of these photos, so that they learn `prior_C`.

        Zeros where the loss is plain: that is what such photos teach.
        """
        if self.is_plain:
            return np.zeros_like(self.prior_C)
        counts_C = np.maximum(np.bincount(labels_N, minlength=len(self.prior_C)), 1)
        shifts_C: Floats = np.log(counts_C / counts_C.sum() / self.prior_C)
        return shifts_C

    def to(self, device: torch.device) -> UnevenLoss:
        """The same with its tensors on `device`."""
        weights_C, shifts_C = (
            None if x is None else x.to(device) for x in (self.weights_C, self.shifts_C)
        )
        return replace(self, weights_C=weights_C, shifts_C=shifts_C)


def uneven_loss(training: TrainingSettings, train: Split) -> UnevenLoss:
    """The loss for the photos of `train`, by `class_weights`, `sampling` and `logit_adjustment`.

    Raises `SettingsError` for weights of classes that are not there.
    """
    counts_C = np.bincount(
        [sample.label for sample in train.samples], minlength=len(train.class_names)
    ).astype(np.float64)
    weights_C = class_weights(training.class_weights, train.class_names, counts_C)
    drawn_C = np.ones_like(counts_C) if training.sampling == "balanced" else counts_C
    shares_C = drawn_C * weights_C / (drawn_C * weights_C).sum()
    tau = training.logit_adjustment
    left_C = drawn_C * weights_C * shares_C**-tau

    def where(applies: bool, values_C: Floats) -> torch.Tensor | None:
        return torch.tensor(values_C, dtype=torch.float32) if applies else None

    return UnevenLoss(
        weights_C=where(training.class_weights != "none", weights_C),
        shifts_C=where(tau > 0, tau * np.log(shares_C)),
        prior_C=left_C / left_C.sum(),
        is_plain=training.class_weights == "none" and training.sampling == "uniform" and not tau,
    )


def class_weights(
    given: str | Mapping[str, float], class_names: Sequence[str], counts_C: Floats
) -> Floats:
    """(C,) what each photo of a class counts: 1, N / (C n_c), or as `given` by name, else 1.

    "balanced" is that of scikit-learn's `class_weight`: all classes count alike, and photos 1 on
    average. Raises `SettingsError` naming every unknown class.
    """
    if given == "balanced":
        balanced_C: Floats = counts_C.sum() / (len(counts_C) * counts_C)
        return balanced_C
    weights = {} if isinstance(given, str) else {clean_name(k): v for k, v in given.items()}
    if unknown := [name for name in weights if name not in class_names]:
        lines = [f"'{name}'.{did_you_mean(name, class_names)}" for name in unknown]
        raise SettingsError(
            f"training.class_weights: no such class:\n{listing(lines)}\n"
            f"Classes of the data folder: {named(class_names)}."
        )
    return np.array([weights.get(name, 1.0) for name in class_names])
