"""`CliptuneClassifier`: what scikit-learn's tools ask of a classifier, and what training gives."""

from __future__ import annotations

import gc
import logging
import pickle
import signal
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.metrics import accuracy_score
from sklearn.model_selection import (
    GridSearchCV,
    StratifiedShuffleSplit,
    cross_val_predict,
    cross_val_score,
)
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks as checks

from cliptune import CliptuneClassifier, Predictor
from cliptune.errors import CheckpointError, DataError, ImageError, SettingsError, UserError
from cliptune.model.checkpoint import read_checkpoint
from conftest import DEVICE, distance, make_photos, tensors, trained

QUICK: dict[str, Any] = {
    "num_epochs": 1, "min_updates": 0, "learning_rate": 1e-2, "batch_size": 8, "device": DEVICE,
    "settings": {"hardware.mixed_precision": False},
}  # fmt: skip


@pytest.fixture(scope="module")
def labelled(photos: Path) -> tuple[list[str], list[str]]:
    files = sorted((photos / "train").rglob("*.png"))
    return [str(file) for file in files], [file.parent.name for file in files]


@pytest.fixture(scope="module")
def unseen(photos: Path) -> tuple[list[Path], list[str]]:
    files = sorted((photos / "test").rglob("*.png"))
    return files, [file.parent.name for file in files]


@pytest.fixture(scope="module")
def fitted(clip_folder: Path, labelled: tuple[list[str], list[str]]) -> CliptuneClassifier:
    return CliptuneClassifier(str(clip_folder), **QUICK).fit(*labelled)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made while a test runs."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


# Of all checks, those that hand over no table of numbers; scikit-learn leaves the others out by
# itself for whoever says that its input is none (`check_estimator` below).
@pytest.mark.parametrize(
    "check",
    [
        checks.check_estimator_cloneable, checks.check_estimator_tags_renamed,
        checks.check_valid_tag_types, checks.check_estimator_repr,
        checks.check_no_attributes_set_in_init,
        checks.check_do_not_raise_errors_in_init_or_set_params, checks.check_mixin_order,
        checks.check_parameters_default_constructible, checks.check_get_params_invariance,
        checks.check_set_params,
    ],
)  # fmt: skip
def test_a_check_of_scikit_learn_that_needs_no_table_of_numbers_passes(
    check: Any,
) -> None:
    check("CliptuneClassifier", CliptuneClassifier())


def test_check_estimator_finds_no_fault_and_leaves_out_only_what_wants_a_table_of_numbers() -> None:
    with pytest.warns(match="Can't test estimator CliptuneClassifier which requires input"):
        results = checks.check_estimator(CliptuneClassifier(), on_skip=None)
    assert {result["status"] for result in results} == {"passed"}


def test_a_fit_is_the_run_that_cliptune_train_makes_of_a_folder_of_the_same_photos(
    tmp_path: Path, clip_folder: Path
) -> None:
    data = make_photos(tmp_path / "data", counts={"train": 8})
    files = sorted((data / "train").rglob("*.png"), reverse=True)  # order says nothing
    ours = CliptuneClassifier(str(clip_folder), **QUICK)
    ours.fit(files, [file.parent.name for file in files])
    changes = {"training.num_epochs": 1, "data.cache": False}
    run = trained(tmp_path, clip_folder, data, **changes)
    theirs = Predictor(run, device=DEVICE).checkpoint
    assert distance(tensors(ours.checkpoint_), tensors(theirs)) == 0


def test_probabilities_are_the_predictors_in_the_order_of_classes(
    fitted: CliptuneClassifier, unseen: tuple[list[Path], list[str]]
) -> None:
    files, labels = unseen
    found_NC = fitted.predict_proba(files)
    expected = Predictor(fitted.checkpoint_, device=DEVICE, batch_size=8).predict_batch(files)
    for row, prediction in zip(found_NC, expected, strict=True):
        scores = {score.label: score.probability for score in prediction.scores}
        assert row.tolist() == [scores[label] for label in fitted.classes_]
    assert found_NC.sum(axis=1) == pytest.approx(1)
    assert (fitted.predict(files) == fitted.classes_[found_NC.argmax(axis=1)]).all()
    assert fitted.score(files, labels) == accuracy_score(labels, fitted.predict(files)) > 0.5


def test_pictures_in_memory_train_and_are_told_as_their_files_are(
    fitted: CliptuneClassifier,
    labelled: tuple[list[str], list[str]],
    unseen: tuple[list[Path], list[str]],
) -> None:
    arrays = [np.asarray(Image.open(file)) for file in labelled[0]]
    of_arrays = clone(fitted).fit(np.stack(arrays), labelled[1])
    pictures = [Image.open(file) for file in unseen[0]]
    assert of_arrays.score(pictures, unseen[1]) == fitted.score(*unseen)
    assert np.array_equal(fitted.predict_proba(pictures), fitted.predict_proba(unseen[0]))


def test_numbers_come_back_as_they_were_given_and_are_trained_under_the_names_given_for_them(
    tmp_path: Path, fitted: CliptuneClassifier, labelled: tuple[list[str], list[str]]
) -> None:
    number_of = {"amber": 2, "blue": 10, "cyan": -1}
    names = {number: name for name, number in number_of.items()}
    mine = clone(fitted).set_params(class_names=names, r=4, prompts=("a drawing of a {}.",))
    mine.fit(pd.Series(labelled[0]), pd.Series(labelled[1]).map(number_of))
    assert mine.classes_.tolist() == [-1, 2, 10]  # as numbers are sorted, not as texts
    before = mine.predict_proba(labelled[0])
    with pytest.raises(UserError, match=r"fitted and not saved.* Call save\(folder\) first"):
        pickle.dumps(mine)
    folder = mine.save(tmp_path / "deep" / "saved")
    assert read_checkpoint(folder).record.class_names == ["cyan", "amber", "blue"]
    assert not (folder / "resume").exists()
    again = CliptuneClassifier.load(folder)
    assert again.classes_.dtype == mine.classes_.dtype
    assert again.get_params() == mine.get_params()
    pickled = pickle.dumps(again)
    assert len(pickled) < 5000  # the path of the checkpoint, and no weights
    for found in (mine, again, pickle.loads(pickled)):
        assert np.array_equal(found.predict_proba(labelled[0]), before)
        assert found.checkpoint_ == folder


@pytest.mark.long
def test_scikit_learns_searches_pipelines_and_clones_take_it_and_leave_nothing(
    clip_folder: Path, labelled: tuple[list[str], list[str]], temporary: Path
) -> None:
    paths, labels = labelled
    classifier = CliptuneClassifier(str(clip_folder), **QUICK)
    steps = Pipeline([("same", FunctionTransformer()), ("classify", classifier)])
    once = StratifiedShuffleSplit(1, random_state=0)
    assert cross_val_score(steps, paths, labels, cv=once).shape == (1,)
    # It hands over the numbers of labels in their place.
    named = clone(classifier).set_params(class_names=dict(enumerate(sorted(set(labels)))))
    predicted = cross_val_predict(named, np.array(paths), labels, cv=2, method="predict_proba")
    assert predicted.shape == (len(paths), 3)
    search = GridSearchCV(steps, {"classify__r": np.array([2, 4])}, cv=once, error_score="raise")
    search.fit(pd.Series(paths), labels)
    best = search.best_estimator_["classify"]
    assert best.get_params()["r"] == search.best_params_["classify__r"]
    assert not hasattr(clone(best), "classes_")
    assert [path.name for path in temporary.iterdir()] == [best.checkpoint_.parent.name]
    del search, best
    gc.collect()
    assert list(temporary.iterdir()) == []


def test_the_same_seed_gives_the_same_model_and_another_one_another(
    fitted: CliptuneClassifier, labelled: tuple[list[str], list[str]]
) -> None:
    expected = tensors(fitted.checkpoint_)
    assert distance(tensors(clone(fitted).fit(*labelled).checkpoint_), expected) == 0
    other = clone(fitted).set_params(random_state=np.random.RandomState(3)).fit(*labelled)
    assert distance(tensors(other.checkpoint_), expected) > 0


def test_a_fit_that_fails_leaves_nothing_and_changes_nothing(
    tmp_path: Path,
    labelled: tuple[list[str], list[str]],
    fitted: CliptuneClassifier,
    temporary: Path,
) -> None:
    answers = fitted.predict_proba(labelled[0])
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    with pytest.raises(ImageError, match="2 of 26 images cannot be read") as fault:
        fitted.fit([*labelled[0], broken, tmp_path / "gone.png"], [*labelled[1], "blue", "blue"])
    assert str(broken) in str(fault.value)
    assert str(tmp_path / "gone.png") in str(fault.value)
    assert list(temporary.iterdir()) == []
    assert np.array_equal(fitted.predict_proba(labelled[0]), answers)


@pytest.mark.parametrize(
    ("photos", "labels", "said"),
    [
        ("a.jpg", ["x"], "X: found one photo"),
        ([], [], "X: it holds no photo"),
        (7, ["x"], "X: found int 7"),
        (["a.jpg", 3.0], ["x", "y"], r"X\[1\]: found float 3.0"),
        (np.zeros((3, 2)), ["x", "y", "z"], r"X: found a table of shape \(3, 2\)"),
        (pd.DataFrame({"path": ["a", "b"]}), ["x", "y"], r"table\['path'\]"),
        (["a.jpg", "b.jpg"], ["x"], "y: found 1 labels for 2 photos"),
        (["a.jpg", "b.jpg"], ["x", "x"], "every label is"),
        (["a.jpg", "b.jpg"], [0.5, 1.5], "labels of type float64"),
        (["a.jpg", "b.jpg"], [["x"], ["y"]], r"y: found an array of shape \(2, 1\)"),
        (["a.jpg", "b.jpg"], [["x", "y"], ["y"]], "labels of several kinds"),
        (["a.jpg", "b.jpg"], np.array(["x", None], dtype=object), "several kinds|type object"),
        (["a.jpg", "b.jpg"], ["x/y", "x"], "holds '/'"),
        (["a.jpg", "b.jpg"], ["x", "x "], "2 labels look like this"),
        (["a.jpg", "a.jpg"], ["x", "y"], "a.jpg: its labels are x and y"),
    ],
)
def test_photos_and_labels_that_cannot_be_learned_from_are_refused_in_one_sentence(
    photos: Any, labels: Any, said: str
) -> None:
    with pytest.raises(DataError, match=said):
        CliptuneClassifier("nowhere").fit(photos, labels)


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"r": 0}, "lora.r"),
        ({"settings": {"lora.r": 4}}, "the parameter 'r'"),
        ({"settings": {"seed": 4}}, "the parameter 'random_state'"),
        ({"settings": {"lora.rank": 4}}, "lora.rank"),
    ],
)
def test_a_faulty_parameter_is_named_before_any_photo_is_read(
    parameters: dict[str, Any], said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        CliptuneClassifier("nowhere", **parameters).fit(["a.jpg", "b.jpg"], ["x", "y"])


def test_nothing_is_saved_over_and_no_model_of_several_labels_is_loaded(
    tmp_path: Path, fitted: CliptuneClassifier, label_run: Path
) -> None:
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match="something is there already"):
        fitted.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(CheckpointError, match="several labels"):
        CliptuneClassifier.load(label_run)


def test_ctrl_c_ends_a_fit_as_it_ends_other_programs_and_leaves_nothing(
    fitted: CliptuneClassifier, labelled: tuple[list[str], list[str]], temporary: Path
) -> None:
    class Pressed(logging.Handler):
        """Presses Ctrl-C once the first epoch is told of."""

        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith("epoch 1/"):
                signal.raise_signal(signal.SIGINT)

    log, pressed = logging.getLogger("cliptune.training.train"), Pressed()
    level = log.level
    log.addHandler(pressed)
    log.setLevel(logging.INFO)
    try:
        with pytest.raises(KeyboardInterrupt):
            clone(fitted).set_params(num_epochs=50).fit(*labelled)
    finally:
        log.removeHandler(pressed)
        log.setLevel(level)
    assert list(temporary.iterdir()) == []
