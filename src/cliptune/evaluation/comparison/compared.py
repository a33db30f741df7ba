"""What every comparison holds, of one label to a photo or of several: models, classes, photos."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from cliptune.data.splits import SPLIT_NAMES
from cliptune.evaluation.seen import SeenPhotos


@dataclass(frozen=True, kw_only=True)
class NamedModel:
    """One of the models; `letter` is what it is called beside the others: A, B and so on."""

    letter: str
    checkpoint: str
    base_model: str
    training_data: str | None  # the folder it was trained on; None where that is not told
    seen: SeenPhotos | None = None  # of the photos measured, those of its training

    def name_dict(self) -> dict[str, Any]:
        """What `comparison.json` begins a model with."""
        return {
            "letter": self.letter,
            "checkpoint": self.checkpoint,
            "base_model": self.base_model,
            "training_data": self.training_data,
            "seen_photos": None if self.seen is None else self.seen.to_dict(),
        }


Model = TypeVar("Model", bound=NamedModel)


@dataclass(frozen=True, kw_only=True)
class Compared(Generic[Model]):
    """Models on the same photos of one split. Classes go by name, in the first's order."""

    models: tuple[Model, ...]  # the first is the reference
    class_names: tuple[str, ...]
    display_names: dict[str, str]  # class name -> the name shown
    data_dir: str
    split: str
    missing_classes: tuple[str, ...]  # known classes without a photo in the split
    ignored_classes: tuple[str, ...]  # classes of photos that the models do not know
    skipped_images: tuple[str, ...]
    paths: tuple[Path, ...]  # (N,)
    seconds: float

    @property
    def reference(self) -> Model:
        """The first model."""
        return self.models[0]

    @property
    def training_folders_differ(self) -> bool:
        """Whether photos measured here may have been learned from by one model alone."""
        told = {model.training_data for model in self.models if model.training_data is not None}
        return len(told) > 1

    def short_path(self, index: int) -> str:
        """The path of a photo below the split's folder, where it lies there."""
        path, folder = self.paths[index], Path(self.data_dir)
        if path.is_relative_to(folder):
            first, *rest = path.relative_to(folder).parts
            if SPLIT_NAMES.get(first.lower()) == self.split:
                return Path(*rest).as_posix()
        return str(path)

    def classes_dict(self) -> dict[str, Any]:
        """What `comparison.json` says of classes and of photos left out."""
        return {
            "class_names": list(self.class_names),
            "display_names": self.display_names,
            "missing_classes": list(self.missing_classes),
            "ignored_classes": list(self.ignored_classes),
            "skipped_images": list(self.skipped_images),
        }
