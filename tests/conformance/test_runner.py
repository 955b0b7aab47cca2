"""The conformance runner itself: no outcome is lost, and no difference goes by."""

from __future__ import annotations

import importlib.util
import json
import pathlib
import subprocess
import sys
import types

import pytest

RUN = pathlib.Path(__file__).parent / "run.py"
PREFIX = "test.test_socket.GeneralModuleTests."
TESTS = ("testNtoH", "testIPv4toString", "testStringToIPv4", "test_getnameinfo", "testGetServBy")

COPY_OF_STOCK = """
import socket as _stock
globals().update({name: value for name, value in vars(_stock).items() if name[:2] != "__"})
"""


def interpreter() -> str | None:
    """This interpreter if it has CPython's own tests, which Debian's packages leave out."""
    code = (
        "import importlib.util, sys; sys.exit(importlib.util.find_spec('test.test_socket') is None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    return sys.executable if done.returncode == 0 else None


PYTHON = interpreter()
pytestmark = pytest.mark.skipif(
    PYTHON is None,
    reason="this Python has no test.test_socket: libpython3-testsuite (Debian) brings it",
)


def run(
    tmp_path: pathlib.Path, broken: str = "", known: str = "", *more: str, timeout: int = 30
) -> tuple[int, dict[str, object], str]:
    """Runs a few tests on stock and on a copy of stock with something broken in it."""
    package = tmp_path / "tracesock"
    package.mkdir()
    (package / "__init__.py").write_text(COPY_OF_STOCK + broken)
    (tmp_path / "known.toml").write_text(known)
    report = tmp_path / "report.json"
    words = [sys.executable, str(RUN), "--tracesock", str(tmp_path), "--json", str(report)]
    words += ["--known", str(tmp_path / "known.toml"), "--timeout", str(timeout), *more]
    for name in TESTS:
        words += ["--match", PREFIX + name]
    done = subprocess.run(words, capture_output=True, text=True, timeout=110)
    document = json.loads(report.read_text()) if report.exists() else {}
    return done.returncode, document, done.stdout + done.stderr


def outcomes(document: dict[str, object], mode: str = "tracesock") -> dict[str, str]:
    tests = document["modes"][mode]["tests"]  # type: ignore[index]
    return {name.removeprefix(PREFIX): test["outcome"] for name, test in tests.items()}


def known(name: str, python: str | None = None) -> str:
    python = python or f"{sys.version_info[0]}.{sys.version_info[1]}"
    return f'[[known]]\ntest = "{PREFIX}{name}"\npython = ["{python}"]\nreason = "a reason"\n'


def test_an_equal_module_is_as_it_should_be(tmp_path: pathlib.Path) -> None:
    status, document, text = run(tmp_path)
    assert status == 0, text
    assert outcomes(document) == dict.fromkeys(TESTS, "pass") == outcomes(document, "stock")
    assert list(outcomes(document)) == sorted(TESTS)
    assert document["findings"] == []


def test_a_failure_is_an_error_and_the_text_is_shown(tmp_path: pathlib.Path) -> None:
    status, document, text = run(tmp_path, "def inet_pton(*a): raise LookupError('broken here')\n")
    assert status == 1
    assert outcomes(document)["testIPv4toString"] == "error"
    assert "LookupError: broken here" in text
    assert outcomes(document)["testNtoH"] == "pass"


def test_a_known_failure_is_no_error_for_its_version_only(tmp_path: pathlib.Path) -> None:
    broken = "def getservbyname(*a): raise LookupError('broken here')\n"
    (tmp_path / "a").mkdir()
    status, document, text = run(tmp_path / "a", broken, known("testGetServBy"))
    assert status == 0, text
    assert [f["kind"] for f in document["findings"]] == ["known failure"]  # type: ignore[index]
    (tmp_path / "b").mkdir()
    status, _, _ = run(tmp_path / "b", broken, known("testGetServBy", "3.99"))
    assert status == 1


def test_a_known_failure_that_passes_is_an_error(tmp_path: pathlib.Path) -> None:
    status, _, text = run(tmp_path, "", known("testNtoH"))
    assert status == 1
    assert "take it off the list" in text


def test_a_hang_and_a_crash_take_nothing_with_them(tmp_path: pathlib.Path) -> None:
    broken = (
        "import os, time\ndef inet_aton(*a): time.sleep(100)\ndef getnameinfo(*a): os.abort()\n"
    )
    status, document, text = run(tmp_path, broken, timeout=5)
    assert status == 1
    assert outcomes(document) == {
        "testGetServBy": "pass",
        "testIPv4toString": "hang",
        "testNtoH": "pass",
        "testStringToIPv4": "pass",
        "test_getnameinfo": "crash",
    }
    assert "inet_aton" in text  # the stack of the hung test


def test_what_fails_once_and_then_passes_is_flaky(tmp_path: pathlib.Path) -> None:
    marker = tmp_path / "marker"
    broken = (
        "import pathlib\n"
        "def htonl(n, _good=htonl):\n"
        f"    marker = pathlib.Path({str(marker)!r})\n"
        "    if marker.exists(): return _good(n)\n"
        "    marker.touch()\n"
        "    raise LookupError('this once')\n"
    )
    status, document, text = run(tmp_path, broken)
    assert status == 0, text
    assert document["flaky"] == [PREFIX + "testNtoH"]


def test_a_test_that_tracesock_skips_is_an_error(tmp_path: pathlib.Path) -> None:
    broken = "import unittest\ndef inet_ntop(*a): raise unittest.SkipTest('not here')\n"
    status, document, text = run(tmp_path, broken)
    assert status == 1
    assert outcomes(document)["testStringToIPv4"] == "skip", text


def test_tracesock_that_does_not_import_is_a_clear_failure(tmp_path: pathlib.Path) -> None:
    status, _, text = run(tmp_path, "raise ImportError('no native module')\n")
    assert status == 1
    assert "ImportError: no native module" in text


def test_an_exception_that_no_test_sees_is_told(tmp_path: pathlib.Path) -> None:
    broken = (
        "class Leaky:\n"
        "    def __del__(self): raise LookupError('in a finalizer')\n"
        "def htonl(n, _good=htonl):\n"
        "    Leaky()\n"
        "    return _good(n)\n"
    )
    status, document, text = run(tmp_path, broken)
    assert status == 0, text
    assert [f["kind"] for f in document["findings"]] == [  # type: ignore[index]
        "exception outside the test"
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--python", "/nonexistent/python"), "no such interpreter: /nonexistent/python"),
        (("--module", "os; import this"), "--module is the name of a module"),
        (("--module", "test_no_such_module"), "has no test.test_no_such_module"),
        (("--jobs", "0"), "must be positive"),
    ],
)
def test_bad_arguments_are_named(
    tmp_path: pathlib.Path, words: tuple[str, str], message: str
) -> None:
    status, _, text = run(tmp_path, "", "", *words)
    assert status == 2
    assert message in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[known]]\ntest = 'a'\n", "an entry has test, python and reason"),
        ("[[known]]\ntest = 'a'\npython = ['3.11']\nreason = ' '\n", "must not be empty"),
        ("[[unknown]]\n", "unknown key 'unknown'"),
        ("[[known]\n", "known.toml"),
    ],
)
def test_a_bad_list_of_known_failures_is_named(
    tmp_path: pathlib.Path, text: str, message: str
) -> None:
    status, _, output = run(tmp_path, "", text)
    assert status == 2
    assert message in output


@pytest.fixture
def runner() -> types.ModuleType:
    """run.py as a module of its own, to be changed at will."""
    spec = importlib.util.spec_from_file_location("conformance_run_under_test", RUN)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_an_entry_that_names_no_test_is_an_error(runner: types.ModuleType) -> None:
    tests = {PREFIX + "testNtoH": runner.Test("pass")}
    stock, traced = (runner.ModeRun(dict(tests), [], [], None, 0.0) for _ in range(2))
    entry = runner.Known(PREFIX + "testGone", ("3.13",), "a reason")
    found = runner.compare(stock, traced, [entry], "3.13", complete=True)
    assert [(finding.kind, finding.error) for finding in found] == [
        ("known failure names no test", True)
    ]
    assert runner.compare(stock, traced, [entry], "3.13", complete=False) == []


def test_chance_on_stock_takes_nothing_off_the_standard(
    runner: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    once, always = PREFIX + "once", PREFIX + "always"
    asked = []

    def run_alone(interpreter: object, mode: str, options: object, test: str) -> object:
        asked.append((mode, test))
        return runner.Test("pass" if test == once and asked.count((mode, test)) == 2 else "hang")

    monkeypatch.setattr(runner, "run_alone", run_alone)
    tests = {once: runner.Test("hang"), always: runner.Test("fail"), "a.b": runner.Test("pass")}
    run = runner.ModeRun(tests, [], [], None, 0.0)
    runner.settle(run, None, None)
    assert {name: test.outcome for name, test in run.tests.items()} == {
        once: "pass",
        always: "fail",
        "a.b": "pass",
    }
    assert asked == [("stock", once)] * 2 + [("stock", always)] * 2


def test_shards_keep_a_class_together_and_lose_nothing(runner: types.ModuleType) -> None:
    tests = [f"test.m.Class{c}.test{n}" for c in range(7) for n in range(c + 1)]
    tests += ["test.m.CANTest.test", "test.m.TIPCTest.test"]
    parts = runner.shards(tests, 3)
    assert sorted(test for part in parts for test in part) == sorted(tests)
    homes = {(runner.class_of(test), number) for number, p in enumerate(parts) for test in p}
    assert len(homes) == len({name for name, _ in homes})
    assert {number for name, number in homes if "CAN" in name or "TIPC" in name} == {0}
    assert runner.shards(tests, 1) == [tests]


def test_more_failures_than_chance_are_not_run_again(runner: types.ModuleType) -> None:
    findings = [runner.Finding("fails", f"a.b{n}", True, "pass", "fail") for n in range(30)]
    again, flaky = runner.retry(findings, lambda mode, test: pytest.fail("was run again"))
    assert (len(again), flaky) == (30, [])


def test_this_interpreter_is_found(runner: types.ModuleType) -> None:
    found = runner.find_interpreters()
    assert f"{sys.version_info[0]}.{sys.version_info[1]}" in {name.rstrip("t") for name in found}
    assert runner.find_interpreters("test_no_such_module") == {}
