"""TLS sockets that are tracesock sockets.

`__bases__` of ssl.SSLSocket cannot be assigned: its layout is the base's. So a new class is made
from the namespace of the old one, in which every function that uses `super()` has a cell of its
own for `__class__`. The functions' code stays the standard library's.
"""

from __future__ import annotations

import threading
from functools import wraps
from types import CellType, FunctionType, ModuleType
from typing import Any

from tracesock import _stock
from tracesock.dropin.observer import tell
from tracesock.dropin.patches import Patches


def rebase(cls: type, base: type) -> type:
    """A class like `cls`, with `base` in place of its first base."""
    cell = CellType()
    names = {
        name: _with_cell(value, cls, cell)
        for name, value in vars(cls).items()
        if name not in ("__dict__", "__weakref__")
    }
    made: type = type(cls)(cls.__name__, (base, *cls.__bases__[1:]), names)
    cell.cell_contents = made
    return made


def _with_cell(value: Any, cls: type, cell: CellType) -> Any:
    """`value`, with `cell` in the functions whose `__class__` is `cls`."""
    if isinstance(value, FunctionType):
        return _function_with_cell(value, cls, cell)
    if isinstance(value, property):
        parts = [_with_cell(part, cls, cell) for part in (value.fget, value.fset, value.fdel)]
        if parts == [value.fget, value.fset, value.fdel]:
            return value
        make: Any = type(value)
        return make(*parts, value.__doc__)
    if isinstance(value, (classmethod, staticmethod)):
        inner = _with_cell(value.__func__, cls, cell)
        return value if inner is value.__func__ else type(value)(inner)
    return value


def _is_cell_of(cell: CellType, cls: type) -> bool:
    try:
        return cell.cell_contents is cls
    except ValueError:  # empty
        return False


def _function_with_cell(function: FunctionType, cls: type, cell: CellType) -> FunctionType:
    old = function.__closure__ or ()
    closure = tuple(
        cell if name == "__class__" and _is_cell_of(inner, cls) else inner
        for name, inner in zip(function.__code__.co_freevars, old, strict=True)
    )
    if closure == old:
        return function
    return _copy(function, function.__globals__, closure)


def _copy(
    function: FunctionType, names: dict[str, Any], closure: tuple[CellType, ...] | None
) -> FunctionType:
    made = FunctionType(function.__code__, names, function.__name__, function.__defaults__, closure)
    made.__kwdefaults__ = function.__kwdefaults__
    made.__qualname__ = function.__qualname__
    made.__module__ = function.__module__
    made.__doc__ = function.__doc__
    # 3.14 evaluates annotations when asked: copied as they are, not evaluated.
    if getattr(function, "__annotate__", None) is not None:
        made.__annotate__ = function.__annotate__  # type: ignore[attr-defined]
    else:
        made.__annotations__ = function.__annotations__
    if hasattr(function, "__type_params__"):  # 3.12
        made.__type_params__ = function.__type_params__  # type: ignore[attr-defined]
    made.__dict__.update(function.__dict__)
    return made


class _ClassNames(dict[str, Any]):
    """A module's globals, live, in which SSLSocket is one class for good."""

    def __init__(self, module: dict[str, Any], cls: type) -> None:
        super().__init__({"SSLSocket": cls})
        self.module = module

    def __missing__(self, name: str) -> Any:
        return self.module[name]


def _of_class(create: FunctionType, cls: type) -> FunctionType:
    """SSLSocket._create, for which the module's name `SSLSocket` is `cls`."""
    names = create.__globals__
    if isinstance(names, _ClassNames):
        names = names.module
    return _copy(create, _ClassNames(names, cls), create.__closure__)


def _is_sockets(cls: Any) -> bool:
    # Another's class, over one that waits in a way of its own or over `ssl`'s, is left to it.
    return issubclass(cls, _stock.native.socket) and cls.__module__ == "socket"


def put(ssl: ModuleType, base: type, patches: Patches) -> None:
    """Make `ssl`'s socket class one over `base`, in every place that the module has for it."""
    old = vars(ssl).get("SSLSocket")
    if not isinstance(old, type) or base in old.__mro__ or not _is_sockets(old.__base__):
        return
    new = rebase(old, base)
    context = ssl.SSLContext
    patches.set(ssl, "SSLSocket", new)
    if vars(context).get("sslsocket_class") is old:
        patches.set(context, "sslsocket_class", new)
    # `super(SSLSocket, self)` in it finds the class by the module's name for it, which becomes
    # another one: subclasses that were made of either go on with theirs.
    create = vars(old).get("_create")
    if isinstance(create, classmethod) and isinstance(create.__func__, FunctionType):
        patches.set(old, "_create", classmethod(_of_class(create.__func__, old)))
        new._create = classmethod(_of_class(create.__func__, new))  # type: ignore[attr-defined]


# --- what an observer is told ---------------------------------------------------------------------

_HANDSHAKE = "_tracesock_handshake"  # in the object's own dictionary, while a handshake goes on
_inside = threading.local()  # .sendall: the one whose sends this thread is making


def observe(ssl: ModuleType, patches: Patches) -> None:
    """Put methods that tell the observer into `ssl`'s classes.

    What goes through an SSLObject comes from and goes to a socket of asyncio's, anyio's or trio's,
    which tells of it itself: only its handshake is told.
    """
    want = (ssl.SSLWantReadError, ssl.SSLWantWriteError)
    for cls in (ssl.SSLSocket, ssl.SSLObject):
        patches.set(cls, "do_handshake", _handshake(vars(cls)["do_handshake"], want))
    names = vars(ssl.SSLSocket)
    patches.set(ssl.SSLSocket, "read", _reading(names["read"]))
    for name in ("write", "send", "sendall"):
        patches.set(ssl.SSLSocket, name, _sending(name, names[name]))


def _handshake(original: Any, want: tuple[type[BaseException], ...]) -> Any:
    @wraps(original)
    def do_handshake(self: Any, *args: Any, **kwargs: Any) -> Any:
        state = vars(self)
        if _HANDSHAKE not in state:
            state[_HANDSHAKE] = tell("handshake_started", self)
        error: BaseException | None = None
        try:
            return original(self, *args, **kwargs)
        except BaseException as raised:
            error = raised
            raise
        finally:
            if not isinstance(error, want):
                token = state.pop(_HANDSHAKE, None)
                if token is not None:
                    tell("handshake_ended", self, token, error)
            # The exception holds this frame, and the frame holds it.
            error = None

    return do_handshake


def _reading(original: Any) -> Any:
    @wraps(original)
    def read(self: Any, len: int = 1024, buffer: Any = None) -> Any:
        result = original(self, len, buffer)
        tell("received", self, result if buffer is not None else result.__len__())
        return result

    return read


def _size(data: Any) -> int:
    try:
        return memoryview(data).nbytes
    except TypeError:
        return 0  # the call will say what is wrong with it


class _Sendall:
    """A sendall() in progress, and what its sends have taken."""

    __slots__ = ("sent", "tls")

    def __init__(self, tls: Any) -> None:
        self.tls = tls
        self.sent = 0


def _sending(call: str, original: Any) -> Any:
    whole = call == "sendall"

    @wraps(original)
    def send(self: Any, data: Any, *args: Any, **kwargs: Any) -> Any:
        # Without TLS the native socket sees it.
        if getattr(self, "_sslobj", None) is None:
            return original(self, data, *args, **kwargs)
        outer: _Sendall | None = getattr(_inside, "sendall", None)
        if outer is not None and outer.tls is self and not whole:
            taken: int = original(self, data, *args, **kwargs)
            outer.sent += taken
            return taken
        size = _size(data)
        token = tell("send_started", self, call, size)
        inner = _Sendall(self)
        error: BaseException | None = None
        try:
            if whole:
                _inside.sendall = inner
            result = original(self, data, *args, **kwargs)
            inner.sent = size if whole else result
            return result
        except BaseException as raised:
            error = raised
            raise
        finally:
            if whole:
                _inside.sendall = outer
            if token is not None:
                tell("send_ended", self, token, inner.sent, error)
            error = None

    return send
