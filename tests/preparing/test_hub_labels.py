"""Labels in Parquet and in lists: missing, whole, many, and splits without any."""

from __future__ import annotations

import datetime
import io
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cliptune.cli import main
from cliptune.data.manifest import read_manifest
from cliptune.errors import DataError
from cliptune.preparing.prepare import PrepareResult, prepare
from cliptune.preparing.sources.hub_dataset import _class_name
from cliptune.preparing.sources.labels import label_text
from conftest import make_photos

CLASSES = ("Chow Chow", "pug", "toy poodle")
NUMBERS = [0, 1, 2] * 4


def content(color: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 16), (color, 90, 255 - color)).save(file, "PNG")
    return file.getvalue()


def save(path: Path, labels: list[Any] | None, kind: Any) -> None:
    """A Parquet file of photos as the hub has them, with these labels of that feature."""
    datasets = pytest.importorskip("datasets", reason="the extra 'hub' is not installed")
    datasets.disable_progress_bars()
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 6 if labels is None else len(labels)
    images = [{"bytes": content(10 * i), "path": f"{i}.png"} for i in range(count)]
    columns: dict[str, Any] = {"image": images}
    features = {"image": datasets.Image()}
    if labels is not None:
        columns["label"], features["label"] = labels, kind
    table = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    table.to_parquet(str(path))


@pytest.fixture
def kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The features of `datasets`, its cache in a folder of its own."""
    datasets = pytest.importorskip("datasets", reason="the extra 'hub' is not installed")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(logging.getLogger("cliptune"), "propagate", True)
    return datasets


def made(tmp_path: Path, **options: Any) -> PrepareResult:
    return prepare(tmp_path / "data", source=tmp_path / "src", progress=False, **options)


# --- one cell --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (3.0, "3"), (3, "3"), ("3", "3"), ("3.0", "3"), (np.float32(3), "3"), (np.int64(-1), "-1"),
        ("-2.00", "-2"), (-0.0, "0"), ("007", "007"), ("1.5", "1.5"), (0.5, "0.5"), (0, "0"),
        (True, "True"), ("True", "True"), (" pug ", "pug"), ("none", "none"), ("Nan", "Nan"),
        ("v1.0", "v1.0"), (1e15, "1000000000000000"), ("No", "No"),
    ],
)  # fmt: skip
def test_a_class_is_written_alike_whatever_type_its_cell_has(cell: Any, expected: str) -> None:
    assert label_text(cell) == expected


@pytest.mark.parametrize("cell", [None, float("nan"), np.float64("nan"), "", "  ", "nan", "<NA>"])
def test_a_missing_label_is_no_class(cell: Any) -> None:
    assert label_text(cell) is None


def test_pandas_own_missing_value_is_no_class() -> None:
    pandas = pytest.importorskip("pandas")
    assert label_text(pandas.NA) is None
    assert label_text(pandas.NaT) is None


@pytest.mark.parametrize("cell", [[0], [], {"id": 0}, (1, 2), b"pug", np.array([1, 2])])
def test_several_labels_are_refused_by_what_they_are(cell: Any) -> None:
    with pytest.raises(ValueError, match=f"a {type(cell).__name__}"):
        label_text(cell)


# --- Parquet ---------------------------------------------------------------------------------


def test_missing_labels_are_refused_with_split_and_rows(tmp_path: Path, kinds: Any) -> None:
    labels = [float("nan") if i in (0, 7) else float(x) for i, x in enumerate(NUMBERS)]
    save(tmp_path / "src" / "train.parquet", labels, kinds.Value("float64"))
    save(tmp_path / "src" / "test.parquet", NUMBERS, kinds.Value("int32"))
    with pytest.raises(DataError, match=r"(?s)train: 2 of 12 rows \(0, 7\).*--leave-out") as told:
        made(tmp_path)
    assert "test:" not in str(told.value)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("empty", [None, ""])
def test_empty_texts_and_nothing_are_missing_labels(
    tmp_path: Path, kinds: Any, empty: str | None
) -> None:
    save(tmp_path / "src.parquet", [empty, *"ab" * 6], kinds.Value("string"))
    with pytest.raises(DataError, match=r"train: 1 of 13 rows \(0\)"):
        prepare(tmp_path / "data", source=tmp_path / "src.parquet", progress=False)


def test_whole_floats_are_classes_without_a_fraction(tmp_path: Path, kinds: Any) -> None:
    save(tmp_path / "src" / "a.parquet", [float(x) for x in NUMBERS], kinds.Value("float32"))
    assert made(tmp_path).class_names == ("0", "1", "2")


def test_names_of_classes_may_have_spaces(tmp_path: Path, kinds: Any) -> None:
    save(tmp_path / "src" / "a.parquet", NUMBERS, kinds.ClassLabel(names=list(CLASSES)))
    assert made(tmp_path).class_names == CLASSES


@pytest.mark.parametrize("form", ["list", "list of names", "dictionary", "date"])
def test_what_is_no_single_label_is_refused_in_words(tmp_path: Path, kinds: Any, form: str) -> None:
    names = kinds.ClassLabel(names=list(CLASSES))
    labels, kind = {
        "list": ([[x] for x in NUMBERS], kinds.List(kinds.Value("int64"))),
        "list of names": ([[x, 0] for x in NUMBERS], kinds.List(names)),
        "dictionary": ([{"id": x} for x in NUMBERS], {"id": kinds.Value("int64")}),
        "date": ([datetime.date(2024, 11, 1 + x) for x in NUMBERS], kinds.Value("date32")),
    }[form]  # fmt: skip
    save(tmp_path / "src" / "a.parquet", labels, kind)
    with pytest.raises(DataError, match=r"'label' holds a \w+ \(.*one label for each photo"):
        made(tmp_path)


def test_numbers_without_a_name_are_refused(kinds: Any) -> None:
    names = kinds.ClassLabel(names=["a", "b"])
    assert _class_name(names, 1) == "b"
    assert _class_name(names, -1) is None
    with pytest.raises(ValueError, match="number 2, but has names for 0 to 1"):
        _class_name(names, 2)


@pytest.mark.parametrize("how", ["-1 of names", "-1", "none", "no column"])
def test_a_split_whose_labels_are_secret_is_left_out_and_this_is_said(
    tmp_path: Path, kinds: Any, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    kind = kinds.ClassLabel(names=list(CLASSES)) if how == "-1 of names" else kinds.Value("int64")
    save(tmp_path / "src" / "train-0.parquet", NUMBERS, kind)
    save(tmp_path / "src" / "validation-0.parquet", NUMBERS, kind)
    secret = {"none": [None] * 6, "no column": None}.get(how, [-1] * 6)
    save(tmp_path / "src" / "test-0.parquet", secret, kind)
    counts = made(tmp_path).counts
    assert sum(counts["val"].values()) == 12
    assert sum(counts["train"].values()) + sum(counts["test"].values()) == 12
    assert "left out the split 'test': none of its 6 photos has a label" in caplog.text


def test_a_dataset_without_any_label_is_refused(tmp_path: Path, kinds: Any) -> None:
    save(tmp_path / "src" / "a.parquet", [-1] * 6, kinds.ClassLabel(names=list(CLASSES)))
    with pytest.raises(DataError, match="no photo has a label"):
        made(tmp_path)


def test_a_split_can_be_left_out_by_its_name_or_ours(tmp_path: Path, kinds: Any) -> None:
    kind = kinds.Value("int64")
    save(tmp_path / "src" / "train.parquet", NUMBERS, kind)
    save(tmp_path / "src" / "validation.parquet", [None, *NUMBERS], kind)
    command = ["prepare", "--source", tmp_path / "src", "--output-dir", tmp_path / "by_cli"]
    with pytest.raises(SystemExit) as end:
        main([*map(str, command), "--leave-out", "validation"])
    assert not end.value.code
    result = made(tmp_path, leave_out=["val"])
    assert sum(sum(classes.values()) for classes in result.counts.values()) == len(NUMBERS)
    manifest = read_manifest(tmp_path / "data")
    assert manifest is not None
    assert manifest.options.leave_out == ["val"]
    with pytest.raises(
        DataError, match=r"--leave-out extra: no such split\. Its splits: train, val"
    ):
        prepare(tmp_path / "other", source=tmp_path / "src", leave_out=["extra"], progress=False)


def test_files_of_no_split_never_become_train(tmp_path: Path, kinds: Any) -> None:
    kind = kinds.Value("int64")
    for name in ("train_0", "test/0", "data-val-0"):
        save(tmp_path / "src" / f"{name}.parquet", NUMBERS, kind)
    save(tmp_path / "src" / "holdout-00000.parquet", NUMBERS, kind)
    with pytest.raises(DataError, match=r"(?s)no split beside.*holdout-0.*--leave-out holdout"):
        made(tmp_path)
    counts = made(tmp_path, leave_out=["holdout"]).counts
    assert {split: sum(classes.values()) for split, classes in counts.items()} == {
        "train": 12, "val": 12, "test": 12,
    }  # fmt: skip


# --- lists -----------------------------------------------------------------------------------


def listed(tmp_path: Path, rows: list[tuple[Any, str]], ending: str) -> Path:
    """A list of as many photos as `rows`, which are (label, split)."""
    photos = sorted((make_photos(tmp_path / "p", counts={"x": len(rows)})).rglob("amber*.png"))
    lines = [(str(p), *row) for p, row in zip(photos, rows, strict=True)]
    path = tmp_path / f"list{ending}"
    if ending == ".jsonl":
        text = "".join(
            json.dumps(dict(zip(("path", "label", "split"), line, strict=True))) + "\n"
            for line in lines
        )
    else:
        text = "path,label,split\n" + "".join(f"{p},{c},{s}\n" for p, c, s in lines)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_lists_write_classes_as_parquet_does(tmp_path: Path, ending: str) -> None:
    labels = [0.0, 1.0, 0, 1, "0", "1", "0.0", "1.0"]
    rows = [(label, "train") for label in labels] + [(0.0, "val"), ("1", "test")]
    result = prepare(tmp_path / "data", source=listed(tmp_path, rows, ending), progress=False)
    assert result.class_names == ("0", "1")


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
@pytest.mark.parametrize("missing", ["", "nan", None])
def test_missing_labels_of_a_list_are_faults_of_their_lines(
    tmp_path: Path, ending: str, missing: str | None
) -> None:
    if ending == ".csv" and missing is None:
        missing = "<NA>"
    rows = [("a", "train"), ("b", "train"), (missing, "train")]
    with pytest.raises(DataError, match=r"line [34]: no label for"):
        prepare(tmp_path / "data", source=listed(tmp_path, rows, ending), progress=False)


def test_many_labels_in_a_line_are_refused(tmp_path: Path) -> None:
    rows = [(["a", "b"], "train"), ("b", "train")]
    with pytest.raises(DataError, match=r"line 1: label is a list .*expected text or a number"):
        prepare(tmp_path / "data", source=listed(tmp_path, rows, ".jsonl"), progress=False)


def test_a_secret_split_of_a_list_is_left_out(tmp_path: Path) -> None:
    rows = [(c, "train") for c in "ab" * 5] + [("", "test")] * 3
    counts = prepare(tmp_path / "d", source=listed(tmp_path, rows, ".csv"), progress=False).counts
    assert sum(map(sum, (classes.values() for classes in counts.values()))) == 10
