"""Records become spans: named, attributed, folded, sampled, and handed to the provider.

A record is what a native call left behind (see ext/recorder/record.hpp); an event is what Python
observed: a look-up, a connection set-up, a handshake. Nothing here runs on a caller's path.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import ipaddress
import logging
from array import array
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags, TraceState

from tracesock._native import recorder
from tracesock.instrumentation import semconv

if TYPE_CHECKING:
    from collections.abc import Callable

    from tracesock.instrumentation.config import Config

_log = logging.getLogger(__name__)

SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_MOST_PEERS = 512  # of which sends became spans lately
_MOST_COUNTED = 4096
_MOST_FOLDS = 1024
_FOLD_IDLE = 5_000_000_000  # ns without a further send after which a fold is delivered

# Kinds and flags of ext/recorder/record.hpp.
SEND, CONNECT, ACCEPT, FIRST_BYTE, CLOSED = range(5)
HAS_PARENT, ONLY_METRIC, ABANDONED, REMOTE_PARENT = 1, 2, 4, 8


@dataclasses.dataclass(slots=True)
class Peer:
    """A connection as its spans and metrics name it."""

    label: str  # the address, as a span's name may show it
    port: int | None
    attributes: dict[str, Any]
    transport: str | None
    network_type: str | None
    server: str | None
    excluded: bool
    local: dict[str, Any]
    handshake: bool  # whether connect(2) waits for the other side


@dataclasses.dataclass(slots=True)
class Finished:
    """A span that has ended, before the sampler and the provider saw it."""

    kind: str
    name: str
    start: int  # ns since the Unix epoch
    end: int
    attributes: dict[str, Any]
    parent: SpanContext | None
    error: str | None = None
    span_kind: SpanKind = SpanKind.INTERNAL
    context: SpanContext | None = None  # where it was decided at the start, for its children
    stands_for: int = 1  # records


@dataclasses.dataclass(slots=True)
class _Fold:
    """The sends of one connection in one trace beyond the limit."""

    peer: Peer
    parent: SpanContext
    start: int
    end: int
    sends: int = 0
    calls: int = 0
    size: int = 0
    stall: int = 0  # us
    longest: int = 0  # ns
    error: str | None = None


class Excluder:
    """Which peers make no span. Raises ValueError for a pattern that is none."""

    def __init__(self, patterns: tuple[str, ...]) -> None:
        self._rules: list[tuple[Any, int | None]] = []
        for pattern in patterns:
            host, _, port = pattern.rpartition(":")
            if not (host and port.isdecimal() and (host.count(":") == 0 or host.endswith("]"))):
                host, port = pattern, ""
            host = host.strip("[]")
            try:
                rule: Any = ipaddress.ip_network(host, strict=False)
            except ValueError:
                rule = host.lower()
            self._rules.append((rule, int(port) if port else None))

    def excludes(self, address: str | None, port: int | None, server: str | None) -> bool:
        """Whether a rule names this peer."""
        if not self._rules:
            return False
        try:
            number = ipaddress.ip_address((address or "").partition("%")[0])
        except ValueError:
            number = None
        for rule, wanted_port in self._rules:
            if wanted_port is not None and wanted_port != port:
                continue
            if isinstance(rule, str):
                names = (server, address)
                if any(name and fnmatch.fnmatchcase(name.lower(), rule) for name in names):
                    return True
            elif number is not None and number.version == rule.version and number in rule:
                return True
        return False


# In place of a connection that nobody knows any more.
_UNKNOWN = Peer("unknown", None, {}, None, None, None, False, {}, False)


def printable(value: str) -> str:
    """`value` for a span's name: without control characters and lone surrogates."""
    if value.isprintable() and value.isascii():
        return value
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in value
    )


class Provider:
    """A TracerProvider, or the one that will be the global one."""

    def __init__(self, provider: Any) -> None:
        self._provider = provider
        self._is_placeholder = isinstance(provider, trace.ProxyTracerProvider)
        self.joined: Callable[[Any], None] = lambda provider: None
        """Called with the provider that has come."""

    def get(self) -> Any:
        """The provider, the placeholder before there is one."""
        if self._is_placeholder:
            found = trace.get_tracer_provider()
            if not isinstance(found, trace.ProxyTracerProvider):
                self._provider = found
                self._is_placeholder = False
                self.joined(found)
        return self._provider


class Spans:
    """Makes spans for one sink, sampled and numbered as the provider says.

    Any TracerProvider will do; without an SDK's, which has a sampler and identifiers, there are no
    spans.
    """

    def __init__(self, provider: Provider, sink: Any, config: Config) -> None:
        self._provider = provider
        self.sink = sink
        sink.resolve = self.keep_peer
        sink.describe = self.peer
        self.config = config
        # Called with how many records a span stood for that was not delivered, and told why.
        self.failed: Callable[[int], None] = lambda records: None
        self._plain_sampler: Any = ALWAYS_ON  # one that samples whatever has no unsampled parent
        self.own_processor: Any = None  # the drain's among the provider's, which gets no spans
        self.excluder = Excluder(config.excluded_peers)
        self._redact = frozenset(config.redact)
        self._peers: OrderedDict[int, Peer] = OrderedDict()
        self._counted: OrderedDict[tuple[Any, bytes], int] = OrderedDict()
        self._folds: dict[tuple[Any, bytes], _Fold] = {}
        self._failed_hooks: set[int] = set()

    # --- the provider -------------------------------------------------------------------------

    @property
    def provider(self) -> Any:
        """The TracerProvider."""
        return self._provider.get()

    def heard(self) -> bool:
        """Whether anybody gets the spans."""
        provider = self._provider.get()
        if getattr(provider, "sampler", None) is None:
            return False
        if not self.sink.through_processors:
            return True
        if self.config.request_hook is not None or self.config.response_hook is not None:
            return True
        each = getattr(getattr(provider, "_active_span_processor", None), "_span_processors", None)
        return each is None or each not in ((), (self.own_processor,))

    def asks(self, parent: SpanContext | None) -> bool:
        """Whether the sampler has a say about a span with this parent."""
        sampler = self._provider.get().sampler
        if sampler is self._plain_sampler:
            return False
        roots, children = samples_all_roots(sampler), samples_all_children(sampler)
        below_remote = _samples_all(sampler, "_remote_parent_sampled")
        if roots and children and below_remote:
            self._plain_sampler = sampler
            return False
        if parent is None or not parent.is_valid:
            return not roots
        return not (below_remote if parent.is_remote else children)

    def sample(
        self, parent: SpanContext | None, trace_id: int, name: str, attributes: dict[str, Any]
    ) -> Any:
        """The sampler's result for a span with this parent, None where it is plainly sampled."""
        if not self.asks(parent):
            return None
        context = Context()
        if parent is not None and parent.is_valid:
            context = trace.set_span_in_context(trace.NonRecordingSpan(parent), context)
        sampler = self.provider.sampler
        return sampler.should_sample(context, trace_id, name, SpanKind.INTERNAL, attributes, ())

    def deliver(self, finished: Finished) -> SpanContext | None:
        """Sample a span, run the hooks, and give it to the sink; None where it is not sampled,
        nobody gets it, or something failed, which is counted."""
        if not self.heard():
            return None
        try:
            return self._deliver(finished)
        except Exception:
            self.failed(finished.stands_for)
            return None

    def _deliver(self, finished: Finished) -> SpanContext | None:
        attributes = finished.attributes
        if finished.error is not None:
            attributes[semconv.ERROR_TYPE] = finished.error
        for key in self._redact & attributes.keys():
            attributes[key] = semconv.REDACTED
        context = finished.context
        parent = finished.parent
        if context is None:
            generator = self.provider.id_generator
            trace_id = parent.trace_id if parent else generator.generate_trace_id()
            result = self.sample(parent, trace_id, finished.name, attributes)
            state = parent.trace_state if parent else None
            flags = SAMPLED
            if result is not None:
                if not result.decision.is_recording():
                    return None
                attributes.update(result.attributes or {})
                state = result.trace_state
                if not result.decision.is_sampled():
                    flags = TraceFlags.get_default()
            context = SpanContext(trace_id, generator.generate_span_id(), False, flags, state)
        self._hook(self.config.request_hook, finished.kind, attributes)
        self._hook(self.config.response_hook, finished.kind, attributes, finished.error)
        self.sink.put(finished, context, attributes)
        return context if context.trace_flags.sampled else None

    def _hook(self, hook: Any, *arguments: Any) -> None:
        if hook is None or id(hook) in self._failed_hooks:
            return
        try:
            hook(*arguments)
        except Exception:
            self._failed_hooks.add(id(hook))
            _log.exception("tracesock: the hook %r failed; it is called no more", hook)

    # --- connections --------------------------------------------------------------------------

    def peer(self, number: int) -> Peer:
        """The connection with this number."""
        known = self._peers.get(number)
        if known is not None:
            return known
        row = recorder.connection(number)
        if row is None:
            return _UNKNOWN
        family, kind, protocol, remote, local, server, _, _ = row
        return self.peer_at(family, kind, protocol, remote, server, local)

    def peer_at(
        self,
        family: int,
        kind: int,
        protocol: int,
        remote: Any,
        server: str | None,
        local: Any = None,
    ) -> Peer:
        """Connections of a socket's (family, type, protocol) to an address."""
        transport = semconv.transport_of(family, kind, protocol)
        return self._peer(transport, semconv.network_type_of(family), remote, local, server)

    def transport(self, number: int) -> str | None:
        """How the connection with this number goes: `network.transport`."""
        known = self._peers.get(number)
        if known is not None:
            return known.transport
        row = recorder.connection(number)
        return None if row is None else semconv.transport_of(*row[:3])

    def tls_peer(self, remote: Any, server: str | None) -> Peer:
        """The other side of a TLS connection."""
        address, _ = endpoint(remote)
        kind = None if address is None else "ipv6" if ":" in address else "ipv4"
        return self._peer("tcp", kind, remote, None, server)

    def _peer(
        self,
        transport: str | None,
        network_type: str | None,
        remote: Any,
        local: Any,
        server: str | None,
    ) -> Peer:
        attributes: dict[str, Any] = {}
        if transport is not None:
            attributes[semconv.NETWORK_TRANSPORT] = transport
        if network_type is not None:
            attributes[semconv.NETWORK_TYPE] = network_type
        address, port = endpoint(remote)
        if address is not None:
            attributes[semconv.NETWORK_PEER_ADDRESS] = address
        if port is not None:
            attributes[semconv.NETWORK_PEER_PORT] = port
        if server is not None:
            attributes[semconv.SERVER_ADDRESS] = server
            if port is not None:
                attributes[semconv.SERVER_PORT] = port
        local_attributes: dict[str, Any] = {}
        local_address, local_port = endpoint(local)
        if local_address:
            local_attributes[semconv.NETWORK_LOCAL_ADDRESS] = local_address
        if local_port:
            local_attributes[semconv.NETWORK_LOCAL_PORT] = local_port
        shown = semconv.REDACTED if semconv.NETWORK_PEER_ADDRESS in self._redact else address
        return Peer(
            label=printable(shown) if shown else "unknown",
            port=port,
            attributes=attributes,
            transport=transport,
            network_type=network_type,
            server=server or (address if transport in ("tcp", "udp") else None),
            excluded=self.excluder.excludes(address, port, server),
            local=local_attributes,
            handshake=transport != "udp",
        )

    def keep_peer(self, number: int) -> Peer:
        """The same, kept for the sends to come."""
        peer = self.peer(number)
        if number not in self._peers and peer is not _UNKNOWN:
            self._peers[number] = peer
            self.sink.connection(number, peer)
            if len(self._peers) > _MOST_PEERS:
                self.sink.forget(self._peers.popitem(last=False)[0])
        return peer

    def forget_all(self) -> None:
        """In a forked child: what is known is the parent's to tell."""
        self._peers.clear()
        self._counted.clear()
        self._folds.clear()

    def forget(self, number: int) -> None:
        """The connection has ended."""
        self.flush_folds(number)
        self._peers.pop(number, None)
        self.sink.forget(number)

    def forget_all_of(self, numbers: bytes) -> None:
        """The connections with these numbers, uint32, have ended."""
        if not self._peers and not self._folds:
            return
        ended = set(array("I", numbers))
        folded = {key[0] for key in self._folds}
        for number in (self._peers.keys() | folded) & ended:
            self.forget(number)

    # --- native records -----------------------------------------------------------------------

    def connect(self, record: tuple[Any, ...], peer: Peer, error: str | None) -> SpanContext | None:
        """A connect: one span for each attempt."""
        _, start, end, trace_id, span_id, _, _, _, _, _, flags, state = record
        if flags & ONLY_METRIC or peer.excluded:
            return None
        attributes = {**peer.attributes, **peer.local}
        if flags & ABANDONED:
            attributes[semconv.CONNECT_ABANDONED] = True
        return self.deliver(
            Finished(
                "connect",
                semconv.span_connect(peer.label, peer.port),
                start,
                end,
                attributes,
                parent_of(trace_id, span_id, flags, state),
                error,
            )
        )

    def accept(self, record: tuple[Any, ...], peer: Peer) -> None:
        """An accepted connection."""
        _, start, end, trace_id, span_id, _, _, _, _, _, flags, state = record
        if flags & ONLY_METRIC or peer.excluded:
            return
        attributes = {
            key: peer.attributes[source]
            for key, source in (
                (semconv.CLIENT_ADDRESS, semconv.NETWORK_PEER_ADDRESS),
                (semconv.CLIENT_PORT, semconv.NETWORK_PEER_PORT),
                (semconv.NETWORK_TRANSPORT, semconv.NETWORK_TRANSPORT),
                (semconv.NETWORK_TYPE, semconv.NETWORK_TYPE),
            )
            if source in peer.attributes
        }
        parent = parent_of(trace_id, span_id, flags, state)
        self.deliver(Finished("accept", semconv.SPAN_ACCEPT, start, end, attributes, parent))

    def send(self, record: tuple[Any, ...], peer: Peer, error: str | None) -> None:
        """A send: a span of its own, or a part of its connection's fold in this trace."""
        _, start, end, trace_id, span_id, size, stall, number, calls, _, flags, state = record
        if peer.excluded:
            return
        parent = parent_of(trace_id, span_id, flags, state)
        key = (number, trace_id) if trace_id is not None else None
        if self._is_over_limit(key):
            assert key is not None and parent is not None
            self._fold(key, peer, parent, start, end, size, stall, calls, error)
            return
        self._deliver_send(peer, parent, start, end, size, stall, 1, calls, error, None)

    def tls_send(
        self,
        peer: Peer,
        start: int,
        end: int,
        parent: SpanContext,
        size: int,
        error: str | None,
    ) -> None:
        """A send of application bytes over TLS."""
        if peer.excluded:
            return
        key = ((peer.label, peer.port), parent.trace_id.to_bytes(16, "big"))
        if self._is_over_limit(key):
            self._fold(key, peer, parent, start, end, size, 0, 1, error)
            return
        self._deliver_send(peer, parent, start, end, size, 0, 1, 1, error, None)

    def _is_over_limit(self, key: tuple[Any, bytes] | None) -> bool:
        """Counts a send of this connection and trace."""
        limit = self.config.max_sends_per_trace
        if not limit or key is None:
            return False
        counted = self._counted.pop(key, 0) + 1
        self._counted[key] = counted  # the last of them now
        if len(self._counted) > _MOST_COUNTED:
            self._counted.popitem(last=False)
        return counted > limit

    def _fold(
        self,
        key: tuple[Any, bytes],
        peer: Peer,
        parent: SpanContext,
        start: int,
        end: int,
        size: int,
        stall: int,
        calls: int,
        error: str | None,
    ) -> None:
        fold = self._folds.get(key)
        if fold is None:
            if len(self._folds) >= _MOST_FOLDS:
                self._deliver_fold(self._folds.pop(next(iter(self._folds))))
            fold = self._folds[key] = _Fold(peer, parent, start, end)
        fold.start = min(fold.start, start)
        fold.end = max(fold.end, end)
        fold.sends += 1
        fold.calls += calls
        fold.size += size
        fold.stall += stall
        fold.longest = max(fold.longest, end - start)
        fold.error = error or fold.error

    def _deliver_send(
        self,
        peer: Peer,
        parent: SpanContext | None,
        start: int,
        end: int,
        size: int,
        stall: int,
        sends: int,
        calls: int,
        error: str | None,
        longest: int | None,
    ) -> None:
        attributes = dict(peer.attributes)
        attributes[semconv.SEND_SIZE] = size
        attributes[semconv.SEND_CALLS] = sends
        if calls > sends:
            attributes[semconv.SEND_RETRIES] = calls - sends
        if stall:
            attributes[semconv.SEND_STALL_DURATION] = stall / 1e6
        if longest is not None:
            attributes[semconv.SEND_LONGEST_DURATION] = longest / 1e9
        self.deliver(
            Finished(
                "send",
                semconv.span_send(peer.label, peer.port),
                start,
                end,
                attributes,
                parent,
                error,
                stands_for=sends,
            )
        )

    def _deliver_fold(self, fold: _Fold) -> None:
        self._deliver_send(
            fold.peer,
            fold.parent,
            fold.start,
            fold.end,
            fold.size,
            fold.stall,
            fold.sends,
            fold.calls,
            fold.error,
            fold.longest,
        )

    def flush_folds(self, number: int | None = None) -> None:
        """Deliver what was folded: of one connection that ended, or everything."""
        for key in [key for key in self._folds if number is None or key[0] == number]:
            self._deliver_fold(self._folds.pop(key))
        if number is None:
            self.sink.flush_folds(0.0)

    def flush_idle_folds(self) -> None:
        """Deliver those to which no send was added for a while."""
        self.sink.flush_folds(_FOLD_IDLE / 1e9)
        if self._folds:
            idle = recorder.unix_time(recorder.ticks()) - _FOLD_IDLE
            for key in [key for key, fold in self._folds.items() if fold.end < idle]:
                self._deliver_fold(self._folds.pop(key))


def samples_all_roots(sampler: Any) -> bool:
    """Whether a span without a parent is always sampled."""
    return _samples_all(sampler, "_root")


def samples_all_children(sampler: Any) -> bool:
    """Whether a span below a sampled parent of this process is always sampled."""
    return _samples_all(sampler, "_local_parent_sampled")


def _samples_all(sampler: Any, kind: str) -> bool:
    """`kind`: the name by which a ParentBased sampler has the one that decides."""
    if type(sampler).should_sample is ParentBased.should_sample:
        sampler = getattr(sampler, kind)
    return sampler is ALWAYS_ON


@functools.lru_cache(maxsize=256)
def _trace_state(text: str) -> TraceState:
    return TraceState.from_header([text])


def parent_of(
    trace_id: bytes | None, span_id: bytes | None, flags: int, state: str | None = None
) -> SpanContext | None:
    """The caller's span as a parent; None for none. `state`: as in the header tracestate."""
    if trace_id is None or span_id is None:
        return None
    return SpanContext(
        int.from_bytes(trace_id, "big"),
        int.from_bytes(span_id, "big"),
        bool(flags & REMOTE_PARENT),
        SAMPLED,
        _trace_state(state) if state else None,
    )


def endpoint(address: Any) -> tuple[str | None, int | None]:
    """(address, port) of a socket address as Python has it; a name as text, and no port, for the
    families that have none."""
    if isinstance(address, tuple) and len(address) >= 2 and isinstance(address[0], str):
        port = address[1]
        return address[0], port if isinstance(port, int) else None
    if isinstance(address, bytes):
        return "@" + address[1:].decode("utf-8", "backslashreplace"), None
    if isinstance(address, str):
        return address.encode("utf-8", "backslashreplace").decode() or None, None
    return (None, None) if address is None else (str(address), None)
