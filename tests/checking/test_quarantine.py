"""What `--fix` sets aside comes back by `--undo`, and neither minds being killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cliptune.checking.check import CheckResult, check
from cliptune.checking.quarantine import QUARANTINE, finish, fix, undo
from cliptune.errors import DataError
from pictures import SPOILT, listing, plant_clean, spoil


def run(data: Path) -> CheckResult:
    return check(data, progress=False)


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
    with pytest.raises(DataError, match="1 file cannot come back"):
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
from cliptune.checking.check import check
from cliptune.preparing.prepare import prepare
from cliptune.checking.quarantine import finish, fix
import cliptune.preparing.sources.hub_dataset, imagehash, scipy.sparse.csgraph

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


@pytest.mark.slow
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


@pytest.mark.slow
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
