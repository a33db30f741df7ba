"""How often the 95 % intervals of `cliptune.evaluation` hold the truth, on simulated photos.

    python benchmarks/coverage.py --photos 100 200 1000 --tables shares many ece --output FILE

`benchmarks/results/coverage.md` is put together of such files.

A photo of class y has class scores x = noise + d * (1 at y), normal noise of variance 1; the
model's logits are d * x, which is calibrated for classes of equal share, or twice that
(overconfident). Classes have shares of 1 : 3 (two: 30 and 70 %), so that accuracy, balanced
accuracy, macro-F1 differ. Model B of the paired figures sees 0.8 d and noise of correlation 0.8
with A's. The truth is measured on 1 million photos of the same kind.

Shape suffixes: S data sets, N photos, C classes.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from cliptune.evaluation.statistics.calibration import brier_scores, log_losses
from cliptune.evaluation.statistics.intervals import (
    difference_interval,
    mean_interval,
    wilson_interval,
)
from cliptune.evaluation.statistics.metrics import balanced_accuracy, macro_f1
from cliptune.evaluation.statistics.rejection import auroc_estimate
from cliptune.evaluation.statistics.reliability import (
    bin_edges,
    bin_means,
    ece_estimate,
    plug_in_ece,
)
from cliptune.evaluation.statistics.resampling import macro_estimates, macro_f1_difference

SEED = 20261124
CLASSES, PHOTOS, ACCURACIES = (2, 10), (10, 20, 50, 100, 200, 1000), (0.6, 0.85, 0.97)
MANY = [(120, 240, 0.8), (120, 600, 0.6), (120, 600, 0.8), (120, 1200, 0.9)]
TRUTH_PHOTOS, CHUNK = 1_000_000, 100_000
TABLES = ("shares", "many", "ece", "auroc")
HEAD = ["classes", "photos", "accuracy"]
ECE_HEAD = [
    *HEAD, "model", "truth", "plug-in", "Kumar", "estimate", "its median", "width", "covers",
]  # fmt: skip
Arrays = tuple[np.ndarray, ...]


class World:
    """Photos of `classes` classes on which the calibrated model is right with `accuracy`."""

    def __init__(self, classes: int, accuracy: float) -> None:
        from scipy.integrate import quad
        from scipy.optimize import brentq
        from scipy.stats import norm

        shares = np.linspace(1, 3, classes) if classes > 2 else np.array([0.3, 0.7])
        self.shares_C = shares / shares.sum()

        def excess(d: float) -> float:
            right = quad(lambda x: norm.pdf(x - d) * norm.cdf(x) ** (classes - 1), -9, d + 9)[0]
            return float(right - accuracy)

        self.signal = float(brentq(excess, 0.01, 9))

    def draw(self, rng: np.random.Generator, photos: int) -> Arrays:
        """Logits of A (N, C), logits of B, labels (N,)."""
        d, classes = self.signal, len(self.shares_C)
        labels_N = rng.choice(classes, photos, p=self.shares_C)
        noise_NC = rng.normal(size=(photos, classes))
        other_NC = 0.8 * noise_NC + 0.6 * rng.normal(size=(photos, classes))
        truth_NC = np.eye(classes)[labels_N]
        return d * (noise_NC + d * truth_NC), 0.8 * d * (other_NC + 0.8 * d * truth_NC), labels_N


def counted(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    cells = np.bincount(labels * classes + predicted, minlength=classes**2)
    return cells.reshape(classes, classes)


def true_figures(world: World, rng: np.random.Generator, photos: int) -> dict[str, Any]:
    """Population values, from `photos` photos."""
    classes = len(world.shares_C)
    a_CC, b_CC = np.zeros((2, classes, classes), np.int64)
    sums: dict[str, float] = dict.fromkeys(("log 1", "log 2", "brier 1", "brier 2", "top5"), 0.0)
    gaps = {1: np.zeros(15), 2: np.zeros(15)}
    done = 0
    while done < photos:
        a, b, labels = world.draw(rng, min(CHUNK, photos))
        done += len(labels)
        a_CC += counted(labels, a.argmax(1), classes)
        b_CC += counted(labels, b.argmax(1), classes)
        sums["top5"] += within_five(a, labels).sum()
        for scale in (1, 2):
            sums[f"log {scale}"] += log_losses(scale * a, labels).sum()
            sums[f"brier {scale}"] += brier_scores(scale * a, labels).sum()
            p = np.exp(scale * a - (scale * a).max(1, keepdims=True))
            confidence = 1 / p.sum(1)
            bins = np.minimum((confidence * 15).astype(int), 14)
            gaps[scale] += np.bincount(bins, (a.argmax(1) == labels) - confidence, minlength=15)
    figures = {name: value / done for name, value in sums.items()}
    figures |= {f"ece {scale}": np.abs(gap).sum() / done for scale, gap in gaps.items()}
    return figures | {
        "top-1": a_CC.trace() / done,
        "difference": (a_CC.trace() - b_CC.trace()) / done,
        "recall": a_CC.diagonal() / a_CC.sum(1),
        "precision": a_CC.diagonal() / a_CC.sum(0),
        "macro-F1": macro_f1(a_CC),
        "balanced": balanced_accuracy(a_CC),
        "F1 difference": macro_f1(a_CC) - macro_f1(b_CC),
    }


def within_five(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    truth = np.take_along_axis(logits, labels[:, None], 1)
    return (logits > truth).sum(1) < 5


def holds(low: Any, high: Any, truth: Any) -> Any:
    return (np.asarray(low) <= truth + 1e-12) & (truth - 1e-12 <= np.asarray(high))


def coverage(cell: tuple[int, int, float], sets: int, macro_only: bool = False) -> dict[str, float]:
    """Share of `sets` data sets whose interval holds the truth, of every figure, in percent."""
    classes, photos, accuracy = cell
    rng = np.random.default_rng([SEED, classes, photos, round(100 * accuracy)])
    world = World(classes, accuracy)
    truth = true_figures(world, rng, 200_000 if macro_only else TRUTH_PHOTOS)
    hits: dict[str, list[Any]] = {}

    def note(name: str, low: Any, high: Any, true: Any, where: Any = None) -> None:
        held = holds(low, high, true)
        hits.setdefault(name, []).append(held if where is None else held[where])

    for index in range(sets):
        a, b, labels = world.draw(rng, photos)
        predicted = a.argmax(1)
        macro = macro_estimates(labels, predicted, num_classes=classes, seed=index)
        note("macro-F1", macro.macro_f1.low, macro.macro_f1.high, truth["macro-F1"])
        balanced = macro.balanced_accuracy
        note("balanced", balanced.low, balanced.high, truth["balanced"])
        if index % 2 or macro_only:  # the costly figures are measured on every other data set
            both = predicted, b.argmax(1)
            f1 = macro_f1_difference(labels, *both, num_classes=classes, seed=index)
            note("F1 difference", f1.low, f1.high, truth["F1 difference"])
        if macro_only:
            continue
        counts = counted(labels, predicted, classes)
        right = counts.diagonal()
        for name, total in (("recall", counts.sum(1)), ("precision", counts.sum(0))):
            share = right / np.maximum(total, 1)
            note(name, *wilson_interval(share, total), truth[name], total > 0)
        note("top-1", *wilson_interval(right.sum() / photos, photos), truth["top-1"])
        note("top5", *wilson_interval(within_five(a, labels).mean(), photos), truth["top5"])
        a_right, b_right = predicted == labels, b.argmax(1) == labels
        only_a, only_b = int((a_right & ~b_right).sum()), int((b_right & ~a_right).sum())
        note("difference", *difference_interval(only_a, only_b, photos), truth["difference"])
        for scale in (1, 2):
            losses, briers = log_losses(scale * a, labels), brier_scores(scale * a, labels)
            note(f"log {scale}", *mean_interval(losses), truth[f"log {scale}"])
            note(f"brier {scale}", *mean_interval(briers, bound=2), truth[f"brier {scale}"])
    return {name: 100 * float(np.mean(np.hstack(held))) for name, held in hits.items()}


def calibration(cell: tuple[int, int, float], sets: int) -> list[list[str]]:
    """Rows of the calibration error of calibrated logits, and twice those, all in percent."""
    classes, photos, accuracy = cell
    rng = np.random.default_rng([SEED, classes, photos, round(100 * accuracy), 4])
    world = World(classes, accuracy)
    truths = true_figures(world, rng, 500_000)
    rows = []
    for scale, model in ((1, "calibrated"), (2, "overconfident")):
        truth, found = truths[f"ece {scale}"], []
        for index in range(sets):
            a, _, labels = world.draw(rng, photos)
            p = softmax(scale * a, axis=1)
            edges = bin_edges(p.max(1), num_bins=15, binning="equal-width")
            means = bin_means(p.max(1), p.argmax(1) == labels, edges)
            parts = [x[means[2] > 0] for x in means]
            one = ece_estimate(*parts, seed=index)
            held = holds(one.low, one.high, truth)
            measured = plug_in_ece(*parts)
            found.append((measured, kumar(*parts), one.value, one.high - one.low, held))
        values = 100 * np.array(found, dtype=float)
        means = values.mean(0)
        cells = [100 * truth, *means[:3], np.median(values[:, 2]), means[3]]
        lead = [str(classes), str(photos), f"{accuracy:.2f}", model]
        rows.append([*lead, *(f"{cell:.1f}" for cell in cells), shown(means[4])])
    return rows


def kumar(confidence_K: np.ndarray, accuracy_K: np.ndarray, count_K: np.ndarray) -> float:
    """The debiased l1 error of Kumar, Liang, Ma (2019): normal noise, here in closed form."""
    from scipy.stats import norm

    gap_K = np.abs(accuracy_K - confidence_K)
    noise_K = np.maximum(np.sqrt(accuracy_K * (1 - accuracy_K) / count_K), 1e-12)
    noisy_K = 2 * noise_K * norm.pdf(gap_K / noise_K) + gap_K * (2 * norm.cdf(gap_K / noise_K) - 1)
    return max(0.0, float((2 * gap_K - noisy_K) @ count_K / count_K.sum()))


def auroc_rows(sets: int) -> list[list[str]]:
    """Normal scores of known and unknown photos; what the interval of the AUROC covers."""
    from scipy.stats import norm

    rows = []
    for (known, unknown), truth in product([(10, 3), (20, 10), (200, 20)], (0.6, 0.85, 0.97)):
        rng = np.random.default_rng([SEED, known, unknown, round(100 * truth)])
        found = []
        for _ in range(sets):
            scores = rng.normal(2**0.5 * norm.ppf(truth), 1, known), rng.normal(size=unknown)
            one = auroc_estimate(*scores)
            found.append((100 * (one.high - one.low), 100 * holds(one.low, one.high, truth)))
        width, held = np.mean(found, axis=0)
        rows.append([str(known), str(unknown), f"{truth:.2f}", f"{width:.0f}", shown(held)])
    return rows


def shown(value: float) -> str:
    """A coverage to a tenth; bold outside 93 to 97 %."""
    text = f"{value:.1f}"
    return text if 93 <= float(text) <= 97 else f"**{text}**"


def table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def lead(cell: tuple[int, int, float]) -> list[str]:
    return [str(cell[0]), str(cell[1]), f"{cell[2]:.2f}"]


def small_tables(results: dict[tuple[int, int, float], dict[str, float]]) -> str:
    names = [
        "top-1", "recall", "precision", "macro-F1", "balanced", "difference", "F1 difference",
    ]  # fmt: skip
    shares = [
        lead(cell)
        + [shown(found[name]) for name in names]
        + [shown(found["top5"]) if cell[0] > 5 else "–"]
        for cell, found in results.items()
    ]
    means = [
        lead(cell) + [shown(found[f"{name} {s}"]) for name in ("log", "brier") for s in (1, 2)]
        for cell, found in results.items()
    ]
    return "\n".join([
        "### Shares, in % of data sets\n", table([*HEAD, *names, "top-5"], shares),
        "### Log loss and Brier score: calibrated logits, and twice those (overconfident)\n",
        table([*HEAD, "log loss", "log loss ×2", "Brier", "Brier ×2"], means),
    ])  # fmt: skip


def many_table(results: dict[tuple[int, int, float], dict[str, float]]) -> str:
    names = ("macro-F1", "balanced", "F1 difference")
    rows = [lead(cell) + [shown(found[name]) for name in names] for cell, found in results.items()]
    return "### Many classes\n\n" + table([*HEAD, *names], rows)


def machine() -> str:
    lscpu = subprocess.run(["lscpu"], capture_output=True, text=True, check=True).stdout
    model = next(line for line in lscpu.splitlines() if line.startswith("Model name"))
    return (
        f"{model.split(':')[1].strip()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--photos", type=int, nargs="+", default=PHOTOS)
    parser.add_argument("--tables", nargs="+", default=TABLES, choices=TABLES)
    parser.add_argument("--sets", type=int, default=2000)
    parser.add_argument("--many-sets", type=int, default=500)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    args = parser.parse_args()
    started = time.perf_counter()
    cells = sorted(product(CLASSES, args.photos, ACCURACIES))
    parts = []
    with ProcessPoolExecutor(args.workers) as pool:
        if "shares" in args.tables:
            pending = {cell: pool.submit(coverage, cell, args.sets) for cell in cells[::-1]}
            parts.append(small_tables({cell: pending[cell].result() for cell in cells}))
        if "many" in args.tables:
            more = {cell: pool.submit(coverage, cell, args.many_sets, True) for cell in MANY}
            parts.append(many_table({cell: more[cell].result() for cell in MANY}))
        if "ece" in args.tables:
            found = pool.map(calibration, cells, [args.sets] * len(cells))
            rows = [row for of_a_cell in found for row in of_a_cell]
            parts += ["### Calibration error, %\n", table(ECE_HEAD, rows)]
        if "auroc" in args.tables:
            rows = auroc_rows(args.sets)
            parts += ["### AUROC\n", table(["known", "unknown", "truth", "width", "covers"], rows)]
    text = "\n".join([heading(args, time.perf_counter() - started), *parts])
    if args.output:
        args.output.write_text(text, encoding="utf-8")
    print(text)


def heading(args: argparse.Namespace, seconds: float) -> str:
    """The command, the commit, the machine and the seeds."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    error, many = (100 * (0.95 * 0.05 / sets) ** 0.5 for sets in (args.sets, args.many_sets))
    return (
        f"`python benchmarks/coverage.py --photos {' '.join(map(str, args.photos))} --tables "
        f"{' '.join(args.tables)} --sets {args.sets} --workers {args.workers}`, commit {commit}, "
        f"{time.strftime('%Y-%m-%d')}, {machine()}, {seconds:.0f} s. Seeds: [{SEED}, classes, "
        "photos, 100 × accuracy] for the photos (of the calibration error, with a 4 behind); a "
        f"data set's number for its bootstrap and noise. {args.sets} data sets a cell, of which a "
        f"coverage of 95 % has a standard error of {error:.1f} points (with 120 classes: "
        f"{args.many_sets} and {many:.1f}; F1 difference: on every other data set). Bold: outside "
        "93 to 97 %.\n"
    )


if __name__ == "__main__":
    main()
