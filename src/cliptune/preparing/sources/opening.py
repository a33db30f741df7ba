"""Open whatever labelled photos `prepare` is given: archive, folder, list, or hub dataset."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from cliptune.errors import DataError
from cliptune.hints import not_there
from cliptune.preparing.sources.archive import PhotoStore, TarPhotos, folder_photos, open_tar
from cliptune.preparing.sources.exports import read_export
from cliptune.preparing.sources.fiftyone import LABELS, is_fiftyone
from cliptune.preparing.sources.groups import find_groups
from cliptune.preparing.sources.hub_dataset import HUB_PREFIX, hub_photos
from cliptune.preparing.sources.layouts import ClassLayout, find_layout
from cliptune.preparing.sources.lists import LIST_SUFFIXES
from cliptune.preparing.sources.pets import PETS_LISTS, oxford_pets
from cliptune.preparing.sources.stanford import find_lists, with_stanford_lists
from cliptune.preparing.sources.tables import table_photos

LAYOUTS = ("auto", "folders", "classes", "splits", "names", "pets")
_SPREADSHEETS = frozenset({".xlsx", ".xlsm", ".xls", ".ods", ".numbers"})
SPLIT_CHOICES = ("auto", "source", "random")


@dataclass(frozen=True)
class Source:
    """Photos that can be read, and what they are labelled as."""

    name: str  # as people would call it: a file's or folder's name, or that of a hub dataset
    store: PhotoStore
    layout: ClassLayout


@contextmanager
def open_source(
    source: Path | str,
    *,
    layout: str = "auto",
    splits: str = "auto",
    root: Path | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    leave_out: Collection[str] = (),
    download_lists: bool = True,
    group: str | None = None,
) -> Iterator[Source]:
    """The photos of `source`, their classes, and their splits if `splits` wants them.

    `source` is a tar archive; a folder of class folders, of photos named by class, of
    `train/<class>/`, or in the layout of Oxford-IIIT Pet; a .csv, .tsv or .jsonl file; Label
    Studio's export as JSON; FiftyOne's folder of labels.json and data/; a .parquet file or a folder
    of them; or "hf:owner/name[:config]". `splits`: "source" demands the source's
    own splits, "random" leaves them aside, "auto" takes them where they are, save for Stanford
    Dogs, whose official lists are taken on demand alone. `leave_out` names splits of a list or of a
    dataset that are not to be taken. `group` is a column of a list or a dataset that says which
    photos belong together, or a regular expression that finds it in their paths.

    Raises `DataError` for anything else, and for what is wrong with it.
    """
    if isinstance(source, str) or is_parquet(source):
        store, found = hub_photos(
            source, image_column=image_column, label_column=label_column, leave_out=leave_out,
            group=group,
        )  # fmt: skip
        yield _source(source, store, found, splits, group)
        return
    if not source.exists():
        raise DataError(
            f"{source}: {not_there(source, 'no such file or folder')} "
            "Expected a tar archive, a folder of photos, a "
            "list of photos (.csv, .tsv, .jsonl), Label Studio's .json, a .parquet file, or "
            f"{HUB_PREFIX}owner/name."
        )
    if source.suffix.lower() in LIST_SUFFIXES and source.is_file():
        listed, found = table_photos(
            source, root=root, image_column=image_column, label_column=label_column,
            leave_out=leave_out, group=group,
        )  # fmt: skip
        yield _source(source, listed, found, splits, group)
        return
    if is_fiftyone(source) or (source.suffix.lower() == ".json" and source.is_file()):
        table = source / LABELS if source.is_dir() else source
        read, label_column = read_export(table, root=root, label_column=label_column, several=False)
        listed, found = table_photos(
            table, root=root, image_column=image_column, label_column=label_column,
            leave_out=leave_out, group=group, listed=read,
        )  # fmt: skip
        yield _source(source, listed, found, splits, group)
        return
    if source.suffix.lower() in _SPREADSHEETS and source.is_file():
        raise DataError(
            f"{source}: a spreadsheet in a format that is not read. Expected a list as text: save "
            f"it as CSV (UTF-8), and give {source.with_suffix('.csv').name} as --source."
        )
    if leave_out:
        raise DataError(
            f"--leave-out {','.join(leave_out)}: splits are left out of a list or of a dataset in "
            f"Parquet. {source} is neither; move what is not wanted out of it."
        )
    if layout == "pets" or (layout == "auto" and is_pets(source)):
        with _pets(source) as pets:
            yield _source(source, *pets, splits, group)
        return
    with nullcontext(folder_photos(source)) if source.is_dir() else open_tar(source) as photos:
        found = find_layout(photos.photos, layout=layout, where=source)
        if found.is_stanford_dogs and splits == "source":
            found = with_stanford_lists(found, find_lists(source, allowed=download_lists))
        found = replace(found, notes=(*photos.notes, *found.notes))
        yield _source(source, photos, found, splits, group)


def _source(
    source: Path | str, store: PhotoStore, layout: ClassLayout, splits: str, group: str | None
) -> Source:
    if splits == "source" and not layout.splits:
        raise DataError(
            f"{source}: --splits source, but it has no splits of its own. Expected a column "
            "'split', folders train/ and test/, or official lists. Use --splits random."
        )
    if splits == "random" and layout.splits:
        layout = replace(layout, splits={})
    if group is not None:
        photos = [photo for own in layout.classes.values() for photo in own]
        layout = replace(
            layout, groups=find_groups(photos, layout.groups, group, where=str(source))
        )
    return Source(source_name(source), store, layout)


def source_name(source: Path | str) -> str:
    """What a manifest calls `source`: no path of a machine."""
    return source if isinstance(source, str) else source.resolve().name


def is_parquet(source: Path) -> bool:
    """Whether `source` is a .parquet file, or a folder that holds such files and no photos."""
    if source.is_dir():
        return not (source / "train").is_dir() and any(
            path.suffix == ".parquet"
            for folder in (source, source / "data")
            if folder.is_dir()
            for path in folder.iterdir()
        )
    return source.suffix.lower() == ".parquet"


def is_pets(source: Path) -> bool:
    """Whether `source` is laid out as Oxford-IIIT Pet is, unpacked or in its two archives."""
    lists = source / "annotations"
    unpacked = (source / "images").is_dir() and all((lists / name).is_file() for name in PETS_LISTS)
    packed = all((source / f"{part}.tar.gz").is_file() for part in ("images", "annotations"))
    return unpacked or packed


@contextmanager
def _pets(source: Path) -> Iterator[tuple[PhotoStore, ClassLayout]]:
    if not is_pets(source):
        raise DataError(
            f"{source}: not laid out as Oxford-IIIT Pet. Expected a folder with images/ and "
            "annotations/trainval.txt and test.txt, or with images.tar.gz and annotations.tar.gz."
        )
    if (source / "images").is_dir():
        store = folder_photos(source / "images")
        lists = {
            name: (source / "annotations" / name).read_text(encoding="utf-8", errors="replace")
            for name in PETS_LISTS
        }
        yield store, oxford_pets(store.photos, lists, where=source)
        return
    with TarPhotos(source / "annotations.tar.gz") as annotations:
        lists = annotations.texts(*PETS_LISTS)
    with TarPhotos(source / "images.tar.gz") as photos:
        yield photos, oxford_pets(photos.photos, lists, where=source)
