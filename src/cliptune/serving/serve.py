"""`cliptune serve`: from a checkpoint to a server that runs until it is told to end."""

from __future__ import annotations

import asyncio
import errno
import importlib.util
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from cliptune.errors import CliptuneError, MissingExtra, UserError
from cliptune.files import user_path
from cliptune.foreign_errors import system_reason
from cliptune.serving.keys import Keys
from cliptune.serving.limits import Limits
from cliptune.serving.worker import Loaded, Source

log = logging.getLogger(__name__)

PACKAGES = {
    "fastapi": "fastapi", "uvicorn": "uvicorn", "httptools": "httptools",
    "python_multipart": "python-multipart", "prometheus_client": "prometheus-client",
}  # fmt: skip
KEEP_ALIVE = 75  # seconds a connection may be idle; more than nginx keeps its own


def serve(
    checkpoint: Path | str,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    workers: int = 1,
    batch_size: int = 16,
    limits: Limits | None = None,
    api_key_file: Path | str | None = None,
    cors_origins: Sequence[str] = (),
    log_json: bool = False,
    on_ready: Callable[[str, Loaded], None] | None = None,
    **predictor: Any,
) -> None:
    """Answer over HTTP until SIGTERM or Ctrl-C, which let what was taken be answered.

    `workers` processes each hold the classifier; `predictor` are options of `Predictor`. SIGHUP
    has the checkpoint (of a run folder: its best) and the keys read again, without a pause.
    `on_ready` is called with the address and what answers, as soon as it does. Port 0 takes a free
    one.

    Raises `UserError` for an address that cannot be had and for a file of keys at fault,
    `CheckpointError` and the like as `Predictor` does, `MissingExtra` without the server's
    packages.
    """
    for module, package in PACKAGES.items():
        if importlib.util.find_spec(module) is None:
            raise MissingExtra(package, "serve", "cliptune serve")
    limits = limits or Limits()
    cores = os.cpu_count() or 1
    source = Source(
        checkpoint=user_path(checkpoint),
        max_pixels=limits.max_pixels,
        threads=None if workers == 1 else max(1, cores // workers),
        options={"batch_size": batch_size} | predictor,
    )
    keys = Keys(user_path(api_key_file)) if api_key_file is not None else None
    with _bound(host, port) as listening:
        _Server(
            source, listening, workers=workers, batch_size=batch_size, limits=limits, keys=keys,
            cors_origins=cors_origins, log_json=log_json, on_ready=on_ready,
        ).run()  # fmt: skip


class _Server:
    """One run of the server."""

    def __init__(
        self,
        source: Source,
        listening: socket.socket,
        *,
        workers: int,
        batch_size: int,
        limits: Limits,
        keys: Keys | None,
        cors_origins: Sequence[str],
        log_json: bool,
        on_ready: Callable[[str, Loaded], None] | None,
    ) -> None:
        import uvicorn

        from cliptune.serving.app import build_app
        from cliptune.serving.batching import Answering
        from cliptune.serving.metrics import Metrics
        from cliptune.serving.protocol import PatientProtocol

        self._source, self._listening, self._keys = source, listening, keys
        self._on_ready = on_ready
        self._failure: CliptuneError | None = None
        self._changing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        metrics = Metrics()
        self._answering = Answering(
            source, workers=workers, batch_size=batch_size, limits=limits, metrics=metrics
        )
        app = build_app(
            self._answering, limits=limits, metrics=metrics, lifespan=self._lifespan, keys=keys,
            cors_origins=cors_origins, lines=log_json,
        )  # fmt: skip
        self._uvicorn = uvicorn.Server(
            uvicorn.Config(
                app,
                http=PatientProtocol,
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE,
                timeout_graceful_shutdown=round(limits.seconds) + 5,
            )
        )

    def run(self) -> None:
        """Until a signal; raises what kept it from starting."""
        with _ended_by_signals():
            self._uvicorn.run(sockets=[self._listening])
        if self._failure is not None:
            raise self._failure

    @asynccontextmanager
    async def _lifespan(self, app: Any) -> AsyncIterator[None]:
        self._begin(self._start())
        if hasattr(signal, "SIGHUP"):
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGHUP, lambda: self._begin(self._change()))
        yield
        for task in self._tasks:
            task.cancel()
        await self._answering.end()

    def _begin(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)  # asyncio itself keeps no hold of it
        task.add_done_callback(self._tasks.discard)

    async def _start(self) -> None:
        from cliptune.serving.pool import Died

        try:
            await self._answering.start()
        except CliptuneError as error:
            self._failure = error
        except Died:
            self._failure = CliptuneError(
                "the process that loads the classifier ended: perhaps the memory does not suffice "
                "for it. Try fewer --workers."
            )
        if self._failure is not None:
            self._uvicorn.should_exit = True
        elif self._on_ready is not None and self._answering.loaded is not None:
            self._on_ready(_address(self._listening), self._answering.loaded)

    async def _change(self) -> None:
        """Read checkpoint and keys again; with a fault in them, go on with those there are."""
        from cliptune.serving.pool import Died

        async with self._changing:
            try:
                if self._keys is not None:
                    self._keys.read()
                await self._answering.change(self._source)
            except (CliptuneError, Died, OSError) as error:
                why = str(error) or "the process that loads it ended"
                log.error("SIGHUP: nothing was changed: %s", why)
            else:
                loaded = self._answering.loaded
                log.info("SIGHUP: now answering by %s", loaded.checkpoint if loaded else "none")


@contextmanager
def _bound(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens there. Raises `UserError`."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, OverflowError) as error:
        why = system_reason(error) if isinstance(error, OSError) else str(error)
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        remedy = (
            "Is another server running there? Name another port, such as --port 8001."
            if taken
            else "Expected an address of this machine, such as 127.0.0.1, or 0.0.0.0 for all of "
            "them, and a port that may be taken (below 1024: by root alone)."
        )
        raise UserError(f"--host {host} --port {port}: {why}. {remedy}") from None
    with listening:
        yield listening


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGINT and SIGTERM end what is within, and that is no failure.

    uvicorn, once it runs, takes them, lets what was taken be answered, and raises them again.
    """
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        for each in before:
            signal.signal(each, lambda *_: sys.exit(0))
        yield
    except SystemExit as stop:
        if stop.code:
            raise
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
