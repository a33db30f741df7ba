"""A class added or removed in words, at 80 columns but for paths."""

from __future__ import annotations

from cliptune.editing.change import ClassChange
from cliptune.editing.figures import ChangeFigures
from cliptune.editing.label_figures import LabelChangeFigures
from cliptune.editing.label_text import OTHERS, label_answers_text, label_figures_text
from cliptune.evaluation.statistics.intervals import Estimate
from cliptune.evaluation.statistics.words import in_words, percent
from cliptune.model.checkpoint import read_checkpoint
from cliptune.text import counted, fit, one_line, shorten, wrap


def change_text(change: ClassChange) -> str:
    """What was written, the figures before and after, and what they do not tell."""
    count = counted(len(change.checkpoint.record.class_names), "class")
    lines = [
        f"{_title(change)}; {count} now",
        f"  from   {one_line(str(change.source))}",
        f"  wrote  {one_line(str(change.checkpoint.path))}",
        "",
    ]
    if change.figures is None:
        reason = change.unmeasured.rstrip(".")
        lines.append(wrap(f"Accuracy was not measured: no photos to measure on. {reason}."))
        lines.append(wrap("Name a folder with the split in it with --data-dir to measure."))
    elif isinstance(change.figures, LabelChangeFigures):
        lines += label_figures_text(change.figures, name=change.class_name, added=change.added)
    else:
        lines += _figures(change, change.figures)
    if change.checkpoint.record.task == "multilabel":
        said = [OTHERS]
        if change.label is not None:
            split = None if change.figures is None else change.figures.split
            said += label_answers_text(change.label, name=change.class_name, split=split)
        lines += ["", *map(wrap, said)]
    answers = change.checkpoint.record.answers
    if answers is not None:
        lines += ["", wrap(_about_answers(change, scores_photos=answers.score == "photos"))]
        before = read_checkpoint(change.source).record.answers
        if before is not None and (before.sets is not None or before.sure is not None):
            lines.append(wrap(
                "Prediction sets, and the class or parent it is sure of, are left out: what they "
                "promise was fitted on the classes before."
            ))  # fmt: skip
    return "\n".join(lines)


def _title(change: ClassChange) -> str:
    name = shorten(change.class_name, 30)
    if not change.added:
        return f"class '{name}' removed"
    count = change.num_photos
    source = counted(count, "photo") if count else "its prompts"
    return f"class '{name}' added from {source}"


def _figures(change: ClassChange, figures: ChangeFigures) -> list[str]:
    name = shorten(change.class_name, 20)
    lines = [
        f"  {'':<28}{'before':>19}{'after':>19}{'photos':>8}",
        _row("other classes, top-1, %", figures.before, figures.after, figures.num_others),
    ]
    if figures.num_new:
        lines.append(_row("new class, recall, %", None, figures.recall, figures.num_new))
        lines.append(_row("new class, precision, %", None, figures.precision, None))
    if figures.known is not None:
        lines.append(_row("new class, taken as known, %", None, figures.known, figures.num_new))
    text = (
        f"Measured on the {figures.split} split of {one_line(figures.data_dir)}. In brackets: "
        "95 % intervals, of other photos like these."
    )
    if change.added:
        text += f" Photos of other classes taken for '{name}': {figures.taken}."
        if not figures.num_new:
            but = " but those it was added from" if change.num_photos else ""
            text += (
                f" There are no photos of '{name}' in that split{but}, so how well it is told was "
                "not measured."
            )
        if change.num_photos and figures.split == "val":
            text += (
                " Val photos of the other classes helped to place the new one, so their accuracy "
                "leans to the good side; measure on --split test, too."
            )
    return [*lines, "", wrap(text)]


def _row(title: str, before: Estimate | None, after: Estimate | None, count: int | None) -> str:
    cells = ["–" if each is None else in_words(each, percent) for each in (before, after)]
    photos = "" if count is None else str(count)
    return f"  {fit(title, 28)}{cells[0]:>19}{cells[1]:>19}{photos:>8}".rstrip()


def _about_answers(change: ClassChange, *, scores_photos: bool) -> str:
    text = (
        "The scaling of probabilities and the threshold for 'none of these' are those fitted "
        f"before this class was {'added' if change.added else 'removed'}."
    )
    if change.added and change.num_photos == 0 and scores_photos:
        text += (
            " That threshold asks how near a photo is to those the classes were learned from, and "
            "of the new class there are none: its photos may be said to show none of the classes. "
            "Add it from a few photos (--images) where that matters."
        )
    return text
