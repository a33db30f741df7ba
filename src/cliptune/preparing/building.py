"""Build a folder of photos beside its place and move it there whole; go on after a kill.

A tree is complete once its `dataset.json` is written, and in place once that file is there: it is
the last to be written and the last to be moved.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path, PurePosixPath

from PIL import Image
from tqdm import tqdm

from cliptune.data.classes_file import CLASSES_FILE
from cliptune.data.manifest import MANIFEST, Manifest
from cliptune.data.naming import DEVICES, name_key
from cliptune.data.reading import decode
from cliptune.data.splits import SPLITS
from cliptune.errors import DataError, ImageError, listing
from cliptune.files import rename, sync, whole_file
from cliptune.foreign_errors import system_reason
from cliptune.language import translated
from cliptune.locks import folder_locks
from cliptune.preparing.sources.archive import PhotoStore
from cliptune.preparing.splitting import Parts
from cliptune.text import counted

log = logging.getLogger(__name__)

Plan = Mapping[PurePosixPath, PurePosixPath]  # photo of the source -> split/class/file
_JPEG_QUALITY = 95


def work_folder(output_dir: Path) -> Path:
    """Where `output_dir` is built: hidden, and on the same disk."""
    # Inside an output_dir that exists: it may be a mount, and a move must not cross disks.
    beside = output_dir if output_dir.exists() else output_dir.parent
    return beside / f".{output_dir.name}.partial"


def unfinished(output_dir: Path) -> bool:
    """Whether a run that fills or mends `output_dir` is at work, or was killed."""
    return bool(_leftovers(output_dir) or any(lock.exists() for lock in folder_locks(output_dir)))


def _leftovers(output_dir: Path) -> list[Path]:
    name = f".{output_dir.name}.partial"
    return [path for path in (output_dir / name, output_dir.parent / name) if path.exists()]


def check_apart(source: Path | str | None, output_dir: Path) -> None:
    """Copies must not become photos of their source."""
    if not isinstance(source, Path) or not source.is_dir():
        return
    if output_dir.exists() and source.samefile(output_dir):
        raise DataError(
            f"{source}: --source and --output-dir are the same folder. "
            "Choose another --output-dir; the photos are copied into it."
        )
    inside, outside = output_dir.resolve(), source.resolve()
    if _lies_in(inside, outside) or _lies_in(outside, inside):
        raise DataError(
            f"{output_dir}: --output-dir and --source {source} lie inside each other, so the "
            "copies would become photos of the source. Choose another --output-dir."
        )


def _lies_in(path: Path, folder: Path) -> bool:
    """By the system's word, not by spelling: `Photos` and `photos` may be one folder."""
    above = (path, *path.parents)
    return folder.exists() and any(each.exists() and each.samefile(folder) for each in above)


def check_nothing_in_the_way(output_dir: Path) -> None:
    """Nothing of the user's is ever deleted: only empty folders may be replaced."""
    for path in (output_dir, *(output_dir / split for split in SPLITS)):
        if path.exists() and not path.is_dir():
            raise DataError(f"{path}: this is a file. Expected a folder, or nothing there yet.")
    for split in SPLITS:
        for root, _, files in os.walk(output_dir / split):
            if files:
                raise DataError(
                    f"{Path(root, files[0])}: this file is in the way. Expected {output_dir} to "
                    "hold no files yet, or photos in train/<class>/. Move it away, or choose "
                    "another --output-dir."
                )
    if (output_dir / MANIFEST).exists():
        raise DataError(
            f"{output_dir / MANIFEST}: it tells of photos that are gone. Delete it, or choose "
            "another --output-dir."
        )


def finish_or_clear(output_dir: Path) -> None:
    """After a kill: move a complete tree the rest of the way; delete an incomplete one."""
    for work in _leftovers(output_dir):
        if (work / MANIFEST).exists() and not (output_dir / MANIFEST).exists():
            _place(work, output_dir)
        shutil.rmtree(work)


def places(
    classes: Mapping[str, Sequence[PurePosixPath]], dealt: Mapping[str, Parts[PurePosixPath]]
) -> dict[PurePosixPath, PurePosixPath]:
    """Each photo that was dealt to a split, and its split/class/file in the tree."""
    found: dict[PurePosixPath, PurePosixPath] = {}
    for name, parts in dealt.items():
        files = file_names(classes[name])
        found |= {p: PurePosixPath(s, name, files[p]) for s in SPLITS for p in parts[s]}
    return found


def file_names(
    photos: Sequence[PurePosixPath], *, windows: bool = os.name == "nt"
) -> dict[PurePosixPath, str]:
    """Each photo's own file name; one that another photo of the class took gets a number.

    On `windows`, characters it refuses in names become underscores, and this is logged: written
    as it stands, `a:b.jpg` would there be a hidden part of a file `a`.
    """
    names: dict[PurePosixPath, str] = {}
    taken: set[str] = set()
    for photo in photos:
        own = PurePosixPath(_for_windows(photo.name) if windows else photo.name)
        if own.name != photo.name:
            log.warning("%s: written as %s, since Windows has no such names", photo, own)
        name, number = own.name, 2
        while name_key(name) in taken:
            name, number = f"{own.stem}-{number}{own.suffix}", number + 1
        taken.add(name_key(name))
        names[photo] = name
    return names


def _for_windows(name: str) -> str:
    allowed = re.sub(r'[<>:"/\\|?*\x00-\x1f]', "_", name)
    return f"_{allowed}" if DEVICES.match(allowed) else allowed


def build(
    store: PhotoStore, plan: Plan, work: Path, *, link: bool, resize: int | None, progress: bool
) -> dict[str, str]:
    """Fill the folder `work` by `plan`: what is to be written -> SHA-256 of its content.

    With `resize`, photos whose shorter edge is longer are re-encoded at that many pixels, upright;
    with `link`, symbolic links are made. Raises `DataError` naming all photos that cannot be
    decoded, when they must be.
    """
    for folder in sorted({target.parent for target in plan.values()}):
        (work / folder).mkdir(parents=True)
    bar = tqdm(
        store.read(plan), translated("linking photos" if link else "copying photos"), len(plan),
        unit="img", disable=None if progress else True,
    )  # fmt: skip
    if not resize:
        return {
            plan[photo].as_posix(): _write(store, photo, content, work / plan[photo], link=link)
            for photo, content in bar
        }
    digests, faults, contents = {}, [], iter(bar)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while some := list(islice(contents, 64)):  # no more of them in memory than that
            resized = pool.map(lambda item: _try_resize(item[1], item[0], resize), some)
            for (photo, _), content in zip(some, resized, strict=True):
                if isinstance(content, ImageError):
                    faults.append(f"{photo}: {content}")
                    continue
                target = plan[photo]
                digests[target.as_posix()] = _write(
                    store, photo, content, work / target, link=False
                )
    if faults:
        raise DataError(
            f"{counted(len(faults), 'photo')} cannot be decoded, and so not be resized:\n"
            f"{listing(faults)}\nRemove them from the source, or prepare without --resize and let "
            "'cliptune check --fix' set them aside."
        )
    return digests


def _write(
    store: PhotoStore, photo: PurePosixPath, content: bytes, path: Path, *, link: bool
) -> str:
    if link:
        file = store.file(photo)
        assert file is not None  # refused earlier for stores without files
        try:
            path.symlink_to(file.resolve())
        except OSError as error:
            raise DataError(
                f"--link: no link can be made at {path.parent} ({system_reason(error)}). Windows "
                "allows links in Developer Mode or to administrators; some disks (exFAT) hold "
                "none. Leave --link out, and the photos are copied."
            ) from error
    else:
        path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def _try_resize(content: bytes, photo: PurePosixPath, edge: int) -> bytes | ImageError:
    try:
        return resized(content, photo.suffix.lower(), edge)
    except ImageError as error:
        return error


def resized(content: bytes, suffix: str, edge: int) -> bytes:
    """The photo in `content` with a shorter edge of at most `edge` pixels.

    A photo that is small enough comes back as it is. Others are turned upright and encoded anew as
    `suffix` says, JPEG, WebP and AVIF at quality 95. Raises `ImageError`.
    """
    image = decode(content)
    if min(image.size) <= edge:
        return content
    factor = edge / min(image.size)
    width, height = (max(edge, round(side * factor)) for side in image.size)
    small = image.resize((width, height), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    format_ = Image.registered_extensions()[suffix]
    options = {"quality": _JPEG_QUALITY} if format_ in ("JPEG", "WEBP", "AVIF") else {}
    small.save(file, format_, **options)
    return file.getvalue()


def write_manifest(manifest: Manifest, work: Path) -> None:
    """Say that the tree in `work` is complete, after what is in it is on the disk."""
    if hasattr(os, "sync"):
        os.sync()  # one file after another takes longer when they are many
    else:  # Windows
        for file in work.rglob("*"):
            if file.is_file() and not file.is_symlink():
                sync(file)
    with whole_file(work / MANIFEST) as path:
        manifest.write(path)


def place_tree(work: Path, output_dir: Path) -> None:
    """Make the complete tree in `work` that of `output_dir`."""
    _place(work, output_dir)
    if work.exists():
        work.rmdir()
    sync(output_dir.parent)


def _place(work: Path, output_dir: Path) -> None:
    if not output_dir.exists():
        rename(work, output_dir)
        return
    if os.path.lexists(output_dir / CLASSES_FILE):
        (work / CLASSES_FILE).unlink(missing_ok=True)  # the user's own stays
    placed = []
    try:
        for name in (*SPLITS, CLASSES_FILE):
            if not (work / name).exists():
                continue  # moved before a kill
            for root, _, _ in os.walk(output_dir / name, topdown=False):
                Path(root).rmdir()
            rename(work / name, output_dir / name)
            placed.append(name)
        rename(work / MANIFEST, output_dir / MANIFEST)
    except BaseException:  # Ctrl-C between two moves included
        for name in placed:
            rename(output_dir / name, work / name)
        raise
