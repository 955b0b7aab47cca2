"""The tables of README.md that follow from the dashboards and rules."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from dashboards import grafana, names

_BEGIN, _END = "<!-- panels -->\n", "<!-- end of panels -->\n"
_NAME = re.compile(r"\b(?:tracesock|dns)_[a-z_]+\b")
_EVERY = "every metric"


def metrics_of(expr: str) -> list[str]:
    """What a Prometheus expression reads, as the reference names it."""
    if "__name__" in expr:
        return [_EVERY]
    known = [names.METRIC_OF[name] for name in _NAME.findall(expr) if name in names.METRIC_OF]
    return list(dict.fromkeys(known))


def _panels(board: dict[str, Any]) -> list[tuple[str, str, list[str]]]:
    """(title, unit, metrics) of each panel."""
    found = []
    for panel in board["panels"]:
        if panel["type"] == "row":
            continue
        read: list[str] = []
        for target in panel["targets"]:
            if target["datasource"]["type"] == "prometheus":
                read += metrics_of(target["expr"])
            else:
                read.append("log records of the audit")
        unit = panel["fieldConfig"]["defaults"]["unit"]
        found.append((panel["title"], unit, list(dict.fromkeys(read))))
    return found


def table() -> str:
    """Each panel with its unit and the metrics it is made of."""
    lines = []
    for text in grafana.render().values():
        board = json.loads(text)
        title = board["title"].removeprefix("tracesock / ")
        lines += [f"### {title}", "", "| panel | unit | from |", "| --- | --- | --- |"]
        for name, unit, read in _panels(board):
            lines.append(f"| {name} | {unit} | {', '.join(read)} |")
        lines.append("")
    return "\n".join(lines)


def render(text: str) -> str:
    """README.md with its tables as they are now; raises ValueError where their place is missing."""
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"{Path('dashboards/README.md')} has no {_BEGIN.strip()} … {_END.strip()}")
    return f"{before}{begin}\n{table()}\n{end}{after}"
