"""Answers for classes that are as frequent as another prior says than training's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cliptune import Predictor, add_class, evaluate, remove_class
from cliptune.cli import main
from cliptune.config import load_settings
from cliptune.errors import CheckpointError, UserError
from cliptune.files import write_sums
from cliptune.model.answers import Answers, answered, scaled_logits, softmax
from cliptune.model.checkpoint import RECORD, UNSUMMED, read_checkpoint
from cliptune.model.prior import prior_shares
from cliptune.training.train import train
from conftest import make_photos

NAMES = ("amber", "blue", "cyan")
TRAINED_C = np.array([0.6, 0.3, 0.1])
QUIET: dict[str, Any] = {"device": "cpu", "progress": False, "num_workers": 0}


@pytest.fixture(scope="module")
def checkpoint(clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run over 8, 8 and 2 photos; the photos are in `photos/` beside it."""
    folder = tmp_path_factory.mktemp("prior")
    data = make_photos(folder / "photos")
    for photo in sorted((data / "train" / "cyan").iterdir())[2:]:
        photo.unlink()
    overrides = {
        "model.name": str(clip_folder), "data.data_dir": str(data), "data.num_workers": 0,
        "training.num_epochs": 1, "training.min_updates": 0, "training.batch_size": 8,
        "training.learning_rate": 1e-2,
        "output.output_dir": str(folder / "run"), "output.log_dir": str(folder / "logs"),
        "hardware.device": "cpu", "hardware.mixed_precision": False,
    }  # fmt: skip
    result = train(load_settings(overrides=overrides), progress=False)
    assert result.best is not None
    return Path(shutil.copytree(result.best.path, folder / "best"))


def test_another_prior_answers_by_bayes_rule(checkpoint: Path) -> None:
    """p'(class | photo) is p(class | photo) times the new share over the old one, to sum to 1."""
    photos = sorted((checkpoint.parent / "photos" / "test").rglob("*.png"))
    asked = {"amber": 0.2, "blue": 0.1, "cyan": 0.7}

    def told(prior: dict[str, float] | None) -> tuple[np.ndarray[Any, Any], list[Any]]:
        found = Predictor(checkpoint, device="cpu", prior=prior).predict_batch(list(photos))
        rows = [{s.label: s.probability for s in each.scores} for each in found]
        return np.array([[row[name] for name in NAMES] for row in rows]), found

    before_NC, plain = told(None)
    after_NC, found = told(asked)
    ratio_C = np.array([asked[name] for name in NAMES]) / np.array([8, 8, 2]) * 18
    expected_NC = before_NC * ratio_C / (before_NC * ratio_C).sum(axis=1, keepdims=True)
    assert after_NC == pytest.approx(expected_NC, abs=1e-9)
    assert [p.known_score for p in plain] == [p.known_score for p in found]
    assert [p.known for p in plain] == [p.known for p in found]


def test_the_prior_of_training_changes_nothing(checkpoint: Path) -> None:
    same = Predictor(checkpoint, device="cpu", prior={"amber": 8, "blue": 8, "cyan": 2}).answers
    assert same is not None
    assert same.shifts == pytest.approx([0, 0, 0], abs=1e-12)


def test_evaluate_and_predict_agree_and_say_so(checkpoint: Path, tmp_path: Path) -> None:
    data = checkpoint.parent / "photos"
    measured = evaluate(
        checkpoint, data_dir=data, prior="uniform", baseline=False, output_dir=tmp_path, **QUIET
    )
    predictor = Predictor(checkpoint, device="cpu", prior="uniform")
    found = predictor.predict_batch(list(measured.photos.paths))
    rows = [{s.label: s.probability for s in each.scores} for each in found]
    told_NC = np.array([[row[name] for name in measured.class_names] for row in rows])
    assert told_NC == pytest.approx(measured.photos.probabilities_NC, abs=1e-5)
    assert measured.photos.known_scores_N == pytest.approx(
        [each.known_score for each in found], abs=1e-5
    )
    for file in ("evaluation_report.txt", "report.html"):
        words = " ".join((tmp_path / file).read_text(encoding="utf-8").split())
        assert "answers for classes as frequent as --prior says, not as in training" in words
    results = json.loads((tmp_path / "evaluation_results.json").read_text(encoding="utf-8"))
    assert predictor.answers is not None
    assert results["calibration"]["scaling"]["shifts"] == pytest.approx(predictor.answers.shifts)


def test_a_prior_is_uniform_all_classes_in_proportion_or_some_and_the_rest_as_in_training() -> None:
    assert prior_shares("uniform", NAMES, TRAINED_C) == pytest.approx([1 / 3] * 3)
    counts = {"cyan": 30, "amber": 10, "blue": 60}
    assert prior_shares(counts, NAMES, TRAINED_C) == pytest.approx([0.1, 0.6, 0.3])
    assert prior_shares({"cyan": 0.4}, NAMES, TRAINED_C) == pytest.approx([0.4, 0.2, 0.4])


def test_a_prior_in_a_file_and_one_written_out_are_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("cyan: 0.4\nblue: 1e-1\n")
    (tmp_path / "b.json").write_text('{"cyan": 0.4, "blue": 0.1}')
    for given in (tmp_path / "a.yaml", str(tmp_path / "b.json"), "cyan=0.4, blue=1e-1"):
        assert prior_shares(given, NAMES, TRAINED_C) == pytest.approx([0.5, 0.1, 0.4])


@pytest.mark.parametrize(
    ("prior", "words"),
    [
        ("unifrom", "no such file. Did you mean 'uniform'?"),
        ("ambr=0.5", "no class 'ambr'. Did you mean 'amber'?"),
        ("amber=much", "'amber': found 'much'; expected a number above 0"),
        ({"amber": 0.0}, "'amber': found 0.0; expected a number above 0"),
        ({"amber": 0.5, "blue": 0.5}, "add up to 1, and nothing is left for cyan"),
        ("amber=0.5,,", "no such file"),
    ],
    ids=str,
)
def test_a_prior_that_is_none_is_refused_in_words(prior: Any, words: str) -> None:
    with pytest.raises(UserError) as at:
        prior_shares(prior, NAMES, TRAINED_C)
    assert words in str(at.value)


def test_shares_of_hundreds_of_classes_can_be_written_out() -> None:
    names = [f"class {i}" for i in range(300)]
    text = ",".join(f"{name}=0.001" for name in names[1:])
    shares_C = prior_shares(text, names, np.full(300, 1 / 300))
    assert shares_C[0] == pytest.approx(1 - 0.299)


def test_the_command_line_answers_as_python_does(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = str(next((checkpoint.parent / "photos" / "test").rglob("*.png")))
    told = tmp_path / "told.json"
    arguments = ["predict", "--checkpoint", str(checkpoint), "--image", photo, "--device", "cpu"]
    with pytest.raises(SystemExit) as exit_:
        main([*arguments, "--output", str(told), "--prior", "cyan=0.7"])
    assert exit_.value.code in (0, None)
    prediction = Predictor(checkpoint, device="cpu", prior={"cyan": 0.7}).predict(photo)
    (found,) = json.loads(told.read_text(encoding="utf-8"))
    assert found["probability"] == pytest.approx(prediction.probability)
    with pytest.raises(SystemExit) as exit_:
        main([*arguments, "--prior", "cyam=0.7"])
    assert exit_.value.code == 2
    assert "no class 'cyam'. Did you mean 'cyan'?" in capsys.readouterr().err


@pytest.mark.parametrize("field", ["prior", "answers"])
def test_a_checkpoint_that_does_not_say_what_is_needed_is_refused(
    checkpoint: Path, tmp_path: Path, field: str
) -> None:
    earlier = Path(shutil.copytree(checkpoint, tmp_path / "earlier"))
    record = json.loads((earlier / RECORD).read_text(encoding="utf-8"))
    del record[field]
    (earlier / RECORD).write_text(json.dumps(record), encoding="utf-8")
    write_sums(earlier, leave_out=UNSUMMED)
    Predictor(earlier, device="cpu")
    why = "does not say how frequent" if field == "prior" else "not calibrated"
    with pytest.raises(CheckpointError, match=why):
        Predictor(earlier, device="cpu", prior="uniform")


def test_a_class_removed_takes_its_share_along_and_one_added_has_none(
    checkpoint: Path, tmp_path: Path
) -> None:
    data = make_photos(tmp_path / "more", classes=(*NAMES, "red"), seed=1)
    less = remove_class(checkpoint, "amber", output=tmp_path / "less", data_dir=data)
    assert less.checkpoint.record.prior == pytest.approx([8 / 18, 2 / 18])
    Predictor(tmp_path / "less", device="cpu", prior="uniform")
    add_class(checkpoint, "red", output=tmp_path / "more-classes", data_dir=data)
    assert read_checkpoint(tmp_path / "more-classes").record.prior is None
    with pytest.raises(CheckpointError, match="or a class was added since"):
        Predictor(tmp_path / "more-classes", device="cpu", prior="uniform")


def test_shifts_leave_the_score_of_known_photos_alone() -> None:
    answers = Answers(
        temperature=2.0, score="probability", threshold=0.5, share=0.95, kept=1.0, num_images=9
    )
    shifted = answers.model_copy(update={"shifts": (1.0, 0.0, -2.0)})
    logits_NC = np.array([[1.0, 2.0, 3.0], [4.0, 0.0, 0.0]])
    features_ND, weights_CD = np.ones((2, 4)), np.ones((3, 4))
    plain, other = (
        answered(each, logits_NC, features_ND, weights_CD=weights_CD, means_CD=None)
        for each in (answers, shifted)
    )
    assert other.scaled_NC == pytest.approx(logits_NC / 2 + np.array([1.0, 0.0, -2.0]))
    assert scaled_logits(shifted, logits_NC) == pytest.approx(other.scaled_NC)
    assert other.probabilities_NC == pytest.approx(softmax(other.scaled_NC))
    assert plain.known_scores_N is not None
    assert other.known_scores_N == pytest.approx(plain.known_scores_N)
