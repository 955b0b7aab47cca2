"""Ways out for spans: an SDK provider's processors, or OTLP, natively encoded.

A `Sink` takes spans that the drain made of records and events. `OtlpSink` also reads the recorder
itself: sends go from the ring into a request without becoming Python objects.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.context import Context
from opentelemetry.sdk.trace import (
    ReadableSpan,
    SpanProcessor,
    SynchronousMultiSpanProcessor,
    _Span,
)
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import NonRecordingSpan, set_span_in_context
from opentelemetry.trace.status import Status, StatusCode

from tracesock import _native, _threads
from tracesock._native import __version__, recorder
from tracesock.instrumentation import semconv
from tracesock.instrumentation.otlp import OtlpFileExporter, OtlpHttpExporter, encode_resource

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext

    from tracesock.instrumentation.spans import Finished, Peer, Provider

_log = logging.getLogger(__name__)

SCOPE = InstrumentationScope(semconv.SCOPE_NAME, __version__, semconv.SCHEMA_URL)
_UNSET, _ERROR = Status(StatusCode.UNSET), Status(StatusCode.ERROR)
_REQUEST_SIZE = 4 << 20  # bytes at which a request is handed on
# The same where a request costs little beside its spans: those that Python made, and a line in a
# file. What a burst of them took is the process's for good.
_SMALL_REQUEST_SIZE = 64 << 10
_MOST_WAITING = 256 << 20  # bytes of requests that wait for a slow receiver
_FLUSH_TIMEOUT = 30.0  # seconds
_MOST_ATTRIBUTES = 16  # of a send's span
_PASSIVE = (SpanProcessor, BatchSpanProcessor, SimpleSpanProcessor)  # do nothing at a start


class ProcessorSink:
    """Gives each span to a provider's processors, within the provider's limits."""

    through_processors = True

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self.delivered = 0
        self.resolve: Any = None
        self.describe: Any = None
        self._asked: Any = None  # the processors that were asked whether they want starts
        self._wants_start = False

    def put(self, finished: Finished, context: SpanContext, attributes: dict[str, Any]) -> None:
        """Hand a recorded span on. Raises what a processor raised, after the others had it."""
        provider = self._provider.get()
        processor = provider._active_span_processor
        status = _UNSET if finished.error is None else _ERROR
        if self._tells_start(processor):
            self._put_live(provider, processor, finished, context, attributes, status)
        else:
            end(
                processor,
                ReadableSpan(
                    name=finished.name,
                    context=context,
                    parent=finished.parent,
                    resource=provider.resource,
                    attributes=limited(provider, attributes),
                    kind=finished.span_kind,
                    status=status,
                    start_time=finished.start,
                    end_time=finished.end,
                    instrumentation_scope=SCOPE,
                ),
            )
        self.delivered += 1

    def _put_live(
        self,
        provider: Any,
        processor: Any,
        finished: Finished,
        context: SpanContext,
        attributes: dict[str, Any],
        status: Status,
    ) -> None:
        """As a span that a processor can still change when it starts, as it can the SDK's own."""
        parent_context = Context()
        if finished.parent is not None:
            parent_context = set_span_in_context(NonRecordingSpan(finished.parent), parent_context)
        span = _Span(
            name=finished.name,
            context=context,
            parent=finished.parent,
            sampler=provider.sampler,
            resource=provider.resource,
            attributes=attributes,
            kind=finished.span_kind,
            span_processor=_Each(processor),
            limits=provider._span_limits,
            instrumentation_scope=SCOPE,
        )
        span.start(finished.start, parent_context)
        if not status.is_unset:
            span.set_status(status)
        span.end(finished.end)

    def _tells_start(self, processor: Any) -> bool:
        """Whether a processor wants to see spans start, which the SDK's own do not."""
        each = getattr(processor, "_span_processors", (processor,))
        if each is not self._asked:
            self._asked = each
            self._wants_start = any(_wants_start(type(one)) for one in each)
        return self._wants_start

    def wait(self, seconds: float) -> None:
        """Until there is something to read, or the time has passed."""
        recorder.wait(seconds)

    def read(self, heard: bool) -> tuple[list[tuple[Any, ...]], bool]:
        """Records of the recorder, and whether these were the last that it had when their round
        began; `heard`: whether somebody gets the spans that are made of them."""
        records, complete = recorder.drain(_BATCH, heard)
        return records, complete

    def connection(self, number: int, peer: Peer) -> None:
        """A connection has become known."""

    def forget(self, number: int) -> None:
        """It has ended."""

    def flush_folds(self, idle: float) -> None:
        """Sends are folded before they come here."""

    def hand_on(self) -> None:
        """Everything was, when it was put."""

    def flush(self, timeout: float = _FLUSH_TIMEOUT) -> bool:
        """Everything was handed on when it was put."""
        return True

    def wake(self) -> None:
        """End a `read` early."""
        recorder.wake()

    def after_fork(self) -> None:
        """Count anew."""
        self.delivered = 0

    def close(self) -> None:
        """The processors are the provider's own."""


_BATCH = 256  # records that are Python objects at a time


def _wants_start(processor: type) -> bool:
    return any(
        getattr(processor, name, None) not in [getattr(known, name, None) for known in _PASSIVE]
        for name in ("on_start", "_on_ending")
    )


def end(processor: Any, span: ReadableSpan) -> None:
    """`processor.on_end(span)`, where one of several that fails does not keep it from the rest."""
    if type(processor) is not SynchronousMultiSpanProcessor:
        processor.on_end(span)
        return
    failure: Exception | None = None
    for each in processor._span_processors:
        try:
            each.on_end(span)
        except Exception as error:
            failure = failure or error
    if failure is not None:
        raise failure


class _Each(SpanProcessor):
    """Between a live span and its processors: `end` instead of `on_end`."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor

    def on_start(self, span: Any, parent_context: Context | None = None) -> None:
        self._processor.on_start(span, parent_context=parent_context)

    def _on_ending(self, span: Any) -> None:
        ending = getattr(self._processor, "_on_ending", None)
        if ending is not None:
            ending(span)

    def on_end(self, span: ReadableSpan) -> None:
        end(self._processor, span)


def limited(provider: Any, attributes: dict[str, Any]) -> Any:
    """The attributes within the limits of a provider."""
    limits = getattr(provider, "_span_limits", None)
    if limits is None:
        return attributes
    most, longest = limits.max_span_attributes, limits.max_span_attribute_length
    if longest is None and (most is None or len(attributes) <= most):
        return attributes
    return BoundedAttributes(most, attributes, immutable=True, max_value_len=longest)


def limits_attributes(provider: Any) -> bool:
    """Whether a provider's limits can change the attributes of a send."""
    limits = getattr(provider, "_span_limits", None)
    if limits is None:
        return False
    most = limits.max_span_attributes
    return limits.max_span_attribute_length is not None or (
        most is not None and most < _MOST_ATTRIBUTES
    )


class OtlpSink:
    """Encodes spans as OTLP requests and delivers them in a thread of its own.

    `target` is the URL of an OTLP/HTTP receiver, `file:` and a path for OTLP JSON lines, or empty
    for what OTEL_EXPORTER_OTLP_* says. `most_in_trace` is the number of sends of one connection in
    one trace that are encoded natively, 0 for no limit. `native` is off where spans need Python:
    for hooks, redaction, excluded peers or a sampler of the user's; `samples_roots`: whether every
    span without a parent is sampled.
    """

    through_processors = False

    def __init__(
        self,
        target: str,
        provider: Any,
        *,
        most_in_trace: int,
        native: bool,
        samples_roots: bool,
        dropped: Any,
    ) -> None:
        self._provider = provider
        resource = provider.resource
        self._exporter: OtlpHttpExporter | OtlpFileExporter
        size = _REQUEST_SIZE
        if target.startswith("file:"):
            size = _SMALL_REQUEST_SIZE  # of which each is a line
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
        self._drain = (
            recorder.OtlpDrain(*origin, most_in_trace, size, samples_roots) if native else None
        )
        # Makes a connection known, and says what it is: set by who knows them.
        self.resolve: Any = None
        self.describe: Any = None
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
        _threads.start(self._thread)

    # --- the drain's side ---------------------------------------------------------------------

    def put(self, finished: Finished, context: SpanContext, attributes: dict[str, Any]) -> None:
        """Encode a sampled span."""
        if not context.trace_flags.sampled:
            return
        bounded = limited(self._provider, attributes)
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
                attributes=bounded,
                dropped_attributes=getattr(bounded, "dropped", 0),
                status=0 if finished.error is None else 2,
            ):
                break
            self._hand_on(self._encoder)
        if self._encoder.size >= _SMALL_REQUEST_SIZE:
            self._hand_on(self._encoder)

    def wait(self, seconds: float) -> None:
        """Encode what comes, until there is something to do here, or the time has passed."""
        if self._drain is None:
            recorder.wait(seconds)
        else:
            self._drain.pump(seconds)

    def read(self, heard: bool) -> tuple[list[tuple[Any, ...]], bool]:
        """Encode what can be: the records that need Python, and whether these were the last that
        the recorder had when their round began."""
        records: list[tuple[Any, ...]]
        if self._drain is None:
            records, complete = recorder.drain(_BATCH, heard)
            return records, complete
        records, unknown, unknown_connects, complete = self._drain.run()
        if unknown or unknown_connects:
            for number in unknown:
                self.resolve(number)
            for number in unknown_connects:
                peer = self.describe(number)
                name = semconv.span_connect(peer.label, peer.port)
                self._drain.connects(number, name, _encoded(peer))
            records += self._drain.resume()
        if self._drain.count and not complete:
            self._hand_on(self._drain)
        return records, complete

    def connection(self, number: int, peer: Peer) -> None:
        """Sends of this connection can be encoded natively from now on."""
        if self._drain is None:
            return
        name = semconv.span_send(peer.label, peer.port)
        self._drain.connection(number, name, _encoded(peer))

    def forget(self, number: int) -> None:
        """The connection has ended."""
        if self._drain is not None:
            self._drain.forget(number)

    def flush_folds(self, idle: float) -> None:
        """Encode what was folded and got no further send for `idle` seconds; 0 for everything."""
        if self._drain is not None:
            self._drain.flush_folds(idle)
            lost = self._drain.take_lost()
            if lost:
                self._dropped("traces", "queue_full", lost)

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

    def hand_on(self) -> None:
        """Give what is encoded to the exporter's thread."""
        if self._drain is not None:
            self._hand_on(self._drain)
        self._hand_on(self._encoder)

    def flush(self, timeout: float = _FLUSH_TIMEOUT) -> bool:
        """Wait until everything that was handed on is delivered, or cannot be: whether it was, in
        `timeout` seconds."""
        with self._condition:
            return self._condition.wait_for(
                lambda: not self._waiting and not self._busy, timeout=timeout
            )

    def after_fork(self) -> None:
        """What waited is the parent's to deliver."""
        self._condition = threading.Condition()
        self._waiting.clear()
        self._size = self.delivered = 0
        self._busy = False
        if self._drain is not None:
            self._drain.clear()
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
                del request  # not until the next one comes
                with self._condition:
                    self._busy = False
                    self._condition.notify_all()


def _encoded(peer: Peer) -> bytes:
    return b"".join(
        _native.otlp_span_attribute(key, value) for key, value in peer.attributes.items()
    )


def _traces_url(target: str) -> str:
    """The URL for traces: /v1/traces is added to one without a path."""
    scheme, _, rest = target.partition("://")
    host, _, path = rest.partition("/")
    return target if path else f"{scheme}://{host}/v1/traces"
