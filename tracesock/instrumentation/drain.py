"""The drain: one background thread that delivers what was recorded.

Woken by the fill level of a thread's ring and by time; also by the provider's force_flush and
shutdown, by a collection of metrics, and at the interpreter's exit.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import sys
import threading
import time
from array import array
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from opentelemetry import context as otel_context
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY
from opentelemetry.sdk.trace import SpanProcessor

from tracesock import _threads
from tracesock._native import recorder
from tracesock.instrumentation import semconv
from tracesock.instrumentation.observer import Observer
from tracesock.instrumentation.ports import PortWatch
from tracesock.instrumentation.snapshots import Snapshots
from tracesock.instrumentation.spans import (
    ABANDONED,
    ACCEPT,
    CLOSED,
    CONNECT,
    FIRST_BYTE,
    SEND,
    Provider,
    Spans,
    parent_of,
)

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext

_log = logging.getLogger(__name__)

_FLUSH_TIMEOUT = 30.0  # seconds, also at the interpreter's exit
_JOIN_TIMEOUT = 5.0  # seconds
_FORK_TIMEOUT = 0.25  # seconds that a fork waits for a turn, which a stalled exporter can keep
_COLLECT_TIMEOUT = 1.0  # seconds that a collection of metrics waits for a stalled exporter of spans


@contextlib.contextmanager
def _held(lock: Any) -> Iterator[None]:
    """With a lock of the SDK's that is held for moments only: who has it for longer is this very
    thread, which a signal handler has interrupted."""
    taken = lock.acquire(timeout=1)
    try:
        yield
    finally:
        if taken:
            lock.release()


class DrainProcessor(SpanProcessor):
    """Stands first among a provider's processors, so that its flush delivers the recorder first."""

    def __init__(self, drain: Drain) -> None:
        self._drain = drain

    def shutdown(self) -> None:
        self._drain.flush()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return self._drain.flush(timeout_millis / 1000)


class Drain:
    """Reads the recorder for one instrumentation; `start` and `stop` may be called again."""

    def __init__(
        self,
        provider: Provider,
        spans: Spans,
        observer: Observer,
        metrics: Any,
        snapshots: Snapshots | None = None,
    ) -> None:
        self.spans = spans
        self.observer = observer
        self.metrics = metrics
        self.snapshots = snapshots
        self.failed = 0  # records that were not delivered because something raised
        self._provider = provider
        self._ports = PortWatch(spans.config.redact)
        self._lock = threading.RLock()
        self._turn_of: int | None = None  # the thread that delivers now
        self._held_for_fork: Any = None  # the lock
        self._stop_after_turn = False
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._failure_logged = False
        self._processor = spans.own_processor = DrainProcessor(self)
        self._dropped_told = 0
        self._recorded = 0
        self._passed = time.monotonic()  # when everything recorded until then had been delivered
        self._handlers: dict[int, Any] = {
            SEND: self._send,
            CONNECT: self._connect,
            ACCEPT: self._accept,
            FIRST_BYTE: self._first_byte,
            CLOSED: self._closed,
        }
        spans.failed = self._fail

    # --- life ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread and stand before the provider's processors."""
        self._stopping = False
        self._passed = time.monotonic()
        recorder.wait(0)  # what was to wake another's thread
        # Not what was before.
        self._recorded, self._dropped_told, _ = recorder.counts()
        self._provider.joined = self._join_provider
        self._join_provider(self.spans.provider)
        self._run_thread()
        atexit.register(self.flush)

    def stop(self) -> None:
        """Deliver what is left, end the thread, and close the metrics; where a signal handler asks
        for it in the midst of a turn, at the end of that."""
        if self._turn_of == threading.get_ident():
            self._stop_after_turn = True
            return
        self._stopping = True
        thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            end = time.monotonic() + _JOIN_TIMEOUT
            while thread.is_alive() and time.monotonic() < end:
                # Again, where another instrumentation's has been woken in place of this one.
                self.spans.sink.wake()
                thread.join(0.02)
        self.flush()
        atexit.unregister(self.flush)
        self._leave_provider()
        self.spans.sink.close()
        self.metrics.close()

    def _run_thread(self) -> None:
        self._thread = threading.Thread(target=self._run, name="tracesock-drain", daemon=True)
        _threads.start(self._thread)

    def before_fork(self) -> None:
        """Between two turns, where that can be: in one, this thread may hold locks of the program's
        exporters, which a forked child would wait for without end."""
        lock = self._lock
        if lock.acquire(timeout=_FORK_TIMEOUT):
            self._held_for_fork = lock

    def after_fork_in_parent(self) -> None:
        """The turns go on."""
        lock, self._held_for_fork = self._held_for_fork, None
        if lock is not None:
            lock.release()

    def after_fork(self) -> None:
        """Begin anew in a forked child: what was recorded is the parent's to tell."""
        self._lock = threading.RLock()
        self._held_for_fork = None
        if self._stopping or self._thread is None:
            return
        self._turn_of = None
        self.observer.clear_after_fork()
        self.spans.forget_all()
        self.spans.sink.after_fork()
        if self.snapshots is not None:
            self.snapshots.restart()
        self.failed = self._dropped_told = self._recorded = 0
        self._passed = time.monotonic()
        self._run_thread()
        # Its children end without the interpreter's exit, but run its own finalizers, those that
        # are registered when they have begun.
        multiprocessing = sys.modules.get("multiprocessing.util")
        if multiprocessing is not None:
            multiprocessing.register_after_fork(self, Drain._flush_at_end_of_child)

    def _flush_at_end_of_child(self) -> None:
        from multiprocessing.util import Finalize

        Finalize(None, self.flush, exitpriority=-100)

    def _join_provider(self, provider: Any) -> None:
        processor = getattr(provider, "_active_span_processor", None)
        if processor is None:
            return
        present = getattr(processor, "_span_processors", None)
        if isinstance(present, tuple):
            with _held(processor._lock):
                processor._span_processors = (self._processor, *processor._span_processors)
        else:
            _log.warning(
                "tracesock: this provider's processors cannot be joined; its force_flush() does "
                "not deliver what is still recorded"
            )

    def _leave_provider(self) -> None:
        processor: Any = getattr(self.spans.provider, "_active_span_processor", None)
        present = getattr(processor, "_span_processors", None)
        while isinstance(present, tuple) and self._processor in present:
            others = tuple(each for each in present if each is not self._processor)
            with _held(processor._lock):
                now = processor._span_processors
                processor._span_processors = others if now is present else now
            present = processor._span_processors

    def _run(self) -> None:
        # What the exporters do with sockets here is not the program's doing.
        otel_context.attach(otel_context.set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))
        interval = self.spans.config.drain_interval
        while not self._stopping:
            # Outside the lock: a flush need not wait for what only waits.
            self.spans.sink.wait(interval)
            if not self._stopping:
                self._guard(self.once)
                with self._turn() as taken:  # a flush in another thread tells it of connects
                    if taken:
                        self._guard(self._ports.look)
                        if self.snapshots is not None:
                            self.snapshots.tick()

    # --- reading ------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _turn(self, timeout: float = -1) -> Iterator[bool]:
        """Whether this thread delivers now, alone, until the end of the block: not where another is
        at it for `timeout` seconds, and not where this thread is, which a signal handler has
        interrupted: it goes on with it then."""
        lock = self._lock  # a forked child, which goes on with this, has another
        if not lock.acquire(timeout=timeout):
            yield False
            return
        taken = False
        try:
            if self._turn_of is None:
                taken = True
                self._turn_of = threading.get_ident()
            yield taken
        finally:
            if taken and lock is self._lock:
                self._turn_of = None
            lock.release()
            if taken and self._stop_after_turn:
                self._stop_after_turn = False
                self.stop()

    def flush(self, timeout: float | None = None) -> bool:
        """Deliver everything that is recorded now, folded sends as well: whether that was done in
        `timeout` seconds, 30 by default, from which a stalled exporter can keep it. In a signal
        handler that has interrupted a flush, nothing is done: it goes on afterwards."""
        timeout = _FLUSH_TIMEOUT if timeout is None else timeout
        end = time.monotonic() + timeout
        token = otel_context.attach(otel_context.set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))
        try:
            with self._turn(min(timeout, threading.TIMEOUT_MAX)) as taken:
                if not taken:
                    return False
                self._read_all()
                self._guard(self.spans.flush_folds)
                self._guard(self.spans.sink.hand_on)
            flushed: bool = self.spans.sink.flush(max(0.0, end - time.monotonic()))
            return flushed
        finally:
            otel_context.detach(token)

    def once(self, timeout: float = -1) -> None:
        """Deliver what is recorded, without the folds that may still grow; nothing where another
        thread is at it for `timeout` seconds."""
        with self._turn(timeout) as taken:
            if taken:
                self._read_all()
                self._guard(self.spans.flush_idle_folds)
                self._guard(self.spans.sink.hand_on)

    def before_collect(self) -> None:
        """Rare events are in the instruments before these are read."""
        self.once(_COLLECT_TIMEOUT)

    def _read_all(self) -> None:
        began = time.monotonic()
        events = self.observer.events
        for _ in range(len(events)):
            self._guard(self.observer.finish, events.popleft(), self.metrics)
        for lookup in recorder.lookups():
            self._guard(self.observer.finish_lookup, lookup, self.metrics)
        heard = self.spans.heard()
        complete = False
        while not complete:
            records, complete = self.spans.sink.read(heard)
            for record in records:
                self._guard(self._handlers[record[0]], record)
        groups, ended = recorder.digest()
        for group in groups:
            self._guard(self._count, group)
        self._guard(self.spans.forget_all_of, ended)
        recorder.drop_contexts()
        written, dropped, _ = recorder.counts()
        written += self.observer.written
        dropped += self.observer.dropped
        if written > self._recorded:
            self.metrics.recorded("traces", written - self._recorded)
            self.metrics.lag("traces", time.monotonic() - self._passed)
            self._recorded = written
        self._passed = began
        if dropped > self._dropped_told:
            self.metrics.dropped("traces", "ring_full", dropped - self._dropped_told)
            self._dropped_told = dropped
        self.metrics.hand_on()

    def _guard(self, function: Any, *arguments: Any) -> None:
        try:
            function(*arguments)
        except Exception:
            self._fail(1)

    def _fail(self, records: int) -> None:
        """While an exception is handled that kept them from being delivered."""
        self.failed += records
        self.metrics.dropped("traces", "exporter", records)
        if not self._failure_logged:
            self._failure_logged = True
            _log.exception("tracesock: a span was not delivered; this is logged once")

    def _send(self, record: tuple[Any, ...]) -> None:
        peer = self.spans.keep_peer(record[7])
        self.spans.send(record, peer, semconv.error_type_of_code(record[9]))

    def _connect(self, record: tuple[Any, ...]) -> None:
        peer = self.spans.peer(record[7])
        error = semconv.error_type_of_code(record[9])
        if peer.handshake:
            self._ports.connected(peer, record[9])
        span = self.spans.connect(record, peer, error)
        if peer.handshake and not record[10] & ABANDONED:
            self.metrics.connect(
                (record[2] - record[1]) / 1e9,
                peer.transport,
                peer.network_type,
                peer.server,
                error,
                span,
            )

    def _accept(self, record: tuple[Any, ...]) -> None:
        self.spans.accept(record, self.spans.peer(record[7]))

    def _first_byte(self, record: tuple[Any, ...]) -> None:
        peer = self.spans.peer(record[7])
        self.metrics.first_byte(
            (record[2] - record[1]) / 1e9,
            peer.transport,
            peer.network_type,
            peer.server,
            parent_of(record[3], record[4], record[10]),
        )

    def _closed(self, record: tuple[Any, ...]) -> None:
        number = record[7]
        transport = self.spans.transport(number)
        lived = (record[2] - record[1]) / 1e9 if record[2] > record[1] else None
        rtt = record[6] / 1e6 if record[6] else None
        owner = parent_of(record[3], record[4], record[10])
        self.metrics.closed(lived, transport, rtt, record[5], owner)
        self.spans.forget(number)

    def _count(self, group: tuple[Any, ...]) -> None:
        """Records of connections that were counted natively, as recorder.digest() has them."""
        (
            kind, family, sort, protocol, remote, server,
            records, durations, round_trips, retransmits, longest,
        ) = group  # fmt: skip
        peer = self.spans.peer_at(family, sort, protocol, remote, server)
        observed: list[tuple[Any, SpanContext | None]] = []
        if durations:
            observed.append((array("d", durations), None))
        if longest is not None:
            seconds, trace_id, span_id, flags = longest
            observed.append((seconds, parent_of(trace_id, span_id, flags)))
        to = (peer.transport, peer.network_type, peer.server)
        if kind == CLOSED:
            rtts = array("d", round_trips) or None
            self.metrics.closed(None, peer.transport, rtts, retransmits)
            for seconds, owner in observed:
                self.metrics.closed(seconds, peer.transport, owner=owner)
        elif kind == FIRST_BYTE:
            for seconds, owner in observed:
                self.metrics.first_byte(seconds, *to, owner)
        elif peer.handshake:
            self._ports.connected(peer, 0, records)
            for seconds, span in observed:
                self.metrics.connect(seconds, *to, None, span)
