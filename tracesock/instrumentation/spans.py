"""Records become spans: named, attributed, folded, sampled, and handed to the provider.

A record is what a native call left behind (see ext/recorder/record.hpp); an event is what Python
observed: a look-up, a connection set-up, a handshake. Nothing here runs on a caller's path.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import ipaddress
import logging
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags

from tracesock._native import recorder
from tracesock.instrumentation import semconv

if TYPE_CHECKING:
    from tracesock.instrumentation.config import Config

_log = logging.getLogger(__name__)

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_MOST_PEERS = 4096

# Kinds and flags of ext/recorder/record.hpp.
SEND, CONNECT, ACCEPT, FIRST_BYTE, CLOSED = range(5)
HAS_PARENT, ONLY_METRIC, ABANDONED, OVER_LIMIT = 1, 2, 4, 8


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


@dataclasses.dataclass(slots=True)
class _Fold:
    """The sends of one connection in one trace beyond the limit."""

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


def printable(value: str) -> str:
    """`value` for a span's name: without control characters and lone surrogates."""
    if value.isprintable() and value.isascii():
        return value
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in value
    )


class Spans:
    """Makes spans for one sink, sampled and numbered as `provider` says.

    `provider` is any TracerProvider; without an SDK's, which has a sampler and identifiers, there
    are no spans.
    """

    def __init__(self, provider: Any, sink: Any, config: Config) -> None:
        self.provider = provider
        self.sink = sink
        sink.resolve = self.peer
        self.config = config
        self._excluder = Excluder(config.excluded_peers)
        self._redact = frozenset(config.redact)
        self._peers: OrderedDict[int, Peer] = OrderedDict()
        self._counted: OrderedDict[tuple[int, bytes], int] = OrderedDict()
        self._folds: dict[tuple[int, bytes], _Fold] = {}
        self._failed_hooks: set[str] = set()

    # --- the provider -------------------------------------------------------------------------

    @property
    def wanted(self) -> bool:
        """Whether spans can be made at all."""
        return getattr(self.provider, "sampler", None) is not None

    def sample(
        self, parent: SpanContext | None, trace_id: int, name: str, attributes: dict[str, Any]
    ) -> Any:
        """The sampler's result for a span with this parent, None where it is plainly sampled."""
        sampler = self.provider.sampler
        remote_or_local = parent is not None and parent.is_valid
        if isinstance(sampler, ParentBased):
            if remote_or_local:
                assert parent is not None
                inner = (
                    sampler._remote_parent_sampled
                    if parent.is_remote
                    else sampler._local_parent_sampled
                )
            else:
                inner = sampler._root
        else:
            inner = sampler
        if inner is ALWAYS_ON:
            return None
        context = Context()
        if remote_or_local:
            assert parent is not None
            context = trace.set_span_in_context(trace.NonRecordingSpan(parent), context)
        return sampler.should_sample(context, trace_id, name, SpanKind.INTERNAL, attributes)

    def deliver(self, finished: Finished) -> SpanContext | None:
        """Sample a span, run the hooks, and give it to the sink; None where it is not sampled."""
        if not self.wanted:
            return None
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
            if result is not None:
                if not result.decision.is_recording():
                    return None
                attributes.update(result.attributes or {})
                state = result.trace_state
                if not result.decision.is_sampled():
                    return None
            context = SpanContext(trace_id, generator.generate_span_id(), False, _SAMPLED, state)
        self._hook(self.config.request_hook, finished.kind, attributes)
        self._hook(self.config.response_hook, finished.kind, attributes, finished.error)
        self.sink.put(finished, context, attributes)
        return context

    def _hook(self, hook: Any, *arguments: Any) -> None:
        if hook is None:
            return
        try:
            hook(*arguments)
        except Exception:
            name = repr(hook)
            if name not in self._failed_hooks:
                self._failed_hooks.add(name)
                _log.exception("tracesock: the hook %s failed; this is logged once", name)

    # --- connections --------------------------------------------------------------------------

    def peer(self, number: int) -> Peer | None:
        """The connection with this number, None where it is not known any more."""
        known = self._peers.get(number)
        if known is not None:
            return known
        row = recorder.connection(number)
        if row is None:
            return None
        family, kind, protocol, remote, local, server, _, _ = row
        transport = semconv.transport_of(family, kind, protocol)
        network_type = semconv.network_type_of(family)
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
        known = Peer(
            label=printable(shown) if shown else "unknown",
            port=port,
            attributes=attributes,
            transport=transport,
            network_type=network_type,
            server=server or (address if transport in ("tcp", "udp") else None),
            excluded=self._excluder.excludes(address, port, server),
            local=local_attributes,
            handshake=transport not in ("udp",),
        )
        if local is not None or remote is not None:
            self._peers[number] = known
            self.sink.connection(number, known)
            if len(self._peers) > _MOST_PEERS:
                self.sink.forget(self._peers.popitem(last=False)[0])
        return known

    def forget_all(self) -> None:
        """In a forked child: what is known is the parent's to tell."""
        self._peers.clear()
        self._counted.clear()
        self._folds.clear()

    def forget(self, number: int) -> None:
        """The connection has ended."""
        self._peers.pop(number, None)
        self.sink.forget(number)

    # --- native records -----------------------------------------------------------------------

    def connect(self, record: tuple[Any, ...], peer: Peer, error: str | None) -> SpanContext | None:
        """A connect: one span for each attempt."""
        _, start, end, trace_id, span_id, _, _, _, _, _, flags = record
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
                parent_of(trace_id, span_id),
                error,
            )
        )

    def accept(self, record: tuple[Any, ...], peer: Peer) -> None:
        """An accepted connection."""
        _, start, end, trace_id, span_id, _, _, _, _, _, flags = record
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
        parent = parent_of(trace_id, span_id)
        self.deliver(Finished("accept", semconv.SPAN_ACCEPT, start, end, attributes, parent))

    def send(self, record: tuple[Any, ...], peer: Peer, error: str | None) -> None:
        """A send: a span of its own, or a part of its connection's fold in this trace."""
        _, start, end, trace_id, span_id, size, stall, number, calls, _, flags = record
        if peer.excluded:
            return
        parent = parent_of(trace_id, span_id)
        limit = self.config.max_sends_per_trace
        if limit and parent is not None:
            key = (number, trace_id)
            counted = self._counted.get(key, 0) + 1
            self._counted[key] = counted
            if len(self._counted) > _MOST_PEERS:
                self._counted.popitem(last=False)
            if counted > limit or flags & OVER_LIMIT:
                fold = self._folds.get(key)
                if fold is None:
                    fold = self._folds[key] = _Fold(parent, start, end)
                fold.end = max(fold.end, end)
                fold.sends += 1
                fold.calls += calls
                fold.size += size
                fold.stall += stall
                fold.longest = max(fold.longest, end - start)
                fold.error = error or fold.error
                return
        self._deliver_send(peer, parent, start, end, size, stall, 1, calls, error, None)

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
            )
        )

    def flush_folds(self, number: int | None = None) -> None:
        """Deliver what was folded: of one connection that ended, or everything."""
        for key in [key for key in self._folds if number is None or key[0] == number]:
            fold = self._folds.pop(key)
            peer = self.peer(key[0])
            if peer is not None:
                self._deliver_send(
                    peer,
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


def samples_all_children(sampler: Any) -> bool:
    """Whether a span below a sampled parent of this process is always sampled."""
    if isinstance(sampler, ParentBased):
        sampler = sampler._local_parent_sampled
    return sampler is ALWAYS_ON


def parent_of(trace_id: bytes | None, span_id: bytes | None) -> SpanContext | None:
    """The caller's span as a parent; None for none."""
    if trace_id is None or span_id is None:
        return None
    return SpanContext(
        int.from_bytes(trace_id, "big"), int.from_bytes(span_id, "big"), False, _SAMPLED
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
