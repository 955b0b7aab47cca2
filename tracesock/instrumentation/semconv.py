"""Every name that tracesock's telemetry emits: spans, attributes, their values, metrics.

Attributes and values follow OpenTelemetry's semantic conventions 1.44.0 where these have a name
(https://opentelemetry.io/docs/specs/semconv/), and .NET's network spans where they do not. The
stable names come from the conventions' package; those in development are written out here, because
the package moves them between releases. docs/reference/telemetry.md is this file for readers.
"""

from __future__ import annotations

import _socket
import errno
import sys
from dataclasses import dataclass
from typing import Final

from opentelemetry.semconv.attributes.client_attributes import CLIENT_ADDRESS as CLIENT_ADDRESS
from opentelemetry.semconv.attributes.client_attributes import CLIENT_PORT as CLIENT_PORT
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE as ERROR_TYPE
from opentelemetry.semconv.attributes.network_attributes import (
    NETWORK_LOCAL_ADDRESS as NETWORK_LOCAL_ADDRESS,
)
from opentelemetry.semconv.attributes.network_attributes import (
    NETWORK_LOCAL_PORT as NETWORK_LOCAL_PORT,
)
from opentelemetry.semconv.attributes.network_attributes import (
    NETWORK_PEER_ADDRESS as NETWORK_PEER_ADDRESS,
)
from opentelemetry.semconv.attributes.network_attributes import (
    NETWORK_PEER_PORT as NETWORK_PEER_PORT,
)
from opentelemetry.semconv.attributes.network_attributes import (
    NETWORK_TRANSPORT as NETWORK_TRANSPORT,
)
from opentelemetry.semconv.attributes.network_attributes import NETWORK_TYPE as NETWORK_TYPE
from opentelemetry.semconv.attributes.server_attributes import SERVER_ADDRESS as SERVER_ADDRESS
from opentelemetry.semconv.attributes.server_attributes import SERVER_PORT as SERVER_PORT

from tracesock._stock import family_enum

SCOPE_NAME: Final = "tracesock"
SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.44.0"

# --- attributes ---------------------------------------------------------------------------------

# In development in the conventions
DNS_QUESTION_NAME: Final = "dns.question.name"
DNS_ANSWERS: Final = "dns.answers"
NETWORK_CONNECTION_STATE: Final = "network.connection.state"
NETWORK_IO_DIRECTION: Final = "network.io.direction"
TLS_CIPHER: Final = "tls.cipher"
TLS_NEXT_PROTOCOL: Final = "tls.next_protocol"
TLS_PROTOCOL_NAME: Final = "tls.protocol.name"
TLS_PROTOCOL_VERSION: Final = "tls.protocol.version"
TLS_RESUMED: Final = "tls.resumed"

# tracesock's own, of spans
SEND_SIZE: Final = "tracesock.send.size"  # bytes sent
SEND_STALL_DURATION: Final = "tracesock.send.stall.duration"  # seconds waited
SEND_CALLS: Final = "tracesock.send.calls"  # sends that the span stands for
SEND_RETRIES: Final = "tracesock.send.retries"  # system calls beyond the first of each send
SEND_LONGEST_DURATION: Final = "tracesock.send.longest.duration"  # seconds, of a folded span
CONNECT_ABANDONED: Final = "tracesock.connect.abandoned"  # closed before its end was known

# tracesock's own, of metrics
CAUSE: Final = "cause"
SIGNAL: Final = "signal"
REASON: Final = "reason"
ACTION: Final = "action"
RULE: Final = "rule"

# Of log records: the standard names, then tracesock's own
PROCESS_PID: Final = "process.pid"
CODE_STACKTRACE: Final = "code.stacktrace"
CONNECTION_ID: Final = "tracesock.connection.id"  # process id and number
CONNECTION_STATE: Final = "tracesock.connection.state"
CONNECTION_DIRECTION: Final = "tracesock.connection.direction"
CONNECTION_DESCRIPTOR: Final = "tracesock.connection.descriptor"
CONNECTION_AGE: Final = "tracesock.connection.age"  # seconds
CONNECTION_SENT: Final = "tracesock.connection.sent"  # bytes
CONNECTION_RECEIVED: Final = "tracesock.connection.received"  # bytes
CONNECTION_QUEUED: Final = "tracesock.connection.queued"  # bytes not yet acknowledged
CONNECTIONS_INTERVAL: Final = "tracesock.connections.interval"  # seconds between two rounds
CONNECTIONS_OMITTED: Final = "tracesock.connections.omitted"  # open, and not told in this round
RTT: Final = "tracesock.tcp.rtt"  # seconds, smoothed
RETRANSMITS: Final = "tracesock.tcp.retransmits"  # segments sent again
LEAK_KIND: Final = "tracesock.leak.kind"  # close_wait, never_used

EVENT_CONNECTION: Final = "tracesock.connections.snapshot"
EVENT_OMITTED: Final = "tracesock.connections.omitted"
EVENT_RETRANSMIT: Final = "tracesock.tcp.retransmit"
EVENT_LEAK: Final = "tracesock.leak"

# --- values -------------------------------------------------------------------------------------

TRANSMIT: Final = "transmit"
RECEIVE: Final = "receive"
CAUSE_RECEIVER: Final = "receiver"  # the peer's window was closed
CAUSE_SNDBUF: Final = "sndbuf"  # this side's send buffer was full
OVERFLOW: Final = "tracesock.overflow"  # in place of a value above the cardinality limit

_TCP_STATES: Final = (
    "closed",  # 0: no state of the kernel's
    "established",
    "syn_sent",
    "syn_received",
    "fin_wait_1",
    "fin_wait_2",
    "time_wait",
    "closed",
    "close_wait",
    "last_ack",
    "listen",
    "closing",
    "syn_received",  # TCP_NEW_SYN_RECV
)
ESTABLISHED: Final = "established"
SYN_SENT: Final = "syn_sent"
LISTEN: Final = "listen"
CLOSED: Final = "closed"

REDACTED: Final = "REDACTED"  # in place of a value that the configuration keeps back


def connection_state(tcp_state: int) -> str:
    """The value of `network.connection.state` for a state of Linux' `tcp_info` (tcp(7))."""
    return _TCP_STATES[tcp_state] if 0 <= tcp_state < len(_TCP_STATES) else CLOSED


_AF_UNIX: Final = getattr(_socket, "AF_UNIX", None)
_TRANSPORTS: Final = {
    (_socket.SOCK_STREAM, 0): "tcp",
    (_socket.SOCK_STREAM, 6): "tcp",
    (_socket.SOCK_STREAM, 132): "sctp",
    (_socket.SOCK_STREAM, 262): "mptcp",
    (_socket.SOCK_SEQPACKET, 0): "sctp",
    (_socket.SOCK_SEQPACKET, 132): "sctp",
    (_socket.SOCK_DGRAM, 0): "udp",
    (_socket.SOCK_DGRAM, 17): "udp",
    (_socket.SOCK_DGRAM, 136): "udplite",
    (_socket.SOCK_DGRAM, 1): "icmp",
    (_socket.SOCK_DGRAM, 58): "icmp",
}


def transport_of(family: int, kind: int, protocol: int) -> str | None:
    """The value of `network.transport`: tcp, udp or unix; where the conventions have no value the
    protocol (sctp, mptcp, udplite, icmp, raw) or the family (vsock, netlink ...); None where
    neither has a name."""
    if family == _AF_UNIX:
        return "unix"
    if family in (_socket.AF_INET, _socket.AF_INET6):
        return "raw" if kind == _socket.SOCK_RAW else _TRANSPORTS.get((kind, protocol))
    name = getattr(family_enum(family), "name", None)
    return name.removeprefix("AF_").lower() if isinstance(name, str) else None


def network_type_of(family: int) -> str | None:
    """The value of `network.type`: ipv4, ipv6, or None for a family that is no internet."""
    if family == _socket.AF_INET:
        return "ipv4"
    if family == _socket.AF_INET6:
        return "ipv6"
    return None


# --- error.type ---------------------------------------------------------------------------------

TIMED_OUT: Final = "timed_out"
INTERRUPTED: Final = "interrupted"
DENIED: Final = "denied"
HOST_NOT_FOUND: Final = "host_not_found"
TRY_AGAIN: Final = "try_again"
NO_RECOVERY: Final = "no_recovery"
FAMILY_NOT_SUPPORTED: Final = "address_family_not_supported"

# The recorder's own codes (ext/recorder/record.hpp).
_RECORD_ERRORS: Final = {-1: TIMED_OUT, -2: INTERRUPTED, -3: DENIED}

_ERRNO_TYPES: Final = {
    getattr(errno, name): value
    for name, value in {
        "ECONNREFUSED": "connection_refused",
        "ETIMEDOUT": TIMED_OUT,
        "EHOSTUNREACH": "host_unreachable",
        "EHOSTDOWN": "host_down",
        "ENETUNREACH": "network_unreachable",
        "ENETDOWN": "network_down",
        "EADDRNOTAVAIL": "address_not_available",
        "EADDRINUSE": "address_in_use",
        "EAFNOSUPPORT": FAMILY_NOT_SUPPORTED,
        "EACCES": "access_denied",
        "EPERM": "access_denied",
        "ECONNRESET": "connection_reset",
        "ECONNABORTED": "connection_aborted",
        "EPIPE": "broken_pipe",
        "EMSGSIZE": "message_too_long",
        "ENOBUFS": "no_buffer_space",
        "ENOTCONN": "not_connected",
        "EISCONN": "already_connected",
        "EDESTADDRREQ": "destination_address_required",
        "EPROTOTYPE": "wrong_protocol_type",
        "ECANCELED": "operation_canceled",
        "EINTR": INTERRUPTED,
    }.items()
    if hasattr(errno, name)
}

# What getaddrinfo(3) and getnameinfo(3) return.
_EAI_TYPES: Final = {
    getattr(_socket, name): value
    for name, value in {
        "EAI_NONAME": HOST_NOT_FOUND,
        "EAI_NODATA": HOST_NOT_FOUND,
        "EAI_AGAIN": TRY_AGAIN,
        "EAI_FAIL": NO_RECOVERY,
        "EAI_FAMILY": FAMILY_NOT_SUPPORTED,
        "EAI_ADDRFAMILY": FAMILY_NOT_SUPPORTED,
    }.items()
    if hasattr(_socket, name)
}

# h_errno of gethostbyname(3): HOST_NOT_FOUND, TRY_AGAIN, NO_RECOVERY, NO_DATA.
_H_ERRNO_TYPES: Final = {1: HOST_NOT_FOUND, 2: TRY_AGAIN, 3: NO_RECOVERY, 4: HOST_NOT_FOUND}


def error_type_of_code(code: int) -> str | None:
    """`error.type` of a record's error code: an errno, or one of the recorder's negative codes;
    None for 0, which is no error. An errno without a name gets the class Python raises for it."""
    if code == 0:
        return None
    if code < 0:
        return _RECORD_ERRORS.get(code, "OSError")
    return _ERRNO_TYPES.get(code) or type(OSError(code, "")).__name__


def error_type_of_class(name: str, code: int) -> str:
    """`error.type` of an exception of the resolver's, by its class and code: an errno, or what the
    resolver returned; 0 for none."""
    types = {"gaierror": _EAI_TYPES, "herror": _H_ERRNO_TYPES}.get(name, _ERRNO_TYPES)
    return types.get(code, name)


def error_type(error: BaseException) -> str:
    """`error.type` of an exception: by its code where that says which failure it was, otherwise
    the name of its class."""
    name = type(error).__name__
    if not isinstance(error, OSError):
        return name
    code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    if isinstance(error, _socket.gaierror):
        return _EAI_TYPES.get(code, name)
    if isinstance(error, _socket.herror):
        return _H_ERRNO_TYPES.get(code, name)
    # An error of TLS has a number of OpenSSL's in the place of the errno.
    ssl = sys.modules.get("ssl")
    if ssl is not None and isinstance(error, ssl.SSLError):
        return name
    # The egress policy's own exception names its rule; the kernel's EPERM has none.
    if isinstance(error, PermissionError) and hasattr(error, "rule"):
        return DENIED
    if isinstance(error.errno, int):
        return _ERRNO_TYPES.get(error.errno, name)
    return TIMED_OUT if isinstance(error, TimeoutError) else name


# --- span names ---------------------------------------------------------------------------------

SPAN_ACCEPT: Final = "socket accept"
SPAN_TLS_SERVER: Final = "TLS server handshake"


def span_lookup(question: str) -> str:
    return f"DNS lookup {question}"


def span_reverse_lookup(address: str) -> str:
    return f"DNS reverse lookup {address}"


def span_connect(address: str, port: int | None = None) -> str:
    """`port` is None where the family has none."""
    return f"socket connect {_endpoint(address, port)}"


def span_setup(server: str, port: int | str | None = None) -> str:
    return f"socket connection_setup {_endpoint(server, port)}"


def span_send(address: str, port: int | None = None) -> str:
    return f"socket send {_endpoint(address, port)}"


def span_tls_client(server: str | None = None) -> str:
    return f"TLS client handshake {server}" if server else "TLS client handshake"


def _endpoint(address: str, port: int | str | None) -> str:
    if port is None:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


# --- metrics ------------------------------------------------------------------------------------

# Upper bounds of the buckets, in seconds; a value equal to one falls into its bucket.
LOOKUP_BOUNDARIES: Final = (
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
)  # fmt: skip
# Those, shorter ones, and the times at which Linux sends a SYN again. ext/recorder/histogram.hpp
# counts in the same buckets.
CALL_BOUNDARIES: Final = tuple(
    sorted({0.0001, 0.00025, 0.0005, 0.001, 0.0025, *LOOKUP_BOUNDARIES, 3.0, 7.0, 15.0, 31.0})
)
CONNECTION_BOUNDARIES: Final = (
    0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0,
)  # fmt: skip


@dataclass(frozen=True)
class Metric:
    """What an instrument is created with."""

    name: str
    unit: str
    description: str
    boundaries: tuple[float, ...] = ()  # of a histogram
    attributes: tuple[str, ...] = ()


LOOKUP_DURATION: Final = Metric(
    "dns.lookup.duration",
    "s",
    "Measures the time taken to perform a DNS lookup.",
    LOOKUP_BOUNDARIES,
    (DNS_QUESTION_NAME, ERROR_TYPE),
)
CONNECT_DURATION: Final = Metric(
    "tracesock.connect.duration",
    "s",
    "Time from connect to its result, a non-blocking one's included.",
    CALL_BOUNDARIES,
    (NETWORK_TRANSPORT, NETWORK_TYPE, SERVER_ADDRESS, ERROR_TYPE),
)
CONNECTION_DURATION: Final = Metric(
    "tracesock.connection.duration",
    "s",
    "Life of a connection, from established to closed.",
    CONNECTION_BOUNDARIES,
    (NETWORK_TRANSPORT,),
)
CONNECTION_COUNT: Final = Metric(
    "tracesock.connection.count",
    "{connection}",
    "Open connections.",
    attributes=(NETWORK_CONNECTION_STATE,),
)
IO: Final = Metric(
    "tracesock.io",
    "By",
    "Bytes that sends and receives moved.",
    attributes=(NETWORK_IO_DIRECTION, NETWORK_TRANSPORT, SERVER_ADDRESS),
)
SEND_DURATION: Final = Metric(
    "tracesock.send.duration",
    "s",
    "Time of a send call.",
    CALL_BOUNDARIES,
    (NETWORK_TRANSPORT, SERVER_ADDRESS),
)
STALL_DURATION: Final = Metric(
    "tracesock.send.stall.duration",
    "s",
    "Time that a send call waited for the peer's window or for room in the send buffer.",
    CALL_BOUNDARIES,
    (CAUSE, NETWORK_TRANSPORT, SERVER_ADDRESS),
)
FIRST_BYTE_DURATION: Final = Metric(
    "tracesock.first_byte.duration",
    "s",
    "Time from an established connection to the first byte received on it.",
    LOOKUP_BOUNDARIES,
    (NETWORK_TRANSPORT, NETWORK_TYPE, SERVER_ADDRESS),
)
TCP_RTT: Final = Metric(
    "tracesock.tcp.rtt",
    "s",
    "Smoothed round-trip time of a TCP connection when it closed.",
    CALL_BOUNDARIES,
    (NETWORK_TRANSPORT,),
)
TCP_RETRANSMITS: Final = Metric(
    "tracesock.tcp.retransmits",
    "{segment}",
    "Segments that a closed TCP connection had sent again.",
    attributes=(NETWORK_TRANSPORT,),
)
LISTEN_QUEUE_LENGTH: Final = Metric(
    "tracesock.listen.queue.length",
    "{connection}",
    "Connections that wait to be accepted.",
    attributes=(NETWORK_LOCAL_ADDRESS, NETWORK_LOCAL_PORT),
)
LISTEN_QUEUE_LIMIT: Final = Metric(
    "tracesock.listen.queue.limit",
    "{connection}",
    "Connections that may wait to be accepted before more are refused or dropped.",
    attributes=(NETWORK_LOCAL_ADDRESS, NETWORK_LOCAL_PORT),
)
TELEMETRY_DROPPED: Final = Metric(
    "tracesock.telemetry.dropped",
    "{record}",
    "Records and measurements of tracesock's own that were not delivered.",
    attributes=(SIGNAL, REASON),
)
TELEMETRY_RECORDS: Final = Metric(
    "tracesock.telemetry.records",
    "{record}",
    "Records that calls have left for delivery, those that were dropped included.",
    attributes=(SIGNAL,),
)
TELEMETRY_LAG: Final = Metric(
    "tracesock.telemetry.lag",
    "s",
    "Age that the oldest record may have had when it was delivered.",
    CALL_BOUNDARIES,
    (SIGNAL,),
)
PORTS_USED: Final = Metric(
    "tracesock.ephemeral_port.used",
    "{port}",
    "Ephemeral ports in use towards the one destination that has the most.",
)
PORTS_LIMIT: Final = Metric(
    "tracesock.ephemeral_port.limit",
    "{port}",
    "Ephemeral ports that there are towards one destination.",
)
AUDIT_DECISIONS: Final = Metric(
    "tracesock.audit.decisions",
    "{decision}",
    "Decisions of the egress policy.",
    attributes=(ACTION, RULE),
)

# Of the process; there where snapshots of the connections are told.
DESCRIPTOR_COUNT: Final = Metric(
    "process.unix.file_descriptor.count",
    "{file_descriptor}",
    "Number of unix file descriptors in use by the process.",
)
DESCRIPTOR_LIMIT: Final = Metric(
    "tracesock.descriptor.limit",
    "{file_descriptor}",
    "File descriptors that the process may have open (RLIMIT_NOFILE).",
)

METRICS: Final = (
    LOOKUP_DURATION,
    CONNECT_DURATION,
    CONNECTION_DURATION,
    CONNECTION_COUNT,
    IO,
    SEND_DURATION,
    STALL_DURATION,
    FIRST_BYTE_DURATION,
    TCP_RTT,
    TCP_RETRANSMITS,
    LISTEN_QUEUE_LENGTH,
    LISTEN_QUEUE_LIMIT,
    PORTS_USED,
    PORTS_LIMIT,
    TELEMETRY_DROPPED,
    TELEMETRY_RECORDS,
    TELEMETRY_LAG,
    AUDIT_DECISIONS,
)
