"""urllib3 and requests over TLS: `python docs/examples/tls_client/run.py`.

The program puts tracesock in place itself, with `tracesock.install()`, and has a provider of its
own. Each client asks twice over one connection; server and certificate are made for the run.
"""

import pathlib
import ssl
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import tracesock

tracesock.install()  # before the clients are imported: nothing keeps an earlier socket class

import requests  # noqa: E402
import trustme  # noqa: E402
import urllib3  # noqa: E402
from opentelemetry.sdk.trace import TracerProvider  # noqa: E402
from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: E402
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter  # noqa: E402

from tracesock.cli import waterfall  # noqa: E402


class Handler(BaseHTTPRequestHandler):
    """Answers with what it was sent."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        """The same body."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@contextmanager
def https_server(authority: trustme.CA) -> Iterator[int]:
    """The port of an HTTPS server for the name localhost."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def main() -> None:
    """Both clients, then their traces."""
    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    tracer = provider.get_tracer("example")
    authority = trustme.CA()
    with (
        tempfile.TemporaryDirectory() as directory,
        https_server(authority) as port,
    ):
        certificate = pathlib.Path(directory, "authority.pem")
        authority.cert_pem.write_to_path(certificate)
        url = f"https://localhost:{port}/"
        tracesock.instrument(provider)
        with urllib3.PoolManager(ca_certs=str(certificate)) as pool:
            for number in range(2):
                with tracer.start_as_current_span(f"urllib3, request {number + 1}"):
                    pool.request("POST", url, body=b"u" * 1000)
        with requests.Session() as session:
            session.trust_env = False
            for number in range(2):
                with tracer.start_as_current_span(f"requests, request {number + 1}"):
                    session.post(url, data=b"r" * 1000, verify=certificate).raise_for_status()
        tracesock.uninstrument()
    spans = [waterfall.of_sdk(span) for span in kept.get_finished_spans()]
    client = {span.trace_id for span in spans if span.name.startswith(("urllib3", "requests"))}
    waterfall.show(span for span in spans if span.trace_id in client)


if __name__ == "__main__":
    main()
