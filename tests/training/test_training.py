from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cliptune import Predictor, evaluate
from cliptune.config import load_settings
from cliptune.data.loading import Batch
from cliptune.errors import (
    CheckpointError,
    DataError,
    ImageError,
    MissingExtra,
    ModelError,
    TrainingError,
)
from cliptune.evaluation.statistics.intervals import wilson_interval
from cliptune.model.checkpoint import best_checkpoint, list_checkpoints
from cliptune.training.setup import set_up
from cliptune.training.train import step, train
from cliptune.training.validation import measure_baseline
from conftest import DEVICE, make_photos, names, tensors

Overrides = dict[str, Any]


def test_training_beats_the_baseline_and_reports_it(overrides: Overrides) -> None:
    overrides |= {"training.num_epochs": 6, "training.learning_rate": 1e-2}
    result = train(load_settings(overrides=overrides), progress=False)
    assert result.best is not None
    assert result.best.val_accuracy is not None
    assert result.baseline_accuracy is not None
    assert result.best.val_accuracy > max(0.9, result.baseline_accuracy)
    assert result.history[-1]["train_loss"] < result.history[1]["train_loss"]
    assert result.trainable_parameters < result.all_parameters
    assert (result.output_dir / "training_curves.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    "changes",
    [
        {"model.head": "linear"},
        {"lora.towers": "both"},
        {"lora.towers": "text", "lora.bias": "all"},
        {"lora.use_dora": True, "lora.use_rslora": True, "lora.bias": "lora_only"},
        {"model.prompts": ["a {}.", "a drawing of a {}."], "data.augmentation.enabled": False},
    ],
    ids=str,
)
def test_every_choice_of_model_trains_and_predicts_as_it_was_validated(
    overrides: Overrides, changes: Overrides
) -> None:
    """Merged adapters, trained biases and stored text features are what validation saw."""
    overrides |= {"training.num_epochs": 1, "training.learning_rate": 1e-2} | changes
    result = train(load_settings(overrides=overrides), progress=False)
    assert result.last is not None
    saved = tensors(result.last.path)
    ups = [value for key, value in saved.items() if "lora_B" in key]
    assert ups
    assert all(value.abs().sum() > 0 for value in ups)  # B starts at zero, and each one learnt
    merged = evaluate(
        result.last.path,
        split="val",
        output_dir=None,
        num_workers=0,
        baseline=False,
        progress=False,
    )
    assert merged.accuracy == result.history[-1]["val_accuracy"]
    assert merged.before_scaling.log_loss.value == pytest.approx(
        result.history[-1]["val_loss"], rel=1e-4
    )


def test_every_kind_of_dual_encoder_trains_and_predicts(
    overrides: Overrides, any_model_folder: Path, photos: Path
) -> None:
    overrides |= {"model.name": str(any_model_folder), "training.num_epochs": 6}
    overrides |= {"training.learning_rate": 1e-2}
    result = train(load_settings(overrides=overrides), progress=False)
    paths = sorted((photos / "test").rglob("*.png"))
    predictions = Predictor(result.output_dir).predict_batch(paths)
    right = [p.label == path.parent.name for p, path in zip(predictions, paths, strict=True)]
    assert sum(right) > 0.8 * len(right)


def test_only_adapter_and_head_receive_gradients(overrides: Overrides) -> None:
    run = set_up(load_settings(overrides=overrides), progress=False)
    run.model.train()
    pixels = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, device=DEVICE)
    run.model(pixels).logsumexp(-1).sum().backward()
    with_gradient = {n for n, p in run.classifier.named_parameters() if p.grad is not None}
    assert with_gradient == {
        n for n, _ in run.classifier.named_parameters() if "lora_" in n or n == "head.offset"
    }


@pytest.mark.parametrize("towers", ["vision", "both"])
def test_fresh_adapter_changes_no_logit(overrides: Overrides, towers: str) -> None:
    run = set_up(load_settings(overrides=overrides | {"lora.towers": towers}), progress=False)
    pixels = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, device=DEVICE)
    baseline = measure_baseline(run)
    run.model.eval()
    with torch.no_grad():
        tuned = run.model(pixels)
        zero_shot = run.zero_shot(run.classifier.image_features(pixels), run.zero_shot.weights())
    torch.testing.assert_close(tuned, zero_shot, rtol=1e-5, atol=1e-5)
    assert baseline["num_images"] == 12


@pytest.mark.parametrize("cut", [[4, 4], [6, 2], [3, 3, 2]])
def test_microbatches_step_like_one_batch(overrides: Overrides, cut: list[int]) -> None:
    overrides |= {"lora.lora_dropout": 0.0}
    torch.manual_seed(0)
    pixels = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    outcomes = []
    for sizes in ([8], cut):
        run = set_up(load_settings(overrides=overrides), progress=False)
        for group in run.optimizer.param_groups:
            group["lr"] = 1e-3
        for _ in range(2):  # the second step also sees the first one's moments
            micro = [
                Batch(p, y, torch.zeros(len(y)), [])
                for p, y in zip(pixels.split(sizes), labels.split(sizes), strict=True)
            ]
            sums = step(run, micro)
        outcomes.append((sums, [p.detach().clone() for p in run.trained]))
    assert outcomes[0][0][0] == pytest.approx(outcomes[1][0][0], rel=1e-5)
    for one, other in zip(outcomes[0][1], outcomes[1][1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_accumulation_counts_updates_not_batches(overrides: Overrides) -> None:
    # 24 photos: 6 batches of 4 make 2 updates of 3, or 2 of 4 (the last one short).
    for accumulation, updates in ((1, 6), (3, 2), (4, 2)):
        overrides |= {"training.batch_size": 4, "training.num_epochs": 1}
        overrides |= {"training.gradient_accumulation_steps": accumulation}
        result = train(load_settings(overrides=overrides), overwrite=True, progress=False)
        assert result.updates == updates


def test_steps_of_saving_count_updates_and_old_checkpoints_are_pruned(overrides: Overrides) -> None:
    overrides |= {
        "training.batch_size": 4,
        "evaluation.save_steps": 4,
        "evaluation.eval_steps": 2,
        "output.save_total_limit": 20,
    }
    result = train(load_settings(overrides=overrides), progress=False)
    assert names(result.output_dir) == [
        "checkpoint-epoch-0", "checkpoint-step-4", "checkpoint-epoch-1", "checkpoint-step-8",
        "checkpoint-epoch-2",
    ]  # fmt: skip
    measured = [c.val_accuracy is not None for c in list_checkpoints(result.output_dir)]
    assert measured == [True] * 5  # every save fell on an evaluation

    overrides |= {"output.save_total_limit": 2, "training.num_epochs": 5}
    overrides |= {"training.early_stopping.enabled": False}
    result = train(load_settings(overrides=overrides), overwrite=True, progress=False)
    assert len(names(result.output_dir)) == 2
    assert "checkpoint-epoch-5" in names(result.output_dir)
    best = best_checkpoint(result.output_dir)
    assert best is not None
    assert best.val_accuracy == max(row["val_accuracy"] for row in result.history)


def test_early_stopping_waits_for_patience_and_names_the_best(overrides: Overrides) -> None:
    overrides |= {
        "training.num_epochs": 8,
        "training.learning_rate": 1e-9,  # nothing is learnt: no epoch beats the fitted head
        "training.early_stopping.patience": 2,
    }
    result = train(load_settings(overrides=overrides), progress=False)
    assert result.stopped_early
    assert result.epochs == 2
    assert result.best is not None
    with pytest.raises(CheckpointError) as caught:
        Predictor(result.output_dir / "checkpoint-epoch-8")
    assert "checkpoint-epoch-2" in str(caught.value)
    assert f"The best is {result.best.path}" in str(caught.value)


def test_early_stopping_waits_while_the_loss_still_falls(overrides: Overrides) -> None:
    overrides |= {
        "training.recipe": "plain",
        "training.num_epochs": 4,
        "training.learning_rate": 1e-4,  # too small to change a prediction
        "training.early_stopping.patience": 1,
        "training.early_stopping.min_delta": 0.0,
    }
    result = train(load_settings(overrides=overrides), progress=False)
    losses = [row["val_loss"] for row in result.history]
    assert losses == sorted(losses, reverse=True)
    assert len({row["val_accuracy"] for row in result.history}) < 4
    assert result.epochs == 4


def test_same_seed_gives_the_same_weights_and_another_seed_does_not(
    overrides: Overrides, tmp_path: Path
) -> None:
    checkpoints = []
    for i, seed in enumerate((1, 1, 2)):
        changes = {"seed": seed, "output.output_dir": str(tmp_path / f"run{i}")}
        result = train(load_settings(overrides=overrides | changes), progress=False)
        assert result.last is not None
        checkpoints.append(tensors(result.last.path))
    first, second, third = checkpoints
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], third[key]) for key in first)


def test_a_run_whose_last_epoch_was_stale_did_not_stop_early(overrides: Overrides) -> None:
    overrides |= {"training.learning_rate": 1e-9, "training.early_stopping.patience": 2}
    result = train(load_settings(overrides=overrides), progress=False)
    assert result.epochs == 2
    assert not result.stopped_early


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_photos(overrides: Overrides) -> None:
    overrides |= {"training.learning_rate": 1.0, "training.max_grad_norm": 1e30}
    run = set_up(load_settings(overrides=overrides), progress=False)
    with torch.no_grad():
        run.trained[0].fill_(float("inf"))
    batch = next(iter(run.train_loader))
    with pytest.raises(TrainingError) as caught:
        step(run, [batch])
    assert "in update 1" in str(caught.value)
    assert str(run.train_samples[int(batch.indices[0])].path) in str(caught.value)


def test_a_gradient_that_is_not_finite_never_reaches_the_weights(overrides: Overrides) -> None:
    run = set_up(load_settings(overrides=overrides), progress=False)
    run.trained[0].register_hook(lambda gradient: gradient * float("nan"))
    before = [parameter.detach().clone() for parameter in run.trained]
    batch = next(iter(run.train_loader))
    with pytest.raises(TrainingError, match="gradient became nan in update 1"):
        step(run, [batch])
    assert all(torch.equal(a, b) for a, b in zip(before, run.trained, strict=True))


def test_one_photo_a_class_without_val_is_explained(overrides: Overrides, tmp_path: Path) -> None:
    data = make_photos(tmp_path / "one", counts={"train": 1})
    overrides |= {"data.data_dir": str(data), "training.recipe": "plain"}
    settings = load_settings(overrides=overrides)
    with pytest.raises(DataError, match="at least two photos") as caught:
        train(settings, progress=False)
    assert "unreadable" not in str(caught.value)


def test_unreadable_images_stop_training_before_it_starts_or_are_counted(
    overrides: Overrides, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = make_photos(tmp_path / "data")
    for name in ("amber_0.png", "amber_1.png"):
        path = data / "train" / "amber" / name
        path.write_bytes(path.read_bytes()[:200])
    overrides |= {"data.data_dir": str(data)}
    with pytest.raises(ImageError) as caught:
        train(load_settings(overrides=overrides), progress=False)
    assert "2 of 36 images" in str(caught.value)
    assert "amber_0.png" in str(caught.value)
    assert "amber_1.png" in str(caught.value)
    assert not (tmp_path / "run").exists()
    settings = load_settings(overrides=overrides | {"data.on_bad_image": "skip"})
    with caplog.at_level("WARNING", logger="cliptune"):
        assert train(settings, progress=False).updates == 2 * 3
    assert "skipping 2 of 36 images" in caplog.text


def test_faults_of_the_user_leave_nothing_behind(overrides: Overrides, tmp_path: Path) -> None:
    for changes, error in (
        ({"data.data_dir": str(tmp_path / "none")}, DataError),
        ({"lora.target_modules": ["nothing"]}, ModelError),
        ({"model.name": str(tmp_path / "none")}, ModelError),
        ({"output.trackers": ["wandb"]}, MissingExtra),
    ):
        settings = load_settings(overrides=overrides | changes)
        with pytest.raises(error):
            train(settings, progress=False)
        assert not (tmp_path / "run").exists()


def test_training_works_outside_the_main_thread(overrides: Overrides) -> None:
    results: list[Any] = []
    settings = load_settings(overrides=overrides)
    thread = threading.Thread(target=lambda: results.append(train(settings, progress=False)))
    thread.start()
    thread.join()
    assert results[0].epochs == 2


def test_record_and_card_hold_real_figures(overrides: Overrides) -> None:
    result = train(load_settings(overrides=overrides), progress=False)
    assert result.last is not None
    record = json.loads((result.last.path / "cliptune.json").read_text())
    row = result.history[-1]
    assert record["metrics"]["val_accuracy"] == row["val_accuracy"]
    assert record["class_names"] == ["amber", "blue", "cyan"]
    card = (result.last.path / "README.md").read_text()
    assert "validation split, 12 photos" in card
    low, high = wilson_interval(row["val_accuracy"], 12)
    assert f"{100 * row['val_accuracy']:.1f} % ({100 * low:.1f}–{100 * high:.1f})" in card
    assert not list(result.last.path.rglob("*.pt")) + list(result.last.path.rglob("*.bin"))


@pytest.mark.parametrize("kind", ["device", "host"])
def test_out_of_memory_halves_the_micro_batch_and_steps_the_same(
    overrides: dict[str, Any], caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    """Memory is made to run out above three photos: the update is that of the whole batch."""

    def updated(limit: int) -> tuple[dict[str, torch.Tensor], int]:
        run = set_up(load_settings(overrides=overrides))

        def fail(module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
            if len(inputs[0]) > limit:
                if kind == "device":
                    raise torch.OutOfMemoryError("CUDA out of memory")
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

        run.model.register_forward_pre_hook(fail)
        for parameters in run.optimizer.param_groups:
            parameters["lr"] = 1e-2
        batch = next(iter(run.train_loader))
        assert len(batch) == 8
        gradients: dict[str, torch.Tensor] = {}

        def keep(*_: Any) -> None:
            for name, parameter in run.classifier.named_parameters():
                if parameter.grad is not None:
                    gradients.setdefault(name, parameter.grad.clone())

        run.optimizer.optimizer.register_step_pre_hook(keep)
        assert step(run, [batch])[0] > 0
        step(run, [batch])  # the next update starts with the smaller micro-batches
        return gradients, run.pieces

    expected, whole = updated(limit=8)
    found, pieces = updated(limit=3)
    assert (whole, pieces) == (1, 4)
    assert caplog.text.count("out of memory") == 2  # 8 -> 4 -> 2, each said once
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-6)
    with pytest.raises((RuntimeError, torch.OutOfMemoryError), match="memory"):
        updated(limit=0)


@pytest.mark.parametrize("towers", ["vision", "both"])
def test_fast_and_plain_paths_train_alike(
    overrides: dict[str, Any], tmp_path: Path, towers: str
) -> None:
    """Losses are the same to rounding: the two draw the same dropout masks."""
    histories = []
    for fast in (True, False):
        settings = {
            "hardware.fast": fast,
            "lora.towers": towers,
            "output.output_dir": str(tmp_path / str(fast)),
        }
        histories.append(train(load_settings(overrides=overrides | settings)).history)
    for ours, plain in zip(*histories, strict=True):
        assert ours["train_loss"] == pytest.approx(plain["train_loss"], abs=1e-4)
        assert ours["val_loss"] == pytest.approx(plain["val_loss"], abs=1e-4)


def test_a_run_with_a_store_ends_like_one_without(
    overrides: dict[str, Any], tmp_path: Path
) -> None:
    weights = []
    for cache in (True, False):
        output = tmp_path / str(cache)
        settings = {"data.cache": cache, "output.output_dir": str(output)}
        train(load_settings(overrides=overrides | settings))
        weights.append(load_file(output / "checkpoint-epoch-2" / "adapter_model.safetensors"))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
