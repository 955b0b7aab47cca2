"""Health: what runs out (descriptors, ports, accept queues), what leaks, and the intake itself."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tracesock.dashboard import format as fmt
from tracesock.dashboard import names
from tracesock.dashboard.charts import meter, moment
from tracesock.dashboard.classify import host_port
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
    panel,
    peer_link,
    table,
    trace_link,
)
from tracesock.dashboard.rows import Filter, Gauge

# Linux's default net.ipv4.ip_local_port_range, 32768 to 60999, where no limit is reported.
_DEFAULT_PORTS = 28232


def _render(view: View) -> Page:
    queries = view.queries
    shared = view.params.filter(queries.now, "all")
    filters_ = Filter(shared.service, shared.peer)
    if queries.has_anything():
        content: Child = fragment(
            h(
                "div",
                _descriptors(view, filters_),
                _queues(view, filters_),
                _ports(view, filters_),
                _intake(view),
                class_="two",
            ),
            _leaks(view, filters_),
        )
    else:
        content = fragment(nothing_yet(view, "figures"), _intake(view))
    body = fragment(
        heading(view, "Health", subtitle="What runs out, what leaks, and what was lost"),
        filters(view),
        content,
    )
    return Page("Health", body, "/health")


def _newest(gauges: Sequence[Gauge]) -> dict[int, Gauge]:
    """The newest value of each process."""
    out: dict[int, Gauge] = {}
    for gauge in gauges:
        if gauge.instance not in out or gauge.seen >= out[gauge.instance].seen:
            out[gauge.instance] = gauge
    return out


def _descriptors(view: View, filters_: Filter) -> Html:
    queries = view.queries
    used = _newest(
        [
            *queries.gauges(names.METRIC_DESCRIPTORS_OLD, filters_.service),
            *queries.gauges(names.METRIC_DESCRIPTORS, filters_.service),
        ]
    )
    limits = _newest(queries.gauges(names.METRIC_DESCRIPTOR_LIMIT, filters_.service))
    rows = [
        _use(
            gauge.service,
            f"process {gauge.pid}" if gauge.pid else "",
            gauge.value,
            limits[instance].value if instance in limits else 0,
            "descriptors",
        )
        for instance, gauge in sorted(used.items(), key=lambda item: -item[1].value)[:10]
    ]
    return panel(
        "Descriptors",
        h("ul", rows, class_="uses") if rows else _missing(view, names.METRIC_DESCRIPTORS),
        note="open files and sockets of each process",
    )


def _queues(view: View, filters_: Filter) -> Html:
    queries = view.queries
    lengths = queries.gauges(names.METRIC_QUEUE_LENGTH, filters_.service)
    limits = {
        (g.instance, _place(g)): g.value
        for g in queries.gauges(names.METRIC_QUEUE_LIMIT, filters_.service)
    }
    rows = [
        _use(
            _place(g) or g.service,
            g.service,
            g.value,
            limits.get((g.instance, _place(g)), 0),
            "waiting connections",
        )
        for g in sorted(lengths, key=lambda g: -g.value)[:10]
    ]
    return panel(
        "Accept queues",
        h("ul", rows, class_="uses") if rows else _missing(view, names.METRIC_QUEUE_LENGTH),
        note="connections that wait for accept, of the listen backlog",
    )


def _place(gauge: Gauge) -> str:
    """The listening address of a queue."""
    host = str(
        gauge.attributes.get(names.NETWORK_LOCAL_ADDRESS, "")
        or gauge.attributes.get(names.SERVER_ADDRESS, "")
    )
    port = gauge.attributes.get(names.NETWORK_LOCAL_PORT) or gauge.attributes.get(names.SERVER_PORT)
    return host_port(host, port if isinstance(port, int) else 0)


def _ports(view: View, filters_: Filter) -> Html:
    rows = [
        _use(
            use.destination,
            use.service,
            use.used,
            use.limit or _DEFAULT_PORTS,
            "ports",
            "" if use.limit else f"of {fmt.number(_DEFAULT_PORTS)} by Linux's default range",
        )
        for use in view.queries.port_use(filters_)[:10]
    ]
    return panel(
        "Ephemeral ports",
        h("ul", rows, class_="uses")
        if rows
        else h("p", "No outbound connection is reported.", class_="muted"),
        note="local ports in use towards each destination",
    )


def _use(name: str, of: str, used: float, limit: float, unit: str, note: str = "") -> Html:
    share = used / limit if limit > 0 else 0.0
    figure = fmt.number(used) + (f" of {fmt.number(limit)}" if limit and not note else "")
    label = f"{name}: {figure} {unit}" + (f", {fmt.percent(share)}" if limit else "")
    return h(
        "li",
        h("span", name, h("small", of, class_="muted") if of else None, class_="use-name"),
        h("span", figure, h("small", note, class_="muted") if note else None, class_="num"),
        meter(used, limit, label) if limit else None,
    )


def _missing(view: View, metric: str) -> Html:
    return h(
        "p",
        "Not reported. Programs under ",
        h("code", "tracesock run"),
        " send ",
        h("code", metric),
        " with their metrics.",
        class_="muted",
    )


def _leaks(view: View, filters_: Filter) -> Html:
    leaks = view.queries.leaks(filters_)
    if not leaks:
        return panel(
            "Leak ledger",
            h(
                "p",
                "No leak reported: no socket was left unclosed or in CLOSE_WAIT. Programs under ",
                h("code", "tracesock run"),
                " report each one here, with the stack that made it where they record stacks.",
                class_="muted",
            ),
        )
    columns = (
        Column("What", class_="main"),
        Column("Peer"),
        Column("Sockets", True),
        Column("Oldest", True),
        Column("Process"),
        Column("Last", True),
        Column("Trace"),
        Column("Made at"),
    )
    return panel(
        "Leak ledger",
        table(
            columns,
            [
                h(
                    "tr",
                    cell(
                        columns[0],
                        badge(leak.kind.replace("_", " "), "bad"),
                        h("small", leak.state, class_="muted under")
                        if leak.state not in ("", leak.kind)
                        else None,
                    ),
                    cell(columns[1], peer_link(view, leak.peer)),
                    cell(columns[2], fmt.number(leak.count)),
                    cell(columns[3], fmt.duration(leak.age)),
                    cell(
                        columns[4],
                        leak.service,
                        h("small", str(leak.pid), class_="muted under") if leak.pid else None,
                    ),
                    cell(columns[5], moment(leak.time)),
                    cell(columns[6], trace_link(view, leak.trace_id)),
                    cell(
                        columns[7],
                        h(
                            "details",
                            h("summary", h("span", _origin(leak.stack), class_="mono")),
                            h("pre", h("code", leak.stack), tabindex="0"),
                        )
                        if leak.stack
                        else fmt.DASH,
                        class_="wrap",
                    ),
                )
                for leak in leaks
            ],
            "Sockets that were not closed, by origin",
            class_="cards",
        ),
        note="sockets that were not closed, by origin",
    )


def _origin(stack: str) -> str:
    """The innermost frame of a Python stack that is the program's own."""
    frames = [line.strip() for line in stack.splitlines() if line.strip().startswith("File ")]
    frames = [f for f in frames if not re.search(r'/tracesock/_\w+\.py"|/socket\.py"', f)] or frames
    last = frames[-1] if frames else stack.strip().splitlines()[-1] if stack.strip() else ""
    last = last.removeprefix("File ").replace('"', "")
    path, comma, rest = last.partition(",")
    return ("/".join(path.split("/")[-3:]) + comma + rest)[:120]


_REASONS = {
    "refused_malformed": "malformed (400)",
    "refused_slow": "too slow (400)",
    "refused_too_large": "too large (413)",
    "refused_too_many_records": "too many records (413)",
    "refused_unsupported_content_type": "content type (415)",
    "refused_unsupported_encoding": "content encoding (415)",
    "refused_overloaded": "overloaded (429)",
    "refused_not_stored": "not stored (503)",
    "refused_closing": "shutting down (503)",
}


def _intake(view: View) -> Html:
    counts = view.queries.intake()
    meta = view.queries.meta()

    def of(name: str) -> str:
        return fmt.number(counts.get(name, 0))

    facts: list[tuple[str, Child]] = [
        ("Spans", of("accepted_traces")),
        ("Data points", of("accepted_metrics")),
        ("Log records", of("accepted_logs")),
    ]
    rejected = sum(counts.get(f"rejected_{s}", 0) for s in ("traces", "metrics", "logs"))
    refusals = {reason: n for reason, n in counts.items() if reason.startswith("refused_")}
    lost = sum(int(meta.get(f"lost_total_{s}") or 0) for s in ("traces", "metrics", "logs"))
    trouble: list[tuple[str, Child]] = [
        (f"Requests refused: {_REASONS.get(reason, reason)}", badge(fmt.number(n), "bad"))
        for reason, n in sorted(refusals.items())
    ]
    if rejected:
        trouble.append(("Records without a valid id", badge(fmt.number(rejected), "bad")))
    if counts.get("attributes_cut"):
        trouble.append(("Attributes cut", badge(of("attributes_cut"), "warn")))
    for reason in ("texts_over_the_cap", "series_over_the_cap", "metric_series_over_the_cap"):
        if counts.get(reason):
            trouble.append((reason.replace("_", " ").capitalize(), badge(of(reason), "warn")))
    if lost:
        trouble.append(("Lost when killed", badge(fmt.number(lost), "bad")))
    rest: list[tuple[str, Child]] = [
        ("Refused or cut", "nothing") if not trouble else ("", None),
        ("Previous run", view.info.recovery),
        (
            "Kept",
            f"{fmt.duration(view.info.retention_age)}, up to {fmt.size(view.info.retention_size)}",
        ),
        ("Database", h("span", view.info.database, class_="mono break")),
        ("Running since", moment(view.info.started_ns, "full")),
    ]
    return panel(
        "Intake",
        h(
            "dl",
            [
                h("div", h("dt", key), h("dd", value))
                for key, value in [*facts, *trouble, *rest]
                if key
            ],
            class_="facts rows",
        ),
        note="what this dashboard received",
    )


SCREEN = Screen("/health", "Health", "health", _render)
