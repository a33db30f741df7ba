"""The page of several labels in a browser: ten classes and many, a wide window and a narrow one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from browser import browser, wider_than_window
from cliptune.evaluation.multilabel.measured import MultilabelEvaluation, MultilabelPhotos
from cliptune.evaluation.multilabel.writing import write_multilabel_report
from cliptune.evaluation.statistics.label_answering import fit_label_answers
from cliptune.evaluation.statistics.multilabel import mean_ap_gain, multilabel_figures
from cliptune.model.label_answers import answered_labels


def measured(folder: Path, *, classes: int, photos: int = 150) -> MultilabelEvaluation:
    """An evaluation of drawn logits; the last class is on no photo."""
    rng = np.random.default_rng(0)
    names = tuple(f"a rather long name of class {place}" for place in range(classes))
    logits_NC = rng.normal(-2, 2, (photos, classes))
    targets_NC = logits_NC + rng.normal(0, 2, logits_NC.shape) > 0
    targets_NC[:, -1] = False
    answers = fit_label_answers(logits_NC, targets_NC)
    answered = answered_labels(answers, logits_NC)
    figures = multilabel_figures(
        answered.probabilities_NC, answered.shown_NC, targets_NC, seed=0, draws=50
    )
    Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(folder / "photo.png")
    paths = (folder / "photo.png",) * photos
    return MultilabelEvaluation(
        checkpoint="run/checkpoint-epoch-3", base_model="base", data_dir="data", split="test",
        class_names=names, display_names={name: name for name in names},
        missing_classes=names[-1:], ignored_labels=(), skipped_images=(), loss=0.5,
        figures=figures, baseline=figures.mean_ap,
        gain=mean_ap_gain(logits_NC, -logits_NC, targets_NC, seed=0, draws=50),
        baseline_classes=tuple(each.average_precision for each in figures.classes),
        answers=answers,
        photos=MultilabelPhotos(paths, targets_NC, answered.probabilities_NC, answered.shown_NC),
        seconds=1.0,
    )  # fmt: skip


@pytest.mark.parametrize("classes", [10, 120])
def test_the_page_fits_wide_and_narrow_windows_and_tells_each_class(
    classes: int, tmp_path: Path
) -> None:
    evaluation = measured(tmp_path, classes=classes)
    write_multilabel_report(evaluation, tmp_path / "report", command="cliptune evaluate …")
    for width in (1200, 400):
        with browser(tmp_path / f"profile-{width}", width=width) as chrome:
            chrome.get((tmp_path / "report" / "report.html").as_uri())
            assert not wider_than_window(chrome)
            cells = chrome.execute_script(
                "return [...document.querySelectorAll('.together tbody tr')].map(row =>"
                " [...row.children].map(cell => cell.textContent))"
            )
            assert len(cells) == classes
            counts = [[int(cell or 0) for cell in row[1:-1]] for row in cells]
            assert counts == evaluation.figures.together_CC.tolist()
            loaded = chrome.execute_script(
                "return [...document.images].every(x => x.complete && x.naturalWidth > 0)"
            )
            assert loaded
