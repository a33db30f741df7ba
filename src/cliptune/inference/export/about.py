"""export.json: what an exported folder says of itself, as it is read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from cliptune.errors import CheckpointError
from cliptune.model.answers import Answers
from cliptune.model.checkpoint import EXPORTED

FORMAT = 1


class ExportedClass(BaseModel):
    """A class name, for programs, and the name to show."""

    label: str
    name: str


class About(BaseModel):
    """What is needed to answer; the file says more, for people."""

    model_config = ConfigDict(extra="ignore")

    format: int
    precision: str
    classes: tuple[ExportedClass, ...]
    preprocess: dict[str, Any]
    answers: Answers | None


def read_about(folder: Path) -> About:
    """Raises `CheckpointError` for a damaged file, or one of a later format."""
    path = folder / EXPORTED
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        version = values.get("format") if isinstance(values, dict) else None
        if isinstance(version, int) and version > FORMAT:
            raise CheckpointError(
                f"{path}: format {version}, and this cliptune reads {FORMAT}. Update cliptune."
            )
        return About.model_validate_json(json.dumps(values))
    except (OSError, ValueError, ValidationError) as error:
        first = str(error).splitlines()[0]
        raise CheckpointError(f"{path}: damaged: {first}. Export the checkpoint again.") from None
