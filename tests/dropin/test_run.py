"""`tracesock run`: the program is its own, and tracesock is in place before its first line."""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import subprocess
import sys

import pytest
from support import AUTOLOAD, PROJECT, environment, run

IN_PLACE = "import socket; print(hasattr(socket.socket, 'send_many'))"  # which stock has not
NATIVE = "True\n"

PROGRAM = """\
import os, socket, sys
spec = __spec__ and (__spec__.name, __spec__.origin)
print(__name__, __file__, __package__, spec, sys.argv, sys.path[0])
print(sys.modules["__main__"].__dict__ is globals())
print({"click", "rich", "opentelemetry", "sitecustomize"} & set(sys.modules))
print(sys.flags, sys.warnoptions, sys._xoptions)
print(sorted(set(sys.path)))
def fail():
    raise ValueError("the program's own")
if "fail" in sys.argv:
    fail()
if "exit" in sys.argv:
    sys.exit(7)
"""


def stock(*words: str, cwd: pathlib.Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        env=environment(PYTHONPATH=""),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=100,
    )


def same(first: subprocess.CompletedProcess[str], second: subprocess.CompletedProcess[str]) -> None:
    # The one thing that differs is where this test has tracesock from.
    outside = second.stdout.replace(f"{str(PROJECT)!r}, ", "").replace(f", {str(PROJECT)!r}", "")
    assert (outside, second.stderr) == (first.stdout, first.stderr)
    assert first.returncode == second.returncode


@pytest.fixture
def program(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


@pytest.mark.parametrize("word", ["--exporter", "fail", "exit", "--"])
def test_a_file(program: pathlib.Path, word: str) -> None:
    same(stock(str(program), word), run(str(program), word))
    same(stock("program.py", word, cwd=program.parent), run("program.py", word, cwd=program.parent))


@pytest.mark.parametrize("word", ["-h", "fail", "exit"])
def test_a_module(program: pathlib.Path, word: str) -> None:
    inside = program.parent
    (inside / "package").mkdir()
    (inside / "package" / "__init__.py").write_text("")
    (inside / "package" / "__main__.py").write_text(PROGRAM)
    same(stock("-m", "program", word, cwd=inside), run("-m", "program", word, cwd=inside))
    same(stock("-m", "package", word, cwd=inside), run("-mpackage", word, cwd=inside))
    same(stock("package", word, cwd=inside), run("package", word, cwd=inside))


def test_it_is_in_place_before_anything(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "program.py"
    path.write_text(
        "import sys\n"
        "assert 'ssl' not in sys.modules and 'asyncio' not in sys.modules\n"
        "import ssl, asyncio, tracesock, tracesock.dropin\n"
        "assert tracesock.dropin.installed()\n"
        "assert ssl.SSLSocket.__mro__[1] is tracesock.socket is ssl.socket\n" + IN_PLACE
    )
    done = run(str(path))
    assert (done.stdout, done.stderr, done.returncode) == (NATIVE, "", 0)


def test_this_process_becomes_the_program() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tracesock", "run", "-m", "timeit", "-n", "1", "-r", "1"]
        + ["import os; print(os.getpid(), os.getpgid(0), os.getppid())"],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    out, _ = process.communicate(timeout=100)
    assert out.split()[:3] == [str(process.pid), str(process.pid), str(os.getpid())]


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, -signal.SIGTERM)]
)
def test_signals(tmp_path: pathlib.Path, number: signal.Signals, status: int) -> None:
    path = tmp_path / "program.py"
    path.write_text("import time\nprint('ready', flush=True)\nwhile True: time.sleep(1)\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "tracesock", "run", str(path)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, errors = process.communicate(timeout=100)
    assert process.returncode == status
    assert "tracesock" not in errors
    assert ("KeyboardInterrupt" in errors) == (number == signal.SIGINT)


WAITING = """
import os, signal, socket, sys, threading

def masks():
    for number in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{number}/status") as file:
            lines = dict(line.split(":", 1) for line in file)
        yield int(number) == os.getpid(), int(lines["SigBlk"], 16)

def check():
    with socket.create_server(("127.0.0.1", 0)) as listener:  # the audit and the telemetry are told
        socket.create_connection(listener.getsockname()).close()
    names = {thread.name.split("-")[0] for thread in threading.enumerate()}
    assert {"MainThread", "tracesock"} < names, names  # and the SDK's
    for main, mask in masks():
        blocked = {number for number in signal.Signals if mask & 1 << number - 1}
        if main:
            assert blocked == inherited | {signal.SIGTERM}, blocked
        else:
            assert {signal.SIGTERM, signal.SIGHUP} <= blocked, blocked  # not only its starter's
            assert signal.SIGSEGV not in blocked, blocked
    for _ in range(50):
        os.kill(os.getpid(), signal.SIGTERM)
        assert signal.sigtimedwait({signal.SIGTERM}, 30) is not None
    print("waited", flush=True)

inherited = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
check()
if not (child := os.fork()):
    check()
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="reads Linux's /proc")
def test_a_program_can_wait_for_a_signal(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "program.py"
    path.write_text(WAITING)
    exporters = {f"OTEL_{signal}_EXPORTER": "console" for signal in ("TRACES", "METRICS", "LOGS")}
    log = str(tmp_path / "audit.log")
    done = run(str(path), OTEL_SDK_DISABLED="false", TRACESOCK_AUDIT_LOG=log, **exporters)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("waited\n") == 2, done.stdout


def test_signals_of_a_command_that_is_not_python(tmp_path: pathlib.Path) -> None:
    done = run("sh", "-c", "trap '' PIPE; grep -h SigIgn /proc/$$/status; exit 3")
    assert done.returncode == 3
    ignored = int(run("grep", "SigIgn", "/proc/self/status").stdout.split()[1], 16)
    assert not ignored & (1 << (signal.SIGPIPE - 1))


CHILDREN = """
import multiprocessing, subprocess, sys, os

def report():
    import socket
    print(hasattr(socket.socket, 'send_many'), flush=True)

if __name__ == "__main__":
    if sys.argv[1] == "subprocess":
        source = "import socket; print(hasattr(socket.socket, 'send_many'))"
        sys.exit(subprocess.run([sys.executable, "-c", source]).returncode)
    if sys.argv[1] == "os.fork":
        if os.fork() == 0:
            report()
            os._exit(0)
        sys.exit(os.wait()[1])
    process = multiprocessing.get_context(sys.argv[1]).Process(target=report)
    process.start()
    process.join()
    sys.exit(process.exitcode)
"""


@pytest.mark.parametrize("way", ["spawn", "fork", "forkserver", "subprocess", "os.fork"])
def test_children(tmp_path: pathlib.Path, way: str) -> None:
    path = tmp_path / "program.py"
    path.write_text(CHILDREN)
    done = run(str(path), way)
    assert (done.stdout, done.stderr, done.returncode) == (NATIVE, "", 0)


def test_the_variables_alone(tmp_path: pathlib.Path) -> None:
    shown = run("--show-environment", "--service-name", "a b", PYTHONPATH=f"{PROJECT}:/elsewhere")
    assert shown.returncode == 0, shown.stderr
    assert f"PYTHONPATH={AUTOLOAD}:{PROJECT}:/elsewhere" in shown.stdout.splitlines()
    assert "OTEL_SERVICE_NAME='a b'" in shown.stdout.splitlines()
    done = subprocess.run(
        [sys.executable, "-c", IN_PLACE + "; import sys; print(*sys.path)"],
        env=environment(PYTHONPATH=str(AUTOLOAD)),
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.stdout.startswith(NATIVE) and not done.stderr
    assert str(AUTOLOAD) not in done.stdout


def test_another_sitecustomize_is_run(tmp_path: pathlib.Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.customized = __name__, __file__")
    source = "import sys; print(sys.customized, sys.modules['sitecustomize'].__file__); " + IN_PLACE
    done = subprocess.run(
        [sys.executable, "-c", source],
        env=environment(PYTHONPATH=f"{AUTOLOAD}{os.pathsep}{tmp_path}"),
        capture_output=True,
        text=True,
    )
    theirs = str(tmp_path / "sitecustomize.py")
    assert done.stdout == f"{('sitecustomize', theirs)} {theirs}\n{NATIVE}", done.stderr
    (tmp_path / "sitecustomize.py").write_text("1/0")
    broken = subprocess.run(
        [sys.executable, "-c", IN_PLACE],
        env=environment(PYTHONPATH=f"{AUTOLOAD}{os.pathsep}{tmp_path}"),
        capture_output=True,
        text=True,
    )
    assert broken.stdout == NATIVE
    assert "ZeroDivisionError" in broken.stderr


def copy_of_tracesock(directory: pathlib.Path) -> pathlib.Path:
    ignored = shutil.ignore_patterns("_native*", "__pycache__")
    shutil.copytree(PROJECT / "tracesock", directory / "tracesock", ignore=ignored)
    return directory / "tracesock"


def test_an_interpreter_without_a_build_runs_on_stock(tmp_path: pathlib.Path) -> None:
    package = copy_of_tracesock(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", IN_PLACE],
        env=environment(PYTHONPATH=str(package / "dropin" / "autoload")),
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_a_broken_build_is_told_and_the_program_runs(tmp_path: pathlib.Path) -> None:
    import importlib.machinery

    package = copy_of_tracesock(tmp_path)
    (package / f"_native{importlib.machinery.EXTENSION_SUFFIXES[0]}").write_bytes(b"no library")
    source = IN_PLACE + "; import sys; print([n for n in sys.modules if 'tracesock' in n])"
    done = subprocess.run(
        [sys.executable, "-c", source],
        env=environment(PYTHONPATH=str(package / "dropin" / "autoload")),
        capture_output=True,
        text=True,
    )
    assert done.stdout == "False\n[]\n"
    assert done.stderr.startswith("tracesock is not in place: ImportError")
    assert len(done.stderr.splitlines()) == 1


PYENV = pathlib.Path(os.environ.get("PYENV_ROOT", pathlib.Path.home() / ".pyenv")) / "versions"
OLDER = [
    str(path)
    for name in ("2.7", "3.6", "3.10")
    for path in [*PYENV.glob(f"{name}.*/bin/python"), pathlib.Path(f"/usr/bin/python{name}")]
    if path.exists()
]


@pytest.mark.parametrize("other", OLDER or [None])
def test_older_interpreters_run_on_stock(other: str | None) -> None:
    if other is None:
        pytest.skip("no Python older than 3.11 in /usr/bin or pyenv: install one")
    done = subprocess.run(
        [other, "-c", "import sys, socket; print('sitecustomize' in sys.modules)"],
        env=environment(PYTHONPATH=str(AUTOLOAD)),
        capture_output=True,
        text=True,
    )
    assert (done.stdout.strip(), done.stderr) == ("False", "")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ((), "name a program, or -m MODULE"),
        (("-m",), "-m needs the name of a module"),
        (
            ("no-such-program",),
            "no such program: 'no-such-program' is not a file and not a command",
        ),
        (("--no-such-option", "x"), "No such option"),
    ],
)
def test_bad_usage(words: tuple[str, ...], text: str) -> None:
    done = run(*words)
    assert done.returncode == 2
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_settings_reach_the_program(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "program.py"
    path.write_text(
        "import os\n"
        "for name in ('SERVICE_NAME', 'TRACES_EXPORTER', 'METRICS_EXPORTER'):\n"
        "    print(os.environ.get('OTEL_' + name))\n"
    )
    done = run("--service-name", "shop", "--exporter=none", str(path))
    assert done.stdout == "shop\nnone\nnone\n", done.stderr


def test_switches_of_the_interpreter_are_the_programs(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "program.py"
    path.write_text(
        "import sys; print(sys.flags.optimize, sys.warnoptions, sys._xoptions)\n" + IN_PLACE
    )
    done = subprocess.run(
        [sys.executable, "-O", "-W", "error::UserWarning", "-X", "faulthandler", "-m", "tracesock"]
        + ["run", str(path)],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.stdout == f"1 ['error::UserWarning'] {{'faulthandler': True}}\n{NATIVE}", (
        done.stderr
    )


def test_a_command_beside_the_interpreter() -> None:
    done = run("pytest", "--version")
    assert done.returncode == 0 and "pytest" in done.stdout + done.stderr


def test_the_command_lists_what_is_there() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tracesock", "--help"],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    listed = [
        line.split()[0] for line in done.stdout.partition("Commands:")[2].splitlines() if line
    ]
    present = {path.stem for path in (PROJECT / "tracesock" / "cli").glob("[a-z]*.py")}
    assert {"run", "doctor"} <= set(listed) <= present
    version = subprocess.run(
        [sys.executable, "-m", "tracesock", "--version"],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert version.stdout.split()[0] == "tracesock" and version.returncode == 0
