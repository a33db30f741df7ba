"""The processes that load photos, and what is said when one fails.

Whoever iterates over a `PhotoLoader`, training or measuring, is told in the same words.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils.data import DataLoader

from cliptune.foreign_errors import LoadingError, loading_errors

LOOK_AFTER = 5.0  # seconds after which a process that is waited for is looked after


class PhotoLoader(DataLoader[Any]):
    """A `DataLoader` that raises `LoadingError` where photos are waited for, and nowhere else.

    By itself it would find a dead process out after `timeout` seconds.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """The batches."""
        lost = [w.pid for w in getattr(self._iterator, "_workers", ()) if not w.is_alive()]
        if lost:  # between two passes; starting the next would wait for them
            raise LoadingError(f"DataLoader worker (pid(s) {lost}) exited unexpectedly")
        with loading_errors(), _signal_of_ended_processes_kept():
            batches = super().__iter__()
        while True:
            with loading_errors():
                batch = self._wait_for(batches)
            if batch is None:
                return
            yield batch

    def _wait_for(self, batches: Any) -> Any:
        """The next batch, or None at the end; processes are looked after every few seconds."""
        if not self.num_workers:
            return next(batches, None)
        started = time.monotonic()
        batches._timeout = LOOK_AFTER
        try:
            while True:
                try:
                    return next(batches, None)
                except RuntimeError as error:
                    if not str(error).startswith("DataLoader timed out"):
                        raise
                    if 0 < self.timeout <= time.monotonic() - started:
                        raise LoadingError(f"no answer within {self.timeout:g} s") from error
                except (ConnectionError, EOFError) as error:
                    # One that was killed while it handed a batch over may still count as alive.
                    if "DataLoader" in str(error):  # raised by the reading of a photo
                        raise
                    raise LoadingError(f"the connection to one was lost ({error})") from error
        finally:
            batches._timeout = self.timeout


@contextmanager
def _signal_of_ended_processes_kept() -> Iterator[None]:
    """Leave SIGCHLD as it was: DataLoader has it raise wherever the main process happens to be.

    That may be in the middle of an update or of a checkpoint.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or not hasattr(signal, "SIGCHLD"):
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGCHLD) is not before:
            signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)
