"""What is measured: a checkpoint, and zero-shot CLIP beside it."""

from __future__ import annotations

import logging

from cliptune.errors import ModelError
from cliptune.model.classifier import Classifier
from cliptune.model.loaded import LoadedCheckpoint

log = logging.getLogger(__name__)


def measured_classifiers(loaded: LoadedCheckpoint, *, baseline: bool) -> list[Classifier]:
    """The classifier of `loaded`, and with `baseline` zero-shot CLIP, on the CPU.

    Of an exported folder without its base model there is no zero-shot, which is said. Raises
    `ModelError` where the base model has no tokenizer that fits.
    """
    if baseline and not loaded.has_base:
        log.warning(
            "%s: an exported folder is measured without zero-shot CLIP beside it, for which it "
            "lacks the base model. Say where that lies with --base-model, or leave zero-shot out "
            "with --no-baseline.",
            loaded.checkpoint.path,
        )
        baseline = False
    if not baseline:
        return [loaded.tuned()]
    try:
        return [loaded.tuned(), loaded.zero_shot()]
    except ModelError as error:
        raise ModelError(
            f"{error}\nTo measure without zero-shot beside it: --no-baseline."
        ) from None
