"""What the examples share: a place that collects traces, servers to talk to, services to run.

Everything listens on this machine's loopback, in temporary directories, and ends with the example.
"""

from __future__ import annotations

import gzip
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tracesock.cli import waterfall

SECONDS = 60  # for a server to answer, and for a service to end
_TRIES = 5  # ports: a free one may be somebody else's a moment later
_TAKEN = 3  # s that a server gets to say that its port is taken


class Missing(Exception):
    """What the example needs is not installed; the text says what would install it."""


def main(example: Callable[[], None]) -> None:
    """Run an example; its exit status is 77 where something that it needs is not installed."""
    # A shell starts what it puts into the background with Ctrl-C ignored, and so would the services
    # be, which end by it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        example()
    except Missing as missing:
        sys.stderr.write(f"{missing}\n")
        sys.exit(77)


class Collector:
    """An OTLP/HTTP endpoint that keeps the spans it is sent."""

    def __init__(self) -> None:
        self.spans: list[waterfall.Span] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                if self.path == "/v1/traces":
                    request = ExportTraceServiceRequest.FromString(body)
                    collector.spans.extend(waterfall.of_otlp(request))
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def environment(self, service: str) -> dict[str, str]:
        """The variables with which a service exports its traces to here."""
        return {
            "OTEL_SERVICE_NAME": service,
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self._server.server_address[1]}",
        }

    def show(self) -> None:
        """Draw every trace that was sent."""
        waterfall.show(self.spans)

    def close(self) -> None:
        """Take no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector while the block runs."""
    collector = Collector()
    try:
        yield collector
    finally:
        collector.close()


# --- processes ------------------------------------------------------------------------------------


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def _answers(port: int, process: subprocess.Popen[bytes], limit: float) -> bool:
    """Whether something listens there before the process ends."""
    while process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return True
        except OSError:
            if time.monotonic() > limit:
                raise TimeoutError(f"{process.args!r} does not listen on port {port}") from None
            time.sleep(0.05)
    return False


@contextmanager
def listening(
    command: Callable[[int], list[str]], end: signal.Signals = signal.SIGTERM, **popen: object
) -> Iterator[int]:
    """The port of a server that `command(port)` starts, and that the signal `end` ends.

    What it writes is shown where it does not come up.
    """
    with tempfile.TemporaryFile() as output:
        for _ in range(_TRIES):
            port = _free_port()
            begun = time.monotonic()
            process = subprocess.Popen(
                command(port), stdin=subprocess.DEVNULL, stdout=output, stderr=output, **popen
            )
            try:
                if _answers(port, process, begun + SECONDS):
                    yield port
                    return
            finally:
                if process.poll() is None:
                    process.send_signal(end)
                    try:
                        process.wait(SECONDS)
                    except subprocess.TimeoutExpired:
                        process.kill()
                        process.wait()
                        raise
            if time.monotonic() - begun > _TAKEN:
                break
        output.seek(0)
        sys.stderr.buffer.write(output.read())
        raise RuntimeError(f"{process.args!r} ended with status {process.returncode}")


def service(
    words: list[str], directory: pathlib.Path, environment: dict[str, str]
) -> AbstractContextManager[int]:
    """A service of the example, in its directory; {port} in `words` is the port it gets.

    It ends as by Ctrl-C, so that what it has recorded is exported.
    """
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    return listening(
        lambda port: [word.replace("{port}", str(port)) for word in words],
        signal.SIGINT,
        cwd=directory,
        env=clean | environment,
    )


def command(name: str) -> str:
    """The path of a command that was installed beside this Python."""
    path = pathlib.Path(sys.executable).with_name(name)
    if not path.exists():
        raise Missing(f"{name} is not installed: pip install tracesock[examples]")
    return str(path)


def _program(name: str, package: str, places: str = "") -> str:
    found = shutil.which(name, path=os.pathsep.join(filter(None, [os.environ["PATH"], places])))
    if found is None:
        raise Missing(f"{name} is not installed (Debian: apt install {package})")
    return found


@contextmanager
def redis_server() -> Iterator[int]:
    """The port of a Redis server that keeps nothing. Raises Missing."""
    program = _program("redis-server", "redis-server")
    with tempfile.TemporaryDirectory(prefix="example-redis-") as directory:
        words = [program, "--bind", "127.0.0.1", "--save", "", "--dir", directory]
        with listening(lambda port: [*words, "--port", str(port)]) as port:
            yield port


@contextmanager
def postgres_server() -> Iterator[int]:
    """The port of a PostgreSQL server with the user `shop`, trusted. Raises Missing.

    It refuses to run as root: root runs it as the user `postgres` of Debian's package.
    """
    places = os.pathsep.join(
        str(path) for path in sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"))[::-1]
    )
    initdb = _program("initdb", "postgresql", places)
    program, is_ready = (
        str(pathlib.Path(initdb).resolve().with_name(name)) for name in ("postgres", "pg_isready")
    )
    with tempfile.TemporaryDirectory(prefix="example-postgres-") as directory:
        other: list[str] = []
        if os.geteuid() == 0:
            try:
                shutil.chown(directory, "postgres", "postgres")
            except LookupError:
                raise Missing("no user postgres here (Debian: apt install postgresql)") from None
            other = [_program("setpriv", "util-linux"), "--reuid=postgres", "--regid=postgres"]
            other += ["--init-groups", "--"]
        data = os.path.join(directory, "data")
        made = subprocess.run(
            [*other, initdb, "-D", data, "-U", "shop", "-A", "trust", "--no-sync", "--no-locale"],
            capture_output=True,
            text=True,
            cwd=directory,
        )
        if made.returncode:
            raise RuntimeError(f"initdb failed: {made.stderr}")
        words = [*other, program, "-D", data, "-k", directory, "-h", "127.0.0.1", "-F"]
        with listening(
            lambda port: [*words, "-p", str(port)], signal.SIGINT, cwd=directory
        ) as port:
            # It listens before it serves.
            asking = [is_ready, "-q", "-h", "127.0.0.1", "-p", str(port)]
            limit = time.monotonic() + SECONDS
            while subprocess.run(asking).returncode != 0:
                if time.monotonic() > limit:
                    raise TimeoutError(f"{program} is not ready on port {port}")
                time.sleep(0.05)
            yield port
