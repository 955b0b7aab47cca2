"""The records of the audit: what a call was, what was decided about it, what came of it."""

from __future__ import annotations

import errno
import ipaddress
import json
import os
import socket as stock
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from typing import Any, Final, overload

from tracesock import _native
from tracesock.audit.text import clean

_audit: Any = _native.audit

FAMILIES: Final[dict[str, int]] = dict(_audit.FAMILIES)
_FAMILY_NAMES: Final = {number: name for name, number in FAMILIES.items()}
_INET: Final = int(stock.AF_INET)
_INET6: Final = int(stock.AF_INET6)
_UNIX: Final = FAMILIES.get("unix", 1)
_TYPES: Final = {int(stock.SOCK_STREAM): "tcp", int(stock.SOCK_DGRAM): "udp"}
_PROTOCOLS: Final = {6: "tcp", 17: "udp", 132: "sctp", 136: "udplite", 262: "mptcp"}

# Flags of an entry; see ext/audit/entry.hpp.
_EGRESS: Final = 1
_SUPPRESSED: Final = 4
_BY_POLICY: Final = 8

NS: Final = 1_000_000_000


def family_name(number: int) -> str:
    """The name of an address family as policies write it; "family-N" for one without."""
    return _FAMILY_NAMES.get(number, f"family-{number}")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One end of a connection. Of `address` and `path`, one is None; both for other families."""

    family: str
    address: str | None = None
    port: int | None = None
    path: str | None = None
    raw: str | None = None  # hexadecimal, for a family that is neither Internet nor Unix

    def as_dict(self) -> dict[str, Any]:
        if self.address is not None:
            return {"address": self.address, "port": self.port}
        return {"path": self.path} if self.path is not None else {"raw": self.raw}

    def __str__(self) -> str:
        if self.address is not None:
            host = f"[{self.address}]" if ":" in self.address else self.address
            return f"{host}:{self.port}"
        return f"{self.family}:{self.path if self.path is not None else self.raw}"


@lru_cache(maxsize=1024)
def endpoint(encoded: bytes) -> Endpoint | None:
    """The address that the kernel's bytes denote; an IPv4-mapped IPv6 address is the IPv4 one."""
    if len(encoded) < 2:
        return None
    family = int.from_bytes(encoded[:2], _BYTE_ORDER)
    if family == _INET and len(encoded) >= 8:
        return Endpoint(
            "inet", str(ipaddress.IPv4Address(encoded[4:8])), int.from_bytes(encoded[2:4], "big")
        )
    if family == _INET6 and len(encoded) >= 24:
        address = ipaddress.IPv6Address(encoded[8:24])
        port = int.from_bytes(encoded[2:4], "big")
        mapped = address.ipv4_mapped
        if mapped is not None:
            return Endpoint("inet", str(mapped), port)
        return Endpoint("inet6", str(address), port)
    if family == _UNIX:
        path = encoded[2:]
        if path[:1] != b"\0":
            path = path.split(b"\0", 1)[0]
        return Endpoint("unix", path=clean(path))
    return Endpoint(family_name(family), raw=encoded[2:].hex())


_BYTE_ORDER: Final = "little" if _native.htons(1) != 1 else "big"


@dataclass(slots=True)
class Record:
    """One record. Times in nanoseconds since the epoch, durations in nanoseconds.

    `details` holds what only records about the audit itself have (`tracesock.audit.*`).
    """

    event: str
    time: int
    source: str = ""
    number: int = 0
    action: str = ""  # allow, deny, would_deny; "" where nothing was to be decided
    rule: str = ""
    direction: str = ""  # egress, ingress
    outcome: str = ""
    error: int = 0
    duration: int | None = None
    family: str = ""
    transport: str = ""
    host: str = ""
    peer: Endpoint | None = None
    local: Endpoint | None = None
    sent: int | None = None
    received: int | None = None
    pid: int = 0
    thread: int = 0
    thread_name: str = ""
    trace_id: str = ""
    span_id: str = ""
    suppressed: bool = False
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def decided(self) -> bool:
        """Whether the record is a decision."""
        return self.action != ""

    def as_dict(self, **first: Any) -> dict[str, Any]:
        """The record in tracesock's own form, after `first`; see docs/reference/audit-events.md."""
        out = first
        out["time"] = timestamp(self.time)
        out["event"] = self.event
        if self.action:
            out["action"] = self.action
        if self.rule:
            out["rule"] = self.rule
        if self.direction:
            out["direction"] = self.direction
        if self.outcome:
            out["outcome"] = self.outcome
        if self.error:
            out["error"] = errno.errorcode.get(self.error, str(self.error))
        if self.duration is not None:
            out["duration"] = self.duration / NS
        if self.family:
            out["family"] = self.family
        if self.transport:
            out["transport"] = self.transport
        if self.host:
            out["host"] = self.host
        if self.peer is not None:
            out["peer"] = self.peer.as_dict()
        if self.local is not None:
            out["local"] = self.local.as_dict()
        if self.sent is not None:
            out["bytes"] = {"sent": self.sent, "received": self.received}
        if self.pid:
            out["pid"] = self.pid
        if self.thread:
            out["thread"] = {"id": self.thread, "name": self.thread_name}
        if self.trace_id:
            out["trace_id"] = self.trace_id
            out["span_id"] = self.span_id
        if self.source:
            out["source"] = self.source
        if self.number:
            out["number"] = self.number
        out.update(self.details)
        return out

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Record:
        """The reverse of as_dict(); raises ValueError for another form."""
        try:
            peer, local = (_endpoint_of(fields.get(name), fields) for name in ("peer", "local"))
            thread = fields.get("thread") or {}
            counts = fields.get("bytes") or {}
            duration = fields.get("duration")
            return cls(
                event=_text(fields["event"]),
                time=parse_timestamp(_text(fields["time"])),
                source=_text(fields.get("source", "")),
                number=int(fields.get("number", 0)),
                action=_text(fields.get("action", "")),
                rule=_text(fields.get("rule", "")),
                direction=_text(fields.get("direction", "")),
                outcome=_text(fields.get("outcome", "")),
                error=_error_number(_text(fields.get("error", ""))),
                duration=None if duration is None else round(float(duration) * NS),
                family=_text(fields.get("family", "")),
                transport=_text(fields.get("transport", "")),
                host=_text(fields.get("host", "")),
                peer=peer,
                local=local,
                sent=counts.get("sent"),
                received=counts.get("received"),
                pid=int(fields.get("pid", 0)),
                thread=int(thread.get("id", 0)),
                thread_name=_text(thread.get("name", "")),
                trace_id=_text(fields.get("trace_id", "")),
                span_id=_text(fields.get("span_id", "")),
                details={k: v for k, v in fields.items() if k not in _FIELDS},
            )
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"not a record of the audit: {error!r}") from None


_FIELDS: Final = frozenset(
    (
        *("time", "event", "action", "rule", "direction", "outcome", "error", "duration"),
        *("family", "transport", "host", "peer", "local", "bytes", "pid", "thread"),
        *("trace_id", "span_id", "source", "number", "seq", "hash"),
    )
)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _error_number(name: str) -> int:
    if not name:
        return 0
    number: int | None = getattr(errno, name, None) if name.startswith("E") else None
    return number if isinstance(number, int) else int(name) if name.isdecimal() else 0


def _endpoint_of(value: Any, fields: Mapping[str, Any]) -> Endpoint | None:
    if value is None:
        return None
    family = _text(fields.get("family", ""))
    if "address" in value:
        return Endpoint(family, _text(value["address"]), int(value["port"]))
    if "path" in value:
        return Endpoint("unix", path=_text(value["path"]))
    return Endpoint(family, raw=_text(value["raw"]))


def encoded_address(end: Endpoint) -> bytes:
    """The kernel's bytes of an endpoint, as far as policies look at them."""
    if end.address is not None:
        family = _INET6 if ":" in end.address else _INET
        return bytes(_native.encode_address(family, 0, (end.address, end.port or 0), "replay"))
    number = FAMILIES.get(end.family, 0)
    return number.to_bytes(2, _BYTE_ORDER) + b"\0" * 14


def timestamp(ns: int) -> str:
    """RFC 3339 in UTC with nanoseconds."""
    seconds, rest = divmod(ns, NS)
    return f"{_second(seconds)}.{rest:09d}Z"


@lru_cache(maxsize=16)
def _second(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"


def parse_timestamp(text: str) -> int:
    """Nanoseconds since the epoch; raises ValueError."""
    moment, separator, fraction = text.removesuffix("Z").partition(".")
    if not separator or not fraction.isdecimal():
        raise ValueError(f"not a time: {text!r}")
    seconds = datetime.strptime(moment, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC).timestamp()
    return int(seconds) * NS + int(fraction[:9].ljust(9, "0"))


def decode_entries(entries: Iterable[bytes], source: str) -> list[Record]:
    """Records of what calls have left in the spool of the process `source`, which is gone: its
    threads have no names any more."""
    return [_decode(entry, source, {}) for entry in entries]


def _decode(entry: bytes, source: str, names: Mapping[int | None, str]) -> Record:
    (
        number, event, when, duration, decision, outcome, error, flags, family, kind, protocol,
        _descriptor, pid, ident, thread, sent, received, trace, span, peer, local, rule, host,
        text,
    ) = _audit.decode(entry)  # fmt: skip
    if text:
        return _note(text, when, source, number, pid)
    to = endpoint(peer)
    here = endpoint(local)
    closing = event == "tracesock.close"
    name = to.family if to is not None else here.family if here is not None else ""
    record = Record(
        event=event,
        time=when,
        source=source,
        number=number,
        action=decision,
        rule=clean(rule) if rule and flags & _BY_POLICY else "",
        outcome=outcome,
        error=error,
        duration=None if duration < 0 else duration,
        family=name or family_name(family),
        host=clean(host) if host else "",
        peer=to,
        local=here,
        sent=sent if closing else None,
        received=received if closing else None,
        pid=pid,
        thread=thread,
        thread_name=names.get(ident, ""),
        trace_id="" if trace is None else trace.hex(),
        span_id="" if span is None else span.hex(),
        suppressed=bool(flags & _SUPPRESSED),
    )
    if event == "tracesock.accept":
        record.direction = "ingress"
    elif flags & _EGRESS:
        record.direction = "egress"
    if family in (_INET, _INET6):
        raw = kind == int(stock.SOCK_RAW)
        record.transport = "raw" if raw else _PROTOCOLS.get(protocol) or _TYPES.get(kind, "")
    elif family == _UNIX:
        record.transport = "unix"
    return record


def _note(text: bytes, when: int, source: str, number: int, pid: int) -> Record:
    try:
        details = json.loads(text)
        event = details.pop("event")
    except (ValueError, KeyError, AttributeError):
        details, event = {"text": clean(text)}, "tracesock.audit.note"
    return Record(event, when, source, number, pid=pid, details=details)


def now() -> int:
    """Nanoseconds since the epoch."""
    return time.time_ns()


def note_record(event: str, source: str, details: dict[str, Any]) -> Record:
    """A record about the audit itself."""
    return Record(f"tracesock.audit.{event}", now(), source, pid=os.getpid(), details=details)


def gap_record(source: str, first: int, last: int, reason: str) -> Record:
    """A record about records that were dropped: numbers `first` to `last`."""
    gap = {"first": first, "last": last, "count": last - first + 1, "reason": reason}
    return note_record("gap", source, {"gap": gap})


class Batch(Sequence[Record]):
    """Records as a sink gets them: `first`, which tell of gaps, and those of the ring's `entries`.

    The latter are made when somebody looks at them: a log of tracesock's own form needs hardly any.
    """

    def __init__(self, first: list[Record], entries: list[bytes], source: str) -> None:
        self.first = first
        self.entries = entries
        self.source = source
        # As they are now, in the process whose threads they are.
        self._names = _thread_names()

    def __len__(self) -> int:
        return len(self.first) + len(self.entries)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        return self._records[index]

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records)

    @cached_property
    def _records(self) -> list[Record]:
        return [*self.first, *map(self.decoded, self.entries)]

    def decoded(self, entry: bytes) -> Record:
        """The record of one of the entries; a gap where it cannot be read."""
        try:
            return _decode(entry, self.source, self._names)
        except Exception as error:
            number = _number_of(entry)
            return gap_record(self.source, number, number, f"could not be read: {error}")

    @property
    def last_number(self) -> int:
        """The number of the last record."""
        return _number_of(self.entries[-1])

    def lines(self, start: int, sequence: int, hash: str) -> tuple[bytes, int, str]:
        """The lines of entries from the one at `start` on, numbered from `sequence` on and chained
        to a line of this hash, until one that only Python can write: (lines, how many, the last
        one's hash)."""
        names, errors = self._json_names, errno.errorcode
        done: tuple[bytes, int, str] = _audit.lines(
            self.entries, start, sequence, hash, self.source, names, errors
        )
        return done

    @cached_property
    def _json_names(self) -> dict[int | None, str]:
        return {ident: json.dumps(name) for ident, name in self._names.items()}


def _number_of(entry: bytes) -> int:
    return int.from_bytes(entry[:8], sys.byteorder)


def _thread_names() -> dict[int | None, str]:
    return {thread.ident: clean(thread.name) for thread in threading.enumerate()}
