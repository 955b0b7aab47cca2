"""Traces: the list, with its filters."""

from __future__ import annotations

from tracesock.dashboard import format as fmt
from tracesock.dashboard.charts import moment
from tracesock.dashboard.classify import split_host_port
from tracesock.dashboard.markup import Child, Html, fragment, h
from tracesock.dashboard.pages.shell import (
    Column,
    Page,
    Screen,
    View,
    badge,
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
from tracesock.dashboard.rows import TraceQuery, TraceRow

_ROWS = 50
_TIME = Column("Start", True, "start", class_="time")
_NAME = Column("Trace", class_="main")
_PEERS = Column("Peers")
_SPANS = Column("Spans", True, "spans")
_ERRORS = Column("Errors", True, "errors")
_DURATION = Column("Duration", True, "duration")
_COLUMNS = (_TIME, _NAME, _PEERS, _SPANS, _ERRORS, _DURATION)


def _render(view: View) -> Page:
    params, queries = view.params, view.queries
    filters_ = view.filter("all")
    sorts = ("arrival", "start", "duration", "spans", "errors")
    query = TraceQuery(
        text=params.text("q"),
        error=params.text("error"),
        min_duration=params.duration("min"),
        max_duration=params.duration("max"),
        sort=params.choice("sort", sorts, "arrival"),
        descending=params.choice("dir", ("asc", "desc"), "desc") == "desc",
        offset=params.integer("offset", 0, 1_000_000),
        limit=_ROWS,
    )
    page = queries.traces(filters_, query)
    longest = max((row.duration for row in page.rows), default=0.0)
    errors = queries.errors()
    if query.error not in ("", "any", "none", *errors):
        errors.append(query.error)
    more: list[Child] = [
        field_(
            "Outcome",
            select(
                "error",
                "f-error",
                query.error,
                [
                    ("", "Any outcome"),
                    ("any", "With errors"),
                    ("none", "Without errors"),
                    *((e, e) for e in errors),
                ],
            ),
            "f-error",
        ),
        _peer_field(view),
        _duration_field("Longer than", "min", params.text("min")),
        _duration_field("Shorter than", "max", params.text("max")),
    ]
    narrowed = any(
        params.text(n)
        for n in ("q", "error", "min", "max", "service", "peer", "range", "from", "to")
    )
    if page.rows:
        content: Child = panel(
            "Traces",
            table(
                _COLUMNS,
                [_row(view, row, longest) for row in page.rows],
                "Traces",
                params,
                query.sort,
                query.descending,
                "cards traces",
            ),
            pager(params, query.offset, _ROWS, len(page.rows), page.more),
            note=fragment(
                f"{fmt.number(page.stored)} stored",
                h("a", "newest first", href=params.link(sort=None, dir=None), class_="quiet")
                if query.sort != "arrival"
                else ", newest first",
            ),
        )
    elif narrowed and page.stored:
        content = h(
            "div",
            h("h2", "No traces match the filter"),
            h("p", f"{fmt.number(page.stored)} traces are stored.", class_="muted"),
            h("p", h("a", "Show all of them", href=params.path, class_="button")),
            class_="empty",
        )
    else:
        content = nothing_yet(view, "traces")
    body = fragment(
        heading(view, "Traces", subtitle="Where the time of each request went"),
        filters(
            view,
            *more,
            ranges="all",
            search="Span, host, error or trace id",
            own=("error", "min", "max", "peer"),
        ),
        content,
    )
    return Page("Traces", body, "/traces")


def _peer_field(view: View) -> Html:
    value = view.params.text("peer")
    return field_(
        "Peer",
        fragment(
            h(
                "input",
                name="peer",
                id="f-peer",
                list="peers",
                value=value,
                placeholder="Any",
                autocomplete="off",
                spellcheck="false",
                maxlength="200",
                type="text",
            ),
            h("datalist", [h("option", value=p) for p in view.queries.peers()], id="peers"),
        ),
        "f-peer",
    )


def _duration_field(label: str, name: str, value: str) -> Html:
    return field_(
        label,
        h(
            "input",
            type="text",
            name=name,
            id=f"f-{name}",
            value=value,
            placeholder="250ms",
            class_="short",
            autocomplete="off",
            spellcheck="false",
            maxlength="20",
        ),
        f"f-{name}",
    )


def _row(view: View, row: TraceRow, longest: float) -> Html:
    services = [s for s in row.services if s != row.service]
    peers = sorted(row.peers, key=_is_client)
    shown = peers if len(peers) <= 3 else peers[:2]
    return h(
        "tr",
        cell(_TIME, moment(row.start, "second"), class_="muted"),
        cell(
            _NAME,
            h(
                "a",
                row.name or "(root span not received)",
                href=view.params.to(f"/traces/{row.trace_id}"),
                class_="row-link",
            ),
            h(
                "small",
                row.service,
                f" → {', '.join(services)}" if services else None,
                None if row.has_root else " · root span not received",
                " · ",
                h("span", row.trace_id[:8], class_="mono"),
                class_="muted under",
            ),
        ),
        cell(
            _PEERS,
            [fragment(h("span", peer_link(view, peer), class_="item"), " ") for peer in shown],
            h("span", f"+{len(peers) - 2}", class_="muted", title=", ".join(peers[2:]))
            if len(peers) > 3
            else None,
            None if row.peers else fmt.DASH,
            class_="wrap",
        ),
        cell(_SPANS, fmt.number(row.spans)),
        cell(_ERRORS, badge(fmt.number(row.errors), "bad") if row.errors else "0"),
        cell(
            _DURATION,
            h(
                "svg",
                h(
                    "rect",
                    x="0",
                    y="0",
                    height="6",
                    rx="3",
                    width=f"{max(1.0, 100 * row.duration / longest) if longest else 1:.1f}%",
                    class_="bar bad" if row.errors else "bar",
                ),
                class_="length",
                aria_hidden="true",
            ),
            h("span", fmt.duration(row.duration)),
            class_="with-spark",
        ),
        id=f"t-{row.trace_id}",
    )


def _is_client(peer: str) -> bool:
    """Whether a peer looks like one that called: an address with a port of a passing connection."""
    host, port = split_host_port(peer)
    return port >= 32768 and not any(c.isalpha() for c in host.replace("::ffff:", ""))


SCREEN = Screen("/traces", "Traces", "traces", _render)
