"""What is exported for transformers answers as the `Predictor` does, without this package."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import cliptune
from cliptune import Predictor
from cliptune.data.reading import read_image
from cliptune.errors import UserError
from cliptune.inference.export.classify import Exported, read_rgb
from cliptune.inference.export.export import export
from cliptune.inference.export.licence import base_licence, card_licence
from cliptune.inference.export.verify import TOLERANCE
from cliptune.model.answers import SCORE_NAMES, answered
from cliptune.model.checkpoint import resolve_checkpoint
from cliptune.model.restore import load_answers, load_classifier, load_preprocess
from conftest import trained

WITHOUT_US = """
import runpy, sys
for name in ("cliptune", "peft", "onnxruntime", "accelerate", "sklearn"):
    sys.modules[name] = None  # an import of it fails
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def exported(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "out"
    assert export(tiny_run, folder, form="transformers", progress=False).runner.is_file()
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"model.head": "linear"}, {"training.recipe": "plain"}])
def test_every_model_and_head_answers_as_the_predictor_does(
    any_model_folder: Path, photos: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    run = trained(tmp_path, any_model_folder, photos, **changes)
    made = export(run, tmp_path / "out", form="transformers", data=photos / "test", progress=False)
    assert made.verified.photos == len(list((photos / "test").rglob("*.png")))
    assert made.verified.largest_difference <= TOLERANCE
    assert made.verified.other_labels == made.verified.other_known == 0


def test_plain_transformers_loads_the_merged_weights_and_both_processors(
    exported: Path, tiny_run: Path
) -> None:
    from transformers import AutoTokenizer, CLIPModel

    model, told = CLIPModel.from_pretrained(exported, output_loading_info=True)
    assert not any(told.values())
    assert not [name for name, _ in model.named_parameters() if "lora" in name]
    ours = load_classifier(resolve_checkpoint(tiny_run), fast=False).model
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    words = AutoTokenizer.from_pretrained(exported)(["a photo of amber."], return_tensors="pt")
    with torch.no_grad():
        for found, expected in (
            (model.get_image_features(pixels), ours.get_image_features(pixels)),
            (model.get_text_features(**words), ours.get_text_features(**words)),
        ):
            torch.testing.assert_close(found.pooler_output, expected.pooler_output)


@pytest.mark.parametrize("score", SCORE_NAMES)
def test_each_known_score_is_the_one_of_our_answers(
    tiny_run: Path, photos: Path, tmp_path: Path, score: str
) -> None:
    from cliptune.inference.export.for_transformers import write_for_transformers

    found = resolve_checkpoint(tiny_run)
    classifier = load_classifier(found, fast=False)
    answers, means_CD = load_answers(found)
    assert answers is not None
    answers = answers.model_copy(update={"score": score, "factors": (0.5, 1.0, 1.5)})
    classes = [{"label": name, "name": name} for name in found.record.class_names]
    write_for_transformers(
        tmp_path, found.path, classifier, answers, means_CD, {"classes": classes}
    )
    photo = next((photos / "test").rglob("*.png"))
    with torch.no_grad():
        pixels = torch.from_numpy(classifier.preprocess.pixels(read_image(photo)))[None]
        logits, features = classifier.answer(pixels)
        weights = classifier.class_weights()
    expected = answered(
        answers, logits.numpy(), features.numpy(), weights_CD=weights.numpy(), means_CD=means_CD
    )
    assert expected.known_scores_N is not None
    said = Exported(tmp_path).predict(photo, top_k=3)
    assert said["known_score"] == pytest.approx(expected.known_scores_N[0], rel=1e-5)
    by_label = {each["label"]: each["probability"] for each in said["scores"]}
    ours = expected.probabilities_NC[0]
    assert [by_label[name] for name in found.record.class_names] == pytest.approx(ours, abs=1e-6)


def test_the_processor_makes_the_pixels_that_we_make(
    exported: Path, tiny_run: Path, tmp_path: Path
) -> None:
    """Photos of any shape, scaled up and down, upright and transparent."""
    classifier, preprocess = Exported(exported), load_preprocess(resolve_checkpoint(tiny_run))
    rng = np.random.default_rng(0)
    turned = Image.Exif()
    turned[0x0112] = 6
    for width, height in ((40, 48), (32, 32), (333, 90), (20, 400), (5, 3), (640, 480)):
        coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 4), dtype=np.uint8), "RGBA")
        coarse.resize((width, height)).save(tmp_path / "photo.png", exif=turned)
        expected = preprocess.normalize(
            torch.from_numpy(preprocess.pixels(read_image(tmp_path / "photo.png")))[None]
        )
        image = read_rgb(tmp_path / "photo.png")
        found = classifier.processor(image, return_tensors="pt")["pixel_values"]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_its_program_answers_where_cliptune_is_not(
    exported: Path, tiny_run: Path, photos: Path, tmp_path: Path
) -> None:
    photo = next((photos / "test").rglob("*.png"))
    (tmp_path / "broken.jpg").write_bytes(b"not a photo")
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_US, exported / "classify.py", photo,
         tmp_path / "broken.jpg"],
        capture_output=True, text=True, encoding="utf-8",
    )  # fmt: skip
    assert (ran.returncode, "broken.jpg" in ran.stderr) == (1, True), ran.stderr
    found, expected = json.loads(ran.stdout), Predictor(tiny_run, device="cpu").predict(photo)
    assert list(found) == list(expected.to_dict())
    assert (found["label"], found["known"]) == (expected.label, expected.known)
    assert found["probability"] == pytest.approx(expected.probability, abs=TOLERANCE)


@pytest.mark.slow
def test_the_lines_of_its_readme_answer_alike(
    exported: Path, tiny_run: Path, photos: Path, tmp_path: Path
) -> None:
    photo = next((photos / "test").rglob("*.png"))
    text = (exported / "README.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"Or by hand:\n\n(.*?)\n\n- ", text, re.DOTALL)
    lines = textwrap.dedent(lines).replace("photo.jpg", str(photo))
    ran = subprocess.run(
        [sys.executable, "-c", lines], cwd=exported, capture_output=True, text=True,
        encoding="utf-8", env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    label, chance = ran.stdout.split()
    expected = Predictor(tiny_run, device="cpu").predict(photo)
    assert label == expected.label
    assert float(chance) == pytest.approx(expected.probability, abs=TOLERANCE)


def test_no_path_of_this_machine_is_in_it(exported: Path, tiny_run: Path) -> None:
    contents = [path.read_bytes() for path in exported.iterdir()]
    for folder in (tiny_run.parent, Path.home(), Path(sys.prefix), Path(cliptune.__file__).parent):
        assert not any(str(folder).encode() in content for content in contents), folder
    assert (exported / "SHA256SUMS").is_file()


def test_transformers_in_int8_or_another_format_is_refused(tiny_run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--format transformers is float32"):
        export(tiny_run, tmp_path / "out", form="transformers", precision="int8")
    with pytest.raises(UserError, match=r"--format onx: expected onnx, transformers"):
        export(tiny_run, tmp_path / "out", form="onx")
    with pytest.raises(UserError, match=r"bf16: .* has no products in it"):
        export(tiny_run, tmp_path / "out", precision="bf16")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ("---\nlicense: apache-2.0\ntags: [x]\n---\n# Model\n", "apache-2.0"),
        ("---\nlicense: other\nlicense_name: some-terms\n---\n", "some-terms"),
        ("---\nlicense: other\n---\n", "other"),
        ("---\ntags: [x]\n---\nlicense: mit\n", None),
        ("---\nlicense: mit\n", None),
        ("license: mit\n", None),
        ("---\n: : :\n---\n", None),
        ("---\n- a list\n---\n", None),
    ],
)
def test_a_cards_front_matter_tells_its_licence(card: str, expected: str | None) -> None:
    assert card_licence(card) == expected


@pytest.mark.slow
def test_the_base_models_licence_goes_on_with_the_weights(
    tiny_run: Path, exported: Path, clip_folder: Path, tmp_path: Path
) -> None:
    import shutil

    text = (exported / "README.md").read_text(encoding="utf-8")
    assert "its licence is not told where it lies: look it up" in text
    moved = Path(shutil.copytree(clip_folder, tmp_path / "clip"))
    card = "---\nlicense: apache-2.0\n---\n"
    (moved / "README.md").write_text(card, encoding="utf-8", newline="\n")
    checkpoint = resolve_checkpoint(tiny_run)
    assert base_licence(checkpoint, base_model=str(moved), cache_dir=None) == "apache-2.0"
    assert base_licence(checkpoint, base_model=None, cache_dir=None) is None
    made = export(tiny_run, tmp_path / "out", base_model=str(moved), progress=False)
    told = json.loads((made.folder / "export.json").read_text(encoding="utf-8"))
    assert told["base_model"]["licence"] == "apache-2.0"
    assert "licence apache-2.0" in (made.folder / "README.md").read_text(encoding="utf-8")


def test_head_tensors_are_float32(exported: Path) -> None:
    head = load_file(exported / "head.safetensors")
    assert set(head) == {"class_weights", "logit_scale", "bias", "factors", "directions"}
    assert {tensor.dtype for tensor in head.values()} == {torch.float32}
