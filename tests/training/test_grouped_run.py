"""A whole run on photos that belong together."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

from cliptune.data.folder import load_training_splits
from cliptune.data.manifest import MANIFEST
from cliptune.model.checkpoint import list_checkpoints
from cliptune.training.resume import read_heads
from conftest import trained


def test_a_run_keeps_groups_in_one_fold_and_its_card_counts_them(
    clip_folder: Path, photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Path(shutil.copytree(photos, tmp_path / "data"))
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.png"))
    groups = {name: f"{name.rpartition('_')[0]} {int(name[-5]) // 2}" for name in names}
    record = {
        "cliptune": "1", "source": {"name": "x", "kind": "folders", "splits": "random"},
        "options": {}, "seed": 42, "counts": {}, "files": {}, "groups": groups,
    }  # fmt: skip
    (folder / MANIFEST).write_text(json.dumps(record), encoding="utf-8")
    with caplog.at_level(logging.INFO):
        run = trained(tmp_path, clip_folder, folder)
    assert "its photos belong to 18 groups, which stay together in folds" in caplog.text
    last = list_checkpoints(run)[-1]
    assert last.record.metrics["val_groups"] == 6
    assert 1 <= float(last.record.metrics["val_effective_images"] or 0) <= 12
    card = (last.path / "README.md").read_text(encoding="utf-8")
    assert "| validation split, 12 photos in 6 groups |" in card
    heads_N = read_heads(last.path, "folds")["heads_N"].numpy()
    train, _ = load_training_splits(folder, val_ratio=0.1, seed=0)
    assert len(set(heads_N.tolist())) > 1
    for group in set(groups.values()):
        own = [
            groups[sample.path.relative_to(folder).as_posix()] == group for sample in train.samples
        ]
        assert len(set(heads_N[np.array(own)].tolist())) <= 1
