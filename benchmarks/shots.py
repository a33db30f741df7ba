"""Accuracy against the number of photos a class, from what `accuracy.py` wrote, as a picture.

python benchmarks/shots.py benchmarks/results/accuracy.json docs/images/shots.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from accuracy import mean_and_half_width
from matplotlib.figure import Figure

from cliptune.evaluation.plots import BLUE, DPI, GREEN, GREY, GRID, ORANGE

# Of all the columns, those that a picture still tells apart.
SHOWN = {
    "cliptune train": (BLUE, "-", "o"), "plain": (ORANGE, "--", "s"),
    "probe": (GREEN, ":", "^"), "zero-shot": (GREY, "-.", ""),
}  # fmt: skip
CALLED = {
    "plain": "LoRA from zero-shot (plain)", "probe": "logistic regression on features",
    "zero-shot": "zero-shot CLIP",
}  # fmt: skip


def draw(results: dict[str, dict[str, dict[str, list[float]]]], path: Path) -> None:
    """A panel for each folder: means over seeds, bars of Student's 95 % interval."""
    figure = Figure(figsize=(4.2 * len(results), 3.4), dpi=DPI, layout="constrained")
    panels = figure.subplots(1, len(results), squeeze=False)[0]
    for panel, (folder, by_shots) in zip(panels, results.items(), strict=True):
        shots = [int(count) for count in by_shots]
        for name, (colour, dashes, marker) in SHOWN.items():
            known = {int(k): scores[name] for k, scores in by_shots.items() if name in scores}
            if not known:
                continue
            means, halves = zip(*map(mean_and_half_width, known.values()), strict=True)
            panel.errorbar(
                [*known], means, yerr=np.nan_to_num(halves), color=colour, linestyle=dashes,
                marker=marker, markersize=4, capsize=2, linewidth=1.4, elinewidth=0.8,
                label=CALLED.get(name, name),
            )  # fmt: skip
        panel.set_xscale("log")
        panel.set_xticks(shots, [str(count) for count in shots])
        panel.minorticks_off()
        panel.set_title(folder, fontsize=10)
        panel.set_xlabel("photos a class")
        panel.grid(color=GRID)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("top-1 on test, %")
    lines, names = panels[0].get_legend_handles_labels()
    figure.legend(lines, names, fontsize=8, frameon=False, loc="outside upper center", ncols=4)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("figures", type=Path, help="accuracy.json")
    parser.add_argument("picture", type=Path)
    given = parser.parse_args()
    draw(json.loads(given.figures.read_text(encoding="utf-8"))["top1_percent"], given.picture)
