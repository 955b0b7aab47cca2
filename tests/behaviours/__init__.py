"""What programs do with sockets, done with the standard library's module and with tracesock.

A behaviour is a generator that gets the module, and yields what it saw, step by step: a result, an
exception that `attempt` caught, a state. Both modules must yield the same; the warnings and audit
events on the way are compared as well. No file here needs more than an interpreter, so that every
Python that the machine has can run them: `python3.13 -m tests.behaviours`.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import pkgutil
import re
import shutil
import socket as stock
import sys
import tempfile
import threading
import time
import types
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

Behaviour: TypeAlias = Callable[..., Iterator[object]]

# Ports that the kernel chooses, ip_local_port_range.
EPHEMERAL = range(32768, 61000)

# What looks at the class of the module, or at what else is of that class.
OF_THE_CLASS_ITSELF = {
    "connection.functions_see_what_a_program_replaces",
    "construction.the_class",
}

registry: dict[str, Behaviour] = {}


def behaviour(function: Behaviour) -> Behaviour:
    """Registers a generator function of the module; one with `path` gets an empty directory."""
    name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
    assert name not in registry, name
    registry[name] = function
    return function


def collect() -> dict[str, Behaviour]:
    for module in pkgutil.iter_modules(__path__):
        if not module.name.startswith("_"):
            importlib.import_module(f"{__name__}.{module.name}")
    return registry


def attempt(call: Callable[..., object], *arguments: object, **keywords: object) -> object:
    """What the call returns, or the exception that it raises."""
    try:
        return call(*arguments, **keywords)
    except Exception as error:
        return error.with_traceback(None)


def shown(value: object) -> str:
    """`repr` without what differs from one process or module to the next."""
    text = re.sub(r"\bfd=\d+", "fd=N", repr(value))
    return re.sub(r" at 0x[0-9a-f]+", " at 0xN", text)


class Index:
    """An integer by __index__ alone."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value

    def __repr__(self) -> str:
        return f"Index({self.value})"


class Failing:
    """Refuses to be an integer, a float or true."""

    def __index__(self) -> int:
        raise LookupError("no index")

    def __float__(self) -> float:
        raise LookupError("no float")

    def __bool__(self) -> bool:
        raise LookupError("no bool")

    def __repr__(self) -> str:
        return "Failing()"


@contextlib.contextmanager
def unraisable() -> Iterator[list[object]]:
    """The exceptions that finalizers could not raise."""
    seen: list[object] = []
    before = sys.unraisablehook
    sys.unraisablehook = lambda each: seen.append((each.exc_type, str(each.exc_value)))
    try:
        yield seen
    finally:
        sys.unraisablehook = before


@contextlib.contextmanager
def streams(module: Any, family: int = stock.AF_INET) -> Iterator[tuple[Any, Any]]:
    """A connected pair of stream sockets over the loopback interface."""
    host = "127.0.0.1" if family == stock.AF_INET else "::1"
    with module.socket(family) as listener:
        listener.bind((host, 0))
        listener.listen()
        with module.socket(family) as client:
            client.connect(listener.getsockname())
            server, _ = listener.accept()
            with server:
                yield client, server


def observe(function: Behaviour, module: Any, path: str) -> Any:
    """The outcome of one behaviour with one module; its result is the list of what it yielded."""
    from tests.differential import canonical, outcome

    gc.collect()
    os.mkdir(path)
    wants_path = "path" in function.__code__.co_varnames[: function.__code__.co_argcount]
    extra = {"path": path} if wants_path else {}
    steps: list[object] = []

    def run(module: Any) -> None:
        for each in function(module, **extra):
            steps.append(canonical(each))

    try:
        seen = outcome(run, module)
    finally:
        shutil.rmtree(path)
    seen.result = steps
    seen.events = [without_ports(each) for each in seen.events]
    return seen


def without_ports(event: object) -> object:
    """An audit event without the ports that the kernel chose."""
    if type(event) is not tuple:
        return event
    if len(event) == 2 and event[0] == "int" and event[1] in EPHEMERAL:
        return ("int", "PORT")
    return tuple(without_ports(each) for each in event)


def subclassed(module: Any) -> Any:
    """The module with a subclass in place of its socket class."""
    copied = types.ModuleType(module.__name__)
    vars(copied).update(vars(module))
    namespace = {"__module__": "socket", "__qualname__": "socket", "__slots__": ()}
    copied.socket = type("socket", (module.socket,), namespace)
    return copied


def await_call(thread: threading.Thread) -> None:
    """Waits until the thread waits in a call of its own, and not for the interpreter's lock."""
    file = f"/proc/self/task/{thread.native_id}/syscall"
    futex = {"x86_64": "202", "aarch64": "98"}.get(os.uname().machine)
    deadline = time.monotonic() + 30
    while True:
        with open(file) as own:
            if own.read().split()[0] not in ("running", "-1", futex):
                break
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.1)


# What a look-up says that the name server has not answered in time.
UNANSWERED = (f"[Errno {stock.EAI_AGAIN}]", "Host name lookup failure")


def difference(name: str, subclass: bool = False) -> tuple[int, str]:
    """How many steps one behaviour has, and where the modules differ: '' where they do not."""
    for _ in range(5):
        steps, complaint = compared(name, subclass)
        if not any(each in complaint for each in UNANSWERED):
            break  # else an answer was lost on its way to one of them
    return steps, complaint


def compared(name: str, subclass: bool) -> tuple[int, str]:
    import tracesock

    function = registry[name]
    modules = [subclassed(each) if subclass else each for each in (stock, tracesock)]
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/path"  # the same for both
        expected, got = (observe(function, module, path) for module in modules)
    complaints = []
    wanted_steps, steps = expected.result or (), got.result or ()
    for number, pair in enumerate(zip(wanted_steps, steps, strict=False)):
        if pair[0] != pair[1]:
            complaints.append(f"step {number}\n    stock:     {pair[0]}\n    tracesock: {pair[1]}")
    if len(wanted_steps) != len(steps):
        complaints.append(f"{len(wanted_steps)} steps with stock, {len(steps)} with tracesock")
    if expected.exception is not None:
        complaints.append(f"the behaviour itself ended with {expected.exception}")
    for part in ("exception", "warnings", "events"):
        if getattr(expected, part) != getattr(got, part):
            complaints.append(
                f"{part}\n    stock:     {getattr(expected, part)}\n"
                f"    tracesock: {getattr(got, part)}"
            )
    return len(wanted_steps), "\n  ".join(complaints)
