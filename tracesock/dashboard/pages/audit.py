"""Audit: the decisions of the policy as they are made, and the state of their chain."""

from __future__ import annotations

from tracesock.dashboard import format as fmt
from tracesock.dashboard.charts import moment
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
    pager,
    panel,
    peer_link,
    select,
    table,
    trace_link,
)
from tracesock.dashboard.rows import AuditPage, Chain, Decision

_ROWS = 100
_TIME = Column("Time", True, class_="time")
_ACTION = Column("Decision")
_EVENT = Column("Event")
_PEER = Column("Peer", class_="main")
_RULE = Column("Rule")
_OUTCOME = Column("Outcome")
_DURATION = Column("Duration", True)
_PROCESS = Column("Process")
_TRACE = Column("Trace")
_COLUMNS = (_TIME, _ACTION, _PEER, _EVENT, _RULE, _OUTCOME, _DURATION, _PROCESS, _TRACE)
# Told apart by text and shape as well as by colour.
_ACTIONS = {
    "allow": ("Allow", "✓", "ok"),
    "deny": ("Deny", "✕", "deny"),
    "would_deny": ("Would deny", "!", "would"),
}


def _render(view: View) -> Page:
    params, queries = view.params, view.queries
    filters_ = view.filter("all")
    action = params.choice("action", list(_ACTIONS), "")
    offset = params.integer("offset", 0, 1_000_000)
    rule = params.text("rule")
    page = queries.audit(filters_, action, rule, params.text("q"), offset, _ROWS)
    chains = queries.chains()
    if page.rows or page.counts:
        content: Child = fragment(
            h("div", _counts(view, page, action), _chains(chains), class_="audit-top"),
            panel(
                "Decisions",
                table(
                    _COLUMNS,
                    [_row(view, d) for d in page.rows],
                    "Decisions, newest first",
                    class_="cards audit",
                )
                if page.rows
                else h("p", "No decisions match the filter.", class_="muted"),
                pager(params, offset, _ROWS, len(page.rows), page.more),
                note="newest first",
            ),
        )
    elif chains or any(params.text(n) for n in ("q", "service", "peer", "range", "from", "to")):
        content = nothing_yet(view, "decisions")
    else:
        content = empty(
            "No audit decisions yet",
            "A program that runs under a policy reports each decision here. A policy in report mode"
            " only records what it would deny.",
            f"OTEL_EXPORTER_OTLP_ENDPOINT={view.info.endpoint} OTEL_LOGS_EXPORTER=otlp \\\n"
            "TRACESOCK_AUDIT_OTEL=1 tracesock run --policy egress.toml your_program.py",
        )
    body = fragment(
        heading(view, "Audit", subtitle="What was allowed, denied, and would have been denied"),
        filters(
            view,
            field_(
                "Decision",
                select(
                    "action",
                    "f-action",
                    action,
                    [("", "All decisions"), *((k, v[0]) for k, v in _ACTIONS.items())],
                ),
                "f-action",
            ),
            h(
                "a",
                h("span", "Rule ", class_="muted"),
                rule,
                h("span", "\u00d7", aria_hidden="true"),
                h("span", " (remove this filter)", class_="sr"),
                href=params.link(rule=None),
                class_="chip",
            )
            if rule
            else None,
            ranges="all",
            search="Peer, rule, event, outcome",
            own=("action",),
        ),
        content,
    )
    return Page("Audit", body, "/audit")


def _counts(view: View, page: AuditPage, chosen: str) -> Html:
    tiles = [
        h(
            "a",
            h("span", mark, class_="mark", aria_hidden="true"),
            h("strong", fmt.number(page.counts.get(key, 0))),
            h("span", text),
            href=view.params.link(action=None if chosen == key else key),
            class_=f"count {tone}{' chosen' if chosen == key else ''}",
            aria_pressed=None,
            title=f"Show only these: {text}",
        )
        for key, (text, mark, tone) in _ACTIONS.items()
    ]
    rules = [
        h(
            "li",
            h("a", rule, href=view.params.link(rule=rule)),
            " ",
            badge(_ACTIONS[action][0].lower(), _ACTIONS[action][2]),
            " ",
            h("span", fmt.number(n), class_="num"),
        )
        for rule, action, n in page.rules[:6]
    ]
    return panel(
        "Summary",
        h("div", tiles, class_="counts"),
        h("ul", rules, class_="rules", aria_label="Rules by decisions") if rules else None,
    )


def _chains(chains: list[Chain]) -> Html:
    if not chains:
        return panel(
            "Chain",
            h(
                "p",
                "The records carry no sequence numbers and hashes: nothing can be verified here.",
                class_="muted",
            ),
        )
    return panel(
        "Chain",
        h("ul", [_chain(c) for c in chains[:5]], class_="chains"),
        h(
            "p",
            "Checked here: sequence numbers and links between the records received. The hashes"
            " themselves are checked by ",
            h("code", "tracesock audit verify FILE"),
            ".",
            class_="muted",
        ),
    )


def _chain(c: Chain) -> Html:
    faults = [
        text
        for n, text in (
            (c.missing, f"{fmt.number(c.missing)} missing"),
            (c.broken, f"{fmt.number(c.broken)} broken link{'' if c.broken == 1 else 's'}"),
            (c.repeated, f"{fmt.number(c.repeated)} repeated"),
        )
        if n
    ]
    if c.reported not in ("", "ok", "intact"):
        faults.append(f"its writer reports: {c.reported}")
    where = f", first at {c.first_break}" if c.first_break is not None else ""
    return h(
        "li",
        badge("✓ intact", "ok") if c.intact else badge("✕ broken", "deny"),
        " ",
        h("strong", c.service),
        " ",
        h("span", c.chain, class_="mono muted"),
        h(
            "p",
            f"{fmt.number(c.records)} records, {c.first} to {c.last}",
            f": {', '.join(faults)}{where}" if faults else ", every link holds",
        ),
        class_="chain",
    )


def _row(view: View, d: Decision) -> Html:
    text, mark, tone = _ACTIONS[d.action]
    return h(
        "tr",
        cell(_TIME, moment(d.time), class_="muted"),
        cell(
            _ACTION,
            h(
                "span",
                h("span", mark, aria_hidden="true"),
                f" {text}",
                class_=f"badge {tone}",
            ),
        ),
        cell(_PEER, peer_link(view, d.peer)),
        cell(
            _EVENT,
            h("span", d.event, class_="mono"),
            h("small", d.direction, class_="muted under") if d.direction else None,
        ),
        cell(
            _RULE,
            h("a", d.rule, href=view.params.link(rule=d.rule))
            if d.rule
            else h("span", "default", class_="muted"),
        ),
        cell(_OUTCOME, d.outcome or fmt.DASH),
        cell(_DURATION, fmt.duration(d.duration)),
        cell(_PROCESS, d.service, h("small", str(d.pid), class_="muted under") if d.pid else None),
        cell(_TRACE, trace_link(view, d.trace_id, d.span_id)),
        class_=f"decision {tone}",
    )


SCREEN = Screen("/audit", "Audit", "audit", _render)
