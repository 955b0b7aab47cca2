"""What `tracesock run` asks for: policy, log and learning from the environment."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Mapping
from typing import Any, Final

from tracesock import _native
from tracesock.audit import pipeline
from tracesock.audit.chain import Key
from tracesock.audit.learn import LearnSink
from tracesock.audit.logfile import FileSink
from tracesock.audit.otel import OpenTelemetrySink
from tracesock.audit.policy import PolicyError, load_policy, reload_on_hangup
from tracesock.audit.syslog import SyslogSink
from tracesock.audit.text import clean, printable

_audit: Any = _native.audit
FAILED: Final = 2

# Name and meaning of each variable: docs/reference/audit-events.md lists them.
VARIABLES: Final = (
    ("TRACESOCK_POLICY", "a policy file; SIGHUP reads it again. `--policy` of `tracesock run`"),
    ("TRACESOCK_AUDIT_LOG", "a log file. `--audit-log`"),
    ("TRACESOCK_LEARN", "where to write the policy that the run needed. `--learn`"),
    ("TRACESOCK_AUDIT_FORMAT", "`jsonl` (default), `ocsf`, `ecs` or `otlp`"),
    ("TRACESOCK_AUDIT_WHEN_FULL", "`block` (default), `drop` or `fail_closed`"),
    ("TRACESOCK_AUDIT_ROTATE", "bytes after which the log is put aside; never where not set"),
    ("TRACESOCK_AUDIT_KEEP", "how many files to keep that were put aside; all where not set"),
    ("TRACESOCK_AUDIT_KEY", "a file, readable by its owner only, with the key that signs tips"),
    ("TRACESOCK_AUDIT_TIPS", "a file to print tips to, or `stderr`"),
    ("TRACESOCK_AUDIT_TIP_INTERVAL", "seconds between tips, 60 where not set"),
    ("TRACESOCK_AUDIT_SYNC", "`1`: wait for the disk after each write"),
    ("TRACESOCK_AUDIT_SYSLOG", "a syslog server: `udp://`, `tcp://` or `unix://`"),
    ("TRACESOCK_AUDIT_SYSLOG_WHEN_FULL", "`drop` (default), `block` or `fail_closed`"),
    (
        "TRACESOCK_AUDIT_OTEL",
        "`1`: records as OpenTelemetry log records too; they wait until the program has set its "
        "logger provider",
    ),
)


def _number(environment: Mapping[str, str], name: str) -> float | None:
    text = environment.get(name)
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{name}: {text!r} is no number") from None


def _integer(environment: Mapping[str, str], name: str) -> int | None:
    value = _number(environment, name)
    if value is not None and value != int(value):
        raise ValueError(f"{name}: {environment[name]!r} is no whole number")
    return None if value is None else int(value)


def _choice(environment: Mapping[str, str], name: str, default: str) -> str:
    choice = (environment.get(name) or default).replace("-", "_")
    if choice not in pipeline.WHEN_FULL:
        raise ValueError(f"{name}: one of {', '.join(pipeline.WHEN_FULL)}, not {choice!r}")
    return choice


def configure(environment: Mapping[str, str]) -> None:
    """Sets up what the variables ask for.

    Raises OSError, ValueError (a PolicyError is one), ImportError.
    """
    key = None
    if path := environment.get("TRACESOCK_AUDIT_KEY"):
        key = Key.read(path)
    form = environment.get("TRACESOCK_AUDIT_FORMAT") or "jsonl"
    if path := environment.get("TRACESOCK_AUDIT_LOG"):
        interval = _number(environment, "TRACESOCK_AUDIT_TIP_INTERVAL")
        log = FileSink(
            path,
            format=form,
            rotate_bytes=_integer(environment, "TRACESOCK_AUDIT_ROTATE"),
            keep=_integer(environment, "TRACESOCK_AUDIT_KEEP"),
            key=key,
            tips=environment.get("TRACESOCK_AUDIT_TIPS") or None,
            tip_interval=60.0 if interval is None else interval,
            sync=environment.get("TRACESOCK_AUDIT_SYNC") == "1",
        )
        pipeline.add_sink(log, _choice(environment, "TRACESOCK_AUDIT_WHEN_FULL", "block"))
    if address := environment.get("TRACESOCK_AUDIT_SYSLOG"):
        pipeline.add_sink(
            SyslogSink(address, format=form, key=key),
            _choice(environment, "TRACESOCK_AUDIT_SYSLOG_WHEN_FULL", "drop"),
        )
    if environment.get("TRACESOCK_AUDIT_OTEL") == "1":
        pipeline.add_sink(OpenTelemetrySink(), "drop")
    if path := environment.get("TRACESOCK_LEARN"):
        pipeline.add_sink(LearnSink(path), "block")
    # The last: the log tells which policy it was.
    if path := environment.get("TRACESOCK_POLICY"):
        # Nobody has a reason to hold stock sockets in a process that started on tracesock's.
        _audit.guard(process=True)
        load_policy(path)
        if threading.current_thread() is threading.main_thread():
            reload_on_hangup()


def configure_from_environment() -> None:
    """The same with the process's environment. Where that fails, the program must not start: one
    line on standard error, and the process ends with the status 2.

    It ends without the interpreter's exit functions: while the interpreter starts, which is when
    `tracesock run` calls this, SystemExit would be another status and a traceback.
    """
    try:
        configure(os.environ)
    except Exception as error:
        kind = "policy refused" if isinstance(error, PolicyError) else "audit cannot start"
        text = str(error) or repr(error)
        if isinstance(error, OSError) and error.strerror:
            text = f"{error.filename or ''}: {error.strerror}".removeprefix(": ")
        if isinstance(error, PolicyError):
            with contextlib.suppress(Exception):
                pipeline.note("policy", {"outcome": "refused", "reason": clean(text, 400)})
        pipeline.close()
        sys.stdout.flush()
        print(f"tracesock: {kind}: {printable(text, 1000)}", file=sys.stderr, flush=True)
        os._exit(FAILED)
