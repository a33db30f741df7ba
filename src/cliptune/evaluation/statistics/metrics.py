"""What logits are worth: pure functions on arrays, all shares as fractions of 1.

Shape suffixes: N photos, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliptune.evaluation.statistics.intervals import wilson_interval as wilson_interval

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
    return float(top_k_hits(logits_NC, labels_N, k=k).mean())


def top_k_hits(logits_NC: Logits, labels_N: Labels, *, k: int) -> NDArray[np.bool_]:
    """(N,) whether the photo's class is among the `k` with the highest logits, as above."""
    truth_N1 = np.take_along_axis(logits_NC, labels_N[:, None], axis=1)
    not_below_N = (~(logits_NC < truth_N1)).sum(axis=1)  # the truth itself among them
    hit_N: NDArray[np.bool_] = not_below_N <= k
    return hit_N


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


def macro_f1(confusion_CC: NDArray[np.int64]) -> float:
    """Mean F1 = 2 right / (support + predicted) over the classes, as scikit-learn's default.

    A class with neither photos nor predictions is left out; one without photos that is
    predicted all the same counts with F1 0. (The report's "macro avg" counts both as 0.)
    """
    right_C, support_C = np.diagonal(confusion_CC), confusion_CC.sum(axis=1)
    return float(macro_f1_from(right_C, support_C, confusion_CC.sum(axis=0)))


def balanced_accuracy(confusion_CC: NDArray[np.int64]) -> float:
    """Mean recall over the classes that have photos; classes without are left out.

    As scikit-learn's `balanced_accuracy_score`, without its adjustment for chance.
    """
    return float(balanced_accuracy_from(np.diagonal(confusion_CC), confusion_CC.sum(axis=1)))


def macro_f1_from(right_C: Labels, support_C: Labels, predicted_C: Labels) -> NDArray[np.float64]:
    """`macro_f1` from counts per class along the last axis, over any axes before it."""
    total_C = support_C + predicted_C
    return _mean_where(2 * right_C / np.maximum(total_C, 1), total_C > 0)


def balanced_accuracy_from(right_C: Labels, support_C: Labels) -> NDArray[np.float64]:
    """`balanced_accuracy` from counts per class along the last axis, over any axes before it."""
    return _mean_where(right_C / np.maximum(support_C, 1), support_C > 0)


def _mean_where(value_C: NDArray[Any], counts_C: NDArray[np.bool_]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = np.mean(value_C, axis=-1, where=counts_C)
    return result


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


def similar_order(vectors_CD: NDArray[np.floating[Any]]) -> list[int]:
    """The classes in an order that puts those beside one another whose vectors are alike.

    The leaves of a tree by average linkage of cosines, turned so that neighbours are nearest
    (Bar-Joseph et al., Bioinformatics 2001) up to 400 classes.
    """
    from scipy.cluster.hierarchy import leaves_list, linkage

    count = len(vectors_CD)
    if count < 3 or not np.any(vectors_CD, axis=1).all():
        return list(range(count))
    tree = linkage(vectors_CD, "average", metric="cosine", optimal_ordering=count <= 400)
    order: list[int] = leaves_list(tree).tolist()
    return order


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
