"""The store: what is in it after what came, retention, recovery, files it must refuse."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracesock.dashboard import otlp
from tracesock.dashboard.classify import Op
from tracesock.dashboard.otlp import PROTOBUF, Limits, Refused, Signal
from tracesock.dashboard.queries import Queries
from tracesock.dashboard.rows import Filter, TraceQuery, Window
from tracesock.dashboard.schema import SCHEMA_VERSION
from tracesock.dashboard.store import Retention, Store, StoreError

from .make import MS, SECOND, Metrics, Spans, decision, log_request, snapshot, span_id, trace_id
from .serving import wait_until


class Clock:
    def __init__(self) -> None:
        self.now = time.time_ns()

    def __call__(self) -> int:
        return self.now


def put(store: Store, signal_: Signal, body: bytes) -> int:
    request = otlp.decode(signal_, PROTOBUF, body)
    records = otlp.count_records(signal_, request)
    return store.submit(signal_, request, records, body).result(100)


def spans(store: Store, made: Spans) -> int:
    return put(store, Signal.TRACES, made.body)


def settle(store: Store) -> None:
    """Waits until the histograms hold everything that was put."""
    assert wait_until(lambda: not store._ingest.unsettled)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[Store]:
    made = Store(tmp_path / "s.sqlite3", clock=clock)
    made.start()
    yield made
    made.close()


def summary(store: Store, clock: Clock, op: Op, filters: Filter | None = None) -> Any:
    settle(store)
    with store.read() as db:
        return Queries(db, clock.now + SECOND).heatmap(filters or Filter(), op).summary


# -- spans ---------------------------------------------------------------------------------------


def test_a_trace_over_several_requests(store: Store, clock: Clock) -> None:
    spans(store, Spans("inner").add("b", span=2, parent=1, start_ms=5, duration_ms=3))
    with store.read() as db:
        row = Queries(db).traces(Filter(), TraceQuery()).rows[0]
    assert (row.name, row.service, row.spans, row.has_root) == ("b", "inner", 1, False)
    spans(
        store,
        Spans("outer")
        .add("a", span=1, start_ms=0, duration_ms=20, error="timed_out")
        .add("c", span=3, parent=2, start_ms=6),
    )
    with store.read() as db:
        row = Queries(db).traces(Filter(), TraceQuery()).rows[0]
    assert (row.name, row.service, row.spans, row.errors) == ("a", "outer", 3, 1)
    assert row.has_root
    assert row.services == ["inner", "outer"]
    assert 0.0199 < row.duration < 0.3


def test_histograms_that_left_the_cache_are_added_to(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are appended to unread, now and then summed up, and always right."""
    monkeypatch.setattr("tracesock.dashboard.ingest.slots._CACHED", 8)
    monkeypatch.setattr("tracesock.dashboard.store._SETTLE_EVERY", 0.0)
    file = tmp_path / "s.sqlite3"
    store = Store(file, clock=clock)
    store.start()
    at = clock.now - clock.now % (300 * SECOND) - 900 * SECOND
    expected: dict[int, int] = {}
    for number in range(60):
        made = Spans()
        made.now = at + (number % 7) * 130 * SECOND
        for peer in range(5):
            count = number % 3 + 1
            for _ in range(count):
                made.connect(f"peer-{peer}.example", 443, trace=number + 1, duration_ms=2 + peer)
            expected[peer] = expected.get(peer, 0) + count
        spans(store, made)
    window = Window(at - SECOND, None)
    assert summary(store, clock, Op.CONNECT, Filter(window=window)).count == sum(expected.values())
    with store.read() as db:
        found = Queries(db, clock.now).edges(Filter(window=window))
        edges = {e.peer: e.summary for e in found.rows}
        longest = db.execute("SELECT max(length(buckets)) FROM latency").fetchone()[0]
    assert {p: s.count for p, s in edges.items()} == {
        f"peer-{peer}.example:443": n for peer, n in expected.items()
    }
    for peer in range(5):
        found = edges[f"peer-{peer}.example:443"].percentile(0.5)
        assert found is not None and 0.8 * (2 + peer) < 1000 * found < 1.2 * (2 + peer)
    # 60 additions of up to five buckets each are not all still there one by one.
    assert longest < 16 * 5 * 10
    store.close()
    store = Store(file, clock=clock)
    store.start()
    assert summary(store, clock, Op.CONNECT, Filter(window=window)).count == sum(expected.values())
    store.close()


def test_a_trace_that_left_the_cache_is_found_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracesock.dashboard.ingest.spans._TRACES", 2)
    for number in range(1, 8):
        spans(store, Spans().add("first", trace=number, span=number))
    made = Spans()
    for number in range(1, 10):
        made.add("second", trace=number, span=100 + number, parent=number, duration_ms=50)
    made.connect("db.example", 5432, trace=1, span=300, parent=1)
    spans(store, made)
    with store.read() as db:
        rows = Queries(db).traces(Filter(), TraceQuery(limit=50)).rows
        detail = Queries(db).trace(trace_id(1).hex())
        by_peer = Queries(db).traces(Filter(peer="db.example:5432"), TraceQuery()).rows
        attempts = Queries(db).attempts(Filter())
    assert sorted(r.spans for r in rows) == [1, 1, 2, 2, 2, 2, 2, 2, 3]
    assert {r.name for r in rows if r.spans > 1} == {"first"}
    assert detail is not None
    assert [s.name for s in detail.spans] == ["first", "second", "socket connect 192.0.2.1:5432"]
    assert [r.trace_id for r in by_peer] == [trace_id(1).hex()]
    assert [a.trace_id for a in attempts] == [trace_id(1).hex()]


def test_terms_that_many_traces_have_are_found_as_rare_ones_are(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(1, 121):
        made = Spans(f"service-{number % 3}")
        made.add(f"GET /{number % 50}", trace=number, span=number, duration_ms=number * 7 % 40 + 1)
        made.connect(
            f"peer-{number % 9}.example",
            443,
            trace=number,
            parent=number,
            error="timed_out" if number % 4 == 0 else "",
        )
        spans(store, made)
    filters = [
        Filter(),
        Filter(service="service-1"),
        Filter(peer="peer-3.example"),
        Filter(service="service-2", peer="peer-5.example:443"),
    ]
    queries = [
        TraceQuery(text=text, error=error, sort=sort, descending=down, offset=offset, limit=7)
        for text in ("", "peer", "GET /1", "service-2", "timed", "no such")
        for error in ("", "timed_out", "none")
        for sort, down in (("arrival", True), ("duration", True), ("start", False))
        for offset in (0, 7)
    ]

    def answers() -> list[tuple[list[str], bool]]:
        with store.read() as db:
            pages = [Queries(db).traces(f, q) for f in filters for q in queries]
        return [([row.trace_id for row in page.rows], page.more) for page in pages]

    rare = answers()
    assert len(rare[0][0]) == 7
    monkeypatch.setattr("tracesock.dashboard.queries._RARE", 0)
    for found, expected in zip(answers(), rare, strict=True):
        assert found == expected


def test_a_span_that_comes_again_is_stored_once(store: Store) -> None:
    spans(store, Spans().add("a", span=1).add("b", span=2, parent=1))
    spans(store, Spans().add("a", span=1).add("c", span=3, parent=1))
    with store.read() as db:
        detail = Queries(db).trace(trace_id(1).hex())
    assert detail is not None
    assert [s.name for s in detail.spans] == ["a", "b", "c"]
    assert detail.total == 3


def test_durations_are_counted_by_service_and_peer(store: Store, clock: Clock) -> None:
    made = Spans("one")
    for i in range(10):
        made.connect("a.example", 1, trace=i + 1, duration_ms=10)
    made.connect("b.example", 2, trace=50, duration_ms=1000, error="timed_out")
    spans(store, made)
    spans(store, Spans("two").connect("a.example", 1, trace=60, duration_ms=10))
    everything = summary(store, clock, Op.CONNECT)
    assert (everything.count, everything.errors) == (12, 1)
    assert everything.percentile(0.5) == pytest.approx(0.01, rel=0.2)
    assert everything.percentile(0.99) == pytest.approx(1.0, rel=0.2)
    assert summary(store, clock, Op.CONNECT, Filter(service="one")).count == 11
    assert summary(store, clock, Op.CONNECT, Filter(peer="a.example:1")).count == 11
    assert summary(store, clock, Op.CONNECT, Filter(peer="b.example")).errors == 1
    assert summary(store, clock, Op.CONNECT, Filter(service="three")).count == 0
    with store.read() as db:
        edges = Queries(db, clock.now).edges(Filter(window=Window.last(900, clock.now))).rows
    assert [(e.service, e.peer, e.summary.count) for e in edges] == [
        ("one", "a.example:1", 10),
        ("one", "b.example:2", 1),
        ("two", "a.example:1", 1),
    ]


def test_stalls_answers_and_retransmits(store: Store, clock: Clock) -> None:
    made = Spans().add(
        "socket send 192.0.2.1:443",
        span=1,
        duration_ms=80,
        network__peer__address="192.0.2.1",
        network__peer__port=443,
        tracesock__send__stall__duration=0.06,
        tracesock__tcp__retransmits=3,
    )
    made.lookup("db.example", trace=2, dns__answers=["192.0.2.1", "2001:db8::1"])
    spans(store, made)
    stalls = summary(store, clock, Op.STALL)
    assert stalls.count == 1
    assert stalls.percentile(0.5) == pytest.approx(0.06, rel=0.2)
    with store.read() as db:
        queries = Queries(db, clock.now)
        span = queries.trace(trace_id(1).hex()).spans[0]  # type: ignore[union-attr]
        names = queries.dns(Filter(window=Window.last(900, clock.now)))
    assert (span.stall, span.retransmits, span.op) == (0.06, 3, Op.SEND)
    assert [(n.name, n.answers) for n in names] == [("db.example", ["192.0.2.1", "2001:db8::1"])]


def test_a_service_is_known_by_who_called_it(store: Store, clock: Clock) -> None:
    spans(
        store,
        Spans("front").add("GET", span=1, kind=3, server__address="10.0.0.9", server__port=80),
    )
    spans(store, Spans("back").add("GET /", span=2, parent=1, kind=2))
    clock.now += 3 * SECOND
    spans(store, Spans("other").add("x", trace=9))
    settle(store)
    with store.read() as db:
        edges = Queries(db, clock.now).edges(Filter()).rows
    assert [(e.service, e.peer, e.target) for e in edges] == [("front", "10.0.0.9:80", "back")]


def test_times_beyond_what_sqlite_holds(store: Store) -> None:
    made = Spans().connect("h.example", 1, span=1).connect("h.example", 1, span=2)
    first, second = made.request.resource_spans[0].scope_spans[0].spans
    first.start_time_unix_nano = first.end_time_unix_nano = (1 << 64) - 1
    second.start_time_unix_nano, second.end_time_unix_nano = 5, 2
    assert spans(store, made) == 0
    with store.read() as db:
        detail = Queries(db).trace(trace_id(1).hex())
    assert detail is not None
    assert [s.duration for s in detail.spans] == [0, 0]


def test_texts_over_the_cap_share_one(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "tracesock.dashboard.ingest.catalog._TERM_CAPS", dict.fromkeys(range(1, 6), 5)
    )
    made = Spans()
    for i in range(20):
        made.connect(f"host-{i}.example", 1, trace=i + 1)
    spans(store, made)
    with store.read() as db:
        queries = Queries(db)
        assert len(queries.peers()) == 6
        assert "(other)" in queries.peers()
        assert queries.intake()["texts_over_the_cap"] == 15


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 4), st.integers(0, 5), st.integers(0, 5), st.integers(0, 3)),
        max_size=12,
    )
)
def test_any_tree_of_spans_is_walked(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, int, int, int]]
) -> None:
    # Parents that are missing, that are the span itself, that form a cycle.
    made = Spans()
    wanted: dict[int, set[int]] = {}
    for trace, span, parent, start in rows:
        made.add("s", trace=trace, span=span + 1, parent=parent, start_ms=start)
        wanted.setdefault(trace, set()).add(span + 1)
    store = Store(tmp_path_factory.mktemp("tree") / "s.sqlite3")
    store.start()
    try:
        if rows:
            spans(store, made)
        with store.read() as db:
            for trace, ids in wanted.items():
                detail = Queries(db).trace(trace_id(trace).hex())
                assert detail is not None
                assert sorted(s.span_id for s in detail.spans) == [
                    span_id(i).hex() for i in sorted(ids)
                ]
                assert detail.spans[0].depth == 0
    finally:
        store.close()


# -- metrics -------------------------------------------------------------------------------------

BOUNDS = [0.01, 0.1, 1.0]


def test_cumulative_histograms_are_counted_once(store: Store, clock: Clock) -> None:
    first = Metrics().histogram(
        "dns.lookup.duration", BOUNDS, [1, 5, 0, 0], dns__question__name="a"
    )
    put(store, Signal.METRICS, first.body)
    second = Metrics().histogram(
        "dns.lookup.duration", BOUNDS, [1, 8, 2, 0], dns__question__name="a"
    )
    second.request.resource_metrics[0].scope_metrics[0].metrics[0].histogram.data_points[
        0
    ].start_time_unix_nano = first.start
    put(store, Signal.METRICS, second.body)
    found = summary(store, clock, Op.LOOKUP)
    assert found.count == pytest.approx(11, abs=0.01)
    # Restarted: what it counts now is new.
    third = Metrics().histogram(
        "dns.lookup.duration", BOUNDS, [2, 0, 0, 0], dns__question__name="a"
    )
    put(store, Signal.METRICS, third.body)
    assert summary(store, clock, Op.LOOKUP).count == pytest.approx(13, abs=0.01)


def test_delta_histograms_and_milliseconds(store: Store, clock: Clock) -> None:
    made = Metrics().histogram(
        "tracesock.connect.duration",
        [1.0, 10.0, 100.0],
        [0, 0, 4, 0],
        cumulative=False,
        unit="ms",
        server__address="h.example",
        error__type="timed_out",
    )
    put(store, Signal.METRICS, made.body)
    found = summary(store, clock, Op.CONNECT)
    assert found.errors == found.count == pytest.approx(4, abs=0.01)
    assert 0.01 < found.percentile(0.5) < 0.1


def test_a_metric_that_ran_before_the_dashboard_starts_at_zero(store: Store, clock: Clock) -> None:
    made = Metrics()
    made.start = made.now - 3600 * SECOND
    made.histogram("dns.lookup.duration", BOUNDS, [1000, 0, 0, 0])
    put(store, Signal.METRICS, made.body)
    assert summary(store, clock, Op.LOOKUP).count == 0
    more = Metrics()
    more.start = made.start
    more.histogram("dns.lookup.duration", BOUNDS, [1003, 0, 0, 0])
    put(store, Signal.METRICS, more.body)
    assert summary(store, clock, Op.LOOKUP).count == pytest.approx(3, abs=0.01)


def test_metrics_come_before_sampled_spans(store: Store, clock: Clock) -> None:
    spans(store, Spans().connect("h.example", 443, duration_ms=10))
    made = Metrics().histogram(
        "tracesock.connect.duration", BOUNDS, [0, 100, 0, 0], server__address="h.example"
    )
    put(store, Signal.METRICS, made.body)
    assert summary(store, clock, Op.CONNECT).count == pytest.approx(100, abs=0.01)
    with store.read() as db:
        queries = Queries(db, clock.now + SECOND)
        edges = queries.edges(Filter(window=Window.last(900, clock.now))).rows
        tiles = queries.tiles(Filter())
    # The metric names the host, the span its port: one edge.
    assert [(e.peer, round(e.summary.count)) for e in edges] == [("h.example:443", 100)]
    assert tiles.connect_source == "metrics"


def test_gauges_counters_and_what_is_no_number(store: Store, clock: Clock) -> None:
    made = (
        Metrics()
        .gauge("process.unix.file_descriptor.count", 41)
        .counter("tracesock.telemetry.dropped", 5, signal="traces")
        .gauge("broken", float("nan"))
        .histogram("odd", [float("nan"), 2.0], [1, 2, 3])
        .histogram("mismatch", [1.0], [1, 2, 3])
    )
    assert put(store, Signal.METRICS, made.body) == 0
    with store.read() as db:
        queries = Queries(db, clock.now)
        assert [g.value for g in queries.gauges("process.unix.file_descriptor.count")] == [41]
        assert queries.tiles(Filter()).dropped == 5
        assert queries.gauges("broken") == []


def test_metric_state_survives_a_restart(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "s.sqlite3"
    made = Metrics().histogram("dns.lookup.duration", BOUNDS, [7, 0, 0, 0])
    first = Store(path, clock=clock)
    first.start()
    put(first, Signal.METRICS, made.body)
    first.close()
    again = Metrics()
    again.start = made.start
    again.histogram("dns.lookup.duration", BOUNDS, [9, 0, 0, 0])
    second = Store(path, clock=clock)
    second.start()
    put(second, Signal.METRICS, again.body)
    assert summary(second, clock, Op.LOOKUP).count == pytest.approx(9, abs=0.01)
    second.close()


# -- log records ---------------------------------------------------------------------------------


def snapshots(store: Store, at: int, *records: dict[str, Any]) -> None:
    put(store, Signal.LOGS, log_request("tracesock.connections.snapshot", list(records), at=at))


def test_connections_come_age_and_go(store: Store, clock: Clock) -> None:
    start = clock.now
    for i in range(3):
        clock.now = start + i * 5 * SECOND
        records = [snapshot("a", tracesock__tcp__rtt=0.001 * (i + 1))]
        if i == 0:
            records.append(snapshot("b", network__peer__address="192.0.2.8"))
        snapshots(store, clock.now, *records)
    with store.read() as db:
        rows = {c.connection_id: c for c in Queries(db, clock.now + SECOND).connections(Filter())}
    assert rows["a"].live
    assert rows["a"].rtt_history == pytest.approx([0.001, 0.002, 0.003])
    assert rows["a"].age == pytest.approx(13.5, abs=0.01)
    assert (rows["a"].pid, rows["a"].peer, rows["a"].address) == (
        77,
        "api.example:443",
        "192.0.2.7:443",
    )
    assert (rows["b"].live, rows["b"].state) == (False, "gone")
    # A process that tells nothing any more has no open connections.
    with store.read() as db:
        later = Queries(db, clock.now + 60 * SECOND)
        assert [c.state for c in later.connections(Filter())] == ["gone", "gone"]
        assert later.tiles(Filter()).open == 0


def test_a_closed_connection_is_told_so(store: Store, clock: Clock) -> None:
    snapshots(store, clock.now, snapshot("a"), snapshot("b"))
    snapshots(store, clock.now + MS, snapshot("a", tracesock__connection__state="closed"))
    with store.read() as db:
        rows = {c.connection_id: c for c in Queries(db, clock.now + SECOND).connections(Filter())}
    assert (rows["a"].state, rows["a"].live) == ("closed", False)
    assert rows["b"].live


def test_snapshots_out_of_order_do_not_go_back(store: Store, clock: Clock) -> None:
    snapshots(store, clock.now, snapshot("a", tracesock__connection__sent=500))
    snapshots(store, clock.now - SECOND, snapshot("a", tracesock__connection__sent=100))
    with store.read() as db:
        assert Queries(db, clock.now).connections(Filter())[0].sent == 500


def test_connections_by_filter(store: Store, clock: Clock) -> None:
    snapshots(
        store,
        clock.now,
        snapshot("a"),
        snapshot("b", server__address="100%_sure.example", network__peer__port=80),
        snapshot("c", network__peer__address="2001:db8::1", server__address=""),
    )
    with store.read() as db:
        queries = Queries(db, clock.now + SECOND)

        def ids(filters: Filter | None = None, text: str = "") -> list[str]:
            found = queries.connections(filters or Filter(), text)
            return sorted(c.connection_id for c in found)

        assert ids(text="api.example") == ["a"]
        assert ids(text="100%_s") == ["b"]
        assert ids(text="%") == ["b"]
        assert ids(Filter(peer="api.example")) == ["a"]
        assert ids(Filter(peer="192.0.2.7:443")) == ["a"]
        assert ids(Filter(peer="[2001:db8::1]:443")) == ["c"]
        assert ids(Filter(peer="2001:db8::1")) == ["c"]
        assert ids(Filter(service="other")) == []


def test_records_without_what_they_need_are_rejected(store: Store) -> None:
    for event, values in (
        ("tracesock.connections.snapshot", {"tracesock.connection.state": "established"}),
        ("tracesock.audit.decision", {"tracesock.audit.action": "maybe"}),
        ("tracesock.leak", {"tracesock.connection.id": "x"}),
    ):
        assert put(store, Signal.LOGS, log_request(event, [values])) == 1


def test_wrong_types_of_attributes_are_not_reported(store: Store, clock: Clock) -> None:
    record = snapshot("a", network__peer__port="many", tracesock__tcp__rtt=float("nan"))
    record["tracesock.connection.sent"] = 10**18
    snapshots(store, clock.now, record)
    with store.read() as db:
        found = Queries(db, clock.now).connections(Filter())[0]
    assert (found.address, found.rtt, found.sent) == ("192.0.2.7", None, 10**18)


def test_a_whole_chain_is_intact(store: Store) -> None:
    put(
        store,
        Signal.LOGS,
        log_request("tracesock.audit.decision", [decision(i) for i in range(1, 6)]),
    )
    with store.read() as db:
        chain = Queries(db).chains()[0]
    assert chain.intact
    assert (chain.first, chain.last, chain.records) == (1, 5, 5)


@pytest.mark.parametrize(
    ("records", "missing", "broken", "repeated"),
    [
        ([decision(1), decision(2), decision(5)], 2, 0, 0),
        ([decision(1), decision(2, tracesock__audit__chain__previous="x"), decision(3)], 0, 1, 0),
        ([decision(1), decision(2), decision(2, tracesock__audit__chain__hash="y")], 0, 0, 1),
    ],
)
def test_faults_of_a_chain(
    store: Store, records: list[dict[str, Any]], missing: int, broken: int, repeated: int
) -> None:
    put(store, Signal.LOGS, log_request("tracesock.audit.decision", records))
    with store.read() as db:
        chain = Queries(db).chains()[0]
    assert not chain.intact
    assert (chain.missing, chain.broken, chain.repeated) == (missing, broken, repeated)
    assert chain.first_break in (2, 5)


def test_records_of_a_chain_may_arrive_in_any_order(store: Store) -> None:
    records = [decision(i) for i in (3, 1, 2, 5, 4)]
    put(store, Signal.LOGS, log_request("tracesock.audit.decision", records))
    with store.read() as db:
        assert Queries(db).chains()[0].intact


def test_records_that_are_no_decision_are_links_all_the_same(store: Store) -> None:
    put(store, Signal.LOGS, log_request("tracesock.audit.decision", [decision(1), decision(3)]))
    closed = {k: v for k, v in decision(2).items() if k != "tracesock.audit.action"}
    put(store, Signal.LOGS, log_request("tracesock.close", [closed]))
    with store.read() as db:
        queries = Queries(db)
        assert queries.chains()[0].intact
        assert queries.chains()[0].records == 3
        page = queries.audit(Filter())
    assert [d.sequence for d in page.rows] == [3, 1]
    assert page.counts == {"allow": 2}


def test_decisions_are_in_the_order_of_their_times(store: Store) -> None:
    now = time.time_ns()
    records = [decision(i, time=now + at * SECOND) for i, at in ((1, -5), (2, -1), (3, -3))]
    put(store, Signal.LOGS, log_request("tracesock.audit.decision", records))
    with store.read() as db:
        assert [d.sequence for d in Queries(db).audit(Filter()).rows] == [2, 3, 1]


def test_what_the_writer_reports_of_its_chain_counts(store: Store) -> None:
    record = decision(1, tracesock__audit__chain__state="write error")
    put(store, Signal.LOGS, log_request("tracesock.audit.decision", [record]))
    with store.read() as db:
        assert not Queries(db).chains()[0].intact


# -- retention -----------------------------------------------------------------------------------


def test_retention_is_read() -> None:
    assert Retention.parse("24h") == Retention(age=86400)
    assert Retention.parse("500MB") == Retention(size=500_000_000)
    assert Retention.parse("30m, 1.5 GiB") == Retention(1800, 1610612736)
    for wrong in ("soon", "24", "3x", "10s", "1MB", "", "7d,,2GB", "-1d"):
        with pytest.raises(ValueError, match=r"neither|keeps nothing|too small"):
            Retention.parse(wrong)


def test_what_is_too_old_goes(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracesock.dashboard.store._RETENTION_EVERY", 0.0)
    store = Store(tmp_path / "s.sqlite3", Retention(age=3600), clock=clock)
    store.start()
    spans(store, Spans().connect("old.example", 1, trace=1).lookup("old.example", trace=1))
    put(store, Signal.LOGS, log_request("tracesock.audit.decision", [decision(1)]))
    put(store, Signal.LOGS, log_request("note", [{"body": "x", "trace": 1}]))
    put(store, Signal.METRICS, Metrics().gauge("g", 1).body)
    settle(store)
    clock.now += 3700 * SECOND
    # The time that counts is the one of arrival: a span of last year that comes now is kept.
    late = Spans().add("late", trace=2, span=7)
    for span in late.request.resource_spans[0].scope_spans[0].spans:
        span.start_time_unix_nano -= 365 * 86400 * SECOND
        span.end_time_unix_nano -= 365 * 86400 * SECOND
    spans(store, late)
    settle(store)
    store._prune_due = 0

    def gone() -> bool:
        with store.read() as db:
            return Queries(db).peers() == []

    assert wait_until(gone)
    with store.read() as db:
        queries = Queries(db, clock.now)
        assert [r.name for r in queries.traces(Filter(), TraceQuery()).rows] == ["late"]
        for table in ("audit", "logs", "metric_points", "metric_series", "attempts", "dns_answers"):
            assert db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] == 0, table
        left = db.execute("SELECT count(*) FROM spans").fetchone()[0]
        terms = db.execute("SELECT count(*) FROM trace_terms").fetchone()[0]
    assert left == 1
    assert terms == 2  # its name and its service
    # A trace whose number was deleted can come again.
    spans(store, Spans().add("again", trace=1, span=1))
    with store.read() as db:
        assert Queries(db).trace(trace_id(1).hex()) is not None
    store.close()


def test_the_file_stays_within_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracesock.dashboard.store._RETENTION_EVERY", 0.0)
    store = Store(tmp_path / "s.sqlite3", Retention(size=10_000_000))
    store.start()
    number = 0
    for _ in range(12):
        made = Spans()
        for _ in range(400):
            number += 1
            made.add("wide", trace=number, text="x" * 4000)
        spans(store, made)
    assert wait_until(lambda: store.size() <= 10_000_000)
    assert wait_until(lambda: pages(store) * 8192 < 12_000_000)
    with store.read() as db:
        queries = Queries(db)
        rows = queries.traces(Filter(), TraceQuery(limit=1)).rows
        # The newest are the ones that are left.
        assert rows[0].trace_id == trace_id(number).hex()
        assert queries.intake()["traces_deleted_for_size"] > 0
    store.close()
    assert (tmp_path / "s.sqlite3").stat().st_size < 12_000_000


def pages(store: Store) -> int:
    with store.read() as db:
        return int(db.execute("PRAGMA page_count").fetchone()[0])


def test_gone_connections_are_forgotten(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracesock.dashboard.store._RETENTION_EVERY", 0.0)
    snapshots(store, clock.now, snapshot("a"))
    clock.now += 16 * 60 * SECOND

    def forgotten() -> bool:
        with store.read() as db:
            return Queries(db, clock.now).connections(Filter()) == []

    assert wait_until(forgotten)


# -- failures ------------------------------------------------------------------------------------


def test_a_failed_transaction_stores_nothing_and_says_so(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    spans(store, Spans().add("before", trace=1))

    def full(settle: bool = True) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(store._ingest, "flush", full)
        with pytest.raises(Refused, match="disk is full") as refused:
            spans(store, Spans().connect("h.example", 1, trace=2))
    assert (refused.value.status, refused.value.retry_after) == (503, 2)
    spans(store, Spans().connect("h.example", 1, trace=2, span=9))
    with store.read() as db:
        queries = Queries(db)
        assert len(queries.traces(Filter(), TraceQuery()).rows) == 2
        assert queries.intake()["accepted_traces"] == 2
    assert store._received == store._stored


def test_one_writer_for_a_file(tmp_path: Path) -> None:
    first = Store(tmp_path / "s.sqlite3")
    with pytest.raises(StoreError, match="another dashboard is using"):
        Store(tmp_path / "s.sqlite3")
    first.close()
    Store(tmp_path / "s.sqlite3").close()


def test_files_that_are_not_ours_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite3"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE mine (x)")
    with pytest.raises(StoreError, match="database of another program"):
        Store(path)
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT count(*) FROM mine").fetchone() == (0,)
    text = tmp_path / "notes.txt"
    text.write_text("not a database, but long enough to look at " * 100)
    with pytest.raises(StoreError, match=r"notes\.txt: is not a usable database"):
        Store(text)
    assert text.read_text().startswith("not a database")
    with pytest.raises(StoreError, match="cannot be opened"):
        Store(tmp_path)


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    Store(tmp_path / "s.sqlite3").close()
    with sqlite3.connect(tmp_path / "s.sqlite3") as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="newer tracesock"):
        Store(tmp_path / "s.sqlite3")


def test_a_file_of_the_first_schema_is_brought_up_to_date(tmp_path: Path, clock: Clock) -> None:
    file = tmp_path / "s.sqlite3"
    store = Store(file, clock=clock)
    store.start()
    spans(store, Spans().connect("db.example", 5432).connect("db.example", 5432, duration_ms=90))
    settle(store)
    store.close()
    with sqlite3.connect(file) as db:
        db.execute("UPDATE latency SET buckets = '[' || substr(buckets, 2) || ']'")
        db.execute("ALTER TABLE spans DROP COLUMN name_id")
        db.execute("PRAGMA user_version = 1")
    store = Store(file, clock=clock)
    store.start()
    spans(store, Spans().connect("db.example", 5432))
    for filters in (Filter(), Filter(peer="db.example:5432")):
        found = summary(store, clock, Op.CONNECT, filters)
        assert found.count == 3
        assert 0.088 < found.percentile(0.99) < 0.106
    store.close()
    with sqlite3.connect(file) as db:
        assert db.execute("PRAGMA user_version").fetchone()[0] == SCHEMA_VERSION
        names = "SELECT t.text FROM spans s JOIN terms t ON t.id = s.name_id"
        assert db.execute(names).fetchall() == [("socket connect 192.0.2.1:5432",)] * 3


def test_the_files_are_private(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        store = Store(tmp_path / "deep" / "s.sqlite3")
        store.start()
        spans(store, Spans().add("a"))
        for file in (tmp_path / "deep").iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
        assert stat.S_IMODE((tmp_path / "deep").stat().st_mode) == 0o700
        store.close()
    finally:
        os.umask(before)


def test_nothing_is_taken_after_closing(tmp_path: Path) -> None:
    store = Store(tmp_path / "s.sqlite3")
    store.start()
    store.close()
    store.close()
    with pytest.raises(Refused) as refused:
        spans(store, Spans().add("late"))
    assert refused.value.status == 503


def test_reading_too_long_is_stopped(store: Store) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    with (
        pytest.raises(sqlite3.OperationalError, match="interrupted"),
        store.read(limit_seconds=0.2) as db,
    ):
        db.execute(endless).fetchall()
    with store.read() as db:
        assert db.execute("SELECT 1").fetchone() == (1,)
        with pytest.raises(sqlite3.OperationalError, match=r"readonly|read-only"):
            db.execute("DELETE FROM spans")


# -- a killed process ----------------------------------------------------------------------------

_CHILD = """
import sys
from pathlib import Path
from tracesock.dashboard.server import Dashboard, Settings
served = Dashboard(Settings(Path(sys.argv[1]), port=0, otlp_port=None))
served.run(lambda: print(served.port, flush=True))
"""


def begin(path: Path) -> tuple[subprocess.Popen[str], int]:
    process = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


@pytest.mark.parametrize("delay", [0.05, 0.3, 0.8])
def test_killed_in_the_middle_of_ingest(tmp_path: Path, delay: float) -> None:
    path = tmp_path / "s.sqlite3"
    process, port = begin(path)
    acknowledged: list[int] = []
    sent: list[int] = []
    lock = threading.Lock()
    per_request = 50

    def send(first: int) -> None:
        number = first
        while True:
            made = Spans()
            for i in range(per_request):
                made.connect("h.example", 1, trace=number, span=number * 100 + i + 1)
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/v1/traces",
                made.body,
                {"content-type": PROTOBUF},
            )
            with lock:
                sent.append(number)
            try:
                with urllib.request.urlopen(request, timeout=20):
                    pass
            except OSError:
                return
            with lock:
                acknowledged.append(number)
            number += 1

    threads = [threading.Thread(target=send, args=(1 + i * 100_000,)) for i in range(4)]
    for thread in threads:
        thread.start()
    assert wait_until(lambda: acknowledged)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    for thread in threads:
        thread.join()

    store = Store(path)
    with store.read() as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        stored = {
            int.from_bytes(row[0], "big"): row[1]
            for row in db.execute(
                "SELECT t.trace_id, count(*) FROM traces t JOIN spans s ON s.trace_no = t.no"
                " GROUP BY t.no"
            )
        }
    # Nothing that was acknowledged is missing, and no request is there in part.
    assert set(acknowledged) <= set(stored)
    assert set(stored.values()) == {per_request}
    # What is missing is at most what was under way, and the store says how much of it had come.
    missing = len(set(sent) - set(stored)) * per_request
    assert not store.recovery.clean or not missing
    assert store.recovery.spans <= missing
    assert store.recovery.points == store.recovery.logs == 0
    assert re.search(r"killed", store.recovery.describe()) or store.recovery.clean
    # Histograms count what the spans table holds, no more and no less.
    store.start()
    settle(store)
    with store.read() as db:
        queries = Queries(db)
        counted = queries.heatmap(Filter(), Op.CONNECT).summary.count
    assert counted == sum(stored.values())
    store.close()
    after = Store(path)
    assert after.recovery.clean
    after.close()


def test_what_was_under_way_is_told(tmp_path: Path) -> None:
    """Received, not yet committed, killed: the number is exact."""
    path = tmp_path / "s.sqlite3"
    code = f"""
import os, sys
sys.path[:0] = {sys.path!r}
from tracesock.dashboard.store import Store
from tracesock.dashboard import otlp
store = Store({str(path)!r})
store.start()
def put(body):
    request = otlp.decode(otlp.Signal.TRACES, otlp.PROTOBUF, body)
    records = otlp.count_records(otlp.Signal.TRACES, request)
    return store.submit(otlp.Signal.TRACES, request, records, body)
put({Spans().add("a").add("b").body!r}).result()
flush = store._ingest.flush
def dies(settle=True):
    flush(settle)
    os.kill(os.getpid(), 9)
store._ingest.flush = dies
put({Spans().add("c", trace=2).add("d", trace=2).add("e", trace=2).body!r}).result()
"""
    ended = subprocess.run([sys.executable, "-c", code], check=False)
    assert ended.returncode == -signal.SIGKILL
    store = Store(path)
    assert (store.recovery.clean, store.recovery.spans, store.recovery.lost) == (False, 3, 3)
    assert "at most 3 spans" in store.recovery.describe()
    with store.read() as db:
        queries = Queries(db)
        assert len(queries.traces(Filter(), TraceQuery()).rows) == 1
        assert queries.meta()["lost_total_traces"] == 3
    store.close()


def test_limits_are_kept_by_the_store(tmp_path: Path) -> None:
    store = Store(tmp_path / "s.sqlite3", limits=Limits(attributes=3, value=100))
    store.start()
    spans(store, Spans().add("a", span=1, one="1", two="2", three="x" * 500, four="4"))
    with store.read() as db:
        span = Queries(db).trace(trace_id(1).hex()).spans[0]  # type: ignore[union-attr]
    assert set(span.attributes) == {"one", "two", "three"}
    assert len(span.attributes["three"]) == 100
    assert span.dropped_attributes == 1
    store.close()
