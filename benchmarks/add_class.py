"""What a class added without training is worth: breeds left out of training, added afterwards.

    python benchmarks/add_class.py --data DATA --model MODEL --split val --compare
    python benchmarks/add_class.py --data DATA --model MODEL --split test

For each of `--breeds` a checkpoint is trained on the other classes (kept in `--work` for the next
time). The breed is then added from its prompts, and from 4 and 16 of its *training* photos,
`--draws` times with other photos, and measured on all classes of `--split`. The method was chosen
on val, by `--compare`; test was measured once, with the method chosen.

Shape suffixes: N photos, C classes, D feature.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cliptune.config import load_settings
from cliptune.data.folder import Sample, scan_classes
from cliptune.data.image_files import find_images
from cliptune.editing.classes import ClassParts, read_parts, with_class
from cliptune.editing.figures import ChangeFigures, change_figures
from cliptune.editing.placing import place_class
from cliptune.model.answers import class_means, scaled_logits, unit_rows
from cliptune.model.backbone import load_backbone
from cliptune.model.checkpoint import best_checkpoint
from cliptune.model.classifier import TextHead
from cliptune.model.measuring import Measuring
from cliptune.model.prompts import zero_shot_weights
from cliptune.model.restore import load_classifier
from cliptune.training.train import train

PROMPT = "a photo of a {}, a type of dog."
SEED = 42
COUNTS = (0, 4, 16)
MEASURED = ("recall", "before", "after", "precision", "all")


@dataclass(frozen=True)
class World:
    """A checkpoint that does not know the class `breed`, and features of photos of all classes."""

    breed: str
    parts: ClassParts
    text_D: torch.Tensor
    texts_CD: np.ndarray  # of the classes it knows
    photos_ND: np.ndarray  # of training photos of the breed
    features_ND: np.ndarray  # of the photos measured on
    labels_N: np.ndarray  # the breed's is the last

    @property
    def weights_CD(self) -> np.ndarray:
        head = self.parts.head
        return unit_rows((head["features"] + head["offset"]).numpy())

    @property
    def scale(self) -> float:
        return float(self.parts.head["logit_scale"].exp())


Placing = Callable[[World, np.ndarray], np.ndarray]


def chosen(world: World, photos_ND: np.ndarray, strength: float | None = None) -> np.ndarray:
    """What `cliptune add-class` does."""
    if not len(photos_ND):
        return world.text_D.numpy()
    given = {} if strength is None else {"strength": strength}
    return place_class(
        world.text_D.numpy(), photos_ND, weights_CD=world.weights_CD,
        means_CD=world.parts.means_CD, scale=world.scale, **given,
    )  # fmt: skip


def shifted(world: World, photos_ND: np.ndarray) -> np.ndarray:
    """From prompts: the text with the mean offset of the trained classes."""
    return world.text_D.numpy() + world.parts.head["offset"].numpy().mean(axis=0)


def ridge(world: World, photos_ND: np.ndarray) -> np.ndarray:
    """From prompts: the text with the offset that ridge regression makes of it."""
    offsets_CD, center_D = world.parts.head["offset"].numpy(), world.texts_CD.mean(axis=0)
    share_C = _ridge(world.texts_CD - center_D, world.text_D.numpy() - center_D, 1.0)
    mean_D = offsets_CD.mean(axis=0)
    return world.text_D.numpy() + mean_D + share_C @ (offsets_CD - mean_D)


def raw_mean(world: World, photos_ND: np.ndarray) -> np.ndarray:
    """From photos: their mean direction."""
    return photos_ND.mean(axis=0)


def seated(world: World, photos_ND: np.ndarray, *, trust: float = 0.0) -> np.ndarray:
    """From photos: their mean from the mean of all, as far from the mean weight as the others are.

    The text counts as `trust` photos.
    """
    weights_CD, k = world.weights_CD, len(photos_ND)
    center_D, means_CD = weights_CD.mean(axis=0), world.parts.means_CD
    radius = np.linalg.norm(weights_CD - center_D, axis=1).mean()
    photo_D, text_D = (
        unit_rows(x[None])[0]
        for x in (
            unit_rows(photos_ND.mean(axis=0)[None])[0] - means_CD.mean(axis=0),
            world.text_D.numpy() - world.texts_CD.mean(axis=0),
        )
    )
    share = k / (k + trust)
    direction_D = unit_rows((share * photo_D + (1 - share) * text_D)[None])[0]
    return center_D + radius * direction_D


def least_squares(world: World, photos_ND: np.ndarray) -> np.ndarray:
    """From photos: the ridge regression from means to weights, at their mean."""
    means_CD, weights_CD = world.parts.means_CD, world.weights_CD
    center_D, mean_D = weights_CD.mean(axis=0), means_CD.mean(axis=0)
    new_D = unit_rows(photos_ND.mean(axis=0)[None])[0] - mean_D
    return center_D + _ridge(means_CD - mean_D, new_D, 0.1) @ (weights_CD - center_D)


def _ridge(x_CD: np.ndarray, new_D: np.ndarray, strength: float) -> np.ndarray:
    """(C,) how much each row's outcome counts for `new_D`; `strength` in mean squared lengths."""
    gram_CC = x_CD @ x_CD.T
    return (
        new_D
        @ x_CD.T
        @ np.linalg.inv(
            gram_CC + strength * np.trace(gram_CC) / len(gram_CC) * np.eye(len(gram_CC))
        )
    )


ALTERNATIVES: dict[int, dict[str, Placing]] = {
    0: {"text (chosen)": chosen, "text + mean offset": shifted, "text + ridge offset": ridge},
    1: {
        "one row fitted, strength 30 (chosen)": chosen,
        "one row fitted, strength 3": lambda w, x: chosen(w, x, 3.0),
        "one row fitted, strength 300": lambda w, x: chosen(w, x, 300.0),
        "mean of the photos": raw_mean,
        "seated among the weights": seated,
        "seated, text as 4 photos": lambda w, x: seated(w, x, trust=4.0),
        "least squares, means to weights": least_squares,
    },
}


def make_world(breed: str, args: argparse.Namespace) -> World:
    """Train without `breed` where that was not done yet; features of all that is needed."""
    names = sorted(scan_classes(args.data / "train"))
    data, run = args.work / breed / "data", args.work / breed / "run"
    for split in ("train", "val"):
        for name in names:
            if name != breed and not (data / split / name).exists():
                (data / split).mkdir(parents=True, exist_ok=True)
                (data / split / name).symlink_to((args.data / split / name).resolve())
    found = best_checkpoint(run)
    if found is None:
        settings = load_settings(
            overrides={
                "model.name": str(args.model), "model.prompts": [PROMPT], "seed": SEED,
                "data.data_dir": str(data), "data.num_workers": 0,
                "training.num_epochs": args.epochs, "hardware.mixed_precision": False,
                "output.output_dir": str(run), "output.log_dir": str(args.work / breed / "logs"),
            }
        )  # fmt: skip
        found = train(settings).best
        assert found is not None
    classifier, parts = load_classifier(found), read_parts(found)
    backbone = load_backbone(str(args.model))
    known = parts.record.class_names
    texts = zero_shot_weights(backbone, [*known, breed], [PROMPT])
    measuring = Measuring(device=torch.device("cpu"), num_workers=0)
    photos = [Sample(path, 0) for path in find_images(args.data / "train" / breed)]
    measured = [
        Sample(path, label)
        for label, name in enumerate([*known, breed])
        for path in find_images(args.data / args.split / name)
    ]
    predictions = measuring.predict([classifier], measured, f"{args.split} of {breed}")
    return World(
        breed, parts, texts[-1], texts[:-1].numpy(),
        unit_rows(measuring.predict([classifier], photos, f"photos of {breed}").features[0]),
        unit_rows(predictions.features[0]), predictions.labels,
    )  # fmt: skip


def measure(world: World, photos_ND: np.ndarray, placing: Placing) -> dict[str, float]:
    """The figures of one addition, in percent."""
    count = len(photos_ND)
    weight_D = torch.from_numpy(unit_rows(placing(world, photos_ND)[None])[0]).float()
    mean_D = class_means(photos_ND, np.zeros(count, np.int64), num_classes=1)[0] if count else None
    parts = with_class(
        world.parts, world.breed, text_D=world.text_D, weight_D=weight_D, mean_D=mean_D,
        num_photos=count,
    )  # fmt: skip
    head = TextHead(parts.head["features"], parts.head["logit_scale"])
    head.load_state_dict(parts.head)
    with torch.inference_mode():
        logits_NC = head(torch.from_numpy(world.features_ND).float(), head.weights()).numpy()
    answers = parts.record.answers
    scaled_NC = scaled_logits(answers, logits_NC)
    index = len(parts.record.class_names) - 1
    figures = change_figures(scaled_NC, world.labels_N, index=index, added=True)
    return _percent(figures)


def _percent(figures: ChangeFigures) -> dict[str, float]:
    assert figures.recall is not None
    right = figures.after.value * figures.num_others + figures.recall.value * figures.num_new
    values = {
        "recall": figures.recall.value,
        "before": figures.before.value,
        "after": figures.after.value,
        "precision": 0.0 if figures.precision is None else figures.precision.value,
        "all": right / (figures.num_others + figures.num_new),
    }
    return {name: 100 * value for name, value in values.items()}


def draws(world: World, count: int, num_draws: int, placing: Placing) -> np.ndarray:
    """(draws, 5) the figures `MEASURED`, of `count` photos drawn anew each time."""
    rows = []
    for seed in range(num_draws if count else 1):
        order = np.random.default_rng([SEED, seed]).permutation(len(world.photos_ND))
        figures = measure(world, world.photos_ND[order[:count]], placing)
        rows.append([figures[name] for name in MEASURED])
    return np.array(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="train/, val/ and test/")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("outputs/add_class"))
    parser.add_argument("--breeds", default="collie,golden_retriever,siberian_husky")
    parser.add_argument("--split", default="val", choices=("val", "test"))
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--compare", action="store_true", help="the alternatives, too")
    args = parser.parse_args()
    worlds = [make_world(breed, args) for breed in args.breeds.split(",")]
    head = "new-class recall | others before | others after | precision of the new | all classes |"
    print(
        f"{args.split} split, {args.draws} draws, seed {SEED}, {args.epochs} epochs, torch "
        f"{torch.__version__}, {platform.processor() or platform.machine()}. Percent; ±: standard "
        "deviation over draws of photos.\n"
    )
    print(f"| held-out breed | photos | {head}\n|---|---|---|---|---|---|---|")
    for world in worlds:
        for count in COUNTS:
            rows = draws(world, count, args.draws, chosen)
            cells = [f"{m:.1f}" + (f" ± {s:.1f}" if s else "")
                     for m, s in zip(rows.mean(axis=0), rows.std(axis=0), strict=True)]  # fmt: skip
            print(f"| {world.breed} | {count} | {' | '.join(cells)} |")
    if args.compare:
        print(f"\n| photos | method | {head}\n|---|---|---|---|---|---|---|")
        for count in (0, 1, 4, 16):
            for name, placing in ALTERNATIVES[min(count, 1)].items():
                rows = np.mean(
                    [draws(w, count, args.draws, placing).mean(axis=0) for w in worlds], axis=0
                )
                print(f"| {count} | {name} | {' | '.join(f'{x:.1f}' for x in rows)} |")


if __name__ == "__main__":
    main()
