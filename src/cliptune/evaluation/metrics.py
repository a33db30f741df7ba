"""What logits are worth: pure functions on arrays, all shares as fractions of 1.

Shape suffixes: N photos, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.floating[Any]]
Labels = NDArray[np.integer[Any]]

# What scikit-learn's report holds beside the classes.
SUMMARY_KEYS = ("accuracy", "macro avg", "weighted avg")


@dataclass(frozen=True)
class SplitMetrics:
    """The figures of one model on one split. `loss` is the mean cross-entropy in nats."""

    num_images: int
    loss: float
    accuracy: float
    top5_accuracy: float | None  # None below five classes


@dataclass(frozen=True)
class ConfusedPair:
    """How often photos of one class were taken for another."""

    true_class: str
    predicted_class: str
    count: int
    share: float  # of the photos of the true class


def split_metrics(logits_NC: Logits, labels_N: Labels) -> SplitMetrics:
    """Loss, top-1 and top-5 of `logits_NC`. Raises `ValueError` when there is no photo."""
    if not len(labels_N):
        raise ValueError("there is no photo to measure")
    five = logits_NC.shape[1] >= 5
    return SplitMetrics(
        num_images=len(labels_N),
        loss=cross_entropy(logits_NC, labels_N),
        accuracy=top_k_accuracy(logits_NC, labels_N, k=1),
        top5_accuracy=top_k_accuracy(logits_NC, labels_N, k=5) if five else None,
    )


def top_k_accuracy(logits_NC: Logits, labels_N: Labels, *, k: int) -> float:
    """Share of photos whose class is among the `k` with the highest logits.

    Equal logits count against the truth, where `argmax` takes the first of them: a model that
    says nothing gets no credit. So does a logit that is not a number.
    """
    truth_N1 = np.take_along_axis(logits_NC, labels_N[:, None], axis=1)
    not_below_N = (~(logits_NC < truth_N1)).sum(axis=1)  # the truth itself among them
    return float((not_below_N <= k).mean())


def cross_entropy(logits_NC: Logits, labels_N: Labels) -> float:
    """Mean negative log-likelihood of the labels, in nats."""
    from scipy.special import log_softmax

    log_p_NC = log_softmax(logits_NC.astype(np.float64), axis=1)
    return float(-np.take_along_axis(log_p_NC, labels_N[:, None], axis=1).mean())


def confusion_matrix(
    labels_N: Labels, predicted_N: Labels, *, num_classes: int
) -> NDArray[np.int64]:
    """(C, C) counts: the row is the true class, the column the predicted one."""
    from sklearn.metrics import confusion_matrix as count

    result: NDArray[np.int64] = count(labels_N, predicted_N, labels=range(num_classes))
    return result.astype(np.int64)


def classification_report(
    labels_N: Labels, predicted_N: Labels, class_names: Sequence[str]
) -> dict[str, Any]:
    """scikit-learn's report as a dictionary: every class, accuracy, macro and weighted average.

    A class stands under its name, or what `class_keys` makes of it. One without a photo has
    support 0 and zeros, and counts in the macro average.
    """
    from sklearn.metrics import classification_report as report

    result: dict[str, Any] = report(
        labels_N,
        predicted_N,
        labels=range(len(class_names)),
        target_names=class_keys(class_names),
        output_dict=True,
        zero_division=0,
    )
    return result


def class_keys(class_names: Sequence[str]) -> list[str]:
    """The keys of the classes in scikit-learn's report: their names, made distinct from its own.

    A class called "accuracy" would overwrite, or be overwritten by, the accuracy: it stands
    under "accuracy (class)".
    """
    keys, taken = [], {*SUMMARY_KEYS, *class_names}
    for name in class_names:
        key = name
        if name in SUMMARY_KEYS:
            while key in taken:
                key += " (class)"
        taken.add(key)
        keys.append(key)
    return keys


def most_confused_pairs(
    confusion_CC: NDArray[np.int64], class_names: Sequence[str], *, limit: int = 10
) -> list[ConfusedPair]:
    """The off-diagonal cells with the highest counts, then the highest shares of their row."""
    support_C = confusion_CC.sum(axis=1)
    pairs = [
        ConfusedPair(
            class_names[true],
            class_names[predicted],
            int(confusion_CC[true, predicted]),
            float(confusion_CC[true, predicted] / support_C[true]),
        )
        for true, predicted in zip(*np.nonzero(confusion_CC), strict=True)
        if true != predicted
    ]
    pairs.sort(key=lambda pair: (-pair.count, -pair.share, pair.true_class, pair.predicted_class))
    return pairs[:limit]


def wilson_interval(share: float, count: int, *, z: float = 1.959964) -> tuple[float, float]:
    """The 95 % score interval of a proportion measured on `count` photos.

    Wilson (1927), Journal of the American Statistical Association 22, 209-212.
    """
    center = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2)) / (1 + z**2 / count)
    return max(0.0, center - half), min(1.0, center + half)
