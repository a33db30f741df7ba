"""A comparison in words, at 80 columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cliptune._version import __version__
from cliptune.evaluation.comparison.compared import Compared
from cliptune.evaluation.comparison.comparison import (
    ComparedModel,
    Comparison,
    Difference,
    most_changed,
)
from cliptune.evaluation.report_text import ROWS, cell, intervals_in_words, photos_in_words
from cliptune.evaluation.seen import seen_in_words
from cliptune.evaluation.statistics.few_photos import DISCORDANT
from cliptune.evaluation.statistics.words import percent, points
from cliptune.text import counted, fit, one_line, shorten, wrap

BESIDE = 3  # models in a table of 80 columns
CLASSES = 8  # whose recall changed most, in the text
PHOTOS = 20  # that changed sides, each way, in the text


def comparison_summary(comparison: Comparison) -> str:
    """The figures of each model and their differences, for a terminal."""
    lines = [
        f"{photos_in_words(comparison.reference.figures)} of the {comparison.split} split, "
        f"{counted(len(comparison.class_names), 'class')}",
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
    lines = [*heading("Comparison", comparison), comparison_summary(comparison)]
    for difference in comparison.differences:
        lines += _changes(comparison, difference)
    return "\n".join([*lines, *left_out(comparison)]) + "\n"


def heading(title: str, comparison: Compared[Any]) -> list[str]:
    """The first lines of `comparison.txt`."""
    return [
        title,
        "=" * len(title),
        f"data        {one_line(comparison.data_dir)}, split {comparison.split}",
        f"cliptune    {__version__}",
        "",
    ]


def left_out(comparison: Compared[Any]) -> list[str]:
    """The last lines: classes and photos that the figures are without."""
    lines = []
    for title, names in (
        ("Known classes without a photo in this split:", comparison.missing_classes),
        ("Left out, since the models do not know these classes:", comparison.ignored_classes),
        ("Left out, since they cannot be read:", comparison.skipped_images),
    ):
        if names:
            lines += ["", title, *(f"  {shorten(name, 76)}" for name in names)]
    return lines


def _figures_table(models: Sequence[ComparedModel]) -> list[str]:
    def row(title: str, cells: Sequence[str]) -> str:
        return f"  {title:<17}" + "".join(f"{cell:>20}" for cell in cells)

    lines = [row("", [model.letter for model in models])]
    for title, name, form in ROWS:
        lines.append(row(title, [cell(model.figures, name, form) for model in models]))
    return lines


def _differences_table(comparison: Comparison) -> list[str]:
    first, several = comparison.reference.letter, len(comparison.differences) > 1
    titles = ("top-1, points", "macro-F1, points", f"only {first}", "only it", "p")
    lines = [
        f"Each less {first}, on the same photos. Only: right with one of the two alone.",
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
    return f"  {letter:<1}" + "".join(f"{x:>{w}}" for x, w in zip(cells, widths, strict=False))


def short_p(p: float | None) -> str:
    """A p-value in a table."""
    return "–" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def caveats(comparison: Comparison) -> list[str]:
    """What the figures do not say by themselves, a paragraph each."""
    methods = sorted({found.paired.mcnemar_method for found in comparison.differences})
    texts = [
        f"p is of McNemar's test ({' or '.join(methods)}): how often two models that err equally "
        "often would differ by so many photos, or more. Nothing is said of other training runs: "
        "another seed may turn the order around."
    ]
    if any(found.paired.mcnemar_p is None for found in comparison.differences):
        texts.append(
            f"Without p: fewer than {DISCORDANT} {_units(comparison)} are right with one of the "
            "two alone, too few to tell whether that is chance."
        )
    return texts + caveats_of_all(comparison)


def caveats_of_all(comparison: Compared[Any]) -> list[str]:
    """Those of every comparison: how many there are, and what the models were trained on."""
    texts = []
    if (count := len(comparison.models) - 1) > 1:
        texts.append(
            f"{count} comparisons are made: the more, the likelier one of them looks real by "
            "chance. Holm's p takes that into account; the intervals are each for its own "
            "difference alone."
        )
    texts += _seen(comparison)
    known = all(model.seen and model.seen.known_by == "content" for model in comparison.models)
    if comparison.training_folders_differ and known:
        if not any(model.seen and model.seen.trained_on for model in comparison.models):
            texts.append(
                "The models were trained on different folders. None of them learned from one of "
                "these photos as it is here; whether from copies saved anew, only you can know."
            )
    elif comparison.training_folders_differ:
        texts.append(
            "The models were trained on different folders. A photo that is here and was in one "
            "model's train/ is in its favour; only you can know whether there are such."
        )
    return texts


def _units(comparison: Comparison) -> str:
    return "photos" if comparison.reference.figures.num_groups is None else "groups"


def _seen(comparison: Compared[Any]) -> list[str]:
    """Which models know photos measured here from their training."""
    seen = {m.letter: seen_in_words(m.seen, split=comparison.split) for m in comparison.models}
    if len(set(seen.values())) == 1:
        text = next(iter(seen.values()))
        return [f"Every model: {text}"] if text else []
    texts = [f"{letter}: {text}" for letter, text in seen.items() if text]
    if len({m.seen.trained_on for m in comparison.models if m.seen}) > 1:
        texts.append("A photo that a model was trained on is in its favour.")
    return texts


def _changes(comparison: Comparison, found: Difference) -> list[str]:
    """Classes whose recall changed most, and the photos that changed sides."""
    first, letter = comparison.reference, found.model.letter
    lines = ["", f"{letter} against {first.letter}", "-" * len(f"{letter} against A")]
    rows = [row for label in most_changed([found]) if (row := _class_row(comparison, found, label))]
    if rows:
        lines += ["Recall changed most, %:", *rows[:CLASSES]]
    for who, indices in ((letter, found.paired.gained), (first.letter, found.paired.lost)):
        lines += listed_photos(f"Right only with {who}", comparison, indices)
    return lines


def listed_photos(title: str, comparison: Compared[Any], indices: Sequence[int]) -> list[str]:
    """How many photos there are, and the first of them."""
    lines = ["", f"{title}: {len(indices)}"]
    lines += [f"  {shorten(comparison.short_path(i), 76)}" for i in indices[:PHOTOS]]
    if len(indices) > PHOTOS:
        lines.append(f"  … and {len(indices) - PHOTOS} more, in comparison_photos.csv")
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
