"""The module's functions, briefly: tests of this interpreter's say more, these ask every one."""

from __future__ import annotations

import math
import socket as stock
import sys
from collections.abc import Iterator
from typing import Any

from tests.behaviours import Failing, Index, attempt, behaviour, shown

NUMBERS = (
    0,
    1,
    255,
    65535,
    65536,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**32,
    2**63 - 1,
    2**63,
    2**64,
    2**80,
    -1,
    -(2**31),
    -(2**31) - 1,
    -(2**63),
    -(2**80),
    True,
    False,
    1.0,
    math.nan,
    "1",
    b"1",
    None,
    [],
    Failing(),
    object,
)


@behaviour
def byte_order(socket: Any) -> Iterator[object]:
    for name in ("htons", "ntohs", "htonl", "ntohl"):
        for number in NUMBERS:
            # An object with __index__ is taken by all on every version, as in 3.14.
            if not isinstance(number, Failing) or sys.version_info >= (3, 14):
                yield name, shown(number), attempt(getattr(socket, name), number)
        for given in ((), (1, 2)):
            yield name, given, attempt(getattr(socket, name), *given)
        yield name, attempt(getattr(socket, name), x=1)


@behaviour
def control_message_sizes(socket: Any) -> Iterator[object]:
    for name in ("CMSG_LEN", "CMSG_SPACE"):
        for number in (
            *NUMBERS,
            Index(4),
            0x7FFFFFFF - 16,
            0x7FFFFFFF - 15,
            0x7FFFFFF0,
            7,
            8,
            9,
            16,
        ):
            yield name, shown(number), attempt(getattr(socket, name), number)
        yield attempt(getattr(socket, name)), attempt(getattr(socket, name), 1, 2)
        yield attempt(getattr(socket, name), length=1)


@behaviour
def packed_addresses(socket: Any) -> Iterator[object]:
    for text in (
        "",
        "0",
        "1",
        "1.2",
        "1.2.3",
        "1.2.3.4",
        "1.2.3.4.5",
        "1.2.3.4 ",
        " 1.2.3.4",
        "1.2.3.4x",
        "1.2.3.256",
        "0x7f.1",
        "0377.1",
        "08",
        "4294967295",
        "4294967296",
        "255.255.255.255",
        "1.2.3.4\0",
        "\0",
        "é",
        "\ud800",
        "::1",
        "::",
        "1::2::3",
        "::1%lo",
        "fe80::1",
        "::ffff:1.2.3.4",
        "12345::",
        "1:2:3:4:5:6:7:8",
        "1:2:3:4:5:6:7:8:9",
        "x" * 10000,
        b"1.2.3.4",
        bytearray(b"1.2.3.4"),
        None,
        5,
        1.5,
        [],
        object,
    ):
        yield shown(text)[:40], attempt(socket.inet_aton, text)
        for family in (stock.AF_INET, stock.AF_INET6, stock.AF_UNIX, 0, -1, 999, True):
            yield family, attempt(socket.inet_pton, family, text)
    for packed in (
        b"",
        b"\0",
        bytes(4),
        b"\1\2\3\4",
        bytes(5),
        bytes(15),
        bytes(16),
        b"\xff" * 16,
        bytes(17),
        b"\0" * 10 + b"\xff\xff\1\2\3\4",
        bytearray(4),
        memoryview(b"\1\2\3\4"),
        memoryview(bytes(8))[::2],
        "1234",
        "",
        None,
        5,
        [1, 2, 3, 4],
        object,
    ):
        yield shown(packed)[:40], attempt(socket.inet_ntoa, packed)
        for family in (
            stock.AF_INET,
            stock.AF_INET6,
            stock.AF_UNIX,
            0,
            -1,
            999,
            2**31,
            2**80,
            "2",
            None,
            2.0,
        ):
            yield shown(family), attempt(socket.inet_ntop, family, packed)
            yield attempt(socket.inet_pton, family, "1.2.3.4")
    for name in ("inet_aton", "inet_ntoa", "inet_pton", "inet_ntop"):
        for given in ((), (2,), (2, 3, 4), (2, b"x", 3)):
            yield name, given, attempt(getattr(socket, name), *given)
        yield attempt(getattr(socket, name), x=1), attempt(getattr(socket, name), 2, x=1)


@behaviour
def interfaces(socket: Any) -> Iterator[object]:
    yield socket.if_nameindex(), attempt(socket.if_nameindex, 1), attempt(socket.if_nameindex, x=1)
    for name in (
        "lo",
        b"lo",
        bytearray(b"lo"),
        "",
        "nonsense",
        "lo\0",
        b"lo\0x",
        "x" * 15,
        "x" * 16,
        "x" * 1000,
        "é",
        "\udcff",
        "\ud800",
        __import__("pathlib").Path("lo"),
        None,
        1,
        1.5,
        [],
        object,
    ):
        yield shown(name)[:40], attempt(socket.if_nametoindex, name)
    for index in NUMBERS:
        if not isinstance(index, Failing) or sys.version_info >= (3, 14):
            yield shown(index), attempt(socket.if_indextoname, index)
    for name in ("if_nametoindex", "if_indextoname"):
        yield attempt(getattr(socket, name)), attempt(getattr(socket, name), 1, 2)
        yield attempt(getattr(socket, name), x=1)


HOSTS = (
    None,
    "",
    b"",
    "127.0.0.1",
    b"127.0.0.1",
    "::1",
    "::1%lo",
    "fe80::1%lo",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "127.1",
    "0x7f000001",
    "<broadcast>",
    "255.255.255.255",
    "0.0.0.0",
    "::",
    "256.256.256.256",
    "1.2.3.4.5",
    "a..b",
    ".a",
    ".",
    "..",
    "a" * 63 + ".invalid",
    "a" * 64 + ".invalid",
    "é" * 64,
    "\ud800",
    "\udcff",
    "\u2024",
    "\uff11\uff12\uff17.0.0.1",
    "nonsense.invalid",
    b"nonsense.invalid",
    b"\xff\xfe",
    "-",
    " ",
    "a b",
    "[::1]",
    "127.0.0.1:80",
    bytearray(b"127.0.0.1"),
    memoryview(b"127.0.0.1"),
    5,
    1.5,
    [],
    (),
    object,
)
PORTS = (
    None,
    0,
    1,
    80,
    65535,
    65536,
    2**31,
    2**40,
    2**63,
    2**80,
    -1,
    -(2**80),
    True,
    "80",
    "",
    "0",
    "-1",
    "+1",
    " 80",
    "80 ",
    "080",
    "0x50",
    "65536",
    "99999999999",
    "http",
    "HTTP",
    "nonsense",
    "é",
    "\ud800",
    b"80",
    b"http",
    b"",
    b"\xff",
    bytearray(b"80"),
    1.5,
    80.0,
    [],
    object,
)


@behaviour
def getaddrinfo(socket: Any) -> Iterator[object]:
    for host in HOSTS:
        for port in (None, 80):
            yield shown(host)[:50], port, attempt(socket.getaddrinfo, host, port)
            yield attempt(
                socket.getaddrinfo, host, port, 0, stock.SOCK_STREAM, 0, stock.AI_NUMERICHOST
            )
    for port in PORTS:
        if port is True and sys.version_info < (3, 14):
            continue  # as Index
        for host in (None, "127.0.0.1"):
            yield host, shown(port), attempt(socket.getaddrinfo, host, port)
            yield attempt(socket.getaddrinfo, host, port, stock.AF_INET, stock.SOCK_STREAM)
    if sys.version_info >= (3, 14):
        yield attempt(socket.getaddrinfo, "127.0.0.1", Index(80))
    for family in (
        0,
        2,
        10,
        1,
        16,
        17,
        999,
        -1,
        2**31,
        2**80,
        "2",
        None,
        2.0,
        True,
        Index(2),
        Failing(),
    ):
        yield shown(family), attempt(socket.getaddrinfo, "127.0.0.1", 80, family)
        yield attempt(socket.getaddrinfo, "::1", 80, family, 1)
        yield attempt(socket.getaddrinfo, "::1", 80, type=family)
        yield attempt(socket.getaddrinfo, "::1", 80, proto=family, type=1)
        yield attempt(socket.getaddrinfo, "127.0.0.1", 80, 0, 1, 0, family)
    for flags in (
        *(1 << bit for bit in range(14)),
        stock.AI_CANONNAME | stock.AI_NUMERICHOST,
        stock.AI_V4MAPPED | stock.AI_ALL,
        stock.AI_PASSIVE | stock.AI_NUMERICSERV,
        -1,
    ):
        for host in ("127.0.0.1", "localhost", None):
            for family in (0, stock.AF_INET6):
                yield flags, host, attempt(socket.getaddrinfo, host, "80", family, 1, 0, flags)
    for proto in (0, 6, 17, 1, 132, 136, 262, 255, 999, -1):
        for kind in (0, 1, 2, 3, 5):
            yield proto, kind, attempt(socket.getaddrinfo, "127.0.0.1", 80, 0, kind, proto)
    for given in ((), ("x",), ("127.0.0.1", 80, 0, 0, 0, 0, 0)):
        yield attempt(socket.getaddrinfo, *given)
    yield attempt(socket.getaddrinfo, host="127.0.0.1", port=80, family=2, type=1, proto=6, flags=0)
    yield (
        attempt(socket.getaddrinfo, "127.0.0.1", nonsense=80),
        attempt(socket.getaddrinfo, port=80),
    )
    yield [[type(each) for each in item] for item in socket.getaddrinfo("127.0.0.1", 80)]


@behaviour
def getnameinfo(socket: Any) -> Iterator[object]:
    for address in (
        ("127.0.0.1", 80),
        ("127.0.0.1", 0),
        ("::1", 80),
        ("::1", 80, 0, 0),
        ("::1", 80, 1, 1),
        ("::1", 80, 0x100000),
        ("::1", 80, -1),
        ("::1", 80, 2**32),
        ("::1", 80, 0, 99),
        ("fe80::1", 80, 0, 1),
        ("127.0.0.1", 80, 0),
        ("127.0.0.1", 80, 0, 0),
        ("127.0.0.1", 70000),
        ("127.0.0.1", -1),
        ("127.0.0.1", 2**31),
        ("127.0.0.1", 2**80),
        ("127.0.0.1", "80"),
        ("127.0.0.1", None),
        ("127.0.0.1", 80.0),
        ("127.0.0.1", True),
        ("127.0.0.1", Index(80)),
        ("127.0.0.1", Failing()),
        ("localhost", 80),
        ("", 80),
        ("nonsense.invalid", 80),
        (None, 80),
        (b"127.0.0.1", 80),
        (5, 80),
        ("127.0.0.1\0", 80),
        ("é", 80),
        ("\ud800", 80),
        ("255.255.255.255", 80),
        ("0.0.0.0", 80),
        ("127.0.0.1",),
        (),
        ("127.0.0.1", 80, 0, 0, 0),
        ["127.0.0.1", 80],
        "127.0.0.1",
        None,
        5,
        {},
        object,
    ):
        for flags in (
            0,
            stock.NI_NUMERICHOST | stock.NI_NUMERICSERV,
            stock.NI_NUMERICHOST | stock.NI_DGRAM,
            stock.NI_NAMEREQD | stock.NI_NUMERICSERV,
        ):
            if (
                address in (("0.0.0.0", 80), ("255.255.255.255", 80))
                and not flags & stock.NI_NUMERICHOST
            ):
                continue  # asks name servers
            yield shown(address), flags, attempt(socket.getnameinfo, address, flags)
    for flags in (-1, 2**31, 2**80, "0", None, 1.5, True, Index(3), Failing(), 1 << 20):
        yield shown(flags), attempt(socket.getnameinfo, ("127.0.0.1", 80), flags)
    for given in ((), (("127.0.0.1", 80),), (("127.0.0.1", 80), 0, 0)):
        yield attempt(socket.getnameinfo, *given)
    yield attempt(socket.getnameinfo, sockaddr=("127.0.0.1", 80), flags=0)


@behaviour
def gethostby(socket: Any) -> Iterator[object]:
    for name in ("gethostbyname", "gethostbyname_ex", "gethostbyaddr", "getfqdn"):
        for host in HOSTS:
            if (
                host in ("0.0.0.0", "::", "256.256.256.256", "255.255.255.255", "<broadcast>")
                and name != "gethostbyname"
            ):
                continue
            yield name, shown(host)[:50], attempt(getattr(socket, name), host)
        for host in ("127.0.0.1\0", "\0", b"localhost\0x", bytearray(b"localhost")):
            yield name, shown(host), attempt(getattr(socket, name), host)
        for given in ((), (1, 2)):
            if name != "getfqdn" or given:
                yield name, given, attempt(getattr(socket, name), *given)
        yield name, attempt(getattr(socket, name), x=1)


@behaviour
def services_and_protocols(socket: Any) -> Iterator[object]:
    for name in (
        "http",
        "HTTP",
        "domain",
        "nonsense",
        "",
        "é",
        "\ud800",
        "http\0",
        b"http",
        None,
        5,
        object,
    ):
        yield shown(name), attempt(socket.getservbyname, name), attempt(socket.getprotobyname, name)
        for protocol in ("tcp", "udp", "TCP", "nonsense", "", None, b"tcp", 5, "tcp\0", "\ud800"):
            yield shown(protocol), attempt(socket.getservbyname, name, protocol)
    for protocol in ("tcp", "udp", "icmp", "ip", "ipv6", "TCP", "nonsense", "tcp "):
        yield protocol, attempt(socket.getprotobyname, protocol)
    for port in (*NUMBERS, 80, 53, 443, Index(80), 9, 60000):
        yield (
            shown(port),
            attempt(socket.getservbyport, port),
            attempt(socket.getservbyport, port, "tcp"),
        )
        yield attempt(socket.getservbyport, port, "udp"), attempt(socket.getservbyport, port, None)
        yield (
            attempt(socket.getservbyport, port, "nonsense"),
            attempt(socket.getservbyport, port, 5),
        )
    for name in ("getservbyname", "getservbyport", "getprotobyname"):
        for given in ((), (1, 2, 3), ("a", "b", "c", "d")):
            yield name, given, attempt(getattr(socket, name), *given)
        yield attempt(getattr(socket, name), x=1), attempt(getattr(socket, name), "http", x=1)


@behaviour
def host_names(socket: Any) -> Iterator[object]:
    yield socket.gethostname(), attempt(socket.gethostname, 1), attempt(socket.gethostname, x=1)
    for name in (
        None,
        5,
        1.5,
        [],
        object,
        "a\0b",
        "\ud800",
        "x" * 100,
        b"x" * 100,
        bytearray(b"x"),
    ):
        yield shown(name)[:40], attempt(socket.sethostname, name)
    yield (
        attempt(socket.sethostname),
        attempt(socket.sethostname, "a", "b"),
        attempt(socket.sethostname, name="a"),
    )
