"""A class more or less in words, where photos have several labels: at 80 columns but for paths."""

from __future__ import annotations

from cliptune.editing.label_figures import LabelChangeFigures
from cliptune.editing.labels import LabelAdded
from cliptune.evaluation.statistics.intervals import Estimate
from cliptune.evaluation.statistics.words import in_words, percent
from cliptune.language import amount, marked
from cliptune.language import translated as _
from cliptune.text import fit, one_line, right, shorten, wrap

OTHERS = marked("The other classes answer as before: each is a question of its own.")


def label_figures_text(figures: LabelChangeFigures, *, name: str, added: bool) -> list[str]:
    """The table before and after, how the class is told, and where it was measured."""
    name, of_class = shorten(name, 20), figures.of_class
    lines = []
    if figures.mean_ap is not None and figures.exact is not None:
        lines.append(f"  {'':<27}{right(_('before'), 20)}{right(_('after'), 20)}")
        lines.append(_row(_("all classes, mAP, %"), *figures.mean_ap))
        lines.append(_row(_("photos all right, %"), *figures.exact))
    if added and figures.named:
        lines.append(_row(_("new class, av. precision, %"), None, of_class.average_precision))
    measured = [
        _("Measured on {photos} of the {split} split of {folder}.").format(
            photos=amount(figures.num_photos, "photo"),
            split=figures.split,
            folder=one_line(figures.data_dir),
        )
    ]
    if lines:
        measured.append(_("In brackets: 95 % intervals, of other photos like these."))
        lines.append("")
    if added:
        text = (
            _("'{name}' is told on {told}; {shown} show it, and of those it is told on {right}.")
            if figures.named
            else _(
                "No label there names '{name}': it is told on {told} of them, and which show it is "
                "not known."
            )
        )
        measured.append(text.format(
            name=name, told=of_class.told, shown=of_class.photos, right=of_class.right
        ))  # fmt: skip
    return [*lines, wrap(" ".join(measured))]


def label_answers_text(added: LabelAdded, *, name: str, split: str | None) -> list[str]:
    """What a new class was learned from, and from which probability on it is told: paragraphs."""
    name, record = shorten(name, 20), added.parts.record
    assert record.label_answers is not None
    threshold = record.label_answers.thresholds[-1]
    own = amount(added.num_photos, "photo")
    own = _("{photos} of it").format(photos=own) if added.num_photos else _("its prompts")
    learned = [
        _("Learned from {own} and from {others} of train without it.").format(
            own=own, others=amount(added.num_others, "photo")
        )
    ]
    if added.presumed:
        learned.append(
            _(
                "No label of train names '{name}', so that none of these shows it is presumed; "
                "where some do, its probabilities come out low. They are those of a class as "
                "frequent as the others: how frequent it is is not known either."
            ).format(name=name)
        )
    if threshold.photos:
        told = _(
            "It is told from {value:.2f} on (95 %: {low:.2f} to {high:.2f}), by {photos} of val "
            "that show it."
        ).format(
            value=threshold.value, low=threshold.low, high=threshold.high,
            photos=amount(threshold.photos, "photo"),
        )  # fmt: skip
        if split == "val":
            told += " " + _(
                "So its figures on val lean to the good side; measure on --split test, too."
            )
    else:
        told = _(
            "It is told from {value:.2f} on, which was not measured: no photo of val is known to "
            "show it. That is the threshold of the middle other class, or one half where none was "
            "measured. Name '{name}' in the labels of val and add it anew to measure it."
        ).format(value=threshold.value, name=name)
    return [" ".join(learned), told]


def _row(title: str, before: Estimate | None, after: Estimate | None) -> str:
    cells = ["–" if each is None else in_words(each, percent) for each in (before, after)]
    return f"  {fit(title, 27)}{cells[0]:>20}{cells[1]:>20}".rstrip()
