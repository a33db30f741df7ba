"""How often the 95 % intervals of `cliptune.evaluation` hold the truth, on simulated photos.

    python benchmarks/coverage.py --output benchmarks/results/coverage.md

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
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from cliptune.evaluation.calibration import brier_scores, log_losses
from cliptune.evaluation.intervals import difference_interval, mean_interval, wilson_interval
from cliptune.evaluation.metrics import balanced_accuracy, macro_f1
from cliptune.evaluation.reliability import reliability
from cliptune.evaluation.resampling import macro_estimates, macro_f1_difference

SEED = 20261124
CLASSES, PHOTOS, ACCURACIES = (2, 10), (100, 200, 1000), (0.6, 0.85, 0.97)
MANY = [(120, 240, 0.8), (120, 600, 0.6), (120, 600, 0.8), (120, 1200, 0.9)]
TRUTH_PHOTOS, CHUNK = 1_000_000, 100_000
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
            if scale != index % 2 + 1:
                continue
            ece = reliability(scale * a, labels, seed=index).ece_estimate
            note(f"ece {scale}", ece.low, ece.high, truth[f"ece {scale}"])
    return {name: 100 * float(np.mean(np.hstack(held))) for name, held in hits.items()}


def shown(value: float) -> str:
    """A coverage to a tenth; bold outside 93 to 97 %."""
    text = f"{value:.1f}"
    return text if 93 <= float(text) <= 97 else f"**{text}**"


def table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def tables(results: dict[tuple[int, int, float], dict[str, float]]) -> str:
    names = [
        "top-1", "recall", "precision", "macro-F1", "balanced", "difference", "F1 difference",
    ]  # fmt: skip

    def lead(cell: tuple[int, int, float]) -> list[str]:
        return [str(cell[0]), str(cell[1]), f"{cell[2]:.2f}"]

    small = [cell for cell in results if cell[0] <= 10]
    shares = [
        lead(cell)
        + [shown(results[cell][name]) for name in names]
        + [shown(results[cell]["top5"]) if cell[0] > 5 else "–"]
        for cell in small
    ]
    means = [
        lead(cell)
        + [shown(results[cell][f"{name} {s}"]) for name in ("log", "brier", "ece") for s in (1, 2)]
        for cell in small
    ]
    many = [
        lead(cell) + [shown(results[cell][n]) for n in ("macro-F1", "balanced", "F1 difference")]
        for cell in results
        if cell[0] > 10
    ]
    head = ["classes", "photos", "accuracy"]
    losses = ["log loss", "log loss ×2", "Brier", "Brier ×2", "ECE", "ECE ×2"]
    return "\n".join([
        "## Shares, in % of data sets\n", table([*head, *names, "top-5"], shares),
        "## Log loss, Brier, ECE: calibrated logits, and twice those (overconfident)\n",
        table(head + losses, means),
        "## Many classes\n", table([*head, "macro-F1", "balanced", "F1 difference"], many),
    ])  # fmt: skip


def machine() -> str:
    lscpu = subprocess.run(["lscpu"], capture_output=True, text=True, check=True).stdout
    model = next(line for line in lscpu.splitlines() if line.startswith("Model name"))
    return (
        f"{model.split(':')[1].strip()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    )


def main(run: Callable[..., dict[str, float]] = coverage) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--sets", type=int, default=2000)
    parser.add_argument("--many-sets", type=int, default=500)
    args = parser.parse_args()
    started = time.perf_counter()
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    cells = sorted(product(CLASSES, PHOTOS, ACCURACIES))
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        pending = {cell: pool.submit(run, cell, args.many_sets, True) for cell in MANY}
        pending |= {cell: pool.submit(run, cell, args.sets) for cell in cells[::-1]}
        results = {cell: pending[cell].result() for cell in [*cells, *MANY]}
    error = 100 * (0.95 * 0.05 / args.sets) ** 0.5
    text = "\n".join([
        "# Coverage of the 95 % intervals\n",
        f"`python benchmarks/coverage.py --sets {args.sets} --many-sets {args.many_sets}`, commit "
        f"{commit}, {time.strftime('%Y-%m-%d')}, {machine()}, "
        f"{time.perf_counter() - started:.0f} s.",
        f"Seeds: [{SEED}, classes, photos, 100 × accuracy] for the photos; a data set's number "
        "for its bootstrap.",
        f"{args.sets} data sets a cell ({args.many_sets} with 120 classes), of which a coverage "
        f"of 95 % has a standard error of {error:.1f} points "
        f"({100 * (0.95 * 0.05 / args.many_sets) ** 0.5:.1f}); ECE, F1 difference: every other "
        "data set, so 0.7 with 2000. Bold: outside 93 to 97 %.\n",
        tables(results),
    ])  # fmt: skip
    if args.output:
        args.output.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
