"""`prepare --rename` and `--merge`: classes of a source under other names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cliptune.cli import app
from cliptune.data.classes_file import CLASSES_FILE, read_names
from cliptune.data.manifest import MANIFEST, read_manifest
from cliptune.data.splits import SPLITS
from cliptune.errors import DataError
from cliptune.preparing.breeds import BREEDS
from sources import contents_of, make, placed, write


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Four classes of six photos, called alike in each."""
    names = ("akita", "Border_collie", "pug", "sheltie")
    return write(tmp_path / "photos", [f"{name}/{i}.jpg" for name in names for i in range(6)])


def words(text: str) -> str:
    return " ".join(text.split())


def of_class(folder: Path, name: str) -> set[bytes]:
    return {p.read_bytes() for split in SPLITS for p in (folder / split / name).iterdir()}


def test_a_renamed_class_has_its_photos_under_the_new_name_alone(
    tmp_path: Path, source: Path
) -> None:
    result = make(tmp_path / "out", source, rename={"border collie": "collie"})
    assert result.class_names == ("akita", "collie", "pug", "sheltie")
    assert of_class(tmp_path / "out", "collie") == contents_of(source / "Border_collie")
    assert "Renamed: Border_collie is collie." in words(result.summary())
    manifest = read_manifest(tmp_path / "out")
    assert manifest is not None
    assert manifest.called == {"Border_collie": "collie"}
    assert manifest.options.rename == {"border collie": "collie"}
    with pytest.raises(DataError, match="--rename: made with collie for border collie, now the"):
        make(tmp_path / "out", source)


@pytest.mark.parametrize("new", ["collies", "sheltie"])
def test_merged_classes_are_one_and_none_of_their_photos_is_lost(
    tmp_path: Path, source: Path, new: str
) -> None:
    result = make(tmp_path / "out", source, merge={new: ["Border_collie", "sheltie"]})
    assert result.class_names == ("akita", *sorted([new, "pug"]))
    both = contents_of(source / "Border_collie") | contents_of(source / "sheltie")
    assert of_class(tmp_path / "out", new) == both
    assert f"are {new}" in words(result.summary()) or new == "sheltie"
    assert json.loads((tmp_path / "out" / MANIFEST).read_text())["options"]["merge"] == {
        new: ["Border_collie", "sheltie"]
    }


def test_new_names_are_those_that_other_options_speak_of(tmp_path: Path, source: Path) -> None:
    write(source, ["corgi/0.jpg", "corgi/1.jpg"])
    result = make(
        tmp_path / "out", source, rename={"pug": "mops"}, exclude=["mops"],
        merge={"herders": ["corgi", "sheltie"]}, min_photos=6,
    )  # fmt: skip
    assert result.class_names == ("Border_collie", "akita", "herders")
    manifest = read_manifest(tmp_path / "out")
    assert manifest is not None
    assert manifest.left_out == {"mops": "--exclude"}
    assert manifest.called == {"corgi": "herders", "sheltie": "herders"}


def test_without_new_names_dataset_json_says_nothing_of_them(tmp_path: Path, source: Path) -> None:
    make(tmp_path / "out", source)
    record = json.loads((tmp_path / "out" / MANIFEST).read_text(encoding="utf-8"))
    assert "called" not in record
    assert not {"rename", "merge"} & set(record["options"])


def test_renaming_moves_no_photo_of_other_classes(tmp_path: Path, source: Path) -> None:
    make(tmp_path / "all", source)
    make(tmp_path / "other", source, rename={"pug": "mops"})
    every, some = placed(tmp_path / "all"), placed(tmp_path / "other")
    others = {at for at in every if not at.endswith("/pug")}
    assert {at: every[at] for at in others} == {at: some[at] for at in others}


def test_entries_of_classes_yaml_follow_the_new_names(tmp_path: Path, source: Path) -> None:
    (source / CLASSES_FILE).write_text(
        "pug: Mops\nsheltie:\n  prompts: [shetland sheepdog]\nakita: Akita Inu\n", encoding="utf-8"
    )
    make(
        tmp_path / "out", source, rename={"pug": "pug_dog"},
        merge={"sheltie": ["sheltie", "Border_collie"]},
    )  # fmt: skip
    given = read_names(tmp_path / "out", ["akita", "pug_dog", "sheltie"])
    assert given.display == {"akita": "Akita Inu", "pug_dog": "Mops"}
    assert given.prompts == {"sheltie": ["shetland sheepdog"]}


def test_breeds_can_be_renamed_where_there_is_no_archive_yet(tmp_path: Path) -> None:
    result = make(tmp_path / "out", None, rename={BREEDS[0]: "goldie"})
    assert "goldie" in result.class_names
    assert BREEDS[0] not in result.class_names
    assert len(result.class_names) == 10


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"rename": {"pag": "mops"}}, r"--rename: .* has no class 'pag' \(nearest: pug\)"),
        ({"rename": {"pug": "akita"}}, r"akita, pug would all .* --merge akita,pug=akita"),
        ({"rename": {"pug": "Akita"}}, "would all be called Akita, akita"),
        ({"rename": {"pug": "a/b"}}, "no class can be called so .holds '/'"),
        ({"rename": {"pug": "con"}}, "called so .the name of a device on Windows"),
        ({"merge": {"x": ["pug"]}}, "expected two classes or more"),
        ({"merge": {"akita": ["pug", "sheltie"]}}, "merge them: --merge akita,pug,sheltie=akita"),
        ({"merge": {"x": ["pug", "pug"]}}, "named more than once: pug"),
        ({"rename": {"pug": "y"}, "merge": {"x": ["pug", "akita"]}}, "pug would be y, too"),
        ({"rename": {"pug": "mops"}, "exclude": ["pug"]}, "has no class 'pug'"),
    ],
)
def test_names_that_cannot_be_are_one_clear_message(
    tmp_path: Path, source: Path, options: dict[str, Any], fault: str
) -> None:
    with pytest.raises(DataError, match=fault):
        make(tmp_path / "out", source, **options)
    assert not (tmp_path / "out").exists()


def test_the_command_line_renames_and_merges(tmp_path: Path, source: Path) -> None:
    base = ["prepare", "--source", str(source), "--output-dir", str(tmp_path / "out")]
    wrong = CliRunner().invoke(app, [*base, "--rename", "pug"])
    assert "expected old=new, the new name last" in str(wrong.exception)
    run = CliRunner().invoke(
        app, [*base, "--rename", "pug=mops", "--rename", "akita=inu",
              "--merge", "Border_collie,sheltie=herders"],
    )  # fmt: skip
    assert run.exit_code == 0, run.output
    assert {path.name for path in (tmp_path / "out" / "train").iterdir()} == {
        "mops", "inu", "herders",
    }  # fmt: skip
