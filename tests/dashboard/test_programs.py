"""Real programs and the demo, under `tracesock run`, in a real dashboard."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tracesock.dashboard.format import number
from tracesock.dashboard.queries import Queries
from tracesock.dashboard.rows import Filter

from .serving import Served, wait_until

ROOT = Path(__file__).parents[2]
# Long enough for a machine with much else to do.
PATIENCE = 120.0

PROGRAM = """
import socket, sys

server = socket.create_server(("127.0.0.1", 0))
address = server.getsockname()
client = socket.create_connection(("localhost", address[1]))
accepted, _ = server.accept()
client.sendall(b"x" * 1000)
accepted.recv(1000)
try:
    socket.create_connection(("169.254.169.254", 80), timeout=1)
except OSError as error:
    print("refused", type(error).__name__, flush=True)
print(address[1], flush=True)
sys.stdin.read()
"""

POLICY = """
mode = "enforce"
default = "allow"

[[rule]]
id = "metadata"
action = "deny"
cidr = ["169.254.169.254"]
"""


def environment(**added: str) -> dict[str, str]:
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "TRACESOCK_"))}
    return {**plain, "PYTHONPATH": str(ROOT), **added}


def test_a_program_fills_the_screens(served: Served, tmp_path: Path) -> None:
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    ephemeral_ports = high - low + 1
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "egress.toml").write_text(POLICY)
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "tracesock", "run"),
            *("--policy", str(tmp_path / "egress.toml"), str(tmp_path / "program.py")),
        ],
        env=environment(
            OTEL_SERVICE_NAME="probe",
            OTEL_EXPORTER_OTLP_ENDPOINT=served.url,
            OTEL_LOGS_EXPORTER="otlp",
            OTEL_METRIC_EXPORT_INTERVAL="1000",
            OTEL_BLRP_SCHEDULE_DELAY="200",
            TRACESOCK_AUDIT_OTEL="1",
            TRACESOCK_SNAPSHOT_INTERVAL="0.5",
        ),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "refused PermissionError\n"
        port = int(process.stdout.readline())

        def connections() -> list[dict[str, Any]]:
            document = json.loads(served.get("/api/connections?service=probe")[2])
            return [c for c in document["connections"] if c["direction"] == "outbound"]

        # The first snapshot may be of a moment before the bytes were sent.
        (found,) = wait_until(lambda: [c for c in connections() if c["sent"]], PATIENCE)
        assert (found["peer"], found["host"]) == (f"127.0.0.1:{port}", "localhost")
        assert found["state"] == "established"
        assert found["sent"] == 1000
        assert found["rtt"] > 0
        assert found["pid"] == process.pid

        def decided() -> Any:
            with served.dashboard.store.read() as db:
                queries = Queries(db)
                return queries.audit(Filter()).counts.get("deny") and queries.chains()

        chains = wait_until(decided, PATIENCE)
        assert chains
        assert chains[0].intact
        assert "metadata" in served.get("/audit?action=deny")[2]
        shown = (f"of {number(ephemeral_ports)}", f"127.0.0.1:{port}")
        assert wait_until(lambda: all(each in served.get("/health")[2] for each in shown), PATIENCE)
        # What has ended is told as gone, not as open.
        process.stdin.close()
        assert process.wait(PATIENCE) == 0
        assert wait_until(lambda: not connections(), PATIENCE)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.slow
def test_the_demo_is_in_its_dashboard_and_leaves_nothing(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tracesock", "demo"],
        env=environment(TMPDIR=str(tmp_path)) | {"DISPLAY": "", "WAYLAND_DISPLAY": ""},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        address = ""
        for line in process.stdout:
            if line.startswith("Dashboard:"):
                address = line.split()[1].rstrip("/")
            if line.startswith("Traffic:"):
                break
        assert address.startswith("http://127.0.0.1:")

        def fetch(path: str) -> str:
            with urllib.request.urlopen(address + path, timeout=30) as answer:
                return str(answer.read().decode())

        services = {"checkout", "catalog", "payments"}
        assert wait_until(
            lambda: (
                services
                <= {c["service"] for c in json.loads(fetch("/api/connections"))["connections"]}
            ),
            PATIENCE,
        )
        # One trace through all of them.
        assert wait_until(
            lambda: "tracesock-demo → catalog, checkout, payments" in fetch("/traces"), PATIENCE
        )
        assert wait_until(
            lambda: "✕" in fetch("/audit") and "✓ intact" in fetch("/audit"), PATIENCE
        )
        assert wait_until(lambda: "feed..partner.example" in fetch("/dns"), PATIENCE)
        assert "broken" not in fetch("/audit")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)
        process.stdout.close()
    assert process.returncode == 0
    assert list(tmp_path.iterdir()) == []
    left = [
        each.name
        for each in Path("/proc").iterdir()
        if each.name.isdigit() and str(tmp_path).encode() in _command(each)
    ]
    assert left == []


def _command(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""
