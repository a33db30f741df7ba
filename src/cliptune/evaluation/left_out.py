"""Photos and classes that figures are without: said, or refused."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from cliptune.data.folder import Split
from cliptune.data.multilabel import LABELS_FILE
from cliptune.data.reading import Unreadable
from cliptune.data.splits import split_folder
from cliptune.errors import DataError, ImageError, listing, named
from cliptune.hints import nearest
from cliptune.model.classifier import Predictions
from cliptune.text import counted

log = logging.getLogger(__name__)


def say_mismatches(photos: Split, data_dir: Path) -> None:
    """Warn of classes without photos, and of folders the model does not know."""
    split_dir = split_folder(data_dir, photos.name)
    if photos.missing_classes:
        log.warning(
            "%s has no photos of %s the model knows: %s",
            split_dir, counted(len(photos.missing_classes), "class"),
            ", ".join(photos.missing_classes),
        )  # fmt: skip
    if photos.extra_classes:
        log.warning(
            "%s: left out, since the model does not know these classes: %s",
            split_dir,
            ", ".join(_with_hint(name, photos.missing_classes) for name in photos.extra_classes),
        )  # fmt: skip


def say_unmatched_labels(photos: Split, data_dir: Path) -> None:
    """The same where photos have any number of labels: classes on no photo, and unknown labels.

    Raises `DataError` where no photo shows a class that the model knows.
    """
    if not any(photos.several or ()):
        raise DataError(
            f"{data_dir}: no photo of {photos.name} shows one of the classes: "
            f"{named(list(photos.class_names))}. Without one nothing can be measured: see "
            f"{LABELS_FILE} there."
        )
    for what, names in (
        ("labels that the model does not know, left out", photos.extra_classes),
        ("no photo shows", photos.missing_classes),
    ):
        if names:
            log.warning("%s, %s: %s: %s", data_dir, photos.name, what, ", ".join(names))


def _with_hint(name: str, missing: Sequence[str]) -> str:
    """The folder `name`, and which class it may have been meant for."""
    near = nearest(name, missing)
    return f"{name} (did you mean '{near}'?)" if near else name


def refuse_unreadable(unreadable: list[Unreadable], on_bad_image: str) -> None:
    """Raise `ImageError` with all `unreadable` photos, or warn of them where they are skipped."""
    if not unreadable:
        return
    lines = listing([str(fault) for fault in unreadable])
    if on_bad_image == "error":
        raise ImageError(
            f"{counted(len(unreadable), 'image')} cannot be read:\n{lines}\n"
            "Mend or remove them, or leave them out with --on-bad-image skip."
        )
    log.warning("left out %s:\n%s", counted(len(unreadable), "unreadable image"), lines)


def refuse_none_left(predictions: Predictions, photos: Split, data_dir: Path) -> None:
    """Raise `ImageError` where none of `photos` could be read."""
    if not len(predictions.labels):
        images = counted(len(photos), "image")
        raise ImageError(
            f"{split_folder(data_dir, photos.name)}: of its {images} none can be read."
        )
