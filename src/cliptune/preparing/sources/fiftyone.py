"""FiftyOne's export `FiftyOneImageClassificationDataset`: labels.json beside data/.

labels.json has "classes", and in "labels" for each photo, by its name without ending, a place in
them, or the label itself where there are no classes; null where it has none. With confidences it
is an object with "label"; where photos have several labels, a list of such.
(docs.voxel51.com/user_guide/import_datasets.html)
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from cliptune.errors import DataError, listing, named
from cliptune.preparing.sources.archive import is_photo
from cliptune.preparing.sources.lists import Line, PhotoList
from cliptune.text import counted

log = logging.getLogger(__name__)

LABELS, DATA = "labels.json", "data"


def is_fiftyone(folder: Path) -> bool:
    """Whether `folder` is such an export; other folders may hold the same two names."""
    return (folder / DATA).is_dir() and holds_labels(folder / LABELS)


def holds_labels(path: Path) -> bool:
    """Whether the file `path` is the labels.json of such an export, and not one of COCO's."""
    if path.name != LABELS or not path.is_file():
        return False
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError):
        return False
    return isinstance(values, dict) and isinstance(values.get("labels"), dict)


def fiftyone_list(values: Mapping[str, Any], path: Path, *, several: bool) -> PhotoList:
    """The labelled photos of the export's file `path` as the lines of a list.

    Its columns are `path`, below the folder of the export, and `label`: a text, or with `several`
    a list. Photos without a label (null) are left out, and told of.

    Raises `DataError` with every fault: a label that is none of the classes, or more than one
    where `several` is not asked for.
    """
    classes, labels = values.get("classes"), values.get("labels")
    if not isinstance(labels, dict) or not isinstance(classes, list | None):
        raise DataError(f"{path}: expected 'labels' to be an object, and 'classes' to be a list.")
    files = _files(path.parent / DATA)
    faults, lines, skipped = [], [], 0
    for number, (name, target) in enumerate(labels.items(), start=1):
        try:
            own = None if target is None else _labels(target, classes)
            if own is None or not (own or several):
                skipped += 1
                continue
            if not several and len(own) > 1:
                raise ValueError(f"{named(own)}: several labels. Prepare with --multilabel")
            cells = {"path": files.get(name, name), "label": own if several else own[0]}
            lines.append(Line(number, cells))
        except ValueError as fault:
            faults.append(f"{name}: {fault}")
    if faults:
        raise DataError(f"{path}: {counted(len(faults), 'fault')}:\n{listing(faults)}")
    if skipped:
        log.warning("%s: left out %s without a label", path, counted(skipped, "photo"))
    return PhotoList(("path", "label"), tuple(lines), unit="photo")


def _files(data: Path) -> dict[str, str]:
    """Name without ending, and with it -> path below the export."""
    files = {}
    for file in sorted(data.rglob("*")) if data.is_dir() else ():
        name = PurePosixPath(file.relative_to(data).as_posix())
        if is_photo(name):
            files[str(name)] = files[str(name.with_suffix(""))] = f"{DATA}/{name}"
    return files


def _labels(target: Any, classes: list[Any] | None) -> list[str]:
    """The labels of one photo. Raises `ValueError`."""
    if isinstance(target, list):
        return list(dict.fromkeys(label for each in target for label in _labels(each, classes)))
    if isinstance(target, dict):
        target = target.get("label")
    if isinstance(target, str):
        return [target]
    if isinstance(target, int) and not isinstance(target, bool):
        if classes is None:
            return [str(target)]
        if 0 <= target < len(classes):
            return [str(classes[target])]
        raise ValueError(f"its label is {target}, and there are {len(classes)} classes, from 0 on")
    raise ValueError(f"its label is {target!r}. Expected a name, or a place in 'classes'")
