"""A checkpoint and a split in, metrics and a report out."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from PIL import Image

from cliptune.config import Settings
from cliptune.data.folder import Sample
from cliptune.data.image_files import photos_below
from cliptune.data.splits import check_split, split_folder
from cliptune.errors import ImageError, ModelError
from cliptune.evaluation.heat import HEAT_METHOD, evidence_pictures
from cliptune.evaluation.predicting import (
    labelled_photos,
    predict_samples,
    refuse_unreadable,
    say_mismatches,
)
from cliptune.evaluation.report import Evaluation, build_evaluation
from cliptune.evaluation.report_page import PageExtras, worst_mistakes
from cliptune.evaluation.robustness import measure_robustness
from cliptune.evaluation.seen import seen_photos
from cliptune.evaluation.statistics.metrics import similar_order
from cliptune.evaluation.unknowns import NoneOfThese, none_of_these
from cliptune.evaluation.writing import write_report
from cliptune.files import user_path
from cliptune.foreign_errors import memory_errors_in_words
from cliptune.hints import check_choice
from cliptune.model.answers import (
    Answers,
    Features,
    Floats,
    ScoreName,
    all_known_scores,
    answered,
    scaled_logits,
)
from cliptune.model.attention import has_class_token
from cliptune.model.checkpoint import Checkpoint, resolve_checkpoint
from cliptune.model.classifier import Classifier, Predictions
from cliptune.model.device import resolve_device
from cliptune.model.loaded import LoadedCheckpoint
from cliptune.model.restore import (
    load_answers,
    load_photo_sums,
    saved_settings,
)
from cliptune.text import counted

log = logging.getLogger(__name__)


def evaluate(
    checkpoint: Path | str,
    *,
    data_dir: Path | str | None = None,
    split: str = "test",
    output_dir: Path | str | None = "outputs/evaluation",
    unknown: Path | str | None = None,
    corruptions: bool = False,
    batch_size: int = 32,
    num_workers: int = 2,
    baseline: bool = True,
    on_bad_image: Literal["error", "skip"] = "error",
    device: str = "auto",
    base_model: str | None = None,
    cache_dir: Path | str | None = None,
    fast: bool = True,
    progress: bool = True,
    command: str | None = None,
) -> Evaluation:
    """Measure a checkpoint (or the best of a run folder) on one split of labelled photos.

    `data_dir` defaults to the one it was trained on. With `baseline`, zero-shot CLIP is measured
    on the same photos. `unknown` is a folder of photos of none of the classes: how many of them
    are told from known ones. With `corruptions`, the photos are measured again after blur, noise
    and the like, at three strengths (22 passes in all). `fast` lets towers compute in fewer
    operations where that gives the same. Writes the report's files to `output_dir` unless that
    is None; `command` is the line that measures the same again, for whoever reads the page.

    Raises `CheckpointError`, `DataError`, and `ImageError` listing every unreadable photo.
    """
    check_split(split)
    check_choice("--on-bad-image", on_bad_image, ("error", "skip"))
    found = resolve_checkpoint(user_path(checkpoint))
    target = resolve_device(device)
    settings = saved_settings(found)
    folder = user_path(data_dir) if data_dir is not None else settings.data.data_dir
    photos = labelled_photos(settings, folder, split, found.record.class_names)
    say_mismatches(photos, folder)
    strangers = None
    if unknown is not None:  # their labels mean nothing
        strangers = [Sample(path, 0) for path in photos_below(Path(unknown), "--unknown")]
    cache = user_path(cache_dir) if cache_dir is not None else settings.model.cache_dir
    answers, means_CD = load_answers(found)

    with memory_errors_in_words(batch_size):
        loaded = LoadedCheckpoint(found, base_model=base_model, cache_dir=cache, fast=fast)
        classifiers = [loaded.tuned()]
        if baseline:
            classifiers.append(_baseline(loaded))
        classifiers = [classifier.to(target) for classifier in classifiers]
        loading: dict[str, Any] = {
            "batch_size": batch_size,
            "num_workers": num_workers,
            "progress": progress,
        }
        started = time.perf_counter()
        said = predict_samples(
            classifiers, photos.samples, f"evaluating {split}", target, **loading
        )
        seconds = time.perf_counter() - started
        said_of_strangers = None
        if strangers is not None:
            said_of_strangers = predict_samples(
                classifiers[:1], strangers, "unknown", target, **loading
            )
        robustness = None
        if corruptions:
            robustness = measure_robustness(classifiers, photos.samples, device=target, **loading)

    for predictions in (said, said_of_strangers):
        if predictions is not None:
            refuse_unreadable(predictions.unreadable, on_bad_image)
    if not len(said.labels):
        images = counted(len(photos), "image")
        raise ImageError(f"{split_folder(folder, split)}: of its {images} none can be read.")
    weights_CD = classifiers[0].class_weights().float().cpu().numpy()
    scores, rejection = _known_or_not(
        answers, means_CD, weights_CD, said, said_of_strangers, unknown_dir=unknown
    )
    sums = load_photo_sums(found)
    measured = [photos.samples[i].path for i in said.indices]
    same_folder = folder.resolve() == settings.data.data_dir.resolve()
    evaluation = build_evaluation(
        logits_NC=said.logits[0],
        labels_N=said.labels,
        baseline_logits_NC=said.logits[1] if baseline else None,
        class_names=photos.class_names,
        given_names=found.record.display_names,
        answers=answers,
        paths=measured,
        seen=seen_photos(sums, measured, split=split, of_training=same_folder),
        seen_unknown=None if strangers is None else seen_photos(sums, [s.path for s in strangers]),
        known_scores_N=scores,
        class_order=similar_order(weights_CD),
        none_of_these=rejection,
        robustness=robustness,
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
        heat = _where_it_looked(loaded, evaluation, target)
        extras = _extras(found, settings, command or "", heat)
        write_report(evaluation, user_path(output_dir), extras)
    return evaluation


def _extras(
    checkpoint: Checkpoint, settings: Settings, command: str, heat: Mapping[int, Image.Image]
) -> PageExtras:
    """What the page shows beside the figures."""
    curves = checkpoint.path.parent / "training_curves.png"
    return PageExtras(
        command=command,
        settings=yaml.safe_dump(settings.to_dict(), sort_keys=False, allow_unicode=True),
        curves=curves if curves.is_file() else None,
        heat=heat,
        heat_method=HEAT_METHOD if heat else "",
    )


def _where_it_looked(
    loaded: LoadedCheckpoint, evaluation: Evaluation, device: torch.device
) -> dict[int, Image.Image]:
    """For the worst mistakes, the photo with the evidence for the answer over it."""
    photos, worst = evaluation.photos, worst_mistakes(evaluation)
    if not worst:
        return {}
    classifier = loaded.plain().to(device)
    if not has_class_token(classifier.model):
        return {}
    paths = [photos.paths[place] for place in worst]
    try:
        pictures = evidence_pictures(classifier, paths, photos.predicted_N[worst], device)
    except ImageError:  # gone since it was measured: the page goes without
        return {}
    return dict(zip(worst, pictures, strict=True))


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

    def scores(predictions: Predictions) -> Mapping[ScoreName, Floats]:
        return all_known_scores(
            scaled_logits(answers, predictions.logits[0]), predictions.features[0],
            weights_CD=weights_CD, means_CD=means_CD,
        )  # fmt: skip

    told = answered(
        answers, said.logits[0], said.features[0], weights_CD=weights_CD, means_CD=means_CD
    )
    known_N = scores(said)
    unknown_M = None if said_of_strangers is None else scores(said_of_strangers)
    where = None if unknown_dir is None else str(unknown_dir)
    return told.known_scores_N, none_of_these(answers, known_N, unknown_M, unknown_dir=where)


def _baseline(loaded: LoadedCheckpoint) -> Classifier:
    try:
        return loaded.zero_shot()
    except ModelError as error:
        raise ModelError(
            f"{error}\nTo measure without zero-shot beside it: --no-baseline."
        ) from None
