"""CPython's own test_socket with tracesock in its place, on every Python that this machine has."""

from __future__ import annotations

import importlib.util
import pathlib
import subprocess
import sys
import types

import pytest

HERE = pathlib.Path(__file__).resolve().parent
PROJECT = HERE.parent.parent
BUILD = PROJECT / "build" / "conformance"


def load_runner() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("tracesock_conformance_run", HERE / "run.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


runner = load_runner()
INTERPRETERS = runner.find_interpreters()
VERSIONS = sorted({"3.11", "3.12", "3.13", "3.14", *INTERPRETERS})


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("python", VERSIONS)
def test_socket_of_cpython(python: str) -> None:
    if python not in INTERPRETERS:
        pytest.skip(
            f"no Python {python} with its test package (test.test_socket) on PATH or in pyenv: "
            "install one, for example with pyenv; for 3.14, `make test-kernel` runs it"
        )
    interpreter = INTERPRETERS[python]
    runner.build_native(interpreter)
    done = subprocess.run(
        [
            *(sys.executable, str(HERE / "run.py"), "--python", interpreter.executable),
            *("--jobs", "4", "--json", str(BUILD / f"test_socket-{python}.json")),
            *("--stock-cache", str(BUILD)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-12_000:]
