"""Tables that are written: what a program reads back, and what a spreadsheet must not run."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cliptune import Prediction
from cliptune.data.reading import Unreadable
from cliptune.evaluation.comparison.comparison import Comparison, build_differences, build_model
from cliptune.evaluation.comparison.writing import photos_csv
from cliptune.evaluation.report import build_evaluation
from cliptune.evaluation.writing import predictions_csv
from cliptune.inference.output import open_output
from cliptune.inference.predictor import ClassScore
from cliptune.model.answers import Answers
from cliptune.text import no_formula

NAMES = ("-1", "+1", "-0.5", "1e5", "dog, small", 'a "b"', "two\nlines", "a\u2028b", "NA", "001")
FORMULAS = ("=1+1", "@SUM(A1)", "+cmd|' /C calc'!A0", "-2+3", "\t=1", " =1", "\uff1d1", "-dog")


def predicted(path: Path, names: tuple[str, ...], *, known_score: float | None = -0.004) -> Path:
    """A CSV file with one photo for each of `names`, by this score not known."""
    with open_output(path, top_k=2) as write:
        for name in names:
            scores = ClassScore(name, 0.75, name), ClassScore("other", 0.25, "other")
            write(Prediction(scores, f"{name}.jpg", known=False, known_score=known_score))
    return path


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_numbers_below_zero_are_read_back_as_numbers(tmp_path: Path) -> None:
    path = predicted(tmp_path / "out.csv", NAMES)
    assert {float(row["known_score"]) for row in rows_of(path)} == {-0.004}
    table = pd.read_csv(path)
    for column in ("known_score", "probability_1", "probability_2"):
        assert table[column].dtype == float
    assert (table["known_score"] == -0.004).all()
    assert not table["known"].any()


def test_labels_are_read_back_as_the_names_of_the_classes(tmp_path: Path) -> None:
    path = predicted(tmp_path / "out.csv", NAMES)
    assert [row["label_1"] for row in rows_of(path)] == list(NAMES)
    table = pd.read_csv(path, dtype={"label_1": str}, keep_default_na=False)
    assert table["label_1"].tolist() == list(NAMES)


def test_what_is_not_known_is_an_empty_cell(tmp_path: Path) -> None:
    path = predicted(tmp_path / "out.csv", ("dog",), known_score=None)
    with open_output(path, top_k=2) as write:
        write(Prediction((ClassScore("dog", 1.0, "dog"),), "a.jpg"))
        write(Unreadable(Path("b.jpg"), "the file is empty"))
    first, second = rows_of(path)
    assert first["known_score"] == first["label_2"] == first["error"] == ""
    assert second["error"] == "the file is empty"
    assert pd.read_csv(path)["known_score"].isna().all()


@pytest.mark.parametrize("name", FORMULAS)
def test_no_spreadsheet_takes_a_name_or_a_reason_for_a_formula(tmp_path: Path, name: str) -> None:
    path = predicted(tmp_path / "out.csv", (name,))
    (row,) = rows_of(path)
    assert row["label_1"] == f"'{name}"
    assert row["image"] == f"'{name}.jpg"
    with open_output(path, top_k=1) as write:
        write(Unreadable(Path(name), name))
    (row,) = rows_of(path)
    assert (row["image"], row["error"]) == (f"'{name}", f"'{name}")


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(FORMULAS))
def test_one_apostrophe_off_a_formula_gives_every_text_back(text: str) -> None:
    written = no_formula(text)
    taken_off = written[1:] if written.startswith("'") else written
    assert text in (written, taken_off)
    # Whether one is to be taken off is told by what is written alone.
    was_guarded = written.startswith("'") and no_formula(taken_off) == written
    assert (taken_off if was_guarded else written) == text


@given(st.floats() | st.integers())
def test_no_number_is_taken_for_a_formula(number: float) -> None:
    assert no_formula(number) == str(number)
    if np.isfinite(float(number)):
        assert no_formula(f"{number:.6f}") == f"{number:.6f}"


def test_a_path_that_is_no_unicode_is_written(tmp_path: Path) -> None:
    for ending in ("csv", "txt", "json", "jsonl"):
        with open_output(tmp_path / f"out.{ending}", top_k=1) as write:
            write(Prediction((ClassScore("a", 1.0, "a"),), "\udcff.jpg"))
        assert ".jpg" in (tmp_path / f"out.{ending}").read_text(encoding="utf-8")


def test_the_tables_of_evaluate_and_compare_hold_the_names_of_the_classes(tmp_path: Path) -> None:
    names, labels = ("-1", "+1", "=cmd()"), np.array([0, 1, 2, 0])
    logits = np.eye(3)[[0, 1, 2, 1]]
    answers = Answers(
        temperature=1.0, score="energy", threshold=0.0, share=0.95, kept=1.0, num_images=4
    )
    paths = tuple(Path(f"-{i}.jpg") for i in range(4))
    evaluation = build_evaluation(
        logits_NC=logits, labels_N=labels, baseline_logits_NC=logits, class_names=names,
        answers=answers, paths=paths, known_scores_N=np.array([-0.25, -1, 0.5, -1e-7]),
        checkpoint="", base_model="", data_dir="", split="test", missing_classes=(),
        ignored_classes=(), skipped_images=(), seconds=1.0,
    )  # fmt: skip
    table = pd.read_csv(io.StringIO(predictions_csv(evaluation)))
    assert table["known_score"].tolist() == [-0.25, -1, 0.5, 0]
    assert table["label"].tolist() == ["-1", "+1", "'=cmd()", "-1"]
    assert table["predicted"].tolist() == table["zero_shot"].tolist()
    assert table["predicted"].tolist() == ["-1", "+1", "'=cmd()", "+1"]
    models = [
        build_model(logits, labels, letter=letter, checkpoint="", base_model="",
                    training_data="", answers=None)
        for letter in "AB"
    ]  # fmt: skip
    comparison = Comparison(
        models=tuple(models), differences=build_differences(models, [logits] * 2, labels),
        class_names=names, display_names={name: name for name in names}, data_dir="",
        split="test", missing_classes=(), ignored_classes=(), skipped_images=(), paths=paths,
        labels_N=labels, seconds=1.0,
    )  # fmt: skip
    told = list(csv.DictReader(io.StringIO(photos_csv(comparison), newline="")))
    assert [row["label"] for row in told] == ["-1", "+1", "'=cmd()", "-1"]
    assert [row["A"] for row in told] == [row["B"] for row in told] == table["predicted"].tolist()
    assert [row["image"] for row in told] == [f"'-{i}.jpg" for i in range(4)]
