"""A sample service, so that the dashboards have something to show: it calls itself.

Only the standard library, and nothing of tracesock: `tracesock run shop.py` does the rest.
"""

from __future__ import annotations

import contextlib
import http.server
import random
import socket
import threading
import time
import urllib.request

LARGE = 4 << 20  # bytes: more than the buffers between two sockets hold


class Shop(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        time.sleep(random.expovariate(1 / 0.02))
        self._answer(b"in stock\n")

    def do_POST(self) -> None:
        time.sleep(0.5)  # the sender stalls meanwhile
        left = int(self.headers["Content-Length"])
        while left > 0:
            left -= len(self.rfile.read(min(left, 1 << 16)))
        self._answer(b"ordered\n")

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def call(port: int) -> None:
    """One of the things that a service does in a day, good and bad."""
    what = random.random()
    with contextlib.suppress(OSError):
        if what < 0.8:
            urllib.request.urlopen(f"http://localhost:{port}/item", timeout=5).read()
        elif what < 0.85:
            order = urllib.request.Request(f"http://localhost:{port}/order", data=bytes(LARGE))
            urllib.request.urlopen(order, timeout=5).read()
        elif what < 0.9:
            socket.create_connection(("localhost", 9), timeout=1).close()  # nobody listens
        elif what < 0.95:
            socket.getaddrinfo("warehouse.invalid", 443)
        else:
            socket.create_connection(("169.254.169.254", 80), timeout=1).close()  # denied


def main() -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Shop)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    while True:
        call(server.server_address[1])
        time.sleep(random.expovariate(1 / 0.2))


if __name__ == "__main__":
    main()
