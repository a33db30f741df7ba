"""Calibration before and after scaling, and how well each score tells strangers, on a test split.

    python benchmarks/answers.py --data DATA --unknown FOLDER CHECKPOINT [CHECKPOINT ...]

The checkpoints are those of `benchmarks/dogs10.sh`, one for each seed. FOLDER holds photos of none
of the classes, perhaps in sub-folders: each is measured by itself, too.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from cliptune.evaluation.evaluate import evaluate
from cliptune.evaluation.report import Evaluation
from cliptune.evaluation.statistics.intervals import Estimate
from cliptune.model.answers import SCORE_NAMES


def percent(estimate: Estimate | None) -> str:
    """A share with its interval, in percent."""
    if estimate is None:
        return "too few photos"
    return f"{100 * estimate.value:.1f} ({100 * estimate.low:.1f}–{100 * estimate.high:.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--unknown", type=Path, required=True)
    parser.add_argument("checkpoints", type=Path, nargs="+")
    options = parser.parse_args()
    folders = [options.unknown, *sorted(p for p in options.unknown.iterdir() if p.is_dir())]
    found: dict[Path, list[Evaluation]] = {
        folder: [
            evaluate(
                checkpoint, data_dir=options.data, unknown=folder, output_dir=None, num_workers=0,
                baseline=False, device="cpu",
            )
            for checkpoint in options.checkpoints
        ]
        for folder in folders
    }  # fmt: skip
    print("| checkpoint | top-1, % | temperature | calibration error before, % | after, % |")
    print("|---|---|---|---|---|")
    for checkpoint, one in zip(options.checkpoints, found[options.unknown], strict=True):
        assert one.answers is not None
        before = percent(one.before_scaling.reliability.ece_estimate)
        print(
            f"| {checkpoint.parent.name} | {percent(one.figures.accuracy)} | "
            f"{one.answers.temperature:.3f} | {before} | {percent(one.figures.ece)} |"
        )
    print("\n| score | " + " | ".join(f"AUROC, {folder.name}" for folder in folders) + " |")
    print("|---" * (len(folders) + 1) + "|")
    for name, words in SCORE_NAMES.items():
        cells = []
        for folder in folders:
            parts = [e.none_of_these for e in found[folder]]
            values = [part.auroc[name] for part in parts if part and part.auroc]
            each = " / ".join(f"{value:.3f}" for value in values)
            cells.append(f"{each} ({np.mean(values):.3f})")
        print(f"| {words} | " + " | ".join(cells) + " |")
    print("\n| unknown | known kept, % | strangers taken as known, % |\n|---|---|---|")
    for folder in folders:
        parts = [e.none_of_these for e in found[folder]]
        kept = " / ".join(f"{100 * p.kept.value:.1f}" for p in parts if p)
        wrong = " / ".join(
            f"{100 * p.false_accepts.value:.1f}" for p in parts if p and p.false_accepts
        )
        print(f"| {folder.name} | {kept} | {wrong} |")


if __name__ == "__main__":
    main()
