"""Everything the pages read, as typed rows. One `Queries` lives for one rendering.

All times are nanoseconds since the epoch, all durations seconds, unless a name says otherwise.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tracesock.dashboard import histogram, names
from tracesock.dashboard.classify import Op, op_of, plain, split_host_port
from tracesock.dashboard.ingest import HISTORY_WIDTH
from tracesock.dashboard.ingest.slots import unpack_into
from tracesock.dashboard.rows import (
    NS,
    Attempt,
    AuditPage,
    Chain,
    Connection,
    Decision,
    DnsName,
    Edge,
    EdgePage,
    Filter,
    Gauge,
    Heatmap,
    Leak,
    LogRow,
    PortUse,
    SpanRow,
    Summary,
    Tiles,
    Trace,
    TracePage,
    TraceQuery,
    TraceRow,
    Window,
)
from tracesock.dashboard.schema import (
    COARSE,
    FINE,
    FINE_KEPT,
    MIDDLE,
    MIDDLE_KEPT,
    SOURCE_METRIC,
    SOURCE_SPAN,
    TERM_DNS,
    TERM_ERROR,
    TERM_NAME,
    TERM_PEER,
    TERM_SERVICE,
)

# Terms that fewer traces have, or fewer than a twentieth, are rare.
_RARE: Final = 3_000
# Rows of `latency` up to this number are sought one by one, more are scanned.
_SOUGHT: Final = 20_000
# A process whose snapshots stay away this many intervals is shown as gone.
_MISSED_ROUNDS: Final = 3.5
MAX_WATERFALL: Final = 2_000
_OPS: Final = {int(op): op for op in Op}

# The traces that have one of the terms in a JSON array; whether trace `t` has, by its spans.
_OF_TERMS: Final = (
    "SELECT trace_no FROM trace_terms WHERE term_id IN (SELECT value FROM json_each(?))"
)
_HAS_TERM: Final = (
    "EXISTS (SELECT 1 FROM spans s WHERE s.trace_no = t.no"
    " AND (s.peer_id IN (SELECT value FROM json_each(?))"
    " OR s.error_id IN (SELECT value FROM json_each(?))"
    " OR s.name_id IN (SELECT value FROM json_each(?))"
    " OR s.origin_id IN (SELECT o.id FROM json_each(?) j JOIN resources r ON r.service_id = j.value"
    " JOIN origins o ON o.resource_id = r.id)))"
)


class Queries:
    """Reads one state of the database. `now` is the time that ages are counted from."""

    def __init__(self, db: sqlite3.Connection, now: int | None = None) -> None:
        self._db = db
        self.now = time.time_ns() if now is None else now
        self._connections: dict[tuple[Filter, str, str], list[Connection]] = {}
        # Operation, service, peer, error and source of the series that were filtered.
        self._series: dict[int, tuple[Op, int, int, int, int]] = {}
        self._filtered_series: dict[tuple[tuple[Op, ...], str, str, bool], list[int]] = {}

    # -- texts -----------------------------------------------------------------------------------

    def _rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        return self._db.execute(query, values).fetchall()

    def _texts(self, ids: Iterable[int]) -> dict[int, str]:
        wanted = [i for i in set(ids) if i]
        found: dict[int, str] = {0: ""}
        found.update(
            self._rows(
                "SELECT id, text FROM terms WHERE id IN (SELECT value FROM json_each(?))",
                json.dumps(wanted),
            )
        )
        return found

    def _term(self, kind: int, text: str) -> int | None:
        row = self._db.execute(
            "SELECT id FROM terms WHERE kind = ? AND text = ?", (kind, text)
        ).fetchone()
        return None if row is None else int(row[0])

    def _peer_terms(self, peer: str) -> set[int]:
        """The terms of a peer: with a port that one, without it every port of the host."""
        host, port = split_host_port(peer)
        found = {t for t in (self._term(TERM_PEER, peer),) if t}
        if not port:
            prefix = f"[{host}]:" if ":" in host else f"{host}:"
            found.update(
                row[0]
                for row in self._rows(
                    "SELECT id FROM terms WHERE kind = ? AND text >= ? AND text < ?",
                    TERM_PEER,
                    prefix,
                    prefix[:-1] + ";",
                )
            )
        else:
            # Metrics name the host only.
            found.update(t for t in (self._term(TERM_PEER, host),) if t)
        return found

    def services(self) -> list[str]:
        """All services that sent something."""
        return [
            row[0]
            for row in self._rows(
                "SELECT DISTINCT t.text FROM resources r JOIN terms t ON t.id = r.service_id"
                " ORDER BY t.text LIMIT 500"
            )
        ]

    def peers(self) -> list[str]:
        """Peers for the suggestions of a filter."""
        return [
            row[0]
            for row in self._rows(
                "SELECT text FROM terms WHERE kind = ? ORDER BY text LIMIT 200", TERM_PEER
            )
        ]

    def errors(self) -> list[str]:
        """The error types that were seen."""
        return [
            row[0]
            for row in self._rows(
                "SELECT text FROM terms WHERE kind = ? ORDER BY text LIMIT 200", TERM_ERROR
            )
        ]

    # -- durations -------------------------------------------------------------------------------

    def _slots(self, window: Window, by_peer: bool, columns: bool = False) -> tuple[int, int, int]:
        """Width, first slot, slot after the last, of the slots that hold a window.

        Narrow slots are read where they are few; for the `columns` of a chart of one peer, too.
        """
        start = 0 if window.start is None else window.start
        end = self.now + 3600 * NS if window.end is None else window.end
        age = (self.now - start) / NS
        if not by_peer and age <= FINE_KEPT * 0.6:
            width = FINE
        elif age <= (MIDDLE_KEPT * 0.9 if columns or not by_peer else 1200):
            width = MIDDLE
        else:
            width = COARSE
        return width, start // (width * NS), end // (width * NS) + 1

    def _filtered(self, ops: Iterable[Op], filters: Filter, by_peer: bool = False) -> list[int]:
        """The series of some operations that pass the filter of service and peer.

        Without a peer those over all peers; with one, or `by_peer`, those of single peers.
        """
        key = (tuple(ops), filters.service, filters.peer, by_peer)
        if key not in self._filtered_series:
            self._filtered_series[key] = self._read_series(*key)
        return self._filtered_series[key]

    def _read_series(
        self, ops: tuple[Op, ...], service: str, peer: str, by_peer: bool
    ) -> list[int]:
        where = ["op IN (SELECT value FROM json_each(?))"]
        values: list[Any] = [json.dumps([int(op) for op in ops])]
        if service:
            where.append("service_id = ?")
            values.append(self._term(TERM_SERVICE, service) or -1)
        if peer:
            # The peer of a look-up is the name that was asked for.
            where.append(
                "peer_id IN (SELECT value FROM json_each(CASE op WHEN ? THEN ? ELSE ? END))"
            )
            question = self._term(TERM_DNS, split_host_port(peer)[0])
            values += [
                int(Op.LOOKUP),
                json.dumps([question] if question else []),
                json.dumps(list(self._peer_terms(peer))),
            ]
        else:
            where.append("peer_id <> 0" if by_peer else "peer_id = 0")
        found = []
        for identity, op, *rest in self._db.execute(
            "SELECT id, op, service_id, peer_id, error_id, source FROM series"
            f" WHERE {' AND '.join(where)}",
            values,
        ):
            self._series[identity] = (_OPS[op], *rest)
            found.append(identity)
        return found

    def _packed(
        self, series: Sequence[int], width: int, first: int, after: int, by_slot: bool
    ) -> Iterator[tuple[int, str]]:
        """Packed buckets of some series, joined by slot, or by series."""
        group = "l.slot" if by_slot else "l.series_id"
        wanted = json.dumps(list(series))
        if len(series) * (after - first) <= _SOUGHT:
            slots = json.dumps(list(range(first, after)))
            source = (
                "json_each(?) s CROSS JOIN json_each(?) i CROSS JOIN latency l"
                " ON l.width = ? AND l.slot = s.value AND l.series_id = i.value"
            )
            values: tuple[Any, ...] = (slots, wanted, width)
        else:
            source = (
                "latency l WHERE l.width = ? AND l.slot >= ? AND l.slot < ?"
                " AND l.series_id IN (SELECT value FROM json_each(?))"
            )
            values = (width, first, after, wanted)
        return self._db.execute(
            f"SELECT {group}, group_concat(l.buckets, '') FROM {source} GROUP BY {group}", values
        )

    def _sums(
        self, series: Sequence[int], window: Window, by_peer: bool = False
    ) -> dict[int, dict[int, float]]:
        """Bucket counts by series over a window."""
        out: dict[int, dict[int, float]] = {}
        if series:
            for identity, packed in self._packed(series, *self._slots(window, by_peer), False):
                unpack_into(out.setdefault(identity, {}), packed)
        return out

    def _preferred(self, sums: Mapping[int, Mapping[int, float]]) -> tuple[list[int], str]:
        """For each service and operation the source that saw more: its metric, or its spans.

        Metrics do not depend on sampling, so where both exist they are it; a program that sends no
        metrics has its spans. The text says which were used.
        """
        by_source: dict[tuple[Op, int], dict[int, list[int]]] = {}
        for identity in sums:
            op, service, _, _, source = self._series[identity]
            by_source.setdefault((op, service), {}).setdefault(source, []).append(identity)
        chosen: list[int] = []
        used: set[str] = set()
        for sources in by_source.values():
            seen = {s: sum(sum(sums[i].values()) for i in ids) for s, ids in sources.items()}
            metric = seen.get(SOURCE_METRIC, 0.0) >= seen.get(SOURCE_SPAN, 0.0)
            source = SOURCE_METRIC if metric else SOURCE_SPAN
            used.add("metrics" if source == SOURCE_METRIC else "spans")
            chosen += sources[source]
        return chosen, " and ".join(sorted(used))

    def _summary(self, sums: Mapping[int, Mapping[int, float]]) -> Summary:
        total = errors = 0.0
        buckets: dict[int, float] = {}
        for identity, counts in sums.items():
            n = sum(counts.values())
            total += n
            if self._series[identity][3]:
                errors += n
            for bucket, value in counts.items():
                buckets[bucket] = buckets.get(bucket, 0.0) + value
        return Summary(total, errors, buckets)

    def _present(
        self, ops: Iterable[Op], filters: Filter
    ) -> tuple[dict[int, dict[int, float]], str]:
        """Sums of the series that have observations in the window, from the preferred source."""
        series = self._filtered(ops, filters)
        sums = self._sums(series, filters.window, by_peer=bool(filters.peer))
        chosen, source = self._preferred(sums)
        return {identity: sums[identity] for identity in chosen}, source

    def _timeline(
        self, series: Sequence[int], window: Window, columns: int, by_peer: bool
    ) -> tuple[int, float, list[dict[int, float]]]:
        """Start, seconds of a column, and bucket counts by column."""
        width, first, after = self._slots(window, by_peer, columns=True)
        if window.start is None:
            row = self._db.execute(
                "SELECT min(slot) FROM latency WHERE width = ?", (width,)
            ).fetchone()
            first = row[0] if row[0] is not None else after - 1
        if window.end is None:
            after = max(first, self.now // (width * NS)) + 1
        group = max(1, -(-(after - first) // columns))
        slots: list[dict[int, float]] = [{} for _ in range(-(-(after - first) // group))]
        if series:
            for slot, packed in self._packed(series, width, first, after, True):
                unpack_into(slots[(slot - first) // group], packed)
        return first * width * NS, float(group * width), slots

    # -- connections -----------------------------------------------------------------------------

    def tiles(self, filters: Filter) -> Tiles:
        """The figures of the landing page."""
        five = Filter(filters.service, filters.peer, Window.last(300, self.now))
        minute = Filter(filters.service, filters.peer, Window.last(60, self.now))
        trend_window = Window.last(900, self.now)
        lookups, lookup_source = self._present((Op.LOOKUP,), five)
        connects, connect_source = self._present((Op.CONNECT,), five)
        stalls, _ = self._present((Op.STALL,), five)
        failed, _ = self._present((Op.LOOKUP, Op.CONNECT), minute)
        stall = self._summary(stalls)

        def trend(ops: tuple[Op, ...], failures: bool = False) -> list[dict[int, float]]:
            by_peer = bool(filters.peer)
            sums = self._sums(self._filtered(ops, filters), trend_window, by_peer)
            series, _ = self._preferred(sums)
            if failures:
                series = [s for s in series if self._series[s][3]]
            return self._timeline(series, trend_window, 30, by_peer)[2]

        rate = [sum(slot.values()) for slot in trend((Op.LOOKUP, Op.CONNECT), failures=True)]
        counts = self._open_counts(filters)
        return Tiles(
            open=counts,
            failed_minute=self._summary(failed).errors,
            lookup=self._summary(lookups),
            connect=self._summary(connects),
            lookup_source=lookup_source,
            connect_source=connect_source,
            stalls=stall.count,
            stall_p95=stall.percentile(0.95),
            dropped=self._total(names.METRIC_DROPPED, filters),
            refused=sum(n for reason, n in self.intake().items() if reason.startswith("refused_")),
            failed_trend=rate,
            lookup_trend=[histogram.percentile(s, 0.95) for s in trend((Op.LOOKUP,))],
            connect_trend=[histogram.percentile(s, 0.95) for s in trend((Op.CONNECT,))],
            stall_trend=[sum(s.values()) for s in trend((Op.STALL,))],
        )

    def _open_counts(self, filters: Filter) -> int:
        """Open connections: of each process its snapshots, else its connection count metric."""
        rows = self.connections(filters, live_only=True)
        total = sum(1 for c in rows if c.state not in ("listen", "closed"))
        if filters.peer:
            return total
        reporting = {c.instance for c in rows}
        for gauge in self.gauges(names.METRIC_CONNECTIONS, filters.service):
            state = str(gauge.attributes.get(names.NETWORK_CONNECTION_STATE, ""))
            if gauge.instance not in reporting and state not in ("closed", "listen"):
                total += int(max(0.0, gauge.value))
        return total

    def connections(
        self, filters: Filter, text: str = "", state: str = "", live_only: bool = False
    ) -> list[Connection]:
        """The connections of the newest snapshot of each process, and those that just went."""
        key = (filters, text, state)
        if key not in self._connections:
            self._connections[key] = self._read_connections(filters, text, state)
        return [c for c in self._connections[key] if c.live or not live_only]

    def _read_connections(self, filters: Filter, text: str, state: str) -> list[Connection]:
        where: list[str] = ["1"]
        values: list[Any] = []
        if filters.service:
            where.append("t.text = ?")
            values.append(filters.service)
        if filters.peer:
            host, port = split_host_port(filters.peer)
            if port:
                where.append("(c.peer = ? OR c.address = ?)")
                values += [filters.peer, filters.peer]
            else:
                prefix = f"[{host}]:" if ":" in host else f"{host}:"
                where.append(
                    "(c.host = ? OR c.peer = ? OR substr(c.peer, 1, ?) = ?"
                    " OR substr(c.address, 1, ?) = ?)"
                )
                values += [host, host, len(prefix), prefix, len(prefix), prefix]
        if state:
            where.append("c.state = ?")
            values.append(state)
        if text:
            where.append(
                "(c.peer || ' ' || c.address || ' ' || c.host || ' ' || c.local || ' ' || c.state"
                " || ' ' || t.text || ' ' || coalesce(c.pid, '') || ' ' || c.connection_id)"
                " LIKE ? ESCAPE '\\'"
            )
            values.append(_like(text))
        rows = self._rows(
            "WITH newest AS (SELECT resource_id, max(round_ns) AS round, max(arrived_ns) AS arrived"
            " FROM connections GROUP BY resource_id)"
            " SELECT t.text, c.resource_id, c.connection_id, coalesce(c.pid, r.pid), c.peer,"
            " c.address, c.host, c.local, c.direction, c.transport, c.state, c.descriptor,"
            " c.opened_ns, c.rtt, c.rtt_history, c.sent, c.received, c.retransmits, c.queued,"
            " c.trace_id, c.span_id, c.stack, c.round_ns, c.interval_s, n.round, n.arrived,"
            " c.arrived_ns"
            " FROM connections c JOIN newest n ON n.resource_id = c.resource_id"
            " JOIN resources r ON r.id = c.resource_id"
            f" JOIN terms t ON t.id = c.service_id WHERE {' AND '.join(where)}",
            *values,
        )
        found = []
        for r in rows:
            interval = r[23] * NS
            reporting = self.now - r[25] <= max(_MISSED_ROUNDS * interval, 2 * NS)
            live = reporting and r[22] >= r[24] - 1.5 * interval and r[10] != "closed"
            # A live connection ages between its snapshots; one that is gone does not.
            seen = min(r[22], self.now)
            age = None
            if r[12] is not None:
                age = ((self.now if live else seen) - r[12]) / NS
            found.append(
                Connection(
                    service=r[0],
                    instance=r[1],
                    connection_id=r[2],
                    pid=r[3],
                    peer=r[4],
                    address=r[5],
                    host=r[6],
                    local=r[7],
                    direction=r[8],
                    transport=r[9],
                    state=r[10] if live or r[10] == "closed" else "gone",
                    descriptor=r[11],
                    age=None if age is None else max(0.0, age),
                    rtt=r[13],
                    rtt_history=_history(r[14]),
                    sent=r[15],
                    received=r[16],
                    retransmits=r[17],
                    queued=r[18],
                    trace_id=r[19].hex(),
                    span_id=r[20].hex(),
                    stack=r[21],
                    seen=r[26],
                    live=live,
                )
            )
        return found

    def attempts(self, filters: Filter, limit: int = 50, failed: bool = False) -> list[Attempt]:
        """The newest connects, and failed look-ups and handshakes, newest first."""
        where: list[str] = ["1"]
        values: list[Any] = []
        if filters.service:
            where.append("service_id = ?")
            values.append(self._term(TERM_SERVICE, filters.service) or -1)
        if filters.peer:
            terms = self._peer_terms(filters.peer)
            question = self._term(TERM_DNS, split_host_port(filters.peer)[0])
            where.append("peer_id IN (SELECT value FROM json_each(?))")
            values.append(json.dumps([*terms, *([question] if question else [])]))
        if failed:
            where.append("error_id <> 0")
        rows = self._rows(
            "SELECT a.op, a.service_id, a.peer_id, a.error_id, a.start_ns, a.end_ns, t.trace_id,"
            " a.span_id FROM (SELECT * FROM attempts"
            f" WHERE {' AND '.join(where)} ORDER BY id DESC LIMIT ?) a"
            " JOIN traces t ON t.no = a.trace_no ORDER BY a.id DESC",
            *values,
            limit,
        )
        texts = self._texts(i for r in rows for i in r[1:4])
        return [
            Attempt(
                Op(r[0]),
                texts.get(r[1], ""),
                texts.get(r[2], ""),
                texts.get(r[3], ""),
                r[4],
                (r[5] - r[4]) / NS,
                r[6].hex(),
                r[7].hex(),
            )
            for r in rows
        ]

    # -- traces ----------------------------------------------------------------------------------

    def traces(self, filters: Filter, query: TraceQuery) -> TracePage:
        """A page of the list of traces."""
        where: list[str] = []
        values: list[Any] = []
        window = filters.window
        if window.start is not None:
            where.append("end_ns >= ?")
            values.append(window.start)
        if window.end is not None:
            where.append("start_ns <= ?")
            values.append(window.end)
        if query.min_duration is not None:
            where.append("end_ns - start_ns >= ?")
            values.append(int(query.min_duration * NS))
        if query.max_duration is not None:
            where.append("end_ns - start_ns <= ?")
            values.append(int(query.max_duration * NS))
        if query.error == "any":
            where.append("errors > 0")
        elif query.error == "none":
            where.append("errors = 0")
        groups: list[set[int]] = []
        if query.error not in ("", "any", "none"):
            groups.append({t for t in (self._term(TERM_ERROR, query.error),) if t})
        if filters.service:
            groups.append({t for t in (self._term(TERM_SERVICE, filters.service),) if t})
        if filters.peer:
            terms = self._peer_terms(filters.peer)
            question = self._term(TERM_DNS, split_host_port(filters.peer)[0])
            groups.append(terms | ({question} if question else set()))
        if query.text:
            identity = _trace_id_range(query.text)
            matches = self._matching_terms(query.text)
            if identity:
                where.append(f"(trace_id BETWEEN ? AND ? OR no IN ({_OF_TERMS}))")
                values += [*identity, json.dumps(list(matches))]
            else:
                groups.append(matches)
        stored, oldest, newest = self._extent()
        if any(not g for g in groups):
            return TracePage([], False, stored, oldest, newest)
        common: list[set[int]] = []
        for group in groups:
            # A rare term drives the search; a common one is checked on candidates in their order.
            if self._are_rare(group, stored):
                where.append(f"no IN ({_OF_TERMS})")
                values.append(json.dumps(list(group)))
            else:
                common.append(group)
        column = {
            "arrival": "no",
            "start": "start_ns",
            "duration": "end_ns - start_ns",
            "spans": "spans",
            "errors": "errors",
        }[query.sort]
        direction = "DESC" if query.descending else "ASC"
        order = f"ORDER BY {column} {direction}{'' if column == 'no' else ', no DESC'}"
        wanted = query.offset + query.limit + 1
        candidates = f"FROM traces {'WHERE ' + ' AND '.join(where) if where else ''} {order}"
        columns = "no, trace_id, start_ns, end_ns, spans, errors, root_name, root_service, has_root"
        if not common:
            rows = self._rows(
                f"SELECT {columns} {candidates} LIMIT ? OFFSET ?",
                *values,
                query.limit + 1,
                query.offset,
            )
        else:
            # Common terms are in many of the first candidates; if not, more of them are looked at.
            checks = " AND ".join([_HAS_TERM] * len(common))
            sought = [json.dumps(list(group)) for group in common for _ in range(4)]
            for reach in (20 * wanted, 400 * wanted, -1):
                rows = self._rows(
                    f"SELECT * FROM (SELECT {columns} {candidates} LIMIT ?) AS t"
                    f" WHERE {checks} {order} LIMIT ?",
                    *values,
                    reach,
                    *sought,
                    wanted,
                )
                if len(rows) >= wanted:
                    break
            rows = rows[query.offset :]
        more = len(rows) > query.limit
        rows = rows[: query.limit]
        texts = self._texts(i for r in rows for i in (r[6], r[7]))
        tags = self._tags([r[0] for r in rows])
        return TracePage(
            [
                TraceRow(
                    r[1].hex(),
                    r[2],
                    (r[3] - r[2]) / NS,
                    texts.get(r[6], ""),
                    texts.get(r[7], ""),
                    r[4],
                    r[5],
                    bool(r[8]),
                    tags.get(r[0], ([], []))[0],
                    tags.get(r[0], ([], []))[1],
                )
                for r in rows
            ],
            more,
            stored,
            oldest,
            newest,
        )

    def _are_rare(self, terms: set[int], stored: int) -> bool:
        """Whether few traces have one of the terms."""
        few = max(_RARE, stored // 20)
        found = self._rows(
            f"SELECT count(*) FROM ({_OF_TERMS} LIMIT ?)", json.dumps(list(terms)), few
        )
        return int(found[0][0]) < few

    def _extent(self) -> tuple[int, int | None, int | None]:
        """About how many traces are stored, and the start times of the first and last to arrive."""
        first = self._db.execute("SELECT no, start_ns FROM traces ORDER BY no LIMIT 1").fetchone()
        if first is None:
            return 0, None, None
        last = self._db.execute("SELECT no, end_ns FROM traces ORDER BY no DESC LIMIT 1").fetchone()
        return last[0] - first[0] + 1, first[1], last[1]

    def _matching_terms(self, text: str) -> set[int]:
        return {
            row[0]
            for row in self._rows(
                "SELECT id FROM terms WHERE kind IN (?, ?, ?, ?, ?) AND text LIKE ? ESCAPE '\\'",
                TERM_SERVICE,
                TERM_NAME,
                TERM_PEER,
                TERM_ERROR,
                TERM_DNS,
                _like(text),
            )
        }

    def _tags(self, numbers: Sequence[int]) -> dict[int, tuple[list[str], list[str]]]:
        """Services and peers of some traces, by the spans' own columns."""
        out: dict[int, tuple[list[str], list[str]]] = {}
        rows = self._rows(
            "SELECT DISTINCT s.trace_no, r.service_id, CASE t.kind WHEN ? THEN s.peer_id END"
            " FROM spans s JOIN origins o ON o.id = s.origin_id"
            " JOIN resources r ON r.id = o.resource_id LEFT JOIN terms t ON t.id = s.peer_id"
            " WHERE s.trace_no IN (SELECT value FROM json_each(?)) LIMIT 20000",
            TERM_PEER,
            json.dumps(list(numbers)),
        )
        texts = self._texts(i for r in rows for i in r[1:3])
        for no, service, peer in rows:
            services, peers = out.setdefault(no, ([], []))
            for text, into in (
                (texts.get(service, ""), services),
                (texts.get(peer, ""), peers),
            ):
                if text and text not in into:
                    into.append(text)
        for services, peers in out.values():
            services.sort()
            # A handshake names the host alone; the connect before it named the port as well.
            with_port = {host for host, port in map(split_host_port, peers) if port}
            peers[:] = sorted(p for p in peers if p not in with_port)
        return out

    def trace(self, trace_id: str, limit: int = MAX_WATERFALL) -> Trace | None:
        """A trace by its hexadecimal id; None when it is not stored."""
        row = self._db.execute(
            "SELECT no, start_ns, end_ns, spans, root_name FROM traces WHERE trace_id = ?",
            (bytes.fromhex(trace_id),),
        ).fetchone()
        if row is None:
            return None
        spans = self._spans(row[0], limit)
        total = row[3]
        if len(spans) < limit:
            total = len(spans)
        else:
            total = max(
                total,
                self._rows("SELECT count(*) FROM spans WHERE trace_no = ?", row[0])[0][0],
            )
        logs = self._logs(bytes.fromhex(trace_id))
        name = self._texts([row[4]]).get(row[4], "")
        ordered = tree_order(spans)
        return Trace(trace_id, row[1], row[2], name, ordered, logs, total)

    def _spans(self, no: int, limit: int) -> list[SpanRow]:
        rows = self._rows(
            "SELECT s.body, o.resource_id, o.scope_id, s.error_id, s.peer_id, t.text"
            " FROM spans s JOIN origins o ON o.id = s.origin_id"
            " JOIN resources r ON r.id = o.resource_id"
            " JOIN terms t ON t.id = r.service_id WHERE s.trace_no = ?"
            " ORDER BY s.start_ns LIMIT ?",
            no,
            limit,
        )
        texts = self._texts(i for r in rows for i in r[3:5])
        resources = {i: self._resource(i) for i in {r[1] for r in rows}}
        scopes = {i: self._scope(i) for i in {r[2] for r in rows}}
        return [
            _span_row(
                Span.FromString(r[0]),
                r[5],
                resources[r[1]],
                scopes[r[2]],
                texts.get(r[3], ""),
                texts.get(r[4], ""),
            )
            for r in rows
        ]

    def _resource(self, identity: int) -> dict[str, Any]:
        body = self._rows("SELECT body FROM resources WHERE id = ?", identity)[0][0]
        return {kv.key: plain(kv.value) for kv in Resource.FromString(body).attributes}

    def _scope(self, identity: int) -> InstrumentationScope:
        body = self._rows("SELECT body FROM scopes WHERE id = ?", identity)[0][0]
        scope = InstrumentationScope()
        scope.ParseFromString(body)
        return scope

    def _logs(self, trace_id: bytes, limit: int = 500) -> list[LogRow]:
        out = []
        for time_ns, event, severity, body, span_id, service in self._rows(
            "SELECT l.time_ns, l.event, l.severity, l.body, l.span_id, t.text FROM logs l"
            " JOIN resources r ON r.id = l.resource_id JOIN terms t ON t.id = r.service_id"
            " WHERE l.trace_id = ? AND l.trace_id <> x'' ORDER BY l.time_ns LIMIT ?",
            trace_id,
            limit,
        ):
            record = LogRecord.FromString(body)
            content = plain(record.body)
            out.append(
                LogRow(
                    time_ns,
                    event,
                    severity,
                    "" if content is None else str(content),
                    span_id.hex(),
                    service,
                    {kv.key: plain(kv.value) for kv in record.attributes},
                )
            )
        return out

    def raw_trace(self, trace_id: str) -> list[tuple[bytes, bytes, str, bytes]]:
        """Resource, scope, scope's schema URL and span of every span, serialized, for an export."""
        return [
            (r[0], r[1], r[2], r[3])
            for r in self._rows(
                "SELECT r.body, c.body, c.schema_url, s.body FROM traces t"
                " JOIN spans s ON s.trace_no = t.no JOIN origins o ON o.id = s.origin_id"
                " JOIN resources r ON r.id = o.resource_id JOIN scopes c ON c.id = o.scope_id"
                " WHERE t.trace_id = ? ORDER BY o.resource_id, o.scope_id, s.start_ns",
                bytes.fromhex(trace_id),
            )
        ]

    # -- peers -----------------------------------------------------------------------------------

    def edges(self, filters: Filter, limit: int = 100) -> EdgePage:
        """Services and whom they call, busiest first.

        An edge counts connects; where a service reports none to that peer, its requests. Spans
        name the peer with its port; the metric, which does not depend on sampling, names the host.
        So the metric's figures are shown for the peer where it is the only one of that host.
        """
        sums = self._sums(
            self._filtered((Op.CONNECT, Op.CLIENT), filters, by_peer=True), filters.window, True
        )
        grouped: dict[tuple[int, int], dict[Op, dict[int, dict[int, float]]]] = {}
        metrics: dict[tuple[int, int], dict[int, dict[int, float]]] = {}
        for identity, counts in sums.items():
            op, service, peer, _, source = self._series[identity]
            if source == SOURCE_METRIC:
                metrics.setdefault((service, peer), {})[identity] = counts
            else:
                grouped.setdefault((service, peer), {}).setdefault(op, {})[identity] = counts
        texts = self._texts(i for key in (*grouped, *metrics) for i in key)
        ports: dict[tuple[int, str], list[tuple[int, int]]] = {}
        for service, peer in grouped if metrics else ():
            host = split_host_port(texts.get(peer, ""))[0]
            ports.setdefault((service, host), []).append((service, peer))
        for (service, peer), counted in metrics.items():
            known = ports.get((service, texts.get(peer, "")), [])
            if not known:
                grouped[service, peer] = {Op.CONNECT: counted}
            elif len(known) == 1:
                spans = self._summary(grouped[known[0]].get(Op.CONNECT, {}))
                if self._summary(counted).count >= spans.count:
                    grouped[known[0]][Op.CONNECT] = counted
        targets = dict(self._rows("SELECT peer_id, service_id FROM peer_services"))
        names_ = self._texts(targets.values())
        seconds = self._covered(filters.window)
        busiest = []
        for (service, peer), ops in grouped.items():
            basis = Op.CONNECT if Op.CONNECT in ops else Op.CLIENT
            count = sum(sum(counts.values()) for counts in ops[basis].values())
            busiest.append((-count, texts.get(service, ""), texts.get(peer, ""), peer, ops, basis))
        busiest.sort(key=lambda e: e[:3])
        edges = []
        for _, service_text, peer_text, peer, ops, basis in busiest[:limit]:
            summary = self._summary(ops[basis])
            edges.append(
                Edge(
                    service_text,
                    peer_text,
                    names_.get(targets.get(peer, 0), ""),
                    basis,
                    summary.count / seconds,
                    summary,
                )
            )
        return EdgePage(edges, len(busiest))

    def _covered(self, window: Window) -> float:
        """Seconds of what `_sums` of single peers adds up: whole slots, up to now."""
        width, first, after = self._slots(window, by_peer=True)
        row = self._db.execute("SELECT min(slot) FROM latency WHERE width = ?", (width,)).fetchone()
        # Before the first that is stored nothing was counted.
        if row[0] is not None and (window.start is None or row[0] > first):
            first = row[0]
        end = min(self.now, after * width * NS)
        return max(1.0, (end - first * width * NS) / NS)

    def heatmap(self, filters: Filter, op: Op = Op.CONNECT, columns: int = 60) -> Heatmap:
        """Durations over time. With no observation the summary's count is 0."""
        sums, source = self._present((op,), filters)
        series = list(sums)
        by_peer = bool(filters.peer)
        window = filters.window
        start, step, slots = self._timeline(series, window, columns, by_peer)
        empty = next((i for i, slot in enumerate(slots) if slot), 0)
        if empty > len(slots) // 3:
            # Most of the time nothing was there yet: the rest, in finer slots.
            window = Window(start + int(empty * step * NS), window.end)
            start, step, slots = self._timeline(series, window, columns, by_peer)
            empty = next((i for i, slot in enumerate(slots) if slot), 0)
            empty = max(0, min(empty - 1, len(slots) - 8))
            start, slots = start + int(empty * step * NS), slots[empty:]
        return Heatmap(start, step, slots, self._summary(sums), source)

    def failures(self, filters: Filter) -> list[tuple[Op, str, float]]:
        """Failed operations by kind and error type, most frequent first."""
        ops = (Op.LOOKUP, Op.CONNECT, Op.TLS, Op.SEND, Op.CLIENT)
        sums, _ = self._present(ops, filters)
        totals: dict[tuple[Op, int], float] = {}
        for identity, counts in sums.items():
            op, _, _, error, _ = self._series[identity]
            if error:
                totals[op, error] = totals.get((op, error), 0.0) + sum(counts.values())
        texts = self._texts(error for _, error in totals)
        return sorted(
            ((op, texts.get(error, ""), n) for (op, error), n in totals.items()),
            key=lambda row: -row[2],
        )

    # -- names -----------------------------------------------------------------------------------

    def dns(self, filters: Filter) -> list[DnsName]:
        """The names looked up, most frequent first."""
        asked = self._filtered((Op.LOOKUP,), filters, by_peer=True)
        everything = self._sums(asked, filters.window, by_peer=True)
        chosen, _ = self._preferred(everything)
        sums = {identity: everything[identity] for identity in chosen}
        grouped: dict[int, dict[int, dict[int, float]]] = {}
        for identity, counts in sums.items():
            grouped.setdefault(self._series[identity][2], {})[identity] = counts
        # The buckets of the metric are too wide to tell a retry; the spans' durations do.
        spans: dict[int, dict[int, float]] = {}
        for identity, counts in everything.items():
            _, _, name, _, source = self._series[identity]
            if source == SOURCE_SPAN:
                into = spans.setdefault(name, {})
                for bucket, n in counts.items():
                    into[bucket] = into.get(bucket, 0.0) + n
        texts = self._texts(
            [*grouped, *(i for s in sums for i in (self._series[s][1], self._series[s][3]))]
        )
        answers: dict[int, list[str]] = {}
        for name, answer in self._rows(
            "SELECT name_id, answer FROM dns_answers WHERE name_id IN"
            " (SELECT value FROM json_each(?)) ORDER BY seen_s DESC, answer LIMIT 20000",
            json.dumps(list(grouped)),
        ):
            answers.setdefault(name, []).append(answer)
        out = []
        for name, series in grouped.items():
            errors: dict[str, float] = {}
            for identity, counts in series.items():
                error = self._series[identity][3]
                if error:
                    text = texts.get(error, "")
                    errors[text] = errors.get(text, 0.0) + sum(counts.values())
            services = sorted({texts.get(self._series[i][1], "") for i in series})
            out.append(
                DnsName(
                    texts.get(name, "") or "(name not reported)",
                    self._summary(series),
                    errors,
                    answers.get(name, [])[:16],
                    services,
                    spans.get(name, {}).get(histogram.FIVE_SECONDS, 0.0),
                    spans.get(name, {}).get(histogram.TEN_SECONDS, 0.0),
                )
            )
        out.sort(key=lambda n: (-n.summary.count, n.name))
        return out

    # -- audit -----------------------------------------------------------------------------------

    def audit(
        self,
        filters: Filter,
        action: str = "",
        rule: str = "",
        text: str = "",
        offset: int = 0,
        limit: int = 100,
    ) -> AuditPage:
        """Decisions, newest first, with counts by action and by rule over the same filter."""
        # Records that are no decision are kept as links of their chain alone.
        where: list[str] = ["a.action <> ''"]
        values: list[Any] = []
        window = filters.window
        if window.start is not None:
            where.append("a.time_ns >= ?")
            values.append(window.start)
        if window.end is not None:
            where.append("a.time_ns <= ?")
            values.append(window.end)
        if filters.service:
            where.append("a.service_id = ?")
            values.append(self._term(TERM_SERVICE, filters.service) or -1)
        if filters.peer:
            host, port = split_host_port(filters.peer)
            prefix = f"[{host}]:" if ":" in host else f"{host}:"
            if port:
                where.append("a.peer = ?")
                values.append(filters.peer)
            else:
                where.append("(a.peer = ? OR substr(a.peer, 1, ?) = ?)")
                values += [host, len(prefix), prefix]
        if text:
            where.append(
                "(a.peer || ' ' || a.rule || ' ' || a.event || ' ' || a.outcome || ' ' ||"
                " a.direction || ' ' || coalesce(a.pid, '')) LIKE ? ESCAPE '\\'"
            )
            values.append(_like(text))
        shared = " AND ".join(where)
        if action:
            where.append("a.action = ?")
            values.append(action)
        if rule:
            where.append("a.rule = ?")
            values.append(rule)
        rows = self._rows(
            "SELECT a.time_ns, a.service_id, a.action, a.rule, a.event, a.direction, a.peer,"
            " a.outcome, a.duration, a.pid, a.trace_id, a.span_id, a.sequence, a.chain"
            f" FROM audit a WHERE {' AND '.join(where)} ORDER BY a.time_ns DESC, a.id DESC"
            " LIMIT ? OFFSET ?",
            *values,
            limit + 1,
            offset,
        )
        base = values[: len(values) - bool(action) - bool(rule)]
        # Counted over the newest records only: a rendering must not scan a week of decisions.
        counted = f"(SELECT * FROM audit a WHERE {shared} ORDER BY a.time_ns DESC LIMIT 50000)"
        counts = dict(self._rows(f"SELECT action, count(*) FROM {counted} GROUP BY 1", *base))
        rules = self._rows(
            f"SELECT rule, action, count(*) FROM {counted} WHERE rule <> ''"
            " GROUP BY 1, 2 ORDER BY 3 DESC LIMIT 12",
            *base,
        )
        texts = self._texts(r[1] for r in rows)
        return AuditPage(
            [
                Decision(
                    r[0],
                    texts.get(r[1], ""),
                    r[2],
                    r[3],
                    r[4],
                    r[5],
                    r[6],
                    r[7],
                    r[8],
                    r[9],
                    r[10].hex(),
                    r[11].hex(),
                    r[12],
                    r[13],
                )
                for r in rows[:limit]
            ],
            counts,
            [(r[0], r[1], r[2]) for r in rules],
            len(rows) > limit,
        )

    def chains(self, limit: int = 50_000) -> list[Chain]:
        """Continuity of each hash chain over its newest stored records."""
        rows = self._rows(
            "WITH r AS (SELECT * FROM audit WHERE chain <> '' AND sequence IS NOT NULL"
            " ORDER BY id DESC LIMIT ?),"
            " w AS (SELECT chain, service_id, sequence, hash, previous, chain_state, id,"
            " lag(sequence) OVER c AS before, lag(hash) OVER c AS expected"
            " FROM r WINDOW c AS (PARTITION BY chain ORDER BY sequence, id))"
            " SELECT chain, max(service_id), min(sequence), max(sequence), count(*),"
            " sum(CASE WHEN before IS NOT NULL AND sequence > before THEN sequence - before - 1"
            " ELSE 0 END),"
            " sum(before = sequence - 1 AND expected <> '' AND previous <> ''"
            " AND previous <> expected),"
            " min(CASE WHEN (sequence > before + 1) OR (before = sequence - 1 AND expected <> ''"
            " AND previous <> '' AND previous <> expected) OR before = sequence"
            " THEN sequence END),"
            " sum(before = sequence),"
            " coalesce((SELECT chain_state FROM r r2 WHERE r2.chain = w.chain"
            " ORDER BY r2.id DESC LIMIT 1), '')"
            " FROM w GROUP BY chain ORDER BY max(id) DESC LIMIT 20",
            limit,
        )
        texts = self._texts(r[1] for r in rows)
        return [
            Chain(
                chain=r[0],
                service=texts.get(r[1], ""),
                first=r[2],
                last=r[3],
                records=r[4],
                missing=r[5] or 0,
                broken=r[6] or 0,
                first_break=r[7],
                repeated=r[8] or 0,
                reported=r[9],
            )
            for r in rows
        ]

    # -- health ----------------------------------------------------------------------------------

    def gauges(self, metric: str, service: str = "", max_age: float = 300.0) -> list[Gauge]:
        """The newest values of a metric's series that reported within `max_age` seconds."""
        rows = self._rows(
            "SELECT m.name, t.text, m.resource_id, r.pid, m.attributes, m.state, m.seen_ns, m.unit"
            " FROM metric_series m JOIN terms t ON t.id = m.service_id"
            " JOIN resources r ON r.id = m.resource_id WHERE m.name = ? AND m.arrived_s >= ?"
            " ORDER BY m.id",
            metric,
            self.now // NS - int(max_age),
        )
        return [
            Gauge(r[0], r[1], r[2], r[3], json.loads(r[4]), state[1][0], r[6], r[7])
            for r in rows
            if (not service or r[1] == service) and (state := json.loads(r[5]))
        ]

    def _total(self, metric: str, filters: Filter) -> float:
        """What a counter added up to, over all that is stored."""
        row = self._db.execute(
            "SELECT total(p.value) FROM metric_series m JOIN terms t ON t.id = m.service_id"
            " JOIN metric_points p ON p.series_id = m.id WHERE m.name = ?"
            " AND (? = '' OR t.text = ?)",
            (metric, filters.service, filters.service),
        ).fetchone()
        return float(row[0])

    def port_use(self, filters: Filter) -> list[PortUse]:
        """Ephemeral ports by destination: reported ones, else counted from the snapshots."""
        limits = {g.instance: int(g.value) for g in self.gauges(names.METRIC_PORT_LIMIT)}
        out: list[PortUse] = []
        reporting: set[int] = set()
        for gauge in self.gauges(names.METRIC_PORTS, filters.service):
            host = str(
                gauge.attributes.get(names.SERVER_ADDRESS)
                or gauge.attributes.get(names.NETWORK_PEER_ADDRESS)
                or ""
            )
            port = gauge.attributes.get(names.SERVER_PORT) or gauge.attributes.get(
                names.NETWORK_PEER_PORT
            )
            destination = host if not isinstance(port, int) else _destination(host, port)
            reporting.add(gauge.instance)
            out.append(
                PortUse(
                    gauge.service,
                    destination,
                    int(gauge.value),
                    limits.get(gauge.instance, 0),
                    "metric",
                )
            )
        counted: dict[tuple[str, str, int], int] = {}
        for c in self.connections(Filter(filters.service), live_only=True):
            outbound = c.direction != "inbound" and c.state not in ("listen", "closed")
            if (
                c.instance not in reporting
                and outbound
                and c.address
                and split_host_port(c.local)[1]
            ):
                key = (c.service, c.address, c.instance)
                counted[key] = counted.get(key, 0) + 1
        for (service, destination, instance), used in counted.items():
            out.append(PortUse(service, destination, used, limits.get(instance, 0), "snapshots"))
        if filters.peer:
            host, port = split_host_port(filters.peer)
            out = [
                u
                for u in out
                if u.destination == filters.peer
                or (not port and split_host_port(u.destination)[0] == host)
            ]
        out.sort(key=lambda u: (-u.used, u.destination))
        return out

    def leaks(self, filters: Filter, limit: int = 100) -> list[Leak]:
        """The leak ledger, one row for each origin (kind, service, peer and stack)."""
        where: list[str] = ["1"]
        values: list[Any] = []
        if filters.service:
            where.append("t.text = ?")
            values.append(filters.service)
        if filters.peer:
            where.append("l.peer = ?")
            values.append(filters.peer)
        return [
            Leak(r[0], r[1], r[2], r[3], r[4], r[5], r[6], r[7], r[8].hex(), r[9], r[10])
            for r in self._rows(
                "SELECT t.text, l.kind, l.peer, l.state, l.pid, l.descriptor, max(l.age), l.stack,"
                " l.trace_id, max(l.time_ns), count(*) FROM leaks l"
                f" JOIN terms t ON t.id = l.service_id WHERE {' AND '.join(where)}"
                " GROUP BY t.text, l.kind, l.peer, l.stack ORDER BY 10 DESC LIMIT ?",
                *values,
                limit,
            )
        ]

    def intake(self) -> dict[str, int]:
        """What was accepted, refused and cut, by reason, since the database was made."""
        return dict(self._rows("SELECT reason, n FROM intake"))

    def meta(self) -> dict[str, Any]:
        """What the store notes about itself (`stored_…`, `lost_…`, `lost_total_…`)."""
        return dict(self._rows("SELECT key, value FROM meta"))

    def has_anything(self) -> bool:
        """Whether anything was ever received."""
        return bool(self._rows("SELECT 1 FROM resources LIMIT 1"))


def tree_order(spans: Sequence[SpanRow]) -> list[SpanRow]:
    """Spans as a depth-first walk: parents before their children, siblings by start.

    A span whose parent is not among them is a root of its own, and so is one of a cycle.
    """
    by_id: dict[str, SpanRow] = {}
    for span in spans:
        by_id.setdefault(span.span_id, span)
    children: dict[str, list[SpanRow]] = {}
    roots: list[SpanRow] = []
    for span in by_id.values():
        if span.parent_id and span.parent_id in by_id and span.parent_id != span.span_id:
            children.setdefault(span.parent_id, []).append(span)
        else:
            span.orphan = bool(span.parent_id)
            roots.append(span)
    out: list[SpanRow] = []
    seen: set[str] = set()

    def walk(start: Iterable[SpanRow]) -> None:
        stack = [(s, 0) for s in sorted(start, key=_by_time, reverse=True)]
        while stack:
            span, depth = stack.pop()
            if span.span_id in seen:
                continue
            seen.add(span.span_id)
            below = children.get(span.span_id, [])
            span.depth, span.children = depth, len(below)
            out.append(span)
            stack += [(s, depth + 1) for s in sorted(below, key=_by_time, reverse=True)]

    walk(roots)
    # What is left hangs on a cycle of parents.
    for span in sorted(by_id.values(), key=_by_time):
        if span.span_id not in seen:
            span.orphan = True
            walk([span])
    return out


def _by_time(span: SpanRow) -> tuple[int, int, str]:
    return span.start, -span.end, span.span_id


def _span_row(
    span: Span,
    service: str,
    resource: dict[str, Any],
    scope: InstrumentationScope,
    error: str,
    peer: str,
) -> SpanRow:
    attributes = {kv.key: plain(kv.value) for kv in span.attributes}
    retransmits = attributes.get(names.RETRANSMITS)
    stall = attributes.get(names.SEND_STALL)
    limit = (1 << 63) - 1
    start = min(span.start_time_unix_nano, limit)
    return SpanRow(
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        name=span.name,
        kind=int(span.kind),
        op=op_of(span.name, span.kind),
        service=service,
        scope=scope.name,
        scope_version=scope.version,
        start=start,
        end=max(start, min(span.end_time_unix_nano, limit)),
        error=error,
        status_message=span.status.message,
        peer=peer,
        attributes=attributes,
        resource=resource,
        events=[
            (e.time_unix_nano, e.name, {kv.key: plain(kv.value) for kv in e.attributes})
            for e in span.events
        ],
        links=[(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
        trace_state=span.trace_state,
        dropped_attributes=span.dropped_attributes_count,
        retransmits=retransmits if isinstance(retransmits, int) else 0,
        # Comparisons with NaN are false: it becomes 0.
        stall=min(float(stall), 1e9) if isinstance(stall, (int, float)) and stall > 0 else 0.0,
    )


def _destination(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _history(text: str) -> list[float]:
    return [
        int(text[i : i + HISTORY_WIDTH]) / 1e6
        for i in range(0, len(text) - HISTORY_WIDTH + 1, HISTORY_WIDTH)
    ]


def _like(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"


def _trace_id_range(text: str) -> tuple[bytes, bytes] | None:
    """The ids that begin with `text`, when it can be the beginning of one."""
    text = text.strip().lower()
    if not 8 <= len(text) <= 32 or any(c not in "0123456789abcdef" for c in text):
        return None
    return bytes.fromhex(text.ljust(32, "0")), bytes.fromhex(text.ljust(32, "f"))
