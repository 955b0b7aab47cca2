"""The examples run as they stand, and show what they promise."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys

import pytest

PROJECT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLES = PROJECT / "docs" / "examples"
_MISSING = 77  # the exit status of an example that lacks something


def run(name: str) -> str:
    """What an example writes. Skips with its own words where it lacks something."""
    environment = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("OTEL_", "PYTHON", "TRACESOCK_"))
    }
    done = subprocess.run(
        [sys.executable, EXAMPLES / name / "run.py"],
        env=environment | {"PYTHONPATH": str(PROJECT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=110,
    )
    if done.returncode == _MISSING:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


def waterfalls(output: str) -> dict[str, list[str]]:
    """The rows below each root, by the root's name, in the order shown; roots in order, too."""
    found: dict[str, list[str]] = {}
    rows: list[str] | None = None
    lines = output.splitlines()
    for number, line in enumerate(lines):
        if re.match(r"\s*span\s+(service\s+)?time\s+0 to ", line):
            title = lines[number - 1].strip()
            rows = found.setdefault(title if title not in found else f"{title} ({number})", [])
        elif not line.strip():
            rows = None
        elif rows is not None:
            rows.append(line.rstrip())
    return found


def test_every_example_is_tested() -> None:
    directories = {path.parent.name for path in EXAMPLES.glob("*/run.py")}
    assert directories == {"fastapi", "gunicorn", "tls_client"}
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert all(f"[{name}]({name})" in page for name in directories)


def test_fastapi() -> None:
    output = run("fastapi")
    assert output.count("{'item': 'lamp', 'price': 1995, 'stock': 3}") == 2
    first, second = waterfalls(output).values()
    for rows in (first, second):
        text = "\n".join(rows)
        assert re.match(r"\s*GET /items/\{item\}\s+shop ", text), text
        # The other service's part, below this one's request.
        assert re.search(r"^\s+GET /stock/\{item\}\s+stock ", text, re.MULTILINE), text
        assert re.search(r"^\s+socket send .*\bshop ", text, re.MULTILINE), text
    # Only the first request connects: to Redis, PostgreSQL and the other service, by name.
    text = "\n".join(first)
    assert len(re.findall(r"DNS lookup localhost", text)) >= 3, text
    assert len(re.findall(r"socket connect 127\.0\.0\.1:\d+", text)) >= 3, text
    assert "socket connect" not in "\n".join(second)


def test_gunicorn() -> None:
    output = run("gunicorn")
    visitors = re.findall(r"Good day, you are visitor (\d) from (\d+)", output)
    assert [number for number, _ in visitors] == ["1", "2", "3", "4"]
    traces = waterfalls(output)
    assert len(traces) == 4, output
    for rows in traces.values():
        text = "\n".join(rows)
        assert re.match(r"\s*GET /", text), text
        assert "DNS lookup localhost" in text
        assert re.search(r"socket connect 127\.0\.0\.1:\d+", text), text
        assert text.count("socket send 127.0.0.1:") >= 2, text  # to Redis and to the other service


def test_tls_client() -> None:
    traces = waterfalls(run("tls_client"))
    assert list(traces) == [
        f"{client}, request {number}" for client in ("urllib3", "requests") for number in (1, 2)
    ]
    for name, rows in traces.items():
        text = "\n".join(rows)
        first = name.endswith("request 1")
        for part in ("DNS lookup localhost", "socket connect 127.0.0.1:", "TLS client handshake"):
            assert (part in text) == first, text
        assert "socket send 127.0.0.1:" in text
        assert ("TLS 1.3, TLS_AES_" in text) == first, text
