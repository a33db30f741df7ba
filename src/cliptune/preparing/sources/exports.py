"""What tools for labelling export as JSON, read as lists of photos: Label Studio and FiftyOne."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cliptune.errors import DataError
from cliptune.preparing.sources.fiftyone import fiftyone_list, holds_labels
from cliptune.preparing.sources.label_studio import CHOICES, label_studio_list
from cliptune.preparing.sources.lists import PhotoList


def read_export(
    path: Path, *, root: Path | None, label_column: str | None, several: bool
) -> tuple[PhotoList, str]:
    """The photos of the export `path`, and the column of their labels.

    `label_column` names the choices of Label Studio that are read. Raises `DataError` for JSON of
    another form, and for what is wrong in it.
    """
    values = read_json(path)
    if isinstance(values, list):
        base = (root or path.parent).resolve()
        listed = label_studio_list(values, path, base=base, control=label_column, several=several)
        return listed, CHOICES
    if isinstance(values, dict) and isinstance(values.get("labels"), dict):
        return fiftyone_list(values, path, several=several), "label"
    raise DataError(
        f"{path}: neither Label Studio's export 'JSON', a list of tasks, nor FiftyOne's "
        "labels.json, with 'classes' and 'labels'."
    )


def is_export(path: Path) -> bool:
    """Whether the file `path` is such an export, and no other JSON, such as COCO's."""
    if path.suffix.lower() != ".json" or not path.is_file():
        return False
    with path.open("rb") as file:
        begins_a_list = file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")
    return begins_a_list or holds_labels(path)


def read_json(path: Path) -> Any:
    """What `path` holds. Raises `DataError` where it is no JSON in UTF-8."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON in UTF-8 ({error}).") from None
