"""Classifiers from few photos: ours beside zero-shot and the recipes that people cite, in pairs.

    make accuracy                                      on drawings, by the demo's own small CLIP
    python benchmarks/accuracy.py --model MODEL \\
        --data dogs10 "a photo of a {}, a type of dog." \\
        --data flowers5 "a photo of a {}, a type of flower."

Each folder holds train/, val/ and test/. A cell is a folder and a number of shots K: by seed, K
photos of each class of train and min(K, 4) of val; test is whole. Features are taken once, by
cliptune's own code. Means over seeds in percent; intervals are 95 % of Student's t over seeds,
which test photos do not enter: they are the same for all. Writes JSON and a table to --output-dir
after each cell; --join puts together what several calls wrote. --recipes names what is tried:
features are enough for most, "cliptune train", "plain" and "CLIP-LoRA" are whole runs
(`trained.py`), minutes each.

Shape suffixes: N photos, H pooled feature.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recipes import RECIPES, Cell, Photos
from scipy import stats
from trained import RUNS, Task, logits_after

from cliptune.data.folder import Sample, load_split, load_training_splits
from cliptune.data.reading import read_image
from cliptune.demo.drawings import draw_dataset
from cliptune.demo.run import COUNTS, HOME
from cliptune.model.backbone import Backbone, load_backbone
from cliptune.model.prompts import zero_shot_weights

OURS = ("our head", "cliptune train", "plain")
NO_RIVALS = {*OURS, "stack"}
Scores = dict[str, list[float]]  # recipe -> top-1 in percent, seed by seed


@torch.no_grad()
def pooled(backbone: Backbone, samples: Sequence[Sample], *, batch: int = 64) -> Photos:
    """One view of each photo, before the projection."""
    rows = []
    for start in range(0, len(samples), batch):
        views = [read_image(sample.path) for sample in samples[start : start + batch]]
        pixels = torch.from_numpy(np.stack([backbone.preprocess.pixels(view) for view in views]))
        answer = backbone.model.vision_model(pixel_values=backbone.preprocess.normalize(pixels))
        rows.append(answer.pooler_output)
    return Photos(torch.cat(rows), torch.tensor([sample.label for sample in samples]))


def cells(
    backbone: Backbone, folder: Path, prompt: str, *, shots: Sequence[int], seeds: Sequence[int]
) -> dict[int, list[tuple[Cell, Task]]]:
    """Shots -> a cell for each seed, as features and as photos."""
    train, val = load_training_splits(folder, val_ratio=0.1, seed=0)
    names = train.class_names
    test = load_split(folder, "test", class_names=names)
    photos = {split.name: pooled(backbone, split.samples) for split in (train, val, test)}
    text_CD = zero_shot_weights(backbone, names, [prompt]).clone()
    projection_DH = backbone.model.visual_projection.weight.detach().clone()
    scale = backbone.model.logit_scale.exp().item()
    name = str(backbone.source.name)

    def cell(count: int, seed: int) -> tuple[Cell, Task]:
        few = {
            split.name: chosen(photos[split.name].labels_N, most, seed)
            for split, most in ((train, count), (val, min(count, 4)))
        }
        features = [photos[split].only(places) for split, places in few.items()]
        files = [[split.samples[i] for i in few[split.name].tolist()] for split in (train, val)]
        return (
            Cell(*features, photos["test"], text_CD, projection_DH, scale, seed),
            Task(*files, test, name, prompt, seed),
        )

    return {count: [cell(count, seed) for seed in seeds] for count in shots}


def chosen(labels_N: torch.Tensor, count: int, seed: int) -> torch.Tensor:
    """Places of `count` photos of each class, or all of fewer; more hold those of fewer."""
    rng = np.random.default_rng(seed)
    return torch.cat([
        torch.from_numpy(rng.permutation(np.flatnonzero(labels_N.numpy() == label))[:count])
        for label in range(int(labels_N.max()) + 1)
    ])  # fmt: skip


def measure(
    drawn: Sequence[tuple[Cell, Task]], names: Sequence[str]
) -> tuple[Scores, dict[str, float]]:
    """Top-1 by recipe and seed, and the mean seconds of each recipe."""
    scores: Scores = {name: [] for name in names}
    seconds = dict.fromkeys(names, 0.0)
    for cell, task in drawn:
        for name in names:
            started = time.perf_counter()
            logits_NC = logits_after(task, RUNS[name]) if name in RUNS else RECIPES[name](cell)
            seconds[name] += (time.perf_counter() - started) / len(drawn)
            right_N = logits_NC.argmax(dim=1) == cell.test.labels_N
            scores[name].append(100 * right_N.float().mean().item())
    return scores, seconds


def mean_and_half_width(values: Sequence[float]) -> tuple[float, float]:
    """The mean and half its 95 % interval (Student's t)."""
    if len(values) < 2:
        return float(np.mean(values)), float("nan")
    return float(np.mean(values)), float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))


def paired(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Differences seed by seed, of the seeds that both have."""
    return [one - other for one, other in zip(ours, theirs, strict=False)]


def joined(written: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Cells and columns of several calls; of the same column the later one's."""
    whole: dict[str, Any] = {"top1_percent": {}, "seconds": {}, "seeds": []}
    for each in written:
        whole["seeds"] = max(whole["seeds"], each["seeds"], key=len)
        for kind in ("top1_percent", "seconds"):
            for folder, by_shots in each[kind].items():
                for shots, columns in by_shots.items():
                    whole[kind].setdefault(folder, {}).setdefault(shots, {}).update(columns)
    return whole


def table(results: dict[str, dict[str, Scores]]) -> str:
    """Markdown: a row for each cell, and paired differences of ours to the best cited one."""
    cells = {
        f"{folder} {shots}": scores
        for folder, by_shots in results.items()
        for shots, scores in by_shots.items()
    }
    columns = list(dict.fromkeys(name for scores in cells.values() for name in scores))
    ours = next(name for name in ("cliptune train", "our head", columns[0]) if name in columns)
    lines = [
        f"| folder, shots | {' | '.join(columns)} | {ours} − best cited | {ours} − stack |",
        "|---" * (len(columns) + 3) + "|",
    ]
    for cell, scores in cells.items():
        shown = [in_words(scores.get(name, []), "{:.1f} ± {:.1f}") for name in columns]
        rivals = [name for name in scores if name not in NO_RIVALS]
        best = max(rivals, key=lambda name: np.mean(scores[name]), default="")
        for rival in (best, "stack"):
            gaps = paired(scores.get(ours, []), scores.get(rival, []))
            shown.append(in_words(gaps, "{:+.1f} ± {:.1f}"))
        shown[-2] += f" ({best})" if best else ""
        lines.append(f"| {cell} | {' | '.join(shown)} |")
    means = [
        f"{np.mean([np.mean(scores[name]) for scores in cells.values()]):.1f}"
        if all(name in scores for scores in cells.values())
        else "–"
        for name in columns
    ]
    return "\n".join([*lines, f"| mean | {' | '.join(means)} | | |", ""])


def in_words(values: Sequence[float], kind: str) -> str:
    """Mean and half interval; a dash for no value, the mean alone for one."""
    if not len(values):
        return "–"
    if len(values) == 1:
        return kind.partition(" ")[0].format(values[0])
    return kind.format(*mean_and_half_width(values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model", default=str(HOME / "model"), help="a CLIP: folder, or name on the hub"
    )
    parser.add_argument("--data", nargs=2, action="append", metavar=("FOLDER", "PROMPT"))
    parser.add_argument("--shots", nargs="*", type=int, default=[1, 4, 16, 100])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument(
        "--recipes", nargs="*", choices=[*RECIPES, *RUNS], default=[*RECIPES, "cliptune train"]
    )
    parser.add_argument("--join", nargs="*", type=Path, help="accuracy.json of earlier calls")
    parser.add_argument("--output-dir", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    if given.join:
        whole = joined([json.loads(path.read_text(encoding="utf-8")) for path in given.join])
        write(given.output_dir, whole)
        print(table(whole["top1_percent"]))
        return
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    with tempfile.TemporaryDirectory() as scratch:
        if given.data is None:
            folder = Path(scratch) / "drawings"
            draw_dataset(folder, counts=COUNTS, seed=0)
            given.data = [(str(folder), "a photo of a {}, a type of dog.")]
        measure_all(given)


def measure_all(given: argparse.Namespace) -> None:
    """Every cell in its turn; what is known so far is written after each."""
    backbone = load_backbone(given.model)
    backbone.model.eval()
    results: dict[str, dict[str, Scores]] = {}
    spent: dict[str, dict[str, dict[str, float]]] = {}
    for folder, prompt in given.data:
        name = Path(folder).name
        results[name], spent[name] = {}, {}
        drawn = cells(backbone, Path(folder), prompt, shots=given.shots, seeds=given.seeds)
        for shots, of_seeds in drawn.items():
            scores, seconds = measure(of_seeds, given.recipes)
            results[name][str(shots)], spent[name][str(shots)] = scores, seconds
            print(name, shots, {key: round(float(np.mean(x)), 1) for key, x in scores.items()},
                  {key: round(x, 2) for key, x in seconds.items()}, flush=True)  # fmt: skip
            write(
                given.output_dir, {"top1_percent": results, "seconds": spent, "seeds": given.seeds}
            )
    print(table(results))


def write(output_dir: Path, whole: dict[str, Any]) -> None:
    """The figures as JSON and as a table."""
    output_dir.mkdir(parents=True, exist_ok=True)
    (output_dir / "accuracy.json").write_text(json.dumps(whole, indent=1) + "\n")
    (output_dir / "accuracy.md").write_text(table(whole["top1_percent"]))


if __name__ == "__main__":
    main()
