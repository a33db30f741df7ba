"""Models on the same photos: what is measured, what is refused, and what is shown of it."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
from collections.abc import Sequence
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

import cliptune
from cliptune.cli import main
from cliptune.config import load_settings
from cliptune.errors import DataError, ImageError, UserError
from cliptune.evaluation.comparison.compare import compare
from cliptune.evaluation.comparison.comparison import Comparison, build_differences, build_model
from cliptune.evaluation.comparison.page import CHANGED, comparison_page
from cliptune.evaluation.comparison.text import comparison_summary, comparison_text
from cliptune.evaluation.comparison.writing import write_comparison
from cliptune.evaluation.evaluate import evaluate
from cliptune.evaluation.statistics.intervals import Estimate, holm
from cliptune.files import write_sums
from cliptune.model.checkpoint import UNSUMMED, resolve_checkpoint, write_tensors
from cliptune.model.restore import read_tensors
from cliptune.text import columns
from cliptune.training.train import train
from conftest import make_model, make_photos

QUIET: dict[str, Any] = {"num_workers": 0, "device": "cpu", "progress": False}


def trained(folder: Path, model: Path, photos: Path, **changes: Any) -> Path:
    """The best checkpoint of a run that takes a second, and learns only some of the classes."""
    settings = load_settings(
        overrides={
            "model.name": str(model),
            "data.data_dir": str(photos),
            "data.num_workers": 0,
            "training.recipe": "plain",  # a fitted head would know them all
            "training.num_epochs": 1,
            "training.min_updates": 0,
            "training.batch_size": 8,
            "output.output_dir": str(folder / "run"),
            "output.log_dir": str(folder / "logs"),
            "hardware.device": "cpu",
            "hardware.mixed_precision": False,
        }
        | changes
    )
    return resolve_checkpoint(train(settings, progress=False).output_dir).path


@pytest.fixture(scope="module")
def pair(
    clip_folder: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """Two models of one base model that do not agree on all photos."""
    folder = tmp_path_factory.mktemp("compare")
    good = {"training.num_epochs": 4, "training.learning_rate": 1e-2}
    return (
        trained(folder / "a", clip_folder, photos),
        trained(folder / "b", clip_folder, photos, **good),
    )


def reordered(checkpoint: Path, target: Path, order: Sequence[int]) -> Path:
    """A copy of `checkpoint` whose classes stand in another order: record, head and means."""
    shutil.copytree(checkpoint, target)
    record = json.loads((target / "cliptune.json").read_text())
    record["class_names"] = [record["class_names"][i] for i in order]
    # Told from one another by their factors too: these would go wrong if put in order first.
    record["answers"]["factors"] = [(1.0, 1.5, 0.7)[i] for i in order]
    (target / "cliptune.json").write_text(json.dumps(record))
    for name in ("head.safetensors", "means.safetensors"):
        tensors = read_tensors(target / name)
        by_class = {k: t[list(order)] if t.ndim == 2 else t for k, t in tensors.items()}
        write_tensors(target / name, by_class)
    write_sums(target, leave_out=UNSUMMED)
    return target


def negated(estimate: Estimate) -> Any:
    return pytest.approx((-estimate.value, -estimate.high, -estimate.low), abs=1e-9)


def ends(estimate: Estimate) -> tuple[float, float, float]:
    return estimate.value, estimate.low, estimate.high


def made_up(
    folder: Path, names: tuple[str, ...], *, models: int = 2, photos: int = 60, seed: int = 0
) -> Comparison:
    """A comparison of models with random answers on random labels of photos that may be absent."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(names), photos)
    logits = [rng.normal(0, 1, (photos, len(names))) for _ in range(models)]
    for i, logits_NC in enumerate(logits):
        logits_NC[np.arange(photos), labels] += i + 1
    measured = [
        build_model(
            logits_NC, labels, letter="ABCDEFGHIJKLMNOPQRSTUVWXYZ"[i],
            checkpoint=f"outputs/run_{i}/checkpoint-epoch-3", base_model="openai/clip",
            training_data="data", answers=None,
        )
        for i, logits_NC in enumerate(logits)
    ]  # fmt: skip
    return Comparison(
        models=tuple(measured),
        differences=build_differences(measured, logits, labels),
        class_names=names,
        display_names={name: name for name in names},
        data_dir=str(folder),
        split="test",
        missing_classes=(),
        ignored_classes=(),
        skipped_images=(),
        paths=tuple(folder / "test" / names[k] / f"{i}.png" for i, k in enumerate(labels)),
        labels_N=labels,
        seconds=1.0,
    )


# -- what is measured ---------------------------------------------------------------------------


def test_a_model_does_not_differ_from_a_copy_of_itself(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    copy = shutil.copytree(pair[1], tmp_path / "copy")
    found = compare([pair[1], copy], output_dir=None, **QUIET)
    (difference,) = found.differences
    assert difference.paired.gained == difference.paired.lost == ()
    assert difference.paired.accuracy_difference.value == 0
    assert difference.paired.macro_f1_difference.value == 0
    assert difference.paired.mcnemar_p is difference.holm_p is None  # no photo to tell them by
    assert all(change is not None and change.value == 0 for change in difference.recall)
    assert found.models[0].figures == found.models[1].figures


def test_swapping_two_models_negates_their_difference_and_swaps_the_photos(
    pair: tuple[Path, Path],
) -> None:
    (there,) = compare(pair, output_dir=None, **QUIET).differences
    (back,) = compare(pair[::-1], output_dir=None, **QUIET).differences
    assert there.paired.gained  # they do differ
    assert (there.paired.gained, there.paired.lost) == (back.paired.lost, back.paired.gained)
    assert there.paired.accuracy_difference.value > 0  # the second model learned more
    for name in ("accuracy_difference", "macro_f1_difference"):
        one, other = (getattr(x.paired, name) for x in (there, back))
        assert ends(one) == negated(other)
    for one, other in zip(there.recall, back.recall, strict=True):
        assert one is not None
        assert other is not None
        assert ends(one) == negated(other)
    assert there.paired.mcnemar_p == back.paired.mcnemar_p


def test_figures_are_those_of_evaluate_on_the_same_split(pair: tuple[Path, Path]) -> None:
    found = compare(pair, split="val", output_dir=None, **QUIET)
    for model, checkpoint in zip(found.models, pair, strict=True):
        alone = evaluate(checkpoint, split="val", output_dir=None, baseline=False, **QUIET)
        assert model.figures == alone.figures
        assert found.paths == alone.photos.paths
        assert np.array_equal(model.probabilities_NC, alone.photos.probabilities_NC)


def test_the_order_of_classes_does_not_matter(pair: tuple[Path, Path], tmp_path: Path) -> None:
    same = reordered(pair[1], tmp_path / "same", (0, 1, 2))
    turned = reordered(pair[1], tmp_path / "turned", (2, 0, 1))
    found = compare([same, turned], output_dir=None, **QUIET)
    first, second = found.models
    assert found.class_names == ("amber", "blue", "cyan")
    np.testing.assert_allclose(first.probabilities_NC, second.probabilities_NC, atol=1e-6)
    assert found.differences[0].paired.gained == found.differences[0].paired.lost == ()
    assert first.figures.recall == second.figures.recall


def test_models_of_different_base_models_see_the_same_photos(
    pair: tuple[Path, Path], photos: Path, tmp_path: Path
) -> None:
    base = make_model(tmp_path / "siglip", "siglip")
    other = trained(tmp_path / "c", base, photos)
    found = compare([pair[0], other, pair[1]], output_dir=None, **QUIET)
    assert [model.letter for model in found.models] == ["A", "B", "C"]
    for model, checkpoint in zip(found.models, (pair[0], other, pair[1]), strict=True):
        alone = evaluate(checkpoint, output_dir=None, baseline=False, **QUIET)
        assert model.figures.accuracy == alone.figures.accuracy
    with pytest.raises(UserError, match=r"(?s)--base-model .*different base models.*B \("):
        compare([pair[0], other], base_model=str(base), output_dir=None, **QUIET)


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_that_of_statsmodels(p_values: list[float]) -> None:
    theirs = multipletests(p_values, method="holm")[1]
    assert holm(p_values) == pytest.approx(theirs.tolist(), abs=1e-12)


def test_of_several_comparisons_p_values_are_adjusted_and_that_is_said(tmp_path: Path) -> None:
    two, four = (made_up(tmp_path, ("a", "b", "c"), models=n) for n in (2, 4))
    assert "comparisons are made" not in comparison_text(two)
    assert two.differences[0].holm_p == two.differences[0].paired.mcnemar_p
    assert "3 comparisons are made" in comparison_text(four)
    assert "3 comparisons are made" in comparison_page(four)
    plain = [found.paired.mcnemar_p for found in four.differences]
    assert tuple(found.holm_p for found in four.differences) == holm(plain)


# -- what is refused ----------------------------------------------------------------------------


def test_a_single_model_the_same_twice_and_an_unknown_split_are_refused(
    pair: tuple[Path, Path],
) -> None:
    with pytest.raises(UserError, match=r"two models or more; 1 given.*cliptune evaluate"):
        compare(pair[:1], **QUIET)
    # A run folder is its best checkpoint.
    with pytest.raises(UserError, match=r"A and C are the same checkpoint: .*checkpoint-epoch"):
        compare([pair[0], pair[1], pair[0].parent], **QUIET)
    with pytest.raises(UserError, match="expected one of train, val, test"):
        compare(pair, split="exam", **QUIET)


def test_models_of_different_classes_are_refused_and_the_classes_named(
    pair: tuple[Path, Path], clip_folder: Path, tmp_path: Path
) -> None:
    data = make_photos(tmp_path / "data", classes=("amber", "blue", "zebra"))
    other = trained(tmp_path, clip_folder, data)
    with pytest.raises(UserError, match="do not know the same classes") as caught:
        compare([pair[0], other], data_dir=data, **QUIET)
    assert f"A ({pair[0]}) lacks: zebra" in str(caught.value)
    assert f"B ({other}) lacks: cyan" in str(caught.value)


def test_models_of_different_folders_need_one_to_be_named(
    pair: tuple[Path, Path], clip_folder: Path, photos: Path, tmp_path: Path
) -> None:
    data = make_photos(tmp_path / "data", seed=3)
    other = trained(tmp_path, clip_folder, data)
    with pytest.raises(DataError, match=r"(?s)different folders.*--data-dir") as caught:
        compare([pair[0], other], **QUIET)
    assert str(data) in str(caught.value)
    found = compare([pair[0], other], data_dir=photos, output_dir=None, **QUIET)
    assert found.paths[0].is_relative_to(photos)
    assert "trained on different folders" in comparison_text(found)


def test_val_that_each_training_held_out_for_itself_is_refused(
    clip_folder: Path, tmp_path: Path
) -> None:
    data = make_photos(tmp_path / "data", counts={"train": 8, "test": 2})
    runs = [trained(tmp_path / str(s), clip_folder, data, seed=s) for s in (0, 1)]
    with pytest.raises(DataError, match=r"took different photos out of train/"):
        compare(runs, split="val", **QUIET)
    assert len(compare(runs, output_dir=None, **QUIET).paths) == 6


def test_unreadable_photos_are_all_named_or_left_out(
    pair: tuple[Path, Path], photos: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(photos, tmp_path / "data")
    broken = data / "test" / "blue" / "blue_0.png"
    broken.write_bytes(b"")
    out = tmp_path / "out"
    with pytest.raises(ImageError, match=r"1 image cannot be read:\n.*blue_0\.png"):
        compare(pair, data_dir=data, output_dir=out, **QUIET)
    assert not out.exists()
    found = compare(pair, data_dir=data, output_dir=out, on_bad_image="skip", **QUIET)
    assert found.skipped_images == (str(broken),)
    assert broken not in found.paths


# -- what is written ----------------------------------------------------------------------------


def test_the_command_writes_text_json_photos_and_page(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["compare", *map(str, pair), "--output_dir", str(out), "--device", "cpu"]
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert not stopped.value.code
    found = cliptune.compare(pair, output_dir=None, **QUIET)
    shown = capsys.readouterr().out
    assert comparison_summary(found) in shown
    assert str(out / "comparison.html") in shown
    assert {path.name for path in out.iterdir()} == {
        "comparison.txt", "comparison.json", "comparison.html", "comparison_photos.csv",
    }  # fmt: skip
    told = json.loads((out / "comparison.json").read_text(encoding="utf-8"))
    assert told | {"seconds": 0} == found.to_dict() | {"seconds": 0}
    with (out / "comparison_photos.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    right = {x: {row["image"] for row in rows if row[x] == row["label"]} for x in "AB"}
    (difference,) = told["differences"]
    assert set(difference["only_this_model_right"]) == right["B"] - right["A"]
    assert set(difference["only_reference_right"]) == right["A"] - right["B"]


def test_the_page_shows_the_line_that_compares_the_same_again(
    pair: tuple[Path, Path], photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    line = ["compare", *map(str, pair), "--data-dir", str(photos), "--split", "val"]
    line += ["--batch-size", "5", "--on-bad-image", "skip", "--device", "cpu", "--plain"]
    with pytest.raises(SystemExit) as stopped:
        main([*line, "--output-dir", str(out)])
    assert not stopped.value.code
    page = (out / "comparison.html").read_text(encoding="utf-8")
    assert f"<code>{shlex.join(['cliptune', *line])}</code>" in unescape(page)
    comparison = made_up(tmp_path, ("a", "b"))
    assert "<code>" not in comparison_page(comparison)
    assert "<code>my own &lt;line&gt;</code>" in comparison_page(comparison, "my own <line>")


@pytest.mark.parametrize("models", [2, 3, 7])
def test_text_fits_80_columns_and_names_every_model(tmp_path: Path, models: int) -> None:
    names = ("n" * 200, "很长的名字" * 30, "a", "b", "c")
    found = made_up(tmp_path, names, models=models, photos=300)
    text = comparison_text(found)
    lines = [line for line in text.splitlines() if str(tmp_path) not in line]
    assert max(map(columns, lines)) <= 80
    for model in found.models:
        assert f"  {model.letter}  {model.checkpoint}" in text
    assert all(f"{model.letter} against A" in text for model in found.models[1:])


# -- the page -----------------------------------------------------------------------------------

HOSTILE = '<img src=x onerror=alert(1)>&"'


def test_names_cannot_become_markup_of_the_page(tmp_path: Path) -> None:
    page = comparison_page(made_up(tmp_path / HOSTILE, (HOSTILE, "b", "\udcff")))
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    write_comparison(made_up(tmp_path, ("\udcff", "b")), tmp_path / "out")  # no valid Unicode


def test_the_page_shows_every_changed_photo_up_to_its_limit_in_a_real_browser(
    pair: tuple[Path, Path], photos: Path, tmp_path: Path
) -> None:
    from browser import browser, wider_than_window

    data = make_photos(tmp_path / "data", counts={"test": 40})
    first = shutil.copytree(pair[0], tmp_path / "a-rather-long-name-of-a-run" / pair[0].name)
    (data / "test" / "blue" / "blue_0.png").rename(data / "test" / "blue" / "<b>&.png")
    found = compare([first, pair[1]], data_dir=data, output_dir=tmp_path / "out", **QUIET)
    paired = found.differences[0].paired
    assert paired.only_a_right > CHANGED  # else the limit is not seen
    with browser(tmp_path / "profile") as chrome:
        chrome.get((tmp_path / "out" / "comparison.html").as_uri())
        assert chrome.title == "A, B on the same 120 photos"
        sizes = chrome.execute_script(
            "return [...document.images].map(image => [image.complete, image.naturalWidth])"
        )
        assert len(sizes) == CHANGED + min(CHANGED, paired.only_b_right)
        assert all(complete and width > 0 for complete, width in sizes)
        assert len(chrome.find_elements("css selector", ".classes tbody tr")) == 3
        loaded = chrome.execute_script(
            "return performance.getEntriesByType('resource').map(entry => entry.name)"
        )
        assert all(name.startswith("data:") for name in loaded)
        for width in (1200, 500, 380):
            chrome.set_window_size(width, 900)
            assert not wider_than_window(chrome), width
