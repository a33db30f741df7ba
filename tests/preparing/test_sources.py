"""Every form in which labelled photos come, as small real instances of its layout."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

from cliptune.data.manifest import MANIFEST, read_manifest
from cliptune.errors import DataError, HubError
from sources import contents, contents_of, make, photo, placed, write

PETS = [f"{name}_{i}" for name in ("Abyssinian", "great_pyrenees") for i in range(1, 8)]


def write_pets(folder: Path) -> Path:
    """Seven photos of two breeds as the dataset's authors lay them out: 4 trainval, 3 test."""
    write(folder / "images", [f"{name}.jpg" for name in PETS])
    (folder / "images" / "Abyssinian_9.jpg").write_bytes(photo(99))  # in neither list
    (folder / "images" / "Abyssinian_101.mat").write_bytes(b"MATLAB")
    (folder / "annotations" / "trimaps").mkdir(parents=True)
    (folder / "annotations" / "._trainval.txt").write_bytes(b"\0\5\26\7")
    lines = {"trainval.txt": range(1, 5), "test.txt": range(5, 8)}
    for file, numbers in lines.items():
        text = "".join(
            f"{name}_{i} {label} 1 1\n"
            for label, name in enumerate(("Abyssinian", "great_pyrenees"), start=1)
            for i in numbers
        )
        (folder / "annotations" / file).write_text(text)
    (folder / "annotations" / "list.txt").write_text("#Image CLASS-ID SPECIES BREED ID\n")
    return folder


def pack(folder: Path, name: str) -> None:
    with tarfile.open(folder / f"{name}.tar.gz", "w:gz") as tar:
        tar.add(folder / name, arcname=name)


@pytest.mark.parametrize("packed", [False, True])
def test_oxford_pets_keep_their_own_test_list(tmp_path: Path, packed: bool) -> None:
    pets = write_pets(tmp_path / "pets")
    if packed:
        for name in ("images", "annotations"):
            pack(pets, name)
        (pets / "images").rename(tmp_path / "elsewhere")
    result = make(tmp_path / "out", pets)
    found = placed(tmp_path / "out")
    assert found["test/Abyssinian"] == {f"Abyssinian_{i}.jpg" for i in (5, 6, 7)}
    known = {f"great_pyrenees_{i}.jpg" for i in range(1, 5)}
    assert found["train/great_pyrenees"] | found["val/great_pyrenees"] == known
    assert found["val/great_pyrenees"]
    assert "1 photo lies in no list" in result.summary()
    assert "val were taken from its train" in result.summary()
    record = json.loads((tmp_path / "out" / MANIFEST).read_text())["source"]
    assert record == {"name": "pets", "kind": "oxford-pets", "splits": "source"}


def test_a_pets_list_that_names_missing_photos_is_refused(tmp_path: Path) -> None:
    pets = write_pets(tmp_path / "pets")
    (pets / "images" / "Abyssinian_2.jpg").unlink()
    with pytest.raises(DataError, match=r"Abyssinian_2.jpg \(trainval.txt\)"):
        make(tmp_path / "out", pets)
    assert not (tmp_path / "out").exists()


def write_stanford(folder: Path) -> Path:
    """`images.tar` and `lists.tar` as Stanford Dogs has them: 5 photos a breed, 3 for train."""
    from scipy.io import savemat

    breeds = ("n02085620-Chihuahua", "n02110958-pug")
    names = [f"{b}/{b.split('-')[0]}_{i}.jpg" for b in breeds for i in range(5)]
    write(folder / "Images", names)
    with tarfile.open(folder / "images.tar", "w") as tar:
        tar.add(folder / "Images", arcname="Images")
    with tarfile.open(folder / "lists.tar", "w") as tar:
        for file, chosen in (("train_list.mat", (0, 2, 4)), ("test_list.mat", (1, 3))):
            listed = [name for name in names if int(name[-5]) in chosen]
            cells = np.array([[name] for name in listed], dtype=object)
            content = io.BytesIO()
            savemat(content, {"file_list": cells, "labels": np.arange(len(listed))[:, None]})
            member = tarfile.TarInfo(file)
            member.size = len(content.getvalue())
            tar.addfile(member, io.BytesIO(content.getvalue()))
    return folder


def test_stanford_dogs_official_lists_are_taken_when_asked_for(tmp_path: Path) -> None:
    dogs = write_stanford(tmp_path / "stanford")
    make(tmp_path / "official", dogs / "images.tar", splits="source")
    found = placed(tmp_path / "official")
    assert found["test/pug"] == {"n02110958_1.jpg", "n02110958_3.jpg"}
    assert len(found["train/pug"]) == 2
    assert len(found["val/chihuahua"]) == 1
    make(tmp_path / "random", dogs / "images.tar")
    assert read_manifest(tmp_path / "random").source.splits == "random"  # type: ignore[union-attr]
    (dogs / "lists.tar").unlink()
    with pytest.raises(HubError, match=r"lists\.tar elsewhere and save it as"):
        make(tmp_path / "without", dogs / "images.tar", splits="source")


def test_lists_that_are_no_lists_are_refused(tmp_path: Path) -> None:
    dogs = write_stanford(tmp_path / "stanford")
    for content in (b"", b"x" * 2000):
        (dogs / "lists.tar").write_bytes(content)
        with pytest.raises(DataError, match=r"lists\.tar: no train_list\.mat"):
            make(tmp_path / "out", dogs / "images.tar", splits="source")


def test_files_named_by_class_need_no_folders(tmp_path: Path) -> None:
    names = [f"golden_retriever_{i}.jpg" for i in range(4)]
    names += [f"Pug ({i}).jpg" for i in range(3)] + [f"shih-tzu{i}.jpg" for i in range(3)]
    source = write(tmp_path / "flat", names)
    result = make(tmp_path / "out", source)
    assert result.class_names == ("Pug", "golden_retriever", "shih-tzu")
    assert len(contents(tmp_path / "out")) == 10


def test_a_tar_of_files_named_by_class_is_read_likewise(tmp_path: Path) -> None:
    source = write(tmp_path / "flat", [f"{n}_{i}.jpg" for n in "ab" for i in range(4)])
    with tarfile.open(tmp_path / "flat.tar.gz", "w:gz") as tar:
        tar.add(source, arcname="photos")
    assert make(tmp_path / "out", tmp_path / "flat.tar.gz").class_names == ("a", "b")
    assert contents(tmp_path / "out") == contents_of(source)


AWKWARD = ["my dog.jpg", "100%.jpg", "a+b.jpg", "小狗.jpg", "c#d.jpg", "e%20f.jpg"]


@pytest.mark.parametrize("encoded", [False, True])
@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "semicolons", "titleless"])
def test_a_list_names_photos_url_encoded_or_not(tmp_path: Path, kind: str, encoded: bool) -> None:
    folder = write(tmp_path / "data", [f"photos/{name}" for name in AWKWARD])
    rows = []
    for i, name in enumerate(AWKWARD):
        path = quote(f"photos/{name}") if encoded else f"photos/{name}"
        rows.append((path, "ab"[i % 2]))
    if kind == "jsonl":
        text = "".join(json.dumps({"image": p, "label": c}) + "\n" for p, c in rows)
    else:
        delimiter = {"tsv": "\t", "semicolons": ";"}.get(kind, ",")
        titles = "" if kind == "titleless" else delimiter.join(("file_name", "Label")) + "\n"
        text = "\ufeff" + titles + "".join(f"{p}{delimiter}{c}\r\n" for p, c in rows)
    suffix = kind if kind in ("tsv", "jsonl") else "csv"
    (folder / f"list.{suffix}").write_text(text, encoding="utf-8", newline="")
    make(tmp_path / "out", folder / f"list.{suffix}")
    found = placed(tmp_path / "out")
    assert set().union(*(files for at, files in found.items() if at.endswith("/a"))) == {
        PurePosixPath(name).name for name in AWKWARD[::2]
    }
    assert contents(tmp_path / "out") == contents_of(folder)


def test_splits_of_a_list_are_kept_and_what_it_lacks_is_taken_from_train(tmp_path: Path) -> None:
    names = [f"{c}{i}.jpg" for c in "ab" for i in range(10)]
    folder = write(tmp_path / "data", names)
    lines = [f"{name},{name[0]},{'train' if int(name[1]) < 7 else 'Test'}" for name in names]
    (folder / "list.csv").write_text("path,class,split\n" + "\n".join(lines))
    make(tmp_path / "out", folder / "list.csv", train_ratio=0.6, val_ratio=0.3)
    found = placed(tmp_path / "out")
    assert found["test/b"] == {"b7.jpg", "b8.jpg", "b9.jpg"}
    assert (len(found["train/a"]), len(found["val/a"])) == (5, 2)
    make(tmp_path / "random", folder / "list.csv", splits="random")
    assert len(placed(tmp_path / "random")["train/a"]) == 7


def test_every_faulty_line_of_a_list_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "data", ["a.jpg", "b.jpg", "../secret.jpg", "notes.txt"])
    (folder / "up").symlink_to(tmp_path)
    lines = [
        "a.jpg,cat", "a.jpg,dog", "gone.jpg,dog", "../secret.jpg,dog", "notes.txt,dog", "b.jpg,",
        "up/secret.jpg,dog", f"{tmp_path}/secret.jpg,dog", "%2e%2e/secret.jpg,dog",
    ]  # fmt: skip
    (folder / "list.csv").write_text("path,label\n" + "\n".join(lines))
    with pytest.raises(DataError) as caught:
        make(tmp_path / "out", folder / "list.csv")
    message = str(caught.value)
    assert "line 3: a.jpg is 'dog' here, 'cat' in line 2" in message
    assert "line 4: gone.jpg: no such file" in message
    assert "line 6: notes.txt is no .avif" in message
    assert "line 7: no label for b.jpg" in message
    for line in (5, 8, 9, 10):
        assert f"line {line}: " in message
    assert message.count("leads out of") == 4
    assert not (tmp_path / "out").exists()


def test_paths_of_a_list_may_start_at_another_root(tmp_path: Path) -> None:
    folder = write(tmp_path / "photos", [f"{c}{i}.jpg" for c in "ab" for i in range(3)])
    table = tmp_path / "lists" / "list.csv"
    table.parent.mkdir()
    table.write_text("img,species\n" + "".join(f"{p.name},{p.name[0]}\n" for p in folder.iterdir()))
    make(tmp_path / "out", table, root=folder, label_column="species")
    assert contents(tmp_path / "out") == contents_of(folder)


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("l.csv", "path,size\na.jpg,3\n", "no column for the label; found path, size"),
        ("l.csv", "path,label\na.jpg,b,c\n", "line 2 has 3 cells, the first 2"),
        ("l.csv", "", "no line names a photo"),
        ("l.csv", 'path,label\n"a.jpg,b\n', "line 2"),
        ("l.jsonl", "{", "line 1 is not JSON"),
        ("l.jsonl", "[1]", "line 1 is no object"),
        ("l.jsonl", '{"path": ["a.jpg"], "label": 1}', "expected text"),
        ("l.csv", "path,label,split\na.jpg,x,holdout\n", "unknown splits 'holdout'"),
        ("l.csv", "path,label,split\na.jpg,x,train\nb.jpg,x,\n", "line 3: no split"),
        ("l.csv", "path,label\na.jpg,x/y\nb.jpg,z\n", r"'x/y': holds '/'"),
    ],
)
def test_a_list_that_cannot_be_read_says_where(
    tmp_path: Path, name: str, content: str, fault: str
) -> None:
    folder = write(tmp_path / "data", ["a.jpg", "b.jpg"])
    (folder / name).write_text(content)
    with pytest.raises(DataError, match=fault):
        make(tmp_path / "out", folder / name)


def parquet(folder: Path, *, splits: tuple[str, ...]) -> Path:
    """Parquet files as the hub stores them: embedded images, class labels."""
    datasets = pytest.importorskip("datasets", reason="the extra 'hub' is not installed")
    folder.mkdir()
    features = datasets.Features(
        {"img": datasets.Image(), "fine": datasets.ClassLabel(names=["cat", "Irish setter"])}
    )
    for number, split in enumerate(splits):
        rows = {
            "img": [
                {"bytes": photo(100 * number + i, kind="PNG" if i % 2 else "JPEG"), "path": None}
                for i in range(8)
            ],
            "fine": [i % 2 for i in range(8)],
        }
        table = datasets.Dataset.from_dict(rows, features=features)
        table.to_parquet(str(folder / f"{split}-00000-of-00001.parquet"))
    return folder


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets", reason="the extra 'hub' is not installed")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.mark.usefixtures("hub_cache")
def test_parquet_files_keep_labels_splits_and_bytes(tmp_path: Path) -> None:
    source = parquet(tmp_path / "pets", splits=("train", "validation"))
    make(tmp_path / "out", source)
    found = placed(tmp_path / "out")
    assert {path.partition("/")[2] for path in found} == {"cat", "Irish setter"}
    assert len(found["val/cat"]) == 4
    assert len(found["train/cat"]) + len(found["test/cat"]) == 4
    assert {Path(name).suffix for files in found.values() for name in files} == {".jpg", ".png"}
    assert photo(0) in contents(tmp_path / "out")
    assert len(contents(tmp_path / "out")) == 16


@pytest.mark.usefixtures("hub_cache")
def test_one_parquet_file_is_split_at_random(tmp_path: Path) -> None:
    source = parquet(tmp_path / "pets", splits=("train",)) / "train-00000-of-00001.parquet"
    make(tmp_path / "out", source)
    assert read_manifest(tmp_path / "out").source.splits == "random"  # type: ignore[union-attr]
    assert len(contents(tmp_path / "out")) == 8


@pytest.mark.usefixtures("hub_cache")
def test_a_hub_name_that_is_not_reached_is_answered_plainly(tmp_path: Path) -> None:
    with pytest.raises(HubError, match="not loaded from the Hugging Face hub"):
        make(tmp_path / "out", "hf:nobody/nothing-of-this-name")
    with pytest.raises(DataError, match="no name behind it"):
        make(tmp_path / "out", "hf:")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    return write(tmp_path / "photos", [f"{c}/{c}_{i}.jpg" for c in "abc" for i in range(20)])


def test_shots_keep_a_seeded_few_in_train_and_the_other_splits_whole(
    tmp_path: Path, folders: Path
) -> None:
    make(tmp_path / "all", folders)
    make(tmp_path / "four", folders, shots=4)
    make(tmp_path / "two", folders, shots=2)
    whole, four, two = (placed(tmp_path / name) for name in ("all", "four", "two"))
    for at, files in whole.items():
        if at.startswith("train/"):
            assert two[at] < four[at] < files  # fewer shots are a part of more
            assert (len(two[at]), len(four[at])) == (2, 4)
        else:
            assert two[at] == four[at] == files
    with pytest.raises(DataError, match="a: 14 for train, fewer than --shots"):
        make(tmp_path / "many", folders, shots=15)


def test_links_point_at_the_photos_themselves(tmp_path: Path, folders: Path) -> None:
    make(tmp_path / "linked", folders, link=True)
    links = list((tmp_path / "linked").rglob("*.jpg"))
    assert all(path.is_symlink() and path.resolve().is_relative_to(folders) for path in links)
    assert contents(tmp_path / "linked") == contents_of(folders)
    with tarfile.open(tmp_path / "photos.tar", "w") as tar:
        tar.add(folders, arcname="photos")
    with pytest.raises(DataError, match=r"--link: .*photos.tar holds no files of their own"):
        make(tmp_path / "out", tmp_path / "photos.tar", link=True)


def test_resizing_while_copying_keeps_shape_and_leaves_small_photos_alone(tmp_path: Path) -> None:
    sizes = [(200, 100), (100, 300), (64, 64), (20, 90)]
    kinds = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}
    for name in "ab":
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i, size in enumerate(sizes):
            for kind, suffix in kinds.items():
                content = photo(i, size=size, kind=kind)
                (tmp_path / "photos" / name / f"{i}{suffix}").write_bytes(content)
    make(tmp_path / "out", tmp_path / "photos", resize=50)
    expected = {"0": (100, 50), "1": (50, 150), "2": (50, 50), "3": (20, 90)}
    for path in (tmp_path / "out").rglob("*.*"):
        if path.name == MANIFEST:
            continue
        with Image.open(path) as image:
            assert image.size == expected[path.stem]
            assert kinds[image.format or ""] == path.suffix
    small = tmp_path / "photos" / "a" / "3.png"
    assert small.read_bytes() in contents(tmp_path / "out")


def test_resizing_turns_photos_upright(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(3):
            exif = Image.Exif()
            exif[0x0112] = 6
            image = Image.new("RGB", (300, 100), (10 * i, 0, 0))
            image.save(tmp_path / "photos" / name / f"{i}.jpg", exif=exif)
    make(tmp_path / "out", tmp_path / "photos", resize=50)
    for path in (tmp_path / "out").rglob("*.jpg"):
        with Image.open(path) as image:
            assert image.size == (50, 150)
            assert image.getexif().get(0x0112) is None


def test_photos_that_cannot_be_resized_are_all_named(tmp_path: Path, folders: Path) -> None:
    for name in ("a/a_1.jpg", "b/b_2.jpg"):
        (folders / name).write_bytes(b"no photo")
    with pytest.raises(DataError, match=r"2 photos cannot be decoded") as caught:
        make(tmp_path / "out", folders, resize=50)
    assert "a/a_1.jpg" in str(caught.value)
    assert "b/b_2.jpg" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_the_manifest_tells_source_options_counts_and_every_files_content(
    tmp_path: Path, folders: Path
) -> None:
    import hashlib

    make(tmp_path / "one" / "out", folders, seed=3, classes=["a", "c"])
    made = json.loads((tmp_path / "one" / "out" / MANIFEST).read_text())
    assert made["source"] == {"name": "photos", "kind": "folders", "splits": "random"}
    assert made["seed"] == 3
    assert made["options"]["classes"] == ["a", "c"]
    assert made["counts"]["train"] == {"a": 14, "c": 14}
    files = {
        path.relative_to(tmp_path / "one" / "out").as_posix(): hashlib.sha256(
            path.read_bytes()
        ).hexdigest()
        for path in (tmp_path / "one" / "out").rglob("*.jpg")
    }
    assert made["files"] == files
    make(tmp_path / "two" / "out", folders, seed=3, classes=["a", "c"])
    again = (tmp_path / "two" / "out" / MANIFEST).read_bytes()
    assert again == (tmp_path / "one" / "out" / MANIFEST).read_bytes()


def test_a_bomb_is_refused_by_name_before_it_is_unpacked(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "bomb.tar.gz", "w:gz", compresslevel=9) as tar:
        content = photo(0)
        member = tarfile.TarInfo("Images/a/1.jpg")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
        bomb = tarfile.TarInfo("Images/a/zeros.bin")
        bomb.size = 200 * 2**20
        tar.addfile(bomb, Zeros(bomb.size))  # type: ignore[arg-type]
    with pytest.raises(
        DataError, match=r"'Images/a/zeros\.bin' is a bomb: .* Nothing was unpacked"
    ):
        make(tmp_path / "out", tmp_path / "bomb.tar.gz")
    assert not (tmp_path / "out").exists()


class Zeros:
    """A file of so many zero bytes, held nowhere."""

    def __init__(self, size: int) -> None:
        self.left = size

    def read(self, size: int) -> bytes:
        size = min(size, self.left)
        self.left -= size
        return bytes(size)


def test_a_photo_that_claims_to_be_huge_is_refused_by_name(tmp_path: Path) -> None:
    member = tarfile.TarInfo("Images/a/huge.jpg")
    member.size = 2**40
    (tmp_path / "huge.tar").write_bytes(member.tobuf() + bytes(10240))
    with pytest.raises(DataError, match=r"'Images/a/huge.jpg' is 1,099,511,627,776 bytes large"):
        make(tmp_path / "out", tmp_path / "huge.tar")


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (
            {"layout": "piles"},
            "--layout piles: expected auto, folders, classes, splits, names, pets",
        ),
        ({"splits": "mine"}, "--splits mine: expected auto, source, random"),
        ({"resize": 4}, "--resize 4: expected at least 16 pixels"),
        ({"resize": 64, "link": True}, "no --link beside it"),
        ({"shots": 0}, "--shots 0"),
        ({"val_ratio": 0.3}, "--val-ratio 0.3: expected a share above 0 that leaves some"),
        ({"splits": "source"}, "has no splits of its own"),
        ({"layout": "pets"}, "not laid out as Oxford-IIIT Pet"),
    ],
)
def test_options_that_cannot_be_met_are_refused(
    tmp_path: Path, folders: Path, options: dict[str, Any], fault: str
) -> None:
    with pytest.raises(DataError, match=fault):
        make(tmp_path / "out", folders, **options)
    assert not (tmp_path / "out").exists()
