"""A search: what it sees, what it tries, what it leaves, and how it goes on after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import yaml

from cliptune.cli import app
from cliptune.config import Settings, load_settings
from cliptune.data.folder import load_split, load_training_splits
from cliptune.errors import Interrupted, MissingExtra, UserError
from cliptune.evaluation.evaluate import evaluate
from cliptune.evaluation.statistics.intervals import Estimate
from cliptune.model.checkpoint import read_checkpoint
from cliptune.text import columns
from cliptune.training import train as training
from cliptune.tuning.parts import make_parts
from cliptune.tuning.proof import mean_difference, prove
from cliptune.tuning.space import SPACE, drawn_settings, ranges
from cliptune.tuning.study import JOURNAL
from cliptune.tuning.text import tuning_text
from cliptune.tuning.tune import tune
from cliptune.tuning.tuning import Proof, Tuning
from conftest import COLORS

ONE_EPOCH = ("training.num_epochs",)
OPENS = ("open", "os.listdir", "os.scandir")
events: list[tuple[str, Any]] = []
watching = False


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if watching and event in (*OPENS, "pickle.find_class"):
        events.append((event, arguments[0]))


sys.addaudithook(_note)


@pytest.fixture
def settings(overrides: dict[str, Any]) -> Settings:
    return load_settings(overrides=overrides | {"training.num_epochs": 1})


def searched(settings: Settings, folder: Path, trials: int, **options: Any) -> Tuning:
    return tune(
        settings, output_dir=folder, trials=trials, fixed=ONE_EPOCH, progress=False, **options
    )


@pytest.fixture(scope="module")
def found(
    clip_folder: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Tuning, list[tuple[str, Any]]]:
    """A search of three trials, and what was opened meanwhile; for tests that change nothing."""
    global watching
    folder = tmp_path_factory.mktemp("tuning")
    settings = load_settings(
        overrides={
            "model.name": str(clip_folder),
            "data.data_dir": str(photos),
            "data.num_workers": 0,
            "training.batch_size": 8,
            "training.num_epochs": 1,
            "training.min_updates": 0,
            "output.output_dir": str(folder / "run"),
            "output.log_dir": str(folder / "logs"),
            "hardware.device": "cpu",
            "hardware.mixed_precision": False,
            "seed": 3,
        }
    )
    watching = True
    searched(settings, folder / "search", 2)
    tuning = searched(settings, folder / "search", 3, resume=True)
    watching = False
    return tuning, events


def test_a_search_never_opens_test_and_reads_no_pickle(
    found: tuple[Tuning, list[tuple[str, Any]]],
) -> None:
    tuning, watched = found
    paths = [Path(os.fsdecode(what)) for event, what in watched
             if event in OPENS and isinstance(what, str | bytes | os.PathLike)]  # fmt: skip
    photos = tuning.settings.data.data_dir
    assert any(path.is_relative_to(photos / "val") for path in paths)
    assert not [path for path in paths if path.is_relative_to(photos / "test")]
    assert not [what for event, what in watched if event == "pickle.find_class"]


def test_trial_0_is_the_default_and_only_its_and_the_bests_checkpoints_are_kept(
    found: tuple[Tuning, Any],
) -> None:
    tuning, folder = found[0], found[0].output_dir
    assert tuning.settings_of(tuning.trials[0]) == tuning.settings
    assert tuning.numbers_of(tuning.trials[0])["lora.r"] == tuning.settings.lora.r
    assert tuning.best is not None
    kept = {path.parents[1].name for path in folder.glob("trial-*/run-1/checkpoint-*")}
    assert kept == {"trial-000", f"trial-{tuning.best.number:03}"}
    saved = load_settings(next(folder.glob("trial-000/run-1/checkpoint-*")) / "config.yaml")
    assert saved.training == tuning.settings.training
    losses = [t.val_loss for t in tuning.trials if t.state == "complete"]
    assert tuning.best.val_loss == min(losses)
    assert (folder / "tuning.png").read_bytes().startswith(b"\x89PNG")


def test_train_takes_the_best_config_as_it_is(
    found: tuple[Tuning, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    tuning, path = found[0], found[0].output_dir / "best_config.yaml"
    assert tuning.best is not None
    assert load_settings(path) == tuning.settings_of(tuning.best)
    assert load_settings(path).output == tuning.settings.output
    app(["train", "--config", str(path)], standalone_mode=False)
    assert "training finished" in capsys.readouterr().out


def drawn(folder: Path) -> list[dict[str, float]]:
    trials = json.loads((folder / "tuning.json").read_text())["trials"]
    return [trial["drawn"] for trial in trials]


def losses(folder: Path) -> list[float]:
    return [t["val_loss"] for t in json.loads((folder / "tuning.json").read_text())["trials"]]


@pytest.mark.slow
def test_a_search_that_was_killed_goes_on_to_what_an_undisturbed_one_finds(
    found: tuple[Tuning, Any], tmp_path: Path
) -> None:
    settings, whole, folder = found[0].settings, found[0].output_dir, tmp_path / "killed"
    line = [sys.executable, "-m", "cliptune", "tune", settings.data.data_dir, "--trials", "3"]
    line += ["--output-dir", folder, "--config", tmp_path / "config.yaml"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings.to_dict()))
    line += ["--set", "training.num_epochs=1"]
    with subprocess.Popen(line, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        while not list(folder.glob("trial-001/run-1/.lock")):
            assert process.poll() is None
            time.sleep(0.002)
        process.kill()
    with (folder / JOURNAL).open("ab") as file:
        file.write(b'{"op_code":6,"worker')  # the line that was being written
    searched(settings, folder, 3, resume=True)
    assert drawn(folder) == drawn(whole)
    assert losses(folder) == pytest.approx(losses(whole), rel=1e-5)
    assert (folder / "best_config.yaml").read_text() == (whole / "best_config.yaml").read_text()


@pytest.mark.parametrize(("update", "state"), [(2, "running"), (3, "complete")])
def test_a_stop_is_heard_in_the_middle_of_a_trial_and_in_its_last_epoch(
    found: tuple[Tuning, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    update: int,
    state: str,
) -> None:
    real_step, calls = training.step, 0

    def step_then_signal(run: Any, group: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == update:  # of three in the one epoch of trial 0
            signal.raise_signal(signal.SIGTERM)
        return real_step(run, group)

    monkeypatch.setattr(training, "step", step_then_signal)
    settings, folder = found[0].settings, tmp_path / "search"
    with pytest.raises(Interrupted, match=r"trial 0 of 1.*--resume"):
        searched(settings, folder, 1)
    trials = json.loads((folder / "tuning.json").read_text())["trials"]
    assert [trial["state"] for trial in trials] == [state]
    searched(settings, folder, 1, resume=True)
    assert losses(folder) == losses(found[0].output_dir)[:1]
    assert calls == 3


def test_no_trial_begins_once_time_is_up(settings: Settings, tmp_path: Path) -> None:
    assert searched(settings, tmp_path / "search", 9, minutes=0).trials == ()


def test_a_trial_worse_than_half_of_those_before_is_given_up(
    overrides: dict[str, Any], tmp_path: Path
) -> None:
    settings, folder = load_settings(overrides=overrides), tmp_path / "search"
    first = searched(settings, folder, 1).trials[0]
    backend = optuna.storages.journal.JournalFileBackend(str(folder / JOURNAL))
    study = optuna.load_study(study_name=None, storage=optuna.storages.JournalStorage(backend))
    run = {"val_loss": 9.0, "val_accuracy": 0.0, "val_photos": 6}
    for _ in range(4):  # far better after each epoch, as if it had not lasted
        study.add_trial(
            optuna.trial.create_trial(
                params=first.drawn, distributions=study.trials[0].distributions, value=9.0,
                intermediate_values={5: 0.0, 10: 0.0}, user_attrs={"runs": [run]},
            )
        )  # fmt: skip
    assert searched(settings, folder, 6, resume=True).trials[5].state == "pruned"
    assert len(study.trials[5].intermediate_values) == 1  # of two epochs
    assert not list(folder.glob("trial-005/run-1/checkpoint-*"))


def test_folds_hold_each_photo_out_once_and_what_is_set_apart_never_trains(photos: Path) -> None:
    train, val = load_training_splits(photos, val_ratio=0.1, seed=0)
    parts = make_parts(train, val, folds=5, seed=3)
    apart = set(parts.apart.samples)
    assert sorted(s.label for s in apart) == [0, 0, 1, 1, 2, 2]
    held = [sample for _, fold in parts.runs for sample in fold.samples]
    assert len(held) == len(set(held))
    assert set(held) == set(train.samples + val.samples) - apart
    for learned, fold in parts.runs:
        assert set(learned.samples) == set(held) - set(fold.samples)
        counts = np.bincount([s.label for s in fold.samples], minlength=3)
        assert np.all(counts == 2)
    halves = make_parts(train, val, folds=None, seed=3)
    assert halves.apart == parts.apart
    assert set(halves.runs[0][1].samples) == set(val.samples) - apart


def test_groups_are_never_learned_from_and_measured_on(photos: Path) -> None:
    train, val = load_training_splits(photos, val_ratio=0.1, seed=0)
    # Two photos to a group, those of val by other numbers.
    groups = tuple(start + np.arange(len(part)) // 2 for start, part in ((0, train), (99, val)))
    group_of = dict(zip(train.samples + val.samples, np.concatenate(groups).tolist(), strict=True))
    for folds in (None, 3):
        parts = make_parts(train, val, folds=folds, seed=3, groups=(groups[0], groups[1]))
        apart = {group_of[sample] for sample in parts.apart.samples}
        assert apart
        held = []
        for learned, chooses in parts.runs:
            sides = [{group_of[s] for s in part.samples} for part in (learned, chooses)]
            assert not sides[0] & sides[1]
            assert not (sides[0] | sides[1]) & apart
            assert {s.label for s in learned.samples} == {0, 1, 2}
            held += chooses.samples
        assert len(held) == len(set(held))
    one = np.zeros(len(train), dtype=np.int64)
    with pytest.raises(UserError, match="groups that stay together, and those make no 3 folds"):
        make_parts(train, val, folds=3, seed=3, groups=(one, np.ones(len(val), dtype=np.int64)))


def test_the_difference_of_near_copies_is_as_sure_as_that_of_their_groups() -> None:
    rng = np.random.default_rng(0)
    a_N, b_N = rng.gamma(0.3, size=(2, 40))
    alone = mean_difference(a_N, b_N)
    found = mean_difference(np.repeat(a_N, 5), np.repeat(b_N, 5), np.repeat(np.arange(40), 5))
    assert alone is not None
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx(
        (alone.value, alone.low, alone.high)
    )


def test_a_trial_by_folds_has_the_mean_loss_out_of_fold(settings: Settings, tmp_path: Path) -> None:
    tuning = searched(settings, tmp_path / "search", 1, folds=2)
    first = tuning.trials[0]
    runs = sorted((tmp_path / "search" / "trial-000").glob("run-*/checkpoint-epoch-1"))
    records = [read_checkpoint(path).record.metrics for path in runs]
    weights = [record["val_images"] for record in records]
    assert sum(weights) == tuning.num_choosing == 30
    expected = np.average([record["val_scaled_loss"] for record in records], weights=weights)
    assert first.val_loss == pytest.approx(expected)
    assert tuning.num_apart == 6


def test_without_val_and_without_folds_the_remedy_is_folds(photos: Path) -> None:
    train, val = load_training_splits(photos, val_ratio=0.1, seed=0)
    with pytest.raises(UserError, match=r"no val.*--folds 5"):
        make_parts(train, replace(val, samples=()), folds=None, seed=0)


def test_too_many_folds_are_refused_with_the_class_that_is_too_small(
    settings: Settings, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"--folds 11: .* no class more than 10"):
        searched(settings, tmp_path / "search", 1, folds=11)


def test_the_gain_is_what_evaluation_measures_of_the_two(
    found: tuple[Tuning, Any], photos: Path
) -> None:
    tuning, folder = found[0], found[0].output_dir
    settings = tuning.settings
    assert tuning.best is not None
    assert tuning.best.number, "the default is the best of these drawn photos: take another seed"
    runs = [folder / f"trial-{number:03}" / "run-1" for number in (0, tuning.best.number)]
    default, best = ([next(run.glob("checkpoint-epoch-*"))] for run in runs)
    samples = load_split(photos, "val", class_names=sorted(COLORS)).samples
    proof = prove(default, best, samples, settings, progress=False)
    for path, loss, accuracy in (
        (default, proof.default_loss, proof.default_accuracy),
        (best, proof.best_loss, proof.best_accuracy),
    ):
        measured = evaluate(path[0], split="val", output_dir=None, num_workers=0, progress=False)
        assert loss == pytest.approx(measured.figures.log_loss.value, abs=1e-5)
        assert accuracy == measured.accuracy
    assert proof.gain is not None
    assert proof.gain.value == pytest.approx(proof.default_loss - proof.best_loss)
    same = prove(default, default, samples, settings, progress=False)
    assert same.gain is not None
    assert (same.gain.value, same.verdict) == (0, "indistinguishable")


def test_the_interval_of_a_difference_holds_it_in_19_of_20_samples() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(500):
        loss_N = rng.gamma(0.3, 1.0, 60)  # leaning, as losses are
        a_N, b_N = 1.2 * loss_N * rng.lognormal(0, 0.5, 60), loss_N * rng.lognormal(0, 0.5, 60)
        found, mirrored = mean_difference(a_N, b_N), mean_difference(b_N, a_N)
        assert found is not None
        assert mirrored is not None
        assert (found.low, found.high) == pytest.approx((-mirrored.high, -mirrored.low))
        hits += found.low <= 0.3 * 0.2 * np.exp(0.125) <= found.high
    assert 0.92 <= hits / 500 <= 0.98
    assert mean_difference(a_N[:1], b_N[:1]) is None


@pytest.mark.parametrize(
    ("gain", "verdict"),
    [((0.2, 0.1, 0.3), "better"), ((-0.2, -0.3, -0.1), "worse"),
     ((0.2, -0.1, 0.5), "indistinguishable")],
)  # fmt: skip
def test_a_gain_is_one_only_where_its_interval_leaves_0_out(
    gain: tuple[float, float, float], verdict: str
) -> None:
    assert Proof(9, 1.0, 0.8, 0.5, 0.6, Estimate(*gain)).verdict == verdict


def test_every_range_holds_the_default_and_both_ends_are_settings(
    overrides: dict[str, Any],
) -> None:
    settings = load_settings(overrides=overrides | {"training.min_updates": 150})
    found = ranges(settings)
    assert found.keys() == {each.key for each in SPACE}
    for key, space in found.items():
        assert space.low <= space.default <= space.high
        for end in (space.low, space.high):
            drawn_settings(settings, {key: end})
    assert drawn_settings(settings, {key: r.default for key, r in found.items()}) == settings
    doubled = drawn_settings(settings, {"lora.r": 2 * settings.lora.r})
    assert doubled.lora.lora_alpha == 2 * settings.lora.lora_alpha


def test_what_is_fixed_or_off_is_not_searched(overrides: dict[str, Any]) -> None:
    off = {"data.augmentation.enabled": False, "training.weight_decay": 0.0}
    settings = load_settings(overrides=overrides | off)
    assert list(ranges(settings, fixed=ONE_EPOCH)) == ["lora.r", "training.learning_rate"]


def test_the_text_is_within_eighty_columns(found: tuple[Tuning, Any]) -> None:
    text = tuning_text(found[0])
    assert max(map(columns, text.splitlines())) <= 80
    assert "trial" in text.splitlines()[0]


def test_without_optuna_the_command_to_install_it_is_named(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtra, match=r"pip install 'cliptune\[tune\]'"):
        searched(settings, tmp_path / "search", 1)
    assert not (tmp_path / "search").exists()


def test_another_search_in_the_folder_is_refused_and_overwrite_clears_it(
    settings: Settings, overrides: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "search"
    with pytest.raises(UserError, match="no search to go on with"):
        searched(settings, folder, 1, resume=True)
    searched(settings, folder, 1)
    (folder / "trial-001").mkdir()
    with pytest.raises(UserError, match="already holds a search"):
        searched(settings, folder, 2)
    other = load_settings(overrides=overrides | {"training.num_epochs": 1, "lora.r": 4})
    with pytest.raises(UserError, match=r"lora\.r: was 8, is 4"):
        searched(other, folder, 2, resume=True)
    searched(other, folder, 1, overwrite=True)
    assert [path.name for path in folder.glob("trial-*")] == ["trial-000"]


@pytest.mark.parametrize("content", [b"[]\n", b'{"op_code": 0}\n', b"\x80\x04.\n{}\n"])
def test_a_journal_that_is_none_is_refused_by_its_name(
    settings: Settings, tmp_path: Path, content: bytes
) -> None:
    folder = tmp_path / "search"
    folder.mkdir()
    (folder / JOURNAL).write_bytes(content)
    with pytest.raises(UserError, match=r"optuna\.jsonl: damaged"):
        searched(settings, folder, 1, resume=True)
