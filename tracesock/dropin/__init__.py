"""Tracesock under programs that were written for `socket`."""

from __future__ import annotations

from tracesock.dropin.install import EarlyImportWarning, install, installed, uninstall
from tracesock.dropin.observer import Observer, set_observer

__all__ = [
    "EarlyImportWarning",
    "Observer",
    "install",
    "installed",
    "set_observer",
    "uninstall",
]
