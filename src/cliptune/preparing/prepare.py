"""Make `data/dogs/{train,val,test}/<class>/` from labelled photos, and `dataset.json` beside it.

Nothing half-made is ever seen: the tree is built in a hidden folder and moved into place whole.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from cliptune.data.classes_file import CLASSES_FILE, entries_of
from cliptune.data.folder import scan_classes
from cliptune.data.manifest import Manifest, PrepareOptions, SourceRecord, count, read_manifest
from cliptune.data.splits import SPLITS
from cliptune.errors import DataError, listing
from cliptune.files import user_path
from cliptune.foreign_errors import disk_errors
from cliptune.language import counting, said
from cliptune.locks import alone
from cliptune.preparing.asked import Asked, asked_for, cleaned
from cliptune.preparing.breeds import BREEDS, DEFAULT_NUM_BREEDS
from cliptune.preparing.building import (
    Plan,
    build,
    check_apart,
    check_nothing_in_the_way,
    finish_or_clear,
    place_tree,
    places,
    unfinished,
    work_folder,
    write_manifest,
)
from cliptune.preparing.choosing import Choice, choose
from cliptune.preparing.download import ELSEWHERE
from cliptune.preparing.grouping import groups_in_words, share_out_groups
from cliptune.preparing.relabelling import in_words, read_relabelling, relabelled
from cliptune.preparing.renaming import called_in_words, with_names
from cliptune.preparing.report import (
    PrepareResult,
    already_there,
    check_command,
    empty_tree_made,
    notes_on,
)
from cliptune.preparing.sources.hub_dataset import HUB_PREFIX
from cliptune.preparing.sources.layouts import ClassLayout
from cliptune.preparing.sources.lists import LIST_SUFFIXES
from cliptune.preparing.sources.opening import (
    Source,
    open_source,
    source_name,
)
from cliptune.preparing.sources.stanford import archive_beside, fetch_archive
from cliptune.preparing.splitting import Parts, Shares, share_out
from cliptune.storage import address_of, folder_here, kept_file, kept_folder, local_folder

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
    rename: Mapping[str, str] | None = None,
    merge: Mapping[str, Sequence[str]] | None = None,
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
    group: str | None = None,
    relabel: Path | None = None,
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
    and those with fewer than `min_photos` photos (for train, where the source has splits). Before
    that, `rename` gives classes other names (old -> new), and `merge` makes several one (new -> the
    old ones): these options, too, speak of the new names.

    Splits of the source's own are kept, and what they lack is taken from their train. Otherwise
    `train_ratio` of each class goes to train, `val_ratio` (default: half of the rest) to val and
    the rest to test, at least one photo to each. `shots` keeps that many photos of each class in
    train. Which photo goes where depends on the photos' names, the class name and `seed` alone.

    `group` keeps photos of one patient, animal, camera or video in one split, and `dataset.json`
    holds them: a column of a list or dataset, or a regular expression whose first group, or whole
    match, in a photo's path names it. `shots` then counts groups: all their photos are kept.

    `relabel` is a list of labels to change (`preparing.relabelling`), as `check` exports it.

    Photos are copied, linked to (`link`), or copied with a shorter edge of at most `resize`
    pixels. What a `classes.yaml` in the folder `source` says of the classes taken comes along,
    unless `output_dir` has one. An `output_dir` that holds photos is left as it is; what a killed
    run left is finished.

    Raises `DataError` for options or photos that cannot be used, and where `output_dir` was made
    with other options; `HubError` for a download that broke off, `ResourceError` for a full disk.
    """
    changes = None if relabel is None else read_relabelling(user_path(relabel))
    options = PrepareOptions(
        layout=layout, splits=splits, num_classes=num_classes, classes=cleaned(classes),
        exclude=cleaned(exclude), min_photos=min_photos, image_column=image_column,
        label_column=label_column, shots=shots, train_ratio=train_ratio, val_ratio=val_ratio,
        link=link, resize=resize, leave_out=list(leave_out) if leave_out else None,
        group=group, rename=dict(rename) if rename else None,
        merge={new: list(olds) for new, olds in merge.items()} if merge else None,
        relabel=None if changes is None else changes.mark,
    )  # fmt: skip
    asked = asked_for(options, seed=seed)
    output_dir, source = folder_here(output_dir, "--output-dir"), _hub_or_path(source)
    # What a killed run left is finished or cleared first.
    if not unfinished(output_dir) and (there := _already_there(output_dir, asked, source)):
        return there
    check_apart(source, output_dir)
    source = source or archive_beside(output_dir)
    # A mistake is told before anything is made or fetched.
    breeds = _breeds_of_stanford_dogs(asked) if source is None else ()
    with disk_errors(output_dir, then=ELSEWHERE), alone(output_dir):
        finish_or_clear(output_dir)
        if there := _already_there(output_dir, asked, source):
            return there
        check_nothing_in_the_way(output_dir)
        if source is None:
            source, why = fetch_archive(output_dir, allowed=download, url=url, progress=progress)
            if source is None:
                return _make_empty_tree(output_dir, breeds, why)
        with open_source(
            source, layout=layout, splits=splits, root=None if root is None else local_folder(root),
            image_column=image_column, label_column=label_column, leave_out=leave_out or (),
            download_lists=download, group=group,
        ) as opened:  # fmt: skip
            done: dict[str, str] = {}
            if changes is not None:
                layout_, done = relabelled(opened.layout, changes, where=str(source))
                notes = (*layout_.notes, in_words(done, changes))
                opened = replace(opened, layout=replace(layout_, notes=notes))
            return _make(
                opened, output_dir, asked, where=str(source), relabelled=done, progress=progress
            )


def _breeds_of_stanford_dogs(asked: Asked) -> tuple[str, ...]:
    """The breeds to be taken of an archive that is not there yet."""
    called = asked.names_of(list(BREEDS), where="Stanford Dogs")
    return choose(
        {called.get(name, name): () for name in BREEDS},
        {},
        replace(asked.wish, min_photos=None),  # how many photos there are is not known yet
        default_number=DEFAULT_NUM_BREEDS,
        where="Stanford Dogs",
    ).taken


def _make(
    source: Source, output_dir: Path, asked: Asked, *, where: str, relabelled: dict[str, str],
    progress: bool,
) -> PrepareResult:  # fmt: skip
    """Share out the photos of `source`, build their tree, and move it to `output_dir`."""
    link, known = asked.options.link, list(source.layout.classes)
    called = asked.names_of(known, where=where)
    layout = with_names(source.layout, called)
    choice = choose(
        layout.classes, layout.splits, asked.wish, default_number=layout.default_number, where=where
    )
    taken = {name: layout.classes[name] for name in sorted(choice.taken)}
    dealt = _dealt(layout, taken, asked.shares, where=where)
    plan = places(taken, dealt)
    if link and any(source.store.file(photo) is None for photo in plan):
        raise DataError(f"--link: {where} holds no files of their own to link to. Leave it out.")
    names = entries_of(Path(where), known=known, chosen=list(taken), called=called)
    work = work_folder(output_dir)
    try:
        digests = build(
            source.store, plan, work, link=link, resize=asked.options.resize, progress=progress
        )
        if names is not None:
            (work / CLASSES_FILE).write_text(names, encoding="utf-8", newline="\n")
        renamed = {old: new for old, new in called.items() if new in taken}
        manifest = _manifest(source, asked, choice, digests, plan).model_copy(
            update={"called": renamed, "relabelled": relabelled}
        )
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
        headline=said(
            "{folder}: {photos} of {classes}, linked to {source}."
            if link
            else "{folder}: {photos} of {classes}, copied from {source}.",
            folder=output_dir,
            photos=counting(len(plan), "photo"),
            classes=counting(len(taken), "class"),
            source=where,
        ),
        notes=(
            *called_in_words(called),
            *notes_on(replace(source, layout=layout), choice, shares=asked.shares),
            *_of_groups(layout, dealt, asked.shares),
            said(
                "What is wrong with them, before training does:\n  {command}",
                command=check_command(output_dir),
            ),
        ),
    )


def _dealt(
    layout: ClassLayout, taken: dict[str, list[PurePosixPath]], shares: Shares, *, where: str
) -> dict[str, Parts[PurePosixPath]]:
    """Class -> split -> its photos, whole groups where there are groups."""
    if layout.groups:
        return share_out_groups(taken, layout.splits, layout.groups, shares, where=where)
    return share_out(taken, layout.splits, shares, where=where)


def _of_groups(
    layout: ClassLayout, dealt: dict[str, Parts[PurePosixPath]], shares: Shares
) -> list[str]:
    if not layout.groups:
        return []
    return [groups_in_words(dealt, layout.groups, shares, given=bool(layout.splits))]


def _manifest(
    source: Source, asked: Asked, choice: Choice, digests: dict[str, str], plan: Plan
) -> Manifest:
    from cliptune._version import __version__

    files = dict(sorted(digests.items()))
    groups: dict[str, str] = {}
    if of_photo := source.layout.groups:
        named = {place.as_posix(): of_photo[photo] for photo, place in plan.items()}
        groups = {name: named[name] for name in files}
    record = SourceRecord(
        name=source.name,
        kind=source.layout.kind,
        splits="source" if source.layout.splits else "random",
    )
    return Manifest(
        cliptune=__version__, source=record, options=asked.options, seed=asked.shares.seed,
        left_out=choice.left_out, counts=count(list(files)), files=files, groups=groups,
    )  # fmt: skip


def _hub_or_path(source: Path | str | None) -> Path | str | None:
    """A path, unless it names a dataset of the hub; what is at an address is fetched."""
    if source is not None and (address := address_of(source)):
        return _fetched(address)
    if source is None or str(source).startswith(HUB_PREFIX):
        return source if source is None else str(source)
    return user_path(source)


def _fetched(address: str) -> Path:
    """A folder, a list in its folder, or another file, here."""
    ending = PurePosixPath(address).suffix.lower()
    if ending in LIST_SUFFIXES | {".json"}:
        folder, _, name = address.rpartition("/")
        return kept_folder(folder) / name
    return kept_file(address) if ending else kept_folder(address)


def _already_there(
    output_dir: Path, asked: Asked, source: Path | str | None
) -> PrepareResult | None:
    """That there is nothing to do. Raises `DataError` where it was made in another way."""
    counts = {
        split: {name: len(paths) for name, paths in scan_classes(output_dir / split).items()}
        for split in SPLITS
        if (output_dir / split).is_dir()
    }
    if not any(sum(classes.values()) for classes in counts.values()):
        return None
    manifest = read_manifest(output_dir)
    if manifest is not None:
        name = None if source is None else source_name(source)
        if differences := manifest.differences(asked.options, seed=asked.shares.seed, source=name):
            raise DataError(
                f"{output_dir}: already made in another way:\n{listing(differences)}\n"
                "Nothing was changed. Choose another --output-dir, or delete this folder first."
            )
    return already_there(output_dir, counts)


def _make_empty_tree(output_dir: Path, breeds: Sequence[str], reason: str) -> PrepareResult:
    for split in SPLITS:
        for name in breeds:
            (output_dir / split / name).mkdir(parents=True, exist_ok=True)
    return empty_tree_made(output_dir, breeds, reason)
