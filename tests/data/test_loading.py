from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cliptune.data.augment import Augmentation
from cliptune.data.folder import Sample, load_training_splits
from cliptune.data.images import Preprocess
from cliptune.data.loading import EpochBatches, PhotoDataset, make_loader, round_order
from cliptune.data.photos import LabelledPhotos, create_dataloaders
from cliptune.errors import DataError

PREPROCESS = Preprocess(
    resize=32, crop=(32, 32), resample=3, rescale=1 / 255, mean=(0.5,) * 3, std=(0.5,) * 3
)


def epoch(photos: Path, *, workers: int, number: int, start: int = 0) -> list[torch.Tensor]:
    train, _ = load_training_splits(photos, val_ratio=0.1, seed=0)
    dataset = PhotoDataset(train.samples, PREPROCESS, augmentation=Augmentation(), seed=3)
    batches = EpochBatches(len(dataset), batch_size=5, seed=3)
    batches.epoch, batches.start = number, start
    return [batch.pixels for batch in make_loader(dataset, batches=batches, num_workers=workers)]


def test_worker_count_does_not_change_an_epoch(photos: Path) -> None:
    for one, two in zip(
        epoch(photos, workers=0, number=1), epoch(photos, workers=2, number=1), strict=True
    ):
        assert torch.equal(one, two)


def test_an_epoch_can_be_picked_up_anywhere(photos: Path) -> None:
    whole = epoch(photos, workers=0, number=2)
    rest = epoch(photos, workers=0, number=2, start=3)
    assert len(rest) == len(whole) - 3
    assert all(torch.equal(a, b) for a, b in zip(whole[3:], rest, strict=True))


def test_epochs_differ_and_each_holds_every_photo_once() -> None:
    orders = [round_order(100, seed=1, view=e) for e in (0, 1)]
    assert orders[0] != orders[1]
    assert all(sorted(order) == list(range(100)) for order in orders)


@pytest.mark.parametrize("processes", [2, 3, 8])
def test_processes_share_each_batch_without_overlap(processes: int) -> None:
    """33 photos: the last batch has one, and all processes but one have none of it."""

    def batches(process: int, processes: int) -> list[list[int]]:
        sampler = EpochBatches(33, batch_size=8, seed=0, process=process, processes=processes)
        return [[key.photo for key in batch] for batch in sampler]

    shares = [batches(process, processes) for process in range(processes)]
    for whole, *parts in zip(batches(0, 1), *shares, strict=True):
        assert sorted(photo for part in parts for photo in part) == sorted(whole)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("processes", [1, 2, 3, 8])
def test_processes_measure_whole_batches_and_each_photo_once(photos: Path, processes: int) -> None:
    """24 photos by 5: five batches, which are the same however many measure them."""
    train, _ = load_training_splits(photos, val_ratio=0.1, seed=0)
    dataset = PhotoDataset(train.samples, PREPROCESS)
    found = [
        batch.indices.tolist()
        for process in range(processes)
        for batch in make_loader(dataset, batch_size=5, process=process, processes=processes)
    ]
    assert sorted(found) == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11, 12, 13, 14],
                             [15, 16, 17, 18, 19], [20, 21, 22, 23]]  # fmt: skip


def test_unreadable_image_is_named_not_replaced(photos: Path, tmp_path: Path) -> None:
    train, _ = load_training_splits(photos, val_ratio=0.1, seed=0)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff not a photo")
    samples = [*train.samples[:2], Sample(broken, 1), *train.samples[2:4]]
    (batch,) = make_loader(PhotoDataset(samples, PREPROCESS), batch_size=8)
    assert batch.indices.tolist() == [0, 1, 3, 4]
    assert batch.pixels.shape == (4, 3, 32, 32)
    assert [fault.path for fault in batch.unreadable] == [broken]


def test_tutorial_dataset_gives_pixels_and_labels(photos: Path) -> None:
    from transformers import CLIPImageProcessorPil

    processor = CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    loaders = create_dataloaders(photos, processor, batch_size=4)
    batch = next(iter(loaders.train))
    assert batch["pixel_values"].shape == (4, 3, 32, 32)
    assert batch["pixel_values"].dtype == torch.float32
    assert loaders.test is not None
    labels = [label for b in loaders.test for label in b["labels"].tolist()]
    assert labels == [0] * 4 + [1] * 4 + [2] * 4
    assert LabelledPhotos(photos, "val").class_names == ("amber", "blue", "cyan")


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_labels_follow_the_names_asked_for_in_every_split(photos: Path, split: str) -> None:
    data = LabelledPhotos(photos, split, class_names=("cyan", "unseen", "amber"))
    assert data.class_names == ("cyan", "unseen", "amber")
    for sample in data.split.samples:
        assert sample.path.parent.name == data.class_names[sample.label]
    assert data.split.missing_classes == ("unseen",)
    assert data.split.extra_classes == ("blue",)


def test_an_unknown_split_is_refused(photos: Path) -> None:
    with pytest.raises(DataError, match="split 'dev': expected one of train, val, test"):
        LabelledPhotos(photos, "dev")
