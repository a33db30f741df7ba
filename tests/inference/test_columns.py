from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cliptune import Predictor
from cliptune.errors import UserError


@pytest.fixture(scope="module")
def predictor(tiny_run: Path) -> Predictor:
    return Predictor(tiny_run, device="cpu", batch_size=4)


def objects(values: list[Any]) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    assert list(one) == list(other)
    return all(
        np.array_equal(one[key], other[key], equal_nan=one[key].dtype != object) for key in one
    )


def test_paths_contents_and_crops_give_the_same_columns(predictor: Predictor, photos: Path) -> None:
    paths = sorted((photos / "test").rglob("*.png"))[:6]
    by_path = predictor.batch({"path": objects(list(map(str, paths)))}, top_k=2)
    by_content = predictor.batch(
        {"content": objects([path.read_bytes() for path in paths])}, top_k=2
    )
    crops = np.stack([predictor.reader.read(path).pixels for path in paths])
    crops.flags.writeable = False  # as engines hand them over
    by_crop = predictor.batch({"pixels": crops}, top_k=2)
    assert same(by_path, by_content)
    assert same(by_path, by_crop)
    assert by_path["labels"].shape == by_path["probabilities"].shape == (6, 2)


def test_columns_say_what_stream_says(predictor: Predictor, photos: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    paths = [*sorted((photos / "test").rglob("*.png"))[:5], broken]
    columns = predictor.batch({"path": objects(paths)}, top_k=3)
    *answers, fault = predictor.stream(paths, top_k=3)
    for place, answer in enumerate(answers):
        assert columns["label"][place] == answer.label
        assert columns["name"][place] == answer.name
        assert columns["probability"][place] == answer.probability
        assert list(columns["labels"][place]) == [score.label for score in answer.scores]
        assert columns["known"][place] is answer.known
        assert columns["error"][place] is None
    assert columns["error"][-1] == fault.reason
    assert columns["label"][-1] is None
    assert np.isnan(columns["probability"][-1])


def test_a_fault_beside_crops_goes_on_to_its_row_alone(predictor: Predictor, photos: Path) -> None:
    paths = sorted((photos / "test").rglob("*.png"))[:3]
    crops = np.stack([predictor.reader.read(path).pixels for path in paths])
    columns = {"pixels": crops, "error": objects(["", "it could not be fetched", np.nan])}
    answers = predictor.batch(columns)
    assert answers["error"].tolist() == [None, "it could not be fetched", None]
    assert [label is None for label in answers["label"]] == [False, True, False]


def test_no_rows_are_no_answers(predictor: Predictor) -> None:
    answers = predictor.batch({"path": objects([])}, top_k=2)
    assert answers["label"].shape == (0,)
    assert answers["labels"].shape == (0, 2)


def test_columns_without_an_image_are_refused_by_name(predictor: Predictor) -> None:
    with pytest.raises(UserError, match="columns id, url: none is pixels, content or path"):
        predictor.batch({"id": np.arange(2), "url": objects(["a", "b"])})
