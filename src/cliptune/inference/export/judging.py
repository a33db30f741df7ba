"""What int8 costs: the same photos by both graphs, in pairs, and what it gains in speed.

Shape suffixes: N photos, C classes.
"""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliptune.errors import UserError
from cliptune.evaluation.statistics.grouped import Groups, difference_of, mcnemar_of
from cliptune.evaluation.statistics.intervals import Z95, Estimate
from cliptune.evaluation.statistics.metrics import Labels
from cliptune.model.exported.runtime import session_of

_SECONDS = 3.0  # that each graph is timed for, or three turns
_UNITS = ("avx2", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What int8 lost on the photos of val, of the answers right. `loss` in points, not a share."""

    photos: int
    float32_accuracy: float
    int8_accuracy: float
    only_float32_right: int
    only_int8_right: int
    loss: Estimate
    p: float  # McNemar's
    method: str
    other_labels: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "photos": self.photos,
            "accuracy": {"float32": self.float32_accuracy, "int8": self.int8_accuracy},
            "only_float32_right": self.only_float32_right,
            "only_int8_right": self.only_int8_right,
            "points_lost": {
                "value": self.loss.value, "low": self.loss.low, "high": self.loss.high
            },
            "mcnemar_p": self.p,
            "mcnemar_method": self.method,
            "other_labels": self.other_labels,
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Speeds:
    """Images/s of both graphs, timed in turns; `processor` has what matters to int8 of it."""

    float32: float
    int8: float
    batch: int
    processor: str


def judged(
    float32_chances_NC: NDArray[np.floating[Any]],
    int8_chances_NC: NDArray[np.floating[Any]],
    labels_N: Labels,
    *,
    groups_N: Groups | None = None,
) -> Judged:
    """The difference of the shares right, with Tango's interval and McNemar's test.

    Both answered the same photos, so that only those count of which one alone has the answer right;
    photos of one number in `groups_N` belong together.
    """
    float32_N, int8_N = float32_chances_NC.argmax(axis=1), int8_chances_NC.argmax(axis=1)
    only_float32_N = (float32_N == labels_N) & (int8_N != labels_N)
    only_int8_N = (int8_N == labels_N) & (float32_N != labels_N)
    lost = difference_of(only_float32_N, only_int8_N, groups_N)
    test = mcnemar_of(only_float32_N, only_int8_N, groups_N)
    return Judged(
        photos=len(labels_N),
        float32_accuracy=float((float32_N == labels_N).mean()),
        int8_accuracy=float((int8_N == labels_N).mean()),
        only_float32_right=int(only_float32_N.sum()),
        only_int8_right=int(only_int8_N.sum()),
        loss=Estimate(100 * lost.value, 100 * lost.low, 100 * lost.high),
        p=test.p,
        method=test.method,
        other_labels=int((float32_N != int8_N).sum()),
    )


def least_end(count: int) -> float:
    """Points the interval of a loss ends at where no answer of `count` photos changed."""
    return 100 * Z95**2 / (count + Z95**2)


def refuse_too_few(count: int, max_loss: float, *, what: str = "photos") -> None:
    """Raise `UserError` where `count` photos could not show a loss below `max_loss` points.

    Not even if both answered all of them alike: said before minutes go by, and not bent, since a
    file that was only seen not to fail is not one that was seen to hold. `what` names what is
    counted: groups, where photos belong to some.
    """
    if (least := least_end(count)) <= max_loss:
        return
    needed = math.ceil(Z95**2 * (100 / max_loss - 1))
    raise UserError(
        f"--max-loss {max_loss:g}: {count} {what} of val cannot show that int8 loses no more. Even "
        f"if it changed no answer, the 95 % interval of the loss would end at {least:.1f} points; "
        f"{needed} {what} are needed. Take --max-loss {math.ceil(least) + 1}, if a loss so large "
        f"could be borne, or more {what} for val."
    )


def timed(
    float32: Path, int8: Path, crops: Sequence[NDArray[np.uint8]], *, seconds: float = _SECONDS
) -> Speeds:
    """Both graphs on `crops` of uint8 (3, H, W), a batch each in turns; the medians count."""
    pixels = {"pixels": np.stack(crops)}
    sessions = [session_of(path) for path in (float32, int8)]
    took: list[list[float]] = [[], []]
    for session in sessions:
        session.run(None, pixels)  # the first allocates
    while len(took[0]) < 3 or (sum(took[0]) < seconds and sum(took[1]) < seconds):
        for session, times in zip(sessions, took, strict=True):
            started = time.perf_counter()
            session.run(None, pixels)
            times.append(time.perf_counter() - started)
    of_float32, of_int8 = (len(crops) / float(np.median(times)) for times in took)
    return Speeds(float32=of_float32, int8=of_int8, batch=len(crops), processor=processor())


def processor() -> str:
    """This machine's kind of processor, and which of its units multiply in int8."""
    name, flags = platform.processor() or platform.machine(), ""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            name = value.strip() if key.strip() == "model name" else name
            flags = value if key.strip().lower() in ("flags", "features") else flags
    units = [unit for unit in _UNITS if unit in flags.split()]
    return f"{name} ({', '.join(units)})" if units else name
