"""Connections that are counted natively: what is told of many is what is told of one each time."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.trace import TraceState

import tracesock
from tests.telemetry.plain import Plain, every_point, in_file, nobody, turn_on
from tracesock import instrumentation
from tracesock.instrumentation.spans import CLOSED, CONNECT, FIRST_BYTE

Telemetry = Callable[..., Plain]
MANY = 100  # more than Python sees of a kind
STATE = TraceState([("vendor", "abc")])
PARENT = trace.NonRecordingSpan(
    trace.SpanContext(0xABC, 0xDEF, False, trace.TraceFlags(1), trace_state=STATE)
)


def connect(count: int, family: int, address: Any, words: bytes = b"") -> list[Any]:
    """Connections to a listener of this family, one after the other, each closed on both sides;
    their own addresses."""
    made = []
    with tracesock.socket(family) as server:
        server.bind(address)
        server.listen()
        for _ in range(count):
            with tracesock.socket(family) as client:
                client.connect(server.getsockname())
                made.append(client.getsockname())
                accepted, _ = server.accept()
                with accepted:
                    if words:
                        client.send(words)
                        accepted.recv(len(words))
                        accepted.send(words)
                        client.recv(len(words))
    return made


def told(span: dict[str, Any]) -> dict[str, Any]:
    """A span's attributes, with the kind of value in place of its own port."""
    attributes = {each["key"]: each["value"] for each in span["attributes"]}
    if "network.local.port" in attributes:
        attributes["network.local.port"] = sorted(attributes["network.local.port"])
    return attributes


@pytest.mark.parametrize("spans", ["nobody", "processors", "otlp"])
def test_every_connection_is_in_the_metrics(
    telemetry: Telemetry, tmp_path: Path, spans: str
) -> None:
    plain = telemetry(**({"otlp": f"file:{tmp_path}/spans"} if spans == "otlp" else {}))
    if spans == "nobody":
        processor: Any = plain.provider._active_span_processor
        processor._span_processors = processor._span_processors[:1]
    connect(MANY, tracesock.AF_INET, ("127.0.0.1", 0), b"hello")
    assert instrumentation.flush()
    for name, count, attributes in (
        ("tracesock.connect.duration", MANY, {"server_address": "127.0.0.1"}),
        ("tracesock.first_byte.duration", MANY, {"server_address": "127.0.0.1"}),
        ("tracesock.connection.duration", 2 * MANY, {}),
        ("tracesock.tcp.rtt", 2 * MANY, {}),
    ):
        points = plain.points(name)
        (point,) = points.values()
        (found,) = points
        wanted = {"network.transport": "tcp"}
        wanted |= {key.replace("_", "."): value for key, value in attributes.items()}
        assert wanted.items() <= dict(found).items()
        assert point.count == sum(point.bucket_counts) == count
        assert 0 < point.min <= point.sum / count <= point.max < 30
    (retransmits,) = plain.points("tracesock.tcp.retransmits").values()
    assert retransmits.value == 0


def test_python_sees_the_first_of_each_kind(telemetry: Telemetry, tmp_path: Path) -> None:
    telemetry(otlp=f"file:{tmp_path}/spans", drain_interval=600.0)
    drain = instrumentation._current
    assert drain is not None
    seen: Counter[int] = Counter()

    def counted(kind: int, handler: Callable[..., None]) -> Callable[..., None]:
        def handle(record: Any) -> None:
            seen[kind] += 1
            handler(record)

        return handle

    drain._handlers = {kind: counted(kind, each) for kind, each in drain._handlers.items()}
    with tracesock.create_server(("127.0.0.1", 0)) as server:
        for _ in range(3):
            for _ in range(MANY):
                with tracesock.socket() as client:
                    client.connect(server.getsockname())
                    accepted, _ = server.accept()
                    with accepted:
                        accepted.send(b"hello")
                        client.recv(5)
            drain.once()
    # As long as all that takes less than a second: three of each then.
    assert {*seen} == {CONNECT, FIRST_BYTE, CLOSED}
    assert max(seen.values()) < MANY / 4


def test_names_are_kept_apart(telemetry: Telemetry) -> None:
    """Of connections to one address, those by a name and those without; and failed ones."""
    plain = telemetry()
    with tracesock.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        for host in ("localhost", "127.0.0.1"):
            for _ in range(MANY):
                tracesock.create_connection((host, address[1])).close()
                server.accept()[0].close()
    with nobody() as address:
        for _ in range(MANY):
            with tracesock.socket() as sock:
                assert sock.connect_ex(address) == errno.ECONNREFUSED
    totals = {
        (dict(found)["server.address"], dict(found).get("error.type")): point.count
        for found, point in plain.points("tracesock.connect.duration").items()
    }
    assert totals == {
        ("localhost", None): MANY,
        ("127.0.0.1", None): MANY,
        ("127.0.0.1", "connection_refused"): MANY,
    }


@pytest.mark.parametrize(
    ("family", "address"),
    [
        ("AF_INET", ("127.0.0.1", 0)),
        ("AF_INET6", ("::1", 0)),
        ("AF_UNIX", "socket"),
    ],
)
@pytest.mark.parametrize("rooted", [False, True])
def test_spans_are_those_that_python_makes(
    telemetry: Telemetry, tmp_path: Path, family: str, address: Any, rooted: bool
) -> None:
    if family == "AF_UNIX":
        address = str(tmp_path / address)
    path = tmp_path / "spans"
    telemetry(otlp=f"file:{path}", drain_interval=600.0)
    if rooted:
        made = connect(MANY, getattr(tracesock, family), address)
    else:
        with trace.use_span(PARENT):
            made = connect(MANY, getattr(tracesock, family), address)
    tracesock.uninstrument()
    spans = in_file(path, "socket connect ")
    assert len(spans) == MANY
    first, *others = spans
    for span in others:
        assert span["name"] == first["name"]
        assert told(span) == told(first)
        assert {*span} == {*first}
        assert span["kind"] == first["kind"]
        assert int(first["startTimeUnixNano"]) - 60e9 < int(span["startTimeUnixNano"])
        assert int(span["startTimeUnixNano"]) <= int(span["endTimeUnixNano"])
    assert len({span["spanId"] for span in spans}) == MANY
    if rooted:
        assert "parentSpanId" not in first
        assert len({span["traceId"] for span in spans}) == MANY
    else:
        assert {span["traceId"] for span in spans} == {f"{0xABC:032x}"}
        assert {span["parentSpanId"] for span in spans} == {f"{0xDEF:016x}"}
        assert {span["traceState"] for span in spans} == {"vendor=abc"}
    if family != "AF_UNIX":
        ports = Counter(
            each["value"]["intValue"]
            for span in spans
            for each in span["attributes"]
            if each["key"] == "network.local.port"
        )
        # The kernel may give one twice, after the connection that had it has ended.
        assert ports == Counter(str(port) for _, port, *_ in made)


def test_processors_get_every_span(telemetry: Telemetry) -> None:
    plain = telemetry()
    with plain.span():
        connect(MANY, tracesock.AF_INET, ("127.0.0.1", 0))
    assert len(plain.spans("socket connect ")) == MANY


def test_a_sampler_of_the_programs_is_asked(tmp_path: Path) -> None:
    """A root is for the sampler to decide on, here against it; a child of a sampled span is not."""
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased

    path = tmp_path / "spans"
    plain = turn_on({"sampler": ParentBased(ALWAYS_OFF)}, otlp=f"file:{path}")
    try:
        connect(MANY, tracesock.AF_INET, ("127.0.0.1", 0))
        assert in_file(path, "socket connect ") == []
        with trace.use_span(PARENT):
            connect(MANY, tracesock.AF_INET, ("127.0.0.1", 0))
        assert instrumentation.flush()
        assert len(in_file(path, "socket connect ")) == MANY
        assert plain.total("tracesock.connect.duration") == 2 * MANY
    finally:
        tracesock.uninstrument()


def test_folded_sends_come_before_the_end(telemetry: Telemetry, tmp_path: Path) -> None:
    for settings in ({}, {"otlp": f"file:{tmp_path}/spans"}):
        plain = telemetry(max_sends_per_trace=1, drain_interval=600.0, **settings)
        drain = instrumentation._current
        assert drain is not None
        with trace.use_span(PARENT), tracesock.create_server(("127.0.0.1", 0)) as server:
            for _ in range(MANY):
                with tracesock.create_connection(server.getsockname()) as client:
                    for _ in range(3):
                        client.send(b"x")
                server.accept()[0].close()
        drain.once()
        assert not drain.spans._peers
        assert not drain.spans._folds
        tracesock.uninstrument()
        sends = (
            [
                int(each["value"]["intValue"])
                for span in in_file(tmp_path / "spans", "socket send ")
                for each in span["attributes"]
                if each["key"] == "tracesock.send.calls"
            ]
            if settings
            else [
                (span.attributes or {})["tracesock.send.calls"]
                for span in plain.exporter.get_finished_spans()
                if span.name.startswith("socket send ")
            ]
        )
        assert sorted(sends) == [1] * MANY + [2] * MANY


def test_the_first_and_the_longest_have_exemplars(telemetry: Telemetry, tmp_path: Path) -> None:
    path = tmp_path / "spans"
    plain = telemetry(otlp=f"file:{path}", drain_interval=600.0)
    with trace.use_span(PARENT):
        connect(MANY, tracesock.AF_INET, ("127.0.0.1", 0))
    assert instrumentation.flush()
    spans = {int(span["spanId"], 16) for span in in_file(path, "socket connect ")}
    points = every_point(plain.reader)  # which takes the exemplars with it
    for name, known in (
        ("tracesock.connect.duration", spans),
        ("tracesock.connection.duration", {0xDEF}),
    ):
        (point,) = points[name].values()
        assert point.exemplars
        assert {exemplar.span_id for exemplar in point.exemplars} <= known
        assert {exemplar.trace_id for exemplar in point.exemplars} == {0xABC}


def test_an_exponential_histogram(telemetry: Telemetry) -> None:
    view = View(
        instrument_name="tracesock.connect.duration",
        aggregation=ExponentialBucketHistogramAggregation(),
    )
    plain = turn_on(views=[view])
    try:
        connect(MANY, tracesock.AF_INET, ("127.0.0.1", 0))
        assert instrumentation.flush()
        (point,) = plain.points("tracesock.connect.duration").values()
        assert point.count == sum(point.positive.bucket_counts) + point.zero_count == MANY
    finally:
        tracesock.uninstrument()


def test_a_forked_child_begins_anew(telemetry: Telemetry) -> None:
    plain = telemetry(drain_interval=600.0)
    connect(MANY, tracesock.AF_INET, ("127.0.0.1", 0))
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            connect(MANY + 7, tracesock.AF_INET, ("127.0.0.1", 0))
            os.write(writing, str(int(plain.total("tracesock.connect.duration"))).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 100) == str(MANY + 7).encode()
    os.close(reading)
    os.close(writing)
    assert plain.total("tracesock.connect.duration") == MANY


def test_connects_to_a_destination_are_counted(telemetry: Telemetry) -> None:
    """For the warning that ephemeral ports run out."""
    telemetry(drain_interval=600.0)
    drain = instrumentation._current
    assert drain is not None
    connect(MANY, tracesock.AF_INET, ("127.0.0.1", 0))
    drain.once()
    assert list(drain._ports._minutes[0].values()) == [MANY]
