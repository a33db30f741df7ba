"""Classes added and removed without training: what changes, and what must not."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from cliptune import Predictor, evaluate
from cliptune.cli import app
from cliptune.config import load_settings
from cliptune.data.image_files import find_images
from cliptune.data.naming import class_name_fault
from cliptune.editing.change import add_class, remove_class
from cliptune.editing.classes import (
    ClassParts,
    read_parts,
    with_class,
    without_class,
    write_changed,
)
from cliptune.editing.figures import change_figures
from cliptune.editing.placing import place_class
from cliptune.editing.text import change_text
from cliptune.errors import CheckpointError, DataError, ImageError, SettingsError, UserError
from cliptune.model.answers import unit_rows
from cliptune.model.checkpoint import Checkpoint, read_checkpoint, resolve_checkpoint
from cliptune.model.restore import load_answers, load_classifier
from cliptune.training.train import train
from conftest import make_model, make_photos, tensors

QUIET: dict[str, Any] = {"progress": False, "device": "cpu"}


def settings_of(folder: Path, **more: Any) -> dict[str, Any]:
    return {
        "model.name": str(folder / "model"),
        "data.data_dir": str(folder / "photos"),
        "data.num_workers": 0,
        "training.num_epochs": 1,
        "training.learning_rate": 1e-2,
        "training.batch_size": 8,
        "training.min_updates": 0,
        "output.output_dir": str(folder / "run"),
        "output.log_dir": str(folder / "logs"),
        "hardware.device": "cpu",
        "hardware.mixed_precision": False,
    } | more


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`run/`, `text/` and `linear/`, by their heads; `all/` has a class more than `photos/`."""
    folder = tmp_path_factory.mktemp("classes")
    make_model(folder / "model")
    make_photos(folder / "photos")
    make_photos(folder / "all", classes=("amber", "blue", "cyan", "red"))
    train(load_settings(overrides=settings_of(folder)), progress=False)
    for head in ("text", "linear"):
        plain = {"training.recipe": "plain", "model.head": head}
        plain |= {"output.output_dir": str(folder / head)}
        train(load_settings(overrides=settings_of(folder, **plain)), progress=False)
    return folder


@pytest.fixture
def trained(world: Path) -> Checkpoint:
    return resolve_checkpoint(world / "run")


def logits(checkpoint: Path, photos: Path) -> tuple[list[str], np.ndarray]:
    """The class names, and raw logits (N, C) of all photos below `photos`."""
    found = read_checkpoint(checkpoint)
    classifier = load_classifier(found, fast=False)
    pixels = [
        classifier.preprocess.pixels(Image.open(path).convert("RGB"))
        for path in find_images(photos)
    ]
    with torch.inference_mode():
        said = classifier(torch.from_numpy(np.stack(pixels)))
    return found.record.class_names, said.numpy()


def same_rows(new: Path, rows: slice | list[int], old: Path, old_rows: slice | list[int]) -> bool:
    """Whether those class weights are the same to the bit.

    Logits are a matrix product, whose rounding depends on how many classes there are: what is the
    same to the bit is what they are computed from.
    """
    weights = [
        load_classifier(read_checkpoint(path), fast=False).class_weights() for path in (new, old)
    ]
    return torch.equal(weights[0][rows], weights[1][old_rows])


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("photos", [False, True], ids=["prompts", "photos"])
def test_an_added_class_changes_no_other_logit(
    world: Path, trained: Checkpoint, tmp_path: Path, photos: bool
) -> None:
    before = digests(trained.path)
    images = world / "all" / "train" / "red" if photos else None
    change = add_class(trained.path, "red", images=images, output=tmp_path / "new", **QUIET)
    assert digests(trained.path) == before
    old_names, old = logits(trained.path, world / "all" / "test")
    names, new = logits(change.checkpoint.path, world / "all" / "test")
    assert names == [*old_names, "red"]
    assert same_rows(tmp_path / "new", slice(3), trained.path, slice(3))
    np.testing.assert_allclose(new[:, :-1], old, atol=2e-5)
    for file in ("adapter_model.safetensors", "adapter_config.json", "config.yaml"):
        assert digests(tmp_path / "new")[file] == before[file]


@pytest.mark.parametrize("run", ["run", "text", "linear"])
def test_a_removed_class_changes_no_other_logit(world: Path, tmp_path: Path, run: str) -> None:
    found = resolve_checkpoint(world / run)
    change = remove_class(found.path, "Blue", output=tmp_path / "less", **QUIET)
    assert change.checkpoint.record.class_names == ["amber", "cyan"]
    _, old = logits(found.path, world / "photos" / "test")
    _, new = logits(tmp_path / "less", world / "photos" / "test")
    assert same_rows(tmp_path / "less", slice(2), found.path, [0, 2])
    np.testing.assert_allclose(new, old[:, [0, 2]], atol=2e-5)


@pytest.mark.parametrize("run", ["run", "text"])
def test_an_untrained_class_removed_and_added_from_its_prompts_answers_as_before(
    world: Path, tmp_path: Path, run: str
) -> None:
    trained = resolve_checkpoint(world / run)
    parts = read_parts(trained)
    learned = {"offset", "fitted", "bias"} & parts.head.keys()
    untrained = parts.head | {key: torch.zeros_like(parts.head[key]) for key in learned}
    if "share" in untrained:
        untrained["share"] = torch.tensor(0.7)
    start = write_changed(
        tmp_path / "zero", trained, ClassParts(parts.record, untrained, parts.means_CD)
    )
    remove_class(start.path, "cyan", output=tmp_path / "less", **QUIET)
    add_class(tmp_path / "less", "cyan", output=tmp_path / "again", **QUIET)
    names, before = logits(start.path, world / "photos" / "test")
    names_again, again = logits(tmp_path / "again", world / "photos" / "test")
    assert names_again == names
    assert same_rows(tmp_path / "again", slice(2), start.path, slice(2))
    np.testing.assert_allclose(again, before, atol=2e-5)


def test_the_prompts_of_a_new_class_go_through_the_text_tower_as_it_was_trained(
    world: Path, tmp_path: Path
) -> None:
    both = {"lora.towers": "both", "output.output_dir": str(tmp_path / "both")}
    train(load_settings(overrides=settings_of(world, **both)), progress=False)
    found = resolve_checkpoint(tmp_path / "both")
    remove_class(found.path, "cyan", output=tmp_path / "less", **QUIET)
    again = add_class(tmp_path / "less", "cyan", output=tmp_path / "again", **QUIET).checkpoint
    trained_row = read_parts(found).head["features"][2]
    torch.testing.assert_close(
        read_parts(again).head["features"][2], trained_row, atol=1e-5, rtol=0
    )
    untrained = add_class(
        remove_class(
            resolve_checkpoint(world / "run").path, "cyan", output=tmp_path / "l", **QUIET
        ).checkpoint.path,
        "cyan", output=tmp_path / "u", **QUIET,
    ).checkpoint  # fmt: skip
    assert (read_parts(untrained).head["features"][2] - trained_row).norm() > 1e-3


def test_a_class_added_and_removed_leaves_the_tensors_it_found(trained: Checkpoint) -> None:
    parts = read_parts(trained)
    text_D = parts.head["features"][0].roll(1)
    back = without_class(
        with_class(parts, "red", text_D=text_D, prompt_names=["x"], display_name="Y"), "red"
    )
    for key, tensor in parts.head.items():
        assert torch.equal(back.head[key], tensor)
    assert parts.means_CD is not None
    assert np.array_equal(back.means_CD, parts.means_CD)  # type: ignore[arg-type]
    assert back.record.class_names == parts.record.class_names
    assert back.record.prompt_names == parts.record.prompt_names
    assert back.record.display_names == parts.record.display_names
    assert back.record.history == ["class 'red' added from its prompts", "class 'red' removed"]


def test_the_placed_weight_is_where_the_gradient_of_the_stated_objective_vanishes() -> None:
    rng = np.random.default_rng(0)
    text, weights = unit_rows(rng.normal(size=(1, 12)))[0], unit_rows(rng.normal(size=(4, 12)))
    photos, means = rng.normal(size=(5, 12)), unit_rows(rng.normal(size=(4, 12)))
    means[2] = 0  # a class without photos
    given: dict[str, Any] = {"weights_CD": weights, "means_CD": means, "scale": 9.0}
    placed = place_class(text, photos, **given, strength=7.0)
    assert np.linalg.norm(placed) == pytest.approx(1)

    x, w_old, m, t = (torch.tensor(a) for a in (unit_rows(photos), weights, means, text))
    v = torch.tensor(placed, requires_grad=True)
    rows = torch.cat([w_old, torch.nn.functional.normalize(v, dim=0)[None]])
    log_new = torch.log_softmax(9 * x @ rows.T, dim=1)[:, 4].mean()
    log_old = sum(torch.log_softmax(9 * rows @ m[c], dim=0)[c] for c in (0, 1, 3))
    (5 * (log_new + log_old) - 3.5 * (rows[4] - t).square().sum()).backward()
    assert float(v.grad.norm()) < 2e-3  # type: ignore[union-attr]


def test_the_text_decides_where_it_is_trusted_without_end_and_the_order_of_photos_never() -> None:
    rng = np.random.default_rng(1)
    text, weights = unit_rows(rng.normal(size=(1, 12)))[0], unit_rows(rng.normal(size=(4, 12)))
    photos, means = rng.normal(size=(6, 12)), unit_rows(rng.normal(size=(4, 12)))
    given: dict[str, Any] = {"weights_CD": weights, "means_CD": means, "scale": 9.0}
    np.testing.assert_allclose(place_class(text, photos, strength=1e9, **given), text, atol=1e-5)
    placed = place_class(text, photos, **given)
    np.testing.assert_allclose(place_class(text, photos[::-1], **given), placed, atol=1e-4)
    further = [np.linalg.norm(place_class(text, photos[:k], **given) - text) for k in (1, 6)]
    assert further[0] < further[1]


def test_a_changed_checkpoint_is_whole_and_everything_reads_it(
    world: Path, trained: Checkpoint, tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import CLIPModel

    change = add_class(
        trained.path, "red", images=world / "all" / "train" / "red", output=tmp_path / "new",
        data_dir=world / "all", prompt_names=["red", "green red"], display_name="红", **QUIET,
    )  # fmt: skip
    record = read_checkpoint(tmp_path / "new").record
    assert record.metrics == {}
    assert record.prompt_names == {"red": ["red", "green red"]}
    assert record.history == ["class 'red' added from 8 photos"]
    assert not (tmp_path / "new" / "resume").exists()
    assert "class 'red' added from 8 photos" in (tmp_path / "new" / "README.md").read_text()
    answers, means_CD = load_answers(change.checkpoint)
    assert answers is not None
    assert "added from 8 photos since" in answers.note
    assert means_CD is not None
    np.testing.assert_allclose(np.linalg.norm(means_CD, axis=1), 1, atol=1e-6)

    evaluation = evaluate(
        tmp_path / "new", data_dir=world / "all", split="val", output_dir=None, num_workers=0,
        device="cpu", progress=False,
    )  # fmt: skip
    assert evaluation.baseline is not None
    assert evaluation.display_names["red"] == "红"
    figures = change.figures
    assert figures is not None
    assert figures.recall is not None
    assert evaluation.report["red"]["recall"] == pytest.approx(figures.recall.value)
    right = figures.after.value * figures.num_others + figures.recall.value * figures.num_new
    assert evaluation.figures.accuracy.value == pytest.approx(right / evaluation.figures.num_images)
    photo = find_images(world / "all" / "test" / "red")[0]
    assert len(Predictor(tmp_path / "new", device="cpu").predict(photo).scores) == 4
    PeftModel.from_pretrained(CLIPModel.from_pretrained(world / "model"), str(tmp_path / "new"))


def test_a_checkpoint_with_factors_gets_their_mean_for_the_new_class(trained: Checkpoint) -> None:
    parts = read_parts(trained)
    answers = parts.record.answers
    assert answers is not None
    record = parts.record.model_copy(
        update={"answers": answers.model_copy(update={"factors": (0.5, 1.0, 3.0)})}
    )
    parts = ClassParts(record, parts.head, parts.means_CD)
    more = with_class(parts, "red", text_D=parts.head["features"][0])
    assert more.record.answers is not None
    assert more.record.answers.factors == (0.5, 1.0, 3.0, 1.5)
    less = without_class(more, "amber")
    assert less.record.answers is not None
    assert less.record.answers.factors == (1.0, 3.0, 1.5)


def test_names_that_cannot_be_are_refused_with_what_to_do(
    world: Path, trained: Checkpoint, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="already knows 'blue'"):
        add_class(trained.path, "BLUE", **QUIET)
    with pytest.raises(UserError, match="holds '/'"):
        add_class(trained.path, "../red", **QUIET)
    with pytest.raises(UserError, match="--display-name"):
        add_class(trained.path, "red", display_name="Cyan", **QUIET)
    with pytest.raises(UserError, match="Nearest: amber"):
        remove_class(trained.path, "ambre", **QUIET)
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match="exists already"):
        add_class(trained.path, "red", output=tmp_path / "there", **QUIET)
    remove_class(trained.path, "amber", output=tmp_path / "two", **QUIET)
    with pytest.raises(UserError, match="at least 2"):
        remove_class(tmp_path / "two", "cyan", **QUIET)


@pytest.mark.parametrize("name", ["red.", "con", "re:d", "red?", "caf\udce9"])
def test_a_class_that_prepare_would_refuse_is_refused(trained: Checkpoint, name: str) -> None:
    assert class_name_fault(name)
    with pytest.raises(UserError, match="as 'cliptune prepare' wants it"):
        add_class(trained.path, name, **QUIET)


def test_photos_that_cannot_serve_are_one_error_and_nothing_is_written(
    world: Path, trained: Checkpoint, tmp_path: Path
) -> None:
    (tmp_path / "images").mkdir()
    given: dict[str, Any] = {"images": tmp_path / "images", "output": tmp_path / "new"} | QUIET
    with pytest.raises(DataError, match="no photos in it"):
        add_class(trained.path, "red", **given)
    for i in range(3):
        (tmp_path / "images" / f"broken_{i}.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match="3 of the 3 photos") as caught:
        add_class(trained.path, "red", **given)
    assert all(f"broken_{i}.png" in str(caught.value) for i in range(3))
    with pytest.raises(CheckpointError, match="linear head"):
        add_class(world / "linear", "red", output=tmp_path / "new", **QUIET)
    nothing = read_parts(trained)
    nothing.head["share"].zero_()
    with pytest.raises(CheckpointError, match=r"takes 0% of its answers from text.*--images"):
        with_class(nothing, "red", text_D=nothing.head["features"][0])
    parts = read_parts(trained)
    plain = parts.record.model_copy(update={"answers": None})
    write_changed(tmp_path / "old", trained, ClassParts(plain, parts.head, None))
    images = world / "all" / "train" / "red"
    with pytest.raises(CheckpointError, match=r"means\.safetensors"):
        add_class(tmp_path / "old", "red", images=images, output=tmp_path / "new", **QUIET)
    assert not (tmp_path / "new").exists()


def test_without_data_the_class_is_added_and_the_screen_says_nothing_was_measured(
    trained: Checkpoint, tmp_path: Path, world: Path
) -> None:
    (world / "photos").rename(world / "away")
    try:
        change = add_class(trained.path, "zzgrblx", output=tmp_path / "new", **QUIET)
    finally:
        (world / "away").rename(world / "photos")
    assert change.figures is None
    assert "was not measured" in change_text(change)
    assert "may be said to show none of the classes" in " ".join(change_text(change).split())
    assert read_checkpoint(tmp_path / "new").record.class_names[-1] == "zzgrblx"
    with pytest.raises(DataError):  # a folder named by the user must be there
        add_class(trained.path, "red", data_dir=tmp_path / "no", output=tmp_path / "n", **QUIET)


def test_photos_a_class_was_added_from_are_not_measured_on(
    world: Path, trained: Checkpoint, tmp_path: Path
) -> None:
    change = add_class(
        trained.path, "red", images=world / "all" / "val" / "red", output=tmp_path / "new",
        data_dir=world / "all", **QUIET,
    )  # fmt: skip
    assert change.figures is not None
    assert change.figures.num_new == 0
    assert change.figures.recall is None


def test_figures_before_and_after_count_the_other_classes_photos_alone() -> None:
    labels = np.array([0, 0, 1, 1, 2])
    scaled = np.array([[2, 1, 0], [2, 1, 3], [0, 2, 1], [3, 2, 1], [0, 0, 5]], dtype=float)
    figures = change_figures(scaled, labels, index=2, added=True)
    assert (figures.before.value, figures.after.value) == (0.75, 0.5)
    assert (figures.taken, figures.num_others, figures.num_new) == (1, 4, 1)
    assert figures.recall is not None
    assert figures.recall.value == 1
    assert figures.precision is not None
    assert figures.precision.value == 0.5
    removed = change_figures(scaled, labels, index=2, added=False)
    assert (removed.before.value, removed.after.value) == (0.5, 0.75)


def test_a_run_does_not_go_on_from_a_changed_checkpoint(
    world: Path, trained: Checkpoint, tmp_path: Path
) -> None:
    add_class(trained.path, "red", output=tmp_path / "run" / "checkpoint-epoch-1", **QUIET)
    again = {"output.output_dir": str(tmp_path / "run"), "training.num_epochs": 2}
    settings = load_settings(overrides=settings_of(world, **again))
    with pytest.raises((CheckpointError, SettingsError), match="cannot be trained further"):
        train(settings, resume=True, progress=False)


@pytest.mark.slow
def test_the_command_line_adds_beside_the_checkpoint_and_removes_again(
    world: Path, trained: Checkpoint
) -> None:
    command = [sys.executable, "-m", "cliptune", "add-class", str(world / "run"), "red"]
    options = ["--data-dir", str(world / "all"), "--device", "cpu"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    target = trained.path.with_name(f"{trained.path.name}-plus-red")
    assert str(target) in done.stdout
    assert "other classes, top-1, %" in done.stdout
    assert all(len(line) <= 80 or str(world) in line for line in done.stdout.splitlines())
    assert resolve_checkpoint(world / "run").path == trained.path  # no checkpoint of the run
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "exists already" in done.stderr
    names = json.loads((target / "cliptune.json").read_text())["class_names"]
    assert names == ["amber", "blue", "cyan", "red"]
    help_text = CliRunner().invoke(app, ["remove-class", "--help"]).output
    assert "one class less" in help_text
    assert tensors(target)["adapter_model.safetensors/" + _first_adapter(trained.path)].numel()


def _first_adapter(checkpoint: Path) -> str:
    keys = [k for k in tensors(checkpoint) if k.startswith("adapter_model.safetensors/")]
    return keys[0].partition("/")[2]
