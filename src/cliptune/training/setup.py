"""What stands before the first update: photos, model, optimizer."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from cliptune.config import (
    DataSettings,
    HardwareSettings,
    LoraSettings,
    ModelSettings,
    Settings,
)
from cliptune.data.classes_file import read_names
from cliptune.data.decoded import MIB
from cliptune.data.folder import Split
from cliptune.errors import SettingsError
from cliptune.evaluation.statistics.answering import SURE_SHARE
from cliptune.files import default_cache_dir
from cliptune.model.backbone import Backbone, load_backbone
from cliptune.model.checkpoint import Checkpoint
from cliptune.model.classifier import Classifier, FittedHead, Head, LinearHead, TextHead
from cliptune.model.conformal import photos_for
from cliptune.model.device import precision_for, resolve_device
from cliptune.model.dropout import PhotoKeys
from cliptune.model.fast.encoder import fuse, record
from cliptune.model.fast.kept_activations import FrozenStates
from cliptune.model.image_tokens import drop_patches
from cliptune.model.lora import add_adapters, trainable_share
from cliptune.model.prompts import PromptNames, prompt_counts, prompts_for, zero_shot_weights
from cliptune.storage import local_folder
from cliptune.text import counted
from cliptune.training.loaders import groups_of_splits, load_photos, make_loaders, photo_sums
from cliptune.training.multilabel import (
    MultilabelLoss,
    refuse_settings_of_one_label,
    several_of,
)
from cliptune.training.optim import make_optimizer
from cliptune.training.reporting import check_trackers
from cliptune.training.resume import precision_before
from cliptune.training.run import Run
from cliptune.training.several.sharing import as_the_first_has, of_the_first
from cliptune.training.uneven import UnevenLoss, uneven_loss

log = logging.getLogger(__name__)


def set_up(
    settings: Settings,
    *,
    progress: bool = True,
    last: Checkpoint | None = None,
    photos: tuple[Split, Split] | None = None,
) -> Run:
    """Photos, model and optimizer by `settings`; nothing is written yet.

    `photos` are train and val, where they are not to be looked for.

    A run that goes on from `last` computes in the precision it began in, and lower-cases prompts
    where it did.
    """
    check_trackers(settings.output.trackers)
    device = resolve_device(settings.hardware.device)
    train, val = photos or load_photos(
        settings.data, recipe=settings.training.recipe, seed=settings.seed, progress=progress
    )
    coverage = settings.evaluation.coverage
    loss = _loss_for(settings, train, val)
    data_dir = local_folder(settings.data.data_dir)
    names = read_names(data_dir, train.class_names)
    train_groups_N, val_groups_N = groups_of_splits(data_dir, train, val)
    if names.parents and len(val) < (needed := photos_for(coverage or SURE_SHARE)):
        log.warning(
            "val has %s; with fewer than %d it cannot be told which parents answers are sure of.",
            counted(len(val), "photo"), needed,
        )  # fmt: skip
    precision = of_the_first(choose_precision(settings.hardware, device, last))
    accelerator = make_accelerator(device, precision=precision)

    torch.manual_seed(settings.seed)
    keys = PhotoKeys(seed=settings.seed)
    backbone = load_backbone(
        settings.model.name,
        revision=settings.model.revision,
        cache_dir=settings.model.cache_dir,
        image_size=settings.model.image_size,
        lower_case=last.record.lower_case if last else None,
    )
    weights_CD = zero_shot_weights(
        backbone, train.class_names, settings.model.prompts, prompt_names=names.prompts
    )
    zero_shot = TextHead(weights_CD, backbone.model.logit_scale)
    classifier = build_classifier(
        backbone, zero_shot, train.class_names, settings.model, settings.lora,
        recipe=settings.training.recipe, prompt_names=names.prompts, keys=keys,
    )  # fmt: skip
    _tell_of(classifier, backbone, accelerator)

    optimizer = make_optimizer(
        classifier,
        learning_rate=settings.training.learning_rate,
        weight_decay=settings.training.weight_decay,
    )
    # For evaluation: not wrapped by torch's own way to average gradients, which takes processes
    # to have equally many photos, and parameters to be used by each (`several.sharing`).
    model = accelerator.prepare_model(classifier, evaluation_mode=True)
    optimizer = accelerator.prepare(optimizer)
    as_the_first_has([p.data for p in classifier.parameters() if p.requires_grad])
    if settings.hardware.fast and (plain := fuse(classifier.model)):
        log.debug("computed by transformers and PEFT, not fused: %s", ", ".join(plain))
    if settings.hardware.cuda_graphs and accelerator.device.type == "cuda":
        record(classifier.model, keys)
    batches, train_loader, val_loader = make_loaders(
        settings.data, train, val, backbone.preprocess,
        training=settings.training, seed=settings.seed, accelerator=accelerator,
    )  # fmt: skip
    frozen = frozen_val = None
    if settings.training.cache_activations:
        frozen, frozen_val = frozen_states(settings.data, classifier, len(train), len(val))
    return Run(
        settings=settings,
        accelerator=accelerator,
        backbone=backbone,
        class_names=train.class_names,
        names=names,
        train_samples=train.samples,
        val_samples=val.samples,
        zero_shot=zero_shot.to(accelerator.device),
        classifier=accelerator.unwrap_model(model),
        model=model,
        optimizer=optimizer,
        batches=batches,
        train_loader=train_loader,
        val_loader=val_loader,
        keys=keys,
        loss=loss.to(accelerator.device),
        several=several_of(train, val, backbone.model, accelerator.device),
        frozen=frozen,
        frozen_val=frozen_val,
        photo_sums=photo_sums(train, val) if accelerator.is_main_process else None,
        train_groups_N=train_groups_N,
        val_groups_N=val_groups_N,
    )


def refuse_few_for_sets(coverage: float | None, num_val: int, data: DataSettings) -> None:
    """Raise `SettingsError` where prediction sets cannot promise `coverage` on so few photos."""
    if coverage is None or num_val >= (needed := photos_for(coverage)):
        return
    remedy = "Put more photos into val"
    if num_val:
        remedy += f", ask for {math.floor(100 * num_val / (num_val + 1)) / 100:g} or less"
    raise SettingsError(
        f"evaluation.coverage: {coverage:g} can be promised on {counted(needed, 'photo')} of val "
        f"or more, and there are {num_val} in {data.data_dir}. {remedy}, or leave it out."
    )


def _loss_for(settings: Settings, train: Split, val: Split) -> UnevenLoss | MultilabelLoss:
    """The loss of photos with one label each, or with any number of them.

    Raises `SettingsError` for settings that the kind of labels, or so few photos, cannot have.
    """
    if train.several is None:
        refuse_few_for_sets(settings.evaluation.coverage, len(val), settings.data)
        return uneven_loss(settings.training, train)
    refuse_settings_of_one_label(settings)
    return MultilabelLoss()


def choose_precision(
    hardware: HardwareSettings, device: torch.device, last: Checkpoint | None
) -> str:
    """What accelerate calls mixed precision: that of the run to go on, or the best for `device`.

    Whether bf16 is faster is timed, and another machine may answer otherwise: a run that goes on
    must not change its numbers with it.
    """
    before = None
    if last is not None and hardware.asked_precision == "auto":
        before = precision_before(last.path, device)
    return before or precision_for(device, hardware.asked_precision).replace("float32", "no")


def make_accelerator(device: torch.device, *, precision: str) -> Any:
    """An `Accelerator` for `device`; `precision` is "bf16", "fp16" or "no"."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    # Accelerate keeps one state for the process; a second run may want another device or format.
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    return Accelerator(mixed_precision=precision, cpu=device.type == "cpu")


def build_classifier(
    backbone: Backbone,
    zero_shot: TextHead,
    class_names: Sequence[str],
    settings: ModelSettings,
    lora: LoraSettings,
    *,
    recipe: str,
    prompt_names: PromptNames,
    keys: PhotoKeys,
) -> Classifier:
    """Backbone with fresh adapters and a fresh head: update 0 of a run.

    `keys` say whose dropout masks are drawn. With head "text", and with a head that is still to be
    fitted (recipe "head_first"), it predicts exactly as `zero_shot` does.
    """
    texts = prompts_for(class_names, settings.prompts, prompt_names=prompt_names)
    counts = prompt_counts(class_names, settings.prompts, prompt_names=prompt_names)
    tokens = None if lora.towers == "vision" else backbone.tokenize(texts)
    model = add_adapters(
        backbone.model,
        r=lora.r,
        alpha=lora.lora_alpha,
        dropout=lora.lora_dropout,
        target_modules=lora.target_modules,
        towers=lora.towers,
        bias=lora.bias,
        use_dora=lora.use_dora,
        use_rslora=lora.use_rslora,
        last_layers=lora.last_layers,
        keys=keys,
    )
    if settings.patch_dropout:
        drop_patches(model, settings.patch_dropout, keys=keys)
    head: Head
    if recipe == "head_first":
        head = FittedHead(zero_shot.features, zero_shot.logit_scale)
    elif settings.head == "text":
        head = TextHead(zero_shot.features, zero_shot.logit_scale)
    else:
        head = LinearHead(len(class_names), zero_shot.features.shape[1])
    return Classifier(model, head, backbone.preprocess, prompt_tokens=tokens, prompt_counts=counts)


def frozen_states(
    data: DataSettings, classifier: Classifier, num_train: int, num_val: int
) -> tuple[FrozenStates, FrozenStates]:
    """Where the activations below the adapters are kept, for train and for val.

    Raises `ModelError` where the image tower is not computed by the fused encoder.
    """
    views = (data.augmentation.views or 1) if data.augmentation.enabled else 1
    kept = partial(
        FrozenStates,
        classifier.model,
        folder=data.cache_dir or default_cache_dir(),
        limit_bytes=data.cache_limit * MIB,
    )
    return kept(num_photos=num_train, views=views), kept(num_photos=num_val, views=1)


def _tell_of(classifier: Classifier, backbone: Backbone, accelerator: Any) -> None:
    in_words = accelerator.mixed_precision.replace("no", "float32")
    log.info("%s, %s on %s", backbone.source, in_words, accelerator.device)
    trainable, parameters = trainable_share(classifier)
    share = 100 * trainable / parameters
    log.info("trainable parameters: %s of %s (%.2f %%)", f"{trainable:,}", f"{parameters:,}", share)
