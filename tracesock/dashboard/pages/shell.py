"""What all screens share: the document around them, filters, tables, tiles, empty states."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tracesock.dashboard import format as fmt
from tracesock.dashboard.charts import moment, sparkline
from tracesock.dashboard.classify import OP_LABELS, Op
from tracesock.dashboard.markup import Child, Html, fragment, h
from tracesock.dashboard.params import RANGES, Params
from tracesock.dashboard.queries import Queries
from tracesock.dashboard.rows import Filter


@dataclass(frozen=True, slots=True)
class Info:
    """What pages say about the dashboard itself."""

    version: str
    endpoint: str
    database: str
    retention_age: float
    retention_size: int
    recovery: str
    started_ns: int


@dataclass(frozen=True, slots=True)
class View:
    """One rendering: what is asked for, and what it is answered from."""

    params: Params
    queries: Queries
    info: Info

    def filter(self, default_range: str) -> Filter:
        return self.params.filter(self.queries.now, default_range)


@dataclass(frozen=True, slots=True)
class Page:
    """A rendered screen: title, content of `main`, HTTP status, the screen it belongs to."""

    title: str
    body: Html
    section: str
    status: int = 200


@dataclass(frozen=True, slots=True)
class Screen:
    """An entry of the navigation."""

    path: str
    title: str
    icon: str
    render: Callable[[View], Page]


# Own drawings on a 20 x 20 grid, stroked.
ICONS = {
    "connections": "M3 6h9m0 0L9 3m3 3L9 9M17 14H8m0 0l3-3m-3 3l3 3",
    "traces": "M3 4h7M6 8h8M9 12h8M5 16h6",
    "peers": "M10 4v5m0 0l-5 4m5-4l5 4M10 2.5v.1M4 15.5v.1M16 15.5v.1",
    "dns": "M10 2.5a7.5 7.5 0 100 15 7.5 7.5 0 000-15zM2.5 10h15M10 2.5c-5 5-5 10 0 15"
    "M10 2.5c5 5 5 10 0 15",
    "audit": "M10 2.5l6 2.5v4.5c0 4-2.6 6.8-6 8-3.4-1.2-6-4-6-8V5zM7.5 10l2 2 3.5-4",
    "health": "M2.5 10.5h4l2-5 3 9 2-4h4",
}


def icon(name: str) -> Html:
    return h(
        "svg",
        h("path", d=ICONS[name]),
        class_="icon",
        viewBox="0 0 20 20",
        aria_hidden="true",
    )


def document(page: Page, screens: Sequence[Screen], params: Params, info: Info) -> str:
    """The whole HTML document around a page."""
    links = [
        h(
            "li",
            h(
                "a",
                icon(screen.icon),
                h("span", screen.title),
                href=params.to(screen.path),
                data_path=screen.path,
                aria_current="page" if screen.path == page.section else None,
                aria_keyshortcuts=str(i),
            ),
        )
        for i, screen in enumerate(screens, 1)
    ]
    return "<!doctype html>" + h(
        "html",
        h(
            "head",
            h("meta", charset="utf-8"),
            h("meta", name="viewport", content="width=device-width, initial-scale=1"),
            h("meta", name="color-scheme", content="light dark"),
            h("title", f"{page.title} · tracesock"),
            h("link", rel="icon", href="/static/icon.svg", type="image/svg+xml"),
            h("script", src="/static/theme.js"),
            h("link", rel="stylesheet", href="/static/app.css"),
            h("script", src="/static/app.js", type="module"),
        ),
        h(
            "body",
            h("a", "Skip to content", href="#main", class_="skip"),
            h(
                "header",
                h(
                    "a",
                    h(
                        "svg",
                        h("rect", width="28", height="28", rx="7", class_="logo-back"),
                        h("path", d="M6 9h8M9 14h10M14 19h8", class_="logo-lines"),
                        class_="logo",
                        viewBox="0 0 28 28",
                        aria_hidden="true",
                    ),
                    h("span", "tracesock"),
                    href=params.to("/"),
                    class_="brand",
                ),
                h("nav", h("ul", links), aria_label="Screens"),
                h(
                    "div",
                    h(
                        "button",
                        h("i", class_="dot"),
                        h("span", "Live", data_role="live-text"),
                        type="button",
                        class_="live",
                        data_role="live",
                        aria_pressed="true",
                        title="Pause or resume updates (key: p)",
                    ),
                    h(
                        "button",
                        h(
                            "svg",
                            h("path", d="M10 3a7 7 0 000 14z", class_="half"),
                            h("circle", cx="10", cy="10", r="7"),
                            class_="icon",
                            viewBox="0 0 20 20",
                            aria_hidden="true",
                        ),
                        h("span", "Theme", data_role="theme-text"),
                        type="button",
                        class_="theme",
                        data_role="theme",
                        title="Light, dark or as the system (key: t)",
                    ),
                    h(
                        "button",
                        h("span", "?", class_="icon-text", aria_hidden="true"),
                        h("span", "Keys"),
                        type="button",
                        class_="keys",
                        data_role="help",
                        title="Keyboard shortcuts (key: ?)",
                    ),
                    h("p", f"v{info.version}", class_="version muted"),
                    class_="tools",
                ),
                class_="side",
            ),
            h("main", page.body, id="main", tabindex="-1"),
            h("p", "", role="status", class_="toast", data_role="status"),
            _help(),
            h("noscript", h("p", "Reload to update: scripts are off.", class_="toast shown")),
            data_section=page.section,
        ),
        lang="en",
    )


def _help() -> Html:
    keys = (
        ("1 \u2013 6", "go to a screen"),
        ("/", "search"),
        ("p", "pause or resume updates"),
        ("t", "switch the theme"),
        ("↑ ↓", "previous or next row of a table or span of a trace"),
        ("← →", "fold or unfold a span"),
        ("Enter", "open the row"),
        ("Esc", "close what is open"),
    )
    return h(
        "dialog",
        h("h2", "Keyboard", id="keys-title"),
        h("dl", [[h("dt", h("kbd", key)), h("dd", what)] for key, what in keys]),
        h("form", h("button", "Close", class_="button"), method="dialog"),
        id="keys",
        aria_labelledby="keys-title",
    )


def heading(view: View, title: str, *tools: Child, subtitle: Child = None) -> Html:
    """The page's title with its filters, and what of the address could not be read."""
    problems = view.params.problems
    return fragment(
        h(
            "div",
            h("div", h("h1", title), h("p", subtitle, class_="sub muted") if subtitle else None),
            *tools,
            class_="heading",
        ),
        h(
            "p",
            "This address has a part that cannot be read: ",
            "; ".join(problems),
            ".",
            role="alert",
            class_="notice warn",
        )
        if problems
        else None,
    )


def filters(
    view: View,
    *more: Child,
    ranges: str | None = None,
    search: str | None = None,
    own: Sequence[str] = (),
) -> Html:
    """The filter form: service, peer, `ranges` (the default range) and `search` (a placeholder).

    `own` names the parameters of the further inputs in `more`.
    """
    params = view.params
    shared = ["service"] + (["range", "from", "to"] if ranges else []) + (["q"] if search else [])
    peer = params.text("peer")
    fields: list[Child] = []
    if search:
        fields.append(
            field_(
                "Search",
                h(
                    "input",
                    type="search",
                    name="q",
                    id="f-q",
                    value=params.text("q"),
                    placeholder=search,
                    autocomplete="off",
                    spellcheck="false",
                    maxlength="200",
                ),
                "f-q",
                "grow",
            )
        )
    services = view.queries.services()
    chosen = params.text("service")
    if chosen and chosen not in services:
        services.append(chosen)
    fields.append(
        field_(
            "Service",
            select(
                "service", "f-service", chosen, [("", "All services"), *((s, s) for s in services)]
            ),
            "f-service",
        )
    )
    fields.extend(more)
    if ranges:
        chosen_range = params.text("range") or ranges
        if params.text("from") or params.text("to"):
            chosen_range = "custom"
        options = [(r, f"Last {_long(r)}") for r in RANGES] + [("all", "All stored")]
        if chosen_range == "custom":
            options.append(("custom", "Chosen times"))
        fields.append(
            field_("Time", select("range", "f-range", chosen_range, options, ranges), "f-range")
        )
    return h(
        "form",
        [h("input", type="hidden", name=k, value=v) for k, v in params.hidden(*shared, *own)],
        fields[:1] if search else None,
        h("div", fields[1:] if search else fields, class_="field-row"),
        h(
            "a",
            h("span", "Peer ", class_="muted"),
            h("span", peer),
            h("span", "\u00d7", aria_hidden="true"),
            h("span", " (remove this filter)", class_="sr"),
            href=params.link(peer=None),
            class_="chip",
        )
        if peer
        else None,
        h("noscript", h("button", "Apply", class_="button")),
        class_="filters",
        role="search",
        action=params.path,
        method="get",
        data_filters=True,
    )


def _long(name: str) -> str:
    number, unit = name[:-1], {"m": "minute", "h": "hour", "d": "day"}[name[-1]]
    return unit if number == "1" else f"{number} {unit}s"


def field_(label: str, control: Html, identity: str, class_: str = "") -> Html:
    """A form control with its label."""
    return h(
        "div",
        h("label", label, for_=identity),
        control,
        class_=f"field {class_}".strip(),
    )


def select(
    name: str, identity: str, chosen: str, options: Sequence[tuple[str, str]], default: str = ""
) -> Html:
    """A choice. Its `default` is not written into the address."""
    return h(
        "select",
        [h("option", text, value=value, selected=value == chosen) for value, text in options],
        name=name,
        id=identity,
        data_default=default or None,
    )


def panel(title: str, *body: Child, note: Child = None, class_: str = "", level: int = 2) -> Html:
    """A titled section."""
    return h(
        "section",
        h(
            "div",
            h(f"h{level}", title),
            h("p", note, class_="muted note") if note else None,
            class_="panel-head",
        ),
        body,
        class_=f"panel {class_}".strip(),
        aria_label=title,
    )


def tile(
    label: str,
    value: str,
    caption: Child = "",
    trend: Sequence[float | None] = (),
    kind: str = "line",
    tone: str = "",
) -> Html:
    """A figure with its label, a caption and a trend."""
    figure, _, unit = value.partition(" ")
    return h(
        "div",
        h("h2", label),
        h("p", figure, h("small", f"\u202f{unit}") if unit else None, class_="figure"),
        h("p", caption, class_="muted caption"),
        sparkline(trend, kind),
        class_=f"tile {tone}".strip(),
    )


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its title, whether it holds numbers, the name to sort by."""

    title: str
    numeric: bool = False
    sort: str = ""
    class_: str = ""
    note: str = ""


def table(
    columns: Sequence[Column],
    rows: Sequence[Html],
    caption: str,
    params: Params | None = None,
    sort: str = "",
    descending: bool = True,
    class_: str = "",
) -> Html:
    """A table; with `params` the titles of sortable columns are links."""

    def head(column: Column) -> Html:
        if not column.sort or params is None:
            return h(
                "th", column.title, scope="col", class_=_class(column), title=column.note or None
            )
        current = column.sort == sort
        # The first click sorts numbers from the largest, texts from A.
        downwards = not descending if current else column.numeric
        return h(
            "th",
            h(
                "a",
                column.title,
                h(
                    "span",
                    ("↓" if descending else "↑") if current else "",
                    class_="arrow",
                    aria_hidden="true",
                ),
                href=params.link(sort=column.sort, dir="desc" if downwards else "asc"),
            ),
            scope="col",
            class_=_class(column),
            title=column.note or None,
            aria_sort=("descending" if descending else "ascending") if current else None,
        )

    return h(
        "div",
        h(
            "table",
            h("caption", caption, class_="sr"),
            h("thead", h("tr", [head(c) for c in columns])),
            h("tbody", rows),
        ),
        class_=f"table {class_}".strip(),
        tabindex="0",
        role="region",
        aria_label=caption,
    )


def _class(column: Column) -> str | None:
    return f"{'num' if column.numeric else ''} {column.class_}".strip() or None


def cell(column: Column, *content: Child, class_: str = "") -> Html:
    """A cell, with its column's title for the narrow layout."""
    classes = f"{_class(column) or ''} {class_}".strip()
    return h("td", *content, class_=classes or None, data_label=column.title)


def pager(params: Params, offset: int, limit: int, shown: int, more: bool) -> Html | None:
    """Links to the previous and next rows."""
    if not offset and not more:
        return None
    return h(
        "nav",
        h(
            "a",
            "Previous",
            href=params.link(offset=offset - limit if offset > limit else None),
            class_="button",
            rel="prev",
        )
        if offset
        else None,
        h("span", f"{offset + 1}\u2013{offset + shown}", class_="muted"),
        h("a", "Next", href=params.link(offset=offset + limit), class_="button", rel="next")
        if more
        else None,
        class_="pager",
        aria_label="Pages",
    )


def empty(title: str, text: Child, command: str = "", link: tuple[str, str] | None = None) -> Html:
    """What stands where nothing is to show: why, and what to run."""
    return h(
        "div",
        h("h2", title),
        h("p", text, class_="muted"),
        h(
            "div",
            h("pre", h("code", command), tabindex="0", aria_label="Command"),
            h("button", "Copy", type="button", class_="button", data_copy=command),
            class_="command",
        )
        if command
        else None,
        h("p", h("a", link[0], href=link[1], class_="button")) if link else None,
        class_="empty",
    )


def run_command(info: Info) -> str:
    """What sends a program's telemetry to this dashboard."""
    return (
        f"OTEL_EXPORTER_OTLP_ENDPOINT={info.endpoint} OTEL_LOGS_EXPORTER=otlp \\\n"
        "OTEL_METRIC_EXPORT_INTERVAL=5000 tracesock run your_program.py"
    )


def nothing_yet(view: View, what: str) -> Html:
    """The empty state of a screen: nothing at all, or nothing in this filter."""
    params = view.params
    if not view.queries.has_anything():
        return empty(
            "Waiting for telemetry",
            f"Start a program under tracesock, or point any OpenTelemetry SDK at"
            f" {view.info.endpoint} (OTLP over HTTP). This page fills by itself.",
            run_command(view.info),
        )
    if any(params.text(n) for n in ("service", "peer", "q")):
        return empty(
            f"No {what} match the filter",
            "Other services, peers or texts do.",
            link=(
                "Remove the filter",
                params.link(service=None, peer=None, q=None, range="all", from_=None, to=None),
            ),
        )
    return empty(
        f"No {what} in this time",
        "There may be some in what is stored.",
        link=("Show all stored", params.link(range="all", from_=None, to=None)),
    )


def badge(text: str, tone: str = "") -> Html:
    return h("span", text, class_=f"badge {tone}".strip())


def op_badge(op: Op) -> Html:
    return h("span", h("i", class_=f"swatch op-{op.name.lower()}"), OP_LABELS[op], class_="op")


def trace_link(view: View, trace_id: str, span_id: str = "", text: str = "") -> Child:
    """A link to a trace, or a dash."""
    if not trace_id:
        return fmt.DASH
    return h(
        "a",
        text or trace_id[:8],
        href=view.params.to(f"/traces/{trace_id}", span=span_id or None),
        class_="mono",
        title=f"Trace {trace_id}",
    )


def peer_link(view: View, peer: str) -> Child:
    """A link that narrows the current screen to a peer, or a dash."""
    if not peer:
        return fmt.DASH
    return h("a", peer, href=view.params.link(peer=peer), class_="peer", title=f"Show only {peer}")


def ago(view: View, time_ns: int, form: str = "second") -> Html:
    return moment(time_ns, form)
