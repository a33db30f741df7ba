"""Folders of splits and folders of classes, told apart by what they hold."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cliptune.data.splits import SPLITS
from cliptune.errors import DataError
from cliptune.preparing.prepare import PrepareResult
from cliptune.preparing.sources.layouts import ClassLayout, find_layout
from sources import contents, make, photo, placed, write


def names(*folders: str, number: int = 3) -> list[str]:
    """`number` photos in each of `folders`, no two of one name."""
    return [f"{at}/{at.replace('/', '-')}{i}.jpg" for at in folders for i in range(number)]


def layout_of(*folders: str, layout: str = "auto", number: int = 3) -> ClassLayout:
    """What is found in folders of photos that lie nowhere."""
    photos = [PurePosixPath(name) for name in names(*folders, number=number)]
    return find_layout(photos, layout=layout, where=Path("photos"))


def splits_of(found: ClassLayout) -> dict[str, str]:
    """split/class of each photo by its name, which tells the folder it came from."""
    return {
        photo.name: f"{found.splits.get(photo)}/{name}"
        for name, photos in found.classes.items()
        for photo in photos
    }


def summary(result: PrepareResult) -> str:
    return " ".join(result.summary().split())


TREE = tuple(f"{split}/{name}" for split in SPLITS for name in ("cat", "dog"))


@pytest.mark.parametrize(
    "more",
    [("unlabeled",), ("holdout/cat", "holdout/dog"), ("extra/a/b",), ("__MACOSX/train/cat",),
     ("annotations",), ("docs",), ("unlabeled", "holdout/cat", "docs", "misc/x")],
)  # fmt: skip
def test_folders_beside_the_splits_are_left_out_and_named(
    tmp_path: Path, more: tuple[str, ...]
) -> None:
    source = write(tmp_path / "photos", names(*TREE, *more))
    result = make(tmp_path / "out", source)
    assert result.class_names == ("cat", "dog")
    for at, files in placed(tmp_path / "out").items():
        assert files == {f"{at.replace('/', '-')}{i}.jpg" for i in range(3)}
    for folder in {name.partition("/")[0] for name in more}:
        number = 3 * sum(name.partition("/")[0] == folder for name in more)
        assert f"{folder}/ ({number} photos)" in summary(result)


def test_what_a_mac_packs_along_changes_nothing(tmp_path: Path) -> None:
    source = write(tmp_path / "photos", names(*TREE))
    shadows = [f"__MACOSX/train/cat/._{i}.jpg" for i in range(3)]
    write(source, shadows)
    result = make(tmp_path / "out", source)
    assert result.class_names == ("cat", "dog")
    assert "Left out, as no split" not in result.summary()


@pytest.mark.parametrize(
    "classes",
    [("train", "bus", "car"), ("test", "control"), ("valid", "invalid"), ("dev", "prod"),
     ("Train", "Tram"), ("steam train", "goods train"), ("test tube", "beaker")],
)  # fmt: skip
def test_a_class_may_be_called_like_a_split(tmp_path: Path, classes: tuple[str, ...]) -> None:
    source = write(tmp_path / "photos", names(*classes))
    result = make(tmp_path / "out", source)
    assert set(result.class_names) == set(classes)
    assert all(result.counts[split][name] == 1 for split in SPLITS for name in classes)


@pytest.mark.parametrize(
    "folders",
    [("train/steam", "train/diesel", "bus", "car"),  # vehicles, or a split beside others?
     ("train/front", "train/side", "bus/front", "bus/side"),
     ("train/cat", "train/dog", "unlabeled"),
     ("train/cat", "train/dog", "holdout/cat", "holdout/dog"),
     ("train", "test", "bus"),
     ("train/cat", "train/dog", "test/bird", "test/fish", "bus"),
     ("train", "unlabeled"), ("train2017", "val2017"), ("train", "val")],
)  # fmt: skip
def test_what_may_be_splits_or_classes_is_refused_and_layout_decides(
    folders: tuple[str, ...],
) -> None:
    tops = {name.partition("/")[0] for name in folders}
    with pytest.raises(DataError, match=r"Is it a split or a class\?") as caught:
        layout_of(*folders)
    assert "--layout classes" in str(caught.value)
    assert set(layout_of(*folders, layout="classes").classes) == tops
    if "--layout splits" in str(caught.value):
        found = layout_of(*folders, layout="splits")
        inner = {name.split("/")[1] for name in folders if name.startswith(("train/", "test/"))}
        assert set(found.classes) == inner
        assert set(found.splits.values()) <= {"train", "test"}
    else:
        assert "--layout names" in str(caught.value)


@pytest.mark.parametrize(
    "tops",
    [("training_set", "test_set"), ("seg_train", "seg_test"), ("Training", "Validation"),
     ("train_images", "test_images"), ("trainset", "testset"), ("train2017", "val2017"),
     ("pets_train", "pets_test"), ("my-dogs-train", "my-dogs-dev")],
)  # fmt: skip
@pytest.mark.parametrize("again", [False, True])
def test_splits_by_other_names_are_splits(tops: tuple[str, str], again: bool) -> None:
    """As many public sets name them, some with the name repeated inside."""
    places = [f"{top}/{top}" if again else top for top in tops]
    found = layout_of(*(f"{place}/{name}" for place in places for name in ("cat", "dog")), "misc")
    assert set(found.classes) == {"cat", "dog"}
    by_name = splits_of(found)
    assert len(by_name) == 12
    for name, place in by_name.items():
        is_train = name.startswith(tops[0])
        assert (place.partition("/")[0] == "train") is is_train


def test_an_unlabelled_test_folder_gives_no_class(tmp_path: Path) -> None:
    for i, test in enumerate(("test", "test/test")):
        source = write(tmp_path / f"photos{i}", names("train/cat", "train/dog", test))
        result = make(tmp_path / f"out{i}", source)
        assert result.class_names == ("cat", "dog")
        assert "3 photos lie in no class folder" in summary(result)


@pytest.mark.parametrize("suffix", ["", "/more"])
def test_splits_inside_class_folders_are_kept(tmp_path: Path, suffix: str) -> None:
    folders = [f"{name}/{split}" for name in ("cat", "dog") for split in ("train", "test", "valid")]
    if suffix:
        with pytest.raises(DataError, match="--layout classes"):
            layout_of(*(f"{folder}{suffix}" for folder in folders))
        return
    source = write(tmp_path / "photos", [*names(*folders), "cat/loose.jpg"])
    result = make(tmp_path / "out", source)
    assert "The splits are the source's own." in summary(result)
    assert "1 photo lies in no class folder" in summary(result)
    own = {"train": "train", "val": "valid", "test": "test"}
    for at, files in placed(tmp_path / "out").items():
        split, _, name = at.partition("/")
        assert files == {f"{name}-{own[split]}{i}.jpg" for i in range(3)}


@pytest.mark.parametrize(
    "folders",
    [("images", "masks"), ("Images", "Segmentation_Class"), ("imgs/a", "imgs/b", "labels"),
     ("images/train/a", "images/train/b", "images/val/a", "masks"),
     ("train/images", "train/masks", "val/images", "val/masks")],
)  # fmt: skip
def test_segmentation_data_is_refused_and_not_made_into_two_classes(
    folders: tuple[str, ...],
) -> None:
    with pytest.raises(DataError, match="segmentation data") as caught:
        layout_of(*folders)
    option = "splits" if folders[0].startswith("train") else "classes"
    assert f"--layout {option}" in str(caught.value)
    assert len(layout_of(*folders, layout=option).classes) == 2


def test_a_refusal_names_the_folder_to_give(tmp_path: Path) -> None:
    source = write(tmp_path / "data set", names(*(f"top/images/{at}" for at in TREE), "top/masks"))
    with pytest.raises(DataError) as caught:
        make(tmp_path / "out", source)
    inner = str(caught.value).partition("alone: --source ")[2].partition(". Should")[0]
    assert make(tmp_path / "out", Path(inner)).class_names == ("cat", "dog")
    source = write(tmp_path / "other", names(*(f"pets/{at}" for at in TREE), "samples"))
    with pytest.raises(DataError, match=rf"alone: --source {source / 'pets'}\. "):
        make(tmp_path / "out2", source)


def test_folders_that_all_hold_the_same_folders_are_told_of(tmp_path: Path) -> None:
    source = write(tmp_path / "photos", names("cam1/cat", "cam1/dog", "cam2/cat", "cam2/dog"))
    result = make(tmp_path / "out", source)
    assert result.class_names == ("cam1", "cam2")
    assert "Each of the folders cam1, cam2 holds cat, dog" in summary(result)
    source = write(tmp_path / "more", names("cat", "dog", "unlabeled"))
    result = make(tmp_path / "out2", source)
    assert "'unlabeled' is taken for a class (--exclude leaves it out)" in summary(result)
    assert make(tmp_path / "out3", source, exclude=["unlabeled"]).class_names == ("cat", "dog")


def test_photos_named_by_class_keep_the_split_of_their_folder() -> None:
    folders = {"train": 6, "val": 3, "test": 3, "unlabeled": 2}
    photos = [
        PurePosixPath(split, f"{name}_{split}_{i}.jpg")
        for split, number in folders.items()
        for name in ("cat", "dog")
        for i in range(number)
    ]
    named = [path.with_name(f"{path.name[:3]}_{i}.jpg") for i, path in enumerate(photos)]
    found = find_layout(named, layout="names", where=Path("photos"))
    assert set(found.classes) == {"cat", "dog"}
    assert all(found.splits[photo] == photo.parts[0] for photo in found.splits)
    assert len(found.splits) == 24
    assert "unlabeled/ (4 photos)" in found.notes[0]


def test_a_list_whose_photos_lie_in_split_folders_is_told_of(tmp_path: Path) -> None:
    folder = write(tmp_path / "data", names(*TREE))
    lines = [f"{name},{name.split('/')[1]}\n" for name in names(*TREE)]
    (folder / "list.csv").write_text("path,label\n" + "".join(lines))
    assert "no column tells splits" in summary(make(tmp_path / "out", folder / "list.csv"))


def test_two_folders_of_one_split_are_refused() -> None:
    with pytest.raises(DataError, match="both val/ and validation/ would be val"):
        layout_of(*TREE, "validation/cat", "validation/dog")
    with pytest.raises(DataError, match="none of its folders cat, dog is named like a split"):
        layout_of("cat", "dog", layout="splits")


CLASS_NAMES = st.lists(
    st.sampled_from(["cat", "dog", "bus", "pug", "corgi", "tram"]), min_size=2, unique=True
)


@settings(deadline=None)
@given(
    classes=CLASS_NAMES,
    splits=st.lists(st.sampled_from(["train", "val", "test"]), min_size=2, unique=True),
    more=st.lists(st.sampled_from(["unlabeled", "docs", "holdout/cat", "x/cat"]), unique=True),
    top=st.sampled_from(["", "data/", "a/b/"]),
)
def test_no_photo_of_a_split_folder_is_ever_dealt_to_another_split(
    classes: list[str], splits: list[str], more: list[str], top: str
) -> None:
    tree = [f"{top}{split}/{name}" for split in splits for name in classes]
    found = layout_of(*tree, *(f"{top}{name}" for name in more))
    assert set(found.classes) == set(classes)
    assert {photo: found.splits[photo] for photo in found.splits} == {
        PurePosixPath(name): split
        for split in splits
        for each in classes
        for name in names(f"{top}{split}/{each}")
    }


def tar_of(path: Path, members: list[str]) -> Path:
    """A tar that holds a different photo under each of the names `members`."""
    with tarfile.open(path, "w") as tar:
        for seed, name in enumerate(members):
            member = tarfile.TarInfo(name)
            member.size = len(photo(seed))
            tar.addfile(member, io.BytesIO(photo(seed)))
    return path


@pytest.mark.parametrize("packed", [False, True])
def test_names_packed_with_backslashes_are_taken_apart_and_said(
    tmp_path: Path, packed: bool
) -> None:
    """As a zip of some programs of Windows is unpacked elsewhere: `train\\cat\\1.jpg` is a file."""
    plain = names(*TREE)
    backslashed = [name.replace("/", "\\") for name in plain]
    shadow = "__MACOSX\\train\\._cat1.jpg"
    if packed:
        source = tar_of(tmp_path / "photos.tar", [*backslashed, shadow])
    else:
        source = write(tmp_path / "photos", [*backslashed, shadow])
    result = make(tmp_path / "out", source)
    make(tmp_path / "expected", write(tmp_path / "plain", plain))
    assert placed(tmp_path / "out") == placed(tmp_path / "expected")
    assert contents(tmp_path / "out") == contents(tmp_path / "expected")
    assert "file names hold backslashes, as archives packed on Windows" in summary(result)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ["cat\\..\\..\\1.jpg", "C:\\cat\\1.jpg", "\\cat\\1.jpg"])
def test_a_name_with_backslashes_that_leads_out_is_refused(
    tmp_path: Path, packed: bool, name: str
) -> None:
    members = [*names("cat", "dog"), name]
    make_source = tar_of if packed else write
    source = make_source(tmp_path / "photos", members)
    with pytest.raises(DataError, match=r"leads out|absolute path|leaves the archive"):
        make(tmp_path / "out", source)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("packed", [False, True])
def test_two_names_for_one_path_are_refused(tmp_path: Path, packed: bool) -> None:
    members = [*names("cat", "dog"), "cat\\cat1.jpg"]
    source = (tar_of if packed else write)(tmp_path / "photos", members)
    with pytest.raises(DataError, match=r"two files would be cat/cat1\.jpg"):
        make(tmp_path / "out", source)


def test_a_list_finds_photos_whose_names_hold_backslashes(tmp_path: Path) -> None:
    source = write(tmp_path / "photos", [name.replace("/", "\\") for name in names("cat", "dog")])
    lines = [f"{path.name},{path.name[:3]}\n" for path in source.iterdir()]
    (source / "list.csv").write_text("path,label\n" + "".join(lines))
    make(tmp_path / "out", source / "list.csv")
    assert len(contents(tmp_path / "out")) == 6
