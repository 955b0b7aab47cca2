"""Sending and receiving, each call by itself, over Unix, TCP and UDP, from 1 B to 1 MiB.

.venv/bin/python -m tests.bench.calls [--quick] [--json] [--only TEXT] [--rounds N]
"""

from __future__ import annotations

import socket as stock
from collections.abc import Callable, Iterator
from typing import Any

import tracesock
from tests.bench import harness
from tests.bench.harness import Case, Row
from tests.bench.sockets import (
    Pair,
    Pump,
    await_bytes,
    drain,
    tcp_pair,
    udp_pair,
    unix_datagrams,
    unix_pair,
)

SIZES = {"1 B": 1, "1 KiB": 1 << 10, "16 KiB": 16 << 10, "1 MiB": 1 << 20}
PAIRS: dict[str, Callable[[Any], Pair]] = {"Unix": unix_pair, "TCP": tcp_pair}
MODES: dict[str, float | None] = {"blocking": None, "timeout": 5.0, "non-blocking": 0.0}

SENDING = {
    "send": "sock.send(data)",
    "sendall": "sock.sendall(data)",
    "sendmsg": "sock.sendmsg([data])",
}


def _whole(piece: str) -> str:
    return f"left = size\nwhile left: left -= {piece}"


# A statement that takes one piece of what has come, and one that takes all of a large one.
RECEIVING = {
    "recv": ("sock.recv(size)", _whole("len(sock.recv(left))")),
    "recv_into": (
        "sock.recv_into(buffer)",
        _whole("sock.recv_into(buffer, left)"),
    ),
    "recvfrom": (
        "sock.recvfrom(size)",
        _whole("len(sock.recvfrom(left)[0])"),
    ),
    "recvmsg": (
        "sock.recvmsg(size)",
        _whole("len(sock.recvmsg(left)[0])"),
    ),
}

# What is to be reached (plain), by the row's name.
TARGETS = {
    "send, Unix": 0.82,
    "recv, Unix": 0.80,
    "recv_into, Unix": 0.80,
    "send, TCP": 0.96,
    "send, Unix, timeout": 0.52,
    "recv_into, Unix, timeout": 0.40,
    "sendto, UDP": 1.00,
    "sendto, UDP, prepared Address": 0.90,
    "sendmsg, Unix": 1.00,
    "send, Unix, 1 MiB": 1.00,
    "sendall, Unix, 1 MiB": 1.00,
    "send, TCP, 1 MiB": 1.00,
    "sendall, TCP, 1 MiB": 1.00,
}


def bursts_of(size: int) -> int:
    """Calls a burst: as many as fit into a socket's buffer, at most 40."""
    return max(1, min(40, (64 << 10) // size))


def sending(
    connect: Callable[[Any], Pair], call: str, size: int, mode: float | None
) -> harness.Make:
    """Sends of `size` bytes; the peer takes them between the bursts, large ones all the time."""

    def make(module: Any) -> Case:
        sock, peer = connect(module)
        sock.settimeout(mode)
        names = {"sock": sock, "data": bytes(size)}
        if size > 32 << 10:
            return Case(SENDING[call], names, calls=1, close=[Pump(peer), sock])
        return Case(
            SENDING[call],
            names,
            calls=bursts_of(size),
            after=lambda: drain(peer),
            close=[sock, peer],
        )

    return make


def receiving(
    connect: Callable[[Any], Pair], call: str, size: int, mode: float | None
) -> harness.Make:
    """Receives of `size` bytes that are there already; of large ones as they come."""

    def make(module: Any) -> Case:
        sock, peer = connect(module)
        sock.settimeout(mode)
        piece, whole = RECEIVING[call]
        names = {"sock": sock, "size": size, "buffer": bytearray(size)}
        if size > 32 << 10:
            return Case(whole, names, calls=1, close=[Pump(peer, writes=size), sock])
        calls = bursts_of(size)

        def fill() -> None:
            peer.sendall(bytes(size * calls))
            await_bytes(sock, size * calls)

        return Case(piece, names, calls=calls, before=fill, close=[sock, peer])

    return make


def datagrams_out(
    connect: Callable[[Any], tuple[Any, stock.socket, Any]],
    statement: str,
    size: int,
    mode: float | None,
    prepared: bool = False,
) -> harness.Make:
    """Datagrams to an address; those of a prepared one, against stock's to a tuple."""

    def make(module: Any) -> Case:
        sock, peer, address = connect(module)
        sock.settimeout(mode)
        if prepared and module is tracesock:
            address = tracesock.Address(sock.family, address)
        # A Unix datagram socket queues ten.
        calls = 8 if sock.family == stock.AF_UNIX else bursts_of(size)
        names = {"sock": sock, "data": bytes(size), "address": address}
        return Case(statement, names, calls=calls, after=lambda: drain(peer), close=[sock, peer])

    return make


def datagrams_in(
    connect: Callable[[Any], tuple[Any, stock.socket, Any]],
    statement: str,
    size: int,
    mode: float | None,
    asked: int | None = None,
) -> harness.Make:
    """Datagrams that are there already; `asked` for more, as event loops do (asyncio: 256 KiB)."""

    def make(module: Any) -> Case:
        sock, peer, _ = connect(module)
        sock.settimeout(mode)
        own = sock.getsockname()
        calls = 8 if sock.family == stock.AF_UNIX else bursts_of(size)

        def fill() -> None:
            for _ in range(calls):
                peer.sendto(bytes(size), own)

        most = size if asked is None else asked
        names = {"sock": sock, "size": most, "buffer": bytearray(most)}
        return Case(statement, names, calls=calls, before=fill, close=[sock, peer])

    return make


def _named(*parts: str) -> str:
    return ", ".join(part for part in parts if part not in ("1 B", "blocking"))


def _streams(quick: bool) -> Iterator[tuple[str, harness.Make]]:
    for transport, connect in PAIRS.items():
        for size_name, size in SIZES.items():
            for mode_name, mode in MODES.items():
                # A mode matters to what a call costs, not to how the bytes are moved.
                if mode_name != "blocking" and size != 1:
                    continue
                if quick and size not in (1, 1 << 20):
                    continue
                for call in SENDING:
                    if quick and mode_name == "non-blocking":
                        continue
                    yield (
                        _named(call, transport, size_name, mode_name),
                        sending(connect, call, size, mode),
                    )
                for call in RECEIVING:
                    if quick and mode_name == "non-blocking":
                        continue
                    yield (
                        _named(call, transport, size_name, mode_name),
                        receiving(connect, call, size, mode),
                    )


def _datagrams(quick: bool) -> Iterator[tuple[str, harness.Make]]:
    for transport, connect in {"UDP": udp_pair, "Unix datagram": unix_datagrams}.items():
        for size_name, size in SIZES.items():
            if size > 32 << 10 or (quick and size != 1):
                continue
            for mode_name, mode in MODES.items():
                if mode_name != "blocking" and (quick or size != 1):
                    continue
                name = (transport, size_name, mode_name)
                yield (
                    _named("sendto", *name),
                    datagrams_out(connect, "sock.sendto(data, address)", size, mode),
                )
                yield (
                    _named("sendto", *name, "prepared Address"),
                    datagrams_out(connect, "sock.sendto(data, address)", size, mode, prepared=True),
                )
                yield (
                    _named("sendmsg", *name),
                    datagrams_out(connect, "sock.sendmsg([data], [], 0, address)", size, mode),
                )
                yield (
                    _named("recvfrom", *name),
                    datagrams_in(connect, "sock.recvfrom(size)", size, mode),
                )
                yield (
                    _named("recvfrom_into", *name),
                    datagrams_in(connect, "sock.recvfrom_into(buffer)", size, mode),
                )


def _hopes(quick: bool) -> Iterator[tuple[str, harness.Make]]:
    for asked in (64,) if quick else (64, 256):
        for call in ("recv", "recv_into"):
            yield (
                f"{call}, Unix datagram, 64 B of {asked} KiB asked",
                datagrams_in(unix_datagrams, RECEIVING[call][0], 64, None, asked << 10),
            )


def rows(quick: bool) -> Iterator[Row]:
    """Every call, transport, size and mode, and receives that ask for more than there is."""
    for each in (_streams, _datagrams, _hopes):
        for name, make in each(quick):
            if name.endswith("MiB"):
                yield harness.against_stock(name, make, TARGETS.get(name), 60, min)
            else:
                yield harness.against_stock(name, make, TARGETS.get(name))


if __name__ == "__main__":
    harness.main(__doc__, rows)
