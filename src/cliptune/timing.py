"""Where the time goes: named sections, timed only while someone measures."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from cliptune.language import marked
from cliptune.language import translated as _
from cliptune.text import left, right

_SECTIONS = (
    marked("augment"), marked("backward"), marked("checkpoint"), marked("copy"), marked("decode"),
    marked("forward"), marked("head"), marked("logging"), marked("optimizer"), marked("resize"),
    marked("validation"),
)  # fmt: skip
TRACED = range(3, 6)  # steps in the trace: past the warm-up, few enough for a viewer


class Stopwatch:
    """Seconds spent in each section, and a trace of a few steps for a viewer such as Perfetto."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace
        self.seconds: dict[str, float] = {}
        self.steps = 0
        self.items = 0
        self.total = 0.0
        self._lock = threading.Lock()  # sections may run in threads
        self._profiler: Any = None
        self._traced = False
        self.inside = threading.local()  # seconds of the sections inside the running one

    def step(self, items: int) -> None:
        """A step over `items` photos is done."""
        from torch.profiler import profile

        self.steps += 1
        self.items += items
        if self.steps == TRACED.start:
            self._profiler = profile()
            self._profiler.start()
        elif self.steps == TRACED.stop:
            self._end_trace()

    def add(self, name: str, seconds: float) -> None:
        with self._lock:
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def table(self) -> str:
        """One line for each section: seconds, share of all the time, milliseconds a photo."""
        rest = self.total - sum(self.seconds.values())
        rows = sorted(self.seconds.items(), key=lambda item: -item[1])
        rows += [(marked("all else"), rest)] if rest > 0 else []
        lines = [
            left(_("where the time went"), 22) + right(_("seconds"), 10) + right(_("share"), 9)
            + right(_("ms/photo"), 10)
        ]  # fmt: skip
        lines += [
            f"{left(_(name), 22)}{seconds:>10.2f}{seconds / self.total:>9.1%}"
            f"{1000 * seconds / max(1, self.items):>10.2f}"
            for name, seconds in rows
        ]
        photos = _("{count:>10} photo") if self.items == 1 else _("{count:>10} photos")
        lines.append(
            f"{left(_('in all'), 22)}{self.total:>10.2f}{'':>9}{photos.format(count=self.items)}"
        )
        if rest <= 0:
            lines.append(_("Threads work side by side: the sections are more than the whole."))
        if self._traced:
            lines.append(
                _("Trace: {path} (open it at https://ui.perfetto.dev)").format(path=self.trace)
            )
        return "\n".join(lines)

    def _end_trace(self) -> None:
        if self._profiler is not None:
            self._profiler.stop()
            self.trace.parent.mkdir(parents=True, exist_ok=True)
            self._profiler.export_chrome_trace(str(self.trace))
            self._traced = True
            self._profiler = None


_active: Stopwatch | None = None


@contextmanager
def measured(trace: Path | None) -> Iterator[Stopwatch | None]:
    """Time the sections met inside, in every thread; with `trace` None nothing is timed."""
    global _active
    if trace is None:
        yield None
        return
    _active, started = Stopwatch(trace), time.perf_counter()
    try:
        yield _active
    finally:
        _active.total = time.perf_counter() - started
        _active._end_trace()
        _active = None


def section(name: str) -> AbstractContextManager[Any]:
    """Count the time inside under `name`, if someone measures; next to nothing otherwise."""
    return nullcontext() if _active is None else _timed(_active, name)


def step_done(items: int) -> None:
    """Tell whoever measures that a step over `items` photos is done."""
    if _active is not None:
        _active.step(items)


@contextmanager
def _timed(watch: Stopwatch, name: str) -> Iterator[None]:
    from torch.profiler import record_function

    outer = getattr(watch.inside, "seconds", 0.0)
    watch.inside.seconds = 0.0
    started = time.perf_counter()
    with record_function(name):
        try:
            yield
        finally:
            elapsed = time.perf_counter() - started
            watch.add(name, elapsed - watch.inside.seconds)  # each second counts once
            watch.inside.seconds = outer + elapsed
