"""What is answered for one image: its most probable classes, and whether it shows any of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class ClassScore:
    """A class and its probability, a share of 1.

    `label` is the class name, that of the training folder: for programs. `name` is the one to
    show: "golden retriever", or what `classes.yaml` gave.
    """

    label: str
    probability: float
    name: str


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one image, the best first.

    `known` says whether it shows one of the classes at all: whether `known_score` reaches the
    threshold set on validation photos. Both are None for a checkpoint without one.

    Of a checkpoint of several labels, `shown` has every class whose probability reaches its own
    threshold, the most probable first; `known` is whether there is any, and `known_score` how far
    the surest is above. Otherwise it is None.

    `prediction_set` are the classes, the most probable first, of which one is right at the rate
    `coverage`; both are None for a checkpoint that was not trained with `evaluation.coverage`.

    Where classes have parents, `sure_of` is the deepest class or parent that is right at the rate
    `sure_share`, and None where it is sure of none; without parents both are None.
    """

    scores: tuple[ClassScore, ...]
    source: str | None = None  # the file it came from, if it came from one
    known: bool | None = None
    known_score: float | None = None
    shown: tuple[ClassScore, ...] | None = None
    prediction_set: tuple[ClassScore, ...] | None = None
    coverage: float | None = None
    sure_of: ClassScore | None = None
    sure_share: float | None = None

    @property
    def further(self) -> dict[str, str]:
        """What tables hold of it beside the rest, where the checkpoint tells it; by column.

        Class names are joined by |, which none of them holds.
        """
        cells = {}
        if self.shown is not None:
            cells["shown"] = "|".join(score.label for score in self.shown)
        if self.prediction_set is not None:
            cells["prediction_set"] = "|".join(score.label for score in self.prediction_set)
        if self.sure_share is not None:
            cells["sure_of"] = "" if self.sure_of is None else self.sure_of.label
        return cells

    @property
    def label(self) -> str:
        """The most probable class, by its class name."""
        return self.scores[0].label

    @property
    def name(self) -> str:
        """The most probable class, by the name to show."""
        return self.scores[0].name

    @property
    def probability(self) -> float:
        """Its probability, a share of 1."""
        return self.scores[0].probability

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        values: dict[str, Any] = {
            "image": self.source,
            "label": self.label,
            "name": self.name,
            "probability": self.probability,
            "known": self.known,
            "known_score": self.known_score,
            "scores": [asdict(score) for score in self.scores],
        }
        if self.shown is not None:
            values["shown"] = [asdict(score) for score in self.shown]
        if self.prediction_set is not None:
            in_set = [asdict(score) for score in self.prediction_set]
            values |= {"prediction_set": in_set, "coverage": self.coverage}
        if self.sure_share is not None:
            sure_of = None if self.sure_of is None else asdict(self.sure_of)
            values |= {"sure_of": sure_of, "sure_share": self.sure_share}
        return values
