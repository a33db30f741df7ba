"""A class more or less without training: the new checkpoint, and what it costs the other classes.

Shape suffixes: C classes, D feature.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
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
    head_of,
    read_parts,
    with_class,
    without_class,
    write_changed,
)
from cliptune.editing.figures import ChangeFigures, figures_on_split, photos_to_measure
from cliptune.editing.label_figures import LabelChangeFigures
from cliptune.editing.label_photos import LabelPhotos, photos_to_add_by, photos_to_remove_by
from cliptune.editing.labels import LabelAdded, add_label, figures_without
from cliptune.editing.placing import place_class
from cliptune.errors import CheckpointError, ImageError, UserError, listing
from cliptune.files import user_path
from cliptune.language import translated as _
from cliptune.model.answers import Floats, class_means
from cliptune.model.checkpoint import MEANS, Checkpoint, resolve_checkpoint
from cliptune.model.classifier import Classifier
from cliptune.model.device import resolve_device
from cliptune.model.exported.graph import import_onnx
from cliptune.model.loaded import LoadedCheckpoint
from cliptune.model.measuring import Measuring
from cliptune.model.prompts import check_names, zero_shot_weights
from cliptune.storage import address_of, folder_here, hub_place, is_address, local_folder
from cliptune.text import counted


@dataclass(frozen=True, kw_only=True)
class ClassChange:
    """A checkpoint with a class added or removed, and its figures.

    `figures` is None where no photos were found to measure on; `unmeasured` then says why. Where
    photos have several labels, `label` says what the class was learned from.
    """

    checkpoint: Checkpoint
    source: Path
    class_name: str
    added: bool
    num_photos: int
    figures: ChangeFigures | LabelChangeFigures | None
    unmeasured: str
    label: LabelAdded | None = None


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
    parent: str | None = None,
    batch_size: int = 32,
    device: str = "auto",
    base_model: str | None = None,
    cache_dir: Path | str | None = None,
    progress: bool = True,
) -> ClassChange:
    """Write a new checkpoint that knows the class `name` too, without any training.

    The class comes from its prompts, with `prompt_names` in them (default: its readable name),
    and from the photos in the folder `images`, if there is one (`cliptune.editing.placing` says
    how); `parent` is one of those that its classes have. `output` defaults to a folder beside
    `checkpoint`, which stays as it is. What the other classes lose is measured on `split` of
    `data_dir` (default: of the data it was trained on).

    Where photos have several labels, other classes lose nothing: `cliptune.editing.labels` says
    how a class is added there.

    Raises `UserError` for a name that is taken, `CheckpointError` for a linear head, where photos
    cannot be placed, and for an exported folder whose text tower is not at hand, `DataError`, and
    `ImageError` listing every photo it cannot read.
    """
    found = resolve_checkpoint(user_path(checkpoint))
    parts = read_parts(found)
    (name,) = spellings([name], where="add-class")
    prompt_names = [clean_name(each) for each in prompt_names]
    display_name = None if display_name is None else clean_name(display_name)
    parent = None if parent is None else clean_name(parent)
    check_new_class(found.record, name, display_name=display_name, parent=parent)
    target = _target(found, checkpoint, output, f"plus-{name}")
    check_split(split)
    measuring = Measuring(
        device=resolve_device(device), batch_size=batch_size, num_workers=0,
        base_model=base_model, cache_dir=cache_dir, progress=progress,
    )  # fmt: skip
    adding = partial(
        with_class, parts, name,
        display_name=display_name, prompt_names=prompt_names, parent=parent,
    )  # fmt: skip
    if found.record.task == "multilabel":
        given = [] if images is None else photos_below(local_folder(images), "--images")
        asked = photos_to_add_by(found, name, given, _folder(data_dir), split)
        return _with_label(found, parts, name, prompt_names, asked, measuring, adding, target)
    paths = [] if images is None else _photos_of_class(local_folder(images), parts)
    photos = photos_to_measure(found, _folder(data_dir), split, added=name, used=paths)

    loaded = measuring.loaded(found)
    text_D = _text_feature(loaded, name, prompt_names)
    classifier = loaded.tuned().to(measuring.device)
    weight_D, mean_D = None, None
    if paths:
        weight_D, mean_D = _placed_by(paths, name, text_D, parts, found, classifier, measuring)
    changed = adding(text_D=text_D, weight_D=weight_D, mean_D=mean_D, num_photos=len(paths))
    classifier.head = head_of(changed).to(measuring.device)
    index = len(changed.record.class_names) - 1
    figures, why = figures_on_split(photos, changed, classifier, measuring, index=index, added=True)
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
    target = _target(found, checkpoint, output, f"minus-{name}")
    changed = without_class(parts, name)
    check_split(split)
    measuring = Measuring(
        device=resolve_device(device), batch_size=batch_size, num_workers=0,
        base_model=base_model, cache_dir=cache_dir, progress=progress,
    )  # fmt: skip
    if found.record.task == "multilabel":
        measured = photos_to_remove_by(found, _folder(data_dir), split)
        return _without_label(found, parts, index, changed, measured, measuring, target)
    photos = photos_to_measure(found, _folder(data_dir), split)
    figures, why = None, photos.why_none
    if photos.samples:
        classifier = measuring.loaded(found).tuned().to(measuring.device)
        figures, why = figures_on_split(
            photos, parts, classifier, measuring, index=index, added=False
        )
    return ClassChange(
        checkpoint=write_changed(target, found, changed), source=found.path, class_name=name,
        added=False, num_photos=0, figures=figures, unmeasured=why,
    )  # fmt: skip


def _with_label(
    found: Checkpoint,
    parts: ClassParts,
    name: str,
    prompt_names: Sequence[str],
    photos: LabelPhotos,
    measuring: Measuring,
    adding: Callable[..., ClassParts],
    target: Path,
) -> ClassChange:
    """`found` with a class more where photos have several labels, written to `target`."""
    loaded = measuring.loaded(found)
    text_D = _text_feature(loaded, name, prompt_names)
    added = add_label(
        parts, name, text_D, photos, loaded.tuned().to(measuring.device), measuring,
        lambda weight_D, bias, threshold, count: adding(
            text_D=text_D, weight_D=weight_D, bias=bias, threshold=threshold, num_photos=count
        ),
    )  # fmt: skip
    return ClassChange(
        checkpoint=write_changed(target, found, added.parts, placed_by=added.learned_from),
        source=found.path, class_name=name, added=True, num_photos=added.num_photos,
        figures=added.figures, unmeasured=photos.why_none, label=added,
    )  # fmt: skip


def _without_label(
    found: Checkpoint,
    parts: ClassParts,
    index: int,
    changed: ClassParts,
    photos: LabelPhotos,
    measuring: Measuring,
    target: Path,
) -> ClassChange:
    """`changed`, which is `found` without a class where photos have several labels, written."""
    figures = None
    if photos.measured is not None:
        classifier = measuring.loaded(found).tuned().to(measuring.device)
        figures = figures_without(parts, photos, classifier, measuring, index)
    return ClassChange(
        checkpoint=write_changed(target, found, changed), source=found.path,
        class_name=found.record.class_names[index], added=False, num_photos=0, figures=figures,
        unmeasured=photos.why_none,
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


def _text_feature(loaded: LoadedCheckpoint, name: str, prompt_names: Sequence[str]) -> torch.Tensor:
    """(D,) the unit text feature of the class `name`, by the prompts of the checkpoint."""
    record, backbone = loaded.checkpoint.record, loaded.tuned_backbone()
    names = {name: list(prompt_names)} if prompt_names else {}
    check_names(backbone, [*record.class_names, name], prompt_names=record.prompt_names | names)
    return zero_shot_weights(backbone, [name], record.prompts, prompt_names=names)[0]


def _placed_by(
    paths: Sequence[Path],
    name: str,
    text_D: torch.Tensor,
    parts: ClassParts,
    found: Checkpoint,
    classifier: Classifier,
    measuring: Measuring,
) -> tuple[torch.Tensor, Floats]:
    """(D,) class weight and (D,) mean direction of a class, by all its photos at `paths`."""
    samples = [Sample(path, 0) for path in paths]
    predictions = measuring.predict([classifier], samples, _("photos of {name}").format(name=name))
    if predictions.unreadable:
        lines = listing([str(fault) for fault in predictions.unreadable])
        raise ImageError(
            f"{len(predictions.unreadable)} of the {counted(len(paths), 'photo')} of '{name}' "
            f"cannot be read:\n{lines}\nMend or remove them; nothing was written."
        )
    features_ND = predictions.features[0]
    if not np.isfinite(features_ND).all():
        raise CheckpointError(
            f"{found.path}: its features are not finite numbers. Its training diverged, or its "
            "weights were changed: use another checkpoint of the run."
        )
    assert parts.means_CD is not None  # _photos_of_class asked for them
    of_unit_length = found.record.head == "text"
    placed_D = place_class(
        text_D.numpy() if of_unit_length else float(parts.head["share"]) * text_D.numpy(),
        features_ND,
        weights_CD=classifier.class_weights().float().cpu().numpy(),
        bias_C=None if of_unit_length else parts.head["bias"].numpy(),
        means_CD=parts.means_CD,
        scale=float(parts.head["logit_scale"].exp()),
        of_unit_length=of_unit_length,
    )
    mean_D = class_means(features_ND, np.zeros(len(paths), np.int64), num_classes=1)[0]
    return torch.from_numpy(placed_D).float(), mean_D


def _folder(data_dir: Path | str | None) -> Path | None:
    return None if data_dir is None else local_folder(data_dir)


def _target(found: Checkpoint, given: Path | str, output: Path | str | None, ending: str) -> Path:
    if found.exported:
        import_onnx("a class more or less in an exported folder")
    if output is None and (is_address(given) or hub_place(given)):
        raise UserError(
            f"{address_of(given) or given}: the new checkpoint is written to a folder here. Name "
            "it with --output, and copy it from there."
        )
    source = found.path if found.path.name not in ("", "..") else found.path.resolve()
    target = (
        source.with_name(f"{source.name}-{ending}")
        if output is None
        else folder_here(output, "--output")
    )
    check_new_folder(target)
    return target
