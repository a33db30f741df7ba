"""An evaluation of several labels in words, at 80 columns."""

from __future__ import annotations

from cliptune._version import __version__
from cliptune.evaluation.multilabel.measured import MultilabelEvaluation
from cliptune.evaluation.seen import seen_in_words
from cliptune.evaluation.statistics.intervals import Estimate
from cliptune.evaluation.statistics.words import in_words, percent, points
from cliptune.text import counted, fit, one_line, wrap

# Title, field of the figures, and what it means.
ROWS = (
    ("mAP, %", "mean_ap", "Mean, over the classes, of how well photos that show one are ranked."),
    ("F1 micro, %", "micro_f1", "Precision and recall in one figure, every answer alike."),
    ("F1 macro, %", "macro_f1", "The same, every class counting alike."),
    ("all right, %", "exact", "Share of photos whose classes are all right, none more or less."),
    ("wrong answers, %", "hamming", "Share of single answers, yes or no, that are wrong."),
)


def multilabel_summary(evaluation: MultilabelEvaluation) -> str:
    """The figures with their intervals, and zero-shot CLIP's beside them."""
    seen = seen_in_words(evaluation.seen, split=evaluation.split)
    lines = [
        f"{photos_in_words(evaluation.num_images, evaluation.num_groups)} of the "
        f"{evaluation.split} split, "
        f"{counted(len(evaluation.class_names), 'class')}, any number to a photo",
        *([wrap(seen)] if seen else []),
        "",
        f"  {'':<17}{'zero-shot':>20}{'this model':>20}",
    ]
    for title, name, _ in ROWS:
        zero = evaluation.baseline if name == "mean_ap" else None
        lines.append(
            f"  {title:<17}{_cell(zero):>20}{_cell(getattr(evaluation.figures, name)):>20}"
        )
    lines += ["", *map(wrap, notes(evaluation))]
    return "\n".join(lines)


def photos_in_words(photos: int, groups: int | None) -> str:
    """What figures rest on: "200 photos", "200 photos in 40 independent groups"."""
    text = counted(photos, "photo")
    return text if groups is None else f"{text} in {counted(groups, 'independent group')}"


def intervals_in_words(groups: int | None) -> str:
    """Of what the intervals are."""
    units = "photos" if groups is None else "groups of photos"
    return f"In brackets: 95 % intervals by resampling {units}, of other {units} like these."


def notes(evaluation: MultilabelEvaluation) -> list[str]:
    """What is to be known beside the figures, in sentences."""
    texts = [
        f"{intervals_in_words(evaluation.num_groups)} Zero-shot CLIP ranks photos and has no "
        "threshold, so that it has no other figure."
    ]
    if evaluation.gain is not None:
        texts.append(f"Gain in mAP over zero-shot: {points(evaluation.gain)} points.")
    error = evaluation.figures.calibration_error
    texts.append(
        f"Probabilities are off by {100 * error:.1f} points on average, over all photos and "
        f"classes; a class is told from its own threshold on, fitted on "
        f"{counted(evaluation.answers.num_images, 'validation photo')}."
    )
    unsure: dict[float, list[str]] = {}
    for name, threshold in zip(evaluation.class_names, evaluation.answers.thresholds, strict=True):
        if threshold.photos == 0:
            unsure.setdefault(threshold.value, []).append(evaluation.display_names[name])
    for value, names in unsure.items():  # other than one half: of classes added since
        texts.append(
            f"No validation photo shows {', '.join(names)}: the threshold there is "
            f"{value:.{1 if value == 0.5 else 2}f}, unfitted."
        )
    return texts


def multilabel_report_text(evaluation: MultilabelEvaluation) -> str:
    """`evaluation_report.txt` of several labels, at 80 columns but for paths."""
    head = [
        "Evaluation, several labels to a photo",
        "=====================================",
        f"checkpoint  {one_line(evaluation.checkpoint)}",
        f"base model  {one_line(evaluation.base_model)}",
        f"photos      {one_line(evaluation.data_dir)}, split {evaluation.split}",
        f"cliptune    {__version__}",
        "",
        multilabel_summary(evaluation),
        "",
        f"  {'class':<22}{'photos':>7}{'told':>6}{'prec.':>7}{'recall':>7}{'F1':>6}"
        f"{'AP':>6}{'0-shot':>8}{'from':>7}",
    ]
    rows = zip(
        evaluation.class_names, evaluation.figures.classes, evaluation.baseline_classes,
        evaluation.answers.thresholds, strict=True,
    )  # fmt: skip
    for name, each, zero, threshold in rows:
        shares = (_share(value) for value in (each.precision, each.recall))
        own = None if each.average_precision is None else each.average_precision.value
        head.append(
            f"  {fit(evaluation.display_names[name], 22)}{each.photos:>7}{each.told:>6}"
            f"{next(shares):>7}{next(shares):>7}{_share(each.f1):>6}{_share(own):>6}"
            f"{_share(None if zero is None else zero.value):>8}{threshold.value:>7.2f}"
        )
    head.append("")
    head.append(
        wrap(
            "prec., recall, F1 and AP (average precision) in %; told: photos for which the class "
            "is answered; from: the probability from which on it is."
        )
    )
    if evaluation.skipped_images:
        head += ["", f"Skipped, unreadable: {len(evaluation.skipped_images)}"]
        head += [f"  {one_line(path)}" for path in evaluation.skipped_images]
    return "\n".join(head) + "\n"


def _cell(estimate: Estimate | None) -> str:
    return "–" if estimate is None else in_words(estimate, percent)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"
