"""OTLP messages into rows. Used by the store's writer thread only, inside its transaction."""

from __future__ import annotations

import hashlib
import json
import math
import sqlite3
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any, Final

from tracesock.dashboard import histogram, names
from tracesock.dashboard.classify import (
    KIND_SERVER,
    STATUS_ERROR,
    Op,
    host_port,
    op_of,
    peer_of,
    plain,
)
from tracesock.dashboard.otlp import Limits
from tracesock.dashboard.schema import (
    COARSE,
    FINE,
    SOURCE_METRIC,
    SOURCE_SPAN,
    TERM_DNS,
    TERM_ERROR,
    TERM_NAME,
    TERM_PEER,
    TERM_SERVICE,
)

# SQLite's integers are signed; OTLP's times are not.
_MAX_NS: Final = (1 << 63) - 1
_NS: Final = 1_000_000_000
_FINE_NS: Final = FINE * _NS
_COARSE_NS: Final = COARSE * _NS

# How many distinct texts of a kind are kept apart; what comes after them shares OTHER.
_TERM_CAPS: Final = {
    TERM_SERVICE: 2_000,
    TERM_NAME: 50_000,
    TERM_PEER: 20_000,
    TERM_ERROR: 2_000,
    TERM_DNS: 20_000,
}
OTHER: Final = "(other)"
_TERM_LENGTH: Final = 512
_SERIES_CAP: Final = 50_000
_METRIC_SERIES_CAP: Final = 10_000
_BUCKETS_CAP: Final = 1024
_TRACE_CACHE: Final = 20_000
_ANSWER_CACHE: Final = 20_000
# Points of a connection's round-trip history: 40 texts of 9 characters.
HISTORY_POINTS: Final = 40
HISTORY_WIDTH: Final = 9

# What a newer snapshot of a connection replaces
_SNAPSHOT_COLUMNS: Final = (
    "service_id",
    "pid",
    "peer",
    "address",
    "host",
    "local",
    "direction",
    "transport",
    "state",
    "descriptor",
    "opened_ns",
    "rtt",
    "sent",
    "received",
    "retransmits",
    "queued",
    "trace_id",
    "span_id",
    "round_ns",
    "arrived_ns",
    "interval_s",
)
# Which spans make a series of durations
_TIMED: Final = frozenset((Op.LOOKUP, Op.CONNECT, Op.SETUP, Op.TLS, Op.SEND, Op.CLIENT, Op.SERVER))
_DURATION_METRICS: Final = {
    names.METRIC_LOOKUP: Op.LOOKUP,
    names.METRIC_CONNECT: Op.CONNECT,
    names.METRIC_SEND: Op.SEND,
    names.METRIC_STALL: Op.STALL,
    names.METRIC_RTT: Op.RTT,
}
_UNIT_SECONDS: Final = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_TEXT_KEYS: Final = frozenset(
    (
        names.ERROR_TYPE,
        names.DNS_QUESTION_NAME,
        names.NETWORK_PEER_ADDRESS,
        names.SERVER_ADDRESS,
        names.CLIENT_ADDRESS,
        names.PEER_SERVICE,
    )
)
_NUMBER_KEYS: Final = frozenset((names.NETWORK_PEER_PORT, names.SERVER_PORT))
# A cumulative series that began this long before its first point was running before the dashboard
# was: its first value is a starting point, not an increase.
_FRESH_NS: Final = 90 * _NS


class _Trace:
    """The running summary of one trace."""

    __slots__ = (
        "arrived",
        "changed",
        "end",
        "errors",
        "has_root",
        "no",
        "root_name",
        "root_service",
        "root_start",
        "spans",
        "start",
        "terms",
    )

    def __init__(
        self,
        no: int,
        start: int,
        end: int,
        spans: int,
        errors: int,
        root_name: int,
        root_service: int,
        has_root: int,
        root_start: int,
        arrived: int,
    ) -> None:
        self.no = no
        self.start = start
        self.end = end
        self.spans = spans
        self.errors = errors
        self.root_name = root_name
        self.root_service = root_service
        self.has_root = has_root
        self.root_start = root_start
        self.arrived = arrived
        self.terms: set[int] = set()
        self.changed = False


class Ingest:
    """Turns requests into rows of one connection.

    `traces`, `metrics` and `logs` gather rows and count them; `flush` writes what was gathered.
    After a rollback call `reset`: the caches may name rows that do not exist.
    """

    def __init__(
        self, connection: sqlite3.Connection, limits: Limits, clock: Callable[[], int]
    ) -> None:
        self._db = connection
        self._limits = limits
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        """Forgets every cache and all gathered rows."""
        db = self._db
        self._terms: dict[tuple[int, str], int] = {}
        self._term_counts: dict[int, int] = dict(
            db.execute("SELECT kind, count(*) FROM terms GROUP BY kind")
        )
        self._resources: dict[bytes, tuple[int, int]] = {}
        self._scopes: dict[bytes, int] = {}
        self._series: dict[tuple[int, int, int, int, int], int] = {}
        self._series_count = self._count("series")
        self._metric_series: dict[bytes, tuple[int, list[Any]]] = {}
        self._metric_series_count = self._count("metric_series")
        self._traces: OrderedDict[bytes, _Trace] = OrderedDict()
        self._next_trace = 1 + (db.execute("SELECT max(no) FROM traces").fetchone()[0] or 0)
        self._answers: set[tuple[int, str]] = set()
        self._callers: deque[tuple[int, bytes, int, int]] = deque(maxlen=10_000)
        self._clear()

    def _count(self, table: str) -> int:
        return int(self._db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])

    def _clear(self) -> None:
        self._span_rows: list[tuple[Any, ...]] = []
        self._term_rows: list[tuple[int, int]] = []
        self._attempt_rows: list[tuple[Any, ...]] = []
        self._changed: list[_Trace] = []
        self._latency: dict[tuple[int, int, int, int], float] = {}
        self._answer_rows: list[tuple[int, str, int]] = []
        self._point_rows: list[tuple[Any, ...]] = []
        self._state_rows: list[tuple[Any, ...]] = []
        self._connection_rows: list[tuple[Any, ...]] = []
        self._audit_rows: list[tuple[Any, ...]] = []
        self._leak_rows: list[tuple[Any, ...]] = []
        self._log_rows: list[tuple[Any, ...]] = []
        self.counts: dict[str, int] = {}

    def forget(self, up_to: int) -> None:
        """Forgets the traces numbered up to `up_to`: retention is about to delete them."""
        for trace_id in [t for t, trace in self._traces.items() if trace.no <= up_to]:
            del self._traces[trace_id]

    def count(self, reason: str, n: int = 1) -> None:
        """Adds to a figure of the intake table."""
        self.counts[reason] = self.counts.get(reason, 0) + n

    # -- texts, resources, scopes, series ------------------------------------------------------

    def _term(self, kind: int, text: str) -> int:
        if len(text) > _TERM_LENGTH:
            text = text[:_TERM_LENGTH]
        found = self._terms.get((kind, text))
        return found if found is not None else self._new_term(kind, text)

    def _new_term(self, kind: int, text: str) -> int:
        row = self._db.execute(
            "SELECT id FROM terms WHERE kind = ? AND text = ?", (kind, text)
        ).fetchone()
        if row is None and text != OTHER and self._term_counts.get(kind, 0) >= _TERM_CAPS[kind]:
            self.count("texts_over_the_cap")
            return self._term(kind, OTHER)
        if row is None:
            cursor = self._db.execute("INSERT INTO terms (kind, text) VALUES (?, ?)", (kind, text))
            identity = int(cursor.lastrowid or 0)
            self._term_counts[kind] = self._term_counts.get(kind, 0) + 1
        else:
            identity = int(row[0])
        self._terms[kind, text] = identity
        return identity

    def _resource(self, resource: Any) -> tuple[int, int]:
        """The numbers of a resource and of its service name."""
        body = resource.SerializeToString(deterministic=True)
        digest = hashlib.blake2b(body, digest_size=16).digest()
        found = self._resources.get(digest)
        if found is not None:
            return found
        row = self._db.execute(
            "SELECT id, service_id FROM resources WHERE digest = ?", (digest,)
        ).fetchone()
        if row is None:
            attributes = {kv.key: plain(kv.value) for kv in resource.attributes}
            service = self._term(
                TERM_SERVICE, str(attributes.get(names.SERVICE_NAME) or "unknown_service")
            )
            pid = attributes.get(names.PROCESS_PID)
            cursor = self._db.execute(
                "INSERT INTO resources (digest, service_id, instance, pid, body)"
                " VALUES (?, ?, ?, ?, ?)",
                (
                    digest,
                    service,
                    str(attributes.get(names.SERVICE_INSTANCE_ID) or ""),
                    pid if isinstance(pid, int) else None,
                    body,
                ),
            )
            row = (int(cursor.lastrowid or 0), service)
        if len(self._resources) > 10_000:
            self._resources.clear()
        self._resources[digest] = row
        return int(row[0]), int(row[1])

    def _scope(self, scope: Any, schema_url: str) -> int:
        body = scope.SerializeToString(deterministic=True)
        digest = hashlib.blake2b(body + b"\0" + schema_url.encode(), digest_size=16).digest()
        found = self._scopes.get(digest)
        if found is not None:
            return found
        row = self._db.execute("SELECT id FROM scopes WHERE digest = ?", (digest,)).fetchone()
        if row is None:
            cursor = self._db.execute(
                "INSERT INTO scopes (digest, name, version, schema_url, body)"
                " VALUES (?, ?, ?, ?, ?)",
                (digest, scope.name, scope.version, schema_url, body),
            )
            row = (cursor.lastrowid,)
        if len(self._scopes) > 10_000:
            self._scopes.clear()
        self._scopes[digest] = int(row[0])
        return int(row[0])

    def _series_id(self, op: int, service: int, peer: int, error: int, source: int) -> int:
        key = (op, service, peer, error, source)
        found = self._series.get(key)
        if found is not None:
            return found
        query = (
            "SELECT id FROM series WHERE op = ? AND service_id = ? AND peer_id = ?"
            " AND error_id = ? AND source = ?"
        )
        row = self._db.execute(query, key).fetchone()
        if row is None and self._series_count >= _SERIES_CAP and peer:
            self.count("series_over_the_cap")
            return self._series_id(op, service, 0, error, source)
        if row is None:
            cursor = self._db.execute(
                "INSERT INTO series (op, service_id, peer_id, error_id, source)"
                " VALUES (?, ?, ?, ?, ?)",
                key,
            )
            self._series_count += 1
            row = (cursor.lastrowid,)
        self._series[key] = int(row[0])
        return int(row[0])

    def _observe(self, time_ns: int, series: int, bucket: int, n: float = 1.0) -> None:
        latency = self._latency
        fine = (FINE, time_ns // _FINE_NS, series, bucket)
        latency[fine] = latency.get(fine, 0.0) + n
        coarse = (COARSE, time_ns // _COARSE_NS, series, bucket)
        latency[coarse] = latency.get(coarse, 0.0) + n

    # -- traces ----------------------------------------------------------------------------------

    def traces(self, request: Any) -> int:
        """Gathers the spans of a request; returns how many were rejected (no valid id)."""
        rejected = 0
        arrived = self._clock() // _NS
        limits = self._limits
        for resource_spans in request.resource_spans:
            resource, service = self._resource(resource_spans.resource)
            for scope_spans in resource_spans.scope_spans:
                scope = self._scope(scope_spans.scope, scope_spans.schema_url)
                for span in scope_spans.spans:
                    trace_id, span_id = span.trace_id, span.span_id
                    if len(trace_id) != 16 or len(span_id) != 8 or not any(trace_id):
                        rejected += 1
                        continue
                    if len(span.attributes) > limits.attributes:
                        cut = len(span.attributes) - limits.attributes
                        del span.attributes[limits.attributes :]
                        span.dropped_attributes_count = min(
                            0xFFFFFFFF, span.dropped_attributes_count + cut
                        )
                        self.count("attributes_cut", cut)
                    self._span(span, trace_id, span_id, resource, service, scope, arrived)
        return rejected

    def _span(
        self,
        span: Any,
        trace_id: bytes,
        span_id: bytes,
        resource: int,
        service: int,
        scope: int,
        arrived: int,
    ) -> None:
        name = span.name
        kind = span.kind
        parent = span.parent_span_id
        op = op_of(name, kind)
        text: dict[str, str] = {}
        number: dict[str, int] = {}
        answers = stall = None
        for kv in span.attributes:
            key = kv.key
            if key in _TEXT_KEYS:
                text[key] = kv.value.string_value
            elif key in _NUMBER_KEYS:
                number[key] = kv.value.int_value
            elif key == names.DNS_ANSWERS:
                answers = kv.value.array_value.values
            elif key == names.SEND_STALL:
                stall = kv.value.double_value or float(kv.value.int_value)
        start = min(span.start_time_unix_nano, _MAX_NS)
        end = max(start, min(span.end_time_unix_nano, _MAX_NS))

        error = 0
        error_type = text.get(names.ERROR_TYPE)
        if error_type:
            error = self._term(TERM_ERROR, error_type)
        elif span.status.code == STATUS_ERROR:
            error = self._term(TERM_ERROR, _exception_type(span) or "error")
        peer_text = peer_of(op, text, number)
        peer_kind = TERM_DNS if op is Op.LOOKUP else TERM_PEER
        peer = self._term(peer_kind, peer_text) if peer_text else 0
        name_term = self._term(TERM_NAME, name)

        trace = self._traces.get(trace_id)
        if trace is None:
            trace = self._load_trace(trace_id, start, end, arrived)
        if not trace.changed:
            trace.changed = True
            self._changed.append(trace)
        trace.spans += 1
        if start < trace.start:
            trace.start = start
        if end > trace.end:
            trace.end = end
        if error:
            trace.errors += 1
        if not parent:
            if not trace.has_root or start <= trace.root_start:
                trace.has_root, trace.root_start = 1, start
                trace.root_name, trace.root_service = name_term, service
        elif not trace.has_root and (not trace.root_name or start < trace.root_start):
            trace.root_start = start
            trace.root_name, trace.root_service = name_term, service
        seen = trace.terms
        no = trace.no
        for term in (name_term, service, peer, error):
            if term and term not in seen:
                seen.add(term)
                self._term_rows.append((term, no))

        body = span.SerializeToString()
        if len(body) > self._limits.value:
            body = self._cut(span)
        self._span_rows.append(
            (no, span_id, parent, int(op), resource, scope, start, end, error, peer, body)
        )
        if op in _TIMED:
            series = self._series_id(int(op), service, peer, error, SOURCE_SPAN)
            self._observe(end, series, histogram.bucket_of_ns(end - start))
            if op is Op.CONNECT or (error and op in (Op.LOOKUP, Op.TLS, Op.SETUP)):
                self._attempt_rows.append((no, span_id, int(op), service, peer, error, start, end))
        if stall:
            series = self._series_id(int(Op.STALL), service, peer, 0, SOURCE_SPAN)
            self._observe(end, series, histogram.bucket_of(stall))
        if answers and peer:
            self._remember_answers(peer, answers, arrived)
        if kind == KIND_SERVER and parent:
            self._callers.append((no, parent, service, arrived + 2))

    def _load_trace(self, trace_id: bytes, start: int, end: int, arrived: int) -> _Trace:
        row = self._db.execute(
            "SELECT no, start_ns, end_ns, spans, errors, root_name, root_service, has_root,"
            " root_start, arrived_s FROM traces WHERE trace_id = ?",
            (trace_id,),
        ).fetchone()
        if row is not None:
            trace = _Trace(*row)
        else:
            trace = _Trace(self._next_trace, start, end, 0, 0, 0, 0, 0, start, arrived)
            self._next_trace += 1
            # Inserted at once: what else comes in this batch finds it, and the number is taken.
            self._db.execute(
                "INSERT INTO traces VALUES (?, ?, ?, ?, 0, 0, 0, 0, 0, ?, ?)",
                (trace.no, trace_id, start, end, start, arrived),
            )
        self._traces[trace_id] = trace
        return trace

    def _cut(self, span: Any) -> bytes:
        """The span with over-long texts cut; links and events bounded as attributes are."""
        limit = self._limits.value
        cut = _cut_values(span.attributes, limit)
        for repeated in (span.events, span.links):
            if len(repeated) > self._limits.attributes:
                cut += len(repeated) - self._limits.attributes
                del repeated[self._limits.attributes :]
            for item in repeated:
                if len(item.attributes) > self._limits.attributes:
                    cut += len(item.attributes) - self._limits.attributes
                    del item.attributes[self._limits.attributes :]
                cut += _cut_values(item.attributes, limit)
        if len(span.name) > limit:
            span.name = span.name[:limit]
            cut += 1
        if len(span.trace_state) > limit:
            span.trace_state = ""
            cut += 1
        if len(span.status.message) > limit:
            span.status.message = span.status.message[:limit]
            cut += 1
        self.count("attributes_cut", cut)
        return bytes(span.SerializeToString())

    def _remember_answers(self, name: int, answers: Any, arrived: int) -> None:
        for value in answers[:16]:
            answer = value.string_value[:128]
            # One write a minute keeps `seen_s` near enough.
            key = (name, f"{arrived // 60}:{answer}")
            if answer and key not in self._answers:
                if len(self._answers) > _ANSWER_CACHE:
                    self._answers.clear()
                self._answers.add(key)
                self._answer_rows.append((name, answer, arrived))

    # -- metrics ---------------------------------------------------------------------------------

    def metrics(self, request: Any) -> int:
        """Gathers the data points of a request; returns how many were rejected."""
        rejected = 0
        for resource_metrics in request.resource_metrics:
            resource, service = self._resource(resource_metrics.resource)
            for scope_metrics in resource_metrics.scope_metrics:
                for metric in scope_metrics.metrics:
                    kind = metric.WhichOneof("data")
                    if kind is None:
                        continue
                    data = getattr(metric, kind)
                    for point in data.data_points:
                        if len(point.attributes) > self._limits.attributes:
                            rejected += 1
                            continue
                        if not self._point(metric, kind, data, point, resource, service):
                            rejected += 1
        return rejected

    def _point(
        self, metric: Any, kind: str, data: Any, point: Any, resource: int, service: int
    ) -> bool:
        if point.flags & 1:  # DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK
            return True
        if _bucket_count(kind, point) > _BUCKETS_CAP:
            return False
        attributes = {kv.key: plain(kv.value) for kv in point.attributes}
        monotonic = kind == "sum" and data.is_monotonic
        stored_kind = (
            "counter" if monotonic else "gauge" if kind in ("sum", "gauge") else "histogram"
        )
        series = self._metric(metric, stored_kind, attributes, resource, service)
        if series is None:
            return False
        identity, state = series
        time_ns = min(point.time_unix_nano, _MAX_NS)
        arrived = self._clock() // _NS
        cumulative = getattr(data, "aggregation_temporality", 0) == 2
        slot = time_ns // _FINE_NS
        if kind in ("gauge", "sum"):
            which = point.WhichOneof("value")
            value = float(getattr(point, which)) if which else 0.0
            if value != value:  # NaN: SQLite has no such value
                return True
            if monotonic:
                increase = self._increase(state, point, [value], cumulative)[0]
                self._point_rows.append((identity, slot, increase, 1.0, arrived))
            else:
                if kind == "sum" and not cumulative:
                    value += state[1][0] if state else 0.0
                state[:] = [point.start_time_unix_nano, [value]]
                self._point_rows.append((identity, slot, value, 0.0, arrived))
        elif kind == "summary":
            total = _number(point.sum)
            state[:] = [0, [total]]
            self._point_rows.append((identity, slot, total, 0.0, arrived))
        else:
            self._histogram_point(
                metric, kind, point, identity, state, cumulative, service, attributes, arrived
            )
        self._state_rows.append(
            (json.dumps(state, separators=(",", ":")), time_ns, arrived, identity)
        )
        return True

    def _histogram_point(
        self,
        metric: Any,
        kind: str,
        point: Any,
        identity: int,
        state: list[Any],
        cumulative: bool,
        service: int,
        attributes: dict[str, Any],
        arrived: int,
    ) -> None:
        unit = _UNIT_SECONDS.get(metric.unit, 1.0)
        if kind == "histogram":
            counts = list(point.bucket_counts) or [point.count]
            bounds = list(point.explicit_bounds)
            if len(counts) != len(bounds) + 1 or not all(map(math.isfinite, bounds)):
                counts, bounds = [point.count], []
            buckets = histogram.spread(bounds, counts, unit)
        else:
            buckets = histogram.spread_exponential(
                max(-10, min(20, point.scale)),
                point.zero_count,
                point.positive.offset,
                point.positive.bucket_counts,
                unit,
            )
        values = [float(point.count), _number(point.sum)]
        flat = values + [buckets.get(b, 0.0) for b in range(histogram.OVERFLOW + 1)]
        increase = self._increase(state, point, flat, cumulative)
        time_ns = min(point.time_unix_nano, _MAX_NS)
        if increase[0] <= 0:
            return
        self._point_rows.append((identity, time_ns // _FINE_NS, increase[1], increase[0], arrived))
        op = _DURATION_METRICS.get(metric.name)
        if op is None:
            return
        error_type = attributes.get(names.ERROR_TYPE)
        error = self._term(TERM_ERROR, str(error_type)) if error_type else 0
        peer = 0
        if op is Op.LOOKUP:
            question = attributes.get(names.DNS_QUESTION_NAME)
            peer = self._term(TERM_DNS, str(question)) if question else 0
        else:
            server = attributes.get(names.SERVER_ADDRESS)
            peer = self._term(TERM_PEER, str(server)) if server else 0
        series = self._series_id(int(op), service, peer, error, SOURCE_METRIC)
        for bucket, n in enumerate(increase[2:]):
            if n > 0:
                self._observe(time_ns, series, bucket, n)

    def _increase(
        self, state: list[Any], point: Any, values: list[float], cumulative: bool
    ) -> list[float]:
        """What was added since the series' last point; `state` becomes [start, values]."""
        start, time_ns = point.start_time_unix_nano, point.time_unix_nano
        if not cumulative:
            total = values
            if state and len(state[1]) == len(values):
                total = [a + b for a, b in zip(state[1], values, strict=True)]
            state[:] = [start, total]
            return values
        if not state:
            known = time_ns - start <= _FRESH_NS
            increase = values if known else [0.0] * len(values)
        else:
            last = state[1]
            if start != state[0] or len(last) != len(values) or values[0] < last[0]:
                increase = values  # restarted
            else:
                increase = [max(0.0, b - a) for a, b in zip(last, values, strict=True)]
        state[:] = [start, values]
        return increase

    def _metric(
        self, metric: Any, kind: str, attributes: dict[str, Any], resource: int, service: int
    ) -> tuple[int, list[Any]] | None:
        text = json.dumps(attributes, sort_keys=True, ensure_ascii=False)
        if len(text) > self._limits.value:
            return None
        key = f"{resource}\0{metric.name}\0{kind}\0{text}".encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(key, digest_size=16).digest()
        found = self._metric_series.get(digest)
        if found is not None:
            return found
        row = self._db.execute(
            "SELECT id, state FROM metric_series WHERE digest = ?", (digest,)
        ).fetchone()
        if row is None:
            if self._metric_series_count >= _METRIC_SERIES_CAP:
                self.count("metric_series_over_the_cap")
                return None
            cursor = self._db.execute(
                "INSERT INTO metric_series (digest, resource_id, service_id, name, kind, unit,"
                " attributes, state, seen_ns, arrived_s) VALUES (?, ?, ?, ?, ?, ?, ?, '[]', 0, 0)",
                (
                    digest,
                    resource,
                    service,
                    metric.name[:_TERM_LENGTH],
                    kind,
                    metric.unit[:64],
                    text,
                ),
            )
            self._metric_series_count += 1
            row = (cursor.lastrowid, "[]")
        entry = (int(row[0]), json.loads(row[1]))
        self._metric_series[digest] = entry
        return entry

    # -- logs ------------------------------------------------------------------------------------

    def logs(self, request: Any) -> int:
        """Gathers the log records of a request; returns how many were rejected."""
        rejected = 0
        arrived_ns = self._clock()
        for resource_logs in request.resource_logs:
            resource, service = self._resource(resource_logs.resource)
            for scope_logs in resource_logs.scope_logs:
                scope = self._scope(scope_logs.scope, scope_logs.schema_url)
                for record in scope_logs.log_records:
                    if len(record.attributes) > self._limits.attributes:
                        cut = len(record.attributes) - self._limits.attributes
                        del record.attributes[self._limits.attributes :]
                        self.count("attributes_cut", cut)
                    if len(record.trace_id) not in (0, 16) or len(record.span_id) not in (0, 8):
                        rejected += 1
                        continue
                    attributes = {kv.key: plain(kv.value) for kv in record.attributes}
                    event = record.event_name or attributes.get(names.EVENT_NAME) or ""
                    row = _Record(attributes, record, resource, service, arrived_ns)
                    if event == names.EVENT_CONNECTION:
                        rejected += not self._connection(row)
                    elif event == names.EVENT_AUDIT:
                        rejected += not self._audit(row)
                    elif event == names.EVENT_LEAK:
                        rejected += not self._leak(row)
                    else:
                        self._log(row, scope, str(event)[:256])
        return rejected

    def _connection(self, row: _Record) -> bool:
        identity = row.text(names.CONNECTION_ID)
        if not identity:
            return False
        transport = row.text(names.NETWORK_TRANSPORT) or "tcp"
        host = row.text(names.SERVER_ADDRESS)
        address = row.text(names.NETWORK_PEER_ADDRESS)
        port = row.integer(names.NETWORK_PEER_PORT) or 0
        peer = host_port(host or address, row.integer(names.SERVER_PORT) or port)
        rtt = row.real(names.TCP_RTT)
        age = row.real(names.CONNECTION_AGE)
        local = host_port(
            row.text(names.NETWORK_LOCAL_ADDRESS), row.integer(names.NETWORK_LOCAL_PORT) or 0
        )
        history = "" if rtt is None else _history_item(rtt)
        self._connection_rows.append(
            (
                row.resource,
                identity,
                row.service,
                row.integer(names.PROCESS_PID),
                peer,
                host_port(address, port),
                host,
                local,
                row.text(names.CONNECTION_DIRECTION),
                transport,
                row.text(names.CONNECTION_STATE).lower() or "open",
                row.integer(names.CONNECTION_DESCRIPTOR),
                None if age is None else max(0, row.time_ns - int(min(age, 1e9) * _NS)),
                rtt,
                history,
                row.integer(names.CONNECTION_SENT),
                row.integer(names.CONNECTION_RECEIVED),
                row.integer(names.RETRANSMITS),
                row.integer(names.CONNECTION_QUEUED),
                row.trace_id,
                row.span_id,
                row.text(names.STACKTRACE, self._limits.value),
                row.time_ns,
                row.arrived_ns,
                min(3600.0, max(0.1, row.real(names.CONNECTIONS_INTERVAL) or 5.0)),
            )
        )
        return True

    def _audit(self, row: _Record) -> bool:
        action = row.text(names.AUDIT_ACTION).lower().replace("-", "_")
        if action not in ("allow", "deny", "would_deny"):
            return False
        address = row.text(names.NETWORK_PEER_ADDRESS)
        port = row.integer(names.NETWORK_PEER_PORT) or 0
        host = row.text(names.SERVER_ADDRESS)
        peer = host_port(host or address, row.integer(names.SERVER_PORT) or port)
        self._audit_rows.append(
            (
                row.time_ns,
                row.resource,
                row.service,
                action,
                row.text(names.AUDIT_RULE),
                row.text(names.AUDIT_EVENT),
                row.text(names.AUDIT_DIRECTION),
                peer,
                row.text(names.AUDIT_OUTCOME),
                row.real(names.AUDIT_DURATION),
                row.integer(names.PROCESS_PID),
                row.trace_id,
                row.span_id,
                row.integer(names.AUDIT_SEQUENCE),
                row.text(names.AUDIT_CHAIN_ID),
                row.text(names.AUDIT_CHAIN_HASH),
                row.text(names.AUDIT_CHAIN_PREVIOUS),
                row.text(names.AUDIT_CHAIN_STATE),
                row.arrived_ns // _NS,
            )
        )
        return True

    def _leak(self, row: _Record) -> bool:
        identity = row.text(names.CONNECTION_ID)
        kind = row.text(names.LEAK_KIND)
        if not identity or not kind:
            return False
        host = row.text(names.SERVER_ADDRESS) or row.text(names.NETWORK_PEER_ADDRESS)
        self._leak_rows.append(
            (
                row.resource,
                identity,
                row.service,
                kind,
                host_port(host, row.integer(names.NETWORK_PEER_PORT) or 0),
                row.text(names.CONNECTION_STATE).lower(),
                row.integer(names.PROCESS_PID),
                row.integer(names.CONNECTION_DESCRIPTOR),
                row.real(names.CONNECTION_AGE),
                row.text(names.STACKTRACE, self._limits.value),
                row.trace_id,
                row.time_ns,
                row.arrived_ns // _NS,
            )
        )
        return True

    def _log(self, row: _Record, scope: int, event: str) -> None:
        record = row.record
        if len(record.body.string_value) > self._limits.value:
            record.body.string_value = record.body.string_value[: self._limits.value]
            self.count("attributes_cut")
        cut = _cut_values(record.attributes, self._limits.value)
        if cut:
            self.count("attributes_cut", cut)
        self._log_rows.append(
            (
                row.time_ns,
                row.resource,
                scope,
                event,
                int(record.severity_number),
                row.trace_id,
                row.span_id,
                record.SerializeToString(),
                row.arrived_ns // _NS,
            )
        )

    # -- writing -----------------------------------------------------------------------------------

    def flush(self) -> None:
        """Writes everything gathered since the last flush."""
        db = self._db
        arrived = self._clock() // _NS
        if self._span_rows:
            db.executemany(
                "INSERT OR IGNORE INTO spans VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                self._span_rows,
            )
            db.executemany("INSERT OR IGNORE INTO trace_terms VALUES (?, ?)", self._term_rows)
            db.executemany(
                "UPDATE traces SET start_ns = ?, end_ns = ?, spans = ?, errors = ?, root_name = ?,"
                " root_service = ?, has_root = ?, root_start = ? WHERE no = ?",
                [
                    (
                        t.start,
                        t.end,
                        t.spans,
                        t.errors,
                        t.root_name,
                        t.root_service,
                        t.has_root,
                        t.root_start,
                        t.no,
                    )
                    for t in self._changed
                ],
            )
            for trace in self._changed:
                trace.changed = False
            while len(self._traces) > _TRACE_CACHE:
                self._traces.popitem(last=False)
        if self._attempt_rows:
            db.executemany(
                "INSERT INTO attempts (trace_no, span_id, op, service_id, peer_id, error_id,"
                " start_ns, end_ns) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                self._attempt_rows,
            )
        if self._latency:
            db.executemany(
                "INSERT INTO latency VALUES (?, ?, ?, ?, ?, ?)"
                " ON CONFLICT DO UPDATE SET n = n + excluded.n, arrived_s = excluded.arrived_s",
                [(*key, n, arrived) for key, n in self._latency.items()],
            )
        if self._answer_rows:
            db.executemany(
                "INSERT INTO dns_answers VALUES (?, ?, ?)"
                " ON CONFLICT DO UPDATE SET seen_s = excluded.seen_s",
                self._answer_rows,
            )
        self._flush_metrics()
        self._flush_logs()
        self._resolve_callers(arrived)
        for reason, n in self.counts.items():
            db.execute(
                "INSERT INTO intake VALUES (?, ?) ON CONFLICT DO UPDATE SET n = n + excluded.n",
                (reason, n),
            )
        self._clear()

    def _flush_metrics(self) -> None:
        if not self._state_rows:
            return
        # A counter (n > 0) adds up within its slot, a gauge keeps the last value.
        self._db.executemany(
            "INSERT INTO metric_points VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
            " value = CASE WHEN excluded.n > 0 THEN value ELSE 0 END + excluded.value,"
            " n = n + excluded.n, arrived_s = excluded.arrived_s",
            self._point_rows,
        )
        self._db.executemany(
            "UPDATE metric_series SET state = ?, seen_ns = ?, arrived_s = ? WHERE id = ?",
            self._state_rows,
        )

    def _flush_logs(self) -> None:
        db = self._db
        if self._connection_rows:
            width = HISTORY_POINTS * HISTORY_WIDTH
            updates = ", ".join(f"{c} = excluded.{c}" for c in _SNAPSHOT_COLUMNS)
            db.executemany(
                f"INSERT INTO connections VALUES ({', '.join('?' * 25)}) ON CONFLICT DO UPDATE SET"
                f" {updates}, rtt_history = substr(rtt_history || excluded.rtt_history, -{width}),"
                " stack = CASE excluded.stack WHEN '' THEN stack ELSE excluded.stack END"
                " WHERE excluded.round_ns >= round_ns",
                self._connection_rows,
            )
        if self._audit_rows:
            db.executemany(
                "INSERT INTO audit (time_ns, resource_id, service_id, action, rule, event,"
                " direction, peer, outcome, duration, pid, trace_id, span_id, sequence, chain,"
                " hash, previous, chain_state, arrived_s)"
                f" VALUES ({', '.join('?' * 19)})",
                self._audit_rows,
            )
        if self._leak_rows:
            db.executemany(
                f"INSERT OR REPLACE INTO leaks VALUES ({', '.join('?' * 13)})", self._leak_rows
            )
        if self._log_rows:
            db.executemany(
                "INSERT INTO logs (time_ns, resource_id, scope_id, event, severity, trace_id,"
                " span_id, body, arrived_s) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                self._log_rows,
            )

    def _resolve_callers(self, now: int) -> None:
        """Learns which service answers at a peer: a SERVER span whose parent called that peer.

        The caller's span often arrives later than the callee's, so each pair is looked up once,
        two seconds after it came.
        """
        for _ in range(min(len(self._callers), 100)):
            no, parent, service, due = self._callers[0]
            if due > now:
                return
            self._callers.popleft()
            self._db.execute(
                "INSERT INTO peer_services SELECT s.peer_id, ? FROM spans s"
                " JOIN resources r ON r.id = s.resource_id"
                " WHERE s.trace_no = ? AND s.span_id = ? AND s.peer_id <> 0 AND r.service_id <> ?"
                " ON CONFLICT DO UPDATE SET service_id = excluded.service_id",
                (service, no, parent, service),
            )


class _Record:
    """A log record with typed access to its attributes."""

    __slots__ = ("arrived_ns", "attributes", "record", "resource", "service", "time_ns")

    def __init__(
        self,
        attributes: dict[str, Any],
        record: Any,
        resource: int,
        service: int,
        arrived_ns: int,
    ) -> None:
        self.attributes = attributes
        self.record = record
        self.resource = resource
        self.service = service
        self.arrived_ns = arrived_ns
        self.time_ns = min(
            record.time_unix_nano or record.observed_time_unix_nano or arrived_ns, _MAX_NS
        )

    @property
    def trace_id(self) -> bytes:
        return bytes(self.record.trace_id) if any(self.record.trace_id) else b""

    @property
    def span_id(self) -> bytes:
        return bytes(self.record.span_id) if any(self.record.span_id) else b""

    def text(self, key: str, limit: int = 512) -> str:
        value = self.attributes.get(key)
        return "" if value is None else str(value)[:limit]

    def integer(self, key: str) -> int | None:
        value = self.attributes.get(key)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
            return None
        return int(max(-_MAX_NS, min(_MAX_NS, value)))

    def real(self, key: str) -> float | None:
        value = self.attributes.get(key)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
            return None
        return max(0.0, min(1e15, float(value)))


def _history_item(rtt: float) -> str:
    """A round trip as microseconds in exactly HISTORY_WIDTH characters."""
    return f"{min(99_999_999, int(rtt * 1e6)):>{HISTORY_WIDTH}d}"


def _number(value: float) -> float:
    """The value, 0 for NaN: SQLite has no such value."""
    return 0.0 if value != value else float(value)


def _bucket_count(kind: str, point: Any) -> int:
    if kind == "histogram":
        return len(point.bucket_counts)
    return len(point.positive.bucket_counts) if kind == "exponential_histogram" else 0


def _exception_type(span: Any) -> str:
    for event in span.events:
        for kv in event.attributes:
            if kv.key == names.EXCEPTION_TYPE:
                return str(kv.value.string_value)
    return ""


def _cut_values(attributes: Any, limit: int) -> int:
    """Cuts the texts of attributes at `limit` characters; returns how many were cut."""
    cut = 0
    for kv in attributes:
        which = kv.value.WhichOneof("value")
        if which == "string_value":
            if len(kv.value.string_value) > limit:
                kv.value.string_value = kv.value.string_value[: limit - 1] + "…"
                cut += 1
        elif which is not None and kv.value.ByteSize() > limit:
            kv.value.string_value = f"({which.removesuffix('_value')} longer than {limit} bytes)"
            cut += 1
        if len(kv.key) > limit:
            kv.key = kv.key[:limit]
            cut += 1
    return cut
