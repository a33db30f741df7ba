"""A class added where photos have several labels: how it is placed, and from where on it is told.

    python benchmarks/labels/sheets.py shared/data/dogs10 sheets --seed 0
    python benchmarks/labels/add_class.py sheets --model MODEL

Each class in turn is taken for new, on frozen features: K photos of train that show it are given,
and it is told from photos of train whose labels do not name it. Those are without it ("clean"), or
hold the photos that show it and were not given, unlabelled ("unlabelled"). Measured on val, means
over classes and seeds: average precision; F1 at the threshold of the middle other class, at one
half, and at the threshold that val itself would set, which no default can know. 0 photos: from its
prompts. Test is not opened.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from scipy.special import expit
from sklearn.metrics import average_precision_score, f1_score

from cliptune.data.multilabel import load_multilabel_training, targets_of
from cliptune.editing.label_placing import place_label, usual_share, zero_shot_worth
from cliptune.evaluation.statistics.label_answering import fit_one_threshold
from cliptune.labelling.frozen import FrozenModel
from cliptune.model.answers import unit_rows
from cliptune.model.backbone import load_backbone
from cliptune.model.prompts import zero_shot_weights

PROMPTS = ("a photo of a {}, a type of dog.",)


class World:
    """Features (N, D) and labels (N, C) of train and val; texts (C, D)."""

    def __init__(self, photos: Path, model: str) -> None:
        backbone = load_backbone(model)
        frozen, device = FrozenModel(backbone, PROMPTS, None), torch.device("cpu")
        train, val = load_multilabel_training(photos, val_ratio=0.1, seed=0)
        self.train_ND, self.val_ND = (
            frozen.features(split.samples, device=device, num_workers=0, progress=False).features_ND
            for split in (train, val)
        )
        self.train_NC, self.val_NC = targets_of(train), targets_of(val)
        names = list(train.class_names)
        self.texts_CD = zero_shot_weights(backbone, names, PROMPTS).detach().numpy()
        self.scale = backbone.model.logit_scale.exp().item()

    def probabilities(
        self, label: int, yes_KD: np.ndarray, others_ND: np.ndarray, *, share: float,
        strength: float | None,
    ) -> np.ndarray:  # fmt: skip
        """(N,) of val, by a row of `label` placed so."""
        others = np.delete(np.arange(len(self.texts_CD)), label)
        worth = zero_shot_worth(
            self.train_ND, self.train_NC[:, others], self.texts_CD[others], scale=self.scale
        )
        weight_D, bias = place_label(
            self.texts_CD[label], yes_KD, others_ND, scale=self.scale, share=share, worth=worth,
            strength=strength,
        )  # fmt: skip
        return np.asarray(expit(self.scale * unit_rows(self.val_ND) @ weight_D + bias))

    def thresholds(self) -> np.ndarray:
        """(C,) of classes that all labelled photos were learned from."""
        found = []
        for label in range(len(self.texts_CD)):
            shows_N = self.train_NC[:, label]
            told_N = self.probabilities(
                label, self.train_ND[shows_N], self.train_ND[~shows_N], share=shows_N.mean(),
                strength=None,
            )  # fmt: skip
            found.append(fit_one_threshold(told_N, self.val_NC[:, label]).value)
        return np.array(found)

    def added(
        self, label: int, count: int, thresholds_C: np.ndarray, *, unlabelled: bool, seed: int,
        strength: float | None,
    ) -> tuple[float, ...]:  # fmt: skip
        """Average precision, and F1 at three thresholds, of a class added from `count` photos."""
        shows = np.flatnonzero(self.train_NC[:, label])
        rng = np.random.default_rng([seed, label])
        given = rng.choice(shows, min(count, len(shows)), replace=False)
        left_out = given if unlabelled else shows
        others_ND = np.delete(self.train_ND, left_out, axis=0)
        share = usual_share(np.delete(self.train_NC, label, axis=1))
        told_N = self.probabilities(
            label, self.train_ND[given], others_ND, share=share, strength=strength
        )
        truth_N = self.val_NC[:, label]
        usual = np.median(np.delete(thresholds_C, label))
        best = fit_one_threshold(told_N, truth_N).value
        f1 = (f1_score(truth_N, told_N >= each) for each in (usual, 0.5, best))
        return average_precision_score(truth_N, told_N), *f1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--counts", type=int, nargs="+", default=[0, 1, 4, 16, 64])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--strength", type=float, help="[default: as add-class chooses it]")
    options = parser.parse_args()
    world = World(options.photos, options.model)
    thresholds_C = world.thresholds()
    print("| photos | others | AP | F1 middle other | F1 one half | F1 by val |")
    print("|---|---|---|---|---|---|")
    for count in options.counts:
        for unlabelled in (False, True):
            rows = [
                world.added(label, count, thresholds_C, unlabelled=unlabelled, seed=seed,
                            strength=options.strength)
                for label in range(len(thresholds_C)) for seed in range(options.seeds)
            ]  # fmt: skip
            cells = " | ".join(f"{100 * value:.1f}" for value in np.mean(rows, axis=0))
            print(f"| {count} | {'unlabelled' if unlabelled else 'clean'} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
