"""Lists of labelled photos: CSV, TSV or JSON Lines of path, label and perhaps split."""

from __future__ import annotations

import csv
import json
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import unquote

from cliptune.data.archive import FilePhotos, is_photo
from cliptune.data.folder import IMAGE_SUFFIXES
from cliptune.data.layouts import ClassLayout, canonical_split, check_splits_known, name_classes
from cliptune.data.naming import clean_name
from cliptune.errors import DataError, listing
from cliptune.text import counted

TABLE_SUFFIXES = frozenset({".csv", ".tsv", ".jsonl"})

# What such columns are called, the likeliest first.
IMAGE_COLUMNS = (
    "path", "image", "file", "filename", "file_name", "filepath", "file_path", "image_path",
    "image_file", "img", "img_path", "photo", "picture",
)  # fmt: skip
LABEL_COLUMNS = (
    "label", "class", "class_name", "classname", "category", "breed", "target", "name", "labels",
    "y",
)  # fmt: skip
SPLIT_COLUMNS = ("split", "set", "subset", "partition")


class Row(NamedTuple):
    """One line of a list, `line` counted from 1."""

    line: int
    path: str
    label: str
    split: str


def table_photos(
    table: Path, *, root: Path | None, image_column: str | None, label_column: str | None
) -> tuple[FilePhotos, ClassLayout]:
    """The photos a list names, under its labels, with its splits where it has that column.

    Paths are relative to the list, or to `root`; they are taken as they stand, else URL-decoded
    (`my%20dog.jpg`). None may lead out of that folder.

    Raises `DataError` with all faulty lines: no such file, no photo, two labels for one photo, an
    unknown split.
    """
    base = (root or table.parent).resolve()
    rows = list(_rows(table, image_column=image_column, label_column=label_column))
    if not rows:
        raise DataError(f"{table}: no line names a photo.")
    check_splits_known((row.split for row in rows if row.split), where=str(table))
    files: dict[PurePosixPath, Path] = {}
    first: dict[PurePosixPath, Row] = {}
    groups: dict[str, list[PurePosixPath]] = defaultdict(list)
    splits: dict[PurePosixPath, str] = {}
    faults = []
    for row in rows:
        found = _locate(base, row)
        if isinstance(found, str):
            faults.append(f"line {row.line}: {found}")
            continue
        photo, path = found
        if (earlier := first.get(photo)) is not None:
            if _said(earlier) != _said(row):
                faults.append(
                    f"line {row.line}: {row.path} is {_said(row)} here, {_said(earlier)} in line "
                    f"{earlier.line}"
                )
            continue
        first[photo], files[photo] = row, path
        groups[row.label].append(photo)
        if row.split:
            splits[photo] = canonical_split(row.split) or ""
    if splits and len(splits) < len(files):
        without = [row.line for photo, row in first.items() if photo not in splits]
        lines = counted(len(without), "line")
        faults.append(f"line {without[0]}: no split, as in {lines}; others have one")
    if faults:
        raise DataError(
            f"{table}: {counted(len(faults), 'faulty line')}:\n{listing(faults)}\n"
            f"Paths are looked for in {base}; --root names another folder."
        )
    classes = name_classes(groups, where=table, what="labels")
    return FilePhotos(files), ClassLayout(classes, "table", splits=splits)


def _said(row: Row) -> str:
    return f"'{clean_name(row.label)}'" + (f" in {row.split}" if row.split else "")


def _locate(base: Path, row: Row) -> tuple[PurePosixPath, Path] | str:
    """(path relative to `base`, the file), or what is wrong with this line."""
    if not row.path or not clean_name(row.label):
        return "no path" if not row.path else f"no label for {row.path}"
    written = row.path.removeprefix("file://").replace("\\", "/")
    texts = (written, unquote(written))  # as they stand, and as macOS and others spell letters
    spelt = [unicodedata.normalize(form, text) for text in texts for form in ("NFC", "NFD")]
    for text in dict.fromkeys((*texts, *spelt)):
        if "\0" in text:
            return "a path with a zero byte"
        path = base / text
        # Where its name leads, links in the folder above followed: not the photo's own.
        place = path.parent.resolve() / path.name
        if path.name in ("", "..") or not place.is_relative_to(base):
            return f"{row.path} leads out of {base}"
        if path.is_file():
            photo = PurePosixPath(place.relative_to(base).as_posix())
            if not is_photo(PurePosixPath(photo.name)):
                return f"{row.path} is no {', '.join(sorted(IMAGE_SUFFIXES))}"
            return photo, place
    return f"{row.path}: no such file"


def _rows(table: Path, *, image_column: str | None, label_column: str | None) -> Iterator[Row]:
    try:
        text = table.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{table}: not UTF-8 text ({error}). Save it as UTF-8.") from None
    if table.suffix.lower() == ".jsonl":
        yield from _json_rows(table, text, image_column=image_column, label_column=label_column)
    else:
        yield from _csv_rows(table, text, image_column=image_column, label_column=label_column)


def _csv_rows(
    table: Path, text: str, *, image_column: str | None, label_column: str | None
) -> Iterator[Row]:
    head = text.partition("\n")[0]
    delimiter = max("\t;,", key=head.count)
    reader = csv.reader(text.splitlines(keepends=True), delimiter=delimiter, strict=True)
    try:
        lines = [(reader.line_num, cells) for cells in reader if any(c.strip() for c in cells)]
    except csv.Error as error:
        raise DataError(f"{table}: line {reader.line_num}: {error}.") from None
    if not lines:
        return
    names = [cell.strip() for cell in lines[0][1]]
    if is_photo(PurePosixPath(names[0])) and len(names) in (2, 3):  # no line of titles
        columns: tuple[int, int, int | None] = (0, 1, 2 if len(names) == 3 else None)
    else:
        image = find_column(names, IMAGE_COLUMNS, image_column, "image", where=str(table))
        label = find_column(names, LABEL_COLUMNS, label_column, "label", where=str(table))
        split = next((c for c in names if c.lower() in SPLIT_COLUMNS), None)
        columns = (names.index(image), names.index(label), names.index(split) if split else None)
        del lines[0]
    for number, cells in lines:
        if len(cells) != len(names):
            raise DataError(
                f"{table}: line {number} has {counted(len(cells), 'cell')}, the first {len(names)}."
                " Put quotation marks around cells that hold the delimiter."
            )
        path, label, split = ("" if c is None else cells[c].strip(" \t") for c in columns)
        yield Row(number, path.strip(), label, split.strip())


def _json_rows(
    table: Path, text: str, *, image_column: str | None, label_column: str | None
) -> Iterator[Row]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{table}: line {number} is not JSON ({error}).") from None
        if not isinstance(values, dict):
            raise DataError(f"{table}: line {number} is no object. Expected {{'path': …}}.")
        names, where = list(values), f"{table}: line {number}"
        image = find_column(names, IMAGE_COLUMNS, image_column, "image", where=where)
        label = find_column(names, LABEL_COLUMNS, label_column, "label", where=where)
        split = next((name for name in names if name.lower() in SPLIT_COLUMNS), None)
        cells = [values[image], values[label], values[split] if split else ""]
        if not all(isinstance(cell, str | int) for cell in cells):
            raise DataError(f"{where}: expected text for {image}, {label} and split.")
        path, label, split = (str(cell).strip(" \t") for cell in cells)
        yield Row(number, path.strip(), label, split.strip())


def find_column(
    names: Sequence[str], known: Sequence[str], wanted: str | None, what: str, *, where: str
) -> str:
    """The column `wanted`, else the first of the `known` ones that is there. `DataError`."""
    if wanted is not None:
        if wanted in names:
            return wanted
        raise DataError(f"{where}: no column '{wanted}'. Its columns: {', '.join(names)}.")
    by_lower = {name.lower(): name for name in reversed(names)}
    for name in known:
        if name in by_lower:
            return by_lower[name]
    raise DataError(
        f"{where}: no column for the {what}; found {', '.join(names) or 'none'}. "
        f"Expected {', '.join(known[:4])} or the like; name yours with --{what}-column."
    )
