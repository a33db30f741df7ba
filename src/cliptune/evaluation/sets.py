"""What a checkpoint's prediction sets are worth on the photos measured, in numbers and words.

Shape suffixes: N photos, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliptune.evaluation.report_json import estimate_dict
from cliptune.evaluation.statistics.conformal import SetFigures, coverage_range, set_figures
from cliptune.evaluation.statistics.metrics import Labels
from cliptune.evaluation.statistics.words import in_words, percent
from cliptune.language import amount, marked
from cliptune.language import translated as _
from cliptune.model.answers import Answers, Floats
from cliptune.model.conformal import PredictionSets

CONDITIONS = marked(
    "The promise holds for photos drawn like those of val, all classes taken together: not for "
    "each class by itself, nor for photos of another source or of none of the classes."
)
_NAMED = 5  # sizes, in words
OF_ANOTHER_PRIOR = marked("Nor does it hold for classes as frequent as --prior says.")


@dataclass(frozen=True, kw_only=True)
class MeasuredSets:
    """Prediction sets of the photos measured: which classes they have (N, C), and their figures.

    The rate of sets fitted on so many photos lies from `low` to `high` in 95 % of cases.
    """

    sets: PredictionSets
    figures: SetFigures
    low: float
    high: float
    other_prior: bool  # whether classes are as frequent as --prior says
    in_set_NC: NDArray[np.bool_]

    @property
    def promise(self) -> str:
        """What was promised, and how well so many photos of val keep it."""
        return _(
            "promised: {share:g} %, which sets fitted on {photos} of val keep to within "
            "{low}–{high} %"
        ).format(
            share=100 * self.sets.coverage,
            photos=amount(self.sets.num_images, "photo"),
            low=percent(self.low),
            high=percent(self.high),
        )

    @property
    def conditions(self) -> str:
        """When the promise holds."""
        return " ".join(map(_, self._conditions))

    @property
    def _conditions(self) -> list[str]:
        return [CONDITIONS, OF_ANOTHER_PRIOR] if self.other_prior else [CONDITIONS]

    def labels(self, photo: int, probabilities_C: Floats, class_names: Sequence[str]) -> list[str]:
        """The set of one photo, the most probable class first."""
        order = np.argsort(-probabilities_C, kind="stable")
        return [class_names[i] for i in order if self.in_set_NC[photo, i]]

    def to_dict(self, class_names: Sequence[str]) -> dict[str, Any]:
        """Plain values, for JSON."""
        figures = self.figures
        return {
            **self.sets.model_dump(),
            "coverage_of_further_photos_95": [self.low, self.high],
            "measured": estimate_dict(figures.coverage),
            "mean_size": estimate_dict(figures.mean_size),
            "sizes": [
                {"size": each.size, "photos": each.num_images,
                 "coverage": estimate_dict(each.coverage)}
                for each in figures.sizes
            ],
            "per_class": {
                name: None if each is None else {
                    "photos": each.num_images,
                    "coverage": estimate_dict(each.coverage),
                    "mean_size": each.mean_size,
                }
                for name, each in zip(class_names, figures.classes, strict=True)
            },
            "conditions": " ".join(self._conditions),
        }  # fmt: skip


def measured_sets(
    answers: Answers | None, probabilities_NC: Floats, labels_N: Labels
) -> MeasuredSets | None:
    """The sets of photos by their probabilities as answered; None for answers without sets."""
    if answers is None or answers.sets is None:
        return None
    in_set_NC = answers.sets.holds(probabilities_NC)
    low, high = coverage_range(answers.sets.coverage, answers.sets.num_images)
    return MeasuredSets(
        sets=answers.sets, figures=set_figures(in_set_NC, labels_N), low=low, high=high,
        other_prior=answers.shifts is not None, in_set_NC=in_set_NC,
    )  # fmt: skip


def sets_in_words(found: MeasuredSets) -> list[str]:
    """What the sets hold, how large they are, and when that holds."""
    figures = found.figures
    sizes = [f"{amount(each.size, 'class')} {each.num_images}" for each in figures.sizes[:_NAMED]]
    if larger := sum(each.num_images for each in figures.sizes[_NAMED:]):
        sizes.append(_("more {photos}").format(photos=larger))
    return [
        _(
            "Prediction sets hold the right class of {share} % of these photos; {promise}. They "
            "have {mean:.2f} classes on average; photos by size: {sizes}."
        ).format(
            share=in_words(figures.coverage, percent),
            promise=found.promise,
            mean=figures.mean_size.value,
            sizes=", ".join(sizes),
        ),
        found.conditions,
    ]
