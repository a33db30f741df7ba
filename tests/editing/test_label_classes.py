"""Classes added to and removed from a checkpoint of several labels: what changes, what must not."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from cliptune import Predictor, add_class, evaluate_multilabel, remove_class
from cliptune.data.folder import Sample, Split
from cliptune.data.image_files import find_images
from cliptune.data.multilabel import LABELS_FILE, read_labels, write_labels
from cliptune.editing.change import ClassChange
from cliptune.editing.classes import read_parts
from cliptune.editing.label_figures import LabelChangeFigures
from cliptune.editing.label_photos import MOST_OTHERS, LabelPhotos
from cliptune.editing.label_placing import (
    STRENGTHS,
    USUAL_STRENGTH,
    place_label,
    usual_share,
    zero_shot_worth,
)
from cliptune.editing.text import change_text
from cliptune.errors import CheckpointError, DataError, ImageError, UserError
from cliptune.model.answers import unit_rows
from cliptune.model.checkpoint import Checkpoint, read_checkpoint, resolve_checkpoint
from cliptune.model.label_answers import LabelAnswers
from cliptune.text import columns
from conftest import COLORS, trained
from halves import make_halves

QUIET: dict[str, Any] = {"progress": False, "device": "cpu"}
QUARTERS = {**COLORS, "green": (60, 160, 60), "red": (200, 40, 40)}


def forget(folder: Path, label: str) -> list[Path]:
    """Take `label` out of all lists in `folder`; the photos of train that have it."""
    had = []
    for path in sorted(folder.glob(f"*/{LABELS_FILE}")):
        rows = read_labels(path.parent)
        write_labels(path, {
            photo.relative_to(path.parent).as_posix(): [each for each in labels if each != label]
            for photo, labels in rows.items()
        })  # fmt: skip
        had += [photo for photo in rows if label in rows[photo] and path.parent.name == "train"]
    return had


@pytest.fixture(scope="module")
def world(clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`run/` knows all five colours of `all/`; `four/` is the same photos, and red in no list.

    `red/` are the photos of train that show red.
    """
    folder = tmp_path_factory.mktemp("labels")
    counts = {"train": 70, "val": 30, "test": 30}
    make_halves(folder / "all", counts, colors=QUARTERS)
    shutil.copytree(folder / "all", folder / "four")
    (folder / "red").mkdir()
    for path in forget(folder / "four", "red"):
        shutil.copy(path, folder / "red")
    more = {"training.batch_size": 16, "training.val_in_head": "never"}
    trained(folder, clip_folder, folder / "all", **more)
    return folder


@pytest.fixture
def whole(world: Path) -> Checkpoint:
    return resolve_checkpoint(world / "run")


@pytest.fixture(scope="module")
def less(world: Path) -> ClassChange:
    """The run without red."""
    return remove_class(world / "run", "Red", output=world / "less", data_dir=world / "all",
                        split="test", **QUIET)  # fmt: skip


def answers_of(checkpoint: Checkpoint) -> LabelAnswers:
    answers = checkpoint.record.label_answers
    assert answers is not None
    return answers


def said(checkpoint: Path, photos: Path) -> list[dict[str, float]]:
    """The probability of each class, photo by photo."""
    results = Predictor(checkpoint, device="cpu").predict_batch(list(find_images(photos)))
    return [{score.label: score.probability for score in result.scores} for result in results]


def shown(checkpoint: Path, photos: Path) -> list[list[str]]:
    results = Predictor(checkpoint, device="cpu").predict_batch(list(find_images(photos)))
    return [[score.label for score in result.shown or ()] for result in results]


def same_rows(a: Checkpoint, b: Checkpoint, names: list[str]) -> bool:
    """Whether what is answered by is the same to the bit: rows of the head, thresholds, scaling."""
    rows = []
    for checkpoint in (a, b):
        places = [checkpoint.record.class_names.index(name) for name in names]
        head, answers = read_parts(checkpoint).head, answers_of(checkpoint)
        of_classes = {
            key: tensor[places] if tensor.ndim else tensor for key, tensor in head.items()
        }
        rows.append((of_classes, [answers.thresholds[i] for i in places], answers.temperature))
    tensors_a, tensors_b = rows[0][0], rows[1][0]
    assert tensors_a.keys() == tensors_b.keys()
    alike = all(torch.equal(tensors_a[key], tensors_b[key]) for key in tensors_a)
    return alike and rows[0][1:] == rows[1][1:]


def test_a_removed_label_leaves_the_rows_thresholds_and_answers_of_the_others(
    world: Path, whole: Checkpoint, less: ClassChange
) -> None:
    others, photos = [n for n in whole.record.class_names if n != "red"], world / "all" / "test"
    assert less.checkpoint.record.class_names == others
    assert same_rows(less.checkpoint, whole, others)
    for before, after in zip(
        said(whole.path, photos), said(less.checkpoint.path, photos), strict=True
    ):
        # A matrix product rounds by how many classes there are: what it is of is the same.
        assert [after[name] for name in others] == pytest.approx(
            [before[name] for name in others], abs=1e-6
        )
    for before_shown, after_shown in zip(
        shown(whole.path, photos), shown(less.checkpoint.path, photos), strict=True
    ):
        assert after_shown == [name for name in before_shown if name != "red"]


def test_the_figures_of_a_removal_are_those_of_the_evaluation(
    world: Path, whole: Checkpoint, less: ClassChange
) -> None:
    figures = less.figures
    assert isinstance(figures, LabelChangeFigures)
    assert figures.mean_ap is not None
    for checkpoint, found in zip((whole, less.checkpoint), figures.mean_ap, strict=True):
        measured = evaluate_multilabel(
            checkpoint.path, data_dir=world / "all", output_dir=None, baseline=False, **QUIET
        )
        assert found.value == pytest.approx(measured.mean_ap, abs=1e-9)
    text = change_text(less)
    assert "The other classes answer as before" in text
    assert max(columns(line) for line in text.splitlines() if str(world) not in line) <= 80


def test_a_label_removed_and_added_from_its_labelled_photos_answers_much_as_before(
    world: Path, whole: Checkpoint, less: ClassChange, tmp_path: Path
) -> None:
    again = add_class(less.checkpoint.path, "red", output=tmp_path / "again", **QUIET)
    others = less.checkpoint.record.class_names
    assert again.checkpoint.record.class_names == [*others, "red"]
    assert same_rows(again.checkpoint, whole, others)
    before, after = (
        logit([each["red"] for each in said(path, world / "all" / "test")])
        for path in (whole.path, tmp_path / "again")
    )
    assert np.corrcoef(before, after)[0, 1] > 0.95
    assert np.mean((before > 0) == (after > 0)) > 0.9
    assert again.num_photos == sum(
        "red" in labels for labels in read_labels(world / "all" / "train").values()
    )
    assert again.label is not None
    assert not again.label.presumed
    threshold = answers_of(again.checkpoint).thresholds[-1]
    assert threshold.photos == sum(
        "red" in labels for labels in read_labels(world / "all" / "val").values()
    )
    assert threshold.low is not None
    assert "which was not measured" not in change_text(again)


def test_predictions_and_the_evaluation_of_an_added_label_agree(
    world: Path, less: ClassChange, tmp_path: Path
) -> None:
    new = tmp_path / "new"
    change = add_class(less.checkpoint.path, "red", images=world / "red", data_dir=world / "all",
                       split="test", output=new, display_name="Rot", **QUIET)  # fmt: skip
    measured = evaluate_multilabel(new, data_dir=world / "all", output_dir=None, **QUIET)
    results = Predictor(new, device="cpu").predict_batch(list(measured.photos.paths))
    for result, told in zip(results, measured.photos.shown_NC, strict=True):
        assert {score.label for score in result.shown or ()} == {
            name for name, yes in zip(measured.class_names, told, strict=True) if yes
        }
    assert measured.display_names["red"] == "Rot"
    figures = change.figures
    assert isinstance(figures, LabelChangeFigures)
    assert figures.of_class == measured.figures.classes[-1]
    assert figures.mean_ap is not None
    assert figures.mean_ap[1].value == pytest.approx(measured.mean_ap)
    # Photos given twice, in the folder and by the list, count once.
    assert change.num_photos == len(list((world / "red").iterdir()))


def test_where_no_label_names_the_class_its_threshold_is_said_not_to_be_measured(
    world: Path, less: ClassChange, tmp_path: Path
) -> None:
    change = add_class(less.checkpoint.path, "red", images=world / "red", data_dir=world / "four",
                       output=tmp_path / "new", **QUIET)  # fmt: skip
    before, after = answers_of(less.checkpoint), answers_of(change.checkpoint)
    measured = [each.value for each in before.thresholds if each.photos]
    assert after.thresholds[:-1] == before.thresholds
    assert after.thresholds[-1].value == np.median(measured)
    assert (after.thresholds[-1].photos, after.thresholds[-1].low) == (0, None)
    assert change.label is not None
    assert change.label.presumed
    # The photos given lie in train, too, where nothing says that they show red: they are left out.
    assert change.label.num_others == 70 - change.num_photos
    told = f"told from {after.thresholds[-1].value:.2f} on, which was not measured"
    assert told in change.checkpoint.record.history[-1]
    assert told in (tmp_path / "new" / "README.md").read_text(encoding="utf-8")
    words = " ".join(change_text(change).split())
    assert told in words
    assert "none of these shows it is presumed" in words
    assert "which show it is not known" in words
    report = evaluate_multilabel(
        tmp_path / "new", data_dir=world / "all", output_dir=tmp_path / "report", **QUIET
    )
    assert report.figures.classes[-1].average_precision is not None
    assert report.figures.classes[-1].average_precision.value > 0.8
    text = (tmp_path / "report" / "evaluation_report.txt").read_text(encoding="utf-8")
    assert f"{after.thresholds[-1].value:.2f}, unfitted" in " ".join(text.split())


def test_a_label_from_its_prompts_needs_prompts_that_tell_something(
    world: Path, less: ClassChange, tmp_path: Path
) -> None:
    # This CLIP has random weights: what its text tower says of the colours is chance.
    with pytest.raises(CheckpointError, match=r"would be told by chance.*--images"):
        add_class(less.checkpoint.path, "red", data_dir=world / "four", output=tmp_path / "new",
                  **QUIET)  # fmt: skip
    assert not (tmp_path / "new").exists()


@pytest.mark.slow  # a real CLIP
def test_a_label_from_its_prompts_alone_ranks_photos_as_zero_shot_does(
    small_clip: Path, dogs10: Path, tmp_path: Path
) -> None:
    breeds = sorted(path.name for path in (dogs10 / "val").iterdir())[:3]
    for split in ("train", "val", "test"):
        rows = {}
        for number, breed in enumerate(breeds):
            for place, photo in enumerate(sorted((dogs10 / split / breed).iterdir())[:8]):
                name = f"{number}_{place}.jpg"
                (tmp_path / "photos" / split).mkdir(parents=True, exist_ok=True)
                shutil.copy(photo, tmp_path / "photos" / split / name)
                rows[name] = [breed] if number else []  # nobody has named the first
        write_labels(tmp_path / "photos" / split / LABELS_FILE, rows)
    prompts = {"model.prompts": ["a photo of a {}, a type of dog."], "training.num_epochs": 1}
    run = trained(tmp_path, small_clip, tmp_path / "photos", **prompts)
    change = add_class(run, breeds[0], output=tmp_path / "new", **QUIET)
    assert change.num_photos == 0
    assert "from its prompts" in change.checkpoint.record.history[-1]
    labels = {
        name: [breeds[int(name[0])]]
        for name in sorted(path.name for path in (tmp_path / "photos" / "test").glob("*.jpg"))
    }
    write_labels(tmp_path / "photos" / "test" / LABELS_FILE, labels)
    measured = evaluate_multilabel(tmp_path / "new", output_dir=None, **QUIET)
    ours, zero_shot = measured.figures.classes[-1].average_precision, measured.baseline_classes[-1]
    assert ours is not None
    assert zero_shot is not None
    # Adapters moved the photos' features a little; the text feature is the same.
    assert ours.value == pytest.approx(zero_shot.value, abs=0.1)


def test_what_is_missing_for_a_label_is_one_message_and_nothing_is_written(
    world: Path, less: ClassChange, tmp_path: Path
) -> None:
    given: dict[str, Any] = {"images": world / "red", "output": tmp_path / "new"} | QUIET
    with pytest.raises(DataError, match=r"told from photos without it.*--data-dir"):
        add_class(less.checkpoint.path, "red", **given | {"data_dir": tmp_path / "no"})
    with pytest.raises(UserError, match="already knows 'blue'"):
        add_class(less.checkpoint.path, "Blue", **given)
    with pytest.raises(UserError, match="no class 'pink'"):
        remove_class(less.checkpoint.path, "pink", output=tmp_path / "new", **QUIET)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"1 of the 1 photo of 'red' cannot be read"):
        add_class(less.checkpoint.path, "red", **given | {"images": tmp_path / "broken"})
    exported = Checkpoint(tmp_path / "exported", less.checkpoint.record)
    exported.path.mkdir()
    (exported.path / "export.json").touch()
    with pytest.raises(UserError, match="was exported"):
        read_parts(exported)
    assert not (tmp_path / "new").exists()


def test_the_photos_of_a_label_count_as_learned_from_and_the_checkpoint_reads_back_whole(
    world: Path, less: ClassChange, tmp_path: Path
) -> None:
    from cliptune.model.restore import load_photo_sums

    images = tmp_path / "images"
    shutil.copytree(world / "all" / "test", images)
    add_class(less.checkpoint.path, "red", images=images, data_dir=world / "four",
              output=tmp_path / "new", **QUIET)  # fmt: skip
    sums = load_photo_sums(read_checkpoint(tmp_path / "new"))
    assert sums is not None
    paths = list(find_images(images))
    assert sums.count(paths)[0] == len(paths)


def test_of_many_photos_some_are_drawn_and_the_frequency_is_that_of_all() -> None:
    count = MOST_OTHERS + 500
    several = tuple((0, 1) if place < 100 else (0,) for place in range(count))
    samples = tuple(Sample(Path(f"{place}.png"), 0) for place in range(count))
    train = Split("train", ("old", "new"), samples, several=several)
    photos = LabelPhotos(folder=Path(), seed=0, train=train)
    some = photos.to_learn_from()
    assert sum(1 in labels for labels in some.several or ()) == 100
    assert len(some) == 100 + MOST_OTHERS
    labels = dict(zip(samples, several, strict=True))
    assert some.several == tuple(labels[sample] for sample in some.samples)
    assert photos.frequency == 100 / count
    unnamed = replace(train, several=((0,),) * count)
    assert LabelPhotos(folder=Path(), seed=0, train=unnamed).frequency is None


def test_a_label_that_every_photo_of_train_shows_is_refused(
    world: Path, less: ClassChange, tmp_path: Path
) -> None:
    data = shutil.copytree(world / "all", tmp_path / "data")
    rows = read_labels(data / "train")
    write_labels(data / "train" / LABELS_FILE,
                 {path.name: [*labels, "red"] for path, labels in rows.items()})  # fmt: skip
    with pytest.raises(DataError, match="every photo of train shows 'red'"):
        add_class(less.checkpoint.path, "red", data_dir=data, output=tmp_path / "new", **QUIET)
    assert not (tmp_path / "new").exists()


def drawn(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A text feature, photos that show the class and photos that do not."""
    rng = np.random.default_rng(seed)
    text_D = unit_rows(rng.normal(size=(1, 8)))[0]
    return text_D, rng.normal(size=(12, 8)) + 2 * text_D, rng.normal(size=(40, 8))


def test_without_text_the_row_is_scikit_learns_weighted_logistic_regression() -> None:
    text_D, yes_KD, others_ND = drawn()
    share, strength, scale = 0.2, 0.3, 5.0
    weight_D, bias = place_label(
        text_D, yes_KD, others_ND, scale=scale, share=share, worth=0.0, strength=strength
    )
    points = unit_rows(np.concatenate([yes_KD, others_ND]))
    labels = np.arange(len(points)) < len(yes_KD)
    each = np.where(labels, share / len(yes_KD), (1 - share) / len(others_ND))
    # Its C is over the sum of weighted losses; ours pulls by share * strength / k.
    model = LogisticRegression(C=len(yes_KD) / (share * strength), tol=1e-10, max_iter=5000)
    model.fit(points, labels, sample_weight=each)
    assert scale * weight_D == pytest.approx(model.coef_[0], abs=2e-3)
    assert bias == pytest.approx(model.intercept_[0], abs=2e-3)


def test_the_text_decides_where_it_is_trusted_without_end_and_without_photos() -> None:
    text_D, yes_KD, others_ND = drawn()
    given: dict[str, Any] = {"scale": 5.0, "share": 0.2, "worth": 0.4}
    trusted = place_label(text_D, yes_KD, others_ND, **given, strength=1e9)
    np.testing.assert_allclose(trusted[0], 0.4 * text_D, atol=1e-5)
    alone_D, bias = place_label(text_D, yes_KD[:0], others_ND, **given)
    np.testing.assert_allclose(alone_D, 0.4 * text_D)
    told_N = expit(5 * unit_rows(others_ND) @ alone_D + bias)
    assert told_N.mean() == pytest.approx(0.2)
    with pytest.raises(ValueError, match="without the class"):
        place_label(text_D, yes_KD, others_ND[:0], **given)


def test_of_few_photos_the_strength_is_the_usual_and_of_many_it_is_chosen() -> None:
    text_D, yes_KD, others_ND = drawn()
    given: dict[str, Any] = {"scale": 5.0, "share": 0.2, "worth": 0.4}
    few = [place_label(text_D, yes_KD[:5], others_ND, **given, strength=s)[0]
           for s in (None, USUAL_STRENGTH)]  # fmt: skip
    assert np.array_equal(*few)
    chosen = place_label(text_D, yes_KD, others_ND, **given)[0]
    fits = [place_label(text_D, yes_KD, others_ND, **given, strength=s)[0] for s in STRENGTHS]
    assert any(np.array_equal(chosen, fit) for fit in fits)
    # These were drawn at random but for one direction: a text that is wrong loses against them.
    wrong_D = unit_rows(np.random.default_rng(9).normal(size=(1, 8)))[0]
    by_photos = place_label(wrong_D, yes_KD, others_ND, **given)[0]
    assert unit_rows(by_photos[None])[0] @ text_D > 0.5


def test_what_zero_shot_is_worth_is_the_slope_that_labels_were_drawn_by() -> None:
    rng = np.random.default_rng(0)
    features_ND, texts_CD = rng.normal(size=(4000, 8)), unit_rows(rng.normal(size=(5, 8)))
    zero_NC = 6 * unit_rows(features_ND) @ texts_CD.T
    bases_C = np.linspace(-2, 0, 5)
    labels_NC = rng.random(zero_NC.shape) < expit(0.6 * zero_NC + bases_C)
    labels_NC[:, 0] = False  # tells nothing, and hinders nothing
    worth = zero_shot_worth(features_ND, labels_NC, texts_CD, scale=6.0)
    assert worth == pytest.approx(0.6, abs=0.05)
    assert zero_shot_worth(features_ND, ~labels_NC, texts_CD, scale=6.0) == 0.0
    assert zero_shot_worth(features_ND, labels_NC[:, :1], texts_CD[:1], scale=6.0) == 0.0
    half_NC = np.arange(8)[:, None] < np.array([1, 4, 7])
    assert usual_share(half_NC) == pytest.approx(0.5)
