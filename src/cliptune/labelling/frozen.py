"""What a backbone that learned nothing from these photos sees on them.

A tuned one has learned the labels that are in question here, the wrong ones, too: of a checkpoint,
the base model is taken.
Shape suffixes: B batch, N photos, C classes, D feature, H feature before the projection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from cliptune.config import ModelSettings
from cliptune.data.classes_file import read_names
from cliptune.data.folder import Sample
from cliptune.data.loading import PhotoDataset, make_loader
from cliptune.data.reading import Unreadable
from cliptune.files import user_path
from cliptune.language import translated as _
from cliptune.model.backbone import Backbone, image_features, load_backbone
from cliptune.model.checkpoint import RECORD, Checkpoint, resolve_checkpoint
from cliptune.model.prompts import zero_shot_weights
from cliptune.model.restore import base_location, check_base, saved_settings
from cliptune.storage import hub_place, is_address
from cliptune.training.head.fitting import HeadFit, fit_head
from cliptune.training.head.logistic import Floats, Labels, directions


@dataclass(frozen=True)
class FrozenModel:
    """A base model as it came, and the prompts that name classes to it."""

    backbone: Backbone
    prompts: Sequence[str]
    checkpoint: Checkpoint | None  # that it was named by

    @torch.inference_mode()
    def features(
        self,
        samples: Sequence[Sample],
        *,
        device: torch.device,
        batch_size: int = 32,
        num_workers: int = 2,
        progress: bool = True,
    ) -> Seen:
        """The features of `samples`, each decoded once."""
        model = self.backbone.model.to(device).eval()
        photos = PhotoDataset(samples, self.backbone.preprocess)
        batches = make_loader(
            photos, batch_size=batch_size, num_workers=min(num_workers, len(samples) // batch_size)
        )
        hidden = None if progress else True  # None: shown on a terminal only
        rows, places, unreadable = [], [], []
        for batch in tqdm(batches, _("looking"), unit="batch", leave=False, disable=hidden):
            unreadable += batch.unreadable
            if not len(batch):
                continue
            pixels = batch.pixels.to(device)
            both = [
                image_features(model, self.backbone.preprocess.normalize(view)).float().cpu()
                for view in (pixels, pixels.flip(-1))
            ]
            rows.append(sum(directions(each_BD.double().numpy()) for each_BD in both) / 2)
            places.append(batch.indices.numpy())
        return Seen(
            features_ND=np.concatenate(rows) if rows else np.empty((0, 1)),
            places_N=np.concatenate(places) if places else np.empty(0, np.int64),
            unreadable=unreadable,
        )

    def fit(
        self,
        features_ND: Floats,
        labels_N: Labels,
        class_names: Sequence[str],
        *,
        data_dir: Path | None = None,
        groups_N: Labels | None = None,
        seed: int,
    ) -> HeadFit:
        """The head that training would begin with, on these features.

        What `data_dir/classes.yaml` says of names goes into the prompts. Raises as `fit_head` and
        `zero_shot_weights` do.
        """
        names = {} if data_dir is None else read_names(data_dir, class_names).prompts
        text_CD = zero_shot_weights(
            self.backbone, class_names, list(self.prompts), prompt_names=names
        )
        model = self.backbone.model
        projection = getattr(model, "visual_projection", None)
        return fit_head(
            features_ND, labels_N, text_CD.double().numpy(), model.logit_scale.exp().item(),
            seed=seed, class_names=class_names, groups_N=groups_N,
            projection_DH=None if projection is None else _array(projection.weight),
        )  # fmt: skip


@dataclass(frozen=True)
class Seen:
    """Features of the photos that could be read: the mean direction of each and its mirror image.

    `places_N` are their places among those that were asked for.
    """

    features_ND: Floats
    places_N: NDArray[np.int64]
    unreadable: list[Unreadable]


def open_frozen(
    name_or_checkpoint: str, *, base_model: str | None = None, cache_dir: Path | None = None
) -> FrozenModel:
    """The base model called so on the hub, or in a folder, or that of a checkpoint or a run.

    Prompts are those of the checkpoint, or the default. Raises `ModelError`, `CheckpointError` and
    `HubError` as loading does.
    """
    if not _is_checkpoint(name_or_checkpoint):
        settings = ModelSettings()
        cache = settings.cache_dir if cache_dir is None else cache_dir
        return FrozenModel(
            load_backbone(name_or_checkpoint, cache_dir=cache), settings.prompts, None
        )
    checkpoint = resolve_checkpoint(name_or_checkpoint)
    settings = saved_settings(checkpoint).model
    name, revision = base_location(checkpoint, base_model)
    backbone = load_backbone(
        name, revision=revision, image_size=settings.image_size,
        cache_dir=settings.cache_dir if cache_dir is None else cache_dir,
        lower_case=checkpoint.record.lower_case,
    )  # fmt: skip
    check_base(checkpoint, backbone.source)
    return FrozenModel(backbone, checkpoint.record.prompts, checkpoint)


def _is_checkpoint(name: str) -> bool:
    """Whether `name` is an address, `hf:owner/name`, or a folder that is no base model."""
    path = user_path(name)
    return (
        is_address(name)
        or hub_place(name) is not None
        or (path / RECORD).is_file()
        or (path.is_dir() and not (path / "config.json").is_file())
    )


def _array(parameter: torch.Tensor) -> NDArray[np.float64]:
    return np.asarray(parameter.detach().cpu().double().numpy())
