"""OTLP over HTTP: what is taken, and what each wrong request is answered."""

from __future__ import annotations

import gzip
import http.client
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import Compression, OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from tracesock.dashboard import otlp
from tracesock.dashboard.otlp import Decompressor, Limits, Refused

from .make import Spans, log_request, snapshot, span_id, trace_id
from .serving import DATA, Served, wait_until

JSON = "application/json"


def intake(served: Served) -> dict[str, int]:
    counts: dict[str, int] = served.status()["intake"]
    return counts


def refused(served: Served, reason: str = "") -> int:
    """How many requests were refused, for one reason or any; written within half a second."""
    return sum(n for r, n in intake(served).items() if r.startswith(f"refused_{reason}"))


@pytest.mark.parametrize("compression", [Compression.NoCompression, Compression.Gzip])
def test_the_sdk_exporter_is_answered(served: Served, compression: Compression) -> None:
    provider = TracerProvider()
    exporter = OTLPSpanExporter(endpoint=f"{served.url}/v1/traces", compression=compression)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with provider.get_tracer("t").start_as_current_span("work") as span:
        identity = format(span.get_span_context().trace_id, "032x")
    provider.shutdown()
    status, _, page = served.get(f"/traces/{identity}")
    assert status == 200
    assert "work" in page


def test_an_answer_means_stored(served: Served) -> None:
    status, headers, body = served.post("traces", Spans().add("a").add("b").body)
    assert status == 200
    assert headers["content-type"] == otlp.PROTOBUF
    assert not ExportTraceServiceResponse.FromString(body).partial_success.rejected_spans
    assert intake(served)["accepted_traces"] == 2


def test_json_of_another_language(served: Served) -> None:
    body = (DATA / "javascript_sdk.json").read_bytes()
    status, headers, answer = served.post("traces", body, JSON)
    assert (status, headers["content-type"], json.loads(answer)) == (200, JSON, {})
    assert intake(served)["accepted_traces"] == 4


def test_json_gzip_and_a_charset(served: Served) -> None:
    body = gzip.compress((DATA / "javascript_sdk.json").read_bytes())
    status, _, _ = served.post(
        "traces", body, "application/json; charset=utf-8", content_encoding="gzip"
    )
    assert status == 200


@pytest.mark.parametrize(
    ("body", "content_type", "encoding", "status", "says"),
    [
        (b"\xff\xff\xff", otlp.PROTOBUF, "", 400, "not an OTLP traces request"),
        (b"{", JSON, "", 400, "not JSON"),
        (b"[]", JSON, "", 400, "not an object"),
        (b"[" * 100_000, JSON, "", 400, "not JSON"),
        (b'{"resourceSpans": 3}', JSON, "", 400, "not an OTLP traces request"),
        (
            b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"zz"}]}]}]}',
            JSON,
            "",
            400,
            "traceId is not hexadecimal",
        ),
        (
            b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":"\\ud800"}]}]}]}',
            JSON,
            "",
            400,
            "not an OTLP traces request",
        ),
        (b"not gzip", otlp.PROTOBUF, "gzip", 400, "not gzip data"),
        (gzip.compress(b"x" * 100)[:20], otlp.PROTOBUF, "gzip", 400, "ends before its end"),
        (b"", "text/plain", "", 415, "text/plain is not supported"),
        (b"", otlp.PROTOBUF, "zstd", 415, "zstd is not supported"),
    ],
)
def test_wrong_requests_are_told_what_is_wrong(
    served: Served, body: bytes, content_type: str, encoding: str, status: int, says: str
) -> None:
    headers = {"content_encoding": encoding} if encoding else {}
    got, answered, answer = served.post("traces", body, content_type, **headers)
    assert got == status
    if answered["content-type"] == JSON:
        assert says in json.loads(answer)["message"]
    else:
        assert answer[0] == 0x08  # google.rpc.Status: int32 code = 1, string message = 2
        assert says.encode() in answer
    assert wait_until(lambda: refused(served) == 1)


def test_malformed_requests_are_counted(served: Served) -> None:
    for _ in range(3):
        assert served.post("logs", b"\xff")[0] == 400
    assert wait_until(lambda: refused(served, "malformed") == 3)
    assert "malformed (400)" in served.get("/health")[2]


def test_other_methods_and_paths(served: Served) -> None:
    assert served.request("GET", "/v1/traces")[0] == 405
    assert served.request("POST", "/v1/profiles", b"")[0] == 404


def test_an_empty_request_is_a_success(served: Served) -> None:
    assert served.post("traces", b"")[0] == 200
    assert served.post("metrics", b"{}", JSON)[0] == 200


def test_spans_without_an_id_are_a_partial_success(served: Served) -> None:
    made = Spans().add("good").add("no trace id").add("short span id")
    spans = made.request.resource_spans[0].scope_spans[0].spans
    spans[1].trace_id = bytes(16)
    spans[2].span_id = b"abc"
    status, _, body = served.post("traces", made.body)
    assert status == 200
    partial = ExportTraceServiceResponse.FromString(body).partial_success
    assert partial.rejected_spans == 2
    assert partial.error_message
    assert intake(served)["rejected_traces"] == 2


# -- limits --------------------------------------------------------------------------------------


def test_a_large_body_is_refused_and_the_answer_is_read(start: Callable[..., Served]) -> None:
    served = start(limits=Limits(body=100_000))
    status, _, answer = served.post("traces", b"\0" * 3_000_000)
    assert status == 413
    assert b"larger than 100000 bytes" in answer
    assert wait_until(lambda: refused(served, "too_large") == 1)


def test_a_chunked_body_is_bounded_as_well(start: Callable[..., Served]) -> None:
    served = start(limits=Limits(body=100_000))
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
    chunks = (b"x" * 50_000 for _ in range(40))
    connection.request(
        "POST", "/v1/traces", chunks, {"content-type": otlp.PROTOBUF}, encode_chunked=True
    )
    assert connection.getresponse().status == 413
    connection.close()


def test_what_gzip_grows_to_is_bounded(start: Callable[..., Served]) -> None:
    served = start(limits=Limits(body=1_000_000))
    bomb = gzip.compress(b"\0" * 50_000_000)
    assert len(bomb) < 100_000
    status, _, _ = served.post("traces", bomb, content_encoding="gzip")
    assert status == 413


def test_too_many_spans(start: Callable[..., Served]) -> None:
    served = start(limits=Limits(records=10))
    made = Spans()
    for i in range(11):
        made.add(f"s{i}")
    status, _, answer = served.post("traces", made.body)
    assert status == 413
    assert b"11 records in one request; at most 10" in answer


def test_attributes_are_cut_and_counted(served: Served) -> None:
    many = {f"key{i}": "v" for i in range(200)}
    made = Spans().add("wide", span=5, **many).add("long", span=6, text="x" * 50_000)
    assert served.post("traces", made.body)[0] == 200
    assert intake(served)["attributes_cut"] == 200 - 128 + 1
    page = served.get(f"/traces/{trace_id(1).hex()}?span={span_id(5).hex()}")[2]
    assert "72 attributes" in page
    page = served.get(f"/traces/{trace_id(1).hex()}?span={span_id(6).hex()}")[2]
    assert "x" * 8000 in page
    assert "x" * 9000 not in page


def test_more_than_can_be_stored_is_429(
    start: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracesock.dashboard.store.QUEUE_RECORDS", 2)
    served = start()
    release = threading.Event()
    writing = threading.Event()
    take = served.dashboard.store._take

    def slow(item: Any) -> int:
        writing.set()
        release.wait(100)
        return take(item)

    monkeypatch.setattr(served.dashboard.store, "_take", slow)
    answers: list[int] = []

    def post(n: int) -> None:
        answers.append(served.post("traces", Spans().add("a", trace=n).add("b", trace=n).body)[0])

    first = threading.Thread(target=post, args=(1,))
    first.start()
    assert writing.wait(100)
    status, headers, answer = served.post("traces", Spans().add("c", trace=2).body)
    release.set()
    first.join()
    assert status == 429
    assert headers["retry-after"] == "1"
    assert b"more telemetry arrives" in answer
    assert answers == [200]
    # The sender does as it was told, and is served.
    assert served.post("traces", Spans().add("c", trace=2).body)[0] == 200


def test_a_request_sent_again_is_stored_once(served: Served) -> None:
    body = Spans().connect("db.example", 5432).body
    assert [served.post("traces", body)[0] for _ in range(3)] == [200, 200, 200]
    assert intake(served)["accepted_traces"] == 1
    page = served.get("/peers")[2]
    assert "db.example:5432" in page


def test_a_sender_that_hangs_up_does_no_harm(served: Served) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served.port)
    connection.putrequest("POST", "/v1/traces")
    connection.putheader("content-type", otlp.PROTOBUF)
    connection.putheader("content-length", "1000000")
    connection.endheaders(b"only a part")
    connection.close()
    assert served.post("traces", Spans().add("after").body)[0] == 200


def test_all_signals_over_the_second_port(start: Callable[..., Served]) -> None:
    served = start(otlp_port=0)
    other = served.dashboard.otlp_port
    assert other not in (None, served.port)
    connection = http.client.HTTPConnection("127.0.0.1", other, timeout=100)
    for path, status in (("/v1/logs", 200), ("/", 404), ("/live", 404)):
        if path == "/v1/logs":
            body = log_request("tracesock.connections.snapshot", [snapshot("c1")])
            connection.request("POST", path, body, {"content-type": otlp.PROTOBUF})
        else:
            connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        assert response.status == status, path
    connection.close()
    assert "192.0.2.7:443" in served.get("/")[2]


# -- decoding ------------------------------------------------------------------------------------


def test_gzip_in_members_and_pieces() -> None:
    data = gzip.compress(b"first ") + gzip.compress(b"second")
    for size in (1, 3, 1000):
        decompressor = Decompressor("gzip", 1000)
        for i in range(0, len(data), size):
            decompressor.feed(data[i : i + size])
        assert decompressor.finish() == b"first second"


def test_json_round_trip() -> None:
    made = Spans().connect("db.example", 5432, span=9, parent=8, error="timed_out")
    text = json.dumps(otlp.to_json(made.request))
    assert f'"traceId": "{trace_id(1).hex()}"' in text
    assert f'"parentSpanId": "{span_id(8).hex()}"' in text
    again = otlp.decode(otlp.Signal.TRACES, JSON, text.encode())
    assert isinstance(again, ExportTraceServiceRequest)
    assert again == made.request


def test_json_with_unknown_fields_and_names_of_enums() -> None:
    body = {
        "future": 1,
        "resourceSpans": [
            {
                "scopeSpans": [
                    {
                        "spans": [
                            {"traceId": "AB" * 16, "spanId": "cd" * 8, "kind": "SPAN_KIND_CLIENT"}
                        ]
                    }
                ]
            }
        ],
    }
    request = otlp.decode(otlp.Signal.TRACES, JSON, json.dumps(body).encode())
    span = request.resource_spans[0].scope_spans[0].spans[0]
    assert (span.trace_id, span.kind) == (b"\xab" * 16, 3)


def test_long_messages_have_a_long_length() -> None:
    body = otlp.failure(otlp.PROTOBUF, Refused(400, "x", "m" * 300))
    assert body[:5] == b"\x08\x03\x12\xac\x02"
    assert body[5:] == b"m" * 300


def test_nothing_listens_beyond_loopback(served: Served) -> None:
    for sock in served.dashboard.sockets:
        assert sock.getsockname()[0] == "127.0.0.1"
    assert wait_until(lambda: served.get("/")[0] == 200)
