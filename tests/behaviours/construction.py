"""How sockets are made, and what they are as objects."""

from __future__ import annotations

import copy
import gc
import io
import os
import pickle
import socket as stock
import sys
import warnings
import weakref
from collections.abc import Iterator
from typing import Any

from tests.behaviours import Failing, Index, attempt, behaviour, shown, unraisable

AF_INET, AF_INET6, AF_UNIX = stock.AF_INET, stock.AF_INET6, stock.AF_UNIX
STREAM, DGRAM = stock.SOCK_STREAM, stock.SOCK_DGRAM


def described(sock: Any) -> tuple[object, ...]:
    if not isinstance(sock, stock.SocketType):
        return (sock,)
    with sock:
        return (
            sock.family,
            sock.type,
            sock.proto,
            sock.timeout,
            sock.gettimeout(),
            sock.getblocking(),
            sock.fileno() >= 0,
            sock.get_inheritable(),
            os.get_blocking(sock.fileno()),
        )


@behaviour
def arguments(socket: Any) -> Iterator[object]:
    for given in (
        (),
        (AF_INET,),
        (AF_INET6,),
        (AF_UNIX,),
        (AF_INET, DGRAM),
        (AF_INET, STREAM, 6),
        (AF_INET, DGRAM, 17),
        (AF_INET, DGRAM, 6),
        (-1,),
        (-1, -1, -1),
        (-1, -1, -1, None),
        (AF_UNIX, stock.SOCK_SEQPACKET),
        (int(AF_INET), int(STREAM)),
        (True,),
        (Index(2), Index(1), Index(0)),
        (999,),
        (-2,),
        (AF_INET, 99),
        (AF_INET, STREAM, 999),
        (AF_INET, STREAM, -2),
        (0,),
        (AF_INET, 0),
        ("2",),
        (2.0,),
        (None,),
        (AF_INET, None),
        (AF_INET, STREAM, None),
        (2**31,),
        (-(2**31) - 1,),
        (AF_INET, 2**31),
        (AF_INET, STREAM, 2**63),
        (AF_INET, STREAM, -(2**63) - 1),
        (Failing(),),
        (AF_INET, Failing()),
        (AF_INET, STREAM, Failing()),
        (AF_INET, STREAM, 0, Failing()),
        (AF_INET, STREAM, 0, "3"),
        (AF_INET, STREAM, 0, 3.0),
        (AF_INET, STREAM, 0, b"3"),
        (AF_INET, STREAM, 0, -1),
        (AF_INET, STREAM, 0, -(2**31)),
        (AF_INET, STREAM, 0, 2**80),
        (AF_INET, STREAM, 0, -(2**80)),
        (AF_INET, STREAM, 0, 999999),
        (-1, -1, -1, 999999),
        (AF_INET, STREAM, 0, None, None),
        (AF_INET | 2**16,),
        (AF_INET, STREAM | 2**20),
    ):
        yield shown(given), *described(attempt(socket.socket, *given))


@behaviour
def keywords(socket: Any) -> Iterator[object]:
    for given in (
        {"family": AF_UNIX},
        {"type": DGRAM},
        {"proto": 6},
        {"family": AF_INET6, "type": DGRAM, "proto": 17},
        {"fileno": None},
        {"fileno": -5},
        {"fileno": "x"},
        {"protocol": 1},
        {"file": None},
    ):
        yield shown(given), *described(attempt(socket.socket, **given))
    yield attempt(socket.socket, AF_INET, family=AF_INET)
    yield attempt(socket.socket, 2, 1, 0, None, fileno=None)


@behaviour
def type_flags(socket: Any) -> Iterator[object]:
    for flags in (
        stock.SOCK_NONBLOCK,
        stock.SOCK_CLOEXEC,
        stock.SOCK_NONBLOCK | stock.SOCK_CLOEXEC,
    ):
        for default in (None, 0, 3.5):
            socket.setdefaulttimeout(default)
            try:
                yield flags, default, *described(socket.socket(AF_INET, STREAM | flags))
                yield flags, default, *described(socket.socket(AF_INET, DGRAM | flags))
                for each in socket.socketpair(AF_UNIX, STREAM | flags):
                    yield flags, default, *described(each)
            finally:
                socket.setdefaulttimeout(None)


@behaviour
def a_descriptor_is_adopted(socket: Any) -> Iterator[object]:
    for family, kind, proto in (
        (AF_INET, STREAM, 0),
        (AF_INET, DGRAM, 0),
        (AF_INET6, STREAM, 0),
        (AF_UNIX, STREAM, 0),
        (AF_UNIX, stock.SOCK_SEQPACKET, 0),
    ):
        for given in (
            {},
            {"family": AF_INET6},
            {"type": DGRAM},
            {"proto": 99},
            {"family": 250, "type": 77, "proto": 88},
            {"family": -1, "type": -1, "proto": -1},
        ):
            fd = stock.socket(family, kind, proto).detach()
            yield given, *described(attempt(socket.socket, fileno=fd, **given))


@behaviour
def a_descriptor_keeps_its_mode(socket: Any) -> Iterator[object]:
    for default in (None, 0, 0.0, 2.5):
        for blocking in (True, False):
            other = stock.socket()
            other.setblocking(blocking)
            socket.setdefaulttimeout(default)
            try:
                yield default, blocking, *described(socket.socket(fileno=other.detach()))
            finally:
                socket.setdefaulttimeout(None)


@behaviour
def no_descriptor_of_a_socket(socket: Any) -> Iterator[object]:
    with open(os.devnull) as file:
        for given in ((), (AF_INET, STREAM, 0), (AF_INET,)):
            yield attempt(socket.socket, *given, fileno=file.fileno())
            yield os.fstat(file.fileno()).st_size  # still open
    read, write = os.pipe()
    os.close(write)
    yield attempt(socket.socket, fileno=read)
    os.close(read)
    yield attempt(socket.socket, fileno=read)
    yield attempt(socket.socket, AF_INET, STREAM, 0, read)


@behaviour
def a_bool_or_index_as_descriptor(socket: Any) -> Iterator[object]:
    fd = stock.socket().detach()
    yield described(attempt(socket.socket, fileno=Index(fd)))
    yield attempt(socket.socket, fileno=1.5)
    yield attempt(socket.socket, fileno=[])
    yield attempt(socket.socket, fileno=object)
    yield attempt(socket.socket, fileno=b"")


@behaviour
def audit_arguments(socket: Any) -> Iterator[object]:
    """The events are compared with what stands here."""
    yield described(socket.socket())
    yield described(socket.socket(AF_UNIX, DGRAM))
    yield described(socket.socket(fileno=stock.socket().detach()))
    yield described(socket.socket(AF_INET, fileno=stock.socket().detach()))
    yield attempt(socket.socket, 999)
    yield attempt(socket.socket, fileno=-1)
    one, two = socket.socketpair()
    yield described(one.dup())
    yield described(socket.fromfd(two.fileno(), AF_UNIX, STREAM))
    one.close()
    two.close()


@behaviour
def the_class(socket: Any) -> Iterator[object]:
    cls = socket.socket
    yield cls.__name__, cls.__qualname__, cls.__module__, bool(cls.__doc__)
    yield cls.__slots__
    yield [base.__name__ for base in cls.__mro__ if base.__name__ != "Socket"][-2:]
    yield cls.__weakrefoffset__ != 0, cls.__dictoffset__
    yield shown(cls)
    yield issubclass(cls, stock.SocketType), socket.SocketType is stock.SocketType
    yield socket.SocketType.__name__, socket.SocketType.__module__
    yield type(cls) is type
    yield attempt(setattr, stock.SocketType, "foo", 1)
    yield bool(cls.__flags__ & (1 << 10)), bool(cls.__flags__ & (1 << 14))  # BASETYPE, HAVE_GC
    yield bool(cls.__flags__ & (1 << 8))  # IMMUTABLETYPE
    yield gc.is_tracked(cls)
    for name in ("family", "type"):
        yield name, type(vars(cls)[name]).__name__, bool(vars(cls)[name].__doc__)
    yield isinstance(socket.error, type), socket.error is OSError, socket.timeout is TimeoutError
    yield socket.gaierror.__mro__[1:], socket.herror.__mro__[1:]
    yield socket.gaierror.__module__, socket.herror.__module__, socket.gaierror.__qualname__


@behaviour
def attributes_of_an_instance(socket: Any) -> Iterator[object]:
    with socket.socket() as sock:
        names = [
            "family",
            "type",
            "proto",
            "timeout",
            "_io_refs",
            "_closed",
            "__weakref__",
            "__dict__",
            "foo",
            "read",
            "write",
            "ioctl",
            "share",
            "gettimeout",
            "_accept",
            "_real_close",
        ]
        for name in names:
            yield name, hasattr(sock, name)
        for name in ("family", "type", "proto", "timeout", "foo", "__dict__", "fileno", "send"):
            yield name, attempt(setattr, sock, name, 1)
        for name in ("family", "type", "proto", "timeout", "foo", "send"):
            yield name, attempt(delattr, sock, name)
        yield type(sock.family), type(sock.type), type(sock.proto)
        yield attempt(vars, sock)
        yield attempt(len, sock), attempt(iter, sock), bool(sock), attempt(hash, sock) == hash(sock)
        yield sock == sock, sock == 1, sock != sock, attempt(lambda: sock < sock)
        yield attempt(int, sock), attempt(lambda: sock[0])
        yield sorted(set(dir(stock.socket)) - set(dir(socket.socket)))


@behaviour
def unknown_numbers_stay_numbers(socket: Any) -> Iterator[object]:
    for family, kind in ((250, 77), (AF_INET, 77), (250, STREAM), (0, 0)):
        fd = stock.socket().detach()
        with socket.socket(family, kind, 5, fd) as sock:
            yield type(sock.family), sock.family, type(sock.type), sock.type, sock.proto
            yield shown(sock)


@behaviour
def representation(socket: Any, path: str) -> Iterator[object]:
    sock = socket.socket()
    yield shown(sock), str(sock) == repr(sock), f"{sock}" == repr(sock)
    sock.bind(("127.0.0.1", 0))
    port = str(sock.getsockname()[1])
    yield shown(sock).replace(port, "PORT")
    sock.listen()
    with socket.create_connection(sock.getsockname()) as client:
        mine = str(client.getsockname()[1])
        yield shown(client).replace(port, "PORT").replace(mine, "MINE")
        server, _ = sock.accept()
        with server:
            yield shown(server).replace(port, "PORT").replace(mine, "MINE")
    file = sock.makefile()
    sock.close()
    yield shown(sock).replace(port, "PORT")
    file.close()
    yield shown(sock)
    with socket.socket(AF_UNIX) as sock:
        yield shown(sock)
        sock.bind(f"{path}/a")
        yield shown(sock).replace(path, "PATH")
    with socket.socket(AF_UNIX) as sock:
        sock.bind(b"\0differential-repr-%d" % os.getpid())
        yield shown(sock)
    one, two = socket.socketpair()
    yield shown(one)
    yield shown(two)
    one.close()
    two.close()
    sock = socket.socket()
    fd = sock.detach()
    yield shown(sock), sock.fileno()
    os.close(fd)
    sock = socket.socket()
    os.close(sock.fileno())
    yield shown(sock)
    sock.detach()


@behaviour
def representation_of_subclasses(socket: Any) -> Iterator[object]:
    class Inner(socket.socket):
        pass

    class Named(socket.socket):
        __module__ = "somewhere.else"

        def fileno(self) -> int:
            return 77

    class Broken(socket.socket):
        def getsockname(self) -> object:
            raise AttributeError("no name")

        def getpeername(self) -> object:
            raise ValueError("no peer")

    for cls in (Inner, Named, Broken):
        with cls() as sock:
            yield attempt(lambda sock=sock: shown(repr(sock)).replace("fd=77", "fd=N"))
    with Inner() as sock:
        sock.foo = 1
        yield vars(sock), sock.foo


@behaviour
def without_init(socket: Any) -> Iterator[object]:
    sock = socket.socket.__new__(socket.socket)
    yield shown(sock), sock.fileno(), sock.proto, sock.timeout, sock.gettimeout()
    yield sock.family, sock.type, type(sock.family), type(sock.type)
    for call in (
        lambda: sock.accept(),
        lambda: sock._accept(),
        lambda: sock.bind(("127.0.0.1", 0)),
        lambda: sock.bind(""),
        lambda: sock.connect(("127.0.0.1", 1)),
        lambda: sock.connect_ex(("127.0.0.1", 1)),
        lambda: sock.dup(),
        lambda: sock.get_inheritable(),
        lambda: sock.set_inheritable(True),
        lambda: sock.getblocking(),
        lambda: sock.getpeername(),
        lambda: sock.getsockname(),
        lambda: sock.getsockopt(1, 2),
        lambda: sock.getsockopt(1, 2, 4),
        lambda: sock.listen(),
        lambda: sock.recv(1),
        lambda: sock.recv(0),
        lambda: sock.recv_into(bytearray(2)),
        lambda: sock.recvfrom(1),
        lambda: sock.recvfrom_into(bytearray(2)),
        lambda: sock.recvmsg(1),
        lambda: sock.recvmsg_into([bytearray(1)]),
        lambda: sock.send(b"x"),
        lambda: sock.send(b""),
        lambda: sock.sendall(b"x"),
        lambda: sock.sendall(b""),
        lambda: sock.sendmsg([b"x"]),
        lambda: sock.sendmsg_afalg([b"x"], op=1),
        lambda: sock.sendto(b"x", ("127.0.0.1", 1)),
        lambda: sock.sendfile(io.BytesIO(b"x")),
        lambda: sock.setblocking(True),
        lambda: sock.settimeout(1),
        lambda: sock.setsockopt(1, 2, 1),
        lambda: sock.shutdown(2),
        lambda: sock.__enter__() is sock,
        lambda: sock.detach(),
    ):
        yield shown(attempt(call))
    yield sock.gettimeout()


@behaviour
def init_without_super(socket: Any) -> Iterator[object]:
    class Lazy(socket.socket):
        def __init__(self) -> None:
            pass

    sock = Lazy()
    yield shown(sock), sock.fileno()
    yield attempt(sock.recv, 1)
    yield attempt(socket.socket.__init__, sock)
    yield sock.fileno() >= 0, sock.family, sock.type
    sock.close()

    class Own(socket.socket):
        def __new__(cls, *arguments: object, **keywords: object) -> Any:
            self = super().__new__(cls, *arguments, **keywords)
            self.made = arguments
            return self

        def __init__(self, *arguments: int, extra: object = None) -> None:
            super().__init__(*arguments)
            self.extra = extra

    with Own(AF_INET, DGRAM, extra=3) as sock:
        yield sock.made, sock.extra, sock.type

    class Other(socket.socket):
        def __new__(cls) -> Any:
            return 5

    yield Other()


@behaviour
def subclasses(socket: Any) -> Iterator[object]:
    class Slotted(socket.socket):
        __slots__ = ("mine",)

    with Slotted() as sock:
        sock.mine = 1
        yield sock.mine, attempt(setattr, sock, "other", 2)

    class Counting(socket.socket):
        calls = 0

        def close(self) -> None:
            Counting.calls += 1
            super().close()

    with Counting():
        pass
    yield Counting.calls
    sock = Counting()
    file = sock.makefile()
    sock.close()
    file.close()
    yield Counting.calls, sock.fileno()

    class Real(socket.socket):
        def _real_close(self) -> None:
            Real.closed = True
            super()._real_close()

    sock = Real()
    sock.close()
    yield Real.closed, sock.fileno()
    with socket.socket() as listener:
        listener.listen()

    class Listener(socket.socket):
        pass

    with Listener() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with socket.create_connection(listener.getsockname()):
            peer, _ = listener.accept()
            yield type(peer).__name__, type(peer) is socket.socket
            peer.close()
        with listener.dup() as copied:
            yield type(copied) is Listener


@behaviour
def multiple_inheritance(socket: Any) -> Iterator[object]:
    class Mixin:
        def hello(self) -> str:
            return "hello"

    class Both(Mixin, socket.socket):
        pass

    with Both(AF_UNIX) as sock:
        yield sock.hello(), sock.family, [each.__name__ for each in Both.__mro__[:3]]
    yield attempt(type, "Bad", (socket.socket, int), {})
    yield attempt(type, "Bad", (socket.socket, OSError), {})
    yield attempt(type, "Bad", (socket.socket, io.RawIOBase), {})
    import abc

    yield isinstance(abc.ABCMeta("Abstract", (socket.socket,), {}), abc.ABCMeta)

    class Assigned(socket.socket):
        pass

    with socket.socket() as sock:
        yield shown(attempt(setattr, sock, "__class__", Assigned)).replace(
            "_native.Socket", "socket"
        )


@behaviour
def pickling_and_copying(socket: Any) -> Iterator[object]:
    class Mine(socket.socket):
        pass

    for cls in (socket.socket, Mine):
        with cls() as sock:
            for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
                yield protocol, attempt(pickle.dumps, sock, protocol)
            yield attempt(copy.copy, sock), attempt(copy.deepcopy, sock)
            yield attempt(copy.copy, [sock]) == [sock], attempt(copy.deepcopy, [sock])
            yield attempt(sock.__getstate__), attempt(sock.__reduce__)
            yield attempt(sock.__reduce_ex__, 2), attempt(sock.__reduce_ex__, 0)
        yield attempt(copy.copy, sock)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        for error in (socket.gaierror(1, "x"), socket.herror(2, "y"), socket.timeout("timed out")):
            yield pickle.loads(pickle.dumps(error, protocol))
        for value in (
            socket.AF_INET,
            socket.SOCK_STREAM,
            socket.MSG_PEEK,
            socket.MSG_PEEK | socket.MSG_OOB,
            socket.AI_PASSIVE,
        ):
            yield type(pickle.loads(pickle.dumps(value, protocol))), value
    yield copy.copy(socket.AF_INET) is socket.AF_INET, copy.deepcopy(socket.AF_INET)


@behaviour
def weak_references(socket: Any) -> Iterator[object]:
    sock = socket.socket()
    called: list[str] = []
    reference = weakref.ref(sock, lambda _: called.append("gone"))
    yield reference() is sock
    proxy = weakref.proxy(sock)
    yield proxy.family, attempt(proxy.recv, -1)
    table = weakref.WeakKeyDictionary({sock: 1})
    yield len(table)
    sock.close()
    del sock
    yield reference() is None, called, len(table), attempt(lambda: proxy.family)


@behaviour
def unclosed(socket: Any) -> Iterator[object]:
    """The warnings are compared, in `observe`; their texts have no descriptor in common."""
    for make in (
        lambda: socket.socket(),
        lambda: socket.socket(AF_UNIX, DGRAM),
        lambda: socket.socketpair()[0],
    ):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            sock = make()
            fd = sock.fileno()
            del sock
            gc.collect()
        yield [
            (each.category, shown(str(each.message)), shown(each.source)[:24]) for each in caught
        ]
        yield attempt(os.fstat, fd)


@behaviour
def unclosed_as_an_error(socket: Any) -> Iterator[object]:
    with unraisable() as seen, warnings.catch_warnings():
        warnings.simplefilter("error")
        sock = socket.socket()
        fd = sock.fileno()
        del sock
        gc.collect()
        yield [(kind, shown(text)) for kind, text in seen]
    yield attempt(os.fstat, fd)


@behaviour
def unclosed_in_a_cycle(socket: Any) -> Iterator[object]:
    class Held(socket.socket):
        pass

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sock = Held()
        sock.me = sock
        fd = sock.fileno()
        del sock
        gc.collect()
    yield [shown(str(each.message)) for each in caught]
    yield attempt(os.fstat, fd)


@behaviour
def finalizers(socket: Any) -> Iterator[object]:
    seen: list[object] = []

    class Dying(socket.socket):
        def __del__(self) -> None:
            seen.append((self.fileno() >= 0, self.family))
            self.close()

    sock = Dying()
    fd = sock.fileno()
    del sock
    gc.collect()
    yield seen, attempt(os.fstat, fd)

    class Reviving(socket.socket):
        def __del__(self) -> None:
            seen.append(self)

    seen.clear()
    sock = Reviving()
    del sock
    gc.collect()
    yield len(seen), seen[0].fileno() >= 0  # type: ignore[attr-defined]
    yield seen[0].send is not None, seen[0].close()  # type: ignore[attr-defined]
    seen.clear()
    gc.collect()
    yield seen

    class Raising(socket.socket):
        def __del__(self) -> None:
            raise ValueError("in __del__")

    with unraisable() as raised:
        sock = Raising()
        sock.close()
        del sock
        gc.collect()
        yield raised


@behaviour
def an_exception_survives_the_finalizer(socket: Any) -> Iterator[object]:
    def failing() -> None:
        sock = socket.socket()
        sock.close()
        raise KeyError("kept")

    yield attempt(failing)

    def closing() -> None:
        try:
            sock = socket.socket()
            os.close(sock.fileno())
            del sock
        finally:
            raise KeyError("kept")

    yield attempt(closing)


@behaviour
def the_context_manager(socket: Any) -> Iterator[object]:
    sock = socket.socket()
    with sock as same:
        yield same is sock, sock._closed
    yield sock._closed, sock.fileno()
    with sock as same:
        yield same is sock
    yield sock.__exit__(), attempt(sock.__exit__, 1, 2, 3, 4, 5), attempt(sock.__enter__, 1)

    def body() -> None:
        with socket.socket() as inner:
            inner.close()
            raise ValueError("inside")

    yield attempt(body)
    with socket.socket() as sock:
        fd = sock.detach()
    yield os.close(fd), sock._closed


@behaviour
def reference_counts(socket: Any) -> Iterator[object]:
    """Nothing of what is given is kept."""
    host, port = "".join(("127.0", ".0.1")), int("54321")
    address = (host, port)
    payload = bytes(bytearray(b"payload"))
    option = bytes(bytearray(4))
    before = [sys.getrefcount(each) for each in (host, port, address, payload, option)]
    with socket.socket(AF_INET, DGRAM) as sock:
        for _ in range(20):
            sock.connect(address)
            sock.connect_ex(address)
            attempt(sock.bind, address)
            attempt(sock.sendto, payload, address)
            attempt(sock.sendto, payload, 0, address)
            attempt(sock.send, payload)
            attempt(sock.sendall, payload, 0)
            attempt(sock.sendmsg, [payload], [], 0, address)
            attempt(sock.sendmsg, [payload], [(1, 1, option)])
            attempt(sock.setsockopt, 1, 2, option)
            attempt(sock.setsockopt, 1, 13, payload)
            attempt(socket.getaddrinfo, host, port)
            attempt(socket.getnameinfo, address, 3)
    after = [sys.getrefcount(each) for each in (host, port, address, payload, option)]
    yield [later - earlier for earlier, later in zip(before, after, strict=True)]
