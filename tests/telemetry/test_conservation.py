"""Nothing is lost in silence and nothing is told twice: what was recorded is what was delivered and
what was counted as dropped."""

from __future__ import annotations

import contextlib
import gc
import http.server
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

import tracesock
from tests.telemetry.plain import Plain, attributes, every_point, in_file, wait_for
from tracesock._native import recorder
from tracesock.instrumentation import drain

Telemetry = Callable[..., Plain]
PARENT = trace.NonRecordingSpan(trace.SpanContext(0xABC, 0xDEF, False, trace.TraceFlags(1)))


def send(count: int, pair: Any = None) -> None:
    """`count` sends of one byte below a recording parent."""
    left, right = pair or tracesock.socketpair()
    with trace.use_span(PARENT):
        for _ in range(count):
            left.send(b"x")
            right.recv(1)
    if pair is None:
        left.close()
        right.close()


@pytest.fixture
def pairs() -> Iterator[list[Any]]:
    """Connections that stay open: an end is a record as well."""
    made = [tracesock.socketpair() for _ in range(8)]
    yield made
    for pair in made:
        for sock in pair:
            sock.close()


def calls(spans: Any) -> int:
    """The sends that these spans stand for."""
    return sum(attributes(span).get("tracesock.send.calls", 0) for span in spans)


class Gate(SpanProcessor):
    """Counts sends, and holds whoever brings one while it is shut."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.reached = threading.Event()
        self.calls = 0

    def on_end(self, span: Any) -> None:
        self.reached.set()
        self.open.wait(60)
        self.calls += attributes(span).get("tracesock.send.calls", 0)


# --- in one process -------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0, 128])
def test_eight_threads(telemetry: Telemetry, pairs: list[Any], limit: int) -> None:
    plain = telemetry(max_sends_per_trace=limit, drain_interval=0.05)
    threads = [threading.Thread(target=send, args=(3000, pair)) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spans = plain.spans("socket send ")
    assert calls(spans) + plain.total("tracesock.telemetry.dropped") == 24_000
    assert plain.total("tracesock.send.duration") == 24_000
    identifiers = [span.get_span_context().span_id for span in spans]
    assert len(set(identifiers)) == len(identifiers)


def test_a_full_ring_behind_a_stalled_exporter(telemetry: Telemetry, pairs: list[Any]) -> None:
    plain = telemetry(max_sends_per_trace=0, drain_interval=0.01)
    gate = Gate()
    plain.provider.add_span_processor(gate)
    send(10, pairs[0])
    assert gate.reached.wait(30)
    try:
        began = time.monotonic()
        assert plain.provider.force_flush(200) is False, "it says that it is not done"
        assert tracesock.instrumentation.flush(0.2) is False
        send(60_000, pairs[0])
        # A collection of metrics does not wait for the exporter of spans.
        assert plain.total("tracesock.send.duration") == 60_010
        assert time.monotonic() - began < 60
    finally:
        gate.open.set()
    assert tracesock.instrumentation.flush()
    dropped = plain.total("tracesock.telemetry.dropped", reason="ring_full")
    assert dropped > 0
    assert gate.calls + dropped == 60_010


def test_lookups_that_come_faster_than_they_are_delivered(telemetry: Telemetry) -> None:
    plain = telemetry(drain_interval=0.01)

    class Lookups(Gate):
        def on_end(self, span: Any) -> None:
            super().on_end(span)
            self.calls += 1

    gate = Lookups()
    plain.provider.add_span_processor(gate)
    tracesock.gethostbyname("localhost")
    assert gate.reached.wait(30)
    for _ in range(20_000):
        tracesock.gethostbyname("localhost")
    gate.open.set()
    assert plain.provider.force_flush(200_000)
    dropped = plain.total("tracesock.telemetry.dropped")
    assert dropped > 0
    assert gate.calls + dropped == 20_001


class Refuses(SpanProcessor):
    def on_end(self, span: Any) -> None:
        raise RuntimeError("it fails")


@pytest.mark.parametrize("limit", [0, 5])
def test_an_exporter_that_raises(telemetry: Telemetry, limit: int) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(Refuses())
    reader = InMemoryMetricReader()
    tracesock.instrument(
        provider,
        MeterProvider([reader], shutdown_on_exit=False),
        max_sends_per_trace=limit,
    )
    send(300)
    provider.force_flush()
    (point,) = every_point(reader)["tracesock.telemetry.dropped"].values()
    assert point.value == 300, "a folded span is as many records as it stands for"
    assert dict(point.attributes) == {"signal": "traces", "reason": "exporter"}


def test_a_flush_ends_while_others_go_on(telemetry: Telemetry, pairs: list[Any]) -> None:
    plain = telemetry(max_sends_per_trace=0)
    stop = threading.Event()

    def work(left: Any, right: Any) -> None:
        with trace.use_span(PARENT):
            while not stop.is_set():
                for _ in range(100):
                    left.send(b"x")
                right.recv(1000)

    # One is enough to be faster than the processors.
    threads = [threading.Thread(target=work, args=pair) for pair in pairs[:1]]
    for thread in threads:
        thread.start()
    try:
        assert plain.provider.force_flush(60_000)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    delivered = calls(plain.spans("socket send "))
    assert delivered + plain.total("tracesock.telemetry.dropped") == plain.total(
        "tracesock.send.duration"
    )


def test_uninstrument_delivers_the_rest(telemetry: Telemetry) -> None:
    plain = telemetry(drain_interval=600.0)
    send(1000)
    tracesock.uninstrument()
    assert calls(plain.exporter.get_finished_spans()) == 1000
    send(10)
    assert calls(plain.exporter.get_finished_spans()) == 1000


def test_what_has_been_read_wakes_nobody(telemetry: Telemetry, pairs: list[Any]) -> None:
    telemetry(max_sends_per_trace=0, drain_interval=600.0)
    gc.collect()  # the end of a socket is a record as well
    for _ in range(25):
        send(100, pairs[0])
        time.sleep(0.02)  # a drain that was woken would have read them
        assert recorder.counts()[2] == 100
        assert tracesock.instrumentation.flush()


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_ten_thousand_short_threads(telemetry: Telemetry) -> None:
    plain = telemetry(max_sends_per_trace=0, drain_interval=600.0)
    left, right = tracesock.socketpair()

    def work() -> None:
        with trace.use_span(PARENT):
            left.send(b"x")
        right.recv(1)

    def churn(count: int) -> int:
        for _ in range(count):
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
        assert plain.provider.force_flush()
        plain.exporter.clear()
        return resident()

    with left, right:
        # As many at a time: the spans that wait for the flush are memory, too.
        before, *_, after = (churn(1000) for _ in range(10))
    assert plain.total("tracesock.send.duration") == 10_000
    assert plain.total("tracesock.telemetry.dropped") == 0
    assert after - before < 16 << 20


def test_many_threads_at_once(telemetry: Telemetry) -> None:
    """Each has a ring of its own; when they have ended the memory is given back."""
    plain = telemetry(max_sends_per_trace=0, drain_interval=600.0)
    before = len(plain.spans())
    barrier = threading.Barrier(100)

    def work() -> None:
        send(5)
        barrier.wait(60)

    for _ in range(3):
        threads = [threading.Thread(target=work) for _ in range(100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert before == 0
    assert calls(plain.spans()) == 1500
    assert plain.total("tracesock.telemetry.dropped") == 0
    assert tracesock._native.recorder.counts()[2] == 0, "nothing waits"


# --- OTLP -----------------------------------------------------------------------------------------


class Collector(http.server.ThreadingHTTPServer):
    """Takes requests, after `gate` has opened, and answers with `status` and `answer`."""

    daemon_threads = True

    def __init__(self, status: int = 200, answer: bytes = b"") -> None:
        super().__init__(("127.0.0.1", 0), _Collect)
        self.gate = threading.Event()
        self.status = status
        self.answer = answer
        self.reached = threading.Event()
        self.requests: list[ExportTraceServiceRequest] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # the exporter may have gone

    @property
    def calls(self) -> int:
        return sum(
            attribute.value.int_value
            for request in self.requests
            for span in request.resource_spans[0].scope_spans[0].spans
            for attribute in span.attributes
            if attribute.key == "tracesock.send.calls"
        )


class _Collect(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.reached.set()
        self.server.gate.wait(100)
        if self.server.status == 200:
            self.server.requests.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(self.server.status)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(self.server.answer)))
        self.end_headers()
        self.wfile.write(self.server.answer)

    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def collecting(status: int = 200, answer: bytes = b"") -> Iterator[Collector]:
    with Collector(status, answer) as collector:
        thread = threading.Thread(target=collector.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield collector
        finally:
            collector.gate.set()
            collector.shutdown()
            thread.join()


@pytest.mark.parametrize("limit", [0, 128])
def test_native_otlp_behind_a_slow_collector(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    # The collector may be as slow as the threads below are.
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "200")
    with collecting() as collector:
        port = collector.server_address[1]
        plain = telemetry(
            otlp=f"http://127.0.0.1:{port}", max_sends_per_trace=limit, drain_interval=0.05
        )
        threads = [threading.Thread(target=send, args=(3000,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        assert collector.reached.wait(60)
        for thread in threads:
            thread.join()
        collector.gate.set()
        assert tracesock.instrumentation.flush(100)
        dropped = plain.total("tracesock.telemetry.dropped")
        assert collector.calls + dropped == 24_000
        assert dropped == 0, "there is room for what waits"
        tracesock.uninstrument()
    spans = [
        span.span_id
        for request in collector.requests
        for span in request.resource_spans[0].scope_spans[0].spans
    ]
    assert len(set(spans)) == len(spans)


def test_native_otlp_that_is_refused(telemetry: Telemetry) -> None:
    with collecting(400) as collector:
        collector.gate.set()
        plain = telemetry(
            otlp=f"http://127.0.0.1:{collector.server_address[1]}", max_sends_per_trace=10
        )
        send(500)
        tracesock.instrumentation.flush()
        # Ten sends and the fold of the rest: the records of the wire are spans.
        assert plain.total("tracesock.telemetry.dropped", reason="exporter") == 11
        tracesock.uninstrument()


def test_native_otlp_that_is_partly_rejected(telemetry: Telemetry) -> None:
    # ExportTraceServiceResponse { partial_success { rejected_spans: 3 } }
    with collecting(200, b"\x0a\x02\x08\x03") as collector:
        collector.gate.set()
        # One request: the drain does not come in between.
        plain = telemetry(
            otlp=f"http://127.0.0.1:{collector.server_address[1]}",
            max_sends_per_trace=0,
            drain_interval=600.0,
        )
        send(20)
        tracesock.instrumentation.flush()
        assert plain.total("tracesock.telemetry.dropped", reason="exporter") == 3
        tracesock.uninstrument()


def calls_in_file(path: Path) -> int:
    return sum(
        int(attribute["value"]["intValue"])
        for span in in_file(path)
        for attribute in span["attributes"]
        if attribute["key"] == "tracesock.send.calls"
    )


def test_the_native_encoder_tells_what_the_sdk_tells(telemetry: Telemetry, tmp_path: Path) -> None:
    """The same traffic by both ways out."""

    def traffic() -> None:
        with (
            tracesock.create_server(("127.0.0.1", 0)) as server,
            trace.use_span(PARENT),
            tracesock.create_connection(("localhost", server.getsockname()[1])) as client,
        ):
            accepted, _ = server.accept()
            for number in range(12):
                client.send(bytes(number + 1))
            client.sendall(b"x")
            assert len(accepted.recv(79, tracesock.MSG_WAITALL)) == 79
            accepted.close()
        left, right = tracesock.socketpair()
        right.close()
        with left, trace.use_span(PARENT), pytest.raises(BrokenPipeError):
            left.send(b"x")

    plain = telemetry(max_sends_per_trace=4)
    traffic()
    volatile = ("port", "duration", "address")

    def told(name: str, kind: str, status: str, values: dict[str, Any]) -> tuple[Any, ...]:
        kept = {key: value for key, value in values.items() if not key.endswith(volatile)}
        return name.rpartition(" ")[0], kind, status, sorted(kept.items(), key=str)

    expected = [
        told(
            span.name,
            str(span.kind.value + 1),
            "2" if span.status.status_code is trace.StatusCode.ERROR else "0",
            attributes(span),
        )
        for span in plain.spans()
    ]
    path = tmp_path / "spans.jsonl"
    telemetry(max_sends_per_trace=4, otlp=f"file:{path}")
    traffic()
    tracesock.uninstrument()

    def value(found: dict[str, Any]) -> Any:
        ((kind, inner),) = found.items()
        if kind == "arrayValue":
            return tuple(value(each) for each in inner["values"])
        return int(inner) if kind == "intValue" else inner

    found = [
        told(
            span["name"],
            str(span["kind"]),
            str(span.get("status", {}).get("code", 0)),
            {each["key"]: value(each["value"]) for each in span["attributes"]},
        )
        for span in in_file(path)
    ]
    assert sorted(found, key=str) == sorted(expected, key=str)


# --- fork -----------------------------------------------------------------------------------------


def in_child(work: Callable[[], None]) -> int:
    """The exit status of a forked child that does `work` and then ends without the interpreter."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_fork(telemetry: Telemetry, tmp_path: Path) -> None:
    path = tmp_path / "spans.jsonl"
    telemetry(otlp=f"file:{path}", max_sends_per_trace=0, drain_interval=600.0)
    send(100)

    def child() -> None:
        send(30)
        tracesock.instrumentation.flush()
        assert in_child(grandchild) == 0

    def grandchild() -> None:
        send(7)
        tracesock.instrumentation.flush()

    assert in_child(child) == 0
    assert calls_in_file(path) == 37, "the child tells nothing of the parent's"
    send(1)
    tracesock.uninstrument()
    assert calls_in_file(path) == 138
    identifiers = [span["spanId"] for span in in_file(path)]
    assert len(set(identifiers)) == len(identifiers)


def test_fork_ends_no_connection_of_the_parents(telemetry: Telemetry) -> None:
    plain = telemetry()
    left, right = tracesock.socketpair()
    with tracesock.create_server(("127.0.0.1", 0)) as server:
        client = tracesock.create_connection(server.getsockname())
        accepted, _ = server.accept()
        reading, writing = os.pipe()

        def child() -> None:
            client.close()
            accepted.close()
            left.close()
            ended = plain.total("tracesock.connection.duration")
            os.write(writing, str(int(ended)).encode())

        assert in_child(child) == 0
        assert os.read(reading, 10) == b"0"
        os.close(reading)
        os.close(writing)
        client.send(b"still")
        assert accepted.recv(5) == b"still"
        client.close()
        accepted.close()
    left.close()
    right.close()
    assert plain.total("tracesock.connection.duration", network_transport="tcp") == 2


def test_fork_while_threads_send(telemetry: Telemetry, tmp_path: Path) -> None:
    path = tmp_path / "spans.jsonl"
    telemetry(otlp=f"file:{path}", max_sends_per_trace=0, drain_interval=0.01)
    threads = [threading.Thread(target=send, args=(2000,)) for _ in range(4)]
    for thread in threads:
        thread.start()

    def child() -> None:
        send(50)
        tracesock.uninstrument()

    children = 0
    while any(thread.is_alive() for thread in threads) and children < 20:
        assert in_child(child) == 0
        children += 1
    for thread in threads:
        thread.join()
    tracesock.uninstrument()
    assert calls_in_file(path) == 8000 + 50 * children
    identifiers = [span["spanId"] for span in in_file(path)]
    assert len(set(identifiers)) == len(identifiers)


def test_fork_in_the_midst_of_a_flush(telemetry: Telemetry) -> None:
    """By a processor, or a signal handler: the child comes back out of the flush as well."""

    class Forks(SpanProcessor):
        child: int | None = None

        def on_end(self, span: Any) -> None:
            if self.child is None:
                self.child = os.fork()

    processor = Forks()
    plain = telemetry(max_sends_per_trace=0, drain_interval=600.0)
    plain.provider.add_span_processor(processor)
    send(5)
    flushed = None
    try:
        flushed = plain.provider.force_flush()
        tracesock.instrumentation.flush()
    finally:
        if processor.child == 0:
            os._exit(0 if flushed else 1)
    assert processor.child is not None and flushed
    assert os.waitstatus_to_exitcode(os.waitpid(processor.child, 0)[1]) == 0


def test_fork_while_the_drain_is_in_an_exporter(
    telemetry: Telemetry, pairs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which has a lock then, as the SDK's own: a child would wait for it without end."""
    # However slowly the exporter's thread goes on.
    monkeypatch.setattr(drain, "_FORK_TIMEOUT", 60.0)

    class Locks(SpanProcessor):
        def __init__(self) -> None:
            self.lock = threading.Lock()
            self.entered = threading.Event()

        def on_end(self, span: Any) -> None:
            with self.lock:
                self.entered.set()
                time.sleep(0.05)

    processor = Locks()
    plain = telemetry(max_sends_per_trace=0, drain_interval=0.01)
    plain.provider.add_span_processor(processor)
    for _ in range(3):
        processor.entered.clear()
        send(1, pairs[0])
        assert processor.entered.wait(30)
        assert in_child(lambda: processor.lock.acquire(timeout=20) or os._exit(3)) == 0
    assert tracesock.instrumentation.flush()
    send(1, pairs[0])
    assert tracesock.instrumentation.flush(), "the turns go on"
    assert calls(plain.spans("socket send ")) == 4


def test_fork_does_not_wait_for_a_stalled_exporter(telemetry: Telemetry, pairs: list[Any]) -> None:
    plain = telemetry(max_sends_per_trace=0, drain_interval=0.01)
    gate = Gate()
    plain.provider.add_span_processor(gate)
    send(1, pairs[0])
    assert gate.reached.wait(30)
    try:
        assert in_child(lambda: None) == 0
    finally:
        gate.open.set()
    assert tracesock.instrumentation.flush()


def test_a_child_of_multiprocessing_delivers_when_it_ends(
    telemetry: Telemetry, tmp_path: Path
) -> None:
    """Its children end without the interpreter's exit."""
    path = tmp_path / "spans.jsonl"
    telemetry(otlp=f"file:{path}", max_sends_per_trace=0, drain_interval=600.0)
    send(5)
    processes = [
        multiprocessing.get_context("fork").Process(target=send, args=(20,)) for _ in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert calls_in_file(path) == 60
    tracesock.uninstrument()
    assert calls_in_file(path) == 65


def test_a_burst_of_connects_does_not_pile_up(telemetry: Telemetry, tmp_path: Path) -> None:
    """What waits, and what is encoded of it, is memory that a process keeps: the drain is woken,
    and hands on what it has, long before the interval is over."""
    path = tmp_path / "spans.jsonl"
    telemetry(otlp=f"file:{path}", drain_interval=600.0)
    with trace.use_span(PARENT), tracesock.create_server(("127.0.0.1", 0)) as server:

        def connects(count: int) -> None:
            for _ in range(count):
                client = tracesock.create_connection(server.getsockname())
                accepted, _ = server.accept()
                client.close()
                accepted.close()

        def told(count: int) -> bool:
            # While a line is written: it is read in part.
            return path.read_text().count("socket connection_setup") >= count

        # A ring of records that fills up wakes the drain as well, wherever that may be.
        connects(100)
        recorder.wake()
        wait_for(lambda: told(100))
        connects(200)
        wait_for(lambda: told(256))
        connects(700)
    tracesock.uninstrument()
    spans = in_file(path)
    for name in ("socket connection_setup", "socket connect "):
        assert sum(span["name"].startswith(name) for span in spans) == 1000
    lines = path.read_bytes().splitlines()
    assert max(map(len, lines)) < 256 << 10
    assert len(lines) < len(spans) / 10


# --- the end of a process -------------------------------------------------------------------------

PROGRAM = """
import os, signal, sys, threading, time
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.export import SpanExportResult
import tracesock

class Exporter(SpanExporter):
    def export(self, spans):
        for span in spans:
            calls = span.attributes.get("tracesock.send.calls", 0)
            if calls:
                os.write(1, b"%d\\n" % calls)
        return SpanExportResult.SUCCESS

provider = TracerProvider()
provider.add_span_processor({processor}(Exporter()))
tracesock.instrument(provider, drain_interval=600.0)
parent = trace.NonRecordingSpan(trace.SpanContext(1, 2, False, trace.TraceFlags(1)))

def send(count, size=1):
    left, right = tracesock.socketpair()
    with left, right, trace.use_span(parent):
        for _ in range(count):
            left.send(bytes(size))
            right.recv(100)

send(1000)
"""
ENDINGS = {
    "normal": ("", 0),
    "sys.exit": ("sys.exit(3)", 3),
    "exception": ("raise RuntimeError('on purpose')", 1),
    # Which the process may have inherited as ignored, or blocked.
    "interrupt": (
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])\n"
        "os.kill(os.getpid(), signal.SIGINT); time.sleep(30)",
        -signal.SIGINT,
    ),
    "a thread that goes on": ("threading.Thread(target=lambda: time.sleep(0.3)).start()", 0),
    "uninstrumented before": ("tracesock.uninstrument()", 0),
    "shut down before": ("provider.shutdown()", 0),
}


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=False
    )


@pytest.mark.parametrize("processor", ["SimpleSpanProcessor", "BatchSpanProcessor"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_the_end_of_a_process(ending: str, processor: str) -> None:
    code, status = ENDINGS[ending]
    done = run(PROGRAM.replace("{processor}", processor) + code)
    assert done.returncode == status, done.stderr
    assert sum(map(int, done.stdout.split())) == 1000, done.stderr
    if status >= 0 and ending != "exception":
        assert done.stderr == ""


def test_the_end_while_daemon_threads_send() -> None:
    code = """
    threads = [threading.Thread(target=send, args=(10**9,), daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    before = tracesock._native.recorder.counts()[0]
    while tracesock._native.recorder.counts()[0] < before + 1000:
        time.sleep(0.05)
    """
    done = run(PROGRAM.replace("{processor}", "SimpleSpanProcessor") + textwrap.dedent(code))
    assert done.returncode == 0, done.stderr
    assert sum(map(int, done.stdout.split())) > 1000
    assert "Fatal" not in done.stderr
    assert "Traceback" not in done.stderr


def test_os_exit_delivers_nothing_by_itself() -> None:
    """As documented: _exit(2) runs nothing; a flush before it delivers."""
    program = PROGRAM.replace("{processor}", "SimpleSpanProcessor")
    done = run(program + "os._exit(4)")
    assert (done.returncode, done.stdout) == (4, "")
    done = run(program + "provider.force_flush()\nos._exit(4)")
    assert done.returncode == 4
    assert sum(map(int, done.stdout.split())) == 1000


def test_a_forked_child_that_ends_by_itself() -> None:
    code = """
    child = os.fork()
    if child == 0:
        send(10)
        sys.exit(5)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
    """
    done = run(PROGRAM.replace("{processor}", "SimpleSpanProcessor") + textwrap.dedent(code))
    assert done.returncode == 0, done.stderr
    assert sum(map(int, done.stdout.split())) == 1010, done.stderr


def test_an_exporter_that_hangs_does_not_hold_a_process_for_ever() -> None:
    """The exporter's own patience is the SDK's; the drain's at exit is bounded."""
    code = """
    import tracesock.instrumentation.drain as drain
    drain._FLUSH_TIMEOUT = 0.5
    hangs = threading.Event()
    class Hangs:
        def on_start(self, span, parent_context=None): pass
        def _on_ending(self, span): pass
        def on_end(self, span):
            hangs.set()
            time.sleep(1000)
        def shutdown(self): pass
        def force_flush(self, timeout_millis=30000): return True
    provider.add_span_processor(Hangs())
    tracesock._native.recorder.wake()
    hangs.wait(60)
    """
    program = PROGRAM.replace("{processor}", "SimpleSpanProcessor").replace("send(1000)", "send(3)")
    began = time.monotonic()
    done = run(program + textwrap.dedent(code))
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began < 60


def test_waiting_is_enough(telemetry: Telemetry) -> None:
    """Everything is delivered in time without any flush, folds too once they are idle."""
    plain = telemetry(drain_interval=0.02, max_sends_per_trace=0)
    send(500)
    wait_for(lambda: calls(plain.exporter.get_finished_spans()) == 500)
