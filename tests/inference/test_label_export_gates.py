"""What an export of several labels is refused for: other classes told than the checkpoint tells, or
a mean average precision that int8 lowers too far."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from test_label_export import photos_of, same

from cliptune import Predictor
from cliptune.data.multilabel import LABELS_FILE, targets_of, write_labels
from cliptune.errors import DataError, UserError
from cliptune.evaluation.statistics.label_answering import fit_label_answers
from cliptune.inference.export.export import export
from cliptune.inference.export.int8 import int8_photos, write_int8
from cliptune.inference.export.judging import judged_labels, least_end
from cliptune.inference.export.label_runner import Exported
from cliptune.inference.export.verify import TOLERANCE, TOLERANCES, verify
from cliptune.model.checkpoint import read_checkpoint, resolve_checkpoint
from cliptune.model.label_answers import LabelAnswers, LabelThreshold, answered_labels
from cliptune.model.measuring import Measuring, labelled_photos
from cliptune.model.restore import load_classifier, load_label_answers, saved_settings

BEARABLE = 60.0  # points: val has 30 photos


@pytest.fixture(scope="module")
def int8(label_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "int8"
    export(label_run, folder, precision="int8", max_loss=BEARABLE, progress=False)
    return folder


def with_thresholds(checkpoint: Path, folder: Path, **values: float) -> Path:
    """A copy of the checkpoint in `folder` with other thresholds for some classes."""
    copy = Path(shutil.copytree(resolve_checkpoint(checkpoint).path, folder))
    record = json.loads((copy / "cliptune.json").read_text(encoding="utf-8"))
    for label, value in values.items():
        place = record["class_names"].index(label)
        record["label_answers"]["thresholds"][place] = {"value": value}
    (copy / "cliptune.json").write_text(json.dumps(record), encoding="utf-8", newline="\n")
    (copy / "SHA256SUMS").unlink()
    return copy


@pytest.mark.parametrize(("apart", "borne"), [(4e-6, True), (1e-3, False)])
def test_another_set_is_borne_only_where_a_class_lies_at_its_threshold(
    label_run: Path, halves: Path, tmp_path: Path, apart: float, borne: bool
) -> None:
    """Of two thresholds on both sides of one probability, and no other difference at all."""
    predictor = Predictor(label_run, device="cpu")
    scores = {  # the least sure answer of all: no other photo's lies as near
        (path, score.label): score.probability
        for path in photos_of(halves)
        for score in predictor.predict(path).scores
    }
    (photo, label), chance = min(scores.items(), key=lambda item: abs(item[1] - 0.5))
    below, above = (
        with_thresholds(label_run, tmp_path / str(side), **{label: chance + side * apart})
        for side in (-1, 1)
    )
    export(below, tmp_path / "out", data=halves / "val", progress=False)
    beside = Predictor(above, device="cpu")
    if borne:
        assert verify(tmp_path / "out", beside, [photo], progress=False).other_shown == 1
    else:
        with pytest.raises(UserError, match="answers otherwise for 1 of 1 photos"):
            verify(tmp_path / "out", beside, [photo], progress=False)


def test_weights_kept_in_fp16_tell_the_same_classes(
    label_run: Path, halves: Path, tmp_path: Path
) -> None:
    made = export(label_run, tmp_path / "half", precision="fp16", progress=False)
    assert TOLERANCE / 100 < made.verified.largest_difference <= TOLERANCES["fp16"]
    assert Predictor(made.folder).precision == "fp16"
    assert made.verified.other_shown == 0


def test_an_int8_folder_tells_classes_by_what_val_says_of_its_own_graph(
    int8: Path, label_run: Path, halves: Path
) -> None:
    found = read_checkpoint(int8)
    settings = saved_settings(resolve_checkpoint(label_run))
    names = found.record.class_names
    val = labelled_photos(settings, halves, "val", names, several=True)
    measuring = Measuring(device=torch.device("cpu"), num_workers=0, progress=False)
    logits_NC = measuring.predict([load_classifier(found)], val.samples, "val").logits[0]
    targets_NC = targets_of(val)
    expected = fit_label_answers(logits_NC, targets_NC, seed=settings.seed)
    answers = load_label_answers(found)
    assert answers is not None
    np.testing.assert_allclose(answers.thresholds_C, expected.thresholds_C, atol=1e-6)
    assert answers.temperature == pytest.approx(expected.temperature, rel=1e-5)
    assert answers != resolve_checkpoint(label_run).record.label_answers
    mean_ap = average_precision_score(targets_NC, logits_NC, average="macro")
    assert found.record.metrics["val_mean_ap"] == pytest.approx(mean_ap)
    told = json.loads((int8 / "export.json").read_text(encoding="utf-8"))["int8"]["judged"]
    assert told["mean_ap"]["int8"] == pytest.approx(mean_ap)
    assert told["points_of_mean_ap_lost"]["high"] <= BEARABLE
    text = (int8 / "README.md").read_text(encoding="utf-8")
    assert f"mAP of 4 classes on the 30 photos of val: {mean_ap:.1%}" in text
    # What it answers by itself is what its graph says.
    for sample in val.samples[:5]:
        same(Exported(int8).predict(sample.path), Predictor(int8).predict(sample.path).to_dict())


def test_what_int8_loses_is_scikit_learns_mean_average_precision() -> None:
    rng = np.random.default_rng(0)
    targets_NC = rng.random((300, 4)) < 0.3
    thresholds = (LabelThreshold(value=0.5),) * 4
    answers = LabelAnswers(temperature=1.0, thresholds=thresholds, num_images=300)
    logits = [4 * targets_NC - 2 + rng.normal(0, spread, (300, 4)) for spread in (1.5, 2.5)]
    float32, int8 = (answered_labels(answers, each) for each in logits)
    found = judged_labels(float32, int8, targets_NC, seed=0)
    by_sklearn = [100 * average_precision_score(targets_NC, each) for each in logits]
    assert found.loss.value == pytest.approx(by_sklearn[0] - by_sklearn[1])
    assert 0 < found.loss.low < found.loss.value < found.loss.high
    right = [((each > 0) == targets_NC).all(axis=1) for each in logits]
    assert found.only_float32_right == (right[0] & ~right[1]).sum()
    assert found.only_int8_right == (right[1] & ~right[0]).sum()
    assert found.other_shown == ((logits[0] > 0) != (logits[1] > 0)).any(axis=1).sum()
    # Where nothing changed, as many photos bound the loss as with one label.
    none = judged_labels(float32, float32, targets_NC, seed=0)
    assert (none.loss.value, none.other_shown, none.p) == (0, 0, 1)
    assert none.loss.high == least_end(300)


@pytest.mark.slow
def test_more_loss_than_borne_is_refused_in_points_of_map(
    label_run: Path, halves: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="--max-loss 1: 30 photos of val cannot show"):
        export(label_run, tmp_path / "out", precision="int8", progress=False)
    assert list(tmp_path.iterdir()) == []
    found = resolve_checkpoint(label_run)
    photos = int8_photos(found, saved_settings(found), halves, max_loss=BEARABLE)
    words = r"points of mAP on the 30 photos.*would be told other classes.*\(0\.\d\d%\).*--fp16"
    with pytest.raises(UserError, match=words):
        write_int8(
            tmp_path, load_classifier(found, fast=False), photos, max_loss=1.0, seed=0,
            answers=load_label_answers(found), parents=found.record.tree, progress=False,
        )  # fmt: skip


def test_val_that_shows_none_of_the_classes_judges_nothing(
    label_run: Path, halves: Path, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(halves, tmp_path / "data"))
    names = [path.name for path in photos_of(data)]
    write_labels(data / "val" / LABELS_FILE, {name: [] for name in names})
    with pytest.raises(DataError, match="no photo of val shows any of the classes"):
        export(label_run, tmp_path / "out", data=data, precision="int8", max_loss=BEARABLE)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
