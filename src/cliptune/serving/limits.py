"""What one server takes on, and what is said of what it does not."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much of everything; what is above is refused before it costs anything."""

    max_bytes: int = 32 * 2**20  # of one request's body
    max_pixels: int = 64_000_000  # of one photo
    max_photos: int = 64  # in one request
    max_waiting: int = 256  # requests that were taken and are not yet with a worker
    seconds: float = 30.0  # for a request to arrive, and again for its answer
    max_held_bytes: int = 2**30  # of all bodies in memory together


class Refused(Exception):
    """A request that is answered by `status` and the words of `message`."""

    def __init__(self, status: int, message: str, *, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers or {}


def too_large(limits: Limits) -> Refused:
    """For a body above the limit. Its rest may be endless, so the connection ends."""
    return Refused(
        413,
        f"the request is larger than {limits.max_bytes:,} bytes. Send fewer or smaller photos.",
        headers={"Connection": "close"},
    )


def busy(what: str) -> Refused:
    """For a server that has enough to do."""
    return Refused(429, f"{what}. Try again in a moment.", headers={"Retry-After": "1"})


def not_now(why: str) -> Refused:
    """For a server that could answer at another time."""
    return Refused(503, f"{why}. Try again in a moment.", headers={"Retry-After": "5"})
