"""Several models on the same photos, in numbers: what the text, the page and the JSON are made of.

The first model is the reference; every difference is that of another model less the first.

Shape suffixes: N photos, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliptune.evaluation.comparison.compared import Compared, NamedModel
from cliptune.evaluation.report import SEED
from cliptune.evaluation.report_json import estimate_dict, figures_dict, groups_dict, versions
from cliptune.evaluation.seen import SeenPhotos
from cliptune.evaluation.statistics.figures import (
    FullMetrics,
    PairedComparison,
    compare_paired,
    full_metrics,
)
from cliptune.evaluation.statistics.grouped import Groups, difference_of, mcnemar_of
from cliptune.evaluation.statistics.intervals import Estimate, difference_interval, holm
from cliptune.evaluation.statistics.metrics import Labels, Logits
from cliptune.model.answers import Answers, Floats, softmax


@dataclass(frozen=True, kw_only=True)
class ComparedModel(NamedModel):
    """One of the models, measured."""

    answers: Answers | None
    figures: FullMetrics
    probabilities_NC: Floats

    @property
    def predicted_N(self) -> NDArray[np.integer[Any]]:
        """The most probable class of each photo."""
        best_N: NDArray[np.integer[Any]] = self.probabilities_NC.argmax(axis=1)
        return best_N


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A model less the reference on the same photos. Positive differences are in its favour.

    `paired.gained` are the photos it alone has right, `paired.lost` those the reference alone
    has. `holm_p` is McNemar's p-value adjusted for all comparisons made, None without one.
    `recall` has the difference in the recall of each class, None for a class without photos.
    """

    model: ComparedModel
    paired: PairedComparison
    holm_p: float | None
    recall: tuple[Estimate | None, ...]


@dataclass(frozen=True, kw_only=True)
class Comparison(Compared[ComparedModel]):
    """Models of one label to a photo, measured."""

    differences: tuple[Difference, ...]  # of the others, in their order
    labels_N: Labels

    def to_dict(self) -> dict[str, Any]:
        """What `comparison.json` holds: fractions and nats; differences are less the first."""
        return {
            "reference": self.reference.letter,
            "data_dir": self.data_dir,
            "split": self.split,
            "num_images": len(self.paths),
            **groups_dict(self.reference.figures.num_groups),
            **self.classes_dict(),
            "models": [self._model_dict(model) for model in self.models],
            "differences": [self._difference_dict(found) for found in self.differences],
            "seconds": self.seconds,
            "versions": versions(),
        }

    def _model_dict(self, model: ComparedModel) -> dict[str, Any]:
        return {
            **model.name_dict(),
            "scaling": None if model.answers is None else model.answers.model_dump(mode="json"),
            "figures": figures_dict(model.figures),
            "recall": self._by_class(model.figures.recall),
        }

    def _difference_dict(self, found: Difference) -> dict[str, Any]:
        paired = found.paired
        return {
            "model": found.model.letter,
            "accuracy": estimate_dict(paired.accuracy_difference),
            "macro_f1": estimate_dict(paired.macro_f1_difference),
            "recall": self._by_class(found.recall),
            "mcnemar_p": paired.mcnemar_p,
            "mcnemar_method": paired.mcnemar_method,
            "holm_p": found.holm_p,
            "too_few_photos": paired.too_few_photos,
            "only_this_model_right": [str(self.paths[i]) for i in paired.gained],
            "only_reference_right": [str(self.paths[i]) for i in paired.lost],
        }

    def _by_class(self, estimates: Sequence[Estimate | None]) -> dict[str, Any]:
        named = zip(self.class_names, estimates, strict=True)
        return {name: estimate_dict(estimate) for name, estimate in named}


def build_model(
    scaled_NC: Logits,
    labels_N: Labels,
    *,
    letter: str,
    checkpoint: str,
    base_model: str,
    training_data: str | None,
    answers: Answers | None,
    seen: SeenPhotos | None = None,
    groups_N: Groups | None = None,
) -> ComparedModel:
    """A `ComparedModel` measured by its scaled logits (N, C)."""
    return ComparedModel(
        letter=letter,
        checkpoint=checkpoint,
        base_model=base_model,
        training_data=training_data,
        answers=answers,
        figures=full_metrics(scaled_NC, labels_N, seed=SEED, groups_N=groups_N),
        probabilities_NC=softmax(scaled_NC),
        seen=seen,
    )


def build_differences(
    models: Sequence[ComparedModel],
    scaled: Sequence[Logits],
    labels_N: Labels,
    *,
    groups_N: Groups | None = None,
) -> tuple[Difference, ...]:
    """Every model less the first; `scaled` has the scaled logits (N, C) of each."""
    found = []
    for model, scaled_NC in zip(models[1:], scaled[1:], strict=True):
        paired = compare_paired(scaled_NC, scaled[0], labels_N, seed=SEED, groups_N=groups_N)
        recall = _recall_differences(scaled_NC, scaled[0], labels_N, groups_N)
        found.append(Difference(model=model, paired=paired, holm_p=None, recall=recall))
    # All count as made, those without a p-value too.
    adjusted = holm([_p_of(each.paired, groups_N) for each in found])
    return tuple(
        each if each.paired.mcnemar_p is None else replace(each, holm_p=p)
        for each, p in zip(found, adjusted, strict=True)
    )


def _p_of(paired: PairedComparison, groups_N: Groups | None) -> float:
    """The p-value, also where it is not told since photos are too few."""
    only_a_N, only_b_N = (np.zeros(paired.num_images, dtype=bool) for _ in range(2))
    only_a_N[list(paired.gained)] = True
    only_b_N[list(paired.lost)] = True
    return mcnemar_of(only_a_N, only_b_N, groups_N).p


def most_changed(differences: Sequence[Difference]) -> list[int]:
    """Labels of the classes that have photos, the biggest change of any model's recall first."""
    change_DC = np.array(
        [[0.0 if x is None else abs(x.value) for x in found.recall] for found in differences]
    )
    order = np.argsort(-change_DC.max(axis=0), kind="stable")
    return [int(i) for i in order if differences[0].recall[i] is not None]


def _recall_differences(
    b_logits_NC: Logits, a_logits_NC: Logits, labels_N: Labels, groups_N: Groups | None
) -> tuple[Estimate | None, ...]:
    """For each class, its recall with B less that with A, on the same photos."""
    classes = b_logits_NC.shape[1]
    b_right_N, a_right_N = (x.argmax(axis=1) == labels_N for x in (b_logits_NC, a_logits_NC))
    if groups_N is not None:
        only_b_N, only_a_N = b_right_N & ~a_right_N, a_right_N & ~b_right_N
        owns = [labels_N == label for label in range(classes)]
        return tuple(
            difference_of(only_b_N[own], only_a_N[own], groups_N[own]) if own.any() else None
            for own in owns
        )
    count_C, only_b_C, only_a_C = (
        np.bincount(labels_N[chosen_N], minlength=classes)
        for chosen_N in (slice(None), b_right_N & ~a_right_N, a_right_N & ~b_right_N)
    )
    some_C = np.maximum(count_C, 1)
    low_C, high_C = difference_interval(only_b_C, only_a_C, some_C)
    value_C = (only_b_C - only_a_C) / some_C
    return tuple(
        Estimate(float(value_C[i]), float(low_C[i]), float(high_C[i])) if count_C[i] else None
        for i in range(classes)
    )
