"""Which run of a tracker a run of ours is, and up to where it was told: kept beside checkpoints.

Points that were sent cannot be taken back, as TensorBoard's files can be cut. A run that goes on
from its last checkpoint repeats the updates since; those are not told a second time.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from cliptune.files import whole_file

FILE = "trackers.json"


@dataclass
class _Known:
    runs: dict[str, str] = field(default_factory=dict)  # tracker -> id of the run there
    update: int = -1  # the last one that was told of


class Told:
    """What stands in `trackers.json` of the folder `output_dir`.

    `resumed`: the run goes on; otherwise what a run before it left does not count.
    """

    def __init__(self, output_dir: Path, *, resumed: bool) -> None:
        self.path = output_dir / FILE
        self._known = self._read() if resumed else _Known()
        self._before = self._known.update

    def run_of(self, tracker: str) -> str | None:
        """The id of our run there, if it goes on."""
        return self._known.runs.get(tracker)

    def keep_run(self, tracker: str, run_id: str) -> None:
        """Remember the id, for when it goes on."""
        self._known.runs[tracker] = run_id
        self._write()

    def is_new(self, update: int) -> bool:
        """Whether nothing was told of `update` before the run was gone on with.

        Noted before it is told: a kill between the two leaves a gap, and no point twice.
        """
        if update > self._known.update:
            self._known.update = update
            self._write()
        return update > self._before

    def _read(self) -> _Known:
        try:
            return TypeAdapter(_Known).validate_json(self.path.read_bytes())
        except (OSError, ValidationError):
            return _Known()

    def _write(self) -> None:
        with whole_file(self.path) as partial:
            text = json.dumps(asdict(self._known), indent=1) + "\n"
            partial.write_text(text, encoding="utf-8", newline="\n")
