"""Look at image files once each: what they hold, what is wrong with them, what they look like."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from cliptune.checking.fingerprints import fingerprint
from cliptune.data.levels import find_range, is_deep
from cliptune.data.orientation import orientation
from cliptune.data.reading import TooManyPixels, open_content, read_content, to_rgb
from cliptune.errors import ImageError, ResourceError
from cliptune.language import translated as _

MAX_FILE = 512 * 2**20  # bytes; photos are smaller
# Decoded at a half, a quarter or an eighth of its size while its shorter edge stays above this.
_DECODED_EDGE = 48
CHUNK = 64  # files a process takes at a time
_MOST_PROCESSES = 61  # Windows waits for no more at once
_GREY_SPREAD = 6  # levels of 255 between the channels that compression alone can make
_BLANK_SPREAD = 8  # levels of 255 between the darkest and the brightest of 16 × 16 cells


@dataclass(frozen=True, slots=True)
class Inspected:
    """What one file holds. With a `fault`, what came to light before it."""

    path: Path
    num_bytes: int = 0
    sha256: str = ""
    fault: str = ""  # a kind of finding, or "" where it can be read
    reason: str = ""  # the fault in words
    format: str = ""  # as Pillow names it: JPEG, PNG, …
    mode: str = ""
    width: int = 0
    height: int = 0
    orientation: int = 1  # EXIF: 1 is upright
    frames: int = 1
    sixteen_bit: bool = False
    levels: str = ""  # what was taken as black and white, for grey of more than 8 bits
    grey: bool = False
    transparent: bool = False
    blank: bool = False
    hashes: NDArray[np.uint8] | None = field(default=None, repr=False)  # (V, 32)


class Inspector(Protocol):
    """Looks at files wherever it likes; results in their order."""

    def __call__(self, paths: Sequence[Path], *, progress: bool) -> list[Inspected]: ...


def inspect_all(paths: Sequence[Path], *, progress: bool = True) -> list[Inspected]:
    """`inspect` for each of `paths`, in their order, by as many processes as there are cores."""
    hidden = None if progress else True  # None: shown on a terminal only
    with tqdm(total=len(paths), desc=_("checking"), unit="img", leave=False, disable=hidden) as bar:
        results = []
        for some in _inspected(paths):
            results += some
            bar.update(len(some))
        return results


def _inspected(paths: Sequence[Path]) -> Iterator[list[Inspected]]:
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    processes = min(os.cpu_count() or 1, len(chunks) // 2, _MOST_PROCESSES)
    if processes < 2:  # starting them would take longer
        yield from map(inspect_some, chunks)
        return
    with ProcessPoolExecutor(processes) as pool:
        results = pool.map(inspect_some, chunks)
        for chunk in chunks:
            try:
                yield next(results)
            except BrokenProcessPool as error:
                raise ResourceError(
                    f"a process that reads photos was ended: memory ran out, or a file made a "
                    f"decoder crash. It was at {chunk[0]} or the {len(chunk) - 1} after it, or "
                    "soon after. Move them away and check again."
                ) from error


def inspect_some(paths: Iterable[Path]) -> list[Inspected]:
    """`inspect` for each of `paths`."""
    return [inspect(path) for path in paths]


def inspect(path: Path) -> Inspected:
    """Read the file `path` once and decode it to its last byte. Raises nothing for a bad file."""
    try:
        size = path.stat().st_size
        if size > MAX_FILE:
            return Inspected(
                path, size, fault="file_too_large", reason=f"{size:,} bytes are no photo"
            )
        content = read_content(path)
    except (OSError, ImageError) as error:
        reason = str(error) if isinstance(error, ImageError) else error.strerror
        return Inspected(path, fault="unreadable", reason=reason or "it cannot be read")
    digest = hashlib.sha256(content).hexdigest()
    try:
        return _look(path, content, digest)
    except ImageError as error:
        kind = "bomb" if isinstance(error, TooManyPixels) else _fault_kind(content, str(error))
        return Inspected(path, len(content), digest, kind, str(error))


def _look(path: Path, content: bytes, digest: str) -> Inspected:
    with open_content(content) as image:
        width, height = image.size
        format_, mode = image.format or "", image.mode
        frames = _frames(image)
        transparent = mode in ("RGBA", "LA", "PA") or "transparency" in image.info
        image.draft("RGB", (_DECODED_EDGE, _DECODED_EDGE))
        small = to_rgb(image)
        way_up = orientation(image)  # after decoding: a PNG may say it at its end
        levels = str(find_range(image)) if is_deep(image) else ""
    cells = np.asarray(small.resize((16, 16), Image.Resampling.BOX), dtype=np.int16)
    blank = bool(np.ptp(cells, axis=(0, 1)).max() < _BLANK_SPREAD)
    return Inspected(
        path, len(content), digest, format=format_, mode=mode, width=width, height=height,
        orientation=way_up, frames=frames, levels=levels,
        transparent=transparent, blank=blank,
        sixteen_bit=mode.startswith(("I", "F")) or (format_ == "PNG" and content[24:25] == b"\x10"),
        grey=bool((cells.max(axis=2) - cells.min(axis=2)).max() <= _GREY_SPREAD),
        hashes=None if blank else fingerprint(small.convert("L")),
    )  # fmt: skip


def _frames(image: Image.Image) -> int:
    """How many pictures follow one another; a camera's MPO holds one and its previews."""
    if image.format == "MPO" or not getattr(image, "is_animated", False):
        return 1
    return int(getattr(image, "n_frames", 1))


def _fault_kind(content: bytes, reason: str) -> str:
    if not content:
        return "empty_file"
    if "truncated" in reason.lower() or _has_no_end(content):
        return "truncated"
    return "unreadable"


def _has_no_end(content: bytes) -> bool:
    """Whether a JPEG or PNG lacks the marker that closes it."""
    if content.startswith(b"\xff\xd8"):
        return b"\xff\xd9" not in content[-64:]
    if content.startswith(b"\x89PNG"):
        return b"IEND" not in content[-64:]
    return False
