"""What a class more or less does where photos have any number of labels.

The other classes answer as before: each is a question of its own. What is measured is how the
figures of all classes together change, and how well a new class is told, as far as labels say.
Shape suffixes: N photos, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cliptune.evaluation.statistics.intervals import Estimate
from cliptune.evaluation.statistics.multilabel import (
    ClassFigures,
    MultilabelFigures,
    Targets,
    multilabel_figures,
)
from cliptune.model.answers import Logits
from cliptune.model.label_answers import LabelAnswers, answered_labels


@dataclass(frozen=True, kw_only=True)
class LabelChangeFigures:
    """Figures of one split without and with the change. All estimates are fractions of 1.

    `mean_ap` and `exact` (photos whose classes are all right) are pairs: before and after. Where
    the split's labels do not name a class added they are None, for what is right of it is not
    known; `of_class`, the figures of the class in question, then has but how often it is told.
    """

    data_dir: str
    split: str
    num_photos: int
    named: bool  # whether labels of the split name the class
    mean_ap: tuple[Estimate, Estimate] | None
    exact: tuple[Estimate, Estimate] | None
    of_class: ClassFigures


def label_change_figures(
    answers: LabelAnswers,
    logits_NC: Logits,
    targets_NC: Targets,
    *,
    index: int,
    added: bool,
    seed: int,
    data_dir: str = "",
    split: str = "",
) -> LabelChangeFigures:
    """What the class `index` changes, of logits, labels and `answers` of classes it is among.

    Raises `ValueError` without photos.
    """
    told = answered_labels(answers, logits_NC)

    def figures(classes: NDArray[np.int64]) -> MultilabelFigures:
        return multilabel_figures(
            told.probabilities_NC[:, classes], told.shown_NC[:, classes], targets_NC[:, classes],
            seed=seed,
        )  # fmt: skip

    everything = np.arange(targets_NC.shape[1])
    named = bool(targets_NC[:, index].any())
    aware, unaware = figures(everything), figures(np.delete(everything, index))
    before, after = (unaware, aware) if added else (aware, unaware)
    known = named or not added
    return LabelChangeFigures(
        data_dir=data_dir, split=split, num_photos=len(targets_NC), named=named,
        mean_ap=(before.mean_ap, after.mean_ap) if known else None,
        exact=(before.exact, after.exact) if known else None,
        of_class=aware.classes[index],
    )  # fmt: skip
