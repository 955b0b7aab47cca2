"""Sockets made and closed, connections made and accepted, names looked up.

.venv/bin/python -m tests.bench.connections [--quick] [--json] [--only TEXT] [--rounds N]
"""

from __future__ import annotations

import socket as stock
from collections.abc import Iterator
from typing import Any

from tests.bench import harness
from tests.bench.harness import Case, Row


def lives(module: Any) -> Case:
    """socket() and close()."""
    return Case("make().close()", {"make": module.socket}, calls=20)


def pairs(module: Any) -> Case:
    """socketpair() and two close()."""
    return Case("a, b = make(); a.close(); b.close()", {"make": module.socketpair}, calls=20)


def connections(module: Any) -> Case:
    """connect(), accept() and close() of both ends, over loopback."""
    server = module.create_server(("127.0.0.1", 0), backlog=128)
    return Case(
        "client = make()\n"
        "client.connect(address)\n"
        "accepted, _ = server.accept()\n"
        "client.close()\n"
        "accepted.close()",
        {"make": module.socket, "server": server, "address": server.getsockname()},
        calls=10,
        close=[server],
    )


def unix_connections(module: Any) -> Case:
    """The same over a Unix socket, of the abstract name space, which leaves no file."""
    server = module.socket(module.AF_UNIX)
    server.bind("")  # a name that the kernel chooses
    server.listen(128)
    return Case(
        "client = make(family)\n"
        "client.connect(address)\n"
        "accepted, _ = server.accept()\n"
        "client.close()\n"
        "accepted.close()",
        {
            "make": module.socket,
            "server": server,
            "family": module.AF_UNIX,
            "address": server.getsockname(),
        },
        calls=10,
        close=[server],
    )


def by_name(module: Any) -> Case:
    """create_connection() to "localhost", which the hosts file has."""
    server = stock.create_server(("127.0.0.1", 0), backlog=128)
    accepted: list[stock.socket] = []

    def accept_all() -> None:
        server.setblocking(False)
        try:
            while True:
                accepted.append(server.accept()[0])
        except BlockingIOError:
            pass
        for each in accepted:
            each.close()
        accepted.clear()

    return Case(
        "create(address).close()",
        {"create": module.create_connection, "address": ("localhost", server.getsockname()[1])},
        calls=10,
        after=accept_all,
        close=[server],
    )


def lookups(host: str) -> harness.Make:
    """getaddrinfo() of one host."""

    def make(module: Any) -> Case:
        return Case(
            "look_up(host, 80, type=kind)",
            {"look_up": module.getaddrinfo, "host": host, "kind": module.SOCK_STREAM},
            calls=10,
        )

    return make


def rows(quick: bool) -> Iterator[Row]:
    """The life of a socket, of a connection, and look-ups that ask no server."""
    yield harness.against_stock("socket, close", lives, 0.95)
    yield harness.against_stock("connect, accept, close", connections, 0.90)
    if not quick:
        yield harness.against_stock("socketpair, close", pairs)
        yield harness.against_stock("connect, accept, close, Unix", unix_connections)
    yield harness.against_stock("create_connection by name", by_name)
    yield harness.against_stock("getaddrinfo, numeric", lookups("127.0.0.1"))
    yield harness.against_stock("getaddrinfo, hosts file", lookups("localhost"))


if __name__ == "__main__":
    harness.main(__doc__, rows)
