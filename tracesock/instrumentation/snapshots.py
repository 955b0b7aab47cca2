"""What is open now, told again and again: log records for a live view, such as the dashboard's.

The drain calls `tick`; each round is one log record for each connection, and one more for each that
looks forgotten or has sent segments again since the round before. The process's descriptors are
gauges. docs/reference/telemetry.md lists both for readers.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from typing import Any, Final

from opentelemetry import trace
from opentelemetry._logs import LogRecord, NoOpLoggerProvider, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Observation

from tracesock._native import __version__
from tracesock.instrumentation import semconv
from tracesock.instrumentation.config import Config
from tracesock.instrumentation.connections import (
    Connection,
    connections,
    is_forgotten,
)
from tracesock.instrumentation.spans import Excluder, endpoint

_log = logging.getLogger(__name__)

# Connections told in one round, the youngest of them; the others are told as a number.
_MOST: Final = 1000
_LEAK_AGAIN: Final = 60.0  # seconds after which a socket that still looks forgotten is told again
_INFO, _WARN = SeverityNumber.INFO, SeverityNumber.WARN

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]


class Snapshots:
    """Tells the open connections of this process to a LoggerProvider, every `snapshot_interval`.

    `clock` gives seconds and never goes back.
    """

    def __init__(
        self,
        logger_provider: Any,
        meter_provider: Any,
        config: Config,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._interval = config.snapshot_interval
        self._redact = frozenset(config.redact)
        self._excluder = Excluder(config.excluded_peers)
        self._clock = clock
        self._logger = logger_provider.get_logger(
            semconv.SCOPE_NAME, __version__, schema_url=semconv.SCHEMA_URL
        )
        self.restart()
        if meter_provider is not None:
            _register_gauges(meter_provider)

    @classmethod
    def wanted(cls, logger_provider: Any, config: Config) -> bool:
        """Whether there is anybody to tell."""
        return (
            logger_provider is not None
            and config.snapshot_interval > 0
            and not isinstance(logger_provider, NoOpLoggerProvider)
        )

    def restart(self) -> None:
        """Begin anew, also in a forked child: its connections are told by its own number."""
        self._due = self._clock()
        self._retransmits: dict[int, int] = {}
        self._leaks: dict[int, float] = {}  # when to tell again, by number

    def tick(self) -> None:
        """Tells a round, where one is due."""
        now = self._clock()
        if now < self._due:
            return
        self._due = now + self._interval
        try:
            self._round()
        except Exception:
            self._due = float("inf")
            _log.exception("tracesock: open connections are not told any more")

    def _round(self) -> None:
        found = [each for each in connections() if not self._is_excluded(each)]
        at, pid = time.time_ns(), os.getpid()
        youngest = found[-_MOST:]
        for each in youngest:
            attributes = self._attributes(each, pid)
            snapshot = attributes | {semconv.CONNECTIONS_INTERVAL: self._interval}
            self._emit(semconv.EVENT_CONNECTION, _INFO, at, each, snapshot)
            told = self._retransmits.get(each.number, 0)
            if (each.retransmits or 0) > told:
                again = {semconv.RETRANSMITS: (each.retransmits or 0) - told}
                self._emit(semconv.EVENT_RETRANSMIT, _WARN, at, each, attributes | again)
            if is_forgotten(each) and self._leaks.get(each.number, 0.0) <= self._clock():
                kind = "close_wait" if each.state == "close_wait" else "never_used"
                self._leaks[each.number] = self._clock() + _LEAK_AGAIN
                leak = attributes | {semconv.LEAK_KIND: kind}
                self._emit(semconv.EVENT_LEAK, _WARN, at, each, leak)
        self._retransmits = {each.number: each.retransmits or 0 for each in youngest}
        numbers = {each.number for each in found}
        self._leaks = {n: due for n, due in self._leaks.items() if n in numbers}
        if len(found) > len(youngest):
            omitted = {semconv.CONNECTIONS_OMITTED: len(found) - len(youngest)}
            self._emit(semconv.EVENT_OMITTED, _WARN, at, None, omitted)

    def _is_excluded(self, each: Connection) -> bool:
        return self._excluder.excludes(*endpoint(each.peer), each.server)

    def _attributes(self, each: Connection, pid: int) -> dict[str, Any]:
        peer, peer_port = endpoint(each.peer)
        local, local_port = endpoint(each.local)
        known = {
            semconv.CONNECTION_ID: f"{pid}:{each.number}",
            semconv.PROCESS_PID: pid,
            semconv.CONNECTION_STATE: each.state,
            semconv.CONNECTION_DIRECTION: each.direction,
            semconv.CONNECTION_DESCRIPTOR: each.descriptor,
            semconv.CONNECTION_AGE: each.age,
            semconv.CONNECTION_SENT: each.sent,
            semconv.CONNECTION_RECEIVED: each.received,
            semconv.CONNECTION_QUEUED: each.queued,
            semconv.RTT: each.rtt,
            semconv.RETRANSMITS: each.retransmits,
            semconv.NETWORK_TRANSPORT: each.transport,
            semconv.NETWORK_TYPE: each.network_type,
            semconv.NETWORK_PEER_ADDRESS: peer,
            semconv.NETWORK_PEER_PORT: peer_port,
            semconv.NETWORK_LOCAL_ADDRESS: local,
            semconv.NETWORK_LOCAL_PORT: local_port,
            semconv.SERVER_ADDRESS: each.server,
            semconv.SERVER_PORT: peer_port if each.server else None,
            semconv.CODE_STACKTRACE: each.origin,
        }
        return {
            key: semconv.REDACTED if key in self._redact else value
            for key, value in known.items()
            if value is not None
        }

    def _emit(
        self,
        event: str,
        severity: SeverityNumber,
        at: int,
        owner: Connection | None,
        attributes: dict[str, Any],
    ) -> None:
        context = Context()
        if owner is not None and owner.trace_id and owner.span_id:
            span = trace.SpanContext(
                int(owner.trace_id, 16),
                int(owner.span_id, 16),
                is_remote=False,
                trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED),
            )
            context = trace.set_span_in_context(trace.NonRecordingSpan(span), context)
        self._logger.emit(
            LogRecord(
                timestamp=at,
                observed_timestamp=at,
                context=context,
                severity_number=severity,
                severity_text=severity.name,
                attributes=attributes,
                event_name=event,
            )
        )


# --- gauges of the process ------------------------------------------------------------------------

_lock = threading.Lock()
# Instruments cannot be taken back: each provider has them once, however often it is instrumented.
_providers: weakref.WeakSet[Any] = weakref.WeakSet()


def _register_gauges(provider: Any) -> None:
    with _lock:
        if provider in _providers:
            return
        _providers.add(provider)
    meter = provider.get_meter(semconv.SCOPE_NAME, __version__, semconv.SCHEMA_URL)

    for metric, read in (
        (semconv.DESCRIPTOR_COUNT, _descriptors),
        (semconv.DESCRIPTOR_LIMIT, _descriptor_limit),
    ):
        meter.create_observable_gauge(metric.name, [read], metric.unit, metric.description)


def _descriptors(_: CallbackOptions) -> Iterable[Observation]:
    """Open descriptors of this process, but for the one that counts them."""
    try:
        count = len(os.listdir("/proc/self/fd")) - 1
    except OSError:
        return
    yield Observation(count)


def _descriptor_limit(_: CallbackOptions) -> Iterable[Observation]:
    if resource is None:
        return
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY:
        yield Observation(soft)
