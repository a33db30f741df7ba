"""Runs on a few photos of a folder's train/, measured on those that were left: test/ stays shut.

    python benchmarks/unused.py --model MODEL --shots 16 --seeds 0 1 \\
        --data flowers5 "a photo of a {}, a type of flower." --set training.min_updates=100

By seed, K photos of each class of train/ and min(K, 4) of val/ make a run; up to --left others of
train/ and val/ tell, epoch by epoch, what its checkpoint answers, and which one val chose.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cliptune.config import load_settings
from cliptune.config_source import parse_override
from cliptune.data.folder import Sample, Split, load_training_splits
from cliptune.data.loading import PhotoDataset, make_loader
from cliptune.evaluation.statistics.metrics import split_metrics
from cliptune.model.checkpoint import list_checkpoints
from cliptune.model.classifier import predict_logits
from cliptune.model.loaded import LoadedCheckpoint
from cliptune.training.train import train


def parts(folder: Path, *, shots: int, left: int, seed: int) -> tuple[Split, Split, Split]:
    """Train, val, and of each class up to `left` photos of both that are in neither."""
    train_split, val_split = load_training_splits(folder, val_ratio=0.1, seed=0)
    some, rest = drawn(train_split.samples, shots, seed)
    few, more = drawn(val_split.samples, min(shots, 4), seed)
    unused, _ = drawn([*rest, *more], left, seed)
    return (
        replace(train_split, samples=tuple(some)),
        replace(val_split, samples=tuple(few)),
        replace(train_split, samples=tuple(unused)),
    )


def drawn(samples: Sequence[Sample], count: int, seed: int) -> tuple[list[Sample], list[Sample]]:
    """`count` of each class by lot, and the others."""
    rng = np.random.default_rng(seed)
    labels_N = np.array([sample.label for sample in samples])
    order = rng.permutation(len(samples))
    taken = {
        int(i)
        for label in np.unique(labels_N)
        for i in [i for i in order if labels_N[i] == label][:count]
    }
    return (
        [sample for i, sample in enumerate(samples) if i in taken],
        [sample for i, sample in enumerate(samples) if i not in taken],
    )


def measure(given: argparse.Namespace, folder: str, prompt: str, seed: int) -> None:
    """One run, and a line for each of its checkpoints."""
    some, few, unused = parts(Path(folder), shots=given.shots, left=given.left, seed=seed)
    changes = dict(map(parse_override, given.set))
    with tempfile.TemporaryDirectory() as scratch:
        settings: dict[str, Any] = {
            "model.name": given.model, "model.prompts": [prompt], "seed": seed,
            "data.data_dir": folder, "data.num_workers": 0, "data.cache_dir": f"{scratch}/cache",
            "output.output_dir": f"{scratch}/run", "output.log_dir": f"{scratch}/logs",
            "output.trackers": [], "output.save_total_limit": 100,
            "hardware.mixed_precision": False, "training.early_stopping.enabled": False,
        }  # fmt: skip
        result = train(
            load_settings(overrides=settings | changes), photos=(some, few), progress=False
        )
        for checkpoint in list_checkpoints(result.output_dir):
            classifier = LoadedCheckpoint(checkpoint).tuned()
            photos = make_loader(PhotoDataset(unused.samples, classifier.preprocess), batch_size=64)
            said = predict_logits([classifier], photos, torch.device("cpu"))
            found = split_metrics(said.logits[0], said.labels)
            record = checkpoint.record
            best = result.best is not None and checkpoint.path == result.best.path
            print(
                f"{Path(folder).name} {given.shots} seed {seed} epoch {record.epoch:2d} "
                f"strength {record.strength:g}  val {record.metrics['val_loss']:.3f}  "
                f"left: loss {found.loss:.3f} top-1 {100 * found.accuracy:.2f} %"
                f"{' *' if best else ''}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="a CLIP: folder, or name on the hub")
    parser.add_argument(
        "--data", nargs=2, action="append", required=True, metavar=("FOLDER", "PROMPT")
    )
    parser.add_argument("--shots", type=int, default=16)
    parser.add_argument("--left", type=int, default=40, help="of each class, to measure on")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    for folder, prompt in given.data:
        for seed in given.seeds:
            measure(given, folder, prompt, seed)


if __name__ == "__main__":
    main()
