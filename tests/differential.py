"""Runs one snippet on the standard library's `socket` and on tracesock, and compares.

    same("socket.inet_aton('1.2')")
    same(lambda socket: socket.getaddrinfo("127.0.0.1", port), "port", port=port)

Compared are the result with the types in it, or the exception's type, arguments, text and errno;
the warnings; and the documented audit events with their arguments. Nothing is normalised but what
the caller says: a socket stands for its family, type and protocol, and `normalise` may replace what
must differ, such as a port that the kernel chose.
"""

from __future__ import annotations

import ast
import ctypes
import enum
import socket as stock
import sys
import textwrap
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, TypeAlias

import tracesock

try:
    from hypothesis import settings
except ModuleNotFoundError:  # another interpreter, which runs tests.behaviours alone
    pass
else:
    # For tests with generated input: the same input in every run, and no file left behind.
    generated = settings(deadline=None, derandomize=True, database=None, max_examples=100)

Snippet: TypeAlias = str | Callable[[Any], object]
Normalise: TypeAlias = Callable[[Any], Any]

_SCALARS = (bool, int, float, str, bytes, bytearray, type(None))
_SOCKET = stock.SocketType
HOST_NOT_FOUND, TRY_AGAIN = 1, 2  # of h_errno, netdb.h


@dataclass
class Outcome:
    """What a snippet did, in values that compare by type as well."""

    result: Any = None
    exception: Any = None
    warnings: list[Any] = field(default_factory=list)
    events: list[Any] = field(default_factory=list)
    value: Any = field(default=None, compare=False, repr=False)  # the result itself


class _Recorder:
    """Audit events of one thread. A hook cannot be removed: it is added once and mostly idle."""

    def __init__(self) -> None:
        self.events: list[Any] | None = None
        self.thread = 0
        self.installed = False

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        events = self.events
        if events is None or not event.startswith("socket."):
            return
        if threading.get_ident() == self.thread:
            events.append((event, canonical(arguments)))

    def start(self, events: list[Any]) -> None:
        if not self.installed:
            sys.addaudithook(self.hook)
            self.installed = True
        self.thread = threading.get_ident()
        self.events = events

    def stop(self) -> None:
        self.events = None


_recorder = _Recorder()


def canonical(value: object) -> Any:
    """`value` as nested tuples that name every type; TypeError for what cannot be compared."""
    kind = type(value)
    if isinstance(value, enum.Enum):
        return ("enum", kind.__name__, value.name, value.value)
    if kind in _SCALARS:
        return (kind.__name__, value)
    if kind in (list, tuple, set, frozenset):
        items = [canonical(item) for item in value]  # type: ignore[attr-defined]
        return (kind.__name__, *(sorted(items, key=repr) if kind in (set, frozenset) else items))
    if kind is dict:
        return ("dict", *((canonical(k), canonical(v)) for k, v in value.items()))  # type: ignore[attr-defined]
    if kind is memoryview:
        return ("memoryview", bytes(value))  # type: ignore[call-overload]
    if isinstance(value, _SOCKET):
        return ("socket", canonical(value.family), canonical(value.type), value.proto)
    if isinstance(value, BaseException):
        return _exception(value)
    if isinstance(value, type):
        return ("class", value.__qualname__)
    if isinstance(value, (int, str, bytes)):  # a subclass that the snippet made
        return ("subclass", kind.__name__, kind.__mro__[-2].__name__, repr(value))
    raise TypeError(f"a snippet's result must be comparable, not {kind.__qualname__}")


def _exception(error: BaseException) -> Any:
    arguments = tuple(
        canonical(item) if isinstance(item, (*_SCALARS, BaseException, tuple)) else repr(item)
        for item in error.args
    )
    if isinstance(error, BaseExceptionGroup):
        arguments = (error.message, tuple(_exception(each) for each in error.exceptions))
    return (type(error), str(error), arguments, getattr(error, "errno", None))


def _compiled(snippet: str, module: ModuleType, values: dict[str, Any]) -> Callable[[], object]:
    """An expression, or statements of which the last may be an expression: its value."""
    tree = ast.parse(textwrap.dedent(snippet).strip(), "<snippet>")
    last = tree.body[-1]
    namespace: dict[str, Any] = {"socket": module, **values}
    if isinstance(last, ast.Expr):
        body = compile(ast.Module(tree.body[:-1], []), "<snippet>", "exec")
        end = compile(ast.Expression(last.value), "<snippet>", "eval")
    else:
        body = compile(tree, "<snippet>", "exec")
        end = compile("None", "<snippet>", "eval")

    def call() -> object:
        exec(body, namespace)
        return eval(end, namespace)

    return call


def outcome(
    snippet: Snippet, module: Any, normalise: Normalise | None = None, **values: Any
) -> Outcome:
    """Runs a snippet, which sees `module` as `socket` and `values`; a callable gets it first."""
    call = (
        _compiled(snippet, module, values)
        if isinstance(snippet, str)
        else lambda: snippet(module, **values)
    )
    got = Outcome()
    # CPython's herror has what an earlier look-up left, which a lost answer may have failed.
    leave_h_errno(HOST_NOT_FOUND)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _recorder.start(got.events)
        try:
            got.value = call()
        except Exception as error:
            got.exception = _exception(error)
        finally:
            _recorder.stop()
    got.warnings = [(each.category, str(each.message)) for each in caught]
    if normalise is not None:
        got.value = normalise(got.value)
    got.result = canonical(got.value)
    return got


def leave_h_errno(number: int) -> None:
    """As if this thread's last look-up of a name had failed so."""
    location = ctypes.CDLL(None).__h_errno_location
    location.restype = ctypes.POINTER(ctypes.c_int)
    location().contents.value = number


def unanswered(got: Outcome) -> bool:
    """Whether it was a look-up that the name server has not answered in time."""
    kind, _, _, number = got.exception or (None,) * 4
    return (kind, number) in ((stock.gaierror, stock.EAI_AGAIN), (stock.herror, TRY_AGAIN))


def compare(
    snippet: Snippet, normalise: Normalise | None, events: bool, values: dict[str, Any]
) -> Outcome:
    for _ in range(5):
        expected = outcome(snippet, stock, normalise, **values)
        got = outcome(snippet, tracesock, normalise, **values)
        if unanswered(expected) == unanswered(got):
            break  # else an answer was lost on its way to one of them
    if not events:
        expected.events = got.events = []
    assert got == expected, (
        f"{snippet if isinstance(snippet, str) else 'the snippet'} {values or ''}\n"
        f"  stock:     {expected}\n  tracesock: {got}"
    )
    return got


def same(
    snippet: Snippet,
    *,
    normalise: Normalise | None = None,
    events: bool = True,
    **values: Any,
) -> Any:
    """AssertionError where the modules differ. Returns tracesock's result, None after an exception.

    `normalise` maps a result to what is compared; `events=False` leaves the audit events out.
    """
    return compare(snippet, normalise, events, values).value


def raises(snippet: Snippet, **values: Any) -> None:
    """As `same`, and an exception is raised."""
    got = compare(snippet, None, True, values)
    assert got.exception is not None, f"{snippet} raised nothing, but returned {got.value!r}"
