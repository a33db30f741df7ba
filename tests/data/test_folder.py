from __future__ import annotations

from pathlib import Path

import pytest

from cliptune.data.folder import load_split, load_training_splits
from cliptune.errors import DataError
from conftest import make_photos


def test_any_letter_case_of_an_ending_is_found(tmp_path: Path) -> None:
    make_photos(tmp_path, counts={"train": 1, "val": 1})
    folder = tmp_path / "train" / "blue"
    source = folder / "blue_0.png"
    for name in ("A.JPG", "b.JpEg", "c.PNG", "d.webp", "e.Bmp", "f.txt", ".hidden.png"):
        (folder / name).write_bytes(source.read_bytes())
    train, _ = load_training_splits(tmp_path, val_ratio=0.1, seed=0)
    names = [s.path.name for s in train.samples if s.label == 1]
    assert names == ["A.JPG", "b.JpEg", "blue_0.png", "c.PNG", "d.webp", "e.Bmp"]


def test_class_names_stand_in_sorted_order_and_labels_follow(tmp_path: Path) -> None:
    make_photos(tmp_path, counts={"train": 2, "val": 1}, classes=("b", "a", "C"))
    train, val = load_training_splits(tmp_path, val_ratio=0.1, seed=0)
    assert train.class_names == val.class_names == ("C", "a", "b")
    for sample in (*train.samples, *val.samples):
        assert train.class_names[sample.label] == sample.path.parent.name


def test_val_taken_from_train_is_deterministic_and_disjoint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_photos(tmp_path, counts={"train": 10})
    with caplog.at_level("INFO", logger="cliptune"):
        splits = [load_training_splits(tmp_path, val_ratio=0.2, seed=s) for s in (1, 1, 2)]
    assert splits[0] == splits[1]
    assert splits[0] != splits[2]
    train, val = splits[0]
    assert not set(train.samples) & set(val.samples)
    assert len(set(train.samples) | set(val.samples)) == 30
    assert [sum(s.label == c for s in val.samples) for c in range(3)] == [2, 2, 2]
    assert "no val/ folder: 6 of its 30 training photos serve as val" in caplog.text


def test_labels_of_a_split_follow_names_not_positions(tmp_path: Path) -> None:
    make_photos(tmp_path, counts={"test": 1}, classes=("b", "d", "a"))
    split = load_split(tmp_path, "test", class_names=("d", "c", "b"))
    assert [(s.path.parent.name, s.label) for s in split.samples] == [("d", 0), ("b", 2)]
    assert split.missing_classes == ("c",)
    assert split.extra_classes == ("a",)


def test_every_fault_of_a_folder_is_named_at_once(tmp_path: Path) -> None:
    make_photos(tmp_path, counts={"train": 1, "val": 1}, classes=("a", "b"))
    (tmp_path / "train" / "empty").mkdir()
    make_photos(tmp_path, counts={"val": 1}, classes=("stranger",))
    with pytest.raises(DataError) as caught:
        load_training_splits(tmp_path, val_ratio=0.1, seed=0)
    message = str(caught.value)
    assert "train/empty: no image" in message
    assert "val/stranger: a class that train/ lacks" in message


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda d: None, "no such folder"),
        (lambda d: (d / "data").mkdir(), "no train/ folder"),
        (lambda d: (d / "data" / "train").mkdir(parents=True), "no class folders"),
        (lambda d: (d / "data" / "train" / "a").mkdir(parents=True), "hold no photos yet"),
        (lambda d: make_photos(d / "data", counts={"train": 1}, classes=("a",)), "only one class"),
        (lambda d: (d / "data").write_text(""), "this is a file"),
        (lambda d: (d / "data" / "beagle").mkdir(parents=True), "cliptune prepare --source"),
    ],
)
def test_a_folder_that_cannot_be_used_is_explained(tmp_path: Path, make, words: str) -> None:  # type: ignore[no-untyped-def]
    make(tmp_path)
    with pytest.raises(DataError, match=words):
        load_training_splits(tmp_path / "data", val_ratio=0.1, seed=0)
