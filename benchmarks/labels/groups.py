"""What photos of one group do to figures: accuracy by photo, by group, and on new groups.

    python benchmarks/labels/groups.py --data dogs10 --model MODEL "a photo of a {}, a type of dog."

A planted set: each photo of train/ and val/ becomes a group of near copies (cropped, brighter or
darker, mirrored or not). By seed, --groups of each class are what somebody has, with all their
copies; the others are photos of groups that nobody has seen, one copy each: they tell the truth.
What somebody has is shared out by photo, and by group, as `cliptune prepare` does without and with
--group; on train's part the head of frozen features is fitted, no adapter, and measured on test's
part, with the interval that `cliptune evaluate` states; then on the groups nobody has seen. Beside
it stands what the head's own cross-validation says. test/ stays shut.

Shape suffixes: N photos, C classes, D feature, K copies.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from tqdm import tqdm

from cliptune.data.folder import Sample, load_split, scan_classes
from cliptune.data.reading import read_image
from cliptune.evaluation.statistics.grouped import share_of
from cliptune.evaluation.statistics.intervals import Estimate
from cliptune.model.backbone import Backbone, image_features, load_backbone
from cliptune.model.prompts import zero_shot_weights
from cliptune.preparing.grouping import share_out_groups
from cliptune.preparing.splitting import Shares, share_out
from cliptune.training.head.fitting import HeadFit, fit_head
from cliptune.training.head.logistic import Floats, Labels

WAYS = ("by photo", "by group")


@dataclass(frozen=True)
class Planted:
    """Features (N, K, D) of the near copies of N photos, their classes, and the text's."""

    features_NKD: Floats
    labels_N: Labels
    text_CD: Floats
    scale: float


@dataclass(frozen=True)
class Row:
    """One seed, one way of sharing out: what was measured, and what is true."""

    way: str
    seed: int
    measured: Estimate
    cross_validated: float
    truth: float

    @property
    def holds(self) -> bool:
        """Whether the interval holds the truth."""
        return self.measured.low <= self.truth <= self.measured.high


def near_copy(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """`image` cut to 80 to 100 % of its area, up to 20 % brighter or darker, perhaps mirrored."""
    width, height = image.size
    side = float(np.sqrt(rng.uniform(0.8, 1.0)))
    w, h = round(side * width), round(side * height)
    left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
    cut = image.crop((left, top, left + w, top + h))
    bright = ImageEnhance.Brightness(cut).enhance(float(rng.uniform(0.8, 1.2)))
    return ImageOps.mirror(bright) if rng.random() < 0.5 else bright


@torch.no_grad()
def planted(
    backbone: Backbone, samples: Sequence[Sample], names: Sequence[str], prompt: str, *, copies: int
) -> Planted:
    """The near copies of `samples`, the same ones whenever it is called."""
    rows = []
    for i, sample in enumerate(tqdm(samples, "near copies", unit="img")):
        image, rng = read_image(sample.path), np.random.default_rng(i)
        crops = [backbone.preprocess.pixels(near_copy(image, rng)) for _ in range(copies)]
        pixels = backbone.preprocess.normalize(torch.from_numpy(np.stack(crops)))
        rows.append(image_features(backbone.model, pixels).double().numpy())
    weights = zero_shot_weights(backbone, names, [prompt])
    return Planted(
        np.stack(rows), np.array([sample.label for sample in samples]),
        weights.cpu().double().numpy(), float(backbone.model.logit_scale.exp()),
    )  # fmt: skip


def measured(data: Planted, *, groups: int, seed: int) -> list[Row]:
    """Both ways of sharing out the same photos."""
    rng = np.random.default_rng([seed, 19])
    order_N = rng.permutation(len(data.labels_N))
    have, new = [], []
    for label in range(len(data.text_CD)):
        own = order_N[data.labels_N[order_N] == label]
        have += own[:groups].tolist()
        new += own[groups:].tolist()
    copy_of_new = rng.integers(data.features_NKD.shape[1], size=len(new))
    new_ND, new_N = data.features_NKD[new, copy_of_new], data.labels_N[new]
    classes: dict[str, list[PurePosixPath]] = {}
    group_of: dict[PurePosixPath, str] = {}
    for place in have:
        for copy in range(data.features_NKD.shape[1]):
            photo = PurePosixPath(f"{place}/{copy}.jpg")
            classes.setdefault(str(data.labels_N[place]), []).append(photo)
            group_of[photo] = str(place)
    shares = Shares(seed=seed)
    dealt = {
        "by photo": share_out(classes, {}, shares, where="planted"),
        "by group": share_out_groups(classes, {}, group_of, shares, where="planted"),
    }
    rows = []
    for way in WAYS:
        train, test = (
            [photo for parts in dealt[way].values() for photo in parts[split]]
            for split in ("train", "test")
        )
        train_ND, train_N, train_groups_N = _of(data, train)
        test_ND, test_N, test_groups_N = _of(data, test)
        knows = way == "by group"
        fit: HeadFit = fit_head(
            train_ND, train_N, data.text_CD, data.scale, seed=seed,
            groups_N=train_groups_N if knows else None,
        )  # fmt: skip
        found = share_of(
            fit.logits(test_ND).argmax(axis=1) == test_N, test_groups_N if knows else None
        )
        assert found is not None
        truth = float((fit.logits(new_ND).argmax(axis=1) == new_N).mean())
        rows.append(Row(way, seed, found, fit.held_out.accuracy or 0.0, truth))
    return rows


def _of(data: Planted, photos: Sequence[PurePosixPath]) -> tuple[Floats, Labels, Labels]:
    """(features, labels, groups) of these copies."""
    places = np.array([int(photo.parent.name) for photo in photos])
    copies = np.array([int(photo.stem) for photo in photos])
    return data.features_NKD[places, copies], data.labels_N[places], places


def table(rows: Sequence[Row]) -> str:
    """Markdown: each seed, then means and how often intervals held the truth."""
    lines = [
        "| shared out | seed | measured, % | cross-validated, % | on new groups, % | held |",
        "|---|---|---|---|---|---|",
    ]
    for way in WAYS:
        own = [row for row in rows if row.way == way]
        for row in own:
            m = row.measured
            lines.append(
                f"| {way} | {row.seed} | {100 * m.value:.1f} ({100 * m.low:.1f}–{100 * m.high:.1f})"
                f" | {100 * row.cross_validated:.1f} | {100 * row.truth:.1f} "
                f"| {'yes' if row.holds else 'no'} |"
            )
        means = [
            100 * float(np.mean([value(row) for row in own]))
            for value in (
                lambda row: row.measured.value,
                lambda row: row.cross_validated,
                lambda row: row.truth,
            )
        ]
        lines.append(
            f"| **{way}** | mean | **{means[0]:.1f}** | {means[1]:.1f} | **{means[2]:.1f}** "
            f"| {sum(row.holds for row in own)} of {len(own)} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("prompt", nargs="?", default="a photo of a {}.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--groups", type=int, default=40, help="of each class, that somebody has")
    parser.add_argument("--copies", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    names = tuple(scan_classes(args.data / "train"))
    samples = [
        sample
        for split in ("train", "val")
        for sample in load_split(args.data, split, class_names=names).samples
    ]
    backbone = load_backbone(args.model)
    data = planted(backbone, samples, names, args.prompt, copies=args.copies)
    rows = [
        row
        for seed in tqdm(range(args.seeds), "seeds")
        for row in measured(data, groups=args.groups, seed=seed)
    ]
    print(table(rows))


if __name__ == "__main__":
    main()
