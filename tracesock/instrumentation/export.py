"""Ways out for spans: an SDK provider's processors, or OTLP, natively encoded.

A `Sink` takes spans that the drain made of records and events. `OtlpSink` also reads the recorder
itself: sends go from the ring into a request without becoming Python objects.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace.status import Status, StatusCode

from tracesock import _native
from tracesock._native import __version__, recorder
from tracesock.instrumentation import semconv
from tracesock.instrumentation.otlp import OtlpFileExporter, OtlpHttpExporter, encode_resource

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext

    from tracesock.instrumentation.spans import Finished, Peer

_log = logging.getLogger(__name__)

SCOPE = InstrumentationScope(semconv.SCOPE_NAME, __version__, semconv.SCHEMA_URL)
_REQUEST_SIZE = 1 << 20  # bytes at which a request is handed on
_MOST_WAITING = 256 << 20  # bytes of requests that wait for a slow receiver
_FLUSH_TIMEOUT = 30.0  # seconds


class ProcessorSink:
    """Gives each span to a provider's processors."""

    def __init__(self, provider: Any) -> None:
        self._provider = provider
        self.delivered = 0
        self.resolve: Any = None

    def put(self, finished: Finished, context: SpanContext, attributes: dict[str, Any]) -> None:
        """Hand a sampled span on."""
        status = StatusCode.UNSET if finished.error is None else StatusCode.ERROR
        self._provider._active_span_processor.on_end(
            ReadableSpan(
                name=finished.name,
                context=context,
                parent=finished.parent,
                resource=self._provider.resource,
                attributes=attributes,
                kind=finished.span_kind,
                status=Status(status),
                start_time=finished.start,
                end_time=finished.end,
                instrumentation_scope=SCOPE,
            )
        )
        self.delivered += 1

    def read(self, seconds: float) -> list[tuple[Any, ...]]:
        """Records of the recorder, after at most `seconds`."""
        recorder.wait(seconds)
        return recorder.drain(_BATCH)

    def connection(self, number: int, peer: Peer) -> None:
        """A connection has become known."""

    def forget(self, number: int) -> None:
        """It has ended."""

    def flush(self) -> None:
        """Everything was handed on when it was put."""

    def wake(self) -> None:
        """End a `read` early."""
        recorder.wake()

    def after_fork(self) -> None:
        """Count anew."""
        self.delivered = 0

    def close(self) -> None:
        """The processors are the provider's own."""


_BATCH = 4096


class OtlpSink:
    """Encodes spans as OTLP requests and delivers them in a thread of its own.

    `target` is the URL of an OTLP/HTTP receiver, `file:` and a path for OTLP JSON lines, or empty
    for what OTEL_EXPORTER_OTLP_* says. `most_in_trace` is the number of sends of one connection in
    one trace that are encoded natively, 0 for no limit. `native` is off where spans need Python:
    for hooks, redaction, excluded peers or a sampler of the user's.
    """

    def __init__(
        self, target: str, resource: Any, *, most_in_trace: int, native: bool, dropped: Any
    ) -> None:
        self._exporter: OtlpHttpExporter | OtlpFileExporter
        if target.startswith("file:"):
            self._exporter = OtlpFileExporter(target.removeprefix("file:").removeprefix("//"))
        else:
            self._exporter = OtlpHttpExporter(_traces_url(target) if target else None)
        origin = (
            encode_resource(resource),
            resource.schema_url or "",
            semconv.SCOPE_NAME,
            __version__,
            semconv.SCHEMA_URL,
        )
        self._encoder = _native.OtlpEncoder(*origin)
        self._drain = recorder.OtlpDrain(*origin, most_in_trace, _REQUEST_SIZE) if native else None
        # Makes a connection known: set by who knows them.
        self.resolve: Any = None
        self._dropped = dropped
        self._waiting: deque[tuple[bytes, int]] = deque()
        self._size = 0
        self.delivered = 0
        self._closing = False
        self._condition = threading.Condition()
        self._busy = False
        self._start()

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="tracesock-export", daemon=True)
        self._thread.start()

    # --- the drain's side ---------------------------------------------------------------------

    def put(self, finished: Finished, context: SpanContext, attributes: dict[str, Any]) -> None:
        """Encode a sampled span."""
        for _ in range(2):
            if self._encoder.add_span(
                finished.name,
                context.trace_id,
                context.span_id,
                finished.start,
                finished.end,
                parent=finished.parent.span_id if finished.parent else None,
                parent_is_remote=bool(finished.parent and finished.parent.is_remote),
                trace_state=context.trace_state.to_header() if context.trace_state else "",
                kind=finished.span_kind.value + 1,
                attributes=attributes,
                status=0 if finished.error is None else 2,
            ):
                break
            self._hand_on(self._encoder)
        if self._encoder.size >= _REQUEST_SIZE:
            self._hand_on(self._encoder)

    def read(self, seconds: float) -> list[tuple[Any, ...]]:
        """Encode what can be, for at most `seconds`; the records that need Python."""
        if self._drain is None:
            recorder.wait(seconds)
            return recorder.drain(_BATCH)
        records: list[tuple[Any, ...]]
        records, unknown = self._drain.run(seconds)
        if unknown:
            for number in unknown:
                self.resolve(number)
            records += self._drain.resume()
        if self._drain.count:
            self._hand_on(self._drain)
        return records

    def connection(self, number: int, peer: Peer) -> None:
        """Sends of this connection can be encoded natively from now on."""
        if self._drain is None:
            return
        encoded = b"".join(
            _native.otlp_span_attribute(key, value) for key, value in peer.attributes.items()
        )
        self._drain.connection(number, semconv.span_send(peer.label, peer.port), encoded)

    def forget(self, number: int) -> None:
        """The connection has ended."""
        if self._drain is not None:
            self._drain.forget(number)

    def wake(self) -> None:
        """End a `read` early."""
        recorder.wake()

    def _hand_on(self, encoder: Any) -> None:
        count = encoder.count
        if not count:
            return
        request = encoder.take()
        with self._condition:
            if self._size + len(request) > _MOST_WAITING:
                self._dropped("traces", "queue_full", count)
                return
            self._waiting.append((request, count))
            self._size += len(request)
            self._condition.notify_all()

    def flush(self) -> None:
        """Wait until everything that was put is delivered, or cannot be: at most 30 s."""
        if self._drain is not None:
            self._hand_on(self._drain)
        self._hand_on(self._encoder)
        with self._condition:
            self._condition.wait_for(
                lambda: not self._waiting and not self._busy, timeout=_FLUSH_TIMEOUT
            )

    def after_fork(self) -> None:
        """What waited is the parent's to deliver."""
        self._condition = threading.Condition()
        self._waiting.clear()
        self._size = self.delivered = 0
        self._busy = False
        if self._drain is not None:
            self._drain.take()
        self._encoder.take()
        self._start()

    def close(self) -> None:
        """Deliver what waits and end."""
        self.flush()
        with self._condition:
            self._closing = True
            self._condition.notify_all()
        self._exporter.shutdown()
        self._thread.join(timeout=5)

    # --- the exporter's thread ----------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting:
                    return
                request, count = self._waiting.popleft()
                self._size -= len(request)
                self._busy = True
            try:
                result = self._exporter.export(request)
                if result.delivered:
                    self.delivered += count - result.rejected
                lost = result.rejected if result.delivered else count
                if lost:
                    self._dropped("traces", "exporter", lost)
            finally:
                with self._condition:
                    self._busy = False
                    self._condition.notify_all()


def _traces_url(target: str) -> str:
    """The URL for traces: /v1/traces is added to one without a path."""
    scheme, _, rest = target.partition("://")
    host, _, path = rest.partition("/")
    return target if path else f"{scheme}://{host}/v1/traces"
