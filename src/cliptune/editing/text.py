"""A class added or removed in words, at 80 columns but for paths."""

from __future__ import annotations

from cliptune.editing.change import ClassChange
from cliptune.editing.figures import ChangeFigures
from cliptune.editing.label_figures import LabelChangeFigures
from cliptune.editing.label_text import OTHERS, label_answers_text, label_figures_text
from cliptune.evaluation.statistics.intervals import Estimate
from cliptune.evaluation.statistics.words import in_words, percent
from cliptune.language import amount
from cliptune.language import translated as _
from cliptune.model.checkpoint import read_checkpoint
from cliptune.text import fit, one_line, right, shorten, wrap


def change_text(change: ClassChange) -> str:
    """What was written, the figures before and after, and what they do not tell."""
    count = amount(len(change.checkpoint.record.class_names), "class")
    lines = [
        _("{change}; {classes} now").format(change=_title(change), classes=count),
        _("  from   {path}").format(path=one_line(str(change.source))),
        _("  wrote  {path}").format(path=one_line(str(change.checkpoint.path))),
        "",
    ]
    if change.figures is None:
        reason = change.unmeasured.rstrip(".")
        lines.append(wrap(
            _("Accuracy was not measured: no photos to measure on. {reason}.").format(reason=reason)
        ))  # fmt: skip
        lines.append(wrap(_("Name a folder with the split in it with --data-dir to measure.")))
    elif isinstance(change.figures, LabelChangeFigures):
        lines += label_figures_text(change.figures, name=change.class_name, added=change.added)
    else:
        lines += _figures(change, change.figures)
    if change.checkpoint.record.task == "multilabel":
        said = [_(OTHERS)]
        if change.label is not None:
            split = None if change.figures is None else change.figures.split
            said += label_answers_text(change.label, name=change.class_name, split=split)
        lines += ["", *map(wrap, said)]
    answers = change.checkpoint.record.answers
    if answers is not None:
        lines += ["", wrap(_about_answers(change, scores_photos=answers.score == "photos"))]
        before = read_checkpoint(change.source).record.answers
        if before is not None and (before.sets is not None or before.sure is not None):
            lines.append(wrap(_(
                "Prediction sets, and the class or parent it is sure of, are left out: what they "
                "promise was fitted on the classes before."
            )))  # fmt: skip
    return "\n".join(lines)


def _title(change: ClassChange) -> str:
    name = shorten(change.class_name, 30)
    if not change.added:
        return _("class '{name}' removed").format(name=name)
    count = change.num_photos
    source = amount(count, "photo") if count else _("its prompts")
    return _("class '{name}' added from {source}").format(name=name, source=source)


def _figures(change: ClassChange, figures: ChangeFigures) -> list[str]:
    name = shorten(change.class_name, 20)
    lines = [
        f"  {'':<28}{right(_('before'), 19)}{right(_('after'), 19)}{right(_('photos'), 8)}",
        _row(_("other classes, top-1, %"), figures.before, figures.after, figures.num_others),
    ]
    if figures.num_new:
        lines.append(_row(_("new class, recall, %"), None, figures.recall, figures.num_new))
        lines.append(_row(_("new class, precision, %"), None, figures.precision, None))
    if figures.known is not None:
        lines.append(_row(_("new class, taken as known, %"), None, figures.known, figures.num_new))
    texts = [
        _("Measured on the {split} split of {folder}.").format(
            split=figures.split, folder=one_line(figures.data_dir)
        ),
        _("In brackets: 95 % intervals, of other photos like these."),
    ]
    if change.added:
        texts.append(
            _("Photos of other classes taken for '{name}': {count}.").format(
                name=name, count=figures.taken
            )
        )
        if not figures.num_new:
            texts.append(_unmeasured(change).format(name=name))
        if change.num_photos and figures.split == "val":
            texts.append(
                _(
                    "Val photos of the other classes helped to place the new one, so their "
                    "accuracy leans to the good side; measure on --split test, too."
                )
            )
    return [*lines, "", wrap(" ".join(texts))]


def _unmeasured(change: ClassChange) -> str:
    if change.num_photos:
        return _(
            "There are no photos of '{name}' in that split but those it was added from, so how "
            "well it is told was not measured."
        )
    return _(
        "There are no photos of '{name}' in that split, so how well it is told was not measured."
    )


def _row(title: str, before: Estimate | None, after: Estimate | None, count: int | None) -> str:
    cells = ["–" if each is None else in_words(each, percent) for each in (before, after)]
    photos = "" if count is None else str(count)
    return f"  {fit(title, 28)}{cells[0]:>19}{cells[1]:>19}{photos:>8}".rstrip()


def _about_answers(change: ClassChange, *, scores_photos: bool) -> str:
    text = (
        _(
            "The scaling of probabilities and the threshold for 'none of these' are those fitted "
            "before this class was added."
        )
        if change.added
        else _(
            "The scaling of probabilities and the threshold for 'none of these' are those fitted "
            "before this class was removed."
        )
    )
    if change.added and change.num_photos == 0 and scores_photos:
        text += " " + _(
            "That threshold asks how near a photo is to those the classes were learned from, and "
            "of the new class there are none: its photos may be said to show none of the classes. "
            "Add it from a few photos (--images) where that matters."
        )
    return text
