"""Spans of sends and connections: tracesock's, one around each call by hand, and Sentry's.

    .venv/bin/python -m tests.bench.naive [--quick] [--json] [--only TEXT] [--rounds N]

"by hand" is what an instrumentation library does: the stock socket with an OpenTelemetry span
around the call, and a batch processor whose exporter throws the spans away. Sentry's integration
patches create_connection and getaddrinfo of the stock module, and sends nothing here either. 1.00
is the stock module, uninstrumented.
"""

from __future__ import annotations

import socket as stock
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import tracesock
from tests.bench import calls, connections, harness, modes
from tests.bench.harness import STOCK, Case, Row, Skipped
from tests.bench.sockets import unix_pair

TRACESOCK_SPANS = "tracesock, a span each"
BY_HAND = "OpenTelemetry by hand"
SENTRY = "Sentry"

# Kept before anything patches the module.
_OWN = {name: getattr(stock, name) for name in ("create_connection", "getaddrinfo")}
_sentrys: dict[str, Any] = {}


def _tracer() -> Any:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    class Nowhere(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            return SpanExportResult.SUCCESS

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(Nowhere()))
    return provider.get_tracer("by hand")


def _by_hand(case: Case, tracer: Any) -> Case:
    """The case with a span around its statement."""
    within = "with start('call') as span:\n    span.set_attribute('network.transport', 'tcp')\n"
    return replace(
        case,
        statement=within + textwrap.indent(case.statement, " " * 4),
        names={**case.names, "start": tracer.start_as_current_span},
    )


def _put(functions: dict[str, Any]) -> None:
    for name, function in functions.items():
        setattr(stock, name, function)


class _Sentry:
    """Sentry's SDK with its socket integration, sending nothing. Its functions are in the module
    while it runs: the others' create_connection() calls getaddrinfo() there."""

    def __init__(self) -> None:
        try:
            import sentry_sdk
            from sentry_sdk.integrations.socket import SocketIntegration
        except ImportError as error:
            raise Skipped(f"{error.name} is not installed (the extra bench)") from None
        if not _sentrys:
            sentry_sdk.init(
                dsn="http://key@127.0.0.1:9/1",
                traces_sample_rate=1.0,
                transport=lambda envelope: None,
                default_integrations=False,
                integrations=[SocketIntegration()],
            )
            _sentrys.update({name: getattr(stock, name) for name in _OWN})
            _put(_OWN)
        self._sdk = sentry_sdk
        self._transaction: Any = None

    def begin(self) -> None:
        """A transaction for each burst: it keeps a thousand spans."""
        _put(_sentrys)
        self._transaction = self._sdk.start_transaction(name="bench")
        self._transaction.__enter__()

    def end(self) -> None:
        self._transaction.__exit__(None, None, None)
        _put(_OWN)


def _in_sentry(make: Any, name: str) -> Case:
    sentry = _Sentry()
    case: Case = make(stock)
    function = "create" if "create" in case.names else "look_up"
    case.names[function] = _sentrys[name]
    after = case.after

    def end() -> None:
        sentry.end()
        if after is not None:
            after()

    return replace(case, before=sentry.begin, after=end)


def _plain(make: Any, name: str) -> Case:
    case: Case = make(stock)
    function = "create" if "create" in case.names else "look_up"
    case.names[function] = _OWN[name]
    return case


def rows(quick: bool) -> Iterator[Row]:
    """Sends, then what Sentry patches."""
    tracer = _tracer()
    send = calls.sending(unix_pair, "send", 1, None)
    yield Row(
        "send, Unix",
        {
            STOCK: lambda: send(stock),
            TRACESOCK_SPANS: lambda: send(tracesock),
            BY_HAND: lambda: _by_hand(send(stock), tracer),
        },
    )
    for title, make, name in (
        ("create_connection by name", connections.by_name, "create_connection"),
        ("getaddrinfo, hosts file", connections.lookups("localhost"), "getaddrinfo"),
    ):
        yield Row(
            title,
            {
                STOCK: lambda make=make, name=name: _plain(make, name),
                TRACESOCK_SPANS: lambda make=make: make(tracesock),
                BY_HAND: lambda make=make, name=name: _by_hand(_plain(make, name), tracer),
                SENTRY: lambda make=make, name=name: _in_sentry(make, name),
            },
        )


if __name__ == "__main__":
    with modes.in_force("spans"):
        harness.main(__doc__, rows, rounds=7)
