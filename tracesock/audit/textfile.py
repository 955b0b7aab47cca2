"""The result of a verification as metrics in Prometheus's text format.

For the textfile collector of the node exporter, or any server of static files: the labels `job` and
`instance` are written out, as instrumented processes have them, so that a scrape with
`honor_labels: true` puts the logs beside the service's other metrics.
"""

from __future__ import annotations

import os
import platform
import tempfile
import time

from tracesock.audit.text import clean
from tracesock.audit.verify import Verification


def write_textfile(path: str, found: Verification, *, log: str, service: str) -> None:
    """Writes the metrics of one log, in one step: a scrape sees the old file or the new.

    `log` is the path that was verified, of which the last part becomes a label. Raises OSError.
    """
    labels = ",".join(
        f"{name}={_quoted(value)}"
        for name, value in (
            ("job", service),
            ("instance", platform.node()),
            ("log", os.path.basename(log)),
        )
    )
    lines = []
    for name, help_text, value in (
        ("intact", "Whether the audit log is what was written: 1 or 0.", int(found.intact)),
        ("records", "Records that the audit log has.", found.last - found.first + 1),
        ("problems", "Places in which the audit log is not what was written.", len(found.problems)),
        ("verified_timestamp_seconds", "When the audit log was verified.", round(time.time(), 3)),
    ):
        lines += [
            f"# HELP tracesock_audit_log_{name} {help_text}",
            f"# TYPE tracesock_audit_log_{name} gauge",
            f"tracesock_audit_log_{name}{{{labels}}} {value}",
        ]
    folder = os.path.dirname(os.path.abspath(path))
    descriptor, temporary = tempfile.mkstemp(prefix=".tracesock-", dir=folder)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
        os.chmod(temporary, 0o644)  # whoever serves it is another user
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _quoted(value: str) -> str:
    value = clean(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{value}"'
