"""TensorBoard's event files of one run, so that a resumed run neither doubles nor loses a point.

A checkpoint notes how long each file was. Going on from it, the files are cut back to that: what
was logged after the checkpoint is logged again. Files are the run's by their ending, made from the
place of its output folder; those of other runs in the same log folder are never touched.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from cliptune.files import sync


class EventFiles:
    """The event files below `folder` whose names end in this run's mark."""

    def __init__(self, folder: Path, output_dir: Path) -> None:
        self.folder = folder
        place = os.fsencode(output_dir.resolve())
        self.ending = f".{hashlib.sha256(place).hexdigest()[:12]}"

    def sizes(self) -> dict[str, int]:
        """Name and bytes of each file, flushed to the disk first.

        A disk that fails under curves keeps no checkpoint from being saved.
        """
        found = {}
        for path in self._files():
            with suppress(OSError):
                found[path.name] = path.stat().st_size
                sync(path)
        return found

    def cut_back(self, sizes: dict[str, int]) -> None:
        """Leave of the run's files what there was when `sizes` were taken; nothing for none."""
        for path in self._files():
            size = sizes.get(path.name)
            if size is None:
                path.unlink()
            elif path.stat().st_size > size:
                os.truncate(path, size)

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob(f"*tfevents*{self.ending}"))
