"""What a span is about: which socket operation, which peer, which error.

tracesock's spans share their names with .NET's network spans, so those are recognised as well. Any
other span is a request to a peer (kinds CLIENT and PRODUCER), an entry into a service (SERVER and
CONSUMER), or internal.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any, Final


class Op(IntEnum):
    """The kind of operation. The values are stored: never renumber them."""

    OTHER = 0
    LOOKUP = 1
    CONNECT = 2
    SETUP = 3
    TLS = 4
    SEND = 5
    ACCEPT = 6
    CLIENT = 7
    SERVER = 8
    # Not spans, but series of durations:
    STALL = 9
    RTT = 10


OP_LABELS: Final[Mapping[Op, str]] = {
    Op.OTHER: "internal",
    Op.LOOKUP: "look-up",
    Op.CONNECT: "connect",
    Op.SETUP: "set-up",
    Op.TLS: "TLS",
    Op.SEND: "send",
    Op.ACCEPT: "accept",
    Op.CLIENT: "request",
    Op.SERVER: "server",
    Op.STALL: "stall",
    Op.RTT: "round trip",
}

_PREFIXES: Final = (
    ("socket connection_setup", Op.SETUP),
    ("socket connect", Op.CONNECT),
    ("socket send", Op.SEND),
    ("socket accept", Op.ACCEPT),
    ("DNS lookup", Op.LOOKUP),
    ("DNS reverse lookup", Op.LOOKUP),
    ("TLS client handshake", Op.TLS),
    ("TLS server handshake", Op.TLS),
    ("HTTP connection_setup", Op.SETUP),
)

# SpanKind of opentelemetry/proto/trace/v1/trace.proto
KIND_SERVER, KIND_CLIENT, KIND_PRODUCER, KIND_CONSUMER = 2, 3, 4, 5
STATUS_ERROR = 2

_BY_KIND: Final = {
    KIND_SERVER: Op.SERVER,
    KIND_CONSUMER: Op.SERVER,
    KIND_CLIENT: Op.CLIENT,
    KIND_PRODUCER: Op.CLIENT,
}


def op_of(name: str, kind: int) -> Op:
    """The operation of a span from its name and its kind (an OTLP enum value)."""
    head = name[:4]
    if head in ("sock", "DNS ", "TLS ", "HTTP"):
        for prefix, op in _PREFIXES:
            if name.startswith(prefix):
                return op
    return _BY_KIND.get(kind, Op.OTHER)


def host_port(host: str, port: int) -> str:
    """`host:port`, an IPv6 address in brackets, only the host where the port is 0."""
    if not port:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_host_port(peer: str) -> tuple[str, int]:
    """The inverse of `host_port`; port 0 where there is none."""
    if peer.startswith("["):
        host, bracket, rest = peer[1:].partition("]")
        if bracket and (not rest or (rest[0] == ":" and rest[1:].isdecimal())):
            return host, int(rest[1:] or 0)
        return peer, 0
    host, colon, port = peer.rpartition(":")
    if colon and port.isascii() and port.isdecimal() and ":" not in host and len(port) <= 5:
        return host, int(port)
    return peer, 0


def plain(value: Any) -> Any:
    """An OTLP `AnyValue` message as a Python value; bytes become hexadecimal text."""
    which = value.WhichOneof("value")
    if which is None:
        return None
    content = getattr(value, which)
    if which == "array_value":
        return [plain(v) for v in content.values]
    if which == "kvlist_value":
        return {kv.key: plain(kv.value) for kv in content.values}
    if which == "bytes_value":
        return content.hex()
    return content
