"""Every event that the audit knows: the documented ones of the standard library, and tracesock's.

The one place for their names, arguments and moments: `docs/reference/audit-events.md` is made of
it (`python -m tracesock.audit.catalogue`), and so are the checks of `subscribe()`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from tracesock import _native

_audit: Any = _native.audit


@dataclass(frozen=True, slots=True)
class Documented:
    """An event of the standard library's documentation, raised at the same moment here."""

    name: str
    arguments: tuple[str, ...]
    raised_by: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Recorded:
    """An event of tracesock's own records."""

    name: str
    when: str
    fields: str


DOCUMENTED: Final = (
    Documented(
        "socket.__new__",
        ("self", "family", "type", "protocol"),
        "`socket()`, and through it `accept`, `dup`, `fromfd`, `socketpair` (twice),"
        " `create_connection`, `create_server`",
        "before the descriptor is made or adopted; -1 for what is read from a descriptor",
    ),
    Documented("socket.bind", ("self", "address"), "`bind`"),
    Documented("socket.connect", ("self", "address"), "`connect`, `connect_ex`"),
    Documented("socket.sendto", ("self", "address"), "`sendto`"),
    Documented(
        "socket.sendmsg", ("self", "address"), "`sendmsg`", "None where no address is given"
    ),
    Documented(
        "socket.getaddrinfo", ("host", "port", "family", "type", "protocol"), "`getaddrinfo`"
    ),
    Documented("socket.getnameinfo", ("sockaddr",), "`getnameinfo`"),
    Documented("socket.gethostbyname", ("hostname",), "`gethostbyname`, `gethostbyname_ex`"),
    Documented("socket.gethostbyaddr", ("ip_address",), "`gethostbyaddr`"),
    Documented("socket.gethostname", (), "`gethostname`"),
    Documented("socket.getservbyname", ("servicename", "protocolname"), "`getservbyname`"),
    Documented("socket.getservbyport", ("port", "protocolname"), "`getservbyport`"),
    Documented("socket.sethostname", ("name",), "`sethostname`", "the name as bytes"),
)

_CALL: Final = "action, rule, direction, outcome, error, duration, peer, host, transport"

RECORDED: Final = (
    Recorded(
        "tracesock.connect",
        "`connect` and `connect_ex` have ended, or were denied. A connect that does not wait has"
        " the outcome `in_progress`",
        _CALL,
    ),
    Recorded(
        "tracesock.connected",
        "how a connect that did not wait has ended: the program read `SO_ERROR`, or moved bytes",
        "direction, outcome, error, duration, peer, local, host, transport",
    ),
    Recorded("tracesock.sendto", "`sendto` has ended, or was denied", _CALL),
    Recorded(
        "tracesock.sendmsg",
        "`sendmsg` with an address has ended, or was denied; without one as `tracesock.send`",
        _CALL,
    ),
    Recorded(
        "tracesock.send",
        "the first `send` or `sendall` of a datagram socket whose peer the policy in force has not"
        " judged yet, and each one that is denied",
        _CALL,
    ),
    Recorded("tracesock.sendfile", "as `tracesock.send`, of `sendfile`", _CALL),
    Recorded(
        "tracesock.accept",
        "a connection was accepted, or closed at once because the policy denies it",
        "action, rule, direction, outcome, peer, local, host, transport",
    ),
    Recorded("tracesock.listen", "a socket listens", "outcome, local, transport"),
    Recorded(
        "tracesock.close",
        "a connected socket was closed, by the program or the garbage collector. The duration is"
        " the connection's; `abandoned`: its connect was still in progress",
        "outcome, duration, bytes, peer, local, host, transport",
    ),
    Recorded(
        "tracesock.audit.policy",
        "a policy was put into force, removed, or refused at a reload",
        "outcome (`loaded`, `removed`, `refused`), policy (path, sha256, mode, default, rules),"
        " reason",
    ),
    Recorded("tracesock.audit.begin", "the first record of a log", "chain, version"),
    Recorded(
        "tracesock.audit.continue",
        "the first record of a file after a rotation",
        "chain, version, oldest (number of the first record that is kept), tip",
    ),
    Recorded("tracesock.audit.rotate", "the last record of a file that was put aside", "tip"),
    Recorded(
        "tracesock.audit.open",
        "a process begins to write",
        "program, user, machine, python, tracesock, parent (process id), tip",
    ),
    Recorded(
        "tracesock.audit.close",
        "a process has written all it will",
        "totals (emitted, dropped, lost, refused), tip",
    ),
    Recorded(
        "tracesock.audit.recovered",
        "what a killed process had not written was written by another; stands for its `close`",
        "recovered (its source), recovered_pid, records, totals",
    ),
    Recorded(
        "tracesock.audit.gap",
        "records were dropped because this sink could not keep up, or lost",
        "gap (first, last, count, reason)",
    ),
    Recorded(
        "tracesock.audit.cut",
        "the unfinished line of a killed process was removed",
        "cut_bytes",
    ),
    Recorded("tracesock.audit.tip", "a state of the chain, signed where there is a key", "tip"),
)

DOCUMENTED_NAMES: Final = tuple(event.name for event in DOCUMENTED)
RECORDED_NAMES: Final = tuple(event.name for event in RECORDED)
# The extension knows the same events, in the order in which it looks for them.
_BITS: Final = {name: 1 << index for index, name in enumerate(_audit.EVENTS)}
_OTHER: Final = 1 << len(_BITS)


def select(patterns: tuple[str, ...]) -> tuple[int, frozenset[str]]:
    """The documented events, as the extension's bits, and the recorded ones that match.

    A pattern is a name or a shell pattern ("socket.*", "tracesock.con*"). Raises ValueError for
    one that matches nothing.
    """
    bits = 0
    recorded: set[str] = set()
    for pattern in patterns:
        documented = [name for name in DOCUMENTED_NAMES if fnmatchcase(name, pattern)]
        own = [name for name in RECORDED_NAMES if fnmatchcase(name, pattern)]
        if not documented and not own:
            raise ValueError(f"no event is called {pattern!r}")
        for name in documented:
            bits |= _BITS[name]
        if pattern in ("*", "socket.*"):
            bits |= _OTHER
        recorded.update(own)
    return bits, frozenset(recorded)


# --- the page -------------------------------------------------------------------------------------

_FIELDS: Final = (
    ("seq", "integer", "number in the log, from 1, without a gap"),
    ("time", "text", "RFC 3339 in UTC with nanoseconds: when the call began"),
    ("event", "text", "one of the events above"),
    ("action", "text", "`allow`, `deny`, or `would_deny` of a policy that only reports"),
    (
        "rule",
        "text",
        "the id of the rule that decided, `default` for none; absent without a policy",
    ),
    ("direction", "text", "`egress` or `ingress`"),
    (
        "outcome",
        "text",
        "`success`, `denied`, `error`, `timed_out`, `in_progress`, `abandoned`",
    ),
    ("error", "text", "the error's name in errno(3), such as `ECONNREFUSED`"),
    ("duration", "number", "seconds that the call took"),
    ("family", "text", "the peer's family as policies name it; `inet` for an IPv4-mapped address"),
    ("transport", "text", "`tcp`, `udp`, `unix` …"),
    ("host", "text", "the name whose look-up in this process last returned the peer's address"),
    (
        "peer",
        "object",
        "`address` and `port`; or `path`; or `raw`, the kernel's bytes in hexadecimal",
    ),
    ("local", "object", "the own end, as `peer`"),
    ("bytes", "object", "`sent` and `received`, of a closed connection while records were kept"),
    ("pid", "integer", "process id"),
    ("thread", "object", "`id` as the system has it, and `name`"),
    ("trace_id", "text", "the OpenTelemetry trace that was current, 32 hexadecimal digits"),
    ("span_id", "text", "its span, 16 hexadecimal digits"),
    ("source", "text", "the process in this log, 16 hexadecimal digits: unlike a pid used once"),
    ("number", "integer", "number of the process's record, from 1"),
    ("hash", "text", "SHA-256 of the chain, 64 hexadecimal digits; always the line's last string"),
)

_BEGIN: Final = "<!-- generated by python -m tracesock.audit.catalogue -->"
_END: Final = "<!-- end of the generated part -->"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def tables() -> str:
    """The generated part of docs/reference/audit-events.md."""
    documented = [
        (
            f"`{event.name}`",
            ", ".join(f"`{name}`" for name in event.arguments) or "none",
            event.raised_by + (f"; {event.note}" if event.note else ""),
        )
        for event in DOCUMENTED
    ]
    recorded = [(f"`{event.name}`", event.when, event.fields) for event in RECORDED]
    fields = [(f"`{name}`", kind, meaning) for name, kind, meaning in _FIELDS]
    return "\n\n".join(
        (
            _BEGIN,
            "## The documented events",
            _table(("event", "arguments", "raised by"), documented),
            "## Records",
            _table(("event", "when", "its own fields"), recorded),
            "## Fields of a record",
            _table(("field", "type", "meaning"), fields),
            _END,
        )
    )


def updated(page: str) -> str:
    """The page with its generated part made anew; raises ValueError where it has none."""
    pattern = re.compile(re.escape(_BEGIN) + ".*" + re.escape(_END), re.DOTALL)
    made, count = pattern.subn(lambda _: tables(), page)
    if count != 1:
        raise ValueError("the page has no generated part")
    return made


PAGE: Final = Path(__file__).parents[2] / "docs" / "reference" / "audit-events.md"

if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text()))
