"""export.json: what an exported folder says of itself to other programs.

Here it is read for what the checkpoint's own files beside it do not say.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from cliptune.data.parents import Parents
from cliptune.errors import CheckpointError
from cliptune.model.label_answers import AnyAnswers, LabelAnswers

EXPORTED = "export.json"  # it tells an exported folder from the checkpoint it was made from
FORMAT = 2
AGAIN = "Export the checkpoint again"


class About(BaseModel):
    """What is needed to answer; the file says more, for people and other programs."""

    model_config = ConfigDict(extra="ignore")

    format: int
    precision: str


def classes_told(
    tree: Parents, names: Mapping[str, str], answers: AnyAnswers | None
) -> dict[str, Any]:
    """What the file says of the classes of `tree`, in order; `names` has those to show."""
    told: dict[str, Any] = {
        "classes": [{"label": label, "name": names[label]} for label in tree.class_names],
        "answers": None if answers is None else answers.model_dump(mode="json"),
    }
    if isinstance(answers, LabelAnswers):  # thresholds stand in the order of the classes
        told = {"task": "multilabel"} | told
    if tree:  # of each class its parents, the nearest first
        told["parents"] = [{"label": label, "name": names[label]} for label in tree.names]
        for label, each in enumerate(told["classes"]):
            each["parents"] = list(tree.of(label))
    return told


def read_about(folder: Path) -> About:
    """Raises `CheckpointError` for a damaged file, or one of another format."""
    path = folder / EXPORTED
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        about = About.model_validate_json(json.dumps(values))
    except (OSError, ValueError, ValidationError) as error:
        first = str(error).splitlines()[0]
        raise CheckpointError(f"{path}: damaged: {first}. {AGAIN}.") from None
    if about.format != FORMAT:
        remedy = "Update cliptune" if about.format > FORMAT else AGAIN
        raise CheckpointError(
            f"{path}: format {about.format}, and this cliptune reads {FORMAT}. {remedy}."
        )
    return about
