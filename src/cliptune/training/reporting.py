"""What a run tells while it goes: a bar on a terminal, plain lines elsewhere, and trackers."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from tqdm import tqdm

from cliptune.errors import MissingExtra
from cliptune.evaluation.statistics.metrics import SplitMetrics
from cliptune.evaluation.statistics.multilabel import MultilabelMetrics
from cliptune.language import translated as _
from cliptune.model.checkpoint import Checkpoint
from cliptune.training.run import Progress, Run

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainResult:
    """What a finished run reached. Accuracies are fractions, times seconds, memory bytes."""

    output_dir: Path
    best: Checkpoint | None
    last: Checkpoint | None
    baseline_accuracy: float | None
    epochs: int  # finished
    updates: int
    stopped_early: bool
    train_seconds: float
    images_per_second: float
    peak_memory: int
    trainable_parameters: int
    all_parameters: int
    history: list[dict[str, float | None]]  # None: not known, or not finite
    profile: str | None = None  # a table of where the time went, if asked for


class TrainingBar:
    """Progress over all updates of a run: loss, accuracy, rate and time left."""

    def __init__(
        self, *, total: int, done: int, num_epochs: int, every: int, shown: bool = True
    ) -> None:
        self.total = total
        self.done = done
        self.started = time.monotonic()
        self.num_epochs = num_epochs
        self.every = every
        self.shown = shown
        self._bar = tqdm(
            total=total,
            initial=done,
            unit="upd",
            dynamic_ncols=True,
            disable=None if shown else True,  # None: a bar only on a terminal
            bar_format="{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} "
            "[{elapsed}<{remaining}{postfix}]",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()

    def advance(
        self, *, epoch: int, update: int, loss: float, accuracy: float, rate: float, lr: float
    ) -> None:
        """One update is done; `rate` in images per second, `accuracy` a fraction."""
        place = _("epoch {epoch}/{epochs}").format(epoch=epoch, epochs=self.num_epochs)
        self._bar.set_description_str(place, refresh=False)
        figures = _("loss {loss:.3f}, acc {accuracy:.1%}, {rate:.0f} img/s")
        self._bar.set_postfix_str(
            figures.format(loss=loss, accuracy=accuracy, rate=rate), refresh=False
        )
        self._bar.update()
        if self._bar.disable and self.shown and update % self.every == 0:
            elapsed = time.monotonic() - self.started
            left = elapsed / (update - self.done) * (self.total - update)
            log.info(
                "update %d/%d  loss %.3f  acc %.1f %%  lr %.2e  %.0f img/s%s",
                update, self.total, loss, 100 * accuracy, lr, rate,
                f"  {clock(left)} left" if left else "",
            )  # fmt: skip

    def leave_out(self) -> None:
        """One update is done, and changed nothing."""
        self._bar.update()


def check_trackers(names: Sequence[str]) -> None:
    """Raise `MissingExtra` for a tracker whose package is not installed."""
    from importlib.util import find_spec

    for name in names:
        if name != "tensorboard" and find_spec(name) is None:
            raise MissingExtra(name, name, f"output.trackers: '{name}'")


def peak_memory(device: torch.device) -> int:
    """Bytes: the most the GPU's tensors took, or on other devices the most the process took."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def clock(seconds: float) -> str:
    """ "3:25" or "1:02:03"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def finite(value: float | None) -> float | None:
    """`value`, or None for what is not finite: JSON has no word for it."""
    return value if value is not None and isfinite(value) else None


def log_known(run: Run, values: Mapping[str, float | None]) -> None:
    """Tell the trackers of those values that are finite."""
    known = {key: value for key, value in values.items() if value is not None and isfinite(value)}
    run.trackers.log(known, step=run.progress.update)


def epoch_row(
    state: Progress, metrics: SplitMetrics, *, criterion: float | None = None
) -> dict[str, float | None]:
    """The figures of the running epoch, whose val has `metrics`; None for what is not known.

    `criterion` is given where it decides which epoch is best. No training figure is known where
    every update was left out.
    """

    def mean(total: float) -> float | None:
        return total / state.photos if state.photos else None

    row: dict[str, float | None] = {
        "epoch": state.epoch + 1,
        "update": state.update,
        "train_loss": mean(state.loss_sum),
        "train_accuracy": mean(state.correct),
        "val_loss": finite(metrics.loss),
        "val_accuracy": metrics.accuracy,
        "images_per_second": state.images_per_second,
    }
    if criterion is not None:
        row["val_criterion"] = finite(criterion)
    if isinstance(metrics, MultilabelMetrics):
        row["val_mean_ap"] = finite(metrics.mean_ap)
    if metrics.top5_accuracy is not None:
        row["train_top5_accuracy"] = mean(state.top5_correct)
        row["val_top5_accuracy"] = metrics.top5_accuracy
    return row


def epoch_line(row: Mapping[str, float | None], *, num_epochs: int, is_best: bool) -> str:
    """One epoch's figures in a line of at most 80 columns."""

    def said(key: str, kind: str) -> str:
        value = row[key]
        return "–" if value is None else format(value, kind)

    top5 = f" top-5 {said('val_top5_accuracy', '.1%')}" if "val_top5_accuracy" in row else ""
    if "val_mean_ap" in row:  # accuracy is then that of photos with all labels right
        top5 = f" mAP {said('val_mean_ap', '.1%')}"
    return (
        f"epoch {said('epoch', 'g')}/{num_epochs}  "
        f"train {said('train_loss', '.3f')} {said('train_accuracy', '.1%')}  "
        f"val {said('val_loss', '.3f')} {said('val_accuracy', '.1%')}{top5}"
        f"  {said('images_per_second', '.0f')} img/s{' *' if is_best else ''}"
    )
