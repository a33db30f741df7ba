"""`dataset.json`: where a prepared folder came from, how it was made, and what it must hold."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from cliptune.data.splits import SPLITS
from cliptune.errors import DataError, listing
from cliptune.foreign_errors import validation_faults

MANIFEST = "dataset.json"


class SourceRecord(BaseModel):
    """Where the photos came from, and whose splits they are in."""

    name: str
    kind: str
    splits: Literal["source", "random"]


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """What was asked of `prepare`, as on its command line; None where it was not given.

    Manifests of earlier versions lack some.
    """

    layout: str = "auto"
    splits: str = "auto"
    num_classes: int | None = None
    classes: list[str] | None = None
    exclude: list[str] | None = None
    min_photos: int | None = None
    image_column: str | None = None
    label_column: str | None = None
    shots: int | None = None
    train_ratio: float = 0.7
    val_ratio: float | None = None
    link: bool = False
    resize: int | None = None
    leave_out: list[str] | None = None
    multilabel: bool = False
    group: str | None = None
    rename: dict[str, str] | None = None  # old -> new
    relabel: str | None = None  # a list's name and what tells its content from another's
    merge: dict[str, list[str]] | None = None  # new -> those that become it


# Written only where they were asked for: without, the file's bytes are those of earlier versions.
_WHERE_GIVEN = ("multilabel", "group", "rename", "merge", "relabel")


class Manifest(BaseModel):
    """What `prepare` made. The same photos, options and version give the same bytes."""

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    cliptune: str  # the version that wrote it
    source: SourceRecord
    options: PrepareOptions
    seed: int
    left_out: dict[str, str] = {}  # class of the source -> why it was not taken
    counts: dict[str, dict[str, int]]  # split -> class -> photos
    files: dict[str, str]  # split/class/file -> SHA-256 of its content
    called: dict[str, str] = {}  # class of the source -> the class it is here, if another
    relabelled: dict[str, str] = {}  # photo of the source -> what became of its label, in words
    groups: dict[str, str] = {}  # split/class/file -> the group that stays in one split

    def write(self, path: Path) -> None:
        """Write it to the file `path`."""
        empty = {name for name in ("called", "groups", "relabelled") if not getattr(self, name)}
        values = self.model_dump(exclude=empty)
        for name in _WHERE_GIVEN:
            if not values["options"][name]:
                del values["options"][name]
        text = json.dumps(values, indent=1, ensure_ascii=False, sort_keys=False)
        # Names that are no text (bytes of another encoding) stay what they are on the disk.
        path.write_text(text + "\n", encoding="utf-8", errors="surrogateescape", newline="\n")

    def differences(self, options: PrepareOptions, *, seed: int, source: str | None) -> list[str]:
        """How a request differs from what was made, a line for each option."""
        made: dict[str, object] = asdict(self.options) | {"seed": self.seed}
        asked: dict[str, object] = asdict(options) | {"seed": seed}
        if source is not None:
            made, asked = made | {"source": self.source.name}, asked | {"source": source}
        return [
            f"--{key.replace('_', '-')}: made with {_shown(made[key])}, now {_shown(asked[key])}"
            for key in asked
            if made[key] != asked[key]
        ]


def count(files: list[str]) -> dict[str, dict[str, int]]:
    """Split -> class -> number of photos, for paths `split/class/file`."""
    numbers = Counter(tuple(name.split("/")[:2]) for name in files)
    classes = sorted({name for _, name in numbers})
    return {split: {name: numbers[split, name] for name in classes} for split in SPLITS}


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of `folder`, or None where it has none. Raises `DataError` for a damaged one."""
    path = folder / MANIFEST
    if not path.exists():
        return None
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
        return Manifest.model_validate(json.loads(text))
    except ValidationError as error:
        raise DataError(
            f"{path}: damaged, or of another format version (this cliptune reads format 1):\n"
            f"{listing(validation_faults(error), limit=3)}\n"
            "Move it away to use the photos without it."
        ) from None
    except ValueError as error:
        raise DataError(
            f"{path}: not JSON ({error}). Move it away to use the photos without it."
        ) from None


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    if isinstance(value, dict):
        return "; ".join(f"{_shown(own)} for {key}" for key, own in value.items())
    return "the default" if value is None else str(value)
