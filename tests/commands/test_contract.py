"""What a user of the original tutorial types: files, flags and doors, from the repository root."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
LORA = ROOT / "code" / "02-fine-tuning" / "lora"
DOORS = [LORA / f"{n}.py" for n in ("train", "evaluate", "inference", "dataset")] + [
    ROOT / "scripts" / "prepare_dog_dataset.py"
]


def python(*arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, check=False
    )


def door(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"door_{name}", LORA / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "path",
    [
        *(f"code/02-fine-tuning/lora/{name}" for name in (
            "__init__.py", "config.yaml", "dataset.py", "train.py", "evaluate.py", "inference.py",
            "README.md",
        )),
        "scripts/prepare_dog_dataset.py",
        "docs/02-模型微调技术/01-微调理论基础.md",
        "docs/02-模型微调技术/02-LoRA微调实践.md",
        "LICENSE",
    ],
)  # fmt: skip
def test_file_of_the_contract_exists(path: str) -> None:
    assert (ROOT / path).stat().st_size > 0


def test_doors_are_thin_and_do_no_path_surgery() -> None:
    for path in DOORS:
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) < 60
        assert "sys.path" not in text
    assert not (ROOT / "code" / "__init__.py").exists()  # it would hide the standard library's


@pytest.mark.parametrize("path", DOORS, ids=lambda path: path.name)
def test_a_door_without_the_package_says_how_to_install_it(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-S", "-E", str(path)], capture_output=True, text=True, cwd=ROOT
    )  # -S leaves out site-packages
    assert done.returncode == 1
    assert "pip install -e . -c constraints.txt" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.long
def test_every_command_of_the_contract_works_as_typed(
    clip_folder: Path, photos: Path, tmp_path: Path
) -> None:
    """From a root like the repository's, on small photos and a small model."""
    for name in ("code", "scripts"):
        shutil.copytree(ROOT / name, tmp_path / name)
    config = yaml.safe_load((LORA / "config.yaml").read_text(encoding="utf-8"))
    config["model"]["name"] = str(clip_folder)
    config["data"]["data_dir"] = str(photos)
    config["training"]["min_updates"] = 0  # ten epochs are enough to see what is written
    path = tmp_path / "code/02-fine-tuning/lora/config.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    lora = "code/02-fine-tuning/lora"
    checkpoint = "outputs/lora_finetuning/checkpoint-epoch-10"
    photo = photos / "test" / "blue" / "blue_0.png"

    def run(*arguments: object) -> str:
        done = python(*arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    # Early stopping may end before epoch 10; the commands of the tutorial name that checkpoint.
    text = path.read_text(encoding="utf-8").replace(
        "enabled: true\n    min", "enabled: false\n    min"
    )
    path.write_text(text, encoding="utf-8")
    run(f"{lora}/train.py")
    assert (tmp_path / checkpoint).is_dir()
    assert list((tmp_path / "logs/lora_finetuning").rglob("events*"))
    assert len(list((tmp_path / "outputs/lora_finetuning").glob("checkpoint-*"))) <= 3
    run(f"{lora}/train.py", "--config", f"{lora}/config.yaml", "--data_dir", photos,
        "--output_dir", "outputs/my_model")  # fmt: skip
    run(f"{lora}/evaluate.py", "--checkpoint", checkpoint, "--data_dir", photos, "--split", "test",
        "--output_dir", "outputs/evaluation")  # fmt: skip
    assert {p.name for p in (tmp_path / "outputs/evaluation").iterdir()} >= {
        "evaluation_report.txt", "evaluation_results.json", "confusion_matrix.png",
        "class_performance.png",
    }  # fmt: skip
    assert "blue" in run(f"{lora}/inference.py", "--checkpoint", checkpoint, "--image", photo,
                         "--top_k", "5")  # fmt: skip
    run(f"{lora}/inference.py", "--checkpoint", checkpoint, "--image_dir", photos / "test",
        "--output", "predictions.txt")  # fmt: skip
    assert len((tmp_path / "predictions.txt").read_text().splitlines()) == 12


def test_prepare_without_network_makes_the_tree_with_val_and_says_so(tmp_path: Path) -> None:
    """Fault 1 of the original: it made train and test only, while training demanded val."""
    script = ROOT / "scripts" / "prepare_dog_dataset.py"
    arguments = ("--output_dir", tmp_path / "data" / "dogs", "--num_classes", "10")
    done = python(script, *arguments, "--no-download", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folders = {p.relative_to(tmp_path / "data/dogs") for p in tmp_path.glob("data/dogs/*/*")}
    assert len(folders) == 30
    for split in ("train", "val", "test"):
        assert {Path(split, "golden_retriever"), Path(split, "labrador")} <= folders
    assert "no photos" in done.stdout or "empty" in done.stdout
    checked = python(script, "--output_dir", tmp_path / "data" / "dogs", "--validate")
    assert checked.returncode == 2
    assert "Traceback" not in checked.stderr


def test_tutorial_classes_can_be_imported_and_used(
    overrides: dict[str, Any], photos: Path, tmp_path: Path
) -> None:
    """Fault 5 of the original: `predict` returned a tuple that its annotation denied."""
    from cliptune import Prediction, load_settings, train

    dataset = door("dataset")
    assert len(dataset.DogBreedDataset(photos, "test")) == 12
    assert dataset.create_dataloaders(photos).train.batch_size == 32
    result = train(load_settings(overrides=overrides), progress=False)
    predictor = door("inference").DogBreedPredictor(result.output_dir)
    photo = photos / "test" / "blue" / "blue_0.png"
    assert isinstance(predictor.predict(photo, 3), Prediction)
    assert [type(p) for p in predictor.predict_batch([photo, photo], 2)] == [Prediction] * 2


def test_a_door_on_the_import_path_does_no_harm(tmp_path: Path) -> None:
    """Its folder comes first on the path: `import evaluate` by any library meets the door."""
    done = python("-c", "import evaluate, train, dataset, inference, cliptune.cli", cwd=LORA)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
