"""Instrumentation from the OTEL_* environment: what `tracesock run` turns on.

See https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from opentelemetry import _logs, metrics, trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs import export as logs_export
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

from tracesock import _threads
from tracesock.instrumentation.config import ConfigError

_KNOWN = ("otlp", "console", "none")


def _exporters(signal: str) -> list[str]:
    """The exporters of a signal (TRACES, METRICS, LOGS): otlp where only an endpoint is named.

    For logs that must be an endpoint of their own: many receivers take none.
    """
    variable = f"OTEL_{signal}_EXPORTER"
    text = os.environ.get(variable, "").strip()
    if not text:
        endpoints = [f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"]
        if signal != "LOGS":
            endpoints.append("OTEL_EXPORTER_OTLP_ENDPOINT")
        return ["otlp"] if any(os.environ.get(name) for name in endpoints) else []
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in _KNOWN:
            raise ConfigError(f"{variable} is {text!r}: it must be of {', '.join(_KNOWN)}")
    return [name for name in names if name != "none"]


def _otlp(signal: str) -> Any:
    try:
        if signal == "TRACES":
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            return OTLPSpanExporter()
        if signal == "LOGS":
            from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter

            return OTLPLogExporter()
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

        return OTLPMetricExporter()
    except ImportError:
        raise ConfigError(
            f"OTEL_{signal}_EXPORTER is otlp, but its exporter is not installed: "
            "pip install tracesock[otlp]"
        ) from None


def _console_logs() -> Any:
    # Its name was another one before opentelemetry-sdk 1.39.
    name = "ConsoleLogRecordExporter"
    exporter = getattr(logs_export, name, None) or logs_export.ConsoleLogExporter
    return exporter(out=sys.stderr)


def providers() -> tuple[Any, Any, Any]:
    """(TracerProvider, MeterProvider, LoggerProvider) as the environment describes them, made
    global; None for a signal that has no exporter. Raises ConfigError, which names the variable."""
    resource = Resource.create()
    tracer_provider = meter_provider = logger_provider = None
    names = _exporters("TRACES")
    if names:
        tracer_provider = TracerProvider(resource=resource)
        for name in names:
            exporter = ConsoleSpanExporter() if name == "console" else _otlp("TRACES")
            tracer_provider.add_span_processor(BatchSpanProcessor(exporter))
        trace.set_tracer_provider(tracer_provider)
    names = _exporters("METRICS")
    if names:
        readers = [
            PeriodicExportingMetricReader(
                ConsoleMetricExporter() if name == "console" else _otlp("METRICS")
            )
            for name in names
        ]
        meter_provider = MeterProvider(readers, resource=resource)
        metrics.set_meter_provider(meter_provider)
    names = _exporters("LOGS")
    if names:
        logger_provider = LoggerProvider(resource=resource)
        for name in names:
            logger_provider.add_log_record_processor(
                BatchLogRecordProcessor(_console_logs() if name == "console" else _otlp("LOGS"))
            )
        _logs.set_logger_provider(logger_provider)
    return tracer_provider, meter_provider, logger_provider


def instrument_from_environment() -> None:
    """`instrument()` with the providers and the settings of the environment.

    Does nothing where OTEL_SDK_DISABLED is true. A variable that is wrong is told in one line on
    standard error, and the program runs without instrumentation.
    """
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return
    from tracesock import instrumentation

    try:
        with _threads.unsignalled_after_fork():
            made = providers()
        instrumentation.instrument(*made)
    except ConfigError as error:
        sys.stderr.write(f"tracesock: not instrumented: {error}\n")
