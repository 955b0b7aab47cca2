"""`tracesock.connections()`: every open socket, and who made it."""

from __future__ import annotations

import dataclasses
from typing import Any

from tracesock._native import recorder
from tracesock.instrumentation import semconv

_FEW = 64


@dataclasses.dataclass(frozen=True, slots=True)
class Connection:
    """One open socket. What the kernel or the recorder does not know is None."""

    number: int
    descriptor: int
    transport: str | None
    network_type: str | None
    peer: Any
    """The peer's address, as getpeername() gives it."""
    local: Any
    server: str | None
    """The host name that was asked for."""
    state: str
    """established, syn_sent, listen, close_wait … as `network.connection.state`."""
    direction: str
    """outbound, inbound, listening, or adopted where the socket's start was not seen."""
    age: float | None
    """Seconds since it was made; None for an adopted one."""
    sent: int
    """Bytes."""
    received: int
    """Bytes."""
    queued: int | None
    """Bytes in the send queue that the peer has not acknowledged."""
    rtt: float | None
    """Smoothed round-trip time in seconds, TCP only."""
    retransmits: int | None
    """Segments sent again, TCP only."""
    accept_queue: int | None
    """Connections that wait to be accepted, of a listening TCP socket."""
    accept_limit: int | None
    """How many may."""
    trace_id: str | None
    """The trace in which it was connected or accepted, 32 hexadecimal digits."""
    span_id: str | None
    origin: str | None
    """The stack that made it, where `origins` is on."""


def connections(*, stack: bool = False) -> list[Connection]:
    """Every open socket that telemetry knows, by number: those made, accepted, or used since
    `instrument()`.

    `stack` keeps, from now on, the stack that makes each new socket, which costs some microseconds
    a socket; those of sockets made before are None. RTT, state and queues are read from the kernel
    now (tcp(7) TCP_INFO, SIOCOUTQ).
    """
    if stack:
        recorder.keep_origin(True)
    numbers = recorder.open_numbers()
    found: list[Connection] = []
    # What the recorder tells of each is much: the next few are told where the last few were.
    for first in range(0, len(numbers), _FEW):
        found += map(_connection, recorder.connections(numbers[first : first + _FEW]))
    return found


def _connection(row: dict[str, Any]) -> Connection:
    tcp_state = row.get("tcp_state")
    listening = row["listening"]
    if tcp_state is not None:
        state = semconv.connection_state(tcp_state)
    elif row["connecting"]:
        state = semconv.SYN_SENT
    elif listening:
        state = semconv.LISTEN
    else:
        state = semconv.ESTABLISHED if row["connected"] else semconv.CLOSED
    direction = "outbound"
    if listening:
        direction = "listening"
    elif row["accepted"]:
        direction = "inbound"
    elif row["adopted"]:
        direction = "adopted"
    return Connection(
        number=row["number"],
        descriptor=row["descriptor"],
        transport=semconv.transport_of(row["family"], row["type"], row["protocol"]),
        network_type=semconv.network_type_of(row["family"]),
        peer=row["peer"],
        local=row["local"],
        server=row["server"],
        state=state,
        direction=direction,
        age=row["age"],
        sent=row["sent"],
        received=row["received"],
        queued=row.get("queued"),
        rtt=None if listening else row.get("rtt"),
        retransmits=None if listening else row.get("retransmits"),
        accept_queue=row.get("unacked") if listening else None,
        accept_limit=row.get("sacked") if listening else None,
        trace_id=row["trace_id"].hex() if row["trace_id"] else None,
        span_id=row["span_id"].hex() if row["span_id"] else None,
        origin=row["origin"],
    )


def is_forgotten(connection: Connection, older_than: float = 60.0) -> bool:
    """Whether a socket looks forgotten: see `leaks`."""
    return (
        connection.age is not None
        and connection.age >= older_than
        and (
            connection.state == "close_wait"
            or (connection.state == "closed" and not connection.sent)
        )
    )


def leaks(older_than: float = 60.0) -> list[Connection]:
    """Sockets that look forgotten: in CLOSE_WAIT, whose peer has long hung up, and idle ones that
    never moved a byte, older than `older_than` seconds; oldest first."""
    return sorted(
        (each for each in connections() if is_forgotten(each, older_than)),
        key=lambda each: -(each.age or 0.0),
    )
