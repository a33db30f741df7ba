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
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

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
        if self._iterator is not None:  # of an earlier pass
            self._iterator._timeout = self.timeout
        with self._faults_in_words(), _signal_of_ended_processes_kept():
            batches = super().__iter__()
        while True:
            with self._faults_in_words():
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def _get_iterator(self) -> Any:
        return _Waiting(self) if self.num_workers else super()._get_iterator()

    @contextmanager
    def _faults_in_words(self) -> Iterator[None]:
        """Turn what is raised for the processes into `LoadingError`."""
        try:
            with loading_errors():
                yield
        except LoadingError as error:
            if error.cause.startswith("DataLoader timed out"):
                raise LoadingError(f"no answer within {self.timeout:g} s") from error
            raise
        except (ConnectionError, EOFError) as error:
            # One that was killed while it handed a batch over may still count as alive.
            if not self.num_workers or "DataLoader" in str(error):  # of the reading of a photo
                raise
            raise LoadingError(f"the connection to one was lost ({error})") from error


class _Waiting(_MultiProcessingDataLoaderIter):
    """Waits as long as it is told to, and looks after the processes every few seconds."""

    def _try_get_data(self, timeout: float = LOOK_AFTER) -> tuple[bool, Any]:
        until = time.monotonic() + timeout
        while True:
            left = max(0.0, until - time.monotonic())
            found: tuple[bool, Any] = super()._try_get_data(min(left, LOOK_AFTER))  # type: ignore[no-untyped-call]
            if found[0] or left <= LOOK_AFTER:
                return found


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
