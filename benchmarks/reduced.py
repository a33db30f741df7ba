"""What decoding large JPEGs in part spares and changes: `Predictor(..., reduced_decoding=True)`.

    python benchmarks/reduced.py RUN --photos FOLDER [FOLDER ...]

Every tenth photo of the folders is enlarged to 4032 × 3024 (or upright), with noise of four levels,
as a JPEG of quality 90; then decoded and resized whole and in part, and answered in float32.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cliptune import Predictor
from cliptune.data.image_files import IMAGE_SUFFIXES
from cliptune.data.reading import read_image

LARGE = (4032, 3024)


def enlarged(folders: Sequence[Path], target: Path) -> list[Path]:
    """Large JPEGs of every tenth photo below `folders`."""
    rng = np.random.default_rng(0)
    photos = [
        path for folder in folders for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in IMAGE_SUFFIXES
    ]  # fmt: skip
    made = []
    for i, path in enumerate(photos[::10]):
        size = LARGE if i % 2 else LARGE[::-1]
        pixels = np.asarray(read_image(path).resize(size, Image.Resampling.BICUBIC), np.float32)
        pixels = pixels + rng.normal(0, 4, (*pixels.shape[:2], 1)).astype(np.float32)
        made.append(target / f"{i}.jpg")
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(made[-1], quality=90)
    return made


def seen(
    predictor: Predictor, paths: Sequence[Path], times: int | None
) -> tuple[NDArray[np.uint8], NDArray[np.float64], float]:
    """Crops (N, 3, H, W), probabilities (N, C), seconds a photo; decoded at `times` the edge."""
    preprocess = predictor.engine.preprocess
    started = time.perf_counter()
    crops = [
        preprocess.pixels(read_image(path, least_edge=times and times * max(preprocess.image_size)))
        for path in paths
    ]
    seconds = (time.perf_counter() - started) / len(paths)
    answers = [predictor.engine.answer(crops[i : i + 32]) for i in range(0, len(crops), 32)]
    return np.stack(crops), np.concatenate([a.probabilities_NC for a in answers]), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--photos", nargs="+", type=Path, required=True)
    given = parser.parse_args()
    predictor = Predictor(given.checkpoint, precision="float32")
    print("| decoded at no less than | ms a photo | pixels: mean, largest difference "
          "| probability, largest change | other labels |\n|---|---|---|---|---|")  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        paths = enlarged(given.photos, Path(scratch))
        whole, exact_NC, seconds = seen(predictor, paths, None)
        print(f"| whole | {1000 * seconds:.0f} | | | |")
        for times in (1, 2, 3):
            crops, found_NC, seconds = seen(predictor, paths, times)
            gap = np.abs(crops.astype(np.int16) - whole)
            other = int((found_NC.argmax(axis=1) != exact_NC.argmax(axis=1)).sum())
            print(
                f"| {times} × the model's edge | {1000 * seconds:.0f} | {gap.mean():.2f}, "
                f"{gap.max()} | {np.abs(found_NC - exact_NC).max():.4f} | {other} of {len(paths)} |"
            )


if __name__ == "__main__":
    main()
