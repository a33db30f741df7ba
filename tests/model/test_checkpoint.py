from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from cliptune import Predictor
from cliptune.config import load_settings
from cliptune.errors import CheckpointError, ResourceError
from cliptune.model.backbone import image_features, load_backbone
from cliptune.model.checkpoint import read_checkpoint, resolve_checkpoint, write_checkpoint
from cliptune.model.restore import load_classifier
from cliptune.training.setup import set_up
from cliptune.training.train import train
from conftest import make_model, make_photos


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on a model and photos of its own."""
    folder = tmp_path_factory.mktemp("finished")
    settings = load_settings(
        overrides={
            "model.name": str(make_model(folder / "model")),
            "data.data_dir": str(make_photos(folder / "photos")),
            "data.num_workers": 0,
            "training.num_epochs": 3,
            "training.min_updates": 0,
            "training.learning_rate": 1e-2,
            "training.batch_size": 8,
            "lora.target_modules": ["q_proj", "v_proj", "fc1"],
            "output.output_dir": str(folder / "run"),
            "output.log_dir": str(folder / "logs"),
            "hardware.device": "cpu",
            "hardware.mixed_precision": False,
        }
    )
    return train(settings, progress=False).output_dir


@pytest.fixture
def copy(run_dir: Path, tmp_path: Path) -> Path:
    """A copy of the run's last checkpoint, to be damaged."""
    return Path(shutil.copytree(run_dir / "checkpoint-epoch-3", tmp_path / "checkpoint-epoch-3"))


def test_adapter_loads_with_plain_peft_and_gives_the_same_image_features(run_dir: Path) -> None:
    from peft import PeftModel
    from transformers import CLIPModel

    checkpoint = read_checkpoint(run_dir / "checkpoint-epoch-3")
    base = CLIPModel.from_pretrained(checkpoint.record.base_model.name)
    theirs = PeftModel.from_pretrained(base, checkpoint.path).eval()
    ours = load_classifier(checkpoint)
    torch.manual_seed(0)
    pixels = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        expected = image_features(theirs, ours.preprocess.normalize(pixels))
        found = ours.image_features(pixels)
        plain = image_features(load_backbone(str(base.name_or_path)).model,
                               ours.preprocess.normalize(pixels))  # fmt: skip
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(found, plain, rtol=1e-3)


def test_saved_checkpoint_predicts_identically_in_a_new_process_elsewhere_without_the_data(
    run_dir: Path, tmp_path: Path
) -> None:
    """Also in another directory, after the photos it was trained on are gone."""
    moved = Path(shutil.copytree(run_dir / "checkpoint-epoch-3", tmp_path / "moved"))
    photo = tmp_path / "photo.png"
    shutil.copy(run_dir.parent / "photos" / "test" / "blue" / "blue_0.png", photo)
    here = Predictor(run_dir / "checkpoint-epoch-3", device="cpu").predict(photo, top_k=3)
    hidden = run_dir.parent / "photos.hidden"
    (run_dir.parent / "photos").rename(hidden)
    try:
        program = (
            "import json, sys; from cliptune import Predictor;"
            "p = Predictor(sys.argv[1], device='cpu').predict(sys.argv[2], top_k=3);"
            "print(json.dumps(p.to_dict()))"
        )
        elsewhere = subprocess.run(
            [sys.executable, "-c", program, str(moved), str(photo)],
            cwd=tmp_path, capture_output=True, text=True, check=True,
        )  # fmt: skip
    finally:
        hidden.rename(run_dir.parent / "photos")
    assert json.loads(elsewhere.stdout.splitlines()[-1]) == here.to_dict()


def test_a_run_folder_means_its_best_checkpoint(run_dir: Path) -> None:
    best = resolve_checkpoint(run_dir)
    accuracies = [read_checkpoint(path).val_accuracy for path in run_dir.glob("checkpoint-epoch-*")]
    assert best.val_accuracy == max(a for a in accuracies if a is not None)


def cut(name: str) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        path = folder / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return damage


def other_classes(folder: Path) -> None:
    record = json.loads((folder / "cliptune.json").read_text())
    record["class_names"].append("dingo")
    (folder / "cliptune.json").write_text(json.dumps(record))


def other_rank(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    save_file({k: v[..., :1].contiguous() for k, v in load_file(path).items()}, path)


def lost_layer(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    save_file(dict(list(load_file(path).items())[1:]), path)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: (f / "head.safetensors").unlink(), "head.safetensors missing"),
        (lambda f: (f / "adapter_model.safetensors").unlink(), "adapter_model.safetensors missing"),
        (cut("head.safetensors"), "damaged or cut short"),
        (cut("adapter_model.safetensors"), "damaged or cut short"),
        (cut("cliptune.json"), "damaged or of another format version"),
        (cut("adapter_config.json"), "adapter_config.json"),
        (other_classes, "for the 4 classes"),
        (other_rank, "do not fit the model"),
        (lost_layer, "found nothing"),
    ],
)
def test_a_damaged_checkpoint_is_refused_by_name(
    copy: Path, damage: Callable[[Path], object], words: str
) -> None:
    """Also where the sums say nothing, as in checkpoints of earlier versions."""
    damage(copy)
    with pytest.raises(CheckpointError, match=r"missing|damaged or changed since") as caught:
        Predictor(copy)
    assert str(copy) in str(caught.value)
    (copy / "SHA256SUMS").unlink()
    with pytest.raises(CheckpointError, match=words) as caught:
        Predictor(copy)
    assert str(copy) in str(caught.value)


def test_sums_are_those_of_sha256sum(copy: Path) -> None:
    done = subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=copy)
    assert done.returncode == 0
    (copy / "README.md").write_text("a note of its owner")
    Predictor(copy)


def test_what_only_training_needs_may_be_taken_away(copy: Path) -> None:
    (copy / "resume" / "state.json").unlink()
    with pytest.raises(CheckpointError, match=r"resume/state\.json is missing"):
        Predictor(copy)
    shutil.rmtree(copy / "resume")
    Predictor(copy)


@pytest.mark.parametrize("name", ["../photo", "/etc/passwd", "a/../../b"])
def test_sums_never_lead_out_of_the_folder(copy: Path, name: str) -> None:
    with (copy / "SHA256SUMS").open("a") as file:
        file.write(f"{'0' * 64}  {name}\n")
    with pytest.raises(CheckpointError, match="no file of this folder"):
        Predictor(copy)


def test_pickled_files_in_a_checkpoint_are_never_read(copy: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(copy / "exploded"),)

    for name in ("adapter_model.bin", "head.pt", "optimizer.pt", "pytorch_model.bin"):
        torch.save(Bomb(), copy / name)
    Predictor(copy)
    (copy / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError):
        Predictor(copy)
    assert not (copy / "exploded").exists()


def test_a_checkpoint_of_another_base_model_is_refused(copy: Path, tmp_path: Path) -> None:
    other = make_model(tmp_path / "other", seed=9)
    with pytest.raises(CheckpointError, match="trained on other weights"):
        Predictor(copy, base_model=str(other))
    with pytest.raises(CheckpointError, match="--base-model"):
        Predictor(copy, base_model=str(tmp_path / "none"))


def test_a_moved_base_model_can_be_named(run_dir: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(run_dir.parent / "model", tmp_path / "moved")
    image = Image.fromarray(np.full((40, 40, 3), 90, np.uint8))
    checkpoint = run_dir / "checkpoint-epoch-3"
    one = Predictor(checkpoint).predict(image)
    assert Predictor(checkpoint, base_model=str(moved)).predict(image) == one


def test_a_missing_checkpoint_is_answered_with_those_that_exist(run_dir: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        Predictor(run_dir / "checkpoint-epoch-10")
    message = str(caught.value)
    assert "checkpoint-epoch-1, checkpoint-epoch-2, checkpoint-epoch-3" in message
    assert "The best is" in message
    with pytest.raises(CheckpointError, match="no checkpoint in this folder"):
        Predictor(run_dir.parent)


def test_a_failed_write_leaves_earlier_checkpoints_and_no_remains(
    run_dir: Path, overrides: dict[str, Any], tmp_path: Path
) -> None:
    run = set_up(load_settings(overrides=overrides), progress=False)
    record = read_checkpoint(run_dir / "checkpoint-epoch-3").record
    target = tmp_path / "checkpoint-epoch-1"

    def write(folder: Path) -> None:
        (folder / "extra").write_text("first")

    write_checkpoint(target, run.classifier, record, write_extras=write)
    before = {path.name: path.read_bytes() for path in target.iterdir()}

    def fail(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(ResourceError, match="the disk is full"):
        write_checkpoint(target, run.classifier, record, write_extras=fail)
    assert {path.name: path.read_bytes() for path in target.iterdir()} == before
    assert [path.name for path in tmp_path.glob(".checkpoint*")] == []
