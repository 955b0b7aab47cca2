"""The dashboards as they are committed, and what Grafana does with their expressions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
JSON = ROOT / "dashboards" / "grafana" / "json"
RULES = ROOT / "dashboards" / "prometheus"

_LABEL_VALUES = re.compile(r"^label_values\((?:(?P<selector>.+), *)?(?P<label>\w+)\)$", re.S)


@dataclass(frozen=True)
class Target:
    """One query of one panel."""

    board: str
    panel: dict[str, Any]
    target: dict[str, Any]

    @property
    def expr(self) -> str:
        return str(self.target["expr"])

    @property
    def kind(self) -> str:
        """The type of its data source: prometheus or loki."""
        return str(self.target["datasource"]["type"])

    def __str__(self) -> str:
        return f"{self.board}: {self.panel['title']} ({self.target['refId']})"


def boards() -> dict[str, dict[str, Any]]:
    """The dashboards by the names of their files."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(JSON.glob("*.json"))}


def panels(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All panels but rows, those in collapsed rows too."""
    for panel in board["panels"]:
        if panel["type"] == "row":
            yield from panel.get("panels", ())
        else:
            yield panel


def targets(kind: str = "prometheus") -> Iterator[Target]:
    for name, board in boards().items():
        for panel in panels(board):
            for target in panel["targets"]:
                found = Target(name, panel, target)
                if found.kind == kind:
                    yield found


def variables(board: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {variable["name"]: variable for variable in board["templating"]["list"]}


def label_values(query: str) -> tuple[str, str]:
    """(selector, label) of a variable's `label_values(selector, label)`; raises ValueError."""
    found = _LABEL_VALUES.match(query)
    if found is None:
        raise ValueError(f"not label_values(): {query!r}")
    return found["selector"] or "", found["label"]


def fill(expr: str, values: dict[str, str], *, step: float, scrape: float) -> str:
    """The expression as Grafana sends it: variables and intervals filled in.

    $__rate_interval is max($__interval + scrape interval, 4 * scrape interval); see
    https://grafana.com/docs/grafana/latest/datasources/prometheus/template-variables/.
    """
    intervals = {
        "__rate_interval": f"{max(step + scrape, 4 * scrape):g}s",
        "__interval": f"{step:g}s",
    }
    for name, value in sorted({**values, **intervals}.items(), key=lambda item: -len(item[0])):
        expr = re.sub(rf"\${name}\b|\${{{name}(?::\w+)?}}", lambda _, value=value: value, expr)
    return expr


def everything(board: dict[str, Any]) -> dict[str, str]:
    """The value of `All` of each variable that has one."""
    return {
        name: variable["allValue"]
        for name, variable in variables(board).items()
        if variable.get("includeAll")
    }


def escaped(value: str) -> str:
    """A value in a regular expression between quotes, as Grafana writes it for several choices."""
    return re.sub(r"([\\^$.*+?()[\]{}|])", r"\\\\\1", value)
