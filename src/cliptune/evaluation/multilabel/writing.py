"""The files of an evaluation of several labels: text, JSON, a table of photos, and the page."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from cliptune.data.multilabel import joined_labels
from cliptune.data.reading import read_reduced
from cliptune.errors import ImageError
from cliptune.evaluation.multilabel.measured import MultilabelEvaluation
from cliptune.evaluation.multilabel.text import (
    ROWS,
    multilabel_report_text,
    notes,
    photos_in_words,
)
from cliptune.evaluation.seen import seen_in_words
from cliptune.evaluation.statistics.words import in_words, percent
from cliptune.evaluation.writing import write_text
from cliptune.html import picture, render
from cliptune.language import translated as _
from cliptune.text import no_formula

MISTAKES = 24
_EDGE = 200  # pixels of a photo


def write_multilabel_report(
    evaluation: MultilabelEvaluation, output_dir: Path, *, command: str = ""
) -> list[Path]:
    """Write the files to `output_dir`, each moved into place whole."""
    output_dir.mkdir(parents=True, exist_ok=True)
    contents = {
        "evaluation_report.txt": multilabel_report_text(evaluation),
        "evaluation_results.json": (
            json.dumps(evaluation.to_dict(), indent=2, ensure_ascii=False) + "\n"
        ),
        "evaluation_predictions.csv": predictions_csv(evaluation),
        "report.html": multilabel_page(evaluation, command=command),
    }
    for name, content in contents.items():
        write_text(output_dir / name, content)
    return [output_dir / name for name in contents]


def predictions_csv(evaluation: MultilabelEvaluation) -> str:
    """One line for each photo: its labels, those told, and the probability of each class."""
    photos, names = evaluation.photos, evaluation.class_names
    right_N = (photos.targets_NC == photos.shown_NC).all(axis=1)
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(map(no_formula, ["image", "labels", "told", "all_right", *names]))
    for place, path in enumerate(photos.paths):
        cells = [
            path,
            joined_labels(names, photos.targets_NC[place]),
            joined_labels(names, photos.shown_NC[place]),
            str(right_N[place]).lower(),
            *(f"{value:.6f}" for value in photos.probabilities_NC[place]),
        ]  # fmt: skip
        writer.writerow(map(no_formula, cells))
    return file.getvalue()


def multilabel_page(evaluation: MultilabelEvaluation, *, command: str) -> str:
    """`report.html` of several labels: one self-contained page, with photos."""
    figures = evaluation.figures
    rows = [
        (
            _(title), _(meaning),
            in_words(evaluation.baseline, percent)
            if name == "mean_ap" and evaluation.baseline is not None else "–",
            in_words(getattr(figures, name), percent),
        )
        for title, name, meaning in ROWS
    ]  # fmt: skip
    most = max((count for row in figures.together_CC.tolist() for count in row), default=0)
    return render(
        "multilabel.html",
        evaluation=evaluation,
        photos=photos_in_words(evaluation.num_images, evaluation.num_groups),
        rows=rows,
        notes=notes(evaluation),
        seen=seen_in_words(evaluation.seen, split=evaluation.split),
        classes=_class_rows(evaluation),
        together=[
            (name, each.photos, cells)
            for name, each, cells in zip(
                evaluation.display_names.values(), figures.classes, figures.together_CC.tolist(),
                strict=True,
            )
        ],
        most=max(1, most),
        mistakes=_mistakes(evaluation),
        percent=percent,
        command=command,
    )  # fmt: skip


def _class_rows(evaluation: MultilabelEvaluation) -> list[dict[str, object]]:
    return [
        {"name": evaluation.display_names[name], "figures": each, "zero": zero, "from": threshold}
        for name, each, zero, threshold in zip(
            evaluation.class_names, evaluation.figures.classes, evaluation.baseline_classes,
            evaluation.answers.thresholds, strict=True,
        )
    ]  # fmt: skip


def _mistakes(evaluation: MultilabelEvaluation) -> list[dict[str, object]]:
    """The photos whose surest wrong answer is the surest, each with what is wrong."""
    photos, names = evaluation.photos, list(evaluation.display_names.values())
    wrong_NC = photos.shown_NC != photos.targets_NC
    thresholds_C = evaluation.answers.thresholds_C
    sure_N = np.where(wrong_NC, np.abs(photos.probabilities_NC - thresholds_C), -1.0).max(axis=1)
    order = [place for place in np.argsort(-sure_N, kind="stable") if sure_N[place] >= 0]
    return [
        {
            "file": photos.paths[place],
            "picture": _thumbnail(photos.paths[place]),
            "classes": [
                (names[label], float(photos.probabilities_NC[place, label]),
                 bool(photos.targets_NC[place, label]), bool(photos.shown_NC[place, label]))
                for label in np.argsort(-photos.probabilities_NC[place], kind="stable")
                if photos.targets_NC[place, label] or photos.shown_NC[place, label]
            ],
        }
        for place in order[:MISTAKES]
    ]  # fmt: skip


def _thumbnail(path: Path) -> str:
    """A data URI; "" for a photo that is gone."""
    try:
        pixels = read_reduced(path, edge=_EDGE, resample=Image.Resampling.BILINEAR)
    except ImageError:
        return ""
    return picture(Image.fromarray(pixels), edge=_EDGE)
