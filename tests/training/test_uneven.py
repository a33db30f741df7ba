"""Classes with many photos and classes with few: the loss, what stays in the logits, resuming."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn.functional import cross_entropy, log_softmax

from cliptune.config import TrainingSettings, load_settings
from cliptune.data.folder import Sample, Split
from cliptune.errors import SettingsError
from cliptune.model.answers import softmax
from cliptune.model.checkpoint import read_checkpoint
from cliptune.training.head.fitting import fit_head
from cliptune.training.setup import set_up
from cliptune.training.step import step
from cliptune.training.train import train
from cliptune.training.uneven import UnevenLoss, class_weights, uneven_loss
from conftest import make_photos, tensors

Overrides = dict[str, Any]
NAMES = ("amber", "blue", "cyan")
LABELS = np.repeat([0, 1, 2], [12, 6, 2])
COUNTS_C = np.array([12.0, 6.0, 2.0])


def loss_by(**training: Any) -> UnevenLoss:
    samples = tuple(Sample(Path(f"{i}.png"), int(label)) for i, label in enumerate(LABELS))
    split = Split(name="train", class_names=NAMES, samples=samples)
    return uneven_loss(TrainingSettings(**training), split)


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(20, 3), torch.tensor(LABELS)


def test_balanced_weights_are_scikit_learns_and_mean_one_over_photos() -> None:
    weights_C = class_weights("balanced", NAMES, COUNTS_C)
    expected_C = compute_class_weight("balanced", classes=np.arange(3), y=LABELS)
    assert weights_C == pytest.approx(expected_C)
    assert weights_C[LABELS].mean() == pytest.approx(1)


def test_named_weights_go_by_name_and_other_classes_weigh_one() -> None:
    assert class_weights({"cyan": 3, " amber": 0.5}, NAMES, COUNTS_C).tolist() == [0.5, 1, 3]
    assert class_weights("none", NAMES, COUNTS_C).tolist() == [1, 1, 1]


def test_the_loss_is_the_sum_of_weighted_losses_and_parts_add_up_to_the_whole() -> None:
    logits_BC, labels_B = batch()
    each_B = cross_entropy(logits_BC, labels_B, reduction="none")
    assert torch.equal(loss_by().summed(logits_BC, labels_B), each_B.sum())
    weighted = loss_by(class_weights={"cyan": 3.0, "blue": 0.25})
    expected = (each_B * torch.tensor([1.0, 0.25, 3.0])[labels_B]).sum()
    found = weighted.summed(logits_BC, labels_B)
    assert float(found) == pytest.approx(float(expected), rel=1e-6)
    parts = [weighted.summed(logits_BC[part], labels_B[part]) for part in (slice(7), slice(7, 20))]
    assert float(sum(parts)) == pytest.approx(float(found), rel=1e-6)


@pytest.mark.parametrize("tau", [0.5, 1.0, 2.0])
def test_logit_adjustment_adds_tau_times_the_log_prior_in_the_loss(tau: float) -> None:
    logits_BC, labels_B = batch()
    log_prior_C = torch.log(torch.tensor(COUNTS_C / COUNTS_C.sum())).float()
    log_p_BC = log_softmax(logits_BC + tau * log_prior_C, dim=1)
    expected = -log_p_BC[torch.arange(20), labels_B].sum()
    found = loss_by(logit_adjustment=tau).summed(logits_BC, labels_B)
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


def fitted_shares(loss: UnevenLoss, drawn_C: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """What logits that see no photo learn: the shares of classes for which they answer."""
    logits_C = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits_C], max_iter=200, tolerance_grad=1e-10)
    weights_C = torch.ones(3).double() if loss.weights_C is None else loss.weights_C.double()
    shifts_C = 0 if loss.shifts_C is None else loss.shifts_C.double()

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        of_class_C = -log_softmax(logits_C + shifts_C, dim=0)
        total = (torch.tensor(drawn_C) * weights_C * of_class_C).sum()
        total.backward()
        return total

    optimizer.step(closure)
    shares_C: np.ndarray[Any, Any] = torch.softmax(logits_C.detach(), dim=0).numpy()
    return shares_C


@pytest.mark.parametrize(
    ("training", "drawn_C"),
    [
        ({}, COUNTS_C),
        ({"class_weights": "balanced"}, COUNTS_C),
        ({"class_weights": {"cyan": 3.0}}, COUNTS_C),
        ({"class_weights": {"cyan": 3.0}, "logit_adjustment": 0.5}, COUNTS_C),
        ({"logit_adjustment": 1.0}, COUNTS_C),
        ({"logit_adjustment": 0.3}, COUNTS_C),
        ({"sampling": "balanced"}, np.ones(3)),
        ({"sampling": "balanced", "class_weights": {"blue": 2.0}}, np.ones(3)),
    ],
    ids=str,
)
def test_the_prior_recorded_is_what_logits_learn_where_photos_say_nothing(
    training: dict[str, Any], drawn_C: np.ndarray[Any, Any]
) -> None:
    loss = loss_by(**training)
    assert loss.prior_C == pytest.approx(fitted_shares(loss, drawn_C), abs=1e-5)


def test_unknown_classes_are_refused_together_with_the_nearest_names(
    overrides: Overrides,
) -> None:
    overrides |= {"training.class_weights": {"ambr": 2.0, "cyan": 1.0, "dog": 3.0}}
    with pytest.raises(SettingsError, match=r"(?s)'ambr'\. Did you mean 'amber'\?.*'dog'\.") as at:
        set_up(load_settings(overrides=overrides), progress=False)
    assert "Classes of the data folder: amber, blue, cyan." in str(at.value)


def test_two_ways_of_evening_out_classes_are_refused_together() -> None:
    both = {"training.class_weights": "balanced", "training.sampling": "balanced"}
    with pytest.raises(SettingsError, match=r"class_weights 'balanced' beside training\.sampling"):
        load_settings(overrides=both)
    adjusted = {"training.sampling": "balanced", "training.logit_adjustment": 1.0}
    with pytest.raises(SettingsError, match="keep one of them"):
        load_settings(overrides=adjusted)
    load_settings(overrides={"training.class_weights": {"a": 2}, "training.sampling": "balanced"})


@pytest.mark.parametrize(
    "bad", ["balance", 3, None, {"a": 0}, {"a": "much"}, {1: 2.0}, {"a": True}]
)
def test_weights_that_are_none_are_refused_in_one_sentence(bad: object) -> None:
    with pytest.raises(SettingsError, match=r"training\.class_weights: found") as at:
        load_settings(overrides={"training.class_weights": bad})
    assert len(str(at.value).splitlines()) == 1


def test_an_update_divides_the_weighted_sum_by_the_number_of_photos(overrides: Overrides) -> None:
    """Twice the weight of every class: twice the gradient, and the same one in micro-batches."""

    def gradient(weight: float, *, size: int = 8) -> torch.Tensor:
        weights = dict.fromkeys(NAMES, weight)
        cut = {"training.batch_size": size, "training.gradient_accumulation_steps": 8 // size}
        settings = overrides | cut | {"training.class_weights": weights}
        settings |= {"training.max_grad_norm": 1e9}
        run = set_up(load_settings(overrides=settings), progress=False)
        batches = list(run.train_loader)[: 8 // size]
        kept: list[torch.Tensor] = []
        run.optimizer.optimizer.register_step_pre_hook(
            lambda *_: kept.extend(
                p.grad.flatten().clone() for p in run.trained if p.grad is not None
            )
        )
        step(run, batches)
        return torch.cat(kept)

    once = gradient(1.0)
    assert torch.allclose(gradient(2.0), 2 * once, rtol=1e-4, atol=1e-7)
    assert torch.allclose(gradient(1.0, size=2), once, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    "choice",
    [
        {"training.sampling": "balanced", "training.class_weights": {"amber": 2.0}},
        {"training.logit_adjustment": 1.0},
    ],
    ids=str,
)
def test_a_run_over_uneven_classes_resumes_in_mid_epoch_to_the_same_weights(
    overrides: Overrides, tmp_path: Path, choice: Overrides
) -> None:
    data = make_photos(tmp_path / "photos")
    for photo in sorted((data / "train" / "cyan").iterdir())[2:]:
        photo.unlink()
    overrides |= {"data.data_dir": str(data), "training.batch_size": 4} | choice
    overrides |= {"evaluation.save_steps": 7, "output.save_total_limit": 9}
    whole = train(load_settings(overrides=overrides), progress=False)
    assert whole.last is not None
    again = tmp_path / "again"
    shutil.copytree(whole.output_dir / "checkpoint-step-7", again / "checkpoint-step-7")
    settings = load_settings(overrides=overrides | {"output.output_dir": str(again)})
    resumed = train(settings, resume=True, progress=False)
    assert resumed.last is not None
    expected, found = tensors(whole.last.path), tensors(resumed.last.path)
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    shares = [9, 8, 1] if "training.sampling" not in choice else [2, 1, 1]
    prior = np.ones(3) if "training.sampling" not in choice else np.array(shares)
    recorded = read_checkpoint(resumed.last.path).record.prior
    assert recorded == pytest.approx((prior / prior.sum()).tolist())
    other = load_settings(
        overrides=overrides | {"output.output_dir": str(again), "training.logit_adjustment": 0.5,
                               "training.sampling": "uniform"}
    )  # fmt: skip
    with pytest.raises(SettingsError, match="had other settings"):
        train(other, resume=True, progress=False)


@pytest.mark.parametrize(
    "training",
    [{"class_weights": "balanced"}, {"logit_adjustment": 0.5}, {"class_weights": {"cyan": 4.0}}],
    ids=str,
)
def test_a_head_fitted_first_learns_the_prior_of_the_loss(training: dict[str, Any]) -> None:
    """From features that say nothing of the class it answers with `prior_C`, not with counts."""
    loss = loss_by(**training)
    rng = np.random.default_rng(0)
    labels_N = np.repeat([0, 1, 2], [240, 120, 40])
    features_ND, text_CD = rng.normal(size=(400, 8)), np.eye(3, 8)
    fit = fit_head(
        features_ND, labels_N, text_CD, 1.0, seed=0, with_text=False,
        shifts_C=loss.shifts_for(labels_N),
    )  # fmt: skip
    logits_NC = fit.logits(features_ND)
    shifted_NC = logits_NC + loss.shifts_for(labels_N)
    assert softmax(shifted_NC).mean(axis=0) == pytest.approx([0.6, 0.3, 0.1], abs=0.02)
    assert softmax(logits_NC).mean(axis=0) == pytest.approx(loss.prior_C, abs=0.04)


def test_nothing_is_added_to_a_head_of_photos_that_count_alike() -> None:
    assert not loss_by().shifts_for(LABELS).any()
    assert not loss_by(sampling="balanced").shifts_for(np.array([0, 1, 2])).any()
