"""Each form of several labels, in a small instance of its own."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from cliptune.cli import app
from cliptune.data.manifest import read_manifest
from cliptune.data.multilabel import read_labels
from cliptune.errors import DataError
from cliptune.preparing.multilabel import prepare_multilabel
from cliptune.preparing.sources.several_labels import cell_labels, photos_with_labels

LABELS = {
    "p0": ["cat", "dog"], "p1": ["dog"], "p2": [], "p3": ["cat"], "p4": ["bird", "cat", "dog"],
    "p5": ["bird"], "p6": ["cat"], "p7": ["dog"], "p8": ["bird", "dog"], "p9": ["cat"],
}  # fmt: skip
VOC = """<annotation><folder>VOC2012</folder><filename>{file}</filename>
<size><width>8</width><height>8</height><depth>3</depth></size>{objects}</annotation>"""


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "source" / "JPEGImages"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in LABELS:
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(
            folder / f"{name}.jpg"
        )
    return folder


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8", newline="\n")
    return path


def as_bars(folder: Path) -> Path:
    lines = [f"JPEGImages/{name}.jpg,{'|'.join(labels)}" for name, labels in LABELS.items()]
    return write(folder / "bars.csv", "\n".join(["path,labels", *lines]) + "\n")


def as_json_cells(folder: Path) -> Path:
    lines = [
        f"JPEGImages/{name}.jpg\t{json.dumps(labels)}".replace('"', '""').replace("\t", '\t"') + '"'
        for name, labels in LABELS.items()
    ]
    return write(folder / "cells.tsv", "\n".join(["path\tlabels", *lines]) + "\n")


def as_json_lines(folder: Path) -> Path:
    lines = [
        json.dumps({"path": f"JPEGImages/{name}.jpg", "labels": labels})
        for name, labels in LABELS.items()
    ]
    return write(folder / "lines.jsonl", "\n".join(lines) + "\n")


def as_columns(folder: Path) -> Path:
    lines = [
        f"JPEGImages/{name}.jpg," + ",".join(str(int(c in labels)) for c in ("bird", "cat", "dog"))
        for name, labels in LABELS.items()
    ]
    return write(folder / "columns.csv", "\n".join(["path,bird,cat,dog", *lines]) + "\n")


def as_coco(folder: Path) -> Path:
    names = ["bird", "cat", "dog", "never"]
    values = {
        "images": [
            {"id": 100 + i, "file_name": f"JPEGImages/{name}.jpg", "width": 8, "height": 8}
            for i, name in enumerate(LABELS)
        ],
        "categories": [{"id": 7 + i, "name": name} for i, name in enumerate(names)],
        "annotations": [  # a cat may be there twice
            {"id": 1, "image_id": 100 + i, "category_id": 7 + names.index(label), "bbox": [0] * 4}
            for i, labels in enumerate(LABELS.values()) for label in [*labels, *labels[:1]]
        ],
    }  # fmt: skip
    return write(folder / "instances.json", json.dumps(values))


def as_voc(folder: Path) -> Path:
    (folder / "Annotations").mkdir()
    for name, labels in LABELS.items():
        objects = "".join(f"<object><name>{label}</name></object>" for label in labels)
        write(
            folder / "Annotations" / f"{name}.xml", VOC.format(file=f"{name}.jpg", objects=objects)
        )
    return folder


FORMS = (as_bars, as_json_cells, as_json_lines, as_columns, as_coco, as_voc)


@pytest.mark.parametrize("form", FORMS)
def test_each_form_gives_the_same_labels(form, pictures: Path) -> None:
    found = photos_with_labels(
        form(pictures.parent), root=None, image_column=None, label_column=None
    )
    assert {photo.stem: sorted(labels) for photo, labels in found.labels.items()} == LABELS
    assert all(file.is_file() for file in found.files.values())


@pytest.mark.parametrize("form", FORMS)
def test_each_form_becomes_splits_that_hold_every_photo_once(
    form, pictures: Path, tmp_path: Path
) -> None:
    made = prepare_multilabel(tmp_path / "data", form(pictures.parent), progress=False)
    told = {}
    for split in ("train", "val", "test"):
        if made.photos[split]:
            told |= {p.stem: sorted(v) for p, v in read_labels(tmp_path / "data" / split).items()}
    assert told == LABELS
    assert made.without == 1
    manifest = read_manifest(tmp_path / "data")
    assert manifest is not None
    assert manifest.options.multilabel
    assert manifest.counts["train"]["cat"] == made.counts["train"]["cat"] > 0
    again = prepare_multilabel(tmp_path / "again", form_source(form, pictures), progress=False)
    assert again.counts == made.counts


def form_source(form, pictures: Path) -> Path:
    """The same source once more: VOC's folder is made once."""
    return pictures.parent if form is as_voc else form(pictures.parent)


def test_splits_of_voc_and_of_a_column_are_kept(pictures: Path, tmp_path: Path) -> None:
    source = as_voc(pictures.parent)
    (source / "ImageSets" / "Main").mkdir(parents=True)
    write(source / "ImageSets/Main/train.txt", "p0\np1\np4\np5 1\n")
    write(source / "ImageSets/Main/val.txt", "p3\np8\n")
    made = prepare_multilabel(tmp_path / "voc", source, progress=False)
    assert made.photos == {"train": 4, "val": 2, "test": 0}
    lines = [
        f"JPEGImages/{name}.jpg,{'|'.join(labels)},{'train' if name < 'p6' else 'valid'}"
        for name, labels in LABELS.items()
    ]
    table = write(pictures.parent / "t.csv", "\n".join(["path,labels,split", *lines]) + "\n")
    made = prepare_multilabel(tmp_path / "list", table, progress=False)
    assert made.photos == {"train": 6, "val": 4, "test": 0}
    assert {p.stem for p in read_labels(tmp_path / "list" / "val")} == {"p6", "p7", "p8", "p9"}


def test_a_label_that_could_be_two_is_refused_with_both() -> None:
    assert cell_labels('["a", "b"]') == cell_labels(["a", "b"]) == cell_labels("a|b") == ("a", "b")
    with pytest.raises(ValueError, match=r"'a\|b' holds \|.*'a' and 'b'"):
        cell_labels('["a|b", "a"]')
    with pytest.raises(ValueError, match="expected names, found 3"):
        cell_labels([3])


def test_every_fault_of_a_source_is_told_at_once_and_nothing_is_made(
    pictures: Path, tmp_path: Path
) -> None:
    table = write(
        pictures.parent / "t.csv",
        "path,labels\nJPEGImages/p0.jpg,cat\ngone.jpg,dog\nJPEGImages/p0.jpg,dog\n",
    )
    with pytest.raises(DataError, match=r"2 faults") as error:
        prepare_multilabel(tmp_path / "data", table, progress=False)
    assert "line 3: gone.jpg: no such file" in str(error.value)
    assert "its labels are dog here, cat earlier" in str(error.value).replace("'", "")
    assert not (tmp_path / "data").exists()


def test_xml_that_declares_entities_is_refused(pictures: Path, tmp_path: Path) -> None:
    source = as_voc(pictures.parent)
    write(source / "Annotations" / "p0.xml", '<!DOCTYPE a [<!ENTITY b "x">]><annotation/>')
    with pytest.raises(DataError, match=r"p0\.xml: it holds <!DOCTYPE"):
        prepare_multilabel(tmp_path / "data", source, progress=False)


def test_a_folder_that_holds_photos_is_left_as_it_is(pictures: Path, tmp_path: Path) -> None:
    source = as_bars(pictures.parent)
    prepare_multilabel(tmp_path / "data", source, progress=False)
    before = sorted((p, p.stat().st_mtime_ns) for p in (tmp_path / "data").rglob("*"))
    with pytest.raises(DataError, match="in the way"):
        prepare_multilabel(tmp_path / "data", source, progress=False)
    assert sorted((p, p.stat().st_mtime_ns) for p in (tmp_path / "data").rglob("*")) == before


def test_the_command_says_what_it_made_and_what_it_does_not_know(
    pictures: Path, tmp_path: Path
) -> None:
    line = ["prepare", "--multilabel", "--source", str(as_bars(pictures.parent))]
    result = CliRunner().invoke(app, [*line, "--output-dir", str(tmp_path / "data")])
    assert result.exit_code == 0, result.output
    assert "3 classes, any number to a photo; 1 photo without a label" in result.output
    result = CliRunner().invoke(app, [*line, "--output-dir", str(tmp_path / "b"), "--shots", "2"])
    assert result.exit_code != 0
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("named", [True, False])
def test_lists_of_a_dataset_are_labels_by_their_names(
    named: bool, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets", reason="the extra 'hub' is not installed")
    datasets.disable_progress_bars()
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    names = ["bird", "cat", "dog"]
    kind = datasets.ClassLabel(names=names) if named else datasets.Value("string")
    features = datasets.Features({
        "image": datasets.Image(), "objects": datasets.List(kind),
        "camera": datasets.Value("int64"),
    })  # fmt: skip
    source = tmp_path / "parquet"
    source.mkdir()
    for split, chosen in (("train", list(LABELS)[:7]), ("validation", list(LABELS)[7:])):
        cells = {
            "image": [{"bytes": (pictures / f"{name}.jpg").read_bytes(), "path": None}
                      for name in chosen],
            "objects": [[names.index(label) if named else label for label in LABELS[name]]
                        for name in chosen],
            "camera": [int(name[1]) // 4 + 10 * (split == "validation") for name in chosen],
        }  # fmt: skip
        table = datasets.Dataset.from_dict(cells, features=features)
        table.to_parquet(str(source / f"{split}.parquet"))
    made = prepare_multilabel(tmp_path / "data", source, progress=False)
    assert made.photos == {"train": 7, "val": 3, "test": 0}
    for split, chosen in (("train", list(LABELS)[:7]), ("val", list(LABELS)[7:])):
        told = read_labels(tmp_path / "data" / split)
        assert [sorted(own) for own in told.values()] == [LABELS[name] for name in chosen]
        same = [path.read_bytes() for path in told]
        assert same == [(pictures / f"{name}.jpg").read_bytes() for name in chosen]
    prepare_multilabel(tmp_path / "grouped", source, group="camera", progress=False)
    manifest = read_manifest(tmp_path / "grouped")
    assert manifest is not None
    assert list(manifest.groups) == list(manifest.files)
    assert Counter(manifest.groups.values()) == {"0": 4, "1": 3, "11": 1, "12": 2}


def test_a_dataset_of_one_label_is_told_to_be_one(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets", reason="the extra 'hub' is not installed")
    datasets.disable_progress_bars()
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    cells = {"image": [{"bytes": (pictures / "p0.jpg").read_bytes(), "path": None}], "label": ["a"]}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    datasets.Dataset.from_dict(cells, features=features).to_parquet(str(tmp_path / "a.parquet"))
    with pytest.raises(DataError, match="'label' holds no lists"):
        prepare_multilabel(tmp_path / "data", tmp_path / "a.parquet", progress=False)
