"""Timeouts and blocking modes."""

from __future__ import annotations

import decimal
import fractions
import math
import os
import socket as stock
import sys
import time
from collections.abc import Iterator
from typing import Any

from tests.behaviours import Failing, Index, attempt, behaviour, shown, streams

INF = float("inf")


class OnlyFloat:
    def __float__(self) -> float:
        return 1.5

    def __repr__(self) -> str:
        return "OnlyFloat()"


class Float(float):
    pass


class Int(int):
    pass


VALUES = (
    None,
    0,
    0.0,
    -0.0,
    1,
    1.0,
    2.5,
    True,
    False,
    0.1,
    1e-3,
    1e-9,
    1e-10,
    1e-300,
    5e-324,
    0.0000000015,
    1.0000000001,
    123456789.123456789,
    4294968,
    2**31 / 1000,
    2**31,
    2**32,
    9e9,
    9223372036.0,
    9223372036,
    9223372036.854775,
    9223372036.854776,
    9223372037,
    9223372037.0,
    2**40,
    2**62,
    2**63,
    2**64,
    2**100,
    -1,
    -1.0,
    -1e-10,
    -5e-324,
    -(2**63),
    -(2**100),
    -9223372037.0,
    INF,
    -INF,
    math.nan,
    -math.nan,
    1e30,
    -1e30,
    1e308,
    Index(3),
    Index(-3),
    Index(2**70),
    Float(1.25),
    Float("nan"),
    Int(7),
    Int(-7),
    OnlyFloat(),
    Failing(),
    decimal.Decimal(1),
    decimal.Decimal("1.5"),
    fractions.Fraction(1, 2),
    1j,
    "1",
    "",
    b"1",
    [],
    (),
    (1,),
    {},
    object,
    ...,
    NotImplemented,
)


@behaviour
def settimeout(socket: Any) -> Iterator[object]:
    with socket.socket() as sock:
        for value in VALUES:
            yield (
                shown(value),
                attempt(sock.settimeout, value),
                shown(sock.gettimeout()),
                shown(sock.timeout),
                sock.getblocking(),
                os.get_blocking(sock.fileno()),
            )


@behaviour
def setdefaulttimeout(socket: Any) -> Iterator[object]:
    try:
        for value in VALUES:
            yield shown(value), attempt(socket.setdefaulttimeout, value)
            yield shown(socket.getdefaulttimeout())
            with socket.socket() as sock:
                yield shown(sock.gettimeout()), sock.getblocking(), os.get_blocking(sock.fileno())
    finally:
        socket.setdefaulttimeout(None)
    for arguments in ((), (1, 2), (None, None)):
        yield attempt(socket.setdefaulttimeout, *arguments)
    yield attempt(socket.setdefaulttimeout, timeout=1)
    yield attempt(socket.getdefaulttimeout, 1), attempt(socket.getdefaulttimeout, x=1)


@behaviour
def setblocking(socket: Any) -> Iterator[object]:
    with socket.socket() as sock:
        for value in (*VALUES, 2, -1, 0.0, "", "x", b"", None, {1: 2}):
            yield (
                shown(value),
                attempt(sock.setblocking, value),
                shown(sock.gettimeout()),
                sock.getblocking(),
                os.get_blocking(sock.fileno()),
            )
            sock.settimeout(3)


@behaviour
def closed(socket: Any) -> Iterator[object]:
    sock = socket.socket()
    sock.close()
    for value in (None, 0, 1.5, -1, math.nan, "x"):
        yield shown(value), attempt(sock.settimeout, value), sock.gettimeout(), sock.timeout
    for value in (True, False):
        yield value, attempt(sock.setblocking, value), sock.gettimeout(), sock.getblocking()


@behaviour
def inherited_by_a_connection(socket: Any) -> Iterator[object]:
    for default in (None, 0, 7, 0.5):
        for timeout in (None, 0, 3):
            with socket.socket() as listener, socket.socket() as client:
                listener.bind(("127.0.0.1", 0))
                listener.listen()
                client.connect(listener.getsockname())
                listener.settimeout(3)
                time.sleep(0)
                listener.settimeout(timeout)
                socket.setdefaulttimeout(default)
                try:
                    connection, _ = listener.accept()
                finally:
                    socket.setdefaulttimeout(None)
                with connection:
                    yield (
                        default,
                        timeout,
                        connection.gettimeout(),
                        os.get_blocking(connection.fileno()),
                        connection.get_inheritable(),
                        connection.family,
                        connection.type,
                        connection.proto,
                    )


@behaviour
def inherited_by_a_duplicate(socket: Any) -> Iterator[object]:
    for default in (None, 0, 7):
        for timeout in (None, 0, 3):
            with socket.socket() as sock:
                sock.settimeout(timeout)
                socket.setdefaulttimeout(default)
                try:
                    copies = [sock.dup(), socket.fromfd(sock.fileno(), sock.family, sock.type)]
                finally:
                    socket.setdefaulttimeout(None)
                for each in copies:
                    with each:
                        yield default, timeout, each.gettimeout(), os.get_blocking(each.fileno())
                        yield each.get_inheritable()


@behaviour
def of_pairs(socket: Any) -> Iterator[object]:
    for default in (None, 0, 7):
        socket.setdefaulttimeout(default)
        try:
            pair = socket.socketpair()
        finally:
            socket.setdefaulttimeout(None)
        for each in pair:
            with each:
                yield each.gettimeout(), os.get_blocking(each.fileno()), each.get_inheritable()


@behaviour
def passes(socket: Any) -> Iterator[object]:
    one, two = socket.socketpair()
    datagrams = socket.socket(stock.AF_INET, stock.SOCK_DGRAM)
    datagrams.bind(("127.0.0.1", 0))
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    with one, two, datagrams, listener:
        for timeout in (0.01, 0):
            for sock in (one, datagrams, listener):
                sock.settimeout(timeout)
            for call in (
                lambda: one.recv(1),
                lambda: one.recv(100000),
                lambda: one.recv_into(bytearray(1)),
                lambda: one.recv_into(bytearray(100000)),
                lambda: one.recvfrom(1),
                lambda: one.recvfrom_into(bytearray(1)),
                lambda: one.recvmsg(1),
                lambda: one.recvmsg_into([bytearray(1)]),
                lambda: one.recvmsg_into([]),
                lambda: datagrams.recv(1),
                lambda: datagrams.recvfrom(0),
                lambda: datagrams.recvfrom(1),
                lambda: datagrams.recvfrom_into(bytearray(0)),
                lambda: datagrams.recvmsg(0),
                lambda: one.recv(1, stock.MSG_DONTWAIT),
                lambda: one.recv(1, stock.MSG_WAITALL),
                lambda: one.recv(1, stock.MSG_PEEK),
                lambda: listener.accept(),
                lambda: listener._accept(),
                lambda: one.sendall(bytes(1 << 22)),
                lambda: one.send(b"x"),
                lambda: one.send(bytes(1 << 22)),
                lambda: one.sendmsg([b"x"]),
            ):
                yield timeout, attempt(call)
            two.settimeout(0)
            while not isinstance(attempt(two.recv, 1 << 22), BlockingIOError):
                pass


@behaviour
def of_a_shared_mode(socket: Any) -> Iterator[object]:
    """The mode is the descriptor's; the timeout is the object's."""
    one, two = socket.socketpair()
    with one, two, one.dup() as copied:
        copied.setblocking(False)
        yield one.gettimeout(), os.get_blocking(one.fileno())
        yield attempt(one.recv, 1), attempt(one.recv, 20000), attempt(one.recvmsg, 1)
        one.settimeout(0.01)
        yield attempt(one.recv, 1)
        os.set_blocking(one.fileno(), True)
        yield attempt(one.recv, 1), attempt(one.recv_into, bytearray(70000))
        one.setblocking(False)
        os.set_blocking(one.fileno(), True)
        two.send(b"abc")
        yield attempt(one.recv, 1), attempt(one.recv, 1, stock.MSG_DONTWAIT)


@behaviour
def connecting(socket: Any) -> Iterator[object]:
    """A listener whose queue is full lets no one in."""
    listener = socket.socket(stock.AF_UNIX)
    name = f"\0behaviours-connecting-{os.getpid()}"
    listener.bind(name)
    listener.listen(0)
    waiting = socket.socket(stock.AF_UNIX)
    waiting.connect(name)
    for timeout in (0, 0.01):
        sock = socket.socket(stock.AF_UNIX)
        sock.settimeout(timeout)
        yield timeout, attempt(sock.connect, name), attempt(sock.connect_ex, name)
        sock.close()
    waiting.close()
    listener.close()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        peers = []
        # Two fill the queue of a listener with backlog 0.
        for _ in range(2):
            peers.append(socket.socket())
            peers[-1].setblocking(False)
            attempt(peers[-1].connect, listener.getsockname())
        for timeout in (0.05,):
            with socket.socket() as sock:
                sock.settimeout(timeout)
                yield attempt(sock.connect, listener.getsockname())
            with socket.socket() as sock:
                sock.settimeout(timeout)
                yield attempt(sock.connect_ex, listener.getsockname())
            yield attempt(lambda: socket.create_connection(listener.getsockname(), 0.05))
        with socket.socket() as sock:
            sock.setblocking(False)
            yield attempt(sock.connect, listener.getsockname())
            yield attempt(sock.connect, listener.getsockname())
        with socket.socket() as sock:
            sock.setblocking(False)
            yield sock.connect_ex(listener.getsockname()), sock.connect_ex(listener.getsockname())
        for peer in peers:
            peer.close()


@behaviour
def the_whole_of_sendall(socket: Any) -> Iterator[object]:
    """The timeout is the limit for all that sendall() does: a slow reader does not extend it."""
    import threading

    with streams(socket) as (client, server):
        client.setsockopt(stock.SOL_SOCKET, stock.SO_SNDBUF, 1)
        stop = threading.Event()
        server.settimeout(5)

        def slowly() -> None:
            while not stop.wait(0.05):
                attempt(server.recv, 100)

        reader = threading.Thread(target=slowly)
        reader.start()
        client.settimeout(0.4)
        begun = time.monotonic()
        try:
            yield attempt(client.sendall, bytes(50_000_000))
            yield 0.35 < time.monotonic() - begun < 30
        finally:
            stop.set()
            reader.join()
    yield sys.getswitchinterval() > 0
