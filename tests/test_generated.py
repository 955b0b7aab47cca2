"""The methods of a socket with generated arguments: the same call on stock and on tracesock gives
the same result, exception and text. The functions and addresses have such tests of their own."""

from __future__ import annotations

import os
import socket as stock
import struct
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.behaviours import Failing, Index, attempt
from tests.differential import generated, same

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="compares what Linux answers")

numbers = st.one_of(
    st.integers(-(2**33), 2**33),
    st.integers(-3, 60),
    st.sampled_from([2**31, -(2**31) - 1, 2**63, -(2**63) - 1, 2**80, True, Index(2), Failing()]),
)
odd = st.one_of(st.none(), st.floats(), st.text(max_size=3), st.binary(max_size=3))
whole = st.one_of(numbers, odd)
octets = st.binary(max_size=20)
data = st.one_of(octets, octets.map(bytearray), octets.map(memoryview), whole)
# No level at which a wrong value could reach beyond the socket.
levels = st.sampled_from([1, 0, 6, 17, 41])
flags = st.one_of(
    st.sampled_from([0, stock.MSG_DONTWAIT, stock.MSG_NOSIGNAL, stock.MSG_PEEK, stock.MSG_EOR]),
    whole,
)

TCP_TIMESTAMP = 6, 24  # a clock: another number in the next millisecond


def on_a_pair(call: Callable[[Any, Any], object]) -> Callable[[Any], object]:
    """`call` with two connected sockets that do not wait, of each type in turn."""

    def run(module: Any) -> object:
        seen = []
        for kind in (stock.SOCK_STREAM, stock.SOCK_DGRAM):
            one, two = module.socketpair(stock.AF_UNIX, kind)
            with one, two:
                one.setblocking(False)
                two.setblocking(False)
                two.send(b"waiting")
                seen.append(attempt(call, one, two))
                seen.append(attempt(two.recv, 100))
                seen.append(attempt(one.recv, 100))
        return seen

    return run


@generated
@given(st.lists(whole, max_size=5))
@example([1, 2, None, 2**32])
def test_setsockopt(arguments: list[Any]) -> None:
    same(on_a_pair(lambda one, _: one.setsockopt(*arguments)))


@generated
@given(levels, st.integers(-1, 80), st.one_of(numbers, st.binary(max_size=16), odd))
def test_setsockopt_and_getsockopt(level: int, option: int, value: object) -> None:
    # Of the machine, not of the socket: attached programs, devices, priorities of a privileged one.
    if option in (13, 25, 26, 36, 50, 51, 52, 60, 62) or (level, option) == TCP_TIMESTAMP:
        return

    def call(module: Any) -> object:
        with module.socket() as sock:
            done = attempt(sock.setsockopt, level, option, value)
            return done, attempt(sock.getsockopt, level, option)

    same(call)


@generated
@given(whole, whole, st.lists(whole, max_size=2))
def test_getsockopt(level: Any, option: Any, rest: list[Any]) -> None:
    if (level, option) == TCP_TIMESTAMP:
        return
    with stock.socket() as probe:
        changing = attempt(probe.getsockopt, level, option, *rest)
        if changing != attempt(probe.getsockopt, level, option, *rest) and not isinstance(
            changing, Exception
        ):
            return  # a cookie, a time
    same(lambda module: _with_socket(module, lambda sock: sock.getsockopt(level, option, *rest)))


def _with_socket(module: Any, call: Callable[[Any], object]) -> object:
    with module.socket() as sock:
        return attempt(call, sock)


@generated
@given(
    st.one_of(whole, st.floats(-1e10, 1e10), st.integers(0, 10**10), st.fractions(), st.decimals())
)
def test_timeouts(value: Any) -> None:
    def call(module: Any) -> object:
        with module.socket() as sock:
            seen = [attempt(sock.settimeout, value), sock.gettimeout(), sock.getblocking()]
            seen += [os.get_blocking(sock.fileno()), attempt(sock.setblocking, value)]
            return [*seen, sock.gettimeout(), os.get_blocking(sock.fileno())]

    same(call)


@generated
@given(st.sampled_from(["send", "sendall"]), data, st.lists(flags, max_size=2))
def test_send(name: str, what: Any, rest: list[Any]) -> None:
    same(on_a_pair(lambda one, _: getattr(one, name)(what, *rest)))


@generated
@given(
    st.sampled_from(["recv", "recvfrom"]),
    st.one_of(st.integers(-5, 20000), odd),
    st.lists(flags, max_size=2),
)
def test_recv(name: str, size: Any, rest: list[Any]) -> None:
    same(on_a_pair(lambda one, _: getattr(one, name)(size, *rest)))


@generated
@given(
    st.sampled_from(["recv_into", "recvfrom_into"]),
    st.integers(0, 9),
    st.lists(whole, max_size=2),
    st.dictionaries(st.sampled_from(["nbytes", "flags", "buffer", "size"]), whole, max_size=2),
)
def test_recv_into(name: str, size: int, rest: list[Any], names: dict[str, Any]) -> None:
    def call(one: Any, _: Any) -> object:
        buffer = bytearray(size)
        return attempt(getattr(one, name), buffer, *rest, **names), buffer

    same(on_a_pair(call))


items = st.one_of(
    st.tuples(st.sampled_from([0, 1, 41]), st.integers(3, 9), octets),
    st.tuples(whole, whole, data),
    st.lists(whole, max_size=4),
    odd,
)


@generated
@given(st.lists(data, max_size=4), st.lists(items, max_size=3), st.lists(flags, max_size=2))
def test_sendmsg(buffers: list[Any], ancillary: list[Any], rest: list[Any]) -> None:
    same(on_a_pair(lambda one, _: one.sendmsg(buffers, ancillary, *rest)))


@generated
@given(st.integers(-1, 12), st.integers(-1, 80), st.integers(0, 4), st.sampled_from([0, 2, 32, 64]))
def test_recvmsg(size: int, space: int, count: int, message_flags: int) -> None:
    def call(one: Any, two: Any) -> object:
        descriptors = struct.pack(f"{count}i", *[one.fileno()] * count)
        two.sendmsg([b"with it"], [(1, stock.SCM_RIGHTS, descriptors)])
        seen = []
        for _ in range(2):  # what waited there, then this
            got: Any = attempt(one.recvmsg, size, space, message_flags & ~stock.MSG_TRUNC)
            if isinstance(got, tuple):
                for _, _, numbers in got[1]:
                    for fd in struct.unpack(
                        f"{len(numbers) // 4}i", numbers[: len(numbers) // 4 * 4]
                    ):
                        os.close(fd)
                got = (got[0], [(a, b, len(c)) for a, b, c in got[1]], *got[2:])
            seen.append(got)
        return seen

    same(on_a_pair(call))


@generated
@given(st.lists(st.integers(0, 6), max_size=4), st.lists(whole, max_size=2))
def test_recvmsg_into(sizes: list[int], rest: list[Any]) -> None:
    def call(one: Any, _: Any) -> object:
        buffers = [bytearray(size) for size in sizes]
        return attempt(one.recvmsg_into, buffers, *rest), buffers

    same(on_a_pair(call))


@generated
@given(st.sampled_from(["listen", "shutdown", "set_inheritable"]), st.lists(whole, max_size=2))
def test_small_calls(name: str, arguments: list[Any]) -> None:
    same(on_a_pair(lambda one, _: getattr(one, name)(*arguments)))


@generated
@given(st.lists(whole, max_size=5))
def test_construction(arguments: list[Any]) -> None:
    # A number that is a descriptor here would be closed by what is made of it.
    if len(arguments) > 3 and isinstance(arguments[3], (int, Index)):
        arguments[3] = -1 if isinstance(arguments[3], int) and arguments[3] < 0 else 2**30

    def call(module: Any) -> object:
        sock = attempt(module.socket, *arguments)
        if isinstance(sock, Exception):
            return sock
        with sock:  # type: ignore[attr-defined]
            return sock.family, sock.type, sock.proto, sock.gettimeout()  # type: ignore[attr-defined]

    same(call)
