"""From the ring to the sinks: one thread for each sink, its pace its own.

What is emitted is delivered or counted as dropped: a sink that falls behind holds the calls up
(`block`), loses its oldest records and says so (`drop`), or makes calls fail (`fail_closed`).
"""

from __future__ import annotations

import atexit
import contextlib
import os
import secrets
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from tracesock import _native, _threads
from tracesock.audit import context
from tracesock.audit.logfile import FileSink, Spool
from tracesock.audit.records import Batch, Record, gap_record
from tracesock.audit.text import printable

_audit: Any = _native.audit

WHEN_FULL: Final = {"block": 0, "drop": 1, "fail_closed": 2}
CAPACITY: Final = 4096  # records
_BATCH: Final = 128
_IDLE: Final = 1.0  # seconds between looks at what is due
_LONGEST_PAUSE: Final = 1.0  # seconds between attempts to deliver
_PATIENCE: Final = 10.0  # seconds that a sink may be not ready before it is told
EXIT_TIMEOUT: Final = 5.0  # seconds that the end of the process waits for its sinks
_EXIT_FLUSH: Final = 0.5  # seconds of them before the process's other exit functions


class NotReady(Exception):
    """A sink cannot take records yet, and that is no fault: they wait in the ring."""


class Sink(Protocol):
    """Where records go. Every method but abandon() is called in the sink's own thread or, before
    that is started and after it has ended, by the thread that adds or closes."""

    def open(self, source: str) -> None:
        """Made ready in this process, whose records are of `source`; again after a fork."""

    def write(self, records: Sequence[Record]) -> None:
        """Delivers the records, in their order. After an exception it is called again with them.

        NotReady is an exception that is not told, unless it lasts, and does not make calls fail.
        """

    def idle(self) -> None:
        """Called about every second while there is nothing to write, and between writes."""

    def close(self, totals: dict[str, int]) -> None:
        """The end: `totals` says how many records were emitted and dropped."""

    def abandon(self) -> None:
        """In a forked child: lets go of what it shares with its parent, without a word."""


def complain(text: str) -> None:
    """One line on standard error, for what nobody else can be told."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(f"tracesock: audit: {printable(text)}\n")
        sys.stderr.flush()


class _Worker:
    """The thread of one sink."""

    def __init__(self, ring: Any, source: str, sink: Sink, when_full: str) -> None:
        self.sink = sink
        self.when_full = when_full
        self._ring = ring
        self._source = source
        self._seen = int(ring.stats()["emitted"])
        self.index = int(ring.add_sink(WHEN_FULL[when_full]))
        if self.index < 0:
            raise ValueError("there are as many sinks as there can be")
        self._lost = int(ring.stats()["lost"])
        self._stop = threading.Event()
        self._give_up = threading.Event()
        self._nudged = threading.Event()
        self.undelivered = 0
        self.thread = threading.Thread(
            target=self._run, name=f"tracesock-audit-{self.index}", daemon=True
        )

    def start(self) -> None:
        _threads.start(self.thread)

    def _run(self) -> None:
        _audit.exempt_thread()
        looked = time.monotonic()
        while True:
            stopping = self._stop.is_set()
            before, entries = self._ring.take(self.index, _BATCH, 0.0 if stopping else _IDLE)
            if not entries and stopping:
                return
            if entries and not self._deliver(before, entries):
                self.undelivered = int(self._ring.stats()["emitted"]) - self._seen
                return
            if not entries or time.monotonic() - looked >= _IDLE:
                looked = time.monotonic()
                with contextlib.suppress(Exception):
                    self.sink.idle()

    def _deliver(self, before: int, entries: list[bytes]) -> bool:
        gaps = []
        lost = int(self._ring.stats()["lost"])
        if lost > self._lost:
            gap = gap_record(self._source, 0, 0, "no room, and the caller could not wait")
            gap.details["gap"]["count"] = lost - self._lost
            gaps.append(gap)
        if before > self._seen:
            reason = "the sink could not keep up"
            gaps.append(gap_record(self._source, self._seen + 1, before, reason))
        if not self._write(Batch(gaps, entries, self._source)):
            return False
        self._lost = lost
        self._seen = before + len(entries)
        self._ring.delivered(self.index, self._seen)
        return True

    def _write(self, records: Sequence[Record]) -> bool:
        pause = 0.02
        failed = False
        patient_until: float | None = time.monotonic() + _PATIENCE
        while True:
            stopping = self._stop.is_set()
            try:
                self.sink.write(records)
            except NotReady as reason:
                if stopping:
                    return False
                if patient_until is not None and time.monotonic() > patient_until:
                    patient_until = None
                    complain(f"{self.sink!r} takes no records yet ({reason}): they wait")
                self._nudged.wait(pause)
                self._nudged.clear()
                pause = min(pause * 2, _LONGEST_PAUSE)
                continue
            except Exception as error:
                if not failed:
                    failed = True
                    self._ring.set_failing(self.index, True)
                    complain(f"{self.sink!r} takes no records ({error}): it is tried again")
                if self._give_up.wait(pause):
                    return False
                pause = min(pause * 2, _LONGEST_PAUSE)
                continue
            if failed:
                self._ring.set_failing(self.index, False)
            return True

    def nudge(self) -> None:
        """Has a sink that was not ready tried again at once."""
        self._nudged.set()

    def finish(self, until: float) -> bool:
        """Delivers what is left, until the monotonic time `until`; whether it all was."""
        self._stop.set()
        self.nudge()
        self.thread.join(max(0.0, until - time.monotonic()))
        if self.thread.is_alive():
            self._give_up.set()
            self.thread.join(0.2)
        alive = self.thread.is_alive()
        if alive:
            self.undelivered = int(self._ring.stats()["emitted"]) - self._seen
        return not alive and self.undelivered == 0

    def totals(self) -> dict[str, int]:
        stats = self._ring.stats()
        own = stats["sinks"][self.index]
        return {
            "emitted": int(stats["emitted"]),
            "dropped": int(own["dropped"]),
            "lost": int(stats["lost"]),
            "refused": int(stats["refused"]),
        }


@dataclass(slots=True)
class Stats:
    """What became of the records of this process at one sink."""

    sink: str
    emitted: int
    delivered: int
    dropped: int
    lost: int
    refused: int


@dataclass(slots=True)
class _Wanted:
    sink: Sink
    when_full: str


@dataclass(slots=True)
class Pipeline:
    """The ring of this process and its sinks."""

    wanted: list[_Wanted] = field(default_factory=list)
    workers: list[_Worker] = field(default_factory=list)
    ring: Any = None
    source: str = ""
    spool: str = ""
    spool_fd: int = -1

    # --- beginning --------------------------------------------------------------------------------

    def _make_ring(self) -> None:
        self.source = secrets.token_hex(8)
        # The first log has the spool: with it, a killed process leaves its records behind.
        first = self.wanted[0].sink
        if isinstance(first, FileSink) and first.wants_spool():
            self.ring, self.spool, self.spool_fd = Spool.create(first.path, CAPACITY, self.source)
        else:
            self.ring = _audit.Ring("", CAPACITY, self.source)

    def _add_worker(self, wanted: _Wanted) -> None:
        wanted.sink.open(self.source)
        worker = _Worker(self.ring, self.source, wanted.sink, wanted.when_full)
        self.workers.append(worker)
        worker.start()

    def add(self, sink: Sink, when_full: str) -> None:
        wanted = _Wanted(sink, when_full)
        self.wanted.append(wanted)
        fresh = self.ring is None
        try:
            if fresh:
                self._make_ring()
            self._add_worker(wanted)
        except BaseException:
            self.wanted.remove(wanted)
            if fresh:
                self._drop_ring()
            raise
        if fresh:
            context.install()
            _audit.set_restart(restart)
            self.ring.use()

    def _drop_ring(self) -> None:
        self.ring = None
        if self.spool:
            with contextlib.suppress(OSError):
                os.unlink(self.spool)
            self.spool = ""
        self._close_spool()

    def _close_spool(self) -> None:
        if self.spool_fd >= 0:
            os.close(self.spool_fd)
            self.spool_fd = -1

    # --- fork -------------------------------------------------------------------------------------

    def after_fork(self) -> None:
        """In the child: its parent's ring, threads and descriptors are not its own."""
        self.workers.clear()
        self.ring = None
        self.spool = ""
        self._close_spool()
        for wanted in self.wanted:
            with contextlib.suppress(Exception):
                wanted.sink.abandon()

    def restart(self) -> None:
        """In the child, before its first record: a ring and threads of its own."""
        if not self.wanted:
            _audit.stop_recording()
            return
        self._make_ring()
        try:
            for wanted in self.wanted:
                self._add_worker(wanted)
        except BaseException:
            for worker in self.workers:
                worker.finish(time.monotonic())
            self.workers.clear()
            self._drop_ring()
            raise
        self.ring.use()
        # A child of multiprocessing ends without the interpreter's own exit functions.
        util = sys.modules.get("multiprocessing.util")
        if util is not None:
            util.Finalize(None, close, exitpriority=-100)

    # --- ending -----------------------------------------------------------------------------------

    def remove(self, sink: Sink) -> None:
        """Ends one sink. Its undelivered records are lost, and counted in its last record."""
        for worker in self.workers:
            if worker.sink is sink:
                if not worker.finish(time.monotonic() + EXIT_TIMEOUT):
                    complain(f"{sink!r}: {worker.undelivered} records are not delivered")
                self.ring.remove_sink(worker.index)
                self.workers.remove(worker)
                with contextlib.suppress(Exception):
                    sink.close(worker.totals())
                break
        self.wanted = [wanted for wanted in self.wanted if wanted.sink is not sink]
        if not self.wanted and self.ring is not None:
            self.close(0.0)

    def flush(self, timeout: float) -> bool:
        until = time.monotonic() + timeout
        return all(
            self.ring.flush(worker.index, max(0.0, until - time.monotonic()))
            for worker in self.workers
        )

    def stats(self) -> list[Stats]:
        out = []
        for worker in self.workers:
            totals = worker.totals()
            own = self.ring.stats()["sinks"][worker.index]
            dropped = int(own["dropped"])
            delivered = max(0, int(own["delivered"]) - dropped)
            out.append(Stats(repr(worker.sink), delivered=delivered, **totals))
        return out

    def close(self, timeout: float) -> bool:
        if self.ring is None:
            return True
        until = time.monotonic() + timeout
        _audit.stop_recording()
        self.ring.close()
        complete = True
        for worker in self.workers:
            done = worker.finish(until)
            if done:
                try:
                    worker.sink.close(worker.totals())
                except Exception as error:
                    complain(f"{worker.sink!r} could not be closed ({error})")
                    done = False
            if not done:
                complete = False
                left = worker.undelivered
                kept = self.spool and worker.index == 0
                where = f": they are in {self.spool}, `tracesock audit recover` writes them"
                complain(
                    f"{worker.sink!r}: {left} records are not delivered{where if kept else ''}"
                )
        keep_spool = not complete and self.workers and self.workers[0].undelivered
        self.workers.clear()
        self.wanted.clear()
        if keep_spool:
            self.spool = ""
        self._drop_ring()
        return complete


_lock = threading.RLock()
_pipeline = Pipeline()


def add_sink(sink: Sink, when_full: str = "block") -> None:
    """Sends records to a sink from now on.

    `when_full` says what happens when it cannot keep up: "block" (the calls wait), "drop" (its
    oldest records are dropped and counted) or "fail_closed" (the calls raise PermissionError).
    Raises ValueError for another choice, and what the sink's open() raises.
    """
    if when_full not in WHEN_FULL:
        raise ValueError(f"when_full: one of {', '.join(WHEN_FULL)}, not {when_full!r}")
    with _lock:
        _pipeline.add(sink, when_full)


def remove_sink(sink: Sink) -> None:
    """Delivers what the sink has not got yet, for at most a few seconds, and closes it."""
    with _lock:
        _pipeline.remove(sink)


def flush(timeout: float = EXIT_TIMEOUT) -> bool:
    """Waits until all that was emitted by now is delivered: False when `timeout` seconds passed."""
    return _pipeline.flush(timeout)


def close(timeout: float = EXIT_TIMEOUT) -> bool:
    """Ends the recording: delivers, closes every sink. False where that took over `timeout` s."""
    with _lock:
        return _pipeline.close(timeout)


def stats() -> list[Stats]:
    """What became of this process's records, sink by sink: emitted = delivered + dropped + what
    waits in the ring."""
    with _lock:
        return _pipeline.stats()


def counts() -> tuple[int, int]:
    """(emitted, dropped): records of this process since its first sink was added, and those that
    did not or will not reach one of the sinks. Takes no lock that a slow sink holds."""
    ring, workers = _pipeline.ring, list(_pipeline.workers)
    if ring is None:
        return 0, 0
    totals = ring.stats()
    dropped = sum(int(totals["sinks"][worker.index]["dropped"]) for worker in workers)
    return int(totals["emitted"]), dropped + int(totals["lost"])


def restart() -> None:
    """Called by the first record after a fork."""
    with _lock:
        _pipeline.restart()


def note(event: str, details: dict[str, Any]) -> None:
    """Leaves a record about the audit itself, `tracesock.audit.EVENT`."""
    import json

    text = json.dumps({"event": f"tracesock.audit.{event}", **details}, ensure_ascii=True)
    if len(text) > _audit.NOTE_CAPACITY:
        text = json.dumps({"event": f"tracesock.audit.{event}", "truncated": True})
    _audit.note(text)


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()
    _pipeline.after_fork()


def _at_exit() -> None:
    close()
    _audit.set_restart(None)
    context.uninstall()


def _before_exit() -> None:
    """Called when the main thread has ended, before the first exit function: one of them may end
    what a sink delivers to, as a logger provider of OpenTelemetry's SDK ends itself."""
    for worker in list(_pipeline.workers):
        worker.nudge()
    flush(_EXIT_FLUSH)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
# What concurrent.futures ends its threads by; without it only the last moment's records are late.
with contextlib.suppress(AttributeError, RuntimeError):
    threading._register_atexit(_before_exit)  # type: ignore[attr-defined]
