"""`tracesock top`: of a dashboard, of a file of OTLP JSON lines, of what it receives itself."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tracesock.cli.top import top
from tracesock.dashboard import otlp
from tracesock.dashboard.otlp import PROTOBUF, Signal

from .make import log_request, snapshot
from .serving import Served, wait_until

EVENT = "tracesock.connections.snapshot"
EVIL = "\x1b[31mevil\u202e\x07"


def invoke(*words: str, **options: Any) -> Result:
    return CliRunner().invoke(top, words, **options)


def fill(served: Served, *records: dict[str, Any]) -> None:
    assert served.post("logs", log_request(EVENT, list(records)))[0] == 200


def test_a_table_once(served: Served) -> None:
    fill(served, snapshot("1"), snapshot("2", network__peer__address=EVIL, server__address=EVIL))
    result = invoke("--dashboard", served.url, "--once")
    assert result.exit_code == 0, result.output
    assert "192.0.2.7:443" in result.output
    assert "2 open" in result.output
    assert "2.10 ms" in result.output
    assert "\x1b" not in result.output
    assert "\u202e" not in result.output
    assert "U+202E" in result.output


def test_json_is_for_programs(served: Served) -> None:
    fill(
        served,
        snapshot("1", tracesock__connection__sent=10),
        snapshot("2", tracesock__connection__sent=30, network__peer__port=80, server__port=80),
        snapshot("3", tracesock__connection__sent=20),
    )
    result = invoke("--dashboard", served.url, "--once", "--json", "--sort", "sent")
    assert result.exit_code == 0, result.output
    document = json.loads(result.output)
    assert [c["sent"] for c in document["connections"]] == [30, 20, 10]
    assert document["open"] == 3
    assert document["connections"][1]["rtt"] == pytest.approx(0.0021)
    words = ("--dashboard", served.url, "--once", "--json", "--sort", "sent", "--reverse")
    result = invoke(*words, "--peer", "api.example:443")
    assert [c["sent"] for c in json.loads(result.output)["connections"]] == [10, 20]
    assert json.loads(invoke(*words, "--filter", "nowhere").output)["connections"] == []


def test_a_dashboard_with_a_token(start: Callable[..., Served]) -> None:
    served = start(token="0123456789abcdef")
    result = invoke("--dashboard", served.url, "--once")
    assert result.exit_code == 1
    assert "TRACESOCK_DASHBOARD_TOKEN" in result.output
    words = ("--dashboard", served.url, "--once", "--json")
    assert invoke(*words, env={"TRACESOCK_DASHBOARD_TOKEN": "0123456789abcdef"}).exit_code == 0


def test_where_no_dashboard_is() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{probe.getsockname()[1]}"
        result = invoke("--dashboard", address, "--once")
    assert result.exit_code == 1
    assert address in result.output
    assert "tracesock dashboard" in result.output
    assert invoke("--dashboard", "nonsense", "--once").exit_code == 2
    assert invoke("--otlp", "x", "--listen", "4318").exit_code == 2


def test_a_stream_of_otlp(tmp_path: Path) -> None:
    request = otlp.decode(Signal.LOGS, PROTOBUF, log_request(EVENT, [snapshot("1"), snapshot("2")]))
    line = json.dumps(otlp.to_json(request))
    path = tmp_path / "otlp.jsonl"
    path.write_text(f"{line}\n\nno OTLP at all\n")
    result = invoke("--otlp", str(path), "--once", "--json")
    assert result.exit_code == 0, result.output
    assert f"{path}:3:" in result.output
    document = json.loads(next(x for x in result.output.splitlines() if x.startswith("{")))
    assert len(document["connections"]) == 2
    result = invoke("--otlp", "-", "--once", input=line)
    assert "2 open" in result.output
    assert invoke("--otlp", str(tmp_path / "none"), "--once").exit_code == 2


def test_it_receives_by_itself() -> None:
    # Held until the end: nobody else gets the port meanwhile.
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    port = held.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "tracesock", "top", "--listen", str(port), "--once", "--json"],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    )

    def send() -> bool:
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/logs",
            log_request(EVENT, [snapshot("1")]),
            {"content-type": PROTOBUF},
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    try:
        assert wait_until(send, 60)
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
        held.close()
    assert [c["peer"] for c in json.loads(out)["connections"]] == ["192.0.2.7:443"]
