"""The first stage of a run: a head on frozen features, from which adapters start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression

from cliptune import Predictor, evaluate
from cliptune.config import load_settings
from cliptune.data.folder import Sample
from cliptune.data.loading import PhotoDataset, make_loader
from cliptune.errors import DataError
from cliptune.model.checkpoint import HEAD, read_checkpoint
from cliptune.model.classifier import Classifier, FittedHead, predict_logits
from cliptune.model.loaded import LoadedCheckpoint
from cliptune.model.restore import load_classifier
from cliptune.training.head.fitting import FoldHeads, fit_head
from cliptune.training.head.folds import shifts_of
from cliptune.training.head.logistic import directions
from cliptune.training.head.mixture import accuracy, log_loss
from cliptune.training.head.stage import put_in, some_of_each, start_from_fitted_head
from cliptune.training.run import Run
from cliptune.training.setup import set_up
from cliptune.training.train import train
from conftest import DEVICE, distance, make_photos, names, tensors

Overrides = dict[str, Any]


def said_of(classifier: Classifier, run: Run) -> tuple[np.ndarray, np.ndarray]:
    """(logits, features) of the training photos of `run`, as they are."""
    photos = PhotoDataset(run.train_samples, run.backbone.preprocess)
    device = next(classifier.parameters()).device
    said = predict_logits([classifier], make_loader(photos, batch_size=8), device)
    return said.logits[0], said.features[0]


def learnt(overrides: Overrides) -> Run:
    """A run whose head was fitted and whose adapters and head then learned something."""
    run = set_up(load_settings(overrides=overrides), progress=False)
    start_from_fitted_head(run, progress=False)
    with torch.no_grad():
        for parameter in run.trained:
            parameter.add_(
                0.05 * torch.randn(parameter.shape, generator=torch.manual_seed(3)).to(DEVICE)
            )
    return run


def test_checkpoint_0_predicts_as_scikit_learn_fitted_to_the_same_objective(
    overrides: Overrides,
) -> None:
    """A head without text: one ridge regression, its strength and weight chosen by ourselves."""
    overrides |= {"model.head": "linear", "training.num_epochs": 1}
    train(load_settings(overrides=overrides), progress=False)
    run = set_up(load_settings(overrides=overrides), progress=False)
    _, features_ND = said_of(run.classifier, run)
    labels_N = np.array([sample.label for sample in run.train_samples])
    text_CD = run.zero_shot.features.cpu().numpy()
    weight_DH = run.backbone.model.visual_projection.weight.detach().cpu().numpy()
    (part,) = fit_head(
        features_ND, labels_N, text_CD, 1.0, seed=42, projection_DH=weight_DH, with_text=False
    ).parts

    units_ND = features_ND / np.linalg.norm(features_ND, axis=1, keepdims=True)
    points_NH = units_ND @ np.linalg.pinv(weight_DH.astype(np.float64)).T
    points_NH = (points_NH - points_NH.mean(axis=0)) / points_NH.std(axis=0)
    points_NH /= np.sqrt((points_NH**2).sum(axis=1).mean())
    points_NH = np.hstack([points_NH, np.ones((len(labels_N), 1))])
    theirs = LogisticRegression(
        C=1 / (part.strength * len(labels_N)), fit_intercept=False, tol=1e-10, max_iter=10_000
    ).fit(points_NH, labels_N)
    expected_NC = torch.from_numpy(part.weight * theirs.decision_function(points_NH)).softmax(1)

    found = load_classifier(
        read_checkpoint(Path(overrides["output.output_dir"], "checkpoint-epoch-0"))
    )
    ours_NC = torch.from_numpy(said_of(found, run)[0]).softmax(1)
    torch.testing.assert_close(ours_NC.double(), expected_NC, atol=1e-4, rtol=0)


def test_the_module_answers_as_the_fit_does(overrides: Overrides) -> None:
    run = set_up(load_settings(overrides=overrides), progress=False)
    rng = np.random.default_rng(0)
    features_ND = rng.normal(size=(30, run.zero_shot.features.shape[1]))
    labels_N = np.arange(30) % 3
    head = run.classifier.head
    assert isinstance(head, FittedHead)
    fit = fit_head(
        features_ND,
        labels_N,
        run.zero_shot.features.cpu().numpy(),
        head.logit_scale.exp().item(),
        seed=0,
    )
    put_in(head, fit)
    ours = head(torch.from_numpy(features_ND).float().to(DEVICE), head.weights())
    np.testing.assert_allclose(ours.detach().cpu(), fit.logits(features_ND), atol=1e-4)


@pytest.mark.parametrize("towers", ["vision", "both"])
def test_at_strength_0_all_that_was_learned_is_gone(overrides: Overrides, towers: str) -> None:
    overrides |= {"lora.towers": towers}
    run = set_up(load_settings(overrides=overrides), progress=False)
    start_from_fitted_head(run, progress=False)
    before, _ = said_of(run.classifier, run)
    run = learnt(overrides)
    after, _ = said_of(run.classifier, run)
    with run.classifier.at_strength(0.0):
        weakened, _ = said_of(run.classifier, run)
    again, _ = said_of(run.classifier, run)
    assert np.abs(after - before).max() > 0.1
    np.testing.assert_allclose(weakened, before, atol=1e-5)
    np.testing.assert_array_equal(again, after)


@pytest.mark.parametrize("strength", [0.5, 1.0])
@pytest.mark.parametrize("changes", [{}, {"lora.towers": "both"}, {"lora.use_rslora": True}])
def test_a_weakened_checkpoint_answers_as_it_did_merged_and_in_peft(
    overrides: Overrides, tmp_path: Path, strength: float, changes: Overrides
) -> None:
    from dataclasses import replace

    from cliptune.training.saving import save
    from cliptune.training.validation import validate

    run = learnt(overrides | changes)
    with run.classifier.at_strength(strength):
        before, _ = said_of(run.classifier, run)
    save(run, "checkpoint-step-1", replace(validate(run), strength=strength))
    found = read_checkpoint(Path(overrides["output.output_dir"]) / "checkpoint-step-1")
    merged, _ = said_of(load_classifier(found), run)
    np.testing.assert_allclose(merged, before, atol=1e-4)

    from peft import PeftModel

    loaded = LoadedCheckpoint(found)
    plain = PeftModel.from_pretrained(loaded._base, str(found.path)).eval()
    by_peft, _ = said_of(Classifier(plain, loaded._head, loaded._preprocess), run)
    np.testing.assert_allclose(by_peft, before, atol=1e-4)


def test_a_checkpoint_without_its_head_is_refused_not_guessed(overrides: Overrides) -> None:
    result = train(load_settings(overrides=overrides), progress=False)
    assert result.last is not None
    (result.last.path / HEAD).unlink()
    with pytest.raises(Exception, match=f"{HEAD} missing"):
        Predictor(result.last.path)


@pytest.mark.parametrize("val_in_head", ["never", "few_photos"])
def test_a_run_that_goes_on_from_epoch_0_ends_to_the_bit_as_one_that_did_not_stop(
    overrides: Overrides, tmp_path: Path, val_in_head: str
) -> None:
    import shutil

    overrides |= {"training.min_updates": 12, "training.val_in_head": val_in_head}
    whole = train(load_settings(overrides=overrides), progress=False)
    stopped = tmp_path / "stopped"
    for name in names(whole.output_dir):
        if name == "checkpoint-epoch-0":
            shutil.copytree(whole.output_dir / name, stopped / name)
    settings = load_settings(overrides=overrides | {"output.output_dir": str(stopped)})
    again = train(settings, resume=True, progress=False)
    assert whole.last is not None
    assert again.last is not None
    assert again.updates == whole.updates == 12
    criteria = [[row["val_criterion"] for row in end.history] for end in (again, whole)]
    assert criteria[0] == criteria[1]
    assert distance(tensors(again.last.path), tensors(whole.last.path)) == 0
    ours, theirs = (load_file(end.last.path / HEAD) for end in (again, whole) if end.last)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_where_photos_are_few_checkpoints_hold_a_head_that_val_is_in_and_val_is_measured_without(
    overrides: Overrides, tmp_path: Path
) -> None:
    ends = {}
    for choice in ("never", "few_photos"):
        folder = str(tmp_path / choice)
        more = {"training.val_in_head": choice, "output.output_dir": folder}
        ends[choice] = train(load_settings(overrides=overrides | more), progress=False)
    for one, other in zip(*(end.history for end in ends.values()), strict=True):
        figures = {key for key in one if "loss" in key or "accuracy" in key}
        assert [one[key] for key in figures] == [other[key] for key in figures]
    run = set_up(load_settings(overrides=overrides | more), progress=False)
    samples = [*run.train_samples, *run.val_samples]
    photos = make_loader(PhotoDataset(samples, run.backbone.preprocess), batch_size=8)
    features_ND = predict_logits([run.classifier], photos, torch.device(DEVICE)).features[0]
    fit = fit_head(
        features_ND, np.array([sample.label for sample in samples]),
        run.zero_shot.features.cpu().numpy(), run.zero_shot.logit_scale.exp().item(), seed=42,
        projection_DH=run.backbone.model.visual_projection.weight.detach().cpu().numpy(),
    )  # fmt: skip
    with_val, without = (
        said_of(load_classifier(read_checkpoint(end.output_dir / "checkpoint-epoch-0")), run)[0]
        for end in reversed(ends.values())
    )
    expected = fit.logits(said_of(run.classifier, run)[1])
    np.testing.assert_allclose(with_val, expected, atol=1e-3)
    assert np.abs(with_val - without).max() > 1e-2
    found = ends["few_photos"].last
    assert found is not None
    assert found.record.val_in_head
    seen = evaluate(
        found.path, split="val", output_dir=None, num_workers=0, baseline=False, progress=False
    ).seen
    assert seen is not None
    assert seen.trained_on == 12


def test_one_photo_a_class_and_no_val_gives_a_classifier_and_says_so(
    overrides: Overrides, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "one"
    make_photos(folder, counts={"train": 1, "test": 4})
    overrides |= {"data.data_dir": str(folder)}
    with caplog.at_level("INFO"):
        result = train(load_settings(overrides=overrides), progress=False)
    assert "no photo is left for val" in caplog.text
    assert "too few photos to hold any out" in caplog.text
    assert names(result.output_dir) == ["checkpoint-epoch-0"]
    assert result.best is not None
    assert result.epochs == 0
    paths = sorted((folder / "test").rglob("*.png"))
    predictions = Predictor(result.output_dir).predict_batch(paths)
    right = [p.label == path.parent.name for p, path in zip(predictions, paths, strict=True)]
    assert sum(right) > 0.8 * len(right)
    plain = load_settings(overrides=overrides | {"training.recipe": "plain"})
    with pytest.raises(DataError, match="no photo left for val"):
        train(plain, overwrite=True, progress=False)


def test_few_photos_get_as_many_updates_as_are_asked_for_in_other_views(
    overrides: Overrides,
) -> None:
    # 24 photos: 3 batches of 8; 2 epochs of 3 rounds are 18 updates, of 2 rounds 12
    overrides |= {"training.min_updates": 13}
    run = set_up(load_settings(overrides=overrides), progress=False)
    assert run.batches.rounds == 3
    assert run.updates_per_epoch == 9
    views: dict[int, list[int]] = {}
    for run.batches.epoch in (0, 1):
        for batch in run.batches:
            assert len({key.view for key in batch}) == 1
            for key in batch:
                views.setdefault(key.photo, []).append(key.view)
    assert views == {photo: list(range(6)) for photo in range(24)}


def test_the_plain_recipe_starts_from_zero_shot_and_writes_no_epoch_0(
    overrides: Overrides,
) -> None:
    overrides |= {"training.recipe": "plain", "training.min_updates": 1000}
    result = train(load_settings(overrides=overrides), progress=False)
    assert result.updates == 6
    assert names(result.output_dir) == ["checkpoint-epoch-1", "checkpoint-epoch-2"]
    assert result.last is not None
    assert result.last.record.head == "text"


def test_of_very_many_photos_as_many_of_each_class_are_taken() -> None:
    labels = [0] * 50 + [1] * 3 + [2] * 20
    samples = [Sample(Path(f"{i}.jpg"), label) for i, label in enumerate(labels)]
    few = list(some_of_each(samples, most=30, seed=1))
    assert [sum(samples[i].label == label for i in few) for label in range(3)] == [10, 3, 10]
    assert few == sorted(few)
    assert few == list(some_of_each(samples, most=30, seed=1))
    assert few != list(some_of_each(samples, most=30, seed=2))
    assert list(some_of_each(samples, most=73, seed=1)) == list(range(73))


def test_adapters_learn_against_heads_that_have_not_seen_the_photo(overrides: Overrides) -> None:
    """Before any update, on plain views, training loss and accuracy are the held-out ones."""
    overrides |= {
        "data.augmentation.enabled": False, "training.learning_rate": 1e-12,
        "training.num_epochs": 1, "lora.lora_dropout": 0.0,
    }  # fmt: skip
    result = train(load_settings(overrides=overrides), progress=False)
    run = set_up(load_settings(overrides=overrides), progress=False)
    _, features_ND = said_of(run.classifier, run)
    labels_N = np.array([sample.label for sample in run.train_samples])
    fit = fit_head(
        features_ND, labels_N, run.zero_shot.features.cpu().numpy(),
        run.zero_shot.logit_scale.exp().item(), seed=42,
        projection_DH=run.backbone.model.visual_projection.weight.detach().cpu().numpy(),
    )  # fmt: skip
    heads = fit.without_folds
    assert heads is not None
    assert heads.folds_N.min() == 0
    logits_NC = np.stack([
        directions(features_ND)[i] @ heads.weights_KCD[fold].T + heads.bias_KC[fold]
        for i, fold in enumerate(heads.folds_N)
    ])  # fmt: skip
    row = result.history[-1]
    assert row["train_loss"] == pytest.approx(log_loss(logits_NC, labels_N), rel=1e-3)
    assert row["train_accuracy"] == pytest.approx(accuracy(logits_NC, labels_N))
    assert log_loss(fit.logits(features_ND), labels_N) < 0.98 * row["train_loss"]


def test_photos_that_no_fold_holds_out_are_trained_against_the_head_itself(
    overrides: Overrides,
) -> None:
    run = set_up(load_settings(overrides=overrides), progress=False)
    head = run.classifier.head
    assert isinstance(head, FittedHead)
    rng = np.random.default_rng(0)
    classes, dim = head.fitted.shape
    heads = FoldHeads(
        weights_KCD=rng.normal(size=(2, classes, dim)), bias_KC=rng.normal(size=(2, classes)),
        folds_N=np.array([1, -1, 0]),
    )  # fmt: skip
    shifts = shifts_of(heads, head, np.array([0, 2, 3]), num_photos=5)
    features_BD = torch.from_numpy(rng.normal(size=(5, dim))).float().to(DEVICE)
    found = head(features_BD, head.weights(), shifts.of(torch.arange(5))).detach().cpu().numpy()
    own = head(features_BD, head.weights()).detach().cpu().numpy()
    np.testing.assert_array_equal(found[[1, 2, 4]], own[[1, 2, 4]])
    for place, fold in ((0, 1), (3, 0)):
        expected = directions(features_BD.cpu().numpy())[place] @ heads.weights_KCD[fold].T
        np.testing.assert_allclose(found[place], expected + heads.bias_KC[fold], atol=1e-4)
