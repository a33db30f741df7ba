"""What a list of photos holds, line by line: CSV, TSV or JSON Lines as people save them."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from cliptune.errors import DataError
from cliptune.preparing.sources.archive import is_photo

LIST_SUFFIXES = frozenset({".csv", ".tsv", ".jsonl"})
# Columns of a list without a line of titles.
UNTITLED = ("path", "label", "split")


class Line(NamedTuple):
    """One line of a list: its number, counted from 1, and its cells by the title of the column."""

    number: int
    cells: dict[str, Any]


@dataclass(frozen=True)
class PhotoList:
    """The columns of a list in their order, and its lines."""

    titles: tuple[str, ...]
    lines: tuple[Line, ...]
    unit: str = "line"  # what a line is called in messages

    def column(self, title: str) -> list[str]:
        """The cells of one column as text, empty where a line has none."""
        return [str(line.cells.get(title, "")).strip() for line in self.lines]


def read_list(path: Path) -> PhotoList:
    """The list in the file `path`. Raises `DataError` with the line that cannot be read."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error}). Save it as UTF-8.") from None
    if path.suffix.lower() == ".jsonl":
        return _json_lines(path, text)
    return _csv_lines(path, text)


def _csv_lines(path: Path, text: str) -> PhotoList:
    # What ends a line is for the csv module to say: Python's splitlines knows eight more ends.
    file = io.StringIO(text, newline="")
    delimiter, skipped = _delimiter(path, file)
    reader = csv.reader(file, delimiter=delimiter, strict=True)
    try:
        rows = [(reader.line_num + skipped, row) for row in reader if any(c.strip() for c in row)]
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num + skipped}: {error}.") from None
    if not rows:
        return PhotoList((), ())
    titles = tuple(cell.strip() for cell in rows[0][1])
    if is_photo(PurePosixPath(titles[0])) and len(titles) in (2, 3):
        titles = UNTITLED[: len(titles)]
    else:
        del rows[0]
    if twice := [name for name, count in Counter(titles).items() if name and count > 1]:
        raise DataError(f"{path}: two columns are called '{twice[0]}'. Rename one of them.")
    for number, row in rows:
        if len(row) != len(titles):
            raise DataError(
                f"{path}: line {number} has {len(row)} cells, the first {len(titles)}. "
                "Put quotation marks around cells that hold the delimiter."
            )
    lines = (Line(number, dict(zip(titles, row, strict=True))) for number, row in rows)
    return PhotoList(titles, tuple(lines))


def _delimiter(path: Path, file: io.StringIO) -> tuple[str, int]:
    """(what stands between cells, how many lines of `file` were read to know)."""
    titled = ((number, line) for number, line in enumerate(file, start=1) if line.strip())
    number, first = next(titled, (0, ""))
    if first.lower().removeprefix('"').startswith("sep="):  # a word to Excel, in no standard
        said = re.fullmatch(r'"?sep=([^"\r\n])"?[\r\n]*', first, re.IGNORECASE)
        if said is None:
            raise DataError(
                f"{path}: its first line {first.strip()!r} names no delimiter. Expected one "
                "character, as in sep=; or no such line."
            )
        return said[1], number
    file.seek(0)
    return max("\t;,", key=first.count), 0


def _json_lines(path: Path, text: str) -> PhotoList:
    lines = tuple(_json_objects(path, text))
    titles = dict.fromkeys(title for line in lines for title in line.cells)
    return PhotoList(tuple(titles), lines)


def _json_objects(path: Path, text: str) -> Iterator[Line]:
    for number, line in enumerate(text.split("\n"), start=1):  # their one end of a line
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}: line {number} is not JSON ({error}).") from None
        if not isinstance(values, dict):
            raise DataError(f"{path}: line {number} is no object. Expected {{'path': …}}.")
        yield Line(number, values)
