"""The program whose instructions are counted: run under valgrind, so with few imports.

    python -m tests.bench.counted stock|plain|recorded SUBJECT...

Forks for each measurement, and tells on standard output which process made which.
"""

from __future__ import annotations

import os
import socket as stock
import sys
from collections.abc import Callable
from typing import Any

CHUNKS = 24  # in a child, each with the same work around the calls
CALLS = 30  # of the fewer in a chunk; twice as many fit into any socket's buffer


def _loop(statement: str, **names: Any) -> Callable[[int], None]:
    namespace: dict[str, Any] = {}
    exec(
        f"def run(_count, {', '.join(names)}):\n    for _ in range(_count):\n        {statement}",
        namespace,
    )
    function, values = namespace["run"], tuple(names.values())
    return lambda count: function(count, *values)


def _stream(module: Any, statement: str, fills: bool, timeout: float | None = None) -> Any:
    """A chunk of calls on a Unix stream whose other end is filled before or emptied after."""
    sock, other = module.socketpair()
    peer = stock.socket(fileno=other.detach())
    sock.settimeout(timeout)
    run = _loop(statement, sock=sock, data=b"x", buffer=bytearray(1))
    room = bytearray(4096)

    def chunk(count: int) -> None:
        if fills:
            peer.send(bytes(2 * CALLS + 1))
        run(count)
        (sock if fills else peer).recv_into(room)

    return chunk


def _to_datagrams(module: Any, statement: str, prepared: bool = False) -> Any:
    """Datagrams to a socket that reads none: the kernel drops what its queue cannot hold."""
    sock = module.socket(module.AF_INET, module.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    peer = stock.socket(stock.AF_INET, stock.SOCK_DGRAM)
    peer.bind(("127.0.0.1", 0))
    address: Any = peer.getsockname()
    if prepared and module is not stock:
        address = module.Address(module.AF_INET, address)
    run = _loop(statement, sock=sock, data=b"x", address=address, peer=peer)
    return run


def _from_datagrams(module: Any, statement: str) -> Any:
    sender = stock.socket(stock.AF_INET, stock.SOCK_DGRAM)
    sender.bind(("127.0.0.1", 0))

    def chunk(count: int) -> None:
        sock = module.socket(module.AF_INET, module.SOCK_DGRAM)
        sock.bind(("127.0.0.1", 0))
        own = sock.getsockname()
        for _ in range(2 * CALLS):
            sender.sendto(b"x", own)
        run(count, sock)
        sock.close()

    namespace: dict[str, Any] = {}
    exec(f"def run(_count, sock):\n    for _ in range(_count):\n        {statement}", namespace)
    run = namespace["run"]
    return chunk


def _lives(module: Any) -> Any:
    return _loop("make().close()", make=module.socket)


def _connections(module: Any) -> Any:
    server = module.create_server(("127.0.0.1", 0))
    return _loop(
        "client = make(); client.connect(address); accepted, _ = server.accept(); "
        "client.close(); accepted.close()",
        make=module.socket,
        server=server,
        address=server.getsockname(),
    )


SUBJECTS: dict[str, Callable[[Any], Any]] = {
    "send": lambda m: _stream(m, "sock.send(data)", False),
    "send, timeout": lambda m: _stream(m, "sock.send(data)", False, 5.0),
    "sendall": lambda m: _stream(m, "sock.sendall(data)", False),
    "sendmsg": lambda m: _stream(m, "sock.sendmsg([data])", False),
    "sendto": lambda m: _to_datagrams(m, "sock.sendto(data, address)"),
    "sendto, prepared Address": lambda m: _to_datagrams(m, "sock.sendto(data, address)", True),
    "recv": lambda m: _stream(m, "sock.recv(1)", True),
    "recv_into": lambda m: _stream(m, "sock.recv_into(buffer)", True),
    "recv_into, timeout": lambda m: _stream(m, "sock.recv_into(buffer)", True, 5.0),
    "recvmsg": lambda m: _stream(m, "sock.recvmsg(1)", True),
    "recvfrom": lambda m: _from_datagrams(m, "sock.recvfrom(64)"),
    "socket, close": _lives,
    "connect, accept, close": _connections,
}


def _record(module: Any) -> None:
    """The recorder on, below a sampled span, without the SDK, whose import takes minutes here."""
    import contextvars

    from tracesock._native import recorder

    class Span:
        trace_id, span_id, trace_flags = 1 << 100, 1 << 50, 1

        def get_span_context(self) -> Span:
            return self

    current: contextvars.ContextVar[Any] = contextvars.ContextVar("current")
    current.set({"span": Span()})
    recorder.start(
        recorder.METRICS | recorder.CONNECTS | recorder.SENDS,
        0.0,
        current,
        "span",
        "suppressed",
        "suppressed too",
        "server",
        None,
    )


def main(mode: str, wanted: list[str]) -> None:
    """Fork for each measurement, and tell which process made which."""
    module: Any = stock
    if mode != "stock":
        import tracesock

        module = tracesock
        if mode == "recorded":
            _record(module)
    for name in wanted:
        chunk = SUBJECTS[name](module)
        for count in (CALLS, 2 * CALLS):
            chunk(count)
        for count in (CALLS, 2 * CALLS, 2 * CALLS, CALLS):
            pid = os.fork()
            if pid == 0:
                for _ in range(CHUNKS):
                    chunk(count)
                os._exit(0)
            os.waitpid(pid, 0)
            os.write(1, b"%d %d %s\n" % (pid, count, name.encode()))
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
