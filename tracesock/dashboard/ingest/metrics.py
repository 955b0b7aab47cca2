"""Data points into rows: gauges and counters by slot, histograms of durations as series."""

from __future__ import annotations

import hashlib
import json
import math
import sqlite3
from collections.abc import Callable
from typing import Any, Final

from tracesock.dashboard import histogram, names
from tracesock.dashboard.classify import Op, plain
from tracesock.dashboard.ingest.bulk import insert
from tracesock.dashboard.ingest.catalog import TERM_LENGTH, Catalog
from tracesock.dashboard.ingest.slots import Slots
from tracesock.dashboard.otlp import Limits
from tracesock.dashboard.schema import (
    FINE,
    SOURCE_METRIC,
    TERM_DNS,
    TERM_ERROR,
    TERM_PEER,
)

_MAX_NS: Final = (1 << 63) - 1
_FINE_NS: Final = FINE * 1_000_000_000
_SERIES_CAP: Final = 10_000
_BUCKETS_CAP: Final = 1024
_DURATIONS: Final = {
    names.METRIC_LOOKUP: Op.LOOKUP,
    names.METRIC_CONNECT: Op.CONNECT,
    names.METRIC_SEND: Op.SEND,
    names.METRIC_STALL: Op.STALL,
    names.METRIC_RTT: Op.RTT,
}
_UNIT_SECONDS: Final = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
# A cumulative series that began this long before its first point was running before the dashboard
# was: its first value is a starting point, not an increase.
_FRESH_NS: Final = 90 * 1_000_000_000


class MetricIntake:
    """Gathers data points with `take`, writes them with `flush`."""

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
        # Number and state of each series: its start, and its last or summed values.
        self._series: dict[bytes, tuple[int, list[Any]]] = {}
        self._series_count = int(db.execute("SELECT count(*) FROM metric_series").fetchone()[0])
        self._point_rows: list[tuple[Any, ...]] = []
        self._states: dict[int, tuple[list[Any], int, int]] = {}

    def take(self, request: Any, arrived: int) -> int:
        """Gathers the data points of a request; returns how many were rejected."""
        rejected = 0
        for resource_metrics in request.resource_metrics:
            resource, service = self._catalog.resource(resource_metrics.resource)
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
                        if not self._point(metric, kind, data, point, resource, service, arrived):
                            rejected += 1
        return rejected

    def _point(
        self,
        metric: Any,
        kind: str,
        data: Any,
        point: Any,
        resource: int,
        service: int,
        arrived: int,
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
        cumulative = getattr(data, "aggregation_temporality", 0) == 2
        slot = time_ns // _FINE_NS
        if kind in ("gauge", "sum"):
            which = point.WhichOneof("value")
            value = float(getattr(point, which)) if which else 0.0
            if not math.isfinite(value):  # no figure to show; and SQLite has no NaN
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
        self._states[identity] = (state, time_ns, arrived)
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
        op = _DURATIONS.get(metric.name)
        if op is None:
            return
        error_type = attributes.get(names.ERROR_TYPE)
        error = self._catalog.term(TERM_ERROR, str(error_type)) if error_type else 0
        peer = 0
        if op is Op.LOOKUP:
            question = attributes.get(names.DNS_QUESTION_NAME)
            peer = self._catalog.term(TERM_DNS, str(question)) if question else 0
        else:
            server = attributes.get(names.SERVER_ADDRESS)
            peer = self._catalog.term(TERM_PEER, str(server)) if server else 0
        series = self._catalog.series(int(op), service, peer, error, SOURCE_METRIC)
        for bucket, n in enumerate(increase[2:]):
            if n > 0:
                self._slots.add(time_ns, series, bucket, n)

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
        found = self._series.get(digest)
        if found is not None:
            return found
        row = self._db.execute(
            "SELECT id, state FROM metric_series WHERE digest = ?", (digest,)
        ).fetchone()
        if row is None:
            if self._series_count >= _SERIES_CAP:
                self._count("metric_series_over_the_cap", 1)
                return None
            cursor = self._db.execute(
                "INSERT INTO metric_series (digest, resource_id, service_id, name, kind, unit,"
                " attributes, state, seen_ns, arrived_s) VALUES (?, ?, ?, ?, ?, ?, ?, '[]', 0, 0)",
                (
                    digest,
                    resource,
                    service,
                    metric.name[:TERM_LENGTH],
                    kind,
                    metric.unit[:64],
                    text,
                ),
            )
            self._series_count += 1
            row = (cursor.lastrowid, "[]")
        entry = (int(row[0]), json.loads(row[1]))
        self._series[digest] = entry
        return entry

    def flush(self) -> None:
        """Writes what was gathered."""
        # A counter (n > 0) adds up within its slot, a gauge keeps the last value.
        insert(
            self._db,
            "INSERT INTO metric_points",
            self._point_rows,
            "ON CONFLICT DO UPDATE SET"
            " value = CASE WHEN excluded.n > 0 THEN value ELSE 0 END + excluded.value,"
            " n = n + excluded.n, arrived_s = excluded.arrived_s",
        )
        self._db.executemany(
            "UPDATE metric_series SET state = ?, seen_ns = ?, arrived_s = ? WHERE id = ?",
            [
                (json.dumps(state, separators=(",", ":")), seen, arrived, identity)
                for identity, (state, seen, arrived) in self._states.items()
            ],
        )
        self._point_rows = []
        self._states = {}


def _number(value: float) -> float:
    """The value, 0 where it is no number to add up."""
    return float(value) if math.isfinite(value) else 0.0


def _bucket_count(kind: str, point: Any) -> int:
    if kind == "histogram":
        return len(point.bucket_counts)
    return len(point.positive.bucket_counts) if kind == "exponential_histogram" else 0
