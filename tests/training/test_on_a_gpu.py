"""Training on a GPU: by the defaults, stopped, out of memory; and what then answers.

`make test-gpu` runs these, and the other tests of training with runs that compute there.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_resume import stop_at

from cliptune import Predictor, compare, evaluate
from cliptune.config import load_settings
from cliptune.errors import Interrupted
from cliptune.model.checkpoint import resolve_checkpoint
from cliptune.training.train import train
from conftest import distance, make_model, tensors, trained
from servers import served

Overrides = dict[str, Any]

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")


@pytest.fixture(scope="module")
def run(clip_folder: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in what `auto` takes on a GPU, its photos loaded by two processes."""
    return trained(
        tmp_path_factory.mktemp("cuda"), clip_folder, photos,
        **{"hardware.device": "auto", "hardware.mixed_precision": True, "data.num_workers": 2},
    )  # fmt: skip


def test_a_run_by_the_defaults_learns_and_says_what_it_computed_in(run: Path, photos: Path) -> None:
    best = resolve_checkpoint(run)
    assert best.val_accuracy is not None
    assert best.val_accuracy > 0.9
    predictor = Predictor(run)
    assert (predictor.device.type, predictor.precision) == ("cuda", "bf16")
    report = evaluate(run, split="test", output_dir=None, num_workers=0, progress=False)
    assert report.accuracy > 0.9


def test_a_checkpoint_of_a_gpu_answers_the_same_on_a_cpu(run: Path, photos: Path) -> None:
    paths = sorted((photos / "test").rglob("*.png"))
    here, there = (
        np.array([p.probability for p in Predictor(
            run, device=device, precision="float32").predict_batch(paths)])
        for device in ("cpu", "cuda")
    )  # fmt: skip
    np.testing.assert_allclose(there, here, rtol=1e-4, atol=1e-6)


def test_two_runs_are_compared(run: Path, tiny_run: Path, tmp_path: Path) -> None:
    found = compare(
        [run, tiny_run], split="test", output_dir=tmp_path, num_workers=0, progress=False
    )
    assert len(found.models) == 2


@pytest.mark.parametrize("precision", ["bf16", "fp16", "float32"])
def test_a_run_stopped_in_mid_epoch_resumes_to_the_same_weights(
    overrides: Overrides, tmp_path: Path, precision: str
) -> None:
    overrides |= {"hardware.device": "cuda", "hardware.precision": precision}
    overrides |= {"hardware.mixed_precision": precision != "float32"}
    overrides |= {"training.batch_size": 4, "evaluation.eval_steps": 100}
    whole = train(load_settings(overrides=overrides), progress=False)
    overrides |= {"output.output_dir": str(tmp_path / "stopped")}
    settings = load_settings(overrides=overrides)
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, update=8)
        with pytest.raises(Interrupted, match="--resume"):
            train(settings, progress=False)
    resumed = train(settings, resume=True, progress=False)
    assert whole.last is not None
    assert resumed.last is not None
    expected, found = tensors(whole.last.path), tensors(resumed.last.path)
    assert all(bool(torch.isfinite(each).all()) for each in found.values())
    assert distance(found, expected) < 1e-6


def test_where_memory_runs_out_micro_batches_are_cut(overrides: Overrides, tmp_path: Path) -> None:
    """In a process of its own, which may have but a small part of the GPU."""
    model = make_model(
        tmp_path / "model", hidden_size=512, intermediate_size=2048, num_hidden_layers=4,
        num_attention_heads=8, patch_size=2,
    )  # fmt: skip
    overrides |= {"model.name": str(model), "hardware.device": "cuda"}
    overrides |= {"training.batch_size": 24, "training.num_epochs": 1}
    program = """
import ast, sys, torch
from cliptune.config import load_settings
from cliptune.training.train import train
total = torch.cuda.get_device_properties(0).total_memory
torch.cuda.set_per_process_memory_fraction(450 * 2**20 / total)
train(load_settings(overrides=ast.literal_eval(sys.argv[1])), progress=False)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program, repr(overrides)], capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert "going on with micro-batches" in ended.stdout + ended.stderr


def test_a_server_on_the_gpu_answers_as_the_predictor_does(tiny_run: Path, photos: Path) -> None:
    photo = next((photos / "test").rglob("*.png"))
    expected = Predictor(tiny_run, device="cpu").predict(photo)
    with served(tiny_run, "--device", "cuda") as server:
        found = server.client.post("/predict", content=photo.read_bytes()).json()
    assert found["label"] == expected.label
    assert found["probability"] == pytest.approx(expected.probability, rel=1e-4)


def test_one_process_of_torchrun_takes_its_gpu(
    overrides: Overrides, tmp_path: Path, clip_folder: Path
) -> None:
    changes = [f"{key}={value}" for key, value in overrides.items() if key != "model.prompts"]
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1",
        "-m", "cliptune", "train", *(x for each in changes for x in ("--set", each)),
        "--set", "hardware.device=cuda",
    ]  # fmt: skip
    ended = subprocess.run(command, capture_output=True, text=True, env=os.environ.copy())
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert (tmp_path / "run" / "checkpoint-epoch-2").is_dir()
