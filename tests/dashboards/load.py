"""A traced process with mixed load on this machine, whose metrics Prometheus can scrape.

    python -m tests.dashboards.load --metrics PORT --seconds 300 --folder DIRECTORY

Everything that the dashboards show happens: answered, refused and denied connects, look-ups that
are quick, slow and unknown, a peer that does not read, listeners whose queue fills, datagrams, many
peers and names, records that are dropped. With `--namespace` (in a network namespace of its own,
see network.py) also connects that are lost or unreachable, segments that are sent again, and
ephemeral ports that run out.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import resource as limits
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.dashboards import network
from tracesock import instrumentation

# What is denied is not reached: 192.0.2.0/24 is documentation's own network (RFC 5737), and the
# rules are in force before the first connect.
POLICY = """
mode = "{mode}"
default = "allow"
[[rule]]
id = "no-metadata"
action = "deny"
cidr = ["127.0.0.9", "169.254.169.254"]
[[rule]]
id = "no-admin"
action = "deny"
cidr = "127.0.0.10"
port = [22, 3389]
[[rule]]
id = "inside"
action = "allow"
cidr = "127.0.0.0/8"
"""
DENIED = [("127.0.0.9", 80), ("127.0.0.10", 22)]
HELD = 0.87  # of the ephemeral ports


class FailingProcessor:
    """A span processor that fails with one in 50 spans of tracesock's."""

    def __init__(self) -> None:
        self._seen = 0

    def on_start(self, span: Any, parent_context: Any = None) -> None: ...

    def _on_ending(self, span: Any) -> None: ...

    def on_end(self, span: Any) -> None:
        if span.instrumentation_scope.name != "tracesock":
            return
        self._seen += 1
        if self._seen % 50 == 0:
            raise OSError("no room")

    def shutdown(self) -> None: ...

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return True


class StalledSink:
    """A sink of the audit that takes nothing: its oldest records are dropped."""

    def __init__(self) -> None:
        self.go = threading.Event()

    def open(self, source: str) -> None: ...

    def write(self, records: Sequence[Any]) -> None:
        self.go.wait()

    def idle(self) -> None: ...

    def close(self, totals: dict[str, int]) -> None: ...

    def abandon(self) -> None: ...


class Load:
    """The workers: each does one thing again and again until the time is over."""

    def __init__(self, folder: Path, namespace: bool, tracer: Any, cap: int) -> None:
        import socket

        self.most = cap + 60  # peers and names: more than may have values of their own

        self.socket = socket
        self.folder = folder
        self.namespace = namespace
        self.tracer = tracer
        self.stop = threading.Event()
        self.failures: list[str] = []
        self._begun = threading.Barrier(3)  # the first of what must stay below the cap
        self._open = contextlib.ExitStack()

    # --- running ------------------------------------------------------------------------------

    def run(self, seconds: float) -> None:
        self.hold_ports()
        workers = [self.demo, self.names, self.peers, self.policy, self.stalls, self.queue]
        workers += [self.datagrams, self.unix, self.ports]
        workers += [self.lossy, self.lossy] if self.namespace else []
        threads = [
            threading.Thread(target=self._repeat, args=(each,), name=each.__name__)
            for each in workers
        ]
        for thread in threads:
            thread.start()
        self.stop.wait(seconds)
        self.stop.set()
        for thread in threads:
            thread.join(30)
        self._open.close()

    def _repeat(self, work: Callable[[], None]) -> None:
        try:
            while not self.stop.is_set():
                work()
        except Exception as error:
            self.failures.append(f"{work.__name__}: {type(error).__name__}: {error}")
            self.stop.set()
            self._begun.abort()  # nobody waits for it

    def pause(self, seconds: float) -> None:
        self.stop.wait(seconds)

    # --- workers ------------------------------------------------------------------------------

    def demo(self) -> None:
        """The rounds of `tracesock demo`: requests that are answered, refused, and stalled."""
        from tracesock.cli import demo

        with demo._service() as port, demo._unheard() as closed:
            demo._round(self.tracer, port, closed)
            self.begun()
            while not self.stop.is_set():
                demo._round(self.tracer, port, closed)
                self.pause(0.3)

    def begun(self) -> None:
        with contextlib.suppress(threading.BrokenBarrierError):
            self._begun.wait(60)

    def names(self) -> None:
        self.some_names()
        self.begun()
        while not self.stop.is_set():
            self.some_names()
            self.pause(0.1)

    def some_names(self) -> None:
        socket = self.socket
        if not self.namespace:
            self.look_up("localhost")
            self.look_up(unanswerable(0))
            self.pause(0.05)
            return
        for name in ("api", "db", "cache", "missing-1", "missing-2", "broken", "broken", "slow"):
            with self.tracer.start_as_current_span("resolve"):
                self.look_up(f"{name}.shop.test")
        with echo(socket, "127.0.0.2") as port:
            for _ in range(5):
                self.exchange("api.shop.test", port)

    def look_up(self, name: str | bytes) -> None:
        with contextlib.suppress(self.socket.gaierror):
            self.socket.getaddrinfo(name, 80, self.socket.AF_INET)

    def exchange(self, host: str, port: int) -> None:
        with self.socket.create_connection((host, port), timeout=5) as sock:
            sock.sendall(b"question")
            sock.recv(100)

    def peers(self) -> None:
        """More destinations and more names than the cap, after those that are to be below it."""
        self.begun()
        instrumentation.flush()
        self.many(range(self.most))
        while not self.stop.is_set():
            self.many(range(self.most - 40, self.most))

    def many(self, numbers: range) -> None:
        for number in numbers:
            if self.stop.is_set():
                return
            with self.socket.socket() as sock:
                sock.connect_ex((f"127.1.{number >> 8}.{number & 255}", 9))
            if self.namespace:
                self.look_up(f"host-{number}.shop.test")
            else:
                self.look_up(unanswerable(number))
            self.pause(0.01)
        if self.namespace:
            for address in (network.UNREACHABLE, network.PROHIBITED):
                with self.socket.socket() as sock:
                    sock.connect_ex((address, 80))
        self.pause(1)

    def policy(self) -> None:
        """Calls that are denied; then, in report mode, such that would be."""
        from tracesock import audit

        for mode in ("enforce", "report"):
            path = self.folder / f"{mode}.toml"
            path.write_text(POLICY.format(mode=mode))
            audit.load_policy(path)
            for _ in range(20):
                for peer in DENIED:
                    with self.socket.socket() as sock:
                        sock.settimeout(0.2)
                        with contextlib.suppress(OSError):
                            sock.connect(peer)
                self.pause(0.05)

    def stalls(self) -> None:
        """A peer that reads nothing for a while."""
        socket = self.socket
        with socket.create_server(("127.0.0.5", 0)) as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            with socket.create_connection(server.getsockname()) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
                peer = server.accept()[0]
                reader = threading.Thread(target=_read_late, args=(peer, 0.9))
                reader.start()
                sock.sendall(bytes(1 << 20))
                sock.shutdown(socket.SHUT_WR)
                reader.join()

    def queue(self) -> None:
        """A listener that takes its time."""
        socket = self.socket
        with socket.create_server(("127.0.0.6", 0), backlog=4) as server:
            while not self.stop.is_set():
                with contextlib.ExitStack() as stack:
                    for _ in range(5):
                        stack.enter_context(socket.create_connection(server.getsockname(), 1))
                    self.pause(1.5)
                    for _ in range(5):
                        stack.enter_context(server.accept()[0])

    def datagrams(self) -> None:
        socket = self.socket
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
        ):
            receiver.bind(("127.0.0.7", 0))
            while not self.stop.is_set():
                for _ in range(60):
                    sender.sendto(b"x" * 64, receiver.getsockname())
                    receiver.recv(100)
                self.pause(0.2)

    def unix(self) -> None:
        left, right = self.socket.socketpair()
        with left, right:
            left.setsockopt(self.socket.SOL_SOCKET, self.socket.SO_SNDBUF, 8192)
            reader = threading.Thread(target=_read_late, args=(right, 0.1))
            reader.start()
            left.sendall(bytes(256 << 10))
            left.shutdown(self.socket.SHUT_WR)
            reader.join()
        self.pause(0.2)

    def lossy(self) -> None:
        """A way on which segments are lost."""
        socket = self.socket
        with (
            socket.create_server((network.LOSSY, 0)) as server,
            socket.create_connection(server.getsockname()) as sock,
        ):
            peer = server.accept()[0]
            reader = threading.Thread(target=_read_late, args=(peer, 0.0))
            reader.start()
            sock.sendall(bytes(300_000))
            sock.shutdown(socket.SHUT_WR)
            reader.join()
        self.pause(0.2)

    def hold_ports(self) -> None:
        """Most of the ephemeral ports, towards one destination."""
        socket = self.socket
        if not self.namespace:
            return
        server = self._open.enter_context(socket.create_server(("127.0.0.8", 0), backlog=64))
        for _ in range(int(HELD * (network.PORTS[1] - network.PORTS[0]))):
            self._open.enter_context(socket.create_connection(server.getsockname()))
            peer = self._open.enter_context(server.accept()[0])
        peer.close()  # it has hung up, and the other end is not closed

    def ports(self) -> None:
        """A port that is in use towards the destination already."""
        socket = self.socket
        with (
            socket.create_server(("127.0.0.8", 0)) as server,
            socket.socket() as first,
            socket.socket() as second,
        ):
            for sock in (first, second):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            first.bind(("127.0.0.1", 0))
            second.bind(first.getsockname())
            first.connect(server.getsockname())
            if second.connect_ex(server.getsockname()) != errno.EADDRNOTAVAIL:
                raise AssertionError("two connections with the same addresses")
        self.pause(0.3)


def unanswerable(number: int) -> bytes:
    """A name that the resolver refuses without asking anybody: its label is too long (RFC 1035)."""
    return b"x" * 64 + b"-%d.invalid" % number


@contextlib.contextmanager
def echo(socket: Any, address: str) -> Iterator[int]:
    """A server that answers each connection's first bytes; its port."""
    server = socket.create_server((address, 0))

    def serve() -> None:
        while True:
            try:
                peer, _ = server.accept()
            except OSError:
                return
            with peer:
                peer.sendall(peer.recv(100))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield server.getsockname()[1]
    finally:
        server.shutdown(socket.SHUT_RDWR)
        thread.join(10)
        server.close()


def _read_late(sock: Any, seconds: float) -> None:
    time.sleep(seconds)
    with sock:
        while sock.recv(1 << 20):
            pass


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--metrics", type=int, required=True, metavar="PORT")
    parser.add_argument("--seconds", type=float, default=300.0, help="at most")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--cap", type=int, default=200, help="cardinality_limit")
    parser.add_argument("--namespace", action="store_true")
    arguments = parser.parse_args()
    _, hard = limits.getrlimit(limits.RLIMIT_NOFILE)
    limits.setrlimit(limits.RLIMIT_NOFILE, (min(hard, 16384), hard))

    from opentelemetry.exporter.prometheus import PrometheusMetricReader
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from prometheus_client import CollectorRegistry, start_http_server

    registry = CollectorRegistry()
    reader = PrometheusMetricReader(registry=registry)
    # Before tracesock is in place: the server of the metrics is not part of the load.
    start_http_server(arguments.metrics, addr="127.0.0.1", registry=registry)
    resource = Resource.create({"service.name": "shop"})
    meters = MeterProvider([reader], resource=resource)
    tracers = TracerProvider(resource=resource)
    tracers.add_span_processor(FailingProcessor())  # type: ignore[arg-type]

    import tracesock
    from tracesock import audit

    sink = StalledSink()
    tracesock.install()
    audit.open_log(arguments.folder / "audit.jsonl")
    audit.add_sink(sink, "drop")
    tracesock.instrument(tracers, meters, cardinality_limit=arguments.cap)
    tracer = tracers.get_tracer("load")
    load = Load(arguments.folder, arguments.namespace, tracer, arguments.cap)
    # A line on standard input ends the load; the figures stay to be scraped until its end.
    threading.Thread(target=lambda: sys.stdin.readline() and load.stop.set(), daemon=True).start()
    load.run(arguments.seconds)
    print("\n".join(["failed" if load.failures else "done", *load.failures]), flush=True)
    if not load.failures:
        for _ in sys.stdin:
            pass
    sink.go.set()
    audit.close()
    tracesock.uninstrument()
    return int(bool(load.failures))


if __name__ == "__main__":
    sys.exit(main())
