"""Addresses given to calls, connections made and refused, servers, pairs."""

from __future__ import annotations

import errno
import os
import socket as stock
import warnings
from collections.abc import Iterator
from typing import Any

from tests.behaviours import Failing, Index, attempt, behaviour, shown, streams

AF_INET, AF_INET6, AF_UNIX = stock.AF_INET, stock.AF_INET6, stock.AF_UNIX

INET = (
    ("127.0.0.1", 0),
    (b"127.0.0.1", 0),
    (bytearray(b"127.0.0.1"), 0),
    ("", 0),
    (b"", 0),
    ("<broadcast>", 0),
    ("255.255.255.255", 0),
    ("127.1", 0),
    ("0x7f.1", 0),
    ("2130706433", 0),
    ("0177.0.0.1", 0),
    ("127.0.0.1 ", 0),
    (" 127.0.0.1", 0),
    ("127.0.0.256", 0),
    ("1.2.3.4.5", 0),
    ("::1", 0),
    ("::ffff:127.0.0.1", 0),
    ("\uff11\uff12\uff17.0.0.1", 0),
    ("127.0.0.1\0", 0),
    ("\0", 0),
    (b"127.0.0.1\0x", 0),
    ("\ud800", 0),
    ("a" * 64 + "\xe9", 0),
    ("\xe9" * 64, 0),
    ("..", 0),
    ("\xe9..\xe9", 0),
    ("a" * 300, 0),
    (None, 0),
    (5, 0),
    (1.5, 0),
    (memoryview(b"127.0.0.1"), 0),
    (["127.0.0.1"], 0),
    ("127.0.0.1", -1),
    ("127.0.0.1", 65536),
    ("127.0.0.1", 2**31),
    ("127.0.0.1", -(2**31) - 1),
    ("127.0.0.1", 2**63),
    ("127.0.0.1", 2**80),
    ("127.0.0.1", True),
    ("127.0.0.1", Index(0)),
    ("127.0.0.1", Index(70000)),
    ("127.0.0.1", Failing()),
    ("127.0.0.1", None),
    ("127.0.0.1", "80"),
    ("127.0.0.1", "http"),
    ("127.0.0.1", b"80"),
    ("127.0.0.1", 1.0),
    ("127.0.0.300", 99999),
    ("127.0.0.1",),
    ("127.0.0.1", 0, 0),
    ("127.0.0.1", 0, 0, 0, 0),
    (),
    ["127.0.0.1", 0],
    "127.0.0.1",
    "127.0.0.1:0",
    b"127.0.0.1",
    None,
    0,
    1.5,
    {},
    {"127.0.0.1": 0, "x": 1},
    object,
)

INET6 = (
    ("::1", 0),
    (b"::1", 0),
    ("", 0),
    ("::", 0),
    ("::1", 0, 0),
    ("::1", 0, 0, 0),
    ("::1", 0, 5),
    ("::1", 0, 0xFFFFF),
    ("::1", 0, 0x100000),
    ("::1", 0, -1),
    ("::1", 0, 2**32),
    ("::1", 0, 2**32 + 5),
    ("::1", 0, 2**80),
    ("::1", 0, 0, 2**32 - 1),
    ("::1", 0, 0, 2**33),
    ("::1", 0, 0, -1),
    ("::1", 0, 0, 1),
    ("::1", 0, "0"),
    ("::1", 0, 0, "0"),
    ("::1", 0, None),
    ("::1", 0, 1.5),
    ("::1", 0, Index(1), Index(0)),
    ("::1", 0, Failing()),
    ("::1", 0, 0, 0, 0),
    ("::1",),
    (),
    ("::1%lo", 0),
    ("::1%1", 0),
    ("::1%nonsense", 0),
    ("fe80::1%lo", 0),
    ("::ffff:127.0.0.1", 0),
    ("127.0.0.1", 0),
    ("<broadcast>", 0),
    ("255.255.255.255", 0),
    (":::", 0),
    ("12345::", 0),
    ("::1", -1),
    ("::1", 65536),
    ("::1", "80"),
    ("::1", 99999, -1),
    ("nonsense::", 99999),
    (None, 0),
    ["::1", 0],
    "::1",
    None,
    5,
)

UNIX = (
    "relative",
    b"relative",
    bytearray(b"relative"),
    memoryview(b"relative"),
    memoryview(bytes(8))[::2],
    "/nonexistent/dir/x",
    "x" * 107,
    "x" * 108,
    b"x" * 109,
    "\0" + "x" * 107,
    "\0" + "x" * 108,
    b"\0abc\0def",
    "\ud800",
    "\udcff\xe9",
    "é" * 60,
    "a\0b",
    5,
    None,
    ("x",),
    ["x"],
    1.5,
    object,
    __import__("pathlib").Path("relative"),
    Failing(),
)


def refused(call: Any, *arguments: Any) -> object:
    """The exception, or that there was none: names of sockets differ."""
    result = attempt(call, *arguments)
    return result if isinstance(result, Exception) or result == 0 else type(result).__name__


@behaviour
def internet_addresses(socket: Any) -> Iterator[object]:
    for family, addresses in ((AF_INET, INET), (AF_INET6, INET6)):
        for address in addresses:
            with socket.socket(family, stock.SOCK_DGRAM) as sock:
                yield shown(address)[:60], refused(sock.bind, address)
                name = sock.getsockname()
                yield name[:1] + name[2:], name[1] != 0
            for name in ("connect", "connect_ex"):
                with socket.socket(family, stock.SOCK_DGRAM) as sock:
                    yield name, shown(address)[:60], attempt(getattr(sock, name), address)
            with socket.socket(family, stock.SOCK_DGRAM) as sock:
                yield attempt(sock.sendto, b"", address), attempt(sock.sendto, b"", 0, address)
                yield attempt(sock.sendmsg, [b""], [], 0, address)


@behaviour
def unix_addresses(socket: Any, path: str) -> Iterator[object]:
    before = os.getcwd()
    os.chdir(path)
    try:
        for address in UNIX:
            for kind in (stock.SOCK_STREAM, stock.SOCK_DGRAM):
                with socket.socket(AF_UNIX, kind) as sock:
                    yield shown(address)[:60], attempt(sock.bind, address)
                    yield sock.getsockname(), attempt(sock.bind, address)
                for name in ("connect", "connect_ex"):
                    with socket.socket(AF_UNIX, kind) as sock:
                        yield name, shown(address)[:60], attempt(getattr(sock, name), address)
                with socket.socket(AF_UNIX, kind) as sock:
                    yield attempt(sock.sendto, b"x", address)
                    yield attempt(sock.sendmsg, [b"x"], [], 0, address)
                for name in os.listdir(path):
                    os.unlink(name)
    finally:
        os.chdir(before)


@behaviour
def calls_with_other_arguments(socket: Any) -> Iterator[object]:
    with socket.socket() as sock:
        for name in ("bind", "connect", "connect_ex"):
            method = getattr(sock, name)
            yield name, attempt(method), attempt(method, 1, 2), attempt(method, *[0] * 5)
            yield attempt(method, address=("127.0.0.1", 0)), attempt(method, ("", 0), x=1)
            yield attempt(method, "127.0.0.1", 0), attempt(method, **{})


@behaviour
def connections(socket: Any, path: str) -> Iterator[object]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        name = sock.getsockname()
        # Bound, and no one listens.
        for timeout in (None, 1):
            with socket.socket() as other:
                other.settimeout(timeout)
                yield attempt(other.connect, name), other.connect_ex(name)
        sock.listen()
        with socket.socket() as other:
            yield attempt(other.connect, name), attempt(other.connect, name), other.connect_ex(name)
            yield attempt(other.bind, ("127.0.0.1", 0)), attempt(other.listen)
            yield other.getpeername() == name, attempt(sock.getpeername)
            yield attempt(sock.connect, name), attempt(sock.bind, name)
        with socket.socket() as other:
            yield attempt(other.bind, name), attempt(other.bind, ("192.0.2.1", 0))
            yield attempt(other.connect, ("255.255.255.255", 1))
    with socket.socket(AF_UNIX) as sock:
        yield attempt(sock.connect, f"{path}/nowhere"), sock.connect_ex(f"{path}/nowhere")
        yield attempt(sock.bind, f"{path}/no/dir"), attempt(sock.getpeername), sock.getsockname()
        sock.bind(f"{path}/here")
        yield attempt(sock.connect, f"{path}/here"), attempt(sock.bind, f"{path}/other")
        yield sock.getsockname()
    with socket.socket(AF_UNIX, stock.SOCK_DGRAM) as sock:
        yield attempt(sock.bind, f"{path}/here"), attempt(sock.connect, f"{path}/here")
        sock.bind(f"{path}/datagrams")
        with socket.socket(AF_UNIX, stock.SOCK_DGRAM) as other:
            yield other.connect(f"{path}/datagrams"), other.getpeername(), other.send(b"x")
            yield sock.recvfrom(10)
            other.bind(f"{path}/mine")
            yield (
                other.send(b"y"),
                sock.recvfrom(10),
                sock.sendto(b"z", f"{path}/mine"),
                other.recv(9),
            )
        with socket.socket(AF_UNIX) as stream:
            yield attempt(stream.connect, f"{path}/datagrams")
    with socket.socket(AF_INET, stock.SOCK_DGRAM) as sock:
        yield attempt(sock.connect, ("127.0.0.1", 9)), sock.getpeername()
        yield attempt(sock.send, b"x"), attempt(sock.recv, 1), attempt(sock.shutdown, 2)


@behaviour
def accepting(socket: Any) -> Iterator[object]:
    for family, host in ((AF_INET, "127.0.0.1"), (AF_INET6, "::1")):
        with socket.socket(family) as listener:
            listener.bind((host, 0))
            listener.listen()
            with socket.socket(family) as client:
                client.connect(listener.getsockname())
                connection, address = listener.accept()
                with connection:
                    yield type(connection) is socket.socket, address == client.getsockname()
                    yield connection.family, connection.type, connection.proto, len(address)
                    yield (
                        connection.getpeername() == address,
                        connection.getsockname() == listener.getsockname(),
                    )
            with socket.socket(family) as client:
                client.connect(listener.getsockname())
                fd, address = listener._accept()
                yield type(fd), os.get_inheritable(fd), address == client.getsockname()
                os.close(fd)
    with socket.socket(AF_UNIX) as listener:
        listener.bind(f"\0behaviours-accepting-{os.getpid()}")
        listener.listen()
        with socket.socket(AF_UNIX) as client:
            client.connect(listener.getsockname())
            connection, address = listener.accept()
            yield address, connection.getpeername(), connection.getsockname()
            connection.close()
        with socket.socket(AF_UNIX) as client:
            client.bind(b"\0behaviours-client-%d" % os.getpid())
            client.connect(listener.getsockname())
            connection, address = listener.accept()
            yield address, connection.getpeername(), client.getpeername()
            connection.close()
    yield attempt(socket.socket().accept) if False else None


@behaviour
def names(socket: Any) -> Iterator[object]:
    for family in (AF_INET, AF_INET6, AF_UNIX):
        for kind in (stock.SOCK_STREAM, stock.SOCK_DGRAM):
            with socket.socket(family, kind) as sock:
                yield sock.getsockname(), attempt(sock.getpeername)
    one, two = socket.socketpair()
    with one, two:
        yield one.getsockname(), one.getpeername()


@behaviour
def families_that_are_none(socket: Any) -> Iterator[object]:
    for family in (250, 0, 3):
        fd = stock.socket(AF_UNIX, stock.SOCK_DGRAM).detach()
        with socket.socket(family, stock.SOCK_DGRAM, 0, fd) as sock:
            for call in (
                lambda: sock.bind(("x", 1)),
                lambda: sock.connect(("x", 1)),
                lambda: sock.connect_ex(("x", 1)),
                lambda: sock.sendto(b"x", ("x", 1)),
                lambda: sock.sendmsg([b"x"], [], 0, ("x", 1)),
                lambda: sock.getsockname(),
                lambda: sock.getpeername(),
                lambda: sock.accept(),
                lambda: sock.recvfrom(1),
                lambda: sock.recvfrom_into(bytearray(1)),
                lambda: sock.recvmsg(1),
                lambda: sock.recvmsg_into([bytearray(1)]),
                lambda: sock.recv(1, stock.MSG_DONTWAIT),
                lambda: sock.getsockopt(1, 3),
                lambda: sock.listen(),
            ):
                yield family, attempt(call)


@behaviour
def servers(socket: Any, path: str) -> Iterator[object]:
    # CPython leaves the socket to its finalizer after an exception that is no OSError.
    warnings.simplefilter("ignore", ResourceWarning)
    for address, given in (
        (("127.0.0.1", 0), {}),
        (("", 0), {}),
        (("localhost", 0), {}),
        (("::1", 0), {"family": AF_INET6}),
        (("", 0), {"family": AF_INET6, "dualstack_ipv6": True}),
        (("", 0), {"family": AF_INET6, "dualstack_ipv6": False}),
        (("127.0.0.1", 0), {"dualstack_ipv6": True}),
        (("127.0.0.1", 0), {"reuse_port": True}),
        (("::1", 0), {"reuse_port": True, "family": AF_INET6}),
        (("127.0.0.1", 0), {"backlog": 0}),
        (("127.0.0.1", 0), {"backlog": -1}),
        (("127.0.0.1", 0), {"backlog": "x"}),
        (("127.0.0.1", 0), {"backlog": 2**31}),
        (("127.0.0.1", 0), {"family": 999}),
        (("127.0.0.1", 0), {"family": "x"}),
        (("127.0.0.1", 0), {"family": None}),
        (("127.0.0.1", 0), {"nonsense": None}),
        (("192.0.2.1", 0), {}),
        (("192.0.2.1", 80), {"family": AF_INET}),
        (("2001:db8::1", 80), {"family": AF_INET6}),
        (("127.0.0.1", 70000), {}),
        (("127.0.0.1", "80"), {}),
        (("127.0.0.1",), {}),
        ("127.0.0.1", {}),
        (None, {}),
        (5, {}),
        (f"{path}/server", {"family": AF_UNIX}),
        (f"{path}/server", {"family": AF_UNIX}),
        (f"{path}/no/dir", {"family": AF_UNIX}),
        ("x" * 200, {"family": AF_UNIX}),
    ):
        server = attempt(socket.create_server, address, **given)
        if isinstance(server, Exception):
            yield shown(given), server, shown(server.__cause__), server.__suppress_context__
            continue
        with server:
            yield shown(given), server.family, server.type, server.proto, server.gettimeout()
            for level, option in (
                (stock.SOL_SOCKET, stock.SO_REUSEADDR),
                (stock.SOL_SOCKET, stock.SO_REUSEPORT),
                (stock.SOL_SOCKET, stock.SO_ACCEPTCONN),
                (stock.IPPROTO_IPV6, stock.IPV6_V6ONLY),
            ):
                yield attempt(server.getsockopt, level, option)
            name = server.getsockname()
            yield name if isinstance(name, str) else name[:1] + name[2:]
    yield attempt(socket.create_server), attempt(socket.create_server, 1, 2)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        error: Any = attempt(socket.create_server, taken.getsockname())
        yield type(error), error.errno, error.strerror.partition("(")[0], error.filename
    yield socket.has_dualstack_ipv6()


@behaviour
def clients(socket: Any) -> Iterator[object]:
    warnings.simplefilter("ignore", ResourceWarning)  # as above
    with socket.create_server(("127.0.0.1", 0)) as server:
        name = server.getsockname()
        for given in (
            {},
            {"timeout": 5},
            {"timeout": None},
            {"timeout": 0.0},
            {"timeout": -1},
            {"timeout": "x"},
            {"source_address": None},
            {"source_address": ("127.0.0.1", 0)},
            {"source_address": ("127.0.0.2", 0)},
            {"source_address": ("192.0.2.1", 0)},
            {"source_address": "x"},
            {"source_address": 5},
            {"source_address": ()},
            {"source_address": ("", 0)},
            {"all_errors": True},
            {"all_errors": True, "source_address": ("192.0.2.1", 0)},
            {"nonsense": 1},
        ):
            sock = attempt(socket.create_connection, name, **given)
            if isinstance(sock, Exception):
                yield shown(given), sock, shown(sock.__cause__), shown(sock.__context__)
                continue
            with sock:
                yield shown(given), sock.family, sock.type, sock.proto, sock.gettimeout()
                yield attempt(sock.getpeername) == name
        with socket.create_connection(name, 3, ("127.0.0.1", 0)) as sock:
            yield sock.gettimeout()
        for default in (None, 4.5):
            socket.setdefaulttimeout(default)
            try:
                with socket.create_connection(name) as sock:
                    yield sock.gettimeout()
            finally:
                socket.setdefaulttimeout(None)
        yield attempt(socket.create_connection, name, 1, None, True)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        for host in ("127.0.0.1", "localhost", b"127.0.0.1"):
            for all_errors in (False, True):
                yield attempt(socket.create_connection, (host, port), all_errors=all_errors)
    for address in (
        (),
        ("127.0.0.1",),
        ("127.0.0.1", 1, 2),
        "ab",
        "abc",
        None,
        5,
        ("127.0.0.1", None),
        ("127.0.0.1", "nonsense"),
        ("127.0.0.1", -1),
        ("127.0.0.1", 1.5),
        (5, 80),
        ("", 1),
        (None, 1),
        ("nonsense..example", 1),
        ("\ud800", 1),
        {"127.0.0.1": 1, "x": 2},
    ):
        yield shown(address), attempt(socket.create_connection, address)
    yield (
        attempt(socket.create_connection),
        attempt(socket.create_connection, address=("127.0.0.1", 1)),
    )


@behaviour
def functions_see_what_a_program_replaces(socket: Any) -> Iterator[object]:
    """Only where the module is the running one: the functions look their names up in it."""
    import sys

    module = sys.modules["socket"] if socket.__name__ == "socket" else socket
    kept_class = module.socket
    kept = module.getaddrinfo
    try:
        module.getaddrinfo = lambda *arguments, **names: []
        yield attempt(module.create_connection, ("127.0.0.1", 1))
        yield attempt(module.create_connection, ("127.0.0.1", 1), all_errors=True)
        module.getaddrinfo = lambda *arguments, **names: (arguments, names) and 1 / 0
        yield attempt(module.create_connection, ("127.0.0.1", 1))
    finally:
        module.getaddrinfo = kept
    kept = module.socket
    try:
        module.socket = lambda *arguments, **names: 1 / 0
        yield attempt(module.create_server, ("127.0.0.1", 0))
        yield attempt(module.create_connection, ("127.0.0.1", 1))
    finally:
        module.socket = kept
    kept = module.dup
    try:
        module.dup = lambda fd: 1 / 0
        with kept_class() as sock:
            yield attempt(module.fromfd, sock.fileno(), AF_INET, 1), attempt(sock.dup)
    finally:
        module.dup = kept
    kept = module.has_ipv6
    try:
        module.has_ipv6 = False
        yield module.has_dualstack_ipv6()
        yield attempt(module.create_server, ("::1", 0), family=AF_INET6, dualstack_ipv6=True)
    finally:
        module.has_ipv6 = kept
    kept = module.SocketIO

    class Stream(kept):  # type: ignore[misc, valid-type]
        pass

    try:
        module.SocketIO = Stream
        with kept_class() as sock, sock.makefile("rb", 0) as raw, sock.makefile("rwb") as buffered:
            yield type(raw) is Stream, type(buffered).__name__
        with kept_class() as sock, sock.makefile("rb") as buffered:
            yield type(buffered.raw) is Stream
    finally:
        module.SocketIO = kept


@behaviour
def accept_calls_what_a_program_puts_in_its_place(socket: Any) -> Iterator[object]:
    class Own(socket.socket):
        def _accept(self) -> tuple[int, Any]:
            fd, address = super()._accept()
            return fd, ("own", address[0])

    class Plain(socket.socket):
        pass

    for cls in (Own, Plain):
        with cls() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            if cls is Plain:
                fd = listener.dup().detach()
                listener._accept = lambda fd=fd: (fd, "of the instance")
            for timeout, default in ((None, None), (30, None), (30, 20.0)):
                listener.settimeout(timeout)
                socket.setdefaulttimeout(default)
                try:
                    with socket.create_connection(listener.getsockname()):
                        made, address = listener.accept()
                finally:
                    socket.setdefaulttimeout(None)
                yield type(made).__name__, made.family, made.type, made.proto, address
                yield made.gettimeout(), made.getblocking(), made.get_inheritable()
                made.detach() if cls is Plain else made.close()
            if cls is Plain:
                os.close(fd)

    class Refusing(socket.socket):
        def _accept(self) -> tuple[int, Any]:
            raise LookupError("no")

    with Refusing() as sock:
        yield attempt(sock.accept)


@behaviour
def pairs(socket: Any) -> Iterator[object]:
    for given in (
        (),
        (AF_UNIX,),
        (None,),
        (AF_UNIX, stock.SOCK_DGRAM),
        (AF_UNIX, stock.SOCK_SEQPACKET),
        (AF_UNIX, stock.SOCK_STREAM, 0),
        (AF_UNIX, stock.SOCK_STREAM, 1),
        (AF_UNIX, stock.SOCK_STREAM, 99),
        (AF_UNIX, stock.SOCK_RAW),
        (AF_INET,),
        (AF_INET6,),
        (999,),
        (AF_UNIX, 99),
        ("x",),
        (1.0,),
        (AF_UNIX, None),
        (AF_UNIX, "x"),
        (AF_UNIX, 1, None),
        (2**31,),
        (AF_UNIX, 2**40),
        (Index(1), Index(1), Index(0)),
        (1, 1, 0, 0),
        (Failing(),),
    ):
        made: Any = attempt(socket.socketpair, *given)
        if isinstance(made, Exception):
            yield shown(given), made
            continue
        yield shown(given), type(made), [(each.family, each.type, each.proto) for each in made]
        for each in made:
            each.close()
    for names in (
        {"family": AF_UNIX},
        {"type": stock.SOCK_DGRAM},
        {"proto": 0},
        {"x": 1},
        {"fileno": 3},
    ):
        made = attempt(socket.socketpair, **names)
        yield shown(names), made if isinstance(made, Exception) else type(made)
        for each in made if isinstance(made, tuple) else ():
            each.close()


@behaviour
def pairs_without_the_system(socket: Any) -> Iterator[object]:
    if not hasattr(stock, "_fallback_socketpair"):  # from 3.12 on
        return
    for given in (
        (),
        (AF_INET,),
        (AF_INET6,),
        (AF_UNIX,),
        (AF_INET, stock.SOCK_DGRAM),
        (AF_INET, stock.SOCK_STREAM, 6),
    ):
        made: Any = attempt(socket._fallback_socketpair, *given)
        if isinstance(made, Exception):
            yield given, made
            continue
        one, two = made
        with one, two:
            yield given, one.family, one.type, one.proto, one.gettimeout(), two.gettimeout()
            yield one.send(b"x"), two.recv(1), os.get_blocking(one.fileno())


@behaviour
def of_descriptors(socket: Any) -> Iterator[object]:
    one, two = socket.socketpair()
    with one, two:
        fd = one.fileno()
        for given in (
            (fd, AF_UNIX, stock.SOCK_STREAM),
            (fd, AF_UNIX, stock.SOCK_STREAM, 0),
            (fd, AF_INET, stock.SOCK_DGRAM, 7),
            (fd, -1, -1),
            (fd, -1, -1, -1),
            (fd, 250, 250),
            (Index(fd), 1, 1),
            (-1, 1, 1),
            (99999, 1, 1),
            ("x", 1, 1),
            (1.5, 1, 1),
            (None, 1, 1),
            (fd, "x", 1),
            (fd, 1, None),
            (fd, 1),
            (fd,),
            (),
            (fd, 1, 1, 0, 0),
        ):
            made: Any = attempt(socket.fromfd, *given)
            text = shown(given).replace(f"({fd}", "(FD").replace(f"Index({fd}", "Index(FD")
            if isinstance(made, Exception):
                yield text, made
                continue
            with made:
                yield text, made.family, made.type, made.proto, made.gettimeout()
                yield made.get_inheritable(), made.fileno() != fd, type(made) is socket.socket
        yield attempt(socket.fromfd, fd=fd, family=1, type=1, proto=0).close()
        with open(os.devnull) as file:
            yield attempt(socket.fromfd, file.fileno(), 1, 1)
        for number in (-1, 99999, 2**31 - 1, 2**80, "x", 1.5, None, True is None, Failing()):
            if number is not False:
                yield shown(number), attempt(socket.dup, number), attempt(socket.close, number)
        copied = socket.dup(fd)
        yield (
            type(copied),
            os.get_inheritable(copied),
            socket.close(copied),
            attempt(socket.close, copied),
        )
        yield socket.close(socket.dup(Index(fd)))
        yield one.send(b"x"), two.recv(1)
    yield attempt(one.dup), attempt(socket.fromfd, one, 1, 1), errno.EBADF
    with streams(socket) as (client, server):
        other = client.dup()
        client.close()
        yield other.send(b"x"), server.recv(1), other.close(), server.recv(1)
