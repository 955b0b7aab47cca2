"""What a program that looks at the module sees."""

from __future__ import annotations

import inspect
import pickle
import socket as stock
import types
from collections.abc import Iterator
from typing import Any

from tests.behaviours import attempt, behaviour, shown

FUNCTIONS = [
    name
    for name in dir(stock)
    if not name.startswith("__")
    and isinstance(getattr(stock, name), (types.FunctionType, types.BuiltinFunctionType))
]
METHODS = [name for name in dir(stock.socket) if callable(getattr(stock.socket, name))]
OWN = [name for name in METHODS if not name.startswith("__")]
# docs/reference/differences.md: methods of what is no socket.
DIFFERENT = {
    "bind",
    "connect",
    "connect_ex",
    "recv",
    "recv_into",
    "recvfrom",
    "recvfrom_into",
    "send",
    "sendall",
    "sendto",
}


@behaviour
def public_names(socket: Any) -> Iterator[object]:
    for name in stock.__all__:
        yield name, hasattr(socket, name), name in socket.__all__
    for name in vars(stock):
        if not name.startswith("__") and not isinstance(getattr(stock, name), types.ModuleType):
            yield name, hasattr(socket, name)


@behaviour
def values(socket: Any) -> Iterator[object]:
    for name, value in vars(stock).items():
        if not name.startswith("__") and isinstance(value, (int, str, bytes, float, bool)):
            yield (
                name,
                getattr(socket, name),
                shown(getattr(socket, name)),
                str(getattr(socket, name)),
            )


@behaviour
def names_of_functions(socket: Any) -> Iterator[object]:
    for name in FUNCTIONS:
        function = getattr(socket, name)
        yield name, function.__name__, function.__qualname__, callable(function)
        yield name.startswith("_") or bool(function.__doc__)


@behaviour
def functions_in_a_class(socket: Any) -> Iterator[object]:
    """A built-in function in a class is no method; one of Python is."""
    for name in FUNCTIONS:
        holder = type("Holder", (), {"call": getattr(socket, name)})()
        yield name, hasattr(holder.call, "__self__") and holder.call.__self__ is holder


@behaviour
def signatures_of_functions(socket: Any) -> Iterator[object]:
    for name in FUNCTIONS:
        if isinstance(getattr(stock, name), types.FunctionType):
            found = inspect.signature(getattr(socket, name))
            yield (
                name,
                [
                    (each.name, each.kind.name, shown(each.default))
                    for each in found.parameters.values()
                ],
            )
    for name in OWN:
        if isinstance(getattr(stock.socket, name), types.FunctionType):
            found = inspect.signature(getattr(socket.socket, name))
            yield (
                name,
                [
                    (each.name, each.kind.name, shown(each.default))
                    for each in found.parameters.values()
                ][: 7 if name != "_real_close" else 1],
            )
    found = inspect.signature(socket.socket)
    yield [(each.name, each.kind.name, each.default) for each in found.parameters.values()]
    found = inspect.signature(socket.SocketIO)
    yield [(each.name, each.kind.name) for each in found.parameters.values()]


@behaviour
def methods(socket: Any) -> Iterator[object]:
    for name in OWN:
        method = getattr(socket.socket, name)
        yield name, method.__name__, method.__qualname__
    with socket.socket() as sock:
        for name in OWN:
            method = getattr(sock, name)
            yield name, method.__name__, method.__qualname__, method.__self__ is sock
            yield name, method == getattr(sock, name), hash(method) == hash(getattr(sock, name))


@behaviour
def unbound_methods(socket: Any) -> Iterator[object]:
    for name in OWN:
        if (
            isinstance(getattr(stock.socket, name), types.MethodDescriptorType)
            and name not in DIFFERENT
        ):
            yield name, attempt(getattr(socket.socket, name))
            yield name, attempt(getattr(socket.socket, name), 5)
            yield name, attempt(getattr(socket.socket, name), object(), 5)


@behaviour
def pickled_functions(socket: Any) -> Iterator[object]:
    for name in FUNCTIONS:
        function = getattr(socket, name)
        yield name, pickle.loads(pickle.dumps(function)) is function


@behaviour
def wrong_numbers_of_arguments(socket: Any) -> Iterator[object]:
    with socket.socket() as sock:
        for name in OWN:
            if name in ("_fileno", "close", "detach", "_real_close", "_decref_socketios"):
                continue
            method = getattr(sock, name)
            yield name, attempt(method, 1, 2, 3, 4, 5, 6, 7, 8)
            yield name, attempt(method, *[None] * 7)
            if name not in ("send", "sendall", "sendto", "recv", "recvfrom"):
                yield name, attempt(method, nonsense=1)
                yield name, attempt(method, 1, nonsense=1)
        for name in ("send", "sendall", "sendto", "recv", "recvfrom"):
            yield name, attempt(lambda name=name: eval(f"sock.{name}(x=1)", {"sock": sock}))
            yield name, attempt(lambda name=name: eval(f"sock.{name}(1, x=1)", {"sock": sock}))
        for name in (
            "accept",
            "_accept",
            "bind",
            "connect",
            "connect_ex",
            "dup",
            "get_inheritable",
            "getsockopt",
            "makefile",
            "recv",
            "recv_into",
            "recvfrom",
            "recvfrom_into",
            "recvmsg",
            "recvmsg_into",
            "send",
            "sendall",
            "sendfile",
            "sendmsg",
            "sendto",
            "set_inheritable",
            "setblocking",
            "setsockopt",
            "settimeout",
            "shutdown",
            "sendmsg_afalg",
        ):
            if name not in ("accept", "_accept", "makefile", "dup", "get_inheritable"):
                yield name, attempt(getattr(sock, name))
            yield name, attempt(getattr(sock, name), 1, 2, 3, 4, 5)
        for name in (
            "close",
            "detach",
            "fileno",
            "getblocking",
            "getpeername",
            "getsockname",
            "gettimeout",
        ):
            yield name, attempt(getattr(sock, name), 1)
            yield name, attempt(getattr(sock, name), x=1)


@behaviour
def enumerations(socket: Any) -> Iterator[object]:
    for name in ("AddressFamily", "SocketKind", "MsgFlag", "AddressInfo"):
        enumeration = getattr(socket, name)
        yield enumeration.__module__, enumeration.__qualname__, enumeration.__mro__[1]
        yield [(each.name, each.value) for each in enumeration]
        yield shown(enumeration)
        for value in (0, 1, 2, 999, -1, "AF_INET", None):
            yield name, value, attempt(lambda e=enumeration, v=value: shown(e(v)))
    yield shown(socket.AF_INET), str(socket.AF_INET), f"{socket.AF_INET:03}"
    yield shown(socket.MSG_PEEK | socket.MSG_OOB), type(socket.MSG_PEEK | socket.MSG_OOB)
    yield shown(socket.AI_CANONNAME | 0x10000)
    yield attempt(setattr, socket.AF_INET, "value", 3)


@behaviour
def private_names(socket: Any) -> Iterator[object]:
    yield socket._GLOBAL_DEFAULT_TIMEOUT is stock._GLOBAL_DEFAULT_TIMEOUT
    yield issubclass(socket._GiveupOnSendfile, Exception), socket._GiveupOnSendfile.__name__
    yield socket._blocking_errnos, socket._LOCALHOST, socket._LOCALHOST_V6
    yield type(socket.CAPI).__name__, shown(socket.CAPI)
    yield socket.has_ipv6, type(socket.has_ipv6)
    yield socket.EBADF, socket.EAGAIN, socket.EWOULDBLOCK
    yield socket.SocketIO.__module__, socket.SocketIO.__qualname__, socket.SocketIO.__mro__[1]
    yield [
        name
        for name in ("io", "os", "sys", "errno", "IntEnum", "IntFlag", "_socket")
        if not hasattr(socket, name)
    ]
    yield (
        socket._intenum_converter(2, socket.AddressFamily),
        socket._intenum_converter(99, socket.AddressFamily),
    )
