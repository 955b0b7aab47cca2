"""Threads without the interpreter's lock: sockets that eight of them share, with telemetry, audit
and a policy that come and go, and every one of them closing what the others use.

The work runs in a process of its own, so that a crash is a failed test and no more. A free-threaded
Python (`python3.14t`; docs/how-to/run-conformance.md says how to build for one) is what it is for;
with the lock it runs for a moment, and finds what does not hold where a call gives the lock up.
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


# Each is run on every Python. With the lock a moment shows that it works at all; without it, a long
# time has a chance to find what it is for.
PARTS = {
    "descriptors": SECONDS,
    "datagrams": SECONDS,
    "connections": SECONDS,
    "audit": SECONDS,
    "everything": SECONDS,
    "modes": SECONDS / 3,
    "streams": SECONDS / 3,
    "closings": SECONDS / 3,
    "hosts": SECONDS / 3,
}


@pytest.mark.parametrize("name", PARTS)
def test_threads_share_what_they_may(name: str) -> None:
    told = work(PARTS[name] if FREE_THREADED else 0.3, name)
    assert told["lock"] is not FREE_THREADED
    assert told["rounds"] > 0
    assert told["wrong"] == []


def test_parts_of_the_extension_that_many_threads_name_first() -> None:
    """They are bound then: nobody gets one that is not whole."""
    for _ in range(5):
        done = subprocess.run(
            [sys.executable, "-c", FIRST],
            env=os.environ | {"PYTHONPATH": str(WORK.parent.parent)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "8\n", "")


FIRST = """
import threading
from tracesock import _native

together = threading.Barrier(8)
whole = []

def name():
    together.wait()
    _native.recorder.uses_time_stamp_counter, _native.audit.FAMILIES, _native.OtlpEncoder().take
    whole.append(_native.recorder is _native.recorder)

threads = [threading.Thread(target=name) for _ in range(8)]
for each in threads:
    each.start()
for each in threads:
    each.join()
print(sum(whole))
"""
