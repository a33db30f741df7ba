"""Labelled photos as a plain PyTorch dataset, for training loops of one's own.

cliptune's own loop works on `cliptune.data.loading`; this is the same data in the form tutorials
use: one dictionary with `pixel_values` and `labels`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from cliptune.data.augment import Augmentation
from cliptune.data.folder import Split, load_split, load_training_splits, relabelled
from cliptune.data.images import Preprocess
from cliptune.data.reading import read_image
from cliptune.data.splits import check_split, split_folders
from cliptune.errors import ImageError
from cliptune.storage import local_folder

# OpenAI's CLIP at 224 pixels (github.com/openai/CLIP, clip.py): used where no processor is given.
OPENAI_CLIP = Preprocess(
    resize=224,
    crop=(224, 224),
    resample=3,
    rescale=1 / 255,
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
)


class LabelledPhoto(TypedDict):
    """One photo as float32 (3, H, W), normalised, and its label."""

    pixel_values: torch.Tensor
    labels: int


class LabelledPhotos(Dataset[LabelledPhoto]):
    """One split of `data_dir/{train,val,test}/<class>/*.jpg`.

    Items are `{"pixel_values": float32 (3, H, W), "labels": int}`. `processor` is a
    `transformers` image processor or a `Preprocess`; `augmentation` draws random views.
    `class_names` fixes the order of labels; without it, that of train's sorted folder names.

    Raises `DataError` for a missing or empty folder; reading a photo that cannot be decoded
    raises `ImageError` with its path.
    """

    def __init__(
        self,
        data_dir: str | Path,
        split: str = "train",
        processor: Any = None,
        *,
        augmentation: Augmentation | None = None,
        class_names: tuple[str, ...] | None = None,
        val_ratio: float = 0.1,
        seed: int = 42,
    ) -> None:
        self.split = _find_split(
            local_folder(data_dir), split, class_names=class_names, val_ratio=val_ratio, seed=seed
        )
        self.preprocess = _as_preprocess(processor)
        self.augmentation = augmentation

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names that labels index."""
        return self.split.class_names

    def __len__(self) -> int:
        return len(self.split.samples)

    def __getitem__(self, index: int) -> LabelledPhoto:
        sample = self.split.samples[index]
        try:
            image = read_image(sample.path)
            if self.augmentation is None:
                pixels = self.preprocess.pixels(image)
            else:
                # Of torch's generator, which differs between workers and epochs.
                seed = int(torch.randint(2**63 - 1, ()))
                rng = np.random.default_rng(seed)
                pixels = self.augmentation.pixels(np.array(image), self.preprocess, rng)
        except ImageError as error:
            raise ImageError(f"{sample.path}: {error}") from None
        pixels_BCHW = self.preprocess.normalize(torch.from_numpy(pixels)[None])
        return {"pixel_values": pixels_BCHW[0], "labels": sample.label}


class Loaders(NamedTuple):
    """Batches of each split; `test` is None where the folder has none."""

    train: DataLoader[Any]
    val: DataLoader[Any]
    test: DataLoader[Any] | None


def create_dataloaders(
    data_dir: str | Path,
    processor: Any = None,
    *,
    batch_size: int = 32,
    num_workers: int = 0,
    augmentation: Augmentation | None = None,
    seed: int = 42,
) -> Loaders:
    """Loaders of `{"pixel_values": float32 (B, 3, H, W), "labels": int64 (B,)}`; train shuffled."""
    folder = local_folder(data_dir)
    train = LabelledPhotos(folder, "train", processor, augmentation=augmentation, seed=seed)
    names = train.class_names
    val = LabelledPhotos(folder, "val", processor, class_names=names, seed=seed)
    load = partial(DataLoader[Any], batch_size=batch_size, num_workers=num_workers)
    test = None
    if "test" in split_folders(folder):
        test_set = LabelledPhotos(folder, "test", processor, class_names=names, seed=seed)
        test = load(test_set)
    generator = torch.Generator().manual_seed(seed)
    return Loaders(
        load(train, shuffle=True, generator=generator),
        load(val),
        test,
    )


def _find_split(
    data_dir: Path,
    split: str,
    *,
    class_names: tuple[str, ...] | None,
    val_ratio: float,
    seed: int,
) -> Split:
    check_split(split)
    if split == "test" and class_names is not None:
        return load_split(data_dir, split, class_names=class_names)
    train, val = load_training_splits(data_dir, val_ratio=val_ratio, seed=seed)
    if split == "test":
        return load_split(data_dir, split, class_names=train.class_names)
    found = {"train": train, "val": val}[split]
    return found if class_names is None else relabelled(found, class_names)


def _as_preprocess(processor: Any) -> Preprocess:
    if processor is None:
        return OPENAI_CLIP
    if isinstance(processor, Preprocess):
        return processor
    # A processor of images and texts together carries the one for images inside.
    return Preprocess.from_processor(getattr(processor, "image_processor", processor))
