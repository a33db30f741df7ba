"""An exported graph in the place of a classifier's image tower: whoever measures or predicts with
a `Classifier` does so with this one, too.

Shape suffixes: B batch, C classes, D feature.
"""

from __future__ import annotations

from pathlib import Path

import torch

from cliptune.data.images import Preprocess
from cliptune.model.classifier import Classifier, Head, HeadShifts
from cliptune.model.exported.runtime import session_of
from cliptune.model.fast.encoder import LayerStates

GRAPH = "model.onnx"


class ExportedClassifier(Classifier):
    """The classifier in the exported folder `folder`, by onnxruntime, which computes on the CPU.

    Logits are the graph's own, so that what is measured is what was exported; of a head that was
    put in the place of `head`, that head's, of the graph's features. Pixels may lie on any device,
    and what comes of them lies there, too.

    Raises `CheckpointError` for a graph that cannot be loaded, `MissingExtra` without onnxruntime.
    """

    def __init__(self, folder: Path, head: Head, preprocess: Preprocess) -> None:
        super().__init__(None, head, preprocess)
        self._exported_head = [head]  # in a list, or it would be a second sub-module
        self._session = session_of(folder / GRAPH)

    def image_features(
        self, pixels_BCHW: torch.Tensor, *, states: LayerStates | None = None
    ) -> torch.Tensor:
        """As of `Classifier`; there are no `states` of a graph."""
        return self._run(pixels_BCHW, "features")[0]

    def answer(
        self,
        pixels_BCHW: torch.Tensor,
        weights_CD: torch.Tensor | None = None,
        *,
        states: LayerStates | None = None,
        shifts: HeadShifts | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As of `Classifier`; the class weights of the graph's own head are in the graph."""
        if self.head is not self._exported_head[0]:
            return super().answer(pixels_BCHW, weights_CD, shifts=shifts)
        logits_BC, features_BD = self._run(pixels_BCHW, "logits", "features")
        return logits_BC, features_BD

    def _run(self, pixels_BCHW: torch.Tensor, *outputs: str) -> list[torch.Tensor]:
        """Those of the graph's outputs, in float32."""
        found = self._session.run(list(outputs), {"pixels": pixels_BCHW.cpu().numpy()})
        return [torch.from_numpy(values).float().to(pixels_BCHW.device) for values in found]
