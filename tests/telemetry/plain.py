"""The plain SDK around a test: what an exporter gets of spans, and a reader of metrics."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import select
import socket as stock
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import tracesock


def every_point(reader: InMemoryMetricReader) -> dict[str, dict[frozenset[Any], Any]]:
    """What a reader collects now: each metric's data points by their attributes."""
    data = reader.get_metrics_data()
    return {
        metric.name: {
            frozenset((point.attributes or {}).items()): point for point in metric.data.data_points
        }
        for resource in (data.resource_metrics if data is not None else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


@dataclasses.dataclass
class Plain:
    """Telemetry that is on, with the SDK's own parts."""

    provider: TracerProvider
    exporter: InMemorySpanExporter
    meters: MeterProvider
    reader: InMemoryMetricReader

    @property
    def tracer(self) -> Any:
        return self.provider.get_tracer("test")

    def span(self, name: str = "request") -> Any:
        return self.tracer.start_as_current_span(name)

    def spans(self, prefix: str = "") -> list[ReadableSpan]:
        """tracesock's spans that were delivered until now, by their starts."""
        assert self.provider.force_flush()
        return sorted(
            (
                span
                for span in self.exporter.get_finished_spans()
                if span.instrumentation_scope is not None
                and span.instrumentation_scope.name == "tracesock"
                and span.name.startswith(prefix)
            ),
            key=lambda span: span.start_time or 0,
        )

    def only(self, prefix: str = "") -> ReadableSpan:
        (span,) = self.spans(prefix)
        return span

    def points(self, name: str) -> dict[frozenset[Any], Any]:
        return every_point(self.reader).get(name, {})

    def total(self, name: str, **attributes: Any) -> float:
        """The sum of a metric's points with these attributes (`_` for `.`); a histogram's is its
        number of observations."""
        wanted = {(key.replace("_", "."), value) for key, value in attributes.items()}
        return sum(
            point.count if hasattr(point, "count") else point.value
            for found, point in self.points(name).items()
            if wanted <= found
        )


def wait_for(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Until `condition()` is true; an error after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not become true in time"
        time.sleep(0.005)


@contextlib.contextmanager
def suppressing(key: Any = _SUPPRESS_INSTRUMENTATION_KEY) -> Iterator[None]:
    token = otel_context.attach(otel_context.set_value(key, True))
    try:
        yield
    finally:
        otel_context.detach(token)


@contextlib.contextmanager
def nobody(address: tuple[str, int] = ("127.0.0.1", 0)) -> Iterator[tuple[str, int]]:
    """An address at which nobody listens, and nobody else will meanwhile; at this one a server may
    listen that allows its address to be used again (SO_REUSEADDR)."""
    with suppressing():
        unused = stock.socket()
    with unused:
        unused.setsockopt(stock.SOL_SOCKET, stock.SO_REUSEADDR, 1)
        unused.bind(address)
        yield unused.getsockname()


@contextlib.contextmanager
def full_backlog() -> Iterator[Any]:
    """A server that answers no further SYN, because nobody accepts."""
    with contextlib.ExitStack() as stack:
        with suppressing():
            server = stack.enter_context(stock.socket())
            server.bind(("127.0.0.1", 0))
            server.listen(0)
            # The queue has room for one.
            first = stack.enter_context(stock.socket())
            first.connect(server.getsockname())
            assert select.select([server], [], [], 30)[0]
        yield server


def when_stalled(sender: Any, thread: int, wait: float) -> None:
    """Returns `wait` seconds after a thread of this process has begun to wait in a send, its native
    number `thread`: there is no room for more, and it sleeps (proc(5))."""
    state = Path(f"/proc/self/task/{thread}/stat")
    wait_for(
        lambda: (
            not select.select([], [sender], [], 0)[1]
            and state.read_text().rpartition(") ")[2].startswith("S")
        )
    )
    time.sleep(wait)


def in_file(path: Path, name: str = "") -> list[dict[str, Any]]:
    """The spans of a file of OTLP JSON lines whose names begin so."""
    return [
        span
        for line in path.read_text().splitlines()
        for resource in json.loads(line)["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
        if span["name"].startswith(name)
    ]


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def parent_id(span: ReadableSpan) -> int | None:
    return span.parent.span_id if span.parent is not None else None


def own_id(span: ReadableSpan) -> int:
    context = span.get_span_context()
    assert context is not None
    return context.span_id


def turn_on(
    provider: Mapping[str, Any] | None = None,
    readers: Any = None,
    views: Any = (),
    **config: Any,
) -> Plain:
    reader = InMemoryMetricReader()
    plain = Plain(
        TracerProvider(**{"shutdown_on_exit": False, **(provider or {})}),
        InMemorySpanExporter(),
        MeterProvider(
            readers if readers is not None else [reader], shutdown_on_exit=False, views=views
        ),
        reader,
    )
    plain.provider.add_span_processor(SimpleSpanProcessor(plain.exporter))
    tracesock.instrument(plain.provider, plain.meters, **config)
    return plain
