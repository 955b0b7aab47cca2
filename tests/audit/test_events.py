"""The documented events: stock's, argument by argument, on every Python of this machine."""

from __future__ import annotations

import glob
import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tracesock.audit import catalogue, page

from .conftest import child_environment

WORKLOAD = Path(__file__).with_name("events_workload.py")
VERSIONS = ("3.11", "3.12", "3.13", "3.14")


@cache
def interpreter(version: str) -> str | None:
    """A Python of this version: this one, in PATH, or of pyenv."""
    if "{}.{}".format(*sys.version_info) == version:
        return sys.executable
    pyenv = os.environ.get("PYENV_ROOT", os.path.expanduser("~/.pyenv"))
    for found in (
        *glob.glob(f"{pyenv}/versions/{version}.*/bin/python3"),
        shutil.which(f"python{version}"),
    ):
        if found is None:
            continue
        asked = [found, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=60)
        if done.returncode == 0 and done.stdout.strip() == version:
            return found
    return None


def workload(python: str, kind: str) -> list[Any]:
    done = subprocess.run(
        [python, "-W", "ignore", str(WORKLOAD), kind],
        env=child_environment(),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    stream: list[Any] = json.loads(done.stdout)
    return stream


@pytest.mark.parametrize("version", VERSIONS)
def test_the_stream_is_stocks(version: str) -> None:
    python = interpreter(version)
    if python is None:
        pytest.skip(f"no Python {version} here: install it, then `make native PYTHON=...`")
    has_module = [python, "-c", "import tracesock"]
    if subprocess.run(has_module, env=child_environment(), capture_output=True).returncode:
        pytest.skip(f"no extension for it: `make native PYTHON={python}`")
    stock = workload(python, "stock")
    assert {entry[0] for entry in stock} >= set(catalogue.DOCUMENTED_NAMES)
    for kind in ("tracesock", "installed"):
        ours = workload(python, kind)
        for index, (expected, got) in enumerate(zip(stock, ours, strict=False)):
            assert got == expected, (kind, stock[max(0, index - 3) : index])
        assert len(ours) == len(stock)


def test_the_catalogue_has_every_event_and_no_other() -> None:
    """The names that the extension filters by, that the page lists, and that a workload raises."""
    from tracesock import _native

    assert set(catalogue.DOCUMENTED_NAMES) == set(_native.audit.EVENTS)
    assert len(catalogue.DOCUMENTED_NAMES) == 13
    raised = [entry for entry in workload(sys.executable, "tracesock") if entry[0][:7] == "socket."]
    arguments = {event.name: len(event.arguments) for event in catalogue.DOCUMENTED}
    assert {name for name, _ in raised} == set(arguments)
    for name, args in raised:
        assert len(args) == arguments[name], name


def test_the_page_is_made_of_the_catalogue() -> None:
    if not page.PAGE.exists():
        pytest.skip("the documentation is not beside the package: run from a checkout")
    text = page.PAGE.read_text()
    assert page.updated(text) == text, "run `python -m tracesock.audit.page`"
