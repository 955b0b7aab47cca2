"""The instrumentor, as `opentelemetry-instrument` and programs use it: in processes of its own,
because it changes `socket` for all of one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest

import tracesock

pytest.importorskip(
    "opentelemetry.distro",
    reason="opentelemetry-distro is not installed: pip install 'tracesock[instrumentation]'",
)

ENTRY_POINT = "tracesock.instrumentation.instrumentor:TracesockInstrumentor"
PACKAGES = Path(tracesock.__file__).parents[1]

PROGRAM = textwrap.dedent("""
    import socket
    from opentelemetry import trace

    listener = socket.create_server(("127.0.0.1", 0))
    with trace.get_tracer("program").start_as_current_span("request"):
        client = socket.create_connection(("localhost", listener.getsockname()[1]))
        client.sendall(b"hello")
        client.close()
    import tracesock
    print("installed", socket.socket is tracesock.socket)
    print("port", listener.getsockname()[1])
""")


@pytest.fixture
def run(tmp_path: Path):  # type: ignore[no-untyped-def]
    """Runs a program with tracesock's entry point known, as after an installation."""
    information = tmp_path / "tracesock-0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: tracesock\nVersion: 0\n")
    (information / "entry_points.txt").write_text(
        f"[opentelemetry_instrumentor]\ntracesock = {ENTRY_POINT}\n"
    )

    def run(program: str, *, automatic: bool = False, **variables: str) -> str:
        path = tmp_path / "program.py"
        path.write_text(program)
        command = [sys.executable, str(path)]
        if automatic:
            start = "from opentelemetry.instrumentation.auto_instrumentation import run; run()"
            command = [sys.executable, "-c", start, *command]
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("OTEL_", "TRACESOCK_"))
        }
        environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), str(PACKAGES)])
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env={**environment, **variables},
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout

    return run


def documents(output: str) -> list[dict]:  # type: ignore[type-arg]
    """The JSON documents that the console exporters wrote between other lines."""
    found, decoder, at = [], json.JSONDecoder(), 0
    while (at := output.find("{", at)) >= 0:
        document, length = decoder.raw_decode(output[at:])
        found.append(document)
        at += length
    return found


def test_opentelemetry_instrument(run) -> None:  # type: ignore[no-untyped-def]
    output = run(
        PROGRAM,
        automatic=True,
        OTEL_TRACES_EXPORTER="console",
        OTEL_METRICS_EXPORTER="console",
        OTEL_LOGS_EXPORTER="none",
        OTEL_SERVICE_NAME="shop",
    )
    assert "installed True" in output
    port = output.partition("port ")[2].split()[0]
    written = documents(output)
    spans = {each["name"]: each for each in written if "name" in each}
    assert spans.keys() == {
        "request",
        f"socket connection_setup localhost:{port}",
        "DNS lookup localhost",
        f"socket connect 127.0.0.1:{port}",
        f"socket send 127.0.0.1:{port}",
    }
    assert len({each["context"]["trace_id"] for each in spans.values()}) == 1
    assert spans["request"]["parent_id"] is None
    sent = spans[f"socket send 127.0.0.1:{port}"]
    assert sent["parent_id"] == spans["request"]["context"]["span_id"]
    assert sent["resource"]["attributes"]["service.name"] == "shop"
    metrics = {
        metric["name"]: metric
        for each in written
        for resource in each.get("resource_metrics", ())
        for scope in resource["scope_metrics"]
        for metric in scope["metrics"]
    }
    (point,) = metrics["tracesock.send.duration"]["data"]["data_points"]
    assert point["count"] == 1
    assert metrics["tracesock.connect.duration"]["data"]["data_points"][0]["count"] == 1


def test_a_disabled_instrumentation(run) -> None:  # type: ignore[no-untyped-def]
    output = run(
        PROGRAM,
        automatic=True,
        OTEL_TRACES_EXPORTER="console",
        OTEL_METRICS_EXPORTER="none",
        OTEL_LOGS_EXPORTER="none",
        OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="requests, tracesock",
    )
    assert "installed False" in output
    assert [each["name"] for each in documents(output)] == ["request"]


def test_settings_come_from_the_environment(run) -> None:  # type: ignore[no-untyped-def]
    output = run(
        PROGRAM,
        automatic=True,
        OTEL_TRACES_EXPORTER="console",
        OTEL_METRICS_EXPORTER="none",
        OTEL_LOGS_EXPORTER="none",
        TRACESOCK_SEND_SPANS="off",
        TRACESOCK_REDACT="server.address,dns.question.name",
    )
    names = [each["name"] for each in documents(output)]
    assert "request" in names
    assert not [name for name in names if "send" in name or "localhost" in name]


def test_in_a_program(run) -> None:  # type: ignore[no-untyped-def]
    output = run("""
import json
import socket
stock = socket.socket
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tracesock import dropin
from tracesock.instrumentation import is_instrumented
from tracesock.instrumentation.config import ConfigError
from tracesock.instrumentation.instrumentor import TracesockInstrumentor

exporter, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
told = {}

def traffic():
    listener = socket.create_server(("127.0.0.1", 0))
    with provider.get_tracer("program").start_as_current_span("request"):
        with socket.create_connection(listener.getsockname()) as client:
            client.send(b"x")

try:
    TracesockInstrumentor().instrument(send_spans="sometimes")
except ConfigError as error:
    told["error"] = str(error)
told["untouched"] = socket.socket is stock and not is_instrumented()

TracesockInstrumentor().instrument(tracer_provider=provider, send_spans="off")
told["one"] = TracesockInstrumentor() is TracesockInstrumentor()
told["on"] = is_instrumented() and socket.socket is not stock
traffic()
TracesockInstrumentor().uninstrument()
told["off"] = not is_instrumented() and socket.socket is stock
traffic()
told["spans"] = sorted(span.name.rpartition(":")[0] for span in exporter.get_finished_spans())

dropin.install()
TracesockInstrumentor().instrument()
TracesockInstrumentor().uninstrument()
told["kept"] = dropin.installed()
print(json.dumps(told))
""")
    told = json.loads(output)
    assert "send_spans" in told.pop("error")
    assert told.pop("spans") == [
        "",
        "",
        "socket connect 127.0.0.1",
        "socket connection_setup 127.0.0.1",
    ]
    assert told == dict.fromkeys(("untouched", "one", "on", "off", "kept"), True)


def test_the_project_declares_it() -> None:
    path = Path(__file__).parents[2] / "pyproject.toml"
    project = tomllib.loads(path.read_text())["project"]
    assert project["entry-points"]["opentelemetry_instrumentor"] == {"tracesock": ENTRY_POINT}
    assert project["entry-points"]["pytest11"] == {"tracesock.testing": "tracesock.testing"}
    assert any(
        "opentelemetry-distro" in each
        for each in project["optional-dependencies"]["instrumentation"]
    )
