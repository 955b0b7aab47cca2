"""Sending and receiving bytes."""

from __future__ import annotations

import array
import ctypes
import mmap
import socket as stock
from collections.abc import Iterator
from typing import Any

from tests.behaviours import Failing, Index, attempt, behaviour, shown, streams

AF_INET, DGRAM = stock.AF_INET, stock.SOCK_DGRAM
STRIDED = memoryview(bytes(range(20)))[::2]
RELEASED = memoryview(b"abc")
RELEASED.release()

DATA = (
    b"",
    b"x",
    bytearray(b"ab"),
    bytearray(),
    memoryview(b"abc"),
    memoryview(bytearray(b"abc")),
    memoryview(b"abcdef")[2:4],
    STRIDED,
    RELEASED,
    array.array("i", [1, 2]),
    array.array("u", "ab"),
    ctypes.create_string_buffer(b"hi"),
    (ctypes.c_int * 2)(1, 2),
    "text",
    "",
    None,
    1,
    1.5,
    True,
    [],
    [b"a"],
    (),
    (b"a",),
    {},
    object,
    range(3),
    iter(b"abc"),
    Index(1),
)
FLAGS = (
    0,
    stock.MSG_DONTWAIT,
    stock.MSG_NOSIGNAL,
    stock.MSG_MORE,
    stock.MSG_NOSIGNAL | stock.MSG_DONTWAIT,
    True,
    Index(0),
    Failing(),
    None,
    "0",
    0.0,
    2**31,
    -(2**31) - 1,
    2**63,
    -1,
    0x7FFFFFFF,
)


def named(value: object) -> str:
    return type(value).__name__ + " " + shown(value)[:40]


@behaviour
def data_that_can_be_sent(socket: Any) -> Iterator[object]:
    for name in ("send", "sendall"):
        for data in DATA:
            one, two = socket.socketpair()
            with one, two:
                two.settimeout(0)
                yield name, named(data), attempt(getattr(one, name), data)
                yield attempt(two.recv, 100)
                yield attempt(getattr(one, name), data, 0), attempt(two.recv, 100)


@behaviour
def data_that_can_be_sent_to(socket: Any) -> Iterator[object]:
    with socket.socket(AF_INET, DGRAM) as one, socket.socket(AF_INET, DGRAM) as two:
        two.bind(("127.0.0.1", 0))
        two.settimeout(1)
        peer = two.getsockname()
        for data in DATA:
            sent = attempt(one.sendto, data, peer)
            yield named(data), sent
            if isinstance(sent, int):
                yield attempt(two.recv, 100)
            sent = attempt(one.sendto, data, 0, peer)
            yield named(data), sent
            if isinstance(sent, int):
                yield attempt(two.recv, 100)


@behaviour
def flags_of_sending(socket: Any) -> Iterator[object]:
    for name in ("send", "sendall"):
        for flags in FLAGS:
            one, two = socket.socketpair()
            with one, two:
                two.settimeout(0)
                yield name, shown(flags), attempt(getattr(one, name), b"abc", flags)
                yield attempt(two.recv, 100)
    with socket.socket(AF_INET, DGRAM) as one, socket.socket(AF_INET, DGRAM) as two:
        two.bind(("127.0.0.1", 0))
        two.settimeout(1)
        for flags in FLAGS:
            yield shown(flags), attempt(one.sendto, b"abc", flags, two.getsockname())


@behaviour
def arguments_of_sendto(socket: Any) -> Iterator[object]:
    with socket.socket(AF_INET, DGRAM) as one:
        for arguments in (
            (),
            (b"x",),
            (b"x", 0),
            (b"x", None),
            (b"x", 0, None),
            (b"x", "abc"),
            (b"x", ("127.0.0.1", 99999)),
            (b"x", ("127.0.0.1",)),
            (b"x", ("127.0.0.1", 1, 2)),
            (b"x", ["127.0.0.1", 1]),
            ("x", ("127.0.0.1", 1)),
            (b"x", "0", ("127.0.0.1", 1)),
            (b"x", 0, ("127.0.0.1", 1), 5),
            (b"x", ("127.0.0.1", 1), 0),
            (None, None),
            (b"x", ("", -1)),
            (b"x", ("a\0b", 1)),
            (bytearray(b"x"), 0, ("127.0.0.1", "1")),
        ):
            yield shown(arguments), attempt(one.sendto, *arguments)
    with streams(socket) as (client, server):
        yield client.sendto(b"abc", server.getsockname()), server.recv(10)
        yield attempt(client.sendto, b"abc", ("127.0.0.1", 1))
    one, two = socket.socketpair()
    with one, two:
        yield attempt(one.sendto, b"x", "/nowhere"), attempt(one.sendto, b"x", b"")
    one, two = socket.socketpair(stock.AF_UNIX, DGRAM)
    with one, two:
        yield attempt(one.sendto, b"x", "/nowhere"), attempt(one.sendto, b"x", "/x" * 60)


@behaviour
def sizes_of_receiving(socket: Any) -> Iterator[object]:
    for name in ("recv", "recvfrom"):
        for size in (
            0,
            1,
            2,
            3,
            100,
            8192,
            8193,
            70000,
            True,
            Index(2),
            Failing(),
            -1,
            -(2**31),
            -(2**63),
            2**31,
            2**32 + 2,
            2**62,
            2**63 - 1,
            2**63,
            2**64,
            None,
            "1",
            1.0,
            b"1",
        ):
            one, two = socket.socketpair()
            with one, two:
                one.send(b"abc")
                two.settimeout(0)
                yield name, shown(size), attempt(getattr(two, name), size)
                yield attempt(getattr(two, name), size, 0), attempt(two.recv, 100)


@behaviour
def asking_for_more_than_there_is(socket: Any) -> Iterator[object]:
    pattern = bytes(range(256)) * 512
    for asked in (8192, 8193, 32768, 32769, 1 << 17, 1 << 20, (1 << 20) + 1):
        for kind in (stock.SOCK_STREAM, DGRAM, stock.SOCK_SEQPACKET):
            one, two = socket.socketpair(stock.AF_UNIX, kind)
            with one, two:
                two.settimeout(0)
                # By turns, because what a receive brought is what the next one expects.
                for length in (3, 9000, 3, 60000, 60000, 3, 33000, 8192, 8193, 3):
                    sent = pattern[: one.send(pattern[:length])]
                    for call in (two.recv, lambda size: two.recvfrom(size)[0]):
                        taken = attempt(call, asked)
                        # The rest of what was longer, and then nothing.
                        left = attempt(two.recv, 1 << 21)
                        yield asked, shown(kind), length, named(taken), named(left)
                        if isinstance(taken, bytes):
                            both = taken + (left if isinstance(left, bytes) else b"")
                            yield len(taken), sent.startswith(both), len(both)
                        one.send(sent)
                    buffer = bytearray(asked)
                    count = attempt(two.recv_into, buffer)
                    yield count, bytes(buffer[: len(sent)]) == sent[:asked], attempt(two.recv, 10)
                two.settimeout(0.01)
                yield attempt(two.recv, asked)
    one, two = socket.socketpair()
    with one, two:
        yield attempt(two.shutdown, stock.SHUT_RD), two.recv(65536), two.recv(1 << 18)
    yield attempt(two.recv, 65536), attempt(two.recv, 1 << 18), attempt(two.recv, 1 << 62)


@behaviour
def flags_of_receiving(socket: Any) -> Iterator[object]:
    for name in ("recv", "recvfrom"):
        for flags in (*FLAGS, stock.MSG_PEEK, stock.MSG_WAITALL, stock.MSG_OOB, stock.MSG_ERRQUEUE):
            one, two = socket.socketpair()
            with one, two:
                one.send(b"abc")
                two.settimeout(0)
                yield name, shown(flags), attempt(getattr(two, name), 2, flags)
                yield attempt(two.recv, 100)
    for name in ("recv_into", "recvfrom_into"):
        for flags in (*FLAGS, stock.MSG_PEEK, stock.MSG_WAITALL):
            one, two = socket.socketpair()
            with one, two:
                one.send(b"abc")
                two.settimeout(0)
                buffer = bytearray(5)
                yield name, shown(flags), attempt(getattr(two, name), buffer, 2, flags), buffer


@behaviour
def buffers_of_receiving(socket: Any) -> Iterator[object]:
    for name in ("recv_into", "recvfrom_into"):
        for make in (
            lambda: bytearray(5),
            lambda: bytearray(2),
            lambda: bytearray(0),
            lambda: memoryview(bytearray(5)),
            lambda: memoryview(bytearray(5))[1:3],
            lambda: memoryview(bytearray(10))[::2],
            lambda: memoryview(bytearray(5)).toreadonly(),
            lambda: memoryview(bytearray(8)).cast("i"),
            lambda: memoryview(bytearray(8)).cast("B", (2, 4)),
            lambda: array.array("B", [0] * 5),
            lambda: array.array("i", [0] * 5),
            lambda: ctypes.create_string_buffer(5),
            lambda: mmap.mmap(-1, 10),
            lambda: b"12345",
            lambda: "12345",
            lambda: None,
            lambda: 5,
            lambda: [bytearray(5)],
            lambda: RELEASED,
        ):
            one, two = socket.socketpair()
            with one, two:
                one.send(b"abc")
                two.settimeout(0)
                buffer = make()
                yield name, type(buffer).__name__, attempt(getattr(two, name), buffer)
                if isinstance(buffer, (bytearray, array.array)):
                    yield bytes(buffer)
                yield attempt(two.recv, 100)


@behaviour
def counts_of_receiving_into(socket: Any) -> Iterator[object]:
    for name in ("recv_into", "recvfrom_into"):
        for count in (
            0,
            1,
            5,
            6,
            -1,
            True,
            Index(2),
            Failing(),
            None,
            "1",
            1.0,
            2**31,
            2**62,
            2**63,
            -(2**63) - 1,
        ):
            one, two = socket.socketpair()
            with one, two:
                one.send(b"abc")
                two.settimeout(0)
                buffer = bytearray(5)
                yield name, shown(count), attempt(getattr(two, name), buffer, count), buffer
                yield attempt(getattr(two, name), buffer, nbytes=count), buffer
                yield attempt(getattr(two, name), memoryview(buffer), count)
        one, two = socket.socketpair()
        with one, two:
            one.send(b"abcdef" * 3)
            two.settimeout(0)
            method = getattr(two, name)
            buffer = bytearray(4)
            yield method(buffer=buffer), buffer
            yield method(buffer, flags=stock.MSG_PEEK), method(nbytes=2, buffer=buffer), buffer
            yield method(buffer, 2, flags=0), method(flags=0, nbytes=1, buffer=buffer)
            yield attempt(method), attempt(method, nbytes=1), attempt(method, buffer, buffer=buffer)
            yield attempt(method, buffer, 1, 0, 0), attempt(method, buffer, count=1)
            yield attempt(method, bytearray(0), 1), attempt(method, bytearray(0), -1)
            yield attempt(method, b"abc", -1), attempt(method, b"", 0)


@behaviour
def a_buffer_is_free_afterwards(socket: Any) -> Iterator[object]:
    one, two = socket.socketpair()
    with one, two:
        two.settimeout(0)
        buffer = bytearray(3)
        for call in (
            lambda: one.send(buffer),
            lambda: one.sendall(buffer),
            lambda: one.send(buffer, Failing()),
            lambda: one.sendall(buffer, "x"),
            lambda: one.sendmsg([buffer]),
            lambda: one.sendmsg([buffer, 5]),
            lambda: one.sendmsg([buffer], [(1, 1, buffer), 5]),
            lambda: one.sendmsg([b"x"], [(1, 99, buffer)]),
            lambda: one.sendto(buffer, "/nowhere"),
            lambda: one.sendto(buffer, 5),
            lambda: one.sendto(buffer, "x", "/nowhere"),
            lambda: two.recv_into(buffer, 100),
            lambda: two.recv_into(buffer, -1),
            lambda: two.recv_into(buffer, "x"),
            lambda: two.recv_into(buffer),
            lambda: two.recv_into(buffer, 1, flags="x"),
            lambda: two.recvfrom_into(buffer, 100),
            lambda: two.recvfrom_into(buffer),
            lambda: two.recvmsg_into([buffer]),
            lambda: two.recvmsg_into([buffer, b"x"]),
            lambda: two.recvmsg_into([buffer], -1),
            lambda: one.setsockopt(1, 2, buffer),
            lambda: socket.inet_ntoa(buffer),
            lambda: socket.inet_ntop(2, buffer),
        ):
            yield attempt(call)
            buffer.append(0)
            buffer.pop()


@behaviour
def of_streams(socket: Any) -> Iterator[object]:
    for family in (stock.AF_INET, stock.AF_INET6):
        with streams(socket, family) as (client, server):
            yield client.send(b"abc"), server.recv(2), server.recv(2)
            yield client.sendall(b"x" * 100000)
            got = bytearray()
            while len(got) < 100000:
                got += server.recv(70000)
            yield bytes(got) == b"x" * 100000
            yield client.send(b"abc"), server.recvfrom(10)
            client.sendall(b"abc")
            buffer = bytearray(3)
            yield server.recvfrom_into(buffer), buffer
            client.sendall(b"abcdef")
            yield server.recv(6, stock.MSG_WAITALL), client.send(b"!", stock.MSG_OOB)
            yield server.recv(1, stock.MSG_OOB)
            client.close()
            yield server.recv(1), server.recv(1), server.recvfrom(1), server.recv_into(buffer)
            yield server.recvmsg(1), server.recv(0), attempt(client.recv, 1)


@behaviour
def of_datagrams(socket: Any) -> Iterator[object]:
    for family, host in ((AF_INET, "127.0.0.1"), (stock.AF_INET6, "::1")):
        with socket.socket(family, DGRAM) as one, socket.socket(family, DGRAM) as two:
            one.bind((host, 0))
            two.bind((host, 0))
            two.settimeout(5)
            peer = two.getsockname()
            yield one.sendto(b"abcdef", peer), two.recv(3)
            yield one.sendto(b"", peer), two.recv(3)
            yield one.sendto(b"abc", peer)
            data, address = two.recvfrom(100)
            yield data, address == one.getsockname(), len(address)
            buffer = bytearray(2)
            yield one.sendto(b"abc", peer), two.recvfrom_into(buffer)[0], buffer
            yield one.sendto(b"abc", peer), two.recv_into(buffer, 0, stock.MSG_TRUNC)
            yield one.sendto(b"abc", peer), two.recvfrom(0)[0]
            yield one.sendto(b"abc", peer), two.recvfrom_into(bytearray(0))[0]
            yield attempt(one.sendto, bytes(70000), peer), attempt(one.send, b"x")
            one.connect(peer)
            yield one.send(b"xyz"), two.recv(10), one.getpeername() == peer
            yield one.sendto(b"xyz", peer), two.recv(10), attempt(one.sendmsg, [b"1", b"2"])
            yield two.recv(10)
    one, two = socket.socketpair(stock.AF_UNIX, DGRAM)
    with one, two:
        yield one.send(b"abc"), two.recvfrom(10), one.send(b"abc"), two.recvmsg(10)
        yield one.send(b"abc"), two.recvfrom_into(bytearray(3))


@behaviour
def to_one_who_is_gone(socket: Any) -> Iterator[object]:
    one, two = socket.socketpair()
    two.close()
    with one:
        for call in (
            lambda: one.send(b"x"),
            lambda: one.sendall(b"x"),
            lambda: one.sendall(bytes(100000)),
            lambda: one.send(b""),
            lambda: one.sendall(b""),
            lambda: one.sendmsg([b"x"]),
            lambda: one.sendmsg([]),
            lambda: one.recv(1),
            lambda: one.recv_into(bytearray(1)),
            lambda: one.getpeername(),
        ):
            yield attempt(call)
    with streams(socket) as (client, server):
        server.setsockopt(stock.SOL_SOCKET, stock.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        server.close()
        yield attempt(client.recv, 1), attempt(client.recv, 1), attempt(client.send, b"x")
        yield attempt(client.getpeername), attempt(client.shutdown, 2)
    with socket.socket() as sock:
        for call in (
            lambda: sock.recv(1),
            lambda: sock.send(b"x"),
            lambda: sock.sendall(b"x"),
            lambda: sock.recvfrom(1),
            lambda: sock.recvmsg(1),
            lambda: sock.getpeername(),
            lambda: sock.sendto(b"x", ("127.0.0.1", 1)),
        ):
            yield attempt(call)


@behaviour
def large_sends(socket: Any) -> Iterator[object]:
    import threading

    for size in (1, 8192, 8193, 32768, 32769, 65536, 200_000, 3_000_000):
        for timeout in (None, 20):
            with streams(socket) as (client, server):
                client.settimeout(timeout)
                got = bytearray()

                def read(server: Any = server, got: bytearray = got, size: int = size) -> None:
                    while len(got) < size:
                        got += server.recv(1 << 20)

                reader = threading.Thread(target=read)
                reader.start()
                data = bytes(range(256)) * (size // 256 + 1)
                yield size, timeout, client.sendall(data[:size])
                reader.join()
                yield bytes(got) == data[:size]
            # A blocking send() on a stream takes all.
            one, two = socket.socketpair()
            with one, two:
                if timeout is None:
                    got = bytearray()
                    reader = threading.Thread(
                        target=lambda: [
                            got.extend(each) for each in iter(lambda: two.recv(1 << 20), b"")
                        ]
                    )
                    reader.start()
                    yield size, one.send(bytes(size)), one.sendmsg([bytes(size), b"x"])
                    one.shutdown(stock.SHUT_WR)
                    reader.join()
                    yield len(got)


@behaviour
def a_blocking_send_takes_all(socket: Any) -> Iterator[object]:
    import threading

    with socket.create_server(("127.0.0.1", 0)) as listener:
        # Little fits: a try that does not wait takes a part.
        listener.setsockopt(stock.SOL_SOCKET, stock.SO_RCVBUF, 4096)
        client = socket.socket()
        client.setsockopt(stock.SOL_SOCKET, stock.SO_SNDBUF, 4096)
        client.connect(listener.getsockname())
        server, _ = listener.accept()
    with client, server:
        reader = threading.Thread(target=lambda: [*iter(lambda: server.recv(1000), b"")])
        reader.start()
        peer = server.getsockname()
        for size in (30_000, 40_000):
            data = bytes(size)
            for call, arguments in (
                (client.send, (data,)),
                (client.send, (bytearray(data),)),
                (client.sendto, (data, peer)),
                (client.sendto, (bytearray(data), peer)),
                (client.sendto, (data, stock.MSG_NOSIGNAL, peer)),
                (client.sendmsg, ([data],)),
            ):
                yield size, call.__name__, [call(*arguments) for _ in range(5)]
        client.shutdown(stock.SHUT_WR)
        reader.join()
