"""Calls that raise every documented event, with the stream that a hook sees: JSON on stdout.

Run by test_events.py as `python events_workload.py stock|tracesock|installed`, with one Python
after the other. It must not know which module it runs on.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import tempfile
from typing import Any

kind = sys.argv[1]
if kind == "tracesock":
    import tracesock as socket
elif kind == "installed":
    import tracesock

    tracesock.install()
    import socket  # type: ignore[no-redef]
else:
    import socket  # type: ignore[no-redef]

stream: list[Any] = []
ports: dict[int, str] = {}
refuse = ""


class Refused(Exception):
    """What a hook raises that refuses."""


def shown(value: Any) -> Any:
    """A value with its type; numbers that chance has chosen by the order of their appearance."""
    if isinstance(value, tuple):
        return ["tuple", [shown(item) for item in value]]
    if isinstance(value, socket.socket):
        return ["socket", int(value.family), int(value.type), value.proto, value.fileno() >= 0]
    if type(value) is int and 1024 < value < 65536:
        return ["port", ports.setdefault(value, f"P{len(ports)}")]
    return [type(value).__name__, repr(value).replace(directory, "DIR")]


def hook(event: str, args: tuple[Any, ...]) -> None:
    if not event.startswith("socket."):
        return
    stream.append([event, [shown(arg) for arg in args]])
    # The host name of the machine is not to change, whatever happens.
    if event == "socket.sethostname" or event == refuse:
        raise Refused(event)


def attempt(function: Any, *args: Any, **keywords: Any) -> Any:
    """The call's result; its exception goes into the stream."""
    try:
        return function(*args, **keywords)
    except Exception as error:
        stream.append(["raised", type(error).__name__, getattr(error, "errno", None)])
        return None


def construction() -> None:
    for args in (
        (),
        (socket.AF_INET6,),
        (socket.AF_INET, socket.SOCK_DGRAM),
        (socket.AF_INET, socket.SOCK_STREAM, 6),
        (socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK),
        (int(socket.AF_INET), int(socket.SOCK_DGRAM), 17),
        (12345,),
        (socket.AF_INET, 77),
        ("inet",),
    ):
        sock = attempt(socket.socket, *args)
        if sock is not None:
            sock.close()
    attempt(socket.socket, fileno=-1)
    attempt(socket.socket, fileno=10_000)
    attempt(socket.socket, fileno="x")
    with socket.socket() as sock:
        fd = os.dup(sock.fileno())
        adopted = socket.socket(fileno=fd)
        adopted.close()
        fd = os.dup(sock.fileno())
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fd).close()
        sock.dup().close()
        socket.fromfd(sock.fileno(), socket.AF_INET, socket.SOCK_STREAM).close()

    class Sub(socket.socket):
        def __init__(self) -> None:
            super().__init__(socket.AF_INET, socket.SOCK_DGRAM)

    Sub().close()
    for args in ((), (socket.AF_UNIX, socket.SOCK_DGRAM), (socket.AF_INET,)):
        pair = attempt(socket.socketpair, *args)
        for one in pair or ():
            one.close()


def streams() -> None:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    attempt(listener.bind, ("127.0.0.1", 0))
    listener.listen()
    to = listener.getsockname()
    client = socket.socket()
    client.connect(to)
    attempt(client.connect, to)
    attempt(client.connect_ex, to)
    server, _ = listener.accept()
    server.sendall(b"x")
    client.sendmsg([b"a", b"b"])
    attempt(client.sendmsg, [b"a"], [], 0, None)
    attempt(client.sendmsg, [b"a"], [(1, 2)])
    attempt(client.sendmsg, ["text"])
    server.recv(10)
    client.shutdown(socket.SHUT_RDWR)
    for sock in (client, server):
        sock.close()
    made = socket.create_connection(to)
    made.close()
    made = socket.create_connection(("localhost", to[1]), 5, ("127.0.0.1", 0))
    made.close()
    other = socket.create_server(("127.0.0.1", 0))
    other.close()
    with socket.socket() as sock:
        sock.settimeout(5)
        sock.connect_ex(("127.0.0.1", to[1]))
    with socket.socket() as sock:
        sock.setblocking(False)
        attempt(sock.connect, to)
    listener.close()
    with socket.socket() as sock:
        attempt(sock.connect, to)  # nobody listens any more
    with socket.socket() as sock:
        sock.connect_ex(to)
    attempt(socket.create_connection, to)
    for address in (
        (), ("127.0.0.1",), ("127.0.0.1", 80, 1), ["127.0.0.1", 80], "127.0.0.1", None,
        ("127.0.0.1", "80"), ("127.0.0.1", 65536), ("127.0.0.1", -1), (b"127.0.0.1", 1),
        (bytearray(b"127.0.0.1"), 1), ("a\0b", 1), (None, 1), ("", 1), ("<broadcast>", 1),
        ("127.1", 1), ("0x7f.1", 1), ("2130706433", 1), ("nosuch.invalid", 1), ("ü.invalid", 1),
        ("x" * 300, 1),
    ):  # fmt: skip
        with socket.socket() as sock:
            attempt(sock.connect, address)
            attempt(sock.connect_ex, address)
    for words in ((), (1, 2), (("127.0.0.1", 1), 2)):
        with socket.socket() as sock:
            attempt(sock.connect, *words)
            attempt(sock.bind, *words)
            attempt(sock.connect_ex, *words)
    closed = socket.socket()
    closed.close()
    attempt(closed.connect, ("127.0.0.1", 1))
    attempt(closed.bind, ("127.0.0.1", 0))
    attempt(closed.sendto, b"x", ("127.0.0.1", 1))
    if socket.has_ipv6:
        with socket.socket(socket.AF_INET6) as sock:
            for address in (
                ("::1", 1), ("::1", 1, 0), ("::1", 1, 0, 0), ("::1", 1, 1 << 20), ("::1", 1, 0, 7),
                ("::ffff:127.0.0.1", 1), ("127.0.0.1", 1), ("::1%lo", 1),
            ):  # fmt: skip
                attempt(sock.connect, address)


def datagrams() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as one, socket.socket(type=socket.SOCK_DGRAM) as two:
        one.bind(("127.0.0.1", 0))
        to = one.getsockname()
        two.sendto(b"x", to)
        two.sendto(b"x", 0, to)
        two.sendto(bytearray(b"x"), socket.MSG_DONTWAIT, to)
        two.sendto(memoryview(b"x"), ("localhost", to[1]))
        two.sendmsg([b"x"], [], 0, to)
        two.sendmsg((b"x", memoryview(b"y")), (), 0, ("127.0.0.1", to[1]))
        two.connect(to)
        two.send(b"x")
        two.sendmsg([b"x"])
        for words in (
            (), (b"x",), (b"x", to, 1), ("x", to), (b"x", 0), (b"x", 0, ()), (b"x", ("a",)),
            (b"x", None), (b"x", 0, to, 1), (b"x" * 70_000, to),
        ):  # fmt: skip
            attempt(two.sendto, *words)
        for words in ((), (b"x",), ([b"x"], [], 0, ()), ([b"x"], [], 0, ("a",)), (5,)):
            attempt(two.sendmsg, *words)
    path = os.path.join(directory, "socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        one.bind(path)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as two:
            two.connect(path)
            two.sendto(b"x", path)
            two.sendto(b"x", path.encode())
            attempt(two.sendto, b"x", path + "none")
            attempt(two.connect, "x" * 200)
            attempt(two.connect, b"\0abstract")
            attempt(two.bind, ("a", 1))


def look_ups() -> None:
    for words in (
        ("127.0.0.1", 80), ("localhost", "http"), (None, 80), (b"127.0.0.1", b"80"),
        ("127.0.0.1", None), ("127.0.0.1", 80, socket.AF_INET), ("::1", 80, socket.AF_INET6, 1, 6),
        ("127.0.0.1", 80, 0, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST), ("nosuch.invalid", 80),
        ("127.0.0.1", "nosuch"), ("127.0.0.1", 1.5), (5, 80), ("x" * 100, 1), (), ("a",),
        ("127.0.0.1", 80, "inet"), ("x", 80, 0, 0, 0, socket.AI_NUMERICHOST),
    ):  # fmt: skip
        attempt(socket.getaddrinfo, *words)
    attempt(socket.getaddrinfo, host="127.0.0.1", port=80, type=1)
    attempt(socket.getaddrinfo, "127.0.0.1", 80, flags=4, family=2)
    for words in (
        (("127.0.0.1", 80), 0), (("127.0.0.1", 80), 3), (("::1", 80, 0, 0), 3), (("::1", 80), 3),
        (("localhost", 80), 0), (["127.0.0.1", 80], 0), ((), 0), (("127.0.0.1",), 0),
        (("127.0.0.1", 80),), (("127.0.0.1", 80, 1 << 20), 0), (("127.0.0.1", "x"), 0),
    ):  # fmt: skip
        attempt(socket.getnameinfo, *words)
    for name in ("gethostbyname", "gethostbyname_ex", "gethostbyaddr"):
        function = getattr(socket, name)
        for host in (
            "127.0.0.1", "localhost", b"localhost", bytearray(b"localhost"), "", "nosuch.invalid",
            None, 5, "a\0b", "ü.invalid",
        ):  # fmt: skip
            attempt(function, host)
        attempt(function)
    attempt(socket.gethostname)
    attempt(socket.gethostname, 1)
    attempt(socket.getfqdn)
    attempt(socket.getfqdn, "localhost")
    for words in (
        ("http",),
        ("http", "tcp"),
        ("nosuch",),
        (),
        (5,),
        ("http", None),
        ("a", "b", "c"),
    ):
        attempt(socket.getservbyname, *words)
    for words in ((80,), (80, "tcp"), (1,), (), ("80",), (70_000,), (-1,), (80, None)):
        attempt(socket.getservbyport, *words)
    for words in (("host",), (b"host",), (5,), ()):
        attempt(socket.sethostname, *words)


def refusals() -> None:
    """For each event, the calls that raise it, with a hook that refuses it."""
    global refuse
    one = socket.socket(type=socket.SOCK_DGRAM)
    one.bind(("127.0.0.1", 0))
    to = one.getsockname()
    data = bytearray(b"x")
    vector = bytearray(b"y")
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    stream_to = listener.getsockname()
    fresh = socket.socket()
    spare = socket.socket()
    calls: dict[str, list[Any]] = {
        "socket.__new__": [
            lambda: socket.socket(),
            lambda: one.dup(),
            lambda: socket.fromfd(one.fileno(), socket.AF_INET, socket.SOCK_DGRAM),
            lambda: socket.socketpair(),
            lambda: socket.create_connection(stream_to),
            lambda: socket.create_server(("127.0.0.1", 0)),
        ],
        "socket.bind": [lambda: fresh.bind(("127.0.0.1", 0))],
        "socket.connect": [lambda: fresh.connect(stream_to), lambda: fresh.connect_ex(stream_to)],
        "socket.sendto": [lambda: one.sendto(data, to), lambda: one.sendto(data, 0, to)],
        "socket.sendmsg": [lambda: one.sendmsg([vector], [], 0, to), lambda: one.sendmsg([vector])],
        "socket.getaddrinfo": [
            lambda: socket.getaddrinfo("localhost", 80),
            lambda: socket.create_connection(stream_to),
        ],
        "socket.getnameinfo": [lambda: socket.getnameinfo(("127.0.0.1", 80), 0)],
        "socket.gethostbyname": [
            lambda: socket.gethostbyname("localhost"),
            lambda: socket.gethostbyname_ex("localhost"),
        ],
        "socket.gethostbyaddr": [lambda: socket.gethostbyaddr("127.0.0.1")],
        "socket.gethostname": [lambda: socket.gethostname(), lambda: socket.getfqdn()],
        "socket.getservbyname": [lambda: socket.getservbyname("http")],
        "socket.getservbyport": [lambda: socket.getservbyport(80)],
        "socket.sethostname": [lambda: socket.sethostname("host")],
    }
    fds = len(os.listdir("/proc/self/fd"))

    def check_descriptors(what: str) -> None:
        left = len(os.listdir("/proc/self/fd"))
        assert left == fds or kind == "stock", (what, fds, left)  # CPython leaks some

    for event, functions in calls.items():
        for function in functions:
            refuse = event
            attempt(function)
            refuse = ""
            check_descriptors(event)
    if kind != "stock":
        # Nothing is exported any more, so the arrays may change their size. CPython leaks these.
        data.append(0)
        vector.append(0)
    # The sockets are as they were.
    assert fresh.getsockname() == ("0.0.0.0", 0)
    assert attempt(fresh.getpeername) is None
    fresh.connect(stream_to)
    # A connection that accept() has taken from the queue is closed where its object is refused.
    refuse = "socket.__new__"
    attempt(listener.accept)
    refuse = ""
    check_descriptors("accept")
    one.setblocking(False)
    try:
        one.recv(10)
    except OSError as error:
        assert error.errno == errno.EAGAIN, error  # no datagram was sent
    for sock in (one, listener, fresh, spare):
        sock.close()


with tempfile.TemporaryDirectory() as directory:
    sys.addaudithook(hook)
    for part in (construction, streams, datagrams, look_ups, refusals):
        stream.append(["part", part.__name__])
        part()
json.dump(stream, sys.stdout)
