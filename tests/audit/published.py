"""The formats' published schemas.

OCSF: the schema that https://schema.ocsf.io/1.5.0 exports, which the package ocsf-json-schema holds
and makes a JSON Schema of for a class and its profiles. ECS: the npm package @elastic/ecs, where
npm can fetch it, and a table of the fields in use, written down from
https://www.elastic.co/guide/en/ecs/8.11/, which a test holds against that package.
"""

from __future__ import annotations

import ipaddress
import json
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema

OCSF_VERSION = "1.5.0"
ELASTIC_ECS = "@elastic/ecs@9.4.0"

# --- OCSF -----------------------------------------------------------------------------------------


@cache
def _ocsf_schema() -> Any:
    return OcsfJsonSchemaEmbedded(get_ocsf_schema(version=OCSF_VERSION))


@cache
def _ocsf_validator(class_uid: int, profiles: tuple[str, ...]) -> jsonschema.Draft202012Validator:
    published = _ocsf_schema()
    name = published.lookup_class_name_from_uid(class_uid=class_uid)
    schema = published.get_class_schema(class_name=name, profiles=list(profiles))
    # What has no place in the schema is named below: any attributes.
    schema["properties"]["unmapped"] = {"type": "object"}
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def check_ocsf(event: dict[str, Any]) -> None:
    """Raises jsonschema.ValidationError where an event is not as the schema wants it, and
    AssertionError for what a JSON Schema cannot say."""
    _ocsf_validator(event["class_uid"], tuple(event["metadata"]["profiles"])).validate(event)
    assert event["type_uid"] == event["class_uid"] * 100 + event["activity_id"]
    assert event["metadata"]["version"] == OCSF_VERSION
    for name in ("src_endpoint", "dst_endpoint"):
        if "ip" in event.get(name, {}):
            ipaddress.ip_address(event[name]["ip"])


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


def elastic_fields(directory: Path) -> dict[str, Any] | None:
    """The fields of the published package; None where npm is missing or cannot fetch it."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        return None
    try:
        packed = subprocess.run(
            [npm, "pack", "--silent", ELASTIC_ECS],
            cwd=directory,
            capture_output=True,
            text=True,
            timeout=90,
        )
    except subprocess.TimeoutExpired:
        return None
    if packed.returncode:
        return None
    shutil.unpack_archive(directory / packed.stdout.split()[-1], directory, filter="data")
    script = "console.log(JSON.stringify(require('./package/generated/ecs_flat.js').EcsFlat))"
    done = subprocess.run(
        [node, "-e", script], cwd=directory, capture_output=True, text=True, check=True, timeout=60
    )
    fields: dict[str, Any] = json.loads(done.stdout)
    return fields


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
