from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from cliptune import Predictor
from cliptune.data.reading import Unreadable
from cliptune.inference.careful import ENDED, CarefulReader


class Ending:
    """A file whose reading ends the process, as a decoder that crashes does."""

    def read(self) -> bytes:
        os._exit(1)


@pytest.mark.slow
def test_a_photo_that_ends_its_reader_is_unreadable_and_the_others_are_as_ever(
    tiny_run: Path, photos: Path
) -> None:
    predictor = Predictor(tiny_run, device="cpu", batch_size=4)
    paths = sorted((photos / "test").rglob("*.png"))[:4]
    plain = [crop.pixels for crop in predictor.reader.ahead(paths, most=4)]
    careful = CarefulReader(preprocess=predictor.reader.preprocess)
    images = [paths[0], Ending(), paths[1], photos / "none.png", Ending(), *paths[2:]]
    first, ended, second, missing, again, *rest = (
        crop.pixels for crop in careful.ahead(images, most=4)
    )
    for found, expected in zip([first, second, *rest], plain, strict=True):
        assert np.array_equal(found, expected)
    assert isinstance(ended, Unreadable)
    assert isinstance(again, Unreadable)
    assert ended.reason == again.reason == ENDED
    assert isinstance(missing, Unreadable)
    assert "no such file" in missing.reason
