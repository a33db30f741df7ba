"""`check` on a folder whose dataset.json tells which photos belong together."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cliptune.checking.check import check
from cliptune.checking.report import check_page
from cliptune.cli import app
from sources import make, write


@pytest.fixture
def grouped(tmp_path: Path) -> Path:
    """Two breeds, six animals of each, three photos of each animal."""
    source = write(
        tmp_path / "photos",
        [f"{b}/{b}{i}_{j}.jpg" for b in ("akita", "pug") for i in range(6) for j in range(3)],
    )
    make(tmp_path / "out", source, group=r"[a-z]+\d(?=_)")
    return tmp_path / "out"


def leaks(data_dir: Path) -> list[tuple[str, tuple[str, ...]]]:
    found = check(data_dir, progress=False).findings
    return [(f.detail, f.offenders) for f in found if f.kind == "groups_across_splits"]


def test_a_folder_as_prepare_made_it_has_no_group_across_splits(grouped: Path) -> None:
    assert leaks(grouped) == []


def test_a_photo_moved_to_another_split_is_a_leak_known_by_its_content(grouped: Path) -> None:
    photo = sorted((grouped / "train" / "pug").iterdir())[0]
    animal = photo.name.partition("_")[0]
    shutil.move(photo, grouped / "test" / "pug" / "renamed.jpg")
    rest = tuple(f"train/pug/{animal}_{j}.jpg" for j in (1, 2))
    assert leaks(grouped) == [(f"group '{animal}': 2 in train, 1 in test", rest)]
    result = check(grouped, progress=False)
    assert result.exit_code() == 2
    assert f"group &#39;{animal}&#39;" in check_page(result)


def test_fix_sets_the_leak_aside_and_undo_brings_it_back(grouped: Path) -> None:
    photo = sorted((grouped / "train" / "pug").iterdir())[0]
    shutil.move(photo, grouped / "val" / "pug" / photo.name)
    before = {p.relative_to(grouped) for p in grouped.rglob("*.jpg")}
    assert CliRunner().invoke(app, ["check", str(grouped), "--fix"]).exit_code == 0
    assert leaks(grouped) == []
    assert len(list((grouped / ".quarantine").rglob("*.jpg"))) == 2
    CliRunner().invoke(app, ["check", str(grouped), "--undo"])
    assert {p.relative_to(grouped) for p in grouped.rglob("*.jpg")} == before
    assert len(leaks(grouped)) == 1
