"""The module's plain functions: byte order, packed addresses, control messages, interfaces,
descriptors, protocols. Each is compared with the standard library's; what must hold whatever stock
does is stated beside it."""

from __future__ import annotations

import errno
import os
import socket as stock
import sys
import threading
import warnings
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import tracesock as socket
from tests.differential import generated, raises, same

BYTE_ORDER = ("ntohs", "ntohl", "htons", "htonl")
ONE_ARGUMENT = (
    *BYTE_ORDER,
    "inet_aton",
    "inet_ntoa",
    "if_nametoindex",
    "if_indextoname",
    "CMSG_LEN",
    "CMSG_SPACE",
    "close",
    "dup",
    "getprotobyname",
)
FUNCTIONS = (*ONE_ARGUMENT, "inet_pton", "inet_ntop", "if_nameindex")
IS_3_14 = sys.version_info >= (3, 14)


class Index:
    """An object that is an integer by __index__ alone."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


class Failing:
    def __index__(self) -> int:
        raise LookupError("no index")


# --- arguments -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("arguments", ["", "1, 2, 3, 4", "x=1", "1, x=2", "*[], **{'a': 1}"])
def test_number_of_arguments(name: str, arguments: str) -> None:
    same(f"socket.{name}({arguments})")


@pytest.mark.parametrize("name", ONE_ARGUMENT)
@pytest.mark.parametrize(
    "argument", ["None", "1.5", "'lo'", "b'lo'", "b''", "''", "[]", "object", "-(1 << 80)"]
)
def test_type_of_argument(name: str, argument: str) -> None:
    same(f"socket.{name}({argument})")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_is_our_own(name: str) -> None:
    assert getattr(socket, name) is not getattr(stock, name)
    assert getattr(socket, name).__doc__


# --- byte order ----------------------------------------------------------------------------------


def test_byte_order_means_something() -> None:
    swap = sys.byteorder == "little"
    assert socket.htons(0x1234) == (0x3412 if swap else 0x1234)
    assert socket.htonl(0x12345678) == (0x78563412 if swap else 0x12345678)


@generated
@given(st.sampled_from(BYTE_ORDER), st.integers(0, 2**32 - 1))
def test_byte_order_round_trip(name: str, value: int) -> None:
    if name.endswith("s"):
        value &= 0xFFFF
    function = getattr(socket, name)
    assert function(function(value)) == value


@generated
@given(
    st.sampled_from(BYTE_ORDER),
    st.one_of(
        st.integers(-(2**16) - 2, 2**16 + 2),
        st.integers(-(2**32) - 2, 2**32 + 2),
        st.integers(-(2**70), 2**70),
        st.booleans(),
        st.floats(),
        st.text(max_size=3),
    ),
)
@example("ntohl", 2**32)
@example("ntohl", 2**64 - 1)
@example("htons", 2**31)
@example("htons", -(2**31) - 1)
def test_byte_order(name: str, value: object) -> None:
    same(lambda module: getattr(module, name)(value))


@pytest.mark.parametrize("name", BYTE_ORDER)
def test_byte_order_takes_index(name: str) -> None:
    assert getattr(socket, name)(Index(258)) == getattr(socket, name)(258)
    with pytest.raises(LookupError, match="no index"):
        getattr(socket, name)(Failing())


@pytest.mark.parametrize("name", BYTE_ORDER)
def test_byte_order_range(name: str) -> None:
    bits = 16 if name.endswith("s") else 32
    with pytest.raises(ValueError if IS_3_14 else OverflowError):
        getattr(socket, name)(-1)
    with pytest.raises(OverflowError):
        getattr(socket, name)(1 << bits)


# --- packed addresses ----------------------------------------------------------------------------

octets = st.integers(0, 300).map(str)
numbers = st.one_of(octets, st.integers(0, 2**33).map(str), st.integers(0, 2**16).map(hex))
dotted = st.lists(numbers, min_size=1, max_size=5).map(".".join)
groups = st.integers(0, 2**16 + 5).map(lambda value: f"{value:x}")
colons = st.lists(st.one_of(groups, st.just("")), min_size=1, max_size=9).map(":".join)
texts = st.one_of(
    dotted,
    colons,
    st.tuples(colons, dotted).map(":".join),
    st.ip_addresses().map(str),
    st.text("0123456789abcdefx.:%\0 \n", max_size=20),
    st.text(max_size=5),
)
families = st.one_of(
    st.sampled_from([stock.AF_INET, stock.AF_INET6, stock.AF_UNIX, 0, -1, 2**31 - 1, 2**40]),
    st.sampled_from([None, "2", 2.0]),
)
buffers = st.one_of(
    st.binary(min_size=4, max_size=4),
    st.binary(min_size=16, max_size=16),
    st.binary(max_size=20),
    st.binary(max_size=20).map(bytearray),
    st.binary(max_size=20).map(lambda data: memoryview(data)),
    st.binary(max_size=20).map(lambda data: memoryview(data)[::2]),
    st.sampled_from([None, "abcd", 4]),
)


@generated
@given(texts)
@example("1.2.3.4 x")
@example("0x7f.1")
@example("1.2.3.4\0")
@example("255.255.255.255")
@example("\udcff")
def test_inet_aton(text: str) -> None:
    same(lambda module: module.inet_aton(text))


@generated
@given(buffers)
def test_inet_ntoa(packed: object) -> None:
    same(lambda module: module.inet_ntoa(packed))


@generated
@given(families, texts)
@example(stock.AF_INET6, "fe80::1%lo")
@example(stock.AF_INET6, "::ffff:1.2.3.4")
@example(stock.AF_INET, "1.2.3.4\0")
@example(stock.AF_INET, "01.2.3.4")
def test_inet_pton(family: object, text: str) -> None:
    same(lambda module: module.inet_pton(family, text))


@generated
@given(families, buffers)
def test_inet_ntop(family: object, packed: object) -> None:
    same(lambda module: module.inet_ntop(family, packed))


@generated
@given(st.ip_addresses())
def test_packed_round_trip(address: object) -> None:
    text = str(address)
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    packed = socket.inet_pton(family, text)
    assert packed == address.packed  # type: ignore[attr-defined]
    assert socket.inet_pton(family, socket.inet_ntop(family, packed)) == packed
    if family == socket.AF_INET:
        assert socket.inet_aton(text) == packed
        assert socket.inet_ntoa(packed) == text


@pytest.mark.parametrize("function", ["inet_ntoa", "inet_ntop"])
@pytest.mark.parametrize("size", [4, 5])
def test_no_buffer_stays_exported(function: str, size: int) -> None:
    packed = bytearray(size)
    arguments = (packed,) if function == "inet_ntoa" else (socket.AF_INET, packed)
    try:
        getattr(socket, function)(*arguments)
    except (OSError, ValueError):
        assert size == 5
    packed.append(0)  # BufferError while exported


# --- control messages ----------------------------------------------------------------------------


@generated
@given(
    st.sampled_from(["CMSG_LEN", "CMSG_SPACE"]),
    st.one_of(
        st.integers(-2, 200),
        st.integers(2**31 - 60, 2**31 + 10),
        st.integers(2**63 - 3, 2**64 + 3),
        st.integers(-(2**70), 2**70),
        st.booleans(),
        st.floats(),
    ),
)
def test_control_message_sizes(name: str, length: object) -> None:
    same(lambda module: getattr(module, name)(length))


def test_control_message_bounds() -> None:
    for length in range(100):
        assert socket.CMSG_LEN(length) == socket.CMSG_LEN(0) + length
        assert socket.CMSG_SPACE(length) >= socket.CMSG_LEN(length)
    for function in (socket.CMSG_LEN, socket.CMSG_SPACE):
        with pytest.raises(OverflowError, match="out of range"):
            function(2**31)


# --- interfaces ----------------------------------------------------------------------------------


def test_interfaces() -> None:
    known = same("socket.if_nameindex()")
    assert known
    for index, name in known:
        assert socket.if_nametoindex(name) == index
        assert socket.if_nametoindex(os.fsencode(name)) == index
        assert socket.if_indextoname(index) == name


@pytest.mark.parametrize(
    "name",
    ["''", "'no such'", "b'no such'", "'x' * 16", "'x' * 5000", "'lo\\0'", "b'lo\\0'", "'\\udcff'"]
    + ["bytearray(b'lo')", "'é'", "__import__('pathlib').Path('no such')"],
)
def test_unknown_interface(name: str) -> None:
    raises(f"socket.if_nametoindex({name})")


@generated
@given(
    st.one_of(
        st.integers(-3, 3),
        st.integers(2**31 - 2, 2**32 + 3),
        st.integers(2**63 - 3, 2**64 + 3),
        st.integers(-(2**70), 2**70),
        st.booleans(),
        st.floats(),
        st.text(max_size=2),
    )
)
@example(2**32 + 1)
def test_if_indextoname(index: object) -> None:
    same(lambda module: module.if_indextoname(index))


def test_if_indextoname_takes_index() -> None:
    index, name = socket.if_nameindex()[0]
    assert socket.if_indextoname(Index(index)) == name


# --- descriptors ---------------------------------------------------------------------------------


def test_dup_and_close() -> None:
    with stock.socket() as listener:
        copy = socket.dup(listener.fileno())
        try:
            assert copy != listener.fileno()
            assert not os.get_inheritable(copy)
            assert os.path.sameopenfile(copy, listener.fileno())
        finally:
            socket.close(copy)
        with pytest.raises(OSError) as caught:
            os.fstat(copy)
        assert caught.value.errno == errno.EBADF
        assert listener.fileno() != -1
        os.fstat(listener.fileno())


@pytest.mark.parametrize("name", ["close", "dup"])
@pytest.mark.parametrize("fd", ["-1", "2**31 - 1", "2**64", "-2**64", "'1'"])
def test_bad_descriptor(name: str, fd: str) -> None:
    raises(f"socket.{name}({fd})")


def test_dup_takes_index() -> None:
    with stock.socket() as one:
        copy = socket.dup(Index(one.fileno()))
        socket.close(Index(copy))


# --- protocols -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["'tcp'", "'udp'", "'icmp'", "'TCP'", "''", "'no such'", "'tcp\\0'", "'é'", "'\\udcff'"]
)
def test_getprotobyname(name: str) -> None:
    same(f"socket.getprotobyname({name})")


def test_getprotobyname_from_threads() -> None:
    wanted = {name: stock.getprotobyname(name) for name in ("tcp", "udp", "icmp")}
    wrong: list[object] = []

    def ask(name: str) -> None:
        for _ in range(200):
            if (got := socket.getprotobyname(name)) != wanted[name]:
                wrong.append((name, got))

    threads = [threading.Thread(target=ask, args=(name,)) for name in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# --- the helper itself ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        lambda value: 0,
        lambda value: True,
        lambda value: type("Sub", (int,), {})(256),
        lambda value: warnings.warn("a warning", stacklevel=1) or 256,
        lambda value: [sys.audit("socket.htons", value), 256][1],  # type: ignore[func-returns-value]
        lambda value: (_ for _ in ()).throw(OverflowError("another text")),
        lambda value: (_ for _ in ()).throw(OSError(1, "an errno")),
    ],
)
def test_helper_sees_a_difference(
    wrong: Callable[[int], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sys.byteorder == "big" or same("socket.htons(1)") == 256
    monkeypatch.setattr(socket, "htons", wrong)
    with pytest.raises(AssertionError, match=r"socket\.htons\(1\)"):
        same("socket.htons(1)")


def test_helper_refuses_what_it_cannot_compare() -> None:
    with pytest.raises(TypeError, match="must be comparable, not object"):
        same("object()")
    with pytest.raises(AssertionError, match="raised nothing"):
        raises("socket.htons(1)")
