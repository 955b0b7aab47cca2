"""What a program with the plain SDK sees: the spans, metrics and rules of
docs/reference/telemetry.md, by real calls on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import errno
import io
import logging
import os
import selectors
import shutil
import socket as stock
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import SpanKind, StatusCode, TraceFlags, TraceState

import tracesock
from tests.telemetry.plain import (
    Plain,
    attributes,
    every_point,
    full_backlog,
    in_file,
    nobody,
    own_id,
    parent_id,
    suppressing,
    wait_for,
    when_stalled,
)
from tracesock import audit, socket
from tracesock.testing import CountingIdGenerator

HOST = "127.0.0.1"
Telemetry = Callable[..., Plain]


# --- parts ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def serving(host: str = HOST, family: int = stock.AF_INET) -> Iterator[Any]:
    """A listening socket, of which telemetry knows nothing."""
    with suppressing():
        server = stock.create_server((host, 0), family=family)
    with server:
        server.settimeout(30)
        yield server


def port_of(server: Any) -> int:
    number: int = server.getsockname()[1]
    return number


@contextlib.contextmanager
def connection(server: Any) -> Iterator[tuple[socket, Any]]:
    """A connected tracesock socket and the stock one at its other end."""
    with socket() as client:
        client.connect(server.getsockname())
        accepted, _ = server.accept()
        with accepted:
            yield client, accepted


def lookup_error(error: tracesock.gaierror) -> str:
    names = {
        tracesock.EAI_NONAME: "host_not_found",
        getattr(tracesock, "EAI_NODATA", -5): "host_not_found",
        tracesock.EAI_AGAIN: "try_again",
        tracesock.EAI_FAIL: "no_recovery",
    }
    assert error.errno is not None
    return names[error.errno]


def assert_plain(span: Any) -> None:
    """What all spans have in common."""
    assert span.kind is SpanKind.INTERNAL
    assert not span.events
    assert not span.links
    scope = span.instrumentation_scope
    assert (scope.name, scope.version) == ("tracesock", tracesock._native.__version__)
    assert scope.schema_url == "https://opentelemetry.io/schemas/1.44.0"
    error = attributes(span).get("error.type")
    assert span.status.status_code is (StatusCode.UNSET if error is None else StatusCode.ERROR)
    assert span.start_time <= span.end_time
    assert abs(time.time_ns() - span.start_time) < 3600e9, "it is a time of the epoch"


# --- the table of spans ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "look_up",
    [
        lambda: tracesock.getaddrinfo("localhost", 80, tracesock.AF_INET, tracesock.SOCK_STREAM),
        lambda: tracesock.gethostbyname("localhost"),
        lambda: tracesock.gethostbyname_ex("localhost"),
    ],
)
def test_lookup(telemetry: Telemetry, look_up: Callable[[], Any]) -> None:
    plain = telemetry()
    look_up()
    span = plain.only()
    assert_plain(span)
    assert span.name == "DNS lookup localhost"
    assert attributes(span) == {"dns.question.name": "localhost", "dns.answers": (HOST,)}
    assert span.parent is None, "without a parent it follows the sampler"


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("bücher.invalid", "xn--bcher-kva.invalid"),
        (b"b\xfccher.invalid", "b\\xfccher.invalid"),
        ("bücher.invalid".encode(), "bücher.invalid"),
        (b"\xff\n<b>", "\\xff\n<b>"),
    ],
)
def test_a_lookup_shows_its_host_safely(
    telemetry: Telemetry, host: str | bytes, shown: str
) -> None:
    plain = telemetry()
    with pytest.raises(tracesock.gaierror):
        tracesock.getaddrinfo(host, 80)
    span = plain.only()
    assert attributes(span)["dns.question.name"] == shown
    assert span.name == "DNS lookup " + shown.replace("\n", "\\n")


def test_a_lookup_keeps_the_beginning_of_a_host_without_end(telemetry: Telemetry) -> None:
    plain = telemetry()
    with pytest.raises(tracesock.gaierror):
        tracesock.getaddrinfo(b"a." * 500_000, 80)
    assert attributes(plain.only())["dns.question.name"] == "a." * 512 + "..."


@pytest.mark.parametrize(
    "look_up",
    [
        lambda: tracesock.getaddrinfo(None, 80),
        lambda: tracesock.getaddrinfo("", 80),
        lambda: tracesock.getaddrinfo("127.0.0.1", 80),
        lambda: tracesock.getaddrinfo("::1", 80),
        lambda: tracesock.getaddrinfo("::1%lo", 80),
        lambda: tracesock.getaddrinfo("localhost", 80, flags=tracesock.AI_NUMERICHOST),
        lambda: tracesock.gethostbyname("<broadcast>"),
        lambda: tracesock.getnameinfo((HOST, 80), tracesock.NI_NUMERICHOST),
        lambda: tracesock.getservbyname("http"),
        lambda: tracesock.gethostname(),
    ],
)
def test_what_asks_nobody_is_no_lookup(telemetry: Telemetry, look_up: Callable[[], Any]) -> None:
    plain = telemetry()
    with contextlib.suppress(tracesock.gaierror):
        look_up()
    assert plain.spans() == []
    assert plain.total("dns.lookup.duration") == 0


class _OwnSpanContext(trace.SpanContext):
    """Whose parts are not what its tuple says."""

    @property
    def span_id(self) -> int:
        return 77


@pytest.mark.parametrize("kind", [trace.SpanContext, _OwnSpanContext])
def test_the_parent_is_what_its_context_says(telemetry: Telemetry, kind: Any) -> None:
    plain = telemetry(send_spans="all")
    state = TraceState([("vendor", "1")])
    context = kind(2**127 + 5, 2**63 + 6, True, TraceFlags(TraceFlags.SAMPLED), state)
    with serving() as server, trace.use_span(trace.NonRecordingSpan(context)):
        tracesock.gethostbyname("localhost")
        with socket() as client:
            client.connect(server.getsockname())
            client.send(b"x")
    spans = plain.spans()
    assert [each.name.split(":")[0] for each in spans] == [
        "DNS lookup localhost",
        f"socket connect {HOST}",
        f"socket send {HOST}",
    ]
    for span in spans:
        assert span.context is not None and span.parent is not None
        assert span.context.trace_id == 2**127 + 5
        assert span.parent.span_id == context.span_id
        assert span.parent.is_remote
        assert span.context.trace_state == state


class _FewParts:
    """A span context of another class, which says no more than what it must."""

    trace_id, span_id, trace_flags, is_valid = 5, 6, TraceFlags(TraceFlags.SAMPLED), True


def test_a_parent_whose_context_has_few_parts(telemetry: Telemetry) -> None:
    plain = telemetry()
    context: Any = _FewParts()
    with trace.use_span(trace.NonRecordingSpan(context)):
        tracesock.gethostbyname("localhost")
    parent = plain.only("DNS lookup ").parent
    assert parent is not None
    assert (parent.trace_id, parent.span_id, parent.is_remote) == (5, 6, False)


@pytest.mark.parametrize("call", ["connect", "connect_ex", "bind", "sendto"])
def test_a_name_that_is_resolved_inside_a_call(telemetry: Telemetry, call: str) -> None:
    plain = telemetry()
    with serving() as server, socket() as stream, socket(type=tracesock.SOCK_DGRAM) as datagram:
        port = port_of(server)
        with plain.span():
            {
                "connect": lambda: stream.connect(("localhost", port)),
                "connect_ex": lambda: stream.connect_ex(("localhost", port)),
                "bind": lambda: stream.bind(("localhost", 0)),
                "sendto": lambda: datagram.sendto(b"x", ("localhost", port)),
            }[call]()
        span = plain.only("DNS lookup ")
        assert span.name == "DNS lookup localhost"
        assert attributes(span)["dns.answers"] == (HOST,)
        rest = {each.name: attributes(each) for each in plain.spans("socket ")}
    if call.startswith("connect"):
        (connect,) = rest.values()
        assert list(rest) == [f"socket connect {HOST}:{port}"]
        assert connect["server.address"] == "localhost"
        assert connect["server.port"] == port
    elif call == "sendto":
        assert list(rest) == [f"socket send {HOST}:{port}"]
    else:
        assert not rest


def test_a_lookup_that_fails(telemetry: Telemetry) -> None:
    plain = telemetry()
    with pytest.raises(tracesock.gaierror) as raised:
        tracesock.getaddrinfo("nobody.invalid", 80)
    span = plain.only()
    assert_plain(span)
    assert span.name == "DNS lookup nobody.invalid"
    expected = lookup_error(raised.value)
    assert attributes(span) == {"dns.question.name": "nobody.invalid", "error.type": expected}
    assert plain.total("dns.lookup.duration", error_type=expected) == 1


def test_a_family_without_an_address(telemetry: Telemetry) -> None:
    plain = telemetry()
    with pytest.raises(tracesock.gaierror) as raised:
        tracesock.getaddrinfo("localhost", 80, tracesock.AF_UNIX)
    assert raised.value.errno == tracesock.EAI_FAMILY
    assert attributes(plain.only())["error.type"] == "address_family_not_supported"


@pytest.mark.parametrize(
    "look_up",
    [
        lambda: tracesock.gethostbyaddr(HOST),
        lambda: tracesock.getnameinfo((HOST, 80), tracesock.NI_NUMERICSERV),
    ],
)
def test_a_reverse_lookup(telemetry: Telemetry, look_up: Callable[[], Any]) -> None:
    plain = telemetry()
    found = look_up()[0]
    span = plain.only()
    assert_plain(span)
    assert span.name == f"DNS reverse lookup {HOST}"
    assert attributes(span) == {"dns.question.name": HOST, "dns.answers": (found,)}


@pytest.mark.parametrize("call", ["connect", "connect_ex"])
@pytest.mark.parametrize(
    "host, family, kind",
    [(HOST, stock.AF_INET, "ipv4"), ("::1", stock.AF_INET6, "ipv6")],
)
def test_connect(telemetry: Telemetry, call: str, host: str, family: int, kind: str) -> None:
    plain = telemetry()
    with serving(host, family) as server, socket(family) as client:
        port = port_of(server)
        getattr(client, call)(server.getsockname())
        local = client.getsockname()
        span = plain.only()
    assert_plain(span)
    assert span.name == f"socket connect {'[::1]' if kind == 'ipv6' else host}:{port}"
    assert attributes(span) == {
        "network.peer.address": host,
        "network.peer.port": port,
        "network.local.address": local[0],
        "network.local.port": local[1],
        "network.transport": "tcp",
        "network.type": kind,
    }


def test_connect_over_unix(telemetry: Telemetry) -> None:
    plain = telemetry()
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/socket"
        with stock.socket(stock.AF_UNIX) as server, socket(tracesock.AF_UNIX) as client:
            server.bind(path)
            server.listen()
            client.connect(path)
            span = plain.only()
        assert_plain(span)
        assert span.name == f"socket connect {path}"
        assert attributes(span) == {"network.peer.address": path, "network.transport": "unix"}
        with socket(tracesock.AF_UNIX) as client, pytest.raises(FileNotFoundError):
            client.connect(f"{directory}/nothing")
    assert attributes(plain.spans()[-1])["error.type"] == "FileNotFoundError"


def test_a_refused_connect(telemetry: Telemetry) -> None:
    plain = telemetry()
    with nobody() as address:
        with socket() as client, pytest.raises(ConnectionRefusedError):
            client.connect(address)
        with socket() as client:
            assert client.connect_ex(address) == errno.ECONNREFUSED
    for span in plain.spans():
        assert_plain(span)
        assert span.name == f"socket connect {HOST}:{address[1]}"
        assert attributes(span)["error.type"] == "connection_refused"
        assert attributes(span)["network.peer.port"] == address[1]
    assert len(plain.spans()) == 2
    assert plain.total("tracesock.connect.duration", error_type="connection_refused") == 2


def test_other_errors_of_a_connect(telemetry: Telemetry) -> None:
    plain = telemetry()
    with socket() as client, pytest.raises(OSError) as raised:
        client.connect(("255.255.255.255", 9))
    expected = {
        errno.ENETUNREACH: "network_unreachable",
        errno.EACCES: "access_denied",
        errno.EHOSTUNREACH: "host_unreachable",
    }
    assert raised.value.errno is not None
    assert attributes(plain.only())["error.type"] == expected[raised.value.errno]


def test_a_connect_that_times_out(telemetry: Telemetry) -> None:
    plain = telemetry()
    with full_backlog() as server, socket() as client:
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.connect(server.getsockname())
        span = plain.only()
    assert attributes(span)["error.type"] == "timed_out"
    assert span.end_time is not None and span.start_time is not None
    assert span.end_time - span.start_time >= 0.3e9


def tree(plain: Plain) -> dict[str, str | None]:
    """Each span's name, and its parent's."""
    plain.spans()
    names = {own_id(span): span.name for span in plain.exporter.get_finished_spans()}
    return {
        span.name: None if parent_id(span) is None else names[parent_id(span)]  # type: ignore[index]
        for span in plain.spans()
    }


def assert_nested(plain: Plain) -> None:
    """Every span lies within its parent, in one trace with it."""
    plain.spans()
    finished = plain.exporter.get_finished_spans()
    known = {own_id(span): span for span in finished}
    for span in finished:
        if span.parent is None or span.parent.span_id not in known:
            continue
        parent = known[span.parent.span_id]
        assert span.parent.trace_id == parent.get_span_context().trace_id
        assert parent.start_time <= span.start_time <= span.end_time <= parent.end_time, (
            f"{span.name} in {parent.name}"
        )


def test_a_set_up(telemetry: Telemetry) -> None:
    plain = telemetry()
    with serving() as server:
        port = port_of(server)
        with plain.span(), tracesock.create_connection(("localhost", port)):
            pass
        # ::1 may be the first address of localhost, where nobody listens.
        *refused, connect = plain.spans("socket connect ")
        assert all(attributes(each)["error.type"] == "connection_refused" for each in refused)
        assert tree(plain) == {
            f"socket connection_setup localhost:{port}": "request",
            "DNS lookup localhost": f"socket connection_setup localhost:{port}",
            **{
                each.name: f"socket connection_setup localhost:{port}"
                for each in (*refused, connect)
            },
        }
        setup = plain.only("socket connection_setup ")
        assert_plain(setup)
        assert attributes(setup) == {
            "server.address": "localhost",
            "server.port": port,
            "network.peer.address": HOST,
            "network.peer.port": port,
        }
        assert attributes(connect)["server.address"] == "localhost"
        assert attributes(connect)["server.port"] == port
    assert_nested(plain)


def test_a_set_up_without_a_parent_is_one_trace(telemetry: Telemetry) -> None:
    plain = telemetry()
    with serving() as server, tracesock.create_connection(("localhost", port_of(server))):
        pass
    spans = plain.spans()
    assert len({span.get_span_context().trace_id for span in spans}) == 1
    assert [span.name for span in spans if span.parent is None] == [
        f"socket connection_setup localhost:{port_of(server) if server.fileno() >= 0 else ''}"
    ] or spans[0].name.startswith("socket connection_setup localhost:")
    assert sum(span.parent is None for span in spans) == 1
    assert_nested(plain)


def test_a_set_up_whose_attempts_fail(telemetry: Telemetry) -> None:
    plain = telemetry()
    with nobody() as address, pytest.raises(ConnectionRefusedError):
        tracesock.create_connection(address)
    setup = plain.only("socket connection_setup ")
    assert_plain(setup)
    assert attributes(setup) == {
        "server.address": HOST,
        "server.port": address[1],
        "error.type": "connection_refused",
    }
    assert attributes(plain.only("socket connect "))["error.type"] == "connection_refused"
    with pytest.raises(tracesock.gaierror) as raised:
        tracesock.create_connection(("nobody.invalid", 1))
    assert attributes(plain.spans("socket connection_setup ")[-1])["error.type"] == lookup_error(
        raised.value
    )


def test_what_the_policy_refuses_is_denied_in_every_span(
    telemetry: Telemetry, installed: None, tmp_path: Path
) -> None:
    plain = telemetry()
    file = tmp_path / "egress.toml"
    file.write_text('default = "deny"\n')

    async def open_connection(port: int) -> None:
        await asyncio.get_running_loop().create_connection(asyncio.Protocol, HOST, port)

    with serving() as server:
        audit.load_policy(file)
        try:
            with pytest.raises(PermissionError):
                tracesock.create_connection((HOST, port_of(server)))
            with pytest.raises(PermissionError):
                asyncio.run(open_connection(port_of(server)))
        finally:
            audit.clear_policy()
    for name in ("socket connection_setup ", "socket connect "):
        assert [attributes(each)["error.type"] for each in plain.spans(name)] == ["denied"] * 2
    assert plain.total("tracesock.connect.duration", error_type="denied") == 2


def sends(sock: Any, file: io.BufferedRandom) -> dict[str, Callable[[], object]]:
    return {
        "send": lambda: sock.send(b"12345"),
        "sendall": lambda: sock.sendall(b"12345"),
        "sendmsg": lambda: sock.sendmsg([b"12", b"345"]),
        "sendfile": lambda: sock.sendfile(file),
        "write": lambda: sock.makefile("wb", buffering=0).write(b"12345"),
    }


@pytest.mark.parametrize("call", ["send", "sendall", "sendmsg", "sendfile", "write"])
def test_sends_on_a_stream(telemetry: Telemetry, call: str) -> None:
    plain = telemetry()
    with serving() as server, connection(server) as (client, accepted):
        port = port_of(server)
        with tempfile.TemporaryFile() as file:
            file.write(b"12345")
            file.flush()
            file.seek(0)
            with plain.span() as parent:
                sends(client, file)[call]()
        assert accepted.recv(10) == b"12345"
        span = plain.only("socket send ")
    assert_plain(span)
    assert span.name == f"socket send {HOST}:{port}"
    assert parent_id(span) == parent.get_span_context().span_id
    assert attributes(span) == {
        "network.peer.address": HOST,
        "network.peer.port": port,
        "network.transport": "tcp",
        "network.type": "ipv4",
        "tracesock.send.size": 5,
        "tracesock.send.calls": 1,
    }
    assert_nested(plain)


def test_sends_to(telemetry: Telemetry) -> None:
    plain = telemetry()
    with contextlib.ExitStack() as stack:
        receivers = [stack.enter_context(stock.socket(type=stock.SOCK_DGRAM)) for _ in range(3)]
        for receiver in receivers:
            receiver.bind((HOST, 0))
        with socket(type=tracesock.SOCK_DGRAM) as sender, plain.span():
            for size, receiver in enumerate(receivers * 2, 1):
                sender.sendto(bytes(size), receiver.getsockname())
            sender.sendmsg([b"1234567"], [], 0, receivers[1].getsockname())
        ports = [port_of(receiver) for receiver in receivers]
    told = [
        (span.name, attributes(span)["tracesock.send.size"]) for span in plain.spans("socket send ")
    ]
    assert told == [
        *((f"socket send {HOST}:{port}", size) for size, port in enumerate(ports * 2, 1)),
        (f"socket send {HOST}:{ports[1]}", 7),
    ]
    assert {attributes(span)["network.transport"] for span in plain.spans()} == {"udp"}


def test_descriptors_that_are_sent(telemetry: Telemetry) -> None:
    plain = telemetry()
    left, right = tracesock.socketpair()
    with left, right, tempfile.TemporaryFile() as file:
        with plain.span():
            assert tracesock.send_fds(left, [b"abc"], [file.fileno()]) == 3
        _, fds, _, _ = tracesock.recv_fds(right, 10, 1)
        os.close(fds[0])
    span = plain.only()
    assert attributes(span)["tracesock.send.size"] == 3
    assert attributes(span)["network.transport"] == "unix"


def test_a_send_that_fails(telemetry: Telemetry) -> None:
    plain = telemetry()
    left, right = tracesock.socketpair()
    right.close()
    with left, plain.span(), pytest.raises(BrokenPipeError):
        left.send(b"abc")
    span = plain.only()
    assert_plain(span)
    assert attributes(span)["error.type"] == "broken_pipe"
    assert attributes(span)["tracesock.send.size"] == 0
    with socket(type=tracesock.SOCK_DGRAM) as sender, plain.span(), pytest.raises(OSError):
        sender.sendto(bytes(100_000), (HOST, 9))
    assert attributes(plain.spans()[-1])["error.type"] == "message_too_long"


def test_a_send_that_stalls(telemetry: Telemetry) -> None:
    plain = telemetry()
    left, right = tracesock.socketpair()
    with left, right:
        size = 1 << 20
        sending = threading.get_native_id()

        def read() -> None:
            when_stalled(left, sending, 0.2)
            got = 0
            while got < size:
                got += len(right.recv(1 << 16))

        reader = threading.Thread(target=read)
        left.settimeout(30)
        with plain.span():
            reader.start()
            left.sendall(bytes(size))
        reader.join()
    span = plain.only()
    told = attributes(span)
    assert told["tracesock.send.size"] == size
    assert told["tracesock.send.calls"] == 1
    assert told["tracesock.send.retries"] >= 1
    assert span.end_time is not None and span.start_time is not None
    assert 0.1 <= told["tracesock.send.stall.duration"] <= (span.end_time - span.start_time) / 1e9
    assert plain.total("tracesock.send.stall.duration", cause="receiver") == 1


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> str:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl here to make a certificate with (Debian: apt install openssl)")
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command += ["-keyout", str(path), "-out", f"{path}.crt"]
    subprocess.run(command, check=True, capture_output=True)
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return str(path)


def tls_contexts(certificate: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate)
    client = ssl.create_default_context(cafile=certificate)
    for context in (server, client):
        context.set_alpn_protocols(["http/1.1"])
    return server, client


def test_tls_handshakes(telemetry: Telemetry, installed: None, certificate: str) -> None:
    plain = telemetry()
    for_server, for_client = tls_contexts(certificate)
    with stock.create_server((HOST, 0)) as server:
        port = port_of(server)

        def serve() -> None:
            accepted, _ = server.accept()
            with for_server.wrap_socket(accepted, server_side=True) as secure:
                secure.recv(100)

        thread = threading.Thread(target=serve)
        thread.start()
        with (
            plain.span(),
            stock.create_connection(("localhost", port)) as raw,
            for_client.wrap_socket(raw, server_hostname="localhost") as secure,
        ):
            secure.sendall(b"GET /")
        thread.join()
    for side, own in (("client", {"server.address": "localhost"}), ("server", {})):
        span = plain.only(f"TLS {side} handshake")
        assert_plain(span)
        assert span.name == ("TLS client handshake localhost" if own else "TLS server handshake")
        assert attributes(span) == {
            **own,
            "tls.protocol.name": "tls",
            "tls.protocol.version": "1.3",
            "tls.cipher": attributes(span)["tls.cipher"],
            "tls.resumed": False,
            "tls.next_protocol": "http/1.1",
        }
        assert attributes(span)["tls.cipher"].startswith("TLS_")
    (send,) = plain.spans(f"socket send {HOST}:{port}")
    assert attributes(send)["tracesock.send.size"] == 5
    assert attributes(send)["server.address"] == "localhost"
    assert_nested(plain)


def test_a_tls_handshake_that_fails(
    telemetry: Telemetry, installed: None, certificate: str
) -> None:
    plain = telemetry()
    for_server, _ = tls_contexts(certificate)
    with stock.create_server((HOST, 0)) as server:

        def serve() -> None:
            accepted, _ = server.accept()
            with accepted, contextlib.suppress(OSError):
                for_server.wrap_socket(accepted, server_side=True)

        thread = threading.Thread(target=serve)
        thread.start()
        with (
            stock.create_connection(server.getsockname()) as raw,
            pytest.raises(ssl.SSLCertVerificationError),
        ):
            ssl.create_default_context().wrap_socket(raw, server_hostname="localhost")
        thread.join()
    span = plain.only("TLS client handshake ")
    assert_plain(span)
    assert attributes(span) == {
        "server.address": "localhost",
        "error.type": "SSLCertVerificationError",
    }


def test_accept(telemetry: Telemetry) -> None:
    plain = telemetry(accept_spans=True)
    with tracesock.create_server((HOST, 0)) as server, stock.socket() as client:
        client.connect(server.getsockname())
        with plain.span() as parent:
            accepted, address = server.accept()
        accepted.close()
        span = plain.only()
    assert_plain(span)
    assert span.name == "socket accept"
    assert parent_id(span) == parent.get_span_context().span_id
    assert attributes(span) == {
        "client.address": HOST,
        "client.port": address[1],
        "network.transport": "tcp",
        "network.type": "ipv4",
    }


def test_accept_is_opt_in(telemetry: Telemetry) -> None:
    plain = telemetry()
    with tracesock.create_server((HOST, 0)) as server, stock.socket() as client:
        client.connect(server.getsockname())
        server.accept()[0].close()
    assert plain.spans() == []


# --- the table of metrics -------------------------------------------------------------------------

LOOK_UP = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
CALL = tuple(sorted({0.0001, 0.00025, 0.0005, 0.001, 0.0025, *LOOK_UP, 3, 7, 15, 31}))
LIFE = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)
METRICS = {
    "dns.lookup.duration": ("Histogram", "s", LOOK_UP),
    "tracesock.connect.duration": ("Histogram", "s", CALL),
    "tracesock.connection.duration": ("Histogram", "s", LIFE),
    "tracesock.connection.count": ("Sum", "{connection}", None),
    "tracesock.io": ("Sum", "By", None),
    "tracesock.send.duration": ("Histogram", "s", CALL),
    "tracesock.send.stall.duration": ("Histogram", "s", CALL),
    "tracesock.first_byte.duration": ("Histogram", "s", LOOK_UP),
    "tracesock.tcp.rtt": ("Histogram", "s", CALL),
    "tracesock.tcp.retransmits": ("Sum", "{segment}", None),
    "tracesock.listen.queue.length": ("Gauge", "{connection}", None),
    "tracesock.listen.queue.limit": ("Gauge", "{connection}", None),
}


def test_the_metrics_of_a_conversation(telemetry: Telemetry) -> None:
    plain = telemetry()
    with tracesock.create_server((HOST, 0), backlog=7) as server:
        port = port_of(server)
        client = tracesock.create_connection(("localhost", port))
        waiting = socket()
        waiting.connect((HOST, port))
        accepted, _ = server.accept()
        accepted.sendall(b"hello")
        assert client.recv(5) == b"hello"
        size = 8 << 20
        sending = threading.get_native_id()

        def read() -> None:
            when_stalled(client, sending, 0.1)
            got = 0
            while got < size:
                got += len(accepted.recv(1 << 18))

        reader = threading.Thread(target=read)
        reader.start()
        client.sendall(bytes(size))
        reader.join()
        data = plain.reader.get_metrics_data()
        client.close()
        accepted.close()
        closed = plain.reader.get_metrics_data()
        waiting.close()
    assert data is not None and closed is not None
    found = {
        metric.name: metric for metric in data.resource_metrics[0].scope_metrics[0].metrics
    } | {
        metric.name: metric
        for metric in closed.resource_metrics[0].scope_metrics[0].metrics
        if metric.name in ("tracesock.connection.duration",) or ".tcp." in metric.name
    }
    for name, (kind, unit, bounds) in METRICS.items():
        metric = found[name]
        assert type(metric.data).__name__ == kind, name
        assert metric.unit == unit, name
        assert len(metric.description) > 10, name
        if bounds is not None:
            assert {point.explicit_bounds for point in metric.data.data_points} == {bounds}, name
        if kind == "Sum":
            monotonic = name != "tracesock.connection.count"
            assert metric.data.is_monotonic is monotonic, name

    def told(name: str) -> dict[frozenset[Any], Any]:
        return {
            frozenset(point.attributes.items()): getattr(point, "count", None)
            if hasattr(point, "count")
            else point.value
            for point in found[name].data.data_points
        }

    tcp = {"network.transport": "tcp"}
    v4 = {**tcp, "network.type": "ipv4"}
    localhost = {"server.address": "localhost"}
    assert told("dns.lookup.duration") == {frozenset({("dns.question.name", "localhost")}): 1}
    connects = told("tracesock.connect.duration")
    # The other one, too: its address is that of a name that was looked up.
    assert connects[frozenset({**v4, **localhost}.items())] == 2
    assert (
        told("tracesock.connection.count")[frozenset({("network.connection.state", "established")})]
        == 3
    )
    assert (
        told("tracesock.connection.count")[frozenset({("network.connection.state", "listen")})] == 1
    )
    io_ = told("tracesock.io")
    assert io_[frozenset({**tcp, **localhost, "network.io.direction": "transmit"}.items())] == size
    assert io_[frozenset({**tcp, **localhost, "network.io.direction": "receive"}.items())] == 5
    assert io_[frozenset({**tcp, "network.io.direction": "transmit"}.items())] == 5
    assert io_[frozenset({**tcp, "network.io.direction": "receive"}.items())] == size
    assert told("tracesock.send.duration")[frozenset({**tcp, **localhost}.items())] == 1
    assert told("tracesock.first_byte.duration") == {frozenset({**v4, **localhost}.items()): 1}
    here = frozenset({("network.local.address", HOST), ("network.local.port", port)})
    assert told("tracesock.listen.queue.length") == {here: 1}
    assert told("tracesock.listen.queue.limit") == {here: 7}
    assert told("tracesock.connection.duration") == {frozenset(tcp.items()): 2}
    assert told("tracesock.tcp.rtt") == {frozenset(tcp.items()): 2}
    assert set(told("tracesock.tcp.retransmits")) == {frozenset(tcp.items())}
    for name in METRICS:
        for point in found[name].data.data_points:
            for key, value in point.attributes.items():
                assert key in ("network.local.port",) or not key.endswith(".port"), name
                assert "/" not in str(value), name


def test_the_sums_and_buckets_are_those_of_the_spans(telemetry: Telemetry) -> None:
    """A connect's and a look-up's duration is in the histogram as it is in the span."""
    plain = telemetry()
    with serving() as server:
        for _ in range(20):
            with tracesock.create_connection(("localhost", port_of(server))):
                pass
    for name, prefix in (
        ("tracesock.connect.duration", "socket connect "),
        ("dns.lookup.duration", "DNS lookup "),
    ):
        durations = [(span.end_time - span.start_time) / 1e9 for span in plain.spans(prefix)]
        found = plain.points(name).values()
        assert sum(point.count for point in found) == len(durations)
        assert sum(point.sum for point in found) == pytest.approx(sum(durations), abs=1e-6)
        assert max(point.max for point in found) == pytest.approx(max(durations), abs=1e-7)
        assert min(point.min for point in found) == pytest.approx(min(durations), abs=1e-7)


def test_readers_with_both_temporalities(telemetry: Telemetry) -> None:
    cumulative = InMemoryMetricReader()
    delta = InMemoryMetricReader(
        {Counter: AggregationTemporality.DELTA, Histogram: AggregationTemporality.DELTA}
    )
    telemetry(readers=[cumulative, delta])
    left, right = tracesock.socketpair()
    with left, right, nobody() as address:
        for round_ in (1, 2, 3):
            for _ in range(round_):
                left.send(b"x")
                with socket() as client:
                    client.connect_ex(address)
            for reader, count in ((delta, round_), (cumulative, sum(range(round_ + 1)))):
                found = every_point(reader)
                for name in ("tracesock.send.duration", "tracesock.connect.duration"):
                    (point,) = found[name].values()
                    assert point.count == count


# --- rule 1: connects that are pending ------------------------------------------------------------


def pending(client: Any, address: Any) -> None:
    """A non-blocking connect that has begun."""
    client.setblocking(False)
    with pytest.raises(BlockingIOError):
        client.connect(address)


def wait_writable(client: Any) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(client.fileno(), selectors.EVENT_WRITE)
        assert selector.select(30)


@pytest.mark.parametrize("way", ["SO_ERROR", "connect", "connect_ex", "send", "recv", "close"])
def test_a_pending_connect_that_succeeds(telemetry: Telemetry, way: str) -> None:
    plain = telemetry()
    with serving() as server, socket() as client:
        address = server.getsockname()
        with plain.span() as parent:
            pending(client, address)
        assert plain.spans() == [], "it has not ended"
        wait_writable(client)
        accepted, _ = server.accept()
        with accepted:
            accepted.sendall(b"x")
            match way:
                case "SO_ERROR":
                    assert client.getsockopt(tracesock.SOL_SOCKET, tracesock.SO_ERROR) == 0
                case "connect":
                    with contextlib.suppress(OSError):
                        client.connect(address)
                case "connect_ex":
                    assert client.connect_ex(address) in (0, errno.EISCONN)
                case "send":
                    client.send(b"x")
                case "recv":
                    with selectors.DefaultSelector() as selector:
                        selector.register(client.fileno(), selectors.EVENT_READ)
                        assert selector.select(30)
                    client.recv(1)
                case "close":
                    client.close()
            span = plain.only("socket connect ")
            assert_plain(span)
            assert parent_id(span) == parent.get_span_context().span_id
            assert "error.type" not in attributes(span)
            assert ("tracesock.connect.abandoned" in attributes(span)) == (way == "close")
            if way != "close":
                client.getsockopt(tracesock.SOL_SOCKET, tracesock.SO_ERROR)
                client.send(b"more")
                client.close()
        assert len(plain.spans("socket connect ")) == 1, "one span, whatever follows"


@pytest.mark.parametrize("way", ["SO_ERROR", "connect", "connect_ex", "send", "recv", "bytes"])
def test_a_pending_connect_that_fails(telemetry: Telemetry, way: str) -> None:
    plain = telemetry()
    with nobody() as address, socket() as client:
        pending(client, address)
        wait_writable(client)
        match way:
            case "SO_ERROR":
                assert (
                    client.getsockopt(tracesock.SOL_SOCKET, tracesock.SO_ERROR)
                    == errno.ECONNREFUSED
                ), "the caller still reads it"
                assert client.getsockopt(tracesock.SOL_SOCKET, tracesock.SO_ERROR) == 0
            case "bytes":
                read = client.getsockopt(tracesock.SOL_SOCKET, tracesock.SO_ERROR, 4)
                assert int.from_bytes(read, "little") == errno.ECONNREFUSED
            case "connect":
                with pytest.raises(ConnectionRefusedError):
                    client.connect(address)
            case "connect_ex":
                assert client.connect_ex(address) == errno.ECONNREFUSED
            case "send":
                with pytest.raises(ConnectionRefusedError):
                    client.send(b"x")
            case "recv":
                with pytest.raises(ConnectionRefusedError):
                    client.recv(1)
        client.close()
    span = plain.only("socket connect ")
    assert_plain(span)
    assert attributes(span)["error.type"] == "connection_refused"


def test_a_pending_connect_that_is_abandoned(telemetry: Telemetry) -> None:
    plain = telemetry()
    with full_backlog() as server:
        client = socket()
        pending(client, server.getsockname())
        client.close()
    span = plain.only()
    assert_plain(span)
    assert attributes(span)["tracesock.connect.abandoned"] is True
    assert "error.type" not in attributes(span)
    assert plain.points("tracesock.connect.duration") == {}


def test_asking_too_early_is_no_answer(telemetry: Telemetry) -> None:
    plain = telemetry()
    with full_backlog() as server, socket() as client:
        pending(client, server.getsockname())
        assert client.getsockopt(tracesock.SOL_SOCKET, tracesock.SO_ERROR) == 0
        assert client.connect_ex(server.getsockname()) == errno.EALREADY
        with pytest.raises(BlockingIOError):
            client.send(b"x")
        assert plain.spans() == []


# --- rule 2 ---------------------------------------------------------------------------------------


def test_eagain_is_no_error(telemetry: Telemetry) -> None:
    plain = telemetry()
    left, right = tracesock.socketpair()
    with left, right:
        left.setblocking(False)
        sent = 0
        with plain.span():
            with contextlib.suppress(BlockingIOError):
                while True:
                    sent += left.send(bytes(1 << 16))
            with pytest.raises(BlockingIOError):
                right.recv_into(bytearray(1)) if sent == 0 else left.send(b"x")
    spans = plain.spans()
    assert all("error.type" not in attributes(span) for span in spans)
    assert sum(attributes(span)["tracesock.send.size"] for span in spans) == sent
    assert plain.total("tracesock.io", network_io_direction="transmit") == sent
    assert plain.total("tracesock.send.duration") == len(spans), "a refused try is no send"


def test_eintr_is_no_error(telemetry: Telemetry) -> None:
    import signal

    plain = telemetry()
    left, right = tracesock.socketpair()
    size = 4 << 20
    handled: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, _: handled.append(number))
    try:
        with left, right:

            def read() -> None:
                wait_for(lambda: handled)
                got = 0
                while got < size:
                    got += len(right.recv(1 << 16))

            reader = threading.Thread(target=read)
            reader.start()
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with plain.span():
                left.sendall(bytes(size))
            reader.join()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert handled
    assert "error.type" not in attributes(plain.only())


def test_a_udp_connect_has_no_latency(telemetry: Telemetry) -> None:
    plain = telemetry()
    with stock.socket(type=stock.SOCK_DGRAM) as receiver:
        receiver.bind((HOST, 0))
        with socket(type=tracesock.SOCK_DGRAM) as sender:
            sender.connect(receiver.getsockname())
            sender.send(b"x")
    span = plain.only("socket connect ")
    assert attributes(span)["network.transport"] == "udp"
    assert plain.points("tracesock.connect.duration") == {}
    assert plain.points("tracesock.first_byte.duration") == {}


# --- rules 3 and 4: asyncio -----------------------------------------------------------------------


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(await reader.read(100))
    writer.close()


def test_asyncio_open_connection(telemetry: Telemetry, installed: None) -> None:
    plain = telemetry()

    async def main() -> int:
        server = await asyncio.start_server(echo, HOST, 0)
        port: int = server.sockets[0].getsockname()[1]
        async with server:
            with plain.span():
                reader, writer = await asyncio.open_connection("localhost", port)
                writer.write(b"hello")
                assert await reader.read() == b"hello"
                writer.close()
                await writer.wait_closed()
        return port

    port = asyncio.run(main())
    setup = f"socket connection_setup localhost:{port}"
    names = tree(plain)
    assert names.pop(setup) == "request"
    assert names.pop("DNS lookup localhost") == setup, "the executor has the caller's context"
    send = f"socket send {HOST}:{port}"
    assert names.pop(send) == "request"
    assert set(names.values()) == {setup}
    assert all(name.startswith("socket connect ") for name in names)
    won = attributes(plain.only(setup))
    assert (won["network.peer.address"], won["network.peer.port"]) == (HOST, port)
    assert attributes(plain.only(f"socket connect {HOST}:{port}"))["server.address"] == "localhost"
    assert_nested(plain)


def test_a_set_up_that_ends_in_another_context(telemetry: Telemetry, installed: None) -> None:
    """As that of a coroutine which was never finished and is closed by somebody else."""
    plain = telemetry()

    async def main(port: int) -> None:
        loop = asyncio.get_running_loop()
        setup = loop.create_connection(asyncio.Protocol, "localhost", port)
        looked_up = contextvars.copy_context().run(setup.send, None)
        setup.close()
        await asyncio.wait([looked_up])

    asyncio.run(main(1))
    setup = attributes(plain.only("socket connection_setup localhost:1"))
    assert setup["error.type"] == "GeneratorExit"


def test_asyncio_sock_connect(telemetry: Telemetry, installed: None) -> None:
    plain = telemetry()

    async def main(address: Any) -> Exception | None:
        client = stock.socket()
        client.setblocking(False)
        with client, plain.span():
            try:
                await asyncio.get_running_loop().sock_connect(client, address)
            except OSError as error:
                return error
        return None

    with serving() as server:
        assert asyncio.run(main(server.getsockname())) is None
    with nobody() as address:
        assert isinstance(asyncio.run(main(address)), ConnectionRefusedError)
    first, second = plain.spans("socket connect ")
    assert "error.type" not in attributes(first)
    assert attributes(second)["error.type"] == "connection_refused"
    assert len(plain.spans()) == 2
    assert all(span.parent is not None for span in (first, second))


def test_asyncio_lookups_have_the_callers_context(telemetry: Telemetry, installed: None) -> None:
    plain = telemetry()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with plain.span("one"):
            await loop.getaddrinfo("localhost", 80)
        with plain.span("two"):
            await loop.getnameinfo((HOST, 80), 0)
        await asyncio.gather(
            *(ask(f"task {number}") for number in range(8)),
        )

    async def ask(name: str) -> None:
        with plain.span(name):
            await asyncio.get_running_loop().getaddrinfo("localhost", 80)

    asyncio.run(main())
    plain.spans()
    finished = plain.exporter.get_finished_spans()
    names = {own_id(span): span.name for span in finished}
    parents = sorted(
        names[parent_id(span)]  # type: ignore[index]
        for span in finished
        if span.name.startswith("DNS ")
    )
    assert parents == ["one", *(f"task {number}" for number in range(8)), "two"]


class _Answers:
    """Look-ups of `host` answered with these addresses: a race needs more than one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, int]) -> None:
        monkeypatch.setattr(
            asyncio.BaseEventLoop,
            "getaddrinfo",
            lambda loop, host, port, **_: self.answer(addresses),
        )

    @staticmethod
    async def answer(addresses: Any) -> Any:
        return [(stock.AF_INET, stock.SOCK_STREAM, 6, "", address) for address in addresses]


def test_happy_eyeballs(
    telemetry: Telemetry, installed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first address does not answer: the second wins, and the loser is no error."""
    plain = telemetry()
    with full_backlog() as silent, serving() as server:
        lost, won = silent.getsockname(), server.getsockname()
        _Answers(monkeypatch, lost, won)

        async def main() -> None:
            with plain.span():
                _, writer = await asyncio.open_connection(
                    "service.example", won[1], happy_eyeballs_delay=0.05
                )
                writer.close()

        asyncio.run(main())
    setup = plain.only("socket connection_setup ")
    assert setup.name == f"socket connection_setup service.example:{won[1]}"
    assert attributes(setup)["network.peer.port"] == won[1]
    assert "error.type" not in attributes(setup)
    attempts = plain.spans("socket connect ")
    assert {attributes(each)["network.peer.port"] for each in attempts} == {lost[1], won[1]}
    assert len(attempts) == 2
    for each in attempts:
        assert parent_id(each) == own_id(setup), "siblings under one span"
        assert "error.type" not in attributes(each)
        assert ("tracesock.connect.abandoned" in attributes(each)) == (
            attributes(each)["network.peer.port"] == lost[1]
        )
    assert_nested(plain)


def test_happy_eyeballs_after_a_refusal(
    telemetry: Telemetry, installed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = telemetry()
    with nobody() as refused, serving() as server:
        won = server.getsockname()
        _Answers(monkeypatch, refused, won)

        async def main() -> None:
            _, writer = await asyncio.open_connection("service.example", won[1])
            writer.close()

        asyncio.run(main())
    first, second = plain.spans("socket connect ")
    assert attributes(first)["error.type"] == "connection_refused"
    assert "error.type" not in attributes(second)
    assert "error.type" not in attributes(plain.only("socket connection_setup "))


def test_a_cancelled_set_up_is_no_error(
    telemetry: Telemetry, installed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = telemetry()
    with full_backlog() as silent:
        _Answers(monkeypatch, silent.getsockname())

        async def main() -> None:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.open_connection("service.example", 1), 0.1)

        asyncio.run(main())
    setup = plain.only("socket connection_setup ")
    assert_plain(setup)
    assert "error.type" not in attributes(setup)
    assert attributes(plain.only("socket connect "))["tracesock.connect.abandoned"] is True
    assert_nested(plain)


# --- rule 4: parents ------------------------------------------------------------------------------


def test_the_parent_is_the_context_at_the_call(telemetry: Telemetry) -> None:
    plain = telemetry()
    left, right = tracesock.socketpair()
    with left, right:
        expected = []
        for name in ("a", "b"):
            with plain.span(name) as outer:
                left.send(b"1")
                expected.append(outer.get_span_context().span_id)
                with plain.span("inner") as inner:
                    left.send(b"22")
                    expected.append(inner.get_span_context().span_id)
                left.send(b"333")
                expected.append(outer.get_span_context().span_id)
        thread_parent: list[int] = []

        def in_thread() -> None:
            with plain.span("thread") as span:
                left.send(b"4444")
                thread_parent.append(span.get_span_context().span_id)

        thread = threading.Thread(target=in_thread)
        thread.start()
        thread.join()
    assert [parent_id(span) for span in plain.spans()] == expected + thread_parent


def test_contexts_are_told_apart(telemetry: Telemetry) -> None:
    """A cache by identity must own what it keys by: a context that is freed is not the next one."""
    plain = telemetry()
    left, right = tracesock.socketpair()
    expected = []
    with left, right:
        for number in range(2000):
            with plain.span(str(number)) as span:
                left.send(b"x")
                expected.append(span.get_span_context().span_id)
            right.recv(1)
    assert [parent_id(span) for span in plain.spans()] == expected


# --- rule 5: suppression --------------------------------------------------------------------------


@pytest.mark.parametrize("key", [_SUPPRESS_INSTRUMENTATION_KEY, "suppress_instrumentation"])
def test_suppression(telemetry: Telemetry, key: Any, tmp_path: Path) -> None:
    plain = telemetry(accept_spans=True)
    with serving() as server, plain.span():
        with suppressing(key):
            tracesock.getaddrinfo("localhost", 80)
            client = tracesock.create_connection(("localhost", port_of(server)))
            client.send(b"x")
            left, right = tracesock.socketpair()
            left.send(b"x")
            pending_one = socket()
            pending_one.setblocking(False)
            pending_one.connect_ex(server.getsockname())
            with tracesock.create_server((HOST, 0)) as own, stock.socket() as stranger:
                stranger.connect(own.getsockname())
                accepted = own.accept()[0]
        # The stamp outlives the context.
        client.sendall(b"more")
        right.recv(1)
        left.send(b"y")
        wait_writable(pending_one)
        pending_one.getsockopt(tracesock.SOL_SOCKET, tracesock.SO_ERROR)
        stranger_side = accepted
        with contextlib.suppress(OSError):
            stranger_side.send(b"z")
        numbers = {client.fileno(), left.fileno(), right.fileno()}
        assert not numbers & {each.descriptor for each in tracesock.connections()}
        for sock in (client, left, pending_one, accepted):
            sock.close()
        right.close()
    assert plain.spans() == []
    for name in METRICS:
        assert plain.total(name) == 0, name


def test_a_duplicate_of_a_suppressed_socket_is_not_its_socket(telemetry: Telemetry) -> None:
    plain = telemetry()
    with suppressing(_SUPPRESS_INSTRUMENTATION_KEY):
        left, right = tracesock.socketpair()
    with left, right, plain.span():
        left.send(b"x")
    assert plain.spans() == []


# --- rule 6: parents that are required, and samplers ----------------------------------------------


def test_a_send_needs_a_recording_parent(telemetry: Telemetry) -> None:
    plain = telemetry()
    left, right = tracesock.socketpair()
    with left, right:
        for _ in range(10):
            left.send(b"x")
    assert plain.spans() == []
    assert plain.total("tracesock.send.duration") == 10


def test_a_send_without_a_parent_where_that_is_asked_for(telemetry: Telemetry) -> None:
    plain = telemetry(require_parent=False)
    left, right = tracesock.socketpair()
    with left, right:
        left.send(b"x")
    assert plain.only().parent is None


def busy(server: Any) -> None:
    with tracesock.create_connection(("localhost", port_of(server))) as client:
        client.sendall(b"hello")
        accepted, _ = server.accept()
        accepted.close()


@pytest.mark.parametrize("sampler", [ALWAYS_OFF, ParentBased(ALWAYS_OFF), TraceIdRatioBased(0)])
def test_nothing_for_an_unsampled_parent(telemetry: Telemetry, sampler: Sampler) -> None:
    plain = telemetry(sampler=sampler)
    with serving() as server, plain.span() as span:
        assert not span.get_span_context().trace_flags.sampled
        busy(server)
    assert plain.spans() == []
    # Metrics do not depend on sampling.
    assert plain.total("tracesock.send.duration") == 1
    assert plain.total("dns.lookup.duration") == 1
    assert plain.total("tracesock.connect.duration", network_type="ipv4") == 1
    assert plain.total("tracesock.io", network_io_direction="transmit") == 5


def test_nothing_for_a_remote_unsampled_parent_whatever_the_sampler(telemetry: Telemetry) -> None:
    plain = telemetry(sampler=ALWAYS_ON)
    remote = trace.NonRecordingSpan(trace.SpanContext(1, 2, True, trace.TraceFlags(0)))
    with serving() as server, trace.use_span(remote):
        busy(server)
    assert plain.spans() == []


def test_a_remote_parent_is_told_as_one(telemetry: Telemetry) -> None:
    remote = trace.NonRecordingSpan(trace.SpanContext(1, 2, True, trace.TraceFlags(1)))
    plain = telemetry(sampler=ParentBased(ALWAYS_OFF))
    with serving() as server, trace.use_span(remote), connection(server) as (client, _):
        client.send(b"x")
        for span in plain.spans():
            assert span.parent is not None
            assert (span.parent.span_id, span.parent.is_remote) == (2, True)
        assert len(plain.spans()) == 2
    plain = telemetry(sampler=ParentBased(ALWAYS_ON, remote_parent_sampled=ALWAYS_OFF))
    with serving() as server, trace.use_span(remote):
        busy(server)
    assert plain.spans() == []


def test_rootless_spans_follow_the_sampler(telemetry: Telemetry) -> None:
    plain = telemetry(sampler=ParentBased(ALWAYS_OFF))
    with serving() as server:
        busy(server)
    assert plain.spans() == []
    assert plain.total("tracesock.connect.duration", network_type="ipv4") == 1


class Asked(Sampler):
    """Remembers what it was asked, and decides by the name."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    def should_sample(
        self,
        parent_context: Any,
        trace_id: int,
        name: str,
        kind: Any = None,
        attributes: Any = None,
        links: Any = None,
        trace_state: Any = None,
    ) -> SamplingResult:
        parent = trace.get_current_span(parent_context).get_span_context()
        self.asked.append((name, kind, parent.span_id, dict(attributes or {})))
        decision = Decision.RECORD_AND_SAMPLE
        if name.startswith("DNS"):
            decision = Decision.DROP
        if name.startswith("socket send"):
            decision = Decision.RECORD_ONLY
        return SamplingResult(
            decision, {"sampler": "asked"}, trace.TraceState([("vendor", "state")])
        )

    def get_description(self) -> str:
        return "Asked"


class Ends(SpanProcessor):
    def __init__(self) -> None:
        self.ended: list[Any] = []

    def on_end(self, span: Any) -> None:
        self.ended.append(span)


def test_a_sampler_of_the_users(telemetry: Telemetry) -> None:
    sampler = Asked()
    plain = telemetry(sampler=sampler)
    ends = Ends()
    plain.provider.add_span_processor(ends)
    with serving() as server, plain.span() as parent:
        busy(server)
        sampled = plain.spans()
    port = port_of(server) if server.fileno() >= 0 else attributes(sampled[0])["server.port"]
    names = [span.name for span in sampled]
    assert f"socket connection_setup localhost:{port}" in names
    assert f"socket connect {HOST}:{port}" in names
    assert all(not name.startswith(("DNS", "socket send")) for name in names)
    for span in sampled:
        assert attributes(span)["sampler"] == "asked"
        assert span.get_span_context().trace_state.get("vendor") == "state"
    asked = {name: (kind, span_id, given) for name, kind, span_id, given in sampler.asked}
    kind, span_id, given = asked[f"socket send {HOST}:{port}"]
    assert kind is SpanKind.INTERNAL
    assert span_id == parent.get_span_context().span_id
    assert given["tracesock.send.size"] == 5
    # A processor sees what is recorded but not sampled; an exporter does not.
    (recorded,) = [span for span in ends.ended if span.name.startswith("socket send ")]
    assert not recorded.get_span_context().trace_flags.sampled


@contextlib.contextmanager
def trace_with(header: str) -> Iterator[None]:
    """Within a recording span whose trace has this state, as one that came in with a request."""
    state = trace.TraceState.from_header([header])
    context = trace.SpanContext(0xABC, 0xDEF, False, trace.TraceFlags(1), state)
    with trace.use_span(trace.NonRecordingSpan(context)):
        yield


def state_of(span: Any) -> str:
    return span.get_span_context().trace_state.to_header()


def test_a_span_has_the_state_of_its_trace(telemetry: Telemetry) -> None:
    plain = telemetry()
    with serving() as server, trace_with("vendor=a,other=b"):
        busy(server)
    spans = plain.spans()
    names = {span.name.split(" ")[1] for span in spans}
    assert {"connection_setup", "connect", "send"} <= names
    assert {state_of(span) for span in spans} == {"vendor=a,other=b"}


def test_each_span_has_the_state_of_its_own_trace(telemetry: Telemetry) -> None:
    plain = telemetry(max_sends_per_trace=1)
    left, right = tracesock.socketpair()
    with left, right:
        for number in range(300):
            header = f"request={number}" if number % 3 else ""
            trace_id = 1000 + number
            state = trace.TraceState.from_header([header]) if header else None
            context = trace.SpanContext(trace_id, 7, False, trace.TraceFlags(1), state)
            with trace.use_span(trace.NonRecordingSpan(context)):
                for _ in range(3):  # one is a span, two are folded
                    left.send(b"x")
            right.recv(10)
            if number % 50 == 0:
                tracesock.instrumentation.flush()
        spans = plain.spans("socket send")
    assert sum(attributes(span)["tracesock.send.calls"] for span in spans) == 900
    for span in spans:
        number = span.get_span_context().trace_id - 1000
        assert state_of(span) == (f"request={number}" if number % 3 else "")


def test_native_otlp_has_the_state_of_the_trace(telemetry: Telemetry, tmp_path: Path) -> None:
    path = tmp_path / "spans.jsonl"
    telemetry(otlp=f"file:{path}", max_sends_per_trace=2)
    left, right = tracesock.socketpair()
    with left, right:
        for number in range(1, 100):
            state = trace.TraceState.from_header([f"request={number}"]) if number % 4 else None
            context = trace.SpanContext(number, 7, False, trace.TraceFlags(1), state)
            with trace.use_span(trace.NonRecordingSpan(context)):
                for _ in range(5):  # two are spans, three are folded
                    left.send(b"x")
            right.recv(10)
            if number % 20 == 0:
                tracesock.instrumentation.flush()
    tracesock.uninstrument()
    spans = in_file(path)
    assert len(spans) == 99 * 3
    for span in spans:
        number = int(span["traceId"], 16)
        assert span.get("traceState", "") == (f"request={number}" if number % 4 else "")


def test_a_pending_connect_has_the_state_of_its_start(telemetry: Telemetry) -> None:
    plain = telemetry()
    left, right = tracesock.socketpair()
    with serving() as server, left, right, socket() as client:
        client.setblocking(False)
        with trace_with("first=1"):
            client.connect_ex(server.getsockname())
        for number in range(50):  # what the thread knew of the first is gone meanwhile
            with trace_with(f"later={number}"):
                left.send(b"x")
            tracesock.instrumentation.flush()
        wait_for(lambda: client.connect_ex(server.getsockname()) in (0, errno.EISCONN))
        (connect,) = plain.spans("socket connect")
    assert state_of(connect) == "first=1"


class Own(ParentBased):
    """A parent-based sampler that has a mind of its own."""

    def __init__(self) -> None:
        super().__init__(ALWAYS_ON)

    def should_sample(self, *arguments: Any, **keywords: Any) -> SamplingResult:
        result = super().should_sample(*arguments, **keywords)
        name = keywords.get("name", arguments[2] if len(arguments) > 2 else "")
        if name.startswith("socket connect "):
            return SamplingResult(Decision.DROP)
        return result


def test_a_sampler_that_is_nearly_the_sdks(telemetry: Telemetry) -> None:
    plain = telemetry(sampler=Own())
    with serving() as server, plain.span():
        busy(server)
    assert plain.spans("socket connect ") == []
    assert len(plain.spans("socket send ")) == 1


# --- the user's provider --------------------------------------------------------------------------


class Starts(SpanProcessor):
    """Adds to each span when it starts, as a processor of baggage does."""

    def __init__(self) -> None:
        self.parents: list[Any] = []

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        span.set_attribute("started", span.name)
        self.parents.append(trace.get_current_span(parent_context).get_span_context().span_id)


def test_a_processor_that_sees_spans_start(telemetry: Telemetry) -> None:
    plain = telemetry()
    starts = Starts()
    plain.provider.add_span_processor(starts)
    with serving() as server, plain.span() as parent:
        busy(server)
        span = plain.only("socket send ")
        assert attributes(span)["started"] == span.name
        assert attributes(span)["tracesock.send.size"] == 5
        assert_plain(span)
        assert parent.get_span_context().span_id in starts.parents
    with nobody() as address, socket() as client, pytest.raises(OSError):
        client.connect(address)
    failed = plain.spans("socket connect ")[-1]
    assert failed.status.status_code is StatusCode.ERROR
    assert attributes(failed)["error.type"] == "connection_refused"


def test_span_limits(telemetry: Telemetry) -> None:
    plain = telemetry(span_limits=SpanLimits(max_span_attributes=3, max_attribute_length=4))
    with serving() as server, plain.span():
        busy(server)
        span = plain.only(f"socket connect {HOST}")
    assert len(attributes(span)) == 3
    assert span.dropped_attributes > 0
    assert all(len(value) <= 4 for value in attributes(span).values() if isinstance(value, str))


def test_resource_and_identifiers(telemetry: Telemetry) -> None:
    plain = telemetry(resource=Resource({"service.name": "s"}), id_generator=CountingIdGenerator())
    with serving() as server:
        busy(server)
    spans = plain.spans()
    assert {span.resource.attributes["service.name"] for span in spans} == {"s"}
    assert {span.get_span_context().trace_id for span in spans} == {1}
    assert sorted(own_id(span) for span in spans) == list(range(1, len(spans) + 1))


def test_a_batch_processor(telemetry: Telemetry) -> None:
    plain = telemetry()
    exporter = InMemorySpanExporter()
    plain.provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=600_000))
    with serving() as server, plain.span():
        busy(server)
    assert plain.provider.force_flush()
    told = [span.name for span in exporter.get_finished_spans()]
    assert sorted(told) == sorted(span.name for span in plain.exporter.get_finished_spans())
    assert any(name.startswith("socket send ") for name in told)


def test_shutdown_of_the_provider_drains_first(telemetry: Telemetry) -> None:
    plain = telemetry(drain_interval=600.0)
    left, right = tracesock.socketpair()
    with left, right, plain.span():
        left.send(b"x")
    plain.provider.shutdown()
    assert any(span.name.startswith("socket send ") for span in plain.exporter.get_finished_spans())


def test_it_is_delivered_without_a_flush(telemetry: Telemetry) -> None:
    plain = telemetry(drain_interval=0.05)
    left, right = tracesock.socketpair()
    with left, right, plain.span():
        left.send(b"x")
    wait_for(
        lambda: any(
            span.name.startswith("socket send ") for span in plain.exporter.get_finished_spans()
        )
    )


def test_a_provider_that_is_set_later(tmp_path: Path) -> None:
    import sys

    program = """
import tracesock
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

tracesock.instrument()
exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
with tracesock.create_server(("127.0.0.1", 0)) as server:
    with provider.get_tracer("t").start_as_current_span("request"):
        with tracesock.create_connection(server.getsockname()) as client:
            client.send(b"x")
provider.force_flush()
print(sorted(span.name.rpartition(" ")[0] for span in exporter.get_finished_spans()))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=200, check=False
    )
    expected = "['', 'socket connect', 'socket connection_setup', 'socket send']"
    assert done.stdout.strip() == expected, done.stderr


# --- rule 7: which sends --------------------------------------------------------------------------


def test_ten_thousand_sends_in_one_trace(telemetry: Telemetry) -> None:
    plain = telemetry()
    left, right = tracesock.socketpair()
    total = 0
    with left, right, plain.span():
        for number in range(10_000):
            total += left.send(bytes(number % 7 + 1))
            right.recv(10)
    spans = plain.spans("socket send ")
    assert len(spans) <= 128 + 40, "the rest is folded"
    told = [attributes(span) for span in spans]
    assert sum(each["tracesock.send.calls"] for each in told) == 10_000
    assert sum(each["tracesock.send.size"] for each in told) == total
    folded = [span for span in spans if attributes(span)["tracesock.send.calls"] > 1]
    for span in folded:
        longest = attributes(span)["tracesock.send.longest.duration"]
        assert 0 < longest <= (span.end_time - span.start_time) / 1e9
        assert_plain(span)
    assert folded
    assert plain.total("tracesock.send.duration") == 10_000
    assert plain.total("tracesock.io", network_io_direction="transmit") == total
    assert_nested(plain)


def test_the_cap_is_for_a_connection_and_a_trace(telemetry: Telemetry) -> None:
    plain = telemetry(max_sends_per_trace=3)
    pairs = [tracesock.socketpair() for _ in range(2)]
    for name in ("a", "b"):
        with plain.span(name):
            for left, right in pairs:
                for _ in range(5):
                    left.send(b"x")
                    right.recv(1)
    for pair in pairs:
        for sock in pair:
            sock.close()
    calls = [attributes(span)["tracesock.send.calls"] for span in plain.spans()]
    assert sorted(calls) == [1] * 12 + [2] * 4


def test_traces_that_take_turns_on_one_connection(telemetry: Telemetry) -> None:
    plain = telemetry(max_sends_per_trace=3)
    left, right = tracesock.socketpair()
    with left, right:
        parents = [plain.tracer.start_span(name) for name in ("a", "b")]
        for _ in range(10):
            for parent in parents:
                with trace.use_span(parent):
                    left.send(b"x")
        for parent in parents:
            parent.end()
    for parent in parents:
        calls = [
            attributes(span)["tracesock.send.calls"]
            for span in plain.spans()
            if parent_id(span) == parent.get_span_context().span_id
        ]
        assert sorted(calls) == [1, 1, 1, 7]


def test_no_cap(telemetry: Telemetry) -> None:
    plain = telemetry(max_sends_per_trace=0)
    left, right = tracesock.socketpair()
    with left, right, plain.span():
        for _ in range(500):
            left.send(b"x")
            right.recv(1)
    assert len(plain.spans()) == 500


def test_a_long_fold_is_told_while_the_connection_lives(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tracesock.instrumentation import spans

    monkeypatch.setattr(spans, "_FOLD_IDLE", 50_000_000)
    plain = telemetry(max_sends_per_trace=1, drain_interval=0.02)
    left, right = tracesock.socketpair()
    with left, right:
        with plain.span():
            for _ in range(10):
                left.send(b"x")

        def told() -> int:
            return sum(
                attributes(span)["tracesock.send.calls"]
                for span in plain.exporter.get_finished_spans()
                if span.name.startswith("socket send ")
            )

        wait_for(lambda: told() == 10)


@pytest.mark.parametrize("choice, expected", [("all", 3), ("slow", 2), ("errors", 1), ("off", 0)])
def test_which_sends_become_spans(telemetry: Telemetry, choice: str, expected: int) -> None:
    left, right = tracesock.socketpair()
    size = 1 << 20
    sending = threading.get_native_id()
    left.settimeout(30)
    for _ in range(100):
        plain = telemetry(send_spans=choice, slow_send=0.05)
        with plain.span():
            began = time.monotonic()
            left.send(b"x")
            quick = time.monotonic() - began < 0.05
        right.recv(1)
        if quick:  # as it is, unless this thread had to wait for a processor
            break
    with plain.span():

        def read() -> None:
            when_stalled(left, sending, 0.2)
            got = 0
            while got < size:
                got += len(right.recv(1 << 16))

        reader = threading.Thread(target=read)
        reader.start()
        left.sendall(bytes(size))
        reader.join()
        right.close()
        with pytest.raises(BrokenPipeError):
            left.send(b"x")
    left.close()
    assert len(plain.spans("socket send ")) == expected
    assert plain.total("tracesock.send.duration") == 3


# --- rule 9: fork is in test_conservation.py; adoption, detach, finalizers ------------------------


@pytest.mark.parametrize("way", ["fileno", "fromfd", "dup", "recv_fds"])
def test_an_adopted_descriptor_has_counts_and_no_durations(telemetry: Telemetry, way: str) -> None:
    plain = telemetry()
    with serving() as server, stock.socket() as original:
        original.connect(server.getsockname())
        accepted, _ = server.accept()
        family = tracesock.AF_INET
        match way:
            case "fileno":
                adopted = socket(fileno=stock.dup(original.fileno()))
            case "fromfd":
                adopted = tracesock.fromfd(original.fileno(), family, tracesock.SOCK_STREAM)
            case "dup":
                first = socket(fileno=stock.dup(original.fileno()))
                adopted = first.dup()
                first.close()
            case _:
                left, right = tracesock.socketpair()
                with left, right, suppressing(_SUPPRESS_INSTRUMENTATION_KEY):
                    tracesock.send_fds(left, [b"x"], [original.fileno()])
                    _, (fd,), _, _ = tracesock.recv_fds(right, 1, 1)
                adopted = socket(fileno=fd)
        with accepted, adopted, plain.span():
            accepted.send(b"hello")
            adopted.send(b"abc")
            adopted.recv(5)
            (row,) = [each for each in tracesock.connections() if each.sent == 3]
            assert (row.direction, row.age, row.received) == ("adopted", None, 5)
        span = plain.only("socket send ")
    assert attributes(span)["network.peer.address"] == HOST
    assert plain.total("tracesock.io") == 8
    assert plain.points("tracesock.connection.duration") == {}
    assert plain.points("tracesock.first_byte.duration") == {}
    assert plain.points("tracesock.connect.duration") == {}


def test_detach_is_no_close(telemetry: Telemetry) -> None:
    plain = telemetry()
    with serving() as server, connection(server) as (client, accepted):
        fd = client.detach()
        assert plain.points("tracesock.connection.duration") == {}
        assert fd not in {row.descriptor for row in tracesock.connections()}
        with socket(fileno=fd) as again, plain.span():
            again.send(b"x")
        assert accepted.recv(1) == b"x"
    assert plain.total("tracesock.connection.duration") == 1, "the life goes on in the new socket"


def test_a_finalizer_starts_no_span(telemetry: Telemetry) -> None:
    import gc
    import warnings

    plain = telemetry()
    with serving() as server:
        client = socket()
        pending(client, server.getsockname())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            del client
            gc.collect()
    assert plain.spans() == []


# --- rule 10: privacy -----------------------------------------------------------------------------

SECRET = b"hunter2-the-payload"


def test_no_payload(telemetry: Telemetry) -> None:
    plain = telemetry(accept_spans=True)
    left, right = tracesock.socketpair()
    with left, right, plain.span():
        left.sendall(SECRET)
        right.recv(100)
    text = "".join(span.to_json() for span in plain.spans())
    assert SECRET.decode() not in text
    assert "socket send" in text


def test_redaction(telemetry: Telemetry, installed: None) -> None:
    hidden = (
        "server.address",
        "dns.question.name",
        "dns.answers",
        "network.peer.address",
        "network.local.address",
    )
    plain = telemetry(redact=hidden)
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/secret-name"
        with stock.socket(stock.AF_UNIX) as unix:
            unix.bind(path)
            unix.listen()
            with plain.span(), stock.socket(stock.AF_UNIX) as client:
                client.connect(path)
                client.sendall(b"x")
    with serving() as server, plain.span():
        busy(server)
        tracesock.gethostbyaddr(HOST)
    data = plain.reader.get_metrics_data()
    assert data is not None
    text = "".join(span.to_json() for span in plain.spans()) + data.to_json()
    for secret in ("secret-name", "localhost", HOST):
        assert secret not in text
    assert "REDACTED" in text
    assert any(span.name.startswith("socket connect REDACTED:") for span in plain.spans())


def test_a_hostile_host_name_is_shown_harmless(telemetry: Telemetry) -> None:
    plain = telemetry()
    hostile = "a\x1b[31m\r\nb\u202ec.invalid"
    with pytest.raises((OSError, UnicodeError)):
        tracesock.create_connection((hostile, 80))
    for span in plain.spans():
        assert span.name.isprintable(), ascii(span.name)
    assert plain.spans("socket connection_setup ")


def test_excluded_peers(telemetry: Telemetry) -> None:
    with serving() as server, serving() as other:
        plain = telemetry(excluded_peers=(f"{HOST}:{port_of(server)}", "*.internal.example"))
        with plain.span():
            with tracesock.create_connection((HOST, port_of(server))) as client:
                client.send(b"x")
            with tracesock.create_connection((HOST, port_of(other))) as client:
                client.send(b"x")
            with pytest.raises(tracesock.gaierror):
                tracesock.getaddrinfo("db.internal.example", 80)
        names = {span.name for span in plain.spans()}
        port = port_of(other)
    assert names == {
        f"socket connection_setup {HOST}:{port}",
        f"socket connect {HOST}:{port}",
        f"socket send {HOST}:{port}",
    }
    assert plain.total("tracesock.send.duration") == 2


# --- rule 11: nothing that telemetry does is the program's ----------------------------------------


class Raises(SpanProcessor):
    def on_end(self, span: Any) -> None:
        raise RuntimeError("a processor that fails")


def test_a_processor_that_raises(telemetry: Telemetry, caplog: pytest.LogCaptureFixture) -> None:
    plain = telemetry()
    processors = plain.provider._active_span_processor._span_processors
    plain.provider._active_span_processor._span_processors = (Raises(), *processors)
    left, right = tracesock.socketpair()
    with left, right:
        parent = trace.NonRecordingSpan(trace.SpanContext(1, 2, False, trace.TraceFlags(1)))
        with trace.use_span(parent):
            for _ in range(20):
                assert left.send(b"x") == 1
    assert len(plain.spans("socket send ")) == 20, "the others have them all the same"
    assert plain.total("tracesock.telemetry.dropped", reason="exporter") == 20
    assert len([line for line in caplog.records if line.levelno >= logging.WARNING]) == 1


def test_hooks(telemetry: Telemetry) -> None:
    seen: list[tuple[Any, ...]] = []

    def request(kind: str, given: dict[str, Any]) -> None:
        given["mine"] = kind

    def response(kind: str, given: dict[str, Any], error: str | None) -> None:
        seen.append((kind, error, dict(given)))

    plain = telemetry(request_hook=request, response_hook=response)
    with serving() as server, plain.span():
        busy(server)
    with nobody() as address, socket() as client, pytest.raises(ConnectionRefusedError):
        client.connect(address)
    assert {attributes(span)["mine"] for span in plain.spans()} == {
        "lookup",
        "setup",
        "connect",
        "send",
    }
    assert ("connect", "connection_refused") in {(kind, error) for kind, error, _ in seen}


def test_hooks_that_raise(telemetry: Telemetry, caplog: pytest.LogCaptureFixture) -> None:
    calls: list[str] = []

    def hook(kind: str, *_: Any) -> None:
        calls.append(kind)
        raise ValueError("a hook that fails")

    plain = telemetry(request_hook=hook)
    with serving() as server, plain.span():
        busy(server)
        busy(server)
    assert len(plain.spans("socket send ")) == 2
    assert len(calls) == 1, "it is left out"
    assert len([line for line in caplog.records if "hook" in line.getMessage()]) == 1


class RaisingSampler(Asked):
    def should_sample(self, *arguments: Any, **keywords: Any) -> SamplingResult:
        raise RuntimeError("a sampler that fails")


def test_a_sampler_and_a_context_that_raise(telemetry: Telemetry) -> None:
    plain = telemetry(sampler=RaisingSampler())
    with serving() as server:
        busy(server)
    assert plain.spans() == []

    class Broken(trace.NonRecordingSpan):
        def get_span_context(self) -> Any:
            raise RuntimeError("a span that fails")

    token = otel_context.attach(trace.set_span_in_context(Broken(trace.INVALID_SPAN_CONTEXT)))
    try:
        left, right = tracesock.socketpair()
        with left, right:
            assert left.send(b"x") == 1
            right.close()
            with pytest.raises(BrokenPipeError):
                left.send(b"x")
    finally:
        otel_context.detach(token)


def test_no_provider_of_the_sdk(telemetry: Telemetry) -> None:
    """The API's own: nothing is told, nothing breaks."""
    tracesock.instrument(trace.NoOpTracerProvider(), MeterProvider(shutdown_on_exit=False))
    with serving() as server:
        busy(server)
    tracesock.uninstrument()


def test_instrumented_twice(telemetry: Telemetry) -> None:
    first = telemetry()
    second = telemetry()
    left, right = tracesock.socketpair()
    with left, right, second.span():
        left.send(b"x")
    assert len(second.spans("socket send ")) == 1
    assert first.spans() == []
    assert second.total("tracesock.send.duration") == 1


def test_uninstrumented_with_calls_in_flight(telemetry: Telemetry) -> None:
    plain = telemetry()
    left, right = tracesock.socketpair()
    size = 4 << 20
    begun = threading.Event()

    def send() -> None:
        with plain.span():
            begun.set()
            left.sendall(bytes(size))

    thread = threading.Thread(target=send)
    thread.start()
    begun.wait(30)
    tracesock.uninstrument()
    again = telemetry()
    got = 0
    while got < size:
        got += len(right.recv(1 << 16))
    thread.join()
    left.send(b"x")
    assert again.provider.force_flush()
    left.close()
    right.close()


def test_closed_by_another_thread_while_it_sends(telemetry: Telemetry) -> None:
    """What the call has of the connection outlives the connection."""
    plain = telemetry()
    for _ in range(20):
        left, right = tracesock.socketpair()
        with plain.span():
            failed: list[BaseException] = []

            def send(left: Any = left, failed: list[BaseException] = failed) -> None:
                try:
                    with plain.span("thread"):
                        left.settimeout(0.2)
                        left.sendall(bytes(4 << 20))
                except OSError as error:
                    failed.append(error)

            thread = threading.Thread(target=send)
            thread.start()
            left.close()
            for _ in range(5):
                plain.provider.force_flush()
            right.close()
            thread.join()
    assert plain.provider.force_flush()


def test_switched_while_others_send(telemetry: Telemetry) -> None:
    stop = threading.Event()
    failures: list[BaseException] = []

    def work() -> None:
        try:
            left, right = tracesock.socketpair()
            with left, right:
                while not stop.is_set():
                    assert left.send(b"abc") == 3
                    assert right.recv(3) == b"abc"
                    with nobody() as address, socket() as client:
                        assert client.connect_ex(address) == errno.ECONNREFUSED
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(15):
        plain = telemetry(require_parent=False)
        plain.provider.force_flush()
        tracesock.uninstrument()
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures


def test_nothing_changes_an_exception(telemetry: Telemetry) -> None:
    telemetry(response_hook=lambda *_: 1 / 0)
    with nobody() as address:
        with pytest.raises(ConnectionRefusedError) as raised:
            tracesock.create_connection(address)
        assert raised.value.errno == errno.ECONNREFUSED
        assert raised.value.__context__ is None
        assert raised.value.__cause__ is None


# --- beyond ---------------------------------------------------------------------------------------


def test_the_ledger_of_connections(telemetry: Telemetry) -> None:
    plain = telemetry()
    before = {row.number for row in tracesock.connections(stack=True)}
    try:
        with tracesock.create_server((HOST, 0), backlog=5) as server:
            with plain.span() as parent:
                client = tracesock.create_connection(("localhost", port_of(server)))
            accepted, _ = server.accept()
            accepted.send(bytes(1000))
            assert client.recv(1000)
            accepted.close()

            def made() -> dict[str, tracesock.Connection]:
                every = tracesock.connections()
                return {row.direction: row for row in every if row.number not in before}

            wait_for(lambda: made()["outbound"].state == "close_wait")
            rows = made()
            listening, outbound = rows["listening"], rows["outbound"]
            assert listening.accept_limit == 5
            assert listening.accept_queue == 0
            assert listening.state == "listen"
            assert outbound.peer == (HOST, port_of(server))
            assert outbound.local == client.getsockname()
            assert outbound.server == "localhost"
            assert outbound.state == "close_wait"
            assert outbound.age is not None and 0 <= outbound.age < 60
            assert (outbound.sent, outbound.received) == (0, 1000)
            assert outbound.rtt is not None and 0 < outbound.rtt < 10
            assert outbound.queued == 0
            assert outbound.retransmits == 0
            assert outbound.trace_id == f"{parent.get_span_context().trace_id:032x}"
            assert outbound.origin is not None
            assert "test_the_ledger_of_connections" in outbound.origin
            leaked = {row.number for row in tracesock.instrumentation.leaks(older_than=0.0)}
            assert leaked - before == {outbound.number}
            client.close()
        assert {row.number for row in tracesock.connections()} <= before
    finally:
        tracesock._native.recorder.keep_origin(False)


def test_tcp_info_is_tied_to_the_trace(telemetry: Telemetry) -> None:
    """A connection's last RTT and its life lead to the trace in which it was connected."""
    plain = telemetry()
    with (
        serving() as server,
        plain.span() as parent,
        tracesock.create_connection(server.getsockname()) as client,
    ):
        accepted, _ = server.accept()
        accepted.send(b"x")
        client.recv(1)
        accepted.close()
    found = every_point(plain.reader)
    for name in (
        "tracesock.tcp.rtt",
        "tracesock.connection.duration",
        "tracesock.first_byte.duration",
        "tracesock.connect.duration",
    ):
        (point,) = found[name].values()
        assert {each.trace_id for each in point.exemplars} == {
            parent.get_span_context().trace_id
        }, name


def test_segments_that_are_sent_again(telemetry: Telemetry) -> None:
    """The SYN is repeated after a second."""
    plain = telemetry()
    with full_backlog() as server, socket() as client:
        client.settimeout(1.5)
        with pytest.raises(TimeoutError):
            client.connect(server.getsockname())
        (row,) = [each for each in tracesock.connections() if each.descriptor == client.fileno()]
        assert row.retransmits is not None and row.retransmits >= 1
    assert plain.total("tracesock.tcp.retransmits") >= 1


@pytest.mark.parametrize("traced", [False, True])
def test_a_datagram_socket_that_answers_many(telemetry: Telemetry, traced: bool) -> None:
    """Each destination is told, and none is kept."""
    plain = telemetry(max_sends_per_trace=0)
    before = len(tracesock.connections())
    parent = plain.span() if traced else contextlib.nullcontext()
    with socket(type=tracesock.SOCK_DGRAM) as sender, parent:
        for number in range(3000):
            sender.sendto(b"x", (f"127.0.{number % 250}.{number // 250 + 1}", 9))
        assert len(tracesock.connections()) == before + 1
        (row,) = [each for each in tracesock.connections() if each.descriptor == sender.fileno()]
        assert row.sent == 3000
    assert plain.total("tracesock.io", network_io_direction="transmit") == 3000
    spans = plain.spans("socket send ")
    assert len({span.name for span in spans}) == (3000 if traced else 0)
    for _ in range(3):
        plain.provider.force_flush()
    assert tracesock._native.recorder.connection(row.number) is None, "it is forgotten"


PORTS_PROGRAM = """
import logging, sys, threading
logging.basicConfig(format="%(message)s")
import tracesock
from opentelemetry.sdk.trace import TracerProvider
from tracesock.instrumentation import ephemeral_ports
warned = threading.Event()

class Notices(logging.Handler):
    def emit(self, record):
        warned.set()

logging.getLogger().addHandler(Notices())
tracesock.instrument(TracerProvider(), drain_interval=0.05)
server = tracesock.create_server(("127.0.0.1", 0), backlog=200)
import socket as stock, time
kept = []
for number in range(85):
    client = tracesock.socket()
    client.connect(server.getsockname())
    kept.append(client)
    kept.append(server.accept()[0])
    if number >= 40:
        # Closed by this side: the port is held in TIME_WAIT.
        client.close()
(use, *_) = ephemeral_ports()
print(use.destination == "127.0.0.1:%d" % server.getsockname()[1], use.used, use.available)
warned.wait(30)
kept.append(tracesock.socket())
kept[-1].connect(server.getsockname())
time.sleep(1.5)
tracesock.uninstrument()
"""


def test_a_warning_before_the_ephemeral_ports_are_exhausted(tmp_path: Path) -> None:
    import sys

    script = tmp_path / "ports.py"
    script.write_text(PORTS_PROGRAM)
    setup = (
        "ip link set lo up 2>/dev/null || true;"
        # A port in TIME_WAIT may be used again after a second otherwise, over loopback.
        "echo 0 > /proc/sys/net/ipv4/tcp_tw_reuse;"
        "echo 40000 40099 > /proc/sys/net/ipv4/ip_local_port_range"
    )
    unshare = shutil.which("unshare")
    if (
        unshare is None
        or subprocess.run(
            [unshare, "-rn", "sh", "-c", setup], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("no network namespace can be made here (unshare -rn)")
    done = subprocess.run(
        [unshare, "-rn", "sh", "-c", f'{setup}; exec "$0" "$1"', sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(tracesock.__file__).parent.parent)},
    )
    assert done.stdout == "True 85 100\n", done.stderr
    assert done.stderr.count("of 100 ephemeral ports are in use towards 127.0.0.1:") == 1


def test_no_span_about_an_exporter_that_posts_through_tracesock(
    telemetry: Telemetry, installed: None
) -> None:
    """The SDK's OTLP exporter over requests, over urllib3, over tracesock."""
    import http.server

    exporters = pytest.importorskip("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    bodies: list[int] = []

    class Receiver(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            bodies.append(len(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer((HOST, 0), Receiver) as receiver:
        thread = threading.Thread(target=receiver.serve_forever)
        thread.start()
        plain = telemetry()
        port = receiver.server_address[1]
        exporter = exporters.OTLPSpanExporter(f"http://localhost:{port}/v1/traces")
        plain.provider.add_span_processor(SimpleSpanProcessor(exporter))
        left, right = tracesock.socketpair()
        with left, right:
            for _ in range(5):
                with plain.span():
                    left.send(b"x")
                assert plain.provider.force_flush()
        assert len(bodies) >= 10, "the exporter has posted"
        names = {span.name for span in plain.spans()}
        receiver.shutdown()
        thread.join()
        plain.provider.shutdown()
    assert all(name.startswith("socket send ") and str(port) not in name for name in names)
    assert plain.total("tracesock.connect.duration") == 0
