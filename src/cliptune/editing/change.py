"""A class more or less without training: the new checkpoint, and what it costs the other classes.

Shape suffixes: C classes, D feature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cliptune.data.folder import Sample
from cliptune.data.image_files import photos_below
from cliptune.data.naming import clean_name, spellings
from cliptune.data.splits import check_split
from cliptune.editing.classes import (
    ClassParts,
    check_new_class,
    check_new_folder,
    class_index,
    read_parts,
    with_class,
    without_class,
    write_changed,
)
from cliptune.editing.figures import (
    ChangeFigures,
    Measuring,
    figures_on_split,
    photos_to_measure,
)
from cliptune.editing.placing import place_class
from cliptune.errors import CheckpointError, ImageError, listing
from cliptune.files import user_path
from cliptune.model.answers import class_means
from cliptune.model.checkpoint import MEANS, Checkpoint, resolve_checkpoint
from cliptune.model.classifier import TextHead
from cliptune.model.device import resolve_device
from cliptune.model.loaded import LoadedCheckpoint
from cliptune.model.prompts import check_names, zero_shot_weights
from cliptune.model.restore import load_classifier, saved_settings
from cliptune.text import counted


@dataclass(frozen=True, kw_only=True)
class ClassChange:
    """A checkpoint with a class added or removed, and its figures.

    `figures` is None where no photos were found to measure on; `unmeasured` then says why.
    """

    checkpoint: Checkpoint
    source: Path
    class_name: str
    added: bool
    num_photos: int
    figures: ChangeFigures | None
    unmeasured: str


def add_class(
    checkpoint: Path | str,
    name: str,
    *,
    images: Path | str | None = None,
    output: Path | str | None = None,
    data_dir: Path | str | None = None,
    split: str = "val",
    prompt_names: Sequence[str] = (),
    display_name: str | None = None,
    batch_size: int = 32,
    device: str = "auto",
    base_model: str | None = None,
    cache_dir: Path | str | None = None,
    progress: bool = True,
) -> ClassChange:
    """Write a new checkpoint that knows the class `name` too, without any training.

    The class comes from its prompts, with `prompt_names` in them (default: its readable name),
    and from the photos in the folder `images`, if there is one (`cliptune.editing.placing` says
    how). `output` defaults to a folder beside `checkpoint`, which stays as it is. What the other
    classes lose is measured on `split` of `data_dir` (default: of the data it was trained on).

    Raises `UserError` for a name that is taken, `CheckpointError` for a linear head or where
    photos cannot be placed, `DataError`, and `ImageError` listing every photo it cannot read.
    """
    found = resolve_checkpoint(user_path(checkpoint))
    parts = read_parts(found)
    (name,) = spellings([name], where="add-class")
    prompt_names = [clean_name(each) for each in prompt_names]
    display_name = None if display_name is None else clean_name(display_name)
    check_new_class(found.record, name, display_name=display_name)
    target = _target(found, output, f"plus-{name}")
    place = _measuring(data_dir, split, batch_size, device, progress)
    paths = [] if images is None else _photos_of_class(user_path(images), parts)
    samples, why = photos_to_measure(found, place, name, used=paths)
    cache = user_path(cache_dir) if cache_dir is not None else saved_settings(found).model.cache_dir
    names = {name: list(prompt_names)} if prompt_names else {}

    loaded = LoadedCheckpoint(found, base_model=base_model, cache_dir=cache)
    backbone = loaded.tuned_backbone()
    every = [*found.record.class_names, name]
    check_names(backbone, every, prompt_names=found.record.prompt_names | names)
    text_D = zero_shot_weights(backbone, [name], found.record.prompts, prompt_names=names)[0]
    classifier = loaded.tuned().to(place.device)
    weight_D, mean_D = None, None
    if paths:
        said = place.predict(classifier, [Sample(path, 0) for path in paths], f"photos of {name}")
        if said.unreadable:
            lines = listing([str(fault) for fault in said.unreadable])
            raise ImageError(
                f"{len(said.unreadable)} of the {counted(len(paths), 'photo')} of '{name}' cannot "
                f"be read:\n{lines}\nMend or remove them; nothing was written."
            )
        if not np.isfinite(said.features[0]).all():
            raise CheckpointError(
                f"{found.path}: its features are not finite numbers. Its training diverged, or its "
                "weights were changed: use another checkpoint of the run."
            )
        assert parts.means_CD is not None  # _photos_of_class asked for them
        mean_D = class_means(said.features[0], np.zeros(len(paths), np.int64), num_classes=1)[0]
        placed_D = place_class(
            text_D.numpy(),
            said.features[0],
            weights_CD=classifier.class_weights().float().cpu().numpy(),
            means_CD=parts.means_CD,
            scale=float(parts.head["logit_scale"].exp()),
        )
        weight_D = torch.from_numpy(placed_D).float()
    changed = with_class(
        parts, name, text_D=text_D, weight_D=weight_D, mean_D=mean_D, num_photos=len(paths),
        display_name=display_name, prompt_names=prompt_names,
    )  # fmt: skip
    head = TextHead(changed.head["features"], changed.head["logit_scale"])
    head.load_state_dict(changed.head)
    classifier.head = head.to(place.device).requires_grad_(False)
    index = len(changed.record.class_names) - 1
    figures = None
    if samples:
        figures, why = figures_on_split(
            samples, found, changed, classifier, place, index=index, added=True
        )
    return ClassChange(
        checkpoint=write_changed(target, found, changed, placed_by=paths), source=found.path,
        class_name=name, added=True, num_photos=len(paths), figures=figures, unmeasured=why,
    )  # fmt: skip


def remove_class(
    checkpoint: Path | str,
    name: str,
    *,
    output: Path | str | None = None,
    data_dir: Path | str | None = None,
    split: str = "val",
    batch_size: int = 32,
    device: str = "auto",
    base_model: str | None = None,
    cache_dir: Path | str | None = None,
    progress: bool = True,
) -> ClassChange:
    """Write a new checkpoint that does not know the class `name`; its other logits are the same.

    Arguments as of `add_class`. Raises `UserError` for an unknown class, and where fewer than two
    would be left.
    """
    found = resolve_checkpoint(user_path(checkpoint))
    parts = read_parts(found)
    index = class_index(found.record, name)
    name = found.record.class_names[index]
    target = _target(found, output, f"minus-{name}")
    changed = without_class(parts, name)
    place = _measuring(data_dir, split, batch_size, device, progress)
    samples, why = photos_to_measure(found, place, None, used=[])
    figures = None
    if samples:
        cache = (
            user_path(cache_dir) if cache_dir is not None else saved_settings(found).model.cache_dir
        )
        classifier = load_classifier(found, base_model=base_model, cache_dir=cache)
        classifier = classifier.to(place.device)
        figures, why = figures_on_split(
            samples, found, parts, classifier, place, index=index, added=False
        )
    return ClassChange(
        checkpoint=write_changed(target, found, changed), source=found.path, class_name=name,
        added=False, num_photos=0, figures=figures, unmeasured=why,
    )  # fmt: skip


def _photos_of_class(folder: Path, parts: ClassParts) -> list[Path]:
    """The photos to place a class by. Raises `DataError` or `CheckpointError` where there is none.

    What a photo says is told by what the photos of the other classes say: `MEANS` must be there.
    """
    paths = photos_below(folder, "--images")
    means_CD = parts.means_CD
    if means_CD is None or int(np.any(means_CD != 0, axis=1).sum()) < 2:
        raise CheckpointError(
            f"photos can be placed only beside those of the other classes, and this checkpoint "
            f"holds no {MEANS} of two of them: val was not measured when it was saved, or an "
            "earlier version made it. Use a checkpoint of the end of an epoch, or leave --images "
            "out to add the class from its prompts alone."
        )
    return paths


def _measuring(
    data_dir: Path | str | None, split: str, batch_size: int, device: str, progress: bool
) -> Measuring:
    check_split(split)
    return Measuring(
        data_dir=None if data_dir is None else user_path(data_dir), split=split,
        batch_size=batch_size, device=resolve_device(device), progress=progress,
    )  # fmt: skip


def _target(found: Checkpoint, output: Path | str | None, ending: str) -> Path:
    place = found.path if found.path.name not in ("", "..") else found.path.resolve()
    target = place.with_name(f"{place.name}-{ending}") if output is None else user_path(output)
    check_new_folder(target)
    return target
