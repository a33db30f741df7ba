"""What earlier versions wrote goes on working: `fixtures/` was made by them, once and for all.

`format_1` is a random model of two layers, drawn photos prepared from class folders, and a run of
one epoch, all in /tmp/fixture when they were made; `answers.json` is what that version answered.

`earlier` has a checkpoint of that model for each shape that format 1 had since, and what the code
that wrote it answered for the same photos:

    first      text head, nothing fitted on val, no sums (the first commit that could train)
    linear     the same with a linear head
    fitted     the head first, sums of the photos, answers fitted on val
    parents    classes that have parents (too few photos to be sure of any)
    labels     any number of labels to a photo
    export_1   an exported folder of format 1, which is not read any more: its export.json
    export_2   an exported folder of format 2
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from cliptune import Predictor, check, evaluate, load_settings, prepare, train
from cliptune.errors import CheckpointError
from cliptune.files import SUMS
from cliptune.model.checkpoint import RECORD, read_checkpoint
from conftest import names

FORMAT_1 = Path(__file__).parent / "fixtures" / "format_1"
EARLIER = Path(__file__).parent / "fixtures" / "earlier"


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


@pytest.mark.parametrize("kind", ["first", "linear", "fitted", "parents", "labels", "export_2"])
def test_every_shape_a_checkpoint_ever_had_answers_as_it_did(
    kind: str, earlier: Path, answers: dict[str, Any]
) -> None:
    if kind == "export_2":
        pytest.importorskip("onnxruntime")
    base = None if kind == "export_2" else "model"
    predictor = Predictor(EARLIER / kind / "checkpoint", device="cpu", base_model=base)
    before = json.loads((EARLIER / kind / "answers.json").read_text(encoding="utf-8"))
    assert before.keys() == answers["photos"].keys()
    for photo, expected in before.items():
        found = predictor.predict(photo, top_k=3)
        logs = {score.label: math.log(score.probability) for score in found.scores}
        told = {label: math.log(x) for label, x in expected["probabilities"].items()}
        assert logs == pytest.approx(told, abs=1e-3)
        assert found.known is expected.get("known")
        assert found.known_score == pytest.approx(expected.get("known_score"), abs=1e-5)
        shown = None if found.shown is None else [score.label for score in found.shown]
        assert shown == expected.get("shown")
        sure = None if found.sure_of is None else found.sure_of.label
        assert sure == expected.get("sure_of")


def test_an_exported_folder_of_the_first_format_says_to_export_again() -> None:
    with pytest.raises(
        CheckpointError, match=r"format 1, .* reads 2\. Export the checkpoint again"
    ):
        read_checkpoint(EARLIER / "export_1" / "checkpoint")


def test_a_checkpoint_of_a_later_format_says_to_update(tmp_path: Path) -> None:
    later = Path(shutil.copytree(EARLIER / "fitted" / "checkpoint", tmp_path / "later"))
    (later / SUMS).unlink()
    record = json.loads((later / RECORD).read_text(encoding="utf-8"))
    text = json.dumps({"format": record["format"] + 1, "what it holds": "nobody knows yet"})
    (later / RECORD).write_text(text, encoding="utf-8", newline="\n")
    with pytest.raises(CheckpointError, match=r"format 2, .* reads 1\. Update cliptune"):
        read_checkpoint(later)
