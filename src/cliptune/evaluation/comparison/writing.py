"""Write a comparison to a folder: text, JSON, a table of all photos, and the page."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

from cliptune.data.multilabel import joined_labels
from cliptune.evaluation.comparison.comparison import Comparison
from cliptune.evaluation.comparison.multilabel import MultilabelComparison
from cliptune.evaluation.comparison.multilabel_page import multilabel_comparison_page
from cliptune.evaluation.comparison.multilabel_text import multilabel_comparison_text
from cliptune.evaluation.comparison.page import comparison_page
from cliptune.evaluation.comparison.text import comparison_text
from cliptune.evaluation.writing import write_text
from cliptune.text import no_formula


def write_comparison(
    comparison: Comparison | MultilabelComparison, output_dir: Path, command: str | None = None
) -> list[Path]:
    """Write the files of a comparison to `output_dir`, each moved into place whole.

    `command` is the line that compares the same again, for whoever reads the page.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    if isinstance(comparison, Comparison):
        text, photos = comparison_text(comparison), photos_csv(comparison)
        page = comparison_page(comparison, command)
    else:
        text, photos = multilabel_comparison_text(comparison), labels_csv(comparison)
        page = multilabel_comparison_page(comparison, command)
    contents = {
        "comparison.txt": text,
        "comparison.json": json.dumps(comparison.to_dict(), indent=2, ensure_ascii=False) + "\n",
        "comparison_photos.csv": photos,
        "comparison.html": page,
    }
    for name, content in contents.items():
        write_text(output_dir / name, content)
    return [output_dir / name for name in contents]


def photos_csv(comparison: Comparison) -> str:
    """One line for each photo: its file, its class, and each model's answer."""
    names, models = comparison.class_names, comparison.models
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(["image", "label", *(model.letter for model in models)])
    predicted_MN = [model.predicted_N for model in models]
    for i, path in enumerate(comparison.paths):
        predicted = [names[predicted_N[i]] for predicted_N in predicted_MN]
        writer.writerow(map(no_formula, [path, names[comparison.labels_N[i]], *predicted]))
    return file.getvalue()


def labels_csv(comparison: MultilabelComparison) -> str:
    """One line for each photo: its file, its labels, and those that each model tells."""
    names, models = comparison.class_names, comparison.models
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(["image", "labels", *(model.letter for model in models)])
    for i, path in enumerate(comparison.paths):
        told = [joined_labels(names, model.shown_NC[i]) for model in models]
        truth = joined_labels(names, comparison.targets_NC[i])
        writer.writerow(map(no_formula, [path, truth, *told]))
    return file.getvalue()
