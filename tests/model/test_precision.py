"""What is computed in: what is asked for, what is fastest here, and how near bf16 stays."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cliptune import Predictor, evaluate
from cliptune.config import load_settings
from cliptune.errors import DeviceError, SettingsError
from cliptune.evaluation.comparison.compare import compare
from cliptune.model.device import bf16_is_faster, precision_for
from cliptune.training.train import train

CPU = torch.device("cpu")


@pytest.fixture
def untimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache folder of this test alone, and a process that has timed nothing yet."""
    monkeypatch.setenv("CLIPTUNE_CACHE", str(tmp_path / "cache"))
    bf16_is_faster.cache_clear()
    yield tmp_path / "cache" / "bf16.json"
    bf16_is_faster.cache_clear()


def test_auto_takes_bf16_on_a_cpu_only_where_it_is_timed_to_be_faster() -> None:
    threads = torch.get_num_threads()
    supported = torch.cpu._is_avx512_bf16_supported()
    expected = "bf16" if supported and bf16_is_faster() else "float32"
    assert precision_for(CPU, "auto") == expected
    assert torch.get_num_threads() == threads
    for asked in ("float32", "bf16"):
        assert precision_for(CPU, asked) == asked


def test_what_was_timed_is_kept_for_other_processes(untimed: Path) -> None:
    found = bf16_is_faster()
    (kept,) = json.loads(untimed.read_text()).items()
    assert kept[1] is found
    assert torch.__version__ in kept[0]
    untimed.write_text(json.dumps({kept[0]: not found}))
    bf16_is_faster.cache_clear()
    assert bf16_is_faster() is not found


@pytest.mark.parametrize("content", ["{", "[]", '{"another processor": true}', "\x00"])
def test_what_was_kept_of_something_else_is_timed_anew(untimed: Path, content: str) -> None:
    found = bf16_is_faster()
    (here,) = json.loads(untimed.read_text())
    untimed.write_text(content)
    bf16_is_faster.cache_clear()
    bf16_is_faster()
    assert here in json.loads(untimed.read_text()), found


def test_a_cache_that_cannot_be_written_is_no_reason_to_stop(
    untimed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    untimed.parent.write_text("a file where the folder would be")
    bf16_is_faster()
    assert untimed.parent.is_file()


def test_a_precision_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(DeviceError, match=r"precision bf61: expected .*Did you mean 'bf16'"):
        precision_for(CPU, "bf61")
    with pytest.raises(DeviceError, match=r"precision fp16 is for .* Take bf16, float32 or auto"):
        precision_for(CPU, "fp16")
    both = {"hardware.precision": "bf16", "hardware.mixed_precision": False}
    with pytest.raises(SettingsError, match="remove one of them"):
        load_settings(overrides=both)


def test_a_checkpoint_predicts_in_the_precision_of_its_settings_unless_told_otherwise(
    overrides: dict[str, Any], photos: Path
) -> None:
    """And every verb in the same; in bf16 answers stay near, in float32 they stay the same."""
    del overrides["hardware.mixed_precision"]
    overrides |= {"training.learning_rate": 1e-2, "hardware.precision": "bf16"}
    run = train(load_settings(overrides=overrides), progress=False).output_dir
    paths = sorted((photos / "test").rglob("*.png"))

    def probabilities(**options: Any) -> tuple[str, np.ndarray]:
        predictor = Predictor(run, device="cpu", **options)
        found = predictor.predict_batch(paths, top_k=3)
        each = [{s.label: s.probability for s in one.scores} for one in found]
        return predictor.precision, np.array([[one[n] for n in sorted(one)] for one in each])

    (as_trained, in_bf16), (exact, in_float32) = (
        probabilities(),
        probabilities(precision="float32"),
    )
    assert (as_trained, exact) == ("bf16", "float32")
    np.testing.assert_array_equal(in_float32, probabilities(precision="float32")[1])
    assert not np.array_equal(in_bf16, in_float32)
    assert np.abs(in_bf16 - in_float32).max() < 0.05

    measured = {
        asked: evaluate(run, split="test", output_dir=None, device="cpu", precision=asked)
        for asked in (None, "bf16", "float32")
    }
    for figures in ("figures", "baseline_figures"):
        losses = {key: getattr(each, figures).log_loss.value for key, each in measured.items()}
        assert losses[None] == losses["bf16"] != losses["float32"]


def test_what_a_gpu_trained_in_fp16_is_answered_for_elsewhere(
    overrides: dict[str, Any], photos: Path
) -> None:
    """By its settings in what is fastest here; asked for by name, fp16 stays refused."""
    run = train(load_settings(overrides=overrides), progress=False)
    assert run.best is not None
    settings = run.best.path / "config.yaml"
    text = settings.read_text(encoding="utf-8").replace("precision: auto", "precision: fp16")
    text = text.replace("mixed_precision: false", "mixed_precision: true")
    settings.write_text(text, encoding="utf-8", newline="\n")
    (run.best.path / "SHA256SUMS").unlink()  # they were of other settings
    fastest = precision_for(CPU, "auto")
    assert Predictor(run.best.path, device="cpu").precision == fastest
    evaluate(run.best.path, split="test", output_dir=None, device="cpu")
    with pytest.raises(DeviceError, match="precision fp16"):
        Predictor(run.best.path, device="cpu", precision="fp16")


def test_models_of_two_precisions_are_compared_each_in_its_own(
    overrides: dict[str, Any], tmp_path: Path
) -> None:
    runs = []
    for precision in ("float32", "bf16"):
        changes = {
            "hardware.mixed_precision": True, "hardware.precision": precision,
            "output.output_dir": str(tmp_path / precision),
        }  # fmt: skip
        runs.append(train(load_settings(overrides=overrides | changes), progress=False).output_dir)
    found = compare(runs, split="test", output_dir=None, device="cpu")
    for run, model in zip(runs, found.models, strict=True):
        alone = evaluate(run, split="test", output_dir=None, baseline=False, device="cpu")
        assert model.figures.log_loss.value == alone.figures.log_loss.value
