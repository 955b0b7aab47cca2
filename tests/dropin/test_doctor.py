"""`tracesock doctor` names what goes past Python's sockets."""

from __future__ import annotations

import json
import pathlib
import shutil
import subprocess
import sys
from typing import Any

import pytest
from support import AUTOLOAD, PROJECT, environment


def doctor(*words: str, path: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tracesock", "doctor", *words],
        env=environment(PYTHONPATH=f"{PROJECT}:{path}", **variables),
        capture_output=True,
        text=True,
        timeout=100,
    )


def report(*words: str, path: str = "", **variables: str) -> Any:
    done = doctor("--json", *words, path=path, **variables)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def install(
    directory: pathlib.Path, name: str, version: str, module: str = "", source: str = ""
) -> None:
    """A distribution as pip leaves it."""
    info = directory / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    if module:
        (directory / module).mkdir()
        (directory / module / "__init__.py").write_text(source)


def test_names_what_is_installed(tmp_path: pathlib.Path) -> None:
    install(tmp_path, "pycurl", "7.45.9", "pycurl", "version = 'libcurl/8.9.0'")
    install(tmp_path, "grpcio", "1.2.3", "grpc", "import os; os.abort()")
    install(tmp_path, "psycopg-binary", "3.9")
    found = {each["name"]: each for each in report(path=str(tmp_path))["libraries"]}
    assert found["libcurl"]["versions"] == {"pycurl": "7.45.9"}
    assert found["libcurl"]["native_version"] == "libcurl/8.9.0"
    assert found["gRPC core"]["versions"] == {"grpcio": "1.2.3"}
    assert found["gRPC core"]["native_version"] is None
    assert found["libpq (psycopg 3)"]["versions"] == {"psycopg-binary": "3.9"}
    without = {each["name"] for each in report()["libraries"]}
    assert set(found) - without <= {"libcurl", "gRPC core", "libpq (psycopg 3)"}
    text = doctor(path=str(tmp_path)).stdout
    assert "libcurl: pycurl 7.45.9 (library libcurl/8.9.0)" in text
    assert "not seen: all of gRPC's connections" in text


def test_the_environment() -> None:
    import tracesock

    found = report()
    assert found["tracesock"] == tracesock.__version__
    assert found["executable"] == sys.executable
    assert found["autoload"] is False
    assert found["opentelemetry"]["opentelemetry-sdk"]
    assert report(path=str(AUTOLOAD))["autoload"] is True


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's: run it there")
def test_a_running_process(tmp_path: pathlib.Path) -> None:
    import _socket

    library = tmp_path / "libcurl.so.4"
    shutil.copy(_socket.__file__, library)
    source = "import ctypes, sys, tracesock; ctypes.CDLL(sys.argv[1])\n"
    source += "print('ready', flush=True); input()"
    process = subprocess.Popen(
        [sys.executable, "-c", source, str(library)],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        found = report("--pid", str(process.pid))["process"]
        text = doctor("--pid", str(process.pid)).stdout
    finally:
        process.communicate("\n")
    assert found == {
        "pid": process.pid,
        "tracesock": True,
        "loaded": {"libcurl": [str(library)]},
        "uses_io_uring": False,
    }
    assert f"Process {process.pid} has tracesock" in text
    assert f"libcurl is loaded: {library}" in text


def test_bad_usage() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    done = doctor("--pid", str(gone.pid))
    assert done.returncode == 1
    assert done.stderr == f"Error: process {gone.pid}: No such file or directory\n"
    assert doctor("--pid", "0").returncode == 2
