"""The rows that queries return and pages show, and the filters they are asked with.

All times are nanoseconds since the epoch, all durations seconds, unless a name says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tracesock.dashboard import histogram
from tracesock.dashboard.classify import Op

NS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Window:
    """A span of time; None is unbounded."""

    start: int | None = None
    end: int | None = None

    @classmethod
    def last(cls, seconds: float, now: int) -> Window:
        return cls(now - int(seconds * NS), None)


@dataclass(frozen=True, slots=True)
class Filter:
    """What all screens share: a service, a peer (`host` or `host:port`), a window of time."""

    service: str = ""
    peer: str = ""
    window: Window = field(default_factory=Window)


@dataclass(frozen=True, slots=True)
class Summary:
    """Durations of one group: how many, how many failed, and the histogram."""

    count: float
    errors: float
    buckets: Mapping[int, float]

    def percentile(self, quantile: float) -> float | None:
        return histogram.percentile(self.buckets, quantile)

    @property
    def error_rate(self) -> float:
        return self.errors / self.count if self.count else 0.0


@dataclass(frozen=True, slots=True)
class Tiles:
    """The figures on top of the landing page, the durations over the last five minutes."""

    open: int
    failed_minute: float
    lookup: Summary
    connect: Summary
    lookup_source: str
    connect_source: str
    stalls: float
    stall_p95: float | None
    dropped: float
    refused: int
    failed_trend: Sequence[float]
    lookup_trend: Sequence[float | None]
    connect_trend: Sequence[float | None]
    stall_trend: Sequence[float]


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection by its newest snapshot. None is: not reported."""

    service: str
    instance: int
    connection_id: str
    pid: int | None
    peer: str
    address: str
    host: str
    local: str
    direction: str
    transport: str
    state: str
    descriptor: int | None
    age: float | None
    rtt: float | None
    rtt_history: Sequence[float]
    sent: int | None
    received: int | None
    retransmits: int | None
    queued: int | None
    trace_id: str
    span_id: str
    stack: str
    seen: int
    live: bool


@dataclass(frozen=True, slots=True)
class Attempt:
    """A connect, or a failed look-up or handshake, from a span."""

    op: Op
    service: str
    peer: str
    error: str
    start: int
    duration: float
    trace_id: str
    span_id: str


@dataclass(frozen=True, slots=True)
class TraceRow:
    """A trace in the list."""

    trace_id: str
    start: int
    duration: float
    name: str
    service: str
    spans: int
    errors: int
    has_root: bool
    services: Sequence[str]
    peers: Sequence[str]


@dataclass(frozen=True, slots=True)
class TraceQuery:
    """The filters of the list of traces; durations in seconds, `error` a type or `any`/`none`."""

    text: str = ""
    error: str = ""
    min_duration: float | None = None
    max_duration: float | None = None
    sort: str = "arrival"
    descending: bool = True
    offset: int = 0
    limit: int = 50


@dataclass(frozen=True, slots=True)
class TracePage:
    rows: Sequence[TraceRow]
    more: bool
    stored: int
    oldest: int | None
    newest: int | None


@dataclass(slots=True)
class SpanRow:
    """A span of a waterfall, with its place in the tree."""

    span_id: str
    parent_id: str
    name: str
    kind: int
    op: Op
    service: str
    scope: str
    scope_version: str
    start: int
    end: int
    error: str
    status_message: str
    peer: str
    attributes: dict[str, Any]
    resource: dict[str, Any]
    events: Sequence[tuple[int, str, dict[str, Any]]]
    links: Sequence[tuple[str, str]]
    trace_state: str
    dropped_attributes: int
    retransmits: int = 0
    stall: float = 0.0
    depth: int = 0
    children: int = 0
    orphan: bool = False

    @property
    def duration(self) -> float:
        return (self.end - self.start) / NS


@dataclass(frozen=True, slots=True)
class LogRow:
    time: int
    event: str
    severity: int
    body: str
    span_id: str
    service: str
    attributes: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Trace:
    """A whole trace: spans in tree order, log records in time order."""

    trace_id: str
    start: int
    end: int
    name: str
    spans: Sequence[SpanRow]
    logs: Sequence[LogRow]
    total: int

    @property
    def duration(self) -> float:
        return (self.end - self.start) / NS


@dataclass(frozen=True, slots=True)
class Edge:
    """Calls of a service to a peer. `target` is the service that answers there, where known."""

    service: str
    peer: str
    target: str
    basis: Op
    rate: float
    summary: Summary


@dataclass(frozen=True, slots=True)
class EdgePage:
    """The busiest edges, and how many there are."""

    rows: Sequence[Edge]
    total: int


@dataclass(frozen=True, slots=True)
class Heatmap:
    """Counts by time slot and bucket, with percentiles by slot."""

    start: int
    step: float
    slots: Sequence[Mapping[int, float]]
    summary: Summary
    source: str

    def percentiles(self, quantile: float) -> list[float | None]:
        return [histogram.percentile(slot, quantile) for slot in self.slots]


@dataclass(frozen=True, slots=True)
class DnsName:
    name: str
    summary: Summary
    errors: Mapping[str, float]
    answers: Sequence[str]
    services: Sequence[str]
    # Look-ups that took about five and about ten seconds: the resolver's retries.
    five_seconds: float = 0.0
    ten_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Decision:
    time: int
    service: str
    action: str
    rule: str
    event: str
    direction: str
    peer: str
    outcome: str
    duration: float | None
    pid: int | None
    trace_id: str
    span_id: str
    sequence: int | None
    chain: str


@dataclass(frozen=True, slots=True)
class AuditPage:
    rows: Sequence[Decision]
    counts: Mapping[str, int]
    rules: Sequence[tuple[str, str, int]]
    more: bool


@dataclass(frozen=True, slots=True)
class Chain:
    """What the stored records of one hash chain say about it.

    missing: sequence numbers that never came; broken: records whose `previous` is not the hash of
    the record before; repeated: sequence numbers that came more than once.
    """

    chain: str
    service: str
    first: int
    last: int
    records: int
    missing: int
    broken: int
    first_break: int | None
    repeated: int
    reported: str

    @property
    def intact(self) -> bool:
        return not (self.missing or self.broken or self.repeated) and self.reported in (
            "",
            "ok",
            "intact",
        )


@dataclass(frozen=True, slots=True)
class Gauge:
    """The newest value of a metric series."""

    name: str
    service: str
    instance: int
    pid: int | None
    attributes: Mapping[str, Any]
    value: float
    seen: int
    unit: str


@dataclass(frozen=True, slots=True)
class Leak:
    service: str
    kind: str
    peer: str
    state: str
    pid: int | None
    descriptor: int | None
    age: float | None
    stack: str
    trace_id: str
    time: int
    count: int


@dataclass(frozen=True, slots=True)
class PortUse:
    """Ephemeral ports in use towards one destination; `limit` 0 where it is not reported."""

    service: str
    destination: str
    used: int
    limit: int
    source: str
