"""Models of several labels on the same photos: what is measured, refused, written and shown."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

import cliptune
from browser import browser, wider_than_window
from cliptune.cli import main
from cliptune.data.manifest import MANIFEST
from cliptune.data.multilabel import LABELS_FILE, write_labels
from cliptune.errors import DataError, ImageError, UserError
from cliptune.evaluation.comparison.multilabel import (
    ComparedLabelModel,
    MultilabelComparison,
    build_label_differences,
    most_changed_classes,
)
from cliptune.evaluation.comparison.multilabel_page import multilabel_comparison_page
from cliptune.evaluation.comparison.multilabel_text import (
    multilabel_comparison_summary,
    multilabel_comparison_text,
)
from cliptune.evaluation.comparison.page import CHANGED
from cliptune.evaluation.comparison.writing import write_comparison
from cliptune.evaluation.statistics.intervals import Estimate, holm
from cliptune.evaluation.statistics.label_answering import fit_label_answers
from cliptune.evaluation.statistics.multilabel import figures_and_draws
from cliptune.files import write_sums
from cliptune.model.checkpoint import UNSUMMED, resolve_checkpoint, write_tensors
from cliptune.model.label_answers import answered_labels
from cliptune.model.restore import read_tensors
from cliptune.text import columns
from conftest import make_model, trained
from halves import HALVES, make_halves
from pictures import scene

QUIET: dict[str, Any] = {"num_workers": 0, "device": "cpu", "progress": False}
FIGURES = ("mean_ap", "micro_f1", "macro_f1", "exact", "hamming")


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_halves(tmp_path_factory.mktemp("halves"), {"train": 60, "val": 30, "test": 40})


@pytest.fixture(scope="module")
def pair(
    clip_folder: Path, halves: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """Of one base model: a checkpoint that saw a handful of photos, and one that saw them all."""
    folder = tmp_path_factory.mktemp("compare")
    few = make_halves(folder / "few", {"train": 7, "val": 6})
    quick = {"training.num_epochs": 1, "training.val_in_head": "never"}
    runs = [
        trained(folder / name, clip_folder, photos, **quick)
        for name, photos in (("a", few), ("b", halves))
    ]
    return resolve_checkpoint(runs[0]).path, resolve_checkpoint(runs[1]).path


def compared(checkpoints: Any, halves: Path, **options: Any) -> MultilabelComparison:
    found = cliptune.compare(checkpoints, **{"data_dir": halves, "output_dir": None}
                             | QUIET | options)  # fmt: skip
    assert isinstance(found, MultilabelComparison)
    return found


def reordered(checkpoint: Path, target: Path, order: tuple[int, ...]) -> Path:
    """A copy of `checkpoint` whose classes stand in another order: record and head."""
    shutil.copytree(checkpoint, target)
    record = json.loads((target / "cliptune.json").read_text(encoding="utf-8"))
    record["class_names"] = [record["class_names"][i] for i in order]
    thresholds = record["label_answers"]["thresholds"]
    record["label_answers"]["thresholds"] = [thresholds[i] for i in order]
    (target / "cliptune.json").write_text(json.dumps(record), encoding="utf-8")
    head = target / "head.safetensors"
    tensors = read_tensors(head).items()
    count = len(order)
    write_tensors(
        head, {k: t[list(order)] if t.ndim and len(t) == count else t for k, t in tensors}
    )
    write_sums(target, leave_out=UNSUMMED)
    return target


def made_up(
    folder: Path,
    *,
    classes: int = 4,
    models: int = 2,
    photos: int = 60,
    name: str = "class",
    turned: bool = False,
) -> MultilabelComparison:
    """A comparison of made-up answers, better from model to model (worse, `turned`); no photo
    shows the last class.

    Photos lie in `folder`, which need not hold them.
    """
    rng = np.random.default_rng(0)
    names = tuple(f"{name} {i}" for i in range(classes))
    known_NC = rng.normal(-1.5, 1, (photos, classes))
    targets_NC = known_NC + rng.normal(0, 0.5, known_NC.shape) > -0.5
    targets_NC[:, -1] = False
    measured, draws = [], []
    for i in range(models):
        logits_NC = known_NC + rng.normal(0, 2 / (models - i if turned else i + 1), known_NC.shape)
        answers = fit_label_answers(logits_NC, targets_NC)
        told = answered_labels(answers, logits_NC)
        figures, own = figures_and_draws(
            told.probabilities_NC, told.shown_NC, targets_NC, seed=0, draws=100
        )
        draws.append(own)
        measured.append(
            ComparedLabelModel(
                letter="ABCDEFGHIJ"[i], checkpoint=f"outputs/run_{i}/checkpoint-epoch-3",
                base_model="openai/clip", training_data="data", answers=answers, figures=figures,
                probabilities_NC=told.probabilities_NC, shown_NC=told.shown_NC,
            )
        )  # fmt: skip
    return MultilabelComparison(
        models=tuple(measured),
        differences=build_label_differences(measured, draws, targets_NC),
        targets_NC=targets_NC,
        class_names=names,
        display_names={name: name for name in names},
        data_dir=str(folder),
        split="test",
        missing_classes=names[-1:],
        ignored_classes=(),
        skipped_images=(),
        paths=tuple(folder / "test" / f"{i:03d}.png" for i in range(photos)),
        seconds=1.0,
    )


def ends(estimate: Estimate | None) -> tuple[float, float, float]:
    assert estimate is not None
    return estimate.value, estimate.low, estimate.high


# -- what is measured ---------------------------------------------------------------------------


def test_a_model_does_not_differ_from_a_copy_of_itself(
    pair: tuple[Path, Path], halves: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(pair[0], tmp_path / "copy")
    (found,) = compared([pair[0], copy], halves).differences
    assert {ends(getattr(found.paired, name)) for name in FIGURES} == {(0, 0, 0)}
    assert {ends(each) for each in found.paired.average_precision} == {(0, 0, 0)}
    assert found.gained == found.lost == ()
    assert found.paired.mean_ap_p == found.holm_p == 1


def test_swapping_two_models_changes_the_signs_and_swaps_the_photos(
    pair: tuple[Path, Path], halves: Path
) -> None:
    (there,) = compared(pair, halves).differences
    (back,) = compared(pair[::-1], halves).differences
    assert there.gained
    assert (there.gained, there.lost) == (back.lost, back.gained)
    for name in FIGURES:
        value, low, high = ends(getattr(back.paired, name))
        assert ends(getattr(there.paired, name)) == pytest.approx((-value, -high, -low))
    assert there.paired.mean_ap.value > 0.02  # the second model learned more
    assert there.paired.mean_ap_p == back.paired.mean_ap_p


def test_figures_are_those_of_evaluate_and_differences_theirs(
    pair: tuple[Path, Path], halves: Path
) -> None:
    found = compared(pair, halves)
    alone = [
        cliptune.evaluate_multilabel(
            path, data_dir=halves, output_dir=None, baseline=False, **QUIET
        )
        for path in pair
    ]
    for model, evaluation in zip(found.models, alone, strict=True):
        assert found.paths == evaluation.photos.paths
        assert np.array_equal(model.probabilities_NC, evaluation.photos.probabilities_NC)
        assert np.array_equal(model.shown_NC, evaluation.photos.shown_NC)
        assert model.figures.classes == evaluation.figures.classes
        assert model.seen == evaluation.seen
    for name in FIGURES:
        one, other = (getattr(evaluation.figures, name) for evaluation in alone)
        assert [getattr(model.figures, name) for model in found.models] == [one, other]
        assert getattr(found.differences[0].paired, name).value == other.value - one.value


def test_the_mean_average_precision_is_scikit_learns(pair: tuple[Path, Path], halves: Path) -> None:
    found = compared(pair, halves)
    expected = [
        average_precision_score(found.targets_NC, model.probabilities_NC, average="macro")
        for model in found.models
    ]
    difference = found.differences[0].paired.mean_ap.value
    assert difference == pytest.approx(expected[1] - expected[0], abs=1e-12)


def test_the_order_of_classes_does_not_matter(
    pair: tuple[Path, Path], halves: Path, tmp_path: Path
) -> None:
    turned = reordered(pair[0], tmp_path / "turned", (2, 0, 3, 1))
    found = compared([pair[0], turned], halves)
    first, second = found.models
    assert found.class_names == tuple(sorted(HALVES))
    assert np.array_equal(first.shown_NC, second.shown_NC)
    np.testing.assert_allclose(first.probabilities_NC, second.probabilities_NC, atol=1e-6)
    assert first.answers == second.answers
    assert found.differences[0].gained == found.differences[0].lost == ()


def test_better_photos_are_those_with_more_answers_right(tmp_path: Path) -> None:
    found = made_up(tmp_path)
    (difference,) = found.differences
    right = [(model.shown_NC == found.targets_NC).sum(axis=1) for model in found.models]
    for places, more, less in (
        (difference.gained, right[1], right[0]),
        (difference.lost, right[0], right[1]),
    ):
        assert set(places) == set(np.flatnonzero(more > less))
        leads = [int(more[place] - less[place]) for place in places]
        assert leads == sorted(leads, reverse=True)
    assert difference.gained
    assert difference.lost


def test_models_of_other_base_models_see_the_same_photos(
    pair: tuple[Path, Path], halves: Path, tmp_path: Path
) -> None:
    base = make_model(tmp_path / "siglip", "siglip")
    quick = {"training.num_epochs": 1, "training.val_in_head": "never"}
    other = trained(tmp_path / "c", base, halves, **quick)
    found = compared([pair[0], other, pair[1]], halves)
    alone = cliptune.evaluate_multilabel(
        other, data_dir=halves, output_dir=None, baseline=False, **QUIET
    )
    assert found.models[1].figures.mean_ap == alone.figures.mean_ap
    plain = [each.paired.mean_ap_p for each in found.differences]
    assert tuple(each.holm_p for each in found.differences) == holm(plain)
    assert "2 comparisons are made" in multilabel_comparison_text(found)


def test_figures_and_differences_rest_on_groups_where_photos_belong_together(
    pair: tuple[Path, Path], halves: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(halves, tmp_path / "data")
    record = {
        "cliptune": "1", "source": {"name": "x", "kind": "list", "splits": "random"},
        "options": {}, "seed": 42, "counts": {}, "files": {},
        "groups": {f"test/{i:03d}.png": f"group {i // 4}" for i in range(40)},
    }  # fmt: skip
    (data / MANIFEST).write_text(json.dumps(record), encoding="utf-8")
    free, found = compared(pair, halves), compared(pair, data, output_dir=tmp_path / "out")
    assert (free.num_groups, found.num_groups) == (None, 10)
    assert "num_groups" not in free.to_dict()
    alone = cliptune.evaluate_multilabel(
        pair[0], data_dir=data, output_dir=tmp_path / "alone", baseline=True, **QUIET
    )
    assert found.models[0].figures.mean_ap == alone.figures.mean_ap
    one, other = (each.models[0].figures.mean_ap for each in (free, found))
    assert one.value == other.value
    assert (one.low, one.high) != (other.low, other.high)
    for path in ("out/comparison.txt", "out/comparison.html", "alone/evaluation_report.txt",
                 "alone/report.html"):  # fmt: skip
        text = " ".join((tmp_path / path).read_text(encoding="utf-8").split())
        assert "40 photos in 10 independent groups" in text
        assert "by resampling groups of photos, of other groups of photos like these" in text
    for path in ("out/comparison.json", "alone/evaluation_results.json"):
        assert json.loads((tmp_path / path).read_text(encoding="utf-8"))["num_groups"] == 10


# -- what is refused ----------------------------------------------------------------------------


def test_one_label_and_several_are_not_compared(
    pair: tuple[Path, Path], tiny_run: Path, halves: Path, photos: Path
) -> None:
    for models in ([pair[0], tiny_run], [tiny_run, pair[0]]):
        with pytest.raises(UserError, match="do not answer the same question") as caught:
            cliptune.compare(models, data_dir=halves, output_dir=None, **QUIET)
        assert f"({pair[0]}): any number of labels" in str(caught.value)
        assert ": one label\n" in str(caught.value)
    with pytest.raises(DataError, match="any number of labels"):
        cliptune.compare(pair, data_dir=photos, output_dir=None, **QUIET)


def test_other_classes_are_refused_and_named(
    pair: tuple[Path, Path], clip_folder: Path, halves: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(halves, tmp_path / "data")
    for path in data.glob(f"*/{LABELS_FILE}"):
        text = path.read_text(encoding="utf-8").replace("green", "zebra")
        path.write_text(text, encoding="utf-8", newline="\n")
    other = trained(tmp_path, clip_folder, data, **{"training.num_epochs": 1})
    with pytest.raises(UserError, match="do not know the same classes") as caught:
        cliptune.compare([pair[0], other], data_dir=data, output_dir=None, **QUIET)
    assert f"A ({pair[0]}) lacks: zebra" in str(caught.value)
    assert "lacks: green" in str(caught.value)


def test_photos_that_show_none_of_the_classes_are_nothing_to_measure_on(
    pair: tuple[Path, Path], halves: Path, tmp_path: Path
) -> None:
    shutil.copytree(halves / "test", tmp_path / "data" / "test")
    rows = {path.name: ["other"] for path in sorted((tmp_path / "data" / "test").glob("*.png"))}
    write_labels(tmp_path / "data" / "test" / LABELS_FILE, rows)
    for measure in (
        lambda: compared(pair, tmp_path / "data"),
        lambda: cliptune.evaluate_multilabel(
            pair[0], data_dir=tmp_path / "data", output_dir=None, **QUIET
        ),
    ):
        with pytest.raises(DataError, match=r"no photo of test shows one of the classes: .*amber"):
            measure()


def test_a_photo_that_cannot_be_read_is_named_or_left_out_for_all_models(
    pair: tuple[Path, Path], halves: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(halves, tmp_path / "data")
    broken = data / "test" / "000.png"
    broken.write_bytes(b"")
    out = tmp_path / "out"
    with pytest.raises(ImageError, match=r"1 image cannot be read:\n.*000\.png"):
        compared(pair, data, output_dir=out)
    assert not out.exists()
    found = compared(pair, data, on_bad_image="skip")
    assert found.skipped_images == (str(broken),)
    assert len(found.paths) == len(found.targets_NC) == 39
    assert all(len(model.shown_NC) == 39 for model in found.models)


# -- what is written ----------------------------------------------------------------------------


def test_the_command_writes_text_json_photos_and_page(
    pair: tuple[Path, Path], halves: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    line = ["compare", *map(str, pair), "--data-dir", str(halves), "--split", "test"]
    line += ["--batch-size", "32", "--on-bad-image", "error", "--device", "cpu"]
    with pytest.raises(SystemExit) as stopped:
        main([*line, "--output-dir", str(out)])
    assert not stopped.value.code
    found = compared(pair, halves)
    shown = capsys.readouterr().out
    assert multilabel_comparison_summary(found) in shown
    assert str(out / "comparison.html") in shown
    assert {path.name for path in out.iterdir()} == {
        "comparison.txt", "comparison.json", "comparison.html", "comparison_photos.csv",
    }  # fmt: skip
    told = json.loads((out / "comparison.json").read_text(encoding="utf-8"))
    assert told | {"seconds": 0} == found.to_dict() | {"seconds": 0}
    assert told["task"] == "multilabel"
    page = (out / "comparison.html").read_text(encoding="utf-8")
    assert f"<code>{shlex.join(['cliptune', *line])}</code>" in unescape(page)
    with (out / "comparison_photos.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    right = {
        letter: {
            row["image"]: sum(
                (name in row["labels"].split("|")) == (name in row[letter].split("|"))
                for name in HALVES
            )
            for row in rows
        }
        for letter in "AB"
    }
    (difference,) = told["differences"]
    more = {image for image, count in right["B"].items() if count > right["A"][image]}
    assert set(difference["this_model_more_right"]) == more


@pytest.mark.parametrize("models", [2, 3, 5])
def test_text_fits_80_columns_and_names_every_model(tmp_path: Path, models: int) -> None:
    found = made_up(tmp_path, models=models, classes=12, name="很长的名字" * 30)
    text = multilabel_comparison_text(found)
    assert max(columns(line) for line in text.splitlines() if str(tmp_path) not in line) <= 80
    for model in found.models:
        assert f"  {model.letter}  {model.checkpoint}" in text
    assert all(f"{model.letter} against A" in text for model in found.models[1:])
    assert ("p, Holm" in text) == (models > 2)


# -- the page -----------------------------------------------------------------------------------

HOSTILE = '<img src=x onerror=alert(1)>&"'


def test_names_cannot_become_markup_of_the_page(tmp_path: Path) -> None:
    page = multilabel_comparison_page(made_up(tmp_path / HOSTILE, name=HOSTILE))
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    write_comparison(made_up(tmp_path, name="\udcff"), tmp_path / "out")  # no valid Unicode


@pytest.mark.parametrize("classes", [10, 120])
def test_the_page_tells_each_class_and_the_photos_that_changed_in_a_real_browser(
    classes: int, tmp_path: Path
) -> None:
    found = made_up(tmp_path, classes=classes, photos=80, models=3, name="a rather long name of")
    (tmp_path / "test").mkdir()
    for place, path in enumerate(found.paths):
        scene(place).save(path)
    write_comparison(found, tmp_path / "out")
    names = [found.class_names[label] for label in most_changed_classes(found.differences)]
    galleries = [side for each in found.differences for side in (each.gained, each.lost)]
    with browser(tmp_path / "profile") as chrome:
        chrome.get((tmp_path / "out" / "comparison.html").as_uri())
        assert chrome.title == "A, B, C on the same 80 photos"
        rows = chrome.execute_script(
            "return [...document.querySelectorAll('.classes tbody tr')]"
            ".map(row => row.children[0].textContent)"
        )
        assert rows == names
        assert len(names) < classes  # the one that no photo shows is not there
        shown = chrome.execute_script(
            "return [...document.querySelectorAll('.gallery')].map(gallery =>"
            " [...gallery.querySelectorAll('.card .path')].map(file => file.textContent))"
        )
        assert shown == [
            [found.short_path(photo) for photo in side[:CHANGED]] for side in galleries
        ]
        assert chrome.execute_script(
            "return [...document.images].every(image => image.naturalWidth > 0)"
        )
        for width in (1200, 500, 380):
            chrome.set_window_size(width, 900)
            assert not wider_than_window(chrome), width


@pytest.mark.parametrize(("turned", "side"), [(False, "better"), (True, "worse")])
def test_bars_are_coloured_by_who_is_surely_better_also_where_less_is_better(
    tmp_path: Path, turned: bool, side: str
) -> None:
    found = made_up(tmp_path, photos=400, turned=turned)
    paired = found.differences[0].paired
    assert (paired.mean_ap.low > 0) != turned
    assert (paired.hamming.low > 0) == turned
    page = multilabel_comparison_page(found)
    rows = page.partition("<h2>Classes</h2>")[0].split("<tr>")
    for title in ("mAP, %", "wrong answers, %"):
        (row,) = [row for row in rows if title in row]
        assert f'class="around {side}"' in row
