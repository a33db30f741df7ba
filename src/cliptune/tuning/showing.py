"""What a search tells while it goes: a bar on a terminal, a line for each trial elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from tqdm import tqdm

from cliptune.language import said
from cliptune.language import translated as _
from cliptune.training.reporting import clock
from cliptune.tuning.tuning import Trial

log = logging.getLogger(__name__)


class TrialsBar:
    """Progress over all trials, by the epochs of each."""

    def __init__(self, trials: int, done: int, *, shown: bool) -> None:
        self.trials, self.done = trials, done
        self.best: str = ""
        self._bar = tqdm(
            total=trials,
            initial=done,
            dynamic_ncols=True,
            disable=None if shown else True,  # None: a bar only on a terminal
            bar_format="{desc} {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}{postfix}]",
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

    def advance(self, number: int, row: Mapping[str, float | None], *, share: float) -> None:
        """An epoch of the trial `number` is done, with these figures, and `share` of the trial."""
        place = _("trial {number}/{last}").format(number=number, last=self.trials - 1)
        self._bar.set_description_str(place, refresh=False)
        loss = "–" if row["val_loss"] is None else f"{row['val_loss']:.3f}"
        if row.get("val_mean_ap") is not None:
            loss = f"mAP {row['val_mean_ap']:.1%}"
        figures = _("epoch {epoch:g}, val {figure}").format(epoch=row["epoch"], figure=loss)
        self._bar.set_postfix_str(f"{figures}{_(self.best)}", refresh=False)
        self._bar.update(self.done + share - self._bar.n)

    def finish(self, trial: Trial, best: Trial | None) -> None:
        """A trial is over; `best` is the best so far."""
        if best is not None:
            self.best = said(
                "; best {figure}, trial {number}", figure=_figure(best), number=best.number
            )
        self.done += 1
        self._bar.update(self.done - self._bar.n)
        figures = "" if trial.val_loss is None else f"  val loss {trial.val_loss:.3f}"
        if trial.val_mean_ap is not None:
            figures += f"  mAP {trial.val_mean_ap:.1%}"
        elif trial.val_accuracy is not None:
            figures += f" {trial.val_accuracy:.1%}"
        spent = "" if trial.seconds is None else f"  {clock(trial.seconds)}"
        log.info(
            "trial %d/%d  %s%s%s%s", trial.number, self.trials - 1, trial.state, figures, spent,
            self.best,
        )  # fmt: skip


def _figure(trial: Trial) -> str:
    """What it is compared by."""
    if trial.val_mean_ap is not None:
        return f"mAP {trial.val_mean_ap:.1%}"
    return f"{trial.val_loss:.3f}"
