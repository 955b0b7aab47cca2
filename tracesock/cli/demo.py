"""`tracesock demo`: real requests on this machine, traced, and what they did on the network."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import click

_SLOW_BODY = 8 * 1024 * 1024  # bytes: more than the buffers between client and server hold
_SLOW_PAUSE = 0.25  # seconds before the slow peer reads
_ROUND_PAUSE = 2.0  # seconds between rounds


class _Collected:
    """Spans and metrics of the demo, in memory."""

    def __init__(self) -> None:
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        resource = Resource.create({"service.name": "tracesock-demo"})
        self.exporter = InMemorySpanExporter()
        self.tracer_provider = TracerProvider(resource=resource)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meter_provider = MeterProvider([self.reader], resource=resource)
        self.tracer = self.tracer_provider.get_tracer("tracesock.demo")

    def send_to(self, endpoint: str) -> None:
        """Export to an OTLP/HTTP endpoint as well."""
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        exporter = OTLPSpanExporter(endpoint=f"{endpoint}/v1/traces")
        self.tracer_provider.add_span_processor(
            BatchSpanProcessor(exporter, schedule_delay_millis=500)
        )

    def take_spans(self) -> list[Any]:
        self.tracer_provider.force_flush()
        spans = list(self.exporter.get_finished_spans())
        self.exporter.clear()
        return spans

    def metrics(self) -> list[dict[str, Any]]:
        data = self.reader.get_metrics_data()
        if data is None:
            return []
        document = json.loads(data.to_json())
        return [
            metric
            for resource in document["resource_metrics"]
            for scope in resource["scope_metrics"]
            for metric in scope["metrics"]
        ]


@contextlib.contextmanager
def _service() -> Iterator[int]:
    """A small HTTP service on a free port of this machine; its port."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(b"hello from " + self.path.encode() + b"\n")

        def do_POST(self) -> None:
            # The slow peer: the client's data waits in buffers until they are full.
            time.sleep(_SLOW_PAUSE)
            length = int(self.headers["Content-Length"])
            while length > 0:
                length -= len(self.rfile.read(min(length, 1 << 20)))
            self._answer(b"read at last\n")

        def _answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, name="demo-service", daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def _unheard() -> Iterator[int]:
    """A port on which nobody listens, nor can: a socket has it that does not."""
    import socket

    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def _round(tracer: Any, port: int, closed: int) -> None:
    """One round of requests: two answered, one refused, one to a slow peer."""
    requests = [
        ("GET", f"http://localhost:{port}/hello", None),
        ("GET", f"http://localhost:{port}/again", None),
        ("GET", f"http://localhost:{closed}/nobody-listens", None),
        ("POST", f"http://localhost:{port}/slow", bytes(_SLOW_BODY)),
    ]
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for method, url, body in requests:
        with tracer.start_as_current_span(f"{method} {url}") as span:
            request = urllib.request.Request(url, data=body, method=method)
            try:
                with opener.open(request, timeout=10) as response:
                    response.read()
                    span.set_attribute("http.response.status_code", response.status)
            except urllib.error.URLError as error:
                span.set_attribute("error.type", type(error.reason).__name__)


@click.command(short_help="Trace real requests on this machine and show them.")
@click.option("--once", is_flag=True, help="End after one round.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
@click.option("--no-dashboard", is_flag=True, help="Show the rounds here, not in the dashboard.")
def demo(once: bool, as_json: bool, no_dashboard: bool) -> None:
    """Make real calls on this machine through http.server and urllib.request, traced, and show each
    request as a waterfall, with a table of the metrics.

    Without --once it goes on until Ctrl-C and, where the packages of the dashboard are installed,
    opens that, with the traffic of a small shop beside these requests.
    """
    import tracesock

    tracesock.install()
    collected = _Collected()
    tracesock.instrument(collected.tracer_provider, collected.meter_provider)
    shown = not once and not as_json and not no_dashboard
    try:
        with (
            _dashboard(collected) if shown else contextlib.nullcontext(),
            _service() as port,
            _unheard() as closed,
        ):
            while True:
                _round(collected.tracer, port, closed)
                taken = collected.take_spans()
                if as_json:
                    _print_json(taken, collected.metrics())
                elif not shown:
                    _show(taken, collected.metrics())
                if once or as_json:
                    break
                time.sleep(_ROUND_PAUSE)
    except KeyboardInterrupt:
        pass
    finally:
        tracesock.uninstrument()
        tracesock.uninstall()


def _print_json(spans: list[Any], metrics: list[dict[str, Any]]) -> None:
    document = {"spans": [json.loads(span.to_json()) for span in spans], "metrics": metrics}
    json.dump(document, sys.stdout, indent=2)
    sys.stdout.write("\n")


@contextlib.contextmanager
def _dashboard(collected: _Collected) -> Iterator[None]:
    """The dashboard in a process of its own, filled by the demo's spans."""
    import shutil
    import signal
    import subprocess
    import tempfile
    from importlib.util import find_spec

    from tracesock.cli.shop import Shop

    if any(find_spec(name) is None for name in ("starlette", "uvicorn", "opentelemetry.proto")):
        click.echo("For the dashboard: pip install tracesock[dashboard]", err=True)
        yield
        return
    directory = tempfile.mkdtemp(prefix="tracesock-demo-")
    command = [sys.executable, "-m", "tracesock", "dashboard", "--port", str(_dashboard_port())]
    command += ["--otlp-port", "0", "--database", f"{directory}/demo.sqlite3"]
    process = subprocess.Popen(
        # In a session of its own: Ctrl-C ends the demo first, whose last spans it takes.
        command,
        env=_plain_environment(),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    shop = None
    try:
        assert process.stdout is not None
        address = ""
        for line in process.stdout:
            click.echo(line, nl=False)
            if line.startswith("Dashboard:"):
                address = line.split()[1].rstrip("/")
            elif line.startswith("Database:"):
                break
        if not address:
            raise click.ClickException("the dashboard did not start")
        collected.send_to(address)
        shop = Shop(address, collected.tracer)
        shop.start()
        click.echo("Traffic:    a shop of three services; Ctrl-C ends it")
        yield
    finally:
        if shop is not None:
            shop.stop()
        process.terminate()
        process.wait()
        signal.signal(signal.SIGTERM, before)
        shutil.rmtree(directory, ignore_errors=True)


def _dashboard_port() -> int:
    """The dashboard's own port where that is free, else 0: another one."""
    import socket

    from tracesock.dashboard import DEFAULT_PORT

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", DEFAULT_PORT))
        except OSError:
            return 0
    return DEFAULT_PORT


def _plain_environment() -> dict[str, str]:
    import os

    return {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}


# --- showing --------------------------------------------------------------------------------------


def _show(spans: list[Any], metrics: list[dict[str, Any]]) -> None:
    from rich.table import Table
    from rich.text import Text

    from tracesock.cli import waterfall

    console = waterfall.console()
    waterfall.show(map(waterfall.of_sdk, spans), console)
    table = Table(title="Metrics", title_justify="left", title_style="bold")
    table.add_column("metric")
    table.add_column("attributes", overflow="fold")
    table.add_column("value", justify="right")
    for metric in sorted(metrics, key=lambda each: each["name"]):
        for point in metric["data"]["data_points"]:
            attributes = ", ".join(f"{k}={v}" for k, v in sorted(point["attributes"].items()))
            table.add_row(Text(metric["name"]), Text(attributes), _value(metric, point))
    console.print(table)


def _value(metric: dict[str, Any], point: dict[str, Any]) -> str:
    from tracesock.cli.waterfall import duration

    if "bucket_counts" in point:
        count = point["count"]
        mean = point["sum"] / count if count else 0.0
        return f"{count} x, mean {duration(mean * 1e9)}, max {duration(point['max'] * 1e9)}"
    return f"{point['value']} {metric['unit']}"
