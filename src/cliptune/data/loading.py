"""Batches of photos in a seeded order that any place in an epoch can be picked up from.

The order of an epoch depends on (seed, epoch) alone, and a photo's augmentation on
(seed, epoch, its index) alone: neither the number of workers nor a restart changes them.
"""

from __future__ import annotations

import logging
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Sampler

from cliptune.data.augment import Augmentation
from cliptune.data.decoded import DecodedPhotos, open_store
from cliptune.data.folder import Sample
from cliptune.data.images import Preprocess
from cliptune.data.processes import PhotoLoader
from cliptune.data.reading import Unreadable, read_image, read_reduced
from cliptune.errors import ImageError
from cliptune.timing import section

log = logging.getLogger(__name__)


class Key(NamedTuple):
    """Which photo, in which of its views: what a sampler hands to the dataset.

    `turn` counts from 0 how often the photo came in this round before.
    """

    view: int
    photo: int
    turn: int = 0


class Item(NamedTuple):
    """One photo: uint8 pixels (3, H, W), its label, its place in the dataset, its view."""

    pixels: torch.Tensor
    label: int
    photo: int
    view: int


@dataclass
class Batch:
    """Photos that could be read, with their labels; and those that could not.

    `pixels`: uint8 (B, 3, H, W). `labels` and `indices` (places in the dataset): int64 (B,).
    All are in the same `view`, counted from 0 over the run.
    """

    pixels: torch.Tensor
    labels: torch.Tensor
    indices: torch.Tensor
    unreadable: list[Unreadable]
    view: int = 0

    def __len__(self) -> int:
        return len(self.labels)

    def cut(self, pieces: int) -> list[Batch]:
        """The readable photos in at most `pieces` batches of nearly the same size."""
        columns = (x.chunk(pieces) for x in (self.pixels, self.labels, self.indices))
        return [
            Batch(pixels, labels, indices, [], self.view)
            for pixels, labels, indices in zip(*columns, strict=True)
        ]

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory; DataLoader calls this."""
        return replace(
            self,
            pixels=self.pixels.pin_memory(),
            labels=self.labels.pin_memory(),
            indices=self.indices.pin_memory(),
        )


class PhotoDataset(Dataset[Item | Unreadable]):
    """Photos decoded and brought to the model's size, augmented where `augmentation` is given.

    `alter`, for measuring only, makes another image of an RGB image and its index before it is
    resized; worker processes get a pickled copy of it.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        preprocess: Preprocess,
        *,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        alter: Callable[[Image.Image, int], Image.Image] | None = None,
    ) -> None:
        assert augmentation is None or alter is None, "views for training are not altered"
        self.samples = samples
        self.store: DecodedPhotos | None = None
        self.preprocess = preprocess
        self.augmentation = augmentation
        self.seed = seed
        self.alter = alter

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: Key | int) -> Item | Unreadable:
        """The photo, or what is wrong with its file."""
        view, index, turn = key if isinstance(key, Key) else Key(0, key)
        sample = self.samples[index]
        image_HWC = self.store[index] if self.store is not None else None
        try:
            if image_HWC is None:
                with section("decode"):
                    image_HWC = self._decode(sample.path, index)
        except ImageError as error:
            return Unreadable(sample.path, str(error))
        if self.augmentation is None:
            pixels = np.ascontiguousarray(image_HWC.transpose(2, 0, 1))
        else:
            views = self.augmentation.views
            drawn = (view % views, index, 0) if views else (view, index, turn)
            # numpy fills up with zeros: a turn of 0 draws as if it were not there.
            rng = np.random.default_rng([self.seed, *drawn])
            with section("augment"):
                pixels = self.augmentation.pixels(image_HWC, self.preprocess, rng)
        return Item(torch.from_numpy(pixels), sample.label, index, view)

    def decode(self, path: Path) -> NDArray[np.uint8]:
        """(H, W, 3) uint8: all that is the same in every epoch. Raises `ImageError`."""
        if self.augmentation is None:
            return np.array(self.preprocess.view(read_image(path)))
        edge = self.augmentation.room(self.preprocess)
        return read_reduced(path, edge=edge, resample=self.preprocess.resample)

    def _decode(self, path: Path, index: int) -> NDArray[np.uint8]:
        if self.alter is None:
            return self.decode(path)
        return np.array(self.preprocess.view(self.alter(read_image(path), index)))

    def keep_decoded(
        self,
        cache_dir: Path,
        *,
        limit_bytes: int,
        beside: Sequence[DecodedPhotos] = (),
        progress: bool = True,
    ) -> None:
        """Decode every photo once into a store in `cache_dir`; nothing else changes."""
        assert self.alter is None, "a store holds photos as they are"
        self.store = open_store(
            [sample.path for sample in self.samples],
            self.decode,
            recipe=self._recipe(),
            cache_dir=cache_dir,
            limit_bytes=limit_bytes,
            pixels_each=self._num_pixels,
            beside=beside,
            progress=progress,
        )

    def _recipe(self) -> str:
        if self.augmentation is None:
            preprocess = self.preprocess
            return f"view {preprocess.resize} {preprocess.crop} {preprocess.resample}"
        return f"reduced {self.augmentation.room(self.preprocess)} {self.preprocess.resample}"

    def _num_pixels(self, width: int, height: int) -> int:
        if self.augmentation is None:
            return int(np.prod(self.preprocess.image_size))
        factor = min(1.0, self.augmentation.room(self.preprocess) / min(width, height))
        return round(width * factor) * round(height * factor)


def collate(items: Sequence[Item | Unreadable]) -> Batch:
    """One batch of the readable items, in their order."""
    unreadable = [item for item in items if isinstance(item, Unreadable)]
    readable = [item for item in items if isinstance(item, Item)]
    pixels, labels, indices, views = zip(*readable, strict=True) if readable else ((), (), (), (0,))
    return Batch(
        torch.stack(pixels) if pixels else torch.empty(0, 3, 0, 0, dtype=torch.uint8),
        torch.tensor(labels, dtype=torch.int64),
        torch.tensor(indices, dtype=torch.int64),
        unreadable,
        views[0],
    )


def round_order(num_samples: int, *, seed: int, view: int) -> list[int]:
    """A permutation of range(num_samples) that depends on (seed, view) alone."""
    order: list[int] = np.random.default_rng([seed, view]).permutation(num_samples).tolist()
    return order


def balanced_order(labels_N: Sequence[int], *, seed: int, view: int) -> list[int]:
    """N photos, each class equally often to within one, that depend on (seed, view) alone.

    Of a class with too many photos chance takes some, another part in each round; the photos of
    one with too few come equally often, to within one.
    """
    rng = np.random.default_rng([seed, view])
    classes = rng.permutation(np.unique(labels_N))  # the first of them get what is left over
    each, more = divmod(len(labels_N), len(classes))
    chosen = [
        np.resize(rng.permutation(np.flatnonzero(np.equal(labels_N, label))), each + (place < more))
        for place, label in enumerate(classes)
    ]
    order: list[int] = rng.permutation(np.concatenate(chosen)).tolist()
    return order


def in_turns(order: Sequence[int]) -> list[tuple[int, int]]:
    """(photo, how often it came before) for each photo of `order`."""
    seen: Counter[int] = Counter()
    turns = []
    for photo in order:
        turns.append((photo, seen[photo]))
        seen[photo] += 1
    return turns


class EpochBatches(Sampler[list[Key]]):
    """The batches of one epoch at a time: set `epoch` and `start` before iterating.

    An epoch goes through all photos `rounds` times, each time in another order and view; a batch
    is of one round. With `balanced`, the label of each photo, a round has as many photos, and
    classes come equally often. `start` is the batch to begin with, for going on in the middle of an
    epoch. With several processes, each takes every `processes`-th photo of each batch, so that
    their number does not change which photos share an update; of a batch of fewer photos than
    processes, some take none.
    """

    def __init__(
        self,
        num_samples: int,
        *,
        batch_size: int,
        seed: int,
        balanced: Sequence[int] | None = None,
        rounds: int = 1,
        process: int = 0,
        processes: int = 1,
    ) -> None:
        self.num_samples = num_samples
        self.balanced = balanced
        self.batch_size = batch_size
        self.rounds = rounds
        self.seed = seed
        self.process = process
        self.processes = processes
        self.epoch = 0
        self.start = 0

    def __len__(self) -> int:
        return self.rounds * -(-self.num_samples // self.batch_size)

    def __iter__(self) -> Iterator[list[Key]]:
        of_round = len(self) // self.rounds
        for batch in range(self.start, len(self)):
            view, place = self.epoch * self.rounds + batch // of_round, batch % of_round
            if place == 0 or batch == self.start:
                turns = self._turns(view)
            members = turns[place * self.batch_size : (place + 1) * self.batch_size]
            yield [Key(view, *member) for member in members[self.process :: self.processes]]

    def _turns(self, view: int) -> list[tuple[int, int]]:
        """(photo, how often it came before) of a round."""
        if self.balanced is None:
            return in_turns(round_order(self.num_samples, seed=self.seed, view=view))
        return in_turns(balanced_order(self.balanced, seed=self.seed, view=view))


def in_order(num_samples: int, batch_size: int) -> list[list[int]]:
    """The places of all samples, in batches."""
    places = list(range(num_samples))
    return [places[at : at + batch_size] for at in range(0, num_samples, batch_size)]


def make_loader(
    dataset: PhotoDataset,
    *,
    batches: EpochBatches | None = None,
    batch_size: int | None = None,
    process: int = 0,
    processes: int = 1,
    num_workers: int = 0,
    pin_memory: bool = False,
    read_timeout: int = 0,
) -> DataLoader[Any]:
    """A loader over `batches`, or over all photos in their order, `batch_size` at a time.

    Of several processes each takes every `processes`-th of these batches, whole: what is said of a
    photo does not depend on their number, to the bit. Worker processes stay alive between epochs.
    No more are started than the machine has cores, or a pass has batches.
    """
    cores = os.cpu_count() or 1
    if num_workers > cores:
        log.debug(
            "num_workers %d: this machine has %d cores; starting %d", num_workers, cores, cores
        )
        num_workers = cores
    shares = batches if batches else in_order(len(dataset), batch_size or 1)[process::processes]
    num_workers = min(num_workers, max(1, len(shares)))
    return PhotoLoader(
        dataset,
        batch_sampler=shares,
        collate_fn=collate,
        num_workers=num_workers,
        timeout=read_timeout if num_workers else 0,
        persistent_workers=num_workers > 0,
        # Without one of its own, each pass over a loader draws from torch's global generator.
        generator=torch.Generator(),
        worker_init_fn=_leave_interrupts_to_the_main_process,
        pin_memory=pin_memory and torch.cuda.is_available(),
    )


def _leave_interrupts_to_the_main_process(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal; the main one decides when to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
