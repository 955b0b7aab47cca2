"""tracesock as an instrumentation of OpenTelemetry's: for `opentelemetry-instrument`, and for
programs that turn all their instrumentations on in one way.

Needs the package `opentelemetry-instrumentation` (`pip install tracesock[instrumentation]`).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

# The module tells type checkers to look away.
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]

import tracesock
from tracesock import dropin


class TracesockInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """Puts tracesock under the program and turns its telemetry on.

    `TracesockInstrumentor().instrument()` takes what `tracesock.instrument()` takes:
    `tracer_provider`, `meter_provider`, and the settings of `tracesock.instrumentation.Config`.
    It is the entry point `tracesock` of the group `opentelemetry_instrumentor`, so that
    `opentelemetry-instrument` finds it and OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=tracesock leaves
    it out.
    """

    _installed = False

    def instrumentation_dependencies(self) -> Collection[str]:
        """None: what is instrumented is the standard library's."""
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        """Raises what `tracesock.instrument()` raises, and then leaves `socket` as it was."""
        installed = not dropin.installed()
        tracesock.install()
        try:
            tracesock.instrument(**kwargs)
        except BaseException:
            if installed:
                tracesock.uninstall()
            raise
        self._installed = installed

    def _uninstrument(self, **kwargs: Any) -> None:
        """Undoes `instrument()`; an installation that was there before it stays."""
        tracesock.uninstrument()
        if self._installed:
            self._installed = False
            tracesock.uninstall()
