"""What is exported answers as the `Predictor` does: the graph, the file, the runner, the folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import cliptune
from cliptune import Prediction, Predictor
from cliptune.data.images import Preprocess
from cliptune.data.reading import read_image
from cliptune.errors import CheckpointError, DeviceError, MissingExtra, UserError
from cliptune.inference.export.export import export
from cliptune.inference.export.runner import Exported, read_rgb
from cliptune.inference.export.verify import TOLERANCE, verify
from cliptune.model.answers import SCORE_NAMES, answered
from cliptune.model.checkpoint import resolve_checkpoint
from cliptune.model.exported.graph import AnswerGraph
from cliptune.model.restore import load_answers, load_classifier
from conftest import make_model, trained

WITHOUT_US = """
import runpy, sys
for name in ("torch", "transformers", "cliptune", "peft"):
    sys.modules[name] = None  # an import of it fails
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def exported(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "onnx"
    made = export(tiny_run, folder, progress=False)
    assert made.verified.largest_difference <= TOLERANCE
    assert made.verified.photos > 0
    return folder


@pytest.mark.parametrize("score", SCORE_NAMES)
@pytest.mark.parametrize("per_class", [False, True])
def test_the_graph_is_the_one_way_from_logits_to_answers(
    tiny_run: Path, score: str, per_class: bool
) -> None:
    """Against float64, by each score, and with a factor for each class."""
    found = resolve_checkpoint(tiny_run)
    classifier = load_classifier(found, fast=False)
    answers, means_CD = load_answers(found)
    assert answers is not None
    changes: dict[str, Any] = {"score": score}
    if per_class:
        changes["factors"] = tuple(np.linspace(0.5, 2, classifier.num_classes).tolist())
    answers = answers.model_copy(update=changes)
    height, width = classifier.preprocess.image_size
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (5, 3, height, width), dtype=torch.uint8, generator=generator)
    with torch.no_grad():
        graph = AnswerGraph(classifier, answers, means_CD)
        features, raw, chances, scores, known = graph(pixels)
        logits, plain = classifier.answer(pixels)
        weights = classifier.class_weights()
    expected = answered(
        answers, logits.numpy(), plain.numpy(), weights_CD=weights.numpy(), means_CD=means_CD
    )
    np.testing.assert_allclose(chances, expected.probabilities_NC, atol=1e-6)
    np.testing.assert_allclose(features, plain)
    np.testing.assert_allclose(raw, logits)
    np.testing.assert_allclose(scores, expected.known_scores_N, rtol=1e-5)
    assert known.tolist() == (scores >= answers.threshold).tolist()


@pytest.mark.parametrize(
    ("kind", "changes"),
    [("clip", {"model.head": "linear"}), ("siglip", {"training.recipe": "plain"})],
)
def test_other_heads_and_models_are_exported_alike(
    tmp_path: Path, photos: Path, kind: str, changes: dict[str, Any]
) -> None:
    run = trained(tmp_path, make_model(tmp_path / "model", kind), photos, **changes)
    made = export(run, tmp_path / "out", data=photos / "test", progress=False)
    assert made.verified.photos == len(list((photos / "test").rglob("*.png")))
    assert made.verified.other_labels == 0


def test_any_number_of_images_is_answered_at_once_as_one_by_one(exported: Path) -> None:
    classifier = Exported(exported)
    height, width = classifier.about["preprocess"]["crop"]
    rng = np.random.default_rng(0)
    crops = list(rng.integers(0, 256, (7, 3, height, width), dtype=np.uint8))
    together = classifier.answer(crops)
    for i, crop in enumerate(crops):
        for name, values in classifier.answer([crop]).items():
            np.testing.assert_allclose(values[0], together[name][i], atol=1e-5, err_msg=name)


def test_the_runner_gives_the_predictors_dictionary_where_there_is_no_torch(
    exported: Path, tiny_run: Path, photos: Path, tmp_path: Path
) -> None:
    paths = sorted((photos / "test").rglob("*.png"))[:3]
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"not a photo")
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_US, exported / "run.py", *paths, broken],
        capture_output=True, text=True, encoding="utf-8",
    )  # fmt: skip
    assert ran.returncode == 1
    assert "broken.jpg" in ran.stderr
    predictor = Predictor(tiny_run, device="cpu")
    for line, path in zip(ran.stdout.splitlines(), paths, strict=True):
        found, expected = json.loads(line), predictor.predict(path).to_dict()
        assert list(found) == list(expected)
        assert [found[key] for key in ("image", "label", "name", "known")] == [
            expected[key] for key in ("image", "label", "name", "known")
        ]
        assert found["known_score"] == pytest.approx(expected["known_score"], rel=1e-5)
        for ours, theirs in zip(found["scores"], expected["scores"], strict=True):
            assert ours == theirs | {"probability": pytest.approx(theirs["probability"], abs=1e-5)}


def forms(folder: Path) -> list[Path]:
    """One picture as people have it: modes, containers, orientations, odd sizes."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    photo = coarse.resize((120, 90), Image.Resampling.BICUBIC)
    alpha = Image.fromarray(rng.integers(0, 256, (90, 120), dtype=np.uint8))
    clear = photo.copy()
    clear.putalpha(alpha)
    turned = Image.Exif()
    turned[0x0112] = 6
    saved: list[tuple[str, Image.Image, dict[str, Any]]] = [
        ("plain.jpg", photo, {}), ("turned.jpg", photo, {"exif": turned}),
        ("cmyk.jpg", photo.convert("CMYK"), {}), ("grey.png", photo.convert("L"), {}),
        ("clear.png", clear, {}), ("grey_clear.png", clear.convert("LA"), {}),
        ("palette.gif", photo.convert("P"), {}), ("bits.png", photo.convert("1"), {}),
        ("hole.png", photo.convert("P"), {"transparency": 7}), ("photo.webp", clear, {}),
        ("tall.png", photo.resize((20, 400)), {}), ("tiny.png", photo.resize((5, 3)), {}),
    ]  # fmt: skip
    for name, image, options in saved:
        image.save(folder / name, **options)
    return [folder / name for name, _, _ in saved]


@pytest.mark.parametrize("resize", [32, 40, (32, 48)])
def test_the_runner_reads_and_crops_photos_as_we_do(
    exported: Path, tmp_path: Path, resize: int | tuple[int, int]
) -> None:
    runner = Exported(exported)
    rule = runner.about["preprocess"] | {"resize": resize, "crop": (32, 32)}
    runner.about["preprocess"] = json.loads(json.dumps(rule))
    ours = Preprocess.from_dict(rule)
    for path in forms(tmp_path):
        expected = ours.pixels(read_image(path))
        np.testing.assert_array_equal(runner.crop(read_rgb(path)), expected, err_msg=path.name)


def test_pixels_of_more_than_eight_bits_are_refused_by_the_runner(tmp_path: Path) -> None:
    Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8)).save(tmp_path / "deep.png")
    with pytest.raises(ValueError, match="8 bits"):
        read_rgb(tmp_path / "deep.png")


def test_a_file_that_answers_otherwise_is_refused(
    exported: Path, clip_folder: Path, photos: Path, tmp_path: Path
) -> None:
    other = trained(tmp_path, clip_folder, photos, seed=7)
    paths = sorted((photos / "test").rglob("*.png"))
    with pytest.raises(UserError, match=r"answers otherwise for \d+ of \d+ photos"):
        verify(exported, Predictor(other, device="cpu"), paths, progress=False)


def test_nothing_is_left_where_nothing_is_proved(
    tiny_run: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"not a photo")
    with pytest.raises(UserError, match="nothing is proved"):
        export(tiny_run, tmp_path / "out", data=tmp_path / "photos", progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]
    with pytest.raises(UserError, match="something already"):
        export(tiny_run, exported, progress=False)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtra, match=r"pip install 'cliptune\[export\]'"):
        export(tiny_run, tmp_path / "out", progress=False)


@pytest.mark.parametrize("runs", ["predict", "run.py"])
def test_an_exported_folder_reports_to_nobody(
    exported: Path, photos: Path, tmp_path: Path, runs: str
) -> None:
    """onnxruntime would keep an identifier of the device below the home folder, and report."""
    kept = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    path = next((photos / "test").glob("*/*.png"))
    command: list[str | Path] = [exported / "run.py", path]
    if runs == "predict":
        command = ["-m", "cliptune", "predict", "--checkpoint", exported, "--image", path]
    subprocess.run(
        [sys.executable, *command], check=True, capture_output=True,
        env=kept | {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")},
    )  # fmt: skip
    assert not [path for path in tmp_path.rglob("*") if "Microsoft" in str(path)]


@pytest.mark.slow
def test_the_runner_needs_three_packages_and_no_torch(
    exported: Path, tiny_run: Path, photos: Path, tmp_path: Path
) -> None:
    """In an environment of its own, with what the folder's README tells to install."""
    python = tmp_path / "bare" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "bare"], check=True)
    pins = Path(__file__).parents[2] / "constraints.txt"
    install = [python, "-m", "pip", "install", "--quiet", "-c", pins, "numpy", "Pillow",
               "onnxruntime"]  # fmt: skip
    if subprocess.run(install, capture_output=True).returncode:
        pytest.skip("no packages can be installed here")
    path = next((photos / "test").glob("*/*.png"))
    ran = subprocess.run(
        [python, exported / "run.py", path], capture_output=True, text=True, encoding="utf-8",
        check=True, env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    found, expected = json.loads(ran.stdout), Predictor(tiny_run, device="cpu").predict(path)
    assert found["label"] == expected.label
    assert found["probability"] == pytest.approx(expected.probability, abs=TOLERANCE)
    absent = subprocess.run([python, "-c", "import torch"], capture_output=True)
    assert absent.returncode


def test_no_path_of_this_machine_is_exported(exported: Path, tiny_run: Path) -> None:
    contents = [path.read_bytes() for path in exported.iterdir()]
    for folder in (tiny_run.parent, Path.home(), Path(sys.prefix), Path(cliptune.__file__).parent):
        assert not any(str(folder).encode() in content for content in contents), folder


def test_an_exported_folder_is_a_checkpoint_for_predictor_and_predict(
    exported: Path, tiny_run: Path, photos: Path, tmp_path: Path
) -> None:
    paths = sorted((photos / "test").rglob("*.png"))
    ours, theirs = Predictor(exported), Predictor(tiny_run, device="cpu")
    assert (ours.class_names, ours.answers) == (theirs.class_names, theirs.answers)
    for found, expected in zip(ours.stream(paths), theirs.stream(paths), strict=True):
        assert isinstance(found, Prediction)
        assert isinstance(expected, Prediction)
        assert (found.label, found.known) == (expected.label, expected.known)
        assert found.probability == pytest.approx(expected.probability, abs=TOLERANCE)
    ran = subprocess.run(
        [sys.executable, "-m", "cliptune", "predict", "--checkpoint", exported,
         "--image-dir", photos / "test", "--output", tmp_path / "found.csv"],
        capture_output=True, text=True, encoding="utf-8",
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert len((tmp_path / "found.csv").read_text(encoding="utf-8").splitlines()) == 1 + len(paths)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 3}, "format 3, and this cliptune reads 2. Update cliptune"),
        ({"format": 1}, "format 1, and this cliptune reads 2. Export the checkpoint again"),
        ({"precision": 32}, "damaged: .*Export the checkpoint again"),
        ({"classes": []}, "export.json was damaged or changed.*Export the checkpoint again"),
        (None, "damaged: "),
    ],
)
def test_a_folder_that_was_changed_is_refused_in_words(
    exported: Path, tmp_path: Path, change: dict[str, Any] | None, words: str
) -> None:
    copy = Path(shutil.copytree(exported, tmp_path / "copy"))
    about = json.loads((copy / "export.json").read_text(encoding="utf-8"))
    text = "{" if change is None else json.dumps(about | change)
    (copy / "export.json").write_text(text, encoding="utf-8", newline="\n")
    with pytest.raises(CheckpointError, match=words):
        Predictor(copy)


def test_what_an_exported_folder_cannot_do_is_refused(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="exported folder already"):
        export(exported, tmp_path / "out", progress=False)
    with pytest.raises(DeviceError, match="exported in float32; found 'bf16'"):
        Predictor(exported, precision="bf16")
    with pytest.raises(DeviceError, match="run on the CPU"):
        Predictor(exported, device="cuda")
    copy = Path(shutil.copytree(exported, tmp_path / "copy"))
    (copy / "model.onnx").write_bytes((copy / "model.onnx").read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"model\.onnx was damaged or changed"):
        Predictor(copy)
    (copy / "SHA256SUMS").unlink()
    with pytest.raises(CheckpointError, match=r"model\.onnx: cannot be loaded"):
        Predictor(copy)
    (copy / "model.onnx").unlink()
    with pytest.raises(CheckpointError, match=r"not a whole exported folder: model\.onnx missing"):
        Predictor(copy)
