"""How often and how long: what may pass is tried again, what hangs is given up."""

from __future__ import annotations

import os
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from cliptune.errors import CliptuneError, StorageError, reason

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

T = TypeVar("T")

ATTEMPTS = 4
TIMEOUT_S = 60.0  # for each attempt
# Before the second attempt; twice as long before each further one, by chance up to half less.
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
# Requests of libraries that know no deadline, at one time; each has a thread.
MOST_THREADS = 64

_PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_LASTING = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
_PASSING = (TimeoutError, ConnectionError, EOFError, OSError)
# Classes of libraries that need not be there: what passes, and what lasts.
_PASSING_NAMES = frozenset({
    "ClientConnectionError", "ClientPayloadError", "ServerDisconnectedError",  # aiohttp
    "ConnectionError", "HTTPClientError", "ResponseParserError",  # botocore
    "IncompleteRead",  # urllib3
    "TransportError", "RequestException",  # httpx, requests
    "ServiceRequestError", "ServiceResponseError",  # azure
    "SSHException", "FSTimeoutError",
})  # fmt: skip
_LASTING_NAMES = frozenset({
    "AuthenticationException", "BadHostKeyException", "InvalidURL", "ClientConnectorDNSError",
    "ClientConnectorCertificateError", "NoCredentialsError", "SSLError",
})  # fmt: skip


def patiently(
    work: Callable[[], T], what: str, *, attempts: int = ATTEMPTS, pause_s: float | None = None
) -> T:
    """`work()`, tried again while it fails by what may pass, `attempts` times in all.

    Raises `StorageError`: `what` names the object, with why and how often it was tried. What is
    cliptune's own to say passes as it is.
    """
    pause_s = FIRST_PAUSE_S if pause_s is None else pause_s
    for attempt in range(1, attempts + 1):
        try:
            return work()
        except CliptuneError:
            raise
        except Exception as error:  # whichever library, whichever way a network can fail
            if attempt == attempts or not passes(error):
                raise _told(error, what, attempt) from error
        pause = min(LONGEST_PAUSE_S, pause_s * 2 ** (attempt - 1))
        time.sleep(pause * random.uniform(0.5, 1))
    raise AssertionError("attempts is 1 or more")


def passes(error: BaseException) -> bool:
    """Whether `error` may pass: a timeout, a broken connection, a server that is overloaded."""
    if (status := status_of(error)) is not None:
        return status in _PASSING_STATUS
    for each in _causes(error):
        names = {kind.__name__ for kind in type(each).__mro__}
        if names & _LASTING_NAMES:
            return False
        if names & _PASSING_NAMES:
            return True
    return isinstance(error, _PASSING) and not isinstance(error, _LASTING)


def is_missing(error: BaseException) -> bool:
    """Whether `error` says that nothing is there."""
    return status_of(error) in (404, 410) or (
        isinstance(error, FileNotFoundError) and not passes(error)
    )


def _told(error: BaseException, what: str, attempts: int) -> StorageError:
    missing = is_missing(error)
    if missing:
        why = "nothing is there"
    elif isinstance(error, TimeoutError) or "Timeout" in type(error).__name__:
        why = "it did not answer in time"
    elif status_of(error) in (401, 403) or isinstance(error, PermissionError):
        why = f"access is denied ({reason(error, limit=200)})"
    else:
        status = status_of(error)
        why = reason(error, limit=200)
        if status is not None and str(status) not in why:
            why += f" (status {status})"
    tried = f", after {attempts} attempts" if attempts > 1 else ""
    return StorageError(what, f"{why}{tried}", missing=missing)


def _causes(error: BaseException) -> Iterator[BaseException]:
    each: BaseException | None = error
    while each is not None:
        yield each
        each = each.__cause__


def status_of(error: BaseException) -> int | None:
    """The status of HTTP that `error`, or what it was raised from, was answered with."""
    for each in _causes(error):
        response: Any = getattr(each, "response", None)
        if isinstance(response, dict):  # botocore's
            found = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        else:
            found = getattr(response, "status_code", None)
        for candidate in (found, *(getattr(each, n, None) for n in ("status", "status_code"))):
            if isinstance(candidate, int) and 100 <= candidate < 600:
                return candidate
    return None


class Lent:
    """File systems that take one thread at a time, each lent to one request, and threads for them.

    One for each process: connections do not survive a fork.
    """

    def __init__(self) -> None:
        self._idle: dict[str, list[AbstractFileSystem]] = defaultdict(list)
        self._lock = threading.Lock()
        self._room = threading.BoundedSemaphore(MOST_THREADS)

    def call(
        self,
        key: str,
        make: Callable[[], AbstractFileSystem],
        work: Callable[[AbstractFileSystem], T],
        timeout_s: float,
    ) -> T:
        """`work` on an idle file system of `key`, or one that `make` makes, within `timeout_s`.

        Raises `TimeoutError` when time is up: the connection is closed, by which a thread that
        waits for it ends, too. At most `MOST_THREADS` are at work.
        """
        if not self._room.acquire(timeout=timeout_s):
            raise TimeoutError
        used: list[AbstractFileSystem] = []
        answer: Future[T] = Future()

        def run() -> None:
            try:
                with self._lock:
                    idle = self._idle[key].pop() if self._idle[key] else None
                used.append(make() if idle is None else idle)
                answer.set_result(work(used[0]))
            except BaseException as error:
                answer.set_exception(error)
            finally:
                self._room.release()

        threading.Thread(target=run, daemon=True, name="cliptune-storage").start()
        sound = False
        try:
            result = answer.result(timeout_s)
            sound = True
        except _LASTING:
            sound = True
            raise
        finally:
            if sound:
                with self._lock:
                    self._idle[key] += used
            else:
                _close(used)
        return result


def _close(used: list[AbstractFileSystem]) -> None:
    for each in used:
        if client := getattr(each, "client", None):  # paramiko's
            with suppress(Exception):
                client.close()


_LENT: dict[int, Lent] = {}


def lent() -> Lent:
    """That of this process."""
    return _LENT.setdefault(os.getpid(), Lent())
