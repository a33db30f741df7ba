"""Photos with any number of labels: trained, measured, answered."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from cliptune import Predictor, compare, evaluate, evaluate_multilabel, train
from cliptune.config import load_settings
from cliptune.data.multilabel import LABELS_FILE
from cliptune.errors import CliptuneError, DataError, SettingsError, UserError
from cliptune.inference.output import open_output
from cliptune.model.checkpoint import resolve_checkpoint
from cliptune.training.head.multilabel import fit_multilabel_head, fit_sigmoids
from cliptune.training.multilabel import MultilabelLoss
from conftest import make_model, names, tensors, trained
from halves import HALVES, make_halves


@pytest.fixture(scope="module")
def run(label_run: Path) -> Path:
    return label_run


def test_each_class_is_scikit_learns_logistic_regression() -> None:
    rng = np.random.default_rng(0)
    points_NR = np.hstack([rng.normal(size=(80, 5)), np.ones((80, 1))])
    targets_NC = rng.random((80, 3)) < 0.4
    found_CR = fit_sigmoids(points_NR, targets_NC, np.zeros((80, 3)), strength=0.05, tolerance=1e-9)
    for label in range(3):
        # Its C is over the sum of losses, and it would not pull the intercept: none is asked for.
        by_sklearn = LogisticRegression(C=1 / (0.05 * 80), fit_intercept=False, tol=1e-10)
        expected = by_sklearn.fit(points_NR, targets_NC[:, label]).coef_[0]
        assert found_CR[label] == pytest.approx(expected, abs=1e-4)


def test_a_head_answers_for_photos_it_has_not_seen() -> None:
    rng = np.random.default_rng(1)
    features_ND, text_CD = rng.normal(size=(400, 16)), rng.normal(size=(4, 16))
    directions_ND = features_ND / np.linalg.norm(features_ND, axis=1, keepdims=True)
    targets_NC = directions_ND @ rng.normal(size=(16, 4)) > 0.3
    fit = fit_multilabel_head(
        features_ND[:200], targets_NC[:200], text_CD, 10.0, seed=0, class_names=list("abcd")
    )
    told = fit.logits(features_ND[200:]) > 0
    assert (told == targets_NC[200:]).mean() > 0.9
    assert fit.held_out.accuracy is not None
    assert fit.held_out.accuracy > 0.9
    # What adapters are trained against has not seen the photo: it answers as fits without it do.
    heads = fit.without_folds
    assert heads is not None
    own = heads.weights_KCD[heads.folds_N], heads.bias_KC[heads.folds_N]
    logits_NC = np.einsum("ncd,nd->nc", own[0], directions_ND[:200]) + own[1]
    assert logits_NC == pytest.approx(fit.held_out.logits_NC, abs=1e-8)


def test_folds_of_a_head_keep_groups_together() -> None:
    rng = np.random.default_rng(2)
    groups_N = np.repeat(rng.permutation(30), 4)
    features_ND, text_CD = rng.normal(size=(120, 8)), rng.normal(size=(3, 8))
    targets_NC = rng.random((120, 3)) < 0.4
    for groups, most in ((groups_N, 30), (groups_N // 10, 3)):
        fit = fit_multilabel_head(
            features_ND, targets_NC, text_CD, 10.0, seed=0, class_names=list("abc"),
            groups_N=groups,
        )  # fmt: skip
        assert fit.without_folds is not None
        folds_N = fit.without_folds.folds_N
        assert all(len(set(folds_N[groups == group])) == 1 for group in set(groups))
        assert 2 <= fit.held_out.folds <= most
    one = np.zeros(120, dtype=np.int64)  # nothing can be held out of a single group
    fit = fit_multilabel_head(
        features_ND, targets_NC, text_CD, 10.0, seed=0, class_names=list("abc"), groups_N=one
    )
    assert fit.held_out.folds == 0


def test_the_loss_is_torchs_summed_over_photos() -> None:
    logits_BC, targets_BC = torch.randn(7, 3), (torch.rand(7, 3) > 0.5).float()
    expected = torch.nn.BCEWithLogitsLoss()(logits_BC, targets_BC) * 7
    assert torch.allclose(MultilabelLoss().summed(logits_BC, targets_BC), expected)


def test_a_run_learns_what_the_photos_show_and_tells_it(run: Path, halves: Path) -> None:
    found = resolve_checkpoint(run)
    assert found.record.task == "multilabel"
    figures = found.record.metrics
    assert float(figures["val_mean_ap"] or 0) > float(figures["baseline_val_mean_ap"] or 0) + 0.1
    measured = evaluate_multilabel(run, data_dir=halves, output_dir=None, progress=False)
    assert measured.mean_ap > 0.8
    assert measured.gain is not None
    assert measured.gain.low > 0


def test_predictions_are_those_of_the_evaluation_and_every_class_above_its_threshold(
    run: Path, halves: Path, tmp_path: Path
) -> None:
    measured = evaluate_multilabel(run, data_dir=halves, output_dir=tmp_path, progress=False)
    predictor = Predictor(run)
    results = predictor.predict_batch(list(measured.photos.paths))
    assert predictor.label_answers is not None
    thresholds = dict(zip(predictor.class_names, predictor.label_answers.thresholds, strict=True))
    for place, result in enumerate(results):
        assert result.shown is not None
        expected = {
            name for name, told in zip(
                measured.class_names, measured.photos.shown_NC[place], strict=True) if told
        }  # fmt: skip
        assert {score.label for score in result.shown} == expected
        assert result.known == bool(expected)
        assert all(score.probability >= thresholds[score.label].value for score in result.shown)
        assert [each["label"] for each in result.to_dict()["shown"]] == [
            s.label for s in result.shown
        ]
    with (tmp_path / "evaluation_predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["told"] for row in rows] == [
        "|".join(sorted(score.label for score in result.shown or ())) for result in results
    ]
    for row, result in zip(rows, results, strict=True):
        scores = {score.label: score.probability for score in result.scores}
        assert [float(row[name]) for name in scores] == pytest.approx([*scores.values()], abs=1e-5)


def test_the_report_says_the_same_in_text_json_and_on_the_page(
    run: Path, halves: Path, tmp_path: Path
) -> None:
    measured = evaluate_multilabel(run, data_dir=halves, output_dir=tmp_path, progress=False)
    saved = json.loads((tmp_path / "evaluation_results.json").read_text(encoding="utf-8"))
    assert saved["task"] == "multilabel"
    assert saved["figures"]["mean_ap"]["value"] == measured.mean_ap
    assert set(saved["per_class"]) == set(HALVES)
    said = f"{100 * measured.mean_ap:.1f}"
    text = (tmp_path / "evaluation_report.txt").read_text(encoding="utf-8")
    assert said in text
    assert max(map(len, text.splitlines()[7:])) <= 80
    assert said in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_csv_has_a_column_of_what_is_shown_and_only_then(
    run: Path, halves: Path, tiny_run: Path, tmp_path: Path
) -> None:
    photo = halves / "test" / "000.png"
    several, single = Predictor(run), Predictor(tiny_run)
    with open_output(tmp_path / "s.csv", top_k=2, further=several.engine.further) as write:
        write(several.predict(photo, top_k=2))
    with open_output(tmp_path / "o.csv", top_k=2) as write:
        write(single.predict(photo, top_k=2))
    heads = [(tmp_path / f"{name}.csv").read_text(encoding="utf-8").splitlines() for name in "so"]
    assert heads[0][0].endswith("known,known_score,shown,error")
    assert heads[1][0].endswith("known,known_score,error")
    assert "shown" not in single.predict(photo).to_dict()


def test_micro_batches_add_up_to_a_batch_of_several_labels(
    clip_folder: Path, halves: Path, tmp_path: Path
) -> None:
    runs = [
        trained(tmp_path / str(size), clip_folder, halves, **{
            "training.batch_size": size, "training.gradient_accumulation_steps": 12 // size,
            "training.num_epochs": 1, "data.augmentation.enabled": False,
        })
        for size in (12, 4)
    ]  # fmt: skip
    one, other = (tensors(path / "checkpoint-epoch-1") for path in runs)
    assert all(torch.allclose(one[key], other[key], atol=2e-5) for key in one)


def test_a_stopped_run_of_several_labels_goes_on_to_the_same_weights(
    overrides: dict[str, Any], halves: Path, tmp_path: Path
) -> None:
    overrides |= {"data.data_dir": str(halves), "training.num_epochs": 3}
    whole = train(load_settings(overrides=overrides), progress=False)
    overrides |= {"output.output_dir": str(tmp_path / "again"), "training.num_epochs": 3}

    class Stop(Exception):
        pass

    def stop(row: Any) -> None:
        if row["epoch"] == 1:
            raise Stop

    with pytest.raises(Stop):
        train(load_settings(overrides=overrides), progress=False, after_epoch=stop)
    resumed = train(load_settings(overrides=overrides), progress=False, resume=True)
    assert whole.last is not None
    assert resumed.last is not None
    assert names(tmp_path / "again")[-1] == whole.last.path.name
    one, other = tensors(whole.last.path), tensors(resumed.last.path)
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_other_labels_of_the_same_photos_are_another_run(
    overrides: dict[str, Any], tmp_path: Path
) -> None:
    photos = make_halves(tmp_path / "photos", {"train": 24, "val": 12})
    overrides |= {"data.data_dir": str(photos)}
    train(load_settings(overrides=overrides), progress=False)
    path = photos / "train" / LABELS_FILE
    path.write_text(
        path.read_text(encoding="utf-8").replace("amber", "green", 1), encoding="utf-8",
        newline="\n",
    )  # fmt: skip
    more = overrides | {"training.num_epochs": 3}
    with pytest.raises(SettingsError, match="not those of before"):
        train(load_settings(overrides=more), progress=False, resume=True)


def test_siglip_is_trained_on_several_labels_with_its_bias_in_zero_shot(
    halves: Path, tmp_path: Path
) -> None:
    model = make_model(tmp_path / "siglip", "siglip")
    out = trained(tmp_path, model, halves, **{"training.num_epochs": 1})
    figures = resolve_checkpoint(out).record.metrics
    assert figures["val_mean_ap"] is not None
    # exp(3) times a cosine alone would say yes or no of everything, at nats in their tens.
    assert evaluate_multilabel(out, data_dir=halves, output_dir=None, progress=False).loss < 1


def test_settings_of_one_label_are_refused_by_name(overrides: dict[str, Any], halves: Path) -> None:
    overrides |= {"data.data_dir": str(halves)}
    for key, value in (
        ("recipe", "plain"),
        ("sampling", "balanced"),
        ("class_weights", "balanced"),
    ):
        with pytest.raises(SettingsError, match=f"training.{key}: found '{value}'"):
            train(load_settings(overrides=overrides | {f"training.{key}": value}), progress=False)
    with pytest.raises(
        SettingsError, match=r"evaluation\.coverage: found 0\.9, and photos with sev"
    ):
        train(load_settings(overrides=overrides | {"evaluation.coverage": 0.9}), progress=False)


def test_what_does_not_know_several_labels_says_so(
    run: Path, tiny_run: Path, halves: Path, photos: Path
) -> None:
    refused: list[tuple[Any, type[CliptuneError], str]] = [
        (lambda: evaluate(run, output_dir=None), UserError, "any number of labels"),
        (lambda: evaluate(tiny_run, data_dir=halves, output_dir=None), DataError, "one label"),
        (lambda: evaluate_multilabel(run, data_dir=photos, output_dir=None), DataError,
         "any number of labels"),
        (lambda: evaluate_multilabel(tiny_run, output_dir=None), UserError, "`evaluate`"),
        (lambda: compare([run, tiny_run], output_dir=None), UserError, "any number of labels"),
        (lambda: Predictor(run, prior="uniform"), UserError, "shares"),
    ]  # fmt: skip
    for call, kind, words in refused:
        with pytest.raises(kind, match=words):
            call()
