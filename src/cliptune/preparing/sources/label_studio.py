"""Label Studio's export "JSON": tasks, and the choices that people made for each photo.

Only "JSON", which labelstud.io/guide/task_format describes; not "JSON-MIN", which leaves out who
chose what. Of an annotation, results of the type "choices" count; boxes and others do not.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from cliptune.errors import DataError, listing, named
from cliptune.preparing.sources.lists import Line, PhotoList
from cliptune.text import counted

log = logging.getLogger(__name__)

CHOICES = "choices"  # the column that holds the labels
_UPLOADED = re.compile(r"^[0-9a-f]{8}-(?=.)")  # what goes before the name of an uploaded file


def label_studio_list(
    tasks: Sequence[Any], path: Path, *, base: Path, control: str | None, several: bool
) -> PhotoList:
    """The tasks of the export `path` that somebody annotated, as the lines of a list.

    Columns are those of the tasks' data, photos named as below `base`, and `CHOICES`: the one
    label of a photo, or with `several` a list, which is empty where an annotation chose none.
    `control` names the choices that are read, where there is more than one kind.

    Raises `DataError` with every faulty task: of another form, with annotations that differ, or
    with more than one label where `several` is not asked for.
    """
    faults, lines, skipped = [], [], 0
    control = _control(tasks, path, control)
    for number, task in enumerate(tasks, start=1):
        try:
            labels = _labels(task, control)
            if labels is None or not (labels or several):
                skipped += 1
                continue
            if not several and len(labels) > 1:
                raise ValueError(f"{named(labels)}: several labels. Prepare with --multilabel")
            cells = {key: _below(base, value) for key, value in task["data"].items()}
            lines.append(Line(number, cells | {CHOICES: labels if several else labels[0]}))
        except ValueError as fault:
            faults.append(f"task {number}: {fault}")
    if faults:
        raise DataError(f"{path}: {counted(len(faults), 'faulty task')}:\n{listing(faults)}")
    if skipped:
        log.warning("%s: left out %s that nobody labelled", path, counted(skipped, "task"))
    titles = dict.fromkeys(title for line in lines for title in line.cells)
    return PhotoList(tuple(titles), tuple(lines), unit="task")


def _control(tasks: Sequence[Any], path: Path, wanted: str | None) -> str:
    """The name of the choices to read. Raises `DataError` where it is not the only one."""
    found = {
        str(result.get("from_name")): None
        for task in tasks if isinstance(task, dict)
        for annotation in _annotations(task)
        for result in _results(annotation)
    }  # fmt: skip
    if wanted in found or (wanted is None and len(found) == 1):
        return wanted or next(iter(found))
    if not found:
        raise DataError(
            f"{path}: no photo has choices. Expected Label Studio's export 'JSON' (not 'JSON-MIN') "
            "of a project with <Choices> that somebody annotated."
        )
    raise DataError(
        f"{path}: its choices are called {named(list(found))}. "
        + ("Name" if wanted is None else f"None is '{wanted}': name")
        + " those to read with --label-column."
    )


def _labels(task: Any, control: str) -> list[str] | None:
    """What was chosen; None where nobody annotated the task. Raises `ValueError`."""
    if not isinstance(task, dict) or not isinstance(task.get("data"), dict):
        raise ValueError("no task with 'data'")
    annotations = _annotations(task)
    annotations = [each for each in annotations if each.get("ground_truth") is True] or annotations
    said = []
    for annotation in annotations:
        chosen: list[str] = []
        for result in _results(annotation):
            value = result.get("value")
            choices = value.get("choices") if isinstance(value, dict) else None
            if not isinstance(choices, list) or not all(isinstance(c, str) for c in choices):
                raise ValueError(f"choices {value!r}. Expected {{'choices': [names]}}")
            if str(result.get("from_name")) == control:
                chosen += choices
        said.append(chosen)
    if len({frozenset(chosen) for chosen in said}) > 1:
        words = " and ".join(named(chosen) or "none" for chosen in said)
        raise ValueError(f"its annotations differ: {words}. Mark the right one as ground truth")
    return list(dict.fromkeys(said[0])) if said else None


def _annotations(task: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Those that were not skipped."""
    given = task.get("annotations")
    return [
        each for each in (given if isinstance(given, list) else [])
        if isinstance(each, dict) and not each.get("was_cancelled")
    ]  # fmt: skip


def _results(annotation: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    given = annotation.get("result")
    results = given if isinstance(given, list) else []
    return [each for each in results if isinstance(each, dict) and each.get("type") == "choices"]


def _below(base: Path, value: Any) -> Any:
    """The file that Label Studio's name for a photo means, below `base`; other values as they are.

    Of its address the longest end is taken that is a file there, at last its name without the
    letters that an upload puts before it.
    """
    if not isinstance(value, str):
        return value
    address = urlsplit(value)
    if not (address.scheme or value.startswith("/data/")):
        return value
    asked = parse_qs(address.query).get("d", [])
    parts = (asked[0] if asked else unquote(address.path)).strip("/").split("/")
    ends = ["/".join(parts[start:]) for start in range(len(parts))]
    ends.append(_UPLOADED.sub("", parts[-1]))
    return next((end for end in ends if end and (base / end).is_file()), ends[0])
