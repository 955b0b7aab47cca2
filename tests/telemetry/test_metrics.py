"""Metrics: real traffic, real MeterProviders, numbers that must come out exactly."""

from __future__ import annotations

import errno
import gc
import inspect
import itertools
import json
import logging
import os
import select
import subprocess
import sys
import textwrap
import threading
import weakref
from bisect import bisect_left
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.metrics import NoOpMeterProvider, Observation
from opentelemetry.sdk.metrics import (
    Counter,
    Histogram,
    MeterProvider,
    ObservableCounter,
    ObservableUpDownCounter,
    UpDownCounter,
)
from opentelemetry.sdk.metrics._internal.aggregation import _Aggregation
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.metrics.view import (
    Aggregation,
    DropAggregation,
    ExplicitBucketHistogramAggregation,
    ExponentialBucketHistogramAggregation,
    LastValueAggregation,
    SumAggregation,
    View,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import NoOpTracerProvider, SpanContext, TraceFlags

import tracesock
from tracesock import socket
from tracesock._native import recorder
from tracesock.instrumentation import metrics as module
from tracesock.instrumentation import semconv
from tracesock.instrumentation.metrics import Metrics

DELTA = dict.fromkeys(
    (Counter, Histogram, UpDownCounter, ObservableCounter, ObservableUpDownCounter),
    AggregationTemporality.DELTA,
)


def cumulative_reader() -> InMemoryMetricReader:
    return InMemoryMetricReader()


def delta_reader() -> InMemoryMetricReader:
    return InMemoryMetricReader(preferred_temporality=DELTA)


def collected(reader: InMemoryMetricReader) -> dict[str, Any]:
    """The metrics of one collection by name."""
    data = reader.get_metrics_data()
    if data is None:
        return {}
    return {
        metric.name: metric
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def points(reader: InMemoryMetricReader, name: str) -> dict[frozenset[Any], Any]:
    """The points of one metric by attributes."""
    metric = collected(reader).get(name)
    return {} if metric is None else by_attributes(metric)


def by_attributes(metric: Any) -> dict[frozenset[Any], Any]:
    return {frozenset(point.attributes.items()): point for point in metric.data.data_points}


def only(points: dict[frozenset[Any], Any]) -> Any:
    assert len(points) == 1, points
    return next(iter(points.values()))


def attributes(**values: str) -> frozenset[Any]:
    names = {
        "direction": semconv.NETWORK_IO_DIRECTION,
        "transport": semconv.NETWORK_TRANSPORT,
        "server": semconv.SERVER_ADDRESS,
        "state": semconv.NETWORK_CONNECTION_STATE,
        "type": semconv.NETWORK_TYPE,
        "error": semconv.ERROR_TYPE,
        "cause": semconv.CAUSE,
    }
    return frozenset((names.get(name, name), value) for name, value in values.items())


Instrument = Callable[..., MeterProvider]


@pytest.fixture
def instrument() -> Iterator[Instrument]:
    """Turns the telemetry on for a new MeterProvider with these readers."""
    providers = []

    def instrument(
        *readers: InMemoryMetricReader,
        views: Any = (),
        provider: MeterProvider | None = None,
        **config: Any,
    ) -> MeterProvider:
        provider = provider or MeterProvider(readers, views=views, shutdown_on_exit=False)
        providers.append(provider)
        tracesock.instrument(
            tracer_provider=TracerProvider(shutdown_on_exit=False),
            meter_provider=provider,
            **{"send_spans": "off", "drain_interval": 60.0, **config},
        )
        return provider

    yield instrument
    tracesock.uninstrument()


def send_some(count: int, size: int = 10) -> None:
    """`count` sends on a Unix stream socket, each received."""
    left, right = tracesock.socketpair()
    with left, right:
        for _ in range(count):
            left.send(b"x" * size)
            received = 0
            while received < size:
                received += len(right.recv(size - received))


def native_sends() -> list[int]:
    """The native buckets of all sends together."""
    return [sum(column) for column in zip(*(cell[3][0] for cell in recorder.cells()), strict=True)]


# --- names --------------------------------------------------------------------------------------


def test_the_native_buckets_are_those_of_the_instruments() -> None:
    assert recorder.CALL_BOUNDS == semconv.CALL_BOUNDARIES


def test_the_buckets_are_the_published_ones() -> None:
    dns = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
    below = (0.0001, 0.00025, 0.0005, 0.001, 0.0025)
    assert dns == semconv.LOOKUP_BOUNDARIES
    assert tuple(sorted((*below, *dns, 3, 7, 15, 31))) == semconv.CALL_BOUNDARIES
    life = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)
    assert life == semconv.CONNECTION_BOUNDARIES


def test_every_metric_arrives_described(instrument: Instrument) -> None:
    reader = cumulative_reader()
    provider = instrument(reader)
    metrics = Metrics(provider)
    metrics.lookup(0.2, "example.org", "try_again")
    metrics.connect(0.01, "tcp", "ipv4", "example.org", None)
    metrics.closed(1.5, "tcp", 0.0002, 3)
    metrics.first_byte(0.02, "tcp", "ipv4", "example.org")
    metrics.dropped("traces", "ring_full", 7)
    metrics.recorded("traces", 7)
    metrics.lag("traces", 0.5)
    metrics.decision("deny", "no-metadata")
    listener = tracesock.create_server(("127.0.0.1", 0))
    left, right = tracesock.socketpair()
    with listener, left, right:
        left.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                left.send(b"x" * 4096)
        left.settimeout(0.001)
        with pytest.raises(TimeoutError):
            left.send(b"x" * 4096)
        arrived = collected(reader)
    metrics.close()
    assert arrived.keys() == {metric.name for metric in semconv.METRICS}
    for metric in semconv.METRICS:
        told = arrived[metric.name]
        assert (told.unit, told.description) == (metric.unit, metric.description)
        assert metric.description
        for point in told.data.data_points:
            assert set(point.attributes) <= set(metric.attributes), metric.name
            if metric.boundaries:
                assert point.explicit_bounds == metric.boundaries
    (scope,) = (
        scope
        for resource in reader.get_metrics_data().resource_metrics
        for scope in resource.scope_metrics
    )
    assert scope.scope.name == "tracesock"
    assert scope.scope.version == tracesock.__version__
    assert scope.schema_url == "https://opentelemetry.io/schemas/1.44.0"


# --- bytes --------------------------------------------------------------------------------------


def test_bytes_by_direction_and_transport(instrument: Instrument) -> None:
    reader = cumulative_reader()
    instrument(reader)
    send_some(3, 100)
    with tracesock.create_server(("127.0.0.1", 0)) as listener:
        client = tracesock.create_connection(listener.getsockname())
        server, _ = listener.accept()
        with client, server:
            client.sendall(b"x" * 5000)
            received = 0
            while received < 5000:
                received += server.recv_into(bytearray(4096))
            server.send(b"y" * 7)
            client.recv(100)
    with socket(tracesock.AF_INET, tracesock.SOCK_DGRAM) as datagrams:
        datagrams.bind(("127.0.0.1", 0))
        datagrams.sendto(b"z" * 11, datagrams.getsockname())
        datagrams.recvfrom(100)
    values: dict[tuple[str, str], int] = {}
    for point in points(reader, "tracesock.io").values():
        key = (
            point.attributes[semconv.NETWORK_TRANSPORT],
            point.attributes[semconv.NETWORK_IO_DIRECTION],
        )
        values[key] = values.get(key, 0) + point.value
    assert values == {
        ("unix", "transmit"): 300,
        ("unix", "receive"): 300,
        ("tcp", "transmit"): 5007,
        ("tcp", "receive"): 5007,
        ("udp", "transmit"): 11,
        ("udp", "receive"): 11,
    }


# --- native buckets in the SDK's histograms -----------------------------------------------------


def test_sends_fall_into_the_buckets_they_were_counted_in(instrument: Instrument) -> None:
    reader = cumulative_reader()
    instrument(reader)
    before = native_sends() or [0] * 24
    send_some(500)
    counted = [now - then for now, then in zip(native_sends(), before, strict=True)]
    point = only(points(reader, "tracesock.send.duration"))
    assert list(point.bucket_counts) == counted
    assert point.count == sum(counted) == 500
    assert 0 < point.min <= point.sum / 500 <= point.max
    assert point.bucket_counts[bisect_left(point.explicit_bounds, point.min)] > 0
    assert point.bucket_counts[bisect_left(point.explicit_bounds, point.max)] > 0
    assert point.attributes == {semconv.NETWORK_TRANSPORT: "unix"}
    assert point.start_time_unix_nano < point.time_unix_nano


def in_system_call(thread: int, descriptor: int) -> bool:
    """Whether a thread of this process sleeps in a system call on this descriptor (proc(5))."""
    try:
        words = Path(f"/proc/self/task/{thread}/syscall").read_text().split()
    except OSError as error:
        pytest.skip(f"the kernel does not tell which system call a thread is in: {error}")
    return len(words) > 1 and words[1] == hex(descriptor)


def stalled_send(sender: Any, receiver: Any, wait: float) -> None:
    """One send that waits at least `wait` seconds for the receiver."""
    sender.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            sender.send(b"x" * 4096)
    sender.setblocking(True)
    in_system_call(threading.get_native_id(), -1)  # skips here, not in the thread
    sending = threading.get_native_id()

    def read() -> None:
        while not in_system_call(sending, sender.fileno()):
            select.select([], [], [], 0.001)
        select.select([], [], [], wait)
        receiver.settimeout(10)
        while not receiver.recv(65536).endswith(b"end"):
            pass

    thread = threading.Thread(target=read)
    thread.start()
    sender.sendall(b"end")
    thread.join()


def test_a_stalled_send_is_in_the_bucket_of_its_time(instrument: Instrument) -> None:
    reader = delta_reader()
    instrument(reader)
    left, right = tracesock.socketpair()
    with left, right:
        stalled_send(left, right, 0.06)
    arrived = collected(reader)
    point = only(by_attributes(arrived["tracesock.send.stall.duration"]))
    assert point.attributes == {
        semconv.CAUSE: "receiver",
        semconv.NETWORK_TRANSPORT: "unix",
    }
    assert point.count == 1
    assert 0.06 <= point.min == point.max == point.sum
    assert point.bucket_counts[bisect_left(point.explicit_bounds, point.sum)] == 1
    sends = only(by_attributes(arrived["tracesock.send.duration"]))
    assert sends.max >= point.sum


def test_a_full_send_buffer_is_told_from_a_closed_window(instrument: Instrument) -> None:
    reader = cumulative_reader()
    instrument(reader)
    with tracesock.create_server(("127.0.0.1", 0)) as listener:
        client = tracesock.create_connection(listener.getsockname())
        server, _ = listener.accept()
        with client, server:
            stalled_send(client, server, 0.05)
    causes = {
        point.attributes[semconv.CAUSE]: point.count
        for point in points(reader, "tracesock.send.stall.duration").values()
    }
    assert sum(causes.values()) == 1
    assert causes.keys() <= {"receiver", "sndbuf"}


def test_delta_and_cumulative_readers_get_every_send_once(instrument: Instrument) -> None:
    cumulative, delta = cumulative_reader(), delta_reader()
    instrument(cumulative, delta)
    name, total, buckets, seconds = "tracesock.send.duration", 0, [0] * 24, 0.0
    ends = []
    for count in (5, 1, 250, 0, 30):
        send_some(count)
        arrived = points(delta, name)
        if count == 0:
            assert arrived == {}
        else:
            point = only(arrived)
            assert point.count == count
            total += count
            seconds += point.sum
            buckets = [a + b for a, b in zip(buckets, point.bucket_counts, strict=True)]
            assert point.min <= point.sum / count <= point.max
            ends.append((point.start_time_unix_nano, point.time_unix_nano))
        if count == 250:
            # In between, the other one takes nothing away.
            assert only(points(cumulative, name)).count == total
    assert all(start <= end for start, end in ends)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(ends))
    point = only(points(cumulative, name))
    assert point.count == total == 286
    assert list(point.bucket_counts) == buckets
    assert point.sum == pytest.approx(seconds)
    assert only(points(cumulative, name)).count == 286


def test_bytes_of_delta_readers_add_up(instrument: Instrument) -> None:
    cumulative, delta = cumulative_reader(), delta_reader()
    instrument(cumulative, delta)
    key = attributes(direction="transmit", transport="unix")
    told = 0
    for count in (3, 0, 8):
        send_some(count, 100)
        told += points(delta, "tracesock.io")[key].value if count or told else 0
    assert told == points(cumulative, "tracesock.io")[key].value == 1100


def test_sends_of_many_threads_under_collection(instrument: Instrument) -> None:
    readers = [cumulative_reader(), delta_reader(), cumulative_reader()]
    instrument(*readers)
    stop = threading.Event()
    deltas: list[int] = []

    def collect() -> None:
        while not stop.is_set():
            for reader in readers:
                arrived = points(reader, "tracesock.send.duration")
                if reader is readers[1]:
                    deltas.extend(point.count for point in arrived.values())

    collector = threading.Thread(target=collect)
    collector.start()
    senders = [threading.Thread(target=send_some, args=(1000,)) for _ in range(8)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    stop.set()
    collector.join()
    deltas.extend(point.count for point in points(readers[1], "tracesock.send.duration").values())
    assert sum(deltas) == 8000
    for reader in (readers[0], readers[2]):
        arrived = collected(reader)
        assert only(by_attributes(arrived["tracesock.send.duration"])).count == 8000
        sums = by_attributes(arrived["tracesock.io"])
        assert sums[attributes(direction="transmit", transport="unix")].value == 80_000
        assert sums[attributes(direction="receive", transport="unix")].value == 80_000


# --- views --------------------------------------------------------------------------------------


def test_a_view_renames_and_filters(instrument: Instrument) -> None:
    reader = cumulative_reader()
    view = View(
        instrument_name="tracesock.send.duration",
        name="sends",
        attribute_keys=set(),
        description="d",
    )
    instrument(reader, views=[view])
    send_some(4)
    with socket(tracesock.AF_INET, tracesock.SOCK_DGRAM) as datagrams:
        datagrams.bind(("127.0.0.1", 0))
        datagrams.sendto(b"z", datagrams.getsockname())
    arrived = collected(reader)
    assert "tracesock.send.duration" not in arrived
    assert arrived["sends"].description == "d"
    point = only(by_attributes(arrived["sends"]))
    assert point.attributes == {}
    assert point.count == 5


def test_a_view_drops(instrument: Instrument) -> None:
    reader = cumulative_reader()
    drop = [
        View(instrument_name=name, aggregation=DropAggregation())
        for name in ("tracesock.send.duration", "tracesock.io")
    ]
    instrument(reader, views=drop)
    left, right = tracesock.socketpair()
    with left, right:
        stalled_send(left, right, 0.01)
        arrived = collected(reader)
    assert not {"tracesock.send.duration", "tracesock.io"} & arrived.keys()
    # The callback of the dropped counter hands over the others all the same.
    assert only(by_attributes(arrived["tracesock.send.stall.duration"])).count == 1
    assert "tracesock.telemetry.dropped" not in arrived


def test_views_side_by_side_get_the_same(instrument: Instrument) -> None:
    reader = cumulative_reader()
    name = "tracesock.send.duration"
    views = [View(instrument_name=name, name="one"), View(instrument_name=name, name="two")]
    instrument(reader, views=views)
    send_some(40)
    arrived = collected(reader)
    one, two = (only(by_attributes(arrived[each])) for each in ("one", "two"))
    assert one.count == two.count == 40
    assert one.bucket_counts == two.bucket_counts


def test_coarser_buckets_are_exact(instrument: Instrument) -> None:
    reader = cumulative_reader()
    coarse = (0.001, 0.1, 1.0)
    name = "tracesock.send.duration"
    views = [
        View(
            instrument_name=name,
            name="coarse",
            aggregation=ExplicitBucketHistogramAggregation(coarse, record_min_max=False),
        ),
        View(instrument_name=name, name="fine"),
    ]
    instrument(reader, views=views)
    send_some(300)
    arrived = collected(reader)
    fine, point = (only(by_attributes(arrived[each])) for each in ("fine", "coarse"))
    expected = [0] * 4
    for bound, count in zip((*fine.explicit_bounds, 99), fine.bucket_counts, strict=True):
        expected[bisect_left(coarse, bound)] += count
    assert list(point.bucket_counts) == expected
    assert (point.count, point.sum) == (300, fine.sum)
    assert fine.min < fine.max
    assert (point.min, point.max) == (float("inf"), float("-inf"))


@pytest.mark.parametrize("temporality", ["cumulative", "delta"])
def test_an_exponential_histogram(instrument: Instrument, temporality: str) -> None:
    reader = cumulative_reader() if temporality == "cumulative" else delta_reader()
    view = View(
        instrument_name="tracesock.send.duration",
        aggregation=ExponentialBucketHistogramAggregation(max_size=20),
    )
    instrument(reader, views=[view])
    total = 0
    for count in (100, 0, 1, 60):
        send_some(count)
        arrived = points(reader, "tracesock.send.duration")
        if temporality == "delta":
            total = 0
            if not count:
                assert not arrived
                continue
        total += count
        point = only(arrived)
        assert point.count == total
        assert sum(point.positive.bucket_counts) + point.zero_count == total
        assert point.min <= point.sum / total <= point.max
        # Each bucket that is not empty lies within the extremes.
        base = 2 ** (2**-point.scale)
        filled = [index for index, each in enumerate(point.positive.bucket_counts) if each]
        lowest = base ** (point.positive.offset + filled[0])
        highest = base ** (point.positive.offset + filled[-1] + 1)
        assert lowest <= point.max and highest >= point.min


def test_a_sum_and_a_last_value(instrument: Instrument) -> None:
    reader = cumulative_reader()
    name = "tracesock.send.duration"
    views = [
        View(instrument_name=name, name="histogram"),
        View(instrument_name=name, name="sum", aggregation=SumAggregation()),
        View(instrument_name=name, name="last", aggregation=LastValueAggregation()),
    ]
    instrument(reader, views=views)
    send_some(10)
    arrived = collected(reader)
    histogram, total, last = (
        only(by_attributes(arrived[each])) for each in ("histogram", "sum", "last")
    )
    assert total.value == pytest.approx(histogram.sum)
    assert last.value == pytest.approx(histogram.sum / 10)


@pytest.mark.skipif(
    "aggregation_cardinality_limit" not in inspect.signature(View).parameters,
    reason="this opentelemetry-sdk has no limit on a view's attribute sets; a newer one has",
)
def test_a_cardinality_limit_of_a_view_holds(instrument: Instrument) -> None:
    reader = cumulative_reader()
    view = View(instrument_name="tracesock.send.duration", aggregation_cardinality_limit=1)
    instrument(reader, views=[view])
    send_some(2)
    assert only(points(reader, "tracesock.send.duration")).count == 2
    with socket(tracesock.AF_INET, tracesock.SOCK_DGRAM) as datagrams:
        datagrams.bind(("127.0.0.1", 0))
        datagrams.sendto(b"z", datagrams.getsockname())
    arrived = points(reader, "tracesock.send.duration")
    assert arrived[attributes(transport="unix")].count == 2
    assert arrived[frozenset({("otel.metric.overflow", True)})].count == 1


# --- against the SDK's own record() -------------------------------------------------------------


class Native:
    """recorder.cells() for made-up durations, by the rules of ext/recorder/histogram.hpp."""

    def __init__(self) -> None:
        self.counts = [0] * (len(recorder.CALL_BOUNDS) + 1)
        self.sum = 0
        self.smallest = 2**64 - 1
        self.largest = 0

    def record(self, nanoseconds: int) -> None:
        bounds = [round(bound * 1e9) for bound in recorder.CALL_BOUNDS]
        self.counts[bisect_left(bounds, nanoseconds)] += 1
        self.sum += nanoseconds
        self.smallest = min(self.smallest, nanoseconds)
        self.largest = max(self.largest, nanoseconds)

    def __call__(self) -> list[tuple[Any, ...]]:
        empty = ([0] * len(self.counts), 0, 2**64 - 1, 0)
        sends = (list(self.counts), self.sum, self.smallest, self.largest)
        return [((1, 1, 0, None), 0, 0, sends, empty, empty)]


durations = st.lists(
    st.lists(
        st.one_of(
            st.integers(1, 10**11),
            st.sampled_from([round(bound * 1e9) for bound in semconv.CALL_BOUNDARIES]),
            st.integers(1, 10**6),
        ),
        max_size=30,
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=60, deadline=None)
@given(rounds=durations)
def test_the_merged_histogram_is_the_recorded_one(rounds: list[list[int]]) -> None:
    """Whatever the durations: what is merged equals what record() makes of each."""
    native = Native()
    cumulative, delta = cumulative_reader(), delta_reader()
    exact_cumulative, exact_delta = cumulative_reader(), delta_reader()
    exact = MeterProvider([exact_cumulative, exact_delta], shutdown_on_exit=False)
    histogram = exact.get_meter("exact").create_histogram(
        "exact", explicit_bucket_boundaries_advisory=semconv.CALL_BOUNDARIES
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorder, "cells", native)
        metrics = Metrics(MeterProvider([cumulative, delta], shutdown_on_exit=False))
        for each in rounds:
            for nanoseconds in each:
                native.record(nanoseconds)
                histogram.record(nanoseconds / 1e9)
            for ours, theirs in ((cumulative, exact_cumulative), (delta, exact_delta)):
                merged, recorded = points(ours, "tracesock.send.duration"), points(theirs, "exact")
                if not recorded:
                    assert not merged
                    continue
                got, wanted = only(merged), only(recorded)
                assert got.bucket_counts == wanted.bucket_counts
                assert got.count == wanted.count
                assert got.sum == pytest.approx(wanted.sum)
                if ours is cumulative:
                    assert (got.min, got.max) == (wanted.min, wanted.max)
                else:
                    # Only the bucket of an interval's extremes is known, where they are no records.
                    bounds = got.explicit_bounds
                    assert got.min <= wanted.min and got.max >= wanted.max
                    assert bisect_left(bounds, got.min) == bisect_left(bounds, wanted.min)
                    assert bisect_left(bounds, got.max) == bisect_left(bounds, wanted.max)
        metrics.close()


@pytest.mark.parametrize("count", [1, 16, 17, 500])
@pytest.mark.parametrize("kind", ["explicit", "exponential"])
def test_many_events_of_a_round_are_all_counted(count: int, kind: str) -> None:
    """What is not handed to the instrument one by one is in its aggregations all the same."""
    values = [((number * 7919) % 1000 + 1) / 1e4 for number in range(count)]
    values[count // 2] = 5.0
    spans = [SpanContext(number + 1, number + 1, False, TraceFlags(1)) for number in range(count)]
    views = []
    if kind == "exponential":
        views = [
            View(instrument_name=name, aggregation=ExponentialBucketHistogramAggregation())
            for name in ("tracesock.connect.duration", "exact")
        ]
    readers = [cumulative_reader(), delta_reader()]
    provider = MeterProvider(readers, views=views, shutdown_on_exit=False)
    exact = provider.get_meter("exact").create_histogram(
        "exact", explicit_bucket_boundaries_advisory=semconv.CALL_BOUNDARIES
    )
    metrics = Metrics(provider)
    for seconds, span in zip(values, spans, strict=True):
        metrics.connect(seconds, "tcp", "ipv4", "example.org", None, span)
        metrics.closed(None, "tcp", 0.1, 2)
        exact.record(seconds)
    for reader in readers:
        arrived = collected(reader)
        got, wanted = (
            only(by_attributes(arrived[name])) for name in ("tracesock.connect.duration", "exact")
        )
        assert got.count == wanted.count == count
        assert got.sum == pytest.approx(wanted.sum)
        assert (got.min, got.max) == (wanted.min, wanted.max)
        if kind == "explicit":
            assert got.bucket_counts == wanted.bucket_counts
            # The longest leads to its span, also where it came late.
            assert spans[count // 2].span_id in {each.span_id for each in got.exemplars}
        else:
            assert got.positive.bucket_counts == wanted.positive.bucket_counts
        assert only(by_attributes(arrived["tracesock.tcp.retransmits"])).value == 2 * count
    metrics.close()


# --- attributes ---------------------------------------------------------------------------------


def test_distinct_values_are_capped() -> None:
    reader = cumulative_reader()
    metrics = Metrics(MeterProvider([reader], shutdown_on_exit=False), cardinality_limit=5)
    for number in range(50):
        metrics.lookup(0.01, f"host-{number}.example")
    metrics.lookup(0.01, "host-0.example")
    arrived = points(reader, "dns.lookup.duration")
    metrics.close()
    names = {dict(key)[semconv.DNS_QUESTION_NAME]: point.count for key, point in arrived.items()}
    assert names == {
        "host-0.example": 2,
        **{f"host-{number}.example": 1 for number in range(1, 5)},
        semconv.OVERFLOW: 45,
    }


@pytest.mark.parametrize("tracer_provider", [TracerProvider, NoOpTracerProvider])
def test_a_set_up_names_its_server_where_nobody_gets_spans(
    monkeypatch: pytest.MonkeyPatch, tracer_provider: Any
) -> None:
    """Whoever looked the name up: what was found for others may be known by another name."""
    reader = cumulative_reader()
    meter_provider = MeterProvider([reader])
    tracesock.instrument(tracer_provider(), meter_provider)
    try:
        recorder.learned("other.example", "127.0.0.1")
        with tracesock.create_server(("127.0.0.1", 0)) as listener:
            address = listener.getsockname()
            found = [(tracesock.AF_INET, tracesock.SOCK_STREAM, 0, "", address)]
            monkeypatch.setattr(tracesock, "getaddrinfo", lambda *_: found)
            tracesock.create_connection(("service.example", address[1])).close()
            with socket() as another:
                another.connect(address)
        connects = points(reader, "tracesock.connect.duration")
        servers = {dict(key)[semconv.SERVER_ADDRESS] for key in connects}
        assert servers == {"service.example", "other.example"}
    finally:
        tracesock.uninstrument()
        meter_provider.shutdown()


def test_a_native_counter_of_many_servers_is_capped(instrument: Instrument) -> None:
    reader = cumulative_reader()
    instrument(reader, cardinality_limit=20)
    for number in range(300):
        address = f"127.77.{number // 200}.{number % 200 + 1}"
        recorder.learned(f"host-{number}.example", address)
        with socket(tracesock.AF_INET, tracesock.SOCK_DGRAM) as datagrams:
            datagrams.connect((address, 9))
            datagrams.send(b"x" * 10)
    arrived = collected(reader)
    sent = by_attributes(arrived["tracesock.io"])
    servers = [dict(key).get(semconv.SERVER_ADDRESS) for key in sent]
    assert len(servers) == len(set(servers)) == 21
    assert semconv.OVERFLOW in servers
    assert sum(point.value for point in sent.values()) == 3000
    counts = [point.count for point in by_attributes(arrived["tracesock.send.duration"]).values()]
    assert sum(counts) == 300


def test_redacted_values_are_nowhere(instrument: Instrument) -> None:
    reader = cumulative_reader()
    instrument(
        reader,
        redact=("server.address", "dns.question.name", "network.local.address"),
    )
    with tracesock.create_server(("127.0.0.1", 0)) as listener:
        tracesock.create_connection(("localhost", listener.getsockname()[1])).close()
        text = reader.get_metrics_data().to_json()
    assert "localhost" not in text and "127.0.0.1" not in text
    assert semconv.REDACTED in text


def test_no_path_and_no_port_of_an_accepted_peer(instrument: Instrument, tmp_path: Path) -> None:
    reader = cumulative_reader()
    instrument(reader)
    path = str(tmp_path / "secret.sock")
    with socket(tracesock.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        with socket(tracesock.AF_UNIX) as client:
            client.connect(path)
            accepted, _ = listener.accept()
            with accepted:
                accepted.send(b"x")
                client.recv(1)
    with tracesock.create_server(("127.0.0.1", 0)) as listener:
        client = tracesock.create_connection(listener.getsockname())
        port = client.getsockname()[1]
        accepted, _ = listener.accept()
        with accepted, client:
            accepted.send(b"x")
            client.recv(1)
            values = [
                value
                for metric in collected(reader).values()
                for point in metric.data.data_points
                for value in point.attributes.values()
            ]
        values += [
            value
            for metric in collected(reader).values()
            for point in metric.data.data_points
            for value in point.attributes.values()
        ]
    assert not [value for value in values if "secret" in str(value)]
    assert port not in values and str(port) not in values


def test_real_connections(instrument: Instrument) -> None:
    """Durations of connect, life, first byte and RTT, from a TCP connection of this machine."""
    reader = cumulative_reader()
    instrument(reader)
    with tracesock.create_server(("127.0.0.1", 0)) as listener:
        client = tracesock.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
        with client, accepted:
            accepted.send(b"x")
            client.recv(1)
    with socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        with socket() as refused:
            assert refused.connect_ex(nobody.getsockname()) == errno.ECONNREFUSED
    arrived = collected(reader)
    connects = {
        dict(key).get(semconv.ERROR_TYPE): point.count
        for key, point in by_attributes(arrived["tracesock.connect.duration"]).items()
    }
    assert connects == {None: 1, "connection_refused": 1}
    for key in by_attributes(arrived["tracesock.connect.duration"]):
        assert {("network.transport", "tcp"), ("network.type", "ipv4")} <= key
    assert only(by_attributes(arrived["tracesock.first_byte.duration"])).count == 1
    assert only(by_attributes(arrived["tracesock.connection.duration"])).count == 2
    assert only(by_attributes(arrived["tracesock.tcp.rtt"])).count >= 2
    assert only(by_attributes(arrived["tracesock.tcp.retransmits"])).value == 0


# --- open connections ---------------------------------------------------------------------------


def states(reader: InMemoryMetricReader) -> dict[str, int]:
    return {
        point.attributes[semconv.NETWORK_CONNECTION_STATE]: point.value
        for point in points(reader, "tracesock.connection.count").values()
    }


def test_open_connections_by_state(instrument: Instrument) -> None:
    reader, delta = cumulative_reader(), delta_reader()
    instrument(reader, delta)
    gc.collect()  # what other tests left is not to go away in between
    with tracesock.create_server(("127.0.0.1", 0)) as listener:
        client = tracesock.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
        with accepted, socket():
            # The kernel counts here; what this process has had open before stays out of it.
            opened = states(reader)
            assert opened["listen"] >= 1 and opened["established"] >= 2
            changes = [states(delta)]
            client.close()
            accepted.recv(1)
            left = states(reader)
            changes.append(states(delta))
            assert left["close_wait"] == opened.get("close_wait", 0) + 1
            assert left["established"] == opened["established"] - 2
    gone = states(reader)
    changes.append(states(delta))
    assert gone["close_wait"] == left["close_wait"] - 1
    assert gone["listen"] == opened["listen"] - 1
    for state, number in gone.items():
        assert sum(change.get(state, 0) for change in changes) == number


def test_the_accept_queue(instrument: Instrument) -> None:
    reader = cumulative_reader()
    instrument(reader)
    with tracesock.create_server(("127.0.0.1", 0), backlog=7) as listener:
        address = listener.getsockname()
        key = frozenset(
            {(semconv.NETWORK_LOCAL_ADDRESS, address[0]), (semconv.NETWORK_LOCAL_PORT, address[1])}
        )
        clients = [tracesock.create_connection(address) for _ in range(3)]
        # The last handshake may end a moment after connect() has.
        for _ in range(500):
            arrived = collected(reader)
            length = by_attributes(arrived["tracesock.listen.queue.length"])[key].value
            limit = by_attributes(arrived["tracesock.listen.queue.limit"])[key].value
            if length == 3:
                break
            select.select([], [], [], 0.01)
        for client in clients:
            client.close()
    assert (length, limit) == (3, 7)


# --- life ---------------------------------------------------------------------------------------


def test_closed_is_silent_and_loses_nothing(instrument: Instrument) -> None:
    cumulative, delta = cumulative_reader(), delta_reader()
    provider = instrument(cumulative, delta)
    send_some(3)
    assert only(points(delta, "tracesock.send.duration")).count == 3
    send_some(4)
    tracesock.uninstrument()
    send_some(100)
    name, key = "tracesock.io", attributes(direction="transmit", transport="unix")
    # What was counted until then arrives, what came after does not.
    arrived = collected(delta)
    assert only(by_attributes(arrived["tracesock.send.duration"])).count == 4
    assert by_attributes(arrived[name])[key].value == 40
    arrived = collected(cumulative)
    assert only(by_attributes(arrived["tracesock.send.duration"])).count == 7
    assert by_attributes(arrived[name])[key].value == 70
    assert "tracesock.connection.count" not in arrived
    # Once more on the same provider, it goes on from there.
    instrument(provider=provider)
    send_some(5)
    with tracesock.create_server(("127.0.0.1", 0)):
        assert "listen" in states(cumulative)
    arrived = collected(delta)
    assert only(by_attributes(arrived["tracesock.send.duration"])).count == 5
    assert by_attributes(arrived[name])[key].value == 50
    arrived = collected(cumulative)
    assert only(by_attributes(arrived["tracesock.send.duration"])).count == 12
    assert by_attributes(arrived[name])[key].value == 120


def test_another_provider_takes_over(instrument: Instrument) -> None:
    first, second = cumulative_reader(), cumulative_reader()
    instrument(first)
    send_some(3)
    instrument(second)
    send_some(5)
    assert only(points(second, "tracesock.send.duration")).count == 5
    assert only(points(first, "tracesock.send.duration")).count == 3


def test_a_closed_metrics_records_no_event() -> None:
    reader = cumulative_reader()
    metrics = Metrics(MeterProvider([reader], shutdown_on_exit=False))
    metrics.close()
    metrics.lookup(0.1, "example.org")
    metrics.connect(0.1, "tcp", "ipv4", "example.org")
    metrics.closed(0.1, "tcp", 0.1, 1)
    metrics.first_byte(0.1, "tcp", "ipv4", "example.org")
    metrics.dropped("traces", "ring_full")
    metrics.decision("deny", "rule")
    assert collected(reader) == {}


def test_the_provider_is_not_kept() -> None:
    provider = MeterProvider([cumulative_reader()], shutdown_on_exit=False)
    Metrics(provider).close()
    reference = weakref.ref(provider)
    provider.shutdown()
    del provider
    gc.collect()
    assert reference() is None


def test_before_collect_comes_first() -> None:
    reader = cumulative_reader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    metrics = Metrics(provider, before_collect=lambda: metrics.lookup(0.1, "example.org"))
    assert only(points(reader, "dns.lookup.duration")).count == 1
    assert only(points(reader, "dns.lookup.duration")).count == 2
    metrics.close()


def test_a_failing_before_collect_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    reader = cumulative_reader()

    def fail() -> None:
        raise RuntimeError("no")

    metrics = Metrics(MeterProvider([reader], shutdown_on_exit=False), before_collect=fail)
    metrics.lookup(0.1, "example.org")
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            assert only(points(reader, "dns.lookup.duration")).count == 1
    metrics.close()
    assert [record.message.count("failed") for record in caplog.records] == [1]


def test_a_forked_child_tells_only_its_own(instrument: Instrument) -> None:
    cumulative, delta = cumulative_reader(), delta_reader()
    provider = instrument(cumulative, delta)
    events = module._Instruments.of(provider)
    send_some(3)
    collected(delta)
    send_some(4)
    events.decisions.add(5, {})
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            send_some(10)
            told: dict[str, Any] = {}
            for name, reader in (("cumulative", cumulative), ("delta", delta)):
                arrived = collected(reader)
                told[name] = [
                    only(by_attributes(arrived["tracesock.send.duration"])).count,
                    sum(point.value for point in arrived["tracesock.io"].data.data_points),
                    "tracesock.audit.decisions" in arrived,
                ]
            os.write(writing, json.dumps(told).encode())
        except BaseException as error:
            os.write(writing, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    assert json.loads(text) == {"cumulative": [10, 200, False], "delta": [10, 200, False]}
    send_some(1)
    assert only(points(delta, "tracesock.send.duration")).count == 5
    arrived = collected(cumulative)
    assert only(by_attributes(arrived["tracesock.send.duration"])).count == 8
    assert only(by_attributes(arrived["tracesock.audit.decisions"])).value == 5


def test_a_provider_that_comes_later() -> None:
    """Instrumented before set_meter_provider(): in a process of its own, since that can be called
    once."""
    program = textwrap.dedent("""
        import tracesock
        from opentelemetry import metrics
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader

        def send(count):
            left, right = tracesock.socketpair()
            for _ in range(count):
                left.send(b"x")

        def told():
            for scope in reader.get_metrics_data().resource_metrics[0].scope_metrics:
                for metric in scope.metrics:
                    if metric.name == "tracesock.send.duration":
                        (point,) = metric.data.data_points
                        return point.count

        tracesock.instrument()
        tracesock.uninstrument()
        tracesock.instrument(send_spans="off")
        send(3)
        reader = InMemoryMetricReader()
        metrics.set_meter_provider(MeterProvider([reader]))
        send(2)
        print(told())
        tracesock.instrument(send_spans="off")
        send(4)
        print(told())
        tracesock.uninstrument()
        send(5)
        print(told())
    """)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.stdout.split() == ["5", "9", "9"], done.stderr
    assert "Traceback" not in done.stderr


def test_garbage_collected_while_connections_are_read() -> None:
    """A socket that the collector closes then takes the recorder's lock: in a process of its own,
    which would wait for ever."""
    program = textwrap.dedent("""
        import faulthandler
        import gc
        faulthandler.dump_traceback_later(150, exit=True)
        import tracesock
        from tracesock._native import recorder

        tracesock.instrument(send_spans="off")
        kept = [tracesock.socketpair() for _ in range(100)]
        for left, right in kept:
            left.send(b"x")
        gc.set_threshold(50)
        for _ in range(5):
            gc.disable()
            for _ in range(20):
                cycle = list(tracesock.socketpair())
                cycle[0].send(b"x")
                cycle.append(cycle)
            gc.enable()
            assert len(recorder.connections(recorder.open_numbers())) >= 100
        print("done")
    """)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.stdout == "done\n", done.stderr


# --- providers that are not the SDK's -----------------------------------------------------------


def test_no_provider_at_all() -> None:
    metrics = Metrics(NoOpMeterProvider())
    metrics.lookup(0.1, "example.org")
    metrics.closed(0.1, "tcp", 0.1, 1)
    metrics.dropped("traces", "ring_full")
    metrics.close()


class OtherMeter:
    """What a MeterProvider of another maker may be: it keeps what it is told."""

    def __init__(self) -> None:
        self.recorded: list[tuple[str, float, dict[str, Any]]] = []
        self.callbacks: dict[str, list[Any]] = {}
        self.broken = False

    def get_meter(self, name: str, version: str, schema_url: str) -> OtherMeter:
        return self

    def _create(self, name: str, callbacks: Any = None, **rest: Any) -> Any:
        meter = self
        self.callbacks[name] = callbacks or []

        class Instrument:
            def record(self, value: float, attributes: dict[str, Any]) -> None:
                if meter.broken:
                    raise OSError("disk full")
                meter.recorded.append((name, value, attributes))

            add = record

        return Instrument()

    create_counter = create_histogram = create_observable_counter = _create
    create_observable_gauge = create_observable_up_down_counter = _create

    def collect(self) -> dict[str, list[Observation]]:
        return {
            name: [each for callback in callbacks for each in callback(None)]
            for name, callbacks in self.callbacks.items()
        }


def test_another_makers_provider(instrument: Instrument, caplog: pytest.LogCaptureFixture) -> None:
    meter = OtherMeter()
    instrument(provider=meter)
    with caplog.at_level(logging.ERROR):
        for _ in range(2):
            send_some(3)
            observed = meter.collect()
    sent = {
        each.attributes[semconv.NETWORK_IO_DIRECTION]: each.value
        for each in observed["tracesock.io"]
    }
    assert sent == {"transmit": 60, "receive": 60}
    dropped = [each for each in meter.recorded if each[0] == "tracesock.telemetry.dropped"]
    assert [each[1] for each in dropped] == [3, 3]
    assert dropped[0][2] == {"signal": "metrics", "reason": "sdk_unsupported"}
    assert [record.name for record in caplog.records] == [module.__name__]


def test_a_failing_instrument_breaks_nothing(caplog: pytest.LogCaptureFixture) -> None:
    meter = OtherMeter()
    metrics = Metrics(meter)
    meter.broken = True
    with caplog.at_level(logging.ERROR):
        for _ in range(5):
            metrics.lookup(0.1, "example.org")
            metrics.closed(0.1, "tcp", 0.1, 1)
    metrics.close()
    # One for the histogram, one for the counter that should have counted it.
    assert len(caplog.records) == 2


class Renamed:
    """A measurement consumer whose storages are not where they are looked for."""

    def __init__(self, consumer: Any) -> None:
        self.consume_measurement = consumer.consume_measurement


class OwnAggregation(_Aggregation):
    """An aggregation that the SDK does not have."""

    def aggregate(self, measurement: Any, should_sample_exemplar: bool = True) -> None:
        pass

    def collect(self, *arguments: Any) -> None:
        return None


class Own(Aggregation):
    def _create_aggregation(
        self, instrument: Any, attributes: Any, reservoir_factory: Any, start: int
    ) -> OwnAggregation:
        return OwnAggregation(attributes, reservoir_factory(OwnAggregation))


@pytest.mark.parametrize("strange", ["consumer", "aggregation"])
def test_an_sdk_that_is_not_understood(
    instrument: Instrument, caplog: pytest.LogCaptureFixture, strange: str
) -> None:
    reader = cumulative_reader()
    view = View(instrument_name="tracesock.send.duration", aggregation=Own())
    provider = instrument(reader, views=[view] if strange == "aggregation" else ())
    if strange == "consumer":
        sends = module._Instruments.of(provider).sends
        sends._measurement_consumer = Renamed(sends._measurement_consumer)
    with caplog.at_level(logging.ERROR):
        for expected in (3, 6):
            send_some(3)
            collected(reader)
            arrived = collected(reader)
            dropped = only(by_attributes(arrived["tracesock.telemetry.dropped"]))
            assert dropped.value == expected
            assert dropped.attributes == {"signal": "metrics", "reason": "sdk_unsupported"}
    assert "tracesock.send.duration" not in arrived
    key = attributes(direction="transmit", transport="unix")
    assert by_attributes(arrived["tracesock.io"])[key].value == 60
    assert len(caplog.records) == 1
