"""`tracesock audit verify --textfile`: the verification as metrics."""

from __future__ import annotations

import os
import platform
import re
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tracesock as socket
from tracesock import audit


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "audit.jsonl"
    audit.open_log(path)
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            for _ in range(3):
                socket.create_connection(server.getsockname()).close()
    finally:
        audit.close()
    return path


def verify(log: Path, textfile: Path, *more: str) -> int:
    command = [sys.executable, "-m", "tracesock", "audit", "verify", str(log)]
    command += ["--textfile", str(textfile), *more]
    environment = {**os.environ, "OTEL_SERVICE_NAME": "shop"}
    return subprocess.run(command, env=environment, capture_output=True, timeout=60).returncode


def metrics(path: Path) -> dict[str, tuple[str, float]]:
    """(labels, value) of each metric by the end of its name."""
    found = re.findall(r"^tracesock_audit_log_(\w+){(.*)} (\S+)$", path.read_text(), re.M)
    return {name: (labels, float(value)) for name, labels, value in found}


def test_an_intact_log_and_a_changed_one(log: Path, tmp_path: Path) -> None:
    told = tmp_path / "audit.prom"
    before = time.time() - 1
    assert verify(log, told) == 0
    own = metrics(told)
    labels = f'job="shop",instance="{platform.node()}",log="audit.jsonl"'
    assert {each for each, _ in own.values()} == {labels}
    assert own["intact"][1] == 1
    assert own["problems"][1] == 0
    assert own["records"][1] == len(log.read_text().splitlines())
    assert before <= own["verified_timestamp_seconds"][1] <= time.time() + 1
    assert stat.S_IMODE(told.stat().st_mode) == 0o644
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".tracesock")] == []

    log.write_text(log.read_text().replace('"port":', '"port": ', 1))
    assert verify(log, told, "--service-name", "other") == 1
    own = metrics(told)
    assert own["intact"][1] == 0
    assert own["problems"][1] >= 1
    assert own["intact"][0].startswith('job="other",')


def test_a_log_that_cannot_be_read_leaves_the_file(log: Path, tmp_path: Path) -> None:
    told = tmp_path / "audit.prom"
    assert verify(log, told) == 0
    before = told.read_text()
    assert verify(tmp_path / "nowhere.jsonl", told) == 2
    assert told.read_text() == before


def test_a_place_that_cannot_be_written_is_an_error(log: Path, tmp_path: Path) -> None:
    assert verify(log, tmp_path / "missing" / "audit.prom") == 1


def test_labels_are_quoted(log: Path, tmp_path: Path) -> None:
    told = tmp_path / "audit.prom"
    assert verify(log, told, "--service-name", 'a"b\\c\nd') == 0
    (line,) = (line for line in told.read_text().splitlines() if "intact{" in line)
    assert line.startswith('tracesock_audit_log_intact{job="a\\"b')
    assert line.endswith("} 1")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool: apt install prometheus")
def test_promtool_finds_nothing_wrong(log: Path, tmp_path: Path) -> None:
    told = tmp_path / "audit.prom"
    assert verify(log, told, "--service-name", 'a"b\\c') == 0
    done = subprocess.run(
        ["promtool", "check", "metrics"],
        input=told.read_text(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
