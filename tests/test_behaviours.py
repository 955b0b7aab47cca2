"""The behaviours of tests/behaviours, with this interpreter and each other one that is here."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import behaviours

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the behaviours are Linux's")


def conformance() -> Any:
    spec = importlib.util.spec_from_file_location(
        "conformance_runner", ROOT / "tests" / "conformance" / "run.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # for its dataclasses
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", behaviours.collect())
def test_same_as_stock(name: str) -> None:
    _, difference = behaviours.difference(name)
    assert not difference, difference


@pytest.mark.parametrize("name", behaviours.collect())
def test_same_as_stock_in_a_subclass(name: str) -> None:
    """An instance of a subclass has the base's own state filled as well."""
    if name in behaviours.OF_THE_CLASS_ITSELF:
        pytest.skip("looks at the class itself")
    _, difference = behaviours.difference(name, subclass=True)
    assert not difference, difference


@pytest.mark.timeout(900)  # half a minute where nobody else is
@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14"])
def test_same_as_stock_of_another_interpreter(python: str) -> None:
    if python == f"{sys.version_info.major}.{sys.version_info.minor}":
        pytest.skip("this interpreter, which the other tests are run by")
    runner = conformance()
    interpreter = runner.find_interpreters().get(python)
    if interpreter is None:
        pytest.skip(f"no Python {python} on PATH or in pyenv: install one, for example with pyenv")
    runner.build_native(interpreter)
    done = subprocess.run(
        [interpreter.executable, "-m", "tests.behaviours"],
        cwd=ROOT,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    results = [json.loads(line) for line in done.stdout.splitlines()]
    differences = [
        f"{each['name']}: {each['difference']}" for each in results if each["difference"]
    ]
    assert not differences, "\n".join(differences)
    assert done.returncode == 0, done.stderr
    assert {each["name"] for each in results} == set(behaviours.collect())
