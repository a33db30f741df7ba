"""What `check` finds in folders of photos, what it says, and what `--fix` does about it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults import COPIES, FAULTS, Garden, encoded, plant_in_folders
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cliptune.cli import main
from cliptune.data.audit import CheckResult, check
from cliptune.data.check_report import check_page, check_text, write_check
from cliptune.data.findings import KINDS
from cliptune.data.fingerprints import HASH_BITS, VIEWS, fingerprint
from cliptune.data.folder import load_training_splits
from cliptune.data.near_duplicates import MAX_DISTANCE, near_pairs
from cliptune.data.prepare import prepare
from cliptune.data.quarantine import QUARANTINE, finish, fix, undo
from cliptune.data.tree_findings import name_findings
from cliptune.errors import DataError
from cliptune.text import columns

CLASSES = ("akita", "beagle", "golden_retriever")


def scene(seed: int, *, size: tuple[int, int] = (180, 150)) -> Image.Image:
    """A picture with large and small shapes, as photos have them; each seed another."""
    rng = np.random.default_rng(seed)
    layers = []
    for cells, weight in ((4, 0.6), (12, 0.3), (60, 0.1)):
        pixels = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        layer = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
        layers.append(weight * np.asarray(layer, dtype=np.float32))
    return Image.fromarray(np.clip(np.sum(layers, axis=0), 0, 255).astype(np.uint8))


def plant_clean(folder: Path, *, train: int = 12, later: int = 3) -> Path:
    """`folder/{train,val,test}/<class>/`: different pictures, nothing wrong with them."""
    seed = 0
    for split, number in (("train", train), ("val", later), ("test", later)):
        for name in CLASSES:
            (folder / split / name).mkdir(parents=True)
            for i in range(number):
                seed += 1
                (folder / split / name / f"{name}_{i}.jpg").write_bytes(encoded(scene(seed)))
    return folder


@pytest.fixture(scope="module")
def clean_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plant_clean(tmp_path_factory.mktemp("check") / "clean", train=44, later=8)


@pytest.fixture
def clean(tmp_path: Path, clean_once: Path) -> Path:
    import shutil

    return Path(shutil.copytree(clean_once, tmp_path / "data"))


def run(data: Path) -> CheckResult:
    return check(data, progress=False)


def kinds(result: CheckResult) -> dict[str, int]:
    found: dict[str, int] = {}
    for finding in result.findings:
        found[finding.kind] = found.get(finding.kind, 0) + 1
    return found


def listing(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


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
        "1 are gone": (f"train/akita/{second}",),
        "1 are new": ("train/akita/new.jpg",),
        "1 have other content": (f"train/akita/{first}",),
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
    from cliptune.data.breeds import BREEDS

    assert name_findings(BREEDS) == []


# -- near copies --------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), copy=st.sampled_from(sorted(COPIES)))
def test_a_copy_of_any_kind_is_near_and_another_picture_is_not(seed: int, copy: str) -> None:
    image = scene(seed, size=(220, 180))
    content, _ = COPIES[copy](image)
    with Image.open(io.BytesIO(content)) as opened:
        from cliptune.data.reading import to_rgb

        altered = to_rgb(opened)
    pictures = [image, altered, scene(seed + 1, size=(220, 180))]
    hashes = np.stack([fingerprint(picture.convert("L")) for picture in pictures])
    assert [pair[:2] for pair in near_pairs(hashes)] == [(0, 1)]


def test_the_hash_is_that_of_the_library_on_the_whole_photo() -> None:
    from imagehash import dhash

    grey = scene(5).convert("L").resize((48, 48), Image.Resampling.BOX)
    expected = dhash(grey.resize((17, 16), Image.Resampling.BILINEAR), hash_size=16)
    assert np.array_equal(np.unpackbits(fingerprint(grey)[0]), expected.hash.ravel())


def random_hashes(number: int, *, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (number, len(VIEWS), HASH_BITS // 8), dtype=np.uint8)


def flip(packed: np.ndarray, bits: Sequence[int]) -> np.ndarray:
    flat = np.unpackbits(packed)
    flat[list(bits)] ^= 1
    return np.packbits(flat)


@pytest.mark.parametrize(("distance", "recall"), [(0, 1), (8, 1), (20, 0.995), (30, 0.98)])
def test_pairs_are_found_as_comparing_all_with_all_would(distance: int, recall: float) -> None:
    number, copies = 4000, 400
    hashes = random_hashes(number, seed=distance)
    rng = np.random.default_rng(distance)
    for i in range(copies):
        flipped = flip(hashes[i, 0], rng.permutation(HASH_BITS)[:distance].tolist())
        hashes[number - 1 - i, i % len(VIEWS)] = flipped
    pairs = near_pairs(hashes)
    planted = {(i, number - 1 - i) for i in range(copies)}
    assert {pair[:2] for pair in pairs} <= planted  # random hashes differ in about 128 bits
    assert len(pairs) >= recall * copies
    assert all(pair.distance == distance for pair in pairs)


def test_every_pair_that_is_reported_is_truly_near() -> None:
    # Hashes around few centres, so that many are close to the limit on either side.
    rng = np.random.default_rng(0)
    hashes = random_hashes(300, seed=1)
    for i in range(1, 300):
        centre = hashes[i % 10, 0]
        hashes[i, 0] = flip(centre, rng.permutation(HASH_BITS)[: int(rng.integers(0, 50))].tolist())
    bits = np.unpackbits(hashes[:, 0], axis=1).astype(int)
    whole = {(i, j): int((bits[i] != bits[j]).sum()) for i in range(300) for j in range(i + 1, 300)}
    found = {pair[:2]: pair.distance for pair in near_pairs(hashes) if pair.view == 0}
    assert found
    assert all(whole[pair] == distance <= MAX_DISTANCE for pair, distance in found.items())
    close = {pair for pair, distance in whole.items() if distance <= 12}
    assert close <= set(found)


def test_small_things_on_plain_grounds_are_not_taken_for_one_another() -> None:
    pictures = []
    for seed in range(12):
        ground = Image.new("RGB", (200, 200), "white")
        ground.paste(scene(seed, size=(60, 60)), (70, 70))
        pictures.append(ground.convert("L"))
    assert near_pairs(np.stack([fingerprint(picture) for picture in pictures])) == []


def test_mirrored_pictures_swap_the_first_two_views() -> None:
    from PIL import ImageOps

    grey = scene(3).convert("L")
    mirrored = fingerprint(ImageOps.mirror(grey))
    assert (
        np.unpackbits(mirrored[0]) != np.unpackbits(fingerprint(grey)[1])
    ).sum() <= MAX_DISTANCE / 4


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


# -- --fix and --undo ---------------------------------------------------------------------------


def spoil(data: Path) -> None:
    """A fault of each kind that --fix mends."""
    train, test = data / "train" / "akita", data / "test" / "akita"
    leaked = (test / "akita_0.jpg").read_bytes()
    (train / "leak.jpg").write_bytes(leaked)
    (data / "train" / "beagle" / "conflict.jpg").write_bytes((train / "akita_3.jpg").read_bytes())
    (train / "again.jpg").write_bytes((train / "akita_4.jpg").read_bytes())
    with Image.open(test / "akita_1.jpg") as image:
        (train / "small.jpg").write_bytes(encoded(image.resize((90, 75))))
    (train / "akita_5.jpg").write_bytes(b"")
    (data / "val" / "beagle" / "beagle_0.jpg").write_bytes(b"no photo")


SPOILT = {
    "train/akita/akita_3.jpg": "copies_across_classes",
    "train/akita/akita_4.jpg": "copies_in_class",
    "train/akita/akita_5.jpg": "empty_file",
    "train/akita/leak.jpg": "copies_across_splits",
    "train/akita/small.jpg": "near_across_splits",
    "train/beagle/conflict.jpg": "copies_across_classes",
    "val/beagle/beagle_0.jpg": "unreadable",
}


def test_fix_sets_offenders_aside_and_undo_brings_every_byte_back(clean: Path) -> None:
    spoil(clean)
    before = listing(clean)
    result = run(clean)
    assert result.offenders == SPOILT
    moved = fix(clean, result.offenders)
    assert {move.source: move.kind for move in moved} == SPOILT
    after = listing(clean)
    assert sorted(before.values()) == sorted(
        content for name, content in after.items() if not name.startswith(f"{QUARANTINE}/fix-")
    )
    assert run(clean).errors == run(clean).warnings == ()
    assert not any(name in after for name in SPOILT)
    assert fix(clean, run(clean).offenders) == []
    assert len(undo(clean)) == len(SPOILT)
    restored = listing(clean)
    del restored[f"{QUARANTINE}/fix-0001.undone.json"]
    assert restored == before
    with pytest.raises(DataError, match="nothing to undo"):
        undo(clean)


def test_undo_takes_back_one_fix_after_the_other(clean: Path) -> None:
    fix(clean, {"train/akita/akita_0.jpg": "grey"})
    fix(clean, {"train/akita/akita_1.jpg": "grey"})
    assert [move.source for move in undo(clean)] == ["train/akita/akita_1.jpg"]
    assert [move.source for move in undo(clean)] == ["train/akita/akita_0.jpg"]


def test_undo_moves_nothing_where_a_file_stands_in_the_way(clean: Path) -> None:
    fix(clean, {"train/akita/akita_0.jpg": "grey", "train/akita/akita_1.jpg": "grey"})
    (clean / "train" / "akita" / "akita_1.jpg").write_bytes(b"new")
    before = listing(clean)
    with pytest.raises(DataError, match="1 files cannot come back"):
        undo(clean)
    assert listing(clean) == before


def test_a_record_that_leads_out_of_the_folder_is_refused(clean: Path) -> None:
    fix(clean, {"train/akita/akita_0.jpg": "grey"})
    record = clean / QUARANTINE / "fix-0001.json"
    for path in ("../../evil.jpg", "/tmp/evil.jpg"):
        moves = [{"source": path, "target": f"{QUARANTINE}/0001/x.jpg", "kind": "grey"}]
        record.write_text(json.dumps({"moves": moves}))
        with pytest.raises(DataError, match="damaged"):
            undo(clean)


KILLED = """
import os, signal, sys
command, folder, event, number = sys.argv[1], sys.argv[2], 0, int(sys.argv[3])
from pathlib import Path
from cliptune.data.audit import check
from cliptune.data.prepare import prepare
from cliptune.data.quarantine import finish, fix
import cliptune.data.hub_dataset, imagehash, scipy.sparse.csgraph

def count(name, arguments):
    # Everything that changes a folder: files made, renamed, linked, deleted, folders made.
    global event
    writes = name in ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.symlink") or (
        name == "open" and arguments[1] is not None and any(c in str(arguments[1]) for c in "wxa")
    )
    if writes:
        event += 1
        if event == number:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(count)
if command == "prepare":
    prepare(Path(folder), source=Path(sys.argv[4]), progress=False, download=False)
elif not finish(Path(folder)):
    fix(Path(folder), check(Path(folder), progress=False).offenders)
print(event)
"""


def killed_at(number: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command that is killed at its `number`-th change on the disk; 0: never."""
    command, folder, *rest = map(str, arguments)
    return subprocess.run(
        [sys.executable, "-c", KILLED, command, folder, str(number), *rest],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def ten_of(count: int) -> list[int]:
    return sorted({1 + round(i * (count - 1) / 9) for i in range(10)})


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_prepare_killed_at_ten_moments_is_finished_by_the_same_command(tmp_path: Path) -> None:
    photos = plant_clean(tmp_path / "photos", train=3, later=1)
    undisturbed = killed_at(0, "prepare", tmp_path / "whole" / "out", photos)
    expected = listing(tmp_path / "whole")
    assert "out/dataset.json" in expected

    def kill_and_finish(number: int) -> None:
        out = tmp_path / f"killed-{number}" / "out"
        assert killed_at(number, "prepare", out, photos).returncode == -9
        assert killed_at(0, "prepare", out, photos).returncode == 0
        assert listing(out.parent) == expected, number

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(kill_and_finish, ten_of(int(undisturbed.stdout))))


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_fix_killed_at_ten_moments_is_finished_by_the_same_command(tmp_path: Path) -> None:
    import shutil

    spoilt = plant_clean(tmp_path / "spoilt", train=7, later=2)
    spoil(spoilt)
    whole = Path(shutil.copytree(spoilt, tmp_path / "whole"))
    undisturbed = killed_at(0, "fix", whole)
    expected = listing(whole)
    assert f"{QUARANTINE}/0001/train/akita/leak.jpg" in expected

    def kill_and_finish(number: int) -> None:
        data = Path(shutil.copytree(spoilt, tmp_path / f"killed-{number}"))
        assert killed_at(number, "fix", data).returncode == -9
        assert killed_at(0, "fix", data).returncode == 0
        assert listing(data) == expected, number

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(kill_and_finish, ten_of(int(undisturbed.stdout))))


def test_an_interrupted_plan_is_finished_first(clean: Path) -> None:
    fix(clean, {"train/akita/akita_0.jpg": "grey", "train/akita/akita_1.jpg": "grey"})
    expected = listing(clean)
    folder = clean / QUARANTINE
    (folder / "fix-0001.json").rename(folder / "fix-0001.pending.json")
    (folder / "0001/train/akita/akita_1.jpg").rename(clean / "train/akita/akita_1.jpg")
    assert len(finish(clean)) == 2
    assert listing(clean) == expected
    assert finish(clean) == []


# -- the command --------------------------------------------------------------------------------


def cli(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    code = stopped.value.code
    captured = capsys.readouterr()
    return int(code or 0), captured.out, captured.err


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
