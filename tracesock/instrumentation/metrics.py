"""tracesock's metrics as instruments of any MeterProvider.

The drain records the rarer events (a connect, a look-up, a close): the first of a round by the
ordinary instruments, with their exemplars, the others in the same aggregations. What every call
does is counted natively, and a collection finds it ready: bytes as an observable counter; the
buckets of send and stall durations are added to the SDK's own aggregations by an observable
callback, which the SDK calls before it collects. Each reader, its temporality and the views see an
ordinary histogram; docs/reference/telemetry.md says where the likeness ends.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sys
import threading
import time
import weakref
from array import array
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Instrument, Observation
from opentelemetry.trace import SpanContext

from tracesock._native import __version__, audit, recorder
from tracesock.instrumentation import semconv
from tracesock.instrumentation.ports import port_limit

_log = logging.getLogger(__name__)

Attributes = dict[str, str | int]
_Key = tuple[tuple[str, str | int], ...]

_BOUNDS_NS = tuple(round(bound * 1e9) for bound in semconv.CALL_BOUNDARIES)

_MOST_SHOWN = 16  # observations of an attribute set, for each round of the drain

SIGNAL_METRICS = "metrics"
SIGNAL_LOGS = "logs"  # the audit's records
REASON_QUEUE_FULL = "queue_full"
REASON_UNSUPPORTED = "sdk_unsupported"
REASON_FAILED = "instrument_failed"


class _Unsupported(Exception):
    """The MeterProvider has no place for ready-made buckets, or not where it is looked for."""


# --- native counts ------------------------------------------------------------------------------


@dataclass(slots=True)
class _Buckets:
    """Observations since the last collection, in the buckets of semconv.CALL_BOUNDARIES; times in
    nanoseconds. `smallest` and `largest` are exact where they are the extremes of all collections
    so far; otherwise only the bounds of their buckets are known."""

    counts: list[int]
    sum: int
    smallest: int
    largest: int

    @classmethod
    def between(cls, old: tuple[Any, ...] | None, new: tuple[Any, ...]) -> _Buckets | None:
        """What `new` has beyond `old`, both as recorder.cells() has them; None for nothing."""
        counts, total, smallest, largest = new
        if old is not None:
            if counts == old[0]:
                return None
            counts = [now - before for now, before in zip(counts, old[0], strict=True)]
            total -= old[1]
        filled = [index for index, count in enumerate(counts) if count]
        if not filled:
            return None
        if sum(counts) == 1 and total == _within(filled[0], total):
            smallest = largest = total
        return cls(list(counts), total, _within(filled[0], smallest), _within(filled[-1], largest))

    def add(self, other: _Buckets) -> None:
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        self.sum += other.sum
        self.smallest = min(self.smallest, other.smallest)
        self.largest = max(self.largest, other.largest)

    def representatives(self) -> Iterator[tuple[float, int]]:
        """(seconds, count) for each bucket that is not empty, the seconds within the bucket."""
        filled = [index for index, count in enumerate(self.counts) if count]
        for index in filled:
            value = (_within(index, self.smallest) + _within(index, self.largest)) / 2
            if len(filled) == 1:
                value = _within(index, self.sum / self.counts[index])
            yield value / 1e9, self.counts[index]


def _within(bucket: int, nanoseconds: float) -> Any:
    """The nearest time that falls into a bucket."""
    if bucket and nanoseconds <= _BOUNDS_NS[bucket - 1]:
        return _BOUNDS_NS[bucket - 1] + 1
    if bucket < len(_BOUNDS_NS) and nanoseconds > _BOUNDS_NS[bucket]:
        return _BOUNDS_NS[bucket]
    return nanoseconds


class _Counts:
    """What was counted natively and not yet handed over, by metric and attribute set."""

    def __init__(self) -> None:
        self.bytes: dict[_Key, int] = {}
        self.sends: dict[_Key, _Buckets] = {}
        self.stalls: dict[_Key, _Buckets] = {}

    def add(self, other: _Counts) -> None:
        for key, value in other.bytes.items():
            self.bytes[key] = self.bytes.get(key, 0) + value
        for mine, theirs in ((self.sends, other.sends), (self.stalls, other.stalls)):
            for key, buckets in theirs.items():
                _put(mine, key, buckets)


def _put(into: dict[_Key, _Buckets], key: _Key, buckets: _Buckets) -> None:
    known = into.get(key)
    if known is None:
        into[key] = buckets
    else:
        known.add(buckets)


class _Reader:
    """Reads the recorder's counters: each call returns what was counted since the one before."""

    def __init__(self) -> None:
        self._seen: list[list[Any]] = []
        for cell in recorder.cells():
            self._seen.append(list(cell))

    def forget(self) -> None:
        """The recorder counts from zero again."""
        self._seen.clear()

    def take(self, attributes: Callable[[tuple[Any, ...]], Attributes]) -> _Counts:
        """`attributes` gives a metric's attributes for (family, type, protocol, server)."""
        counts = _Counts()
        for index, cell in enumerate(recorder.cells()):
            if index == len(self._seen):
                self._seen.append([cell[0], 0, 0, None, None, None])
            seen = self._seen[index]
            if list(cell) == seen:
                continue
            common = attributes(cell[0])
            for place, direction in ((1, semconv.TRANSMIT), (2, semconv.RECEIVE)):
                if cell[place] != seen[place]:
                    key = _key({semconv.NETWORK_IO_DIRECTION: direction, **common})
                    counts.bytes[key] = counts.bytes.get(key, 0) + cell[place] - seen[place]
                    seen[place] = cell[place]
            for place, cause, into in (
                (3, None, counts.sends),
                (4, semconv.CAUSE_RECEIVER, counts.stalls),
                (5, semconv.CAUSE_SNDBUF, counts.stalls),
            ):
                # A writer counts an observation first and adds its time after: what has no count
                # yet waits for it.
                buckets = _Buckets.between(seen[place], cell[place])
                if buckets is not None:
                    seen[place] = cell[place]
                    _put(into, _key({semconv.CAUSE: cause, **common} if cause else common), buckets)
        return counts


class _Audited:
    """Reads the audit's counts: each call returns what was counted since the one before."""

    def __init__(self) -> None:
        self._decisions: dict[tuple[str, str], int] = {}
        self._emitted = 0
        self._dropped = 0

    def take(self) -> tuple[dict[tuple[str, str], int], int, int]:
        """(decisions by (rule, action), records emitted, records dropped)."""
        decisions = {(rule, action): count for rule, action, count in audit.decisions()}
        new = {
            key: count - self._decisions.get(key, 0)
            for key, count in decisions.items()
            if count != self._decisions.get(key, 0)
        }
        self._decisions = decisions
        # Only where the program keeps records: their pipeline is not imported for this.
        pipeline = sys.modules.get("tracesock.audit.pipeline")
        emitted, dropped = pipeline.counts() if pipeline is not None else (0, 0)
        # A pipeline that was closed and begun anew counts from zero.
        before = (self._emitted, self._dropped) if emitted >= self._emitted else (0, 0)
        self._emitted, self._dropped = emitted, dropped
        return new, emitted - before[0], max(0, dropped - before[1])


def _key(attributes: Mapping[str, str | int]) -> _Key:
    return tuple(sorted(attributes.items()))


# --- the SDK's aggregations ---------------------------------------------------------------------


class _Value:
    """A measurement as far as an aggregation reads one."""

    def __init__(self, value: float) -> None:
        self.value = value


def _storages(instrument: Any) -> Iterable[Any]:
    """What each reader of an SDK's instrument keeps of it. Raises _Unsupported."""
    real = _real(instrument)
    try:
        return list(real._measurement_consumer._reader_storages.values())
    except AttributeError as error:
        raise _Unsupported(f"{type(real).__name__} is not an instrument of the SDK") from error


def _real(instrument: Any) -> Any:
    """The instrument behind one that was made before there was a MeterProvider."""
    return getattr(instrument, "_real_instrument", None) or instrument


def _aggregate(
    instrument: Any, attributes: Attributes, since: int, fill: Callable[[Any], None]
) -> None:
    """Call `fill` with the aggregation of an attribute set, in each reader and each view.

    `since` is when the first of what it adds may have been observed, in nanoseconds since the
    epoch. Raises _Unsupported.
    """
    real = _real(instrument)
    for storage in _storages(instrument):
        try:
            for match in storage._get_or_init_view_instrument_match(real):
                wanted = match._view._attribute_keys
                kept = {k: v for k, v in attributes.items() if wanted is None or k in wanted}
                # Collection takes the same lock.
                with match._lock:
                    before = len(match._attributes_aggregation)
                    aggregation = _aggregation(match, kept)
                    if len(match._attributes_aggregation) != before and not getattr(
                        match, "_previous_collection_start_nanos", None
                    ):
                        aggregation._start_time_unix_nano = since
                        aggregation._previous_collection_start_nano = since
                    fill(aggregation)
        except Exception as error:
            raise _Unsupported(f"{type(error).__name__}: {error}") from error


def _aggregation(match: Any, attributes: Attributes) -> Any:
    """The aggregation of an attribute set; the match's lock is held."""
    if hasattr(match, "_get_or_create_aggregation"):
        from opentelemetry.sdk.metrics._internal import _view_instrument_match as sdk

        key: Any = sdk._hash_attributes(attributes)
        return match._get_or_create_aggregation(key, attributes)
    # Releases before the limit on attribute sets.
    known = match._attributes_aggregation
    key = frozenset(attributes.items())
    if key not in known:
        chosen = match._view._aggregation
        if type(chosen).__name__ == "DefaultAggregation":
            chosen = match._instrument_class_aggregation[match._instrument.__class__]
        known[key] = chosen._create_aggregation(
            match._instrument, attributes, match._view._exemplar_reservoir_factory, time.time_ns()
        )
    return known[key]


def _fill(buckets: _Buckets, aggregation: Any) -> None:
    """Add to one aggregation what is known of many observations: the sum always exactly."""
    from opentelemetry.sdk.metrics._internal import aggregation as module

    sdk: Any = module
    total, smallest, largest = buckets.sum / 1e9, buckets.smallest / 1e9, buckets.largest / 1e9
    if isinstance(aggregation, sdk._DropAggregation):
        return
    if isinstance(aggregation, sdk._ExplicitBucketHistogramAggregation):
        same = aggregation._boundaries == semconv.CALL_BOUNDARIES
        counts = buckets.counts
        if not same:
            counts = [0] * (len(aggregation._boundaries) + 1)
            for seconds, count in buckets.representatives():
                counts[bisect_left(aggregation._boundaries, seconds)] += count
        _add_counts(aggregation, counts, total, smallest, largest)
    elif isinstance(aggregation, sdk._ExponentialBucketHistogramAggregation):
        for seconds, count in buckets.representatives():
            # One to make room for it, the others beside it.
            aggregation.aggregate(_Value(seconds), False)
            with aggregation._lock:
                if seconds == 0:
                    aggregation._zero_count += count - 1
                else:
                    positive = aggregation._value_positive
                    index = aggregation._mapping.map_to_index(seconds) - positive.index_base
                    if index < 0:
                        index += len(positive.counts)
                    positive.increment_bucket(index, increment=count - 1)
                aggregation._count += count - 1
                aggregation._sum -= seconds
        with aggregation._lock:
            aggregation._sum += total
            if getattr(aggregation, "_record_min_max", True):
                aggregation._min = min(aggregation._min, smallest)
                aggregation._max = max(aggregation._max, largest)
    elif isinstance(aggregation, sdk._SumAggregation):
        aggregation.aggregate(_Value(total), False)
    elif isinstance(aggregation, sdk._LastValueAggregation):
        aggregation.aggregate(_Value(total / sum(buckets.counts)), False)
    else:
        raise TypeError(f"the aggregation {type(aggregation).__name__} is not known")


def _add_counts(
    aggregation: Any, counts: list[int], total: float, smallest: float, largest: float
) -> None:
    """Add observations, counted in the buckets of this aggregation."""
    with aggregation._lock:
        value = aggregation._value
        if value is None:
            value = aggregation._get_empty_bucket_counts()
        aggregation._value = [a + b for a, b in zip(value, counts, strict=True)]
        aggregation._sum += total
        if aggregation._record_min_max:
            aggregation._min = min(aggregation._min, smallest)
            aggregation._max = max(aggregation._max, largest)


# --- events -------------------------------------------------------------------------------------


class _Total:
    """What a counter was told of one attribute set since it was last handed on."""

    __slots__ = ("attributes", "counter", "times", "total")

    def __init__(self, counter: Any, attributes: Attributes) -> None:
        self.counter = counter
        self.attributes = attributes
        self.total: float = 0
        self.times = 0

    def put(self, value: float | array[float], span: SpanContext | None) -> None:
        assert not isinstance(value, array)
        self.total += value
        self.times += 1

    def hand_on(self) -> None:
        """To the SDK, or whatever else the provider's instruments are."""
        self.counter.add(self.total, self.attributes)


class _Durations:
    """What a histogram was told of one attribute set since it was last handed on."""

    __slots__ = ("attributes", "histogram", "others", "shown")

    def __init__(self, histogram: Any, attributes: Attributes) -> None:
        self.histogram = histogram
        self.attributes = attributes
        # The first ones, each with its span, of which the last is the longest of the rest.
        self.shown: list[tuple[float, SpanContext | None]] = []
        self.others = array("d")

    @property
    def times(self) -> int:
        return len(self.shown) + len(self.others)

    def put(self, value: float | array[float], span: SpanContext | None) -> None:
        if isinstance(value, array):
            self.others.extend(value)
        elif len(self.shown) < _MOST_SHOWN:
            self.shown.append((value, span))
        elif value > self.shown[-1][0]:
            self.others.append(self.shown[-1][0])
            self.shown[-1] = (value, span)
        else:
            self.others.append(value)

    def hand_on(self) -> None:
        """To the SDK, or whatever else the provider's instruments are."""
        for value, span in self.shown:
            if span is None:
                self.histogram.record(value, self.attributes)
            else:
                context = trace.set_span_in_context(trace.NonRecordingSpan(span), Context())
                self.histogram.record(value, self.attributes, context)
        if not self.others:
            return
        try:
            _aggregate(self.histogram, self.attributes, time.time_ns(), self._fill)
        except _Unsupported:
            for value in self.others:
                self.histogram.record(value, self.attributes)

    def _fill(self, aggregation: Any) -> None:
        from opentelemetry.sdk.metrics._internal import aggregation as module

        sdk: Any = module
        if isinstance(aggregation, sdk._ExplicitBucketHistogramAggregation):
            _fill_buckets(aggregation, sorted(self.others))
            return
        for value in self.others:
            aggregation.aggregate(_Value(value), False)


def _fill_buckets(aggregation: Any, values: list[float]) -> None:
    """What `aggregate` does with each of these, which are in ascending order."""
    # A bucket's upper bound belongs to it.
    ends = [*(bisect_right(values, bound) for bound in aggregation._boundaries), len(values)]
    counts = [end - begin for begin, end in zip([0, *ends[:-1]], ends, strict=True)]
    _add_counts(aggregation, counts, sum(values), values[0], values[-1])


# --- instruments --------------------------------------------------------------------------------


class _Instruments:
    """The instruments on one MeterProvider: made once, kept when telemetry is turned off and on.

    A meter gives the same instrument for the same name with the callbacks it had first, so they
    belong to this and not to a `Metrics`, of which at most one at a time is `attached`.
    """

    def __init__(self, provider: Any) -> None:
        self.provider: Callable[[], Any] = _reference(provider)
        self.attached: Metrics | None = None
        # Reentrant, here and below: a signal handler may turn telemetry off, or flush it, in the
        # midst of what the main thread is at.
        self.lock = threading.RLock()
        self.reading = False
        self.leaving: Metrics | None = None
        self.reader: _Reader | None = None
        self.waiting = _Counts()  # of a Metrics that was closed, for the next collection
        self.totals: dict[_Key, int] = {}
        self.since = time.time_ns()
        self.states: dict[str, int] = {}
        self.queues: dict[_Key, tuple[int, int]] = {}
        self.audited = _Audited()
        self._logged: set[str] = set()

        meter = provider.get_meter(semconv.SCOPE_NAME, __version__, semconv.SCHEMA_URL)
        # First, because its callback readies what the others hand over.
        self.io = _create(meter.create_observable_counter, semconv.IO, [self._observe_io])
        self.lookups = _create(meter.create_histogram, semconv.LOOKUP_DURATION)
        self.connects = _create(meter.create_histogram, semconv.CONNECT_DURATION)
        self.connections = _create(meter.create_histogram, semconv.CONNECTION_DURATION)
        self.sends = _create(meter.create_histogram, semconv.SEND_DURATION)
        self.stalls = _create(meter.create_histogram, semconv.STALL_DURATION)
        self.first_bytes = _create(meter.create_histogram, semconv.FIRST_BYTE_DURATION)
        self.rtts = _create(meter.create_histogram, semconv.TCP_RTT)
        self.retransmits = _create(meter.create_counter, semconv.TCP_RETRANSMITS)
        self.dropped = _create(meter.create_counter, semconv.TELEMETRY_DROPPED)
        self.records = _create(meter.create_counter, semconv.TELEMETRY_RECORDS)
        self.lags = _create(meter.create_histogram, semconv.TELEMETRY_LAG)
        self.decisions = _create(meter.create_counter, semconv.AUDIT_DECISIONS)
        self._all = [
            *(each for each in vars(self).values() if isinstance(each, Instrument)),
            _create(
                meter.create_observable_up_down_counter,
                semconv.CONNECTION_COUNT,
                [self._observe_states],
            ),
            _create(
                meter.create_observable_gauge,
                semconv.LISTEN_QUEUE_LENGTH,
                [functools.partial(self._observe_queues, 0)],
            ),
            _create(
                meter.create_observable_gauge,
                semconv.LISTEN_QUEUE_LIMIT,
                [functools.partial(self._observe_queues, 1)],
            ),
            _create(
                meter.create_observable_gauge,
                semconv.PORTS_USED,
                [functools.partial(self._observe_ports, recorder.most_ports)],
            ),
            _create(
                meter.create_observable_gauge,
                semconv.PORTS_LIMIT,
                [functools.partial(self._observe_ports, port_limit)],
            ),
        ]

    @classmethod
    def of(cls, provider: Any) -> _Instruments:
        """Those on `provider`, made where there are none."""
        for known in list(_known):
            if known.provider() is provider:
                return known
        made = cls(provider)
        # They may have been made before `provider` was there, and wait to be its.
        for callback in getattr(_real(made.io), "_callbacks", None) or ():
            owner = getattr(callback, "__self__", None)
            if isinstance(owner, cls):
                made = owner
        _known.add(made)
        return made

    # --- collection ---------------------------------------------------------------------------

    def attach(self, metrics: Metrics) -> None:
        with self.lock:
            if self.attached is not None and not self.reading:
                with self._alone():
                    self._keep_counts(self.attached)
            # A reading that a signal handler has interrupted goes on with the same reader.
            if self.reader is None or not self.reading:
                self.reader = _Reader()
            self.since = time.time_ns()
            self.audited.take()
            self.attached = metrics

    def detach(self, metrics: Metrics) -> None:
        with self.lock:
            if self.reading:
                self.leaving = metrics
                return
            if self.attached is metrics:
                with self._alone():
                    self._keep_counts(metrics)
            if self.attached is metrics:
                self.attached = self.reader = None
                self.states.clear()
                self.queues.clear()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """While the counters are read: what a signal handler asks for in between is done after."""
        self.reading = True
        try:
            yield
        finally:
            self.reading = False
            leaving, self.leaving = self.leaving, None
            if leaving is not None:
                self.detach(leaving)

    def _keep_counts(self, metrics: Metrics) -> None:
        if self.reader is not None:
            self.waiting.add(self.reader.take(metrics.labels))

    def _observe_io(self, options: CallbackOptions) -> list[Observation]:
        """Called by the SDK for each reader before it collects anything of ours."""
        attached = self.attached
        if attached is not None and attached.before_collect is not None:
            try:
                attached.before_collect()
            except Exception:
                self.log_once("before_collect", "what was to be done before a collection failed")
        try:
            with self.lock:
                if not self.reading:
                    with self._alone():
                        self._take_counts()
                        self._take_connections()
                        self._take_audit()
        except Exception:
            self.log_once("collect", "the counters could not be read")
        if attached is not None:
            attached.hand_on()
        return [Observation(value, dict(key)) for key, value in self.totals.items()]

    def _take_counts(self) -> None:
        counts, self.waiting = self.waiting, _Counts()
        since, self.since = self.since, time.time_ns()
        if self.reader is not None and self.attached is not None:
            counts.add(self.reader.take(self.attached.labels))
        for key, size in counts.bytes.items():
            self.totals[key] = self.totals.get(key, 0) + size
        for instrument, histogram in ((self.sends, counts.sends), (self.stalls, counts.stalls)):
            for key, buckets in histogram.items():
                try:
                    _aggregate(instrument, dict(key), since, functools.partial(_fill, buckets))
                except _Unsupported:
                    self.log_once(
                        REASON_UNSUPPORTED,
                        "the durations of sends cannot be handed to this MeterProvider; they are "
                        "counted as dropped",
                    )
                    self.drop(SIGNAL_METRICS, REASON_UNSUPPORTED, sum(buckets.counts))

    def _take_connections(self) -> None:
        self.states = dict.fromkeys(self.states, 0)
        self.queues = {}
        if self.attached is None:
            return
        states, listeners = recorder.states()
        for code, count in states.items():
            state = semconv.connection_state(code)
            self.states[state] = self.states.get(state, 0) + count
        for number, length, limit in listeners:
            row = recorder.connection(number)
            if row is not None:
                key = _key(self.attached.listener(row[4]))
                known_length, known_limit = self.queues.get(key, (0, 0))
                self.queues[key] = (known_length + length, known_limit + limit)

    def _take_audit(self) -> None:
        if self.attached is None:
            return
        decisions, emitted, dropped = self.audited.take()
        for (rule, action), count in decisions.items():
            self.attached.decision(action, rule, count)
        self.attached.recorded(SIGNAL_LOGS, emitted)
        if dropped:
            self.attached.dropped(SIGNAL_LOGS, REASON_QUEUE_FULL, dropped)

    def _observe_states(self, options: CallbackOptions) -> list[Observation]:
        if self.attached is None:
            return []
        return [
            Observation(count, {semconv.NETWORK_CONNECTION_STATE: state})
            for state, count in list(self.states.items())
        ]

    def _observe_queues(self, which: int, options: CallbackOptions) -> list[Observation]:
        if self.attached is None:
            return []
        return [Observation(value[which], dict(key)) for key, value in list(self.queues.items())]

    def _observe_ports(
        self, count: Callable[[], int], options: CallbackOptions
    ) -> list[Observation]:
        return [] if self.attached is None else [Observation(count())]

    # --- the rest -----------------------------------------------------------------------------

    def log_once(self, what: str, message: str) -> None:
        """Log the exception that is being handled, the first time that `what` went wrong."""
        if what not in self._logged:
            self._logged.add(what)
            _log.exception("tracesock: %s; this is logged once", message)

    def drop(self, signal: str, reason: str, count: int) -> None:
        try:
            self.dropped.add(count, {semconv.SIGNAL: signal, semconv.REASON: reason})
        except Exception:
            self.log_once("drop", "a dropped record could not be counted")

    def after_fork(self) -> None:
        """What the parent counted is the parent's to tell."""
        self.lock = threading.RLock()
        self.reading = False
        if self.attached is not None:
            self.attached.after_fork()
        self.waiting = _Counts()
        self.totals.clear()
        self.since = time.time_ns()
        if self.reader is not None:
            self.reader.forget()
        self.audited.take()
        for instrument in self._all:
            try:
                for storage in _storages(instrument):
                    matches = storage._instrument_view_instrument_matches
                    for match in matches.get(_real(instrument), ()):
                        match._attributes_aggregation.clear()
                        if hasattr(match, "_previous_collection_start_nanos"):
                            match._previous_collection_start_nanos = None
            except (_Unsupported, AttributeError):
                return


_known: weakref.WeakSet[_Instruments] = weakref.WeakSet()


def _reference(provider: Any) -> Callable[[], Any]:
    # The instruments are kept by their provider, and do not keep it.
    try:
        return weakref.ref(provider)
    except TypeError:
        return lambda: None


def _after_fork() -> None:
    for instruments in list(_known):
        instruments.after_fork()


os.register_at_fork(after_in_child=_after_fork)


def _create(create: Callable[..., Any], metric: semconv.Metric, callbacks: Any = None) -> Any:
    arguments: dict[str, Any] = {"unit": metric.unit, "description": metric.description}
    if callbacks is not None:
        arguments["callbacks"] = callbacks
    if metric.boundaries:
        arguments["explicit_bucket_boundaries_advisory"] = metric.boundaries
    return create(metric.name, **arguments)


class _Cap:
    """At most `limit` distinct values; `tracesock.overflow` for those that come later."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: set[Any] = set()
        self._lock = threading.RLock()

    def __call__(self, value: Any) -> Any:
        with self._lock:
            if value in self._known:
                return value
            if len(self._known) >= self._limit:
                return semconv.OVERFLOW
            self._known.add(value)
            return value


class Metrics:
    """The metrics of one instrumentation, on `meter_provider`.

    `cardinality_limit`: distinct values that an attribute may have, beyond which the rest shares
    `tracesock.overflow`. `redact`: names of attributes whose value becomes REDACTED.
    `before_collect` is called by the thread of each collection before anything is read.

    Durations are in seconds. No method raises: a failing instrument is logged once and counted.
    """

    def __init__(
        self,
        meter_provider: Any,
        *,
        cardinality_limit: int = 200,
        redact: Collection[str] | None = None,
        before_collect: Callable[[], None] | None = None,
    ) -> None:
        self.before_collect = before_collect
        self._redact = frozenset(redact or ())
        self._caps = {
            name: _Cap(cardinality_limit)
            for metric in semconv.METRICS
            for name in metric.attributes
        }
        self._listeners = _Cap(cardinality_limit)
        self._closed = False
        self._lock = threading.RLock()
        self._recording = False
        self._interrupting: deque[tuple[Any, ...]] = deque()
        self._handing_on: set[int] = set()  # the threads that are at it
        self._recorded: dict[tuple[Any, ...], _Total | _Durations] = {}
        self._instruments = _Instruments.of(meter_provider)
        self._instruments.attach(self)

    def close(self) -> None:
        """Record nothing more. What was counted until now is in the next collection."""
        with self._lock:
            self._closed = True
        self.hand_on()
        self._instruments.detach(self)

    # --- events -------------------------------------------------------------------------------

    def lookup(
        self,
        seconds: float,
        question_name: str,
        error_type: str | None = None,
        span: SpanContext | None = None,
    ) -> None:
        """A look-up of a name, or of an address's name. `span`, here and below: its span, for the
        exemplar that leads from the metric to the trace."""
        self._record(
            self._instruments.lookups,
            seconds,
            {semconv.DNS_QUESTION_NAME: question_name, semconv.ERROR_TYPE: error_type},
            span,
        )

    def connect(
        self,
        seconds: float | array[float],
        transport: str | None,
        network_type: str | None,
        server_address: str | None,
        error_type: str | None = None,
        span: SpanContext | None = None,
    ) -> None:
        """A connect that waited for the other side; `server_address` is the host's name, or its
        address. Here and below, an array stands for many observations without a span."""
        self._record(
            self._instruments.connects,
            seconds,
            {
                semconv.NETWORK_TRANSPORT: transport,
                semconv.NETWORK_TYPE: network_type,
                semconv.SERVER_ADDRESS: None if transport == "unix" else server_address,
                semconv.ERROR_TYPE: error_type,
            },
            span,
        )

    def closed(
        self,
        connection_seconds: float | array[float] | None,
        transport: str | None,
        rtt: float | array[float] | None = None,
        retransmits: int = 0,
        owner: SpanContext | None = None,
    ) -> None:
        """A connection's end. `connection_seconds` is None where its start is not known, `rtt`, the
        smoothed round-trip time in seconds, where it is not TCP; `retransmits` counts segments.
        `owner`, here and below: the span in which it was connected or accepted, for the exemplar
        that leads from the metric to the trace."""
        attributes = {semconv.NETWORK_TRANSPORT: transport}
        if connection_seconds is not None:
            self._record(self._instruments.connections, connection_seconds, attributes, owner)
        if rtt is not None:
            self._record(self._instruments.rtts, rtt, attributes, owner)
        # A SYN that nobody answers is sent again, too.
        if rtt is not None or retransmits:
            self._add(self._instruments.retransmits, retransmits, attributes)

    def first_byte(
        self,
        seconds: float | array[float],
        transport: str | None,
        network_type: str | None,
        server_address: str | None,
        owner: SpanContext | None = None,
    ) -> None:
        """The first byte on a connection that this side opened, since it was established."""
        self._record(
            self._instruments.first_bytes,
            seconds,
            {
                semconv.NETWORK_TRANSPORT: transport,
                semconv.NETWORK_TYPE: network_type,
                semconv.SERVER_ADDRESS: None if transport == "unix" else server_address,
            },
            owner,
        )

    def dropped(self, signal: str, reason: str, count: int = 1) -> None:
        """Records that were not delivered; `signal` is traces, metrics or logs."""
        if not self._closed:
            self._instruments.drop(signal, reason, count)

    def recorded(self, signal: str, count: int) -> None:
        """Records that calls have left for delivery."""
        if count:
            self._add(self._instruments.records, count, {semconv.SIGNAL: signal})

    def lag(self, signal: str, seconds: float) -> None:
        """The age that the oldest record of a delivery may have had."""
        self._record(self._instruments.lags, seconds, {semconv.SIGNAL: signal})

    def decision(self, action: str, rule: str | None, count: int = 1) -> None:
        """Decisions of the egress policy, and the rule that made them."""
        self._add(self._instruments.decisions, count, {semconv.ACTION: action, semconv.RULE: rule})

    # --- attributes ---------------------------------------------------------------------------

    def labels(self, labels: tuple[Any, ...]) -> Attributes:
        """The attributes of the recorder's (family, type, protocol, server)."""
        family, kind, protocol, server = labels
        return self._attributes(
            {
                semconv.NETWORK_TRANSPORT: semconv.transport_of(family, kind, protocol),
                semconv.SERVER_ADDRESS: server,
            }
        )

    def listener(self, local: Any) -> Attributes:
        """The attributes of a listening TCP socket bound to `local`."""
        address, port = local[:2] if isinstance(local, tuple) else ("unknown", 0)
        if self._listeners((address, port)) == semconv.OVERFLOW:
            return {semconv.NETWORK_LOCAL_ADDRESS: semconv.OVERFLOW}
        if semconv.NETWORK_LOCAL_ADDRESS in self._redact:
            address = semconv.REDACTED
        if semconv.NETWORK_LOCAL_PORT in self._redact:
            return {semconv.NETWORK_LOCAL_ADDRESS: address}
        return {semconv.NETWORK_LOCAL_ADDRESS: address, semconv.NETWORK_LOCAL_PORT: port}

    def _attributes(self, values: Mapping[str, str | None]) -> Attributes:
        return {
            name: semconv.REDACTED if name in self._redact else self._caps[name](value)
            for name, value in values.items()
            if value is not None
        }

    # --- on the way to the instruments ----------------------------------------------------------

    def hand_on(self) -> None:
        """Give the instruments what they were told: the drain at the end of a round, and each
        collection. Not in a signal handler that has interrupted this: the interrupted one does it,
        which may have the SDK's locks."""
        thread = threading.get_ident()
        if thread in self._handing_on:
            return
        self._handing_on.add(thread)
        try:
            while recorded := self._take():
                for each in recorded.values():
                    try:
                        each.hand_on()
                    except Exception:
                        self._instruments.log_once("instrument", "an instrument failed")
                        self._instruments.drop(SIGNAL_METRICS, REASON_FAILED, each.times)
        finally:
            self._handing_on.discard(thread)

    def _take(self) -> dict[tuple[Any, ...], _Total | _Durations]:
        with self._lock:
            if self._recording:
                return {}
            recorded, self._recorded = self._recorded, {}
            return recorded

    def after_fork(self) -> None:
        """What the parent was told is the parent's to tell."""
        self._lock = threading.RLock()
        self._recording = False
        self._interrupting.clear()
        self._handing_on.clear()
        self._recorded = {}

    def _add(self, counter: Any, count: int, attributes: Mapping[str, str | None]) -> None:
        self._record(counter, count, attributes, kind=_Total)

    def _record(
        self,
        instrument: Any,
        value: float | array[float],
        attributes: Mapping[str, str | None],
        span: SpanContext | None = None,
        kind: type[_Total] | type[_Durations] = _Durations,
    ) -> None:
        with self._lock:
            if self._closed:
                return
            if not isinstance(value, array):
                value = max(0, value)
            self._interrupting.append((instrument, value, attributes, span, kind))
            if self._recording:
                return
            self._recording = True
            try:
                while self._interrupting:
                    self._put(*self._interrupting.popleft())
            finally:
                self._recording = False

    def _put(
        self,
        instrument: Any,
        value: float | array[float],
        attributes: Mapping[str, str | None],
        span: SpanContext | None,
        kind: type[_Total] | type[_Durations],
    ) -> None:
        key = (id(instrument), *attributes.values())
        known = self._recorded.get(key)
        if known is None:
            known = self._recorded[key] = kind(instrument, self._attributes(attributes))
        known.put(value, span)
