"""Strips and giants: memory follows what is seen, and limits are told in our own words."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cliptune.checking.inspection import inspect
from cliptune.data.augment import Augmentation
from cliptune.data.images import Preprocess
from cliptune.data.photos import OPENAI_CLIP
from cliptune.data.reading import PIXEL_LIMIT, find_unreadable, read_image, read_reduced
from cliptune.errors import ImageError, UserError

SMALL = replace(OPENAI_CLIP, resize=32, crop=(32, 32))
OTHER_SHAPE = replace(OPENAI_CLIP, resize=48, crop=(32, 40))
SMOOTH = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)


def noise(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng([width, height])
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def whole(preprocess: Preprocess, image: Image.Image) -> Image.Image:
    """Resize all of it, then cut out the middle."""
    assert isinstance(preprocess.resize, int)
    assert preprocess.crop is not None
    factor = preprocess.resize / min(image.size)
    width, height = (max(preprocess.resize, int(side * factor + 1e-9)) for side in image.size)
    large = image.resize((width, height), resample=preprocess.resample)
    rows, columns = preprocess.crop
    left, top = (width - columns) // 2, (height - rows) // 2
    return large.crop((left, top, left + columns, top + rows))


@pytest.mark.skipif(sys.platform == "win32", reason="peak memory is asked of POSIX")
@pytest.mark.parametrize("size", [(1, 6000), (6000, 1), (2, 30000)])
def test_memory_for_a_strip_is_in_proportion_to_its_crop(size: tuple[int, int]) -> None:
    import resource

    def peak() -> int:  # bytes
        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    strip, before = noise(*size), peak()
    view = OPENAI_CLIP.view(strip)
    OPENAI_CLIP.scaled(448).view(strip)  # what a report shows
    Augmentation().pixels(np.array(strip), SMALL, np.random.default_rng(0))
    assert view.size == (224, 224)
    assert peak() - before < 200 * 2**20


@pytest.mark.parametrize("resample", SMOOTH)
@pytest.mark.parametrize("preprocess", [SMALL, OTHER_SHAPE])
def test_a_strip_looks_as_if_it_were_scaled_whole(preprocess: Preprocess, resample: int) -> None:
    preprocess = replace(preprocess, resample=resample)
    for size in [(1, 600), (601, 1), (3, 500), (700, 7), (29, 1500), (4001, 17)]:
        image = noise(*size)
        expected = np.asarray(whole(preprocess, image), dtype=int)
        assert np.abs(np.asarray(preprocess.view(image)) - expected).max() <= 1, size


@pytest.mark.parametrize("size", [(2, 400), (500, 3), (11, 900)])
def test_a_strip_looks_as_transformers_shows_it(size: tuple[int, int]) -> None:
    from transformers import CLIPImageProcessorPil

    processor = CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    expected = processor(images=noise(*size), return_tensors="pt")["pixel_values"]
    preprocess = Preprocess.from_processor(processor)
    ours = preprocess.normalize(torch.from_numpy(preprocess.pixels(noise(*size)))[None])
    level = 1 / 255 / min(preprocess.std)
    assert (ours - expected).abs().max() < 1.01 * level


@pytest.mark.parametrize("resample", Image.Resampling)
def test_photos_are_scaled_whole_to_the_bit(resample: Image.Resampling) -> None:
    if resample > 5:
        pytest.skip("no checkpoint may ask for it")
    preprocess = replace(SMALL, resample=int(resample))
    for size in [(48, 40), (40, 48), (20, 30), (10, 155), (155, 10), (33, 2000), (3000, 40)]:
        expected = np.asarray(whole(preprocess, noise(*size)))
        np.testing.assert_array_equal(preprocess.view(noise(*size)), expected)


# Pillow warns from half of what it refuses on; the command line does not show it.
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_too_many_pixels_are_told_with_the_limit_and_its_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # refused from twice as many on
    path = tmp_path / "large.png"
    noise(60, 40).save(path)
    with pytest.raises(
        ImageError, match=r"2,400 pixels, above the limit of 2,000 .*" + PIXEL_LIMIT
    ):
        read_image(path)
    assert inspect(path).fault == "bomb"
    monkeypatch.setenv(PIXEL_LIMIT, "2400")
    assert read_image(path).size == (60, 40)
    assert read_reduced(path, edge=20, resample=3).shape == (20, 30, 3)
    assert inspect(path).fault == ""
    monkeypatch.setenv(PIXEL_LIMIT, "2398")
    assert [fault.path for fault in find_unreadable([path])] == [path]
    monkeypatch.setenv(PIXEL_LIMIT, "many")
    with pytest.raises(UserError, match=f"{PIXEL_LIMIT}: found 'many'; expected a whole number"):
        read_image(path)
