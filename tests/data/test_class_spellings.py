"""One class is one class, however its name is spelt: composed, decomposed, with invisible marks."""

from __future__ import annotations

import json
import random
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cliptune import Predictor, evaluate, load_settings, prepare, remove_class, train
from cliptune.checking.check import check
from cliptune.data.classes_file import read_names
from cliptune.data.folder import load_split, load_training_splits, scan_classes
from cliptune.data.manifest import read_manifest
from cliptune.data.naming import clean_name
from cliptune.errors import DataError, SettingsError
from cliptune.files import write_sums
from cliptune.text import columns, no_markup, one_line
from conftest import make_photos

NFC, NFD = (unicodedata.normalize(form, "épagneul") for form in ("NFC", "NFD"))
HINDI, PERSIAN, FARMER, ENGLAND = (
    "क\u094d\u200dष", "می\u200cخواهم", "👩\u200d🌾", "🏴\U000e0067\U000e0062\U000e007f"
)  # fmt: skip


def rename(data_dir: Path, old: str, new: str, *splits: str) -> None:
    for split in splits:
        (data_dir / split / old).rename(data_dir / split / new)


def write_photos(folder: Path, number: int) -> list[str]:
    """Names of `number` photos in `folder`, all different."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    names = [f"{i}.png" for i in range(number)]
    for name in names:
        pixels = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return names


@pytest.mark.parametrize(
    "spelling",
    ["col\u200blie", "\ufeffcollie", "collie\u00a0", "\u3000collie", "\u200ecollie\u200f",
     "col\u00adlie", "col\u200dlie", "collie\u200c", "collie ", "collie"],
)  # fmt: skip
def test_what_nobody_can_see_is_no_part_of_a_name(spelling: str) -> None:
    assert clean_name(spelling) == "collie"


@pytest.mark.parametrize("name", [HINDI, PERSIAN, FARMER, ENGLAND, "അവന\u0d4d\u200d"])
def test_joiners_that_make_another_word_or_emoji_stay(name: str) -> None:
    assert clean_name(name) == name
    assert clean_name(f"\u200b{name}\u00a0") == name


def test_a_clean_name_is_composed_and_cleaning_again_or_decomposing_first_changes_nothing() -> None:
    rng = random.Random(0)
    signs = "e\u0301\u0338a \u00a0\u200b\u200c\u200d\ufeffمی\u094d👩🏴\ufe0f\U000e0067\u1100\u1161"
    for _ in range(5000):
        name = "".join(rng.choices(signs, k=rng.randint(1, 7)))
        clean = clean_name(name)
        assert unicodedata.is_normalized("NFC", clean)
        assert clean_name(clean) == clean == clean_name(unicodedata.normalize("NFD", name))


def test_special_spaces_within_a_name_are_plain_ones() -> None:
    assert clean_name("golden\u00a0retriever") == clean_name("golden\u2003retriever")
    assert clean_name("golden\u00a0retriever") == "golden retriever"


def test_names_of_any_script_reach_the_screen_unharmed() -> None:
    for text in (HINDI, PERSIAN, FARMER):
        assert one_line(text) == text == no_markup(text)
    assert columns(NFC) == columns(NFD) == 8
    assert one_line("a\u202eb\x1b") == "a\ufffdb\ufffd"


def test_class_folders_of_both_forms_are_one_class_in_every_split(tmp_path: Path) -> None:
    make_photos(tmp_path, classes=("blue", NFC))
    rename(tmp_path, NFC, NFD, "val", "test")
    training, val = load_training_splits(tmp_path, val_ratio=0.1, seed=0)
    assert training.class_names == val.class_names == ("blue", NFC)
    assert len(val) == 8
    for known in (NFC, NFD):
        test = load_split(tmp_path, "test", class_names=("blue", known))
        assert not test.missing_classes
        assert not test.extra_classes
        assert [sample.label for sample in test.samples].count(1) == 4
    kinds = {finding.kind for finding in check(tmp_path, progress=False).findings}
    assert not kinds & {"unknown_class", "class_left_out", "class_missing", "similar_names"}


def test_folders_that_become_one_class_bring_all_their_photos_and_it_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_photos(tmp_path, counts={"train": 3}, classes=(NFC, "blue"))
    make_photos(tmp_path, counts={"train": 2}, classes=(NFD, "blue\u200b"))
    found = scan_classes(tmp_path / "train")
    assert {name: len(paths) for name, paths in found.items()} == {"blue": 5, NFC: 5}
    assert "'blue\\u200b' is taken as 'blue'" in caplog.text
    assert f"'{NFC}' is written in 2 ways" in caplog.text
    caplog.clear()
    make_photos(tmp_path / "mac", counts={"train": 1}, classes=(NFD, "blue"))
    scan_classes(tmp_path / "mac" / "train")
    assert not caplog.text  # a form alone is nothing that anybody did


def test_a_name_of_which_nothing_is_seen_is_refused(tmp_path: Path) -> None:
    make_photos(tmp_path, counts={"train": 1}, classes=("a", "\u200b"))
    with pytest.raises(DataError, match=r"called '\\u200b', of which nothing can be seen"):
        scan_classes(tmp_path / "train")


def test_copies_in_two_spellings_of_a_class_are_no_label_conflict(tmp_path: Path) -> None:
    make_photos(tmp_path, classes=("blue", NFC))
    copy = tmp_path / "train" / NFD / "copy.png"
    copy.parent.mkdir()
    copy.write_bytes((tmp_path / "train" / NFC / f"{NFC}_0.png").read_bytes())
    kinds = {finding.kind for finding in check(tmp_path, progress=False).findings}
    assert "copies_in_class" in kinds
    assert "copies_across_classes" not in kinds


def test_classes_yaml_names_classes_in_either_form(tmp_path: Path) -> None:
    (tmp_path / "classes.yaml").write_text(f"{NFD}: Spaniel\u200b\nblue\u200b: Blau\n", "utf-8")
    assert read_names(tmp_path, ["blue", NFC]).display == {"blue": "Blau", NFC: "Spaniel"}
    (tmp_path / "classes.yaml").write_text(f"{NFD}: Spaniel\n{NFC}: Hund\n", "utf-8")
    with pytest.raises(DataError, match=r"classes.yaml:2: written twice: .* are one class"):
        read_names(tmp_path, ["blue", NFC])
    (tmp_path / "classes.yaml").write_text(f"{NFD}: Hund\nblue: Hund\u200b\n", "utf-8")
    with pytest.raises(DataError, match="would all be shown as 'Hund'"):
        read_names(tmp_path, ["blue", NFC])


@pytest.mark.parametrize("ending", ["csv", "jsonl", "folders"])
def test_prepare_makes_one_class_of_all_spellings_of_a_source(
    tmp_path: Path, ending: str, caplog: pytest.LogCaptureFixture
) -> None:
    spellings = [NFC, NFD, f"{NFC}\u200b", f"\u00a0{NFD}"]
    labels = [spellings[i % 4] if i < 8 else "blue" for i in range(16)]
    names = write_photos(tmp_path / "photos", 16)
    source = tmp_path / f"list.{ending}"
    if ending == "csv":
        rows = [f"photos/{name},{label}" for name, label in zip(names, labels, strict=True)]
        source.write_text("path,label\n" + "\n".join(rows), "utf-8")
    elif ending == "jsonl":
        rows = [
            json.dumps({"path": f"photos/{name}", "label": label}, ensure_ascii=False)
            for name, label in zip(names, labels, strict=True)
        ]
        source.write_text("\n".join(rows), "utf-8")
    else:
        for name, label in zip(names, labels, strict=True):
            (source / label).mkdir(parents=True, exist_ok=True)
            (tmp_path / "photos" / name).rename(source / label / name)
    result = prepare(tmp_path / "out", source=source, classes=[NFD, "blue"], progress=False)
    assert result.class_names == ("blue", NFC)
    assert sum(counts[NFC] for counts in result.counts.values()) == 8
    assert sorted(path.name for path in (tmp_path / "out/train").iterdir()) == ["blue", NFC]
    assert f"'{NFC}\\u200b' is taken as '{NFC}'" in caplog.text
    assert f"'\\xa0{NFD}' is taken as '{NFC}'" in caplog.text
    # The same names in another form ask for nothing else.
    again = prepare(tmp_path / "out", source=source, classes=[NFC, "blue"], progress=False)
    assert again.kind == "already_there"


def test_labels_that_look_the_same_do_not_contradict_each_other(tmp_path: Path) -> None:
    names = write_photos(tmp_path / "photos", 8)
    rows = [f"photos/{name},{'blue' if i % 2 else NFC}" for i, name in enumerate(names)]
    rows.append(f"photos/{names[0]},{NFD}\u200b")
    (tmp_path / "list.csv").write_text("path,label\n" + "\n".join(rows), "utf-8")
    made = prepare(tmp_path / "out", source=tmp_path / "list.csv", progress=False)
    assert sum(sum(counts.values()) for counts in made.counts.values()) == 8
    (tmp_path / "list.csv").write_text(f"path,label\nphotos/{names[0]},\u200b\n", "utf-8")
    with pytest.raises(DataError, match="no label for"):
        prepare(tmp_path / "other", source=tmp_path / "list.csv", progress=False)


@pytest.mark.parametrize(("on_disk", "in_list"), [(NFC, NFD), (NFD, NFC)])
def test_a_list_finds_photos_whose_names_the_disk_spells_otherwise(
    tmp_path: Path, on_disk: str, in_list: str
) -> None:
    names = write_photos(tmp_path / on_disk, 8)
    rows = [f"{in_list}/{name},{'blue' if i % 2 else 'red'}" for i, name in enumerate(names)]
    (tmp_path / "list.csv").write_text("path,label\n" + "\n".join(rows), "utf-8")
    made = prepare(tmp_path / "out", source=tmp_path / "list.csv", progress=False)
    assert made.class_names == ("blue", "red")


def test_parquet_makes_one_class_of_all_spellings(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    names = write_photos(tmp_path / "photos", 12)
    images = [{"bytes": (tmp_path / "photos" / n).read_bytes(), "path": n} for n in names]
    labels = [("blue", NFC, f"{NFD}\u200b")[i % 3] for i in range(12)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    table = datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)
    table.to_parquet(tmp_path / "train.parquet")
    made = prepare(tmp_path / "out", source=tmp_path / "train.parquet", progress=False)
    assert made.class_names == ("blue", NFC)


def test_a_prepared_folder_that_came_by_way_of_a_mac_is_not_changed(tmp_path: Path) -> None:
    source = make_photos(tmp_path / "source", counts={"": 6}, classes=("blue", NFC))
    prepare(tmp_path / "out", source=source, progress=False)
    assert read_manifest(tmp_path / "out") is not None
    rename(tmp_path / "out", NFC, NFD, "train", "val", "test")
    for path in list((tmp_path / "out").rglob(f"{NFC}_*")):
        path.rename(path.with_name(unicodedata.normalize("NFD", path.name)))
    found = check(tmp_path / "out", progress=False).findings
    assert "changed" not in {finding.kind for finding in found}


def decomposed(checkpoint: Path) -> None:
    """Rewrite the record as a version before wrote it for a folder spelt in NFD."""
    record = json.loads((checkpoint / "cliptune.json").read_text("utf-8"))
    for key, values in record.items():
        if key == "class_names":
            record[key] = [unicodedata.normalize("NFD", name) for name in values]
        elif key in ("display_names", "prompt_names"):
            record[key] = {unicodedata.normalize("NFD", name): v for name, v in values.items()}
    (checkpoint / "cliptune.json").write_text(json.dumps(record, ensure_ascii=False), "utf-8")
    (checkpoint / "SHA256SUMS").unlink()
    write_sums(checkpoint)


def test_a_run_knows_its_classes_in_every_form(
    tmp_path: Path, overrides: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    data = make_photos(tmp_path / "data", classes=("blue", "cyan", NFC))
    (data / "classes.yaml").write_text(f"{NFD}: Spaniel\n", "utf-8")
    rename(data, NFC, NFD, "train", "test")
    overrides |= {"data.data_dir": str(data), "training.num_epochs": 1}
    run = train(load_settings(overrides=overrides), progress=False).output_dir
    checkpoint = run / "checkpoint-epoch-1"
    record = json.loads((checkpoint / "cliptune.json").read_text("utf-8"))
    assert record["class_names"] == ["blue", "cyan", NFC]
    assert record["display_names"] == {NFC: "Spaniel"}

    options: dict[str, Any] = {"output_dir": None, "baseline": False, "device": "cpu"}
    before = evaluate(run, num_workers=0, progress=False, **options)
    assert not before.missing_classes
    decomposed(checkpoint)
    after = evaluate(run, num_workers=0, progress=False, **options)
    timing = {"seconds": 0, "images_per_second": 0}
    assert after.to_dict() | timing == before.to_dict() | timing
    assert Predictor(run).display_names[NFC] == "Spaniel"

    removed = remove_class(run, f"{NFD}\u200b", device="cpu", progress=False)
    assert removed.checkpoint.record.class_names == ["blue", "cyan"]
    with pytest.raises(SettingsError, match="epoch of this run is done"):  # the classes agree
        train(load_settings(overrides=overrides), resume=True, progress=False)


def test_an_old_checkpoint_of_one_class_in_two_spellings_loads_and_is_not_measured(
    tmp_path: Path,
) -> None:
    make_photos(tmp_path, classes=("blue", NFC))
    with pytest.raises(DataError, match="more than once, in spellings that look the same"):
        load_split(tmp_path, "test", class_names=("blue", NFC, NFD))
