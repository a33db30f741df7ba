"""How strongly held-out answers contradict labels, and which contradictions count.

Shape suffixes: N photos, C classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cliptune.training.head.logistic import Floats, Labels

# Between log-odds (0), which make much of how improbable a label is once it is hardly believed,
# and a margin of probabilities (1), which makes nothing of it. Chosen on planted wrong labels.
POWER = 0.2


def contradictions(chances_NC: Floats, labels_N: Labels) -> tuple[Floats, Labels]:
    """((N,) how strongly each label is contradicted, (N,) the most probable other class).

    From -1 to 1: of two probabilities, raised to `POWER` (Box and Cox, 1964), the other class's
    less the label's. Above 0 the other class is the more probable.
    """
    rows_N = np.arange(len(labels_N))
    others_NC = chances_NC.copy()
    others_NC[rows_N, labels_N] = -1.0
    suggested_N = others_NC.argmax(axis=1)
    other_N, own_N = chances_NC[rows_N, suggested_N], chances_NC[rows_N, labels_N]
    scores_N: Floats = other_N**POWER - own_N**POWER
    return scores_N, suggested_N


def confidently_wrong(
    chances_NC: Floats, labels_N: Labels, judged_N: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """(N,) which labels confident learning counts as wrong, of those that are judged.

    Northcutt, Jiang and Chuang (JAIR 2021), equations 1 and 2: each class has as its threshold the
    mean probability that photos labelled so are given of it. A photo counts for the most probable
    of the classes whose threshold it reaches: wrong, where that is not its label.
    """
    num_classes = chances_NC.shape[1]
    own_N = chances_NC[np.arange(len(labels_N)), labels_N]
    counts_C = np.bincount(labels_N[judged_N], minlength=num_classes)
    sums_C = np.bincount(labels_N[judged_N], weights=own_N[judged_N], minlength=num_classes)
    # A class of which nothing is known is reached by no photo.
    thresholds_C = np.where(counts_C > 0, sums_C / np.maximum(counts_C, 1), np.inf)
    reached_NC = np.where(chances_NC >= thresholds_C, chances_NC, 0.0)
    wrong_N: NDArray[np.bool_] = (
        judged_N & (reached_NC.max(axis=1) > 0) & (reached_NC.argmax(axis=1) != labels_N)
    )
    return wrong_N
