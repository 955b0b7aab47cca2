"""An HTTPS request through the usual clients is one trace: look-up, connect, handshake, sends."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest
from support import environment

HERE = pathlib.Path(__file__).parent
CLIENTS = {
    "http_client": (),
    "urllib_request": (),
    "urllib3": ("urllib3",),
    "requests": ("requests",),
    "httpx": ("httpx",),
    "httpx_asyncio": ("httpx", "anyio"),
    "httpx_trio": ("httpx", "trio"),
    "aiohttp": ("aiohttp",),
    "asyncio_streams": (),
    "anyio_asyncio": ("anyio",),
    "anyio_trio": ("anyio", "trio"),
}
BODY = 3000  # bytes, see clients.py


@pytest.fixture(scope="module")
def port(certificate: str) -> Iterator[int]:
    """Of an HTTPS server in a process of its own, so that its spans are none of the client's."""
    process = subprocess.Popen(
        [sys.executable, HERE / "https_server.py", certificate],
        env=environment(PYTHONPATH=""),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process:
        yield int(process.stdout.readline())
        process.communicate(timeout=60)


def spans_of(
    way: str, client: str, port: int, certificate: str, file: pathlib.Path
) -> list[dict[str, Any]]:
    words = [sys.executable, str(HERE / "clients.py")]
    variables = {"OTEL_SDK_DISABLED": "false"}
    if way == "run":
        words[1:1] = ["-m", "tracesock", "run"]
        variables["OTEL_TRACES_EXPORTER"] = "console"
    done = subprocess.run(
        [*words, way, client, f"https://localhost:{port}/path", certificate, file],
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    spans: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
    return spans


@pytest.mark.parametrize("way", ["install", "late", "run"])
@pytest.mark.parametrize("client", CLIENTS)
def test_one_trace(
    client: str, way: str, port: int, certificate: str, tmp_path: pathlib.Path
) -> None:
    for package in CLIENTS[client]:
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install tracesock[dev]")
    spans = spans_of(way, client, port, certificate, tmp_path / "spans.json")
    shown = "\n".join(f"{span['name']}  {span['attributes']}" for span in spans)
    (request,) = [span for span in spans if span["name"] == "request"]
    assert {span["context"]["trace_id"] for span in spans} == {request["context"]["trace_id"]}

    # Every span is below the request, and within its time.
    by_id = {span["context"]["span_id"]: span for span in spans}
    for span in spans:
        above = span
        while above["parent_id"] is not None:
            above = by_id[above["parent_id"]]
        assert above is request, shown
        assert request["start_time"] <= span["start_time"] <= span["end_time"], shown
        assert span["end_time"] <= request["end_time"], shown

    def named(start: str) -> list[dict[str, Any]]:
        return [span for span in spans if span["name"].startswith(start)]

    (lookup,) = named("DNS lookup localhost")
    assert "127.0.0.1" in lookup["attributes"]["dns.answers"]
    (connect,) = [
        span for span in named("socket connect ") if "error.type" not in span["attributes"]
    ]
    assert connect["attributes"]["network.peer.address"] == "127.0.0.1"
    assert connect["attributes"]["network.peer.port"] == port
    assert connect["attributes"]["server.address"] == "localhost", shown
    (handshake,) = named("TLS client handshake localhost")
    assert handshake["attributes"]["tls.protocol.name"] == "tls"
    assert handshake["attributes"]["tls.protocol.version"] in ("1.2", "1.3")
    assert handshake["attributes"]["tls.cipher"]
    assert handshake["attributes"]["tls.resumed"] is False
    assert "error.type" not in handshake["attributes"]
    sends = named("socket send ")
    assert sends, shown
    for send in sends:
        assert send["name"] == f"socket send 127.0.0.1:{port}", shown
        assert send["attributes"]["network.peer.port"] == port
        assert send["attributes"]["network.transport"] == "tcp"
        assert send["attributes"]["network.type"] == "ipv4"
        assert send["attributes"]["server.address"] == "localhost", shown
    # Each byte once: the body and a head, or their ciphertext and the handshake's.
    assert BODY < sum(send["attributes"]["tracesock.send.size"] for send in sends) < 2 * BODY, shown
    order = [lookup, connect, handshake, sends[-1]]
    starts = [span["start_time"] for span in order]
    assert starts == sorted(starts), shown
