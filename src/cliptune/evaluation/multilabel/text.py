"""An evaluation of several labels in words, at 80 columns."""

from __future__ import annotations

from cliptune.evaluation.heading import heading, photos_and_groups, split_in_words
from cliptune.evaluation.multilabel.measured import MultilabelEvaluation
from cliptune.evaluation.seen import seen_in_words
from cliptune.evaluation.statistics.intervals import Estimate
from cliptune.evaluation.statistics.words import in_words, percent, points
from cliptune.language import amount, marked
from cliptune.language import translated as _
from cliptune.text import fit, left, one_line, right, wrap

# Title, field of the figures, and what it means.
ROWS = (
    (marked("mAP, %"), "mean_ap",
     marked("Mean, over the classes, of how well photos that show one are ranked.")),
    (marked("F1 micro, %"), "micro_f1",
     marked("Precision and recall in one figure, every answer alike.")),
    (marked("F1 macro, %"), "macro_f1", marked("The same, every class counting alike.")),
    (marked("all right, %"), "exact",
     marked("Share of photos whose classes are all right, none more or less.")),
    (marked("wrong answers, %"), "hamming",
     marked("Share of single answers, yes or no, that are wrong.")),
)  # fmt: skip


def multilabel_summary(evaluation: MultilabelEvaluation) -> str:
    """The figures with their intervals, and zero-shot CLIP's beside them."""
    seen = seen_in_words(evaluation.seen, split=evaluation.split)
    lines = [
        _("{photos} of the {split} split, {classes}, any number to a photo").format(
            photos=photos_in_words(evaluation.num_images, evaluation.num_groups),
            split=evaluation.split,
            classes=amount(len(evaluation.class_names), "class"),
        ),
        *([wrap(seen)] if seen else []),
        "",
        f"  {'':<17}{right(_('zero-shot'), 20)}{right(_('this model'), 20)}",
    ]
    for title, name, _meaning in ROWS:
        zero = evaluation.baseline if name == "mean_ap" else None
        lines.append(
            f"  {left(_(title), 17)}{_cell(zero):>20}{_cell(getattr(evaluation.figures, name)):>20}"
        )
    lines += ["", *map(wrap, notes(evaluation))]
    return "\n".join(lines)


def photos_in_words(photos: int, groups: int | None) -> str:
    """What figures rest on: "200 photos", "200 photos in 40 independent groups"."""
    return photos_and_groups(photos, groups)


def intervals_in_words(groups: int | None) -> str:
    """Of what the intervals are."""
    if groups is None:
        return _("In brackets: 95 % intervals by resampling photos, of other photos like these.")
    return _(
        "In brackets: 95 % intervals by resampling groups of photos, of other groups of photos "
        "like these."
    )


def notes(evaluation: MultilabelEvaluation) -> list[str]:
    """What is to be known beside the figures, in sentences."""
    zero_shot = _(
        "Zero-shot CLIP ranks photos and has no threshold, so that it has no other figure."
    )
    texts = [f"{intervals_in_words(evaluation.num_groups)} {zero_shot}"]
    if evaluation.gain is not None:
        texts.append(
            _("Gain in mAP over zero-shot: {gain} points.").format(gain=points(evaluation.gain))
        )
    texts.append(
        _(
            "Probabilities are off by {error:.1f} points on average, over all photos and classes; "
            "a class is told from its own threshold on, fitted on {photos}."
        ).format(
            error=100 * evaluation.figures.calibration_error,
            photos=amount(evaluation.answers.num_images, "validation photo"),
        )
    )
    unsure: dict[float, list[str]] = {}
    for name, threshold in zip(evaluation.class_names, evaluation.answers.thresholds, strict=True):
        if threshold.photos == 0:
            unsure.setdefault(threshold.value, []).append(evaluation.display_names[name])
    for value, names in unsure.items():  # other than one half: of classes added since
        texts.append(
            _(
                "No validation photo shows {names}: the threshold there is {value}, unfitted."
            ).format(names=", ".join(names), value=f"{value:.{1 if value == 0.5 else 2}f}")
        )
    return texts


def multilabel_report_text(evaluation: MultilabelEvaluation) -> str:
    """`evaluation_report.txt` of several labels, at 80 columns but for paths."""
    facts = {
        _("checkpoint"): evaluation.checkpoint,
        _("base model"): evaluation.base_model,
        _("photos"): split_in_words(evaluation.data_dir, evaluation.split),
    }
    titles = {
        _("photos"): 7, _("told"): 6, _("prec."): 7, _("recall"): 7, "F1": 6, "AP": 6,
        _("0-shot"): 8, _("from"): 7,
    }  # fmt: skip
    head = [
        *heading(_("Evaluation, several labels to a photo"), facts),
        multilabel_summary(evaluation),
        "",
        f"  {left(_('class'), 22)}{''.join(right(name, width) for name, width in titles.items())}",
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
            _(
                "prec., recall, F1 and AP (average precision) in %; told: photos for which the "
                "class is answered; from: the probability from which on it is."
            )
        )
    )
    if evaluation.skipped_images:
        head += ["", _("Skipped, unreadable: {count}").format(count=len(evaluation.skipped_images))]
        head += [f"  {one_line(path)}" for path in evaluation.skipped_images]
    return "\n".join(head) + "\n"


def _cell(estimate: Estimate | None) -> str:
    return "–" if estimate is None else in_words(estimate, percent)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"
