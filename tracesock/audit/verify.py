"""Verification: whether a log is what was written, and whether it is all of it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tracesock.audit.chain import Key, Tip, link, split_hash
from tracesock.audit.formats import NO_HASH, own_fields
from tracesock.audit.logfile import LONGEST_LINE, Spool, State, rotated_files

_MOST_PROBLEMS: Final = 100
# The last number of a process whose beginning rotation has removed.
_UNKNOWN: Final = -1


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it was written. `line` counts from 1; 0: the file as a whole."""

    path: str
    line: int
    text: str

    def __str__(self) -> str:
        place = f"{os.path.basename(self.path)}:{self.line}" if self.line else self.path
        return f"{place}: {self.text}"


@dataclass(slots=True)
class Source:
    """One process's records."""

    pid: int
    program: str = ""
    delivered: int = 0
    dropped: int = 0
    lost: int = 0
    last: int = 0  # number of the last record, delivered or dropped
    emitted: int | None = None  # as its last record says
    ended: str = ""  # close, recovered; "" while it has not


@dataclass(slots=True)
class Verification:
    """What was found."""

    chain: str = ""
    first: int = 0
    last: int = 0
    hash: str = ""
    files: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    sources: dict[str, Source] = field(default_factory=dict)
    signed_tips: int = 0
    unsigned_tips: int = 0

    @property
    def intact(self) -> bool:
        return not self.problems

    @property
    def delivered(self) -> int:
        return sum(source.delivered for source in self.sources.values())

    @property
    def dropped(self) -> int:
        return sum(source.dropped + source.lost for source in self.sources.values())


class _Verifier:
    def __init__(self, key: Key | None, tips: Sequence[Tip]) -> None:
        self.out = Verification()
        self._key = key
        self._tips = {tip.sequence: tip for tip in tips}
        self._hash = NO_HASH
        self._sequence = 0
        self._oldest: int | None = None  # as the newest `continue` says
        self._path = ""
        self._line = 0
        self._known: dict[int, str] = {}  # hashes that external tips will be compared with

    def problem(self, text: str) -> None:
        if len(self.out.problems) < _MOST_PROBLEMS:
            self.out.problems.append(Problem(self._path, self._line, text))

    def file(self, path: str, first: bool) -> None:
        self._path, self._line = path, 0
        self.out.files.append(path)
        empty = True
        with open(path, "rb") as file:
            while line := file.readline(LONGEST_LINE + 1):
                empty = False
                self._line += 1
                if len(line) > LONGEST_LINE:
                    self.problem("a line longer than any record")
                    return
                if not line.endswith(b"\n"):
                    self.problem("the last line is not whole: its end was removed")
                self._one(line.removesuffix(b"\n"), fresh=self._line == 1, first=first)
        if empty:
            self.problem("the file is empty")
        self._line = 0

    def _one(self, line: bytes, fresh: bool, first: bool) -> None:
        parts = split_hash(line)
        if parts is None:
            self.problem("no record: it has no hash at its end")
            return
        bare, stated = parts
        try:
            fields = own_fields(line)
        except (ValueError, RecursionError):
            self.problem("no record of the audit")
            # What follows is chained to it all the same.
            self._hash = stated
            return
        sequence, event = fields["seq"], fields["event"]
        if fresh and first:
            self._begin(fields, sequence)
        elif fresh and event != "tracesock.audit.continue":
            self.problem("a file that was rotated begins with another record than it should")
        elif not fresh and event in ("tracesock.audit.begin", "tracesock.audit.continue"):
            self.problem("a record that only begins a file, inside one")
        expected = self._sequence + 1
        whole = link(self._hash, bare) == stated
        if sequence != expected:
            if sequence > expected:
                missing = (
                    f"{expected}" if sequence == expected + 1 else f"{expected}-{sequence - 1}"
                )
                self.problem(f"record {sequence} where {expected} is due: {missing} missing")
            else:
                self.problem(f"record {sequence} where {expected} is due: moved or repeated")
        elif not whole:
            self.problem(f"record {sequence} or the one before it is not what was written")
        if sequence in self._tips:
            tip = self._tips[sequence]
            self._known[sequence] = stated
            if tip.hash != stated or (tip.chain and tip.chain != self.out.chain):
                self.problem(f"record {sequence} is not the one that a tip was kept of")
        self._record(fields, sequence)
        self._sequence, self._hash = sequence, stated

    def _begin(self, fields: dict[str, Any], sequence: int) -> None:
        self.out.chain = str(fields.get("chain", ""))
        self.out.first = sequence
        if fields["event"] == "tracesock.audit.begin":
            if sequence != 1:
                self.problem(f"the log begins with record {sequence}")
        elif fields["event"] == "tracesock.audit.continue":
            # The records before were removed by rotation, if a later file says so.
            self._sequence = sequence - 1
            tip = fields.get("tip")
            self._hash = str(tip.get("hash", "")) if isinstance(tip, dict) else ""
        else:
            self._sequence = sequence - 1
            self.problem("the beginning is missing")

    def _record(self, fields: dict[str, Any], sequence: int) -> None:
        if "tip" in fields:
            self._tip(fields["tip"], sequence)
        event = fields["event"]
        if event == "tracesock.audit.continue":
            oldest = fields.get("oldest")
            self._oldest = oldest if isinstance(oldest, int) else None
            if fields.get("chain") != self.out.chain:
                self.problem("a file of another log")
        name, pid, number = fields.get("source"), fields.get("pid"), fields.get("number", 0)
        if not isinstance(name, str) or not isinstance(pid, int) or not isinstance(number, int):
            self.problem(f"record {sequence} does not say which process it is of")
            return
        sources = self.out.sources
        if event == "tracesock.audit.open":
            sources[name] = Source(pid, str(fields.get("program", "")))
            return
        if event == "tracesock.audit.recovered":
            self._end(str(fields.get("recovered", "")), "recovered", fields)
            return
        source = sources.get(name)
        gap = fields.get("gap")
        if source is None:
            # It began in a file that rotation has removed, or it is about to: whoever writes
            # anything must come to an end as well.
            source = sources[name] = Source(pid, last=_UNKNOWN)
        if event == "tracesock.audit.close":
            self._end(name, "close", fields)
        elif gap is not None:
            self._gap(source, gap)
        elif number:
            if source.last not in (_UNKNOWN, number - 1):
                self.problem(
                    f"record {sequence} has the number {number} of its process,"
                    f" {source.last + 1} is due"
                )
            source.delivered += 1
            source.last = number

    def _gap(self, source: Source, gap: Any) -> None:
        try:
            first, last, count = int(gap["first"]), int(gap["last"]), int(gap["count"])
        except (TypeError, KeyError, ValueError):
            self.problem("a gap that says nothing")
            return
        if first == 0 and last == 0:
            source.lost += count
            return
        if source.last not in (_UNKNOWN, first - 1) or last - first + 1 != count:
            self.problem(f"a gap from {first} to {last} where {source.last + 1} is due")
        source.dropped += count
        source.last = last

    def _end(self, name: str, how: str, details: dict[str, Any]) -> None:
        source = self.out.sources.get(name)
        if source is None:
            return
        source.ended = how
        totals = details.get("totals")
        emitted = totals.get("emitted") if isinstance(totals, dict) else None
        if not isinstance(emitted, int):
            self.problem(f"the last record of process {source.pid} does not say what it emitted")
            return
        source.emitted = emitted
        if source.last not in (_UNKNOWN, emitted):
            self.problem(
                f"process {source.pid} has emitted {emitted} records,"
                f" {source.last} are accounted for"
            )

    def _tip(self, tip: Any, sequence: int) -> None:
        if not isinstance(tip, dict):
            self.problem("a tip that says nothing")
            return
        chain, at, digest = tip.get("chain"), tip.get("seq"), tip.get("hash")
        if at != self._sequence or digest != self._hash or chain != self.out.chain:
            self.problem(f"the tip in record {sequence} is not the state before it")
        signature = tip.get("signature")
        if isinstance(signature, str):
            self.out.signed_tips += 1
            if self._key is not None and not self._key.verify(
                str(chain), sequence - 1, self._hash, signature
            ):
                self.problem(f"the signature in record {sequence} is not of this key")
        else:
            self.out.unsigned_tips += 1
            if self._key is not None:
                self.problem(f"the tip in record {sequence} is not signed")

    def finish(self, path: str) -> Verification:
        out = self.out
        self._path, self._line = path, 0
        out.last, out.hash = self._sequence, self._hash
        if self._oldest is not None and out.first > self._oldest:
            self.problem(f"records {self._oldest}-{out.first - 1} are missing: a file was removed")
        if out.first > 1 and self._oldest is not None and out.first <= self._oldest:
            out.notes.append(f"rotation has removed the records before {out.first}")
        for sequence, tip in self._tips.items():
            if sequence not in self._known and sequence >= out.first:
                self.problem(f"record {tip.sequence}, of which a tip was kept, is missing")
        return out


@contextlib.contextmanager
def _standing_still(path: str) -> Iterator[State | None]:
    """The log's state, while no writer appends; None where there is none."""
    try:
        fd = os.open(path + ".state", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        yield None
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
        yield State.load(os.pread(fd, 1 << 20, 0))
    finally:
        os.close(fd)


def verify(
    path: str | os.PathLike[str], *, key: Key | None = None, tips: Sequence[Tip] = ()
) -> Verification:
    """Checks a log with the files that rotation has put aside, in any of its formats.

    `key`: every tip must be signed with it. `tips`: states that were kept elsewhere, which the log
    must contain. Raises OSError for a file that cannot be read.
    """
    name = os.path.abspath(os.fspath(path))
    verifier = _Verifier(key, tips)
    with _standing_still(name) as state:
        files = [*rotated_files(name), name]
        for index, each in enumerate(files):
            try:
                verifier.file(each, first=index == 0)
            except FileNotFoundError:
                if len(files) == 1:
                    raise
                verifier.problem("the file is missing: a rotation was cut short, or it was removed")
        out = verifier.finish(name)
        if state is not None and state.chain.id:
            known = state.chain
            if known.id != out.chain:
                verifier.problem("the log is not the one that its .state file is of")
            elif known.sequence > out.last:
                verifier.problem(
                    f"its end is missing: records {out.last + 1}-{known.sequence} were written"
                )
            elif known.sequence == out.last and known.hash != out.hash:
                verifier.problem(f"record {out.last} is not what was written")
        _check_ends(verifier, name)
    return out


def _check_ends(verifier: _Verifier, name: str) -> None:
    """Every process that began must have ended, be alive, or have left a spool."""
    out = verifier.out
    for source, process in out.sources.items():
        if process.ended:
            continue
        spool = f"{name}.spool-{process.pid}-{source}"
        orphan = Spool.orphan(spool) if os.path.exists(spool) else None
        if orphan is not None:
            with orphan:
                waiting = sum(1 for record in orphan.read(max(0, process.last)) if record.number)
            verifier.problem(
                f"process {process.pid} ended without its last record; its spool holds"
                f" {waiting} records: `tracesock audit recover` writes them"
            )
        elif os.path.exists(spool):
            out.notes.append(f"process {process.pid} is writing")
        else:
            verifier.problem(
                f"process {process.pid} has no last record: it was killed, or the end is missing"
            )
