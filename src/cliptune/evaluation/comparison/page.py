"""`comparison.html`: models on the same photos as one self-contained page, with photos."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
from cliptune.evaluation.report_text import ROWS, cell, too_few_in_words
from cliptune.evaluation.statistics.intervals import Estimate
from cliptune.evaluation.statistics.words import percent, points
from cliptune.html import render
from cliptune.text import one_line

CHANGED = 24  # photos in a gallery: of each pair of models, each way


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
        too_few=too_few_in_words(comparison.reference.figures),
        classes=_classes(comparison, names),
        galleries=[_galleries(comparison, found, names) for found in comparison.differences],
        version=__version__,
        line=command,
    )


def _rows(comparison: Comparison) -> list[dict[str, Any]]:
    rows = []
    for title, name, form in ROWS:
        cells = [cell(model.figures, name, form) for model in comparison.models]
        rows.append({"title": title, "meaning": MEANINGS[name], "cells": cells})
    return rows


def _differences(comparison: Comparison) -> list[dict[str, Any]]:
    """The differences in figures, drawn to one scale."""
    found = [
        (d.paired.accuracy_difference, d.paired.macro_f1_difference) for d in comparison.differences
    ]
    reach = _reach([estimate for pair in found for estimate in pair])
    return [
        {
            "letter": difference.model.letter,
            "bars": [
                _bar(x, reach, grey=difference.paired.mcnemar_p is None)
                for x in (accuracy, macro_f1)
            ],
            "only_first": difference.paired.only_b_right,
            "only_it": difference.paired.only_a_right,
            "p": short_p(difference.paired.mcnemar_p),
            "holm": short_p(difference.holm_p),
        }
        for difference, (accuracy, macro_f1) in zip(comparison.differences, found, strict=True)
    ]


def _reach(estimates: Sequence[Estimate]) -> float:
    """How far from zero a drawing of `estimates` must reach; at least a point."""
    return max([0.01, *(max(abs(x.low), abs(x.high)) for x in estimates)])


def _bar(estimate: Estimate, reach: float, *, grey: bool = False) -> dict[str, Any]:
    """An interval around zero: places in percent of a width from -`reach` to +`reach`.

    It is `grey` where too few photos differ to tell.
    """
    value, low, high = (50 + 50 * x / reach for x in (estimate.value, estimate.low, estimate.high))
    side = "better" if estimate.low > 0 else "worse" if estimate.high < 0 else ""
    side = "" if grey else side
    return {"value": value, "low": low, "right": 100 - high, "side": side, "text": points(estimate)}


def _classes(comparison: Comparison, names: Sequence[str]) -> list[dict[str, Any]]:
    """Recall of every class with each model, the biggest changes first."""
    first, differences = comparison.reference, comparison.differences
    count_C = np.bincount(comparison.labels_N, minlength=len(names))
    reach = _reach([x for found in differences for x in found.recall if x is not None])
    rows = []
    for label in most_changed(differences):
        cells = []
        for found in differences:
            change = found.recall[label]
            assert change is not None  # the class has photos
            cells.append({"recall": _recall(found.model, label), "bar": _bar(change, reach)})
        rows.append(
            {
                "name": names[label],
                "photos": int(count_C[label]),
                "first": _recall(first, label),
                "others": cells,
            }
        )
    return rows


def _recall(model: ComparedModel, label: int) -> str:
    estimate = model.figures.recall[label]
    return "–" if estimate is None else percent(estimate.value)


def _galleries(
    comparison: Comparison, found: Difference, names: Sequence[str]
) -> list[dict[str, Any]]:
    """The photos that changed sides, of each side those first whose right class moved most."""
    first = comparison.reference
    sides = ((found.model.letter, found.paired.gained), (first.letter, found.paired.lost))
    return [
        {
            "who": who,
            "than": first.letter if who != first.letter else found.model.letter,
            "count": len(places),
            "photos": _cards(comparison, found.model, places, names),
        }
        for who, places in sides
    ]


def _cards(
    comparison: Comparison, model: ComparedModel, places: Sequence[int], names: Sequence[str]
) -> list[dict[str, Any]]:
    first, labels_N = comparison.reference, comparison.labels_N

    def moved(place: int) -> float:
        label = labels_N[place]
        before, after = (m.probabilities_NC[place, label] for m in (first, model))
        return abs(float(after - before))

    shown = sorted(places, key=moved, reverse=True)[:CHANGED]
    pictures = pictures_of(comparison.paths, shown)
    cards = []
    for place in shown:
        said = []
        for one in (first, model):
            best = int(one.probabilities_NC[place].argmax())
            said.append(
                {
                    "letter": one.letter,
                    "name": names[best],
                    "probability": float(one.probabilities_NC[place, best]),
                    "right": best == labels_N[place],
                }
            )
        cards.append(
            {
                "file": comparison.short_path(place),
                "picture": pictures[place],
                "truth": names[labels_N[place]],
                "said": said,
            }
        )
    return cards
