"""What a search found: its trials, and what the best of them is worth on photos set apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cliptune.config import Settings
from cliptune.evaluation.report_json import estimate_dict, versions
from cliptune.evaluation.statistics.intervals import Estimate
from cliptune.tuning.space import Range, drawn_settings

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Trial:
    """One attempt. Losses are nats, accuracies fractions, times seconds; None: not known.

    `val_loss` is that by which a run chooses among its epochs; after a fitted head, at the best
    temperature. Of a pruned trial it is that at which it was given up: none is compared by it.
    `val_mean_ap`, a fraction, is known of photos with several labels, which it stands for there.
    """

    number: int
    state: str  # "complete", "pruned", "failed" or "running"
    drawn: Mapping[str, float]  # by key, as the sampler drew it
    val_loss: float | None
    val_accuracy: float | None
    seconds: float | None
    fault: str | None = None
    val_mean_ap: float | None = None


@dataclass(frozen=True)
class Proof:
    """The best trial against the default on photos that chose neither, each as it answers.

    `gain` is the mean loss of the default less that of the best, in nats; None for one photo.
    Of photos with several labels it is the mean average precision of the best less that of the
    default, which are known there; accuracies are shares of photos with all classes right.
    """

    num_photos: int
    default_loss: float
    best_loss: float
    default_accuracy: float
    best_accuracy: float
    gain: Estimate | None
    default_mean_ap: float | None = None
    best_mean_ap: float | None = None

    @property
    def verdict(self) -> str:
        """ "better", "worse", or "indistinguishable": the interval of the gain has 0 in it."""
        if self.gain is None or self.gain.low <= 0 <= self.gain.high:
            return "indistinguishable"
        return "better" if self.gain.value > 0 else "worse"


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """A search as far as it has come.

    Trials are compared by val loss, or where photos have `several` labels by the mean average
    precision on val.
    """

    output_dir: Path
    settings: Settings  # the default, trial 0
    spaces: Mapping[str, Range]
    folds: int | None
    num_choosing: int  # photos by which trials were chosen
    num_apart: int
    trials: tuple[Trial, ...]
    importances: Mapping[str, float]  # of settings, by key, the most important first
    proof: Proof | None = None  # None before the end, and where the default is the best
    several: bool = False

    def cost(self, trial: Trial) -> float | None:
        """What trials are compared by, less being better: val loss, or 1 less mean precision."""
        if not self.several:
            return trial.val_loss
        return None if trial.val_mean_ap is None else 1 - trial.val_mean_ap

    @property
    def best(self) -> Trial | None:
        """The complete trial of the least cost, of equals the first; None before there is one.

        A cost that is not known comes last.
        """
        complete = [t for t in self.trials if t.state == "complete" and self.cost(t) is not None]
        return min(complete, key=lambda t: (self.cost(t), t.number), default=None)

    @property
    def default(self) -> Trial | None:
        """Trial 0, where it is complete."""
        done = [t for t in self.trials if t.number == 0 and t.state == "complete"]
        return done[0] if done else None

    def settings_of(self, trial: Trial) -> Settings:
        """The settings a trial trained with; those of trial 0 are the default's to the letter."""
        return drawn_settings(self.settings, trial.drawn) if trial.number else self.settings

    def to_dict(self) -> dict[str, Any]:
        """JSON, in fractions, nats and seconds."""
        best, proof = self.best, self.proof
        return {
            "format_version": FORMAT_VERSION,
            "versions": versions(),
            "data_dir": str(self.settings.data.data_dir),
            "seed": self.settings.seed,
            "folds": self.folds,
            "photos": {"choosing": self.num_choosing, "set_apart": self.num_apart},
            "searched": {key: asdict(space) for key, space in self.spaces.items()},
            "importances": dict(self.importances),
            "best": None if best is None else best.number,
            **({"compared_by": "val_mean_ap"} if self.several else {}),
            "out_of_sample": None
            if proof is None
            else self._dict(proof) | {"gain": estimate_dict(proof.gain), "verdict": proof.verdict},
            "trials": [
                self._dict(trial) | {"drawn": self.numbers_of(trial)} for trial in self.trials
            ],
        }

    def _dict(self, part: Trial | Proof) -> dict[str, Any]:
        """Without what is known of several labels alone, unless photos have them."""
        return {
            key: value
            for key, value in asdict(part).items()
            if self.several or not key.endswith("mean_ap")
        }

    def numbers_of(self, trial: Trial) -> dict[str, float]:
        """The searched settings of a trial as it trained with them."""
        values = self.settings_of(trial).to_dict()
        found = {}
        for key in trial.drawn:
            value: Any = values
            for part in key.split("."):
                value = value[part]
            found[key] = value[0] if isinstance(value, list) else value
        return found
