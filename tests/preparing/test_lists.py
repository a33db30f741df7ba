"""Lists of photos as spreadsheets, Kaggle and other tools save them."""

from __future__ import annotations

import csv
import json
import unicodedata
import zipfile
from pathlib import Path

import pytest

from cliptune.checking.folder_findings import names_file_findings
from cliptune.data.naming import class_name_fault
from cliptune.errors import DataError
from cliptune.files import check_sums, write_sums
from cliptune.preparing.sources.pets import oxford_pets
from sources import contents, contents_of, make, placed, write

# All that str.splitlines takes for the end of a line, save those of text files.
ENDS = "\v\f\x1c\x1d\x1e\x85\u2028\u2029"
CLASSES = {"a": "pug", "b": "akita"}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """`photos/i/a0.jpg` and more: four photos of each of two classes."""
    return write(tmp_path / "photos", [f"i/{c}{i}.jpg" for c in CLASSES for i in range(4)])


def rows(folder: Path) -> list[tuple[str, str]]:
    """(path, label) of each photo."""
    return [
        (path.relative_to(folder).as_posix(), CLASSES[path.name[0]])
        for path in sorted(folder.rglob("*.jpg"))
    ]


def assert_all_taken(output_dir: Path, photos: Path) -> None:
    """Every photo is there, under the class its name tells."""
    assert contents(output_dir) == contents_of(photos)
    for place, names in placed(output_dir).items():
        assert {CLASSES[name[0]] for name in names} == {place.partition("/")[2]}


def test_json_lines_end_at_line_feeds_alone(tmp_path: Path, photos: Path) -> None:
    lines = (
        json.dumps(
            {"path": p, "label": c, "note": f"a dog{ENDS[5:]}in the snow"}, ensure_ascii=False
        )
        for p, c in rows(photos)
    )
    (photos / "list.jsonl").write_text("\r\n".join(lines), encoding="utf-8", newline="")
    make(tmp_path / "out", photos / "list.jsonl")
    assert_all_taken(tmp_path / "out", photos)


@pytest.mark.parametrize("more", ["", '"quoted",\r\n\nin two\nlines'])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_what_the_csv_module_wrote_is_read_whatever_a_field_holds(
    tmp_path: Path, photos: Path, more: str, quoting: int, end: str
) -> None:
    note = f"a dog{ENDS}in the snow{more}"
    with (photos / "list.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=quoting, lineterminator=end)  # type: ignore[arg-type]
        writer.writerows([("path", "note", "label"), *((p, note, c) for p, c in rows(photos))])
    make(tmp_path / "out", photos / "list.csv")
    assert_all_taken(tmp_path / "out", photos)


def test_a_faulty_line_is_numbered_as_an_editor_numbers_it(tmp_path: Path, photos: Path) -> None:
    text = 'sep=;\npath;label;note\ni/a0.jpg;pug;"two\nlines\u2028"\ni/gone.jpg;pug;\n'
    (photos / "list.csv").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"line 5: i/gone\.jpg: no such file"):
        make(tmp_path / "out", photos / "list.csv")


def test_pets_lists_and_sums_end_their_lines_at_line_feeds_alone(tmp_path: Path) -> None:
    write(tmp_path / "images", [f"{c}{ENDS}d_{i}.jpg" for c in "ab" for i in range(3)])
    found = sorted(path.relative_to(tmp_path) for path in (tmp_path / "images").iterdir())
    listed = "# name class\r\n" + "".join(f"{path.stem} 1 1 1\r\n" for path in found)
    with pytest.raises(DataError, match="class names that cannot be"):  # read; refused as names
        oxford_pets(found, {"trainval.txt": listed}, where=tmp_path)  # type: ignore[arg-type]
    write_sums(tmp_path)
    assert check_sums(tmp_path) == []


def test_a_fault_in_classes_yaml_is_one_finding_whatever_its_folder_is_called(
    tmp_path: Path,
) -> None:
    folder = tmp_path / f"dogs{ENDS}"
    folder.mkdir()
    (folder / "classes.yaml").write_text("cat: x\n")
    findings, _ = names_file_findings(folder, {"pug": 3, "akita": 3})
    assert len(findings) == 1


@pytest.mark.parametrize("delimiter", [";", ",", "\t", "|"])
@pytest.mark.parametrize("quote", ["", '"'])
def test_a_first_line_that_names_the_delimiter_is_believed(
    tmp_path: Path, photos: Path, delimiter: str, quote: str
) -> None:
    lines = [("path", "label"), *rows(photos)]
    text = f"{quote}sep={delimiter}{quote}\r\n" + "".join(f"{delimiter.join(x)}\r\n" for x in lines)
    (photos / "list.csv").write_text(f"\ufeff{text}", encoding="utf-8", newline="")
    make(tmp_path / "out", photos / "list.csv")
    assert_all_taken(tmp_path / "out", photos)


def test_a_first_line_that_names_no_delimiter_is_refused(tmp_path: Path, photos: Path) -> None:
    (photos / "list.csv").write_text("sep=\npath;label\n")
    with pytest.raises(DataError, match="first line 'sep=' names no delimiter"):
        make(tmp_path / "out", photos / "list.csv")


@pytest.mark.parametrize("column", ["id", "image_id", "Image Name", "uuid"])
def test_ids_without_ending_find_their_photos(tmp_path: Path, photos: Path, column: str) -> None:
    table = photos / "labels.csv"
    table.write_text(f"{column},breed\n" + "".join(f"{p[2:-4]},{c}\n" for p, c in rows(photos)))
    result = make(tmp_path / "out", table, root=photos / "i")
    assert_all_taken(tmp_path / "out", photos)
    assert "8 lines name their photos without ending" in result.summary()
    assert "'a0.jpg' is taken for 'a0'" in result.summary().replace("\n", " ")


def test_a_list_whose_photos_lie_elsewhere_is_told_where(tmp_path: Path, photos: Path) -> None:
    table = photos / "labels.csv"
    table.write_text("id,breed\na0,pug\n")
    with pytest.raises(DataError) as caught:
        make(tmp_path / "out", table)
    assert "column 'id'" in str(caught.value)
    assert str(caught.value).endswith(f"try --root {photos / 'i'}.")
    table.write_text("path,breed\ni/a0.JPG,pug\n")
    with pytest.raises(DataError) as caught:
        make(tmp_path / "out", table, root=tmp_path)
    assert str(caught.value).endswith(f"a0.jpg lies in {photos / 'i'}: try --root {photos}.")


def test_an_id_that_two_photos_answer_to_is_refused(tmp_path: Path, photos: Path) -> None:
    (photos / "i" / "a0.png").write_bytes(b"another")
    (photos / "list.csv").write_text("id,label\ni/a0,pug\ni/b0,akita\n")
    with pytest.raises(DataError, match=r"line 2: i/a0 could be a0\.jpg or a0\.png"):
        make(tmp_path / "out", photos / "list.csv")


def test_an_ending_in_other_letters_is_found_and_said(tmp_path: Path, photos: Path) -> None:
    lines = [f"{p.replace('.jpg', '.JPG')},{c}\n" for p, c in rows(photos)]
    (photos / "list.csv").write_text("path,label\n" + "".join(lines))
    result = make(tmp_path / "out", photos / "list.csv")
    assert_all_taken(tmp_path / "out", photos)
    assert "'a0.jpg' is taken for 'i/a0.JPG'" in result.summary().replace("\n", " ")


def test_letters_composed_in_another_way_are_the_same_name(tmp_path: Path) -> None:
    names = [f"{c}é{i}.jpg" for c in CLASSES for i in range(3)]
    source = write(tmp_path / "photos", [unicodedata.normalize("NFD", name) for name in names])
    lines = [f"{name[:-4]},{CLASSES[name[0]]}\n" for name in names]
    table = source / "list.csv"
    table.write_text("id,label\n" + "".join(lines), encoding="utf-8")
    make(tmp_path / "out", table)
    assert_all_taken(tmp_path / "out", source)


@pytest.mark.parametrize("name", ["labels.xlsx", "labels.ods"])
def test_a_spreadsheet_is_answered_with_how_to_save_it(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / name, "w") as file:
        file.writestr("sheet.xml", "")
    with pytest.raises(DataError, match=r"save it as CSV \(UTF-8\), and give labels\.csv"):
        make(tmp_path / "out", tmp_path / name)


def test_no_other_name_leads_out_of_the_lists_folder(tmp_path: Path, photos: Path) -> None:
    write(tmp_path, ["secret.jpg"])
    (photos / "list.csv").write_text("id,label\n../secret,pug\n..\\secret,akita\n")
    with pytest.raises(DataError) as caught:
        make(tmp_path / "out", photos / "list.csv")
    assert str(caught.value).count("leads out of") == 2


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("numbers", ["label", "y"])
def test_names_are_taken_rather_than_the_numbers_that_stand_for_them(
    tmp_path: Path, photos: Path, kind: str, numbers: str
) -> None:
    table = photos / f"list.{kind}"
    lines = [
        {"path": p, numbers: list(CLASSES.values()).index(c), "class_name": c}
        for p, c in rows(photos)
    ]
    if kind == "jsonl":
        table.write_text("".join(json.dumps(line) + "\n" for line in lines))
    else:
        text = "".join(",".join(map(str, line.values())) + "\n" for line in lines)
        table.write_text(f"path,{numbers},class_name\n{text}")
    result = make(tmp_path / "out", table)
    assert_all_taken(tmp_path / "out", photos)
    summary = result.summary().replace("\n", " ")
    assert "The labels are those of column 'class_name'" in summary
    assert f"Left aside: {numbers} (--label-column takes another)" in summary
    by_number = make(tmp_path / "numbers", table, label_column=numbers)
    assert by_number.class_names == ("0", "1")
    assert "Left aside" not in by_number.summary()


def test_text_that_is_no_name_of_the_numbers_is_no_label(tmp_path: Path, photos: Path) -> None:
    """A column of the dogs' own names, or of coarser kinds, does not name the classes."""
    table = photos / "list.csv"
    lines = [f"{p},{'pug akita'.index(c)},rex{i},dog\n" for i, (p, c) in enumerate(rows(photos))]
    table.write_text("path,label,name,category\n" + "".join(lines))
    result = make(tmp_path / "out", table)
    assert result.class_names == ("0", "4")
    assert "Left aside: category, name" in result.summary().replace("\n", " ")


def test_a_title_that_stands_twice_is_refused(tmp_path: Path, photos: Path) -> None:
    (photos / "list.csv").write_text("path,label,label\ni/a0.jpg,pug,akita\n")
    with pytest.raises(DataError, match="two columns are called 'label'"):
        make(tmp_path / "out", photos / "list.csv")


def test_a_line_of_json_without_the_label_is_named(tmp_path: Path, photos: Path) -> None:
    lines = [{"path": "i/a0.jpg", "label": "pug"}, {"path": "i/b0.jpg", "class": "akita"}]
    (photos / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(DataError, match="line 2: no 'label', which other lines have"):
        make(tmp_path / "out", photos / "list.jsonl")


@pytest.mark.parametrize(
    "name",
    ["", " pug", ".pug", "pug.", "a/b", "a\\b", "a:b", "con", "LPT1.x", "a\tb", "a\u2028b",
     "x" * 201, "é" * 101, "caf\udce9", "\ud800"],
)  # fmt: skip
def test_a_label_that_can_be_no_class_is_refused_and_no_class_can_be_called_so(
    tmp_path: Path, photos: Path, name: str
) -> None:
    lines = [{"path": "i/a0.jpg", "label": name}, {"path": "i/b0.jpg", "label": "akita"}]
    (photos / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(DataError):
        make(tmp_path / "out", photos / "list.jsonl", splits="random")
    assert not (tmp_path / "out").exists()
    assert class_name_fault(name) is not None


@pytest.mark.parametrize("name", ["a\u200bb", "a\xa0b", "a\u3000b", "a\N{ARABIC LETTER MARK}b"])
def test_no_class_is_called_by_what_cannot_be_seen(name: str) -> None:
    assert class_name_fault(name) is not None
