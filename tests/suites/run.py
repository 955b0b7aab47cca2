#!/usr/bin/env python3
"""Runs other people's tests on stock and under `tracesock run`, and compares test by test.

    python tests/suites/run.py                      every suite of suites.toml
    python tests/suites/run.py waitress test_ssl    these
    python tests/suites/run.py --python 3.13 redis  with this interpreter

The expectation is stock's outcome of each test. A test that differs is run again, alone, in both
modes; what still differs is an error unless differences.toml gives the reason, and a difference
there that is none any more is an error too. Exit status: 0 as it should be, 1 a difference, 2 it
could not run.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import importlib.util
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
import types
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
PROJECT = HERE.parent.parent
BUILD = PROJECT / "build" / "suites"
GOOD = ("passed", "xfailed", "xpassed")
RETRIES = 2
END = "the end of the run"  # stands among the tests where that was not reached


def _conformance() -> types.ModuleType:
    path = PROJECT / "tests" / "conformance" / "run.py"
    spec = importlib.util.spec_from_file_location("tracesock_conformance_run", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


conformance = _conformance()


class SuiteError(Exception):
    """The suite could not be run at all; the text says why."""


@dataclasses.dataclass
class Project:
    """A [[project]] of suites.toml."""

    name: str
    version: str
    needs: list[str]
    arguments: list[str]
    extras: list[str] = dataclasses.field(default_factory=list)
    services: list[str] = dataclasses.field(default_factory=list)
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    expected: dict[str, int] = dataclasses.field(default_factory=dict)
    pythons: list[str] = dataclasses.field(default_factory=lambda: ["3.11"])
    timeout: float = 900.0  # seconds for the whole suite in one mode


@dataclasses.dataclass
class Outcome:
    """What one test did: pytest's word for it, or "not run", and the text that came with it."""

    outcome: str
    text: str = ""


@dataclasses.dataclass
class Run:
    """A suite in one mode."""

    outcomes: dict[str, Outcome]
    output: str
    seconds: float

    def counts(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for item in self.outcomes.values():
            found[item.outcome] = found.get(item.outcome, 0) + 1
        return dict(sorted(found.items()))


# --- servers --------------------------------------------------------------------------------------


def free_port(wanted: int) -> int:
    """`wanted` where nothing listens there, or another."""
    try:
        socket.create_server(("127.0.0.1", wanted)).close()
        return wanted
    except OSError:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port: int = probe.getsockname()[1]
            return port


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    """Until something listens there. Raises SuiteError when the process ends or it takes 30 s."""
    limit = time.monotonic() + 30
    while time.monotonic() < limit:
        if process.poll() is not None:
            raise SuiteError(f"{process.args!r} ended with status {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise SuiteError(f"{process.args!r} does not listen on port {port}")


@contextmanager
def server(name: str) -> Iterator[int]:
    """A server of this name, whose port is yielded, while the block runs.

    On the port of its own that tests have written down, and on a free one where that is taken.
    """
    port = free_port({"redis": 6379, "memcached": 11211}[name])
    commands: dict[str, list[str]] = {
        "redis": [
            *("redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", ""),
            *("--enable-debug-command", "yes"),
        ],
        "memcached": ["memcached", "-u", "nobody", "-l", "127.0.0.1", "-p", str(port)],
    }
    packages = {"redis": "redis-server", "memcached": "memcached"}
    words = commands[name]
    if shutil.which(words[0]) is None:
        raise SuiteError(f"{words[0]} is missing (Debian: apt install {packages[name]})")
    with tempfile.TemporaryDirectory(prefix=f"suite-{name}-") as directory:
        process = subprocess.Popen(
            words, cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            wait_for(port, process)
            yield port
        finally:
            process.terminate()
            process.wait(20)


# --- projects of PyPI -----------------------------------------------------------------------------


def fetch(project: Project) -> pathlib.Path:
    """The project's source distribution, unpacked."""
    target = BUILD / "source" / f"{project.name}-{project.version}"
    # Where pytest ends its search for settings: this project's are not meant for others' tests.
    (_made(target.parent) / "pytest.ini").touch()
    if target.exists():
        return target
    with tempfile.TemporaryDirectory(prefix="suite-sdist-", dir=_made(BUILD)) as name:
        directory = pathlib.Path(name)
        words = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        words += ["--disable-pip-version-check", "--no-binary", project.name, "--dest", name]
        _call([*words, f"{project.name}=={project.version}"], f"cannot fetch {project.name}")
        (archive,) = directory.glob("*.tar.gz")
        with tarfile.open(archive) as file:
            file.extractall(directory / "unpacked", filter="data")
        (root,) = (directory / "unpacked").iterdir()
        root.rename(target)
    return target


def environment_of(project: Project, python: str, source: pathlib.Path) -> pathlib.Path:
    """The interpreter of a virtual environment with the project and what its tests need."""
    wanted = json.dumps([project.version, project.needs, project.extras], sort_keys=True)
    version = conformance.ask_interpreter(python, "support").python
    directory = BUILD / "venv" / f"{project.name}-{project.version}-{version}"
    stamp = directory / "suite-stamp"
    interpreter = directory / "bin" / "python"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return interpreter
    shutil.rmtree(directory, ignore_errors=True)
    _call([python, "-m", "venv", str(directory)], f"cannot make {directory}")
    extras = f"[{','.join(project.extras)}]" if project.extras else ""
    words = [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _call([*words, f"{source}{extras}", *project.needs], f"cannot install {project.name}'s needs")
    stamp.write_text(wanted, encoding="utf-8")
    return interpreter


def _made(directory: pathlib.Path) -> pathlib.Path:
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def _call(words: list[str], problem: str) -> None:
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise SuiteError(f"{problem}:\n{done.stdout[-3000:]}")


def run_project(
    project: Project,
    interpreter: pathlib.Path,
    source: pathlib.Path,
    mode: str,
    ports: dict[str, int],
    tests: list[str] | None = None,
) -> Run:
    """Runs the suite in one mode, "stock" or "tracesock"; or only `tests`."""
    arguments = [word.format(**ports) if ports else word for word in project.arguments]
    if tests is not None:
        arguments = [word for word in arguments if not (source / word).exists()] + tests
    words = [str(interpreter), "-m", "pytest", "--rootdir", str(source), "-p", "suite_outcomes"]
    words += arguments
    if mode == "tracesock":
        words = [sys.executable, "-m", "tracesock", "run", *words]
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="suite-run-") as name:
        events = pathlib.Path(name) / "events"
        events.touch()
        environment = conformance.clean_environment() | project.environment
        environment |= {"SUITE_OUTCOMES": str(events), "PYTHONPATH": str(HERE), "TMPDIR": name}
        environment["OTEL_SDK_DISABLED"] = "true"
        if mode == "tracesock":
            environment["PYTHONPATH"] += f"{os.pathsep}{PROJECT}"
        with (pathlib.Path(name) / "output").open("w+b") as output:
            process = subprocess.Popen(
                words,
                cwd=source,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                process.wait(project.timeout)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGABRT)
            finally:
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                try:
                    os.killpg(process.pid, signal.SIGKILL)
                except (ProcessLookupError, PermissionError):
                    pass
                process.wait()
            output.seek(0)
            text = output.read().decode(errors="replace")
        return read_events(events, mode, text, time.monotonic() - started)


def read_events(path: pathlib.Path, mode: str, output: str, seconds: float) -> Run:
    """What suite_outcomes.py wrote. Raises SuiteError where the mode was not in force."""
    outcomes: dict[str, Outcome] = {}
    in_place = finished = False
    for line in path.read_text(encoding="utf-8").splitlines():
        record: dict[str, Any] = json.loads(line)
        if "socket" in record:
            in_place = (record["socket"] == "tracesock") == (mode == "tracesock")
        elif "finished" in record:
            finished = True
        else:
            outcome = record["outcome"].replace("started", "not run")
            outcomes[record["test"]] = Outcome(outcome, record.get("text", ""))
    if not in_place:
        raise SuiteError(f"the tests did not run on {mode}:\n{output[-3000:]}")
    if not outcomes:
        raise SuiteError(f"there are no tests:\n{output[-3000:]}")
    if not finished:
        outcomes[END] = Outcome("not run", output[-3000:])
    return Run(outcomes, output, seconds)


# --- comparing ------------------------------------------------------------------------------------


def read_differences(path: pathlib.Path) -> dict[str, dict[str, str]]:
    """differences.toml: by suite and test, the reason. Raises SuiteError naming what is wrong."""
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8")).get("difference", [])
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise SuiteError(f"{path}: {error}") from error
    found: dict[str, dict[str, str]] = {}
    for entry in entries:
        if set(entry) != {"suite", "test", "reason"} or not entry["reason"].strip():
            raise SuiteError(f"{path}: an entry has suite, test and a reason, not {entry!r}")
        found.setdefault(entry["suite"], {})[entry["test"]] = entry["reason"]
    return found


def compare(
    stock: Run, traced: Run, reasons: dict[str, str], again: Callable[[str, str], Outcome]
) -> tuple[list[str], list[str]]:
    """(errors, remarks), test by test; again(mode, test) runs one test alone."""
    errors, remarks = [], []
    missing = Outcome("missing")
    for test in {**stock.outcomes, **traced.outcomes}:
        before, after = stock.outcomes.get(test, missing), traced.outcomes.get(test, missing)
        if before.outcome == after.outcome:
            if test in reasons:
                errors.append(f"{test}: no difference any more: take it off the list")
            continue
        step = f"{test}  [{before.outcome} -> {after.outcome}]"
        if test in reasons:
            remarks.append(f"{step}  {reasons[test]}")
            continue
        if after.outcome in GOOD and before.outcome not in GOOD:
            remarks.append(f"{step}  on stock: {before.text.strip()[-300:]}")
            continue
        text = after.text
        on_stock = {before.outcome}
        for _ in range(RETRIES):
            alone = again("tracesock", test)
            on_stock.add(again("stock", test).outcome)
            if alone.outcome in on_stock and alone.outcome != "not run":
                remarks.append(f"{step}  flaky: {alone.outcome} when run alone, as on stock")
                break
            text = alone.text or text
        else:
            errors.append(f"{step}\n{text}")
    return errors, remarks


def show(text: str, limit: int = 60) -> str:
    lines = text.rstrip().splitlines()
    if len(lines) > limit:
        lines = [*lines[:5], "...", *lines[-limit:]]
    return "\n".join(f"      {line}" for line in lines)


def report(name: str, errors: list[str], remarks: list[str]) -> bool:
    for title, entries in (("remark", remarks), ("DIFFERENCE", errors)):
        for entry in entries:
            print(f"    {title}: {show(entry).strip()}")
    print(f"  {name}: {'as on stock' if not errors else 'NOT as on stock'}", flush=True)
    return not errors


def do_project(project: Project, python: str, reasons: dict[str, str], refresh: bool) -> bool:
    """Runs a project's tests in both modes; whether they did the same."""
    print(f"{project.name} {project.version}, {python}", flush=True)
    source = fetch(project)
    interpreter = environment_of(project, python, source)
    with ExitStack() as stack:
        ports = {name: stack.enter_context(server(name)) for name in project.services}
        stock = stock_run(project, interpreter, source, ports, refresh)
        print(f"  stock:     {_counts(stock)}", flush=True)
        if END in stock.outcomes:
            raise SuiteError(f"stock did not reach the end:\n{stock.outcomes[END].text}")
        if project.expected:
            counts = stock.counts()
            for outcome, number in project.expected.items():
                if counts.get(outcome, 0) != number:
                    print(f"  stock was to give {number} {outcome}, gave {counts.get(outcome, 0)}")
        traced = run_project(project, interpreter, source, "tracesock", ports)
        print(f"  tracesock: {_counts(traced)}", flush=True)

        def again(mode: str, test: str) -> Outcome:
            run = run_project(project, interpreter, source, mode, ports, [test])
            return run.outcomes.get(test) or Outcome("not run", run.output[-3000:])

        errors, remarks = compare(stock, traced, reasons, again)
    return report(project.name, errors, remarks)


def _counts(run: Run) -> str:
    text = ", ".join(f"{number} {outcome}" for outcome, number in run.counts().items())
    return f"{text or 'no tests'}  ({run.seconds:.0f} s)"


def stock_run(
    project: Project,
    interpreter: pathlib.Path,
    source: pathlib.Path,
    ports: dict[str, int],
    refresh: bool,
) -> Run:
    """Stock's outcomes, from the cache unless the suite has changed."""
    stamp = (interpreter.parent.parent / "suite-stamp").read_text(encoding="utf-8")
    # The last word stands for how tests are named: by their paths below --rootdir.
    parts = [dataclasses.asdict(project), stamp, str(interpreter), os.uname().release, "rootdir"]
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
    path = BUILD / f"stock-{project.name}-{key}.json"
    if path.exists() and not refresh:
        kept = json.loads(path.read_text(encoding="utf-8"))
        outcomes = {test: Outcome(**fields) for test, fields in kept["outcomes"].items()}
        return Run(outcomes, "", kept["seconds"])
    run = run_project(project, interpreter, source, "stock", ports)
    outcomes_now = {test: dataclasses.asdict(item) for test, item in run.outcomes.items()}
    document = {"outcomes": outcomes_now, "seconds": run.seconds}
    path.write_text(json.dumps(document), encoding="utf-8")
    return run


def do_cpython(
    module: str, match: list[str], use: list[str], python: str, known: pathlib.Path, refresh: bool
) -> bool:
    """Runs a module of CPython's tests in both modes; whether they did the same."""
    words = [sys.executable, str(PROJECT / "tests" / "conformance" / "run.py"), "--how", "run"]
    words += ["--python", python, "--module", module, "--known", str(known)]
    words += ["--total-timeout", "1800"]
    if not refresh:
        words += ["--stock-cache", str(_made(BUILD))]
    for pattern in match:
        words += ["--match", pattern]
    for resource in use:
        words += ["--use", resource]
    return subprocess.run(words).returncode == 0


# --- the command ----------------------------------------------------------------------------------


def parse(arguments: list[str] | None) -> argparse.Namespace:
    text = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(description=text)
    add = parser.add_argument
    add("suite", nargs="*", help="names of suites.toml; all without one")
    add("--python", action="append", default=[], metavar="VERSION", help="only these, as 3.13")
    add("--refresh", action="store_true", help="run stock again, too")
    add("--suites", type=pathlib.Path, default=HERE / "suites.toml", metavar="FILE")
    add("--differences", type=pathlib.Path, default=HERE / "differences.toml", metavar="FILE")
    add("--list", action="store_true", help="show the names; end")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    options = parse(arguments)
    document = tomllib.loads(options.suites.read_text(encoding="utf-8"))
    projects = {entry["name"]: Project(**entry) for entry in document.get("project", [])}
    modules = {
        entry["module"]: (entry.get("match", []), entry.get("use", []))
        for entry in document.get("cpython", [])
    }
    if options.list:
        print(*modules, *projects, sep="\n")
        return 0
    unknown = [name for name in options.suite if name not in {**projects, **modules}]
    if unknown:
        print(f"run.py: no such suite: {unknown[0]} (--list shows them)", file=sys.stderr)
        return 2
    failed = []
    try:
        differences = read_differences(options.differences)
        interpreters = conformance.find_interpreters("test_ssl")
        known = HERE / "cpython.toml"
        for module, (match, use) in modules.items():
            if options.suite and module not in options.suite:
                continue
            for version in options.python or document["pythons"]:
                having = conformance.find_interpreters(module)
                if version not in having:
                    # The installation of 3.11 and 3.12 forgets the tests that became packages.
                    print(f"{module}: no Python {version} here has these tests: left out")
                    continue
                python = having[version].executable
                if not do_cpython(module, match, use, python, known, options.refresh):
                    failed.append(f"{module} on {version}")
        for name, project in projects.items():
            for version in project.pythons:
                if options.suite and name not in options.suite:
                    continue
                if options.python and version not in options.python:
                    continue
                if version not in interpreters:
                    print(f"{name}: no Python {version} here: left out")
                    continue
                python = interpreters[version].executable
                if not do_project(project, python, differences.get(name, {}), options.refresh):
                    failed.append(f"{name} on {version}")
    except (SuiteError, conformance.RunError) as error:
        print(f"run.py: {error}", file=sys.stderr)
        return 2
    print(f"NOT as on stock: {', '.join(failed)}" if failed else "all as on stock")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
