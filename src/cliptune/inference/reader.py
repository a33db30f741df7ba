"""From images as people have them to the crops that a classifier sees, by threads, ahead of time.

Shape suffixes: H height, W width.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cliptune.data.images import Preprocess
from cliptune.data.reading import TooManyPixels, Unreadable
from cliptune.errors import ImageError
from cliptune.inference.images import ImageLike, source_of, to_image
from cliptune.storage import is_address
from cliptune.timing import section

# Pixels of a reduced decoding for each the model sees, along an edge: at 1, resized photos differed
# by up to 7 levels of 255 and probabilities by 0.022; at 2 by 2 levels and 0.011, as at 3.
OVERSAMPLING = 2
FETCHED_AT_ONCE = 16  # photos of a storage: a thread waits for each


class Crop(NamedTuple):
    """What the model sees of an image: uint8 pixels (3, H, W), or what is wrong with it instead.

    `source` is its path, where it came from one.
    """

    source: str | None
    pixels: NDArray[np.uint8] | Unreadable


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Reads images as the classifier of `preprocess` sees them.

    `threads` is how many read at once (None: one to a core, sixteen where the first is an address).
    """

    preprocess: Preprocess
    reduced_decoding: bool = False
    threads: int | None = None

    def read(self, image: ImageLike) -> Crop:
        """What the model sees of `image`; a fault of the image is a result, not an error."""
        source = source_of(image)
        try:
            with section("decode"):
                rgb = to_image(image, least_edge=self._least_edge)
        except ImageError as error:
            path: Path | str = source or f"<{type(image).__name__}>"
            path = path if is_address(path) else Path(path)
            return Crop(source, Unreadable(path, str(error), isinstance(error, TooManyPixels)))
        with section("resize"):
            return Crop(source, self.preprocess.pixels(rgb))

    def ahead(self, images: Iterable[ImageLike], *, most: int) -> Iterator[Crop]:
        """`read` of each of `images`, in their order, never more than `most` in advance."""
        pending: deque[Future[Any]] = deque()
        source = iter(images)
        first = list(islice(source, 1))
        source = chain(first, source)
        with ThreadPoolExecutor(self._threads_for(first)) as pool:
            try:
                while True:
                    pending.extend(
                        pool.submit(self.read, image)
                        for image in islice(source, most - len(pending))
                    )
                    if not pending:
                        return
                    yield pending.popleft().result()
            finally:
                for future in pending:
                    future.cancel()

    def _threads_for(self, first: Sequence[ImageLike]) -> int:
        fetched = bool(first) and isinstance(first[0], str | Path) and is_address(first[0])
        return self.threads or (FETCHED_AT_ONCE if fetched else os.cpu_count() or 1)

    @property
    def _least_edge(self) -> int | None:
        """How short the shorter edge of a photo may be decoded; None for not reduced."""
        resize = self.preprocess.resize
        edges = [edge for edge in (resize if isinstance(resize, tuple) else (resize,)) if edge]
        return OVERSAMPLING * max(edges) if self.reduced_decoding and edges else None
