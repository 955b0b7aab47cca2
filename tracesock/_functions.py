"""The module's functions that make sockets, and those that pass descriptors."""

import os
from array import array

from tracesock import _namespace, _native
from tracesock._stock import GLOBAL_DEFAULT_TIMEOUT, AddressFamily, SocketKind, has_ipv6

TYPE_CHECKING = False  # typing takes milliseconds to import
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from _typeshed import ReadableBuffer

    from tracesock._socketclass import socket

_AF_INET = AddressFamily.AF_INET
_SOCK_STREAM = SocketKind.SOCK_STREAM
_LOCALHOST = "127.0.0.1"
_LOCALHOST_V6 = "::1"


def _option(name: str) -> "Any":
    return getattr(_namespace.public, name, None)


def create_connection(
    address: tuple[str | None, int | str | None] | _native.Address,
    timeout: "Any" = GLOBAL_DEFAULT_TIMEOUT,
    source_address: "Any" = None,
    *,
    all_errors: bool = False,
) -> "socket":
    """Connect to `address`, a pair (host, port), and return the socket.

    Tries each address that the host has, in the resolver's order; an `Address`, of any family, is
    the only one, and nothing is looked up. `timeout` in seconds is for each
    attempt, the default timeout where it is not given; `source_address` is what to bind to first.
    Raises the last attempt's OSError, or with `all_errors` an ExceptionGroup of all of them.
    """
    observer = _namespace.observer
    if observer is None:
        return _connect(address, timeout, source_address, all_errors)
    with observer.connection_setup(_host_and_port(address)) as setup:
        sock = _connect(address, timeout, source_address, all_errors)
        setup.won(sock)
        return sock


def _host_and_port(address: "Any") -> "Any":
    if not isinstance(address, _native.Address):
        return address
    form = address.address
    return form[:2] if isinstance(form, tuple) else (form, None)


def _connect(
    address: tuple[str | None, int | str | None] | _native.Address,
    timeout: "Any",
    source_address: "Any",
    all_errors: bool,
) -> "socket":
    public = _namespace.public
    found: Iterable[Any]
    if isinstance(address, _native.Address):
        found = [(address.family, _SOCK_STREAM, address.proto, "", address)]
    else:
        host, port = address
        found = public.getaddrinfo(host, port, 0, _SOCK_STREAM)
    errors: list[OSError] = []
    for family, kind, proto, _, peer in found:
        sock = None
        try:
            sock = public.socket(family, kind, proto)
            if timeout is not GLOBAL_DEFAULT_TIMEOUT:
                sock.settimeout(timeout)
            if source_address:
                sock.bind(source_address)
            sock.connect(peer)
            # The errors hold this frame, and the frame holds them.
            errors.clear()
            return sock  # type: ignore[no-any-return]
        except OSError as error:
            if not all_errors:
                errors.clear()
            errors.append(error)
            if sock is not None:
                sock.close()
        except BaseException:
            if sock is not None:
                sock.close()
            raise
    if not errors:
        raise OSError("getaddrinfo returns an empty list")
    try:
        if not all_errors:
            raise errors[0]
        raise ExceptionGroup("create_connection failed", errors)
    finally:
        errors.clear()


def has_dualstack_ipv6() -> bool:
    """Whether one AF_INET6 stream socket can serve IPv4 and IPv6 here."""
    if not has_ipv6 or _option("IPPROTO_IPV6") is None or _option("IPV6_V6ONLY") is None:
        return False
    public = _namespace.public
    try:
        with public.socket(public.AF_INET6, _SOCK_STREAM) as sock:
            sock.setsockopt(public.IPPROTO_IPV6, public.IPV6_V6ONLY, 0)
            return not sock.getsockopt(public.IPPROTO_IPV6, public.IPV6_V6ONLY)
    except OSError:
        return False


def create_server(
    address: "Any",
    *,
    family: int = _AF_INET,
    backlog: int | None = None,
    reuse_port: bool = False,
    dualstack_ipv6: bool = False,
) -> "socket":
    """Make a stream socket that is bound to `address` and listens.

    `family` is AF_INET or AF_INET6, `backlog` the length of the accept queue. `reuse_port` sets
    SO_REUSEPORT; `dualstack_ipv6` makes an AF_INET6 socket take IPv4 connections too, which is
    otherwise switched off. Sets SO_REUSEADDR except on Windows and Cygwin. Raises ValueError for
    what the platform cannot do, OSError for the rest; with the address, where bind(2) refused it.
    """
    public = _namespace.public
    if reuse_port and _option("SO_REUSEPORT") is None:
        raise ValueError("SO_REUSEPORT not supported on this platform")
    if dualstack_ipv6:
        if not public.has_dualstack_ipv6():
            raise ValueError("dualstack_ipv6 not supported on this platform")
        if family != public.AF_INET6:
            raise ValueError("dualstack_ipv6 requires AF_INET6 family")
    sock: socket = public.socket(family, _SOCK_STREAM)
    try:
        if os.name not in ("nt", "cygwin") and _option("SO_REUSEADDR") is not None:
            try:
                sock.setsockopt(public.SOL_SOCKET, public.SO_REUSEADDR, 1)
            except OSError:
                pass  # a platform without it: bind() says so, if it matters
        # Other families may have no ports to share: Linux refuses the option for them since 6.12.9.
        if reuse_port and family in (_AF_INET, public.AF_INET6):
            sock.setsockopt(public.SOL_SOCKET, public.SO_REUSEPORT, 1)
        if has_ipv6 and family == public.AF_INET6 and _option("IPV6_V6ONLY") is not None:
            sock.setsockopt(public.IPPROTO_IPV6, public.IPV6_V6ONLY, 0 if dualstack_ipv6 else 1)
        try:
            sock.bind(address)
        except OSError as error:
            message = f"{error.strerror} (while attempting to bind on address {address!r})"
            raise OSError(error.errno, message) from None
        if backlog is None:
            sock.listen()
        else:
            sock.listen(backlog)
        return sock
    except BaseException:
        sock.close()
        raise


def fromfd(fd: int, family: int, type: int, proto: int = 0) -> "socket":
    """A socket over a duplicate of the descriptor `fd`, which stays open and is the caller's."""
    duplicate = _native.dup(fd)
    try:
        return _namespace.public.socket(family, type, proto, duplicate)  # type: ignore[no-any-return]
    except BaseException:
        _native.close(duplicate)
        raise


def socketpair(
    family: int | None = None, type: int = _SOCK_STREAM, proto: int = 0
) -> "tuple[socket, socket]":
    """Two sockets connected to each other, of the family AF_UNIX where none is given."""
    public = _namespace.public
    if family is None:
        family = public.AF_UNIX
    first, second = _native.socketpair(family, type, proto)
    try:
        one = public.socket(family, type, proto, first)
    except BaseException:
        _native.close(first)
        _native.close(second)
        raise
    try:
        return one, public.socket(family, type, proto, second)
    except BaseException:
        one.close()
        _native.close(second)
        raise


def _fallback_socketpair(
    family: int = _AF_INET, type: int = _SOCK_STREAM, proto: int = 0
) -> "tuple[socket, socket]":
    """Two connected TCP sockets, for platforms without socketpair(2)."""
    public = _namespace.public
    if family == _AF_INET:
        host = public._LOCALHOST
    elif family == public.AF_INET6:
        host = public._LOCALHOST_V6
    else:
        raise ValueError("Only AF_INET and AF_INET6 socket address families are supported")
    if type != _SOCK_STREAM:
        raise ValueError("Only SOCK_STREAM socket type is supported")
    if proto != 0:
        raise ValueError("Only protocol zero is supported")
    with public.socket(family, type, proto) as listener:
        listener.bind((host, 0))
        listener.listen()
        client = public.socket(family, type, proto)
        try:
            # Not blocking, because this thread is also the one to accept.
            client.setblocking(False)
            try:
                client.connect(listener.getsockname()[:2])
            except (BlockingIOError, InterruptedError):
                pass
            client.setblocking(True)
            server, _ = listener.accept()
        except BaseException:
            client.close()
            raise
    try:
        # Another program may have been quicker to connect.
        if (
            server.getsockname() != client.getpeername()
            or client.getsockname() != server.getpeername()
        ):
            raise ConnectionError("Unexpected peer connection")
    except BaseException:
        server.close()
        client.close()
        raise
    return server, client


def send_fds(
    sock: "socket",
    buffers: "Iterable[ReadableBuffer]",
    fds: "Iterable[int]",
    flags: int = 0,
    address: "Any" = None,
) -> int:
    """Send the descriptors `fds` over an AF_UNIX socket, with the data of `buffers`.

    Returns the number of bytes sent. `flags` and `address` are taken for compatibility and not
    used, as in the standard library. See unix(7), SCM_RIGHTS.
    """
    public = _namespace.public
    return sock.sendmsg(buffers, [(public.SOL_SOCKET, public.SCM_RIGHTS, array("i", fds))])


def recv_fds(
    sock: "socket", bufsize: int, maxfds: int, flags: int = 0
) -> "tuple[bytes, list[int], int, Any]":
    """Receive up to `maxfds` descriptors over an AF_UNIX socket, with up to `bufsize` bytes.

    Returns (data, descriptors, message flags, address). `flags` is taken for compatibility and not
    used, as in the standard library.
    """
    public = _namespace.public
    fds = array("i")
    data, ancillary, message_flags, address = sock.recvmsg(
        bufsize, _native.CMSG_LEN(maxfds * fds.itemsize)
    )
    for level, kind, payload in ancillary:
        if level == public.SOL_SOCKET and kind == public.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    return data, list(fds), message_flags, address


for _function in (
    create_connection,
    create_server,
    fromfd,
    has_dualstack_ipv6,
    recv_fds,
    send_fds,
    socketpair,
):
    _function.__module__ = "tracesock"  # where they are pickled from
del _function
