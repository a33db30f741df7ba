"""A checkpoint and a split in, metrics and a report out."""

from __future__ import annotations

import logging
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from tqdm import tqdm

from cliptune.config import Settings
from cliptune.data.folder import (
    SPLITS,
    Sample,
    Split,
    find_images,
    load_split,
    load_training_splits,
)
from cliptune.data.loading import PhotoDataset, make_loader
from cliptune.data.reading import Unreadable
from cliptune.errors import DataError, ImageError, UserError, listing
from cliptune.evaluation.metrics import similar_order
from cliptune.evaluation.page import PageExtras
from cliptune.evaluation.report import Evaluation, build_evaluation
from cliptune.evaluation.unknowns import NoneOfThese, none_of_these
from cliptune.evaluation.writing import write_report
from cliptune.model.answers import SCORE_NAMES, Answers, Features, Floats, ScoreName, known_scores
from cliptune.model.backbone import load_backbone
from cliptune.model.checkpoint import Checkpoint, resolve_checkpoint
from cliptune.model.classifier import Classifier, Predictions, TextHead, predict_logits
from cliptune.model.device import memory_errors_in_words, resolve_device
from cliptune.model.fused import fuse
from cliptune.model.prompts import zero_shot_weights
from cliptune.model.restore import (
    base_location,
    check_base,
    load_answers,
    load_classifier,
    load_preprocess,
    saved_settings,
)

log = logging.getLogger(__name__)


def evaluate(
    checkpoint: Path | str,
    *,
    data_dir: Path | str | None = None,
    split: str = "test",
    output_dir: Path | str | None = "outputs/evaluation",
    unknown: Path | str | None = None,
    batch_size: int = 32,
    num_workers: int = 2,
    baseline: bool = True,
    on_bad_image: Literal["error", "skip"] = "error",
    device: str = "auto",
    base_model: str | None = None,
    cache_dir: Path | str | None = None,
    fast: bool = True,
    progress: bool = True,
) -> Evaluation:
    """Measure a checkpoint (or the best of a run folder) on one split of labelled photos.

    `data_dir` defaults to the one it was trained on. With `baseline`, zero-shot CLIP is measured
    on the same photos. `unknown` is a folder of photos of none of the classes: how many of them
    are told from known ones. `fast` lets towers compute in fewer operations where that gives the
    same. Writes the report's files to `output_dir` unless that is None.

    Raises `CheckpointError`, `DataError`, and `ImageError` listing every unreadable photo.
    """
    if split not in SPLITS:
        raise UserError(f"split '{split}': expected one of {', '.join(SPLITS)}.")
    found = resolve_checkpoint(Path(checkpoint))
    target = resolve_device(device)
    settings = saved_settings(found)
    folder = Path(data_dir) if data_dir is not None else settings.data.data_dir
    photos = photos_of_split(settings, folder, split, found.record.class_names)
    _say_mismatches(photos, folder)
    strangers = None if unknown is None else _unknown_photos(Path(unknown))
    cache = Path(cache_dir) if cache_dir is not None else settings.model.cache_dir
    answers, means_CD = load_answers(found)

    with memory_errors_in_words(batch_size):
        options: dict[str, Any] = {"base_model": base_model, "cache_dir": cache, "fast": fast}
        classifiers = [load_classifier(found, **options)]
        if baseline:
            classifiers.append(zero_shot_classifier(found, **options))
        classifiers = [classifier.to(target) for classifier in classifiers]
        loading: dict[str, Any] = {
            "batch_size": batch_size,
            "num_workers": num_workers,
            "progress": progress,
        }
        started = time.perf_counter()
        said = _predict(classifiers, photos.samples, f"evaluating {split}", target, **loading)
        seconds = time.perf_counter() - started
        said_of_strangers = None
        if strangers is not None:
            said_of_strangers = _predict(classifiers[:1], strangers, "unknown", target, **loading)

    for predictions in (said, said_of_strangers):
        if predictions is not None:
            _refuse_unreadable(predictions.unreadable, on_bad_image)
    if not len(said.labels):
        raise ImageError(f"{folder / split}: none of its {len(photos)} images can be read.")
    weights_CD = classifiers[0].class_weights().float().cpu().numpy()
    scores, rejection = _known_or_not(
        answers, means_CD, weights_CD, said, said_of_strangers, unknown_dir=unknown
    )
    evaluation = build_evaluation(
        logits_NC=said.logits[0],
        labels_N=said.labels,
        baseline_logits_NC=said.logits[1] if baseline else None,
        class_names=photos.class_names,
        given_names=found.record.display_names,
        answers=answers,
        paths=[photos.samples[i].path for i in said.indices],
        known_scores_N=scores,
        class_order=similar_order(weights_CD),
        none_of_these=rejection,
        checkpoint=str(found.path),
        data_dir=str(folder),
        split=split,
        base_model=found.record.base_model.name,
        missing_classes=photos.missing_classes,
        ignored_classes=photos.extra_classes,
        skipped_images=tuple(str(fault.path) for fault in said.unreadable),
        seconds=seconds,
    )
    if output_dir is not None:
        write_report(evaluation, Path(output_dir), _extras(found, settings))
    return evaluation


def _extras(checkpoint: Checkpoint, settings: Settings) -> PageExtras:
    """What the page shows beside the figures."""
    curves = checkpoint.path.parent / "training_curves.png"
    return PageExtras(
        command=shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        settings=yaml.safe_dump(settings.to_dict(), sort_keys=False, allow_unicode=True),
        curves=curves if curves.is_file() else None,
    )


def _predict(
    classifiers: Sequence[Classifier],
    samples: Sequence[Sample],
    what: str,
    device: torch.device,
    *,
    batch_size: int,
    num_workers: int,
    progress: bool,
) -> Predictions:
    """What `classifiers`, of one base model, say of `samples`, each decoded once."""
    loader = make_loader(
        PhotoDataset(samples, classifiers[0].preprocess),
        batch_size=batch_size,
        num_workers=num_workers,
        pin_memory=True,
    )
    hidden = None if progress else True  # None: shown on a terminal only
    batches = tqdm(loader, what, unit="batch", leave=False, disable=hidden)
    return predict_logits(classifiers, batches, device)


def _known_or_not(
    answers: Answers | None,
    means_CD: Features | None,
    weights_CD: Features,
    said: Predictions,
    said_of_strangers: Predictions | None,
    *,
    unknown_dir: Path | str | None,
) -> tuple[Floats | None, NoneOfThese | None]:
    """(the score of each photo, what it is worth), or None twice where nothing was fitted."""
    if answers is None:
        if unknown_dir is not None:
            log.warning(
                "--unknown: this checkpoint has no threshold for 'none of these': val was not "
                "measured when it was saved, or it was made by an earlier version."
            )
        return None, None
    names: list[ScoreName] = [n for n in SCORE_NAMES if n != "photos" or means_CD is not None]

    def scores(predictions: Predictions) -> dict[ScoreName, Floats]:
        scaled_NC = answers.scale(predictions.logits[0])
        return {
            name: known_scores(
                name,
                scaled_NC,
                predictions.features[0],
                weights_CD=weights_CD,
                means_KD=weights_CD if means_CD is None else means_CD,
            )
            for name in names
        }

    known_N = scores(said)
    unknown_M = None if said_of_strangers is None else scores(said_of_strangers)
    where = None if unknown_dir is None else str(unknown_dir)
    return known_N[answers.score], none_of_these(answers, known_N, unknown_M, unknown_dir=where)


def _unknown_photos(folder: Path) -> list[Sample]:
    """Every photo below `folder`; their labels mean nothing. Raises `DataError`."""
    if not folder.is_dir():
        what = "this is a file" if folder.exists() else "no such folder"
        raise DataError(f"--unknown {folder}: {what}. Expected a folder of photos.")
    paths = find_images(folder)
    if not paths:
        raise DataError(f"--unknown {folder}: no photos in it.")
    return [Sample(path, 0) for path in paths]


def zero_shot_classifier(
    checkpoint: Checkpoint,
    *,
    base_model: str | None = None,
    cache_dir: Path | None = None,
    fast: bool = True,
) -> Classifier:
    """Zero-shot CLIP with the classes and prompts of `checkpoint`, untouched by its training."""
    record = checkpoint.record
    name, revision = base_location(checkpoint, base_model)
    height, width = load_preprocess(checkpoint).image_size
    backbone = load_backbone(
        name,
        revision=revision,
        cache_dir=cache_dir,
        image_size=height if height == width else None,
    )
    check_base(checkpoint, backbone.source)
    weights = zero_shot_weights(
        backbone, record.class_names, record.prompts, prompt_names=record.prompt_names
    )
    head = TextHead(weights, backbone.model.logit_scale)
    classifier = Classifier(backbone.model, head, backbone.preprocess).eval().requires_grad_(False)
    if fast:
        fuse(classifier.model)
    return classifier


def photos_of_split(
    settings: Settings, data_dir: Path, split: str, class_names: list[str]
) -> Split:
    """The photos of `split`, labelled by the checkpoint's class names."""
    if split == "test" or (data_dir / "val").is_dir() or not (data_dir / "train").is_dir():
        return load_split(data_dir, split, class_names=class_names)
    # Without a val/ folder, training took val out of train/; take the same photos again.
    train, val = load_training_splits(
        data_dir, val_ratio=settings.data.val_ratio, seed=settings.seed
    )
    if train.class_names != tuple(class_names):
        raise DataError(
            f"{data_dir}: there is no val/ folder, and train/ holds other classes than the "
            "checkpoint knows, so the photos it was validated on cannot be found again. "
            "Evaluate with --split test, or make a val/ folder."
        )
    return train if split == "train" else val


def _say_mismatches(photos: Split, data_dir: Path) -> None:
    if photos.missing_classes:
        log.warning(
            "%s has no photos of %d classes the model knows: %s",
            data_dir / photos.name, len(photos.missing_classes), ", ".join(photos.missing_classes),
        )  # fmt: skip
    if photos.extra_classes:
        log.warning(
            "%s: left out, since the model does not know these classes: %s",
            data_dir / photos.name, ", ".join(photos.extra_classes),
        )  # fmt: skip


def _refuse_unreadable(unreadable: list[Unreadable], on_bad_image: str) -> None:
    if not unreadable:
        return
    lines = listing([str(fault) for fault in unreadable])
    if on_bad_image == "error":
        raise ImageError(
            f"{len(unreadable)} images cannot be read:\n{lines}\n"
            "Mend or remove them, or leave them out with --on-bad-image skip."
        )
    log.warning("left out %d unreadable images:\n%s", len(unreadable), lines)
