"""The first stage of a run: a head fitted on the frozen backbone's features of its photos."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from cliptune.data.folder import Sample
from cliptune.data.groups import Groups
from cliptune.data.loading import PhotoDataset, make_loader
from cliptune.errors import ImageError, listing
from cliptune.language import translated as _
from cliptune.model.classifier import FittedHead, predict_logits
from cliptune.text import counted
from cliptune.timing import section
from cliptune.training.head.fitting import HeadFit, fit_head
from cliptune.training.head.folds import shifts_of
from cliptune.training.head.logistic import Floats, Labels
from cliptune.training.head.multilabel import fit_multilabel_head
from cliptune.training.multilabel import MultilabelLoss
from cliptune.training.run import Run
from cliptune.training.several.sharing import by_the_first, together

log = logging.getLogger(__name__)

VAL_JOINS = 4  # where val has at least one photo for so many of train
MOST_PHOTOS = 20_000  # a head of so few numbers learns nothing more from further ones


def start_from_fitted_head(run: Run, *, progress: bool = True) -> None:
    """Fit the head of `run` on one view of each training photo, and put it in its place.

    The adapters are fresh, so the features are the frozen backbone's. Several processes share out
    the photos; the first fits for all of them, and the others wait. Adapters are then
    trained against heads that have not seen the photo (`cliptune.training.head.folds`). Where val
    joins, checkpoints are given a head fitted on its photos, too; the run goes on with one that
    has not seen them, by which val is measured.

    Raises `ImageError` for a photo that cannot be read any more.
    """
    head = run.classifier.head
    assert isinstance(head, FittedHead)
    started = time.perf_counter()
    with section("head"):
        features_ND, labels_N, places_N = _features(run, run.train_samples, progress=progress)
        groups_N = _at(run.train_groups_N, places_N)
        if run.several is not None:
            labels_N = run.several.train_NC.cpu().numpy()[places_N] > 0
        fit = _fit(run, features_ND, labels_N, groups_N)
        put_in(head, fit)
        if fit.without_folds is not None:
            run.fold_shifts = shifts_of(
                fit.without_folds, head, places_N, num_photos=len(run.train_samples)
            )
        if val_joins(run):
            own = head.fitted_tensors()
            val_ND, val_N, val_places_N = _features(run, run.val_samples, progress=False)
            if groups_N is not None and run.val_groups_N is not None:
                groups_N = np.append(groups_N, run.val_groups_N[val_places_N])
            if run.several is not None:
                val_N = run.several.val_NC[val_places_N]
            both_ND, both_N = (
                np.concatenate(parts) for parts in ((features_ND, val_ND), (labels_N, val_N))
            )
            fit = _fit(run, both_ND, both_N, groups_N)
            put_in(head, fit)
            run.delivered = head.fitted_tensors()
            head.set_fitted(own)
            if run.photo_sums is not None:  # val was learned from
                run.photo_sums = run.photo_sums.with_others(run.photo_sums.val, run.photo_sums.val)
    photos = len(fit.held_out.photos_N)
    log.info("%s", _in_words(fit, photos, time.perf_counter() - started))
    if run.delivered:
        log.info(
            "val joins the head of checkpoints, since photos are few; val figures are those of a "
            "head without it, and lean to the low side"
        )


def val_joins(run: Run) -> bool:
    """Whether heads of checkpoints are fitted on val, too: it is worth more there than apart."""
    few = len(run.val_samples) * VAL_JOINS >= len(run.train_samples)
    return run.settings.training.val_in_head == "few_photos" and few and run.has_val


def _at(groups_N: Groups | None, places_N: Labels) -> Groups | None:
    return None if groups_N is None else groups_N[places_N]


def _fit(run: Run, features_ND: Floats, labels_N: NDArray[Any], groups_N: Groups | None) -> HeadFit:
    """`labels_N` as `fit_head` takes them, or as `fit_multilabel_head`: (N, C)."""
    projection = getattr(run.backbone.model, "visual_projection", None)
    common: dict[str, Any] = {
        "seed": run.settings.seed,
        "projection_DH": None if projection is None else _weight(projection),
        "with_text": run.settings.model.head == "text",
        "class_names": run.class_names,
        "groups_N": groups_N,
    }
    text_CD = run.zero_shot.features.cpu().double().numpy()
    given = features_ND, labels_N, text_CD, run.zero_shot.logit_scale.exp().item()
    if isinstance(run.loss, MultilabelLoss):
        return by_the_first(partial(fit_multilabel_head, *given, **common))
    shifts_C = run.loss.shifts_for(labels_N)
    return by_the_first(partial(fit_head, *given, shifts_C=shifts_C, **common))


@torch.no_grad()
def put_in(head: FittedHead, fit: HeadFit) -> None:
    """Let `head` answer as `fit` does."""
    weights_CD = torch.from_numpy(fit.weights_CD / head.logit_scale.exp().item())
    head.share.fill_(fit.share)
    head.fitted.copy_(weights_CD - fit.share * head.features.cpu().double())
    head.bias.copy_(torch.from_numpy(fit.bias_C))
    head.offset.zero_()


def _features(
    run: Run, samples: Sequence[Sample], *, progress: bool
) -> tuple[Floats, NDArray[Any], Labels]:
    """Float32 features (N, D), labels and places (N,) of as many as a head is fitted on."""
    places = some_of_each(samples, most=MOST_PHOTOS, seed=run.settings.seed)
    samples = [samples[place] for place in places]
    data, training = run.settings.data, run.settings.training
    loader = make_loader(
        PhotoDataset(samples, run.backbone.preprocess), batch_size=training.batch_size,
        num_workers=data.num_workers, read_timeout=data.read_timeout,
        process=run.accelerator.process_index, processes=run.accelerator.num_processes,
    )  # fmt: skip
    shown = progress and run.accelerator.is_main_process
    said = predict_logits(
        [run.classifier],
        tqdm(loader, desc=_("head"), unit="batch", leave=False, disable=None if shown else True),
        run.accelerator.device,
        autocast=run.accelerator.autocast,
    )
    said = together(said)
    if said.unreadable and data.on_bad_image == "error":
        lines = listing([str(fault) for fault in said.unreadable])
        raise ImageError(f"unreadable images met while the head was fitted:\n{lines}")
    return said.features[0], said.labels, places[said.indices]


def some_of_each(samples: Sequence[Sample], *, most: int, seed: int) -> Labels:
    """Places of all `samples`; of more than `most`, as many of each class as fit, by lot."""
    if len(samples) <= most:
        return np.arange(len(samples))
    labels_N = np.array([sample.label for sample in samples])
    each = max(1, most // len(np.unique(labels_N)))
    lots = np.random.default_rng([seed, len(samples)]).permutation(len(samples))
    by_class = lots[np.argsort(labels_N[lots], kind="stable")]
    starts = np.searchsorted(labels_N[by_class], labels_N[by_class])
    chosen = by_class[np.arange(len(samples)) - starts < each]
    return np.sort(chosen)


def _weight(projection: torch.nn.Module) -> np.ndarray:
    """(D, H) of a projection, frozen below its adapter where it has one."""
    layer: torch.nn.Module = getattr(projection, "base_layer", projection)
    return np.asarray(layer.get_parameter("weight").detach().cpu().double().numpy())


def _in_words(fit: HeadFit, photos: int, seconds: float) -> str:
    held_out = fit.held_out
    measured = f"zero-shot on these {100 * held_out.zero_shot_accuracy:.1f} %"
    if held_out.accuracy is not None:
        measured = (
            f"{held_out.measure} {100 * held_out.accuracy:.1f} % in {held_out.folds}-fold "
            "cross-validation, "
            f"{measured}"
        )
    return (
        f"head on frozen features of {counted(photos, 'photo')}, {seconds:.1f} s: {measured}; "
        f"{held_out.note}"
    )
