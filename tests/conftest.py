"""Small real models and small real images, made on the spot."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from servers import Served, served

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ["CLIPTUNE_LANG"] = "en"  # whatever the machine's locale
os.environ["HF_HUB_OFFLINE"] = "1"  # no test may depend on a hub
os.environ["CLIPTUNE_CACHE"] = tempfile.mkdtemp(prefix="cliptune-tests-")

# Beside other tests at work, one thread each: two that wait for one another take longer.
torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)

SHARED = Path(__file__).parents[1].parent / "shared"

# What the runs of most tests compute on. `make test-gpu` sets it to cuda.
DEVICE = os.environ.get("CLIPTUNE_TEST_DEVICE", "cpu")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests first."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


COLORS = {"amber": (200, 140, 40), "blue": (40, 60, 200), "cyan": (60, 190, 200)}


def write_tokenizer(folder: Path, *, length: int = 32) -> None:
    """A word-level tokenizer with the special tokens CLIP has."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = [
        "a",
        "photo",
        "of",
        ",",
        ".",
        "type",
        "dog",
        "drawing",
        "amber",
        "blue",
        "cyan",
        "red",
        "green",
        "class",
    ]
    vocabulary = {"<s>": 0, "</s>": 1, "<unk>": 2} | {w: i + 3 for i, w in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
        unk_token="<unk>",
        model_max_length=length,
    ).save_pretrained(folder)


def make_model(folder: Path, kind: str = "clip", *, seed: int = 0, **vision: Any) -> Path:
    """A two-layer dual encoder with random weights in transformers format."""
    from transformers import (
        ChineseCLIPConfig,
        ChineseCLIPModel,
        CLIPConfig,
        CLIPModel,
        SiglipConfig,
        SiglipModel,
    )

    torch.manual_seed(seed)
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    tower |= {"num_attention_heads": 2}
    text = {"vocab_size": 64, "max_position_embeddings": 32, "bos_token_id": 0} | tower
    text |= {"eos_token_id": 1, "pad_token_id": 1}
    image = {"image_size": 32, "patch_size": 8} | tower | vision
    models: dict[str, Callable[[], Any]] = {
        "clip": lambda: CLIPModel(
            CLIPConfig(text_config=text, vision_config=image, projection_dim=24)
        ),
        "siglip": lambda: SiglipModel(
            SiglipConfig(text_config=text | {"projection_size": 32}, vision_config=image)
        ),
        "chinese_clip": lambda: ChineseCLIPModel(
            ChineseCLIPConfig(text_config=text, vision_config=image, projection_dim=24)
        ),
    }
    model = models[kind]()
    with torch.no_grad():
        model.logit_scale.fill_(3.0)
    model.save_pretrained(folder)
    write_tokenizer(folder)
    processor = {
        "image_processor_type": {
            "clip": "CLIPImageProcessor",
            "siglip": "SiglipImageProcessor",
            "chinese_clip": "ChineseCLIPImageProcessor",
        }[kind],
        "size": {"shortest_edge": 32} if kind == "clip" else {"height": 32, "width": 32},
        "do_center_crop": kind == "clip",
        "crop_size": {"height": 32, "width": 32},
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "resample": 3,
    }
    import json

    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def make_photos(
    data_dir: Path,
    *,
    counts: dict[str, int] | None = None,
    classes: tuple[str, ...] = tuple(COLORS),
    seed: int = 0,
) -> Path:
    """`data_dir/{split}/{class}/*.png`: noisy images whose mean colour tells the class."""
    rng = np.random.default_rng(seed)
    for split, count in (counts or {"train": 8, "val": 4, "test": 4}).items():
        for name in classes:
            folder = data_dir / split / name
            folder.mkdir(parents=True, exist_ok=True)
            color = np.array(COLORS.get(name, (90, 160, 90)))
            for i in range(count):
                noise = rng.normal(0, 40, (40, 48, 3))
                pixels = np.clip(color + noise, 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{name}_{i}.png")
    return data_dir


def tensors(checkpoint: Path) -> dict[str, torch.Tensor]:
    """What training changes: adapters and head, by file and name."""
    from safetensors.torch import load_file

    files = ("adapter_model.safetensors", "head.safetensors")
    return {f"{file}/{k}": v for file in files for k, v in load_file(checkpoint / file).items()}


def distance(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """Of all tensors together: the size of the difference, as a share of their size."""
    assert found.keys() == expected.keys()
    apart = sum(float((found[k].double() - expected[k].double()).square().sum()) for k in expected)
    size = sum(float(tensor.double().square().sum()) for tensor in expected.values())
    return float((apart / size) ** 0.5)


def names(run_dir: Path) -> list[str]:
    """The checkpoints of a run, oldest first."""
    from cliptune.model.checkpoint import list_checkpoints

    return [checkpoint.path.name for checkpoint in list_checkpoints(run_dir)]


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "clip")


@pytest.fixture(scope="session", params=["clip", "siglip", "chinese_clip"])
def any_model_folder(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / request.param, request.param)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="session")
def clean_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with nothing wrong, for tests that change nothing."""
    from pictures import plant_clean

    return plant_clean(tmp_path_factory.mktemp("check") / "clean", train=44, later=8)


@pytest.fixture
def clean(tmp_path: Path, clean_once: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(clean_once, tmp_path / "data"))


@pytest.fixture
def overrides(clip_folder: Path, photos: Path, tmp_path: Path) -> dict[str, Any]:
    """Settings of a run that takes a second: three classes, two layers, two epochs."""
    return {
        "model.name": str(clip_folder),
        "model.prompts": ["a photo of a {}."],
        "data.data_dir": str(photos),
        "data.num_workers": 0,
        "training.batch_size": 8,
        "training.num_epochs": 2,
        "training.min_updates": 0,
        "training.val_in_head": "never",  # then what is saved is what val was measured by
        "output.output_dir": str(tmp_path / "run"),
        "output.log_dir": str(tmp_path / "logs"),
        "output.trackers": [],  # their pictures take as long as such a run
        "hardware.device": DEVICE,
        # Laws are proved in float32; processors that compute in bf16 would round them away.
        "hardware.mixed_precision": False,
    }


@pytest.fixture(scope="session")
def dogs10() -> Path:
    folder = SHARED / "data" / "dogs10"
    if not folder.is_dir():
        pytest.skip("the real photos of dogs10 are not on this machine")
    return folder


@pytest.fixture(scope="session")
def small_clip() -> Path:
    folder = SHARED / "models" / "clip-vit-tiny"
    if not folder.is_dir():
        pytest.skip("the small pretrained CLIP is not on this machine")
    return folder


def trained(folder: Path, model: Path, photos: Path, **changes: Any) -> Path:
    """A run in `folder` that took a second; `changes` are settings."""
    from cliptune.config import load_settings
    from cliptune.training.train import train

    settings: dict[str, Any] = {
        "model.name": str(model), "data.data_dir": str(photos), "data.num_workers": 0,
        "training.num_epochs": 2, "training.min_updates": 0, "training.learning_rate": 1e-2,
        "training.batch_size": 8, "output.output_dir": str(folder / "run"),
        "output.log_dir": str(folder / "logs"), "output.trackers": [],
        "hardware.device": DEVICE, "hardware.mixed_precision": False,
    }  # fmt: skip
    return train(load_settings(overrides=settings | changes), progress=False).output_dir


@pytest.fixture(scope="session")
def tiny_run(clip_folder: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three classes and two layers, for tests that change nothing of it."""
    return trained(tmp_path_factory.mktemp("tiny"), clip_folder, photos)


@pytest.fixture(scope="session")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small photos that show up to three of four classes."""
    from halves import make_halves

    return make_halves(tmp_path_factory.mktemp("halves"), {"train": 60, "val": 30, "test": 30})


@pytest.fixture(scope="session")
def label_run(clip_folder: Path, halves: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on them, for tests that change nothing of it."""
    more = {"training.batch_size": 16, "training.val_in_head": "never"}
    return trained(tmp_path_factory.mktemp("several"), clip_folder, halves, **more)


@pytest.fixture(scope="session")
def server(tiny_run: Path) -> Iterator[Served]:
    """A server of it, with small limits."""
    with served(tiny_run, "--max-bytes", "200000", "--max-pixels", "10000000", "--max-photos", "3",
                "--timeout", "4", "--log-json") as running:  # fmt: skip
        yield running
