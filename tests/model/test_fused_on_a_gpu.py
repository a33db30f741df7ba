"""The laws of `test_fused` and `test_dropout` on a GPU, and against the CPU."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from test_fused import EVERYWHERE, assert_same, outcome, pair, relative_error

from cliptune.model.backbone import image_features
from cliptune.model.dropout import PhotoDropout
from cliptune.model.fast.encoder import FusedEncoder
from cliptune.model.lora import merge
from conftest import make_model

GPU = torch.device("cuda")

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")


def on_gpu(folder: Path, **options: Any) -> tuple[Any, Any, dict[str, torch.Tensor]]:
    """`pair` on the GPU."""
    plain, fast, tokens = pair(folder, **options)
    return plain.to(GPU), fast.to(GPU), {key: each.to(GPU) for key, each in tokens.items()}


@pytest.mark.parametrize("kind", ["clip", "siglip", "chinese_clip"])
def test_fused_equals_pefts_own_in_float32(tmp_path: Path, kind: str) -> None:
    towers = "vision" if kind == "chinese_clip" else "both"
    plain, fast, tokens = on_gpu(
        make_model(tmp_path, kind), towers=towers, target_modules=EVERYWHERE
    )
    assert isinstance(fast.base_model.model.vision_model.encoder, FusedEncoder)
    assert_same(outcome(fast, tokens, towers=towers), outcome(plain, tokens, towers=towers))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_no_further_from_float64_than_pefts_own(
    clip_folder: Path, dtype: torch.dtype
) -> None:
    plain, fast, tokens = on_gpu(clip_folder, towers="both")
    exact = outcome(copy.deepcopy(plain).double(), tokens, towers="both")
    scale = 2.0**16 if dtype == torch.float16 else 1.0
    with torch.autocast("cuda", dtype=dtype):
        # As the scaler of training does: halved until no gradient of PEFT's overflows.
        while True:
            plain.zero_grad()
            theirs = outcome(plain, tokens, towers="both", loss_scale=scale)
            if all(bool(each.isfinite().all()) for each in theirs.values()):
                break
            scale /= 2
        ours = outcome(fast, tokens, towers="both", loss_scale=scale)
    errors = [
        [relative_error(each[name], exact[name]) for name in exact] for each in (ours, theirs)
    ]
    assert sum(errors[0]) <= 1.1 * sum(errors[1])


def test_a_photo_has_the_same_dropout_masks_as_on_the_cpu(clip_folder: Path) -> None:
    _, fast, tokens = pair(clip_folder, dropout=0.3, towers="both", target_modules=EVERYWHERE)
    found = []
    for device in (torch.device("cpu"), GPU):
        model = copy.deepcopy(fast).to(device)
        keys = next(m.keys for m in model.modules() if isinstance(m, PhotoDropout))
        there = {key: each.to(device) for key, each in tokens.items()}
        with keys.drawing_for(torch.tensor([7, 0, 2, 30]), view=1, update=3, device=device):
            found.append(outcome(model, there, towers="both"))
    assert_same({name: each.cpu() for name, each in found[1].items()}, found[0])


def test_merged_equals_unmerged(clip_folder: Path) -> None:
    _, fast, _ = on_gpu(clip_folder)
    pixels = torch.randn(2, 3, 32, 32, device=GPU)
    with torch.no_grad():
        expected = image_features(fast.eval(), pixels)
        found = image_features(merge(fast), pixels)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
