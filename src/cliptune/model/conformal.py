"""Answers that keep a promise: sets of classes of which one is right, and how far one can be told.

What is fitted on validation photos (by `cliptune.evaluation`) is applied here. Shape suffixes:
N photos, C classes.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

Floats = NDArray[np.float64]

SMALLEST_SHARE = 1e-9  # below it a product that should be whole is, however it rounds


class PredictionSets(BaseModel):
    """Adaptive prediction sets (APS; Romano, Sesia, Candès, NeurIPS 2020, eq. 3 and 4).

    The most probable classes are taken, one after another, while those before have a probability of
    `limit` or less together: the most probable one always is. Nothing is drawn at random, so that
    a photo has the same set each time. `limit` makes the sets of the `num_images` validation photos
    hold the right class for a share of `coverage` of further photos like them; those of
    validation that they hold it for are a share of `kept`.
    """

    model_config = ConfigDict(strict=True, frozen=True)

    method: Literal["APS"] = "APS"
    coverage: Annotated[float, Field(gt=0, lt=1)]
    limit: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    kept: float
    num_images: int

    def holds(self, probabilities_NC: Floats) -> NDArray[np.bool_]:
        """(N, C) whether a class is in the set of a photo."""
        held_NC: NDArray[np.bool_] = more_probable(probabilities_NC) <= self.limit
        return held_NC


class SureClass(BaseModel):
    """The deepest class or parent that an answer is sure of.

    From the most probable class up to its parent, its parent's and so on, the first is named whose
    classes have a probability of more than `limit` together; none, where even the last has less. It
    is right for a share of `share` of further photos like the `num_images` of validation, of which
    it is for a share of `kept` (Deng, Krause, Berg, Fei-Fei, CVPR 2012, hedge so; the limit is that
    of conformal risk control, Angelopoulos et al., ICLR 2024, for a loss of 0 or 1).
    """

    model_config = ConfigDict(strict=True, frozen=True)

    share: Annotated[float, Field(gt=0, lt=1)]
    limit: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    kept: float
    num_images: int


def more_probable(probabilities_NC: Floats) -> Floats:
    """(N, C) for each class, the probability of those that come before it; 0 for the first.

    Of equally probable classes the first in the checkpoint's order comes first.
    """
    order_NC = np.argsort(-probabilities_NC, axis=1, kind="stable")
    sorted_NC = np.take_along_axis(probabilities_NC, order_NC, axis=1)
    before_NC = np.zeros_like(sorted_NC)
    np.cumsum(sorted_NC[:, :-1], axis=1, out=before_NC[:, 1:])
    result: Floats = np.empty_like(before_NC)
    np.put_along_axis(result, order_NC, before_NC, axis=1)
    return result


def conformal_rank(coverage: float, count: int) -> int:
    """Which of `count` scores, the least first, a further one stays within at this rate.

    The k-th with k = ceil((count + 1) * coverage): a score exchangeable with them is no higher
    with probability k / (count + 1) at least (Vovk et al. 2005; Papadopoulos et al. 2002, split
    conformal prediction). More than `count` where there are too few: `photos_for`.
    """
    return max(1, math.ceil((count + 1) * coverage - SMALLEST_SHARE))


def photos_for(coverage: float) -> int:
    """The least number of validation photos that a rate can be promised on."""
    return max(1, math.ceil(coverage / (1 - coverage) - SMALLEST_SHARE))
