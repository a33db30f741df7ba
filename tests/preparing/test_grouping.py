"""`prepare --group`: photos of one animal, patient or camera stay in one split."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from cliptune.checking.check import check
from cliptune.cli import app
from cliptune.data.manifest import MANIFEST, read_manifest
from cliptune.data.multilabel import load_multilabel_training
from cliptune.data.splits import SPLITS
from cliptune.errors import DataError
from cliptune.preparing.grouping import share_out_groups
from cliptune.preparing.multilabel import prepare_multilabel
from cliptune.preparing.splitting import Shares
from sources import make, placed, write

BREEDS = ("akita", "beagle", "pug")


def animals(folder: Path, *, number: int = 10, photos: int = 4) -> Path:
    """`folder/<breed>/<breed><animal>_<photo>.jpg`."""
    each = [(breed, i, j) for breed in BREEDS for i in range(number) for j in range(photos)]
    return write(folder, [f"{breed}/{breed}{i:02}_{j}.jpg" for breed, i, j in each])


def animals_in(folder: Path) -> dict[str, set[str]]:
    """Split -> the animals whose photos lie in it."""
    return {
        split: {p.name.partition("_")[0] for p in (folder / split).rglob("*.jpg")}
        for split in SPLITS
    }


def parted(folder: Path) -> set[str]:
    """Animals in more than one split."""
    train, val, test = animals_in(folder).values()
    return train & val | train & test | val & test


def words(text: str) -> str:
    return " ".join(text.split())


def listed(folder: Path, column: str, **more: dict[str, str]) -> Path:
    """A list beside the photos, with the animal of each in `column`."""
    path = folder / "list.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", column, *more])
        for photo in sorted(folder.rglob("*.jpg")):
            animal = photo.name.partition("_")[0]
            row = [photo.relative_to(folder).as_posix(), photo.parent.name, animal]
            writer.writerow([*row, *(values[animal] for values in more.values())])
    return path


def test_an_expression_keeps_animals_together_and_dataset_json_holds_them(tmp_path: Path) -> None:
    source = animals(tmp_path / "photos")
    result = make(tmp_path / "out", source, group=r"/([a-z]+\d+)_")
    assert parted(tmp_path / "out") == set()
    manifest = read_manifest(tmp_path / "out")
    assert manifest is not None
    assert manifest.options.group == r"/([a-z]+\d+)_"
    assert manifest.groups.keys() == manifest.files.keys()
    for name, group in manifest.groups.items():
        assert PurePosixPath(name).name.startswith(f"{group}_")
    assert all(placed(tmp_path / "out").values())
    assert "Groups: 30, none of them in two splits:" in words(result.summary())
    assert "where 70 / 15 / 15 were asked for; farthest off is" in words(result.summary())


def test_photos_dealt_without_groups_part_animals(tmp_path: Path) -> None:
    make(tmp_path / "out", animals(tmp_path / "photos"))
    assert parted(tmp_path / "out")


@pytest.mark.parametrize("column", ["animal", "patient id"])
def test_a_column_of_a_list_groups_as_the_expression_does(tmp_path: Path, column: str) -> None:
    source = animals(tmp_path / "photos")
    make(tmp_path / "by-path", source, group=r"[a-z]+\d+(?=_)")
    make(tmp_path / "by-column", listed(source, column), group=column)
    assert placed(tmp_path / "by-path") == placed(tmp_path / "by-column")


def test_a_column_of_a_dataset_groups_its_photos(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    import pyarrow as pa
    import pyarrow.parquet as pq

    source = animals(tmp_path / "photos")
    photos = sorted(source.rglob("*.jpg"))
    table = pa.table({
        "image": [{"bytes": photo.read_bytes(), "path": photo.name} for photo in photos],
        "label": [photo.parent.name for photo in photos],
        "camera": [photo.name.partition("_")[0] for photo in photos],
    })  # fmt: skip
    hub = {"info": {"features": {
        "image": {"_type": "Image"}, "label": {"dtype": "string", "_type": "Value"},
        "camera": {"dtype": "string", "_type": "Value"},
    }}}  # fmt: skip
    table = table.replace_schema_metadata({"huggingface": json.dumps(hub)})
    pq.write_table(table, tmp_path / "train.parquet")
    make(tmp_path / "out", tmp_path / "train.parquet", group="camera")
    manifest = read_manifest(tmp_path / "out")
    assert manifest is not None
    content = {photo.read_bytes(): photo.name.partition("_")[0] for photo in photos}
    for name, group in manifest.groups.items():
        assert content[(tmp_path / "out" / name).read_bytes()] == group
    splits: dict[str, set[str]] = {}
    for name, group in manifest.groups.items():
        splits.setdefault(group, set()).add(name.partition("/")[0])
    assert {len(found) for found in splits.values()} == {1}


def test_without_groups_dataset_json_says_nothing_of_them(tmp_path: Path) -> None:
    make(tmp_path / "out", animals(tmp_path / "photos"))
    record = json.loads((tmp_path / "out" / MANIFEST).read_text(encoding="utf-8"))
    assert "groups" not in record
    assert not {"group", "multilabel"} & set(record["options"])


def test_the_seed_alone_decides_which_animal_goes_where(tmp_path: Path) -> None:
    source = animals(tmp_path / "photos")
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        make(tmp_path / name, source, group=r"[a-z]+\d+(?=_)", seed=seed)
    assert placed(tmp_path / "a") == placed(tmp_path / "b")
    assert placed(tmp_path / "a") != placed(tmp_path / "c")


def test_shots_count_animals_with_all_their_photos(tmp_path: Path) -> None:
    source = animals(tmp_path / "photos")
    result = make(tmp_path / "out", source, group=r"[a-z]+\d+(?=_)", shots=2)
    for breed in BREEDS:
        photos = [p.name.partition("_")[0] for p in (tmp_path / "out/train" / breed).iterdir()]
        assert len(set(photos)) == 2
        assert len(photos) == 8
    assert "--shots counts groups here: all photos of 2 a class" in words(result.summary())


def test_splits_of_the_source_stay_and_one_that_is_missing_takes_whole_animals(
    tmp_path: Path,
) -> None:
    source = animals(tmp_path / "photos")
    names = {path.name.partition("_")[0] for path in source.rglob("*.jpg")}
    split = {name: "test" if name.endswith(("0", "1")) else "train" for name in names}
    make(tmp_path / "out", listed(source, "animal", split=split), group="animal")
    assert parted(tmp_path / "out") == set()
    found = animals_in(tmp_path / "out")
    assert found["test"] == {name for name in names if split[name] == "test"}
    assert found["val"]


def test_an_animal_across_the_sources_own_splits_is_told_and_random_parts_none(
    tmp_path: Path,
) -> None:
    source = write(
        tmp_path / "photos",
        [f"{split}/{breed}/{breed}{i}_{split}{j}.jpg" for split in ("train", "test")
         for breed in BREEDS for i in range(4) for j in range(2)],
    )  # fmt: skip
    with pytest.raises(DataError) as told:
        make(tmp_path / "out", source, group=r"([a-z]+\d)_")
    assert "12 groups lie across the source's own splits:" in str(told.value)
    assert "akita0: 2 in train, 2 in test" in str(told.value)
    assert "--splits random" in str(told.value)
    assert not (tmp_path / "out").exists()
    make(tmp_path / "out", source, group=r"([a-z]+\d)_", splits="random")
    assert parted(tmp_path / "out") == set()


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ("camera", "no column is called so, and as a regular expression it matches none"),
        ("(", "no column is called so, and it is no regular expression"),
        (r"akita\d+", r"the expression 'akita\\d\+' says nothing of 80 photos of 120"),
        (r"jpg$", "all 120 photos are one group, jpg"),
    ],
)
def test_a_group_that_cannot_be_found_is_one_clear_message(
    tmp_path: Path, group: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        make(tmp_path / "out", animals(tmp_path / "photos"), group=group)
    assert not (tmp_path / "out").exists()


def test_a_cell_without_a_group_is_told_with_its_photo(tmp_path: Path) -> None:
    source = animals(tmp_path / "photos")
    table = listed(source, "animal")
    text = table.read_text(encoding="utf-8")
    table.write_text(text.replace(",pug03\n", ",\n"), encoding="utf-8", newline="\n")
    with pytest.raises(DataError, match=r"column 'animal' says nothing of 4 photos of 120:\n.*pug"):
        make(tmp_path / "out", table, group="animal")


def test_a_photo_of_two_groups_is_a_faulty_line(tmp_path: Path) -> None:
    source = animals(tmp_path / "photos")
    table = listed(source, "animal")
    with table.open("a", encoding="utf-8", newline="") as file:
        file.write("pug/pug00_0.jpg,pug,another\n")
    with pytest.raises(DataError, match="'pug' of group 'another' here, 'pug' of group 'pug00'"):
        make(tmp_path / "out", table, group="animal")


def test_classes_of_too_few_animals_are_named_with_what_leaves_them_out(tmp_path: Path) -> None:
    source = animals(tmp_path / "photos")
    write(source, [f"corgi/corgi0{i}_{j}.jpg" for i in range(2) for j in range(9)])
    with pytest.raises(DataError) as told:
        make(tmp_path / "out", source, group=r"[a-z]+\d+(?=_)")
    assert "classes with fewer than 3 groups" in str(told.value)
    assert "corgi: 2 groups (corgi00, corgi01)" in str(told.value)
    assert "--exclude corgi" in str(told.value)
    make(tmp_path / "out", source, group=r"[a-z]+\d+(?=_)", exclude=["corgi"])


def test_groups_that_hold_every_class_are_shared_out_whole() -> None:
    rng = np.random.default_rng(0)
    classes: dict[str, list[PurePosixPath]] = {name: [] for name in "abc"}
    groups = {}
    for camera in range(12):
        for i, name in enumerate(rng.choice(list("abc"), 20)):
            photo = PurePosixPath(f"{camera}/{i}.jpg")
            classes[name].append(photo)
            groups[photo] = str(camera)
    dealt = share_out_groups(classes, {}, groups, Shares(), where="here")
    found: dict[str, set[Any]] = {split: set() for split in SPLITS}
    for parts in dealt.values():
        for split in SPLITS:
            assert parts[split]
            found[split] |= {groups[photo] for photo in parts[split]}
    assert sum(map(len, found.values())) == 12


def test_the_command_line_takes_a_column_and_shows_the_option(tmp_path: Path) -> None:
    table = listed(animals(tmp_path / "photos"), "animal")
    run = CliRunner().invoke(
        app, ["prepare", "--source", str(table), "--output-dir", str(tmp_path / "out"),
              "--group", "animal"],
    )  # fmt: skip
    assert run.exit_code == 0, run.output
    assert "none of them in two splits" in words(run.output)
    again = CliRunner().invoke(
        app, ["prepare", "--source", str(table), "--output-dir", str(tmp_path / "out")]
    )
    assert "--group: made with animal, now the default" in str(again.exception)


def several(folder: Path, *, column: str = "animal", splits: bool = False) -> Path:
    """A list of photos with one or two labels each, and the animal of each in `column`."""
    path = animals(folder) / "several.csv"
    rows = []
    for number, photo in enumerate(sorted(folder.rglob("*.jpg"))):
        labels = {photo.parent.name, BREEDS[number % 2]}
        animal = photo.name.partition("_")[0]
        split = SPLITS[int(photo.stem[-1]) % 3]
        row = [photo.relative_to(folder).as_posix(), "|".join(sorted(labels)), animal]
        rows.append([*row, split] if splits else row)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "labels", column, *(["split"] if splits else [])])
        writer.writerows(rows)
    return path


def test_photos_with_several_labels_keep_animals_together_by_column_and_expression(
    tmp_path: Path,
) -> None:
    table = several(tmp_path / "photos")
    for name, group in (("column", "animal"), ("path", r"[a-z]+\d+(?=_)")):
        out = tmp_path / name
        run = CliRunner().invoke(
            app, ["prepare", "--source", str(table), "--output-dir", str(out),
                  "--multilabel", "--group", group],
        )  # fmt: skip
        assert run.exit_code == 0, run.output
        assert "Groups: 30, none of them in two splits:" in words(run.output)
        assert parted(out) == set()
        assert all(animals_in(out).values())
        manifest = read_manifest(out)
        assert manifest is not None
        assert manifest.options.group == group
        assert manifest.groups.keys() == manifest.files.keys()
        for photo, animal in manifest.groups.items():
            assert PurePosixPath(photo).name.startswith(f"{animal}_")
        assert "groups_across_splits" not in check(out).counts
    by_column, by_path = (animals_in(tmp_path / name) for name in ("column", "path"))
    assert by_column == by_path
    prepare_multilabel(tmp_path / "without", table, progress=False)
    assert parted(tmp_path / "without")


def test_val_taken_from_train_and_check_know_the_groups_of_several_labels(tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare_multilabel(out, several(tmp_path / "photos"), group="animal", progress=False)
    shutil.move(out / "val", tmp_path / "val")
    train, val = load_multilabel_training(out, val_ratio=0.3, seed=0)
    own = [{s.path.name.partition("_")[0] for s in split.samples} for split in (train, val)]
    assert all(own)
    assert not own[0] & own[1]


def test_splits_of_a_source_that_part_groups_of_several_labels_are_refused(tmp_path: Path) -> None:
    table = several(tmp_path / "photos", splits=True)
    with pytest.raises(DataError, match=r"30 groups lie across the source's own splits") as caught:
        prepare_multilabel(tmp_path / "out", table, group="animal", progress=False)
    assert "Leave --group out to take the splits as they are" in words(str(caught.value))
    assert "--splits" not in str(caught.value)
    with pytest.raises(DataError, match="no column is called so"):
        prepare_multilabel(tmp_path / "out", table, group="zoo", progress=False)
    few = several(tmp_path / "few")
    again = few.read_text(encoding="utf-8").splitlines()[1].rpartition(",")[0] + ",another"
    twice = few.with_name("twice.csv")
    text = few.read_text(encoding="utf-8") + again + "\n"
    twice.write_text(text, encoding="utf-8", newline="")
    with pytest.raises(DataError, match=r"its group is 'another' here, 'akita00' earlier"):
        prepare_multilabel(tmp_path / "out", twice, group="animal", progress=False)
    with pytest.raises(DataError, match=r"--group: 2 groups: .*Expected 3 or more"):
        prepare_multilabel(tmp_path / "out", few, group="akita|jpg", progress=False)
    assert not (tmp_path / "out").exists()


def test_what_is_not_known_beside_several_labels_is_refused_not_forgotten(tmp_path: Path) -> None:
    table = several(tmp_path / "photos")
    run = CliRunner().invoke(
        app, ["prepare", "--source", str(table), "--output-dir", str(tmp_path / "out"),
              "--multilabel", "--shots", "2", "--rename", "pug=mops"],
    )  # fmt: skip
    assert "--shots, --rename: not known beside --multilabel" in str(run.exception)
    assert not (tmp_path / "out").exists()
