"""What instrumentation is told to do: arguments of `instrument()`, or variables of the same name.

Each field has the environment variable TRACESOCK_ and its name in capitals; an argument wins.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any

SEND_SPANS = ("all", "slow", "errors", "off")
EXPORTS = ("sdk", "otlp")


class ConfigError(ValueError):
    """A setting that is not one: names it, its value, and what would be one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """The settings of `tracesock.instrument()`."""

    send_spans: str = "all"
    """Which sends become spans: all, slow (waited, or longer than `slow_send`), errors or off."""
    slow_send: float = 0.1
    """Seconds from which a send is slow."""
    max_sends_per_trace: int = 128
    """Send spans of one connection in one trace, beyond which the rest is folded into one span with
    the number of calls, the bytes and the longest; 0 for no limit."""
    require_parent: bool = True
    """Whether a send needs a recording parent span to become one."""
    accept_spans: bool = False
    """Whether accept() becomes a span."""
    excluded_peers: tuple[str, ...] = ()
    """Peers of which no span is made: addresses, networks (10.0.0.0/8), host names with wildcards
    (*.internal.example), each with or without `:port`."""
    redact: tuple[str, ...] = ()
    """Attributes whose value is replaced by REDACTED: server.address, dns.question.name,
    dns.answers, network.peer.address, network.local.address."""
    cardinality_limit: int = 200
    """Distinct values of a metric's attribute, beyond which the rest is `tracesock.overflow`."""
    drain_interval: float = 1.0
    """Seconds after which records are delivered at the latest."""
    snapshot_interval: float = 5.0
    """Seconds between two tellings of the open connections as log records; 0 for none. They need a
    LoggerProvider."""
    export: str = "sdk"
    """The way out of spans: sdk (the TracerProvider's processors) or otlp (encoded natively)."""
    otlp: str = ""
    """The receiver for `export="otlp"`, which it implies: a URL, or `file:` and a path for OTLP
    JSON lines. Empty: what OTEL_EXPORTER_OTLP_* says."""
    request_hook: Callable[[str, dict[str, Any]], None] | None = None
    """Called with a span's kind (send, connect, lookup …) and attributes, which it may add to."""
    response_hook: Callable[[str, dict[str, Any], str | None], None] | None = None
    """Called with the kind, the attributes and `error.type`, None on success."""

    def __post_init__(self) -> None:
        for name, allowed in (("send_spans", SEND_SPANS), ("export", EXPORTS)):
            value = getattr(self, name)
            if value not in allowed:
                raise ConfigError(f"{name} is {value!r}: it must be one of {', '.join(allowed)}")
        for name in ("slow_send", "drain_interval", "snapshot_interval"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not value >= 0:
                raise ConfigError(f"{name} is {value!r}: it must be a number of seconds, 0 or more")
        for name in ("max_sends_per_trace", "cardinality_limit"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise ConfigError(f"{name} is {value!r}: it must be a whole number, 0 or more")
        if self.drain_interval == 0:
            raise ConfigError("drain_interval is 0: it must be more than 0 seconds")


def from_environment(
    arguments: Mapping[str, Any], environment: Mapping[str, str] = os.environ
) -> Config:
    """The settings of `arguments`, and for those not given of TRACESOCK_ variables.

    Raises ConfigError, which names the variable, and TypeError for an argument that is no setting.
    """
    values = dict(arguments)
    for field in dataclasses.fields(Config):
        variable = f"TRACESOCK_{field.name.upper()}"
        text = environment.get(variable, "")
        if field.name in values or not text or field.name.endswith("_hook"):
            continue
        try:
            values[field.name] = _parse(field.default, text)
        except ValueError:
            raise ConfigError(f"{variable} is {text!r}: {_wanted(field.default)}") from None
    return Config(**values)


def _parse(default: Any, text: str) -> Any:
    if isinstance(default, bool):
        if text.lower() in ("true", "1", "yes", "on"):
            return True
        if text.lower() in ("false", "0", "no", "off"):
            return False
        raise ValueError
    if isinstance(default, tuple):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    return type(default)(text)


def _wanted(default: Any) -> str:
    if isinstance(default, bool):
        return "it must be true or false"
    return "it must be a whole number" if isinstance(default, int) else "it must be a number"
