"""Reading logs: what another policy would have said, and what there is to see in them."""

from __future__ import annotations

import os
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

from tracesock.audit.formats import own_fields
from tracesock.audit.logfile import LONGEST_LINE, rotated_files
from tracesock.audit.policy import Policy
from tracesock.audit.records import NS, Record, timestamp


class ReadError(ValueError):
    """A line that is no record."""


def read_log(path: str | os.PathLike[str]) -> Iterator[Record]:
    """The records of a log and of the files that rotation has put aside, in their order.

    What they say is believed: verify() is what checks it. Raises OSError, and ReadError for a line
    that is no record; an unfinished last line is left out.
    """
    name = os.path.abspath(os.fspath(path))
    for each in [*rotated_files(name), name]:
        with open(each, "rb") as file:
            number = 0
            while line := file.readline(LONGEST_LINE):
                number += 1
                if not line.endswith(b"\n") and len(line) < LONGEST_LINE:
                    return
                try:
                    yield Record.from_dict(own_fields(line))
                except (ValueError, RecursionError):
                    raise ReadError(f"{each}:{number}: no record of the audit") from None


@dataclass(slots=True)
class Change:
    """Calls of one kind on which the new policy says something else than was decided."""

    event: str
    direction: str
    peer: str
    host: str
    before: str  # action and rule
    rule: str
    count: int = 0
    first: int = 0  # ns since the epoch
    last: int = 0


@dataclass(slots=True)
class Replay:
    """What a policy says of the decisions in a log."""

    decisions: int = 0
    denied: list[Change] = field(default_factory=list)  # what it would deny and was allowed
    allowed: list[Change] = field(default_factory=list)  # what it would allow and was denied


def replay(policy: Policy, records: Iterable[Record]) -> Replay:
    """Judges the decisions of a log by another policy; "report" counts as "enforce".

    A host rule is judged by the name that the log has for the peer.
    """
    out = Replay()
    denied: dict[tuple[str, ...], Change] = {}
    allowed: dict[tuple[str, ...], Change] = {}
    for record in records:
        if not record.decided or record.peer is None:
            continue
        out.decisions += 1
        port = None
        if record.direction == "ingress":
            port = record.local.port if record.local is not None else 0
        verdict = policy.judge(
            record.peer,
            direction=record.direction or "egress",
            port=port,
            names=[record.host] if record.host else [],
        )
        denies = verdict.action != "allow"
        if denies == (record.action == "deny"):
            continue
        into = denied if denies else allowed
        before = record.action + (f" ({record.rule})" if record.rule else "")
        whom = record.peer
        # The port of a client is chance: the one it connected to is not.
        text = str(whom) if port is None else f"{whom.address or whom} to port {port}"
        key = (record.event, record.direction, text, record.host, before, verdict.rule)
        change = into.setdefault(key, Change(*key, first=record.time))
        change.count += 1
        change.last = record.time
    out.denied = sorted(denied.values(), key=lambda change: -change.count)
    out.allowed = sorted(allowed.values(), key=lambda change: -change.count)
    return out


# --- report ---------------------------------------------------------------------------------------

_FEWEST_BEATS: Final = 6
_LARGEST_JITTER: Final = 0.15


@dataclass(slots=True)
class PeerLine:
    """One peer: `host:port` where a name is known, else `address:port`."""

    peer: str
    direction: str
    calls: int = 0
    denied: int = 0
    failed: int = 0
    sent: int = 0
    received: int = 0
    first: int = 0
    last: int = 0
    addresses: set[str] = field(default_factory=set)
    programs: set[str] = field(default_factory=set)
    times: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Beacon:
    """A peer that is called at regular intervals."""

    peer: str
    calls: int
    interval: float  # seconds, the median
    jitter: float  # the median deviation from it, as a part of it


@dataclass(slots=True)
class Report:
    """What there is to see in a log."""

    records: int = 0
    first: int = 0
    last: int = 0
    peers: list[PeerLine] = field(default_factory=list)
    denials: list[tuple[str, str, str, int]] = field(default_factory=list)
    beacons: list[Beacon] = field(default_factory=list)
    dropped: int = 0
    processes: int = 0

    def as_dict(self) -> dict[str, Any]:
        """For JSON: times as RFC 3339."""
        return {
            "records": self.records,
            "first": timestamp(self.first) if self.records else None,
            "last": timestamp(self.last) if self.records else None,
            "processes": self.processes,
            "dropped": self.dropped,
            "peers": [
                {
                    "peer": line.peer,
                    "direction": line.direction,
                    "calls": line.calls,
                    "denied": line.denied,
                    "failed": line.failed,
                    "bytes": {"sent": line.sent, "received": line.received},
                    "first_seen": timestamp(line.first),
                    "last_seen": timestamp(line.last),
                    "addresses": sorted(line.addresses),
                    "programs": sorted(line.programs),
                }
                for line in self.peers
            ],
            "denials": [
                {"rule": rule, "action": action, "peer": peer, "count": count}
                for rule, action, peer, count in self.denials
            ],
            "beacons": [
                {
                    "peer": beacon.peer,
                    "calls": beacon.calls,
                    "interval": beacon.interval,
                    "jitter": beacon.jitter,
                }
                for beacon in self.beacons
            ],
        }


def _peer_name(record: Record) -> str:
    peer = record.peer
    assert peer is not None
    if peer.address is None:
        return str(peer)
    if record.direction == "ingress":
        return peer.address
    if record.host:
        return f"{record.host}:{peer.port}"
    return str(peer)


def report(records: Iterable[Record]) -> Report:
    """Sums a log up: peers in the order in which they were first seen, denials, beacons."""
    out = Report()
    lines: dict[tuple[str, str], PeerLine] = {}
    denials: Counter[tuple[str, str, str]] = Counter()
    programs: dict[str, str] = {}
    directions: dict[tuple[str, str], str] = {}
    for record in records:
        out.records += 1
        out.first = record.time if out.records == 1 else min(out.first, record.time)
        out.last = max(out.last, record.time)
        if record.event == "tracesock.audit.open":
            programs[record.source] = str(record.details.get("program", ""))
        gap = record.details.get("gap")
        if isinstance(gap, dict) and isinstance(gap.get("count"), int):
            out.dropped += gap["count"]
        if record.peer is None:
            continue
        if record.event == "tracesock.close":
            # A close does not say who began the connection: the decision on the peer did.
            record.direction = directions.get((record.source, str(record.peer)), "egress")
        elif record.direction:
            directions[record.source, str(record.peer)] = record.direction
        name = _peer_name(record)
        line = lines.setdefault(
            (name, record.direction), PeerLine(name, record.direction, first=record.time)
        )
        line.last = record.time
        if record.peer.address is not None:
            line.addresses.add(record.peer.address)
        if program := programs.get(record.source):
            line.programs.add(program)
        line.sent += record.sent or 0
        line.received += record.received or 0
        if not record.decided:
            continue
        line.calls += 1
        line.times.append(record.time)
        line.failed += record.outcome in ("error", "timed_out")
        if record.action != "allow":
            line.denied += record.action == "deny"
            denials[record.rule, record.action, name] += 1
    out.processes = len(programs)
    out.peers = sorted(lines.values(), key=lambda line: line.first)
    out.denials = [(*key, count) for key, count in denials.most_common()]
    out.beacons = [
        beacon for line in out.peers if line.direction == "egress" and (beacon := _beacon(line))
    ]
    return out


def _beacon(line: PeerLine) -> Beacon | None:
    moments = sorted(line.times)
    # Several calls at once are one beat.
    beats = [moments[0]] if moments else []
    for moment in moments[1:]:
        if moment - beats[-1] >= NS // 10:
            beats.append(moment)
    if len(beats) < _FEWEST_BEATS:
        return None
    intervals = [(b - a) / NS for a, b in pairwise(beats)]
    middle = statistics.median(intervals)
    jitter = statistics.median(abs(each - middle) for each in intervals) / middle
    if middle < 1.0 or jitter > _LARGEST_JITTER:
        return None
    return Beacon(line.peer, len(beats), round(middle, 3), round(jitter, 4))


def group_lines(lines: Sequence[PeerLine]) -> dict[str, list[PeerLine]]:
    """Peers by direction."""
    out: dict[str, list[PeerLine]] = defaultdict(list)
    for line in lines:
        out[line.direction].append(line)
    return dict(out)
