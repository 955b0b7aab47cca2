"""Peers: who calls whom, how fast, and what fails."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tracesock.dashboard import format as fmt
from tracesock.dashboard.charts import bars, graph, heat_map
from tracesock.dashboard.classify import OP_LABELS, Op
from tracesock.dashboard.markup import Child, Html, fragment, h
from tracesock.dashboard.pages.shell import (
    Column,
    Page,
    Screen,
    View,
    cell,
    field_,
    filters,
    heading,
    nothing_yet,
    pager,
    panel,
    peer_link,
    select,
    table,
)
from tracesock.dashboard.rows import Edge

_DRAWN = 16
_ROWS = 100
_SERVICE = Column("Service", class_="main")
_PEER = Column("Peer")
_WHAT = Column("Counted")
_RATE = Column("Rate", True)
_COUNT = Column("Count", True)
_P50 = Column("p50", True)
_P95 = Column("p95", True)
_P99 = Column("p99", True)
_ERRORS = Column("Errors", True)
_COLUMNS = (_SERVICE, _PEER, _WHAT, _RATE, _COUNT, _P50, _P95, _P99, _ERRORS)
_OPS = {op.name.lower(): op for op in (Op.CONNECT, Op.LOOKUP, Op.TLS, Op.SEND, Op.CLIENT, Op.RTT)}


def _render(view: View) -> Page:
    params, queries = view.params, view.queries
    filters_ = view.filter("1h")
    chosen = params.choice("of", list(_OPS), "connect")
    op = _OPS[chosen]
    offset = params.integer("offset", 0, 100_000)
    found = queries.edges(filters_, offset + _ROWS)
    edges = found.rows
    shown = edges[offset:]
    heat = queries.heatmap(filters_, op)
    failures = queries.failures(filters_)
    if not edges and not heat.summary.count and not failures:
        content: Child = nothing_yet(view, "peers")
    else:
        drawn, columns = _map(view, edges) if edges else (None, 0)
        content = fragment(
            h(
                "div",
                panel(
                    "Map",
                    drawn or h("p", "No connects in this time.", class_="muted"),
                    note=f"the {_DRAWN} busiest of {fmt.number(found.total)} edges"
                    if found.total > _DRAWN
                    else None,
                    class_="map",
                ),
                h(
                    "div",
                    panel(
                        f"{OP_LABELS[op].capitalize()} latency",
                        heat_map(heat, _plural(op))
                        if heat.summary.count
                        else h("p", f"No {_plural(op)} in this time.", class_="muted"),
                        note=f"from {heat.source}" if heat.source else None,
                    ),
                    panel("Failures", _failures(failures), note="by error.type"),
                    class_="stack",
                ),
                class_="peer-grid" if columns < 4 else "peer-grid wide",
            ),
            panel(
                "Edges",
                _table(view, shown),
                pager(params, offset, _ROWS, len(shown), found.total > offset + _ROWS),
                note=f"{fmt.number(found.total)}, busiest first",
            )
            if shown
            else None,
        )
    operation = field_(
        "Latency of",
        select("of", "f-of", chosen, [(name, OP_LABELS[o]) for name, o in _OPS.items()], "connect"),
        "f-of",
    )
    body = fragment(
        heading(
            view, "Peers", subtitle="Who calls whom; choose a peer to narrow all screens to it"
        ),
        filters(view, operation, ranges="1h", own=("of",)),
        content,
    )
    return Page("Peers", body, "/peers")


def _plural(op: Op) -> str:
    return {Op.CLIENT: "requests", Op.RTT: "round trips", Op.TLS: "handshakes"}.get(
        op, f"{OP_LABELS[op]}s"
    )


def _map(view: View, edges: Sequence[Edge]) -> tuple[Html, int]:
    params = view.params
    drawn = edges[:_DRAWN]
    services = {e.service for e in edges}
    nodes: dict[str, tuple[str, str, str, str]] = {}
    lines = []
    most = max(e.summary.count for e in drawn)
    for edge in drawn:
        source = f"s:{edge.service}"
        nodes.setdefault(
            source, (source, edge.service, "service", params.link(service=edge.service))
        )
        if edge.target and edge.target != edge.service:
            target, text, kind = f"s:{edge.target}", edge.target, "service"
        elif edge.peer in services:
            target, text, kind = f"s:{edge.peer}", edge.peer, "service"
        else:
            target, text, kind = f"p:{edge.peer}", edge.peer, "peer"
        # A known service is reached by its address: the filter of all screens is that peer.
        nodes.setdefault(target, (target, text, kind, params.link(peer=edge.peer)))
        failed = edge.summary.error_rate
        tone = "bad" if failed >= 0.05 else "warn" if failed > 0 else ""
        p99 = fmt.duration(edge.summary.percentile(0.99))
        label = f"{fmt.rate(edge.rate)} · p99 {p99}"
        if failed:
            label += f"\n{fmt.percent(failed)} fail"
        title = (
            f"{edge.service} to {edge.peer}: {fmt.number(edge.summary.count)}"
            f" {_plural(edge.basis)}, {fmt.rate(edge.rate)}, p99 {p99},"
            f" {fmt.percent(failed)} failed"
        )
        width = 1.2 + 3.3 * math.log1p(edge.summary.count) / math.log1p(most)
        lines.append((source, target, label, tone, {"title": title, "width": f"{width:.1f}"}))
    picture, columns = graph(list(nodes.values()), lines)
    whole = fragment(
        picture,
        h(
            "p",
            h("span", h("i", class_="swatch node-service"), "service", class_="key"),
            h("span", h("i", class_="swatch node-peer"), "peer without telemetry", class_="key"),
            h("span", h("i", class_="swatch edge-warn"), "under 5 % fail", class_="key"),
            h("span", h("i", class_="swatch edge-bad"), "5 % or more fail", class_="key"),
            class_="legend",
        ),
    )
    return whole, columns


def _failures(failures: list[tuple[Op, str, float]]) -> Html:
    if not failures:
        return h("p", "Nothing failed in this time.", class_="muted")
    return bars(
        [(f"{error} ({OP_LABELS[op]})", n, "bad") for op, error, n in failures[:10]],
        "Failures by error type",
    )


def _table(view: View, edges: Sequence[Edge]) -> Html:
    return table(
        _COLUMNS,
        [
            h(
                "tr",
                cell(_SERVICE, h("a", e.service, href=view.params.link(service=e.service))),
                cell(
                    _PEER,
                    peer_link(view, e.peer),
                    h("small", f" {e.target}", class_="muted") if e.target else None,
                ),
                cell(_WHAT, _plural(e.basis)),
                cell(_RATE, fmt.rate(e.rate)),
                cell(_COUNT, fmt.number(round(e.summary.count))),
                cell(_P50, fmt.duration(e.summary.percentile(0.5))),
                cell(_P95, fmt.duration(e.summary.percentile(0.95))),
                cell(_P99, fmt.duration(e.summary.percentile(0.99))),
                cell(
                    _ERRORS,
                    fmt.percent(e.summary.error_rate),
                    class_="bad" if e.summary.error_rate >= 0.05 else "",
                ),
                id=f"e-{e.service}-{e.peer}",
            )
            for e in edges
        ],
        "Edges: calls of a service to a peer",
        class_="cards",
    )


SCREEN = Screen("/peers", "Peers", "peers", _render)
