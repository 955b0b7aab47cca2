"""Records as OpenTelemetry log records, through the program's own logger provider."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from tracesock.audit.chain import Chain
from tracesock.audit.formats import (
    EVENT_NAME,
    SCHEMA_URL,
    VERSION,
    jsonl,
    log_attributes,
    severity,
    to_line,
)
from tracesock.audit.pipeline import NotReady
from tracesock.audit.records import Record


class OpenTelemetrySink:
    """Emits each record to `logger_provider`, the global one where none is given.

    Until the program has set a global one, records wait as for any sink that does not keep up: add
    the sink with "drop" where it may never be set. What waits when the process ends is told.

    A record that was handed to the provider counts as delivered: what its processor and exporter
    lose is theirs to tell. Records of calls that were made while instrumentation was suppressed,
    as an exporter's own are, are left out, or each export would bring forth the next.

    Raises ImportError where OpenTelemetry's API has no logs.
    """

    def __init__(self, logger_provider: Any = None) -> None:
        from opentelemetry import _logs  # noqa: F401

        self._given = logger_provider
        self._provider: Any = None
        self._logger: Any = None
        self._chain = Chain("")

    def __repr__(self) -> str:
        return "<OpenTelemetry logs>"

    def open(self, source: str) -> None:
        """Begins the chain of this process."""
        self._chain = Chain(source * 2)
        self._logger = None

    def _get_logger(self) -> Any:
        from opentelemetry import _logs
        from opentelemetry._logs._internal import ProxyLoggerProvider

        provider = self._given or _logs.get_logger_provider()
        # The proxy's loggers drop what they are given before the program has set a provider.
        if isinstance(provider, ProxyLoggerProvider):
            raise NotReady("no OpenTelemetry logger provider is set")
        self._provider = provider
        return provider.get_logger("tracesock", VERSION, SCHEMA_URL)

    def write(self, records: Sequence[Record]) -> None:
        """Emits the records. Raises NotReady while there is no provider."""
        if self._logger is None:
            self._logger = self._get_logger()
        for record in records:
            if not record.suppressed:
                self._logger.emit(self._log_record(record))

    def _log_record(self, record: Record) -> Any:
        from opentelemetry import _logs, context, trace

        previous = self._chain.hash
        self._chain.append(jsonl, record)
        attributes = {
            **log_attributes(record),
            "tracesock.audit.sequence": self._chain.sequence,
            "tracesock.audit.chain.id": self._chain.id,
            "tracesock.audit.chain.hash": self._chain.hash,
            "tracesock.audit.chain.previous": previous,
        }
        number, text = severity(record)
        parent = context.Context()
        if record.trace_id:
            span = trace.SpanContext(
                int(record.trace_id, 16),
                int(record.span_id, 16),
                is_remote=False,
                trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED),
            )
            parent = trace.set_span_in_context(trace.NonRecordingSpan(span), parent)
        return _logs.LogRecord(
            timestamp=record.time,
            observed_timestamp=time.time_ns(),
            context=parent,
            severity_number=_logs.SeverityNumber(number),
            severity_text=text,
            body=to_line(jsonl, record, self._chain.sequence) if not record.decided else None,
            attributes=attributes,
            event_name=EVENT_NAME if record.decided else record.event,
        )

    def idle(self) -> None:
        """Nothing is due."""

    def close(self, totals: dict[str, int]) -> None:
        """Hands on what a batching processor still holds, where the provider can."""
        force_flush = getattr(self._provider, "force_flush", None)
        if force_flush is not None:
            force_flush()

    def abandon(self) -> None:
        """The provider's own after-fork handling is its own."""
