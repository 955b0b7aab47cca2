"""Log records into rows: snapshots of connections, audit decisions, leaks, and any other."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, Final

from tracesock.dashboard import names
from tracesock.dashboard.classify import host_port, plain
from tracesock.dashboard.ingest.bulk import insert
from tracesock.dashboard.ingest.catalog import Catalog
from tracesock.dashboard.ingest.cut import cut_values
from tracesock.dashboard.otlp import Limits

_MAX_NS: Final = (1 << 63) - 1
_NS: Final = 1_000_000_000
# A connection's round-trip history: the last 40 values, each a text of 9 characters.
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


class RecordIntake:
    """Gathers log records with `take`, writes them with `flush`."""

    def __init__(
        self,
        db: sqlite3.Connection,
        catalog: Catalog,
        limits: Limits,
        count: Callable[[str, int], None],
    ) -> None:
        self._db = db
        self._catalog = catalog
        self._limits = limits
        self._count = count
        self._clear()

    def _clear(self) -> None:
        self._connection_rows: list[tuple[Any, ...]] = []
        self._audit_rows: list[tuple[Any, ...]] = []
        self._leak_rows: list[tuple[Any, ...]] = []
        self._log_rows: list[tuple[Any, ...]] = []

    def take(self, request: Any, arrived_ns: int) -> int:
        """Gathers the log records of a request; returns how many were rejected."""
        rejected = 0
        for resource_logs in request.resource_logs:
            resource, service = self._catalog.resource(resource_logs.resource)
            for scope_logs in resource_logs.scope_logs:
                scope = self._catalog.scope(scope_logs.scope, scope_logs.schema_url)
                for record in scope_logs.log_records:
                    if len(record.attributes) > self._limits.attributes:
                        cut = len(record.attributes) - self._limits.attributes
                        del record.attributes[self._limits.attributes :]
                        self._count("attributes_cut", cut)
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
                        if row.text(names.AUDIT_CHAIN_ID):
                            # A link of the chain, such as the record of a close.
                            self._audit_row(row, "")
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
        self._audit_row(row, action)
        return True

    def _audit_row(self, row: _Record, action: str) -> None:
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
            self._count("attributes_cut", 1)
        cut = cut_values(record.attributes, self._limits.value)
        if cut:
            self._count("attributes_cut", cut)
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

    def flush(self) -> None:
        """Writes what was gathered."""
        updates = ", ".join(f"{c} = excluded.{c}" for c in _SNAPSHOT_COLUMNS)
        insert(
            self._db,
            "INSERT INTO connections",
            self._connection_rows,
            f"ON CONFLICT DO UPDATE SET {updates}, rtt_history ="
            f" substr(rtt_history || excluded.rtt_history, -{HISTORY_POINTS * HISTORY_WIDTH}),"
            " stack = CASE excluded.stack WHEN '' THEN stack ELSE excluded.stack END"
            " WHERE excluded.round_ns >= round_ns",
        )
        insert(
            self._db,
            "INSERT INTO audit (time_ns, resource_id, service_id, action, rule, event,"
            " direction, peer, outcome, duration, pid, trace_id, span_id, sequence, chain,"
            " hash, previous, chain_state, arrived_s)",
            self._audit_rows,
        )
        insert(self._db, "INSERT OR REPLACE INTO leaks", self._leak_rows)
        insert(
            self._db,
            "INSERT INTO logs (time_ns, resource_id, scope_id, event, severity, trace_id,"
            " span_id, body, arrived_s)",
            self._log_rows,
        )
        self._clear()


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
