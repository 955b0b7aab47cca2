"""After close() and detach(); other threads; signals; fork."""

from __future__ import annotations

import contextlib
import io
import os
import select
import signal
import socket as stock
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from tests.behaviours import attempt, await_call, behaviour, shown, streams

CALLS: dict[str, Callable[[Any], object]] = {
    "accept": lambda sock: sock.accept(),
    "_accept": lambda sock: sock._accept(),
    "bind": lambda sock: sock.bind(("127.0.0.1", 0)),
    "bind unresolved": lambda sock: sock.bind(("127.0.0.1", -1)),
    "connect": lambda sock: sock.connect(("127.0.0.1", 1)),
    "connect_ex": lambda sock: sock.connect_ex(("127.0.0.1", 1)),
    "dup": lambda sock: sock.dup(),
    "fileno": lambda sock: sock.fileno(),
    "getblocking": lambda sock: sock.getblocking(),
    "getpeername": lambda sock: sock.getpeername(),
    "getsockname": lambda sock: sock.getsockname(),
    "getsockopt": lambda sock: sock.getsockopt(1, 3),
    "getsockopt bytes": lambda sock: sock.getsockopt(1, 3, 4),
    "getsockopt range": lambda sock: sock.getsockopt(1, 3, 5000),
    "gettimeout": lambda sock: sock.gettimeout(),
    "get_inheritable": lambda sock: sock.get_inheritable(),
    "set_inheritable": lambda sock: sock.set_inheritable(False),
    "listen": lambda sock: sock.listen(),
    "recv": lambda sock: sock.recv(1),
    "recv large": lambda sock: sock.recv(100000),
    "recv nothing": lambda sock: sock.recv(0),
    "recv negative": lambda sock: sock.recv(-1),
    "recv_into": lambda sock: sock.recv_into(bytearray(1)),
    "recv_into nothing": lambda sock: sock.recv_into(bytearray()),
    "recvfrom": lambda sock: sock.recvfrom(1),
    "recvfrom nothing": lambda sock: sock.recvfrom(0),
    "recvfrom_into": lambda sock: sock.recvfrom_into(bytearray(1)),
    "recvmsg": lambda sock: sock.recvmsg(1, 10),
    "recvmsg_into": lambda sock: sock.recvmsg_into([bytearray(1)]),
    "send": lambda sock: sock.send(b"x"),
    "send nothing": lambda sock: sock.send(b""),
    "send large": lambda sock: sock.send(bytes(100000)),
    "sendall": lambda sock: sock.sendall(b"x"),
    "sendall nothing": lambda sock: sock.sendall(b""),
    "sendmsg": lambda sock: sock.sendmsg([b"x"]),
    "sendto": lambda sock: sock.sendto(b"x", ("127.0.0.1", 1)),
    "sendfile": lambda sock: sock.sendfile(io.BytesIO(b"x")),
    "setblocking": lambda sock: sock.setblocking(True),
    "settimeout": lambda sock: sock.settimeout(None),
    "setsockopt": lambda sock: sock.setsockopt(1, 2, 1),
    "setsockopt bytes": lambda sock: sock.setsockopt(1, 2, b"\1\0\0\0"),
    "setsockopt none": lambda sock: sock.setsockopt(1, 2, None, 4),
    "shutdown": lambda sock: sock.shutdown(2),
    "family": lambda sock: (sock.family, sock.type, sock.proto, sock.timeout),
    "repr": lambda sock: shown(sock),
    "enter": lambda sock: sock.__enter__() is sock,
    "exit": lambda sock: sock.__exit__(None, None, None),
    "makefile": lambda sock: sock.makefile("rb", 0).close(),
    "detach": lambda sock: sock.detach(),
    "close": lambda sock: sock.close(),
}


@behaviour
def after_close(socket: Any) -> Iterator[object]:
    for timeout in (None, 0, 0.01):
        sock = socket.socket()
        sock.settimeout(timeout)
        yield sock.close(), sock.close(), sock._closed, sock._io_refs
        for name, call in CALLS.items():
            yield timeout, name, attempt(call, sock), sock.gettimeout()
            with contextlib.suppress(OSError):
                sock.settimeout(timeout)


@behaviour
def after_detach(socket: Any) -> Iterator[object]:
    for timeout in (None, 0, 0.01):
        sock = socket.socket()
        sock.settimeout(timeout)
        fd = sock.detach()
        yield sock._closed, sock.detach()
        for name, call in CALLS.items():
            yield timeout, name, attempt(call, sock), sock.gettimeout()
            with contextlib.suppress(OSError):
                sock.settimeout(timeout)
        yield os.get_blocking(fd), os.close(fd)


@behaviour
def after_the_descriptor_was_closed(socket: Any) -> Iterator[object]:
    for timeout in (None, 0, 0.01):
        for name, call in CALLS.items():
            sock = socket.socket()
            sock.settimeout(timeout)
            os.close(sock.fileno())
            got = attempt(call, sock)
            yield timeout, name, "a descriptor" if name in ("detach", "fileno") else got
            sock.detach()
    sock = socket.socket()
    os.close(sock.fileno())
    yield attempt(sock.close), sock.fileno(), attempt(sock.close)
    sock = socket.socket()
    yield socket.close(sock.fileno()), attempt(sock.close), sock._closed


@behaviour
def a_raising_close(socket: Any) -> Iterator[object]:
    def body() -> None:
        with socket.socket() as sock:
            os.close(sock.fileno())

    yield attempt(body)

    def raising() -> None:
        with socket.socket() as sock:
            os.close(sock.fileno())
            raise KeyError("first")

    error: Any = attempt(raising)
    yield type(error), type(error.__context__)


@contextlib.contextmanager
def interrupted(handler: Any, after: float = 0.05, every: float = 0.05) -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, after, every)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Alarm(Exception):
    pass


def raising(*_: object) -> None:
    raise Alarm("rang")


def alarmed(call: Callable[..., object], *arguments: object) -> object:
    """What becomes of the call when a handler raises: the first time that it rings, and no more,
    for on a busy machine it may ring again before it is stopped."""
    rings: list[int] = []

    def once(number: int, _: object) -> None:
        rings.append(number)
        if len(rings) == 1:
            raise Alarm("rang")

    def begun() -> object:
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
        return call(*arguments)

    with interrupted(once, after=0, every=0):
        return attempt(begun)


@behaviour
def a_handler_that_raises(socket: Any, path: str) -> Iterator[object]:
    for timeout in (None, 60):
        one, two = socket.socketpair()
        listener = socket.create_server(("127.0.0.1", 0))
        full = socket.socket(stock.AF_UNIX)
        full.bind(f"{path}/full{timeout}")
        full.listen(0)
        first, second = socket.socket(stock.AF_UNIX), socket.socket(stock.AF_UNIX)
        first.connect(f"{path}/full{timeout}")
        with one, two, listener, full, first, second:
            for sock in (one, listener, second):
                sock.settimeout(timeout)
            with open("/dev/zero", "rb") as zero, open(f"{path}/large", "wb") as large:
                large.truncate(50_000_000)
                with open(f"{path}/large", "rb") as file:
                    for call in (
                        lambda: one.recv(1),
                        lambda: one.recv(100000),
                        lambda: one.recv_into(bytearray(1)),
                        lambda: one.recvfrom(1),
                        lambda: one.recvfrom_into(bytearray(1)),
                        lambda: one.recvmsg(1),
                        lambda: one.recvmsg_into([bytearray(1)]),
                        lambda: one.recv(5, stock.MSG_WAITALL),
                        lambda: listener.accept(),
                        lambda: one.sendall(bytes(50_000_000)),
                        lambda: one.send(b"x"),
                        lambda: one.sendmsg([b"x"]),
                        lambda: one.sendfile(zero),
                        lambda: one.sendfile(file),
                        lambda: one.makefile("rb", 0).read(1),
                    ):
                        yield timeout, alarmed(call)
                    if timeout is None:
                        yield alarmed(second.connect, f"{path}/full{timeout}")
                        yield alarmed(second.connect_ex, f"{path}/full{timeout}")


@behaviour
def a_handler_that_returns(socket: Any) -> Iterator[object]:
    """PEP 475: the call goes on, until its deadline or its end."""
    rings: list[int] = []

    def ring(*_: object) -> None:
        rings.append(1)

    one, two = socket.socketpair()
    listener = socket.create_server(("127.0.0.1", 0))
    with one, two, listener:
        for sock in (one, listener):
            sock.settimeout(0.3)
        for call in (
            lambda: one.recv(1),
            lambda: one.recv_into(bytearray(1)),
            lambda: one.recvfrom(1),
            lambda: one.recvmsg(1),
            lambda: listener.accept(),
            lambda: one.sendall(bytes(50_000_000)),
            lambda: one.send(bytes(1)),
        ):
            rings.clear()
            begun = time.monotonic()
            with interrupted(ring):
                yield attempt(call)
            yield len(rings) > 0, time.monotonic() - begun > 0.29
        one.settimeout(None)
        while not isinstance(attempt(two.recv, 1 << 20, stock.MSG_DONTWAIT), BlockingIOError):
            pass
        for call in (
            lambda: one.recv(1),
            lambda: one.recv_into(bytearray(1)),
            lambda: one.recvfrom(1),
            lambda: one.recvmsg(1),
        ):
            rings.clear()

            def ring_and_send(*_: object) -> None:
                rings.append(1)
                if len(rings) == 3:
                    two.send(b"x")

            with interrupted(ring_and_send):
                yield attempt(call), len(rings) >= 3


@behaviour
def a_handler_in_the_midst_of_a_send(socket: Any) -> Iterator[object]:
    """A part was sent, and the rest waits for a peer that reads no more: the handler must run."""
    data = bytes(30_000)
    sender = threading.get_ident()

    def read_a_part(server: Any, full: int, ended: threading.Event, late: list[bool]) -> None:
        ended.wait(0.2)
        while full > 0:
            full -= len(server.recv(full))
        server.recv(1, stock.MSG_PEEK)
        signal.pthread_kill(sender, signal.SIGALRM)
        late.append(not ended.wait(10))
        server.settimeout(0.1)
        while not ended.is_set():
            with contextlib.suppress(TimeoutError):
                server.recv(1 << 16)

    for handler, names in (
        (raising, ("send", "send a buffer", "sendto", "sendto with flags", "sendmsg", "sendall")),
        (lambda *_: None, ("send", "sendto", "sendmsg")),
    ):
        for name in names:
            with socket.create_server(("127.0.0.1", 0)) as listener:
                # Little fits.
                listener.setsockopt(stock.SOL_SOCKET, stock.SO_RCVBUF, 4096)
                client = socket.socket()
                client.setsockopt(stock.SOL_SOCKET, stock.SO_SNDBUF, 4096)
                client.connect(listener.getsockname())
                server, _ = listener.accept()
            with client, server:
                full = 0
                while select.select([], [client], [], 0.05)[1]:
                    with contextlib.suppress(BlockingIOError):
                        full += client.send(data, stock.MSG_DONTWAIT)
                peer = server.getsockname()
                call, *arguments = {
                    "send": (client.send, data),
                    "send a buffer": (client.send, bytearray(data)),
                    "sendto": (client.sendto, data, peer),
                    "sendto with flags": (client.sendto, data, stock.MSG_NOSIGNAL, peer),
                    "sendmsg": (client.sendmsg, [data]),
                    "sendall": (client.sendall, data),
                }[name]
                ended = threading.Event()
                late: list[bool] = []
                reader = threading.Thread(target=read_a_part, args=(server, full, ended, late))
                with interrupted(handler, after=0, every=0):
                    reader.start()
                    sent = attempt(call, *arguments)
                    ended.set()
                    reader.join()
                yield name, (isinstance(sent, int) and 0 < sent < len(data)) or sent, late


@behaviour
def a_handler_that_closes(socket: Any, path: str) -> Iterator[object]:
    """Of a signal that has come while the call waits: there is nothing to wait for any more."""
    with open(f"{path}/large", "wb") as large:
        large.truncate(50_000_000)
    with socket.create_server(("127.0.0.1", 0), backlog=1) as full, contextlib.ExitStack() as stack:
        # Nobody accepts: further ones are not answered.
        while True:
            waiting = stack.enter_context(socket.socket())
            waiting.settimeout(0.2)
            if isinstance(attempt(waiting.connect, full.getsockname()), OSError):
                break
        file = stack.enter_context(open(f"{path}/large", "rb"))
        for timeout in (None, 60):
            for name, call in (
                ("recv", lambda sock: sock.recv(1)),
                ("recv much", lambda sock: sock.recv(100_000)),
                ("recv whole", lambda sock: sock.recv(5, stock.MSG_WAITALL)),
                ("recv_into", lambda sock: sock.recv_into(bytearray(1))),
                ("recvfrom", lambda sock: sock.recvfrom(1)),
                ("recvfrom_into", lambda sock: sock.recvfrom_into(bytearray(1))),
                ("recvmsg", lambda sock: sock.recvmsg(1)),
                ("recvmsg_into", lambda sock: sock.recvmsg_into([bytearray(1)])),
                ("sendall", lambda sock: sock.sendall(bytes(50_000_000))),
                ("send", lambda sock: [sock.send(bytes(1_000_000)) for _ in range(50)]),
                ("sendmsg", lambda sock: [sock.sendmsg([bytes(1_000_000)]) for _ in range(50)]),
                ("sendfile", lambda sock: sock.sendfile(file)),
                ("accept", lambda sock: sock.accept()),
                ("connect", lambda sock, full=full: sock.connect(full.getsockname())),
                ("connect_ex", lambda sock, full=full: sock.connect_ex(full.getsockname())),
            ):
                if name == "accept":
                    one, two = socket.create_server(("127.0.0.1", 0)), socket.socket()
                elif name.startswith("connect"):
                    one, two = socket.socket(), socket.socket()
                else:
                    one, two = socket.socketpair()
                one.settimeout(timeout)
                begun = time.monotonic()
                with interrupted(lambda *_, one=one: one.close(), every=0), two:
                    ended = attempt(call, one)
                yield timeout, name, ended, time.monotonic() - begun < 30


@behaviour
def another_thread_shuts_down(socket: Any) -> Iterator[object]:
    """What a program does to wake its threads."""
    for timeout in (None, 60):
        for name, call in (
            ("recv", lambda sock: sock.recv(1)),
            ("recv_into", lambda sock: sock.recv_into(bytearray(1))),
            ("recvfrom", lambda sock: sock.recvfrom(1)),
            ("recvmsg", lambda sock: sock.recvmsg(1)),
            ("sendall", lambda sock: sock.sendall(bytes(50_000_000))),
        ):
            with streams(socket) as (client, _server):
                client.settimeout(timeout)
                seen: list[object] = []
                thread = threading.Thread(
                    target=lambda c=client, f=call, s=seen: s.append(attempt(f, c))
                )
                thread.start()
                time.sleep(0.05)
                client.shutdown(stock.SHUT_RDWR)
                thread.join(30)
                error = seen[0] if seen else "still waiting"
                # Either, as the kernel likes: the connection is gone.
                yield timeout, name, "an error" if isinstance(error, OSError) else error
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.settimeout(timeout)
            seen = []
            thread = threading.Thread(target=lambda: seen.append(attempt(listener.accept)))
            thread.start()
            time.sleep(0.05)
            listener.shutdown(stock.SHUT_RDWR)
            thread.join(30)
            yield seen


@behaviour
def another_thread_closes(socket: Any) -> Iterator[object]:
    """At the end of its timeout, a call says that its descriptor is gone."""
    for call in (
        lambda sock: sock.recv(1),
        lambda sock: sock.recv(100_000),
        lambda sock: sock.recv_into(bytearray(1)),
        lambda sock: sock.recvfrom(1),
        lambda sock: sock.recvmsg(1),
        lambda sock: sock.sendall(bytes(50_000_000)),
    ):
        with streams(socket) as (client, _server):
            client.settimeout(0.6)
            seen: list[object] = []
            thread = threading.Thread(
                target=lambda c=client, f=call, s=seen: s.append(attempt(f, c))
            )
            thread.start()
            await_call(thread)
            client.close()
            thread.join(30)
            yield seen
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.6)
    seen = []
    thread = threading.Thread(target=lambda: seen.append(attempt(listener.accept)))
    thread.start()
    await_call(thread)
    listener.close()
    thread.join(30)
    yield seen


@behaviour
def many_threads(socket: Any) -> Iterator[object]:
    one, two = socket.socketpair(stock.AF_UNIX, stock.SOCK_SEQPACKET)
    with one, two:
        two.settimeout(30)
        got: list[bytes] = []

        def read() -> None:
            while data := two.recv(100):
                got.append(data)

        readers = [threading.Thread(target=read) for _ in range(4)]
        for each in readers:
            each.start()
        writers = [
            threading.Thread(target=lambda n=n: [one.send(b"%d-%d" % (n, i)) for i in range(200)])
            for n in range(4)
        ]
        for each in writers:
            each.start()
        for each in writers:
            each.join()
        one.shutdown(stock.SHUT_WR)
        for each in readers:
            each.join()
        yield sorted(got) == sorted(b"%d-%d" % (n, i) for n in range(4) for i in range(200))


def in_child(body: Callable[[], object]) -> object:
    """What a forked child says of the body, and its status."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        text = "nothing"
        try:
            text = repr(body())
        except BaseException as error:
            text = repr(error)
        finally:
            os.write(write, text.encode())
            os._exit(0)
    os.close(write)
    with open(read, "rb") as pipe:
        said = pipe.read().decode()
    return said, os.waitpid(pid, 0)[1]


@behaviour
def fork(socket: Any) -> Iterator[object]:
    one, two = socket.socketpair()
    with one, two:
        yield in_child(lambda: (one.send(b"from the child"), one.fileno() >= 0, one.close()))
        yield two.recv(100), one.send(b"still open"), two.recv(100)
        yield in_child(lambda: (one.getsockname(), one.detach() >= 0, one._closed))
        yield in_child(lambda: socket.socketpair()[0].send(b"x"))
        yield one.fileno() >= 0
    socket.setdefaulttimeout(5)
    try:
        yield in_child(lambda: (socket.getdefaulttimeout(), socket.socket().gettimeout()))
    finally:
        socket.setdefaulttimeout(None)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        name = listener.getsockname()

        def serve() -> object:
            connection, _ = listener.accept()
            with connection:
                return connection.recv(100)

        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.write(write, repr(attempt(serve)).encode())
            os._exit(0)
        os.close(write)
        with socket.create_connection(name) as client:
            client.sendall(b"to the child")
        with open(read, "rb") as pipe:
            yield pipe.read(), os.waitpid(pid, 0)[1]
