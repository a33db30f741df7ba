"""Ray, as cliptune uses it: attached to or started, quiet, and its errors in words."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cliptune.errors import CliptuneError, MissingExtra, ResourceError, UserError, reason

log = logging.getLogger(__name__)

_CONNECTS_WITHIN_S = 10
# Threads that read photos get a heap of their own from glibc each, and each heap keeps its holes:
# with two for all, a process that answers stays as large as after the first hundred thousand.
_WORKERS_SEE = {"MALLOC_ARENA_MAX": "2"}


def import_ray() -> Any:
    """The module `ray`, with `ray.data`. Raises `MissingExtra`."""
    # Ray reports how it is used to its maker unless told not to, before it is imported.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError:
        raise MissingExtra("ray", "ray", "an engine of several machines") from None
    return ray


@contextmanager
def ray_running(address: str | None, *, quiet: bool = True) -> Iterator[Any]:
    """`ray`, attached to a cluster, and let go of at the end.

    `address` is that of a cluster, or "local" for one of this machine's cores alone; None: what
    RAY_ADDRESS says, a cluster that runs on this machine, or else one of its own. A process that is
    attached already stays so. Raises `UserError` where no cluster answers, and `ResourceError`
    where nodes or actors are lost for good.
    """
    ray = import_ray()
    ours = not ray.is_initialized()
    if ours:
        _refuse_unreachable(address)
        level = logging.ERROR if quiet else logging.INFO
        if quiet:  # of an actor's arguments, in each run; files of Ray's own hold the rest
            os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        if address == "local":  # kept of each task for a dashboard, which is not there
            os.environ.setdefault("RAY_task_events_report_interval_ms", "0")
        try:
            ray.init(
                address=address, logging_level=level, log_to_driver=not quiet,
                runtime_env={"env_vars": _WORKERS_SEE},
                include_dashboard=False if address == "local" else None,
            )  # fmt: skip
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise _no_cluster(address, reason(error)) from None
    try:
        if quiet:
            for name in ("ray", "ray.data"):
                logging.getLogger(name).setLevel(logging.ERROR)
        yield ray
    except ray.exceptions.RayError as error:
        raise _in_words(error) from error
    finally:
        if ours:
            ray.shutdown()


def _refuse_unreachable(address: str | None) -> None:
    """Raise `UserError` where nobody listens at HOST:PORT: Ray itself tries for many minutes."""
    where = address or os.environ.get("RAY_ADDRESS", "")
    host, _, port = where.rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECTS_WITHIN_S).close()
    except OSError as error:
        raise _no_cluster(where, reason(error)) from None


def _no_cluster(address: str | None, why: str) -> UserError:
    return UserError(
        f"--ray-address {address}: no cluster answers ({why}). Expected HOST:PORT of `ray start "
        "--head`, auto, or local."
    )


def _in_words(error: BaseException) -> CliptuneError:
    """What was raised on a node, if it was ours; else what Ray says of it."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, CliptuneError):
            # Ray hands over a class of its own that is both; what was raised is its cause.
            cause = getattr(inner, "cause", inner)
            return cause if isinstance(cause, CliptuneError) else inner
        inner = getattr(inner, "cause", None) or inner.__cause__
    return ResourceError(
        f"the cluster gave up: {reason(error)} What is written is whole: the same command goes on."
    )
