"""What stands before the first update: photos, model, optimizer, baseline."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch.utils.data import DataLoader

from cliptune.config import Settings
from cliptune.data.augment import Augmentation
from cliptune.data.classes_file import read_names
from cliptune.data.decoded import MIB, default_cache_dir
from cliptune.data.digests import PhotoSums
from cliptune.data.folder import Split, load_training_splits, without
from cliptune.data.loading import EpochBatches, PhotoDataset, make_loader
from cliptune.data.reading import find_unreadable
from cliptune.errors import DataError, ImageError, listing
from cliptune.evaluation.statistics.metrics import split_metrics
from cliptune.model.backbone import Backbone, load_backbone
from cliptune.model.checkpoint import Checkpoint
from cliptune.model.classifier import Classifier, Head, LinearHead, TextHead, predict_logits
from cliptune.model.device import precision_for, resolve_device
from cliptune.model.dropout import PhotoKeys
from cliptune.model.fast.encoder import fuse
from cliptune.model.fast.kept_activations import FrozenStates
from cliptune.model.image_tokens import drop_patches
from cliptune.model.lora import add_adapters, trainable_share
from cliptune.model.prompts import PromptNames, prompt_counts, prompts_for, zero_shot_weights
from cliptune.text import counted
from cliptune.training.optim import make_optimizer
from cliptune.training.reporting import check_trackers, finite
from cliptune.training.resume import precision_before
from cliptune.training.run import Run

log = logging.getLogger(__name__)


def set_up(settings: Settings, *, progress: bool = True, last: Checkpoint | None = None) -> Run:
    """Photos, model and optimizer by `settings`; nothing is written yet.

    A run that goes on from `last` computes in the precision it began in, and lower-cases prompts
    where it did.
    """
    check_trackers(settings.output.trackers)
    device = resolve_device(settings.hardware.device)
    train, val = load_photos(settings, progress=progress)
    class_names = train.class_names
    names = read_names(settings.data.data_dir, class_names)

    mixed = settings.hardware.mixed_precision
    precision = None if last is None else precision_before(last.path, device, mixed=mixed)
    accelerator = make_accelerator(
        settings, device, precision=precision or precision_for(device, mixed=mixed)
    )
    if not accelerator.is_main_process:
        logging.getLogger("cliptune").setLevel(logging.WARNING)  # one process tells it
    torch.manual_seed(settings.seed)
    backbone = load_backbone(
        settings.model.name,
        revision=settings.model.revision,
        cache_dir=settings.model.cache_dir,
        image_size=settings.model.image_size,
        lower_case=None if last is None else last.record.lower_case,
    )
    weights = zero_shot_weights(
        backbone, class_names, settings.model.prompts, prompt_names=names.prompts
    )
    zero_shot = TextHead(weights, backbone.model.logit_scale)
    keys = PhotoKeys(seed=settings.seed)
    classifier = build_classifier(
        settings, backbone, zero_shot, class_names, prompt_names=names.prompts, keys=keys
    )
    trainable, parameters = trainable_share(classifier)
    in_words = accelerator.mixed_precision.replace("no", "float32")
    log.info("%s, %s on %s", backbone.source, in_words, accelerator.device)
    share = 100 * trainable / parameters
    log.info("trainable parameters: %s of %s (%.2f %%)", f"{trainable:,}", f"{parameters:,}", share)
    optimizer = make_optimizer(
        classifier,
        learning_rate=settings.training.learning_rate,
        weight_decay=settings.training.weight_decay,
    )
    model, optimizer = accelerator.prepare(classifier, optimizer)
    if settings.hardware.fast and (plain := fuse(classifier.model)):
        log.debug("computed by transformers and PEFT, not fused: %s", ", ".join(plain))
    batches, train_loader, val_loader = make_loaders(settings, backbone, train, val, accelerator)
    frozen = frozen_val = None
    if settings.training.cache_activations:
        frozen, frozen_val = frozen_states(settings, classifier, len(train), len(val))
    return Run(
        frozen=frozen,
        frozen_val=frozen_val,
        settings=settings,
        accelerator=accelerator,
        backbone=backbone,
        class_names=class_names,
        names=names,
        train_samples=train.samples,
        photo_sums=photo_sums(train, val) if accelerator.is_main_process else None,
        zero_shot=zero_shot.to(accelerator.device),
        classifier=accelerator.unwrap_model(model),
        model=model,
        optimizer=optimizer,
        batches=batches,
        train_loader=train_loader,
        val_loader=val_loader,
        keys=keys,
    )


def load_photos(settings: Settings, *, progress: bool) -> tuple[Split, Split]:
    """The train and val splits, each file decoded once to find the unreadable ones.

    Raises `ImageError` listing all of them, unless `data.on_bad_image` is "skip".
    """
    data = settings.data
    train, val = load_training_splits(data.data_dir, val_ratio=data.val_ratio, seed=settings.seed)
    paths = [sample.path for split in (train, val) for sample in split.samples]
    unreadable = find_unreadable(paths, progress=progress)
    if unreadable:
        lines = listing([str(fault) for fault in unreadable])
        if data.on_bad_image == "error":
            raise ImageError(
                f"{len(unreadable)} of {counted(len(paths), 'image')} cannot be read:\n{lines}\n"
                "Mend or remove them, or set data.on_bad_image to skip."
            )
        of_all = f"{len(unreadable)} of {counted(len(paths), 'image')}"
        log.warning("skipping %s:\n%s", of_all, lines)
        bad = {fault.path for fault in unreadable}
        train, val = without(train, bad), without(val, bad)
    left = {sample.label for sample in train.samples}
    empty = [name for label, name in enumerate(train.class_names) if label not in left]
    if empty or not val.samples:
        cause = "without the unreadable images " if unreadable else ""
        raise DataError(
            f"{data.data_dir}: {cause}there is no photo left for "
            f"{', '.join(empty) if empty else 'val'}. Each class needs at least two photos, "
            "or one in train/ and one in a val/ folder."
        )
    log.info(
        "%s: %s, %s, %s", data.data_dir, counted(len(train.class_names), "class"),
        counted(len(train), "training photo"), counted(len(val), "validation photo"),
    )  # fmt: skip
    if val.missing_classes:
        log.warning("val has no photos of: %s", ", ".join(val.missing_classes))
    return train, val


def photo_sums(train: Split, val: Split) -> PhotoSums:
    """The sums by which a checkpoint knows its photos again."""
    return PhotoSums.of(*([sample.path for sample in split.samples] for split in (train, val)))


def make_accelerator(settings: Settings, device: torch.device, *, precision: str) -> Any:
    """An `Accelerator` for `device`, with trackers writing under `output.log_dir`.

    `precision` is what it calls mixed precision: "bf16", "fp16" or "no".
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    if not torch.distributed.is_initialized():
        # Accelerate keeps one state for the process; a second run may want another device.
        AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(
        mixed_precision=precision,
        cpu=device.type == "cpu",
        log_with=list(settings.output.trackers),
        project_dir=settings.output.log_dir,
    )


def build_classifier(
    settings: Settings,
    backbone: Backbone,
    zero_shot: TextHead,
    class_names: Sequence[str],
    *,
    prompt_names: PromptNames,
    keys: PhotoKeys,
) -> Classifier:
    """Backbone with fresh adapters and a fresh head: update 0 of a run.

    `keys` say whose dropout masks are drawn.
    With head "text" it predicts exactly as `zero_shot` does.
    """
    lora = settings.lora
    texts = prompts_for(class_names, settings.model.prompts, prompt_names=prompt_names)
    counts = prompt_counts(class_names, settings.model.prompts, prompt_names=prompt_names)
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
    if settings.model.patch_dropout:
        drop_patches(model, settings.model.patch_dropout, keys=keys)
    head: Head
    if settings.model.head == "text":
        head = TextHead(zero_shot.features, zero_shot.logit_scale)
    else:
        head = LinearHead(len(class_names), zero_shot.features.shape[1])
    return Classifier(model, head, backbone.preprocess, prompt_tokens=tokens, prompt_counts=counts)


def make_loaders(
    settings: Settings, backbone: Backbone, train: Split, val: Split, accelerator: Any
) -> tuple[EpochBatches, DataLoader[Any], DataLoader[Any]]:
    """The order of training, and the loaders of train and val."""
    data = settings.data
    augment = data.augmentation
    batches = EpochBatches(
        len(train),
        batch_size=settings.training.batch_size,
        seed=settings.seed,
        process=accelerator.process_index,
        processes=accelerator.num_processes,
    )
    augmentation = Augmentation(
        crop_scale=augment.crop_scale,
        crop_ratio=augment.crop_ratio,
        flip=augment.flip,
        color=augment.color,
        views=augment.views,
    )
    train_set = PhotoDataset(
        train.samples,
        backbone.preprocess,
        augmentation=augmentation if augment.enabled else None,
        seed=settings.seed,
    )
    val_set = PhotoDataset(val.samples, backbone.preprocess)
    if data.cache:
        cache_dir = data.cache_dir or default_cache_dir()
        limits: dict[str, Any] = {"limit_bytes": data.cache_limit * MIB}
        limits["progress"] = accelerator.is_main_process
        val_set.keep_decoded(cache_dir, **limits)
        beside = [val_set.store] if val_set.store else []
        train_set.keep_decoded(cache_dir, beside=beside, **limits)
    options: dict[str, Any] = {"num_workers": data.num_workers, "pin_memory": data.pin_memory}
    options["read_timeout"] = data.read_timeout
    return (
        batches,
        make_loader(train_set, batches=batches, **options),
        make_loader(val_set, batch_size=settings.training.batch_size, **options),
    )


def frozen_states(
    settings: Settings, classifier: Classifier, num_train: int, num_val: int
) -> tuple[FrozenStates, FrozenStates]:
    """Where the activations below the adapters are kept, for train and for val.

    Raises `ModelError` where the image tower is not computed by the fused encoder.
    """
    data = settings.data
    views = (data.augmentation.views or 1) if data.augmentation.enabled else 1
    options: dict[str, Any] = {
        "folder": data.cache_dir or default_cache_dir(),
        "limit_bytes": data.cache_limit * MIB,
    }
    return (
        FrozenStates(classifier.model, num_photos=num_train, views=views, **options),
        FrozenStates(classifier.model, num_photos=num_val, views=1, **options),
    )


def measure_baseline(run: Run) -> dict[str, float | int | None]:
    """Zero-shot CLIP on val, before the first update: a fresh adapter changes no logit."""
    baseline = Classifier(run.classifier.model, run.zero_shot, run.backbone.preprocess)
    predictions = predict_logits(
        [baseline],
        run.val_loader,
        run.accelerator.device,
        autocast=run.accelerator.autocast,
        frozen=run.frozen_val,
    )
    metrics = split_metrics(predictions.logits[0], predictions.labels)
    top5 = metrics.top5_accuracy
    log.info(
        "zero-shot baseline on val: loss %.3f, top-1 %.1f %%%s",
        metrics.loss, 100 * metrics.accuracy, "" if top5 is None else f", top-5 {100 * top5:.1f} %",
    )  # fmt: skip
    figures = {key: finite(value) for key, value in asdict(metrics).items()}
    known = {f"val/{key}": figures[key] for key in ("loss", "accuracy") if figures[key] is not None}
    run.accelerator.log(known, step=0)
    return figures
