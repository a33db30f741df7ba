"""Lists of labelled photos: CSV, TSV or JSON Lines of path, label and perhaps split."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from cliptune.data.image_files import IMAGE_SUFFIXES
from cliptune.data.naming import clean_name
from cliptune.errors import DataError, listing, named
from cliptune.language import said
from cliptune.preparing.sources.archive import FilePhotos, is_photo
from cliptune.preparing.sources.labels import label_text, take_splits
from cliptune.preparing.sources.layouts import (
    ClassLayout,
    canonical_split,
    check_splits_known,
    name_classes,
)
from cliptune.preparing.sources.listed_files import PhotoFolder
from cliptune.preparing.sources.lists import Line, PhotoList, read_list
from cliptune.preparing.sources.split_folders import split_folders_of
from cliptune.text import counted

# What such columns are called, the likeliest first.
IMAGE_COLUMNS = (
    "path", "image", "file", "filename", "file_name", "filepath", "file_path", "image_path",
    "image_file", "img", "img_path", "photo", "picture",
)  # fmt: skip
# Names of photos, as a rule without their ending.
ID_COLUMNS = ("image_name", "image_id", "img_id", "photo_id", "id", "uuid")
LABEL_COLUMNS = (
    "label", "class", "class_name", "classname", "category", "breed", "target", "name", "labels",
    "y",
)  # fmt: skip
SPLIT_COLUMNS = ("split", "set", "subset", "partition")

_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")


class Columns(NamedTuple):
    """Which columns of a list are read."""

    image: str
    label: str
    split: str | None
    group: str | None = None


class Row(NamedTuple):
    """One line of a list, `line` counted from 1."""

    line: int
    path: str
    label: str
    split: str
    group: str = ""


def table_photos(
    table: Path,
    *,
    root: Path | None,
    image_column: str | None,
    label_column: str | None,
    leave_out: Collection[str] = (),
    group: str | None = None,
    listed: PhotoList | None = None,
) -> tuple[FilePhotos, ClassLayout]:
    """The photos a list names, under its labels, with its splits where it has that column.

    Paths are relative to the list, or to `root`; they are taken as they stand, else URL-decoded
    (`my%20dog.jpg`), else without their ending or with one in other letters. None may lead out of
    that folder. Splits in `leave_out` are not taken, nor are those without any label. The layout's
    notes say which columns were taken where several could be meant. A column called `group` says
    which photos belong together; without such a column, the layout has no groups. `listed` is what
    was read of `table` already.

    Raises `DataError` with all faulty lines: no such file, no photo, two labels for one photo, an
    unknown split.
    """
    base = (root or table.parent).resolve()
    listed = listed or read_list(table)
    unit = listed.unit
    if not listed.lines:
        raise DataError(f"{table}: no {unit} names a photo.")
    columns, notes = choose_columns(
        listed, image_column=image_column, label_column=label_column, where=str(table)
    )
    if group in listed.titles:
        columns = columns._replace(group=group)
    rows = [_row(line, columns, where=f"{table}: {unit} {line.number}") for line in listed.lines]
    rows = take_splits(rows, leave_out=leave_out, where=str(table))
    check_splits_known((row.split for row in rows if row.split), where=str(table))
    folder = PhotoFolder(base)
    files: dict[PurePosixPath, Path] = {}
    first: dict[PurePosixPath, Row] = {}
    groups: dict[str, list[PurePosixPath]] = defaultdict(list)
    splits: dict[PurePosixPath, str] = {}
    belongs: dict[PurePosixPath, str] = {}
    faults = []
    for row in rows:
        found = _located(folder, row)
        if isinstance(found, str):
            faults.append(f"{unit} {row.line}: {found}")
            continue
        photo, path = found
        if (earlier := first.get(photo)) is not None:
            if _said(earlier) != _said(row):
                faults.append(
                    f"{unit} {row.line}: {row.path} is {_said(row)} here, {_said(earlier)} in "
                    f"{unit} {earlier.line}"
                )
            continue
        first[photo], files[photo] = row, path
        groups[row.label].append(photo)
        if row.split:
            splits[photo] = canonical_split(row.split) or ""
        if columns.group is not None:
            belongs[photo] = row.group
    if splits and len(splits) < len(files):
        without = [row.line for photo, row in first.items() if photo not in splits]
        lines = counted(len(without), unit)
        faults.append(f"{unit} {without[0]}: no split, as in {lines}; others have one")
    if faults:
        raise DataError(
            f"{table}: {counted(len(faults), f'faulty {unit}')}:\n{listing(faults)}\n"
            f"Paths are those of column '{columns.image}', looked for in {base}; --root names "
            f"another folder.{folder.hint()}"
        )
    classes = name_classes(groups, where=table, what="labels")
    notes += folder.notes()
    if not splits and (folders := split_folders_of(files)):
        notes += (
            said(
                "The paths lead through {folders}, but no column tells splits, so they are dealt "
                "anew; a column 'split' would keep them.",
                folders=named([f"{name}/" for name in folders]),
            ),
        )
    return FilePhotos(files), ClassLayout(
        classes, "table", splits=splits, notes=notes, groups=belongs
    )


def _row(line: Line, columns: Columns, *, where: str) -> Row:
    cells = {}
    for title in (columns.image, columns.label, columns.split, columns.group):
        if title is not None and title not in line.cells:
            raise DataError(f"{where}: no '{title}', which other lines have.")
        cells[title] = "" if title is None else line.cells[title]
    for title in (columns.image, columns.split):
        if not isinstance(cells[title], str | int):
            raise DataError(f"{where}: expected text for {title}.")
    texts = []
    for title in (columns.label, columns.group):
        try:
            texts.append("" if title is None else label_text(cells[title]) or "")
        except ValueError as error:
            raise DataError(f"{where}: {title} is {error}; expected text or a number.") from None
    label, group = texts
    path, split = (str(cells[title]).strip() for title in (columns.image, columns.split))
    return Row(line.number, path, label, split, group)


def _located(folder: PhotoFolder, row: Row) -> tuple[PurePosixPath, Path] | str:
    """(path relative to the folder, the file), or what is wrong with this line."""
    if not row.path or not clean_name(row.label):
        return "no path" if not row.path else f"no label for {row.path}"
    found = folder.find(row.path)
    if isinstance(found, str):
        return found
    photo = PurePosixPath(found.relative_to(folder.base).as_posix().replace("\\", "/"))
    if not is_photo(PurePosixPath(photo.name)):
        return f"{row.path} is no {', '.join(sorted(IMAGE_SUFFIXES))}"
    return photo, found


def _said(row: Row) -> str:
    group = f" of group '{row.group}'" if row.group else ""
    return f"'{clean_name(row.label)}'{group}" + (f" in {row.split}" if row.split else "")


def choose_columns(
    listed: PhotoList, *, image_column: str | None, label_column: str | None, where: str
) -> tuple[Columns, tuple[str, ...]]:
    """The columns to read, and a note for each that was chosen among several.

    Raises `DataError` when there is no column of images or of labels.
    """
    titles = listed.titles
    images = (*IMAGE_COLUMNS, *ID_COLUMNS)
    image = find_column(titles, images, image_column, "image", where=where)
    label = find_column(titles, LABEL_COLUMNS, label_column, "label", where=where)
    labels = _known(titles, LABEL_COLUMNS)
    why = ""
    if label_column is None and (names := _names_for_numbers(listed, labels)):
        label, why = names, f": the names for the numbers of '{label}'"
    splits = _known(titles, SPLIT_COLUMNS)
    taken = (
        ("photos", image, _known(titles, IMAGE_COLUMNS), "--image-column", image_column, ""),
        ("labels", label, labels, "--label-column", label_column, why),
    )
    notes = tuple(
        f"The {what} are those of column '{column}'{reason}. Left aside: "
        f"{named([name for name in known if name != column])} ({option} takes another)."
        for what, column, known, option, wanted, reason in taken
        if wanted is None and len(known) > 1
    )
    return Columns(image, label, splits[0] if splits else None), notes


def _names_for_numbers(listed: PhotoList, labels: Sequence[str]) -> str | None:
    """The column that names the classes which the first of `labels` numbers, one name a number."""
    numbers, *others = [listed.column(title) for title in labels] or [[]]
    if not others or not all(map(_NUMBER.fullmatch, numbers)):
        return None
    for title, names in zip(labels[1:], others, strict=True):
        pairs = set(zip(numbers, names, strict=True))
        one_for_each = len(pairs) == len(set(numbers)) == len(set(names))
        if one_for_each and not any(map(_NUMBER.fullmatch, names)):
            return title
    return None


def find_column(
    names: Sequence[str], known: Sequence[str], wanted: str | None, what: str, *, where: str
) -> str:
    """The column `wanted`, else the first of the `known` ones that is there. `DataError`."""
    if wanted is not None:
        if wanted in names:
            return wanted
        raise DataError(f"{where}: no column '{wanted}'. Its columns: {', '.join(names)}.")
    if found := _known(names, known):
        return found[0]
    raise DataError(
        f"{where}: no column for the {what}; found {', '.join(names) or 'none'}. "
        f"Expected {', '.join(known[:4])} or the like; name yours with --{what}-column."
    )


def _known(names: Sequence[str], known: Sequence[str]) -> list[str]:
    """Those of `names` that are `known`, in that order: "File Name" is file_name."""
    by_key = {re.sub(r"[\s_-]+", "_", name.strip().lower()): name for name in reversed(names)}
    return [by_key[name] for name in known if name in by_key]
