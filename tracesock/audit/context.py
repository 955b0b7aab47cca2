"""The caller's OpenTelemetry context, read only where the program has imported OpenTelemetry."""

from __future__ import annotations

import sys
from typing import Any

from tracesock import _native

_audit: Any = _native.audit


def read() -> bytes | None:
    """16 bytes of trace id, 8 of span id, and one that says whether instrumentation is suppressed.

    The ids are zeros where no span is current; None where there is no OpenTelemetry.
    """
    trace: Any = sys.modules.get("opentelemetry.trace")
    context: Any = sys.modules.get("opentelemetry.context")
    if trace is None or context is None:
        return None
    current = context.get_current()
    span = trace.get_current_span(current).get_span_context()
    suppressed = bool(
        context.get_value(context._SUPPRESS_INSTRUMENTATION_KEY, current)
        or context.get_value("suppress_instrumentation", current)
    )
    ids = b"\0" * 24
    if span.is_valid:
        ids = span.trace_id.to_bytes(16, "big") + span.span_id.to_bytes(8, "big")
    return ids + bytes([suppressed])


def install() -> None:
    """Lets records carry the context."""
    _audit.set_context_reader(read)


def uninstall() -> None:
    _audit.set_context_reader(None)
