"""Puts tracesock under programs that import `socket`, and takes it away again."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from types import FunctionType, ModuleType
from typing import Any

import tracesock
from tracesock import _functions, _stock
from tracesock.dropin import loops, methods, observer, tls
from tracesock.dropin.imports import ImportWatch, settle
from tracesock.dropin.patches import Patches

# What is not in `__all__`, and programs use all the same.
_UNLISTED = (
    "AddressInfo",
    "EAGAIN",
    "EBADF",
    "EWOULDBLOCK",
    "MsgFlag",
    "SocketIO",
    "_GiveupOnSendfile",
    "_LOCALHOST",
    "_LOCALHOST_V6",
    "_blocking_errnos",
    "_fallback_socketpair",
)
# What a module that bound it early goes on using. The other functions of the standard library
# look `socket` up when they are called.
_TELLING = (
    "socket",
    "getaddrinfo",
    "gethostbyaddr",
    "gethostbyname",
    "gethostbyname_ex",
    "getnameinfo",
    "create_connection",
)

# What puts methods that tell an observer into a module, once its class is there.
_OBSERVED = {
    "ssl": ("SSLSocket", tls.observe),
    "asyncio.base_events": ("BaseEventLoop", loops.observe),
    "asyncio.selector_events": ("BaseSelectorEventLoop", loops.observe_selector_loop),
    "trio._core._wakeup_socketpair": ("WakeupSocketpair", loops.observe_trio),
}

# What of _Installation is called once these were imported.
_WATCHED = {
    "ssl": "_put_tls",
    "asyncio.base_events": "_put_asyncio",
    "asyncio.selector_events": "_observe_again",
    "trio._core._wakeup_socketpair": "_observe_again",
    "multiprocessing.reduction": "_put_reducer",
}


class EarlyImportWarning(RuntimeWarning):
    """What came before `install()` stays: what a module imported by name, or put into `socket`."""


class _Installation:
    """What `install()` changed."""

    def __init__(self) -> None:
        self.patches = Patches()
        self._observing = Patches()
        self._stock: dict[str, Any] = dict(vars(_stock.module))
        self.replaced = _replaced()
        self._public: Any = _functions.public
        self._default_timeout = tracesock.getdefaulttimeout()
        self.watch = ImportWatch(
            {name: self._locked(getattr(self, call)) for name, call in _WATCHED.items()}
        )

    def put(self) -> None:
        early = _stock.native.getdefaulttimeout()
        if early is not None:
            tracesock.setdefaulttimeout(early)
        for name, value in _names().items():
            if self._stock.get(name) is not value and name not in self.replaced:
                self.patches.set(_stock.module, name, value)
        _functions.public = _stock.module
        _exchange(self._pairs(), self.patches)
        if "socket" not in self.replaced:
            methods.put(self._stock["socket"], tracesock.socket)
        self.watch.start()
        observer.add_listener(self._observe)

    def take_away(self) -> None:
        observer.remove_listener(self._observe)
        self.watch.stop()
        back = {id(ours): (ours, stock) for stock, ours in self._pairs().values()}
        _functions.public = self._public
        self.patches.restore()
        # What was imported in between has never had anything but ours.
        _exchange(back, Patches())
        if "socket" not in self.replaced:
            self._take_class_away(self._stock["socket"])
        tracesock.setdefaulttimeout(self._default_timeout)

    def _take_class_away(self, stock: type) -> None:
        methods.take_away(stock, tracesock.socket)
        ssl = sys.modules.get("ssl")
        if ssl is not None:
            tls.put(ssl, stock, Patches())
        reduction = sys.modules.get("multiprocessing.reduction")
        if reduction is not None:
            self._register(reduction, stock, Patches())
            reduction.ForkingPickler._extra_reducers.pop(tracesock.socket, None)

    def _pairs(self) -> dict[int, tuple[Any, Any]]:
        """By identity, the functions and classes of `socket` that were replaced, each with ours."""
        return {
            id(patch.previous): (patch.previous, patch.value)
            for patch in self.patches.of(_stock.module)
            if callable(patch.previous)
        }

    def _locked(self, call: Callable[[ModuleType], None]) -> Callable[[ModuleType], None]:
        def locked(module: ModuleType) -> None:
            with observer.lock:
                if _current is self:
                    call(module)

        return locked

    # A module that was loaded twice is patched twice: test helpers do that.

    def _put_tls(self, ssl: ModuleType) -> None:
        if "socket" not in self.replaced:
            tls.put(ssl, tracesock.socket, self.patches)
        self._observe_again()

    def _put_asyncio(self, base_events: ModuleType) -> None:
        loops.put(base_events, self.patches)
        self._observe_again()

    def _put_reducer(self, reduction: ModuleType) -> None:
        self._register(reduction, tracesock.socket, self.patches)

    @staticmethod
    def _register(reduction: ModuleType, cls: type, patches: Patches) -> None:
        reducers = reduction.ForkingPickler._extra_reducers
        if cls not in reducers:
            patches.set(reducers, cls, reduction._reduce_socket)

    def _observe_again(self, _module: ModuleType | None = None) -> None:
        if observer.current is not None:
            self._observe(True)

    def _observe(self, wanted: bool) -> None:
        with observer.lock:
            self._observing.restore()
            if not wanted:
                return
            for name, (needed, observe) in _OBSERVED.items():
                module = sys.modules.get(name)
                if module is not None and hasattr(module, needed):
                    observe(module, self._observing)


_current: _Installation | None = None


def install() -> None:
    """Put tracesock under all that uses the standard library's `socket`.

    The names of the `socket` module become tracesock's, `ssl.SSLSocket` becomes a class over
    tracesock's socket, asyncio's look-ups run in the caller's context, and multiprocessing can send
    the sockets. It does not matter which of these were imported before; but a module that did
    `from socket import socket` or `from ssl import SSLSocket` keeps what it has, and so do sockets
    and subclasses made before; and a function or class that another module has put into `socket`
    stays there. An EarlyImportWarning names each such module. Where `socket.socket` is a class that
    waits in a way of its own, gevent's or eventlet's, the warning says so and nothing is changed.
    Again, it does nothing. `uninstall()` undoes it.
    """
    global _current
    settle(_WATCHED)
    with observer.lock:
        if _current is not None:
            return
        # With the lock: it keeps what it finds.
        installation = _Installation()
        cls = installation.replaced.get("socket")
        if cls is None or _is_socket_class(cls):
            _current = installation
            try:
                installation.put()
            except BaseException:
                _current = None
                installation.take_away()
                raise
    if cls is not None and not _is_socket_class(cls):
        _warn(
            f"socket.socket is {_owner(cls)}.{getattr(cls, '__qualname__', cls)}, which waits in a "
            "way of its own: tracesock.install() changes nothing"
        )
        return
    owners: dict[str, list[str]] = {}
    for name, value in installation.replaced.items():
        owners.setdefault(_owner(value), []).append(name)
    for owner, names in owners.items():
        _warn(
            f"the module {owner!r} has put its own {', '.join(names)} into `socket` before "
            "tracesock.install(): it stays, and what it does by itself is not seen; install "
            "earlier, for example with `tracesock run`"
        )
    for name, kept in _keepers(installation.patches):
        _warn(
            f"the module {name!r} keeps the standard library's {kept}, imported before "
            "tracesock.install(): what it does with that is not seen; install earlier, "
            "for example with `tracesock run`"
        )


def _warn(text: str) -> None:
    warnings.warn(text, EarlyImportWarning, stacklevel=_callers_level())


def _is_socket_class(value: Any) -> bool:
    return issubclass(type(value), type) and issubclass(value, _stock.native.socket)


def _callers_level() -> int:
    """The stacklevel, seen from `install()`, of the first caller outside this package."""
    level = 1
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("tracesock"):
        frame = frame.f_back
        level += 1
    return level


def uninstall() -> None:
    """Undo `install()`: `socket`, `ssl`, asyncio and multiprocessing are as they were.

    Sockets that exist go on working. A module imported in between that did
    `from socket import socket` keeps tracesock's. Again, it does nothing.
    """
    global _current
    with observer.lock:
        if _current is None:
            return
        installation, _current = _current, None
        installation.take_away()


def installed() -> bool:
    """Whether `install()` is in force."""
    return _current is not None


def _setdefaulttimeout(timeout: float | None, /) -> None:
    # For classes that kept the standard library's base, too.
    tracesock.setdefaulttimeout(timeout)
    _stock.native.setdefaulttimeout(timeout)


_setdefaulttimeout.__name__ = _setdefaulttimeout.__qualname__ = "setdefaulttimeout"
_setdefaulttimeout.__doc__ = tracesock.setdefaulttimeout.__doc__
_setdefaulttimeout.__module__ = "socket"


def _names() -> dict[str, Any]:
    """The names that tracesock has for the `socket` module."""
    ours = vars(tracesock)
    names = {name: ours[name] for name in (*tracesock.__all__, *_UNLISTED)}
    names["__all__"] = list(tracesock.__all__)
    names["setdefaulttimeout"] = _setdefaulttimeout
    return names


def _is_stocks(name: str, value: Any) -> bool:
    """Whether it is the standard library's own: of the module `socket`, or of `_socket`."""
    if isinstance(value, FunctionType):
        return value.__globals__ is vars(_stock.module)
    if issubclass(type(value), type) and value.__module__ == "socket":
        return True
    return value is vars(_stock.native).get(name)


def _replaced() -> dict[str, Any]:
    """What somebody has put into `socket` in the place of its functions and classes."""
    names = vars(_stock.module)
    return {
        name: names[name]
        for name, ours in _names().items()
        if callable(ours) and name in names and names[name] is not ours
        if not _is_stocks(name, names[name])
    }


def _owner(value: Any) -> str:
    return getattr(value, "__module__", None) or type(value).__module__


def _standard_library() -> Iterator[ModuleType]:
    for name, module in list(sys.modules.items()):
        if not isinstance(module, ModuleType) or module in (_stock.module, _stock.native):
            continue
        if name.partition(".")[0] in sys.stdlib_module_names:
            yield module


def _exchange(pairs: dict[int, tuple[Any, Any]], patches: Patches) -> None:
    """In the standard library's modules, what they bound with `from socket import ...`."""
    for module in _standard_library():
        for name, value in list(vars(module).items()):
            pair = pairs.get(id(value))
            if pair is not None:
                patches.set(module, name, pair[1])


def _keepers(patches: Patches) -> list[tuple[str, str]]:
    """The modules that hold what was replaced, each with what it holds."""
    kept = {
        id(value): name for name in _TELLING if (value := patches.previous(_stock.module, name))
    }
    ssl = sys.modules.get("ssl")
    old_tls = patches.previous(ssl, "SSLSocket") if ssl is not None else None
    if old_tls is not None:
        kept[id(old_tls)] = "SSLSocket"
    found: dict[str, set[str]] = {}
    for name, module in list(sys.modules.items()):
        top = name.partition(".")[0]
        if not isinstance(module, ModuleType) or top == "tracesock":
            continue
        if top in sys.stdlib_module_names and name != "__main__":
            continue
        names = {kept[id(value)] for value in list(vars(module).values()) if id(value) in kept}
        if names:
            found[name] = names
    for base in (patches.previous(_stock.module, "socket"), old_tls):
        for cls in base.__subclasses__() if base is not None else ():
            if cls is not old_tls:
                found.setdefault(cls.__module__, set()).add(f"class under its {cls.__qualname__}")
    return [(name, ", ".join(sorted(names))) for name, names in sorted(found.items())]
