"""A comparison of models of several labels in words, at 80 columns."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cliptune.evaluation.comparison.multilabel import (
    ComparedLabelModel,
    LabelDifference,
    MultilabelComparison,
    most_changed_classes,
    value_of,
)
from cliptune.evaluation.comparison.text import (
    BESIDE,
    CLASSES,
    caveats_of_all,
    heading,
    left_out,
    listed_photos,
    short_p,
)
from cliptune.evaluation.multilabel.text import ROWS, intervals_in_words, photos_in_words
from cliptune.evaluation.statistics.few_photos import OF_A_LABEL
from cliptune.evaluation.statistics.intervals import Estimate
from cliptune.evaluation.statistics.multilabel import DRAWS
from cliptune.evaluation.statistics.words import in_words, percent, points
from cliptune.text import counted, fit, one_line, wrap


def multilabel_comparison_summary(comparison: MultilabelComparison) -> str:
    """The figures of each model and their differences, for a terminal."""
    models, differences = comparison.models, comparison.differences
    lines = [
        f"{photos_in_words(len(comparison.paths), comparison.num_groups)} of the "
        f"{comparison.split} split, "
        f"{counted(len(comparison.class_names), 'class')}, any number to a photo",
        "",
        *(f"  {model.letter}  {one_line(model.checkpoint)}" for model in models),
        "",
    ]
    for start in range(0, len(models), BESIDE):
        lines += [*_figures_table(models[start : start + BESIDE]), ""]
    lines += [
        wrap(intervals_in_words(comparison.num_groups)),
        "",
        wrap(f"Each less {comparison.reference.letter}, on the same photos, in points:"),
    ]
    for start in range(0, len(differences), BESIDE):
        lines += [*_differences_table(comparison, differences[start : start + BESIDE]), ""]
    lines += [wrap(paragraph) for paragraph in multilabel_caveats(comparison)]
    return "\n".join(lines)


def multilabel_comparison_text(comparison: MultilabelComparison) -> str:
    """`comparison.txt` of several labels, at 80 columns but for paths of checkpoints and data."""
    title = "Comparison, several labels to a photo"
    lines = [*heading(title, comparison), multilabel_comparison_summary(comparison)]
    for found in comparison.differences:
        lines += _changes(comparison, found)
    return "\n".join([*lines, *left_out(comparison)]) + "\n"


def _figures_table(models: Sequence[ComparedLabelModel]) -> list[str]:
    rows = [("", [model.letter for model in models])]
    for title, name, _ in ROWS:
        rows.append((title, [in_words(getattr(m.figures, name), percent) for m in models]))
    return [f"  {title:<17}" + "".join(f"{cell:>20}" for cell in cells) for title, cells in rows]


def _differences_table(
    comparison: MultilabelComparison, differences: Sequence[LabelDifference]
) -> list[str]:
    rows = [("", [found.model.letter for found in differences])]
    for title, name, _ in ROWS:
        cells = [points(getattr(found.paired, name)) for found in differences]
        rows.append((title.removesuffix(", %"), cells))
    rows += counts_of(differences, several=len(comparison.differences) > 1)
    return [f"  {title:<15}" + "".join(f"{cell:>21}" for cell in cells) for title, cells in rows]


def counts_of(
    differences: Sequence[LabelDifference], *, several: bool
) -> list[tuple[str, list[str]]]:
    """What is told of each difference beside its figures: title, and a cell for each."""
    rows = [
        ("better photos", [f"{len(found.gained):,}" for found in differences]),
        ("worse photos", [f"{len(found.lost):,}" for found in differences]),
        ("p of mAP", [short_p(found.paired.mean_ap_p) for found in differences]),
    ]
    if several:
        rows.append(("p, Holm", [short_p(found.holm_p) for found in differences]))
    return rows


def multilabel_caveats(comparison: MultilabelComparison) -> list[str]:
    """What the figures do not say by themselves, a paragraph each."""
    first = comparison.reference.letter
    texts = [
        f"Of wrong answers, less is better. On better photos more of the answers, yes or no for "
        f"each class, are right than with {first}; on worse ones fewer.",
        "p is of mAP, from the resamples that make its interval: twice the share of them with the "
        f"difference on the other side of 0; of {DRAWS:,} it is {2 / (DRAWS + 1):.3f} at least. "
        "Nothing is said of other training runs: another seed may turn the order around.",
    ]
    few = [
        x for found in comparison.differences for x in found.paired.average_precision
        if x is not None and math.isinf(x.high)
    ]  # fmt: skip
    units = "photos" if comparison.num_groups is None else "groups"
    if few:
        texts.append(
            f"(?): fewer than {OF_A_LABEL} {units} show the class, too few for an interval of "
            "the difference."
        )
    return texts + caveats_of_all(comparison)


def _changes(comparison: MultilabelComparison, found: LabelDifference) -> list[str]:
    """Classes whose average precision changed most, and the photos that changed."""
    first, letter = comparison.reference.letter, found.model.letter
    title = f"{letter} against {first}"
    lines = ["", title, "-" * len(title)]
    changed = [
        label for label in most_changed_classes([found])
        if any(value_of(x[label]) for x in (found.paired.average_precision, found.paired.f1))
    ]  # fmt: skip
    if changed:
        lines += [
            "Average precision changed most, %:",
            f"  {'':<21}{'AP':>15}{'AP, points':>21}{'F1, points':>21}",
            *(_class_row(comparison, found, label) for label in changed[:CLASSES]),
        ]
    for who, than, photos in ((letter, first, found.gained), (first, letter, found.lost)):
        lines += listed_photos(f"More right with {who} than with {than}", comparison, photos)
    return lines


def _class_row(comparison: MultilabelComparison, found: LabelDifference, label: int) -> str:
    """A class's average precision before and after, and the differences in it and in F1."""
    before, after = (
        average_precision(model, label) for model in (comparison.reference, found.model)
    )
    name = fit(comparison.display_names[comparison.class_names[label]], 21)
    changes = (found.paired.average_precision[label], found.paired.f1[label])
    cells = "".join(f"{_points(change):>21}" for change in changes)
    return f"  {name}{before:>7} → {after:<5}{cells}"


def average_precision(model: ComparedLabelModel, label: int) -> str:
    """Of one class, in percent."""
    value = value_of(model.figures.classes[label].average_precision)
    return "–" if value is None else percent(value)


def _points(change: Estimate | None) -> str:
    return "–" if change is None else points(change)
