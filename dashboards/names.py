"""Names in Prometheus of what docs/reference/telemetry.md lists.

The one path that is supported: the translation of OpenTelemetry's specification with suffixes
(https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/), which is what
opentelemetry-exporter-prometheus exposes, what the Collector's prometheusremotewrite exporter sends
with `add_metric_suffixes: true`, and what Prometheus and Mimir make of OTLP by default.
"""

from __future__ import annotations

import re

from tracesock.instrumentation import semconv
from tracesock.instrumentation.semconv import Metric

_UNITS = {"s": "seconds", "By": "bytes"}
# What is no up-down counter and no gauge, and has no buckets.
_COUNTERS = {
    semconv.IO,
    semconv.TCP_RETRANSMITS,
    semconv.TELEMETRY_DROPPED,
    semconv.TELEMETRY_RECORDS,
    semconv.AUDIT_DECISIONS,
}
# What `tracesock audit verify --textfile` writes, under its own names.
AUDIT_LOG = {
    "tracesock_audit_log_intact": "`tracesock audit verify --textfile`",
    "tracesock_audit_log_records": "`tracesock audit verify --textfile`",
    "tracesock_audit_log_problems": "`tracesock audit verify --textfile`",
    "tracesock_audit_log_verified_timestamp_seconds": "`tracesock audit verify --textfile`",
}


def label(attribute: str) -> str:
    """The label of an attribute: `server.address` is `server_address`."""
    return re.sub(r"[^a-zA-Z0-9_]", "_", attribute)


def base(metric: Metric) -> str:
    """The name of a metric's family: `tracesock.io` is `tracesock_io_bytes`."""
    unit = _UNITS.get(metric.unit, "")
    return label(metric.name) + (f"_{unit}" if unit else "")


def series(metric: Metric) -> tuple[str, ...]:
    """The names of a metric's series."""
    name = base(metric)
    if metric.boundaries:
        return f"{name}_bucket", f"{name}_sum", f"{name}_count"
    return (f"{name}_total",) if metric in _COUNTERS else (name,)


# The metric of each series; of what the log's verification writes, who writes it.
METRIC_OF: dict[str, str] = {
    **{name: f"`{metric.name}`" for metric in semconv.METRICS for name in series(metric)},
    **AUDIT_LOG,
}
# Told only where snapshots of the connections are: OTEL_LOGS_EXPORTER, or a logger provider.
WITH_SNAPSHOTS: dict[str, str] = {
    base(metric): f"`{metric.name}`"
    for metric in (semconv.DESCRIPTOR_COUNT, semconv.DESCRIPTOR_LIMIT)
}
LABELS: dict[str, frozenset[str]] = {
    name: frozenset(label(attribute) for attribute in metric.attributes)
    for metric in semconv.METRICS
    for name in series(metric)
}
