"""`tracesock demo`, and the exporters that the environment of `tracesock run` names."""

from __future__ import annotations

import http.server
import json
import os
import pathlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Where tracesock is, and what these tests' own process was given.
PATH = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))

PROGRAM = """\
import socket, sys
listener = socket.create_server(("127.0.0.1", 0))
with socket.create_connection(listener.getsockname()) as client:
    client.sendall(b"hello")
listener.close()
print("done", *sys.argv[1:], flush=True)
sys.exit(3)
"""
# Without a span around it, a send has none: heartbeats would be endless traces of one span.
SPANS = {"socket connection_setup", "socket connect"}


def tracesock(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "OTEL_", "TRACESOCK_")) and not name.endswith("_proxy")
    }
    return subprocess.run(
        [sys.executable, "-m", "tracesock", *words],
        env={**kept, "PYTHONPATH": PATH, **variables},
        capture_output=True,
        text=True,
        timeout=100,
    )


def documents(output: str) -> list[dict]:  # type: ignore[type-arg]
    """The JSON documents that a console exporter wrote between other lines."""
    found, decoder, at = [], json.JSONDecoder(), 0
    while (at := output.find("{", at)) >= 0:
        document, length = decoder.raw_decode(output[at:])
        found.append(document)
        at += length
    return found


# --- tracesock demo ------------------------------------------------------------------------------


def test_the_demo_as_json() -> None:
    done = tracesock("demo", "--once", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert document.keys() == {"spans", "metrics"}
    spans = document["spans"]
    requests = {span["name"].split("/")[-1]: span for span in spans if span["name"][:3] != "DNS"}
    by_id = {span["context"]["span_id"]: span for span in spans}
    for prefix in ("DNS lookup", "socket send", *SPANS):
        found = [span for span in spans if span["name"].startswith(prefix)]
        assert len(found) >= 3, prefix
        for span in found:  # each belongs to one of the requests
            while span["parent_id"] is not None:
                span = by_id[span["parent_id"]]
            assert span["name"].startswith(("GET http://localhost:", "POST http://localhost:"))
    assert requests["hello"]["attributes"]["http.response.status_code"] == 200
    assert requests["nobody-listens"]["attributes"]["error.type"] == "ConnectionRefusedError"
    refused = [span for span in spans if span["status"]["status_code"] == "ERROR"]
    assert {span["name"].rpartition(" ")[0] for span in refused} >= SPANS
    metrics = {metric["name"]: metric for metric in document["metrics"]}
    assert {"dns.lookup.duration", "tracesock.connect.duration"} <= metrics.keys()
    points = metrics["tracesock.send.stall.duration"]["data"]["data_points"]
    assert sum(point["count"] for point in points) >= 1  # the slow peer


def test_the_demo_as_a_waterfall() -> None:
    done = tracesock("demo", "--once")
    assert (done.returncode, done.stderr) == (0, "")
    for text in ("/hello", "DNS lookup localhost", "connection_refused", "stalled", "Metrics"):
        assert text in done.stdout
    assert "\x1b[" not in done.stdout  # no terminal, no colours
    coloured = tracesock("demo", "--once", FORCE_COLOR="1")
    assert coloured.returncode == 0 and "\x1b[" in coloured.stdout


# --- tracesock run: the exporters of the environment ---------------------------------------------


@pytest.fixture
def program(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


@pytest.mark.parametrize("by_module", [False, True])
def test_console(program: pathlib.Path, by_module: bool) -> None:
    words = ["-m", "program"] if by_module else [str(program)]
    done = tracesock(
        *("run", *words, "--flag"),
        PYTHONPATH=f"{PATH}{os.pathsep}{program.parent}",
        OTEL_TRACES_EXPORTER="console",
        OTEL_METRICS_EXPORTER="none",
        OTEL_SERVICE_NAME="shop",
    )
    assert (done.returncode, done.stderr) == (3, "")
    assert "done --flag\n" in done.stdout
    spans = documents(done.stdout)
    assert {" ".join(span["name"].split()[:2]) for span in spans} == SPANS
    assert {span["resource"]["attributes"]["service.name"] for span in spans} == {"shop"}


def test_none(program: pathlib.Path) -> None:
    done = tracesock(
        *("run", str(program)), OTEL_TRACES_EXPORTER="none", OTEL_METRICS_EXPORTER="none"
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, "done\n", "")


@contextmanager
def collector() -> Iterator[tuple[int, dict[str, list[bytes]]]]:
    """An OTLP/HTTP receiver on a port of this machine: what was posted, by path."""
    posted: dict[str, list[bytes]] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                import gzip

                body = gzip.decompress(body)
            posted.setdefault(self.path, []).append(body)
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1], posted
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("named", [{"OTEL_TRACES_EXPORTER": "otlp"}, {}])
def test_otlp(program: pathlib.Path, named: dict[str, str]) -> None:
    """OTLP is also what an environment gets that names no exporter."""
    trace_service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
    with collector() as (port, posted):
        done = tracesock(
            *("run", str(program)),
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}",
            OTEL_SERVICE_NAME="shop",
            OTEL_METRICS_EXPORTER="none",
            **named,
        )
    assert (done.returncode, done.stdout, done.stderr) == (3, "done\n", "")
    assert posted.keys() == {"/v1/traces"}
    names, services = set(), set()
    for body in posted["/v1/traces"]:
        request = trace_service.ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            services |= {
                each.value.string_value
                for each in resource.resource.attributes
                if each.key == "service.name"
            }
            names |= {span.name for scope in resource.scope_spans for span in scope.spans}
    assert services == {"shop"}
    assert {" ".join(name.split()[:2]) for name in names} == SPANS


def test_an_exporter_that_does_not_exist(program: pathlib.Path) -> None:
    """The program runs all the same, and one line names what was wrong."""
    done = tracesock(
        "run", str(program), OTEL_TRACES_EXPORTER="zipkin2", OTEL_METRICS_EXPORTER="none"
    )
    assert (done.returncode, done.stdout) == (3, "done\n")
    assert done.stderr.count("\n") == 1 and "zipkin2" in done.stderr


def test_a_collector_that_is_not_there(program: pathlib.Path) -> None:
    """The program's output and exit status stay its own."""
    done = tracesock(
        *("run", str(program)),
        OTEL_TRACES_EXPORTER="otlp",
        OTEL_METRICS_EXPORTER="none",
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9",
        OTEL_EXPORTER_OTLP_TIMEOUT="1",
    )
    assert (done.returncode, done.stdout) == (3, "done\n")
    assert "Traceback" not in done.stderr
