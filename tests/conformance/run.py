#!/usr/bin/env python3
"""Runs a test module of CPython itself twice, on stock socket and on tracesock, and compares.

    python3 tests/conformance/run.py                          test_socket, this interpreter
    python3 tests/conformance/run.py --python python3.13 --module test_ssl
    python3 tests/conformance/run.py --match '*.BasicTCPTest.*' --mode tracesock

Each test has an outcome of its own, whatever happens: a test that hangs or crashes ends its
process, and the tests after it run in a new one. Every test that passes on stock must pass with
tracesock, except those in known_failures.toml, each with its reason; a test there that passes is
an error too. Exit status: 0 as it should be, 1 a difference, 2 it could not run.

Standard library only: it runs inside other interpreters and in the virtual machine.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import fcntl
import fnmatch
import hashlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator

HERE = pathlib.Path(__file__).resolve().parent
PROJECT = HERE.parent.parent
KNOWN_FAILURES = HERE / "known_failures.toml"

GOOD = ("pass", "xfail")
BAD = ("fail", "error", "hang", "crash", "not run")
RETRIES = 2
RETRY_LIMIT = 20  # when more tests than that fail, it is not chance
SHOWN = 30  # of one kind of finding
GRACE = 20.0  # seconds beyond a test's own timeout until the process is ended from outside
# Families whose addresses are numbers of the whole machine: their tests never run side by side.
MACHINE_WIDE = re.compile(r"CAN|ISOTP|J1939|TIPC|RDS|VSOCK|QIPCRTR|Bluetooth")

PROBE = """
import importlib.util, json, sys, sysconfig
print(json.dumps({
    "executable": sys.executable,
    "version": sys.version,
    "python": "%d.%d" % sys.version_info[:2]
              + ("t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""),
    "soabi": sysconfig.get_config_var("SOABI"),
    "has_module": importlib.util.find_spec("test") is not None
                  and importlib.util.find_spec("test." + sys.argv[1]) is not None,
}))
"""

# ThreadedVSOCKSocketStreamTest waits for ever where the kernel knows the family but moves no
# data. The module has the same steps: listen on any CID, connect to this machine's own.
VSOCK_PROBE = """
import fcntl, socket, struct, sys
try:
    listener = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    listener.bind((socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY))
    listener.listen()
    with open("/dev/vsock", "rb") as device:
        cid = struct.unpack("I", fcntl.ioctl(device, 0x7b9, b"    "))[0]
    client = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    client.settimeout(3)
    client.connect((1 if cid in (2, 0xffffffff) else cid, listener.getsockname()[1]))
    listener.settimeout(3)
    listener.accept()
except (OSError, AttributeError) as error:
    sys.exit("no vsock here: %s" % error)
"""


class RunError(Exception):
    """The run could not be made at all; the text says why."""


@dataclasses.dataclass
class Test:
    """What one test did in one mode: its outcome, the text of skip or failure, seconds."""

    outcome: str
    text: str = ""
    seconds: float = 0.0
    noise: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Interpreter:
    """A Python that was asked what it is."""

    executable: str
    version: str
    python: str  # "3.13", or "3.14t" where it runs without the GIL
    soabi: str
    has_module: bool


@dataclasses.dataclass
class Options:
    """How a mode is run; times in seconds."""

    module: str
    root: pathlib.Path
    timeout: float = 60.0
    total_timeout: float = 900.0
    jobs: int = 1
    resources: tuple[str, ...] = ()
    swap_children: bool = False
    how: str = "swap"  # or "run": as `tracesock run` starts a program


@dataclasses.dataclass
class Known:
    """An entry of known_failures.toml."""

    test: str
    python: tuple[str, ...]
    reason: str


def clean_environment() -> dict[str, str]:
    """The environment without what would change the tests' interpreter or instrument it."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "OTEL_", "TRACESOCK_"))
    }
    if "PYTHONDONTWRITEBYTECODE" in os.environ:
        kept["PYTHONDONTWRITEBYTECODE"] = "1"
    return kept | {"PYTHONHASHSEED": "0"}


def ask_interpreter(python: str, module: str = "test_socket") -> Interpreter:
    """Asks a Python who it is and whether it has the test module.

    Raises RunError if it does not start or is older than 3.11.
    """
    try:
        done = subprocess.run(
            [python, "-c", PROBE, module],
            capture_output=True,
            text=True,
            timeout=60,
            env=clean_environment(),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RunError(f"cannot run {python}: {error}") from error
    if done.returncode:
        tail = done.stderr.strip().splitlines()[:1]
        raise RunError(f"cannot run {python}: {''.join(tail)}")
    found = Interpreter(**json.loads(done.stdout))
    if tuple(int(part) for part in found.python.rstrip("t").split(".")) < (3, 11):
        raise RunError(f"{python} is Python {found.python}; 3.11 or later is needed")
    return found


def find_interpreters(module: str = "test_socket") -> dict[str, Interpreter]:
    """For each Python version from 3.11 on, the first interpreter here that has the test module.

    Looks at this one, at PATH, and at the versions that pyenv holds.
    """
    candidates = [sys.executable]
    for minor in range(11, 15):
        for suffix in ("", "t"):
            name = f"python3.{minor}{suffix}"
            candidates += [
                os.path.join(directory, name)
                for directory in os.environ.get("PATH", "").split(os.pathsep)
                if directory
            ]
    pyenv = pathlib.Path(os.environ.get("PYENV_ROOT", pathlib.Path.home() / ".pyenv"))
    candidates += sorted(map(str, pyenv.glob("versions/3.*/bin/python3")))
    found: dict[str, Interpreter] = {}
    seen = set()
    for candidate in candidates:
        real = os.path.realpath(candidate)
        if real in seen or not os.access(candidate, os.X_OK) or f"{os.sep}shims{os.sep}" in real:
            continue
        seen.add(real)
        try:
            interpreter = ask_interpreter(candidate, module)
        except RunError:
            continue
        if interpreter.has_module:
            found.setdefault(interpreter.python, interpreter)
    return dict(sorted(found.items(), key=lambda item: (len(item[0]), item[0])))


def build_native(interpreter: Interpreter) -> None:
    """Builds the extension for an interpreter unless it is newer than every source of it.

    Raises RunError with the end of what the compiler said if that fails.
    """
    built = PROJECT / "tracesock" / f"_native.{interpreter.soabi}.so"
    sources = [PROJECT / "CMakeLists.txt"]
    sources += [path for path in (PROJECT / "ext").rglob("*") if path.is_file()]
    newest = max(path.stat().st_mtime for path in sources)
    lock_path = PROJECT / "build" / "native.lock"
    lock_path.parent.mkdir(exist_ok=True)
    with lock_path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if built.exists() and built.stat().st_mtime >= newest:
            return
        print(f"building the extension for Python {interpreter.python}", flush=True)
        done = subprocess.run(
            ["make", "native", f"PYTHON={interpreter.executable}"],
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        if done.returncode or not built.exists():
            raise RunError(f"make native made no {built.name}:\n{done.stdout[-4000:]}")


def has_vsock(interpreter: Interpreter) -> bool:
    """Whether a VSOCK connection of this machine to itself works."""
    try:
        done = subprocess.run(
            [interpreter.executable, "-c", VSOCK_PROBE],
            capture_output=True,
            timeout=30,
            env=clean_environment(),
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def read_known(path: pathlib.Path) -> list[Known]:
    """Reads known_failures.toml. Raises RunError naming what is wrong with it."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise RunError(f"{path}: {error}") from error
    unknown = set(document) - {"known"}
    if unknown:
        raise RunError(f"{path}: unknown key {sorted(unknown)[0]!r}; entries are [[known]]")
    entries = []
    for entry in document.get("known", []):
        if set(entry) != {"test", "python", "reason"}:
            raise RunError(f"{path}: an entry has test, python and reason, not {sorted(entry)}")
        if not entry["reason"].strip() or not entry["python"]:
            raise RunError(f"{path}: {entry['test']}: reason and python must not be empty")
        entries.append(Known(entry["test"], tuple(entry["python"]), entry["reason"]))
    return entries


class Child:
    """One process that runs tests, and what its events said."""

    def __init__(
        self, interpreter: Interpreter, mode: str, options: Options, tests: list[str] | None
    ) -> None:
        self.interpreter, self.mode, self.options, self.tests = interpreter, mode, options, tests
        self.results: dict[str, Test] = {}
        self.fixtures: list[tuple[str, str, str]] = []
        self.noise: list[tuple[str | None, str]] = []
        self.known_tests: list[str] | None = None
        self.file: str | None = None
        self.module: Test | None = None
        self.running: str | None = None
        self.done = False
        self.exit_problem = ""

    def run(self, deadline: float) -> None:
        """Runs the process until it ends, hangs, or the deadline (time.monotonic()) passes."""
        with tempfile.TemporaryDirectory(prefix="conformance-") as name:
            directory = pathlib.Path(name)
            (directory / "cwd").mkdir()
            request = {
                "module": f"test.{self.options.module}",
                "tests": self.tests,
                "timeout": self.options.timeout,
                "resources": self.options.resources,
            }
            (directory / "request").write_text(json.dumps(request), encoding="utf-8")
            events, output = directory / "events", directory / "output"
            environment = clean_environment()
            if self.mode == "tracesock" and self.options.swap_children:
                environment["PYTHONPATH"] = str(HERE / "children")
                environment["TRACESOCK_CONFORMANCE_ROOT"] = str(self.options.root)
            mode = self.mode
            if mode == "tracesock" and self.options.how == "run":
                mode = "installed"
                autoload = self.options.root / "tracesock" / "dropin" / "autoload"
                environment |= {"PYTHONPATH": str(autoload), "OTEL_SDK_DISABLED": "true"}
            words = [
                self.interpreter.executable,
                *(str(HERE / "child.py"), mode, str(self.options.root)),
                *(str(directory / "request"), str(events)),
            ]
            events.touch()
            with output.open("wb") as out:
                process = subprocess.Popen(
                    words,
                    cwd=directory / "cwd",
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
                try:
                    killed = self._watch(process, events, deadline)
                finally:
                    self._end_group(process)
            self._judge_end(process.returncode, killed, output.read_text(errors="replace"))

    def _watch(
        self, process: subprocess.Popen[bytes], events: pathlib.Path, deadline: float
    ) -> str:
        """Reads events until the end; returns why the process was ended, or ''."""
        buffer = b""
        limit = self.options.timeout + GRACE
        last = time.monotonic()
        with events.open("rb") as file:
            while True:
                ended = process.poll() is not None
                data = file.read()
                if data:
                    last = time.monotonic()
                    *lines, buffer = (buffer + data).split(b"\n")
                    for line in lines:
                        self._take(json.loads(line))
                if ended:
                    return ""
                now = time.monotonic()
                if now > deadline or now - last > limit:
                    process.send_signal(signal.SIGABRT)
                    try:
                        process.wait(10)
                    except subprocess.TimeoutExpired:
                        process.kill()
                    process.wait()
                    return "total timeout" if now > deadline else "timeout"
                time.sleep(0.05)

    @staticmethod
    def _end_group(process: subprocess.Popen[bytes]) -> None:
        """Ends what the tests left running: all of it is in the session made for the child."""
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
        process.wait()

    def _take(self, event: dict[str, object]) -> None:
        match event["event"]:
            case "tests":
                self.known_tests = list(event["tests"])  # type: ignore[call-overload]
                self.file = str(event["file"])
                wanted = "tracesock" if self.mode == "tracesock" else "socket"
                if event["socket"] not in ("", wanted):
                    raise RunError(f"mode {self.mode}: the tests ran on {event['socket']!r}")
            case "module":
                self.module = Test(str(event["outcome"]), str(event["text"]))
                self.known_tests, self.done = [], True
            case "start":
                self.running = str(event["test"])
            case "stop":
                self.results[str(event["test"])] = Test(
                    str(event["outcome"]),
                    str(event["text"]),
                    float(event["seconds"]),  # type: ignore[arg-type]
                )
                self.running = None
            case "fixture":
                self.fixtures.append(
                    (str(event["name"]), str(event["outcome"]), str(event["text"]))
                )
            case "noise":
                test = event["test"]
                self.noise.append((None if test is None else str(test), str(event["text"])))
            case "done":
                self.done = True

    def _judge_end(self, status: int, killed: str, output: str) -> None:
        tail = output[-6000:]
        how = f"ended by signal {-status}" if status < 0 else f"exit status {status}"
        hung = bool(killed) or "Timeout (" in tail
        if self.running is not None:
            seconds = self.options.timeout
            if hung:
                text = f"no end within {seconds:g} s\n{tail}"
                self.results[self.running] = Test("hang", text, seconds)
            else:
                self.results[self.running] = Test("crash", f"{how}\n{tail}")
        elif self.known_tests is None:
            self.module = Test("hang" if hung else "crash", f"{how}\n{tail}")
        elif self.tests is not None and not self.done:
            self.exit_problem = f"between two tests: {killed or how}\n{tail}"
        elif killed or status:
            self.exit_problem = f"at the interpreter's exit: {killed or how}\n{tail}"


def fixture_covers(name: str, test: str) -> bool:
    """Whether a failed set-up, as unittest names it, kept this test from running."""
    match = re.fullmatch(r"(setUpClass|setUpModule) \((.*)\)", name)
    return match is not None and test.startswith(match[2] + ".")


@dataclasses.dataclass
class ModeRun:
    """All tests of the module in one mode."""

    tests: dict[str, Test]
    fixtures: list[tuple[str, str, str]]  # failed tear-downs, which belong to no test
    exits: list[str]
    file: str | None
    seconds: float
    kept: bool = False  # out of the cache, from a run before

    def counts(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for test in self.tests.values():
            found[test.outcome] = found.get(test.outcome, 0) + 1
        return dict(sorted(found.items()))


def class_of(test: str) -> str:
    return test.rpartition(".")[0]


def shards(tests: list[str], jobs: int) -> list[list[str]]:
    """Splits tests by class over the jobs, evenly and the same each time."""
    if jobs <= 1:
        return [tests]
    parts: list[list[str]] = [[] for _ in range(jobs)]
    home: dict[str, list[str]] = {}
    for test in tests:
        key = class_of(test)
        if key not in home:
            apart = MACHINE_WIDE.search(key.rpartition(".")[2])
            home[key] = parts[0] if apart else min(parts, key=len)
        home[key].append(test)
    return [part for part in parts if part]


def run_shard(
    interpreter: Interpreter, mode: str, options: Options, tests: list[str], deadline: float
) -> list[Child]:
    """Runs tests, in a new process after each one that took its process with it."""
    children: list[Child] = []
    left = tests
    while left:
        child = Child(interpreter, mode, options, left)
        if time.monotonic() > deadline:
            child.results = {test: Test("not run", "total timeout") for test in left}
            return [*children, child]
        child.run(deadline)
        children.append(child)
        if child.done or child.module is not None:
            break
        finished = set(child.results)
        for name, _, _ in child.fixtures:
            finished.update(test for test in left if fixture_covers(name, test))
        remaining = [test for test in left if test not in finished]
        if len(remaining) == len(left):  # no progress: the first test's class is in the way
            child.results[left[0]] = Test("crash", child.exit_problem)
            remaining = left[1:]
        left = remaining
    return children


def select(tests: Iterable[str], match: list[str], exclude: list[str]) -> list[str]:
    """The tests whose identity fits a pattern of match (all if empty) and none of exclude."""
    return [
        test
        for test in tests
        if (not match or any(fnmatch.fnmatchcase(test, pattern) for pattern in match))
        and not any(fnmatch.fnmatchcase(test, pattern) for pattern in exclude)
    ]


def run_mode(
    interpreter: Interpreter,
    mode: str,
    options: Options,
    match: list[str],
    exclude: list[str],
) -> ModeRun:
    """Runs all selected tests of the module in one mode."""
    started = time.monotonic()
    deadline = started + options.total_timeout
    listing = Child(interpreter, mode, options, None)
    listing.run(deadline)
    if listing.module is not None or listing.known_tests is None:
        outcome = listing.module or Test("crash", listing.exit_problem)
        seconds = time.monotonic() - started
        return ModeRun({f"test.{options.module}": outcome}, [], [], None, seconds)
    tests = select(listing.known_tests, match, exclude)
    with concurrent.futures.ThreadPoolExecutor(max(options.jobs, 1)) as pool:
        children = [
            child
            for group in pool.map(
                lambda part: run_shard(interpreter, mode, options, part, deadline),
                shards(tests, options.jobs),
            )
            for child in group
        ]
    results: dict[str, Test] = {}
    fixtures, exits = [], []
    for child in children:
        results |= child.results
        if child.module is not None:  # it was listed, and then did not import again
            results |= dict.fromkeys(child.tests or (), child.module)
        if child.exit_problem:
            exits.append(child.exit_problem)
        for test, text in child.noise:
            if test in results:
                results[test].noise.append(text)
        for name, outcome, text in child.fixtures:
            covered = [t for t in child.tests or () if t not in results and fixture_covers(name, t)]
            results |= {test: Test(outcome, f"{name}: {text}") for test in covered}
            if not covered and outcome != "skip":
                fixtures.append((name, outcome, text))
    ordered = {test: results.get(test, Test("not run", "")) for test in tests}
    return ModeRun(ordered, fixtures, exits, listing.file, time.monotonic() - started)


@dataclasses.dataclass
class Finding:
    """One thing that the comparison says about one test; error: the run is not as it should be."""

    kind: str
    test: str
    error: bool
    stock: str
    tracesock: str
    text: str = ""


def judge(before: Test, after: Test, reason: str | None) -> Iterator[tuple[str, bool, str]]:
    """What is to be said about a test: (kind, is it an error, text).

    reason is that of the test's entry in the list of known failures, None without an entry.
    """
    if after.outcome in GOOD:
        if reason is not None:
            yield "known failure passes: take it off the list", True, reason
        elif before.outcome in BAD:
            yield "passes with tracesock only", False, before.text
        elif before.outcome not in GOOD:
            yield "runs with tracesock only", False, before.text
    elif reason is not None and (after.outcome in BAD or before.outcome in GOOD):
        yield "known failure", False, reason
    elif after.outcome in BAD:
        if before.outcome in BAD:
            yield "fails on stock too", False, after.text
        else:
            yield "fails", True, after.text
    elif before.outcome in GOOD:
        yield f"{after.outcome} with tracesock", True, after.text
    elif before.outcome in BAD:
        yield "fails on stock only", False, before.text
    if len(after.noise) > len(before.noise):
        yield "exception outside the test", False, after.noise[-1]


def compare(
    stock: ModeRun, traced: ModeRun, known: list[Known], python: str, complete: bool
) -> list[Finding]:
    """Compares test by test; complete: no test was left out by a pattern."""
    reasons = {entry.test: entry.reason for entry in known if python in entry.python}
    found = []
    missing = Test("missing")
    for name in {**stock.tests, **traced.tests}:
        before, after = stock.tests.get(name, missing), traced.tests.get(name, missing)
        for kind, error, text in judge(before, after, reasons.get(name)):
            found.append(Finding(kind, name, error, before.outcome, after.outcome, text))
    if complete:
        for name in sorted(set(reasons) - set(stock.tests) - set(traced.tests)):
            if name.startswith(f"{common_prefix(stock, traced)}."):
                found.append(
                    Finding("known failure names no test", name, True, "missing", "missing")
                )
    for label, text in [(f"{n} {o}", t) for n, o, t in traced.fixtures]:
        same = any(label == f"{n} {o}" for n, o, _ in stock.fixtures)
        found.append(Finding("fixture fails", label, not same, "-", "error", text))
    if traced.exits:
        text = "\n".join(traced.exits)
        found.append(Finding("the process ends badly", "-", not stock.exits, "-", "crash", text))
    return found


def common_prefix(*runs: ModeRun) -> str:
    """The test module's name as its tests carry it: test.test_socket."""
    for run in runs:
        for name in run.tests:
            return ".".join(name.split(".")[:2])
    return ""


def retry(
    findings: list[Finding],
    once: Callable[[str, str], Test],
) -> tuple[list[Finding], list[Finding]]:
    """Runs each failing test alone, up to twice in both modes; returns (findings, flaky ones).

    once(mode, test) runs one test. A test is flaky if it passes with tracesock alone, or if
    stock alone fails it each time.
    """
    flaky: list[Finding] = []
    failing = [f for f in findings if f.error and f.kind == "fails" and f.stock in GOOD]
    if len(failing) > RETRY_LIMIT:
        return findings, flaky
    for finding in failing:
        stock_good = False
        for _ in range(RETRIES):
            after = once("tracesock", finding.test)
            if after.outcome in GOOD:
                finding.kind, finding.error = "flaky: passed when run again", False
                break
            finding.text = after.text or finding.text
            stock_good = once("stock", finding.test).outcome in GOOD or stock_good
        else:
            if not stock_good:
                finding.kind, finding.error = "flaky: fails alone on stock too", False
        if not finding.error:
            flaky.append(finding)
    return findings, flaky


def stock_key(interpreter: Interpreter, options: Options, exclude: list[str]) -> str:
    """What stock's outcome depends on: interpreter, test module, kernel, how it is run."""
    parts: list[object] = [interpreter.version, interpreter.executable, os.uname().release]
    parts += [os.uname().version, os.uname().nodename, options.module, options.resources]
    parts += [options.timeout, os.geteuid() == 0, exclude]
    executable = os.stat(interpreter.executable)
    parts += [executable.st_size, executable.st_mtime_ns]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def run_alone(interpreter: Interpreter, mode: str, options: Options, test: str) -> Test:
    """Runs one test in a process of its own."""
    child = Child(interpreter, mode, options, [test])
    child.run(time.monotonic() + options.timeout + 2 * GRACE)
    return child.results.get(test) or child.module or Test("not run", child.exit_problem)


def settle(run: ModeRun, interpreter: Interpreter, options: Options) -> None:
    """Runs stock's failing tests again alone, so that chance takes nothing off the standard."""
    failing = [name for name, test in run.tests.items() if test.outcome in BAD]
    for name in failing if len(failing) <= RETRY_LIMIT else ():
        for _ in range(RETRIES):
            again = run_alone(interpreter, "stock", options, name)
            if again.outcome in GOOD:
                run.tests[name] = again
                break


def run_stock(
    interpreter: Interpreter,
    options: Options,
    match: list[str],
    exclude: list[str],
    cache: pathlib.Path | None,
) -> ModeRun:
    """Runs stock, or takes its outcome from the cache if nothing has changed since."""
    if cache is None or match:
        run = run_mode(interpreter, "stock", options, match, exclude)
        settle(run, interpreter, options)
        return run
    key = stock_key(interpreter, options, exclude)
    path = cache / f"stock-{interpreter.python}-{options.module}-{key[:16]}.json"
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        tests = {name: Test(**fields) for name, fields in kept.pop("tests").items()}
        fixtures = [(name, outcome, text) for name, outcome, text in kept.pop("fixtures")]
        return ModeRun(**(kept | {"tests": tests, "fixtures": fixtures, "kept": True}))
    except (OSError, ValueError, KeyError, TypeError):
        pass
    run = run_mode(interpreter, "stock", options, match, exclude)
    settle(run, interpreter, options)
    if not any(test.outcome in BAD for test in run.tests.values()):  # a bad day is not kept
        cache.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(f".{os.getpid()}")
        fresh.write_text(json.dumps(dataclasses.asdict(run)), encoding="utf-8")
        os.replace(fresh, path)
    return run


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="run.py", description="CPython's own tests on stock socket and on tracesock"
    )
    add = parser.add_argument
    add("--python", default=sys.executable, help="the interpreter; default: this one")
    add("--module", default="test_socket", help="a module of CPython's test package")
    add("--mode", choices=("both", "stock", "tracesock"), default="both")
    add("--match", action="append", default=[], metavar="PATTERN", help="only these test ids")
    add("--exclude", action="append", default=[], metavar="PATTERN", help="not these test ids")
    add("--jobs", type=int, default=1, help="processes side by side")
    add("--timeout", type=float, default=60.0, help="seconds for one test")
    add("--total-timeout", type=float, default=900.0, help="seconds for one mode")
    add("--use", action="append", default=[], metavar="RESOURCE", help="as -u of python -m test")
    add("--json", type=pathlib.Path, metavar="FILE", help="write all outcomes there")
    add("--known", type=pathlib.Path, default=KNOWN_FAILURES, metavar="FILE")
    add("--tracesock", type=pathlib.Path, default=PROJECT, help="the directory that holds it")
    add(
        "--how",
        choices=("swap", "run"),
        default="swap",
        help="swap: tracesock as sys.modules['socket']; run: as `tracesock run` does, in child "
        "processes too",
    )
    add("--swap-children", action="store_true", help="also in processes that tests start")
    add("--stock-cache", type=pathlib.Path, metavar="DIR", help="keep stock's outcome there")
    add(
        "--require",
        action="append",
        default=[],
        metavar="CLASS",
        help="a test class of which at least one test must pass, in each mode",
    )
    add("--list-interpreters", action="store_true", help="show those that can be tested; end")
    add("--build-all", action="store_true", help="build the extension for each of those; end")
    options = parser.parse_args(arguments)
    if options.jobs < 1 or options.timeout <= 0 or options.total_timeout <= 0:
        parser.error("--jobs, --timeout and --total-timeout must be positive")
    if not re.fullmatch(r"_?test_\w+", options.module):
        parser.error(f"--module is the name of a module such as test_socket: {options.module!r}")
    return options


def required_but_absent(run: ModeRun, required: list[str]) -> list[str]:
    """The classes of which no test passed."""
    passed = {
        class_of(name).rpartition(".")[2] for name, t in run.tests.items() if t.outcome in GOOD
    }
    return [name for name in required if name not in passed]


def show(text: str, indent: str = "      ", limit: int = 25) -> str:
    lines = text.rstrip().splitlines()
    if len(lines) > limit:
        lines = [*lines[: limit // 4], "...", *lines[-(limit - limit // 4) :]]
    return "\n".join(indent + line for line in lines)


def execute(arguments: argparse.Namespace) -> int:
    """Runs what the command line asked for; returns the exit status. Raises RunError."""
    known = read_known(arguments.known)
    interpreter = ask_interpreter(arguments.python, arguments.module)
    if not interpreter.has_module:
        raise RunError(
            f"{interpreter.executable} (Python {interpreter.python}) has no test.{arguments.module}"
            " (Debian: apt install libpython3-testsuite)"
        )
    exclude = list(arguments.exclude)
    if arguments.module == "test_socket" and not has_vsock(interpreter):
        exclude.append("*.ThreadedVSOCKSocketStreamTest.*")
    options = Options(
        module=arguments.module,
        root=arguments.tracesock.resolve(),
        timeout=arguments.timeout,
        total_timeout=arguments.total_timeout,
        jobs=arguments.jobs,
        resources=tuple(arguments.use),
        swap_children=arguments.swap_children,
        how=arguments.how,
    )
    print(f"Python {interpreter.version.split()[0]}, {arguments.module}", flush=True)
    document: dict[str, object] = {
        "module": arguments.module,
        "python": dataclasses.asdict(interpreter),
        "kernel": " ".join((os.uname().sysname, os.uname().release)),
        "excluded": exclude,
        "modes": {},
    }
    runs: dict[str, ModeRun] = {}
    failed = False
    for mode in ("stock", "tracesock"):
        if arguments.mode not in ("both", mode):
            continue
        if mode == "stock":
            run = run_stock(interpreter, options, arguments.match, exclude, arguments.stock_cache)
        else:
            run = run_mode(interpreter, mode, options, arguments.match, exclude)
        runs[mode] = run
        document["modes"][mode] = dataclasses.asdict(run)  # type: ignore[index]
        counts = ", ".join(f"{number} {outcome}" for outcome, number in run.counts().items())
        took = "from a run before" if run.kept else f"{run.seconds:.0f} s"
        print(f"  {mode + ':':<11}{counts or 'no tests'}  ({took})", flush=True)
        if not run.tests:
            print("  no test fits the patterns")
            failed = True
        for name in required_but_absent(run, arguments.require):
            print(f"  {mode}: no test of {name} passed, and it was required")
            failed = True
    if arguments.mode == "both":
        complete = not arguments.match and not arguments.exclude
        findings = compare(runs["stock"], runs["tracesock"], known, interpreter.python, complete)

        def once(mode: str, test: str) -> Test:
            return run_alone(interpreter, mode, options, test)

        findings, flaky = retry(findings, once)
        document["findings"] = [dataclasses.asdict(finding) for finding in findings]
        document["flaky"] = [finding.test for finding in flaky]
        kinds = dict.fromkeys(finding.kind for finding in findings)
        for kind in sorted(kinds, key=lambda k: [f.error for f in findings if f.kind == k]):
            group = [finding for finding in findings if finding.kind == kind]
            print(f"  {kind}: {len(group)}{' (error)' if group[0].error else ''}")
            for finding in group[:SHOWN]:
                print(f"    {finding.test}  [{finding.stock} -> {finding.tracesock}]")
                if finding.text and (finding.error or finding.kind.startswith("flaky")):
                    print(show(finding.text))
            if len(group) > SHOWN:
                print(f"    and {len(group) - SHOWN} more: --json has them all")
        failed = failed or any(finding.error for finding in findings)
    else:
        for name, test in runs[arguments.mode].tests.items():
            if test.outcome in BAD:
                failed = True
                print(f"    {name}  [{test.outcome}]\n{show(test.text)}")
        failed = failed or bool(runs[arguments.mode].exits)
        for text in runs[arguments.mode].exits:
            print(show(text))
    document["ok"] = not failed
    if arguments.json is not None:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(document, indent=1), encoding="utf-8")
    print("  as it should be" if not failed else "  NOT as it should be", flush=True)
    return int(failed)


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    options = parse(arguments)
    if options.list_interpreters:
        for python, interpreter in find_interpreters(options.module).items():
            print(f"{python:<6} {interpreter.executable}")
        return 0
    if options.build_all:
        try:
            for interpreter in find_interpreters(options.module).values():
                build_native(interpreter)
        except RunError as error:
            print(f"run.py: {error}", file=sys.stderr)
            return 2
        return 0
    if shutil.which(options.python) is None:
        print(f"run.py: no such interpreter: {options.python}", file=sys.stderr)
        return 2
    try:
        return execute(options)
    except RunError as error:
        print(f"run.py: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
