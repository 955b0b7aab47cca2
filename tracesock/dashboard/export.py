"""A stored trace as a file: OTLP JSON, and the Chrome trace format that Perfetto reads."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tracesock.dashboard.classify import OP_LABELS
from tracesock.dashboard.otlp import to_json
from tracesock.dashboard.rows import SpanRow, Trace


def otlp_json(rows: Sequence[tuple[bytes, bytes, str, bytes]]) -> str:
    """The trace as an OTLP `ExportTraceServiceRequest` in JSON, as any OTLP receiver takes it.

    `rows` come from `Queries.raw_trace`: resource, scope, the scope's schema URL and span.
    """
    request = ExportTraceServiceRequest()
    for resource, of_resource in groupby(rows, key=lambda r: r[0]):
        resource_spans = request.resource_spans.add()
        resource_spans.resource.ParseFromString(resource)
        for (scope, schema_url), spans in groupby(of_resource, key=lambda r: (r[1], r[2])):
            scope_spans = resource_spans.scope_spans.add(schema_url=schema_url)
            scope_spans.scope.ParseFromString(scope)
            for row in spans:
                scope_spans.spans.add().ParseFromString(row[3])
    return json.dumps(to_json(request), ensure_ascii=False, indent=1)


def chrome_trace(trace: Trace) -> str:
    """The trace in the Chrome trace event format (JSON object form, `X` and `i` events).

    A service is a process. Spans that overlap without nesting are put on tracks of their own, since
    the viewer takes what overlaps on one track for calls inside each other. Times are microseconds
    after the trace's start.
    """
    events: list[dict[str, Any]] = []
    services = list(dict.fromkeys(span.service for span in trace.spans))
    first = min((span.start for span in trace.spans), default=trace.start)
    place: dict[str, tuple[int, int]] = {}
    for pid, service in enumerate(services, 1):
        events.append(_name("process_name", pid, 0, service))
        spans = [span for span in trace.spans if span.service == service]
        for span, lane in _lanes(spans):
            place[span.span_id] = (pid, lane)
            arguments = {"span_id": span.span_id, "parent_id": span.parent_id, **span.attributes}
            if span.error:
                arguments["error"] = span.error
            events.append(
                {
                    "ph": "X",
                    "name": span.name,
                    "cat": OP_LABELS[span.op],
                    "pid": pid,
                    "tid": lane,
                    "ts": (span.start - first) / 1000,
                    "dur": (span.end - span.start) / 1000,
                    "args": _finite(arguments),
                }
            )
        for lane in sorted({lane for p, lane in place.values() if p == pid}):
            events.append(_name("thread_name", pid, lane, f"track {lane}"))
    for span in trace.spans:
        for time_ns, name, attributes in span.events:
            events.append(_instant(name, time_ns - first, place[span.span_id], attributes))
    for log in trace.logs:
        at = place.get(log.span_id, (1, 1))
        name = log.event or log.body[:80] or "log record"
        events.append(_instant(name, log.time - first, at, log.attributes))
    document = {
        "traceEvents": events,
        "displayTimeUnit": "ns",
        "otherData": {"trace_id": trace.trace_id, "start_unix_nano": str(first)},
    }
    return json.dumps(document, ensure_ascii=False, allow_nan=False, default=str)


def _lanes(spans: Sequence[SpanRow]) -> Iterator[tuple[SpanRow, int]]:
    """Each span with a track, on which it lies wholly inside or wholly after every other one."""
    open_until: list[list[int]] = []
    for span in sorted(spans, key=lambda s: (s.start, -s.end)):
        for lane, stack in enumerate(open_until):
            while stack and stack[-1] <= span.start:
                stack.pop()
            if not stack or span.end <= stack[-1]:
                stack.append(span.end)
                yield span, lane + 1
                break
        else:
            open_until.append([span.end])
            yield span, len(open_until)


def _name(kind: str, pid: int, tid: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": kind, "pid": pid, "tid": tid, "args": {"name": name}}


def _instant(
    name: str, after_ns: int, place: tuple[int, int], attributes: dict[str, Any]
) -> dict[str, Any]:
    return {
        "ph": "i",
        "s": "t",
        "name": name,
        "pid": place[0],
        "tid": place[1],
        "ts": after_ns / 1000,
        "args": _finite(attributes),
    }


def _finite(value: Any) -> Any:
    """The value with what JSON has no number for, infinity and NaN, as text."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
