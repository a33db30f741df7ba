"""Batches and the loaders that make them: sizes, seeds and settings."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cliptune.data.augment import Augmentation
from cliptune.data.folder import Sample
from cliptune.data.images import Preprocess
from cliptune.data.loading import (
    Batch,
    EpochBatches,
    Item,
    Key,
    PhotoDataset,
    collate,
    make_loader,
    round_order,
)
from cliptune.data.reading import Unreadable
from cliptune.timing import measured

PREPROCESS = Preprocess(
    resize=16, crop=(16, 16), resample=3, rescale=1 / 255, mean=(0.5,) * 3, std=(0.5,) * 3
)


def dataset(folder: Path, *, count: int = 3, **options: object) -> PhotoDataset:
    rng = np.random.default_rng(0)
    samples = []
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(folder / f"{i}.png")
        samples.append(Sample(folder / f"{i}.png", i % 2))
    return PhotoDataset(samples, PREPROCESS, **options)  # type: ignore[arg-type]


def batch_of(count: int) -> Batch:
    return collate(
        [Item(torch.full((3, 2, 2), i, dtype=torch.uint8), i + 10, i, 0) for i in range(count)]
    )


def test_a_batch_keeps_the_order_of_what_could_be_read() -> None:
    fault = Unreadable(Path("x"), "damaged")
    pixels = torch.zeros(3, 2, 4, dtype=torch.uint8)
    batch = collate([Item(pixels, 7, 3, 0), fault, Item(pixels + 1, 5, 9, 0)])
    assert len(batch) == 2
    assert batch.pixels.shape == (2, 3, 2, 4)
    assert batch.pixels[:, 0, 0, 0].tolist() == [0, 1]
    assert (batch.labels.tolist(), batch.indices.tolist()) == ([7, 5], [3, 9])
    assert batch.unreadable == [fault]
    none = collate([fault])
    assert (len(none), none.pixels.shape, none.unreadable) == (0, (0, 3, 0, 0), [fault])
    assert none.pixels.dtype == torch.uint8
    assert {x.dtype for b in (batch, none) for x in (b.labels, b.indices)} == {torch.int64}


@pytest.mark.parametrize(("photos", "pieces"), [(7, 3), (6, 2), (2, 5), (4, 1)])
def test_a_cut_batch_holds_the_same_photos_in_nearly_equal_pieces(photos: int, pieces: int) -> None:
    whole = batch_of(photos)
    parts = whole.cut(pieces)
    assert len(parts) <= pieces
    assert max(map(len, parts)) == -(-photos // pieces)
    for name in ("pixels", "labels", "indices"):
        assert torch.equal(torch.cat([getattr(p, name) for p in parts]), getattr(whole, name))
    assert [part.unreadable for part in parts] == [[]] * len(parts)


def test_the_order_depends_on_seed_and_epoch_and_on_both() -> None:
    orders = [round_order(50, seed=s, view=e) for s, e in ((1, 2), (2, 1), (1, 3), (2, 2))]
    assert all(orders[i] != orders[j] for i in range(4) for j in range(i))
    assert round_order(50, seed=1, view=2) == orders[0]


def test_batches_are_the_order_cut_and_start_where_they_are_told() -> None:
    batches = EpochBatches(11, batch_size=4, seed=5)
    assert (batches.epoch, batches.start, len(batches)) == (0, 0, 3)
    for batches.epoch in (0, 2):
        order = round_order(11, seed=5, view=batches.epoch)
        found = list(batches)
        assert [len(batch) for batch in found] == [4, 4, 3]
        assert [key for batch in found for key in batch] == [Key(batches.epoch, i) for i in order]
    batches.start = 2
    assert list(batches) == found[2:]


def test_processes_take_turns_in_a_batch() -> None:
    shares = []
    for process in range(3):
        (batch,) = EpochBatches(5, batch_size=5, seed=0, process=process, processes=3)
        shares.append([key.photo for key in batch])
    order = round_order(5, seed=0, view=0)
    assert shares == [[order[0], order[3]], [order[1], order[4]], [order[2]]]


def test_views_come_again_after_so_many_epochs_and_not_before(tmp_path: Path) -> None:
    def views(**options: object) -> list[bytes]:
        photos = dataset(tmp_path, **options)
        return [photos[Key(epoch, 1)][0].numpy().tobytes() for epoch in range(4)]

    endless = views(augmentation=Augmentation(views=0), seed=1)
    assert len(set(endless)) == 4
    two = views(augmentation=Augmentation(views=2), seed=1)
    assert two == endless[:2] * 2
    assert views(augmentation=Augmentation(views=0), seed=2)[0] not in endless
    photos = dataset(tmp_path, augmentation=Augmentation(), seed=1)
    assert torch.equal(photos[1][0], photos[Key(0, 1)][0])  # without an epoch: the first
    assert not torch.equal(photos[1][0], photos[2][0])


def test_without_augmentation_every_epoch_is_the_same_and_photos_are_channels_first(
    tmp_path: Path,
) -> None:
    photos = dataset(tmp_path)
    pixels, label, index, _ = photos[Key(3, 1)]
    assert (label, index, pixels.dtype) == (1, 1, torch.uint8)
    expected = PREPROCESS.view(Image.open(photos.samples[1].path).convert("RGB"))
    assert np.array_equal(pixels.permute(1, 2, 0).numpy(), np.array(expected))
    assert torch.equal(pixels, photos[1][0])


def test_an_altered_photo_is_altered_by_its_own_index(tmp_path: Path) -> None:
    def grey(image: Image.Image, index: int) -> Image.Image:
        return Image.new("RGB", image.size, (100 + index,) * 3)

    photos = dataset(tmp_path, alter=grey)
    assert [int(photos[i][0].float().mean()) for i in range(3)] == [100, 101, 102]


def test_a_store_keeps_what_is_decoded_whichever_view_is_taken(tmp_path: Path) -> None:
    for augmentation in (None, Augmentation()):
        photos = dataset(tmp_path, augmentation=augmentation, seed=3)
        before = [photos[Key(1, i)][0] for i in range(3)]
        photos.keep_decoded(tmp_path / "cache", limit_bytes=10**7, progress=False)
        assert photos.store is not None
        for i in range(3):
            assert torch.equal(photos[Key(1, i)][0], before[i])
            height, width, _ = photos.decode(photos.samples[i].path).shape
            assert photos._num_pixels(50, 40) == height * width
        photos.samples[1].path.write_bytes(b"")  # it is the store that is read
        assert torch.equal(photos[Key(1, 1)][0], before[1])


def test_a_loader_has_the_settings_asked_for(tmp_path: Path) -> None:
    photos = dataset(tmp_path)
    plain = make_loader(photos, batch_size=2, read_timeout=9)
    assert (plain.num_workers, plain.timeout, plain.persistent_workers) == (0, 0, False)
    assert [batch.indices.tolist() for batch in plain] == [[0, 1], [2]]
    batches = EpochBatches(3, batch_size=2, seed=0)
    one = make_loader(photos, batches=batches, num_workers=1, read_timeout=9)
    assert (one.num_workers, one.timeout, one.persistent_workers) == (1, 9, True)
    assert one.batch_sampler is batches
    assert make_loader(photos, batch_size=2, num_workers=1).timeout == 0
    many = make_loader(photos, batch_size=2, num_workers=10_000)
    assert many.num_workers == os.cpu_count()
    assert not make_loader(photos, batch_size=2, pin_memory=True).pin_memory or (
        torch.cuda.is_available()
    )


def test_a_pass_over_a_loader_leaves_torchs_global_generator_alone(tmp_path: Path) -> None:
    loader = make_loader(dataset(tmp_path), batch_size=2)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(loader)
    assert torch.equal(torch.get_rng_state(), before)


def test_loading_processes_leave_interrupts_to_the_main_one(tmp_path: Path) -> None:
    loader = make_loader(dataset(tmp_path), batch_size=2)
    before = signal.getsignal(signal.SIGINT)
    assert loader.worker_init_fn is not None
    try:
        loader.worker_init_fn(0)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_photo_that_cannot_be_read_is_named_with_the_reason(tmp_path: Path) -> None:
    photos = dataset(tmp_path)
    (path := photos.samples[1].path).write_bytes(b"")
    assert photos[1] == Unreadable(path, "the file is empty")


def test_seed_zero_draws_the_views_unless_another_is_given(tmp_path: Path) -> None:
    usual, zero = (
        dataset(tmp_path, augmentation=Augmentation(), **seed)[0][0] for seed in ({}, {"seed": 0})
    )
    assert torch.equal(usual, zero)


@pytest.mark.parametrize("augmentation", [None, Augmentation()])
def test_photos_are_resampled_as_the_base_model_asks(
    augmentation: Augmentation | None, tmp_path: Path
) -> None:
    plain = dataset(tmp_path, augmentation=augmentation)
    path = tmp_path / "large.png"
    noise = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    seen = [
        PhotoDataset([], replace(PREPROCESS, resample=how), augmentation=augmentation).decode(path)
        for how in (2, 3)
    ]
    assert not np.array_equal(*seen)
    assert np.array_equal(plain.decode(path), seen[1])
    edge = seen[0].shape[0]
    if augmentation is not None:
        expected = Image.fromarray(noise).resize((seen[0].shape[1], edge), resample=2)
        assert np.array_equal(seen[0], expected)


def test_pixels_are_counted_of_photos_no_larger_than_they_are(tmp_path: Path) -> None:
    photos = dataset(tmp_path, augmentation=Augmentation())
    for size in ((9, 7), (50, 40), (160, 120)):
        Image.new("RGB", size).save(path := tmp_path / "sized.png")
        height, width, _ = photos.decode(path).shape
        assert photos._num_pixels(*size) == height * width


def test_processes_beyond_the_cores_are_not_started_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", logger="cliptune")
    cores = os.cpu_count()
    photos = dataset(tmp_path)
    make_loader(photos, batch_size=2, num_workers=cores or 1)
    assert not caplog.messages
    make_loader(photos, batch_size=2, num_workers=999)
    assert caplog.messages == [f"num_workers 999: this machine has {cores} cores; starting {cores}"]


def test_the_sections_of_reading_and_augmenting_are_timed_under_their_names(tmp_path: Path) -> None:
    photos = dataset(tmp_path, augmentation=Augmentation())
    with measured(tmp_path / "trace.json") as watch:
        photos[0]
    assert watch is not None
    assert set(watch.seconds) == {"decode", "augment"}
