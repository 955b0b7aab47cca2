"""What a call costs with 10 to 50,000 open sockets and telemetry on: it must not grow.

    .venv/bin/python -m tests.bench.growth [--quick] [--json] [--only TEXT] [--rounds N]

1.00 is a process with 10 open sockets; each number has a process of its own, and they run their
bursts by turns. Of `connections()` the cost of each socket in the list is told, against that of a
list of 1,000. Times are of the calling thread's processor. Where the limit of open files is lower,
and may not be raised (that needs CAP_SYS_RESOURCE), as many as it allows take the place of 50,000.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterator
from typing import Any

import tracesock
from tests.bench import harness
from tests.bench.harness import Case, Row, Skipped

NUMBERS = (10, 1_000, 10_000, 50_000)
SENDS = 2_000  # a burst
LIVES = 500
TARGET = 1.10


def _send(first: Any, second: Any) -> float:
    spent = 0.0
    for _ in range(SENDS // 100):
        begun = time.thread_time()
        for _ in range(100):
            first.send(b"x")
        spent += time.thread_time() - begun
        second.recv(100)
    return spent / SENDS


def _life(first: Any, second: Any) -> float:
    begun = time.thread_time()
    for _ in range(LIVES):
        tracesock.socket().close()
    return (time.thread_time() - begun) / LIVES


def _ledger(first: Any, second: Any) -> float:
    begun = time.thread_time()
    found = tracesock.connections()
    return (time.thread_time() - begun) / len(found)


def _collect(first: Any, second: Any) -> float:
    """The drain with nothing to deliver."""
    begun = time.thread_time()
    for _ in range(20):
        tracesock.instrumentation.flush()
    return (time.thread_time() - begun) / 20


WORK: dict[str, Callable[[Any, Any], float]] = {
    "send": _send,
    "socket, close": _life,
    "connections(), a socket": _ledger,
    "flush": _collect,
}


def raise_limit(wanted: int) -> bool:
    """Let this process have so many open files: whether it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), max(hard, wanted)))
    except (OSError, ValueError):
        return False
    return True


def allowed(numbers: list[int]) -> list[int]:
    """Those that the limit of open files allows, and the most that it does in place of others."""
    found = [number for number in numbers if raise_limit(number + 100)]
    most = (resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 100) // 1_000 * 1_000
    if len(found) < len(numbers) and most > max(found, default=0):
        raise_limit(most + 100)
        found.append(most)
    return found


class Crowd:
    """A process with `number` open sockets and telemetry on, that does work when it is told."""

    def __init__(self, number: int) -> None:
        asked, self._ask = os.pipe()
        self._answers, answer = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                os.close(self._ask)
                os.close(self._answers)
                raise_limit(number + 100)
                self._work(number, asked, answer)
            finally:
                os._exit(0)
        os.close(asked)
        os.close(answer)
        self("ready")

    @staticmethod
    def _work(number: int, asked: int, answer: int) -> None:
        from opentelemetry import trace
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.trace import TracerProvider

        tracesock.instrument(
            TracerProvider(shutdown_on_exit=False), MeterProvider(shutdown_on_exit=False)
        )
        kept = [tracesock.socketpair() for _ in range(number // 2)]
        for first, second in kept:
            first.send(b"x")
            second.recv(1)
        first, second = kept[len(kept) // 2]
        parent = trace.NonRecordingSpan(trace.SpanContext(1, 2, False, trace.TraceFlags(0)))
        with open(asked, "rb") as work, trace.use_span(parent):
            for line in work:
                name = line.decode().strip()
                if name == "end":
                    return
                result = WORK[name](first, second) if name in WORK else 0.0
                os.write(answer, f"{result!r:<64}".encode())

    def __call__(self, name: str) -> float:
        """The seconds of one call."""
        os.write(self._ask, f"{name}\n".encode())
        told = os.read(self._answers, 64)
        if not told:
            raise Skipped("the process with the open sockets has ended")
        return float(told)

    def close(self) -> None:
        """End the process. Its end of the pipe is not enough: the others have it, too."""
        os.write(self._ask, b"end\n")
        os.close(self._ask)
        os.close(self._answers)
        os.waitpid(self._pid, 0)


def working(name: str, number: int) -> Callable[[], Case]:
    def make() -> Case:
        crowd = Crowd(number)
        return Case("", {}, calls=1, seconds=lambda: crowd(name), close=[crowd])

    return make


def rows(quick: bool) -> Iterator[Row]:
    """Each piece of work with each number of open sockets."""
    for name in WORK:
        base = 1_000 if name.startswith("connections") else 10
        numbers = [number for number in NUMBERS if number >= base]
        if quick:
            numbers = [base, 10_000]
        numbers = allowed(numbers)
        sides = {f"{number:,} open": working(name, number) for number in numbers}
        yield Row(name, sides, TARGET, 5 if quick else 20)


if __name__ == "__main__":
    harness.main(__doc__, rows, rounds=5, quick_rounds=2)
