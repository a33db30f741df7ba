"""An evaluation in words, at 80 columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cliptune import __version__
from cliptune.evaluation.figures import FullMetrics
from cliptune.evaluation.intervals import Estimate
from cliptune.evaluation.metrics import ConfusedPair, class_keys
from cliptune.evaluation.report import Evaluation
from cliptune.evaluation.unknowns import NoneOfThese
from cliptune.model.answers import SCORE_NAMES
from cliptune.text import counted, fit, one_line, shorten, wrap

FEW_PHOTOS = 1000  # below, the interval around 85 % reaches more than 2 points to either side
FEW_IN_A_CLASS = 5  # below, on average, macro-F1's interval covers too seldom


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
        f"{counted(tuned.num_images, 'photo')} of the {evaluation.split} split, "
        f"{counted(len(evaluation.class_names), 'class')}",
        "",
        f"  {'':<17}{'zero-shot':>20}{'this model':>20}{'difference':>21}",
    ]
    for title, name, form in ROWS:
        lines.append(_row(title, name, form, evaluation, differences.get(name)))
    lines += ["", wrap(_intervals_in_words(tuned, len(evaluation.class_names)))]
    lines += [wrap(paragraph) for paragraph in _paragraphs(evaluation)]
    if evaluation.confused_pairs:
        lines += ["", "Most confused:", *_pairs_in_words(evaluation, evaluation.confused_pairs[:5])]
    return "\n".join(lines)


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
    keys = class_keys(evaluation.class_names)
    for name, key, recall in zip(
        evaluation.class_names, keys, evaluation.figures.recall, strict=True
    ):
        lines.append(_class_row(shown[name], evaluation.report[key], recall))
    lines.append("-" * 76)
    for name in ("macro avg", "weighted avg"):
        lines.append(_class_row(name, evaluation.report[name], None))
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


def percent(value: float) -> str:
    """A share of 1 in percent."""
    return f"{100 * value:.1f}"


def number(value: float) -> str:
    """A figure that is no share."""
    return f"{value:.3f}"


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
    cells = []
    for figures in (evaluation.baseline_figures, evaluation.figures):
        estimate = None if figures is None else getattr(figures, name)
        cells.append("–" if estimate is None else in_words(estimate, form))
    gain = "" if difference is None else points(difference)
    return f"  {title:<17}{cells[0]:>20}{cells[1]:>20}{gain:>21}".rstrip()


def in_words(estimate: Estimate, form: Callable[[float], str]) -> str:
    """A figure with its interval: "78.5 (72.3–83.6)"."""
    return f"{form(estimate.value)} ({form(estimate.low)}–{form(estimate.high)})"


def points(difference: Estimate) -> str:
    """A difference in percentage points with its interval: "+15.0 (+8.6, +21.7)"."""
    value, low, high = (100 * x for x in (difference.value, difference.low, difference.high))
    return f"{value:+.1f} ({low:+.1f}, {high:+.1f})"


def _intervals_in_words(figures: FullMetrics, num_classes: int) -> str:
    text = "In brackets: 95 % intervals, of other photos like these."
    if figures.num_images < FEW_PHOTOS:
        text += " With so few photos, a difference of a few points may be chance."
    if figures.num_images < FEW_IN_A_CLASS * num_classes:
        text += " With so few of each class, that of macro-F1 is too narrow."
    return text


def _paragraphs(evaluation: Evaluation) -> list[str]:
    """What the table does not tell: who changed sides, the scaling, none of these."""
    texts = []
    paired, answers = evaluation.paired, evaluation.answers
    if paired is not None:
        texts.append(
            f"Right only with this model: {counted(paired.only_a_right, 'photo')}; only zero-shot: "
            f"{paired.only_b_right} (McNemar's test, {paired.mcnemar_method}: "
            f"{p_in_words(paired.mcnemar_p)})."
        )
    if answers is not None:
        before = percent(evaluation.before_scaling.reliability.ece_estimate.value)
        after = percent(evaluation.figures.ece.value)
        how = (
            f"by a temperature of {answers.temperature:.2f}"
            if answers.factors is None
            else "by a factor for each class"
        )
        note = f" ({answers.note})" if answers.note else ""
        texts.append(
            f"Probabilities were scaled {how} fitted on val{note}: calibration error {before} % "
            f"before, {after} % after."
        )
    if evaluation.none_of_these is not None:
        texts += _none_of_these(evaluation.none_of_these)
    if (worse := evaluation.robustness) is not None:
        means = [percent(worse.mean(i)) for i in range(len(worse.untouched))]
        beside = f" (zero-shot: {means[1]} %)" if len(means) > 1 else ""
        texts.append(
            f"On photos made worse in {counted(len(worse.corrupted), 'way')} and three strengths: "
            f"{means[0]} % right on average{beside}."
        )
    return texts


def _none_of_these(found: NoneOfThese) -> list[str]:
    kept = in_words(found.kept, percent)
    texts = [
        f"Taken as known: {kept} % of these photos; the threshold keeps {percent(found.share)} % "
        "of val."
    ]
    if found.false_accepts is not None and found.auroc is not None:
        wrong = in_words(found.false_accepts, percent)
        texts.append(
            f"Of {counted(found.num_unknown, 'photo')} of none of the classes, {wrong} % are "
            f"taken as known (AUROC {found.auroc[found.score]:.3f}, by {SCORE_NAMES[found.score]})."
        )
    return texts


def p_in_words(p: float) -> str:
    """A p-value as one writes it."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _class_row(name: str, scores: dict[str, float], recall: Estimate | None) -> str:
    interval = "" if recall is None else f"{recall.low:.3f}–{recall.high:.3f}"
    return (
        f"{fit(name, 24)} {scores['precision']:>10.3f}{scores['recall']:>8.3f}{interval:>17}"
        f"{scores['f1-score']:>8.3f}{int(scores['support']):>8}"
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
