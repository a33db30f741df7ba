"""From a checkpoint folder to a classifier that predicts as it did when it was saved."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cliptune.config import Settings, load_settings
from cliptune.data.digests import PhotoSums
from cliptune.data.images import Preprocess
from cliptune.errors import CheckpointError, DeviceError, ModelError, SettingsError, UserError
from cliptune.model.answers import Answers
from cliptune.model.backbone import BaseModelSource, load_model
from cliptune.model.checkpoint import ADAPTER, HEAD, MEANS, PHOTOS, RECORD, Checkpoint, Record
from cliptune.model.classifier import Classifier, Head, LinearHead, empty_head
from cliptune.model.device import precision_to_answer
from cliptune.model.exported.about import read_about
from cliptune.model.exported.classifier import ExportedClassifier
from cliptune.model.fast.encoder import fuse
from cliptune.model.label_answers import LabelAnswers, usual_answers
from cliptune.model.lora import check_config, load_adapter_state, merge, merge_plain
from cliptune.model.prior import Prior, answers_for
from cliptune.storage import local_folder

log = logging.getLogger(__name__)


def load_classifier(
    checkpoint: Checkpoint,
    *,
    base_model: str | None = None,
    cache_dir: Path | None = None,
    fast: bool = True,
) -> Classifier:
    """The classifier in `checkpoint`, its adapters merged into the base model, on the CPU; or the
    graph of an exported one, which needs no base model.

    `base_model` says where the base model lies now, if it was moved. With `fast`, towers compute
    in fewer operations where that gives the same.

    Raises `CheckpointError` when files are damaged or the base model is not the one this
    checkpoint was trained on.
    """
    path, record = checkpoint.path, checkpoint.record
    head = load_head(path, record)
    if checkpoint.exported:
        exported = ExportedClassifier(path, head, load_preprocess(checkpoint))
        return exported.eval().requires_grad_(False)
    model, _ = load_base(checkpoint, base_model=base_model, cache_dir=cache_dir)
    model = merge_adapter(path, model)
    classifier = Classifier(model, head, load_preprocess(checkpoint)).eval().requires_grad_(False)
    if fast:
        fuse(classifier.model)
    return classifier


def saved_settings(checkpoint: Checkpoint) -> Settings:
    """The settings a checkpoint was trained with. Raises `CheckpointError` if they are damaged."""
    try:
        return load_settings(checkpoint.path / "config.yaml")
    except SettingsError as error:
        raise CheckpointError(f"{checkpoint.path}: its settings cannot be read: {error}") from None


def training_folder(checkpoint: Checkpoint, settings: Settings) -> Path | None:
    """The data folder of its training; None for an exported one, which names no folder.

    One at an address is fetched.
    """
    return None if checkpoint.exported else local_folder(settings.data.data_dir)


def answering_precision(
    checkpoint: Checkpoint, settings: Settings, device: torch.device, given: str | None
) -> str:
    """What the image tower of `checkpoint` computes in on `device`, where `given` is asked for.

    Raises `DeviceError` for what `device`, or an exported graph, does not compute in.
    """
    if not checkpoint.exported:
        return precision_to_answer(device, given, trained_as=settings.hardware.asked_precision)
    precision = read_about(checkpoint.path).precision
    if given not in (None, "auto", precision):
        raise DeviceError(f"{checkpoint.path}: it was exported in {precision}; found '{given}'.")
    return precision


def load_preprocess(checkpoint: Checkpoint) -> Preprocess:
    """How photos are brought to the base model's size. Raises `CheckpointError`."""
    try:
        return Preprocess.from_dict(checkpoint.record.preprocess)
    except (TypeError, ValueError, ModelError) as error:
        raise CheckpointError(f"{checkpoint.path / RECORD}: preprocess: {error}") from None


def load_head(path: Path, record: Record) -> Head:
    """The head in the checkpoint folder `path`. Raises `CheckpointError` if it does not fit."""
    tensors = read_tensors(path / HEAD)
    count = len(record.class_names)
    first = tensors.get("linear.weight" if record.head == "linear" else "offset")
    if first is None or first.ndim != 2 or first.shape[0] != count:
        found = "none" if first is None else f"of shape {tuple(first.shape)}"
        raise CheckpointError(
            f"{path / HEAD}: class weights {found}; expected ({count}, feature size) "
            f"for the {count} classes of {RECORD}"
        )
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise CheckpointError(
            f"{path / HEAD}: not all weights are finite numbers; training diverged, or the file "
            "was changed. Use another checkpoint of the run."
        )
    head = empty_head(record.head, count, first.shape[1])
    try:
        head.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(f"{path / HEAD}: {error}") from None
    if not isinstance(head, LinearHead) and texts_say_nothing(head.features):
        log.warning(
            "%s: the text features of its %d classes are all the same: its base model had no "
            "tokenizer of its own when it was trained. What it learned, it learned from photos "
            "alone, and the zero-shot figures of that time were false. Better train anew.",
            path, count,
        )  # fmt: skip
    return head


def texts_say_nothing(features_CD: torch.Tensor) -> bool:
    """Whether the text features (C, D) of two classes or more are all the same."""
    rows = features_CD.float()
    return len(rows) > 1 and bool(torch.allclose(rows, rows[:1].expand_as(rows), atol=1e-5))


def load_answers(
    checkpoint: Checkpoint, *, prior: Prior | None = None
) -> tuple[Answers | None, NDArray[np.float32] | None]:
    """How the checkpoint answers, and its class means (C, D), where it holds them.

    With `prior`, as where classes are so frequent. Raises `CheckpointError` when they do not fit
    its classes or one another, and `UserError` for a `prior` that cannot be answered for.
    """
    path, answers = checkpoint.path, checkpoint.record.answers
    if checkpoint.record.task == "multilabel":
        raise UserError(
            f"{path}: it has any number of labels to a photo, and one label is expected here. In "
            "Python, `evaluate_multilabel` measures it; `cliptune select` does not know it yet."
        )
    count = len(checkpoint.record.class_names)
    if answers is not None and answers.factors is not None and len(answers.factors) != count:
        raise CheckpointError(
            f"{path / RECORD}: answers has {len(answers.factors)} factors for {count} classes."
        )
    if prior is not None:
        answers = answers_for(prior, checkpoint)
    if not (path / MEANS).is_file():
        if answers is not None and answers.score == "photos":
            raise CheckpointError(f"{path / MEANS}: missing, and {RECORD} scores photos by it.")
        return answers, None
    means = read_tensors(path / MEANS).get("means")
    if means is None or means.ndim != 2 or len(means) != count or not means.isfinite().all():
        raise CheckpointError(f"{path / MEANS}: no finite means of {count} classes in it.")
    return answers, means.float().numpy()


def load_label_answers(
    checkpoint: Checkpoint, *, prior: Prior | None = None
) -> LabelAnswers | None:
    """How a checkpoint of several labels answers; None for one of one label.

    Raises `CheckpointError` when that does not fit its classes, and `UserError` for a `prior`.
    """
    record = checkpoint.record
    if record.task == "single":
        return None
    if prior is not None:
        raise UserError(
            f"--prior {prior}: {checkpoint.path} has any number of labels to a photo, and their "
            "shares are none of one whole. Leave it out."
        )
    answers, count = record.label_answers, len(record.class_names)
    if answers is None:
        return usual_answers(count)
    if len(answers.thresholds) != count:
        raise CheckpointError(
            f"{checkpoint.path / RECORD}: {len(answers.thresholds)} thresholds for {count} classes."
        )
    return answers


def load_photo_sums(checkpoint: Checkpoint) -> PhotoSums | None:
    """The sums of the photos it learned from and was chosen by; None in earlier checkpoints.

    Raises `CheckpointError` when they are damaged.
    """
    path = checkpoint.path / PHOTOS
    if not path.is_file():
        return None
    tensors = read_tensors(path)
    sums = [tensors.get(key) for key in ("train", "val")]
    if any(x is None or x.dtype != torch.int64 or x.ndim != 1 for x in sums):
        raise CheckpointError(f"{path}: no sums of the photos of train and val in it.")
    return PhotoSums(*(x.numpy() for x in sums if x is not None))


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file. Raises `CheckpointError` when it is damaged.

    They are copies: a mapped file could not be deleted on Windows, nor on some network disks.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors: dict[str, torch.Tensor] = load(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(f"{path}: missing") from None
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{path}: damaged or cut short ({error}). Use another checkpoint of the run."
        ) from None
    return tensors


def read_adapter(path: Path, model: Any) -> None:
    """Put the adapter tensors of the checkpoint folder `path` into `model`'s adapters."""
    try:
        load_adapter_state(model, read_tensors(path / ADAPTER))
    except ModelError as error:
        raise CheckpointError(f"{path / ADAPTER}: {error}") from None


def merge_adapter(path: Path, model: Any) -> Any:
    """`model` with the adapters of the checkpoint folder `path` folded into its weights."""
    config_path = path / "adapter_config.json"
    state = read_tensors(path / ADAPTER)
    try:
        config = check_config(json.loads(config_path.read_text(encoding="utf-8")))
    except ModelError as error:
        raise CheckpointError(f"{config_path}: {error}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{config_path}: damaged: {error}") from None
    try:
        if merge_plain(model, config, state):
            return model
    except ModelError as error:
        raise CheckpointError(f"{path / ADAPTER}: {error}") from None
    return merge(_attach_adapter(path, model))


def _attach_adapter(path: Path, model: Any) -> Any:
    from peft import LoraConfig, PeftConfig, get_peft_model

    try:
        config = PeftConfig.from_pretrained(str(path))
        if not isinstance(config, LoraConfig):
            raise ValueError(f"peft_type {config.peft_type}; expected LORA")
        config.base_model_name_or_path = None  # compared by fingerprint, not by name
        wrapped = get_peft_model(model, config)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{path / 'adapter_config.json'}: {error}") from None
    read_adapter(path, wrapped)
    return wrapped


def base_location(checkpoint: Checkpoint, base_model: str | None) -> tuple[str, str | None]:
    """The base model's name and revision: where it is now, or else where training had it from.

    Where that folder is gone, it may lie where the settings say, from here: a project that moved
    as a whole. `check_base` sees to it that these are the same weights.
    """
    recorded = checkpoint.record.base_model
    name = base_model or recorded.name
    if base_model is None and Path(name).is_absolute() and not Path(name).exists():
        written = Path(saved_settings(checkpoint).model.name).expanduser()
        if (written / "config.json").is_file():
            log.info(
                "%s: the base model lay at %s; now taken from %s", checkpoint.path, name, written
            )
            name = str(written)
    return name, recorded.revision if name == recorded.name else None


def check_base(checkpoint: Checkpoint, source: BaseModelSource) -> None:
    """Raise `CheckpointError` unless `source` has the weights the checkpoint was trained on."""
    recorded = checkpoint.record.base_model
    if source.fingerprint == recorded.fingerprint:
        return
    at = f" at revision {recorded.revision}" if recorded.revision else ""
    raise CheckpointError(
        f"{checkpoint.path} was trained on other weights than those of '{source.name}': "
        f"fingerprint {recorded.fingerprint} expected, {source.fingerprint} found. "
        f"Expected base model: {recorded.name}{at}. Say where it is with --base-model."
    )


def load_base(
    checkpoint: Checkpoint, *, base_model: str | None, cache_dir: Path | None
) -> tuple[Any, BaseModelSource]:
    """The base model of `checkpoint`, without its adapters, and where it came from.

    Raises `CheckpointError` when it cannot be loaded or is not the one of training.
    """
    name, revision = base_location(checkpoint, base_model)
    size = load_preprocess(checkpoint).image_size
    try:
        model, source = load_model(name, revision=revision, cache_dir=cache_dir, image_size=size)
    except ModelError as error:
        hint = "If the base model was moved, say where it is with --base-model."
        raise CheckpointError(
            f"{checkpoint.path}: its base model '{name}' cannot be loaded: {error}"
            + ("" if "--base-model" in str(error) else f"\n{hint}")
        ) from None
    check_base(checkpoint, source)
    return model, source
