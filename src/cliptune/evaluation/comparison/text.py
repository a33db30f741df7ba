"""A comparison in words, at 80 columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cliptune.evaluation.comparison.compared import Compared
from cliptune.evaluation.comparison.comparison import (
    ComparedModel,
    Comparison,
    Difference,
    most_changed,
)
from cliptune.evaluation.heading import heading, split_in_words
from cliptune.evaluation.report_text import ROWS, cell, intervals_in_words, photos_in_words
from cliptune.evaluation.seen import seen_in_words
from cliptune.evaluation.statistics.few_photos import DISCORDANT
from cliptune.evaluation.statistics.words import percent, points
from cliptune.language import amount
from cliptune.language import translated as _
from cliptune.text import columns, fit, left, one_line, right, shorten, wrap

BESIDE = 3  # models in a table of 80 columns
CLASSES = 8  # whose recall changed most, in the text
PHOTOS = 20  # that changed sides, each way, in the text


def comparison_summary(comparison: Comparison) -> str:
    """The figures of each model and their differences, for a terminal."""
    lines = [
        _("{photos} of the {split} split, {classes}").format(
            photos=photos_in_words(comparison.reference.figures),
            split=comparison.split,
            classes=amount(len(comparison.class_names), "class"),
        ),
        "",
        *(f"  {model.letter}  {one_line(model.checkpoint)}" for model in comparison.models),
        "",
    ]
    for start in range(0, len(comparison.models), BESIDE):
        lines += [*_figures_table(comparison.models[start : start + BESIDE]), ""]
    text = intervals_in_words(comparison.reference.figures)
    lines += [wrap(text), "", *_differences_table(comparison), ""]
    lines += [wrap(paragraph) for paragraph in caveats(comparison)]
    return "\n".join(lines)


def comparison_text(comparison: Comparison) -> str:
    """`comparison.txt`, at 80 columns but for paths of checkpoints and data."""
    facts = {_("data"): split_in_words(comparison.data_dir, comparison.split)}
    lines = [*heading(_("Comparison"), facts), comparison_summary(comparison)]
    for difference in comparison.differences:
        lines += _changes(comparison, difference)
    return "\n".join([*lines, *left_out(comparison)]) + "\n"


def left_out(comparison: Compared[Any]) -> list[str]:
    """The last lines: classes and photos that the figures are without."""
    lines = []
    for title, names in (
        (_("Known classes without a photo in this split:"), comparison.missing_classes),
        (_("Left out, since the models do not know these classes:"), comparison.ignored_classes),
        (_("Left out, since they cannot be read:"), comparison.skipped_images),
    ):
        if names:
            lines += ["", title, *(f"  {shorten(name, 76)}" for name in names)]
    return lines


def _figures_table(models: Sequence[ComparedModel]) -> list[str]:
    def row(title: str, cells: Sequence[str]) -> str:
        return f"  {left(title, 17)}" + "".join(right(cell, 20) for cell in cells)

    lines = [row("", [model.letter for model in models])]
    for title, name, form in ROWS:
        lines.append(row(_(title), [cell(model.figures, name, form) for model in models]))
    return lines


def _differences_table(comparison: Comparison) -> list[str]:
    first, several = comparison.reference.letter, len(comparison.differences) > 1
    only = _("only {model}").format(model=first)
    titles = (_("top-1, points"), _("macro-F1, points"), only, _("only it"), "p")
    lines = [
        _("Each less {first}, on the same photos. Only: right with one of the two alone.").format(
            first=first
        ),
        _difference_row("", [*titles, *(["Holm"] if several else [])]),
    ]
    for found in comparison.differences:
        paired = found.paired
        cells = [
            points(paired.accuracy_difference),
            points(paired.macro_f1_difference),
            str(paired.only_b_right),
            str(paired.only_a_right),
            short_p(paired.mcnemar_p),
            *([short_p(found.holm_p)] if several else []),
        ]
        lines.append(_difference_row(found.model.letter, cells))
    return lines


def _difference_row(letter: str, cells: Sequence[str]) -> str:
    widths = (23, 23, 8, 8, 7, 8)
    return f"  {letter:<1}" + "".join(right(x, w) for x, w in zip(cells, widths, strict=False))


def short_p(p: float | None) -> str:
    """A p-value in a table."""
    return "–" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def caveats(comparison: Comparison) -> list[str]:
    """What the figures do not say by themselves, a paragraph each."""
    methods = sorted({found.paired.mcnemar_method for found in comparison.differences})
    texts = [
        _(
            "p is of McNemar's test ({methods}): how often two models that err equally often would "
            "differ by so many photos, or more. Nothing is said of other training runs: another "
            "seed may turn the order around."
        ).format(methods=_(" or ").join(map(_, methods)))
    ]
    thing = "photo" if comparison.reference.figures.num_groups is None else "group"
    if any(found.paired.mcnemar_p is None for found in comparison.differences):
        texts.append(
            _(
                "Without p: fewer than {photos} are right with one of the two alone, too "
                "few to tell whether that is chance."
            ).format(photos=amount(DISCORDANT, thing))
        )
    return texts + caveats_of_all(comparison)


def caveats_of_all(comparison: Compared[Any]) -> list[str]:
    """Those of every comparison: how many there are, and what the models were trained on."""
    texts = []
    if (count := len(comparison.models) - 1) > 1:
        texts.append(
            _(
                "{count} comparisons are made: the more, the likelier one of them looks real by "
                "chance. Holm's p takes that into account; the intervals are each for its own "
                "difference alone."
            ).format(count=count)
        )
    texts += _seen(comparison)
    known = all(model.seen and model.seen.known_by == "content" for model in comparison.models)
    if comparison.training_folders_differ and known:
        if not any(model.seen and model.seen.trained_on for model in comparison.models):
            texts.append(
                _(
                    "The models were trained on different folders. None of them learned from one "
                    "of these photos as it is here; whether from copies saved anew, only you can "
                    "know."
                )
            )
    elif comparison.training_folders_differ:
        texts.append(
            _(
                "The models were trained on different folders. A photo that is here and was in one "
                "model's train/ is in its favour; only you can know whether there are such."
            )
        )
    return texts


def _seen(comparison: Compared[Any]) -> list[str]:
    """Which models know photos measured here from their training."""
    seen = {m.letter: seen_in_words(m.seen, split=comparison.split) for m in comparison.models}
    if len(set(seen.values())) == 1:
        text = next(iter(seen.values()))
        return [_("Every model: {text}").format(text=text)] if text else []
    texts = [f"{letter}: {text}" for letter, text in seen.items() if text]
    if len({m.seen.trained_on for m in comparison.models if m.seen}) > 1:
        texts.append(_("A photo that a model was trained on is in its favour."))
    return texts


def _changes(comparison: Comparison, found: Difference) -> list[str]:
    """Classes whose recall changed most, and the photos that changed sides."""
    first, letter = comparison.reference, found.model.letter
    lines = against(letter, first.letter)
    rows = [row for label in most_changed([found]) if (row := _class_row(comparison, found, label))]
    if rows:
        lines += [_("Recall changed most, %:"), *rows[:CLASSES]]
    for who, indices in ((letter, found.paired.gained), (first.letter, found.paired.lost)):
        lines += listed_photos(
            _("Right only with {model}: {count}").format(model=who, count=len(indices)),
            comparison,
            indices,
        )
    return lines


def against(letter: str, first: str) -> list[str]:
    """The heading over what changed between two models."""
    title = _("{model} against {first}").format(model=letter, first=first)
    return ["", title, "-" * columns(title)]


def listed_photos(title: str, comparison: Compared[Any], indices: Sequence[int]) -> list[str]:
    """The first of the photos, below the title that says how many there are."""
    lines = ["", title]
    lines += [f"  {shorten(comparison.short_path(i), 76)}" for i in indices[:PHOTOS]]
    if len(indices) > PHOTOS:
        lines.append(
            _("  … and {count} more, in comparison_photos.csv").format(count=len(indices) - PHOTOS)
        )
    return lines


def _class_row(comparison: Comparison, found: Difference, label: int) -> str:
    """A class's recall before and after; "" where it is the same, or there is no photo."""
    first, model = comparison.reference.figures, found.model.figures
    before, after, change = first.recall[label], model.recall[label], found.recall[label]
    if before is None or after is None or change is None or not change.value:
        return ""
    name = fit(comparison.display_names[comparison.class_names[label]], 30)
    values = f"{percent(before.value):>7} → {percent(after.value):<6}"
    return f"  {name}{values}{points(change):>24}"
