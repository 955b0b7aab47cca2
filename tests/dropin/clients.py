"""One HTTPS request with a client of the name given, and the spans of it as JSON in FILE.

    python clients.py install CLIENT URL CERTIFICATE FILE     tracesock.install(), instrument()
    python clients.py late CLIENT URL CERTIFICATE FILE        the same, after the client's import
    tracesock run clients.py run CLIENT URL CERTIFICATE FILE  what `tracesock run` turned on

Under `tracesock run` the request's span is made by the global provider; a second processor keeps
what it is given.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import pathlib
import ssl
import sys
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

BODY = b"x" * 3000


PACKAGES = ("aiohttp", "anyio", "asyncio", "http.client", "httpx", "requests", "trio", "urllib3")


def http_client(url: str, context: ssl.SSLContext, certificate: str) -> bytes:
    import http.client
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    connection = http.client.HTTPSConnection(parts.hostname, parts.port, context=context)
    connection.request("POST", parts.path, BODY)
    body: bytes = connection.getresponse().read()
    connection.close()
    return body


def urllib_request(url: str, context: ssl.SSLContext, certificate: str) -> bytes:
    import urllib.request

    handlers = urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    with urllib.request.build_opener(*handlers).open(url, BODY) as response:
        body: bytes = response.read()
        return body


def urllib3(url: str, context: ssl.SSLContext, certificate: str) -> bytes:
    import urllib3

    with urllib3.PoolManager(ssl_context=context) as pool:
        return pool.request("POST", url, body=BODY).data


def requests(url: str, context: ssl.SSLContext, certificate: str) -> bytes:
    import requests

    with requests.Session() as session:
        session.trust_env = False
        return session.post(url, data=BODY, verify=certificate).content


def httpx(url: str, context: ssl.SSLContext, certificate: str) -> bytes:
    import httpx

    with httpx.Client(verify=context, trust_env=False) as client:
        return client.post(url, content=BODY).content


async def _httpx_async(url: str, context: ssl.SSLContext) -> bytes:
    import httpx

    async with httpx.AsyncClient(verify=context, trust_env=False) as client:
        return (await client.post(url, content=BODY)).content


def httpx_asyncio(url: str, context: ssl.SSLContext, certificate: str) -> bytes:
    import asyncio

    return asyncio.run(_httpx_async(url, context))


def httpx_trio(url: str, context: ssl.SSLContext, certificate: str) -> bytes:
    import trio

    return trio.run(_httpx_async, url, context)


def aiohttp(url: str, context: ssl.SSLContext, certificate: str) -> bytes:
    import asyncio

    import aiohttp

    async def main() -> bytes:
        connector = aiohttp.TCPConnector(resolver=aiohttp.ThreadedResolver())
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.post(url, data=BODY, ssl=context) as response,
        ):
            return await response.read()

    return asyncio.run(main())


def _request(url: str) -> tuple[str, int, bytes]:
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    assert parts.hostname is not None and parts.port is not None
    head = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n"
    head += f"Content-Length: {len(BODY)}\r\n\r\n"
    return parts.hostname, parts.port, head.encode() + BODY


def asyncio_streams(url: str, context: ssl.SSLContext, certificate: str) -> bytes:
    import asyncio

    async def main() -> bytes:
        host, port, request = _request(url)
        reader, writer = await asyncio.open_connection(host, port, ssl=context)
        writer.write(request)
        await writer.drain()
        answer = await reader.read()
        writer.close()
        return answer.partition(b"\r\n\r\n")[2]

    return asyncio.run(main())


async def _anyio(url: str, context: ssl.SSLContext) -> bytes:
    import anyio

    host, port, request = _request(url)
    answer = b""
    async with await anyio.connect_tcp(
        host, port, ssl_context=context, tls_standard_compatible=False
    ) as stream:
        await stream.send(request)
        async for chunk in stream:
            answer += chunk
    return answer.partition(b"\r\n\r\n")[2]


def anyio_asyncio(url: str, context: ssl.SSLContext, certificate: str) -> bytes:
    import anyio

    return anyio.run(_anyio, url, context, backend="asyncio")


def anyio_trio(url: str, context: ssl.SSLContext, certificate: str) -> bytes:
    import anyio

    return anyio.run(_anyio, url, context, backend="trio")


CLIENTS = {
    function.__name__: function
    for function in (
        http_client,
        urllib_request,
        urllib3,
        requests,
        httpx,
        httpx_asyncio,
        httpx_trio,
        aiohttp,
        asyncio_streams,
        anyio_asyncio,
        anyio_trio,
    )
}


def main(way: str, client: str, url: str, certificate: str, file: str) -> None:
    import tracesock.instrumentation

    kept = InMemorySpanExporter()
    if way == "late":
        for package in PACKAGES:
            with contextlib.suppress(ModuleNotFoundError):
                importlib.import_module(package)
    if way in ("install", "late"):
        provider: Any = TracerProvider()
        tracesock.install()
        tracesock.instrument(provider)
    else:
        provider = trace.get_tracer_provider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    context = ssl.create_default_context(cafile=certificate)
    with provider.get_tracer("clients").start_as_current_span("request"):
        body = CLIENTS[client](url, context, certificate)
    assert body == b"%d bytes" % len(BODY), body
    tracesock.instrumentation.flush()
    spans = [json.loads(span.to_json()) for span in kept.get_finished_spans()]
    pathlib.Path(file).write_text(json.dumps(spans), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
