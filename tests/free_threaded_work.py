"""What tests/test_free_threaded.py runs in a process of its own: `SECONDS NAME ...`.

Prints one JSON object: whether the interpreter's lock is on, how many rounds were done, and what
was wrong.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import random
import sys
import threading
import time
from _socket import socket as Base
from collections.abc import Callable, Iterator
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

import tracesock as socket
from tracesock import audit
from tracesock._native import recorder

THREADS = 8
# What a call may end with when another thread closes its socket, or nobody listens.
EXPECTED = {
    *(errno.EBADF, errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.EAGAIN, errno.EINVAL),
    *(errno.ECONNREFUSED, errno.EISCONN, errno.EALREADY, errno.EINPROGRESS, errno.EPERM),
    *(errno.EADDRNOTAVAIL, errno.EDESTADDRREQ, errno.ECONNABORTED, errno.ENOBUFS, errno.ENOTSOCK),
}
STATE = trace.TraceState([("vendor", "threads")])
PARENT = trace.NonRecordingSpan(trace.SpanContext(0xABC, 0xDEF, False, trace.TraceFlags(1), STATE))

Work = Callable[[random.Random], None]


class Wrong(Exception):
    """What must not be."""


class Counted(SpanProcessor):
    """Counts the sends that the delivered spans stand for; the drain calls it, one at a time."""

    def __init__(self) -> None:
        self.calls = 0

    def on_end(self, span: Any) -> None:
        self.calls += (span.attributes or {}).get("tracesock.send.calls", 0)


@contextlib.contextmanager
def telemetry() -> Iterator[Counted]:
    """Spans of every send, and metrics."""
    counted = Counted()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(counted)
    meters = MeterProvider(metric_readers=[InMemoryMetricReader()], shutdown_on_exit=False)
    socket.instrument(provider, meters, max_sends_per_trace=8)
    try:
        yield counted
    finally:
        socket.uninstrument()


def unfinished(function: Callable[[], Any]) -> Any:
    """What the call returns; None where another thread, or the peer, put an end to it."""
    try:
        return function()
    except TimeoutError:
        return None
    except OSError as error:
        if error.errno not in EXPECTED:
            raise
        return None


class Slots:
    """Pairs of connected sockets that all threads use and close. Each pair has a byte of its own:
    another one that comes out of it was read from a descriptor that was somebody else's."""

    def __init__(self, number: int) -> None:
        self._numbers = itertools.count(1)
        self._pairs = [self._make() for _ in range(number)]

    def _make(self) -> tuple[int, Any, Any]:
        left, right = socket.socketpair()
        left.settimeout(0.01)
        right.settimeout(0.01)
        return next(self._numbers) % 251 + 1, left, right

    def work(self, chance: random.Random) -> None:
        """One call on a pair, or its end and another pair in its place."""
        index = chance.randrange(len(self._pairs))
        tag, left, right = self._pairs[index]
        match chance.randrange(16):
            case 0:
                left.close()
                right.close()
                self._pairs[index] = self._make()
            case 1:
                number = left.detach()
                if number >= 0:
                    os.close(number)
                self._pairs[index] = self._make()
            case 2:
                copy = unfinished(left.dup)
                if copy is not None:
                    copy.close()
            case 3:
                unfinished(lambda: left.settimeout(chance.choice((0.0, 0.005, 0.01))))
            case 4:
                unfinished(left.getsockname)
                unfinished(right.getpeername)
                repr(left)
            case 5:
                unfinished(lambda: left.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE))
            case 6:
                unfinished(lambda: right.sendmsg([bytes([tag]), bytes([tag])]))
            case 7 | 8 | 9 | 10:
                unfinished(lambda: left.send(bytes([tag]) * chance.randrange(1, 200)))
            case 11 | 12:
                self._check(tag, unfinished(lambda: left.recv(64)))
            case 13:
                into = bytearray(64)
                size = unfinished(lambda: right.recv_into(into))
                self._check(tag, into[: size or 0])
            case _:
                self._check(tag, unfinished(lambda: right.recv(256)))

    @staticmethod
    def _check(tag: int, data: Any) -> None:
        if data and set(data) != {tag}:
            raise Wrong(f"a pair of {tag} brought {set(data)}")

    def close(self) -> None:
        for _, left, right in self._pairs:
            left.close()
            right.close()


def canary(chance: random.Random) -> None:
    """A descriptor that no other thread knows stays what it is."""
    with open(__file__, "rb") as file:
        before = os.fstat(file.fileno())
        time.sleep(chance.random() / 2000)
        if os.fstat(file.fileno()) != before or not file.read(1):
            raise Wrong("a descriptor that was not a socket's was closed")


def look(chance: random.Random) -> None:
    """The ledger while it changes."""
    for row in socket.connections():
        if row.sent < 0 or not row.state or row.number <= 0:
            raise Wrong(f"no connection: {row}")
    recorder.states()
    if chance.randrange(4) == 0:
        socket.instrumentation.flush()


def run(seconds: float, *work: Work) -> int:
    """Runs the work in THREADS threads, each piece in at least one; how many were done in all."""
    end = time.monotonic() + seconds
    done = [0] * THREADS
    failures: list[BaseException] = []

    def thread(index: int) -> None:
        chance = random.Random(index)
        mine = work[index % len(work)]
        try:
            with trace.use_span(PARENT):
                while True:
                    mine(chance)
                    done[index] += 1
                    if time.monotonic() >= end or failures:
                        break
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=thread, args=(index,)) for index in range(THREADS)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    if failures:
        raise failures[0]
    return sum(done)


# --- the parts ------------------------------------------------------------------------------------


def descriptors(seconds: float) -> int:
    """Shared pairs, closed under those that use them, beside files."""
    slots = Slots(6)
    with telemetry():
        done = run(seconds, slots.work, slots.work, slots.work, canary)
        slots.close()
    return done


def datagrams(seconds: float) -> int:
    """One socket, three destinations: each send is told, or counted as dropped, with its bytes."""
    receivers = [socket.socket(type=socket.SOCK_DGRAM) for _ in range(3)]
    for receiver in receivers:
        receiver.bind(("127.0.0.1", 0))
        receiver.setblocking(False)
    addresses = [receiver.getsockname() for receiver in receivers]
    sender = socket.socket(type=socket.SOCK_DGRAM)
    stream, sink = socket.socketpair()
    sink.settimeout(0.01)
    sent: list[int] = []  # appended to by all

    def send(chance: random.Random) -> None:
        data = bytes(chance.randrange(1, 50))
        sent.append(sender.sendto(data, chance.choice(addresses)))
        if chance.randrange(8) == 0:
            sent.append(stream.send(data))
            unfinished(lambda: sink.recv(100))
        if chance.randrange(50) == 0:
            for receiver in receivers:
                unfinished(lambda receiver=receiver: receiver.recv(10))

    with telemetry() as counted:
        before = sum(row[1] for row in recorder.cells())
        dropped = recorder.counts()[1]
        done = run(seconds, send, send, send, look)
        late = time.monotonic() + 60
        while counted.calls + recorder.counts()[1] - dropped < len(sent):
            socket.instrumentation.flush()  # gives up where the drain is still at it
            if time.monotonic() > late:
                break
        dropped = recorder.counts()[1] - dropped
        counted_bytes = sum(row[1] for row in recorder.cells()) - before
        if counted.calls + dropped != len(sent):
            raise Wrong(f"{len(sent)} sends: {counted.calls} told, {dropped} dropped")
        if counted_bytes != sum(sent):
            raise Wrong(f"{sum(sent)} bytes sent, {counted_bytes} counted")
    for each in (*receivers, sender, stream, sink):
        each.close()
    return done


def connections(seconds: float) -> int:
    """Connecting, accepting, and looking at the ledger."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    listener.settimeout(0.02)
    address = listener.getsockname()

    def serve(chance: random.Random) -> None:
        accepted = unfinished(listener.accept)
        if accepted is None:
            return
        with accepted[0] as peer:
            peer.settimeout(0.5)
            data = unfinished(lambda: peer.recv(10))
            unfinished(lambda: peer.sendall(data or b"?"))

    def connect(chance: random.Random) -> None:
        with socket.socket() as client:
            client.settimeout(chance.choice((0.0, 0.5, 0.5)))
            if client.connect_ex(address) in (0, errno.EINPROGRESS):
                unfinished(lambda: client.send(b"hello"))
                client.settimeout(0.5)
                answer = unfinished(lambda: client.recv(10))
                if answer not in (None, b"", b"hello", b"?"):
                    raise Wrong(f"answered {answer!r}")

    with telemetry():
        done = run(seconds, serve, connect, serve, connect, look, serve, connect, connect)
        listener.close()
    return done


def policies(seconds: float) -> int:
    """A policy that is reloaded, and subscriptions that begin and end: what it denies is never
    sent, what it allows always."""
    allowed = socket.socket(type=socket.SOCK_DGRAM)
    denied = socket.socket(type=socket.SOCK_DGRAM)
    for each in (allowed, denied):
        each.bind(("127.0.0.1", 0))
        each.setblocking(False)
    sender = socket.socket(type=socket.SOCK_DGRAM)
    data = f"""
mode = "enforce"
default = "allow"
[[rule]]
id = "deny-one"
action = "deny"
port = [{denied.getsockname()[1]}]
""".encode()
    texts = [data, data.replace(b"deny-one", b"the-same")]
    audit.use_policy(audit.policy.parse_policy(texts[0]))

    def send(chance: random.Random) -> None:
        sender.sendto(b"yes", allowed.getsockname())
        try:
            sender.sendto(b"no", denied.getsockname())
        except PermissionError:
            pass
        else:
            raise Wrong("sent what the policy denies")
        unfinished(lambda: allowed.recv(10))

    def change(chance: random.Random) -> None:
        audit.use_policy(audit.policy.parse_policy(chance.choice(texts)))

    def subscribe(chance: random.Random) -> None:
        calls: list[int] = []
        me = threading.get_ident()
        with audit.subscribe(
            lambda event, arguments: calls.append(threading.get_ident()), events="socket.sendto"
        ):
            sender.sendto(b"told", allowed.getsockname())
        if calls.count(me) != 1:
            raise Wrong(f"told {calls.count(me)} times of one event")

    try:
        return run(seconds, send, change, send, subscribe)
    finally:
        audit.clear_policy()
        for each in (allowed, denied, sender):
            each.close()


def modes(seconds: float) -> int:
    """One socket's timeout set by all: the descriptor's mode is that of the last one."""
    left, right = socket.socketpair()

    class Filled(socket.socket):
        """Its base is filled, as that of a TLS socket is."""

    filled = Filled(fileno=right.detach())

    def change(chance: random.Random) -> None:
        for each in (left, filled):
            each.settimeout(chance.choice((None, 0.0, 5.0)))

    done = 0
    end = time.monotonic() + seconds
    with left, filled:
        while time.monotonic() < end:
            done += run(0.05, change)
            for each in (left, filled):
                timeout = each.gettimeout()
                if os.get_blocking(each.fileno()) is not (timeout is None):
                    raise Wrong(f"{each!r} with a timeout of {timeout} in the other mode")
                if Base.gettimeout(filled) != filled.gettimeout():
                    raise Wrong("the base has another timeout")
    return done


def streams(seconds: float) -> int:
    """Streams of one socket made and closed by all: it is closed with the last one."""

    def stream(chance: random.Random) -> None:
        sock.makefile("rb", buffering=chance.choice((0, -1))).close()

    done = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sock, peer = socket.socketpair()
        kept = [sock.makefile("rb") for _ in range(THREADS)]
        done += run(0.02, stream)
        if sock._io_refs != THREADS:
            raise Wrong(f"{sock._io_refs} streams are open, not {THREADS}")
        last = [threading.Thread(target=each.close) for each in (*kept, sock)]
        for each in last:
            each.start()
        for each in last:
            each.join()
        if sock.fileno() != -1:
            raise Wrong("not closed with its last stream")
        peer.close()
    return done


def closings(seconds: float) -> int:
    """Connections that all threads close at once: each has one record of its end."""
    ended: list[Any] = []
    number = 0
    end = time.monotonic() + seconds
    listener = socket.create_server(("127.0.0.1", 0))
    with (
        listener,
        audit.subscribe(lambda _, record: ended.append(record), events="tracesock.close"),
    ):
        while time.monotonic() < end:
            client = socket.create_connection(listener.getsockname())
            server, _ = listener.accept()
            threads = [threading.Thread(target=client.close) for _ in range(THREADS)]
            for each in threads:
                each.start()
            for each in threads:
                each.join()
            server.close()
            number += 2
        audit.flush(60)
    if len(ended) != number:
        raise Wrong(f"{len(ended)} records of {number} ends")
    return number


def hosts(seconds: float) -> int:
    """A bytearray as the host of addresses, while another thread makes it longer and shorter."""
    host = bytearray(b"127.0.0.1")
    receiver = socket.socket(type=socket.SOCK_DGRAM)
    receiver.bind(("127.0.0.1", 0))
    receiver.setblocking(False)
    sender = socket.socket(type=socket.SOCK_DGRAM)
    port = receiver.getsockname()[1]

    def send(chance: random.Random) -> None:
        with contextlib.suppress(TypeError):  # a NUL in the name
            sender.sendto(b"x", (host, port))
        unfinished(lambda: receiver.recv(10))

    def change(chance: random.Random) -> None:
        with contextlib.suppress(BufferError):  # somebody reads it
            host.extend(bytes(chance.randrange(1, 5000)))
            del host[9:]

    with sender, receiver:
        return run(seconds, send, send, change)


def everything(seconds: float) -> int:
    """All of it, with telemetry that is switched on and off."""
    slots = Slots(6)
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    listener.settimeout(0.02)

    def switch(chance: random.Random) -> None:
        with telemetry():
            time.sleep(0.02)

    def connect(chance: random.Random) -> None:
        with socket.socket() as client:
            client.settimeout(0.5)
            client.connect_ex(listener.getsockname())
            accepted = unfinished(listener.accept)
            if accepted is not None:
                accepted[0].close()

    def change(chance: random.Random) -> None:
        with audit.subscribe(lambda event, arguments: None, events="socket.connect"):
            socket.setdefaulttimeout(None)
            recorder.connections(recorder.open_numbers())

    done = run(seconds, slots.work, switch, connect, slots.work, canary, change)
    slots.close()
    listener.close()
    return done


PARTS: dict[str, Callable[[float], int]] = {
    "descriptors": descriptors,
    "datagrams": datagrams,
    "connections": connections,
    "audit": policies,
    "modes": modes,
    "streams": streams,
    "closings": closings,
    "hosts": hosts,
    "everything": everything,
}


def main() -> None:
    wrong: list[str] = []
    rounds = 0
    for name in sys.argv[2:]:
        try:
            rounds += PARTS[name](float(sys.argv[1]))
        except Wrong as error:
            wrong.append(f"{name}: {error}")
    lock = getattr(sys, "_is_gil_enabled", lambda: True)()
    print(json.dumps({"lock": lock, "rounds": rounds, "wrong": wrong}))


if __name__ == "__main__":
    main()
