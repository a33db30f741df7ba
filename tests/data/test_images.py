from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cliptune.data import reading
from cliptune.data.augment import Augmentation
from cliptune.data.images import Preprocess
from cliptune.data.reading import find_unreadable, read_image
from cliptune.errors import ImageError, ModelError


def picture(width: int = 50, height: int = 40) -> Image.Image:
    """Smooth in both directions, every corner different."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [255 * x / width, 255 * y / height, 127 + 0 * x]
    return Image.fromarray(np.stack(channels, -1).astype(np.uint8))


def processors() -> list[object]:
    from transformers import (
        ChineseCLIPImageProcessorPil,
        CLIPImageProcessorPil,
        SiglipImageProcessorPil,
    )

    return [
        CLIPImageProcessorPil(),
        CLIPImageProcessorPil(size={"shortest_edge": 96}, crop_size={"height": 64, "width": 80}),
        SiglipImageProcessorPil(),
        ChineseCLIPImageProcessorPil(),
    ]


def assert_same_pixels(processor: object, image: Image.Image) -> None:
    expected = processor(images=image, return_tensors="pt")["pixel_values"]  # type: ignore[operator]
    preprocess = Preprocess.from_processor(processor)
    ours = preprocess.normalize(torch.from_numpy(preprocess.pixels(image))[None])
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)
    assert ours.shape[-2:] == preprocess.image_size


@pytest.mark.parametrize("processor", processors(), ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("size", [(300, 200), (199, 301), (224, 224), (97, 1000)])
def test_preprocessing_is_that_of_transformers(processor: object, size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    assert_same_pixels(processor, Image.fromarray(noise))


@pytest.mark.parametrize("processor", processors(), ids=lambda p: type(p).__name__)
def test_preprocessing_is_that_of_transformers_on_real_photos(
    processor: object, dogs10: Path
) -> None:
    for path in sorted((dogs10 / "test").rglob("*.jpg"))[::20]:
        photo = read_image(path)
        for image in (photo, photo.resize((331, 217))):
            assert_same_pixels(processor, image)


def test_preprocess_survives_being_written_and_read() -> None:
    for processor in processors():
        preprocess = Preprocess.from_processor(processor)
        import json

        assert Preprocess.from_dict(json.loads(json.dumps(preprocess.to_dict()))) == preprocess


@pytest.mark.parametrize(
    "change",
    [
        {"resize": 0},
        {"resize": True},
        {"resize": [224, 224, 224]},
        {"crop": 224},
        {"crop": [5000, 224]},
        {"resample": 6},
        {"rescale": "1"},
        {"mean": [0.5, 0.5]},
        {"mean": [0.5, 0.5, float("nan")]},
        {"std": [1, 1, 0]},
        {"gamma": 2},
    ],
    ids=str,
)
def test_written_values_that_no_processor_has_are_refused_by_name(change: dict[str, Any]) -> None:
    written = Preprocess.from_processor(processors()[0]).to_dict()
    with pytest.raises(ValueError, match=f"^{next(iter(change))}: "):
        Preprocess.from_dict(written | change)


def test_processor_that_would_pad_is_refused() -> None:
    from transformers import CLIPImageProcessorPil

    with pytest.raises(ModelError, match="pad with black"):
        Preprocess.from_processor(CLIPImageProcessorPil(size={"shortest_edge": 64}))


def test_exif_orientation_is_honoured(tmp_path: Path) -> None:
    upright = picture()
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned; to be shown turned by 90 degrees clockwise
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "turned.png"), upright)


def test_every_kind_of_image_becomes_the_same_rgb(tmp_path: Path) -> None:
    image = picture()
    grey = image.convert("L")
    image.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100)
    assert np.abs(np.asarray(read_image(tmp_path / "cmyk.jpg"), int) - np.asarray(image)).max() < 12

    grey16 = np.asarray(grey, np.uint16) * 257
    Image.fromarray(grey16).save(tmp_path / "grey16.png")
    for name, source in (("grey16.png", None), ("grey.png", grey), ("grey.bmp", grey)):
        if source is not None:
            source.save(tmp_path / name)
        np.testing.assert_array_equal(read_image(tmp_path / name), grey.convert("RGB"))

    palette = image.quantize(64)
    palette.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_image(tmp_path / "palette.png"), palette.convert("RGB"))


def test_transparent_pixels_lie_on_white(tmp_path: Path) -> None:
    image = picture().convert("RGBA")
    alpha = np.zeros((40, 50), np.uint8)
    alpha[:, 25:] = 255
    image.putalpha(Image.fromarray(alpha))
    image.save(tmp_path / "alpha.png")
    image.save(tmp_path / "alpha.webp", lossless=True)
    for name in ("alpha.png", "alpha.webp"):
        seen = np.asarray(read_image(tmp_path / name))
        assert (seen[:, :25] == 255).all()
        np.testing.assert_array_equal(seen[:, 25:], np.asarray(picture())[:, 25:])


def test_unreadable_images_are_all_named_with_their_reasons(tmp_path: Path) -> None:
    picture(400, 300).save(tmp_path / "good.jpg")
    data = (tmp_path / "good.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(data[: len(data) // 2])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("no image at all")
    (tmp_path / "folder.jpg").mkdir()
    names = ["cut.jpg", "good.jpg", "empty.png", "text.png", "folder.jpg", "none.jpg"]
    found = find_unreadable([tmp_path / name for name in names])
    assert [fault.path.name for fault in found] == [n for n in names if n != "good.jpg"]
    reasons = {fault.path.name: fault.reason for fault in found}
    assert "truncated" in reasons["cut.jpg"]
    assert reasons["empty.png"] == "the file is empty"
    assert "not an image" in reasons["text.png"]
    assert "folder" in reasons["folder.jpg"]
    assert "no such file" in reasons["none.jpg"]
    for fault in found:
        with pytest.raises(ImageError):
            read_image(fault.path)


def test_broken_exif_is_named_like_any_other_damage(tmp_path: Path) -> None:
    from PIL import PngImagePlugin

    info = PngImagePlugin.PngInfo()
    info.add_text("Raw profile type exif", "\nexif\n 4\nnot hexadecimal")
    path = tmp_path / "broken.png"
    picture().save(path, pnginfo=info)
    with pytest.raises(ImageError, match="EXIF"):
        read_image(path)
    assert [fault.path for fault in find_unreadable([path])] == [path]


def test_augmentation_is_a_function_of_its_seed() -> None:
    preprocess = Preprocess(
        resize=32, crop=(32, 32), resample=3, rescale=1 / 255, mean=(0.5,) * 3, std=(0.5,) * 3
    )
    augment = Augmentation()
    image = np.array(picture(80, 60))
    views = [augment.pixels(image, preprocess, np.random.default_rng(s)) for s in (1, 1, 2)]
    np.testing.assert_array_equal(views[0], views[1])
    assert (views[0] != views[2]).any()
    assert {view.shape for view in views} == {(3, 32, 32)}


def test_augmentation_that_changes_nothing_is_a_plain_resize() -> None:
    preprocess = Preprocess(
        resize=32, crop=(32, 32), resample=3, rescale=1 / 255, mean=(0.5,) * 3, std=(0.5,) * 3
    )
    still = Augmentation(crop_scale=(1, 1), crop_ratio=(1, 1), flip=0, color=0)
    image = picture(60, 60)
    view = still.pixels(np.array(image), preprocess, np.random.default_rng(0))
    difference = np.abs(view.astype(int) - preprocess.pixels(image))
    assert difference.max() <= 2  # torch's resize of bytes against Pillow's
    assert (difference > 0).mean() < 0.02


def test_a_disk_that_fails_for_a_moment_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "photo.png"
    Image.new("RGB", (8, 8), "red").save(path)
    real_open, fails = Image.open, 2

    def open_at_last(*args: Any, **options: Any) -> Any:
        nonlocal fails
        fails -= 1
        if fails >= 0:
            raise OSError(errno.ESTALE, "Stale file handle")
        return real_open(*args, **options)

    monkeypatch.setattr(reading, "PAUSES", (0.0, 0.0))
    monkeypatch.setattr(Image, "open", open_at_last)
    assert read_image(path).size == (8, 8)
    fails = 9
    with pytest.raises(ImageError, match="the disk cannot read it: Stale file handle"):
        read_image(path)
    assert fails == 6
