"""What a server counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest

from cliptune._version import __version__
from cliptune.serving.worker import Answer, Fault, Loaded

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_PHOTOS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The counts of one server, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = own = CollectorRegistry()
        self._requests = Counter(
            "cliptune_requests", "Requests answered.", ["path", "status"], registry=own
        )
        self._seconds = Histogram(
            "cliptune_request_seconds", "From a request's first line to its answer's last.",
            ["path"], buckets=_SECONDS, registry=own,
        )  # fmt: skip
        self._photos = Counter(
            "cliptune_photos", "Photos by what was answered: known, unknown, refused.", ["answer"],
            registry=own,
        )  # fmt: skip
        self._batches = Histogram(
            "cliptune_batch_photos", "Photos answered at a time.", buckets=_PHOTOS, registry=own
        )
        self._waiting = Gauge("cliptune_waiting_requests", "Requests that wait.", registry=own)
        self._replaced = Counter("cliptune_workers_replaced", "Workers that died.", registry=own)
        self._info = Info("cliptune", "What answers.", registry=own)

    def request(self, path: str, status: int, seconds: float) -> None:
        """One request was answered."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def answers(self, answers: list[Answer]) -> None:
        """What was answered for the photos of a request."""
        for each in answers:
            known = None if isinstance(each, Fault) else each["known"] is not False
            self._photos.labels({None: "refused", True: "known", False: "unknown"}[known]).inc()

    def batch(self, photos: int) -> None:
        """So many photos go to a worker at a time."""
        self._batches.observe(photos)

    def worker_replaced(self) -> None:
        """A worker died, and another is in its place."""
        self._replaced.inc()

    def text(self, *, waiting: int, loaded: Loaded | None) -> bytes:
        """All of it in Prometheus's text format."""
        self._waiting.set(waiting)
        if loaded is not None:
            self._info.info({
                "version": __version__, "checkpoint": loaded.checkpoint,
                "device": loaded.device, "precision": loaded.precision,
            })  # fmt: skip
        return generate_latest(self._registry)
