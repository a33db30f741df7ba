"""Sets instead of one answer: what they promise, and that every door gives the same ones."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cliptune import Predictor
from cliptune.cli import main
from cliptune.config import load_settings
from cliptune.data.image_files import find_images
from cliptune.errors import SettingsError
from cliptune.evaluation.evaluate import evaluate
from cliptune.evaluation.statistics.answering import fit_answers
from cliptune.evaluation.statistics.conformal import coverage_range, fit_sets, set_figures
from cliptune.inference.export.export import export
from cliptune.model.answers import Answers, answered, softmax
from cliptune.model.conformal import PredictionSets, conformal_rank, photos_for
from cliptune.training.train import train
from conftest import trained
from servers import served

FIXED = {"share": 0.95, "kept": 1.0, "num_images": 9}


def chances(seed: int, *, count: int, classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of photos, and labels that they are no sure guide to."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    logits = rng.normal(size=(count, classes)) * rng.uniform(0.5, 3, (count, 1))
    logits[np.arange(count), labels] += rng.normal(1.5, 1.5, count)
    return softmax(logits), labels


def sets_of(limit: float, coverage: float = 0.9) -> PredictionSets:
    return PredictionSets(coverage=coverage, limit=limit, kept=1.0, num_images=9)


@settings(deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 1))
def test_a_set_is_the_fewest_classes_whose_probability_passes_the_limit(
    seed: int, limit: float
) -> None:
    """Romano, Sesia, Candès (2020), eq. 3 and 4, written out for one photo at a time."""
    p_NC, _ = chances(seed, count=20)
    held_NC = sets_of(limit).holds(p_NC)
    for p_C, held_C in zip(p_NC, held_NC, strict=True):
        order = sorted(range(5), key=lambda c: -p_C[c])
        taken, together = [order[0]], p_C[order[0]]
        for c in order[1:]:
            if together > limit:
                break
            taken.append(c)
            together += p_C[c]
        assert set(np.flatnonzero(held_C)) == set(taken)


@settings(deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 0.5), st.floats(0, 0.5))
def test_a_higher_limit_takes_no_class_out_of_a_set(seed: int, low: float, more: float) -> None:
    p_NC, _ = chances(seed, count=20)
    small, large = (sets_of(limit).holds(p_NC) for limit in (low, low + more))
    assert not (small & ~large).any()
    assert small[np.arange(20), p_NC.argmax(axis=1)].all()


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9, 0.95])
@pytest.mark.parametrize("count", [19, 60, 200])
def test_sets_hold_the_right_class_of_further_photos_at_the_rate_promised(
    coverage: float, count: int
) -> None:
    """Over 300 sets of photos to fit on: at the rate, and above it by less than 1 / (n + 1)."""
    p_NC, labels_N = chances(1, count=40_000)
    rng, rates = np.random.default_rng(2), []
    for _ in range(300):
        some = rng.choice(len(labels_N), count + 500, replace=False)
        own, further = some[:count], some[count:]
        sets = fit_sets(p_NC[own], labels_N[own], coverage=coverage)
        assert sets is not None
        held = sets.holds(p_NC[further])
        rates.append(held[np.arange(500), labels_N[further]].mean())
    error = 4 * np.std(rates) / 300**0.5
    right_first = (p_NC.argmax(axis=1) == labels_N).mean()  # whose scores are all 0, and tied
    assert np.mean(rates) > coverage - error
    assert np.mean(rates) < max(coverage + 1 / (count + 1), right_first) + error


def test_in_twenty_sets_of_photos_one_keeps_the_promise_worse_than_it_is_said_to() -> None:
    p_NC, labels_N = chances(3, count=40_000)
    rng, inside = np.random.default_rng(4), []
    for _ in range(400):
        own = rng.choice(len(labels_N), 100, replace=False)
        sets = fit_sets(p_NC[own], labels_N[own], coverage=0.8)
        assert sets is not None
        low, high = coverage_range(0.8, 100)
        rate = sets.holds(p_NC)[np.arange(len(labels_N)), labels_N].mean()
        inside.append(low <= rate <= high)
    assert 0.92 < np.mean(inside) < 0.98


@given(st.floats(0.01, 0.999))
def test_sets_are_fitted_on_as_many_photos_as_are_asked_for_and_not_on_one_less(
    coverage: float,
) -> None:
    needed = photos_for(coverage)
    assert conformal_rank(coverage, needed) <= needed
    assert conformal_rank(coverage, needed - 1) > needed - 1 or needed == 1
    p_NC, labels_N = chances(0, count=min(needed, 2000))
    found = fit_sets(p_NC, labels_N, coverage=coverage)
    assert (found is not None) == (needed <= 2000)


def test_nine_photos_promise_ninety_per_cent_and_nineteen_ninety_five() -> None:
    assert [photos_for(rate) for rate in (0.5, 0.8, 0.9, 0.95, 0.99)] == [1, 4, 9, 19, 99]


def test_sets_change_nothing_else_of_how_a_checkpoint_answers() -> None:
    rng = np.random.default_rng(0)
    p_NC, labels_N = chances(5, count=200)
    features_ND, weights_CD = rng.normal(size=(200, 8)), rng.normal(size=(5, 8))
    plain = fit_answers(np.log(p_NC), features_ND, labels_N, weights_CD=weights_CD)
    with_sets = fit_answers(
        np.log(p_NC), features_ND, labels_N, weights_CD=weights_CD, coverage=0.9
    )
    assert plain.sets is None
    assert with_sets.sets is not None
    assert with_sets.model_copy(update={"sets": None}) == plain
    assert "sets" not in plain.model_dump()  # a checkpoint without has the bytes it always had
    assert "coverage" not in load_settings().to_dict()["evaluation"]
    again = Answers.model_validate_json(with_sets.model_dump_json())
    assert again == with_sets
    by_probability = with_sets.model_copy(update={"score": "probability"})
    said = answered(by_probability, np.log(p_NC), features_ND, weights_CD=weights_CD, means_CD=None)
    assert said.in_set_NC is not None
    held = said.in_set_NC[np.arange(200), labels_N].mean()
    assert held == pytest.approx(with_sets.sets.kept)
    assert held >= 0.9


def test_figures_of_sets_are_those_counted_by_hand() -> None:
    held_NC = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 1], [1, 1, 1], [0, 0, 1]], bool)
    found = set_figures(held_NC, np.array([0, 1, 0, 0, 1]))
    assert found.coverage.value == 3 / 5
    assert found.mean_size.value == 9 / 5
    assert [(each.size, each.num_images, each.coverage.value) for each in found.sizes] == [
        (1, 2, 0.5), (2, 2, 0.5), (3, 1, 1.0),
    ]  # fmt: skip
    first, second, third = found.classes
    assert first is not None
    assert (first.num_images, first.coverage.value, first.mean_size) == (3, 2 / 3, 2)
    assert second is not None
    assert second.coverage.value == 0.5
    assert third is None


@pytest.fixture(scope="module")
def unsure_run(clip_folder: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that learned next to nothing, and is to name the right class in 80 % of cases."""
    changes = {
        "training.recipe": "plain", "training.learning_rate": 1e-6, "training.num_epochs": 1,
        "evaluation.coverage": 0.8,
    }  # fmt: skip
    return trained(tmp_path_factory.mktemp("sets"), clip_folder, photos, **changes)


def test_the_set_of_a_photo_is_the_same_by_every_door(
    unsure_run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = find_images(photos / "test")
    predictor = Predictor(unsure_run, device="cpu")
    assert predictor.answers is not None
    assert predictor.answers.sets is not None
    found = predictor.predict_batch(paths, top_k=1)
    expected = []
    for each in predictor.predict_batch(paths, top_k=3):
        before = np.cumsum([0.0, *(score.probability for score in each.scores)])[:-1]
        expected.append(
            [
                s
                for s, b in zip(each.scores, before, strict=True)
                if b <= predictor.answers.sets.limit
            ]
        )
    assert [list(each.prediction_set or ()) for each in found] == expected
    assert len({len(each) for each in expected}) > 1  # else no law could be seen
    labels = [[score.label for score in each] for each in expected]

    ask = ["predict", "--checkpoint", str(unsure_run), "--image-dir", str(photos / "test"),
           "--device", "cpu", "--top-k", "1"]  # fmt: skip
    for ending in ("csv", "json", "jsonl", "txt"):
        with pytest.raises(SystemExit, match=r"^0$"):
            main([*ask, "--output", str(tmp_path / f"p.{ending}")])
    with (tmp_path / "p.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["prediction_set"].split("|") for row in rows] == labels
    for row in json.loads((tmp_path / "p.json").read_text(encoding="utf-8")):
        assert row["coverage"] == 0.8
    told = [json.loads(x) for x in (tmp_path / "p.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [[s["label"] for s in row["prediction_set"]] for row in told] == labels
    for line, each in zip(
        (tmp_path / "p.txt").read_text("utf-8").splitlines(), labels, strict=True
    ):
        assert f"one of: {', '.join(each)}" in line

    capsys.readouterr()
    most = max(range(len(labels)), key=lambda i: len(labels[i]))
    with pytest.raises(SystemExit, match=r"^0$"):
        main([*ask[:3], "--image", str(paths[most]), "--device", "cpu"])
    assert f"At 80 % one of: {', '.join(labels[most])}" in capsys.readouterr().out

    columns = predictor.batch({"path": np.array([str(path) for path in paths], dtype=object)})
    assert list(columns["prediction_set"]) == ["|".join(each) for each in labels]


@pytest.mark.parametrize("form", ["onnx", "transformers"])
def test_the_set_of_a_photo_is_the_same_without_this_package(
    unsure_run: Path, photos: Path, tmp_path: Path, form: str
) -> None:
    made = export(unsure_run, tmp_path / form, form=form, progress=False)
    assert made.verified.other_sets == 0
    paths = find_images(photos / "test")
    done = subprocess.run(
        [sys.executable, made.runner, *map(str, paths)], capture_output=True, text=True, check=True
    )
    predictor = Predictor(unsure_run, device="cpu")
    for line, ours in zip(done.stdout.splitlines(), predictor.predict_batch(paths), strict=True):
        theirs = json.loads(line)
        assert ours.prediction_set is not None
        assert [s["label"] for s in theirs["prediction_set"]] == [
            s.label for s in ours.prediction_set
        ]
        assert theirs["coverage"] == ours.coverage
        assert list(theirs) == list(ours.to_dict())
    if form == "onnx":
        folder = Predictor(made.folder)
        assert folder.predict(paths[0]).prediction_set is not None


def test_a_server_gives_the_set_and_without_one_has_no_such_key(
    unsure_run: Path, photos: Path, server: object
) -> None:
    path = find_images(photos / "test")[0]
    ours = Predictor(unsure_run, device="cpu").predict(path)
    with served(unsure_run) as running:
        answer = running.client.post("/predict", content=path.read_bytes()).json()
    assert ours.prediction_set is not None
    assert [s["label"] for s in answer["prediction_set"]] == [s.label for s in ours.prediction_set]
    assert answer["coverage"] == 0.8
    plain = server.client.post("/predict", content=path.read_bytes()).json()  # type: ignore[attr-defined]
    assert "prediction_set" not in plain


def test_an_evaluation_tells_what_the_sets_hold(
    unsure_run: Path, photos: Path, tmp_path: Path
) -> None:
    found = evaluate(
        unsure_run, data_dir=photos, output_dir=tmp_path, device="cpu", baseline=False,
        num_workers=0, progress=False,
    )  # fmt: skip
    with (tmp_path / "evaluation_predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    sets = [row["prediction_set"].split("|") for row in rows]
    held = np.mean([row["label"] in each for row, each in zip(rows, sets, strict=True)])
    assert found.sets is not None
    assert found.sets.figures.coverage.value == pytest.approx(held)
    assert found.sets.figures.mean_size.value == pytest.approx(np.mean([len(x) for x in sets]))
    told = json.loads((tmp_path / "evaluation_results.json").read_text(encoding="utf-8"))
    assert told["prediction_sets"]["measured"]["value"] == pytest.approx(held)
    assert told["prediction_sets"]["coverage"] == 0.8
    text = (tmp_path / "evaluation_report.txt").read_text(encoding="utf-8")
    assert f"Prediction sets hold the right class of {100 * held:.1f} (" in text
    assert "The promise holds for photos drawn like those of val" in text.replace("\n", " ")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Sets instead of one answer" in page


def test_too_few_photos_of_val_are_told_before_the_model_loads(
    photos: Path, tmp_path: Path
) -> None:
    settings = load_settings(
        overrides={
            "model.name": str(tmp_path / "not there"), "data.data_dir": str(photos),
            "evaluation.coverage": 0.95, "output.output_dir": str(tmp_path / "run"),
            "output.log_dir": str(tmp_path / "logs"), "hardware.device": "cpu",
        }
    )  # fmt: skip
    with pytest.raises(SettingsError, match=r"coverage: 0\.95 .* 19 photos .* 12 in .* 0\.92 or"):
        train(settings, progress=False)
    for wrong in (0, 1, 90):
        with pytest.raises(SettingsError, match=r"evaluation\.coverage"):
            load_settings(overrides={"evaluation.coverage": wrong})


def test_a_table_of_a_cluster_has_a_column_of_sets(unsure_run: Path, photos: Path) -> None:
    pytest.importorskip("pyarrow")
    from cliptune._version import __version__
    from cliptune.distributed.stages import Answering

    paths = find_images(photos / "test")
    ours = Predictor(unsure_run, device="cpu")
    actor = Answering(
        checkpoint=str(unsure_run), folder="", base="", top_k=2, version=__version__, device="cpu"
    )
    pixels = np.stack([ours.engine.preprocess.pixels(Image.open(path)) for path in paths])
    count = np.arange(len(paths))
    rows = {
        "pixels": pixels, "error": np.full(len(paths), "", object), "id": count,
        "path": np.array(list(map(str, paths)), object), "shard": 0 * count, "row": count,
    }  # fmt: skip
    (table,) = actor(rows)
    expected = [each.further["prediction_set"] for each in ours.predict_batch(paths)]
    assert table["prediction_set"].to_pylist() == expected
