from __future__ import annotations

from pathlib import Path

import pytest

pa = pytest.importorskip("pyarrow")

from cliptune.distributed import manifest  # noqa: E402
from cliptune.distributed.manifests import blocks_of, refuse_missing  # noqa: E402
from cliptune.errors import DataError, UserError  # noqa: E402


def rows(path: Path) -> list[dict[str, object]]:
    return [row for block in blocks_of(path) for row in block.to_pylist()]


def write(path: Path, /, **columns: list[object]) -> Path:
    pa.parquet.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize("name", ["m.parquet", "m.csv"])
def test_a_folder_is_listed_once_each_in_one_order(photos: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "photos" / "sub").mkdir(parents=True)
    for each in ("b.JPG", "a.png", "sub/c.webp", ".hidden.png", "notes.txt"):
        (tmp_path / "photos" / each).write_bytes(b"x")
    assert manifest(tmp_path / "photos", tmp_path / name) == 3
    found = rows(tmp_path / name)
    assert [row["id"] for row in found] == [0, 1, 2]
    names = [Path(str(row["path"])).relative_to(tmp_path / "photos").as_posix() for row in found]
    assert names == ["a.png", "b.JPG", "sub/c.webp"]


def test_a_text_file_of_paths_is_a_listing(tmp_path: Path) -> None:
    text = "one.jpg\n\ns3://bucket/two.jpg\n"
    (tmp_path / "list.txt").write_text(text, encoding="utf-8", newline="\n")
    assert manifest(tmp_path / "list.txt", tmp_path / "m.csv") == 2
    assert [row["path"] for row in rows(tmp_path / "m.csv")] == [
        str(tmp_path / "one.jpg"), "s3://bucket/two.jpg",
    ]  # fmt: skip


def test_rows_without_ids_are_numbered_over_all_blocks(tmp_path: Path) -> None:
    count = 70_000  # more than a block
    path = write(tmp_path / "m.parquet", path=[f"{row}.jpg" for row in range(count)])
    ids = [row["id"] for row in rows(path)]
    assert ids == list(range(count))


def test_further_columns_are_passed_over_and_ids_kept(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text('label,path,id\nx,"a, b.jpg",7\ny,c.jpg,-1\n', encoding="utf-8", newline="\n")
    assert rows(path) == [{"id": 7, "path": "a, b.jpg"}, {"id": -1, "path": "c.jpg"}]


def test_faults_of_a_manifest_are_told_with_their_place(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="its columns are url; expected one named path"):
        rows(write(tmp_path / "a.parquet", url=["x.jpg"]))
    with pytest.raises(DataError, match="row 1 has no path"):
        rows(write(tmp_path / "b.parquet", path=["x.jpg", None]))
    with pytest.raises(DataError, match="its column id is of string; expected int64"):
        rows(write(tmp_path / "c.parquet", path=["x.jpg"], id=["one"]))
    with pytest.raises(UserError, match=r"found the ending '\.json'; expected \.parquet or \.csv"):
        rows(tmp_path / "m.json")
    with pytest.raises(UserError, match="there is no such manifest"):
        refuse_missing(str(tmp_path / "none.parquet"))
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(DataError, match="cannot be read as a manifest"):
        rows(tmp_path / "broken.parquet")
    (tmp_path / "m.csv").write_text("path,id\nx.jpg,one\n", encoding="utf-8", newline="\n")
    with pytest.raises(DataError, match="cannot be read as a manifest"):
        rows(tmp_path / "m.csv")


def test_a_folder_without_photos_leaves_no_manifest(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no photos in it"):
        manifest(tmp_path / "empty", tmp_path / "m.parquet")
    assert not (tmp_path / "m.parquet").exists()
