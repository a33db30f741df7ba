"""What every command sees in a folder: the same endings, the same names of splits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from cliptune.checking.check import CheckResult, check
from cliptune.checking.quarantine import fix, undo
from cliptune.commands.predicting import photos_to_predict
from cliptune.config import load_settings
from cliptune.data.folder import load_split, load_training_splits
from cliptune.data.image_files import IMAGE_FORMATS, find_images, photos_below
from cliptune.data.photos import create_dataloaders
from cliptune.data.reading import read_image
from cliptune.data.splits import SPLIT_NAMES, split_folders
from cliptune.errors import DataError
from cliptune.evaluation.comparison.compare import compare
from cliptune.evaluation.evaluate import evaluate
from cliptune.preparing.prepare import prepare
from cliptune.training.train import train
from conftest import make_photos

NAMES = ("amber", "blue")


def kinds(result: CheckResult) -> set[str]:
    return {finding.kind for finding in result.findings}


def save_as(path: Path, seed: int) -> None:
    """A photo in the format of the ending of `path`."""
    noise = np.random.default_rng(seed).integers(0, 256, (70, 80, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, IMAGE_FORMATS[path.suffix.lower()][0])


def endings() -> list[str]:
    """All endings that this Pillow can write: one built without AVIF cannot."""
    return [e for e in IMAGE_FORMATS if e != ".avif" or features.check("avif")]


@pytest.fixture
def of_all_endings(tmp_path: Path) -> Path:
    """Two classes in train/, a photo of every ending in each; no val/."""
    data = tmp_path / "data"
    for number, name in enumerate(NAMES):
        (data / "train" / name).mkdir(parents=True)
        for place, ending in enumerate(endings()):
            save_as(data / "train" / name / f"{place}{ending}", 100 * number + place)
    return data


def test_every_ending_is_read_by_every_command(of_all_endings: Path, tmp_path: Path) -> None:
    expected = len(NAMES) * len(endings())
    assert {".jpg", ".jpeg", ".jfif", ".jpe", ".gif", ".tif", ".tiff"} <= set(endings())
    split = load_split(of_all_endings, "train", class_names=NAMES)
    assert len(split) == len(photos_below(of_all_endings, "--image-dir")) == expected
    result = check(of_all_endings, progress=False)
    assert result.num_photos == expected
    assert not {"wrong_ending", "unused_images", "other_files", "unreadable"} & kinds(result)
    made = prepare(tmp_path / "made", source=of_all_endings / "train", progress=False)
    assert sum(sum(classes.values()) for classes in made.counts.values()) == expected
    small = prepare(tmp_path / "small", source=of_all_endings / "train", resize=32, progress=False)
    assert sum(sum(classes.values()) for classes in small.counts.values()) == expected
    for path in find_images(tmp_path / "small"):
        with Image.open(path) as image:
            assert image.format in IMAGE_FORMATS[path.suffix]
        assert min(read_image(path).size) == 32


def test_of_an_animation_the_first_picture_is_taken(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (80, 70), color) for color in ("red", "blue")]
    for ending in (".gif", ".tif"):
        path = tmp_path / f"two{ending}"
        frames[0].save(path, save_all=True, append_images=frames[1:])
        assert read_image(path).getpixel((5, 5)) == (255, 0, 0)


def test_pictures_that_are_passed_over_are_counted_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_photos(tmp_path, counts={"train": 4, "test": 1}, classes=NAMES)
    for name in ("a.heic", "b.HEIC", "c.psd", "notes.txt", ".hidden.heic"):
        (tmp_path / "train" / "amber" / name).write_bytes(b"?")
    (tmp_path / "train" / "loose.jpg").write_bytes(b"?")
    said = "pictures left out: 2 × .heic, 1 × .jpg outside a class folder, 1 × .psd"
    load_training_splits(tmp_path, val_ratio=0.3, seed=0)
    assert f"{tmp_path / 'train'}: {said}" in caplog.text
    caplog.clear()
    load_split(tmp_path, "test", class_names=NAMES)
    assert "left out" not in caplog.text
    photos_to_predict([], tmp_path / "train" / "amber")  # of predict --image-dir
    assert "pictures left out: 2 × .heic, 1 × .psd" in caplog.text
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "d.heic").write_bytes(b"?")
    with pytest.raises(DataError, match=r"no photos in it, but pictures .*: 1 × \.heic"):
        photos_to_predict([], tmp_path / "only")
    found = {f.detail for f in check(tmp_path, progress=False).findings}
    assert {"2 × .heic", "1 × .psd", "1 × .jpg outside a class folder"} <= found


@pytest.mark.parametrize("name", [n for n, split in SPLIT_NAMES.items() if split == "val"])
def test_every_name_of_val_is_val(name: str, tmp_path: Path) -> None:
    make_photos(tmp_path, counts={"train": 3, "val": 2, "test": 1}, classes=NAMES)
    usual = load_training_splits(tmp_path, val_ratio=0.5, seed=0)
    (tmp_path / "val").rename(tmp_path / name.upper())
    (tmp_path / "test").rename(tmp_path / "Testing")
    (tmp_path / "train").rename(tmp_path / "training")
    given = load_training_splits(tmp_path, val_ratio=0.5, seed=0)
    for old, new in zip(usual, given, strict=True):
        assert [s.path.name for s in new.samples] == [s.path.name for s in old.samples]
    assert len(load_split(tmp_path, "val", class_names=NAMES)) == 4
    loaders = create_dataloaders(tmp_path)
    assert len(loaders.val.dataset) == 4  # type: ignore[arg-type]
    assert loaders.test is not None
    result = check(tmp_path, progress=False)
    assert {split: sum(c.values()) for split, c in result.counts.items()} == {
        "train": 6, "val": 4, "test": 2,
    }  # fmt: skip
    assert not {"no_val", "no_test", "no_train"} & kinds(result)


def test_training_and_measuring_know_the_same_val(
    overrides: dict[str, Any], tmp_path: Path
) -> None:
    data = make_photos(tmp_path / "data", counts={"train": 6, "val": 3}, classes=NAMES)
    (data / "val").rename(data / "valid")
    overrides |= {"data.data_dir": str(data), "training.num_epochs": 1}
    runs = []
    for seed in (1, 2):
        own = {"output.output_dir": str(tmp_path / f"run{seed}"), "seed": seed}
        result = train(load_settings(overrides=overrides | own))
        runs.append(result.output_dir)
    measured = evaluate(runs[0], split="val", output_dir=None, baseline=False, progress=False)
    assert measured.tuned.num_images == 6
    together = compare(runs, split="val", output_dir=None, progress=False)
    assert len(together.paths) == 6  # not a share of train, which differs between the seeds
    assert together.short_path(0) == "amber/amber_0.png"


def test_two_names_of_one_split_are_an_error_that_names_both(tmp_path: Path) -> None:
    make_photos(tmp_path, counts={"train": 2, "val": 1, "dev": 1}, classes=NAMES)
    words = r"(dev/ and val/|val/ and dev/) are both val\. Merge them, or rename one"
    for look in (
        lambda: load_training_splits(tmp_path, val_ratio=0.5, seed=0),
        lambda: load_split(tmp_path, "val", class_names=NAMES),
        lambda: check(tmp_path, progress=False),
    ):
        with pytest.raises(DataError, match=words):
            look()
    for path in find_images(tmp_path / "dev"):
        path.unlink()
    assert split_folders(tmp_path)["val"] == tmp_path / "val"


def test_folders_of_photos_that_are_no_split_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_photos(tmp_path, counts={"train": 2, "holdout": 1}, classes=NAMES)
    (tmp_path / "unlabeled").mkdir()
    save_as(tmp_path / "unlabeled" / "1.png", 0)
    (tmp_path / "notes").mkdir()
    load_training_splits(tmp_path, val_ratio=0.5, seed=0)
    assert "no split are left out: holdout/, unlabeled/. Splits are called train, " in caplog.text
    found = [f.detail for f in check(tmp_path, progress=False).findings]
    assert sum("/ holds photos and is none of train, " in detail for detail in found) == 2


def test_copies_are_told_and_set_aside_under_any_name_of_a_split(tmp_path: Path) -> None:
    make_photos(tmp_path, counts={"train": 3, "val": 2}, classes=NAMES)
    (tmp_path / "val").rename(tmp_path / "Valid")
    source = tmp_path / "train" / "blue" / "blue_0.png"
    copy = tmp_path / "Valid" / "blue" / "copy.png"
    copy.write_bytes(source.read_bytes())
    result = check(tmp_path, progress=False)
    (leak,) = [f for f in result.findings if f.kind == "copies_across_splits"]
    assert leak.offenders == ("train/blue/blue_0.png",)
    fix(tmp_path, result.offenders)
    assert (source.exists(), copy.exists()) == (False, True)
    undo(tmp_path)
    assert source.exists()
