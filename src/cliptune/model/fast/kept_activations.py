"""What the layers below the first adapter give, computed once for each view of each photo.

These layers do not change in training, so where views repeat they need no second pass. States
are kept in float32: the result is the same to the bit as computing them anew.

Shape suffixes: B batch, V views, N photos, T tokens, D width.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cliptune.data.loading import Batch
from cliptune.errors import ModelError
from cliptune.model.fast.encoder import FusedEncoder, LayerStates

log = logging.getLogger(__name__)


class FrozenStates:
    """The states of `num_photos` photos in `views` views, in a file of this process alone.

    The file has no name: it is gone with the process, however that ends.
    """

    def __init__(
        self, model: Any, *, num_photos: int, views: int, folder: Path, limit_bytes: int
    ) -> None:
        inner = model.base_model.model if hasattr(model, "peft_config") else model
        if not isinstance(inner.vision_model.encoder, FusedEncoder):
            raise ModelError(
                "training.cache_activations: the image tower of this model is not one cliptune "
                "computes itself; set it to false"
            )
        self.depth = first_adapted(inner)
        self.shape = (views, num_photos)
        self.folder, self.limit_bytes = folder, limit_bytes
        self.known = torch.zeros(self.shape, dtype=torch.bool)
        self._states: np.memmap[Any, np.dtype[np.float32]] | None = None
        self._off = False

    @contextmanager
    def reused(
        self, pixels_BCHW: torch.Tensor, indices: torch.Tensor, *, view: int = 0
    ) -> Iterator[tuple[torch.Tensor, LayerStates | None]]:
        """The pixels and states to give to one forward of the model on these photos.

        One photo's pixels where the states of all are known, since the image tower then starts
        from these. What the forward leaves is kept once the context ends.
        """
        view %= self.shape[0]
        if self._off:
            yield pixels_BCHW, None
            return
        at = indices.cpu().numpy()
        if bool(self.known[view, indices.cpu()].all()):
            assert self._states is not None
            known = torch.from_numpy(self._states[view, at]).to(pixels_BCHW.device)
            yield pixels_BCHW[:1], LayerStates(self.depth, known=known)
            return
        states = LayerStates(self.depth)
        yield pixels_BCHW, states
        if states.left is not None:
            self._keep(view, at, states.left)

    def _keep(self, view: int, at: np.ndarray[Any, Any], kept: torch.Tensor) -> None:
        if self._states is None and not self._make_file(tuple(kept.shape[1:])):
            return
        assert self._states is not None
        self._states[view, at] = kept.float().cpu().numpy()
        self.known[view, at] = True

    def _make_file(self, state_shape: tuple[int, ...]) -> bool:
        shape = (*self.shape, *state_shape)
        needed = 4 * int(np.prod(shape))
        self.folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.folder).free
        if needed > min(self.limit_bytes, free - free // 10):
            log.warning(
                "training.cache_activations: %d MiB would be needed, data.cache_limit is %d MiB "
                "and %d MiB of disk are free: activations are computed anew in each epoch",
                needed >> 20, self.limit_bytes >> 20, free >> 20,
            )  # fmt: skip
            self._off = True
            return False
        log.info("activations below layer %d: %d MiB in %s", self.depth, needed >> 20, self.folder)
        with tempfile.TemporaryFile(dir=self.folder) as file:
            if hasattr(os, "posix_fallocate"):
                # Reserved now: a disk that fills up later would end the process without a word.
                os.posix_fallocate(file.fileno(), 0, needed)
            else:
                file.truncate(needed)
            self._states = np.memmap(file, dtype=np.float32, mode="r+", shape=shape)
        return True


def reused(
    frozen: FrozenStates | None, batch: Batch, pixels_BCHW: torch.Tensor
) -> AbstractContextManager[tuple[torch.Tensor, LayerStates | None]]:
    """`frozen.reused` for a batch, its pixels on the device; without `frozen`, just the pixels."""
    if frozen is None:
        return nullcontext((pixels_BCHW, None))
    return frozen.reused(pixels_BCHW, batch.indices, view=batch.view)


def first_adapted(model: Any) -> int:
    """The index of the first layer of the image tower with a weight that trains."""
    indices = [
        int(match[1])
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
        and (match := re.match(r"vision_model\..*?layers\.(\d+)\.", name))
    ]
    return min(indices, default=len(model.vision_model.encoder.layers) - 1)
