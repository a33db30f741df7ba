"""`{result-plot} NAME`: a picture drawn from benchmarks/results/*.json, for light and dark.

few-photos: top-1 against photos a class. speed, speed-on-a-gpu: how many times as fast as other
ways.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import matplotlib
from docutils import nodes
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import t as student
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

RESULTS = Path(__file__).parents[2] / "benchmarks/results"
ON_CPU = RESULTS / "2026-11-26-2a577e1-cpu.json"
ON_GPU = RESULTS / "2026-11-27-cuda-graphs.json"
FEW = RESULTS / "few-photos.json"

INK = {"light": "#333333", "dark": "#cfd0d0"}
# Rows that compare two ways of doing the same; the others are bounds and parts of ours.
ASKED = {
    ON_CPU: ("step", "step-bf16", "step-trainer", "step-120", "predict", "predict-bf16", "data"),
    ON_GPU: ("step-bf16", "step-bf16, batch 256", "step-120"),
}

# Told apart in print, on both grounds and by those who see few colours (Okabe and Ito, 2008).
BLUE, ORANGE, GREEN, GREY = "#0072b2", "#e69f00", "#009e73", "#8c8c8c"
SHOWN = {
    "cliptune train": ("cliptune train", BLUE, "-", "o"),
    "plain": ("LoRA from zero-shot", ORANGE, "--", "s"),
    "tip_f": ("Tip-Adapter-F", "#cc79a7", "-.", "v"),
    "probe": ("logistic regression", GREEN, ":", "^"),
    "zero-shot": ("zero-shot CLIP", GREY, "-", ""),
}


def mean_and_half(values: list[float]) -> tuple[float, float]:
    """The mean, and half of Student's 95 % interval of it; 0 where there is but one value."""
    if len(values) < 2:
        return mean(values), 0.0
    return mean(values), float(student.ppf(0.975, len(values) - 1)) * stdev(values) / len(
        values
    ) ** 0.5


def few_photos(figure: Figure) -> None:
    results = json.loads(FEW.read_text(encoding="utf-8"))["top1_percent"]
    panels = figure.subplots(1, len(results), squeeze=False)[0]
    for panel, (folder, by_shots) in zip(panels, results.items(), strict=True):
        for name, (label, colour, line, marker) in SHOWN.items():
            known = {
                int(n): mean_and_half(each[name]) for n, each in by_shots.items() if name in each
            }
            means, halves = zip(*known.values(), strict=True)
            panel.errorbar(
                [*known], means, yerr=halves, label=label, color=colour, linestyle=line,
                marker=marker, markersize=4, capsize=2, linewidth=1.5, elinewidth=0.8,
            )  # fmt: skip
        panel.set_xscale("log")
        panel.set_xticks([int(n) for n in by_shots], [*by_shots])
        panel.minorticks_off()
        panel.set_title(folder, fontsize=10)
        panel.set_xlabel("photos of each class")
    panels[0].set_ylabel("top-1 on test, %")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=8, frameon=False, loc="outside upper center", ncols=5)


def speed(figure: Figure, *, file: Path) -> None:
    measured = json.loads(file.read_text(encoding="utf-8"))["rows"]
    rows = [measured[name] for name in ASKED[file]]
    panel: Axes = figure.subplots()
    for at, row in enumerate(rows):
        ours, other = (each["median_s"] / each["items"] for each in row["figures"])
        panel.barh(at, row["ratio"], height=0.6, color=BLUE)
        panel.annotate(
            f" {row['ratio']:.1f}×  ({1 / ours:,.0f} and {1 / other:,.0f} photos/s)",
            (row["ratio"], at), va="center", fontsize=8,
        )  # fmt: skip
    panel.axvline(1, linewidth=0.8, linestyle=":", color=GREY)
    said = [f"{row['what']}; {row['figures'][0]['items']} photos" for row in rows]
    panel.set_yticks(range(len(rows)), said, fontsize=8)
    panel.invert_yaxis()
    panel.set_xlabel("times as fast")
    panel.set_xlim(0, 2 * max(row["ratio"] for row in rows))
    panel.grid(visible=False, axis="y")


PLOTS: dict[str, tuple[Callable[[Figure], None], tuple[float, float]]] = {
    "few-photos": (few_photos, (8.4, 3.4)),
    "speed": (partial(speed, file=ON_CPU), (8.4, 3.2)),
    "speed-on-a-gpu": (partial(speed, file=ON_GPU), (8.4, 1.8)),
}


def draw(name: str, theme: str, path: Path) -> None:
    """The picture `name` for a "light" or "dark" ground, without a ground of its own, as SVG."""
    plot, size = PLOTS[name]
    ink = INK[theme]
    style = {
        "text.color": ink, "axes.labelcolor": ink, "axes.edgecolor": ink, "xtick.color": ink,
        "ytick.color": ink, "axes.spines.top": False, "axes.spines.right": False,
        "axes.grid": True, "axes.axisbelow": True, "grid.color": ink, "grid.alpha": 0.15,
        "svg.fonttype": "path", "svg.hashsalt": name,
    }  # fmt: skip
    with matplotlib.rc_context(style):
        figure = Figure(figsize=size, layout="constrained")
        plot(figure)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, transparent=True, metadata={"Date": None})


class ResultPlot(SphinxDirective):
    """The picture named by its argument; its content says in words what is to be seen."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        shown: list[nodes.Node] = []
        for theme in ("light", "dark"):
            place = f"drawn/{name}-{theme}.svg"
            draw(name, theme, Path(self.env.srcdir) / place)
            shown.append(
                nodes.image(uri=f"/{place}", alt=" ".join(self.content), classes=[f"only-{theme}"])
            )
        return shown


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("result-plot", ResultPlot)
    return {"parallel_read_safe": True}
