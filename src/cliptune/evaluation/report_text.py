"""An evaluation in words, at 80 columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cliptune._version import __version__
from cliptune.evaluation.families import families_in_words
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
from cliptune.model.answers import SCORE_NAMES, Answers
from cliptune.text import counted, fit, one_line, shorten, wrap

FEW_PHOTOS = 1000  # below, the interval around 85 % reaches more than 2 points to either side
TOO_FEW = "too few photos"  # in place of a figure


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
        f"{photos_in_words(tuned)} of the {evaluation.split} split, "
        f"{counted(len(evaluation.class_names), 'class')}",
        *map(wrap, seen_texts(evaluation)),
        "",
        f"  {'':<17}{'zero-shot':>20}{'this model':>20}{'difference':>21}",
    ]
    for title, name, form in ROWS:
        lines.append(_row(title, name, form, evaluation, differences.get(name)))
    lines += ["", wrap(intervals_in_words(tuned))]
    lines += [wrap(paragraph) for paragraph in _paragraphs(evaluation)]
    if evaluation.confused_pairs:
        lines += ["", "Most confused:", *_pairs_in_words(evaluation, evaluation.confused_pairs[:5])]
    return "\n".join(lines)


def photos_in_words(figures: FullMetrics) -> str:
    """ "200 photos", "200 photos in 40 groups": what the figures rest on."""
    photos = counted(figures.num_images, "photo")
    groups = figures.num_groups
    return photos if groups is None else f"{photos} in {counted(groups, 'independent group')}"


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
    lines = [
        "Evaluation",
        "==========",
        f"checkpoint  {one_line(evaluation.checkpoint)}",
        f"base model  {one_line(evaluation.base_model)}",
        f"data        {one_line(evaluation.data_dir)}, split {evaluation.split}",
        f"cliptune    {__version__}",
        "",
        summary_text(evaluation),
        "",
        *(["Zero-shot and this model saw the same photos."] if evaluation.baseline else []),
        "A backbone pretrained on ImageNet has seen the photos of Stanford Dogs, which",
        "come from there.",
        "",
        f"{'class':<25}{'precision':>10}{'recall':>8}{'95 % interval':>17}{'F1':>8}{'photos':>8}",
        "-" * 76,
    ]
    lines += [_class_row(shown[each.name], each) for each in evaluation.classes]
    lines.append("-" * 76)
    lines.append(_class_row("macro avg", macro_average(evaluation.classes)))
    lines.append(_class_row("weighted avg", weighted_average(evaluation.classes)))
    if evaluation.confused_pairs[5:]:
        lines += ["", "More confused pairs:"]
        lines += _pairs_in_words(evaluation, evaluation.confused_pairs[5:])
    for title, names in (
        ("Classes without a photo in this split", _short(missing)),
        (
            "Folders left out, since the model does not know them",
            _short(evaluation.ignored_classes),
        ),
        ("Unreadable photos left out", map(one_line, evaluation.skipped_images)),
    ):
        if listed := list(names):
            lines += ["", f"{title}:", *(f"  {name}" for name in listed)]
    return "\n".join(lines) + "\n"


# Title, name in `FullMetrics`, how its values are written.
ROWS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("top-1, %", "accuracy", percent),
    ("top-5, %", "top5", percent),
    ("macro-F1, %", "macro_f1", percent),
    ("balanced acc., %", "balanced_accuracy", percent),
    ("log loss", "log_loss", number),
    ("Brier score", "brier", number),
    ("calib. error, %", "ece", percent),
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
    return f"  {title:<17}{cells[0]:>20}{cells[1]:>20}{gain:>21}".rstrip()


def cell(figures: FullMetrics | None, name: str, form: Callable[[float], str]) -> str:
    """The figure `name` of a table, or what stands in its place."""
    estimate: Estimate | None = None if figures is None else getattr(figures, name)
    if estimate is not None:
        return in_words(estimate, form)
    return TOO_FEW if figures is not None and name in figures.too_few_photos else "–"


def intervals_in_words(figures: FullMetrics) -> str:
    """What the brackets are, and what so few photos do not tell."""
    text = f"In brackets: 95 % intervals, of other {others_in_words(figures)}."
    number, what = figures.num_images, "photos"
    if figures.num_groups is not None:
        number, what = figures.num_groups, "groups"
    if number < FEW_PHOTOS:
        text += f" With so few {what}, a difference of a few points may be chance."
    return " ".join([text, *too_few_in_words(figures)])


def others_in_words(figures: FullMetrics) -> str:
    """What would be others next time: photos, or groups with all their photos."""
    if figures.num_groups is None:
        return "photos like these"
    return "groups of photos like these (dataset.json says which belong together)"


def too_few_in_words(figures: FullMetrics) -> list[str]:
    """A sentence for each figure that so few photos do not tell."""
    unsure = figures.too_few_photos
    what = "photos" if figures.num_groups is None else "groups"
    sentences = (
        ("log_loss", f"The intervals of log loss and Brier score need {FOR_LOSSES} {what}."),
        ("macro_f1", f"That of macro-F1 needs {IN_A_CLASS} {what} of each class on average."),
        ("ece", f"The calibration error needs {FOR_ECE} {what}."),
    )
    return [sentence for name, sentence in sentences if name in unsure]


def _paragraphs(evaluation: Evaluation) -> list[str]:
    """What the table does not tell: who changed sides, the scaling, none of these."""
    texts = []
    paired, answers = evaluation.paired, evaluation.answers
    if paired is not None:
        texts.append(
            f"Right only with this model: {counted(paired.only_a_right, 'photo')}; only zero-shot: "
            f"{paired.only_b_right} ({mcnemar_in_words(paired)})."
        )
    if answers is not None:
        before, after = evaluation.before_scaling.reliability.ece_estimate, evaluation.figures.ece
        how = (
            f"by a temperature of {answers.temperature:.2f}"
            if answers.factors is None
            else "by a factor for each class"
        )
        note = f" ({answers.note})" if answers.note else ""
        change = ""
        if before is not None and after is not None:
            change = (
                f": calibration error {percent(before.value)} % before, "
                f"{percent(after.value)} % after"
            )
        texts.append(f"Probabilities were scaled {how} fitted on val{note}{change}.")
        texts += prior_in_words(answers)
    if evaluation.none_of_these is not None:
        texts += _none_of_these(evaluation.none_of_these, answers)
    if evaluation.families is not None:
        texts += families_in_words(evaluation.families)
    if evaluation.sets is not None:
        texts += sets_in_words(evaluation.sets)
    if (worse := evaluation.robustness) is not None:
        means = [percent(worse.mean(i)) for i in range(len(worse.untouched))]
        beside = f" (zero-shot: {means[1]} %)" if len(means) > 1 else ""
        texts.append(
            f"On photos made worse in {counted(len(worse.corrupted), 'way')} and three strengths: "
            f"{means[0]} % right on average{beside}."
        )
    return texts


def prior_in_words(answers: Answers | None) -> list[str]:
    """A sentence, where another prior than training's was asked for."""
    if answers is None or answers.shifts is None:
        return []
    return ["This model answers for classes as frequent as --prior says, not as in training."]


def _none_of_these(found: NoneOfThese, answers: Answers | None) -> list[str]:
    texts = [
        f"Taken as known: {in_words(found.kept, percent)} % of these photos; "
        f"{threshold_in_words(found, answers)}."
    ]
    if found.false_accepts is not None and found.auroc is not None:
        wrong = in_words(found.false_accepts, percent)
        texts.append(
            f"Of {counted(found.num_unknown, 'photo')} of none of the classes, {wrong} % are "
            f"taken as known (AUROC {in_words(found.auroc_of(found.score), number)}, by "
            f"{SCORE_NAMES[found.score]})."
        )
    return texts


def threshold_in_words(found: NoneOfThese, answers: Answers | None) -> str:
    """What the threshold keeps of val: of few photos more than was asked for."""
    if answers is None:
        return f"the threshold was to keep {percent(found.share)} % of val"
    return (
        f"the threshold keeps {percent(answers.kept)} % of the {answers.num_images} photos of val"
    )


def mcnemar_in_words(paired: PairedComparison) -> str:
    """The test, or why there is none."""
    if paired.mcnemar_p is None:
        if paired.leaning_groups is not None:
            groups = counted(paired.leaning_groups, "group")
            return f"in {groups} that lean to either: too few to tell whether that is chance"
        return f"fewer than {DISCORDANT} in all: too few photos to tell whether that is chance"
    p = paired.mcnemar_p
    value = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
    return f"McNemar's test, {paired.mcnemar_method}: {value}"


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
        lines.append(f"  {true} taken for {predicted}: {pair.count} of {photos}")
    return lines


def _short(names: Sequence[str]) -> list[str]:
    return [shorten(name, 76) for name in names]
