"""A signal at one line of a program after the other."""

from __future__ import annotations

import signal
import sys
from typing import Any


class SignalAt:
    """A trace function (sys.settrace) that raises a signal at the `left`th line that is run of the
    code in a folder, and is none any more then."""

    def __init__(self, number: signal.Signals, folder: str, left: int) -> None:
        self.left = left
        self._number = number
        self._folder = folder

    def __call__(self, frame: Any, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(self._folder):
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                sys.settrace(None)
                signal.raise_signal(self._number)
        return self
