"""Several threads that send at once, and one thread that computes beside.

.venv/bin/python -m tests.bench.threads [--quick] [--json] [--only TEXT] [--rounds N]
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

from tests.bench import harness
from tests.bench.harness import Case, Row
from tests.bench.sockets import Pump, unix_pair

SENDS = 1500  # of each thread, a burst


def parallel(count: int) -> harness.Make:
    """`count` threads, each with a connection of its own; processes read the other ends."""

    def make(module: Any) -> Case:
        ends = [unix_pair(module) for _ in range(count)]
        socks = [sock for sock, _ in ends]
        pumps = [Pump(peer) for _, peer in ends]

        def send(sock: Any, barrier: threading.Barrier) -> None:
            data = bytes(64)
            barrier.wait()
            for _ in range(SENDS):
                sock.sendall(data)

        def seconds() -> float:
            barrier = threading.Barrier(count + 1)
            threads = [threading.Thread(target=send, args=(sock, barrier)) for sock in socks]
            for thread in threads:
                thread.start()
            barrier.wait()
            begun = time.perf_counter()
            for thread in threads:
                thread.join()
            return time.perf_counter() - begun

        return Case("", {}, calls=SENDS * count, seconds=seconds, close=[*pumps, *socks])

    return make


def beside_computing(module: Any) -> Case:
    """A sender while another thread computes and never waits."""
    sock, peer = unix_pair(module)
    pump = Pump(peer)
    stop = threading.Event()
    gate = threading.Event()  # it computes only while the burst runs

    def compute() -> None:
        while not stop.is_set():
            gate.wait()
            while gate.is_set():
                sum(range(200))

    computing = threading.Thread(target=compute)
    computing.start()

    def end() -> None:
        stop.set()
        gate.set()
        gate.clear()
        stop.set()
        while computing.is_alive():
            gate.set()
            gate.clear()
            computing.join(0.01)

    def seconds() -> float:
        data = bytes(64)
        gate.set()
        begun = time.perf_counter()
        sends = 0
        # By time, because one send may take a whole switch interval.
        while time.perf_counter() - begun < 0.1:
            sock.sendall(data)
            sends += 1
        spent = time.perf_counter() - begun
        gate.clear()
        return spent / sends

    return Case("", {}, calls=1, seconds=seconds, close=[pump, sock, end])


def rows(quick: bool) -> Iterator[Row]:
    """Two to eight threads; one that computes."""
    for count in (2,) if quick else (2, 4, 8):
        target = 1.05 if count == 2 else None
        yield harness.against_stock(f"{count} threads that send", parallel(count), target, 5, min)
    yield harness.against_stock("send beside a CPU-bound thread", beside_computing, bursts=5)


if __name__ == "__main__":
    harness.main(__doc__, rows, rounds=7)
