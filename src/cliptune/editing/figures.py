"""What a class more or less does to the answers on labelled photos.

Shape suffixes: N photos, C classes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cliptune.data.folder import Sample, photos_of_class
from cliptune.data.groups import groups_of
from cliptune.data.splits import split_folder
from cliptune.editing.classes import ClassParts
from cliptune.errors import DataError, listing
from cliptune.evaluation.statistics.grouped import Groups, share_of
from cliptune.evaluation.statistics.intervals import Estimate
from cliptune.evaluation.statistics.metrics import Labels, Logits, top_k_hits
from cliptune.language import translated as _
from cliptune.model.answers import answered
from cliptune.model.checkpoint import Checkpoint
from cliptune.model.classifier import Classifier
from cliptune.model.measuring import Measuring, labelled_photos, measured_folder
from cliptune.model.restore import saved_settings
from cliptune.text import counted

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ChangeFigures:
    """What a class more or less changes on one split. All estimates are fractions of 1.

    `before` and `after` are the accuracy on the `num_others` photos of the other classes, without
    and with the change; `taken` of these photos go to the class in question by the checkpoint that
    knows it. Of a class added: its recall, its precision among photos of this split (None where it
    is never predicted), and the share of its photos that are not taken for "none of these"; None
    without photos of it.
    """

    data_dir: str
    split: str
    num_others: int
    before: Estimate
    after: Estimate
    taken: int
    num_new: int = 0
    recall: Estimate | None = None
    precision: Estimate | None = None
    known: Estimate | None = None


@dataclass(frozen=True, kw_only=True)
class MeasuredPhotos:
    """The photos of one split that a change is measured on; `why_none` where there is none."""

    data_dir: Path
    split: str
    samples: tuple[Sample, ...]
    why_none: str = ""


def change_figures(
    scaled_NC: Logits,
    labels_N: Labels,
    *,
    index: int,
    added: bool,
    known_N: NDArray[np.bool_] | None = None,
    data_dir: str = "",
    split: str = "",
    groups_N: Groups | None = None,
) -> ChangeFigures:
    """What the class `index` changes, of logits (N, C) that know it and labels among the C.

    `known_N` says which photos are not taken for "none of these"; those of one number in `groups_N`
    belong together. Raises `ValueError` without a
    photo of another class.
    """
    others_N, new_N = labels_N != index, labels_N == index
    count, num_new = int(others_N.sum()), int(new_N.sum()) if added else 0
    without_NC = np.delete(scaled_NC[others_N], index, axis=1)
    labels_without_N = labels_N[others_N] - (labels_N[others_N] > index)

    def share(hits_M: NDArray[np.bool_], of_N: NDArray[np.bool_]) -> Estimate | None:
        return share_of(hits_M, None if groups_N is None else groups_N[of_N])

    unaware = share(top_k_hits(without_NC, labels_without_N, k=1), others_N)
    hits_N = top_k_hits(scaled_NC, labels_N, k=1)
    aware = share(hits_N[others_N], others_N)
    if unaware is None or aware is None:
        raise ValueError("there is no photo of another class to measure on")
    claimed_N = scaled_NC.argmax(axis=1) == index
    return ChangeFigures(
        data_dir=data_dir,
        split=split,
        num_others=count,
        before=unaware if added else aware,
        after=aware if added else unaware,
        taken=int(claimed_N[others_N].sum()),
        num_new=num_new,
        recall=share(hits_N[new_N], new_N) if num_new else None,
        precision=share((hits_N & new_N)[claimed_N], claimed_N) if num_new else None,
        known=share(known_N[new_N], new_N) if num_new and known_N is not None else None,
    )


def photos_to_measure(
    found: Checkpoint,
    data_dir: Path | None,
    split: str,
    *,
    added: str | None = None,
    used: Sequence[Path] = (),
) -> MeasuredPhotos:
    """The photos of the classes of `found`, and those of the class `added` as the next one.

    `data_dir` None is the data of training, if it is still there. Photos that were `used` to place
    the class added are left out. Raises `DataError` where nothing is found in a folder that was
    asked for by name.
    """
    settings, known = saved_settings(found), found.record.class_names
    folder = Path()
    try:
        folder = measured_folder(found, settings, data_dir)
        samples = labelled_photos(settings, folder, split, known).samples
    except DataError as error:
        if data_dir is not None:
            raise
        return MeasuredPhotos(data_dir=folder, split=split, samples=(), why_none=str(error))
    if added is not None:
        taken = {path.resolve() for path in used}
        new = photos_of_class(split_folder(folder, split), added)
        samples += tuple(Sample(path, len(known)) for path in new if path.resolve() not in taken)
    return MeasuredPhotos(data_dir=folder, split=split, samples=samples)


def figures_on_split(
    photos: MeasuredPhotos,
    parts: ClassParts,
    classifier: Classifier,
    measuring: Measuring,
    *,
    index: int,
    added: bool,
) -> tuple[ChangeFigures | None, str]:
    """(figures of `classifier`, which knows the class `index` of `parts`, or why none)."""
    if not photos.samples:
        return None, photos.why_none
    predictions = measuring.predict(
        [classifier], photos.samples, _("measuring on {split}").format(split=photos.split)
    )
    if predictions.unreadable:
        lines = listing([str(fault) for fault in predictions.unreadable])
        left_out = counted(len(predictions.unreadable), "unreadable image")
        log.warning("not measured on %s:\n%s", left_out, lines)
    if not (predictions.labels != index).any():
        split_dir = split_folder(photos.data_dir, photos.split)
        return None, f"{split_dir}: no photo of the other classes that can be read."
    told = answered(
        parts.record.answers, predictions.logits[0], predictions.features[0],
        weights_CD=classifier.class_weights().float().cpu().numpy(), means_CD=parts.means_CD,
    )  # fmt: skip
    paths = [photos.samples[i].path for i in predictions.indices]
    groups_N = groups_of(photos.data_dir, paths)
    figures = change_figures(
        told.scaled_NC, predictions.labels, index=index, added=added, known_N=told.known_N,
        data_dir=str(photos.data_dir), split=photos.split, groups_N=groups_N,
    )  # fmt: skip
    return figures, ""
