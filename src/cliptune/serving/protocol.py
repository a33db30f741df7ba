"""HTTP's first bytes: a connection that sends no whole header is not kept waiting for it."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEADER_WITHIN = 10.0  # seconds


class PatientProtocol(HttpToolsProtocol):
    """uvicorn's, which times bodies out by the application and headers not at all."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """As of `asyncio.Protocol`."""
        super().connection_made(transport)
        self._expect_header()

    def connection_lost(self, exc: Exception | None) -> None:
        """As of `asyncio.Protocol`."""
        self._forget()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """The first byte of a request came."""
        super().on_message_begin()
        if self._timer is None:
            self._expect_header()

    def on_headers_complete(self) -> None:
        """Its header is whole."""
        self._forget()
        super().on_headers_complete()

    def _expect_header(self) -> None:
        self._timer = self.loop.call_later(HEADER_WITHIN, self.transport.close)

    def _forget(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
