"""Each request counted and, on demand, told in a line of JSON."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Container
from datetime import UTC, datetime

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cliptune.serving.metrics import Metrics


class Observed:
    """`app`, watched. Paths that are none of `paths` are counted as one: anybody can make more."""

    def __init__(
        self, app: ASGIApp, *, metrics: Metrics, paths: Container[str], lines: bool
    ) -> None:
        self._app, self._metrics, self._paths, self._lines = app, metrics, paths, lines

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI asks."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 499  # where the client left before an answer began

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            seconds = time.perf_counter() - started
            path = scope["path"] if scope["path"] in self._paths else "other"
            self._metrics.request(path, status, seconds)
            if self._lines:
                self._tell(scope, path, status, seconds)

    def _tell(self, scope: Scope, path: str, status: int, seconds: float) -> None:
        client = scope.get("client") or (None,)
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "client": client[0],
            "method": scope["method"],
            "path": path,
            "status": status,
            "seconds": round(seconds, 4),
            "photos": scope.get("state", {}).get("photos", 0),
            "bytes": scope.get("state", {}).get("bytes", 0),
        }
        print(json.dumps(line), file=sys.stdout, flush=True)
