"""Make `data/dogs/{train,val,test}/<class>/` from labelled photos, and `dataset.json` beside it.

Nothing half-made is ever seen: the tree is built in a hidden folder and moved into place whole.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from cliptune.data.classes_file import CLASSES_FILE, entries_of
from cliptune.data.folder import scan_classes
from cliptune.data.manifest import Manifest, SourceRecord, count, read_manifest
from cliptune.data.naming import clean_name
from cliptune.data.splits import SPLITS
from cliptune.errors import DataError, listing
from cliptune.files import user_path
from cliptune.foreign_errors import disk_errors
from cliptune.hints import check_choice
from cliptune.locks import alone
from cliptune.preparing.breeds import BREEDS, DEFAULT_NUM_BREEDS
from cliptune.preparing.building import (
    build,
    check_apart,
    check_nothing_in_the_way,
    file_names,
    finish_or_clear,
    place_tree,
    unfinished,
    work_folder,
    write_manifest,
)
from cliptune.preparing.choosing import Choice, Wish, choose
from cliptune.preparing.download import ELSEWHERE, STANFORD_DOGS
from cliptune.preparing.report import PrepareResult, notes_on
from cliptune.preparing.sources.hub_dataset import HUB_PREFIX
from cliptune.preparing.sources.opening import (
    LAYOUTS,
    SPLIT_CHOICES,
    Source,
    open_source,
    source_name,
)
from cliptune.preparing.sources.stanford import ARCHIVE_NAME, archive_beside, fetch_archive
from cliptune.preparing.splitting import Shares, share_out
from cliptune.text import command, counted

log = logging.getLogger(__name__)


def prepare(
    output_dir: Path,
    *,
    source: Path | str | None = None,
    layout: str = "auto",
    splits: str = "auto",
    num_classes: int | None = None,
    classes: Sequence[str] | None = None,
    exclude: Sequence[str] | None = None,
    min_photos: int | None = None,
    shots: int | None = None,
    train_ratio: float = 0.7,
    val_ratio: float | None = None,
    seed: int = 42,
    link: bool = False,
    resize: int | None = None,
    root: Path | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    leave_out: Sequence[str] | None = None,
    download: bool = True,
    progress: bool = True,
    url: str | None = None,
) -> PrepareResult:
    """Fill `output_dir/{train,val,test}/<class>/` with photos of `source`, and `dataset.json`.

    `source` is whatever `open_source` takes; `layout`, `splits`, `root`, `image_column`,
    `label_column` and `leave_out` are its options. Without it, `images.tar` in or beside
    `output_dir` serves; else it is downloaded (Stanford Dogs, 794 MB; or `url`). Without an
    archive and without the network, the empty folders are made for the user to fill.

    `classes` chooses by name, `num_classes` by number; neither means ten well-known breeds of
    Stanford Dogs, or every class of any other source. Classes that `exclude` names are left out,
    and those with fewer than `min_photos` photos (for train, where the source has splits).

    Splits of the source's own are kept, and what they lack is taken from their train. Otherwise
    `train_ratio` of each class goes to train, `val_ratio` (default: half of the rest) to val and
    the rest to test, at least one photo to each. `shots` keeps that many photos of each class in
    train. Which photo goes where depends on the photos' names, the class name and `seed` alone.

    Photos are copied, linked to (`link`), or copied with a shorter edge of at most `resize`
    pixels. What a `classes.yaml` in the folder `source` says of the classes taken comes along,
    unless `output_dir` has one. An `output_dir` that holds photos is left as it is; what a killed
    run left is finished.

    Raises `DataError` for options or photos that cannot be used, and where `output_dir` was made
    with other options; `HubError` for a download that broke off, `ResourceError` for a full disk.
    """
    classes = None if classes is None else [clean_name(name) for name in classes]
    exclude = None if exclude is None else [clean_name(name) for name in exclude]
    wish = Wish(classes=classes, num_classes=num_classes, exclude=exclude, min_photos=min_photos)
    shares = Shares(train_ratio=train_ratio, val_ratio=val_ratio, seed=seed, shots=shots)
    check_choice("--layout", layout, LAYOUTS, refusal=DataError)
    check_choice("--splits", splits, SPLIT_CHOICES, refusal=DataError)
    output_dir, root = user_path(output_dir), None if root is None else user_path(root)
    if resize is not None and (resize < 16 or link):
        expected = "no --link beside it" if link else "at least 16 pixels"
        raise DataError(f"--resize {resize}: expected {expected}.")
    options = {
        "layout": layout, "splits": splits, "num_classes": num_classes,
        "classes": list(classes) if classes is not None else None,
        "exclude": list(exclude) if exclude is not None else None, "min_photos": min_photos,
        "image_column": image_column, "label_column": label_column, "shots": shots,
        "train_ratio": train_ratio, "val_ratio": val_ratio, "link": link, "resize": resize,
        "leave_out": list(leave_out) if leave_out else None,
    }  # fmt: skip
    source = _hub_or_path(source)
    # What a killed run left is finished or cleared first.
    if not unfinished(output_dir):
        there = _already_there(output_dir, options, seed=seed, source=source)
        if there is not None:
            return there
    check_apart(source, output_dir)
    source = source or archive_beside(output_dir)
    breeds: tuple[str, ...] = ()
    if source is None:  # a mistake is told before anything is made or fetched
        breeds = choose(
            dict.fromkeys(BREEDS, ()),
            {},
            replace(wish, min_photos=None),  # how many photos there are is not known yet
            default_number=DEFAULT_NUM_BREEDS,
            where="Stanford Dogs",
        ).taken
    with disk_errors(output_dir, then=ELSEWHERE), alone(output_dir):
        finish_or_clear(output_dir)
        there = _already_there(output_dir, options, seed=seed, source=source)
        if there is not None:
            return there
        check_nothing_in_the_way(output_dir)
        if source is None:
            source, why = fetch_archive(output_dir, allowed=download, url=url, progress=progress)
            if source is None:
                return _make_empty_tree(output_dir, breeds, why)
        with open_source(
            source, layout=layout, splits=splits, root=root, image_column=image_column,
            label_column=label_column, leave_out=leave_out or (), download_lists=download,
        ) as opened:  # fmt: skip
            return _make(
                opened, output_dir, where=str(source), wish=wish, shares=shares, options=options,
                progress=progress,
            )  # fmt: skip


def _make(
    source: Source, output_dir: Path, *, where: str, wish: Wish, shares: Shares,
    options: dict[str, Any], progress: bool,
) -> PrepareResult:  # fmt: skip
    """Share out the photos of `source`, build their tree, and move it to `output_dir`."""
    layout, link = source.layout, options["link"]
    choice = choose(
        layout.classes, layout.splits, wish, default_number=layout.default_number, where=where
    )
    taken = {name: layout.classes[name] for name in sorted(choice.taken)}
    dealt = share_out(taken, layout.splits, shares, where=where)
    plan: dict[PurePosixPath, PurePosixPath] = {}  # photo -> split/class/file
    for name, parts in dealt.items():
        files = file_names(taken[name])
        plan |= {p: PurePosixPath(s, name, files[p]) for s in SPLITS for p in parts[s]}
    if link and any(source.store.file(photo) is None for photo in plan):
        raise DataError(f"--link: {where} holds no files of their own to link to. Leave it out.")
    names = entries_of(Path(where), known=list(layout.classes), chosen=list(taken))
    work = work_folder(output_dir)
    try:
        digests = build(
            source.store, plan, work, link=link, resize=options["resize"], progress=progress
        )
        if names is not None:
            (work / CLASSES_FILE).write_text(names, encoding="utf-8", newline="\n")
        manifest = _manifest(source, options, choice, seed=shares.seed, digests=digests)
        write_manifest(manifest, work)
        place_tree(work, output_dir)
    except BaseException:  # Ctrl-C included
        shutil.rmtree(work, ignore_errors=True)
        raise
    log.debug("%s: %d photos of %d classes", output_dir, len(plan), len(taken))
    return PrepareResult(
        output_dir=output_dir,
        class_names=tuple(taken),
        counts=manifest.counts,
        kind="made",
        headline=f"{output_dir}: {counted(len(plan), 'photo')} of {counted(len(taken), 'class')}, "
        f"{'linked to' if link else 'copied from'} {where}.",
        notes=(
            *notes_on(source, choice, shares=shares),
            f"What is wrong with them, before training does:\n  {_check(output_dir)}",
        ),
    )


def _manifest(
    source: Source, options: dict[str, Any], choice: Choice, *, seed: int, digests: dict[str, str]
) -> Manifest:
    from cliptune._version import __version__

    files = dict(sorted(digests.items()))
    record = SourceRecord(
        name=source.name,
        kind=source.layout.kind,
        splits="source" if source.layout.splits else "random",
    )
    return Manifest(
        cliptune=__version__, source=record, options=options, seed=seed,
        left_out=choice.left_out, counts=count(list(files)), files=files,
    )  # fmt: skip


def _hub_or_path(source: Path | str | None) -> Path | str | None:
    """A path, unless it names a dataset of the hub."""
    if source is None or str(source).startswith(HUB_PREFIX):
        return source if source is None else str(source)
    return user_path(source)


def _already_there(
    output_dir: Path, options: dict[str, Any], *, seed: int, source: Path | str | None
) -> PrepareResult | None:
    """That there is nothing to do. Raises `DataError` where it was made in another way."""
    counts = {
        split: {name: len(paths) for name, paths in scan_classes(output_dir / split).items()}
        for split in SPLITS
        if (output_dir / split).is_dir()
    }
    num_photos = sum(sum(classes.values()) for classes in counts.values())
    if num_photos == 0:
        return None
    manifest = read_manifest(output_dir)
    if manifest is not None:
        name = None if source is None else source_name(source)
        if differences := manifest.differences(options, seed=seed, source=name):
            raise DataError(
                f"{output_dir}: already made in another way:\n{listing(differences)}\n"
                "Nothing was changed. Choose another --output-dir, or delete this folder first."
            )
    return PrepareResult(
        output_dir=output_dir,
        class_names=tuple(counts.get("train", {})),
        counts=counts,
        kind="already_there",
        headline=f"{output_dir} already holds {counted(num_photos, 'photo')}; nothing was changed.",
        notes=(
            "To start afresh, choose another --output-dir or delete this folder first. "
            f"To check it:\n  {_check(output_dir)}",
        ),
    )


def _check(output_dir: Path) -> str:
    return command("cliptune", "check", output_dir)


def _make_empty_tree(output_dir: Path, breeds: Sequence[str], reason: str) -> PrepareResult:
    for split in SPLITS:
        for name in breeds:
            (output_dir / split / name).mkdir(parents=True, exist_ok=True)
    return PrepareResult(
        output_dir=output_dir,
        class_names=tuple(sorted(breeds)),
        counts={split: dict.fromkeys(sorted(breeds), 0) for split in SPLITS},
        kind="empty_tree",
        headline=f"{output_dir}: made empty folders for {len(breeds)} classes, without photos.",
        notes=(
            f"There is no archive to take photos from: {reason}.",
            f"What to do now, either: put photos into {output_dir}/train/<class>/ (about 100 a "
            "class), and about 20 a class into val/<class>/ and test/<class>/; remove the classes "
            f"you do not fill. Then check them:\n  {_check(output_dir)}",
            f"Or: fetch {STANFORD_DOGS.url} elsewhere, save it as "
            f"{output_dir.parent / ARCHIVE_NAME}, and run this command again.",
            "Or: give photos of your own with --source: a folder with one folder for each class, "
            "a list (.csv), or other forms; 'cliptune prepare --help' names them.",
            "The classes: " + ", ".join(sorted(breeds)) + ".",
        ),
    )
