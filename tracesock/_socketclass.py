"""The `socket` class: what Python programs hold, over the native socket; and the raw stream over it
that its `makefile()` builds on."""

import io
import os
import sys
from sys import audit

from tracesock import _functions, _native
from tracesock._native import Address, Socket
from tracesock._stock import EAGAIN, EWOULDBLOCK, family_enum, kind_enum

TYPE_CHECKING = False  # typing takes milliseconds to import
if TYPE_CHECKING:
    from collections.abc import Callable
    from socket import AddressFamily, SocketKind
    from typing import IO, Any, NoReturn, Self, SupportsIndex

    from _typeshed import ReadableBuffer, WriteableBuffer

_AF_INET = 2
_SOCK_STREAM = 1
_LARGEST_SENDFILE = 2**30  # bytes a call; sendfile(2) takes a little less than 2 GiB
_SEND_BLOCK = 8192  # bytes read from a file that sendfile(2) cannot take


_initialise = Socket.__init__


def _told(address: "Any") -> "Any":
    """What audit hooks are told: an Address in the form that every hook knows how to read."""
    return address.address if address.__class__ is Address else address


_blocking_errnos = {EAGAIN, EWOULDBLOCK}
_CLOSED = "I/O operation on closed socket."
_RawIOBase = io.RawIOBase  # called by name: a stream is made for each answer of http.client


class SocketIO(io.RawIOBase):
    """Raw I/O over a stream socket.

    `mode` is one of r, w, rw, rb, wb and rwb. The socket stays open for as long as one of its
    streams does. Raises ValueError for another mode.
    """

    def __init__(self, sock: "socket", mode: str) -> None:
        if mode not in ("r", "w", "rw", "rb", "wb", "rwb"):
            raise ValueError(f"invalid mode: {mode!r}")
        _RawIOBase.__init__(self)
        self._sock: Any = sock  # None once the stream is closed
        self._mode = mode if "b" in mode else mode + "b"
        self._reading = "r" in mode
        self._writing = "w" in mode
        self._timeout_occurred = False

    def readinto(self, buffer: "WriteableBuffer", /) -> int | None:
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

    def write(self, data: "ReadableBuffer", /) -> int | None:
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


class _GiveupOnSendfile(Exception):
    """sendfile(2) cannot serve this file: send() does."""


class socket(Socket):
    """socket(family=AF_INET, type=SOCK_STREAM, proto=0, fileno=None) -> socket object

    A socket of the address family `family` (AF_INET, AF_UNIX …), of the type `type` (SOCK_STREAM,
    SOCK_DGRAM …) and protocol number `proto`, over a new descriptor or the one that `fileno`
    names; then whatever of the others is not given is read from the descriptor. Not inheritable.

    Raises OSError when the system refuses, ValueError for a negative `fileno`, and the audit event
    `socket.__new__` with self, family, type, protocol. See socket(2) and the section "Socket
    Objects" of the `socket` module's documentation.
    """

    __module__ = "socket"
    __slots__ = ("__weakref__",)

    # What a call of the class itself does natively: for subclasses, and for unusual arguments.
    def __init__(
        self, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None
    ) -> None:
        if fileno is None:
            if family == -1:
                family = _AF_INET
            if type == -1:
                type = _SOCK_STREAM
            if proto == -1:
                proto = 0
        _initialise(self, family, type, proto, fileno)
        self._io_refs = 0
        self._closed = False

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, *exc_info: object) -> None:
        if not self._closed:
            self.close()

    def __repr__(self) -> str:
        cls = self.__class__
        closed = " [closed]" if getattr(self, "_closed", False) else ""
        parts = [
            f"<{cls.__module__}.{cls.__qualname__}{closed} fd={self.fileno()}"
            f", family={self.family!s}, type={self.type!s}, proto={self.proto}"
        ]
        if not closed:
            for label, name in (("laddr", self.getsockname), ("raddr", self.getpeername)):
                try:
                    address = name()
                except (OSError, AttributeError):
                    continue
                if address:
                    parts.append(f", {label}={address}")
        return "".join(parts) + ">"

    def __getstate__(self) -> "NoReturn":
        raise TypeError(f"cannot pickle {self.__class__.__name__!r} object")

    def __reduce_ex__(self, protocol: "SupportsIndex", /) -> "Any":
        # Only multiprocessing can send a descriptor, and knows only the class that it registered.
        caller = sys._getframe(1).f_globals.get("__name__")
        if self.__class__ is socket and caller == "multiprocessing.reduction":
            return _rebuild, sys.modules[caller]._reduce_socket(self)
        return super().__reduce_ex__(protocol)

    # --- addresses: encoded, told to the audit hooks, then used -------------------------------

    if TYPE_CHECKING:

        def bind(self, address: "Any", /) -> None: ...

    else:

        def bind(self, *address, **names):
            """bind(address)

            Bind to a local address, in the form of the socket's family. See bind(2).
            """
            prepared = self._prepare("bind", address, names)
            audit("socket.bind", self, _told(*address))
            Socket.bind(self, prepared)

    def accept(self) -> "tuple[socket, Any]":
        """accept() -> (socket object, address)

        Wait for a connection: a new socket for it, and the peer's address. It has the default
        timeout; without one it is blocking, whatever the listening socket is. See accept(2).
        """
        return self._accept_as(_functions.public.socket)

    def _accept_by(self, accept: "Callable[[], tuple[int, Any]]") -> "tuple[socket, Any]":
        """For `_accept_as()`, with what a program has put in the place of `_accept()`."""
        names = _functions.public
        fd, address = accept()
        try:
            sock = names.socket(self.family, self.type, self.proto, fileno=fd)
        except BaseException:
            _native.close(fd)
            raise
        if names.getdefaulttimeout() is None and self.gettimeout():
            sock.setblocking(True)
        return sock, address

    def dup(self) -> "Self":
        """dup() -> socket object

        A socket of the same class over a duplicate of the descriptor, not inheritable.
        """
        fd = _functions.public.dup(self.fileno())
        try:
            sock = self.__class__(self.family, self.type, self.proto, fileno=fd)
        except BaseException:
            _native.close(fd)
            raise
        sock.settimeout(self.gettimeout())
        return sock

    # --- streams ------------------------------------------------------------------------------

    def makefile(
        self,
        mode: str = "r",
        buffering: int | None = None,
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> SocketIO | io.BufferedRWPair | io.BufferedReader | io.BufferedWriter | io.TextIOWrapper:
        """makefile(mode='r', buffering=None, *, encoding=None, errors=None, newline=None) -> stream

        An I/O stream over the socket, as the built-in open() makes one; `mode` is made of r, w and
        b. The socket must be blocking. It stays open until its streams are closed as well. Raises
        ValueError for another mode and for unbuffered text.
        """
        if not set(mode) <= {"r", "w", "b"}:
            raise ValueError(f"invalid mode {mode!r} (only r, w, b allowed)")
        writing = "w" in mode
        reading = "r" in mode or not writing
        binary = "b" in mode
        raw: SocketIO = _functions.public.SocketIO(
            self, ("r" if reading else "") + ("w" if writing else "")
        )
        try:
            self._stream_begins()
        except AttributeError:  # another class that has borrowed this method
            self._io_refs += 1
        if buffering is None or buffering < 0:
            buffering = io.DEFAULT_BUFFER_SIZE
        if buffering == 0:
            if not binary:
                raise ValueError("unbuffered streams must be binary")
            return raw
        buffer: io.BufferedRWPair | io.BufferedReader | io.BufferedWriter
        if reading and writing:
            buffer = io.BufferedRWPair(raw, raw, buffering)
        elif reading:
            buffer = io.BufferedReader(raw, buffering)
        else:
            buffer = io.BufferedWriter(raw, buffering)
        if binary:
            return buffer
        wrapped: Any = buffer
        text = io.TextIOWrapper(wrapped, io.text_encoding(encoding), errors, newline)
        text.mode = mode  # type: ignore[misc]
        return text

    def sendfile(self, file: "IO[bytes]", offset: int = 0, count: int | None = None) -> int:
        """sendfile(file[, offset[, count]]) -> sent

        Send a file, opened in binary mode, from `offset` to its end or for `count` bytes: the
        number of bytes sent. Uses sendfile(2), and send() for what is not a regular file. The
        file's position is moved to the end of what was sent, after an error too. Only for stream
        sockets, and not for non-blocking ones (ValueError).
        """
        try:
            return self._sendfile_use_sendfile(file, offset, count)
        except _GiveupOnSendfile:
            return self._sendfile_use_send(file, offset, count)

    def _sendfile_use_sendfile(
        self, file: "IO[bytes]", offset: int = 0, count: int | None = None
    ) -> int:
        self._check_sendfile_params(file, offset, count)
        try:
            fileno = file.fileno()
        except (AttributeError, io.UnsupportedOperation) as error:
            raise _GiveupOnSendfile(error) from None
        try:
            size = os.fstat(fileno).st_size
        except OSError as error:
            raise _GiveupOnSendfile(error) from None
        if not size:
            return 0
        if self.gettimeout() == 0:
            raise ValueError("non-blocking sockets are not supported")
        if self.fileno() < 0:
            raise ValueError(f"Invalid file descriptor: {self.fileno()}")
        limit = min(count or size, _LARGEST_SENDFILE)
        total = 0
        try:
            while not count or total < count:
                try:
                    sent = self._sendfile(
                        fileno, offset, min(count - total, limit) if count else limit
                    )
                except TimeoutError:
                    raise
                except OSError as error:
                    if total == 0:
                        raise _GiveupOnSendfile(error) from None
                    raise
                if sent == 0:
                    break
                offset += sent
                total += sent
            return total
        finally:
            if total > 0 and hasattr(file, "seek"):
                file.seek(offset)

    def _sendfile_use_send(
        self, file: "IO[bytes]", offset: int = 0, count: int | None = None
    ) -> int:
        self._check_sendfile_params(file, offset, count)
        if self.gettimeout() == 0:
            raise ValueError("non-blocking sockets are not supported")
        if offset:
            file.seek(offset)
        send, read = self.send, file.read
        total = 0
        try:
            while not count or total < count:
                data = memoryview(read(min(count - total, _SEND_BLOCK) if count else _SEND_BLOCK))
                if not data:
                    break
                while data:
                    try:
                        sent = send(data)
                    except BlockingIOError:
                        continue
                    total += sent
                    data = data[sent:]
            return total
        finally:
            if total > 0 and hasattr(file, "seek"):
                file.seek(offset + total)

    def _check_sendfile_params(self, file: "IO[bytes]", offset: int, count: int | None) -> None:
        if "b" not in getattr(file, "mode", "b"):
            raise ValueError("file should be opened in binary mode")
        if not self.type & _SOCK_STREAM:
            raise ValueError("only SOCK_STREAM type sockets are supported")
        if count is not None:
            if not isinstance(count, int):
                raise TypeError(f"count must be a positive integer (got {count!r})")
            if count <= 0:
                raise ValueError(f"count must be a positive integer (got {count!r})")

    # --- ending -------------------------------------------------------------------------------

    def _decref_socketios(self) -> None:
        try:
            due = self._stream_ends()
        except AttributeError:  # as in makefile()
            if self._io_refs > 0:
                self._io_refs -= 1
            due = self._closed
        if due:
            self.close()

    # The default is bound here because a finalizer may run when the module's globals are gone. In
    # the class, where annotations are read late, `type` is the property.
    def _real_close(self, _base: "type[Socket]" = Socket) -> None:
        _base.close(self)

    def close(self) -> None:
        """close()

        Close the socket once its streams are closed, too. Later operations raise OSError.
        """
        try:
            due = self._may_close()
        except AttributeError:  # as in makefile()
            self._closed = True
            due = self._io_refs <= 0
        if due:
            self._real_close()

    def detach(self) -> int:
        """detach() -> file descriptor

        Close the object without closing the descriptor, which is returned; -1 when it was closed.
        """
        self._closed = True
        return super().detach()

    # --- attributes ---------------------------------------------------------------------------

    @property
    def family(self) -> "AddressFamily | int":
        """The address family."""
        return family_enum(super().family)

    @property
    def type(self) -> "SocketKind | int":
        """The socket type, without the flags SOCK_NONBLOCK and SOCK_CLOEXEC."""
        return kind_enum(super().type)

    def get_inheritable(self) -> bool:
        """Whether a child process that executes another program inherits the descriptor."""
        return os.get_inheritable(self.fileno())

    def set_inheritable(self, inheritable: bool) -> None:
        """Set whether a child process that executes another program inherits the descriptor."""
        os.set_inheritable(self.fileno(), inheritable)


def _rebuild(rebuild: "Any", arguments: "tuple[Any, ...]") -> socket:
    """The socket that another process has sent with multiprocessing."""
    sent = rebuild(*arguments)
    family, kind, proto, fd = sent.family, sent.type, sent.proto, sent.detach()
    try:
        return socket(family, kind, proto, fileno=fd)
    except BaseException:
        _native.close(fd)
        raise


# As the stock class has it; two of them are the native type's.
socket.__slots__ = ["__weakref__", "_io_refs", "_closed"]  # type: ignore[assignment]
_native.bind_class(socket)
