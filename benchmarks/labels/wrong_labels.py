"""Wrong labels planted among right ones, and how well rankings find them.

    python benchmarks/labels/wrong_labels.py --model MODEL \\
        --data dogs10 "a photo of a {}, a type of dog."

By seed, a share of the labels of train/ is changed: to any other class, or to the class that the
head confuses most with the right one (look-alikes). All rankings see the same features, folds and
groups; the head's own probabilities, held out, are what cleanlab is given, too. It is run where it
is installed (`pip install cleanlab`), and is no part of the project.

Precision at the number planted, which is recall there as well; the area is that under the curve of
precision over recall (average precision). Means over seeds; differences in pairs, ± half of
Student's 95 % interval. What is wrong in the folder as it is counts against all rankings alike.

Shape suffixes: N photos, C classes, D feature.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from accuracy import mean_and_half_width
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from cliptune.checking.check import check
from cliptune.data.folder import Sample, scan_classes
from cliptune.labelling.contradiction import contradictions
from cliptune.labelling.frozen import FrozenModel, open_frozen
from cliptune.labelling.opinions import held_out_opinions, log_softmax
from cliptune.labelling.suspects import kept_together
from cliptune.training.head.logistic import Floats, Labels

OURS = "`check --model`"
LOSS = "loss of the head"
Ranking = NDArray[np.floating]  # (N,), the highest first


class Photos:
    """The photos of a folder's train/ as a frozen model sees them."""

    def __init__(self, frozen: FrozenModel, folder: Path) -> None:
        classes = scan_classes(folder / "train")
        self.name, self.class_names = folder.name, list(classes)
        paths = [path for photos in classes.values() for path in photos]
        self.labels_N = np.repeat(np.arange(len(classes)), [len(p) for p in classes.values()])
        samples = [
            Sample(path, int(label)) for path, label in zip(paths, self.labels_N, strict=True)
        ]
        self.frozen = frozen
        self.features_ND = frozen.features(samples, device=torch.device("cpu")).features_ND
        files = [path.relative_to(folder).as_posix() for path in paths]
        found = check(folder, progress=False).findings
        copies = [f.files for f in found if f.kind.startswith(("copies", "near"))]
        self.groups_N = kept_together(files, copies)

    def opinions(self, labels_N: Labels, *, seed: int) -> tuple[Floats, Floats]:
        """(N, C) probabilities of three classifiers together, and of the head alone."""
        fit = self.frozen.fit(
            self.features_ND, labels_N, self.class_names, groups_N=self.groups_N, seed=seed
        )
        chances_NC, judged_N = held_out_opinions(
            fit, self.features_ND, labels_N, self.groups_N, seed=seed
        )
        assert judged_N.all()
        return chances_NC, np.exp(log_softmax(fit.held_out.logits_NC))


def planted(
    labels_N: Labels, rate: float, seed: int, look_alike_C: Labels | None
) -> tuple[Labels, NDArray[np.bool_]]:
    """(labels, which are wrong): a share `rate` changed to another class, or to a look-alike."""
    rng = np.random.default_rng([seed, 19])
    wrong_N = np.zeros(len(labels_N), dtype=bool)
    wrong_N[rng.permutation(len(labels_N))[: round(rate * len(labels_N))]] = True
    count = int(labels_N.max()) + 1
    other_N = (labels_N + rng.integers(1, count, len(labels_N))) % count
    if look_alike_C is not None:
        other_N = look_alike_C[labels_N]
    return np.where(wrong_N, other_N, labels_N), wrong_N


def rankings(labels_N: Labels, chances_NC: Floats, head_NC: Floats) -> dict[str, Ranking]:
    """Name -> how wrong it takes each label to be."""
    rows_N = np.arange(len(labels_N))
    found = {
        OURS: contradictions(chances_NC, labels_N)[0],
        "the same of the head alone": contradictions(head_NC, labels_N)[0],
        LOSS: -head_NC[rows_N, labels_N],
    }
    try:
        from cleanlab.filter import find_label_issues
        from cleanlab.rank import get_label_quality_scores
    except ImportError:
        return found
    issues = find_label_issues(
        labels_N, head_NC, return_indices_ranked_by="self_confidence", n_jobs=1
    )
    # What it counts as issues comes first, in its order; the rest follows by loss.
    first_N = found[LOSS] - 10.0
    first_N[issues] = np.arange(len(issues), 0, -1)
    found["cleanlab, `find_label_issues`"] = first_N
    found["cleanlab, normalized margin"] = -get_label_quality_scores(
        labels_N, head_NC, method="normalized_margin"
    )
    return found


def measured(photos: Photos, *, rate: float, alike: bool, seed: int, alike_C: Labels) -> Measured:
    """Ranking -> (precision at the number planted, average precision), in percent."""
    labels_N, wrong_N = planted(photos.labels_N, rate, seed, alike_C if alike else None)
    chances_NC, head_NC = photos.opinions(labels_N, seed=seed)
    count = int(wrong_N.sum())
    return {
        name: (
            100 * float(wrong_N[np.argsort(-score_N, kind="stable")[:count]].mean()),
            100 * float(average_precision_score(wrong_N, score_N)),
        )
        for name, score_N in rankings(labels_N, chances_NC, head_NC).items()
    }


Measured = dict[str, tuple[float, float]]


def table(found: list[Measured], line: Callable[[str, list[str]], None]) -> None:
    """A line for each ranking: means, and what ours has more, in pairs."""
    ours = np.array([each[OURS] for each in found])
    for name in found[0]:
        values = np.array([each[name] for each in found])
        means = values.mean(axis=0)
        cells = [f"{means[0]:.1f}", "", f"{means[1]:.1f}", ""]
        if name != OURS:
            for place, gaps in enumerate((ours - values).T):
                mean, half = mean_and_half_width(gaps)
                cells[2 * place + 1] = f"{mean:+.1f} ± {half:.1f}"
        line(name, cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="a CLIP: folder, or name on the hub")
    parser.add_argument(
        "--data", nargs=2, action="append", required=True, metavar=("FOLDER", "PROMPT")
    )
    parser.add_argument("--rates", nargs="*", type=float, default=[0.02, 0.05, 0.1])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2, 3, 4])
    given = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    model = open_frozen(given.model)
    print("| planted | ranking | precision, % | ours more | area, % | ours more |")
    print("|---|---|---|---|---|---|")
    for folder, prompt in given.data:
        photos = Photos(FrozenModel(model.backbone, [prompt], None), Path(folder))
        clean_NC = photos.opinions(photos.labels_N, seed=0)[1]
        confused_CC = np.stack(
            [clean_NC[photos.labels_N == label].mean(axis=0) for label in range(clean_NC.shape[1])]
        )
        np.fill_diagonal(confused_CC, -1)
        for alike in (False, True):
            for rate in given.rates:
                found = [
                    measured(
                        photos,
                        rate=rate,
                        alike=alike,
                        seed=seed,
                        alike_C=confused_CC.argmax(axis=1),
                    )
                    for seed in given.seeds
                ]
                kind = "look-alikes" if alike else "random"
                what = f"{photos.name}, {kind}, {rate:.0%}"
                table(found, lambda name, cells, what=what: print(
                    f"| {what} | {name} | {' | '.join(cells)} |", flush=True
                ))  # fmt: skip


if __name__ == "__main__":
    main()
