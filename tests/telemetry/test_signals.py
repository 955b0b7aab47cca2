"""A signal handler that flushes, turns telemetry off or raises, wherever the main thread is just
then."""

from __future__ import annotations

import _thread
import contextlib
import functools
import operator
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import context as otel_context

import tracesock.instrumentation
from tests.telemetry.lines import SignalAt
from tests.telemetry.plain import Plain
from tracesock.instrumentation.observer import SERVER

ROOT = Path(__file__).resolve().parents[2]
STEP = 11  # of the lines, which one
# Interrupts `operation` at one line of its code after the other, each time in an instrumentation
# of its own, by a signal whose handler does `action`. What there was to tell is told once in each.
PROGRAM = """
import faulthandler, os, signal, sys
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
import tracesock
from tests.telemetry.lines import SignalAt
from tracesock import instrumentation

operation, action, ours, step = sys.argv[1:]
exporter = InMemorySpanExporter()
provider = TracerProvider(shutdown_on_exit=False)
provider.add_span_processor(SimpleSpanProcessor(exporter))
reader = InMemoryMetricReader()
meters = MeterProvider([reader], shutdown_on_exit=False)
parent = trace.NonRecordingSpan(trace.SpanContext(1, 2, False, trace.TraceFlags(1)))
server = tracesock.create_server(("127.0.0.1", 0))
DO = {
    "flush": instrumentation.flush,
    "force_flush": provider.force_flush,
    "collect": reader.get_metrics_data,
    "uninstrument": tracesock.uninstrument,
    "instrument": lambda: tracesock.instrument(provider, meters, drain_interval=600.0),
}
handled = 0

def handler(number, frame):
    global handled
    handled += 1
    DO[action]()

signal.signal(signal.SIGUSR1, handler)

def some_work():
    with trace.use_span(parent):
        with tracesock.create_connection(("localhost", server.getsockname()[1])) as client:
            accepted, _ = server.accept()
            with accepted:
                client.send(b"x")
                accepted.recv(1)
                client.send(b"yz")
                accepted.recv(2)

def spans():
    found = sorted(each.name.split(":")[0] for each in exporter.get_finished_spans())
    exporter.clear()
    return found

def told():
    # How often a metric was recorded, or its sum, by name and attributes.
    data = reader.get_metrics_data()
    found = {}
    for resource in data.resource_metrics if data else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                if metric.name == "tracesock.telemetry.lag":  # one for each round
                    continue
                for point in metric.data.data_points:
                    key = metric.name, *sorted(point.attributes.items())
                    value = point.count if hasattr(point, "count") else point.value
                    found[key] = found.get(key, 0) + value
    return found

def one_round(line):
    # How often the handler ran, and how many lines were left.
    global handled
    faulthandler.dump_traceback_later(60, exit=True)
    DO["instrument"]()
    some_work()
    handled = 0
    at_a_line = SignalAt(signal.SIGUSR1, ours, line)
    sys.settrace(at_a_line)
    try:
        DO[operation]()
    finally:
        sys.settrace(None)
    tracesock.uninstrument()
    return handled, at_a_line.left

for _ in range(3):  # until every metric has been told
    spans(), told()
    one_round(never := 10**9)
wanted, now = spans(), told()
_, left = one_round(never)
lines = never - left
assert spans() == wanted and len(wanted) >= 4, wanted
before, now = now, told()
counted = {key: now[key] - before[key] for key in now}
interrupted = 0
for line in range(1, lines + 1, int(step)):
    interrupted += one_round(line)[0]
    assert spans() == wanted, line
    before, now = now, told()
    wrong = {key: now[key] - before[key] for key in now if now[key] - before[key] != counted[key]}
    assert not wrong, (line, wrong, counted)
print(lines, interrupted)
"""


@pytest.mark.parametrize("action", ["flush", "force_flush", "uninstrument", "instrument"])
@pytest.mark.parametrize("operation", ["flush", "collect", "uninstrument"])
def test_a_signal_handler_in_the_midst_of_it(operation: str, action: str) -> None:
    ours = str(Path(tracesock.instrumentation.__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, operation, action, ours, str(STEP)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines, interrupted = map(int, done.stdout.split())
    # In some rounds the drain has delivered before the main thread has, which is then done sooner.
    assert interrupted > lines / STEP / 2


UNKNOWN = "a." * 300  # too long for a nameserver to be asked


class Stop(BaseException):
    """What the handler raises."""


@pytest.fixture
def stopping() -> Iterator[None]:
    """SIGINT raises Stop."""

    def stop(number: int, frame: Any) -> None:
        raise Stop(number)

    before = signal.signal(signal.SIGINT, stop)
    yield
    signal.signal(signal.SIGINT, before)


def interrupted(call: Callable[[], Any]) -> None:
    """Calls it while a signal has come that the interpreter has not looked at yet, as during a
    look-up that takes its time."""
    with contextlib.suppress(OSError):
        list(map(operator.call, (_thread.interrupt_main, call)))
    for _ in range(1000):
        pass


@pytest.mark.parametrize("context", ["known", "new"])
@pytest.mark.parametrize("call", ["lookup", "connect", "send"])
def test_what_a_signal_handler_raises_is_not_lost(
    telemetry: Callable[..., Plain], stopping: None, call: str, context: str
) -> None:
    plain = telemetry()
    near, far = tracesock.socketpair()
    with near, far, tracesock.socket() as client:
        calls = {
            "lookup": tracesock._native.getaddrinfo(UNKNOWN, 80).run,
            "connect": functools.partial(client.connect, (UNKNOWN, 80)),
            "send": functools.partial(near.send, b"x"),
        }
        with plain.span():
            if context == "known":
                near.send(b"x")
            with pytest.raises(Stop) as raised:
                interrupted(calls[call])
    assert raised.value.args == (signal.SIGINT,)
    # A look-up that has failed is told as such, and once.
    told = [span.attributes or {} for span in plain.spans("DNS lookup ")]
    assert [dict(each) for each in told] == [
        {"dns.question.name": UNKNOWN, "error.type": each["error.type"]} for each in told
    ]
    assert len(told) == (call != "send")


def test_an_interrupted_set_up_leaves_the_callers_context(
    telemetry: Callable[..., Plain], stopping: None
) -> None:
    """At whichever line of the package the handler runs."""
    plain = telemetry()
    ours = str(Path(tracesock.__file__).parent)

    def stopped_at(line: int) -> bool:
        sys.settrace(SignalAt(signal.SIGINT, ours, line))
        try:
            tracesock.create_connection((UNKNOWN, 80))
        except OSError:
            return False
        except Stop:
            return True
        finally:
            sys.settrace(None)
        raise AssertionError("connected")

    with plain.span():
        context = otel_context.get_current()
        line = 1
        while stopped_at(line):
            assert otel_context.get_current() is context, line
            assert SERVER.get(None) is None, line
            line += 1
        assert line > 30
