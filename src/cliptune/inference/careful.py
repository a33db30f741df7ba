"""Reading photos in a process of its own, for those that end the process that reads them."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from cliptune.data.reading import Unreadable
from cliptune.inference.images import ImageLike, source_of
from cliptune.inference.reader import Crop, Reader
from cliptune.storage import is_address

ENDED = "reading it ended the process: its decoder crashed, or memory ran out"


@dataclass(frozen=True, kw_only=True)
class CarefulReader(Reader):
    """A `Reader` that outlives its photos: one that ends the process that reads it is unreadable.

    Photos are read one by one in a second process, which takes a few times as long.
    """

    def ahead(self, images: Iterable[ImageLike], *, most: int) -> Iterator[Crop]:
        """As of `Reader`, but for `most`: none is read in advance."""
        pool = self._pool()
        try:
            for image in images:
                try:
                    yield pool.submit(self.read, image).result()
                except BrokenProcessPool:
                    pool.shutdown()
                    pool = self._pool()
                    source = source_of(image) or f"<{type(image).__name__}>"
                    path = source if is_address(source) else Path(source)
                    yield Crop(source_of(image), Unreadable(path, ENDED))
        finally:
            pool.shutdown()

    @staticmethod
    def _pool() -> ProcessPoolExecutor:
        return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
