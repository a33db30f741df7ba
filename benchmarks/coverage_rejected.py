"""What the intervals of `cliptune.evaluation` were chosen over, on the hardest simulated photos.

    python benchmarks/coverage_rejected.py --output benchmarks/results/coverage-rejected.md

The photos are those of `coverage.py`. Shape suffixes: S data sets, N photos, C classes, B draws.
"""

from __future__ import annotations

import argparse
import subprocess
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from coverage import SEED, World, counted, holds, machine, shown, table, true_figures
from scipy.stats import norm, t

from cliptune.evaluation.statistics.calibration import brier_scores, log_losses
from cliptune.evaluation.statistics.intervals import (
    Z95,
    difference_interval,
    mean_interval,
    wilson_interval,
)
from cliptune.evaluation.statistics.metrics import balanced_accuracy_from, macro_f1_from
from cliptune.evaluation.statistics.resampling import effective_size

DRAWS = 500
HEAD = ["classes", "photos", "accuracy"]


def bca(drawn_B: np.ndarray, value: float, influence_N: np.ndarray) -> tuple[float, float]:
    """Efron (1987): bias-corrected and accelerated percentiles."""
    below = (drawn_B < value).mean() + (drawn_B == value).mean() / 2
    bias = norm.ppf(np.clip(below, 1 / len(drawn_B), 1 - 1 / len(drawn_B)))
    cube, square = (influence_N**3).sum(), (influence_N**2).sum()
    skew = cube / (6 * square**1.5) if square > 1e-20 else 0.0
    z = bias + np.array([-Z95, Z95])
    low, high = np.quantile(drawn_B, norm.cdf(bias + z / (1 - skew * z)))
    return float(low), float(high)


def macro_rows(sets: int) -> list[list[str]]:
    """Percentile, BCa, Wilson on the effective size without and with the bias taken out."""
    rows = []
    for cell in [(2, 100, 0.97), (10, 100, 0.97), (10, 100, 0.6), (120, 600, 0.6)]:
        classes, photos, accuracy = cell
        rng = np.random.default_rng([SEED, *cell[:2], round(100 * accuracy), 1])
        world = World(classes, accuracy)
        truth = true_figures(world, rng, 200_000 if classes > 10 else 1_000_000)
        hits: dict[str, list[Any]] = {}
        for _ in range(sets if classes <= 10 else sets // 4):
            a, _b, labels = world.draw(rng, photos)
            cells = counted(labels, a.argmax(1), classes)
            drawn = rng.multinomial(photos, cells.ravel() / photos, DRAWS)
            drawn = drawn.reshape(DRAWS, classes, classes)
            values = dict(zip(("macro-F1", "balanced"), macro(cells), strict=True))
            for (name, value), drawn_B in zip(values.items(), macro(drawn), strict=True):
                # The jackknife of a photo, once for each cell.
                slopes = np.zeros_like(cells, dtype=float)
                for i, j in zip(*np.nonzero(cells), strict=True):
                    one = cells.copy()
                    one[i, j] -= 1
                    slopes[i, j] = value - macro(one)[name == "balanced"]
                influence_N = np.repeat(slopes.ravel(), cells.ravel())
                size, variance = effective_size(cells.sum(1)), drawn_B.var()
                size = min(value * (1 - value) / variance, size) if variance > 1e-15 else size
                center = min(max(2 * value - drawn_B.mean(), 0), 1)
                for method, interval in {
                    "percentile": np.quantile(drawn_B, (0.025, 0.975)),
                    "BCa": bca(drawn_B, value, influence_N - influence_N.mean()),
                    "Wilson": wilson_interval(float(value), float(size)),
                    "Wilson, unbiased": wilson_interval(float(center), float(size)),
                }.items():
                    hits.setdefault(f"{name} {method}", []).append(holds(*interval, truth[name]))
        cover = {name: shown(100 * float(np.mean(held))) for name, held in hits.items()}
        for name in ("macro-F1", "balanced"):
            methods = [cover[f"{name} {m}"] for m in MACRO_METHODS]
            rows.append([name, *map(str, cell), *methods])
    return rows


MACRO_METHODS = ("percentile", "BCa", "Wilson", "Wilson, unbiased")


def macro(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    right, support = np.diagonal(cells, axis1=-2, axis2=-1), cells.sum(-1)
    return macro_f1_from(right, support, cells.sum(-2)), balanced_accuracy_from(right, support)


def loss_rows(sets: int) -> list[list[str]]:
    """Student's t, BCa, studentised bootstrap, Hall; and how high the last two reach."""
    rows = []
    for classes, scale, kind in product((2, 10), (1, 2), ("log", "brier")):
        rng = np.random.default_rng([SEED, classes, scale, 2])
        world = World(classes, 0.97)
        truth = true_figures(world, rng, 500_000)[f"{kind} {scale}"]
        hits: dict[str, list[Any]] = {}
        reach: dict[str, list[float]] = {"studentised": [], "Hall": []}
        weights = rng.multinomial(100, np.full(100, 0.01), DRAWS) / 100
        for _ in range(sets):
            a, _b, labels = world.draw(rng, 100)
            values = (log_losses if kind == "log" else brier_scores)(scale * a, labels)
            mean, spread = values.mean(), values.std(ddof=1) / 10
            means = weights @ values
            spreads = np.sqrt(np.maximum(weights @ values**2 - means**2, 1e-16) / 99)
            low, high = np.quantile((means - mean) / spreads, (0.025, 0.975))
            intervals = {
                "t": (mean - t.ppf(0.975, 99) * spread, mean + t.ppf(0.975, 99) * spread),
                "BCa": bca(means, mean, values - mean),
                "studentised": (mean - high * spread, mean - low * spread),
                "Hall": mean_interval(values),
            }
            for method, interval in intervals.items():
                hits.setdefault(method, []).append(holds(*interval, truth))
            for method, uppers in reach.items():
                uppers.append(float(intervals[method][1]) / truth)
        cover = [shown(100 * float(np.mean(held))) for held in hits.values()]
        reached = [f"{np.quantile(uppers, 0.95):.0f}" for uppers in reach.values()]
        rows.append([f"{kind} ×{scale}", str(classes), *cover, *reached])
    return rows


def newcombe(both: Any, only_a: Any, only_b: Any, neither: Any) -> tuple[Any, Any]:
    """Newcombe (1998), Statistics in Medicine 17, 2635-2650, method 10."""
    n = both + only_a + only_b + neither
    a, b = (both + only_a) / n, (both + only_b) / n
    (a_low, a_high), (b_low, b_high) = wilson_interval(a, n), wilson_interval(b, n)
    excess = both * neither - only_a * only_b
    excess = np.where(excess > 0, np.maximum(excess - n / 2, 0), excess)
    margins = (both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither)
    phi = np.where(margins > 0, excess / np.sqrt(np.maximum(margins, 1)), 0)

    def joined(x: Any, y: Any) -> Any:
        return np.sqrt(np.maximum(x * x - 2 * phi * x * y + y * y, 0))

    return a - b - joined(a - a_low, b_high - b), a - b + joined(a_high - a, b - b_low)


def difference_rows(sets: int) -> list[list[str]]:
    """Newcombe and Tango at every share of errors that the two models have in common."""
    rng, rows, off = np.random.default_rng([SEED, 3]), [], []
    pairs = [(0.6, 0.6), (0.6, 0.5), (0.85, 0.6), (0.85, 0.8), (0.97, 0.85), (0.97, 0.95)]
    for n, (a, b) in product((100, 200, 1000), [*pairs, (0.97, 0.97)]):
        cover = []
        for shared in (0.1, 0.5, 0.9):
            chance = (1 - a) * (1 - b)
            neither = chance + shared * (min(1 - a, 1 - b) - chance)
            only_b, only_a = 1 - a - neither, 1 - b - neither
            drawn = rng.multinomial(
                n, [1 - only_a - only_b - neither, only_a, only_b, neither], sets
            )
            tango = difference_interval(drawn[:, 1], drawn[:, 2], np.full(sets, n))
            for low, high in (newcombe(*drawn.T.astype(float)), tango):
                cover.append(100 * float(holds(low, high, a - b).mean()))
        off.append(np.abs(np.array(cover) - 95))
        sides = zip(map(shown, cover[::2]), map(shown, cover[1::2]), strict=True)
        rows.append([str(n), str(a), str(b), *(f"{first} / {second}" for first, second in sides)])
    mean = np.mean(off, axis=0).reshape(3, 2).mean(axis=0)
    return [
        *rows,
        ["mean distance from 95 of all cells", "", "", f"{mean[0]:.2f} / {mean[1]:.2f}", "", ""],
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--sets", type=int, default=1000)
    args = parser.parse_args()
    started = time.perf_counter()
    show = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(show, capture_output=True, text=True, check=True).stdout.strip()
    parts = [
        "## Macro-F1 and balanced accuracy\n",
        "Used: for macro-F1 the last column, for balanced accuracy the last but one.\n",
        table(["figure", *HEAD, *MACRO_METHODS], macro_rows(args.sets)),
        "## Means of losses, 100 photos, accuracy 0.97 (Hall: what is used)\n",
        "Beside the coverage: the 95 % quantile of the upper limit, as a multiple of the truth.\n",
        table(["figure", "classes", "t", "BCa", "studentised", "Hall", "upper, studentised",
               "upper, Hall"], loss_rows(args.sets)),
        "## Paired difference of top-1: Newcombe's method 10 / Tango (used)\n",
        "By the share of errors in common, from independence (0) to all possible (1).\n",
        table(["photos", "A", "B", "0.1", "0.5", "0.9"], difference_rows(10 * args.sets)),
    ]  # fmt: skip
    head = (
        "# Coverage of the intervals not taken\n\n"
        f"`python benchmarks/coverage_rejected.py --sets {args.sets}`, commit {commit}, "
        f"{time.strftime('%Y-%m-%d')}, {machine()}, {time.perf_counter() - started:.0f} s. Seeds: "
        f"[{SEED}, ...] in the code. {args.sets} data sets a cell (a quarter with 120 classes, ten "
        f"times with pairs), {DRAWS} bootstrap draws. Bold: outside 93 to 97 %.\n"
    )
    text = "\n".join([head, *parts])
    if args.output:
        args.output.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
