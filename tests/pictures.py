"""Folders of drawn pictures, each unlike the others, with nothing wrong with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from faults import encoded
from PIL import Image

CLASSES = ("akita", "beagle", "golden_retriever")


def scene(seed: int, *, size: tuple[int, int] = (180, 150)) -> Image.Image:
    """A picture with large and small shapes, as photos have them; each seed another."""
    rng = np.random.default_rng(seed)
    layers = []
    for cells, weight in ((4, 0.6), (12, 0.3), (60, 0.1)):
        pixels = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        layer = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
        layers.append(weight * np.asarray(layer, dtype=np.float32))
    return Image.fromarray(np.clip(np.sum(layers, axis=0), 0, 255).astype(np.uint8))


def plant_clean(folder: Path, *, train: int = 12, later: int = 3) -> Path:
    """`folder/{train,val,test}/<class>/`: different pictures, nothing wrong with them."""
    seed = 0
    for split, number in (("train", train), ("val", later), ("test", later)):
        for name in CLASSES:
            (folder / split / name).mkdir(parents=True)
            for i in range(number):
                seed += 1
                (folder / split / name / f"{name}_{i}.jpg").write_bytes(encoded(scene(seed)))
    return folder


def listing(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def spoil(data: Path) -> None:
    """A fault of each kind that --fix mends."""
    train, test = data / "train" / "akita", data / "test" / "akita"
    leaked = (test / "akita_0.jpg").read_bytes()
    (train / "leak.jpg").write_bytes(leaked)
    (data / "train" / "beagle" / "conflict.jpg").write_bytes((train / "akita_3.jpg").read_bytes())
    (train / "again.jpg").write_bytes((train / "akita_4.jpg").read_bytes())
    with Image.open(test / "akita_1.jpg") as image:
        (train / "small.jpg").write_bytes(encoded(image.resize((90, 75))))
    (train / "akita_5.jpg").write_bytes(b"")
    (data / "val" / "beagle" / "beagle_0.jpg").write_bytes(b"no photo")


SPOILT = {
    "train/akita/akita_3.jpg": "copies_across_classes",
    "train/akita/akita_4.jpg": "copies_in_class",
    "train/akita/akita_5.jpg": "empty_file",
    "train/akita/leak.jpg": "copies_across_splits",
    "train/akita/small.jpg": "near_across_splits",
    "train/beagle/conflict.jpg": "copies_across_classes",
    "val/beagle/beagle_0.jpg": "unreadable",
}
