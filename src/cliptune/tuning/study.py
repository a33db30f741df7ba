"""Optuna's study in a file: JSON lines, of which a kill costs at most the one being written.

Of Optuna's storages only this and SQLite keep their file in a plain folder. Neither reads a pickle
from it (of journals, only one in Redis does); lines of JSON outlast a change of schema, can be read
by people, and need no locks that network disks lack.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cliptune.errors import MissingExtra, UserError, listing
from cliptune.tuning.space import Range

JOURNAL = "optuna.jsonl"


def import_optuna() -> Any:
    """The package, quiet. Raises `MissingExtra` where it is not installed."""
    try:
        import optuna
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        raise MissingExtra("optuna", "tune", "cliptune tune") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def open_study(folder: Path, identity: Mapping[str, object]) -> Any:
    """The study in `folder`, new or gone on with. Only for whoever alone writes to `folder`.

    `identity` says what is searched on what; a study of another identity is refused.

    Raises `UserError` for such a study, and for a file that is no journal.
    """
    optuna = import_optuna()
    path = folder / JOURNAL
    _mend(path)
    journal = optuna.storages.journal
    try:
        backend = journal.JournalFileBackend(
            str(path), lock_obj=journal.JournalFileOpenLock(str(path))
        )
        study = optuna.create_study(
            storage=optuna.storages.JournalStorage(backend),
            study_name="cliptune", load_if_exists=True,
            # Ends trials than which, at the same point, half of those before were better.
            pruner=optuna.pruners.MedianPruner(n_startup_trials=4),
        )  # fmt: skip
        before = study.user_attrs.get("identity")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: damaged ({error or type(error).__name__}). Expected Optuna's journal. Start "
            "anew in another --output-dir, or here with --overwrite."
        ) from None
    if before is None:
        study.set_user_attr("identity", dict(identity))
    elif before != identity:
        changed = [
            f"{key}: was {before.get(key)!r}, is {identity.get(key)!r}"
            for key in sorted(before.keys() | identity.keys())
            if before.get(key) != identity.get(key)
        ]
        raise UserError(
            f"{folder}: the search to go on with was another:\n{listing(changed)}\n"
            "Give the same settings and photos, or start a new search in another --output-dir."
        )
    return study


def next_trial(study: Any, spaces: Mapping[str, Range], *, seed: int) -> Any:
    """The trial to run now: one that a kill left unfinished, or a new one.

    Trial 0 has the defaults. What the others draw depends on `seed`, their number and the trials
    before alone, so a search that is gone on with draws what an undisturbed one does.
    """
    optuna = import_optuna()
    running = study.get_trials(states=(optuna.trial.TrialState.RUNNING,))
    number = running[0].number if running else len(study.trials)
    study.sampler = optuna.samplers.TPESampler(seed=(seed + number) % 2**32)
    if not study.trials:
        study.enqueue_trial({key: space.default for key, space in spaces.items()})
    trial = optuna.trial.Trial(study, running[0]._trial_id) if running else study.ask()
    for key, space in spaces.items():
        if space.whole:
            trial.suggest_int(key, int(space.low), int(space.high), log=space.log)
        else:
            trial.suggest_float(key, space.low, space.high, log=space.log)
    return trial


def importances(study: Any) -> dict[str, float]:
    """How much each setting matters, by PED-ANOVA (Watanabe et al., IJCAI 2023), most first.

    Empty below ten complete trials, which tell nothing of six settings.
    """
    optuna = import_optuna()
    complete = study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
    if len(complete) < 10:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = optuna.importance.get_param_importances(study)
        except (ValueError, RuntimeError):  # all trials alike
            return {}
    return {key: float(value) for key, value in found.items()}


def _mend(path: Path) -> None:
    """Cut off a line that a kill left half written, and the lock it left."""
    path.with_name(path.name + ".lock").unlink(missing_ok=True)
    if path.is_file():
        content = path.read_bytes()
        with path.open("rb+") as file:
            file.truncate(content.rfind(b"\n") + 1)
