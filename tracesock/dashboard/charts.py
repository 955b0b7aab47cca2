"""Charts as SVG, drawn on the server.

There is no inline style: colours and strokes are in the style sheet.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tracesock.dashboard import format as fmt
from tracesock.dashboard import histogram
from tracesock.dashboard.markup import Html, h
from tracesock.dashboard.rows import Heatmap

# Rows of a heat map: two buckets each, so about 1.4 times the duration from row to row.
_ROW_BUCKETS = 2
_SHADES = 7


def sparkline(values: Sequence[float | None], kind: str = "line") -> Html | None:
    """A small line (`line`) or bars (`bars`) without axes; None with fewer than two values.

    It only repeats the figure beside it, so it is hidden from screen readers.
    """
    known = [v for v in values if v is not None]
    if len(known) < 2:
        return None
    highest = max(known) or 1.0
    width, height = 100.0, 24.0
    step = width / max(1, len(values) - (1 if kind == "line" else 0))
    if kind == "bars":
        marks: list[Html] = [
            h(
                "rect",
                x=_n(i * step + step * 0.1),
                y=_n(height - max(1.5, (value or 0) / highest * height)),
                width=_n(step * 0.8),
                height=_n(max(1.5, (value or 0) / highest * height)),
                class_="spark-bar" if value else "spark-bar none",
            )
            for i, value in enumerate(values)
        ]
    else:
        marks = [
            h("polyline", points=points, class_="spark-line")
            for points in _polylines(values, lambda i, v: (i * step, 22 - v / highest * 20))
        ]
    return h(
        "svg",
        marks,
        class_="spark",
        viewBox="0 0 100 24",
        preserveAspectRatio="none",
        aria_hidden="true",
    )


def _polylines(values: Sequence[float | None], place: object) -> list[str]:
    """Runs of known values as point lists; a lone value becomes a short dash."""
    runs: list[list[tuple[float, float]]] = [[]]
    for i, value in enumerate(values):
        if value is None:
            if runs[-1]:
                runs.append([])
        else:
            runs[-1].append(place(i, value))  # type: ignore[operator]
    out = []
    for run in runs:
        if len(run) == 1:
            run = [run[0], (run[0][0] + 0.8, run[0][1])]
        if run:
            out.append(" ".join(f"{_n(x)},{_n(y)}" for x, y in run))
    return out


def meter(value: float, limit: float, label: str, warn: float = 0.7, bad: float = 0.9) -> Html:
    """A bar of use against a limit, with its tone."""
    share = min(1.0, value / limit) if limit > 0 else 0.0
    tone = "bad" if share >= bad else "warn" if share >= warn else "ok"
    return h(
        "svg",
        h("rect", class_="meter-back", x="0", y="0", width="100%", height="8", rx="4"),
        h("rect", class_=f"meter-fill {tone}", x="0", y="0", width=_p(share), height="8", rx="4"),
        class_="meter",
        role="img",
        aria_label=label,
        height="8",
    )


def heat_map(heat: Heatmap, what: str) -> Html:
    """Durations over time: darker is more, lines are p50, p95 and p99."""
    present = [b for slot in heat.slots for b, n in slot.items() if n > 0]
    low = min(present) // _ROW_BUCKETS
    high = max(present) // _ROW_BUCKETS
    # Room above and below, and never fewer than eight rows.
    while high - low < 7:
        low, high = max(0, low - 1), min(histogram.OVERFLOW // _ROW_BUCKETS, high + 1)
    rows = high - low + 1
    columns = len(heat.slots)
    cells: list[Html] = []
    grouped: list[dict[int, float]] = []
    for slot in heat.slots:
        merged: dict[int, float] = {}
        for bucket, n in slot.items():
            merged[bucket // _ROW_BUCKETS] = merged.get(bucket // _ROW_BUCKETS, 0.0) + n
        grouped.append(merged)
    most = max((n for merged in grouped for n in merged.values()), default=1.0)
    for column, merged in enumerate(grouped):
        for row, n in merged.items():
            if n <= 0 or not low <= row <= high:
                continue
            shade = 1 + round((_SHADES - 1) * math.sqrt(n / most))
            cells.append(
                h(
                    "rect",
                    h(
                        "title",
                        f"{fmt.number(n)} {what}, {fmt.duration(_row_bound(row))} to"
                        f" {fmt.duration(_row_bound(row + 1))}",
                    ),
                    x=_p(column / columns),
                    y=_p((high - row) / rows),
                    width=_p(0.94 / columns),
                    height=_p(0.92 / rows),
                    class_=f"heat heat-{shade}",
                )
            )

    def place(i: int, seconds: float) -> tuple[float, float]:
        exact = histogram.PER_DOUBLING * (math.log2(max(seconds, 1e-9)) - histogram.LOWEST_EXPONENT)
        position = (exact + 1) / _ROW_BUCKETS - low
        return (i + 0.5) / columns * 1000, (1 - min(1.0, max(0.0, position / rows))) * 1000

    lines = [
        h("polyline", points=points, class_=f"line {name}")
        for name, quantile in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
        for points in _polylines(heat.percentiles(quantile), place)
    ]
    ticks = [(s, (1 - place(0, s)[1] / 1000)) for s in _round_durations(low, high + 1)]
    labels = [
        h(
            "text",
            fmt.duration_exact(seconds),
            x="100%",
            y=_p(1 - at),
            dy="4",
            text_anchor="end",
            class_="axis",
        )
        for seconds, at in ticks
    ]
    guides = [
        h("line", x1="0", x2="100%", y1=_p(1 - at), y2=_p(1 - at), class_="guide")
        for _, at in ticks
    ]
    p50, p95, p99 = (fmt.duration(heat.summary.percentile(q)) for q in (0.5, 0.95, 0.99))
    end = heat.start + int(heat.step * columns * 1e9)
    return h(
        "figure",
        h(
            "div",
            h("svg", labels, class_="heat-axis", aria_hidden="true"),
            h(
                "div",
                h(
                    "svg",
                    guides,
                    cells,
                    h(
                        "svg",
                        lines,
                        viewBox="0 0 1000 1000",
                        preserveAspectRatio="none",
                        width="100%",
                        height="100%",
                    ),
                    class_="heat-cells",
                    role="img",
                    aria_label=(
                        f"{fmt.number(heat.summary.count)} {what}: p50 {p50}, p95 {p95}, p99 {p99}"
                    ),
                ),
                time_axis(heat.start, end),
                class_="heat-body",
            ),
            class_="heat-map",
        ),
        h(
            "figcaption",
            [
                h("span", h("i", class_=f"swatch line-{name}"), f"{name} {value}", class_="key")
                for name, value in (("p50", p50), ("p95", p95), ("p99", p99))
            ],
            h("span", "stronger colour = more", class_="key muted"),
            class_="legend",
        ),
        class_="chart",
    )


def _round_durations(low: int, high: int) -> list[float]:
    """Powers of ten between two rows; with few of them also their threefold."""
    first, last = max(_row_bound(low), 1e-6), _row_bound(high)
    decades = [10.0**e for e in range(-6, 4)]
    inside = [d for d in decades if first <= d <= last]
    if len(inside) < 3:
        inside = [v for d in decades for v in (d, 3 * d) if first <= v <= last]
    return inside


def _row_bound(row: int) -> float:
    """The lower bound of a row of the heat map, seconds."""
    return histogram.lower_bound(row * _ROW_BUCKETS)


def time_axis(start: int, end: int) -> Html:
    """Begin, middle and end of a span of time, in the viewer's zone."""
    form = "minute" if end - start > 600_000_000_000 else "clock"
    if end - start > 86_400_000_000_000:
        form = "day"
    return h(
        "div",
        [moment(t, form) for t in (start, (start + end) // 2, end)],
        class_="time-axis",
    )


def moment(time_ns: int, form: str = "second") -> Html:
    """A time; the script shows it in the viewer's zone, without it UTC is read."""
    iso = fmt.iso(time_ns)
    if not iso:
        return h("span", fmt.DASH)
    text = {"day": iso[5:16].replace("T", " "), "minute": iso[11:16], "full": iso}.get(
        form, iso[11:19]
    )
    return h("time", f"{text} UTC" if form == "full" else text, datetime=iso, data_form=form)


def bars(rows: Sequence[tuple[str, float, str]], label: str) -> Html:
    """Horizontal bars: text, value, class of the bar."""
    most = max((value for _, value, _ in rows), default=1.0) or 1.0
    return h(
        "ul",
        [
            h(
                "li",
                h("span", text, class_="bar-name"),
                h(
                    "svg",
                    h(
                        "rect",
                        x="0",
                        y="0",
                        width=_p(max(0.005, value / most)),
                        height="10",
                        rx="2",
                        class_=f"bar {kind}",
                    ),
                    class_="bar-track",
                    aria_hidden="true",
                ),
                h("span", fmt.number(round(value)), class_="num"),
            )
            for text, value, kind in rows
        ],
        class_="bars",
        aria_label=label,
    )


def graph(
    nodes: Sequence[tuple[str, str, str, str]],
    edges: Sequence[tuple[str, str, str, str, Mapping[str, str]]],
) -> tuple[Html, int]:
    """Nodes in columns, left to right along the edges; and how many columns there are.

    A node is (key, text, kind, address to go to); an edge (from, to, label, tone, attributes),
    its attributes holding `title` and `width`. A label may have a second line.
    """
    columns = _columns([n[0] for n in nodes], [(e[0], e[1]) for e in edges])
    wide, tall, gap, spacing = 168, 34, 148, 62
    longest = max(len(column) for column in columns)
    height = max(220, longest * spacing)
    width = len(columns) * wide + (len(columns) - 1) * gap
    at: dict[str, tuple[float, float]] = {}
    for i, column in enumerate(columns):
        step = height / len(column)
        for j, key in enumerate(column):
            at[key] = (i * (wide + gap), step * (j + 0.5))
    lines: list[Html] = []
    labels: list[Html] = []
    taken: list[tuple[float, float]] = []
    for source, target, label, tone, extra in edges:
        x1, y1 = at[source][0] + wide, at[source][1]
        x2, y2 = at[target]
        if x2 > at[source][0]:
            bend = (x2 - x1) / 2
            curve = ((x1, y1), (x1 + bend, y1), (x2 - bend, y2), (x2, y2))
        else:  # back, or to itself: around below
            x2 = at[target][0] + wide
            curve = ((x1, y1 + 6), (x1 + 90, y1 + 40), (x2 + 90, y2 + 40), (x2, y2 + 10))
        path = "M{} {} C{} {} {} {} {} {}".format(*(_n(v) for point in curve for v in point))
        lines.append(
            h(
                "path",
                h("title", extra.get("title", "")),
                d=path,
                class_=f"edge {tone}",
                stroke_width=extra.get("width", "1.5"),
            )
        )
        # In the gap before the target, where edges lie apart; below one that is there already.
        main, *more = label.split("\n")
        x, y = _bezier(curve, 0.55)
        if x2 > at[source][0]:
            x, y = x2 - gap / 2, _height_at(curve, x2 - gap / 2)
        while not all(abs(x - a) > gap / 2 or abs(y - b) >= 27 for a, b in taken):
            y += 9
        taken.append((x, y))
        labels.append(
            h(
                "text",
                h("tspan", main),
                [h("tspan", text, x=_n(x), dy="12", class_=tone) for text in more],
                x=_n(x),
                y=_n(y - (3 if more else -3)),
                class_="edge-label",
                text_anchor="middle",
            )
        )
    boxes = [
        h(
            "a",
            h("title", f"Show only {text}"),
            h("rect", x=_n(x), y=_n(y - tall / 2), width=wide, height=tall, rx="6"),
            h("text", _clip(text, 19), x=_n(x + 10), y=_n(y + 4)),
            href=address,
            class_=f"node {kind}",
        )
        for key, text, kind, address in nodes
        for x, y in (at[key],)
    ]
    drawn = h(
        "div",
        h(
            "svg",
            lines,
            labels,
            boxes,
            viewBox=f"-4 -4 {width + 8} {height + 8}",
            class_="graph" if len(columns) < 4 else "graph wide",
            role="group",
            aria_label="Map of services and the peers they call",
        ),
        class_="graph-frame",
        tabindex="0",
    )
    return drawn, len(columns)


def _height_at(curve: Sequence[tuple[float, float]], x: float) -> float:
    """The height at which a curve that runs to the right passes a place."""
    low, high = 0.0, 1.0
    for _ in range(24):
        middle = (low + high) / 2
        low, high = (middle, high) if _bezier(curve, middle)[0] < x else (low, middle)
    return _bezier(curve, low)[1]


def _columns(keys: Sequence[str], edges: Sequence[tuple[str, str]]) -> list[list[str]]:
    """Layers by the longest way from a node nobody calls, at most four; cycles are cut."""
    depth = dict.fromkeys(keys, 0)
    for _ in range(3):
        for source, target in edges:
            if source != target:
                depth[target] = max(depth[target], min(3, depth[source] + 1))
    # In a cycle everything is pushed to the right: bring the leftmost back to the left.
    used = sorted(set(depth.values()))
    layers: list[list[str]] = [[] for _ in used]
    for key in keys:
        layers[used.index(depth[key])].append(key)
    # Each layer in the order of its callers, so that few edges cross.
    for i in range(1, len(layers)):
        rank = {key: j for j, key in enumerate(layers[i - 1])}
        callers = {key: [rank[s] for s, t in edges if t == key and s in rank] for key in layers[i]}
        layers[i].sort(key=lambda k: sum(callers[k]) / len(callers[k]) if callers[k] else len(rank))
    return layers


def _bezier(points: Sequence[tuple[float, float]], t: float) -> tuple[float, float]:
    weights = ((1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3)
    x = sum(w * p[0] for w, p in zip(weights, points, strict=True))
    y = sum(w * p[1] for w, p in zip(weights, points, strict=True))
    return x, y


def _clip(text: str, length: int) -> str:
    """The text shortened in its middle: beginning and end of a host name tell most."""
    if len(text) <= length:
        return text
    head = (length - 1) // 2
    return f"{text[:head]}…{text[-(length - 1 - head) :]}"


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _p(share: float) -> str:
    return f"{_n(share * 100)}%"
