"""Dropout's masks belong to photos: how an update is cut changes nothing, and chance is chance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from cliptune.config import load_settings
from cliptune.errors import ModelError
from cliptune.model.dropout import PhotoDropout, PhotoKeys, dropout_masks, kept, random_order, words
from cliptune.training.setup import set_up
from conftest import DEVICE

Overrides = dict[str, Any]
CPU = torch.device("cpu")


def masks(
    photos: torch.Tensor,
    *,
    rate: float = 0.1,
    layer: str = "layer",
    view: int = 0,
    seed: int = 0,
    shape: tuple[int, int] = (50, 64),
    tower: str = "vision",
    update: int = 0,
) -> torch.Tensor:
    """bool (B, T, D): what one layer keeps of `photos`."""
    keys = PhotoKeys(seed=seed)
    dropout = PhotoDropout(rate, name=layer, tower=tower, keys=keys)
    with keys.drawing_for(photos, view=view, update=update, device=CPU):
        (mask,) = dropout_masks([dropout], torch.empty(len(photos), *shape))
    assert mask is not None
    assert bool(((mask == 0) | (mask == -1)).all())
    return mask.view(len(photos), *shape) != 0


def score(count: torch.Tensor | int, chance: float, trials: int) -> torch.Tensor:
    """How many standard deviations a count of `trials` events is off what `chance` says."""
    return (torch.as_tensor(count).double() - trials * chance) / (
        trials * chance * (1 - chance)
    ) ** 0.5


def test_words_are_those_of_splitmix64() -> None:
    """Against the generator as published, in unsigned arithmetic, and its known first words."""

    def published(state: int, count: int) -> list[int]:
        made = []
        for _ in range(count):
            state = (state + 0x9E3779B97F4A7C15) % 2**64
            z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
            z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
            made.append(z ^ (z >> 31))
        return made

    found = [int(word) % 2**64 for word in words(1234567, torch.arange(1000))]
    assert found == published(1234567, 1000)
    assert found[:3] == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@pytest.mark.parametrize("rate", [0.001, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("width", [64, 30])
def test_every_place_is_dropped_at_the_rate_asked_for(rate: float, width: int) -> None:
    dropped = ~masks(torch.arange(400), rate=rate, shape=(50, width))
    assert abs(score(dropped.sum(), rate, dropped.numel())) < 4.5
    by_place = score(dropped.sum(0), rate, 400).flatten()
    by_photo = score(dropped.flatten(1).sum(1), rate, 50 * width)
    for scores in (by_place, by_photo):  # were they less or more than chance, the spread would tell
        assert abs(scores.square().mean() - 1) < 6 * (2 / len(scores)) ** 0.5 + 1 / rate / 400
    assert by_photo.abs().max() < 5


def test_masks_are_independent_among_photos_layers_epochs_seeds_and_towers() -> None:
    """Two masks drop the same elements no more often, and no less, than by chance: all pairs."""
    photos = torch.arange(24)
    kinds: list[dict[str, Any]] = [
        {}, {"layer": "other"}, {"view": 1}, {"view": 2, "layer": "other"}, {"seed": 1},
        {"tower": "text"}, {"tower": "text", "update": 1},
    ]  # fmt: skip
    drops = torch.cat([~masks(photos, rate=0.3, **kind).flatten(1) for kind in kinds]).double()
    centred = (drops - 0.3) / (0.3 * 0.7) ** 0.5
    scores = (centred @ centred.T / drops.shape[1] ** 0.5)[np.triu_indices(len(drops), 1)]
    pairs = 168 * 167 / 2
    assert len(scores) == pairs  # of mean 0 and variance 1, were the masks independent
    assert scores.abs().max() < 5.5
    assert abs(scores.mean()) < 4.5 / pairs**0.5
    assert abs(scores.square().mean() - 1) < 4.5 * (2 / pairs) ** 0.5


def test_places_of_one_photo_are_independent_of_their_neighbours() -> None:
    drops = ~masks(torch.arange(200), rate=0.3, shape=(50, 64))
    flat = drops.flatten(1)
    for lag in [*range(1, 17), 64, 128]:
        both = flat[:, lag:] & flat[:, :-lag]
        assert abs(score(both.sum(), 0.09, both.numel())) < 5, lag
    photos = drops[1:] & drops[:-1]  # and the same place of the photo beside
    assert abs(score(photos.sum(), 0.09, photos.numel())) < 5


def test_patches_are_chosen_at_random_each_as_often_as_any_other() -> None:
    keys = words(7, torch.arange(4000))
    order = random_order(keys, 16, name="patches")
    assert torch.equal(order.sort(1).values, torch.arange(16).expand(4000, 16))
    for chosen in (order[:, :8], random_order(keys, 16, name="others")[:, :8]):
        counts = torch.bincount(chosen.flatten(), minlength=16)
        assert score(counts, 0.5, 4000).abs().max() < 4.5


def test_a_mask_does_not_depend_on_the_photos_beside_or_the_token_begun_with() -> None:
    photos = torch.tensor([5, 3, 900, 0])
    whole = masks(photos)
    assert torch.equal(whole[2:3], masks(photos[2:3]))
    assert not torch.equal(whole[0], whole[1])
    keys = PhotoKeys()
    dropout = PhotoDropout(0.1, name="layer", tower="vision", keys=keys)
    with keys.drawing_for(photos, view=0, update=0, device=CPU):
        (last,) = dropout_masks([dropout], torch.empty(4, 1, 64), first=49)
    assert last is not None
    assert torch.equal(last != 0, whole[:, 49])


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str
)
def test_what_a_mask_keeps_stays_to_the_bit_and_all_else_is_zero(dtype: torch.dtype) -> None:
    x = torch.randn(200, 64).to(dtype)
    x[0], x[1] = float("inf"), float("nan")
    mask = -torch.randint(0, 2, x.shape, dtype=torch.int16)
    expected = torch.where(mask == -1, x, torch.zeros((), dtype=dtype))
    found = kept(x[:, ::2], mask[:, ::2])
    torch.testing.assert_close(found, expected[:, ::2], rtol=0, atol=0, equal_nan=True)


def test_dropout_scales_what_it_keeps_so_that_the_mean_stays() -> None:
    dropout = PhotoDropout(0.25, name="layer", tower="vision", keys=PhotoKeys())
    torch.manual_seed(0)
    found = dropout(torch.ones(100, 50, 64))
    assert found.unique().tolist() == pytest.approx([0, 4 / 3])
    assert abs(found.mean().item() - 1) < 5 * (1 / 3 / found.numel()) ** 0.5
    assert torch.equal(dropout.eval()(found), found)
    nearly_all = PhotoDropout(0.9999999, name="layer", tower="vision", keys=PhotoKeys())
    assert torch.isfinite(nearly_all(torch.ones(100, 64))).all()


def test_rows_that_cannot_be_shared_out_among_photos_are_refused() -> None:
    keys = PhotoKeys()
    dropout = PhotoDropout(0.1, name="layer", tower="vision", keys=keys)
    with keys.drawing_for(torch.arange(4), view=0, update=0, device=CPU):
        assert dropout(torch.ones(8, 3, 16)).shape == (8, 3, 16)  # two windows of each photo
        with pytest.raises(ModelError, match=r"6 rows for 4 photos.*lora\.lora_dropout to 0"):
            dropout(torch.ones(6, 3, 16))


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("what", ["view", "update"])
def test_each_view_draws_photos_anew_and_each_update_prompts(
    overrides: Overrides, fast: bool, what: str
) -> None:
    run = set_up(
        load_settings(overrides=overrides | {"lora.towers": "both", "hardware.fast": fast}),
        progress=False,
    )
    with torch.no_grad():
        for parameter in run.trained:
            parameter.normal_(0, 0.1)
    run.model.train()
    there = torch.device(DEVICE)
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, device=there)

    def with_keys(compute: Callable[[], torch.Tensor], **at: int) -> torch.Tensor:
        numbers = {"view": 0, "update": 0} | at
        with run.keys.drawing_for(torch.tensor([3, 8]), device=there, **numbers), torch.no_grad():
            return compute()

    photos = lambda: run.classifier.image_features(pixels)  # noqa: E731
    for compute, follows in ((photos, "view"), (run.classifier.class_weights, "update")):
        same = torch.equal(with_keys(compute), with_keys(compute, **{what: 1}))
        assert same == (what != follows)
        assert torch.equal(with_keys(compute), with_keys(compute))
