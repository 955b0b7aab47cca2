"""What a page's address asks for, read and checked; and the making of such addresses."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Final
from urllib.parse import parse_qsl, urlencode

from tracesock.dashboard.rows import NS, Filter, Window

RANGES: Final[Mapping[str, float]] = {
    "5m": 300,
    "15m": 900,
    "1h": 3600,
    "6h": 6 * 3600,
    "24h": 86400,
    "7d": 7 * 86400,
}
# Kept when one goes to another screen.
SHARED: Final = ("service", "peer", "range", "from", "to")
_MAX_LENGTH: Final = 512
_UNITS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


class Params:
    """The query part of an address. What cannot be read is left out and noted in `problems`."""

    def __init__(self, path: str, query: str) -> None:
        self.path = path
        self.problems: list[str] = []
        self._values: dict[str, str] = {}
        for key, value in parse_qsl(query[:8192], max_num_fields=50):
            if value:
                self._values.setdefault(key, value[:_MAX_LENGTH])

    def text(self, name: str) -> str:
        return self._values.get(name, "").strip()

    def choice(self, name: str, allowed: Collection[str], default: str) -> str:
        value = self.text(name)
        if not value:
            return default
        if value not in allowed:
            self.problems.append(f"{name}={value} is none of {', '.join(allowed)}")
            return default
        return value

    def integer(self, name: str, default: int, highest: int) -> int:
        value = self.text(name)
        if not value:
            return default
        if not (value.isascii() and value.isdecimal() and len(value) < 10):
            self.problems.append(f"{name}={value} is not a number")
            return default
        return min(highest, int(value))

    def duration(self, name: str) -> float | None:
        """Seconds of `250ms`, `1.5s`, `2m`; a bare number is milliseconds."""
        value = self.text(name)
        if not value:
            return None
        match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)\s*([a-zµ]*)", value)
        if match is None or (match[2] and match[2] not in _UNITS):
            self.problems.append(f"{name}={value} is not a duration such as 250ms, 1.5s or 2m")
            return None
        return float(match[1]) * _UNITS[match[2] or "ms"]

    def filter(self, now: int, default_range: str) -> Filter:
        """The filter that all screens share."""
        chosen = self.choice("range", [*RANGES, "all"], default_range)
        start, end = self._time("from"), self._time("to")
        if start is not None or end is not None:
            window = Window(start, end)
        elif chosen == "all":
            window = Window()
        else:
            window = Window.last(RANGES[chosen], now)
        return Filter(self.text("service"), self.text("peer"), window)

    def _time(self, name: str) -> int | None:
        """Nanoseconds of milliseconds since the epoch, or of an ISO 8601 time with its zone."""
        value = self.text(name)
        if not value:
            return None
        try:
            if value.isascii() and value.isdecimal() and len(value) <= 15:
                return min(int(value) * 1_000_000, (1 << 63) - 1)
            seconds = datetime.fromisoformat(value).timestamp()
        except (ValueError, OverflowError):
            seconds = math.nan
        if not 0 <= seconds < 9e9:
            self.problems.append(f"{name}={value} is not a time such as 2030-01-31T12:00:00Z")
            return None
        return int(seconds * NS)

    def link(self, **changes: str | int | None) -> str:
        """This address with some parameters changed; None removes one. Paging starts again."""
        values = {k: v for k, v in self._values.items() if k not in ("offset", "token")}
        for name, value in changes.items():
            name = name.rstrip("_")
            values.pop(name, None)
            if value not in (None, ""):
                values[name] = str(value)
        return _address(self.path, values)

    def to(self, path: str, **values: str | int | None) -> str:
        """The address of another screen with the shared filter."""
        kept = {k: v for k, v in self._values.items() if k in SHARED}
        for name, value in values.items():
            kept.pop(name.rstrip("_"), None)
            if value not in (None, ""):
                kept[name.rstrip("_")] = str(value)
        return _address(path, kept)

    def hidden(self, *without: str) -> list[tuple[str, str]]:
        """The parameters that a form must carry along."""
        return [(k, v) for k, v in self._values.items() if k not in (*without, "offset", "token")]


def _address(path: str, values: Mapping[str, str]) -> str:
    return path + ("?" + urlencode(values) if values else "")
