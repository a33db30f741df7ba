"""A checkpoint and a split in, metrics and a report out.

Shape suffixes: N photos, C classes, D feature.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import yaml
from PIL import Image

from cliptune.config import Settings
from cliptune.data.folder import Sample, Split
from cliptune.data.groups import Groups, groups_of
from cliptune.data.image_files import photos_below
from cliptune.data.splits import check_split
from cliptune.errors import ImageError
from cliptune.evaluation.left_out import refuse_none_left, refuse_unreadable, say_mismatches
from cliptune.evaluation.report import Evaluation, build_evaluation
from cliptune.evaluation.report_page import PageExtras, worst_mistakes
from cliptune.evaluation.robustness import Robustness, measure_robustness
from cliptune.evaluation.seen import seen_photos
from cliptune.evaluation.statistics.metrics import similar_order
from cliptune.evaluation.unknowns import NoneOfThese, none_of_these
from cliptune.evaluation.writing import write_report
from cliptune.evaluation.zero_shot import measured_classifiers
from cliptune.files import user_path
from cliptune.foreign_errors import memory_errors_in_words
from cliptune.hints import check_choice
from cliptune.language import translated as _
from cliptune.model.answers import (
    Answers,
    Features,
    Floats,
    ScoreName,
    all_known_scores,
)
from cliptune.model.attention import has_class_token
from cliptune.model.checkpoint import Checkpoint, resolve_checkpoint
from cliptune.model.classifier import Predictions
from cliptune.model.device import resolve_device
from cliptune.model.heat import HEAT_METHOD, evidence_pictures
from cliptune.model.loaded import LoadedCheckpoint
from cliptune.model.measuring import (
    Measuring,
    is_of_training,
    labelled_photos,
    measured_folder,
)
from cliptune.model.prior import Prior
from cliptune.model.restore import load_answers, load_photo_sums, saved_settings
from cliptune.storage import check_output_folder, output_folder

log = logging.getLogger(__name__)


def evaluate(
    checkpoint: Path | str,
    *,
    data_dir: Path | str | None = None,
    split: str = "test",
    output_dir: Path | str | None = "outputs/evaluation",
    unknown: Path | str | None = None,
    prior: Prior | None = None,
    corruptions: bool = False,
    batch_size: int = 32,
    num_workers: int = 2,
    baseline: bool = True,
    on_bad_image: Literal["error", "skip"] = "error",
    device: str = "auto",
    base_model: str | None = None,
    cache_dir: Path | str | None = None,
    precision: str | None = None,
    fast: bool = True,
    progress: bool = True,
    command: str | None = None,
) -> Evaluation:
    """Measure a checkpoint (or the best of a run folder) on one split of labelled photos.

    `data_dir` defaults to the one it was trained on, which an exported folder does not tell. With
    `baseline`, zero-shot CLIP is measured on the same photos; beside an exported folder only where
    `base_model` says where its base model lies. `unknown` is a folder of photos of none of the
    classes: how many of them are told from known ones. `prior` says how frequent classes are where
    that is not as in training: "uniform", a share for each class name, or a file of such;
    zero-shot, and what is measured of photos made worse, stay without it. With `corruptions`, the
    photos are measured again after blur, noise and the like, at three strengths (22 passes in all).
    `precision` and `fast` are those of `Predictor`. Writes the report's files to `output_dir`
    unless that is None; `command` is the line that measures the same again, for whoever reads the
    page.

    Raises `CheckpointError`, `DataError`, and `ImageError` listing every unreadable photo.
    """
    check_split(split)
    check_choice("--on-bad-image", on_bad_image, ("error", "skip"))
    if output_dir is not None:
        check_output_folder(output_dir)
    found = resolve_checkpoint(user_path(checkpoint))
    answers, means_CD = load_answers(found, prior=prior)
    measuring = Measuring(
        device=resolve_device(device), batch_size=batch_size, num_workers=num_workers,
        base_model=base_model, cache_dir=cache_dir, precision=precision, fast=fast,
        progress=progress,
    )  # fmt: skip
    settings = saved_settings(found)
    folder = measured_folder(found, settings, data_dir)
    photos = labelled_photos(settings, folder, split, found.record.class_names)
    say_mismatches(photos, folder)
    unknown_photos = [] if unknown is None else photos_below(Path(unknown), "--unknown")
    with memory_errors_in_words(batch_size):
        loaded = measuring.loaded(found)
        predicted = _predict(
            loaded, photos, unknown_photos, measuring, baseline=baseline, corruptions=corruptions
        )
    for predictions in predicted.all():
        refuse_unreadable(predictions.unreadable, on_bad_image)
    refuse_none_left(predicted.known, photos, folder)
    evaluation = _evaluation(
        found, predicted, photos, folder, answers, means_CD,
        unknown_dir=unknown, unknown_photos=unknown_photos,
    )  # fmt: skip
    if output_dir is not None:
        heat = _where_it_looked(loaded, evaluation, measuring.device)
        extras = _extras(found, settings, command or "", heat)
        with output_folder(output_dir) as written:
            write_report(evaluation, written, extras)
    return evaluation


@dataclass(frozen=True, kw_only=True)
class _Predicted:
    """What is said of the photos: by the checkpoint first, then by zero-shot CLIP if measured.

    `known` of those of its classes, `unknown` of those of none of them, by the checkpoint alone.
    """

    weights_CD: Features
    known: Predictions
    unknown: Predictions | None
    robustness: Robustness | None
    seconds: float  # of the pass over `known`

    def all(self) -> list[Predictions]:
        """One of each pass."""
        return [self.known] if self.unknown is None else [self.known, self.unknown]


def _predict(
    loaded: LoadedCheckpoint,
    photos: Split,
    unknown_photos: Sequence[Path],
    measuring: Measuring,
    *,
    baseline: bool,
    corruptions: bool,
) -> _Predicted:
    """Every pass over photos that the evaluation needs."""
    classifiers = [
        classifier.to(measuring.device)
        for classifier in measured_classifiers(loaded, baseline=baseline)
    ]
    started = time.perf_counter()
    known = measuring.predict(
        classifiers, photos.samples, _("evaluating {split}").format(split=photos.name)
    )
    seconds = time.perf_counter() - started
    unknown, robustness = None, None
    if unknown_photos:
        samples = [Sample(path, 0) for path in unknown_photos]  # their labels mean nothing
        unknown = measuring.predict(classifiers[:1], samples, _("unknown"))
    if corruptions:
        robustness = measure_robustness(classifiers, photos.samples, measuring)
    return _Predicted(
        weights_CD=classifiers[0].class_weights().float().cpu().numpy(),
        known=known,
        unknown=unknown,
        robustness=robustness,
        seconds=seconds,
    )


def _evaluation(
    checkpoint: Checkpoint,
    predicted: _Predicted,
    photos: Split,
    folder: Path,
    answers: Answers | None,
    means_CD: Features | None,
    *,
    unknown_dir: Path | str | None,
    unknown_photos: Sequence[Path],
) -> Evaluation:
    """The figures of what was predicted, and what is known of the photos."""
    known, record = predicted.known, checkpoint.record
    sums = load_photo_sums(checkpoint)
    paths = [photos.samples[i].path for i in known.indices]
    groups_N = groups_of(folder, paths)
    scores_N, rejection = _known_or_not(
        answers, means_CD, predicted, unknown_dir=unknown_dir, groups_N=groups_N
    )
    of_training = is_of_training(checkpoint, saved_settings(checkpoint), folder)
    return build_evaluation(
        logits_NC=known.logits[0],
        labels_N=known.labels,
        baseline_logits_NC=known.logits[1] if len(known.logits) > 1 else None,
        class_names=photos.class_names,
        given_names=record.display_names,
        answers=answers,
        parents=record.tree,
        paths=paths,
        seen=seen_photos(sums, paths, split=photos.name, of_training=of_training),
        seen_unknown=seen_photos(sums, unknown_photos) if unknown_photos else None,
        known_scores_N=scores_N,
        class_order=similar_order(predicted.weights_CD),
        none_of_these=rejection,
        robustness=predicted.robustness,
        checkpoint=str(checkpoint.path),
        data_dir=str(folder),
        split=photos.name,
        base_model=record.base_model.name,
        missing_classes=photos.missing_classes,
        ignored_classes=photos.extra_classes,
        skipped_images=tuple(str(fault.path) for fault in known.unreadable),
        seconds=predicted.seconds,
        groups_N=groups_N,
    )


def _extras(
    checkpoint: Checkpoint, settings: Settings, command: str, heat: Mapping[int, Image.Image]
) -> PageExtras:
    """What the page shows beside the figures."""
    curves = checkpoint.path.parent / "training_curves.png"
    told = settings.without_folders() if checkpoint.exported else settings.to_dict()
    return PageExtras(
        command=command,
        settings=yaml.safe_dump(told, sort_keys=False, allow_unicode=True),
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
    if loaded.checkpoint.exported:
        log.info(
            "%s: the page's mistakes are shown without where the model looked, which cannot be "
            "followed through an exported graph.", loaded.checkpoint.path,
        )  # fmt: skip
        return {}
    classifier = loaded.plain().to(device)
    if not has_class_token(classifier.model):
        return {}
    paths = [photos.paths[i] for i in worst]
    try:
        pictures = evidence_pictures(classifier, paths, photos.predicted_N[worst], device)
    except ImageError:  # gone since it was measured: the page goes without
        return {}
    return dict(zip(worst, pictures, strict=True))


def _known_or_not(
    answers: Answers | None,
    means_CD: Features | None,
    predicted: _Predicted,
    *,
    unknown_dir: Path | str | None,
    groups_N: Groups | None,
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
            answers.scale(predictions.logits[0]), predictions.features[0],
            weights_CD=predicted.weights_CD, means_CD=means_CD,
        )  # fmt: skip

    known_N = scores(predicted.known)
    unknown_M = None if predicted.unknown is None else scores(predicted.unknown)
    where = None if unknown_dir is None else str(unknown_dir)
    rejection = none_of_these(answers, known_N, unknown_M, unknown_dir=where, groups_N=groups_N)
    return known_N[answers.score], rejection
