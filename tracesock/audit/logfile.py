"""Records in a file: chained, shared by processes, rotated, and complete after a crash.

`FILE` holds the lines; `FILE.000001` and so on are what rotation has put aside. `FILE.state` says
where the chain stood after the last write, in which file, and carries the lock by which processes
take turns: whoever has it looks first which file is the log now, and follows the lines that the
state does not know of, because a writer can be killed between any two steps. `FILE.spool-*` is the
ring of a process that is running, or was killed: the next process to use the log, or
`tracesock audit recover`, writes what it still holds.
"""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import glob
import json
import os
import platform
import re
import secrets
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from tracesock import _native
from tracesock.audit.chain import Chain, Key, link, split_hash, tip_fields, tip_line
from tracesock.audit.formats import FORMATS, NO_HASH, own_fields
from tracesock.audit.records import Batch, Record, decode_entries, gap_record, note_record
from tracesock.audit.text import clean

_audit: Any = _native.audit

_STATE_SIZE: Final = 4096
LONGEST_LINE: Final = 1 << 20
_ROTATED: Final = re.compile(r"\.(\d{6,})\Z")
# A tip is filled in when its record is appended: it is the state of the chain just before.
_TIP: Final[dict[str, Any]] = {"tip": {}}
_LOG_FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC


class LogError(OSError):
    """A log that cannot be gone on with: damaged, or no log of the audit."""


@dataclass(slots=True)
class State:
    """Where the log stands."""

    chain: Chain
    size: int = 0  # bytes of the file
    file: int = 0  # its inode: rotation gives it another name
    oldest: int = 1  # sequence number of the first record that is kept
    tip_at: int = 0  # sequence number of the last tip
    # The processes that have not ended: the number of each one's last record here.
    sources: dict[str, int] = field(default_factory=dict)

    def copy(self) -> State:
        return replace(self, chain=self.chain.copy(), sources=self.sources.copy())

    def dump(self) -> bytes:
        text = json.dumps(
            {
                "version": 1,
                "chain": self.chain.id,
                "seq": self.chain.sequence,
                "hash": self.chain.hash,
                "size": self.size,
                "file": self.file,
                "oldest": self.oldest,
                "tip_at": self.tip_at,
                "sources": self.sources,
            }
        )
        return (text.ljust(_STATE_SIZE) + "\n").encode()

    @classmethod
    def load(cls, data: bytes) -> State | None:
        """None for what is not a state, or not a whole one."""
        try:
            # What follows the first line is the rest of a longer state.
            read = json.loads(data.partition(b"\n")[0])
            return cls(
                Chain(str(read["chain"]), int(read["seq"]), str(read["hash"])),
                int(read["size"]),
                int(read["file"]),
                int(read["oldest"]),
                int(read["tip_at"]),
                {str(k): int(v) for k, v in read["sources"].items()},
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            return None


def rotated_files(path: str) -> list[str]:
    """The files that rotation has put aside, oldest first."""
    found = []
    for name in glob.glob(glob.escape(path) + ".*"):
        match = _ROTATED.fullmatch(name[len(path) :])
        if match:
            found.append((int(match.group(1)), name))
    return [name for _, name in sorted(found)]


def _program() -> str:
    """What Python runs: without its arguments, which may hold credentials.

    Not sys.argv: while the interpreter starts there is none.
    """
    words = iter(sys.orig_argv[1:])
    for word in words:
        if word == "-m":
            return f"-m {next(words, '')}"
        if word in ("-X", "-W"):
            next(words, None)
        elif word == "-c" or not word.startswith("-"):
            return word
    return sys.orig_argv[0] if sys.orig_argv else ""


def process_details() -> dict[str, Any]:
    """What an `open` record says of the process."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return {
        "program": clean(_program()),
        "user": clean(user),
        "machine": clean(platform.node()),
        "python": platform.python_version(),
        "tracesock": str(_native.__version__),
        "parent": os.getppid(),
    }


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


class FileSink:
    """Writes records to a log file. `format`: jsonl, ocsf, ecs or otlp.

    `rotate_bytes`: put the file aside when it is that long; `keep`: how many to keep, None for all.
    `key`: signs the tips. `tips`: a file, or "stderr", to print tips to. A tip is made every
    `tip_interval` seconds and `tip_records` records, where there is anything new. `sync`: wait for
    the disk after each write.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        format: str = "jsonl",
        rotate_bytes: int | None = None,
        keep: int | None = None,
        key: Key | None = None,
        tips: str | None = None,
        tip_interval: float = 60.0,
        tip_records: int = 1000,
        sync: bool = False,
    ) -> None:
        if format not in FORMATS:
            raise ValueError(f"format: one of {', '.join(FORMATS)}, not {format!r}")
        if rotate_bytes is not None and rotate_bytes < 4096:
            raise ValueError("rotate_bytes: at least 4096")
        if keep is not None and keep < 1:
            raise ValueError("keep: at least 1")
        self.path = os.path.abspath(os.fspath(path))
        self._form = FORMATS[format]
        self._rotate_bytes = rotate_bytes
        self._rotate_at = rotate_bytes or 0
        self._keep = keep
        self._key = key
        self._tips = os.path.abspath(tips) if tips and tips != "stderr" else tips
        self._tip_interval = tip_interval
        self._tip_records = tip_records
        self._sync = sync
        self._fd = -1
        self._lock_fd = -1
        self._regular = True
        self._state = State(Chain(""))
        self._source = ""
        self._tip_time = time.monotonic()
        self._cut = 0  # bytes of an unfinished line that were cut off
        # Of a stream that has taken a part of a write: the rest, and the chain after it.
        self._pending: tuple[bytes, Chain] | None = None

    def __repr__(self) -> str:
        return f"<audit log {self.path}>"

    def wants_spool(self) -> bool:
        """Whether it is a file beside which a spool can stand."""
        try:
            return stat.S_ISREG(os.stat(self.path).st_mode)
        except FileNotFoundError:
            return True

    # --- opening ----------------------------------------------------------------------------------

    def open(self, source: str) -> None:
        """Opens the log for this process: raises OSError, and LogError for a damaged log."""
        self._source = source
        self._regular = self.wants_spool()
        if self._regular:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._lock_fd = os.open(self.path + ".state", flags, 0o600)
        try:
            with self._locked():
                # With the lock, or another process could put the file aside at this moment.
                self._fd = self._open_file()
                first = self._join() if self._regular else self._begin()
                opened = note_record("open", source, {**process_details(), **_TIP})
                self._append([*first, opened])
        except BaseException:
            self.abandon()
            raise

    def _open_file(self) -> int:
        try:
            mode = os.stat(self.path).st_mode
        except FileNotFoundError:
            mode = stat.S_IFREG
        # A FIFO that nobody reads yet must not keep the program from starting.
        if stat.S_ISREG(mode) or stat.S_ISFIFO(mode):
            return os.open(self.path, _LOG_FLAGS, 0o600)
        return os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    def _begin(self) -> list[Record]:
        self._state = State(Chain(secrets.token_hex(16)))
        details = {"chain": self._state.chain.id, "version": 1}
        return [note_record("begin", self._source, details)]

    def _join(self) -> list[Record]:
        """Finds where the log stands; returns the records that must come first."""
        state = self._find_end(self._read_state())
        if state is None:
            return self._begin()
        self._state = state
        return self._first_records()

    def _read_state(self) -> State | None:
        return State.load(os.pread(self._lock_fd, 1 << 20, 0))

    def _find_end(self, noted: State | None) -> State | None:
        """The state after the last line: what was noted, and the lines that came after it.

        None for a log without any. Raises LogError where the lines do not bear out what was noted,
        OSError where they cannot be read.
        """
        here = os.fstat(self._fd)
        if noted is not None and noted.file == here.st_ino:
            if noted.size > here.st_size:
                raise self._shorter()
            return self._follow(noted, self._fd, here.st_size)
        # A rotation has put the file aside that was written to, or the log was copied to here.
        aside = rotated_files(self.path)
        inodes = [os.stat(name).st_ino for name in aside]
        if noted is not None and noted.file in inodes:
            state = noted
            aside = aside[inodes.index(noted.file) :]
        else:
            state = State(Chain(""))
            aside = aside[-1:]
        for name in aside:
            with open(name, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                if state.size > size:
                    raise self._shorter()
                state = self._follow(state, file.fileno(), size)
            state.size = 0
        if not aside and here.st_size == 0:
            if noted is not None:
                raise self._shorter()
            return None
        state = self._follow(state, self._fd, here.st_size)
        state.file = here.st_ino
        if noted is not None and (
            state.chain.id != noted.chain.id or state.chain.sequence < noted.chain.sequence
        ):
            raise self._shorter()
        return state

    def _shorter(self) -> LogError:
        return LogError(
            f"{self.path} is shorter than its last writer left it: look into it with"
            f" `tracesock audit verify`, then move it and {self.path}.state away"
        )

    def _follow(self, state: State, fd: int, size: int) -> State:
        """The state after the lines that were written since it was noted.

        A last line without its end is what a killed process left of a write: cut off.
        """
        rest = b""
        while (at := state.size + len(rest)) < size:
            data = os.pread(fd, min(size - at, 1 << 20), at)
            if not data or len(rest) > LONGEST_LINE:
                break
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._follow_line(state, line)
                state.size += len(line) + 1
        if rest:
            if not state.chain.id or fd != self._fd or len(rest) > LONGEST_LINE:
                raise LogError(f"{self.path} is not a log of the audit")
            os.ftruncate(fd, state.size)
            self._cut += size - state.size
        return state

    def _follow_line(self, state: State, line: bytes) -> None:
        damaged = f"{self.path} cannot be continued: {{}}; move it away"
        try:
            fields = own_fields(line)
        except (ValueError, RecursionError):
            raise LogError(damaged.format("it holds a line that is no record")) from None
        if not state.chain.id:
            # The file's own first record: of the chain, or of its part after a rotation.
            chain = str(fields.get("chain", ""))
            state.chain = Chain(chain, int(fields["seq"]) - 1)
            tip = fields.get("tip")
            state.chain.hash = str(tip["hash"]) if isinstance(tip, dict) else NO_HASH
            state.oldest = int(fields.get("oldest", 1))
        parts = split_hash(line)
        if (
            parts is None
            or fields["seq"] != state.chain.sequence + 1
            or link(state.chain.hash, parts[0]) != parts[1]
        ):
            place = f"record {state.chain.sequence + 1}"
            raise LogError(damaged.format(f"its chain is broken at {place}"))
        state.chain.sequence, state.chain.hash = fields["seq"], parts[1]
        with contextlib.suppress(ValueError):
            _track(state, Record.from_dict(fields))

    # --- writing ----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        if self._lock_fd < 0:
            yield
            return
        fcntl.flock(self._lock_fd, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._lock_fd, fcntl.LOCK_UN)

    def write(self, records: Sequence[Record]) -> None:
        """Appends records: all of them, or none and OSError."""
        with self._locked():
            header = self._catch_up()
            self._append(header, records)
            if self._rotate_bytes is not None and self._state.size >= self._rotate_at:
                # The records are written: to fail now would have them written twice.
                self._rotate_at = self._state.size + self._rotate_bytes
                with contextlib.suppress(OSError):
                    self._rotate()
                    self._rotate_at = self._rotate_bytes

    def _catch_up(self) -> list[Record]:
        """Follows what other processes did to the log; the record that must come first, if any."""
        if not self._regular:
            return []
        try:
            moved = os.stat(self.path).st_ino != os.fstat(self._fd).st_ino
        except FileNotFoundError:
            moved = True
        if moved:
            fd = self._open_file()
            os.close(self._fd)
            self._fd = fd
        noted = self._read_state() or self._state
        try:
            found = self._find_end(noted.copy())
        except LogError:
            found = None
        if found is None:
            # Cut, changed or taken away under way: it is gone on with where it stands, and the
            # chain shows what is missing.
            here = os.fstat(self._fd)
            found = noted
            found.file, found.size = here.st_ino, here.st_size
            if found.size and os.pread(self._fd, 1, found.size - 1) != b"\n":
                _write_all(self._fd, b"\n")
                found.size += 1
        self._state = found
        return self._first_records()

    def _first_records(self) -> list[Record]:
        """What must be said before the next record."""
        first = []
        if self._state.size == 0:
            details = {
                "chain": self._state.chain.id,
                "version": 1,
                "oldest": self._state.oldest,
                **_TIP,
            }
            first.append(note_record("continue", self._source, details))
        if self._cut:
            first.append(note_record("cut", self._source, {"cut_bytes": self._cut}))
            self._cut = 0
        return first

    def _append(self, own: Sequence[Record], records: Sequence[Record] = ()) -> None:
        """Appends records about the log itself, and then those of calls."""
        state = self._state
        chain = state.chain.copy()
        due = chain.sequence + len(own) + len(records) - state.tip_at >= self._tip_records
        tips = [note_record("tip", self._source, {**_TIP})] if due else []
        data = self._own_lines(chain, own)
        data += chain.extend(self._form, records)
        data += self._own_lines(chain, tips)
        if self._regular:
            try:
                _write_all(self._fd, data)
                if self._sync:
                    os.fsync(self._fd)
            except OSError:
                # Nothing of it may stay: the lines that follow are chained to what was there.
                os.ftruncate(self._fd, state.size)
                raise
        else:
            chain = self._write_stream(data, chain)
        state.chain = chain
        state.size += len(data)
        state.file = os.fstat(self._fd).st_ino
        for record in own:
            _track(state, record)
        if isinstance(records, Batch):
            _track_number(state, records.source, records.last_number)
        else:
            for record in records:
                _track(state, record)
        if due:
            state.tip_at = chain.sequence
        self._write_state()
        if due:
            self._print_tip()

    def _own_lines(self, chain: Chain, records: Sequence[Record]) -> bytes:
        lines = []
        for record in records:
            if "tip" in record.details:
                record.details.update(tip_fields(chain, self._key))
            lines.append(chain.append(self._form, record))
        return b"".join(lines)

    def _write_stream(self, data: bytes, chain: Chain) -> Chain:
        # A pipe that failed has taken what it took. The same records come again: what is to be
        # written is the rest of their lines as they were.
        data, chain = self._pending or (data, chain)
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        finally:
            self._pending = (bytes(view), chain) if view else None
        return chain

    def _write_state(self) -> None:
        if self._lock_fd >= 0:
            # The records are written: the state before them, and their lines, say as much.
            with contextlib.suppress(OSError):
                os.pwrite(self._lock_fd, self._state.dump(), 0)

    def _print_tip(self) -> None:
        self._tip_time = time.monotonic()
        if not self._tips:
            return
        line = tip_line(self._state.chain, self._key) + "\n"
        # A tip that cannot be printed is no reason to lose a record.
        with contextlib.suppress(OSError, ValueError):
            if self._tips == "stderr":
                sys.stderr.write(line)
                sys.stderr.flush()
            else:
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
                fd = os.open(self._tips, flags, 0o600)
                try:
                    os.write(fd, line.encode())
                finally:
                    os.close(fd)

    def _rotate(self) -> None:
        self._append([note_record("rotate", self._source, {**_TIP})])
        aside = rotated_files(self.path)
        last = int(_ROTATED.search(aside[-1]).group(1)) if aside else 0  # type: ignore[union-attr]
        name = f"{self.path}.{last + 1:06d}"
        os.rename(self.path, name)
        aside.append(name)
        if self._keep is not None and len(aside) > self._keep:
            # Noted before they are gone: what is not noted was removed by somebody else.
            self._state.oldest = _first_sequence(aside[-self._keep])
            self._write_state()
            for old in aside[: -self._keep]:
                os.unlink(old)
        fd = self._open_file()
        os.close(self._fd)
        self._fd = fd
        self._state.size = 0
        self._append(self._first_records())

    def idle(self) -> None:
        """Makes a tip when one is due, and takes over what killed processes left."""
        if self._regular:
            self.adopt()
        due = time.monotonic() - self._tip_time >= self._tip_interval
        if not due:
            return
        self._tip_time = time.monotonic()
        with self._locked():
            header = self._catch_up()
            # A tip that follows a tip says nothing new.
            if self._state.chain.sequence == self._state.tip_at:
                return
            self._append([*header, note_record("tip", self._source, {**_TIP})])
            self._state.tip_at = self._state.chain.sequence
            self._write_state()
            self._print_tip()

    def adopt(self) -> int:
        """Writes what the spools of processes that are gone still hold; how many processes."""
        return sum(self._adopt(path) for path in glob.glob(glob.escape(self.path) + ".spool-*"))

    def _adopt(self, path: str) -> bool:
        spool = Spool.orphan(path)
        if spool is None:
            return False
        with spool, self._locked():
            header = self._catch_up()
            records = spool.read(self._state.sources.get(spool.source, 0))
            if records or spool.source in self._state.sources:
                self._append([*header, *records, spool.ending(self._source, records)])
            spool.remove()
        return True

    # --- ending -----------------------------------------------------------------------------------

    def close(self, totals: dict[str, int]) -> None:
        """Writes the last record of this process, with what became of all its records."""
        if self._fd < 0:
            return
        try:
            if self._regular:
                with contextlib.suppress(OSError):
                    self.adopt()
            with self._locked():
                header = self._catch_up()
                ending = note_record("close", self._source, {"totals": totals, **_TIP})
                self._append([*header, ending])
                self._state.tip_at = self._state.chain.sequence
                self._write_state()
                self._print_tip()
                if self._regular:
                    os.fsync(self._fd)
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Gives the descriptors up without a word: what a forked child does with its parent's."""
        for fd in (self._fd, self._lock_fd):
            if fd >= 0:
                os.close(fd)
        self._fd = self._lock_fd = -1
        self._pending = None


def _track(state: State, record: Record) -> None:
    if not record.source:
        return
    if record.event == "tracesock.audit.open":
        state.sources[record.source] = 0
    elif record.event == "tracesock.audit.close":
        state.sources.pop(record.source, None)
    elif record.event == "tracesock.audit.recovered":
        state.sources.pop(str(record.details.get("recovered", "")), None)
    elif record.number:
        _track_number(state, record.source, record.number)
    elif "gap" in record.details:
        _track_number(state, record.source, int(record.details["gap"]["last"]))


def _track_number(state: State, source: str, number: int) -> None:
    if source in state.sources:
        state.sources[source] = max(state.sources[source], number)


def _first_sequence(path: str) -> int:
    with open(path, "rb") as file:
        try:
            return int(own_fields(file.readline(1 << 20))["seq"])
        except (ValueError, RecursionError):
            return 1


# --- spools ---------------------------------------------------------------------------------------


class Spool:
    """The file behind the ring of a process that is gone."""

    def __init__(self, path: str, fd: int) -> None:
        self._path = path
        self._fd = fd
        try:
            self._header = _audit.decode_header(os.pread(fd, _audit.HEADER_SIZE, 0))
            self.source = clean(self._header["source"])
        except ValueError:
            # Its process was killed before it was in use.
            self._header, self.source = None, ""

    @classmethod
    def create(cls, log: str, capacity: int, source: str) -> tuple[Any, str, int]:
        """A new ring in a file beside `log`: the ring, the file's path, and its lock.

        Raises OSError.
        """
        path = f"{log}.spool-{os.getpid()}-{source}"
        # Under another name until it is locked, or another process would take it over.
        early = f"{log}.spool~{os.getpid()}-{source}"
        ring = _audit.Ring(early, capacity, source)
        try:
            fd = os.open(early, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            fcntl.flock(fd, fcntl.LOCK_EX)
            os.rename(early, path)
        except BaseException:
            os.unlink(early)
            raise
        return ring, path, fd

    @classmethod
    def orphan(cls, path: str) -> Spool | None:
        """The spool, locked; None where its process is alive or it is gone."""
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_nlink:
                return cls(path, fd)
        except OSError:
            pass
        os.close(fd)
        return None

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    @property
    def pid(self) -> int:
        return int(self._header["pid"]) if self._header else 0

    def read(self, after: int) -> list[Record]:
        """The records with numbers above `after` that were not delivered before the process ended.

        With a gap for those that are lost.
        """
        if self._header is None:
            return []
        emitted, capacity = int(self._header["emitted"]), int(self._header["capacity"])
        # The log is the first sink of its process.
        after = max(after, int(self._header["sinks"][0]["delivered"]))
        first = max(after, emitted - capacity)
        size = _audit.ENTRY_SIZE
        entries = []
        for place in range(first, emitted):
            entry = os.pread(self._fd, size, _audit.HEADER_SIZE + place % capacity * size)
            if len(entry) != size:
                break
            entries.append(entry)
        records = decode_entries(entries, self.source)
        if first > after:
            reason = "overwritten before the process was killed"
            records.insert(0, gap_record(self.source, after + 1, first, reason))
        return records

    def ending(self, source: str, records: Sequence[Record]) -> Record:
        """What is written in place of the process's own last record."""
        header = self._header or {"emitted": 0, "lost": 0, "pid": 0}
        details = {
            "recovered": self.source,
            "recovered_pid": header["pid"],
            "records": sum(1 for record in records if record.number),
            "totals": {"emitted": header["emitted"], "lost": header["lost"]},
        }
        return note_record("recovered", source, details)

    def remove(self) -> None:
        os.unlink(self._path)
