"""The whole `socket` module, written anew: `import tracesock as socket`.

Every name of Python 3.14's `socket` is here, on every Python that tracesock supports; the
documentation of the standard library's module is the documentation of this one, and
docs/reference/differences.md lists where the two differ. Beyond it there are `instrument()` and
`uninstrument()`, which turn on what each call has to tell, `install()` and `uninstall()`, which put
tracesock under programs that import `socket`, and `Address`, an address encoded once.
"""

# Here and in what is imported below: nothing from __future__, which is a module to be read like any
# other and takes a thirtieth of the time.
import gc

# A collection in the midst of so many new objects frees nothing, and takes a sixth of the time.
_collecting = gc.isenabled()
gc.disable()
try:
    import _socket  # noqa: F401 - public under this name in the standard library's module
    import errno  # noqa: F401
    import io  # noqa: F401
    import os  # noqa: F401
    import sys
    from enum import IntEnum, IntFlag  # noqa: F401

    from tracesock import _constants, _functions
    from tracesock._functions import (
        _LOCALHOST,  # noqa: F401
        _LOCALHOST_V6,  # noqa: F401
        _fallback_socketpair,  # noqa: F401
        create_connection,
        create_server,
        fromfd,
        getaddrinfo,
        getfqdn,
        gethostbyaddr,
        gethostbyname,
        gethostbyname_ex,
        gethostname,
        getnameinfo,
        getservbyname,
        getservbyport,
        has_dualstack_ipv6,
        recv_fds,
        send_fds,
        sethostname,
        socketpair,
    )
    from tracesock._native import (
        CMSG_LEN,
        CMSG_SPACE,
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
    from tracesock._native import Address as Address
    from tracesock._native import __version__ as __version__
    from tracesock._socketclass import SocketIO as SocketIO
    from tracesock._socketclass import _blocking_errnos, _GiveupOnSendfile, socket  # noqa: F401
    from tracesock._stock import (
        CAPI,
        AddressFamily,
        SocketKind,
        SocketType,
        gaierror,
        has_ipv6,
        herror,
    )
    from tracesock._stock import EAGAIN as EAGAIN
    from tracesock._stock import EBADF as EBADF
    from tracesock._stock import EWOULDBLOCK as EWOULDBLOCK
    from tracesock._stock import GLOBAL_DEFAULT_TIMEOUT as _GLOBAL_DEFAULT_TIMEOUT  # noqa: F401
    from tracesock._stock import AddressInfo as AddressInfo
    from tracesock._stock import MsgFlag as MsgFlag
    from tracesock._stock import intenum_converter as _intenum_converter  # noqa: F401
finally:
    if _collecting:
        # They stay, and join the oldest generation unseen, as at the end of a collection. What a
        # program keeps out of collections is not touched.
        if gc.get_freeze_count() == 0:
            gc.freeze()
            gc.unfreeze()
        gc.enable()
    del gc, _collecting

TYPE_CHECKING = False  # typing takes milliseconds to import
if TYPE_CHECKING:
    from typing import Any

    from tracesock._constants import *  # noqa: F403
else:
    # Half a millisecond less than the statement, for the same.
    globals().update(_constants.names)

error = OSError
timeout = TimeoutError
_functions.public = sys.modules[__name__]


# What is not needed to make a socket is imported when it is called: OpenTelemetry above all. Not by
# a module's __getattr__, with which the interpreter reads every name of the module more slowly.


def instrument(
    tracer_provider: "Any" = None,
    meter_provider: "Any" = None,
    logger_provider: "Any" = None,
    **config: "Any",
) -> None:
    """Record what the sockets of this process do, as OpenTelemetry spans and metrics.

    The first two providers are the global ones where none is given; a `logger_provider` is told
    the open connections every `snapshot_interval`. The other arguments are the fields of
    `tracesock.instrumentation.Config`, each with an environment variable TRACESOCK_ and its name.
    Called again, it replaces the instrumentation before. Raises ConfigError (a ValueError) for a
    setting that is not one, TypeError for an argument that is none.
    """
    from tracesock import instrumentation

    instrumentation.instrument(tracer_provider, meter_provider, logger_provider, **config)


def uninstrument() -> None:
    """Deliver what was recorded, and record nothing more."""
    from tracesock import instrumentation

    instrumentation.uninstrument()


def connections(*, stack: bool = False) -> "list[Any]":
    """Every open socket that telemetry knows: peer, state, age, bytes, RTT, owner trace.

    See `tracesock.instrumentation.connections`.
    """
    from tracesock import instrumentation

    return list(instrumentation.connections(stack=stack))


def install() -> None:
    """Put tracesock in place of the standard library's `socket`, in `ssl` and asyncio as well.

    See `tracesock.dropin.install`.
    """
    from tracesock import dropin

    dropin.install()


def uninstall() -> None:
    """Put the standard library's `socket` back, in every place that `install()` changed."""
    from tracesock import dropin

    dropin.uninstall()


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
