"""The whole `socket` module, written anew: `import tracesock as socket`.

Every name of Python 3.14's `socket` is here, on every Python that tracesock supports; the
documentation of the standard library's module is the documentation of this one, and
docs/reference/differences.md lists where the two differ. Beyond it there are `instrument()` and
`uninstrument()`, which turn on what each call has to tell, `install()` and `uninstall()`, which put
tracesock under programs that import `socket`, and `Address`, an address encoded once.
"""

from __future__ import annotations

import _socket  # noqa: F401 - public under this name in the standard library's module
import errno  # noqa: F401
import io  # noqa: F401
import os  # noqa: F401
import sys
from enum import IntEnum, IntFlag  # noqa: F401

from tracesock import _constants, _namespace
from tracesock._constants import *  # noqa: F403
from tracesock._enums import AddressFamily, AddressInfo, MsgFlag, SocketKind
from tracesock._functions import (
    _LOCALHOST,
    _LOCALHOST_V6,
    _fallback_socketpair,
    create_connection,
    create_server,
    fromfd,
    has_dualstack_ipv6,
    recv_fds,
    send_fds,
    socketpair,
)
from tracesock._native import (
    CMSG_LEN,
    CMSG_SPACE,
    Address,
    close,
    dup,
    getdefaulttimeout,
    getprotobyname,
    htonl,
    htons,
    if_indextoname,
    if_nameindex,
    if_nametoindex,
    inet_aton,
    inet_ntoa,
    inet_ntop,
    inet_pton,
    ntohl,
    ntohs,
    setdefaulttimeout,
)
from tracesock._native import __version__ as __version__
from tracesock._resolver import (
    getaddrinfo,
    getfqdn,
    gethostbyaddr,
    gethostbyname,
    gethostbyname_ex,
    gethostname,
    getnameinfo,
    getservbyname,
    getservbyport,
    sethostname,
)
from tracesock._socketclass import _GiveupOnSendfile, socket
from tracesock._socketio import SocketIO, _blocking_errnos
from tracesock._stock import CAPI, EAGAIN, EBADF, EWOULDBLOCK, SocketType, gaierror, has_ipv6, herror
from tracesock._stock import GLOBAL_DEFAULT_TIMEOUT as _GLOBAL_DEFAULT_TIMEOUT

TYPE_CHECKING = False  # typing takes milliseconds to import
if TYPE_CHECKING:
    from typing import Any
    from tracesock.dropin import install, uninstall
    from tracesock.instrumentation import instrument, uninstrument

error = OSError
timeout = TimeoutError
_namespace.public = sys.modules[__name__]

# What is not needed to make a socket is imported when it is asked for: OpenTelemetry above all.
_LAZY = {
    "install": "tracesock.dropin",
    "uninstall": "tracesock.dropin",
    "instrument": "tracesock.instrumentation",
    "uninstrument": "tracesock.instrumentation",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        value = globals()[name] = getattr(import_module(_LAZY[name]), name)
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# The names of the standard library's module, in whose __all__ SocketIO, MsgFlag, AddressInfo and
# the three error numbers have never been, and ours.
__all__ = [
    "AddressFamily",
    "CAPI",
    "CMSG_LEN",
    "CMSG_SPACE",
    "SocketKind",
    "SocketType",
    "close",
    "create_connection",
    "create_server",
    "dup",
    "error",
    "fromfd",
    "gaierror",
    "getaddrinfo",
    "getdefaulttimeout",
    "getfqdn",
    "gethostbyaddr",
    "gethostbyname",
    "gethostbyname_ex",
    "gethostname",
    "getnameinfo",
    "getprotobyname",
    "getservbyname",
    "getservbyport",
    "has_dualstack_ipv6",
    "has_ipv6",
    "herror",
    "htonl",
    "htons",
    "if_indextoname",
    "if_nameindex",
    "if_nametoindex",
    "inet_aton",
    "inet_ntoa",
    "inet_ntop",
    "inet_pton",
    "ntohl",
    "ntohs",
    "recv_fds",
    "send_fds",
    "setdefaulttimeout",
    "sethostname",
    "socket",
    "socketpair",
    "timeout",
]
__all__ += _constants.__all__
