"""Labels that photos contradict: who found them is `cliptune.labelling`, what is made of them here.

In files they are a list that `cliptune prepare --relabel` takes back.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cliptune.checking.findings import Finding
from cliptune.data.label_studio import task, write_tasks
from cliptune.errors import UserError
from cliptune.files import whole_file
from cliptune.language import said
from cliptune.text import no_formula

KIND = "suspect_label"
COLUMNS = ("path", "label", "suggested", "score", "action")
KEEP = "keep"  # the action of every row until somebody has looked


@dataclass(frozen=True, kw_only=True)
class Suspect:
    """A photo of a data folder that seems to show another class than its folder says.

    `score`, above 0 and at most 1, says how strongly; it ranks, and is no probability.
    """

    file: str  # split/class/file
    label: str
    suggested: str
    score: float


@dataclass(frozen=True, kw_only=True)
class Suspects:
    """The contradicted labels of a folder, the most contradicted first, and how they were found.

    `agreeing`: the share of the judged photos whose label the model names first, held out.
    `typical`: class -> photos that the model takes as typical of it. `unjudged`: classes of which
    there is no more than one photo, or group of photos.
    """

    model: str
    num_judged: int
    agreeing: float
    photos: tuple[Suspect, ...]
    typical: dict[str, tuple[str, ...]]
    unjudged: tuple[str, ...]

    def findings(self) -> list[Finding]:
        """One for each, in their order."""
        return [
            Finding(
                KIND,
                said(
                    "labelled {label}, looks like {other} (score {score:.2f})",
                    label=each.label,
                    other=each.suggested,
                    score=each.score,
                ),
                (each.file,),
            )
            for each in self.photos
        ]

    def to_dict(self) -> dict[str, Any]:
        """What `check.json` holds of them beside the findings."""
        return {
            "model": self.model,
            "num_judged": self.num_judged,
            "agreeing": self.agreeing,
            "unjudged": list(self.unjudged),
            "photos": [
                {
                    "path": each.file, "label": each.label, "suggested": each.suggested,
                    "score": round(each.score, 3),
                }
                for each in self.photos
            ],
        }  # fmt: skip


def check_suspects_file(path: Path) -> None:
    """Raise `UserError` unless a list of suspects can be written to `path`."""
    if path.suffix.lower() not in (".csv", ".json"):
        raise UserError(
            f"--export-suspects {path}: expected a file that ends in .csv, or in .json for tasks "
            "of Label Studio."
        )
    if path.is_dir():
        raise UserError(f"--export-suspects {path}: this is a folder. Name a file in it.")


def write_suspects(suspects: Sequence[Suspect], path: Path) -> None:
    """Write `suspects` to the CSV file `path`, a row each, every action `keep`.

    To a .json file they go as tasks of Label Studio, with the suggested label filled in.
    """
    if path.suffix.lower() == ".json":
        tasks = [
            task(each.file, each.suggested, score=each.score, more={"label": each.label})
            for each in suspects
        ]
        write_tasks(tasks, path)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        whole_file(path) as partial,
        partial.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for each in suspects:
            row = (each.file, each.label, each.suggested, f"{each.score:.3f}", KEEP)
            writer.writerow(map(no_formula, row))
