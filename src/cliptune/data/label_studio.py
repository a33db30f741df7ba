"""Tasks of Label Studio: photos with what a model takes them for, to be looked at there.

The form is that of labelstud.io/guide/predictions. Photos are named as its local storage names
them: below the folder in LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT (labelstud.io/guide/storage).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cliptune._version import __version__
from cliptune.files import whole_file

LOCAL_FILES = "/data/local-files/?d="
IMAGE, CHOICE = "image", "choice"  # the names that the labelling interface gives its two parts


def task(file: str, choice: str, *, score: float, more: Mapping[str, Any]) -> dict[str, Any]:
    """The task of the photo `file`, for which `choice` is filled in beforehand.

    `file` is below the folder that is served, with slashes; `score` sorts tasks there; `more` is
    shown beside the photo.
    """
    answer = {
        "from_name": CHOICE, "to_name": IMAGE, "type": "choices", "value": {"choices": [choice]},
    }  # fmt: skip
    predicted = {
        "model_version": f"cliptune {__version__}", "score": round(score, 4), "result": [answer],
    }  # fmt: skip
    return {"data": {IMAGE: LOCAL_FILES + quote(file), **more}, "predictions": [predicted]}


def write_tasks(tasks: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write `tasks` to the JSON file `path`, which Label Studio imports."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial:
        text = json.dumps(list(tasks), indent=1, ensure_ascii=False)
        partial.write_text(text + "\n", encoding="utf-8", errors="replace", newline="\n")
