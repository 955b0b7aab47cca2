"""The OTLP encoder against the SDK's exporter, and the exporters against receivers that behave,
refuse, stall and lie."""

from __future__ import annotations

import base64
import contextlib
import datetime
import email.utils
import gzip
import hashlib
import http.server
import itertools
import json
import logging
import os
import re
import resource
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from opentelemetry import context as otel_context
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags, TraceState
from opentelemetry.trace.status import Status, StatusCode

import tracesock
from tests.telemetry.plain import full_backlog
from tracesock import _native
from tracesock.instrumentation import otlp
from tracesock.instrumentation.config import ConfigError
from tracesock.instrumentation.otlp import (
    ExportResult,
    OtlpFileExporter,
    OtlpHttpExporter,
    encode_resource,
)

EXT = Path(__file__).resolve().parents[2] / "ext"
HOST = "127.0.0.1"

# ------------------------------------------------------------------ the encoder and the SDK's

HOSTILE = ("", "\0", "é" * 70, "\u202egnp.exe", "\ufffd\ufeff", "😀" * 50, "x" * 127, "x" * 20000)
texts = st.text() | st.sampled_from(HOSTILE)
int64 = st.integers(-(2**63), 2**63 - 1)
scalars = st.none() | st.booleans() | texts | int64 | st.floats() | st.binary()
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)
keys = st.text(min_size=1) | st.sampled_from(["network.peer.port", "x" * 130])
attributes = st.dictionaries(keys, values, max_size=8)
uint64 = st.integers(0, 2**64 - 1)
contexts = st.builds(
    SpanContext,
    st.integers(1, 2**128 - 1),
    st.integers(1, 2**64 - 1),
    is_remote=st.booleans(),
    trace_flags=st.sampled_from([TraceFlags(0), TraceFlags(1), TraceFlags(3)]),
    trace_state=st.dictionaries(
        st.from_regex(r"[a-z][a-z0-9_-]{0,10}", fullmatch=True),
        st.from_regex(r"[!-+\--<>-~]{1,20}", fullmatch=True),
        max_size=3,
    ).map(lambda entries: TraceState(list(entries.items()))),
)
statuses = st.builds(Status, st.just(StatusCode.ERROR), texts | st.none()) | st.sampled_from(
    [Status(), Status(StatusCode.OK)]
)
spans = st.fixed_dictionaries(
    {
        "name": texts,
        "context": contexts,
        "parent": st.none() | contexts,
        "attributes": attributes,
        "kept": st.none() | st.integers(0, 8),
        "kind": st.sampled_from(SpanKind),
        "status": statuses,
        "start_time": uint64,
        "end_time": uint64,
    }
)


def requests(
    drawn: list[dict[str, Any]],
    origin: Resource,
    scope: InstrumentationScope,
    value_limit: int | None,
    encoded: int,
) -> tuple[bytes, ExportTraceServiceRequest]:
    """The native request and the SDK's for the same spans; `encoded` of each one's attributes are
    handed over encoded."""
    native = _native.OtlpEncoder(
        encode_resource(origin),
        origin.schema_url,
        scope.name,
        scope.version or "",
        scope.schema_url or "",
        value_limit=value_limit,
    )
    readable = []
    for fields in drawn:
        bounded = BoundedAttributes(fields["kept"], fields["attributes"], max_value_len=value_limit)
        readable.append(
            ReadableSpan(
                resource=origin,
                instrumentation_scope=scope,
                attributes=bounded,
                **{name: fields[name] for name in fields if name not in ("attributes", "kept")},
            )
        )
        kept = [(key, fields["attributes"][key]) for key in bounded]
        parent = fields["parent"]
        added = native.add_span(
            fields["name"],
            fields["context"].trace_id,
            fields["context"].span_id,
            fields["start_time"],
            fields["end_time"],
            parent=parent.span_id if parent else None,
            parent_is_remote=bool(parent and parent.is_remote),
            trace_state=fields["context"].trace_state.to_header(),
            kind=fields["kind"].value + 1,
            encoded_attributes=b"".join(
                _native.otlp_span_attribute(key, value, value_limit)
                for key, value in kept[:encoded]
            ),
            attributes=dict(kept[encoded:]),
            dropped_attributes=bounded.dropped,
            status=fields["status"].status_code.value,
            message=fields["status"].description or "",
        )
        assert added
    assert native.count == len(drawn)
    size = native.size
    request = native.take()
    assert (len(request), native.count, native.size) == (size, 0, 0)
    return request, encode_spans(readable)


scopes = st.builds(InstrumentationScope, texts, texts | st.none(), texts | st.none())
# The SDK leaves empty keys out of nested mappings as well, before any exporter sees them.
plain = attributes.map(lambda mapping: without_empty_keys(mapping))
origins = st.builds(Resource, plain, texts)


def without_empty_keys(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: without_empty_keys(item) for key, item in value.items() if key}
    if isinstance(value, list):
        return [without_empty_keys(item) for item in value]
    return value


span_lists = st.lists(
    spans.map(lambda span: {**span, "attributes": without_empty_keys(span["attributes"])}),
    min_size=1,
    max_size=4,
)


@settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(span_lists, origins, scopes, st.none() | st.integers(0, 20), st.integers(0, 8))
def test_a_request_is_what_the_sdk_exporter_sends(
    drawn: list[dict[str, Any]],
    origin: Resource,
    scope: InstrumentationScope,
    value_limit: int | None,
    encoded: int,
) -> None:
    logging.getLogger("opentelemetry.attributes").setLevel(logging.ERROR)
    request, expected = requests(drawn, origin, scope, value_limit, encoded)
    decoded = ExportTraceServiceRequest.FromString(request)
    # As text for a message that names the field, as bytes for what text does not show.
    assert str(decoded) == str(expected)
    assert decoded.SerializeToString(deterministic=True) == expected.SerializeToString(
        deterministic=True
    )
    assert len(request) == expected.ByteSize(), "the shortest encoding"

    # The JSON of OTLP: protobuf's, but identifiers in hexadecimal.
    wanted = MessageToDict(expected, use_integers_for_enums=True)
    for span in wanted["resourceSpans"][0]["scopeSpans"][0]["spans"]:
        for name in {"traceId", "spanId", "parentSpanId"} & set(span):
            span[name] = base64.b64decode(span[name]).hex()
    line = _native.otlp_json(request)
    assert b"\n" not in line
    assert json.loads(line) == wanted


def test_a_list_of_every_kind() -> None:
    """What generated values reach seldom."""
    values: list[Any] = [
        "a",
        b"\0",
        None,
        True,
        2**63 - 1,
        -(2**63),
        1e300,
        [[]],
        {"k": [{}]},
        ("t",),
        5e-324,
    ]
    span = {
        "name": "all",
        "context": SpanContext(1, 2, False),
        "parent": SpanContext(1, 3, True),
        "attributes": {"all": values},
        "kept": None,
        "kind": SpanKind.CLIENT,
        "status": Status(StatusCode.ERROR, "no"),
        "start_time": 1,
        "end_time": 2,
    }
    request, expected = requests([span], Resource({}), InstrumentationScope("s"), None, 0)
    assert ExportTraceServiceRequest.FromString(request) == expected
    span_message = expected.resource_spans[0].scope_spans[0].spans[0]
    assert span_message.flags == 0x300
    assert len(span_message.attributes[0].value.array_value.values) == len(values)


def decoded_span(encoder: Any) -> Any:
    request = ExportTraceServiceRequest.FromString(encoder.take())
    return request.resource_spans[0].scope_spans[0].spans[0]


@given(st.text(st.characters()))
@example("\ud800\udc00")
@example("/run/\udcff\udc80.sock")
def test_text_that_utf8_cannot_hold(text: str) -> None:
    encoder = _native.OtlpEncoder()
    assert encoder.add_span(text, 1, 2, 3, 4, attributes={"k" + text: text}, message=text)
    span = decoded_span(encoder)
    expected = re.sub("[\ud800-\udfff]", "\ufffd", text)
    assert span.name == span.status.message == expected
    assert span.attributes[0].key == "k" + expected
    assert span.attributes[0].value.string_value == expected


REFUSED: list[tuple[type[Exception], str, dict[str, Any]]] = [
    (TypeError, "name must be a str, not bytes", {"name": b"n"}),
    (TypeError, "trace_id must be an int between 1 and 2\\*\\*128 - 1", {"trace_id": b"1" * 16}),
    (ValueError, "trace_id must be an int", {"trace_id": 0}),
    (ValueError, "trace_id must be an int", {"trace_id": 2**128}),
    (ValueError, "span_id must be an int between 1 and 2\\*\\*64 - 1", {"span_id": -1}),
    (ValueError, "parent must be an int", {"parent": 2**64}),
    (ValueError, "start must be between 0 and 18446744073709551615", {"start": -1}),
    (ValueError, "end must be between", {"end": 2**64}),
    (TypeError, "end must be an int, not float", {"end": 1.5}),
    (TypeError, "trace_state must be a str, not NoneType", {"trace_state": None}),
    (ValueError, "kind must be between 0 and 5", {"kind": 6}),
    (ValueError, "status must be between 0 and 2", {"status": 3}),
    (ValueError, "dropped_attributes must be between", {"dropped_attributes": 2**32}),
    (TypeError, "encoded_attributes must be bytes, not str", {"encoded_attributes": ""}),
    (TypeError, "attributes: a key must be a str, not int", {"attributes": {1: 2}}),
    (TypeError, "attribute 'k': .*not object", {"attributes": {"k": object()}}),
    (ValueError, "attribute 'k': .*64 bits", {"attributes": {"k": 2**63}}),
    (ValueError, "attribute 'k': .*64 bits", {"attributes": {"k": [-(2**63) - 1]}}),
]


@pytest.mark.parametrize(("error", "message", "bad"), REFUSED)
def test_a_bad_argument_is_named(error: type[Exception], message: str, bad: dict[str, Any]) -> None:
    encoder = _native.OtlpEncoder()
    good = {"name": "n", "trace_id": 1, "span_id": 2, "start": 3, "end": 4}
    with pytest.raises(error, match=message):
        encoder.add_span(**{**good, **bad})
    assert encoder.count == 0
    assert encoder.add_span(**good)


def test_attributes_that_bite() -> None:
    """Values that change what is read, refer to themselves, or raise."""
    loop: list[Any] = []
    loop.append(loop)
    encoder = _native.OtlpEncoder()
    with pytest.raises(ValueError, match="attribute 'k': nested deeper than 16 levels"):
        encoder.add_span("n", 1, 2, 3, 4, attributes={"k": loop})

    class Raising(dict[str, Any]):
        def items(self) -> Any:
            raise KeyError("no")

    with pytest.raises(KeyError):
        encoder.add_span("n", 1, 2, 3, 4, attributes=Raising(k=1))

    class Pairs(dict[str, Any]):
        def items(self) -> Any:
            return [("k",)]

    with pytest.raises(TypeError, match="items\\(\\) must give pairs"):
        encoder.add_span("n", 1, 2, 3, 4, attributes=Pairs())

    mapping: dict[str, Any] = {}

    class Meddling:
        """A sequence that empties the mapping it is in, and adds a span meanwhile."""

        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> str:
            mapping.clear()
            if index:
                raise IndexError
            encoder.add_span("inner", 1, 2, 3, 4)
            return "item"

    Sequence.register(Meddling)
    mapping.update(first=Meddling(), second="x" * 1000)
    assert encoder.add_span("outer", 1, 2, 3, 4, attributes=mapping)
    request = ExportTraceServiceRequest.FromString(encoder.take())
    inner, outer = request.resource_spans[0].scope_spans[0].spans
    assert (inner.name, outer.name) == ("inner", "outer")
    assert [attribute.key for attribute in outer.attributes] == ["first", "second"]


def test_a_request_does_not_grow_over_its_limit() -> None:
    encoder = _native.OtlpEncoder(scope_name="tracesock", limit=1000)
    added = 0
    while encoder.add_span(f"span {added}", 1, 2, 3, 4):
        added += 1
    assert encoder.count == added > 5
    request = encoder.take()
    assert 900 < len(request) <= 1000
    spans = ExportTraceServiceRequest.FromString(request).resource_spans[0].scope_spans[0].spans
    assert [span.name for span in spans] == [f"span {number}" for number in range(added)]
    assert not encoder.add_span("x" * 1000, 1, 2, 3, 4)
    assert encoder.take() == b""
    assert encoder.add_span("next", 1, 2, 3, 4)


def test_a_resource_without_what_otlp_cannot_hold(caplog: pytest.LogCaptureFixture) -> None:
    origin = Resource({"service.name": "shop", "huge": 2**70, "tags": ("a", "b")})
    encoder = _native.OtlpEncoder(encode_resource(origin))
    encoder.add_span("n", 1, 2, 3, 4)
    decoded = ExportTraceServiceRequest.FromString(encoder.take()).resource_spans[0].resource
    assert [attribute.key for attribute in decoded.attributes] == ["service.name", "tags"]
    assert "attribute 'huge': the int does not fit into 64 bits" in caplog.text


@pytest.mark.parametrize("request_", [b"x", b"\x0a\xff\x01", b"\x12\x00", b"\x0a\x02\x0a\x01"])
def test_json_of_other_bytes(request_: bytes) -> None:
    with pytest.raises(ValueError, match="request is not what an OtlpEncoder gave"):
        _native.otlp_json(request_)


def test_encoder_without_python_under_the_sanitizers(pytestconfig: pytest.Config) -> None:
    """ext/tests/otlp_test.cpp: known bytes, limits, and a fuzz of the encoder and the JSON."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++ here (Debian: apt install g++)")
    sources = [
        EXT / "tests" / "otlp_test.cpp",
        EXT / "recorder" / "otlp.cpp",
        EXT / "recorder" / "otlp_json.cpp",
    ]
    inputs = [*sources, EXT / "recorder" / "otlp.hpp", EXT / "recorder" / "record.hpp"]
    command = [compiler, "-std=c++20", "-O0", "-g1", "-Wall", "-Wextra", "-Werror", f"-I{EXT}"]
    command += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    key = hashlib.sha256(repr(command).encode() + str(Path(compiler).stat().st_mtime_ns).encode())
    for path in inputs:
        key.update(path.read_bytes())
    directory = pytestconfig.cache.mkdir("otlp")
    program = directory / f"otlp_test-{key.hexdigest()[:16]}"
    if not program.exists():
        probe = directory / "probe.cpp"
        probe.write_text("int main() {}\n")
        if subprocess.run([*command, str(probe), "-o", str(directory / "probe")]).returncode:
            pytest.skip("this g++ has no sanitizers (Debian: apt install libasan8 libubsan1)")
        for stale in directory.glob("otlp_test-*"):
            stale.unlink()
        built = subprocess.run(
            [*command, *map(str, sources), "-o", str(program)], capture_output=True, text=True
        )
        assert built.returncode == 0, built.stderr
    result = subprocess.run([str(program)], capture_output=True, text=True, timeout=100)
    assert result.returncode == 0, result.stdout + result.stderr
    named, fuzzed, failed = map(int, re.findall(r"\d+", result.stdout))
    assert failed == 0
    assert named >= 1000
    assert fuzzed >= 3000


# ------------------------------------------------------------------ the exporter over HTTP


def a_request(name: str = "socket send 192.0.2.1:443") -> bytes:
    encoder = _native.OtlpEncoder(encode_resource(Resource({"service.name": "shop"})))
    encoder.add_span(name, 1, 2, 3, 4)
    return bytes(encoder.take())


REQUEST = a_request()
Answer = tuple[int, dict[str, str], bytes]
OK: Answer = (200, {}, b"")


class Receiver(http.server.ThreadingHTTPServer):
    """Answers by a script, the last answer for ever; keeps what it was sent."""

    daemon_threads = True

    def __init__(self, *answers: Answer, bind_and_activate: bool = True) -> None:
        super().__init__((HOST, 0), _Handler, bind_and_activate)
        self.answers = list(answers) or [OK]
        self.received: list[tuple[str, Mapping[str, str], bytes]] = []
        # The number of the connection that each came over: its port may be one that another had.
        self.peers: list[int] = []
        self.accepted = itertools.count()
        self.errors: list[BaseException | None] = []
        self.hang_up = False  # after an answer, without saying so
        self.hung_up = threading.Event()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_address[1]}"

    def next_answer(self) -> Answer:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exception()
        if not isinstance(error, OSError):  # a client that goes away is part of these tests
            self.errors.append(error)

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        self.hung_up.set()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Receiver

    def setup(self) -> None:
        super().setup()
        self.number = next(self.server.accepted)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.received.append(
            (self.path, {name.lower(): value for name, value in self.headers.items()}, body)
        )
        self.server.peers.append(self.number)
        status, headers, answer = self.server.next_answer()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(answer)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer)
        self.close_connection = self.server.hang_up or headers.get("Connection") == "close"

    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def serving(receiver: Receiver) -> Iterator[Receiver]:
    thread = threading.Thread(target=receiver.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.shutdown()
        receiver.server_close()
        thread.join()
    assert receiver.errors == []


@pytest.fixture
def receive() -> Iterator[Callable[..., Receiver]]:
    with contextlib.ExitStack() as stack:
        yield lambda *answers: stack.enter_context(serving(Receiver(*answers)))


class Waits(threading.Event):
    """Notes what is waited for instead of waiting."""

    def __init__(self, then: Callable[[int], object] = lambda number: None) -> None:
        super().__init__()
        self.waits: list[float] = []
        self._then = then

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.waits.append(timeout)
        self._then(len(self.waits))
        return self.is_set()


@pytest.fixture
def exporter(request: pytest.FixtureRequest) -> Iterator[Callable[..., OtlpHttpExporter]]:
    made = []

    def make(url: str, **arguments: Any) -> OtlpHttpExporter:
        made.append(OtlpHttpExporter(url, environment={}, **arguments))
        return made[-1]

    yield make
    for each in made:
        each.shutdown()


Make = Callable[..., OtlpHttpExporter]
Receive = Callable[..., Receiver]


def noting(exporter: OtlpHttpExporter, *then: Any) -> Waits:
    waits = Waits(*then)
    exporter._stopping = waits
    return waits


def test_requests_over_one_connection(receive: Receive, exporter: Make) -> None:
    receiver = receive()
    client = exporter(receiver.url + "/v1/traces?key=1", headers={"X-Tenant": "a b"})
    names = ["one", "two", "thr\xe9\xe9"]
    for name in names:
        assert client.export(a_request(name)) == ExportResult(True)
    assert client.export(memoryview(bytearray(REQUEST))) == ExportResult(True)
    got = []
    for path, headers, body in receiver.received[:3]:
        assert path == "/v1/traces?key=1"
        assert headers["content-type"] == "application/x-protobuf"
        assert headers["x-tenant"] == "a b"
        assert headers["user-agent"] == f"tracesock/{_native.__version__}"
        assert headers["host"] == receiver.url.removeprefix("http://")
        assert "content-encoding" not in headers
        message = ExportTraceServiceRequest.FromString(body)
        got.append(message.resource_spans[0].scope_spans[0].spans[0].name)
    assert got == names
    assert receiver.received[3][2] == REQUEST
    assert len(set(receiver.peers)) == 1


def test_gzip(receive: Receive, exporter: Make) -> None:
    receiver = receive()
    request = a_request("x" * 10000)
    assert exporter(receiver.url, compression="GZIP").export(request).delivered
    path, headers, body = receiver.received[0]
    assert path == "/"
    assert headers["content-encoding"] == "gzip"
    assert len(body) < 1000
    assert gzip.decompress(body) == request


def test_back_off_until_the_receiver_recovers(receive: Receive, exporter: Make) -> None:
    busy: list[Answer] = [(status, {}, b"") for status in (503, 429, 502, 504)]
    receiver = receive(*busy, OK)
    client = exporter(receiver.url, timeout=100)
    waits = noting(client)
    assert client.export(REQUEST) == ExportResult(True)
    assert [body for _, _, body in receiver.received] == [REQUEST] * 5
    for number, wait in enumerate(waits.waits):
        assert 0.8 * 2**number <= wait <= 1.2 * 2**number
    assert len(waits.waits) == 4
    assert len(set(receiver.peers)) == 1


def test_retry_after(receive: Receive, exporter: Make) -> None:
    date = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=50)
    receiver = receive(
        (429, {"Retry-After": "7"}, b""),
        (503, {"Retry-After": email.utils.format_datetime(date, usegmt=True)}, b""),
        (503, {"Retry-After": "0"}, b""),
        (503, {"Retry-After": "soon"}, b""),
        OK,
    )
    client = exporter(receiver.url, timeout=1000)
    waits = noting(client)
    assert client.export(REQUEST).delivered
    seconds, until, none, unknown = waits.waits
    assert seconds == 7
    assert 10 < until <= 51
    assert 3.2 <= none <= 4.8, "not sooner than by the back-off"
    assert 6.4 <= unknown <= 9.6


def test_no_time_left_to_wait(receive: Receive, exporter: Make) -> None:
    receiver = receive((503, {"Retry-After": "3600"}, b""))
    client = exporter(receiver.url)
    waits = noting(client)
    assert client.export(REQUEST) == ExportResult(False, reason="status 503")
    assert waits.waits == []
    assert len(receiver.received) == 1


@pytest.mark.parametrize("status", [301, 400, 401, 404, 408, 413, 500, 501])
def test_what_is_not_sent_again(receive: Receive, exporter: Make, status: int) -> None:
    receiver = receive((status, {"Location": "http://192.0.2.1/"}, b""))
    client = exporter(receiver.url)
    waits = noting(client)
    assert client.export(REQUEST) == ExportResult(False, reason=f"status {status}")
    assert (len(receiver.received), waits.waits) == (1, [])


def protobuf(answer: bytes, status: int = 200, **headers: str) -> Answer:
    return (status, {"Content-Type": "application/x-protobuf", **headers}, answer)


def test_a_refusal_is_logged_once(
    receive: Receive, exporter: Make, caplog: pytest.LogCaptureFixture
) -> None:
    # google.rpc.Status: code 3, message.
    status = b"\x08\x03\x12\x0bbad\x1b[31m\n!!"
    receiver = receive(protobuf(status, 400), protobuf(status, 400), OK, protobuf(status, 400))
    client = exporter(receiver.url)
    assert not client.export(REQUEST).delivered
    assert len(caplog.records) == 1
    assert f"{receiver.url}" in caplog.text
    assert r"status 400, 'bad\x1b[31m\n!!'" in caplog.messages[0]
    assert not client.export(REQUEST).delivered
    assert client.export(REQUEST).delivered
    assert len(caplog.records) == 1
    assert not client.export(REQUEST).delivered
    assert len(caplog.records) == 2


@pytest.mark.parametrize("close", [False, True])
def test_partial_success(
    receive: Receive, exporter: Make, caplog: pytest.LogCaptureFixture, close: bool
) -> None:
    answer = ExportTraceServiceResponse()
    answer.partial_success.rejected_spans = 3
    answer.partial_success.error_message = "too old"
    headers = {"Connection": "close"} if close else {}
    receiver = receive(protobuf(answer.SerializeToString(), **headers))
    client = exporter(receiver.url)
    waits = noting(client)
    assert client.export(REQUEST) == ExportResult(True, rejected=3)
    assert client.export(REQUEST) == ExportResult(True, rejected=3)
    assert (len(receiver.received), waits.waits) == (2, [])
    assert len(set(receiver.peers)) == 1 + close
    assert len(caplog.records) == 1
    assert "partly rejected: 3 spans, 'too old'" in caplog.text


@given(st.binary(max_size=60))
@example(b"\x0a")
@example(b"\x0a\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")
@example(b"\xff" * 30)
def test_answers_that_are_no_message(answer: bytes) -> None:
    rejected, message = otlp._partial_success(answer)
    assert 0 <= rejected < 2**63
    assert isinstance(message, bytes)
    assert otlp._refusal(400, answer).startswith("status 400")
    with contextlib.suppress(Exception):
        parsed = ExportTraceServiceResponse.FromString(answer)
        if parsed.partial_success.rejected_spans > 0:
            assert rejected == parsed.partial_success.rejected_spans


def test_a_kept_connection_that_the_receiver_closed(receive: Receive, exporter: Make) -> None:
    receiver = receive()
    receiver.hang_up = True
    client = exporter(receiver.url)
    waits = noting(client)
    for _ in range(3):
        assert client.export(REQUEST) == ExportResult(True)
        assert receiver.hung_up.wait(30)
        receiver.hung_up.clear()
    assert waits.waits == []
    assert len(set(receiver.peers)) == 3


def test_nobody_listens_yet(exporter: Make) -> None:
    receiver = Receiver(bind_and_activate=False)
    receiver.server_bind()
    with contextlib.ExitStack() as stack:

        def start(number: int) -> None:
            if number == 3:
                receiver.server_activate()
                stack.enter_context(serving(receiver))

        client = exporter(receiver.url, timeout=100)
        waits = noting(client, start)
        assert client.export(REQUEST) == ExportResult(True)
        assert len(waits.waits) == 3


def test_nobody_ever_listens(exporter: Make, caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as bound:
        bound.bind((HOST, 0))
        client = exporter(f"http://{HOST}:{bound.getsockname()[1]}", timeout=100)
        noting(client)
        assert client.export(REQUEST) == ExportResult(False, reason="ConnectionRefusedError")
    assert "ConnectionRefusedError" in caplog.text


@contextlib.contextmanager
def peer(talk: Callable[[socket.socket], object]) -> Iterator[str]:
    """Accepts connections and does `talk` with each, one after another."""
    listener = socket.create_server((HOST, 0))
    ended = threading.Event()

    def run() -> None:
        while not ended.is_set():
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    talk(connection)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield f"http://{HOST}:{listener.getsockname()[1]}"
    finally:
        ended.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(30)


def until_closed(connection: socket.socket) -> None:
    while connection.recv(65536):
        pass


def drip(prefix: bytes, unit: bytes) -> Callable[[socket.socket], None]:
    """Sends `prefix`, then for ever `unit`, so that no single wait is long."""

    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(prefix)
        pause = threading.Event()
        while True:
            connection.sendall(unit)
            pause.wait(0.01)

    return talk


@pytest.mark.parametrize(
    "talk",
    [
        until_closed,
        drip(b"HTTP/1.1 200 OK\r\nX: ", b"x"),
        drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=["silent", "slow header", "continues"],
)
def test_a_stalled_receiver(talk: Callable[[socket.socket], object], exporter: Make) -> None:
    with peer(talk) as url:
        result = exporter(url, timeout=0.3).export(REQUEST)
    assert result == ExportResult(False, reason="TimeoutError")


def test_a_receiver_that_does_not_read(exporter: Make) -> None:
    ended = threading.Event()
    with peer(lambda connection: ended.wait(30)) as url:
        client = exporter(url, timeout=0.3)
        result = client.export(bytes(64 << 20))
        ended.set()
    assert result == ExportResult(False, reason="TimeoutError")


@pytest.mark.parametrize(
    ("prefix", "unit"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65536),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"no size\r\n"),
    ],
    ids=["no end", "no chunk"],
)
def test_a_body_without_end_was_taken_all_the_same(
    prefix: bytes, unit: bytes, exporter: Make
) -> None:
    with peer(drip(prefix, unit)) as url:
        client = exporter(url, timeout=30)
        waits = noting(client)
        assert client.export(REQUEST) == ExportResult(True)
        assert client.export(REQUEST) == ExportResult(True)
        assert waits.waits == []
        client.shutdown()


def test_what_comes_unasked_is_not_the_next_answer(exporter: Make) -> None:
    go, sent = threading.Event(), threading.Event()

    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        go.wait(30)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        sent.set()
        until_closed(connection)

    with peer(talk) as url:
        client = exporter(url, timeout=30)
        assert client.export(REQUEST) == ExportResult(True)
        go.set()
        assert sent.wait(30)
        assert client.export(REQUEST) == ExportResult(True)
        client.shutdown()


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 999,
    ],
    ids=["another protocol", "no status", "too many headers"],
)
def test_answers_that_are_not_http(answer: bytes, exporter: Make) -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(answer)
        until_closed(connection)

    with peer(talk) as url:
        client = exporter(url, timeout=10)
        waits = noting(client)
        result = client.export(REQUEST)
        again = client.export(REQUEST)
    assert not result.delivered
    assert result.reason
    assert again == result
    assert waits.waits == []


def in_thread(client: OtlpHttpExporter) -> tuple[threading.Thread, list[ExportResult]]:
    results: list[ExportResult] = []
    thread = threading.Thread(target=lambda: results.append(client.export(REQUEST)), daemon=True)
    thread.start()
    return thread, results


def test_shutdown_while_an_answer_is_awaited(exporter: Make) -> None:
    asked = threading.Event()

    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        asked.set()
        until_closed(connection)

    with peer(talk) as url:
        client = exporter(url, timeout=1000)
        thread, results = in_thread(client)
        assert asked.wait(30)
        client.shutdown()
        thread.join(30)
        assert results == [ExportResult(False, reason="shutdown")]
        assert client.export(REQUEST) == ExportResult(False, reason="shutdown")
        assert client._opened is None
        client.shutdown()


def test_shutdown_while_connecting(exporter: Make) -> None:
    with full_backlog() as listener:
        client = exporter(f"http://{HOST}:{listener.getsockname()[1]}", timeout=1000)
        thread, results = in_thread(client)
        pause = threading.Event()
        while client._opened is None:
            pause.wait(0.001)
        client.shutdown()
        thread.join(30)
    assert results == [ExportResult(False, reason="shutdown")]


def test_shutdown_between_attempts(
    receive: Receive, exporter: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(otlp, "_FIRST_WAIT", 500.0)
    receiver = receive((503, {}, b""))
    client = exporter(receiver.url, timeout=1000)
    thread, results = in_thread(client)
    pause = threading.Event()
    while not receiver.received:
        pause.wait(0.001)
    client.shutdown()
    thread.join(30)
    assert results == [ExportResult(False, reason="shutdown")]


def test_nothing_is_told_about_the_exporter(receive: Receive) -> None:
    """Both keys of suppression are set while it calls, and only then."""
    seen = []

    class Watching(OtlpHttpExporter):
        def _open(self, deadline: float) -> Any:
            seen.append(
                [
                    otel_context.get_value(key)
                    for key in (_SUPPRESS_INSTRUMENTATION_KEY, "suppress_instrumentation")
                ]
            )
            return super()._open(deadline)

    client = Watching(receive().url, environment={})
    before = otel_context.get_current()
    assert client.export(REQUEST).delivered
    assert seen == [[True, True]]
    assert otel_context.get_current() == before
    client.shutdown()


def test_through_tracesock(
    receive: Receive, exporter: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(otlp, "socket", tracesock)
    receiver = receive((503, {}, b""), OK)
    client = exporter(receiver.url, timeout=100)
    noting(client)
    assert client.export(REQUEST).delivered
    assert client.export(REQUEST).delivered
    assert isinstance(client._opened, tracesock.socket)
    assert len(set(receiver.peers)) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork (any Unix)")
def test_a_forked_child_has_a_connection_of_its_own(receive: Receive, exporter: Make) -> None:
    receiver = receive()
    client = exporter(receiver.url)
    assert client.export(REQUEST).delivered
    with client._exporting:  # another thread exports while this one forks
        child = os.fork()
        if child == 0:
            status = 1
            try:
                status = 0 if client.export(REQUEST).delivered else 2
            finally:
                os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert client.export(REQUEST).delivered
    first, childs, last = receiver.peers
    assert first == last != childs


# ------------------------------------------------------------------ TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A certificate of 127.0.0.1 with its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl here to make a certificate with (Debian: apt install openssl)")
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-subj", "/CN=test", "-addext", f"subjectAltName=IP:{HOST}"]
    command += ["-keyout", str(path), "-out", f"{path}.crt"]
    subprocess.run(command, check=True, capture_output=True)
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return str(path)


class SecureReceiver(Receiver):
    def __init__(self, context: ssl.SSLContext, *answers: Answer) -> None:
        super().__init__(*answers)
        self.context = context

    @property
    def url(self) -> str:
        return super().url.replace("http:", "https:")

    def finish_request(self, request: Any, client_address: Any) -> None:
        with self.context.wrap_socket(request, server_side=True) as secure:
            super().finish_request(secure, client_address)


@pytest.fixture
def receive_tls(certificate: str) -> Iterator[Callable[..., Receiver]]:
    with contextlib.ExitStack() as stack:

        def make(*answers: Answer, client: bool = False) -> Receiver:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            if client:
                context.verify_mode = ssl.CERT_REQUIRED
                context.load_verify_locations(certificate)
            return stack.enter_context(serving(SecureReceiver(context, *answers)))

        yield make


def test_tls(receive_tls: Receive, exporter: Make, certificate: str) -> None:
    receiver = receive_tls(OK, (503, {}, b""), OK)
    client = exporter(receiver.url, certificate=certificate, timeout=100)
    waits = noting(client)
    for _ in range(2):
        assert client.export(REQUEST) == ExportResult(True)
    assert [body for _, _, body in receiver.received] == [REQUEST] * 3
    assert len(waits.waits) == 1
    assert len(set(receiver.peers)) == 1
    receiver.hang_up = True
    for _ in range(2):
        receiver.hung_up.clear()
        assert client.export(REQUEST) == ExportResult(True)
        assert receiver.hung_up.wait(30)
    assert len(waits.waits) == 1


def test_tls_without_trust(
    receive_tls: Receive, exporter: Make, caplog: pytest.LogCaptureFixture
) -> None:
    receiver = receive_tls()
    client = exporter(receiver.url, headers={"authorization": "Bearer hunter2"})
    waits = noting(client)
    assert client.export(REQUEST) == ExportResult(False, reason="SSLCertVerificationError")
    assert (receiver.received, waits.waits) == ([], [])
    assert "CERTIFICATE_VERIFY_FAILED" in caplog.text
    assert "hunter2" not in caplog.text


def test_tls_with_a_certificate_of_the_client(
    receive_tls: Receive, exporter: Make, certificate: str
) -> None:
    receiver = receive_tls(client=True)
    trusting = exporter(receiver.url, certificate=certificate, timeout=0.1)
    assert not trusting.export(REQUEST).delivered
    known = exporter(receiver.url, certificate=certificate, client_certificate=certificate)
    assert known.export(REQUEST).delivered
    assert len(receiver.received) == 1


def test_shutdown_during_a_handshake(exporter: Make) -> None:
    asked = threading.Event()

    def talk(connection: socket.socket) -> None:
        connection.recv(1)
        asked.set()
        until_closed(connection)

    with peer(talk) as url:
        client = exporter(url.replace("http:", "https:"), timeout=1000)
        thread, results = in_thread(client)
        assert asked.wait(30)
        client.shutdown()
        thread.join(30)
    assert results == [ExportResult(False, reason="shutdown")]


# ------------------------------------------------------------------ the environment

GENERAL = "OTEL_EXPORTER_OTLP_"
TRACES = "OTEL_EXPORTER_OTLP_TRACES_"


def from_environment(variables: Mapping[str, str], **arguments: Any) -> OtlpHttpExporter:
    return OtlpHttpExporter(environment=variables, **arguments)


@pytest.mark.parametrize(
    ("variables", "target", "path"),
    [
        ({}, "http://localhost:4318/v1/traces", "/v1/traces"),
        ({GENERAL + "ENDPOINT": "http://c:1"}, "http://c:1/v1/traces", "/v1/traces"),
        ({GENERAL + "ENDPOINT": "https://c/o/"}, "https://c:443/o/v1/traces", "/o/v1/traces"),
        ({TRACES + "ENDPOINT": "http://c"}, "http://c:80", "/"),
        (
            {GENERAL + "ENDPOINT": "http://a", TRACES + "ENDPOINT": "http://[::1]:9/x?y=z"},
            "http://[::1]:9/x",
            "/x?y=z",
        ),
        ({GENERAL + "ENDPOINT": "http://c", TRACES + "ENDPOINT": " "}, "http://c:80/v1/traces", ""),
    ],
)
def test_endpoints(variables: Mapping[str, str], target: str, path: str) -> None:
    exporter = from_environment(variables)
    assert exporter._target == target
    assert path in ("", exporter._path)


def test_an_ipv6_receiver() -> None:
    if not socket.has_ipv6:
        pytest.skip("this Python has no IPv6; one that has would run it")

    class Receiver6(Receiver):
        address_family = socket.AF_INET6

        def server_bind(self) -> None:
            self.server_address = ("::1", 0)
            super().server_bind()

    try:
        receiver = Receiver6()
    except OSError as error:
        pytest.skip(f"no IPv6 loopback here ({error}); a kernel with IPv6 would run it")
    with serving(receiver):
        url = f"http://[::1]:{receiver.server_address[1]}"
        exporter = OtlpHttpExporter(url, environment={})
        assert exporter.export(REQUEST).delivered
        exporter.shutdown()
    assert receiver.received[0][1]["host"] == url.removeprefix("http://")


def test_headers(receive: Receive) -> None:
    receiver = receive()
    variables = {
        GENERAL + "HEADERS": "ignored=1",
        TRACES + "HEADERS": "Api-Key=a%20b%3D, x-tenant=t,content-length=9,user-agent=own",
    }
    url = receiver.url.replace("//", "//us%40er:p%3Aw@")
    exporter = from_environment(variables, endpoint=url, headers={"X-Tenant": "argument"})
    assert exporter.export(REQUEST).delivered
    exporter.shutdown()
    _, headers, body = receiver.received[0]
    assert body == REQUEST
    assert headers["api-key"] == "a b="
    assert headers["x-tenant"] == "argument"
    assert headers["user-agent"] == "own"
    assert headers["authorization"] == "Basic " + base64.b64encode(b"us@er:p:w").decode()
    assert "ignored" not in headers
    assert "us" not in exporter._target


def test_other_variables(caplog: pytest.LogCaptureFixture) -> None:
    exporter = from_environment(
        {
            GENERAL + "TIMEOUT": "3",
            TRACES + "TIMEOUT": "2.5",
            GENERAL + "COMPRESSION": "gzip",
            GENERAL + "PROTOCOL": "grpc",
            TRACES + "PROTOCOL": "http/protobuf",
        }
    )
    assert (exporter._timeout, exporter._compress) == (2.5, True)
    assert from_environment({GENERAL + "TIMEOUT": "3"}, timeout=7)._timeout == 7
    assert caplog.records == []

    # What is no value is ignored, as the specification has it, but said.
    exporter = from_environment({GENERAL + "TIMEOUT": "-1", TRACES + "COMPRESSION": "zstd"})
    assert (exporter._timeout, exporter._compress) == (10, False)
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert f"{GENERAL}TIMEOUT is '-1', which is ignored" in caplog.text
    assert f"{TRACES}COMPRESSION is 'zstd', which is ignored" in caplog.text


BAD_SETTINGS: list[tuple[str, dict[str, str], dict[str, Any]]] = [
    (f"{GENERAL}PROTOCOL is 'grpc'.*http/protobuf only.*sdk", {GENERAL + "PROTOCOL": "grpc"}, {}),
    (f"{TRACES}PROTOCOL is 'http/json'", {TRACES + "PROTOCOL": "http/json"}, {}),
    (f"{TRACES}ENDPOINT is 'localhost:4317'", {TRACES + "ENDPOINT": "localhost:4317"}, {}),
    (f"{GENERAL}ENDPOINT is 'ftp://x/v1", {GENERAL + "ENDPOINT": "ftp://x"}, {}),
    ("endpoint is 'http:///v1'", {}, {"endpoint": "http:///v1"}),
    ("endpoint is 'http://h:99999'", {}, {"endpoint": "http://h:99999"}),
    ("endpoint is 'http://h/a b'", {}, {"endpoint": "http://h/a b"}),
    ("endpoint is .*r.nX: y'", {}, {"endpoint": "http://h/\r\nX: y"}),
    ("endpoint is 5", {}, {"endpoint": 5}),
    ("endpoint is 'ftp:…h/…'", {}, {"endpoint": "ftp://user:hunter2@h/?token=hunter2"}),
    ("timeout is 0: it must be a number of seconds", {}, {"timeout": 0}),
    ("timeout is nan", {}, {"timeout": float("nan")}),
    ("timeout is 'x'", {}, {"timeout": "x"}),
    ("compression is 'br': it must be one of none, gzip", {}, {"compression": "br"}),
    ("headers: 'a b' cannot be the name", {}, {"headers": {"a b": "hunter2"}}),
    ("headers: the value of 'k'", {}, {"headers": {"k": "hunter2\r\nX: y"}}),
    ("headers: the value of 'k'", {}, {"headers": {"k": "hunter2€"}}),
    (
        f"{GENERAL}HEADERS: the value of 'k'",
        {GENERAL + "HEADERS": "k=hunter2%0d%0aX:y"},
        {},
    ),
    (
        f"{GENERAL}CERTIFICATE is '/none.pem': FileNotFoundError",
        {GENERAL + "CERTIFICATE": "/none.pem", GENERAL + "ENDPOINT": "https://h"},
        {},
    ),
    (
        "client_certificate is '/none.pem'.*client_key is '/key'.*FileNotFoundError",
        {},
        {"endpoint": "https://h", "client_certificate": "/none.pem", "client_key": "/key"},
    ),
    (
        f"{TRACES}CLIENT_KEY is '/key', but no client_certificate",
        {TRACES + "CLIENT_KEY": "/key"},
        {"endpoint": "https://h"},
    ),
]


@pytest.mark.parametrize(("message", "variables", "arguments"), BAD_SETTINGS)
def test_a_bad_setting_is_named(
    message: str, variables: dict[str, str], arguments: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        from_environment(variables, **arguments)
    assert "hunter2" not in str(raised.value)


# ------------------------------------------------------------------ files


def test_a_file_of_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    names = ["one", 'two\n"\u2028', "three"]
    first = OtlpFileExporter(path)
    second = OtlpFileExporter(str(path))
    assert first.export(a_request(names[0])) == ExportResult(True)
    assert second.export(memoryview(a_request(names[1]))) == ExportResult(True)
    first.shutdown()
    first.shutdown()
    assert first.export(REQUEST) == ExportResult(False, reason="shutdown")
    assert second.export(a_request(names[2])) == ExportResult(True)
    second.shutdown()

    lines = path.read_bytes().split(b"\n")
    assert lines.pop() == b""
    spans = [json.loads(line)["resourceSpans"][0]["scopeSpans"][0]["spans"][0] for line in lines]
    assert [span["name"] for span in spans] == names
    assert spans[0]["traceId"] == f"{1:032x}"


def test_lines_of_threads_stay_whole(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    exporters = [OtlpFileExporter(path) for _ in range(2)]
    request = a_request("x" * 100_000)

    def write(number: int) -> None:
        for _ in range(10):
            exporters[number % 2].export(request)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for exporter in exporters:
        exporter.shutdown()
    lines = path.read_bytes().splitlines()
    assert len(lines) == 40
    assert set(lines) == {_native.otlp_json(request)}


def test_a_file_that_cannot_be_written(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here (Linux has it)")
    exporter = OtlpFileExporter("/dev/full")
    for _ in range(3):
        assert exporter.export(REQUEST) == ExportResult(False, reason="OSError")
    assert len(caplog.records) == 1
    assert "/dev/full" in caplog.text
    assert not exporter.export(b"no request").delivered
    exporter.shutdown()
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / "no" / "file"))):
        OtlpFileExporter(tmp_path / "no" / "file")


def test_a_line_after_one_that_was_cut(tmp_path: Path) -> None:
    """The disk fills up within a line: the next is a line of its own."""
    path = tmp_path / "traces.jsonl"
    start = 1 << 30  # far beyond any other file that this process may write
    path.touch()
    os.truncate(path, start)
    exporter = OtlpFileExporter(path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (start + 50, limits[1]))
        assert exporter.export(REQUEST) == ExportResult(False, reason="OSError")
        assert exporter.export(REQUEST) == ExportResult(False, reason="OSError")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert exporter.export(REQUEST) == ExportResult(True)
    assert exporter.export(REQUEST) == ExportResult(True)
    exporter.shutdown()
    with path.open("rb") as file:
        file.seek(start)
        cut, *whole = file.read().splitlines()
    line = _native.otlp_json(REQUEST)
    assert cut == line[:50]
    assert whole == [line, line]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork (any Unix)")
def test_a_forked_child_writes_to_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    exporter = OtlpFileExporter(path)
    with exporter._exporting:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                status = 0 if exporter.export(REQUEST).delivered else 2
            finally:
                os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert exporter.export(REQUEST).delivered
    exporter.shutdown()
    assert path.read_bytes().splitlines() == [_native.otlp_json(REQUEST)] * 2
