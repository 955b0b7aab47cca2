"""Detections over the audit stream: rules.yaml as queries for ClickHouse.

A rule is written as Falco's are: description, condition, output, priority, tags. Its condition
selects records; where that alone is no sign, `by` groups them and `having` says which groups are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent
# Falco's, most serious first.
PRIORITIES = (
    "EMERGENCY",
    "ALERT",
    "CRITICAL",
    "ERROR",
    "WARNING",
    "NOTICE",
    "INFORMATIONAL",
    "DEBUG",
)
_FIELDS = ("rule", "desc", "condition", "output", "priority", "tags")
_MORE = ("source", "window", "by", "having", "order")
_PLACE = re.compile(r"%([a-z_]+)")


class RuleError(ValueError):
    """A rule that is none; says which, and what is wrong."""


@dataclass(frozen=True)
class Rule:
    """One detection."""

    rule: str
    desc: str
    condition: str
    output: str
    priority: str
    tags: tuple[str, ...]
    source: str = "audit"
    window: str = "1 HOUR"
    by: tuple[str, ...] = ()
    having: str = ""

    @property
    def file(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", self.rule.lower()).strip("-") + ".sql"


def load(path: Path = FOLDER / "rules.yaml") -> list[Rule]:
    """The rules, macros put in their places. Raises RuleError."""
    macros: dict[str, str] = {}
    rules = []
    for entry in yaml.safe_load(path.read_text()):
        if "macro" in entry:
            macros[entry["macro"]] = _expanded(entry["condition"], macros)
        else:
            rules.append(_rule(entry, macros))
    return rules


def _rule(entry: dict[str, Any], macros: dict[str, str]) -> Rule:
    name = entry.get("rule", "?")
    missing = [key for key in _FIELDS if not entry.get(key)]
    if missing:
        raise RuleError(f"{name}: lacks {', '.join(missing)}")
    unknown = set(entry) - {*_FIELDS, *_MORE}
    if unknown:
        raise RuleError(f"{name}: unknown: {', '.join(sorted(unknown))}")
    if entry["priority"] not in PRIORITIES:
        raise RuleError(f"{name}: priority {entry['priority']} is none of {', '.join(PRIORITIES)}")
    return Rule(
        rule=name,
        desc=" ".join(entry["desc"].split()),
        condition=_expanded(entry["condition"], macros),
        output=" ".join(entry["output"].split()),
        priority=entry["priority"],
        tags=tuple(entry["tags"]),
        source=entry.get("source", "audit"),
        window=entry.get("window", "1 HOUR"),
        by=tuple(entry.get("by", ())),
        having=_expanded(entry.get("having", ""), macros),
    )


def _expanded(text: str, macros: dict[str, str]) -> str:
    for name, value in macros.items():
        text = re.sub(rf"\b{name}\b", lambda _, value=value: f"({value})", text)
    return " ".join(text.split())


def sql(rule: Rule) -> str:
    """The rule as a query: one row for each thing found, newest first."""
    keys = ["service", *rule.by] if rule.having else []
    # The pieces of the output: what is between the places, and the values in them.
    pieces = [piece for piece in re.split(r"(%[a-z_]+)", rule.output) if piece]
    output = ", ".join(
        f"toString({piece[1:]})" if _PLACE.fullmatch(piece) else _quoted(piece) for piece in pieces
    )
    head = [f"-- {rule.rule} ({rule.priority}; {', '.join(rule.tags)})", f"-- {rule.desc}"]
    constant = [
        f"    {_quoted(rule.rule)} AS rule",
        f"    {_quoted(rule.priority)} AS priority",
        f"    [{', '.join(_quoted(tag) for tag in rule.tags)}] AS tags",
    ]
    where = [f"WHERE time >= now64(9) - INTERVAL {rule.window}", f"  AND ({rule.condition})"]
    if not rule.having:
        select = ["    time", "    service", *constant, f"    concat({output}) AS output"]
        body = [",\n".join(select), f"FROM tracesock.{rule.source}", *where]
    else:
        columns = [
            "    max(time) AS last",
            "    min(time) AS first",
            "    count() AS events",
            *(f"    {key}" for key in keys),
            *(f"    {each}" for each in _aggregates(rule)),
            *constant,
            f"    concat({output}) AS output",
        ]
        body = [
            ",\n".join(columns),
            f"FROM tracesock.{rule.source}",
            *where,
            f"GROUP BY {', '.join(keys)}",
            f"HAVING {rule.having}",
        ]
    order = "last" if rule.having else "time"
    return "\n".join([*head, "SELECT", *body, f"ORDER BY {order} DESC", "LIMIT 1000;"]) + "\n"


# What `having` and `output` may name of a group, and how it is reckoned.
AGGREGATES = {
    # Seconds between one record and the next, and how much they differ: the middle one, and the
    # middle of the distances to it, which a few stray ones do not move.
    "moments": "arraySort(groupArray(toUnixTimestamp64Nano(time)))",
    "intervals": "arrayMap((a, b) -> (b - a) / 1e9, arrayPopBack(moments), arrayPopFront(moments))",
    "period": "arrayReduce('median', intervals)",
    "jitter": "arrayReduce('median', arrayMap(t -> abs(t - period), intervals)) / period",
    "names": "uniqExact(host)",
    "longest": "max(length(splitByChar('.', host)[1]))",
    "ports": "uniqExact(peer_port)",
    "peers": "uniqExact(peer_address)",
    "wrong": "countIf(hash != expected)",
}


def _aggregates(rule: Rule) -> list[str]:
    named = rule.having + " " + rule.output
    wanted: list[str] = []
    for name in reversed(AGGREGATES):
        if re.search(rf"\b{name}\b", named + " " + " ".join(AGGREGATES[each] for each in wanted)):
            wanted.append(name)
    return [f"{AGGREGATES[name]} AS {name}" for name in AGGREGATES if name in wanted]


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def render() -> dict[str, str]:
    """The query of each rule by the name of its file."""
    return {rule.file: sql(rule) for rule in load()}
