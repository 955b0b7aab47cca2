"""What the benchmarks share: interleaved bursts, a ratio a round, a table, JSON.

1.00 is the stock `socket` of the same interpreter, lower is better. On a busy machine a single time
means nothing. In each round every side is set up anew; then they run short bursts by turns, so that
all meet the same disturbances; the round's ratio is that of the medians of the bursts, and what is
told is the median of the rounds, with their quartiles.

A statement is compiled anew for each side: the interpreter specialises the code of a call for what
it meets there, and two sides must not share that.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import repeat
from typing import Any, Final

STOCK: Final = "stock"
TRACESOCK: Final = "tracesock"


class Skipped(Exception):
    """A side cannot be measured here; the text says what is missing."""


class _LeftOut(Exception):
    def __init__(self, side: str, reason: str) -> None:
        super().__init__(side, reason)
        self.side, self.reason = side, reason


@dataclass
class Case:
    """One side of a row, set up: a statement that is timed, and what is done around it."""

    statement: str
    names: dict[str, Any]  # what the statement sees, as local variables
    calls: int = 40  # statements a burst
    before: Callable[[], object] | None = None  # each burst, not timed
    after: Callable[[], object] | None = None
    close: list[Any] = field(default_factory=list)  # closed, or called, at the end of the round
    seconds: Callable[[], float] | None = (
        None  # instead of the statement: a burst that times itself
    )

    def burst(self) -> Callable[[], float]:
        """A function that runs one burst and returns its seconds."""
        if self.seconds is not None:
            return self.seconds
        lines = [
            f"def burst(_times, _clock, {', '.join(self.names)}):",
            "    _begun = _clock()",
            "    for _ in _times:",
            textwrap.indent(textwrap.dedent(self.statement), " " * 8),
            "    return _clock() - _begun",
        ]
        namespace: dict[str, Any] = {}
        exec("\n".join(lines), namespace)
        function, values = namespace["burst"], tuple(self.names.values())
        return lambda: function(repeat(None, self.calls), time.perf_counter, *values)

    def end(self) -> None:
        """Close everything, in reverse order."""
        for each in reversed(self.close):
            with suppress(OSError):
                each.close() if hasattr(each, "close") else each()


Make = Callable[[Any], Case]  # of the module that is measured


@dataclass
class Row:
    """A row of a table: what is measured, on which sides, and what it should not exceed."""

    name: str
    sides: Mapping[str, Callable[[], Case]]  # the first is 1.00
    target: float | None = None
    bursts: int = 20
    # Of the bursts of a round: their median, or the shortest where another process takes part,
    # whose turn on a busy machine comes when it comes.
    of_bursts: Callable[[list[float]], float] = statistics.median
    # One side after the other, where both at once would need too many descriptors.
    apart: bool = False


def against_stock(
    name: str,
    make: Make,
    target: float | None = None,
    bursts: int = 20,
    of_bursts: Callable[[list[float]], float] = statistics.median,
    apart: bool = False,
) -> Row:
    """A row of the stock module and tracesock."""
    import socket

    import tracesock

    sides = {STOCK: lambda: make(socket), TRACESOCK: lambda: make(tracesock)}
    return Row(name, sides, target, bursts, of_bursts, apart)


def spread(values: list[float]) -> dict[str, float]:
    """Median, quartiles, smallest and largest."""
    if len(values) > 1:
        low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    else:
        low = high = values[0]
    median = statistics.median(values)
    figures = {"median": median, "low": low, "high": high, "min": min(values), "max": max(values)}
    return {name: round(value, 4) for name, value in figures.items()}


def _round(row: Row, number: int) -> dict[str, float]:
    """Seconds a call of each side."""
    if not row.apart:
        return _together(row, list(row.sides), number)
    order = list(row.sides) if number % 2 == 0 else list(reversed(row.sides))
    return {side: _together(row, [side], 0)[side] for side in order}


def _together(row: Row, order: list[str], number: int) -> dict[str, float]:
    cases: dict[str, Case] = {}
    times: dict[str, list[float]] = {side: [] for side in order}
    try:
        for side in order:
            try:
                cases[side] = row.sides[side]()
            except Skipped as reason:
                raise _LeftOut(side, str(reason)) from None
        bursts = {side: case.burst() for side, case in cases.items()}
        # The first burst warms up: caches, specialised code, the kernel's buffers.
        for turn in range(row.bursts + 1):
            # The first of a turn meets colder caches: by turns.
            for side in order if (turn + number) % 2 == 0 else reversed(order):
                case = cases[side]
                if case.before is not None:
                    case.before()
                seconds = bursts[side]()
                if case.after is not None:
                    case.after()
                if turn > 0:
                    times[side].append(seconds / case.calls)
    finally:
        for case in cases.values():
            case.end()
    return {side: row.of_bursts(each) for side, each in times.items()}


def measure(row: Row, rounds: int) -> dict[str, dict[str, Any]]:
    """The figures of a row by the name they are told under, one for each side but the first."""
    told: dict[str, dict[str, Any]] = {}
    base, *others = row.sides
    name_of = {side: row.name if len(others) == 1 else f"{row.name}: {side}" for side in others}
    seconds: list[dict[str, float]] = []
    while not seconds:
        try:
            seconds = [_round(row, number) for number in range(rounds)]
        except _LeftOut as left_out:
            if left_out.side == base or len(row.sides) == 2:
                return {name: {"skipped": left_out.reason} for name in name_of.values()}
            told[name_of.pop(left_out.side)] = {"skipped": left_out.reason}
            row = replace(
                row, sides={side: row.sides[side] for side in row.sides if side != left_out.side}
            )
    for side, name in name_of.items():
        figures: dict[str, Any] = spread([each[side] / each[base] for each in seconds])
        figures["ns"] = round(statistics.median(each[side] for each in seconds) * 1e9, 1)
        figures["stock_ns"] = round(statistics.median(each[base] for each in seconds) * 1e9, 1)
        if row.target is not None:
            figures["target"] = row.target
        told[name] = figures
    return told


def measure_all(rows: Iterable[Row], rounds: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row's figures as soon as they are there."""
    for row in rows:
        yield from measure(row, rounds).items()


# --- telling ------------------------------------------------------------------------------------

HEADING = f"{'':52}{'ratio':>7}{'quartiles':>15}{'target':>8}{'ns':>12}{'stock ns':>12}"


def line(name: str, figures: Mapping[str, Any]) -> str:
    """A line of the table."""
    if "skipped" in figures:
        return f"{name:<52}  left out: {figures['skipped']}"
    if "unit" in figures:
        target = f"   (at most {figures['target']:g})" if "target" in figures else ""
        return f"{name:<52}{figures['median']:>10.6g} {figures['unit']}{target}"
    quartiles = f"{figures['low']:.2f} .. {figures['high']:.2f}"
    target = f"{figures['target']:.2f}" if "target" in figures else ""
    text = f"{name:<52}{figures['median']:>7.2f}{quartiles:>15}{target:>8}"
    for unit in ("ns", "stock_ns"):
        if unit in figures:
            text += f"{figures[unit]:>12,.0f}"
    return text


def machine() -> dict[str, str]:
    """What the figures depend on. No host name."""
    model = platform.processor() or platform.machine()
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as info:
        for text in info:
            if text.startswith("model name"):
                model = text.split(":", 1)[1].strip()
                break
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": f"{model}, {cpus} CPUs",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def parser(doc: str | None) -> argparse.ArgumentParser:
    """The options that every benchmark takes."""
    made = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    made.add_argument("--rounds", type=int, help="rounds of each row")
    made.add_argument("--quick", action="store_true", help="few rounds, the most telling rows")
    made.add_argument("--only", default="", help="rows whose name contains this text")
    made.add_argument("--json", action="store_true", help="figures as JSON")
    return made


def tell(figures: Iterable[tuple[str, Mapping[str, Any]]], as_json: bool) -> None:
    """Print the figures: lines as they come, or one JSON object by name."""
    if as_json:
        json.dump(dict(figures), sys.stdout, indent=2)
        print()
        return
    print(HEADING)
    for name, each in figures:
        print(line(name, each), flush=True)


def main(
    doc: str | None, rows: Callable[[bool], Iterable[Row]], rounds: int = 11, quick_rounds: int = 3
) -> None:
    """The command line of a benchmark that is a list of rows; `rows(quick)` makes it."""
    options = parser(doc).parse_args()
    wanted = [row for row in rows(options.quick) if options.only in row.name]
    rounds = options.rounds or (quick_rounds if options.quick else rounds)
    tell(measure_all(wanted, rounds), options.json)
