"""One trace: the waterfall, and a span's details at its side."""

from __future__ import annotations

import json
import re
from functools import cached_property
from typing import Any

from tracesock.dashboard import format as fmt
from tracesock.dashboard.charts import moment
from tracesock.dashboard.classify import OP_LABELS, Op
from tracesock.dashboard.ingest import OTHER
from tracesock.dashboard.markup import Child, Html, fragment, h
from tracesock.dashboard.names import EVENT_RETRANSMIT
from tracesock.dashboard.pages.shell import Page, View, badge, empty, heading, op_badge, panel
from tracesock.dashboard.queries import MAX_WATERFALL
from tracesock.dashboard.rows import NS, LogRow, SpanRow, Trace

_KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")
_TICKS = 5  # at most
_DEEPEST = 12
_SECTION = "/traces"


def is_id(text: str) -> bool:
    """Whether a path's last part is a trace id: 32 hexadecimal digits."""
    return re.fullmatch(r"[0-9a-f]{32}", text) is not None


def render(view: View, trace_id: str) -> Page:
    """The page of a trace; status 404 while it is not stored."""
    trace = view.queries.trace(trace_id, MAX_WATERFALL)
    if trace is None or not trace.spans:
        body = fragment(
            heading(view, "Trace"),
            empty(
                "This trace is not stored",
                "Its spans have not arrived yet, were not sampled, or were deleted by retention."
                " If they arrive, they appear here.",
                link=("All traces", view.params.to("/traces")),
            ),
        )
        return Page("Trace", body, _SECTION, 404)
    params = view.params
    chosen = next((s for s in trace.spans if s.span_id == params.text("span")), None)
    within = params.text("within")
    scale = _Scale(trace, next((s for s in trace.spans if s.span_id == params.text("zoom")), None))
    matching = {s.span_id for s in trace.spans if within and _matches(s, within)}
    errors = sum(1 for s in trace.spans if s.error)
    services = list(dict.fromkeys(s.service for s in trace.spans))
    logs: dict[str, list[LogRow]] = {}
    for log in trace.logs:
        logs.setdefault(log.span_id, []).append(log)

    facts: list[Child] = [
        h("span", fmt.duration(trace.duration), class_="strong"),
        h("span", f"{fmt.number(trace.total)} span{'' if trace.total == 1 else 's'}"),
        badge(f"{errors} error{'' if errors == 1 else 's'}", "bad") if errors else None,
        h("span", moment(trace.start, "full")),
        h("span", ", ".join(services)),
        h("span", trace_id, class_="mono muted"),
    ]
    rows = [
        _row(view, span, scale, chosen, within, matching, logs.get(span.span_id, []))
        for span in trace.spans
    ]
    note: Child = None
    if trace.total > len(trace.spans):
        note = f"the first {MAX_WATERFALL} of {fmt.number(trace.total)} spans"
    elif within:
        note = f"{len(matching)} of {len(trace.spans)} spans match"
    waterfall = panel(
        "Waterfall",
        h(
            "div",
            h(
                "div",
                h("span", "Span"),
                scale.axis(),
                h("span", "Duration", class_="num"),
                class_="wf-head",
            ),
            h("ol", rows, class_="wf-rows", aria_label="Spans in the order of the call tree"),
            class_="wf",
        ),
        _legend(trace),
        note=note,
        class_="waterfall",
    )
    body = fragment(
        heading(
            view,
            trace.name or "Trace",
            h(
                "div",
                h(
                    "a",
                    "OTLP JSON",
                    href=f"/traces/{trace_id}/otlp.json",
                    class_="button",
                    download=True,
                ),
                h(
                    "a",
                    "Perfetto",
                    href=f"/traces/{trace_id}/perfetto.json",
                    class_="button",
                    download=True,
                    title="A file for ui.perfetto.dev or chrome://tracing",
                ),
                class_="actions",
                role="group",
                aria_label="Export",
            ),
            subtitle=h("span", facts, class_="fact-line"),
        ),
        _search(view, within, scale.zoomed),
        h(
            "div",
            waterfall,
            _details(view, trace, chosen, logs.get(chosen.span_id, []))
            if chosen
            else _unattached(view, logs.get("", [])),
            class_="split open" if chosen or logs.get("") else "split",
        ),
    )
    return Page(trace.name or "Trace", body, _SECTION)


class _Scale:
    """The time axis: the whole trace, or one span and a little around it."""

    def __init__(self, trace: Trace, zoom: SpanRow | None) -> None:
        first = min((s.start for s in trace.spans), default=trace.start)
        last = max((s.end for s in trace.spans), default=trace.end)
        if zoom is not None:
            margin = max(1, (zoom.end - zoom.start) // 20)
            self.start, self.end = zoom.start - margin, zoom.end + margin
        else:
            self.start, self.end = first, max(last, first + 1)
        self.origin = first
        self.zoomed = zoom is not None

    def at(self, time_ns: int) -> float:
        """The place of a time as a percentage, kept just outside the axis at both ends."""
        share = 100 * (time_ns - self.start) / (self.end - self.start)
        return min(101.0, max(-1.0, share))

    @cached_property
    def ticks(self) -> list[tuple[float, str]]:
        """Places, as percentages, and texts of round times since the trace began."""
        step = _round_up((self.end - self.start) / _TICKS)
        first = -(-(self.start - self.origin) // step)
        last = (self.end - self.origin) // step
        offsets = [n * step for n in range(first, last + 1) if n >= 0]
        return [
            (self.at(self.origin + o), fmt.duration_exact(o / NS) if o else "0") for o in offsets
        ]

    def axis(self) -> Html:
        return h(
            "svg",
            [
                h(
                    "text",
                    text,
                    x=f"{at:.2f}%",
                    y="14",
                    text_anchor="start" if at < 4 else "end" if at > 96 else "middle",
                    class_="axis",
                )
                for at, text in self.ticks
            ],
            class_="wf-axis",
            aria_hidden="true",
        )

    def guides(self) -> list[Html]:
        return [
            h("line", x1=f"{at:.2f}%", x2=f"{at:.2f}%", y1="0", y2="100%", class_="guide")
            for at, _ in self.ticks
        ]


def _round_up(nanoseconds: float) -> int:
    """The next of 1, 2 or 5 times a power of ten."""
    power = 1
    while True:
        for factor in (1, 2, 5):
            if factor * power >= nanoseconds:
                return factor * power
        power *= 10


def _row(
    view: View,
    span: SpanRow,
    scale: _Scale,
    chosen: SpanRow | None,
    within: str,
    matching: set[str],
    logs: list[LogRow],
) -> Html:
    selected = chosen is not None and chosen.span_id == span.span_id
    after = (span.start - scale.origin) / NS
    described = (
        f"{OP_LABELS[span.op]}, starts after {fmt.duration(after)},"
        f" takes {fmt.duration(span.duration)}"
    )
    if span.error:
        described += f", failed: {span.error}"
    if span.stall:
        described += f", stalled for {fmt.duration(span.stall)}"
    if span.retransmits:
        described += f", {span.retransmits} retransmits"
    classes = [f"depth-{min(span.depth, _DEEPEST)}"]
    if selected:
        classes.append("selected")
    if within and span.span_id not in matching:
        classes.append("dim")
    if span.error:
        classes.append("failed")
    return h(
        "li",
        h(
            "a",
            h(
                "span",
                h("i", class_=f"swatch op-{span.op.name.lower()}"),
                h("span", span.name or "(unnamed)", class_="wf-text"),
                h("small", _beside(span), class_="muted"),
                h("small", "parent not received", class_="muted") if span.orphan else None,
                class_="wf-name",
            ),
            h("span", described, class_="sr"),
            _track(span, scale, logs),
            h(
                "span",
                fmt.duration(span.duration),
                h("small", span.error if span.error != OTHER else "error", class_="error")
                if span.error
                else None,
                class_="wf-duration num",
            ),
            href=view.params.link(span=None if selected else span.span_id),
            aria_current="true" if selected else None,
            title=f"{span.name}: {described}",
        ),
        h(
            "button",
            h("span", "Fold the spans below", class_="sr"),
            type="button",
            class_="fold",
            data_role="fold",
            aria_expanded="true",
        )
        if span.children
        else None,
        id=f"s-{span.span_id}",
        class_=" ".join(classes),
        data_depth=span.depth,
    )


def _beside(span: SpanRow) -> str:
    """What stands beside a span's name: the service where it changes, whom a request calls."""
    if not span.depth or span.op is Op.SERVER:
        return span.service
    return span.peer if span.op is Op.CLIENT and span.peer not in span.name else ""


def _track(span: SpanRow, scale: _Scale, logs: list[LogRow]) -> Html:
    left, right = scale.at(span.start), scale.at(span.end)
    kind = "op-" + span.op.name.lower()
    marks = scale.guides()
    if right > left or -1 < left < 101:
        marks.append(
            h(
                "rect",
                x=f"{left:.3f}%",
                y="7",
                width=f"{max(0.0, right - left):.3f}%",
                height="12",
                rx="2",
                class_=f"bar {kind}{' failed' if span.error else ''}",
            )
        )
    if span.stall:
        # When it stood still is not told, only how long: drawn at the end, where it is most often.
        begin = scale.at(max(span.start, span.end - int(span.stall * NS)))
        marks.append(
            h(
                "rect",
                h("title", f"stalled for {fmt.duration(span.stall)}"),
                x=f"{begin:.3f}%",
                y="7",
                width=f"{max(0.0, right - begin):.3f}%",
                height="12",
                class_="bar stall",
            )
        )
    for time_ns, name, _ in span.events[:50]:
        marks.append(_marker("log", scale.at(time_ns), f"event: {name}"))
    for log in logs[:50]:
        if log.event == EVENT_RETRANSMIT:
            marks.append(_marker("retransmit", scale.at(log.time), "retransmit"))
        else:
            marks.append(
                _marker("log", scale.at(log.time), log.event or log.body[:80] or "log record")
            )
    told = sum(1 for log in logs if log.event == EVENT_RETRANSMIT)
    if span.retransmits > told:
        marks.append(_marker("retransmit", right, f"{span.retransmits} retransmits"))
    if span.error:
        marks.append(_marker("error", right, f"failed: {span.error}"))
    return h("svg", marks, class_="wf-track", aria_hidden="true")


_SHAPES = {
    "error": "M-4 -4L4 4M4 -4L-4 4",
    "retransmit": "M0 -5L5 4H-5Z",
    "log": "M0 -4L4 0L0 4L-4 0Z",
}


def _marker(kind: str, at: float, title: str) -> Html:
    return h(
        "svg",
        h("title", title),
        h("circle", r="7", class_="halo") if kind == "error" else None,
        h("path", d=_SHAPES[kind]),
        x=f"{at:.3f}%",
        y="13",
        width="1",
        height="1",
        overflow="visible",
        class_=f"marker {kind}",
    )


def _legend(trace: Trace) -> Html:
    ops = sorted({s.op for s in trace.spans}, key=lambda op: op.value)
    keys: list[Child] = [h("span", op_badge(op), class_="key") for op in ops]
    if any(s.stall for s in trace.spans):
        keys.append(h("span", h("i", class_="swatch stall"), "stall", class_="key"))
    for kind, present in (
        (
            "retransmit",
            any(s.retransmits for s in trace.spans)
            or any(log.event == EVENT_RETRANSMIT for log in trace.logs),
        ),
        ("error", any(s.error for s in trace.spans)),
        ("log", bool(trace.logs) or any(s.events for s in trace.spans)),
    ):
        if present:
            shape = h(
                "svg",
                h("path", d=_SHAPES[kind]),
                viewBox="-7 -7 14 14",
                class_=f"marker key-mark {kind}",
                aria_hidden="true",
            )
            keys.append(
                h("span", shape, {"log": "log record or event"}.get(kind, kind), class_="key")
            )
    return h("p", keys, class_="legend")


def _search(view: View, within: str, zoomed: bool) -> Html:
    params = view.params
    return h(
        "form",
        [h("input", type="hidden", name=k, value=v) for k, v in params.hidden("within")],
        h(
            "div",
            h("label", "Search within", for_="f-within"),
            h(
                "input",
                type="search",
                name="within",
                id="f-within",
                value=within,
                placeholder="Name, attribute or value",
                autocomplete="off",
                spellcheck="false",
                maxlength="200",
            ),
            class_="field grow",
        ),
        h("a", "Whole trace", href=params.link(zoom=None), class_="chip") if zoomed else None,
        class_="filters",
        role="search",
        action=params.path,
        method="get",
        data_filters=True,
    )


def _matches(span: SpanRow, text: str) -> bool:
    text = text.lower()
    if text in span.name.lower() or text in span.service.lower() or text in span.error.lower():
        return True
    if text in span.span_id or text in OP_LABELS[span.op].lower():
        return True
    return any(
        text in key.lower() or text in _value(value).lower()
        for key, value in span.attributes.items()
    )


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, dict)):
        return json.dumps(value, ensure_ascii=False)
    return "" if value is None else str(value)


def _attribute(key: str, value: Any) -> str:
    """A value with its unit, where the name tells it."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if key.endswith(".duration"):
            return f"{fmt.duration(float(value))} ({value} s)"
        if key.endswith(".size"):
            return f"{fmt.size(value)} ({value} B)" if value >= 1000 else f"{value} B"
    if isinstance(value, list):
        return ", ".join(_value(v) for v in value)
    return _value(value)


def _details(view: View, trace: Trace, span: SpanRow, logs: list[LogRow]) -> Html:
    params = view.params
    kind = _KINDS[span.kind] if 0 <= span.kind < len(_KINDS) else str(span.kind)
    facts: list[tuple[str, Child]] = [
        ("Operation", op_badge(span.op)),
        ("Service", h("a", span.service, href=params.to("/traces", service=span.service))),
        ("Start", moment(span.start, "full")),
        (
            "After",
            fmt.duration((span.start - trace.spans[0].start) / NS)
            if span.start >= trace.spans[0].start
            else fmt.DASH,
        ),
        ("Duration", fmt.duration(span.duration)),
    ]
    if span.error:
        facts.append(("Error", badge(span.error, "bad")))
    if span.status_message:
        facts.append(("Message", span.status_message))
    if span.peer and span.op is not Op.LOOKUP:
        facts.append(("Peer", h("a", span.peer, href=params.to("/peers", peer=span.peer))))
    rest: list[tuple[str, Child]] = [
        ("Kind", kind),
        ("Scope", f"{span.scope} {span.scope_version}".strip() or fmt.DASH),
        ("Span id", h("span", span.span_id, class_="mono")),
        ("Parent id", h("span", span.parent_id or fmt.DASH, class_="mono")),
    ]
    if span.trace_state:
        rest.append(("Trace state", span.trace_state))
    if span.dropped_attributes:
        rest.append(("Dropped", f"{span.dropped_attributes} attributes"))
    for trace_id, span_id in span.links:
        rest.append(
            (
                "Link",
                h(
                    "a",
                    trace_id[:8],
                    href=params.to(f"/traces/{trace_id}", span=span_id),
                    class_="mono",
                ),
            )
        )
    moments = [(t, name, attributes, "") for t, name, attributes in span.events] + [
        (log.time, log.event, log.attributes, log.body) for log in logs
    ]
    return h(
        "aside",
        h(
            "div",
            h("h2", span.name or "(unnamed)"),
            h(
                "a",
                h("span", "\u00d7", aria_hidden="true"),
                h("span", "Close the details", class_="sr"),
                href=params.link(span=None),
                class_="close",
                data_role="close",
            ),
            class_="panel-head",
        ),
        _facts(facts),
        h(
            "p",
            h("a", "Zoom to this span", href=params.link(zoom=span.span_id), class_="button"),
        ),
        _section("Attributes", sorted(span.attributes.items())),
        h("h3", "Records") if moments else None,
        [
            h(
                "div",
                h("p", moment(t), " ", h("strong", name or "log record")),
                h("p", body) if body else None,
                _facts([(k, _attribute(k, v)) for k, v in attributes.items()]),
                class_="record",
            )
            for t, name, attributes, body in sorted(moments, key=lambda m: m[0])
        ],
        h("h3", "Span"),
        _facts(rest),
        _section("Resource", sorted(span.resource.items())),
        class_="panel details",
        aria_label="Details of the span",
        id="details",
    )


def _section(title: str, items: list[tuple[str, Any]]) -> Html | None:
    if not items:
        return None
    return fragment(
        h("h3", title),
        _facts([(key, _attribute(key, value)) for key, value in items]),
    )


def _facts(items: list[tuple[str, Child]]) -> Html:
    return h(
        "dl",
        [h("div", h("dt", _breakable(key)), h("dd", value)) for key, value in items],
        class_="facts rows",
    )


def _breakable(name: str) -> list[Child]:
    """A dotted name that may be broken after its dots."""
    first, *rest = name.split(".")
    return [first, *(fragment(".", h("wbr"), part) for part in rest)]


def _unattached(view: View, logs: list[LogRow]) -> Html | None:
    """Log records of the trace that name no span."""
    if not logs:
        return None
    return h(
        "aside",
        h("div", h("h2", "Log records of this trace"), class_="panel-head"),
        [
            h(
                "div",
                h("p", moment(log.time), " ", h("strong", log.event)),
                h("p", log.body),
                class_="record",
            )
            for log in logs
        ],
        class_="panel details",
        aria_label="Log records of this trace",
    )
