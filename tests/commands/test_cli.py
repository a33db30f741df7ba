from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cliptune.cli import main
from cliptune.config import load_settings
from cliptune.training.train import train
from conftest import make_photos


def cliptune(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command as a user runs it."""
    return subprocess.run(
        [sys.executable, "-m", "cliptune", *map(str, arguments)],
        capture_output=True, text=True, cwd=cwd, check=False,
    )  # fmt: skip


def fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """(exit code, stderr) of a command that is expected to fail, run in this process."""
    with pytest.raises(SystemExit) as exit_:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return int(str(exit_.value.code)), captured.err


@pytest.fixture
def train_arguments(overrides: dict[str, Any]) -> list[str]:
    import json

    return [x for k, v in overrides.items() for x in ("--set", f"{k}={json.dumps(v)}")]


def test_help_imports_no_torch() -> None:
    program = (
        "import sys; sys.argv = ['cliptune', '--help']\n"
        "from cliptune.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'numpy', 'pydantic', 'PIL'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def test_the_version_is_shown() -> None:
    done = cliptune("--version")
    assert (done.returncode, done.stdout) == (0, "cliptune 0.1.0\n")


@pytest.mark.parametrize("command", ["prepare", "train", "tune", "evaluate", "predict", "demo"])
def test_each_help_has_an_example_within_eighty_columns(command: str) -> None:
    done = cliptune(command, "--help")
    assert done.returncode == 0
    assert f"Example: cliptune {command}" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.slow
def test_the_road_from_training_to_predictions_in_commands(
    train_arguments: list[str], photos: Path, tmp_path: Path
) -> None:
    trained = cliptune("train", *train_arguments)
    assert trained.returncode == 0, trained.stderr
    assert "zero-shot baseline on val" in trained.stderr
    assert "training finished" in trained.stdout
    assert "cliptune evaluate --checkpoint" in trained.stdout
    assert "\x1b" not in trained.stdout + trained.stderr  # colours only on a terminal

    run = tmp_path / "run"
    again = cliptune("train", *train_arguments)
    assert again.returncode == 2
    assert "--resume" in again.stderr

    # The underscores of the tutorial's flags are accepted.
    evaluated = cliptune(
        "evaluate", "--checkpoint", run, "--data_dir", photos, "--split", "test",
        "--output_dir", tmp_path / "evaluation", "--batch_size", 4,
    )  # fmt: skip
    assert evaluated.returncode == 0, evaluated.stderr
    assert "zero-shot" in evaluated.stdout
    assert len(list((tmp_path / "evaluation").iterdir())) == 6

    photo = photos / "test" / "blue" / "blue_0.png"
    one = cliptune("predict", "--checkpoint", run, "--image", photo, "--top_k", 2)
    assert one.returncode == 0, one.stderr
    assert one.stdout.count("%") == 2
    folder = cliptune(
        "predict", "--checkpoint", run, "--image_dir", photos / "test",
        "--output", "predictions.txt", cwd=tmp_path,
    )  # fmt: skip
    assert folder.returncode == 0, folder.stderr
    assert len((tmp_path / "predictions.txt").read_text().splitlines()) == 12


def test_one_unreadable_photo_does_not_stop_a_folder_but_is_told(
    overrides: dict[str, Any], tmp_path: Path
) -> None:
    train(load_settings(overrides=overrides), progress=False)
    folder = make_photos(tmp_path / "new", counts={"x": 1}) / "x"
    (folder / "blue" / "broken.jpg").write_bytes(b"")
    done = cliptune("predict", "--checkpoint", tmp_path / "run", "--image-dir", folder)
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 4
    assert "1 of 4 images could not be read" in done.stderr
    assert "broken.jpg: the file is empty" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--data-dir", "none"], "none: no such folder"),
        (["train", "--config", "none.yaml"], "none.yaml: no such configuration file"),
        (["train", "--set", "lora.rank=4"], "Did you mean 'lora.r'?"),
        (["train", "--set", "lora.r"], "expected KEY=VALUE"),
        (["train", "--batch-size", "0"], "training.batch_size: found 0; expected 1 or more"),
        (["evaluate", "--checkpoint", "none"], "none: no such checkpoint"),
        (["evaluate", "--checkpoint", "none/mine"], "'cliptune train' makes one"),
        (["evaluate", "--checkpoint", "none", "--split", "dev"], "one of train, val, test"),
        (["predict", "--checkpoint", "none"], "--image FILE"),
        (["predict", "--checkpoint", "none", "--image", "."], "this is a folder"),
        (["predict", "--checkpoint", "none", "--image-dir", "none"], "none: no such folder"),
        (["predict", "--checkpoint", "none", "--image", "a.jpg"], "none: no such checkpoint"),
        (["predict", "--checkpoint", "n", "--image", "a", "--output", "x.doc"], "unknown ending"),
        (["prepare", "--num-classes", "1", "--no-download"], "expected 2 to 120"),
        (["prepare", "--validate"], "data/dogs"),
    ],
)  # fmt: skip
def test_a_user_mistake_is_one_clear_message_and_exit_code_2(
    arguments: list[str], words: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    code, message = fails(capsys, *arguments)
    assert code == 2
    assert words in message
    assert list(tmp_path.iterdir()) == []  # nothing half-written


def test_a_device_that_is_not_there_is_named(
    train_arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has the device that the test asks for in vain")
    code, message = fails(capsys, "train", *train_arguments, "--device", "cuda")
    assert code == 2
    assert "device 'cuda' is not available" in message
    assert "cpu" in message


def test_an_unreachable_hub_exits_with_1_and_ways_out(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, message = fails(
        capsys, "train", "--data-dir", photos, "--set", f"model.cache_dir={tmp_path}"
    )
    assert code == 1
    assert "HF_ENDPOINT" in message
    assert "cliptune demo" in message


@pytest.mark.parametrize("key", ["output_dir", "log_dir"])
def test_a_folder_that_cannot_be_written_is_named_before_anything_is_made(
    train_arguments: list[str], tmp_path: Path, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    target = tmp_path / "file" / "run"
    code, message = fails(capsys, "train", *train_arguments, "--set", f"output.{key}={target}")
    assert code == 2
    assert f"output.{key}: found {target}, but {tmp_path / 'file'} is a file" in message
    assert not (tmp_path / "run").exists()


def test_out_of_memory_says_which_settings_to_lower() -> None:
    import torch

    from cliptune.errors import ResourceError
    from cliptune.foreign_errors import memory_errors_in_words

    with (
        pytest.raises(ResourceError, match="gradient_accumulation_steps"),
        memory_errors_in_words(32),
    ):
        torch.empty(2**45)
    with pytest.raises(RuntimeError, match="size"), memory_errors_in_words(32):
        torch.zeros(2) @ torch.zeros(3)
