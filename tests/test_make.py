"""`make demo` and `make test` on a machine that lacks something, and a second time."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
COMMANDS = ("demo", "test")
# What the Makefile and an environment's Python call, but no compiler and no Python.
TOOLS = ("make", "sh", "env", "find", "grep", "sed", "expand", "touch", "rm", "cp", "cat")

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="no make: apt install make")


class Machine:
    """Directories that stand for a machine: its commands, and a project to call make in."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.bin = directory / "bin"
        self.bin.mkdir()
        self.directory = directory
        self.project = directory / "project"
        self.project.mkdir()
        for name in ("Makefile", "pyproject.toml", "CMakeLists.txt"):
            shutil.copy(ROOT / name, self.project)
        for name in ("ext", "tracesock"):
            (self.project / name).mkdir()
            (self.project / name / "source").write_text("")
        for tool in TOOLS:
            self.link(tool, shutil.which(tool))

    def link(self, name: str, target: str | pathlib.Path | None) -> None:
        if target is not None:
            (self.bin / name).symlink_to(target)

    def script(self, name: str, text: str) -> None:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def compiler(self) -> None:
        self.link("c++", shutil.which("c++") or shutil.which("g++") or shutil.which("clang++"))

    def python(self, without: str = "") -> None:
        """This Python as python3, without its headers, or without a module of its library."""
        version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        home = self.directory / "home"
        (home / "lib" / version).mkdir(parents=True)
        for entry in pathlib.Path(sysconfig.get_path("stdlib")).iterdir():
            if entry.name != without:
                (home / "lib" / version / entry.name).symlink_to(entry)
        if without != "headers":
            include = pathlib.Path(sysconfig.get_path("include"))
            (home / "include").mkdir()
            (home / "include" / include.name).symlink_to(include)
        real = os.path.realpath(sys.executable)
        self.script("python3", f'PYTHONHOME="{home}" exec "{real}" "$@"')

    def make(self, *words: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": str(self.bin), "HOME": str(self.directory), "LC_ALL": "C"}
        return subprocess.run(
            [self.bin / "make", *words],
            cwd=self.project,
            env=environment,
            capture_output=True,
            text=True,
            timeout=100,
        )

    def refusal(self, *words: str) -> str:
        """The one line that make says before it gives up, having made nothing."""
        done = self.make(*words)
        assert done.returncode == 2, done.stdout + done.stderr
        assert not (self.project / ".venv").exists()
        line, ending = done.stderr.splitlines()
        assert ending.startswith("make: *** [Makefile:")
        assert line.startswith("tracesock: ")
        assert done.stdout == ""
        return line


@pytest.fixture
def machine(tmp_path: pathlib.Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize("command", COMMANDS)
def test_without_python(machine: Machine, command: str) -> None:
    machine.compiler()
    assert "'python3' is missing: install Python 3.11 or later" in machine.refusal(command)
    assert "'python3.99' is missing" in machine.refusal(command, "PYTHON=python3.99")


@pytest.mark.parametrize("command", COMMANDS)
def test_without_a_compiler(machine: Machine, command: str) -> None:
    machine.python()
    line = machine.refusal(command)
    assert line == "tracesock: a C++20 compiler is missing: install one (Debian: apt install g++)"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_compiler_that_is_named_but_missing(machine: Machine, command: str) -> None:
    machine.python()
    machine.compiler()
    assert "'no-such-c++', which CXX names, is missing" in machine.refusal(
        command, "CXX=no-such-c++"
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_a_compiler_too_old(machine: Machine, command: str) -> None:
    machine.python()
    machine.script("c++", 'echo "error: invalid value c++20" >&2; exit 1')
    assert "'c++' does not compile C++20: install a newer one" in machine.refusal(command)


@pytest.mark.parametrize("command", COMMANDS)
def test_without_the_headers(machine: Machine, command: str) -> None:
    machine.compiler()
    machine.python(without="headers")
    line = machine.refusal(command)
    assert "the Python headers (Python.h) of 'python3' are missing" in line
    assert "apt install python3-dev" in line


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("module", ["venv", "ensurepip"])
def test_without_venv(machine: Machine, command: str, module: str) -> None:
    machine.compiler()
    machine.python(without=module)
    line = machine.refusal(command)
    assert "the venv module of 'python3' is missing" in line
    assert "apt install python3-venv" in line


OLDER = [
    found
    for name in ("3.6", "3.7", "3.8", "3.9", "3.10")
    for found in (
        shutil.which(f"python{name}"),
        *pathlib.Path.home().glob(f".pyenv/versions/{name}.*/bin/python3"),
    )
    if found is not None and ".pyenv/shims" not in str(found)
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_python_too_old(machine: Machine, command: str) -> None:
    if not OLDER:
        pytest.skip("no Python older than 3.11 on PATH or in pyenv: install one")
    machine.compiler()
    machine.link("python3", OLDER[0])
    assert "'python3' is older than 3.11: name a newer one" in machine.refusal(command)


def date(path: pathlib.Path, seconds_ago: float) -> None:
    when = time.time() - seconds_ago
    os.utime(path, (when, when))


def built(machine: Machine) -> None:
    """The project as it stands after `make test`: made of stamps, since nothing is run here."""
    machine.python()
    machine.compiler()
    for path in machine.project.rglob("*"):
        date(path, 100)
    (machine.project / ".venv").mkdir()
    for number, stamp in enumerate((".dependencies", ".development", ".installed")):
        path = machine.project / ".venv" / stamp
        path.touch()
        date(path, 80 - number)


def planned(machine: Machine, command: str) -> str:
    done = machine.make("-n", command, "ARGS=--once")
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.rpartition("exit 1; }\n")[2]  # after what looks for the tools


@pytest.mark.parametrize("command", COMMANDS)
def test_a_second_time_nothing_is_built(machine: Machine, command: str) -> None:
    built(machine)
    last = {"demo": "tracesock demo --once", "test": "python -m pytest --once"}[command]
    assert planned(machine, command) == f".venv/bin/{last}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_what_has_changed_is_built_again(machine: Machine, command: str) -> None:
    built(machine)
    date(machine.project / "ext" / "source", 50)
    words = planned(machine, command)
    assert words.count("pip install") == 1 and "--no-deps --force-reinstall ." in words
    date(machine.project / "pyproject.toml", 50)
    words = planned(machine, command)
    assert words.count("pip install") == {"demo": 2, "test": 3}[command]
