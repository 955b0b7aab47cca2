"""setsockopt, getsockopt, listen, shutdown, inheritance."""

from __future__ import annotations

import array
import os
import socket as stock
import struct
from collections.abc import Iterator
from typing import Any

from tests.behaviours import Failing, Index, attempt, behaviour, shown, streams

SOL, KEEP, RCV = stock.SOL_SOCKET, stock.SO_KEEPALIVE, stock.SO_RCVBUF


@behaviour
def setting(socket: Any) -> Iterator[object]:
    for family in (stock.AF_INET, stock.AF_UNIX):
        with socket.socket(family) as sock:
            for arguments in (
                (SOL, KEEP, 1),
                (SOL, KEEP, 0),
                (SOL, KEEP, True),
                (SOL, KEEP, Index(1)),
                (SOL, KEEP, Failing()),
                (Index(SOL), Index(KEEP), Index(1)),
                (SOL, KEEP, -1),
                (SOL, KEEP, 2**31 - 1),
                (SOL, KEEP, -(2**31)),
                (SOL, KEEP, 2**31),
                (SOL, KEEP, -(2**31) - 1),
                (SOL, KEEP, 2**80),
                (SOL, KEEP, 1.0),
                (SOL, KEEP, "1"),
                (SOL, KEEP, b"\1\0\0\0"),
                (SOL, KEEP, b"\1\0\0\0\0\0\0\0"),
                (SOL, KEEP, b"\1"),
                (SOL, KEEP, b""),
                (SOL, KEEP, bytearray(4)),
                (SOL, KEEP, memoryview(b"\1\0\0\0")),
                (SOL, KEEP, memoryview(bytes(8))[::2]),
                (SOL, KEEP, array.array("i", [1])),
                (SOL, KEEP, array.array("d", [1.0])),
                (SOL, KEEP, []),
                (SOL, KEEP, None),
                (SOL, KEEP, None, 4),
                (SOL, KEEP, None, 0),
                (SOL, KEEP, None, -1),
                (SOL, KEEP, None, 2**32),
                (SOL, KEEP, None, 2**80),
                (SOL, KEEP, None, 1.5),
                (SOL, KEEP, None, "x"),
                (SOL, KEEP, None, True),
                (SOL, KEEP, None, Index(0)),
                (SOL, KEEP, None, None),
                (SOL, KEEP, 1, 4),
                (SOL, KEEP, b"x", 4),
                (SOL, KEEP, None, 4, 5),
                (SOL, KEEP),
                (SOL,),
                (),
                (SOL, KEEP, None, 1, 2, 3),
                ("1", KEEP, 1),
                (SOL, "9", 1),
                (SOL, 1.5, 1),
                (2**31, KEEP, 1),
                (SOL, 2**31, 1),
                (SOL, 2**80, 1),
                (-1, -1, 1),
                (SOL, 99999, 1),
                (99999, 1, 1),
                (SOL, stock.SO_LINGER, struct.pack("ii", 1, 5)),
                (SOL, stock.SO_LINGER, 1),
                (SOL, stock.SO_RCVTIMEO, struct.pack("ll", 1, 500000)),
                (SOL, stock.SO_BINDTODEVICE, b"lo\0"),
                (SOL, stock.SO_BINDTODEVICE, b"nonexistent\0"),
                (SOL, stock.SO_TYPE, 1),
                (SOL, stock.SO_ERROR, 1),
                (SOL, stock.SO_ACCEPTCONN, 1),
                (stock.IPPROTO_TCP, stock.TCP_NODELAY, 1),
                (stock.IPPROTO_TCP, stock.TCP_CONGESTION, b"cubic"),
                (stock.IPPROTO_TCP, stock.TCP_CONGESTION, b"nonsense"),
                (stock.IPPROTO_TCP, 31, None, 1),
                (stock.IPPROTO_IP, stock.IP_TTL, 64),
                (stock.IPPROTO_IP, stock.IP_TTL, 300),
                (stock.IPPROTO_IP, stock.IP_ADD_MEMBERSHIP, b"\xe0\0\0\1\x7f\0\0\1"),
                (stock.IPPROTO_IPV6, stock.IPV6_V6ONLY, 1),
            ):
                yield family, shown(arguments), attempt(sock.setsockopt, *arguments)
            yield attempt(sock.setsockopt, level=1, optname=2, value=3)
            yield attempt(sock.setsockopt, SOL, KEEP, value=3)


@behaviour
def getting(socket: Any) -> Iterator[object]:
    for family in (stock.AF_INET, stock.AF_UNIX):
        with socket.socket(family) as sock:
            for arguments in (
                (SOL, KEEP),
                (SOL, KEEP, 0),
                (SOL, KEEP, 1),
                (SOL, KEEP, 2),
                (SOL, KEEP, 4),
                (SOL, KEEP, 5),
                (SOL, KEEP, 1024),
                (SOL, KEEP, 1025),
                (SOL, KEEP, -1),
                (SOL, KEEP, 2**31),
                (SOL, KEEP, -(2**31)),
                (SOL, KEEP, 2**80),
                (SOL, KEEP, True),
                (SOL, KEEP, Index(4)),
                (SOL, KEEP, Failing()),
                (SOL, KEEP, None),
                (SOL, KEEP, 4.0),
                (SOL, KEEP, "4"),
                (Index(SOL), Index(KEEP)),
                ("1", KEEP),
                (SOL, None),
                (2**31, KEEP),
                (SOL,),
                (),
                (SOL, KEEP, 4, 5),
                (-1, -1),
                (SOL, 99999),
                (SOL, 99999, 4),
                (99999, 1),
                (SOL, stock.SO_TYPE),
                (SOL, stock.SO_DOMAIN),
                (SOL, stock.SO_PROTOCOL),
                (SOL, stock.SO_ERROR),
                (SOL, stock.SO_ERROR, 4),
                (SOL, stock.SO_ACCEPTCONN),
                (SOL, stock.SO_LINGER),
                (SOL, stock.SO_LINGER, 8),
                (SOL, stock.SO_LINGER, 100),
                (SOL, stock.SO_RCVTIMEO, 16),
                (SOL, stock.SO_PEERCRED),
                (SOL, stock.SO_BINDTODEVICE, 16),
                (stock.IPPROTO_TCP, stock.TCP_NODELAY),
                (stock.IPPROTO_TCP, stock.TCP_CONGESTION, 16),
                (stock.IPPROTO_TCP, stock.TCP_CONGESTION, 2),
                (stock.IPPROTO_TCP, stock.TCP_CONGESTION, 1024),
                (stock.IPPROTO_TCP, stock.TCP_KEEPIDLE),
                (stock.IPPROTO_IP, stock.IP_TTL),
                (stock.IPPROTO_IP, stock.IP_OPTIONS, 40),
            ):
                yield family, shown(arguments), attempt(sock.getsockopt, *arguments)
            yield (
                len(attempt(sock.getsockopt, stock.IPPROTO_TCP, stock.TCP_INFO, 1024))
                if (family == stock.AF_INET)
                else attempt(sock.getsockopt, stock.IPPROTO_TCP, stock.TCP_INFO, 1024)
            )
            yield attempt(sock.getsockopt, level=1, optname=2)


@behaviour
def what_was_set_is_got(socket: Any) -> Iterator[object]:
    with socket.socket() as sock:
        for level, option, value in (
            (SOL, KEEP, 1),
            (SOL, stock.SO_REUSEADDR, 1),
            (SOL, stock.SO_BROADCAST, 1),
            (SOL, stock.SO_OOBINLINE, 1),
            (SOL, RCV, 10000),
            (SOL, RCV, 1),
            (SOL, RCV, 2**31 - 1),
            (SOL, stock.SO_SNDBUF, 10000),
            (SOL, stock.SO_PRIORITY, 3),
            (SOL, stock.SO_RCVLOWAT, 7),
            (stock.IPPROTO_TCP, stock.TCP_NODELAY, 1),
            (stock.IPPROTO_TCP, stock.TCP_KEEPIDLE, 33),
            (stock.IPPROTO_TCP, stock.TCP_KEEPCNT, 3),
            (stock.IPPROTO_TCP, stock.TCP_USER_TIMEOUT, 4000),
            (stock.IPPROTO_IP, stock.IP_TOS, 0x10),
            (stock.IPPROTO_IP, stock.IP_TTL, 5),
        ):
            yield attempt(sock.setsockopt, level, option, value)
            yield level, option, value, attempt(sock.getsockopt, level, option)
            yield attempt(sock.getsockopt, level, option, 4)
        sock.setsockopt(SOL, stock.SO_LINGER, struct.pack("ii", 1, 5))
        yield struct.unpack("ii", sock.getsockopt(SOL, stock.SO_LINGER, 8))


@behaviour
def vsock(socket: Any) -> Iterator[object]:
    """64-bit options, whatever kernel there is: the family is what the object was told."""
    fd = stock.socket().detach()
    with socket.socket(stock.AF_VSOCK, stock.SOCK_STREAM, 0, fd) as sock:
        for arguments in (
            (SOL, KEEP, 1),
            (SOL, KEEP, 2**64 - 1),
            (SOL, KEEP, -1),
            (SOL, KEEP, 2**64),
            (SOL, KEEP, 2**80),
            (SOL, KEEP, b"\1\0\0\0"),
            (SOL, KEEP, None, 4),
            (SOL, KEEP, "x"),
            (SOL, KEEP, 1.5),
            (SOL, KEEP, Index(1)),
            (SOL, KEEP),
            (SOL, KEEP, 1, 2),
        ):
            yield shown(arguments), attempt(sock.setsockopt, *arguments)
        for arguments in (
            (SOL, KEEP),
            (SOL, KEEP, 0),
            (SOL, KEEP, 8),
            (SOL, KEEP, -1),
            (SOL, 9999),
        ):
            yield arguments, attempt(sock.getsockopt, *arguments)


@behaviour
def listening(socket: Any) -> Iterator[object]:
    for backlog in (
        (),
        (0,),
        (1,),
        (-1,),
        (-(2**31),),
        (2**31 - 1,),
        (2**31,),
        (-(2**31) - 1,),
        (2**80,),
        (True,),
        (Index(2),),
        (Failing(),),
        (None,),
        (1.5,),
        ("1",),
        (1, 2),
    ):
        with socket.socket() as sock:
            yield shown(backlog), attempt(sock.listen, *backlog)
            yield sock.getsockopt(SOL, stock.SO_ACCEPTCONN), sock.getsockname()[1] != 0
    with socket.socket() as sock:
        yield attempt(sock.listen, backlog=1)
        sock.listen()
        yield attempt(sock.listen, 3)
    with socket.socket(stock.AF_INET, stock.SOCK_DGRAM) as sock:
        yield attempt(sock.listen)
        yield attempt(sock.accept)
    with socket.socket() as sock:
        yield attempt(sock.accept)
    with socket.socket(stock.AF_UNIX) as sock:
        yield attempt(sock.listen), attempt(sock.accept)


@behaviour
def shutting_down(socket: Any) -> Iterator[object]:
    for how in (
        0,
        1,
        2,
        3,
        -1,
        99,
        True,
        Index(1),
        2**31,
        2**63,
        -(2**80),
        "1",
        1.0,
        None,
        Failing(),
    ):
        one, two = socket.socketpair()
        with one, two:
            yield shown(how), attempt(one.shutdown, how)
            two.settimeout(0)
            one.settimeout(0)
            yield attempt(two.recv, 1), attempt(one.recv, 1), attempt(one.send, b"x")
            yield attempt(one.shutdown, how)
    with socket.socket() as sock:
        yield attempt(sock.shutdown, 2)
    with streams(socket) as (client, server):
        client.shutdown(stock.SHUT_WR)
        yield (
            server.recv(1),
            attempt(client.send, b"x"),
            client.getpeername() == server.getsockname(),
        )
        server.shutdown(stock.SHUT_RDWR)
        yield attempt(server.shutdown, stock.SHUT_RDWR), attempt(client.recv, 1)


@behaviour
def inheritance(socket: Any) -> Iterator[object]:
    with socket.socket() as sock:
        yield sock.get_inheritable()
        for value in (True, False, 1, 0, -1, "x", None, 2.5, [], Index(1), Failing()):
            yield shown(value), attempt(sock.set_inheritable, value), sock.get_inheritable()
        sock.set_inheritable(True)
        with sock.dup() as copied:
            yield copied.get_inheritable(), os.get_inheritable(copied.fileno())
    yield attempt(sock.get_inheritable), attempt(sock.set_inheritable, True)
    yield attempt(sock.get_inheritable, 1), attempt(sock.set_inheritable)
