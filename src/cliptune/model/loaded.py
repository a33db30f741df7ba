"""A checkpoint in memory: the tuned, the plain and the zero-shot classifier of one base model.

Shape suffixes: C classes, D feature.
"""

from __future__ import annotations

import copy
from collections.abc import Container
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from cliptune.errors import CheckpointError
from cliptune.model.backbone import Backbone, with_tokenizer
from cliptune.model.checkpoint import ADAPTER, Checkpoint
from cliptune.model.classifier import Classifier, Head, TextHead
from cliptune.model.fast.encoder import fuse
from cliptune.model.lora import adapted_modules
from cliptune.model.prompts import zero_shot_weights
from cliptune.model.restore import (
    base_location,
    load_base,
    load_classifier,
    load_head,
    load_preprocess,
    merge_adapter,
    read_tensors,
    saved_settings,
)


class LoadedCheckpoint:
    """What a checkpoint and its base model make up, the base model read from disk once.

    The classifiers share their weights, on the CPU or wherever the last `.to` brought them: only
    those that an adapter changes are there twice. So they belong on one device, and none may be
    trained. `towers_dtype` is theirs; `base_model`, `cache_dir` and `fast` as for
    `load_classifier`. An exported checkpoint has its base model only where `base_model` says where
    that lies: it answers without.

    Raises `CheckpointError` when files are damaged or the base model is not the one of training.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        base_model: str | None = None,
        cache_dir: Path | None = None,
        towers_dtype: torch.dtype | None = None,
        fast: bool = True,
    ) -> None:
        self.checkpoint = checkpoint
        self.towers_dtype, self.fast = towers_dtype, fast
        self._cache_dir, self._base_model = cache_dir, base_model
        self._head = load_head(checkpoint.path, checkpoint.record)
        self._preprocess = load_preprocess(checkpoint)
        if self.has_base:
            self._base, self._source = load_base(
                checkpoint, base_model=base_model, cache_dir=cache_dir
            )

    @property
    def has_base(self) -> bool:
        """Whether there is a base model, which all but `tuned` ask for."""
        return not self.checkpoint.exported or self._base_model is not None

    def tuned(self) -> Classifier:
        """The classifier as it was trained, its towers fused where `fast`; or its graph."""
        if self.checkpoint.exported:
            return load_classifier(self.checkpoint)
        return self._classifier(_sharing(self._merged), self._head, fast=self.fast)

    def plain(self) -> Classifier:
        """The same with its towers as `transformers` has them: their attention can be looked at."""
        return self._classifier(_sharing(self._merged), self._head, fast=False)

    def zero_shot(self) -> Classifier:
        """Zero-shot CLIP with the classes and prompts of the checkpoint, untouched by its training.

        Raises `ModelError` where the base model has no tokenizer that fits.
        """
        record = self.checkpoint.record
        weights_CD = zero_shot_weights(
            self._backbone(self._base), record.class_names, record.prompts,
            prompt_names=record.prompt_names,
        )  # fmt: skip
        head = TextHead(weights_CD, self._base.logit_scale)
        return self._classifier(_sharing(self._base), head, fast=self.fast)

    def tuned_backbone(self) -> Backbone:
        """The tuned text tower with what makes tokens of prompts. Raises `ModelError` as above.

        That of an exported checkpoint is the base model's, where that was left as it is; else it
        raises `CheckpointError`.
        """
        if not self.checkpoint.exported:
            return self._backbone(self._merged)
        path = self.checkpoint.path
        if saved_settings(self.checkpoint).lora.towers != "vision":
            raise CheckpointError(
                f"{path}: its text tower was trained, too, and an exported folder does not hold "
                "it. Make the change on the checkpoint it was made from, and export that."
            )
        if not self.has_base:
            raise CheckpointError(
                f"{path}: an exported folder does not hold the text tower, which is asked for what "
                "a class is called. Say where its base model lies, with --base-model."
            )
        return self._backbone(self._base)

    @cached_property
    def _merged(self) -> Any:
        """The base model with the adapters in its weights; `_base` keeps its own."""
        path = self.checkpoint.path
        changed = adapted_modules(read_tensors(path / ADAPTER))
        return merge_adapter(path, _sharing(self._base, all_but=changed))

    def _classifier(self, model: Any, head: Head, *, fast: bool) -> Classifier:
        classifier = Classifier(model, copy.deepcopy(head), self._preprocess)
        classifier.towers_dtype = self.towers_dtype
        if fast:
            fuse(classifier.model)
        return classifier.eval().requires_grad_(False)

    def _backbone(self, model: Any) -> Backbone:
        name, revision = base_location(self.checkpoint, self._base_model)
        return with_tokenizer(
            model, self._source, name, revision=revision, cache_dir=self._cache_dir,
            preprocess=self._preprocess, lower_case=self.checkpoint.record.lower_case,
        )  # fmt: skip


def _sharing(model: Any, *, all_but: Container[str] | None = ()) -> Any:
    """A copy of `model` that shares its parameters, all but those of some modules, by full name.

    None: it shares no parameter.
    """
    shared: dict[int, Any] = {
        id(parameter): parameter
        for name, parameter in model.named_parameters()
        if all_but is not None and name.rpartition(".")[0] not in all_but
    }
    return copy.deepcopy(model, shared)
