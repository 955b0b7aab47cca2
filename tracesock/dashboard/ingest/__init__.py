"""OTLP messages into rows. Used by the store's writer thread only, inside its transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

from tracesock.dashboard.ingest.catalog import OTHER, Catalog
from tracesock.dashboard.ingest.metrics import MetricIntake
from tracesock.dashboard.ingest.records import HISTORY_WIDTH, RecordIntake
from tracesock.dashboard.ingest.slots import Slots
from tracesock.dashboard.ingest.spans import SpanIntake
from tracesock.dashboard.otlp import Limits, Signal

__all__ = ["HISTORY_WIDTH", "OTHER", "Ingest"]

_NS = 1_000_000_000


class Ingest:
    """Turns requests into rows of one connection.

    `take` gathers the rows of a request, `flush` writes what was gathered, both inside a
    transaction of the caller. After a rollback call `reset`: the caches may name rows that do not
    exist.
    """

    def __init__(
        self, connection: sqlite3.Connection, limits: Limits, clock: Callable[[], int]
    ) -> None:
        self._db = connection
        self._limits = limits
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        """Forgets every cache and all gathered rows."""
        self._counts: dict[str, int] = {}
        catalog = Catalog(self._db, self.count)
        slots = Slots(self._db, catalog)
        self._catalog = catalog
        self._slots = slots
        self._spans = SpanIntake(self._db, catalog, slots, self._limits, self.count)
        self._metrics = MetricIntake(self._db, catalog, slots, self._limits, self.count)
        self._records = RecordIntake(self._db, catalog, self._limits, self.count)

    def count(self, reason: str, n: int = 1) -> None:
        """Adds to a figure of the intake table."""
        self._counts[reason] = self._counts.get(reason, 0) + n

    def forget(self, up_to: int) -> None:
        """Forgets the traces numbered up to `up_to`: retention is about to delete them."""
        self._spans.forget(up_to)

    def take(self, signal: Signal, request: Any) -> int:
        """Gathers the records of a request; returns how many were rejected."""
        now = self._clock()
        if signal is Signal.TRACES:
            return self._spans.take(request, now // _NS)
        if signal is Signal.METRICS:
            return self._metrics.take(request, now // _NS)
        return self._records.take(request, now)

    @property
    def unsettled(self) -> bool:
        """Whether a `flush` with `settle` is due soon: pages do not show everything before."""
        return self._slots.unsettled

    def flush(self, settle: bool = True) -> None:
        """Writes everything gathered since the last flush; see `slots.py` for `settle`."""
        arrived = self._clock() // _NS
        self._spans.flush(arrived)
        self._metrics.flush()
        self._records.flush()
        self._slots.flush(arrived, settle)
        for reason, n in self._counts.items():
            self._db.execute(
                "INSERT INTO intake VALUES (?, ?) ON CONFLICT DO UPDATE SET n = n + excluded.n",
                (reason, n),
            )
        self._counts.clear()
