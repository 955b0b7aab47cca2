"""The module's functions: those that make sockets, that pass descriptors and that look names up.

A look-up reads its arguments, raises its audit event, then works. Reading them is left to the
extension, whose errors for a wrong number or type of them are the running interpreter's own. All
that a look-up needs is copied before the event: a hook that refuses leaves nothing behind.
"""

import os
from array import array
from sys import audit

from tracesock import _native
from tracesock._stock import (
    GLOBAL_DEFAULT_TIMEOUT,
    AddressFamily,
    SocketKind,
    family_enum,
    kind_enum,
)

TYPE_CHECKING = False  # typing takes milliseconds to import
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from os import PathLike
    from typing import Any, TypeAlias

    from _typeshed import ReadableBuffer

    from tracesock._socketclass import socket

    AddressInfo: TypeAlias = tuple[AddressFamily | int, SocketKind | int, int, str, tuple[Any, ...]]
    HostEntry: TypeAlias = tuple[str, list[str], list[str]]

# The module in whose names the functions and accept() look other names up: a program that replaces
# `socket.socket` or `socket.getaddrinfo` means the calls inside create_connection() as well. It is
# the tracesock package, or the standard library's `socket` while tracesock is installed there.
public: "Any" = None

# Who is told about connection set-ups; None while telemetry is off.
observer: "Any" = None

_AF_INET = AddressFamily.AF_INET
_SOCK_STREAM = SocketKind.SOCK_STREAM
_LOCALHOST = "127.0.0.1"
_LOCALHOST_V6 = "::1"


def _option(name: str) -> "Any":
    return getattr(public, name, None)


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
    told = observer
    if told is None:
        return _connect(address, timeout, source_address, all_errors)
    setup = told.start_setup(_host_and_port(address))
    if setup is None:
        return _connect(address, timeout, source_address, all_errors)
    try:
        sock: socket = setup.run(_connect, address, timeout, source_address, all_errors)
    except BaseException as error:
        told.end_setup(setup, None, error)
        raise
    told.end_setup(setup, sock, None)
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
    names = public
    found: Iterable[Any]
    if isinstance(address, _native.Address):
        found = [(address.family, _SOCK_STREAM, address.proto, "", address)]
    else:
        host, port = address
        found = names.getaddrinfo(host, port, 0, _SOCK_STREAM)
    errors: list[OSError] = []
    for family, kind, proto, _, peer in found:
        sock = None
        try:
            sock = names.socket(family, kind, proto)
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
    names = public
    if not names.has_ipv6 or _option("IPPROTO_IPV6") is None or _option("IPV6_V6ONLY") is None:
        return False
    try:
        with names.socket(names.AF_INET6, _SOCK_STREAM) as sock:
            sock.setsockopt(names.IPPROTO_IPV6, names.IPV6_V6ONLY, 0)
            return not sock.getsockopt(names.IPPROTO_IPV6, names.IPV6_V6ONLY)
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
    names = public
    if reuse_port and _option("SO_REUSEPORT") is None:
        raise ValueError("SO_REUSEPORT not supported on this platform")
    if dualstack_ipv6:
        if not names.has_dualstack_ipv6():
            raise ValueError("dualstack_ipv6 not supported on this platform")
        if family != names.AF_INET6:
            raise ValueError("dualstack_ipv6 requires AF_INET6 family")
    sock: socket = names.socket(family, _SOCK_STREAM)
    try:
        if os.name not in ("nt", "cygwin") and _option("SO_REUSEADDR") is not None:
            try:
                sock.setsockopt(names.SOL_SOCKET, names.SO_REUSEADDR, 1)
            except OSError:
                pass  # a platform without it: bind() says so, if it matters
        # Other families may have no ports to share: Linux refuses the option for them since 6.12.9.
        if reuse_port and family in (_AF_INET, names.AF_INET6):
            sock.setsockopt(names.SOL_SOCKET, names.SO_REUSEPORT, 1)
        if names.has_ipv6 and family == names.AF_INET6 and _option("IPV6_V6ONLY") is not None:
            sock.setsockopt(names.IPPROTO_IPV6, names.IPV6_V6ONLY, 0 if dualstack_ipv6 else 1)
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
    names = public
    duplicate = names.dup(fd)
    try:
        return names.socket(family, type, proto, duplicate)  # type: ignore[no-any-return]
    except BaseException:
        _native.close(duplicate)
        raise


def socketpair(
    family: int | None = None, type: int = _SOCK_STREAM, proto: int = 0
) -> "tuple[socket, socket]":
    """Two sockets connected to each other, of the family AF_UNIX where none is given."""
    names = public
    if family is None:
        family = names.AF_UNIX
    first, second = _native.socketpair(family, type, proto)
    try:
        one = names.socket(family, type, proto, first)
    except BaseException:
        _native.close(first)
        _native.close(second)
        raise
    try:
        return one, names.socket(family, type, proto, second)
    except BaseException:
        one.close()
        _native.close(second)
        raise


def _fallback_socketpair(
    family: int = _AF_INET, type: int = _SOCK_STREAM, proto: int = 0
) -> "tuple[socket, socket]":
    """Two connected TCP sockets, for platforms without socketpair(2)."""
    names = public
    if family == _AF_INET:
        host = names._LOCALHOST
    elif family == names.AF_INET6:
        host = names._LOCALHOST_V6
    else:
        raise ValueError("Only AF_INET and AF_INET6 socket address families are supported")
    if type != _SOCK_STREAM:
        raise ValueError("Only SOCK_STREAM socket type is supported")
    if proto != 0:
        raise ValueError("Only protocol zero is supported")
    with names.socket(family, type, proto) as listener:
        listener.bind((host, 0))
        listener.listen()
        client = names.socket(family, type, proto)
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
    names = public
    return sock.sendmsg(buffers, [(names.SOL_SOCKET, names.SCM_RIGHTS, array("i", fds))])


def recv_fds(
    sock: "socket", bufsize: int, maxfds: int, flags: int = 0
) -> "tuple[bytes, list[int], int, Any]":
    """Receive up to `maxfds` descriptors over an AF_UNIX socket, with up to `bufsize` bytes.

    Returns (data, descriptors, message flags, address). `flags` is taken for compatibility and not
    used, as in the standard library.
    """
    names = public
    fds = array("i")
    data, ancillary, message_flags, address = sock.recvmsg(
        bufsize, _native.CMSG_LEN(maxfds * fds.itemsize)
    )
    for level, kind, payload in ancillary:
        if level == names.SOL_SOCKET and kind == names.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    return data, list(fds), message_flags, address


# --- look-ups -----------------------------------------------------------------------------------


def getaddrinfo(
    host: bytes | str | None,
    port: bytes | str | int | None,
    family: int = 0,
    type: int = 0,
    proto: int = 0,
    flags: int = 0,
) -> "list[AddressInfo]":
    """Resolve host and port into a list of (family, type, proto, canonname, sockaddr).

    `host` is a name (in IDNA form where it is not ASCII), an address as text, or None for the
    wildcard or loopback address; `port` a number, a service name or None. `family` (AF_*), `type`
    (SOCK_*) and `proto` (IPPROTO_*) narrow the list, 0 is any; `flags` are AI_* values. `canonname`
    is '' without AI_CANONNAME; `sockaddr` is (address, port), for IPv6 followed by flowinfo and
    scope_id.

    Raises gaierror where nothing is found, UnicodeError for a name that IDNA cannot encode,
    ValueError for a NUL in host or port, and the audit event `socket.getaddrinfo` with host, port,
    family, type, protocol. See getaddrinfo(3), RFC 3493 section 6.1.
    """
    lookup = _native.getaddrinfo(host, port, family, type, proto, flags)
    audit("socket.getaddrinfo", *lookup.arguments)
    return [
        (family_enum(family), kind_enum(kind), number, canonical, address)
        for family, kind, number, canonical, address in lookup.run()
    ]


def _look_up_function(prepare: "Any", event: str, doc: str) -> "Any":
    """The function that is named as `prepare` is, in its three steps."""

    def look_up(*arguments: "Any", **keywords: "Any") -> "Any":
        try:
            lookup = prepare(*arguments, **keywords)
        finally:
            # A traceback keeps this frame, which would keep the caller's objects.
            del arguments, keywords
        audit(event, *lookup.arguments)
        return lookup.run()

    look_up.__name__ = look_up.__qualname__ = prepare.__name__
    look_up.__doc__ = doc
    look_up.__module__ = "tracesock"
    return _native.builtin(look_up)


getnameinfo: "Callable[[tuple[Any, ...], int], tuple[str, str]]" = _look_up_function(
    _native.getnameinfo,
    "socket.getnameinfo",
    """getnameinfo(sockaddr, flags) -> (host, port)

    `sockaddr` is (address, port) or (address, port, flowinfo, scope_id) with a numeric address;
    `flags` are NI_* values, which choose between names and numbers. Host and port are str.

    Raises gaierror where the name or service is not found, OSError for a malformed address,
    OverflowError for a flowinfo above 1048575, and the audit event `socket.getnameinfo` with
    sockaddr. See getnameinfo(3), RFC 3493 section 6.2.
    """,
)

gethostbyname: "Callable[[str | bytes | bytearray], str]" = _look_up_function(
    _native.gethostbyname,
    "socket.gethostbyname",
    """gethostbyname(hostname) -> address

    The first IPv4 address of `hostname` (str, bytes or bytearray); '' is the wildcard address.

    Raises gaierror where there is none, UnicodeError for a name that IDNA cannot encode, TypeError
    for one with a NUL, and the audit event `socket.gethostbyname` with hostname.
    """,
)

gethostbyname_ex: "Callable[[str | bytes | bytearray], HostEntry]" = _look_up_function(
    _native.gethostbyname_ex,
    "socket.gethostbyname",
    """gethostbyname_ex(hostname) -> (name, aliases, addresses)

    The primary name, the other names and the IPv4 addresses of `hostname` (str, bytes or
    bytearray).

    Raises gaierror or herror where it is not found, UnicodeError for a name that IDNA cannot
    encode, TypeError for one with a NUL, and the audit event `socket.gethostbyname` with hostname.
    See gethostbyname(3).
    """,
)

gethostbyaddr: "Callable[[str | bytes | bytearray], HostEntry]" = _look_up_function(
    _native.gethostbyaddr,
    "socket.gethostbyaddr",
    """gethostbyaddr(ip_address) -> (name, aliases, addresses)

    The primary name, the other names and the addresses of the host that has `ip_address`, an IPv4
    or IPv6 address or a name (str, bytes or bytearray).

    Raises herror where the address has no name, gaierror where a name has no address, UnicodeError
    and TypeError as gethostbyname() does, and the audit event `socket.gethostbyaddr` with
    ip_address. See gethostbyaddr(3).
    """,
)

gethostname: "Callable[[], str]" = _look_up_function(
    _native.gethostname,
    "socket.gethostname",
    """gethostname() -> name

    The machine's host name, str. Raises the audit event `socket.gethostname`. See gethostname(2).
    """,
)

sethostname: "Callable[[str | bytes | PathLike[str]], None]" = _look_up_function(
    _native.sethostname,
    "socket.sethostname",
    """sethostname(name) -> None

    Sets the machine's host name (str, bytes or path-like). Raises OSError without the privilege,
    and the audit event `socket.sethostname` with name as bytes. See sethostname(2).
    """,
)

getservbyname: "Callable[..., int]" = _look_up_function(
    _native.getservbyname,
    "socket.getservbyname",
    """getservbyname(servicename[, protocolname]) -> port

    The port of an Internet service; `protocolname` is 'tcp' or 'udp', any where it is not given.

    Raises OSError where there is none, and the audit event `socket.getservbyname` with
    servicename, protocolname (None where it is not given). See getservbyname(3).
    """,
)

getservbyport: "Callable[..., str]" = _look_up_function(
    _native.getservbyport,
    "socket.getservbyport",
    """getservbyport(port[, protocolname]) -> servicename

    The name of the Internet service at a port (0 to 65535); `protocolname` is 'tcp' or 'udp', any
    where it is not given.

    Raises OSError where there is none, OverflowError for a port out of range, and the audit event
    `socket.getservbyport` with port, protocolname (None where not given). See getservbyport(3).
    """,
)


def getfqdn(name: str = "") -> str:
    """Return the fully qualified domain name of `name`, '' being the local host.

    The first of the name and aliases of gethostbyaddr() that has a dot; else its name, or `name`
    where it is not found (gethostname() where that is '', '0.0.0.0' or '::'). Never raises
    herror or gaierror.
    """
    names = public
    name = name.strip()
    if not name or name in ("0.0.0.0", "::"):
        name = names.gethostname()
    try:
        primary, aliases, _ = names.gethostbyaddr(name)
    except OSError:
        return name
    full: str = next((each for each in [primary, *aliases] if "." in each), primary)
    return full


for _each in (
    create_connection,
    create_server,
    fromfd,
    getaddrinfo,
    getfqdn,
    has_dualstack_ipv6,
    recv_fds,
    send_fds,
    socketpair,
):
    _each.__module__ = "tracesock"  # where they are pickled from
del _each
