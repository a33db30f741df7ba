"""`cliptune init` and `cliptune doctor`: what a newcomer types first."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cliptune.cli import main
from cliptune.doctor import Finding, examine
from cliptune.errors import UserError
from cliptune.tutorial.write import DOORS, LORA, write_tutorial

ROOT = Path(__file__).parents[2]


def python(*words: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, words)], capture_output=True, text=True, cwd=cwd,
        env=os.environ | environment, encoding="utf-8",
    )  # fmt: skip


@pytest.mark.slow
def test_the_folder_of_init_holds_the_tutorials_scripts_and_they_start_there(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "my classifier"
    written = write_tutorial(folder)
    assert {path.relative_to(folder).as_posix() for path in written} == {
        *DOORS, "README.md", "README.zh-CN.md", "data/README.md",
    }  # fmt: skip
    for name in DOORS:
        assert (folder / name).read_bytes() == (ROOT / name).read_bytes()
    for script in ("train.py", "evaluate.py", "inference.py"):
        assert python(f"{LORA}/{script}", "--help", cwd=folder).returncode == 0
    told = python(f"{LORA}/train.py", cwd=folder)
    assert told.returncode != 0
    assert "data/dogs" in told.stderr  # there are no photos yet, and it says where


def test_init_keeps_what_is_there_and_refuses_what_was_edited(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    write_tutorial(tmp_path)
    assert write_tutorial(tmp_path) == []
    settings = tmp_path / LORA / "config.yaml"
    settings.write_text("seed: 7\n", encoding="utf-8")
    (tmp_path / "README.md").unlink()
    with pytest.raises(UserError, match=r"(?s)config\.yaml.*Nothing was written"):
        write_tutorial(tmp_path)
    assert settings.read_text(encoding="utf-8") == "seed: 7\n"
    assert not (tmp_path / "README.md").exists()
    assert (tmp_path / "notes.txt").exists()


def test_each_thing_that_is_not_well_comes_with_what_to_do() -> None:
    findings = examine(network=False)
    assert {finding.group for finding in findings} == {
        "versions", "devices", "processor", "memory", "disk", "extras",
    }  # fmt: skip
    assert all(bool(finding.do) == (finding.state != "ok") for finding in findings)


def test_the_doctors_answer_can_be_read_by_programs(capsys: pytest.CaptureFixture[str]) -> None:
    main_answers("doctor", "--json", "--no-network")
    told = json.loads(capsys.readouterr().out)
    findings = [Finding(**found) for found in told["findings"]]
    assert "torch" in {finding.name for finding in findings}


def main_answers(*words: str) -> None:
    with pytest.raises(SystemExit) as stop:
        main(list(words))
    assert stop.value.code in (0, None)


def test_a_hub_that_is_not_there_is_told_with_the_ways_around_it(tmp_path: Path) -> None:
    told = python(
        "-m", "cliptune", "doctor", cwd=tmp_path, HF_ENDPOINT="http://127.0.0.1:9",
        HF_HUB_OFFLINE="0",
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    assert "http://127.0.0.1:9 not reached" in " ".join(told.stdout.split())
    assert "a mirror (HF_ENDPOINT)" in told.stdout


def test_more_threads_than_cores_are_told_with_the_number_to_set(tmp_path: Path) -> None:
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system does not bind processes to cores")
    program = (
        "import os, torch; torch.set_num_threads(8); os.sched_setaffinity(0, [min("
        "os.sched_getaffinity(0))]); from cliptune.doctor import examine;"
        "print([f.do for f in examine(network=False) if f.name == 'cores'])"
    )
    assert "Set OMP_NUM_THREADS=1." in python("-c", program, cwd=tmp_path).stdout


def test_the_doctor_does_not_ask_a_hub_that_it_is_told_to_leave_alone(tmp_path: Path) -> None:
    told = python("-m", "cliptune", "doctor", cwd=tmp_path, HF_HUB_OFFLINE="1")
    assert "not asked: HF_HUB_OFFLINE is set" in told.stdout
