"""Who is told what the native socket cannot see: TLS and asyncio's connection set-up.

OpenSSL reads and writes the descriptor itself, and asyncio's `create_connection` is made of many
calls. What TLS in memory (`ssl.SSLObject`) encrypts goes through a socket, so only its handshake is
told. While an observer is set and tracesock is installed, methods of `ssl.SSLSocket`,
`ssl.SSLObject` and asyncio's loop tell it; without one they are the standard library's own.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    import asyncio
    import socket
    import ssl

    Tls: TypeAlias = ssl.SSLSocket | ssl.SSLObject

_log = logging.getLogger(__name__)


class Observer(Protocol):
    """What is told. A call of it that raises ends the telling, and is logged; it is never seen by
    the program. A token is what `..._started` returned, handed back to `..._ended`."""

    def handshake_started(self, tls: Tls) -> Any:
        """Before the first `do_handshake()` of a connection: for a non-blocking one, it is called
        several times until the handshake has ended."""

    def handshake_ended(self, tls: Tls, token: Any, error: BaseException | None) -> None:
        """After the handshake: `tls.version()`, `cipher()`, `session_reused` and
        `selected_alpn_protocol()` are there where `error` is None."""

    def send_started(
        self, tls: ssl.SSLSocket, call: Literal["send", "sendall", "write"], size: int
    ) -> Any:
        """Before `size` bytes of the application's are encrypted and sent. A `sendall` is told
        once, not for each of its sends."""

    def send_ended(
        self, tls: ssl.SSLSocket, token: Any, size: int, error: BaseException | None
    ) -> None:
        """After it, with the number of bytes taken, which a failed `sendall` has as well. An error
        that says "would block" (`ssl.SSLWantReadError`, `ssl.SSLWantWriteError`) is told, too."""

    def received(self, tls: ssl.SSLSocket, size: int) -> None:
        """After `size` bytes of the application's were received, 0 at the end of the stream."""

    def setup_started(self, loop: asyncio.AbstractEventLoop, host: str, port: Any) -> Any:
        """Before asyncio's `create_connection(host, port)`, in the caller's task."""

    def setup_ended(
        self, token: Any, transport: asyncio.BaseTransport | None, error: BaseException | None
    ) -> None:
        """After it, in the same task; asyncio.CancelledError is an `error`, too."""

    def internal(self, sock: socket.socket) -> None:
        """A socket was made that is a part of an event loop: its own pair for waking up."""


current: Observer | None = None
_listeners: list[Callable[[bool], None]] = []
# For install() as well: it changes what is told, and is told when there is an observer.
lock = threading.RLock()


# A fork waits for another thread's install() or uninstall(): the child would have half of it.


def _before_fork() -> None:
    lock.acquire()


def _after_fork() -> None:
    lock.release()


def _after_fork_in_child() -> None:
    global lock
    lock = threading.RLock()  # the one before may have threads waiting that are not here


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork,
        after_in_child=_after_fork_in_child,
    )


def set_observer(observer: Observer | None) -> None:
    """Tell `observer` from now on instead of the one before; None for nobody."""
    global current
    with lock:
        current = observer
        for listener in list(_listeners):
            listener(observer is not None)


def add_listener(listener: Callable[[bool], None]) -> None:
    """Call `listener` with whether there is an observer: now, and when that changes."""
    with lock:
        _listeners.append(listener)
        listener(current is not None)


def remove_listener(listener: Callable[[bool], None]) -> None:
    """Call it with False, and then no more."""
    with lock:
        if listener in _listeners:
            _listeners.remove(listener)
            listener(False)


def tell(call: str, *arguments: Any) -> Any:
    """The observer's `call(*arguments)`; None where there is no observer or it fails."""
    observer = current
    if observer is None:
        return None
    try:
        return getattr(observer, call)(*arguments)
    except Exception:
        with lock:
            if current is observer:
                _log.exception("the observer's %s() failed; it is told nothing any more", call)
                set_observer(None)
        return None
