"""Which files of a folder are photos, by their endings; and which pictures are passed over."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from cliptune.errors import DataError
from cliptune.hints import not_there
from cliptune.language import said
from cliptune.storage import listed, local_folder

log = logging.getLogger(__name__)

# Endings of photos, and what Pillow calls their formats; MPO is a JPEG of some cameras. Of each
# format the usual ending comes first.
IMAGE_FORMATS: dict[str, tuple[str, ...]] = {
    ".jpg": ("JPEG", "MPO"), ".jpeg": ("JPEG", "MPO"), ".jfif": ("JPEG",), ".jpe": ("JPEG",),
    ".png": ("PNG",), ".webp": ("WEBP",), ".avif": ("AVIF",), ".gif": ("GIF",),
    ".tif": ("TIFF",), ".tiff": ("TIFF",), ".bmp": ("BMP", "DIB"),
}  # fmt: skip
IMAGE_SUFFIXES = frozenset(IMAGE_FORMATS)
CONVERT = "Convert them to .jpg or .png to use them."
# Pictures that Pillow does not read by itself; and what it lists that are no pictures of a camera.
_MORE_PICTURES = frozenset({".heic", ".heif", ".jxl", ".svg", ".cr2", ".nef", ".arw", ".dng"})
_NO_PICTURES = frozenset({".pdf", ".mpg", ".mpeg", ".h5", ".hdf", ".grib", ".bufr"})


def find_images(folder: Path) -> list[Path]:
    """Image files below `folder`, at any depth, sorted, without hidden files and folders."""
    found = [path for path in _files(folder) if path.suffix.lower() in IMAGE_SUFFIXES]
    # By parts as they are written: Windows compares paths without case, which is another order.
    return sorted(found, key=lambda path: path.parts)


def _files(folder: Path) -> Iterator[Path]:
    """All files below `folder` but hidden ones; links to folders are not followed."""
    for root, folders, files in os.walk(folder, followlinks=False):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(root, name) for name in files if not name.startswith("."))


def passed_over(folder: Path, *, with_classes: bool = True) -> dict[str, list[Path]]:
    """The files below `folder` that `find_images` does not take, by their endings.

    `with_classes`: `folder` holds class folders, so that a photo that lies in none of them, `.jpg
    outside a class folder`, is passed over, too.
    """
    found: dict[str, list[Path]] = defaultdict(list)
    for path in _files(folder):
        ending = path.suffix.lower()
        if ending not in IMAGE_SUFFIXES:
            found[ending or said("no ending")].append(path)
        elif with_classes and path.parent == folder:
            found[said("{ending} outside a class folder", ending=ending)].append(path)
    return {what: sorted(found[what]) for what in sorted(found)}


def is_picture(what: str) -> bool:
    """Whether a kind of files, as `passed_over` names it, is one of pictures."""
    from PIL import Image

    ending = what.partition(" ")[0]
    known = {*Image.registered_extensions(), *_MORE_PICTURES, *IMAGE_SUFFIXES}
    return ending in known - _NO_PICTURES


def pictures_left_out(folder: Path, *, with_classes: bool) -> str:
    """`2 × .heic, 1 × .psd`, or "" where no picture is passed over."""
    others = passed_over(folder, with_classes=with_classes)
    return ", ".join(f"{len(paths)} × {what}" for what, paths in others.items() if is_picture(what))


def photos_at(address: str, option: str) -> list[str]:
    """The addresses of the photos below the folder or prefix `address`, given as `option`.

    By the rules of `photos_below`, in the order in which they are listed. Raises `DataError` where
    there is none, and `StorageError`.
    """
    expected = f"Expected a folder or a prefix of photos ({', '.join(sorted(IMAGE_SUFFIXES))})."
    photos, others = [], 0
    for found in listed(address):
        parts = PurePosixPath(found.address[len(address.rstrip("/")) :])
        if any(part.startswith(".") for part in parts.parts):
            continue
        if parts.suffix.lower() in IMAGE_SUFFIXES:
            photos.append(found.address)
        else:
            others += 1
    if not photos:
        beside = f" among {others} objects" if others else ", and nothing else"
        raise DataError(f"{option} {address}: no photos there{beside}. {expected}")
    return photos


def photos_below(folder: Path, option: str) -> list[Path]:
    """`find_images` in a folder that was given as `option`. Raises `DataError` where none is.

    A folder at an address is fetched first.

    Pictures that are passed over are named in the log.
    """
    folder = local_folder(folder)
    expected = f"Expected a folder of photos ({', '.join(sorted(IMAGE_SUFFIXES))})."
    if not folder.is_dir():
        what = "this is a file." if folder.exists() else not_there(folder, "no such folder")
        raise DataError(f"{option} {folder}: {what} {expected}")
    paths = find_images(folder)
    left_out = pictures_left_out(folder, with_classes=False)
    if not paths:
        beside = f", but pictures that are not read: {left_out}" if left_out else ""
        raise DataError(f"{option} {folder}: no photos in it{beside}. {expected}")
    if left_out:
        log.warning("%s: pictures left out: %s. %s", folder, left_out, CONVERT)
    return paths
