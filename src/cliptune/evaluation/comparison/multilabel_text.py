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
    against,
    caveats_of_all,
    left_out,
    listed_photos,
    short_p,
)
from cliptune.evaluation.heading import heading, split_in_words
from cliptune.evaluation.multilabel.text import ROWS, intervals_in_words, photos_in_words
from cliptune.evaluation.statistics.few_photos import OF_A_LABEL
from cliptune.evaluation.statistics.intervals import Estimate
from cliptune.evaluation.statistics.multilabel import DRAWS
from cliptune.evaluation.statistics.words import in_words, percent, points
from cliptune.language import amount
from cliptune.language import translated as _
from cliptune.text import fit, left, one_line, right, wrap


def multilabel_comparison_summary(comparison: MultilabelComparison) -> str:
    """The figures of each model and their differences, for a terminal."""
    models, differences = comparison.models, comparison.differences
    lines = [
        _("{photos} of the {split} split, {classes}, any number to a photo").format(
            photos=photos_in_words(len(comparison.paths), comparison.num_groups),
            split=comparison.split,
            classes=amount(len(comparison.class_names), "class"),
        ),
        "",
        *(f"  {model.letter}  {one_line(model.checkpoint)}" for model in models),
        "",
    ]
    for start in range(0, len(models), BESIDE):
        lines += [*_figures_table(models[start : start + BESIDE]), ""]
    lines += [
        wrap(intervals_in_words(comparison.num_groups)),
        "",
        wrap(
            _("Each less {first}, on the same photos, in points:").format(
                first=comparison.reference.letter
            )
        ),
    ]
    for start in range(0, len(differences), BESIDE):
        lines += [*_differences_table(comparison, differences[start : start + BESIDE]), ""]
    lines += [wrap(paragraph) for paragraph in multilabel_caveats(comparison)]
    return "\n".join(lines)


def multilabel_comparison_text(comparison: MultilabelComparison) -> str:
    """`comparison.txt` of several labels, at 80 columns but for paths of checkpoints and data."""
    facts = {_("data"): split_in_words(comparison.data_dir, comparison.split)}
    title = _("Comparison, several labels to a photo")
    lines = [*heading(title, facts), multilabel_comparison_summary(comparison)]
    for found in comparison.differences:
        lines += _changes(comparison, found)
    return "\n".join([*lines, *left_out(comparison)]) + "\n"


def _figures_table(models: Sequence[ComparedLabelModel]) -> list[str]:
    rows = [("", [model.letter for model in models])]
    for title, name, _meaning in ROWS:
        rows.append((_(title), [in_words(getattr(m.figures, name), percent) for m in models]))
    return [
        f"  {left(title, 17)}" + "".join(f"{cell:>20}" for cell in cells) for title, cells in rows
    ]


def _differences_table(
    comparison: MultilabelComparison, differences: Sequence[LabelDifference]
) -> list[str]:
    rows = [("", [found.model.letter for found in differences])]
    for title, name, _meaning in ROWS:
        cells = [points(getattr(found.paired, name)) for found in differences]
        rows.append((_(title).removesuffix(", %").removesuffix("（%）"), cells))
    rows += counts_of(differences, several=len(comparison.differences) > 1)
    return [
        f"  {left(title, 15)}" + "".join(f"{cell:>21}" for cell in cells) for title, cells in rows
    ]


def counts_of(
    differences: Sequence[LabelDifference], *, several: bool
) -> list[tuple[str, list[str]]]:
    """What is told of each difference beside its figures: title, and a cell for each."""
    rows = [
        (_("better photos"), [f"{len(found.gained):,}" for found in differences]),
        (_("worse photos"), [f"{len(found.lost):,}" for found in differences]),
        (_("p of mAP"), [short_p(found.paired.mean_ap_p) for found in differences]),
    ]
    if several:
        rows.append((_("p, Holm"), [short_p(found.holm_p) for found in differences]))
    return rows


def multilabel_caveats(comparison: MultilabelComparison) -> list[str]:
    """What the figures do not say by themselves, a paragraph each."""
    first = comparison.reference.letter
    texts = [
        _(
            "Of wrong answers, less is better. On better photos more of the answers, yes or no for "
            "each class, are right than with {first}; on worse ones fewer."
        ).format(first=first),
        _(
            "p is of mAP, from the resamples that make its interval: twice the share of them with "
            "the difference on the other side of 0; of {draws:,} it is {least:.3f} at least. "
            "Nothing is said of other training runs: another seed may turn the order around."
        ).format(draws=DRAWS, least=2 / (DRAWS + 1)),
    ]
    few = [
        x for found in comparison.differences for x in found.paired.average_precision
        if x is not None and math.isinf(x.high)
    ]  # fmt: skip
    thing = "photo" if comparison.num_groups is None else "group"
    if few:
        texts.append(
            _(
                "(?): fewer than {photos} show the class, too few for an interval of the "
                "difference."
            ).format(photos=amount(OF_A_LABEL, thing))
        )
    return texts + caveats_of_all(comparison)


def _changes(comparison: MultilabelComparison, found: LabelDifference) -> list[str]:
    """Classes whose average precision changed most, and the photos that changed."""
    first, letter = comparison.reference.letter, found.model.letter
    lines = against(letter, first)
    changed = [
        label for label in most_changed_classes([found])
        if any(value_of(x[label]) for x in (found.paired.average_precision, found.paired.f1))
    ]  # fmt: skip
    if changed:
        lines += [
            _("Average precision changed most, %:"),
            f"  {'':<21}{'AP':>15}{right(_('AP, points'), 21)}{right(_('F1, points'), 21)}",
            *(_class_row(comparison, found, label) for label in changed[:CLASSES]),
        ]
    for who, than, photos in ((letter, first, found.gained), (first, letter, found.lost)):
        lines += listed_photos(
            _("More right with {model} than with {other}: {count}").format(
                model=who, other=than, count=len(photos)
            ),
            comparison,
            photos,
        )
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
