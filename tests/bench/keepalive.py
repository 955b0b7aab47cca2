"""HTTP over connections that stay open, with `install()` and no `instrument()`, as ratios to stock.

    .venv/bin/python -m tests.bench.keepalive [--quick] [--json] [--only TEXT] [--rounds N]

install() is a process's: each side is a process of its own that makes small requests by http.client
or urllib3, plain and over TLS, to one server; or serves them, by http.server or asyncio, to one
client. The server and the client beside it are stock's. What a side takes is the CPU time of its
process, which the rest of a busy machine changes little; and the time on the clock as well, for the
plain loop.
"""

from __future__ import annotations

import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.bench import harness
from tests.bench.harness import STOCK, TRACESOCK, Case, Row, Skipped

PROJECT = Path(__file__).resolve().parents[2]
REQUESTS = 50  # a burst
BODY = b"k" * 100
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % len(BODY)
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: identity\r\n\r\n"


# --- what runs in processes of its own: no import above knows of sockets but ssl ------------------


def serve_raw(certificate: str) -> None:
    """The smallest server, plain and over TLS: prints both ports, ends with its input."""
    import socket

    context = None
    if certificate:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)

    def answer(connection: Any) -> None:
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while connection.recv(4096):
                connection.sendall(ANSWER + BODY)

    def accept(listener: Any, tls: ssl.SSLContext | None) -> None:
        while True:
            connection, _ = listener.accept()
            if tls is not None:
                connection = tls.wrap_socket(connection, server_side=True)
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    for listener, tls in zip(listeners, (None, context), strict=True):
        threading.Thread(target=accept, args=(listener, tls), daemon=True).start()
    print(*(listener.getsockname()[1] for listener in listeners), flush=True)
    sys.stdin.read()


def http_client(port: int, certificate: str) -> Callable[[], object]:
    """A request by http.client."""
    import http.client

    connection: http.client.HTTPConnection
    if certificate:
        context = ssl.create_default_context(cafile=certificate)
        connection = http.client.HTTPSConnection("localhost", port, context=context)
    else:
        connection = http.client.HTTPConnection("localhost", port)

    def request() -> object:
        connection.request("GET", "/")
        return connection.getresponse().read()

    return request


def urllib3(port: int, certificate: str) -> Callable[[], object]:
    """A request by urllib3's pool."""
    import urllib3

    pool: Any
    if certificate:
        pool = urllib3.HTTPSConnectionPool("localhost", port, ca_certs=certificate)
    else:
        pool = urllib3.HTTPConnectionPool("localhost", port)
    return lambda: pool.request("GET", "/").data


def raw(port: int, certificate: str) -> Callable[[], object]:
    """A request with as little as possible around it, for servers to be measured with."""
    import socket

    connection = socket.create_connection(("127.0.0.1", port))
    whole = len(ANSWER) + len(BODY)

    def request() -> object:
        connection.sendall(REQUEST)
        got = len(connection.recv(4096))
        while got < whole and not got > whole:
            got += len(connection.recv(4096))
        return got

    return request


def http_server() -> int:
    """The port of an http.server that answers for good."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.wfile.write(ANSWER + BODY)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port: int = server.server_address[1]
    return port


def asyncio_server() -> int:
    """The port of a server of asyncio's streams."""
    import asyncio

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            while (await reader.readline()).strip():
                pass
            writer.write(ANSWER + BODY)
            await writer.drain()

    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(answer, "127.0.0.1", 0))
    threading.Thread(target=loop.run_forever, daemon=True).start()
    port: int = server.sockets[0].getsockname()[1]
    return port


def side(module: str, kind: str, port: int, certificate: str) -> None:
    """One side: makes as many requests as each line of input says, or serves; tells its seconds."""
    if module == TRACESOCK:
        import tracesock

        tracesock.install()
    clients = {"http_client": http_client, "urllib3": urllib3, "raw": raw}
    if kind in clients:
        request = clients[kind](port, certificate)
        request()
        print("ready", flush=True)
    else:
        print({"http_server": http_server, "asyncio_server": asyncio_server}[kind](), flush=True)

        def request() -> object:
            return None

    last = time.process_time()
    for text in sys.stdin:
        begun = time.perf_counter()
        if kind in clients:
            last = time.process_time()
        for _ in range(int(text)):
            request()
        now = time.process_time()
        print(now - last, time.perf_counter() - begun, flush=True)
        last = now


# --- the side that measures ---------------------------------------------------------------------


class Process:
    """One of the above, with a line in and a line out."""

    def __init__(self, *words: object) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.keepalive", *map(str, words)],
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def read(self) -> str:
        """Its next line."""
        assert self._process.stdout is not None
        text = self._process.stdout.readline()
        if not text:
            raise RuntimeError(f"{self._process.args!r} ended with {self._process.wait()}")
        return text

    def ask(self, count: int) -> tuple[float, float]:
        """(CPU seconds, seconds) of `count` requests, or since it was asked last."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{count}\n")
        self._process.stdin.flush()
        cpu, clock = map(float, self.read().split())
        return cpu, clock

    def close(self) -> None:
        """Ends it."""
        self._process.communicate(timeout=60)


def certificate_in(directory: str) -> str:
    """A file with a key, a certificate for localhost, and the authority's."""
    try:
        import trustme
    except ImportError:
        raise Skipped("trustme is missing: pip install tracesock[examples]") from None
    authority = trustme.CA()
    path = Path(directory, "certificate.pem")
    leaf = authority.issue_cert("localhost")
    parts = [leaf.private_key_and_cert_chain_pem, authority.cert_pem]
    path.write_bytes(b"".join(part.bytes() for part in parts))
    return str(path)


def requests(kind: str, tls: bool, clock: bool = False) -> Callable[[str], Case]:
    """A side that makes requests."""

    def make(module: str) -> Case:
        directory = tempfile.TemporaryDirectory(prefix="keepalive-")
        certificate = certificate_in(directory.name) if tls else ""
        server = Process("serve", certificate)
        plain, secure = map(int, server.read().split())
        client = Process("side", module, kind, secure if tls else plain, certificate)
        client.read()
        return Case(
            "",
            {},
            calls=REQUESTS,
            seconds=lambda: client.ask(REQUESTS)[1 if clock else 0],
            close=[directory.cleanup, server, client],
        )

    return make


def answers(kind: str) -> Callable[[str], Case]:
    """A side that serves."""

    def make(module: str) -> Case:
        server = Process("side", module, kind, 0, "")
        client = Process("side", STOCK, "raw", int(server.read()), "")
        client.read()

        def seconds() -> float:
            server.ask(0)
            client.ask(REQUESTS)
            return server.ask(0)[0]

        return Case("", {}, calls=REQUESTS, seconds=seconds, close=[server, client])

    return make


def _row(name: str, make: Callable[[str], Case], quick: bool, target: float = 1.02) -> Row:
    sides = {module: lambda module=module: make(module) for module in (STOCK, TRACESOCK)}
    return Row(name, sides, target, 10 if quick else 40, min)


def rows(quick: bool) -> Iterator[Row]:
    """Clients, plain and over TLS, and servers."""
    yield _row("http.client, by the clock", requests("http_client", False, True), quick)
    yield _row("http.client", requests("http_client", False), quick)
    yield _row("urllib3", requests("urllib3", False), quick)
    yield _row("http.client, TLS", requests("http_client", True), quick)
    if not quick:
        yield _row("urllib3, TLS", requests("urllib3", True), quick)
    yield _row("http.server", answers("http_server"), quick)
    yield _row("asyncio's streams, serving", answers("asyncio_server"), quick)


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve_raw(sys.argv[2])
    elif sys.argv[1:2] == ["side"]:
        side(sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5])
    else:
        harness.main(__doc__, rows, rounds=5, quick_rounds=2)
