"""Connections, the landing page: what is open now, and what was tried last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tracesock.dashboard import format as fmt
from tracesock.dashboard.charts import moment, sparkline
from tracesock.dashboard.markup import Child, Html, fragment, h
from tracesock.dashboard.pages.shell import (
    Column,
    Page,
    Screen,
    View,
    badge,
    cell,
    empty,
    field_,
    filters,
    heading,
    nothing_yet,
    op_badge,
    pager,
    panel,
    peer_link,
    run_command,
    select,
    table,
    tile,
    trace_link,
)
from tracesock.dashboard.rows import Attempt, Connection, Filter

_ROWS = 100
_PEER = Column("Peer", sort="peer", class_="main")
_HOST = Column("Host", sort="host", class_="wide")
_STATE = Column("State", sort="state")
_AGE = Column("Age", True, "age")
_RTT = Column("RTT", True, "rtt", note="Smoothed round-trip time, with its last values")
_SENT = Column("Sent", True, "sent")
_RECEIVED = Column("Received", True, "received")
_RETRANSMITS = Column("Retrans.", True, "retransmits", note="Retransmitted segments")
_QUEUED = Column("Queued", True, "queued", note="Bytes not yet acknowledged or not yet sent")
_OWNER = Column("Owner trace", note="The trace whose span opened the connection")
_COLUMNS = (
    _PEER,
    _HOST,
    _STATE,
    _AGE,
    _RTT,
    _SENT,
    _RECEIVED,
    _RETRANSMITS,
    _QUEUED,
    _OWNER,
)
SORTS: dict[str, Callable[[Connection], Any]] = {
    "peer": lambda c: c.address or c.peer,
    "host": lambda c: c.host,
    "state": lambda c: c.state,
    "age": lambda c: c.age,
    "rtt": lambda c: c.rtt,
    "sent": lambda c: c.sent,
    "received": lambda c: c.received,
    "retransmits": lambda c: c.retransmits,
    "queued": lambda c: c.queued,
}
# Tones of TCP states: those that stay when something is wrong stand out.
_TONES = {
    "established": "ok",
    "open": "ok",
    "close_wait": "warn",
    "syn_sent": "warn",
    "fin_wait1": "muted",
    "fin_wait2": "muted",
    "listen": "info",
    "closed": "muted",
    "gone": "muted",
}


def sort_connections(rows: list[Connection], sort: str, descending: bool) -> list[Connection]:
    """Rows by a key of SORTS; what is not reported comes last either way."""
    key = SORTS[sort]
    known = [c for c in rows if key(c) is not None]
    known.sort(key=lambda c: (key(c), c.connection_id), reverse=descending)
    return known + [c for c in rows if key(c) is None]


def _render(view: View) -> Page:
    params, queries = view.params, view.queries
    shared = params.filter(queries.now, "all")
    filters_ = Filter(shared.service, shared.peer)
    states = ("established", "close_wait", "syn_sent", "listen", "closed", "gone")
    state = params.choice("state", states, "")
    sort = params.choice("sort", list(SORTS), "age")
    descending = params.choice("dir", ("asc", "desc"), "desc") == "desc"
    offset = params.integer("offset", 0, 1_000_000)

    rows = queries.connections(filters_, params.text("q"))
    present = sorted({c.state for c in rows})
    if state:
        rows = [c for c in rows if c.state == state]
    listening = sum(c.live and c.state == "listen" for c in rows)
    live = sum(c.live for c in rows) - listening
    gone = len(rows) - live - listening
    rows = sort_connections(rows, sort, descending)
    # What is open comes before what has gone.
    rows.sort(key=lambda c: not c.live)
    shown = rows[offset : offset + _ROWS]
    chosen = params.text("open")
    lines: list[Html] = []
    for connection in shown:
        identity = f"{connection.instance}-{connection.connection_id}"
        lines.append(_row(view, connection, identity, identity == chosen))
        if identity == chosen:
            lines.append(_detail(view, connection))

    state_filter = field_(
        "State",
        select(
            "state",
            "f-state",
            state,
            [("", "All states"), *((s, s) for s in (present if not state else states))],
        ),
        "f-state",
    )
    attempts = queries.attempts(filters_, 30)
    if not rows and not attempts and not queries.has_anything():
        content: Child = nothing_yet(view, "connections")
    else:
        counted = ((live, "open"), (listening, "listening"), (gone, "gone"))
        note = ", ".join(f"{n} {text}" for n, text in counted if n) or "none"
        content = fragment(
            panel(
                "Connections",
                table(
                    _COLUMNS,
                    lines,
                    "Connections, newest snapshot of each process",
                    params,
                    sort,
                    descending,
                    "cards connections",
                ),
                pager(params, offset, _ROWS, len(shown), len(rows) > offset + _ROWS),
                note=note,
            )
            if rows
            else panel("Connections", _no_snapshots(view, bool(params.text("q") or state))),
            panel(
                "Last attempts",
                _attempts(view, attempts),
                note="connects, and look-ups and handshakes that failed",
            )
            if attempts
            else None,
        )
    body = fragment(
        heading(view, "Connections", subtitle="What every process has open, live"),
        filters(
            view,
            state_filter,
            search="Peer, host, process, state",
            own=("state",),
        ),
        _tiles(view, filters_),
        content,
    )
    return Page("Connections", body, "/")


def _tiles(view: View, filters_: Filter) -> Html:
    t = view.queries.tiles(filters_)
    lookup, connect = t.lookup.percentile(0.95), t.connect.percentile(0.95)
    refused = f"{fmt.number(t.dropped)} at the source"
    if t.refused:
        refused += f", {fmt.number(t.refused)} requests refused here"
    return h(
        "section",
        tile("Open", fmt.number(t.open), "connections now"),
        tile(
            "Failed a minute",
            fmt.number(round(t.failed_minute)),
            "look-ups and connects",
            t.failed_trend,
            "bars",
            "bad" if t.failed_minute else "",
        ),
        tile(
            "Look-up p95",
            fmt.duration(lookup),
            _basis(t.lookup.count, t.lookup_source),
            t.lookup_trend,
        ),
        tile(
            "Connect p95",
            fmt.duration(connect),
            _basis(t.connect.count, t.connect_source),
            t.connect_trend,
        ),
        tile(
            "Stalls",
            fmt.number(round(t.stalls)),
            f"p95 {fmt.duration(t.stall_p95)}, last 5 minutes"
            if t.stalls
            else "sends, last 5 minutes",
            t.stall_trend,
            "bars",
            "warn" if t.stalls else "",
        ),
        tile(
            "Dropped telemetry",
            fmt.number(t.dropped + t.refused),
            refused,
            tone="warn" if t.dropped or t.refused else "",
        ),
        class_="tiles",
        aria_label="Key figures",
    )


def _basis(count: float, source: str) -> str:
    if not count:
        return "none in the last 5 minutes"
    return f"{fmt.compact(count)} in 5 minutes, from {source}"


def _row(view: View, c: Connection, identity: str, opened: bool) -> Html:
    params = view.params
    name = c.address or c.peer or c.local or "(unnamed)"
    return h(
        "tr",
        cell(
            _PEER,
            h(
                "a",
                name,
                href=params.link(open=None if opened else identity),
                class_="row-link",
                aria_expanded="true" if opened else "false",
                title="Show its details",
            ),
            h("small", f"{c.service}{f' · {c.pid}' if c.pid else ''}", class_="muted under"),
        ),
        cell(_HOST, peer_link(view, c.peer) if c.host else fmt.DASH),
        cell(_STATE, badge(c.state, _TONES.get(c.state, "info"))),
        cell(_AGE, fmt.duration(c.age)),
        cell(
            _RTT,
            sparkline(c.rtt_history[-30:]),
            h("span", fmt.duration(c.rtt)),
            class_="with-spark",
        ),
        cell(_SENT, fmt.size(c.sent)),
        cell(_RECEIVED, fmt.size(c.received)),
        cell(_RETRANSMITS, fmt.number(c.retransmits), class_="warn" if c.retransmits else ""),
        cell(_QUEUED, fmt.size(c.queued), class_="warn" if (c.queued or 0) > 65536 else ""),
        cell(_OWNER, trace_link(view, c.trace_id, c.span_id)),
        id=f"c-{identity}",
        class_=None if c.live else "gone",
    )


def _detail(view: View, c: Connection) -> Html:
    facts: list[tuple[str, Child]] = [
        ("Service", c.service),
        ("Process", str(c.pid) if c.pid else fmt.DASH),
        ("Descriptor", str(c.descriptor) if c.descriptor is not None else fmt.DASH),
        ("Direction", c.direction or fmt.DASH),
        ("Transport", c.transport),
        ("Local", c.local or fmt.DASH),
        ("Peer", c.address or fmt.DASH),
        ("Connection", c.connection_id),
        ("Last seen", moment(c.seen)),
        ("Owner trace", trace_link(view, c.trace_id, c.span_id, c.trace_id)),
    ]
    return h(
        "tr",
        h(
            "td",
            h("dl", [h("div", h("dt", k), h("dd", v)) for k, v in facts], class_="facts"),
            h("h3", "Opened at"),
            h("pre", h("code", c.stack), tabindex="0")
            if c.stack
            else h("p", "The process did not record the stack that opened it.", class_="muted"),
            colspan=len(_COLUMNS),
        ),
        class_="detail",
    )


def _attempts(view: View, attempts: list[Attempt]) -> Html:
    columns = (
        Column("Time"),
        Column("What"),
        Column("Peer", class_="main"),
        Column("Service"),
        Column("Duration", True),
        Column("Outcome"),
        Column("Trace"),
    )
    return table(
        columns,
        [
            h(
                "tr",
                cell(columns[0], moment(a.start)),
                cell(columns[1], op_badge(a.op)),
                cell(columns[2], peer_link(view, a.peer)),
                cell(columns[3], a.service),
                cell(columns[4], fmt.duration(a.duration)),
                cell(columns[5], badge(a.error, "bad") if a.error else badge("ok", "ok")),
                cell(columns[6], trace_link(view, a.trace_id, a.span_id)),
                id=f"a-{a.span_id}",
            )
            for a in attempts
        ],
        "Last connects, and look-ups and handshakes that failed",
        class_="cards",
    )


def _no_snapshots(view: View, filtered: bool) -> Html:
    if filtered:
        return empty(
            "No connections match the filter",
            "Others may.",
            link=(
                "Remove the filter",
                view.params.link(q=None, state=None, peer=None, service=None),
            ),
        )
    return empty(
        "No live connections reported",
        "What is open is told by programs that run under tracesock, every five seconds. Connects"
        " of any OpenTelemetry SDK are listed below and under Traces.",
        run_command(view.info),
    )


SCREEN = Screen("/", "Connections", "connections", _render)
