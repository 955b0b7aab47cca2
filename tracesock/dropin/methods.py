"""Methods that somebody took from the socket class: `send = socket.socket.send`, in a closure.

trio makes its own methods so when it is imported. A method of the standard library's class cannot
read the state of tracesock's socket, nor the other way round.
"""

from __future__ import annotations

import gc
import sys
from types import CellType
from typing import Any

from tracesock import _native, _stock


def _pairs(before: type, after: type) -> dict[int, tuple[Any, Any]]:
    """By identity, the methods of `before`, each with what `after` has under the name."""
    names = {*vars(_stock.native.socket), *vars(before)}
    return {
        id(method): (method, getattr(after, name))
        for name in names
        if not name.startswith("__")
        and callable(method := getattr(before, name))
        and getattr(after, name, method) is not method
    }


def exchange(before: type, after: type) -> None:
    """Put methods of `after` where closures hold those of `before`."""
    pairs = _pairs(before, after)
    cells = gc.get_referrers(*(method for method, _ in pairs.values()))
    for cell in cells:
        if isinstance(cell, CellType):
            pair = pairs.get(id(cell.cell_contents))
            if pair is not None:
                cell.cell_contents = pair[1]


def _taken() -> bool:
    """Whether anything but its class holds a method of the standard library's native socket."""
    own = [each for each in vars(_stock.native.socket).values() if hasattr(each, "__objclass__")]
    counts = {sys.getrefcount(each) for each in own}
    return len(counts) > 1


def put(before: type, after: type) -> None:
    """Make methods that were taken from `before` work on instances of `after`."""
    if not _taken():
        return
    exchange(before, after)
    # What holds some in another way gets sockets in which they find what they read.
    _native.fill_all(_taken())


def take_away(before: type, after: type) -> None:
    """Undo it, also for who took methods of `after` in between."""
    _native.fill_all(False)
    exchange(after, before)
