"""Traces as waterfalls in the terminal: what `tracesock demo` and the examples show."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tracesock.instrumentation.spans import printable

_COLOURS = {
    "DNS": "magenta",
    "socket connection_setup": "blue",
    "socket connect": "cyan",
    "socket send": "green",
    "TLS": "yellow",
}
_BAR = 32
_WIDTH = 130  # columns where the output is no terminal


@dataclass(frozen=True, slots=True)
class Span:
    """A finished span, wherever it came from; times in ns since the Unix epoch."""

    name: str
    trace_id: bytes
    span_id: bytes
    parent_id: bytes | None
    start: int
    end: int
    attributes: Mapping[str, Any] = field(default_factory=dict)
    failed: bool = False
    service: str = ""


def of_sdk(span: Any) -> Span:
    """A span of the OpenTelemetry SDK (a ReadableSpan)."""
    return Span(
        span.name,
        span.context.trace_id.to_bytes(16, "big"),
        span.context.span_id.to_bytes(8, "big"),
        None if span.parent is None else span.parent.span_id.to_bytes(8, "big"),
        span.start_time,
        span.end_time,
        span.attributes or {},
        span.status.status_code.name == "ERROR",
        str(span.resource.attributes.get("service.name", "")),
    )


def of_otlp(request: Any) -> Iterator[Span]:
    """The spans of an ExportTraceServiceRequest, as opentelemetry.proto has it."""
    for resource_spans in request.resource_spans:
        resource = _attributes(resource_spans.resource.attributes)
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                yield Span(
                    span.name,
                    span.trace_id,
                    span.span_id,
                    span.parent_span_id or None,
                    span.start_time_unix_nano,
                    span.end_time_unix_nano,
                    _attributes(span.attributes),
                    span.status.code == span.status.STATUS_CODE_ERROR,
                    str(resource.get("service.name", "")),
                )


def _attributes(pairs: Iterable[Any]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, kind) if kind else None


def console() -> Console:
    """The terminal, or what is wide enough where there is none."""
    made = Console()
    return made if made.is_terminal else Console(width=_WIDTH)


def show(spans: Iterable[Span], on: Console | None = None) -> None:
    """Draw each trace, the earliest first: a root, what is below it, and when it was."""
    on = on or console()
    spans = list(spans)
    known = {(span.trace_id, span.span_id) for span in spans}
    roots = [
        span
        for span in spans
        if span.parent_id is None or (span.trace_id, span.parent_id) not in known
    ]
    several = len({span.service for span in spans}) > 1
    for root in sorted(roots, key=lambda span: span.start):
        own = [span for span in spans if span.trace_id == root.trace_id]
        table = Table(
            title=Text(printable(root.name)), title_justify="left", title_style="bold", box=None
        )
        table.add_column("span", no_wrap=True, overflow="ellipsis", max_width=56)
        if several:
            table.add_column("service", no_wrap=True)
        table.add_column("time", justify="right", no_wrap=True)
        table.add_column("0 to " + duration(root.end - root.start), no_wrap=True)
        table.add_column("what", overflow="fold")
        for depth, span in tree(root, own):
            colour = next(
                (c for name, c in _COLOURS.items() if span.name.startswith(name)), "white"
            )
            cells = [
                Text("  " * depth + printable(span.name), style="red" if span.failed else colour),
                Text(duration(span.end - span.start)),
                Text(_bar(root, span), style="red" if span.failed else colour),
                Text(printable(_notes(span)), style="red" if span.failed else "dim"),
            ]
            if several:
                cells.insert(1, Text(printable(span.service), style="dim"))
            table.add_row(*cells)
        on.print(table)
        on.print()


def tree(root: Span, spans: Iterable[Span]) -> list[tuple[int, Span]]:
    """`root` and the spans below it, each with its depth, in the order of their starts."""
    children: dict[bytes, list[Span]] = {}
    for span in sorted(spans, key=lambda each: (each.start, -each.end)):
        if span is not root and span.parent_id is not None:
            children.setdefault(span.parent_id, []).append(span)
    rows: list[tuple[int, Span]] = []

    def walk(span: Span, depth: int) -> None:
        rows.append((depth, span))
        # Once: spans of a broken sender may be in a circle.
        for child in children.pop(span.span_id, []):
            walk(child, depth + 1)

    walk(root, 0)
    return rows


def _bar(root: Span, span: Span) -> str:
    whole = max(1, root.end - root.start)
    start = max(0, span.start - root.start)
    first = min(_BAR - 1, start * _BAR // whole)
    length = max(1, round((span.end - span.start) * _BAR / whole))
    return " " * first + "━" * min(length, _BAR - first)


def _notes(span: Span) -> str:
    attributes = span.attributes
    notes = []
    if "tracesock.send.size" in attributes:
        notes.append(f"{attributes['tracesock.send.size']} B")
    if "tracesock.send.stall.duration" in attributes:
        notes.append(f"stalled {duration(attributes['tracesock.send.stall.duration'] * 1e9)}")
    if "dns.answers" in attributes:
        notes.append(", ".join(attributes["dns.answers"]))
    if "tls.protocol.version" in attributes:
        notes.append(f"TLS {attributes['tls.protocol.version']}, {attributes.get('tls.cipher')}")
    if attributes.get("tls.resumed"):
        notes.append("resumed")
    if "error.type" in attributes:
        notes.append(str(attributes["error.type"]))
    return "  ".join(notes)


def duration(nanoseconds: float) -> str:
    """A time with the unit that fits it."""
    for unit, size in (("s", 1e9), ("ms", 1e6)):
        if nanoseconds >= size:
            return f"{nanoseconds / size:.1f} {unit}"
    return f"{nanoseconds / 1e3:.0f} µs"
