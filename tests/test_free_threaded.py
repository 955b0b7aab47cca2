"""Threads without the interpreter's lock: sockets that eight of them share, with telemetry, audit
and a policy that come and go, and every one of them closing what the others use.

Needs a free-threaded Python (`python3.14t`): docs/how-to/run-conformance.md says how to build for
one. The work runs in a process of its own, so that a crash is a failed test and no more. On any
other Python the same work runs for a moment, which shows that it works at all.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
WORK = Path(__file__).with_name("free_threaded_work.py")
SECONDS = float(os.environ.get("TRACESOCK_STRESS_SECONDS", "10"))


def work(seconds: float, *names: str) -> dict[str, Any]:
    environment = os.environ | {"PYTHONPATH": str(WORK.parent.parent), "PYTHONFAULTHANDLER": "1"}
    if FREE_THREADED:
        environment["PYTHON_GIL"] = "0"  # whatever another extension would have
    done = subprocess.run(
        [sys.executable, str(WORK), str(seconds), *names],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120 + 20 * seconds,
    )
    assert done.returncode == 0, f"status {done.returncode}\n{done.stdout}\n{done.stderr[-8000:]}"
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


@pytest.mark.skipif(
    not FREE_THREADED,
    reason="this Python has its lock: run it with a free-threaded one, python3.14t",
)
@pytest.mark.parametrize("name", ["descriptors", "datagrams", "connections", "audit", "everything"])
def test_threads_without_the_lock(name: str) -> None:
    told = work(SECONDS, name)
    assert told["lock"] is False
    assert told["rounds"] > 0
    assert told["wrong"] == []


def test_the_same_with_the_lock() -> None:
    told = work(0.5, "everything")
    assert told["rounds"] > 0
    assert told["wrong"] == []
