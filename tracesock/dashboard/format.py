"""Numbers as people read them."""

from __future__ import annotations

import math
from datetime import UTC, datetime

DASH = "\u2013"


def duration(seconds: float | None) -> str:
    """A duration with its unit: `840 ns`, `12.3 µs`, `1.24 ms`, `3.02 s`, `2 m 5 s`, `3 h 2 m`."""
    if seconds is None or not math.isfinite(seconds):
        return DASH
    for limit, factor, unit in ((1e-6, 1e9, "ns"), (1e-3, 1e6, "µs"), (1.0, 1e3, "ms")):
        # What rounds up to the next unit's 1 is shown in that unit.
        if seconds < limit * 0.9995:
            return f"{_three(seconds * factor)} {unit}"
    if seconds < 60:
        return f"{_three(seconds)} s"
    whole = round(seconds)
    large, small, first, second = (
        (60, 1, "m", "s")
        if whole < 3600
        else (3600, 60, "h", "m")
        if whole < 86400
        else (86400, 3600, "d", "h")
    )
    rest = whole % large // small
    return f"{whole // large} {first}" + (f" {rest} {second}" if rest else "")


def size(count: float | None) -> str:
    """Bytes in decimal units: `0 B`, `812 B`, `1.42 kB`, `3.1 GB`."""
    if count is None or not math.isfinite(count):
        return DASH
    if count < 1000:
        return f"{int(count)} B"
    units = ("kB", "MB", "GB", "TB", "PB")
    power = 0
    count /= 1000
    while count >= 999.5 and power < len(units) - 1:
        count /= 1000
        power += 1
    return f"{_three(count)} {units[power]}"


def number(value: float | None) -> str:
    """A count: thousands apart, a fraction only below ten."""
    if value is None or not math.isfinite(value):
        return DASH
    if value >= 9.95 or value == int(value):
        return f"{round(value):,}".replace(",", "\u202f")
    return f"{value:.1f}"


def compact(value: float) -> str:
    """A count in few characters: `950`, `12.4k`, `3.1M`."""
    if value < 1000:
        return number(value)
    for factor, unit in ((1e3, "k"), (1e6, "M"), (1e9, "G")):
        if value < factor * 999.5 or unit == "G":
            return f"{_three(value / factor)}{unit}"
    return number(value)


def duration_exact(seconds: float) -> str:
    """A duration without the zeros at its end: `100 ms`, `2.5 s`."""
    figure, _, unit = duration(seconds).partition(" ")
    if "." in figure:
        figure = figure.rstrip("0").rstrip(".")
    return f"{figure} {unit}".rstrip()


def rate(per_second: float) -> str:
    """A rate with its unit: `12/s`, `4.2/min`."""
    if per_second >= 1:
        return f"{compact(round(per_second, 1))}/s"
    return f"{number(round(per_second * 60, 1))}/min"


def percent(share: float) -> str:
    """A share of one: `0 %`, `<0.1 %`, `2.4 %`, `37 %`."""
    value = share * 100
    if value == 0:
        return "0 %"
    if value < 0.1:
        return "<0.1 %"
    return f"{value:.1f} %" if value < 9.95 else f"{value:.0f} %"


def iso(time_ns: int) -> str:
    """A time as ISO 8601 in UTC with milliseconds, for the `datetime` attribute of `time`."""
    try:
        moment = datetime.fromtimestamp(time_ns / 1e9, UTC)
    except (ValueError, OverflowError, OSError):
        return ""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def _three(value: float) -> str:
    """Three significant digits, no exponent."""
    if value >= 99.95:
        return f"{value:.0f}"
    if value >= 9.995:
        return f"{value:.1f}"
    return f"{value:.2f}"
