"""Search for settings: trials that train, chosen by val alone; `test/` is not even opened."""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from cliptune.config import Settings
from cliptune.errors import Interrupted, SettingsError, TrainingError, UserError
from cliptune.files import delete_folder, recover
from cliptune.locks import RunLock
from cliptune.model.checkpoint import list_checkpoints
from cliptune.storage import folder_here, local_folder
from cliptune.training.loaders import groups_of_splits, load_photos
from cliptune.training.multilabel import refuse_settings_of_one_label
from cliptune.training.reporting import TrainResult
from cliptune.training.resume import flat_settings, photo_digest
from cliptune.training.start import check_folder
from cliptune.training.stopping import stop_requests
from cliptune.training.train import AfterEpoch, train
from cliptune.tuning.parts import Parts, make_parts
from cliptune.tuning.proof import prove, prove_of_several
from cliptune.tuning.showing import TrialsBar
from cliptune.tuning.space import ranges
from cliptune.tuning.study import JOURNAL, import_optuna, importances, next_trial, open_study
from cliptune.tuning.tuning import Trial, Tuning
from cliptune.tuning.writing import write_tuning

log = logging.getLogger(__name__)

# Settings that change nothing of what is found.
ASIDE = ("data.cache", "data.num_workers", "data.pin_memory", "data.read_timeout", "hardware.",
         "output.", "evaluation.")  # fmt: skip


def tune(
    settings: Settings,
    *,
    output_dir: Path | str,
    trials: int,
    minutes: float | None = None,
    folds: int | None = None,
    fixed: Collection[str] = (),
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> Tuning:
    """Search `space.SPACE` around `settings`, all keys but those of `fixed`, in `trials` trials.

    Trial 0 trains with `settings` as they are. The photos are those of train/ and val/ in
    `data.data_dir`; half of val is set apart and measures the best trial against the default at
    the end. By `folds`, trials are compared out of fold, else on the other half of val: by val
    loss, or where photos have several labels by the mean average precision. After
    `minutes` no trial begins. `resume` goes on with the search in `output_dir`, in the middle of
    a trial, too; `overwrite` deletes it and begins anew.

    Writes `tuning.json`, `best_config.yaml`, `tuning.png` and a folder for each trial; checkpoints
    are kept of the default's and the best trial alone.

    Raises `UserError` for faults of settings or data and for a search that is there already;
    `MissingExtra` without Optuna; `Interrupted` once a trial that is to stop is saved.
    """
    import_optuna()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("tune: started as several processes. Start it as one: each trial is short.")
    output_dir = folder_here(output_dir, "--output-dir")
    check_folder("--output-dir", output_dir)
    spaces = ranges(settings, fixed=fixed)
    if not spaces:
        raise UserError("tune: there is nothing to search: every setting of the search is fixed.")
    with _alone(output_dir, resume=resume, overwrite=overwrite):
        train_split, val_split = load_photos(
            settings.data, recipe=settings.training.recipe, seed=settings.seed, progress=progress
        )
        if train_split.several is not None:
            refuse_settings_of_one_label(settings)
        groups = groups_of_splits(local_folder(settings.data.data_dir), train_split, val_split)
        parts = make_parts(train_split, val_split, folds=folds, seed=settings.seed, groups=groups)
        identity = {
            key: value
            for key, value in flat_settings(settings.to_dict()).items()
            if not key.startswith(ASIDE) and key != "data.data_dir"
        } | {
            "searched": sorted(spaces),
            "folds": folds,
            "photos": photo_digest(
                train_split.samples + val_split.samples,
                None if train_split.several is None or val_split.several is None
                else train_split.several + val_split.several,
            ).digest,
        }  # fmt: skip
        tuning = Tuning(
            output_dir=output_dir,
            settings=settings,
            spaces=spaces,
            folds=folds,
            num_choosing=sum(len(val) for _, val in parts.runs),
            num_apart=len(parts.apart),
            trials=(),
            importances={},
            several=train_split.several is not None,
        )
        return _Search(tuning, parts, open_study(output_dir, identity)).run(
            trials, minutes=minutes, progress=progress
        )


class _Search:
    """A search in its folder: the study, the photos, and what was found so far."""

    def __init__(self, tuning: Tuning, parts: Parts, study: Any) -> None:
        self.start, self.parts, self.study = tuning, parts, study
        self.optuna = import_optuna()

    def run(self, trials: int, *, minutes: float | None, progress: bool) -> Tuning:
        """Trials until there are as many, or time is up; then what the best is worth."""
        began = time.monotonic()
        states = self.optuna.trial.TrialState
        finished = self.study.get_trials(states=(states.COMPLETE, states.PRUNED, states.FAIL))
        with stop_requests() as stop, TrialsBar(trials, len(finished), shown=progress) as bar:
            for _ in range(len(finished), trials):
                if minutes is not None and time.monotonic() - began >= 60 * minutes:
                    log.info("%g minutes are over: no further trial begins", minutes)
                    break
                trial = next_trial(self.study, self.start.spaces, seed=self.start.settings.seed)
                try:
                    self._attempt(trial, bar)
                except Interrupted:
                    stop.set()
                tuning = self.found()
                self._clear(tuning)
                write_tuning(tuning)
                if stop.is_set():
                    raise Interrupted(
                        f"stopped in trial {trial.number} of {trials}; everything is saved in "
                        f"{tuning.output_dir}. Go on with the same command and --resume."
                    )
                bar.finish(tuning.trials[trial.number], tuning.best)
        tuning = self.found()
        self._clear(tuning)
        tuning = dataclasses.replace(tuning, proof=self._proof(tuning, progress=progress))
        write_tuning(tuning, picture=True)
        return tuning

    def _attempt(self, trial: Any, bar: TrialsBar) -> None:
        """The runs of a trial that are not done, and its value; `Interrupted` leaves it open."""
        number, settings = trial.number, self._settings_of(trial)
        done: list[dict[str, Any]] = trial.user_attrs.get("runs", [])
        several = len(self.parts.runs) > 1
        began, before = time.monotonic(), trial.user_attrs.get("seconds", 0.0)

        def after_epoch(row: Mapping[str, float | None]) -> None:
            share = (row["epoch"] or 0) / settings.training.num_epochs
            bar.advance(number, row, share=(len(done) + share) / len(self.parts.runs))
            if not several:  # by tenths of a run: trials have different numbers of epochs
                self._report(trial, self._cost(row), step=int(10 * share))

        try:
            for place in range(len(done), len(self.parts.runs)):
                result = self._train(settings, number, place, after_epoch)
                best = result.best
                if best is None or self._cost(best.record.metrics) is None:
                    what = "mean average precision" if self.start.several else "loss"
                    raise TrainingError(f"no epoch has a val {what} that is a finite number")
                done = [
                    *done,
                    {
                        "checkpoint": best.path.name,
                        "val_loss": _loss(best.record.metrics),
                        "val_accuracy": best.val_accuracy,
                        "val_photos": len(self.parts.runs[place][1]),
                    }
                    | self._mean_ap(best.record.metrics),
                ]
                trial.set_user_attr("runs", done)
                if several and place + 1 < len(self.parts.runs):
                    self._report(trial, self._mean_cost(done), step=place + 1)
            ended = {"values": self._mean_cost(done)}
        except self.optuna.TrialPruned:
            ended = {"state": self.optuna.trial.TrialState.PRUNED}
        except TrainingError as error:
            trial.set_user_attr("fault", str(error))
            ended = {"state": self.optuna.trial.TrialState.FAIL}
        finally:  # of a trial that is to stop, too
            trial.set_user_attr("seconds", before + time.monotonic() - began)
        self.study.tell(number, **ended)

    def _cost(self, figures: Mapping[str, float | None]) -> float | None:
        """`Tuning.cost` of the figures of an epoch."""
        if not self.start.several:
            return _loss(figures)
        found = figures.get("val_mean_ap")
        return None if found is None or not np.isfinite(found) else 1 - found

    def _mean_ap(self, figures: Mapping[str, float | None]) -> dict[str, float | None]:
        return {"val_mean_ap": figures["val_mean_ap"]} if self.start.several else {}

    def _mean_cost(self, done: list[dict[str, Any]]) -> float:
        """That of a trial's runs."""
        return 1 - _mean(done, "val_mean_ap") if self.start.several else _mean(done, "val_loss")

    def _report(self, trial: Any, cost: float | None, *, step: int) -> None:
        """Tell the pruner of a cost; it may end the trial. The default is never given up."""
        if cost is None:
            return
        if step not in self.study.trials[trial.number].intermediate_values:
            trial.report(cost, step)
        if trial.number and trial.should_prune():
            raise self.optuna.TrialPruned

    def _train(
        self, settings: Settings, number: int, place: int, after_epoch: AfterEpoch
    ) -> TrainResult:
        """One run of a trial, gone on with where it was stopped."""
        folder = self._folder(number, place)
        values = settings.to_dict()
        values["output"] |= {
            "output_dir": str(folder),
            "log_dir": str(self.start.output_dir / "logs" / folder.parent.name),
            "save_total_limit": 1,
        }
        settings, photos = Settings.model_validate(values), self.parts.runs[place]
        if list_checkpoints(folder):
            try:
                return train(settings, resume=True, progress=False, photos=photos,
                             after_epoch=after_epoch)  # fmt: skip
            except SettingsError as error:  # a kill came between its end and our note of it
                log.debug("trial %d begins anew: %s", number, error)
        return train(settings, overwrite=True, progress=False, photos=photos,
                     after_epoch=after_epoch)  # fmt: skip

    def _folder(self, number: int, place: int) -> Path:
        return self.start.output_dir / f"trial-{number:03}" / f"run-{place + 1}"

    def _settings_of(self, trial: Any) -> Settings:
        drawn = Trial(trial.number, "running", trial.params, None, None, None)
        return self.start.settings_of(drawn)

    def found(self) -> Tuning:
        """What the study holds now."""
        read = _trial_of_several if self.start.several else _trial
        trials = tuple(map(read, self.study.get_trials(deepcopy=False)))
        return dataclasses.replace(self.start, trials=trials, importances=importances(self.study))

    def _clear(self, tuning: Tuning) -> None:
        """Delete the checkpoints of trials that are neither the default, the best nor running."""
        kept = {0} if tuning.best is None else {0, tuning.best.number}
        for trial in tuning.trials:
            if trial.state != "running" and trial.number not in kept:
                folder = self._folder(trial.number, 0).parent
                for path in folder.glob("run-*/checkpoint-*"):
                    delete_folder(path)

    def _proof(self, tuning: Tuning, *, progress: bool) -> Any:
        """The best trial against the default; None where they are one, or nothing is set apart."""
        best, default = tuning.best, tuning.default
        if best is None or default is None or best is default or not len(self.parts.apart):
            return None
        ours, theirs = self._checkpoints(default), self._checkpoints(best)
        if tuning.several:
            return prove_of_several(
                ours, theirs, self.parts.apart, tuning.settings, progress=progress
            )
        return prove(ours, theirs, self.parts.apart.samples, tuning.settings, progress=progress)

    def _checkpoints(self, trial: Trial) -> list[Path]:
        runs = self.study.trials[trial.number].user_attrs["runs"]
        return [self._folder(trial.number, i) / run["checkpoint"] for i, run in enumerate(runs)]


def _trial(frozen: Any) -> Trial:
    """A trial of Optuna's as ours."""
    runs = frozen.user_attrs.get("runs", [])
    complete, reported = frozen.state.name == "COMPLETE", frozen.intermediate_values
    last = reported[max(reported)] if reported else None
    return Trial(
        number=frozen.number,
        state={"FAIL": "failed"}.get(frozen.state.name, frozen.state.name.lower()),
        drawn=dict(frozen.params),
        val_loss=frozen.value if complete else last,
        val_accuracy=_mean(runs, "val_accuracy") if complete else None,
        seconds=frozen.user_attrs.get("seconds"),
        fault=frozen.user_attrs.get("fault"),
    )


def _trial_of_several(frozen: Any) -> Trial:
    """A trial of Optuna's as ours where photos have several labels: its value is a cost."""
    trial, runs = _trial(frozen), frozen.user_attrs.get("runs", [])
    complete = trial.state == "complete"
    return dataclasses.replace(
        trial,
        val_loss=_mean(runs, "val_loss") if complete else None,
        val_mean_ap=None if trial.val_loss is None else 1 - trial.val_loss,
    )


def _loss(figures: Mapping[str, float | None]) -> float | None:
    """The loss on val by which a run chooses among its epochs: scaled, where it is by that."""
    return figures.get("val_scaled_loss", figures.get("val_loss"))


def _mean(runs: list[dict[str, Any]], key: str) -> float:
    """A figure of the runs, every photo of theirs counting alike."""
    return float(
        np.average([run[key] for run in runs], weights=[run["val_photos"] for run in runs])
    )


@contextmanager
def _alone(folder: Path, *, resume: bool, overwrite: bool) -> Iterator[None]:
    """The lock of `folder`, cleared where `overwrite`. `UserError` where a search should be."""
    lock = RunLock(folder)
    there = (folder / JOURNAL).exists()
    if resume and not there:
        raise UserError(
            f"{folder}: no search to go on with. Leave out --resume to begin one, or name its "
            "folder with --output-dir."
        )
    if there and not (resume or overwrite):
        raise UserError(
            f"{folder} already holds a search. Go on with --resume, choose another --output-dir, "
            "or begin anew with --overwrite, which deletes it."
        )
    try:
        lock.acquire()
        recover(folder)
        if there and not resume:
            for path in (*folder.glob("trial-*"), *folder.glob("logs/trial-*")):
                delete_folder(path)
            for name in (JOURNAL, "tuning.json", "tuning.png", "best_config.yaml"):
                (folder / name).unlink(missing_ok=True)
        yield
    finally:
        lock.release()
