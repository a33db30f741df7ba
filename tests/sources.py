"""Small sources of labelled photos for `prepare`, and what it made of them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cliptune.data.splits import SPLITS
from cliptune.preparing.prepare import PrepareResult, prepare


def photo(seed: int, *, size: tuple[int, int] = (16, 16), kind: str = "JPEG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def write(folder: Path, names: list[str]) -> Path:
    """A different photo under each of `names`."""
    for seed, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo(seed))
    return folder


def make(output_dir: Path, source: object, **options: Any) -> PrepareResult:
    return prepare(output_dir, source=source, progress=False, download=False, **options)  # type: ignore[arg-type]


def placed(folder: Path) -> dict[str, set[str]]:
    """split/class -> its files' names."""
    return {
        f"{split}/{name.name}": {path.name for path in name.iterdir()}
        for split in SPLITS
        for name in sorted((folder / split).iterdir())
    }


def contents(folder: Path) -> set[bytes]:
    return {path.read_bytes() for split in SPLITS for path in (folder / split).rglob("*.*")}


def contents_of(folder: Path) -> set[bytes]:
    return {path.read_bytes() for path in folder.rglob("*.jpg")}
