"""What a record says: outcomes, trace context, threads, names; and that nothing breaks one."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import select
import socket as stock
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tracesock as socket
from tracesock import audit
from tracesock.audit.records import Endpoint, Record, endpoint, parse_timestamp, timestamp
from tracesock.audit.text import clean, printable

from .conftest import Log

DENY = 'default = "allow"\n[[rule]]\nid = "no-nine"\naction = "deny"\ncidr = "127.0.0.9"\n'


@contextlib.contextmanager
def full_queue() -> Iterator[stock.socket]:
    """A listener whose accept queue is full: it answers no further connection."""
    with contextlib.ExitStack() as closing:
        listener = closing.enter_context(stock.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = closing.enter_context(stock.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener


def unheard() -> stock.socket:
    """A socket whose port nobody listens to, nor can get, while it is open."""
    sock = stock.socket()
    sock.bind(("127.0.0.1", 0))
    return sock


def test_a_denied_connect(log: Log, enforce: Callable[[str], Any]) -> None:
    enforce(DENY)
    before = parse_timestamp(timestamp(0)) + _now()
    with socket.socket() as sock, pytest.raises(PermissionError):
        sock.connect(("127.9", 443))
    (line,) = log.events("tracesock.connect")
    seen = {name: line[name] for name in line if name not in ("seq", "hash", "time", "duration")}
    assert seen == {
        "event": "tracesock.connect",
        "action": "deny",
        "rule": "no-nine",
        "direction": "egress",
        "outcome": "denied",
        "error": "EPERM",
        "family": "inet",
        "transport": "tcp",
        "peer": {"address": "127.0.0.9", "port": 443},
        "pid": os.getpid(),
        "thread": {"id": threading.get_native_id(), "name": "MainThread"},
        "source": line["source"],
        "number": 2,  # the first tells of the policy
    }
    assert before <= parse_timestamp(line["time"]) <= _now()
    assert 0 <= line["duration"] < 1
    policy = log.events("tracesock.audit.policy")[0]
    assert policy["outcome"] == "loaded" and policy["policy"]["rules"] == 1


def _now() -> int:
    import time

    return time.time_ns()


def test_the_outcomes_of_connect(log: Log) -> None:
    with stock.create_server(("127.0.0.1", 0)) as listener:
        to = listener.getsockname()
        with socket.socket() as sock:
            sock.connect(to)
            with pytest.raises(OSError):
                sock.connect(to)
        with socket.socket() as sock:
            assert sock.connect_ex(to) == 0
    with unheard() as nobody, socket.socket() as sock:
        assert sock.connect_ex(nobody.getsockname()) != 0
    outcomes = [(e["outcome"], e.get("error")) for e in log.events("tracesock.connect")]
    assert outcomes == [
        ("success", None), ("error", "EISCONN"), ("success", None), ("error", "ECONNREFUSED"),
    ]  # fmt: skip


def test_a_connect_that_times_out(log: Log) -> None:
    with full_queue() as listener, socket.socket() as sock:
        sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            sock.connect(listener.getsockname())
    (line,) = log.events("tracesock.connect")
    assert line["outcome"] == "timed_out" and "error" not in line
    assert 0.1 < line["duration"] < 5


def test_a_connect_that_does_not_wait(log: Log) -> None:
    async def connect(address: Any) -> None:
        loop = asyncio.get_running_loop()
        with socket.socket() as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, address)

    with stock.create_server(("127.0.0.1", 0)) as listener:
        to = listener.getsockname()
        asyncio.run(connect(to))
        with socket.socket() as sock:  # never finished
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", to[1]))
    with unheard() as nobody, pytest.raises(ConnectionRefusedError):
        asyncio.run(connect(nobody.getsockname()))
    lines = log.events("tracesock.connect", "tracesock.connected", "tracesock.close")
    told = [(e["event"].removeprefix("tracesock."), e["outcome"], e.get("error")) for e in lines]
    assert told[:3] == [
        ("connect", "in_progress", "EINPROGRESS"), ("connected", "success", None),
        ("close", "success", None),
    ]  # fmt: skip
    assert ("connect", "in_progress", "EINPROGRESS") in told[3:]
    assert told[-1] == ("connected", "error", "ECONNREFUSED")


def test_who_asks_too_early_how_a_connect_ended_is_no_success(log: Log) -> None:
    """A full accept queue: the connection comes about when there is room, and is told then."""
    with full_queue() as listener, contextlib.ExitStack() as closing:
        sock = closing.enter_context(socket.socket())
        sock.setblocking(False)
        assert sock.connect_ex(listener.getsockname()) == errno.EINPROGRESS
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR, 4) == bytes(4)
        assert log.events("tracesock.connected") == []
        while not select.select([], [sock], [], 0.05)[1]:
            if select.select([listener], [], [], 0)[0]:
                closing.enter_context(listener.accept()[0])
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        (line,) = log.events("tracesock.connected")
    assert line["outcome"] == "success"
    assert line["peer"]["address"] == "127.0.0.1"


def test_unix_and_other_families(log: Log, tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with stock.socket(stock.AF_UNIX, stock.SOCK_DGRAM) as receiver:
        receiver.bind(path)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"x", path)
            with pytest.raises(ConnectionRefusedError):
                sock.sendto(b"x", b"\0abstract\n")
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as sock:
        sock.connect((0, 0))
    peers = [(e["family"], e["peer"]) for e in log.events("tracesock.sendto", "tracesock.connect")]
    assert peers[0] == ("unix", {"path": path})
    assert peers[1] == ("unix", {"path": "\\x00abstract\\x0a"})
    assert peers[2] == ("netlink", {"raw": "00" * 10})


def test_raw_sockets_are_told_from_the_protocols_they_carry(log: Log) -> None:
    for protocol in (socket.IPPROTO_ICMP, socket.IPPROTO_TCP, socket.IPPROTO_UDP):
        try:
            raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol)
        except PermissionError:
            pytest.skip("a raw socket needs CAP_NET_RAW: run as root")
        with raw:
            raw.sendto(b"\x08" + bytes(19), ("127.0.0.1", 0))
    transports = [line["transport"] for line in log.events("tracesock.sendto")]
    assert transports == ["raw", "raw", "raw"]


def test_mapped_addresses_are_the_ones_they_denote(log: Log) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"x", ("::ffff:127.0.0.1", 9))
        sock.sendto(b"x", ("::1", 9))
    peers = [(e["family"], e["peer"]["address"]) for e in log.events("tracesock.sendto")]
    assert peers == [("inet", "127.0.0.1"), ("inet6", "::1")]


def test_the_name_that_was_looked_up(log: Log) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.sendto(b"x", ("localhost", 9))
    assert log.events("tracesock.sendto")[0]["host"] == "localhost"


def test_the_trace_that_is_current(log: Log) -> None:
    trace = pytest.importorskip("opentelemetry.trace")
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    tracer = sdk.TracerProvider().get_tracer("test")
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        with tracer.start_as_current_span("work") as span:
            sock.sendto(b"x", ("127.0.0.1", 9))
        sock.sendto(b"x", ("127.0.0.1", 9))
    inside, outside = log.events("tracesock.sendto")
    context = span.get_span_context()
    assert inside["trace_id"] == trace.format_trace_id(context.trace_id)
    assert inside["span_id"] == trace.format_span_id(context.span_id)
    assert "trace_id" not in outside


def test_a_program_without_opentelemetry_stays_without(run: Callable[..., Any]) -> None:
    done = run(
        """
        import sys, tracesock as socket
        from tracesock import audit
        audit.open_log("audit.jsonl")
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.sendto(b"x", ("127.0.0.1", 9))
        audit.close()
        print([name for name in sys.modules if name.startswith("opentelemetry")])
        """
    )
    assert done.stdout == "[]\n", done.stderr


def test_threads_by_name(log: Log) -> None:
    def work() -> None:
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.sendto(b"x", ("127.0.0.1", 9))
            assert audit.flush(10)

    thread = threading.Thread(target=work, name="worker\x1b[31m\n7")
    thread.start()
    thread.join()
    line = log.events("tracesock.sendto")[0]
    assert line["thread"] == {"id": thread.native_id, "name": "worker\\x1b[31m\\x0a7"}


def test_accept_and_listen(log: Log) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        to = listener.getsockname()
        with stock.create_connection(to) as client:
            listener.accept()[0].close()
            own = client.getsockname()
    listen, accept = log.events("tracesock.listen", "tracesock.accept")
    assert listen["local"] == {"address": "127.0.0.1", "port": to[1]}
    assert accept["peer"] == {"address": "127.0.0.1", "port": own[1]}
    assert accept["local"] == listen["local"]
    assert (accept["action"], accept["direction"]) == ("allow", "ingress")
    assert "rule" not in accept  # there is no policy


def test_a_denied_accept(log: Log, enforce: Callable[[str], Any]) -> None:
    enforce(DENY.replace('"deny"\n', '"deny"\ndirection = "ingress"\n'))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        to = listener.getsockname()
        listener.settimeout(0)
        client = stock.create_connection(to, source_address=("127.0.0.9", 0))
        assert select.select([listener], [], [], 30)[0]
        with client, pytest.raises(BlockingIOError):
            listener.accept()
    (line,) = log.events("tracesock.accept")
    assert (line["action"], line["rule"], line["outcome"]) == ("deny", "no-nine", "denied")


def test_bytes_at_the_end(log: Log) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
        client.sendall(b"x" * 100_000)
        client.shutdown(socket.SHUT_WR)
        assert server.recv(1, socket.MSG_PEEK) == b"x"  # not taken
        buffer = bytearray(50_000)
        received = 0
        while count := server.recv_into(buffer):
            received += count
        server.sendmsg([b"ab", b"cd"])
        with open(__file__, "rb") as file:
            sent = server.sendfile(file)
        server.close()
        while client.recv(65536):
            pass
        client.close()
    server_line, client_line = log.events("tracesock.close")
    assert server_line["bytes"] == {"sent": 4 + sent, "received": 100_000}
    assert client_line["bytes"] == {"sent": 100_000, "received": 4 + sent}
    assert server_line["local"] == client_line["peer"]


def test_a_connection_that_the_peer_resets_at_once(log: Log) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = stock.create_connection(listener.getsockname())
        own = client.getsockname()
        server, _ = listener.accept()
        client.setsockopt(stock.SOL_SOCKET, stock.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        with pytest.raises(ConnectionResetError):
            server.recv(1)
        server.close()
    (line,) = log.events("tracesock.close")
    assert line["peer"] == {"address": "127.0.0.1", "port": own[1]}
    assert line["bytes"] == {"sent": 0, "received": 0}


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_socket_that_nobody_closed(log: Log) -> None:
    with stock.create_server(("127.0.0.1", 0)) as listener:
        sock = socket.create_connection(listener.getsockname())
        sock.sendall(b"abc")
        del sock
    (line,) = log.events("tracesock.close")
    assert line["bytes"]["sent"] == 3


# --- text from outside ----------------------------------------------------------------------------

HOSTILE = [
    "new\nline",
    "nul\0",
    "\x1b[2Jansi",
    "\x9b31m",
    "\udcff\ud800",
    "\u202egnp.exe",
    "\u2028",
    '"},{"seq":1',
    "\\x0a",
    "0" * 64,
    "x" * 5000,
]


@pytest.mark.parametrize("text", HOSTILE)
def test_cleaned_text_is_one_printable_line(text: str) -> None:
    cleaned = clean(text)
    assert cleaned.isprintable() and len(cleaned.splitlines()) == 1
    cleaned.encode()
    assert len(cleaned) <= 512 * 6 + 1
    assert printable(text).isprintable()


@given(st.text() | st.binary())
def test_cleaning_keeps_texts_apart(text: str | bytes) -> None:
    cleaned = clean(text, limit=10_000)
    assert cleaned.isprintable()
    # Unambiguous: the escapes can be undone.
    if isinstance(text, str) and not any(0xD800 <= ord(c) < 0xE000 for c in text):
        plain = cleaned.encode("latin-1", "backslashreplace").decode("unicode_escape")
        assert plain == text


@pytest.mark.parametrize("text", [t for t in HOSTILE if "\0" not in t and len(t) < 80])
def test_paths_never_break_a_record(text: str, log: Log, tmp_path: Path) -> None:
    name = os.fsencode("@" + text.replace("/", "")) if "\ud800" not in text else b"\xff\xfe"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
        sock.sendto(b"x", b"\0" + name)
    data = log.path.read_bytes() if audit.flush(10) else b""
    for line in data.splitlines():
        json.loads(line)
    assert data.isascii() and b"\x1b" not in data
    assert audit.close(10)
    assert audit.verify(log.path).intact


def test_no_payload_is_recorded(log: Log) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
        client.sendall(b"Authorization: Bearer s3cr3t")
        client.sendmsg([b"s3cr3t"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, b"")])
        server.close()
        client.close()
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.sendto(b"s3cr3t", ("127.0.0.1", 9))
    assert "s3cr3t" not in json.dumps(log.lines())


def test_no_argument_of_the_program_is_recorded(run: Callable[..., Any], tmp_path: Path) -> None:
    program = tmp_path / "prog.py"
    program.write_text("import sys; from tracesock import audit; audit.open_log('log')")
    done = run(
        "import subprocess, sys; subprocess.run([sys.executable, *sys.argv[1:]], check=True)",
        "-X", "dev", str(program), "--password=s3cr3t",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert lines[1]["program"] == str(program)
    assert "s3cr3t" not in json.dumps(lines)


@given(st.binary(max_size=140))
def test_endpoints_of_any_bytes(data: bytes) -> None:
    end = endpoint(data)
    if end is not None:
        assert str(end).isprintable()
        json.dumps(end.as_dict())


@given(st.integers(0, 2**62))
def test_times_are_read_back(ns: int) -> None:
    assert parse_timestamp(timestamp(ns)) == ns


def test_a_record_of_every_field_is_read_back() -> None:
    record = Record(
        "tracesock.connect", 10**18 + 1, "ab" * 8, 7, "deny", "r", "egress", "denied", 1, 1500,
        "inet6", "tcp", "h.example", Endpoint("inet6", "::1", 80), Endpoint("inet6", "::2", 81),
        1, 2, 3, 4, "t", "0" * 31 + "1", "0" * 15 + "2",
    )  # fmt: skip
    assert Record.from_dict(record.as_dict()) == record
