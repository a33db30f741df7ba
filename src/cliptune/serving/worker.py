"""What runs in a worker process: one classifier, which answers for encoded photos.

A process of its own because photos are strangers' data: what a decoder or the system's memory does
to it, the server outlives.
"""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cliptune.data.reading import PIXEL_LIMIT, TooManyPixels, Unreadable
from cliptune.errors import CheckpointError, CliptuneError, ImageError, ResourceError, UserError
from cliptune.files import SUMS


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a worker loads; `options` are those of `Predictor`."""

    checkpoint: Path
    max_pixels: int
    threads: int | None = None  # None: as torch chooses
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What a worker has loaded, as it tells the server."""

    checkpoint: str  # its folder's name and the beginning of its sum
    classes: tuple[tuple[str, str], ...]  # class name, the name to show
    device: str
    precision: str
    rejects: bool  # whether it tells photos of none of the classes
    looks: bool  # whether it can show where it looked


@dataclass(frozen=True)
class Fault:
    """Why there is no answer, and the status of HTTP that says so."""

    status: int
    message: str


Answer = dict[str, Any] | Fault  # the dictionary of a Prediction, or why there is none

_predictor: Any = None  # this process's own, a `Predictor`


def prepare() -> None:
    """Leave it to the server when this process ends; and end when the server is no more.

    Ctrl-C and service managers signal every process of a group at once.
    """
    warnings.filterwarnings("ignore")  # of libraries: there is no screen to show them on
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_server, daemon=True).start()


def load(source: Source) -> Loaded | Fault:
    """Load the classifier, and answer once: the first answer takes longer than others."""
    global _predictor
    try:
        import numpy as np
        import torch
        from transformers.utils import logging as transformers_logging

        from cliptune.inference.predictor import Predictor

        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        os.environ[PIXEL_LIMIT] = str(source.max_pixels)
        if source.threads is not None:
            torch.set_num_threads(source.threads)
        predictor = Predictor(source.checkpoint, **source.options)
        predictor.predict(np.zeros((8, 8, 3), np.uint8))
    except CliptuneError as error:
        return Fault(503, str(error))
    _predictor = predictor
    return Loaded(
        checkpoint=identity(predictor.checkpoint),
        classes=tuple((name, predictor.display_names[name]) for name in predictor.class_names),
        device=str(predictor.device),
        precision=predictor.precision,
        rejects=predictor.answers is not None,
        looks=predictor.looks,
    )


def answer(photos: Sequence[bytes], top_k: int) -> list[Answer]:
    """The answer for each of `photos`, encoded images, with the `top_k` most probable classes."""
    try:
        found = list(_predictor.stream(photos, top_k=top_k))
    except CliptuneError as error:
        return [_fault_of(error)] * len(photos)
    return [
        _unreadable(each.reason, too_large=each.too_large)
        if isinstance(each, Unreadable)
        else each.to_dict()
        for each in found
    ]


def look(photo: bytes, label: str | None) -> bytes | Fault:
    """A JPEG of where it looked: of `Predictor.look`."""
    try:
        picture = _predictor.look(photo, label)
    except ImageError as error:
        return _unreadable(str(error), too_large=isinstance(error, TooManyPixels))
    except CliptuneError as error:
        return _fault_of(error)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=85)
    return file.getvalue()


def _unreadable(reason: str, *, too_large: bool) -> Fault:
    if too_large:  # the reason tells what whoever runs the server can do
        limit = int(os.environ[PIXEL_LIMIT])
        return Fault(413, f"the photo has more than {limit:,} pixels. Scale it down first.")
    return Fault(
        422, f"the photo cannot be read: {reason}. Expected a JPEG, PNG, WebP or the like."
    )


def _fault_of(error: CliptuneError) -> Fault:
    if isinstance(error, UserError) and not isinstance(error, CheckpointError):
        return Fault(422, str(error))
    return Fault(503 if isinstance(error, ResourceError) else 500, str(error))


def identity(checkpoint: Path) -> str:
    """`checkpoint-epoch-3@` and the beginning of the digest of its sums."""
    known = [checkpoint / name for name in (SUMS, "export.json") if (checkpoint / name).is_file()]
    digest = hashlib.sha256(known[0].read_bytes()).hexdigest()[:12] if known else "unknown"
    return f"{checkpoint.name}@{digest}"


def _end_with_the_server() -> None:
    server = multiprocessing.parent_process()
    if server is not None:
        server.join()
        os._exit(1)
