"""Open connections as log records: `instrument(logger_provider=…)`."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry import _logs
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs import export as logs_export
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider

import tracesock
from tracesock import instrumentation
from tracesock.instrumentation import Config, ConfigError, snapshots

# Its name was another one before opentelemetry-sdk 1.39.
InMemoryLogs: Any = (
    getattr(logs_export, "InMemoryLogRecordExporter", None) or logs_export.InMemoryLogExporter
)


def wait_until(check: Callable[[], Any], seconds: float = 30.0) -> Any:
    end = time.monotonic() + seconds
    while not (value := check()) and time.monotonic() < end:
        time.sleep(0.02)
    return value


class Told:
    """An instrumentation with a provider of each signal, in memory."""

    def __init__(self, **settings: Any) -> None:
        self.exporter = InMemoryLogs()
        self.reader = InMemoryMetricReader()
        self.tracers = TracerProvider()
        loggers = LoggerProvider(shutdown_on_exit=False)
        loggers.add_log_record_processor(SimpleLogRecordProcessor(self.exporter))
        settings = {"snapshot_interval": 0.05, "drain_interval": 0.05, **settings}
        instrumentation.instrument(self.tracers, MeterProvider([self.reader]), loggers, **settings)

    def after_this_round(self) -> None:
        """Returns when no round is under way that began before."""
        assert instrumentation.flush()

    def of(self, event: str) -> list[Any]:
        records = [each.log_record for each in self.exporter.get_finished_logs()]
        return [each for each in records if each.event_name == event]

    def gauges(self) -> dict[str, list[tuple[dict[str, Any], float]]]:
        data = self.reader.get_metrics_data()
        assert data is not None
        return {
            metric.name: [(dict(p.attributes), p.value) for p in metric.data.data_points]
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if hasattr(metric.data, "data_points")
            and all(hasattr(p, "value") for p in metric.data.data_points)
        }


@pytest.fixture
def tell() -> Iterator[Callable[..., Told]]:
    yield Told
    instrumentation.uninstrument()


@pytest.fixture
def listener() -> Iterator[Any]:
    with tracesock.create_server(("127.0.0.1", 0)) as server:
        yield server


def of_open(port: int) -> list[Any]:
    return [each for each in instrumentation.connections() if each.peer == ("127.0.0.1", port)]


def of_client(told: Told, port: int) -> list[Any]:
    return [
        each
        for each in told.of("tracesock.connections.snapshot")
        if each.attributes.get("network.peer.port") == port
    ]


def test_an_open_connection_is_told_with_its_trace(tell: Any) -> None:
    told = tell()
    tracer = told.tracers.get_tracer("test")
    with tracesock.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with (
            tracer.start_as_current_span("request") as span,
            tracesock.create_connection(("localhost", port)) as client,
        ):
            accepted, _ = server.accept()
            client.sendall(b"12345")
            assert accepted.recv(5) == b"12345"
            accepted.sendall(b"123")
            assert client.recv(3) == b"123"
            record = wait_until(
                lambda: next(
                    (
                        each
                        for each in of_client(told, port)
                        if each.attributes["tracesock.connection.received"] == 3
                    ),
                    None,
                )
            )
            local = client.getsockname()
            accepted.close()
    values = record.attributes
    assert values["tracesock.connection.id"].startswith(f"{os.getpid()}:")
    assert values["process.pid"] == os.getpid()
    assert values["tracesock.connection.state"] == "established"
    assert values["tracesock.connection.direction"] == "outbound"
    assert values["tracesock.connection.sent"] == 5
    assert values["tracesock.connection.descriptor"] > 2
    assert values["tracesock.connections.interval"] == 0.05
    assert values["network.peer.address"] == "127.0.0.1"
    assert (values["network.local.address"], values["network.local.port"]) == local
    assert values["server.address"] == "localhost"
    assert values["network.transport"] == "tcp"
    assert values["tracesock.tcp.rtt"] > 0
    assert record.trace_id == span.get_span_context().trace_id
    # Its connection is closed: later rounds do not have it. One may be under way.
    assert wait_until(lambda: not of_open(port))
    told.after_this_round()
    told.exporter.clear()
    time.sleep(0.3)
    assert of_client(told, port) == []


def test_what_is_excluded_or_redacted_is_not_told(tell: Any, listener: Any) -> None:
    port = listener.getsockname()[1]
    told = tell(redact=("network.peer.address", "server.address"))
    with tracesock.create_connection(("localhost", port)):
        record = wait_until(lambda: of_client(told, port))[0]
        assert record.attributes["network.peer.address"] == "REDACTED"
        assert record.attributes["server.address"] == "REDACTED"
    told = tell(excluded_peers=(f"127.0.0.1:{port}",))
    with (
        tracesock.create_connection(("127.0.0.1", port)),
        tracesock.create_server(("127.0.0.1", 0)) as other,
        tracesock.create_connection(other.getsockname()),
    ):
        assert wait_until(lambda: of_client(told, other.getsockname()[1]))
        assert of_client(told, port) == []


def test_gauges_of_the_process(tell: Any, listener: Any) -> None:
    told = tell()
    port = listener.getsockname()[1]

    def told_and_there() -> tuple[float, int] | None:
        """None where another thread has opened one, or closed one, meanwhile."""
        before = len(os.listdir("/proc/self/fd")) - 1
        gauge = told.gauges()["process.unix.file_descriptor.count"][0][1]
        return (gauge, before) if len(os.listdir("/proc/self/fd")) - 1 == before else None

    gauge, there = wait_until(told_and_there)
    assert gauge == there
    clients = [tracesock.create_connection(("127.0.0.1", port)) for _ in range(30)]
    gauge, there = wait_until(told_and_there)
    assert gauge == there >= 30
    assert told.gauges()["tracesock.descriptor.limit"][0][1] >= there
    for each in clients:
        each.close()


def test_a_forgotten_socket_is_told_once_a_minute(
    tell: Any, listener: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_forgotten = functools.partial(snapshots.is_forgotten, older_than=0.0)
    # Not while it is being connected.
    begun = threading.Event()
    monkeypatch.setattr(
        snapshots, "is_forgotten", lambda each: begun.is_set() and is_forgotten(each)
    )
    told = tell()
    with tracesock.create_connection(("127.0.0.1", listener.getsockname()[1])):
        listener.accept()[0].close()
        begun.set()
        record = wait_until(lambda: told.of("tracesock.leak"))[0]
        assert record.attributes["tracesock.leak.kind"] == "close_wait"
        assert record.attributes["tracesock.connection.state"] == "close_wait"
        told.exporter.clear()
        wait_until(lambda: len(told.of("tracesock.connections.snapshot")) > 6)
        assert told.of("tracesock.leak") == []


def test_more_than_a_round_holds_is_told_as_a_number(
    tell: Any, listener: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "_MOST", 2)
    told = tell()
    clients = [tracesock.create_connection(listener.getsockname()) for _ in range(5)]
    told.after_this_round()
    told.exporter.clear()
    record = wait_until(lambda: told.of("tracesock.connections.omitted"))[0]
    # The listener is known by the connections it would accept, not before.
    assert record.attributes["tracesock.connections.omitted"] == 3
    for each in clients:
        each.close()


def test_nothing_is_told_where_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = snapshots.Snapshots.wanted
    assert not wanted(None, Config())
    assert not wanted(_logs.NoOpLoggerProvider(), Config())
    assert not wanted(LoggerProvider(shutdown_on_exit=False), Config(snapshot_interval=0))
    assert wanted(LoggerProvider(shutdown_on_exit=False), Config())
    with pytest.raises(ConfigError, match="snapshot_interval is -1"):
        Config(snapshot_interval=-1)


def test_a_provider_that_raises_is_left_out_and_the_program_goes_on(
    listener: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing:
        def get_logger(self, *_: Any, **__: Any) -> Any:
            return self

        def emit(self, _: Any) -> None:
            raise RuntimeError("no room")

    instrumentation.instrument(
        TracerProvider(),
        MeterProvider(),
        Failing(),
        snapshot_interval=0.02,
        drain_interval=0.02,
    )
    try:
        with tracesock.create_connection(listener.getsockname()) as client:
            assert wait_until(lambda: "not told any more" in caplog.text)
            time.sleep(0.2)
            assert caplog.text.count("not told any more") == 1
            assert client.send(b"x") == 1
    finally:
        instrumentation.uninstrument()


_FORKS = """
import os, sys, time
import tracesock
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs import export
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.metrics import MeterProvider

InMemoryLogs = getattr(export, "InMemoryLogRecordExporter", None) or export.InMemoryLogExporter
exporter = InMemoryLogs()
provider = LoggerProvider(shutdown_on_exit=False)
provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
tracesock.instrument(TracerProvider(), MeterProvider(), provider,
                     snapshot_interval=0.05, drain_interval=0.05)
server = tracesock.create_server(("127.0.0.1", 0))
pid = os.fork()
if pid == 0:
    exporter.clear()
    client = tracesock.create_connection(server.getsockname())
    mine = f"{os.getpid()}:"
    end = time.monotonic() + 20
    while time.monotonic() < end:
        told = [e.log_record.attributes["tracesock.connection.id"]
                for e in exporter.get_finished_logs()
                if e.log_record.event_name == "tracesock.connections.snapshot"]
        if any(each.startswith(mine) for each in told):
            os._exit(0 if all(each.startswith(mine) for each in told) else 4)
        time.sleep(0.02)
    os._exit(3)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork, so Linux or macOS")
def test_a_forked_child_tells_its_own() -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "TRACESOCK_"))}
    assert (
        subprocess.run([sys.executable, "-c", _FORKS], env=environment, timeout=200).returncode == 0
    )
