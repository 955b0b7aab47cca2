"""The hash chain of a log, and its tips.

Each line ends in a hash: SHA-256 over the hash of the line before (64 zeros before the first), a
line end, and the line itself with zeros in the place of its own hash. Who changes, removes, moves
or inserts a line breaks the chain there; who cuts the end off, or computes the whole chain anew,
needs to be caught by a tip: sequence number and hash of a line, signed with a key, or written down
where the log's writer cannot reach.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tracesock.audit.formats import NO_HASH, jsonl, to_line
from tracesock.audit.records import Batch, Record

_HASH_AT_END: Final = re.compile(rb'"([0-9a-f]{64})"[\]}]*\Z')
SHORTEST_KEY: Final = 32  # bytes


def link(previous: str, line: bytes) -> str:
    """The hash of a line whose own hash is still zeros."""
    return hashlib.sha256(previous.encode() + b"\n" + line).hexdigest()


def split_hash(line: bytes) -> tuple[bytes, str] | None:
    """A line (without its end) with zeros for its hash, and the hash; None where it has none."""
    found = _HASH_AT_END.search(line)
    if found is None:
        return None
    start, end = found.span(1)
    return line[:start] + NO_HASH.encode() + line[end:], found.group(1).decode()


@dataclass(slots=True)
class Chain:
    """Where a chain stands: its id, and sequence number and hash of its last record."""

    id: str
    sequence: int = 0
    hash: str = NO_HASH

    def append(self, form: Callable[[Record, int], dict[str, Any]], record: Record) -> bytes:
        """The record's line, with its end, as the next of the chain."""
        self.sequence += 1
        line = to_line(form, record, self.sequence)
        self.hash = link(self.hash, line.encode())
        at = line.rindex(NO_HASH)
        return f"{line[:at]}{self.hash}{line[at + len(NO_HASH) :]}\n".encode()

    def extend(
        self, form: Callable[[Record, int], dict[str, Any]], records: Sequence[Record]
    ) -> bytes:
        """The records' lines, as append() makes them."""
        if form is not jsonl or not isinstance(records, Batch):
            return b"".join(self.append(form, record) for record in records)
        lines = [self.append(form, record) for record in records.first]
        done, entries = 0, records.entries
        while done < len(entries):
            some, count, self.hash = records.lines(done, self.sequence + 1, self.hash)
            lines.append(some)
            self.sequence += count
            done += count
            if done < len(entries):
                lines.append(self.append(form, records.decoded(entries[done])))
                done += 1
        return b"".join(lines)

    def copy(self) -> Chain:
        return Chain(self.id, self.sequence, self.hash)


class BadKey(ValueError):
    """A key file that cannot be used."""


class Key:
    """A secret for signing tips with HMAC-SHA256 (RFC 2104)."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) < SHORTEST_KEY:
            raise BadKey(f"a key needs at least {SHORTEST_KEY} bytes, this one has {len(secret)}")
        self._secret = secret

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Key:
        """The key in a file, without a line end at its end.

        Raises OSError, and ValueError for a key that is too short or a file that others may read.
        """
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if os.name == "posix" and stat.S_ISREG(mode) and mode & 0o077:
                raise BadKey(f"{os.fspath(path)}: others may read this key: chmod 600")
            secret = file.read(4096).removesuffix(b"\n")
        try:
            return cls(secret)
        except BadKey as error:
            raise BadKey(f"{os.fspath(path)}: {error}") from None

    def sign(self, chain: str, sequence: int, digest: str) -> str:
        text = f"tracesock audit tip\n{chain}\n{sequence}\n{digest}"
        return hmac.new(self._secret, text.encode(), hashlib.sha256).hexdigest()

    def verify(self, chain: str, sequence: int, digest: str, signature: str) -> bool:
        return hmac.compare_digest(
            self.sign(chain, sequence, digest).encode(), signature.encode("utf-8", "replace")
        )


def tip_fields(chain: Chain, key: Key | None) -> dict[str, Any]:
    """What a record says of the chain's state before it."""
    tip: dict[str, Any] = {"chain": chain.id, "seq": chain.sequence, "hash": chain.hash}
    if key is not None:
        tip["signature"] = key.sign(chain.id, chain.sequence, chain.hash)
    return {"tip": tip}


def tip_line(chain: Chain, key: Key | None) -> str:
    """The chain's state as a line for people and other machines to keep."""
    signed = f" signature={key.sign(chain.id, chain.sequence, chain.hash)}" if key else ""
    return f"tracesock-tip chain={chain.id} seq={chain.sequence} hash={chain.hash}{signed}"


@dataclass(frozen=True, slots=True)
class Tip:
    """A tip that was kept elsewhere."""

    sequence: int
    hash: str
    chain: str = ""
    signature: str = ""


_TIP: Final = re.compile(
    r"(?:tracesock-tip\s+)?(?:chain=(?P<chain>[0-9a-f]{32})\s+)?seq=(?P<seq>\d{1,19})"
    r"\s+hash=(?P<hash>[0-9a-f]{64})(?:\s+signature=(?P<signature>[0-9a-f]{64}))?"
)
_SHORT_TIP: Final = re.compile(r"(?P<seq>\d{1,19}):(?P<hash>[0-9a-f]{64})")


def parse_tip(text: str) -> Tip:
    """A line that tip_line() made, or SEQ:HASH; raises ValueError."""
    found = _TIP.fullmatch(text.strip()) or _SHORT_TIP.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"not a tip: {text.strip()[:100]!r}")
    named = found.groupdict()
    return Tip(
        int(named["seq"]), named["hash"], named.get("chain") or "", named.get("signature") or ""
    )
