"""labels.csv: any number of labels to a photo."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from cliptune.data.folder import without
from cliptune.data.multilabel import (
    LABELS_FILE,
    has_several_labels,
    labels_in,
    load_multilabel_split,
    load_multilabel_training,
    parted,
    read_labels,
    targets_of,
    write_labels,
)
from cliptune.errors import DataError


def write_split(folder: Path, rows: dict[str, list[str]]) -> Path:
    """Empty files of these names, and their labels."""
    folder.mkdir(parents=True)
    for name in rows:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    write_labels(folder / LABELS_FILE, rows)
    return folder


def many(number: int) -> dict[str, list[str]]:
    rng = np.random.default_rng(0)
    return {
        f"{i:03d}.jpg": [label for label in "abcd" if rng.random() < 0.3] for i in range(number)
    }


def test_what_is_written_is_read_again_with_its_photos_without_a_label(tmp_path: Path) -> None:
    rows = {"x/1.jpg": ["ein hund", "katze"], "2.png": [], "3.jpg": ["katze"]}
    found = read_labels(write_split(tmp_path / "train", rows))
    assert {path.relative_to(tmp_path / "train").as_posix(): list(v) for path, v in found.items()} \
        == rows  # fmt: skip


def test_labels_are_clean_and_each_once() -> None:
    assert labels_in(" cat |dog|cat|| ") == ("cat", "dog")
    assert labels_in("Cafe\u0301|Caf\u00e9") == ("Caf\u00e9",)
    assert labels_in("") == ()


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("../2.jpg,a", "path below"),
        ("gone.jpg,a", "no such file"),
        ("1.jpg,b", "listed twice"),
        ("a.txt,b", "expected a photo"),
    ],
)
def test_a_line_that_cannot_be_meant_is_told_with_its_number(
    line: str, fault: str, tmp_path: Path
) -> None:
    folder = write_split(tmp_path / "train", {"1.jpg": ["a"]})
    (tmp_path / "2.jpg").touch()
    with (folder / LABELS_FILE).open("a", encoding="utf-8", newline="") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match=f"line 3: .*{fault}"):
        read_labels(folder)


def test_other_columns_are_refused_by_name(tmp_path: Path) -> None:
    folder = write_split(tmp_path / "train", {"1.jpg": ["a"]})
    (folder / LABELS_FILE).write_text("file,tags\n1.jpg,a\n", encoding="utf-8", newline="\n")
    with pytest.raises(DataError, match=r"file.*expected path and labels"):
        read_labels(folder)


def test_val_with_a_label_that_train_lacks_is_refused_with_what_was_meant(tmp_path: Path) -> None:
    write_split(tmp_path / "train", {"1.jpg": ["beagle"], "2.jpg": ["boxer"]})
    write_split(tmp_path / "val", {"3.jpg": ["beagel"]})
    with pytest.raises(DataError, match=r"'beagel'\. Did you mean 'beagle'\?"):
        load_multilabel_training(tmp_path, val_ratio=0.1, seed=0)


def test_without_val_each_class_is_shared_out_and_no_photo_is_in_both(tmp_path: Path) -> None:
    write_split(tmp_path / "train", many(200))
    train, val = load_multilabel_training(tmp_path, val_ratio=0.25, seed=1)
    assert len(train) + len(val) == 200
    assert not {s.path for s in train.samples} & {s.path for s in val.samples}
    of_train, of_val = targets_of(train).sum(axis=0), targets_of(val).sum(axis=0)
    assert np.abs(of_val / (of_train + of_val) - 0.25).max() < 0.03
    again = load_multilabel_training(tmp_path, val_ratio=0.25, seed=1)
    assert again == (train, val)
    assert load_multilabel_training(tmp_path, val_ratio=0.25, seed=2) != again


def test_parts_take_each_class_as_evenly_as_counts_allow() -> None:
    rng = np.random.default_rng(0)
    targets_NC = rng.random((997, 12)) < np.linspace(0.01, 0.5, 12)
    parts_N = parted(targets_NC, np.full(5, 0.2), seed=0)
    by_part = np.stack([targets_NC[parts_N == part].sum(axis=0) for part in range(5)])
    fifth_C = targets_NC.sum(axis=0) / 5
    assert (np.abs(by_part - fifth_C) <= 1 + 0.1 * fifth_C).all()
    assert np.abs(np.bincount(parts_N) - 997 / 5).max() <= 8
    rarest = targets_NC[:, 0]
    assert np.ptp(np.bincount(parts_N[rarest], minlength=5)) <= 1


def test_groups_go_to_one_part_whole_and_classes_are_shared_out_as_they_allow() -> None:
    rng = np.random.default_rng(0)
    groups_N = rng.integers(0, 150, 900)
    targets_NC = rng.random((150, 6))[groups_N] < np.linspace(0.1, 0.5, 6)
    shares_P = np.array([0.7, 0.15, 0.15])
    parts_N = parted(targets_NC, shares_P, seed=0, groups_N=groups_N)
    assert all(len(set(parts_N[groups_N == group])) == 1 for group in set(groups_N))
    of_parts = np.stack([targets_NC[parts_N == part].sum(axis=0) for part in range(3)])
    assert np.abs(of_parts / of_parts.sum(axis=0) - shares_P[:, None]).max() < 0.05
    # By chance alone, whole groups go astray further.
    by_chance = rng.choice(3, 150, p=shares_P)[groups_N]
    astray = np.stack([targets_NC[by_chance == part].sum(axis=0) for part in range(3)])
    assert np.abs(astray / astray.sum(axis=0) - shares_P[:, None]).max() > 0.05


def test_groups_of_one_photo_are_no_groups_whatever_their_numbers() -> None:
    rng = np.random.default_rng(1)
    targets_NC = rng.random((97, 5)) < 0.3
    shares_P = np.full(4, 0.25)
    expected_N = parted(targets_NC, shares_P, seed=3)
    assert (parted(targets_NC, shares_P, seed=3, groups_N=rng.permutation(97)) == expected_N).all()


def test_a_label_the_model_does_not_know_is_listed_and_counts_for_nothing(tmp_path: Path) -> None:
    write_split(tmp_path / "test", {"1.jpg": ["a", "z"], "2.jpg": ["z"]})
    split = load_multilabel_split(tmp_path, "test", class_names=["a", "b"])
    assert (split.extra_classes, split.missing_classes) == (("z",), ("b",))
    assert targets_of(split).tolist() == [[True, False], [False, False]]
    left = without(split, {tmp_path / "test" / "1.jpg"})
    assert targets_of(left).tolist() == [[False, False]]


def test_photos_beside_the_list_are_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_split(tmp_path / "test", {"1.jpg": ["a"]})
    (folder / "other.jpg").touch()
    with caplog.at_level(logging.WARNING):
        load_multilabel_split(tmp_path, "test", class_names=["a", "b"])
    assert "1 photo that labels.csv does not list" in caplog.text
    assert "other.jpg" in caplog.text


def test_the_task_is_found_from_the_data_and_may_be_said(tmp_path: Path) -> None:
    write_split(tmp_path / "several" / "train", {"1.jpg": ["a"]})
    (tmp_path / "single" / "train" / "a").mkdir(parents=True)
    assert has_several_labels(tmp_path / "several", "auto")
    assert not has_several_labels(tmp_path / "single", "auto")
    assert not has_several_labels(tmp_path / "several", "single")
    other = tmp_path / "single" / "train" / "labels.csv"  # somebody's own, beside class folders
    other.write_text("id,breed\n1,a\n", encoding="utf-8", newline="\n")
    assert not has_several_labels(tmp_path / "single", "auto")
    with pytest.raises(DataError, match=r"none of its splits holds labels\.csv"):
        has_several_labels(tmp_path / "single", "multilabel")
