"""An HTTPS server of the standard library that answers each POST with the length it read.

python https_server.py CERTIFICATE: the port stands in the first line of what it writes. It ends
when its standard input does.
"""

from __future__ import annotations

import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """Answers a POST; says nothing."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """The length of the body."""
        size = len(self.rfile.read(int(self.headers["Content-Length"])))
        answer = b"%d bytes" % size
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


class Server(ThreadingHTTPServer):
    """A thread a connection; each makes its own handshake."""

    def __init__(self, certificate: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.load_cert_chain(certificate)

    def finish_request(self, request, client_address) -> None:  # type: ignore[no-untyped-def]
        with self.context.wrap_socket(request, server_side=True) as tls:
            self.RequestHandlerClass(tls, client_address, self)

    def handle_error(self, request, client_address) -> None:  # type: ignore[no-untyped-def]
        """A client that goes away in the middle is none of the tests' business."""


if __name__ == "__main__":
    with Server(sys.argv[1]) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(server.server_address[1], flush=True)
        sys.stdin.read()
        server.shutdown()
