"""The attribute, event and metric names that the dashboard reads.

Names of OpenTelemetry's semantic conventions stand beside tracesock's own; which is which, their
types and units are in `docs/reference/dashboard-data.md`.
"""

from __future__ import annotations

from typing import Final

# Resource attributes
SERVICE_NAME: Final = "service.name"
SERVICE_INSTANCE_ID: Final = "service.instance.id"
PROCESS_PID: Final = "process.pid"

# Span and log attributes
ERROR_TYPE: Final = "error.type"
EVENT_NAME: Final = "event.name"
DNS_QUESTION_NAME: Final = "dns.question.name"
DNS_ANSWERS: Final = "dns.answers"
NETWORK_PEER_ADDRESS: Final = "network.peer.address"
NETWORK_PEER_PORT: Final = "network.peer.port"
NETWORK_LOCAL_ADDRESS: Final = "network.local.address"
NETWORK_LOCAL_PORT: Final = "network.local.port"
NETWORK_TRANSPORT: Final = "network.transport"
NETWORK_IO_DIRECTION: Final = "network.io.direction"
NETWORK_CONNECTION_STATE: Final = "network.connection.state"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
CLIENT_ADDRESS: Final = "client.address"
PEER_SERVICE: Final = "peer.service"
STACKTRACE: Final = "code.stacktrace"
EXCEPTION_TYPE: Final = "exception.type"
SEND_STALL: Final = "tracesock.send.stall.duration"
RETRANSMITS: Final = "tracesock.tcp.retransmits"

# Log events
EVENT_CONNECTION: Final = "tracesock.connections.snapshot"
EVENT_AUDIT: Final = "tracesock.audit.decision"
EVENT_LEAK: Final = "tracesock.leak"
EVENT_RETRANSMIT: Final = "tracesock.tcp.retransmit"

# Attributes of a connection snapshot and of an entry in the leak ledger
CONNECTION_ID: Final = "tracesock.connection.id"
CONNECTION_STATE: Final = "tracesock.connection.state"
CONNECTION_AGE: Final = "tracesock.connection.age"
CONNECTION_SENT: Final = "tracesock.connection.sent"
CONNECTION_RECEIVED: Final = "tracesock.connection.received"
CONNECTION_QUEUED: Final = "tracesock.connection.queued"
CONNECTION_DIRECTION: Final = "tracesock.connection.direction"
CONNECTION_DESCRIPTOR: Final = "tracesock.connection.descriptor"
CONNECTIONS_INTERVAL: Final = "tracesock.connections.interval"
TCP_RTT: Final = "tracesock.tcp.rtt"
LEAK_KIND: Final = "tracesock.leak.kind"

# Attributes of an audit decision
AUDIT_ACTION: Final = "tracesock.audit.action"
AUDIT_RULE: Final = "tracesock.audit.rule"
AUDIT_EVENT: Final = "tracesock.audit.event"
AUDIT_DIRECTION: Final = "tracesock.audit.direction"
AUDIT_OUTCOME: Final = "tracesock.audit.outcome"
AUDIT_DURATION: Final = "tracesock.audit.duration"
AUDIT_SEQUENCE: Final = "tracesock.audit.sequence"
AUDIT_CHAIN_ID: Final = "tracesock.audit.chain.id"
AUDIT_CHAIN_HASH: Final = "tracesock.audit.chain.hash"
AUDIT_CHAIN_PREVIOUS: Final = "tracesock.audit.chain.previous"
AUDIT_CHAIN_STATE: Final = "tracesock.audit.chain.state"

# Metrics
METRIC_LOOKUP: Final = "dns.lookup.duration"
METRIC_CONNECT: Final = "tracesock.connect.duration"
METRIC_SEND: Final = "tracesock.send.duration"
METRIC_STALL: Final = "tracesock.send.stall.duration"
METRIC_RTT: Final = "tracesock.tcp.rtt"
METRIC_CONNECTIONS: Final = "tracesock.connection.count"
METRIC_DROPPED: Final = "tracesock.telemetry.dropped"
METRIC_QUEUE_LENGTH: Final = "tracesock.listen.queue.length"
METRIC_QUEUE_LIMIT: Final = "tracesock.listen.queue.limit"
METRIC_DESCRIPTORS: Final = "process.unix.file_descriptor.count"
METRIC_DESCRIPTORS_OLD: Final = "process.open_file_descriptor.count"
METRIC_DESCRIPTOR_LIMIT: Final = "tracesock.descriptor.limit"
METRIC_PORTS: Final = "tracesock.ephemeral_port.count"
METRIC_PORT_LIMIT: Final = "tracesock.ephemeral_port.limit"
