"""`comparison.html` of models of several labels: one self-contained page, with photos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cliptune._version import __version__
from cliptune.evaluation.comparison.multilabel import (
    ComparedLabelModel,
    LabelDifference,
    MultilabelComparison,
    most_changed_classes,
)
from cliptune.evaluation.comparison.multilabel_text import (
    average_precision,
    counts_of,
    multilabel_caveats,
)
from cliptune.evaluation.comparison.page import CHANGED, Bar, bar_of, reach_of
from cliptune.evaluation.multilabel.text import ROWS, intervals_in_words, photos_in_words
from cliptune.evaluation.report_page import pictures_of
from cliptune.evaluation.statistics.intervals import Estimate
from cliptune.evaluation.statistics.words import in_words, percent
from cliptune.html import render
from cliptune.language import translated as _
from cliptune.text import one_line


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A figure of one of the other models, and its difference from the first's; None: no figure."""

    text: str
    bar: Bar | None


@dataclass(frozen=True, kw_only=True)
class FigureRow:
    """A figure of the first model and of the others."""

    title: str
    meaning: str
    first: str
    others: Sequence[Measured]


@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """Average precision and F1 of a class with the first model and with the others."""

    name: str
    photos: int
    first: Sequence[str]
    others: Sequence[Sequence[Measured]]


@dataclass(frozen=True, kw_only=True)
class Told:
    """A class that a photo shows, or that a model tells of it."""

    name: str
    probability: float
    shown: bool
    told: bool


@dataclass(frozen=True, kw_only=True)
class Card:
    """A photo with what two models tell of it; `picture` is a data URI, "" where there is none."""

    file: str
    picture: str
    answers: Sequence[tuple[str, Sequence[Told]]]


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Photos with more right answers by the model `who` than by `than`: `count`, some shown."""

    who: str
    than: str
    count: int
    photos: Sequence[Card]


def multilabel_comparison_page(comparison: MultilabelComparison, command: str | None = None) -> str:
    """The page as HTML; `command` is the line that compares the same again, if there is one."""
    names = [one_line(comparison.display_names[name]) for name in comparison.class_names]
    several = len(comparison.differences) > 1
    return render(
        "multilabel_comparison.html",
        comparison=comparison,
        first=comparison.reference,
        letters=[model.letter for model in comparison.models],
        others=[found.model.letter for found in comparison.differences],
        several=several,
        photos=photos_in_words(len(comparison.paths), comparison.num_groups),
        intervals=intervals_in_words(comparison.num_groups),
        rows=_rows(comparison),
        counts=counts_of(comparison.differences, several=several),
        caveats=multilabel_caveats(comparison),
        classes=_classes(comparison, names),
        galleries=[_galleries(comparison, found, names) for found in comparison.differences],
        version=__version__,
        command=command,
    )


def _rows(comparison: MultilabelComparison) -> list[FigureRow]:
    """The figures, with their differences drawn to one scale."""
    differences = comparison.differences
    reach = reach_of(
        [getattr(each.paired, name) for each in differences for _title, name, _meaning in ROWS]
    )
    return [
        FigureRow(
            title=_(title),
            meaning=_(meaning),
            first=in_words(getattr(comparison.reference.figures, name), percent),
            others=[
                Measured(
                    text=in_words(getattr(found.model.figures, name), percent),
                    bar=bar_of(
                        getattr(found.paired, name), reach, less_is_better=name == "hamming"
                    ),
                )
                for found in differences
            ],
        )
        for title, name, meaning in ROWS
    ]


def _classes(comparison: MultilabelComparison, names: Sequence[str]) -> list[ClassRow]:
    """Every class that photos show, the biggest changes of average precision first."""
    first, differences = comparison.reference, comparison.differences
    changes = [
        x for each in differences for x in (*each.paired.average_precision, *each.paired.f1)
        if x is not None
    ]  # fmt: skip
    reach, photos_C = reach_of(changes), comparison.photos_of_class
    return [
        ClassRow(
            name=names[label],
            photos=photos_C[label],
            first=[average_precision(first, label), _f1(first, label)],
            others=[
                [
                    _measured(average_precision(found.model, label),
                              found.paired.average_precision[label], reach),
                    _measured(_f1(found.model, label), found.paired.f1[label], reach),
                ]
                for found in differences
            ],
        )
        for label in most_changed_classes(differences)
    ]  # fmt: skip


def _measured(text: str, change: Estimate | None, reach: float) -> Measured:
    return Measured(text=text, bar=None if change is None else bar_of(change, reach))


def _f1(model: ComparedLabelModel, label: int) -> str:
    value = model.figures.classes[label].f1
    return "–" if value is None else percent(value)


def _galleries(
    comparison: MultilabelComparison, found: LabelDifference, names: Sequence[str]
) -> list[Gallery]:
    """The photos that changed, of each side those first that changed most."""
    pair = (comparison.reference, found.model)
    first, letter = (model.letter for model in pair)
    galleries = []
    for who, than, places in ((letter, first, found.gained), (first, letter, found.lost)):
        shown = places[:CHANGED]
        pictures = pictures_of(comparison.paths, shown)
        cards = [
            Card(
                file=comparison.short_path(photo),
                picture=pictures[photo],
                answers=[(m.letter, _told(comparison, m, photo, names)) for m in pair],
            )
            for photo in shown
        ]
        galleries.append(Gallery(who=who, than=than, count=len(places), photos=cards))
    return galleries


def _told(
    comparison: MultilabelComparison, model: ComparedLabelModel, photo: int, names: Sequence[str]
) -> list[Told]:
    """What a model tells of a photo and what it does not tell though it is there, surest first."""
    targets_C, told_C = comparison.targets_NC[photo], model.shown_NC[photo]
    probabilities_C = model.probabilities_NC[photo]
    return [
        Told(
            name=names[label],
            probability=float(probabilities_C[label]),
            shown=bool(targets_C[label]),
            told=bool(told_C[label]),
        )
        for label in (-probabilities_C).argsort(kind="stable")
        if targets_C[label] or told_C[label]
    ]
