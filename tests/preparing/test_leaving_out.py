"""Classes that are left out on request: by name, or for want of photos."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from cliptune.cli import app
from cliptune.commands.prepare import _names
from cliptune.data.manifest import MANIFEST, read_manifest
from cliptune.errors import DataError
from cliptune.preparing.breeds import BREEDS
from cliptune.preparing.splitting import Shares, share_out
from sources import make, placed, write

COUNTS = {"akita": 8, "beagle": 5, "corgi": 1, "pug, black": 2}


@pytest.fixture
def uneven(tmp_path: Path) -> Path:
    """Four classes of 8, 5, 1 and 2 photos."""
    names = [f"{name}/{i}.jpg" for name, number in COUNTS.items() for i in range(number)]
    return write(tmp_path / "photos", names)


def words(text: str) -> str:
    return " ".join(text.split())


def test_classes_with_too_few_photos_are_left_out_named_and_recorded(
    tmp_path: Path, uneven: Path
) -> None:
    result = make(tmp_path / "out", uneven, min_photos=3)
    assert result.class_names == ("akita", "beagle")
    assert "2 classes left out: corgi (1 in all, fewer than --min-photos 3); pug, black (2" in (
        words(result.summary())
    )
    record = json.loads((tmp_path / "out" / MANIFEST).read_text())
    assert set(record["left_out"]) == {"corgi", "pug, black"}
    assert record["options"]["min_photos"] == 3
    assert "corgi" not in record["counts"]["train"]


def test_excluded_classes_are_named_however_spelt_and_recorded(
    tmp_path: Path, uneven: Path
) -> None:
    result = make(tmp_path / "out", uneven, exclude=["Corgi", "PUG,_black"])
    assert result.class_names == ("akita", "beagle")
    assert "corgi (--exclude); pug, black (--exclude)" in words(result.summary())
    manifest = read_manifest(tmp_path / "out")
    assert manifest is not None
    assert manifest.left_out == {"corgi": "--exclude", "pug, black": "--exclude"}
    with pytest.raises(DataError, match="--exclude: made with Corgi,PUG,_black, now the default"):
        make(tmp_path / "out", uneven)


def test_leaving_out_moves_no_photo_of_the_others(tmp_path: Path, uneven: Path) -> None:
    write(uneven, [f"{name}/{i}.jpg" for name in ("corgi", "pug, black") for i in range(3)])
    make(tmp_path / "all", uneven)
    make(tmp_path / "some", uneven, exclude=["corgi"])
    every, some = placed(tmp_path / "all"), placed(tmp_path / "some")
    assert some == {at: files for at, files in every.items() if not at.endswith("/corgi")}


def test_a_number_of_classes_is_taken_from_those_not_left_out(tmp_path: Path) -> None:
    names = [f"{name}/{i}.jpg" for name in "abcde" for i in range(1 if name == "b" else 3)]
    source = write(tmp_path / "photos", names)
    result = make(tmp_path / "out", source, num_classes=3, exclude=["a"], min_photos=3)
    assert result.class_names == ("c", "d", "e")
    with pytest.raises(DataError, match=r"expected 2 to 3, .* without the 2 left out"):
        make(tmp_path / "four", source, num_classes=4, exclude=["a"], min_photos=3)


def test_a_class_asked_for_by_name_is_still_left_out_when_it_is_too_small(
    tmp_path: Path, uneven: Path
) -> None:
    asked = ["akita", "beagle", "corgi"]
    result = make(tmp_path / "out", uneven, classes=asked, min_photos=3)
    assert result.class_names == ("akita", "beagle")
    manifest = read_manifest(tmp_path / "out")
    assert manifest is not None
    assert set(manifest.left_out) == {"corgi"}  # nobody asked for the pug
    with pytest.raises(DataError, match="left out by --exclude or --min-photos: only one class"):
        make(tmp_path / "more", uneven, classes=asked, min_photos=6)


@pytest.mark.parametrize("lacking", [(), ("val",), ("val", "test")])
def test_with_own_splits_the_photos_for_train_are_counted(
    tmp_path: Path, lacking: tuple[str, ...]
) -> None:
    """A class with test photos alone can be learned from no photo; three for train are enough."""
    train = [f"train/{c}/{i}.jpg" for c, n in (("a", 4), ("b", 3), ("c", 2)) for i in range(n)]
    rest = [f"{s}/{c}/{i}.jpg" for s in ("val", "test") for c in "abcd" for i in range(5)]
    source = write(tmp_path / "photos", train + [x for x in rest if x.split("/")[0] not in lacking])
    result = make(tmp_path / "out", source, min_photos=3, layout="splits")
    assert result.class_names == ("a", "b")
    assert "c (2 for train, fewer than --min-photos 3)" in words(result.summary())


@settings(deadline=None)
@given(
    counts=st.lists(st.integers(0, 30), min_size=2, max_size=8),
    own=st.sampled_from([(), ("train",), ("train", "test"), ("train", "val", "test")]),
    shots=st.none() | st.integers(1, 12),
)
def test_the_number_a_refusal_names_leaves_out_what_it_lists_and_no_more(
    counts: list[int], own: tuple[str, ...], shots: int | None
) -> None:
    classes: dict[str, list[PurePosixPath]] = {}
    splits: dict[PurePosixPath, str] = {}
    for i, number in enumerate(counts):
        classes[f"c{i}"] = [PurePosixPath(f"c{i}/{k}.jpg") for k in range(number)]
        for split in own:
            photos = [PurePosixPath(f"{split}/c{i}/{k}.jpg") for k in range(number)]
            classes[f"c{i}"] = photos if split == "train" else classes[f"c{i}"] + photos
            splits |= dict.fromkeys(photos, split)
    shares = Shares(shots=shots)
    try:
        share_out(classes, splits, shares, where="here")
        return
    except DataError as error:
        text = str(error)
    enough = int(text.partition("--min-photos ")[2].partition(",")[0])
    listed = {line.strip().partition(":")[0] for line in text.split("\n") if line.startswith("  ")}
    assert listed == {f"c{i}" for i, number in enumerate(counts) if number < enough}
    left = {name: photos for name, photos in classes.items() if name not in listed}
    share_out(left, splits, shares, where="here")


def test_leaving_out_works_where_there_is_no_archive_yet(tmp_path: Path) -> None:
    result = make(tmp_path / "out", None, exclude=["Labrador", BREEDS[3]], min_photos=20)
    assert len(result.class_names) == 10
    assert not {"labrador", BREEDS[3]} & set(result.class_names)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"exclude": ["corgy"]}, r"--exclude: .* has no class 'corgy' \(nearest: corgi\)"),
        ({"exclude": ["corgi", "Corgi"]}, "--exclude: named more than once: corgi"),
        ({"exclude": ["corgi"], "classes": ["akita", "corgi"]}, "--classes and --exclude both"),
        ({"exclude": ["akita", "beagle", "corgi"]}, "without the 3 left out .* only one class"),
        ({"min_photos": 0}, "--min-photos 0: expected a number of photos from 1"),
        ({}, r"corgi: 1\n  pug, black: 2\nLeave them out with --min-photos 3"),
    ],
)
def test_what_cannot_be_left_out_is_refused(
    tmp_path: Path, uneven: Path, options: dict[str, Any], fault: str
) -> None:
    with pytest.raises(DataError, match=fault):
        make(tmp_path / "out", uneven, **options)
    assert not (tmp_path / "out").exists()


def test_the_command_line_takes_names_that_hold_commas(tmp_path: Path, uneven: Path) -> None:
    assert _names('corgi, "pug, black",') == ["corgi", "pug, black"]
    assert _names(None) is _names("") is None
    result = CliRunner().invoke(
        app,
        ["prepare", "--source", str(uneven), "--output_dir", str(tmp_path / "out"),
         "--exclude", '"pug, black"', "--min_photos", "3"],
    )  # fmt: skip
    assert result.exit_code == 0
    assert "pug, black (--exclude)" in words(result.stdout)
    assert "corgi (1 in all, fewer than --min-photos 3)" in words(result.stdout)


def test_a_folder_made_before_these_options_is_still_known(tmp_path: Path, uneven: Path) -> None:
    options: dict[str, Any] = {"classes": ["akita", "beagle"]}
    make(tmp_path / "out", uneven, **options)
    path = tmp_path / "out" / MANIFEST
    record = json.loads(path.read_text())
    del record["left_out"]
    for key in ("exclude", "min_photos", "image_column", "label_column"):
        del record["options"][key]
    path.write_text(json.dumps(record))
    assert make(tmp_path / "out", uneven, **options).kind == "already_there"


def test_another_label_column_is_another_way_to_make_a_folder(tmp_path: Path) -> None:
    folder = write(tmp_path / "data", [f"{c}{i}.jpg" for c in "ab" for i in range(3)])
    lines = [f"{c}{i}.jpg,{c},x{c}\n" for c in "ab" for i in range(3)]
    (folder / "list.csv").write_text("path,label,species\n" + "".join(lines))
    make(tmp_path / "out", folder / "list.csv")
    with pytest.raises(DataError, match="--label-column: made with the default, now species"):
        make(tmp_path / "out", folder / "list.csv", label_column="species")
