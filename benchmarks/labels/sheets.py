"""Contact sheets: up to three photos in the quarters of one picture, with the labels of each.

    python benchmarks/labels/sheets.py PHOTOS OUTPUT --seed 0

PHOTOS has train/, val/ and test/ with a folder for each class; so has OUTPUT then, with a
`labels.csv` in each split. Every photo comes up once; half the sheets hold two, four in ten three,
the others one.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from cliptune.data.multilabel import LABELS_FILE, write_labels
from cliptune.data.splits import SPLITS

EDGE = 224
SIZES = (1, 2, 3)
SHARES = (0.1, 0.5, 0.4)  # of sheets of so many photos


def sheet(paths: list[Path]) -> Image.Image:
    """Up to four photos, each cut to a square, in the quarters of one picture; grey elsewhere.

    A square: CLIP sees the middle square of a picture alone.
    """
    page = Image.new("RGB", (2 * EDGE, 2 * EDGE), (128, 128, 128))
    for place, path in enumerate(paths):
        with Image.open(path) as photo:
            square = ImageOps.fit(photo.convert("RGB"), (EDGE, EDGE))
        page.paste(square, (place % 2 * EDGE, place // 2 * EDGE))
    return page


def write_split(photos: Path, output: Path, *, rng: np.random.Generator) -> int:
    """The sheets of one split, and their labels; how many there are."""
    paths = sorted(path for path in photos.rglob("*") if path.is_file())
    order = [paths[place] for place in rng.permutation(len(paths))]
    output.mkdir(parents=True)
    rows: dict[str, list[str]] = {}
    while order:
        size = min(int(rng.choice(SIZES, p=SHARES)), len(order))
        chosen, order = order[:size], order[size:]
        name = f"{len(rows):04d}.jpg"
        sheet(chosen).save(output / name, quality=90)
        rows[name] = sorted({path.parent.name for path in chosen})
    write_labels(output / LABELS_FILE, rows)
    return len(rows)


def make_sheets(photos: Path, output: Path, *, seed: int) -> None:
    """All splits of `photos` that are there, as sheets in `output`."""
    rng = np.random.default_rng(seed)
    for split in SPLITS:
        if (photos / split).is_dir():
            print(f"{split}: {write_split(photos / split, output / split, rng=rng)} sheets")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    make_sheets(options.photos, options.output, seed=options.seed)


if __name__ == "__main__":
    main()
