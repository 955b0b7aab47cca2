"""Calls on sockets as ratios to the stock module: interleaved, medians, with the spread.

    .venv/bin/python tests/bench/calls.py [--rounds N] [--json]

1.00 is the stock `socket` of the same interpreter, lower is better. A single time means nothing on
a busy machine: each round measures both, one after the other, and the ratio is the round's.
"""

from __future__ import annotations

import argparse
import json
import socket as stock
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import tracesock

CALLS = 4000  # a round
BATCH = 40  # calls until the other side is emptied or filled


def _pair(module: Any, timeout: float | None) -> tuple[Any, Any]:
    first, second = module.socketpair()
    first.settimeout(timeout)
    second.settimeout(timeout)
    return first, second


def _tcp_pair(module: Any) -> tuple[Any, Any]:
    with module.create_server(("127.0.0.1", 0)) as server:
        client = module.create_connection(server.getsockname())
        accepted, _ = server.accept()
    for sock in (client, accepted):
        sock.setsockopt(module.IPPROTO_TCP, module.TCP_NODELAY, 1)
    return client, accepted


def _sending(connect: Callable[[Any], tuple[Any, Any]], call: str, size: int) -> Any:
    def run(module: Any) -> float:
        sender, receiver = connect(module)
        drain = stock.socket(fileno=stock.dup(receiver.fileno()))
        data = bytes(size)
        arguments = ([data],) if call == "sendmsg" else (data,)
        function = getattr(sender, call)
        buffer = bytearray(1 << 20)
        spent = 0.0
        batch = max(1, min(BATCH, (64 << 10) // size))
        for _ in range(max(1, CALLS // 4 // batch if size > 1 else CALLS // batch)):
            begun = time.perf_counter()
            for _ in range(batch):
                function(*arguments)
            spent += time.perf_counter() - begun
            left = batch * size
            while left > 0:
                left -= drain.recv_into(buffer)
        for sock in (sender, receiver, drain):
            sock.close()
        return spent

    return run


def _receiving(connect: Callable[[Any], tuple[Any, Any]], call: str) -> Any:
    def run(module: Any) -> float:
        sender, receiver = connect(module)
        fill = stock.socket(fileno=stock.dup(sender.fileno()))
        argument: Any = bytearray(1) if call == "recv_into" else 1
        function = getattr(receiver, call)
        spent = 0.0
        for _ in range(CALLS // BATCH):
            fill.sendall(bytes(BATCH))
            begun = time.perf_counter()
            for _ in range(BATCH):
                function(argument)
            spent += time.perf_counter() - begun
        for sock in (sender, receiver, fill):
            sock.close()
        return spent

    return run


def _datagrams(module: Any) -> float:
    sender = module.socket(module.AF_INET, module.SOCK_DGRAM)
    receiver = module.socket(module.AF_INET, module.SOCK_DGRAM)
    receiver.bind(("127.0.0.1", 0))
    address = receiver.getsockname()
    spent = 0.0
    for _ in range(CALLS // BATCH):
        begun = time.perf_counter()
        for _ in range(BATCH):
            sender.sendto(b"x", address)
        spent += time.perf_counter() - begun
        for _ in range(BATCH):
            receiver.recv(16)
    sender.close()
    receiver.close()
    return spent


def _life(module: Any) -> float:
    make = module.socket
    begun = time.perf_counter()
    for _ in range(CALLS // 4):
        make().close()
    return time.perf_counter() - begun


def _connections(module: Any) -> float:
    with module.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        begun = time.perf_counter()
        for _ in range(CALLS // 20):
            client = module.socket()
            client.connect(address)
            accepted, _ = server.accept()
            client.close()
            accepted.close()
        return time.perf_counter() - begun


def _numeric_lookups(module: Any) -> float:
    begun = time.perf_counter()
    for _ in range(CALLS // 10):
        module.getaddrinfo("127.0.0.1", 80, type=module.SOCK_STREAM)
    return time.perf_counter() - begun


def blocking(module: Any) -> tuple[Any, Any]:
    """A Unix pair without a timeout."""
    return _pair(module, None)


def timed(module: Any) -> tuple[Any, Any]:
    """A Unix pair with a timeout of 5 s."""
    return _pair(module, 5.0)


WORK: dict[str, Callable[[Any], float]] = {
    "send, Unix": _sending(blocking, "send", 1),
    "send, Unix, timeout": _sending(timed, "send", 1),
    "send, TCP": _sending(_tcp_pair, "send", 1),
    "sendall, Unix, 16 KiB": _sending(blocking, "sendall", 16 << 10),
    "sendmsg, Unix": _sending(blocking, "sendmsg", 1),
    "sendto, UDP": _datagrams,
    "recv, Unix": _receiving(blocking, "recv"),
    "recv_into, Unix": _receiving(blocking, "recv_into"),
    "recv_into, Unix, timeout": _receiving(timed, "recv_into"),
    "recv, TCP": _receiving(_tcp_pair, "recv"),
    "recvfrom, Unix": _receiving(blocking, "recvfrom"),
    "recvmsg, Unix": _receiving(blocking, "recvmsg"),
    "socket, close": _life,
    "connect, accept, close": _connections,
    "getaddrinfo, numeric": _numeric_lookups,
}


def measure(rounds: int) -> dict[str, dict[str, float]]:
    """The ratio of each piece of work: median, smallest and largest of the rounds."""
    ratios: dict[str, list[float]] = {name: [] for name in WORK}
    for number in range(rounds):
        for name, work in WORK.items():
            # The first of a pair meets colder caches: by turns.
            modules = (stock, tracesock) if number % 2 == 0 else (tracesock, stock)
            times = {module: work(module) for module in modules}
            ratios[name].append(times[tracesock] / times[stock])
    return {
        name: {"median": statistics.median(each), "min": min(each), "max": max(each)}
        for name, each in ratios.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results = measure(options.rounds)
    if options.json:
        json.dump(results, sys.stdout, indent=2)
        print()
        return
    print(f"{'':28}  median   min   max   (stock is 1.00, lower is better)")
    for name, each in results.items():
        print(f"{name:28}  {each['median']:6.2f}{each['min']:6.2f}{each['max']:6.2f}")


if __name__ == "__main__":
    main()
