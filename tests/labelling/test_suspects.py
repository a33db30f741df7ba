"""`check --model`: labels that photos contradict, and `prepare --relabel`, which mends them."""

from __future__ import annotations

import csv
import json
import shutil
from html import unescape
from pathlib import Path

import pytest

from cliptune.checking.check import check
from cliptune.checking.findings import KINDS
from cliptune.checking.report import check_page, check_text
from cliptune.checking.suspects import COLUMNS, KIND, Suspect, Suspects, write_suspects
from cliptune.cli import main
from cliptune.data.manifest import read_manifest
from cliptune.errors import DataError
from cliptune.labelling.suspects import find_suspects, kept_together
from cliptune.preparing.relabelling import read_relabelling
from conftest import make_photos
from sources import make, placed

WRONG = ("train/amber/blue_train3.png", "val/cyan/amber_val1.png", "train/blue/cyan_train5.png")


@pytest.fixture(scope="session")
def mislabelled_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three colours, and `WRONG`: photos whose names tell what they show, in other folders."""
    data = make_photos(
        tmp_path_factory.mktemp("wrong") / "data", counts={"train": 12, "val": 4, "test": 4}
    )
    for path in list(data.rglob("*.png")):  # no two of a class are called alike
        split = path.parts[-3]
        path.rename(path.with_name(path.name.replace("_", f"_{split}")))
    for name in WRONG:
        split, _, file = name.split("/")
        shutil.move(data / split / file.partition("_")[0] / file, data / name)
    return data


@pytest.fixture
def mislabelled(tmp_path: Path, mislabelled_once: Path) -> Path:
    return Path(shutil.copytree(mislabelled_once, tmp_path / "wrong"))


def suspects(data: Path, model: Path) -> Suspects:
    return find_suspects(check(data, progress=False), str(model), device="cpu", progress=False)


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    return int(end.value.code or 0)


def _like(path: Path) -> list[Path]:
    """The file and its copies."""
    return sorted(path.parent.glob(f"{path.stem}*"))


def edited(path: Path, actions: dict[str, str]) -> Path:
    """The list at `path` with other actions: path -> action."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(row | {"action": actions.get(row["path"], "keep")} for row in rows)
    return path


def test_planted_wrong_labels_are_the_first_suspects_with_their_right_class(
    mislabelled_once: Path, clip_folder: Path
) -> None:
    found = suspects(mislabelled_once, clip_folder)
    first = {each.file: (each.label, each.suggested) for each in found.photos[: len(WRONG)]}
    assert first == {
        name: (name.split("/")[1], Path(name).name.partition("_")[0]) for name in WRONG
    }
    assert found.num_judged == 60
    assert found.agreeing == pytest.approx(57 / 60)
    assert [each.score for each in found.photos] == sorted(
        (each.score for each in found.photos), reverse=True
    )
    assert all(
        file.startswith(("train", "val", "test")) and file.split("/")[1] == name
        for name, files in found.typical.items()
        for file in files
    )


def test_a_checkpoint_is_asked_as_its_base_model_is(
    mislabelled_once: Path, clip_folder: Path, tiny_run: Path
) -> None:
    by_run, by_model = suspects(mislabelled_once, tiny_run), suspects(mislabelled_once, clip_folder)
    assert by_run.photos == by_model.photos


def test_copies_with_one_wrong_label_do_not_vouch_for_each_other(
    mislabelled: Path, clip_folder: Path
) -> None:
    for name in WRONG:
        for number in range(6):
            path = mislabelled / name
            shutil.copyfile(path, path.with_name(f"{path.stem}_{number}.png"))
    found = suspects(mislabelled, clip_folder)
    wrong = {
        path.relative_to(mislabelled).as_posix()
        for name in WRONG
        for path in _like(mislabelled / name)
    }
    assert len(wrong) == 21
    assert {each.file for each in found.photos[:21]} == wrong


def test_photos_of_any_set_in_common_are_kept_together() -> None:
    files = ["a", "b", "c", "d", "e"]
    groups = kept_together(files, [("a", "gone"), ("gone", "c")], [("d", "e")]).tolist()
    assert groups[0] == groups[2]
    assert groups[3] == groups[4]
    assert len(set(groups)) == 3
    assert len(set(kept_together(files).tolist())) == 5


def test_a_folder_without_wrong_labels_is_told_to_have_none(
    photos: Path, clip_folder: Path
) -> None:
    result = check(photos, progress=False)
    found = suspects(photos, clip_folder)
    assert found.photos == ()
    told = check_text(result.with_suspects(found))
    assert "48 labels judged" in told
    assert KINDS[KIND].title not in told


def test_page_text_and_json_show_suspects_beside_what_is_typical(
    mislabelled_once: Path, clip_folder: Path, tmp_path: Path
) -> None:
    output, suspected = tmp_path / "out", tmp_path / "lists" / "suspects.csv"
    code = run(
        "check", mislabelled_once, "--output", output, "--model", clip_folder, "--device", "cpu",
        "--export-suspects", suspected, "--strict",
    )  # fmt: skip
    assert code == 3  # warnings
    told = json.loads((output / "check.json").read_text(encoding="utf-8"))
    listed = [each["path"] for each in told["suspects"]["photos"]]
    assert set(listed[:3]) == set(WRONG)
    assert [f["files"][0] for f in told["findings"] if f["kind"] == KIND] == listed
    page = unescape((output / "check.html").read_text(encoding="utf-8"))
    assert page.count("labelled amber, looks like blue") == 1
    assert page.count("typical of amber") >= 2
    assert "60 labels judged" in page
    with suspected.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == listed
    assert {row["action"] for row in rows} == {"keep"}
    assert tuple(rows[0]) == COLUMNS


def test_without_a_model_nothing_tells_of_suspects(clean_once: Path) -> None:
    result = check(clean_once, progress=False)
    assert "suspects" not in result.to_dict()
    assert "judged" not in check_page(result)


def test_an_edited_list_moves_and_drops_photos_within_their_split(
    mislabelled_once: Path, clip_folder: Path, tmp_path: Path
) -> None:
    changes = tmp_path / "s.csv"
    write_suspects(suspects(mislabelled_once, clip_folder).photos, changes)
    kept = make(tmp_path / "kept", mislabelled_once, relabel=changes).output_dir
    plain = make(tmp_path / "plain", mislabelled_once).output_dir
    assert placed(kept) == placed(plain)
    edited(changes, {WRONG[0]: "relabel", WRONG[1]: "Relabel", WRONG[2]: "drop"})
    result = make(tmp_path / "mended", mislabelled_once, relabel=changes)
    before, after = placed(plain), placed(result.output_dir)
    assert after["train/blue"] == before["train/blue"] - {"cyan_train5.png"} | {"blue_train3.png"}
    assert after["train/amber"] == before["train/amber"] - {"blue_train3.png"}
    assert after["val/amber"] == before["val/amber"] | {"amber_val1.png"}
    assert after["test/cyan"] == before["test/cyan"]
    manifest = read_manifest(result.output_dir)
    assert manifest is not None
    assert manifest.relabelled == {
        WRONG[0]: "amber → blue", WRONG[1]: "cyan → amber", WRONG[2]: "blue, dropped"
    }  # fmt: skip
    assert "2 labels changed, 1 photo dropped" in " ".join(result.summary().split())


def test_an_edited_list_given_again_is_told_from_the_one_before(
    mislabelled_once: Path, clip_folder: Path, tmp_path: Path
) -> None:
    changes = tmp_path / "s.csv"
    write_suspects(suspects(mislabelled_once, clip_folder).photos, changes)
    make(tmp_path / "out", mislabelled_once, relabel=changes)
    assert make(tmp_path / "out", mislabelled_once, relabel=changes).kind == "already_there"
    edited(changes, {WRONG[0]: "drop"})
    with pytest.raises(DataError, match=r"--relabel: made with s\.csv"):
        make(tmp_path / "out", mislabelled_once, relabel=changes)


def test_without_a_list_the_manifest_says_nothing_of_one(photos: Path, tmp_path: Path) -> None:
    made = make(tmp_path / "out", photos).output_dir
    assert "relabel" not in (made / "dataset.json").read_text(encoding="utf-8")


def test_names_that_look_like_formulas_come_back_whole(tmp_path: Path) -> None:
    odd = Suspect(file="train/=1+1/'-a.jpg", label="=1+1", suggested="-no", score=3.0)
    path = tmp_path / "s.csv"
    write_suspects([odd], path)
    assert "'=1+1" in path.read_text(encoding="utf-8")
    (row,) = read_relabelling(path).rows
    assert (row.path, row.label, row.suggested) == (odd.file, odd.label, odd.suggested)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("train/amber/none.png,amber,blue,relabel", "line 2: train/amber/none.png: no such photo"),
        (
            "train/amber/amber_train0.png,amber,bleu,relabel",
            "no class 'bleu'. Did you mean 'blue'?",
        ),
        ("train/amber/amber_train0.png,cyan,blue,drop", "is 'amber', not 'cyan'"),
        ("train/amber/amber_train0.png,amber,blue,delete", "action 'delete'"),
        (
            "train/amber/amber_train0.png,amber,blue,relabel\ntrain/amber/amber_train0.png,amber,blue,drop",
            "line 3: train/amber/amber_train0.png: drop here, relabel in line 2",
        ),
    ],
)
def test_a_row_that_cannot_be_done_is_told_and_nothing_is_made(
    row: str, told: str, mislabelled_once: Path, tmp_path: Path
) -> None:
    changes = tmp_path / "s.csv"
    changes.write_text(f"path,label,suggested,action\n{row}\n", encoding="utf-8")
    with pytest.raises(DataError) as error:
        make(tmp_path / "out", mislabelled_once, relabel=changes)
    assert told in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_list_without_its_columns_or_its_file_is_told(tmp_path: Path) -> None:
    changes = tmp_path / "s.csv"
    changes.write_text("path,label\na.png,amber\n", encoding="utf-8")
    with pytest.raises(DataError, match="no column suggested, action; found path, label"):
        read_relabelling(changes)
    with pytest.raises(DataError, match="no such file; did you mean"):
        read_relabelling(tmp_path / "t.csv")


def test_options_that_do_not_fit_are_told_before_anything_is_read(
    clean_once: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("check", clean_once, "--export-suspects", tmp_path / "s.csv") == 2
    assert "Add --model" in capsys.readouterr().err
    options = ("--model", "x", "--export-suspects", tmp_path / "s.xlsx")
    assert run("check", clean_once, *options) == 2
    assert "ends in .csv" in capsys.readouterr().err


def test_too_few_photos_to_judge_labels_by_are_told(tmp_path: Path, clip_folder: Path) -> None:
    data = make_photos(tmp_path / "few", counts={"train": 2})
    with pytest.raises(DataError, match="expected 20 or more"):
        suspects(data, clip_folder)
