"""`cliptune.pipeline` is called, and answers, as transformers' own image classification is."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.utils.data import Dataset

from cliptune import Predictor, pipeline
from cliptune.errors import DeviceError, ImageError, UserError
from cliptune.inference.export.export import export
from cliptune.inference.pipeline import ImageClassificationPipeline
from conftest import DEVICE


@pytest.fixture(scope="module")
def classify(tiny_run: Path) -> ImageClassificationPipeline:
    return pipeline("image-classification", tiny_run, device=DEVICE, batch_size=2)


@pytest.fixture(scope="module")
def files(photos: Path) -> list[str]:
    return [str(path) for path in sorted((photos / "test").rglob("*.png"))]


def in_transformers(exported: Path) -> Any:
    """The real pipeline, around the weights and the head that `cliptune export` wrote."""
    from transformers import AutoImageProcessor, CLIPModel, PretrainedConfig, PreTrainedModel
    from transformers import ImageClassificationPipeline as RealPipeline
    from transformers.modeling_outputs import ImageClassifierOutput

    about = json.loads((exported / "classifier.json").read_text(encoding="utf-8"))
    head = load_file(exported / "head.safetensors")
    names = [each["label"] for each in about["classes"]]

    class Exported(PreTrainedModel):
        config_class = PretrainedConfig

        def __init__(self, config: PretrainedConfig) -> None:
            super().__init__(config)
            self.clip = CLIPModel.from_pretrained(exported)

        def forward(self, pixel_values: torch.Tensor) -> ImageClassifierOutput:
            features_BD = self.clip.get_image_features(pixel_values=pixel_values).pooler_output
            features_BD = features_BD / features_BD.norm(dim=-1, keepdim=True)
            logits_BC = head["logit_scale"].exp() * features_BD @ head["class_weights"].T
            return ImageClassifierOutput(logits=(logits_BC + head["bias"]) * head["factors"])

    config = PretrainedConfig(num_labels=len(names))
    config.id2label = dict(enumerate(names))
    config.problem_type = "single_label_classification"
    processor = AutoImageProcessor.from_pretrained(exported, backend="pil")
    return RealPipeline(model=Exported(config).eval(), image_processor=processor, device="cpu")


def assert_alike(found: Any, expected: Any) -> None:
    """The same shape of answer, the same labels in the same order, nearly the same scores."""
    if isinstance(expected, dict):
        assert list(found) == list(expected)  # keys, in their order
        assert found["label"] == expected["label"]
        assert type(found["score"]) is type(expected["score"]) is float
        assert found["score"] == pytest.approx(expected["score"], abs=1e-4)
        return
    assert type(found) is type(expected) is list
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert_alike(one, other)


@pytest.mark.parametrize("options", [{}, {"top_k": 2}, {"top_k": 99}, {"batch_size": 3}])
def test_it_answers_as_transformers_own_pipeline_does(
    classify: ImageClassificationPipeline,
    tiny_run: Path,
    files: list[str],
    tmp_path: Path,
    options: dict[str, int],
) -> None:
    made = export(tiny_run, tmp_path / "out", form="transformers", progress=False)
    real = in_transformers(made.folder)
    opened = [Image.open(path) for path in files[:3]]
    for inputs in (files[0], opened[0], files, opened, [files[0]]):
        assert_alike(classify(inputs, **options), real(inputs, **options))
    ours = classify((path for path in files), **options)
    theirs = real((path for path in files), **options)
    assert isinstance(ours, Iterator)
    assert_alike(list(ours), list(theirs))


def test_every_kind_of_image_and_of_lot_has_the_same_answers(
    classify: ImageClassificationPipeline, files: list[str]
) -> None:
    class Photos(Dataset[Image.Image]):
        """With places, and no iterator and no IndexError: as torch's datasets are."""

        def __len__(self) -> int:
            return len(files)

        def __getitem__(self, place: int) -> Image.Image:
            return Image.open(files[place % len(files)])

    expected = classify(files)
    lots: list[Any] = [tuple(files), (Path(file) for file in files), Photos(), iter(files)]
    for lot in lots:
        assert_alike(list(classify(lot)), expected)
    first = Path(files[0])
    images: list[Any] = [first, first.read_bytes(), io.BytesIO(first.read_bytes())]
    for image in [*images, np.asarray(Image.open(first))]:
        assert_alike(classify(image), expected[0])


def test_scores_fall_and_those_of_all_classes_are_the_predictors(
    classify: ImageClassificationPipeline, files: list[str]
) -> None:
    for scores, prediction in zip(
        classify(files), classify.predictor.predict_batch(files), strict=True
    ):
        assert all(one["score"] >= other["score"] for one, other in pairwise(scores))
        assert sum(each["score"] for each in scores) == pytest.approx(1)
        assert scores == [{"label": x.label, "score": x.probability} for x in prediction.scores]


def test_a_generator_is_read_no_more_than_two_batches_ahead(
    classify: ImageClassificationPipeline, files: list[str]
) -> None:
    asked = 0

    def endless() -> Iterator[str]:
        nonlocal asked
        while True:
            asked += 1
            yield files[asked % len(files)]

    answers = classify(endless())
    assert asked == 0
    for answered in range(1, 6):
        next(answers)
        assert asked <= answered + 2 * 2 + 2
    answers.close()


def test_photos_that_cannot_be_read_are_named_in_one_error(
    classify: ImageClassificationPipeline, files: list[str], tmp_path: Path
) -> None:
    torn, none = tmp_path / "torn.png", tmp_path / "none.png"
    torn.write_bytes(Path(files[0]).read_bytes()[:100])
    with pytest.raises(ImageError, match=r"torn\.png"):
        classify(torn)
    with pytest.raises(ImageError, match=r"2 of 3 images") as caught:
        classify([files[0], torn, none])
    assert "torn.png" in str(caught.value)
    assert "none.png" in str(caught.value)
    answers = classify(file for file in (files[0], torn, files[1]))
    assert_alike(next(answers), classify(files[0]))
    with pytest.raises(ImageError, match=r"torn\.png"):
        next(answers)


def test_what_it_cannot_do_is_said_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does 'image-classification'"):
        pipeline("text-classification", tmp_path)
    with pytest.raises(UserError, match="no model is given"):
        pipeline("image-classification")
    with pytest.raises(UserError, match="batch_size: found 0"):
        pipeline(model=tmp_path, batch_size=0)


def test_calls_that_make_no_sense_are_refused(
    classify: ImageClassificationPipeline, files: list[str]
) -> None:
    assert classify(files[0], function_to_apply="softmax") == classify(files[0])
    with pytest.raises(UserError, match="found 'none'; the scores of this checkpoint"):
        classify(files[0], function_to_apply="none")
    with pytest.raises(UserError, match="top_k: found 0"):
        classify(files[0], top_k=0)
    with pytest.raises(UserError, match="found int; expected an image"):
        classify(7)


def test_devices_are_named_as_in_transformers(tiny_run: Path) -> None:
    for name in (-1, "cpu", torch.device("cpu")):
        assert pipeline(model=tiny_run, device=name).device == torch.device("cpu")
    best = Predictor(tiny_run).device
    assert pipeline(model=tiny_run).device == best
    with pytest.raises(DeviceError, match="cuda:7"):
        pipeline(model=tiny_run, device=7)
