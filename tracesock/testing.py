"""For tests of programs that tracesock instruments: what was recorded, the same in every run.

`InMemoryRecorder` turns the telemetry on for a `with` block and hands back spans and metrics;
pytest finds it as the fixture `tracesock_spans`. Identifiers and times are counters, so that a test
can compare whole spans. docs/how-to/test-your-own-telemetry.md shows both at work.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import Tracer

import tracesock
from tracesock import dropin, instrumentation
from tracesock.instrumentation import semconv

__all__ = ["CountingIdGenerator", "InMemoryRecorder", "RecordedSpan"]


class CountingIdGenerator(IdGenerator):
    """Trace and span identifiers 1, 2, 3 ..., each kind on its own; from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spans = itertools.count(1)
        self._traces = itertools.count(1)

    def generate_span_id(self) -> int:
        with self._lock:
            return next(self._spans)

    def generate_trace_id(self) -> int:
        with self._lock:
            return next(self._traces)


@dataclass(frozen=True)
class RecordedSpan:
    """A span as a test compares it.

    Traces are numbered from 1 in the order of their first spans, and spans from 1 in the order of
    the tree: a parent before its children, siblings as they started. `start` and `end` are ticks of
    one counter in that order, so that a parent encloses its children; the times as measured, in
    nanoseconds, are in `raw`.
    """

    name: str
    trace_id: int
    span_id: int
    parent_id: int | None
    """None for a root, and for a span whose parent was not recorded."""
    start: int
    end: int
    attributes: Mapping[str, Any]
    error: str | None
    """`error.type`, None on success."""
    raw: ReadableSpan = field(compare=False, repr=False)
    """The span as an exporter got it."""


class InMemoryRecorder:
    """Records the telemetry of a `with` block.

    `install` puts tracesock under the standard library's `socket` meanwhile
    (`tracesock.install()`), for code that does not import tracesock itself. The other arguments are
    settings of `tracesock.instrumentation.Config`. Raises what `tracesock.instrument()` raises, on
    entry.

    An instrumentation that was in force ends on entry. What was recorded can be read until the
    recorder is entered again.
    """

    def __init__(self, *, install: bool = False, **config: Any) -> None:
        self._install = install
        self._installed = False
        self._config = config
        self._exporter = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self.tracer_provider = TracerProvider(
            id_generator=CountingIdGenerator(), shutdown_on_exit=False
        )
        """Where the spans go; give it to the code under test for spans of its own."""
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.meter_provider = MeterProvider([self._reader], shutdown_on_exit=False)
        """Where the metrics go."""

    def __enter__(self) -> InMemoryRecorder:
        self._exporter.clear()
        self._installed = self._install and not dropin.installed()
        if self._installed:
            tracesock.install()
        try:
            tracesock.instrument(
                tracer_provider=self.tracer_provider,
                meter_provider=self.meter_provider,
                **self._config,
            )
        except BaseException:
            self._uninstall()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        tracesock.uninstrument()
        self._uninstall()

    def _uninstall(self) -> None:
        if self._installed:
            self._installed = False
            tracesock.uninstall()

    def tracer(self, name: str = "test") -> Tracer:
        """A tracer for the test's own spans: `with recorder.tracer().start_as_current_span(...)`.

        A send becomes a span only below a recording span.
        """
        return self.tracer_provider.get_tracer(name)

    def clear(self) -> None:
        """Forget the spans until now; metrics go on counting."""
        instrumentation.flush()
        self._exporter.clear()

    # --- spans --------------------------------------------------------------------------------

    def spans(self, prefix: str = "") -> list[RecordedSpan]:
        """The spans that ended until now, in the order of the tree; `prefix` keeps those whose name
        begins with it."""
        return [span for span, _ in self._walk() if span.name.startswith(prefix)]

    def tree(self, replace: Mapping[str, str] | None = None) -> str:
        """A line for each span, children indented below their parents, failed ones with their
        `error.type` in brackets. `replace` exchanges what differs from run to run, such as the port
        of a test's server: `tree({str(port): "PORT"})`."""
        lines = []
        for span, depth in self._walk():
            text = span.name if span.error is None else f"{span.name} [{span.error}]"
            for old, new in (replace or {}).items():
                text = text.replace(old, new)
            lines.append("  " * depth + text)
        return "\n".join(lines)

    def _walk(self) -> Iterator[tuple[RecordedSpan, int]]:
        instrumentation.flush()
        finished = sorted(
            self._exporter.get_finished_spans(), key=lambda span: (span.start_time or 0, span.name)
        )
        known = {_identity(span) for span in finished}
        children: dict[tuple[int, int] | None, list[ReadableSpan]] = {}
        for span in finished:
            parent = (span.parent.trace_id, span.parent.span_id) if span.parent else None
            children.setdefault(parent if parent in known else None, []).append(span)
        traces: dict[int, int] = {}
        numbers, ticks = itertools.count(1), itertools.count(1)

        def visit(
            siblings: Sequence[ReadableSpan], parent: int | None, depth: int
        ) -> Iterator[tuple[RecordedSpan, int]]:
            for span in siblings:
                identity = _identity(span)
                trace = traces.setdefault(identity[0], len(traces) + 1)
                number, start = next(numbers), next(ticks)
                below = list(visit(children.get(identity, ()), number, depth + 1))
                attributes = dict(span.attributes or {})
                error = attributes.get(semconv.ERROR_TYPE)
                yield (
                    RecordedSpan(
                        span.name,
                        trace,
                        number,
                        parent,
                        start,
                        next(ticks),
                        attributes,
                        None if error is None else str(error),
                        span,
                    ),
                    depth,
                )
                yield from below

        return visit(children.get(None, ()), None, 0)

    # --- metrics ------------------------------------------------------------------------------

    def points(self, metric: str, attributes: Mapping[str, Any] | None = None) -> list[Any]:
        """The data points of a metric, as the SDK has them, since the recorder was made; only those
        with all of `attributes`, where these are given."""
        data = self._reader.get_metrics_data()
        wanted = (attributes or {}).items()
        return [
            point
            for resource in (data.resource_metrics if data is not None else ())
            for scope in resource.scope_metrics
            for each in scope.metrics
            if each.name == metric
            for point in each.data.data_points
            if wanted <= dict(point.attributes or {}).items()
        ]

    def total(self, metric: str, attributes: Mapping[str, Any] | None = None) -> float:
        """The sum of a counter's or gauge's points, or the number of a histogram's observations;
        0 where there is none."""
        total = 0
        for point in self.points(metric, attributes):
            total += point.value if hasattr(point, "value") else point.count
        return total


def _identity(span: ReadableSpan) -> tuple[int, int]:
    context = span.get_span_context()
    return (context.trace_id, context.span_id) if context is not None else (0, 0)


try:
    import pytest
except ImportError:
    pass
else:

    def pytest_configure(config: pytest.Config) -> None:
        config.addinivalue_line(
            "markers",
            "tracesock(install=False, **config): how the fixture tracesock_spans records",
        )

    @pytest.fixture
    def tracesock_spans(request: pytest.FixtureRequest) -> Iterator[InMemoryRecorder]:
        """An InMemoryRecorder that records while the test runs; the marker `tracesock` gives its
        arguments: `@pytest.mark.tracesock(install=True, send_spans="off")`."""
        marker = request.node.get_closest_marker("tracesock")
        with InMemoryRecorder(**(marker.kwargs if marker is not None else {})) as recorder:
            yield recorder
