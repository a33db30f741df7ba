"""A search where photos have several labels: by mean average precision, labels beside photos."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cliptune import evaluate_multilabel
from cliptune.config import Settings, load_settings
from cliptune.data.multilabel import LABELS_FILE, load_multilabel_training, targets_of, write_labels
from cliptune.errors import SettingsError, UserError
from cliptune.evaluation.statistics.intervals import Estimate
from cliptune.model.checkpoint import read_checkpoint, resolve_checkpoint
from cliptune.text import columns
from cliptune.tuning.parts import make_parts
from cliptune.tuning.proof import prove_of_several
from cliptune.tuning.text import tuning_text
from cliptune.tuning.tune import tune
from cliptune.tuning.tuning import Proof, Trial, Tuning
from conftest import COLORS

ONE_EPOCH = ("training.num_epochs",)


@pytest.fixture(scope="module")
def sheets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of up to three colours, in one half each; those of val are told apart less well."""
    folder, rng = tmp_path_factory.mktemp("sheets"), np.random.default_rng(0)
    for split, count in {"train": 30, "val": 24}.items():
        rows = {}
        (folder / split).mkdir()
        for number in range(count):
            labels = sorted(rng.permutation(list(COLORS))[: rng.integers(0, 3)].tolist())
            pixels = np.full((40, 40, 3), 128.0)
            for place, label in enumerate(labels):
                pixels[:, 20 * place : 20 * place + 20] = COLORS[label]
            pixels += rng.normal(0, 90, pixels.shape)
            name = f"{split}_{number:03d}.png"
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / split / name)
            rows[name] = labels
        write_labels(folder / split / LABELS_FILE, rows)
    return folder


@pytest.fixture(scope="module")
def settings(sheets: Path, clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("settings")
    return load_settings(
        overrides={
            "model.name": str(clip_folder), "data.data_dir": str(sheets), "data.num_workers": 0,
            "training.batch_size": 8, "training.num_epochs": 1, "training.min_updates": 0,
            "training.val_in_head": "never", "output.output_dir": str(folder / "run"),
            "output.log_dir": str(folder / "logs"), "hardware.device": "cpu",
            "hardware.mixed_precision": False, "seed": 1,
        }
    )  # fmt: skip


def searched(settings: Settings, folder: Path, trials: int, **options: Any) -> Tuning:
    return tune(
        settings, output_dir=folder, trials=trials, fixed=ONE_EPOCH, progress=False, **options
    )


@pytest.fixture(scope="module")
def found(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Tuning:
    """A search of three trials, gone on with after two; for tests that change nothing."""
    folder = tmp_path_factory.mktemp("search")
    searched(settings, folder, 2)
    return searched(settings, folder, 3, resume=True)


def checkpoint_of(tuning: Tuning, number: int) -> Path:
    return resolve_checkpoint(tuning.output_dir / f"trial-{number:03}" / "run-1").path


def test_the_best_trial_is_that_of_the_highest_mean_average_precision_on_val(
    found: Tuning,
) -> None:
    assert found.best is not None
    known = [trial.val_mean_ap for trial in found.trials if trial.state == "complete"]
    assert found.best.val_mean_ap == max(known, key=lambda x: x or 0.0)
    metrics = read_checkpoint(checkpoint_of(found, 0)).record.metrics
    assert found.trials[0].val_mean_ap == pytest.approx(metrics["val_mean_ap"])
    saved = json.loads((found.output_dir / "tuning.json").read_text(encoding="utf-8"))
    assert [trial["val_mean_ap"] for trial in saved["trials"]] == [
        trial.val_mean_ap for trial in found.trials
    ]
    assert saved["compared_by"] == "val_mean_ap"
    assert (found.output_dir / "tuning.png").read_bytes().startswith(b"\x89PNG")
    head = (found.output_dir / "best_config.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert f"mAP on val {found.best.val_mean_ap:.2%}" in head
    assert load_settings(found.output_dir / "best_config.yaml") == found.settings_of(found.best)


def test_what_is_compared_by_is_precision_though_the_loss_says_otherwise(found: Tuning) -> None:
    trials = tuple(
        Trial(number, "complete", {}, loss, 0.5, 1.0, None, mean_ap)
        for number, loss, mean_ap in ((0, 0.1, 0.7), (1, 0.9, 0.8), (2, 0.5, 0.8))
    )
    search = Tuning(
        output_dir=found.output_dir, settings=found.settings, spaces={}, folds=None,
        num_choosing=9, num_apart=9, trials=trials, importances={}, several=True,
    )  # fmt: skip
    assert search.best is trials[1]
    proof = Proof(9, 0.5, 0.4, 0.5, 0.6, Estimate(0.1, 0.05, 0.2), 0.7, 0.8)
    text = tuning_text(Tuning(**{**search.__dict__, "proof": proof}))
    assert "mAP 80.0 % on val against 70.0 %" in " ".join(text.split())
    assert "It is better than the default" in text
    assert [line[1:6].strip() for line in text.splitlines()[1:4]] == ["1", "2", "0"]


def test_the_proof_is_what_evaluation_measures_of_the_two(found: Tuning, sheets: Path) -> None:
    _, val = load_multilabel_training(sheets, val_ratio=0.1, seed=0)
    default = checkpoint_of(found, 0)
    assert found.best is not None
    best = checkpoint_of(found, found.best.number)
    proof = prove_of_several([default], [best], val, found.settings, progress=False)
    for path, mean_ap, exact, loss in (
        (default, proof.default_mean_ap, proof.default_accuracy, proof.default_loss),
        (best, proof.best_mean_ap, proof.best_accuracy, proof.best_loss),
    ):
        measured = evaluate_multilabel(
            path, data_dir=sheets, split="val", output_dir=None, num_workers=0, baseline=False,
            device="cpu", progress=False,
        )  # fmt: skip
        assert mean_ap == pytest.approx(measured.mean_ap)
        assert exact == pytest.approx(measured.figures.exact.value)
        assert loss == pytest.approx(measured.loss, abs=1e-6)
    assert proof.gain is not None
    same = prove_of_several([best, best], [best, best], val, found.settings, progress=False)
    assert same.gain is not None
    assert (same.gain.value, same.verdict) == (0, "indistinguishable")
    assert same.best_mean_ap == pytest.approx(proof.best_mean_ap)


def test_each_photo_keeps_its_labels_and_is_held_out_once(sheets: Path) -> None:
    train, val = load_multilabel_training(sheets, val_ratio=0.1, seed=0)
    truth = dict(zip(train.samples + val.samples, (train.several or ()) + (val.several or ()),
                     strict=True))  # fmt: skip
    parts = make_parts(train, val, folds=3, seed=3)
    apart = set(parts.apart.samples)
    halves = targets_of(val).sum(axis=0) - targets_of(parts.apart).sum(axis=0)
    assert np.all(np.abs(halves - targets_of(parts.apart).sum(axis=0)) <= 2)
    held = [sample for _, fold in parts.runs for sample in fold.samples]
    assert sorted(s.path for s in held) == sorted(s.path for s in set(truth) - apart)
    for learned, fold in parts.runs:
        assert set(learned.samples) == set(held) - set(fold.samples)
        for split in (learned, fold, parts.apart):
            assert split.several == tuple(truth[sample] for sample in split.samples)
        assert targets_of(learned).any(axis=0).all()
    whole = make_parts(train, val, folds=None, seed=3)
    assert whole.apart == parts.apart
    assert whole.runs[0][0] == train


def test_groups_of_photos_with_several_labels_are_never_learned_from_and_measured_on(
    sheets: Path,
) -> None:
    train, val = load_multilabel_training(sheets, val_ratio=0.1, seed=0)
    groups = tuple(start + np.arange(len(part)) // 3 for start, part in ((0, train), (99, val)))
    group_of = dict(zip(train.samples + val.samples, np.concatenate(groups).tolist(), strict=True))
    parts = make_parts(train, val, folds=3, seed=3, groups=(groups[0], groups[1]))
    apart = {group_of[sample] for sample in parts.apart.samples}
    assert apart
    for learned, fold in parts.runs:
        sides = [{group_of[s] for s in part.samples} for part in (learned, fold)]
        assert not sides[0] & sides[1]
        assert not (sides[0] | sides[1]) & apart
    one = np.zeros(len(train), dtype=np.int64)
    with pytest.raises(UserError, match="groups that stay together, and those make no 3 folds"):
        make_parts(train, val, folds=3, seed=3, groups=(one, np.ones(len(val), dtype=np.int64)))


def test_a_trial_by_folds_has_the_mean_precision_out_of_fold(
    settings: Settings, tmp_path: Path
) -> None:
    tuning = searched(settings, tmp_path / "search", 1, folds=2)
    runs = sorted((tmp_path / "search" / "trial-000").glob("run-*"))
    records = [resolve_checkpoint(path).record.metrics for path in runs]
    weights = [record["val_images"] for record in records]
    assert sum(weights) == tuning.num_choosing == 30 + 12
    expected = np.average([record["val_mean_ap"] for record in records], weights=weights)
    assert tuning.trials[0].val_mean_ap == pytest.approx(expected)
    assert max(map(columns, tuning_text(tuning).splitlines())) <= 80
    assert "mAP" in tuning_text(tuning).splitlines()[0]


def test_settings_of_one_label_are_refused_before_a_trial_begins(
    settings: Settings, tmp_path: Path
) -> None:
    values = settings.to_dict()
    values["training"]["sampling"] = "balanced"
    with pytest.raises(SettingsError, match=r"training\.sampling"):
        searched(Settings.model_validate(values), tmp_path / "search", 1)
    assert not list((tmp_path / "search").glob("trial-*"))
