"""The heads that adapters are trained against: for each photo, one that has not seen it.

Against a head that was fitted on a photo, that photo's loss is small already, and its gradient
tells adapters little but how to make it smaller still; as with stacked heads (Wolpert 1992), what
comes after must see answers like those to photos that are new.

Shape suffixes: B batch, N photos, C classes, D feature, K folds and one more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cliptune.model.classifier import FittedHead, HeadShifts
from cliptune.training.head.fitting import FoldHeads

_NAMES = ("weights_KCD", "bias_KC", "heads_N")


@dataclass(frozen=True)
class FoldShifts:
    """What each fold's head has more than the run's own, which is the last: nothing more.

    `heads_N` says which of them has not seen a training photo.
    """

    weights_KCD: torch.Tensor
    bias_KC: torch.Tensor
    heads_N: torch.Tensor

    def of(self, indices_B: torch.Tensor) -> HeadShifts:
        """Those for the photos at these places of train, on the device the heads are on."""
        heads_B = self.heads_N[indices_B.to(self.heads_N.device)]
        return HeadShifts(self.weights_KCD, self.bias_KC, heads_B)

    def tensors(self) -> dict[str, torch.Tensor]:
        """All of it by name, to be kept."""
        return {name: getattr(self, name) for name in _NAMES}


def shifts_from(tensors: Mapping[str, torch.Tensor], device: torch.device) -> FoldShifts | None:
    """What `FoldShifts.tensors` gave; None where they are not all there."""
    if not tensors.keys() >= set(_NAMES):
        return None
    return FoldShifts(**{name: tensors[name].to(device) for name in _NAMES})


def shifts_of(
    heads: FoldHeads, head: FittedHead, places_N: NDArray[np.int64], *, num_photos: int
) -> FoldShifts:
    """`heads`, fitted on the photos at `places_N` of `num_photos`, as shifts of `head`."""
    device, folds = head.fitted.device, len(heads.weights_KCD)
    scale = head.logit_scale.exp().item()
    weights_KCD = torch.from_numpy(heads.weights_KCD / scale).to(device)
    weights_KCD -= head.weights().detach().double()
    bias_KC = torch.from_numpy(heads.bias_KC).to(device) - head.bias.double()
    heads_N = np.full(num_photos, folds)
    heads_N[places_N] = np.where(heads.folds_N >= 0, heads.folds_N, folds)
    return FoldShifts(
        torch.cat([weights_KCD, torch.zeros_like(weights_KCD[:1])]).float(),
        torch.cat([bias_KC, torch.zeros_like(bias_KC[:1])]).float(),
        torch.from_numpy(heads_N).to(device),
    )
