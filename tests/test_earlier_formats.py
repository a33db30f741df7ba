"""What version 0.1.0 wrote goes on working: `fixtures/format_1` was made by it, once and for all.

A random model of two layers, drawn photos prepared from class folders, and a run of one epoch, all
in /tmp/fixture when they were made; `answers.json` is what that version answered.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from cliptune import Predictor, check, evaluate, load_settings, prepare, train
from conftest import names

FORMAT_1 = Path(__file__).parent / "fixtures" / "format_1"


@pytest.fixture
def earlier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of all of it, in another place than it was made in, as the working folder."""
    shutil.copytree(FORMAT_1, tmp_path / "earlier")
    monkeypatch.chdir(tmp_path / "earlier")
    return tmp_path / "earlier"


@pytest.fixture
def answers() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FORMAT_1 / "answers.json").read_text(encoding="utf-8"))
    return found


def test_an_earlier_checkpoint_answers_as_it_did(earlier: Path, answers: dict[str, Any]) -> None:
    predictor = Predictor("run", device="cpu", base_model="model")
    for photo, expected in answers["photos"].items():
        found = predictor.predict(photo, top_k=3)
        probabilities = {score.label: score.probability for score in found.scores}
        assert probabilities == pytest.approx(expected["probabilities"], abs=1e-6)
        assert found.known is expected["known"]
        assert found.known_score == pytest.approx(expected["known_score"], abs=1e-6)


def test_an_earlier_checkpoint_is_measured_as_it_was(
    earlier: Path, answers: dict[str, Any]
) -> None:
    evaluate(
        "run", data_dir="data", output_dir="evaluation", device="cpu", base_model="model",
        num_workers=0, progress=False,
    )  # fmt: skip
    found = json.loads(Path("evaluation/evaluation_results.json").read_text(encoding="utf-8"))
    before = json.loads(Path("evaluation_results.json").read_text(encoding="utf-8"))
    assert found["accuracy"] == pytest.approx(answers["accuracy"])
    for key in ("accuracy", "top5_accuracy"):
        assert found[key] == pytest.approx(before[key])
    for name, row in before["classification_report"].items():
        assert found["classification_report"][name] == pytest.approx(row)


def test_an_earlier_run_is_trained_further(earlier: Path) -> None:
    overrides = {"training.num_epochs": 2, "model.name": "model"}
    settings = load_settings(Path("run/checkpoint-epoch-1/config.yaml"), overrides=overrides)
    result = train(settings, resume=True, progress=False)
    assert names(Path("run")) == ["checkpoint-epoch-1", "checkpoint-epoch-2"]
    assert [row["epoch"] for row in result.history] == [1, 2]


def test_an_earlier_prepared_folder_is_known_again(earlier: Path) -> None:
    assert not check(Path("data")).errors
    source = earlier / "source"
    for photo in Path("data").rglob("*.jpg"):
        (source / photo.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(photo, source / photo.parent.name)
    again = prepare(Path("data"), source=source, seed=3, progress=False)
    assert again.kind == "already_there"
