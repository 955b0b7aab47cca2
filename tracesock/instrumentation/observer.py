"""What Python itself observes: connection set-ups and TLS handshakes; and the spans of look-ups.

These are rare beside sends, so each is an event in a queue that the drain turns into a span and
metrics. The tracing context of a set-up is decided at its start, because its look-ups, attempts and
handshake are its children before it has ended. Nothing here raises into the caller.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import threading
from collections import deque
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from opentelemetry.trace.propagation import _SPAN_KEY

from tracesock._native import recorder
from tracesock.instrumentation import semconv
from tracesock.instrumentation.spans import (
    ONLY_METRIC,
    SAMPLED,
    Finished,
    Spans,
    endpoint,
    parent_of,
    printable,
)

_log = logging.getLogger(__name__)
# Has the name that a set-up asks for; the recorder reads it where something connects.
SERVER: contextvars.ContextVar[str] = contextvars.ContextVar("tracesock-server")
_MOST_EVENTS = 16384
_WAKE_EVERY = 256
_NOT_SAMPLED = TraceFlags(TraceFlags.DEFAULT)
_REVERSE_KINDS = frozenset({"getnameinfo", "gethostbyaddr"})


class _Setup:
    """A connection set-up; `won` says which connection it came to. Many may wait for the drain:
    this has what their spans are made of, and the drain makes them."""

    __slots__ = (
        "ended",
        "error",
        "host",
        "named",
        "own",
        "parent",
        "peer",
        "port",
        "sampled_with",
        "started",
        "tokens",
        "within",
    )

    def __init__(self, host: str | None, port: int | str | None) -> None:
        self.host = host
        self.port = port
        self.parent: SpanContext | None = None
        self.own: SpanContext | None = None  # its span's; None where nobody gets spans
        self.peer: tuple[str | None, int | None] | None = None
        self.sampled_with: Any = None  # attributes of the sampler's
        self.within: Context | None = None  # the OpenTelemetry context of its parts
        self.named: str | None = None  # the name that it asks for
        self.tokens: Any = None
        self.error: str | None = None
        self.ended = 0
        self.started = recorder.ticks()

    def run(self, function: Any, *arguments: Any) -> Any:
        """Call a part of it, in its context."""
        return recorder.call_within(self.within, self.named, function, *arguments)

    def enter(self) -> None:
        """Let this thread or task be in its context until `leave()`."""
        self.tokens = (
            None if self.within is None else otel_context.attach(self.within),
            None if self.named is None else SERVER.set(self.named),
        )

    def leave(self) -> None:
        """The context is the one before."""
        (context, server), self.tokens = self.tokens, None
        if server is not None:
            # A coroutine that somebody else closes ends in a context that never had the name.
            with contextlib.suppress(ValueError):
                SERVER.reset(server)
        if context is not None:
            otel_context.detach(context)

    def won(self, sock: Any) -> None:
        """The attempt that succeeded."""
        try:
            self.peer = endpoint(sock.getpeername())
        except Exception:
            return

    def name(self, redacted: bool) -> str:
        """The span's."""
        shown = printable(semconv.REDACTED if redacted else str(self.host))
        return semconv.span_setup(shown, self.port)

    def attributes(self) -> dict[str, Any]:
        """The span's, as far as they are known."""
        attributes: dict[str, Any] = {}
        if self.host is not None:
            attributes[semconv.SERVER_ADDRESS] = self.host
        if isinstance(self.port, int):
            attributes[semconv.SERVER_PORT] = self.port
        if self.sampled_with:
            attributes.update(self.sampled_with)
        address, port = self.peer or (None, None)
        if address:
            attributes[semconv.NETWORK_PEER_ADDRESS] = address
        if port is not None:
            attributes[semconv.NETWORK_PEER_PORT] = port
        return attributes


class Observer:
    """Puts events into `events`, a bounded queue: what does not fit is counted in `dropped`."""

    def __init__(self, spans: Spans) -> None:
        self.spans = spans
        self._redacted = semconv.SERVER_ADDRESS in spans.config.redact
        self.events: deque[tuple[Any, ...]] = deque()
        self.written = 0
        self.dropped = 0
        # Each event is counted, whoever puts it; a signal handler may put one in between.
        self._counting = threading.RLock()

    def put(self, *event: Any) -> None:
        """Add an event; for the drain to call `Observer.finish` with."""
        with self._counting:
            self.written += 1
            if len(self.events) >= _MOST_EVENTS:
                self.dropped += 1
                return
            self.events.append(event)
            # Not for each event: a drain that wakes takes the interpreter's lock from the caller.
            # By what was written: what waits is less where a ring has woken the drain in between.
            due = self.written % _WAKE_EVERY == 0
        if due:
            recorder.wake()

    def clear_after_fork(self) -> None:
        """Forget what the parent process will tell."""
        self._counting = threading.RLock()
        self.events.clear()
        self.written = self.dropped = 0

    # --- set-ups ------------------------------------------------------------------------------

    def start_setup(self, address: Any) -> _Setup | None:
        """`create_connection(address)` begins: before its look-up and attempts, which are to be
        made in the set-up's context. None where there is nothing to tell."""
        try:
            if recorder.suppressed():
                return None
            host, port = address
            if isinstance(host, (bytes, bytearray)):
                host = bytes(host).decode("utf-8", "backslashreplace")
            if isinstance(host, str) and self.spans.excluder.excludes(host, port, host):
                return None
            if host is not None and not isinstance(host, str):
                host = str(host)  # for the look-up to refuse
            if isinstance(port, str) and port.isdecimal():
                port = int(port)
            if not isinstance(port, (int, str)):
                port = None
            setup = _Setup(host, port)
            if self.spans.heard():
                context = otel_context.get_current()
                current = trace.get_current_span(context).get_span_context()
                setup.own = self._begin_span(setup, current)
                setup.within = Context({**context, _SPAN_KEY: NonRecordingSpan(setup.own)})
            # An address has the name by which it was found: anyio looks up by itself, and hands the
            # addresses to asyncio one by one.
            if host is not None and not recorder.is_literal(host):
                setup.named = host
            elif setup.own is None:
                return None
            return setup
        except Exception:
            _log.debug("tracesock: a connection set-up was not recorded", exc_info=True)
            return None

    def _begin_span(self, setup: _Setup, current: SpanContext) -> SpanContext:
        """The set-up's span, decided about at its start, below the current one."""
        provider = self.spans.provider
        generator = provider.id_generator
        sampled, state = True, None
        if current.is_valid:
            setup.parent = current
            trace_id = current.trace_id
            sampled, state = current.trace_flags.sampled, current.trace_state
        else:
            trace_id = generator.generate_trace_id()
        if sampled and self.spans.asks(setup.parent):
            name, attributes = setup.name(self._redacted), setup.attributes()
            result = self.spans.sample(setup.parent, trace_id, name, attributes)
            if result is not None:
                sampled = result.decision.is_sampled()
                setup.sampled_with = result.attributes
                state = result.trace_state
        flags = SAMPLED if sampled else _NOT_SAMPLED
        return SpanContext(trace_id, generator.generate_span_id(), False, flags, state)

    def end_setup(self, setup: _Setup, sock: Any, error: BaseException | None) -> None:
        """It has ended, with a connected socket or an error."""
        if setup.own is None:
            return
        end = recorder.ticks()
        try:
            setup.within = None  # it has what the caller's context has
            if setup.own.trace_flags.sampled:
                if sock is not None:
                    setup.won(sock)
                setup.ended = end
                setup.error = _error_type(error)
                self.put("setup", setup)
        except Exception:
            _log.debug("tracesock: a connection set-up was not recorded", exc_info=True)

    def setup_started(self, loop: Any, host: Any, port: Any) -> Any:
        """asyncio begins a `create_connection`."""
        setup = self.start_setup((host, port))
        if setup is not None:
            setup.enter()
        return setup

    def setup_ended(self, token: Any, transport: Any, error: BaseException | None) -> None:
        """asyncio has ended it."""
        token.leave()
        sock = None if transport is None else transport.get_extra_info("socket")
        self.end_setup(token, sock, error)

    # --- TLS ----------------------------------------------------------------------------------

    def handshake_started(self, tls: Any) -> Any:
        """A TLS handshake begins."""
        recorder.shakes_hands(tls)
        if recorder.suppressed():
            return None
        return recorder.ticks(), trace.get_current_span().get_span_context()

    def handshake_ended(self, tls: Any, token: Any, error: BaseException | None) -> None:
        """It has ended."""
        if token is None:
            return
        end = recorder.ticks()
        started, parent = token
        address, server = _tls_end(tls)
        if self.spans.excluder.excludes(*endpoint(address), server):
            return
        attributes: dict[str, Any] = {}
        server_side = bool(tls.server_side)
        if not server_side and tls.server_hostname:
            attributes[semconv.SERVER_ADDRESS] = tls.server_hostname
        if error is None:
            version = tls.version()
            if version:
                name, _, number = version.partition("v")
                attributes[semconv.TLS_PROTOCOL_NAME] = name.lower()
                attributes[semconv.TLS_PROTOCOL_VERSION] = number
            cipher = tls.cipher()
            if cipher:
                attributes[semconv.TLS_CIPHER] = cipher[0]
            attributes[semconv.TLS_RESUMED] = bool(tls.session_reused)
            protocol = tls.selected_alpn_protocol()
            if protocol:
                attributes[semconv.TLS_NEXT_PROTOCOL] = protocol
        self.put("handshake", server_side, started, end, parent, attributes, _error_type(error))

    def send_started(self, tls: Any, call: str, size: int) -> Any:
        """Application bytes are about to be encrypted and sent."""
        if recorder.suppressed():
            return None
        return recorder.ticks(), trace.get_current_span().get_span_context()

    def send_ended(self, tls: Any, token: Any, size: int, error: BaseException | None) -> None:
        """They were."""
        if token is None or _is_tls_wait(error):
            return
        started, parent = token
        code = _code_of(error)
        if code is not None:
            recorder.sent(tls, started, size, code)
            return
        end = recorder.ticks()
        self.put("tls_send", _tls_end(tls), started, end, parent, size, _error_type(error))

    def received(self, tls: Any, size: int) -> None:
        """Application bytes were received."""
        recorder.received(tls, size)

    def internal(self, sock: Any) -> None:
        """A part of an event loop, whose waking up is nobody's request."""
        recorder.silence(sock)

    # --- the drain's side ---------------------------------------------------------------------

    def finish(self, event: tuple[Any, ...], metrics: Any) -> None:
        """Make an event's span and count it."""
        getattr(self, "_finish_" + event[0])(*event[1:], metrics=metrics)

    def finish_lookup(self, lookup: tuple[Any, ...], metrics: Any) -> None:
        """Make the span of a look-up, as recorder.lookups() has it, and count it."""
        kind, host, start, end, trace_id, span_id, flags, state, name, code, answers = lookup
        error = None if name is None else semconv.error_type_of_class(name, code)
        span = None
        if not flags & ONLY_METRIC:
            parent = parent_of(trace_id, span_id, flags, state)
            span = self._lookup_span(kind, host, start, end, parent, error, answers)
        metrics.lookup((end - start) / 1e9, host, error, span)

    def _lookup_span(
        self,
        kind: str,
        host: str,
        start: int,
        end: int,
        parent: SpanContext | None,
        error_type: str | None,
        answers: list[str],
    ) -> SpanContext | None:
        if self.spans.excluder.excludes(host, None, host):
            return None
        reverse = kind in _REVERSE_KINDS
        redacted = semconv.DNS_QUESTION_NAME in self.spans.config.redact
        shown = printable(semconv.REDACTED if redacted else host)
        attributes: dict[str, Any] = {semconv.DNS_QUESTION_NAME: host}
        if answers:
            attributes[semconv.DNS_ANSWERS] = tuple(answers)
        return self.spans.deliver(
            Finished(
                "lookup",
                semconv.span_reverse_lookup(shown) if reverse else semconv.span_lookup(shown),
                start,
                end,
                attributes,
                parent,
                error_type,
            )
        )

    def _finish_setup(self, setup: _Setup, metrics: Any) -> None:
        self.spans.deliver(
            Finished(
                "setup",
                setup.name(self._redacted),
                recorder.unix_time(setup.started),
                recorder.unix_time(setup.ended),
                setup.attributes(),
                setup.parent,
                setup.error,
                context=setup.own,
            )
        )

    def _finish_handshake(
        self,
        server_side: bool,
        started: int,
        ended: int,
        parent: SpanContext,
        attributes: dict[str, Any],
        error: str | None,
        metrics: Any,
    ) -> None:
        if parent.is_valid and not parent.trace_flags.sampled:
            return
        name = semconv.SPAN_TLS_SERVER
        if not server_side:
            host = attributes.get(semconv.SERVER_ADDRESS)
            if host and semconv.SERVER_ADDRESS in self.spans.config.redact:
                host = semconv.REDACTED
            name = semconv.span_tls_client(printable(host) if host else None)
        self.spans.deliver(
            Finished(
                "handshake",
                name,
                recorder.unix_time(started),
                recorder.unix_time(ended),
                attributes,
                parent if parent.is_valid else None,
                error,
            )
        )

    def _finish_tls_send(
        self,
        peer: tuple[Any, str | None],
        started: int,
        ended: int,
        parent: SpanContext,
        size: int,
        error: str | None,
        metrics: Any,
    ) -> None:
        start, end = recorder.unix_time(started), recorder.unix_time(ended)
        config = self.spans.config
        if config.send_spans == "off" or not (parent.is_valid and parent.trace_flags.sampled):
            return
        slow = (end - start) / 1e9 >= config.slow_send
        if error is None and (
            config.send_spans == "errors" or (config.send_spans == "slow" and not slow)
        ):
            return
        self.spans.tls_send(self.spans.tls_peer(*peer), start, end, parent, size, error)


def _error_type(error: BaseException | None) -> str | None:
    # A cancelled loser of happy eyeballs is no failure.
    if error is None or type(error).__name__ == "CancelledError":
        return None
    return semconv.error_type(error)


def _code_of(error: BaseException | None) -> int | None:
    """The recorder's code for an error; None where only its class says what it was."""
    if error is None:
        return 0
    if isinstance(error, TimeoutError):
        return recorder.TIMED_OUT
    # The `errno` of ssl.SSLError is a number of OpenSSL's.
    if isinstance(error, OSError) and type(error).__module__ != "ssl":
        return error.errno
    return None


def _is_tls_wait(error: BaseException | None) -> bool:
    return type(error).__name__ in ("SSLWantReadError", "SSLWantWriteError")


def _tls_end(tls: Any) -> tuple[Any, str | None]:
    """The address of the other side of a TLS connection, and the name that was asked for."""
    try:
        address = tls.getpeername()
    except Exception:
        address = None
    return address, None if tls.server_side else tls.server_hostname
