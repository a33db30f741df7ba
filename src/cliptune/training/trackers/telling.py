"""One voice for all trackers of a run, which no fault of theirs ends."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from cliptune.errors import Interrupted
from cliptune.storage import is_address
from cliptune.timing import section

log = logging.getLogger(__name__)

Scalar = bool | int | float | str
# Of a run: done; to be gone on with; ended by an error.
Outcome = Literal["finished", "stopped", "failed"]


class Tracker(Protocol):
    """What a run tells; steps are optimizer updates. Anything may be raised."""

    name: str

    def begin(self, settings: Mapping[str, Scalar], *, resumed: bool) -> None:
        """Called once, before all others; `resumed`: it goes on where it was stopped."""

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        """Points of curves, each finite."""

    def picture(self, name: str, path: Path, *, step: int) -> None:
        """A PNG file, which is gone afterwards."""

    def reached(self, files: Sequence[Path], *, step: int) -> None:
        """The files that say what came of a run that is done."""

    def finish(self, outcome: Outcome) -> None:
        """Called once, after all others."""


@dataclass
class Trackers:
    """The trackers of a run, in the process of it that tells; in others there are none.

    Training costs hours, and curves can be drawn from what a checkpoint holds: where a tracker
    raises anything, that is said once, and the run goes on without it.
    """

    trackers: list[Tracker] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.trackers)

    def start(
        self,
        makers: Mapping[str, Callable[[], Tracker]],
        settings: Mapping[str, Scalar],
        *,
        resumed: bool,
    ) -> None:
        """Make the tracker of each name, and tell it of the run."""
        for name, make in makers.items():
            with self._surviving(name):
                tracker = make()
                tracker.begin(settings, resumed=resumed)
                self.trackers.append(tracker)

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        """Points of curves, each finite."""
        self._all(lambda tracker: tracker.log(values, step=step))

    def picture(self, name: str, draw: Callable[[Path], None], *, step: int) -> None:
        """What `draw` writes as PNG to the path it is given; nothing where it raises."""
        if not self:
            return
        with (
            section("pictures"),
            self._surviving(name),
            tempfile.TemporaryDirectory(prefix="cliptune-") as folder,
        ):
            path = Path(folder, "picture.png")
            draw(path)
            self._all(lambda tracker: tracker.picture(name, path, step=step))

    def reached(
        self,
        files: Callable[[Path], Sequence[Path]],
        *,
        step: int,
    ) -> None:
        """The files that say what came of a run that is done.

        `files` names them; it may write them to the folder it is given.
        """
        found: Sequence[Path] = []
        with tempfile.TemporaryDirectory(prefix="cliptune-") as folder:
            with self._surviving("files"):
                found = files(Path(folder))
            self._all(lambda tracker: tracker.reached(found, step=step))

    @contextmanager
    def until_the_end(self) -> Iterator[None]:
        """Tell what becomes of what is done inside, and close."""
        outcome: Outcome = "failed"
        try:
            yield
            outcome = "finished"
        except (Interrupted, KeyboardInterrupt):
            outcome = "stopped"
            raise
        finally:
            self._all(lambda tracker: tracker.finish(outcome))
            self.trackers.clear()

    def _all(self, tell: Callable[[Tracker], None]) -> None:
        for tracker in list(self.trackers):
            with self._surviving(tracker.name, tracker):
                tell(tracker)

    @contextmanager
    def _surviving(self, name: str, tracker: Tracker | None = None) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # of other people's code, over networks and disks
            if tracker is not None:
                self.trackers.remove(tracker)
            what = (str(error).strip() or type(error).__name__).splitlines()[0]
            log.warning(
                "%s: %s. The run goes on without it; training_curves.png and the checkpoints hold "
                "its figures.", name, what.rstrip("."),
            )  # fmt: skip
            log.debug("the fault of %s:", name, exc_info=True)


def public_name(base_model: str) -> str:
    """What others are told of a base model: of a folder or an address the last name alone."""
    private = is_address(base_model) or Path(base_model).is_absolute()
    return Path(base_model).name if private or base_model.startswith("~") else base_model
