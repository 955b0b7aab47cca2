"""Methods that somebody took from the socket class: `send = socket.socket.send`, in a closure.

trio makes its own methods so when it is imported, and who wraps a method of the class keeps the one
before. A method of the standard library's class cannot read the state of tracesock's socket, nor
the other way round; and both kinds of sockets may meet in one place, where some were made before
`install()` or `uninstall()` was called.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from types import CellType, ModuleType
from typing import Any

from tracesock import _native, _stock

# By identity of the method taken: it, and what stands in its place. They are kept for good, so that
# a later call finds what an earlier one has put.
_of_stock: dict[int, tuple[Any, Any]] = {}
_of_ours: dict[int, tuple[Any, Any]] = {}


def _either(theirs: Any, ours: Any, taken: Any) -> Callable[..., Any]:
    """A function that calls the method of the socket's own kind."""
    # In one tuple: a cell that held a method would be taken for a place to put this in.
    kinds, native = (theirs, ours), _native.Socket

    def method(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        return kinds[isinstance(self, native)](self, *args, **kwargs)

    method.__name__ = taken.__name__
    method.__qualname__ = taken.__qualname__
    method.__doc__ = taken.__doc__
    return method


def _pair(theirs: type, ours: type) -> None:
    """Make what stands in the place of a method of the two classes, where there is none yet."""
    for name in {*vars(_stock.native.socket), *vars(theirs)}:
        if name.startswith("__") or not callable(method := getattr(theirs, name)):
            continue
        other = getattr(ours, name, method)
        if other is method:
            continue
        if id(method) not in _of_stock:
            _of_stock[id(method)] = (method, _either(method, other, method))
        if id(other) not in _of_ours:
            _of_ours[id(other)] = (other, _either(method, other, other))


def _in_closures(places: dict[int, tuple[Any, Any]]) -> None:
    """In closures, put what `places` has in the place of the methods."""
    for cell in gc.get_referrers(*(taken for taken, _ in places.values())):
        if isinstance(cell, CellType):
            place = places.get(id(cell.cell_contents))
            if place is not None:
                cell.cell_contents = place[1]


def _in_names(places: dict[int, tuple[Any, Any]]) -> None:
    """The same in attributes of modules, and of classes that are no sockets."""
    for holder in gc.get_objects():
        # The type's own word for it: what isinstance() asks may be a proxy's.
        if issubclass(type(holder), ModuleType):
            # Not by the module's own look-up: one that is to be loaded when it is used would be.
            names = ModuleType.__getattribute__(holder, "__dict__")
            if str(names.get("__name__")).partition(".")[0] == "tracesock":
                continue
        elif issubclass(type(holder), type) and not issubclass(holder, _native.Socket):
            names = vars(holder)
        else:
            continue
        for name, value in list(names.items()):
            static = isinstance(value, staticmethod)
            place = places.get(id(value.__func__ if static else value))
            if place is not None:
                setattr(holder, name, staticmethod(place[1]) if static else place[1])


def _taken() -> bool:
    """Whether anything but its class holds a method of the standard library's native socket."""
    own = [each for each in vars(_stock.native.socket).values() if hasattr(each, "__objclass__")]
    # What has a pair here has as many references more as every other that has one.
    counts = {(id(each) in _of_stock, sys.getrefcount(each)) for each in own}
    return len(counts) > len({paired for paired, _ in counts})


def _any_left(cls: type) -> bool:
    """Whether there are sockets of this class or one under it."""
    return any(issubclass(type(each), cls) for each in gc.get_objects())


def put(before: type, after: type) -> None:
    """Make methods that were taken from `before` work on instances of `after`."""
    if not _taken():
        return
    _pair(before, after)
    _in_closures(_of_stock)
    # What holds some in another way gets sockets in which they find what they read.
    _native.fill_all(_taken())


def take_away(before: type, after: type) -> None:
    """Undo it, also for who took methods of `after` in between."""
    _native.fill_all(False)
    if not _any_left(after):
        _in_closures({id(place): (place, method) for method, place in _of_stock.values()})
    _pair(before, after)
    _in_closures(_of_ours)
    _in_names(_of_ours)
