"""The raw stream over a socket that `makefile()` builds on."""

from __future__ import annotations

import io

from tracesock._stock import EAGAIN, EWOULDBLOCK

TYPE_CHECKING = False  # typing takes milliseconds to import
if TYPE_CHECKING:
    from typing import Any

    from _typeshed import ReadableBuffer, WriteableBuffer

    from tracesock._socketclass import socket

_blocking_errnos = {EAGAIN, EWOULDBLOCK}
_CLOSED = "I/O operation on closed socket."
_RawIOBase = io.RawIOBase  # called by name: a stream is made for each answer of http.client


class SocketIO(io.RawIOBase):
    """Raw I/O over a stream socket.

    `mode` is one of r, w, rw, rb, wb and rwb. The socket stays open for as long as one of its
    streams does. Raises ValueError for another mode.
    """

    def __init__(self, sock: socket, mode: str) -> None:
        if mode not in ("r", "w", "rw", "rb", "wb", "rwb"):
            raise ValueError(f"invalid mode: {mode!r}")
        _RawIOBase.__init__(self)
        self._sock: Any = sock  # None once the stream is closed
        self._mode = mode if "b" in mode else mode + "b"
        self._reading = "r" in mode
        self._writing = "w" in mode
        self._timeout_occurred = False

    def readinto(self, buffer: WriteableBuffer, /) -> int | None:
        """Read into `buffer`: the number of bytes, 0 at the end of the stream, None where a
        non-blocking socket has none.

        After a timeout the stream's position is unknown, so each later read raises OSError.
        """
        self._checkClosed()
        self._checkReadable()
        if self._timeout_occurred:
            raise OSError("cannot read from timed out object")
        try:
            return self._sock.recv_into(buffer)  # type: ignore[no-any-return]
        except TimeoutError:
            self._timeout_occurred = True
            raise
        except OSError as error:
            if error.errno in _blocking_errnos:
                return None
            raise

    def write(self, data: ReadableBuffer, /) -> int | None:
        """Send `data`: the number of bytes taken, None where a non-blocking socket took none."""
        self._checkClosed()
        self._checkWritable()
        try:
            return self._sock.send(data)  # type: ignore[no-any-return]
        except OSError as error:
            if error.errno in _blocking_errnos:
                return None
            raise

    def readable(self) -> bool:
        """Whether the stream was opened for reading; ValueError when it is closed."""
        if self.closed:
            raise ValueError(_CLOSED)
        return self._reading

    def writable(self) -> bool:
        """Whether the stream was opened for writing; ValueError when it is closed."""
        if self.closed:
            raise ValueError(_CLOSED)
        return self._writing

    def seekable(self) -> bool:
        """False; ValueError when the stream is closed."""
        if self.closed:
            raise ValueError(_CLOSED)
        return super().seekable()

    def fileno(self) -> int:
        """The socket's descriptor."""
        self._checkClosed()
        return self._sock.fileno()  # type: ignore[no-any-return]

    @property
    def name(self) -> int:
        """The descriptor, -1 when the stream is closed."""
        return -1 if self.closed else self.fileno()

    @property
    def mode(self) -> str:
        """The mode, in its binary form."""
        return self._mode

    def close(self) -> None:
        """Close the stream, and the socket with it where that was waiting for its last stream."""
        if self.closed:
            return
        _RawIOBase.close(self)
        sock, self._sock = self._sock, None
        sock._decref_socketios()

    if TYPE_CHECKING:  # C methods of io.RawIOBase that its stub does not list

        def _checkClosed(self) -> None: ...
        def _checkReadable(self) -> None: ...
        def _checkWritable(self) -> None: ...


SocketIO.__module__ = "socket"
