"""`report.html`: an evaluation as one self-contained page, with photos.

Shape suffixes: N photos, C classes, D numbers of a feature.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cliptune.data.reading import read_reduced
from cliptune.errors import ImageError
from cliptune.evaluation.families import sure_in_words
from cliptune.evaluation.report import Evaluation
from cliptune.evaluation.report_json import versions
from cliptune.evaluation.report_text import (
    ROWS,
    TOO_FEW,
    cell,
    mcnemar_in_words,
    others_in_words,
    photos_in_words,
    prior_in_words,
    seen_texts,
    threshold_in_words,
    too_few_in_words,
)
from cliptune.evaluation.statistics.class_figures import ClassFigures
from cliptune.evaluation.statistics.conformal import ClassSets
from cliptune.evaluation.statistics.intervals import Estimate
from cliptune.evaluation.statistics.reliability import Bin, Reliability
from cliptune.evaluation.statistics.words import in_words, number, percent, points
from cliptune.html import as_script, picture, render
from cliptune.language import marked
from cliptune.language import translated as _
from cliptune.model.answers import SCORE_NAMES
from cliptune.text import one_line

MISTAKES = 24  # in the gallery
PAIRS = 6  # of classes, with photos
PHOTOS = 3  # of either class of a pair
_EDGE = 200  # pixels of a photo

# One sentence for each row of the table of figures.
MEANINGS = {
    "accuracy": marked("Share of photos whose most probable class is the right one."),
    "top5": marked("Share of photos whose right class is among the five most probable."),
    "macro_f1": marked("Precision and recall in one figure, every class counting alike."),
    "balanced_accuracy": marked("Mean recall of the classes, large and small counting alike."),
    "log_loss": marked("How surprised the probabilities are by the truth, in nats; 0 is the best."),
    "brier": marked("Squared error of the probabilities, from 0 (right and certain) to 2."),
    "ece": marked("How far the stated probability lies from how often it is right, on average."),
}


@dataclass(frozen=True)
class PageExtras:
    """What a page shows beside the evaluation itself, each where there is one."""

    command: str = ""
    settings: str = ""  # YAML
    curves: Path | None = None  # picture of the training curves
    robustness: Path | None = None  # picture of accuracy under corruptions
    heat: Mapping[int, Image.Image] = field(default_factory=dict)  # photo -> where it looked
    heat_method: str = ""


@dataclass(frozen=True, kw_only=True)
class FigureRow:
    """A row of the table of figures, each cell as it is shown."""

    title: str
    meaning: str
    before: str
    after: str
    difference: str


@dataclass(frozen=True, kw_only=True)
class Diagram:
    """A reliability diagram of the bins that hold photos. `most`: photos of the fullest."""

    title: str
    bins: Sequence[Bin]
    most: int
    error: str


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """A photo classified wrongly; pictures are data URIs, "" where there is none."""

    file: Path
    picture: str
    heat: str
    truth: str
    truth_probability: float
    top: Sequence[tuple[str, float]]  # the most probable classes


@dataclass(frozen=True, kw_only=True)
class PairPhotos:
    """Two classes confused, with (file, picture) of photos of either side."""

    true: str
    taken_for: str
    count: int
    of: int
    left: Sequence[tuple[Path, str]]
    right: Sequence[tuple[Path, str]]


@dataclass(frozen=True)
class ClassRow:
    """A row of the table of classes. `confused`: the class it is most often taken for."""

    name: str  # as shown
    figures: ClassFigures
    confused: str


def report_page(evaluation: Evaluation, extras: PageExtras | None = None) -> str:
    """The page as HTML."""
    extras = extras or PageExtras()
    names = [one_line(evaluation.display_names[name]) for name in evaluation.class_names]
    return render(
        "report.html",
        evaluation=evaluation,
        rows=_rows(evaluation),
        seen=seen_texts(evaluation),
        photos=photos_in_words(evaluation.figures),
        others=others_in_words(evaluation.figures),
        paired=evaluation.paired,
        mcnemar="" if evaluation.paired is None else mcnemar_in_words(evaluation.paired),
        too_few=[*prior_in_words(evaluation.answers), *too_few_in_words(evaluation.figures)],
        percent=percent,
        estimate=in_words,
        number=number,
        threshold=threshold_in_words,
        score_names={score: _(name) for score, name in SCORE_NAMES.items()},
        matrix=as_script({"names": names, "order": list(evaluation.class_order),
                           "cells": _cells(evaluation.confusion_CC)} | _edges(evaluation)),
        classes=_class_rows(evaluation, names),
        sure_in_words=sure_in_words,
        set_rows=_set_rows(evaluation, names),
        promise="" if evaluation.sets is None else evaluation.sets.promise,
        conditions="" if evaluation.sets is None else evaluation.sets.conditions,
        diagrams=_diagrams(evaluation),
        mistakes=_mistakes(evaluation, names, extras),
        pairs=_pairs(evaluation, names),
        unknowns_too_few=_unknowns_too_few(evaluation),
        extras=extras,
        heat_method=_(extras.heat_method),
        curves=_png(extras.curves),
        robustness=_png(extras.robustness),
        versions=versions(),
    )  # fmt: skip


def _unknowns_too_few(evaluation: Evaluation) -> list[str]:
    found = evaluation.none_of_these
    return [] if found is None else [_(why) for why in found.too_few_photos.values()]


def _rows(evaluation: Evaluation) -> list[FigureRow]:
    paired = evaluation.paired
    differences: dict[str, Estimate] = {}
    if paired is not None:
        differences = {
            "accuracy": paired.accuracy_difference,
            "macro_f1": paired.macro_f1_difference,
        }
    rows = []
    for title, name, form in ROWS:
        difference = differences.get(name)
        rows.append(
            FigureRow(
                title=_(title),
                meaning=_(MEANINGS[name]),
                before=cell(evaluation.baseline_figures, name, form),
                after=cell(evaluation.figures, name, form),
                difference="" if difference is None else points(difference),
            )
        )
    return rows


def _edges(evaluation: Evaluation) -> dict[str, list[int]]:
    """Where in the matrix other parents begin, where classes have parents."""
    return {"edges": list(evaluation.family_edges)} if evaluation.families else {}


def _cells(confusion_CC: NDArray[np.int64]) -> list[list[int]]:
    """[true class, predicted class, photos] of the cells that are not empty."""
    return [[int(i), int(j), int(confusion_CC[i, j])] for i, j in np.argwhere(confusion_CC)]


def _class_rows(evaluation: Evaluation, names: Sequence[str]) -> list[ClassRow]:
    """The lowest recall first; classes without photos last."""
    rows = []
    for label, figures in enumerate(evaluation.classes):
        mistaken = evaluation.confusion_CC[label].copy()
        mistaken[label] = 0
        most = int(mistaken.argmax())
        confused = f"{names[most]} ({mistaken[most]})" if mistaken[most] else ""
        rows.append(ClassRow(names[label], figures, confused))

    def rank(row: ClassRow) -> float:
        return inf if row.figures.recall is None else row.figures.recall.value

    return sorted(rows, key=rank)


def _set_rows(evaluation: Evaluation, names: Sequence[str]) -> list[tuple[str, ClassSets]]:
    """Classes with photos, those whose sets hold them the least often first."""
    if evaluation.sets is None:
        return []
    found = zip(names, evaluation.sets.figures.classes, strict=True)
    rows = [(name, each) for name, each in found if each is not None]
    return sorted(rows, key=lambda row: row[1].coverage.value)


def _diagrams(evaluation: Evaluation) -> list[Diagram]:
    """Reliability before and after scaling; one where nothing was scaled."""
    after = evaluation.figures.reliability
    if evaluation.answers is None:
        return [_diagram(_("As the model gives them"), after)]
    before = evaluation.before_scaling.reliability
    return [
        _diagram(_("Before scaling"), before),
        _diagram(_("After scaling, as predicted"), after),
    ]


def _diagram(title: str, found: Reliability) -> Diagram:
    bins = [bin for bin in found.bins if bin.accuracy is not None]
    most = max(bin.count for bin in found.bins)
    error = _(TOO_FEW)
    if found.ece_estimate is not None:
        error = _("calibration error {share} %").format(share=in_words(found.ece_estimate, percent))
    return Diagram(title=title, bins=bins, most=most, error=error)


def _mistakes(evaluation: Evaluation, names: Sequence[str], extras: PageExtras) -> list[Mistake]:
    """The photos whose right class the model thinks least of, with what it says instead."""
    photos = evaluation.photos
    pictures = pictures_of(photos.paths, worst := worst_mistakes(evaluation))
    found = []
    for index in worst:
        p_C = photos.probabilities_NC[index]
        heat = extras.heat.get(index)
        found.append(
            Mistake(
                file=photos.paths[index],
                picture=pictures[index],
                heat=picture(heat, edge=_EDGE) if heat is not None else "",
                truth=names[photos.labels_N[index]],
                truth_probability=float(p_C[photos.labels_N[index]]),
                top=[(names[i], float(p_C[i])) for i in np.argsort(-p_C, kind="stable")[:3]],
            )
        )
    return found


def worst_mistakes(evaluation: Evaluation, limit: int = MISTAKES) -> list[int]:
    """Indices of wrongly classified photos, those first whose right class is least probable."""
    photos = evaluation.photos
    if not photos.paths:
        return []
    wrong_M = np.flatnonzero(photos.predicted_N != photos.labels_N)
    truth_M = photos.probabilities_NC[wrong_M, photos.labels_N[wrong_M]]
    order: list[int] = wrong_M[np.argsort(truth_M, kind="stable")][:limit].tolist()
    return order


def _pairs(evaluation: Evaluation, names: Sequence[str]) -> list[PairPhotos]:
    """The most confused pairs: photos taken for the other class, beside photos of that class."""
    photos, labels = evaluation.photos, {n: i for i, n in enumerate(evaluation.class_names)}
    if not photos.paths:
        return []
    found = []
    for pair in evaluation.confused_pairs[:PAIRS]:
        true, taken_for = labels[pair.true_class], labels[pair.predicted_class]
        mistaken = (photos.labels_N == true) & (photos.predicted_N == taken_for)
        right = (photos.labels_N == taken_for) & (photos.predicted_N == taken_for)
        left, beside = (np.flatnonzero(x)[:PHOTOS].tolist() for x in (mistaken, right))
        pictures = pictures_of(photos.paths, [*left, *beside])
        found.append(
            PairPhotos(
                true=names[true],
                taken_for=names[taken_for],
                count=pair.count,
                of=round(pair.count / pair.share),
                left=[(photos.paths[i], pictures[i]) for i in left],
                right=[(photos.paths[i], pictures[i]) for i in beside],
            )
        )
    return found


def pictures_of(paths: Sequence[Path], indices: Sequence[int]) -> dict[int, str]:
    """Index in `paths` -> its photo as a data URI; "" for one that can no longer be read."""

    def shown(index: int) -> str:
        try:
            pixels = read_reduced(paths[index], edge=_EDGE, resample=Image.Resampling.BILINEAR)
        except ImageError:
            return ""
        return picture(Image.fromarray(pixels), edge=_EDGE)

    read: Callable[[int], str] = shown
    with ThreadPoolExecutor() as pool:
        return dict(zip(indices, pool.map(read, indices), strict=True))


def _png(path: Path | None) -> str:
    """The picture in the file `path` as a data URI, on white; "" where there is none."""
    if path is None or not path.is_file():
        return ""
    with Image.open(path) as image:
        return picture(image.convert("RGB"), edge=1400)
