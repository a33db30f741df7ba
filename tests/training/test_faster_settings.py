"""Settings that make training faster by computing something else: exactly what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from cliptune import Predictor, load_settings, train
from cliptune.data.augment import Augmentation
from cliptune.data.folder import load_split
from cliptune.data.loading import Key, PhotoDataset
from cliptune.errors import ModelError, SettingsError
from cliptune.model.backbone import image_features, load_backbone
from cliptune.model.fast.encoder import fuse
from cliptune.model.image_tokens import drop_patches, resize_positions
from cliptune.model.lora import add_adapters
from conftest import COLORS, make_model

SMALL = {"r": 2, "alpha": 4, "dropout": 0.0, "target_modules": ["q_proj", "v_proj"]}
CACHED = {
    "lora.last_layers": 1,
    "lora.lora_dropout": 0.1,
    "data.augmentation.views": 2,
    "training.num_epochs": 4,
}


def adapters(run: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(run / "adapter_model.safetensors")
    return found


def test_a_lower_resolution_is_what_transformers_interpolates(any_model_folder: Path) -> None:
    model = load_backbone(str(any_model_folder)).model.eval()
    pixels = torch.randn(2, 3, 24, 24)
    with torch.no_grad():
        expected = model.get_image_features(pixel_values=pixels, interpolate_pos_encoding=True)
        resize_positions(model, 24)
        found = image_features(model, pixels)
    torch.testing.assert_close(found, getattr(expected, "pooler_output", expected))


def test_the_lower_resolution_keeps_the_part_that_is_seen(clip_folder: Path) -> None:
    backbone = load_backbone(str(clip_folder), image_size=16)
    assert backbone.preprocess.image_size == (16, 16)
    assert backbone.preprocess.resize == 16
    assert backbone.processor.crop_size["height"] == 16


def test_a_size_that_patches_do_not_fill_is_refused(clip_folder: Path) -> None:
    with pytest.raises(ModelError, match=r"not a multiple .* 8 pixels; use 24 or 32"):
        load_backbone(str(clip_folder), image_size=28)


def test_a_checkpoint_remembers_its_resolution(overrides: dict[str, Any], photos: Path) -> None:
    settings = load_settings(overrides=overrides | {"model.image_size": 24})
    result = train(settings, progress=False)
    predictor = Predictor(result.output_dir)
    assert predictor.engine.preprocess.image_size == (24, 24)
    assert predictor.predict(next((photos / "test").rglob("*.png")))


def test_patches_are_dropped_in_training_only_and_the_class_token_stays(
    clip_folder: Path,
) -> None:
    model = load_backbone(str(clip_folder)).model
    pixels = torch.randn(3, 3, 32, 32)
    all_tokens = model.vision_model.embeddings(pixels)
    drop_patches(model, 0.5)
    assert torch.equal(model.eval().vision_model.embeddings(pixels), all_tokens)
    kept = model.train().vision_model.embeddings(pixels)
    assert kept.shape == (3, 1 + 8, 32)
    assert torch.equal(kept[:, 0], all_tokens[:, 0])
    for photo, tokens in zip(all_tokens, kept, strict=True):  # each is one of the photo's own
        assert all((photo == token).all(1).sum() == 1 for token in tokens)
    assert not torch.equal(kept, model.vision_model.embeddings(pixels))


@pytest.mark.parametrize("towers", ["vision", "both"])
def test_last_layers_leave_the_others_without_adapters(clip_folder: Path, towers: str) -> None:
    model = load_backbone(str(clip_folder)).model
    wrapped = add_adapters(model, towers=towers, last_layers=1, **SMALL)
    trained = [name for name, p in wrapped.named_parameters() if p.requires_grad]
    assert trained
    assert all(".layers.1." in name for name in trained)


def test_more_last_layers_than_there_are_is_refused(clip_folder: Path) -> None:
    model = load_backbone(str(clip_folder)).model
    with pytest.raises(ModelError, match=r"lora\.last_layers: found 3; vision_model has 2"):
        add_adapters(model, last_layers=3, **SMALL)


def test_views_repeat_and_differ(photos: Path, clip_folder: Path) -> None:
    split = load_split(photos, "train", class_names=tuple(COLORS))
    preprocess = load_backbone(str(clip_folder)).preprocess
    data = PhotoDataset(split.samples, preprocess, augmentation=Augmentation(views=2), seed=1)
    first, second, third = (data[Key(epoch, 0)][0] for epoch in range(3))
    assert np.array_equal(first, third)
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_cached_activations_change_nothing_to_the_bit(
    overrides: dict[str, Any], tmp_path: Path, kind: str
) -> None:
    model = make_model(tmp_path / "model", kind)
    ends = []
    for cached in (False, True):
        more = {"model.name": str(model), "training.cache_activations": cached} | CACHED
        more["output.output_dir"] = str(tmp_path / f"run-{cached}")
        ends.append(train(load_settings(overrides=overrides | more), progress=False))
    plain, fast = ends
    assert plain.history[-1]["val_loss"] == fast.history[-1]["val_loss"]
    assert plain.last is not None
    assert fast.last is not None
    expected, found = adapters(plain.last.path), adapters(fast.last.path)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_cached_activations_spare_the_layers_below(
    overrides: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from cliptune.model.fast.encoder import FusedEncoder

    computed: list[int] = []
    layer = FusedEncoder._layer
    monkeypatch.setattr(
        FusedEncoder,
        "_layer",
        lambda self, i, *rest: (
            computed.append(i) if "vision" in type(self.config).__name__.lower() else None,
            layer(self, i, *rest),
        )[1],
    )
    train(
        load_settings(overrides=overrides | CACHED | {"training.cache_activations": True}),
        progress=False,
    )
    assert computed.count(0) * 1.5 < computed.count(1)


def test_too_little_room_for_activations_trains_without(
    overrides: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from cliptune.model.fast.kept_activations import FrozenStates

    model = make_model(tmp_path / "model")
    wrapped = add_adapters(load_backbone(str(model)).model, last_layers=1, **SMALL)
    fuse(wrapped)
    states = FrozenStates(wrapped, num_photos=2, views=1, folder=tmp_path, limit_bytes=100)
    with states.reused(torch.zeros(2, 3, 32, 32), torch.tensor([0, 1])) as (pixels, kept):
        image_features(wrapped, pixels, states=kept)
    with states.reused(torch.zeros(2, 3, 32, 32), torch.tensor([0, 1])) as (pixels, kept):
        assert len(pixels) == 2
        assert kept is None
    assert "computed anew" in caplog.text


def test_caching_what_changes_is_refused_with_every_reason() -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(
            overrides={
                "training.cache_activations": True,
                "hardware.fast": False,
                "lora.bias": "all",
                "lora.towers": "text",
                "model.patch_dropout": 0.5,
            }
        )
    for key in ("last_layers", "views", "lora.bias", "towers", "patch_dropout", "hardware.fast"):
        assert key in str(caught.value)
