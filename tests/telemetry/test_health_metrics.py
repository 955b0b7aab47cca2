"""What production watches beside the traffic: decisions, ports, delivery, exemplars."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

import tracesock
from tracesock import audit
from tracesock.instrumentation import semconv

POLICY = """
mode = "enforce"
default = "allow"
[[rule]]
id = "closed"
action = "deny"
cidr = "127.0.0.7"
"""


class Told:
    """One instrumentation, read by two readers."""

    def __init__(self) -> None:
        self.readers = [InMemoryMetricReader(), InMemoryMetricReader()]
        self.meters = MeterProvider(self.readers, shutdown_on_exit=False)
        self.spans = InMemorySpanExporter()

    def instrument(self, **settings: Any) -> TracerProvider:
        sampler = settings.pop("sampler", None)
        tracers = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        tracers.add_span_processor(SimpleSpanProcessor(self.spans))
        tracesock.instrument(tracers, self.meters, **settings)
        return tracers

    def points(self, name: str, reader: int = 0) -> dict[tuple[Any, ...], Any]:
        """The points of a metric by the values of its attributes."""
        data = self.readers[reader].get_metrics_data()
        return {
            tuple(value for _, value in sorted(point.attributes.items())): point
            for resource in (data.resource_metrics if data is not None else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        }


@pytest.fixture
def told() -> Iterator[Told]:
    made = Told()
    yield made
    tracesock.uninstrument()
    made.meters.shutdown()


@pytest.fixture
def policy(tmp_path: Path) -> Iterator[Callable[[], None]]:
    def load() -> None:
        path = tmp_path / "egress.toml"
        path.write_text(POLICY)
        audit.load_policy(path)

    yield load
    audit.clear_policy()


def refused() -> None:
    with tracesock.socket() as sock, pytest.raises(PermissionError):
        sock.connect(("127.0.0.7", 1))


def test_decisions_are_counted_once_for_each_reader(told: Told, policy: Any) -> None:
    policy()
    refused()  # before the instrumentation: not its own
    told.instrument()
    for count in (2, 5):
        while audit.decisions() and decided(told, 0) < count:
            refused()
        assert decided(told, 0) == decided(told, 1) == count
    tracesock.uninstrument()
    refused()
    told.instrument()
    refused()
    assert decided(told, 0) == 6


def decided(told: Told, reader: int) -> int:
    point = told.points("tracesock.audit.decisions", reader).get(("deny", "closed"))
    return 0 if point is None else int(point.value)


def test_a_forked_child_counts_its_own_decisions(told: Told, policy: Any) -> None:
    policy()
    told.instrument()
    for _ in range(3):
        refused()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            refused()
            os.write(writing, json.dumps([decided(told, 0), decided(told, 1)]).encode())
        except BaseException as error:
            os.write(writing, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        assert json.loads(pipe.read()) == [1, 1]
    os.waitpid(child, 0)
    assert decided(told, 0) == 3


class Stalled:
    """A sink that does not get on until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()

    def open(self, source: str) -> None: ...

    def write(self, records: Sequence[audit.Record]) -> None:
        self.go.wait(60)

    def idle(self) -> None: ...

    def close(self, totals: dict[str, int]) -> None: ...

    def abandon(self) -> None: ...


def test_records_of_the_audit_that_found_no_room_are_dropped_telemetry(
    told: Told, policy: Any
) -> None:
    told.instrument()
    sink = Stalled()
    audit.add_sink(sink, "drop")
    try:
        policy()
        for _ in range(5000):  # more than the ring holds
            refused()
        dropped = told.points("tracesock.telemetry.dropped")["queue_full", "logs"].value
        recorded = told.points("tracesock.telemetry.records")[("logs",)].value
        (own,) = audit.stats()
    finally:
        sink.go.set()
        audit.remove_sink(sink)
    assert own.dropped > 0
    # Two readers collect one after the other: each is told the same.
    assert dropped == own.dropped
    assert recorded == own.emitted >= 5000
    # A pipeline that begins anew counts from zero, and the metric goes on.
    told.points("tracesock.telemetry.records")
    again = Stalled()
    again.go.set()
    audit.add_sink(again, "drop")
    try:
        refused()
        audit.flush()
        more = told.points("tracesock.telemetry.records")[("logs",)].value
    finally:
        audit.remove_sink(again)
    assert more > recorded


def test_ephemeral_ports_are_those_of_the_busiest_destination(told: Told) -> None:
    told.instrument()
    with ExitStack() as stack:
        busy = stack.enter_context(tracesock.create_server(("127.0.0.1", 0)))
        quiet = stack.enter_context(tracesock.create_server(("127.0.0.1", 0)))
        for server, count in ((busy, 3), (quiet, 1)):
            for _ in range(count):
                stack.enter_context(tracesock.create_connection(server.getsockname()))
                stack.enter_context(server.accept()[0])
        assert told.points("tracesock.ephemeral_port.used")[()].value == 3
        low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
        assert told.points("tracesock.ephemeral_port.limit")[()].value == high - low + 1
    # Those that are closed, and one that was refused, use none.
    with tracesock.socket() as sock:
        assert sock.connect_ex(("127.0.0.1", 1)) != 0
        assert told.points("tracesock.ephemeral_port.used")[()].value == 0


def test_records_and_their_lag(told: Told) -> None:
    begun = time.monotonic()
    told.instrument(drain_interval=60.0)
    with tracesock.create_server(("127.0.0.1", 0)) as server:
        for _ in range(4):
            tracesock.create_connection(server.getsockname()).close()
        first = told.points("tracesock.telemetry.records")[("traces",)].value
        assert first >= 8  # a connect and a set-up each
        lag = told.points("tracesock.telemetry.lag")[("traces",)]
        assert lag.count >= 1
        assert 0 < lag.sum <= time.monotonic() - begun
        tracesock.create_connection(server.getsockname()).close()
        assert told.points("tracesock.telemetry.records")[("traces",)].value >= first + 2
        assert told.points("tracesock.telemetry.lag")[("traces",)].count > lag.count


def test_exemplars_name_the_span_of_the_observation(told: Told) -> None:
    tracer = told.instrument().get_tracer("test")
    with tracesock.create_server(("127.0.0.1", 0)) as server:
        with tracer.start_as_current_span("request"):
            tracesock.create_connection(("localhost", server.getsockname()[1])).close()
        # A collection takes the exemplars with it: each metric from a reader of its own.
        exemplars = {
            name: [
                (exemplar.trace_id, exemplar.span_id)
                for point in told.points(name, reader).values()
                for exemplar in point.exemplars
            ]
            for reader, name in enumerate(("tracesock.connect.duration", "dns.lookup.duration"))
        }
        tracesock.instrumentation.flush()
    spans = told.spans.get_finished_spans()
    for name, prefix in (
        ("tracesock.connect.duration", "socket connect 127.0.0.1"),
        ("dns.lookup.duration", "DNS lookup localhost"),
    ):
        (own,) = (span for span in spans if span.name.startswith(prefix))
        assert (own.context.trace_id, own.context.span_id) in exemplars[name], name


def test_what_is_not_sampled_is_no_exemplar(told: Told) -> None:
    told.instrument(sampler=ALWAYS_OFF)
    with tracesock.create_server(("127.0.0.1", 0)) as server:
        tracesock.create_connection(server.getsockname()).close()
        (point,) = told.points("tracesock.connect.duration").values()
    assert point.count == 1
    assert not point.exemplars


def test_every_signal_of_the_health_metrics_is_in_the_reference() -> None:
    text = (Path(__file__).parents[2] / "docs/reference/telemetry.md").read_text()
    for metric in (semconv.TELEMETRY_LAG, semconv.TELEMETRY_RECORDS, semconv.PORTS_USED):
        assert text.count(f"`{metric.name}`") >= 1
    assert "`logs`" in text
