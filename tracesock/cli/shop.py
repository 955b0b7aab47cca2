"""The demo's shop: three services under `tracesock run`, and peers without telemetry.

`Shop` starts them as processes of this machine and sends customers; everything is on the loopback
interface. A process of it is `python -m tracesock.cli.shop ROLE DIRECTORY`, and ends when its
standard input does, so none outlives the demo.
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import os
import queue
import random
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

# Where each listens, if nobody else does.
_PORTS: Final = {
    "checkout": 7000,
    "catalog": 7001,
    "payments": 7002,
    "cache": 7379,
    "ledger": 7432,
    "bank": 7443,
    "feed": 7480,
    "tracker": 7490,
    "closed": 7499,  # nobody listens there
}
SERVICES: Final = ("checkout", "catalog", "payments")
_PEERS: Final = ("cache", "ledger", "bank", "feed", "tracker")
_CUSTOMERS: Final = 3
_LEDGER_BYTES: Final = 6 * 1024 * 1024  # more than the buffers between two sockets hold
_POLICIES: Final = {
    "payments": ("enforce", ("ledger", "bank"), "partners"),
    "catalog": ("report", ("cache", "feed", "closed"), "known-peers"),
}


class Shop:
    """The running shop. `endpoint` is where its telemetry goes, over OTLP/HTTP; `tracer` makes the
    spans of the customers."""

    def __init__(self, endpoint: str, tracer: Any) -> None:
        self._endpoint = endpoint
        self._tracer = tracer
        self._processes: list[subprocess.Popen[bytes]] = []
        self._directory = Path(tempfile.mkdtemp(prefix="tracesock-demo-"))
        self._closing = threading.Event()
        self._customers: list[threading.Thread] = []

    def start(self) -> None:
        """Starts the processes and, as soon as they answer, the customers."""
        ports = {name: _free_port(port) for name, port in _PORTS.items()}
        (self._directory / "ports.json").write_text(json.dumps(ports))
        _make_certificate(self._directory)
        self._run("peers", {})
        for name in SERVICES:
            self._run(name, self._environment(name, ports))
        for number in range(_CUSTOMERS):
            thread = threading.Thread(
                target=self._visit, args=(ports["checkout"], number), daemon=True
            )
            thread.start()
            self._customers.append(thread)

    def stop(self) -> None:
        """Ends everything that `start` began."""
        self._closing.set()
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in self._processes:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for thread in self._customers:
            thread.join(5)
        shutil.rmtree(self._directory, ignore_errors=True)

    def _run(self, role: str, added: dict[str, str]) -> None:
        plain = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("OTEL_", "TRACESOCK_"))
        }
        words = ["-m", "tracesock.cli.shop", role, str(self._directory)]
        if role in SERVICES:
            words = ["-m", "tracesock", "run", *words]
        self._processes.append(
            subprocess.Popen(
                [sys.executable, *words],
                env={**plain, **added},
                stdin=subprocess.PIPE,
                # Ctrl-C is for the demo, which then ends these in order.
                start_new_session=True,
            )
        )

    def _environment(self, service: str, ports: dict[str, int]) -> dict[str, str]:
        environment = {
            "OTEL_SERVICE_NAME": service,
            "OTEL_EXPORTER_OTLP_ENDPOINT": self._endpoint,
            "OTEL_LOGS_EXPORTER": "otlp",
            "OTEL_BSP_SCHEDULE_DELAY": "500",
            "OTEL_BLRP_SCHEDULE_DELAY": "500",
            "OTEL_METRIC_EXPORT_INTERVAL": "2000",
            "TRACESOCK_SNAPSHOT_INTERVAL": "1",
            "TRACESOCK_ACCEPT_SPANS": "false",
        }
        if service in _POLICIES:
            mode, peers, rule = _POLICIES[service]
            policy = self._directory / f"{service}.toml"
            policy.write_text(_policy(mode, rule, [ports[peer] for peer in peers], self._endpoint))
            environment |= {"TRACESOCK_POLICY": str(policy), "TRACESOCK_AUDIT_OTEL": "1"}
        return environment

    def _visit(self, port: int, number: int) -> None:
        """A customer: orders, and again after a pause."""
        dice = random.Random(number)
        while not self._closing.wait(dice.uniform(0.4, 1.6)):
            path = dice.choices(("checkout", "browse"), (2, 3))[0]
            with contextlib.suppress(OSError, http.client.HTTPException):
                _get(self._tracer, "checkout", port, path)


def _free_port(wanted: int) -> int:
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found: int = probe.getsockname()[1]
            return found
    raise OSError("no port is free")


def _make_certificate(directory: Path) -> None:
    """A certificate for localhost, by openssl; without it the bank talks plain TCP."""
    openssl = shutil.which("openssl")
    if openssl is None:
        return
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command += ["-keyout", str(directory / "key.pem"), "-out", str(directory / "certificate.pem")]
    done = subprocess.run(command, capture_output=True)
    if done.returncode:
        (directory / "certificate.pem").unlink(missing_ok=True)


def _policy(mode: str, rule: str, ports: list[int], endpoint: str) -> str:
    telemetry = int(endpoint.rstrip("/").rpartition(":")[2])
    return f"""\
mode = "{mode}"
default = "deny"

[[rule]]
id = "metadata"
action = "deny"
cidr = ["169.254.169.254"]

[[rule]]
id = "{rule}"
action = "allow"
cidr = ["127.0.0.0/8", "::1"]
port = {ports}

[[rule]]
id = "telemetry"
action = "allow"
cidr = ["127.0.0.1"]
port = [{telemetry}]

[[rule]]
id = "local-sockets"
action = "allow"
family = ["unix", "netlink"]
"""


# --- the processes --------------------------------------------------------------------------------


class _Process:
    """What a process of the shop knows: its ports, its certificate, its luck."""

    def __init__(self, directory: Path) -> None:
        self.ports: dict[str, int] = json.loads((directory / "ports.json").read_text())
        self.certificate = directory / "certificate.pem"
        self.key = directory / "key.pem"
        self.dice = random.Random(os.getpid())
        self._pools: dict[str, queue.LifoQueue[socket.socket]] = {}

    @property
    def secure(self) -> bool:
        return self.certificate.exists()

    def between(self, low: float, high: float) -> None:
        """Works, or waits, for some milliseconds."""
        time.sleep(self.dice.uniform(low, high) / 1000)

    def connect(self, peer: str) -> socket.socket:
        """A new connection to a peer, with TLS to the bank."""
        made = socket.create_connection(("localhost", self.ports[peer]), timeout=10)
        if peer == "bank" and self.secure:
            context = ssl.create_default_context(cafile=str(self.certificate))
            return context.wrap_socket(made, server_hostname="localhost")
        return made

    @contextlib.contextmanager
    def pooled(self, peer: str) -> Iterator[socket.socket]:
        """A connection to a peer that is kept for the next."""
        pool = self._pools.setdefault(peer, queue.LifoQueue())
        try:
            sock = pool.get_nowait()
        except queue.Empty:
            sock = self.connect(peer)
        try:
            yield sock
        except BaseException:
            sock.close()
            raise
        # Now and then one is old enough.
        if self.dice.random() < 0.12:
            sock.close()
        else:
            pool.put(sock)

    def ask(self, peer: str, question: bytes) -> bytes:
        """A line to a peer and a line back, over a connection that is kept."""
        with self.pooled(peer) as sock:
            sock.sendall(question + b"\n")
            answer = sock.recv(4096)
            if not answer:
                raise ConnectionError(f"{peer} hung up")
            return answer


def _service(process: _Process, name: str, pages: dict[str, Callable[[Any], None]]) -> None:
    """An HTTP service whose requests are spans, with the caller's trace."""
    from opentelemetry import propagate, trace
    from opentelemetry.trace import SpanKind, StatusCode

    tracer = trace.get_tracer(f"shop.{name}")

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            context = propagate.extract(dict(self.headers.items()))
            page = self.path.strip("/").partition("?")[0]
            with tracer.start_as_current_span(
                f"GET /{page}",
                context,
                kind=SpanKind.SERVER,
                attributes={"http.request.method": "GET", "url.path": f"/{page}"},
            ) as span:
                status = 200
                try:
                    pages[page](tracer)
                except KeyError:
                    status = 404
                except OSError as error:
                    status = 502
                    span.set_status(StatusCode.ERROR, str(error))
                    span.set_attribute("error.type", type(error).__name__)
                span.set_attribute("http.response.status_code", status)
                body = f"{page} {status}\n".encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        request_queue_size = 64

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A customer who hung up is no news."""

    server = Server(("127.0.0.1", process.ports[name]), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def _get(tracer: Any, service: str, port: int, page: str) -> None:
    """A request to another service, as a client span; raises OSError where it fails."""
    from opentelemetry import propagate
    from opentelemetry.trace import SpanKind, StatusCode

    with tracer.start_as_current_span(
        f"GET {service}/{page}",
        kind=SpanKind.CLIENT,
        attributes={
            "http.request.method": "GET",
            "server.address": "localhost",
            "server.port": port,
        },
    ) as span:
        headers: dict[str, str] = {}
        propagate.inject(headers)
        connection = http.client.HTTPConnection("localhost", port, timeout=10)
        try:
            connection.request("GET", f"/{page}", headers=headers)
            response = connection.getresponse()
            response.read()
            status = response.status
        finally:
            connection.close()
        span.set_attribute("http.response.status_code", status)
        if status >= 500:
            span.set_status(StatusCode.ERROR)
            span.set_attribute("error.type", str(status))
            raise OSError(f"{service} answered {status}")


def _checkout(process: _Process) -> None:
    def browse(tracer: Any) -> None:
        process.ask("cache", b"session")
        _get(tracer, "catalog", process.ports["catalog"], "items")
        process.between(1, 4)

    def checkout(tracer: Any) -> None:
        process.ask("cache", b"session")
        _get(tracer, "catalog", process.ports["catalog"], "items")
        with tracer.start_as_current_span("price the basket"):
            process.between(2, 9)
        _get(tracer, "payments", process.ports["payments"], "pay")

    _service(process, "checkout", {"browse": browse, "checkout": checkout})


def _catalog(process: _Process) -> None:
    forgotten: list[socket.socket] = []

    def items(tracer: Any) -> None:
        process.ask("cache", b"items")
        luck = process.dice.random()
        if luck < 0.12:
            # A partner who hangs up, and a socket that nobody closes.
            with tracer.start_as_current_span("import feed"):
                sock = process.connect("feed")
                if len(forgotten) < 4:
                    forgotten.append(sock)
                else:
                    sock.close()
        elif luck < 0.2:
            with (
                tracer.start_as_current_span("import old feed"),
                contextlib.suppress(OSError),
            ):
                process.connect("closed").close()
        elif luck < 0.26:
            # Misspelt in a configuration: two dots. The resolver refuses it without a query.
            with (
                tracer.start_as_current_span("import partner feed"),
                contextlib.suppress(OSError),
            ):
                socket.getaddrinfo(b"feed..partner.example", 443)
        elif luck < 0.34:
            with (
                tracer.start_as_current_span("count visit"),
                contextlib.suppress(OSError),
                process.connect("tracker") as sock,
            ):
                sock.sendall(b"visit\n")
                sock.recv(16)
        process.between(0.5, 3)

    _service(process, "catalog", {"items": items})


def _payments(process: _Process) -> None:
    def pay(tracer: Any) -> None:
        with tracer.start_as_current_span("authorise"):
            process.ask("bank", b"authorise")
        if process.dice.random() < 0.15:
            # A policy that is enforced refuses this one: nothing is sent.
            with (
                tracer.start_as_current_span("read instance metadata"),
                contextlib.suppress(OSError),
            ):
                socket.create_connection(("169.254.169.254", 80), timeout=1).close()
        with tracer.start_as_current_span("book"):
            size = _LEDGER_BYTES if process.dice.random() < 0.2 else 2000
            with process.pooled("ledger") as sock:
                sock.sendall(size.to_bytes(4, "big") + bytes(size))
                sock.recv(1)

    _service(process, "payments", {"pay": pay})


def _listen(
    port: int, answer: Callable[[socket.socket], None], context: ssl.SSLContext | None = None
) -> None:
    server = socket.create_server(("127.0.0.1", port), backlog=64)

    def serve(sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if context is not None:
                sock = context.wrap_socket(sock, server_side=True)
            with sock:
                answer(sock)

    def accept() -> None:
        while True:
            sock, _ = server.accept()
            threading.Thread(target=serve, args=(sock,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


def _peers(process: _Process) -> None:
    """Servers that know nothing of telemetry."""

    def lines(low: float, high: float) -> Callable[[socket.socket], None]:
        def answer(sock: socket.socket) -> None:
            while sock.recv(4096):
                process.between(low, high)
                sock.sendall(b"ok\n")

        return answer

    def ledger(sock: socket.socket) -> None:
        while head := sock.recv(4):
            left = int.from_bytes(head, "big")
            slow = left > 1 << 20
            while left > 0:
                if slow:
                    process.between(8, 25)
                left -= len(sock.recv(min(left, 1 << 19)))
            sock.sendall(b"1")

    context = None
    if process.secure:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(process.certificate, process.key)
    _listen(process.ports["cache"], lines(0.1, 0.6))
    _listen(process.ports["bank"], lines(12, 45), context)
    _listen(process.ports["ledger"], ledger)
    _listen(process.ports["feed"], lambda sock: process.between(5, 10))
    _listen(process.ports["tracker"], lines(1, 2))


_ROLES: Final[dict[str, Callable[[_Process], None]]] = {
    "checkout": _checkout,
    "catalog": _catalog,
    "payments": _payments,
    "peers": _peers,
}


def main() -> None:
    role, directory = sys.argv[1:]
    if role in SERVICES:
        import tracesock

        tracesock.connections(stack=True)
    _ROLES[role](_Process(Path(directory)))
    # The demo holds the other end.
    while sys.stdin.buffer.read(4096):
        pass


if __name__ == "__main__":
    main()
