"""The forms in which records are written.

Each is one JSON object a line whose last string is the record's hash; `jsonl` is tracesock's own,
the others are published schemas and carry the own form inside, so that `tracesock audit` reads all
of them: `unmapped.tracesock` in OCSF, `tracesock` in ECS, the body of an OpenTelemetry log record.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

from tracesock import _native
from tracesock.audit.records import Endpoint, Record
from tracesock.audit.text import clean

OCSF_VERSION: Final = "1.5.0"
ECS_VERSION: Final = "8.11.0"
SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.44.0"
VERSION: Final[str] = _native.__version__

# Where the hash stands until it is known.
NO_HASH: Final = "0" * 64

_MS: Final = 1_000_000


def own_form(record: Record, sequence: int) -> dict[str, Any]:
    """The record in tracesock's own form, numbered, without its hash."""
    return record.as_dict(seq=sequence)


def jsonl(record: Record, sequence: int) -> dict[str, Any]:
    """tracesock's own form; see docs/reference/audit-events.md."""
    out = own_form(record, sequence)
    out["hash"] = NO_HASH
    return out


# --- OCSF -----------------------------------------------------------------------------------------

# activity_id of class 4001
_OPEN, _CLOSE, _FAIL, _REFUSE, _TRAFFIC, _LISTEN, _OTHER = 1, 2, 4, 5, 6, 7, 99
_ACTIVITIES: Final = {
    "tracesock.connect": _OPEN,
    "tracesock.connected": _OPEN,
    "tracesock.accept": _OPEN,
    "tracesock.sendto": _TRAFFIC,
    "tracesock.sendmsg": _TRAFFIC,
    "tracesock.send": _TRAFFIC,
    "tracesock.sendfile": _TRAFFIC,
    "tracesock.listen": _LISTEN,
    "tracesock.close": _CLOSE,
}
_PROTOCOL_NUMBERS: Final = {"tcp": 6, "udp": 17, "sctp": 132, "udplite": 136, "mptcp": 262}
# (action_id, disposition_id): Allowed; Denied and Blocked; Observed with an Alert.
_DISPOSITIONS: Final = {"allow": (1, 1), "deny": (2, 2), "would_deny": (3, 19)}


def ocsf(record: Record, sequence: int) -> dict[str, Any]:
    """OCSF Network Activity, class 4001; records about the audit itself are Base Events, class 0.

    Published at https://schema.ocsf.io/1.5.0/classes/network_activity.
    """
    out: dict[str, Any] = {
        "time": record.time // _MS,
        "severity_id": 3 if record.action in ("deny", "would_deny") else 1,
        "metadata": {
            "version": OCSF_VERSION,
            "product": {"name": "tracesock", "vendor_name": "tracesock", "version": VERSION},
            "log_name": "tracesock.audit",
            "sequence": sequence,
            "uid": f"{record.source}-{record.number}" if record.number else f"audit-{sequence}",
            "profiles": ["security_control"] if record.decided else [],
        },
    }
    if record.trace_id:
        out["metadata"]["correlation_uid"] = record.trace_id
    endpoints = _ocsf_endpoints(record)
    if not endpoints:
        out.update(category_uid=0, class_uid=0, type_uid=0, activity_id=0, message=record.event)
    else:
        activity = _ACTIVITIES.get(record.event, _OTHER)
        if record.action == "deny":
            activity = _REFUSE
        elif activity == _OPEN and record.outcome not in ("success", "in_progress"):
            activity = _FAIL
        out.update(
            category_uid=4,
            class_uid=4001,
            type_uid=400100 + activity,
            activity_id=activity,
            message=_sentence(record),
            **endpoints,
        )
        failed = record.outcome not in ("success", "in_progress")
        out["status_id"] = 2 if failed else 1
        if record.error:
            out["status_detail"] = record.as_dict()["error"]
        connection: dict[str, Any] = {
            "direction_id": {"ingress": 1, "egress": 2}.get(record.direction, 0)
        }
        if record.transport:
            connection["protocol_name"] = record.transport
            connection["protocol_num"] = _PROTOCOL_NUMBERS.get(record.transport, -1)
        if record.family in ("inet", "inet6"):
            connection["protocol_ver_id"] = 4 if record.family == "inet" else 6
        out["connection_info"] = connection
        if record.sent is not None and record.received is not None:
            out["traffic"] = {
                "bytes": record.sent + record.received,
                "bytes_in": record.received,
                "bytes_out": record.sent,
            }
    if record.duration is not None:
        out["duration"] = record.duration // _MS
    if record.decided:
        out["action_id"], out["disposition_id"] = _DISPOSITIONS[record.action]
        out["is_alert"] = record.action != "allow"
        if record.rule:
            out["firewall_rule"] = {"uid": record.rule, "name": record.rule}
    out["unmapped"] = {"tracesock": {**own_form(record, sequence), "hash": NO_HASH}}
    return out


def _ocsf_endpoints(record: Record) -> dict[str, Any]:
    def object_of(end: Endpoint, host: str = "") -> dict[str, Any]:
        out: dict[str, Any] = {}
        if end.address is not None:
            out = {"ip": end.address, "port": end.port}
        else:
            out = {"name": (end.path if end.path is not None else end.raw) or end.family}
        if host:
            out["hostname"] = host
        return out

    outgoing = record.direction != "ingress" and record.event != "tracesock.listen"
    out = {}
    if record.peer is not None:
        out["dst_endpoint" if outgoing else "src_endpoint"] = object_of(record.peer, record.host)
    if record.local is not None:
        out["src_endpoint" if outgoing else "dst_endpoint"] = object_of(record.local)
    return out


def _sentence(record: Record) -> str:
    what = record.event.removeprefix("tracesock.")
    whom = record.peer if record.peer is not None else record.local
    decided = f": {record.action} by rule '{record.rule}'" if record.rule else ""
    return f"{what} {whom}{decided}"


# --- ECS ------------------------------------------------------------------------------------------

_ECS_TYPES: Final = {
    "tracesock.connect": ["connection", "start"],
    "tracesock.connected": ["connection", "start"],
    "tracesock.accept": ["connection", "start"],
    "tracesock.listen": ["connection", "info"],
    "tracesock.close": ["connection", "end"],
}
_ECS_DECISIONS: Final = {"allow": "allowed", "deny": "denied", "would_deny": "allowed"}


def ecs(record: Record, sequence: int) -> dict[str, Any]:
    """Elastic Common Schema 8.11: https://www.elastic.co/guide/en/ecs/8.11/."""
    fields = record.as_dict()
    event: dict[str, Any] = {
        "kind": "event",
        "module": "tracesock",
        "dataset": "tracesock.audit",
        "provider": "tracesock",
        "action": record.event.removeprefix("tracesock."),
        "sequence": sequence,
    }
    out: dict[str, Any] = {
        "@timestamp": fields["time"],
        "ecs": {"version": ECS_VERSION},
        "event": event,
    }
    ends = [end for end in (record.peer, record.local) if end is not None]
    if ends:
        event["category"] = ["network"]
        event["type"] = [*_ECS_TYPES.get(record.event, ["connection"])]
        if record.action:
            event["type"].append(_ECS_DECISIONS[record.action])
        if record.action == "would_deny":
            event["kind"] = "alert"
        event["outcome"] = (
            "unknown"
            if record.outcome == "in_progress"
            else "success"
            if record.outcome == "success"
            else "failure"
        )
        out["message"] = _sentence(record)
        network: dict[str, Any] = {}
        if record.family in ("inet", "inet6"):
            network["type"] = "ipv4" if record.family == "inet" else "ipv6"
        if record.transport:
            network["transport"] = record.transport
        if record.direction:
            network["direction"] = record.direction
        if record.sent is not None and record.received is not None:
            network["bytes"] = record.sent + record.received
        if network:
            out["network"] = network
        outgoing = record.direction != "ingress" and record.event != "tracesock.listen"
        there, here = ("destination", "source") if outgoing else ("source", "destination")
        for name, end, host in ((there, record.peer, record.host), (here, record.local, "")):
            if end is not None:
                out[name] = _ecs_endpoint(end, host)
        if record.sent is not None and record.local is not None:
            out[here]["bytes"] = record.sent
    else:
        event["category"] = ["configuration"]
        event["type"] = ["info"]
        out["message"] = record.event
    if record.duration is not None:
        event["duration"] = record.duration
    if record.rule:
        out["rule"] = {"id": record.rule, "name": record.rule, "ruleset": "tracesock"}
    if "error" in fields:
        out["error"] = {"code": fields["error"]}
    if record.pid:
        out["process"] = {"pid": record.pid}
        if record.thread:
            out["process"]["thread"] = {"id": record.thread, "name": record.thread_name}
    if record.trace_id:
        out["trace"] = {"id": record.trace_id}
        out["span"] = {"id": record.span_id}
    out["tracesock"] = {**own_form(record, sequence), "hash": NO_HASH}
    return out


def _ecs_endpoint(end: Endpoint, host: str) -> dict[str, Any]:
    if end.address is None:
        return {"address": (end.path if end.path is not None else end.raw) or end.family}
    out: dict[str, Any] = {"address": host or end.address, "ip": end.address, "port": end.port}
    if host:
        out["domain"] = host
    return out


# --- OpenTelemetry --------------------------------------------------------------------------------

EVENT_NAME: Final = "tracesock.audit.decision"
SEVERITY_INFO, SEVERITY_WARN = 9, 13


def log_attributes(record: Record) -> dict[str, str | int | float]:
    """The attributes of an OpenTelemetry log record about `record`."""
    fields = record.as_dict()
    out: dict[str, str | int | float] = {"tracesock.audit.event": record.event}
    for name in ("action", "rule", "direction", "outcome", "source"):
        if value := getattr(record, name):
            out[f"tracesock.audit.{name}"] = value
    if record.number:
        out["tracesock.audit.number"] = record.number
    if record.duration is not None:
        out["tracesock.audit.duration"] = fields["duration"]
    if record.peer is not None:
        out.update(_peer_attributes("network.peer", record.peer))
        if record.host:
            out["server.address" if record.direction != "ingress" else "client.address"] = (
                record.host
            )
    if record.local is not None:
        out.update(_peer_attributes("network.local", record.local))
    if record.transport:
        out["network.transport"] = record.transport
    if record.family in ("inet", "inet6"):
        out["network.type"] = "ipv4" if record.family == "inet" else "ipv6"
    if record.sent is not None and record.received is not None:
        out["tracesock.connection.sent"] = record.sent
        out["tracesock.connection.received"] = record.received
    if "error" in fields:
        out["error.type"] = fields["error"]
    if record.pid:
        out["process.pid"] = record.pid
    if record.thread:
        out["thread.id"] = record.thread
        out["thread.name"] = record.thread_name
    return out


def _peer_attributes(prefix: str, end: Endpoint) -> dict[str, str | int]:
    if end.address is None:
        return {f"{prefix}.address": (end.path if end.path is not None else end.raw) or end.family}
    return {f"{prefix}.address": end.address, f"{prefix}.port": end.port or 0}


def severity(record: Record) -> tuple[int, str]:
    """Number and text of a log record's severity."""
    return (
        (SEVERITY_WARN, "WARN")
        if record.action in ("deny", "would_deny")
        else (SEVERITY_INFO, "INFO")
    )


def _any_value(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, Mapping):
        return {"kvlistValue": {"values": _key_values(value)}}
    if isinstance(value, list | tuple):
        return {"arrayValue": {"values": [_any_value(item) for item in value]}}
    if value is None:
        return {}
    return {"stringValue": str(value)}


def _key_values(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _any_value(value)} for key, value in values.items()]


def _plain(value: Mapping[str, Any]) -> Any:
    for kind, item in value.items():
        if kind == "intValue":
            return int(item)
        if kind == "kvlistValue":
            return {each["key"]: _plain(each["value"]) for each in item["values"]}
        if kind == "arrayValue":
            return [_plain(each) for each in item["values"]]
        return item
    return None


def _resource() -> dict[str, str | int]:
    return {
        "service.name": os.environ.get("OTEL_SERVICE_NAME") or "unknown_service:python",
        "host.name": clean(platform.node()),
        "process.runtime.name": sys.implementation.name,
        "telemetry.sdk.language": "python",
    }


def otlp(record: Record, sequence: int) -> dict[str, Any]:
    """An OpenTelemetry log record as OTLP/JSON, one LogsData a line.

    The "JSON File" form of the OpenTelemetry protocol file exporter, opentelemetry-proto 1.x.
    """
    number, text = severity(record)
    log: dict[str, Any] = {
        "timeUnixNano": str(record.time),
        "observedTimeUnixNano": str(record.time),
        "severityNumber": number,
        "severityText": text,
        "eventName": EVENT_NAME if record.decided else record.event,
    }
    if record.trace_id:
        log["traceId"] = record.trace_id
        log["spanId"] = record.span_id
    log["body"] = _any_value(own_form(record, sequence))
    log["attributes"] = _key_values(
        {
            **log_attributes(record),
            "tracesock.audit.sequence": sequence,
            "tracesock.audit.chain.hash": NO_HASH,
        }
    )
    return {
        "resourceLogs": [
            {
                "resource": {"attributes": _key_values(_resource())},
                "schemaUrl": SCHEMA_URL,
                "scopeLogs": [
                    {"scope": {"name": "tracesock", "version": VERSION}, "logRecords": [log]}
                ],
            }
        ]
    }


FORMATS: Final[dict[str, Callable[[Record, int], dict[str, Any]]]] = {
    "jsonl": jsonl,
    "ocsf": ocsf,
    "ecs": ecs,
    "otlp": otlp,
}


# One encoder for all: json.dumps() makes one for each call.
_encode: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True).encode


def to_line(form: Callable[[Record, int], dict[str, Any]], record: Record, sequence: int) -> str:
    """The record as a line of ASCII without its end, the hash still zeros."""
    return _encode(form(record, sequence))


def format_of(line: str | bytes) -> str:
    """The name of a line's format; raises ValueError."""
    parsed = json.loads(line)
    for mark, name in (("resourceLogs", "otlp"), ("class_uid", "ocsf"), ("@timestamp", "ecs")):
        if mark in parsed:
            return name
    own_fields(line)
    return "jsonl"


def own_fields(line: str | bytes) -> dict[str, Any]:
    """tracesock's own form of a line in any of the formats; raises ValueError."""
    parsed = json.loads(line)
    try:
        if "resourceLogs" in parsed:
            log = parsed["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]
            parsed = _plain(log["body"])
        elif "class_uid" in parsed:
            parsed = parsed["unmapped"]["tracesock"]
        elif "@timestamp" in parsed:
            parsed = parsed["tracesock"]
        if not isinstance(parsed["seq"], int) or not isinstance(parsed["event"], str):
            raise TypeError
    except (KeyError, TypeError, IndexError, AttributeError):
        raise ValueError("not a record of the audit") from None
    return dict(parsed)
