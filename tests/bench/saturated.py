"""A Unix sender that does nothing else, each of whose sends becomes a span.

    .venv/bin/python -m tests.bench.saturated [--quick] [--json] [--only TEXT] [--rounds N]

1.00 is the stock module without instrumentation; at most 1.11 keeps 0.90 of its rate. The spans are
encoded natively and posted to a collector in a process of its own. Timed are the sends, in batches;
between them the sender empties the other end. What is still on its way at the end of a burst is
delivered before the other side's turn.
"""

from __future__ import annotations

import os
import re
import signal
import socket as stock
import time
from collections.abc import Callable, Iterator
from typing import Any

import tracesock
from tests.bench import harness
from tests.bench.harness import Case, Row
from tests.bench.sockets import unix_pair

BATCH = 100  # sends until the other end is emptied
BATCHES = 400  # a burst
TARGET = round(1 / 0.90, 2)
_told = {"recorded": 0, "dropped": 0}


class Collector:
    """A process that takes OTLP over HTTP, and throws it away."""

    def __init__(self) -> None:
        with stock.create_server(("127.0.0.1", 0)) as server:
            self.url = f"http://127.0.0.1:{server.getsockname()[1]}"
            self._pid = os.fork()
            if self._pid == 0:
                try:
                    self._serve(server)
                finally:
                    os._exit(0)

    @staticmethod
    def _serve(server: stock.socket) -> None:
        buffer = bytearray(1 << 20)
        while True:
            connection, _ = server.accept()
            with connection, connection.makefile("rb", buffering=1 << 16) as reader:
                left = 0
                while header := reader.readline():
                    if found := re.match(rb"content-length: *(\d+)", header, re.IGNORECASE):
                        left = int(found[1])
                    if header == b"\r\n":
                        while left:
                            left -= reader.readinto(memoryview(buffer)[: min(left, len(buffer))])
                        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    def close(self) -> None:
        """End it."""
        os.kill(self._pid, signal.SIGTERM)
        os.waitpid(self._pid, 0)


def sending(module: Any, around: Callable[[], object] = lambda: None) -> Case:
    """Sends in batches; `around` is called after each burst, not timed."""
    sock, peer = unix_pair(module)
    data = b"x"

    def seconds() -> float:
        send, receive, clock = sock.send, peer.recv, time.perf_counter
        spent = 0.0
        for _ in range(BATCHES):
            begun = clock()
            for _ in range(BATCH):
                send(data)
            spent += clock() - begun
            receive(BATCH)
        return spent

    return Case("", {}, calls=BATCH * BATCHES, seconds=seconds, after=around, close=[sock, peer])


def instrumented(send_spans: str) -> Case:
    """tracesock with its native export, below a recording span."""
    from opentelemetry import trace
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider

    from tracesock._native import recorder

    collector = Collector()
    reader = InMemoryMetricReader()
    tracesock.instrument(
        TracerProvider(shutdown_on_exit=False),
        MeterProvider([reader], shutdown_on_exit=False),
        otlp=collector.url,
        send_spans=send_spans,
        max_sends_per_trace=0,
    )
    written, dropped, _ = recorder.counts()
    parent = trace.NonRecordingSpan(trace.SpanContext(0xA, 0xB, False, trace.TraceFlags(1)))
    case = sending(tracesock, tracesock.instrumentation.flush)
    inner = case.seconds
    assert inner is not None

    def seconds() -> float:
        with trace.use_span(parent):
            return inner()

    def end() -> None:
        now, lost, _ = recorder.counts()
        _told["recorded"] += now - written + lost - dropped
        _told["dropped"] += sum(
            point.value
            for resource in reader.get_metrics_data().resource_metrics  # type: ignore[union-attr]
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == "tracesock.telemetry.dropped"
            for point in metric.data.data_points
        )
        tracesock.uninstrument()
        collector.close()

    case.seconds = seconds
    case.close.insert(0, end)
    return case


def rows(quick: bool) -> Iterator[Row]:
    """Every send a span, and none."""
    for name, choice, target in (
        ("saturated, every send a span", "all", TARGET),
        ("saturated, metrics alone", "off", None),
    ):
        sides = {
            harness.STOCK: lambda: sending(stock),
            harness.TRACESOCK: lambda choice=choice: instrumented(choice),
        }
        yield Row(name, sides, target, 3 if quick else 5)


def figures(rounds: int | None, quick: bool, only: str) -> Iterator[tuple[str, dict[str, Any]]]:
    wanted = [row for row in rows(quick) if only in row.name]
    yield from harness.measure_all(wanted, rounds or (3 if quick else 9))
    yield (
        "saturated, records dropped",
        {"median": _told["dropped"], "unit": f"of {_told['recorded']:,}", "target": 0},
    )


if __name__ == "__main__":
    options = harness.parser(__doc__).parse_args()
    harness.tell(figures(options.rounds, options.quick, options.only), options.json)
