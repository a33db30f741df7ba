"""Training steps replayed as CUDA graphs: the same as steps computed as ever."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from test_fused import EVERYWHERE, pair, relative_error

from cliptune.model.backbone import image_features, text_features
from cliptune.model.dropout import PhotoDropout, PhotoKeys
from cliptune.model.fast.encoder import record, stop_recording
from conftest import make_model

GPU = torch.device("cuda")
on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")


def keys_of(model: Any) -> PhotoKeys:
    return next(m.keys for m in model.modules() if isinstance(m, PhotoDropout))


def recorded_pair(folder: Path, **options: Any) -> tuple[Any, Any, dict[str, torch.Tensor]]:
    """A fused model on the GPU twice, the second one recording; and some prompts."""
    _, fused, tokens = pair(folder, dropout=0.3, target_modules=EVERYWHERE, **options)
    usual = fused.to(GPU)
    replaying = copy.deepcopy(usual)
    record(replaying, keys_of(replaying))
    return usual, replaying, {key: each.to(GPU) for key, each in tokens.items()}


def recorders(model: Any) -> Iterator[Any]:
    inner = model.base_model.model
    for tower in (inner.vision_model, inner.text_model):
        if (recorder := getattr(tower.encoder, "recorder", None)) is not None:
            yield recorder


def loss_of(model: Any, places: torch.Tensor, tokens: Any, *, view: int) -> torch.Tensor:
    """Of the photos number `places`, whose pixels are drawn by their numbers."""
    photos = [
        torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(int(i))) for i in places
    ]
    with keys_of(model).drawing_for(places, view=view, update=view, device=GPU):
        image = image_features(model, torch.stack(photos).to(GPU)).float()
        text = text_features(model, tokens).float()
    return (image @ text.t()).square().sum()


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


@on_a_gpu
@pytest.mark.parametrize("kind", ["clip", "siglip", "chinese_clip"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_replayed_updates_are_those_computed_as_ever(
    tmp_path: Path, kind: str, dtype: torch.dtype
) -> None:
    towers = "vision" if kind == "chinese_clip" else "both"
    usual, replaying, tokens = recorded_pair(make_model(tmp_path, kind), towers=towers)
    models = (usual, replaying)
    optimizers = [
        torch.optim.AdamW([p for p in m.parameters() if p.requires_grad], lr=1e-3) for m in models
    ]
    sizes = [4, 4, 4, 4, 3, 4]  # another shape in between
    for view, size in enumerate(sizes):
        places, found = torch.arange(size) + 10 * view, []
        for model, optimizer in zip(models, optimizers, strict=True):
            with torch.autocast("cuda", dtype=dtype, enabled=dtype != torch.float32):
                loss = loss_of(model, places, tokens, view=view)
            loss.backward()
            found.append(gradients(model) | {"loss": loss.detach()})
            optimizer.step()
            optimizer.zero_grad()
        bound = 1e-5 if dtype == torch.float32 else 2e-2
        for name, expected in found[0].items():
            assert relative_error(found[1][name], expected) < bound, (view, name)
    replayed = [each for each in recorders(replaying) if each.recording is not None]
    assert len(replayed) == (1 if towers == "vision" else 2)
    assert not list(recorders(usual))


@on_a_gpu
def test_gradients_of_micro_batches_add_up_as_ever(clip_folder: Path) -> None:
    usual, replaying, tokens = recorded_pair(clip_folder, towers="vision")
    for model in (usual, replaying):
        for view in range(3):  # the recording is made in the second
            model.zero_grad()
            for places in (torch.arange(4), torch.arange(4, 8)):
                loss_of(model, places, tokens, view=view).backward()
    assert any(each.recording for each in recorders(replaying))
    expected, found = gradients(usual), gradients(replaying)
    assert all(relative_error(found[name], expected[name]) < 1e-5 for name in expected)


@on_a_gpu
def test_a_gradient_stays_what_it_was_when_the_next_step_is_replayed(clip_folder: Path) -> None:
    _, model, tokens = recorded_pair(clip_folder, towers="vision")
    for view in range(3):
        model.zero_grad()
        loss_of(model, torch.arange(4), tokens, view=view).backward()
    held = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    before = {name: each.clone() for name, each in held.items()}
    model.zero_grad(set_to_none=True)
    loss_of(model, torch.arange(4, 8), tokens, view=3).backward()
    assert all(torch.equal(held[name], before[name]) for name in held)


@on_a_gpu
def test_a_backward_whose_activations_are_overwritten_is_refused(clip_folder: Path) -> None:
    _, model, tokens = recorded_pair(clip_folder, towers="vision")
    for view in range(2):
        loss_of(model, torch.arange(4), tokens, view=view).backward()
    first = loss_of(model, torch.arange(4), tokens, view=2)
    loss_of(model, torch.arange(4), tokens, view=3)
    with pytest.raises(RuntimeError, match="cuda_graphs to false"):
        first.backward()


@on_a_gpu
def test_once_stopped_it_computes_as_ever_and_holds_no_memory(clip_folder: Path) -> None:
    usual, model, tokens = recorded_pair(clip_folder, towers="vision")
    for view in range(3):
        loss_of(model, torch.arange(4), tokens, view=view).backward()
    model.zero_grad()
    torch.cuda.synchronize()
    held = torch.cuda.memory_reserved()
    stop_recording(model)
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() < held
    for each in (usual, model):
        each.zero_grad()
        loss_of(each, torch.arange(4), tokens, view=9).backward()
    expected, found = gradients(usual), gradients(model)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@on_a_gpu
def test_layers_that_cannot_be_recorded_are_computed_as_ever(
    clip_folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here an activation that waits for the GPU, which a recording may not."""
    usual, model, tokens = recorded_pair(clip_folder, towers="vision")
    layer = model.base_model.model.vision_model.encoder.layers[0]

    class Waiting(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert float(x.detach().abs().max()) >= 0
            return x * torch.sigmoid(1.702 * x)

    layer.mlp.activation_fn = Waiting()
    with caplog.at_level(logging.WARNING):
        for view in range(3):
            for each in (usual, model):
                each.zero_grad()
                loss_of(each, torch.arange(4), tokens, view=view).backward()
    assert "goes without" in caplog.text
    expected, found = gradients(usual), gradients(model)
    assert all(relative_error(found[name], expected[name]) < 1e-5 for name in expected)


def test_on_a_cpu_nothing_is_recorded(clip_folder: Path) -> None:
    _, usual, _tokens = pair(clip_folder, dropout=0.3)
    recording = copy.deepcopy(usual)
    record(recording, keys_of(recording))
    found = []
    for model in (usual, recording):
        for view in range(3):
            with keys_of(model).drawing_for(
                torch.arange(4), view=view, update=view, device=torch.device("cpu")
            ):
                image_features(model, torch.ones(4, 3, 32, 32)).square().sum().backward()
        found.append(gradients(model))
    assert all(torch.equal(found[1][name], found[0][name]) for name in found[0])
    assert all(each.recording is None for each in recorders(recording))
