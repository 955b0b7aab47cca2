"""What happens in a process that starts with tracesock in its environment.

`environment()` is the way in: variables that make every Python process started with them run
autoload/sitecustomize.py, and that calls `start()` before the program's first line.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

DIRECTORY = str(Path(__file__).parent / "autoload")

# Called in this order after install(). A module that is not there is left out: tracesock without
# OpenTelemetry still runs programs.
_STEPS = (("tracesock.instrumentation", "instrument_from_environment"),)


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables to add to `environ` so that a Python process has tracesock in place."""
    others = [
        entry
        for entry in environ.get("PYTHONPATH", "").split(os.pathsep)
        if entry and os.path.abspath(entry) != DIRECTORY
    ]
    return {"PYTHONPATH": os.pathsep.join([DIRECTORY, *others])}


def start() -> None:
    """Install tracesock, and turn on what the environment asks for."""
    from tracesock.dropin.install import install

    install()
    if _makes_no_connection():
        return
    if asks_for_audit(os.environ):
        from tracesock.audit import configure_from_environment

        configure_from_environment()
    if _disabled():
        return
    for module, function in _STEPS:
        try:
            call = getattr(import_module(module), function)
        except (ImportError, AttributeError) as error:
            if _wanted():
                sys.stderr.write(f"tracesock: not instrumented: {error}\n")
            continue
        call()


def asks_for_audit(environ: Mapping[str, str]) -> bool:
    """Whether a program that starts with `environ` must not run without what is asked for."""
    prefixes = ("TRACESOCK_POLICY", "TRACESOCK_AUDIT_", "TRACESOCK_LEARN")
    return any(value and name.startswith(prefixes) for name, value in environ.items())


def _makes_no_connection() -> bool:
    """Whether this is a helper process of multiprocessing that only counts what others leave."""
    return any("multiprocessing.resource_tracker" in word for word in sys.orig_argv[:8])


def _disabled() -> bool:
    """Whether OpenTelemetry need not even be imported."""
    return os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def _wanted() -> bool:
    """Whether the environment names an exporter, so that being without one is worth a line."""
    chosen = [os.environ.get(f"OTEL_{signal}_EXPORTER", "") for signal in ("TRACES", "METRICS")]
    return any(name not in ("", "none") for name in chosen)
