"""The models of a comparison before they are measured: found, and found to be comparable."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cliptune.config import Settings
from cliptune.data.folder import Split
from cliptune.data.images import Preprocess
from cliptune.data.splits import split_folders
from cliptune.errors import DataError, UserError, listing, named
from cliptune.model.answers import Answers
from cliptune.model.checkpoint import Checkpoint, resolve_checkpoint
from cliptune.model.label_answers import LabelAnswers
from cliptune.model.measuring import labelled_photos, measured_folder
from cliptune.model.restore import (
    load_answers,
    load_label_answers,
    load_preprocess,
    saved_settings,
    training_folder,
)
from cliptune.text import command as command_line

LETTERS = string.ascii_uppercase


@dataclass(frozen=True)
class Contestant:
    """A model before it is measured; `label_answers` are those of several labels, else None."""

    letter: str
    checkpoint: Checkpoint
    settings: Settings
    answers: Answers | None
    label_answers: LabelAnswers | None
    preprocess: Preprocess

    @property
    def class_names(self) -> list[str]:
        return self.checkpoint.record.class_names

    @property
    def several(self) -> bool:
        """Whether it tells any number of labels of a photo."""
        return self.label_answers is not None

    @property
    def trained_on(self) -> Path | None:
        """As of `training_folder`."""
        return training_folder(self.checkpoint, self.settings)

    def __str__(self) -> str:
        return f"{self.letter} ({self.checkpoint.path})"


def contestants_at(paths: Sequence[Path]) -> list[Contestant]:
    """The models at `paths`, found to be different ones of the same classes."""
    if len(paths) < 2:
        one = ["--checkpoint", *paths] if paths else []
        raise UserError(
            f"a comparison needs two models or more; {len(paths)} given. "
            f"To measure a single one: {command_line('cliptune', 'evaluate', *one)}"
        )
    if len(paths) > len(LETTERS):
        raise UserError(f"{len(paths)} models; at most {len(LETTERS)} can be compared at once.")
    models = []
    for letter, path in zip(LETTERS, paths, strict=False):
        models.append(_contestant(letter, resolve_checkpoint(path)))
    first_at: dict[Path, Contestant] = {}
    for model in models:
        same = first_at.setdefault(model.checkpoint.path.resolve(), model)
        if same is not model:
            raise UserError(
                f"{same.letter} and {model.letter} are the same checkpoint: "
                f"{model.checkpoint.path}. Name different ones."
            )
    _refuse_both_kinds(models)
    _refuse_other_classes(models)
    return models


def _contestant(letter: str, found: Checkpoint) -> Contestant:
    label_answers = load_label_answers(found)
    return Contestant(
        letter, found, saved_settings(found),
        load_answers(found)[0] if label_answers is None else None, label_answers,
        load_preprocess(found),
    )  # fmt: skip


def _refuse_both_kinds(models: Sequence[Contestant]) -> None:
    kinds = [f"{m}: {'any number of labels' if m.several else 'one label'}" for m in models]
    if len({model.several for model in models}) > 1:
        raise UserError(
            "the models do not answer the same question; labels that they know of a photo:\n"
            f"{listing(kinds)}\nCompare those of one label, or those of any number of labels."
        )


def _refuse_other_classes(models: Sequence[Contestant]) -> None:
    first, faults = models[0], []
    for model in models[1:]:
        lacks = [name for name in first.class_names if name not in set(model.class_names)]
        more = [name for name in model.class_names if name not in set(first.class_names)]
        lists = [(model, lacks), (first, more)]
        faults += [f"{who} lacks: {named(names)}" for who, names in lists if names]
    if faults:
        raise UserError(
            f"the models do not know the same classes:\n{listing(faults)}\n"
            "Compare models of the same classes; their order may differ."
        )


def refuse_one_base_for_several(models: Sequence[Contestant], base_model: str | None) -> None:
    bases = {m.checkpoint.record.base_model.fingerprint: m for m in models}
    if base_model is not None and len(bases) > 1:
        names = [f"{m}: {m.checkpoint.record.base_model.name}" for m in bases.values()]
        raise UserError(
            f"--base-model {base_model}: the models stand on different base models, of which "
            f"one path can only name one:\n{listing(names)}\n"
            "Leave --base-model out, and put the base models where training had them."
        )


def common_folder(models: Sequence[Contestant], data_dir: Path | str | None) -> Path:
    """`data_dir`, or the folder all were trained on."""
    found = [measured_folder(model.checkpoint, model.settings, data_dir) for model in models]
    if len({folder.resolve() for folder in found}) > 1:
        lines = [f"{model}: {folder}" for model, folder in zip(models, found, strict=True)]
        raise DataError(
            f"the models were trained on photos of different folders:\n{listing(lines)}\n"
            "Say on which to compare them, with --data-dir."
        )
    return found[0]


def common_photos(models: Sequence[Contestant], folder: Path, split: str) -> Split:
    """The photos of `split`, the same ones for every model, labelled by the first's classes."""
    names, several = models[0].class_names, models[0].several
    photos = labelled_photos(models[0].settings, folder, split, names, several=several)
    if split == "test" or "val" in split_folders(folder):
        return photos
    # Without val/, each training took val out of train/ by its own seed and share.
    for model in models[1:]:
        other = labelled_photos(model.settings, folder, split, names, several=several)
        if other.samples != photos.samples:
            raise DataError(
                f"{folder}: there is no val/ folder, and {models[0]} and {model} took different "
                "photos out of train/ as val (data.val_ratio, seed): one would be measured on "
                "photos it learned from. Compare with --split test, or make a val/ folder."
            )
    return photos
