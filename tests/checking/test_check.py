"""What `check` finds in folders of photos, what it says, and what `--fix` does about it."""

from __future__ import annotations

import json
import os
import shlex
import zlib
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults import FAULTS, Garden, encoded, plant_in_folders

from cliptune.checking.check import CheckResult, check
from cliptune.checking.findings import KINDS
from cliptune.checking.folder_findings import name_findings
from cliptune.checking.report import check_page, check_text, write_check
from cliptune.cli import main
from cliptune.data.folder import load_training_splits
from cliptune.errors import DataError
from cliptune.preparing.prepare import prepare
from cliptune.text import columns
from pictures import CLASSES, SPOILT, plant_clean, scene, spoil


def run(data: Path) -> CheckResult:
    return check(data, progress=False)


def kinds(result: CheckResult) -> dict[str, int]:
    found: dict[str, int] = {}
    for finding in result.findings:
        found[finding.kind] = found.get(finding.kind, 0) + 1
    return found


def test_a_clean_folder_has_no_findings(clean_once: Path) -> None:
    result = run(clean_once)
    assert result.findings == ()
    assert result.exit_code(strict=True) == 0
    assert result.num_photos == 3 * (44 + 8 + 8)
    assert "It can be trained on" in check_text(result)


@pytest.mark.parametrize("seed", [0, 1])
def test_every_planted_fault_is_found_and_nothing_else(clean: Path, seed: int) -> None:
    garden = Garden(clean, np.random.default_rng(seed))
    planted = {fault: plant(garden) for fault, (_, plant) in FAULTS.items()}
    in_folders = list(plant_in_folders(garden))
    result = run(clean)
    # A text in a corner covers a tenth of these small pictures; each fault but those is certain.
    for fault, files in planted.items():
        kind = FAULTS[fault][0]
        assert any(f.kind == kind and set(files) <= set(f.files) for f in result.findings), fault
    for fault, kind, words in in_folders:
        texts = [" ".join([f.detail, *f.files]) for f in result.findings if f.kind == kind]
        assert any(words in text for text in texts), fault
    named = {name for files in planted.values() for name in files}
    stray = [f for f in result.findings if f.kind.startswith("near") and not set(f.files) & named]
    assert stray == []
    assert {finding.kind for finding in result.findings} <= set(KINDS)
    assert result.exit_code() == 2


@pytest.mark.parametrize(
    ("classes", "trains"),
    [
        ({"train": {"a": 4, "b": 4}}, True),
        ({"train": {"a": 4, "b": 4}, "val": {"a": 1}}, True),
        ({"train": {"a": 4, "b": 0}}, False),
        ({"train": {"a": 4}}, False),
        ({"train": {"a": 4, "b": 4}, "val": {"c": 1}}, False),
        ({"train": {"a": 4, "b": 4}, "val": {"a": 0}}, False),
        ({"train": {"a": 0, "b": 0}}, False),
        ({"val": {"a": 4, "b": 4}}, False),
        ({}, False),
    ],
)
def test_errors_of_folders_are_found_exactly_where_training_would_refuse(
    tmp_path: Path, classes: dict[str, dict[str, int]], trains: bool
) -> None:
    seed = 0
    for split, numbers in classes.items():
        for name, number in numbers.items():
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(number):
                seed += 1
                (tmp_path / split / name / f"{i}.png").write_bytes(encoded(scene(seed), "PNG"))
    assert (not run(tmp_path).errors) == trains
    if trains:
        load_training_splits(tmp_path, val_ratio=0.1, seed=0)
    else:
        with pytest.raises(DataError):
            load_training_splits(tmp_path, val_ratio=0.1, seed=0)


def test_a_check_needs_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        run(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="this is a file"):
        run(tmp_path / "file")


def test_class_folders_that_were_not_split_are_answered_with_the_command(clean: Path) -> None:
    (fault,) = run(clean / "train").errors
    assert fault.kind == "no_photos"
    assert "it holds akita, beagle, golden_retriever" in fault.detail
    assert f"cliptune prepare --source {clean / 'train'} --output-dir" in fault.detail


@pytest.mark.skipif(os.sep == "\\", reason="there a backslash parts folders")
def test_names_with_backslashes_are_told_with_the_verb_that_takes_them_apart(
    tmp_path: Path,
) -> None:
    for i in range(2):
        scene(i).save(tmp_path / f"train\\cat\\{i}.png")
    (fault,) = check(tmp_path, progress=False).findings
    assert "2 files hold backslashes ('train\\cat\\0.png')" in fault.detail
    assert "cliptune prepare --source" in fault.detail


def test_a_short_train_split_asked_for_by_shots_is_no_warning(tmp_path: Path) -> None:
    for name in CLASSES:
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(12):
            path = tmp_path / "photos" / name / f"{i}.jpg"
            path.write_bytes(encoded(scene(zlib.crc32(f"{name} {i}".encode()))))
    source = tmp_path / "photos"
    prepare(tmp_path / "two", source=source, shots=2, progress=False, download=False)
    assert run(tmp_path / "two").warnings == ()
    (tmp_path / "two" / "dataset.json").unlink()
    assert kinds(run(tmp_path / "two")) == {"few_photos": 1}


def test_files_changed_since_they_were_prepared_are_named(tmp_path: Path) -> None:
    photos = plant_clean(tmp_path / "photos")
    prepare(tmp_path / "out", source=photos, progress=False, download=False)
    assert run(tmp_path / "out").findings == ()
    train = tmp_path / "out" / "train" / "akita"
    first, second = sorted(path.name for path in train.iterdir())[:2]
    (train / first).write_bytes(encoded(scene(1000)))
    (train / second).unlink()
    (train / "new.jpg").write_bytes(encoded(scene(1001)))
    changed = {f.detail: f.files for f in run(tmp_path / "out").findings if f.kind == "changed"}
    assert changed == {
        "1 is gone": (f"train/akita/{second}",),
        "1 is new": ("train/akita/new.jpg",),
        "1 has other content": (f"train/akita/{first}",),
    }


@pytest.mark.parametrize(
    ("names", "alike"),
    [
        (["Golden-Retriever", "golden_retriever"], True),
        (["n02085620-Chihuahua", "chihuahua"], True),
        (["beagles", "beagle"], True),
        (["chihuahua", "chihauhua"], True),
        (["labrador", "labradr"], True),
        (["class_1", "class_2"], False),
        (["norfolk_terrier", "norwich_terrier"], False),
        (["pug", "bug"], False),
        (["金毛", "哈士奇"], False),
    ],
)
def test_names_that_differ_by_spelling_only_are_told_from_others(
    names: list[str], alike: bool
) -> None:
    assert bool(name_findings([*names, "malinois"])) == alike


def test_faults_of_classes_yaml_are_errors_and_its_prompts_answer_for_odd_names(
    clean: Path,
) -> None:
    for split in ("train", "val", "test"):
        (clean / split / "akita").rename(clean / split / "7")
    assert kinds(run(clean)) == {"odd_names": 1}
    names = clean / "classes.yaml"
    names.write_text("'7':\n  name: 秋田犬\n  prompts: [akita]\n", encoding="utf-8")
    assert run(clean).findings == ()
    names.write_text("'8': akita\nbeagle: [x]\n", encoding="utf-8")
    faults = [finding.detail for finding in run(clean).errors]
    assert any("classes.yaml:1: unknown class '8'" in fault for fault in faults)
    assert any("classes.yaml:2: beagle: found ['x']" in fault for fault in faults)


def test_no_two_of_stanford_dogs_breeds_look_like_one() -> None:
    from cliptune.preparing.breeds import BREEDS

    assert name_findings(BREEDS) == []


# -- what is written ----------------------------------------------------------------------------


def test_json_and_text_tell_the_same_and_text_fits_80_columns(clean: Path, tmp_path: Path) -> None:
    garden = Garden(clean, np.random.default_rng(3))
    for _, plant in FAULTS.values():
        plant(garden)
    list(plant_in_folders(garden))
    result = run(clean)
    page, data = write_check(result, tmp_path / "out")[::-1]
    told = json.loads(data.read_text(encoding="utf-8"))
    assert told["num_errors"] == len(result.errors)
    assert [f["kind"] for f in told["findings"]] == [f.kind for f in result.findings]
    text = check_text(result)
    assert f"{len(result.errors)} errors:" in text
    assert max(columns(line) for line in text.splitlines()) <= 80
    assert page.stat().st_size < 5e6


HOSTILE = '<img src=x onerror=alert(1)>&"'


def test_names_cannot_become_markup_of_the_page(tmp_path: Path) -> None:
    plant_clean(tmp_path / "data", train=2, later=1)
    folder = tmp_path / "data" / "train" / HOSTILE
    folder.mkdir()
    for name in ("1.jpg", f"{HOSTILE.replace('/', '')}.jpg"):
        (folder / name).write_bytes(encoded(scene(99)))
    page = check_page(run(tmp_path / "data"))
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page


# -- the command --------------------------------------------------------------------------------


def cli(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    code = stopped.value.code
    captured = capsys.readouterr()
    return int(code or 0), captured.out, captured.err


def test_the_page_shows_the_line_that_looks_again_and_moves_nothing(
    clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, line = tmp_path / "report" / "check.html", ["check", str(clean), "--strict"]
    for more in ([], ["--fix"]):
        cli(capsys, *line, *more, "--output", page.parent)
        shown = f"<code>{shlex.join(['cliptune', *line])}</code>"
        assert shown in unescape(page.read_text(encoding="utf-8"))
    result = run(clean)
    assert "<code>" not in check_page(result)
    assert "<code>my own &lt;line&gt;</code>" in check_page(result, "my own <line>")


def test_exit_codes_tell_clean_from_warnings_from_errors(
    clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out: dict[str, Any] = {"--output": tmp_path / "report"}
    options = [item for pair in out.items() for item in pair]
    assert cli(capsys, "check", clean, *options, "--strict")[0] == 0
    photo = clean / "train" / "akita" / "akita_0.jpg"
    photo.with_name("again.jpg").write_bytes(photo.read_bytes())
    assert cli(capsys, "check", clean, *options)[0] == 0
    assert cli(capsys, "check", clean, *options, "--strict")[0] == 3
    (clean / "train" / "akita" / "akita_9.jpg").write_bytes(b"")
    code, text, _ = cli(capsys, "check", clean, *options, "--strict")
    assert code == 2
    assert "files without content (1)" in text
    assert (tmp_path / "report" / "check.html").exists()


def test_fix_and_undo_by_the_command_tell_what_was_moved(
    clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(clean)
    report = ("--output", tmp_path / "report")
    code, text, _ = cli(capsys, "check", clean, "--fix", *report)
    assert code == 0
    assert f"{len(SPOILT)} files set aside" in text
    assert f"cliptune check {clean} --undo" in text
    code, text, _ = cli(capsys, "check", clean, "--undo", *report)
    assert (code, f"{len(SPOILT)} files brought back" in text) == (0, True)
    code, _, error = cli(capsys, "check", clean, "--undo", *report)
    assert (code, "nothing to undo" in error) == (2, True)
    assert cli(capsys, "check", clean, "--fix", "--undo", *report)[0] == 2


def test_validate_of_prepare_is_the_same_check(
    clean: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli(capsys, "prepare", "--output_dir", clean, "--validate")[0] == 0
    (clean / "val" / "akita" / "akita_0.jpg").write_bytes(b"")
    code, text, _ = cli(capsys, "prepare", "--output_dir", clean, "--validate")
    assert (code, "files without content (1)" in text) == (2, True)


# -- the page in a browser ----------------------------------------------------------------------


def test_the_page_shows_every_group_with_pictures_in_a_real_browser(
    clean: Path, tmp_path: Path
) -> None:
    from browser import browser, wider_than_window

    spoil(clean)
    result = run(clean)
    page = write_check(result, tmp_path / "out")[1]
    with browser(tmp_path / "profile") as chrome:
        chrome.get(page.as_uri())
        assert "data: what is wrong with it" in chrome.title
        for kind in kinds(result):
            assert len(chrome.find_elements("css selector", f"section#{kind}")) == 1
        groups = [f for f in result.findings if f.kind.startswith(("copies", "near"))]
        assert len(chrome.find_elements("css selector", ".group")) == len(groups)
        sizes = chrome.execute_script(
            "return [...document.images].map(image => [image.complete, image.naturalWidth])"
        )
        assert len(sizes) == sum(len(finding.files) for finding in groups)
        assert all(complete and width > 0 for complete, width in sizes)
        chrome.find_element("css selector", "a[href='#copies_across_splits']").click()
        top = chrome.execute_script(
            "return document.getElementById('copies_across_splits').getBoundingClientRect().top"
        )
        assert abs(top) < 900
        loaded = chrome.execute_script(
            "return performance.getEntriesByType('resource').map(entry => entry.name)"
        )
        assert all(name.startswith("data:") for name in loaded)
        for width in (1200, 380):
            chrome.set_window_size(width, 900)
            assert not wider_than_window(chrome), width
