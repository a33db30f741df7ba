"""What ends one process of a run ends all of them, with one message.

A process may wait for another however long that takes: no exchange has a limit that a slow one
could pass. Instead each tells the store they all met at, every two seconds, that it is alive. One
that no longer does, or that has said why it ends, ends the others. They come upon it at their next
exchange, or are ended where they wait; whoever is first at the store tells the message.
"""

from __future__ import annotations

import atexit
import json
import logging
import multiprocessing
import os
import platform
import select
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

from torch import distributed
from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from cliptune.errors import AlreadyTold, TrainingError
from cliptune.training.several import starting
from cliptune.training.several.sharing import LoadingErrorElsewhere

log = logging.getLogger(__name__)

BEAT = 2.0  # seconds between two signs of life
# Seconds without one after which a process is dead. Fewer once a signal asked to stop: torchrun
# sends it to the others when one died, and kills them 30 s later.
SILENT, SILENT_AFTER_A_SIGNAL = 35.0, 8.0
GRACE = 10.0  # seconds in which a process may come upon the end by itself


class Fate:
    """The signs of life of this process, and its look at those of others."""

    def __init__(self, how_to_go_on: Callable[[], str]) -> None:
        self.me, self.count = distributed.get_rank(), distributed.get_world_size()
        self.how_to_go_on = how_to_go_on
        self.store = PrefixStore(f"cliptune/{_runs_so_far()}", _connect())
        self.seen = dict.fromkeys(range(self.count), (0, time.monotonic()))
        self.by_agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        self.over = threading.Event()  # the main thread is on its way out
        self.gone = threading.Event()
        self.signalled = False
        self.told: dict[str, int] = {}
        self.thread = threading.Thread(target=self._watch, name="signs of life", daemon=True)

    def __enter__(self) -> None:
        who = f"pid {os.getpid()} on {platform.node()}"
        self.store.set(f"who/{self.me}", who)
        self.store.add(f"beat/{self.me}", 1)
        distributed.barrier()
        starting.JOINED = True
        self._heed_signals()
        self.handlers = list(logging.getLogger("cliptune").handlers)
        for handler in self.handlers:
            handler.addFilter(self._is_to_be_told)
        self.thread.start()
        atexit.register(self._fall_silent)  # a thread within torch when Python ends aborts it

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self.over.set()
        try:
            if error is None:
                with suppress(distributed.DistError, RuntimeError):  # all is done and saved
                    distributed.barrier()  # none leaves while another still needs it
                self._fall_silent()
                atexit.register(_part)
            elif isinstance(error, Exception | KeyboardInterrupt):
                self._ignore_signals()  # torchrun sends one when another process has gone
                self._end_with(error)
        finally:
            self._leave_signals()
            for handler in self.handlers:
                handler.removeFilter(self._is_to_be_told)

    # The end.

    def _end_with(self, error: BaseException) -> None:
        """Return where `error` is this process's to tell; else raise what is."""
        of_another = _is_of_another(error)
        lost = []
        if of_another or isinstance(error, KeyboardInterrupt):
            lost = self._wait_for_an_end()
        if self._said() is None:
            mine = error
            if lost:
                mine = TrainingError(self._loss(lost))
            elif of_another:
                mine = TrainingError(
                    "the exchange with the other processes of this run failed, though they seem "
                    f"alive: {' '.join(str(error).split())[:300]}. {self.how_to_go_on()}"
                )
            if self._is_first_to("end"):
                self._say(str(mine) or "interrupted", getattr(mine, "exit_code", 1))
                if mine is error:
                    return
                raise mine from error
        said = self._said(wait=GRACE) or {"process": 0, "message": str(error), "code": 1}
        self._let_speak(int(said["process"]))
        raise AlreadyTold(str(said["message"]), exit_code=int(said["code"])) from error

    def _wait_for_an_end(self) -> list[int]:
        """The processes that died; none where one told its end, or where all are alive."""
        until = time.monotonic() + SILENT_AFTER_A_SIGNAL + 2 * BEAT
        while time.monotonic() < until:
            if self._said() is not None:
                return []
            if lost := self._silent(SILENT_AFTER_A_SIGNAL):
                return lost
            time.sleep(BEAT / 4)
        return []

    def _loss(self, lost: list[int]) -> str:
        try:
            names = [f"{p} ({self.store.get(f'who/{p}').decode()})" for p in lost]
            many = "es" if len(names) > 1 else ""
            which = f"process{many} {', '.join(names)} of the {self.count} of this run"
        except (distributed.DistError, RuntimeError):
            which = "torchrun" if self.by_agent else f"process 0 of the {self.count} of this run"
        return (
            f"{which} ended without a word: killed, perhaps by the system for want of "
            f"memory, or its machine failed. The others are ended, too. {self.how_to_go_on()}"
        )

    def _say(self, message: str, code: int) -> None:
        said = {"process": self.me, "message": message, "code": code}
        with suppress(distributed.DistError, RuntimeError):
            self.store.set("said", json.dumps(said))

    def _said(self, *, wait: float = 0.0) -> dict[str, Any] | None:
        """What the first process to end said, if one did."""
        until = time.monotonic() + wait
        with suppress(distributed.DistError, RuntimeError):
            while True:
                if self.store.check(["said"]):
                    said: dict[str, Any] = json.loads(self.store.get("said"))
                    return said
                if time.monotonic() >= until:
                    return None
                time.sleep(BEAT / 10)
        return None

    def _let_speak(self, process: int) -> None:
        """Wait until `process` has gone: torchrun ends all the others when one has."""
        until = time.monotonic() + GRACE
        while time.monotonic() < until and not self._silent(1.5 * BEAT, of=process):
            time.sleep(BEAT / 10)

    def _is_first_to(self, what: str) -> bool:
        try:
            return int(self.store.add(what, 1)) == 1
        except (distributed.DistError, RuntimeError):
            return self.me == (0 if self.by_agent else 1)  # the store went with whoever kept it

    # The watch.

    def _fall_silent(self) -> None:
        self.gone.set()
        self.thread.join()

    def _watch(self) -> None:
        since: float | None = None
        while not self.gone.wait(BEAT / 2):
            try:
                self.store.add(f"beat/{self.me}", 1)
            except (distributed.DistError, RuntimeError):
                self.signalled = True
            if self.over.is_set():
                continue  # alive to the last
            ended = self._said() is not None
            patience = SILENT_AFTER_A_SIGNAL if self._was_signalled() else SILENT
            lost = [] if ended else self._silent(patience)
            if not (ended or lost):
                continue
            since = since or time.monotonic()
            if time.monotonic() - since > GRACE:
                self._end_the_main_thread(lost)

    def _end_the_main_thread(self, lost: list[int]) -> None:
        """End this process, whose main thread waits for others or is at work for long."""
        code = 1
        if lost and self._is_first_to("end"):
            message = self._loss(lost)
            self._say(message, code)
            log.error("%s", message)
        elif said := self._said(wait=BEAT):
            code = int(said["code"])
            self._let_speak(int(said["process"]))
        for worker in multiprocessing.active_children():
            worker.kill()
        os._exit(code)

    def _silent(self, patience: float, *, of: int | None = None) -> list[int]:
        """The processes that gave no sign of life for `patience` seconds.

        The first looks at all, the others at the first.
        """
        everyone = range(self.count) if self.me == 0 or self.over.is_set() else [0]
        now, silent = time.monotonic(), []
        for process in everyone if of is None else [of]:
            count, since = self.seen[process]
            try:
                beats = int(self.store.add(f"beat/{process}", 0))
            except (distributed.DistError, RuntimeError):
                beats = count  # the store has gone with the first process, or with torchrun
            if beats != count:
                self.seen[process] = beats, now
            elif now - since > patience and process != self.me:
                silent.append(process)
        return silent

    # Signals and warnings.

    def _heed_signals(self) -> None:
        """SIGTERM unwinds like Ctrl-C; the watch learns of signals whatever the main thread does.

        Training puts its own way in their place where it can save.
        """
        self.previous: dict[int, Any] | None = None
        if threading.current_thread() is threading.main_thread():
            self.waking, self.woken = socket.socketpair()
            self.waking.setblocking(False)
            self.woken.setblocking(False)
            self.fd = signal.set_wakeup_fd(self.waking.fileno(), warn_on_full_buffer=False)
            both = signal.SIGTERM, signal.SIGINT
            self.previous = {number: signal.getsignal(number) for number in both}
            signal.signal(signal.SIGTERM, signal.default_int_handler)

    def _ignore_signals(self) -> None:
        if self.previous is not None:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _leave_signals(self) -> None:
        if self.previous is not None:
            for number, handler in self.previous.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(self.fd)

    def _was_signalled(self) -> bool:
        if self.previous is not None and select.select([self.woken], [], [], 0)[0]:
            numbers = set(self.woken.recv(4096))
            self.signalled |= bool(numbers & {signal.SIGTERM, signal.SIGINT})
        return self.signalled

    def _is_to_be_told(self, record: logging.LogRecord) -> bool:
        """Whether no other process tells this: what is done, and most warnings, concern all."""
        if record.levelno < logging.WARNING:
            return self.me == 0
        if record.levelno >= logging.ERROR:
            return True
        text = record.getMessage()
        self.told[text] = self.told.get(text, 0) + 1
        return self._is_first_to(f"told/{self.told[text]}/{text}")


def _is_of_another(error: BaseException) -> bool:
    """Whether an exchange failed, as it does when another process has gone."""
    return isinstance(error, distributed.DistError | LoadingErrorElsewhere) or (
        isinstance(error, RuntimeError)
        and any(words in str(error) for words in ("gloo", "NCCL", "Connection closed by peer"))
    )


def _connect() -> Store:
    """A connection of our own: one that waits keeps others of its connection waiting."""
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return TCPStore(
        host, port, world_size=None, is_master=False, timeout=timedelta(seconds=30),
        wait_for_workers=False,
    )  # fmt: skip


def _part() -> None:
    """At the end of a process whose runs ended well: what torch asks for."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


_runs = 0


def _runs_so_far() -> str:
    """Which run of these processes this is, and after how many restarts by torchrun."""
    global _runs
    _runs += 1
    return f"{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{_runs}"
