"""The embedded dashboard: an OTLP receiver, a store in SQLite and the pages that show it.

The package is an OTLP server, nothing else: what it shows came over the wire, so it works for any
OpenTelemetry SDK and needs neither the extension nor the instrumentation of this process. The form
in which live connections, audit decisions and health figures arrive is `docs/reference/
dashboard-data.md`; `names.py` holds those names.
"""

from __future__ import annotations

from typing import Final

# The dashboard's own port, and the one where OTLP over HTTP is expected.
DEFAULT_PORT: Final = 8318
OTLP_PORT: Final = 4318
