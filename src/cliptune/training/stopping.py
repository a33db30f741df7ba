"""One run for one folder, and its end before its time: locks, signals, what is saved and said."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

from cliptune.errors import Interrupted, UserError, listing
from cliptune.files import recover
from cliptune.foreign_errors import LoadingError
from cliptune.locks import RunLock
from cliptune.model.checkpoint import list_checkpoints
from cliptune.training.run import Run
from cliptune.training.saving import draw_curves, save
from cliptune.training.several.sharing import LoadingErrorElsewhere, are_several, summed

log = logging.getLogger(__name__)

# Asked by a person, by a scheduler that ends a job, by one that warns before it does; the last is
# what Windows has for both. Not every system knows all of them.
STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGBREAK")


def refuse_in_a_starting_process() -> None:
    """Raise `UserError` where a script that trains is imported by the processes it started.

    Where the system starts processes afresh (Windows, macOS; Linux from Python 3.14 on), they
    import the script they come from, which would train once more.
    """
    # As multiprocessing itself knows it, in words too late here: the folder is locked by then.
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise UserError(
            "this script trains when it is imported, as the processes that load photos do here. "
            "Put what it does into a function, and call that below: if __name__ == '__main__':"
        )


@contextmanager
def locked(folder: Path) -> Iterator[RunLock]:
    """The lock of `folder`, held already if the folder is there; a crash's leftovers put right.

    A folder that is not there yet is made when the lock is acquired.
    """
    refuse_in_a_starting_process()
    lock = RunLock(folder)
    try:
        if folder.is_dir():
            lock.acquire()
            if lock.held:
                for pattern in ("checkpoint-*", "training_curves*"):
                    recover(folder, pattern)
        yield lock
    finally:
        lock.release()


@contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """An event that any of `STOP_SIGNALS` sets; a second Ctrl-C leaves at once.

    Inside another such context that one's event is set, too: what comes after the run must not
    begin.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    signals = [getattr(signal, name) for name in STOP_SIGNALS if hasattr(signal, name)]
    # SIGCHLD, too: while training, dead loading processes are told of where photos are awaited.
    touched = [*signals, *([signal.SIGCHLD] if hasattr(signal, "SIGCHLD") else [])]
    previous = {number: signal.getsignal(number) for number in touched}
    outer = previous[signal.SIGINT]
    others = outer.args[0] if isinstance(outer, partial) and outer.func is _request else ()
    request = partial(_request, (stop, *others))

    for number in signals:
        signal.signal(number, request)
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _request(stops: Sequence[threading.Event], number: int, frame: Any) -> None:
    """The handler of a signal that asks to stop."""
    if stops[0].is_set() and number == signal.SIGINT:
        _leave_at_once()
    elif not stops[0].is_set():
        for stop in stops:
            stop.set()
        if are_several():
            return  # torchrun sends it for the death of another, too, and then nothing is saved
        log.warning("stopping after this update, to save; Ctrl-C once more leaves at once")


def save_and_stop(run: Run) -> NoReturn:
    """Save, and say how to go on."""
    save(run, f"checkpoint-step-{run.progress.update}", None)
    if run.accelerator.is_main_process:
        draw_curves(run)
    run.accelerator.wait_for_everyone()  # where one has gone, torchrun ends the others
    raise Interrupted(how_to_go_on(run))


def save_and_fail(run: Run, error: LoadingError) -> NoReturn:
    """Save, and say which photos were waited for when the loading processes failed.

    In the other processes of the run, which save with it, `error` itself.
    """
    validating = run.progress.pending or run.progress.epoch_updates == run.updates_per_epoch
    size = run.settings.training.gradient_accumulation_steps
    run.batches.start = run.progress.epoch_updates * size
    keys = [key for batch in islice(run.batches, size) for key in batch]
    paths = [str(run.train_samples[key.photo].path) for key in keys]
    waited_for = "those of val" if validating else f"\n{listing(paths, limit=8)}"
    if run.progress.update:
        save(run, f"checkpoint-step-{run.progress.update}", None)
        run.accelerator.wait_for_everyone()
    if isinstance(error, LoadingErrorElsewhere):
        raise error
    raise LoadingError(
        error.cause,
        remedy="Lower data.num_workers (0: none), or raise data.read_timeout, and go on with "
        f"--resume. The photos waited for: {waited_for}",
    ) from error


def asked_to_stop(run: Run, stop: threading.Event) -> bool:
    """Whether any process was asked to stop: they must leave after the same update."""
    return summed([float(stop.is_set())])[0] > 0


def how_to_go_on(run: Run) -> str:
    """What is said of a run that was stopped, once all is saved."""
    output_dir = run.settings.output.output_dir
    return (
        f"stopped after update {run.progress.update}; everything is saved in {output_dir}. "
        "Go on with the same command and --resume."
    )


def after_a_loss(output_dir: Path) -> str:
    """What is said where a process of a run died, so that nothing more could be saved."""
    checkpoints = list_checkpoints(output_dir)
    if not checkpoints:
        return f"No checkpoint is in {output_dir} yet: start again with the same command."
    return (
        f"The checkpoints in {output_dir} are whole, the last {checkpoints[-1].path.name}: "
        "go on from it with the same command and --resume."
    )


def _leave_at_once() -> None:
    """End the process as it stands: all that is on the disk is whole at any moment."""
    for worker in multiprocessing.active_children():
        worker.kill()
    print("left at once; --resume goes on from the last checkpoint", file=sys.stderr, flush=True)
    os._exit(128 + signal.SIGINT)
