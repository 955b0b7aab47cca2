"""tracesock.Address: what it is made of, where it is taken, and what hooks see of it."""

from __future__ import annotations

import copy
import gc
import itertools
import pickle
import re
import statistics
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import tracesock as socket
from tracesock import Address

SAMPLES: list[tuple[int, Any, int]] = [
    (socket.AF_INET, ("127.0.0.1", 80), 0),
    (socket.AF_INET, ("", 0), 0),
    (socket.AF_INET6, ("::1", 80), 0),
    (socket.AF_INET6, ("fe80::1", 80, 7, 1), 0),
    (socket.AF_UNIX, "/tmp/somewhere", 0),
    (socket.AF_UNIX, b"\0abstract\xff", 0),
    (socket.AF_UNIX, "", 0),
    (socket.AF_NETLINK, (5, 3), 0),
    (socket.AF_VSOCK, (2, 1234), 0),
    (socket.AF_PACKET, ("lo", 0x0800), 0),
    (socket.AF_ALG, ("hash", "sha256"), 0),
    (socket.AF_QIPCRTR, (1, 2), 0),
    (socket.AF_RDS, ("127.0.0.1", 5), 0),
    (socket.AF_TIPC, (socket.TIPC_ADDR_NAME, 1, 2, 3), 0),
    (socket.AF_CAN, ("",), socket.CAN_RAW),
    (socket.AF_CAN, ("", 1, 2, 3), socket.CAN_J1939),
]


@pytest.mark.parametrize(("family", "form", "proto"), SAMPLES)
def test_equal_hashable_and_the_same_after_a_copy(family: int, form: Any, proto: int) -> None:
    address = Address(family, form, proto)
    again = Address(family, form, proto)
    assert address == again and hash(address) == hash(again) and len({address, again}) == 1
    assert address.family == family and address.proto == proto
    assert address != form and address != object() and address.__eq__(None) is False
    assert Address(family, address, proto) == address
    assert Address.from_bytes(family, bytes(address), proto) == address
    for number in range(pickle.HIGHEST_PROTOCOL + 1):
        copied = pickle.loads(pickle.dumps(address, number))
        assert copied == address and bytes(copied) == bytes(address)
        assert copied.address == address.address
    assert copy.copy(address) == copy.deepcopy(address) == address
    assert repr(address).startswith(f"Address(family={family}, address=")


def test_an_address_differs_from_others() -> None:
    address = Address(socket.AF_INET, ("127.0.0.1", 80))
    assert address != Address(socket.AF_INET, ("127.0.0.1", 81))
    assert address != Address(socket.AF_INET, ("127.0.0.2", 80))
    # The kernel's bytes of both are the same.
    assert address != Address(socket.AF_RDS, ("127.0.0.1", 80))


def test_an_address_cannot_be_changed() -> None:
    address: Any = Address(socket.AF_INET, ("127.0.0.1", 80))
    before = bytes(address)
    for name in ("family", "proto", "address", "other"):
        with pytest.raises(AttributeError):
            setattr(address, name, 1)
    address.__init__(socket.AF_INET, ("127.0.0.2", 81))
    assert bytes(address) == before and address.address == ("127.0.0.1", 80)
    with pytest.raises(TypeError):
        type("Sub", (Address,), {})


def test_wrong_arguments_have_the_errors_of_a_call() -> None:
    with pytest.raises(OverflowError, match=r"Address\(\): port must be 0-65535"):
        Address(socket.AF_INET, ("127.0.0.1", 65536))
    with pytest.raises(TypeError, match=r"Address\(\): AF_INET address must be tuple, not int"):
        Address(socket.AF_INET, 5)
    with pytest.raises(OSError, match="bad family"):
        Address(9999, ("127.0.0.1", 1))
    with pytest.raises(TypeError, match="Address of family 2 on a new Address of family 10"):
        Address(socket.AF_INET6, Address(socket.AF_INET, ("127.0.0.1", 1)))
    with pytest.raises(socket.gaierror):
        Address(socket.AF_INET, ("no-such-host.invalid", 1))


@pytest.mark.parametrize(
    ("family", "data"),
    [
        (socket.AF_INET, b""),
        (socket.AF_INET, b"\2\0" + bytes(13)),
        (socket.AF_INET, b"\2\0" + bytes(300)),
        (socket.AF_INET, b"\1\0" + bytes(14)),
        (socket.AF_INET6, b"\2\0" + bytes(26)),
        (socket.AF_UNIX, b"\1"),
        (9999, bytes(16)),
    ],
)
def test_bytes_that_are_no_address_are_refused(family: int, data: bytes) -> None:
    with pytest.raises(ValueError, match=r"^Address\.from_bytes\(\): "):
        Address.from_bytes(family, data)


def test_what_was_never_made_is_no_address() -> None:
    hollow = Address.__new__(Address)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for call in (sock.bind, sock.connect, lambda each: sock.sendto(b"x", each)):
            with pytest.raises(TypeError, match="AF_INET address must be tuple, not"):
                call(hollow)
        assert Address(socket.AF_INET, ("127.0.0.1", 80)) != hollow


def test_none_is_made_past_the_class() -> None:
    """Such an instance would end the process when it is freed."""
    program = """
from tracesock import Address
try:
    object.__new__(Address)
except TypeError as error:
    print(error)
hollow = Address.__new__(Address)
made = Address.__new__(Address, 2, ("127.0.0.1", 80))
assert made == Address(2, ("127.0.0.1", 80)) != hollow
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"object\.__new__\(.*Address\) is not safe, use .*\n", done.stdout)


def test_create_connection_takes_an_address_of_any_family(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = Address(socket.AF_INET, server.getsockname())
        with socket.create_connection(address, timeout=5) as sock:
            assert sock.getpeername() == server.getsockname() and sock.gettimeout() == 5
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = Address(socket.AF_INET, nobody.getsockname())
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)
        with pytest.raises(ExceptionGroup):
            socket.create_connection(address, all_errors=True)
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "server"))
        unix.listen()
        local = Address(socket.AF_UNIX, str(tmp_path / "server"))
        with socket.create_connection(local) as sock:
            assert sock.getpeername() == str(tmp_path / "server")


def test_create_server_and_getnameinfo_take_one() -> None:
    address = Address(socket.AF_INET, ("127.0.0.1", 0))
    with socket.create_server(address) as server:
        assert server.getsockname()[0] == "127.0.0.1"
    numeric = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
    assert socket.getnameinfo(Address(socket.AF_INET6, ("::1", 9)), numeric) == ("::1", "9")
    with pytest.raises(TypeError, match="must be a tuple"):
        socket.getnameinfo(Address(socket.AF_UNIX, "/x"), numeric)


def test_hooks_are_told_the_form_that_they_know() -> None:
    """In a process of its own: a hook cannot be removed."""
    program = """
        import sys
        import tracesock as socket

        told = []
        sys.addaudithook(
            lambda event, arguments: told.append((event, arguments[-1]))
            if event in ("socket.bind", "socket.connect", "socket.sendto", "socket.sendmsg")
            else None
        )
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        receiver.bind(socket.Address(socket.AF_INET, ("127.0.0.1", 0)))
        form = receiver.getsockname()
        address = socket.Address(socket.AF_INET, form)
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sender.sendto(b"1", address)
        sender.sendto(b"1", 0, address)
        sender.sendmsg([b"2"], [], 0, address)
        sender.sendmsg([b"2"], [], 0, form)
        sender.connect(address)
        sender.connect_ex(address)
        sender.connect(form)
        sender.send_many([b"3", (b"4", form)], address)
        expected = [("socket.bind", ("127.0.0.1", 0))]
        expected += [("socket.sendto", form)] * 2 + [("socket.sendmsg", form)] * 2
        expected += [("socket.connect", form)] * 3 + [("socket.sendto", form)] * 2
        assert told == expected, told
        """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True, timeout=60)


def test_a_pickled_address_is_read_by_another_process() -> None:
    data = pickle.dumps(Address(socket.AF_INET6, ("::1", 80, 3, 0)))
    read = "import pickle, sys; print(pickle.loads(sys.stdin.buffer.read()).address)"
    told = subprocess.run(
        [sys.executable, "-c", read], input=data, capture_output=True, check=True, timeout=60
    )
    assert told.stdout.decode().strip() == "('::1', 80, 3, 0)"


def test_addresses_leak_nothing() -> None:
    def use() -> None:
        for family, form, proto in SAMPLES:
            address = Address(family, form, proto)
            pickle.loads(pickle.dumps(address))
            repr(address)
        try:
            Address(socket.AF_INET, 5)
        except TypeError:
            pass

    use()
    blocks = []
    for _ in range(6):
        for _ in range(50):
            use()
        gc.collect()
        blocks.append(sys.getallocatedblocks())
    # What leaks grows in each round; another thread of this process in one or the other.
    assert statistics.median(b - a for a, b in itertools.pairwise(blocks)) < 20, blocks
