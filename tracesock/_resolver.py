"""The module's look-up functions. Each reads its arguments, raises its audit event, then works.

Reading the arguments is left to the extension, whose errors for a wrong number or type of them are
the running interpreter's own. All that a look-up needs is copied before the event: a hook that
refuses leaves nothing behind.
"""

from sys import audit

from tracesock import _namespace, _native
from tracesock._stock import family_enum, kind_enum

TYPE_CHECKING = False  # typing takes milliseconds to import
if TYPE_CHECKING:
    from collections.abc import Callable
    from os import PathLike
    from socket import AddressFamily, SocketKind
    from typing import Any, TypeAlias

    AddressInfo: TypeAlias = tuple[AddressFamily | int, SocketKind | int, int, str, tuple[Any, ...]]
    HostEntry: TypeAlias = tuple[str, list[str], list[str]]


def _run(lookup: "Any") -> "Any":
    observer = _namespace.observer
    return lookup.run() if observer is None else observer.look_up(lookup)


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
        for family, kind, number, canonical, address in _run(lookup)
    ]


def _function(prepare: "Any", event: str, doc: str) -> "Any":
    """The function that is named as `prepare` is, in its three steps."""

    def look_up(*arguments: "Any", **keywords: "Any") -> "Any":
        try:
            lookup = prepare(*arguments, **keywords)
        finally:
            # A traceback keeps this frame, which would keep the caller's objects.
            del arguments, keywords
        audit(event, *lookup.arguments)
        return _run(lookup)

    look_up.__name__ = look_up.__qualname__ = prepare.__name__
    look_up.__doc__ = doc
    look_up.__module__ = "tracesock"
    return _native.builtin(look_up)


getnameinfo: "Callable[[tuple[Any, ...], int], tuple[str, str]]" = _function(
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

gethostbyname: "Callable[[str | bytes | bytearray], str]" = _function(
    _native.gethostbyname,
    "socket.gethostbyname",
    """gethostbyname(hostname) -> address

    The first IPv4 address of `hostname` (str, bytes or bytearray); '' is the wildcard address.

    Raises gaierror where there is none, UnicodeError for a name that IDNA cannot encode, TypeError
    for one with a NUL, and the audit event `socket.gethostbyname` with hostname.
    """,
)

gethostbyname_ex: "Callable[[str | bytes | bytearray], HostEntry]" = _function(
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

gethostbyaddr: "Callable[[str | bytes | bytearray], HostEntry]" = _function(
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

gethostname: "Callable[[], str]" = _function(
    _native.gethostname,
    "socket.gethostname",
    """gethostname() -> name

    The machine's host name, str. Raises the audit event `socket.gethostname`. See gethostname(2).
    """,
)

sethostname: "Callable[[str | bytes | PathLike[str]], None]" = _function(
    _native.sethostname,
    "socket.sethostname",
    """sethostname(name) -> None

    Sets the machine's host name (str, bytes or path-like). Raises OSError without the privilege,
    and the audit event `socket.sethostname` with name as bytes. See sethostname(2).
    """,
)

getservbyname: "Callable[..., int]" = _function(
    _native.getservbyname,
    "socket.getservbyname",
    """getservbyname(servicename[, protocolname]) -> port

    The port of an Internet service; `protocolname` is 'tcp' or 'udp', any where it is not given.

    Raises OSError where there is none, and the audit event `socket.getservbyname` with
    servicename, protocolname (None where it is not given). See getservbyname(3).
    """,
)

getservbyport: "Callable[..., str]" = _function(
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
    public = _namespace.public
    name = name.strip()
    if not name or name in ("0.0.0.0", "::"):
        name = public.gethostname()
    try:
        primary, aliases, _ = public.gethostbyaddr(name)
    except OSError:
        return name
    full: str = next((each for each in [primary, *aliases] if "." in each), primary)
    return full
