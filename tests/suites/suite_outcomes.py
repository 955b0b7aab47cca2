"""A pytest plugin that writes each test's outcome, a JSON object a line, to $SUITE_OUTCOMES.

Standard library only, and no annotations that older pytest would trip over: it runs inside the
suites' own environments.
"""

from __future__ import annotations

import json
import os
import socket

_WORST = {"passed": 0, "xfailed": 1, "xpassed": 1, "skipped": 1, "failed": 2, "error": 3}
_pid = os.getpid()
_found = {}


def _write(record):
    if os.getpid() == _pid:  # a test may fork
        with open(os.environ["SUITE_OUTCOMES"], "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


def pytest_configure():
    _write({"socket": "tracesock" if hasattr(socket.socket, "send_many") else "_socket"})


def pytest_runtest_logstart(nodeid):
    _write({"test": nodeid, "outcome": "started"})


def pytest_collectreport(report):
    if report.outcome == "failed":
        _write({"test": report.nodeid or ".", "outcome": "error", "text": str(report.longrepr)})


def pytest_runtest_logreport(report):
    outcome = report.outcome
    if hasattr(report, "wasxfail"):
        outcome = "xpassed" if outcome == "passed" else "xfailed"
    elif outcome == "failed" and report.when != "call":
        outcome = "error"
    text = "" if outcome == "passed" else str(report.longrepr)[-8000:]
    worst = _found.setdefault(report.nodeid, ("passed", ""))
    if _WORST[outcome] > _WORST[worst[0]]:
        _found[report.nodeid] = (outcome, text)
    if report.when == "teardown":
        outcome, text = _found[report.nodeid]
        _write({"test": report.nodeid, "outcome": outcome, "text": text})


def pytest_sessionfinish():
    _write({"finished": True})
