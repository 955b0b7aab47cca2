"""Every address family: the kernel's bytes, the errors, stock's answers, and this kernel's.

The codecs run without a kernel through `_native.encode_address` and `decode_address`. Stock parses
addresses of every family that it was built with on a socket of another family, because it believes
the family that it is told for a descriptor: so both modules are asked the same for families that
no kernel here has.
"""

from __future__ import annotations

import errno
import os
import re
import socket as stock
import struct
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tracesock as socket
from tests.differential import generated, outcome, same
from tracesock._native import decode_address, encode_address

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the rows of Linux are tested"),
    pytest.mark.skipif(sys.byteorder != "little", reason="the expected bytes are little-endian"),
]

ELSEWHERE = "make test-kernel runs it in a virtual machine"
ZEROS = b"\0" * 14


class Index:
    """An integer by __index__ alone."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


class Failing:
    def __index__(self) -> int:
        raise LookupError("no index")


LO = socket.if_nametoindex("lo")
LO_BYTES = struct.pack("<i", LO).hex()

# --- without a kernel ----------------------------------------------------------------------------

# family, protocol, the caller's address, the kernel's bytes, what comes back
ADDRESSES: list[tuple[int, int, Any, str, Any]] = [
    (socket.AF_INET, 0, ("127.0.0.1", 80), "020000507f000001" + "00" * 8, ("127.0.0.1", 80)),
    (socket.AF_INET, 0, ("", True), "0200000100000000" + "00" * 8, ("0.0.0.0", 1)),
    (socket.AF_INET, 0, (b"127.1", 0), "020000007f000001" + "00" * 8, ("127.0.0.1", 0)),
    (
        socket.AF_INET,
        0,
        (bytearray(b"<broadcast>"), Index(7)),
        "02000007ffffffff" + "00" * 8,
        ("255.255.255.255", 7),
    ),
    (
        socket.AF_INET6,
        0,
        ("::1", 443),
        "0a0001bb00000000" + "00" * 15 + "01" + "00000000",
        ("::1", 443, 0, 0),
    ),
    (
        socket.AF_INET6,
        0,
        ("ff02::1", 1, 0xFFFFF, 2**33 + 5),
        "0a000001000fffffff02" + "00" * 13 + "01" + "05000000",
        ("ff02::1", 1, 0xFFFFF, 5),
    ),
    (socket.AF_UNIX, 0, "/tmp/é", "01002f746d702fc3a900", "/tmp/é"),
    (socket.AF_UNIX, 0, "/\udcff", "01002fff00", "/\udcff"),
    (socket.AF_UNIX, 0, bytearray(b"/a\0b"), "01002f61006200", "/a"),
    (socket.AF_UNIX, 0, "\0name", "0100006e616d65", b"\0name"),
    (socket.AF_UNIX, 0, b"\0a\0", "0100006100", b"\0a\0"),
    (socket.AF_UNIX, 0, "", "0100", ""),
    (socket.AF_NETLINK, 0, (1234, 0x80000001), "10000000d204000001000080", (1234, 0x80000001)),
    (socket.AF_NETLINK, 0, (-1, 2**32 + 2), "10000000ffffffff02000000", (2**32 - 1, 2)),
    (
        socket.AF_PACKET,
        0,
        ("lo", 0x0806),
        "11000806" + LO_BYTES + "00" * 12,
        ("lo", 0x0806, 0, 0, b""),
    ),
    (
        socket.AF_PACKET,
        0,
        ("lo", socket.ETH_P_ALL, socket.PACKET_OUTGOING, 772, b"\1\2\3\4\5\6"),
        "11000003" + LO_BYTES + "0403" + "04" + "06" + "0102030405060000",
        ("lo", 3, socket.PACKET_OUTGOING, 772, b"\1\2\3\4\5\6"),
    ),
    (socket.AF_VSOCK, 0, (2, 1024), "2800000000040000" + "02000000" + "00" * 4, (2, 1024)),
    (
        socket.AF_VSOCK,
        0,
        (-1, -1),
        "28000000" + "ff" * 8 + "00" * 4,
        (socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY),
    ),
    (socket.AF_QIPCRTR, 0, (1, -2), "2a00000001000000feffffff", (1, 0xFFFFFFFE)),
    (
        socket.AF_TIPC,
        0,
        (socket.TIPC_ADDR_NAMESEQ, 1000, 5, 9),
        "1e000102e80300000500000009000000",
        (socket.TIPC_ADDR_NAMESEQ, 1000, 5, 9, socket.TIPC_CLUSTER_SCOPE),
    ),
    (
        socket.AF_TIPC,
        0,
        (socket.TIPC_ADDR_NAME, 1000, 5, 9, socket.TIPC_NODE_SCOPE),
        "1e000203e80300000500000000000000",
        (socket.TIPC_ADDR_NAME, 1000, 5, 5, socket.TIPC_NODE_SCOPE),
    ),
    (
        socket.AF_TIPC,
        0,
        (socket.TIPC_ADDR_ID, 7, 8, 9),
        "1e000302080000000700000000000000",
        (socket.TIPC_ADDR_ID, 7, 8, 0, socket.TIPC_CLUSTER_SCOPE),
    ),
    (socket.AF_CAN, socket.CAN_RAW, ("lo",), "1d000000" + LO_BYTES + "00" * 16, ("lo",)),
    (socket.AF_CAN, socket.CAN_RAW, (b"",), "1d000000" + "00" * 20, ("",)),
    (socket.AF_CAN, socket.CAN_BCM, (Path("lo"),), "1d000000" + LO_BYTES + "00" * 16, ("lo",)),
    (
        socket.AF_CAN,
        socket.CAN_ISOTP,
        ("lo", 0x123, -1),
        "1d000000" + LO_BYTES + "23010000ffffffff" + "00" * 8,
        ("lo", 0x123, 0xFFFFFFFF),
    ),
    (
        socket.AF_CAN,
        socket.CAN_J1939,
        ("", 2**64 + 2, socket.J1939_NO_PGN, 256 + socket.J1939_NO_ADDR),
        "1d00000000000000" + "0200000000000000" + "00000400" + "ff000000",
        ("", 2, socket.J1939_NO_PGN, socket.J1939_NO_ADDR),
    ),
    (
        socket.AF_ALG,
        0,
        ("hash", "sha256"),
        "2600" + b"hash".ljust(14, b"\0").hex() + "00" * 8 + b"sha256".ljust(64, b"\0").hex(),
        ("hash", "sha256", 0, 0),
    ),
    (
        socket.AF_ALG,
        0,
        ("hash", "é", 0x10001, 2),
        "2600"
        + b"hash".ljust(14, b"\0").hex()
        + "0100000002000000"
        + "é".encode().ljust(64, b"\0").hex(),
        ("hash", "é", 1, 2),
    ),
    (socket.AF_RDS, 0, ("10.0.0.1", 18634), "020048ca0a000001" + "00" * 8, ("10.0.0.1", 18634)),
    (
        socket.AF_BLUETOOTH,
        socket.BTPROTO_L2CAP,
        ("01:23:45:67:89:ab", 0x1001),
        "1f000110ab896745230100000000",
        ("01:23:45:67:89:AB", 0x1001),
    ),
    (
        socket.AF_BLUETOOTH,
        socket.BTPROTO_L2CAP,
        ("1:2:3:4:5:6", 0, 4),
        "1f000000060504030201" + "04000000",
        ("01:02:03:04:05:06", 0, 4),
    ),
    (
        socket.AF_BLUETOOTH,
        socket.BTPROTO_L2CAP,
        ("1:2:3:4:5:6", 2**16 + 1, 0, 256 + socket.BDADDR_LE_RANDOM),
        "1f000100060504030201" + "00000200",
        ("01:02:03:04:05:06", 1, 0, socket.BDADDR_LE_RANDOM),
    ),
    (
        socket.AF_BLUETOOTH,
        socket.BTPROTO_RFCOMM,
        (socket.BDADDR_LOCAL, 257),
        "1f00ffffff0000000100",
        (socket.BDADDR_LOCAL, 1),
    ),
    (socket.AF_BLUETOOTH, socket.BTPROTO_HCI, 3, "1f0003000000", 3),
    (socket.AF_BLUETOOTH, socket.BTPROTO_HCI, Index(3), "1f0003000000", 3),
    (socket.AF_BLUETOOTH, socket.BTPROTO_HCI, (3,), "1f0003000000", 3),
    (
        socket.AF_BLUETOOTH,
        socket.BTPROTO_HCI,
        (socket.HCI_DEV_NONE, socket.HCI_CHANNEL_CONTROL),
        "1f00ffff0300",
        (socket.HCI_DEV_NONE, socket.HCI_CHANNEL_CONTROL),
    ),
    (
        socket.AF_BLUETOOTH,
        socket.BTPROTO_SCO,
        b"1:2:3:4:5:6",
        "1f00060504030201",
        "01:02:03:04:05:06",
    ),
    (
        socket.AF_BLUETOOTH,
        socket.BTPROTO_SCO,
        socket.BDADDR_ANY,
        "1f00000000000000",
        socket.BDADDR_ANY,
    ),
]


@pytest.mark.parametrize(("family", "protocol", "address", "wire", "returned"), ADDRESSES)
def test_round_trip(family: int, protocol: int, address: Any, wire: str, returned: Any) -> None:
    encoded = encode_address(family, protocol, address)
    assert encoded.hex() == wire
    assert decode_address(protocol, encoded) == returned


def test_every_family_has_a_round_trip() -> None:
    tested = {(family, protocol) for family, protocol, *_ in ADDRESSES}
    here = ("INET", "INET6", "UNIX", "NETLINK", "PACKET", "VSOCK")
    assert tested == {(getattr(socket, f"AF_{name}"), 0) for name in here} | {
        (family, protocol) for family, _, protocol, _ in NEW_SOCKETS.values()
    }


# family, protocol, address, exception, its text
REFUSALS: list[tuple[int, int, Any, type[Exception], str]] = [
    (250, 0, 5, OSError, "bind(): bad family"),
    (socket.AF_UNSPEC, 0, ("", 0), OSError, "bind(): bad family"),
    (socket.AF_NETLINK, 0, [1, 2], TypeError, "bind(): AF_NETLINK address must be tuple, not list"),
    (socket.AF_NETLINK, 0, (1,), TypeError, "AF_NETLINK address must be a pair (pid, groups)"),
    (
        socket.AF_VSOCK,
        0,
        [1, 2],
        TypeError,
        "getsockaddrarg: AF_VSOCK address must be tuple, not list",
    ),
    (socket.AF_VSOCK, 0, (1,), TypeError, "getsockaddrarg() takes exactly 2 arguments (1 given)"),
    (
        socket.AF_QIPCRTR,
        0,
        "1",
        TypeError,
        "getsockaddrarg: AF_QIPCRTR address must be tuple, not str",
    ),
    (socket.AF_TIPC, 0, (0, 1, 1, 1), TypeError, "Invalid address type"),
    (
        socket.AF_TIPC,
        0,
        (1,),
        TypeError,
        "AF_TIPC address must be a tuple (addr_type, v1, v2, v3[, scope])",
    ),
    (
        socket.AF_PACKET,
        0,
        ("lo",),
        TypeError,
        "AF_PACKET address must be a tuple of two to five elements",
    ),
    (socket.AF_PACKET, 0, ("lo", 65536), OverflowError, "bind(): proto must be 0-65535."),
    (socket.AF_PACKET, 0, ("lo", 2**31), OverflowError, "bind(): address argument out of range"),
    (
        socket.AF_PACKET,
        0,
        ("lo", 0, 0, 0, b"123456789"),
        ValueError,
        "Hardware address must be 8 bytes or less",
    ),
    (socket.AF_PACKET, 0, ("no-such", 0), OSError, "[Errno 19] No such device"),
    (
        socket.AF_CAN,
        socket.CAN_RAW,
        ("sixteen-letters-",),
        OSError,
        "AF_CAN interface name too long",
    ),
    (socket.AF_CAN, socket.CAN_RAW, ("no-such",), OSError, "[Errno 19] No such device"),
    (socket.AF_CAN, 3, "x", OSError, "bind(): unsupported CAN protocol"),
    # CPython raises SystemError for these two.
    (
        socket.AF_CAN,
        socket.CAN_ISOTP,
        "lo",
        TypeError,
        "bind(): AF_CAN address must be tuple, not str",
    ),
    (
        socket.AF_CAN,
        socket.CAN_J1939,
        5,
        TypeError,
        "bind(): AF_CAN address must be tuple, not int",
    ),
    (
        socket.AF_CAN,
        socket.CAN_ISOTP,
        ("lo", 1),
        TypeError,
        "function takes exactly 3 arguments (2 given)",
    ),
    (socket.AF_ALG, 0, ("t" * 14, "n" * 64), ValueError, "AF_ALG type too long."),
    (socket.AF_ALG, 0, ("t" * 13, "n" * 64), ValueError, "AF_ALG name too long."),
    (socket.AF_ALG, 0, ("t\0", "n"), ValueError, "embedded null character"),
    (
        socket.AF_ALG,
        0,
        (1,),
        TypeError,
        "AF_ALG address must be a tuple (type, name[, feat[, mask]])",
    ),
    (socket.AF_RDS, 0, "x", TypeError, "bind(): AF_INET address must be tuple, not str"),
    (socket.AF_BLUETOOTH, 9, 5, OSError, "bind(): unknown Bluetooth protocol"),
    *(
        (socket.AF_BLUETOOTH, protocol, address, OSError, "bind(): wrong format")
        for protocol, address in [
            (socket.BTPROTO_L2CAP, "01:23:45:67:89:AB"),
            (socket.BTPROTO_L2CAP, ("01:23:45:67:89:AB",)),
            (socket.BTPROTO_L2CAP, (b"01:23:45:67:89:AB", 1)),
            (socket.BTPROTO_L2CAP, ("01:23:45:67:89:AB", Failing())),
            (socket.BTPROTO_L2CAP, ("01:23:45:67:89:AB\0", 1)),
            (socket.BTPROTO_RFCOMM, ("01:23:45:67:89:AB", "1")),
            (socket.BTPROTO_RFCOMM, ["01:23:45:67:89:AB", 1]),
            (socket.BTPROTO_HCI, "hci0"),
            (socket.BTPROTO_HCI, (1, 2, 3)),
            (socket.BTPROTO_SCO, bytearray(b"01:23:45:67:89:AB")),
            (socket.BTPROTO_SCO, ("01:23:45:67:89:AB",)),
        ]
    ),
    *(
        (socket.AF_BLUETOOTH, socket.BTPROTO_SCO, text, OSError, "bad bluetooth address")
        for text in [
            "",
            "1:2:3:4:5",
            "1:2:3:4:5:6:7",
            "1:2:3:4:5:6 ",
            "1:2:3:4:5:100",
            "-1:2:3:4:5:6",
        ]
    ),
    (socket.AF_BLUETOOTH, socket.BTPROTO_SCO, b"1:2:3:4:5:6\0", ValueError, "embedded null byte"),
    (socket.AF_BLUETOOTH, socket.BTPROTO_HCI, Failing(), LookupError, "no index"),
]


@pytest.mark.parametrize(("family", "protocol", "address", "kind", "text"), REFUSALS)
def test_refusal(
    family: int, protocol: int, address: Any, kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind) as caught:
        encode_address(family, protocol, address)
    assert type(caught.value) in (kind, OSError)
    assert str(caught.value) == text
    # What the parser said first is not dragged along.
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("protocol", "wire", "expected"),
    [
        (0, "", None),
        (0, "fa00" + "01" * 14, (250, b"\1" * 14)),
        # Less than the family needs.
        (0, "0200", (socket.AF_INET, ZEROS)),
        (0, "1100" + "00" * 6, (socket.AF_PACKET, ZEROS)),
        # An unbound RDS socket.
        (0, "00" * 16, (0, ZEROS)),
        # No more of a hardware address than came, and all of InfiniBand's.
        (0, "11000000" + LO_BYTES + "20000014" + "ab" * 4, ("lo", 0, 0, 32, b"\xab" * 4)),
        (0, "11000000" + LO_BYTES + "20000014" + "ab" * 20, ("lo", 0, 0, 32, b"\xab" * 20)),
        # An interface that has gone.
        (0, "11000003ffffff7f" + "00" * 12, ("", 3, 0, 0, b"")),
        (socket.CAN_RAW, "1d000000ffffff7f", ("",)),
        # As short as the kernel's own, and a protocol without a codec.
        (socket.CAN_RAW, "1d000000" + LO_BYTES, ("lo",)),
        (3, "1d000000" + LO_BYTES, ("lo",)),
        (socket.CAN_ISOTP, "1d000000" + LO_BYTES + "0100000002000000", ("lo", 1, 2)),
        # Kernels that end the structures earlier.
        (socket.BTPROTO_L2CAP, "1f000110060504030201", ("01:02:03:04:05:06", 0x1001)),
        (socket.BTPROTO_HCI, "1f000300", 3),
    ],
)
def test_decoding(protocol: int, wire: str, expected: Any) -> None:
    assert decode_address(protocol, bytes.fromhex(wire)) == expected


@pytest.mark.parametrize(
    ("protocol", "wire", "text"),
    [
        (0, "1e000902" + "00" * 12, "Invalid address type"),
        (9, "1f00" + "00" * 6, "Unknown Bluetooth protocol"),
    ],
)
def test_what_cannot_be_decoded(protocol: int, wire: str, text: str) -> None:
    with pytest.raises(ValueError, match=f"^{text}$"):
        decode_address(protocol, bytes.fromhex(wire))


@generated
@given(st.binary(max_size=128), st.integers(0, 10))
def test_any_bytes_decode_or_raise(data: bytes, protocol: int) -> None:
    try:
        decoded = decode_address(protocol, data)
    except (ValueError, OSError):
        return
    assert decoded is None if not data else isinstance(decoded, (tuple, str, bytes, int))


# --- as stock does -------------------------------------------------------------------------------

# name, family, protocol: each with stock's own name for what it was built with
FAMILIES: dict[str, tuple[str, int, int]] = {
    "inet": ("AF_INET", socket.AF_INET, 0),
    "inet6": ("AF_INET6", socket.AF_INET6, 0),
    "netlink": ("AF_NETLINK", socket.AF_NETLINK, 0),
    "packet": ("AF_PACKET", socket.AF_PACKET, 0),
    "vsock": ("AF_VSOCK", socket.AF_VSOCK, 0),
    "tipc": ("AF_TIPC", socket.AF_TIPC, 0),
    "alg": ("AF_ALG", socket.AF_ALG, 0),
    "qipcrtr": ("AF_QIPCRTR", socket.AF_QIPCRTR, 0),
    "rds": ("AF_RDS", socket.AF_RDS, 0),
    "can_raw": ("CAN_RAW", socket.AF_CAN, socket.CAN_RAW),
    "can_bcm": ("CAN_BCM", socket.AF_CAN, socket.CAN_BCM),
    "can_isotp": ("CAN_ISOTP", socket.AF_CAN, socket.CAN_ISOTP),
    "can_j1939": ("CAN_J1939", socket.AF_CAN, socket.CAN_J1939),
    "can_unknown": ("AF_CAN", socket.AF_CAN, 3),
    "bluetooth_l2cap": ("AF_BLUETOOTH", socket.AF_BLUETOOTH, socket.BTPROTO_L2CAP),
    "bluetooth_rfcomm": ("AF_BLUETOOTH", socket.AF_BLUETOOTH, socket.BTPROTO_RFCOMM),
    "bluetooth_hci": ("AF_BLUETOOTH", socket.AF_BLUETOOTH, socket.BTPROTO_HCI),
    "bluetooth_sco": ("AF_BLUETOOTH", socket.AF_BLUETOOTH, socket.BTPROTO_SCO),
    "bluetooth_unknown": ("AF_BLUETOOTH", socket.AF_BLUETOOTH, 9),
    "unknown": ("AF_INET", 250, 0),
}
METHODS = ("bind", "connect", "connect_ex", "sendto", "sendmsg")


@pytest.fixture(params=list(FAMILIES))
def of_stock(request: pytest.FixtureRequest) -> tuple[int, int]:
    """A family and a protocol that stock can parse the addresses of."""
    name, family, protocol = FAMILIES[request.param]
    if not hasattr(stock, name):
        pytest.skip(f"the standard library was built without {name}: another build runs this")
    return family, protocol


def attempt(module: Any, family: int, protocol: int, method: str, address: Any) -> Any:
    """What the module makes of an address before a socket of AF_UNIX refuses it."""
    with stock.socket(stock.AF_UNIX, stock.SOCK_DGRAM) as descriptor:
        fileno = os.dup(descriptor.fileno())
    with module.socket(family, stock.SOCK_DGRAM, protocol, fileno=fileno) as sock:
        if method == "sendto":
            return sock.sendto(b"", address)
        if method == "sendmsg":
            return sock.sendmsg([b""], [], 0, address)
        return getattr(sock, method)(address)


ATTEMPT = "attempt(socket, family, protocol, method, address)"

FIXED: list[Any] = [
    None,
    0,
    -1,
    1.5,
    "",
    "x",
    b"",
    b"lo",
    [],
    ["lo", 1],
    (),
    ("lo",),
    (b"lo",),
    (bytearray(b"lo"),),
    ("no-such",),
    ("fifteen-letters",),
    ("sixteen-letters-",),
    ("lo\0",),
    ("\udc80",),
    (None,),
    (1,),
    (Path("lo"),),
    ("lo", 0),
    ("lo", "0"),
    ("lo", 65535),
    ("lo", 65536),
    ("lo", -1),
    ("lo", 2**31),
    ("lo", 2**64),
    ("lo", 1.0),
    ("lo", Index(3)),
    ("lo", Failing()),
    ("lo", 0, 0),
    ("lo", 0, 0, 0),
    ("lo", 0, 2**40, 0),
    ("lo", 0, 0, 0, b""),
    ("lo", 0, 0, 0, b"12345678"),
    ("lo", 0, 0, 0, b"123456789"),
    ("lo", 0, 0, 0, "text"),
    ("lo", 0, 0, 0, 5),
    ("lo", 0, 0, 0, None),
    ("lo", 0, 0, 0, memoryview(b"abcd")[::2]),
    ("lo", 0, 0, 0, b"", 0),
    ("no-such", 65536, 0, 0, b"123456789"),
    ("lo", 65536, 0, 0, b"123456789"),
    ("127.0.0.1", 0),
    ("127.0.0.1", 65536),
    ("127.0.0.1", 2**40),
    ("127.0.0.1", -1),
    ("127.0.0.1", "1"),
    ("127.0.0.1", 0, 0, 0),
    ("127.0.0.1", 0, 0, 0, 0),
    (b"127.0.0.1", 0),
    (bytearray(b"::1"), 0),
    ("::1", 0),
    ("::1", 0, 0x100000),
    ("::1", 0, -1),
    ("::1", 0, 0, 2**33),
    ("::1%lo", 0),
    ("<broadcast>", 0),
    ("127.0.0.1\0", 0),
    ("\udc80", 0),
    (None, 0),
    (0, 0),
    (1, 2),
    (-1, -1),
    (2**32, 2**40),
    (Index(1), Index(2)),
    (Failing(), 0),
    (1, None),
    (1, 2, 3),
    (1, 2, 3, 4),
    (2, 2, 3, 4, -1),
    (3, 2, 3, 4, 5),
    (3, 2, 3, 4, 5, 6),
    (0, 2, 3, 4),
    (257, 2, 3, 4),
    ("hash", "sha256"),
    ("hash", "sha256", 2**17, -1),
    ("t" * 13, "n" * 63),
    ("t" * 14, "n" * 64),
    ("t" * 13, "n" * 64),
    ("t\0", "n"),
    ("é" * 7, "n"),
    ("\udc80", "n"),
    ("hash", b"sha256"),
    ("lo", 1, 2),
    ("lo", -1, 2**40),
    ("lo", 2**64, -1, 256),
    ("", 0, 0, 0),
    ("no-such", 0, 0),
    ("no-such", 0, 0, 0),
    ("lo", "1", 2),
    ("lo", 1, 2, "3"),
    ("01:23:45:67:89:AB", 1),
    ("01:23:45:67:89:AB", 1, 2, 3),
    ("01:23:45:67:89:A", 1),
    ("0x1:+2: 3:4:5:6", 1),
    ("100000001:2:3:4:5:6", 1),
    ("1ffffffffffffffff:2:3:4:5:6", 1),
    "01:23:45:67:89:AB",
    b"01:23:45:67:89:AB",
    b"01:23:45:67:89:AB\0",
]

# What may stand in an address and asks no name server.
HOSTS = ["", "127.0.0.1", "::1", "<broadcast>", "127.1", b"127.0.0.1", "a\0b", "lo", "no\0"]
HOSTS_OR_NAMES = [*HOSTS, "hash", "sha256", "1:2:3:4:5:6", "sixteen-letters-"]
VALUES = st.one_of(
    st.integers(-5, 70000),
    st.sampled_from([2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63, 2**64, -(2**31), -(2**63)]),
    st.sampled_from(HOSTS_OR_NAMES),
    st.sampled_from([None, 1.5, b"12345678", b"123456789", (), Index(2), Failing()]),
    st.binary(max_size=10),
)


def asks_a_name_server(family: int, address: Any) -> bool:
    """Whether a host in it would be looked up: slow, and different from one moment to the next."""
    if family not in (socket.AF_INET, socket.AF_INET6, socket.AF_RDS):
        return False
    if not isinstance(address, tuple) or not address:
        return False
    host = address[0]
    if not isinstance(host, (str, bytes, bytearray)):
        return False
    text = host if isinstance(host, str) else bytes(host).decode("latin-1")
    return "\0" not in text and not any(
        text == (known if isinstance(known, str) else known.decode())
        for known in ("", "127.0.0.1", "::1", "<broadcast>", "127.1")
    )


def is_the_documented_difference(family: int, protocol: int, address: Any) -> bool:
    return (
        family == socket.AF_CAN
        and protocol in (socket.CAN_ISOTP, socket.CAN_J1939)
        and not isinstance(address, tuple)
    )


@pytest.mark.parametrize("method", METHODS)
def test_same_as_stock(of_stock: tuple[int, int], method: str) -> None:
    family, protocol = of_stock
    for address in FIXED:
        if asks_a_name_server(family, address):
            continue
        values: dict[str, Any] = {"attempt": attempt, "family": family, "protocol": protocol}
        values |= {"method": method, "address": address}
        if is_the_documented_difference(family, protocol, address):
            if method == "sendmsg" and address is None:
                continue  # no address at all
            ours = outcome(ATTEMPT, socket, **values)
            theirs = outcome(ATTEMPT, stock, **values)
            assert theirs.exception[0] is SystemError
            assert ours.exception[:2] == (
                TypeError,
                f"{method}(): AF_CAN address must be tuple, not {type(address).__name__}",
            )
            continue
        same(ATTEMPT, **values)


@settings(generated, max_examples=400)
@given(
    st.sampled_from(list(FAMILIES)),
    st.sampled_from(METHODS),
    st.one_of(VALUES, st.lists(VALUES, max_size=6).map(tuple)),
)
def test_generated_addresses_are_answered_as_by_stock(name: str, method: str, address: Any) -> None:
    built_with, family, protocol = FAMILIES[name]
    if (
        not hasattr(stock, built_with)
        or asks_a_name_server(family, address)
        or is_the_documented_difference(family, protocol, address)
    ):
        return
    values: dict[str, Any] = {"attempt": attempt, "family": family, "protocol": protocol}
    same(ATTEMPT, **values, method=method, address=address)


@pytest.mark.parametrize(
    "call", ["getsockname()", "getpeername()", "recvfrom(1)", "recvmsg(1)", "accept()"]
)
def test_reading_an_address_of_another_family(of_stock: tuple[int, int], call: str) -> None:
    """The kernel's family decides, and a family without a length says so before any call."""
    family, protocol = of_stock

    def snippet(module: Any) -> Any:
        one, other = stock.socketpair(stock.AF_UNIX, stock.SOCK_DGRAM)
        with one, other:
            other.send(b"x")
            fileno = os.dup(one.fileno())
        with module.socket(family, stock.SOCK_DGRAM, protocol, fileno=fileno) as sock:
            return eval(f"sock.{call}", {"sock": sock})

    same(snippet)


def test_unix_paths_as_stock(tmp_path: Path) -> None:
    directory = str(tmp_path)
    room = 107 - len(os.fsencode(directory)) - 1
    for address in [
        f"{directory}/{'x' * room}",
        f"{directory}/{'x' * (room + 1)}",
        f"{directory}/{'x' * (room + 2)}",
        f"{directory}/nul\0rest",
        f"{directory}/\udcff",
        f"{directory}/\ud800",
        os.fsencode(directory) + b"/bytes",
        bytearray(os.fsencode(directory) + b"/array"),
        memoryview(os.fsencode(directory) + b"/view"),
        memoryview(b"abcd")[::2],
        Path(directory) / "path",
        None,
        5,
        (directory,),
        "\0" + "a" * 107,
        "\0" + "a" * 108,
        b"\0a\0b",
    ]:

        def snippet(module: Any, address: Any = address) -> Any:
            with module.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                try:
                    sock.bind(address)
                    name = sock.getsockname()
                finally:
                    for left in os.listdir(directory):
                        os.unlink(os.path.join(directory, left))
                return name

        same(snippet)


# --- this kernel ---------------------------------------------------------------------------------


def opened(family: int, kind: int, protocol: int = 0) -> Any:
    """A socket that this kernel has, or a skipped test that says where it would run."""
    what = f"{socket.AddressFamily(family).name}" + (f" protocol {protocol}" if protocol else "")
    try:
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        if error.errno in (errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT):
            pytest.skip(f"kernel lacks {what}; {ELSEWHERE}")
        if error.errno in (errno.EPERM, errno.EACCES):
            pytest.skip(f"{what} needs root; {ELSEWHERE}")
        raise
    sock.settimeout(20)
    return sock


def exchange(kind: int, family: int, protocol: int, address: Any) -> None:
    """Moves bytes over a connection of the family, and reads every name of it."""
    with opened(family, kind, protocol) as listener, opened(family, kind, protocol) as client:
        assert listener.proto == protocol
        listener.bind(address)
        listener.listen()
        client.connect(listener.getsockname())
        connection, peer = listener.accept()
        with connection:
            assert peer == client.getsockname() == connection.getpeername()
            assert client.getpeername() == listener.getsockname() == connection.getsockname()
            client.sendall(b"ping")
            assert connection.recv(10) == b"ping"


@pytest.mark.parametrize("protocol", [0, socket.IPPROTO_TCP, socket.IPPROTO_MPTCP])
def test_inet_streams(protocol: int) -> None:
    exchange(socket.SOCK_STREAM, socket.AF_INET, protocol, ("127.0.0.1", 0))


@pytest.mark.parametrize("protocol", [0, socket.IPPROTO_TCP, socket.IPPROTO_MPTCP])
def test_inet6_streams(protocol: int) -> None:
    exchange(socket.SOCK_STREAM, socket.AF_INET6, protocol, ("::1", 0))


def test_sctp() -> None:
    exchange(socket.SOCK_STREAM, socket.AF_INET, socket.IPPROTO_SCTP, ("127.0.0.1", 0))


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_datagrams(family: int) -> None:
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    with opened(family, socket.SOCK_DGRAM) as one, opened(family, socket.SOCK_DGRAM) as other:
        one.bind((host, 0))
        other.bind((host, 0))
        other.sendto(b"x", one.getsockname())
        assert one.recvfrom(10) == (b"x", other.getsockname())
        assert len(one.getsockname()) == (2 if family == socket.AF_INET else 4)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_udp_lite(family: int) -> None:
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    with (
        opened(family, socket.SOCK_DGRAM, socket.IPPROTO_UDPLITE) as one,
        opened(family, socket.SOCK_DGRAM, socket.IPPROTO_UDPLITE) as other,
    ):
        other.setsockopt(socket.IPPROTO_UDPLITE, socket.UDPLITE_SEND_CSCOV, 16)
        assert other.getsockopt(socket.IPPROTO_UDPLITE, socket.UDPLITE_SEND_CSCOV) == 16
        one.setsockopt(socket.IPPROTO_UDPLITE, socket.UDPLITE_RECV_CSCOV, 16)
        one.bind((host, 0))
        other.bind((host, 0))
        other.sendto(b"partly covered", one.getsockname())
        assert one.recvfrom(100) == (b"partly covered", other.getsockname())


def test_scope_of_a_link_local_address_is_the_fourth_item() -> None:
    # A zone in the text is overwritten by the scope that is not there.
    with (
        opened(socket.AF_INET6, socket.SOCK_DGRAM) as sock,
        pytest.raises(OSError, match="Invalid argument"),
    ):
        sock.bind(("fe80::1%lo", 0))


@pytest.mark.parametrize("name", ["plain", "ümlaut", "\udcff\udc80", b"bytes", b"\xff\xfe"])
def test_unix_paths(tmp_path: Path, name: Any) -> None:
    directory = str(tmp_path) if isinstance(name, str) else os.fsencode(tmp_path)
    address = os.path.join(directory, name)
    exchange_unix(address, os.fsdecode(address))


@pytest.mark.parametrize("name", ["\0text-", b"\0bytes-", b"\0with\0nul-"])
def test_unix_abstract_names(name: Any) -> None:
    unique = os.urandom(8).hex()
    address = name + (unique if isinstance(name, str) else unique.encode())
    exchange_unix(address, os.fsencode(address))


def exchange_unix(address: Any, returned: Any) -> None:
    with (
        opened(socket.AF_UNIX, socket.SOCK_STREAM) as listener,
        opened(socket.AF_UNIX, socket.SOCK_STREAM) as client,
    ):
        assert listener.getsockname() == ""
        listener.bind(address)
        assert listener.getsockname() == returned
        listener.listen()
        client.connect(address)
        assert client.getpeername() == returned
        connection, peer = listener.accept()
        with connection:
            assert peer == ""
            client.sendall(b"x")
            assert connection.recvfrom(1) == (b"x", None)


@pytest.mark.parametrize("empty", ["", b"", bytearray()])
def test_unix_autobind(empty: Any) -> None:
    with opened(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(empty)
        name = sock.getsockname()
        assert isinstance(name, bytes)
        assert name[0] == 0
        assert len(name) == 6
        assert int(name[1:], 16) >= 0
        sock.sendto(b"to myself", name)
        assert sock.recvfrom(100) == (b"to myself", name)


def test_netlink_lists_the_interfaces() -> None:
    with opened(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
        assert sock.getsockname() == (0, 0)
        sock.bind((0, 0))
        port, groups = sock.getsockname()
        assert port > 0
        assert groups == 0
        get_link, request_dump, end = 18, 0x301, 3
        sock.sendto(struct.pack("=IHHIIB15x", 32, get_link, request_dump, 7, port, 0), (0, 0))
        found: set[int] = set()
        while True:
            data, sender = sock.recvfrom(1 << 16)
            assert sender == (0, 0)
            while data:
                length, kind, _, sequence, to = struct.unpack_from("=IHHII", data)
                assert (sequence, to) == (7, port)
                if kind == end:
                    assert found == {index for index, _ in socket.if_nameindex()}
                    return
                found.add(struct.unpack_from("=i", data, 20)[0])
                data = data[(length + 3) & ~3 :]


def test_netlink_groups() -> None:
    with opened(socket.AF_NETLINK, socket.SOCK_DGRAM, socket.NETLINK_ROUTE) as sock:
        sock.bind((0, 1))
        assert sock.getsockname()[1] == 1


def test_packet_over_the_loopback_interface() -> None:
    experimental = 0x88B5
    with (
        opened(socket.AF_PACKET, socket.SOCK_DGRAM, 0) as receiver,
        opened(socket.AF_PACKET, socket.SOCK_DGRAM, 0) as sender,
    ):
        assert receiver.getsockname() == ("", 0, 0, 0, b"")
        receiver.bind(("lo", experimental))
        bound = receiver.getsockname()
        loopback = 772  # ARPHRD_LOOPBACK
        assert bound == ("lo", experimental, 0, loopback, b"\0" * 6)
        sender.sendto(b"frame", ("lo", experimental, 0, 0, b"\0" * 6))
        data, source = receiver.recvfrom(100)
        assert data == b"frame"
        assert source[:2] == ("lo", experimental)
        assert source[2] in (socket.PACKET_HOST, socket.PACKET_OUTGOING)
        assert source[3:] == (loopback, b"\0" * 6)


def test_packet_by_an_interface_that_is_not_there() -> None:
    with (
        opened(socket.AF_PACKET, socket.SOCK_RAW) as sock,
        pytest.raises(OSError, match="No such device") as caught,
    ):
        sock.bind(("no-such", 0))
    assert caught.value.errno == errno.ENODEV


def test_vsock() -> None:
    with opened(socket.AF_VSOCK, socket.SOCK_STREAM) as sock:
        sock.bind((socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY))
        cid, port = sock.getsockname()
        assert cid == socket.VMADDR_CID_ANY
        assert port != socket.VMADDR_PORT_ANY
        size = sock.getsockopt(socket.AF_VSOCK, socket.SO_VM_SOCKETS_BUFFER_SIZE)
        assert size > 0
        # An int is a u64 here.
        most = socket.SO_VM_SOCKETS_BUFFER_MAX_SIZE
        sock.setsockopt(socket.AF_VSOCK, most, 2**33)
        assert sock.getsockopt(socket.AF_VSOCK, most) == 2**33


def test_vsock_to_itself() -> None:
    with (
        opened(socket.AF_VSOCK, socket.SOCK_STREAM) as listener,
        opened(socket.AF_VSOCK, socket.SOCK_STREAM) as client,
    ):
        listener.bind((socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY))
        listener.listen()
        port = listener.getsockname()[1]
        client.settimeout(0.5)
        try:
            client.connect((socket.VMADDR_CID_LOCAL, port))
        except OSError as error:
            pytest.skip(f"kernel lacks vsock_loopback ({error}); {ELSEWHERE}")
        connection, peer = listener.accept()
        with connection:
            assert peer == (socket.VMADDR_CID_LOCAL, client.getsockname()[1])
            client.sendall(b"x")
            assert connection.recv(1) == b"x"


# What a new socket of each says of its name, where a kernel has it: a value or an errno.
NEW_SOCKETS: dict[str, tuple[int, int, int, Any]] = {
    "TIPC": (socket.AF_TIPC, socket.SOCK_RDM, 0, None),
    "CAN_RAW": (socket.AF_CAN, socket.SOCK_RAW, socket.CAN_RAW, ("",)),
    "CAN_BCM": (socket.AF_CAN, socket.SOCK_DGRAM, socket.CAN_BCM, errno.EOPNOTSUPP),
    "CAN_ISOTP": (socket.AF_CAN, socket.SOCK_DGRAM, socket.CAN_ISOTP, ("", 0, 0)),
    "CAN_J1939": (
        socket.AF_CAN,
        socket.SOCK_DGRAM,
        socket.CAN_J1939,
        ("", 0, socket.J1939_NO_PGN, socket.J1939_NO_ADDR),
    ),
    "ALG": (socket.AF_ALG, socket.SOCK_SEQPACKET, 0, errno.EOPNOTSUPP),
    "QIPCRTR": (socket.AF_QIPCRTR, socket.SOCK_DGRAM, 0, None),
    "RDS": (socket.AF_RDS, socket.SOCK_SEQPACKET, 0, (0, ZEROS)),
    "BT_L2CAP": (
        socket.AF_BLUETOOTH,
        socket.SOCK_SEQPACKET,
        socket.BTPROTO_L2CAP,
        (socket.BDADDR_ANY, 0),
    ),
    "BT_RFCOMM": (
        socket.AF_BLUETOOTH,
        socket.SOCK_STREAM,
        socket.BTPROTO_RFCOMM,
        (socket.BDADDR_ANY, 0),
    ),
    "BT_HCI": (socket.AF_BLUETOOTH, socket.SOCK_RAW, socket.BTPROTO_HCI, errno.EBADFD),
    "BT_SCO": (
        socket.AF_BLUETOOTH,
        socket.SOCK_SEQPACKET,
        socket.BTPROTO_SCO,
        socket.BDADDR_ANY,
    ),
}


@pytest.mark.parametrize("name", list(NEW_SOCKETS))
def test_the_name_of_a_new_socket(name: str) -> None:
    family, kind, protocol, expected = NEW_SOCKETS[name]
    with opened(family, kind, protocol) as sock:
        if isinstance(expected, int):
            with pytest.raises(OSError) as caught:
                sock.getsockname()
            assert caught.value.errno == expected
        elif expected is None:
            assert isinstance(sock.getsockname(), tuple)
        else:
            assert sock.getsockname() == expected


# --- the reference page --------------------------------------------------------------------------

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "families.md"


def examples() -> dict[str, str]:
    """The page's examples by the heading that they stand under."""
    found: dict[str, str] = {}
    for section in re.split(r"^##+ ", PAGE.read_text(), flags=re.MULTILINE)[1:]:
        heading, text = section.split("\n", 1)
        for code in re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            assert heading not in found, f"two examples under {heading}"
            found[heading] = code
    return found


@pytest.mark.parametrize("heading", list(examples()))
def test_example_of_the_reference(heading: str) -> None:
    code = compile(examples()[heading], f"{PAGE.name}: {heading}", "exec")
    try:
        exec(code, {})
    except OSError as error:
        absent = (errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT)
        if error.errno in (*absent, errno.EPERM, errno.EACCES):
            pytest.skip(f"no {heading} here ({error}); {ELSEWHERE}")
        if error.errno == errno.ENODEV and heading.startswith("CAN_"):
            pytest.skip(f"no interface vcan0; {ELSEWHERE}")
        raise


def test_the_reference_has_every_family() -> None:
    text = PAGE.read_text()
    for name in {*(name for name, *_ in FAMILIES.values()), "AF_UNIX", "IPPROTO_MPTCP"}:
        assert re.search(rf"^##+ {name}$", text, re.MULTILINE), name
