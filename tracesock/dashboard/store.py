"""The dashboard's store: one SQLite file, one writer thread, any number of readers.

A request is acknowledged after its transaction was committed. The writer takes all requests that
wait, up to `BATCH_RECORDS`, into one transaction, so batches grow with the load by themselves. In
WAL mode with `synchronous=NORMAL` a commit is in the file system's cache: a killed process loses
nothing of it. What was received and not yet committed when the process died is counted with the
help of a small journal beside the file, and reported when the file is opened again.
"""

from __future__ import annotations

import fcntl
import os
import queue
import re
import sqlite3
import struct
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tracesock.dashboard.ingest import Ingest
from tracesock.dashboard.ingest.catalog import TERM_LENGTH
from tracesock.dashboard.otlp import Limits, Refused, Signal
from tracesock.dashboard.schema import (
    APPLICATION_ID,
    FINE,
    FINE_KEPT,
    MIDDLE,
    MIDDLE_KEPT,
    MIGRATIONS,
    SCHEMA,
    SCHEMA_VERSION,
)

BATCH_RECORDS: Final = 20_000
# Requests wait in memory, decoded. One over the bound is refused with 429.
QUEUE_RECORDS: Final = 40_000
QUEUE_BYTES: Final = 32 * 1024 * 1024
# The writer looks at least this often whether there is something to write or to delete, seconds.
_TICK: Final = 0.5
_RETENTION_EVERY: Final = 5.0
# Histograms are written once in this many seconds at most (ingest/slots.py).
_SETTLE_EVERY: Final = 1.0
_DELETE_STEP: Final = 500
_KEPT_CONNECTIONS: Final = 20_000
_KEPT_ATTEMPTS: Final = 20_000
_CONNECTION_KEPT_NS: Final = 15 * 60 * 1_000_000_000
# Digests of the last requests: one that is sent again after its answer was lost is stored once.
_REMEMBERED: Final = 4096
_JOURNAL: Final = struct.Struct("<8s3Q")
_MAGIC: Final = b"tsockj1\0"
_SIGNALS: Final = (Signal.TRACES, Signal.METRICS, Signal.LOGS)


class StoreError(Exception):
    """The database cannot be used: the message names the file and the reason."""


@dataclass(frozen=True, slots=True)
class Retention:
    """How long what came is kept: seconds since it arrived, and bytes of the database file."""

    age: float = 7 * 86400.0
    size: int = 2_000_000_000

    @classmethod
    def parse(cls, text: str) -> Retention:
        """An age (`30m`, `24h`, `7d`), a size (`500MB`, `2GB`), or both with a comma between.

        Raises ValueError naming the part that is neither.
        """
        age, size = cls().age, cls().size
        for part in text.split(","):
            match = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?)\s*([a-z]+)", part.strip().lower())
            units = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800}
            sizes = {
                "kb": 10**3,
                "mb": 10**6,
                "gb": 10**9,
                "kib": 2**10,
                "mib": 2**20,
                "gib": 2**30,
            }
            if match and match[2] in units:
                age = float(match[1]) * units[match[2]]
            elif match and match[2] in sizes:
                size = int(float(match[1]) * sizes[match[2]])
            else:
                raise ValueError(
                    f"{part.strip()!r} is neither an age (30m, 24h, 7d) nor a size (500MB, 2GB)"
                )
        if age < 60:
            raise ValueError("an age under one minute keeps nothing to look at")
        if size < 10_000_000:
            raise ValueError("a size under 10MB is too small for the database")
        return cls(age, size)


@dataclass(frozen=True, slots=True)
class Recovery:
    """What opening the file found about the run before: records not stored, by signal.

    They were received but not acknowledged: their senders were told nothing and may send again.
    """

    clean: bool
    spans: int = 0
    points: int = 0
    logs: int = 0

    @property
    def lost(self) -> int:
        return self.spans + self.points + self.logs

    def describe(self) -> str:
        if self.clean:
            return "closed cleanly"
        if not self.lost:
            return "the previous run was killed; every received record had been stored"
        return (
            f"the previous run was killed inside a batch: at most {self.spans} spans,"
            f" {self.points} data points and {self.logs} log records of it were not stored;"
            " they had not been acknowledged to their senders"
        )


@dataclass(slots=True)
class _Item:
    signal: Signal
    request: Any
    records: int
    size: int
    digest: bytes
    done: Future[int] = field(default_factory=Future)


def connect(
    path: str | Path, *, readonly: bool = False, cache_kib: int = 8192
) -> sqlite3.Connection:
    """A connection with the settings that every user of the file needs."""
    db = sqlite3.connect(str(path), timeout=10, isolation_level=None, check_same_thread=False)
    db.execute(f"PRAGMA cache_size = -{cache_kib}")
    db.execute("PRAGMA temp_store = MEMORY")
    if readonly:
        db.execute("PRAGMA query_only = 1")
    return db


class Store:
    """The database of one dashboard. `start` it, `submit` requests, `read` rows, `close` it.

    Raises StoreError when the file cannot be opened, belongs to another program, was written by a
    newer version, is damaged, or is in use by another dashboard.
    """

    def __init__(
        self,
        path: str | Path,
        retention: Retention | None = None,
        limits: Limits | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.path = Path(path)
        self.retention = retention or Retention()
        self.limits = limits or Limits()
        self.clock = clock
        self.generation = 0
        self._listeners: list[Callable[[], None]] = []
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._queued_records = 0
        self._queued_bytes = 0
        self._refusals: dict[str, int] = {}
        self._seen: OrderedDict[bytes, int] = OrderedDict()
        self._pending: dict[bytes, _Item] = {}
        self._closing = False
        self._thread: threading.Thread | None = None
        self._readers: queue.SimpleQueue[sqlite3.Connection] = queue.SimpleQueue()
        self._reader_count = 0
        self._prune_due = 0.0
        self._settled = 0.0
        self._last_prune = time.monotonic()

        self._journal = self._open_journal()
        try:
            self._db = self._open()
            self.recovery = self._recover()
            self._ingest = Ingest(self._db, self.limits, clock)
        except BaseException:
            os.close(self._journal)
            raise

    # -- opening ---------------------------------------------------------------------------------

    def _open_journal(self) -> int:
        name = f"{self.path}.journal-tracesock"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be opened: {error.strerror}") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise StoreError(
                f"{self.path}: another dashboard is using this database; stop it, or name another"
                " file with --database"
            ) from None
        return descriptor

    def _open(self) -> sqlite3.Connection:
        try:
            # SQLite would make the file readable by others; what it holds is not for them.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            db = connect(self.path, cache_kib=48 * 1024)
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be opened: {error.strerror}") from None
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: is not a usable database: {error}") from None
        try:
            version = int(db.execute("PRAGMA user_version").fetchone()[0])
            identity = int(db.execute("PRAGMA application_id").fetchone()[0])
            tables = int(db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
            if tables and identity != APPLICATION_ID:
                raise StoreError(f"{self.path}: is a database of another program")
            if version > SCHEMA_VERSION:
                raise StoreError(
                    f"{self.path}: was written by a newer tracesock (schema {version}; this one"
                    f" reads up to {SCHEMA_VERSION})"
                )
            if not tables:
                # These two before anything is written: later they change nothing.
                db.execute("PRAGMA page_size = 8192")
                db.execute("PRAGMA auto_vacuum = INCREMENTAL")
                db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                db.execute("PRAGMA journal_mode = WAL")
                db.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
            if db.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
                raise StoreError(f"{self.path}: this file system does not allow SQLite's WAL mode")
            db.create_function("span_name", 1, _span_name)
            while tables and version < SCHEMA_VERSION:
                script = f"{MIGRATIONS[version]}; PRAGMA user_version = {version + 1};"
                db.executescript(f"BEGIN; {script} COMMIT;")
                version += 1
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("PRAGMA wal_autocheckpoint = 2000")
            db.execute(f"PRAGMA journal_size_limit = {64 * 1024 * 1024}")
        except sqlite3.DatabaseError as error:
            db.close()
            raise StoreError(f"{self.path}: is not a usable database: {error}") from None
        except StoreError:
            db.close()
            raise
        return db

    def _recover(self) -> Recovery:
        """Compares what was received, by the journal, with what was stored, by the database."""
        stored = [int(self._meta(f"stored_{s.value}") or 0) for s in _SIGNALS]
        raw = os.pread(self._journal, _JOURNAL.size, 0)
        received = stored
        if len(raw) == _JOURNAL.size:
            magic, *counts = _JOURNAL.unpack(raw)
            if magic == _MAGIC:
                received = counts
        clean = self._meta("open") != 1
        lost = [max(0, r - s) for r, s in zip(received, stored, strict=True)]
        self._stored = stored
        self._received = list(stored)
        self._write_journal()
        with self._transaction():
            self._set_meta("open", 1)
            for signal, n in zip(_SIGNALS, lost, strict=True):
                self._set_meta(f"lost_{signal.value}", n)
                self._set_meta(
                    f"lost_total_{signal.value}",
                    n + int(self._meta(f"lost_total_{signal.value}") or 0),
                )
        return Recovery(clean and not any(lost), *lost)

    def _meta(self, key: str) -> Any:
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None

    def _set_meta(self, key: str, value: Any) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def _write_journal(self) -> None:
        os.pwrite(self._journal, _JOURNAL.pack(_MAGIC, *self._received), 0)

    # -- receiving -------------------------------------------------------------------------------

    def submit(self, signal: Signal, request: Any, records: int, body: bytes) -> Future[int]:
        """Queues a decoded request; the future gives the number of rejected records.

        It is done once the records are committed. Raises Refused: 429 when too much waits already,
        503 when the store is closing.
        """
        digest = blake2b(body, digest_size=16, key=signal.value.encode()).digest()
        with self._lock:
            if self._closing:
                raise Refused(503, "closing", "the dashboard is shutting down", retry_after=5)
            if digest in self._seen:
                again: Future[int] = Future()
                again.set_result(self._seen[digest])
                self._refusals["repeated_requests"] = self._refusals.get("repeated_requests", 0) + 1
                return again
            pending = self._pending.get(digest)
            if pending is not None:
                return pending.done
            if self._queued_records and (
                self._queued_records + records > QUEUE_RECORDS
                or self._queued_bytes + len(body) > QUEUE_BYTES
            ):
                raise Refused(
                    429,
                    "overloaded",
                    "more telemetry arrives than can be stored: send again later",
                    retry_after=1,
                )
            item = _Item(signal, request, records, len(body), digest)
            # From here on nobody can cancel it: a sender that hangs up is not the only one waiting.
            item.done.set_running_or_notify_cancel()
            self._pending[digest] = item
            self._queued_records += records
            self._queued_bytes += len(body)
            self._received[_SIGNALS.index(signal)] += records
            self._write_journal()
            self._queue.put(item)
        return item.done

    def refused(self, reason: str, n: int = 1) -> None:
        """Counts a request that was not taken, or records cut from one."""
        with self._lock:
            self._refusals[reason] = self._refusals.get(reason, 0) + n

    def on_commit(self, listener: Callable[[], None]) -> None:
        """Calls `listener` from the writer thread after each commit."""
        self._listeners.append(listener)

    # -- reading ---------------------------------------------------------------------------------

    @contextmanager
    def read(self, limit_seconds: float = 5.0) -> Iterator[sqlite3.Connection]:
        """A read-only connection, inside one read transaction, so all its queries agree.

        A query that runs longer than `limit_seconds` is interrupted (sqlite3.OperationalError).
        """
        try:
            db = self._readers.get_nowait()
        except queue.Empty:
            db = connect(self.path, readonly=True)
        deadline = time.monotonic() + limit_seconds
        db.set_progress_handler(lambda: time.monotonic() > deadline, 20_000)
        try:
            db.execute("BEGIN")
            try:
                yield db
            finally:
                db.execute("ROLLBACK")
        finally:
            db.set_progress_handler(None, 0)
            if self._readers.qsize() < 4 and not self._closing:
                self._readers.put(db)
            else:
                db.close()

    def size(self) -> int:
        """Bytes of the database that hold data."""
        with self.read() as db:
            return _used_bytes(db)

    # -- the writer thread -------------------------------------------------------------------------

    def start(self) -> None:
        """Starts the writer thread."""
        # What it has not stored was not acknowledged: it need not hold up the interpreter's end.
        self._thread = threading.Thread(
            target=self._run, name="tracesock-dashboard-writer", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stores what waits, marks the file as closed cleanly, and closes it. Idempotent."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
        self._queue.put(None)
        if self._thread is not None:
            self._thread.join()
        else:
            self._finish()

    def _run(self) -> None:
        stop = False
        while not stop:
            items: list[_Item] = []
            try:
                first = self._queue.get(timeout=_TICK)
                stop = first is None
                if first is not None:
                    items.append(first)
                    records = first.records
                    while records < BATCH_RECORDS:
                        item = self._queue.get_nowait()
                        if item is None:
                            stop = True
                            break
                        items.append(item)
                        records += item.records
            except queue.Empty:
                pass
            self._write(items)
            now = time.monotonic()
            if now - self._last_prune >= _RETENTION_EVERY and not stop:
                self._last_prune = now
                self._guarded(self._prune)
        self._finish()

    def _finish(self) -> None:
        try:
            with self._transaction():
                self._ingest.flush()
                self._set_meta("open", 0)
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error:
            pass  # the next opening reports an unclean end
        self._db.close()
        while True:
            try:
                self._readers.get_nowait().close()
            except queue.Empty:
                break
        os.close(self._journal)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def _guarded(self, work: Callable[[], None]) -> None:
        """Housekeeping that fails (a full disk) is counted and tried again later."""
        try:
            work()
        except sqlite3.Error:
            self._ingest.reset()
            self.refused("housekeeping_failed")

    def _write(self, items: list[_Item]) -> None:
        """Stores a batch in one transaction and answers its requests."""
        with self._lock:
            refusals, self._refusals = self._refusals, {}
        now = time.monotonic()
        settle = not items or now - self._settled >= _SETTLE_EVERY
        if not items and not refusals and not self._ingest.unsettled:
            return
        if settle:
            self._settled = now
        results: list[int] = []
        try:
            with self._transaction():
                for item in items:
                    results.append(self._take(item))
                for reason, n in refusals.items():
                    self._ingest.count(reason, n)
                self._ingest.flush(settle)
                for i, signal in enumerate(_SIGNALS):
                    n = sum(item.records for item in items if item.signal is signal)
                    if n:
                        self._stored[i] += n
                        self._set_meta(f"stored_{signal.value}", self._stored[i])
        except Exception as error:
            self._give_back(items, refusals, error)
            return
        with self._lock:
            for item, rejected in zip(items, results, strict=True):
                self._settle(item)
                self._seen[item.digest] = rejected
            while len(self._seen) > _REMEMBERED:
                self._seen.popitem(last=False)
        self.generation += 1
        for item, rejected in zip(items, results, strict=True):
            item.done.set_result(rejected)
        for listener in self._listeners:
            listener()

    def _take(self, item: _Item) -> int:
        rejected = self._ingest.take(item.signal, item.request)
        self._ingest.count(f"accepted_{item.signal.value}", item.records - rejected)
        if rejected:
            self._ingest.count(f"rejected_{item.signal.value}", rejected)
        item.request = None
        return rejected

    def _settle(self, item: _Item) -> None:
        self._pending.pop(item.digest, None)
        self._queued_records -= item.records
        self._queued_bytes -= item.size

    def _give_back(self, items: list[_Item], refusals: dict[str, int], error: Exception) -> None:
        """After a failed transaction: nothing of the batch was stored, and its senders are told."""
        self._stored = [int(self._meta(f"stored_{s.value}") or 0) for s in _SIGNALS]
        self._ingest.reset()
        with self._lock:
            for item in items:
                self._settle(item)
                self._received[_SIGNALS.index(item.signal)] -= item.records
            self._write_journal()
            for reason, n in refusals.items():
                self._refusals[reason] = self._refusals.get(reason, 0) + n
        refused = Refused(503, "not_stored", f"not stored: {error}", retry_after=2)
        for item in items:
            item.done.set_exception(refused)

    # -- retention -------------------------------------------------------------------------------

    def _prune(self) -> None:
        now = self.clock() // 1_000_000_000
        cutoff = now - int(self.retention.age)
        with self._transaction():
            self._prune_small(now, cutoff)
        self._prune_traces(cutoff)
        self._prune_size()
        if time.monotonic() >= self._prune_due:
            self._prune_due = time.monotonic() + 600
            with self._transaction():
                self._prune_unused()
            self._ingest.reset()

    def _prune_small(self, now: int, cutoff: int) -> None:
        db = self._db
        for width, kept in ((FINE, FINE_KEPT), (MIDDLE, MIDDLE_KEPT)):
            db.execute(
                "DELETE FROM latency WHERE width = ? AND slot < ? AND arrived_s < ?",
                (width, (now - kept) // width, now - kept),
            )
        for table in ("latency", "metric_points", "metric_series", "audit", "leaks", "logs"):
            db.execute(f"DELETE FROM {table} WHERE arrived_s < ?", (cutoff,))
        db.execute("DELETE FROM dns_answers WHERE seen_s < ?", (cutoff,))
        db.execute(
            "DELETE FROM connections WHERE arrived_ns < ?", (self.clock() - _CONNECTION_KEPT_NS,)
        )
        over = db.execute("SELECT count(*) FROM connections").fetchone()[0] - _KEPT_CONNECTIONS
        if over > 0:
            db.execute(
                "DELETE FROM connections WHERE (resource_id, connection_id) IN (SELECT resource_id,"
                " connection_id FROM connections ORDER BY arrived_ns LIMIT ?)",
                (over,),
            )
        db.execute(
            "DELETE FROM attempts WHERE id < (SELECT max(id) FROM attempts) - ?", (_KEPT_ATTEMPTS,)
        )

    def _prune_traces(self, cutoff: int) -> None:
        row = self._db.execute("SELECT no, arrived_s FROM traces ORDER BY no LIMIT 1").fetchone()
        # Numbers are given in the order of arrival: the old ones are a range at the beginning.
        while row is not None and row[1] < cutoff:
            self._delete_traces(row[0], row[0] + _DELETE_STEP, cutoff)
            row = self._db.execute(
                "SELECT no, arrived_s FROM traces ORDER BY no LIMIT 1"
            ).fetchone()

    def _prune_size(self) -> None:
        limit = self.retention.size
        while _used_bytes(self._db) > limit:
            row = self._db.execute("SELECT min(no), max(no) FROM traces").fetchone()
            if row[0] is None:
                with self._transaction():
                    for table in ("audit", "logs"):
                        self._db.execute(
                            f"DELETE FROM {table} WHERE id <"
                            f" (SELECT min(id) + (max(id) - min(id)) / 4 + 1 FROM {table})"
                        )
                break
            step = max(_DELETE_STEP, (row[1] - row[0]) // 50)
            self._delete_traces(row[0], min(row[0] + step, row[1]), None)
            with self._transaction():
                self._ingest.count("traces_deleted_for_size", step)
                self._ingest.flush()
            # Small steps with requests between them: one waiting batch, then on.
            if not self._queue.empty():
                self._last_prune = 0.0
                break
        # It frees one page with each step, and only a script is stepped to its end.
        self._db.executescript("PRAGMA incremental_vacuum(2000)")

    def _delete_traces(self, first: int, last: int, cutoff: int | None) -> None:
        """Deletes the traces numbered `first` to `last`, those that arrived before `cutoff`."""
        db = self._db
        if cutoff is not None:
            keep = db.execute(
                "SELECT min(no) FROM traces WHERE no BETWEEN ? AND ? AND arrived_s >= ?",
                (first, last, cutoff),
            ).fetchone()[0]
            if keep is not None:
                last = keep - 1
        self._ingest.forget(last)
        with self._transaction():
            db.execute(
                "DELETE FROM logs WHERE trace_id IN (SELECT trace_id FROM traces WHERE no <= ?)"
                " AND trace_id <> x''",
                (last,),
            )
            db.execute("DELETE FROM spans WHERE trace_no <= ?", (last,))
            db.execute("DELETE FROM traces WHERE no <= ?", (last,))
            db.execute("DELETE FROM attempts WHERE trace_no <= ?", (last,))
            db.execute(
                "DELETE FROM trace_terms WHERE term_id IN (SELECT id FROM terms) AND trace_no <= ?",
                (last,),
            )

    def _prune_unused(self) -> None:
        """Series and texts that nothing refers to any more."""
        db = self._db
        db.execute("DELETE FROM series WHERE id NOT IN (SELECT series_id FROM latency)")
        db.execute(
            "DELETE FROM metric_points WHERE series_id NOT IN (SELECT id FROM metric_series)"
        )
        db.execute(
            "DELETE FROM terms WHERE kind IN (2, 3, 5) AND NOT EXISTS"
            " (SELECT 1 FROM trace_terms WHERE term_id = terms.id)"
            " AND id NOT IN (SELECT peer_id FROM series)"
        )


def _span_name(body: bytes) -> str:
    return str(Span.FromString(body).name)[:TERM_LENGTH]


def _used_bytes(db: sqlite3.Connection) -> int:
    pages, free, size = (
        int(db.execute(f"PRAGMA {name}").fetchone()[0])
        for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size
