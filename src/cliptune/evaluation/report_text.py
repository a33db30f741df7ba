"""An evaluation in words, at 80 columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cliptune.evaluation.families import families_in_words
from cliptune.evaluation.heading import heading, photos_and_groups, split_in_words
from cliptune.evaluation.report import Evaluation
from cliptune.evaluation.seen import seen_in_words, seen_unknown_in_words
from cliptune.evaluation.sets import sets_in_words
from cliptune.evaluation.statistics.class_figures import (
    AverageFigures,
    ClassFigures,
    macro_average,
    weighted_average,
)
from cliptune.evaluation.statistics.few_photos import DISCORDANT, FOR_ECE, FOR_LOSSES, IN_A_CLASS
from cliptune.evaluation.statistics.figures import FullMetrics, PairedComparison
from cliptune.evaluation.statistics.intervals import Estimate
from cliptune.evaluation.statistics.metrics import ConfusedPair
from cliptune.evaluation.statistics.words import in_words, number, percent, points
from cliptune.evaluation.unknowns import NoneOfThese
from cliptune.language import amount, marked
from cliptune.language import translated as _
from cliptune.model.answers import SCORE_NAMES, Answers
from cliptune.text import fit, left, one_line, right, shorten, wrap

FEW_PHOTOS = 1000  # below, the interval around 85 % reaches more than 2 points to either side
# Words that figures hold in English, for JSON.
_WORDS = (marked("separable"), marked("at the limit"), marked("constant"),
          marked("exact binomial"), marked("chi-square"))  # fmt: skip
TOO_FEW = marked("too few photos")  # in place of a figure


def summary_text(evaluation: Evaluation) -> str:
    """The figures before and after with their intervals, and the most confused pairs."""
    tuned, paired = evaluation.figures, evaluation.paired
    differences: dict[str, Estimate] = {}
    if paired is not None:
        differences = {
            "accuracy": paired.accuracy_difference,
            "macro_f1": paired.macro_f1_difference,
        }
    lines = [
        _("{photos} of the {split} split, {classes}").format(
            photos=photos_in_words(tuned),
            split=evaluation.split,
            classes=amount(len(evaluation.class_names), "class"),
        ),
        *map(wrap, seen_texts(evaluation)),
        "",
        f"  {'':<17}{right(_('zero-shot'), 20)}{right(_('this model'), 20)}"
        f"{right(_('difference'), 21)}",
    ]
    for title, name, form in ROWS:
        lines.append(_row(title, name, form, evaluation, differences.get(name)))
    lines += ["", wrap(intervals_in_words(tuned))]
    lines += [wrap(paragraph) for paragraph in _paragraphs(evaluation)]
    if evaluation.confused_pairs:
        lines += [
            "",
            _("Most confused:"),
            *_pairs_in_words(evaluation, evaluation.confused_pairs[:5]),
        ]
    return "\n".join(lines)


def photos_in_words(figures: FullMetrics) -> str:
    """ "200 photos", "200 photos in 40 groups": what the figures rest on."""
    return photos_and_groups(figures.num_images, figures.num_groups)


def seen_texts(evaluation: Evaluation) -> list[str]:
    """What it means that photos measured, or given as unknown, are photos of training."""
    texts = (
        seen_in_words(evaluation.seen, split=evaluation.split),
        seen_unknown_in_words(evaluation.seen_unknown),
    )
    return [text for text in texts if text]


def report_text(evaluation: Evaluation) -> str:
    """`evaluation_report.txt`, at 80 columns but for paths."""
    shown = evaluation.display_names
    missing = [shown[name] for name in evaluation.missing_classes]
    facts = {
        _("checkpoint"): evaluation.checkpoint,
        _("base model"): evaluation.base_model,
        _("data"): split_in_words(evaluation.data_dir, evaluation.split),
    }
    lines = [
        *heading(_("Evaluation"), facts),
        summary_text(evaluation),
        "",
        *([_("Zero-shot and this model saw the same photos.")] if evaluation.baseline else []),
        _(
            "A backbone pretrained on ImageNet has seen the photos of Stanford Dogs, which\n"
            "come from there."
        ),
        "",
        left(_("class"), 25)
        + right(_("precision"), 10)
        + right(_("recall"), 8)
        + right(_("95 % interval"), 17)
        + right("F1", 8)
        + right(_("photos"), 8),
        "-" * 76,
    ]
    lines += [_class_row(shown[each.name], each) for each in evaluation.classes]
    lines.append("-" * 76)
    lines.append(_class_row(_("macro avg"), macro_average(evaluation.classes)))
    lines.append(_class_row(_("weighted avg"), weighted_average(evaluation.classes)))
    if evaluation.confused_pairs[5:]:
        lines += ["", _("More confused pairs:")]
        lines += _pairs_in_words(evaluation, evaluation.confused_pairs[5:])
    for title, names in (
        (_("Classes without a photo in this split:"), _short(missing)),
        (
            _("Folders left out, since the model does not know them:"),
            _short(evaluation.ignored_classes),
        ),
        (_("Unreadable photos left out:"), map(one_line, evaluation.skipped_images)),
    ):
        if listed := list(names):
            lines += ["", title, *(f"  {name}" for name in listed)]
    return "\n".join(lines) + "\n"


# Title, name in `FullMetrics`, how its values are written.
ROWS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    (marked("top-1, %"), "accuracy", percent),
    (marked("top-5, %"), "top5", percent),
    (marked("macro-F1, %"), "macro_f1", percent),
    (marked("balanced acc., %"), "balanced_accuracy", percent),
    (marked("log loss"), "log_loss", number),
    (marked("Brier score"), "brier", number),
    (marked("calib. error, %"), "ece", percent),
)


def _row(
    title: str,
    name: str,
    form: Callable[[float], str],
    evaluation: Evaluation,
    difference: Estimate | None,
) -> str:
    both = evaluation.baseline_figures, evaluation.figures
    cells = [cell(figures, name, form) for figures in both]
    gain = "" if difference is None else points(difference)
    return f"  {left(_(title), 17)}{right(cells[0], 20)}{right(cells[1], 20)}{gain:>21}".rstrip()


def cell(figures: FullMetrics | None, name: str, form: Callable[[float], str]) -> str:
    """The figure `name` of a table, or what stands in its place."""
    estimate: Estimate | None = None if figures is None else getattr(figures, name)
    if estimate is not None:
        return in_words(estimate, form)
    return _(TOO_FEW) if figures is not None and name in figures.too_few_photos else "–"


def intervals_in_words(figures: FullMetrics) -> str:
    """What the brackets are, and what so few photos do not tell."""
    grouped, units = figures.num_groups is not None, figures.num_groups or figures.num_images
    text = _("In brackets: 95 % intervals, of other {others}.").format(
        others=others_in_words(figures)
    )
    if units < FEW_PHOTOS:
        text += " " + (
            _("With so few groups, a difference of a few points may be chance.")
            if grouped
            else _("With so few photos, a difference of a few points may be chance.")
        )
    return " ".join([text, *too_few_in_words(figures)])


def others_in_words(figures: FullMetrics) -> str:
    """What would be others next time: photos, or groups with all their photos."""
    if figures.num_groups is None:
        return _("photos like these")
    return _("groups of photos like these (dataset.json says which belong together)")


def too_few_in_words(figures: FullMetrics) -> list[str]:
    """A sentence for each figure that so few photos do not tell."""
    unsure = figures.too_few_photos
    thing = "photo" if figures.num_groups is None else "group"
    sentences = (
        ("log_loss", FOR_LOSSES, _("The intervals of log loss and Brier score need {photos}.")),
        ("macro_f1", IN_A_CLASS, _("That of macro-F1 needs {photos} of each class on average.")),
        ("ece", FOR_ECE, _("The calibration error needs {photos}.")),
    )
    return [
        text.format(photos=amount(count, thing))
        for name, count, text in sentences
        if name in unsure
    ]


def _paragraphs(evaluation: Evaluation) -> list[str]:
    """What the table does not tell: who changed sides, the scaling, none of these."""
    texts = []
    paired, answers = evaluation.paired, evaluation.answers
    if paired is not None:
        texts.append(
            _("Right only with this model: {ours}; only zero-shot: {theirs} ({test}).").format(
                ours=amount(paired.only_a_right, "photo"),
                theirs=paired.only_b_right,
                test=mcnemar_in_words(paired),
            )
        )
    if answers is not None:
        texts += [_scaling(evaluation, answers), *prior_in_words(answers)]
    if evaluation.none_of_these is not None:
        texts += _none_of_these(evaluation.none_of_these, answers)
    if evaluation.families is not None:
        texts += families_in_words(evaluation.families)
    if evaluation.sets is not None:
        texts += sets_in_words(evaluation.sets)
    if (worse := evaluation.robustness) is not None:
        means = [percent(worse.mean(i)) for i in range(len(worse.untouched))]
        beside = _(" (zero-shot: {mean} %)").format(mean=means[1]) if len(means) > 1 else ""
        texts.append(
            _(
                "On photos made worse in {ways} and three strengths: {mean} % right on average"
                "{beside}."
            ).format(ways=amount(len(worse.corrupted), "way"), mean=means[0], beside=beside)
        )
    return texts


def _scaling(evaluation: Evaluation, answers: Answers) -> str:
    """How probabilities were scaled, and what that did to the calibration error."""
    before, after = evaluation.before_scaling.reliability.ece_estimate, evaluation.figures.ece
    how = (
        _("by a temperature of {temperature:.2f}").format(temperature=answers.temperature)
        if answers.factors is None
        else _("by a factor for each class")
    )
    change = ""
    if before is not None and after is not None:
        change = _(": calibration error {before} % before, {after} % after").format(
            before=percent(before.value), after=percent(after.value)
        )
    return _("Probabilities were scaled {how} fitted on val{note}{change}.").format(
        how=how,
        note=_(" ({note})").format(note=_(answers.note)) if answers.note else "",
        change=change,
    )


def prior_in_words(answers: Answers | None) -> list[str]:
    """A sentence, where another prior than training's was asked for."""
    if answers is None or answers.shifts is None:
        return []
    return [_("This model answers for classes as frequent as --prior says, not as in training.")]


def _none_of_these(found: NoneOfThese, answers: Answers | None) -> list[str]:
    texts = [
        _("Taken as known: {share} % of these photos; {threshold}.").format(
            share=in_words(found.kept, percent), threshold=threshold_in_words(found, answers)
        )
    ]
    if found.false_accepts is not None and found.auroc is not None:
        texts.append(
            _(
                "Of {photos} of none of the classes, {share} % are taken as known (AUROC {auroc}, "
                "by {score})."
            ).format(
                photos=amount(found.num_unknown, "photo"),
                share=in_words(found.false_accepts, percent),
                auroc=in_words(found.auroc_of(found.score), number),
                score=_(SCORE_NAMES[found.score]),
            )
        )
    return texts


def threshold_in_words(found: NoneOfThese, answers: Answers | None) -> str:
    """What the threshold keeps of val: of few photos more than was asked for."""
    if answers is None:
        return _("the threshold was to keep {share} % of val").format(share=percent(found.share))
    return _("the threshold keeps {share} % of the {count} photos of val").format(
        share=percent(answers.kept), count=answers.num_images
    )


def mcnemar_in_words(paired: PairedComparison) -> str:
    """The test, or why there is none."""
    if paired.mcnemar_p is None:
        if paired.leaning_groups is not None:
            return _(
                "in {groups} that lean to either: too few to tell whether that is chance"
            ).format(groups=amount(paired.leaning_groups, "group"))
        return _("fewer than {count} in all: too few photos to tell whether that is chance").format(
            count=DISCORDANT
        )
    p = paired.mcnemar_p
    return _("McNemar's test, {method}: {value}").format(
        method=_(paired.mcnemar_method), value="p < 0.001" if p < 0.001 else f"p = {p:.3f}"
    )


def _class_row(name: str, figures: ClassFigures | AverageFigures) -> str:
    """A line of the table of classes, with a dash for what is not defined."""

    def shown(figure: Estimate | float | None) -> str:
        value = figure.value if isinstance(figure, Estimate) else figure
        return "–" if value is None else number(value)

    recall, interval = figures.recall, ""
    if isinstance(recall, Estimate):
        interval = f"{number(recall.low)}–{number(recall.high)}"
    return (
        f"{fit(name, 24)} {shown(figures.precision):>10}{shown(recall):>8}{interval:>17}"
        f"{shown(figures.f1):>8}{figures.support:>8}"
    )


def _pairs_in_words(evaluation: Evaluation, pairs: Sequence[ConfusedPair]) -> list[str]:
    lines = []
    for pair in pairs:
        true, predicted = (
            shorten(evaluation.display_names[name], 26)
            for name in (pair.true_class, pair.predicted_class)
        )
        photos = round(pair.count / pair.share)
        lines.append(
            _("  {true} taken for {predicted}: {count} of {photos}").format(
                true=true, predicted=predicted, count=pair.count, photos=photos
            )
        )
    return lines


def _short(names: Sequence[str]) -> list[str]:
    return [shorten(name, 76) for name in names]
