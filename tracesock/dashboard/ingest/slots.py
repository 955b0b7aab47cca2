"""Histograms by time: the buckets of each series, summed up in slots as observations arrive.

A row holds one series in one slot, its buckets packed into one text. Series over all peers have
slots of three widths, series of one peer the two wider: see `schema.py`. With many peers a batch
touches as many rows as it has spans, so under load rows are written once a second only; until then
each batch's observations are in the table `unsettled`, as one text, within the batch's own
transaction: nothing is lost with the process.
"""

from __future__ import annotations

import json
import sqlite3
from typing import Final

from tracesock.dashboard.ingest.bulk import insert
from tracesock.dashboard.ingest.catalog import Catalog
from tracesock.dashboard.schema import COARSE, FINE, MIDDLE

_FINE_NS: Final = FINE * 1_000_000_000
_CACHED: Final = 30_000

Buckets = dict[int, float]
_Key = tuple[int, int, int]


def pack(buckets: Buckets) -> str:
    """Buckets as a JSON array of numbers and counts in turn."""
    flat: list[float] = []
    for bucket, n in buckets.items():
        flat += (bucket, n if isinstance(n, int) else round(n, 3))
    # The text of a list of numbers is JSON, and faster than its encoder.
    return str(flat)


def unpack_into(buckets: Buckets, packed: str) -> None:
    """Adds packed buckets to `buckets`."""
    flat = json.loads(packed)
    for bucket, n in zip(flat[::2], flat[1::2], strict=True):
        buckets[bucket] = buckets.get(bucket, 0) + n


class Slots:
    """Gathers observations with `add`, adds them to the stored rows with `flush`."""

    def __init__(self, db: sqlite3.Connection, catalog: Catalog) -> None:
        self._db = db
        self._catalog = catalog
        self._gathered: dict[tuple[int, int], Buckets] = {}
        # What is in `unsettled` and not yet in `latency`.
        self._waiting: dict[tuple[int, int], Buckets] = {}
        self._rows: dict[_Key, Buckets] = {}
        # Slots above these have no row but the cached ones, so none needs to be looked for.
        self._newest = {width: self._highest(width) for width in (FINE, MIDDLE, COARSE)}
        for (text,) in db.execute("SELECT observations FROM unsettled"):
            for slot, series, *flat in json.loads(text):
                into = self._waiting.setdefault((slot, series), {})
                for bucket, n in zip(flat[::2], flat[1::2], strict=True):
                    into[bucket] = into.get(bucket, 0) + n

    def _highest(self, width: int) -> int:
        row = self._db.execute("SELECT max(slot) FROM latency WHERE width = ?", (width,)).fetchone()
        return -1 if row[0] is None else int(row[0])

    @property
    def unsettled(self) -> bool:
        """Whether observations wait to be settled."""
        return bool(self._waiting)

    def add(self, time_ns: int, series: int, bucket: int, n: float = 1) -> None:
        """One observation, or `n` of them, at a time."""
        key = (time_ns // _FINE_NS, series)
        buckets = self._gathered.get(key)
        if buckets is None:
            self._gathered[key] = {bucket: n}
        else:
            buckets[bucket] = buckets.get(bucket, 0) + n

    def flush(self, arrived: int, settle: bool) -> None:
        """Writes what was gathered: into its rows, or only into the table that waits for it."""
        gathered, self._gathered = self._gathered, {}
        if gathered and not settle:
            packed = [
                [slot, series, *(v for pair in buckets.items() for v in pair)]
                for (slot, series), buckets in gathered.items()
            ]
            self._db.execute("INSERT INTO unsettled (observations) VALUES (?)", (str(packed),))
        if self._waiting:
            for key, buckets in gathered.items():
                _merge(self._waiting.setdefault(key, {}), buckets)
        else:
            self._waiting = gathered
        if settle and self._waiting:
            self._settle(arrived)

    def _settle(self, arrived: int) -> None:
        whole = self._catalog.over_all_peers
        changed: set[_Key] = set()
        over_all: dict[tuple[int, int], Buckets] = {}
        for (slot, series), buckets in self._waiting.items():
            all_peers = whole.get(series) or self._catalog.whole(series)
            _merge(over_all.setdefault((slot, all_peers), {}), buckets)
            if all_peers != series:
                self._add(changed, MIDDLE, slot * FINE // MIDDLE, series, buckets)
                self._add(changed, COARSE, slot * FINE // COARSE, series, buckets)
        for (slot, series), buckets in over_all.items():
            self._add(changed, FINE, slot, series, buckets)
            self._add(changed, MIDDLE, slot * FINE // MIDDLE, series, buckets)
            self._add(changed, COARSE, slot * FINE // COARSE, series, buckets)
        self._waiting = {}
        self._db.execute("DELETE FROM unsettled")
        insert(
            self._db,
            "INSERT OR REPLACE INTO latency",
            [(*key, pack(self._rows[key]), arrived) for key in sorted(changed)],
        )
        if len(self._rows) > _CACHED:
            for width, slot, _ in self._rows:
                self._newest[width] = max(self._newest[width], slot)
            self._rows.clear()

    def _add(
        self, changed: set[_Key], width: int, slot: int, series: int, buckets: Buckets
    ) -> None:
        key = (width, slot, series)
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = self._stored(key) if slot <= self._newest[width] else {}
        _merge(row, buckets)
        changed.add(key)

    def _stored(self, key: _Key) -> Buckets:
        row = self._db.execute(
            "SELECT buckets FROM latency WHERE width = ? AND slot = ? AND series_id = ?", key
        ).fetchone()
        buckets: Buckets = {}
        if row is not None:
            unpack_into(buckets, row[0])
        return buckets


def _merge(into: Buckets, buckets: Buckets) -> None:
    for bucket, n in buckets.items():
        into[bucket] = into.get(bucket, 0) + n
