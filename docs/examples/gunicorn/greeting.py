"""The second service: one greeting, from the standard library's WSGI server."""

import sys
from collections.abc import Iterable
from wsgiref.simple_server import make_server
from wsgiref.types import StartResponse, WSGIEnvironment


def greeting(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The greeting."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"Good day"]


if __name__ == "__main__":
    try:
        make_server("127.0.0.1", int(sys.argv[1]), greeting).serve_forever()
    except KeyboardInterrupt:
        pass
