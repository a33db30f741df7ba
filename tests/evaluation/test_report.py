"""Reports and pictures where names, logits or files are not as one would wish."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.font_manager import fontManager
from PIL import Image
from sklearn.metrics import classification_report as scikit_report

from cliptune.errors import CheckpointError
from cliptune.evaluation.plots import plot_confusion_matrix
from cliptune.evaluation.report import Evaluation, build_evaluation
from cliptune.evaluation.report_text import report_text
from cliptune.evaluation.statistics.metrics import (
    class_keys,
    classification_report,
    split_metrics,
    top_k_accuracy,
)
from cliptune.evaluation.writing import write_report


def evaluation_of(
    names: tuple[str, ...], logits: np.ndarray, labels: np.ndarray, **changes: Any
) -> Evaluation:
    facts: dict[str, Any] = {
        "baseline_logits_NC": None,
        "checkpoint": "run/checkpoint-epoch-1",
        "base_model": "openai/clip-vit-base-patch32",
        "data_dir": "data/dogs",
        "split": "test",
        "missing_classes": (),
        "ignored_classes": (),
        "skipped_images": (),
        "seconds": 2.0,
    }
    return build_evaluation(
        logits_NC=logits, labels_N=labels, class_names=names, **(facts | changes)
    )


def square_font(path: Path, *, family: str, characters: str) -> Path:
    """A font file whose `characters` are all drawn as one black square."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 800), (900, 800), (900, 0)):
        pen.lineTo(corner)
    pen.closePath()
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder([".notdef", "square"])
    font.setupCharacterMap({ord(c): "square" for c in characters})
    font.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "square": pen.glyph()})
    font.setupHorizontalMetrics({".notdef": (1000, 0), "square": (1000, 0)})
    font.setupHorizontalHeader(ascent=900, descent=-100)
    font.setupNameTable({"familyName": family, "styleName": "Regular"})
    font.setupOS2(sTypoAscender=900, usWinAscent=900, usWinDescent=100)
    font.setupPost()
    font.save(path)
    return path


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("L"))


@given(st.integers(2, 7), st.integers(1, 30), st.integers(0, 1000))
def test_the_report_is_that_of_scikit_learn_even_where_classes_have_no_photo(
    classes: int, photos: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    labels, predicted = rng.integers(0, classes, (2, photos))
    names = [f"breed {i}" for i in range(classes)]
    ours = classification_report(labels, predicted, names)
    theirs = scikit_report(
        [names[i] for i in labels], [names[i] for i in predicted],
        labels=names, output_dict=True, zero_division=0,
    )  # fmt: skip
    assert ours == theirs
    assert ours["accuracy"] == pytest.approx((labels == predicted).mean())
    assert json.loads(json.dumps(ours)) == ours


def test_classes_named_like_the_reports_own_rows_corrupt_nothing(tmp_path: Path) -> None:
    names = ("accuracy", "macro avg", "accuracy (class)")
    labels = np.array([0, 0, 1, 1, 2, 2])
    evaluation = evaluation_of(names, np.eye(3)[[0, 0, 1, 2, 2, 2]], labels)
    write_report(evaluation, tmp_path)
    report = json.loads((tmp_path / "evaluation_results.json").read_text())["classification_report"]
    assert report["accuracy"] == pytest.approx(5 / 6)
    assert len(set(class_keys(names))) == 3
    assert [report[key]["recall"] for key in class_keys(names)] == [1, 0.5, 1]
    assert report["macro avg"]["recall"] == pytest.approx(2.5 / 3)


def test_logits_that_are_no_numbers_earn_no_credit_and_are_refused_in_words() -> None:
    labels = np.array([0, 1, 2])
    logits = np.eye(3)[labels]
    logits[1, 2] = np.nan
    assert top_k_accuracy(logits, labels, k=1) == pytest.approx(2 / 3)
    assert top_k_accuracy(np.full((3, 3), np.nan), labels, k=2) == 0
    with pytest.raises(CheckpointError, match=r"checkpoint-epoch-1: .* 1 of 3 photos"):
        evaluation_of(("a", "b", "c"), logits, labels)


def test_a_split_without_photos_has_no_metrics() -> None:
    empty = np.zeros((0, 3)), np.zeros(0, dtype=np.int64)
    with pytest.raises(ValueError, match="no photo"):
        split_metrics(*empty)
    with pytest.raises(ValueError, match="no photo"):
        evaluation_of(("a", "b", "c"), *empty)


def test_the_gain_is_the_difference_in_fractions_on_the_same_photos() -> None:
    labels = np.array([0, 1, 2, 3])
    tuned, zero_shot = np.eye(4)[labels], np.eye(4)[[0, 0, 0, 0]]
    names = ("a", "b", "c", "d")
    results = evaluation_of(names, tuned, labels, baseline_logits_NC=zero_shot).to_dict()
    assert results["baseline"]["figures"]["accuracy"]["value"] == 0.25
    assert results["improvement"] == {"accuracy": 0.75, "top5": None}
    alone = evaluation_of(names, tuned, labels)
    assert alone.to_dict()["baseline"] is None
    assert alone.to_dict()["improvement"] is None
    assert "saw the same photos" not in report_text(alone)


def shares_of(told: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], float]]:
    """(keys, number) of everything in a file of results that is a share, or a gain in one."""
    entries = enumerate(told) if isinstance(told, list) else told.items()
    for key, value in entries:
        here = (*path, str(key))
        if isinstance(value, (dict, list)):
            yield from shares_of(value, here)
        elif isinstance(value, (int, float)) and SHARES & {*here} and not NO_SHARES & {*here}:
            yield here, value


SHARES = {
    "accuracy", "top5_accuracy", "top5", "macro_f1", "balanced_accuracy", "ece", "ece_plug_in",
    "precision", "recall", "f1-score", "share", "confidence", "from", "to", "improvement",
    "accuracy_difference", "macro_f1_difference", "accuracy_interval_95", "improvement_in_points",
}  # fmt: skip
NO_SHARES = {"support", "mcnemar_p", "num_images"}


@pytest.mark.parametrize("classes", [2, 4, 5, 7])
def test_shares_are_fractions_but_for_the_two_that_the_file_says_are_percent(classes: int) -> None:
    rng = np.random.default_rng(classes)
    labels = np.repeat(np.arange(classes), 12)
    tuned, zero_shot = (rng.normal(size=(len(labels), classes)) for _ in range(2))
    tuned[np.arange(len(labels)), labels] += 2
    names = tuple(f"breed {i}" for i in range(classes))
    told = evaluation_of(names, tuned, labels, baseline_logits_NC=zero_shot).to_dict()
    told = json.loads(json.dumps(told))
    assert told["format_version"] == 2
    assert told["units"]["shares"] == "fraction of 1"
    assert told["units"]["except"] == {"accuracy": "percent", "top5_accuracy": "percent"}
    percent = {(key,) for key in told["units"]["except"]}
    found = dict(shares_of({key: told[key] for key in told if key != "units"}))
    assert len(found) > 50
    assert all(-1 <= value <= 1 for keys, value in found.items() if keys not in percent)
    assert found["accuracy",] == pytest.approx(100 * found["figures", "accuracy", "value"])
    if classes >= 5:
        assert found["top5_accuracy",] == pytest.approx(100 * found["figures", "top5", "value"])


def test_confused_pairs_are_told_in_words() -> None:
    labels = np.repeat([0, 1], 20)
    predicted = np.where(np.arange(40) < 5, 1, labels)
    text = report_text(evaluation_of(("eskimo_dog", "malamute"), np.eye(2)[predicted], labels))
    assert "eskimo dog taken for malamute: 5 of 20" in text


def test_names_that_are_no_valid_unicode_survive_the_report(tmp_path: Path) -> None:
    labels = np.array([0, 1])
    names = ("\udcff\udcfe", "b")  # how Python reads a folder's name in another encoding
    evaluation = evaluation_of(names, np.eye(2), labels, skipped_images=("a\udcff.jpg",))
    write_report(evaluation, tmp_path)
    results = json.loads((tmp_path / "evaluation_results.json").read_text(encoding="utf-8"))
    assert tuple(results["class_names"]) == names
    (tmp_path / "evaluation_report.txt").read_text(encoding="utf-8")


def test_chinese_names_are_drawn_in_an_installed_chinese_font(tmp_path: Path) -> None:
    def draw() -> np.ndarray:
        path = tmp_path / "matrix.png"
        plot_confusion_matrix(np.array([[1, 0], [1, 2]]), ("狗", "dog"), path, title="")
        return pixels(path)

    without = draw()
    known = list(fontManager.ttflist)
    fontManager.addfont(square_font(tmp_path / "simhei.ttf", family="SimHei", characters="狗"))
    try:
        with_font = draw()
    finally:
        fontManager.ttflist[:] = known
    assert (with_font < 50).sum() > (without < 50).sum() + 200  # two black squares of 9 points


@pytest.mark.parametrize("classes", [2, 3, 10, 40])
def test_nothing_of_a_confusion_matrix_is_cut_off_at_its_edges(
    tmp_path: Path, classes: int
) -> None:
    names = ["ab"[i % 2] for i in range(classes)]
    path = tmp_path / "matrix.png"
    plot_confusion_matrix(np.eye(classes, dtype=int), names, path, title="")
    drawn = pixels(path)
    for edge in (drawn[0], drawn[-1], drawn[:, 0], drawn[:, -1]):
        assert edge.min() == 255  # white


def test_dollars_in_names_are_letters_and_no_formula(tmp_path: Path) -> None:
    broken_formula = r"$\no$"  # as a formula, matplotlib raises
    plot_confusion_matrix(np.eye(2, dtype=int), (broken_formula, "b"), tmp_path / "m.png", title="")
    assert pixels(tmp_path / "m.png").std() > 0


def test_a_picture_that_cannot_be_written_leaves_no_part_behind(tmp_path: Path) -> None:
    (tmp_path / "m.png").mkdir()
    with pytest.raises(OSError, match=r"m\.png"):
        plot_confusion_matrix(np.eye(2, dtype=int), ("a", "b"), tmp_path / "m.png", title="")
    assert [path.name for path in tmp_path.iterdir()] == ["m.png"]


def test_cells_without_photos_are_blank_and_a_single_mistake_is_seen(tmp_path: Path) -> None:
    matrix = 100 * np.eye(40, dtype=int)
    plot_confusion_matrix(matrix, [f"c{i}" for i in range(40)], tmp_path / "a.png", title="")
    matrix[3, 30] = 1
    plot_confusion_matrix(matrix, [f"c{i}" for i in range(40)], tmp_path / "b.png", title="")
    clean, mistaken = pixels(tmp_path / "a.png"), pixels(tmp_path / "b.png")
    changed = clean != mistaken
    assert 100 < changed.sum() < 600  # one cell of 0.125 inches at 150 dpi: 19 x 19 pixels
    assert np.median(clean[changed]) == 255
    assert np.median(mistaken[changed]) < 240
