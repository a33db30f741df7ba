"""A class added to, or removed from, a checkpoint of several labels: its row and its threshold.

Photos of it and photos without it make the row (`label_placing`), val its threshold, where val's
labels name the class. Where they do not, it is that of the middle other class, and not measured.

Shape suffixes: N photos, C classes, D feature.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cliptune.data.folder import Sample, Split
from cliptune.data.multilabel import Targets, targets_of
from cliptune.editing.classes import LEAST_SHARE, ClassParts, head_of
from cliptune.editing.label_figures import LabelChangeFigures, label_change_figures
from cliptune.editing.label_photos import LabelPhotos
from cliptune.editing.label_placing import place_label, usual_share, zero_shot_worth
from cliptune.errors import CheckpointError, DataError, ImageError, listing
from cliptune.evaluation.statistics.label_answering import fit_one_threshold
from cliptune.language import translated as _
from cliptune.model.answers import Features, Floats, Logits
from cliptune.model.classifier import Classifier
from cliptune.model.label_answers import (
    LabelAnswers,
    LabelThreshold,
    answered_labels,
    usual_answers,
)
from cliptune.model.measuring import Measuring
from cliptune.text import counted

log = logging.getLogger(__name__)

# From a class weight, a bias, a threshold and the number of its photos: the parts with it.
Adding = Callable[[torch.Tensor, float, LabelThreshold, int], ClassParts]


@dataclass(frozen=True, kw_only=True)
class LabelAdded:
    """A class added: the parts with it, its figures, and what it was learned from."""

    parts: ClassParts
    figures: LabelChangeFigures | None
    num_photos: int  # that show it
    num_others: int  # that it was told from
    presumed: bool  # these are but presumed not to show it
    learned_from: tuple[Path, ...]


@dataclass(frozen=True)
class _Learned:
    """Photos that show the new class, and photos of train with their labels, the new one last."""

    given_KD: Features
    train_ND: Features
    targets_NC: Targets
    paths: tuple[Path, ...]


def add_label(
    parts: ClassParts,
    name: str,
    text_D: torch.Tensor,
    photos: LabelPhotos,
    classifier: Classifier,
    measuring: Measuring,
    adding: Adding,
) -> LabelAdded:
    """`parts` with the class `name` more, by `adding`; and what labels say of it.

    Raises `ImageError` listing every photo of the class that cannot be read, and `CheckpointError`
    where there is no photo of it and its name tells nothing.
    """
    answers = _answers(parts)
    learned = _learned(photos, name, classifier, measuring)
    weight_D, bias = _row(parts, answers, name, text_D, learned, photos.frequency)
    shows_N = learned.targets_NC[:, -1]
    num_photos = len(learned.given_KD) + int(shows_N.sum())
    row = torch.from_numpy(weight_D).float(), bias
    changed = adding(*row, usual_threshold(answers), num_photos)
    classifier.head = head_of(changed).to(measuring.device)
    said = _said(photos.val, classifier, measuring)
    if said is not None and said[1][:, -1].any():
        told = answered_labels(_answers(changed), said[0])
        threshold = fit_one_threshold(
            told.probabilities_NC[:, -1], said[1][:, -1], seed=photos.seed
        )
        changed = adding(*row, threshold, num_photos)
    if photos.measured is not photos.val:
        said = _said(photos.measured, classifier, measuring)
    return LabelAdded(
        parts=changed, figures=_figures(photos, changed, said, index=-1, added=True),
        num_photos=num_photos, num_others=int((~shows_N).sum()),
        presumed=photos.frequency is None, learned_from=learned.paths,
    )  # fmt: skip


def figures_without(
    parts: ClassParts, photos: LabelPhotos, classifier: Classifier, measuring: Measuring, index: int
) -> LabelChangeFigures | None:
    """What it changes that the class `index` of `parts` goes; None without photos."""
    said = _said(photos.measured, classifier, measuring)
    return _figures(photos, parts, said, index=index, added=False)


def usual_threshold(answers: LabelAnswers) -> LabelThreshold:
    """That of the middle class among those whose threshold was measured; without any, one half."""
    measured = [each.value for each in answers.thresholds if each.photos]
    return LabelThreshold(value=float(np.median(measured)) if measured else 0.5)


def _answers(parts: ClassParts) -> LabelAnswers:
    return parts.record.label_answers or usual_answers(len(parts.record.class_names))


def _learned(
    photos: LabelPhotos, name: str, classifier: Classifier, measuring: Measuring
) -> _Learned:
    """The photos given and those of train, as far as they can be read: the given all must be."""
    train, count = photos.to_learn_from(), len(photos.given)
    samples = [*(Sample(path, 0) for path in photos.given), *train.samples]
    said = measuring.predict([classifier], samples, _("photos of {name}").format(name=name))
    refused = [fault for fault in said.unreadable if fault.path in photos.given]
    if refused:
        lines = listing([str(fault) for fault in refused])
        raise ImageError(
            f"{len(refused)} of the {counted(count, 'photo')} of '{name}' cannot be "
            f"read:\n{lines}\nMend or remove them; nothing was written."
        )
    if said.unreadable:
        lines = listing([str(fault) for fault in said.unreadable])
        log.warning("%s left out:\n%s", counted(len(said.unreadable), "unreadable image"), lines)
    if not np.isfinite(said.features[0]).all():
        raise CheckpointError(
            "the features of this checkpoint are not finite numbers. Its training diverged, or its "
            "weights were changed: use another checkpoint of the run."
        )
    of_train = said.indices[count:] - count
    return _Learned(
        said.features[0][:count], said.features[0][count:], targets_of(train)[of_train],
        tuple(samples[place].path for place in said.indices),
    )  # fmt: skip


def _row(
    parts: ClassParts,
    answers: LabelAnswers,
    name: str,
    text_D: torch.Tensor,
    learned: _Learned,
    frequency: float | None,
) -> tuple[Floats, float]:
    """((D,) class weight, its bias), of logits that are yet to be divided by the temperature."""
    shows_N, others_NC = learned.targets_NC[:, -1], learned.targets_NC[:, :-1]
    yes_KD = np.concatenate([learned.given_KD, learned.train_ND[shows_N]])
    scale = float(parts.head["logit_scale"].exp()) / answers.temperature
    worth = zero_shot_worth(
        learned.train_ND, others_NC, parts.head["features"].numpy(), scale=scale
    )
    if not len(yes_KD) and worth < LEAST_SHARE:
        raise CheckpointError(
            f"what the other classes are called tells {worth:.0%} of what zero-shot makes of it, "
            f"by the labels of their photos, and '{name}' from its prompts alone needs "
            f"{LEAST_SHARE:.0%} at least: it would be told by chance. Give photos of it with "
            "--images."
        )
    if shows_N.all():
        raise DataError(
            f"every photo of train shows '{name}', so that nothing tells it from others. Name a "
            "folder with photos that do not with --data-dir."
        )
    share = usual_share(others_NC) if frequency is None else frequency
    weight_D, bias = place_label(
        text_D.numpy(), yes_KD, learned.train_ND[~shows_N], scale=scale, share=share, worth=worth
    )
    return weight_D, bias * answers.temperature


def _said(
    split: Split | None, classifier: Classifier, measuring: Measuring
) -> tuple[Logits, Targets] | None:
    """(logits, labels) (N, C) of the photos of `split` that can be read; None without any."""
    if split is None or not split.samples:
        return None
    said = measuring.predict(
        [classifier], split.samples, _("measuring on {split}").format(split=split.name)
    )
    if said.unreadable:
        lines = listing([str(fault) for fault in said.unreadable])
        left_out = counted(len(said.unreadable), "unreadable image")
        log.warning("not measured on %s:\n%s", left_out, lines)
    return (said.logits[0], targets_of(split)[said.indices]) if len(said.indices) else None


def _figures(
    photos: LabelPhotos,
    parts: ClassParts,
    said: tuple[Logits, NDArray[np.bool_]] | None,
    *,
    index: int,
    added: bool,
) -> LabelChangeFigures | None:
    if said is None or photos.measured is None:
        return None
    return label_change_figures(
        _answers(parts), *said, index=index, added=added, seed=photos.seed,
        data_dir=str(photos.folder), split=photos.measured.name,
    )  # fmt: skip
