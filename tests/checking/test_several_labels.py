"""`check` where photos have any number of labels."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from cliptune import check
from cliptune.checking.label_findings import together_findings
from cliptune.checking.report import check_page
from cliptune.cli import app
from cliptune.data.multilabel import LABELS_FILE, write_labels


@pytest.fixture
def several(tmp_path: Path) -> Path:
    """Pictures unlike one another with one or two of three labels."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 36), ("val", 12), ("test", 12)):
        rows = {}
        folder = tmp_path / "data" / split
        folder.mkdir(parents=True)
        for number in range(count):
            coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
            picture = Image.fromarray(coarse).resize((96, 96), Image.Resampling.BICUBIC)
            picture.save(folder / f"{number:02d}.png")
            rows[f"{number:02d}.png"] = ["abc"[number % 3], *(["c"] if number % 6 == 0 else [])]
        write_labels(folder / LABELS_FILE, rows)
    return tmp_path / "data"


def add(folder: Path, name: str, labels: str) -> None:
    with (folder / LABELS_FILE).open("a", encoding="utf-8", newline="") as file:
        file.write(f"{name},{labels}\n")


def kinds(data_dir: Path) -> dict[str, str]:
    return {f.kind: f.detail for f in check(data_dir, progress=False).findings}


def test_nothing_is_found_where_nothing_is_wrong(several: Path) -> None:
    result = check(several, progress=False)
    assert result.findings == ()
    assert result.num_photos == 60
    assert result.counts["train"] == {"a": 12, "b": 12, "c": 18}


def test_the_page_shows_photos_that_lie_in_the_folder_of_their_split(several: Path) -> None:
    shutil.copy(several / "train" / "01.png", several / "test" / "copy.png")
    add(several / "test", "copy.png", "b")
    page = check_page(check(several, progress=False))
    assert '<img src="data:image/jpeg;base64,' in page
    for name in ("train/01.png", "test/copy.png"):
        assert f'alt="{name}"' in page
        assert f'<span class="path">{name.partition("/")[2]}</span>' in page


def test_copies_are_leaks_and_conflicts_by_all_their_labels(several: Path) -> None:
    shutil.copy(several / "train" / "01.png", several / "test" / "copy.png")
    add(several / "test", "copy.png", "b")  # as it is in train
    assert set(kinds(several)) == {"copies_across_splits"}
    shutil.copy(several / "train" / "02.png", several / "train" / "again.png")
    add(several / "train", "again.png", "c|a")  # more than there
    assert set(kinds(several)) == {"copies_across_splits", "copies_across_classes"}
    assert check(several, progress=False).offenders == {}


def test_what_the_lists_say_is_looked_at(several: Path) -> None:
    shutil.copy(several / "val" / "00.png", several / "train" / "x.png")
    (several / "train" / "x.png").write_bytes(b"no photo")
    add(several / "train", "x.png", "")
    Image.new("RGB", (96, 96), (1, 200, 3)).save(several / "val" / "beside.png")
    found = kinds(several)
    assert found.keys() >= {"unreadable", "no_label", "not_listed"}
    assert found["no_label"] == "1 of 37"
    add(several / "val", "gone.png", "a")
    found = kinds(several)
    assert "gone.png: no such file" in found["labels_file"]
    assert check(several, progress=False).exit_code() == 2


def test_labels_that_always_or_never_come_together_are_told() -> None:
    labels = {f"{i}": ["dog", "animal"] for i in range(30)}
    labels |= {f"c{i}": ["cat", "animal"] for i in range(30)}
    labels |= {f"s{i}": ["street"] for i in range(40)}
    found = {(f.kind, f.detail) for f in together_findings(labels)}
    assert ("always_together", "all 30 photos of dog show animal as well") in found
    assert ("always_together", "all 30 photos of cat show animal as well") in found
    assert any(kind == "never_together" and "animal and street" in said for kind, said in found)
    # Nine by chance are too few to wonder at.
    assert not any("cat and dog" in said for _, said in found)
    assert not any("animal show" in said for _, said in found)


def test_fix_is_refused_and_nothing_moved(several: Path, tmp_path: Path) -> None:
    line = ["check", str(several), "--fix", "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(app, line)
    assert result.exit_code != 0
    assert len(list((several / "train").glob("*.png"))) == 36
    result = CliRunner().invoke(app, ["check", str(several), "--output", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "60 photos read" in " ".join(result.output.split())
