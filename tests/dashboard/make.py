"""OTLP requests for tests, in few words."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

MS = 1_000_000
SECOND = 1_000_000_000
_serial = itertools.count(1)


def attributes(into: Any, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        target = into.add(key=key).value
        if isinstance(value, bool):
            target.bool_value = value
        elif isinstance(value, int):
            target.int_value = value
        elif isinstance(value, float):
            target.double_value = value
        elif isinstance(value, list):
            for item in value:
                target.array_value.values.add().string_value = item
        else:
            target.string_value = value


def trace_id(number: int) -> bytes:
    return number.to_bytes(16, "big")


def span_id(number: int) -> bytes:
    return number.to_bytes(8, "big")


class Spans:
    """A request with spans of one service, added one by one."""

    def __init__(self, service: str = "shop", scope: str = "tracesock") -> None:
        self.request = ExportTraceServiceRequest()
        resource = self.request.resource_spans.add()
        attributes(resource.resource.attributes, {"service.name": service})
        self._scope = resource.scope_spans.add()
        self._scope.scope.name = scope
        self.now = time.time_ns()

    def add(
        self,
        name: str,
        trace: int = 1,
        span: int | None = None,
        parent: int = 0,
        start_ms: float = 0,
        duration_ms: float = 1,
        kind: int = 1,
        error: str = "",
        **values: Any,
    ) -> Spans:
        """A span `start_ms` after the request's time; attribute names with `__` for the dot."""
        made = self._scope.spans.add(
            trace_id=trace_id(trace),
            span_id=span_id(next(_serial) + (1 << 32) if span is None else span),
            parent_span_id=span_id(parent) if parent else b"",
            name=name,
            kind=kind,
            start_time_unix_nano=self.now + int(start_ms * MS),
            end_time_unix_nano=self.now + int((start_ms + duration_ms) * MS),
        )
        named = {k.replace("__", "."): v for k, v in values.items()}
        if error:
            made.status.code = 2
            named["error.type"] = error
        attributes(made.attributes, named)
        return self

    def connect(self, host: str, port: int, **options: Any) -> Spans:
        return self.add(
            f"socket connect 192.0.2.1:{port}",
            server__address=host,
            server__port=port,
            network__peer__address="192.0.2.1",
            network__peer__port=port,
            **options,
        )

    def lookup(self, name: str, **options: Any) -> Spans:
        return self.add(f"DNS lookup {name}", dns__question__name=name, **options)

    @property
    def body(self) -> bytes:
        return bytes(self.request.SerializeToString())


def log_request(
    event: str, records: list[dict[str, Any]], service: str = "shop", at: int | None = None
) -> bytes:
    """A request with one log record for each mapping; `trace`, `body`, `time` are its own."""
    request = ExportLogsServiceRequest()
    resource = request.resource_logs.add()
    attributes(resource.resource.attributes, {"service.name": service, "process.pid": 77})
    scope = resource.scope_logs.add()
    now = time.time_ns() if at is None else at
    for values in records:
        values = dict(values)
        record = scope.log_records.add(
            time_unix_nano=values.pop("time", now), event_name=event, severity_number=9
        )
        if "trace" in values:
            record.trace_id = trace_id(values.pop("trace"))
            record.span_id = span_id(values.pop("span", 1))
        if "body" in values:
            record.body.string_value = values.pop("body")
        attributes(record.attributes, values)
    return bytes(request.SerializeToString())


def snapshot(identity: str, **values: Any) -> dict[str, Any]:
    """The attributes of a connection in a snapshot."""
    return {
        "tracesock.connection.id": identity,
        "tracesock.connection.state": "established",
        "tracesock.connection.age": 12.5,
        "tracesock.connection.sent": 2048,
        "tracesock.connection.received": 4096,
        "tracesock.connection.queued": 0,
        "tracesock.connections.interval": 5.0,
        "tracesock.tcp.rtt": 0.0021,
        "tracesock.tcp.retransmits": 0,
        "network.peer.address": "192.0.2.7",
        "network.peer.port": 443,
        "network.local.address": "10.0.0.2",
        "network.local.port": 50123,
        "server.address": "api.example",
        **{k.replace("__", "."): v for k, v in values.items()},
    }


def decision(sequence: int, action: str = "allow", **values: Any) -> dict[str, Any]:
    """The attributes of an audit decision, with its place in a chain."""
    return {
        "tracesock.audit.action": action,
        "tracesock.audit.rule": f"rule-{action}",
        "tracesock.audit.event": "socket.connect",
        "tracesock.audit.direction": "egress",
        "tracesock.audit.outcome": "ok",
        "tracesock.audit.duration": 0.002,
        "tracesock.audit.sequence": sequence,
        "tracesock.audit.chain.id": "c1",
        "tracesock.audit.chain.hash": f"h{sequence}",
        "tracesock.audit.chain.previous": f"h{sequence - 1}",
        "network.peer.address": "192.0.2.7",
        "network.peer.port": 443,
        **{k.replace("__", "."): v for k, v in values.items()},
    }


class Metrics:
    """A request with data points of one service."""

    def __init__(self, service: str = "shop") -> None:
        self.request = ExportMetricsServiceRequest()
        resource = self.request.resource_metrics.add()
        attributes(resource.resource.attributes, {"service.name": service, "process.pid": 77})
        self._metrics = resource.scope_metrics.add().metrics
        self.now = time.time_ns()
        self.start = self.now - 10 * SECOND

    def gauge(self, name: str, value: float, **values: Any) -> Metrics:
        point = self._metrics.add(name=name).gauge.data_points.add(
            time_unix_nano=self.now, as_double=value
        )
        attributes(point.attributes, {k.replace("__", "."): v for k, v in values.items()})
        return self

    def counter(self, name: str, value: int, cumulative: bool = True, **values: Any) -> Metrics:
        metric = self._metrics.add(name=name)
        metric.sum.is_monotonic = True
        metric.sum.aggregation_temporality = 2 if cumulative else 1
        point = metric.sum.data_points.add(
            start_time_unix_nano=self.start, time_unix_nano=self.now, as_int=value
        )
        attributes(point.attributes, {k.replace("__", "."): v for k, v in values.items()})
        return self

    def histogram(
        self,
        name: str,
        bounds: list[float],
        counts: list[int],
        cumulative: bool = True,
        unit: str = "s",
        **values: Any,
    ) -> Metrics:
        metric = self._metrics.add(name=name, unit=unit)
        metric.histogram.aggregation_temporality = 2 if cumulative else 1
        point = metric.histogram.data_points.add(
            start_time_unix_nano=self.start,
            time_unix_nano=self.now,
            count=sum(counts),
            sum=1.0,
            explicit_bounds=bounds,
            bucket_counts=counts,
        )
        attributes(point.attributes, {k.replace("__", "."): v for k, v in values.items()})
        return self

    @property
    def body(self) -> bytes:
        return bytes(self.request.SerializeToString())
