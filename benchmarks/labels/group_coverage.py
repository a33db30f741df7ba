"""How often 95 % intervals hold the truth where photos belong to groups: by photo, and by group.

    python benchmarks/labels/group_coverage.py

Simulated answers of two models on groups of photos: what makes a photo hard is shared within its
group to the share `alike` (its variance). The truth is what 200,000 such groups of one photo give.
A row is a number of groups and photos in each; its figures are shares of --sets data sets.

Shape suffixes: N photos, C classes.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping

import numpy as np
from tqdm import tqdm

from cliptune.evaluation.statistics.calibration import brier_scores, log_losses
from cliptune.evaluation.statistics.figures import compare_paired, full_metrics
from cliptune.evaluation.statistics.intervals import Estimate, Floats
from cliptune.evaluation.statistics.metrics import (
    Labels,
    balanced_accuracy,
    confusion_matrix,
    macro_f1,
)

CLASSES = 5
FIGURES = ("accuracy", "macro_f1", "balanced_accuracy", "log_loss", "brier", "difference")


def drawn(
    rng: np.random.Generator, *, groups: int, each: int, alike: float
) -> tuple[Floats, Floats, Labels, Labels]:
    """(logits of A, of B, labels, groups): B leans on A's noise in part."""
    groups_N = np.repeat(np.arange(groups), each)
    labels_N = rng.integers(0, CLASSES, groups)[groups_N]

    def noise_NC() -> Floats:
        own = rng.normal(size=(len(labels_N), CLASSES))
        shared: Floats = rng.normal(size=(groups, CLASSES))[groups_N]
        result: Floats = np.sqrt(alike) * shared + np.sqrt(1 - alike) * own
        return result

    a, b = noise_NC(), noise_NC()
    right_NC = np.eye(CLASSES)[labels_N]
    return 2.0 * right_NC + a, 1.8 * right_NC + 0.8 * a + 0.6 * b, labels_N, groups_N


def truth() -> dict[str, float]:
    """Each figure of endless photos."""
    a_NC, b_NC, labels_N, _ = drawn(np.random.default_rng(99), groups=200_000, each=1, alike=0.0)
    predicted_N = a_NC.argmax(axis=1)
    confusion_CC = confusion_matrix(labels_N, predicted_N, num_classes=CLASSES)
    accuracy = float((predicted_N == labels_N).mean())
    return {
        "accuracy": accuracy,
        "macro_f1": macro_f1(confusion_CC),
        "balanced_accuracy": balanced_accuracy(confusion_CC),
        "log_loss": float(log_losses(a_NC, labels_N).mean()),
        "brier": float(brier_scores(a_NC, labels_N).mean()),
        "difference": accuracy - float((b_NC.argmax(axis=1) == labels_N).mean()),
    }


def estimates(
    a_NC: Floats, b_NC: Floats, labels_N: Labels, groups_N: Labels | None
) -> Mapping[str, Estimate]:
    """Of each figure."""
    full = full_metrics(a_NC, labels_N, seed=0, groups_N=groups_N)
    paired = compare_paired(a_NC, b_NC, labels_N, seed=0, groups_N=groups_N)
    found = {name: getattr(full, name) for name in FIGURES[:-1]}
    return found | {"difference": paired.accuracy_difference}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sets", type=int, default=300)
    args = parser.parse_args()
    true = truth()
    print(f"| groups × photos | alike | intervals | {' | '.join(FIGURES)} |")
    print("|---|---|---|" + "---|" * len(FIGURES))
    settings = [(g, k, alike) for g, k in ((20, 10), (40, 5), (120, 5)) for alike in (0.2, 0.9)]
    for groups, each, alike in tqdm(settings, "settings"):
        held = {(way, name): 0 for way in ("by photo", "by group") for name in FIGURES}
        told = dict(held)
        for i in range(args.sets):
            rng = np.random.default_rng([groups, i])
            a_NC, b_NC, labels_N, groups_N = drawn(rng, groups=groups, each=each, alike=alike)
            for way, given in (("by photo", None), ("by group", groups_N)):
                for name, found in estimates(a_NC, b_NC, labels_N, given).items():
                    told[way, name] += bool(np.isfinite(found.high))
                    held[way, name] += bool(found.low <= true[name] <= found.high)
        for way in ("by photo", "by group"):
            cells = [
                f"{100 * held[way, name] / args.sets:.0f}" if told[way, name] == args.sets else "–"
                for name in FIGURES
            ]
            print(f"| {groups} × {each} | {alike} | {way} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
