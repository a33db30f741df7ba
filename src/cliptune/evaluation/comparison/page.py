"""`comparison.html`: models on the same photos as one self-contained page, with photos."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cliptune._version import __version__
from cliptune.evaluation.comparison.comparison import (
    ComparedModel,
    Comparison,
    Difference,
    most_changed,
)
from cliptune.evaluation.comparison.text import caveats, short_p
from cliptune.evaluation.report_page import MEANINGS, pictures_of
from cliptune.evaluation.report_text import (
    ROWS,
    cell,
    others_in_words,
    photos_in_words,
    too_few_in_words,
)
from cliptune.evaluation.statistics.intervals import Estimate
from cliptune.evaluation.statistics.words import percent, points
from cliptune.html import render
from cliptune.language import translated as _
from cliptune.text import one_line

CHANGED = 24  # photos in a gallery: of each pair of models, each way


@dataclass(frozen=True, kw_only=True)
class FigureRow:
    """A row of the table of figures: a cell for each model."""

    title: str
    meaning: str
    cells: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Bar:
    """An interval around zero, in percent of a width. `side` is better, worse or ""."""

    value: float
    low: float  # from the left
    right: float  # from the right, where the interval ends
    side: str
    text: str
    drawn: bool = True  # not, where the interval is not known


@dataclass(frozen=True, kw_only=True)
class DifferenceRow:
    """A model less the first: accuracy and macro-F1, and photos right with one of them alone."""

    letter: str
    bars: Sequence[Bar]
    only_first: int
    only_it: int
    p: str
    holm: str


@dataclass(frozen=True, kw_only=True)
class ClassCell:
    """Recall of a class with one of the other models, and its difference from the first."""

    recall: str
    bar: Bar


@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """Recall of a class with the first model and with the others."""

    name: str
    photos: int
    first: str
    others: Sequence[ClassCell]


@dataclass(frozen=True, kw_only=True)
class ModelAnswer:
    """The most probable class of a photo by one model."""

    letter: str
    name: str
    probability: float
    right: bool


@dataclass(frozen=True, kw_only=True)
class Card:
    """A photo that changed sides; `picture` is a data URI, "" where there is none."""

    file: str
    picture: str
    truth: str
    answers: Sequence[ModelAnswer]


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Photos right with the model `who` and wrong with `than`: `count`, of which some are shown."""

    who: str
    than: str
    count: int
    photos: Sequence[Card]


def comparison_page(comparison: Comparison, command: str | None = None) -> str:
    """The page as HTML; `command` is the line that compares the same again, if there is one."""
    names = [one_line(comparison.display_names[name]) for name in comparison.class_names]
    return render(
        "comparison.html",
        comparison=comparison,
        first=comparison.reference,
        letters=[model.letter for model in comparison.models],
        rows=_rows(comparison),
        differences=_differences(comparison),
        several=len(comparison.differences) > 1,
        caveats=caveats(comparison),
        photos=photos_in_words(comparison.reference.figures),
        others=others_in_words(comparison.reference.figures),
        too_few=too_few_in_words(comparison.reference.figures),
        classes=_classes(comparison, names),
        galleries=[_galleries(comparison, found, names) for found in comparison.differences],
        version=__version__,
        command=command,
    )


def _rows(comparison: Comparison) -> list[FigureRow]:
    rows = []
    for title, name, form in ROWS:
        cells = [cell(model.figures, name, form) for model in comparison.models]
        rows.append(FigureRow(title=_(title), meaning=_(MEANINGS[name]), cells=cells))
    return rows


def _differences(comparison: Comparison) -> list[DifferenceRow]:
    """The differences in figures, drawn to one scale."""
    found = [
        (d.paired.accuracy_difference, d.paired.macro_f1_difference) for d in comparison.differences
    ]
    reach = reach_of([estimate for pair in found for estimate in pair])
    return [
        DifferenceRow(
            letter=difference.model.letter,
            bars=[
                bar_of(x, reach, grey=difference.paired.mcnemar_p is None)
                for x in (accuracy, macro_f1)
            ],
            only_first=difference.paired.only_b_right,
            only_it=difference.paired.only_a_right,
            p=short_p(difference.paired.mcnemar_p),
            holm=short_p(difference.holm_p),
        )
        for difference, (accuracy, macro_f1) in zip(comparison.differences, found, strict=True)
    ]


def reach_of(estimates: Sequence[Estimate]) -> float:
    """How far from zero a drawing of `estimates` must reach; at least a point."""
    ends = [max(abs(x.low), abs(x.high)) for x in estimates]
    return max([0.01, *(end for end in ends if math.isfinite(end))])


def bar_of(
    estimate: Estimate, reach: float, *, grey: bool = False, less_is_better: bool = False
) -> Bar:
    """An interval around zero, of a width from -`reach` to +`reach`.

    It is `grey` where too few photos differ to tell.
    """
    if math.isinf(estimate.high):
        return Bar(value=0, low=0, right=0, side="", text=points(estimate), drawn=False)
    value, low, high = (50 + 50 * x / reach for x in (estimate.value, estimate.low, estimate.high))
    side = "better" if estimate.low > 0 else "worse" if estimate.high < 0 else ""
    if less_is_better:
        side = {"better": "worse", "worse": "better"}.get(side, side)
    side = "" if grey else side
    return Bar(value=value, low=low, right=100 - high, side=side, text=points(estimate))


def _classes(comparison: Comparison, names: Sequence[str]) -> list[ClassRow]:
    """Recall of every class with each model, the biggest changes first."""
    first, differences = comparison.reference, comparison.differences
    count_C = np.bincount(comparison.labels_N, minlength=len(names))
    reach = reach_of([x for found in differences for x in found.recall if x is not None])
    rows = []
    for label in most_changed(differences):
        cells = []
        for found in differences:
            change = found.recall[label]
            assert change is not None  # the class has photos
            cells.append(ClassCell(recall=_recall(found.model, label), bar=bar_of(change, reach)))
        rows.append(
            ClassRow(
                name=names[label],
                photos=int(count_C[label]),
                first=_recall(first, label),
                others=cells,
            )
        )
    return rows


def _recall(model: ComparedModel, label: int) -> str:
    estimate = model.figures.recall[label]
    return "–" if estimate is None else percent(estimate.value)


def _galleries(comparison: Comparison, found: Difference, names: Sequence[str]) -> list[Gallery]:
    """The photos that changed sides, of each side those first whose right class moved most."""
    first = comparison.reference
    sides = ((found.model.letter, found.paired.gained), (first.letter, found.paired.lost))
    return [
        Gallery(
            who=who,
            than=first.letter if who != first.letter else found.model.letter,
            count=len(indices),
            photos=_cards(comparison, found.model, indices, names),
        )
        for who, indices in sides
    ]


def _cards(
    comparison: Comparison, model: ComparedModel, indices: Sequence[int], names: Sequence[str]
) -> list[Card]:
    first, labels_N = comparison.reference, comparison.labels_N

    def moved(index: int) -> float:
        label = labels_N[index]
        before, after = (m.probabilities_NC[index, label] for m in (first, model))
        return abs(float(after - before))

    shown = sorted(indices, key=moved, reverse=True)[:CHANGED]
    pictures = pictures_of(comparison.paths, shown)
    return [
        Card(
            file=comparison.short_path(index),
            picture=pictures[index],
            truth=names[labels_N[index]],
            answers=[_answer(one, index, int(labels_N[index]), names) for one in (first, model)],
        )
        for index in shown
    ]


def _answer(model: ComparedModel, index: int, label: int, names: Sequence[str]) -> ModelAnswer:
    best = int(model.predicted_N[index])
    return ModelAnswer(
        letter=model.letter,
        name=names[best],
        probability=float(model.probabilities_NC[index, best]),
        right=best == label,
    )
