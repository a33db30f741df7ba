"""Would a head learn more from several layers, or from patches? Logistic regressions side by side.

    python benchmarks/layer_features.py --model MODEL --data dogs10 --data flowers5

On photos of train/ alone, test/ and val/ stay shut: by seed K of each class fit, all others tell;
at 0 shots 5-fold cross-validation of all. Of six strengths each kind of features has its best by
log loss on the very photos that tell, so all lean to the good side, alike. Each block is of length
1, then all are standardised.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cliptune.data.folder import load_training_splits
from cliptune.data.reading import read_image
from cliptune.model.backbone import Backbone, load_backbone

Split = tuple[np.ndarray, np.ndarray]
STRENGTHS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
KINDS = {
    "class token": ["class 1"],
    "and of the layer before": ["class 1", "class 2"],
    "of three layers": ["class 1", "class 2", "class 3"],
    "and mean of patches": ["class 1", "patches"],
}


@torch.no_grad()
def blocks(backbone: Backbone, paths: list[Path]) -> dict[str, np.ndarray]:
    """Name -> (N, H), of length 1: class tokens of the last layers, the mean of patches."""
    found: dict[str, list[torch.Tensor]] = {}
    tower: Any = backbone.model.vision_model
    for start in range(0, len(paths), 32):
        views = [backbone.preprocess.pixels(read_image(p)) for p in paths[start : start + 32]]
        pixels = backbone.preprocess.normalize(torch.from_numpy(np.stack(views)))
        states = tower(pixels, output_hidden_states=True).hidden_states
        for name, tokens in {
            **{f"class {k}": states[-k][:, 0] for k in (1, 2, 3)},
            "patches": states[-1][:, 1:].mean(dim=1),
        }.items():
            block = torch.nn.functional.normalize(tower.post_layernorm(tokens), dim=-1)
            found.setdefault(name, []).append(block)
    return {name: torch.cat(rows).numpy() for name, rows in found.items()}


def splits(labels_N: np.ndarray, shots: int, seeds: int) -> Iterator[list[Split]]:
    """For each seed (fit, tell) pairs."""
    if not shots:
        yield list(StratifiedKFold(5, shuffle=True, random_state=0).split(labels_N, labels_N))
        return
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        some = [rng.permutation(np.flatnonzero(labels_N == c))[:shots] for c in np.unique(labels_N)]
        fit = np.concatenate(some)
        yield [(fit, np.setdiff1d(np.arange(len(labels_N)), fit))]


def best(features_ND: np.ndarray, labels_N: np.ndarray, pairs: list[Split]) -> tuple[float, float]:
    """(log loss, top-1 in percent) of the best strength."""
    results = []
    for strength in STRENGTHS:
        found = []
        for fit, tell in pairs:
            model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=300))
            chances = model.fit(features_ND[fit], labels_N[fit]).predict_proba(features_ND[tell])
            right = chances.argmax(axis=1) == labels_N[tell]
            found.append((log_loss(labels_N[tell], chances), 100 * right.mean()))
        results.append(tuple(np.mean(found, axis=0)))
    return min(results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="a CLIP: folder, or name on the hub")
    parser.add_argument("--data", action="append", type=Path, required=True)
    parser.add_argument("--shots", nargs="*", type=int, default=[4, 16, 0])
    parser.add_argument("--seeds", type=int, default=4)
    given = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    backbone = load_backbone(given.model)
    backbone.model.eval()
    print(f"| folder, shots | {' | '.join(KINDS)} |\n{'|---' * (len(KINDS) + 1)}|")
    for folder in given.data:
        train, _ = load_training_splits(folder, val_ratio=0.1, seed=0)
        labels_N = np.array([sample.label for sample in train.samples])
        found = blocks(backbone, [sample.path for sample in train.samples])
        for shots in given.shots:
            cells = []
            for names in KINDS.values():
                features_ND = np.concatenate([found[name] for name in names], axis=1)
                each = [
                    best(features_ND, labels_N, p) for p in splits(labels_N, shots, given.seeds)
                ]
                loss, top1 = np.mean(each, axis=0)
                cells.append(f"{top1:.1f}, {loss:.3f}")
            print(f"| {folder.name} {shots or 'all'} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
