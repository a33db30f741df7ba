"""Faults of labelled photos, each with the finding that `cliptune check` should make of it."""

from __future__ import annotations

import io
import shutil
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps

from cliptune.data.image_files import find_images

Picture = Image.Image
Plant = Callable[["Garden"], list[str]]


def encoded(image: Picture, kind: str = "JPEG", **options: object) -> bytes:
    """The file that holds `image`; JPEGs at quality 85 unless told."""
    if kind == "JPEG":
        options = {"quality": 85} | options
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def cut(image: Picture, left: float, top: float, right: float, bottom: float) -> Picture:
    """`image` without these shares of its edges."""
    width, height = image.size
    box = (width * left, height * top, width * (1 - right), height * (1 - bottom))
    return image.crop(tuple(round(edge) for edge in box))


def with_text(image: Picture) -> Picture:
    """A mark in a corner, as sites put it there."""
    marked = image.copy()
    ImageDraw.Draw(marked).text((6, image.height - 16), "photo by example.org", fill="white")
    return marked


# What becomes of a copy: (its bytes, its ending).
COPIES: dict[str, Callable[[Picture], tuple[bytes, str]]] = {
    "scaled to a half": lambda i: (encoded(i.reduce(2)), ".jpg"),
    "scaled to double size": lambda i: (encoded(i.resize((2 * i.width, 2 * i.height))), ".jpg"),
    "compressed, JPEG quality 20": lambda i: (encoded(i, quality=20), ".jpg"),
    "saved as PNG": lambda i: (encoded(i, "PNG"), ".png"),
    "saved as WebP": lambda i: (encoded(i, "WEBP", quality=70), ".webp"),
    "mirrored": lambda i: (encoded(ImageOps.mirror(i)), ".jpg"),
    "cut by 5 % on all sides": lambda i: (encoded(cut(i, 0.05, 0.05, 0.05, 0.05)), ".jpg"),
    "cut by 5 % in all": lambda i: (encoded(cut(i, 0.025, 0.025, 0.025, 0.025)), ".jpg"),
    "cut by 5 % on the left": lambda i: (encoded(cut(i, 0.05, 0, 0, 0)), ".jpg"),
    "cut by 5 % at the bottom": lambda i: (encoded(cut(i, 0, 0, 0, 0.05)), ".jpg"),
    "with a white border of 3 %": lambda i: (
        encoded(ImageOps.expand(i, round(0.03 * i.width), "white")),
        ".jpg",
    ),
    "brighter by 30 %": lambda i: (encoded(ImageEnhance.Brightness(i).enhance(1.3)), ".jpg"),
    "without colour": lambda i: (encoded(i.convert("L")), ".jpg"),
    "blurred": lambda i: (encoded(i.filter(ImageFilter.GaussianBlur(2))), ".jpg"),
    "with a text in a corner": lambda i: (encoded(with_text(i)), ".jpg"),
    "stretched by 15 %": lambda i: (encoded(i.resize((round(1.15 * i.width), i.height))), ".jpg"),
    "turned by 1 degree": lambda i: (encoded(i.rotate(1, Image.Resampling.BICUBIC)), ".jpg"),
    "turned by EXIF data": lambda i: (
        encoded(i.transpose(Image.Transpose.ROTATE_90), exif=turned(6)),
        ".jpg",
    ),
}


def turned(orientation: int) -> Image.Exif:
    """EXIF data that says how a camera was held."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@dataclass
class Garden:
    """A copy of the data in which faults are planted, each on photos used for nothing else."""

    folder: Path
    rng: np.random.Generator
    free: dict[str, list[Path]] = field(init=False)

    def __post_init__(self) -> None:
        self.free = {}
        for split in ("train", "val", "test"):
            photos = find_images(self.folder / split)
            self.free[split] = [photos[i] for i in self.rng.permutation(len(photos))]

    def take(self, split: str = "train") -> Path:
        """A photo that no other fault uses."""
        return self.free[split].pop()

    def other_class(self, photo: Path) -> str:
        """Another class than that of `photo`."""
        names = sorted(path.name for path in (self.folder / "train").iterdir())
        return str(self.rng.choice([name for name in names if name != photo.parent.name]))

    def add(self, name: str, content: bytes) -> str:
        """Write a file; its name relative to the folder."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return name

    def name(self, path: Path) -> str:
        """`path` relative to the folder."""
        return path.relative_to(self.folder).as_posix()


def copy_in(split: str, *, other_class: bool, alter: str | None) -> Plant:
    """A photo of train and its copy, altered or not, in `split` and perhaps in another class."""

    def plant(garden: Garden) -> list[str]:
        photo = garden.take()
        content, suffix = photo.read_bytes(), photo.suffix
        if alter is not None:
            with Image.open(photo) as image:
                content, suffix = COPIES[alter](image.convert("RGB"))
        name = garden.other_class(photo) if other_class else photo.parent.name
        number = int(garden.rng.integers(10**9))
        copy = garden.add(f"{split}/{name}/IMG_{number:09}{suffix}", content)
        return [garden.name(photo), copy]

    return plant


def replaced(change: Callable[[bytes, Picture], tuple[bytes, str]]) -> Plant:
    """A photo of train in the place of which stands a damaged or odd one."""

    def plant(garden: Garden) -> list[str]:
        photo = garden.take()
        content = photo.read_bytes()
        with Image.open(photo) as image:
            changed, suffix = change(content, image.convert("RGB"))
        photo.unlink()
        path = photo.with_suffix(suffix)
        path.write_bytes(changed)
        return [garden.name(path)]

    return plant


def bomb() -> bytes:
    """A PNG of 100 bytes that claims 900 million pixels."""
    content = bytearray(encoded(Image.new("1", (8, 8)), "PNG"))
    content[16:24] = (30_000).to_bytes(4, "big") * 2
    checksum = zlib.crc32(bytes(content[12:29])).to_bytes(4, "big")
    content[29:33] = checksum
    return bytes(content)


def sixteen_bit(image: Picture) -> bytes:
    """The picture in grey of 16 bits."""
    grey = np.asarray(image.convert("L"), dtype=np.uint16) * 257
    return encoded(Image.fromarray(grey), "PNG")


def animation(image: Picture) -> bytes:
    """Two pictures that follow one another."""
    return encoded(image, "WEBP", save_all=True, append_images=[ImageOps.invert(image)])


# Fault -> (finding expected, how it is planted).
FAULTS: dict[str, tuple[str, Plant]] = {
    **{
        f"copy in its class: {what}": (
            "near_in_class",
            copy_in("train", other_class=False, alter=what),
        )
        for what in COPIES
    },
    "copy in its class: renamed": (
        "copies_in_class",
        copy_in("train", other_class=False, alter=None),
    ),
    "copy in test: renamed": (
        "copies_across_splits",
        copy_in("test", other_class=False, alter=None),
    ),
    **{
        f"copy in test: {what}": (
            "near_across_splits",
            copy_in("test", other_class=False, alter=what),
        )
        for what in ("scaled to a half", "mirrored", "cut by 5 % on all sides", "saved as PNG")
    },
    "copy in another class: renamed": (
        "copies_across_classes",
        copy_in("train", other_class=True, alter=None),
    ),
    **{
        f"copy in another class: {what}": (
            "near_across_classes",
            copy_in("train", other_class=True, alter=what),
        )
        for what in ("compressed, JPEG quality 20", "mirrored", "cut by 5 % on the left")
    },
    "file without content": ("empty_file", replaced(lambda c, i: (b"", ".jpg"))),
    "cut short at a half": ("truncated", replaced(lambda c, i: (c[: len(c) // 2], ".jpg"))),
    "cut short by a tenth": ("truncated", replaced(lambda c, i: (c[: 9 * len(c) // 10], ".jpg"))),
    "a page saved as .jpg": (
        "unreadable",
        replaced(lambda c, i: (b"<!doctype html><title>404</title>", ".jpg")),
    ),
    "random bytes": ("unreadable", replaced(lambda c, i: (c[::-1], ".jpg"))),
    "a PNG that claims 900 million pixels": ("bomb", replaced(lambda c, i: (bomb(), ".png"))),
    "a PNG called .jpg": ("wrong_ending", replaced(lambda c, i: (encoded(i, "PNG"), ".jpg"))),
    "animated": ("animated", replaced(lambda c, i: (animation(i), ".webp"))),
    "24 × 24 pixels": ("tiny", replaced(lambda c, i: (encoded(i.resize((24, 24))), ".jpg"))),
    "ten times as wide as high": (
        "extreme_shape",
        replaced(lambda c, i: (encoded(i.resize((1000, 100))), ".jpg")),
    ),
    "all white": (
        "blank",
        replaced(lambda c, i: (encoded(Image.new("RGB", i.size, "white"), "PNG"), ".png")),
    ),
    "grey": ("grey", replaced(lambda c, i: (encoded(i.convert("L")), ".jpg"))),
    "CMYK": ("cmyk", replaced(lambda c, i: (encoded(i.convert("CMYK")), ".jpg"))),
    "16 bits a channel": ("sixteen_bit", replaced(lambda c, i: (sixteen_bit(i), ".png"))),
    "EXIF orientation 8": (
        "rotated",
        replaced(lambda c, i: (encoded(i, exif=turned(8)), ".jpg")),
    ),
    "transparent": (
        "transparent",
        replaced(lambda c, i: (encoded(with_alpha(i), "PNG"), ".png")),
    ),
    "an ending that is not read (.jp2)": (
        "unused_images",
        replaced(lambda c, i: (encoded(i, "JPEG2000"), ".jp2")),
    ),
}


def with_alpha(image: Picture) -> Picture:
    """The picture with a clear corner."""
    clear = image.convert("RGBA")
    clear.paste((0, 0, 0, 0), (0, 0, 40, 40))
    return clear


def plant_in_folders(garden: Garden) -> Iterator[tuple[str, str, str]]:
    """Faults of the folders, one of each: (fault, finding expected, what it must name)."""
    train, val = garden.folder / "train", garden.folder / "val"
    names = sorted(path.name for path in train.iterdir())
    twin = names[0].replace("_", "-").title()
    for split in ("train", "val", "test"):
        photo = garden.take(split)
        garden.add(f"{split}/{twin}/{photo.name}", photo.read_bytes())
        photo.unlink()
    yield f"class {twin} beside {names[0]}", "similar_names", twin
    yield f"class {twin} with one photo", "few_photos", twin
    yield "classes of 1 and of 100 photos", "imbalance", twin
    shutil.rmtree(val / names[1])
    garden.free["val"] = [path for path in garden.free["val"] if path.exists()]
    yield f"class {names[1]} without photos in val", "class_missing", names[1]
    photo = garden.take("val")
    garden.add(f"val/{names[2]}s/{photo.name}", photo.read_bytes())
    photo.unlink()
    yield f"class {names[2]}s in val alone", "unknown_class", f"did you mean '{names[2]}'"
    (train / "new folder").mkdir()
    yield "a class folder without photos", "empty_class", "new folder"
    yield "a class called 'new folder'", "odd_names", "new folder"
    for place in ("inside/a", "inside/b"):
        photo = garden.take()
        garden.add(f"train/{place}/{photo.name}", photo.read_bytes())
        photo.unlink()
    yield "folders inside a class folder", "nested", "inside"
    garden.add("train/notes.txt", b"shopping list")
    yield "a text file", "other_files", "train/notes.txt"
    photo = garden.take()
    photo.rename(train / photo.name)
    yield "a photo outside the class folders", "unused_images", photo.name
