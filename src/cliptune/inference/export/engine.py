"""An exported folder that answers as a checkpoint does, by onnxruntime.

Shape suffixes: B images, C classes, D feature.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cliptune.data.images import Preprocess
from cliptune.errors import CheckpointError, DeviceError, MissingExtra, UserError
from cliptune.inference.engine import Engine
from cliptune.inference.export.about import read_about
from cliptune.model.answers import Answered
from cliptune.model.checkpoint import EXPORTED
from cliptune.model.prior import Prior


class ExportedEngine(Engine):
    """The classifier in an exported folder, on the CPU.

    Raises `CheckpointError` for a damaged folder or one of a later format, `DeviceError` for
    another device or precision, `UserError` for a prior, `MissingExtra` without onnxruntime.
    """

    def __init__(
        self,
        folder: Path,
        *,
        device: str = "auto",
        prior: Prior | None = None,
        precision: str | None = None,
    ) -> None:
        about = read_about(folder)
        if device not in ("auto", "cpu"):
            raise DeviceError(f"{folder}: an exported folder is run on the CPU; found '{device}'.")
        if precision not in (None, "auto", about.precision):
            raise DeviceError(
                f"{folder}: it was exported in {about.precision}; found '{precision}'."
            )
        if prior is not None:
            raise UserError(
                f"{folder}: an exported folder does not hold how frequent classes were in "
                "training, so --prior cannot be answered for. Use the checkpoint."
            )
        self.checkpoint, self.device, self.precision = folder, torch.device("cpu"), about.precision
        self.class_names = tuple(each.label for each in about.classes)
        self.display_names = {each.label: each.name for each in about.classes}
        self.answers = about.answers
        try:
            self.preprocess = Preprocess.from_dict(about.preprocess)
        except ValueError as error:
            raise CheckpointError(f"{folder / EXPORTED}: preprocess: {error}") from None
        self._session = _session(folder / "model.onnx")

    def answer(self, crops: Sequence[NDArray[np.uint8]]) -> Answered:
        """As of `Engine`."""
        names = [output.name for output in self._session.get_outputs()]
        found = dict(zip(names, self._session.run(names, {"pixels": np.stack(crops)}), strict=True))
        chances_BC = found["probabilities"].astype(np.float64)
        if not np.isfinite(chances_BC).all():
            raise CheckpointError(f"{self.checkpoint}: its answers are not finite numbers.")
        logs_BC = np.log(np.maximum(chances_BC, np.finfo(np.float64).tiny))
        if "known" not in found:
            return Answered(logs_BC, None, None)
        return Answered(logs_BC, found["known_score"].astype(np.float64), found["known"])


def _session(path: Path) -> Any:
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        if error.name != "onnxruntime":
            raise
        raise MissingExtra("onnxruntime", "export", "an exported folder") from None
    try:
        return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # its own kinds, for a file that is missing, cut or no graph
        raise CheckpointError(f"{path}: cannot be loaded: {error}") from None
