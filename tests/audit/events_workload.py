"""Calls that raise every documented event, with the stream that a hook sees: JSON on stdout.

Run by test_events.py as `python events_workload.py stock|tracesock|installed`, with one Python
after the other. It must not know which module it runs on.
"""

from __future__ import annotations

import _socket
import errno
import itertools
import json
import os
import re
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
names = itertools.count()
refuse = ""
refuse_after = 0


ADDRESS = re.compile("at 0x[0-9a-f]+")


class Refused(Exception):
    """What a hook raises that refuses."""


def shown(value: Any) -> Any:
    """A value with its type; a port that chance has chosen by the name that `local` gave it."""
    if isinstance(value, tuple):
        return ["tuple", [shown(item) for item in value]]
    if isinstance(value, _socket.socket):
        return ["socket", int(value.family), int(value.type), value.proto, value.fileno() >= 0]
    if type(value) is int and 1024 < value < 65536:
        return ["port", ports.get(value, value)]
    return [type(value).__name__, ADDRESS.sub("at", repr(value).replace(directory, "DIR"))]


def local(sock: Any) -> Any:
    """The socket's own address, whose port has a new name: the kernel may give one twice."""
    address = sock.getsockname()
    ports[address[1]] = f"P{next(names)}"
    return address


def unheard() -> Any:
    """A socket whose port nobody listens to, nor can connect from, while it is open."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    return sock


def hook(event: str, args: tuple[Any, ...]) -> None:
    if not event.startswith("socket."):
        return
    stream.append([event, [shown(arg) for arg in args]])
    # The host name of the machine is not to change, whatever happens.
    if event == "socket.sethostname" or event == refuse:
        raise Refused(event)
    global refuse_after
    if refuse_after:
        refuse_after -= 1
        if not refuse_after:
            raise Refused(event)


def attempt(function: Any, *args: Any, **keywords: Any) -> Any:
    """The call's result; its exception goes into the stream."""
    try:
        return function(*args, **keywords)
    except Exception as error:
        number = getattr(error, "errno", None)
        if isinstance(error, socket.gaierror) and number == socket.EAI_AGAIN:
            number = socket.EAI_NONAME  # the name server's answer was lost
        if isinstance(error, socket.herror):
            number = None  # CPython's is that of an earlier look-up, whose answer may be lost
        stream.append(["raised", type(error).__name__, number])
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
    to = local(listener)
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
    with unheard() as refusing:
        to = local(refusing)
        with socket.socket() as sock:
            attempt(sock.connect, to)
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
        to = local(one)
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
    to = local(one)
    data = bytearray(b"x")
    vector = bytearray(b"y")
    # A port of UDP may be one of TCP as well: one of two is another.
    listener, same = unheard(), unheard()
    if listener.getsockname()[1] == to[1]:
        listener, same = same, listener
    listener.listen()
    stream_to = local(listener)
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
    for sock in (one, listener, same, fresh, spare):
        sock.close()


def accepted() -> None:
    """What comes of accept, dup, fromfd and the helpers, for subclasses too."""
    global refuse

    class Sub(socket.socket):
        made: list[Any] = []  # noqa: RUF012

        def __init__(self, *args: Any, **keywords: Any) -> None:
            super().__init__(*args, **keywords)
            self.made.append(self.fileno() >= 0)

        def connect(self, address: Any) -> None:
            super().connect(address)

    listener = Sub(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    to = local(listener)
    client = Sub()
    client.connect(to)
    server, _ = listener.accept()
    fd, _ = socket.socket._accept(listener) if connected_again(to) else (-1, None)
    os.close(fd)
    copies = [client.dup(), listener.dup(), server.dup()]
    copies.append(socket.fromfd(client.fileno(), client.family, client.type, client.proto))
    copies.append(socket.socket(fileno=os.dup(server.fileno())))
    copies.append(Sub(fileno=os.dup(server.fileno())))
    copies.append(Sub(-1, -1, -1, os.dup(server.fileno())))
    for copy in copies:
        copy.send(b"x") if copy.getsockname() != to else None
        copy.close()
    with client.makefile("wb") as file:
        file.write(b"y")
    client.set_inheritable(True)
    client.__init__(socket.AF_INET, socket.SOCK_DGRAM)  # type: ignore[misc]
    client.sendto(b"x", to)
    # What is refused, by the system or by a hook, leaves the socket as it was.
    attempt(client.__init__, socket.AF_INET, 77)  # type: ignore[misc]
    stream.append(["kept", client.fileno() >= 0, client.sendto(b"x", to)])
    client.__init__(fileno=client.fileno())  # type: ignore[misc]
    stream.append(["kept", client.fileno() >= 0, client.sendto(b"x", to)])
    for sock in (client, server):
        refuse = "socket.__new__"
        attempt(sock.__init__)  # type: ignore[misc]
        refuse = ""
        stream.append(["kept", sock.fileno() >= 0, int(sock.type), sock.sendto(b"x", to)])
    for sock in (client, server, listener):
        sock.close()
    # Unix streams, with descriptors sent along.
    path = os.path.join(directory, "stream")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        with socket.socket(socket.AF_UNIX) as one:
            one.settimeout(5)
            one.connect(path)
            other, _ = listening.accept()
            attempt(socket.send_fds, one, [b"x"], [one.fileno()])
            _, fds, _, _ = socket.recv_fds(other, 10, 1)
            for fd in fds:
                socket.socket(fileno=fd).close()
            other.close()
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pair[0].sendmsg([b"a"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, b"")])
    attempt(pair[0].sendmsg, [b"a"], [("x", 1, b"")])
    for sock in pair:
        sock.close()


def connected_again(to: Any) -> bool:
    with socket.socket() as sock:
        sock.connect(to)
    return True


def helpers() -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as listener:
        to = local(listener)
        for keywords in ({}, {"timeout": 5.0}, {"source_address": ("127.0.0.1", 0)}):
            socket.create_connection(to, **keywords).close()  # type: ignore[arg-type]
        attempt(socket.create_connection, to, 5, ("192.0.2.1", 0))
        attempt(socket.create_connection, to, 5, "wrong")
        attempt(socket.create_connection, to, -1)
        attempt(socket.create_connection, to, "soon")
        attempt(socket.create_server, to)
    with unheard() as refusing:
        to = local(refusing)
        attempt(socket.create_connection, to, all_errors=True)
        attempt(socket.create_connection, ("localhost", to[1]), all_errors=True)
        for default in (None, 5.0, 0.0):
            socket.setdefaulttimeout(default)
            with socket.socket() as sock:
                attempt(sock.connect, to)
        socket.setdefaulttimeout(None)
    attempt(socket.create_connection, ("nosuch.invalid", 80))
    attempt(socket.create_connection, "host")
    attempt(socket.create_server, ("nosuch.invalid", 0))
    attempt(socket.create_server, ("127.0.0.1", 0), family=77)
    attempt(socket.has_dualstack_ipv6)
    if socket.has_ipv6:
        for dual in (False, True):
            made = attempt(
                socket.create_server, ("", 0), family=socket.AF_INET6, dualstack_ipv6=dual
            )
            if made is not None:
                made.close()
    for name in ("", "0.0.0.0", "127.0.0.1", "localhost", "nosuch.invalid", "::1"):
        attempt(socket.getfqdn, name)


def families() -> None:
    """Addresses of other families: parsed, told, and mostly refused by the system."""
    get = vars(_socket).get  # not what tracesock has beyond it
    for family, kind, protocol, addresses in (
        ("AF_NETLINK", socket.SOCK_RAW, 0, ((0, 0), (0, 1), (1,), ("a", 0), (0, 1 << 40))),
        ("AF_PACKET", socket.SOCK_RAW, 0, (("lo", 0), ("nosuch", 0), ("lo",), ("lo", 0, 0, 0))),
        ("AF_ALG", socket.SOCK_SEQPACKET, 0, (("hash", "sha256"), ("hash",), ("x" * 99, "y"))),
        ("AF_VSOCK", socket.SOCK_STREAM, 0, ((1, 9), (1,), (1, "x"), (1 << 40, 1))),
        ("AF_TIPC", socket.SOCK_STREAM, 0, ((1, 2, 3, 4), (9, 2, 3, 4), (1,))),
        ("AF_CAN", socket.SOCK_RAW, 1, (("nosuch",), ("",), (5,))),
        ("AF_QIPCRTR", socket.SOCK_DGRAM, 0, ((1, 2), (1,))),
        ("AF_BLUETOOTH", socket.SOCK_STREAM, 3, (("00:00:00:00:00:00", 1), ("x", 1))),
        ("AF_INET", socket.SOCK_RAW, 255, (("127.0.0.1", 0), ("127.0.0.1",))),
        ("AF_UNIX", socket.SOCK_STREAM, 0, ("", b"", b"\0", "a\0b", "\udcff", "x" * 107, 5)),
    ):
        if get(family) is None:
            continue
        sock = attempt(socket.socket, get(family), kind, protocol)
        if sock is None:
            continue
        sock.setblocking(False)
        for address in addresses:
            attempt(sock.bind, address)
            attempt(sock.connect, address)
            attempt(sock.connect_ex, address)
            attempt(sock.sendto, b"x", address)
            attempt(sock.sendmsg, [b"x"], [], 0, address)
        sock.close()


def awkward() -> None:
    """Arguments that do things while they are read."""

    class Number:
        def __index__(self) -> int:
            return 9

        def __repr__(self) -> str:
            return "Number()"

    class Text(str):
        pass

    class Pair(tuple):
        pass

    class Raising:
        def __index__(self) -> int:
            raise KeyError("index")

        def __repr__(self) -> str:
            return "Raising()"

    class Data(bytearray):
        pass

    one = socket.socket(type=socket.SOCK_DGRAM)
    for address in (
        ("127.0.0.1", Number()), (Text("127.0.0.1"), 9), Pair(("127.0.0.1", 9)),
        ("127.0.0.1", Raising()), ("127.0.0.1", True), ("127.0.0.1", 9.0), ("127.0.0.1", None),
        (memoryview(b"127.0.0.1"), 9), ("\udcff", 9), ("127.0.0.1\n", 9), (".", 9), ("a..b", 9),
        ("*", 9), ("255.255.255.255", 9), ("1.2.3.4.5", 9), ("0x7f000001", 9), ("0177.1", 9),
        ("127.0.0.1", -(1 << 70)), ("127.0.0.1", 1 << 70), {}, {"127.0.0.1": 9}, 9, b"127.0.0.1",
    ):  # fmt: skip
        attempt(one.sendto, b"x", address)
        attempt(one.sendto, b"x", 0, address)
        attempt(one.sendmsg, [b"x"], [], 0, address)
        attempt(one.connect, address)
        attempt(one.connect_ex, address)
        attempt(one.bind, address)
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as six:
            attempt(six.sendto, b"x", address)
    for data in (Data(b"x"), memoryview(b"xy")[::2], b"", [b"x"], 5, None, memoryview(b"")):
        attempt(one.sendto, data, ("127.0.0.1", 9))
    for parts in ([], (), [b"x"] * 2000, [Data(b"x")], iter([b"x"]), (b for b in (b"x",)), b"x"):
        attempt(one.sendmsg, parts, [], 0, ("127.0.0.1", 9))
    for flags in (Number(), Raising(), "x", 1 << 70, -1):
        attempt(one.sendto, b"x", flags, ("127.0.0.1", 9))
        attempt(one.sendmsg, [b"x"], [], flags, ("127.0.0.1", 9))
    attempt(one.connect, address=("127.0.0.1", 9))
    attempt(one.bind, address=("127.0.0.1", 9))
    attempt(one.sendto, b"x", address=("127.0.0.1", 9))
    one.detach()
    attempt(one.connect, ("127.0.0.1", 9))
    attempt(one.sendto, b"x", ("127.0.0.1", 9))
    attempt(one.sendmsg, [b"x"])
    for args in ((None,), (2, None), (2, 1, None), (2, 1, 0, "x"), (Number(), Number())):
        sock = attempt(socket.socket, *args)
        if sock is not None:
            sock.close()
    bare = socket.socket.__new__(socket.socket)
    attempt(bare.connect, ("127.0.0.1", 9))
    attempt(bare.sendto, b"x", ("127.0.0.1", 9))
    attempt(bare.__init__)  # type: ignore[misc]
    attempt(bare.close)


def tls() -> None:
    import select
    import ssl

    anonymous = "AECDH-AES128-SHA:@SECLEVEL=0"
    contexts = []
    for protocol in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT):
        context = ssl.SSLContext(protocol)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(anonymous)
        contexts.append(context)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        to = local(listener)
        client = contexts[1].wrap_socket(socket.socket(), do_handshake_on_connect=False)
        attempt(client.connect, to)
        attempt(client.connect, to)
        accepted, _ = listener.accept()
        server = contexts[0].wrap_socket(accepted, server_side=True, do_handshake_on_connect=False)
        for sock in (client, server):
            sock.setblocking(False)
        waiting = [client, server]
        while waiting:
            for one in list(waiting):
                try:
                    one.do_handshake()
                except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    continue
                waiting.remove(one)
            select.select(waiting, [], [], 0.1)
        stream.append(["handshake", not waiting])
        attempt(client.send, b"x")
        attempt(client.sendto, b"x", to)
        attempt(client.sendmsg, [b"x"])
        attempt(client.dup)
        for sock in (client, server):
            sock.close()
        with contexts[1].wrap_socket(socket.socket()) as client:
            attempt(client.connect, ("127.0.0.1", 1))
            attempt(client.connect_ex, ("127.0.0.1", 1))
            attempt(client.bind, ("127.0.0.1", "x"))
        # A listening TLS socket: accept() makes the one and then wraps it.
        secure = contexts[0].wrap_socket(listener, server_side=True, do_handshake_on_connect=False)
        plain = socket.create_connection(to)
        made, _ = secure.accept()
        made.close()
        plain.close()
        secure.close()


def loops() -> None:
    """asyncio, selectors and servers of the standard library."""
    import asyncio
    import http.client
    import socketserver
    import threading

    async def serve() -> None:
        accepted: asyncio.Queue[None] = asyncio.Queue()

        async def answer(reader: Any, writer: Any) -> None:
            accepted.put_nowait(None)
            writer.write(await reader.read(1))
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        to = local(server.sockets[0])
        reader, writer = await asyncio.open_connection(*to)
        await accepted.get()
        writer.write(b"x")
        assert await reader.read(1) == b"x"
        writer.close()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
        )
        transport.sendto(b"x", to)
        transport.close()
        with socket.socket() as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, to)
            await accepted.get()  # the order of the two is chance
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            await loop.sock_sendto(sock, b"x", to)
        try:
            await asyncio.open_connection("127.0.0.1", 1)
        except OSError as error:
            stream.append(["raised", type(error).__name__, error.errno])
        server.close()

    asyncio.run(serve())

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1000)
            self.request.sendall(b"HTTP/1.0 204 No Content\r\n\r\n")

    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request)
        asking = http.client.HTTPConnection(*local(server.socket), timeout=60)
        # One after the other, so that the order is not chance: the queue holds the connection.
        asking.connect()
        asking.request("GET", "/")
        thread.start()
        thread.join()
        stream.append(["status", asking.getresponse().status])
        asking.close()
    with socketserver.UDPServer(("127.0.0.1", 0), Handler, bind_and_activate=False) as other:
        attempt(other.server_bind)


def countdown() -> None:
    """A hook that refuses the nth event of a call with several."""
    global refuse_after
    with socket.create_server(("127.0.0.1", 0)) as listener:
        to = local(listener)
        before = len(os.listdir("/proc/self/fd"))
        for function in (
            lambda: socket.create_connection(to, 5, ("127.0.0.1", 0)),
            lambda: socket.create_connection(("localhost", to[1])),
            lambda: socket.create_server(("127.0.0.1", 0)),
            lambda: socket.socketpair(),
            lambda: socket.getfqdn("127.0.0.1"),
            lambda: socket.fromfd(listener.fileno(), socket.AF_INET, socket.SOCK_STREAM),
        ):
            for count in range(1, 6):
                refuse_after = count
                made = attempt(function)
                refuse_after = 0
                for sock in made if type(made) is tuple else (made,):
                    if isinstance(sock, socket.socket):
                        sock.close()
                left = len(os.listdir("/proc/self/fd"))
                assert left == before or kind == "stock", (function, count, before, left)


with tempfile.TemporaryDirectory() as directory:
    sys.addaudithook(hook)
    for part in (
        construction, streams, datagrams, look_ups, refusals, accepted, helpers, families, awkward,
        tls, loops, countdown,
    ):  # fmt: skip
        stream.append(["part", part.__name__])
        part()
json.dump(stream, sys.stdout)
