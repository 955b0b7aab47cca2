"""The same work with gevent's and trio's sockets, and tracesock's, against the stock module's.

    .venv/bin/python -m tests.bench.others [--quick] [--json] [--only TEXT] [--rounds N]

Each in its own way: trio's calls are awaited, gevent's run in its hub. What is measured is what a
call costs when it need not wait.
"""

from __future__ import annotations

import socket as stock
import time
from collections.abc import Callable, Iterator
from typing import Any

import tracesock
from tests.bench import harness
from tests.bench.harness import STOCK, TRACESOCK, Case, Row, Skipped

CALLS = 40


def _exchange(module: Any) -> Case:
    first, second = module.socketpair()
    return Case(
        "first.send(data)\nsecond.recv(64)",
        {"first": first, "second": second, "data": bytes(64)},
        calls=CALLS,
        close=[first, second],
    )


def _datagrams(module: Any) -> Case:
    first = module.socket(stock.AF_INET, stock.SOCK_DGRAM)
    second = module.socket(stock.AF_INET, stock.SOCK_DGRAM)
    second.bind(("127.0.0.1", 0))
    return Case(
        "first.sendto(data, address)\nsecond.recvfrom(64)",
        {"first": first, "second": second, "address": second.getsockname(), "data": bytes(64)},
        calls=CALLS,
        close=[first, second],
    )


def _gevent(make: Callable[[Any], Case]) -> Case:
    try:
        import gevent.socket
    except ImportError as error:
        raise Skipped(f"{error.name} is not installed (the extra bench)") from None
    return make(gevent.socket)


def _trio(make: Callable[[Any], Case], datagrams: bool) -> Case:
    try:
        import trio
    except ImportError as error:
        raise Skipped(f"{error.name} is not installed (the extra bench)") from None
    case = make(stock)
    first, second, data = (case.names[name] for name in ("first", "second", "data"))
    wrapped = [trio.socket.from_stdlib_socket(each) for each in (first, second)]

    async def burst() -> float:
        sender, receiver = wrapped
        address = case.names.get("address")
        begun = time.perf_counter()
        if datagrams:
            for _ in range(CALLS):
                await sender.sendto(data, address)
                await receiver.recvfrom(64)
        else:
            for _ in range(CALLS):
                await sender.send(data)
                await receiver.recv(64)
        return time.perf_counter() - begun

    return Case("", {}, calls=CALLS, seconds=lambda: trio.run(burst), close=[first, second])


def rows(quick: bool) -> Iterator[Row]:
    """A stream and datagrams, each sent and received."""
    for name, make, datagrams in (
        ("send and recv, Unix", _exchange, False),
        ("sendto and recvfrom, UDP", _datagrams, True),
    ):
        yield Row(
            name,
            {
                STOCK: lambda make=make: make(stock),
                TRACESOCK: lambda make=make: make(tracesock),
                "gevent": lambda make=make: _gevent(make),
                "trio": lambda make=make, datagrams=datagrams: _trio(make, datagrams),
            },
        )


if __name__ == "__main__":
    harness.main(__doc__, rows)
