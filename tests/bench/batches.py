"""Datagrams of 64 bytes in batches of 64, against a sendto() or recvfrom() of stock's for each.

    .venv/bin/python -m tests.bench.batches [--quick] [--json] [--only TEXT] [--rounds N]

A time is a datagram's. The kernel cuts what goes to one destination (UDP_SEGMENT); what goes to two
by turns takes a sendmmsg(2). "coalesced" is received with UDP_GRO.
"""

from __future__ import annotations

import socket as stock
from collections.abc import Iterator
from typing import Any

import tracesock
from tests.bench import harness
from tests.bench.harness import Case, Row
from tests.bench.sockets import drain, udp_pair

COUNT = 64
SIZE = 64
UDP_SEGMENT = 103
UDP_GRO = 104


def sending(destinations: int) -> harness.Make:
    """A batch to one or two destinations by turns."""

    def make(module: Any) -> Case:
        sock, peer, address = udp_pair(module)
        other = stock.socket(stock.AF_INET, stock.SOCK_DGRAM)
        other.bind(("127.0.0.1", 0))
        targets = [address, other.getsockname()][:destinations]
        pairs = [(bytes(SIZE), targets[number % destinations]) for number in range(COUNT)]
        names = {"sock": sock, "pairs": pairs, "data": bytes(SIZE), "targets": targets}

        def empty() -> None:
            drain(peer)
            drain(other)

        statement = "sock.send_many(pairs)"
        if module is stock:
            statement = "for data, address in pairs: sock.sendto(data, address)"
        # Each statement is a batch; a time is a datagram's on both sides alike.
        return Case(statement, names, calls=2, after=empty, close=[sock, peer, other])

    return make


def receiving(coalesced: bool) -> harness.Make:
    """A batch that is there already; coalesced: sent as one, and received as one."""

    def make(module: Any) -> Case:
        sock, peer, _ = udp_pair(module)
        own = sock.getsockname()
        if coalesced:
            peer.setsockopt(stock.IPPROTO_UDP, UDP_SEGMENT, SIZE)
            if module is tracesock:
                sock.setsockopt(stock.IPPROTO_UDP, UDP_GRO, 1)

        def fill() -> None:
            if coalesced:
                peer.sendto(bytes(SIZE * COUNT), own)
            else:
                for _ in range(COUNT):
                    peer.sendto(bytes(SIZE), own)

        names = {"sock": sock, "count": COUNT, "size": SIZE}
        statement = "sock.recv_many(count, size)"
        if module is stock:
            statement = "for _ in range(count): sock.recvfrom(size)"
        return Case(statement, names, calls=1, before=fill, close=[sock, peer])

    return make


def rows(quick: bool) -> Iterator[Row]:
    """Targets are ratios of time: 1.5 times the rate is .67 of the time."""
    yield harness.against_stock("send_many, one destination", sending(1), 1 / 6)
    yield harness.against_stock("send_many, two destinations", sending(2), 1 / 1.5)
    yield harness.against_stock("recv_many", receiving(False), 1 / 1.8)
    yield harness.against_stock("recv_many, coalesced", receiving(True))


if __name__ == "__main__":
    harness.main(__doc__, rows)
