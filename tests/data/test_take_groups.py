"""Setting whole groups apart, as near to a share of each class as groups allow."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cliptune.data.folder import load_training_splits
from cliptune.data.groups import groups_of, take_groups
from cliptune.data.manifest import MANIFEST
from cliptune.errors import DataError
from sources import write

photos_of_groups = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 11)), min_size=2, max_size=60
).map(np.array)


def write_record(folder: Path, groups: dict[str, str]) -> None:
    record = {
        "cliptune": "1", "source": {"name": "x", "kind": "folders", "splits": "random"},
        "options": {}, "seed": 42, "counts": {}, "files": {}, "groups": groups,
    }  # fmt: skip
    (folder / MANIFEST).write_text(json.dumps(record), encoding="utf-8")


@settings(deadline=None, max_examples=60)
@given(photos_of_groups, st.floats(0.05, 0.6), st.integers(0, 3), st.integers(1, 2))
def test_no_group_is_parted_and_no_class_is_emptied(
    rows: np.ndarray, share: float, seed: int, leave: int
) -> None:
    labels_N, groups_N = rows.T
    labels_N = np.unique(labels_N, return_inverse=True)[1]
    out_N = take_groups(labels_N, groups_N, share=share, seed=seed, leave=leave)
    assert not set(groups_N[out_N]) & set(groups_N[~out_N])
    for label in range(labels_N.max() + 1):
        own = labels_N == label
        groups = len(set(groups_N[own]))
        assert len(set(groups_N[own & ~out_N])) >= min(leave, groups)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.lists(st.integers(1, 6), min_size=2, max_size=9), min_size=2, max_size=6),
    st.floats(0.05, 0.6),
    st.integers(0, 3),
)
def test_where_groups_are_of_one_class_each_class_of_two_has_some_on_both_sides(
    sizes: list[list[int]], share: float, seed: int
) -> None:
    groups = [(label, size) for label, own in enumerate(sizes) for size in own]
    counts = [size for _, size in groups]
    labels_N = np.repeat([label for label, _ in groups], counts)
    groups_N = np.repeat(np.arange(len(groups)), counts)
    out_N = take_groups(labels_N, groups_N, share=share, seed=seed)
    for label in range(len(sizes)):
        assert set(out_N[labels_N == label]) == {False, True}


def test_shares_are_near_what_was_asked_where_groups_are_many_and_small() -> None:
    rng = np.random.default_rng(0)
    groups_N = np.repeat(np.arange(400), rng.integers(1, 6, 400))
    labels_N = rng.integers(0, 4, 400)[groups_N]
    for share in (0.1, 0.15, 0.3):
        out_N = take_groups(labels_N, groups_N, share=share, seed=0)
        for label in range(4):
            assert out_N[labels_N == label].mean() == pytest.approx(share, abs=0.03)


def test_a_group_of_most_photos_is_not_set_apart() -> None:
    groups_N = np.array([0] * 60 + [i for i in range(1, 13) for _ in range(3)])
    labels_N = np.arange(len(groups_N)) % 2
    for seed in range(10):
        out_N = take_groups(labels_N, groups_N, share=0.15, seed=seed)
        assert not out_N[groups_N == 0].any()
        assert out_N.any()


def test_the_seed_decides_and_nothing_else() -> None:
    groups_N = np.arange(60) // 3
    labels_N = groups_N % 2
    first = take_groups(labels_N, groups_N, share=0.2, seed=1)
    assert (take_groups(labels_N, groups_N, share=0.2, seed=1) == first).all()
    others = [take_groups(labels_N, groups_N, share=0.2, seed=seed) for seed in range(2, 8)]
    assert any((other != first).any() for other in others)


def test_a_photo_that_dataset_json_does_not_name_is_a_group_of_its_own(tmp_path: Path) -> None:
    write_record(tmp_path, {"train/pug/1.jpg": "rex", "train/pug/2.jpg": "rex"})
    paths = [tmp_path / "train" / "pug" / f"{i}.jpg" for i in (1, 2, 3, 4)]
    found = groups_of(tmp_path, paths)
    assert found is not None
    assert found.tolist() == [0, 0, 1, 2]


def test_val_taken_out_of_train_parts_no_group(tmp_path: Path) -> None:
    names = [f"train/{c}/{c}{g}_{i}.jpg" for c in "ab" for g in range(8) for i in range(4)]
    write(tmp_path, names)
    write_record(tmp_path, {name: name.partition("_")[0] for name in names})
    train, val = load_training_splits(tmp_path, val_ratio=0.2, seed=1)
    found = [{s.path.name.partition("_")[0] for s in part.samples} for part in (train, val)]
    assert not found[0] & found[1]
    assert {sample.label for sample in val.samples} == {0, 1}
    assert len(train) + len(val) == 64
    (tmp_path / MANIFEST).unlink()
    apart = [{s.path.name.partition("_")[0] for s in part.samples}
             for part in load_training_splits(tmp_path, val_ratio=0.2, seed=1)]  # fmt: skip
    assert apart[0] & apart[1]


def test_a_foreign_dataset_json_is_left_alone_and_a_damaged_one_with_groups_is_told(
    tmp_path: Path,
) -> None:
    assert groups_of(tmp_path, [tmp_path / "1.jpg"]) is None
    (tmp_path / MANIFEST).write_text('{"images": []}', encoding="utf-8")
    assert groups_of(tmp_path, [tmp_path / "1.jpg"]) is None
    (tmp_path / MANIFEST).write_text('{"groups": {"a": ', encoding="utf-8")
    with pytest.raises(DataError, match="not JSON"):
        groups_of(tmp_path, [tmp_path / "1.jpg"])
