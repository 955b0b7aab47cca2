"""uvicorn's HTTP protocol, with bounds on what a peer may keep the dashboard waiting for.

uvicorn bounds the pause between two requests and how many are answered at a time. Bounded here are
a head that arrives byte by byte or never, a body that goes on after its answer, an answer that
nobody reads (a transport that is closed waits for that as well), and the connections: one too many
ends the one that has waited longest for a request, so those who wait shut out nobody else.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

# Seconds from a connection's first moment, or from a request's first byte, to the end of the head.
HEAD_TIMEOUT = 10.0
# Seconds from an answer to the end of the body that it did not wait for.
BODY_TIMEOUT = 10.0
# Seconds in which a peer must have read some of what waits for it, and, of an HTTP answer, all.
STALL_TIMEOUT = 20.0
ANSWER_TIMEOUT = 120.0
# HTTP connections and web sockets together. uvicorn's `limit_concurrency` is above it.
MAX_CONNECTIONS = 448
_BYTES_ACKED: Final = struct.Struct("=Q")


class BoundedProtocol(H11Protocol):
    """Closes a connection whose peer does not send its request, or does not read its answer."""

    _head_timer: asyncio.TimerHandle | None = None
    _body_timer: asyncio.TimerHandle | None = None
    _waits_since = 0.0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._waits_since = self.loop.time()
        _ReadingWatch(self)
        self._bound_head()
        if len(self.connections) > MAX_CONNECTIONS:
            self._make_room()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._waits_for_head():
            self._bound_head()
        else:
            self._forget_head_timer()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._waits_since = self.loop.time()
        # Part of the next head may have come while this answer was on its way.
        if self._waits_for_head() and self.conn.trailing_data[0]:
            self._bound_head()
        elif self.conn.their_state is h11.SEND_BODY and self._body_timer is None:
            self._body_timer = self.loop.call_later(BODY_TIMEOUT, self._body_too_slow, self.cycle)

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_head_timer()
        if self._body_timer is not None:
            self._body_timer.cancel()
        super().connection_lost(exc)

    def _make_room(self) -> None:
        waiting = [
            other
            for other in self.connections
            if isinstance(other, BoundedProtocol)
            and other is not self
            and other._waits_for_head()
            and not other.transport.is_closing()
        ]
        (min(waiting, key=lambda p: p._waits_since) if waiting else self).transport.abort()

    def _waits_for_head(self) -> bool:
        return self.conn.their_state is h11.IDLE

    def _bound_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT, self._head_too_slow)

    def _forget_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_too_slow(self) -> None:
        self._head_timer = None
        if self._waits_for_head() and not self.transport.is_closing():
            self.transport.close()

    def _body_too_slow(self, answered: Any) -> None:
        self._body_timer = None
        if self.cycle is answered and self.conn.their_state is h11.SEND_BODY:
            self.transport.abort()


class _ReadingWatch:
    """Aborts a connection whose peer reads nothing. It also holds when a web socket takes over."""

    def __init__(self, protocol: BoundedProtocol) -> None:
        self._http = protocol
        self._transport = protocol.transport
        self._loop = protocol.loop
        self._seen = (0, 0)
        self._began = self._progress = self._loop.time()
        self._again()

    def _again(self) -> None:
        self._loop.call_later(min(1.0, STALL_TIMEOUT / 4), self._look)

    def _look(self) -> None:
        transport, now = self._transport, self._loop.time()
        size = transport.get_write_buffer_size()
        if not size:
            if transport.is_closing():
                return
            self._began = self._progress = now
            self._again()
            return
        seen = (size, _acknowledged(transport.get_extra_info("socket")))
        if seen != self._seen:
            self._seen, self._progress = seen, now
        is_http = transport.get_protocol() is self._http
        if now - self._progress > STALL_TIMEOUT or (is_http and now - self._began > ANSWER_TIMEOUT):
            transport.abort()
        else:
            self._again()


def _acknowledged(sock: Any) -> int:
    """The bytes that the peer has acknowledged (tcp_info of Linux 4.1), 0 where it is not told."""
    if sock is None or not hasattr(socket, "TCP_INFO"):
        return 0
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED.size + 120)
        return int(_BYTES_ACKED.unpack_from(info, 120)[0])
    except (OSError, struct.error):
        return 0
