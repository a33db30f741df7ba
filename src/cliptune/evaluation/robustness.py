"""How much accuracy is left when photos get worse: several classifiers side by side."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from cliptune.data.folder import Sample
from cliptune.data.loading import Batch, PhotoDataset
from cliptune.errors import ImageError, listing
from cliptune.evaluation.corruptions import CORRUPTIONS, STRENGTHS, Alteration
from cliptune.evaluation.statistics.metrics import top_k_accuracy
from cliptune.language import translated as _
from cliptune.model.classifier import Classifier, Predictions, predict_logits
from cliptune.model.measuring import Measuring
from cliptune.text import counted


@dataclass(frozen=True)
class Robustness:
    """Top-1 accuracy, as fractions of `num_photos`, by corruption and strength.

    `untouched`: of each classifier. `corrupted`: by corruption, for strengths 1, 2 and 3, of each
    classifier.
    """

    num_photos: int
    seed: int
    untouched: tuple[float, ...]
    corrupted: dict[str, tuple[tuple[float, ...], ...]]

    def curve(self, corruption: str, classifier: int) -> list[float]:
        """Accuracy of one classifier at strengths 0, 1, 2 and 3 of one corruption."""
        rows = self.corrupted[corruption]
        return [self.untouched[classifier], *(row[classifier] for row in rows)]

    def mean(self, classifier: int) -> float:
        """Accuracy of one classifier over all corruptions and strengths above 0."""
        values = [row[classifier] for rows in self.corrupted.values() for row in rows]
        return sum(values) / len(values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON, with what each corruption's levels are."""
        return {
            "num_photos": self.num_photos,
            "seed": self.seed,
            "untouched": list(self.untouched),
            "corrupted": {
                name: {
                    "meaning": CORRUPTIONS[name].meaning,
                    "levels": list(CORRUPTIONS[name].levels),
                    "accuracy": [list(row) for row in rows],
                }
                for name, rows in self.corrupted.items()
            },
            "mean": [self.mean(i) for i in range(len(self.untouched))],
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Robustness:
        """The inverse of `to_dict`."""
        return cls(
            num_photos=values["num_photos"],
            seed=values["seed"],
            untouched=tuple(values["untouched"]),
            corrupted={
                name: tuple(tuple(row) for row in entry["accuracy"])
                for name, entry in values["corrupted"].items()
            },
        )


def measure_robustness(
    classifiers: Sequence[Classifier],
    samples: Sequence[Sample],
    measuring: Measuring,
    *,
    seed: int = 0,
) -> Robustness:
    """Measure `classifiers` on `samples`, untouched and in every corruption.

    `classifiers` are on the device of `measuring`.
    Photos are read 22 times: once for each variant, which all classifiers share. They are brought
    to size by the first classifier's preprocessing. Unreadable photos are left out of all figures.

    Raises `ImageError` if no photo can be read, or one that was readable before no longer can.
    """
    variants = [(name, strength) for name in CORRUPTIONS for strength in STRENGTHS]
    num_batches = (1 + len(variants)) * -(-len(samples) // measuring.batch_size)
    with tqdm(total=num_batches, unit="batch", leave=False, disable=measuring.hides_bars) as bar:

        def predict(alter: Alteration | None, what: str) -> Predictions:
            bar.set_description(_("measuring {what}").format(what=what))
            photos = PhotoDataset(samples, classifiers[0].preprocess, alter=alter)
            batches = _counted(measuring.batches(photos), bar)
            return predict_logits(classifiers, batches, measuring.device)

        untouched = predict(None, "untouched photos")
        _check(untouched, None, samples)
        corrupted: dict[str, list[tuple[float, ...]]] = {name: [] for name in CORRUPTIONS}
        for name, strength in variants:
            predictions = predict(Alteration(name, strength, seed), f"{name} {strength}")
            _check(predictions, untouched, samples)
            corrupted[name].append(_accuracies(predictions))
    return Robustness(
        num_photos=len(untouched.labels),
        seed=seed,
        untouched=_accuracies(untouched),
        corrupted={name: tuple(rows) for name, rows in corrupted.items()},
    )


def _check(found: Predictions, untouched: Predictions | None, samples: Sequence[Sample]) -> None:
    """Raise `ImageError` unless photos could be read: any at all, and those that could before."""
    faults = listing([str(fault) for fault in found.unreadable])
    if not len(found.labels):
        raise ImageError(f"of {counted(len(samples), 'photo')} none can be read:\n{faults}")
    if untouched is not None and len(found.labels) != len(untouched.labels):
        raise ImageError(
            f"{counted(len(untouched.labels), 'photo')} could be read at first, "
            f"{len(found.labels)} later: files changed while they were measured. Measure again. "
            f"Unreadable now:\n{faults}"
        )


def _accuracies(predictions: Predictions) -> tuple[float, ...]:
    """Of each classifier."""
    return tuple(top_k_accuracy(x, predictions.labels, k=1) for x in predictions.logits)


def _counted(batches: Iterable[Batch], bar: tqdm[Any]) -> Iterator[Batch]:
    """`batches`, each counted by `bar` once it was worked on."""
    for batch in batches:
        yield batch
        bar.update()
