"""Subscriptions: callbacks for events as they happen, and for records as they are made."""

from __future__ import annotations

import atexit
import ipaddress
import logging
from collections.abc import Callable, Sequence
from typing import Any

from tracesock import _native
from tracesock.audit import catalogue, pipeline, policy
from tracesock.audit.records import Record

_audit: Any = _native.audit
_log = logging.getLogger("tracesock.audit")

Callback = Callable[[str, tuple[Any, ...]], object]


class _Peers:
    """Whom events may be about: prefixes and host names."""

    def __init__(self, peers: Sequence[str]) -> None:
        self.prefixes: list[str] = []
        self.hosts: list[str] = []
        for peer in peers:
            try:
                self.prefixes.append(policy.read_prefix(peer))
            except ValueError:
                self.hosts.append(policy.read_host(peer))
        self._networks = [ipaddress.ip_network(prefix) for prefix in self.prefixes]

    def __contains__(self, record: Record) -> bool:
        if record.peer is None or record.peer.address is None:
            return False
        address = ipaddress.ip_address(record.peer.address)
        if any(address in network for network in self._networks):
            return True
        return any(
            record.host == host
            if not host.startswith("*.")
            else record.host.endswith(host[1:]) and len(record.host) >= len(host)
            for host in self.hosts
        )


class _CallbackSink:
    """Calls a subscriber for each record. One that raises is told to the log and goes on."""

    def __init__(self, callback: Callback, events: frozenset[str], peers: _Peers | None) -> None:
        self._callback = callback
        self._events = events
        self._peers = peers

    def __repr__(self) -> str:
        return f"<subscriber {self._callback!r}>"

    def open(self, source: str) -> None:
        """Nothing to be made ready."""

    def write(self, records: Sequence[Record]) -> None:
        for record in records:
            if record.event not in self._events:
                continue
            if self._peers is not None and record not in self._peers:
                continue
            try:
                self._callback(record.event, (record,))
            except Exception:
                _log.exception("a subscriber of %s failed", record.event)

    def idle(self) -> None:
        """Nothing is due."""

    def close(self, totals: dict[str, int]) -> None:
        """Nothing to be closed."""

    def abandon(self) -> None:
        """Nothing is shared."""


class Subscription:
    """What subscribe() returns: unsubscribe(), or the end of a with statement, ends it."""

    def __init__(self, number: int, sink: _CallbackSink | None) -> None:
        self._number = number
        self._sink = sink

    def unsubscribe(self) -> None:
        """Ends the subscription; a second time does nothing. Records that were made before are
        still delivered first."""
        number, self._number = self._number, 0
        sink, self._sink = self._sink, None
        if number:
            _audit.unsubscribe(number)
            _numbers.discard(number)
        if sink is not None:
            pipeline.remove_sink(sink)

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.unsubscribe()


_numbers: set[int] = set()


def subscribe(
    callback: Callback,
    events: str | Sequence[str] | None = None,
    peers: str | Sequence[str] | None = None,
) -> Subscription:
    """Calls `callback(event, arguments)` for each event, until unsubscribe().

    `events`: names or shell patterns; where not given, `socket.*`. The documented `socket.*` events
    come from everybody in the process, the standard library's own sockets too, in the thread of the
    call and before it: an exception from the callback stops the call, as one from an audit hook
    does. Events that the callback itself brings about are not delivered. `tracesock.*` records come
    a moment later, in a thread of their own, with the `Record` as the only argument; they tell
    outcomes, and what the callback raises is logged.

    `peers`: addresses, prefixes, host names or "*.domain": only events with a peer or host among
    them. A numeric address in any notation is the address it denotes; an address that this process
    has looked up is also its name.

    Raises ValueError for an unknown event or peer, and RuntimeError where an earlier audit hook
    refuses further ones: then nothing is subscribed to.
    """
    if not callable(callback):
        raise TypeError(f"a callback is callable, not {callback!r}")
    patterns = ("socket.*",) if events is None else (events,) if isinstance(events, str) else events
    bits, recorded = catalogue.select(tuple(patterns))
    wanted = None if peers is None else _Peers((peers,) if isinstance(peers, str) else peers)
    number = 0
    if bits:
        prefixes = [] if wanted is None else wanted.prefixes
        hosts = [] if wanted is None else wanted.hosts
        number = int(_audit.subscribe(callback, bits, prefixes, hosts))
        _numbers.add(number)
    sink = None
    if recorded:
        sink = _CallbackSink(callback, recorded, wanted)
        try:
            pipeline.add_sink(sink, "drop")
        except BaseException:
            if number:
                _audit.unsubscribe(number)
            raise
    return Subscription(number, sink)


def _end_all() -> None:
    # A callback may hold what must be gone before the extension is.
    for number in list(_numbers):
        _audit.unsubscribe(number)


atexit.register(_end_all)
