"""Fine-tune a CLIP-like model with LoRA: set up, fit, validate; `step` is one update."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice

from cliptune.config import Settings
from cliptune.data.folder import Split
from cliptune.data.loading import Batch
from cliptune.errors import Interrupted
from cliptune.evaluation.plots import best_epoch
from cliptune.foreign_errors import DISK, LoadingError, memory_errors_in_words, resource_errors
from cliptune.model.checkpoint import best_of, list_checkpoints
from cliptune.model.classifier import FittedHead
from cliptune.model.device import resolve_device
from cliptune.model.lora import trainable_share
from cliptune.timing import measured, section, step_done
from cliptune.training.head.stage import start_from_fitted_head
from cliptune.training.optim import lr_factor
from cliptune.training.reporting import (
    TrainingBar,
    TrainResult,
    epoch_line,
    epoch_row,
    log_known,
    peak_memory,
)
from cliptune.training.run import HeadLosses, Run
from cliptune.training.saving import draw_curves, save
from cliptune.training.setup import set_up
from cliptune.training.several.joining import one_fate
from cliptune.training.several.sharing import all_could_load
from cliptune.training.showing import (
    best_figures,
    keep_answers,
    show_training_photos,
    tell_what_came_of_it,
)
from cliptune.training.start import (
    agreed_start,
    as_begun,
    check_folder,
    go_on_from,
    start_afresh,
    start_trackers,
    starting_point,
    with_base_model,
)
from cliptune.training.step import refuse_unreadable_in, step
from cliptune.training.stopping import (
    after_a_loss,
    asked_to_stop,
    how_to_go_on,
    locked,
    save_and_fail,
    save_and_stop,
    stop_requests,
)
from cliptune.training.validation import leading, measure_baseline, validate

log = logging.getLogger(__name__)

# Called with the figures of each epoch, once its checkpoint is saved; what it raises ends the run.
AfterEpoch = Callable[[Mapping[str, float | None]], None]


def train(
    settings: Settings,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    profile: bool = False,
    base_model: str | None = None,
    photos: tuple[Split, Split] | None = None,
    after_epoch: AfterEpoch | None = None,
) -> TrainResult:
    """Train a classifier by `settings`; checkpoints and curves go to `output.output_dir`.

    `base_model` says where the base model lies now, in the place of `model.name`: a run goes on
    wherever it was moved to, as long as its weights are the same. `resume` goes on from the last
    whole checkpoint there; `overwrite` allows starting anew in a folder that already holds a run.
    `progress` shows a bar (or lines, off a terminal). `profile` tells where the time went, in
    `TrainResult.profile` and a trace; photos are then decoded in the main process, where they
    can be timed. `photos` are train and val in the place of those in `data.data_dir`, known to be
    readable.

    Raises `UserError` for faults of settings, data or model, before anything is written;
    `TrainingError` for a loss that is not finite, and where another process of the run died;
    `Interrupted` after Ctrl-C, SIGTERM or SIGUSR1, once all is saved; `AlreadyTold` in all
    processes but the one that tells.
    """
    if base_model is not None:
        settings = with_base_model(settings, base_model)
    output_dir = settings.output.output_dir
    check_folder("output.output_dir", output_dir)
    check_folder("output.log_dir", settings.output.log_dir)
    if profile:
        loading = settings.data.model_copy(update={"num_workers": 0})
        settings = settings.model_copy(update={"data": loading})
    with (
        one_fate(
            resolve_device(settings.hardware.device),
            how_to_go_on=partial(after_a_loss, output_dir),
        ),
        resource_errors(
            None,
            then=f", and go on with --resume: the checkpoints in {output_dir} are whole",
            numbers=DISK,
        ),
        memory_errors_in_words(settings.training.batch_size),
        locked(output_dir) as lock,
    ):
        last = agreed_start(settings.output, resume=resume, overwrite=overwrite, lock=lock)
        if last is not None:
            settings = as_begun(settings, last)
        run = set_up(settings, progress=progress, last=last, photos=photos)
        lock.acquire()
        if last is not None:
            go_on_from(run, last)
        elif run.accelerator.is_main_process:
            # Asked again: another run may have begun here before the lock was ours.
            starting_point(output_dir, resume=False, overwrite=overwrite)
            start_afresh(run)
        run.accelerator.wait_for_everyone()
        start_trackers(run, resumed=last is not None)
        trace = output_dir / "trace.json" if profile else None
        with run.trackers.until_the_end(), stop_requests() as stop, measured(trace) as watch:
            if last is None:
                show_training_photos(run)
                begin(run, progress=progress)
            stopped_early = run.has_val and fit(
                run, stop, progress=progress, after_epoch=after_epoch
            )
            if run.accelerator.is_main_process:
                draw_curves(run)
                tell_what_came_of_it(run)

    return _result(run, stopped_early=stopped_early, profile=watch.table() if watch else None)


def _result(run: Run, *, stopped_early: bool, profile: str | None) -> TrainResult:
    output_dir = run.settings.output.output_dir
    checkpoints = list_checkpoints(output_dir)
    done = run.progress
    trainable, parameters = trainable_share(run.classifier)
    return TrainResult(
        output_dir=output_dir,
        best=best_of(checkpoints),
        last=checkpoints[-1] if checkpoints else None,
        baseline_accuracy=done.baseline.get("accuracy"),
        epochs=done.epoch,
        updates=done.update,
        stopped_early=stopped_early,
        train_seconds=done.train_seconds,
        images_per_second=done.images_per_second or 0.0,
        peak_memory=peak_memory(run.accelerator.device),
        trainable_parameters=trainable,
        all_parameters=parameters,
        history=done.history,
        profile=profile,
    )


def begin(run: Run, *, progress: bool = True) -> None:
    """What comes before the first update: zero-shot CLIP on val, and the head that is fitted."""
    if run.has_val:
        run.progress.baseline = measure_baseline(run)
    run.progress.rounds = run.batches.rounds
    if run.settings.training.recipe == "head_first":
        start_from_fitted_head(run, progress=progress)
        save_fitted_head(run)


def fit(
    run: Run,
    stop: threading.Event,
    *,
    progress: bool = True,
    after_epoch: AfterEpoch | None = None,
) -> bool:
    """Train until the last epoch or until val stops improving; True for the latter."""
    settings, state = run.settings, run.progress
    num_epochs = settings.training.num_epochs
    total = num_epochs * run.updates_per_epoch
    bar = TrainingBar(
        total=total,
        done=state.update,
        num_epochs=num_epochs,
        every=settings.evaluation.logging_steps,
        shown=progress and run.accelerator.is_main_process,
    )
    with bar:
        while state.epoch < num_epochs:
            if run.gain_is_over():
                return True
            try:
                if state.pending:  # a stop fell into this update's validation
                    _between_epochs(run)
                for group, waited in _groups(run):
                    _update(run, group, waited=waited, bar=bar, total=total)
                    at_epoch_end = state.epoch_updates == run.updates_per_epoch
                    if not at_epoch_end:
                        _between_epochs(run)
                        if asked_to_stop(run, stop):
                            save_and_stop(run)
                _finish_epoch(run)
            except LoadingError as error:
                # A signal to the whole group of processes ends those that load photos, too.
                stop.wait(1)
                if not asked_to_stop(run, stop):
                    save_and_fail(run, error)
                save_and_stop(run)
            if after_epoch:
                after_epoch(state.history[-1])
            over = state.epoch == num_epochs or run.gain_is_over()
            if asked_to_stop(run, stop) and not over:
                run.accelerator.wait_for_everyone()
                raise Interrupted(how_to_go_on(run))
    return False


def save_fitted_head(run: Run) -> None:
    """Measure on val what the head says before any adapter, and save it as epoch 0."""
    if not run.has_val:
        save(run, "checkpoint-epoch-0", None)
        return
    validation = validate(run)
    run.head_losses = HeadLosses(validation.losses_N, validation.predictions.indices)
    metrics = validation.metrics
    row = epoch_row(run.progress, metrics, criterion=validation.criterion) | {"epoch": 0}
    run.progress.history.append(row)
    keep_answers(run, validation.predictions)
    log.info("%s", epoch_line(row, num_epochs=run.settings.training.num_epochs, is_best=True))
    values = {"val/loss": metrics.loss, "val/accuracy": metrics.accuracy}
    log_known(run, values | best_figures(run))
    save(run, "checkpoint-epoch-0", validation)


def _update(
    run: Run, group: Sequence[Batch], *, waited: float, bar: TrainingBar, total: int
) -> None:
    """One optimizer update from the micro-batches of `group`, with its bookkeeping.

    `waited` is how many seconds the photos were waited for: they count in the rate.
    """
    settings, state = run.settings.training, run.progress
    started = time.perf_counter()
    photos = refuse_unreadable_in(run, group)
    group = [batch for batch in group if len(batch)]
    lr = settings.learning_rate * lr_factor(
        state.update,
        warmup=math.ceil(settings.warmup_ratio * total),
        total=total,
        schedule=settings.lr_scheduler.type,
        num_cycles=settings.lr_scheduler.num_cycles,
    )
    for parameters in run.optimizer.param_groups:
        parameters["lr"] = lr
    outcome = step(run, group)
    seconds = waited + time.perf_counter() - started

    state.update += 1
    state.epoch_updates += 1
    state.photos_seen += photos
    state.train_seconds += seconds
    if outcome is None:
        bar.leave_out()
        return
    loss_sum, correct, top5_correct = outcome
    state.photos += photos
    state.loss_sum += loss_sum
    state.correct += correct
    state.top5_correct += top5_correct
    loss, accuracy, rate = loss_sum / photos, state.correct / state.photos, photos / seconds
    bar.advance(
        epoch=state.epoch + 1, update=state.update, loss=loss, accuracy=accuracy, rate=rate, lr=lr
    )
    if state.update % run.settings.evaluation.logging_steps == 0:
        values = {"train/loss": loss, "train/accuracy": accuracy}
        values |= {"train/learning_rate": lr, "train/images_per_second": rate}
        with section("logging"):
            log_known(run, values)
    step_done(photos)


def _between_epochs(run: Run) -> None:
    """Validation and checkpoints that fall on an update within an epoch."""
    state, every = run.progress, run.settings.evaluation
    validation = None
    if state.update % every.eval_steps == 0:
        state.pending = True
        validation = validate(run)
        metrics = validation.metrics
        log.info(
            "update %d  val loss %.3f  %s %.1f %%", state.update, metrics.loss, *leading(metrics)
        )
        log_known(run, {"val/loss": metrics.loss, "val/accuracy": metrics.accuracy})
        state.pending = False
    if state.update % every.save_steps == 0:
        save(run, f"checkpoint-step-{state.update}", validation)


def _finish_epoch(run: Run) -> None:
    """Validate, record the epoch, save its checkpoint, and turn to the next."""
    state = run.progress
    validation = validate(run)
    metrics = validation.metrics
    decides = validation.criterion if isinstance(run.classifier.head, FittedHead) else None
    row = epoch_row(state, metrics, criterion=decides)
    if not state.photos:
        log.warning(
            "epoch %d: not one of its %d updates could be used: the weights are those of before, "
            "and there is no training loss or accuracy. Lower training.learning_rate, or set "
            "hardware.mixed_precision to false.", state.epoch + 1, state.epoch_updates,
        )  # fmt: skip
    state.history.append(row)
    state.epoch += 1
    state.epoch_updates = state.photos = state.correct = state.top5_correct = 0
    state.loss_sum = 0.0
    is_best = best_epoch(state.history) is row
    if is_best:
        keep_answers(run, validation.predictions)
    num_epochs = run.settings.training.num_epochs
    log.info("%s", epoch_line(row, num_epochs=num_epochs, is_best=is_best))
    log_known(
        run,
        {f"epoch/{key}": value for key, value in row.items() if key not in ("epoch", "update")}
        | {"val/loss": metrics.loss, "val/accuracy": metrics.accuracy}
        | best_figures(run),
    )
    save(run, f"checkpoint-epoch-{state.epoch}", validation)


def _groups(run: Run) -> Iterator[tuple[list[Batch], float]]:
    """The micro-batches of each remaining update of the epoch, and the seconds they took."""
    size = run.settings.training.gradient_accumulation_steps
    run.batches.epoch = run.progress.epoch
    run.batches.start = run.progress.epoch_updates * size
    batches = iter(run.train_loader)
    while True:
        started, group, failed = time.perf_counter(), [], None
        try:
            group = list(islice(batches, size))
        except LoadingError as error:
            failed = error
        all_could_load(failed)
        if not group:
            return
        yield group, time.perf_counter() - started
