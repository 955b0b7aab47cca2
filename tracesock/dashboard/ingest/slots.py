"""Histograms by time: the buckets of each series, summed up in slots as observations arrive.

A row holds one series in one slot, its buckets packed into one text. Series over all peers have
slots of three widths, series of one peer the two wider: see `schema.py`. Texts of a row are joined
by writing them one after the other, so what is added to a row that is not in memory is appended,
unread, and summed up when it is read. With many peers a batch touches as many rows as it has
spans, so under load rows are written once a second only; until then each batch's observations are
in the table `unsettled`, as one text, within the batch's own transaction: nothing is lost with the
process.
"""

from __future__ import annotations

import json
import sqlite3
from typing import Any, Final

from tracesock.dashboard.ingest.bulk import insert
from tracesock.dashboard.ingest.catalog import Catalog
from tracesock.dashboard.schema import COARSE, FINE, MIDDLE

_FINE_NS: Final = FINE * 1_000_000_000
_CACHED: Final = 30_000
# One in so many additions to a row reads it and writes it summed up, which bounds its length.
_APPENDED: Final = 16

Buckets = dict[int, float]
_Key = tuple[int, int, int]
_decode = json.JSONDecoder().raw_decode


def pack(buckets: Buckets) -> str:
    """Buckets as numbers and counts in turn, a comma before each."""
    flat: list[float] = []
    for bucket, n in buckets.items():
        flat += (bucket, n if isinstance(n, int) else round(n, 3))
    # The text of a list of numbers is JSON, and faster than its encoder.
    return f",{str(flat)[1:-1]}" if flat else ""


def unpack_into(buckets: Buckets, packed: str) -> None:
    """Adds packed buckets, of one row or of several joined, to `buckets`."""
    values = iter(_decode(f"[0{packed}]")[0])
    next(values)
    get = buckets.get
    for bucket, n in zip(values, values, strict=True):
        buckets[bucket] = get(bucket, 0) + n


class Slots:
    """Gathers observations with `add`, adds them to the stored rows with `flush`."""

    def __init__(self, db: sqlite3.Connection, catalog: Catalog) -> None:
        self._db = db
        self._catalog = catalog
        self._gathered: dict[tuple[int, int], Buckets] = {}
        # What is in `unsettled` and not yet in `latency`.
        self._waiting: dict[tuple[int, int], Buckets] = {}
        self._rows: dict[_Key, Buckets] = {}
        self._round = 0
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
                _merge_at(self._waiting, key, buckets)
        else:
            self._waiting = gathered
        if settle and self._waiting:
            self._settle(arrived)

    def _settle(self, arrived: int) -> None:
        whole = self._catalog.over_all_peers
        changed: set[_Key] = set()
        added: dict[_Key, str] = {}
        over_all: dict[tuple[int, int], Buckets] = {}
        self._round += 1
        for (slot, series), buckets in self._waiting.items():
            all_peers = whole.get(series) or self._catalog.whole(series)
            if all_peers != series:
                self._add(changed, added, slot, series, buckets, (MIDDLE, COARSE))
            _merge_at(over_all, (slot, all_peers), buckets)
        for (slot, series), buckets in over_all.items():
            self._add(changed, added, slot, series, buckets, (FINE, MIDDLE, COARSE))
        self._waiting = {}
        self._db.execute("DELETE FROM unsettled")
        insert(
            self._db,
            "INSERT OR REPLACE INTO latency",
            [(*key, pack(self._rows[key]), arrived) for key in sorted(changed)],
        )
        insert(
            self._db,
            "INSERT INTO latency",
            [(*key, added[key], arrived) for key in sorted(added)],
            "ON CONFLICT DO UPDATE SET buckets = buckets || excluded.buckets,"
            " arrived_s = excluded.arrived_s",
        )
        if len(self._rows) > _CACHED:
            self._evict()

    def _add(
        self,
        changed: set[_Key],
        added: dict[_Key, str],
        slot: int,
        series: int,
        buckets: Buckets,
        widths: tuple[int, ...],
    ) -> None:
        """Adds to rows that are in memory; notes what is to be appended to stored ones."""
        packed = ""
        for width in widths:
            key = (width, slot * FINE // width, series)
            row = self._rows.get(key)
            if row is None and key[1] <= self._newest[width]:
                if (series + self._round) % _APPENDED:
                    packed = packed or pack(buckets)
                    there = added.get(key)
                    added[key] = packed if there is None else there + packed
                    continue
                row = self._rows[key] = self._stored(key)
            if row is None:
                self._rows[key] = dict(buckets)
            else:
                _merge(row, buckets)
            changed.add(key)

    def _evict(self) -> None:
        """Keeps the rows of the newest slots, to which most is added, where they are few."""
        highest = dict(self._newest)
        for width, slot, _ in self._rows:
            if slot > highest[width]:
                highest[width] = slot
        kept = {k: row for k, row in self._rows.items() if k[1] >= highest[k[0]] - 1}
        self._rows = kept if len(kept) <= _CACHED // 2 else {}
        self._newest = highest

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


def _merge_at(into: dict[Any, Buckets], key: Any, buckets: Buckets) -> None:
    there = into.get(key)
    if there is None:
        into[key] = dict(buckets)
    else:
        _merge(there, buckets)
