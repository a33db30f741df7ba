"""Requests wait here, and are answered together: as many photos at a time as came meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from cliptune.serving.limits import Limits, Refused, busy, not_now
from cliptune.serving.metrics import Metrics
from cliptune.serving.pool import Died, Place
from cliptune.serving.worker import Answer, Fault, Loaded, Source

# A batch is closed as soon as no request came for so long, in seconds: what arrives together is
# answered together, and a photo alone hardly waits.
PAUSE = 0.002
LONGEST_PAUSE = 0.01
# A picture of where it looked takes as long as many answers, which wait for it.
MOST_LOOKS = 4
AHEAD = 2  # batches that a worker has at a time, so that it need not wait for the next


@dataclass(frozen=True, eq=False)
class Waiting:
    """A request: its photos, and where the answers go."""

    photos: Sequence[bytes]
    top_k: int
    answers: asyncio.Future[tuple[list[Answer], Loaded]]


class Answering:
    """Workers and the requests that wait for them."""

    def __init__(
        self, source: Source, *, workers: int, batch_size: int, limits: Limits, metrics: Metrics
    ) -> None:
        self._limits, self._metrics, self._batch_size = limits, metrics, batch_size
        self._places = [Place(source, metrics.worker_replaced) for _ in range(workers)]
        self._waiting: deque[Waiting] = deque()
        self._arrived = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._looking = 0

    @property
    def loaded(self) -> Loaded | None:
        """What answers now; None before the first worker is there, and while there is none."""
        return next((place.loaded for place in self._places if place.loaded), None)

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return len(self._waiting)

    async def start(self) -> None:
        """Load the workers, one after the other; the first answers while the next are loaded.

        Raises `CheckpointError` or `Died`.
        """
        for place in self._places:
            await place.fill(place.source)
            self._tasks += [asyncio.create_task(self._serve(place)) for _ in range(AHEAD)]

    async def change(self, source: Source) -> None:
        """Answer by `source` from now on, one worker after the other.

        Raises `CheckpointError` or `Died`, and goes on with what there is.
        """
        for place in self._places:
            await place.fill(source)

    async def end(self) -> None:
        """End the workers."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for place in self._places:
            place.end()

    async def answer(self, photos: Sequence[bytes], *, top_k: int) -> tuple[list[Answer], Loaded]:
        """An answer for each of `photos`, and who gave it.

        Raises `Refused` when too many wait or the worker died, and after the limit's seconds.
        """
        if len(self._waiting) >= self._limits.max_waiting:
            raise busy(f"{self._limits.max_waiting} requests are waiting already")
        entry = Waiting(photos, top_k, asyncio.get_running_loop().create_future())
        self._waiting.append(entry)
        self._arrived.set()
        try:
            async with asyncio.timeout(self._limits.seconds):
                return await entry.answers
        except TimeoutError:
            raise self._late() from None
        finally:  # nobody waits for it any more
            entry.answers.cancel()
            with contextlib.suppress(ValueError):
                self._waiting.remove(entry)

    async def look(self, photo: bytes, label: str | None) -> tuple[bytes, Loaded]:
        """Where the classifier looked, as a JPEG. Raises `Refused`."""
        if self._looking >= MOST_LOOKS:
            raise busy(f"{MOST_LOOKS} such pictures are being made already")
        place = next((place for place in self._places if place.loaded), self._places[0])
        self._looking += 1
        try:
            async with asyncio.timeout(self._limits.seconds):
                worker = await place.worker()
                found = await worker.look(photo, label, within=2 * self._limits.seconds)
        except TimeoutError:
            raise self._late() from None
        except Died:
            place.died(worker)
            raise _died() from None
        finally:
            self._looking -= 1
        if isinstance(found, Fault):
            raise Refused(found.status, found.message)
        return found, worker.loaded

    async def _serve(self, place: Place) -> None:
        """Have the worker of `place` answer batch after batch."""
        while True:
            await place.worker()
            batch = await self._take()
            worker = await place.worker()  # perhaps another by now
            photos = [photo for entry in batch for photo in entry.photos]
            self._metrics.batch(len(photos))
            try:
                found = await worker.answer(
                    photos, top_k=max(entry.top_k for entry in batch),
                    within=2 * self._limits.seconds,
                )  # fmt: skip
            except Died:
                place.died(worker)
                for entry in batch:
                    if not entry.answers.done():
                        entry.answers.set_exception(_died())
                continue
            answers = iter(found)
            for entry in batch:
                own = [_cut(next(answers), entry.top_k) for _ in entry.photos]
                if not entry.answers.done():
                    entry.answers.set_result((own, worker.loaded))

    async def _take(self) -> list[Waiting]:
        """The next requests, one or more, with a batch of photos together or somewhat more.

        No more than a worker's share of those that wait: another one may be idle.
        """
        while True:
            await self._arrived.wait()
            await self._pause()
            share = math.ceil(self._waiting_photos() / len(self._places))
            batch: list[Waiting] = []
            photos = 0
            while self._waiting and photos < min(self._batch_size, max(1, share)):
                entry = self._waiting.popleft()
                if not entry.answers.done():
                    batch.append(entry)
                    photos += len(entry.photos)
            if not self._waiting:
                self._arrived.clear()
            if batch:
                return batch

    def _waiting_photos(self) -> int:
        return sum(len(entry.photos) for entry in self._waiting)

    async def _pause(self) -> None:
        """Wait while requests keep arriving, and a batch is not full."""
        before, pauses = 0, round(LONGEST_PAUSE / PAUSE)
        while before < (waiting := self._waiting_photos()) < self._batch_size and pauses:
            before, pauses = waiting, pauses - 1
            await asyncio.sleep(PAUSE)

    def _late(self) -> Refused:
        return Refused(
            504, f"there was no answer within {self._limits.seconds:g} seconds. Try again later."
        )


def _died() -> Refused:
    return not_now("the process that was answering ended")


def _cut(answer: Answer, top_k: int) -> Answer:
    """`answer` with the classes its request asked for; others of its batch may ask for more."""
    return answer if isinstance(answer, Fault) else answer | {"scores": answer["scores"][:top_k]}
