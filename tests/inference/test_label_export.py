"""What is exported of several labels answers as the checkpoint does: in each form, photo by photo,
with every class above its own threshold."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import cliptune
from cliptune import Predictor, evaluate_multilabel
from cliptune.inference.export.export import export
from cliptune.inference.export.programs import program
from cliptune.inference.export.verify import FORMS, TOLERANCE
from cliptune.model.checkpoint import read_checkpoint, resolve_checkpoint
from cliptune.model.exported.graph import AnswerGraph
from cliptune.model.label_answers import LabelAnswers, LabelThreshold, answered_labels
from cliptune.model.restore import load_classifier
from conftest import make_model, trained
from servers import Served, served

WITHOUT_US = """
import runpy, sys
for name in {absent}:
    sys.modules[name] = None  # an import of it fails
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
ABSENT = {
    "onnx": ("torch", "transformers", "cliptune", "peft", "sklearn"),
    "transformers": ("cliptune", "peft", "onnxruntime", "accelerate", "sklearn"),
}


@pytest.fixture(scope="module")
def exported(label_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "onnx"
    export(label_run, folder, progress=False)
    return folder


def photos_of(halves: Path) -> list[Path]:
    return sorted((halves / "val").glob("*.png"))


def same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """The same answer for a photo: key by key, probabilities to 1e-5."""
    assert list(found) == list(expected)
    for key in ("image", "known"):
        assert found[key] == expected[key]
    assert found["known_score"] == pytest.approx(expected["known_score"], abs=TOLERANCE)
    assert found["probability"] == found["scores"][0]["probability"]
    for key in ("scores", "shown"):
        ours, theirs = (
            {each["label"]: each["probability"] for each in values[key]}
            for values in (found, expected)
        )
        assert ours == pytest.approx(theirs, abs=TOLERANCE)


def test_the_graph_is_the_one_way_from_logits_to_labels(label_run: Path) -> None:
    """Against float64, with a threshold that a probability meets to the bit."""
    found = resolve_checkpoint(label_run)
    classifier = load_classifier(found, fast=False)
    generator = torch.Generator().manual_seed(0)
    size = (5, 3, *classifier.preprocess.image_size)
    pixels = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
    count = classifier.num_classes

    def answers_of(*values: float) -> LabelAnswers:
        thresholds = tuple(LabelThreshold(value=value) for value in values)
        return LabelAnswers(temperature=1.7, thresholds=thresholds, num_images=9)

    with torch.no_grad():
        logits, plain = classifier.answer(pixels)
        before = AnswerGraph(classifier, answers_of(*[0.5] * count), None)(pixels)[2]
        # Of the first class one photo meets the threshold, of the second none does by a hair.
        met = float(before[0, 0]), np.nextafter(float(before[0, 1]), 1.0), 0.0, 1.0
        answers = answers_of(*met)
        features, raw, chances, scores, known, shown = AnswerGraph(classifier, answers, None)(
            pixels
        )
    expected = answered_labels(answers, logits.numpy())
    np.testing.assert_allclose(features, plain)
    np.testing.assert_allclose(raw, logits)
    np.testing.assert_allclose(chances, expected.probabilities_NC, atol=1e-6)
    np.testing.assert_allclose(scores, expected.known_scores_N, atol=1e-6)
    np.testing.assert_array_equal(shown, chances.double().numpy() >= np.array(met))
    assert shown[0, :2].tolist() == [True, False]
    np.testing.assert_array_equal(known, shown.any(dim=1))


@pytest.mark.parametrize("form", FORMS)
def test_its_program_answers_as_the_predictor_where_cliptune_is_not(
    label_run: Path, halves: Path, tmp_path: Path, form: str
) -> None:
    made = export(label_run, tmp_path / "out", form=form, progress=False)
    assert made.verified.largest_difference <= TOLERANCE
    assert made.verified.other_shown == 0
    paths = photos_of(halves)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"not a photo")
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_US.format(absent=ABSENT[form]), made.runner, *paths, broken],
        capture_output=True, text=True, encoding="utf-8",
    )  # fmt: skip
    assert (ran.returncode, "broken.jpg" in ran.stderr) == (1, True), ran.stderr
    predictor = Predictor(label_run, device="cpu")
    answers = [json.loads(line) for line in ran.stdout.splitlines()]
    for found, path in zip(answers, paths, strict=True):
        same(found, predictor.predict(path).to_dict())
    counts = {len(found["shown"]) for found in answers}
    assert {0, 1, 2} <= counts  # none of the classes is an answer, too


@pytest.mark.slow
def test_a_table_of_the_exported_folder_is_that_of_the_checkpoint(
    exported: Path, label_run: Path, halves: Path, tmp_path: Path
) -> None:
    tables = []
    for checkpoint in (exported, label_run):
        out = tmp_path / f"{len(tables)}.csv"
        ran = subprocess.run(
            [sys.executable, "-m", "cliptune", "predict", "--checkpoint", checkpoint,
             "--image-dir", halves / "test", "--output", out],
            capture_output=True, text=True, encoding="utf-8",
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        with out.open(encoding="utf-8", newline="") as file:
            tables.append(list(csv.DictReader(file)))
    for found, expected in zip(*tables, strict=True):
        for key in ("image", "shown", "known", "label_1"):
            assert found[key] == expected[key]
        numbers = [key for key in expected if key.startswith("probability")]
        assert [float(found[key]) for key in numbers] == pytest.approx(
            [float(expected[key]) for key in numbers], abs=2 * TOLERANCE
        )
    assert any("|" in row["shown"] for row in tables[0])


def test_an_exported_folder_is_evaluated_as_its_checkpoint(
    exported: Path, label_run: Path, clip_folder: Path, halves: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"data_dir": halves, "split": "val", "progress": False}
    expected = evaluate_multilabel(label_run, output_dir=None, **options)
    alone = evaluate_multilabel(exported, output_dir=tmp_path, **options)
    beside = evaluate_multilabel(exported, output_dir=None, base_model=str(clip_folder), **options)
    assert alone.baseline is None
    assert (tmp_path / "report.html").is_file()
    assert beside.baseline == expected.baseline
    for measured in (alone, beside):
        np.testing.assert_array_equal(measured.photos.shown_NC, expected.photos.shown_NC)
        assert measured.figures.micro_f1 == expected.figures.micro_f1
        assert measured.mean_ap == pytest.approx(expected.mean_ap, abs=1e-9)
        assert measured.loss == pytest.approx(expected.loss, abs=1e-4)


@pytest.fixture(scope="module")
def server(exported: Path) -> Iterator[Served]:
    with served(exported, "--timeout", "4") as running:
        yield running


def test_a_server_on_the_exported_folder_answers_as_the_checkpoint(
    server: Served, label_run: Path, halves: Path
) -> None:
    predictor = Predictor(label_run, device="cpu")
    for path in photos_of(halves)[:6]:
        answer = server.client.post("/predict", files={"image": (path.name, path.read_bytes())})
        assert answer.status_code == 200, answer.text
        same(answer.json() | {"image": str(path)}, predictor.predict(path).to_dict())


def test_the_folder_says_task_classes_and_thresholds(exported: Path, label_run: Path) -> None:
    before = resolve_checkpoint(label_run).record
    told = json.loads((exported / "export.json").read_text(encoding="utf-8"))
    assert before.label_answers is not None
    assert told["task"] == "multilabel"
    assert [each["label"] for each in told["classes"]] == before.class_names
    assert told["answers"] == before.label_answers.model_dump(mode="json")
    assert told["verified"]["other_shown"] == 0
    after = read_checkpoint(exported).record
    assert (after.task, after.label_answers) == ("multilabel", before.label_answers)
    assert "any number to a photo" in (exported / "README.md").read_text(encoding="utf-8")


def test_no_path_of_this_machine_is_exported_with_several_labels(
    exported: Path, label_run: Path
) -> None:
    contents = [path.read_bytes() for path in exported.iterdir()]
    for folder in (label_run.parent, Path.home(), Path(cliptune.__file__).parent):
        assert not any(str(folder).encode() in content for content in contents), folder


@pytest.mark.parametrize("name", ["runner.py", "classify.py"])
def test_a_program_of_one_label_is_the_file_it_was(name: str) -> None:
    source = Path(cliptune.__file__).parent / "inference" / "export" / name
    assert program(name, several=False).encode() == source.read_bytes()
    assert "thresholds" in program(name, several=True)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "head"), [("siglip", "text"), ("clip", "linear")])
def test_siglips_bias_and_a_linear_head_are_exported(
    halves: Path, tmp_path: Path, kind: str, head: str
) -> None:
    run = trained(tmp_path, make_model(tmp_path / "model", kind), halves, **{"model.head": head})
    for form in FORMS:
        made = export(run, tmp_path / form, form=form, data=halves / "val", progress=False)
        assert made.verified.other_shown == 0
        assert made.verified.largest_difference <= TOLERANCE


@pytest.mark.slow
def test_the_lines_of_its_readme_tell_the_same_classes(
    label_run: Path, halves: Path, tmp_path: Path
) -> None:
    made = export(label_run, tmp_path / "out", form="transformers", progress=False)
    predictor = Predictor(label_run, device="cpu")
    photo = max(photos_of(halves), key=lambda path: len(predictor.predict(path).shown or ()))
    text = (made.folder / "README.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"Or by hand:\n\n(.*?)\n\n- ", text, re.DOTALL)
    lines = textwrap.dedent(lines).replace("photo.jpg", str(photo))
    ran = subprocess.run(
        [sys.executable, "-c", lines], cwd=made.folder, capture_output=True, text=True,
        encoding="utf-8", env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    found = {line.split()[0]: float(line.split()[1]) for line in ran.stdout.splitlines()}
    expected = {score.label: score.probability for score in predictor.predict(photo).shown or ()}
    assert len(expected) > 1
    assert found == pytest.approx(expected, abs=TOLERANCE)
