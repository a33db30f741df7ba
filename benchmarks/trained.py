"""Whole runs of `cliptune train` on a few photos, for `accuracy.py`: recipe -> logits of test."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cliptune.config import load_settings
from cliptune.data.folder import Sample, Split
from cliptune.data.loading import PhotoDataset, make_loader
from cliptune.model.classifier import predict_logits
from cliptune.model.loaded import LoadedCheckpoint
from cliptune.training.train import train

# CLIP-LoRA (Zanella & Ben Ayed, arXiv 2405.18541) scales by α/√r and trains 300 updates here.
CLIP_LORA: dict[str, Any] = {
    "training.recipe": "plain", "lora.r": 2, "lora.lora_alpha": 1, "lora.use_rslora": True,
    "lora.target_modules": ["q_proj", "k_proj", "v_proj"], "lora.towers": "both",
    "lora.lora_dropout": 0.25, "training.learning_rate": 2e-4,
    "training.early_stopping.enabled": False,
}  # fmt: skip
RUNS: dict[str, dict[str, Any]] = {
    "cliptune train": {}, "plain": {"training.recipe": "plain"}, "CLIP-LoRA": CLIP_LORA,
}  # fmt: skip


@dataclass(frozen=True)
class Task:
    """Photos of train, val and test, and what a run needs beside them."""

    train: Sequence[Sample]
    val: Sequence[Sample]
    test: Split
    model: str
    prompt: str
    seed: int


def logits_after(task: Task, changes: dict[str, Any]) -> torch.Tensor:
    """(N, C) logits of test by the best checkpoint of a run with these settings."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for split, samples in (("train", task.train), ("val", task.val)):
            for sample in samples:
                place = folder / "data" / split / task.test.class_names[sample.label]
                place.mkdir(parents=True, exist_ok=True)
                (place / sample.path.name).symlink_to(sample.path.resolve())
        if changes is CLIP_LORA:
            changes = changes | {"training.num_epochs": -(-300 // -(-len(task.train) // 32))}
        settings: dict[str, Any] = {
            "model.name": task.model, "model.prompts": [task.prompt], "seed": task.seed,
            "data.data_dir": str(folder / "data"), "data.num_workers": 0,
            "data.cache_dir": str(folder / "cache"), "output.output_dir": str(folder / "run"),
            "output.log_dir": str(folder / "logs"), "output.trackers": [],
            "hardware.mixed_precision": False,
        }  # fmt: skip
        result = train(load_settings(overrides=settings | changes), progress=False)
        assert result.best is not None
        assert result.last is not None
        chosen = result.last if "lora.r" in changes else result.best
        classifier = LoadedCheckpoint(chosen).tuned()
        photos = PhotoDataset(task.test.samples, classifier.preprocess)
        said = predict_logits([classifier], make_loader(photos, batch_size=64), torch.device("cpu"))
    return torch.from_numpy(said.logits[0])
