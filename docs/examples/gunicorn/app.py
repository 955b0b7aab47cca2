"""A WSGI application that counts its visitors in Redis and asks a second service for its greeting.

Nothing in it knows of tracesock; the middleware is OpenTelemetry's, for a span a request.
"""

import os
import urllib.request
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIEnvironment

import redis
from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware

cache = redis.Redis.from_url(os.environ["REDIS_URL"])
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def greet(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Says who the visitor is."""
    visitor = cache.incr("visitors")
    with opener.open(os.environ["GREETING_URL"]) as response:
        greeting = response.read()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [greeting + b", you are visitor %d from %d\n" % (visitor, os.getpid())]


application = OpenTelemetryMiddleware(greet)
