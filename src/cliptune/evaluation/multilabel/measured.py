"""A checkpoint of several labels on a split, in numbers.

Shape suffixes: N photos, C classes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cliptune.evaluation.report_json import FORMAT_VERSION, estimate_dict, groups_dict, versions
from cliptune.evaluation.seen import SeenPhotos
from cliptune.evaluation.statistics.intervals import Estimate
from cliptune.evaluation.statistics.multilabel import (
    ClassFigures,
    Floats,
    MultilabelFigures,
    Targets,
)
from cliptune.model.label_answers import LabelAnswers

# Of `MultilabelFigures`, those with an interval, in the order in which they are shown.
FIGURES = ("mean_ap", "micro_f1", "macro_f1", "exact", "hamming")
UNITS = "shares are fractions of 1; loss is in nats, its mean over photos and classes"


@dataclass(frozen=True)
class MultilabelPhotos:
    """The answers for each photo that could be read."""

    paths: tuple[Path, ...]
    targets_NC: Targets
    probabilities_NC: Floats
    shown_NC: Targets


@dataclass(frozen=True, kw_only=True)
class MultilabelEvaluation:
    """A checkpoint of several labels measured on one split.

    Everything here goes by class name; `display_names` are for people's eyes. `baseline` is the
    mean average precision of zero-shot CLIP on the same photos and `gain` this model's less that;
    None where it was not measured. Zero-shot CLIP has no thresholds, so it has no other figure.
    """

    checkpoint: str
    base_model: str
    data_dir: str
    split: str
    class_names: tuple[str, ...]
    display_names: dict[str, str]
    missing_classes: tuple[str, ...]  # known classes that no photo of the split shows
    ignored_labels: tuple[str, ...]  # labels of photos that the model does not know
    skipped_images: tuple[str, ...]
    loss: float
    figures: MultilabelFigures
    baseline: Estimate | None
    gain: Estimate | None
    baseline_classes: tuple[Estimate | None, ...]  # average precision of each class
    answers: LabelAnswers
    photos: MultilabelPhotos
    seconds: float
    seen: SeenPhotos | None = None
    num_groups: int | None = None  # of photos that belong together; None where none do

    @property
    def num_images(self) -> int:
        """Photos measured."""
        return len(self.photos.paths)

    @property
    def mean_ap(self) -> float:
        """The mean average precision, a share of 1."""
        return self.figures.mean_ap.value

    def to_dict(self) -> dict[str, Any]:
        """What `evaluation_results.json` holds of several labels."""
        figures = self.figures
        return {
            "format_version": FORMAT_VERSION,
            "task": "multilabel",
            "units": UNITS,
            "num_images": self.num_images,
            **groups_dict(self.num_groups),
            "loss": self.loss,
            "figures": {name: estimate_dict(getattr(figures, name)) for name in FIGURES}
            | {"calibration_error": figures.calibration_error},
            "baseline": {"mean_ap": estimate_dict(self.baseline)},
            "gain": {"mean_ap": estimate_dict(self.gain)},
            "per_class": {
                name: class_dict(each, zero_shot_average_precision=estimate_dict(zero_shot))
                | {"threshold": threshold.model_dump()}
                for name, each, zero_shot, threshold in zip(
                    self.class_names, figures.classes, self.baseline_classes,
                    self.answers.thresholds, strict=True,
                )
            },
            "together": figures.together_CC.tolist(),
            "reliability": [
                {"probability": p, "share": y, "answers": n} for p, y, n in figures.reliability
            ],
            "temperature": self.answers.temperature,
            "checkpoint": self.checkpoint,
            "base_model": self.base_model,
            "data_dir": self.data_dir,
            "split": self.split,
            "class_names": list(self.class_names),
            "display_names": self.display_names,
            "missing_classes": list(self.missing_classes),
            "ignored_labels": list(self.ignored_labels),
            "skipped_images": list(self.skipped_images),
            "seen_photos": None if self.seen is None else self.seen.to_dict(),
            "seconds": self.seconds,
            "images_per_second": self.num_images / self.seconds,
            "versions": versions(),
        }  # fmt: skip


def class_dict(figures: ClassFigures, **beside: Any) -> dict[str, Any]:
    """JSON of the figures of one class; what is `beside` stands after its average precision."""
    counts = {key: value for key, value in asdict(figures).items() if isinstance(value, int)}
    return counts | {
        "average_precision": estimate_dict(figures.average_precision),
        **beside,
        "precision": figures.precision,
        "recall": figures.recall,
        "f1": figures.f1,
    }
