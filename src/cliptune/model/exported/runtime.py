"""onnxruntime, imported so that it sends nothing.

Its builds for Linux, macOS and Windows report to their maker from the first session on, and keep an
identifier of the device, unless an environment variable was set before (Privacy.md of 1.32).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from cliptune.errors import CheckpointError, MissingExtra


def import_onnxruntime() -> Any:
    """The package, its reports off unless the user had them on. Raises `MissingExtra`."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        if error.name != "onnxruntime":
            raise
        raise MissingExtra("onnxruntime", "export", "an exported folder") from None
    return onnxruntime


def session_of(path: Path) -> Any:
    """An `InferenceSession` of the graph in `path`, on the CPU, with as many threads as torch has.

    Raises `CheckpointError` for a graph that cannot be loaded, and `MissingExtra`.
    """
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own kinds, for a file that is missing, cut or no graph
        raise CheckpointError(f"{path}: cannot be loaded: {error}") from None
