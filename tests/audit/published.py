"""What published schemas say of the attributes that the formats use: names, types, values.

Written down from OCSF 1.5.0 (https://schema.ocsf.io/1.5.0/classes/network_activity, the objects it
names, and the profile security_control) and ECS 8.11 (https://www.elastic.co/guide/en/ecs/8.11/).
An attribute that is not here is one that the schema does not have where it stands.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any

# An attribute: its type, whether it is required, and the values of an enumeration.
# Types: int, str, bool, ip, port, hostname, json, [type], or the name of an object.
OCSF: dict[str, dict[str, tuple[Any, bool, frozenset[int] | None]]] = {
    "base_event": {
        "activity_id": (int, True, frozenset((0, 99))),
        "activity_name": (str, False, None),
        "category_uid": (int, True, frozenset((0,))),
        "class_uid": (int, True, frozenset((0,))),
        "duration": (int, False, None),
        "message": (str, False, None),
        "metadata": ("metadata", True, None),
        "severity_id": (int, True, frozenset((0, 1, 2, 3, 4, 5, 6, 99))),
        "status_detail": (str, False, None),
        "status_id": (int, False, frozenset((0, 1, 2, 99))),
        "time": (int, True, None),
        "type_uid": (int, True, None),
        "unmapped": ("json", False, None),
    },
    "security_control": {
        "action_id": (int, False, frozenset((0, 1, 2, 3, 4, 99))),
        "disposition_id": (int, False, frozenset((*range(28), 99))),
        "firewall_rule": ("firewall_rule", False, None),
        "is_alert": (bool, False, None),
    },
    "firewall_rule": {"name": (str, False, None), "uid": (str, False, None)},
    "metadata": {
        "correlation_uid": (str, False, None),
        "log_name": (str, False, None),
        "product": ("product", True, None),
        "profiles": ([str], False, None),
        "sequence": (int, False, None),
        "uid": (str, False, None),
        "version": (str, True, None),
    },
    "product": {
        "name": (str, False, None),
        "vendor_name": (str, False, None),
        "version": (str, False, None),
    },
    "network_endpoint": {
        "hostname": ("hostname", False, None),
        "ip": ("ip", False, None),
        "name": (str, False, None),
        "port": ("port", False, None),
    },
    "network_connection_info": {
        "direction_id": (int, True, frozenset((0, 1, 2, 3, 99))),
        "protocol_name": (str, False, None),
        "protocol_num": (int, False, None),
        "protocol_ver_id": (int, False, frozenset((0, 4, 6, 99))),
    },
    "network_traffic": {
        "bytes": (int, False, None),
        "bytes_in": (int, False, None),
        "bytes_out": (int, False, None),
    },
}
OCSF["network_activity"] = {
    **OCSF["base_event"],
    "activity_id": (int, True, frozenset((0, 1, 2, 3, 4, 5, 6, 7, 99))),
    "category_uid": (int, True, frozenset((4,))),
    "class_uid": (int, True, frozenset((4001,))),
    "connection_info": ("network_connection_info", False, None),
    "dst_endpoint": ("network_endpoint", False, None),
    "src_endpoint": ("network_endpoint", False, None),
    "traffic": ("network_traffic", False, None),
}
# Of these at least one must be there.
AT_LEAST_ONE = {
    "network_activity": ("dst_endpoint", "src_endpoint"),
    "network_endpoint": ("ip", "uid", "name", "hostname", "svc_name", "instance_uid"),
    "product": ("name", "uid"),
    "firewall_rule": ("name", "uid"),
}


def check_ocsf(event: dict[str, Any]) -> None:
    """Raises AssertionError where an event is not as the schema wants it."""
    kind = {0: "base_event", 4001: "network_activity"}[event["class_uid"]]
    attributes = dict(OCSF[kind])
    if "security_control" in event["metadata"]["profiles"]:
        attributes.update(OCSF["security_control"])
    _check_object(event, kind, attributes, kind)
    assert event["type_uid"] == event["class_uid"] * 100 + event["activity_id"]
    assert re.fullmatch(r"1\.5\.0", event["metadata"]["version"])


def _check_object(value: Any, kind: str, attributes: dict[str, Any], where: str) -> None:
    assert isinstance(value, dict), where
    for name, (_, required, _values) in attributes.items():
        assert not required or name in value, f"{where} has no {name}"
    if kind in AT_LEAST_ONE:
        assert any(name in value for name in AT_LEAST_ONE[kind]), where
    for name, item in value.items():
        assert name in attributes, f"{where} has no attribute {name}"
        _check_value(item, attributes[name][0], attributes[name][2], f"{where}.{name}")


def _check_value(value: Any, kind: Any, values: frozenset[int] | None, where: str) -> None:
    if isinstance(kind, list):
        assert isinstance(value, list), where
        for item in value:
            _check_value(item, kind[0], None, where)
    elif isinstance(kind, type):
        assert type(value) is kind, f"{where}: {value!r}"
    elif kind == "ip":
        ipaddress.ip_address(value)
    elif kind == "port":
        assert type(value) is int and 0 <= value <= 65535, where
    elif kind == "hostname":
        assert re.fullmatch(r"[a-z0-9_.-]{1,253}", value), where
    elif kind == "json":
        assert isinstance(value, dict), where
    else:
        _check_object(value, kind, OCSF[kind], where)
    assert values is None or value in values, f"{where}: {value!r}"


# --- ECS ------------------------------------------------------------------------------------------

ECS: dict[str, Any] = {
    "@timestamp": "date",
    "destination.address": "keyword",
    "destination.bytes": "long",
    "destination.domain": "keyword",
    "destination.ip": "ip",
    "destination.port": "long",
    "ecs.version": "keyword",
    "error.code": "keyword",
    "event.action": "keyword",
    "event.category": {"network", "configuration"},
    "event.dataset": "keyword",
    "event.duration": "long",
    "event.kind": {"alert", "asset", "enrichment", "event", "metric", "state", "signal"},
    "event.module": "keyword",
    "event.outcome": {"failure", "success", "unknown"},
    "event.provider": "keyword",
    "event.sequence": "long",
    "event.type": {
        *("access", "allowed", "change", "connection", "creation", "deletion", "denied", "end"),
        *("error", "group", "info", "installation", "protocol", "start", "user"),
    },
    "message": "match_only_text",
    "network.bytes": "long",
    "network.direction": {
        *("ingress", "egress", "inbound", "outbound", "internal", "external", "unknown"),
    },
    "network.transport": "keyword",
    "network.type": "keyword",
    "process.pid": "long",
    "process.thread.id": "long",
    "process.thread.name": "keyword",
    "rule.id": "keyword",
    "rule.name": "keyword",
    "rule.ruleset": "keyword",
    "source.address": "keyword",
    "source.bytes": "long",
    "source.domain": "keyword",
    "source.ip": "ip",
    "source.port": "long",
    "span.id": "keyword",
    "trace.id": "keyword",
}
# The types that go with a category.
ECS_TYPES = {
    "network": {"access", "allowed", "connection", "denied", "end", "info", "protocol", "start"},
    "configuration": {"access", "change", "creation", "deletion", "info"},
}
ECS_ARRAYS = ("event.category", "event.type")
ECS_REQUIRED = ("@timestamp", "ecs.version", "event.kind", "event.category", "event.type")


def check_ecs(document: dict[str, Any]) -> None:
    """Raises AssertionError where a document is not as ECS wants it.

    A field set of a name of one's own is allowed beside those of the schema.
    """
    flat: dict[str, Any] = {}

    def flatten(value: Any, path: str) -> None:
        if isinstance(value, dict):
            for name, item in value.items():
                flatten(item, f"{path}.{name}" if path else name)
        else:
            flat[path] = value

    flatten({name: value for name, value in document.items() if name != "tracesock"}, "")
    for name in ECS_REQUIRED:
        assert name in flat, name
    for name, value in flat.items():
        assert name in ECS, f"ECS has no field {name}"
        assert isinstance(value, list) == (name in ECS_ARRAYS), name
        for item in value if isinstance(value, list) else [value]:
            _check_field(name, item)
    for category in flat["event.category"]:
        assert set(flat["event.type"]) <= ECS_TYPES[category], flat["event.type"]


def _check_field(name: str, value: Any) -> None:
    kind = ECS[name]
    if isinstance(kind, set):
        assert value in kind, f"{name}: {value!r}"
    elif kind == "long":
        assert type(value) is int, name
    elif kind == "ip":
        ipaddress.ip_address(value)
    elif kind == "date":
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", value), value
    else:
        assert isinstance(value, str), name
