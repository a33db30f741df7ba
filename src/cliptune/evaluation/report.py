"""An evaluation in words, numbers and pictures.

Shape suffixes: N photos, C classes.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliptune import __version__
from cliptune.data.naming import display_names
from cliptune.errors import CheckpointError
from cliptune.evaluation.metrics import (
    ConfusedPair,
    Labels,
    Logits,
    SplitMetrics,
    class_keys,
    classification_report,
    confusion_matrix,
    most_confused_pairs,
    split_metrics,
    wilson_interval,
)
from cliptune.evaluation.plots import (
    plot_class_performance,
    plot_confusion_matrix,
)
from cliptune.files import whole_file
from cliptune.text import fit, one_line, shorten

PACKAGES = ("torch", "transformers", "peft", "numpy", "Pillow", "scikit-learn")
FEW_PHOTOS = 1000  # below, the interval around 85 % reaches more than 2 points to either side


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A checkpoint measured on one split; `baseline` is zero-shot CLIP on the same photos.

    Everything here goes by class name; `display_names` are for people's eyes: class name -> the
    name shown.
    """

    checkpoint: str
    base_model: str
    data_dir: str
    split: str
    class_names: tuple[str, ...]
    display_names: dict[str, str]
    missing_classes: tuple[str, ...]  # known classes without a photo in the split
    ignored_classes: tuple[str, ...]  # class folders the model does not know
    skipped_images: tuple[str, ...]
    tuned: SplitMetrics
    baseline: SplitMetrics | None
    report: dict[str, Any]  # scikit-learn's classification report
    confusion_CC: NDArray[np.int64]
    confused_pairs: list[ConfusedPair]
    seconds: float

    @property
    def accuracy(self) -> float:
        """Top-1 accuracy as a fraction."""
        return self.tuned.accuracy

    def to_dict(self) -> dict[str, Any]:
        """What `evaluation_results.json` holds; accuracies there are in percent."""
        baseline = None if self.baseline is None else _in_percent(self.baseline)
        low, high = wilson_interval(self.tuned.accuracy, self.tuned.num_images)
        return {
            **_in_percent(self.tuned),
            "accuracy_interval_95": [100 * low, 100 * high],
            "baseline": baseline,
            "improvement_in_points": _improvement(self.tuned, self.baseline),
            "checkpoint": self.checkpoint,
            "base_model": self.base_model,
            "data_dir": self.data_dir,
            "split": self.split,
            "class_names": list(self.class_names),
            "display_names": self.display_names,
            "missing_classes": list(self.missing_classes),
            "ignored_classes": list(self.ignored_classes),
            "skipped_images": list(self.skipped_images),
            "classification_report": self.report,
            "confusion_matrix": self.confusion_CC.tolist(),
            "most_confused_pairs": [asdict(pair) for pair in self.confused_pairs],
            "seconds": self.seconds,
            "images_per_second": self.tuned.num_images / self.seconds,
            "versions": {"cliptune": __version__}
            | {package: importlib.metadata.version(package) for package in PACKAGES},
        }


def build_evaluation(
    *,
    logits_NC: Logits,
    labels_N: Labels,
    baseline_logits_NC: Logits | None,
    class_names: Sequence[str],
    given_names: Mapping[str, str] | None = None,
    **facts: Any,
) -> Evaluation:
    """An `Evaluation` from logits; `facts` are its remaining descriptive fields.

    `given_names` has the name shown of classes that are not shown by their readable name.
    Raises `ValueError` when there is no photo, `CheckpointError` when a logit is not finite.
    """
    tuned = split_metrics(logits_NC, labels_N)
    if not_finite := int((~np.isfinite(logits_NC)).any(axis=1).sum()):
        raise CheckpointError(
            f"{facts['checkpoint']}: its scores are not finite numbers for {not_finite} of "
            f"{len(labels_N)} photos. Its training diverged, or its weights are damaged: "
            "evaluate another checkpoint, or train again with a smaller learning rate."
        )
    predicted_N = logits_NC.argmax(axis=1)
    confusion_CC = confusion_matrix(labels_N, predicted_N, num_classes=len(class_names))
    return Evaluation(
        class_names=tuple(class_names),
        display_names=display_names(class_names, given_names or {}),
        tuned=tuned,
        baseline=None
        if baseline_logits_NC is None
        else split_metrics(baseline_logits_NC, labels_N),
        report=classification_report(labels_N, predicted_N, class_names),
        confusion_CC=confusion_CC,
        confused_pairs=most_confused_pairs(confusion_CC, class_names),
        **facts,
    )


def write_report(evaluation: Evaluation, output_dir: Path) -> list[Path]:
    """Write the four files of an evaluation to `output_dir`, each moved into place whole."""
    output_dir.mkdir(parents=True, exist_ok=True)
    text, numbers = output_dir / "evaluation_report.txt", output_dir / "evaluation_results.json"
    matrix, classes = output_dir / "confusion_matrix.png", output_dir / "class_performance.png"
    _write(text, report_text(evaluation))
    _write(numbers, json.dumps(evaluation.to_dict(), indent=2, ensure_ascii=False) + "\n")
    figures = f"{evaluation.split}: {100 * evaluation.accuracy:.1f} % of "
    title = f"{figures}{evaluation.tuned.num_images} photos"
    shown = evaluation.display_names
    plot_confusion_matrix(evaluation.confusion_CC, list(shown.values()), matrix, title=title)
    plot_class_performance(evaluation.report, shown, classes, title=title)
    return [text, numbers, matrix, classes]


def summary_text(evaluation: Evaluation) -> str:
    """Before and after, and the most confused pairs, at 80 columns."""
    tuned, baseline = evaluation.tuned, evaluation.baseline
    low, high = wilson_interval(tuned.accuracy, tuned.num_images)
    lines = [
        f"{tuned.num_images} photos of the {evaluation.split} split, "
        f"{len(evaluation.class_names)} classes",
        "",
        f"  {'':<12}{'zero-shot':>12}{'this model':>12}{'gain':>12}",
        _row("top-1", baseline.accuracy if baseline else None, tuned.accuracy),
        _row("top-5", baseline.top5_accuracy if baseline else None, tuned.top5_accuracy),
        f"  {'loss':<12}{f'{baseline.loss:.3f}' if baseline else '–':>12}{tuned.loss:>12.3f}",
        "",
        f"95 % interval of top-1: {100 * low:.1f} to {100 * high:.1f} % "
        f"(Wilson, {tuned.num_images} photos)",
    ]
    if tuned.num_images < FEW_PHOTOS:
        lines.append("With so few photos, a difference of a few points may be chance.")
    if evaluation.confused_pairs:
        in_words = partial(_in_words, shown=evaluation.display_names)
        lines += ["", "Most confused:", *map(in_words, evaluation.confused_pairs[:5])]
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
        f"{'class':<32}{'precision':>11}{'recall':>11}{'F1':>11}{'photos':>11}",
        "-" * 76,
    ]
    for name, key in zip(evaluation.class_names, class_keys(evaluation.class_names), strict=True):
        lines.append(_class_row(shown[name], evaluation.report[key]))
    lines.append("-" * 76)
    for name in ("macro avg", "weighted avg"):
        lines.append(_class_row(name, evaluation.report[name]))
    if evaluation.confused_pairs[5:]:
        in_words = partial(_in_words, shown=shown)
        lines += ["", "More confused pairs:", *map(in_words, evaluation.confused_pairs[5:])]
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


def _row(name: str, before: float | None, after: float | None) -> str:
    cells = ["–" if value is None else f"{100 * value:.1f} %" for value in (before, after)]
    gain = "" if before is None or after is None else f"{100 * (after - before):+.1f}"
    return f"  {name:<12}{cells[0]:>12}{cells[1]:>12}{gain:>12}".rstrip()


def _class_row(name: str, scores: dict[str, float]) -> str:
    cells = "".join(f"{scores[key]:>11.3f}" for key in ("precision", "recall", "f1-score"))
    return f"{fit(name, 30)}  {cells}{int(scores['support']):>11}"


def _in_words(pair: ConfusedPair, *, shown: Mapping[str, str]) -> str:
    true, predicted = (shorten(shown[name], 26) for name in (pair.true_class, pair.predicted_class))
    return f"  {true} taken for {predicted}: {pair.count} of {round(pair.count / pair.share)}"


def _short(names: Sequence[str]) -> list[str]:
    return [shorten(name, 76) for name in names]


def _improvement(tuned: SplitMetrics, baseline: SplitMetrics | None) -> dict[str, Any] | None:
    """What tuning gained over the baseline, in percentage points."""
    if baseline is None:
        return None
    after, before = tuned.top5_accuracy, baseline.top5_accuracy
    return {
        "accuracy": 100 * (tuned.accuracy - baseline.accuracy),
        "top5_accuracy": None if after is None or before is None else 100 * (after - before),
    }


def _in_percent(metrics: SplitMetrics) -> dict[str, float | int | None]:
    top5 = metrics.top5_accuracy
    return {
        "accuracy": 100 * metrics.accuracy,
        "top5_accuracy": None if top5 is None else 100 * top5,
        "loss": metrics.loss,
        "num_images": metrics.num_images,
    }


def _write(path: Path, text: str) -> None:
    """Write beside `path`, then move into place.

    A name that is no valid Unicode (Linux allows such files) is written as JSON's escape.
    """
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")
