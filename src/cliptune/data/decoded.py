"""Photos decoded once into a memory-mapped file of bytes, for every epoch after.

    CACHE/photos-<digest>/
        pixels.u8    the photos one after the other, each (H, W, 3) uint8
        index.json   where each photo begins and its height and width

The digest covers the content of every file, their order and how they are decoded: other photos,
or another size, make another store. Built beside its place under a lock and moved there whole, so
that two processes may want the same store at once.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from cliptune.data.reading import open_content
from cliptune.errors import ImageError
from cliptune.files import delete_folder, hidden, whole_folder
from cliptune.language import translated as _
from cliptune.locks import Lock, one_at_a_time
from cliptune.text import counted

log = logging.getLogger(__name__)

FORMAT = 2  # of the store, and of how files become pixels
MIB = 2**20

Decode = Callable[[Path], NDArray[np.uint8]]


class DecodedPhotos:
    """A built store: `store[i]` is photo i, (H, W, 3) uint8; None where it has to be decoded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        self._places: list[tuple[int, int, int] | None] = [
            tuple(place) if place else None for place in index["places"]
        ]
        self._pixels: NDArray[np.uint8] | None = None
        self.num_bytes: int = index["bytes"]
        if (folder / "pixels.u8").stat().st_size != self.num_bytes:
            raise ValueError(f"{folder}: pixels.u8 is not whole")

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> NDArray[np.uint8] | None:
        place = self._places[index]
        if place is None:
            return None
        if self._pixels is None:  # opened by each worker for itself
            try:
                self._pixels = np.memmap(self.folder / "pixels.u8", dtype=np.uint8, mode="c")
            except OSError:  # deleted since, to make room: the photo is decoded anew
                return None
        start, height, width = place
        flat = self._pixels[start : start + height * width * 3]
        return np.asarray(flat).reshape(height, width, 3)

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_pixels": None}


def open_store(
    paths: Sequence[Path],
    decode: Decode,
    *,
    recipe: str,
    cache_dir: Path,
    limit_bytes: int,
    pixels_each: Callable[[int, int], int],
    beside: Sequence[DecodedPhotos] = (),
    progress: bool = True,
) -> DecodedPhotos | None:
    """The store of `paths` as `decode` gives them, found in `cache_dir` or built there.

    `recipe` names what `decode` does; `pixels_each` tells from a photo's width and height how many
    pixels it will take. Stores `beside` it count towards the limit and are not deleted. None, with
    a line in the log, where the store would pass `limit_bytes` or what the disk has room for, or
    the folder cannot be written: photos are then decoded anew.
    """
    digest, size = _survey(paths, recipe, pixels_each)
    limit_bytes -= sum(store.num_bytes for store in beside)
    folder = cache_dir / f"photos-{digest}"
    try:
        _clear_leftovers(cache_dir)
        if store := _existing(folder):
            return store
        if size > limit_bytes:
            log.info(
                "photos are decoded anew in each epoch: a store would take %d MiB, and "
                "data.cache_limit leaves %d", size / MIB, limit_bytes / MIB,
            )  # fmt: skip
            return None
        cache_dir.mkdir(parents=True, exist_ok=True)
        _make_room(cache_dir, keep=limit_bytes - size, spare={store.folder for store in beside})
        if shutil.disk_usage(cache_dir).free < 1.2 * size:
            log.warning("%s: no room for a store of %d MiB; going without", cache_dir, size / MIB)
            return None
        with one_at_a_time(hidden(folder, ".lock"), building=folder):
            if store := _existing(folder):  # built meanwhile by another process
                return store
            photos = counted(len(paths), "photo")
            log.info("decoding %s once into %s (%d MiB)", photos, folder, size / MIB)
            _build(folder, paths, decode, progress=progress)
        return _existing(folder)
    except OSError as error:
        log.warning("%s: no store of decoded photos (%s); going without", cache_dir, error)
        return None


def _clear_leftovers(cache_dir: Path) -> None:
    """Delete half-built stores and locks of processes that were killed; what is in use stays."""
    endings = (".partial", ".old", ".deleted")
    left = [path for path in cache_dir.glob(".photos-*") if path.suffix in (*endings, ".lock")]
    for path in {path.with_suffix(".lock") for path in left}:
        lock = Lock(path)
        with suppress(OSError):  # a cache that can only be read still serves
            if not lock.take():
                continue
            for ending in endings:
                shutil.rmtree(path.with_suffix(ending), ignore_errors=True)
            lock.free()


def _survey(
    paths: Sequence[Path], recipe: str, pixels_each: Callable[[int, int], int]
) -> tuple[str, int]:
    """A digest of the files' contents and the recipe, and the bytes a store would take."""

    def look(path: Path) -> tuple[bytes, int]:
        try:
            content = path.read_bytes()
            with open_content(content) as image:
                digest = hashlib.blake2b(content, digest_size=16).digest()
                return digest, 3 * pixels_each(*image.size)
        except Exception:  # told with its reason when it is decoded
            return b"unreadable", 0

    digest = hashlib.blake2b(f"{FORMAT}|{recipe}".encode(), digest_size=10)
    size = 0
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for content, number in pool.map(look, paths, chunksize=16):
            digest.update(content)
            size += number
    return digest.hexdigest(), size


def _existing(folder: Path) -> DecodedPhotos | None:
    if not folder.is_dir():
        return None
    try:
        store = DecodedPhotos(folder)
    except (OSError, ValueError, KeyError, TypeError):
        log.warning("%s: damaged; building it anew", folder)
        shutil.rmtree(folder, ignore_errors=True)
        return None
    os.utime(folder)  # the stores least lately used go first
    return store


def _build(folder: Path, paths: Sequence[Path], decode: Decode, *, progress: bool) -> None:
    places: list[tuple[int, int, int] | None] = []
    end = 0
    off = None if progress else True  # None: shown on a terminal only
    with whole_folder(folder) as partial:
        with (
            (partial / "pixels.u8").open("wb") as file,
            tqdm(total=len(paths), desc=_("decoding"), unit="img", leave=False, disable=off) as bar,
        ):
            for image in _decoded(paths, decode):
                if image is None:
                    places.append(None)
                else:
                    places.append((end, *image.shape[:2]))
                    file.write(np.ascontiguousarray(image).data)
                    end += image.size
                bar.update()
        index = json.dumps({"bytes": end, "places": places})
        (partial / "index.json").write_text(index, encoding="utf-8", newline="\n")


def _decoded(paths: Sequence[Path], decode: Decode) -> Iterator[NDArray[np.uint8] | None]:
    """Decoded by threads, a few ahead, in their order; None for a photo that cannot be read."""

    def attempt(path: Path) -> NDArray[np.uint8] | None:
        try:
            return decode(path)
        except ImageError:
            return None  # named when its turn comes

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for start in range(0, len(paths), 64):
            yield from pool.map(attempt, paths[start : start + 64])


def _make_room(cache_dir: Path, *, keep: int, spare: Collection[Path]) -> None:
    """Delete the stores least lately used until those left, but `spare`, take `keep` bytes."""
    stores = [path for path in cache_dir.glob("photos-*") if path not in spare]
    stores.sort(key=lambda path: path.stat().st_mtime)
    sizes = {path: sum(f.stat().st_size for f in path.iterdir()) for path in stores}
    total = sum(sizes.values())
    for path in stores:
        if total <= keep:
            return
        with suppress(PermissionError):  # Windows deletes no store that another run is reading
            delete_folder(path)
            log.info("%s: deleted, a store of decoded photos, to make room", path)
            total -= sizes[path]
