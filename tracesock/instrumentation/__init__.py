"""Telemetry: `instrument()` turns the recorder on, `uninstrument()` off.

The recorder is native; what is here runs beside the program, in the drain's thread, and turns
records into spans and metrics of OpenTelemetry.
"""

from __future__ import annotations

import os
import threading
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import metrics as otel_metrics
from opentelemetry import trace
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import SpanContext, TraceFlags, TraceState
from opentelemetry.trace.propagation import _SPAN_KEY

from tracesock import _functions
from tracesock._native import recorder
from tracesock.dropin.observer import set_observer
from tracesock.instrumentation.config import Config, ConfigError, from_environment
from tracesock.instrumentation.connections import Connection, connections, leaks
from tracesock.instrumentation.drain import Drain
from tracesock.instrumentation.environment import instrument_from_environment
from tracesock.instrumentation.export import OtlpSink, ProcessorSink, limits_attributes
from tracesock.instrumentation.metrics import Metrics
from tracesock.instrumentation.observer import SERVER, Observer
from tracesock.instrumentation.ports import PortUse, ephemeral_ports
from tracesock.instrumentation.snapshots import Snapshots
from tracesock.instrumentation.spans import Provider, Spans, samples_all_children, samples_all_roots

__all__ = [
    "Config",
    "ConfigError",
    "Connection",
    "PortUse",
    "connections",
    "ephemeral_ports",
    "flush",
    "instrument",
    "instrument_from_environment",
    "is_instrumented",
    "leaks",
    "uninstrument",
]

_lock = threading.RLock()
_current: Drain | None = None


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()
    if _current is not None:
        _current.after_fork()


def _before_fork() -> None:
    if _current is not None:
        _current.before_fork()


def _after_fork_in_parent() -> None:
    if _current is not None:
        _current.after_fork_in_parent()


os.register_at_fork(
    before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork
)


def instrument(
    tracer_provider: Any = None,
    meter_provider: Any = None,
    logger_provider: Any = None,
    **config: Any,
) -> None:
    """Record what the sockets of this process do, as OpenTelemetry spans and metrics.

    `tracer_provider` and `meter_provider` are the global ones where none is given. Where a
    `logger_provider` is given, it is told the open connections every `snapshot_interval`. The other
    arguments are the fields of `tracesock.instrumentation.Config`, each with an environment
    variable TRACESOCK_ and its name. Called again, it replaces the instrumentation before.

    Raises ConfigError for a setting that is not one, TypeError for an argument that is none.
    """
    settings = from_environment(config)
    with _lock:
        uninstrument()
        provider = tracer_provider or trace.get_tracer_provider()
        drain: Drain
        meters = meter_provider or otel_metrics.get_meter_provider()
        metrics = Metrics(
            meters,
            cardinality_limit=settings.cardinality_limit,
            redact=settings.redact,
            before_collect=lambda: drain.before_collect(),
        )
        source, sink = _sink(provider, settings, metrics)
        spans = Spans(source, sink, settings)
        observer = Observer(spans)
        snapshots = None
        if Snapshots.wanted(logger_provider, settings):
            snapshots = Snapshots(logger_provider, meters, settings)
        drain = Drain(source, spans, observer, metrics, snapshots)
        recorder.start(
            _wanted(settings),
            settings.slow_send,
            _context_variable(),
            _SPAN_KEY,
            _SUPPRESS_INSTRUMENTATION_KEY,
            "suppress_instrumentation",
            SERVER,
            _tuple_of_parts(),
        )
        drain.start()
        _functions.observer = observer
        set_observer(observer)
        global _current
        _current = drain


def uninstrument() -> None:
    """Deliver what was recorded, and record nothing more."""
    global _current
    with _lock:
        drain, _current = _current, None
        if drain is None:
            return
        recorder.stop()
        _functions.observer = None
        set_observer(None)
        drain.stop()


def is_instrumented() -> bool:
    """Whether calls are recorded now."""
    return _current is not None


def flush(timeout: float = 30.0) -> bool:
    """Deliver everything that is recorded now to the provider's processors, or by OTLP.

    Returns whether that was done in `timeout` seconds: a stalled exporter can keep it. True where
    nothing is instrumented; False in a signal handler that has interrupted a delivery, which goes
    on afterwards.
    """
    drain = _current
    return drain is None or drain.flush(timeout)


def _sink(provider: Any, settings: Config, metrics: Metrics) -> tuple[Provider, Any]:
    """(provider, sink): where spans go, and who samples and numbers them."""
    source = Provider(provider)
    if settings.export != "otlp" and not settings.otlp:
        return source, ProcessorSink(source)
    provider = source.get()
    if getattr(provider, "sampler", None) is None:
        # Nobody else makes spans here: a provider for the sampler, the identifiers, the resource.
        provider = TracerProvider()
    native = (
        not settings.excluded_peers
        and not settings.redact
        and settings.request_hook is None
        and settings.response_hook is None
        and type(provider.id_generator) is RandomIdGenerator
        and samples_all_children(provider.sampler)
        and not limits_attributes(provider)
    )
    sink = OtlpSink(
        settings.otlp,
        provider,
        most_in_trace=settings.max_sends_per_trace,
        native=native,
        samples_roots=samples_all_roots(provider.sampler),
        dropped=metrics.dropped,
    )
    return Provider(provider), sink


def _tuple_of_parts() -> SpanContext | None:
    """A span context whose class keeps its attributes as a tuple, in an order that is known: then
    they need not be read one by one."""
    flags, state = TraceFlags(TraceFlags.SAMPLED), TraceState([("a", "b")])
    context = SpanContext(1, 2, True, flags, state)
    parts = (1, 2, True, flags, state)
    return context if isinstance(context, tuple) and context[: len(parts)] == parts else None


def _wanted(settings: Config) -> int:
    wanted = recorder.METRICS | recorder.CONNECTS
    wanted |= {
        "all": recorder.SENDS,
        "slow": recorder.SLOW_SENDS | recorder.FAILED_SENDS,
        "errors": recorder.FAILED_SENDS,
        "off": 0,
    }[settings.send_spans]
    if settings.accept_spans:
        wanted |= recorder.ACCEPTS
    if not settings.require_parent:
        wanted |= recorder.ROOTLESS_SENDS
    return wanted


def _context_variable() -> Any:
    """The context variable in which OpenTelemetry keeps the current context."""
    otel_context.get_current()  # which makes the run-time context
    runtime = otel_context._RUNTIME_CONTEXT
    variable = getattr(runtime, "_current_context", None)
    if variable is None:
        raise RuntimeError(
            f"tracesock: the OpenTelemetry context is kept by {type(runtime).__name__}, not in a "
            "context variable; unset OTEL_PYTHON_CONTEXT"
        )
    return variable


def __getattr__(name: str) -> Any:
    if name == "TracesockInstrumentor":  # its base class is an optional package
        from tracesock.instrumentation.instrumentor import TracesockInstrumentor

        return TracesockInstrumentor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
