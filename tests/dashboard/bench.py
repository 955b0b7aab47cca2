"""The dashboard's figures with a million spans stored: first paint, filters, ingest, memory.

    python tests/dashboard/bench.py                 # a table
    python tests/dashboard/bench.py --json FILE     # and the figures as JSON

Starts `tracesock dashboard` on a scratch database, fills it over OTLP/HTTP with an hour's spans,
and opens it in Chromium. Then spans that have just ended come at the rate to be shown while the
page is open, and what the server, the sender and the browser take of the processors is told apart.
Where playwright or Chromium is missing, the time of the HTML answer stands for the first paint. All
of it is on the loopback interface and ends by itself.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

TARGETS = {
    "first_paint_ms": 2000.0,
    "filter_ms": 500.0,
    "ingest_spans_per_second": 20_000.0,
    "memory_mb": 300.0,
}
SPANS_IN_REQUEST = 512
SERVICES = ("checkout", "payments", "catalog", "search", "mail")
CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SCREENS = ("/", "/traces", "/peers", "/dns", "/audit", "/health")


class Template:
    """A serialized request whose trace ids can be made new without encoding it again."""

    def __init__(self, seed: int, now: int, spread: float) -> None:
        rng = random.Random(seed)
        request = ExportTraceServiceRequest()
        resource = request.resource_spans.add()
        service = SERVICES[seed % len(SERVICES)]
        for key, value in (("service.name", service), ("service.instance.id", f"{service}-1")):
            resource.resource.attributes.add(key=key).value.string_value = value
        scope = resource.scope_spans.add()
        scope.scope.name, scope.scope.version = "tracesock", "0.1.0"
        ids: list[bytes] = []
        while len(scope.spans) < SPANS_IN_REQUEST:
            trace_id = rng.randbytes(16)
            ids.append(trace_id)
            _trace(rng, scope.spans, trace_id, now - int(rng.random() * spread * 1e9))
        del scope.spans[SPANS_IN_REQUEST:]
        self._body = bytearray(request.SerializeToString())
        self._offsets = [
            match.start() for i in ids for match in re.finditer(re.escape(i), bytes(self._body))
        ]

    def fresh(self, serial: int) -> bytes:
        prefix = serial.to_bytes(6, "big")
        body = self._body
        for offset in self._offsets:
            body[offset : offset + 6] = prefix
        return bytes(body)


def _trace(rng: random.Random, spans: Any, trace_id: bytes, start: int) -> None:
    """One request: server span, set-up with look-up, connect and handshake, three sends."""
    peer = rng.randrange(200)
    host, address = f"peer-{peer}.example", f"10.{peer // 100}.0.{peer % 100 + 1}"
    failed = rng.random() < 0.03
    root, setup = rng.randbytes(8), rng.randbytes(8)
    whole = int(rng.lognormvariate(17, 0.8))
    plan = (
        (f"GET /items/{peer % 20}", root, b"", 0.0, 1.0, 2),
        (f"socket connection_setup {host}:443", setup, root, 0.05, 0.5, 1),
        (f"DNS lookup {host}", rng.randbytes(8), setup, 0.05, 0.1, 1),
        (f"socket connect {address}:443", rng.randbytes(8), setup, 0.15, 0.2, 1),
        (f"TLS client handshake {host}", rng.randbytes(8), setup, 0.35, 0.2, 1),
        (f"socket send {address}:443", rng.randbytes(8), root, 0.6, 0.01, 1),
        (f"socket send {address}:443", rng.randbytes(8), root, 0.7, 0.01, 1),
        (f"socket send {address}:443", rng.randbytes(8), root, 0.8, 0.01, 1),
    )
    for name, span_id, parent, begin, share, kind in plan:
        span = spans.add(
            trace_id=trace_id,
            span_id=span_id,
            parent_span_id=parent,
            name=name,
            kind=kind,
            start_time_unix_nano=start + int(whole * begin),
            end_time_unix_nano=start + int(whole * (begin + share * rng.random())),
        )
        texts = {"network.peer.address": address, "server.address": host, "network.type": "ipv4"}
        numbers = {"network.peer.port": 443, "server.port": 443, "network.local.port": 51000}
        if name.startswith("DNS"):
            texts, numbers = {"dns.question.name": host}, {}
        elif name.startswith("GET"):
            texts, numbers = {"http.request.method": "GET", "url.path": "/items"}, {}
        if failed and name.startswith("socket connect "):
            texts["error.type"] = rng.choice(("connection_refused", "timed_out"))
            span.status.code = 2
        for key, text in texts.items():
            span.attributes.add(key=key).value.string_value = text
        for key, number in numbers.items():
            span.attributes.add(key=key).value.int_value = number


class Sender:
    """Posts requests over a few kept connections, at most at a given rate."""

    def __init__(self, port: int, templates: Sequence[Template], connections: int = 6) -> None:
        self._port = port
        self._templates = templates
        self._connections = connections
        self._lock = threading.Lock()
        self._serial = 0
        self.sent = 0
        self.refused = 0

    def use(self, templates: Sequence[Template]) -> None:
        """Sends others from now on."""
        self._templates = templates

    def _body(self) -> bytes:
        with self._lock:
            self._serial += 1
            return self._templates[self._serial % len(self._templates)].fresh(self._serial)

    def send(self, spans: int, rate: float | None = None) -> float:
        """Sends `spans` spans, returns the seconds it took."""
        requests = -(-spans // SPANS_IN_REQUEST)
        left = iter(range(requests))
        began = time.perf_counter()

        def work() -> None:
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
            while True:
                with self._lock:
                    turn = next(left, None)
                if turn is None:
                    break
                if rate is not None:
                    due = began + turn * SPANS_IN_REQUEST / rate
                    time.sleep(max(0.0, due - time.perf_counter()))
                self._post(connection)
            connection.close()

        threads = [threading.Thread(target=work) for _ in range(self._connections)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.perf_counter() - began

    def _post(self, connection: http.client.HTTPConnection) -> None:
        body = self._body()
        while True:
            connection.request(
                "POST", "/v1/traces", body, {"content-type": "application/x-protobuf"}
            )
            response = connection.getresponse()
            response.read()
            if response.status == 200:
                with self._lock:
                    self.sent += SPANS_IN_REQUEST
                return
            if response.status not in (429, 503):
                raise RuntimeError(f"the dashboard answered {response.status}")
            with self._lock:
                self.refused += 1
            time.sleep(float(response.headers.get("retry-after", 1)) / 4)


def memory_mb(pid: int, field: str) -> float:
    text = Path(f"/proc/{pid}/status").read_text()
    match = re.search(rf"^{field}:\s+(\d+) kB", text, re.M)
    return int(match[1]) / 1000 if match else 0.0


def browser_cpu_seconds() -> float:
    """Of all processes that come of this one and are Chromium's."""
    parents: dict[int, int] = {}
    seconds: dict[int, float] = {}
    for directory in Path("/proc").iterdir():
        if directory.name.isdecimal():
            try:
                name, rest = (directory / "stat").read_text().split("(", 1)[1].rsplit(")", 1)
                parents[int(directory.name)] = int(rest.split()[1])
                if "chrom" in name:
                    seconds[int(directory.name)] = cpu_seconds(int(directory.name))
            except OSError:
                continue
    total = 0.0
    for pid, used in seconds.items():
        while pid not in (0, os.getpid()):
            pid = parents.get(pid, 0)
        total += used if pid else 0.0
    return total


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def dashboard(database: Path) -> Iterator[tuple[int, int]]:
    """The port and process id of a running dashboard."""
    command = [sys.executable, "-m", "tracesock", "dashboard", "--port", "0", "--otlp-port", "0"]
    command += ["--database", str(database), "--no-browser"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        match = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
        if match is None:
            raise RuntimeError(f"the dashboard did not start: {line!r}")
        yield int(match[1]), process.pid
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def browser() -> Iterator[Any]:
    """A Chromium, or None where it or playwright is missing."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        yield None
        return
    if not os.path.exists(CHROMIUM):
        yield None
        return
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield chromium
        finally:
            chromium.close()


def first_paint(chromium: Any, base: str, path: str) -> float:
    """Milliseconds to the first contentful paint, which holds the data: the median of three."""
    if chromium is None:
        times = []
        for _ in range(3):
            began = time.perf_counter()
            urllib.request.urlopen(base + path).read()
            times.append((time.perf_counter() - began) * 1000)
        return statistics.median(times)
    times = []
    for _ in range(3):
        context = chromium.new_context(viewport={"width": 1400, "height": 900})
        page = context.new_page()
        page.goto(base + path)
        # Playwright's own wait evaluates text in the page, which its policy does not allow.
        while not page.evaluate("performance.getEntriesByName('first-contentful-paint').length"):
            page.wait_for_timeout(20)
        times.append(
            page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        )
        context.close()
    return statistics.median(times)


_FILTER = """
([selector, value]) => new Promise((done, failed) => {
  const control = document.querySelector(selector);
  const began = performance.now();
  const watch = new MutationObserver(() => {
    const root = document.documentElement;
    if (root.dataset.shown === location.pathname + location.search && location.search !== before) {
      watch.disconnect();
      requestAnimationFrame(() => done(performance.now() - began));
    }
  });
  const before = location.search;
  watch.observe(document.documentElement, { attributes: true });
  control.focus();
  control.value = value;
  control.dispatchEvent(new Event("input", { bubbles: true }));
  setTimeout(() => failed(new Error(`no answer to ${selector}=${value}`)), 20000);
})
"""
FILTERS = {
    "service": ("/traces", "#f-service", "payments"),
    "error type": ("/traces", "#f-error", "timed_out"),
    "duration": ("/traces", "#f-min", "900ms"),
    "duration, no match": ("/traces", "#f-min", "2h"),
    "peer": ("/traces", "#f-peer", "peer-17.example:443"),
    "text": ("/traces", "#f-q", "peer-123"),
    "text, no match": ("/traces", "#f-q", "nothing has this name"),
    "time": ("/traces", "#f-range", "5m"),
    "peers by service": ("/peers", "#f-service", "search"),
    "names by text": ("/dns", "#f-q", "peer-42"),
    "longest, by text": ("/traces?sort=duration", "#f-q", "peer"),
    "failed, by service": ("/traces?error=any&min=50ms", "#f-service", "mail"),
    "peers, time": ("/peers", "#f-range", "24h"),
    "connections": ("/", "#f-service", "search"),
}
_QUERIES = {
    "#f-service": "service",
    "#f-error": "error",
    "#f-min": "min",
    "#f-peer": "peer",
    "#f-q": "q",
    "#f-range": "range",
}


def filter_times(chromium: Any, base: str) -> dict[str, float]:
    """Milliseconds from the change of a filter to its rows on the page, typing pause included."""
    out = {}
    for name, (path, selector, value) in FILTERS.items():
        times = []
        for _ in range(3):
            if chromium is None:
                joint = "&" if "?" in path else "?"
                url = f"{base}{path}{joint}{urllib.parse.urlencode({_QUERIES[selector]: value})}"
                began = time.perf_counter()
                urllib.request.urlopen(url).read()
                times.append((time.perf_counter() - began) * 1000)
                continue
            context = chromium.new_context(viewport={"width": 1400, "height": 900})
            page = context.new_page()
            page.goto(base + path)
            page.wait_for_selector("[data-state=live]")
            times.append(page.evaluate(_FILTER, [selector, value]))
            context.close()
        out[name] = statistics.median(times)
    return out


def run(spans: int, seconds: float, database: Path) -> dict[str, Any]:
    """All figures."""
    now = time.time_ns()
    templates = [Template(i, now, 3000.0) for i in range(60)]
    with dashboard(database) as (port, pid), browser() as chromium:
        base = f"http://127.0.0.1:{port}"
        sender = Sender(port, templates)
        cpu = cpu_seconds(pid)
        took = sender.send(spans)
        filled = sender.sent / took
        filled_by_cpu = sender.sent / (cpu_seconds(pid) - cpu)
        print(f"stored {sender.sent} spans in {took:.1f} s", file=sys.stderr)
        paints = {path: first_paint(chromium, base, path) for path in SCREENS}
        filters = filter_times(chromium, base)

        page = None
        if chromium is not None:
            page = chromium.new_page(viewport={"width": 1400, "height": 900})
            page.goto(f"{base}/traces")
            page.wait_for_selector("[data-state=live]")
            page.evaluate(
                "window.updates = 0; new MutationObserver(() => window.updates++).observe("
                "document.documentElement, {attributes: true, attributeFilter: ['data-shown']})"
            )
        sender.use([Template(i, time.time_ns(), 5.0) for i in range(60)])
        cpu, refused, sent = cpu_seconds(pid), sender.refused, sender.sent
        own, others = time.process_time(), browser_cpu_seconds()
        wanted = int(TARGETS["ingest_spans_per_second"] * seconds)
        took = sender.send(wanted, TARGETS["ingest_spans_per_second"])
        open_rate = (sender.sent - sent) / took
        figures = {
            "spans_stored": sender.sent,
            "database_mb": database.stat().st_size / 1e6,
            "first_paint_ms": max(paints.values()),
            "first_paint_ms_by_screen": paints,
            "filter_ms": max(filters.values()),
            "filter_ms_by_filter": filters,
            "ingest_spans_per_second": open_rate,
            "ingest_seconds": took,
            "ingest_cpu_share": (cpu_seconds(pid) - cpu) / took,
            "ingest_sender_cpu_share": (time.process_time() - own) / took,
            "ingest_browser_cpu_share": (browser_cpu_seconds() - others) / took,
            "ingest_spans_per_cpu_second": (sender.sent - sent) / (cpu_seconds(pid) - cpu),
            "ingest_refused_requests": sender.refused - refused,
            "ingest_page_updates": page.evaluate("window.updates") if page else None,
            "fill_spans_per_second": filled,
            # What the server can do with a core of its own, whatever else the machine does.
            "fill_spans_per_cpu_second": filled_by_cpu,
            "memory_mb": memory_mb(pid, "VmHWM"),
            "memory_now_mb": memory_mb(pid, "VmRSS"),
            "browser": chromium.version if chromium is not None else None,
            "machine": {"cores": os.cpu_count(), "load": os.getloadavg()[0]},
        }
    return figures


def table(figures: dict[str, Any]) -> str:
    lines = [f"{'figure':<34}{'measured':>14}{'target':>14}"]
    for name, text in (
        ("first_paint_ms", "first paint, slowest screen, ms"),
        ("filter_ms", "filter, slowest, ms"),
        ("ingest_spans_per_second", "ingest, page open, spans/s"),
        ("memory_mb", "memory, highest, MB"),
    ):
        sign = ">=" if name == "ingest_spans_per_second" else "<"
        lines.append(f"{text:<34}{figures[name]:>14.0f}{f'{sign} {TARGETS[name]:.0f}':>14}")
    lines.append("")
    for path, value in figures["first_paint_ms_by_screen"].items():
        lines.append(f"{f'  first paint {path}, ms':<34}{value:>14.0f}")
    for name, value in figures["filter_ms_by_filter"].items():
        lines.append(f"{f'  filter: {name}, ms':<34}{value:>14.0f}")
    for name in (
        "spans_stored",
        "database_mb",
        "fill_spans_per_second",
        "fill_spans_per_cpu_second",
        "ingest_spans_per_cpu_second",
        "ingest_cpu_share",
        "ingest_sender_cpu_share",
        "ingest_browser_cpu_share",
        "ingest_refused_requests",
        "ingest_page_updates",
        "memory_now_mb",
    ):
        value = figures[name]
        shown = "-" if value is None else f"{value:.2f}" if value < 10 else f"{value:.0f}"
        lines.append(f"{'  ' + name.replace('_', ' '):<34}{shown:>14}")
    lines.append(f"  load of the machine (1 min): {figures['machine']['load']:.1f}")
    return "\n".join(lines)


def met(figures: dict[str, Any]) -> bool:
    """Whether every target is met; the paced sender can only come within a little of its rate."""
    return (
        figures["first_paint_ms"] < TARGETS["first_paint_ms"]
        and figures["filter_ms"] < TARGETS["filter_ms"]
        and figures["ingest_spans_per_second"] >= 0.97 * TARGETS["ingest_spans_per_second"]
        and figures["memory_mb"] < TARGETS["memory_mb"]
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--spans", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=20, help="length of the paced ingest")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="tracesock-bench-"))
    try:
        figures = run(arguments.spans, arguments.seconds, directory / "bench.sqlite3")
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(table(figures))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0 if met(figures) else 1


if __name__ == "__main__":
    sys.exit(main())
