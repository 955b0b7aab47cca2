"""Every event that the audit knows: the documented ones of the standard library, and tracesock's.

The one place for their names, arguments and moments: `docs/reference/audit-events.md` is made of
it (`python -m tracesock.audit.page`), and so are the checks of `subscribe()`.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
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
    Documented(
        "socket.sendto",
        ("self", "address"),
        "`sendto`, and `send_many` for each message that names a destination",
    ),
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
    Recorded(
        "tracesock.sendto",
        "`sendto`, or a message of `send_many`, has ended, or was denied",
        _CALL,
    ),
    Recorded(
        "tracesock.sendmsg",
        "`sendmsg` has ended, or was denied; without an address only where `send` is recorded",
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
        "a socket that was connected, or has moved bytes, was closed, by the program or the garbage"
        " collector. The duration is the connection's; `abandoned`: its connect was in progress",
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
