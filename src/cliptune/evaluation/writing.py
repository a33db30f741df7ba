"""Write an evaluation to a folder: text, JSON, a table of all photos, pictures, and the page."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from cliptune.evaluation.plots import (
    plot_class_performance,
    plot_confusion_matrix,
    plot_robustness,
)
from cliptune.evaluation.report import Evaluation
from cliptune.evaluation.report_page import PageExtras, report_page
from cliptune.evaluation.report_text import report_text
from cliptune.files import whole_file
from cliptune.text import counted, no_formula


def write_report(
    evaluation: Evaluation, output_dir: Path, extras: PageExtras | None = None
) -> list[Path]:
    """Write the files of an evaluation to `output_dir`, each moved into place whole."""
    output_dir.mkdir(parents=True, exist_ok=True)
    names = ("evaluation_report.txt", "evaluation_results.json", "evaluation_predictions.csv")
    contents = (
        report_text(evaluation),
        json.dumps(evaluation.to_dict(), indent=2, ensure_ascii=False) + "\n",
        predictions_csv(evaluation),
    )
    paths = [output_dir / name for name in names]
    for path, content in zip(paths, contents, strict=True):
        write_text(path, content)
    matrix, classes = output_dir / "confusion_matrix.png", output_dir / "class_performance.png"
    title = (
        f"{evaluation.split}: {100 * evaluation.accuracy:.1f} % of "
        f"{counted(evaluation.tuned.num_images, 'photo')}"
    )
    shown = [evaluation.display_names[name] for name in evaluation.class_names]
    order = list(range(len(shown)))
    if evaluation.families is not None:  # the classes of a parent beside one another
        order = list(evaluation.class_order)
    plot_confusion_matrix(
        evaluation.confusion_CC[np.ix_(order, order)], [shown[i] for i in order], matrix,
        title=title, edges=evaluation.family_edges,
    )  # fmt: skip
    plot_class_performance(evaluation.classes, shown, classes, title=title)
    paths += [matrix, classes]
    extras = extras or PageExtras()
    if evaluation.robustness is not None:
        worse = output_dir / "robustness.png"
        plot_robustness(evaluation.robustness, ("this model", "zero-shot"), worse, title=title)
        extras = replace(extras, robustness=worse)
        paths.append(worse)
    page = output_dir / "report.html"
    write_text(page, report_page(evaluation, extras))
    return [*paths, page]


def predictions_csv(evaluation: Evaluation) -> str:
    """One line for each photo: its file, its class, what the model says, and how surely."""
    photos, names = evaluation.photos, evaluation.class_names
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    sets = evaluation.sets
    sure = [] if evaluation.families is None else evaluation.families.sure_names()
    writer.writerow(
        ["image", "label", "predicted", "probability", "correct", "zero_shot", "known_score",
         "known", *([] if sets is None else ["prediction_set"]), *(["sure_of"] if sure else [])]
    )  # fmt: skip
    scores_N, answers = photos.known_scores_N, evaluation.answers
    known_N = None if scores_N is None or answers is None else answers.knows(scores_N)
    for i, path in enumerate(photos.paths):
        label, predicted = int(photos.labels_N[i]), int(photos.predicted_N[i])
        cells = [
            path,
            names[label],
            names[predicted],
            f"{photos.probabilities_NC[i, predicted]:.6f}",
            str(label == predicted).lower(),
            "" if photos.baseline_N is None else names[int(photos.baseline_N[i])],
            "" if scores_N is None else f"{scores_N[i]:.6f}",
            "" if known_N is None else str(known_N[i]).lower(),
        ]
        if sets is not None:
            cells.append("|".join(sets.labels(i, photos.probabilities_NC[i], names)))
        if sure:
            cells.append(sure[i])
        writer.writerow(map(no_formula, cells))
    return file.getvalue()


def write_text(path: Path, text: str) -> None:
    """Write beside `path`, then move into place.

    A name that is no valid Unicode (Linux allows such files) is written as JSON's escape.
    """
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")
