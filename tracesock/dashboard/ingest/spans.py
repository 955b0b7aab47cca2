"""Spans into rows: the span itself, the summary of its trace, its duration, what it tells."""

from __future__ import annotations

import sqlite3
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any, Final

from tracesock.dashboard import histogram, names
from tracesock.dashboard.classify import KIND_SERVER, STATUS_ERROR, Op, host_port, op_of
from tracesock.dashboard.ingest.bulk import insert
from tracesock.dashboard.ingest.catalog import Catalog
from tracesock.dashboard.ingest.cut import cut_values
from tracesock.dashboard.ingest.slots import Slots
from tracesock.dashboard.otlp import Limits
from tracesock.dashboard.schema import (
    SOURCE_SPAN,
    TERM_DNS,
    TERM_ERROR,
    TERM_NAME,
    TERM_PEER,
)

# SQLite's integers are signed; OTLP's times are not.
_MAX_NS: Final = (1 << 63) - 1
_TRACES: Final = 20_000
_NAMES: Final = 50_000
_PEERS: Final = 50_000
_SERIES: Final = 100_000
_ANSWERS: Final = 20_000
# A span's other service is looked for this many seconds after it came, at most so many at a time.
_CALLER_DELAY: Final = 2
_CALLERS: Final = 100

# The loop over spans works with plain numbers: comparing enum members costs more than the rest.
_OTHER, _LOOKUP, _CONNECT = int(Op.OTHER), int(Op.LOOKUP), int(Op.CONNECT)
_ACCEPT, _SERVER, _STALL = int(Op.ACCEPT), int(Op.SERVER), int(Op.STALL)
_TIMED: Final = frozenset(
    int(op) for op in (Op.LOOKUP, Op.CONNECT, Op.SETUP, Op.TLS, Op.SEND, Op.CLIENT, Op.SERVER)
)
_TOLD_WHEN_FAILED: Final = frozenset((int(Op.LOOKUP), int(Op.TLS), int(Op.SETUP)))
# The attributes that are read, and as what.
_TEXT, _NUMBER, _VALUE = 1, 2, 3
_READ: Final = {
    names.ERROR_TYPE: _TEXT,
    names.DNS_QUESTION_NAME: _TEXT,
    names.NETWORK_PEER_ADDRESS: _TEXT,
    names.SERVER_ADDRESS: _TEXT,
    names.CLIENT_ADDRESS: _TEXT,
    names.PEER_SERVICE: _TEXT,
    names.NETWORK_PEER_PORT: _NUMBER,
    names.SERVER_PORT: _NUMBER,
    names.DNS_ANSWERS: _VALUE,
    names.SEND_STALL: _VALUE,
}
_NO_TRACE: Final = bytes(16)


class _Trace:
    """The running summary of one trace."""

    __slots__ = (
        "changed",
        "end",
        "errors",
        "has_root",
        "new",
        "no",
        "root_name",
        "root_service",
        "root_start",
        "spans",
        "start",
        "terms",
        "trace_id",
    )

    def __init__(self, trace_id: bytes, no: int, start: int, end: int, new: bool) -> None:
        self.trace_id = trace_id
        self.no = no
        self.start = start
        self.end = end
        self.new = new
        self.spans = 0
        self.errors = 0
        self.root_name = 0
        self.root_service = 0
        self.has_root = 0
        self.root_start = start
        self.terms: set[int] = set()
        self.changed = False


class SpanIntake:
    """Gathers spans with `take`, writes them with `flush`."""

    def __init__(
        self,
        db: sqlite3.Connection,
        catalog: Catalog,
        slots: Slots,
        limits: Limits,
        count: Callable[[str, int], None],
    ) -> None:
        self._db = db
        self._catalog = catalog
        self._slots = slots
        self._limits = limits
        self._count = count
        self._traces: OrderedDict[bytes, _Trace] = OrderedDict()
        self._next = 1 + (db.execute("SELECT max(no) FROM traces").fetchone()[0] or 0)
        self._names: dict[tuple[str, int], tuple[int, int]] = {}
        self._peers: dict[tuple[str, int], int] = {}
        self._series: dict[tuple[int, int, int, int], int] = {}
        self._answers: set[tuple[int, int, str]] = set()
        self._callers: deque[tuple[int, bytes, int, int]] = deque(maxlen=10_000)
        self._clear()

    def _clear(self) -> None:
        self._span_rows: list[tuple[Any, ...]] = []
        self._term_rows: list[tuple[int, int]] = []
        self._attempt_rows: list[tuple[Any, ...]] = []
        self._answer_rows: list[tuple[int, str, int]] = []
        self._changed: list[_Trace] = []

    def forget(self, up_to: int) -> None:
        for trace_id in [t for t, trace in self._traces.items() if trace.no <= up_to]:
            del self._traces[trace_id]

    def take(self, request: Any, arrived: int) -> int:
        """Gathers the spans of a request; returns how many had no valid id."""
        rejected = 0
        for resource_spans in request.resource_spans:
            resource, service = self._catalog.resource(resource_spans.resource)
            for scope_spans in resource_spans.scope_spans:
                scope = self._catalog.scope(scope_spans.scope, scope_spans.schema_url)
                origin = self._catalog.origin(resource, scope)
                rejected += self._scope_spans(scope_spans.spans, service, origin, arrived)
        return rejected

    def _scope_spans(self, spans: Any, service: int, origin: int, arrived: int) -> int:
        # One loop, without calls where it can be: this is where the time of ingest goes.
        rejected = 0
        traces, known_names = self._traces, self._names
        span_rows, term_rows = self._span_rows, self._term_rows
        attributes_limit, value_limit = self._limits.attributes, self._limits.value
        term, add = self._catalog.term, self._slots.add
        known_series, peer_of = self._series, self._peer
        bucket_of_ns, read_as = histogram.bucket_of_ns, _READ.get
        for span in spans:
            trace_id, span_id = span.trace_id, span.span_id
            if len(trace_id) != 16 or len(span_id) != 8 or trace_id == _NO_TRACE:
                rejected += 1
                continue
            attributes = span.attributes
            if len(attributes) > attributes_limit:
                self._cut_attributes(span)
            name, kind = span.name, span.kind
            known = known_names.get((name, kind))
            name_term, op = known if known is not None else self._new_name(name, kind)
            failed = span.status.code == STATUS_ERROR
            start, end = span.start_time_unix_nano, span.end_time_unix_nano
            if end < start or end > _MAX_NS:
                start = min(start, _MAX_NS)
                end = min(max(start, end), _MAX_NS)

            error = peer = 0
            found: dict[str, Any] = {}
            if failed or (op and op != _SERVER):
                for kv in attributes:
                    key = kv.key
                    which = read_as(key)
                    if which is None:
                        continue
                    if which == _TEXT:
                        found[key] = kv.value.string_value
                    elif which == _NUMBER:
                        found[key] = kv.value.int_value
                    else:
                        found[key] = kv.value
                if found:
                    text = found.get(names.ERROR_TYPE)
                    if text:
                        error = term(TERM_ERROR, text)
                    peer = peer_of(op, found)
                if failed and not error:
                    error = term(TERM_ERROR, _exception_type(span) or "error")

            trace = traces.get(trace_id)
            if trace is None:
                trace = self._trace(trace_id, start, end)
            if not trace.changed:
                trace.changed = True
                self._changed.append(trace)
            no = trace.no
            trace.spans += 1
            if start < trace.start:
                trace.start = start
            if end > trace.end:
                trace.end = end
            if error:
                trace.errors += 1
            parent = span.parent_span_id
            if not parent:
                if not trace.has_root or start <= trace.root_start:
                    trace.has_root, trace.root_start = 1, start
                    trace.root_name, trace.root_service = name_term, service
            elif not trace.has_root and (not trace.root_name or start < trace.root_start):
                trace.root_start = start
                trace.root_name, trace.root_service = name_term, service
            seen = trace.terms
            for t in (name_term, service, peer, error):
                if t and t not in seen:
                    seen.add(t)
                    term_rows.append((t, no))

            body = span.SerializeToString()
            if len(body) > value_limit:
                body = self._cut(span)
            span_rows.append((no, span_id, origin, start, error, peer, body, name_term))
            if op in _TIMED:
                series = known_series.get((op, service, peer, error))
                if series is None:
                    series = self._new_series(op, service, peer, error)
                add(end, series, bucket_of_ns(end - start))
                if op == _CONNECT or (error and op in _TOLD_WHEN_FAILED):
                    self._attempt_rows.append((no, span_id, op, service, peer, error, start, end))
            if names.SEND_STALL in found:
                value = found[names.SEND_STALL]
                stall = value.double_value or float(value.int_value)
                if stall > 0:
                    series = self._new_series(_STALL, service, peer, 0)
                    add(end, series, histogram.bucket_of(stall))
            if names.DNS_ANSWERS in found and peer:
                self._remember(peer, found[names.DNS_ANSWERS].array_value.values, arrived)
            if kind == KIND_SERVER and parent:
                self._callers.append((no, parent, service, arrived + _CALLER_DELAY))
        return rejected

    def _new_name(self, name: str, kind: int) -> tuple[int, int]:
        if len(self._names) > _NAMES:
            self._names.clear()
        known = (self._catalog.term(TERM_NAME, name), int(op_of(name, kind)))
        if len(name) < 1024:
            self._names[name, kind] = known
        return known

    def _new_series(self, op: int, service: int, peer: int, error: int) -> int:
        if len(self._series) > _SERIES:
            self._series.clear()
        series = self._catalog.series(op, service, peer, error, SOURCE_SPAN)
        self._series[op, service, peer, error] = series
        return series

    def _peer(self, op: int, found: dict[str, Any]) -> int:
        """The term of the peer that the attributes name, 0 for none.

        That is the server's name and port, else the network address; for a look-up the name asked
        for, for an accept the client's address without its port.
        """
        get = found.get
        if op == _LOOKUP:
            question = get(names.DNS_QUESTION_NAME)
            return self._catalog.term(TERM_DNS, question) if question else 0
        if op == _SERVER:
            return 0
        port = 0
        host = get(names.SERVER_ADDRESS)
        if op == _ACCEPT:
            host = get(names.CLIENT_ADDRESS)
        elif host:
            port = get(names.SERVER_PORT) or get(names.NETWORK_PEER_PORT) or 0
        else:
            host = get(names.NETWORK_PEER_ADDRESS)
            if host:
                port = get(names.NETWORK_PEER_PORT) or 0
            else:
                host = get(names.PEER_SERVICE)
        if not host:
            return 0
        known = self._peers.get((host, port))
        if known is not None:
            return known
        peer = self._catalog.term(TERM_PEER, host_port(host, port))
        if len(self._peers) > _PEERS:
            self._peers.clear()
        if len(host) < 1024:
            self._peers[host, port] = peer
        return peer

    def _trace(self, trace_id: bytes, start: int, end: int) -> _Trace:
        """A trace that is not cached: taken for new until `flush` has looked."""
        trace = _Trace(trace_id, self._next, start, end, True)
        self._next += 1
        self._traces[trace_id] = trace
        return trace

    def _cut_attributes(self, span: Any) -> None:
        limit = self._limits.attributes
        cut = len(span.attributes) - limit
        del span.attributes[limit:]
        span.dropped_attributes_count = min(0xFFFFFFFF, span.dropped_attributes_count + cut)
        self._count("attributes_cut", cut)

    def _cut(self, span: Any) -> bytes:
        """The span with over-long texts cut; links and events bounded as attributes are."""
        limit = self._limits.value
        cut = cut_values(span.attributes, limit)
        for repeated in (span.events, span.links):
            if len(repeated) > self._limits.attributes:
                cut += len(repeated) - self._limits.attributes
                del repeated[self._limits.attributes :]
            for item in repeated:
                if len(item.attributes) > self._limits.attributes:
                    cut += len(item.attributes) - self._limits.attributes
                    del item.attributes[self._limits.attributes :]
                cut += cut_values(item.attributes, limit)
        if len(span.name) > limit:
            span.name = span.name[:limit]
            cut += 1
        if len(span.trace_state) > limit:
            span.trace_state = ""
            cut += 1
        if len(span.status.message) > limit:
            span.status.message = span.status.message[:limit]
            cut += 1
        if cut:
            self._count("attributes_cut", cut)
        return bytes(span.SerializeToString())

    def _remember(self, name: int, answers: Any, arrived: int) -> None:
        for value in answers[:16]:
            answer = value.string_value[:128]
            # One write a minute keeps `seen_s` near enough.
            key = (name, arrived // 60, answer)
            if answer and key not in self._answers:
                if len(self._answers) > _ANSWERS:
                    self._answers.clear()
                self._answers.add(key)
                self._answer_rows.append((name, answer, arrived))

    # -- writing ---------------------------------------------------------------------------------

    def flush(self, arrived: int) -> None:
        """Writes what was gathered."""
        if self._span_rows:
            self._flush_traces(arrived)
            insert(self._db, "INSERT OR IGNORE INTO spans", self._span_rows)
            insert(self._db, "INSERT OR IGNORE INTO trace_terms", self._term_rows)
            insert(
                self._db,
                "INSERT INTO attempts (trace_no, span_id, op, service_id, peer_id, error_id,"
                " start_ns, end_ns)",
                self._attempt_rows,
            )
            insert(
                self._db,
                "INSERT INTO dns_answers",
                self._answer_rows,
                "ON CONFLICT DO UPDATE SET seen_s = excluded.seen_s",
            )
            self._clear()
            while len(self._traces) > _TRACES:
                self._traces.popitem(last=False)
        self._resolve_callers(arrived)

    def _flush_traces(self, arrived: int) -> None:
        new = [t for t in self._changed if t.new]
        self._db.executemany(
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
                if not t.new
            ],
        )
        if new:
            first = new[0].no
            # One that was stored before keeps its number and gets the sum of both.
            insert(
                self._db,
                "INSERT INTO traces",
                [
                    (
                        t.no,
                        t.trace_id,
                        t.start,
                        t.end,
                        t.spans,
                        t.errors,
                        t.root_name,
                        t.root_service,
                        t.has_root,
                        t.root_start,
                        arrived,
                    )
                    for t in new
                ],
                "ON CONFLICT (trace_id) DO UPDATE SET start_ns = min(start_ns, excluded.start_ns),"
                " end_ns = max(end_ns, excluded.end_ns), spans = spans + excluded.spans,"
                " errors = errors + excluded.errors,"
                f" root_name = {_ROOT.format('root_name')},"
                f" root_service = {_ROOT.format('root_service')},"
                f" root_start = {_ROOT.format('root_start')},"
                " has_root = max(has_root, excluded.has_root)",
            )
            inserted = self._db.execute(
                "SELECT count(*) FROM traces WHERE no >= ?", (first,)
            ).fetchone()[0]
            if inserted != len(new):
                self._renumber(new)
        for trace in self._changed:
            trace.changed = trace.new = False

    def _renumber(self, traces: list[_Trace]) -> None:
        """Gives the rows gathered for traces that were stored before their old numbers."""
        numbers: dict[int, int] = {}
        for trace in traces:
            row = self._db.execute(
                "SELECT no, start_ns, end_ns, spans, errors, root_name, root_service, has_root,"
                " root_start FROM traces WHERE trace_id = ?",
                (trace.trace_id,),
            ).fetchone()
            if row[0] != trace.no:
                numbers[trace.no] = row[0]
                (
                    trace.no,
                    trace.start,
                    trace.end,
                    trace.spans,
                    trace.errors,
                    trace.root_name,
                    trace.root_service,
                    trace.has_root,
                    trace.root_start,
                ) = row
        get = numbers.get
        self._span_rows = [(get(r[0], r[0]), *r[1:]) for r in self._span_rows]
        self._attempt_rows = [(get(r[0], r[0]), *r[1:]) for r in self._attempt_rows]
        self._term_rows = [(t, get(no, no)) for t, no in self._term_rows]
        for _ in range(len(self._callers)):
            no, *rest = self._callers.popleft()
            self._callers.append((get(no, no), *rest))  # type: ignore[arg-type]

    def _resolve_callers(self, now: int) -> None:
        """Learns which service answers at a peer: a SERVER span whose parent called that peer.

        The caller's span often arrives later than the callee's, so each pair is looked up once,
        two seconds after it came.
        """
        for _ in range(min(len(self._callers), _CALLERS)):
            no, parent, service, due = self._callers[0]
            if due > now:
                return
            self._callers.popleft()
            self._db.execute(
                "INSERT INTO peer_services SELECT s.peer_id, ? FROM spans s"
                " JOIN origins o ON o.id = s.origin_id JOIN resources r ON r.id = o.resource_id"
                " WHERE s.trace_no = ? AND s.span_id = ? AND s.peer_id <> 0 AND r.service_id <> ?"
                " ON CONFLICT DO UPDATE SET service_id = excluded.service_id",
                (service, no, parent, service),
            )


# The root of two parts of a trace: a real root before the first span seen, then the earlier one.
_ROOT: Final = (
    "CASE WHEN excluded.has_root > has_root"
    " OR (excluded.has_root = has_root AND excluded.root_start < root_start)"
    " THEN excluded.{0} ELSE {0} END"
)


def _exception_type(span: Any) -> str:
    for event in span.events:
        for kv in event.attributes:
            if kv.key == names.EXCEPTION_TYPE:
                return str(kv.value.string_value)
    return ""
