"""Exports of Label Studio and FiftyOne as sources, and tasks written for Label Studio."""

from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cliptune.checking.suspects import Suspect, check_suspects_file, write_suspects
from cliptune.data.folder import scan_classes
from cliptune.data.multilabel import read_labels
from cliptune.errors import DataError, UserError
from cliptune.labelling.select import Chosen, Selection, check_list_file, write_selection
from cliptune.preparing.multilabel import prepare_multilabel
from cliptune.preparing.prepare import prepare

NAMES = [f"{kind} {number}" for kind in ("cat", "dog") for number in range(5)]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "source" / "data"
    folder.mkdir(parents=True)
    for number, name in enumerate(NAMES):
        Image.new("RGB", (8, 8), (20 * number, 0, 99)).save(folder / f"{name}.jpg")
    return folder


def annotation(*choices: str, control: str = "choice", **more: Any) -> dict[str, Any]:
    result = {
        "id": "x", "from_name": control, "to_name": "image", "type": "choices", "origin": "manual",
        "value": {"choices": list(choices)},
    }  # fmt: skip
    return {"id": 1, "was_cancelled": False, "result": [result] if choices else []} | more


def task(image: str, *annotations: dict[str, Any]) -> dict[str, Any]:
    return {"id": 1, "data": {"image": image}, "annotations": list(annotations), "predictions": []}


def written(path: Path, values: Any) -> Path:
    path.write_text(json.dumps(values), encoding="utf-8", newline="\n")
    return path


def tasks_of(pictures: Path) -> list[dict[str, Any]]:
    """Each photo, in turn by each of the ways in which Label Studio names a file."""
    ways = (
        "/data/local-files/?d=data/{}.jpg", "/data/upload/7/0a1b2c3d-{}.jpg", "data/{}.jpg",
        "http://localhost:8080/data/upload/7/{}.jpg", "s3://bucket/far/data/{}.jpg",
    )  # fmt: skip
    return [
        task(
            ways[i % 5].format(name if i % 5 == 2 else name.replace(" ", "%20")),
            annotation(name.split()[0]),
        )
        for i, name in enumerate(NAMES)
    ]  # fmt: skip


def prepared(folder: Path) -> Counter[str]:
    """Class -> its photos, of all splits."""
    found: Counter[str] = Counter()
    for split in ("train", "val", "test"):
        found.update({name: len(own) for name, own in scan_classes(folder / split).items()})
    return found


def test_photos_are_found_by_every_name_that_label_studio_gives_them(
    tmp_path: Path, pictures: Path
) -> None:
    for name in NAMES[1::5] + NAMES[3::5]:  # uploads: in the folder that --root names
        (pictures / f"{name}.jpg").rename(pictures.parent / f"{name}.jpg")
    export = written(tmp_path / "project-1.json", tasks_of(pictures))
    prepare(tmp_path / "out", source=export, root=pictures.parent, progress=False)
    assert prepared(tmp_path / "out") == {"cat": 5, "dog": 5}


def test_fiftyone_folder_is_read_with_and_without_its_list_of_classes(
    tmp_path: Path, pictures: Path
) -> None:
    kinds = {name: name.split()[0] for name in NAMES}
    numbered = {name: ["cat", "dog"].index(kind) for name, kind in kinds.items()}
    sure = {name: {"label": number, "confidence": 0.9} for name, number in numbered.items()}
    forms = [
        {"labels": kinds}, {"classes": ["cat", "dog"], "labels": numbered},
        {"classes": ["cat", "dog"], "labels": sure}, {"classes": None, "labels": kinds},
    ]  # fmt: skip
    for number, form in enumerate(forms):
        written(pictures.parent / "labels.json", form)
        out = tmp_path / f"out{number}"
        prepare(out, source=pictures.parent, progress=False)
        assert prepared(out) == {"cat": 5, "dog": 5}


def test_several_labels_come_from_both_and_nobody_asked_is_not_none_of_them(
    tmp_path: Path, pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    labels = {name: ["cat", "dog"][: 1 + i % 2] if i else [] for i, name in enumerate(NAMES)}
    tasks = [task(f"data/{name}.jpg", annotation(*own)) for name, own in labels.items()]
    tasks[-1]["annotations"] = []
    tasks[-2]["annotations"] = [annotation("dog", was_cancelled=True)]
    tasks[-3]["annotations"] += [annotation("dog", ground_truth=True)]
    expected = {name: own for name, own in labels.items() if name not in NAMES[-2:]}
    targets = {name: list(own) for name, own in expected.items()}
    for name in NAMES[-2:]:
        targets[name] = None  # type: ignore[assignment]
    written(pictures.parent / "labels.json", {"classes": ["cat"], "labels": targets})
    sources = {
        "studio": (written(pictures.parent / "project.json", tasks), {NAMES[-3]: ["dog"]}),
        "fiftyone": (pictures.parent, {}),
    }
    for kind, (source, other) in sources.items():
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            prepare_multilabel(tmp_path / kind, source, progress=False)
        assert "left out 2" in caplog.text
        found = {
            path.stem: sorted(own)
            for split in ("train", "val", "test")
            for path, own in read_labels(tmp_path / kind / split).items()
        }
        assert found == {name: sorted(own) for name, own in (expected | other).items()}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"a": 1}, "neither Label Studio's export"),
        ([{"image": "a.jpg", "choice": "cat"}], "not 'JSON-MIN'"),
        ([task("a", annotation("cat")), 3], "task 2: no task with 'data'"),
        ([task("a", annotation("cat"), annotation("dog"))], "task 1: its annotations differ"),
        ([task("a", annotation("cat", "dog"))], "several labels. Prepare with --multilabel"),
        ([task("a", annotation("x"), annotation("y", control="sex"))], "called choice, sex.*Name"),
        ([task("a", annotation("cat"))], "task 1: a: no such file"),
        ({"classes": ["cat"], "labels": {"a": 1}}, "a: its label is 1, and there are 1 classes"),
        ({"labels": {"a": True}}, "a: its label is True"),
        ({"labels": {"a": ["x", "y"]}}, "a: x, y: several labels. Prepare with --multilabel"),
        ({"labels": {"gone": "cat"}}, "photo 1: gone: no such file"),
    ],
)
def test_an_export_that_cannot_be_read_is_refused_with_its_task_or_photo(
    values: Any, said: str, tmp_path: Path
) -> None:
    export = written(tmp_path / "export.json", values)
    with pytest.raises(DataError, match=said):
        prepare(tmp_path / "out", source=export, progress=False)
    assert not (tmp_path / "out").exists()


def test_json_that_is_none_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "export.json").write_bytes(b"[{")
    with pytest.raises(DataError, match=r"export\.json: not JSON in UTF-8"):
        prepare(tmp_path / "out", source=tmp_path / "export.json", progress=False)


def test_one_of_several_kinds_of_choices_is_read_by_its_name(
    tmp_path: Path, pictures: Path
) -> None:
    tasks = [
        task(f"data/{name}.jpg", annotation(name.split()[0]) | {
            "result": [*annotation(name.split()[0])["result"],
                       *annotation("blurred", control="quality")["result"]],
        })
        for name in NAMES
    ]  # fmt: skip
    export = written(pictures.parent / "project.json", tasks)
    prepare(tmp_path / "out", source=export, label_column="choice", progress=False)
    assert prepared(tmp_path / "out") == {"cat": 5, "dog": 5}
    with pytest.raises(DataError, match="None is 'sex'"):
        prepare(tmp_path / "no", source=export, label_column="sex", progress=False)


def accepted(path: Path) -> list[dict[str, Any]]:
    """The tasks of `path`, as if somebody had accepted what was filled in."""
    tasks = json.loads(path.read_text(encoding="utf-8"))
    return [
        each | {"id": i, "annotations": [{"result": each["predictions"][0]["result"]}]}
        for i, each in enumerate(tasks)
    ]


def test_suspects_written_as_tasks_come_back_by_prepare_with_the_labels_accepted_there(
    tmp_path: Path, pictures: Path
) -> None:
    suspects = [
        Suspect(file=f"data/{name}.jpg", label="bird", suggested=name.split()[0], score=0.5)
        for name in NAMES
    ]
    path = tmp_path / "suspects.json"
    check_suspects_file(path)
    write_suspects(suspects, path)
    first = json.loads(path.read_text(encoding="utf-8"))[0]
    assert first["data"] == {"image": "/data/local-files/?d=data/cat%200.jpg", "label": "bird"}
    assert first["predictions"][0]["score"] == 0.5
    assert str(tmp_path) not in path.read_text(encoding="utf-8")
    back = written(tmp_path / "project.json", accepted(path))
    prepare(tmp_path / "out", source=back, root=pictures.parent, progress=False)
    assert prepared(tmp_path / "out") == {"cat": 5, "dog": 5}


def test_a_list_for_another_program_is_refused() -> None:
    with pytest.raises(UserError, match=r"in \.json for tasks of Label Studio"):
        check_suspects_file(Path("suspects.xml"))
    with pytest.raises(UserError, match=r"in \.json for tasks of Label"):
        check_list_file(Path("list.xml"))


def test_chosen_photos_are_written_as_tasks_in_their_order_with_the_page_beside_them(
    tmp_path: Path, pictures: Path
) -> None:
    photos = tuple(Chosen(pictures / f"{name}.jpg", "cat", 0.625, 0.9, "dog") for name in NAMES)
    selection = Selection(
        checkpoint=tmp_path, method="margin", photos=photos, num_pool=10, num_known=0,
        num_left_out=0, unreadable=(),
    )  # fmt: skip
    page = write_selection(selection, tmp_path / "deep" / "list.json", images=pictures.parent)
    assert page.is_file()
    tasks = json.loads((tmp_path / "deep" / "list.json").read_text(encoding="utf-8"))
    images = [each["data"]["image"].rpartition("/")[2] for each in tasks]
    assert images == [f"{name}.jpg".replace(" ", "%20") for name in NAMES]
    assert {each["data"]["why"] for each in tasks} == {"cat or dog"}
    assert {each["predictions"][0]["score"] for each in tasks} == {0.625}


def test_class_folders_beside_anothers_labels_json_are_class_folders_still(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in ("cat", "dog"):
        for number in range(4):
            folder = source / "data" / name
            folder.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (20 * number, 0, len(name) * ord(name[0]) % 256)).save(
                folder / f"{number}.png"
            )
    written(source / "labels.json", {"images": [], "annotations": [], "categories": []})
    prepare(tmp_path / "out", source=source, progress=False)
    assert prepared(tmp_path / "out") == {"cat": 4, "dog": 4}
