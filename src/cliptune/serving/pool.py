"""Worker processes: started, asked, replaced when they die or when the checkpoint changes.

Each is a `ProcessPoolExecutor` of one process, which breaks when its process dies and breaks no
other; so a photo that ends a decoder costs the requests of its batch alone.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from typing import Any, TypeVar

from cliptune.errors import CheckpointError
from cliptune.serving import worker
from cliptune.serving.worker import Answer, Fault, Loaded, Source

T = TypeVar("T")

log = logging.getLogger(__name__)

AGAIN_AFTER = 5.0  # seconds between two tries to replace a worker


class Died(Exception):
    """The worker's process ended, or was ended because it took too long."""


class Worker:
    """One process with the classifier of `source` in it. Call `load` first."""

    loaded: Loaded

    def __init__(self, source: Source) -> None:
        self._source = source
        self._pool = ProcessPoolExecutor(
            1, mp_context=multiprocessing.get_context("spawn"), initializer=worker.prepare
        )
        self._process: multiprocessing.process.BaseProcess | None = None

    async def load(self) -> None:
        """Raises `CheckpointError` with what is wrong with the checkpoint, or `Died`."""
        others = set(multiprocessing.active_children())
        loading = self._submit(worker.load, self._source)  # which starts the process
        self._process = next(iter(set(multiprocessing.active_children()) - others), None)
        loaded = await _result(loading)
        if isinstance(loaded, Fault):
            self.end()
            raise CheckpointError(loaded.message)
        self.loaded = loaded

    async def answer(self, photos: Sequence[bytes], *, top_k: int, within: float) -> list[Answer]:
        """An answer for each of `photos`, in at most `within` seconds. Raises `Died`."""
        return await self._ask_within(within, worker.answer, photos, top_k)

    async def look(self, photo: bytes, label: str | None, *, within: float) -> bytes | Fault:
        """Where it looked, as a JPEG. Raises `Died`."""
        return await self._ask_within(within, worker.look, photo, label)

    def end(self) -> None:
        """End it once it has answered what it was asked."""
        self._pool.shutdown(wait=False)

    def kill(self) -> None:
        """End it now, whatever it does."""
        if self._process is not None:
            self._process.kill()
        self.end()

    async def _ask_within(self, seconds: float, question: Callable[..., T], *about: Any) -> T:
        try:
            async with asyncio.timeout(seconds):
                return await _result(self._submit(question, *about))
        except TimeoutError:
            log.warning("a worker took longer than %g s for a batch and is replaced", seconds)
            self.kill()
            raise Died from None

    def _submit(self, question: Callable[..., T], *about: Any) -> Future[T]:
        try:
            return self._pool.submit(question, *about)
        except (BrokenExecutor, RuntimeError) as error:  # RuntimeError: it was ended meanwhile
            raise Died from error


async def _result(asked: Future[T]) -> T:
    try:
        return await asyncio.wrap_future(asked)
    except BrokenExecutor as error:
        raise Died from error


class Place:
    """Where a worker stands: the one there now, which another takes the place of when it dies."""

    def __init__(self, source: Source, on_replaced: Callable[[], None]) -> None:
        self.source, self._on_replaced = source, on_replaced
        self._worker: Worker | None = None
        self._there = asyncio.Event()
        self._replacing: asyncio.Task[None] | None = None

    @property
    def loaded(self) -> Loaded | None:
        """What stands here; None while there is no worker."""
        return self._worker.loaded if self._worker else None

    async def worker(self) -> Worker:
        """The worker, as soon as there is one."""
        while self._worker is None:
            await self._there.wait()
        return self._worker

    async def fill(self, source: Source) -> None:
        """Load `source` beside what is here, then let it answer; raises as `Worker.load` does.

        What stood here answers what it was asked, and ends.
        """
        new = Worker(source)
        try:
            await new.load()
        except BaseException:
            new.kill()
            raise
        before, self._worker, self.source = self._worker, new, source
        self._there.set()
        if before is not None:
            before.end()

    def died(self, dead: Worker) -> None:
        """Have another take the place of `dead`, unless one has already."""
        if self._worker is not dead:
            return
        self._worker = None
        self._there.clear()
        dead.end()
        self._replacing = asyncio.create_task(self._replace())

    async def _replace(self) -> None:
        while True:
            try:
                await self.fill(self.source)
            except (CheckpointError, Died, OSError) as error:
                log.error("a worker could not be replaced: %s", str(error) or "it died")
                await asyncio.sleep(AGAIN_AFTER)
            else:
                self._on_replaced()
                log.warning("a worker died and was replaced")
                return

    def end(self) -> None:
        """End what is here, and what is on its way."""
        if self._replacing is not None:
            self._replacing.cancel()
        if self._worker is not None:
            self._worker.kill()
