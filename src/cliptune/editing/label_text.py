"""A class more or less in words, where photos have several labels: at 80 columns but for paths."""

from __future__ import annotations

from cliptune.editing.label_figures import LabelChangeFigures
from cliptune.editing.labels import LabelAdded
from cliptune.evaluation.statistics.intervals import Estimate
from cliptune.evaluation.statistics.words import in_words, percent
from cliptune.text import counted, fit, one_line, shorten, wrap

OTHERS = "The other classes answer as before: each is a question of its own."


def label_figures_text(figures: LabelChangeFigures, *, name: str, added: bool) -> list[str]:
    """The table before and after, how the class is told, and where it was measured."""
    name, of_class = shorten(name, 20), figures.of_class
    lines = []
    if figures.mean_ap is not None and figures.exact is not None:
        lines.append(f"  {'':<27}{'before':>20}{'after':>20}")
        lines.append(_row("all classes, mAP, %", *figures.mean_ap))
        lines.append(_row("photos all right, %", *figures.exact))
    if added and figures.named:
        lines.append(_row("new class, av. precision, %", None, of_class.average_precision))
    measured = (
        f"Measured on {counted(figures.num_photos, 'photo')} of the {figures.split} split of "
        f"{one_line(figures.data_dir)}."
    )
    if lines:
        measured += " In brackets: 95 % intervals, of other photos like these."
        lines.append("")
    if added and not figures.named:
        measured += (
            f" No label there names '{name}': it is told on {of_class.told} of them, and which "
            "show it is not known."
        )
    elif added:
        measured += (
            f" '{name}' is told on {of_class.told}; {of_class.photos} show it, and of those it is "
            f"told on {of_class.right}."
        )
    return [*lines, wrap(measured)]


def label_answers_text(added: LabelAdded, *, name: str, split: str | None) -> list[str]:
    """What a new class was learned from, and from which probability on it is told: paragraphs."""
    name, record = shorten(name, 20), added.parts.record
    assert record.label_answers is not None
    threshold = record.label_answers.thresholds[-1]
    others = counted(added.num_others, "photo")
    own = counted(added.num_photos, "photo") + " of it" if added.num_photos else "its prompts"
    learned = f"Learned from {own} and from {others} of train without it."
    if added.presumed:
        learned += (
            f" No label of train names '{name}', so that none of these shows it is presumed; where "
            "some do, its probabilities come out low. They are those of a class as "
            "frequent as the others: how frequent it is is not known either."
        )
    if threshold.photos:
        told = (
            f"It is told from {threshold.value:.2f} on (95 %: {threshold.low:.2f} to "
            f"{threshold.high:.2f}), by {counted(threshold.photos, 'photo')} of val that show it."
        )
        if split == "val":
            told += " So its figures on val lean to the good side; measure on --split test, too."
    else:
        told = (
            f"It is told from {threshold.value:.2f} on, which was not measured: no photo of val is "
            "known to show it. That is the threshold of the middle other class, or one half where "
            f"none was measured. Name '{name}' in the labels of val and add it anew to measure it."
        )
    return [learned, told]


def _row(title: str, before: Estimate | None, after: Estimate | None) -> str:
    cells = ["–" if each is None else in_words(each, percent) for each in (before, after)]
    return f"  {fit(title, 27)}{cells[0]:>20}{cells[1]:>20}".rstrip()
