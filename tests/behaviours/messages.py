"""sendmsg, recvmsg, recvmsg_into, send_fds, recv_fds: ancillary data, well and badly formed."""

from __future__ import annotations

import array
import os
import socket as stock
import struct
import warnings
from collections.abc import Iterator
from typing import Any

from tests.behaviours import Failing, Index, attempt, behaviour, shown, streams

SOL, RIGHTS = stock.SOL_SOCKET, stock.SCM_RIGHTS


class Descriptors:
    """Some descriptors to send; `closed` closes what a result of recvmsg has brought."""

    def __init__(self, count: int = 3) -> None:
        self.files = [os.open(os.devnull, os.O_RDONLY) for _ in range(count)]

    def __enter__(self) -> bytes:
        return array.array("i", self.files).tobytes()

    def __exit__(self, *_: object) -> None:
        for fd in self.files:
            os.close(fd)


def closed(result: Any) -> object:
    """The result with the number of descriptors in place of them; they are closed."""
    if not isinstance(result, tuple):
        return result
    items = []
    for level, kind, data in result[1]:
        if (level, kind) == (SOL, RIGHTS):
            numbers = array.array("i", data[: len(data) - len(data) % 4])
            for fd in numbers:
                os.close(fd)
            items.append((level, kind, len(data)))
        else:
            items.append((level, kind, data))
    return (result[0], items, *result[2:])


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@behaviour
def buffers_of_sendmsg(socket: Any) -> Iterator[object]:
    for buffers in (
        [],
        (),
        [b""],
        [b"a"],
        [b"a", b"bc", bytearray(b"def")],
        (b"a", memoryview(b"xyz")[1:]),
        [memoryview(b"abcdef")[::2]],
        [array.array("h", [1, 2])],
        iter([b"a", b"b"]),
        (each for each in (b"a", b"b")),
        {b"a": 1, b"b": 2},
        [b"a"] * 1024,
        [b"a"] * 1025,
        b"abc",
        bytearray(b"abc"),
        b"",
        "abc",
        "",
        [1],
        ["a"],
        [None],
        [[b"a"]],
        None,
        5,
        1.5,
        object,
        (Failing() for _ in range(1)),
        (1 / 0 for _ in range(1)),
        range(2),
        range(0),
    ):
        one, two = socket.socketpair()
        with one, two:
            two.settimeout(0)
            yield type(buffers).__name__, shown(buffers)[:40], attempt(one.sendmsg, buffers)
            yield attempt(two.recv, 5000)


@behaviour
def ancillary_data_of_sendmsg(socket: Any) -> Iterator[object]:
    with Descriptors() as numbers:
        for items in (
            [],
            (),
            None,
            5,
            "abc",
            "",
            [()],
            [(1,)],
            [(1, 2)],
            [(1, 2, b"", 3)],
            [(SOL, RIGHTS, numbers)],
            [[SOL, RIGHTS, numbers]],
            ((SOL, RIGHTS, bytearray(numbers)),),
            iter([(SOL, RIGHTS, numbers)]),
            [(SOL, RIGHTS, numbers), (SOL, RIGHTS, numbers[:4])],
            [(SOL, RIGHTS, b"")],
            [(SOL, RIGHTS, numbers[:3])],
            [(SOL, RIGHTS, numbers[:5])],
            [(SOL, RIGHTS, struct.pack("i", -1))],
            [(SOL, RIGHTS, struct.pack("i", 99999))],
            [(SOL, RIGHTS, numbers * 100)],
            [(SOL, RIGHTS, array.array("i"))],
            [(SOL, RIGHTS, memoryview(numbers)[::2])],
            [(SOL, RIGHTS, "text")],
            [(SOL, RIGHTS, None)],
            [(SOL, RIGHTS, 5)],
            [("1", RIGHTS, numbers)],
            [(SOL, "1", numbers)],
            [(SOL, 1.5, numbers)],
            [(Index(SOL), Index(RIGHTS), numbers)],
            [(Failing(), RIGHTS, numbers)],
            [(2**31, RIGHTS, numbers)],
            [(SOL, 2**80, numbers)],
            [(-1, -1, b"x")],
            [(SOL, 99, b"x")],
            [(99, 99, b"x")],
            [(99, 99, b"")],
            [
                (
                    SOL,
                    stock.SCM_CREDENTIALS,
                    struct.pack("3i", os.getpid(), os.getuid(), os.getgid()),
                )
            ],
            [(SOL, stock.SCM_CREDENTIALS, b"short")],
            [b"abc"],
            ["abc"],
            [None],
            [5],
            [{1: 1, 2: 2, 3: 3}],
            (1 / 0 for _ in range(1)),
            [(SOL, RIGHTS, numbers), 5],
        ):
            one, two = socket.socketpair()
            with one, two:
                two.settimeout(0)
                before = open_descriptors()
                text = (
                    "..." if isinstance(items, list) and repr(os.getpid()) in repr(items) else items
                )
                yield shown(text)[:60], attempt(one.sendmsg, [b"data"], items)
                yield closed(attempt(two.recvmsg, 100, 2000))
                yield open_descriptors() - before


@behaviour
def other_arguments_of_sendmsg(socket: Any, path: str) -> Iterator[object]:
    one, two = socket.socketpair()
    with one, two:
        for arguments in (
            (),
            ([b"x"], [], "0"),
            ([b"x"], [], None),
            ([b"x"], [], 0.0),
            ([b"x"], [], 2**31),
            ([b"x"], [], Index(0)),
            ([b"x"], [], 0, None),
            ([b"x"], [], stock.MSG_DONTWAIT, None),
            ([b"x"], [], 0, f"{path}/nowhere"),
            ([b"x"], [], 0, 5),
            ([b"x"], [], 0, "/x" * 100),
            ([b"x"], [], 0, None, 5),
            (5, [], 0, 5),
            ([5], 5, 0, f"{path}/nowhere"),
            ([5], 5),
            ([b"x"], [5], 0, 7),
        ):
            yield shown(arguments), attempt(one.sendmsg, *arguments)
        yield attempt(one.sendmsg, buffers=[b"x"]), attempt(one.sendmsg, [b"x"], flags=0)
    with (
        socket.socket(stock.AF_INET, stock.SOCK_DGRAM) as one,
        socket.socket(stock.AF_INET, stock.SOCK_DGRAM) as two,
    ):
        two.bind(("127.0.0.1", 0))
        two.settimeout(5)
        yield one.sendmsg([b"a", b"b"], [], 0, two.getsockname()), two.recv(10)
        yield attempt(one.sendmsg, [b"a"]), attempt(one.sendmsg, [b"a"], [], 0, ("127.0.0.1",))
        yield attempt(one.sendmsg, [b"a"], [], 0, ("127.0.0.1", 70000))
        yield attempt(one.sendmsg, [b"a"], [], 0, "127.0.0.1")
        ttl = struct.pack("i", 7)
        yield one.sendmsg([b"ttl"], [(0, stock.IP_TTL, ttl)], 0, two.getsockname())
        yield two.recv(10)


@behaviour
def arguments_of_recvmsg(socket: Any) -> Iterator[object]:
    for arguments in (
        (),
        (0,),
        (1,),
        (100,),
        (100, 0),
        (100, 1),
        (100, 15),
        (100, 16),
        (100, 100),
        (100, 100, 0),
        (100, 100, stock.MSG_PEEK),
        (100, 100, stock.MSG_WAITALL),
        (100, 100, stock.MSG_DONTWAIT),
        (100, 100, 0, 0),
        (-1,),
        (-1, -1),
        (100, -1),
        (100, 2**31),
        (100, 2**31 - 1),
        (100, 2**63),
        (100, 10, 2**31),
        (2**62,),
        (2**63,),
        (2**63 - 1,),
        ("1",),
        (None,),
        (1.0,),
        (100, None),
        (100, 0, None),
        (100, "0"),
        (Index(2), Index(0), Index(0)),
        (Failing(),),
        (True,),
    ):
        one, two = socket.socketpair()
        with one, two, Descriptors(1) as numbers:
            before = open_descriptors()
            two.settimeout(0)
            one.sendmsg([b"abcdef"], [(SOL, RIGHTS, numbers)])
            yield arguments[0:0], shown(arguments), closed(attempt(two.recvmsg, *arguments))
            yield closed(attempt(two.recvmsg, 100, 100)), open_descriptors() - before
    with socket.socket() as sock:
        yield attempt(sock.recvmsg, bufsize=1), attempt(sock.recvmsg, 1, flags=0)


@behaviour
def buffers_of_recvmsg_into(socket: Any) -> Iterator[object]:
    for make in (
        lambda: [bytearray(10)],
        lambda: [bytearray(2), bytearray(2)],
        lambda: (bytearray(2), memoryview(bytearray(4))),
        lambda: [array.array("i", [0, 0])],
        lambda: iter([bytearray(3)]),
        lambda: [],
        lambda: (),
        lambda: [bytearray(0)],
        lambda: [bytearray(1)] * 3,
        lambda: [bytearray(1) for _ in range(1024)],
        lambda: [bytearray(1) for _ in range(1025)],
        lambda: [b"abc"],
        lambda: ["abc"],
        lambda: [None],
        lambda: [5],
        lambda: [memoryview(b"abc")],
        lambda: [memoryview(bytearray(10))[::2]],
        lambda: [memoryview(bytearray(8)).cast("B", (2, 4))],
        lambda: bytearray(3),
        lambda: b"abc",
        lambda: b"",
        lambda: "abc",
        lambda: None,
        lambda: 5,
        lambda: object,
        lambda: (1 / 0 for _ in range(1)),
        lambda: [bytearray(2), b"x"],
    ):
        one, two = socket.socketpair()
        with one, two:
            two.settimeout(0)
            one.send(b"abcdef")
            buffers = make()
            yield shown(buffers)[:50], attempt(two.recvmsg_into, buffers)
            if isinstance(buffers, (list, tuple)):
                yield [
                    bytes(each) for each in buffers if isinstance(each, (bytearray, memoryview))
                ][:5]
            yield attempt(two.recv, 100)


@behaviour
def arguments_of_recvmsg_into(socket: Any) -> Iterator[object]:
    for arguments in (
        (),
        ([bytearray(9)], 0),
        ([bytearray(9)], 100),
        ([bytearray(9)], -1),
        ([bytearray(9)], 2**31),
        ([bytearray(9)], 2**80),
        ([bytearray(9)], "0"),
        ([bytearray(9)], None),
        ([bytearray(9)], 100, stock.MSG_PEEK),
        ([bytearray(9)], 100, None),
        ([bytearray(9)], 100, 2**31),
        ([bytearray(9)], 100, 0, 0),
        ([bytearray(9)], Index(100), Index(0)),
        (5, -1),
        ([5], -1),
    ):
        one, two = socket.socketpair()
        with one, two, Descriptors(2) as numbers:
            before = open_descriptors()
            two.settimeout(0)
            one.sendmsg([b"abcdef"], [(SOL, RIGHTS, numbers)])
            yield shown(arguments), closed(attempt(two.recvmsg_into, *arguments))
            yield closed(attempt(two.recvmsg, 100, 100)), open_descriptors() - before
    with socket.socket() as sock:
        yield attempt(sock.recvmsg_into, buffers=[]), attempt(sock.recvmsg_into, [], flags=0)


@behaviour
def truncated_ancillary_data(socket: Any) -> Iterator[object]:
    """The RuntimeWarnings are compared as well."""
    with Descriptors(4) as numbers:
        for size in range(0, 40):
            one, two = socket.socketpair()
            with one, two:
                before = open_descriptors()
                two.settimeout(0)
                one.sendmsg([b"x"], [(SOL, RIGHTS, numbers)])
                yield size, closed(attempt(two.recvmsg, 10, size))
                one.sendmsg([b"x"], [(SOL, RIGHTS, numbers)])
                yield size, closed(attempt(two.recvmsg_into, [bytearray(4)], size))
                yield open_descriptors() - before
        for size in range(0, 90, 3):
            one, two = socket.socketpair()
            with one, two:
                before = open_descriptors()
                two.settimeout(0)
                two.setsockopt(SOL, stock.SO_PASSCRED, 1)
                one.sendmsg([b"x"], [(SOL, RIGHTS, numbers)])
                found: Any = closed(attempt(two.recvmsg, 10, size))
                yield (
                    size,
                    found[0],
                    [(a, b, c if isinstance(c, int) else len(c)) for a, b, c in found[1]],
                )
                yield found[2:], open_descriptors() - before


@behaviour
def warnings_as_errors(socket: Any) -> Iterator[object]:
    with Descriptors(4) as numbers, warnings.catch_warnings():
        warnings.simplefilter("error")
        for size in range(0, 40, 2):
            one, two = socket.socketpair()
            with one, two:
                before = open_descriptors()
                two.settimeout(0)
                one.sendmsg([b"x"], [(SOL, RIGHTS, numbers)])
                yield size, closed(attempt(two.recvmsg, 10, size)), open_descriptors() - before


@behaviour
def credentials(socket: Any) -> Iterator[object]:
    one, two = socket.socketpair()
    with one, two:
        two.setsockopt(SOL, stock.SO_PASSCRED, 1)
        one.send(b"x")
        data, ancillary, flags, address = two.recvmsg(10, socket.CMSG_SPACE(12))
        level, kind, payload = ancillary[0]
        yield data, level, kind, flags, address
        yield struct.unpack("3i", payload) == (os.getpid(), os.getuid(), os.getgid())
        one.send(b"x")
        yield two.recvmsg(10, 0), two.setsockopt(SOL, stock.SO_PASSCRED, 0)


@behaviour
def of_datagrams(socket: Any) -> Iterator[object]:
    for family, host, level, option in (
        (stock.AF_INET, "127.0.0.1", stock.IPPROTO_IP, stock.IP_RECVTOS),
        (stock.AF_INET6, "::1", stock.IPPROTO_IPV6, stock.IPV6_RECVHOPLIMIT),
    ):
        with (
            socket.socket(family, stock.SOCK_DGRAM) as one,
            socket.socket(family, stock.SOCK_DGRAM) as two,
        ):
            two.bind((host, 0))
            two.settimeout(5)
            two.setsockopt(level, option, 1)
            one.connect(two.getsockname())
            peer = one.getsockname()
            for size, space in ((10, 100), (2, 100), (10, 0), (0, 100), (10, 14)):
                one.send(b"abcdef")
                data, ancillary, flags, address = two.recvmsg(size, space)
                yield size, space, data, ancillary, flags, address == peer
                one.send(b"abcdef")
                count, ancillary, flags, address = two.recvmsg_into([bytearray(size)], space)
                yield count, ancillary, flags, address == peer
            one.send(b"abcdef")
            yield two.recvmsg(3, 0, stock.MSG_TRUNC | stock.MSG_PEEK)[0][:3], two.recvmsg(0)[:3]
            one.send(b"")
            yield two.recvmsg(10)[:3]


@behaviour
def of_streams(socket: Any) -> Iterator[object]:
    with streams(socket) as (client, server):
        yield client.sendmsg([b"ab", b"", b"c"]), server.recvmsg(10), client.sendmsg([])
        yield client.sendmsg([b"ab"], [], stock.MSG_OOB), server.recvmsg(10)
        client.shutdown(stock.SHUT_WR)
        yield server.recvmsg(10), server.recvmsg_into([bytearray(3)]), server.recvmsg(0)
        yield attempt(client.sendmsg, [b"x"])
    one, two = socket.socketpair()
    with one, two:
        two.close()
        yield attempt(one.sendmsg, [b"x"]), attempt(one.recvmsg, 1), attempt(one.recvmsg_into, [])


@behaviour
def descriptors(socket: Any) -> Iterator[object]:
    for kind in (stock.SOCK_STREAM, stock.SOCK_DGRAM, stock.SOCK_SEQPACKET):
        for flags in (0, stock.MSG_CMSG_CLOEXEC):
            one, two = socket.socketpair(stock.AF_UNIX, kind)
            with one, two, Descriptors(2) as numbers:
                one.sendmsg([b"abc"], [(SOL, RIGHTS, numbers)])
                data, ancillary, message_flags, address = two.recvmsg(10, 100, flags)
                received = array.array("i", ancillary[0][2])
                yield data, message_flags, address, len(received)
                for fd in received:
                    yield os.get_inheritable(fd), os.close(fd)


@behaviour
def send_fds_and_recv_fds(socket: Any) -> Iterator[object]:
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(3)]
    for fds in (
        [],
        files,
        tuple(files),
        array.array("i", files),
        iter(files),
        set(files),
        files * 80,
        [-1],
        [99999],
        [2**31],
        ["1"],
        [1.5],
        [None],
        None,
        5,
        "ab",
        b"ab",
        [True],
    ):
        for room in (0, 1, 3, 10):
            one, two = socket.socketpair()
            with one, two:
                two.settimeout(0)
                yield shown(fds)[:12], attempt(socket.send_fds, one, [b"abc"], fds)
                got = attempt(socket.recv_fds, two, 10, room)
                if isinstance(got, tuple):
                    for fd in got[1]:
                        os.close(fd)
                    got = (got[0], len(got[1]), *got[2:])
                yield room, got
    one, two = socket.socketpair()
    with one, two:
        two.settimeout(0)
        yield attempt(socket.send_fds, one, b"abc", files), attempt(socket.send_fds, one, [], files)
        yield attempt(socket.send_fds, one, [b"a"], []), attempt(socket.send_fds, one, None, None)
        yield attempt(socket.send_fds, one, [b"a"], [], 0, "/nowhere")
        yield attempt(socket.send_fds, one, [b"a"], [], 99999, 77)
        yield attempt(socket.send_fds), attempt(socket.recv_fds), attempt(socket.recv_fds, two)
        yield attempt(socket.recv_fds, two, -1, 0), attempt(socket.recv_fds, two, 1, -5)
        yield attempt(socket.recv_fds, two, 1, 2**31), attempt(socket.recv_fds, two, "1", 1)
        yield attempt(socket.recv_fds, two, 1, None), attempt(socket.recv_fds, two, 1, 1.5)
        yield attempt(socket.recv_fds, two, 100, 0, stock.MSG_PEEK)
        yield attempt(socket.recv_fds, two, bufsize=10, maxfds=0, flags=0)
        yield attempt(socket.send_fds, sock=one, buffers=[b"z"], fds=[], flags=0, address=None)
        yield attempt(socket.send_fds, object(), [b"a"], []), attempt(socket.recv_fds, 5, 1, 1)
    for fd in files:
        os.close(fd)


@behaviour
def afalg(socket: Any) -> Iterator[object]:
    """The order of the checks; a descriptor of another family says ENOTSOCK or the like later."""
    with socket.socket() as sock:
        for arguments, names in (
            ((), {}),
            (([b"x"],), {}),
            (([b"x"],), {"op": 1}),
            ((1, 2, 3), {}),
            ((), {"nonsense": 1}),
        ):
            yield attempt(sock.sendmsg_afalg, *arguments, **names)
    fd = stock.socket().detach()
    with socket.socket(stock.AF_ALG, stock.SOCK_SEQPACKET, 0, fd) as sock:
        for arguments, names in (
            ((), {}),
            (([b"x"],), {}),
            (([b"x"], 1), {}),
            (([b"x"],), {"op": -1}),
            (([b"x"],), {"op": 2**31}),
            (([b"x"],), {"op": 2**80}),
            (([b"x"],), {"op": "1"}),
            (([b"x"],), {"op": 1.0}),
            (([b"x"],), {"op": None}),
            (([b"x"],), {"op": Index(1)}),
            (([b"x"],), {"op": True}),
            (([b"x"],), {"op": 1}),
            (([b"x"],), {"op": 1, "iv": b"1234"}),
            (([b"x"],), {"op": 1, "iv": "1234"}),
            (([b"x"],), {"op": 1, "iv": None}),
            (([b"x"],), {"op": 1, "assoclen": 4}),
            (([b"x"],), {"op": 1, "assoclen": -1}),
            (([b"x"],), {"op": 1, "assoclen": 2**31}),
            (([b"x"],), {"op": 1, "assoclen": 2**80}),
            (([b"x"],), {"op": 1, "assoclen": "4"}),
            (([b"x"],), {"op": 1, "flags": "4"}),
            (([b"x"],), {"op": 1, "flags": 2**31}),
            (("x",), {"op": 1}),
            ((b"x",), {"op": 1}),
            ((5,), {"op": 1}),
            ((None,), {"op": 1}),
            ((), {"msg": [b"x"], "op": 1}),
            (([b"x"],), {"op": 1, "nonsense": 1}),
        ):
            yield shown((arguments, names)), attempt(sock.sendmsg_afalg, *arguments, **names)
