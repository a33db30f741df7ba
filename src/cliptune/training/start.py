"""Where a run starts from: an empty folder, one to be cleared, or a checkpoint to go on from."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Callable
from pathlib import Path

from cliptune.config import OutputSettings, Settings
from cliptune.errors import SettingsError, UserError
from cliptune.files import delete_folder, recover
from cliptune.locks import RunLock
from cliptune.model.checkpoint import (
    Checkpoint,
    list_checkpoints,
    prune_checkpoints,
    read_run,
)
from cliptune.model.classifier import FittedHead
from cliptune.model.restore import load_head, load_photo_sums, read_adapter
from cliptune.text import command, counted
from cliptune.training.head.folds import shifts_from
from cliptune.training.resume import (
    check_photos_agree,
    check_prompt_names_agree,
    check_settings_agree,
    flat_settings,
    photo_digest,
    read_heads,
    read_resume,
    restore_training,
)
from cliptune.training.run import HeadLosses, Run
from cliptune.training.saving import draw_curves
from cliptune.training.several.sharing import is_first, of_the_first
from cliptune.training.trackers.mlflow import MLflow
from cliptune.training.trackers.telling import Scalar, Tracker, public_name
from cliptune.training.trackers.tensorboard import TensorBoard
from cliptune.training.trackers.told import FILE as TOLD_FILE
from cliptune.training.trackers.told import Told
from cliptune.training.trackers.wandb import WeightsAndBiases

log = logging.getLogger(__name__)


def check_folder(key: str, folder: Path) -> None:
    """Raise `SettingsError` unless `folder`, the value of the setting `key`, can be written to."""
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise SettingsError(f"{key}: found {folder}, but {nearest} is a file; name a folder.")
    if not os.access(nearest, os.W_OK):
        raise SettingsError(f"{key}: found {folder}; there is no permission to write there.")
    try:
        str(folder).encode()
    except UnicodeEncodeError:  # bytes of another encoding, which TensorBoard cannot write to
        raise SettingsError(
            f"{key}: found {folder}, a name that is no UTF-8 text; name a folder that is."
        ) from None


def with_base_model(settings: Settings, name: str) -> Settings:
    """`settings` with the base model at `name`: a folder, or a name on the hub."""
    revision = settings.model.revision if name == settings.model.name else None
    model = settings.model.model_copy(update={"name": name, "revision": revision})
    return settings.model_copy(update={"model": model})


def as_begun(settings: Settings, last: Checkpoint) -> Settings:
    """`settings` for a run that goes on from `last`, which an earlier version may have begun.

    What did not exist then stays as it was then, whatever is the default today.
    """
    before = flat_settings(read_resume(last.path).settings)
    if "training.recipe" in before:
        return settings
    training = settings.training.model_copy(update={"recipe": "plain"})
    return settings.model_copy(update={"training": training})


def starting_point(output_dir: Path, *, resume: bool, overwrite: bool) -> Checkpoint | None:
    """The checkpoint to go on from; None for a new run. Raises `UserError` for neither."""
    checkpoints, damaged = read_run(output_dir)
    if resume:
        for fault in damaged:
            log.warning("left out, going on from the one before: %s", fault)
        if not checkpoints:
            raise UserError(
                f"{output_dir}: no checkpoint to resume from. Leave out --resume to start a run, "
                "or name the run's folder with --output-dir."
            )
        return checkpoints[-1]
    if checkpoints and not overwrite:
        raise UserError(
            f"{output_dir} already holds a run ({counted(len(checkpoints), 'checkpoint')}, the last"
            f" {checkpoints[-1].path.name}). Go on with --resume, choose another --output-dir, "
            "or start anew with --overwrite, which deletes these checkpoints."
        )
    return None


def agreed_start(
    output: OutputSettings, *, resume: bool, overwrite: bool, lock: RunLock
) -> Checkpoint | None:
    """`starting_point` for all processes of a run, as the first finds it.

    Raises `UserError` where another does not see its checkpoint.
    """
    last = None
    if is_first():
        last = starting_point(output.output_dir, resume=resume, overwrite=overwrite)
        if last is not None and lock.held:  # a stop may have come between a save and this
            prune_checkpoints(output.output_dir, keep=output.save_total_limit)
    name = of_the_first(last.path.name if last else None)
    if not is_first() and name is not None:
        found = [c for c in list_checkpoints(output.output_dir) if c.path.name == name]
        if not found:
            raise UserError(
                f"{output.output_dir}: the first process of this run goes on from {name}, and here "
                f"({platform.node()}) it is not. Let --output-dir be on a disk that all machines "
                "share, or copy the checkpoint there."
            )
        last = found[0]
    return last


def start_afresh(run: Run) -> None:
    """Clear the output folder of an earlier run's checkpoints and curves."""
    output_dir = run.settings.output.output_dir
    for checkpoint in list_checkpoints(output_dir):
        delete_folder(checkpoint.path)
    recover(output_dir, "checkpoint-*")
    run.events.cut_back({})
    (output_dir / TOLD_FILE).unlink(missing_ok=True)


def start_trackers(run: Run, *, resumed: bool) -> None:
    """Open TensorBoard and the like, once it is sure that the run goes ahead.

    `resumed`: it goes on from a checkpoint.
    """
    if not run.accelerator.is_main_process:
        return
    output = run.settings.output
    told = Told(output.output_dir, resumed=resumed)
    project, name = output.log_dir.name, output.output_dir.name
    makers: dict[str, Callable[[], Tracker]] = {
        "tensorboard": lambda: TensorBoard(
            run.events.folder, ending=run.events.ending,
            shown=flat_settings(run.settings.to_dict()),
        ),
        "wandb": lambda: WeightsAndBiases(project, name, told=told),
        "mlflow": lambda: MLflow(project, name, told=told),
    }  # fmt: skip
    run.trackers.start(
        {name: makers[name] for name in output.trackers},
        told_settings(run.settings),
        resumed=resumed,
    )


def told_settings(settings: Settings) -> dict[str, Scalar]:
    """Settings by dotted key, in values that all trackers take; without what is None.

    Others may read them: folders of this machine are left out, and of a base model that is in one
    only the last name is told.
    """
    values = settings.without_folders()
    values["model"]["name"] = public_name(settings.model.name)
    if isinstance(weights := values["training"]["class_weights"], dict):
        values["training"]["class_weights"] = str(weights)  # class names are no keys
    return {
        key: value if isinstance(value, int | float | str) else str(value)
        for key, value in flat_settings(values).items()
        if value is not None
    }


def go_on_from(run: Run, last: Checkpoint) -> None:
    """Put weights, optimizer and counters of `last` in place.

    Raises `SettingsError` for other settings than its own, or where nothing is left to train.
    """
    state = read_resume(last.path)
    check_settings_agree(last.path, state.settings, run.settings.to_dict())
    _check_classes_and_base_agree(run, last)
    check_prompt_names_agree(last.path, last.record.prompt_names, run.names.prompts)
    if state.photos is not None:  # earlier checkpoints have none
        check_photos_agree(
            last.path,
            state.photos,
            photo_digest(run.train_samples, run.several_labels),
        )
    before = load_photo_sums(last)
    if before is not None and run.photo_sums is not None:  # contents may have changed since
        run.photo_sums = run.photo_sums.with_others(before.train, before.val)
    run.progress = state.progress
    run.batches.rounds = state.progress.rounds  # as when it began: epochs may have been added since
    if run.accelerator.is_main_process:
        draw_curves(run)  # a stop may have come between the checkpoint and its picture
    if run.progress.epoch >= run.settings.training.num_epochs:
        epoch = run.progress.epoch
        done = (
            f"all {epoch} epochs of this run are" if epoch > 1 else "the one epoch of this run is"
        )
        raise SettingsError(
            f"{last.path}: {done} done. To train further, raise training.num_epochs; to use "
            f"it, run {_evaluation(last)}"
        )
    if run.gain_is_over():
        patience = counted(run.settings.training.early_stopping.patience, "epoch")
        raise SettingsError(
            f"{last.path}: this run stopped early: val had not improved for {patience}. To train "
            f"further, raise training.early_stopping.patience; to use it, run {_evaluation(last)}"
        )
    read_adapter(last.path, run.classifier.model)
    head = run.classifier.head
    head.load_state_dict(load_head(last.path, last.record).state_dict())
    if isinstance(head, FittedHead):
        head.strength.fill_(1)  # less in a checkpoint that answers better so
        run.fold_shifts = shifts_from(read_heads(last.path, "folds"), run.accelerator.device)
        if losses := read_heads(last.path, "losses"):
            run.head_losses = HeadLosses(**{key: x.numpy() for key, x in losses.items()})
        if own := read_heads(last.path, "head"):
            run.delivered = head.fitted_tensors()
            head.set_fitted(own)
    restore_training(last.path, state, run.optimizer, process=run.accelerator.process_index)
    if run.accelerator.scaler is not None and state.scaler:
        run.accelerator.scaler.load_state_dict(state.scaler)
    if run.accelerator.is_main_process:
        run.events.cut_back(state.events)
    log.info("going on from %s (update %d)", last.path, run.progress.update)


def _evaluation(last: Checkpoint) -> str:
    return command("cliptune", "evaluate", "--checkpoint", last.path.parent)


def _check_classes_and_base_agree(run: Run, last: Checkpoint) -> None:
    """Rows of the head belong to classes, and adapters to weights: both must be those of before."""
    before, now = last.record.class_names, list(run.class_names)
    if before != now:
        gone = ", ".join(name for name in before if name not in now) or "none"
        new = ", ".join(name for name in now if name not in before) or "none"
        order = "; their order is another" if gone == new == "none" else ""
        raise SettingsError(
            f"{last.path}: the run to resume had other classes. Gone since: {gone}. New: {new}"
            f"{order}. "
            "Restore the class folders, or start a new run in another --output-dir."
        )
    expected, found = last.record.base_model.fingerprint, run.backbone.source.fingerprint
    if expected != found:
        raise SettingsError(
            f"{last.path}: the run to resume had other base weights than {run.backbone.source} "
            f"now has: fingerprint {expected} expected, {found} found. Say where the right ones "
            "are with --base-model, or start a new run in another --output-dir."
        )
