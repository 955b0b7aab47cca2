# ruff: noqa: E402 - tracesock has to take its place before the other imports
"""Runs tests of one standard library test module; started by run.py, never by hand.

    python child.py MODE ROOT REQUEST EVENTS

MODE is "stock", "tracesock" or "installed". In the second, tracesock, imported from ROOT, stands
in `sys.modules["socket"]` before anything else can import socket: hence the order of the lines
below. In the third, this process was started as `tracesock run` starts one. REQUEST is a JSON
file; EVENTS is a file that gets one JSON object a line.
"""

from __future__ import annotations

import sys

mode, root, request_path, events_path = sys.argv[1:5]
del sys.path[0]  # this directory: nothing in it is a module of the tests

early = sorted({"socket", "ssl", "selectors"} & set(sys.modules))
if mode == "tracesock":
    replaced = sys.modules.get("socket")
    if replaced is None or replaced.__name__ != "tracesock":  # else: children/sitecustomize.py
        if early:
            raise SystemExit(f"imported before tracesock could take its place: {early}")
        sys.path.insert(0, root)
        import tracesock

        sys.modules["socket"] = tracesock
        sys.path.remove(root)
        sys.path.append(root)  # last: for processes that unpickle objects of tracesock

import faulthandler
import importlib
import json
import os
import threading
import time
import traceback
import unittest
import warnings

PID = os.getpid()
TEXT_LIMIT = 20_000


class Events:
    """Writes what happened, a line an event, so that nothing is lost when the process dies."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def __call__(self, kind: str, **fields: object) -> None:
        if os.getpid() == PID:  # a test may fork, and its child come here
            os.write(self._fd, json.dumps({"event": kind, **fields}).encode() + b"\n")


emit = Events(events_path)


class Result(unittest.TestResult):
    """Tells each outcome as an event; a test that hangs ends the process with a dump."""

    def __init__(self, timeout: float) -> None:
        super().__init__()
        self._timeout = timeout
        self._started = time.monotonic()
        self.current: str | None = None
        self._outcome: tuple[str, str] = ("pass", "")

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self.current, self._outcome = test.id(), ("pass", "")
        emit("start", test=self.current)
        faulthandler.dump_traceback_later(self._timeout, exit=True)
        self._started = time.monotonic()

    def stopTest(self, test: unittest.TestCase) -> None:
        seconds = time.monotonic() - self._started
        faulthandler.cancel_dump_traceback_later()
        (outcome, text), self._outcome = self._outcome, ("pass", "")
        emit("stop", test=test.id(), outcome=outcome, text=text[-TEXT_LIMIT:], seconds=seconds)
        self.current = None
        super().stopTest(test)

    def _set(self, test: object, outcome: str, text: str) -> None:
        identity = test.id()  # type: ignore[attr-defined]
        if self.current is None and not isinstance(test, unittest.TestCase):
            # setUpClass, setUpModule, tearDownClass or tearDownModule
            emit("fixture", name=identity, outcome=outcome, text=text[-TEXT_LIMIT:])
            return
        # Without a current test: 3.12.1 does not start the tests that it skips.
        if outcome == "skip" and identity != (self.current or identity):
            return  # a subtest was skipped, not the test
        worst = {"pass": 0, "xfail": 1, "skip": 1, "fail": 2, "error": 3}
        if worst[outcome] >= worst[self._outcome[0]]:
            both = self._outcome[1] + text if worst[self._outcome[0]] >= 2 else text
            self._outcome = (outcome, both)

    def _text(self, error: object, test: object) -> str:
        return "".join(traceback.format_exception(*error))  # type: ignore[misc]

    def addError(self, test, err):  # type: ignore[no-untyped-def]
        self._set(test, "error", self._text(err, test))

    def addFailure(self, test, err):  # type: ignore[no-untyped-def]
        self._set(test, "fail", self._text(err, test))

    def addSubTest(self, test, subtest, err):  # type: ignore[no-untyped-def]
        if err is not None:
            outcome = "fail" if issubclass(err[0], test.failureException) else "error"
            description = f"{subtest.id()}\n"
            if self.current is not None:
                self._set(test, outcome, description + self._text(err, test))

    def addSkip(self, test, reason):  # type: ignore[no-untyped-def]
        self._set(test, "skip", str(reason))

    def addExpectedFailure(self, test, err):  # type: ignore[no-untyped-def]
        self._set(test, "xfail", self._text(err, test))

    def addUnexpectedSuccess(self, test):  # type: ignore[no-untyped-def]
        self._set(test, "fail", "unexpected success")


def flatten(suite: unittest.TestSuite) -> list[unittest.TestCase]:
    """The tests of a suite in their order, each identity once."""
    found: dict[str, unittest.TestCase] = {}
    stack = [suite]
    while stack:
        item = stack.pop()
        if isinstance(item, unittest.TestSuite):
            stack.extend(reversed(list(item)))
        elif item is not None:
            found.setdefault(item.id(), item)
    return list(found.values())


def watch_for_noise(result: Result) -> None:
    """Exceptions that no test sees (in __del__, in threads) become events of the running test."""

    def unraisable(args) -> None:  # type: ignore[no-untyped-def]
        error = (args.exc_type, args.exc_value, args.exc_traceback)
        text = f"{args.err_msg or 'Exception ignored in'}: {args.object!r}\n"
        text += "".join(traceback.format_exception(*error))
        emit("noise", test=result.current, text=text[-TEXT_LIMIT:])

    def in_thread(args) -> None:  # type: ignore[no-untyped-def]
        error = (args.exc_type, args.exc_value, args.exc_traceback)
        text = f"exception in {args.thread!r}\n" + "".join(traceback.format_exception(*error))
        emit("noise", test=result.current, text=text[-TEXT_LIMIT:])

    sys.unraisablehook = unraisable
    threading.excepthook = in_thread


def main() -> None:
    with open(request_path, encoding="utf-8") as file:
        request = json.load(file)
    faulthandler.enable()  # a crash, or SIGABRT from run.py, leaves all stacks
    from test import support

    support.use_resources = list(request["resources"])
    support.verbose = False
    result = Result(request["timeout"])
    try:
        module = importlib.import_module(request["module"])
        tests = flatten(unittest.defaultTestLoader.loadTestsFromModule(module))
    except unittest.SkipTest as skip:
        emit("module", outcome="skip", text=str(skip))
        return
    except BaseException:
        emit("module", outcome="error", text=traceback.format_exc()[-TEXT_LIMIT:])
        return
    file_name = getattr(module, "__file__", None)
    in_place = sys.modules.get("socket").__name__ if "socket" in sys.modules else ""
    if mode == "installed" and sys.modules["tracesock"].socket is sys.modules["socket"].socket:
        in_place = "tracesock"
    emit("tests", tests=[test.id() for test in tests], file=file_name, socket=in_place)
    if request["tests"] is None:
        return
    wanted = set(request["tests"])
    watch_for_noise(result)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        unittest.TestSuite(test for test in tests if test.id() in wanted).run(result)
    emit("done")


if __name__ == "__main__":  # multiprocessing imports this file again in what it spawns
    main()
