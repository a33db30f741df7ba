"""What photos chosen by `cliptune select` teach, beside photos taken by chance.

    python benchmarks/labels/selection.py --model MODEL \\
        --data dogs10 "a photo of a {}, a type of dog." --split val

By seed, 20 photos of train/, as many of each class, are labelled; then five rounds choose 20 more
of the others, by a head on frozen features fitted on all labelled so far. Each round's head is
measured on --split. Methods start from the same photos; means over seeds, and what a method has
more than chance, in pairs: ± half of Student's 95 % interval. The default was chosen on val with
other seeds. With --keep, features are computed once.

Shape suffixes: N photos, C classes, D feature.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import torch
from accuracy import mean_and_half_width
from threadpoolctl import threadpool_limits

from cliptune.data.folder import Sample, scan_classes
from cliptune.labelling.frozen import FrozenModel, open_frozen
from cliptune.labelling.opinions import log_softmax, standardised
from cliptune.labelling.selection import METHODS, select
from cliptune.training.head.logistic import Floats, Labels, directions
from cliptune.training.head.mixture import accuracy

STARTING, ROUNDS, EACH = 20, 5, 20


def looked_at(
    frozen: FrozenModel, folder: Path, keep: Path | None
) -> tuple[Floats, Labels, list[str]]:
    """(features (N, D), labels, class names) of a split; features kept in, or from, `keep`."""
    classes = scan_classes(folder)
    samples = [
        Sample(path, label) for label, paths in enumerate(classes.values()) for path in paths
    ]
    labels_N = np.array([sample.label for sample in samples])
    kept = None if keep is None else keep / f"{folder.parent.name}-{folder.name}.npy"
    if kept is not None and kept.exists():
        return np.load(kept), labels_N, list(classes)
    seen = frozen.features(samples, device=torch.device("cpu"), num_workers=0)
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.save(kept, seen.features_ND)
    return seen.features_ND, labels_N, list(classes)


def simulated(
    frozen: FrozenModel,
    pool: tuple[Floats, Labels, list[str]],
    new: tuple[Floats, Labels, list[str]],
    *,
    method: str,
    seed: int,
) -> list[float]:
    """Top-1 in percent at the start and after each round."""
    features_ND, labels_N, class_names = pool
    towards_ND = directions(standardised(features_ND))
    rng = np.random.default_rng([seed, 5])
    first = [
        rng.permutation(np.flatnonzero(labels_N == label))[: STARTING // len(class_names)]
        for label in range(len(class_names))
    ]
    known = np.concatenate(first)
    found = []
    for turn in range(ROUNDS + 1):
        head = frozen.fit(features_ND[known], labels_N[known], class_names, seed=seed)
        found.append(100 * accuracy(head.logits(new[0]), new[1]))
        if turn < ROUNDS:
            others = np.setdiff1d(np.arange(len(labels_N)), known)
            chosen = select(
                np.exp(log_softmax(head.logits(features_ND[others]))), towards_ND[others],
                towards_ND[known], EACH, method=method, seed=1000 * seed + turn,
            )  # fmt: skip
            known = np.concatenate([known, others[chosen]])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="a CLIP: folder, or name on the hub")
    parser.add_argument(
        "--data", nargs=2, action="append", required=True, metavar=("FOLDER", "PROMPT")
    )
    parser.add_argument("--split", default="val", choices=("val", "test"))
    parser.add_argument("--methods", nargs="*", default=list(METHODS)[::-1])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--keep", type=Path, help="folder for features, of one model")
    given = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    model = open_frozen(given.model)
    print(
        f"| {given.split} | method | at the start | after {ROUNDS * EACH} labels "
        "| more than chance | mean of the rounds | more than chance |\n"
        "|---|---|---|---|---|---|---|"
    )
    for name, prompt in given.data:
        folder, frozen = Path(name), FrozenModel(model.backbone, [prompt], None)
        pool = looked_at(frozen, folder / "train", given.keep)
        new = looked_at(frozen, folder / given.split, given.keep)
        chance = None
        for method in given.methods:
            with threadpool_limits(1):
                found = np.array(
                    [simulated(frozen, pool, new, method=method, seed=seed) for seed in given.seeds]
                )
            ends, means = found[:, -1], found[:, 1:].mean(axis=1)
            chance = (ends, means) if chance is None else chance
            more = [
                f"{mean:+.1f} ± {half:.1f}"
                for mean, half in map(mean_and_half_width, (ends - chance[0], means - chance[1]))
            ]
            cells = [f"{found[:, 0].mean():.1f}", f"{ends.mean():.1f}", more[0]]
            cells += [f"{means.mean():.1f}", more[1]]
            print(f"| {folder.name} | {method} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
