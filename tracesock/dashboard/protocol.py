"""uvicorn's HTTP protocol, with a bound on how long a request's head may take.

uvicorn bounds the pause between two requests, not the time of a head that arrives byte by byte or
never. Connections are bounded too (`limit_concurrency`): those who wait would shut out all others.
"""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

# Seconds from a connection's first moment, or from a request's first byte, to the end of the head.
HEAD_TIMEOUT = 10.0


class BoundedProtocol(H11Protocol):
    """Closes a connection whose request has not said within HEAD_TIMEOUT what it wants."""

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._bound_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._waits_for_head():
            self._bound_head()
        else:
            self._forget_timer()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # Part of the next head may have come while this answer was on its way.
        if self._waits_for_head() and self.conn.trailing_data[0]:
            self._bound_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_timer()
        super().connection_lost(exc)

    def _waits_for_head(self) -> bool:
        return self.conn.their_state is h11.IDLE

    def _bound_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT, self._too_slow)

    def _forget_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _too_slow(self) -> None:
        self._head_timer = None
        if self._waits_for_head() and not self.transport.is_closing():
            self.transport.close()
