"""Realistic telemetry by the real OpenTelemetry SDK, for tests, screenshots and a look by hand.

    python tests/dashboard/traffic.py --endpoint http://127.0.0.1:8318 --history 60 --seconds 600

Three services call each other, a database, a cache and two peers that send no telemetry. Spans,
metrics and log records have the names of docs/reference/dashboard-data.md and leave through the
SDK's OTLP/HTTP exporters.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from opentelemetry import trace
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

MS = 1_000_000
SECOND = 1_000_000_000
STACK = """  File "/srv/checkout/app.py", line 41, in handle
    order = place(request)
  File "/srv/checkout/orders.py", line 118, in place
    connection = pool.acquire()
  File "/srv/checkout/pool.py", line 63, in acquire
    return socket.create_connection((self.host, self.port))
"""


@dataclass(frozen=True)
class Peer:
    """A server that is called: name, address, port, whether with TLS, typical latency in ns."""

    name: str
    address: str
    port: int
    tls: bool
    latency: int

    @property
    def label(self) -> str:
        return f"{self.address}:{self.port}"


DATABASE = Peer("db.internal.example", "10.20.0.15", 5432, False, 600_000)
CACHE = Peer("cache.internal.example", "10.20.0.31", 6379, False, 250_000)
BANK = Peer("api.bank.example", "203.0.113.40", 443, True, 24 * MS)
MAIL = Peer("smtp.mail.example", "198.51.100.25", 587, True, 48 * MS)
PAYMENTS = Peer("payments.internal.example", "10.20.0.52", 8443, True, 900_000)
CATALOG = Peer("catalog.internal.example", "10.20.0.61", 8080, False, 700_000)
FEED = Peer("feed.partner.example", "192.0.2.77", 443, True, 70 * MS)


@dataclass
class Link:
    """A connection that is open, as a snapshot tells it."""

    identity: str
    peer: Peer
    opened: int
    local_port: int
    state: str = "established"
    sent: int = 0
    received: int = 0
    retransmits: int = 0
    queued: int = 0
    trace_id: int = 0
    span_id: int = 0
    stack: str = ""


@dataclass
class Service:
    """One process: its providers, its open connections."""

    name: str
    pid: int
    endpoint: str
    headers: Mapping[str, str] | None
    links: list[Link] = field(default_factory=list)

    def __post_init__(self) -> None:
        resource = Resource.create(
            {
                "service.name": self.name,
                "service.instance.id": f"{self.name}-{self.pid}",
                "service.version": "2.4.1",
                "process.pid": self.pid,
                "host.name": "workstation",
            }
        )

        def to(signal: str) -> dict[str, Any]:
            return {
                "endpoint": f"{self.endpoint}/v1/{signal}",
                "headers": self.headers,
                "timeout": 10,
            }

        self.traces = TracerProvider(resource=resource)
        self.traces.add_span_processor(
            BatchSpanProcessor(OTLPSpanExporter(**to("traces")), max_queue_size=65536)
        )
        self.tracer = self.traces.get_tracer(
            "tracesock", "0.1.0", schema_url="https://opentelemetry.io/schemas/1.44.0"
        )
        self.http = self.traces.get_tracer("opentelemetry.instrumentation.urllib3", "0.66b0")
        self.app = self.traces.get_tracer(f"{self.name}.handlers")
        self.logs = LoggerProvider(resource=resource)
        self.logs.add_log_record_processor(
            BatchLogRecordProcessor(OTLPLogExporter(**to("logs")), max_queue_size=65536)
        )
        self.logger = self.logs.get_logger("tracesock", "0.1.0")
        reader = PeriodicExportingMetricReader(
            OTLPMetricExporter(**to("metrics")), export_interval_millis=3_600_000
        )
        self.metrics = MeterProvider(resource=resource, metric_readers=[reader])
        self._instruments()

    def _instruments(self) -> None:
        meter = self.metrics.get_meter("tracesock", "0.1.0")
        small = [0.0001, 0.00025, 0.0005, 0.001, 0.0025]
        common = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10]
        connect = [*small, *common, 3, 7, 15, 31]
        connect.sort()

        def histogram(name: str, buckets: list[float], text: str) -> Any:
            return meter.create_histogram(
                name, "s", text, explicit_bucket_boundaries_advisory=buckets
            )

        self.lookup = histogram("dns.lookup.duration", common, "Duration of look-ups")
        self.connect = histogram("tracesock.connect.duration", connect, "Duration of connects")
        self.stall = histogram("tracesock.send.stall.duration", connect, "Stalls of sends")
        self.dropped = meter.create_counter(
            "tracesock.telemetry.dropped", "{record}", "Records that were not delivered"
        )

        def gauge(name: str, unit: str, read: Any, text: str) -> None:
            def observe(_: CallbackOptions) -> Iterable[Observation]:
                return [Observation(value, attributes) for value, attributes in read()]

            meter.create_observable_gauge(name, [observe], unit, text)

        gauge(
            "process.unix.file_descriptor.count",
            "{file_descriptor}",
            lambda: [(24 + 17 * len(self.links), {})],
            "Open descriptors",
        )
        gauge(
            "tracesock.descriptor.limit", "{file_descriptor}", lambda: [(1024, {})], "Their limit"
        )
        gauge(
            "tracesock.listen.queue.length",
            "{connection}",
            lambda: [
                (self.waiting, {"network.local.address": "0.0.0.0", "network.local.port": 8080})
            ],
            "Connections that wait for accept",
        )
        gauge(
            "tracesock.listen.queue.limit",
            "{connection}",
            lambda: [(128, {"network.local.address": "0.0.0.0", "network.local.port": 8080})],
            "Size of the accept queue",
        )
        gauge("tracesock.ephemeral_port.limit", "{port}", lambda: [(28232, {})], "Local ports")
        gauge(
            "tracesock.ephemeral_port.count",
            "{port}",
            lambda: [
                (used, {"network.peer.address": peer.address, "network.peer.port": peer.port})
                for peer, used in self.ports.items()
            ],
            "Local ports in use by destination",
        )
        self.waiting = 3
        self.ports: dict[Any, int] = {}

    def flush(self) -> None:
        self.traces.force_flush()
        self.logs.force_flush()
        self.metrics.force_flush()

    def shutdown(self) -> None:
        self.traces.shutdown()
        self.logs.shutdown()
        self.metrics.shutdown()


class Traffic:
    """Makes requests of the shop. Call `request` for each, `tick` for snapshots, then `flush`."""

    def __init__(
        self, endpoint: str, seed: int = 7, headers: Mapping[str, str] | None = None
    ) -> None:
        self.random = random.Random(seed)
        self.checkout = Service("checkout", 4211, endpoint, headers)
        self.payments = Service("payments", 4305, endpoint, headers)
        self.catalog = Service("catalog", 4388, endpoint, headers)
        self.services = (self.checkout, self.payments, self.catalog)
        self.sequence = 0
        # Histograms cannot be dated back: the made-up past has spans only.
        self.measuring = True
        self.previous = "0" * 64
        self.rounds = 0
        self._open()

    def _open(self) -> None:
        now = time.time_ns()
        plan = (
            (self.checkout, DATABASE, 5),
            (self.checkout, CACHE, 2),
            (self.checkout, PAYMENTS, 3),
            (self.checkout, CATALOG, 2),
            (self.payments, BANK, 3),
            (self.payments, DATABASE, 2),
            (self.catalog, DATABASE, 3),
            (self.catalog, FEED, 1),
        )
        for service, peer, count in plan:
            for i in range(count):
                age = self.random.randrange(2, 5400) * SECOND
                link = Link(
                    f"{service.pid}:{10 + len(service.links)}",
                    peer,
                    now - age,
                    40000 + self.random.randrange(9000),
                )
                link.sent = self.random.randrange(2_000, 4_000_000)
                link.received = self.random.randrange(2_000, 40_000_000)
                if peer is FEED:
                    link.state, link.retransmits = "close_wait", 2
                if peer is BANK and i == 0:
                    link.retransmits, link.queued = 14, 187_392
                link.stack = STACK if i == 0 else ""
                service.links.append(link)
        for service in self.services:
            service.ports = {link.peer: 0 for link in service.links}

    def jitter(self, typical: int) -> int:
        """A duration around a typical one, with a long tail."""
        return max(1_000, int(typical * self.random.lognormvariate(0, 0.45)))

    def measure(self, instrument: Any, nanoseconds: int, attributes: Mapping[str, Any]) -> None:
        if self.measuring:
            instrument.record(nanoseconds / 1e9, attributes)

    # -- pieces of a trace -------------------------------------------------------------------------

    def span(
        self,
        service: Service,
        name: str,
        parent: Span | None,
        start: int,
        end: int,
        attributes: Mapping[str, Any],
        error: str = "",
        kind: SpanKind = SpanKind.INTERNAL,
        tracer: Any = None,
    ) -> Span:
        context = trace.set_span_in_context(parent) if parent is not None else Context()
        attributes = {**attributes, **({"error.type": error} if error else {})}
        made: Span = (tracer or service.tracer).start_span(
            name, context, kind=kind, attributes=attributes, start_time=start
        )
        if error:
            made.set_status(Status(StatusCode.ERROR, error.replace("_", " ")))
        made.end(end)
        return made

    def lookup(
        self, service: Service, name: str, parent: Span | None, start: int, error: str = ""
    ) -> int:
        """A look-up; returns when it ended."""
        slow = self.random.random()
        took = self.jitter(1_400_000) if slow < 0.985 else 5 * SECOND + self.jitter(2 * MS)
        if error:
            took = self.jitter(9 * MS)
        answers = [] if error else [p.address for p in PEERS if p.name == name]
        attributes: dict[str, Any] = {"dns.question.name": name}
        if answers:
            attributes["dns.answers"] = answers
        self.span(service, f"DNS lookup {name}", parent, start, start + took, attributes, error)
        metric = {"dns.question.name": name, **({"error.type": error} if error else {})}
        self.measure(service.lookup, took, metric)
        return start + took

    def attributes(self, peer: Peer, local_port: int) -> dict[str, Any]:
        return {
            "network.peer.address": peer.address,
            "network.peer.port": peer.port,
            "network.local.address": "10.20.0.4",
            "network.local.port": local_port,
            "network.transport": "tcp",
            "network.type": "ipv4",
            "server.address": peer.name,
            "server.port": peer.port,
        }

    def setup(
        self, service: Service, peer: Peer, parent: Span | None, start: int, error: str = ""
    ) -> int:
        """Look-up, attempts and handshake under one set-up; returns when it ended."""
        context = trace.set_span_in_context(parent) if parent is not None else Context()
        port = 40000 + self.random.randrange(20000)
        made = service.tracer.start_span(
            f"socket connection_setup {peer.name}:{peer.port}",
            context,
            attributes={"server.address": peer.name, "server.port": peer.port},
            start_time=start,
        )
        at = self.lookup(service, peer.name, made, start)
        metric = {"network.transport": "tcp", "network.type": "ipv4", "server.address": peer.name}
        if peer is BANK and self.random.random() < 0.3:
            took = self.jitter(3 * MS)
            address = "2001:db8:40::1"
            self.span(
                service,
                f"socket connect {address}:{peer.port}",
                made,
                at,
                at + took,
                {
                    "network.peer.address": address,
                    "network.peer.port": peer.port,
                    "network.transport": "tcp",
                    "network.type": "ipv6",
                    "server.address": peer.name,
                    "server.port": peer.port,
                },
                "network_unreachable",
            )
            self.measure(service.connect, took, {**metric, "error.type": "network_unreachable"})
            at += took
        took = self.jitter(peer.latency)
        attributes = self.attributes(peer, port)
        retransmits = 1 if self.random.random() < 0.03 and not error else 0
        if retransmits:
            took += SECOND
            attributes["tracesock.tcp.retransmits"] = retransmits
        self.span(service, f"socket connect {peer.label}", made, at, at + took, attributes, error)
        self.measure(service.connect, took, {**metric, **({"error.type": error} if error else {})})
        at += took
        if error:
            made.set_attribute("error.type", error)
            made.set_status(Status(StatusCode.ERROR, error))
        elif peer.tls:
            took = self.jitter(2 * peer.latency + 3 * MS)
            self.span(
                service,
                f"TLS client handshake {peer.name}",
                made,
                at,
                at + took,
                {
                    "server.address": peer.name,
                    "tls.protocol.name": "tls",
                    "tls.protocol.version": "1.3",
                    "tls.cipher": "TLS_AES_256_GCM_SHA384",
                    "tls.resumed": self.random.random() < 0.4,
                    "tls.next_protocol": "http/1.1",
                },
            )
            at += took
        made.end(at)
        return at

    def send(self, service: Service, peer: Peer, parent: Span | None, start: int, size: int) -> int:
        attributes = {**self.attributes(peer, 41000), "tracesock.send.size": size}
        took = self.jitter(18_000 + size // 40)
        if size > 200_000:
            stalled = self.jitter(60 * MS)
            attributes["tracesock.send.stall.duration"] = stalled / 1e9
            attributes["tracesock.send.calls"] = 12
            took += stalled
            self.measure(service.stall, stalled, {"cause": "receiver"})
        self.span(service, f"socket send {peer.label}", parent, start, start + took, attributes)
        return start + took

    def call(
        self, service: Service, peer: Peer, parent: Span, start: int, method: str, path: str
    ) -> tuple[Span, int]:
        """An HTTP request of another instrumentation, around our spans; the span is not ended."""
        made = service.http.start_span(
            method,
            trace.set_span_in_context(parent),
            kind=SpanKind.CLIENT,
            attributes={
                "http.request.method": method,
                "url.full": f"http{'s' if peer.tls else ''}://{peer.name}:{peer.port}{path}",
                "server.address": peer.name,
                "server.port": peer.port,
            },
            start_time=start,
        )
        return made, start

    # -- a request ---------------------------------------------------------------------------------

    def request(self, start: int | None = None) -> str:
        """One order through all services; returns the trace id."""
        start = time.time_ns() - 400 * MS if start is None else start
        rng = self.random
        path = rng.choice(("/cart", "/checkout", "/checkout", "/orders/{id}"))
        root = self.checkout.app.start_span(
            f"POST {path}",
            Context(),
            kind=SpanKind.SERVER,
            attributes={"http.request.method": "POST", "http.route": path, "url.scheme": "https"},
            start_time=start,
        )
        at = start + self.jitter(400_000)

        # The database, over a pooled or a new connection
        if rng.random() < 0.25:
            at = self.setup(self.checkout, DATABASE, root, at)
        at = self.send(self.checkout, DATABASE, root, at, 412) + self.jitter(2 * MS)
        at = self.send(self.checkout, CACHE, root, at, 96) + self.jitter(MS)

        # The catalog, which reads its database
        call, _ = self.call(self.checkout, CATALOG, root, at, "GET", "/items")
        inner = self.send(self.checkout, CATALOG, call, at + 40_000, 300)
        served = self.catalog.app.start_span(
            "GET /items",
            trace.set_span_in_context(call),
            kind=SpanKind.SERVER,
            attributes={"http.request.method": "GET", "http.response.status_code": 200},
            start_time=inner + 200_000,
        )
        inner = self.send(self.catalog, DATABASE, served, inner + 600_000, 233) + self.jitter(
            3 * MS
        )
        served.end(inner)
        at = inner + 300_000
        call.end(at)

        failed = False
        if path != "/cart":
            call, begun = self.call(self.checkout, PAYMENTS, root, at, "POST", "/charge")
            inner = self.setup(self.checkout, PAYMENTS, call, begun + 30_000)
            inner = self.send(self.checkout, PAYMENTS, call, inner, 1_840)
            charge = self.payments.app.start_span(
                "POST /charge",
                trace.set_span_in_context(call),
                kind=SpanKind.SERVER,
                attributes={"http.request.method": "POST"},
                start_time=inner + 200_000,
            )
            bank, begun = self.call(self.payments, BANK, charge, inner + MS, "POST", "/v2/charges")
            failed = rng.random() < 0.06
            inner = self.setup(
                self.payments,
                BANK,
                bank,
                begun + 20_000,
                rng.choice(("connection_refused", "timed_out")) if failed else "",
            )
            if failed:
                bank.set_attribute("error.type", "ConnectError")
                bank.set_status(Status(StatusCode.ERROR, "connection to the bank failed"))
                bank.end(inner)
                self.log(self.payments, "charge failed, will retry", charge, inner)
            else:
                inner = self.send(
                    self.payments, BANK, bank, inner, 640_000 if rng.random() < 0.2 else 2_200
                )
                inner += self.jitter(30 * MS)
                bank.end(inner)
                inner = self.send(self.payments, DATABASE, charge, inner, 512) + self.jitter(2 * MS)
            if failed:
                charge.set_status(Status(StatusCode.ERROR, "bank unreachable"))
            charge.end(inner)
            at = inner + 200_000
            call.end(at)
        if rng.random() < 0.1:
            at = self.lookup(self.checkout, "inventory.corp.example", root, at, "host_not_found")
            at = self.lookup(self.checkout, "inventory", root, at, "host_not_found")
        if failed:
            root.set_status(Status(StatusCode.ERROR, "payment failed"))
        root.end(at + self.jitter(500_000))
        return format(root.get_span_context().trace_id, "032x")

    def feed(self, start: int) -> None:
        """The catalog's import from a partner: slow, far away, sometimes refused."""
        root = self.catalog.app.start_span("import feed", Context(), start_time=start)
        error = "timed_out" if self.random.random() < 0.2 else ""
        at = self.setup(self.catalog, FEED, root, start + MS, error)
        if error:
            root.set_status(Status(StatusCode.ERROR, "feed unreachable"))
        root.end(at + self.jitter(40 * MS))

    def mail(self, start: int) -> None:
        root = self.payments.app.start_span("send receipt", Context(), start_time=start)
        at = self.setup(self.payments, MAIL, root, start + MS)
        at = self.send(self.payments, MAIL, root, at, 7_400)
        root.end(at + self.jitter(5 * MS))

    def log(self, service: Service, text: str, span: Span, at: int, event: str = "") -> None:
        service.logger.emit(
            LogRecord(
                timestamp=at,
                observed_timestamp=at,
                context=trace.set_span_in_context(span),
                severity_number=SeverityNumber.WARN,
                body=text,
                event_name=event or None,
            )
        )

    # -- snapshots, decisions, leaks ---------------------------------------------------------------

    def record(
        self,
        service: Service,
        event: str,
        attributes: Mapping[str, Any],
        trace_id: int = 0,
        span_id: int = 0,
        at: int | None = None,
    ) -> None:
        context = (
            trace.set_span_in_context(
                trace.NonRecordingSpan(
                    trace.SpanContext(trace_id, span_id, False, trace.TraceFlags(1))
                )
            )
            if trace_id
            else Context()
        )
        service.logger.emit(
            LogRecord(
                timestamp=time.time_ns() if at is None else at,
                context=context,
                severity_number=SeverityNumber.INFO,
                event_name=event,
                attributes=dict(attributes),
            )
        )

    def tick(self, interval: float = 5.0) -> None:
        """A snapshot of every open connection of every service."""
        self.rounds += 1
        rng = self.random
        for service in self.services:
            now = time.time_ns()
            service.waiting = rng.randrange(0, 40)
            service.ports = dict.fromkeys(service.ports, 0)
            for link in service.links:
                service.ports[link.peer] += 1
                rtt = self.jitter(link.peer.latency)
                if link.state == "established":
                    link.sent += rng.randrange(0, 24_000)
                    link.received += rng.randrange(0, 160_000)
                attributes: dict[str, Any] = {
                    "tracesock.connection.id": link.identity,
                    "tracesock.connection.state": link.state,
                    "tracesock.connection.age": (now - link.opened) / 1e9,
                    "tracesock.connection.direction": "outbound",
                    "tracesock.connection.sent": link.sent,
                    "tracesock.connection.received": link.received,
                    "tracesock.connection.queued": link.queued,
                    "tracesock.connection.descriptor": int(link.identity.split(":")[1]),
                    "tracesock.connections.interval": interval,
                    "tracesock.tcp.rtt": rtt / 1e9,
                    "tracesock.tcp.retransmits": link.retransmits,
                    **self.attributes(link.peer, link.local_port),
                }
                if link.stack:
                    attributes["code.stacktrace"] = link.stack
                self.record(
                    service,
                    "tracesock.connections.snapshot",
                    attributes,
                    link.trace_id,
                    link.span_id,
                    now,
                )
            if service is self.payments:
                service.ports[BANK] = 19_800
        self.checkout.dropped.add(0, {"signal": "traces", "reason": "queue_full"})

    def own(self, trace_id: str) -> None:
        """Makes a trace the owner of some connections."""
        for service in self.services:
            for link in service.links[::2]:
                link.trace_id = int(trace_id, 16)
                link.span_id = self.random.getrandbits(64) | 1

    def decide(self, at: int | None = None, trace_id: str = "") -> None:
        """One decision of an egress policy, in the hash chain."""
        rng = self.random
        kind = rng.random()
        if kind < 0.8:
            peer, action, rule = rng.choice(PEERS), "allow", "internal"
            if peer in (BANK, FEED, MAIL):
                rule = "partners"
            outcome = "ok"
        elif kind < 0.92:
            peer = Peer("telemetry.vendor.example", "198.51.100.200", 443, True, 0)
            action, rule, outcome = "would_deny", "unlisted", "ok"
        else:
            peer = Peer("", "169.254.169.254", 80, False, 0)
            action, rule, outcome = "deny", "metadata", "PermissionError"
        self.sequence += 1
        digest = hashlib.sha256(f"{self.previous}{self.sequence}{action}".encode()).hexdigest()
        attributes: dict[str, Any] = {
            "tracesock.audit.action": action,
            "tracesock.audit.rule": rule,
            "tracesock.audit.event": "socket.connect",
            "tracesock.audit.direction": "egress",
            "tracesock.audit.outcome": outcome,
            "tracesock.audit.duration": self.jitter(peer.latency or 4_000) / 1e9,
            "tracesock.audit.sequence": self.sequence,
            "tracesock.audit.chain.id": "payments-4305",
            "tracesock.audit.chain.hash": digest,
            "tracesock.audit.chain.previous": self.previous,
            "network.peer.address": peer.address,
            "network.peer.port": peer.port,
            "process.pid": self.payments.pid,
        }
        if peer.name:
            attributes["server.address"] = peer.name
        self.previous = digest
        self.record(
            self.payments,
            "tracesock.audit.decision",
            attributes,
            int(trace_id or "0", 16),
            rng.getrandbits(64) | 1 if trace_id else 0,
            at,
        )

    def leak(self) -> None:
        """Two entries of the leak ledger."""
        for i, (kind, state) in enumerate(
            (("close_wait", "close_wait"), ("never_closed", "established"))
        ):
            peer = (FEED, DATABASE)[i]
            self.record(
                self.catalog,
                "tracesock.leak",
                {
                    "tracesock.connection.id": f"leak-{i}",
                    "tracesock.leak.kind": kind,
                    "tracesock.connection.state": state,
                    "tracesock.connection.age": (1840.0, 75.0)[i],
                    "tracesock.connection.descriptor": 19 + i,
                    "process.pid": self.catalog.pid,
                    "code.stacktrace": STACK.replace("checkout", "catalog"),
                    "server.address": peer.name,
                    "network.peer.address": peer.address,
                    "network.peer.port": peer.port,
                },
            )

    def history(self, minutes: float, per_minute: int = 20) -> None:
        """Requests of the past, oldest first, busier towards now."""
        self.measuring = False
        now = time.time_ns()
        begin = now - int(minutes * 60 * SECOND)
        at = begin
        last = ""
        while at < now - 2 * SECOND:
            share = (at - begin) / max(1, now - begin)
            last = self.request(at)
            if self.random.random() < 0.12:
                self.feed(at + 40 * MS)
            if self.random.random() < 0.1:
                self.mail(at + 20 * MS)
            if self.random.random() < 0.35:
                self.decide(at, last)
            at += int(
                60 * SECOND / (per_minute * (0.6 + 0.8 * share)) * self.random.uniform(0.5, 1.5)
            )
        self.measuring = True
        self.own(last or self.request())
        for _ in range(4):
            self.lookup(
                self.catalog, "old-feed.partner.example", None, now - SECOND, "host_not_found"
            )

    def flush(self) -> None:
        for service in self.services:
            service.flush()

    def shutdown(self) -> None:
        for service in self.services:
            service.shutdown()


PEERS = (DATABASE, CACHE, BANK, MAIL, PAYMENTS, CATALOG, FEED)


def main() -> None:
    parser = argparse.ArgumentParser(description="Send realistic telemetry to a dashboard.")
    parser.add_argument("--endpoint", default="http://127.0.0.1:8318")
    parser.add_argument("--history", type=float, default=30, help="minutes to make up at the start")
    parser.add_argument("--seconds", type=float, default=60, help="how long to go on")
    arguments = parser.parse_args()
    traffic = Traffic(arguments.endpoint)
    traffic.history(arguments.history)
    traffic.leak()
    end = time.monotonic() + arguments.seconds
    while time.monotonic() < end:
        trace_id = traffic.request()
        if traffic.random.random() < 0.5:
            traffic.decide(trace_id=trace_id)
        if traffic.random.random() < 0.2:
            traffic.feed(time.time_ns() - SECOND)
        traffic.tick(1.0)
        traffic.flush()
        time.sleep(1)
    traffic.shutdown()


if __name__ == "__main__":
    main()
