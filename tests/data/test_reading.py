"""From files and arrays to RGB images: what is taken, and in which words the rest is refused."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cliptune.data.reading import (
    PIXEL_LIMIT,
    TooManyPixels,
    _too_many_pixels,
    array_to_image,
    decode,
    find_unreadable,
    open_content,
    read_content,
    read_image,
    read_reduced,
    to_rgb,
)
from cliptune.errors import ImageError, UserError

NOISE = np.random.default_rng(0).integers(0, 256, (5, 7, 4), dtype=np.uint8)
LIMIT_WORDS = (
    "that guards memory. Scale it down elsewhere; or, if you trust it, set the environment "
    "variable CLIPTUNE_MAX_PIXELS to a higher number"
)


def png(width: int, height: int, color: str = "red") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), color).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def pixel_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow's own limit, put back afterwards: it is one for the whole process."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)


def test_an_array_of_bytes_is_taken_as_grey_rgb_or_rgb_on_white() -> None:
    NOISE[:, :3, 3], NOISE[:, 3:, 3] = 0, 255
    colors, alpha = NOISE[:, :, :3], NOISE[:, :, 3:] == 255
    assert np.array_equal(array_to_image(colors), colors)
    assert np.array_equal(array_to_image(NOISE), np.where(alpha, colors, 255))
    grey = np.repeat(NOISE[:, :, :1], 3, axis=2)
    assert np.array_equal(array_to_image(NOISE[:, :, 0]), grey)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((5, 7, 3), np.float32), np.zeros((5, 7), np.int64), np.zeros((5, 7), bool),
        np.zeros((5, 7, 2), np.uint8), np.zeros((5, 7, 1), np.uint8), np.zeros((5, 7, 5), np.uint8),
        np.zeros(7, np.uint8), np.zeros((5, 7, 3, 3), np.uint8), np.zeros((5, 7, 3, 4), np.uint8),
        np.zeros((0, 7, 3), np.uint8), np.zeros((5, 0), np.uint8),
    ],
    ids=lambda array: f"{array.dtype}-{array.shape}",
)  # fmt: skip
def test_an_array_of_another_shape_or_type_is_refused_with_both(array: np.ndarray) -> None:
    with pytest.raises(ImageError) as caught:
        array_to_image(array)
    assert str(caught.value) == (
        f"an image array has shape {array.shape} and type {array.dtype}; "
        "expected uint8 of shape (height, width), (height, width, 3) or (height, width, 4)"
    )


@pytest.mark.usefixtures("pixel_limit")
def test_an_image_past_twice_pillows_limit_is_refused_with_both_numbers(tmp_path: Path) -> None:
    Image.MAX_IMAGE_PIXELS = 1000
    (tmp_path / "fits.png").write_bytes(png(50, 40))
    (tmp_path / "huge.png").write_bytes(png(2001, 1))
    with pytest.warns(Image.DecompressionBombWarning):  # of Pillow, from its limit on
        assert read_image(tmp_path / "fits.png").size == (50, 40)
    for read in (read_image, lambda path: open_content(path.read_bytes())):
        with pytest.raises(TooManyPixels) as caught:
            read(tmp_path / "huge.png")
        assert str(caught.value) == f"2,001 pixels, above the limit of 2,000 {LIMIT_WORDS}"


@pytest.mark.usefixtures("pixel_limit")
def test_the_environment_may_say_how_many_pixels_there_may_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for limit in ("2000", "1999"):  # halved and rounded up for Pillow, which doubles its own
        monkeypatch.setenv(PIXEL_LIMIT, limit)
        with pytest.warns(Image.DecompressionBombWarning):
            assert decode(png(50, 40)).size == (50, 40)
    monkeypatch.setenv(PIXEL_LIMIT, "1998")
    with pytest.raises(TooManyPixels, match=r"^2,000 pixels, above the limit of 1,998 that"):
        decode(png(50, 40))
    monkeypatch.setenv(PIXEL_LIMIT, "1")
    assert decode(png(1, 1)).size == (1, 1)
    for wrong in ("0", "-5", "1e6", "many", ""):
        monkeypatch.setenv(PIXEL_LIMIT, wrong)
        with pytest.raises(UserError) as caught:
            decode(png(1, 1))
        expected = f"CLIPTUNE_MAX_PIXELS: found {wrong!r}; expected a whole number of pixels."
        assert str(caught.value) == expected


def test_each_fault_of_a_file_has_its_own_words(tmp_path: Path) -> None:
    whole = png(40, 30)
    contents = {"empty": b"", "text": b"no image at all", "cut": whole[: len(whole) // 2]}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder").mkdir()
    words = {
        "empty": "the file is empty",
        "text": "not an image in a format that can be read",
        "folder": "this is a folder, not an image",
        "none": "there is no such file",
        "cut": "damaged: ",
    }
    paths = [tmp_path / name for name in words]
    found = {fault.path: fault.reason for fault in find_unreadable(paths)}
    assert list(found) == paths
    for path, expected in zip(paths, words.values(), strict=True):
        for read in (read_image, lambda path: read_reduced(path, edge=9, resample=3)):
            with pytest.raises(ImageError) as caught:
                read(path)
            assert str(caught.value) == found[path]
        assert found[path].startswith(expected)
        if expected[-1] != " ":
            assert found[path] == expected
    for name in ("folder", "none"):
        with pytest.raises(ImageError, match=f"^{words[name]}$"):
            read_content(tmp_path / name)
    for name in contents:
        with pytest.raises(ImageError) as caught:
            decode(read_content(tmp_path / name))
        assert str(caught.value) == found[tmp_path / name]


@pytest.mark.parametrize(
    ("size", "edge", "expected"),
    [
        ((60, 40), 20, (30, 20)),
        ((40, 60), 20, (20, 30)),
        ((61, 40), 20, (30, 20)),  # 30.5, rounded to the even number
        ((60, 40), 40, (60, 40)),
        ((60, 40), 41, (60, 40)),
        ((40, 40), 39, (39, 39)),
    ],
)
def test_a_reduced_photo_has_the_shorter_edge_asked_for_and_is_never_enlarged(
    size: tuple[int, int], edge: int, expected: tuple[int, int], tmp_path: Path
) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path := tmp_path / "photo.png")
    for resample in (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC):
        seen = read_reduced(path, edge=edge, resample=resample)
        plain = Image.fromarray(noise).resize(expected, resample=resample)
        assert np.array_equal(seen, plain if size != expected else noise)


def test_a_large_jpeg_is_decoded_no_smaller_than_it_is_asked_for(tmp_path: Path) -> None:
    y, x = np.mgrid[0:320, 0:480]
    smooth = np.stack([x / 2, y / 2, 100 + 0 * x], -1).astype(np.uint8)
    Image.fromarray(smooth).save(path := tmp_path / "photo.jpg", quality=95)
    seen = read_reduced(path, edge=40, resample=3)
    assert seen.shape == (40, 60, 3)
    wanted = np.asarray(Image.fromarray(smooth).resize((60, 40), resample=3), dtype=int)
    assert np.abs(seen - wanted).max() <= 6
    # At a quarter it has an edge of 80, at an eighth one of 40: too small for this.
    assert read_reduced(path, edge=41, resample=3).shape == (41, 61, 3)


LEVELS = [level for level in range(256) for _ in range(3)]  # a palette of grey


@pytest.mark.parametrize("mode", ["RGBA", "RGBa", "LA", "PA"])
def test_of_every_mode_pixels_shine_through_to_white_by_their_alpha(mode: str) -> None:
    grey = np.arange(0, 256, 15)
    values = np.stack([grey, 255 - grey], axis=-1).astype(np.uint8)[None]
    image = Image.fromarray(values, mode="LA")
    if mode == "PA":
        image = Image.new("PA", image.size)
        image.putpalette(LEVELS)
        image.putdata([(level, 255 - level) for level in grey.tolist()])
    elif mode != "LA":
        image = image.convert("RGBA").convert(mode)
    expected = (grey * (255 - grey) + 255 * grey) / 255
    seen = np.asarray(to_rgb(image), dtype=int)
    assert image.mode == mode
    assert np.abs(seen[0] - expected[:, None]).max() <= 2


@pytest.mark.parametrize(("mode", "clear"), [("P", 30), ("L", 30), ("RGB", (30, 30, 30))])
def test_a_colour_named_as_transparent_is_white(mode: str, clear: int | tuple[int, ...]) -> None:
    grey = np.arange(0, 256, 15, dtype=np.uint8)[None]
    image = Image.fromarray(grey).convert(mode)
    if mode == "P":
        image.putpalette(LEVELS)
    image.info["transparency"] = clear
    assert np.array_equal(to_rgb(image).getchannel("G"), np.where(grey == 30, 255, grey))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_of_reading_is_shown_on_a_terminal_where_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_bytes(png(4, 4))
    paths = [tmp_path / "a.png"] * 40
    shown = {}
    for asked, screen in ((True, Terminal()), (False, Terminal()), (True, io.StringIO())):
        monkeypatch.setattr("sys.stderr", screen)
        assert find_unreadable(paths, progress=asked) == []
        shown[asked, type(screen)] = screen.getvalue()
    monkeypatch.setattr("sys.stderr", plain := Terminal())
    assert find_unreadable(paths) == []
    bar = shown.pop((True, Terminal))
    assert bar.startswith("\rreading:")
    assert "/40 [" in bar
    assert "img/s" in bar
    assert bar.endswith("\r")  # nothing of it is left
    assert set(shown.values()) | {plain.getvalue()} == {""}


def test_any_other_fault_of_the_system_is_told_in_its_own_words(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(4, 4))
    for read in (read_image, read_content):
        with pytest.raises(ImageError, match=r"^\[Errno \d+\] Not a directory: "):
            read(tmp_path / "a.png" / "b.png")


@pytest.mark.usefixtures("pixel_limit")
def test_too_many_pixels_are_told_even_where_pillow_names_no_number_or_has_no_limit() -> None:
    Image.MAX_IMAGE_PIXELS = None
    told = str(_too_many_pixels(ValueError("larger than is safe")))
    assert told == f"more pixels, above the limit of 0 {LIMIT_WORDS}"


def test_a_name_too_long_for_the_disk_is_a_fault_of_the_photo(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="too long"):
        read_image(tmp_path / ("x" * 300 + ".jpg"))


def test_grey_times_its_alpha_is_read_as_grey_beside_its_alpha() -> None:
    grey = Image.fromarray(np.full((4, 5, 2), (200, 100), np.uint8), "LA")
    multiplied = grey.convert("La")
    assert np.abs(np.asarray(to_rgb(multiplied), int) - np.asarray(to_rgb(grey), int)).max() <= 2
