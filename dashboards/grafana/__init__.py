"""Grafana's dashboards, made with grafana-foundation-sdk and rendered to json/."""

from __future__ import annotations

import json

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from dashboards.grafana import audit, dns, health, overview, peer

BOARDS = {
    "overview.json": overview.make,
    "peer.json": peer.make,
    "dns.json": dns.make,
    "audit.json": audit.make,
    "health.json": health.make,
}


def render() -> dict[str, str]:
    """The JSON of each dashboard by the name of its file."""
    rendered = {}
    for name, make in BOARDS.items():
        made = make().build()
        for number, panel in enumerate(made.panels or (), start=1):
            panel.id_val = number
        rendered[name] = json.dumps(made, cls=JSONEncoder, indent=2, sort_keys=True) + "\n"
    return rendered
