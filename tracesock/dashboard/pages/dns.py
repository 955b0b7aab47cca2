"""DNS: the names looked up, and what they tell about the resolver."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tracesock.dashboard import format as fmt
from tracesock.dashboard.charts import heat_map
from tracesock.dashboard.classify import Op
from tracesock.dashboard.hints import Hint, Resolver, hints
from tracesock.dashboard.markup import Child, Html, fragment, h
from tracesock.dashboard.pages.shell import (
    Column,
    Page,
    Screen,
    View,
    badge,
    cell,
    filters,
    heading,
    nothing_yet,
    pager,
    panel,
    table,
)
from tracesock.dashboard.rows import DnsName

_ROWS = 100
_NAME = Column("Name", sort="name", class_="main")
_COUNT = Column("Look-ups", True, "count")
_P50 = Column("p50", True, "p50")
_P95 = Column("p95", True, "p95")
_ERRORS = Column("Errors", True, "errors")
_ANSWERS = Column("Answers")
_SERVICES = Column("Services")
_COLUMNS = (_NAME, _COUNT, _P50, _P95, _ERRORS, _ANSWERS, _SERVICES)
_SORTS: dict[str, Callable[[DnsName], Any]] = {
    "name": lambda n: n.name,
    "count": lambda n: n.summary.count,
    "p50": lambda n: n.summary.percentile(0.5) or 0.0,
    "p95": lambda n: n.summary.percentile(0.95) or 0.0,
    "errors": lambda n: n.summary.error_rate,
}


def _render(view: View) -> Page:
    params, queries = view.params, view.queries
    filters_ = view.filter("1h")
    found = queries.dns(filters_)
    text = params.text("q").lower()
    if text:
        found = [
            n for n in found if text in n.name.lower() or any(text in a.lower() for a in n.answers)
        ]
    sort = params.choice("sort", list(_SORTS), "count")
    descending = params.choice("dir", ("asc", "desc"), "desc") == "desc"
    offset = params.integer("offset", 0, 100_000)
    rows = sorted(found, key=_SORTS[sort], reverse=descending)
    shown = rows[offset : offset + _ROWS]
    if rows:
        heat = queries.heatmap(filters_, Op.LOOKUP)
        findings = hints(found, Resolver.read())
        content: Child = fragment(
            h(
                "div",
                panel(
                    "Look-up latency",
                    heat_map(heat, "look-ups") if heat.summary.count else None,
                    note=f"from {heat.source}",
                ),
                panel(
                    "Hints",
                    h("ul", [_hint(f) for f in findings], class_="hints")
                    if findings
                    else h(
                        "p",
                        "Nothing unusual: no five-second retries, no search-list expansion, no"
                        " repeated negative answers.",
                        class_="muted",
                    ),
                ),
                class_="two",
            ),
            panel(
                "Names",
                table(
                    _COLUMNS,
                    [_row(view, n) for n in shown],
                    "Names looked up",
                    params,
                    sort,
                    descending,
                    "cards",
                ),
                pager(params, offset, _ROWS, len(shown), len(rows) > offset + _ROWS),
                note=f"{len(rows)} name{'' if len(rows) == 1 else 's'}",
            ),
        )
    else:
        content = nothing_yet(view, "look-ups")
    body = fragment(
        heading(view, "DNS", subtitle="The names that were looked up"),
        filters(view, ranges="1h", search="Name or answer"),
        content,
    )
    return Page("DNS", body, "/dns")


def _hint(hint: Hint) -> Html:
    return h(
        "li",
        h("h3", hint.title),
        h("p", hint.text),
        h("p", [fragment(h("code", name), " ") for name in hint.names]) if hint.names else None,
        class_=f"hint {hint.kind}",
    )


def _row(view: View, n: DnsName) -> Html:
    errors = [
        badge(f"{error} {fmt.number(round(count))}", "bad")
        for error, count in sorted(n.errors.items(), key=lambda e: -e[1])[:3]
    ]
    shown = n.answers[:3]
    return h(
        "tr",
        cell(
            _NAME,
            h("a", n.name, href=view.params.to("/traces", q=n.name), title="Traces with this name"),
        ),
        cell(_COUNT, fmt.number(round(n.summary.count))),
        cell(_P50, fmt.duration(n.summary.percentile(0.5))),
        cell(_P95, fmt.duration(n.summary.percentile(0.95))),
        cell(
            _ERRORS,
            h("span", fmt.percent(n.summary.error_rate)),
            h("span", errors, class_="badges") if errors else None,
        ),
        cell(
            _ANSWERS,
            [fragment(h("span", answer, class_="mono item"), " ") for answer in shown],
            h("span", f"+{len(n.answers) - 3}", class_="muted", title=", ".join(n.answers))
            if len(n.answers) > 3
            else None,
            None if n.answers else fmt.DASH,
            class_="wrap",
        ),
        cell(_SERVICES, ", ".join(n.services[:3]) + ("…" if len(n.services) > 3 else "")),
        id=f"n-{n.name}",
    )


SCREEN = Screen("/dns", "DNS", "dns", _render)
