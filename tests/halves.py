"""Pictures that show any number of the classes, for tests of several labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from cliptune.data.multilabel import LABELS_FILE, write_labels
from conftest import COLORS

HALVES = {**COLORS, "green": (60, 160, 60)}


def make_halves(
    folder: Path, counts: dict[str, int], *, colors: dict[str, tuple[int, int, int]] = HALVES
) -> Path:
    """Pictures of which up to three quarters have the colour of a class each."""
    rng = np.random.default_rng(0)
    for split, count in counts.items():
        rows = {}
        (folder / split).mkdir(parents=True)
        for number in range(count):
            labels = sorted(rng.permutation(list(colors))[: rng.integers(0, 4)].tolist())
            pixels = np.full((48, 48, 3), 128.0)
            for place, label in enumerate(labels):
                top, left = 24 * (place // 2), 24 * (place % 2)
                pixels[top : top + 24, left : left + 24] = colors[label]
            pixels += rng.normal(0, 8, pixels.shape)
            name = f"{number:03d}.png"
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / split / name)
            rows[name] = labels
        write_labels(folder / split / LABELS_FILE, rows)
    return folder
