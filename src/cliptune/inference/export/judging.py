"""What int8 costs: the same photos by both graphs, in pairs, and what it gains in speed.

Shape suffixes: N photos, C classes.
"""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cliptune.data.multilabel import Targets
from cliptune.errors import UserError
from cliptune.evaluation.statistics.grouped import Groups, difference_of, mcnemar_of
from cliptune.evaluation.statistics.intervals import Z95, Estimate
from cliptune.evaluation.statistics.metrics import Labels
from cliptune.evaluation.statistics.multilabel import mean_ap_gain, mean_average_precision
from cliptune.language import Said, counting, said
from cliptune.model.exported.runtime import session_of
from cliptune.model.label_answers import AnsweredLabels
from cliptune.text import counted

_SECONDS = 3.0  # that each graph is timed for, or three turns
_UNITS = ("avx2", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What int8 lost on the photos of val, of the answers right. `loss` in points, not a share."""

    unit: ClassVar[str] = "points"
    photos: int
    float32_accuracy: float
    int8_accuracy: float
    only_float32_right: int
    only_int8_right: int
    loss: Estimate
    p: float  # McNemar's
    method: str
    other_labels: int

    @property
    def metrics(self) -> dict[str, float | int | None]:
        """What the record of a checkpoint holds of val: that of float32 is no longer its own."""
        return {"val_accuracy": self.int8_accuracy, "val_images": self.photos}

    def words(self, max_loss: float) -> Said:
        """What it loses, in a few lines, where `max_loss` points are allowed."""
        return said(
            "accuracy on the {photos} photos of val: {int8:.1%}, float32 {float32:.1%}; {lost}; "
            "right in float32 alone {only_float32}, in int8 alone {only_int8}, p {p:.2g};\n"
            "{others}",
            photos=self.photos,
            int8=self.int8_accuracy,
            float32=self.float32_accuracy,
            lost=_lost(self.loss, max_loss),
            only_float32=self.only_float32_right,
            only_int8=self.only_int8_right,
            p=self.p,
            others=counting(self.other_labels, "other label"),
        )

    @property
    def beside_the_loss(self) -> str:
        """What a refusal says besides."""
        return (
            f"McNemar's p is {self.p:.2g}: {self.only_float32_right} photos are right in "
            f"float32 alone, {self.only_int8_right} in int8 alone."
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "photos": self.photos,
            "accuracy": {"float32": self.float32_accuracy, "int8": self.int8_accuracy},
            "only_float32_right": self.only_float32_right,
            "only_int8_right": self.only_int8_right,
            "points_lost": asdict(self.loss),
            "mcnemar_p": self.p,
            "mcnemar_method": self.method,
            "other_labels": self.other_labels,
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class JudgedLabels:
    """What int8 lost on photos of val that may show any of the classes: of the mean average
    precision, over the `classes` that one of them shows. `loss` in points, not a share.

    Beside it stand the photos whose classes are all told rightly by one alone, and how many are
    told other classes.
    """

    unit: ClassVar[str] = "points of mAP"
    photos: int
    classes: int
    float32_mean_ap: float
    int8_mean_ap: float
    int8_all_right: float  # share of photos
    only_float32_right: int
    only_int8_right: int
    loss: Estimate
    p: float  # McNemar's, of the photos all right
    method: str
    other_shown: int

    @property
    def metrics(self) -> dict[str, float | int | None]:
        """As of `Judged`."""
        return {
            "val_accuracy": self.int8_all_right, "val_mean_ap": self.int8_mean_ap,
            "val_images": self.photos,
        }  # fmt: skip

    def words(self, max_loss: float) -> Said:
        """As of `Judged`."""
        return said(
            "mAP of {classes} classes on the {photos} photos of val: {int8:.1%}, float32 "
            "{float32:.1%};\n{lost};\nall classes right in float32 alone {only_float32}, in int8 "
            "alone {only_int8}, p {p:.2g};\n{others} told other classes, by the thresholds of each",
            classes=self.classes,
            photos=self.photos,
            int8=self.int8_mean_ap,
            float32=self.float32_mean_ap,
            lost=_lost(self.loss, max_loss),
            only_float32=self.only_float32_right,
            only_int8=self.only_int8_right,
            p=self.p,
            others=counting(self.other_shown, "photo"),
        )

    @property
    def beside_the_loss(self) -> str:
        """As of `Judged`."""
        return (
            f"{counted(self.other_shown, 'photo')} would be told other classes; all are right in "
            f"float32 alone on {self.only_float32_right}, in int8 alone on {self.only_int8_right}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "photos": self.photos,
            "classes": self.classes,
            "mean_ap": {"float32": self.float32_mean_ap, "int8": self.int8_mean_ap},
            "points_of_mean_ap_lost": asdict(self.loss),
            "only_float32_all_right": self.only_float32_right,
            "only_int8_all_right": self.only_int8_right,
            "mcnemar_p": self.p,
            "mcnemar_method": self.method,
            "other_shown": self.other_shown,
        }


def _lost(loss: Estimate, max_loss: float) -> str:
    return said(
        "points lost: {value:.1f}, by the 95 % interval\n{low:.1f} to {high:.1f} (allowed: "
        "{allowed:g})",
        value=loss.value, low=loss.low, high=loss.high, allowed=max_loss,
    )  # fmt: skip


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


def judged_labels(
    float32: AnsweredLabels,
    int8: AnsweredLabels,
    targets_NC: Targets,
    *,
    seed: int,
    groups_N: Groups | None = None,
) -> JudgedLabels:
    """The difference of the mean average precisions, by resampling photos, and of what is told.

    Photos drawn anew say nothing of those that never were: where no rank changed, the interval
    would end at 0 on however few. So it ends no sooner than `least_end` of as many photos does, or
    groups of them by `groups_N`, as where one label is right or wrong.
    """
    scores = float32.scaled_NC, int8.scaled_NC
    gain = mean_ap_gain(*scores, targets_NC, seed=seed)
    independent = len(targets_NC) if groups_N is None else len(np.unique(groups_N))
    all_right = [(each.shown_NC == targets_NC).all(axis=1) for each in (float32, int8)]
    only_float32_N, only_int8_N = all_right[0] & ~all_right[1], all_right[1] & ~all_right[0]
    test = mcnemar_of(only_float32_N, only_int8_N, groups_N)
    float32_ap, int8_ap = (mean_average_precision(targets_NC, each) for each in scores)
    return JudgedLabels(
        photos=len(targets_NC),
        classes=int(targets_NC.any(axis=0).sum()),
        float32_mean_ap=float32_ap,
        int8_mean_ap=int8_ap,
        int8_all_right=float(all_right[1].mean()),
        only_float32_right=int(only_float32_N.sum()),
        only_int8_right=int(only_int8_N.sum()),
        loss=Estimate(
            100 * gain.value, 100 * gain.low, max(100 * gain.high, least_end(independent))
        ),
        p=test.p,
        method=test.method,
        other_shown=int((float32.shown_NC != int8.shown_NC).any(axis=1).sum()),
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
