"""A list of labels to change, as `check --export-suspects` writes it and a person edits it.

Columns `path`, `label` (as it is), `suggested` and `action`: keep; relabel, as `suggested` says;
or drop. Others are left aside.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from cliptune.data.naming import clean_name
from cliptune.errors import DataError, listing, named
from cliptune.hints import did_you_mean, not_there
from cliptune.language import counting, said
from cliptune.preparing.sources.layouts import ClassLayout
from cliptune.preparing.sources.lists import read_list
from cliptune.text import counted, no_formula

COLUMNS = ("path", "label", "suggested", "action")
ACTIONS = ("keep", "relabel", "drop")


class Row(NamedTuple):
    """One line of the list, `line` counted from 1."""

    line: int
    path: str
    label: str
    suggested: str
    action: str


@dataclass(frozen=True)
class Relabelling:
    """The lines of the list at `path`; `mark` tells its content from that of another."""

    path: Path
    mark: str
    rows: tuple[Row, ...]


def read_relabelling(path: Path) -> Relabelling:
    """The list of changes in the CSV file `path`.

    Raises `DataError` for no such file, a missing column, or lines with another action.
    """
    if not path.is_file():
        what = "this is a folder." if path.is_dir() else not_there(path, "no such file")
        raise DataError(
            f"--relabel {path}: {what} Expected a list that 'cliptune check DATA --model NAME "
            "--export-suspects FILE.csv' wrote."
        )
    listed = read_list(path)
    if missing := [column for column in COLUMNS if column not in listed.titles]:
        raise DataError(
            f"--relabel {path}: no column {named(missing)}; found {named(listed.titles) or 'none'}."
            f" Expected {', '.join(COLUMNS)}."
        )
    rows = tuple(
        Row(line.number, *(_text(line.cells.get(column, "")) for column in COLUMNS))
        for line in listed.lines
    )
    rows = tuple(row._replace(action=row.action.casefold() or "keep") for row in rows)
    if faults := [
        f"line {row.line}: action '{row.action}'.{did_you_mean(row.action, ACTIONS)}"
        for row in rows
        if row.action not in ACTIONS
    ]:
        raise DataError(_faulty(path, faults, f"Expected one of {', '.join(ACTIONS)}."))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Relabelling(path, f"{path.name} (SHA-256 {digest[:12]})", rows)


def relabelled(
    layout: ClassLayout, changes: Relabelling, *, where: str
) -> tuple[ClassLayout, dict[str, str]]:
    """`layout` with labels as `changes` say, and what was done: photo -> what, in words.

    Photos stay in their splits. Raises `DataError` with every line that names no photo of it, a
    label that its photo does not have, or a class that it does not have; and two lines for a photo
    that differ.
    """
    own = {photo: name for name, photos in layout.classes.items() for photo in photos}
    asked: dict[PurePosixPath, Row] = {}
    faults = []
    for row in changes.rows:
        photo = PurePosixPath(row.path.replace("\\", "/"))
        fault = _fault(row, own.get(photo), layout.classes)
        earlier = asked.setdefault(photo, row)
        if not fault and (earlier.action, earlier.suggested) != (row.action, row.suggested):
            fault = f"{row.path}: {row.action} here, {earlier.action} in line {earlier.line}"
        faults += [f"line {row.line}: {fault}"] if fault else []
    if faults:
        raise DataError(
            _faulty(
                changes.path, faults,
                f"Paths and classes are those of {where}; expected the folder that was checked.",
            )
        )  # fmt: skip
    classes: dict[str, list[PurePosixPath]] = {name: [] for name in layout.classes}
    done = {}
    for photo, name in own.items():
        row = asked.get(photo, Row(0, "", "", "", "keep"))
        target = clean_name(row.suggested) if row.action == "relabel" else name
        if row.action == "drop":
            done[photo.as_posix()] = f"{name}, dropped"
            continue
        if target != name:
            done[photo.as_posix()] = f"{name} → {target}"
        classes[target].append(photo)
    left = {photo for photos in classes.values() for photo in photos}
    return (
        replace(
            layout,
            classes={name: sorted(photos) for name, photos in classes.items()},
            splits={photo: split for photo, split in layout.splits.items() if photo in left},
        ),
        done,
    )


def in_words(done: Mapping[str, str], changes: Relabelling) -> str:
    """A sentence for the user on what `relabelled` did."""
    dropped = sum(what.endswith(", dropped") for what in done.values())
    return said(
        "--relabel {path}: {labels} changed, {photos} dropped, of {rows}.",
        path=changes.path,
        labels=counting(len(done) - dropped, "label"),
        photos=counting(dropped, "photo"),
        rows=counting(len(changes.rows), "row"),
    )


def _fault(row: Row, name: str | None, classes: Mapping[str, object]) -> str | None:
    """What is wrong with a row, whose photo is of the class `name`."""
    if name is None:
        return f"{row.path}: no such photo"
    if clean_name(row.label) != name:
        return f"{row.path} is '{name}', not '{row.label}': the list is of another state"
    if row.action == "relabel" and clean_name(row.suggested) not in classes:
        hint = did_you_mean(row.suggested, classes) or f" Classes: {named(list(classes))}."
        return f"{row.path}: no class '{row.suggested}'.{hint}"
    return None


def _text(cell: object) -> str:
    """A cell, without the apostrophe that keeps spreadsheets from taking it for a formula."""
    text = str(cell).strip()
    bare = text.removeprefix("'")
    return bare if no_formula(bare) == text else text


def _faulty(path: Path, faults: list[str], expected: str) -> str:
    lines = counted(len(faults), "faulty line")
    return f"--relabel {path}: {lines}:\n{listing(faults)}\n{expected} Nothing was made."
