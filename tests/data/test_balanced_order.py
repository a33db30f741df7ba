"""Classes drawn equally often: which photos, in which order, in which views."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cliptune.data.augment import Augmentation
from cliptune.data.folder import Sample
from cliptune.data.images import Preprocess
from cliptune.data.loading import (
    EpochBatches,
    Key,
    PhotoDataset,
    balanced_order,
    in_turns,
)

LABELS = [0] * 40 + [1] * 9 + [2] * 3 + [3]  # 53 photos
PREPROCESS = Preprocess(
    resize=16, crop=(16, 16), resample=3, rescale=1 / 255, mean=(0.5,) * 3, std=(0.5,) * 3
)


@pytest.mark.parametrize("epoch", range(4))
def test_classes_and_the_photos_of_a_rare_one_come_equally_often_to_within_one(epoch: int) -> None:
    order = balanced_order(LABELS, seed=1, view=epoch)
    assert len(order) == len(LABELS)
    of_class = Counter(LABELS[photo] for photo in order)
    assert sorted(of_class.values()) == [13, 13, 13, 14]
    of_photo = Counter(order)
    for label in range(4):
        own = [of_photo[i] for i, each in enumerate(LABELS) if each == label]
        assert max(own) - min(own) <= 1


def test_a_balanced_epoch_depends_on_seed_and_epoch_alone_and_takes_other_photos_each_time() -> (
    None
):
    orders = [balanced_order(LABELS, seed=s, view=e) for s, e in ((1, 2), (2, 1), (1, 3), (2, 2))]
    assert all(orders[i] != orders[j] for i in range(4) for j in range(i))
    assert balanced_order(LABELS, seed=1, view=2) == orders[0]
    frequent = set().union(*(balanced_order(LABELS, seed=0, view=e) for e in range(30)))
    assert frequent == set(range(len(LABELS)))


def test_which_class_gets_what_is_left_over_changes() -> None:
    most = [
        Counter(LABELS[i] for i in balanced_order(LABELS, seed=0, view=e)).most_common(1)[0][0]
        for e in range(40)
    ]
    assert set(most) == {0, 1, 2, 3}


def test_the_uniform_order_is_that_of_before_and_no_photo_comes_twice() -> None:
    batches = EpochBatches(11, batch_size=4, seed=5)
    batches.epoch = 2
    expected = np.random.default_rng([5, 2]).permutation(11).tolist()
    assert [key for batch in batches for key in batch] == [Key(2, i, 0) for i in expected]


def test_a_balanced_epoch_can_be_picked_up_anywhere_and_shared_among_processes() -> None:
    def keys(**options: int) -> list[list[Key]]:
        start = options.pop("start", 0)
        batches = EpochBatches(len(LABELS), batch_size=8, seed=3, balanced=LABELS, **options)
        batches.epoch, batches.start = 1, start
        return list(batches)

    whole = keys()
    assert [len(batch) for batch in whole] == [8] * 6 + [5]
    order = balanced_order(LABELS, seed=3, view=1)
    assert [key for batch in whole for key in batch] == [Key(1, *turn) for turn in in_turns(order)]
    assert keys(start=4) == whole[4:]
    shares = zip(
        whole[:6], keys(process=0, processes=2), keys(process=1, processes=2), strict=False
    )
    assert all(sorted(one + two) == sorted(both) for both, one, two in shares)


def test_turns_count_from_zero_in_the_order_in_which_a_photo_comes() -> None:
    assert in_turns([4, 2, 4, 4, 2]) == [(4, 0), (2, 0), (4, 1), (4, 2), (2, 1)]


def test_a_photo_that_comes_again_in_an_epoch_is_seen_in_another_view(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "photo.png"
    Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path)

    def views(count: int | None) -> list[torch.Tensor]:
        augmentation = Augmentation(views=count)
        photos = PhotoDataset([Sample(path, 0)], PREPROCESS, augmentation=augmentation, seed=7)
        found = [photos[Key(5, 0, turn)] for turn in range(3)]
        assert all(isinstance(each, tuple) for each in found)
        return [each[0] for each in found if isinstance(each, tuple)]

    endless = views(None)
    assert len({pixels.numpy().tobytes() for pixels in endless}) == 3
    image = PhotoDataset([], PREPROCESS, augmentation=Augmentation()).decode(path)
    before = Augmentation().pixels(image, PREPROCESS, np.random.default_rng([7, 5, 0]))
    assert np.array_equal(endless[0].numpy(), before)  # the first turn: as without turns
    few = views(2)  # views that are kept: those of the epoch
    assert all(torch.equal(few[0], each) for each in few)
