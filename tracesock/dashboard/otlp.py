"""Reading OTLP/HTTP requests: content type, compression, limits, protobuf and JSON.

The rules are those of the OTLP specification 1.x, section OTLP/HTTP: binary protobuf or JSON
(trace and span ids as hexadecimal, enum values as integers, unknown fields ignored), `gzip`,
failures as a `google.rpc.Status` in the encoding of the request.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"


class Signal(Enum):
    """An OTLP signal; the value is the last part of its path."""

    TRACES = "traces"
    METRICS = "metrics"
    LOGS = "logs"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may hold.

    body: bytes, both as sent and after decompression; records: spans, data points or log records;
    attributes: for each span, point or record; value: characters of one attribute's text. A request
    over the first two is refused with 413; what is over the last two is cut off and counted.
    """

    body: int = 32 * 1024 * 1024
    records: int = 100_000
    attributes: int = 128
    value: int = 8192


class Refused(Exception):
    """A request that is not taken: HTTP status, name to count by, message for the sender."""

    def __init__(self, status: int, reason: str, message: str, retry_after: int | None = None):
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after


_REQUESTS: Final[dict[Signal, Callable[[], Any]]] = {
    Signal.TRACES: ExportTraceServiceRequest,
    Signal.METRICS: ExportMetricsServiceRequest,
    Signal.LOGS: ExportLogsServiceRequest,
}
_RESPONSES: Final[dict[Signal, tuple[Callable[[], Any], str]]] = {
    Signal.TRACES: (ExportTraceServiceResponse, "rejected_spans"),
    Signal.METRICS: (ExportMetricsServiceResponse, "rejected_data_points"),
    Signal.LOGS: (ExportLogsServiceResponse, "rejected_log_records"),
}
# google.rpc.Code
_RPC_CODES: Final = {400: 3, 413: 3, 415: 3, 429: 8, 503: 14}


def content_type(header: str) -> str:
    """The encoding that a Content-Type header names, PROTOBUF or JSON.

    Raises Refused (415) for any other.
    """
    name = header.partition(";")[0].strip().lower()
    if name in (PROTOBUF, JSON):
        return name
    raise Refused(
        415,
        "unsupported_content_type",
        f"content type {name or '(none)'!s} is not supported: send {PROTOBUF} or {JSON}",
    )


class Decompressor:
    """Takes the chunks of a body and bounds what they grow to.

    Raises Refused: 415 for an unknown encoding, 413 above the limit, 400 for broken gzip data.
    """

    def __init__(self, encoding: str, limit: int) -> None:
        encoding = encoding.strip().lower()
        if encoding not in ("", "identity", "gzip"):
            raise Refused(
                415,
                "unsupported_encoding",
                f"content encoding {encoding} is not supported: send gzip or identity",
            )
        self._limit = limit
        self._size = 0
        self._received = 0
        self._parts: list[bytes] = []
        self._gzip = zlib.decompressobj(wbits=31) if encoding == "gzip" else None

    def feed(self, chunk: bytes) -> None:
        self._received += len(chunk)
        self._check(self._received)
        if self._gzip is None:
            self._append(chunk)
            return
        try:
            while chunk:
                self._append(self._gzip.decompress(chunk, self._limit - self._size + 1))
                chunk = self._gzip.unconsumed_tail
                if self._gzip.eof and self._gzip.unused_data:
                    # RFC 1952, 2.2: a file is a series of members.
                    chunk = self._gzip.unused_data
                    self._gzip = zlib.decompressobj(wbits=31)
        except zlib.error as error:
            raise Refused(400, "malformed", f"the body is not gzip data: {error}") from None

    def finish(self) -> bytes:
        if self._gzip is not None and not self._gzip.eof and self._received:
            raise Refused(400, "malformed", "the gzip data ends before its end mark")
        return b"".join(self._parts)

    def _append(self, data: bytes) -> None:
        self._size += len(data)
        self._check(self._size)
        self._parts.append(data)

    def _check(self, size: int) -> None:
        if size > self._limit:
            raise Refused(
                413,
                "too_large",
                f"the request is larger than {self._limit} bytes: send smaller batches",
            )


def decode(signal: Signal, encoding: str, body: bytes) -> Any:
    """The request message in `body`. Raises Refused (400) when it is malformed."""
    request = _REQUESTS[signal]()
    if encoding == PROTOBUF:
        try:
            request.ParseFromString(body)
        except (DecodeError, ValueError) as error:
            raise Refused(
                400, "malformed", f"the body is not an OTLP {signal.value} request: {error}"
            ) from None
        return request
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, "malformed", f"the body is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise Refused(400, "malformed", "the body is JSON, but not an object")
    try:
        for record in _json_records(signal, document):
            _ids_to_base64(record)
            for link in record.get("links") or ():
                _ids_to_base64(link)
        json_format.ParseDict(document, request, ignore_unknown_fields=True)
    except (json_format.ParseError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise Refused(
            400, "malformed", f"the JSON is not an OTLP {signal.value} request: {error}"
        ) from None
    return request


def _json_records(signal: Signal, document: dict[str, Any]) -> Iterable[dict[str, Any]]:
    """The objects of a JSON request that carry trace and span ids."""
    if signal is Signal.METRICS:
        for resource in document.get("resourceMetrics") or ():
            for scope in resource.get("scopeMetrics") or ():
                for metric in scope.get("metrics") or ():
                    for kind in ("gauge", "sum", "histogram", "exponentialHistogram"):
                        for point in (metric.get(kind) or {}).get("dataPoints") or ():
                            yield from point.get("exemplars") or ()
        return
    outer, inner, leaf = (
        ("resourceSpans", "scopeSpans", "spans")
        if signal is Signal.TRACES
        else ("resourceLogs", "scopeLogs", "logRecords")
    )
    for resource in document.get(outer) or ():
        for scope in resource.get(inner) or ():
            yield from scope.get(leaf) or ()


def _ids_to_base64(record: dict[str, Any]) -> None:
    for key in ("traceId", "spanId", "parentSpanId"):
        value = record.get(key)
        if value:
            try:
                record[key] = base64.b64encode(binascii.unhexlify(value)).decode()
            except (binascii.Error, TypeError):
                raise ValueError(f"{key} is not hexadecimal") from None


def to_json(message: Message) -> dict[str, Any]:
    """An OTLP message as OTLP JSON: ids in hexadecimal, enum values as integers."""
    document: dict[str, Any] = json_format.MessageToDict(message, use_integers_for_enums=True)
    _ids_to_hex(document)
    return document


def _ids_to_hex(node: Any) -> None:
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("traceId", "spanId", "parentSpanId") and isinstance(value, str):
                node[key] = base64.b64decode(value).hex()
            elif key not in ("attributes", "body"):
                _ids_to_hex(value)
    elif isinstance(node, list):
        for value in node:
            _ids_to_hex(value)


def count_records(signal: Signal, request: Any) -> int:
    """The spans, data points or log records of a request."""
    if signal is Signal.TRACES:
        return sum(len(s.spans) for r in request.resource_spans for s in r.scope_spans)
    if signal is Signal.LOGS:
        return sum(len(s.log_records) for r in request.resource_logs for s in r.scope_logs)
    return sum(
        len(getattr(metric, metric.WhichOneof("data")).data_points)
        for resource in request.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.WhichOneof("data")
    )


def success(signal: Signal, encoding: str, rejected: int = 0, message: str = "") -> bytes:
    """The body of a 200 answer, with a partial success where records were rejected."""
    factory, field = _RESPONSES[signal]
    response = factory()
    if rejected or message:
        setattr(response.partial_success, field, rejected)
        response.partial_success.error_message = message
    if encoding == PROTOBUF:
        return bytes(response.SerializeToString())
    return json.dumps(json_format.MessageToDict(response)).encode()


def failure(encoding: str, refused: Refused) -> bytes:
    """The body of a 4xx or 5xx answer: a `google.rpc.Status` (code, message)."""
    code = _RPC_CODES.get(refused.status, 2)
    if encoding != PROTOBUF:
        return json.dumps({"code": code, "message": refused.message}).encode()
    text = refused.message.encode()
    # Two fields, written by hand: int32 code = 1; string message = 2.
    return bytes([0x08, code, 0x12]) + _varint(len(text)) + text


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
