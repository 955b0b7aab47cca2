"""The audit: subscriptions to events, egress and ingress policy, records that can be trusted.

    from tracesock import audit

    audit.open_log("audit.jsonl")
    audit.load_policy("egress.toml")
    with audit.subscribe(print, events="socket.connect", peers="10.0.0.0/8"):
        ...

What is judged, recorded and told is described in docs/explanation/audit.md; the events and the
fields of records in docs/reference/audit-events.md; how to write a policy in
docs/how-to/egress-policy.md.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tracesock.audit.chain import Key
from tracesock.audit.environment import configure_from_environment
from tracesock.audit.learn import learn
from tracesock.audit.logfile import FileSink, LogError
from tracesock.audit.pipeline import Sink, Stats, add_sink, close, flush, remove_sink, stats
from tracesock.audit.policy import (
    Policy,
    PolicyError,
    Rule,
    Verdict,
    clear_policy,
    current_policy,
    decisions,
    load_policy,
    read_policy,
    reload_on_hangup,
    reload_policy,
    use_policy,
)
from tracesock.audit.records import Endpoint, Record
from tracesock.audit.subscription import Subscription, subscribe
from tracesock.audit.verify import Problem, Verification, verify

if TYPE_CHECKING:
    from tracesock.audit.otel import OpenTelemetrySink as OpenTelemetrySink
    from tracesock.audit.syslog import SyslogSink as SyslogSink

__all__ = [
    "Endpoint",
    "FileSink",
    "Key",
    "LogError",
    "Policy",
    "PolicyError",
    "Problem",
    "Record",
    "Rule",
    "Sink",
    "Stats",
    "Subscription",
    "Verdict",
    "Verification",
    "add_sink",
    "clear_policy",
    "close",
    "configure_from_environment",
    "current_policy",
    "decisions",
    "flush",
    "learn",
    "load_policy",
    "open_log",
    "open_syslog",
    "read_policy",
    "reload_on_hangup",
    "reload_policy",
    "remove_sink",
    "stats",
    "subscribe",
    "use_policy",
    "verify",
]


def open_log(
    path: str | os.PathLike[str],
    *,
    format: str = "jsonl",
    when_full: str = "block",
    rotate_bytes: int | None = None,
    keep: int | None = None,
    key: str | os.PathLike[str] | None = None,
    tips: str | None = None,
    tip_interval: float = 60.0,
    sync: bool = False,
) -> FileSink:
    """Records every decision, and the events around it, in a file from now on.

    `format`: jsonl, ocsf, ecs or otlp. `when_full`: what happens when the file cannot be written
    as fast as calls are made: "block", "drop" or "fail_closed". `rotate_bytes` and `keep`: see
    FileSink. `key`: a file with the key that signs tips, `tips` a file, or "stderr", to print them
    to, every `tip_interval` seconds. `sync`: wait for the disk after each write.

    Returns the sink, for remove_sink(). Raises OSError; LogError where the file is no log, or one
    that was damaged; ValueError for a wrong argument.
    """
    sink = FileSink(
        path,
        format=format,
        rotate_bytes=rotate_bytes,
        keep=keep,
        key=None if key is None else Key.read(key),
        tips=tips,
        tip_interval=tip_interval,
        sync=sync,
    )
    add_sink(sink, when_full)
    return sink


def open_syslog(
    address: str,
    *,
    format: str = "jsonl",
    when_full: str = "drop",
    key: str | os.PathLike[str] | None = None,
) -> SyslogSink:
    """Sends every record to a syslog server from now on: udp://, tcp:// or unix://.

    The other arguments are those of open_log(). Raises OSError and ValueError.
    """
    from tracesock.audit.syslog import SyslogSink

    sink = SyslogSink(address, format=format, key=None if key is None else Key.read(key))
    add_sink(sink, when_full)
    return sink
