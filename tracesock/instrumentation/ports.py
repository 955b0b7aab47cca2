"""Ephemeral ports: how many are in use towards each destination, and a warning before none is left.

Each destination (address and port) has the whole range of
/proc/sys/net/ipv4/ip_local_port_range to itself. connect() fails with EADDRNOTAVAIL when that is
used up, by open connections or by closed ones in TIME_WAIT, which hold their port for a minute.
"""

from __future__ import annotations

import dataclasses
import errno
import logging
import socket
import sys
import time
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tracesock._native import recorder
from tracesock.instrumentation import semconv
from tracesock.instrumentation.connections import connections
from tracesock.instrumentation.spans import endpoint

if TYPE_CHECKING:
    from tracesock.instrumentation.spans import Peer

_log = logging.getLogger(__name__)

_NETWORK = Path("/proc/self/net")
_PORT_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_MOST_DESTINATIONS = 1024
_WARN_SHARE = 0.8
_WARN_AGAIN = 600.0  # seconds
_LOOK_SHARE = 0.5  # of the range: as many connects and open connections are a reason to look
_MINUTE = 60.0

_Destination = tuple[str, int]
_recent: OrderedDict[_Destination, None] = OrderedDict()  # connected to lately, the last one last


@dataclasses.dataclass(frozen=True, slots=True)
class PortUse:
    """Ephemeral ports in use towards one destination."""

    destination: str
    """`address:port`, an IPv6 address in brackets."""
    used: int
    """On this machine or in this network namespace, by any process, those in TIME_WAIT too."""
    available: int
    """How many there are."""

    @property
    def share(self) -> float:
        """Of the ports there are, 0 to 1."""
        return self.used / self.available if self.available else 1.0


def ephemeral_ports() -> list[PortUse]:
    """Ephemeral port use towards the destinations of this process, most used first: those that it
    is connected to, and the last 1024 that it was since `instrument()`."""
    own: Counter[_Destination] = Counter()
    for each in connections():
        address, port = endpoint(each.peer)
        if each.direction == "outbound" and each.transport == "tcp" and address and port:
            own[address.partition("%")[0], port] += 1
    return _use(own)


def _use(own: Counter[_Destination]) -> list[PortUse]:
    """Of the destinations of `own` sockets, and of those that were connected to lately."""
    low, high = _port_range()
    wanted = own.keys() | _recent.copy().keys()
    used: Counter[_Destination] = Counter()
    for local, remote in _kernel_table():
        if low <= local <= high and remote in wanted:
            used[remote] += 1
    for destination, count in own.items():
        used[destination] = max(used[destination], count)
    return [
        PortUse(_written(destination), count, high - low + 1)
        for destination, count in used.most_common()
    ]


def port_limit() -> int:
    """How many ephemeral ports there are towards one destination (ip(7))."""
    low, high = _port_range()
    return high - low + 1


def _port_range() -> tuple[int, int]:
    try:
        low, high = map(int, _PORT_RANGE.read_text().split())
    except (OSError, ValueError):
        return 32768, 60999
    return low, high


def _written(destination: _Destination) -> str:
    address, port = destination
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _kernel_table() -> Iterator[tuple[int, _Destination]]:
    """(local port, remote address and port) of every TCP socket here, proc(5)."""
    known: dict[bytes, str] = {}
    for name in ("tcp", "tcp6"):
        try:
            table = (_NETWORK / name).open("rb")
        except OSError:
            continue
        with table:
            next(table, None)
            for line in table:
                _, local, remote, *_ = line.split(None, 3)
                host, _, port = remote.partition(b":")
                if port == b"0000":
                    continue
                address = known.get(host)
                if address is None:
                    address = known[host] = _address(host)
                yield int(local.rpartition(b":")[2], 16), (address, int(port, 16))


def _address(digits: bytes) -> str:
    """Of the kernel's hexadecimal words, which are in the machine's byte order."""
    words = bytes.fromhex(digits.decode())
    packed = b"".join(
        words[at : at + 4][::-1] if sys.byteorder == "little" else words[at : at + 4]
        for at in range(0, len(words), 4)
    )
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


class PortWatch:
    """Looks at the use of ports when many connections were made, and warns in the log."""

    def __init__(self, redact: Collection[str]) -> None:
        self._redacted = semconv.NETWORK_PEER_ADDRESS in redact
        self._failed = False
        self._next_look = 0.0
        # Connects to each destination in this minute and the one before: how long TIME_WAIT is.
        self._minutes: tuple[Counter[_Destination], Counter[_Destination]] = (Counter(), Counter())
        self._next_minute = time.monotonic() + _MINUTE
        self._warned: dict[str, float] = {}

    def connected(self, peer: Peer, error: int, count: int = 1) -> None:
        """A TCP connect that has ended, or several, with its errno."""
        if peer.transport != "tcp" or peer.port is None:
            return
        self._failed = self._failed or error == errno.EADDRNOTAVAIL
        destination = (peer.attributes.get(semconv.NETWORK_PEER_ADDRESS, ""), peer.port)
        _recent.pop(destination, None)
        _recent[destination] = None
        if len(_recent) > _MOST_DESTINATIONS:
            _recent.popitem(last=False)
        counts = self._minutes[0]
        if destination in counts or len(counts) < _MOST_DESTINATIONS:
            counts[destination] += count

    def look(self) -> None:
        """Warn, where there is reason to; called again and again."""
        now = time.monotonic()
        if now >= self._next_minute:
            self._next_minute = now + _MINUTE
            self._minutes = (Counter(), self._minutes[0])
        if now < self._next_look or not self._is_worth_a_look():
            return
        self._failed = False
        uses = _use(Counter())
        # The kernel's table is long when there is something in it.
        took = time.monotonic() - now
        self._next_look = now + max(1.0, took * 20)
        for use in uses:
            if use.share < _WARN_SHARE:
                break
            if now - self._warned.get(use.destination, -_WARN_AGAIN) < _WARN_AGAIN:
                continue
            self._warned[use.destination] = now
            _log.warning(
                "tracesock: %d of %d ephemeral ports are in use towards %s; connect() fails with "
                "EADDRNOTAVAIL when none is left",
                use.used,
                use.available,
                semconv.REDACTED if self._redacted else use.destination,
            )

    def _is_worth_a_look(self) -> bool:
        this, last = self._minutes
        lately = max((count + last[name] for name, count in this.items()), default=0)
        lately = max(lately, max(last.values(), default=0))
        return self._failed or lately + recorder.most_ports() >= _LOOK_SHARE * port_limit()
